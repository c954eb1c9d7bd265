/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a frame. */
#include <string.h>

#include "gate_model_int.h"

/* RFC 5927 4.1: what is quoted must be in flight. s sent it. */
static bool in_flight(const struct gm_tcp *t, uint32_t seq)
{
	/* Before the other end has said anything: the SYN, and what came with it. */
	const uint32_t from = t->end[GM_OUTSIDE].known ? t->end[GM_OUTSIDE].ack : t->end[GM_INSIDE].limit - 1;

	return !gm_before(seq, from) && !gm_before(t->end[GM_INSIDE].end, seq);
}

static bool error_in(struct gm_way *w, const struct gm_quote *q)
{
	const struct gm_session *s;
	const struct gm_mapping *map;

	if (!gm_is_public(&w->m->net, q->src) || q->src != w->p->dst)
		return false;
	if (w->m->net.firewall) {
		const struct gm_claim *c = gm_claim_find(w->m, q->proto, q->src, q->sport, q->dst, q->proto == 1 ? 0 : q->dport);
		const struct gm_hole *h;

		if (c == NULL || !gm_claim_lives(w->m, c, w->now))
			return false;
		w->ip = q->src;
		w->port = q->sport;
		h = c->hole != 0 ? gm_hole_of(w->m, c->hole) : NULL;
		if (h != NULL)
			return h->bound && (q->proto != 6 || in_flight(&h->tcp, q->seq));
		s = gm_session_find(w->m, q->proto, q->src, q->sport, q->dst, q->proto == 1 ? 0 : q->dport);
		return s != NULL && (q->proto != 6 || in_flight(&s->tcp, q->seq));
	}
	for (const struct gm_hole *h = w->m->holes; h != NULL; h = h->next) {
		if (h->proto != q->proto || h->public_ip != q->src || h->public_port != q->sport)
			continue;
		w->ip = h->inside_ip;
		w->port = h->inside_port;
		return h->bound && w->now < h->expires && h->bound_ip == q->dst && h->bound_port == q->dport &&
		       (q->proto != 6 || in_flight(&h->tcp, q->seq));
	}
	s = gm_session_find(w->m, q->proto, q->src, q->sport, q->dst, q->proto == 1 ? 0 : q->dport);
	if (s == NULL || w->now >= s->expires)
		return false;
	map = gm_mapping_find(w->m, q->proto, s->inside_ip, s->inside_port);
	if (map == NULL || map->public_ip != q->src || map->public_port != q->sport)
		return false;
	w->ip = s->inside_ip;
	w->port = s->inside_port;
	return q->proto != 6 || in_flight(&s->tcp, q->seq);
}

static bool error_out(struct gm_way *w, const struct gm_quote *q)
{
	const int tenant = gm_tenant_of(&w->m->net, w->p->src);
	const struct gm_claim *c;

	if (q->src != w->p->dst || gm_tenant_of(&w->m->net, q->dst) != tenant)
		return false;
	c = gm_claim_find(w->m, q->proto, q->dst, q->dport, q->src, q->proto == 1 ? 0 : q->sport);
	if (c == NULL || !gm_claim_lives(w->m, c, w->now))
		return false;
	if (c->hole != 0) {
		const struct gm_hole *h = gm_hole_of(w->m, c->hole);

		w->ip = h->public_ip;
		w->port = h->public_port;
	} else {
		w->ip = c->public_ip;
		w->port = c->public_port;
	}
	return true;
}

static bool is_error(const struct gm_packet *p)
{
	return p->proto == 1 && (p->icmp_type == 3 || p->icmp_type == 11 || p->icmp_type == 12);
}

static const char *error(struct gm_way *w, enum gm_side side, const uint8_t *frame, size_t n, struct gm_answer *a)
{
	struct gm_quote q;
	const char *why;

	if (w->p->ttl <= 1)
		return "ttl";
	if (!gm_read_quote(frame, w->p, &q))
		return "icmp";
	if (side == GM_INSIDE && gm_tenant_of(&w->m->net, w->p->src) < 0)
		return "spoofed";
	if (!(side == GM_OUTSIDE ? error_in(w, &q) : error_out(w, &q)))
		return "icmp";
	if (w->m->net.firewall)
		gm_forward(w->p, frame, n, a);
	else
		gm_rewrite_error(w->p, &q, frame, n, side == GM_OUTSIDE, w->ip, w->port, a);
	why = gm_route(&w->m->net, side, side == GM_OUTSIDE ? w->ip : w->p->dst, w->p->len, a);
	a->passed = "icmp_error";
	return why;
}

