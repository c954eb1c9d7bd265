/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ctl.h"
#include "base/log.h"
#include "base/metrics_http.h"
#include "gate/link.h"
#include "gate/operator_json.h"

#define TRACE_ID_MAX ((1ull << 52) - 1) /* what every JSON reader takes as a whole number */

enum question {
	STATUS,
	HOLES,
	HOLE,
	OPEN,
	CLOSE,
	DRAIN,
	TRACE,
};

/* A request that waits for the writer's answer. */
struct waiting {
	struct waiting *next;
	enum question question;
	struct gate_ipc_request q;
	struct ctl_pending *client; /* or a scraper */
	struct wn_scrape *scrape;
	json_t *answer; /* filled as records arrive */
};

struct gate_operator {
	struct gate_control *control;
	const struct gate_config *cfg;
	struct ctl_server *ctl;
	struct wn_metrics *metrics;
	struct waiting *first, **end; /* the first one's question may be under way */
	bool asked;                   /* it is */
	bool more;                    /* part of a list has come, the next part is to be asked for */
	uint64_t start_ms;
	uint64_t trace_id, trace_until_ms; /* one trace at a time: they would share one budget of samples */
};

static void set_number(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void set_text(json_t *o, const char *key, const char *v)
{
	json_object_set_new(o, key, json_string(v));
}

static void status_head(const struct gate_operator *o, json_t *a)
{
	set_text(a, "role", "gate");
	set_text(a, "version", WALNUT_VERSION);
	set_number(a, "uptime_s", (wn_now_ms() - o->start_ms) / 1000);
	json_object_set_new(a, "drops", json_object());
	json_object_set_new(a, "passed", json_object());
	set_number(a, "holes", 0);
	set_number(a, "flows", 0);
	set_number(a, "next_hops", 0);
}

static void status_link(const struct gate_operator *o, json_t *a)
{
	const struct gate_link_stats *s = gate_control_stats(o->control);
	json_t *link = json_object(), *answers = json_object(), *tenants = json_array(), *t;

	set_number(link, "bytes", s->bytes);
	set_number(link, "heartbeat_bytes", s->heartbeat_bytes);
	json_object_set_new(a, "link", link);
	for (unsigned i = 0; i < GATE_STATUSES; i++)
		set_number(answers, gate_status_name((enum gate_status)i), s->answers[i]);
	json_object_set_new(a, "answers", answers);
	set_number(a, "refused_keys", s->refused);
	for (unsigned i = 0; i < o->cfg->ntenant; i++) {
		t = json_object();
		set_text(t, "name", o->cfg->tenant[i].name);
		set_number(t, "agents", s->agents[i]);
		json_array_append_new(tenants, t);
	}
	json_object_set_new(a, "tenants", tenants);
}

static void scrape_done(struct waiting *w, const char *error)
{
	char *text = NULL;
	size_t n = error == NULL ? gate_metrics_text(w->answer, &text) : 0;

	wn_metrics_answer(w->scrape, n > 0 ? text : NULL, n);
	free(text);
	json_decref(w->answer);
}

static void finish(struct gate_operator *o, const char *error)
{
	struct waiting *w = o->first;

	o->first = w->next;
	if (o->first == NULL)
		o->end = &o->first;
	o->asked = o->more = false;
	if (error == NULL && w->question == HOLE && json_object_get(w->answer, "hole") == NULL)
		error = gate_json_why(GATE_NO_HOLE);
	if (error == NULL && w->question == STATUS)
		status_link(o, w->answer);
	if (w->scrape != NULL) {
		scrape_done(w, error);
	} else {
		if (error != NULL) {
			json_decref(w->answer);
			w->answer = ctl_error("%s", error);
		}
		ctl_answer(w->client, w->answer);
	}
	sodium_memzero(&w->q, sizeof(w->q));
	free(w);
}

/* Goes to the end of the queue. */
static void enqueue(struct gate_operator *o, struct waiting *w)
{
	*o->end = w;
	o->end = &w->next;
	gate_control_kick(o->control);
}

static struct waiting *waiting_new(enum question question)
{
	struct waiting *w = calloc(1, sizeof(*w));

	if (w == NULL)
		return NULL;
	w->question = question;
	w->answer = json_object();
	if (w->answer == NULL) {
		free(w);
		return NULL;
	}
	json_object_set_new(w->answer, "ok", json_true());
	w->q.token = GATE_TOKEN_OPERATOR;
	return w;
}

static void waiting_free(struct waiting *w)
{
	sodium_memzero(&w->q, sizeof(w->q));
	json_decref(w->answer);
	free(w);
}

static json_t *ask_status(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	(void)request;
	w->q.kind = GATE_IPC_COUNTERS;
	status_head(o, w->answer);
	return NULL;
}

static json_t *ask_list(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	(void)o;
	w->q.kind = GATE_IPC_LIST;
	w->q.r.tenant = GATE_IPC_ALL;
	if (w->question == HOLE)
		return gate_json_hole_number(request, &w->q.r.hole);
	json_object_set_new(w->answer, "holes", json_array());
	return NULL;
}

static json_t *ask_open(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	w->q.kind = GATE_IPC_APPLY;
	return gate_json_open(o->cfg, request, &w->q.r, w->answer);
}

static json_t *ask_close(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	(void)o;
	w->q.kind = GATE_IPC_APPLY;
	w->q.r.op = GATE_CLOSE;
	w->q.r.tenant = GATE_IPC_ALL;
	return gate_json_hole_number(request, &w->q.r.hole);
}

static json_t *ask_drain(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	const json_t *on = json_object_get(request, "on");

	(void)o;
	if (!json_is_boolean(on))
		return ctl_error("on must be true or false");
	w->q.kind = GATE_IPC_DRAIN;
	w->q.on = json_is_true(on);
	json_object_set_new(w->answer, "draining", json_boolean(json_is_true(on)));
	return NULL;
}

/* A trace is a row of requests with one number, each of which prolongs it: it ends by itself when nobody asks any more. */
static json_t *ask_trace(struct gate_operator *o, const json_t *request, struct waiting *w)
{
	const uint64_t now_ms = wn_now_ms();
	const bool runs = o->trace_id != 0 && now_ms < o->trace_until_ms;
	const json_t *id = json_object_get(request, "id");
	json_t *error;

	w->q.kind = GATE_IPC_TRACE;
	error = gate_json_trace(request, &w->q.trace);
	if (error != NULL)
		return error;
	if (id != NULL && (!runs || (uint64_t)json_integer_value(id) != o->trace_id))
		return ctl_error("this trace has ended; begin another");
	if (id == NULL && runs)
		return ctl_error("another trace runs; end it first");
	if (id == NULL) {
		do
			randombytes_buf(&o->trace_id, sizeof(o->trace_id));
		while ((o->trace_id &= TRACE_ID_MAX) == 0);
		w->q.trace.fresh = 1;
	}
	o->trace_until_ms = now_ms + GATE_TRACE_LEASE_MS;
	set_number(w->answer, "id", o->trace_id);
	json_object_set_new(w->answer, "samples", json_array());
	if (json_is_true(json_object_get(request, "stop"))) {
		w->q.trace.per_s = 0;
		o->trace_id = 0;
	}
	return NULL;
}

static const struct {
	const char *cmd;
	enum question question;
	json_t *(*ask)(struct gate_operator *o, const json_t *request, struct waiting *w);
} command[] = {
	{"status", STATUS, ask_status}, {"holes", HOLES, ask_list},  {"hole", HOLE, ask_list},    {"open", OPEN, ask_open},
	{"close", CLOSE, ask_close},    {"drain", DRAIN, ask_drain}, {"trace", TRACE, ask_trace},
};

static json_t *on_request(const json_t *request, void *arg)
{
	struct gate_operator *o = arg;
	const char *cmd = json_string_value(json_object_get(request, "cmd"));
	struct waiting *w;
	json_t *error;
	size_t i = 0;

	while (i < sizeof(command) / sizeof(command[0]) && strcmp(cmd, command[i].cmd) != 0)
		i++;
	if (i == sizeof(command) / sizeof(command[0]))
		return ctl_error("unknown command; the gate knows status, holes, hole, open, close, drain and trace");
	w = waiting_new(command[i].question);
	if (w == NULL)
		return ctl_error("out of memory");
	error = command[i].ask(o, request, w);
	if (error == NULL) {
		w->client = ctl_defer(o->ctl);
		if (w->client == NULL)
			error = ctl_error("out of memory");
	}
	if (error != NULL) {
		waiting_free(w);
		return error;
	}
	enqueue(o, w);
	return NULL;
}

static void on_scrape(struct wn_scrape *s, void *arg)
{
	struct gate_operator *o = arg;
	struct waiting *w = waiting_new(STATUS);

	if (w == NULL) {
		wn_metrics_answer(s, NULL, 0);
		return;
	}
	ask_status(o, NULL, w);
	w->scrape = s;
	enqueue(o, w);
}

bool gate_operator_ask(struct gate_operator *o, struct gate_ipc_request *out)
{
	struct waiting *w = o->first;

	if (w == NULL || o->asked)
		return false;
	*out = w->q;
	if (w->question == OPEN)
		sodium_memzero(w->q.r.key, sizeof(w->q.r.key));
	if (o->more)
		out->kind = GATE_IPC_NEXT;
	o->asked = true;
	return true;
}

/* Whoever reads the log should find what the operator has changed. */
static void log_change(const struct waiting *w, const struct gate_reply *r)
{
	char inside[WN_ADDR_STR], public[WN_ADDR_STR];

	wn_info("operator: hole %llu %s: %s %s at %s", (unsigned long long)r->hole, w->question == OPEN ? "opened" : "closed",
		r->proto == IPPROTO_TCP ? "tcp" : "udp", wn_addr_str(&r->inside, inside), wn_addr_str(&r->public, public));
}

static void answer_list(struct gate_operator *o, struct waiting *w, const struct gate_ipc_reply *a)
{
	if (a->r.status == GATE_OK && w->question == HOLE)
		json_object_set_new(w->answer, "hole", gate_json_hole(o->cfg, &a->r));
	else if (a->r.status == GATE_OK)
		json_array_append_new(json_object_get(w->answer, "holes"), gate_json_hole(o->cfg, &a->r));
	if (!a->last)
		return;
	if (a->r.status == GATE_OK) {
		o->asked = false;
		o->more = true;
	} else {
		finish(o, a->r.status == GATE_END ? NULL : "the gate could not walk its holes; see its log");
	}
}

void gate_operator_answer(struct gate_operator *o, const struct gate_ipc_reply *a)
{
	struct waiting *w = o->first;

	/* Every answer of the one question that is under way is of its kind. */
	if (w == NULL || !o->asked)
		return;
	switch (w->question) {
	case STATUS:
		if (a->last)
			finish(o, NULL);
		else
			gate_json_counter(w->answer, &a->counter);
		break;
	case HOLES:
	case HOLE:
		answer_list(o, w, a);
		break;
	case OPEN:
	case CLOSE:
		if (a->r.status == GATE_OK) {
			json_object_set_new(w->answer, "hole", gate_json_hole(o->cfg, &a->r));
			log_change(w, &a->r);
		}
		finish(o, gate_json_why((enum gate_status)a->r.status));
		break;
	case DRAIN:
		finish(o, gate_json_why((enum gate_status)a->r.status));
		break;
	case TRACE:
		if (a->last)
			finish(o, gate_json_why((enum gate_status)a->r.status));
		else
			json_array_append_new(json_object_get(w->answer, "samples"),
					      gate_json_dropped(o->cfg, &a->dropped, wn_unix_ms() - wn_now_ms()));
		break;
	}
}

int gate_operator_start(uv_loop_t *loop, struct gate_control *c, const struct gate_config *cfg, struct gate_operator **out)
{
	struct gate_operator *o = calloc(1, sizeof(*o));
	char where[WN_ADDR_STR];
	int rc;

	*out = NULL;
	if (o == NULL)
		return -ENOMEM;
	o->control = c;
	o->cfg = cfg;
	o->end = &o->first;
	o->start_ms = wn_now_ms();
	rc = ctl_listen(loop, cfg->socket, on_request, o, &o->ctl);
	if (rc < 0) {
		wn_err("cannot listen on %s (socket): %s%s", cfg->socket, strerror(-rc),
		       rc == -EADDRINUSE ? "; is walnut-gate running already?" : "");
		free(o);
		return rc;
	}
	if (cfg->metrics.port != 0) {
		rc = wn_metrics_listen(loop, &cfg->metrics, on_scrape, o, &o->metrics);
		if (rc < 0) {
			wn_err("cannot listen on %s (metrics): %s; it must be a free port of a loopback address",
			       wn_addr_str(&cfg->metrics, where), strerror(-rc));
			ctl_close(o->ctl);
			free(o);
			return rc;
		}
	}
	*out = o;
	return 0;
}

void gate_operator_stop(struct gate_operator *o)
{
	while (o->first != NULL)
		finish(o, "the gate is ending");
	if (o->metrics != NULL)
		wn_metrics_close(o->metrics);
	ctl_close(o->ctl);
	free(o);
}
