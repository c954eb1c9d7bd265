/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/agent.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/agent_private.h"
#include "base/clock.h"
#include "base/log.h"

#define GATE_HEARTBEAT_MS 5000u

static void calls_due(uv_timer_t *t)
{
	agent_after_calls(t->data);
}

void agent_after_calls(struct agent *a)
{
	uint64_t now = wn_now_ms(), next = calls_tick(a->calls, now);

	if (!a->timers)
		return;
	if (next == UINT64_MAX)
		uv_timer_stop(&a->calls_timer);
	else
		uv_timer_start(&a->calls_timer, calls_due, next > now ? next - now : 0, 0);
}

static void publish_due(uv_timer_t *t)
{
	agent_after_publish(t->data);
}

void agent_after_publish(struct agent *a)
{
	uint64_t now = wn_now_ms(), next = publish_tick(a->publish, now, wn_unix_ms());

	if (a->timers)
		uv_timer_start(&a->publish_timer, publish_due, next > now ? next - now : 0, 0);
}

/* calls -> the world */

static void call_send(void *arg, int front, bool any, struct span msg)
{
	struct agent *a = arg;

	if (a->fronts != NULL)
		fronts_send(a->fronts, front, any, msg);
}

static int call_open(void *arg, const struct gate_request *r, uint32_t generation)
{
	struct agent *a = arg;

	return a->grants != NULL ? grants_open(a->grants, r, generation) : -ENOTCONN;
}

static int call_renew(void *arg, uint64_t cookie, uint64_t hole, uint32_t lifetime_s)
{
	struct agent *a = arg;

	return a->grants != NULL ? grants_renew(a->grants, cookie, hole, lifetime_s) : -ENOTCONN;
}

static void call_close(void *arg, uint64_t hole)
{
	struct agent *a = arg;

	if (a->grants != NULL)
		grants_close(a->grants, hole);
}

static bool call_user_known(void *arg, struct span user)
{
	struct agent *a = arg;
	struct user_record r;
	char name[USER_NAME_MAX + 1];
	bool known = span_cstr(user, name, sizeof(name)) == 0 && user_store_get(a->store, name, &r) == 0;

	sodium_memzero(&r, sizeof(r));
	return known;
}

static const struct calls_ops call_ops = {
	.send = call_send, .open = call_open, .renew = call_renew, .close = call_close, .user_known = call_user_known};

/* gate -> calls */

static void gate_opened(void *arg, uint64_t cookie, uint32_t generation, const struct gate_reply *r)
{
	struct agent *a = arg;

	calls_opened(a->calls, wn_now_ms(), cookie, generation, r);
	agent_after_calls(a);
}

static void gate_renewed(void *arg, uint64_t cookie, const struct gate_reply *r)
{
	struct agent *a = arg;

	calls_renewed(a->calls, wn_now_ms(), cookie, r);
	agent_after_calls(a);
}

static void gate_list_begin(void *arg)
{
	struct agent *a = arg;

	calls_list_begin(a->calls);
}

static void gate_listed(void *arg, const struct gate_reply *r)
{
	struct agent *a = arg;

	calls_listed(a->calls, wn_now_ms(), r);
}

static void gate_list_end(void *arg)
{
	struct agent *a = arg;

	calls_list_end(a->calls, wn_now_ms());
	agent_after_calls(a);
}

static void gate_lost(void *arg)
{
	struct agent *a = arg;

	calls_gate_lost(a->calls, wn_now_ms());
	agent_after_calls(a);
}

static const struct grants_events gate_events = {.opened = gate_opened,
						 .renewed = gate_renewed,
						 .list_begin = gate_list_begin,
						 .listed = gate_listed,
						 .list_end = gate_list_end,
						 .lost = gate_lost};

/* fronts -> calls and publish */

static void front_registered(void *arg, unsigned front, const struct update_head *held)
{
	struct agent *a = arg;

	publish_registered(a->publish, wn_now_ms(), wn_unix_ms(), front, held);
	agent_after_publish(a);
}

static void front_published(void *arg, unsigned front, enum publish_kind kind, unsigned status, const struct update_head *held)
{
	struct agent *a = arg;

	publish_answered(a->publish, wn_now_ms(), wn_unix_ms(), front, kind, status, held);
}

