/* SPDX-License-Identifier: Apache-2.0 */
/** \file What must hold of every message that sip_parse accepts. */
#pragma once

#include "fuzz.h"
#include "sip/build.h"
#include "sip/msg.h"

/* What sip_parse says of the same bytes twice is the same to the byte. */
static inline void check_same(const struct sip_msg *a, const struct sip_msg *b)
{
#define SAME(s) CHECK(a->s.p == b->s.p && a->s.n == b->s.n)
	SAME(raw);
	SAME(method_text);
	SAME(uri);
	SAME(reason);
	SAME(call_id);
	SAME(from);
	SAME(to);
	SAME(from_tag);
	SAME(to_tag);
	SAME(body);
	SAME(via.text);
	SAME(via.transport);
	SAME(via.host);
	SAME(via.branch);
	SAME(via.received);
	SAME(via.sent_by);
	CHECK(a->request == b->request && a->method == b->method && a->status == b->status && a->cseq == b->cseq);
	CHECK(a->via.port == b->via.port && a->via.rport == b->via.rport && a->via.rport_value == b->via.rport_value);
	CHECK(a->max_forwards == b->max_forwards && a->consumed == b->consumed && a->nhdr == b->nhdr);
	for (unsigned i = 0; i < a->nhdr; i++) {
		SAME(hdr[i].name);
		SAME(hdr[i].value);
		CHECK(a->hdr[i].id == b->hdr[i].id);
	}
	CHECK(memcmp(a->first, b->first, sizeof(a->first)) == 0);
#undef SAME
}

/* sip_parse, with what the scalar kind says and, in a struct full of something else, what it says once more. */
static inline enum sip_verdict parse_twice(struct span in, bool stream, struct sip_msg *m)
{
	static struct sip_msg other;
	enum sip_verdict v = sip_parse(in, stream, m);

	memset(&other, 0xa5, sizeof(other));
	CHECK(sip_parse_scalar(in, stream, &other) == v);
	if (v == SIP_OK)
		check_same(m, &other);
	CHECK(v != SIP_KEEPALIVE || m->consumed == other.consumed);
	return v;
}

static inline void check_via(const struct sip_via *v, struct span in)
{
	CHECK(inside(v->transport, in) && inside(v->host, in) && inside(v->branch, in) && inside(v->received, in));
	CHECK(inside(v->text, in) && inside(v->sent_by, v->text) && inside(v->host, v->sent_by) && v->host.n > 0);
}

static inline void check_value(struct span value)
{
	struct span rest = value, item, param;
	size_t items = 0;

	while (sip_list_next(&rest, &item)) {
		struct sip_via via;
		struct sip_nameaddr n;
		struct sip_uri uri;

		CHECK(item.n > 0 && inside(item, value) && inside(rest, value));
		CHECK(++items <= value.n);
		if (sip_parse_via(item, &via) == 0)
			check_via(&via, item);
		if (sip_parse_nameaddr(item, &n) == 0) {
			CHECK(inside(n.display, item) && inside(n.uri, item) && inside(n.params, item) && n.uri.n > 0);
			if (sip_param(n.params, SPAN_LIT("tag"), &param))
				CHECK(inside(param, n.params));
			if (sip_parse_uri(n.uri, &uri) == 0) {
				CHECK(inside(uri.scheme, n.uri) && inside(uri.user, n.uri) && inside(uri.password, n.uri));
				CHECK(inside(uri.host, n.uri) && inside(uri.params, n.uri) && inside(uri.headers, n.uri));
				if (sip_param(uri.params, SPAN_LIT("lr"), &param))
					CHECK(inside(param, uri.params));
			}
		}
	}
	if (sip_param(value, SPAN_LIT("q"), &param))
		CHECK(inside(param, value));
}

/* The answer to it parses, and says whose it is. */
static inline void check_response(const struct sip_msg *m)
{
	static char text[2 * SIP_MESSAGE_MAX];
	struct wn_addr src = {.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}, .port = 40112};
	static struct sip_msg r;
	struct sip_buf b;

	sip_buf_init(&b, text, sizeof(text));
	sip_put_response(&b, m, 407, "Proxy Authentication Required", SPAN_LIT("zz9"), &src);
	sip_put_end(&b, (struct span){0}, SPAN_LIT("x"));
	CHECK(!b.overflow);
	if (b.len > SIP_MESSAGE_MAX)
		return;
	CHECK(sip_parse(sip_buf_span(&b), true, &r) == SIP_OK);
	CHECK(r.consumed == b.len && !r.request && r.status == 407);
	CHECK(span_eq(r.call_id, m->call_id) && r.cseq == m->cseq && r.method == m->method && span_eq(r.from, m->from));
	CHECK(span_eq(r.from_tag, m->from_tag) && span_eq(r.to_tag, m->to_tag.p != NULL ? m->to_tag : SPAN_LIT("zz9")));
	CHECK(span_eq(r.via.branch, m->via.branch) && span_eq(r.via.sent_by, m->via.sent_by) && r.via.rport == m->via.rport);
	CHECK(!m->via.rport || (r.via.rport_value == src.port && span_eq(r.via.received, SPAN_LIT("192.0.2.1"))));
	CHECK(r.via.received.p == NULL || span_eq(r.via.received, SPAN_LIT("192.0.2.1")));
	CHECK(span_eq(r.body, SPAN_LIT("x")));
}

static inline void check_message(const struct sip_msg *m, struct span in)
{
	unsigned firsts = 0;

	CHECK(inside(m->raw, in) && m->consumed <= in.n && m->raw.p + m->raw.n == in.p + m->consumed);
	CHECK(inside(m->body, m->raw) && inside(m->uri, m->raw) && inside(m->reason, m->raw) && inside(m->method_text, m->raw));
	CHECK(inside(m->call_id, m->raw) && inside(m->from, m->raw) && inside(m->to, m->raw));
	CHECK(inside(m->from_tag, m->from) && inside(m->to_tag, m->to));
	CHECK(m->method_text.n > 0 && m->call_id.n > 0 && m->max_forwards >= -1 && m->max_forwards <= 255 && m->cseq <= 0x7fffffff);
	CHECK(m->request ? m->uri.n > 0 : m->status >= 100 && m->status <= 699);
	CHECK(m->nhdr >= 5 && m->nhdr <= SIP_HEADERS_MAX);
	check_via(&m->via, m->raw);
	for (unsigned i = 0; i < m->nhdr; i++) {
		const struct sip_hdr *h = &m->hdr[i];

		CHECK(inside(h->name, m->raw) && inside(h->value, m->raw) && h->name.n > 0 && h->id < SIP_HDRS);
		CHECK(h->value.p >= h->name.p + h->name.n);
		CHECK(m->first[h->id] != 0 && m->first[h->id] <= i + 1);
		CHECK(sip_hdr_by_name(m, h->name) <= h);
		check_value(h->value);
	}
	for (unsigned id = 0; id < SIP_HDRS; id++) {
		for (const struct sip_hdr *h = sip_hdr_first(m, (enum sip_hdr_id)id); h != NULL; h = sip_hdr_next(m, h)) {
			CHECK(h->id == id);
			firsts++;
		}
	}
	CHECK(firsts == m->nhdr);
	if (m->request)
		check_response(m);
}
