/* SPDX-License-Identifier: Apache-2.0 */
/* Who has a five-tuple, and what becomes of a frame of a hole. */
#include <stdlib.h>
#include <string.h>

#include "gate_model_int.h"

#define BURST     (GM_S / 4)
#define SYN_BURST GM_S

static bool claim_is(const struct gm_claim *c, uint8_t proto, uint32_t ip, uint16_t port, uint32_t rip, uint16_t rport)
{
	return c->proto == proto && c->inside_ip == ip && c->inside_port == port && c->remote_ip == rip && c->remote_port == rport;
}

struct gm_claim *gm_claim_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port, uint32_t rip, uint16_t rport)
{
	struct gm_claim *c;

	for (c = m->claims; c != NULL && !claim_is(c, proto, ip, port, rip, rport); c = c->next)
		;
	return c;
}

bool gm_claim_lives(const struct gm_model *m, const struct gm_claim *c, uint64_t now)
{
	if (c->hole != 0) {
		const struct gm_hole *h = gm_hole_of(m, c->hole);

		if (h == NULL || now >= h->expires)
			return false;
		if (!h->bound)
			return true;
		return h->bound_ip == c->remote_ip && h->bound_port == c->remote_port &&
		       !(h->closed != 0 && now > h->closed + GM_TRANSITORY);
	}
	const struct gm_session *s = gm_session_find(m, c->proto, c->public_ip, c->public_port, c->remote_ip, c->remote_port);

	return s != NULL && now < s->expires && s->inside_ip == c->inside_ip && s->inside_port == c->inside_port;
}

bool gm_claim_take(struct gm_model *m, const struct gm_claim *want, uint64_t now)
{
	struct gm_claim *c = gm_claim_find(m, want->proto, want->inside_ip, want->inside_port, want->remote_ip, want->remote_port), *next;

	if (c == NULL) {
		c = gm_alloc(sizeof(*c));
		*c = *want;
		c->next = m->claims;
		m->claims = c;
		return true;
	}
	if (c->hole == want->hole && c->public_ip == want->public_ip && c->public_port == want->public_port)
		return true;
	if (gm_claim_lives(m, c, now))
		return false;
	next = c->next;
	*c = *want;
	c->next = next;
	return true;
}

static void claim_give_up(struct gm_model *m, const struct gm_hole *h, uint32_t rip, uint16_t rport)
{
	for (struct gm_claim **at = &m->claims; *at != NULL; at = &(*at)->next) {
		struct gm_claim *c = *at;

		if (claim_is(c, h->proto, h->inside_ip, h->inside_port, rip, rport) && c->hole == h->id) {
			*at = c->next;
			free(c);
			return;
		}
	}
}

static bool hole_claims(struct gm_model *m, const struct gm_hole *h, const struct gm_packet *p, uint64_t now)
{
	const struct gm_claim want = {.proto = h->proto,
				      .inside_ip = h->inside_ip,
				      .inside_port = h->inside_port,
				      .remote_ip = p->src,
				      .remote_port = p->sport,
				      .hole = h->id};

	return gm_claim_take(m, &want, now);
}

static bool ahead(uint64_t due, uint64_t now, uint64_t burst)
{
	return due > now && due - now > burst;
}

static bool over_rate(const struct gm_hole *h, uint64_t now)
{
	const struct gm_user *u = h->user;

	if (u != NULL &&
	    ((u->packet_cost != 0 && ahead(u->packet_due, now, BURST)) || (u->byte_cost != 0 && ahead(u->byte_due, now, BURST))))
		return true;
	return (h->packet_cost != 0 && ahead(h->packet_due, now, BURST)) || (h->byte_cost != 0 && ahead(h->byte_due, now, BURST));
}

static uint64_t charged(uint64_t due, uint64_t now, uint64_t cost)
{
	return (due > now ? due : now) + cost;
}

