/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "sip/quick.h"

#define LINE "INVITE sip:ssh@example.org SIP/2.0\r\n"
#define BASE                                                                                                                               \
	"Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKabc;rport\r\nFrom: <sip:alice@example.org>;tag=a1\r\nTo: <sip:ssh@example.org>\r\n" \
	"Call-ID: 1234@192.0.2.1\r\nCSeq: 1 INVITE\r\n"

#define assert_span(s, text)                                        \
	do {                                                        \
		assert_int_equal((s).n, sizeof(text) - 1);          \
		assert_memory_equal((s).p, text, sizeof(text) - 1); \
	} while (0)

static char *copy;

/* From an exact heap copy, by both kinds, which must say the same. */
static bool look_n(const char *text, size_t n, struct sip_quick *q)
{
	struct sip_quick scalar;
	bool ok;

	free(copy);
	copy = malloc(n != 0 ? n : 1);
	memcpy(copy, text, n);
	ok = sip_quick(span_of(copy, n), q);
	assert_int_equal(sip_quick_scalar(span_of(copy, n), &scalar), ok);
	if (ok)
		assert_memory_equal(&scalar, q, sizeof(scalar));
	return ok;
}

#define look(text, q) look_n(text, sizeof(text) - 1, q)

static void finds(void **state)
{
	struct sip_quick q;

	(void)state;
	assert_true(look(LINE BASE "\r\nRoute: <sip:body@x>\r\nProxy-Authorization: Digest a=b\r\n\r\n", &q));
	assert_span(q.start_line, "INVITE sip:ssh@example.org SIP/2.0");
	assert_true(q.request);
	assert_int_equal(q.method, SIP_INVITE);
	assert_int_equal(q.nroute, 0);
	assert_int_equal(q.nproxy_authorization, 0);
	assert_null(q.route.p);
	assert_null(q.proxy_authorization.p);

	assert_true(look(LINE "pRoxy-AUTHORIZATION \t :\tDigest a=b \t\r\nROUTE :<SIPS:t0k3n:pw@h:1;lr>, <sip:other@h>\r\n" BASE
			      "Proxy-Authorization: Digest c=d\r\nRoute: <sip:third@h>\r\nRoute-Set: x\r\nProxy-Authorization-Info: y\r\n"
			      "Proxy-Authenticate: z\r\nRoutes: a\r\nX: Route: <sip:no@h>\r\n Route: <sip:fold@h>\r\n\r\n",
			 &q));
	assert_int_equal(q.nroute, 2);
	assert_span(q.route, "<SIPS:t0k3n:pw@h:1;lr>, <sip:other@h>");
	assert_span(q.route_user, "t0k3n");
	assert_int_equal(q.nproxy_authorization, 2);
	assert_span(q.proxy_authorization, "Digest a=b");

	assert_true(look(LINE "Proxy-Authorization:\r\nRoute: <sip:h;lr>\r\n" BASE "\r\n", &q));
	assert_int_equal(q.nproxy_authorization, 1);
	assert_true(q.proxy_authorization.p != NULL && q.proxy_authorization.n == 0);
	assert_int_equal(q.nroute, 1);
	assert_null(q.route_user.p);

	assert_true(look("SIP/2.0 200 OK\r\n" BASE "\r\n", &q));
	assert_false(q.request);
	assert_int_equal(q.method, SIP_METHOD_OTHER);
}

static void unknown(void **state)
{
	static const struct span texts[] = {
#define TEXT(s) {s, sizeof(s) - 1}
		TEXT(""),
		TEXT("\r\n"),
		TEXT("\r\n" LINE BASE "\r\n"),
		TEXT("\n" LINE BASE "\r\n"),
		TEXT(LINE),
		TEXT(LINE BASE),
		TEXT(LINE BASE "\r"),
		TEXT(LINE BASE "\n"),
		TEXT(LINE BASE "\rx"),
		TEXT("INVITE sip:ssh@example.org SIP/2.0\n" BASE "\r\n"),
		TEXT("INVITE\r\n" BASE "\r\n"),
		TEXT(LINE "Route: <sip:a@b>\n" BASE "\r\n"),
		TEXT(LINE "Route: <sip:a@b>\r\n ;lr\r\n" BASE "\r\n"),
		TEXT(LINE "Route:\r\n <sip:a@b>\r\n" BASE "\r\n"),
		TEXT(LINE BASE "Route: <sip:a@b>\r\n"),
		TEXT(LINE BASE "Route: <sip:a@b>"),
		TEXT(LINE BASE "Route: sip:a@b\r\n\r\n"),
		TEXT(LINE BASE "Route: \"x\" <sip:a@b>\r\n\r\n"),
		TEXT(LINE BASE "Route: <tel:1>\r\n\r\n"),
		TEXT(LINE BASE "Route: <sip:a@b\r\n\r\n"),
		TEXT(LINE BASE "Route:\r\n\r\n"),
		TEXT(LINE "Proxy-Authorization: Digest a=b,\r\n\tc=d\r\n" BASE "\r\n"),
		TEXT(LINE "Proxy-Authorization: Digest a=b\n" BASE "\r\n"),
#undef TEXT
	};
	struct sip_quick q;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		if (look_n(texts[i].p, texts[i].n, &q))
			fail_msg("known: %s", texts[i].p);
	}
	/* A cut message has no end of its header part. */
	for (size_t n = 0; n < sizeof(LINE BASE "\r\n") - 1; n++)
		assert_false(look_n(LINE BASE "\r\n", n, &q));
}

/* Wherever the two headers stand in a block of sixteen bytes, they are seen. */
static void any_place(void **state)
{
	char text[512];
	struct sip_quick q;

	(void)state;
	for (unsigned pad = 0; pad < 40; pad++) {
		int n = snprintf(text, sizeof(text), LINE "X: %.*s\r\nroute: <sip:me@h>\r\nY: %.*s\r\nproxy-authorization: z\r\n\r\n",
				 (int)pad, "0123456789012345678901234567890123456789", (int)(pad * 7 % 31),
				 "0123456789012345678901234567890123456789");

		assert_true(look_n(text, (size_t)n, &q));
		assert_int_equal(q.nroute, 1);
		assert_span(q.route_user, "me");
		assert_int_equal(q.nproxy_authorization, 1);
		assert_span(q.proxy_authorization, "z");
	}
}

static void methods(void **state)
{
	char text[256];
	struct sip_quick q;

	(void)state;
	for (unsigned id = SIP_INVITE; id < SIP_METHODS; id++) {
		int n = snprintf(text, sizeof(text), "%s sip:a@b SIP/2.0\r\n\r\n", sip_method_name((enum sip_method)id));

		assert_true(look_n(text, (size_t)n, &q));
		assert_int_equal(q.method, id);
		assert_true(q.request);
	}
	assert_true(look("ACKK sip:a@b SIP/2.0\r\n\r\n", &q));
	assert_int_equal(q.method, SIP_METHOD_OTHER);
	assert_true(look("ack sip:a@b SIP/2.0\r\n\r\n", &q));
	assert_int_equal(q.method, SIP_METHOD_OTHER);
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
		cmocka_unit_test(finds),
		cmocka_unit_test(unknown),
		cmocka_unit_test(any_place),
		cmocka_unit_test(methods),
	};

	return cmocka_run_group_tests(tests, NULL, release);
}
