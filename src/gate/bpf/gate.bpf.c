/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The programs. gate_outside and gate_inside sit on the two interfaces; gate_reap is run by user space only, to delete what has
 * expired. */
#include "gate/bpf/answer.h"
#include "gate/bpf/firewall.h"
#include "gate/bpf/hole.h"
#include "gate/bpf/icmp.h"
#include "gate/bpf/session.h"
#include "gate/bpf/trace.h"

char gate_license[] SEC("license") = "Dual BSD/GPL";

/** What goes no further, and what is the host's. */
static __always_inline int gate_unrouted(struct xdp_md *ctx, int why, int side, __u64 now)
{
#if GATE_FAMILY == 4
	if (why == GATE_R_ARP) {
		if (!gate_budget(GATE_B_ARP, now, GATE_ARP_PER_S, GATE_NS_PER_S))
			return gate_drop(ctx, GATE_R_ARP_RATE);
		gate_count(GATE_R_ARP);
		return XDP_PASS;
	}
	if (why == GATE_R_IPV6 && gate_params.ip6)
		bpf_tail_call(ctx, &programs6, (__u32)side); /* gate_outside or gate_inside again, of the other family */
#else
	(void)side;
	if (why == GATE_R_ND) {
		if (!gate_budget(GATE_B_ND, now, GATE_ND_PER_S, GATE_NS_PER_S))
			return gate_drop(ctx, GATE_R_ND_RATE);
		gate_count(GATE_R_ND);
		return XDP_PASS;
	}
#endif
	return gate_drop(ctx, (__u32)why);
}

#if GATE_FAMILY == 4
/** Where a packet to a public port belongs. As gate_firewall_find. */
static __always_inline int gate_nat_find(const struct gate_pkt *p, int slot, int proto, struct gate_key *k, struct gate_flow **f,
					 __u64 *owner, __u32 *index)
{
	const __u32 at = GATE_PORT_INDEX(slot, proto, bpf_ntohs(p->dport));
	const struct gate_port *port;
	__u64 holder;

	if (!gate_wanted(at, p->dst, p->dport, p->proto, p->src, p->proto == GATE_IPPROTO_ICMP ? 0 : p->sport))
		return gate_unwanted(at, p->ttl);
	port = bpf_map_lookup_elem(&ports, &at);
	if (!port)
		return GATE_R_INTERNAL;
	holder = GATE_READ(port->owner);
	if (holder == 0)
		return GATE_R_NO_HOLE;
	if (p->ttl <= 1)
		return GATE_R_TTL;
	if (GATE_OWNER_KIND(holder) == GATE_OWNER_HOLE) {
		*index = GATE_HOLE_INDEX(holder);
		return 0;
	}
	k->local_ip = (__u32)(holder >> 16);
	k->local_port = (__u16)holder;
	k->remote_ip = p->src;
	k->remote_port = p->proto == GATE_IPPROTO_ICMP ? 0 : p->sport;
	k->proto = p->proto;
	*owner = gate_session_owner((__u32)slot, p->dport);
	*f = bpf_map_lookup_elem(&flows, k);
	return *f && GATE_READ((*f)->owner) == *owner ? 0 : GATE_R_NO_SESSION;
}
#endif

SEC("xdp")
int gate_outside(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	struct gate_change change = {};
	struct gate_flow *f = 0;
	struct gate_key k = {};
	struct gate_route route;
	struct gate_pkt p = {};
	__u64 owner = 0, now;
	__u32 index = 0, passed;
	__u8 mac[6];
	int why, slot, proto, i;

	for (i = 0; i < 6; i++)
		mac[i] = gate_params.mac[GATE_OUTSIDE][i];
	why = gate_parse(data, end, mac, &p);
	if (why)
		return gate_unrouted(ctx, why, GATE_OUTSIDE, gate_now());
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
	if (p.proto == GATE_IPPROTO_ICMP && p.icmp_type != GATE_ICMP_ECHO_REPLY)
		return gate_drop(ctx, GATE_R_ICMP_TYPE);
#if GATE_FAMILY == 4
	why = GATE_FIREWALL ? gate_firewall_find(ctx, &p, gate_now(), &k, &f, &owner, &index)
			    : gate_nat_find(&p, slot, proto, &k, &f, &owner, &index);
#else
	why = gate_firewall_find(ctx, &p, gate_now(), &k, &f, &owner, &index);
#endif
	if (why)
		return gate_drop(ctx, (__u32)why);
	now = gate_now();
	if (f) {
		passed = GATE_R_SESSION_IN;
		why = gate_session_in(ctx, &p, &k, f, owner, now, &change);
	} else {
		passed = GATE_R_HOLE_IN;
		why = gate_hole_in(ctx, &p, index, now, &change);
	}
	if (why)
		return gate_drop(ctx, (__u32)why);
	why = gate_find_route(ctx, &p, p.src, change.ip, (__u16)(change.strip ? p.len - GATE_TAG_TRAILER : p.len), GATE_INSIDE, now,
			      &route);
	if (why == GATE_R_TOO_BIG) /* what the tag takes does not count */
		return gate_drop_told(ctx, GATE_OUTSIDE, (__u32)why, change.strip ? route.mtu + GATE_TAG_TRAILER : route.mtu);
	if (!why)
		why = gate_send(ctx, &p, &change, &route, GATE_INSIDE);
	if (why)
		return gate_drop(ctx, (__u32)why);
	gate_count(passed);
	return XDP_REDIRECT;
}

