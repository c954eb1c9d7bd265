/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Sessions that the inside opens: endpoint-independent mapping, address-and-port-dependent filtering (RFC 4787, 5382, 5508). */
#pragma once

#include "gate/bpf/flow.h"
#include "gate/bpf/hole.h"
#include "gate/bpf/wanted.h"

static __always_inline __u64 gate_mapping_owner(__u32 ip, __u16 port)
{
	return GATE_OWNER(GATE_OWNER_MAPPING, ((__u64)ip << 16) | port);
}

/** Keeps a mapping at least until then. \return 0, or GATE_R_BUSY while it is being deleted. */
static __always_inline int gate_mapping_refresh(struct gate_mapping *m, __u64 until)
{
	__u64 was = GATE_READ(m->expires);

	if (was == GATE_MAPPING_DEAD)
		return GATE_R_BUSY;
	if (was >= until || gate_cas(&m->expires, was, until))
		return 0;
	return GATE_READ(m->expires) == GATE_MAPPING_DEAD ? GATE_R_BUSY : 0;
}

static __always_inline __u64 gate_flow_lifetime(const struct gate_flow *f, __u8 proto)
{
	if (proto == IPPROTO_TCP)
		return gate_track_lifetime(&f->track);
	if (proto == IPPROTO_ICMP)
		return GATE_ICMP_NS;
	return f->replied ? GATE_UDP_NS : GATE_UDP_NEW_NS;
}

/** When a session with this lifetime ends if nothing follows. An expiry is not written again for every packet: the slack makes up for it.
 */
static __always_inline __u64 gate_flow_until(__u64 lifetime, __u64 now)
{
	return now + lifetime + (lifetime >> GATE_REFRESH_SHIFT);
}

/** A session's packet passed: it lives on, and its mapping with it, which must never end first: its port is the session's. RFC 4787 REQ-6:
 * outbound packets keep it alive; TCP's states do either way. flags: TCP's; an RST only shortens (RFC 7857 section 7.1). \return 0, or
 * GATE_R_NO_SESSION when the mapping is gone. */
