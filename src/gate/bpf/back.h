/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The reverse table: inside end and remote -> the hole or session that answers belong to. One word an entry, claimed by
 * compare-and-swap, so that no two flows ever share one. */
#pragma once

#include "gate/bpf/maps.h"

/** Whether the hole that an entry names still holds it. k: the entry's key. */
static __always_inline int gate_back_hole_alive(__u64 id, const struct gate_key *k, __u64 now)
{
	__u32 index = GATE_HOLE_INDEX(id);
	const struct gate_grant *g = bpf_map_lookup_elem(&grants, &index);
	const struct gate_hole *h = bpf_map_lookup_elem(&holes, &index);

	if (!g || !h || GATE_READ(g->id) != id || now >= g->expires)
		return 0;
	if (g->inside_ip != k->local_ip || g->inside_port != k->local_port)
		return 0;
	if (h->id != id || !h->bound) /* a claim comes before the binding */
		return 1;
	return h->remote_ip == k->remote_ip && h->remote_port == k->remote_port && !(h->closed && now > h->closed + GATE_TCP_TRANSITORY_NS);
}

static __always_inline void gate_back_flow_key(__u64 value, const struct gate_key *k, struct gate_key *out)
{
	const __u32 slot = (__u32)(value >> 16) & (GATE_PUBLIC_SLOTS - 1);

	__builtin_memset(out, 0, sizeof(*out));
	out->local_ip = gate_params.public_ip[slot];
	out->local_port = (__u16)value;
	out->remote_ip = k->remote_ip;
	out->remote_port = k->remote_port;
	out->proto = k->proto;
}

static __always_inline int gate_back_flow_alive(__u64 value, const struct gate_key *k, __u64 now)
{
	struct gate_key fk;
	const struct gate_flow *f;

	gate_back_flow_key(value, k, &fk);
	f = bpf_map_lookup_elem(&flows, &fk);
	return f && !f->dead && now < f->expires && f->inside_ip == k->local_ip && f->inside_port == k->local_port;
}

static __always_inline int gate_back_alive(__u64 value, const struct gate_key *k, __u64 now)
{
	if (value >> 62 == GATE_BACK_HOLE)
		return gate_back_hole_alive(value & ~(3ull << 62), k, now);
	if (value >> 62 == GATE_BACK_FLOW)
		return gate_back_flow_alive(value, k, now);
	return 0;
}

/** Makes the entry ours. \return 0, or the reason. A newcomer never takes a live flow's place. */
static __always_inline int gate_back_claim(const struct gate_key *k, __u64 value, __u64 now)
{
	__u64 *v, old;

	v = bpf_map_lookup_elem(&back, k);
	if (!v) {
		long r = bpf_map_update_elem(&back, k, &value, BPF_NOEXIST);

		if (r == 0)
			return 0;
		v = bpf_map_lookup_elem(&back, k); /* somebody was quicker, or there is no room */
		if (!v)
			return GATE_R_FLOWS_FULL;
	}
	old = GATE_READ(*v);
	if (old == value)
		return 0;
	if (old == GATE_BACK_DEAD)
		return GATE_R_BUSY;
	if (gate_back_alive(old, k, now))
		return GATE_R_REVERSE_CLASH;
	return gate_cas(v, old, value) ? 0 : GATE_R_BUSY;
}

/** Gives it up if it is ours. */
static __always_inline void gate_back_release(const struct gate_key *k, __u64 value)
{
	__u64 *v = bpf_map_lookup_elem(&back, k);

	if (v && gate_cas(v, value, GATE_BACK_DEAD))
		bpf_map_delete_elem(&back, k);
}