/* Only what has proved to be the user's. */
static void charge(struct gm_hole *h, const struct gm_packet *p, uint64_t now)
{
	if (h->packet_cost != 0)
		h->packet_due = charged(h->packet_due, now, h->packet_cost);
	if (h->byte_cost != 0)
		h->byte_due = charged(h->byte_due, now, p->len * h->byte_cost / 65536);
	if (h->user != NULL && h->user->packet_cost != 0)
		h->user->packet_due = charged(h->user->packet_due, now, h->user->packet_cost);
	if (h->user != NULL && h->user->byte_cost != 0)
		h->user->byte_due = charged(h->user->byte_due, now, p->len * h->user->byte_cost / 65536);
	h->packets_in++;
	h->bytes_in += p->len;
	h->last = now;
}

/* RFC 6479: fifteen whole words of 64 behind the newest. */
static bool fresh_counter(struct gm_hole *h, uint64_t counter)
{
	size_t kept = 0;

	if (counter == 0 || (counter < h->top && h->top - counter > 960))
		return false;
	for (size_t i = 0; i < h->nseen; i++)
		if (h->seen[i] == counter)
			return false;
	if (counter > h->top)
		h->top = counter;
	for (size_t i = 0; i < h->nseen; i++)
		if (h->top - h->seen[i] <= 960)
			h->seen[kept++] = h->seen[i];
	h->nseen = kept;
	if (h->nseen == h->seen_cap) {
		h->seen_cap = h->seen_cap * 2 + 16;
		h->seen = realloc(h->seen, h->seen_cap * sizeof(*h->seen));
		if (h->seen == NULL)
			abort();
	}
	h->seen[h->nseen++] = counter;
	return true;
}

static const char *udp_in(struct gm_way *w, struct gm_hole *h, const uint8_t *frame)
{
	const struct gm_packet *p = w->p;
	uint64_t counter = 0;

	if (h->bound && (h->bound_ip != p->src || h->bound_port != p->sport))
		return "remote";
	if (gm_hole_idle(h, w->now))
		return "closed";
	if (h->tag) {
		if (!gm_tag_valid(h->key, frame + p->payload, p->npayload, &counter))
			return "tag";
		w->strip = true;
		w->keep = p->npayload - 16;
	}
	if (!h->bound && !hole_claims(w->m, h, p, w->now))
		return "clash";
	if (over_rate(h, w->now))
		return "rate";
	if (h->tag && !fresh_counter(h, counter))
		return "replay";
	charge(h, p, w->now);
	h->bound = true;
	h->bound_ip = p->src;
	h->bound_port = p->sport;
	return NULL;
}

static struct gm_handshake *handshake_of(struct gm_hole *h, uint16_t port)
{
	for (unsigned i = 0; i < GM_HANDSHAKES; i++)
		if (h->handshake[i].used && h->handshake[i].port == port)
			return &h->handshake[i];
	return NULL;
}

static const char *syn_in(struct gm_way *w, struct gm_hole *h)
{
	const struct gm_packet *p = w->p;
	struct gm_handshake *s = handshake_of(h, p->sport);

	if (p->npayload != 0)
		return "tcp";
	if (ahead(h->syn_due, w->now, SYN_BURST))
		return "syn rate";
	h->syn_due = charged(h->syn_due, w->now, h->syn_cost);
	if (!hole_claims(w->m, h, p, w->now))
		return "clash";
	if (s != NULL && s->client_isn == p->seq)
		return NULL; /* once more */
	for (unsigned i = 0; i < GM_HANDSHAKES && s == NULL; i++)
		if (!h->handshake[i].used)
			s = &h->handshake[i];
	if (s == NULL) {
		s = &h->handshake[0];
		for (unsigned i = 1; i < GM_HANDSHAKES; i++)
			if (h->handshake[i].since < s->since)
				s = &h->handshake[i];
	}
	if (s->used && s->port != p->sport)
		claim_give_up(w->m, h, p->src, s->port);
	memset(s, 0, sizeof(*s));
	s->used = true;
	s->port = p->sport;
	s->client_isn = p->seq;
	s->since = w->now;
	gm_end_open(&s->end[GM_OUTSIDE], p);
	return NULL;
}

/* A segment of the connection that has the hole. */
static bool segment(struct gm_way *w, struct gm_hole *h, enum gm_side side)
{
	if (!gm_tcp_segment(&h->tcp, side, w->p))
		return false;
	if (h->closed == 0 && (h->tcp.state == GM_T_RESET || h->tcp.state == GM_T_CLOSED))
		h->closed = w->now;
	return true;
}