static __always_inline int gate_flow_touch(struct gate_flow *f, const struct gate_key *k, __u8 flags, __u64 lifetime, __u64 now)
{
	const __u64 until = gate_flow_until(lifetime, now), was = GATE_READ(f->expires);
	const struct gate_end inside = {.ip = k->local_ip, .port = k->local_port, .proto = k->proto};
	struct gate_mapping *m;

	if (until >= was && (until - was < lifetime >> GATE_REFRESH_SHIFT || (flags & GATE_RST)))
		return 0;
	if (until > was) {
		m = bpf_map_lookup_elem(&mappings, &inside);
		if (!m || gate_mapping_refresh(m, until + GATE_MAPPING_SLACK_NS)) {
			GATE_WRITE(f->expires, 0);
			return GATE_R_NO_SESSION;
		}
		gate_wanted_add(m->public_ip, m->public_port, k->proto, k->remote_ip, k->remote_port);
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

/** From outside to the public port of slot that a mapping owns. */
static __always_inline int gate_session_in(struct xdp_md *ctx, const struct gate_pkt *p, __u32 slot, __u64 owner, __u64 now,
					   struct gate_change *c)
{
	struct gate_key k = {.local_ip = (__u32)(owner >> 16), .local_port = (__u16)owner, .remote_ip = p->src, .proto = p->proto};
	const __u64 session = gate_session_owner(slot, p->dport);
	struct gate_flow *f;
	__u64 lifetime;
	int why;

	k.remote_port = p->proto == IPPROTO_ICMP ? 0 : p->sport;
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f || GATE_READ(f->owner) != session)
		return GATE_R_NO_SESSION;
	if (now >= GATE_READ(f->expires))
		return GATE_R_SESSION_EXPIRED;
	if (p->proto == IPPROTO_TCP) {
		why = gate_session_segment(ctx, f, session, GATE_OUTSIDE, p, &lifetime);
		if (!why)
			why = gate_flow_touch(f, &k, p->flags, lifetime, now);
		if (why)
			return why;
	} else if (!f->replied) {
		f->replied = 1;
	}
	c->ip = k.local_ip;
	c->port = k.local_port;
	c->inbound = 1;
	return 0;
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
	c->ip = gate_params.public_ip[(owner >> 16) & (GATE_PUBLIC_SLOTS - 1)];
	c->port = (__u16)owner;
	return 0;
}

/** Draws a free public port for an inside end and claims it. Each inside address keeps to one public address (RFC 4787 REQ-2). */
static __always_inline int gate_draw_port(const struct gate_end *inside, int proto, struct gate_mapping *m)
{
	const __u32 span = proto == GATE_P_ICMP ? 65536 : gate_params.port_span, low = proto == GATE_P_ICMP ? 0 : gate_params.port_low;
	const __u64 owner = gate_mapping_owner(inside->ip, inside->port);
	struct gate_port *port;
	struct gate_sip s;
	__u32 slot, at, n, i;
	__u64 h;

	if (gate_params.npublic == 0)
		return GATE_R_NO_PORT;
	slot = ((inside->ip * 0x9e3779b1u) >> 16) % gate_params.npublic & (GATE_PUBLIC_SLOTS - 1);
	for (i = 0; i < GATE_PORT_TRIES; i++) {
		gate_sip_init(&s, gate_params.port_key[0], gate_params.port_key[1]);
		gate_sip_word(&s, ((__u64)bpf_get_prandom_u32() << 32) | bpf_get_prandom_u32());
		h = gate_sip_final(&s, owner, 16);
		n = low + (__u32)(((h & 0xffffffff) * span) >> 32);
		at = GATE_PORT_INDEX(slot, proto, n & 0xffff);
		port = bpf_map_lookup_elem(&ports, &at);
		if (!port)
			return GATE_R_NO_PORT;
		if (GATE_READ(port->owner) == 0 && gate_cas(&port->owner, 0, owner)) {
			m->public_ip = gate_params.public_ip[slot];
			m->public_port = bpf_htons((__u16)n);
			m->public_slot = (__u8)slot;
			return 0;
		}
	}
	return GATE_R_NO_PORT;
}

static __always_inline struct gate_port *gate_port_of(const struct gate_mapping *m, int proto)
{
	__u32 at = GATE_PORT_INDEX(m->public_slot, proto, bpf_ntohs(m->public_port));

	return bpf_map_lookup_elem(&ports, &at);
}

/** The inside end's mapping, made if there is none. */
static __always_inline int gate_mapping_get(const struct gate_end *inside, int proto, __u32 tenant, __u64 until, struct gate_mapping *out)
{
	struct gate_mapping *m = bpf_map_lookup_elem(&mappings, inside);
	struct gate_port *port;
	int why;

	if (!m) {
		__builtin_memset(out, 0, sizeof(*out));
		why = gate_draw_port(inside, proto, out);
		if (why)
			return why;
		out->expires = until;
		out->tenant = (__u8)tenant;
		if (bpf_map_update_elem(&mappings, inside, out, BPF_NOEXIST) == 0) {
			gate_count(GATE_R_MAPPING_NEW);
			return 0;
		}
		port = gate_port_of(out, proto);
		if (port)
			gate_cas(&port->owner, gate_mapping_owner(inside->ip, inside->port), 0);
		m = bpf_map_lookup_elem(&mappings, inside); /* another packet of the same end was quicker */
		if (!m)
			return GATE_R_MAPPINGS_FULL;
	}
	why = gate_mapping_refresh(m, until);
	if (why)
		return why;
	out->public_ip = m->public_ip;
	out->public_port = m->public_port;
	out->public_slot = m->public_slot;
	return 0;
}

/** The tenant that may use this inside address, or -1. */
static __always_inline int gate_tenant_of(__u32 ip)
{
	struct gate_prefix_key k = {.bits = 32, .ip = ip};
	const __u32 *t = bpf_map_lookup_elem(&prefixes, &k);

	return t && *t < GATE_TENANT_SLOTS ? (int)*t : -1;
}

static __always_inline int gate_usage_full(__u32 slot, __u64 limit)
{
	const struct gate_usage *use = bpf_map_lookup_elem(&usage, &slot);

	return !use || GATE_READ(use->flows) >= limit;
}

/** A new session. Everything that can refuse it has been asked but the tables. k: its key. */
static __always_inline int gate_session_new(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *k, __u32 tenant, __u64 now,
					    struct gate_change *c)
{
	struct gate_end inside = {.ip = p->src, .port = p->sport, .proto = p->proto};
	const int proto = gate_proto_index(p->proto);
	const __u64 lifetime = p->proto == IPPROTO_TCP ? GATE_TCP_TRANSITORY_NS : p->proto == IPPROTO_UDP ? GATE_UDP_NEW_NS : GATE_ICMP_NS;
	const __u64 until = gate_flow_until(lifetime, now);
	struct gate_tcp_opt o = {};
	struct gate_mapping m;
	struct gate_flow *f;
	struct gate_port *port;
	__u64 mine, was = 0;
	__u32 before = 0;
	int why = 0, ended = 0;

	if (proto < 0)
		return GATE_R_INTERNAL;
	if (gate_usage_full(tenant, gate_params.tenant_flows))
		return GATE_R_TENANT_FULL;
	if (gate_usage_full(GATE_USAGE_ALL, gate_params.flows))
		return GATE_R_FLOWS_FULL;
	if (p->proto == IPPROTO_TCP && gate_tcp_options(ctx, p, &o))
		return GATE_R_TCP_OPTIONS;
	why = gate_mapping_get(&inside, proto, tenant, until + GATE_MAPPING_SLACK_NS, &m);
	if (why)
		return why;
	port = gate_port_of(&m, proto);
	if (!port || GATE_READ(port->owner) != gate_mapping_owner(p->src, p->sport))
		return GATE_R_BUSY;
	mine = gate_session_owner(m.public_slot, m.public_port);
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
	gate_wanted_add(m.public_ip, m.public_port, k->proto, k->remote_ip, k->remote_port);
	gate_count(GATE_R_SESSION_NEW);
	c->ip = m.public_ip;
	c->port = m.public_port;
	return 0;
}
