/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Without translation: a packet from outside has the flow's own five-tuple, or it is the first one of a hole that waits for it. */
#pragma once

#include "gate/bpf/session.h"

/** Whether a waiting hole is this packet's: GATE_FITS_ALSO when others that wait come first. */
enum { GATE_FITS_NOT, GATE_FITS_ALSO, GATE_FITS };
static __always_inline int gate_waiting_fits(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_grant *g,
					     const struct gate_hole *h, __u64 now)
{
	const __u64 id = GATE_READ(g->id);
	const int used = h->id == id;

	if (id == 0 || now >= GATE_READ(g->expires) || (used && GATE_READ(h->bound)))
		return 0;
	if (p->proto == IPPROTO_TCP)
		/* A hole whose handshake is under way comes after those that have none: each connection shall find one of its own. */
		return now >= g->connect_by ? GATE_FITS_NOT : used && h->embryo[0].seen ? GATE_FITS_ALSO : GATE_FITS;
	if (g->flags & GATE_GRANT_TAG)
		return p->payload >= GATE_TAG_TRAILER && p->payload - GATE_TAG_TRAILER <= GATE_TAG_DATA_MAX &&
				       gate_tag_ok(ctx, p->payload - GATE_TAG_TRAILER, g->key[0], g->key[1])
			       ? GATE_FITS
			       : GATE_FITS_NOT;
	return g->remote_port == p->sport ? GATE_FITS : GATE_FITS_NOT;
}

/** The hole that waits under k for this packet; where none fits the first one, which says why not. \return its place, or 0. */
static __always_inline __u32 gate_waiting_under(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_waiting_key *k, __u64 now)
{
	const struct gate_waiting *w = bpf_map_lookup_elem(&waiting, k);
	const struct gate_grant *g;
	const struct gate_hole *h;
	__u32 i, index, also = 0;
	int fits;

	if (!w)
		return 0;
	if (w->place[1] == 0)
		return w->place[0];
	for (i = 0; i < GATE_WAITING; i++) {
		if (w->place[i] == 0)
			break;
		index = w->place[i] - 1;
		g = bpf_map_lookup_elem(&grants, &index);
		h = bpf_map_lookup_elem(&holes, &index);
		fits = g && h ? gate_waiting_fits(ctx, p, g, h, now) : GATE_FITS_NOT;
		if (fits == GATE_FITS)
			return index + 1;
		if (fits == GATE_FITS_ALSO && !also)
			also = index + 1;
	}
	return also ? also : w->place[0];
}

static __always_inline __u32 gate_waiting_find(struct xdp_md *ctx, const struct gate_pkt *p, __u64 now)
{
	struct gate_waiting_key k = {.local_ip = p->dst, .remote_ip = p->src, .local_port = p->dport, .proto = p->proto};
	__u32 place;

	if (p->proto == GATE_IPPROTO_ICMP || (p->proto == IPPROTO_TCP && (p->flags & (GATE_SYN | GATE_ACK)) != GATE_SYN))
		return 0;
	place = gate_waiting_under(ctx, p, &k, now);
	if (place == 0 && p->proto == IPPROTO_UDP) {
		__builtin_memset(&k.remote_ip, 0, sizeof(k.remote_ip));
		place = gate_waiting_under(ctx, p, &k, now);
	}
	return place;
}

/**
 * Where a packet to a protected address belongs.
 * \param k  receives the flow's key
 * \return 0, and in *f the session's entry with its *owner, or none and the hole's *index; else the reason.
 */
static __always_inline int gate_firewall_find(struct xdp_md *ctx, const struct gate_pkt *p, __u64 now, struct gate_key *k,
					      struct gate_flow **f, __u64 *owner, __u32 *index)
{
	struct gate_flow *found;
	__u32 place;

	if (p->ttl <= 1)
		return GATE_R_TTL;
	k->local_ip = p->dst;
	k->local_port = p->dport;
	k->remote_ip = p->src;
	k->remote_port = p->proto == GATE_IPPROTO_ICMP ? 0 : p->sport;
	k->proto = p->proto;
	found = bpf_map_lookup_elem(&flows, k);
	if (found) {
		*owner = GATE_READ(found->owner);
		if (GATE_OWNER_KIND(*owner) == GATE_FLOW_HOLE) {
			*index = GATE_HOLE_INDEX(*owner);
			if (gate_flow_alive(found, *owner, k, now))
				return 0;
		} else if (GATE_OWNER_KIND(*owner) == GATE_FLOW_SESSION && now < GATE_READ(found->expires)) {
			*f = found;
			return 0;
		}
	}
	place = gate_waiting_find(ctx, p, now);
	if (place) {
		*index = place - 1;
		return 0;
	}
	if (found && GATE_OWNER_KIND(*owner) == GATE_FLOW_SESSION)
		return GATE_R_SESSION_EXPIRED;
	return found && GATE_OWNER_KIND(*owner) == GATE_FLOW_HOLE ? 0 : GATE_R_NO_HOLE; /* the hole that was says why not */
}
