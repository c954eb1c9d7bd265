/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_frame.h"

#include <sodium.h>
#include <string.h>

#include "gate_shape.h"

#define IP(a, b, c, d) ((uint32_t)(a) << 24 | (uint32_t)(b) << 16 | (uint32_t)(c) << 8 | (uint32_t)(d))

/* Two hosts of each tenant, one that no neighbour entry knows, one of no tenant, and a spoofer. */
const uint32_t frame_inside_ip[7] = {IP(198, 18, 100, 2), IP(198, 18, 100, 3),   IP(198, 18, 100, 130), IP(198, 18, 100, 131),
				     IP(198, 18, 100, 4), IP(198, 18, 100, 200), IP(10, 0, 0, 9)};
const uint32_t frame_outside_ip[4] = {IP(198, 18, 4, 2), IP(198, 18, 5, 2), IP(8, 8, 8, 8), IP(198, 18, 3, 77)};
const uint16_t frame_inside_port[4] = {22, 53, 5000, 6000};
const uint16_t frame_outside_port[6] = {40000, 40001, 40002, 40003, 53, 443};

uint32_t draw32(struct draw *d)
{
	uint32_t v = 0;

	if (d->bytes != NULL)
		return draw_below(d, 65536) << 16 | draw_below(d, 65536);
	/* splitmix64 */
	d->state += 0x9e3779b97f4a7c15ull;
	uint64_t z = d->state;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	v = (uint32_t)((z ^ (z >> 31)) >> 16);
	return v;
}

uint32_t draw_below(struct draw *d, uint32_t n)
{
	uint32_t v = 0;

	if (d->bytes == NULL)
		return (uint32_t)(((uint64_t)draw32(d) * n) >> 32);
	for (uint32_t left = n - 1; left != 0; left >>= 8) {
		if (d->n == 0) {
			d->dry = true;
			return 0;
		}
		v = v << 8 | *d->bytes++;
		d->n--;
	}
	return v % n;
}

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

static void fill(struct draw *d, uint8_t *p, size_t n)
{
	uint32_t v = draw32(d);

	for (size_t i = 0; i < n; i++) {
		v = v * 1664525 + 1013904223;
		/* Runs of ones and zeroes are where carries go wrong. */
		p[i] = (v >> 28) == 0 ? 0xff : (v >> 28) == 1 ? 0 : (uint8_t)(v >> 16);
	}
}

static size_t draw_length(struct draw *d)
{
	switch (draw_below(d, 8)) {
	case 0:
		return 0;
	case 1:
	case 2:
		return draw_below(d, 20);
	case 3:
		return 1440 + draw_below(d, 120); /* up to more than a link carries */
	default:
		return draw_below(d, 1473);
	}
}

static uint32_t around(struct draw *d, uint32_t v)
{
	return v + draw_below(d, 4) - 1;
}

static void timestamp(struct draw *d, struct shape *s)
{
	static const uint8_t start[4] = {1, 1, 8, 10};

	memcpy(s->option, start, 4);
	fill(d, s->option + 4, 8);
	s->noption = 12;
}

static void syn_options(struct draw *d, struct shape *s)
{
	static const uint8_t usual[20] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};

	s->noption = 20;
	memcpy(s->option, usual, 20);
	if (draw_one_in(d, 2))
		s->option[19] = (uint8_t)draw_below(d, 18);
	if (draw_one_in(d, 5))
		s->option[4] = s->option[5] = 1; /* no SACK */
	if (draw_one_in(d, 5))
		memset(s->option + 17, 1, 3); /* no scaling */
	if (draw_one_in(d, 5))
		s->noption = 0;
}

static void sack_option(struct draw *d, struct shape *s, uint32_t near_edge)
{
	const uint32_t blocks = 1 + draw_below(d, 4);

	s->option[0] = s->option[1] = 1;
	s->option[2] = 5;
	s->option[3] = (uint8_t)(2 + 8 * blocks);
	for (uint32_t i = 0; i < blocks; i++) {
		const uint32_t edge = draw_one_in(d, 2) ? around(d, near_edge) : near_edge - draw_below(d, 3000);

		put32(s->option + 4 + 8 * i, edge - draw_below(d, 1000));
		put32(s->option + 8 + 8 * i, edge);
	}
	s->noption = 4 + 8 * blocks;
}

