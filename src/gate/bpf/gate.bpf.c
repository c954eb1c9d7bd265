/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The programs. gate_outside and gate_inside sit on the two interfaces; gate_reap is run by user space only, to delete what has
 * expired. */
#include "gate/bpf/answer.h"
#include "gate/bpf/hole.h"
#include "gate/bpf/icmp.h"
#include "gate/bpf/session.h"
#include "gate/bpf/trace.h"

char gate_license[] SEC("license") = "Dual BSD/GPL";

static __always_inline int gate_arp(struct xdp_md *ctx, __u64 now)
{
	if (!gate_budget(GATE_B_ARP, now, GATE_ARP_PER_S, GATE_NS_PER_S))
		return gate_drop(ctx, GATE_R_ARP_RATE);
	gate_count(GATE_R_ARP);
	return XDP_PASS;
}

SEC("xdp")
int gate_outside(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	struct gate_change change = {};
	struct gate_route route;
	struct gate_pkt p = {};
	struct gate_port *port;
	__u64 owner, now;
	__u32 at, passed;
	__u8 mac[6];
	int why, slot, proto, i;

	for (i = 0; i < 6; i++)
		mac[i] = gate_params.mac[GATE_OUTSIDE][i];
	why = gate_parse(data, end, mac, &p);
	if (why == GATE_R_ARP)
		return gate_arp(ctx, gate_now());
	if (why)
		return gate_drop(ctx, (__u32)why);
	slot = gate_public_slot(p.dst);
	proto = gate_proto_index(p.proto);
	if (slot < 0 || proto < 0)
		return gate_drop(ctx, GATE_R_NOT_PUBLIC);
	if (gate_icmp_is_error(&p)) {
		why = gate_error(ctx, &p, GATE_OUTSIDE, gate_now());
		if (why)
			return gate_drop(ctx, (__u32)why);
		gate_count(GATE_R_ICMP_ERROR);
		return XDP_REDIRECT;
	}
	if (p.proto == IPPROTO_ICMP && p.icmp_type != GATE_ICMP_ECHO_REPLY)
		return gate_drop(ctx, GATE_R_ICMP_TYPE);
	at = GATE_PORT_INDEX(slot, proto, bpf_ntohs(p.dport));
	if (!gate_wanted(at, p.dst, p.dport, p.proto, p.src, p.proto == IPPROTO_ICMP ? 0 : p.sport))
		return gate_drop(ctx, (__u32)gate_unwanted(at, p.ttl));
	now = gate_now();
	port = bpf_map_lookup_elem(&ports, &at);
	if (!port)
		return gate_drop(ctx, GATE_R_INTERNAL);
	owner = GATE_READ(port->owner);
	if (owner == 0)
		return gate_drop(ctx, GATE_R_NO_HOLE);
	if (p.ttl <= 1)
		return gate_drop(ctx, GATE_R_TTL);
	if (GATE_OWNER_KIND(owner) == GATE_OWNER_HOLE) {
		passed = GATE_R_HOLE_IN;
		why = gate_hole_in(ctx, &p, GATE_HOLE_INDEX(owner), now, &change);
	} else {
		passed = GATE_R_SESSION_IN;
		why = gate_session_in(ctx, &p, (__u32)slot, owner, now, &change);
	}
	if (why)
		return gate_drop(ctx, (__u32)why);
	why = gate_find_route(ctx, &p, p.src, change.ip, (__u16)(change.strip ? p.len - GATE_TAG_TRAILER : p.len), GATE_INSIDE, now,
			      &route);
	if (why == GATE_R_TOO_BIG) /* what the tag takes does not count */
		return gate_drop_told(ctx, GATE_OUTSIDE, p.dst, (__u32)why, change.strip ? route.mtu + GATE_TAG_TRAILER : route.mtu);
	if (!why)
		why = gate_send(ctx, &p, &change, &route, GATE_INSIDE);
	if (why)
		return gate_drop(ctx, (__u32)why);
	gate_count(passed);
	return XDP_REDIRECT;
}

