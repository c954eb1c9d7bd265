/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "load_call.h"
#include "load_time.h"
#include "users.h"

/* The bench's generator: where it may send, and that what it says is SIP as a caller and a respondent would say it. */

volatile sig_atomic_t load_stop;

static struct load_options o;
static struct call_shape shape;
static struct load_call call;

static int setup(void **state)
{
	(void)state;
	o = (struct load_options){
		.domain = "example.org", .service = "uas", .alg = "sha-256", .users = 10, .seed = front_user_seed("test")};
	o.uas = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(5070), .sin_addr.s_addr = htonl(0x7f000003)};
	memset(&call, 0, sizeof(call));
	call.slot = 7;
	call.generation = 3;
	shape = (struct call_shape){.o = &o, .run = 0x1234567890abcdefu};
	return load_digest_new(&o, &shape.digest);
}

static int teardown(void **state)
{
	(void)state;
	load_digest_free(shape.digest);
	return 0;
}

static bool holds(const char *p, size_t n, const char *text)
{
	return memmem(p, n, text, strlen(text)) != NULL;
}

static void test_guard(void **state)
{
	static const struct {
		const char *addr;
		bool ok;
	} cases[] = {{"127.0.0.1", true}, {"127.255.255.254", true}, {"128.0.0.1", false}, {"126.255.255.255", false},
		     {"0.0.0.0", false},  {"198.18.1.2", false},     {"10.0.0.1", false}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sockaddr_in a = {.sin_family = AF_INET};

		assert_int_equal(inet_pton(AF_INET, cases[i].addr, &a.sin_addr), 1);
		assert_int_equal(load_guard(&a), cases[i].ok);
	}
	/* all that it sends from is its own too, and equally long as text */
	for (unsigned i = 0; i < LOAD_ADDRS_MAX; i += 97) {
		struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = load_address(i)};
		char text[INET_ADDRSTRLEN];

		assert_true(load_guard(&a));
		assert_int_equal(strlen(inet_ntop(AF_INET, &a.sin_addr, text, sizeof(text))), 15);
	}
}

static void test_see(void **state)
{
	static const char m[] =
		"SIP/2.0 407 Proxy Authentication Required\r\nVia: SIP/2.0/UDP a;branch=1\r\nv: SIP/2.0/UDP b;branch=2\r\n"
		"Record-Route: <sip:one;lr>, <sip:two;lr>\r\nrecord-route:<sip:three;lr>\r\nFrom: <sip:x@y>;tag=1\r\n"
		"To:  <sip:z@y>;tag=2 \r\nCall-ID: abc\r\nCSeq: 12 INVITE\r\nContact: \"N\" <sip:c@d:1>;q=1\r\n"
		"Proxy-Authenticate: Digest realm=\"r\",nonce=\"n\",algorithm=MD5\r\n"
		"Proxy-Authenticate: Digest realm=\"r\",nonce=\"m\",algorithm=SHA-256,qop=\"auth\"\r\n\r\nTo: in the body\r\n";
	struct load_nonce n;
	struct load_seen s;

	(void)state;
	load_see(span_of(m, sizeof(m) - 1), &s);
	assert_int_equal(s.status, 407);
	assert_int_equal(s.nvia, 2);
	assert_int_equal(s.nroute, 3);
	assert_true(span_eq(s.route[1], SPAN_LIT("<sip:two;lr>")));
	assert_true(span_eq(s.route[2], SPAN_LIT("<sip:three;lr>")));
	assert_true(span_eq(s.to, SPAN_LIT("<sip:z@y>;tag=2")));
	assert_true(span_eq(load_uri(s.contact), SPAN_LIT("sip:c@d:1")));
	/* the one of its own algorithm */
	assert_int_equal(s.nchallenge, 2);
	assert_true(load_challenge(shape.digest, &s, &n));
	assert_string_equal(n.nonce, "m");
	assert_true(n.qop);
}

