/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_shape.h"

#include <string.h>

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t checksum(const uint8_t *p, size_t n, uint32_t s)
{
	for (size_t i = 0; i < n; i++)
		s += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return 0xffff - s;
}

static bool rarely(struct draw *d, uint32_t n)
{
	return d != NULL && draw_one_in(d, n);
}

const uint8_t shape_peer_mac[2][6] = {{2, 0, 0, 0, 3, 1}, {2, 0, 0, 0, 0x64, 2}};

/* \return the sum of what the layer-4 checksum covers besides. */
static uint32_t header4(struct draw *d, const struct shape *s, size_t rest, uint8_t *ip)
{
	static const uint16_t fragment[] = {0x4000, 0x4000, 0x4000, 0, 0, 0x8000};
	uint32_t pseudo = 0;

	memset(ip, 0, 20);
	ip[0] = 0x45;
	ip[1] = (uint8_t)(rarely(d, 8) ? draw_below(d, 256) : 0);
	put16(ip + 2, (uint32_t)(20 + rest));
	put16(ip + 4, d != NULL ? draw_below(d, 65536) : 0);
	put16(ip + 6, d != NULL ? DRAW_OF(d, fragment) : 0x4000);
	ip[8] = s->ttl;
	ip[9] = s->proto;
	put32(ip + 12, s->src);
	put32(ip + 16, s->dst);
	put16(ip + 10, checksum(ip, 20, 0));
	for (int i = 12; i < 20; i += 2)
		pseudo += (uint32_t)ip[i] << 8 | ip[i + 1];
	return s->proto == ICMP ? 0 : pseudo + s->proto + (uint32_t)rest;
}

static uint32_t header6(struct draw *d, const struct shape *s, size_t rest, uint8_t *ip)
{
	uint32_t pseudo = 0;

	memset(ip, 0, 40);
	ip[0] = 0x60;
	put16(ip + 2, d != NULL ? draw_below(d, 65536) : 0); /* flow label */
	put16(ip + 4, (uint32_t)rest);
	ip[6] = s->proto == ICMP ? 58 : s->proto;
	ip[7] = s->ttl;
	gm_address6(s->src, ip + 8);
	gm_address6(s->dst, ip + 24);
	for (int i = 8; i < 40; i += 2)
		pseudo += (uint32_t)ip[i] << 8 | ip[i + 1];
	return pseudo + ip[6] + (uint32_t)rest;
}

/* ICMP's types in ICMPv6's numbers; the rest becomes neighbour discovery and its like. */
static uint8_t type6(uint8_t type, uint8_t code)
{
	return type == 8    ? 128
	       : type == 0  ? 129
	       : type == 3  ? (code == 4 ? 2 : 1)
	       : type == 11 ? 3
	       : type == 12 ? 4
			    : (uint8_t)(130 + type % 15);
}

void shape_build(struct draw *d, const struct gm_net *net, enum gm_side side, const struct shape *s, struct frame *f)
{
	uint8_t *l4 = f->p + (net->six ? 54 : 34);
	const size_t header = s->proto == TCP ? 20 + s->noption : 8, rest = header + s->n;
	uint32_t check, at, pseudo;

	memset(l4, 0, header);
	memcpy(f->p, net->mac[side], 6);
	memcpy(f->p + 6, shape_peer_mac[side], 6);
	put16(f->p + 12, net->six ? 0x86dd : 0x0800);
	pseudo = net->six ? header6(d, s, rest, f->p + 14) : header4(d, s, rest, f->p + 14);
	memcpy(l4 + header, s->data, s->n);
	put16(l4, s->sport);
	put16(l4 + 2, s->dport);
	switch (s->proto) {
	case TCP:
		put32(l4 + 4, s->seq);
		put32(l4 + 8, s->ack);
		l4[12] = (uint8_t)(header / 4 << 4);
		l4[13] = s->flags;
		put16(l4 + 14, s->window);
		memcpy(l4 + 20, s->option, s->noption);
		at = 16;
		break;
	case UDP:
		put16(l4 + 4, (uint32_t)rest);
		at = 6;
		break;
	default:
		l4[0] = net->six ? type6(s->icmp_type, s->icmp_code) : s->icmp_type;
		l4[1] = s->icmp_code;
		put16(l4 + 2, 0);
		put16(l4 + 4, s->sport);
		put16(l4 + 6, d != NULL ? draw_below(d, 256) : 1);
		at = 2;
		break;
	}
	check = checksum(l4, rest, pseudo);
	if (s->proto == UDP)
		check = rarely(d, 6) ? 0 : check == 0 ? 0xffff : check;
	if (rarely(d, 40))
		check = draw_below(d, 65536); /* what arrives broken leaves as broken */
	put16(l4 + at, check);
	f->n = (size_t)(l4 - f->p) + rest;
	if (rarely(d, 10)) { /* Ethernet's padding, or more */
		const size_t pad = f->n < 60 ? 60 - f->n : draw_below(d, 20);

		memset(f->p + f->n, 0xaa, pad);
		f->n += pad;
	}
}
