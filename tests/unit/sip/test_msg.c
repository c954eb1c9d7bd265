/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sip/msg.h"

#define VIA     "Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport\r\n"
#define FROM    "From: <sip:alice@example.org>;tag=a1\r\n"
#define TO      "To: <sip:ssh@example.org>\r\n"
#define CALL_ID "Call-ID: 1234@192.0.2.1\r\n"
#define CSEQ    "CSeq: 1 INVITE\r\n"
#define LINE    "INVITE sip:ssh@example.org SIP/2.0\r\n"
#define BASE    VIA FROM TO CALL_ID CSEQ

#define assert_span(s, text)                                        \
	do {                                                        \
		assert_int_equal((s).n, sizeof(text) - 1);          \
		assert_memory_equal((s).p, text, sizeof(text) - 1); \
	} while (0)

/* From an exact heap copy, kept until the next call, so that a sanitizer sees one byte too many. */
static enum sip_verdict parse_n(const char *text, size_t n, bool stream, struct sip_msg *m)
{
	static char *copy;

	free(copy);
	copy = malloc(n != 0 ? n : 1);
	memcpy(copy, text, n);
	return sip_parse(span_of(copy, n), stream, m);
}

#define parse(text, m)        parse_n(text, sizeof(text) - 1, false, m)
#define parse_stream(text, m) parse_n(text, sizeof(text) - 1, true, m)

