/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Translation (NAPT, IPv4 only): public ports and the inside ends that they stand for. */
#pragma once

#include "gate/bpf/maps.h"
#include "gate/bpf/parse.h"
#include "gate/bpf/siphash.h"
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