SEC("xdp")
int gate_inside(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const __u64 now = gate_now();
	struct gate_change change = {};
	struct gate_key k = {};
	struct gate_end self = {};
	struct gate_flow *f;
	struct gate_route route;
	struct gate_pkt p = {};
	__u64 owner;
	__u32 passed = GATE_R_SESSION_OUT;
	__u8 mac[6];
	int why, tenant = -1, fresh = 0, i;

	for (i = 0; i < 6; i++)
		mac[i] = gate_params.mac[GATE_INSIDE][i];
	why = gate_parse(data, end, mac, &p);
	if (why == GATE_R_ARP)
		return gate_arp(ctx, now);
	if (why)
		return gate_drop(ctx, why == GATE_R_FRAGMENT ? GATE_R_FRAGMENT_INSIDE : (__u32)why);
	if (p.dst == gate_params.control_ip) {
		if (p.proto != IPPROTO_TCP || p.dport != gate_params.control_port)
			return gate_drop(ctx, GATE_R_TO_HOST);
		if (gate_tenant_of(p.src) < 0)
			return gate_drop(ctx, GATE_R_SPOOFED);
		if (!gate_budget(GATE_B_CONTROL, now, GATE_CONTROL_PER_S, GATE_NS_PER_S / 10) ||
		    ((p.flags & GATE_SYN) && !gate_budget(GATE_B_CONTROL_SYN, now, GATE_CONTROL_SYN_S, GATE_NS_PER_S)))
			return gate_drop(ctx, GATE_R_CONTROL_RATE);
		gate_count(GATE_R_CONTROL);
		return XDP_PASS;
	}
	if (p.ttl <= 1)
		return gate_tenant_of(p.src) < 0 ? gate_drop(ctx, GATE_R_TTL)
						 : gate_drop_told(ctx, GATE_INSIDE, gate_params.control_ip, GATE_R_TTL, 0);
	if (gate_public_slot(p.dst) >= 0)
		return gate_drop(ctx, GATE_R_HAIRPIN);
	if (gate_icmp_is_error(&p)) {
		why = gate_error(ctx, &p, GATE_INSIDE, now);
		if (why)
			return gate_drop(ctx, (__u32)why);
		gate_count(GATE_R_ICMP_ERROR);
		return XDP_REDIRECT;
	}
	if (p.proto == IPPROTO_ICMP && p.icmp_type != GATE_ICMP_ECHO)
		return gate_drop(ctx, GATE_R_ICMP_TYPE);

	k.local_ip = p.src;
	k.local_port = p.sport;
	k.remote_ip = p.dst;
	k.remote_port = p.proto == IPPROTO_ICMP ? 0 : p.dport;
	k.proto = p.proto;
	f = bpf_map_lookup_elem(&flows, &k);
	why = GATE_R_NO_SESSION;
	if (f) {
		owner = GATE_READ(f->owner);
		if (GATE_OWNER_KIND(owner) == GATE_FLOW_HOLE) {
			passed = GATE_R_HOLE_OUT;
			why = gate_hole_out(ctx, &p, GATE_OWNER_VALUE(owner), now, &change);
			if (why == GATE_R_NO_HOLE)
				why = GATE_R_NO_SESSION;
		} else if (GATE_OWNER_KIND(owner) == GATE_FLOW_SESSION) {
			why = gate_session_out(ctx, &p, &k, f, owner, now, &change);
		} else if (owner == GATE_FLOW_DEAD) {
			why = GATE_R_BUSY;
		}
	}
	if (why == GATE_R_NO_SESSION) {
		passed = GATE_R_SESSION_OUT;
		tenant = gate_tenant_of(p.src);
		if (tenant < 0)
			return gate_drop(ctx, GATE_R_SPOOFED);
		self.ip = p.src;
		self.port = p.sport;
		self.proto = p.proto;
		if (bpf_map_lookup_elem(&services, &self))
			return gate_drop(ctx, GATE_R_SERVICE_PORT);
		if (p.proto == IPPROTO_TCP && (p.flags & (GATE_SYN | GATE_ACK)) != GATE_SYN)
			return gate_drop(ctx, GATE_R_TCP_NO_SESSION);
		if ((__u8)(bpf_ntohl(p.dst) >> 24) == 0 || (__u8)(bpf_ntohl(p.dst) >> 24) == 127 || (__u8)(bpf_ntohl(p.dst) >> 24) >= 224)
			return gate_drop(ctx, GATE_R_TO_NOWHERE);
		fresh = 1;
		why = 0;
	}
	if (why)
		return gate_drop(ctx, (__u32)why);
	/* The route comes before a new session: what cannot leave shall cost no table entry. */
	why = gate_find_route(ctx, &p, fresh ? gate_params.public_ip[0] : change.ip, p.dst, p.len, GATE_OUTSIDE, now, &route);
	if (why == GATE_R_TOO_BIG)
		return gate_drop_told(ctx, GATE_INSIDE, gate_params.control_ip, (__u32)why, route.mtu);
	if (!why && fresh) {
		why = gate_session_new(ctx, &p, &k, (__u32)tenant & (GATE_TENANT_SLOTS - 1), now, &change);
		if (why) /* nothing has been changed in it */
			return gate_drop_told(ctx, GATE_INSIDE, gate_params.control_ip, (__u32)why, 0);
	}
	if (!why)
		why = gate_send(ctx, &p, &change, &route, GATE_OUTSIDE);
	if (why)
		return gate_drop(ctx, (__u32)why);
	gate_count(passed);
	return XDP_REDIRECT;
}

