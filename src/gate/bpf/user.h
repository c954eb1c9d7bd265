/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The rates of one user over all holes that count towards them. Packets of several holes meet here on several CPUs, each under its
 * own hole's lock: a program may hold no second one, so the buckets are words that are changed in one step. */
#pragma once

#include "gate/bpf/bucket.h"
#include "gate/bpf/maps.h"

/** The user's place, or 0 when this hole counts towards none. Before the hole's lock is taken. */
static __always_inline struct gate_user *gate_user_of(const struct gate_grant *g)
{
	const __u32 slot = g->user;

	return slot ? bpf_map_lookup_elem(&users, &slot) : 0;
}

/** Whether the user's rates let another packet towards a service. Changes nothing. Packets that ask at the same time on several CPUs may
 * all be let through: the rate is exceeded by at most one packet a CPU, once, since each is charged. */
static __always_inline int gate_user_room(const struct gate_user *u, __u64 now)
{
	if (!u)
		return 0;
	if (GATE_READ(u->packet_cost) && gate_bucket_empty(GATE_READ(u->packet_due), now, GATE_RATE_BURST_NS))
		return GATE_R_USER_PACKETS;
	if (GATE_READ(u->byte_cost) && gate_bucket_empty(GATE_READ(u->byte_due), now, GATE_RATE_BURST_NS))
		return GATE_R_USER_BYTES;
	return 0;
}

/** Only for a packet that has passed every other check: whoever forges packets cannot use up another's rate. */
static __always_inline void gate_user_charge(struct gate_user *u, __u32 bytes, __u64 now)
{
	__u64 cost;

	if (!u)
		return;
	cost = GATE_READ(u->packet_cost);
	if (cost)
		gate_bucket_add(&u->packet_due, now, cost);
	cost = GATE_READ(u->byte_cost);
	if (cost)
		gate_bucket_add(&u->byte_due, now, (bytes * cost) >> 16);
}
