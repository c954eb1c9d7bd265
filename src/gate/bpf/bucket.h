/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file A token bucket as one number: when the next packet would be due at the set rate. Pure; the caller holds the lock. */
#pragma once

#include "gate/bpf/port.h"

/** \return 1 when it fits and is charged; burst is how far ahead of the rate it may run, in ns. */
static __always_inline int gate_bucket_take(__u64 *due, __u64 now, __u64 cost, __u64 burst)
{
	__u64 d = *due;

	if (d < now)
		d = now;
	if (d - now > burst)
		return 0;
	*due = d + cost;
	return 1;
}
