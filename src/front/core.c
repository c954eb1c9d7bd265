/* SPDX-License-Identifier: Apache-2.0 */
#include "front/core.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/b64.h"
#include "front/internal.h"

#define VIEW_MS   200u /* how old a worker's view of a tenant may be */
#define BUDGETS   65536u
#define CALLS_MAX (1u << 22)
#define FAILURES  16384u /* addresses and tokens that failed lately */

const char *front_outcome_name(enum front_outcome o)
{
	static const char *const name[] = {
#define X(n) [FRONT_##n] = #n,
		FRONT_OUTCOMES(X)
#undef X
	};
	return name[o];
}

void core_done(struct front_core *c, struct front_action *out, enum front_outcome o)
{
	out->outcome = o;
	/* one writer: a load and a store are enough, and cheaper than a locked addition */
	atomic_store_explicit(&c->count[o], atomic_load_explicit(&c->count[o], memory_order_relaxed) + 1, memory_order_relaxed);
}

const struct front_policy *core_policy(const struct front_core *c, unsigned tenant)
{
	return atomic_load_explicit(&c->sh->tenant[tenant].policy, memory_order_acquire);
}

const struct front_listener *core_listener(const struct front_core *c, uint64_t flow_id)
{
	unsigned i = front_flow_listener(flow_id);

	return &c->sh->listener[i < c->sh->nlisteners ? i : 0];
}

bool core_reaches(const struct front_core *c, unsigned tenant, unsigned hop)
{
	if (hop != FRONT_HOP_AGENT)
		return c->trunk[hop].up;
	return c->room && atomic_load_explicit(&c->sh->tenant[tenant].connected, memory_order_acquire);
}

const char *core_far_host(const struct front_core *c, const struct front_in *in, unsigned hop)
{
	return hop != FRONT_HOP_AGENT ? c->trunk[hop].host
	       : in->flow != NULL     ? core_listener(c, in->flow->id)->host
				      : c->sh->listener[0].host;
}

void core_note(struct front_core *c, const struct core_event *e)
{
	enum front_why_ring ring = front_why_ring_of(e->outcome, e->trusted);
	struct front_denial d;

	if (e->status >= 300)
		ring = e->trusted ? FRONT_WHY_PROVEN : FRONT_WHY_STRANGER;
	if (ring == FRONT_WHY_RINGS || !front_why_room(c->why, ring, e->now_ms))
		return;
	d.at_ms = e->now_ms;
	d.from = *e->from;
	d.tenant = e->outcome == FRONT_unknown_tenant ? FRONT_WHY_NOBODY : e->tenant;
	d.status = (uint16_t)e->status;
	d.outcome = (uint8_t)e->outcome;
	front_denial_names(&d, e->call_id, e->user);
	front_why_note(c->why, ring, &d);
}

static void view_refresh(struct front_core *c, unsigned tenant, uint64_t now_ms, uint64_t unix_s)
{
	const struct front_tenant *t = &c->sh->tenant[tenant];
	struct tenant_view *v = &c->view[tenant];
	struct table_state s;
	uint64_t age_s;
	struct sip_buf b;

	user_table_state(t->users, &s);
	v->seen_ms = now_ms;
	v->empty = s.publisher_ms == 0;
	v->rotates = s.epoch_s != 0;
	v->epoch = 0;
	if (v->rotates) {
		/* The publisher has sent its epoch's keys and the next one's: a clock that is off by more must not ask for others. */
		uint64_t mine = unix_s / s.epoch_s;
		v->epoch = mine < s.epoch ? s.epoch : mine > (uint64_t)s.epoch + 1 ? s.epoch + 1 : (uint32_t)mine;
	}
	age_s = unix_s > s.publisher_ms / 1000 ? unix_s - s.publisher_ms / 1000 : 0;
	v->stale = age_s > c->sh->feed_max_age_s;
	sip_buf_init(&b, v->realm, sizeof(v->realm));
	sip_printf(&b, "%s/%u", t->domain, v->epoch);
	v->realm_n = (uint16_t)b.len;
}

struct tenant_view *core_view(struct front_core *c, unsigned tenant, uint64_t now_ms, uint64_t unix_s)
{
	struct tenant_view *v = &c->view[tenant];

	if (v->realm_n == 0 || v->empty || now_ms - v->seen_ms >= VIEW_MS)
		view_refresh(c, tenant, now_ms, unix_s);
	return v;
}

bool core_tenant(const struct front_core *c, struct span uri, unsigned *tenant, struct sip_uri *parsed)
{
	if (sip_parse_uri(uri, parsed) != 0 || !span_caseeq(parsed->scheme, SPAN_LIT("sip")))
		return false;
	for (unsigned i = 0; i < c->sh->ntenants; i++) {
		if (!atomic_load_explicit(&c->sh->tenant[i].gone, memory_order_relaxed) &&
		    span_caseeq(parsed->host, span_str(c->sh->tenant[i].domain))) {
			*tenant = i;
			return true;
		}
	}
	return false;
}

