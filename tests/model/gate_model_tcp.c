/* SPDX-License-Identifier: Apache-2.0 */
/* Van Rooij's four rules (seq and ack from both sides), RFC 7323's scaling, RFC 5961's RST, and RFC 9293's states seen from the middle. */
#include <string.h>

#include "gate_model_int.h"

#define LAGGARD 66000u /* how far an acknowledgement may lie behind whatever the windows were */

/* RFC 9293 3.4: numbers are compared on a circle. */
bool gm_before(uint32_t a, uint32_t b)
{
	return a - b >= 0x80000000u;
}

static uint32_t later(uint32_t a, uint32_t b)
{
	return gm_before(a, b) ? b : a;
}

void gm_end_open(struct gm_end *e, const struct gm_packet *p)
{
	*e = (struct gm_end){.known = true,
			     .end = p->seq + 1 + p->npayload,
			     .limit = p->seq + 1,
			     .window = p->window != 0 ? p->window : 1,
			     .ack = p->ackno,
			     .scale = p->scale,
			     .scales = p->scales,
			     .sacks = p->sacks};
}

void gm_ends_agree(struct gm_end *second, struct gm_end *first)
{
	first->ack = second->limit;
	/* The second may have acknowledged some of what came with the first's SYN; a number that cannot be so says nothing. */
	if (gm_before(second->ack, first->limit) || gm_before(first->end, second->ack))
		second->ack = first->limit;
	if (!first->scales || !second->scales)
		first->scale = second->scale = 0;
	first->sacks = second->sacks = first->sacks && second->sacks;
	first->limit = first->end + second->window;
	second->limit = second->end + first->window;
}

bool gm_tcp_open(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p)
{
	memset(t, 0, sizeof(*t));
	gm_end_open(&t->end[side], p);
	t->state = GM_T_SYN;
	return true;
}

static bool in_window(struct gm_end *s, struct gm_end *r, const struct gm_packet *p)
{
	const uint32_t end = p->seq + p->npayload + (p->syn ? 1 : 0) + (p->fin ? 1 : 0);
	const uint32_t window = p->syn ? p->window : p->window << s->scale, lag = s->window > LAGGARD ? s->window : LAGGARD;
	const uint32_t sack = s->sacks ? p->sack : p->ackno;
	uint32_t edge = sack + window;

	if (gm_before(s->limit, p->seq) || gm_before(end, s->end - r->window))
		return false;
	if (gm_before(r->end, p->ackno) || gm_before(r->end, sack) || gm_before(p->ackno, r->end - lag))
		return false;
	if (edge - p->ackno > s->window)
		s->window = edge - p->ackno;
	s->end = later(s->end, end);
	s->limit = later(s->limit, end);
	s->ack = later(s->ack, p->ackno);
	if (!gm_before(edge, r->limit))
		r->limit = window == 0 ? edge + 1 : edge; /* a closed window may be probed with one byte */
	return true;
}

static bool reset(struct gm_tcp *t, const struct gm_end *s, const struct gm_end *r, const struct gm_packet *p)
{
	if (p->seq != r->ack && p->seq != s->end)
		return false;
	t->state = GM_T_RESET;
	return true;
}

bool gm_tcp_segment(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p)
{
	struct gm_end *s = &t->end[side], *r = &t->end[1 - side];

	if (p->rst)
		return reset(t, s, r, p);
	if (t->state == GM_T_RESET) /* RFC 5961 3.2: a challenge by who got the RST too early, and no more */
		return s->known && r->known && p->ack && !p->syn && !p->fin && p->npayload == 0 && in_window(s, r, p);
	/* A SYN here is the one that began, once more and acknowledged; its sender waits for the answer and has sent nothing else. */
	if (p->syn && (!p->ack || p->seq + 1 + p->npayload != s->end))
		return false;
	if (!p->ack || !in_window(s, r, p))
		return false;
	s->fin |= p->fin;
	t->state = s->fin && r->fin ? GM_T_CLOSED : s->fin || r->fin ? GM_T_CLOSING : GM_T_OPEN;
	return true;
}

static bool answer(struct gm_tcp *t, struct gm_end *s, struct gm_end *r, const struct gm_packet *p)
{
	if (p->ack && (gm_before(p->ackno, r->limit) || gm_before(r->end, p->ackno)))
		return false;
	if (p->rst && p->ack) {
		t->state = GM_T_RESET;
		return true;
	}
	if (!p->syn)
		return false;
	gm_end_open(s, p);
	gm_ends_agree(s, r);
	t->state = p->ack ? GM_T_SYNACK : GM_T_SYN_BOTH;
	return true;
}

bool gm_tcp_session(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p)
{
	struct gm_end *s = &t->end[side], *r = &t->end[1 - side];
	const bool asks = p->syn && !p->ack, opener = side == GM_INSIDE;

	/* RFC 9293 3.5.1: an end that has lost the connection asks, and the other one answers it. That alone changes nothing. */
	if (opener && asks)
		return t->state == GM_T_SYN || t->state == GM_T_RESET ||
				       (t->state == GM_T_CLOSED && gm_before(s->end, p->seq)) /* RFC 6191 */
			       ? gm_tcp_open(t, side, p)
			       : true;
	switch (t->state) {
	case GM_T_SYN:
		return opener ? p->rst && reset(t, s, r, p) : answer(t, s, r, p);
	case GM_T_SYN_BOTH:
		if (!p->syn)
			break;
		if (p->seq + 1 != s->end || (p->ack && p->ackno != r->end))
			return false;
		if (p->ack)
			s->ack = p->ackno;
		return true;
	case GM_T_SYNACK:
		if (p->syn)
			return p->seq + 1 == s->end && (opener || p->ackno == r->end);
		if (!opener && !p->rst)
			return false;
		break;
	case GM_T_OPEN:
	case GM_T_CLOSING:
	case GM_T_CLOSED:
	case GM_T_RESET:
		break;
	default:
		return false;
	}
	return gm_tcp_segment(t, side, p);
}
