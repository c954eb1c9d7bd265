/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Anti-replay window after RFC 6479: a ring of words, one of them always being filled. Called under the hole's lock. Pure. */
#pragma once

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

/** \return 1 and marks the counter; 0 when it was seen, is too old, or is 0. */
static __always_inline int gate_replay_accept(struct gate_replay *r, __u64 counter)
{
	const __u64 word = counter >> 6, mask = 1ull << (counter & 63), top = r->top >> 6;
	__u64 skip, i;

	if (counter == 0)
		return 0;
	if (counter > r->top) {
		skip = word - top;
		if (skip > GATE_REPLAY_WORDS)
			skip = GATE_REPLAY_WORDS;
		for (i = 1; i <= GATE_REPLAY_WORDS; i++) {
			if (i > skip)
				break;
			r->bits[(top + i) & (GATE_REPLAY_WORDS - 1)] = 0;
		}
		r->top = counter;
	} else if (r->top - counter > 64 * (GATE_REPLAY_WORDS - 1)) {
		return 0;
	}
	if (r->bits[word & (GATE_REPLAY_WORDS - 1)] & mask)
		return 0;
	r->bits[word & (GATE_REPLAY_WORDS - 1)] |= mask;
	return 1;
}
