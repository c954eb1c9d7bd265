/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "base/b64.h"
#include "front/internal.h"
#include "ticket/session_key.h"

/* Our Via towards the service's side. The branch names the transaction. */
static void put_our_via(const struct front_core *c, struct sip_buf *b, const struct txn *x)
{
	const bool agent = x->hop == FRONT_HOP_AGENT;

	char hex[2 + 16];
	uint8_t worker = (uint8_t)c->worker;

	hex_encode(&worker, 1, hex);
	hex_encode((const uint8_t *)&x->id, sizeof(x->id), hex + 2);
	sip_put(b, SPAN_LIT("Via: SIP/2.0/"));
	sip_puts(b, agent ? "TLS" : front_transport_via(c->sh->hop[x->hop].transport));
	sip_putc(b, ' ');
	sip_puts(b, agent ? core_listener(c, x->flow.id)->host : c->trunk[x->hop].host);
	sip_put(b, SPAN_LIT(";branch=" BRANCH_MAGIC "t"));
	sip_put(b, span_of(hex, sizeof(hex)));
	sip_put(b, SPAN_LIT("\r\n"));
}

static void end_call(struct front_core *c, struct txn *x)
{
	atomic_fetch_sub_explicit(&c->sh->tenant[x->tenant].calls, 1, memory_order_relaxed);
	txn_end(c->txns, x);
}

/* What a caller or a hop is told of one call comes in order: a ringing before an answer. */
static uint32_t call_order(const struct txn *x)
{
	return (uint32_t)(x->id ^ x->id >> 32) | 1;
}

/* A call has its final answer: how long it took, and, where it is a refusal, whom it refused. */
static void call_answered(struct front_core *c, const struct txn *x, enum front_outcome o, unsigned status, struct span call_id,
			  uint64_t now_ms)
{
	const struct core_event e = {o, x->exact != 0, status, now_ms, &x->flow.addr, x->tenant, call_id, txn_user(c->txns, x)};

	histogram_add(&c->call_answer, (now_ms - txn_begun_ms(c->txns, x)) * 1000000u);
	core_note(c, &e);
}

static void send_kept(const struct front_core *c, const struct txn *x, struct front_action *out)
{
	const struct span kept = txn_answer(c->txns, x);

	memcpy(out->net, kept.p, kept.n);
	out->net_n = kept.n;
	out->to = x->flow;
	out->order = call_order(x);
}

/* An INVITE, its CANCEL and its ACKs, that of a 2xx too, which is a transaction of its own, share these. */
uint64_t call_key(const struct front_core *c, const struct sip_msg *m)
{
	const struct span piece[] = {SPAN_LIT("call"), m->call_id, m->from_tag, span_of(&m->cseq, sizeof(m->cseq))};

	return core_hash(c, piece, 4);
}

/* From, To, Call-ID and CSeq of our own ACK or CANCEL towards the service, whose topmost and only Via names the transaction. */
static void put_own_request(struct front_core *c, struct sip_buf *b, const char *method, const struct txn *x, const struct sip_msg *m)
{
	sip_puts(b, method);
	sip_putc(b, ' ');
	sip_put(b, txn_uri(c->txns, x));
	sip_put(b, SPAN_LIT(" SIP/2.0\r\n"));
	put_our_via(c, b, x);
	sip_put(b, SPAN_LIT("From: "));
	sip_put(b, m->from);
	sip_put(b, SPAN_LIT("\r\nTo: "));
	sip_put(b, m->to);
	sip_put(b, SPAN_LIT("\r\nCall-ID: "));
	sip_put(b, m->call_id);
	sip_printf(b, "\r\nCSeq: %u %s\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", m->cseq, method);
}

static void put_to_service(struct front_core *c, const char *method, const struct txn *x, const struct sip_msg *m, struct front_action *out)
{
	struct sip_buf b;

	sip_buf_init(&b, out->agent, FRONT_OUT_MAX);
	put_own_request(c, &b, method, x, m);
	out->agent_n = b.overflow || !core_reaches(c, x->tenant, x->hop) ? 0 : b.len;
	out->tenant = x->tenant;
	out->hop = x->hop;
	out->order = call_order(x);
}

