/* SPDX-License-Identifier: Apache-2.0 */
#include "front/relay.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"
#include "base/clock.h"
#include "base/log.h"
#include "sip/build.h"

#define CONN_BUFFER    (2u * SIP_MESSAGE_MAX)
#define ANSWER_MAX     4096
#define BOOT_BYTES     8
#define WATCH_MS       1000
#define TYPE_HEARTBEAT 4 /* where a feed message's type stands */

enum link_class { LINK_SIP, LINK_FEED, LINK_HEARTBEAT, LINK_CLASSES };

/* One connection of an agent. */
struct conn {
	struct front_relay *r;
	struct peer_conn *c;
	unsigned tenant;
	bool registered, closing;
	uint64_t heard_ms;
	size_t n;
	uint8_t buf[CONN_BUFFER];
};

struct tenant {
	struct conn *conn; /* the registered connection */
	struct front_agent **published;
	unsigned npublished;
	uint64_t since_ms;
	uint64_t refused; /* feed messages that were not applied */
	enum table_verdict last_refusal;
};

struct front_relay {
	uv_loop_t *loop;
	const struct front_config *config;
	struct front_shared *shared;
	struct front_snapshots *snapshots;
	struct peer_listener *listener;
	uv_async_t wake;
	uv_timer_t watch;
	unsigned open; /* connections and handles that have not ended */
	struct tenant *tenant;
	struct front_worker *const *worker;
	unsigned nworkers;
	uint64_t bytes[LINK_CLASSES];
	uint64_t dropped_to_agent, dropped_to_worker;
	char boot[2 * BOOT_BYTES + 1];
};

/* This connection is the tenant's no more: from now on its callers are told to come back, and those who wait at once. */
static void detach(struct conn *k)
{
	struct front_relay *r = k->r;

	if (r->tenant[k->tenant].conn != k)
		return;
	r->tenant[k->tenant].conn = NULL;
	atomic_store_explicit(&r->shared->tenant[k->tenant].connected, false, memory_order_release);
	for (unsigned i = 0; i < r->nworkers; i++)
		if (!front_worker_push(r->worker[i], k->tenant, span_of(NULL, 0)))
			r->dropped_to_worker++;
}

static void drop(struct conn *k, const char *why)
{
	if (k->closing)
		return;
	k->closing = true;
	wn_warn("agent of %s: %s; closing its connection", k->r->config->tenant[k->tenant].domain, why);
	detach(k);
	peer_close(k->c);
}

static void answer(struct conn *k, const struct sip_msg *m, unsigned status, const char *reason, json_t *body, enum link_class class)
{
	char buf[ANSWER_MAX];
	struct sip_buf b;
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;

	sip_buf_init(&b, buf, sizeof(buf));
	sip_put_response(&b, m, status, reason, SPAN_LIT("front"), peer_remote(k->c));
	sip_put_end(&b, text != NULL ? SPAN_LIT("application/json") : span_of(NULL, 0), span_str(text));
	if (!b.overflow && peer_send(k->c, buf, b.len) == 0)
		k->r->bytes[class] += b.len;
	free(text);
	json_decref(body);
}

static json_t *what_is_held(const struct front_relay *r, unsigned tenant, bool boot)
{
	struct table_state s;
	char hash[2 * UPDATE_HEAD_BYTES];
	json_t *j;

	user_table_state(r->shared->tenant[tenant].users, &s);
	hex_encode(s.head.hash, sizeof(s.head.hash), hash);
	j = json_pack("{s:I,s:s%}", "seq", (json_int_t)s.head.seq, "hash", hash, sizeof(hash));
	if (boot)
		json_object_set_new(j, "boot", json_string(r->boot));
	return j;
}

static int agent_from_json(const json_t *j, struct front_agent *out)
{
	const char *key = json_string_value(json_object_get(j, "route_key")), *name = json_string_value(json_object_get(j, "agent"));
	const json_t *services = json_object_get(j, "services"), *s;
	uint8_t raw[8];
	size_t i;

	if (key == NULL || name == NULL || !json_is_array(services) || json_array_size(services) > FRONT_SERVICES_MAX)
		return -EINVAL;
	if (b64url_decode(span_str(key), out->route_key, ROUTE_KEY_BYTES) != ROUTE_KEY_BYTES ||
	    b64url_decode(span_str(name), raw, sizeof(raw)) != (long)sizeof(raw))
		return -EINVAL;
	memcpy(&out->agent, raw, sizeof(raw));
	json_array_foreach(services, i, s)
	{
		if (!json_is_string(s) ||
		    span_cstr(span_of(json_string_value(s), json_string_length(s)), out->service[i], sizeof(out->service[i])) != 0)
			return -EINVAL;
		out->nservices++;
	}
	return 0;
}

