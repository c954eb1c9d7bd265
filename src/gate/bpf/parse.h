/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Frame -> struct gate_pkt, or the reason why not. Pure. Only Ethernet + IPv4 without options comes through, so that every header
 * after it stands at a fixed offset. */
#pragma once

#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>

#include "gate/bpf/family.h"

/* <linux/icmp.h> wants the C library's socket headers. */
struct gate_icmp {
	__u8 type, code;
	__u16 check;
	__u16 id, seq; /* echo; in a type 3 code 4 error `seq` is the MTU */
};
#if GATE_FAMILY == 4
#define GATE_ICMP_ECHO_REPLY    0
#define GATE_ICMP_UNREACHABLE   3
#define GATE_ICMP_ECHO          8
#define GATE_ICMP_TIME_EXCEEDED 11
#define GATE_ICMP_PARAMETER     12
#define GATE_IP_BYTES           ((int)sizeof(struct iphdr))
#else
#define GATE_ICMP_UNREACHABLE   1
#define GATE_ICMP_TOO_BIG       2
#define GATE_ICMP_TIME_EXCEEDED 3
#define GATE_ICMP_PARAMETER     4
#define GATE_ICMP_ECHO          128
#define GATE_ICMP_ECHO_REPLY    129
#define GATE_MLD_FIRST          130 /* query, report, done */
#define GATE_MLD_LAST           132
#define GATE_MLD_REPORT2        143
#define GATE_ND_FIRST           133 /* router solicitation, router advertisement, */
#define GATE_ND_SOLICITATION    135
#define GATE_ND_ADVERTISEMENT   136
#define GATE_ND_LAST            137 /* redirect */
#define GATE_ND_HOPS            255 /* it has crossed no router */
#define GATE_ND_BYTES           24
#define GATE_IP_BYTES           ((int)sizeof(struct ipv6hdr))
#endif

#define GATE_L3 ETH_HLEN
#define GATE_L4 (GATE_L3 + GATE_IP_BYTES)

#define GATE_FIN 0x01
#define GATE_SYN 0x02
#define GATE_RST 0x04
#define GATE_ACK 0x10

