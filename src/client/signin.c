/* SPDX-License-Identifier: Apache-2.0 */
#include "client/signin.h"

#include <errno.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/signin_private.h"

#define BRANCH_PREFIX "z9hG4bK"
#define RETRY_MAX_S   60

__attribute__((format(printf, 4, 5))) static void note_failure(struct signin *s, enum signin_error error, unsigned status, const char *fmt,
							       ...)
{
	va_list ap;

	/* A front that says why is worth more than one that is only busy. */
	if (s->failure.error != SIGNIN_E_NONE && s->failure.error != SIGNIN_E_BUSY && error == SIGNIN_E_BUSY)
		return;
	s->failure.error = error;
	s->failure.sip_status = status;
	va_start(ap, fmt);
	vsnprintf(s->failure.why, sizeof(s->failure.why), fmt, ap);
	va_end(ap);
}

static void fail(struct signin *s, uint64_t now_ms)
{
	if (s->failure.error == SIGNIN_E_NONE)
		note_failure(s, SIGNIN_E_NO_ANSWER, 0, "no front of %s answered within %u.%u s", s->call.domain, s->timeout_ms / 1000,
			     s->timeout_ms % 1000 / 100);
	s->state = SIGNIN_FAILED;
	farewell_begin(s, now_ms);
}

static const char *front_name(const struct signin *s, const struct leg *leg, char buf[static WN_ADDR_STR])
{
	return wn_addr_str(&s->call.fronts[leg - s->leg], buf);
}

static void send_invite(struct signin *s, struct leg *leg, bool credentials, uint64_t now_ms)
{
	int rc;

	memcpy(leg->branch, BRANCH_PREFIX, sizeof(BRANCH_PREFIX) - 1);
	call_draw_id(&s->call, leg->branch + sizeof(BRANCH_PREFIX) - 1);
	call_draw_id(&s->call, leg->cnonce);
	leg->cseq = ++s->cseq;
	leg->state = credentials ? LEG_SENT : LEG_ASKED;
	leg->since = now_ms;
	leg->interval = SIP_T1_MS;
	leg->again_at = now_ms + leg->interval;
	rc = signin_build_invite(s, leg, credentials);
	leg->msg_due = rc == 0;
	if (rc < 0) {
		leg->state = LEG_DEAD;
		note_failure(s, SIGNIN_E_NO_ANSWER, 0, "the request could not be built: %s", strerror(-rc));
	}
}

static void ask(struct signin *s, struct leg *leg, uint64_t now_ms)
{
	leg->known = false;
	leg->challenge = (struct signin_nonce){0};
	/* The session key depends on the challenge. For UDP a hole must not stay under the key of an earlier challenge that the agent may
	 * have accepted already, so each front is a call of its own; for TCP the agent recognises one call whichever way it comes. */
	if (s->proto == SDP_UDP)
		call_draw_id(&s->call, leg->call_id);
	else
		memcpy(leg->call_id, s->call_id, sizeof(leg->call_id));
	send_invite(s, leg, false, now_ms);
}

/* ---- what comes back ---- */

static bool text_ok(struct span s, size_t cap)
{
	if (s.p == NULL || s.n == 0 || s.n >= cap)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f || s.p[i] == '"' || s.p[i] == '\\')
			return false;
	}
	return true;
}

enum realm_verdict { REALM_OK, REALM_OTHER_DOMAIN, REALM_EPOCH };

static enum realm_verdict check_realm(const struct signin *s, struct span realm, uint64_t now_ms)
{
	size_t n = strlen(s->call.domain);
	unsigned long long epoch;
	uint64_t here = 0;

	if (realm.n < n + 2 || memcmp(realm.p, s->call.domain, n) != 0 || realm.p[n] != '/')
		return REALM_OTHER_DOMAIN;
	if (span_u64(span_of(realm.p + n + 1, realm.n - n - 1), UINT32_MAX, &epoch) < 0)
		return REALM_OTHER_DOMAIN;
	/* One spelling: the realm is part of the key. */
	if (realm.p[n + 1] == '0' && realm.n > n + 2)
		return REALM_EPOCH;
	if (s->epoch_s == 0)
		return epoch == 0 ? REALM_OK : REALM_EPOCH;
	here = (s->unix_s + (now_ms - s->start_ms) / 1000) / s->epoch_s;
	return epoch + 1 >= here && epoch <= here + 1 ? REALM_OK : REALM_EPOCH;
}