/* Makes it what the workers see. Workers may hold the one before, so it stays; one that says the same again is used again. */
static int publish_agent(struct front_relay *r, unsigned tenant, const struct front_agent *said)
{
	struct tenant *t = &r->tenant[tenant];
	struct front_agent *a = NULL, **more;

	for (unsigned i = 0; i < t->npublished && a == NULL; i++)
		if (sodium_memcmp(t->published[i], said, sizeof(*said)) == 0)
			a = t->published[i];
	if (a == NULL) {
		a = malloc(sizeof(*a));
		more = realloc(t->published, (t->npublished + 1) * sizeof(*more)); /* NOLINT(bugprone-sizeof-expression) */
		if (more != NULL)
			t->published = more;
		if (a == NULL || more == NULL) {
			free(a);
			return -ENOMEM;
		}
		memcpy(a, said, sizeof(*a));
		t->published[t->npublished++] = a;
	}
	atomic_store_explicit(&r->shared->tenant[tenant].agent, a, memory_order_release);
	return 0;
}

static void handle_register(struct conn *k, const struct sip_msg *m)
{
	struct front_relay *r = k->r;
	struct tenant *t = &r->tenant[k->tenant];
	const char *domain = r->config->tenant[k->tenant].domain;
	struct front_agent *said = calloc(1, sizeof(*said));
	json_t *j = json_loadb(m->body.p != NULL ? m->body.p : "", m->body.n, JSON_REJECT_DUPLICATES, NULL);
	const char *name = json_string_value(json_object_get(j, "domain"));

	r->bytes[LINK_FEED] += m->raw.n;
	if (said == NULL) {
		answer(k, m, 500, "Server Internal Error", NULL, LINK_FEED);
	} else if (name == NULL || strcmp(name, domain) != 0 || agent_from_json(j, said) != 0) {
		wn_warn("agent of %s: its registration is not what was agreed", domain);
		answer(k, m, 400, "Bad Request", NULL, LINK_FEED);
	} else if (publish_agent(r, k->tenant, said) != 0) {
		answer(k, m, 500, "Server Internal Error", NULL, LINK_FEED);
	} else {
		struct conn *old = t->conn;

		answer(k, m, 200, "OK", what_is_held(r, k->tenant, true), LINK_FEED);
		if (old != k)
			wn_info("agent of %s: registered", domain);
		t->conn = k;
		t->since_ms = wn_now_ms();
		k->registered = true;
		atomic_store_explicit(&r->shared->tenant[k->tenant].connected, true, memory_order_release);
		if (old != NULL && old != k) {
			old->closing = true;
			peer_close(old->c);
		}
	}
	if (said != NULL)
		sodium_memzero(said, sizeof(*said));
	free(said);
	json_decref(j);
}

static void handle_publish(struct conn *k, const struct sip_msg *m)
{
	struct front_relay *r = k->r;
	struct tenant *t = &r->tenant[k->tenant];
	const struct front_tenant_config *cfg = &r->config->tenant[k->tenant];
	enum link_class class = m->body.n > TYPE_HEARTBEAT && m->body.p[TYPE_HEARTBEAT] == UPDATE_HEARTBEAT ? LINK_HEARTBEAT : LINK_FEED;
	enum table_verdict v;

	r->bytes[class] += m->raw.n;
	v = user_table_apply(r->shared->tenant[k->tenant].users, span_str(cfg->domain), cfg->signing_key, m->body);
	if (v == TABLE_OK && r->snapshots != NULL)
		front_snapshots_take(r->snapshots, k->tenant, m->body);
	if (v == TABLE_OK || v == TABLE_CURRENT) {
		answer(k, m, 200, "OK", what_is_held(r, k->tenant, false), class);
		return;
	}
	t->refused++;
	t->last_refusal = v;
	if (v == TABLE_GAP) {
		answer(k, m, 409, "Conflict", what_is_held(r, k->tenant, false), class);
		return;
	}
	wn_warn("feed of %s: a message was refused: %s", cfg->domain, table_verdict_name(v));
	json_t *body = what_is_held(r, k->tenant, false);
	json_object_set_new(body, "error", json_string(table_verdict_name(v)));
	answer(k, m, v == TABLE_NO_MEMORY ? 500 : 400, v == TABLE_NO_MEMORY ? "Server Internal Error" : "Bad Request", body, class);
}

