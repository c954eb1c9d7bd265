/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "agent/call_sip.h"
#include "agent/calls_private.h"
#include "agent/policy.h"
#include "base/b64.h"
#include "base/log.h"

#define LIFETIME_MIN_S 90u /* RFC 4028 section 5 */

static uint64_t hash(const uint8_t key[static crypto_shorthash_KEYBYTES], struct span a, struct span b, struct span c)
{
	uint8_t buf[3 * (CALL_NAME_MAX + 2)], out[crypto_shorthash_BYTES];
	struct span part[3] = {a, b, c};
	size_t n = 0;
	uint64_t h = 0;

	for (unsigned i = 0; i < 3; i++) {
		size_t len = part[i].n < CALL_NAME_MAX ? part[i].n : CALL_NAME_MAX;

		buf[n++] = (uint8_t)(len >> 8);
		buf[n++] = (uint8_t)len;
		if (len > 0)
			memcpy(buf + n, part[i].p, len);
		n += len;
	}
	crypto_shorthash(out, buf, n, key);
	for (unsigned i = 0; i < sizeof(out); i++)
		h = h << 8 | out[i];
	return h;
}

uint64_t calls_hash_cookie(const struct calls *c, struct span user, struct span call_id, struct span from_tag)
{
	uint64_t h = hash(c->keys[CALLS_KEY_COOKIE], user, call_id, from_tag);

	return h != 0 ? h : 1;
}

uint64_t calls_hash_dialog(const struct calls *c, struct span call_id, struct span from_tag)
{
	uint64_t h = hash(c->keys[CALLS_KEY_DIALOG], (struct span){NULL, 0}, call_id, from_tag);

	return h != 0 ? h : 1;
}

void calls_hash_tag(const struct calls *c, struct span user, struct span call_id, struct span from_tag, char out[static CALL_TAG_CHARS + 1])
{
	uint64_t h = hash(c->keys[CALLS_KEY_TAG], user, call_id, from_tag);
	uint8_t b[8];

	for (unsigned i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(h >> (56 - 8 * i));
	hex_encode(b, sizeof(b), out);
	out[CALL_TAG_CHARS] = '\0';
}

static bool names_fit(const struct sip_msg *m)
{
	return m->call_id.n > 0 && m->call_id.n <= CALL_NAME_MAX && m->from_tag.n > 0 && m->from_tag.n <= CALL_NAME_MAX;
}

static uint32_t lifetime_of(const struct calls *c, const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_SESSION_EXPIRES);
	unsigned long long asked;
	struct span s;
	const char *semi;

	if (h == NULL)
		return c->cfg->hole_lifetime_s;
	s = h->value;
	semi = memchr(s.p, ';', s.n);
	if (semi != NULL)
		s.n = (size_t)(semi - s.p);
	while (s.n > 0 && s.p[s.n - 1] == ' ')
		s.n--;
	if (span_u64(s, UINT32_MAX, &asked) < 0 || asked < LIFETIME_MIN_S || asked >= c->cfg->hole_lifetime_s)
		return c->cfg->hole_lifetime_s;
	return (uint32_t)asked;
}

/* What an INVITE asks for, decided. */
struct wish {
	struct call_identity id;
	struct policy_answer policy;
	uint8_t key[FLOW_KEY_BYTES]; /* of the tag */
};

static bool decide(struct calls *c, int front, const struct wn_addr *src, const struct sip_msg *m, struct wish *w)
{
	static const enum agent_counter counter_of[POLICY_VERDICTS] = {
		[POLICY_UNKNOWN_USER] = COUNT_refused_unknown_user, [POLICY_NO_SERVICE] = COUNT_refused_no_service,
		[POLICY_FORBIDDEN] = COUNT_refused_forbidden,       [POLICY_WRONG_PORT] = COUNT_refused_wrong_port,
		[POLICY_NO_MEDIA] = COUNT_refused_no_media,         [POLICY_NO_ADDRESS] = COUNT_refused_no_address,
	};
	struct policy_question q = {0};
	enum call_identity_verdict iv;
	enum policy_verdict pv;
	struct sip_uri uri;
	struct sdp offer;

	iv = call_identity_read(m, span_str(c->cfg->domain), &w->id);
	if (iv != CALL_IDENTITY_OK) {
		count(c->counters, iv == CALL_BAD_KEY ? COUNT_bad_key : iv == CALL_BAD_SOURCE ? COUNT_bad_source : COUNT_bad_identity);
		wn_warn("front %d sent an INVITE without a usable %s", front,
			iv == CALL_BAD_KEY      ? "session key"
			: iv == CALL_BAD_SOURCE ? "source"
						: "identity");
		calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return false;
	}
	q.user = w->id.user;
	q.user_known = c->ops->user_known(c->arg, w->id.user);
	q.auth_int = w->id.auth_int;
	q.source = w->id.source;
	if (sip_parse_uri(m->uri, &uri) == 0 && span_caseeq(uri.host, span_str(c->cfg->domain)))
		q.service = uri.user;
	if (sdp_parse(m->body, &offer) == 0)
		q.offer = &offer;
	pv = policy_decide(c->cfg, &q, &w->policy);
	if (pv != POLICY_OK) {
		count(c->counters, counter_of[pv]);
		wn_info("%.*s: refused: %s", (int)w->id.user.n, w->id.user.p, policy_verdict_name(pv));
		calls_reply(c, front, src, m, policy_status(pv), policy_reason(pv), NULL);
		return false;
	}
	if (w->policy.tag && flow_key_derive(w->id.key, 0, FLOW_TO_SERVICE, w->key) < 0) {
		calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return false;
	}
	return true;
}

