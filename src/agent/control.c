/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_private.h"
#include "base/b64.h"
#include "base/clock.h"
#include "base/log.h"

#define CONFIRM_MS   2000u
#define SECRET_BYTES 32u
_Static_assert(B64URL_LEN(SECRET_BYTES) <= USER_SECRET_MAX, "a secret fits its record");

/* An answer that waits until the fronts have confirmed. */
struct waiting {
	struct ctl_pending *pending; /* NULL while the handler still runs */
	json_t *answer;
	bool done;
};

static void confirmed(unsigned n, unsigned of, void *arg)
{
	struct waiting *w = arg;

	json_object_set_new(w->answer, "fronts", json_pack("{s:i, s:i}", "confirmed", (int)n, "of", (int)of));
	w->done = true;
	if (w->pending == NULL)
		return;
	ctl_answer(w->pending, w->answer);
	free(w);
}

/* Takes the reference. Answers when all connected fronts hold the chain's head, or after two seconds. */
static json_t *answer_when_confirmed(struct agent *a, json_t *answer)
{
	struct waiting *w = calloc(1, sizeof(*w));
	uint64_t now = wn_now_ms();
	struct update_head head;

	if (w == NULL)
		return answer;
	w->answer = answer;
	agent_after_publish(a);
	chain_head(a->chain, &head);
	if (publish_wait(a->publish, now, head.seq, now + CONFIRM_MS, confirmed, w) < 0 || w->done) {
		free(w);
		return answer;
	}
	w->pending = ctl_defer(a->ctl);
	if (w->pending == NULL) {
		publish_forget(a->publish, w);
		free(w);
		return answer;
	}
	agent_after_publish(a); /* the deadline is on its clock */
	return NULL;
}

static const char *name_of(const json_t *request, const char *key)
{
	const char *name = json_string_value(json_object_get(request, key));

	return name != NULL && user_name_valid(span_str(name)) ? name : NULL;
}

static json_t *bad_name(void)
{
	return ctl_error("a user's name is 1 to 63 of A-Z a-z 0-9 . _ -");
}

/* "walnut1:" and base64url of JSON; wiped by the caller. */
static char *make_enrolment(const struct agent_config *cfg, const struct user_record *r)
{
	static const char prefix[] = "walnut1:";
	json_t *fronts = json_array(), *o;
	char text[WN_ADDR_STR], *json = NULL, *line = NULL;
	size_t n;

	for (unsigned i = 0; i < cfg->nenrol_fronts; i++)
		json_array_append_new(fronts, json_string(wn_addr_str(&cfg->enrol_fronts[i], text)));
	o = json_pack("{s:s, s:s, s:s, s:o, s:I}", "user", r->name, "domain", cfg->domain, "secret", r->secret, "fronts", fronts, "epoch_s",
		      (json_int_t)cfg->epoch_s);
	if (o != NULL)
		json = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	if (json == NULL)
		return NULL;
	n = strlen(json);
	line = malloc(sizeof(prefix) + B64URL_LEN(n));
	if (line != NULL) {
		memcpy(line, prefix, sizeof(prefix) - 1);
		line[sizeof(prefix) - 1 + b64url_encode((const uint8_t *)json, n, line + sizeof(prefix) - 1)] = '\0';
	}
	sodium_memzero(json, n);
	free(json);
	return line;
}

static json_t *store_error(const char *name, int rc)
{
	switch (rc) {
	case -EEXIST:
		return ctl_error("%s is there already; \"walnut user del %s\" first gives a new secret", name, name);
	case -ENOENT:
		return ctl_error("there is no user %s", name);
	case -ENOSPC:
		return ctl_error("the user database is full");
	default:
		return ctl_error("the user database failed: %s", strerror(-rc));
	}
}

static json_t *user_add(struct agent *a, const json_t *request)
{
	const json_t *md5 = json_object_get(request, "md5");
	const char *name = name_of(request, "name");
	uint8_t secret[SECRET_BYTES];
	struct user_record r = {0};
	json_t *answer = NULL;
	char *enrolment;
	int rc;

	if (name == NULL)
		return bad_name();
	if (md5 != NULL && !json_is_boolean(md5))
		return ctl_error("\"md5\" is true or false");
	span_cstr(span_str(name), r.name, sizeof(r.name));
	r.md5 = json_is_true(md5);
	r.created_unix_s = wn_unix_s();
	randombytes_buf(secret, sizeof(secret));
	b64url_encode(secret, sizeof(secret), r.secret);

	enrolment = make_enrolment(a->cfg, &r);
	rc = enrolment != NULL ? chain_add(a->chain, wn_unix_ms(), &r) : -ENOMEM;
	if (rc == 0) {
		wn_info("user %s added", name);
		answer = json_pack("{s:b, s:s}", "ok", 1, "enrolment", enrolment);
	}
	if (enrolment != NULL)
		sodium_memzero(enrolment, strlen(enrolment));
	free(enrolment);
	sodium_memzero(&r, sizeof(r));
	sodium_memzero(secret, sizeof(secret));
	if (rc < 0)
		return store_error(name, rc);
	return answer != NULL ? answer_when_confirmed(a, answer) : ctl_error("out of memory");
}

static json_t *user_del(struct agent *a, const json_t *request)
{
	const char *name = name_of(request, "name");
	unsigned closed;
	int rc;

	if (name == NULL)
		return bad_name();
	rc = chain_del(a->chain, wn_unix_ms(), name);
	if (rc < 0)
		return store_error(name, rc);
	closed = calls_close_user(a->calls, wn_now_ms(), name, CALLS_USER_DELETED);
	agent_after_calls(a);
	wn_info("user %s deleted, %u calls closed", name, closed);
	return answer_when_confirmed(a, json_pack("{s:b, s:i}", "ok", 1, "closed", (int)closed));
}

