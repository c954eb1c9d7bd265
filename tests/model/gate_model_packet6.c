/* SPDX-License-Identifier: Apache-2.0 */
/* IPv6 (RFC 8200, 4443, 4861): read into the same terms, ICMPv6 with the numbers of ICMP. Nothing of it is ever translated. */
#include <stdlib.h>
#include <string.h>

#include "gate_model_int.h"

enum { TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58, L3 = 14, L4 = 54, QUOTE = 62, QUOTE_L4 = 102 };

static uint32_t get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static uint32_t get32(const uint8_t *p)
{
	return get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static const uint8_t documentation[12] = {0x20, 0x01, 0x0d, 0xb8}, group[12] = {0xff, 0x02}, nothing[12];

/* The reference has 32 bits for an address: those of 2001:db8::/96 are called by their last ones, ff02:: by those that were multicast in
 * IPv4, and :: by those that were nobody's. Any other address gets a name that no walk draws, and that says whether it is a host's. */
#define NO_HOST 0xfff00000u
#define HOST    0x09f00000u
#define MET     65536u

static uint8_t met[MET][16];
static uint32_t nmet;

static const uint8_t *prefix_of(uint32_t name)
{
	return name >> 24 >= 224 ? group : name >> 24 == 0 || name >> 24 == 127 ? nothing : documentation;
}

void gm_address6(uint32_t name, uint8_t ip[16])
{
	if ((name & 0xfff00000u) == NO_HOST || (name & 0xfff00000u) == HOST) {
		memcpy(ip, met[(name & 0xfffff) % MET], 16);
		return;
	}
	memcpy(ip, prefix_of(name), 12);
	put16(ip + 12, name >> 16);
	put16(ip + 14, name);
}

/* RFC 4291 2.4, 2.5.2, 2.5.3, 2.5.5, 2.5.6: not one host's that is beyond the link. */
static bool no_host(const uint8_t *ip)
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

	return memcmp(ip, nothing, 12) == 0 || memcmp(ip, mapped, 12) == 0 || ip[0] == 0xff || (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80);
}

static uint32_t name_of(const uint8_t *ip)
{
	const uint32_t name = get32(ip + 12);
	uint32_t at;

	if (memcmp(ip, prefix_of(name), 12) == 0 && (name & 0xfff00000u) != NO_HOST && (name & 0xfff00000u) != HOST)
		return name;
	for (at = 0; at < nmet && memcmp(met[at], ip, 16) != 0; at++)
		;
	if (at == MET)
		abort();
	if (at == nmet)
		memcpy(met[nmet++], ip, 16);
	return (no_host(ip) ? NO_HOST : HOST) + at;
}

static uint8_t type_of(uint8_t type)
{
	static const uint8_t of[] = {[1] = 3, [2] = 3, [3] = 11, [4] = 12};

	return type == 128 ? 8 : type == 129 ? 0 : type < sizeof(of) && of[type] != 0 ? of[type] : 255;
}

/* \return NULL: it is not one of these. */
static const char *read_neighbour(const uint8_t *ip, uint32_t rest)
{
	const uint8_t *icmp = ip + 40;

	if ((icmp[0] >= 130 && icmp[0] <= 134) || icmp[0] == 137 || icmp[0] == 143)
		return "malformed"; /* multicast listeners, routers, redirects: nobody's here */
	if (icmp[0] != 135 && icmp[0] != 136)
		return NULL;
	return ip[7] == 255 && icmp[1] == 0 && rest >= 24 && ip[24] != 0xff ? "nd" : "malformed";
}