/* Whether the hole that the call has (or has asked for) is the one that is wished for now. */
static bool same_hole(const struct call *k, const struct wish *w)
{
	if (k->service != w->policy.service || k->tag != w->policy.tag)
		return false;
	/* The gate ignores the remote address of a tagged hole, but its key is everything. */
	if (k->tag)
		return k->key_known && sodium_memcmp(k->key, w->key, sizeof(k->key)) == 0;
	return wn_ip_eq(&k->remote, &w->policy.remote) && (k->proto == IPPROTO_TCP || k->remote.port == w->policy.remote.port);
}

static void ask_gate(struct calls *c, struct call *k, uint64_t now, const char *why)
{
	const struct agent_service *s = k->service;
	struct gate_request r = {
		.op = GATE_OPEN,
		.proto = s->proto,
		.flags = k->tag ? GATE_FLAG_TAG : 0,
		.cookie = k->cookie,
		.inside = s->inside,
		.remote = k->remote,
		.lifetime_s = k->lifetime_s,
		.idle_s = s->idle_s,
		.bytes_per_s = s->bytes_per_s,
		.packets_per_s = s->packets_per_s,
		.user_bytes_per_s = c->cfg->user_bytes_per_s,
		.user_packets_per_s = c->cfg->user_packets_per_s,
	};

	memcpy(r.user, k->user, sizeof(r.user));
	if (k->tag)
		memcpy(r.key, k->key, sizeof(r.key));
	k->generation = ++c->generation;
	k->answered_ms = now;
	calls_enter(c, k, CALL_OPENING, now, why);
	if (c->ops->open(c->arg, &r, k->generation) < 0) {
		count(c->counters, COUNT_refused_gate_down);
		calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 1\r\n");
		calls_enter(c, k, CALL_ENDED, now, "the gate is not connected");
	}
	sodium_memzero(&r, sizeof(r));
}

static void set_hole_wanted(struct call *k, const struct wish *w)
{
	k->service = w->policy.service;
	k->proto = w->policy.service->proto;
	k->tag = w->policy.tag;
	k->inside = w->policy.service->inside;
	k->remote = w->policy.remote;
	k->key_known = k->tag;
	memcpy(k->key, w->key, sizeof(k->key));
}

/* Takes over what the client says about itself: a new call, an adopted one, or one whose client went to another front. */
static int set_dialog(struct calls *c, struct call *k, const struct sip_msg *m, int front)
{
	struct call_dialog *d;
	int rc = call_dialog_new(m, &d);

	if (rc < 0)
		return rc;
	free(k->dialog);
	k->dialog = d;
	k->front = front;
	k->remote_cseq = m->cseq;
	call_table_set_dialog(c->table, k, calls_hash_dialog(c, m->call_id, m->from_tag));
	calls_hash_tag(c, span_str(k->user), m->call_id, m->from_tag, k->to_tag);
	return 0;
}

