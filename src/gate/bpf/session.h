/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Sessions that the inside opens: endpoint-independent mapping, address-and-port-dependent filtering (RFC 4787, 5382, 5508). Without
 * translation an end is its own mapping. */
#pragma once

#include "gate/bpf/flow.h"
#include "gate/bpf/hole.h"
#if GATE_FAMILY == 4
#include "gate/bpf/mapping.h"
#endif

static __always_inline __u64 gate_flow_lifetime(const struct gate_flow *f, __u8 proto)
{
	if (proto == IPPROTO_TCP)
		return gate_track_lifetime(&f->track);
	if (proto == GATE_IPPROTO_ICMP)
		return GATE_ICMP_NS;
	return f->replied ? GATE_UDP_NS : GATE_UDP_NEW_NS;
}

/** When a session with this lifetime ends if nothing follows. An expiry is not written again for every packet: the slack makes up for it.
 */
static __always_inline __u64 gate_flow_until(__u64 lifetime, __u64 now)
{
	return now + lifetime + (lifetime >> GATE_REFRESH_SHIFT);
}

/** Keeps the mapping of a session at least until then. k: the session's key. \return 0, or the reason when it is gone. */
static __always_inline int gate_session_mapping(const struct gate_key *k, __u64 until)
{
#if GATE_FAMILY == 4
	const struct gate_end inside = {.ip = k->local_ip, .port = k->local_port, .proto = k->proto};
	struct gate_mapping *m;
	int why;

	if (!GATE_FIREWALL) {
		m = bpf_map_lookup_elem(&mappings, &inside);
		why = m ? gate_mapping_refresh(m, until) : GATE_R_NO_SESSION;
		if (!why)
			gate_wanted_add(m->public_ip, m->public_port, k->proto, k->remote_ip, k->remote_port);
		return why;
	}
#else
	(void)k;
	(void)until;
#endif
	return 0;
}

/** A session's packet passed: it lives on, and its mapping with it, which must never end first: its port is the session's. RFC 4787 REQ-6:
 * outbound packets keep it alive; TCP's states do either way. flags: TCP's; an RST only shortens (RFC 7857 section 7.1). \return 0, or
 * GATE_R_NO_SESSION when the mapping is gone. */
static __always_inline int gate_flow_touch(struct gate_flow *f, const struct gate_key *k, __u8 flags, __u64 lifetime, __u64 now)
{
	const __u64 until = gate_flow_until(lifetime, now), was = GATE_READ(f->expires);

	if (until >= was && (until - was < lifetime >> GATE_REFRESH_SHIFT || (flags & GATE_RST)))
		return 0;
	if (until > was && gate_session_mapping(k, until + GATE_MAPPING_SLACK_NS)) {
		GATE_WRITE(f->expires, 0);
		return GATE_R_NO_SESSION;
	}
	GATE_WRITE(f->expires, until); /* also shortens: a connection that was closed */
	return 0;
}

static __always_inline __u64 gate_session_owner(__u32 slot, __u16 public_port)
{
	return GATE_OWNER(GATE_FLOW_SESSION, ((__u64)slot << 16) | public_port);
}

/** A segment of the session's connection. \return 0 and its lifetime from now on, or why it is dropped. */
static __always_inline int gate_session_segment(struct xdp_md *ctx, struct gate_flow *f, __u64 owner, int side, const struct gate_pkt *p,
						__u64 *lifetime)
{
	struct gate_tcp_opt o;
	int why;

	if (gate_tcp_options(ctx, p, &o))
		return GATE_R_TCP_OPTIONS;
	bpf_spin_lock(&f->lock);
	why = f->owner != owner ? GATE_R_BUSY : gate_track_session(&f->track, side, p, &o);
	*lifetime = gate_track_lifetime(&f->track);
	bpf_spin_unlock(&f->lock);
	return why;
}

/** From outside, in the session of an entry whose owner was read. k: its key. */
static __always_inline int gate_session_in(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *k, struct gate_flow *f,
					   __u64 owner, __u64 now, struct gate_change *c)
{
	__u64 lifetime;
	int why;

	if (now >= GATE_READ(f->expires))
		return GATE_R_SESSION_EXPIRED;
	if (p->proto == IPPROTO_TCP) {
		why = gate_session_segment(ctx, f, owner, GATE_OUTSIDE, p, &lifetime);
		if (!why)
			why = gate_flow_touch(f, k, p->flags, lifetime, now);
		if (why)
			return why;
	} else if (!f->replied) {
		f->replied = 1;
	}
	c->ip = k->local_ip;
	c->port = k->local_port;
	c->inbound = 1;
	return 0;
}

/** The public end of a session from ip: what its packets leave with. */
static __always_inline void gate_session_public(__u64 owner, gate_ip ip, struct gate_change *c)
{
#if GATE_FAMILY == 4
	if (!GATE_FIREWALL)
		ip = gate_params.public_ip[(owner >> 16) & (GATE_PUBLIC_SLOTS - 1)];
#endif
	c->ip = ip;
	c->port = (__u16)owner;
}

