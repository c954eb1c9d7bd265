/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Sessions that the inside opens: endpoint-independent mapping, address-and-port-dependent filtering (RFC 4787, 5382, 5508). */
#pragma once

#include "gate/bpf/back.h"
#include "gate/bpf/hole.h"

static __always_inline __u64 gate_mapping_owner(__u32 ip, __u16 port)
{
	return GATE_OWNER(GATE_OWNER_MAPPING, ((__u64)ip << 16) | port);
}

/** Which bit of gate_port.remotes stands for a remote. */
static __always_inline __u64 gate_remote_bit(__u32 ip, __u16 port)
{
	__u64 x = (((__u64)ip << 16) | port) * 0x9e3779b97f4a7c15ull;

	return 1ull << (x >> 58);
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

/** A session's packet passed: it lives on, and its mapping with it. RFC 4787 REQ-6: outbound packets keep it alive; TCP's states do either
 * way. */
static __always_inline void gate_flow_touch(struct gate_flow *f, const struct gate_end *inside, __u64 lifetime, __u64 now)
{
	const __u64 until = now + lifetime, was = GATE_READ(f->expires);
	struct gate_mapping *m;

	if (until >= was && until - was < GATE_REFRESH_NS)
		return;
	GATE_WRITE(f->expires, until); /* also shortens: a connection that was closed */
	m = bpf_map_lookup_elem(&mappings, inside);
	if (m)
		gate_mapping_refresh(m, until + GATE_MAPPING_SLACK_NS);
}

/** From outside to a public port that a mapping owns. */
static __always_inline int gate_session_in(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_port *port, __u64 owner,
					   __u64 now, struct gate_change *c)
{
	struct gate_key k = {.local_ip = p->dst, .local_port = p->dport, .remote_ip = p->src, .proto = p->proto};
	struct gate_end inside = {.proto = p->proto};
	struct gate_flow *f;
	struct gate_tcp_opt o;
	__u64 lifetime;
	int why = 0;

	k.remote_port = p->proto == IPPROTO_ICMP ? 0 : p->sport;
	if (!(GATE_READ(port->remotes) & gate_remote_bit(k.remote_ip, k.remote_port)))
		return GATE_R_NO_SESSION;
	f = bpf_map_lookup_elem(&flows, &k);
	if (!f || f->dead || owner != gate_mapping_owner(f->inside_ip, f->inside_port))
		return GATE_R_NO_SESSION;
	if (now >= GATE_READ(f->expires))
		return GATE_R_SESSION_EXPIRED;
	inside.ip = f->inside_ip;
	inside.port = f->inside_port;
	if (p->proto == IPPROTO_TCP) {
		gate_tcp_options(ctx, p, &o);
		bpf_spin_lock(&f->lock);
		why = f->dead ? GATE_R_BUSY : gate_track_session(&f->track, GATE_OUTSIDE, p, &o);
		lifetime = gate_track_lifetime(&f->track);
		bpf_spin_unlock(&f->lock);
		if (why)
			return why;
		gate_flow_touch(f, &inside, lifetime, now);
	} else if (!f->replied) {
		f->replied = 1;
	}
	c->ip = inside.ip;
	c->port = inside.port;
	c->inbound = 1;
	return 0;
}

/** From inside, in a session that exists. GATE_R_NO_SESSION: there is none (any more). */
static __always_inline int gate_session_out(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *k, __u64 now,
					    struct gate_change *c)
{
	struct gate_end inside = {.ip = p->src, .port = p->sport, .proto = p->proto};
	const int slot = gate_public_slot(k->local_ip), proto = gate_proto_index(p->proto);
	const struct gate_port *port;
	struct gate_flow *f;
	struct gate_tcp_opt o;
	__u64 lifetime;
	__u32 at;
	int why;

	if (slot < 0 || proto < 0)
		return GATE_R_INTERNAL;
	f = bpf_map_lookup_elem(&flows, k);
	if (!f || f->dead || f->inside_ip != p->src || f->inside_port != p->sport || now >= GATE_READ(f->expires))
		return GATE_R_NO_SESSION;
	at = GATE_PORT_INDEX(slot, proto, bpf_ntohs(k->local_port));
	port = bpf_map_lookup_elem(&ports, &at);
	if (!port || GATE_READ(port->owner) != gate_mapping_owner(p->src, p->sport))
		return GATE_R_NO_SESSION;
	if (p->proto == IPPROTO_TCP) {
		gate_tcp_options(ctx, p, &o);
		bpf_spin_lock(&f->lock);
		why = f->dead ? GATE_R_BUSY : gate_track_session(&f->track, GATE_INSIDE, p, &o);
		lifetime = gate_track_lifetime(&f->track);
		bpf_spin_unlock(&f->lock);
		if (why)
			return why;
	} else {
		lifetime = gate_flow_lifetime(f, p->proto);
	}
	gate_flow_touch(f, &inside, lifetime, now);
	c->ip = k->local_ip;
	c->port = k->local_port;
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

/** A new session. Everything that can refuse it has been asked but the tables. */
static __always_inline int gate_session_new(struct xdp_md *ctx, const struct gate_pkt *p, const struct gate_key *bk, __u32 tenant,
					    __u64 now, struct gate_change *c)
{
	struct gate_end inside = {.ip = p->src, .port = p->sport, .proto = p->proto};
	const int proto = gate_proto_index(p->proto);
	struct gate_key k = {};
	struct gate_mapping m;
	struct gate_flow fresh = {}, *f;
	struct gate_usage *use;
	struct gate_port *port;
	struct gate_tcp_opt o;
	__u64 lifetime, claim, bit;
	int why, revived = 0;

	if (proto < 0)
		return GATE_R_INTERNAL;
	if (p->proto == IPPROTO_TCP) {
		gate_tcp_options(ctx, p, &o);
		gate_track_open(&fresh.track, GATE_INSIDE, p, &o);
	}
	lifetime = gate_flow_lifetime(&fresh, p->proto);
	use = bpf_map_lookup_elem(&usage, &tenant);
	if (!use)
		return GATE_R_INTERNAL;
	if (GATE_READ(use->flows) >= gate_params.tenant_flows)
		return GATE_R_TENANT_FULL;

	why = gate_mapping_get(&inside, proto, tenant, now + lifetime + GATE_MAPPING_SLACK_NS, &m);
	if (why)
		return why;
	port = gate_port_of(&m, proto);
	if (!port || GATE_READ(port->owner) != gate_mapping_owner(p->src, p->sport))
		return GATE_R_BUSY;
	k.local_ip = m.public_ip;
	k.local_port = m.public_port;
	k.remote_ip = p->dst;
	k.remote_port = bk->remote_port;
	k.proto = p->proto;
	claim = (GATE_BACK_FLOW << 62) | ((__u64)m.public_slot << 16) | m.public_port;
	why = gate_back_claim(bk, claim, now);
	if (why)
		return why;

	fresh.tenant = (__u16)tenant;
	fresh.expires = now + lifetime;
	fresh.opened = now;
	fresh.inside_ip = p->src;
	fresh.inside_port = p->sport;
	if (bpf_map_update_elem(&flows, &k, &fresh, BPF_NOEXIST) == 0) {
		__sync_fetch_and_add(&use->flows, 1);
	} else {
		f = bpf_map_lookup_elem(&flows, &k);
		if (!f) {
			gate_back_release(bk, claim);
			return GATE_R_FLOWS_FULL;
		}
		/* Left over from an earlier session, or made by a packet beside this one. */
		bpf_spin_lock(&f->lock);
		if (f->dead) {
			why = GATE_R_BUSY;
		} else if (now >= f->expires || f->inside_ip != p->src || f->inside_port != p->sport) {
			f->inside_ip = p->src;
			f->inside_port = p->sport;
			f->replied = 0;
			f->opened = now;
			f->track = fresh.track;
			f->expires = now + lifetime;
			revived = 1;
		}
		bpf_spin_unlock(&f->lock);
		if (why)
			return why;
	}
	bit = gate_remote_bit(k.remote_ip, k.remote_port);
	if (!(GATE_READ(port->remotes) & bit))
		__sync_fetch_and_or(&port->remotes, bit);
	(void)revived;
	gate_count(GATE_R_SESSION_NEW);
	c->ip = m.public_ip;
	c->port = m.public_port;
	return 0;
}
