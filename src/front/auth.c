/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>

#include "base/b64.h"
#include "front/internal.h"
#include "ticket/session_key.h"

#define CREDENTIALS_MAX 4 /* values for our realm that are looked at */
#define ANSWER_MTU      1400

/* One Proxy-Authorization value for one of our tenant's realms. */
struct credentials {
	struct digest_params p;
	uint32_t epoch;
	uint64_t number; /* of the nonce */
	bool exhausted;
};

static void put_challenge(struct sip_buf *b, struct span realm, const char nonce[NONCE_CHARS], bool stale, enum digest_alg alg)
{
	sip_put(b, SPAN_LIT("Proxy-Authenticate: Digest realm=\""));
	sip_put(b, realm);
	sip_put(b, SPAN_LIT("\",nonce=\""));
	sip_put(b, span_of(nonce, NONCE_CHARS));
	sip_put(b, stale ? SPAN_LIT("\",stale=true,algorithm=") : SPAN_LIT("\",algorithm="));
	sip_put(b, alg == DIGEST_SHA256 ? SPAN_LIT("SHA-256") : SPAN_LIT("MD5"));
	sip_put(b, SPAN_LIT(",qop=\"auth,auth-int\"\r\n"));
}

/* The only answer a stranger gets, and never longer than what the stranger sent. */
static void challenge(struct front_core *c, struct front_in *in, bool stale, enum front_outcome o, struct front_action *out)
{
	const struct front_policy *t = core_policy(c, in->tenant);
	const struct tenant_view *v = core_view(c, in->tenant, in->now_ms, in->unix_s);
	struct span realm = span_of(v->realm, v->realm_n), end = SPAN_LIT("Content-Length: 0\r\n\r\n");
	char nonce[NONCE_CHARS], tag[TAG_CHARS];
	struct sip_buf b, first;

	/* an answer would lead to a call that may not begin; silence leads to another front */
	if (atomic_load_explicit(&c->sh->draining, memory_order_relaxed)) {
		core_done(c, out, FRONT_draining);
		return;
	}
	core_to_tag(c, in, tag);
	nonce_issue(&c->issuer, in->src, realm, front_flow_scope(in->flow->id), in->now_ms, nonce);
	sip_buf_init(&b, out->net, core_answer_max(in));
	sip_put_response(&b, &in->m, 407, "Proxy Authentication Required", span_of(tag, sizeof(tag)), in->src);
	put_challenge(&b, realm, nonce, stale, t->sha256 ? DIGEST_SHA256 : DIGEST_MD5);
	first = b;
	if (t->sha256 && t->md5)
		put_challenge(&b, realm, nonce, stale, DIGEST_MD5);
	sip_put(&b, end);
	if (b.overflow) {
		b = first; /* the second challenge is left out where it does not fit */
		sip_put(&b, end);
	}
	if (b.overflow || b.len > core_answer_max(in)) {
		core_done(c, out, FRONT_challenge_too_large);
		return;
	}
	out->net_n = b.len;
	out->to = *in->flow;
	core_done(c, out, o);
}

/* DOMAIN/EPOCH of this tenant. */
static bool our_realm(const struct front_tenant *t, struct span realm, uint32_t *epoch)
{
	size_t n = strlen(t->domain);
	unsigned long long e;

	if (realm.n <= n + 1 || memcmp(realm.p, t->domain, n) != 0 || realm.p[n] != '/')
		return false;
	if (span_u64(span_of(realm.p + n + 1, realm.n - n - 1), UINT32_MAX, &e) != 0)
		return false;
	*epoch = (uint32_t)e;
	return true;
}

static bool whole_shape(const struct digest_params *p)
{
	/* A nonce is good for one request, so its count is one. */
	return p->qop != DIGEST_QOP_NONE && p->cnonce.n > 0 && span_eq(p->nc_text, SPAN_LIT("00000001")) && p->username.n > 0 &&
	       p->uri.n > 0 && p->response.n > 0;
}

/* How far one value gets without touching a user: FRONT_forwarded when the digest is worth computing. */
static enum front_outcome look(struct front_core *c, struct front_in *in, struct credentials *k)
{
	const struct front_policy *t = core_policy(c, in->tenant);

	if (!k->p.alg_known || (k->p.alg == DIGEST_SHA256 ? !t->sha256 : !t->md5))
		return FRONT_algorithm;
	k->exhausted = false;
	switch (nonce_check(c->sh->nonces, k->p.nonce, in->src, k->p.realm, front_flow_scope(in->flow->id), in->now_ms, &k->number)) {
	case NONCE_OK:
		break;
	case NONCE_EXHAUSTED:
		k->exhausted = true; /* slower, never refused: a correct digest still counts */
		break;
	case NONCE_FOREIGN:
		return FRONT_nonce_foreign;
	case NONCE_EXPIRED:
		return FRONT_nonce_expired;
	case NONCE_USED:
		return FRONT_replay;
	default:
		return FRONT_nonce_malformed;
	}
	return whole_shape(&k->p) ? FRONT_forwarded : FRONT_nonce_shape;
}