void call_refuse(struct front_core *c, struct front_in *in, unsigned status, const char *reason, unsigned retry_after_s,
		 enum front_outcome o, struct front_action *out)
{
	char tag[TAG_CHARS];
	struct sip_buf b;

	core_to_tag(c, in, tag);
	sip_buf_init(&b, out->net, FRONT_OUT_MAX);
	sip_put_response(&b, &in->m, status, reason, span_of(tag, sizeof(tag)), in->src);
	if (retry_after_s > 0)
		sip_printf(&b, "Retry-After: %u\r\n", retry_after_s);
	sip_put(&b, SPAN_LIT("Content-Length: 0\r\n\r\n"));
	/* Who has proven nothing gets no more than was sent. */
	if (!b.overflow && (out->trusted || b.len <= core_answer_max(in))) {
		out->net_n = b.len;
		out->to = *in->flow;
	}
	core_done(c, out, o);
}

static void put_record_route(struct sip_buf *b, const struct front_listener *l, struct span user)
{
	sip_put(b, SPAN_LIT("Record-Route: <sip:"));
	sip_put(b, user);
	sip_putc(b, '@');
	sip_puts(b, l->host);
	if (l->transport != FRONT_UDP) {
		sip_put(b, SPAN_LIT(";transport="));
		sip_puts(b, front_transport_name(l->transport));
	}
	sip_put(b, SPAN_LIT(";lr>\r\n"));
}

/* Where requests of this dialog come by: on the caller's side, and before it, where that is another, on the hop's (RFC 5658). */
static void put_record_routes(const struct front_core *c, struct sip_buf *b, const struct front_in *in, const struct txn *x,
			      const struct front_agent *a)
{
	const bool agent = x->hop == FRONT_HOP_AGENT;
	const struct front_listener *near = core_listener(c, in->flow->id),
				    *far = agent ? near : &c->sh->listener[c->sh->hop[x->hop].listener];
	const uint8_t *key = agent ? a->route_key : c->sh->hop_key;
	struct route_token token = {.client = *in->src,
				    .expires_unix_s = (uint32_t)in->unix_s + FRONT_TOKEN_S,
				    .agent = agent ? a->agent : dialog_plain_name(in->tenant, x->hop),
				    .flow = in->flow->id,
				    .call = route_token_call(in->m.call_id, key)};
	char text[1 + ROUTE_TOKEN_CHARS] = {PLAIN_MARK};
	struct span user = agent ? span_of(text + 1, ROUTE_TOKEN_CHARS) : span_of(text, sizeof(text));

	route_token_seal(&token, key, text + 1);
	if (far != near)
		put_record_route(b, far, user);
	put_record_route(b, near, user);
}

/* What only an agent is told: how the caller proved itself, and the key that both sides derive. */
static void put_for_agent(struct sip_buf *b, const struct front_in *in, const struct call_grant *g)
{
	char key[B64URL_LEN(SESSION_KEY_BYTES)], src[WN_ADDR_STR];

	b64url_encode(g->session_key, SESSION_KEY_BYTES, key);
	sip_put(b, SPAN_LIT("X-Walnut-Key: "));
	sip_put(b, span_of(key, sizeof(key)));
	sip_printf(b, "\r\nX-Walnut-Source: %s;qop=%s\r\n", wn_addr_str(in->src, src), g->auth_int ? "auth-int" : "auth");
	sodium_memzero(key, sizeof(key));
}

/* The request as the agent or the hop gets it. 0: it does not fit. */
static size_t rewrite_invite(struct front_core *c, const struct front_in *in, const struct call_grant *g, const struct txn *x, char *to)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	sip_put(&b, SPAN_LIT("INVITE "));
	sip_put(&b, in->m.uri);
	sip_put(&b, SPAN_LIT(" SIP/2.0\r\n"));
	put_our_via(c, &b, x);
	sip_put_vias(&b, &in->m, in->src);
	put_record_routes(c, &b, in, x, atomic_load_explicit(&t->agent, memory_order_acquire));
	rewrite_max_forwards(&b, &in->m);
	if (g->user.p != NULL) {
		sip_put(&b, SPAN_LIT("P-Asserted-Identity: <sip:"));
		sip_put(&b, g->user);
		sip_putc(&b, '@');
		sip_puts(&b, t->domain);
		sip_put(&b, SPAN_LIT(">\r\n"));
	}
	if (x->hop == FRONT_HOP_AGENT)
		put_for_agent(&b, in, g);
	rewrite_headers(&b, &in->m, REWRITE_ROUTE_ALL | REWRITE_CREDENTIALS, span_str(t->domain), in->proof);
	rewrite_end(&b, &in->m);
	return b.overflow ? 0 : b.len;
}