uint64_t core_hash(const struct front_core *c, const struct span *piece, unsigned n)
{
	/* Each behind its length: no piece can spill into its neighbour. What is too long to be copied is hashed piece by piece. */
	uint64_t part[8], h;
	char flat[512];
	size_t at = 0;

	for (unsigned i = 0; i < n; i++) {
		if (piece[i].n > sizeof(flat) - at - 2 * (n - i))
			break;
		flat[at++] = (char)(piece[i].n >> 8);
		flat[at++] = (char)piece[i].n;
		if (piece[i].n > 0)
			memcpy(flat + at, piece[i].p, piece[i].n);
		at += piece[i].n;
		if (i + 1 < n)
			continue;
		crypto_shorthash((uint8_t *)&h, (const uint8_t *)flat, at, c->sh->boot_key);
		return h;
	}
	for (unsigned i = 0; i < n; i++)
		crypto_shorthash((uint8_t *)&part[i], (const uint8_t *)piece[i].p, piece[i].n, c->sh->boot_key);
	crypto_shorthash((uint8_t *)&h, (const uint8_t *)part, n * sizeof(part[0]), c->sh->boot_key);
	return h;
}

uint64_t core_token_key(struct span text)
{
	uint64_t key;

	memcpy(&key, text.p + text.n - sizeof(key), sizeof(key));
	return key * 0x9e3779b97f4a7c15u; /* characters spread badly */
}

struct span core_src_span(const struct wn_addr *a, char buf[18])
{
	memcpy(buf, a->ip, 16);
	memcpy(buf + 16, &a->port, 2);
	return span_of(buf, 18);
}

uint64_t core_exact(const struct front_core *c, const struct front_in *in)
{
	char src[18];
	const struct span piece[] = {in->raw, core_src_span(in->src, src)};

	return core_hash(c, piece, 2);
}

uint64_t core_branch(const struct front_core *c, const struct front_in *in)
{
	char src[18];
	const struct span piece[] = {in->m.via.branch, in->m.via.sent_by, core_src_span(in->src, src), in->m.call_id};

	return core_hash(c, piece, 4);
}

void core_to_tag(const struct front_core *c, const struct front_in *in, char tag[TAG_CHARS])
{
	char src[18];
	const struct span piece[] = {in->m.call_id, in->m.from_tag, in->m.via.branch, core_src_span(in->src, src)};
	uint64_t h = core_hash(c, piece, 4);

	hex_encode((const uint8_t *)&h, sizeof(h), tag);
}

static enum front_outcome verdict_outcome(enum sip_verdict v)
{
	switch (v) {
	case SIP_KEEPALIVE:
		return FRONT_keepalive;
	case SIP_NOT_SIP:
		return FRONT_first_bytes;
	case SIP_BAD_START_LINE:
	case SIP_BAD_VERSION:
	case SIP_BAD_URI:
		return FRONT_start_line;
	case SIP_TOO_LARGE:
		return FRONT_size;
	default:
		return FRONT_malformed;
	}
}

static bool only_line_ends(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] != '\r' && s.p[i] != '\n')
			return false;
	return s.n > 0;
}

static bool begins(struct span s, struct span with)
{
	return s.n >= with.n && memcmp(s.p, with.p, with.n) == 0;
}

static void request(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct sip_uri uri;
	struct span text;

	if (in->m.uri.n > FRONT_URI_MAX) {
		core_done(c, out, FRONT_start_line);
		return;
	}
	if (in->m.to_tag.p != NULL && dialog_is_plain(&in->m, &text)) {
		dialog_plain(c, in, text, out);
		return;
	}
	if (!core_tenant(c, in->m.uri, &in->tenant, &uri)) {
		core_done(c, out, FRONT_unknown_tenant);
		return;
	}
	if (in->m.method == SIP_CANCEL) {
		call_cancel(c, in, out);
		return;
	}
	if (in->m.method == SIP_ACK) {
		if (in->m.to_tag.p == NULL || call_ack(c, in) || sip_hdr_first(&in->m, SIP_HDR_ROUTE) == NULL)
			core_done(c, out, FRONT_ack_absorbed);
		else
			dialog_from_client(c, in, out);
		return;
	}
	if (in->m.to_tag.p != NULL) {
		switch (in->m.method) {
		case SIP_INVITE:
		case SIP_BYE:
		case SIP_UPDATE:
		case SIP_INFO:
			dialog_from_client(c, in, out);
			return;
		default:
			core_done(c, out, FRONT_method);
			return;
		}
	}
	if (in->m.method != SIP_INVITE)
		core_done(c, out, FRONT_method);
	else
		auth_invite(c, in, &uri, out);
}

