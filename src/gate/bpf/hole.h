/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Holes: flows that an agent was granted. */
#pragma once

#include "gate/bpf/bucket.h"
#include "gate/bpf/flow.h"
#include "gate/bpf/options.h"
#include "gate/bpf/replay.h"
#include "gate/bpf/route.h"
#include "gate/bpf/siphash.h"
#include "gate/bpf/track.h"
#include "gate/bpf/user.h"

#define GATE_SYN_BURST_NS GATE_NS_PER_S

/* Each verified once, by itself, instead of wherever it is used. */
__noinline int gate_tag_ok(struct xdp_md *ctx, __u32 len, __u64 k0, __u64 k1)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;

	return gate_tag_check(data + GATE_L4 + sizeof(struct udphdr), end, len, k0, k1);
}

__noinline __u64 gate_options_one(struct xdp_md *ctx, __u64 v, __u32 len, __u32 ack, int syn)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;

	return gate_options_step(data + GATE_L4 + sizeof(struct tcphdr), end, v, len, ack, syn);
}

/* gate_options_parse, an option at a time: the verifier would follow every way through forty of them. */
__noinline __u64 gate_options_of(struct xdp_md *ctx, __u32 len, __u32 ack, int syn)
{
	__u64 v = (__u64)ack << 32;
	int i;

	for (i = 0; i < GATE_OPTIONS_MAX; i++) {
		if (((__u32)v & GATE_OPTIONS_AT) >= len)
			break;
		v = gate_options_one(ctx, v, len, ack, syn);
	}
	return v;
}

/** \return 0, or GATE_R_TCP_OPTIONS. */
static __always_inline int gate_tcp_options(struct xdp_md *ctx, const struct gate_pkt *p, struct gate_tcp_opt *o)
{
	__builtin_memset(o, 0, sizeof(*o));
	o->sack = p->ack;
	if (p->doff == sizeof(struct tcphdr))
		return 0;
	if (p->doff == sizeof(struct tcphdr) + 12) {
		const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
		const __u8 *first = data + GATE_L4 + sizeof(struct tcphdr);

		/* Nearly every segment: two NOPs and a timestamp, of which nothing is needed. */
		if (first + 4 <= end && first[0] == 1 && first[1] == 1 && first[2] == 8 && first[3] == 10)
			return 0;
	}
	gate_options_unpack(gate_options_of(ctx, p->doff - (__u32)sizeof(struct tcphdr), p->ack, (p->flags & GATE_SYN) != 0), o);
	return o->flags & GATE_TCP_BAD ? GATE_R_TCP_OPTIONS : 0;
}

/** Under the lock: the state may still be that of the grant that had this place before. */
static __always_inline void gate_hole_adopt(struct gate_hole *h, __u64 id, __u64 opened)
{
	if (h->id == id)
		return;
	h->bound = 0;
	h->last = opened;
	h->byte_due = h->packet_due = h->syn_due = 0;
	__builtin_memset(&h->remote, 0, sizeof(h->remote));
	h->remote_port = 0;
	h->packets_in = h->bytes_in = h->packets_out = h->bytes_out = 0;
	h->closed = 0;
	__builtin_memset(&h->embryo, 0, sizeof(h->embryo));
	__builtin_memset(&h->track, 0, sizeof(h->track));
	h->id = id;
}

/** Under the lock: whether the hole's rates and its user's let another packet towards the service. Asked before anything changes, charged
 * after everything is known to be in order: only what is the user's counts against the user. */
static __always_inline int gate_hole_room(const struct gate_hole *h, const struct gate_grant *g, const struct gate_user *u, __u64 now)
{
	if (g->packet_cost && gate_bucket_empty(h->packet_due, now, GATE_RATE_BURST_NS))
		return GATE_R_RATE_PACKETS;
	if (g->byte_cost && gate_bucket_empty(h->byte_due, now, GATE_RATE_BURST_NS))
		return GATE_R_RATE_BYTES;
	return gate_user_room(u, now);
}

static __always_inline void gate_hole_charge(struct gate_hole *h, const struct gate_grant *g, struct gate_user *u, __u32 bytes, __u64 now)
{
	gate_user_charge(u, bytes, now);
	if (g->packet_cost)
		gate_bucket_charge(&h->packet_due, now, g->packet_cost);
	if (g->byte_cost)
		gate_bucket_charge(&h->byte_due, now, (bytes * g->byte_cost) >> 16);
	h->packets_in++;
	h->bytes_in += bytes;
	h->last = now;
}

/** fresh: no packet has made the hole's state its own yet. */
static __always_inline int gate_hole_idle(const struct gate_hole *h, const struct gate_grant *g, int fresh, __u64 now)
{
	__u64 last = fresh ? g->opened : GATE_READ(h->last);

	return g->idle_ns && now > last && now - last > g->idle_ns;
}

