/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "world.h"

/* What strangers get: 407 or nothing, and never more than they sent. */

static struct world w;

static void test_challenge(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;

	(void)state;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_challenged);
	assert_int_equal(w.a.agent_n, 0);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	world_challenge(&w, &p);
	assert_true(span_eq(p.realm, SPAN_LIT("example.org/20781")));
	assert_int_equal(p.nonce.n, NONCE_CHARS);
	assert_int_equal(p.alg, DIGEST_SHA256);
	assert_true(span_eq(p.qop_text, SPAN_LIT("auth,auth-int")));
	assert_false(p.stale);
	assert_true(holds(header_of(world_net(&w), "Via"), "received=198.18.4.2"));
	assert_true(holds(header_of(world_net(&w), "Via"), "rport=40112"));
	assert_true(holds(header_of(world_net(&w), "To"), ";tag="));
	assert_int_equal(counted(&w, FRONT_challenged), 1);
	assert_int_equal(front_core_calls(w.core), 0);
}

/* A retransmission gets the same To-tag although nothing was stored. */
static void test_to_tag_is_a_function(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112"), other = addr_of("198.18.4.2:40113");
	struct call c = {0};
	char first[128];
	struct span to;

	(void)state;
	world_call(&w, &c, &src);
	to = header_of(world_net(&w), "To");
	assert_int_equal(span_cstr(to, first, sizeof(first)), 0);
	world_call(&w, &c, &src);
	assert_true(span_eq(header_of(world_net(&w), "To"), span_str(first)));
	world_call(&w, &c, &other);
	assert_false(span_eq(header_of(world_net(&w), "To"), span_str(first)));
}

/* Requests of every size, from the shortest that parses: the answer is never longer. */
static void test_never_an_amplifier(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	static char pad[4200], extra[4300];
	unsigned answered = 0, dropped = 0;

	(void)state;
	for (unsigned both = 0; both < 2; both++) {
		w.policy[0].md5 = both != 0;
		for (unsigned n = 0; n < 4096; n += n < 700 ? 1 : 97) {
			struct call c = {.body = "", .extra = extra};
			char buf[8192];
			size_t len;

			memset(pad, 'x', n);
			pad[n] = 0;
			snprintf(extra, sizeof(extra), n > 0 ? "X: %s\r\n" : "%s", pad);
			len = call_write(&c, buf, sizeof(buf));
			world_send(&w, buf, len, &src);
			assert_true(w.a.net_n <= len);
			assert_int_equal(w.a.agent_n, 0);
			if (w.a.net_n > 0) {
				assert_int_equal(w.a.outcome, FRONT_challenged);
				answered++;
			} else {
				assert_int_equal(w.a.outcome, FRONT_challenge_too_large);
				dropped++;
			}
		}
	}
	assert_true(answered > 1000);
	assert_true(dropped > 0);
	assert_int_equal(counted(&w, FRONT_challenge_too_large), dropped);
}

/* The second challenge is left out where it does not fit. */
static void test_second_challenge(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	static char extra[1024];
	struct call c = {.extra = extra};

	(void)state;
	w.policy[0].md5 = true;
	memset(extra, 0, sizeof(extra));
	memcpy(extra, "X: ", 3);
	memset(extra + 3, 'x', 400);
	memcpy(extra + 403, "\r\n", 3);
	world_call(&w, &c, &src);
	assert_true(holds(world_net(&w), "algorithm=SHA-256"));
	assert_true(holds(world_net(&w), "algorithm=MD5"));
	c.extra = NULL;
	c.body = "";
	world_call(&w, &c, &src);
	if (w.a.net_n > 0)
		assert_false(holds(world_net(&w), "algorithm=MD5"));
	w.policy[0].sha256 = false;
	c.extra = extra;
	world_call(&w, &c, &src);
	assert_false(holds(world_net(&w), "algorithm=SHA-256"));
	assert_true(holds(world_net(&w), "algorithm=MD5"));
}

static void nothing(const char *text, enum front_outcome want)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	uint64_t before = counted(&w, want);

	world_send(&w, text, strlen(text), &src);
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(want));
	assert_int_equal(w.a.net_n, 0);
	assert_int_equal(w.a.agent_n, 0);
	assert_int_equal(counted(&w, want), before + 1);
}

#define HEADERS \
	"Via: SIP/2.0/UDP 198.18.4.2;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:ssh@example.org>\r\nCall-ID: 1\r\nCSeq: 1 "

