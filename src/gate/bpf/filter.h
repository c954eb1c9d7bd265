/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What a packet from outside is held against before any table is looked at: a small filter of all flows that anybody inside may want
 * (Bloom, 1970; all bits of an entry in one word). It may let a stranger through to the tables, never refuse a wanted flow. Pure.
 *
 * Bits are only ever set while a half is in use: user space fills the other half from the tables and then swaps (filter.c). */
#pragma once

#include <linux/types.h>

#include "gate/bpf/port.h"

#define GATE_FILTER_ENTRY_BITS 16 /* for each flow that the tables hold: about one stranger in two hundred gets through when full */

/** Where an entry's bits are. */
struct gate_filter_spot {
	__u32 word;
	__u64 bits;
};

/** The words of one half: sessions first, then holes, so that many of one kind do not let strangers through to the other. */
struct gate_filter_size {
	__u32 sessions, holes;
};

/** key: secret, so that nobody outside can look for what gets through. */
static __always_inline __u64 gate_filter_hash(__u64 key, __u32 local_ip, __u16 local_port, __u8 proto, __u32 remote_ip)
{
	__u64 h = ((((__u64)remote_ip << 32) | local_ip) ^ key) * 0x9e3779b97f4a7c15ull;

	h = (h ^ (h >> 29) ^ (((__u64)local_port << 8) | proto)) * 0xbf58476d1ce4e5b9ull;
	return h ^ (h >> 32);
}

/** A session has one remote port (ICMP: 0), a hole any. */
static __always_inline __u64 gate_filter_hash_port(__u64 h, __u16 remote_port)
{
	h = (h + remote_port + 1) * 0x94d049bb133111ebull;
	return h ^ (h >> 31);
}

/** first, words: the part of a half that holds its kind. */
static __always_inline struct gate_filter_spot gate_filter_spot(__u64 h, __u32 first, __u32 words)
{
	struct gate_filter_spot s = {
		.word = first + (__u32)(((h >> 32) * words) >> 32),
		.bits = (1ull << (h & 63)) | (1ull << ((h >> 6) & 63)) | (1ull << ((h >> 12) & 63)) | (1ull << ((h >> 18) & 63)),
	};

	return s;
}

static __always_inline struct gate_filter_spot gate_filter_session(struct gate_filter_size size, __u64 hash, __u16 remote_port)
{
	return gate_filter_spot(gate_filter_hash_port(hash, remote_port), 0, size.sessions);
}

static __always_inline struct gate_filter_spot gate_filter_hole(struct gate_filter_size size, __u64 hash)
{
	return gate_filter_spot(hash, size.sessions, size.holes);
}
