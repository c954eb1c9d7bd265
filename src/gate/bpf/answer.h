/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file ICMP messages of the gate's own, in the place of a packet that it drops: to hosts inside, and to the far end of a flow. A stranger
 * gets none: nothing is told him, and nothing reflected. */
#pragma once

#include "gate/bpf/csum.h"
#include "gate/bpf/maps.h"
#include "gate/bpf/parse.h"
#include "gate/bpf/trace.h"

#if GATE_FAMILY == 4
#define GATE_ICMP_TOO_BIG    4  /* of GATE_ICMP_UNREACHABLE: fragmentation needed (RFC 1191) */
#define GATE_ICMP_PROHIBITED 13 /* of GATE_ICMP_UNREACHABLE (RFC 1812 5.2.7.1, RFC 5508 REQ-8) */
#else
#define GATE_ICMP_PROHIBITED 1 /* of GATE_ICMP_UNREACHABLE (RFC 4443) */
#endif
#define GATE_IP_DF      0x4000
#define GATE_ANSWER_TTL 64
#define GATE_ANSWER_TOS 0xc0 /* internetwork control, as routers send errors (RFC 1812 4.3.2.5) */

#define GATE_ANSWER_QUOTE (GATE_IP_BYTES + 8)
#define GATE_ANSWER_HEAD  (GATE_IP_BYTES + (int)sizeof(struct gate_icmp)) /* what comes in front of the quote */

static __always_inline __u32 gate_answer_sum(const void *p, int words)
{
	const __u16 *w = p;
	__u32 sum = 0;
	int i;

	GATE_UNROLL
	for (i = 0; i < words; i++)
		sum += w[i];
	return sum;
}

#define GATE_ANSWER(type, code, mtu) (((__u32)(type) << 24) | ((__u32)(code) << 16) | ((mtu)&0xffff)) /* 0: none */

/** The gate's address on a side; dst: what the packet was for. */
static __always_inline gate_ip gate_answer_from(int side, gate_ip dst)
{
#if GATE_FAMILY == 4
	if (side == GATE_OUTSIDE && !GATE_FIREWALL)
		return dst; /* as if from the host that there is for the outside */
	return gate_params.self_ip[side & 1];
#else
	(void)dst;
	return gate_params.self_ip6[side & 1];
#endif
}

/** The IP header of an answer. \return the sum that its ICMP checksum begins with. */
static __always_inline __u32 gate_answer_header(__u8 *at, gate_ip from, gate_ip to)
{
#if GATE_FAMILY == 4
	struct iphdr *ip = (void *)at;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = GATE_ANSWER_TOS;
	ip->tot_len = bpf_htons(GATE_ANSWER_HEAD + GATE_ANSWER_QUOTE);
	ip->frag_off = bpf_htons(GATE_IP_DF);
	ip->ttl = GATE_ANSWER_TTL;
	ip->protocol = IPPROTO_ICMP;
	ip->saddr = from;
	ip->daddr = to;
	ip->check = (__u16)~gate_sum_fold(gate_answer_sum(ip, (int)sizeof(*ip) / 2));
	return 0;
#else
	struct ipv6hdr *ip = (void *)at;

	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 6;
	ip->priority = GATE_ANSWER_TOS >> 4;
	ip->payload_len = bpf_htons(sizeof(struct gate_icmp) + GATE_ANSWER_QUOTE);
	ip->nexthdr = IPPROTO_ICMPV6;
	ip->hop_limit = GATE_ANSWER_TTL;
	__builtin_memcpy(&ip->saddr, &from, sizeof(from));
	__builtin_memcpy(&ip->daddr, &to, sizeof(to));
	return gate_answer_sum(&ip->saddr, 16) + (__u32)ip->payload_len + (__u32)bpf_htons(IPPROTO_ICMPV6);
#endif
}

/** Turns the frame, which must be as it came, into a message (GATE_ANSWER) to its sender on a side, from an address of the gate's there.
 * \return the verdict. */
static __always_inline int gate_answer_write(struct xdp_md *ctx, int side, __u32 what)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	__s64 frame = end - data;
	struct ethhdr eth;
	struct gate_icmp *icmp;
	gate_ip from, to;
	__u32 sum;

	GATE_OPAQUE(frame);
	if (data + GATE_L3 + GATE_ANSWER_QUOTE > end)
		return XDP_DROP;
	/* Back where it came from. */
	__builtin_memcpy(eth.h_dest, data + 6, 6);
	__builtin_memcpy(eth.h_source, data, 6);
