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

void signin_note(struct signin *s, enum signin_error error, unsigned status, const char *fmt, ...)
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

void signin_fail(struct signin *s, uint64_t now_ms)
{
	if (s->failure.error == SIGNIN_E_NONE)
		signin_note(s, SIGNIN_E_NO_ANSWER, 0, "no front of %s answered within %u.%u s", s->call.domain, s->timeout_ms / 1000,
			    s->timeout_ms % 1000 / 100);
	s->state = SIGNIN_FAILED;
	farewell_begin(s, now_ms);
}

const char *signin_front_name(const struct signin *s, const struct leg *leg, char buf[static WN_ADDR_STR])
{
	return wn_addr_str(&s->call.fronts[leg - s->leg], buf);
}

void signin_send_invite(struct signin *s, struct leg *leg, bool credentials, uint64_t now_ms)
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
		signin_note(s, SIGNIN_E_NO_ANSWER, 0, "the request could not be built: %s", strerror(-rc));
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
	signin_send_invite(s, leg, false, now_ms);
}

bool signin_in_good_standing(const struct leg *leg, uint64_t now_ms)
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
		signin_send_invite(s, held, true, now_ms);
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
		signin_send_invite(s, leg, true, now_ms);
		return;
	}
	leg->state = LEG_DEAD;
	if (leg->fresh_stale)
		signin_note(s, SIGNIN_E_CHALLENGE, 407, "front %s finds every nonce stale; does the address change behind this NAT?",
			    signin_front_name(s, leg, name));
	else
		signin_note(s, SIGNIN_E_CREDENTIALS, 407, "front %s does not accept the user or the secret of this enrolment",
			    signin_front_name(s, leg, name));
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
		signin_fail(s, now_ms);
		return;
	}
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		if (s->leg[i].state == LEG_DOUBTED && now_ms >= s->leg[i].since + SIGNIN_DOUBT_MS)
			end_doubt(s, &s->leg[i], now_ms);
		good = good || signin_in_good_standing(&s->leg[i], now_ms);
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
		signin_fail(s, now_ms);
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
	if (cfg->first.nonce[0] != '\0' && signin_check_realm(s, span_str(cfg->first.realm), now_ms) == REALM_OK) {
		struct leg *leg = &s->leg[0];

		memcpy(leg->call_id, s->call_id, sizeof(leg->call_id));
		leg->challenge = cfg->first;
		leg->known = true;
		signin_send_invite(s, leg, true, now_ms);
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
		signin_note(s, SIGNIN_E_GIVEN_UP, 0, "given up");
	signin_fail(s, now_ms);
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
