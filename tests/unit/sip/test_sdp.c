/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sip/sdp.h"

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

static void same(const struct sdp *a, const struct sdp *b)
{
	assert_int_equal(a->proto, b->proto);
	assert_true(wn_addr_eq(&a->conn, &b->conn));
	assert_int_equal(a->ncand, b->ncand);
	for (unsigned i = 0; i < a->ncand; i++) {
		assert_int_equal(a->cand[i].type, b->cand[i].type);
		assert_true(wn_addr_eq(&a->cand[i].addr, &b->cand[i].addr));
	}
	assert_int_equal(a->walnut_port, b->walnut_port);
	assert_int_equal(a->tag, b->tag);
	assert_int_equal(a->expires_s, b->expires_s);
	assert_int_equal(a->answer, b->answer);
}

static void round_trips(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 128; bits++) {
		struct sdp s = {0}, back;
		struct sip_buf b;
		char text[2048];

		s.proto = bits & 1 ? SDP_UDP : SDP_TCP;
		s.conn = addr(bits & 2 ? "[2001:db8::1]:65535" : "192.0.2.1:9");
		s.answer = (bits & 4) && s.proto == SDP_TCP;
		s.walnut_port = bits & 8 ? 22 : 0;
		s.tag = bits & 16;
		s.expires_s = bits & 32 ? UINT32_MAX : 0;
		s.ncand = bits & 64 ? SDP_CANDIDATES_MAX : bits % 3;
		for (unsigned i = 0; i < s.ncand; i++) {
			s.cand[i].type = i % 2 ? SDP_SRFLX : SDP_HOST;
			s.cand[i].addr = addr(i % 3 ? "[2001:db8::2]:9" : "198.51.100.7:40000");
		}
		sip_buf_init(&b, text, sizeof(text));
		sdp_build(&b, &s, UINT64_MAX);
		assert_false(b.overflow);
		assert_int_equal(sdp_parse(sip_buf_span(&b), &back), 0);
		same(&s, &back);
		for (size_t cap = 0; bits % 16 == 0 && cap < b.len; cap++) {
			struct sip_buf small;
			char out[2048];

			sip_buf_init(&small, out, cap);
			sdp_build(&small, &s, UINT64_MAX);
			assert_true(small.overflow && small.len <= cap);
		}
	}
}

#define HEAD "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n"
#define CONN "c=IN IP4 192.0.2.1\r\n"
#define TCP  "m=application 9 TCP octet-stream\r\n"
#define UDP  "m=application 4000 UDP octet-stream\r\n"

/* As sent, byte for byte: the other end may be an old one. */
static void known_text(void **state)
{
	struct sdp s = {.proto = SDP_TCP, .ncand = 2, .walnut_port = 22};
	struct sip_buf b;
	char text[1024];

	(void)state;
	s.conn = addr("10.0.1.5:9");
	s.cand[0] = (struct sdp_candidate){SDP_HOST, addr("10.0.1.5:9")};
	s.cand[1] = (struct sdp_candidate){SDP_SRFLX, addr("203.0.113.4:9")};
	sip_buf_init(&b, text, sizeof(text));
	sdp_build(&b, &s, 7);
	text[b.len] = 0;
	assert_string_equal(text, "v=0\r\no=- 7 1 IN IP4 10.0.1.5\r\ns=-\r\nc=IN IP4 10.0.1.5\r\nt=0 0\r\n"
				  "m=application 9 TCP octet-stream\r\na=setup:active\r\na=connection:new\r\n"
				  "a=candidate:1 1 TCP 2130706431 10.0.1.5 9 typ host tcptype active\r\n"
				  "a=candidate:2 1 TCP 1694498815 203.0.113.4 9 typ srflx raddr 0.0.0.0 rport 9 tcptype active\r\n"
				  "a=walnut-port:22\r\n");
}

static void parses(void **state)
{
	struct sdp s;

	(void)state;
	/* LF alone, no line end at the end, attributes that are not known, a medium's own c=, other media before and after. */
	assert_int_equal(
		sdp_parse(SPAN_LIT("v=0\no=- 1 1 IN IP4 192.0.2.1\ns= \nc=IN IP4 192.0.2.9\nt=0 0\na=walnut-port:1\n"
				   "m=audio 4 RTP/AVP 0\nc=IN IP4 192.0.2.8\na=walnut-port:2\nm=x 0 TCP y\nm=application 4000 udp x y\n"
				   "c=IN IP6 2001:db8::1\na=walnut-tag:siphash24\na=x\na=y:z\nm=application 5 TCP x\na=walnut-port:3"),
			  &s),
		0);
	assert_int_equal(s.proto, SDP_UDP);
	assert_int_equal(s.conn.port, 4000);
	assert_true(s.tag && s.walnut_port == 0);
	assert_false(wn_addr_is4(&s.conn));

	/* RFC 8839's and RFC 6544's examples. */
	assert_int_equal(sdp_parse(SPAN_LIT(HEAD CONN UDP
					    "a=candidate:1 1 UDP 2130706431 203.0.113.141 8998 typ host\r\n"
					    "a=candidate:2 1 UDP 1694498815 192.0.2.3 45664 typ srflx raddr 203.0.113.141 rport 8998\r\n"
					    "a=candidate:3 2 UDP 1 192.0.2.3 45665 typ host\r\n"
					    "a=candidate:4 1 TCP 1 192.0.2.3 9 typ host tcptype active\r\n"
					    "a=candidate:5 1 UDP 1 192.0.2.3 9 typ relay raddr 0.0.0.0 rport 9\r\n"
					    "a=candidate:6 1 UDP 1 x.local 9 typ host\r\n"
					    "a=candidate:7 1 UDP 1 192.0.2.3 0 typ host\r\n"),
				   &s),
			 0);
	assert_int_equal(s.ncand, 2);
	assert_int_equal(s.cand[1].type, SDP_SRFLX);
	assert_int_equal(s.cand[1].addr.port, 45664);
	assert_int_equal(sdp_parse(SPAN_LIT(HEAD CONN TCP
					    "a=candidate:1 1 TCP 2128609279 10.0.1.1 9 typ host tcptype active\r\na=setup:actpass\r\n"),
				   &s),
			 0);
	assert_int_equal(s.ncand, 1);
	assert_false(s.answer);
	assert_int_equal(sdp_parse(SPAN_LIT(HEAD CONN UDP
					    "a=candidate:1 1 UDP 1 192.0.2.1 1 typ host\r\na=candidate:1 1 UDP 1 192.0.2.1 2 typ host\r\n"
					    "a=candidate:1 1 UDP 1 192.0.2.1 3 typ host\r\na=candidate:1 1 UDP 1 192.0.2.1 4 typ host\r\n"
					    "a=candidate:1 1 UDP 1 192.0.2.1 5 typ host\r\na=candidate:1 1 UDP 1 192.0.2.1 6 typ host\r\n"
					    "a=candidate:1 1 UDP 1 192.0.2.1 7 typ host\r\na=candidate:1 1 UDP 1 192.0.2.1 8 typ host\r\n"
					    "a=candidate:1 1 UDP 1 192.0.2.1 9 typ host\r\n"),
				   &s),
			 0);
	assert_int_equal(s.ncand, SDP_CANDIDATES_MAX);
}

