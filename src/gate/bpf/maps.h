/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The tables. User space sets their sizes before the load; those marked "pinned" outlive it. */
#pragma once

#include "gate/bpf/family.h"

#if GATE_FAMILY == 4
const volatile struct gate_params gate_params = {};
#else
extern const volatile struct gate_params gate_params;
#endif

#if GATE_FAMILY == 4
/* pinned: who owns which public port */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, GATE_PROTOS << 16);
	__type(key, __u32);
	__type(value, struct gate_port);
} ports SEC(".maps");

/* pinned: filter.h, two halves of gate_params.filter_words */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} filter SEC(".maps");

/* a bit for each place of `ports`: it belongs to a hole that anyone may try, for its tag says who may */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, (GATE_PROTOS << 16) / 64);
	__type(key, __u32);
	__type(value, __u64);
} anyone SEC(".maps");

/* pinned: what goes on with an IPv6 packet, by side */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, GATE_SIDES);
	__type(key, __u32);
	__type(value, __u32);
} programs6 SEC(".maps");
#endif

/* pinned: what was granted */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gate_grant);
} grants SEC(".maps");

/* pinned: the same index; only user space looks */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gate_info);
} infos SEC(".maps");

/* pinned: what a grant's `user` names; user space sets costs, the path charges */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gate_user);
} users SEC(".maps");

/* pinned: the same index; only the path writes */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, struct gate_hole);
} holes SEC(".maps");

#if GATE_FAMILY == 4
/* pinned: inside end -> public end */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gate_end);
	__type(value, struct gate_mapping);
} mappings SEC(".maps");
#endif

/* pinned: inside end and remote -> hole or session */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gate_key);
	__type(value, struct gate_flow);
} flows SEC(".maps");

/* pinned: holes without translation that no flow has claimed yet */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gate_waiting_key);
	__type(value, struct gate_waiting);
} waiting SEC(".maps");

/* pinned: inside ends that only holes may use */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gate_end);
	__type(value, struct gate_service);
} services SEC(".maps");

/* pinned */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, GATE_USAGE_ALL + 1);
	__type(key, __u32);
	__type(value, struct gate_usage);
} usage SEC(".maps");

/* pinned */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GATE_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* pinned */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate_meta);
} meta SEC(".maps");

/* inside prefix -> tenant; made afresh with every load */
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct gate_prefix_key);
	__type(value, __u32);
} prefixes SEC(".maps");

/* by side */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, GATE_SIDES);
	__type(key, __u32);
	__type(value, __u32);
} devices SEC(".maps");

GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, GATE_BUDGETS);
	__type(key, __u32);
	__type(value, __u64);
} budgets SEC(".maps");

GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} events SEC(".maps");

/* next hop -> when user space was asked last */
GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct gate_asked);
	__type(value, __u64);
} asked SEC(".maps");

/* next hops; only user space writes. Every load has its own: who goes on writing the old one changes nothing */
#if GATE_FAMILY == 4
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct gate_hop_tables);
} hops SEC(".maps");
#endif

/* From the kernel's coarse clock to the boot clock: what was slept. User space keeps it up to date. */
#if GATE_FAMILY == 4
__u64 gate_slept = 0;
#else
extern __u64 gate_slept;
#endif

/** The boot clock to a tick (1 to 10 ms): the exact one costs as much as a packet's checksums. */
static __always_inline __u64 gate_now(void)
{
	return bpf_ktime_get_coarse_ns() + gate_slept;
}

static __always_inline void gate_count(__u32 reason)
{
	__u64 *c = bpf_map_lookup_elem(&counters, &reason);

	if (c)
		(*c)++;
}

static __always_inline int gate_budget(__u32 which, __u64 now, __u32 per_s, __u64 burst)
{
	__u64 *due = bpf_map_lookup_elem(&budgets, &which), d;

	if (!due)
		return 0;
	d = *due < now ? now : *due;
	if (d - now > burst)
		return 0;
	*due = d + GATE_NS_PER_S / per_s;
	return 1;
}

static __always_inline int gate_cas(__u64 *p, __u64 was, __u64 is)
{
	return __sync_val_compare_and_swap(p, was, is) == was;
}

static __always_inline int gate_proto_index(__u8 proto)
{
	return proto == 6 ? GATE_P_TCP : proto == 17 ? GATE_P_UDP : proto == GATE_IPPROTO_ICMP ? GATE_P_ICMP : -1;
}

static __always_inline int gate_public_slot(gate_ip ip)
{
#if GATE_FAMILY == 4
	const __u32 slot = gate_params.public_at[(ip * gate_params.public_mult) >> (32 - GATE_PUBLIC_AT_BITS)] & (GATE_PUBLIC_SLOTS - 1);

	return gate_params.public_ip[slot] == ip ? (int)slot : -1;
#else
	__u32 i;

	for (i = 0; i < GATE_PUBLIC_SLOTS; i++) {
		if (i >= gate_params.nprotected6)
			break;
		if (gate_ip_eq(gate_params.protected6[i], ip))
			return (int)i;
	}
	return -1;
#endif
}
