/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file ICMP errors about a flow, translated with the packet that they quote (RFC 5508, RFC 5927 for what a stranger may not forge). */
#pragma once

#include "gate/bpf/hole.h"
#include "gate/bpf/session.h"

#define GATE_QUOTE    (GATE_L4 + 8) /* the quoted IP header */
#define GATE_QUOTE_L4 (GATE_QUOTE + GATE_IP_BYTES)

/** The quoted packet: from and to whom it went when the error arose. */
struct gate_quote {
	gate_ip src, dst;
	__u16 sport, dport; /* ICMP echo: both the query id */
	__u8 proto;
	__u32 seq; /* TCP, host order */
};

static __always_inline int gate_icmp_is_error(const struct gate_pkt *p)
{
#if GATE_FAMILY == 6
	if (p->proto == GATE_IPPROTO_ICMP && p->icmp_type == GATE_ICMP_TOO_BIG)
		return 1;
#endif
	return p->proto == GATE_IPPROTO_ICMP &&
	       (p->icmp_type == GATE_ICMP_UNREACHABLE || p->icmp_type == GATE_ICMP_TIME_EXCEEDED || p->icmp_type == GATE_ICMP_PARAMETER);
}

static __always_inline int gate_quote_parse(struct xdp_md *ctx, struct gate_quote *q)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const __u8 *l4 = data + GATE_QUOTE_L4;
#if GATE_FAMILY == 4
	const struct iphdr *ip = (const void *)(data + GATE_QUOTE);

	/* Eight bytes of the quoted packet's own header are what RFC 792 promises. */
	if (l4 + 8 > end || ip->version != 4 || ip->ihl != 5 || (ip->frag_off & bpf_htons(0x1fff)))
		return GATE_R_ICMP_UNMATCHED;
	q->src = ip->saddr;
	q->dst = ip->daddr;
	q->proto = ip->protocol;
#else
	const struct ipv6hdr *ip = (const void *)(data + GATE_QUOTE);

	if (l4 + 8 > end || ip->version != 6)
		return GATE_R_ICMP_UNMATCHED;
	__builtin_memcpy(&q->src, &ip->saddr, sizeof(q->src));
	__builtin_memcpy(&q->dst, &ip->daddr, sizeof(q->dst));
	q->proto = ip->nexthdr;
#endif
	q->seq = 0;
	if (q->proto == GATE_IPPROTO_ICMP) {
		const struct gate_icmp *icmp = (const void *)l4;

		if (icmp->type != GATE_ICMP_ECHO && icmp->type != GATE_ICMP_ECHO_REPLY)
			return GATE_R_ICMP_UNMATCHED;
		q->sport = q->dport = icmp->id;
		return 0;
	}
	if (q->proto != IPPROTO_TCP && q->proto != IPPROTO_UDP)
		return GATE_R_ICMP_UNMATCHED;
	q->sport = *(const __u16 *)(const void *)l4;
	q->dport = *(const __u16 *)(const void *)(l4 + 2);
	q->seq = bpf_ntohl(*(const __u32 *)(const void *)(l4 + 4));
	return 0;
}

/** Whether a TCP segment that is quoted can be in flight: sent, and not acknowledged. s sent it. */
static __always_inline int gate_quote_in_flight(const struct gate_tcp_end *s, const struct gate_tcp_end *r, __u32 seq)
{
	/* Nobody has acknowledged anything yet: from the SYN on. */
	const __u32 from = r->flags & GATE_TCP_KNOWN ? r->ack : s->limit - 1;

	return !gate_before(seq, from) && !gate_before(s->end, seq);
}

/** An error from outside about what we sent, where nothing is translated: it quotes the flow's own five-tuple. */
static __always_inline int gate_error_in_plain(const struct gate_pkt *p, const struct gate_quote *q, __u64 now)
{
	struct gate_key k = {.local_ip = q->src, .local_port = q->sport, .remote_ip = q->dst, .proto = q->proto};
	const struct gate_flow *f;
	const struct gate_hole *h;
	const struct gate_track *t;
	__u64 owner;
	__u32 index;

	if (!gate_ip_eq(q->src, p->dst))
		return GATE_R_ICMP_UNMATCHED;
	k.remote_port = q->proto == GATE_IPPROTO_ICMP ? 0 : q->dport;
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f)
		return GATE_R_ICMP_UNMATCHED;
	owner = GATE_READ(f->owner);
	if (!gate_flow_alive(f, owner, &k, now))
		return GATE_R_ICMP_UNMATCHED;
	t = &f->track;
	if (GATE_OWNER_KIND(owner) == GATE_FLOW_HOLE) {
		index = GATE_HOLE_INDEX(owner);
		h = bpf_map_lookup_elem(&holes, &index);
		if (!h || h->id != GATE_OWNER_VALUE(owner) || !h->bound)
			return GATE_R_ICMP_UNMATCHED;
		t = &h->track;
	}
	if (q->proto == IPPROTO_TCP && !gate_quote_in_flight(&t->end[GATE_INSIDE], &t->end[GATE_OUTSIDE], q->seq))
		return GATE_R_ICMP_UNMATCHED;
	return 0;
}

