/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file A token bucket as one number: when the next packet would be due at the set rate. Pure; the caller holds the lock. */
#pragma once

#include "gate/bpf/port.h"

/** Whether the rate is used up; burst is how far ahead of it one may run, in ns. Changes nothing. */
static __always_inline int gate_bucket_empty(__u64 due, __u64 now, __u64 burst)
{
	return due > now && due - now > burst;
}

static __always_inline void gate_bucket_charge(__u64 *due, __u64 now, __u64 cost)
{
	*due = (*due > now ? *due : now) + cost;
}
