/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The bench's flows: number -> addresses and ports, the same in the programs that write packets and in what fills the tables.
 * Addresses and ports in network order. */
#pragma once

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

#define BENCH_PUBLIC     0xc6120302u /* 198.18.3.2 and those after it */
#define BENCH_INSIDE     0x0a000002u
#define BENCH_OUTSIDE    0x0b000000u
#define BENCH_PORT_LOW   1024u
#define BENCH_PORTS      62500u /* used of each public address */
#define BENCH_HOLES      200000u
#define BENCH_TRAILERS   65536u
#define BENCH_SEQ_CLIENT 1000000u
#define BENCH_SEQ_INSIDE 2000000u

struct bench_flow {
	__u32 inside_ip, public_ip, remote_ip;
	__u16 inside_port, public_port, remote_port;
};

/** A hole's flow, as the gate has given it out. */
struct bench_ends {
	__u32 inside_ip, public_ip, remote_ip;
	__u16 inside_port, public_port, remote_port, pad;
	__u32 pad2; /* as the array spaces them */
};

/** i: number of the flow; each of mappings inside ends has one public port, on 1 << shift addresses. */
static __always_inline void bench_flow(__u32 i, __u32 mappings, __u32 shift, struct bench_flow *f)
{
	const __u64 h = ((__u64)i + 1) * 0x9e3779b97f4a7c15ull;
	const __u32 m = i < mappings ? i : i % mappings;

	f->inside_ip = bpf_htonl(BENCH_INSIDE + (m >> 2));
	f->inside_port = bpf_htons((__u16)(BENCH_PORT_LOW + ((m & 3) << 12)));
	f->public_ip = bpf_htonl(BENCH_PUBLIC + (m & ((1u << shift) - 1)));
	f->public_port = bpf_htons((__u16)(BENCH_PORT_LOW + (m >> shift)));
	f->remote_ip = bpf_htonl(BENCH_OUTSIDE | (__u32)(h >> 40));
	f->remote_port = bpf_htons((__u16)(BENCH_PORT_LOW + ((h >> 24) & 0x7fff)));
}