static void handle(struct conn *k, const struct sip_msg *m)
{
	struct front_relay *r = k->r;

	if (m->request && m->method == SIP_REGISTER) {
		handle_register(k, m);
		return;
	}
	if (!k->registered) {
		drop(k, "a message before REGISTER");
		return;
	}
	if (m->request && m->method == SIP_PUBLISH) {
		handle_publish(k, m);
		return;
	}
	r->bytes[LINK_SIP] += m->raw.n;
	if (r->nworkers == 0)
		return;
	unsigned w = m->request ? 0 : front_branch_worker(m->via.branch) % r->nworkers;
	if (m->raw.n > FRONT_DATAGRAM_MAX || !front_worker_push(r->worker[w], k->tenant, m->raw))
		r->dropped_to_worker++;
}

void front_relay_forget(struct front_relay *r, unsigned tenant)
{
	if (r->tenant[tenant].conn != NULL)
		drop(r->tenant[tenant].conn, "configuration names it no more");
}

static void on_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct front_relay *r = arg;
	struct conn *k = malloc(sizeof(*k));

	if (k == NULL || atomic_load(&r->shared->tenant[pin].gone)) {
		free(k);
		peer_close(c);
		return;
	}
	k->r = r;
	k->c = c;
	k->tenant = pin;
	k->registered = k->closing = false;
	k->heard_ms = wn_now_ms();
	k->n = 0;
	peer_set_user(c, k);
	r->open++;
}

static void on_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct conn *k = peer_user(c);
	struct sip_msg m;

	(void)arg;
	if (k == NULL || k->closing)
		return;
	k->heard_ms = wn_now_ms();
	while (n > 0 && !k->closing) {
		size_t room = sizeof(k->buf) - k->n, take = n < room ? n : room, at = 0;
		enum sip_verdict v = SIP_OK;

		memcpy(k->buf + k->n, p, take);
		k->n += take;
		p += take;
		n -= take;
		while (at < k->n && !k->closing) {
			v = sip_parse(span_of(k->buf + at, k->n - at), true, &m);
			if (v == SIP_KEEPALIVE) {
				/* RFC 5626 4.4.1: a ping is two line ends, the answer one */
				if (peer_send(c, "\r\n", 2) == 0)
					k->r->bytes[LINK_HEARTBEAT] += 2 + m.consumed;
			} else if (v != SIP_OK) {
				break;
			} else {
				handle(k, &m);
			}
			if (m.consumed == 0)
				break;
			at += m.consumed;
		}
		if (v != SIP_OK && v != SIP_KEEPALIVE && v != SIP_INCOMPLETE) {
			drop(k, sip_verdict_name(v));
			k->n = 0;
			return;
		}
		k->n -= at;
		memmove(k->buf, k->buf + at, k->n);
		if (k->n == sizeof(k->buf)) {
			drop(k, "a message over 64 KiB");
			k->n = 0;
			return;
		}
	}
}

static void on_down(struct peer_conn *c, int reason, void *arg)
{
	struct front_relay *r = arg;
	struct conn *k = peer_user(c);

	if (k == NULL) {
		if (reason == -EACCES)
			wn_warn("a peer whose key is no agent's was refused");
		return;
	}
	if (r->tenant[k->tenant].conn == k) {
		detach(k);
		wn_warn("agent of %s: connection lost%s%s", r->config->tenant[k->tenant].domain, reason < 0 ? ": " : "",
			reason < 0 ? strerror(-reason) : "");
	}
	sodium_memzero(k->buf, k->n);
	free(k);
	r->open--;
}