#if GATE_FAMILY == 4
/** An error from outside about what we sent: whose flow is it? */
static __always_inline int gate_error_in(const struct gate_pkt *p, const struct gate_quote *q, __u64 now, struct gate_change *c)
{
	const int slot = gate_public_slot(q->src), proto = gate_proto_index(q->proto);
	struct gate_key k = {.remote_ip = q->dst, .proto = q->proto};
	const struct gate_grant *g;
	const struct gate_port *port;
	const struct gate_hole *h;
	const struct gate_flow *f;
	__u32 at, index;
	__u64 owner, id;

	if (slot < 0 || proto < 0 || !gate_ip_eq(q->src, p->dst))
		return GATE_R_ICMP_UNMATCHED;
	at = GATE_PORT_INDEX(slot, proto, bpf_ntohs(q->sport));
	if (!gate_wanted(at, q->src, q->sport, q->proto, q->dst, q->proto == IPPROTO_ICMP ? 0 : q->dport))
		return GATE_R_ICMP_UNMATCHED;
	port = bpf_map_lookup_elem(&ports, &at);
	if (!port)
		return GATE_R_INTERNAL;
	owner = GATE_READ(port->owner);
	if (GATE_OWNER_KIND(owner) == GATE_OWNER_HOLE) {
		index = GATE_HOLE_INDEX(owner);
		g = bpf_map_lookup_elem(&grants, &index);
		h = bpf_map_lookup_elem(&holes, &index);
		if (!g || !h)
			return GATE_R_INTERNAL;
		id = GATE_READ(g->id);
		if (id == 0 || h->id != id || !h->bound || g->proto != q->proto || !gate_ip_eq(GATE_IP(g->public), q->src) ||
		    g->public_port != q->sport || now >= g->expires || !gate_ip_eq(GATE_IP(h->remote), q->dst) ||
		    h->remote_port != q->dport)
			return GATE_R_ICMP_UNMATCHED;
		if (q->proto == IPPROTO_TCP && !gate_quote_in_flight(&h->track.end[GATE_INSIDE], &h->track.end[GATE_OUTSIDE], q->seq))
			return GATE_R_ICMP_UNMATCHED;
		c->ip = GATE_IP(g->inside);
		c->port = g->inside_port;
		return 0;
	}
	if (GATE_OWNER_KIND(owner) != GATE_OWNER_MAPPING)
		return GATE_R_ICMP_UNMATCHED;
	k.local_ip = (__u32)(owner >> 16);
	k.local_port = (__u16)owner;
	k.remote_port = q->proto == GATE_IPPROTO_ICMP ? 0 : q->dport;
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f || GATE_READ(f->owner) != gate_session_owner((__u32)slot, q->sport) || now >= f->expires)
		return GATE_R_ICMP_UNMATCHED;
	if (q->proto == IPPROTO_TCP && !gate_quote_in_flight(&f->track.end[GATE_INSIDE], &f->track.end[GATE_OUTSIDE], q->seq))
		return GATE_R_ICMP_UNMATCHED;
	c->ip = k.local_ip;
	c->port = k.local_port;
	return 0;
}

#endif

/** An error from inside about what came in through a hole or session. */
static __always_inline int gate_error_out(const struct gate_pkt *p, const struct gate_quote *q, __u64 now, struct gate_change *c)
{
	struct gate_key k = {.local_ip = q->dst, .local_port = q->dport, .remote_ip = q->src, .proto = q->proto};
	const struct gate_grant *g;
	const struct gate_flow *f;
	__u64 owner;
	__u32 index;
	int tenant = gate_tenant_of(p->src);

	if (tenant < 0)
		return GATE_R_SPOOFED;
	/* Only to whom it was that sent it, and only about one's own tenant's flow. */
	if (!gate_ip_eq(q->src, p->dst) || gate_tenant_of(q->dst) != tenant)
		return GATE_R_ICMP_UNMATCHED;
	k.remote_port = q->proto == GATE_IPPROTO_ICMP ? 0 : q->sport;
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f)
		return GATE_R_ICMP_UNMATCHED;
	owner = GATE_READ(f->owner);
	if (!gate_flow_alive(f, owner, &k, now))
		return GATE_R_ICMP_UNMATCHED;
	if (GATE_OWNER_KIND(owner) == GATE_FLOW_HOLE) {
		index = GATE_HOLE_INDEX(owner);
		g = bpf_map_lookup_elem(&grants, &index);
		if (!g)
			return GATE_R_INTERNAL;
		c->ip = GATE_IP(g->public);
		c->port = g->public_port;
		return 0;
	}
	gate_session_public(owner, k.local_ip, c);
	return 0;
}