static __always_inline int gate_hole_is(const struct gate_hole *h, const struct gate_pkt *p)
{
	return gate_ip_eq(GATE_IP(h->remote), p->src) && h->remote_port == p->sport;
}

static __always_inline int gate_hole_udp_in(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_grant *g, struct gate_hole *h,
					    __u64 id, const struct gate_key *k, __u64 now, struct gate_change *c)
{
	const int fresh = GATE_READ(h->id) != id, tag = (g->flags & GATE_GRANT_TAG) != 0;
	const int bound = !fresh && GATE_READ(h->bound);
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end, *at;
	struct gate_user *u = gate_user_of(g);
	__u64 counter = 0;
	int why = 0, bind = 0;

	if (bound && !gate_hole_is(h, p))
		return GATE_R_WRONG_REMOTE;
	if (gate_hole_idle(h, g, fresh, now))
		return GATE_R_HOLE_IDLE;
	if (tag) {
		__u32 n = p->payload;

		if (n < GATE_TAG_TRAILER)
			return GATE_R_TAG_SHORT;
		n -= GATE_TAG_TRAILER;
		if (n > GATE_TAG_DATA_MAX)
			return GATE_R_TAG_LONG;
		if (!gate_tag_ok(ctx, n, g->key[0], g->key[1]))
			return GATE_R_TAG_INVALID;
		if (GATE_READ(g->id) != id) /* closed meanwhile: that key may have been half another */
			return GATE_R_NO_HOLE;
		data = (const __u8 *)(long)ctx->data;
		end = (const __u8 *)(long)ctx->data_end;
		at = data + GATE_L4 + sizeof(struct udphdr) + n;
		if (at + 8 > end)
			return GATE_R_INTERNAL;
		counter = bpf_be64_to_cpu(*(const __u64 *)(const void *)at);
		c->strip = 1;
		c->payload = n;
	}
	if (!bound) {
		why = gate_flow_claim(k, id, now);
		if (why)
			return why;
	}
	bpf_spin_lock(&h->lock);
	gate_hole_adopt(h, id, g->opened);
	if (h->bound && !gate_hole_is(h, p))
		why = GATE_R_WRONG_REMOTE;
	else
		why = gate_hole_room(h, g, u, now);
	if (!why && tag && !gate_replay_accept(&h->replay, counter))
		why = GATE_R_TAG_REPLAY;
	if (!why) {
		gate_hole_charge(h, g, u, p->len, now);
		if (!h->bound) {
			GATE_IP(h->remote) = p->src;
			h->remote_port = p->sport;
			h->bound = 1;
			bind = 1;
		}
	}
	bpf_spin_unlock(&h->lock);
	if (bind)
		gate_count(GATE_R_HOLE_BOUND);
	if (why == GATE_R_WRONG_REMOTE && !bound) /* another source was bound meanwhile */
		gate_flow_release(k, id);
	return why;
}

/** The place of a handshake from this port, else the longest unused one. Under the lock. */
static __always_inline struct gate_embryo *gate_embryo_find(struct gate_hole *h, __u16 port, int make)
{
	struct gate_embryo *oldest = &h->embryo[0];
	int i;

	GATE_UNROLL
	for (i = 0; i < GATE_EMBRYOS; i++) {
		if (h->embryo[i].seen && h->embryo[i].port == port)
			return &h->embryo[i];
		if (h->embryo[i].seen < oldest->seen)
			oldest = &h->embryo[i];
	}
	return make ? oldest : 0;
}

/** A SYN to a hole that no connection has taken yet. */
static __always_inline int gate_hole_syn(const struct gate_pkt *p, const struct gate_grant *g, struct gate_hole *h, __u64 id,
					 const struct gate_key *k, const struct gate_tcp_opt *o, __u64 now)
{
	struct gate_key gone = *k;
	struct gate_embryo *e;
	int why = 0;

	if (p->payload)
		return GATE_R_SYN_DATA;
	bpf_spin_lock(&h->lock);
	gate_hole_adopt(h, id, g->opened);
	if (gate_bucket_empty(h->syn_due, now, GATE_SYN_BURST_NS))
		why = GATE_R_SYN_RATE;
	else
		gate_bucket_charge(&h->syn_due, now, g->syn_cost);
	bpf_spin_unlock(&h->lock);
	if (why)
		return why;
	why = gate_flow_claim(k, id, now);
	if (why)
		return why;

	gone.remote_port = 0;
	bpf_spin_lock(&h->lock);
	if (h->id != id || h->bound) {
		why = GATE_R_TCP_STATE;
	} else {
		/* Anybody who spoofs the address can send this: it has its own rate, and costs the user nothing. */
		e = gate_embryo_find(h, p->sport, 1);
		if (!(e->seen && e->port == p->sport && e->client_isn == p->seq)) {
			if (e->seen && e->port != p->sport)
				gone.remote_port = e->port;
			e->port = p->sport;
			e->client_isn = p->seq;
			e->answered = 0;
			gate_end_open(&e->end[GATE_OUTSIDE], p, o);
			e->seen = now;
		}
	}
	bpf_spin_unlock(&h->lock);
	if (gone.remote_port)
		gate_flow_release(&gone, id);
	return why;
}

