/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ctl.h"
#include "base/log.h"
#include "gate/link.h"

enum question {
	STATUS,
	HOLES,
};

/* A request that waits for the writer's answer. */
struct waiting {
	struct waiting *next;
	enum question question;
	struct ctl_pending *client;
	json_t *answer; /* filled as records arrive */
};

struct gate_operator {
	struct gate_control *control;
	const struct gate_config *cfg;
	struct ctl_server *ctl;
	struct waiting *first, **end; /* the first one's question may be under way */
	bool asked;                   /* it is */
	bool more;                    /* part of a list has come, the next part is to be asked for */
	uint64_t start_ms;
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

/* Sizes that the packet path reports among its counters stand at the top. */
static void status_counter(json_t *a, const struct gate_ipc_counter *c)
{
	char name[sizeof(c->name)];
	bool top;

	memcpy(name, c->name, sizeof(name));
	name[sizeof(name) - 1] = 0;
	top = !c->is_drop && (strcmp(name, "holes") == 0 || strcmp(name, "flows") == 0 || strcmp(name, "mappings") == 0);
	set_number(top ? a : json_object_get(a, c->is_drop ? "drops" : "passed"), name, c->value);
}

static const char *tenant_of(const struct gate_config *cfg, const struct wn_addr *inside)
{
	for (unsigned t = 0; t < cfg->ntenant; t++)
		for (unsigned i = 0; i < cfg->tenant[t].nprefix; i++)
			if (wn_prefix_has(&cfg->tenant[t].prefix[i], inside))
				return cfg->tenant[t].name;
	return "";
}

static void hole(const struct gate_operator *o, json_t *list, const struct gate_reply *r)
{
	json_t *h = json_object();
	char buf[WN_ADDR_STR];

	set_number(h, "hole", r->hole);
	set_text(h, "tenant", tenant_of(o->cfg, &r->inside));
	set_text(h, "user", r->user);
	set_text(h, "protocol", r->proto == IPPROTO_TCP ? "tcp" : "udp");
	set_text(h, "inside", wn_addr_str(&r->inside, buf));
	set_text(h, "remote", wn_addr_str(&r->remote, buf));
	set_text(h, "public", wn_addr_str(&r->public, buf));
	json_object_set_new(h, "tag", json_boolean((r->flags & GATE_FLAG_TAG) != 0));
	set_number(h, "left_s", r->lifetime_s);
	set_number(h, "packets", r->packets);
	set_number(h, "bytes", r->bytes);
	json_array_append_new(list, h);
}

static void finish(struct gate_operator *o, const char *error)
{
	struct waiting *w = o->first;

	o->first = w->next;
	if (o->first == NULL)
		o->end = &o->first;
	o->asked = o->more = false;
	if (error != NULL) {
		json_decref(w->answer);
		w->answer = ctl_error("%s", error);
	} else if (w->question == STATUS) {
		status_link(o, w->answer);
	}
	ctl_answer(w->client, w->answer);
	free(w);
}

static json_t *on_request(const json_t *request, void *arg)
{
	struct gate_operator *o = arg;
	const char *cmd = json_string_value(json_object_get(request, "cmd"));
	struct waiting *w;

	if (strcmp(cmd, "status") != 0 && strcmp(cmd, "holes") != 0)
		return ctl_error("unknown command; the gate knows status and holes");
	w = calloc(1, sizeof(*w));
	if (w == NULL)
		return ctl_error("out of memory");
	w->question = strcmp(cmd, "status") == 0 ? STATUS : HOLES;
	w->answer = json_object();
	w->client = ctl_defer(o->ctl);
	if (w->client == NULL || w->answer == NULL) {
		json_decref(w->answer);
		if (w->client != NULL)
			ctl_answer(w->client, ctl_error("out of memory"));
		free(w);
		return NULL;
	}
	json_object_set_new(w->answer, "ok", json_true());
	if (w->question == STATUS)
		status_head(o, w->answer);
	else
		json_object_set_new(w->answer, "holes", json_array());
	*o->end = w;
	o->end = &w->next;
	gate_control_kick(o->control);
	return NULL;
}

bool gate_operator_ask(struct gate_operator *o, struct gate_ipc_request *out)
{
	if (o->first == NULL || o->asked)
		return false;
	memset(out, 0, sizeof(*out));
	out->token = GATE_TOKEN_OPERATOR;
	out->r.tenant = GATE_IPC_ALL;
	if (o->first->question == STATUS)
		out->kind = GATE_IPC_COUNTERS;
	else
		out->kind = o->more ? GATE_IPC_NEXT : GATE_IPC_LIST;
	o->asked = true;
	return true;
}

void gate_operator_answer(struct gate_operator *o, const struct gate_ipc_reply *a)
{
	struct waiting *w = o->first;

	if (w == NULL || !o->asked)
		return;
	if (a->kind == GATE_IPC_COUNTERS) {
		if (a->last)
			finish(o, NULL);
		else
			status_counter(w->answer, &a->counter);
		return;
	}
	if (a->r.status == GATE_OK)
		hole(o, json_object_get(w->answer, "holes"), &a->r);
	if (!a->last)
		return;
	if (a->r.status == GATE_OK) {
		o->asked = false;
		o->more = true;
	} else {
		finish(o, a->r.status == GATE_END ? NULL : "the gate could not walk its holes; see its log");
	}
}

int gate_operator_start(uv_loop_t *loop, struct gate_control *c, const struct gate_config *cfg, struct gate_operator **out)
{
	struct gate_operator *o = calloc(1, sizeof(*o));
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
	*out = o;
	return 0;
}

void gate_operator_stop(struct gate_operator *o)
{
	while (o->first != NULL)
		finish(o, "the gate is ending");
	ctl_close(o->ctl);
	free(o);
}