static void known_invite(struct calls *c, struct call *k, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m,
			 const struct wish *w)
{
	int rc = set_dialog(c, k, m, front);

	if (rc < 0) {
		calls_reply(c, front, src, m, rc == -EMSGSIZE ? 513 : 500, rc == -EMSGSIZE ? "Message Too Large" : "Server Internal Error",
			    NULL);
		return;
	}
	if (same_hole(k, w)) {
		count(c->counters, COUNT_invite_repeated);
		if (k->state != CALL_OPENING)
			calls_answer(c, k, m, front, src, now, "INVITE again");
		else if (call_request_keep(&k->waiting, m, front, src) < 0)
			calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return;
	}

	/* Another address or key: the old hole goes first, so that a call never has two. */
	if (call_request_keep(&k->waiting, m, front, src) < 0) {
		calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return;
	}
	count(c->counters, COUNT_invite_replaced);
	k->renewing = false;
	calls_close_hole(c, k);
	set_hole_wanted(k, w);
	k->lifetime_s = lifetime_of(c, m);
	ask_gate(c, k, now, "INVITE with another address or key");
}

static void new_invite(struct calls *c, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m, const struct wish *w,
		       uint64_t cookie)
{
	struct call *k;
	int rc;

	if (call_table_count(c->table) >= c->cfg->max_calls) {
		count(c->counters, COUNT_refused_calls_full);
		calls_reply(c, front, src, m, 503, "Service Unavailable", "Retry-After: 10\r\n");
		return;
	}
	k = call_table_add(c->table, cookie);
	if (k == NULL) {
		calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return;
	}
	memcpy(k->user, w->id.user.p, w->id.user.n); /* call_identity_read has checked its length; the rest is zero */
	k->began_ms = now;
	k->lifetime_s = lifetime_of(c, m);
	set_hole_wanted(k, w);
	rc = set_dialog(c, k, m, front);
	if (rc == 0)
		rc = call_request_keep(&k->waiting, m, front, src);
	if (rc < 0) {
		calls_reply(c, front, src, m, rc == -EMSGSIZE ? 513 : 500, rc == -EMSGSIZE ? "Message Too Large" : "Server Internal Error",
			    NULL);
		calls_enter(c, k, CALL_ENDED, now, "cannot be kept");
		return;
	}
	ask_gate(c, k, now, "INVITE");
}

static void on_invite(struct calls *c, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m)
{
	struct wish w = {0};
	struct call *k;
	uint64_t cookie;

	if (decide(c, front, src, m, &w)) {
		cookie = calls_hash_cookie(c, w.id.user, m->call_id, m->from_tag);
		k = call_table_by_cookie(c->table, cookie);
		if (k != NULL && k->state == CALL_CLOSING) {
			calls_enter(c, k, CALL_ENDED, now, "INVITE again after the end");
			k = NULL;
		}
		if (k != NULL)
			known_invite(c, k, now, front, src, m, &w);
		else
			new_invite(c, now, front, src, m, &w, cookie);
	}
	sodium_memzero(&w, sizeof(w));
}

/* The call of an in-dialog request: To-tag and all. One from before a restart is found by trying its hole's user. */
static struct call *find_dialog(struct calls *c, const struct sip_msg *m)
{
	uint64_t h = calls_hash_dialog(c, m->call_id, m->from_tag);
	char tag[CALL_TAG_CHARS + 1];
	struct call *k;

	for (k = call_table_by_dialog(c->table, h, NULL); k != NULL; k = call_table_by_dialog(c->table, h, k)) {
		if (k->dialog == NULL || (span_eq(k->dialog->call_id, m->call_id) && span_eq(k->dialog->from_tag, m->from_tag))) {
			if (span_eq(m->to_tag, span_str(k->to_tag)))
				return k;
		}
	}
	for (k = call_table_by_dialog(c->table, CALLS_UNCLAIMED, NULL); k != NULL; k = call_table_by_dialog(c->table, CALLS_UNCLAIMED, k)) {
		if (calls_hash_cookie(c, span_str(k->user), m->call_id, m->from_tag) != k->cookie)
			continue;
		calls_hash_tag(c, span_str(k->user), m->call_id, m->from_tag, tag);
		if (!span_eq(m->to_tag, span_str(tag)))
			return NULL;
		memcpy(k->to_tag, tag, sizeof(tag));
		call_table_set_dialog(c->table, k, h);
		return k;
	}
	return NULL;
}

static void on_bye(struct calls *c, struct call *k, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m)
{
	char buf[CALL_MESSAGE_MAX];
	struct span out;

	count(c->counters, COUNT_ended_bye);
	if (k->waiting.raw != NULL)
		calls_reply_waiting(c, k, 487, "Request Terminated", NULL);
	calls_close_hole(c, k);
	out = call_build_status(m, src, 200, "OK", k->to_tag, NULL, buf, sizeof(buf));
	calls_enter(c, k, CALL_ENDED, now, "BYE");
	if (out.p != NULL)
		c->ops->send(c->arg, front, false, out);
}

