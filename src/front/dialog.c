/* SPDX-License-Identifier: Apache-2.0 */
/* In-dialog requests keep no state here: the route token proves that the front once accepted this client, and what a response needs to
 * find its way back stands, with a MAC, in our Via branch. */
#include <sodium.h>
#include <string.h>

#include "base/b64.h"
#include "front/internal.h"

/* Branch of a client's request on its way to the service: where answers go. */
struct down {
	uint8_t ip[16];
	uint8_t port[2];
	uint8_t flow[8];
	uint8_t request[8]; /* hash of the caller's branch: equal for a retransmission, as RFC 3261 16.11 asks */
	uint8_t mac[8];
};
/* Branch of a service's request on its way to a client: whose answers these are. */
struct up {
	uint8_t tenant[2];
	uint8_t hop[2];
	uint8_t request[8];
	uint8_t mac[8];
};
#define DOWN_CHARS B64URL_LEN(sizeof(struct down))
#define UP_CHARS   B64URL_LEN(sizeof(struct up))
_Static_assert(sizeof(struct down) == 42 && sizeof(struct up) == 20, "bytes of a branch");

/* Whose side answers: a tenant's agent, or a hop. */
static void down_mac(const struct front_core *c, const struct down *d, unsigned tenant, unsigned hop, uint8_t mac[8])
{
	const unsigned side = hop == FRONT_HOP_AGENT ? tenant : FRONT_TENANTS_MAX + hop;
	const struct span piece[] = {SPAN_LIT("down"), span_of(&side, sizeof(side)), span_of(d, offsetof(struct down, mac))};
	uint64_t h = core_hash(c, piece, 3);

	memcpy(mac, &h, 8);
}

static void up_mac(const struct front_core *c, const struct up *u, const struct wn_addr *client, uint8_t mac[8])
{
	const struct span piece[] = {SPAN_LIT("up"), span_of(u, offsetof(struct up, mac)), span_of(client->ip, 16)};
	uint64_t h = core_hash(c, piece, 3);

	memcpy(mac, &h, 8);
}

/* Where a request goes on its way, as our Via says it. */
struct way {
	char kind; /* 'd' or 'u' */
	const char *transport, *host;
	const void *raw;
	size_t n;
};

