/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sip/msg.h"

static bool is(struct span s, const char *text)
{
	return text == NULL ? s.p == NULL : s.p != NULL && span_eq(s, span_str(text));
}

static void uris(void **state)
{
	static const struct {
		const char *in, *scheme, *user, *password, *host;
		uint16_t port;
		const char *params, *headers;
	} good[] = {
		{"sip:ssh@example.org", "sip", "ssh", NULL, "example.org", 0, NULL, NULL},
		{"SIPS:example.org:5061", "SIPS", NULL, NULL, "example.org", 5061, NULL, NULL},
		{"sip:a:b@[2001:db8::1]:5060;lr;x=[y]?h=v&i=", "sip", "a", "b", "2001:db8::1", 5060, "lr;x=[y]", "h=v&i="},
		{"sip:a:@h", "sip", "a", "", "h", 0, NULL, NULL},
		{"sip:+1-2(3)%20;x=1@h", "sip", "+1-2(3)%20;x=1", NULL, "h", 0, NULL, NULL},
		{"sip:h?x=y", "sip", NULL, NULL, "h", 0, NULL, "x=y"},
		{"tel:+358-555;phone-context=x", "tel", "+358-555", NULL, NULL, 0, "phone-context=x", NULL},
		{"urn:service:sos", "urn", "service:sos", NULL, NULL, 0, NULL, NULL},
	};
	static const char *const bad[] = {
		"",
		":",
		"sip",
		"sip:",
		"1sip:a",
		"sip:@h",
		"sip:a@",
		"sip:a@b@c",
		"sip:a b@h",
		"sip:a@h:",
		"sip:a@h:0",
		"sip:a@h:65536",
		"sip:a@h:5x",
		"sip:a%@h",
		"sip:a%4@h",
		"sip:a%zz@h",
		"sip:a@[::1",
		"sip:a@[::g]",
		"sip:a@[1.2.3.4]",
		"sip:a@h;",
		"sip:a@h?",
		"sip:a@h;<x",
		"sip:a\"b@h",
		"sip:a@h/x",
		"sip:a[@h",
		"<sip:a@h>",
		"sip:a@h>",
		"sip:\x01@h",
		"sip:a\x80@h",
		"tel:a b",
		"tel:<",
		"s<p:a",
	};
	struct sip_uri u;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(sip_parse_uri(span_str(good[i].in), &u), 0);
		assert_true(is(u.scheme, good[i].scheme) && is(u.user, good[i].user) && is(u.password, good[i].password));
		assert_true(is(u.host, good[i].host) && is(u.params, good[i].params) && is(u.headers, good[i].headers));
		assert_int_equal(u.port, good[i].port);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (sip_parse_uri(span_str(bad[i]), &u) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
	}
	assert_int_equal(sip_parse_uri((struct span){0}, &u), -EINVAL);
}

static void nameaddrs(void **state)
{
	static const struct {
		const char *in, *display, *uri, *params;
	} good[] = {
		{"<sip:a@b>", NULL, "sip:a@b", NULL},
		{" sip:a@b ;tag=x ; y", NULL, "sip:a@b", "tag=x ; y"},
		{"Alice B. <sip:a@b;lr?x=y,z>;p=\"q;r\"", "Alice B.", "sip:a@b;lr?x=y,z", "p=\"q;r\""},
		{"\"A, <\\\"> ;\" <sip:a@b>", "\"A, <\\\"> ;\"", "sip:a@b", NULL},
		{"\"\"<sip:a@b>", "\"\"", "sip:a@b", NULL},
		{"\xc3\xa9t\xc3\xa9 <sip:a@b>", "\xc3\xa9t\xc3\xa9", "sip:a@b", NULL},
		{"tel:+1;x", NULL, "tel:+1", "x"},
	};
	static const char *const bad[] = {
		"",
		" ",
		"<>",
		"<a>",
		"a",
		"<sip:a@b",
		"sip:a@b>",
		"\"x <sip:a@b>",
		"\"x\" sip:a@b",
		"a, b <sip:a@b>",
		"a \"b\" <sip:a@b>",
		"\"a\"\"b\" <sip:a@b>",
		"sip:a@b?c=d",
		"sip:a@b,sip:c@d",
		"<sip:a@b> x",
		"<sip:a@b>;",
		"<sip:a@b>;;x",
		"<sip:a@b>;x=",
		"<sip:a@b>;=x",
		"<sip:a@b>;x=\"y",
		"<sip: a@b>",
		"<sip:a@b ;x=y",
		"<sip:a@b\";x=y",
		"<sip:a@b<;x=y",
		"<sip:a@b >",
		"<sip:a@b>;x=y z",
		"sip:a@b c",
		"<<sip:a@b>>",
		"\"\\",
		"\"\\\"",
	};
	struct sip_nameaddr n;

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		assert_int_equal(sip_parse_nameaddr(span_str(good[i].in), &n), 0);
		assert_true(is(n.display, good[i].display) && is(n.uri, good[i].uri) && is(n.params, good[i].params));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		if (sip_parse_nameaddr(span_str(bad[i]), &n) != -EINVAL)
			fail_msg("accepted: %s", bad[i]);
	}
}

