/* SPDX-License-Identifier: Apache-2.0 */
/* The torture tests of RFC 4475, byte for byte as its appendix carries them: what the RFC says about each, and what the parser yields. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sip/msg.h"

static const struct {
	const char *file;
	bool valid;            /* RFC: well-formed as far as parsing goes */
	enum sip_verdict says; /* sip_parse */
	const char *why;       /* RFC: the section and the reason; where the fault is not the parser's to find, whose it is */
} table[] = {
	/* 3.1.1 valid messages */
	{"wsinv", true, SIP_OK, "3.1.1.1 a short tortuous INVITE: folds, blanks, compact forms, escapes"},
	{"intmeth", true, SIP_OK, "3.1.1.2 every character that a method, a URI's user, a token may hold; NUL in a quoted pair"},
	{"esc01", true, SIP_OK, "3.1.1.3 valid use of % escapes; %3A and %40 in the user part are not separators"},
	{"escnull", true, SIP_OK, "3.1.1.4 escaped NUL in URIs"},
	{"esc02", true, SIP_OK, "3.1.1.5 % in a method is no escape: RE%47IST%45R is not REGISTER"},
	{"lwsdisp", true, SIP_OK, "3.1.1.6 no blank between display name and <"},
	{"longreq", true, SIP_OK, "3.1.1.7 long values in header fields"},
	{"dblreq", true, SIP_OK, "3.1.1.8 octets behind the Content-Length of a datagram are ignored"},
	{"semiuri", true, SIP_OK, "3.1.1.9 semicolon-separated parameters in the user part"},
	{"transports", true, SIP_OK, "3.1.1.10 varied and unknown transports"},
	{"mpart01", true, SIP_OK, "3.1.1.11 multipart/mime message"},
	{"unreason", true, SIP_OK, "3.1.1.12 unusual reason phrase, UTF-8"},
	{"noreason", true, SIP_OK, "3.1.1.13 empty reason phrase"},
	/* 3.1.2 invalid messages */
	{"badinv01", false, SIP_BAD_VIA, "3.1.2.1 extraneous separators in Via and Contact"},
	{"clerr", false, SIP_BAD_CONTENT_LENGTH, "3.1.2.2 Content-Length larger than the message"},
	{"ncl", false, SIP_BAD_CONTENT_LENGTH, "3.1.2.3 negative Content-Length"},
	{"scalar02", false, SIP_BAD_CSEQ, "3.1.2.4 request scalars (CSeq, Max-Forwards, Expires) out of range"},
	{"scalarlg", false, SIP_BAD_CSEQ, "3.1.2.5 response scalars (CSeq, Retry-After) out of range"},
	{"quotbal", false, SIP_BAD_FROM_TO, "3.1.2.6 unterminated quoted string in To"},
	{"ltgtruri", false, SIP_BAD_URI, "3.1.2.7 <> around the Request-URI"},
	{"lwsruri", false, SIP_BAD_START_LINE, "3.1.2.8 blank inside the Request-URI"},
	{"lwsstart", false, SIP_BAD_START_LINE, "3.1.2.9 several blanks between the parts of the request line"},
	{"trws", false, SIP_BAD_START_LINE, "3.1.2.10 blanks at the end of the request line"},
	{"escruri", false, SIP_BAD_URI, "3.1.2.11 headers in the Request-URI"},
	{"baddate", false, SIP_OK, "3.1.2.12 Date not in GMT: nothing of Walnut's reads Date; RFC lets an element ignore it"},
	{"regbadct", false, SIP_OK, "3.1.2.13 Contact with '?' outside <>: sip_parse_nameaddr refuses it where a Contact is read"},
	{"badaspec", false, SIP_BAD_FROM_TO, "3.1.2.14 blanks within <> of To"},
	{"baddn", false, SIP_BAD_HEADER,
	 "3.1.2.15 comma in an unquoted display name; the archive's bytes lack the blank line too, and that shows first"},
	{"badvers", false, SIP_BAD_VERSION, "3.1.2.16 unknown protocol version"},
	{"mismatch01", false, SIP_BAD_CSEQ, "3.1.2.17 methods of request line and CSeq differ"},
	{"mismatch02", false, SIP_BAD_CSEQ, "3.1.2.18 the same with an unknown method"},
	{"bigcode", false, SIP_BAD_START_LINE, "3.1.2.19 response code with more than three digits"},
	/* 3.2 transaction layer */
	{"badbranch", true, SIP_OK, "3.2.1 branch is the magic cookie alone: the transaction layer must not match by it"},
	/* 3.3 application layer */
	{"insuf", false, SIP_MISSING_HEADER, "3.3.1 Call-ID, From and To are missing"},
	{"unkscm", true, SIP_OK, "3.3.2 Request-URI of an unknown scheme: routing answers 416"},
	{"novelsc", true, SIP_OK, "3.3.3 Request-URI of a known scheme that is unusual here: routing answers 416"},
	{"unksm2", true, SIP_OK, "3.3.4 unknown schemes in From, To, Contact: of no concern to a proxy"},
	{"bext01", true, SIP_OK, "3.3.5 Require and Proxy-Require of unknown extensions: the core answers 420"},
	{"invut", true, SIP_OK, "3.3.6 unknown Content-Type: the agent answers 415"},
	{"regaut01", true, SIP_OK, "3.3.7 unknown authorization scheme: digest_parse says -ENOTSUP"},
	{"multi01", false, SIP_DUPLICATE_HEADER, "3.3.8 several values of headers that hold one"},
	{"mcl01", false, SIP_DUPLICATE_HEADER, "3.3.9 several Content-Length"},
	{"bcast", true, SIP_OK, "3.3.10 200 with a Via that is not ours: the transaction layer drops it"},
	{"zeromf", true, SIP_OK, "3.3.11 Max-Forwards 0: a proxy answers 483, the addressed element serves it"},
	{"cparam01", true, SIP_OK, "3.3.12 REGISTER with an unknown Contact header parameter"},
	{"cparam02", true, SIP_OK, "3.3.13 REGISTER with an unknown Contact URI parameter"},
	{"regescrt", true, SIP_OK, "3.3.14 escaped header in a Contact URI within <>"},
	{"sdp01", true, SIP_OK, "3.3.15 Accept without application/sdp: the agent answers 406"},
	/* 3.4 backward compatibility */
	{"inv2543", true, SIP_OK, "3.4.1 INVITE of RFC 2543: no branch, no From tag"},
};