/* Tries all values; the first that is worth a digest wins, else the best failure is told. */
static enum front_outcome choose(struct front_core *c, struct front_in *in, struct credentials *k)
{
	enum front_outcome best = FRONT_challenged, o;
	unsigned tried = 0;
	struct credentials one;

	for (const struct sip_hdr *h = sip_hdr_first(&in->m, SIP_HDR_PROXY_AUTHORIZATION); h != NULL && tried < CREDENTIALS_MAX;
	     h = sip_hdr_next(&in->m, h)) {
		if (digest_parse(h->value, &one.p) != 0 || one.p.realm.p == NULL || one.p.nonce.p == NULL) {
			o = FRONT_credentials_malformed;
		} else if (!our_realm(&c->sh->tenant[in->tenant], one.p.realm, &one.epoch)) {
			o = FRONT_realm;
		} else {
			tried++;
			o = look(c, in, &one);
		}
		if (o == FRONT_forwarded || o == FRONT_replay) {
			*k = one;
			in->proof = h;
			return o;
		}
		if (o > best)
			best = o;
	}
	return best;
}

/* Nothing but these may be put into a URI and a database. */
static bool plain_name(struct span s)
{
	if (s.n == 0 || s.n > USER_NAME_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		char ch = s.p[i];
		if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') || (ch >= '0' && ch <= '9') || ch == '.' || ch == '_' ||
		      ch == '-'))
			return false;
	}
	return true;
}

static bool stale_answer(enum front_outcome o)
{
	return o == FRONT_nonce_malformed || o == FRONT_nonce_foreign || o == FRONT_nonce_expired || o == FRONT_epoch;
}

/* What somebody whom nothing else refuses may be refused for. True when it was. */
static bool refused(struct front_core *c, struct front_in *in, const struct call_grant *g, struct front_action *out)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct front_policy *p = core_policy(c, in->tenant);
	const struct front_agent *a = atomic_load_explicit(&t->agent, memory_order_acquire);
	const struct span user[] = {SPAN_LIT("user"), span_str(t->domain), g->user};
	struct span service[] = {SPAN_LIT("service"), span_str(t->domain), {NULL, 0}};
	const struct front_service *s;
	uint32_t wait;

	/* it goes to another front at once, and finds this one, started again, a while later */
	if (atomic_load_explicit(&c->sh->draining, memory_order_relaxed)) {
		call_refuse(c, in, 503, "Service Unavailable", 5, FRONT_draining, out);
		return true;
	}
	if (g->user.p != NULL && core_view(c, in->tenant, in->now_ms, in->unix_s)->stale) {
		call_refuse(c, in, 503, "Service Unavailable", 5, FRONT_feed_stale, out);
		return true;
	}
	if (g->user.p != NULL && p->user_calls_per_s > 0 &&
	    (wait = budget_take(c->sh->budgets, core_hash(c, user, 3), p->user_calls_per_s, in->now_ms)) > 0) {
		call_refuse(c, in, 503, "Service Unavailable", wait / 1000 + 1, FRONT_user_budget, out);
		return true;
	}
	/* Names that nobody has offered share one budget: a caller cannot fill the table with names. */
	s = g->hop != FRONT_HOP_AGENT ? front_policy_service(p, g->service) : NULL;
	if (s != NULL) /* a reload may just have taken it away */
		service[2] = span_str(s->name);
	for (unsigned i = 0; g->hop == FRONT_HOP_AGENT && a != NULL && i < a->nservices; i++)
		if (span_eq(g->service, span_str(a->service[i])))
			service[2] = g->service;
	if (p->service_calls_per_s > 0 &&
	    (wait = budget_take(c->sh->budgets, core_hash(c, service, 3), p->service_calls_per_s, in->now_ms)) > 0) {
		call_refuse(c, in, 503, "Service Unavailable", wait / 1000 + 1, FRONT_service_budget, out);
		return true;
	}
	if (!core_reaches(c, in->tenant, g->hop) || (g->hop == FRONT_HOP_AGENT && a == NULL)) {
		call_refuse(c, in, 503, "Service Unavailable", 1, g->hop == FRONT_HOP_AGENT ? FRONT_no_agent : FRONT_no_hop, out);
		return true;
	}
	if (in->m.max_forwards == 0) {
		call_refuse(c, in, 483, "Too Many Hops", 0, FRONT_too_many_hops, out);
		return true;
	}
	return false;
}

/* A service whose configuration asks for no proof: everybody's call goes on, within the service's budget. */
static void open_invite(struct front_core *c, struct front_in *in, const struct sip_uri *uri, unsigned hop, struct front_action *out)
{
	const struct call_grant grant = {
		.service = uri->user, .hop = hop, .key = TXN_NO_KEY, .call = call_key(c, &in->m), .branch = core_branch(c, in)};

	if (!call_open_retransmission(c, in, grant.call, grant.branch, out) && !refused(c, in, &grant, out))
		call_begin(c, in, &grant, out);
}