static void draw_options(struct draw *d, struct shape *s, uint32_t near_edge)
{
	s->noption = 0;
	if (s->flags & SYN) {
		syn_options(d, s);
		return;
	}
	switch (draw_below(d, 8)) {
	case 0:
	case 1:
	case 2:
		timestamp(d, s);
		break;
	case 3:
	case 4:
		sack_option(d, s, near_edge);
		break;
	case 5:
		if (draw_one_in(d, 4)) {
			s->noption = 4 * draw_below(d, 11);
			for (size_t i = 0; i < s->noption; i++)
				s->option[i] = (uint8_t)(draw_one_in(d, 3) ? draw_below(d, 256) : draw_below(d, 11));
		}
		break;
	default:
		break;
	}
}

/* A segment that one end of a connection might send, at an edge of what it may, or beside it. */
static void draw_segment(struct draw *d, const struct gm_tcp *t, enum gm_side from, struct shape *s)
{
	static const uint8_t kinds[] = {ACK, ACK,       ACK, ACK,      ACK, ACK, ACK, ACK, PSH | ACK, PSH | ACK, FIN | ACK, FIN | ACK | PSH,
					RST, RST | ACK, SYN, SYN | ACK};
	static const uint16_t windows[] = {65535, 65535, 64240, 501, 1000, 1, 0};
	const struct gm_end *a = &t->end[from], *b = &t->end[1 - from];
	const uint32_t lag = a->window > 66000 ? a->window : 66000;

	s->flags = draw_one_in(d, 3) ? DRAW_OF(d, kinds) : ACK;
	if (t->state == GM_T_CLOSING && !a->fin && draw_one_in(d, 3)) /* or few would ever end */
		s->flags = FIN | ACK;
	s->n = draw_one_in(d, 2) ? 0 : draw_length(d) % 1461;
	s->window = DRAW_OF(d, windows);
	s->seq = a->end;
	s->ack = b->end;
	switch (draw_below(d, 12)) {
	case 0:
		s->seq = around(d, a->limit);
		break;
	case 1:
		s->seq = around(d, a->end - b->window - (uint32_t)s->n);
		break;
	case 2:
		s->seq = around(d, b->ack);
		break;
	case 3:
		s->seq = (draw_one_in(d, 2) ? a->end : a->limit) - (uint32_t)s->n; /* once more, or all that is allowed */
		break;
	case 4:
		s->seq = draw_one_in(d, 2) ? draw32(d) : a->end + draw_below(d, 70000);
		break;
	default:
		break;
	}
	switch (draw_below(d, 12)) {
	case 0:
		s->ack = around(d, b->end);
		break;
	case 1:
		s->ack = around(d, b->end - lag);
		break;
	case 2:
		s->ack = a->ack;
		break;
	case 3:
		s->ack = draw_one_in(d, 2) ? draw32(d) : b->end - draw_below(d, 70000);
		break;
	default:
		break;
	}
	if ((s->flags & RST) && draw_one_in(d, 2))
		s->seq = draw_one_in(d, 2) ? around(d, b->ack) : around(d, a->end);
	draw_options(d, s, b->end);
}

static const struct gm_handshake *draw_handshake(struct draw *d, const struct gm_hole *h)
{
	const struct gm_handshake *s = &h->handshake[draw_below(d, GM_HANDSHAKES)];

	for (unsigned i = 0; i < GM_HANDSHAKES && !s->used; i++)
		s = &h->handshake[i];
	return s->used ? s : NULL;
}