/* From one worker to another, whose connection it is for. A number that is no worker's stood in another front's token. */
static void to_worker(struct front_relay *r, unsigned worker, struct span msg)
{
	if (worker >= r->nworkers || !front_worker_push(r->worker[worker], FRONT_RING_FLOW, msg))
		r->dropped_to_worker++;
}

static void on_wake(uv_async_t *h)
{
	struct front_relay *r = h->data;
	unsigned tenant;
	struct span msg;

	for (unsigned i = 0; i < r->nworkers; i++) {
		struct front_ring *box = front_worker_outbox(r->worker[i]);

		while (front_ring_peek(box, &tenant, &msg)) {
			struct conn *k = tenant < r->shared->ntenants ? r->tenant[tenant].conn : NULL;

			if (tenant >= FRONT_RING_FLOW)
				to_worker(r, tenant - FRONT_RING_FLOW, msg);
			else if (k != NULL && peer_send(k->c, msg.p, msg.n) == 0)
				r->bytes[LINK_SIP] += msg.n;
			else
				r->dropped_to_agent++;
			front_ring_next(box);
		}
	}
}

/* A peer whose network has gone says no goodbye; heartbeats would have come. */
static void on_watch(uv_timer_t *h)
{
	struct front_relay *r = h->data;
	uint64_t now = wn_now_ms();

	for (unsigned i = 0; i < r->config->ntenants; i++) {
		struct conn *k = r->tenant[i].conn;

		if (k != NULL && now - k->heard_ms > (uint64_t)r->config->feed_max_age_s * 1000)
			drop(k, "silent for too long");
	}
}

static void on_closed(uv_handle_t *h)
{
	((struct front_relay *)h->data)->open--;
}

int front_relay_new(uv_loop_t *loop, const struct front_relay_options *opt, struct front_relay **out)
{
	static const struct peer_events events = {.up = on_up, .data = on_data, .down = on_down};
	struct front_relay *r = calloc(1, sizeof(*r));
	struct peer_pin *pins = calloc(opt->config->ntenants, sizeof(*pins));
	struct peer_options popt = {.pins = pins, .npins = opt->config->ntenants, .max_connections = 4 * opt->config->ntenants + 16};
	uint8_t boot[BOOT_BYTES];
	int e = -ENOMEM;

	if (r == NULL || pins == NULL)
		goto fail;
	r->tenant = calloc(opt->config->ntenants, sizeof(*r->tenant));
	if (r->tenant == NULL)
		goto fail;
	r->loop = loop;
	r->config = opt->config;
	r->shared = opt->shared;
	r->snapshots = opt->snapshots;
	randombytes_buf(boot, sizeof(boot));
	hex_encode(boot, sizeof(boot), r->boot);
	for (unsigned i = 0; i < opt->config->ntenants; i++)
		pins[i] = opt->config->tenant[i].agent_pin;
	e = uv_async_init(loop, &r->wake, on_wake);
	if (e != 0)
		goto fail;
	uv_timer_init(loop, &r->watch);
	r->wake.data = r->watch.data = r;
	r->open = 2;
	uv_timer_start(&r->watch, on_watch, WATCH_MS, WATCH_MS);
	e = opt->config->has_agents ? peer_listen(loop, opt->identity, &opt->config->agents, &popt, &events, r, &r->listener) : 0;
	free(pins);
	if (e != 0)
		front_relay_free(r);
	else
		*out = r;
	return e;
fail:
	if (r != NULL)
		free(r->tenant);
	free(r);
	free(pins);
	return e;
}

void front_relay_set_workers(struct front_relay *r, struct front_worker *const *worker, unsigned n)
{
	r->worker = worker;
	r->nworkers = n;
}

void front_relay_notify(void *arg)
{
	uv_async_send(&((struct front_relay *)arg)->wake);
}

