/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Next hop, translation, and the way out through the other interface. */
#pragma once

#include "gate/bpf/csum.h"
#include "gate/bpf/maps.h"
#include "gate/bpf/parse.h"

#define GATE_LOOPBACK     1 /* ifindex of lo in every namespace */
#define GATE_AF_INET      2
#define GATE_AF_INET6     10
#define GATE_ASK_EVERY_NS (100 * GATE_NS_PER_MS)

struct gate_route {
	__u8 dmac[6], smac[6];
	__u16 mtu; /* host order; GATE_R_TOO_BIG only */
};

/** hop: as bpf_fib_lookup left it. */
static __always_inline void gate_ask_neighbour(const struct bpf_fib_lookup *fib, __u64 now)
{
	struct gate_asked hop = {.ifindex = fib->ifindex};
	struct gate_event *e;
	__u64 *last;

	/* An IPv4 route may lead to an IPv6 gateway (RFC 8950). */
	if (fib->family == GATE_AF_INET6)
		__builtin_memcpy(&hop.ip.ip6, fib->ipv6_dst, sizeof(hop.ip.ip6));
	else
		hop.ip.ip4 = fib->ipv4_dst;
	last = bpf_map_lookup_elem(&asked, &hop);
	if (last && now - *last < GATE_ASK_EVERY_NS)
		return;
	bpf_map_update_elem(&asked, &hop, &now, BPF_ANY);
	e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	if (!e)
		return;
	e->kind = GATE_EVENT_NEIGHBOUR;
	e->ifindex = fib->ifindex;
	e->ip6 = fib->family == GATE_AF_INET6;
	e->ip = hop.ip;
	bpf_ringbuf_submit(e, 0);
}

#if GATE_FAMILY == 4
/** What the table of next hops says. \return 0: nothing certain, ask the kernel. */
static __always_inline int gate_hop_known(__u32 dst, __u16 len, int to, __u64 now, struct gate_route *out)
{
	const __u32 zero = 0;
	const struct gate_hop_tables *t = bpf_map_lookup_elem(&hops, &zero);
	const struct gate_hop *h;
	__u32 generation, i;
	int known;

	if (!t || now >= GATE_READ(t->valid_until))
		return 0;
	generation = GATE_READ(t->generation);
	h = t->table[generation & 1][to].host[GATE_HOP_HASH(dst)];
	for (i = 0; i < GATE_HOP_WAYS && h->prefix != dst; i++)
		h++;
	if (i == GATE_HOP_WAYS) {
		h = t->table[generation & 1][to].prefix;
		for (i = 0; i < GATE_HOP_PREFIXES && (dst & h->mask) != h->prefix; i++)
			h++;
	}
	known = h->kind == GATE_HOP_NEXT && len <= h->mtu;
	__builtin_memcpy(out->dmac, h->dmac, 6);
	__builtin_memcpy(out->smac, h->smac, 6);
	/* Another one now: this one may have been written to meanwhile. */
	return known && GATE_READ(t->generation) == generation;
}

#endif

/** Reads the next hop out of a look-up's result. */
static __always_inline int gate_route_take(const struct bpf_fib_lookup *fib, long r, int to, __u64 now, struct gate_route *out)
{
	if (r == BPF_FIB_LKUP_RET_NO_NEIGH) {
		if (fib->ifindex != gate_params.ifindex[to])
			return GATE_R_WRONG_EGRESS;
		gate_ask_neighbour(fib, now);
		return GATE_R_NO_NEIGHBOUR;
	}
	if (r == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
		out->mtu = fib->mtu_result;
		return GATE_R_TOO_BIG;
	}
	if (r == BPF_FIB_LKUP_RET_FWD_DISABLED)
		return GATE_R_FORWARDING_OFF;
	if (r != BPF_FIB_LKUP_RET_SUCCESS)
		return GATE_R_NO_ROUTE;
	if (fib->ifindex != gate_params.ifindex[to])
		return GATE_R_WRONG_EGRESS;
	__builtin_memcpy(out->dmac, fib->dmac, 6);
	__builtin_memcpy(out->smac, fib->smac, 6);
	return 0;
}

/* The kernel refuses to look up for an input device that does not forward, and none of ours does: the loopback device stands in. */

