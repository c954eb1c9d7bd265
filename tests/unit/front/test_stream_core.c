/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "world.h"

/* What is different when a message comes over a connection. */

static struct world w;
static struct front_flow one, other;

static int setup(void **state)
{
	const struct wn_addr listen = addr_of("198.18.1.2:5060");

	world_setup(state);
	assert_int_equal(front_shared_add_listener(&w.sh, FRONT_TCP, &listen), 1);
	assert_int_equal(front_shared_add_listener(&w.sh, FRONT_TLS, &listen), 2);
	one = (struct front_flow){addr_of("198.18.104.2:40112"), front_flow_id(FRONT_TCP, 1, 3, 7, 1)};
	other = one;
	other.id = front_flow_id(FRONT_TCP, 1, 3, 8, 1); /* the same address and even port, another connection */
	return 0;
}

static void over(const struct front_flow *flow, const struct call *c)
{
	char buf[8192];
	size_t n = call_write(c, buf, sizeof(buf));

	front_core_message(w.core, span_of(buf, n), flow, w.now_ms, w.unix_s, &w.a);
}

static void challenged(const struct front_flow *flow, struct call *c)
{
	struct digest_params p;

	c->auth[0] = 0;
	over(flow, c);
	assert_int_equal(w.a.outcome, FRONT_challenged);
	assert_true(front_flow_eq(&w.a.to, flow));
	assert_false(w.a.trusted);
	world_challenge(&w, &p);
	call_authorize(&w, c, &alice, p.realm, p.nonce);
}

static void test_a_nonce_is_the_connections(void **state)
{
	struct front_flow datagram = {one.addr, 0};
	struct call c = {.cseq = 1};

	(void)state;
	challenged(&one, &c);
	over(&other, &c);
	assert_int_equal(w.a.outcome, FRONT_nonce_foreign);
	assert_true(holds(world_net(&w), "stale=true"));
	over(&datagram, &c);
	assert_int_equal(w.a.outcome, FRONT_nonce_foreign);
	over(&one, &c);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	assert_true(w.a.trusted);
	assert_true(front_flow_eq(&w.a.to, &one));
	/* and once */
	c.branch = "z9hG4bKother";
	over(&one, &c);
	assert_int_equal(w.a.outcome, FRONT_replay);

	/* one of a datagram is no connection's */
	c = (struct call){.call_id = "2", .branch = "z9hG4bK2"};
	challenged(&datagram, &c);
	over(&one, &c);
	assert_int_equal(w.a.outcome, FRONT_nonce_foreign);
}

/* nextnonce is bound as a challenge is. */
static void test_nextnonce_is_the_connections(void **state)
{
	struct call c = {.cseq = 1}, next = {.call_id = "next", .branch = "z9hG4bKnext"};
	char answer[4096], nonce[64], realm[64];
	const char *p, *end;
	size_t n;

	(void)state;
	challenged(&one, &c);
	over(&one, &c);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	memcpy(w.invite, w.to_agent, w.a.agent_n);
	w.invite_n = w.a.agent_n;
	n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	world_from_agent(&w, answer, n);
	assert_true(front_flow_eq(&w.a.to, &one));
	p = memmem(w.net, w.a.net_n, "nextnonce=\"", 11);
	assert_non_null(p);
	end = strchr(p + 11, '"');
	snprintf(nonce, sizeof(nonce), "%.*s", (int)(end - p - 11), p + 11);
	snprintf(realm, sizeof(realm), "%s/%u", WORLD_DOMAIN, WORLD_EPOCH);
	call_authorize(&w, &next, &alice, span_str(realm), span_str(nonce));
	over(&other, &next);
	assert_int_equal(w.a.outcome, FRONT_nonce_foreign);
	over(&one, &next);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
}