int front_shared_init(struct front_shared *s, const struct wn_addr *listen)
{
	int r;

	if (sodium_init() < 0)
		return -ENOSYS;
	randombytes_buf(s->boot_key, sizeof(s->boot_key));
	randombytes_buf(s->hop_key, sizeof(s->hop_key));
	s->nlisteners = 0;
	front_shared_add_listener(s, FRONT_UDP, listen);
	r = budgets_new(BUDGETS, &s->budgets);
	for (unsigned i = 0; r == 0 && i < s->ntenants; i++)
		r = user_table_new(&s->tenant[i].users);
	if (r != 0)
		front_shared_fini(s);
	return r;
}

void front_shared_fini(struct front_shared *s)
{
	for (unsigned i = 0; i < s->ntenants; i++) {
		user_table_free(s->tenant[i].users);
		s->tenant[i].users = NULL;
	}
	budgets_free(s->budgets);
	s->budgets = NULL;
	sodium_memzero(s->boot_key, sizeof(s->boot_key));
	sodium_memzero(s->hop_key, sizeof(s->hop_key));
}

int front_shared_add_listener(struct front_shared *s, enum front_transport t, const struct wn_addr *addr)
{
	struct front_listener *l = &s->listener[s->nlisteners];

	if (s->nlisteners == FRONT_LISTENERS_MAX)
		return -ENOSPC;
	l->transport = t;
	l->addr = *addr;
	l->steer = NULL;
	wn_addr_str(addr, l->host);
	return (int)s->nlisteners++;
}

int front_shared_add_hop(struct front_shared *s, enum front_transport t, const struct wn_addr *addr)
{
	unsigned n = atomic_load_explicit(&s->nhops, memory_order_relaxed);
	struct front_hop *h = &s->hop[n + 1];

	for (unsigned i = 1; i <= n; i++)
		if (s->hop[i].transport == t && wn_addr_eq(&s->hop[i].addr, addr))
			return (int)i;
	if (n == FRONT_HOPS_MAX)
		return -ENOSPC;
	h->transport = t;
	h->addr = *addr;
	h->listener = 0;
	for (unsigned i = 0; i < s->nlisteners; i++) {
		if (s->listener[i].transport == t && wn_addr_is4(&s->listener[i].addr) == wn_addr_is4(addr)) {
			h->listener = i;
			break;
		}
	}
	atomic_store_explicit(&s->nhops, n + 1, memory_order_release);
	return (int)n + 1;
}

int front_core_new(struct front_shared *shared, unsigned worker, uint32_t calls, struct front_core **out)
{
	struct front_core *c;
	uint64_t all = calls;
	int r;

	if (worker >= FRONT_WORKERS_MAX)
		return -EINVAL;
	for (unsigned i = 0; calls == 0 && i < shared->ntenants; i++)
		all += atomic_load_explicit(&shared->tenant[i].policy, memory_order_acquire)->max_calls;
	if (all == 0)
		return -EINVAL;
	if (all > CALLS_MAX)
		all = CALLS_MAX;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return -ENOMEM;
	c->sh = shared;
	c->worker = worker;
	c->room = true;
	nonce_issuer_init(&c->issuer, shared->nonces);
	r = front_why_new(&c->why);
	c->view = calloc(shared->ntenants, sizeof(*c->view));
	if (c->view == NULL)
		r = -ENOMEM;
	if (r == 0)
		r = digest_ctx_new(&c->digest);
	if (r == 0)
		r = failures_new(FAILURES, &c->failures);
	if (r == 0)
		r = txn_table_new((uint32_t)all, randombytes_random(), &c->txns);
	if (r != 0)
		front_core_free(c);
	else
		*out = c;
	return r;
}

void front_core_free(struct front_core *c)
{
	if (c == NULL)
		return;
	txn_table_free(c->txns);
	failures_free(c->failures);
	digest_ctx_free(c->digest);
	free(c->view);
	front_why_free(c->why);
	free(c);
}

void core_clear(struct front_action *out)
{
	out->net_n = out->agent_n = 0;
	out->hop = FRONT_HOP_AGENT;
	out->order = 0;
	out->trusted = false;
}

bool core_worth_parsing(struct front_core *c, struct span in, struct front_action *out)
{
	if (in.n < FRONT_DATAGRAM_MIN || in.n > FRONT_DATAGRAM_MAX) {
		core_done(c, out, in.n <= 4 && only_line_ends(in) ? FRONT_keepalive : FRONT_size);
		return false;
	}
	if (in.p[0] < 'A' || in.p[0] > 'Z') {
		core_done(c, out, FRONT_first_bytes);
		return false;
	}
	return true;
}