static void verdicts(void **state)
{
	static const struct {
		enum sip_verdict v;
		struct span text;
	} cases[] = {
#define CASE(v, text)                          \
	{                                      \
		v,                             \
		{                              \
			text, sizeof(text) - 1 \
		}                              \
	}
		CASE(SIP_OK, LINE BASE "\r\n"),
		CASE(SIP_OK, "\r\n\r\n" LINE BASE "\r\n"),
		CASE(SIP_OK, LINE BASE "Content-Length: 2\r\n\r\nab"),
		CASE(SIP_OK, LINE BASE "l: 0\r\n\r\nab"),
		CASE(SIP_KEEPALIVE, "\r\n\r\n"),
		CASE(SIP_KEEPALIVE, "\n"),
		CASE(SIP_NOT_SIP, ""),
		CASE(SIP_NOT_SIP, "\0\0\0\0"),
		CASE(SIP_NOT_SIP, "\x80\x01\x02"),
		CASE(SIP_NOT_SIP, " INVITE sip:a@b SIP/2.0\r\n"),
		CASE(SIP_NOT_SIP, "\x16\x03\x01\x02"),
		CASE(SIP_NOT_SIP, "INVITE"),
		CASE(SIP_NOT_SIP, "SIP"),
		CASE(SIP_BAD_START_LINE, "INVITE sip:a@b"),
		CASE(SIP_BAD_START_LINE, "INVITE sip:a@b\r\n"),
		CASE(SIP_BAD_START_LINE, "INVITE sip:a@b SIP/2.0\n"),
		CASE(SIP_BAD_START_LINE, "INVITE sip:a@b SIP/2.0\r"),
		CASE(SIP_BAD_START_LINE, "INVITE  SIP/2.0\r\n"),
		CASE(SIP_BAD_START_LINE, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
		CASE(SIP_BAD_START_LINE, "INVITE sip:a\0@b SIP/2.0\r\n"),
		CASE(SIP_BAD_VERSION, "INVITE sip:a@b SIP/2.1\r\n" BASE "\r\n"),
		CASE(SIP_BAD_VERSION, "INVITE sip:a@b SIP/2.00\r\n" BASE "\r\n"),
		CASE(SIP_BAD_VERSION, "SIP/3.0 200 OK\r\n" BASE "\r\n"),
		CASE(SIP_BAD_START_LINE, "SIP/2.0 20 OK\r\n" BASE "\r\n"),
		CASE(SIP_BAD_START_LINE, "SIP/2.0 099 OK\r\n" BASE "\r\n"),
		CASE(SIP_BAD_START_LINE, "SIP/2.0 700 OK\r\n" BASE "\r\n"),
		CASE(SIP_BAD_START_LINE, "SIP/2.0 2000 OK\r\n" BASE "\r\n"),
		CASE(SIP_BAD_START_LINE, "SIP/2.0 200\r\n" BASE "\r\n"),
		CASE(SIP_BAD_URI, "INVITE sip: SIP/2.0\r\n" BASE "\r\n"),
		CASE(SIP_BAD_URI, "INVITE ssh SIP/2.0\r\n" BASE "\r\n"),
		CASE(SIP_BAD_URI, "INVITE sip:@b SIP/2.0\r\n" BASE "\r\n"),
		CASE(SIP_BAD_URI, "INVITE sip:a@b?c=d SIP/2.0\r\n" BASE "\r\n"),
		CASE(SIP_BAD_URI, "INVITE sip:a@b\tc SIP/2.0\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE BASE),
		CASE(SIP_BAD_HEADER, LINE BASE "\r"),
		CASE(SIP_BAD_HEADER, LINE BASE "\rx"),
		CASE(SIP_BAD_HEADER, LINE " folded: start\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "nocolon\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "nocolon\r\n : x\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE ": empty\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "a b: c\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: a\nb: c\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: a\rb: c\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: a\0b\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: a\\\0b\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: \"a\\\\\0b\"\r\n" BASE "\r\n"),
		CASE(SIP_BAD_HEADER, LINE "x: \"a\\\nb\"\r\n" BASE "\r\n"),
		CASE(SIP_OK, LINE "x: \"a\\\0b\\\"\\\x01\"\r\n" BASE "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE VIA TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE VIA FROM CALL_ID CSEQ "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE VIA FROM TO CSEQ "\r\n"),
		CASE(SIP_MISSING_HEADER, LINE VIA FROM TO CALL_ID "\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "f: <sip:bob@example.org>;tag=b\r\n\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "t: <sip:bob@example.org>\r\n\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "i: 2\r\n\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "CSEQ: 1 INVITE\r\n\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "l: 0\r\nContent-Length: 0\r\n\r\n"),
		CASE(SIP_DUPLICATE_HEADER, LINE BASE "Max-Forwards: 1\r\nMax-Forwards: 1\r\n\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/1.0/UDP a\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a:0\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a:70000\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP [::1\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a;branch=b;branch=c\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a;rport;rport\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a;branch\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via: SIP/2.0/UDP a b\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_VIA, LINE "Via:\r\n" FROM TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: 2147483648 INVITE\r\n\r\n"),
		CASE(SIP_OK, LINE VIA FROM TO CALL_ID "CSeq: 2147483647 INVITE\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: 1 invite\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: 1INVITE\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: 1\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: INVITE\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, LINE VIA FROM TO CALL_ID "CSeq: 1 INVITE x\r\n\r\n"),
		CASE(SIP_BAD_CSEQ, "SIP/2.0 200 OK\r\n" VIA FROM TO CALL_ID "CSeq: 1 INVITE x\r\n\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA "From: <sip:a@b>;tag=x;tag=y\r\n" TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA "From: <sip:a@b>;tag\r\n" TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA "From: <sip:a@b>;tag=\"x\"\r\n" TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA "From: <sip:a@b>, <sip:c@d>\r\n" TO CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA FROM "To: <sip:a@b\r\n" CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA FROM "To: alice\r\n" CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_FROM_TO, LINE VIA FROM "To:\r\n" CALL_ID CSEQ "\r\n"),
		CASE(SIP_BAD_CALL_ID, LINE VIA FROM TO "Call-ID: a b\r\n" CSEQ "\r\n"),
		CASE(SIP_BAD_CALL_ID, LINE VIA FROM TO "Call-ID:\r\n" CSEQ "\r\n"),
		CASE(SIP_BAD_CALL_ID, LINE VIA FROM TO "Call-ID: a@b@c\r\n" CSEQ "\r\n"),
		CASE(SIP_BAD_CALL_ID, LINE VIA FROM TO "Call-ID: @b\r\n" CSEQ "\r\n"),
		CASE(SIP_BAD_MAX_FORWARDS, LINE BASE "Max-Forwards: 256\r\n\r\n"),
		CASE(SIP_BAD_MAX_FORWARDS, LINE BASE "Max-Forwards: -1\r\n\r\n"),
		CASE(SIP_BAD_MAX_FORWARDS, LINE BASE "Max-Forwards:\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "Contact: sip:a@b?c=d\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "m: <sip:a@b>, sip:a@b?c=d\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "Contact: <sip:a@b>\r\nm: \"x\" sip:a@b\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "Contact: \"x <sip:a@b>\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "Contact: ,\r\n\r\n"),
		CASE(SIP_BAD_CONTACT, LINE BASE "Contact:\r\n\r\n"),
		CASE(SIP_OK, LINE BASE "Contact: *\r\n\r\n"),
		CASE(SIP_OK, LINE BASE "Contact: \"a,b?\" <sip:a@b?c=d>;q=1, sip:e@f;expires=3\r\n\r\n"),
		CASE(SIP_OK, LINE BASE "Contact: <sip:a@b?c=d>\r\n\r\n"),
		CASE(SIP_OK, "SIP/2.0 200 OK\r\n" BASE "Contact: sip:a@b?c=d\r\nDate: Fri, 01 Jan 2010 16:00:00 EST\r\n\r\n"),
		CASE(SIP_BAD_DATE, LINE BASE "Date: Fri, 01 Jan 2010 16:00:00 EST\r\n\r\n"),
		CASE(SIP_BAD_DATE, LINE BASE "Date: GMT\r\n\r\n"),
		CASE(SIP_OK, LINE BASE "date: Fri, 01 Jan 2010 16:00:00 GMT\r\n\r\n"),
		CASE(SIP_BAD_CONTENT_LENGTH, LINE BASE "Content-Length: 3\r\n\r\nab"),
		CASE(SIP_BAD_CONTENT_LENGTH, LINE BASE "Content-Length: +2\r\n\r\nab"),
		CASE(SIP_BAD_CONTENT_LENGTH, LINE BASE "Content-Length: 18446744073709551618\r\n\r\nab"),
		CASE(SIP_BAD_CONTENT_LENGTH, LINE BASE "Content-Length: 2, 2\r\n\r\nab"),
#undef CASE
	};
	struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		enum sip_verdict v = parse_n(cases[i].text.p, cases[i].text.n, false, &m);

		if (v != cases[i].v)
			fail_msg("case %zu: %s, expected %s: %s", i, sip_verdict_name(v), sip_verdict_name(cases[i].v), cases[i].text.p);
	}
}

static void fields(void **state)
{
	struct sip_msg m;

	(void)state;
	assert_int_equal(parse(LINE BASE "MAX-forwards:\t70 \r\nContact: <sip:alice@192.0.2.1>\r\nx-WALNUT-Key: abc\r\nX-Other: 1\r\n"
					 "Proxy-Authorization: Digest a=b\r\nProxy-Authorization: Digest c=d\r\nx: 1800\r\n\r\nrest",
			       &m),
			 SIP_OK);
	assert_true(m.request);
	assert_int_equal(m.method, SIP_INVITE);
	assert_span(m.method_text, "INVITE");
	assert_span(m.uri, "sip:ssh@example.org");
	assert_span(m.via.transport, "UDP");
	assert_span(m.via.sent_by, "192.0.2.1:5060");
	assert_span(m.via.text, "SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport");
	assert_int_equal(m.via.port, 5060);
	assert_true(m.via.rport);
	assert_int_equal(m.via.rport_value, 0);
	assert_null(m.via.received.p);
	assert_span(m.from_tag, "a1");
	assert_null(m.to_tag.p);
	assert_span(m.call_id, "1234@192.0.2.1");
	assert_int_equal(m.max_forwards, 70);
	assert_span(m.body, "rest");
	assert_int_equal(m.nhdr, 12);
	assert_int_equal(sip_hdr_first(&m, SIP_HDR_X_WALNUT)->value.n, 3);
	assert_null(sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_X_WALNUT)));
	assert_span(sip_hdr_by_name(&m, SPAN_LIT("X-Walnut-Key"))->value, "abc");
	assert_span(sip_hdr_first(&m, SIP_HDR_SESSION_EXPIRES)->value, "1800");
	assert_null(sip_hdr_first(&m, SIP_HDR_ROUTE));
	assert_span(sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_PROXY_AUTHORIZATION))->value, "Digest c=d");
	assert_span(sip_hdr_first(&m, SIP_HDR_OTHER)->name, "X-Other");

	assert_int_equal(parse("SIP/2.0 407 Proxy Authentication Required\r\n" VIA FROM "To: sip:ssh@example.org;tag=zz\r\n" CALL_ID CSEQ
			       "Content-Length: 0\r\n\r\n",
			       &m),
			 SIP_OK);
	assert_false(m.request);
	assert_int_equal(m.status, 407);
	assert_span(m.reason, "Proxy Authentication Required");
	assert_int_equal(m.method, SIP_INVITE);
	assert_span(m.to_tag, "zz");
}

