/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a frame. */
#include <stdlib.h>
#include <string.h>

#include "gate_model_int.h"

#define BURST     (GM_S / 4)
#define SYN_BURST GM_S

struct way {
	struct gm_model *m;
	const struct gm_packet *p;
	uint64_t now;
	uint32_t ip; /* the new end of ours */
	uint16_t port;
	bool strip;
	uint32_t keep;
};

static bool claim_is(const struct gm_claim *c, uint8_t proto, uint32_t ip, uint16_t port, uint32_t rip, uint16_t rport)
{
	return c->proto == proto && c->inside_ip == ip && c->inside_port == port && c->remote_ip == rip && c->remote_port == rport;
}

static struct gm_claim *claim_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port, uint32_t rip, uint16_t rport)
{
	struct gm_claim *c;

	for (c = m->claims; c != NULL && !claim_is(c, proto, ip, port, rip, rport); c = c->next)
		;
	return c;
}

static bool claim_lives(const struct gm_model *m, const struct gm_claim *c, uint64_t now)
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

/* First come, and whoever lives keeps it. */
static bool claim_take(struct gm_model *m, const struct gm_claim *want, uint64_t now)
{
	struct gm_claim *c = claim_find(m, want->proto, want->inside_ip, want->inside_port, want->remote_ip, want->remote_port), *next;

	if (c == NULL) {
		c = gm_alloc(sizeof(*c));
		*c = *want;
		c->next = m->claims;
		m->claims = c;
		return true;
	}
	if (c->hole == want->hole && c->public_ip == want->public_ip && c->public_port == want->public_port)
		return true;
	if (claim_lives(m, c, now))
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

	return claim_take(m, &want, now);
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

static const char *udp_in(struct way *w, struct gm_hole *h, const uint8_t *frame)
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

static const char *syn_in(struct way *w, struct gm_hole *h)
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
static bool segment(struct way *w, struct gm_hole *h, enum gm_side side)
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

static const char *handshake_in(struct way *w, struct gm_hole *h)
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

static const char *tcp_in(struct way *w, struct gm_hole *h)
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

static const char *hole_in(struct way *w, struct gm_hole *h, const uint8_t *frame)
{
	if (w->now >= h->expires)
		return "closed";
	if (!h->tag && (h->remote_ip != w->p->src || (h->remote_port != 0 && h->remote_port != w->p->sport)))
		return "remote";
	w->ip = h->inside_ip;
	w->port = h->inside_port;
	return h->proto == 17 ? udp_in(w, h, frame) : tcp_in(w, h);
}

static const char *answer_out(struct way *w, struct gm_hole *h)
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

static const char *hole_out(struct way *w, struct gm_hole *h)
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

static struct gm_mapping *mapping_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port)
{
	struct gm_mapping *p;

	for (p = m->mappings; p != NULL && !(p->proto == proto && p->inside_ip == ip && p->inside_port == port); p = p->next)
		;
	return p;
}

static uint64_t lifetime(const struct gm_session *s)
{
	switch (s->proto) {
	case 6: /* RFC 5382 REQ-5, RFC 7857 2.2 */
		return (s->tcp.state == GM_T_OPEN ? 7440 : 240) * GM_S;
	case 17: /* RFC 4787 REQ-5 */
		return (s->replied ? 300 : 120) * GM_S;
	default: /* RFC 5508 REQ-2 */
		return 60 * GM_S;
	}
}

/* An expiry is moved by no less than 1/32 of the lifetime, which is added so that no lifetime is ever shorter than the RFC's. */
static uint64_t rest(const struct gm_session *s)
{
	return lifetime(s) / 32;
}

static void touch(struct gm_model *m, struct gm_session *s, const struct gm_packet *by, uint64_t now)
{
	const uint64_t until = now + lifetime(s) + rest(s);
	struct gm_mapping *p = mapping_find(m, s->proto, s->inside_ip, s->inside_port);

	if (until >= s->expires && until - s->expires < rest(s))
		return;
	if (until >= s->expires && by->rst) /* RFC 7857 7.1 */
		return;
	s->expires = until;
	if (p != NULL && p->expires < until + GM_SLACK)
		p->expires = until + GM_SLACK;
}

static const char *session_in(struct way *w)
{
	const struct gm_packet *p = w->p;
	struct gm_session *s = gm_session_find(w->m, p->proto, p->dst, p->dport, p->src, p->proto == 1 ? 0 : p->sport);
	const struct gm_mapping *map;

	if (s == NULL || w->now >= s->expires)
		return "closed";
	map = mapping_find(w->m, p->proto, s->inside_ip, s->inside_port);
	if (map == NULL || map->public_ip != p->dst || map->public_port != p->dport)
		return "closed";
	if (p->proto == 6) {
		if (p->bad || !gm_tcp_session(&s->tcp, GM_OUTSIDE, p))
			return "tcp";
		touch(w->m, s, p, w->now);
	}
	s->replied = true;
	w->ip = s->inside_ip;
	w->port = s->inside_port;
	return NULL;
}