#if GATE_FAMILY == 4
static __always_inline int gate_ask_route(struct xdp_md *ctx, const struct gate_pkt *p, gate_ip src, gate_ip dst, __u16 len, int to,
					  __u64 now, struct gate_route *out)
{
	struct bpf_fib_lookup fib = {
		.family = GATE_AF_INET,
		.l4_protocol = p->proto,
		.tot_len = len,
		.ifindex = GATE_LOOPBACK,
		.tos = p->tos,
		.ipv4_src = src,
		.ipv4_dst = dst,
	};
	long r = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);

	return gate_route_take(&fib, r, to, now, out);
}
#else
/* A frame of its own: the caller's would be too large for the stack with the look-up's parameters in it. */
static __noinline int gate_ask_route6(struct xdp_md *ctx, const struct gate_pkt *p, __u16 len, int to, struct gate_route *out)
{
	struct bpf_fib_lookup fib = {
		.family = GATE_AF_INET6,
		.l4_protocol = p->proto,
		.tot_len = len,
		.ifindex = GATE_LOOPBACK,
	};
	long r;

	__builtin_memcpy(fib.ipv6_src, &p->src, sizeof(p->src));
	__builtin_memcpy(fib.ipv6_dst, &p->dst, sizeof(p->dst));
	r = bpf_fib_lookup(ctx, &fib, sizeof(fib), 0);
	return gate_route_take(&fib, r, to, gate_now(), out);
}
#endif

/** to: the side it must leave by. len: the IP length it will have. IPv6: the addresses are the packet's own. */
static __always_inline int gate_find_route(struct xdp_md *ctx, const struct gate_pkt *p, gate_ip src, gate_ip dst, __u16 len, int to,
					   __u64 now, struct gate_route *out)
{
#if GATE_FAMILY == 4
	return gate_hop_known(dst, len, to, now, out) ? 0 : gate_ask_route(ctx, p, src, dst, len, to, now, out);
#else
	(void)src;
	(void)dst;
	(void)now;
	return gate_ask_route6(ctx, p, len, to, out);
#endif
}

/** How the packet changes: the end on our side (source when it leaves, destination when it comes in) gets another address and port. */
struct gate_change {
	gate_ip ip;
	__u16 port;
	__u8 inbound;
	__u8 strip;    /* the tag goes; strip_offset is where it starts */
	__u32 payload; /* bytes in front of the tag */
};

#if GATE_FAMILY == 4
static __always_inline void gate_ttl_less(__u8 *header, __u8 ttl)
{
	struct iphdr *ip = (void *)header;
	/* It is the high byte of its word. */
	const __u32 sum = gate_sum_replace16(0, bpf_htons((__u16)((__u32)ttl << 8)), bpf_htons((__u16)((__u32)(ttl - 1) << 8)));

	ip->ttl = (__u8)(ttl - 1);
	ip->check = gate_csum_apply(ip->check, sum);
}