#define COUNT (sizeof(table) / sizeof(table[0]))

/* An exact heap copy, so that a sanitizer sees one byte too many. */
static struct span load(const char *name)
{
	char path[512];
	char *copy, buf[8192];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.dat", VECTORS, name);
	f = fopen(path, "rb");
	if (f == NULL)
		fail_msg("%s: %s", path, strerror(errno));
	n = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	assert_true(n > 0 && n < sizeof(buf));
	copy = malloc(n);
	memcpy(copy, buf, n);
	return span_of(copy, n);
}

static struct span parsed(const char *name, struct sip_msg *m)
{
	struct span in = load(name);

	assert_int_equal(sip_parse(in, false, m), SIP_OK);
	return in;
}

static void release(struct span in)
{
	free((void *)(uintptr_t)in.p);
}

#define assert_span(s, text)                                        \
	do {                                                        \
		assert_int_equal((s).n, sizeof(text) - 1);          \
		assert_memory_equal((s).p, text, sizeof(text) - 1); \
	} while (0)

static void verdicts(void **state)
{
	struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		struct span in = load(table[i].file);
		enum sip_verdict v = sip_parse(in, false, &m);

		if (v != table[i].says)
			fail_msg("%s: %s, expected %s (%s)", table[i].file, sip_verdict_name(v), sip_verdict_name(table[i].says),
				 table[i].why);
		/* Whatever the RFC calls valid must get through. */
		if (table[i].valid)
			assert_int_equal(v, SIP_OK);
		release(in);
	}
}

static void complete(void **state)
{
	DIR *d = opendir(VECTORS);
	struct dirent *e;
	unsigned files = 0;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		if (strstr(e->d_name, ".dat") != NULL)
			files++;
	}
	closedir(d);
	assert_int_equal(COUNT, 49);
	assert_int_equal(files, COUNT);
}

/* Cut anywhere, as a datagram or on a stream, none is read past its end; on a stream a valid one is never refused before it is complete. */
static void cuts(void **state)
{
	struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		struct span in = load(table[i].file);

		for (size_t n = 0; n < in.n; n++) {
			char *copy = malloc(n != 0 ? n : 1);
			enum sip_verdict v;

			memcpy(copy, in.p, n);
			sip_parse(span_of(copy, n), false, &m);
			v = sip_parse(span_of(copy, n), true, &m);
			if (table[i].valid && v != SIP_INCOMPLETE && v != SIP_OK && v != SIP_KEEPALIVE) {
				/* inv2543, bcast and others without a Content-Length cannot travel on a stream. */
				assert_int_equal(v, SIP_BAD_CONTENT_LENGTH);
				assert_int_equal(m.first[SIP_HDR_CONTENT_LENGTH], 0);
			}
			free(copy);
		}
		release(in);
	}
}