#if GATE_FAMILY == 4
/** Rewrites the error and what it quotes, and sends it. */
static __always_inline int gate_send_error(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_quote *q,
					   const struct gate_change *c, const struct gate_route *route, int to)
{
	__u8 *data = (__u8 *)(long)ctx->data;
	const __u8 *end = (const __u8 *)(long)ctx->data_end;
	struct ethhdr *eth = (void *)data;
	struct iphdr *ip = (void *)(data + GATE_L3), *inner = (void *)(data + GATE_QUOTE);
	struct gate_icmp *icmp = (void *)(data + GATE_L4);
	__u8 *l4 = data + GATE_QUOTE_L4;
	__u16 *port, *check, was;
	__u32 sum, addr, l4sum, error = 0;

	if (data + GATE_QUOTE_L4 + 8 > end)
		return GATE_R_INTERNAL;
	__builtin_memcpy(eth->h_dest, route->dmac, 6);
	__builtin_memcpy(eth->h_source, route->smac, 6);

	/* What is quoted: an answer's source or a request's destination, the same end either way. */
	addr = gate_sum_replace32(0, c->inbound ? q->src : q->dst, c->ip);
	l4sum = gate_sum_replace16(addr, c->inbound ? q->sport : q->dport, c->port);
	if (c->inbound)
		inner->saddr = c->ip;
	else
		inner->daddr = c->ip;
	was = inner->check;
	inner->check = gate_csum_apply(was, addr);
	error = gate_sum_replace16(l4sum, was, inner->check);
	if (q->proto == GATE_IPPROTO_ICMP) {
		port = (__u16 *)(void *)(l4 + 4);
		check = (__u16 *)(void *)(l4 + 2);
		was = *check;
		*check = gate_csum_apply(was, gate_sum_replace16(0, q->sport, c->port));
		error = gate_sum_replace16(error, was, *check);
	} else {
		port = (__u16 *)(void *)(c->inbound ? l4 : l4 + 2);
		if (q->proto == IPPROTO_UDP) {
			check = (__u16 *)(void *)(l4 + 6);
			was = *check;
			*check = gate_csum_apply_udp(was, l4sum);
			error = gate_sum_replace16(error, was, *check);
		} else if (p->payload >= sizeof(struct iphdr) + 18 && l4 + 18 <= end) {
			check = (__u16 *)(void *)(l4 + 16);
			was = *check;
			*check = gate_csum_apply(was, l4sum);
			error = gate_sum_replace16(error, was, *check);
		}
	}
	*port = c->port;
	icmp->check = gate_csum_apply(icmp->check, error);

	sum = gate_sum_replace32(0, c->inbound ? p->dst : p->src, c->ip);
	sum = gate_sum_replace16(sum, bpf_htons((__u16)((__u32)p->ttl << 8)), bpf_htons((__u16)((__u32)(p->ttl - 1) << 8)));
	if (c->inbound)
		ip->daddr = c->ip;
	else
		ip->saddr = c->ip;
	ip->ttl = (__u8)(p->ttl - 1);
	ip->check = gate_csum_apply(ip->check, sum);
	return bpf_redirect_map(&devices, (__u32)to, XDP_DROP) == XDP_REDIRECT ? 0 : GATE_R_INTERNAL;
}
#endif

/** Both directions. side: where it arrived. */
static __always_inline int gate_error(struct xdp_md *ctx, const struct gate_pkt *p, int side, __u64 now)
{
	const int to = side == GATE_OUTSIDE ? GATE_INSIDE : GATE_OUTSIDE;
	struct gate_change c = {.inbound = side == GATE_OUTSIDE};
	struct gate_quote q = {};
	struct gate_route route;
	int why;

	if (p->ttl <= 1)
		return GATE_R_TTL;
	if (p->payload < GATE_IP_BYTES + 8)
		return GATE_R_ICMP_UNMATCHED;
	why = gate_quote_parse(ctx, &q);
	if (why)
		return why;
	if (side == GATE_INSIDE)
		why = gate_error_out(p, &q, now, &c);
#if GATE_FAMILY == 4
	else if (!GATE_FIREWALL)
		why = gate_error_in(p, &q, now, &c);
#endif
	else
		why = gate_error_in_plain(p, &q, now);
	if (why)
		return why;
	if (!gate_budget(GATE_B_ICMP, now, GATE_ICMP_PER_S, GATE_NS_PER_S / 10))
		return GATE_R_ICMP_RATE;
	if (GATE_FIREWALL)
		c.ip = side == GATE_OUTSIDE ? p->dst : p->src;
	if (side == GATE_OUTSIDE)
		why = gate_find_route(ctx, p, p->src, c.ip, p->len, to, now, &route);
	else
		why = gate_find_route(ctx, p, c.ip, p->dst, p->len, to, now, &route);
	if (why)
		return why;
#if GATE_FAMILY == 4
	if (!GATE_FIREWALL)
		return gate_send_error(ctx, p, &q, &c, &route, to);
#endif
	return gate_send_plain(ctx, p, &route, to);
}
