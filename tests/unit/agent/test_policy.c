/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "agent/policy.h"

static char *only_alice[] = {(char *)(uintptr_t) "alice"};

static struct agent_service services[] = {
	{.name = (char *)(uintptr_t) "ssh", .proto = IPPROTO_TCP},
	{.name = (char *)(uintptr_t) "dns", .proto = IPPROTO_UDP},
	{.name = (char *)(uintptr_t) "mail", .proto = IPPROTO_TCP, .users = only_alice, .nusers = 1},
};
static const struct agent_config config = {.services = services, .nservices = 3};

static struct wn_addr addr(const char *s)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(s), 0, &a), 0);
	return a;
}

static struct sdp tcp_offer(void)
{
	struct sdp s = {.proto = SDP_TCP, .conn = addr("198.18.4.2:9"), .ncand = 2};

	s.cand[0] = (struct sdp_candidate){SDP_HOST, addr("198.18.104.2:9")};
	s.cand[1] = (struct sdp_candidate){SDP_SRFLX, addr("198.18.4.2:9")};
	return s;
}

static struct sdp udp_offer(bool tag)
{
	struct sdp s = tcp_offer();

	s.proto = SDP_UDP;
	s.conn = addr("198.18.4.2:40000");
	s.tag = tag;
	return s;
}

static struct policy_question ask(const struct sdp *offer, const char *service)
{
	return (struct policy_question){.user = SPAN_LIT("alice"),
					.user_known = true,
					.service = span_str(service),
					.auth_int = true,
					.source = addr("198.18.4.2:40112"),
					.offer = offer};
}

static int setup(void **state)
{
	(void)state;
	services[0].inside = addr("198.18.100.2:22");
	services[1].inside = addr("198.18.100.2:53");
	services[2].inside = addr("198.18.100.2:25");
	return 0;
}

static void test_accepts(void **state)
{
	struct sdp o = tcp_offer();
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;

	(void)state;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_ptr_equal(a.service, &services[0]);
	assert_true(wn_ip_eq(&a.remote, &q.source));
	assert_int_equal(a.remote.port, 0);
	assert_false(a.tag);

	o.walnut_port = 22;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	q.service = SPAN_LIT("mail");
	o.walnut_port = 0;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
}

static void test_refuses(void **state)
{
	struct sdp o = tcp_offer(), u = udp_offer(true);
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;

	(void)state;
	q.user_known = false;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_UNKNOWN_USER);
	assert_int_equal(policy_status(POLICY_UNKNOWN_USER), 403);

	q = ask(&o, "sshd");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_SERVICE);
	q.service = (struct span){NULL, 0};
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_SERVICE);
	assert_int_equal(policy_status(POLICY_NO_SERVICE), 404);

	q = ask(&o, "mail");
	q.user = SPAN_LIT("bob");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_FORBIDDEN);
	q.user = SPAN_LIT("alic");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_FORBIDDEN);
	assert_int_equal(policy_status(POLICY_FORBIDDEN), 403);

	q = ask(&o, "ssh");
	o.walnut_port = 23;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_WRONG_PORT);
	assert_int_equal(policy_status(POLICY_WRONG_PORT), 404);

	q = ask(NULL, "ssh");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_MEDIA);
	q = ask(&u, "ssh");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_MEDIA);
	assert_int_equal(policy_status(POLICY_NO_MEDIA), 488);
}

