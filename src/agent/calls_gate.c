/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>

#include "agent/call_sip.h"
#include "agent/calls_private.h"
#include "base/log.h"

static void refuse(struct calls *c, struct call *k, uint64_t now, const struct gate_reply *r)
{
	bool quota = r->status == GATE_QUOTA || r->status == GATE_FULL || r->status == GATE_NO_PORT || r->status == GATE_DRAINING;

	count(c->counters, quota ? COUNT_refused_gate_quota : COUNT_refused_gate_failed);
	wn_warn("the gate refused a hole for %s to %s: %s", k->user, k->service->name, gate_status_name(r->status));
	if (quota)
		calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 10\r\n");
	else
		calls_reply_waiting(c, k, 500, "Server Internal Error", NULL);
	calls_enter(c, k, CALL_ENDED, now, "refused by the gate");
}

void calls_opened(struct calls *c, uint64_t now_ms, uint64_t cookie, uint32_t generation, const struct gate_reply *r)
{
	struct call *k = call_table_by_cookie(c->table, cookie);
	struct sip_msg m;

	if (k == NULL || k->generation != generation || k->state != CALL_OPENING) {
		if (r->status == GATE_OK)
			c->ops->close(c->arg, r->hole);
		return;
	}
	if (r->status == GATE_OK && (r->hole == 0 || r->public.port == 0)) {
		count(c->counters, COUNT_gate_unexpected);
		if (r->hole != 0)
			c->ops->close(c->arg, r->hole);
		refuse(c, k, now_ms, &(struct gate_reply){.status = GATE_FAILED});
		return;
	}
	if (r->status != GATE_OK) {
		refuse(c, k, now_ms, r);
		return;
	}
	calls_set_hole(c, k, r->hole);
	k->seen = true;
	k->public = r->public;
	k->expires_ms = now_ms + k->lifetime_s * 1000ull;
	if (!calls_reparse(&k->waiting, &m)) {
		calls_close_hole(c, k);
		calls_enter(c, k, CALL_ENDED, now_ms, "nobody waits");
		return;
	}
	c->total++;
	count(c->counters, COUNT_invite_accepted);
	/* The answer is built from bytes that the call owns: they go only after it is sent. */
	struct call_request w = k->waiting;
	memset(&k->waiting, 0, sizeof(k->waiting));
	calls_answer(c, k, &m, w.front, &w.src, now_ms, "hole opened");
	call_request_drop(&w);
}

void calls_renewed(struct calls *c, uint64_t now_ms, uint64_t cookie, const struct gate_reply *r)
{
	struct call *k = call_table_by_cookie(c->table, cookie);
	struct sip_msg m;

	if (k == NULL || !k->renewing)
		return;
	k->renewing = false;
	if (k->hole == 0 || (k->state != CALL_ANSWERED && k->state != CALL_CONFIRMED))
		return;
	if (r->status == GATE_OK) {
		count(c->counters, COUNT_renewed);
		k->expires_ms = now_ms + k->lifetime_s * 1000ull;
		if (calls_reparse(&k->waiting, &m)) {
			char buf[CALL_MESSAGE_MAX];
			struct call_request w = k->waiting;
			struct span out;

			memset(&k->waiting, 0, sizeof(k->waiting));
			if (m.method == SIP_INVITE) {
				calls_answer(c, k, &m, w.front, &w.src, now_ms, "refreshed");
			} else {
				out = call_build_renewed(&m, &w.src, k, c->cfg->domain, buf, sizeof(buf));
				if (out.p != NULL)
					c->ops->send(c->arg, w.front, false, out);
				calls_rearm(c, k, now_ms);
			}
			call_request_drop(&w);
		}
		return;
	}
	count(c->counters, COUNT_renew_failed);
	if (r->status == GATE_NO_HOLE) {
		k->hole = 0; /* nothing is left to close */
		c->live--;
		count(c->counters, COUNT_ended_hole_gone);
		calls_end(c, k, now_ms, "the hole is gone");
		return;
	}
	calls_reply_waiting(c, k, 500, "Server Internal Error", NULL);
}