/* Every id by its long name in three cases, so that none is forgotten in the look-up; and no name that differs in one byte. */
static void header_names(void **state)
{
	static const char *const names[SIP_HDRS] = {
		[SIP_HDR_CONTACT] = "Contact",
		[SIP_HDR_ROUTE] = "Route",
		[SIP_HDR_RECORD_ROUTE] = "Record-Route",
		[SIP_HDR_PROXY_AUTHENTICATE] = "Proxy-Authenticate",
		[SIP_HDR_PROXY_AUTHORIZATION] = "Proxy-Authorization",
		[SIP_HDR_WWW_AUTHENTICATE] = "WWW-Authenticate",
		[SIP_HDR_AUTHORIZATION] = "Authorization",
		[SIP_HDR_PROXY_AUTHENTICATION_INFO] = "Proxy-Authentication-Info",
		[SIP_HDR_CONTENT_TYPE] = "Content-Type",
		[SIP_HDR_EXPIRES] = "Expires",
		[SIP_HDR_SESSION_EXPIRES] = "Session-Expires",
		[SIP_HDR_RETRY_AFTER] = "Retry-After",
		[SIP_HDR_REQUIRE] = "Require",
		[SIP_HDR_PROXY_REQUIRE] = "Proxy-Require",
		[SIP_HDR_SUPPORTED] = "Supported",
		[SIP_HDR_P_ASSERTED_IDENTITY] = "P-Asserted-Identity",
		[SIP_HDR_DATE] = "Date",
		[SIP_HDR_X_WALNUT] = "X-Walnut-",
	};
	static const char compact[] = "cmkx";
	static const enum sip_hdr_id compact_ids[] = {SIP_HDR_CONTENT_TYPE, SIP_HDR_CONTACT, SIP_HDR_SUPPORTED, SIP_HDR_SESSION_EXPIRES};
	struct sip_msg m;
	char text[512];

	(void)state;
	for (unsigned id = 0; id < SIP_HDRS; id++) {
		size_t n = names[id] != NULL ? strlen(names[id]) : 0;

		for (size_t change = 0; n != 0 && change <= n; change++) {
			char name[32];
			int len;

			memcpy(name, names[id], n + 1);
			if (change < n)
				name[change] = '!';
			for (int style = 0; style < 3; style++) {
				for (size_t i = 0; i < n; i++) {
					if (style == 1 && name[i] >= 'a' && name[i] <= 'z')
						name[i] = (char)(name[i] - 32);
					else if (style == 2 && name[i] >= 'A' && name[i] <= 'Z')
						name[i] = (char)(name[i] + 32);
				}
				len = snprintf(text, sizeof(text), LINE BASE "%s: x GMT\r\n\r\n", name);
				assert_int_equal(parse_n(text, (size_t)len, false, &m), SIP_OK);
				assert_int_equal(sip_hdr_first(&m, id == SIP_HDR_OTHER ? SIP_HDR_X_WALNUT : (enum sip_hdr_id)id) != NULL,
						 change == n);
			}
		}
	}
	for (size_t i = 0; i < sizeof(compact_ids) / sizeof(compact_ids[0]); i++) {
		int len = snprintf(text, sizeof(text), LINE BASE "%c : x\r\n\r\n", compact[i]);

		assert_int_equal(parse_n(text, (size_t)len, false, &m), SIP_OK);
		assert_non_null(sip_hdr_first(&m, compact_ids[i]));
	}
	assert_int_equal(parse(LINE "v: SIP/2.0/UDP a\r\nf: sip:a@b\r\nt: sip:c@d\r\ni: 1\r\n" CSEQ "l: 0\r\n\r\n", &m), SIP_OK);
}

