/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in header values: URI, name-addr, Via, lists, parameters. What is taken lies in the input, and put together again from its
 * parts it is taken again and has the same parts. The vector kind of what has two is held against the scalar one. */
#include <string.h>

#include "fuzz.h"
#include "sip/build.h"
#include "sip/chars.h"

static char text[8192];

static bool same(struct span a, struct span b)
{
	return (a.p == NULL) == (b.p == NULL) && span_eq(a, b);
}

static void put_host(struct sip_buf *b, struct span host)
{
	bool six = host.n != 0 && memchr(host.p, ':', host.n) != NULL;

	sip_puts(b, six ? "[" : "");
	sip_put(b, host);
	sip_puts(b, six ? "]" : "");
}

static void put_more(struct sip_buf *b, char mark, struct span s)
{
	if (s.p == NULL)
		return;
	sip_putc(b, mark);
	sip_put(b, s);
}

static void uri(struct span in)
{
	struct sip_uri u, again;
	struct sip_buf b;

	if (sip_parse_uri(in, &u) != 0)
		return;
	CHECK(inside(u.scheme, in) && inside(u.user, in) && inside(u.password, in) && inside(u.host, in) && inside(u.params, in));
	CHECK(inside(u.headers, in) && u.scheme.n > 0);
	sip_buf_init(&b, text, sizeof(text));
	sip_put(&b, u.scheme);
	sip_putc(&b, ':');
	sip_put(&b, u.user);
	if (u.host.p != NULL) {
		put_more(&b, ':', u.password);
		sip_puts(&b, u.user.p != NULL ? "@" : "");
		put_host(&b, u.host);
		if (u.port != 0)
			sip_printf(&b, ":%u", (unsigned)u.port);
	}
	put_more(&b, ';', u.params);
	put_more(&b, '?', u.headers);
	CHECK(!b.overflow && sip_parse_uri(sip_buf_span(&b), &again) == 0);
	CHECK(same(u.scheme, again.scheme) && same(u.user, again.user) && same(u.password, again.password) && same(u.host, again.host));
	CHECK(u.port == again.port && same(u.params, again.params) && same(u.headers, again.headers));
	/* A URI within <> is a name-addr, and the same one. */
	if (b.len < sizeof(text) / 2) {
		static char angle[sizeof(text)];
		struct sip_nameaddr n;

		sip_buf_init(&b, angle, sizeof(angle));
		sip_putc(&b, '<');
		sip_put(&b, in);
		sip_putc(&b, '>');
		CHECK(sip_parse_nameaddr(sip_buf_span(&b), &n) == 0 && span_eq(n.uri, in) && n.display.p == NULL && n.params.p == NULL);
	}
}

static void nameaddr(struct span in)
{
	struct sip_nameaddr n, again;
	struct span tag = {0}, scalar_tag = {0};
	struct sip_buf b;
	int r = sip_take_nameaddr(in, &n, &tag, true);

	CHECK(sip_take_nameaddr(in, &again, &scalar_tag, false) == r);
	if (r == 0)
		CHECK(tag.p == scalar_tag.p && tag.n == scalar_tag.n && memcmp(&n, &again, sizeof(n)) == 0);
	/* With a tag asked for it is no looser than without. */
	CHECK(r != 0 || sip_parse_nameaddr(in, &again) == 0);
	if (sip_parse_nameaddr(in, &n) != 0)
		return;
	CHECK(inside(n.display, in) && inside(n.uri, in) && inside(n.params, in) && n.uri.n > 0 &&
	      (n.display.p == NULL || n.display.n > 0));
	sip_buf_init(&b, text, sizeof(text));
	sip_put(&b, n.display);
	sip_putc(&b, '<');
	sip_put(&b, n.uri);
	sip_putc(&b, '>');
	put_more(&b, ';', n.params);
	CHECK(!b.overflow && sip_parse_nameaddr(sip_buf_span(&b), &again) == 0);
	CHECK(same(n.display, again.display) && same(n.uri, again.uri) && same(n.params, again.params));
}