static bool ended(const struct gm_hole *h, uint64_t now)
{
	return h->closed != 0 && now > h->closed + GM_TRANSITORY;
}

static const char *handshake_in(struct gm_way *w, struct gm_hole *h)
{
	const struct gm_packet *p = w->p;
	struct gm_handshake *s = handshake_of(h, p->sport);
	struct gm_tcp t = {.state = GM_T_SYNACK};

	if (s == NULL || p->syn || p->fin)
		return "tcp";
	if (p->seq != s->client_isn + 1)
		return "tcp";
	/* Whoever knows the service's number is where its answer went. */
	if (!p->rst && (!s->answered || p->ackno != s->service_isn + 1))
		return "tcp";
	if (over_rate(h, w->now))
		return "rate";
	if (p->rst) {
		charge(h, p, w->now);
		s->answered = false;
		s->client_isn = p->seq;
		return NULL;
	}
	memcpy(t.end, s->end, sizeof(t.end));
	if (!gm_tcp_segment(&t, GM_OUTSIDE, p))
		return "tcp";
	charge(h, p, w->now);
	h->tcp = t;
	h->bound = true;
	h->bound_ip = p->src;
	h->bound_port = p->sport;
	return NULL;
}

static const char *tcp_in(struct gm_way *w, struct gm_hole *h)
{
	const struct gm_packet *p = w->p;

	if (h->bound) {
		if (h->bound_ip != p->src || h->bound_port != p->sport)
			return "remote";
		if (gm_hole_idle(h, w->now))
			return "closed";
		if (p->bad)
			return "tcp";
		if (over_rate(h, w->now))
			return "rate";
		if (ended(h, w->now))
			return "closed";
		if (!segment(w, h, GM_OUTSIDE))
			return "tcp";
		charge(h, p, w->now);
		return NULL;
	}
	if (w->now >= h->connect_by)
		return "closed";
	if (p->bad)
		return "tcp";
	return p->syn && !p->ack ? syn_in(w, h) : handshake_in(w, h);
}

const char *gm_hole_in(struct gm_way *w, struct gm_hole *h, const uint8_t *frame)
{
	if (w->now >= h->expires)
		return "closed";
	if (!h->tag && (h->remote_ip != w->p->src || (h->remote_port != 0 && h->remote_port != w->p->sport)))
		return "remote";
	w->ip = h->inside_ip;
	w->port = h->inside_port;
	return h->proto == 17 ? udp_in(w, h, frame) : tcp_in(w, h);
}

static const char *answer_out(struct gm_way *w, struct gm_hole *h)
{
	const struct gm_packet *p = w->p;
	struct gm_handshake *s;

	if (h->proto != 6 || p->dst != h->remote_ip || w->now >= h->connect_by)
		return "service";
	s = handshake_of(h, p->dport);
	if (s == NULL || !p->ack || p->ackno != s->client_isn + 1)
		return "tcp";
	if (p->rst) {
		s->answered = false;
		return NULL;
	}
	if (!p->syn)
		return "tcp";
	if (!s->answered || s->service_isn != p->seq) {
		s->answered = true;
		s->service_isn = p->seq;
		gm_end_open(&s->end[GM_INSIDE], p);
		gm_ends_agree(&s->end[GM_INSIDE], &s->end[GM_OUTSIDE]);
	}
	return NULL;
}

const char *gm_hole_out(struct gm_way *w, struct gm_hole *h)
{
	const struct gm_packet *p = w->p;
	const char *why = NULL;

	if (w->now >= h->expires)
		return "closed";
	if (p->bad)
		return "tcp";
	if (h->bound && gm_hole_idle(h, w->now))
		return "closed";
	if (!h->bound)
		why = answer_out(w, h);
	else if (h->bound_ip != p->dst || h->bound_port != p->dport)
		why = "service";
	else if (h->proto == 6)
		why = ended(h, w->now) ? "closed" : segment(w, h, GM_INSIDE) ? NULL : "tcp";
	if (why != NULL)
		return why;
	h->packets_out++;
	h->bytes_out += p->len;
	h->last = w->now;
	w->ip = h->public_ip;
	w->port = h->public_port;
	return NULL;
}