/* Takes the first challenge that this client accepts. *stale is that challenge's. */
static int take_challenge(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms, bool *stale)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_PROXY_AUTHENTICATE);
	const char *why = "without a Digest challenge";
	char name[WN_ADDR_STR];

	for (; h != NULL; h = sip_hdr_next(m, h)) {
		struct digest_params p;

		if (digest_parse(h->value, &p) < 0)
			continue;
		if (!p.alg_known || p.alg != DIGEST_SHA256) {
			why = "without SHA-256";
			continue;
		}
		if (p.qop != DIGEST_QOP_AUTH_INT) {
			why = "without qop=auth-int";
			continue;
		}
		if (!text_ok(p.realm, sizeof(leg->challenge.realm)) || !text_ok(p.nonce, sizeof(leg->challenge.nonce)) ||
		    p.opaque.p != NULL) {
			why = "in a form that is not Walnut's";
			continue;
		}
		switch (check_realm(s, p.realm, now_ms)) {
		case REALM_OTHER_DOMAIN:
			why = "for another domain";
			continue;
		case REALM_EPOCH:
			why = "for an epoch that is not today's; is the clock right here?";
			continue;
		case REALM_OK:
			break;
		}
		span_cstr(p.realm, leg->challenge.realm, sizeof(leg->challenge.realm));
		span_cstr(p.nonce, leg->challenge.nonce, sizeof(leg->challenge.nonce));
		*stale = p.stale;
		return 0;
	}
	note_failure(s, SIGNIN_E_CHALLENGE, 407, "front %s asks for credentials %s", front_name(s, leg, name), why);
	return -EINVAL;
}

/* RFC 3581: how the front sees us. */
static void take_seen(const struct signin *s, struct leg *leg, const struct sip_msg *m)
{
	struct wn_addr seen = s->call.local;

	if (m->via.received.p != NULL && wn_ip_parse(m->via.received, &seen) < 0)
		seen = s->call.local;
	seen.port = m->via.rport_value != 0 ? m->via.rport_value : s->call.local.port;
	leg->challenge.seen = seen;
}

/* At work and not overdue: no other front is needed yet. */
static bool in_good_standing(const struct leg *leg, uint64_t now_ms)
{
	switch (leg->state) {
	case LEG_ASKED:
		return now_ms < leg->since + SIGNIN_NEXT_MS;
	case LEG_SENT:
		return now_ms < leg->since + (leg->known ? SIGNIN_NEXT_MS : SIGNIN_QUIET_MS);
	case LEG_WORKING:
		return now_ms < leg->since + SIGNIN_STUCK_MS;
	case LEG_DOUBTED:
		return now_ms < leg->since + SIGNIN_DOUBT_MS;
	default:
		return false;
	}
}

static bool another_at_work(const struct signin *s, const struct leg *self, uint64_t now_ms)
{
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		const struct leg *leg = &s->leg[i];

		if (leg != self && leg->state != LEG_ASKED && in_good_standing(leg, now_ms))
			return true;
	}
	return false;
}

static void got_challenge(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	bool answered = leg->state == LEG_SENT;
	struct signin_nonce before = leg->challenge;
	bool known = leg->known;
	bool stale = false;

	/* The front has these credentials, so what it challenges now was somebody else's. */
	if (leg->state == LEG_WORKING || leg->state == LEG_DOUBTED)
		return;
	leg->msg_due = false;
	if (take_challenge(s, leg, m, now_ms, &stale) < 0) {
		leg->state = LEG_DEAD;
		return;
	}
	take_seen(s, leg, m);
	/* Who sees the request can be first with an altered one, and this is the answer to that: ours may yet come. A stale nonce is common
	 * enough to be believed once. */
	if (answered && (!stale || (!known && leg->stale > 0))) {
		leg->fresh = leg->challenge;
		leg->challenge = before;
		leg->fresh_stale = stale;
		leg->state = LEG_DOUBTED;
		leg->since = now_ms;
		return;
	}
	if (answered && !known)
		leg->stale++;
	leg->known = false;
	if (another_at_work(s, leg, now_ms)) {
		leg->state = LEG_HELD;
		leg->since = now_ms;
		return;
	}
	send_invite(s, leg, true, now_ms);
}

static void take_next_nonce(struct signin *s, struct leg *leg, const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_PROXY_AUTHENTICATION_INFO);
	struct digest_params p;

	if (h == NULL || digest_parse_info(h->value, &p) < 0 || !text_ok(p.nextnonce, sizeof(s->answer.next.nonce)))
		return;
	s->answer.next = leg->challenge;
	span_cstr(p.nextnonce, s->answer.next.nonce, sizeof(s->answer.next.nonce));
}