/* \return false: there is no such session any more. */
static bool session_out(struct way *w, const struct gm_claim *c, const char **why)
{
	const struct gm_packet *p = w->p;
	struct gm_session *s = gm_session_find(w->m, p->proto, c->public_ip, c->public_port, c->remote_ip, c->remote_port);
	const struct gm_mapping *map = mapping_find(w->m, p->proto, p->src, p->sport);

	if (s == NULL || s->inside_ip != p->src || s->inside_port != p->sport || w->now >= s->expires || map == NULL ||
	    map->public_ip != c->public_ip || map->public_port != c->public_port)
		return false;
	*why = NULL;
	if (p->proto == 6 && (p->bad || !gm_tcp_session(&s->tcp, GM_INSIDE, p))) {
		*why = "tcp";
		return true;
	}
	touch(w->m, s, p, w->now);
	w->ip = s->public_ip;
	w->port = s->public_port;
	return true;
}

static uint32_t be(const uint8_t *p, unsigned n)
{
	uint32_t v = 0;

	while (n-- > 0)
		v = v << 8 | *p++;
	return v;
}

/* The public end that was drawn, if it may be. */
static struct gm_mapping *drawn(struct way *w, const uint8_t *sent, size_t nsent)
{
	const struct gm_packet *p = w->p;
	struct gm_model *m = w->m;
	struct gm_mapping *map = mapping_find(m, p->proto, p->src, p->sport);
	const bool lives = map != NULL && w->now < map->expires;
	uint32_t ip;
	uint16_t port;

	if (sent == NULL || nsent < 42) {
		m->broken = "a new session was dropped";
		return NULL;
	}
	ip = be(sent + 26, 4);
	port = (uint16_t)be(sent + (p->proto == 1 ? 38 : 34), 2);
	if (map != NULL && map->public_ip == ip && map->public_port == port)
		return map;
	if (lives) {
		m->broken = "a mapping that lives was left for another";
		return NULL;
	}
	if (!gm_is_public(&m->net, ip) || (p->proto != 1 && (port < m->net.port_low || port > m->net.port_high)) ||
	    gm_taken(m, p->proto, ip, port, map, w->now)) {
		m->broken = "the public end of a new mapping cannot be";
		return NULL;
	}
	/* RFC 4787 REQ-2: one public address for all that an inside address sends. */
	for (const struct gm_mapping *o = m->mappings; o != NULL; o = o->next) {
		if (o->inside_ip == p->src && o->public_ip != ip) {
			m->broken = "an inside address has two public ones";
			return NULL;
		}
	}
	if (map == NULL) {
		map = gm_alloc(sizeof(*map));
		map->next = m->mappings;
		m->mappings = map;
		map->proto = p->proto;
		map->inside_ip = p->src;
		map->inside_port = p->sport;
	}
	map->public_ip = ip;
	map->public_port = port;
	map->expires = 0;
	return map;
}

static const char *session_new(struct way *w, const uint8_t *sent, size_t nsent)
{
	const struct gm_packet *p = w->p;
	struct gm_session *s, fresh = {.proto = p->proto, .inside_ip = p->src, .inside_port = p->sport, .remote_ip = p->dst};
	struct gm_claim claim = {.proto = p->proto, .inside_ip = p->src, .inside_port = p->sport, .remote_ip = p->dst};
	struct gm_mapping *map;

	if (p->bad)
		return "tcp";
	fresh.remote_port = claim.remote_port = p->proto == 1 ? 0 : p->dport;
	if (p->proto == 6)
		gm_tcp_open(&fresh.tcp, GM_INSIDE, p);
	fresh.expires = w->now + lifetime(&fresh) + rest(&fresh);
	map = drawn(w, sent, nsent);
	if (map == NULL)
		return "broken";
	if (map->expires < fresh.expires + GM_SLACK)
		map->expires = fresh.expires + GM_SLACK;
	fresh.public_ip = claim.public_ip = map->public_ip;
	fresh.public_port = claim.public_port = map->public_port;
	if (!claim_take(w->m, &claim, w->now))
		return "clash";
	s = gm_session_find(w->m, p->proto, fresh.public_ip, fresh.public_port, fresh.remote_ip, fresh.remote_port);
	if (s == NULL) {
		s = gm_alloc(sizeof(*s));
		fresh.next = w->m->sessions;
		w->m->sessions = s;
	} else {
		fresh.next = s->next;
	}
	*s = fresh;
	w->ip = fresh.public_ip;
	w->port = fresh.public_port;
	return NULL;
}

/* RFC 5927 4.1: what is quoted must be in flight. s sent it. */
static bool in_flight(const struct gm_tcp *t, uint32_t seq)
{
	/* Before the other end has said anything: the SYN, and what came with it. */
	const uint32_t from = t->end[GM_OUTSIDE].known ? t->end[GM_OUTSIDE].ack : t->end[GM_INSIDE].limit - 1;

	return !gm_before(seq, from) && !gm_before(t->end[GM_INSIDE].end, seq);
}