static void tcp_to_hole(struct draw *d, const struct gm_hole *h, struct shape *s)
{
	const struct gm_handshake *k = draw_handshake(d, h);

	s->src = h->remote_ip;
	s->sport = h->remote_port != 0 ? h->remote_port : (uint16_t)(40000 + draw_below(d, 12));
	if (h->bound) {
		s->src = h->bound_ip;
		s->sport = h->bound_port;
		draw_segment(d, &h->tcp, GM_OUTSIDE, s);
		return;
	}
	/* Some holes see more beginnings than they can follow. */
	if (k == NULL || (h->public_port % 8 == 0 ? !draw_one_in(d, 12) : draw_one_in(d, 6))) {
		s->flags = SYN;
		s->seq = draw_one_in(d, 4) ? 0u - draw_below(d, 3) : draw32(d);
		s->window = (uint16_t)draw_below(d, 65536);
		s->n = draw_one_in(d, 20) ? 5 : 0;
		syn_options(d, s);
		return;
	}
	s->sport = k->port;
	s->flags = draw_one_in(d, 8) ? (uint8_t)draw_below(d, 32) : ACK;
	s->seq = k->client_isn + ((s->flags & SYN) ? 0 : 1);
	s->ack = k->service_isn + 1;
	s->window = (uint16_t)draw_below(d, 65536);
	s->n = draw_one_in(d, 3) ? draw_length(d) % 1461 : 0;
	if (draw_one_in(d, 6))
		s->seq = around(d, s->seq);
	if (draw_one_in(d, 6))
		s->ack = around(d, s->ack);
	draw_options(d, s, draw_one_in(d, 8) ? s->ack : s->ack - 1);
}

static void tcp_from_hole(struct draw *d, const struct gm_hole *h, struct shape *s)
{
	const struct gm_handshake *k = draw_handshake(d, h);

	s->dst = h->remote_ip;
	s->dport = (uint16_t)(40000 + draw_below(d, 12));
	if (h->bound) {
		s->dst = h->bound_ip;
		s->dport = draw_one_in(d, 20) ? s->dport : h->bound_port;
		draw_segment(d, &h->tcp, GM_INSIDE, s);
		return;
	}
	s->flags = SYN | ACK;
	s->seq = draw32(d);
	s->window = (uint16_t)draw_below(d, 65536);
	if (k != NULL && !draw_one_in(d, 6)) {
		s->dport = k->port;
		s->ack = k->client_isn + 1;
		if (k->answered && !draw_one_in(d, 4))
			s->seq = k->service_isn;
		if (draw_one_in(d, 8))
			s->flags = DRAW_OF(d, ((const uint8_t[]){RST | ACK, ACK, SYN, RST, FIN | ACK}));
		if (draw_one_in(d, 8))
			s->ack = around(d, s->ack);
	}
	syn_options(d, s);
}

static void tag_it(struct draw *d, const struct gm_hole *h, struct shape *s)
{
	uint64_t counter = h->top + 1;
	uint8_t key[16];

	switch (draw_below(d, 12)) {
	case 0:
		counter = h->top + draw_below(d, 200);
		break;
	case 1:
		counter = h->top - 960 + draw_below(d, 4) - 1;
		break;
	case 2:
	case 3:
		counter = h->nseen > 0 ? h->seen[draw_below(d, (uint32_t)h->nseen)] : 0;
		break;
	case 4:
		counter = h->top - draw_below(d, 1000);
		break;
	case 5:
		counter = draw_one_in(d, 60) ? (uint64_t)draw32(d) << draw_below(d, 32) : h->top + 64 * draw_below(d, 20);
		break;
	default:
		break;
	}
	memcpy(key, h->key, 16);
	if (draw_one_in(d, 12))
		key[draw_below(d, 16)] ^= 1;
	put32(s->data + s->n, (uint32_t)(counter >> 32));
	put32(s->data + s->n + 4, (uint32_t)counter);
	crypto_shorthash(s->data + s->n + 8, s->data, s->n + 8, key);
	s->n += 16;
	if (draw_one_in(d, 12))
		s->data[draw_below(d, (uint32_t)s->n)] ^= (uint8_t)(1u << draw_below(d, 8));
	if (draw_one_in(d, 24))
		s->n = draw_below(d, (uint32_t)s->n);
}

static void udp_to_hole(struct draw *d, const struct gm_hole *h, struct shape *s)
{
	s->src = h->bound ? h->bound_ip : h->remote_ip == 0 ? DRAW_OF(d, frame_outside_ip) : h->remote_ip;
	s->sport = h->bound ? h->bound_port : h->tag ? DRAW_OF(d, frame_outside_port) : h->remote_port;
	s->n = draw_one_in(d, 40) ? 1473 + draw_below(d, 40) : draw_length(d);
	fill(d, s->data, s->n);
	if (h->tag)
		tag_it(d, h, s);
}