const char *gm_read6(const struct gm_net *net, enum gm_side side, const uint8_t *frame, size_t n, struct gm_packet *p)
{
	const uint8_t *ip = frame + L3, *l4 = frame + L4;
	const char *why;
	uint32_t rest;

	memset(p, 0, sizeof(*p));
	p->six = p->df = true;
	if (n < L4 || memcmp(frame, net->mac[side], 6) != 0 || ip[0] >> 4 != 6)
		return "malformed";
	rest = get16(ip + 4);
	if (rest > n - L4)
		return "malformed";
	if (ip[6] == ICMPV6 && rest >= 8) {
		why = read_neighbour(ip, rest);
		if (why != NULL)
			return why;
	}
	if (no_host(ip + 8))
		return "malformed";
	p->len = rest + 40;
	p->proto = ip[6] == ICMPV6 ? ICMP : ip[6];
	p->ttl = ip[7];
	p->src = name_of(ip + 8);
	p->dst = name_of(ip + 24);
	switch (ip[6]) {
	case TCP:
		why = gm_read_tcp(l4, rest, L4, p);
		if (why != NULL)
			return why;
		break;
	case UDP:
		if (rest < 8 || get16(l4 + 4) != rest || get16(l4 + 6) == 0) /* RFC 8200 8.1 */
			return "malformed";
		p->sport = (uint16_t)get16(l4);
		p->dport = (uint16_t)get16(l4 + 2);
		p->payload = L4 + 8;
		p->npayload = rest - 8;
		break;
	case ICMPV6:
		if (rest < 8)
			return "malformed";
		p->icmp_type = type_of(l4[0]);
		if (l4[0] == 128 || l4[0] == 129)
			p->sport = p->dport = (uint16_t)get16(l4 + 4);
		p->payload = L4 + 8;
		p->npayload = rest - 8;
		return NULL;
	default: /* extension headers, fragments, and what is no protocol here */
		return "malformed";
	}
	return p->sport == 0 || p->dport == 0 ? "malformed" : NULL;
}

bool gm_read_quote6(const uint8_t *frame, const struct gm_packet *p, struct gm_quote *q)
{
	const uint8_t *ip = frame + QUOTE, *l4 = frame + QUOTE_L4;

	memset(q, 0, sizeof(*q));
	if (p->npayload < 48 || ip[0] >> 4 != 6)
		return false;
	q->src = name_of(ip + 8);
	q->dst = name_of(ip + 24);
	if (ip[6] == ICMPV6) {
		q->proto = ICMP;
		q->sport = q->dport = (uint16_t)get16(l4 + 4);
		return l4[0] == 128 || l4[0] == 129;
	}
	q->proto = ip[6];
	q->sport = (uint16_t)get16(l4);
	q->dport = (uint16_t)get16(l4 + 2);
	q->seq = get32(l4 + 4);
	return q->proto == TCP || q->proto == UDP;
}

/* Ones' complement sum modulo 65535, of the pseudo-header too. */
static uint32_t covered(const uint8_t *ip, uint32_t n)
{
	uint64_t s = n + ip[6];

	for (uint32_t i = 8; i < 40 + n; i++)
		s += i % 2 == 0 ? (uint32_t)ip[i] << 8 : ip[i];
	return (uint32_t)(s % 65535);
}

void gm_forward6(const struct gm_packet *p, const uint8_t *frame, size_t n, bool strip, uint32_t keep, struct gm_answer *a)
{
	uint8_t *ip = a->out + L3, *l4 = a->out + L4;
	uint32_t was, is;

	memcpy(a->out, frame, n);
	a->n = n;
	ip[7] = (uint8_t)(p->ttl - 1);
	if (!strip)
		return;
	a->n = L4 + 8 + keep;
	put16(ip + 4, 8 + keep);
	put16(l4 + 4, 8 + keep);
	/* As right or as wrong as it came: by what it was off, it stays off. The first sum holds the checksum itself. */
	was = covered(frame + L3, p->len - 40);
	put16(l4 + 6, 0);
	is = (was + 65535 - covered(ip, 8 + keep)) % 65535;
	put16(l4 + 6, is == 0 ? 65535 : is);
}

void gm_tell6(const struct gm_packet *p, const uint8_t *frame, uint32_t from, uint8_t type, uint32_t word, struct gm_answer *a)
{
	uint8_t *ip = a->out + L3, *icmp = a->out + L4;
	uint32_t s;

	memset(a->out, 0, QUOTE);
	memcpy(a->out, frame + 6, 6);
	memcpy(a->out + 6, frame, 6);
	put16(a->out + 12, 0x86dd);
	put16(ip, 0x6c00); /* RFC 4443 says nothing of it: internetwork control, as in IPv4 */
	put16(ip + 4, 8 + 48);
	ip[6] = ICMPV6;
	ip[7] = 64;
	gm_address6(from, ip + 8);
	memcpy(ip + 24, frame + L3 + 8, 16);
	icmp[0] = type;
	put16(icmp + 4, word >> 16);
	put16(icmp + 6, word);
	memcpy(a->out + QUOTE, frame + L3, 48);
	(void)p;
	s = 65535 - covered(ip, 8 + 48);
	put16(icmp + 2, s % 65535); /* only UDP writes a computed zero as ones */
	a->n = QUOTE + 48;
}
