/* SPDX-License-Identifier: Apache-2.0 */
/* In-dialog requests keep no state here: the route token proves that the front once accepted this client, and what a response needs to
 * find its way back stands, with a MAC, in our Via branch. */
#include <sodium.h>
#include <string.h>

#include "base/b64.h"
#include "front/internal.h"

/* Branch of a client's request on its way to the agent: where answers go. */
struct down {
	uint8_t ip[16];
	uint8_t port[2];
	uint8_t request[8]; /* hash of the caller's branch: equal for a retransmission, as RFC 3261 16.11 asks */
	uint8_t mac[8];
};
/* Branch of an agent's request on its way to a client: whose answers these are. */
struct up {
	uint8_t tenant[2];
	uint8_t request[8];
	uint8_t mac[8];
};
#define DOWN_CHARS B64URL_LEN(sizeof(struct down))
#define UP_CHARS   B64URL_LEN(sizeof(struct up))
_Static_assert(sizeof(struct down) == 34 && sizeof(struct up) == 18, "bytes of a branch");

static void down_mac(const struct front_core *c, const struct down *d, unsigned tenant, uint8_t mac[8])
{
	const struct span piece[] = {SPAN_LIT("down"), span_of(&tenant, sizeof(tenant)), span_of(d, offsetof(struct down, mac))};
	uint64_t h = core_hash(c, piece, 3);

	memcpy(mac, &h, 8);
}

static void up_mac(const struct front_core *c, const struct up *u, const struct wn_addr *client, uint8_t mac[8])
{
	const struct span piece[] = {SPAN_LIT("up"), span_of(u, offsetof(struct up, mac)), span_of(client->ip, 16)};
	uint64_t h = core_hash(c, piece, 3);

	memcpy(mac, &h, 8);
}

static void put_via(const struct front_core *c, struct sip_buf *b, const char *transport, char kind, const void *raw, size_t n)
{
	char text[64], hex[2];
	uint8_t worker = (uint8_t)c->worker;

	hex_encode(&worker, 1, hex);
	sip_printf(b, "Via: SIP/2.0/%s %s;branch=" BRANCH_MAGIC "%c%.2s", transport, c->sh->host, kind, hex);
	sip_put(b, span_of(text, b64url_encode(raw, n, text)));
	if (kind == 'u')
		sip_put(b, SPAN_LIT(";rport"));
	sip_put(b, SPAN_LIT("\r\n"));
}

/* The bytes behind a branch of that kind. */
static bool branch_open(struct span branch, char kind, void *raw, size_t n)
{
	const size_t head = sizeof(BRANCH_MAGIC) - 1 + 3;

	return branch.n == head + B64URL_LEN(n) && memcmp(branch.p, BRANCH_MAGIC, sizeof(BRANCH_MAGIC) - 1) == 0 &&
	       branch.p[sizeof(BRANCH_MAGIC) - 1] == kind && b64url_decode(span_of(branch.p + head, branch.n - head), raw, n) == (long)n;
}

/* A request as it goes on: ours on top of the Vias, the way behind it. 0: it does not fit. */
static size_t pass_request(const struct front_core *c, const struct front_in *in, char kind, const void *raw, size_t n, char *to)
{
	const bool down = kind == 'd';
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	sip_put(&b, in->m.method_text);
	sip_putc(&b, ' ');
	sip_put(&b, in->m.uri);
	sip_put(&b, SPAN_LIT(" SIP/2.0\r\n"));
	put_via(c, &b, down ? "TLS" : "UDP", kind, raw, n);
	if (down)
		sip_put_vias(&b, &in->m, in->src);
	sip_printf(&b, "Max-Forwards: %d\r\n", in->m.max_forwards < 0 ? 69 : in->m.max_forwards - 1);
	rewrite_headers(&b, &in->m, REWRITE_ROUTE_TOP | (down ? REWRITE_CREDENTIALS : REWRITE_VIA_KEEP),
			span_str(c->sh->tenant[in->tenant].domain));
	rewrite_end(&b, &in->m);
	return b.overflow ? 0 : b.len;
}

/* A response as it goes on. 0: it does not fit. */
static size_t pass_response(const struct front_in *in, char *to)
{
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	rewrite_response(&b, &in->m);
	rewrite_end(&b, &in->m);
	return b.overflow ? 0 : b.len;
}

/* What one token, or one client, may put on the link. */
static bool over_budget(struct front_core *c, const struct front_in *in, struct span of, struct span who)
{
	const struct span piece[] = {of, who};

	return budget_take(c->sh->budgets, core_hash(c, piece, 2), IN_DIALOG_PER_S, in->now_ms) > 0;
}