/** From inside, in the session of an entry whose owner was read. GATE_R_NO_SESSION: it is over. */
static __always_inline int gate_session_out(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *k, struct gate_flow *f,
					    __u64 owner, __u64 now, struct gate_change *c)
{
	__u64 lifetime;
	int why;

	if (now >= GATE_READ(f->expires))
		return GATE_R_NO_SESSION;
	if (p->proto == IPPROTO_TCP) {
		why = gate_session_segment(ctx, f, owner, GATE_INSIDE, p, &lifetime);
		if (why)
			return why;
	} else {
		lifetime = gate_flow_lifetime(f, p->proto);
	}
	why = gate_flow_touch(f, k, p->flags, lifetime, now);
	if (why)
		return why;
	gate_session_public(owner, k->local_ip, c);
	return 0;
}

/** The tenant that may use this inside address, or -1. */
static __always_inline int gate_tenant_of(gate_ip ip)
{
	struct gate_prefix_key k = {.bits = GATE_PREFIX_BITS, .ip = ip};
	const __u32 *t = bpf_map_lookup_elem(&prefixes, &k);

	return t && *t < GATE_TENANT_SLOTS ? (int)*t : -1;
}

static __always_inline int gate_usage_full(__u32 slot, __u64 limit)
{
	const struct gate_usage *use = bpf_map_lookup_elem(&usage, &slot);

	return !use || GATE_READ(use->sessions) >= limit;
}

/** The owner of a new session, with a mapping where one is needed. \return 0, or the reason. */
static __always_inline int gate_session_map(const struct gate_pkt *p, __u32 tenant, __u64 until, __u64 *owner)
{
#if GATE_FAMILY == 4
	const struct gate_end inside = {.ip = p->src, .port = p->sport, .proto = p->proto};
	const int proto = gate_proto_index(p->proto);
	const struct gate_port *port;
	struct gate_mapping m;
	int why;

	if (!GATE_FIREWALL) {
		if (proto < 0)
			return GATE_R_INTERNAL;
		why = gate_mapping_get(&inside, proto, tenant, until, &m);
		if (why)
			return why;
		port = gate_port_of(&m, proto);
		if (!port || GATE_READ(port->owner) != gate_mapping_owner(p->src, p->sport))
			return GATE_R_BUSY;
		*owner = gate_session_owner(m.public_slot, m.public_port);
		return 0;
	}
#else
	(void)tenant;
	(void)until;
#endif
	*owner = gate_session_owner(0, p->sport);
	return 0;
}

/** A new session. Everything that can refuse it has been asked but the tables. k: its key. */
static __always_inline int gate_session_new(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *k, __u32 tenant, __u64 now,
					    struct gate_change *c)
{
	const __u64 lifetime = p->proto == IPPROTO_TCP ? GATE_TCP_TRANSITORY_NS : p->proto == IPPROTO_UDP ? GATE_UDP_NEW_NS : GATE_ICMP_NS;
	const __u64 until = gate_flow_until(lifetime, now);
	struct gate_tcp_opt o = {};
	struct gate_flow *f;
	__u64 mine = 0, was = 0;
	__u32 before = 0;
	int why = 0, ended = 0;

	if (gate_usage_full(tenant, gate_params.tenant_flows))
		return GATE_R_TENANT_FULL;
	if (gate_usage_full(GATE_USAGE_ALL, gate_params.sessions))
		return GATE_R_FLOWS_FULL;
	if (p->proto == IPPROTO_TCP && gate_tcp_options(ctx, p, &o))
		return GATE_R_TCP_OPTIONS;
	why = gate_session_map(p, tenant, until + GATE_MAPPING_SLACK_NS, &mine);
	if (why)
		return why;
	f = gate_flow_vacant(k, mine, now, &was, &why);
	if (!f)
		return why;
	bpf_spin_lock(&f->lock);
	if (f->owner != was && f->owner != mine) {
		why = GATE_R_BUSY;
	} else if (GATE_OWNER_KIND(f->owner) != GATE_FLOW_SESSION || now >= f->expires) {
		/* Free, or left over; else a packet beside this one has just made it. */
		ended = GATE_OWNER_KIND(f->owner) == GATE_FLOW_SESSION;
		before = f->tenant;
		f->owner = mine;
		f->tenant = (__u16)tenant;
		f->replied = 0;
		f->opened = now;
		if (p->proto == IPPROTO_TCP)
			gate_track_open(&f->track, GATE_INSIDE, p, &o);
		f->expires = until;
	} else {
		tenant = before = f->tenant;
		ended = 1;
	}
	bpf_spin_unlock(&f->lock);
	if (why)
		return why;
	if (!ended || before != tenant) {
		if (ended)
			gate_usage_session(before, -1);
		gate_usage_session(tenant, 1);
	}
	gate_session_public(mine, p->src, c);
#if GATE_FAMILY == 4
	if (!GATE_FIREWALL)
		gate_wanted_add(c->ip, c->port, k->proto, k->remote_ip, k->remote_port);
#endif
	gate_count(GATE_R_SESSION_NEW);
	return 0;
}
