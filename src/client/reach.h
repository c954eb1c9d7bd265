/* SPDX-License-Identifier: Apache-2.0 */
/** \file The way to the fronts from this machine: in which order, from which address, on which socket. Start of a session only; system
 * calls that do not block. */
#pragma once

#include "client/enrol.h"

/** Fronts of one address family, since they share a socket. */
struct reach {
	struct wn_addr at[ENROL_FRONTS_MAX];
	unsigned n;
};

/** The enrolment's fronts in an order drawn anew; those of the first one's family. */
void reach_draw(struct reach *r, const struct enrol *e);
/** Makes at[i] the first. */
void reach_begin_with(struct reach *r, unsigned i);
/** The address that packets to `to` leave from. \return 0 or negative errno: there is no way. */
int reach_from(const struct wn_addr *to, struct wn_addr *out);
/** A UDP socket, not blocking, on a port of its own of any address; local->port becomes that port. receive: bytes to be buffered, 0: the
 * system's. \return the socket, the caller's to close, or negative errno. */
int reach_open(struct wn_addr *local, int receive);