static enum gm_side at_hole(struct draw *d, const struct gm_model *m, struct shape *s)
{
	const struct gm_hole *h = m->holes;
	uint32_t n = 0;

	for (; h != NULL; h = h->next)
		n++;
	n = draw_below(d, n);
	for (h = m->holes; n > 0; n--)
		h = h->next;
	s->proto = h->proto;
	if (draw_below(d, 3) != 0) {
		s->dst = h->public_ip;
		s->dport = h->public_port;
		if (h->proto == TCP)
			tcp_to_hole(d, h, s);
		else
			udp_to_hole(d, h, s);
		if (draw_one_in(d, 16))
			s->src = DRAW_OF(d, frame_outside_ip);
		if (draw_one_in(d, 16))
			s->sport = DRAW_OF(d, frame_outside_port);
		if (draw_one_in(d, 16)) /* to the end that the service had when it was a client itself */
			gm_mapped(m, h->proto, h->inside_ip, h->inside_port, &s->dst, &s->dport);
		return GM_OUTSIDE;
	}
	s->src = h->inside_ip;
	s->sport = h->inside_port;
	if (h->proto == TCP) {
		tcp_from_hole(d, h, s);
	} else {
		s->dst = h->bound ? h->bound_ip : DRAW_OF(d, frame_outside_ip);
		s->dport = h->bound ? h->bound_port : DRAW_OF(d, frame_outside_port);
		s->n = draw_length(d);
	}
	return GM_INSIDE;
}

static enum gm_side at_session(struct draw *d, const struct gm_model *m, struct shape *s)
{
	const struct gm_session *e = m->sessions;
	const enum gm_side side = draw_one_in(d, 2) ? GM_INSIDE : GM_OUTSIDE;
	uint32_t n = 0;

	for (; e != NULL; e = e->next)
		n++;
	n = draw_below(d, n);
	for (e = m->sessions; n > 0; n--)
		e = e->next;
	s->proto = e->proto;
	s->src = side == GM_INSIDE ? e->inside_ip : e->remote_ip;
	s->sport = side == GM_INSIDE ? e->inside_port : e->remote_port;
	s->dst = side == GM_INSIDE ? e->remote_ip : e->public_ip;
	s->dport = side == GM_INSIDE ? e->remote_port : e->public_port;
	s->n = draw_length(d);
	if (e->proto == ICMP) {
		s->sport = side == GM_INSIDE ? e->inside_port : e->public_port;
		s->icmp_type = side == GM_INSIDE ? 8 : 0;
	} else if (e->proto == TCP) {
		draw_segment(d, &e->tcp, side, s);
		/* The handshake's own steps, which chance alone would not find. */
		if (e->tcp.state == GM_T_SYN && side == GM_OUTSIDE) {
			s->flags = draw_one_in(d, 4) ? SYN : SYN | ACK;
			s->ack = draw_one_in(d, 6) ? around(d, s->ack) : s->ack;
			s->seq = draw32(d);
			syn_options(d, s);
		} else if (e->tcp.state == GM_T_SYN_BOTH && draw_one_in(d, 2)) {
			s->flags = SYN | ACK;
			s->n = 0;
			s->seq = e->tcp.end[side].end - 1;
		} else if (e->tcp.state >= GM_T_CLOSED && side == GM_INSIDE && draw_one_in(d, 4)) {
			s->flags = SYN;
			s->seq += draw_one_in(d, 2) ? 1000 : draw32(d);
		}
	}
	if (draw_one_in(d, 16))
		*(side == GM_INSIDE ? &s->dst : &s->src) = DRAW_OF(d, frame_outside_ip);
	if (draw_one_in(d, 16))
		*(side == GM_INSIDE ? &s->dport : &s->sport) = DRAW_OF(d, frame_outside_port);
	return side;
}

