/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file TCP options: those that the window is counted with (RFC 7323, RFC 2018), and what no stack would send. Pure. */
#pragma once

#include "gate/bpf/track.h"

#define GATE_OPTIONS_MAX   40         /* bytes of them, and so at most so many */
#define GATE_TCP_MSS_MIN   88         /* less makes the other end send more header than data, and no link in use is so narrow */
#define GATE_TCP_WINDOW_IS (1u << 30) /* the largest window there is (RFC 7323 2.3) */

enum gate_tcp_option { GATE_O_END = 0, GATE_O_NOP, GATE_O_MSS, GATE_O_SCALE, GATE_O_SACK_OK, GATE_O_SACK, GATE_O_TIMESTAMP = 8 };

/* Where the reading stands and what it has found, packed, so that functions which the verifier checks by themselves can hand it on:
 * SACK << 32 | scale << 24 | flags << 16 | kinds seen << 6 | offset. */
#define GATE_OPTIONS_AT   0x3fu
#define GATE_OPTIONS_SEEN 6
#define GATE_OPTIONS_DONE GATE_OPTIONS_AT /* beyond any option */

static __always_inline __u64 gate_options_pack(const struct gate_tcp_opt *o, __u32 seen, __u32 at)
{
	return ((__u64)o->sack << 32) | ((__u64)o->scale << 24) | ((__u64)o->flags << 16) | ((seen & 0x3ff) << GATE_OPTIONS_SEEN) |
	       (at & GATE_OPTIONS_AT);
}

static __always_inline void gate_options_unpack(__u64 v, struct gate_tcp_opt *o)
{
	o->sack = (__u32)(v >> 32);
	o->scale = (__u8)(v >> 24);
	o->flags = (__u8)(v >> 16);
}

/** The blocks of a SACK option: size is its length byte's. \return 0 for a block that cannot be: empty or reversed, or not within the
 * largest window on either side of the ACK (before it: D-SACK, RFC 2883). */
static __always_inline int gate_options_sack(const __u8 *q, const __u8 *end, __u32 size, __u32 ack, struct gate_tcp_opt *o)
{
	__u32 j, left, right;

	if (size < 10 || (size & 7) != 2)
		return 0;
	for (j = 0; j < 4; j++) {
		if (10 + 8 * j > size)
			break;
		if (q + 10 + 8 * j > end)
			return 0;
		left = ((__u32)q[2 + 8 * j] << 24) | ((__u32)q[3 + 8 * j] << 16) | ((__u32)q[4 + 8 * j] << 8) | q[5 + 8 * j];
		right = ((__u32)q[6 + 8 * j] << 24) | ((__u32)q[7 + 8 * j] << 16) | ((__u32)q[8 + 8 * j] << 8) | q[9 + 8 * j];
		if (!gate_before(left, right) || right - left > GATE_TCP_WINDOW_IS ||
		    right - ack + GATE_TCP_WINDOW_IS > 2 * GATE_TCP_WINDOW_IS)
			return 0;
		if (gate_before(o->sack, right))
			o->sack = right;
	}
	return 1;
}

/** What a SYN may say once. \return 0 when it cannot say that. */
static __always_inline int gate_options_syn(const __u8 *q, const __u8 *end, __u32 size, struct gate_tcp_opt *o)
{
	if (q[0] == GATE_O_MSS)
		return size == 4 && q + 4 <= end && (((__u32)q[2] << 8) | q[3]) >= GATE_TCP_MSS_MIN;
	if (q[0] == GATE_O_SCALE) {
		if (size != 3 || q + 3 > end)
			return 0;
		o->scale = q[2];
		o->flags |= GATE_TCP_SCALE;
	} else if (q[0] == GATE_O_SACK_OK) {
		o->flags |= GATE_TCP_SACK;
		return size == 2;
	} else if (q[0] == GATE_O_SACK) {
		return 0;
	}
	return 1;
}

/** Reads the option that v has come to. p: the first option; len: the bytes of all, 1 to 40; ack: of this segment; syn: whether it has
 * one. \return v after it; GATE_TCP_BAD among the flags: no stack sends this, and the two ends might read it otherwise than the gate. */
static __always_inline __u64 gate_options_step(const __u8 *p, const __u8 *end, __u64 v, __u32 len, __u32 ack, int syn)
{
	const __u32 at = (__u32)v & GATE_OPTIONS_AT;
	__u32 seen = (__u32)v >> GATE_OPTIONS_SEEN & 0x3ff, size;
	struct gate_tcp_opt o;
	const __u8 *q;

	gate_options_unpack(v, &o);
	if (at >= 40 || at >= len)
		return v | GATE_OPTIONS_DONE;
	q = p + at;
	if (q + 1 > end || q[0] == GATE_O_END)
		return v | GATE_OPTIONS_DONE;
	if (q[0] == GATE_O_NOP)
		return gate_options_pack(&o, seen, at + 1);
	if (q + 2 > end)
		goto bad;
	size = q[1];
	if (size < 2 || at + size > len)
		goto bad;
	if (q[0] <= GATE_O_TIMESTAMP) {
		if (seen >> q[0] & 1)
			goto bad;
		seen |= 1u << q[0];
	}
	if (q[0] == GATE_O_TIMESTAMP && size != 10)
		goto bad;
	if (syn ? !gate_options_syn(q, end, size, &o) : q[0] == GATE_O_SACK && !gate_options_sack(q, end, size, ack, &o))
		goto bad;
	return gate_options_pack(&o, seen, at + size);
bad:
	o.flags |= GATE_TCP_BAD;
	return gate_options_pack(&o, seen, GATE_OPTIONS_DONE);
}

/** All of them, len 0 to 40. \return what gate_options_unpack takes. */
static __always_inline __u64 gate_options_parse(const __u8 *p, const __u8 *end, __u32 len, __u32 ack, int syn)
{
	__u64 v = (__u64)ack << 32;
	int i;

	for (i = 0; i < GATE_OPTIONS_MAX; i++) {
		if (((__u32)v & GATE_OPTIONS_AT) >= len)
			break;
		v = gate_options_step(p, end, v, len, ack, syn);
	}
	return v;
}