/* Whether a waiting hole takes this first packet before others that wait as it does. */
static bool fits(const struct gm_way *w, const struct gm_hole *h, const uint8_t *frame, bool second)
{
	const struct gm_packet *p = w->p;
	uint64_t counter;

	if (h->bound || w->now >= h->expires)
		return false;
	if (p->proto == 6)
		return w->now < h->connect_by && (second || !h->handshake[0].used); /* each connection shall find a hole of its own */
	return h->tag ? gm_tag_valid(h->key, frame + p->payload, p->npayload, &counter) : h->remote_port == p->sport;
}

/* The hole that waits for what comes from `remote` (0: from anywhere): the oldest that fits, or fits if no other does; or else the oldest.
 */
static struct gm_hole *waiting(const struct gm_way *w, uint32_t remote, const uint8_t *frame)
{
	const struct gm_packet *p = w->p;
	struct gm_hole *oldest = NULL, *fit = NULL, *second = NULL;

	for (struct gm_hole *h = w->m->holes; h != NULL; h = h->next) { /* the newest comes first */
		if (!h->waits || h->proto != p->proto || h->inside_ip != p->dst || h->inside_port != p->dport || h->remote_ip != remote)
			continue;
		oldest = h;
		if (fits(w, h, frame, false))
			fit = h;
		if (fits(w, h, frame, true))
			second = h;
	}
	return fit != NULL ? fit : second != NULL ? second : oldest;
}

/* Where nothing is translated: the flow's own five-tuple, or a first packet. \return false: neither. */
static bool untranslated(const struct gm_way *w, const uint8_t *frame, struct gm_hole **h, struct gm_answer *a)
{
	const struct gm_packet *p = w->p;
	const struct gm_claim *c = gm_claim_find(w->m, p->proto, p->dst, p->dport, p->src, p->proto == 1 ? 0 : p->sport);

	*h = NULL;
	if (c != NULL && gm_claim_lives(w->m, c, w->now)) {
		*h = c->hole != 0 ? gm_hole_of(w->m, c->hole) : NULL;
		return true;
	}
	if (p->proto == 17 || (p->proto == 6 && p->syn && !p->ack))
		*h = waiting(w, p->src, frame);
	if (*h == NULL && p->proto == 17)
		*h = waiting(w, 0, frame);
	if (*h == NULL && c != NULL && c->hole != 0) { /* the hole that was says why not, unless it has been swept */
		*h = gm_hole_of(w->m, c->hole);
		a->also = "closed";
	}
	return *h != NULL;
}

/* Behind a NAT: whose public port it is. \return false: nobody's. */
static bool translated(const struct gm_way *w, struct gm_hole **h, struct gm_answer *a)
{
	const struct gm_packet *p = w->p;
	const struct gm_mapping *o, *map = NULL;

	for (*h = w->m->holes; *h != NULL; *h = (*h)->next)
		if ((*h)->proto == p->proto && (*h)->public_ip == p->dst && (*h)->public_port == p->dport)
			return true;
	/* One that is over may stand beside the one that has its port now. */
	for (o = w->m->mappings; o != NULL && !(map != NULL && w->now < map->expires); o = o->next)
		if (o->proto == p->proto && o->public_ip == p->dst && o->public_port == p->dport)
			map = o;
	if (map != NULL && w->now < map->expires)
		return true;
	a->also = map != NULL && p->ttl <= 1 ? "ttl" : ""; /* who still holds the port is not seen from outside */
	return false;
}

static const char *from_outside(struct gm_way *w, const uint8_t *frame, size_t n, struct gm_answer *a)
{
	const struct gm_packet *p = w->p;
	struct gm_hole *h;
	const char *why;

	if (!gm_is_public(&w->m->net, p->dst))
		return "not public";
	if (is_error(p))
		return error(w, GM_OUTSIDE, frame, n, a);
	if (p->proto == 1 && p->icmp_type != 0)
		return "icmp";
	if (w->m->net.firewall ? !untranslated(w, frame, &h, a) : !translated(w, &h, a))
		return w->m->net.firewall && p->ttl <= 1 ? "ttl" : "closed";
	if (p->ttl <= 1)
		return "ttl";
	a->passed = h != NULL ? "hole_in" : "session_in";
	why = h != NULL ? gm_hole_in(w, h, frame) : gm_session_in(w);
	if (why != NULL)
		return why;
	gm_rewrite(p, frame, n, true, w->ip, w->port, w->strip, w->keep, a);
	return gm_route(&w->m->net, GM_OUTSIDE, w->ip, p->len - (w->strip ? 16 : 0), a);
}

static bool is_service(const struct gm_model *m, const struct gm_packet *p)
{
	for (const struct gm_service *s = m->services; s != NULL; s = s->next)
		if (s->proto == p->proto && s->ip == p->src && s->port == p->sport)
			return true;
	return false;
}