static int derive_key(struct signin *s, struct leg *leg)
{
	uint8_t ha1[DIGEST_HASH_MAX];
	int rc;

	rc = digest_ha1(s->digest, DIGEST_SHA256, span_str(s->call.user), span_str(leg->challenge.realm), span_str(s->secret), ha1);
	if (rc == 0)
		rc = session_key_derive(ha1, digest_len(DIGEST_SHA256), span_str(leg->challenge.nonce), span_str(leg->cnonce),
					span_str(leg->call_id), span_str(s->call.service), s->answer.session_key);
	sodium_memzero(ha1, sizeof(ha1));
	return rc;
}

static void got_2xx(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	unsigned front = (unsigned)(leg - s->leg);
	char name[WN_ADDR_STR];
	int rc;

	leg->msg_due = false;
	leg->state = LEG_DEAD;
	rc = dialog_begin(&s->answer.dialog, &s->call, front, m, now_ms);
	if (rc == 0)
		rc = sdp_parse(m->body, &s->answer.sdp);
	if (rc == 0 && (s->answer.sdp.conn.port == 0 || s->answer.sdp.proto != s->proto))
		rc = -EBADMSG;
	if (rc == 0)
		rc = derive_key(s, leg);
	if (rc < 0) {
		note_failure(s, SIGNIN_E_ANSWER, m->status, "the answer by front %s makes no sense", front_name(s, leg, name));
		return;
	}
	/* The dialog goes on drawing where the sign-in stops. */
	s->answer.front = front;
	take_next_nonce(s, leg, m);
	leg->state = LEG_ACCEPTED;
	s->state = SIGNIN_ACCEPTED;
}

static void got_busy(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_RETRY_AFTER);
	unsigned long long after = 1;
	char name[WN_ADDR_STR];
	size_t n = 0;

	while (h != NULL && n < h->value.n && h->value.p[n] >= '0' && h->value.p[n] <= '9')
		n++;
	if (n > 0 && span_u64(span_of(h->value.p, n), RETRY_MAX_S, &after) < 0)
		after = RETRY_MAX_S;
	if (after == 0)
		after = 1;
	leg->state = LEG_LATER;
	leg->again_at = now_ms + after * 1000;
	note_failure(s, SIGNIN_E_BUSY, 503, "front %s is busy, or the service's agent is not connected to it (503)",
		     front_name(s, leg, name));
}

static const char *refusal(unsigned status)
{
	switch (status) {
	case 403:
		return "this user may not use the service";
	case 404:
		return "there is no such service, or not on that port";
	case 480:
		return "the service cannot be reached now";
	case 483:
		return "too many hops";
	case 488:
		return "the service is of the other kind (TCP or UDP)";
	default:
		return "";
	}
}

static void got_final(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	char name[WN_ADDR_STR];

	leg->msg_due = false;
	if (m->status == 503) {
		got_busy(s, leg, m, now_ms);
		return;
	}
	leg->state = LEG_DEAD;
	/* What lies with one front is worth a try at another; what the service's side said is final. */
	if (m->status == 408 || m->status == 500 || m->status == 504) {
		note_failure(s, SIGNIN_E_REFUSED, m->status, "front %s: %u", front_name(s, leg, name), m->status);
		return;
	}
	note_failure(s, SIGNIN_E_REFUSED, m->status, "refused: %u %s", m->status, refusal(m->status));
	fail(s, now_ms);
}

static bool is_answer(const struct signin *s, const struct leg *leg, const struct sip_msg *m)
{
	return leg->state != LEG_UNUSED && !m->request && (m->method == SIP_INVITE || m->method == SIP_CANCEL) && m->cseq == leg->cseq &&
	       span_eq(m->via.branch, span_str(leg->branch)) && span_eq(m->call_id, span_str(leg->call_id)) &&
	       span_eq(m->from_tag, span_str(s->call.from_tag));
}