static bool error_in(struct way *w, const struct gm_quote *q)
{
	const struct gm_session *s;
	const struct gm_mapping *map;

	if (!gm_is_public(&w->m->net, q->src) || q->src != w->p->dst)
		return false;
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
	map = mapping_find(w->m, q->proto, s->inside_ip, s->inside_port);
	if (map == NULL || map->public_ip != q->src || map->public_port != q->sport)
		return false;
	w->ip = s->inside_ip;
	w->port = s->inside_port;
	return q->proto != 6 || in_flight(&s->tcp, q->seq);
}

static bool error_out(struct way *w, const struct gm_quote *q)
{
	const int tenant = gm_tenant_of(&w->m->net, w->p->src);
	const struct gm_claim *c;

	if (q->src != w->p->dst || gm_tenant_of(&w->m->net, q->dst) != tenant)
		return false;
	c = claim_find(w->m, q->proto, q->dst, q->dport, q->src, q->proto == 1 ? 0 : q->sport);
	if (c == NULL || !claim_lives(w->m, c, w->now))
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

static const char *error(struct way *w, enum gm_side side, const uint8_t *frame, size_t n, struct gm_answer *a)
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
	gm_rewrite_error(w->p, &q, frame, n, side == GM_OUTSIDE, w->ip, w->port, a);
	why = gm_route(&w->m->net, side, side == GM_OUTSIDE ? w->ip : w->p->dst, w->p->len, a);
	a->passed = "icmp_error";
	return why;
}

static const char *from_outside(struct way *w, const uint8_t *frame, size_t n, struct gm_answer *a)
{
	const struct gm_packet *p = w->p;
	struct gm_hole *h;
	const struct gm_mapping *map;
	const char *why;

	if (!gm_is_public(&w->m->net, p->dst))
		return "not public";
	if (is_error(p))
		return error(w, GM_OUTSIDE, frame, n, a);
	if (p->proto == 1 && p->icmp_type != 0)
		return "icmp";
	for (h = w->m->holes; h != NULL; h = h->next)
		if (h->proto == p->proto && h->public_ip == p->dst && h->public_port == p->dport)
			break;
	for (map = w->m->mappings; map != NULL; map = map->next)
		if (map->proto == p->proto && map->public_ip == p->dst && map->public_port == p->dport)
			break;
	if (h == NULL && (map == NULL || w->now >= map->expires)) {
		a->also = map != NULL && p->ttl <= 1 ? "ttl" : ""; /* who still holds the port is not seen from outside */
		return "closed";
	}
	if (p->ttl <= 1)
		return "ttl";
	a->passed = h != NULL ? "hole_in" : "session_in";
	why = h != NULL ? hole_in(w, h, frame) : session_in(w);
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

static const char *from_inside(struct way *w, const uint8_t *frame, size_t n, const uint8_t *sent, size_t nsent, struct gm_answer *a)
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
	c = claim_find(w->m, p->proto, p->src, p->sport, p->dst, p->proto == 1 ? 0 : p->dport);
	if (c != NULL && c->hole == 0) {
		known = session_out(w, c, &why);
	} else if (c != NULL) {
		h = gm_hole_of(w->m, c->hole);
		known = h != NULL;
		/* A claim that is dead may have been swept. */
		a->also = known && !claim_lives(w->m, c, w->now) ? "service" : "";
		if (known)
			why = hole_out(w, h);
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
	why = gm_route(&w->m->net, GM_INSIDE, p->dst, p->len, a);
	if (why == NULL)
		why = session_new(w, sent, nsent);
	if (why != NULL)
		return why;
	gm_rewrite(p, frame, n, false, w->ip, w->port, false, 0, a);
	return gm_route(&w->m->net, GM_INSIDE, p->dst, p->len, a);
}

/* Who is known is told what the RFCs want told (RFC 1191, RFC 4787 REQ-13, RFC 1812 5.3.1). \return whether that is so. */
static bool told(const struct way *w, enum gm_side side, const uint8_t *frame, const char *why, struct gm_answer *a)
{
	const struct gm_net *net = &w->m->net;
	const struct gm_packet *p = w->p;
	const uint32_t from = side == GM_OUTSIDE ? p->dst : net->control_ip;

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
	struct way w = {.m = m, .p = &p, .now = now};
	const char *why = gm_read(&m->net, side, frame, n, &p);

	m->broken = NULL;
	a->verdict = GM_OUT;
	a->n = 0;
	a->also = a->passed = "";
	if (why != NULL && strcmp(why, "arp") == 0) {
		a->verdict = GM_HOST;
		a->passed = "arp";
		why = NULL;
	} else if (why == NULL) {
		why = side == GM_OUTSIDE ? from_outside(&w, frame, n, a) : from_inside(&w, frame, n, sent, nsent, a);
	}
	if (why != NULL)
		a->verdict = told(&w, side, frame, why, a) ? GM_BACK : GM_DROP;
	a->why = why != NULL ? why : "";
}