static const char *from_inside(struct gm_way *w, const uint8_t *frame, size_t n, const uint8_t *sent, size_t nsent, struct gm_answer *a)
{
	const struct gm_packet *p = w->p;
	const struct gm_claim *c;
	struct gm_hole *h;
	const char *why = NULL;
	bool known = false;

	if (p->dst == w->m->net.control_ip) {
		if (p->proto != 6 || p->dport != w->m->net.control_port)
			return "host";
		if (gm_tenant_of(&w->m->net, p->src) < 0)
			return "spoofed";
		a->verdict = GM_HOST;
		a->passed = "control";
		return NULL;
	}
	if (p->ttl <= 1)
		return "ttl";
	if (gm_is_public(&w->m->net, p->dst))
		return "hairpin";
	if (is_error(p))
		return error(w, GM_INSIDE, frame, n, a);
	if (p->proto == 1 && p->icmp_type != 8)
		return "icmp";
	c = gm_claim_find(w->m, p->proto, p->src, p->sport, p->dst, p->proto == 1 ? 0 : p->dport);
	if (c != NULL && c->hole == 0) {
		known = gm_session_out(w, c, &why);
	} else if (c != NULL) {
		h = gm_hole_of(w->m, c->hole);
		known = h != NULL;
		/* A claim that is dead may have been swept. */
		a->also = known && !gm_claim_lives(w->m, c, w->now) ? "service" : "";
		if (known)
			why = gm_hole_out(w, h);
	}
	if (known && why != NULL)
		return why;
	a->passed = known && c->hole != 0 ? "hole_out" : "session_out";
	if (known) {
		gm_rewrite(p, frame, n, false, w->ip, w->port, false, 0, a);
		return gm_route(&w->m->net, GM_INSIDE, p->dst, p->len, a);
	}
	if (gm_tenant_of(&w->m->net, p->src) < 0)
		return "spoofed";
	if (is_service(w->m, p))
		return "service";
	if (p->proto == 6 && (!p->syn || p->ack))
		return "tcp";
	if (p->dst >> 24 == 0 || p->dst >> 24 == 127 || p->dst >> 24 >= 224)
		return "nowhere";
	if (w->m->net.firewall && !gm_is_public(&w->m->net, p->src)) /* no answer would come through */
		return "not public";
	why = gm_route(&w->m->net, GM_INSIDE, p->dst, p->len, a);
	if (why == NULL)
		why = gm_session_new(w, sent, nsent);
	if (why != NULL)
		return why;
	gm_rewrite(p, frame, n, false, w->ip, w->port, false, 0, a);
	return gm_route(&w->m->net, GM_INSIDE, p->dst, p->len, a);
}

/* Who is known is told what the RFCs want told (RFC 1191, RFC 4787 REQ-13, RFC 1812 5.3.1). \return whether that is so. */
static bool told(const struct gm_way *w, enum gm_side side, const uint8_t *frame, const char *why, struct gm_answer *a)
{
	const struct gm_net *net = &w->m->net;
	const struct gm_packet *p = w->p;
	const uint32_t from = side == GM_OUTSIDE && !net->firewall ? p->dst : net->self_ip[side];

	/* RFC 1122 3.2.2: not about errors, not about what went to many. */
	if ((p->proto == 1 && p->icmp_type != 0 && p->icmp_type != 8) || p->dst >> 24 >= 224)
		return false;
	if (strcmp(why, "big") == 0 && p->df) {
		gm_tell(p, frame, from, 3, 4, net->mtu + (w->strip ? 16 : 0), a);
		a->passed = "too_big_told";
		return true;
	}
	if (strcmp(why, "ttl") == 0 && side == GM_INSIDE && gm_tenant_of(net, p->src) >= 0) {
		gm_tell(p, frame, from, 11, 0, 0, a);
		a->passed = "ttl";
		return true;
	}
	return false;
}

void gm_packet(struct gm_model *m, enum gm_side side, const uint8_t *frame, size_t n, uint64_t now, const uint8_t *sent, size_t nsent,
	       struct gm_answer *a)
{
	struct gm_packet p;
	struct gm_way w = {.m = m, .p = &p, .now = now};
	const char *why = gm_read(&m->net, side, frame, n, &p);

	m->broken = NULL;
	a->verdict = GM_OUT;
	a->n = 0;
	a->also = a->passed = "";
	if (why != NULL && strcmp(why, "arp") == 0) {
		a->verdict = GM_HOST;
		a->passed = "arp";
		why = NULL;
	} else if (why != NULL && strcmp(why, "nd") == 0) {
		a->verdict = GM_HOST;
		a->passed = "discovery";
		why = NULL;
	} else if (why == NULL) {
		why = side == GM_OUTSIDE ? from_outside(&w, frame, n, a) : from_inside(&w, frame, n, sent, nsent, a);
	}
	if (why != NULL)
		a->verdict = told(&w, side, frame, why, a) ? GM_BACK : GM_DROP;
	a->why = why != NULL ? why : "";
}