static void test_garbage_costs_a_counter(void **state)
{
	static char big[FRONT_DATAGRAM_MAX + 2];

	(void)state;
	nothing("", FRONT_size);
	nothing("INVITE", FRONT_size);
	nothing("\r\n\r\n", FRONT_keepalive);
	memset(big, 'A', sizeof(big) - 1);
	nothing(big, FRONT_size);
	nothing("................................................................................", FRONT_first_bytes);
	nothing("INVITE sip:ssh@example.org SIP/3.0\r\n" HEADERS "INVITE\r\n\r\n", FRONT_start_line);
	nothing("INVITE sip:ssh@example.org SIP/2.0\r\n" HEADERS "OPTIONS\r\n\r\n", FRONT_malformed);
	nothing("INVITE sip:ssh@example.org SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n\r\n",
		FRONT_malformed);
	nothing("INVITE sip:ssh@example.com SIP/2.0\r\n" HEADERS "INVITE\r\n\r\n", FRONT_unknown_tenant);
	nothing("INVITE tel:+358501234567 SIP/2.0\r\n" HEADERS "INVITE\r\n\r\n", FRONT_unknown_tenant);
	nothing("OPTIONS sip:ssh@example.org SIP/2.0\r\n" HEADERS "OPTIONS\r\n\r\n", FRONT_method);
	nothing("REGISTER sip:ssh@example.org SIP/2.0\r\n" HEADERS "REGISTER\r\n\r\n", FRONT_method);
	nothing("SUBSCRIBE sip:ssh@example.org SIP/2.0\r\n" HEADERS "SUBSCRIBE\r\n\r\n", FRONT_method);
	nothing("MESSAGE sip:ssh@example.org SIP/2.0\r\n" HEADERS "MESSAGE\r\n\r\n", FRONT_method);
	nothing("BYE sip:ssh@example.org SIP/2.0\r\n" HEADERS "BYE\r\n\r\n", FRONT_method);
	nothing("CANCEL sip:ssh@example.org SIP/2.0\r\n" HEADERS "CANCEL\r\n\r\n", FRONT_cancel_ignored);
	nothing("ACK sip:ssh@example.org SIP/2.0\r\n" HEADERS "ACK\r\n\r\n", FRONT_ack_absorbed);
	nothing("SIP/2.0 200 OK\r\n" HEADERS "INVITE\r\n\r\n", FRONT_response);
}

/* A tenant whose users have never arrived here: silence, so that the caller goes to another front. */
static void test_no_users_yet(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {.uri = "sip:ssh@example.net"};

	(void)state;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_no_agent);
	assert_int_equal(w.a.net_n, 0);
}

/* Credentials that are not worth a digest. */
static void with_auth(const char *auth, enum front_outcome want, bool stale)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;

	snprintf(c.auth, sizeof(c.auth), "%s", auth);
	world_call(&w, &c, &src);
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(want));
	assert_int_equal(w.a.agent_n, 0);
	world_challenge(&w, &p);
	assert_int_equal(p.stale, stale);
}

static void test_weak_credentials(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;
	struct credentials_of k = alice;
	char nonce[64], text[512];

	(void)state;
	with_auth("Digest username=\"alice", FRONT_credentials_malformed, false);
	with_auth("Basic YWxpY2U6c2VjcmV0", FRONT_credentials_malformed, false);
	with_auth("Digest username=\"alice\", realm=\"example.net/20781\", nonce=\"x\", uri=\"sip:a@b\", response=\"1\"", FRONT_realm,
		  false);
	with_auth("Digest username=\"alice\", realm=\"example.org\", nonce=\"x\", uri=\"sip:a@b\", response=\"1\"", FRONT_realm, false);
	with_auth("Digest username=\"alice\", realm=\"example.org/20781\", nonce=\"x\", uri=\"sip:a@b\", response=\"1\"", FRONT_algorithm,
		  false);
	with_auth("Digest username=\"alice\", realm=\"example.org/20781\", nonce=\"x\", uri=\"sip:a@b\", response=\"1\", algorithm=SHA-256",
		  FRONT_nonce_malformed, true);
	with_auth("Digest username=\"alice\", realm=\"example.org/20781\", nonce=\"AAAAAAAAAAAAAAAAAAAAAAAAAAA\", uri=\"sip:a@b\", "
		  "response=\"1\", algorithm=SHA-256",
		  FRONT_nonce_foreign, true);
	world_call(&w, &c, &src);
	world_challenge(&w, &p);
	assert_int_equal(span_cstr(p.nonce, nonce, sizeof(nonce)), 0);
	snprintf(text, sizeof(text),
		 "Digest username=\"alice\", realm=\"example.org/20781\", nonce=\"%s\", uri=\"sip:a@b\", response=\"1\", algorithm=SHA-256",
		 nonce);
	with_auth(text, FRONT_nonce_shape, false);
	k.nc = "00000002";
	world_answer_challenge(&w, &c, &k, &src);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_nonce_shape);
	assert_int_equal(w.a.agent_n, 0);
}

/* Two values, the wrong one first: the right one counts. */
static void test_all_values_are_tried(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	char right[1200];
	snprintf(right, sizeof(right), "Proxy-Authorization: %s\r\n", c.auth);
	snprintf(c.auth, sizeof(c.auth), "Digest username=\"alice\", realm=\"elsewhere\", nonce=\"x\", uri=\"sip:a@b\", response=\"1\"");
	c.extra = right;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	/* the other realm's stay, ours does not go on */
	assert_true(holds(world_agent(&w), "elsewhere"));
	assert_false(holds(world_agent(&w), "example.org/20781"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_challenge),        WORLD_TEST(test_to_tag_is_a_function),    WORLD_TEST(test_never_an_amplifier),
		WORLD_TEST(test_second_challenge), WORLD_TEST(test_garbage_costs_a_counter), WORLD_TEST(test_no_users_yet),
		WORLD_TEST(test_weak_credentials), WORLD_TEST(test_all_values_are_tried),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