static int list_one(const struct user_record *r, void *arg)
{
	json_t *o = json_pack("{s:s, s:I}", "name", r->name, "created", (json_int_t)r->created_unix_s);

	return json_array_append_new(arg, o) < 0 ? -ENOMEM : 0;
}

static json_t *user_list(struct agent *a)
{
	json_t *users = json_array();
	int rc = user_store_each(a->store, list_one, users);

	if (rc < 0) {
		json_decref(users);
		return ctl_error("the user database failed: %s", strerror(-rc));
	}
	return json_pack("{s:b, s:o}", "ok", 1, "users", users);
}

struct session_list {
	json_t *array;
	uint64_t now_ms;
};

static void session_one(const struct call *k, void *arg)
{
	struct session_list *l = arg;
	char remote[WN_ADDR_STR], public[WN_ADDR_STR];
	json_t *o;

	if (k->remote.port != 0)
		wn_addr_str(&k->remote, remote);
	else
		wn_ip_str(&k->remote, remote);
	o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "user", k->user, "service", k->service != NULL ? k->service->name : "",
		      "protocol", k->proto == IPPROTO_TCP ? "tcp" : "udp", "state", call_state_name(k->state), "remote", remote, "public",
		      wn_addr_str(&k->public, public), "age_s", (json_int_t)((l->now_ms - k->began_ms) / 1000), "expires_s",
		      (json_int_t)(k->expires_ms > l->now_ms ? (k->expires_ms - l->now_ms) / 1000 : 0));
	json_array_append_new(l->array, o);
}

static json_t *sessions(struct agent *a)
{
	struct session_list l = {json_array(), wn_now_ms()};

	calls_each(a->calls, session_one, &l);
	return json_pack("{s:b, s:o}", "ok", 1, "sessions", l.array);
}

static json_t *kick(struct agent *a, const json_t *request)
{
	const char *name = name_of(request, "user");
	unsigned closed;

	if (name == NULL)
		return bad_name();
	closed = calls_close_user(a->calls, wn_now_ms(), name, CALLS_KICKED);
	agent_after_calls(a);
	return json_pack("{s:b, s:i}", "ok", 1, "closed", (int)closed);
}

static json_t *fronts_status(struct agent *a)
{
	json_t *list = json_array();
	char text[WN_ADDR_STR];

	for (unsigned i = 0; i < a->cfg->nfronts; i++) {
		struct update_head held = {0};
		bool on = a->fronts != NULL && fronts_registered(a->fronts, i);

		publish_held(a->publish, i, &held);
		json_array_append_new(list, json_pack("{s:s, s:b, s:I}", "address", wn_addr_str(&a->cfg->fronts[i].addr, text), "connected",
						      on, "seq", (json_int_t)held.seq));
	}
	return list;
}

static json_t *link_status(struct agent *a)
{
	uint64_t sip = 0, feed = 0, beats = 0, control = 0, gate_beats = 0;

	if (a->fronts != NULL)
		fronts_bytes(a->fronts, &sip, &feed, &beats);
	if (a->grants != NULL)
		grants_bytes(a->grants, &control, &gate_beats);
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "sip_bytes", (json_int_t)sip, "feed_bytes", (json_int_t)feed, "heartbeat_bytes",
			 (json_int_t)beats, "gate_bytes", (json_int_t)control, "gate_heartbeat_bytes", (json_int_t)gate_beats);
}

static json_t *status(struct agent *a)
{
	json_t *counters = json_object();
	struct update_head head;

	for (unsigned i = 0; i < AGENT_COUNTERS_END; i++)
		json_object_set_new(counters, agent_counter_name((enum agent_counter)i), json_integer((json_int_t)a->counters.n[i]));
	chain_head(a->chain, &head);
	return json_pack("{s:b, s:s, s:s, s:s, s:I, s:o, s:{s:b}, s:I, s:{s:I, s:I}, s:i, s:I, s:o, s:o}", "ok", 1, "role", "agent",
			 "version", WALNUT_VERSION, "domain", a->cfg->domain, "uptime_s",
			 (json_int_t)((wn_now_ms() - a->started_ms) / 1000), "fronts", fronts_status(a), "gate", "connected",
			 a->grants != NULL && grants_connected(a->grants), "users", (json_int_t)user_store_count(a->store), "feed", "seq",
			 (json_int_t)head.seq, "epoch", (json_int_t)chain_epoch(a->chain, wn_unix_ms()), "calls", (int)calls_live(a->calls),
			 "calls_total", (json_int_t)calls_total(a->calls), "counters", counters, "link", link_status(a));
}

json_t *agent_control(const json_t *request, void *arg)
{
	struct agent *a = arg;
	const char *cmd = json_string_value(json_object_get(request, "cmd"));

	if (strcmp(cmd, "status") == 0)
		return status(a);
	if (strcmp(cmd, "user-add") == 0)
		return user_add(a, request);
	if (strcmp(cmd, "user-del") == 0)
		return user_del(a, request);
	if (strcmp(cmd, "user-list") == 0)
		return user_list(a);
	if (strcmp(cmd, "sessions") == 0)
		return sessions(a);
	if (strcmp(cmd, "kick") == 0)
		return kick(a, request);
	return ctl_error("unknown command \"%s\"; status, user-add, user-del, user-list, sessions and kick are known", cmd);
}
