/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What `walnut gate trace` sees of a dropped packet: shared with user space. Headers only, never payload. */
#pragma once

#include <linux/types.h>

/** What user space wants to see; in the programs' zeroed data, so a new load traces nothing. `until` is written last. */
struct gate_trace_want {
	__u64 until;      /* boot clock; 0: off. It passes by itself: a daemon that died leaves no trace running */
	__u64 reasons[2]; /* a bit each */
	__u32 per_s;
	__u32 pad;
};

struct gate_sample {
	__u64 time; /* ns of the boot clock */
	__u32 reason;
	__u32 ifindex;
	__u32 length;       /* of the frame */
	__u16 ethertype;    /* host order */
	__u8 ip;            /* 4, 6, or 0 when there is no such header; then the rest is zero */
	__u8 proto;         /* IPv6: the first next header */
	__u16 sport, dport; /* host order; TCP and UDP, not of later fragments */
	__u8 icmp_type, icmp_code;
	__u8 pad[2];
	__u8 src[16], dst[16]; /* IPv4: the first four bytes */
};

_Static_assert(sizeof(struct gate_trace_want) == 32, "trace order");
_Static_assert(sizeof(struct gate_sample) == 64, "sample");
