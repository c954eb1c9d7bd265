/* SPDX-License-Identifier: Apache-2.0 */
/* One message in the many shapes that RFC 3261 section 7.3 lets it have: all of them read the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sip/build.h"
#include "sip/digest.h"
#include "sip/quick.h"

#define VIA1   "SIP/2.0/TCP [2001:db8::9]:5062;branch=z9hG4bKtop;rport"
#define VIA2   "SIP/2.0/UDP 192.0.2.4;branch=z9hG4bKtwo;received=192.0.2.9"
#define VIA3   "SIP/2.0/TLS edge.example;branch=z9hG4bKthree"
#define FROM   "\"Anna, \\\"A\\\" <x>\" <sip:anna@[2001:db8::1]:5060>;tag=a1"
#define TO     "B\xc3\xa9la <sip:be,la@example.org;lr?subject=x>;tag=b2"
#define ROUTE1 "<sip:t0ken@[2001:db8::2]:5060;lr>"
#define ROUTE2 "\"x, y\" <sip:p2.example;lr>"
#define AUTH1  "Digest username=\"a\",realm=\"one\",nonce=\"x,\\\"y\""
#define AUTH2  "Digest username=\"b\",realm=\"two\",nonce=\"z\""

static const char *const shapes[] = {
	/* each value on a line of its own, long names */
	"INVITE sip:bela@[2001:db8::5] SIP/2.0\r\n"
	"Via: " VIA1 "\r\nVia: " VIA2 "\r\nVia: " VIA3 "\r\n"
	"From: " FROM "\r\nTo: " TO "\r\nCall-ID: id@[2001:db8::1]\r\nCSeq: 7 INVITE\r\n"
	"Route: " ROUTE1 "\r\nRoute: " ROUTE2 "\r\n"
	"Proxy-Authorization: " AUTH1 "\r\nProxy-Authorization: " AUTH2 "\r\n"
	"Contact: <sip:anna@[2001:db8::1]>\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
	/* compact, and joined by commas */
	"INVITE sip:bela@[2001:db8::5] SIP/2.0\r\n"
	"v:" VIA1 ", " VIA2 "," VIA3 "\r\n"
	"f:" FROM "\r\nt:" TO "\r\ni:id@[2001:db8::1]\r\nCSeq:7 INVITE\r\n"
	"Route:" ROUTE1 "," ROUTE2 "\r\n"
	"Proxy-Authorization:" AUTH1 "\r\nProxy-Authorization:" AUTH2 "\r\n"
	"m:<sip:anna@[2001:db8::1]>\r\nc:text/plain\r\nl:4\r\n\r\nbody",
	/* other case, blanks before the colon and behind the value, folds wherever a blank may be, another order, empty list items */
	"INVITE sip:bela@[2001:db8::5] SIP/2.0\r\n"
	"CONTENT-LENGTH \t:\r\n\t4 \t\r\nCALL-ID:\r\n id@[2001:db8::1]\r\nC  : text/plain\r\n"
	"proxy-AUTHORIZATION\t: Digest\r\n username=\"a\",\r\n\trealm = \"one\",nonce=\r\n \"x,\\\"y\"\r\n"
	"TO:\r\n B\xc3\xa9la\r\n <sip:be,la@example.org;lr?subject=x>\r\n ;\r\n tag\r\n =\r\n b2\r\n"
	"cSEQ: 7\r\n INVITE\r\n"
	"VIA: SIP / 2.0 / TCP\r\n [2001:db8::9] : 5062 ;branch=z9hG4bKtop; rport\r\n"
	"fRoM: \"Anna, \\\"A\\\" <x>\"\r\n <sip:anna@[2001:db8::1]:5060>;tag=a1\r\n"
	"rOUTE: " ROUTE1 "  ,\r\n , " ROUTE2 " ,\r\n"
	"Via:\t" VIA2 " ,, " VIA3 "\r\n"
	"Contact  : <sip:anna@[2001:db8::1]>\r\n"
	"Proxy-Authorization: " AUTH2 "\r\n\r\nbody",
};