void signin_input(struct signin *s, const struct wn_addr *from, struct span datagram, uint64_t now_ms)
{
	struct sip_msg m;
	struct leg *leg;
	int front = call_front(&s->call, from);

	if (front < 0 || sip_parse(datagram, false, &m) != SIP_OK)
		return;
	leg = &s->leg[front];
	if (s->has_stray && dialog_input(&s->stray, from, &m, now_ms))
		return;
	if (!is_answer(s, leg, &m))
		return;
	if (m.method == SIP_INVITE && m.status >= 300)
		signin_build_ack(s, leg, &m);
	if (s->state != SIGNIN_RUNNING) {
		farewell_input(s, leg, &m, now_ms);
		return;
	}
	if (m.method != SIP_INVITE)
		return;
	if (leg->state != LEG_ASKED && leg->state != LEG_SENT && leg->state != LEG_WORKING && leg->state != LEG_DOUBTED)
		return;
	if (m.status < 200) {
		/* RFC 3261 17.1.1.2: the front has it, no more retransmissions. */
		if (leg->state == LEG_SENT || leg->state == LEG_DOUBTED) {
			leg->state = LEG_WORKING;
			leg->since = now_ms;
			leg->msg_due = false;
		}
	} else if (m.status == 407) {
		got_challenge(s, leg, &m, now_ms);
	} else if (leg->state == LEG_ASKED) {
		/* Nothing but a challenge answers a stranger. */
		return;
	} else if (m.status < 300) {
		got_2xx(s, leg, &m, now_ms);
	} else {
		got_final(s, leg, &m, now_ms);
	}
}

/* ---- time ---- */

static void bring_in_another(struct signin *s, uint64_t now_ms)
{
	struct leg *held = NULL, *unused = NULL, *due = NULL, *again = NULL;

	for (unsigned i = 0; i < s->call.nfronts; i++) {
		struct leg *leg = &s->leg[i];
		bool quiet = (leg->state == LEG_SENT && (leg->known || !leg->again)) || (leg->state == LEG_WORKING && !leg->again);

		if (held == NULL && leg->state == LEG_HELD)
			held = leg;
		if (unused == NULL && leg->state == LEG_UNUSED)
			unused = leg;
		if (due == NULL && leg->state == LEG_LATER && now_ms >= leg->again_at)
			due = leg;
		if (again == NULL && quiet)
			again = leg;
	}
	if (held != NULL) {
		send_invite(s, held, true, now_ms);
	} else if (unused != NULL) {
		ask(s, unused, now_ms);
	} else if (due != NULL) {
		ask(s, due, now_ms);
	} else if (again != NULL) {
		/* A nonce from the store may be used up, somebody who saw ours may have used it first, a front may have been restarted:
		 * silence is all one sees of it. */
		again->again = true;
		ask(s, again, now_ms);
	}
}

/* Nothing else came: once more with the newer challenge, then it is what it seemed to be. */
static void end_doubt(struct signin *s, struct leg *leg, uint64_t now_ms)
{
	char name[WN_ADDR_STR];
	bool again;

	if (leg->fresh_stale)
		again = ++leg->stale <= SIGNIN_STALE_MAX;
	else /* one front has been asked twice: that was enough for all */
		again = ++leg->doubts < SIGNIN_DOUBTS_MAX && s->failure.error != SIGNIN_E_CREDENTIALS;
	if (again) {
		leg->challenge = leg->fresh;
		leg->known = false;
		send_invite(s, leg, true, now_ms);
		return;
	}
	leg->state = LEG_DEAD;
	if (leg->fresh_stale)
		note_failure(s, SIGNIN_E_CHALLENGE, 407, "front %s finds every nonce stale; does the address change behind this NAT?",
			     front_name(s, leg, name));
	else
		note_failure(s, SIGNIN_E_CREDENTIALS, 407, "front %s does not accept the user or the secret of this enrolment",
			     front_name(s, leg, name));
}

static void step(struct signin *s, uint64_t now_ms)
{
	bool good = false, alive = false;

	s->now_ms = now_ms;
	if (s->state != SIGNIN_RUNNING) {
		farewell_step(s, now_ms);
		return;
	}
	if (now_ms >= s->deadline) {
		fail(s, now_ms);
		return;
	}
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		if (s->leg[i].state == LEG_DOUBTED && now_ms >= s->leg[i].since + SIGNIN_DOUBT_MS)
			end_doubt(s, &s->leg[i], now_ms);
		good = good || in_good_standing(&s->leg[i], now_ms);
	}
	if (!good)
		bring_in_another(s, now_ms);
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		struct leg *leg = &s->leg[i];

		if ((leg->state == LEG_ASKED || leg->state == LEG_SENT) && now_ms >= leg->again_at) {
			leg->msg_due = true;
			leg->interval *= 2;
			leg->again_at = now_ms + leg->interval;
		}
		alive = alive || !(leg->state == LEG_DEAD || (leg->state == LEG_LATER && leg->again_at >= s->deadline));
	}
	if (!alive)
		fail(s, now_ms);
}