/* A service with an IPv6 address: its hole is for the client's IPv6 address, however the signalling came. */
static void test_the_services_family(void **state)
{
	struct sdp o = tcp_offer(), u = udp_offer(true);
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;
	struct wn_addr six = addr("[2001:db8:4::2]:9");

	(void)state;
	services[0].inside = addr("[2001:db8:100::2]:22");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_ADDRESS);
	o.cand[o.ncand++] = (struct sdp_candidate){SDP_HOST, six};
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &six));
	/* Uncovered candidates say nothing. */
	q.auth_int = false;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_ADDRESS);
	q.source = addr("[2001:db8:4::3]:40112");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
	/* What the front saw goes before what the client says of itself. */
	q.auth_int = true;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
	o.cand[o.ncand++] = (struct sdp_candidate){SDP_SRFLX, q.source};
	q.source = addr("198.18.4.2:40112");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &o.cand[3].addr));
	/* Link-local addresses are nobody's on the internet. */
	o.cand[o.ncand - 1].addr = addr("[fe80::1]:9");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_ADDRESS);
	/* An IPv4 service goes on with the IPv4 candidate. */
	services[1].inside = addr("198.18.100.2:53");
	u.cand[u.ncand++] = (struct sdp_candidate){SDP_SRFLX, six};
	q = ask(&u, "dns");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &u.cand[1].addr));
	setup(state);
}

/* Credentials of qop=auth cover no candidates: an attacker who moves them onto an offer of its own gets a hole for nobody but the source
 * that was challenged. */
static void test_moved_credentials(void **state)
{
	struct sdp o = tcp_offer(), u = udp_offer(false);
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;

	(void)state;
	o.cand[1].addr = addr("198.18.5.2:9");
	o.conn = addr("198.18.5.2:9");
	q.auth_int = false;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));

	u.cand[1].addr = addr("198.18.5.2:9");
	u.conn = addr("198.18.5.2:40000");
	q = ask(&u, "dns");
	q.auth_int = false;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
	assert_int_equal(a.remote.port, 40000);
	/* Not even with a digest that covers it: nothing binds such a hole later. */
	q.auth_int = true;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
}

static void test_covered_candidate(void **state)
{
	struct sdp o = tcp_offer();
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;
	struct wn_addr moved = addr("198.18.4.77:9");

	(void)state;
	o.cand[1].addr = moved;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &moved));
	assert_int_equal(a.remote.port, 0);
	/* a host candidate never is one */
	o.ncand = 1;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
}

static void test_udp(void **state)
{
	struct sdp u = udp_offer(true);
	struct policy_question q = ask(&u, "dns");
	struct policy_answer a;

	(void)state;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(a.tag);
	u = udp_offer(false);
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_false(a.tag);
	assert_int_equal(a.remote.port, 40000);
	u.conn.port = 0;
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_NO_ADDRESS);
	assert_int_equal(policy_status(POLICY_NO_ADDRESS), 488);
}

static void test_useless_sources(void **state)
{
	static const char *const useless[] = {"0.0.0.0:1", "224.0.0.1:1", "255.255.255.255:1", "[::]:1", "[ff02::1]:1", "[fe80::1]:1"};
	struct sdp o = tcp_offer();
	struct policy_question q = ask(&o, "ssh");
	struct policy_answer a;

	(void)state;
	for (size_t i = 0; i < sizeof(useless) / sizeof(useless[0]); i++) {
		o.cand[1].addr = addr(useless[i]);
		services[0].inside = addr(wn_addr_is4(&o.cand[1].addr) ? "198.18.100.2:22" : "[2001:db8:100::2]:22");
		if (policy_decide(&config, &q, &a) != POLICY_NO_ADDRESS)
			fail_msg("%s accepted", useless[i]);
	}
	/* An IPv6 candidate is of no use to an IPv4 service, but where the request came from is. */
	services[0].inside = addr("198.18.100.2:22");
	o.cand[1].addr = addr("[2001:db8::1]:1");
	assert_int_equal(policy_decide(&config, &q, &a), POLICY_OK);
	assert_true(wn_ip_eq(&a.remote, &q.source));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_the_services_family),
		cmocka_unit_test(test_moved_credentials),
		cmocka_unit_test(test_covered_candidate),
		cmocka_unit_test(test_udp),
		cmocka_unit_test(test_useless_sources),
	};

	return cmocka_run_group_tests_name("policy", tests, setup, NULL);
}