/** What the route of a session that there is not yet is asked for. */
static __always_inline gate_ip gate_first_source(const struct gate_pkt *p)
{
#if GATE_FAMILY == 4
	if (!GATE_FIREWALL)
		return gate_params.public_ip[0];
#endif
	return p->src;
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
	if (why)
		return gate_unrouted(ctx, why == GATE_R_FRAGMENT ? GATE_R_FRAGMENT_INSIDE : why, GATE_INSIDE, now);
	if (gate_ip_eq(p.dst, gate_control_addr)) {
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
		return gate_tenant_of(p.src) < 0 ? gate_drop(ctx, GATE_R_TTL) : gate_drop_told(ctx, GATE_INSIDE, GATE_R_TTL, 0);
	if (gate_public_slot(p.dst) >= 0)
		return gate_drop(ctx, GATE_R_HAIRPIN);
	if (gate_icmp_is_error(&p)) {
		why = gate_error(ctx, &p, GATE_INSIDE, now);
		if (why)
			return gate_drop(ctx, (__u32)why);
		gate_count(GATE_R_ICMP_ERROR);
		return XDP_REDIRECT;
	}
	if (p.proto == GATE_IPPROTO_ICMP && p.icmp_type != GATE_ICMP_ECHO)
		return gate_drop(ctx, GATE_R_ICMP_TYPE);

	k.local_ip = p.src;
	k.local_port = p.sport;
	k.remote_ip = p.dst;
	k.remote_port = p.proto == GATE_IPPROTO_ICMP ? 0 : p.dport;
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
		if (gate_ip_bad(p.dst))
			return gate_drop(ctx, GATE_R_TO_NOWHERE);
		if (GATE_FIREWALL && gate_public_slot(p.src) < 0) /* no answer would come through */
			return gate_drop(ctx, GATE_R_NOT_PUBLIC);
		fresh = 1;
		why = 0;
	}
	if (why)
		return gate_drop(ctx, (__u32)why);
	/* The route comes before a new session: what cannot leave shall cost no table entry. */
	why = gate_find_route(ctx, &p, fresh ? gate_first_source(&p) : change.ip, p.dst, p.len, GATE_OUTSIDE, now, &route);
	if (why == GATE_R_TOO_BIG)
		return gate_drop_told(ctx, GATE_INSIDE, (__u32)why, route.mtu);
	if (!why && fresh) {
		why = gate_session_new(ctx, &p, &k, (__u32)tenant & (GATE_TENANT_SLOTS - 1), now, &change);
		if (why) /* nothing has been changed in it */
			return gate_drop_told(ctx, GATE_INSIDE, (__u32)why, 0);
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

#if GATE_FAMILY == 4
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
#endif

/* Looked at once by the verifier, instead of in every turn of the loop. */
__noinline int gate_reap_one(struct xdp_md *ctx, __u32 i, __u32 what)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const struct gate_key *at;
	struct gate_key key;

	if (i >= GATE_REAP_MAX)
		return 0;
	at = &((const struct gate_reap *)(const void *)data)->key[i];
	if ((const __u8 *)(at + 1) > end)
		return 0;
	key = *at;
#if GATE_FAMILY == 4
	if (what == GATE_REAP_MAPPINGS)
		return gate_reap_mapping(&key, gate_now());
#endif
	return what == GATE_REAP_FLOWS ? gate_reap_flow(&key, gate_now()) : 0;
}

/** The packet is a struct gate_reap. \return how many were deleted. */
SEC("xdp")
int gate_reap(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const struct gate_reap *r = (const void *)data;
	__u32 i, what, count, done = 0;

	if (data + sizeof(*r) > end)
		return 0;
	what = r->what;
	count = r->count;
	for (i = 0; i < GATE_REAP_MAX; i++) {
		if (i >= count)
			break;
		done += (__u32)gate_reap_one(ctx, i, what);
	}
	return (int)done;
}