void front_relay_free(struct front_relay *r)
{
	if (r == NULL)
		return;
	r->nworkers = 0;
	if (r->listener != NULL)
		peer_listener_close(r->listener);
	for (unsigned i = 0; i < r->config->ntenants; i++)
		if (r->tenant[i].conn != NULL)
			peer_close(r->tenant[i].conn->c);
	uv_close((uv_handle_t *)&r->wake, on_closed);
	uv_close((uv_handle_t *)&r->watch, on_closed);
	for (unsigned i = 0; r->open > 0 && i < 1000; i++)
		uv_run(r->loop, UV_RUN_ONCE);
	for (unsigned i = 0; i < r->config->ntenants; i++) {
		atomic_store(&r->shared->tenant[i].agent, NULL);
		for (unsigned j = 0; j < r->tenant[i].npublished; j++) {
			sodium_memzero(r->tenant[i].published[j], sizeof(struct front_agent));
			free(r->tenant[i].published[j]);
		}
		free(r->tenant[i].published);
	}
	free(r->tenant);
	free(r);
}

static json_int_t age_s(const struct table_state *s)
{
	uint64_t now = wn_unix_ms();

	if (s->publisher_ms == 0)
		return -1;
	return now > s->publisher_ms ? (json_int_t)((now - s->publisher_ms) / 1000) : 0;
}

void front_relay_status(const struct front_relay *r, json_t *status)
{
	json_t *agents = json_array();
	json_int_t users = 0;
	struct table_state s;

	for (unsigned i = 0; i < r->config->ntenants; i++) {
		const struct tenant *t = &r->tenant[i];
		char addr[WN_ADDR_STR] = "";
		char hash[2 * UPDATE_HEAD_BYTES];

		user_table_state(r->shared->tenant[i].users, &s);
		users += (json_int_t)s.users;
		hex_encode(s.head.hash, sizeof(s.head.hash), hash);
		if (t->conn != NULL)
			wn_addr_str(peer_remote(t->conn->c), addr);
		json_array_append_new(agents, json_pack("{s:s,s:b,s:s,s:I,s:I,s:I,s:I,s:s%,s:I,s:s}", "domain", r->config->tenant[i].domain,
							"connected", t->conn != NULL, "address", addr, "users", (json_int_t)s.users, "seq",
							(json_int_t)s.head.seq, "epoch", (json_int_t)s.epoch, "age_s", age_s(&s), "hash",
							hash, sizeof(hash), "feed_refused", (json_int_t)t->refused, "feed_last_refusal",
							t->refused > 0 ? table_verdict_name(t->last_refusal) : ""));
		if (r->snapshots != NULL)
			json_object_set_new(json_array_get(agents, i), "disk_seq",
					    json_integer((json_int_t)front_snapshots_seq(r->snapshots, i)));
	}
	json_object_set_new(status, "agents", agents);
	json_object_set_new(status, "users", json_integer(users));
	user_table_state(r->shared->tenant[0].users, &s);
	json_object_set_new(status, "feed",
			    json_pack("{s:I,s:I,s:I}", "seq", (json_int_t)s.head.seq, "epoch", (json_int_t)s.epoch, "age_s", age_s(&s)));
	json_object_set_new(status, "link",
			    json_pack("{s:I,s:I,s:I}", "sip_bytes", (json_int_t)r->bytes[LINK_SIP], "feed_bytes",
				      (json_int_t)r->bytes[LINK_FEED], "heartbeat_bytes", (json_int_t)r->bytes[LINK_HEARTBEAT]));
	json_object_set_new(status, "relay",
			    json_pack("{s:I,s:I}", "dropped_to_agent", (json_int_t)r->dropped_to_agent, "dropped_to_worker",
				      (json_int_t)r->dropped_to_worker));
}

void front_relay_report(const struct front_relay *r, struct front_report *to)
{
	to->ntenants = r->config->ntenants;
	for (unsigned i = 0; i < to->ntenants; i++) {
		struct table_state s;

		user_table_state(r->shared->tenant[i].users, &s);
		to->tenant[i] = (struct front_report_tenant){.domain = r->config->tenant[i].domain,
							     .connected = r->tenant[i].conn != NULL,
							     .users = s.users,
							     .seq = s.head.seq,
							     .feed_refused = r->tenant[i].refused,
							     .feed_age_s = age_s(&s)};
	}
	to->link_sip_bytes = r->bytes[LINK_SIP];
	to->link_feed_bytes = r->bytes[LINK_FEED];
	to->link_heartbeat_bytes = r->bytes[LINK_HEARTBEAT];
	to->dropped_to_agent = r->dropped_to_agent;
	to->dropped_to_worker = r->dropped_to_worker;
}