static bool is(struct span s, const char *text)
{
	return s.p != NULL && span_eq(s, span_str(text));
}

static char *copy;

/* From an exact heap copy, kept until the next call. */
static enum sip_verdict parse(const char *text, size_t n, bool stream, struct sip_msg *m)
{
	free(copy);
	copy = malloc(n);
	memcpy(copy, text, n);
	return sip_parse(span_of(copy, n), stream, m);
}

/* The values of all headers of that id, one after another. */
static size_t values(const struct sip_msg *m, enum sip_hdr_id id, struct span *out, size_t max)
{
	size_t n = 0;

	for (const struct sip_hdr *h = sip_hdr_first(m, id); h != NULL; h = sip_hdr_next(m, h)) {
		struct span rest = h->value;

		while (n < max && sip_list_next(&rest, &out[n]))
			n++;
	}
	return n;
}

static void vias(const struct sip_msg *m)
{
	struct span item[4];
	struct sip_via v;

	assert_true(is(m->via.transport, "TCP") && is(m->via.host, "2001:db8::9") && m->via.port == 5062);
	assert_true(is(m->via.branch, "z9hG4bKtop") && m->via.rport && m->via.received.p == NULL);
	assert_int_equal(values(m, SIP_HDR_VIA, item, 4), 3);
	assert_int_equal(sip_parse_via(item[0], &v), 0);
	assert_true(is(v.branch, "z9hG4bKtop"));
	assert_int_equal(sip_parse_via(item[1], &v), 0);
	assert_true(is(v.branch, "z9hG4bKtwo") && is(v.received, "192.0.2.9") && is(v.host, "192.0.2.4") && v.port == 0);
	assert_int_equal(sip_parse_via(item[2], &v), 0);
	assert_true(is(v.branch, "z9hG4bKthree") && is(v.transport, "TLS") && is(v.host, "edge.example"));
}

static void parties(const struct sip_msg *m)
{
	struct sip_nameaddr n;
	struct sip_uri u;

	assert_true(is(m->from_tag, "a1") && is(m->to_tag, "b2"));
	assert_int_equal(sip_parse_nameaddr(m->from, &n), 0);
	assert_true(is(n.display, "\"Anna, \\\"A\\\" <x>\""));
	assert_int_equal(sip_parse_uri(n.uri, &u), 0);
	assert_true(is(u.user, "anna") && is(u.host, "2001:db8::1") && u.port == 5060);
	assert_int_equal(sip_parse_nameaddr(m->to, &n), 0);
	assert_true(is(n.display, "B\xc3\xa9la"));
	assert_int_equal(sip_parse_uri(n.uri, &u), 0);
	assert_true(is(u.host, "example.org") && is(u.params, "lr") && is(u.headers, "subject=x"));
	assert_int_equal(sip_parse_uri(m->uri, &u), 0);
	assert_true(is(u.host, "2001:db8::5"));
}

static void routes_and_credentials(const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_PROXY_AUTHORIZATION);
	struct digest_params p;
	struct sip_nameaddr n;
	struct sip_uri u;
	struct span item[3];

	assert_int_equal(values(m, SIP_HDR_ROUTE, item, 3), 2);
	assert_int_equal(sip_parse_nameaddr(item[0], &n), 0);
	assert_int_equal(sip_parse_uri(n.uri, &u), 0);
	assert_true(is(u.user, "t0ken") && is(u.host, "2001:db8::2"));
	assert_int_equal(sip_parse_nameaddr(item[1], &n), 0);
	assert_true(is(n.display, "\"x, y\"") && is(n.uri, "sip:p2.example;lr"));

	assert_int_equal(digest_parse(h->value, &p), 0);
	assert_true(is(p.username, "a") && is(p.realm, "one") && is(p.nonce, "x,\\\"y"));
	h = sip_hdr_next(m, h);
	assert_int_equal(digest_parse(h->value, &p), 0);
	assert_true(is(p.username, "b") && is(p.realm, "two") && is(p.nonce, "z"));
	assert_null(sip_hdr_next(m, h));
}

