/* SPDX-License-Identifier: Apache-2.0 */
/* The first look at a datagram: what it is worth, for a fraction of what parsing costs. A flood is received as fast as this file lets it.
 */
#include <string.h>
#include <strings.h>

#include "front/internal.h"
#include "sip/quick.h"

#define CREDENTIALS_MAX 4 /* Proxy-Authorization headers that are looked at */

/* A start line's URI, found without parsing. */
struct target {
	int tenant; /* -1: nobody's */
	struct span user;
};

static struct target target_of(const struct front_core *c, struct span line)
{
	struct target t = {-1, {NULL, 0}};
	const char *sip = memchr(line.p, ' ', line.n), *end, *host, *p;

	if (sip == NULL || (size_t)(line.p + line.n - sip) < 6 || memcmp(sip, " sip:", 5) != 0)
		return t;
	host = sip + 5;
	end = memchr(host, ' ', (size_t)(line.p + line.n - host));
	if (end == NULL)
		return t;
	p = memchr(host, '@', (size_t)(end - host));
	if (p != NULL) {
		const char *colon = memchr(host, ':', (size_t)(p - host));

		t.user = span_of(host, (size_t)((colon != NULL ? colon : p) - host));
		host = p + 1;
	}
	for (p = host; p < end && *p != ';' && *p != ':' && *p != '?'; p++)
		;
	for (unsigned i = 0; i < c->sh->ntenants && t.tenant < 0; i++)
		if (!atomic_load_explicit(&c->sh->tenant[i].gone, memory_order_relaxed) &&
		    span_caseeq(span_of(host, (size_t)(p - host)), span_str(c->sh->tenant[i].domain)))
			t.tenant = (int)i;
	return t;
}

/* The values of nonce="…" and realm="…"; p == NULL: none. */
static void quoted(struct span line, struct span *nonce, struct span *realm)
{
	const char *p = line.p, *end = p + line.n, *open, *close;

	*nonce = *realm = span_of(NULL, 0);
	for (; (open = memchr(p, '"', (size_t)(end - p))) != NULL; p = close + 1) {
		bool named = open - p >= 7 && (open[-7] == ' ' || open[-7] == ',' || open[-7] == '\t');

		close = memchr(open + 1, '"', (size_t)(end - open - 1));
		if (close == NULL)
			return;
		if (named && nonce->p == NULL && memcmp(open - 6, "nonce=", 6) == 0)
			*nonce = span_of(open + 1, (size_t)(close - open - 1));
		else if (named && realm->p == NULL && memcmp(open - 6, "realm=", 6) == 0)
			*realm = span_of(open + 1, (size_t)(close - open - 1));
		if (nonce->p != NULL && realm->p != NULL)
			return;
	}
}

/* Seldom more than one: the next Proxy-Authorization behind `after`. */
static bool next_credentials(struct span in, const char *after, struct span *value)
{
	static const char name[] = "Proxy-Authorization:";
	const char *p = after, *end = in.p + in.n, *lf;

	while ((p = memchr(p, '\n', (size_t)(end - p))) != NULL && ++p < end && *p != '\r') {
		if ((size_t)(end - p) < sizeof(name) - 1 || strncasecmp(p, name, sizeof(name) - 1) != 0)
			continue;
		p += sizeof(name) - 1;
		lf = memchr(p, '\n', (size_t)(end - p));
		if (lf == NULL)
			return false;
		*value = span_of(p, (size_t)(lf - p));
		return true;
	}
	return false;
}

static uint64_t address_key(const struct front_core *c, const struct wn_addr *a)
{
	const bool four = wn_addr_is4(a);
	const struct span piece[] = {SPAN_LIT("address"), span_of(four ? a->ip + 12 : a->ip, four ? 4 : 8)};

	return core_hash(c, piece, 2);
}

enum token { TOKEN_NONE, TOKEN_GOOD, TOKEN_BAD, TOKEN_UNSURE };

static enum token look_token(const struct front_core *c, const struct front_in *in, const struct sip_quick *q, const struct target *to,
			     struct front_look *look)
{
	struct span text = q->route_user;
	const struct front_agent *a;
	struct route_token token;

	if (text.p == NULL || text.n < ROUTE_TOKEN_CHARS || text.n > 1 + ROUTE_TOKEN_CHARS)
		return TOKEN_NONE;
	if (text.n == 1 + ROUTE_TOKEN_CHARS) {
		bool hop;

		if (text.p[0] != PLAIN_MARK)
			return TOKEN_NONE;
		text = span_of(text.p + 1, ROUTE_TOKEN_CHARS);
		if (route_token_open(text, c->sh->hop_key, (uint32_t)in->unix_s, &token) != 0)
			return TOKEN_BAD;
		hop = dialog_of_hop(c, in->flow, &token);
		if (!hop && !wn_ip_eq(&token.client, in->src))
			return TOKEN_BAD;
		/* either side by itself: who spoofs the hop must be bounded, and must not slow the caller */
		look->held = hop ? ~core_token_key(text) : core_token_key(text);
	} else {
		if (to->tenant < 0)
			return TOKEN_UNSURE;
		a = atomic_load_explicit(&c->sh->tenant[to->tenant].agent, memory_order_acquire);
		if (a == NULL || route_token_open(text, a->route_key, (uint32_t)in->unix_s, &token) != 0 ||
		    !wn_ip_eq(&token.client, in->src))
			return TOKEN_BAD;
		look->held = core_token_key(text);
	}
	/* What keeps failing behind one good token is no better than what has none. */
	if (look->held != 0 && failures_over(c->failures, look->held, in->now_ms))
		return TOKEN_UNSURE;
	return TOKEN_GOOD;
}

