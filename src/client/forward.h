/* SPDX-License-Identifier: Apache-2.0 */
/** \file The UDP half of `walnut forward`. */
#pragma once

#include "client/enrol.h"
#include "client/options.h"

#define FORWARD_FLOWS_MAX 256   /* local sources at a time; the one that was idle longest gives way, unless it is busy */
#define FORWARD_QUEUE_MAX 16    /* datagrams of a flow that wait for its sign-in */
#define FORWARD_IDLE_MS   60000 /* then BYE */
#define FORWARD_BUSY_MS   5000  /* used within this: never gives way */
#define FORWARD_AGAIN_MS  1000  /* after a failed sign-in: that source's datagrams are dropped for so long */
#define FORWARD_LEAVE_MS  2000

/** Listens on addr and runs until a signal. \return 0 or negative errno with a line on stderr. */
int forward_udp(const struct client_options *o, const struct wn_addr *addr, const struct enrol *e, const char *service);