#if GATE_FAMILY == 4
	eth.h_proto = bpf_htons(ETH_P_IP);
	to = ((const struct iphdr *)(data + GATE_L3))->saddr;
	from = ((const struct iphdr *)(data + GATE_L3))->daddr;
#else
	eth.h_proto = bpf_htons(ETH_P_IPV6);
	__builtin_memcpy(&to, data + GATE_L3 + 8, sizeof(to));
	__builtin_memcpy(&from, data + GATE_L3 + 24, sizeof(from));
#endif
	from = gate_answer_from(side, from);
	if (gate_ip_bad(from)) /* there is none */
		return XDP_DROP;
	if (bpf_xdp_adjust_tail(ctx, (int)(GATE_L3 + GATE_ANSWER_QUOTE - frame)) || bpf_xdp_adjust_head(ctx, -GATE_ANSWER_HEAD))
		return XDP_DROP;

	data = (__u8 *)(long)ctx->data;
	end = (const __u8 *)(long)ctx->data_end;
	if (data + GATE_L3 + GATE_ANSWER_HEAD + GATE_ANSWER_QUOTE > end)
		return XDP_DROP;
	icmp = (void *)(data + GATE_L4);
	__builtin_memcpy(data, &eth, sizeof(eth));
	sum = gate_answer_header(data + GATE_L3, from, to);
	icmp->type = (__u8)(what >> 24);
	icmp->code = (__u8)(what >> 16);
	icmp->check = 0;
	icmp->id = 0;
	icmp->seq = bpf_htons((__u16)what);
	icmp->check = (__u16)~gate_sum_fold(sum + gate_answer_sum(icmp, ((int)sizeof(*icmp) + GATE_ANSWER_QUOTE) / 2));
	/* Not XDP_TX: a veth pair whose other end has no program of its own leaves such frames lying. */
	return (int)bpf_redirect_map(&devices, (__u32)side, XDP_DROP);
}

/** Which message a reason deserves. */
static __always_inline __u32 gate_answer_to(const __u8 *header, const struct gate_icmp *icmp, __u32 reason, __u32 mtu)
{
#if GATE_FAMILY == 4
	const struct iphdr *ip = (const void *)header;
	const __u8 proto = ip->protocol;

	if ((__u8)(bpf_ntohl(ip->daddr) >> 24) >= 224) /* never about what went to many (RFC 1122 3.2.2) */
		return 0;
#else
	const __u8 proto = header[6];

	if (header[24] == 0xff)
		return 0;
#endif
	/* Nor about an error. */
	if (proto == GATE_IPPROTO_ICMP && icmp->type != GATE_ICMP_ECHO && icmp->type != GATE_ICMP_ECHO_REPLY)
		return 0;
	switch (reason) {
	case GATE_R_TOO_BIG:
#if GATE_FAMILY == 4
		return ip->frag_off & bpf_htons(GATE_IP_DF) ? GATE_ANSWER(GATE_ICMP_UNREACHABLE, GATE_ICMP_TOO_BIG, mtu) : 0;
#else
		return GATE_ANSWER(GATE_ICMP_TOO_BIG, 0, mtu);
#endif
	case GATE_R_TTL:
		return GATE_ANSWER(GATE_ICMP_TIME_EXCEEDED, 0, 0);
	case GATE_R_NO_PORT:
	case GATE_R_MAPPINGS_FULL:
	case GATE_R_FLOWS_FULL:
	case GATE_R_TENANT_FULL:
		return GATE_ANSWER(GATE_ICMP_UNREACHABLE, GATE_ICMP_PROHIBITED, 0);
	default:
		return 0;
	}
}

/**
 * Drops the frame, which must be as it came, and tells its sender why if the RFCs want that said and the ICMP budget allows it. Only for a
 * sender who is known: from inside, or in a flow. side: where it came from; mtu: host order, of the
 * way out.
 * \return the verdict.
 */
__noinline int gate_drop_told(struct xdp_md *ctx, int side, __u32 reason, __u32 mtu)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	__u32 what;

	if (data + GATE_L4 + sizeof(struct gate_icmp) > end)
		return gate_drop(ctx, reason);
	what = gate_answer_to(data + GATE_L3, (const void *)(data + GATE_L4), reason, mtu);
	if (!what || !gate_budget(GATE_B_ICMP, gate_now(), GATE_ICMP_PER_S, GATE_NS_PER_S / 10))
		return gate_drop(ctx, reason);
	gate_drop(ctx, reason == GATE_R_TOO_BIG ? GATE_R_TOO_BIG_TOLD : reason);
	return gate_answer_write(ctx, side, what);
}
