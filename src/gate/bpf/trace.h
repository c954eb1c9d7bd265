/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file A sampled stream of dropped packets. While nobody traces, a drop pays one load and a branch. */
#pragma once

#include "gate/bpf/maps.h"
#include "gate/bpf/parse.h"
#include "gate/bpf/sample.h"

#define GATE_TRACE_BURST_NS (GATE_NS_PER_S / 10)
#define GATE_IPV6_BYTES     40
#define GATE_IP_ICMPV6      58

#if GATE_FAMILY == 4
struct gate_trace_want gate_trace_want = {};
#else
extern struct gate_trace_want gate_trace_want;
#endif

GATE_SHARED struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 64 * 1024);
} samples SEC(".maps");

#if GATE_FAMILY == 4
/* Reads through the helper: these frames are the malformed ones, and nothing here is in a hurry. */
static __always_inline void gate_sample_headers(struct xdp_md *ctx, struct gate_sample *s)
{
	struct iphdr ip4;
	__u8 ip6[GATE_IPV6_BYTES], l4[4];
	__u32 at = GATE_L3;
	__u16 type;

	if (bpf_xdp_load_bytes(ctx, 12, &type, sizeof(type)))
		return;
	s->ethertype = bpf_ntohs(type);
	if (s->ethertype == ETH_P_IP) {
		if (bpf_xdp_load_bytes(ctx, GATE_L3, &ip4, sizeof(ip4)) || ip4.version != 4 || ip4.ihl < 5)
			return;
		s->ip = 4;
		s->proto = ip4.protocol;
		__builtin_memcpy(s->src, &ip4.saddr, 4);
		__builtin_memcpy(s->dst, &ip4.daddr, 4);
		if (ip4.frag_off & bpf_htons(0x1fff))
			return;
		at += ip4.ihl * 4u;
	} else if (s->ethertype == ETH_P_IPV6) {
		if (bpf_xdp_load_bytes(ctx, GATE_L3, ip6, sizeof(ip6)) || ip6[0] >> 4 != 6)
			return;
		s->ip = 6;
		s->proto = ip6[6];
		__builtin_memcpy(s->src, ip6 + 8, 16);
		__builtin_memcpy(s->dst, ip6 + 24, 16);
		at += GATE_IPV6_BYTES;
	} else {
		return;
	}
	if (bpf_xdp_load_bytes(ctx, at, l4, sizeof(l4)))
		return;
	if (s->proto == IPPROTO_TCP || s->proto == IPPROTO_UDP) {
		s->sport = (__u16)(l4[0] << 8 | l4[1]);
		s->dport = (__u16)(l4[2] << 8 | l4[3]);
	} else if (s->proto == IPPROTO_ICMP || s->proto == GATE_IP_ICMPV6) {
		s->icmp_type = l4[0];
		s->icmp_code = l4[1];
	}
}

/* A function of its own to the verifier: looked at once, not at each of the many drops. */
__attribute__((noinline)) int gate_trace_drop(struct xdp_md *ctx, __u32 reason)
{
	const __u64 now = gate_now();
	struct gate_sample *s;

	if (now >= GATE_READ(gate_trace_want.until) || reason >= GATE_REASON_COUNT)
		return 0;
	if (!((reason < 64 ? gate_trace_want.reasons[0] : gate_trace_want.reasons[1]) >> (reason & 63) & 1))
		return 0;
	if (!gate_budget(GATE_B_TRACE, now, gate_trace_want.per_s, GATE_TRACE_BURST_NS))
		return 0;
	s = bpf_ringbuf_reserve(&samples, sizeof(*s), 0);
	if (!s)
		return 0;
	__builtin_memset(s, 0, sizeof(*s));
	s->time = now;
	s->reason = reason;
	s->ifindex = ctx->ingress_ifindex;
	s->length = (__u32)(ctx->data_end - ctx->data);
	gate_sample_headers(ctx, s);
	/* Whoever reads asks for it several times a second: nobody need be woken. */
	bpf_ringbuf_submit(s, BPF_RB_NO_WAKEUP);
	return 0;
}

#else
int gate_trace_drop(struct xdp_md *ctx, __u32 reason);
#endif

static __always_inline int gate_drop(struct xdp_md *ctx, __u32 reason)
{
	gate_count(reason);
	if (GATE_READ(gate_trace_want.until))
		gate_trace_drop(ctx, reason);
	return XDP_DROP;
}
