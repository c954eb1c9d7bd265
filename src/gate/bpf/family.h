/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The address family. The programs are compiled once for each: with GATE_FAMILY 6 every name below means the IPv6 one, and every
 * table and variable that both share is declared, not defined. */
#pragma once

#include <linux/in.h>
#include <linux/in6.h>

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

#ifndef GATE_FAMILY
#define GATE_FAMILY 4
#endif

#if GATE_FAMILY == 4
#define GATE_SHARED
typedef __u32 gate_ip;
/* Which of the two a union gate_addr holds. */
#define GATE_IP(a)        ((a).ip4)
#define GATE_IPPROTO_ICMP IPPROTO_ICMP
#define GATE_FAMILY_FLAG  0
#define GATE_PREFIX_BITS  32
/* Whether nothing is translated: constant when the programs are loaded. */
#define GATE_FIREWALL     (gate_params.firewall)
#define gate_control_addr (gate_params.control_ip)
#else
#define GATE_SHARED       extern
typedef struct gate_ip6 gate_ip;
#define GATE_IP(a)        ((a).ip6)
#define GATE_IPPROTO_ICMP IPPROTO_ICMPV6
#define GATE_FAMILY_FLAG  GATE_GRANT_IP6
#define GATE_PREFIX_BITS  128
#define GATE_FIREWALL     1
#define gate_control_addr (gate_params.control_ip6)
/* Types and tables whose keys hold addresses. */
#define gate_key          gate_key6
#define gate_end          gate_end6
#define gate_prefix_key   gate_prefix_key6
#define gate_waiting_key  gate_waiting_key6
#define flows             flows6
#define services          services6
#define prefixes          prefixes6
#define waiting           waiting6
/* What the linker sees. */
#define gate_flow_none    gate_flow_none6
#define gate_tag_ok       gate_tag_ok6
#define gate_options_one  gate_options_one6
#define gate_options_of   gate_options_of6
#define gate_drop_told    gate_drop_told6
#define gate_outside      gate_outside6
#define gate_inside       gate_inside6
#define gate_reap_one     gate_reap_one6
#define gate_reap         gate_reap6
#endif

/* By value, or not at all: addresses of the packet are copied once, by gate_parse. */
static __always_inline int gate_ip_eq(gate_ip a, gate_ip b)
{
#if GATE_FAMILY == 4
	return a == b;
#else
	return ((a.w[0] ^ b.w[0]) | (a.w[1] ^ b.w[1]) | (a.w[2] ^ b.w[2]) | (a.w[3] ^ b.w[3])) == 0;
#endif
}

/** Not an address of one host that packets may be forwarded from or to. */
static __always_inline int gate_ip_bad(gate_ip a)
{
#if GATE_FAMILY == 4
	const __u8 first = (__u8)(bpf_ntohl(a) >> 24);

	return first == 0 || first == 127 || first >= 224;
#else
	/* The unspecified and the loopback address, and those that hold an IPv4 address; multicast; link-local. */
	return ((a.w[0] | a.w[1]) == 0 && (a.w[2] == 0 || a.w[2] == bpf_htonl(0xffff))) ||
	       (a.w[0] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000) || (a.w[0] & bpf_htonl(0xffc00000)) == bpf_htonl(0xfe800000);
#endif
}