static void front_beat(void *arg, unsigned front)
{
	struct agent *a = arg;

	publish_heartbeat(a->publish, wn_unix_ms(), front);
}

static void front_lost(void *arg, unsigned front)
{
	struct agent *a = arg;

	publish_lost(a->publish, wn_now_ms(), front);
}

static void front_request(void *arg, unsigned front, const struct wn_addr *src, const struct sip_msg *m)
{
	struct agent *a = arg;

	calls_request(a->calls, wn_now_ms(), (int)front, src, m);
	agent_after_calls(a);
}

static void front_response(void *arg, unsigned front, const struct sip_msg *m)
{
	struct agent *a = arg;

	(void)front;
	calls_response(a->calls, wn_now_ms(), m);
	agent_after_calls(a);
}

static const struct fronts_events front_events = {.registered = front_registered,
						  .published = front_published,
						  .beat = front_beat,
						  .lost = front_lost,
						  .request = front_request,
						  .response = front_response};

/* publish -> fronts */

static int feed_send(void *arg, unsigned front, enum publish_kind kind, struct span message)
{
	struct agent *a = arg;

	return a->fronts != NULL ? fronts_publish(a->fronts, front, kind, message) : -ENOTCONN;
}

static const struct publish_ops feed_ops = {.send = feed_send};

int agent_open(uv_loop_t *loop, const struct agent_config *cfg, struct agent **out)
{
	struct agent *a;
	int rc;

	*out = NULL;
	if (sodium_init() < 0)
		return -EIO;
	a = calloc(1, sizeof(*a));
	if (a == NULL)
		return -ENOMEM;
	a->loop = loop;
	a->cfg = cfg;
	a->started_ms = wn_now_ms();

	rc = agent_secrets_load(cfg, &a->secrets);
	if (rc == 0)
		rc = peer_identity_load(cfg->keys, "agent", &a->id);
	if (rc == 0)
		rc = user_store_open(cfg->database, 0, &a->store);
	if (rc == 0)
		rc = chain_new(a->store, cfg->domain, cfg->epoch_s, a->secrets.sign, &a->chain);
	if (rc == 0)
		rc = publish_new(a->chain, cfg->nfronts, cfg->publish_keys_per_s, &feed_ops, a, &a->counters, &a->publish);
	if (rc == 0)
		rc = calls_new(cfg, a->secrets.route, &call_ops, a, &a->counters, &a->calls);
	if (rc == 0) {
		rc = ctl_listen(loop, cfg->socket, agent_control, a, &a->ctl);
		if (rc < 0)
			fprintf(stderr, "%s: cannot listen: %s\n", cfg->socket,
				rc == -EADDRINUSE ? "another agent answers there" : strerror(-rc));
	}
	if (rc < 0) {
		agent_free(a);
		return rc;
	}
	*out = a;
	return 0;
}

int agent_start(struct agent *a)
{
	int rc;

	uv_timer_init(a->loop, &a->calls_timer);
	uv_timer_init(a->loop, &a->publish_timer);
	a->calls_timer.data = a;
	a->publish_timer.data = a;
	a->timers = true;
	rc = grants_new(a->loop, a->id, &a->cfg->gate, GATE_HEARTBEAT_MS, &gate_events, a, &a->counters, &a->grants);
	if (rc == 0)
		rc = fronts_new(a->loop, a->cfg, a->secrets.route, a->id, &front_events, a, &a->counters, &a->fronts);
	agent_after_publish(a);
	return rc;
}

void agent_stop(struct agent *a)
{
	struct fronts *f = a->fronts;
	struct grants *g = a->grants;

	a->fronts = NULL;
	a->grants = NULL;
	if (f != NULL)
		fronts_stop(f);
	if (g != NULL)
		grants_stop(g);
	if (a->ctl != NULL)
		ctl_close(a->ctl);
	a->ctl = NULL;
	if (a->timers) {
		uv_close((uv_handle_t *)&a->calls_timer, NULL);
		uv_close((uv_handle_t *)&a->publish_timer, NULL);
	}
	a->timers = false;
}

void agent_free(struct agent *a)
{
	if (a == NULL)
		return;
	publish_free(a->publish);
	calls_free(a->calls);
	chain_free(a->chain);
	user_store_close(a->store);
	peer_identity_free(a->id);
	sodium_memzero(a, sizeof(*a));
	free(a);
}
