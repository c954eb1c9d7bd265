/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a frame of a session that the inside opens or has opened. */
#include <stdlib.h>
#include <string.h>

#include "gate_model_int.h"

struct gm_mapping *gm_mapping_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port)
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
	struct gm_mapping *p = gm_mapping_find(m, s->proto, s->inside_ip, s->inside_port);

	if (until >= s->expires && until - s->expires < rest(s))
		return;
	if (until >= s->expires && by->rst) /* RFC 7857 7.1 */
		return;
	s->expires = until;
	if (p != NULL && p->expires < until + GM_SLACK)
		p->expires = until + GM_SLACK;
}

const char *gm_session_in(struct gm_way *w)
{
	const struct gm_packet *p = w->p;
	struct gm_session *s = gm_session_find(w->m, p->proto, p->dst, p->dport, p->src, p->proto == 1 ? 0 : p->sport);
	const struct gm_mapping *map;

	if (s == NULL || w->now >= s->expires)
		return "closed";
	map = gm_mapping_find(w->m, p->proto, s->inside_ip, s->inside_port);
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

bool gm_session_out(struct gm_way *w, const struct gm_claim *c, const char **why)
{
	const struct gm_packet *p = w->p;
	struct gm_session *s = gm_session_find(w->m, p->proto, c->public_ip, c->public_port, c->remote_ip, c->remote_port);
	const struct gm_mapping *map = gm_mapping_find(w->m, p->proto, p->src, p->sport);

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
static struct gm_mapping *drawn(struct gm_way *w, const uint8_t *sent, size_t nsent)
{
	const struct gm_packet *p = w->p;
	struct gm_model *m = w->m;
	struct gm_mapping *map = gm_mapping_find(m, p->proto, p->src, p->sport);
	const bool lives = map != NULL && w->now < map->expires;
	uint32_t ip;
	uint16_t port;

	if (sent == NULL || nsent < 42) {
		m->broken = "a new session was dropped";
		return NULL;
	}
	ip = p->six ? p->src : be(sent + 26, 4); /* IPv6 is not translated: every byte of it is compared anyway */
	port = (uint16_t)(p->six ? p->sport : be(sent + (p->proto == 1 ? 38 : 34), 2));
	if (map != NULL && map->public_ip == ip && map->public_port == port)
		return map;
	if (lives) {
		m->broken = "a mapping that lives was left for another";
		return NULL;
	}
	if (m->net.firewall) { /* an end is its own mapping */
		if (ip != p->src || port != p->sport) {
			m->broken = "a firewall has translated";
			return NULL;
		}
	} else if (!gm_is_public(&m->net, ip) || (p->proto != 1 && (port < m->net.port_low || port > m->net.port_high)) ||
		   gm_taken(m, p->proto, ip, port, map, w->now)) {
		m->broken = "the public end of a new mapping cannot be";
		return NULL;
	}
	/* RFC 4787 REQ-2: one public address for all that an inside address sends. */
	for (const struct gm_mapping *o = m->mappings; o != NULL && !m->net.firewall; o = o->next) {
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

const char *gm_session_new(struct gm_way *w, const uint8_t *sent, size_t nsent)
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
	if (!gm_claim_take(w->m, &claim, w->now))
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