struct gate_pkt {
	gate_ip src, dst;
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

/** What follows the IP header. p: proto is set. l4_len: its length as the IP header says, within the frame. */
static __always_inline int gate_parse_l4(const __u8 *l4, const __u8 *end, __u32 l4_len, struct gate_pkt *p)
{
	int r;

	p->flags = 0;
	switch (p->proto) {
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
#if GATE_FAMILY == 6
		if (udp->check == 0) /* RFC 8200, section 8.1 */
			return GATE_R_UDP_CHECKSUM;
#endif
		p->sport = udp->source;
		p->dport = udp->dest;
		p->payload = (__u16)(l4_len - sizeof(*udp));
		break;
	}
	case GATE_IPPROTO_ICMP: {
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

#if GATE_FAMILY == 4
/** \return 0, or the reason; GATE_R_ARP for an ARP frame. mac: the six bytes of the receiving interface. */
static __always_inline int gate_parse(const __u8 *data, const __u8 *end, const __u8 *mac, struct gate_pkt *p)
{
	const struct ethhdr *eth = (const void *)data;
	const struct iphdr *ip = (const void *)(data + GATE_L3);
	__u32 ip_len, l4_len;
	int i;

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
	if (gate_ip_bad(ip->saddr))
		return GATE_R_IP_SOURCE;

	l4_len = ip_len - (__u32)sizeof(*ip);
	p->src = ip->saddr;
	p->dst = ip->daddr;
	p->len = (__u16)ip_len;
	p->proto = ip->protocol;
	p->ttl = ip->ttl;
	p->tos = ip->tos;
	return gate_parse_l4(data + GATE_L4, end, l4_len, p);
}
#else
/** Neighbour discovery, which is the host's; everything else of its kind is nobody's here. group: the frame is for a multicast group. */
static __always_inline int gate_parse_nd(const struct ipv6hdr *ip, const struct gate_icmp *icmp, __u32 len, int group)
{
	const __u32 *dst = ip->daddr.s6_addr32;

	if ((icmp->type >= GATE_MLD_FIRST && icmp->type <= GATE_MLD_LAST) || icmp->type == GATE_MLD_REPORT2)
		return GATE_R_MLD;
	if (icmp->type < GATE_ND_FIRST || icmp->type > GATE_ND_LAST)
		return group ? GATE_R_OTHER_MAC : 0;
	if (icmp->type != GATE_ND_SOLICITATION && icmp->type != GATE_ND_ADVERTISEMENT)
		return GATE_R_ND_ROUTER;
	if (ip->hop_limit != GATE_ND_HOPS || icmp->code != 0 || len < GATE_ND_BYTES)
		return GATE_R_ND_INVALID;
	if (!group)
		return ip->daddr.s6_addr[0] == 0xff ? GATE_R_ND_INVALID : GATE_R_ND;
	/* ff02::1:ff00:0/104, the solicited-node groups; ff02::1 for what a neighbour tells everybody about itself. */
	if (dst[0] != bpf_htonl(0xff020000) || dst[1] != 0)
		return GATE_R_ND_INVALID;
	if (dst[2] == bpf_htonl(1) && (dst[3] & bpf_htonl(0xff000000)) == bpf_htonl(0xff000000))
		return GATE_R_ND;
	return dst[2] == 0 && dst[3] == bpf_htonl(1) && icmp->type == GATE_ND_ADVERTISEMENT ? GATE_R_ND : GATE_R_ND_INVALID;
}

/** \return 0, or the reason; GATE_R_ND for what is the host's. mac: the six bytes of the receiving interface. */
static __always_inline int gate_parse(const __u8 *data, const __u8 *end, const __u8 *mac, struct gate_pkt *p)
{
	const struct ethhdr *eth = (const void *)data;
	const struct ipv6hdr *ip = (const void *)(data + GATE_L3);
	const struct gate_icmp *icmp = (const void *)(data + GATE_L4);
	__u32 len;
	int i, group, why;

	if (data + GATE_L4 > end)
		return GATE_R_TRUNCATED;
	if (eth->h_proto != bpf_htons(ETH_P_IPV6))
		return GATE_R_ETHERTYPE;
	group = eth->h_dest[0] == 0x33 && eth->h_dest[1] == 0x33;
	for (i = 0; i < 6 && !group; i++)
		if (eth->h_dest[i] != mac[i])
			return GATE_R_OTHER_MAC;
	if (ip->version != 6)
		return GATE_R_IP_HEADER;
	len = bpf_ntohs(ip->payload_len);
	if (len > (__u32)(end - data) - GATE_L4)
		return GATE_R_TRUNCATED;
	switch (ip->nexthdr) {
	case IPPROTO_FRAGMENT:
		return GATE_R_FRAGMENT;
	case IPPROTO_HOPOPTS:
		/* Every MLD message has one. */
		if (group && data + GATE_L4 + 9 <= end && data[GATE_L4] == IPPROTO_ICMPV6 && data[GATE_L4 + 1] == 0 &&
		    ((data[GATE_L4 + 8] >= GATE_MLD_FIRST && data[GATE_L4 + 8] <= GATE_MLD_LAST) || data[GATE_L4 + 8] == GATE_MLD_REPORT2))
			return GATE_R_MLD;
		return GATE_R_IPV6_EXTENSION;
	case IPPROTO_ROUTING:
	case IPPROTO_DSTOPTS:
	case IPPROTO_AH:
	case 135: /* mobility */
	case 139: /* HIP */
	case 140: /* shim6 */
	case 253: /* for experiments */
	case 254:
		return GATE_R_IPV6_EXTENSION;
	}
	if (ip->nexthdr == IPPROTO_ICMPV6 && data + GATE_L4 + sizeof(*icmp) <= end && len >= sizeof(*icmp)) {
		why = gate_parse_nd(ip, icmp, len, group);
		if (why)
			return why;
	}
	if (group)
		return GATE_R_OTHER_MAC;
	__builtin_memcpy(&p->src, &ip->saddr, sizeof(p->src));
	if (gate_ip_bad(p->src))
		return GATE_R_IP_SOURCE;
	__builtin_memcpy(&p->dst, &ip->daddr, sizeof(p->dst));
	p->len = (__u16)(len + GATE_IP_BYTES);
	p->proto = ip->nexthdr;
	p->ttl = ip->hop_limit;
	p->tos = 0;
	return gate_parse_l4(data + GATE_L4, end, len, p);
}
#endif