static void refuses(void **state)
{
	static const struct {
		int r;
		const char *text;
	} cases[] = {
		{-ENOTSUP, HEAD CONN},
		{-ENOTSUP, HEAD CONN "m=audio 49217 RTP/AVP 0 12\r\n"},
		{-ENOTSUP, HEAD CONN "m=application 0 TCP x\r\n"},
		{-ENOTSUP, HEAD CONN "m=application 9/2 TCP x\r\n"},
		{-ENOTSUP, HEAD CONN UDP "a=walnut-tag:sha1\r\n"},
		{-ENOTSUP, HEAD CONN UDP "a=walnut-tag\r\n"},
		{-EINVAL, ""},
		{-EINVAL, "v=1\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nt=0 0\r\n" CONN TCP},
		{-EINVAL, HEAD TCP},
		{-EINVAL, "v=0\r\ns=-\r\nt=0 0\r\n" CONN TCP},
		{-EINVAL, "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\nt=0 0\r\n" CONN TCP},
		{-EINVAL, "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\n" CONN TCP},
		{-EINVAL, HEAD CONN CONN TCP},
		{-EINVAL, HEAD TCP CONN CONN},
		{-EINVAL, HEAD CONN TCP "v=0\r\n"},
		{-EINVAL, HEAD "c=IN IP4 224.2.1.1/127\r\n" TCP},
		{-EINVAL, HEAD "c=IN IP4 host.example\r\n" TCP},
		{-EINVAL, HEAD "c=IN IP6 192.0.2.1\r\n" TCP},
		{-EINVAL, HEAD "c=IN IP6 [2001:db8::1]\r\n" TCP},
		{-EINVAL, HEAD "c=IN IP4\r\n" TCP},
		{-EINVAL, HEAD "c=IN IP4 192.0.2.1 x\r\n" TCP},
		{-EINVAL, HEAD CONN "m=application 65536 TCP x\r\n"},
		{-EINVAL, HEAD CONN "m=application 9 TCP\r\n"},
		{-EINVAL, HEAD CONN "m=application  9 TCP x\r\n"},
		{-EINVAL, HEAD CONN "m=application x TCP x\r\n"},
		{-EINVAL, HEAD CONN TCP "\r\n"},
		{-EINVAL, HEAD CONN TCP "a\r\n"},
		{-EINVAL, HEAD CONN TCP "A=b\r\n"},
		{-EINVAL, HEAD CONN TCP "x=a\rb\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-port:65536\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-port:\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-port\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-port:1\r\na=walnut-port:1\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-expires:4294967296\r\n"},
		{-EINVAL, HEAD CONN TCP "a=walnut-expires:1\r\na=walnut-expires:1\r\n"},
		{-EINVAL, HEAD CONN UDP "a=walnut-tag:siphash24\r\na=walnut-tag:siphash24\r\n"},
		{-EINVAL, HEAD CONN TCP "a=setup:active\r\na=setup:passive\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate:1 1 TCP 1 192.0.2.1 9 typ\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate:1 1 TCP 1 192.0.2.1 9 type host\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate:1 1 TCP x 192.0.2.1 9 typ host\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate:1 1 TCP 1 192.0.2.1 65536 typ host\r\n"},
		{-EINVAL, HEAD CONN TCP "a=candidate:1 0x1 TCP 1 192.0.2.1 9 typ host\r\n"},
	};
	struct sdp s;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		size_t n = strlen(cases[i].text);
		char *copy = malloc(n + 1);

		memcpy(copy, cases[i].text, n);
		if (sdp_parse(span_of(copy, n), &s) != cases[i].r)
			fail_msg("case %zu: %s", i, cases[i].text);
		free(copy);
	}
	assert_int_equal(sdp_parse((struct span){0}, &s), -EINVAL);
	assert_int_equal(sdp_parse(span_of(HEAD CONN TCP "a=x\0y\r\n", sizeof(HEAD CONN TCP "a=x\0y\r\n") - 1), &s), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trips),
		cmocka_unit_test(known_text),
		cmocka_unit_test(parses),
		cmocka_unit_test(refuses),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