static void from_anybody_inside(struct draw *d, const struct gm_net *net, struct shape *s)
{
	static const uint8_t protos[] = {TCP, TCP, UDP, UDP, ICMP};

	s->proto = DRAW_OF(d, protos);
	s->src = frame_inside_ip[draw_one_in(d, 4) ? draw_below(d, 7) : draw_below(d, 4)];
	s->sport = DRAW_OF(d, frame_inside_port);
	s->dst = DRAW_OF(d, frame_outside_ip);
	s->dport = DRAW_OF(d, frame_outside_port);
	s->n = draw_length(d);
	s->icmp_type = draw_one_in(d, 8) ? (uint8_t)draw_below(d, 20) : 8;
	s->flags = draw_one_in(d, 6) ? (uint8_t)draw_below(d, 32) : SYN;
	s->seq = draw32(d);
	s->ack = draw_one_in(d, 2) ? 0 : draw32(d);
	s->window = (uint16_t)draw_below(d, 65536);
	if (s->proto == TCP) {
		s->n = draw_one_in(d, 6) ? s->n % 1400 : 0;
		draw_options(d, s, s->seq);
	}
	switch (draw_below(d, 24)) {
	case 0:
		s->dst = net->public_ip[draw_below(d, net->npublic)];
		break;
	case 1:
		s->dst = net->control_ip;
		s->dport = draw_one_in(d, 2) ? net->control_port : s->dport;
		break;
	case 2:
		s->dst = DRAW_OF(d, frame_inside_ip);
		break;
	case 3:
		s->dst = DRAW_OF(d, ((const uint32_t[]){IP(0, 1, 2, 3), IP(127, 0, 0, 1), IP(224, 0, 0, 5), IP(255, 255, 255, 255),
							IP(198, 18, 100, 255), IP(198, 18, 3, 255)}));
		break;
	default:
		break;
	}
}

static void from_anybody_outside(struct draw *d, const struct gm_net *net, struct shape *s)
{
	static const uint8_t protos[] = {TCP, UDP, ICMP};

	s->proto = DRAW_OF(d, protos);
	s->src = DRAW_OF(d, frame_outside_ip);
	s->sport = DRAW_OF(d, frame_outside_port);
	s->dst = draw_one_in(d, 8) ? draw32(d) : net->public_ip[draw_below(d, net->npublic)];
	s->dport = (uint16_t)draw_below(d, 65536);
	s->flags = (uint8_t)draw_below(d, 64);
	s->icmp_type = (uint8_t)draw_below(d, 20);
	s->seq = draw32(d);
	s->ack = draw32(d);
	s->n = draw_length(d) % 1460;
	if (draw_one_in(d, 16))
		s->src = draw32(d);
}

/* An error about something that left, from a router on the way, or from a liar. */
static enum gm_side icmp_error(struct draw *d, const struct gm_net *net, const struct frames_left *left, struct shape *s)
{
	const size_t header = net->six ? 40 : 20, from = net->six ? 20 : 12, to = net->six ? 36 : 16;
	static const uint8_t types[] = {3, 3, 3, 11, 11, 12, 4, 5};
	const enum gm_side side = draw_below(d, 3) != 0 ? GM_OUTSIDE : GM_INSIDE;
	const unsigned have = left->n[side] < FRAME_KEPT ? left->n[side] : FRAME_KEPT;
	const struct frame *f = &left->kept[side][draw_below(d, have != 0 ? have : 1)];
	size_t most = f->n > 14 ? f->n - 14 : 0;

	s->proto = ICMP;
	s->icmp_type = DRAW_OF(d, types);
	s->icmp_code = (uint8_t)draw_below(d, 5);
	if (most > 576)
		most = 576;
	s->n = draw_one_in(d, 3) && most > header + 8 ? header + 8 + draw_below(d, (uint32_t)(most - header) - 7) : most;
	memcpy(s->data, f->p + 14, s->n);
	s->src = side == GM_OUTSIDE ? IP(198, 18, 9, 9) : DRAW_OF(d, frame_inside_ip);
	if (side == GM_INSIDE && draw_below(d, 3) != 0 && s->n >= header)
		s->src = IP(s->data[to], s->data[to + 1], s->data[to + 2], s->data[to + 3]);
	s->dst = s->n >= header ? IP(s->data[from], s->data[from + 1], s->data[from + 2], s->data[from + 3]) : 0;
	if (draw_one_in(d, 12))
		s->dst = DRAW_OF(d, frame_outside_ip);
	if (draw_one_in(d, 4) && s->n > 0)
		s->data[draw_below(d, s->n < header + 20 ? (uint32_t)s->n : (uint32_t)header + 20)] ^= (uint8_t)(1u << draw_below(d, 8));
	return side;
}

