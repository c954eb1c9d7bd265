/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>
#include <strings.h>

#include "base/b64.h"
#include "front/internal.h"
#include "ticket/session_key.h"

static void put_our_via(const struct front_core *c, struct sip_buf *b, uint64_t id)
{
	char hex[2 + 16];
	uint8_t worker = (uint8_t)c->worker;

	hex_encode(&worker, 1, hex);
	hex_encode((const uint8_t *)&id, sizeof(id), hex + 2);
	sip_put(b, SPAN_LIT("Via: SIP/2.0/TLS "));
	sip_puts(b, c->sh->host);
	sip_put(b, SPAN_LIT(";branch=" BRANCH_MAGIC "t"));
	sip_put(b, span_of(hex, sizeof(hex)));
	sip_put(b, SPAN_LIT("\r\n"));
}

static void end_call(struct front_core *c, struct txn *x)
{
	atomic_fetch_sub_explicit(&c->sh->tenant[x->tenant].calls, 1, memory_order_relaxed);
	txn_end(c->txns, x);
}

static void send_kept(const struct txn *x, struct front_action *out)
{
	memcpy(out->net, x->answer, x->answer_n);
	out->net_n = x->answer_n;
	out->to = x->src;
}

/* From, To, Call-ID and CSeq of our own ACK or CANCEL towards the agent, whose topmost and only Via names the transaction. */
static void put_own_request(struct front_core *c, struct sip_buf *b, const char *method, const struct txn *x, const struct sip_msg *m)
{
	sip_printf(b, "%s %.*s SIP/2.0\r\n", method, (int)x->uri_n, x->uri);
	put_our_via(c, b, x->id);
	sip_put(b, SPAN_LIT("From: "));
	sip_put(b, m->from);
	sip_put(b, SPAN_LIT("\r\nTo: "));
	sip_put(b, m->to);
	sip_put(b, SPAN_LIT("\r\nCall-ID: "));
	sip_put(b, m->call_id);
	sip_printf(b, "\r\nCSeq: %u %s\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n", m->cseq, method);
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
	if (!b.overflow) {
		out->net_n = b.len;
		out->to = *in->src;
	}
	core_done(c, out, o);
}

/* The request as the agent gets it. 0: it does not fit. */
static size_t rewrite_invite(struct front_core *c, const struct front_in *in, const struct call_grant *g, const struct txn *x,
			     const struct front_agent *a, char *to)
{
	const struct front_tenant *t = &c->sh->tenant[in->tenant];
	struct route_token token = {*in->src, (uint32_t)in->unix_s + FRONT_TOKEN_S, a->agent};
	char text[ROUTE_TOKEN_CHARS], key[B64URL_LEN(SESSION_KEY_BYTES)], src[WN_ADDR_STR];
	struct sip_buf b;

	route_token_seal(&token, a->route_key, text);
	b64url_encode(g->session_key, SESSION_KEY_BYTES, key);
	sip_buf_init(&b, to, FRONT_OUT_MAX);
	sip_put(&b, SPAN_LIT("INVITE "));
	sip_put(&b, in->m.uri);
	sip_put(&b, SPAN_LIT(" SIP/2.0\r\n"));
	put_our_via(c, &b, x->id);
	sip_put_vias(&b, &in->m, in->src);
	sip_put(&b, SPAN_LIT("Record-Route: <sip:"));
	sip_put(&b, span_of(text, sizeof(text)));
	sip_printf(&b, "@%s;lr>\r\n", c->sh->host);
	sip_printf(&b, "Max-Forwards: %d\r\n", in->m.max_forwards < 0 ? 69 : in->m.max_forwards - 1);
	sip_put(&b, SPAN_LIT("P-Asserted-Identity: <sip:"));
	sip_put(&b, g->user);
	sip_printf(&b, "@%s>\r\n", t->domain);
	sip_put(&b, SPAN_LIT("X-Walnut-Key: "));
	sip_put(&b, span_of(key, sizeof(key)));
	sip_printf(&b, "\r\nX-Walnut-Source: %s;qop=%s\r\n", wn_addr_str(in->src, src), g->auth_int ? "auth-int" : "auth");
	rewrite_headers(&b, &in->m, REWRITE_ROUTE_ALL | REWRITE_CREDENTIALS, span_str(t->domain));
	rewrite_end(&b, &in->m);
	sodium_memzero(key, sizeof(key));
	return b.overflow ? 0 : b.len;
}