static void test_call(void **state)
{
	char ok[LOAD_TEXT];
	struct load_seen s;
	uint32_t slot, generation;
	size_t n;

	(void)state;
	call_write_invite(&shape, &call, 20000, NULL);
	load_see(span_of(call.request, call.request_n), &s);
	assert_true(span_eq(s.method, SPAN_LIT("INVITE")));
	assert_true(span_eq(s.cseq, SPAN_LIT("1 INVITE")));
	assert_true(call_id_parse(&shape, s.call_id, &slot, &generation));
	assert_int_equal(slot, 7);
	assert_int_equal(generation, 3);
	assert_false(holds(call.request, call.request_n, "Proxy-Authorization"));
	/* the respondent's answer, with what a proxy has recorded */
	s.route[0] = SPAN_LIT("<sip:near;lr>");
	s.route[1] = SPAN_LIT("<sip:far;lr>");
	s.nroute = 2;
	n = call_write_ok(&shape, &s, true, ok);
	load_see(span_of(ok, n), &s);
	assert_int_equal(s.status, 200);
	assert_int_equal(s.nvia, 1);
	assert_true(holds(s.to.p, s.to.n, ";tag="));
	/* ACK and BYE go to the contact, by the recorded way turned round, each a transaction of its own */
	call_write_ack_and_bye(&shape, &call, 20000, &s);
	assert_true(holds(call.ack, call.ack_n, "ACK sip:uas@127.0.0.3:5070 SIP/2.0\r\n"));
	assert_true(holds(call.ack, call.ack_n, "Route: <sip:far;lr>\r\nRoute: <sip:near;lr>\r\n"));
	assert_true(holds(call.ack, call.ack_n, "CSeq: 1 ACK\r\n"));
	assert_true(holds(call.request, call.request_n, "BYE sip:uas@127.0.0.3:5070 SIP/2.0\r\n"));
	assert_true(holds(call.request, call.request_n, "CSeq: 2 BYE\r\n"));
	assert_true(holds(call.request, call.request_n, ";tag=uas1\r\n"));
	/* one who forgets answers the BYE, not the ACK */
	assert_true(call_respond(&shape, span_of(call.request, call.request_n), ok) > 0);
	assert_int_equal(call_respond(&shape, span_of(call.ack, call.ack_n), ok), 0);
}

static void test_refused(void **state)
{
	static const char answer[] = "SIP/2.0 407 No\r\nTo: <sip:uas@example.org>;tag=front\r\n\r\n";
	struct load_nonce nonce = {"example.org/1", "abcdefghijklmnopqrstuvwxyz0", "", true, true};
	char branch[64];
	const char *at;
	struct load_seen s;

	(void)state;
	call_write_invite(&shape, &call, 20000, NULL);
	at = memmem(call.request, call.request_n, ";branch=", 8);
	assert_non_null(at);
	memcpy(branch, at, 50);
	branch[50] = 0;
	load_see(span_of(answer, sizeof(answer) - 1), &s);
	call_write_refused_ack(&shape, &call, 20000, &s);
	assert_true(holds(call.ack, call.ack_n, branch)); /* hop by hop: the INVITE's own */
	assert_true(holds(call.ack, call.ack_n, ";tag=front\r\n"));
	call_write_invite(&shape, &call, 20000, &nonce);
	assert_true(holds(call.request, call.request_n, "CSeq: 2 INVITE\r\n"));
	assert_true(holds(call.request, call.request_n, ",nonce=\"abcdefghijklmnopqrstuvwxyz0\",uri=\"sip:uas@example.org\","));
	assert_false(holds(call.request, call.request_n, branch));
}

static void test_histogram(void **state)
{
	struct load_hist h = {0};

	(void)state;
	for (unsigned i = 1; i <= 100; i++)
		load_hist_add(&h, i * 1000000u);
	/* never less than it was, and at most a sixteenth more */
	assert_true(load_hist_ms(&h, 0.5) >= 50 && load_hist_ms(&h, 0.5) <= 50 * 17 / 16.0);
	assert_true(load_hist_ms(&h, 0.99) >= 99 && load_hist_ms(&h, 0.99) <= 99 * 17 / 16.0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_guard, setup, teardown),
		cmocka_unit_test_setup_teardown(test_see, setup, teardown),
		cmocka_unit_test_setup_teardown(test_call, setup, teardown),
		cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(test_histogram, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
