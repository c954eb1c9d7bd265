/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate_model_int.h"

void *gm_alloc(size_t n)
{
	void *p = calloc(1, n);

	if (p == NULL)
		abort();
	return p;
}

struct gm_model *gm_new(const struct gm_net *net)
{
	struct gm_model *m = gm_alloc(sizeof(*m));

	m->net = *net;
	return m;
}

#define FREE_ALL(head)                         \
	do {                                   \
		while ((head) != NULL) {       \
			void *gone = (head);   \
			(head) = (head)->next; \
			free(gone);            \
		}                              \
	} while (0)

static void hole_free(struct gm_hole *h)
{
	free(h->seen);
	free(h);
}

void gm_free(struct gm_model *m)
{
	if (m == NULL)
		return;
	while (m->holes != NULL) {
		struct gm_hole *h = m->holes;

		m->holes = h->next;
		hole_free(h);
	}
	FREE_ALL(m->sessions);
	FREE_ALL(m->mappings);
	FREE_ALL(m->claims);
	FREE_ALL(m->services);
	FREE_ALL(m->users);
	free(m);
}

int gm_tenant_of(const struct gm_net *net, uint32_t ip)
{
	for (unsigned t = 0; t < net->ntenants; t++)
		if ((ip ^ net->tenant[t].net) >> (32 - net->tenant[t].bits) == 0)
			return (int)t;
	return -1;
}

bool gm_is_public(const struct gm_net *net, uint32_t ip)
{
	for (unsigned i = 0; i < net->npublic; i++)
		if (net->public_ip[i] == ip)
			return true;
	return false;
}

struct gm_hole *gm_hole_of(const struct gm_model *m, uint64_t id)
{
	struct gm_hole *h;

	for (h = m->holes; h != NULL && h->id != id; h = h->next)
		;
	return h;
}

struct gm_session *gm_session_find(const struct gm_model *m, uint8_t proto, uint32_t public_ip, uint16_t public_port, uint32_t remote_ip,
				   uint16_t remote_port)
{
	struct gm_session *s;

	for (s = m->sessions; s != NULL; s = s->next)
		if (s->proto == proto && s->public_ip == public_ip && s->public_port == public_port && s->remote_ip == remote_ip &&
		    s->remote_port == remote_port)
			break;
	return s;
}

void gm_mapped(const struct gm_model *m, uint8_t proto, uint32_t inside_ip, uint16_t inside_port, uint32_t *ip, uint16_t *port)
{
	for (const struct gm_mapping *p = m->mappings; p != NULL; p = p->next) {
		if (p->proto == proto && p->inside_ip == inside_ip && p->inside_port == inside_port) {
			*ip = p->public_ip;
			*port = p->public_port;
		}
	}
}

bool gm_taken(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port, const struct gm_mapping *but, uint64_t now)
{
	for (const struct gm_hole *h = m->holes; h != NULL; h = h->next)
		if (h->proto == proto && h->public_ip == ip && h->public_port == port)
			return true;
	/* One that has expired may be gone, and its port another's. */
	for (const struct gm_mapping *p = m->mappings; p != NULL; p = p->next)
		if (p != but && now < p->expires && p->proto == proto && p->public_ip == ip && p->public_port == port)
			return true;
	return false;
}

bool gm_hole_idle(const struct gm_hole *h, uint64_t now)
{
	return h->idle != 0 && now > h->last && now - h->last > h->idle;
}

/* Nothing will ever pass again. */
static bool over(const struct gm_hole *h, uint64_t now)
{
	if (now >= h->expires)
		return true;
	if (h->proto == 6 && !h->bound)
		return now >= h->connect_by;
	if (h->closed != 0 && now > h->closed + GM_TRANSITORY)
		return true;
	return gm_hole_idle(h, now);
}

/* Whether another one waits for the first packet from the same address to the same service. */
static bool waits_with(const struct gm_hole *h, const struct gm_hole *o)
{
	return o != h && o->waits && o->proto == h->proto && o->inside_ip == h->inside_ip && o->inside_port == h->inside_port &&
	       o->remote_ip == h->remote_ip;
}

/* One that comes or goes has those crossed out that wait no more. */
static unsigned tidy(struct gm_model *m, const struct gm_hole *h)
{
	unsigned n = 0;

	for (struct gm_hole *o = m->holes; o != NULL; o = o->next) {
		if (!waits_with(h, o))
			continue;
		o->waits = !o->bound;
		n += o->waits;
	}
	return n;
}

static void drop_hole(struct gm_model *m, struct gm_hole *gone)
{
	struct gm_hole **at;

	tidy(m, gone);
	for (at = &m->holes; *at != gone; at = &(*at)->next)
		;
	*at = gone->next;
	hole_free(gone);
}

