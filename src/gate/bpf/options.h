/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file TCP options: window scale, SACK permitted, SACK (RFC 7323, RFC 2018). Pure. */
#pragma once

#include "gate/bpf/track.h"

#define GATE_OPTIONS_MAX 16 /* more than any stack sends, padding included */

/** Packed, so that a function the verifier checks by itself can return it: sack << 32 | scale << 8 | flags. */
static __always_inline __u64 gate_options_pack(const struct gate_tcp_opt *o)
{
	return ((__u64)o->sack << 32) | ((__u64)o->scale << 8) | o->flags;
}

static __always_inline void gate_options_unpack(__u64 v, struct gate_tcp_opt *o)
{
	o->sack = (__u32)(v >> 32);
	o->scale = (__u8)(v >> 8);
	o->flags = (__u8)v;
}

/** p: the first option; len: their bytes (0 to 40); ack: of this segment. Malformed options end the walk: what was read so far counts. */
static __always_inline __u64 gate_options_parse(const __u8 *p, const __u8 *end, __u32 len, __u32 ack, int syn)
{
	struct gate_tcp_opt o = {.sack = ack};
	__u32 at = 0, size, i, j, edge;
	const __u8 *q;

	for (i = 0; i < GATE_OPTIONS_MAX; i++) {
		if (at >= len || at >= 40)
			break;
		q = p + at;
		if (q + 1 > end || q[0] == 0)
			break;
		if (q[0] == 1) {
			at++;
			continue;
		}
		if (q + 2 > end)
			break;
		size = q[1];
		if (size < 2 || at + size > len)
			break;
		if (syn && q[0] == 3 && size == 3) {
			if (q + 3 > end)
				break;
			o.scale = q[2];
			o.flags |= GATE_TCP_SCALE;
		} else if (syn && q[0] == 4 && size == 2) {
			o.flags |= GATE_TCP_SACK;
		} else if (!syn && q[0] == 5) {
			for (j = 0; j < 4; j++) {
				if (10 + 8 * j > size || q + 10 + 8 * j > end)
					break;
				edge = ((__u32)q[6 + 8 * j] << 24) | ((__u32)q[7 + 8 * j] << 16) | ((__u32)q[8 + 8 * j] << 8) |
				       q[9 + 8 * j];
				if (gate_before(o.sack, edge))
					o.sack = edge;
			}
		}
		at += size;
	}
	return gate_options_pack(&o);
}