/* Who has proven nothing leaves half of the places to those who have, where there are any. */
static uint32_t places(const struct front_policy *p, const struct call_grant *g)
{
	return g->user.p == NULL && p->proves ? p->max_calls / 2 : p->max_calls;
}

void call_begin(struct front_core *c, struct front_in *in, const struct call_grant *g, struct front_action *out)
{
	struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct txn_of of = {.key = g->key,
				  .call = g->call,
				  .branch = g->branch,
				  .exact = g->user.p != NULL ? core_exact(c, in) : 0,
				  .flow = in->flow,
				  .uri = in->m.uri,
				  .user = g->user};
	struct sip_buf b;
	struct txn *x = NULL;

	if (atomic_fetch_add_explicit(&t->calls, 1, memory_order_relaxed) < places(core_policy(c, in->tenant), g))
		x = txn_begin(c->txns, &of, in->now_ms);
	if (x == NULL) {
		atomic_fetch_sub_explicit(&t->calls, 1, memory_order_relaxed);
		call_refuse(c, in, 503, "Service Unavailable", 1, FRONT_call_limit, out);
		return;
	}
	x->tenant = (uint16_t)in->tenant;
	x->hop = (uint8_t)g->hop;
	out->agent_n = rewrite_invite(c, in, g, x, out->agent);
	if (out->agent_n == 0) {
		end_call(c, x);
		call_refuse(c, in, 513, "Message Too Large", 0, FRONT_malformed, out);
		return;
	}
	out->tenant = in->tenant;
	out->hop = g->hop;
	out->order = call_order(x);
	sip_buf_init(&b, out->net, FRONT_OUT_MAX);
	sip_put_response(&b, &in->m, 100, "Trying", span_of(NULL, 0), in->src);
	sip_put(&b, SPAN_LIT("Content-Length: 0\r\n\r\n"));
	out->net_n = b.overflow || (!out->trusted && b.len > core_answer_max(in)) ? 0 : b.len;
	out->to = *in->flow;
	txn_keep(c->txns, x, sip_buf_span(&b));
	if (g->hop != FRONT_HOP_AGENT && c->sh->hop[g->hop].transport == FRONT_UDP)
		txn_keep_request(c->txns, x, span_of(out->agent, out->agent_n), in->now_ms);
	out->trusted = true;
	core_done(c, out, g->user.p != NULL ? FRONT_forwarded : FRONT_forwarded_open);
}

static void repeat_answer(struct front_core *c, struct txn *x, const struct front_in *in, struct front_action *out)
{
	if (txn_may_resend(x, in->raw.n, in->now_ms))
		send_kept(c, x, out);
	out->trusted = true;
	core_done(c, out, FRONT_retransmission);
}

bool call_retransmission(struct front_core *c, struct front_in *in, uint64_t number, struct front_action *out)
{
	struct txn *x = txn_by_key(c->txns, number, in->flow);

	if (x == NULL || x->exact == 0 || x->exact != core_exact(c, in))
		return false;
	repeat_answer(c, x, in, out);
	return true;
}

bool call_open_retransmission(struct front_core *c, struct front_in *in, uint64_t call, uint64_t branch, struct front_action *out)
{
	struct txn *x = txn_by_branch(c->txns, call, branch, in->flow);

	if (x == NULL || x->exact != 0)
		return false;
	repeat_answer(c, x, in, out);
	return true;
}

