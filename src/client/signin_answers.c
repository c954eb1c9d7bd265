/* SPDX-License-Identifier: Apache-2.0 */
/* What fronts answer while a sign-in runs: challenges, refusals, and the 200 OK that ends it. */
#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "client/signin_private.h"

#define RETRY_MAX_S 60

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

enum realm_verdict signin_check_realm(const struct signin *s, struct span realm, uint64_t now_ms)
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
		switch (signin_check_realm(s, p.realm, now_ms)) {
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
	signin_note(s, SIGNIN_E_CHALLENGE, 407, "front %s asks for credentials %s", signin_front_name(s, leg, name), why);
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

static bool another_at_work(const struct signin *s, const struct leg *self, uint64_t now_ms)
{
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		const struct leg *leg = &s->leg[i];

		if (leg != self && leg->state != LEG_ASKED && signin_in_good_standing(leg, now_ms))
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
	signin_send_invite(s, leg, true, now_ms);
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
		signin_note(s, SIGNIN_E_ANSWER, m->status, "the answer by front %s makes no sense", signin_front_name(s, leg, name));
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
	signin_note(s, SIGNIN_E_BUSY, 503, "front %s is busy, or the service's agent is not connected to it (503)",
		    signin_front_name(s, leg, name));
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
		signin_note(s, SIGNIN_E_REFUSED, m->status, "front %s: %u", signin_front_name(s, leg, name), m->status);
		return;
	}
	signin_note(s, SIGNIN_E_REFUSED, m->status, "refused: %u %s", m->status, refusal(m->status));
	signin_fail(s, now_ms);
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
