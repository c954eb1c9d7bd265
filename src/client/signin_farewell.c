/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "client/signin_private.h"

/* Credentials are out, and their answer is not in. */
static bool open_end(const struct leg *leg)
{
	return leg->state == LEG_SENT || leg->state == LEG_WORKING || leg->state == LEG_DOUBTED;
}

static void cancel(struct signin *s, struct leg *leg, uint64_t now_ms)
{
	leg->cancelling = true;
	leg->interval = SIP_T1_MS;
	leg->again_at = now_ms + leg->interval;
	signin_build_cancel(s, leg);
}

void farewell_begin(struct signin *s, uint64_t now_ms)
{
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		struct leg *leg = &s->leg[i];

		leg->msg_due = false;
		if (leg->state == LEG_WORKING)
			cancel(s, leg, now_ms);
	}
}

/* A 200 for a call that is not wanted any more (RFC 3261 13.2.2.4): acknowledge it, then end it, once. */
static void got_stray(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	const struct dialog *kept = &s->answer.dialog;

	if (s->has_stray || leg->state == LEG_ACCEPTED)
		return;
	leg->state = LEG_DEAD;
	leg->cancelling = false;
	if (span_eq(m->call_id, span_str(kept->call_id)) && span_eq(m->to_tag, span_str(kept->to_tag)))
		return;
	s->call.drawn += UINT64_C(1) << 32; /* away from what the dialog draws */
	if (dialog_begin(&s->stray, &s->call, (unsigned)(leg - s->leg), m, now_ms) < 0)
		return;
	dialog_bye(&s->stray, now_ms);
	s->has_stray = true;
}

void farewell_input(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms)
{
	if (m->method == SIP_CANCEL) {
		/* It has arrived; what the INVITE comes to is said in an answer of its own. */
		if (m->status >= 200)
			leg->again_at = UINT64_MAX;
	} else if (m->status >= 300) {
		/* A challenge may be the answer to somebody else's copy, here too. */
		if (m->status != 407 || leg->state != LEG_WORKING)
			leg->state = LEG_DEAD;
	} else if (m->status >= 200) {
		got_stray(s, leg, m, now_ms);
	} else if (s->state == SIGNIN_FAILED && (leg->state == LEG_SENT || leg->state == LEG_DOUBTED)) {
		leg->state = LEG_WORKING;
		cancel(s, leg, now_ms);
	}
}

void farewell_step(struct signin *s, uint64_t now_ms)
{
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		struct leg *leg = &s->leg[i];

		if (!leg->cancelling || !open_end(leg) || now_ms < leg->again_at)
			continue;
		leg->msg_due = true;
		leg->interval *= 2;
		leg->again_at = now_ms + leg->interval;
	}
}

uint64_t farewell_deadline(const struct signin *s)
{
	uint64_t at = s->has_stray ? dialog_deadline(&s->stray) : UINT64_MAX;

	for (unsigned i = 0; i < s->call.nfronts; i++) {
		const struct leg *leg = &s->leg[i];

		if (leg->cancelling && open_end(leg) && leg->again_at < at)
			at = leg->again_at;
	}
	return at;
}

bool signin_settled(const struct signin *s)
{
	for (unsigned i = 0; i < s->call.nfronts; i++) {
		if (open_end(&s->leg[i]))
			return false;
	}
	return !s->has_stray || s->stray.state == DIALOG_ENDED;
}
