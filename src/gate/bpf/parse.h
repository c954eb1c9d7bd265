/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Frame -> struct gate_pkt, or the reason why not. Pure. Only Ethernet + IPv4 without options comes through, so that every header
 * after it stands at a fixed offset. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "gate/bpf/port.h"
#include "gate/bpf/shared.h"

/* <linux/icmp.h> wants the C library's socket headers. */
struct gate_icmp {
	__u8 type, code;
	__u16 check;
	__u16 id, seq; /* echo; in a type 3 code 4 error `seq` is the MTU */
};
#define GATE_ICMP_ECHO_REPLY    0
#define GATE_ICMP_UNREACHABLE   3
#define GATE_ICMP_ECHO          8
#define GATE_ICMP_TIME_EXCEEDED 11
#define GATE_ICMP_PARAMETER     12

#define GATE_L3 ETH_HLEN
#define GATE_L4 (GATE_L3 + (int)sizeof(struct iphdr))

#define GATE_FIN 0x01
#define GATE_SYN 0x02
#define GATE_RST 0x04
#define GATE_ACK 0x10

struct gate_pkt {
	__u32 src, dst;
	__u16 sport, dport; /* ICMP echo: both the query id; other ICMP: 0 */
	__u16 len;          /* IP total length, host order */
	__u16 payload;      /* bytes after the layer-4 header */
	__u8 proto, ttl, tos;
	__u8 flags; /* TCP */
	__u8 doff;  /* TCP header length, bytes */
	__u8 icmp_type, icmp_code;
	__u32 seq, ack; /* TCP, host order */
	__u16 window;
};

static __always_inline int gate_parse_tcp(const struct tcphdr *tcp, __u32 l4, struct gate_pkt *p)
{
	__u32 doff;

	if (l4 < sizeof(*tcp))
		return GATE_R_L4_LENGTH;
	doff = tcp->doff * 4u;
	if (doff < sizeof(*tcp) || doff > l4)
		return GATE_R_L4_HEADER;
	p->flags = ((const __u8 *)tcp)[13] & (GATE_FIN | GATE_SYN | GATE_RST | GATE_ACK);
	/* One of SYN, RST or ACK is on every segment; SYN excludes FIN and RST; FIN comes with ACK. */
	if (p->flags & GATE_SYN) {
		if (p->flags & (GATE_FIN | GATE_RST))
			return GATE_R_TCP_FLAGS;
	} else if (!(p->flags & (GATE_RST | GATE_ACK)) || (p->flags & (GATE_RST | GATE_FIN)) == (GATE_RST | GATE_FIN)) {
		return GATE_R_TCP_FLAGS;
	}
	p->sport = tcp->source;
	p->dport = tcp->dest;
	p->doff = (__u8)doff;
	p->payload = (__u16)(l4 - doff);
	p->seq = bpf_ntohl(tcp->seq);
	p->ack = bpf_ntohl(tcp->ack_seq);
	p->window = bpf_ntohs(tcp->window);
	return 0;
}

/** \return 0, or the reason; GATE_R_ARP for an ARP frame. mac: the six bytes of the receiving interface. */
static __always_inline int gate_parse(const __u8 *data, const __u8 *end, const __u8 *mac, struct gate_pkt *p)
{
	const struct ethhdr *eth = (const void *)data;
	const struct iphdr *ip = (const void *)(data + GATE_L3);
	const __u8 *l4 = data + GATE_L4;
	__u32 ip_len, l4_len;
	__u8 first;
	int i, r;

	if (data + GATE_L3 > end)
		return GATE_R_TRUNCATED;
	if (eth->h_proto == bpf_htons(ETH_P_ARP))
		return GATE_R_ARP;
	if (eth->h_proto == bpf_htons(ETH_P_8021Q) || eth->h_proto == bpf_htons(ETH_P_8021AD))
		return GATE_R_VLAN;
	if (eth->h_proto == bpf_htons(ETH_P_IPV6))
		return GATE_R_IPV6;
	if (eth->h_proto != bpf_htons(ETH_P_IP))
		return GATE_R_ETHERTYPE;
	for (i = 0; i < 6; i++)
		if (eth->h_dest[i] != mac[i])
			return GATE_R_OTHER_MAC;
	if (data + GATE_L4 > end)
		return GATE_R_TRUNCATED;
	if (ip->version != 4 || ip->ihl < 5)
		return GATE_R_IP_HEADER;
	if (ip->ihl > 5)
		return GATE_R_IP_OPTIONS;
	ip_len = bpf_ntohs(ip->tot_len);
	if (ip_len < sizeof(*ip))
		return GATE_R_IP_HEADER;
	if (ip_len > (__u32)(end - data) - GATE_L3)
		return GATE_R_TRUNCATED;
	if (ip->frag_off & bpf_htons(0x3fff))
		return GATE_R_FRAGMENT;
	first = (__u8)(bpf_ntohl(ip->saddr) >> 24);
	if (first == 0 || first == 127 || first >= 224)
		return GATE_R_IP_SOURCE;

	l4_len = ip_len - (__u32)sizeof(*ip);
	p->src = ip->saddr;
	p->dst = ip->daddr;
	p->len = (__u16)ip_len;
	p->proto = ip->protocol;
	p->ttl = ip->ttl;
	p->tos = ip->tos;
	p->flags = 0;
	switch (ip->protocol) {
	case IPPROTO_TCP: {
		const struct tcphdr *tcp = (const void *)l4;

		if (l4 + sizeof(*tcp) > end)
			return GATE_R_L4_LENGTH;
		r = gate_parse_tcp(tcp, l4_len, p);
		if (r)
			return r;
		break;
	}
	case IPPROTO_UDP: {
		const struct udphdr *udp = (const void *)l4;

		if (l4 + sizeof(*udp) > end || l4_len < sizeof(*udp) || bpf_ntohs(udp->len) != l4_len)
			return GATE_R_L4_LENGTH;
		p->sport = udp->source;
		p->dport = udp->dest;
		p->payload = (__u16)(l4_len - sizeof(*udp));
		break;
	}
	case IPPROTO_ICMP: {
		const struct gate_icmp *icmp = (const void *)l4;

		if (l4 + sizeof(*icmp) > end || l4_len < sizeof(*icmp))
			return GATE_R_L4_LENGTH;
		p->icmp_type = icmp->type;
		p->icmp_code = icmp->code;
		p->payload = (__u16)(l4_len - sizeof(*icmp));
		p->sport = p->dport = 0;
		if (icmp->type == GATE_ICMP_ECHO || icmp->type == GATE_ICMP_ECHO_REPLY)
			p->sport = p->dport = icmp->id;
		return 0;
	}
	default:
		return GATE_R_PROTOCOL;
	}
	if (p->sport == 0 || p->dport == 0)
		return GATE_R_L4_HEADER;
	return 0;
}
