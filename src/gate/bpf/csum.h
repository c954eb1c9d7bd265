/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Incremental Internet checksums (RFC 1624, equation 3). Words are summed as loaded, in any one byte order. Pure. */
#pragma once

#include <linux/types.h>

#include "gate/bpf/port.h"

static __always_inline __u32 gate_sum_replace16(__u32 sum, __u16 was, __u16 is)
{
	return sum + (__u16)~was + is;
}

static __always_inline __u32 gate_sum_replace32(__u32 sum, __u32 was, __u32 is)
{
	sum = gate_sum_replace16(sum, (__u16)was, (__u16)is);
	return gate_sum_replace16(sum, (__u16)(was >> 16), (__u16)(is >> 16));
}

static __always_inline __u16 gate_sum_fold(__u32 sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__u16)sum;
}

/** The checksum after the changes gathered in sum. */
static __always_inline __u16 gate_csum_apply(__u16 check, __u32 sum)
{
	return (__u16)~gate_sum_fold((__u32)(__u16)~check + gate_sum_fold(sum));
}

/** UDP: 0 means none and stays so; a computed 0 is written 0xFFFF. */
static __always_inline __u16 gate_csum_apply_udp(__u16 check, __u32 sum)
{
	__u16 is;

	if (check == 0)
		return 0;
	is = gate_csum_apply(check, sum);
	return is == 0 ? 0xffff : is;
}

/** What taking away the 16 bytes at p changes, when they stood at an odd or even offset of the summed bytes. */
static __always_inline __u32 gate_sum_remove16bytes(const __u8 *p, int odd)
{
	const __u16 *w = (const __u16 *)(const void *)p;
	__u32 sum = 0;
	__u16 folded;
	int i;

	GATE_UNROLL
	for (i = 0; i < 8; i++)
		sum += w[i];
	folded = gate_sum_fold(sum);
	if (odd)
		folded = (__u16)((folded << 8) | (folded >> 8));
	return (__u16)~folded;
}