static void via(struct span in)
{
	struct sip_via v, again;
	struct sip_buf b;

	if (sip_parse_via(in, &v) != 0)
		return;
	CHECK(inside(v.text, in) && inside(v.sent_by, v.text) && inside(v.host, v.sent_by) && inside(v.transport, v.text));
	CHECK(inside(v.branch, v.text) && inside(v.received, v.text) && v.host.n > 0 && (v.rport || v.rport_value == 0));
	CHECK(sip_parse_via(v.text, &again) == 0 && again.text.n == v.text.n && again.branch.p == v.branch.p);
	sip_buf_init(&b, text, sizeof(text));
	sip_puts(&b, "SIP / 2.0 /\t");
	sip_put(&b, v.transport);
	sip_puts(&b, "\r\n ");
	put_host(&b, v.host);
	if (v.port != 0)
		sip_printf(&b, " : %u", (unsigned)v.port);
	if (v.rport)
		sip_puts(&b, " ;\r\n rport");
	if (v.rport_value != 0)
		sip_printf(&b, " = %u", (unsigned)v.rport_value);
	if (v.branch.p != NULL)
		sip_puts(&b, ";BRANCH =");
	sip_put(&b, v.branch);
	if (v.received.p != NULL)
		sip_puts(&b, ";received= ");
	sip_put(&b, v.received);
	sip_puts(&b, " , SIP/2.0/UDP other");
	CHECK(!b.overflow && sip_parse_via(sip_buf_span(&b), &again) == 0);
	CHECK(same(v.transport, again.transport) && same(v.host, again.host) && v.port == again.port && same(v.branch, again.branch));
	CHECK(same(v.received, again.received) && v.rport == again.rport && v.rport_value == again.rport_value);
}

static void list(struct span in)
{
	struct span rest = in, item, other, joined;
	struct sip_buf b;
	size_t items = 0, seen = 0;

	sip_buf_init(&b, text, sizeof(text));
	while (sip_list_next(&rest, &item)) {
		CHECK(item.n > 0 && inside(item, in) && inside(rest, in));
		CHECK(++items <= in.n);
		sip_puts(&b, items > 1 ? " ,\t," : "");
		sip_put(&b, item);
	}
	if (b.overflow)
		return;
	joined = sip_buf_span(&b);
	rest = in;
	while (sip_list_next(&joined, &other)) {
		CHECK(sip_list_next(&rest, &item) && span_eq(item, other));
		seen++;
	}
	CHECK(seen == items);
}

static void params(struct span in)
{
	const char *p = in.p, *end = in.p + in.n, *next, *scalar;
	struct sip_param_view v, w;
	struct span value, name, seen[64];
	size_t n = 0;

	/* As sip_param walks, as long as all is well-formed; the first of a name is the one that it finds. */
	while (p < end && n < sizeof(seen) / sizeof(seen[0])) {
		bool before = false;

		next = sip_take_param(p, end, &v, true);
		scalar = sip_take_param(p, end, &w, false);
		CHECK(next == scalar);
		if (next == NULL)
			return;
		CHECK(v.name.p == w.name.p && v.name.n == w.name.n && v.value.p == w.value.p && v.value.n == w.value.n);
		CHECK(v.classes == w.classes && next > p && next <= end && inside(v.name, in) && inside(v.value, in));
		CHECK(((v.classes & C_TOKEN) != 0) == (v.value.p != NULL && sip_all(v.value.p, v.value.p + v.value.n, C_TOKEN)));
		for (size_t i = 0; i < n; i++)
			before |= span_caseeq(seen[i], v.name);
		seen[n++] = name = v.name;
		if (!before) {
			CHECK(sip_param(in, name, &value));
			if (v.value.p != NULL && v.value.p[0] == '"')
				v.value = span_of(v.value.p + 1, v.value.n - 2);
			CHECK(value.p == v.value.p && value.n == v.value.n);
		}
		if (next < end && *next != ';')
			return;
		p = next + 1;
	}
}

static void quoted(struct span in)
{
	const char *a;

	if (in.n == 0 || in.p[0] != '"')
		return;
	a = sip_skip_quoted(in.p, in.p + in.n, true);
	CHECK(a == sip_skip_quoted(in.p, in.p + in.n, false));
	CHECK(a == NULL || (a >= in.p + 2 && a <= in.p + in.n && a[-1] == '"'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span in = span_of(data, n);

	if (n > sizeof(text) / 4)
		return 0;
	uri(in);
	nameaddr(in);
	via(in);
	list(in);
	params(in);
	quoted(in);
	return 0;
}