void call_begin(struct front_core *c, struct front_in *in, const struct call_grant *g, struct front_action *out)
{
	struct front_tenant *t = &c->sh->tenant[in->tenant];
	const struct front_agent *a = atomic_load_explicit(&t->agent, memory_order_acquire);
	struct sip_buf b;
	struct txn *x = NULL;

	if (atomic_fetch_add_explicit(&t->calls, 1, memory_order_relaxed) < t->max_calls)
		x = txn_begin(c->txns, core_exact(c, in), core_branch(c, in), in->src, in->now_ms);
	if (x == NULL) {
		atomic_fetch_sub_explicit(&t->calls, 1, memory_order_relaxed);
		call_refuse(c, in, 503, "Service Unavailable", 1, FRONT_call_limit, out);
		return;
	}
	x->tenant = in->tenant;
	memcpy(x->uri, in->m.uri.p, in->m.uri.n);
	x->uri_n = (uint16_t)in->m.uri.n;
	out->agent_n = rewrite_invite(c, in, g, x, a, out->agent);
	if (out->agent_n == 0) {
		end_call(c, x);
		call_refuse(c, in, 513, "Message Too Large", 0, FRONT_malformed, out);
		return;
	}
	out->tenant = in->tenant;

	sip_buf_init(&b, out->net, FRONT_OUT_MAX);
	sip_put_response(&b, &in->m, 100, "Trying", span_of(NULL, 0), in->src);
	sip_put(&b, SPAN_LIT("Content-Length: 0\r\n\r\n"));
	out->net_n = b.overflow ? 0 : b.len;
	out->to = *in->src;
	txn_keep(x, sip_buf_span(&b));
	core_done(c, out, FRONT_forwarded);
}

bool call_retransmission(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct txn *x = txn_by_exact(c->txns, core_exact(c, in));

	if (x == NULL || !wn_addr_eq(&x->src, in->src))
		return false;
	if (txn_may_resend(x, in->raw.n, in->now_ms))
		send_kept(x, out);
	core_done(c, out, FRONT_retransmission);
	return true;
}

void call_cancel(struct front_core *c, struct front_in *in, struct front_action *out)
{
	struct txn *x = txn_by_branch(c->txns, core_branch(c, in), in->src);
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
	if (!b.overflow) {
		out->net_n = b.len;
		out->to = *in->src;
	}
	sip_buf_init(&b, out->agent, FRONT_OUT_MAX);
	put_own_request(c, &b, "CANCEL", x, &in->m);
	out->agent_n = b.overflow || !c->room ? 0 : b.len;
	out->tenant = in->tenant;
	core_done(c, out, FRONT_cancelled);
}

bool call_ack(struct front_core *c, struct front_in *in)
{
	struct txn *x = txn_by_branch(c->txns, core_branch(c, in), in->src);

	if (x == NULL || (x->state != TXN_COMPLETED && x->state != TXN_CONFIRMED))
		return false;
	if (x->state == TXN_COMPLETED)
		txn_enter(c->txns, x, TXN_CONFIRMED, in->now_ms);
	return true;
}

/* What an INVITE's answer and the ACK of a 2xx, which is a transaction of its own, have in common. */
static uint64_t ack_key(const struct front_core *c, const struct sip_msg *m)
{
	const struct span piece[] = {SPAN_LIT("ack"), m->call_id, m->from_tag, span_of(&m->cseq, sizeof(m->cseq))};

	return core_hash(c, piece, 4);
}

