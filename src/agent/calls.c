/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/calls.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/call_sip.h"
#include "agent/calls_private.h"
#include "base/log.h"

#define ANSWER_TIMEOUT_MS (64u * SIP_T1_MS)
#define BYE_TIMEOUT_MS    8000u /* the hole is closed already: the BYE is a courtesy */

static const char *const state_names[CALL_STATES] = {
	[CALL_NEW] = "new",         [CALL_OPENING] = "opening", [CALL_ANSWERED] = "answered", [CALL_CONFIRMED] = "confirmed",
	[CALL_CLOSING] = "closing", [CALL_ENDED] = "ended",
};

/* allowed[from] has a bit for each state that may follow. */
#define BIT(s) (1u << (s))
static const unsigned allowed[CALL_STATES] = {
	[CALL_NEW] = BIT(CALL_OPENING) | BIT(CALL_CONFIRMED) | BIT(CALL_ENDED),
	[CALL_OPENING] = BIT(CALL_OPENING) | BIT(CALL_ANSWERED) | BIT(CALL_ENDED),
	[CALL_ANSWERED] = BIT(CALL_ANSWERED) | BIT(CALL_OPENING) | BIT(CALL_CONFIRMED) | BIT(CALL_CLOSING) | BIT(CALL_ENDED),
	[CALL_CONFIRMED] = BIT(CALL_ANSWERED) | BIT(CALL_OPENING) | BIT(CALL_CLOSING) | BIT(CALL_ENDED),
	[CALL_CLOSING] = BIT(CALL_ENDED),
	[CALL_ENDED] = 0,
};

const char *call_state_name(enum call_state s)
{
	return state_names[s];
}

void calls_rearm(struct calls *c, struct call *k, uint64_t now)
{
	uint64_t due = UINT64_MAX;

	switch (k->state) {
	case CALL_OPENING:
		due = k->answered_ms + CALLS_GATE_TIMEOUT_MS; /* answered_ms: when it was asked */
		break;
	case CALL_ANSWERED:
		due = k->next_resend_ms < k->expires_ms ? k->next_resend_ms : k->expires_ms;
		break;
	case CALL_CONFIRMED:
		due = k->expires_ms;
		break;
	case CALL_CLOSING:
		due = k->next_resend_ms;
		break;
	case CALL_NEW:
	case CALL_ENDED:
	case CALL_STATES:
		break;
	}
	call_table_due(c->table, k, due > now ? due : now);
}

void calls_enter(struct calls *c, struct call *k, enum call_state to, uint64_t now, const char *why)
{
	assert((allowed[k->state] & BIT(to)) != 0);
	wn_debug("call of %s: %s -> %s: %s", k->user, state_names[k->state], state_names[to], why);

	if (k->state == CALL_NEW && to == CALL_CONFIRMED)
		wn_info("%s: hole of %s found at the gate", k->user, k->service != NULL ? k->service->name : "a former service");
	else if (to == CALL_ANSWERED && k->state == CALL_OPENING)
		wn_info("%s: accepted to %s", k->user, k->service->name);
	else if ((to == CALL_CLOSING || to == CALL_ENDED) && k->state != CALL_CLOSING && k->state != CALL_NEW)
		wn_info("%s: call to %s ended: %s", k->user, k->service != NULL ? k->service->name : "a former service", why);

	k->state = to;
	if (to == CALL_ENDED) {
		assert(k->hole == 0);
		call_table_remove(c->table, k);
		return;
	}
	calls_rearm(c, k, now);
}

void calls_close_hole(struct calls *c, struct call *k)
{
	if (k->hole == 0)
		return;
	c->ops->close(c->arg, k->hole);
	k->hole = 0;
	c->live--;
}

void calls_set_hole(struct calls *c, struct call *k, uint64_t hole)
{
	assert(k->hole == 0 && hole != 0);
	k->hole = hole;
	c->live++;
}

