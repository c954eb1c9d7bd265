/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file TCP as seen from the middle: states, and the window rules of van Rooij ("Real Stateful TCP Packet Filtering in IP Filter"), with
 * RST as RFC 5961 wants it. Pure; the caller holds the lock of what owns the track. */
#pragma once

#include "gate/bpf/parse.h"
#include "gate/bpf/shared.h"

/** What the options of one segment said. */
struct gate_tcp_opt {
	__u32 sack; /* highest right edge of a SACK block, host order; the ACK itself when there is none */
	__u8 scale;
	__u8 flags; /* GATE_TCP_SCALE, GATE_TCP_SACK as offered in a SYN */
};

#define GATE_TCP_MIN_WINDOW 66000u /* a receiver may be this far behind even if it never advertised so much */

static __always_inline int gate_before(__u32 a, __u32 b)
{
	return (__s32)(a - b) < 0;
}

/** First segment of a side. */
static __always_inline void gate_end_open(struct gate_tcp_end *e, const struct gate_pkt *p, const struct gate_tcp_opt *o)
{
	e->end = p->seq + p->payload + 1;
	e->limit = p->seq + 1; /* until gate_ends_agree: the least that answers this SYN */
	e->window = p->window ? p->window : 1;
	e->ack = p->ack;
	e->scale = o->scale > 14 ? 14 : o->scale;
	e->flags = (__u8)(GATE_TCP_KNOWN | o->flags);
}

/** Both SYNs are known, b's came first: scaling and SACK hold only when both offered them; each may send what the other advertised. */
static __always_inline void gate_ends_agree(struct gate_tcp_end *a, struct gate_tcp_end *b)
{
	/* What each will acknowledge first; a SYN's own field says nothing, and zero would stand above half of all numbers. */
	b->ack = a->limit;
	if (gate_before(a->ack, b->limit) || gate_before(b->end, a->ack))
		a->ack = b->limit;
	if (!(a->flags & b->flags & GATE_TCP_SCALE))
		a->scale = b->scale = 0;
	if (!(a->flags & b->flags & GATE_TCP_SACK)) {
		a->flags &= (__u8)~GATE_TCP_SACK;
		b->flags &= (__u8)~GATE_TCP_SACK;
	}
	a->limit = a->end + b->window;
	b->limit = b->end + a->window;
}

/** Any segment of an open connection. s sends, r receives. */
static __always_inline int gate_window(struct gate_tcp_end *s, struct gate_tcp_end *r, const struct gate_pkt *p,
				       const struct gate_tcp_opt *o)
{
	const __u32 end = p->seq + p->payload + ((p->flags & GATE_SYN) ? 1 : 0) + ((p->flags & GATE_FIN) ? 1 : 0);
	__u32 ack = p->ack, sack = o->sack, window = p->window, reach, back;

	if (!(p->flags & GATE_SYN))
		window <<= s->scale & 15;
	if (!(p->flags & GATE_ACK)) /* only RST comes here without one */
		ack = sack = r->end;
	if (!(s->flags & GATE_TCP_SACK))
		sack = ack;
	back = s->window > GATE_TCP_MIN_WINDOW ? s->window : GATE_TCP_MIN_WINDOW;
	if (gate_before(s->limit, p->seq)) /* beyond what the receiver allowed */
		return GATE_R_TCP_WINDOW;
	if (gate_before(end, s->end - r->window)) /* long since received */
		return GATE_R_TCP_WINDOW;
	if (gate_before(r->end, sack) || gate_before(r->end, ack)) /* acknowledges what was never sent */
		return GATE_R_TCP_ACK;
	if (gate_before(ack, r->end - back)) /* acknowledges the distant past */
		return GATE_R_TCP_ACK;

	reach = window + (sack - ack);
	if (s->window < reach)
		s->window = reach;
	if (gate_before(s->end, end))
		s->end = end;
	if (gate_before(s->limit, end))
		s->limit = end;
	reach = sack + window;
	if (gate_before(r->limit, reach + 1))
		r->limit = reach + (window == 0 ? 1 : 0);
	if ((p->flags & GATE_ACK) && gate_before(s->ack, ack))
		s->ack = ack;
	return 0;
}

static __always_inline int gate_track_rst(struct gate_track *t, struct gate_tcp_end *s, struct gate_tcp_end *r, const struct gate_pkt *p)
{
	/* The receiver's next expected number, or one after the last that the sender sent: whoever does not see the flow knows neither. */
	if (p->seq != r->ack && p->seq != s->end)
		return GATE_R_TCP_RST;
	t->state = GATE_TCP_RESET;
	return 0;
}

/** After an RST. It may have come too early for its receiver, whose challenge (RFC 5961 section 3) must get back to be answered by an RST
 * with the right number; nothing else passes. */
static __always_inline int gate_track_after_rst(struct gate_track *t, struct gate_tcp_end *s, struct gate_tcp_end *r,
						const struct gate_pkt *p, const struct gate_tcp_opt *o)
{
	if (p->flags & GATE_RST)
		return gate_track_rst(t, s, r, p);
	if ((p->flags & (GATE_SYN | GATE_FIN)) || p->payload || !(s->flags & r->flags & GATE_TCP_KNOWN))
		return GATE_R_TCP_STATE;
	return gate_window(s, r, p, o);
}