void gm_swept(struct gm_model *m, uint64_t now)
{
	struct gm_hole *next;

	for (struct gm_hole *h = m->holes; h != NULL; h = next) {
		next = h->next;
		if (over(h, now))
			drop_hole(m, h);
	}
}

static uint32_t ip4(const struct wn_addr *a)
{
	return (uint32_t)a->ip[12] << 24 | (uint32_t)a->ip[13] << 16 | (uint32_t)a->ip[14] << 8 | a->ip[15];
}

/* What OPEN must be answered, quotas apart. */
static enum gate_status may_open(const struct gm_model *m, const struct gate_request *r)
{
	const uint32_t inside = ip4(&r->inside), first = inside >> 24;

	if (gate_request_check(r) != 0 || r->tenant >= m->net.ntenants || wn_addr_is4(&r->inside) == m->net.six)
		return GATE_BAD_RECORD;
	if (first == 0 || first == 127 || first >= 224)
		return GATE_BAD_RECORD;
	if (gm_tenant_of(&m->net, inside) != (int)r->tenant || inside == m->net.control_ip ||
	    gm_is_public(&m->net, inside) != m->net.firewall)
		return GATE_NOT_YOURS;
	if (!(r->flags & GATE_FLAG_TAG)) {
		const uint32_t remote = ip4(&r->remote) >> 24;

		if (wn_addr_is4(&r->remote) == m->net.six || remote == 0 || remote == 127 || remote >= 224)
			return GATE_BAD_RECORD;
	}
	return GATE_OK;
}

static struct gm_user *user_of(struct gm_model *m, const struct gate_request *r)
{
	struct gm_user *u = m->users;

	if (r->user_bytes_per_s == 0 && r->user_packets_per_s == 0)
		return NULL;
	while (u != NULL && (u->tenant != r->tenant || strcmp(u->name, r->user) != 0))
		u = u->next;
	if (u == NULL) {
		u = gm_alloc(sizeof(*u));
		u->next = m->users;
		u->tenant = r->tenant;
		memcpy(u->name, r->user, sizeof(u->name));
		m->users = u;
	}
	/* The newest hole's word. */
	u->byte_cost = r->user_bytes_per_s != 0 ? GM_S * 65536 / r->user_bytes_per_s : 0;
	u->packet_cost = r->user_packets_per_s != 0 ? GM_S / r->user_packets_per_s : 0;
	return u;
}

/* A tagged hole that anybody may use is alone: no stranger's packet is held against key after key. */
static unsigned places(const struct gm_hole *h)
{
	return h->remote_ip == 0 ? 1 : 8;
}

static const char *opened(struct gm_model *m, const struct gate_request *r, const struct gate_reply *said, uint64_t now)
{
	const enum gate_status want = may_open(m, r);
	unsigned living = 0;
	struct gm_hole *h;
	struct gm_service *s;

	if (want != GATE_OK)
		return said->status == want ? NULL : "another status of OPEN";
	for (h = m->holes; h != NULL; h = h->next)
		living += h->tenant == r->tenant && !over(h, now);
	if (living >= m->net.tenant[r->tenant].quota)
		return said->status == GATE_QUOTA ? NULL : "more holes than the tenant may have";
	if (said->status != GATE_OK && !m->net.firewall)
		return "OPEN refused";
	h = gm_alloc(sizeof(*h));
	h->id = said->hole;
	h->tenant = r->tenant;
	h->proto = r->proto;
	h->tag = r->flags & GATE_FLAG_TAG;
	memcpy(h->key, r->key, sizeof(h->key));
	h->inside_ip = ip4(&r->inside);
	h->inside_port = r->inside.port;
	h->remote_ip = h->tag && !m->net.firewall ? 0 : ip4(&r->remote); /* a firewall finds the hole by it */
	h->remote_port = h->tag ? 0 : r->remote.port;
	h->public_ip = ip4(&said->public);
	h->public_port = said->public.port;
	h->opened = h->last = now;
	h->expires = now + r->lifetime_s * GM_S;
	h->connect_by = now + (r->connect_s != 0 ? r->connect_s : 10) * GM_S;
	h->idle = r->idle_s * GM_S;
	h->byte_cost = r->bytes_per_s != 0 ? GM_S * 65536 / r->bytes_per_s : 0;
	h->packet_cost = r->packets_per_s != 0 ? GM_S / r->packets_per_s : 0;
	h->syn_cost = GM_S / (r->syn_rate != 0 ? r->syn_rate : 5);
	if (m->net.firewall) {
		if (tidy(m, h) == places(h)) {
			hole_free(h);
			return said->status == GATE_NO_PORT ? NULL : "more wait for one address than may";
		}
		if (said->status != GATE_OK || h->public_ip != h->inside_ip || h->public_port != h->inside_port) {
			hole_free(h);
			return "OPEN refused, or translated";
		}
		h->waits = true;
	} else if (gm_taken(m, h->proto, h->public_ip, h->public_port, NULL, now) || !gm_is_public(&m->net, h->public_ip) ||
		   h->public_port < m->net.port_low || h->public_port > m->net.port_high || h->id == 0 || gm_hole_of(m, h->id) != NULL) {
		hole_free(h);
		return "the public end or the number of a hole cannot be";
	}
	h->user = user_of(m, r);
	h->next = m->holes;
	m->holes = h;
	s = gm_alloc(sizeof(*s));
	*s = (struct gm_service){.next = m->services, .proto = h->proto, .ip = h->inside_ip, .port = h->inside_port};
	m->services = s;
	return said->lifetime_s == r->lifetime_s ? NULL : "another lifetime";
}

