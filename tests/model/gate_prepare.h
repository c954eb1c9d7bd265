/* SPDX-License-Identifier: Apache-2.0 */
/** \file A small table with one of everything, made by steps that are always the same. */
#pragma once

#include "gate_frame.h"
#include "gate_step.h"

enum prepared {
	PREPARED_TCP_HOLE,  /* bound */
	PREPARED_HANDSHAKE, /* a TCP hole whose service has answered */
	PREPARED_TAG_HOLE,  /* bound, three counters used */
	PREPARED_TAG_FRESH, /* nobody has used it */
	PREPARED_UDP_HOLE,  /* bound by its address */
	PREPARED_UDP,       /* sessions that the inside opened, answered */
	PREPARED_TCP,
	PREPARED_ICMP,
	PREPARED_N
};

/** The ends that a frame of it has: as seen outside or inside, from the sender. ICMP: the query id in both ports. */
struct prepared_ends {
	uint8_t proto;
	uint32_t src, dst;
	uint16_t sport, dport;
};

/** Starts the round and takes the steps. Aborts when the gate and the reference differ. */
void prepare(struct round *r);
/** The next frame of one of them, as its sender would send it. */
struct prepared_ends prepared_next(const struct round *r, enum prepared what, enum gm_side side, struct frame *f);