/** The opener's SYN. side: who sends it. */
static __always_inline void gate_track_open(struct gate_track *t, int side, const struct gate_pkt *p, const struct gate_tcp_opt *o)
{
	__builtin_memset(t, 0, sizeof(*t));
	if (side == GATE_INSIDE)
		gate_end_open(&t->end[GATE_INSIDE], p, o);
	else
		gate_end_open(&t->end[GATE_OUTSIDE], p, o);
	t->state = GATE_TCP_SYN;
}

static __always_inline int gate_track_established(struct gate_track *t, struct gate_tcp_end *s, struct gate_tcp_end *r,
						  const struct gate_pkt *p, const struct gate_tcp_opt *o)
{
	int why;

	/* Only the SYN-ACK whose ACK got lost, again: its sender has not said anything since. */
	if ((p->flags & GATE_SYN) && (!(p->flags & GATE_ACK) || p->seq + p->payload + 1 != s->end))
		return GATE_R_TCP_STATE;
	if (p->flags & GATE_RST)
		return gate_track_rst(t, s, r, p);
	why = gate_window(s, r, p, o);
	if (why)
		return why;
	if (p->flags & GATE_FIN)
		s->flags |= GATE_TCP_FIN;
	if ((s->flags & r->flags & GATE_TCP_FIN) != 0)
		t->state = GATE_TCP_CLOSED;
	else if (((s->flags | r->flags) & GATE_TCP_FIN) != 0)
		t->state = GATE_TCP_CLOSING;
	else
		t->state = GATE_TCP_ESTABLISHED;
	return 0;
}

/**
 * One segment of a connection that the inside opened (its SYN went through gate_track_open).
 * \return 0, or why it is dropped; then nothing has changed.
 */
static __always_inline int gate_track_session(struct gate_track *t, int side, const struct gate_pkt *p, const struct gate_tcp_opt *o)
{
	struct gate_tcp_end *s = side == GATE_INSIDE ? &t->end[GATE_INSIDE] : &t->end[GATE_OUTSIDE];
	struct gate_tcp_end *r = side == GATE_INSIDE ? &t->end[GATE_OUTSIDE] : &t->end[GATE_INSIDE];
	const __u8 f = p->flags;

	if (side == GATE_INSIDE && (f & (GATE_SYN | GATE_ACK)) == GATE_SYN) {
		/* Again, after an RST, or over a TIME-WAIT by a later number (RFC 6191). Else it changes nothing here: the far end answers
		 * with a challenge (RFC 5961 section 4), and an inside that lost its connection with an RST. */
		if (t->state == GATE_TCP_SYN || t->state == GATE_TCP_RESET || (t->state == GATE_TCP_CLOSED && gate_before(s->end, p->seq)))
			gate_track_open(t, side, p, o);
		return 0;
	}
	switch (t->state) {
	case GATE_TCP_SYN:
		if (side == GATE_INSIDE)
			return (f & GATE_RST) ? gate_track_rst(t, s, r, p) : GATE_R_TCP_STATE;
		if (f & GATE_ACK) {
			if (gate_before(p->ack, r->limit) || gate_before(r->end, p->ack))
				return GATE_R_TCP_ACK;
			if (f & GATE_RST) {
				t->state = GATE_TCP_RESET;
				return 0;
			}
			if (!(f & GATE_SYN))
				return GATE_R_TCP_STATE;
			gate_end_open(s, p, o);
			gate_ends_agree(s, r);
			t->state = GATE_TCP_SYNACK;
			return 0;
		}
		if (f & GATE_SYN) { /* RFC 5382 REQ-2 a): simultaneous open */
			gate_end_open(s, p, o);
			gate_ends_agree(s, r);
			t->state = GATE_TCP_SYN_BOTH;
			return 0;
		}
		return GATE_R_TCP_STATE;
	case GATE_TCP_SYN_BOTH:
		if (f & GATE_SYN) { /* again, or now with the ACK of the other's */
			if (p->seq + 1 != s->end || ((f & GATE_ACK) && p->ack != r->end))
				return GATE_R_TCP_ACK;
			if (f & GATE_ACK)
				s->ack = p->ack;
			return 0;
		}
		break;
	case GATE_TCP_SYNACK:
		if (f & GATE_SYN) { /* retransmissions only */
			if (p->seq + 1 != s->end || (side == GATE_OUTSIDE && p->ack != r->end))
				return GATE_R_TCP_STATE;
			return 0;
		}
		if (side == GATE_OUTSIDE && !(f & GATE_RST)) /* the opener's ACK comes first */
			return GATE_R_TCP_STATE;
		break;
	case GATE_TCP_ESTABLISHED:
	case GATE_TCP_CLOSING:
	case GATE_TCP_CLOSED:
		break;
	case GATE_TCP_RESET:
		return gate_track_after_rst(t, s, r, p, o);
	default:
		return GATE_R_TCP_STATE;
	}
	return gate_track_established(t, s, r, p, o);
}

static __always_inline __u64 gate_track_lifetime(const struct gate_track *t)
{
	switch (t->state) {
	case GATE_TCP_ESTABLISHED:
		return GATE_TCP_ESTABLISHED_NS;
	default:
		return GATE_TCP_TRANSITORY_NS;
	}
}