static void method_names(void **state)
{
	struct sip_msg m;
	char text[512];

	(void)state;
	for (unsigned id = SIP_INVITE; id < SIP_METHODS; id++) {
		const char *name = sip_method_name((enum sip_method)id);
		int len = snprintf(text, sizeof(text), "%s sip:a@b SIP/2.0\r\n" VIA FROM TO CALL_ID "CSeq: 7 %s\r\n\r\n", name, name);

		assert_int_equal(parse_n(text, (size_t)len, false, &m), SIP_OK);
		assert_int_equal(m.method, id);
		len = snprintf(text, sizeof(text), "SIP/2.0 200 OK\r\n" VIA FROM TO CALL_ID "CSeq: 7 %s\r\n\r\n", name);
		assert_int_equal(parse_n(text, (size_t)len, false, &m), SIP_OK);
		assert_int_equal(m.method, id);
	}
	assert_int_equal(parse("invite sip:a@b SIP/2.0\r\n" VIA FROM TO CALL_ID "CSeq: 7 invite\r\n\r\n", &m), SIP_OK);
	assert_int_equal(m.method, SIP_METHOD_OTHER);
}

static void too_many_headers(void **state)
{
	static char text[65536];
	struct sip_msg m;

	(void)state;
	for (unsigned extra = SIP_HEADERS_MAX - 6; extra <= SIP_HEADERS_MAX - 4; extra++) {
		size_t n = (size_t)snprintf(text, sizeof(text), "%s", LINE BASE);

		for (unsigned i = 0; i < extra; i++)
			n += (size_t)snprintf(text + n, sizeof(text) - n, "x%u: y\r\n", i);
		n += (size_t)snprintf(text + n, sizeof(text) - n, "\r\n");
		assert_int_equal(parse_n(text, n, false, &m), extra + 5 <= SIP_HEADERS_MAX ? SIP_OK : SIP_TOO_MANY_HEADERS);
	}
}