void dialog_from_client(struct front_core *c, struct front_in *in, struct front_action *out)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct front_agent *a = atomic_load_explicit(&t->agent, memory_order_acquire);
	struct span text = rewrite_route_user(&in->m);
	struct route_token token;
	struct down d;

	if (text.p == NULL || text.n != ROUTE_TOKEN_CHARS) {
		core_done(c, out, in->m.method == SIP_ACK ? FRONT_ack_absorbed : FRONT_in_dialog_no_token);
		return;
	}
	if (a == NULL || route_token_open(text, a->route_key, (uint32_t)in->unix_s, &token) != 0 || !wn_ip_eq(&token.client, in->src)) {
		core_done(c, out, FRONT_in_dialog_bad_token);
		return;
	}
	/* Somebody who saw a token can spoof its client: what one token may put on the link is bounded. */
	if (over_budget(c, in, SPAN_LIT("token"), text)) {
		core_done(c, out, FRONT_in_dialog_budget);
		return;
	}
	if (!atomic_load_explicit(&t->connected, memory_order_acquire) || !c->room) {
		if (in->m.method == SIP_ACK)
			core_done(c, out, FRONT_no_agent);
		else
			call_refuse(c, in, 503, "Service Unavailable", 1, FRONT_no_agent, out);
		return;
	}
	if (in->m.max_forwards == 0) {
		if (in->m.method == SIP_ACK)
			core_done(c, out, FRONT_too_many_hops);
		else
			call_refuse(c, in, 483, "Too Many Hops", 0, FRONT_too_many_hops, out);
		return;
	}

	uint64_t request = core_branch(c, in);
	memcpy(d.ip, in->src->ip, sizeof(d.ip));
	memcpy(d.port, &in->src->port, sizeof(d.port));
	memcpy(d.request, &request, sizeof(d.request));
	down_mac(c, &d, in->tenant, d.mac);
	out->agent_n = pass_request(c, in, 'd', &d, sizeof(d), out->agent);
	if (out->agent_n == 0) {
		core_done(c, out, FRONT_malformed);
		return;
	}
	out->tenant = in->tenant;
	if (in->m.method == SIP_ACK)
		call_acknowledged(c, in);
	core_done(c, out, FRONT_forwarded_in_dialog);
}

void dialog_response_from_agent(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct down d;
	uint8_t mac[8];

	if (!branch_open(in->m.via.branch, 'd', &d, sizeof(d))) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	down_mac(c, &d, in->tenant, mac);
	if (sodium_memcmp(mac, d.mac, sizeof(mac)) != 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->net_n = pass_response(in, out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	memcpy(out->to.ip, d.ip, sizeof(d.ip));
	memcpy(&out->to.port, d.port, sizeof(d.port));
	core_done(c, out, FRONT_relayed_response);
}

void dialog_from_agent(struct front_core *c, struct front_in *in, struct front_action *out)
{
	const struct front_agent *a = atomic_load_explicit(&c->sh->tenant[in->tenant].agent, memory_order_acquire);
	struct span text = rewrite_route_user(&in->m);
	const struct span piece[] = {in->m.via.branch, in->m.call_id};
	struct route_token token;
	uint64_t request;
	struct up u;

	/* Only to where the tenant's own token says, so an agent's connection is no way to send to anybody. */
	if (a == NULL || text.p == NULL || route_token_open(text, a->route_key, (uint32_t)in->unix_s, &token) != 0 ||
	    token.client.port == 0 || in->m.max_forwards == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	request = core_hash(c, piece, 2);
	u.tenant[0] = (uint8_t)(in->tenant >> 8);
	u.tenant[1] = (uint8_t)in->tenant;
	memcpy(u.request, &request, sizeof(u.request));
	up_mac(c, &u, &token.client, u.mac);
	out->net_n = pass_request(c, in, 'u', &u, sizeof(u), out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->to = token.client;
	core_done(c, out, FRONT_relayed_request);
}

void dialog_response_from_client(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct up u;
	uint8_t mac[8];

	if (!branch_open(in->m.via.branch, 'u', &u, sizeof(u))) {
		core_done(c, out, FRONT_response);
		return;
	}
	up_mac(c, &u, in->src, mac);
	in->tenant = (unsigned)u.tenant[0] << 8 | u.tenant[1];
	if (sodium_memcmp(mac, u.mac, sizeof(mac)) != 0 || in->tenant >= c->sh->ntenants) {
		core_done(c, out, FRONT_response);
		return;
	}
	if (over_budget(c, in, SPAN_LIT("client"), span_of(in->src->ip, 16))) {
		core_done(c, out, FRONT_in_dialog_budget);
		return;
	}
	if (!atomic_load_explicit(&c->sh->tenant[in->tenant].connected, memory_order_acquire) || !c->room) {
		core_done(c, out, FRONT_no_agent);
		return;
	}
	out->agent_n = pass_response(in, out->agent);
	if (out->agent_n == 0) {
		core_done(c, out, FRONT_malformed);
		return;
	}
	out->tenant = in->tenant;
	core_done(c, out, FRONT_relayed_response);
}