void call_cancel(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct txn *x = txn_by_branch(c->txns, call_key(c, &in->m), core_branch(c, in), in->flow);
	char tag[TAG_CHARS];
	struct sip_buf b;

	/* The bound on answers holds for CANCEL too: its source may be spoofed by somebody who saw the INVITE. */
	if (x == NULL || x->tenant != in->tenant || x->state != TXN_PROCEEDING || x->resends >= TXN_RESENDS_MAX) {
		core_done(c, out, FRONT_cancel_ignored);
		return;
	}
	x->resends++;
	core_to_tag(c, in, tag);
	sip_buf_init(&b, out->net, FRONT_OUT_MAX);
	sip_put_response(&b, &in->m, 200, "OK", span_of(tag, sizeof(tag)), in->src);
	sip_put(&b, SPAN_LIT("Content-Length: 0\r\n\r\n"));
	/* of an open service's call anybody may be the caller, under any address */
	if (!b.overflow && (x->exact != 0 || b.len <= core_answer_max(in))) {
		out->net_n = b.len;
		out->to = *in->flow;
	}
	put_to_service(c, "CANCEL", x, &in->m, out);
	core_done(c, out, FRONT_cancelled);
}

bool call_ack(struct front_core *c, struct front_in *in)
{
	struct txn *x = txn_by_branch(c->txns, call_key(c, &in->m), core_branch(c, in), in->flow);

	if (x == NULL || (x->state != TXN_COMPLETED && x->state != TXN_CONFIRMED))
		return false;
	if (x->state == TXN_COMPLETED)
		txn_enter(c->txns, x, TXN_CONFIRMED, in->now_ms);
	return true;
}

void call_acknowledged(struct front_core *c, const struct front_in *in)
{
	struct txn *x = txn_accepted(c->txns, call_key(c, &in->m), in->flow);

	if (x != NULL && x->tenant == in->tenant)
		txn_acknowledged(c->txns, x, in->now_ms);
}

/* The response as the caller gets it. */
static size_t pass_response(struct front_core *c, const struct front_in *in, const struct txn *x, char *to)
{
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	rewrite_response(&b, &in->m);
	if (in->m.status >= 200 && in->m.status < 300 && x->exact != 0 && x->text != 0) {
		struct sip_buf whole = b;

		auth_put_nextnonce(c, x->tenant, &x->flow, in->now_ms, in->unix_s, &b);
		if (b.len + in->m.body.n + sizeof("Content-Length: 65535\r\n\r\n") > 1400)
			b = whole;
	}
	rewrite_end(&b, &in->m);
	return b.overflow ? 0 : b.len;
}

