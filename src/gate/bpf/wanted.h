/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Whether anybody inside may want a packet from outside: two or three loads that a flood of strangers keeps warm. */
#pragma once

#include "gate/bpf/filter.h"
#include "gate/bpf/maps.h"

#define GATE_EXPLAIN 1000 /* misses a sweep and CPU that are looked into for their reason; the others are `no_hole` */

static __always_inline __u32 gate_filter_half(void)
{
	const __u32 zero = 0;
	const struct gate_meta *m = bpf_map_lookup_elem(&meta, &zero);

	return m ? GATE_READ(m->filter_half) & 1 : 0;
}

/* Member by member: of a whole struct the compiler would take the zeroes that stand in the source. */
static __always_inline struct gate_filter_size gate_filter_sized(void)
{
	struct gate_filter_size s = {.sessions = gate_params.filter.sessions, .holes = gate_params.filter.holes};

	return s;
}

static __always_inline __u64 *gate_filter_word(__u32 half, struct gate_filter_spot s)
{
	__u32 at = half * (gate_params.filter.sessions + gate_params.filter.holes) + s.word;

	return bpf_map_lookup_elem(&filter, &at);
}

static __always_inline int gate_filter_has(__u32 half, struct gate_filter_spot s)
{
	const __u64 *w = gate_filter_word(half, s);

	return w && (GATE_READ(*w) & s.bits) == s.bits;
}

/** A session lives, or lives on: into both halves, for one of them may be about to be used. */
static __always_inline void gate_wanted_add(__u32 local_ip, __u16 local_port, __u8 proto, __u32 remote_ip, __u16 remote_port)
{
	const __u64 hash = gate_filter_hash(gate_params.filter_key, local_ip, local_port, proto, remote_ip);
	const struct gate_filter_size size = gate_filter_sized();
	const struct gate_filter_spot s = gate_filter_session(size, hash, remote_port);
	__u32 half;
	__u64 *w;

	GATE_UNROLL
	for (half = 0; half < 2; half++) {
		w = gate_filter_word(half, s);
		if (w && (GATE_READ(*w) & s.bits) != s.bits)
			__sync_fetch_and_or(w, s.bits);
	}
}

/** at: the port's place in the port table. 0: certainly nobody does. */
static __always_inline int gate_wanted(__u32 at, __u32 local_ip, __u16 local_port, __u8 proto, __u32 remote_ip, __u16 remote_port)
{
	const __u64 hash = gate_filter_hash(gate_params.filter_key, local_ip, local_port, proto, remote_ip);
	const struct gate_filter_size size = gate_filter_sized();
	const __u32 half = gate_filter_half();
	__u32 word = at >> 6;
	const __u64 *w;

	if (gate_filter_has(half, gate_filter_session(size, hash, remote_port)) || gate_filter_has(half, gate_filter_hole(size, hash)))
		return 1;
	w = bpf_map_lookup_elem(&anyone, &word);
	return w && (GATE_READ(*w) >> (at & 63) & 1);
}

/** Why nobody does. Finding out costs what the filter saves: only so many times, until the next sweep. */
static __always_inline int gate_unwanted(__u32 at, __u8 ttl)
{
	__u32 which = GATE_B_EXPLAIN;
	__u64 *explained = bpf_map_lookup_elem(&budgets, &which);
	const struct gate_port *port;
	const struct gate_grant *g;
	__u64 owner;
	__u32 index;

	if (!explained || *explained >= GATE_EXPLAIN)
		return GATE_R_NO_HOLE;
	(*explained)++;
	port = bpf_map_lookup_elem(&ports, &at);
	if (!port)
		return GATE_R_INTERNAL;
	owner = GATE_READ(port->owner);
	if (owner != 0 && ttl <= 1)
		return GATE_R_TTL;
	if (GATE_OWNER_KIND(owner) == GATE_OWNER_MAPPING)
		return GATE_R_NO_SESSION;
	if (GATE_OWNER_KIND(owner) != GATE_OWNER_HOLE)
		return GATE_R_NO_HOLE;
	index = GATE_HOLE_INDEX(owner);
	g = bpf_map_lookup_elem(&grants, &index);
	if (!g || GATE_READ(g->id) == 0)
		return GATE_R_NO_HOLE;
	return gate_now() >= GATE_READ(g->expires) ? GATE_R_HOLE_EXPIRED : GATE_R_WRONG_REMOTE;
}