static void on_refresh(struct calls *c, struct call *k, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m)
{
	struct span user = span_str(k->user);

	if (k->state != CALL_ANSWERED && k->state != CALL_CONFIRMED) {
		calls_reply(c, front, src, m, 481, "Call/Transaction Does Not Exist", NULL);
		return;
	}
	/* What the file and the store say now counts, also for a call from before a restart. */
	if (k->service == NULL || !c->ops->user_known(c->arg, user) || !policy_may_use(k->service, user)) {
		count(c->counters, COUNT_refused_forbidden);
		calls_reply(c, front, src, m, 403, "Forbidden", NULL);
		calls_end(c, k, now, "no longer allowed");
		return;
	}
	k->front = front;
	k->lifetime_s = lifetime_of(c, m);
	if (call_request_keep(&k->waiting, m, front, src) < 0) {
		calls_reply(c, front, src, m, 500, "Server Internal Error", NULL);
		return;
	}
	if (k->renewing)
		return; /* one answer from the gate serves both */
	if (c->ops->renew(c->arg, k->cookie, k->hole, k->lifetime_s) < 0) {
		count(c->counters, COUNT_renew_failed);
		calls_reply_waiting(c, k, 503, "Service Unavailable", "Retry-After: 1\r\n");
		return;
	}
	k->renewing = true;
}

static void on_ack(struct calls *c, struct call *k, uint64_t now)
{
	if (k == NULL || k->state != CALL_ANSWERED)
		return;
	count(c->counters, COUNT_acked);
	free(k->answer);
	k->answer = NULL;
	k->answer_n = 0;
	calls_enter(c, k, CALL_CONFIRMED, now, "ACK");
}

static void on_cancel(struct calls *c, uint64_t now, int front, const struct wn_addr *src, const struct sip_msg *m)
{
	uint64_t h = calls_hash_dialog(c, m->call_id, m->from_tag);
	struct sip_msg invite;
	struct call *k;

	for (k = call_table_by_dialog(c->table, h, NULL); k != NULL; k = call_table_by_dialog(c->table, h, k)) {
		if (k->state == CALL_OPENING && calls_reparse(&k->waiting, &invite) && span_eq(invite.via.branch, m->via.branch))
			break;
	}
	calls_reply(c, front, src, m, k != NULL ? 200 : 481, k != NULL ? "OK" : "Call/Transaction Does Not Exist", NULL);
	if (k == NULL)
		return;
	count(c->counters, COUNT_cancelled);
	calls_reply_waiting(c, k, 487, "Request Terminated", NULL);
	calls_abandon(c, k->cookie);
	calls_enter(c, k, CALL_ENDED, now, "cancelled"); /* the gate's answer finds nobody and is closed */
}

void calls_request(struct calls *c, uint64_t now_ms, int front, const struct wn_addr *src, const struct sip_msg *m)
{
	bool in_dialog = m->to_tag.p != NULL && m->to_tag.n > 0;
	struct call *k = NULL;

	if (!names_fit(m)) {
		count(c->counters, COUNT_bad_dialog);
		if (m->method != SIP_ACK)
			calls_reply(c, front, src, m, 400, "Bad Request", NULL);
		return;
	}
	if (in_dialog)
		k = find_dialog(c, m);
	if (m->method == SIP_ACK) {
		on_ack(c, k, now_ms);
		return;
	}
	if (m->method == SIP_CANCEL) {
		on_cancel(c, now_ms, front, src, m);
		return;
	}
	if (m->method != SIP_INVITE && m->method != SIP_BYE && m->method != SIP_UPDATE) {
		count(c->counters, COUNT_unknown_method);
		calls_reply(c, front, src, m, 405, "Method Not Allowed", "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n");
		return;
	}
	if (!in_dialog) {
		if (m->method == SIP_INVITE) {
			on_invite(c, now_ms, front, src, m);
			return;
		}
	} else if (k != NULL) {
		if (m->cseq < k->remote_cseq) {
			calls_reply(c, front, src, m, 500, "Server Internal Error", NULL); /* RFC 3261 12.2.2 */
			return;
		}
		k->remote_cseq = m->cseq;
		if (m->method == SIP_BYE)
			on_bye(c, k, now_ms, front, src, m);
		else
			on_refresh(c, k, now_ms, front, src, m);
		return;
	}
	count(c->counters, COUNT_unknown_dialog);
	calls_reply(c, front, src, m, 481, "Call/Transaction Does Not Exist", NULL);
}