/** A segment of the bound connection. Under the lock. side: who sends it. */
static __always_inline int gate_hole_segment(struct gate_hole *h, int side, const struct gate_pkt *p, const struct gate_tcp_opt *o,
					     __u64 now)
{
	struct gate_tcp_end *s = side == GATE_INSIDE ? &h->track.end[GATE_INSIDE] : &h->track.end[GATE_OUTSIDE];
	struct gate_tcp_end *r = side == GATE_INSIDE ? &h->track.end[GATE_OUTSIDE] : &h->track.end[GATE_INSIDE];
	int why;

	if (h->closed && now > h->closed + GATE_TCP_TRANSITORY_NS)
		return GATE_R_HOLE_EXPIRED;
	if (h->track.state == GATE_TCP_RESET)
		return gate_track_after_rst(&h->track, s, r, p, o);
	why = gate_track_established(&h->track, s, r, p, o);
	if (!why && !h->closed && (h->track.state == GATE_TCP_RESET || h->track.state == GATE_TCP_CLOSED))
		h->closed = now;
	return why;
}

static __always_inline int gate_hole_tcp_in(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_grant *g, struct gate_hole *h,
					    __u64 id, const struct gate_key *k, __u64 now)
{
	const int fresh = GATE_READ(h->id) != id;
	const int bound = !fresh && GATE_READ(h->bound);
	struct gate_user *u = gate_user_of(g);
	struct gate_embryo *e;
	struct gate_tcp_opt o;
	int why = 0, bind = 0;

	if (bound && !gate_hole_is(h, p))
		return GATE_R_WRONG_REMOTE;
	if (bound && gate_hole_idle(h, g, 0, now))
		return GATE_R_HOLE_IDLE;
	if (!bound && now >= g->connect_by)
		return GATE_R_CONNECT_LATE;
	if (gate_tcp_options(ctx, p, &o))
		return GATE_R_TCP_OPTIONS;
	if (!bound && (p->flags & (GATE_SYN | GATE_ACK)) == GATE_SYN)
		return gate_hole_syn(p, g, h, id, k, &o, now);
	if (fresh)
		return GATE_R_TCP_STATE;

	bpf_spin_lock(&h->lock);
	if (h->id != id) {
		why = GATE_R_TCP_STATE;
	} else if (h->bound) {
		why = !gate_hole_is(h, p) ? GATE_R_WRONG_REMOTE : gate_hole_room(h, g, u, now);
		if (!why)
			why = gate_hole_segment(h, GATE_OUTSIDE, p, &o, now);
		if (!why)
			gate_hole_charge(h, g, u, p->len, now);
	} else {
		e = gate_embryo_find(h, p->sport, 0);
		if (!e || (p->flags & (GATE_SYN | GATE_FIN)))
			why = GATE_R_TCP_STATE;
		else if (p->flags & GATE_RST)
			why = p->seq == e->client_isn + 1 ? 0 : GATE_R_TCP_RST;
		else if (!e->answered || p->ack != e->service_isn + 1 || p->seq != e->client_isn + 1)
			why = GATE_R_TCP_ACK;
		if (!why)
			why = gate_hole_room(h, g, u, now);
		if (!why && (p->flags & GATE_RST)) {
			e->answered = 0;
			e->client_isn = p->seq; /* nothing answers this number any more */
		} else if (!why) {
			/* It acknowledges what only the service's answer told: the sender is where the answer went. */
			struct gate_tcp_end a = e->end[GATE_OUTSIDE], b = e->end[GATE_INSIDE];

			GATE_IP(h->remote) = p->src;
			h->remote_port = p->sport;
			h->track.end[GATE_OUTSIDE] = a;
			h->track.end[GATE_INSIDE] = b;
			h->track.state = GATE_TCP_SYNACK;
			why = gate_track_established(&h->track, &h->track.end[GATE_OUTSIDE], &h->track.end[GATE_INSIDE], p, &o);
			if (!why) {
				h->bound = 1;
				bind = 1;
			}
		}
		if (!why)
			gate_hole_charge(h, g, u, p->len, now);
	}
	bpf_spin_unlock(&h->lock);
	if (bind)
		gate_count(GATE_R_HOLE_BOUND);
	return why;
}