void call_response(struct front_core *c, struct front_in *in, uint64_t id, struct front_action *out)
{
	struct txn *x = txn_by_id(c->txns, id);
	bool success = in->m.status >= 200 && in->m.status < 300;

	if (x == NULL || x->hop != in->hop || (in->hop == FRONT_HOP_AGENT && x->tenant != in->tenant) || in->m.method != SIP_INVITE) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	txn_answered(c->txns, x);
	if (in->m.status < 200 && x->state == TXN_PROCEEDING)
		txn_ringing(c->txns, x, in->now_ms);
	if (in->m.status == 100) {
		/* ends here, as does the answer to our own CANCEL */
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	if (x->state == TXN_ACCEPTED && success && x->answer_n > 0) {
		send_kept(c, x, out); /* the agent repeats its 200 until the ACK arrives: the same bytes each time */
		core_done(c, out, FRONT_relayed_response);
		return;
	}
	if (x->state != TXN_PROCEEDING && !(x->state == TXN_ACCEPTED && success)) {
		/* A hop that repeats its refusal has not got our ACK. */
		if (in->m.status >= 300 && x->hop != FRONT_HOP_AGENT && (x->state == TXN_COMPLETED || x->state == TXN_CONFIRMED))
			put_to_service(c, "ACK", x, &in->m, out);
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->net_n = pass_response(c, in, x, out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->to = x->flow;
	out->order = call_order(x);
	txn_keep(c->txns, x, span_of(out->net, out->net_n));
	core_done(c, out, FRONT_relayed_response);
	if (in->m.status >= 200 && x->state == TXN_PROCEEDING)
		call_answered(c, x, FRONT_relayed_response, in->m.status, in->m.call_id, in->now_ms);
	if (success && x->state == TXN_PROCEEDING) {
		txn_enter(c->txns, x, TXN_ACCEPTED, in->now_ms);
	} else if (in->m.status >= 300) {
		txn_enter(c->txns, x, TXN_COMPLETED, in->now_ms);
		put_to_service(c, "ACK", x, &in->m, out);
	}
}

/* A final answer made of the kept one: the front's own 100, or what the agent said last. */
static size_t time_out(struct front_core *c, const struct txn *x, const char *status, uint64_t now_ms, char *to)
{
	struct span kept = txn_answer(c->txns, x), piece[] = {span_of(&x->id, sizeof(x->id))};
	uint64_t h = core_hash(c, piece, 1);
	char tag[TAG_CHARS];
	struct sip_msg m;
	struct sip_buf b;

	if (sip_parse(kept, false, &m) != SIP_OK || m.request)
		return 0;
	hex_encode((const uint8_t *)&h, sizeof(h), tag);
	sip_buf_init(&b, to, FRONT_OUT_MAX);
	sip_printf(&b, "SIP/2.0 %s\r\n", status);
	for (const struct sip_hdr *v = sip_hdr_first(&m, SIP_HDR_VIA); v != NULL; v = sip_hdr_next(&m, v)) {
		sip_put(&b, SPAN_LIT("Via: "));
		sip_put(&b, v->value);
		sip_put(&b, SPAN_LIT("\r\n"));
	}
	sip_put(&b, SPAN_LIT("From: "));
	sip_put(&b, m.from);
	sip_put(&b, SPAN_LIT("\r\nTo: "));
	sip_put(&b, m.to);
	if (m.to_tag.p == NULL) {
		sip_put(&b, SPAN_LIT(";tag="));
		sip_put(&b, span_of(tag, sizeof(tag)));
	}
	sip_put(&b, SPAN_LIT("\r\nCall-ID: "));
	sip_put(&b, m.call_id);
	sip_printf(&b, "\r\nCSeq: %u INVITE\r\nContent-Length: 0\r\n\r\n", m.cseq);
	if (b.overflow)
		return 0;
	call_answered(c, x, FRONT_timed_out, 0, m.call_id, now_ms);
	return b.len;
}

void front_core_agent_gone(struct front_core *c, unsigned tenant, uint64_t now_ms)
{
	txn_hurry(c->txns, tenant, FRONT_HOP_AGENT, now_ms);
}

void front_core_hop_gone(struct front_core *c, unsigned hop, uint64_t now_ms)
{
	front_core_set_trunk(c, hop, NULL);
	txn_hurry(c->txns, 0, hop, now_ms);
}

bool front_core_tick(struct front_core *c, uint64_t now_ms, struct front_action *out)
{
	struct txn *x;

	out->net_n = out->agent_n = 0;
	out->trusted = false;
	while ((x = txn_due(c->txns, now_ms)) != NULL) {
		if (x->state == TXN_COMPLETED && now_ms < x->deadline_ms) {
			txn_again(c->txns, x, now_ms);
			/* A connection loses nothing: no Timer G. Nor for who has proven nothing: one answer to one request, and the
			 * caller's own repetition brings it again. */
			if (x->answer_n == 0 || x->exact == 0 || front_flow_is_stream(x->flow.id))
				continue;
			send_kept(c, x, out);
			core_done(c, out, FRONT_relayed_response);
			return true;
		}
		if (x->state == TXN_PROCEEDING && x->request_n > 0 && now_ms < x->deadline_ms) {
			struct span again = txn_request(c->txns, x);

			txn_again(c->txns, x, now_ms);
			if (!core_reaches(c, x->tenant, x->hop))
				continue;
			memcpy(out->agent, again.p, again.n);
			out->agent_n = again.n;
			out->tenant = x->tenant;
			out->hop = x->hop;
			core_done(c, out, FRONT_hop_repeated);
			return true;
		}
		/* an agent that has gone: the caller may find another front that has one */
		const char *status = now_ms < x->deadline_ms ? "503 Service Unavailable\r\nRetry-After: 1" : "408 Request Timeout";
		if (x->state == TXN_PROCEEDING && (out->net_n = time_out(c, x, status, now_ms, out->net)) > 0) {
			out->to = x->flow;
			out->order = call_order(x);
			txn_keep(c->txns, x, span_of(out->net, out->net_n));
			txn_enter(c->txns, x, TXN_COMPLETED, now_ms);
			core_done(c, out, FRONT_timed_out);
			return true;
		}
		end_call(c, x);
	}
	return false;
}
