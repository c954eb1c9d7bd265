/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The flow table: inside end and remote -> the hole or session that owns this five-tuple. Both directions of both kinds find their
 * way through the one entry, so that no two flows ever share a five-tuple. */
#pragma once

#include "gate/bpf/maps.h"

/* An entry that nobody owns yet; from the programs' read-only data, for a flow is large and a program's stack small. */
const struct gate_flow gate_flow_none = {};

/** Whether the hole that an entry names still holds it. k: the entry's key. */
static __always_inline int gate_flow_hole_alive(__u64 id, const struct gate_key *k, __u64 now)
{
	__u32 index = GATE_HOLE_INDEX(id);
	const struct gate_grant *g = bpf_map_lookup_elem(&grants, &index);
	const struct gate_hole *h = bpf_map_lookup_elem(&holes, &index);

	if (!g || !h || GATE_READ(g->id) != id || now >= g->expires)
		return 0;
	if (!gate_ip_eq(GATE_IP(g->inside), k->local_ip) || g->inside_port != k->local_port)
		return 0;
	if (h->id != id || !h->bound) /* a claim comes before the binding */
		return 1;
	return gate_ip_eq(GATE_IP(h->remote), k->remote_ip) && h->remote_port == k->remote_port &&
	       !(h->closed && now > h->closed + GATE_TCP_TRANSITORY_NS);
}

/** owner: as read from the entry f. */
static __always_inline int gate_flow_alive(const struct gate_flow *f, __u64 owner, const struct gate_key *k, __u64 now)
{
	if (GATE_OWNER_KIND(owner) == GATE_FLOW_HOLE)
		return gate_flow_hole_alive(GATE_OWNER_VALUE(owner), k, now);
	return GATE_OWNER_KIND(owner) == GATE_FLOW_SESSION && now < GATE_READ(f->expires);
}

static __always_inline void gate_usage_add(__u32 slot, __s64 n)
{
	struct gate_usage *use = bpf_map_lookup_elem(&usage, &slot);

	if (use)
		__sync_fetch_and_add(&use->sessions, (__u64)n);
}

/** A session's place in the books of its tenant, and of all. */
static __always_inline void gate_usage_session(__u32 tenant, __s64 n)
{
	gate_usage_add(tenant & (GATE_TENANT_SLOTS - 1), n);
	gate_usage_add(GATE_USAGE_ALL, n);
}

/**
 * The entry for a newcomer, made if there is none. A newcomer never takes a live flow's place.
 * \param mine  what the owner will be
 * \param was   receives the owner that was found: `mine`, or one that is gone
 * \return the entry; 0 with the reason in *why.
 */
static __always_inline struct gate_flow *gate_flow_vacant(const struct gate_key *k, __u64 mine, __u64 now, __u64 *was, int *why)
{
	struct gate_flow *f = bpf_map_lookup_elem(&flows, k);

	if (!f) {
		bpf_map_update_elem(&flows, k, &gate_flow_none, BPF_NOEXIST);
		f = bpf_map_lookup_elem(&flows, k); /* ours, or that of somebody who was quicker */
		if (!f) {
			*why = GATE_R_FLOWS_FULL;
			return 0;
		}
	}
	*was = GATE_READ(f->owner);
	if (*was == mine)
		return f;
	if (*was == GATE_FLOW_DEAD) {
		*why = GATE_R_BUSY;
		return 0;
	}
	if (gate_flow_alive(f, *was, k, now)) {
		*why = GATE_R_REVERSE_CLASH;
		return 0;
	}
	return f;
}

/** Makes the entry a hole's. \return 0, or the reason. */
static __always_inline int gate_flow_claim(const struct gate_key *k, __u64 id, __u64 now)
{
	const __u64 mine = GATE_OWNER(GATE_FLOW_HOLE, id);
	struct gate_flow *f;
	__u64 was = 0;
	__u32 tenant = 0;
	int why = 0, ended = 0;

	f = gate_flow_vacant(k, mine, now, &was, &why);
	if (!f)
		return why;
	if (was == mine)
		return 0;
	bpf_spin_lock(&f->lock);
	if (f->owner == mine) {
		; /* a packet beside this one was quicker */
	} else if (f->owner != was || (GATE_OWNER_KIND(was) == GATE_FLOW_SESSION && now < f->expires)) {
		why = GATE_R_BUSY;
	} else {
		ended = GATE_OWNER_KIND(was) == GATE_FLOW_SESSION;
		tenant = f->tenant;
		f->owner = mine;
	}
	bpf_spin_unlock(&f->lock);
	if (ended)
		gate_usage_session(tenant, -1);
	return why;
}

/** Deletes an entry. Only who has marked it dead does: no entry of another's can have taken its place meanwhile. */
static __always_inline int gate_flow_delete(const struct gate_key *k, struct gate_flow *f)
{
	if (bpf_map_delete_elem(&flows, k) == 0)
		return 1;
	GATE_WRITE(f->owner, 0); /* the table was busy: somebody else may have the place, or the sweep */
	return 0;
}

/** A hole gives its entry up, if it has it. */
static __always_inline void gate_flow_release(const struct gate_key *k, __u64 id)
{
	struct gate_flow *f = bpf_map_lookup_elem(&flows, k);
	int dead = 0;

	if (!f)
		return;
	bpf_spin_lock(&f->lock);
	if (f->owner == GATE_OWNER(GATE_FLOW_HOLE, id)) {
		f->owner = GATE_FLOW_DEAD;
		dead = 1;
	}
	bpf_spin_unlock(&f->lock);
	if (dead)
		gate_flow_delete(k, f);
}