static void vias(void **state)
{
	struct sip_via v;

	(void)state;
	assert_int_equal(
		sip_parse_via(SPAN_LIT("SIP/2.0/UDP [2001:db8::9]:5062 ;received=2001:db8::8; rport=77;branch=z9hG4bK1;x=\"a,;b\" , z"),
			      &v),
		0);
	assert_true(is(v.host, "2001:db8::9") && is(v.sent_by, "[2001:db8::9]:5062") && is(v.received, "2001:db8::8"));
	assert_true(is(v.branch, "z9hG4bK1") && v.rport && v.rport_value == 77 && v.port == 5062);
	assert_true(is(v.text, "SIP/2.0/UDP [2001:db8::9]:5062 ;received=2001:db8::8; rport=77;branch=z9hG4bK1;x=\"a,;b\""));
	assert_int_equal(sip_parse_via(SPAN_LIT("sip/2.0/tls host : 5061"), &v), 0);
	assert_true(is(v.host, "host") && v.port == 5061 && v.branch.p == NULL && !v.rport);
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP a,SIP/2.0/UDP b"), &v), 0);
	assert_true(is(v.text, "SIP/2.0/UDP a"));
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP a;rport=0"), &v), -EINVAL);
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP a;rport=x"), &v), -EINVAL);
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP a;received=1;received=2"), &v), -EINVAL);
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/ a"), &v), -EINVAL);
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0"), &v), -EINVAL);
	assert_int_equal(sip_parse_via(SPAN_LIT("SI"), &v), -EINVAL);
	assert_int_equal(sip_parse_via((struct span){0}, &v), -EINVAL);
}

static void lists(void **state)
{
	struct span rest = SPAN_LIT(" a , \"b,\\\"c\" ;x,, <d,e> ,f<,"), item;

	(void)state;
	assert_true(sip_list_next(&rest, &item) && is(item, "a"));
	assert_true(sip_list_next(&rest, &item) && is(item, "\"b,\\\"c\" ;x"));
	assert_true(sip_list_next(&rest, &item) && is(item, "<d,e>"));
	assert_true(sip_list_next(&rest, &item) && is(item, "f<,"));
	assert_false(sip_list_next(&rest, &item));
	assert_false(sip_list_next(&rest, &item));
	rest = SPAN_LIT(" ,, ");
	assert_false(sip_list_next(&rest, &item));
	rest = (struct span){0};
	assert_false(sip_list_next(&rest, &item));
}

static void params(void **state)
{
	struct span p = SPAN_LIT("lr;transport=tcp; x = \"a;b=c\" ;y;a/b;z=1"), v;

	(void)state;
	assert_true(sip_param(p, SPAN_LIT("LR"), &v) && v.p == NULL);
	assert_true(sip_param(p, SPAN_LIT("Transport"), &v) && is(v, "tcp"));
	assert_true(sip_param(p, SPAN_LIT("x"), &v) && is(v, "a;b=c"));
	assert_true(sip_param(p, SPAN_LIT("y"), &v) && v.p == NULL);
	assert_false(sip_param(p, SPAN_LIT("b"), &v));
	assert_false(sip_param(p, SPAN_LIT("l"), &v));
	assert_false(sip_param((struct span){0}, SPAN_LIT("l"), &v));
	assert_false(sip_param(SPAN_LIT(";;"), SPAN_LIT("l"), &v));
	assert_true(sip_param(SPAN_LIT(";;l"), SPAN_LIT("l"), &v));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uris),  cmocka_unit_test(nameaddrs), cmocka_unit_test(vias),
		cmocka_unit_test(lists), cmocka_unit_test(params),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