/* The realm is that of the tenant that the request is for, and the service one that asks for proof: a used nonce is then a replay, or the
 * very request that used it. */
static bool asks_for_proof(const struct front_core *c, const struct target *to, struct span realm)
{
	const struct front_service *s;
	size_t n;

	if (to->tenant < 0)
		return false;
	n = strlen(c->sh->tenant[to->tenant].domain);
	if (realm.n <= n || memcmp(realm.p, c->sh->tenant[to->tenant].domain, n) != 0 || realm.p[n] != '/')
		return false;
	s = front_policy_service(core_policy(c, (unsigned)to->tenant), to->user);
	return s == NULL || s->authenticate;
}

static enum front_class look_nonce(struct front_core *c, struct front_in *in, const struct sip_quick *q, const struct target *to,
				   struct front_look *look, struct front_action *out)
{
	struct span value = q->proxy_authorization, nonce, realm;
	uint64_t number;

	for (unsigned i = 0; i < CREDENTIALS_MAX && (i == 0 || next_credentials(in->raw, value.p, &value)); i++) {
		quoted(value, &nonce, &realm);
		if (nonce.n != NONCE_CHARS || realm.p == NULL)
			continue;
		switch (nonce_check(c->sh->nonces, nonce, in->src, realm, front_flow_scope(in->flow->id), in->now_ms, &number)) {
		case NONCE_OK:
			look->held = address_key(c, in->src);
			return failures_over(c->failures, look->held, in->now_ms) ? FRONT_CLASS_STRANGER : FRONT_CLASS_FIRST;
		case NONCE_USED:
			if (q->nproxy_authorization > 1 || q->nroute > 0 || !asks_for_proof(c, to, realm))
				return FRONT_CLASS_STRANGER;
			in->tenant = (unsigned)to->tenant;
			if (!call_retransmission(c, in, number, out))
				core_done(c, out, FRONT_replay);
			return FRONT_CLASS_DONE;
		default:
			break;
		}
		if (q->nproxy_authorization == 1)
			break;
	}
	return FRONT_CLASS_STRANGER;
}

static enum front_class dropped(struct front_core *c, struct front_action *out, enum front_outcome o)
{
	core_done(c, out, o);
	return FRONT_CLASS_DONE;
}

static enum front_class look_request(struct front_core *c, struct front_in *in, const struct sip_quick *q, struct front_look *look,
				     struct front_action *out)
{
	struct target to = target_of(c, q->start_line);
	enum token token = q->nroute > 0 ? look_token(c, in, q, &to, look) : TOKEN_NONE;

	look->share = to.tenant < 0 ? c->sh->ntenants : (unsigned)to.tenant;
	if (token == TOKEN_GOOD)
		return FRONT_CLASS_FIRST;
	if (token == TOKEN_UNSURE)
		return FRONT_CLASS_STRANGER;
	switch (q->method) {
	case SIP_INVITE:
		return q->nproxy_authorization > 0 ? look_nonce(c, in, q, &to, look, out) : FRONT_CLASS_STRANGER;
	case SIP_ACK:
		/* It may end the repetition of a refusal, when one is being repeated. */
		return txn_completed(c->txns) > 0 ? FRONT_CLASS_STRANGER : dropped(c, out, FRONT_ack_absorbed);
	case SIP_CANCEL:
		return txn_count(c->txns) > 0 ? FRONT_CLASS_STRANGER : dropped(c, out, FRONT_cancel_ignored);
	case SIP_BYE:
	case SIP_INFO:
	case SIP_UPDATE:
		return dropped(c, out, token == TOKEN_BAD ? FRONT_in_dialog_bad_token : FRONT_in_dialog_no_token);
	default:
		return dropped(c, out, token == TOKEN_BAD ? FRONT_in_dialog_bad_token : FRONT_method);
	}
}

enum front_class front_core_look(struct front_core *c, struct span in, const struct front_flow *from, uint64_t now_ms, uint64_t unix_s,
				 struct front_look *look, struct front_action *out)
{
	struct sip_quick q;
	struct front_in f;

	core_clear(out);
	*look = (struct front_look){.share = c->sh->ntenants};
	look->class = FRONT_CLASS_STRANGER;
	if (!core_worth_parsing(c, in, out)) {
		look->class = FRONT_CLASS_DONE;
	} else if (sip_quick(in, &q) && q.request) {
		/* its message stays unset: whoever is called from here looks at the raw bytes alone */
		f.raw = in;
		f.flow = from;
		f.src = &from->addr;
		f.now_ms = now_ms;
		f.unix_s = unix_s;
		f.tenant = 0;
		f.hop = FRONT_HOP_AGENT;
		look->class = look_request(c, &f, &q, look, out);
	}
	if (look->class != FRONT_CLASS_FIRST)
		look->held = 0;
	return look->class;
}

void front_core_looked(struct front_core *c, const struct front_look *look, const struct front_action *out, uint64_t now_ms)
{
	const bool good = (out->trusted && out->outcome != FRONT_in_dialog_budget) || out->outcome == FRONT_relayed_request;

	if (look->held != 0 && !good)
		failures_add(c->failures, look->held, now_ms);
}

void front_core_no_room(struct front_core *c)
{
	struct front_action out;

	core_done(c, &out, FRONT_stranger_budget);
}