void call_acknowledged(struct front_core *c, const struct front_in *in)
{
	struct txn *x = txn_by_branch(c->txns, ack_key(c, &in->m), in->src);

	if (x != NULL && x->state == TXN_ACCEPTED && x->tenant == in->tenant)
		txn_shorten(c->txns, x, in->now_ms);
}

/* The response as the caller gets it. */
static size_t pass_response(struct front_core *c, const struct front_in *in, const struct txn *x, char *to)
{
	struct sip_buf b;

	sip_buf_init(&b, to, FRONT_OUT_MAX);
	rewrite_response(&b, &in->m);
	if (in->m.status >= 200 && in->m.status < 300) {
		struct sip_buf whole = b;

		auth_put_nextnonce(c, x->tenant, &x->src, in->now_ms, in->unix_s, &b);
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
	struct sip_buf b;

	if (x == NULL || x->tenant != in->tenant || in->m.method != SIP_INVITE || in->m.status == 100) {
		/* 100 ends here, as does the answer to our own CANCEL */
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	if (x->state == TXN_ACCEPTED && success && x->answer_n > 0) {
		send_kept(x, out); /* the agent repeats its 200 until the ACK arrives: the same bytes each time */
		core_done(c, out, FRONT_relayed_response);
		return;
	}
	if (x->state != TXN_PROCEEDING && !(x->state == TXN_ACCEPTED && success)) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->net_n = pass_response(c, in, x, out->net);
	if (out->net_n == 0) {
		core_done(c, out, FRONT_response_dropped);
		return;
	}
	out->to = x->src;
	txn_keep(x, span_of(out->net, out->net_n));
	if (success && x->state == TXN_PROCEEDING) {
		txn_enter(c->txns, x, TXN_ACCEPTED, in->now_ms);
		/* Its branch would serve CANCEL and the ACK of a refusal, which do not come any more. */
		txn_file(c->txns, x, ack_key(c, &in->m));
	} else if (in->m.status >= 300) {
		txn_enter(c->txns, x, TXN_COMPLETED, in->now_ms);
		sip_buf_init(&b, out->agent, FRONT_OUT_MAX);
		put_own_request(c, &b, "ACK", x, &in->m);
		out->agent_n = b.overflow || !c->room ? 0 : b.len;
		out->tenant = x->tenant;
	}
	core_done(c, out, FRONT_relayed_response);
}

/* A final answer made of the kept one: the front's own 100, or what the agent said last. */
static size_t time_out(const struct front_core *c, const struct txn *x, const char *status, char *to)
{
	struct span kept = span_of(x->answer, x->answer_n), piece[] = {span_of(&x->id, sizeof(x->id))};
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
	return b.overflow ? 0 : b.len;
}

void front_core_agent_gone(struct front_core *c, unsigned tenant, uint64_t now_ms)
{
	txn_hurry(c->txns, tenant, now_ms);
}

bool front_core_tick(struct front_core *c, uint64_t now_ms, struct front_action *out)
{
	struct txn *x;

	out->net_n = out->agent_n = 0;
	while ((x = txn_due(c->txns, now_ms)) != NULL) {
		if (x->state == TXN_COMPLETED && now_ms < x->deadline_ms) {
			txn_again(c->txns, x, now_ms);
			if (x->answer_n == 0)
				continue;
			send_kept(x, out);
			core_done(c, out, FRONT_relayed_response);
			return true;
		}
		/* an agent that has gone: the caller may find another front that has one */
		const char *status = now_ms < x->deadline_ms ? "503 Service Unavailable\r\nRetry-After: 1" : "408 Request Timeout";
		if (x->state == TXN_PROCEEDING && (out->net_n = time_out(c, x, status, out->net)) > 0) {
			out->to = x->src;
			txn_keep(x, span_of(out->net, out->net_n));
			txn_enter(c->txns, x, TXN_COMPLETED, now_ms);
			core_done(c, out, FRONT_timed_out);
			return true;
		}
		end_call(c, x);
	}
	return false;
}