void calls_reply(struct calls *c, int front, const struct wn_addr *src, const struct sip_msg *m, unsigned status, const char *reason,
		 const char *extra)
{
	char buf[CALL_MESSAGE_MAX], tag[CALL_TAG_CHARS + 1];
	struct span out;

	/* A final answer outside a dialog needs a To-tag too; which one does not matter, as long as repeats carry the same. */
	calls_hash_tag(c, SPAN_LIT(""), m->call_id, m->from_tag, tag);
	out = call_build_status(m, src, status, reason, tag, extra, buf, sizeof(buf));
	if (out.p != NULL)
		c->ops->send(c->arg, front, false, out);
}

bool calls_reparse(const struct call_request *r, struct sip_msg *m)
{
	return r->raw != NULL && sip_parse(span_of(r->raw, r->n), true, m) == SIP_OK;
}

void calls_reply_waiting(struct calls *c, struct call *k, unsigned status, const char *reason, const char *extra)
{
	struct sip_msg m;

	if (calls_reparse(&k->waiting, &m))
		calls_reply(c, k->waiting.front, &k->waiting.src, &m, status, reason, extra);
	call_request_drop(&k->waiting);
}

static void keep_answer(struct call *k, struct span msg, int front)
{
	char *copy = malloc(msg.n);

	free(k->answer);
	k->answer = copy;
	k->answer_n = 0;
	k->answer_front = front;
	if (copy != NULL) {
		memcpy(copy, msg.p, msg.n);
		k->answer_n = msg.n;
	}
}

static void schedule_resend(struct call *k, uint64_t now, uint64_t interval)
{
	k->resend_ms = interval < SIP_T2_MS ? interval : SIP_T2_MS;
	k->next_resend_ms = now + k->resend_ms;
}

void calls_answer(struct calls *c, struct call *k, const struct sip_msg *m, int front, const struct wn_addr *src, uint64_t now,
		  const char *why)
{
	char buf[CALL_MESSAGE_MAX];
	struct span out = call_build_answer(m, src, k, c->cfg->domain, buf, sizeof(buf));

	if (out.p == NULL) {
		/* A request that could be kept is answered with less than it had; this is for what no client would send. */
		calls_reply(c, front, src, m, 513, "Message Too Large", NULL);
		calls_end(c, k, now, "answer too large");
		return;
	}
	keep_answer(k, out, front);
	k->front = front;
	k->answered_ms = now;
	schedule_resend(k, now, SIP_T1_MS);
	calls_enter(c, k, CALL_ANSWERED, now, why);
	c->ops->send(c->arg, front, false, out);
}

void calls_end(struct calls *c, struct call *k, uint64_t now, const char *why)
{
	if (k->state == CALL_OPENING)
		calls_abandon(c, k->cookie);
	if (k->waiting.raw != NULL)
		calls_reply_waiting(c, k, k->state == CALL_OPENING ? 403 : 481,
				    k->state == CALL_OPENING ? "Forbidden" : "Call/Transaction Does Not Exist", NULL);
	calls_close_hole(c, k);
	if (k->state == CALL_ANSWERED || k->state == CALL_CONFIRMED) {
		char buf[CALL_MESSAGE_MAX];
		struct span out = {NULL, 0};

		if (k->dialog != NULL)
			out = call_build_bye(k, c->cfg->domain, buf, sizeof(buf));
		if (out.p != NULL) {
			keep_answer(k, out, k->front);
			k->answered_ms = now;
			schedule_resend(k, now, SIP_T1_MS);
			calls_enter(c, k, CALL_CLOSING, now, why);
			c->ops->send(c->arg, k->front, true, out);
			return;
		}
	}
	calls_enter(c, k, CALL_ENDED, now, why);
}

