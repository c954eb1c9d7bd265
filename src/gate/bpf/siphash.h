/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file SipHash-2-4 (Aumasson, Bernstein), 64-bit output, read a word at a time so that the verifier can follow. Pure. */
#pragma once

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

struct gate_sip {
	__u64 v0, v1, v2, v3;
};

static __always_inline __u64 gate_rotl(__u64 x, int n)
{
	return (x << n) | (x >> (64 - n));
}

static __always_inline void gate_sip_round(struct gate_sip *s)
{
	s->v0 += s->v1;
	s->v1 = gate_rotl(s->v1, 13) ^ s->v0;
	s->v0 = gate_rotl(s->v0, 32);
	s->v2 += s->v3;
	s->v3 = gate_rotl(s->v3, 16) ^ s->v2;
	s->v0 += s->v3;
	s->v3 = gate_rotl(s->v3, 21) ^ s->v0;
	s->v2 += s->v1;
	s->v1 = gate_rotl(s->v1, 17) ^ s->v2;
	s->v2 = gate_rotl(s->v2, 32);
}

static __always_inline void gate_sip_init(struct gate_sip *s, __u64 k0, __u64 k1)
{
	s->v0 = k0 ^ 0x736f6d6570736575ull;
	s->v1 = k1 ^ 0x646f72616e646f6dull;
	s->v2 = k0 ^ 0x6c7967656e657261ull;
	s->v3 = k1 ^ 0x7465646279746573ull;
}

static __always_inline void gate_sip_word(struct gate_sip *s, __u64 m)
{
	s->v3 ^= m;
	gate_sip_round(s);
	gate_sip_round(s);
	s->v0 ^= m;
}

/** last: the bytes after the last whole word, little-endian; len: of the whole message. */
static __always_inline __u64 gate_sip_final(struct gate_sip *s, __u64 last, __u64 len)
{
	gate_sip_word(s, last | (len << 56));
	s->v2 ^= 0xff;
	gate_sip_round(s);
	gate_sip_round(s);
	gate_sip_round(s);
	gate_sip_round(s);
	return s->v0 ^ s->v1 ^ s->v2 ^ s->v3;
}

/**
 * Checks the tag of a UDP payload at p: len bytes of data, 8 of counter, 8 of MAC over both (ticket/tag.h).
 * \return 1 valid, 0 not; 0 too when the packet ends before the tag does.
 */
static __always_inline int gate_tag_check(const __u8 *p, const __u8 *end, __u32 len, __u64 k0, __u64 k1)
{
	const __u32 message = len + 8, words = message >> 3, rest = message & 7;
	struct gate_sip s;
	__u64 last, mac;
	__u32 i;

	if (len > GATE_TAG_DATA_MAX)
		return 0;
	gate_sip_init(&s, k0, k1);
	for (i = 0; i < (GATE_TAG_DATA_MAX + 8) / 8 + 1; i++) {
		if (i >= words)
			break;
		if (p + 8 > end)
			return 0;
		gate_sip_word(&s, GATE_LE64(GATE_LOAD64(p)));
		p += 8;
	}
	/* The MAC follows the message: eight bytes can be read at its ragged end, and what is too many is masked. */
	if (p + 8 > end)
		return 0;
	last = GATE_LE64(GATE_LOAD64(p)) & ((1ull << (rest * 8)) - 1);
	p += rest;
	if (p + 8 > end)
		return 0;
	mac = GATE_LE64(GATE_LOAD64(p));
	return gate_sip_final(&s, last, message) == mac;
}