const char *gm_apply(struct gm_model *m, const struct gate_request *r, const struct gate_reply *said, uint64_t now)
{
	struct gm_hole *h;
	enum gate_status want = GATE_OK;

	if (r->op == GATE_OPEN)
		return opened(m, r, said, now);
	h = gm_hole_of(m, r->hole);
	if (gate_request_check(r) != 0 || r->tenant >= m->net.ntenants)
		want = GATE_BAD_RECORD;
	else if (h == NULL)
		want = GATE_NO_HOLE;
	else if (h->tenant != r->tenant)
		want = GATE_NOT_YOURS;
	else if (over(h, now))
		want = GATE_NO_HOLE;
	if (said->status != want)
		return r->op == GATE_RENEW ? "another status of RENEW" : "another status of CLOSE";
	if (want == GATE_NO_HOLE && h != NULL)
		drop_hole(m, h);
	if (want != GATE_OK)
		return NULL;
	if (r->op == GATE_CLOSE)
		drop_hole(m, h);
	else
		h->expires = now + r->lifetime_s * GM_S;
	return NULL;
}

const char *gm_class(const char *reason)
{
	static const struct {
		const char *name, *class;
	} all[] = {{"truncated", "malformed"},
		   {"other_mac", "malformed"},
		   {"vlan", "malformed"},
		   {"ipv6", "malformed"},
		   {"ethertype", "malformed"},
		   {"ip_header", "malformed"},
		   {"ip_options", "malformed"},
		   {"fragment", "malformed"},
		   {"fragment_inside", "malformed"},
		   {"ip_source", "malformed"},
		   {"protocol", "malformed"},
		   {"l4_header", "malformed"},
		   {"l4_length", "malformed"},
		   {"tcp_flags", "malformed"},
		   {"ttl", "ttl"},
		   {"icmp_type", "icmp"},
		   {"icmp_unmatched", "icmp"},
		   {"not_public", "not public"},
		   {"no_hole", "closed"},
		   {"hole_expired", "closed"},
		   {"hole_idle", "closed"},
		   {"connect_late", "closed"},
		   {"no_session", "closed"},
		   {"session_expired", "closed"},
		   {"wrong_remote", "remote"},
		   {"tag_short", "tag"},
		   {"tag_long", "tag"},
		   {"tag_invalid", "tag"},
		   {"tag_replay", "replay"},
		   {"rate_bytes", "rate"},
		   {"rate_packets", "rate"},
		   {"reverse_clash", "clash"},
		   {"syn_rate", "syn rate"},
		   {"syn_data", "tcp"},
		   {"tcp_options", "tcp"},
		   {"tcp_state", "tcp"},
		   {"tcp_ack", "tcp"},
		   {"tcp_window", "tcp"},
		   {"tcp_rst", "tcp"},
		   {"tcp_no_session", "tcp"},
		   {"spoofed", "spoofed"},
		   {"service_port", "service"},
		   {"hairpin", "hairpin"},
		   {"to_host", "host"},
		   {"to_nowhere", "nowhere"},
		   {"no_route", "route"},
		   {"wrong_egress", "route"},
		   {"no_neighbour", "route"},
		   {"too_big", "big"},
		   {"nd_invalid", "malformed"},
		   {"nd_router", "malformed"},
		   {"mld", "malformed"},
		   {"ipv6_extension", "malformed"},
		   {"udp_checksum", "malformed"},
		   {"rate_user_bytes", "rate"},
		   {"rate_user_packets", "rate"}};

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(all[i].name, reason) == 0)
			return all[i].class;
	return reason;
}