static void due_now(struct calls *c, struct call *k, uint64_t now)
{
	switch (k->state) {
	case CALL_OPENING:
		count(c->counters, COUNT_refused_gate_timeout);
		calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 1\r\n");
		calls_abandon(c, k->cookie);
		calls_enter(c, k, CALL_ENDED, now, "the gate did not answer");
		return;
	case CALL_ANSWERED:
		if (now >= k->expires_ms) {
			count(c->counters, COUNT_ended_expired);
			calls_end(c, k, now, "expired");
			return;
		}
		if (now - k->answered_ms >= ANSWER_TIMEOUT_MS) {
			count(c->counters, COUNT_ended_no_ack);
			calls_end(c, k, now, "no ACK");
			return;
		}
		count(c->counters, COUNT_answer_resent);
		if (k->answer_n > 0)
			c->ops->send(c->arg, k->answer_front, false, span_of(k->answer, k->answer_n));
		schedule_resend(k, now, k->resend_ms * 2);
		break;
	case CALL_CONFIRMED:
		count(c->counters, COUNT_ended_expired);
		calls_end(c, k, now, "expired");
		return;
	case CALL_CLOSING:
		if (now - k->answered_ms >= BYE_TIMEOUT_MS) {
			calls_enter(c, k, CALL_ENDED, now, "no answer to BYE");
			return;
		}
		if (k->answer_n > 0)
			c->ops->send(c->arg, k->front, true, span_of(k->answer, k->answer_n));
		schedule_resend(k, now, k->resend_ms * 2);
		break;
	case CALL_NEW:
	case CALL_ENDED:
	case CALL_STATES:
		break;
	}
	calls_rearm(c, k, now);
}

uint64_t calls_tick(struct calls *c, uint64_t now_ms)
{
	struct call *k;

	while ((k = call_table_first_due(c->table)) != NULL && k->due_ms <= now_ms)
		due_now(c, k, now_ms);
	return k != NULL ? k->due_ms : UINT64_MAX;
}

unsigned calls_close_user(struct calls *c, uint64_t now_ms, const char *user, enum calls_reason why)
{
	struct call *k = call_table_next(c->table, NULL), *next;
	unsigned n = 0;

	for (; k != NULL; k = next) {
		next = call_table_next(c->table, k);
		if (strcmp(k->user, user) != 0 || k->state == CALL_CLOSING)
			continue;
		count(c->counters, why == CALLS_KICKED ? COUNT_ended_kicked : COUNT_ended_user_deleted);
		calls_end(c, k, now_ms, why == CALLS_KICKED ? "kicked" : "user deleted");
		n++;
	}
	return n;
}

void calls_response(struct calls *c, uint64_t now_ms, const struct sip_msg *m)
{
	/* We were From: the client's tag is in To. */
	uint64_t hash = calls_hash_dialog(c, m->call_id, m->to_tag);
	struct call *k = call_table_by_dialog(c->table, hash, NULL);

	for (; k != NULL; k = call_table_by_dialog(c->table, hash, k)) {
		if (k->state == CALL_CLOSING && m->method == SIP_BYE && m->cseq == k->local_cseq &&
		    span_eq(m->from_tag, span_str(k->to_tag)))
			break;
	}
	if (k == NULL) {
		count(c->counters, COUNT_unexpected_response);
		return;
	}
	if (m->status >= 200)
		calls_enter(c, k, CALL_ENDED, now_ms, "BYE answered");
}

unsigned calls_live(const struct calls *c)
{
	return c->live;
}

uint64_t calls_total(const struct calls *c)
{
	return c->total;
}

void calls_each(const struct calls *c, void (*cb)(const struct call *call, void *arg), void *arg)
{
	for (struct call *k = call_table_next(c->table, NULL); k != NULL; k = call_table_next(c->table, k)) {
		if (k->hole != 0)
			cb(k, arg);
	}
}

int calls_new(const struct agent_config *cfg, const uint8_t key[static ROUTE_KEY_BYTES], const struct calls_ops *ops, void *arg,
	      struct agent_counters *counters, struct calls **out)
{
	static const char label[] = "walnut/1 calls";
	struct calls *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (c == NULL)
		return -ENOMEM;
	rc = call_table_new(&c->table);
	if (rc < 0) {
		free(c);
		return rc;
	}
	c->cfg = cfg;
	c->ops = ops;
	c->arg = arg;
	c->counters = counters;
	crypto_generichash(c->keys[0], sizeof(c->keys), (const uint8_t *)label, sizeof(label) - 1, key, ROUTE_KEY_BYTES);
	*out = c;
	return 0;
}

void calls_free(struct calls *c)
{
	if (c == NULL)
		return;
	call_table_free(c->table);
	sodium_memzero(c, sizeof(*c));
	free(c);
}