bool signin_next(struct signin *s, uint64_t now_ms, unsigned *front, struct span *bytes)
{
	step(s, now_ms);
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		struct leg *leg = &s->leg[i];

		*front = i;
		if (leg->ack_due) {
			leg->ack_due = false;
			*bytes = span_of(leg->ack, leg->ack_len);
			return true;
		}
		if (leg->msg_due && (s->state == SIGNIN_RUNNING || leg->cancelling)) {
			leg->msg_due = false;
			*bytes = span_of(leg->msg, leg->msg_len);
			return true;
		}
	}
	return s->has_stray && dialog_next(&s->stray, now_ms, front, bytes);
}

/* What lay before the last step has had its effect. */
static void sooner(const struct signin *s, uint64_t *at, uint64_t t)
{
	if (t > s->now_ms && t < *at)
		*at = t;
}

uint64_t signin_deadline(const struct signin *s)
{
	uint64_t at = s->deadline;

	if (s->state != SIGNIN_RUNNING)
		return farewell_deadline(s);
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		const struct leg *leg = &s->leg[i];

		switch (leg->state) {
		case LEG_ASKED:
			sooner(s, &at, leg->again_at);
			sooner(s, &at, leg->since + SIGNIN_NEXT_MS);
			break;
		case LEG_SENT:
			sooner(s, &at, leg->again_at);
			sooner(s, &at, leg->since + (leg->known ? SIGNIN_NEXT_MS : SIGNIN_QUIET_MS));
			break;
		case LEG_WORKING:
			sooner(s, &at, leg->since + SIGNIN_STUCK_MS);
			break;
		case LEG_DOUBTED:
			sooner(s, &at, leg->since + SIGNIN_DOUBT_MS);
			break;
		case LEG_LATER:
			sooner(s, &at, leg->again_at);
			break;
		default:
			break;
		}
	}
	return at;
}

int signin_new(const struct signin_config *cfg, uint64_t now_ms, struct signin **out)
{
	struct signin *s;

	*out = NULL;
	if (cfg->nfronts == 0 || cfg->nfronts > ENROL_FRONTS_MAX)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	if (span_cstr(span_str(cfg->user), s->call.user, sizeof(s->call.user)) < 0 ||
	    span_cstr(span_str(cfg->domain), s->call.domain, sizeof(s->call.domain)) < 0 ||
	    span_cstr(span_str(cfg->secret), s->secret, sizeof(s->secret)) < 0 ||
	    span_cstr(span_str(cfg->service), s->call.service, sizeof(s->call.service)) < 0) {
		signin_free(s);
		return -EINVAL;
	}
	s->call.local = cfg->local;
	s->call.nfronts = cfg->nfronts;
	memcpy(s->call.fronts, cfg->fronts, sizeof(s->call.fronts));
	memcpy(s->call.seed, cfg->seed, sizeof(s->call.seed));
	s->digest = cfg->digest;
	s->epoch_s = cfg->epoch_s;
	s->proto = cfg->proto;
	s->walnut_port = cfg->walnut_port;
	s->unix_s = cfg->unix_s;
	s->start_ms = now_ms;
	s->now_ms = now_ms;
	s->timeout_ms = cfg->timeout_ms != 0 ? cfg->timeout_ms : SIGNIN_TIMEOUT_MS;
	s->deadline = now_ms + s->timeout_ms;
	call_draw_id(&s->call, s->call.from_tag);
	call_draw_id(&s->call, s->call_id);
	s->sdp_id = cfg->unix_s; /* RFC 8866 5.2 recommends a time */
	if (cfg->first.nonce[0] != '\0' && check_realm(s, span_str(cfg->first.realm), now_ms) == REALM_OK) {
		struct leg *leg = &s->leg[0];

		memcpy(leg->call_id, s->call_id, sizeof(leg->call_id));
		leg->challenge = cfg->first;
		leg->known = true;
		send_invite(s, leg, true, now_ms);
	} else {
		ask(s, &s->leg[0], now_ms);
	}
	*out = s;
	return 0;
}

void signin_free(struct signin *s)
{
	if (s == NULL)
		return;
	sodium_memzero(s, sizeof(*s));
	free(s);
}

void signin_give_up(struct signin *s, uint64_t now_ms)
{
	if (s->state != SIGNIN_RUNNING)
		return;
	if (s->failure.error == SIGNIN_E_NONE)
		note_failure(s, SIGNIN_E_GIVEN_UP, 0, "given up");
	fail(s, now_ms);
}

enum signin_state signin_state(const struct signin *s)
{
	return s->state;
}

const struct signin_failure *signin_failure(const struct signin *s)
{
	return &s->failure;
}

const struct signin_answer *signin_answer(const struct signin *s)
{
	return &s->answer;
}