static __always_inline int gate_reap_flow(const struct gate_key *key, __u64 now)
{
	struct gate_flow *f = bpf_map_lookup_elem(&flows, key);
	__u64 owner;
	__u32 tenant;
	int session, strayed, dead = 0;

	if (!f)
		return 0;
	owner = GATE_READ(f->owner);
	session = GATE_OWNER_KIND(owner) == GATE_FLOW_SESSION;
	strayed =
		session && gate_tenant_of(key->local_ip) != (int)f->tenant; /* the file no longer gives this address to whoever opened it */
	if (owner == GATE_FLOW_DEAD || (!session && gate_flow_alive(f, owner, key, now)))
		return 0;
	bpf_spin_lock(&f->lock);
	if (f->owner == owner && (!session || strayed || now > f->expires + GATE_REAP_GRACE_NS)) {
		f->owner = GATE_FLOW_DEAD;
		dead = 1;
	}
	tenant = f->tenant;
	bpf_spin_unlock(&f->lock);
	if (!dead)
		return 0;
	if (session)
		gate_usage_session(tenant, -1);
	return gate_flow_delete(key, f);
}

static __always_inline int gate_reap_mapping(const struct gate_key *key, __u64 now)
{
	struct gate_end inside = {.ip = key->local_ip, .port = key->local_port, .proto = key->proto};
	const int proto = gate_proto_index(key->proto);
	struct gate_mapping *m = bpf_map_lookup_elem(&mappings, &inside);
	struct gate_port *port;
	__u64 was;

	if (!m || proto < 0)
		return 0;
	was = GATE_READ(m->expires);
	if (was != GATE_MAPPING_DEAD && (now <= was + GATE_REAP_GRACE_NS || !gate_cas(&m->expires, was, GATE_MAPPING_DEAD)))
		return 0;
	port = gate_port_of(m, proto);
	if (bpf_map_delete_elem(&mappings, &inside))
		return 0;
	if (port)
		gate_cas(&port->owner, gate_mapping_owner(inside.ip, inside.port), 0);
	return 1;
}

/** The packet is a struct gate_reap. \return how many were deleted. */
SEC("xdp")
int gate_reap(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const struct gate_reap *r = (const void *)data;
	const __u64 now = gate_now();
	struct gate_key key;
	__u32 i, what, count, done = 0;

	if (data + sizeof(*r) > end)
		return 0;
	what = r->what;
	count = r->count;
	for (i = 0; i < GATE_REAP_MAX; i++) {
		if (i >= count)
			break;
		key = r->key[i];
		if (what == GATE_REAP_FLOWS)
			done += (__u32)gate_reap_flow(&key, now);
		else if (what == GATE_REAP_MAPPINGS)
			done += (__u32)gate_reap_mapping(&key, now);
	}
	return (int)done;
}