void front_core_message(struct front_core *c, struct span in, const struct front_flow *from, uint64_t now_ms, uint64_t unix_s,
			struct front_action *out)
{
	struct front_in f;
	enum sip_verdict v;

	core_clear(out);
	if (!core_worth_parsing(c, in, out))
		return;
	v = sip_parse(in, front_flow_is_stream(from->id), &f.m);
	if (v != SIP_OK) {
		core_done(c, out, verdict_outcome(v));
		return;
	}
	f.raw = in;
	f.flow = from;
	f.src = &from->addr;
	f.now_ms = now_ms;
	f.unix_s = unix_s;
	f.tenant = 0;
	f.hop = FRONT_HOP_AGENT;
	f.proof = NULL;
	f.user = span_of(NULL, 0);
	if (f.m.request)
		request(c, &f, out);
	else
		dialog_response_from_client(c, &f, out);
	const struct core_event e = {out->outcome, out->trusted, 0, now_ms, f.src, f.tenant, f.m.call_id, f.user};
	core_note(c, &e);
}

static void response_from_service(struct front_core *c, struct front_in *in, struct front_action *out)
{
	const struct span branch = in->m.via.branch;
	uint8_t raw[8];
	uint64_t id;

	if (branch.n == sizeof(BRANCH_MAGIC) - 1 + 19 && branch.p[sizeof(BRANCH_MAGIC) - 1] == 't' &&
	    hex_decode(span_of(branch.p + sizeof(BRANCH_MAGIC) - 1 + 3, 16), raw, sizeof(raw)) == 0) {
		memcpy(&id, raw, sizeof(id));
		call_response(c, in, id, out);
	} else {
		dialog_response_from_service(c, in, out);
	}
}

void front_core_from_agent(struct front_core *c, unsigned tenant, struct span msg, uint64_t now_ms, uint64_t unix_s,
			   struct front_action *out)
{
	struct front_in f;

	core_clear(out);
	if (msg.n > FRONT_DATAGRAM_MAX || sip_parse(msg, true, &f.m) != SIP_OK) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	f.raw = msg;
	f.flow = NULL;
	f.src = NULL;
	f.now_ms = now_ms;
	f.unix_s = unix_s;
	f.tenant = tenant;
	f.hop = FRONT_HOP_AGENT;
	f.proof = NULL;
	if (f.m.request)
		dialog_from_agent(c, &f, out);
	else
		response_from_service(c, &f, out);
}

void front_core_from_hop(struct front_core *c, unsigned hop, struct span msg, uint64_t now_ms, uint64_t unix_s, struct front_action *out)
{
	struct front_in f;
	struct span text;

	core_clear(out);
	if (msg.n > FRONT_DATAGRAM_MAX || sip_parse(msg, c->sh->hop[hop].transport != FRONT_UDP, &f.m) != SIP_OK) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	f.raw = msg;
	f.flow = NULL;
	f.src = &c->sh->hop[hop].addr;
	f.now_ms = now_ms;
	f.unix_s = unix_s;
	f.tenant = 0;
	f.hop = hop;
	f.proof = NULL;
	if (!f.m.request)
		response_from_service(c, &f, out);
	else if (f.m.to_tag.p != NULL && dialog_is_plain(&f.m, &text))
		dialog_plain(c, &f, text, out);
	else
		core_done(c, out, FRONT_in_dialog_no_token);
}

void front_core_set_trunk(struct front_core *c, unsigned hop, const struct wn_addr *own)
{
	c->trunk[hop].up = own != NULL;
	if (own != NULL)
		wn_addr_str(own, c->trunk[hop].host);
}

void front_core_set_room(struct front_core *c, bool room)
{
	c->room = room;
}

uint64_t front_core_count(const struct front_core *c, enum front_outcome o)
{
	return atomic_load_explicit(&c->count[o], memory_order_relaxed);
}

const struct histogram *front_core_call_answer(const struct front_core *c)
{
	return &c->call_answer;
}

struct front_why *front_core_why(const struct front_core *c)
{
	return c->why;
}

uint32_t front_core_unsettled(const struct front_core *c)
{
	return txn_unsettled(c->txns);
}

uint32_t front_core_calls(const struct front_core *c)
{
	return txn_count(c->txns);
}

unsigned front_branch_worker(struct span branch)
{
	const size_t at = sizeof(BRANCH_MAGIC) - 1 + 1;
	uint8_t w;

	if (branch.n < at + 2 || !begins(branch, SPAN_LIT(BRANCH_MAGIC)) || hex_decode(span_of(branch.p + at, 2), &w, 1) != 0)
		return 0;
	return w < FRONT_WORKERS_MAX ? w : 0;
}