void calls_gate_lost(struct calls *c, uint64_t now_ms)
{
	struct call *k = call_table_next(c->table, NULL), *next;

	for (; k != NULL; k = next) {
		next = call_table_next(c->table, k);
		if (k->state == CALL_OPENING) {
			count(c->counters, COUNT_refused_gate_down);
			calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 1\r\n");
			calls_abandon(c, k->cookie);
			calls_enter(c, k, CALL_ENDED, now_ms, "the gate was lost");
		} else if (k->renewing) {
			k->renewing = false;
			calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 1\r\n");
		}
	}
}

void calls_abandon(struct calls *c, uint64_t cookie)
{
	c->abandoned[c->abandoned_at] = cookie;
	c->abandoned_at = (c->abandoned_at + 1) % CALLS_ABANDONED;
}

static bool is_abandoned(const struct calls *c, uint64_t cookie)
{
	for (unsigned i = 0; i < CALLS_ABANDONED; i++) {
		if (c->abandoned[i] == cookie)
			return true;
	}
	return false;
}

void calls_list_begin(struct calls *c)
{
	for (struct call *k = call_table_next(c->table, NULL); k != NULL; k = call_table_next(c->table, k))
		k->seen = false;
}

static void adopt(struct calls *c, uint64_t now_ms, const struct gate_reply *r)
{
	struct call *k = call_table_add(c->table, r->cookie);

	if (k == NULL)
		return;
	memcpy(k->user, r->user, sizeof(k->user));
	k->user[sizeof(k->user) - 1] = '\0';
	for (unsigned i = 0; i < c->cfg->nservices; i++) {
		const struct agent_service *s = &c->cfg->services[i];

		if (s->proto == r->proto && wn_addr_eq(&s->inside, &r->inside)) {
			k->service = s;
			break;
		}
	}
	k->proto = r->proto;
	k->tag = (r->flags & GATE_FLAG_TAG) != 0;
	k->inside = r->inside;
	k->remote = r->remote;
	k->public = r->public;
	k->lifetime_s = c->cfg->hole_lifetime_s;
	k->front = -1;
	k->began_ms = now_ms;
	k->expires_ms = now_ms + r->lifetime_s * 1000ull;
	k->seen = true;
	call_table_set_dialog(c->table, k, CALLS_UNCLAIMED);
	calls_set_hole(c, k, r->hole);
	count(c->counters, COUNT_adopted);
	calls_enter(c, k, CALL_CONFIRMED, now_ms, "listed by the gate");
}

void calls_listed(struct calls *c, uint64_t now_ms, const struct gate_reply *r)
{
	struct call *k;

	if (r->hole == 0 || r->cookie == 0 || r->user[0] == '\0')
		return;
	k = call_table_by_cookie(c->table, r->cookie);
	if (k != NULL && k->hole == r->hole) {
		k->seen = true;
		return;
	}
	/* A second hole of a call that has one, one that was given up, one of a user who was deleted while nobody could close it. */
	if (k != NULL || is_abandoned(c, r->cookie) || !c->ops->user_known(c->arg, span_of(r->user, strnlen(r->user, GATE_USER_MAX)))) {
		c->ops->close(c->arg, r->hole);
		return;
	}
	adopt(c, now_ms, r);
}

void calls_list_end(struct calls *c, uint64_t now_ms)
{
	struct call *k = call_table_next(c->table, NULL), *next;

	memset(c->abandoned, 0, sizeof(c->abandoned));
	for (; k != NULL; k = next) {
		next = call_table_next(c->table, k);
		if (k->hole == 0 || k->seen)
			continue;
		k->hole = 0;
		c->live--;
		count(c->counters, COUNT_ended_hole_gone);
		calls_end(c, k, now_ms, "the gate has no such hole");
	}
}