/* Who has a connection is who it seems: a challenge may be longer than what asked for it. */
static void test_a_challenge_may_be_longer(void **state)
{
	static const char tiny[] =
		"INVITE sip:ssh@example.org SIP/2.0\r\nv:SIP/2.0/TCP 198.18.104.2;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\n"
		"t:<sip:b@b>\r\ni:1\r\nCSeq:1 INVITE\r\nl:0\r\n\r\n";
	struct front_flow datagram = {one.addr, 0};

	(void)state;
	front_core_message(w.core, span_str(tiny), &datagram, w.now_ms, w.unix_s, &w.a);
	assert_int_equal(w.a.outcome, FRONT_challenge_too_large);
	front_core_message(w.core, span_str(tiny), &one, w.now_ms, w.unix_s, &w.a);
	assert_int_equal(w.a.outcome, FRONT_challenged);
	assert_true(w.a.net_n > sizeof(tiny));
}

/* A refusal is said once: the connection loses nothing. */
static void test_no_timer_g(void **state)
{
	struct call c = {.cseq = 1};
	char answer[4096];
	unsigned repeated = 0;
	size_t n;

	(void)state;
	challenged(&one, &c);
	over(&one, &c);
	memcpy(w.invite, w.to_agent, w.a.agent_n);
	w.invite_n = w.a.agent_n;
	n = agent_answer(&w, 486, "Busy Here", answer, sizeof(answer));
	world_from_agent(&w, answer, n);
	assert_true(w.a.net_n > 0);
	for (unsigned i = 0; i < 400; i++, w.now_ms += 100)
		while (front_core_tick(w.core, w.now_ms, &w.a))
			repeated += w.a.net_n > 0;
	assert_int_equal(repeated, 0);
	assert_int_equal(front_core_calls(w.core), 0);
}

/* What goes to a client says how it goes, and the service's requests come to its connection. */
static void test_the_way_back(void **state)
{
	static const enum front_transport transport[] = {FRONT_TCP, FRONT_TLS};
	static const char *const says[] = {"Record-Route: <sip:", ";transport=tcp;lr>", "Record-Route: <sip:", ";transport=tls;lr>"};
	static const char *const via[] = {"Via: SIP/2.0/TCP 198.18.1.2:5060;branch=", "Via: SIP/2.0/TLS 198.18.1.2:5060;branch="};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct front_flow flow = {addr_of("198.18.104.2:40112"), front_flow_id(transport[i], i + 1, 3, 7, 1)};
		struct call c = {.call_id = i == 0 ? "a" : "b", .branch = i == 0 ? "z9hG4bKa" : "z9hG4bKb"};
		struct span route;
		char bye[2048];
		int n;

		challenged(&flow, &c);
		over(&flow, &c);
		assert_int_equal(w.a.outcome, FRONT_forwarded);
		assert_true(holds(world_agent(&w), says[2 * i]) && holds(world_agent(&w), says[2 * i + 1]));
		route = header_of(world_agent(&w), "Record-Route");
		n = snprintf(
			bye, sizeof(bye),
			"BYE sip:alice@198.18.104.2:40112 SIP/2.0\r\nVia: SIP/2.0/TLS 198.18.1.9:7061;branch=z9hG4bKbye\r\nRoute: %.*s\r\n"
			"From: <sip:ssh@example.org>;tag=2\r\nTo: <sip:alice@example.org>;tag=1\r\nCall-ID: %s\r\nCSeq: 1 BYE\r\n"
			"Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
			(int)route.n, route.p, c.call_id);
		world_from_agent(&w, bye, (size_t)n);
		assert_int_equal(w.a.outcome, FRONT_relayed_request);
		assert_true(front_flow_eq(&w.a.to, &flow));
		assert_true(holds(world_net(&w), via[i]));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_prestate_setup_teardown(f, setup, world_teardown, &w)
		T(test_a_nonce_is_the_connections),
		T(test_nextnonce_is_the_connections),
		T(test_a_challenge_may_be_longer),
		T(test_no_timer_g),
		T(test_the_way_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