static void spoil(struct draw *d, struct frame *f)
{
	uint8_t *ip = f->p + 14;

	switch (draw_below(d, 12)) {
	case 0: /* cut */
		f->n = 14 + draw_below(d, (uint32_t)f->n - 13);
		break;
	case 1: /* IP options */
		ip[0] = (uint8_t)(0x40 | draw_below(d, 16));
		break;
	case 2: /* a VLAN tag */
		memmove(f->p + 16, f->p + 12, f->n - 12);
		put16(f->p + 12, draw_one_in(d, 2) ? 0x8100 : 0x88a8);
		f->n += 4;
		break;
	case 3: /* a fragment */
		put16(ip + 6, draw_one_in(d, 2) ? 0x2000 : draw_below(d, 65536));
		break;
	case 4:
		ip[8] = (uint8_t)draw_below(d, 3);
		break;
	case 5:
		put16(ip + 2, draw_one_in(d, 2) ? draw_below(d, 2000) : (uint32_t)f->n - 14 - 1 + draw_below(d, 3));
		break;
	case 6:
		f->p[draw_below(d, 6)] ^= 1;
		break;
	case 7:
		put16(f->p + 12, DRAW_OF(d, ((const uint16_t[]){0x0806, 0x86dd, 0x0801, 0x8100})));
		break;
	case 8:
		if (draw_one_in(d, 2))
			ip[9] = (uint8_t)draw_below(d, 256);
		else if (f->n >= 38)
			put16(f->p + (draw_one_in(d, 2) ? 34 : 36), 0);
		break;
	case 9:
		f->p[34 + draw_below(d, f->n > 34 ? (uint32_t)(f->n - 34 < 24 ? f->n - 34 : 24) : 1)] = (uint8_t)draw_below(d, 256);
		break;
	default:
		f->p[draw_below(d, (uint32_t)f->n)] ^= (uint8_t)(1u << draw_below(d, 8));
		break;
	}
}

/* A fuzzer's own bytes behind a header that lets them in. */
static void raw(struct draw *d, const struct gm_net *net, enum gm_side side, struct frame *f)
{
	f->n = 14 + draw_below(d, 256);
	for (size_t i = 14; i < f->n; i++)
		f->p[i] = (uint8_t)draw_below(d, 256);
	memcpy(f->p, net->mac[side], 6);
	memcpy(f->p + 6, shape_peer_mac[side], 6);
	put16(f->p + 12, 0x0800);
}

enum gm_side frame_draw(struct draw *d, const struct gm_model *m, const struct frames_left *left, struct frame *f)
{
	static const uint8_t ttls[] = {64, 64, 64, 255, 2, 128};
	static struct shape s;
	enum gm_side side = GM_OUTSIDE;
	uint32_t kind = draw_below(d, 32);

	memset(&s, 0, offsetof(struct shape, data));
	s.n = 0;
	s.ttl = DRAW_OF(d, ttls);
	if (kind < 18 && m->holes != NULL) {
		side = at_hole(d, m, &s);
	} else if (kind < 25 && m->sessions != NULL) {
		side = at_session(d, m, &s);
	} else if (kind < 28 || (kind < 30 && left->n[0] + left->n[1] == 0)) {
		side = GM_INSIDE;
		from_anybody_inside(d, &m->net, &s);
	} else if (kind < 30) {
		side = icmp_error(d, &m->net, left, &s);
	} else if (d->bytes != NULL && kind == 31) {
		side = draw_one_in(d, 2) ? GM_INSIDE : GM_OUTSIDE;
		raw(d, &m->net, side, f);
		return side;
	} else {
		from_anybody_outside(d, &m->net, &s);
	}
	shape_build(d, &m->net, side, &s, f);
	if (draw_one_in(d, 10))
		spoil(d, f);
	return side;
}

void frame_left(struct frames_left *left, enum gm_side side, const uint8_t *p, size_t n)
{
	struct frame *f = &left->kept[side][left->n[side]++ % FRAME_KEPT];

	memcpy(f->p, p, n);
	f->n = n;
}
