/* SPDX-License-Identifier: Apache-2.0 */
/** \file Two byte streams joined: everything that comes out of one goes into the other, both ways, with half-close and backpressure.
 * One fixed buffer a direction: a side is read only when what it said before has been taken. On the loop's thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define RELAY_BUFFER 65536 /* bytes a direction */

/** One side. A socket has rfd == wfd. Non-blocking or not: only ready descriptors are touched, and a blocking pipe gets no more than it has
 * room for. The relay closes both when it is done, but never changes their flags (they may be shared with other processes). */
struct relay_side {
	int rfd, wfd;
};

struct relay;

/** Once, when both directions have ended, or one of them failed. err: 0 or the errno that ended it. The descriptors are closed, the relay
 * is freed after it returns. Never from within relay_start or relay_stop. */
typedef void (*relay_done)(struct relay *r, int err, void *arg);

/** `early`: bytes that side a has said already (at most RELAY_BUFFER; copied). Takes the descriptors also when it fails.
 * \return 0 or negative errno. */
int relay_start(uv_loop_t *loop, struct relay_side a, struct relay_side b, const uint8_t *early, size_t n, relay_done done, void *arg,
		struct relay **out);

/** Ends it at once; `done` follows with ECANCELED. */
void relay_stop(struct relay *r);