static void put_via(const struct front_core *c, struct sip_buf *b, const struct way *w)
{
	char text[64], hex[2];
	uint8_t worker = (uint8_t)c->worker;

	_Static_assert(DOWN_CHARS <= sizeof(text) && UP_CHARS <= sizeof(text), "a branch fits");
	hex_encode(&worker, 1, hex);
	sip_put(b, SPAN_LIT("Via: SIP/2.0/"));
	sip_puts(b, w->transport);
	sip_putc(b, ' ');
	sip_puts(b, w->host);
	sip_put(b, SPAN_LIT(";branch=" BRANCH_MAGIC));
	sip_putc(b, w->kind);
	sip_put(b, span_of(hex, sizeof(hex)));
	sip_put(b, span_of(text, b64url_encode(w->raw, w->n, text)));
	if (w->kind == 'u')
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
static size_t pass_request(const struct front_core *c, const struct front_in *in, const struct way *w, char *to)
{
	const bool down = w->kind == 'd';
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	sip_put(&b, in->m.method_text);
	sip_putc(&b, ' ');
	sip_put(&b, in->m.uri);
	sip_put(&b, SPAN_LIT(" SIP/2.0\r\n"));
	put_via(c, &b, w);
	if (down)
		sip_put_vias(&b, &in->m, in->src);
	rewrite_max_forwards(&b, &in->m);
	rewrite_headers(&b, &in->m, REWRITE_ROUTE_TOP | (down ? REWRITE_CREDENTIALS : REWRITE_VIA_KEEP),
			span_str(c->sh->tenant[in->tenant].domain), NULL);
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
static bool over_budget(struct front_core *c, const struct front_in *in, uint64_t key)
{
	return budget_take(c->sh->budgets, key, IN_DIALOG_PER_S, in->now_ms) > 0;
}

/* A token serves the one dialog that it was made for. */
static bool token_fits(const struct front_in *in, struct span text, const uint8_t key[static ROUTE_KEY_BYTES], struct route_token *token)
{
	return route_token_open(text, key, (uint32_t)in->unix_s, token) == 0 && token->call == route_token_call(in->m.call_id, key);
}

/* A dialog's requests keep their order: its ACK before its BYE. */
static uint32_t token_order(struct span token)
{
	uint32_t order;

	memcpy(&order, token.p + token.n - sizeof(order), sizeof(order));
	return order | 1;
}

/* The request of a client whose token is good. */
static void to_service(struct front_core *c, struct front_in *in, struct span token, unsigned hop, struct front_action *out)
{
	struct way w = {.kind = 'd', .transport = hop == FRONT_HOP_AGENT ? "TLS" : front_transport_via(c->sh->hop[hop].transport)};
	uint64_t request;
	struct down d;

	out->trusted = true;
	/* Somebody who saw a token can spoof its client: what one token may put on the link is bounded. */
	if (over_budget(c, in, core_token_key(token))) {
		core_done(c, out, FRONT_in_dialog_budget);
		return;
	}
	if (!core_reaches(c, in->tenant, hop)) {
		enum front_outcome o = hop == FRONT_HOP_AGENT ? FRONT_no_agent : FRONT_no_hop;

		if (in->m.method == SIP_ACK)
			core_done(c, out, o);
		else
			call_refuse(c, in, 503, "Service Unavailable", 1, o, out);
		return;
	}
	if (in->m.max_forwards == 0) {
		if (in->m.method == SIP_ACK)
			core_done(c, out, FRONT_too_many_hops);
		else
			call_refuse(c, in, 483, "Too Many Hops", 0, FRONT_too_many_hops, out);
		return;
	}

	request = core_branch(c, in);
	memcpy(d.ip, in->src->ip, sizeof(d.ip));
	memcpy(d.port, &in->src->port, sizeof(d.port));
	memcpy(d.flow, &in->flow->id, sizeof(d.flow));
	memcpy(d.request, &request, sizeof(d.request));
	down_mac(c, &d, in->tenant, hop, d.mac);
	w.host = core_far_host(c, in, hop);
	w.raw = &d;
	w.n = sizeof(d);
	out->agent_n = pass_request(c, in, &w, out->agent);
	if (out->agent_n == 0) {
		core_done(c, out, FRONT_malformed);
		return;
	}
	out->tenant = in->tenant;
	out->hop = hop;
	out->order = token_order(token);
	if (in->m.method == SIP_ACK)
		call_acknowledged(c, in);
	core_done(c, out, FRONT_forwarded_in_dialog);
}

void dialog_from_client(struct front_core *c, struct front_in *in, struct front_action *out)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct front_agent *a = atomic_load_explicit(&t->agent, memory_order_acquire);
	struct span text = rewrite_route_user(&in->m);
	struct route_token token;

	if (text.p == NULL || text.n != ROUTE_TOKEN_CHARS)
		core_done(c, out, in->m.method == SIP_ACK ? FRONT_ack_absorbed : FRONT_in_dialog_no_token);
	else if (a == NULL || !token_fits(in, text, a->route_key, &token) || !wn_ip_eq(&token.client, in->src))
		core_done(c, out, FRONT_in_dialog_bad_token);
	else
		to_service(c, in, text, FRONT_HOP_AGENT, out);
}

/* A request of the service's side goes to the client that the token names, and nowhere else. */
static void to_client(struct front_core *c, struct front_in *in, const struct route_token *token, unsigned hop, struct front_action *out)
{
	const struct front_listener *l = core_listener(c, token->flow);
	const struct span piece[] = {in->m.via.branch, in->m.call_id};
	struct way w = {.kind = 'u', .transport = front_transport_via(l->transport), .host = l->host};
	uint64_t request = core_hash(c, piece, 2);
	struct up u = {{(uint8_t)(in->tenant >> 8), (uint8_t)in->tenant}, {(uint8_t)(hop >> 8), (uint8_t)hop}, {0}, {0}};

	memcpy(u.request, &request, sizeof(u.request));
	up_mac(c, &u, &token->client, u.mac);
	w.raw = &u;
	w.n = sizeof(u);
	out->net_n = pass_request(c, in, &w, out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->to = (struct front_flow){token->client, token->flow};
	out->order = token->call | 1;
	core_done(c, out, FRONT_relayed_request);
}

uint64_t dialog_plain_name(unsigned tenant, unsigned hop)
{
	return (uint64_t)tenant << 32 | hop;
}

bool dialog_is_plain(const struct sip_msg *m, struct span *text)
{
	struct span user = rewrite_route_user(m);

	if (user.p == NULL || user.n != 1 + ROUTE_TOKEN_CHARS || user.p[0] != PLAIN_MARK)
		return false;
	*text = span_of(user.p + 1, user.n - 1);
	return true;
}

bool dialog_of_hop(const struct front_core *c, const struct front_flow *from, const struct route_token *token)
{
	const struct front_hop *h = &c->sh->hop[(unsigned)token->agent];
	const struct front_flow client = {token->client, token->flow};

	if (h->transport == FRONT_UDP)
		return wn_addr_eq(&from->addr, &h->addr);
	/* A connection of the hop's own comes from any port; the caller may live on the same host. */
	return front_flow_is_stream(from->id) && wn_ip_eq(&from->addr, &h->addr) && !front_flow_eq(from, &client);
}

void dialog_plain(struct front_core *c, struct front_in *in, struct span text, struct front_action *out)
{
	struct route_token token;
	unsigned hop;

	if (!token_fits(in, text, c->sh->hop_key, &token)) {
		core_done(c, out, FRONT_in_dialog_bad_token);
		return;
	}
	in->tenant = (unsigned)(token.agent >> 32);
	hop = (unsigned)token.agent;
	if (in->hop == hop || (in->flow != NULL && dialog_of_hop(c, in->flow, &token))) {
		out->trusted = in->flow != NULL;
		if (token.client.port == 0 || in->m.max_forwards == 0) {
			core_done(c, out, FRONT_response_dropped);
			return;
		}
		/* A datagram's source proves no hop: whoever has a token can spoof it. */
		if (in->flow != NULL && over_budget(c, in, ~core_token_key(text))) {
			core_done(c, out, FRONT_in_dialog_budget);
			return;
		}
		to_client(c, in, &token, hop, out);
	} else if (in->flow == NULL || !wn_ip_eq(&token.client, in->src)) {
		core_done(c, out, FRONT_in_dialog_bad_token);
	} else {
		to_service(c, in, text, hop, out);
	}
}

void dialog_response_from_service(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct down d;
	uint8_t mac[8];

	if (!branch_open(in->m.via.branch, 'd', &d, sizeof(d))) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	down_mac(c, &d, in->tenant, in->hop, mac);
	if (sodium_memcmp(mac, d.mac, sizeof(mac)) != 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->net_n = pass_response(in, out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	memcpy(out->to.addr.ip, d.ip, sizeof(d.ip));
	memcpy(&out->to.addr.port, d.port, sizeof(d.port));
	memcpy(&out->to.id, d.flow, sizeof(d.flow));
	core_done(c, out, FRONT_relayed_response);
}

void dialog_from_agent(struct front_core *c, struct front_in *in, struct front_action *out)
{
	const struct front_agent *a = atomic_load_explicit(&c->sh->tenant[in->tenant].agent, memory_order_acquire);
	struct span text = rewrite_route_user(&in->m);
	struct route_token token;

	/* Only to where the tenant's own token says, so an agent's connection is no way to send to anybody. */
	if (a == NULL || text.p == NULL || !token_fits(in, text, a->route_key, &token) || token.client.port == 0 || in->m.max_forwards == 0)
		core_done(c, out, FRONT_response_dropped);
	else
		to_client(c, in, &token, FRONT_HOP_AGENT, out);
}

/* To an UDP hop from where its request went in; to another over its trunk. */
static void answer_hop(struct front_core *c, const struct front_in *in, unsigned hop, struct front_action *out)
{
	const struct front_hop *h = &c->sh->hop[hop];

	if (h->transport == FRONT_UDP) {
		out->net_n = pass_response(in, out->net);
		out->to = (struct front_flow){h->addr, front_flow_id(FRONT_UDP, h->listener, 0, 0, 0)};
	} else {
		out->agent_n = pass_response(in, out->agent);
		out->hop = hop;
	}
}

void dialog_response_from_client(struct front_core *c, struct front_in *in, struct front_action *out)
{
	unsigned hop;
	struct up u;
	uint8_t mac[8];

	if (!branch_open(in->m.via.branch, 'u', &u, sizeof(u))) {
		core_done(c, out, FRONT_response);
		return;
	}
	up_mac(c, &u, in->src, mac);
	in->tenant = (unsigned)u.tenant[0] << 8 | u.tenant[1];
	hop = (unsigned)u.hop[0] << 8 | u.hop[1];
	if (sodium_memcmp(mac, u.mac, sizeof(mac)) != 0 || in->tenant >= c->sh->ntenants) {
		core_done(c, out, FRONT_response);
		return;
	}
	out->trusted = true;
	const struct span client[] = {SPAN_LIT("client"), span_of(in->src->ip, 16)};
	if (over_budget(c, in, core_hash(c, client, 2))) {
		core_done(c, out, FRONT_in_dialog_budget);
		return;
	}
	if (!core_reaches(c, in->tenant, hop)) {
		core_done(c, out, hop == FRONT_HOP_AGENT ? FRONT_no_agent : FRONT_no_hop);
		return;
	}
	out->tenant = in->tenant;
	if (hop == FRONT_HOP_AGENT)
		out->agent_n = pass_response(in, out->agent);
	else
		answer_hop(c, in, hop, out);
	core_done(c, out, out->agent_n + out->net_n > 0 ? FRONT_relayed_response : FRONT_malformed);
}