/* Many escaped controls in one value: linear time. With a look back to the value's start for each this takes minutes. */
static void escapes_are_linear(void **state)
{
	static char text[SIP_MESSAGE_MAX];
	struct sip_msg m;
	size_t n = (size_t)snprintf(text, sizeof(text), "%s", LINE BASE "x: \"");

	(void)state;
	while (n + 16 < sizeof(text)) {
		text[n++] = '\\';
		text[n++] = 1;
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n, "\"\r\n\r\n");
	for (int i = 0; i < 200; i++)
		assert_int_equal(sip_parse(span_of(text, n), false, &m), SIP_OK);
}

static void streams(void **state)
{
#define FIRST  LINE BASE "Content-Length: 4\r\n\r\nbody"
#define SECOND "\r\nBYE sip:ssh@example.org SIP/2.0\r\n" VIA FROM TO CALL_ID "CSeq: 2 BYE\r\nl: 0\r\n\r\n"
	static const char both[] = FIRST SECOND;
	struct sip_msg m;

	(void)state;
	for (size_t n = 0; n < sizeof(FIRST) - 1; n++)
		assert_int_equal(parse_n(both, n, true, &m), SIP_INCOMPLETE);
	assert_int_equal(parse_n(both, sizeof(both) - 1, true, &m), SIP_OK);
	assert_int_equal(m.consumed, sizeof(FIRST) - 1);
	assert_span(m.body, "body");
	assert_int_equal(m.raw.n, m.consumed);
	assert_int_equal(parse_stream(SECOND, &m), SIP_OK);
	assert_int_equal(m.consumed, sizeof(SECOND) - 1);
	assert_int_equal(m.raw.n, sizeof(SECOND) - 3);
	assert_int_equal(m.method, SIP_BYE);

	assert_int_equal(parse_stream("\r\n\r\n", &m), SIP_KEEPALIVE);
	assert_int_equal(m.consumed, 4);
	assert_int_equal(parse_stream("", &m), SIP_INCOMPLETE);
	assert_int_equal(parse_stream("\x16\x03\x01", &m), SIP_NOT_SIP);
	assert_int_equal(parse_stream(LINE BASE "\r\n", &m), SIP_BAD_CONTENT_LENGTH);
	/* Refused before the rest has come. */
	assert_int_equal(parse_stream(LINE "x\r\n", &m), SIP_BAD_HEADER);
	assert_int_equal(parse_stream(LINE BASE "Content-Length: 65535\r\n\r\n", &m), SIP_TOO_LARGE);
	assert_int_equal(parse_stream(LINE BASE "Content-Length: 65000\r\n\r\n", &m), SIP_INCOMPLETE);
}

static void too_large(void **state)
{
	static char text[SIP_MESSAGE_MAX + 2];
	struct sip_msg m;

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(sip_parse(span_of(text, SIP_MESSAGE_MAX + 1), false, &m), SIP_TOO_LARGE);
	assert_int_equal(sip_parse(span_of(text, SIP_MESSAGE_MAX - 1), true, &m), SIP_INCOMPLETE);
	assert_int_equal(sip_parse(span_of(text, SIP_MESSAGE_MAX), true, &m), SIP_TOO_LARGE);
	memcpy(text, LINE BASE "\r\n", sizeof(LINE BASE) + 1);
	assert_int_equal(sip_parse(span_of(text, SIP_MESSAGE_MAX), false, &m), SIP_OK);
	memset(text, 'a', sizeof(text));
	memcpy(text, LINE "x: ", sizeof(LINE) + 2);
	assert_int_equal(sip_parse(span_of(text, SIP_MESSAGE_MAX), true, &m), SIP_TOO_LARGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verdicts),     cmocka_unit_test(fields),           cmocka_unit_test(header_names),
		cmocka_unit_test(method_names), cmocka_unit_test(too_many_headers), cmocka_unit_test(escapes_are_linear),
		cmocka_unit_test(streams),      cmocka_unit_test(too_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
