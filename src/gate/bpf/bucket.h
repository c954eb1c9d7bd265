/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file A token bucket as one number: when the next packet would be due at the set rate. Pure; the caller holds the lock,
 * except where it says otherwise. */
#pragma once

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

#define GATE_RATE_BURST_NS (250 * GATE_NS_PER_MS)

/** Whether the rate is used up; burst is how far ahead of it one may run, in ns. Changes nothing. */
static __always_inline int gate_bucket_empty(__u64 due, __u64 now, __u64 burst)
{
	return due > now && due - now > burst;
}

static __always_inline void gate_bucket_charge(__u64 *due, __u64 now, __u64 cost)
{
	*due = (*due > now ? *due : now) + cost;
}

/** The same without a lock, on several CPUs at once. No charge is lost. When the swap fails another CPU has just brought the word up to its
 * own now, so that adding is right; if that now was earlier, it is by what the two clocks differ. */
static __always_inline void gate_bucket_add(__u64 *due, __u64 now, __u64 cost)
{
	const __u64 was = GATE_READ(*due);

	if (was < now && __sync_val_compare_and_swap(due, was, now + cost) == was)
		return;
	__sync_fetch_and_add(due, cost);
}