void auth_invite(struct front_core *c, struct front_in *in, const struct sip_uri *uri, struct front_action *out)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct front_service *s = front_policy_service(core_policy(c, in->tenant), uri->user);
	const struct tenant_view *v;
	uint8_t session[SESSION_KEY_BYTES];
	struct user_keys keys;
	struct sip_uri digest_uri;
	struct credentials k;
	enum front_outcome o;
	const uint8_t *ha1;
	bool known, proven;

	if (s != NULL && !s->authenticate) {
		open_invite(c, in, uri, s->hop, out);
		return;
	}
	v = core_view(c, in->tenant, in->now_ms, in->unix_s);
	/* A front that has never heard of its users cannot tell anybody that a secret is wrong: silence sends them to another front. */
	if (v->empty) {
		core_done(c, out, FRONT_no_agent);
		return;
	}
	o = choose(c, in, &k);
	if (o == FRONT_replay || o == FRONT_forwarded)
		in->user = k.p.username;
	if (o == FRONT_replay) {
		if (!call_retransmission(c, in, k.number, out))
			core_done(c, out, FRONT_replay);
		return;
	}
	if (o == FRONT_forwarded && k.epoch != v->epoch && !(v->rotates && k.epoch == v->epoch + 1))
		o = FRONT_epoch;
	if (o != FRONT_forwarded) {
		challenge(c, in, stale_answer(o), o, out);
		return;
	}

	known = user_table_find(t->users, k.p.username, k.epoch, &keys);
	known = known && (keys.flags & (k.p.alg == DIGEST_SHA256 ? USER_HAS_SHA256 : USER_HAS_MD5)) != 0 && plain_name(k.p.username);
	ha1 = k.p.alg == DIGEST_SHA256 ? keys.sha256 : keys.md5;
	proven = digest_verify(c->digest, &k.p, ha1, in->m.method_text, in->m.body);
	o = FRONT_forwarded;
	if (!known || !proven)
		o = k.exhausted ? FRONT_nonce_exhausted : known ? FRONT_digest : FRONT_unknown_user;
	/* A plain next hop opens nothing. SIPp names in the digest where it sends to, even with auth-int, and IPv6 without brackets. */
	else if (s == NULL &&
		 (sip_parse_uri(k.p.uri, &digest_uri) != 0 || (k.p.qop == DIGEST_QOP_AUTH_INT && !span_eq(k.p.uri, in->m.uri))))
		o = FRONT_uri_mismatch;
	if (o != FRONT_forwarded) {
		nonce_fail(c->sh->nonces, k.number);
		challenge(c, in, false, o, out);
		goto out;
	}
	switch (nonce_use(c->sh->nonces, k.number)) {
	case NONCE_OK:
		break;
	case NONCE_EXPIRED:
		challenge(c, in, true, FRONT_nonce_expired, out);
		goto out;
	default:
		core_done(c, out, FRONT_replay);
		goto out;
	}

	struct call_grant grant = {.user = k.p.username,
				   .service = uri->user,
				   .hop = s != NULL ? s->hop : FRONT_HOP_AGENT,
				   .key = k.number,
				   .session_key = session,
				   .auth_int = k.p.qop == DIGEST_QOP_AUTH_INT};
	out->trusted = true;
	if (refused(c, in, &grant, out))
		goto out;
	grant.call = call_key(c, &in->m);
	grant.branch = core_branch(c, in);
	if (grant.hop == FRONT_HOP_AGENT &&
	    session_key_derive(ha1, digest_len(k.p.alg), k.p.nonce, k.p.cnonce, in->m.call_id, uri->user, session) != 0) {
		core_done(c, out, FRONT_malformed);
		goto out;
	}
	call_begin(c, in, &grant, out);
out:
	sodium_memzero(&keys, sizeof(keys));
	sodium_memzero(session, sizeof(session));
}

void auth_put_nextnonce(struct front_core *c, unsigned tenant, const struct front_flow *flow, uint64_t now_ms, uint64_t unix_s,
			struct sip_buf *b)
{
	const struct tenant_view *v = core_view(c, tenant, now_ms, unix_s);
	char nonce[NONCE_CHARS];

	if (b->len + sizeof("Proxy-Authentication-Info: nextnonce=\"\"\r\n") + NONCE_CHARS > ANSWER_MTU)
		return;
	nonce_issue(&c->issuer, &flow->addr, span_of(v->realm, v->realm_n), front_flow_scope(flow->id), now_ms, nonce);
	sip_put(b, SPAN_LIT("Proxy-Authentication-Info: nextnonce=\""));
	sip_put(b, span_of(nonce, sizeof(nonce)));
	sip_put(b, SPAN_LIT("\"\r\n"));
}