/** From outside to a public port that a grant owns. */
static __always_inline int gate_hole_in(struct xdp_md *ctx, const struct gate_pkt *p, __u32 index, __u64 now, struct gate_change *c)
{
	const struct gate_grant *g = bpf_map_lookup_elem(&grants, &index);
	struct gate_hole *h = bpf_map_lookup_elem(&holes, &index);
	struct gate_key k = {};
	__u64 id;

	if (!g || !h)
		return GATE_R_INTERNAL;
	id = GATE_READ(g->id);
	if (id == 0 || !gate_ip_eq(GATE_IP(g->public), p->dst) || g->public_port != p->dport || g->proto != p->proto ||
	    (g->flags & GATE_GRANT_IP6) != GATE_FAMILY_FLAG)
		return GATE_R_NO_HOLE;
	if (now >= GATE_READ(g->expires))
		return GATE_R_HOLE_EXPIRED;
	if (!(g->flags & GATE_GRANT_TAG) && (!gate_ip_eq(GATE_IP(g->remote), p->src) || (g->remote_port && g->remote_port != p->sport)))
		return GATE_R_WRONG_REMOTE;
	c->ip = GATE_IP(g->inside);
	c->port = g->inside_port;
	c->inbound = 1;
	k.local_ip = GATE_IP(g->inside);
	k.local_port = g->inside_port;
	k.remote_ip = p->src;
	k.remote_port = p->sport;
	k.proto = p->proto;
	if (p->proto == IPPROTO_UDP)
		return gate_hole_udp_in(ctx, p, g, h, id, &k, now, c);
	return gate_hole_tcp_in(ctx, p, g, h, id, &k, now);
}

/** From the service to a remote that the flow table says is a hole's. GATE_R_NO_HOLE: the entry is left over; the packet may be
 * something else. */
static __always_inline int gate_hole_out(struct xdp_md *ctx, const struct gate_pkt *p, __u64 id, __u64 now, struct gate_change *c)
{
	const __u32 index = GATE_HOLE_INDEX(id);
	const struct gate_grant *g = bpf_map_lookup_elem(&grants, &index);
	struct gate_hole *h = bpf_map_lookup_elem(&holes, &index);
	struct gate_embryo *e;
	struct gate_tcp_opt o = {}; /* the verifier cannot tell that it is read for TCP only */
	int why = 0;

	if (!g || !h)
		return GATE_R_INTERNAL;
	if (GATE_READ(g->id) != id || GATE_READ(h->id) != id || !gate_ip_eq(GATE_IP(g->inside), p->src) || g->inside_port != p->sport ||
	    g->proto != p->proto)
		return GATE_R_NO_HOLE;
	if (now >= GATE_READ(g->expires))
		return GATE_R_HOLE_EXPIRED;
	c->ip = GATE_IP(g->public);
	c->port = g->public_port;
	if (p->proto == IPPROTO_TCP && gate_tcp_options(ctx, p, &o))
		return GATE_R_TCP_OPTIONS;
	if (GATE_READ(h->bound) && gate_hole_idle(h, g, 0, now))
		return GATE_R_HOLE_IDLE;

	bpf_spin_lock(&h->lock);
	if (h->id != id) {
		why = GATE_R_NO_HOLE;
	} else if (h->bound) {
		if (!gate_ip_eq(GATE_IP(h->remote), p->dst) || h->remote_port != p->dport)
			why = GATE_R_SERVICE_PORT;
		else if (p->proto == IPPROTO_TCP)
			why = gate_hole_segment(h, GATE_INSIDE, p, &o, now);
	} else if (p->proto != IPPROTO_TCP || !gate_ip_eq(p->dst, GATE_IP(g->remote)) || now >= g->connect_by) {
		why = GATE_R_SERVICE_PORT;
	} else {
		e = gate_embryo_find(h, p->dport, 0);
		if (!e || !(p->flags & GATE_ACK) || p->ack != e->client_isn + 1) {
			why = GATE_R_TCP_STATE;
		} else if (p->flags & GATE_RST) {
			e->answered = 0;
		} else if (!(p->flags & GATE_SYN)) {
			why = GATE_R_TCP_STATE;
		} else if (!e->answered || e->service_isn != p->seq) {
			e->service_isn = p->seq;
			gate_end_open(&e->end[GATE_INSIDE], p, &o);
			gate_ends_agree(&e->end[GATE_INSIDE], &e->end[GATE_OUTSIDE]);
			e->answered = 1;
		}
	}
	if (!why) {
		h->packets_out++;
		h->bytes_out += p->len;
		h->last = now;
	}
	bpf_spin_unlock(&h->lock);
	return why;
}
