/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "sip/build.h"

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

static char request[1024];

static void load(const char *vias, struct sip_msg *m)
{
	int n = snprintf(request, sizeof(request),
			 "INVITE sip:ssh@example.org SIP/2.0\r\n%sf: <sip:a@example.org>;tag=1\r\nTo: <sip:ssh@example.org>\r\n"
			 "i: c1\r\nCSeq: 4 INVITE\r\nMax-Forwards: 70\r\n\r\n",
			 vias);

	assert_int_equal(sip_parse(span_of(request, (size_t)n), false, m), SIP_OK);
}

static void vias(void **state)
{
	static const struct {
		const char *in, *src, *out;
	} cases[] = {
		/* RFC 3581 section 4's example: rport filled in, received added. */
		{"Via: SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bKkjshdyff\r\n", "192.0.2.1:9988",
		 "Via: SIP/2.0/UDP 10.1.1.1:4540;rport=9988;branch=z9hG4bKkjshdyff;received=192.0.2.1\r\n"},
		/* rport asked for: received even where it equals sent-by. */
		{"Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport\r\n", "192.0.2.1:5060",
		 "Via: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1;rport=5060;received=192.0.2.1\r\n"},
		/* RFC 3261 18.2.1: not asked, same address: as it was. */
		{"Via: SIP/2.0/UDP 192.0.2.1:7000;branch=z9hG4bK1\r\n", "192.0.2.1:5060",
		 "Via: SIP/2.0/UDP 192.0.2.1:7000;branch=z9hG4bK1\r\n"},
		/* A name always gets received. */
		{"Via: SIP/2.0/UDP host.example;branch=z9hG4bK1\r\n", "192.0.2.1:5060",
		 "Via: SIP/2.0/UDP host.example;branch=z9hG4bK1;received=192.0.2.1\r\n"},
		/* What the sender says about itself is replaced. */
		{"Via: SIP/2.0/UDP 10.0.0.1 ; received=203.0.113.9 ;rport=1;branch=z9hG4bK1;x=\"a;b\"\r\n", "192.0.2.1:5060",
		 "Via: SIP/2.0/UDP 10.0.0.1;rport=5060;branch=z9hG4bK1;x=\"a;b\";received=192.0.2.1\r\n"},
		{"Via: SIP/2.0/UDP [2001:db8::9];branch=z9hG4bK1;rport\r\n", "[2001:db8::1]:1",
		 "Via: SIP/2.0/UDP [2001:db8::9];branch=z9hG4bK1;rport=1;received=2001:db8::1\r\n"},
		/* Only the topmost value, whether the others are joined or apart. */
		{"v: SIP/2.0/UDP 10.0.0.1;rport , SIP/2.0/TCP b;rport\r\nVia: SIP/2.0/TLS c;rport\r\n", "192.0.2.1:5060",
		 "v: SIP/2.0/UDP 10.0.0.1;rport=5060;received=192.0.2.1 , SIP/2.0/TCP b;rport\r\nVia: SIP/2.0/TLS c;rport\r\n"},
		/* Not a byte longer than it was; of more than one blank one is left. */
		{"v:SIP/2.0/UDP 192.0.2.1\r\nvia:SIP/2.0/UDP b\r\nVia \t: \r\n\tSIP/2.0/UDP c\r\n", "192.0.2.1:5060",
		 "v:SIP/2.0/UDP 192.0.2.1\r\nvia:SIP/2.0/UDP b\r\nVia: SIP/2.0/UDP c\r\n"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wn_addr src = addr(cases[i].src);
		struct sip_msg m;
		struct sip_buf b;
		char out[512];

		load(cases[i].in, &m);
		sip_buf_init(&b, out, sizeof(out));
		sip_put_vias(&b, &m, &src);
		assert_false(b.overflow);
		out[b.len] = 0;
		assert_string_equal(out, cases[i].out);
	}
}

static void response(void **state)
{
	struct wn_addr src = addr("192.0.2.1:5060");
	struct sip_msg m, r;
	struct sip_buf b;
	char out[512];

	(void)state;
	load("Via: SIP/2.0/UDP 10.0.0.1;rport;branch=z9hG4bK7\r\n", &m);
	sip_buf_init(&b, out, sizeof(out));
	sip_put_response(&b, &m, 486, "Busy Here", SPAN_LIT("t9"), &src);
	sip_put_end(&b, SPAN_LIT("text/plain"), SPAN_LIT("hello"));
	assert_false(b.overflow);
	assert_int_equal(sip_parse(sip_buf_span(&b), true, &r), SIP_OK);
	assert_int_equal(r.consumed, b.len);
	assert_int_equal(r.status, 486);
	assert_true(span_eq(r.reason, SPAN_LIT("Busy Here")));
	assert_true(span_eq(r.call_id, m.call_id) && span_eq(r.from, m.from) && r.cseq == 4 && r.method == SIP_INVITE);
	assert_true(span_eq(r.to_tag, SPAN_LIT("t9")));
	assert_int_equal(r.via.rport_value, 5060);
	assert_true(span_eq(r.body, SPAN_LIT("hello")));
	/* Compact names are answered by compact names. */
	assert_non_null(strstr(out, "\r\nf: "));
	assert_non_null(strstr(out, "\r\ni: c1\r\n"));

	/* A To that has a tag keeps it; no tag given, none added. */
	sip_buf_init(&b, out, sizeof(out));
	sip_put_response(&b, &m, 100, "Trying", (struct span){0}, &src);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	assert_int_equal(sip_parse(sip_buf_span(&b), true, &r), SIP_OK);
	assert_null(r.to_tag.p);
	assert_int_equal(r.body.n, 0);
}

/* Every capacity: what fits is the same text, what does not is flagged, and nothing is written past the end. */
static void overflow(void **state)
{
	struct wn_addr src = addr("192.0.2.1:5060");
	struct sip_msg m;
	struct sip_buf b;
	char whole[512], out[513];
	size_t n;

	(void)state;
	load("Via: SIP/2.0/UDP 10.0.0.1;rport;branch=z9hG4bK7\r\n", &m);
	sip_buf_init(&b, whole, sizeof(whole));
	sip_put_response(&b, &m, 200, "OK", SPAN_LIT("t"), &src);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	n = b.len;
	for (size_t cap = 0; cap <= n; cap++) {
		memset(out, '#', sizeof(out));
		sip_buf_init(&b, out, cap);
		sip_put_response(&b, &m, 200, "OK", SPAN_LIT("t"), &src);
		sip_put_end(&b, (struct span){0}, (struct span){0});
		assert_int_equal(b.overflow, cap < n);
		assert_true(b.len <= cap);
		assert_memory_equal(out, whole, b.len);
		assert_int_equal(out[cap], '#');
	}
}

static void puts_and_printf(void **state)
{
	struct sip_buf b;
	char out[8];

	(void)state;
	sip_buf_init(&b, out, 7);
	sip_puts(&b, "ab");
	sip_putc(&b, 'c');
	sip_put(&b, (struct span){0});
	sip_printf(&b, "%d", 4567);
	assert_false(b.overflow);
	assert_memory_equal(out, "abc4567", 7);
	sip_printf(&b, "%s", "");
	assert_false(b.overflow);
	sip_putc(&b, 'x');
	assert_true(b.overflow);
	assert_int_equal(b.len, 7);
	sip_buf_init(&b, out, 7);
	sip_printf(&b, "%s", "12345678");
	assert_true(b.overflow);
	sip_puts(&b, "a");
	assert_int_equal(b.len, 0);
	/* All or nothing, in pieces too. */
	sip_buf_init(&b, out, 7);
	sip_printf(&b, "a%s", "b");
	sip_printf(&b, "%s-%u", "cd", 123u);
	assert_true(b.overflow);
	assert_int_equal(b.len, 2);
}

/* With and without the library's printf the same. */
static void formats(void **state)
{
	static const unsigned numbers[] = {0, 9, 10, 4294967295u};
	char out[128], want[128];
	struct sip_buf b;

	(void)state;
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		for (int kind = 0; kind < 3; kind++) {
			int n;

			sip_buf_init(&b, out, sizeof(out));
			if (kind == 0) {
				n = snprintf(want, sizeof(want), "%s: %u\r\n%s%u", "", numbers[i], "x", numbers[i]);
				sip_printf(&b, "%s: %u\r\n%s%u", "", numbers[i], "x", numbers[i]);
			} else if (kind == 1) {
				n = snprintf(want, sizeof(want), "%u%%%s", numbers[i], "y");
				sip_printf(&b, "%u%%%s", numbers[i], "y");
			} else {
				n = snprintf(want, sizeof(want), "%s %08u %.3s", "z", numbers[i], "abcdef");
				sip_printf(&b, "%s %08u %.3s", "z", numbers[i], "abcdef");
			}
			assert_int_equal(b.len, n);
			assert_memory_equal(out, want, (size_t)n);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(vias),    cmocka_unit_test(response), cmocka_unit_test(overflow), cmocka_unit_test(puts_and_printf),
		cmocka_unit_test(formats),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