static void read_the_same(void **state)
{
	static struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		for (int stream = 0; stream < 2; stream++) {
			assert_int_equal(parse(shapes[i], strlen(shapes[i]), stream != 0, &m), SIP_OK);
			assert_int_equal(m.method, SIP_INVITE);
			assert_int_equal(m.cseq, 7);
			assert_true(is(m.call_id, "id@[2001:db8::1]") && is(m.body, "body"));
			assert_true(is(sip_hdr_first(&m, SIP_HDR_CONTENT_TYPE)->value, "text/plain"));
			assert_true(is(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, "<sip:anna@[2001:db8::1]>"));
			vias(&m);
			parties(&m);
			routes_and_credentials(&m);
		}
	}
}

/* Their answers go to the same place and carry all of Via, whatever its shape. */
static void answered_the_same(void **state)
{
	const struct wn_addr src = {.ip = {0x20, 1, 0xd, 0xb8, [15] = 7}, .port = 6000};
	static struct sip_msg m, r;
	struct span item[4];
	struct sip_via v;
	struct sip_buf b;
	char text[2048];

	(void)state;
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		assert_int_equal(parse(shapes[i], strlen(shapes[i]), false, &m), SIP_OK);
		sip_buf_init(&b, text, sizeof(text));
		sip_put_response(&b, &m, 483, "Too Many Hops", span_of(NULL, 0), &src);
		sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
		assert_false(b.overflow);
		assert_int_equal(sip_parse(sip_buf_span(&b), true, &r), SIP_OK);
		assert_true(is(r.via.received, "2001:db8::7") && r.via.rport_value == 6000 && is(r.via.host, "2001:db8::9"));
		assert_true(is(r.from_tag, "a1") && is(r.to_tag, "b2") && is(r.call_id, "id@[2001:db8::1]"));
		assert_int_equal(values(&r, SIP_HDR_VIA, item, 4), 3);
		assert_int_equal(sip_parse_via(item[1], &v), 0);
		/* Others' are not touched. */
		assert_true(is(v.received, "192.0.2.9"));
	}
}

/* What a first look sees of them, where it is sure. */
static void looked_at_the_same(void **state)
{
	struct sip_quick q;

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		assert_true(sip_quick(span_str(shapes[i]), &q));
		assert_true(is(q.route_user, "t0ken") && is(q.proxy_authorization, AUTH1));
		assert_int_equal(q.nproxy_authorization, 2);
		assert_int_equal(q.nroute, 2 - i);
	}
	assert_false(sip_quick(span_str(shapes[2]), &q));
}