/** Rewrites and sends. Everything has been decided before; from here only a frame that lies about its length can fail. */
static __always_inline int gate_send(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_change *c,
				     const struct gate_route *route, int to)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)data;
	struct iphdr *ip = (void *)(data + GATE_L3);
	__u32 was_ip = c->inbound ? p->dst : p->src, sum, l4sum;
	__s64 frame = end - data;
	__u16 was_port = c->inbound ? p->dport : p->sport, len;

	GATE_OPAQUE(frame);
	if (data + GATE_L4 > end)
		return GATE_R_INTERNAL;
	__builtin_memcpy(eth->h_dest, route->dmac, 6);
	__builtin_memcpy(eth->h_source, route->smac, 6);

	sum = gate_sum_replace32(0, was_ip, c->ip);
	l4sum = gate_sum_replace16(sum, was_port, c->port);
	/* TTL is the high byte of its word. */
	sum = gate_sum_replace16(sum, bpf_htons((__u16)((__u32)p->ttl << 8)), bpf_htons((__u16)((__u32)(p->ttl - 1) << 8)));
	if (c->inbound)
		ip->daddr = c->ip;
	else
		ip->saddr = c->ip;
	ip->ttl = (__u8)(p->ttl - 1);

	if (p->proto == IPPROTO_TCP) {
		struct tcphdr *tcp = (void *)(data + GATE_L4);

		if ((const __u8 *)(tcp + 1) > end)
			return GATE_R_INTERNAL;
		if (c->inbound)
			tcp->dest = c->port;
		else
			tcp->source = c->port;
		tcp->check = gate_csum_apply(tcp->check, l4sum);
	} else if (p->proto == IPPROTO_UDP) {
		struct udphdr *udp = (void *)(data + GATE_L4);

		if ((const __u8 *)(udp + 1) > end)
			return GATE_R_INTERNAL;
		if (c->inbound)
			udp->dest = c->port;
		else
			udp->source = c->port;
		if (c->strip) {
			const __u32 n = c->payload;
			const __u8 *tag;

			if (n > GATE_TAG_DATA_MAX)
				return GATE_R_INTERNAL;
			tag = data + GATE_L4 + sizeof(*udp) + n;
			if (tag + GATE_TAG_TRAILER > end)
				return GATE_R_INTERNAL;
			l4sum += gate_sum_remove16bytes(tag, n & 1);
			len = bpf_htons((__u16)(n + sizeof(*udp)));
			l4sum = gate_sum_replace16(l4sum, udp->len, len); /* in the header */
			l4sum = gate_sum_replace16(l4sum, udp->len, len); /* in the pseudo-header */
			udp->len = len;
			len = bpf_htons((__u16)(n + sizeof(*udp) + sizeof(*ip)));
			sum = gate_sum_replace16(sum, ip->tot_len, len);
			ip->tot_len = len;
		}
		udp->check = gate_csum_apply_udp(udp->check, l4sum);
	} else {
		struct gate_icmp *icmp = (void *)(data + GATE_L4);

		if ((const __u8 *)(icmp + 1) > end)
			return GATE_R_INTERNAL;
		/* No pseudo-header: only the query id counts. */
		icmp->check = gate_csum_apply(icmp->check, gate_sum_replace16(0, was_port, c->port));
		icmp->id = c->port;
	}
	ip->check = gate_csum_apply(ip->check, sum);
	if (c->strip) {
		const __s64 keep = GATE_L4 + (__s64)sizeof(struct udphdr) + c->payload;

		if (bpf_xdp_adjust_tail(ctx, (int)(keep - frame)))
			return GATE_R_INTERNAL;
	}
	return bpf_redirect_map(&devices, (__u32)to, XDP_DROP) == XDP_REDIRECT ? 0 : GATE_R_INTERNAL;
}
#else
/** Sends; nothing of an IPv6 packet is rewritten but the hop limit, and what the tag's going changes. */
static __always_inline int gate_send(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_change *c,
				     const struct gate_route *route, int to)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)data;
	struct ipv6hdr *ip = (void *)(data + GATE_L3);
	struct udphdr *udp = (void *)(data + GATE_L4);
	const __u32 n = c->payload;
	__s64 frame = end - data;
	const __u8 *tag;
	__u32 sum;
	__u16 len;

	GATE_OPAQUE(frame);
	if (data + GATE_L4 > end)
		return GATE_R_INTERNAL;
	__builtin_memcpy(eth->h_dest, route->dmac, 6);
	__builtin_memcpy(eth->h_source, route->smac, 6);
	ip->hop_limit = (__u8)(p->ttl - 1);
	if (c->strip) {
		if (n > GATE_TAG_DATA_MAX || (const __u8 *)(udp + 1) > end)
			return GATE_R_INTERNAL;
		tag = data + GATE_L4 + sizeof(*udp) + n;
		if (tag + GATE_TAG_TRAILER > end)
			return GATE_R_INTERNAL;
		len = bpf_htons((__u16)(n + sizeof(*udp)));
		sum = gate_sum_remove16bytes(tag, n & 1);
		sum = gate_sum_replace16(sum, udp->len, len); /* in the header */
		sum = gate_sum_replace16(sum, udp->len, len); /* in the pseudo-header */
		udp->len = len;
		udp->check = gate_csum_apply_udp(udp->check, sum);
		ip->payload_len = len;
		if (bpf_xdp_adjust_tail(ctx, (int)(GATE_L4 + (__s64)sizeof(*udp) + n - frame)))
			return GATE_R_INTERNAL;
	}
	return bpf_redirect_map(&devices, (__u32)to, XDP_DROP) == XDP_REDIRECT ? 0 : GATE_R_INTERNAL;
}
#endif

/** Sends as it is, one hop further. */
static __always_inline int gate_send_plain(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_route *route, int to)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)data;

	if (data + GATE_L4 > end)
		return GATE_R_INTERNAL;
	__builtin_memcpy(eth->h_dest, route->dmac, 6);
	__builtin_memcpy(eth->h_source, route->smac, 6);
#if GATE_FAMILY == 4
	gate_ttl_less(data + GATE_L3, p->ttl);
#else
	((struct ipv6hdr *)(void *)(data + GATE_L3))->hop_limit = (__u8)(p->ttl - 1);
#endif
	return bpf_redirect_map(&devices, (__u32)to, XDP_DROP) == XDP_REDIRECT ? 0 : GATE_R_INTERNAL;
}