static void wsinv(void **state)
{
	struct sip_msg m;
	struct span in = parsed("wsinv", &m);
	struct sip_nameaddr n;
	struct span value, rest, item;
	const struct sip_hdr *h;
	struct sip_via via;

	(void)state;
	assert_int_equal(m.method, SIP_INVITE);
	assert_span(m.uri, "sip:vivekg@chair-dnrc.example.com;unknownparam");
	assert_span(m.to_tag, "1918181833n");
	assert_span(m.from_tag, "98asjd8");
	assert_int_equal(m.max_forwards, 68);
	assert_int_equal(m.cseq, 9);
	assert_span(m.call_id, "wsinv.ndaksdj@192.0.2.1");
	assert_span(m.via.transport, "UDP");
	assert_span(m.via.host, "192.0.2.2");
	assert_span(m.via.branch, "390skdjuw");
	assert_int_equal(m.body.n, 150);
	assert_int_equal(m.consumed, in.n);

	h = sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_VIA));
	assert_non_null(h);
	rest = h->value;
	assert_true(sip_list_next(&rest, &item));
	assert_int_equal(sip_parse_via(item, &via), 0);
	assert_span(via.transport, "TCP");
	assert_span(via.host, "spindle.example.com");
	assert_span(via.branch, "z9hG4bK9ikj8");
	assert_true(sip_list_next(&rest, &item));
	assert_int_equal(sip_parse_via(item, &via), 0);
	assert_span(via.branch, "z9hG4bK30239");
	assert_false(sip_list_next(&rest, &item));
	assert_null(sip_hdr_next(&m, h));

	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_span(n.display, "\"Quoted string \\\"\\\"\"");
	assert_span(n.uri, "sip:jdrosen@example.com");
	assert_true(sip_param(n.params, SPAN_LIT("newparam"), &value));
	assert_span(value, "newvalue");
	assert_true(sip_param(n.params, SPAN_LIT("SecondParam"), &value));
	assert_null(value.p);
	assert_true(sip_param(n.params, SPAN_LIT("q"), &value));
	assert_span(value, "0.33");
	assert_false(sip_param(n.params, SPAN_LIT("r"), &value));

	h = sip_hdr_by_name(&m, SPAN_LIT("newfangledheader"));
	assert_non_null(h);
	assert_span(h->value, "newfangled value\r\n continued newfangled value");
	assert_int_equal(sip_hdr_by_name(&m, SPAN_LIT("s"))->value.n, 0);
	release(in);
}

static void intmeth(void **state)
{
	struct sip_msg m;
	struct span in = parsed("intmeth", &m);
	struct sip_uri uri;
	struct sip_nameaddr n;

	(void)state;
	assert_int_equal(m.method, SIP_METHOD_OTHER);
	assert_span(m.method_text, "!interesting-Method0123456789_*+`.%indeed'~");
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*");
	assert_span(uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)");
	assert_span(uri.host, "example.com");
	assert_span(m.from_tag, "_token~1'+`*%!-.");
	assert_int_equal(sip_parse_nameaddr(m.to, &n), 0);
	assert_span(n.display, "\"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\"");
	assert_int_equal(m.cseq, 139122385);
	assert_int_equal(m.max_forwards, 255);
	release(in);
}

static void baddn_with_blank_line(void **state)
{
	struct span in = load("baddn");
	char text[1024];
	struct sip_msg m;

	(void)state;
	memcpy(text, in.p, in.n);
	memcpy(text + in.n, "\r\n", 2);
	assert_int_equal(sip_parse(span_of(text, in.n + 2), false, &m), SIP_BAD_FROM_TO);
	release(in);
}

static void others(void **state)
{
	struct sip_msg m;
	struct sip_uri uri;
	struct sip_nameaddr n;
	struct span in, value;
	unsigned vias = 0;

	(void)state;
	in = parsed("esc01", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "sips%3Auser%40example.com");
	assert_span(uri.host, "example.net");
	release(in);

	in = parsed("esc02", &m);
	assert_int_equal(m.method, SIP_METHOD_OTHER);
	release(in);

	in = parsed("semiuri", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "user;par=u%40example.net");
	assert_null(uri.params.p);
	release(in);

	in = parsed("dblreq", &m);
	assert_int_equal(m.method, SIP_REGISTER);
	assert_int_equal(m.body.n, 0);
	assert_true(m.consumed < in.n);
	release(in);

	in = parsed("longreq", &m);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_VIA); h != NULL; h = sip_hdr_next(&m, h))
		vias++;
	assert_int_equal(vias, 34);
	assert_span(m.via.host, "sip33.example.com");
	release(in);

	in = parsed("unreason", &m);
	assert_false(m.request);
	assert_int_equal(m.status, 200);
	assert_int_equal(m.method, SIP_INVITE);
	release(in);

	in = parsed("noreason", &m);
	assert_int_equal(m.status, 100);
	assert_int_equal(m.reason.n, 0);
	release(in);

	in = parsed("regbadct", &m);
	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), -EINVAL);
	release(in);

	in = parsed("regescrt", &m);
	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_int_equal(sip_parse_uri(n.uri, &uri), 0);
	assert_span(uri.headers, "Route=%3Csip:sip.example.com%3E");
	release(in);

	in = parsed("cparam02", &m);
	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_int_equal(sip_parse_uri(n.uri, &uri), 0);
	assert_true(sip_param(uri.params, SPAN_LIT("unknownparam"), &value));
	release(in);

	in = parsed("unkscm", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.scheme, "nobodyKnowsThisScheme");
	assert_null(uri.host.p);
	release(in);

	in = parsed("inv2543", &m);
	assert_null(m.from_tag.p);
	assert_null(m.via.branch.p);
	assert_int_equal(m.max_forwards, -1);
	assert_true(m.body.n > 0);
	assert_int_equal(m.consumed, in.n);
	release(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verdicts), cmocka_unit_test(complete), cmocka_unit_test(cuts),
		cmocka_unit_test(wsinv),    cmocka_unit_test(intmeth),  cmocka_unit_test(baddn_with_blank_line),
		cmocka_unit_test(others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