/* RFC 3261 18.3: a datagram ends the message where Content-Length is absent, a stream needs it; too much is an error or a wait. */
static void content_length(void **state)
{
#define HEAD                                                                                                          \
	"MESSAGE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n" \
	"Call-ID: 1\r\nCSeq: 1 MESSAGE\r\n"
	static const struct {
		const char *text;
		enum sip_verdict datagram;
		int datagram_body;
		enum sip_verdict stream;
		int stream_body;
	} cases[] = {
		{HEAD "\r\nabcd", SIP_OK, 4, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "\r\n", SIP_OK, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length: 4\r\n\r\nabcd", SIP_OK, 4, SIP_OK, 4},
		{HEAD "Content-Length: 2\r\n\r\nabcd", SIP_OK, 2, SIP_OK, 2},
		{HEAD "Content-Length: 0\r\n\r\nabcd", SIP_OK, 0, SIP_OK, 0},
		{HEAD "Content-Length: 5\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_INCOMPLETE, 0},
		{HEAD "Content-Length: 0004\r\n\r\nabcd", SIP_OK, 4, SIP_OK, 4},
		{HEAD "Content-Length: 65535\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_TOO_LARGE, 0},
		{HEAD "Content-Length: 65536\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length: 4294967300\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length: -1\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length: 4x\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length:\r\n\r\nabcd", SIP_BAD_CONTENT_LENGTH, 0, SIP_BAD_CONTENT_LENGTH, 0},
		{HEAD "Content-Length: 4\r\nl: 4\r\n\r\nabcd", SIP_DUPLICATE_HEADER, 0, SIP_DUPLICATE_HEADER, 0},
	};
	static struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const size_t n = strlen(cases[i].text);

		assert_int_equal(parse(cases[i].text, n, false, &m), cases[i].datagram);
		if (cases[i].datagram == SIP_OK)
			assert_int_equal(m.body.n, cases[i].datagram_body);
		assert_int_equal(parse(cases[i].text, n, true, &m), cases[i].stream);
		if (cases[i].stream == SIP_OK) {
			assert_int_equal(m.body.n, cases[i].stream_body);
			assert_int_equal(m.consumed, n - 4 + m.body.n);
		}
	}
#undef HEAD
}

/* RFC 5118: where IPv6 stands, with brackets and without. */
static void ipv6(void **state)
{
	static const struct {
		const char *uri, *host;
		uint16_t port;
	} uris[] = {
		{"sip:[2001:db8::10]", "2001:db8::10", 0},
		{"sip:u@[2001:db8::10:5070]", "2001:db8::10:5070", 0},
		{"sip:u@[2001:db8::10]:5070", "2001:db8::10", 5070},
		{"sip:u@[::ffff:192.0.2.10]:5060;lr", "::ffff:192.0.2.10", 5060},
		{"sip:u@[::]", "::", 0},
		{"sip:2001:db8::10", NULL, 0},
		{"sip:u@2001:db8::10", NULL, 0},
		{"sip:u@[2001:db8::10", NULL, 0},
		{"sip:u@[2001:db8:::10]", NULL, 0},
		{"sip:u@[2001:db8::10]5070", NULL, 0},
		{"sip:u@[fe80::1%25eth0]", NULL, 0},
		{"sip:u@[]", NULL, 0},
		{"sip:u@[192.0.2.1]", NULL, 0},
	};
	struct sip_uri u;
	struct sip_via v;

	(void)state;
	for (size_t i = 0; i < sizeof(uris) / sizeof(uris[0]); i++) {
		if (uris[i].host == NULL) {
			if (sip_parse_uri(span_str(uris[i].uri), &u) == 0)
				fail_msg("accepted: %s", uris[i].uri);
			continue;
		}
		assert_int_equal(sip_parse_uri(span_str(uris[i].uri), &u), 0);
		assert_true(is(u.host, uris[i].host) && u.port == uris[i].port);
	}
	/* received: RFC 3261 has no brackets, and elements that write some are met (RFC 5118 4.5). */
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP [2001:db8::9:1];received=[2001:db8::9:255];branch=z9hG4bKas3-111"), &v), 0);
	assert_true(is(v.host, "2001:db8::9:1") && is(v.received, "[2001:db8::9:255]") && is(v.branch, "z9hG4bKas3-111"));
	assert_int_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP [2001:db8::9:1];received=2001:db8::9:255;branch=z9hG4bKas3"), &v), 0);
	assert_true(is(v.received, "2001:db8::9:255"));
	assert_int_not_equal(sip_parse_via(SPAN_LIT("SIP/2.0/UDP 2001:db8::9:1;branch=z9hG4bKas3"), &v), 0);
}

static int release(void **state)
{
	(void)state;
	free(copy);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(read_the_same),
		cmocka_unit_test(answered_the_same),
		cmocka_unit_test(looked_at_the_same),
		cmocka_unit_test(content_length),
		cmocka_unit_test(ipv6),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
