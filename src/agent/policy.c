/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/policy.h"

#include <sodium.h>
#include <string.h>

static const struct {
	unsigned status;
	const char *reason, *name;
} verdicts[POLICY_VERDICTS] = {
	[POLICY_OK] = {200, "OK", "accepted"},
	[POLICY_UNKNOWN_USER] = {403, "Forbidden", "unknown_user"},
	[POLICY_NO_SERVICE] = {404, "Not Found", "no_service"},
	[POLICY_FORBIDDEN] = {403, "Forbidden", "forbidden"},
	[POLICY_WRONG_PORT] = {404, "Not Found", "wrong_port"},
	[POLICY_NO_MEDIA] = {488, "Not Acceptable Here", "no_media"},
	[POLICY_NO_ADDRESS] = {488, "Not Acceptable Here", "no_address"},
};

static const struct agent_service *find_service(const struct agent_config *c, struct span name)
{
	for (unsigned i = 0; i < c->nservices; i++) {
		if (span_eq(span_str(c->services[i].name), name))
			return &c->services[i];
	}
	return NULL;
}

/* One host on the internet: not unspecified, multicast, broadcast or link-local. */
static bool usable(const struct wn_addr *a)
{
	if (wn_addr_is4(a)) {
		uint8_t first = a->ip[12];

		return first != 0 && first < 224;
	}
	return !sodium_is_zero(a->ip, 15) && a->ip[0] != 0xff && !(a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);
}

static const struct wn_addr *candidate(const struct sdp *offer, enum sdp_candidate_type type, bool is4)
{
	for (unsigned i = 0; i < offer->ncand; i++) {
		if (offer->cand[i].type == type && wn_addr_is4(&offer->cand[i].addr) == is4)
			return &offer->cand[i].addr;
	}
	return NULL;
}

/* Where the client will come from, in the service's family if it has an address there. */
static struct wn_addr remote_of(const struct policy_question *q, const struct agent_service *s)
{
	const bool is4 = wn_addr_is4(&s->inside);
	const struct wn_addr *a = NULL;

	if (q->auth_int) {
		a = candidate(q->offer, SDP_SRFLX, is4);
		/* Its signalling went over IPv4, so that nobody could tell it its IPv6 address: there its own is the one. */
		if (a == NULL && !is4 && wn_addr_is4(&q->source))
			a = candidate(q->offer, SDP_HOST, is4);
	}
	return a != NULL ? *a : q->source;
}

enum policy_verdict policy_decide(const struct agent_config *c, const struct policy_question *q, struct policy_answer *out)
{
	const struct agent_service *s;

	memset(out, 0, sizeof(*out));
	if (!q->user_known)
		return POLICY_UNKNOWN_USER;
	s = find_service(c, q->service);
	if (s == NULL)
		return POLICY_NO_SERVICE;
	if (!policy_may_use(s, q->user))
		return POLICY_FORBIDDEN;
	if (q->offer == NULL || (q->offer->proto == SDP_TCP) != (s->proto == IPPROTO_TCP))
		return POLICY_NO_MEDIA;
	if (q->offer->walnut_port != 0 && q->offer->walnut_port != s->inside.port)
		return POLICY_WRONG_PORT;

	out->service = s;
	out->tag = s->proto == IPPROTO_UDP && q->offer->tag;
	if (s->proto == IPPROTO_TCP || out->tag) {
		out->remote = remote_of(q, s);
		out->remote.port = 0;
	} else {
		out->remote = q->source;
		out->remote.port = q->offer->conn.port;
		if (out->remote.port == 0)
			return POLICY_NO_ADDRESS;
	}
	/* A tag binds the source whatever it is; everything else needs a source of the service's family. */
	if (!usable(&out->remote) || (!out->tag && wn_addr_is4(&out->remote) != wn_addr_is4(&s->inside)))
		return POLICY_NO_ADDRESS;
	return POLICY_OK;
}

bool policy_may_use(const struct agent_service *s, struct span user)
{
	for (unsigned i = 0; i < s->nusers; i++) {
		if (span_eq(span_str(s->users[i]), user))
			return true;
	}
	return s->nusers == 0;
}

unsigned policy_status(enum policy_verdict v)
{
	return verdicts[v].status;
}

const char *policy_reason(enum policy_verdict v)
{
	return verdicts[v].reason;
}

const char *policy_verdict_name(enum policy_verdict v)
{
	return verdicts[v].name;
}
