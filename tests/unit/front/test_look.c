/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "front/failures.h"
#include "world.h"

/* The first look: what is refused at once, what is served at once, what waits. */

static struct world w;
static struct wn_addr src, other, hop_at;
static struct front_look look;
static char buf[8192];

static int setup(void **state)
{
	struct wn_addr own = addr_of("198.18.1.2:40000");
	unsigned hop;

	world_setup(state);
	src = addr_of("198.18.4.2:40112");
	other = addr_of("198.18.4.3:40112");
	hop_at = addr_of("198.18.2.2:5080");
	hop = (unsigned)front_shared_add_hop(&w.sh, FRONT_UDP, &hop_at);
	front_core_set_trunk(w.core, hop, &own);
	w.policy[0].nservices = 1;
	w.policy[0].service[0] = (struct front_service){"open", hop, false};
	front_policy_sort(&w.policy[0]);
	return 0;
}

static enum front_class class_of(const struct call *c, const struct wn_addr *from)
{
	size_t n = call_write(c, buf, sizeof(buf));
	return world_look(&w, buf, n, from, &look);
}

/* Refused at once, with that outcome, without a byte; front_core_message would not have answered either. */
static void assert_refused(const struct call *c, const struct wn_addr *from, enum front_outcome o)
{
	uint64_t before = counted(&w, o);

	assert_int_equal(class_of(c, from), FRONT_CLASS_DONE);
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(o));
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	assert_int_equal(counted(&w, o), before + 1);
	world_call(&w, c, from);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
}

static void assert_class(const struct call *c, const struct wn_addr *from, enum front_class class)
{
	assert_int_equal(class_of(c, from), class);
}

static void test_in_dialog_without_token(void **state)
{
	static const char *const methods[] = {"BYE", "INFO", "UPDATE"};

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		assert_refused(&(struct call){.method = methods[i], .to_tag = "agenttag"}, &src, FRONT_in_dialog_no_token);
	assert_refused(&(struct call){.method = "ACK", .to_tag = "agenttag"}, &src, FRONT_ack_absorbed);
	assert_refused(&(struct call){.method = "CANCEL"}, &src, FRONT_cancel_ignored);
	assert_refused(&(struct call){.method = "OPTIONS"}, &src, FRONT_method);
	assert_refused(&(struct call){.method = "BYE", .to_tag = "agenttag", .route = "<sip:nobody@198.18.1.2;lr>"}, &src,
		       FRONT_in_dialog_no_token);
}

/* A call that the agent has accepted; its route set goes to `route`. */
static void call_up(char route[static 256])
{
	static char answer[8192];
	struct call c = {0};

	world_sign_in(&w, &c, &alice, &src, buf, sizeof(buf));
	world_from_agent(&w, answer, agent_answer(&w, 200, "OK", answer, sizeof(answer)));
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, 256), 0);
}

static void test_ack_and_cancel_of_live_calls(void **state)
{
	static char answer[8192];
	struct call c = {0}, ack = {.method = "ACK", .to_tag = "agenttag"}, cancel = {.method = "CANCEL"};

	(void)state;
	world_sign_in(&w, &c, &alice, &src, buf, sizeof(buf));
	assert_class(&cancel, &src, FRONT_CLASS_STRANGER);
	assert_class(&ack, &src, FRONT_CLASS_DONE); /* nothing is being repeated */
	world_from_agent(&w, answer, agent_answer(&w, 486, "Busy Here", answer, sizeof(answer)));
	assert_class(&ack, &src, FRONT_CLASS_STRANGER);
	world_call(&w, &ack, &src);
	assert_int_equal(w.a.outcome, FRONT_ack_absorbed);
	assert_class(&ack, &src, FRONT_CLASS_DONE);
}

static void test_replay(void **state)
{
	struct call c = {0}, else_where = {.uri = "sip:ssh@example.net"}, open = {.uri = "sip:open@example.org"};
	struct call in_dialog = {.to_tag = "agenttag", .route = "<sip:nobody@198.18.1.2;lr>"};
	size_t n;

	(void)state;
	n = world_sign_in(&w, &c, &alice, &src, buf, sizeof(buf));
	memcpy(else_where.auth, c.auth, sizeof(c.auth));
	memcpy(open.auth, c.auth, sizeof(c.auth));
	memcpy(in_dialog.auth, c.auth, sizeof(c.auth));
	/* the same bytes from the same place get the stored answer, at the pace that a resend has */
	assert_int_equal(world_look(&w, buf, n, &src, &look), FRONT_CLASS_DONE);
	assert_int_equal(w.a.outcome, FRONT_retransmission);
	assert_int_equal(w.a.net_n, 0);
	w.now_ms += 500;
	assert_int_equal(world_look(&w, buf, n, &src, &look), FRONT_CLASS_DONE);
	assert_int_equal(w.a.outcome, FRONT_retransmission);
	assert_memory_equal(w.net, "SIP/2.0 100 ", 12);
	assert_int_equal(w.a.agent_n, 0);
	/* other bytes, or another port */
	c.branch = "z9hG4bKother";
	assert_refused(&c, &src, FRONT_replay);
	c.branch = NULL;
	src.port++;
	assert_refused(&c, &src, FRONT_replay);
	src.port--;
	/* for another tenant, or a service that asks for no proof, it is no replay */
	assert_class(&else_where, &src, FRONT_CLASS_STRANGER);
	assert_class(&open, &src, FRONT_CLASS_STRANGER);
	/* nor is it told before the Route is looked at by the parser */
	assert_class(&in_dialog, &src, FRONT_CLASS_STRANGER);
	/* another credential may be good */
	c.extra = "Proxy-Authorization: Digest username=\"alice\", realm=\"elsewhere\", nonce=\"a\"\r\n";
	assert_class(&c, &src, FRONT_CLASS_STRANGER);
}

static void test_second_credentials(void **state)
{
	static char extra[1200];
	struct call c = {0};

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	assert_class(&c, &src, FRONT_CLASS_FIRST);
	snprintf(extra, sizeof(extra), "proxy-authorization: %s\r\n", c.auth);
	snprintf(c.auth, sizeof(c.auth), "Digest username=\"alice\", realm=\"elsewhere\", nonce=\"a\"");
	assert_class(&c, &src, FRONT_CLASS_STRANGER);
	c.extra = extra;
	assert_class(&c, &src, FRONT_CLASS_FIRST);
}

/* One datagram as a worker serves it. */
static void serve(const struct call *c, const struct wn_addr *from, enum front_class class)
{
	size_t n = call_write(c, buf, sizeof(buf));

	assert_int_equal(world_look(&w, buf, n, from, &look), class);
	if (class == FRONT_CLASS_DONE)
		return;
	world_send(&w, buf, n, from);
	if (class == FRONT_CLASS_FIRST)
		front_core_looked(w.core, &look, &w.a, w.now_ms);
}

static void ask(struct call *c, const struct credentials_of *k, const struct wn_addr *from)
{
	world_answer_challenge(&w, c, k, from);
}

/* Nonces are cheap: an address that fails on ever new ones is served after the others, but a correct secret counts. */
static void test_address_that_fails(void **state)
{
	struct credentials_of wrong = alice;
	struct call bad = {0}, good = {0};

	(void)state;
	wrong.secret = BOB_SECRET;
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		ask(&bad, &wrong, &src);
		serve(&bad, &src, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_digest);
	}
	ask(&bad, &wrong, &src);
	serve(&bad, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(w.a.outcome, FRONT_digest);
	/* from any port, but not from the next address */
	src.port++;
	ask(&good, &alice, &src);
	serve(&good, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	ask(&good, &alice, &other);
	serve(&good, &other, FRONT_CLASS_FIRST);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	w.now_ms += (uint64_t)FAILURES_MOST * FAILURES_EACH_MS;
	ask(&good, &alice, &src);
	serve(&good, &src, FRONT_CLASS_FIRST);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
}

static void test_ipv6_address_that_fails(void **state)
{
	struct wn_addr six = addr_of("[2001:db8:0:1::1]:5060"), near = addr_of("[2001:db8:0:1:2::9]:5060"),
		       far = addr_of("[2001:db8:0:2::1]:5060");
	struct credentials_of wrong = alice;
	struct call c = {0};

	(void)state;
	wrong.secret = BOB_SECRET;
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		ask(&c, &wrong, &six);
		serve(&c, &six, FRONT_CLASS_FIRST);
	}
	ask(&c, &alice, &near);
	assert_class(&c, &near, FRONT_CLASS_STRANGER);
	ask(&c, &alice, &far);
	assert_class(&c, &far, FRONT_CLASS_FIRST);
}

/* One good nonce and credentials that are no good otherwise: no digest fails on it, but the address does. */
static void test_good_nonce_bad_shape(void **state)
{
	struct call c = {0};
	char *algorithm;

	(void)state;
	ask(&c, &alice, &src);
	algorithm = strstr(c.auth, "algorithm=SHA-256");
	assert_non_null(algorithm);
	memcpy(algorithm, "algorithm=SHA-999", 17);
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		serve(&c, &src, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_algorithm);
	}
	serve(&c, &src, FRONT_CLASS_STRANGER);
}

/* Those who succeed are never held to have failed. */
static void test_success_is_not_held(void **state)
{
	struct call c = {0};

	(void)state;
	w.policy[0].max_calls = 2 * FAILURES_BURST;
	for (unsigned i = 0; i < 4 * FAILURES_BURST; i++) {
		ask(&c, &alice, &src);
		serve(&c, &src, FRONT_CLASS_FIRST);
		assert_true(w.a.outcome == FRONT_forwarded || w.a.outcome == FRONT_call_limit);
	}
	assert_int_equal(w.a.outcome, FRONT_call_limit);
	assert_true(holds(world_net(&w), "Retry-After: "));
}

static void test_token(void **state)
{
	char route[256];
	struct call bye = {.method = "BYE", .to_tag = "agenttag", .route = route};

	(void)state;
	call_up(route);
	assert_class(&bye, &src, FRONT_CLASS_FIRST);
	assert_refused(&bye, &other, FRONT_in_dialog_bad_token);
	/* of another call: served first until it has failed too often */
	bye.call_id = "another";
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		serve(&bye, &src, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_in_dialog_bad_token);
	}
	serve(&bye, &src, FRONT_CLASS_STRANGER);
	/* its own request still counts */
	bye.call_id = NULL;
	serve(&bye, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(w.a.outcome, FRONT_forwarded_in_dialog);
	/* who is over the budget of a token is served no sooner than strangers either */
	route[20] = route[20] == 'A' ? 'B' : 'A';
	assert_refused(&bye, &src, FRONT_in_dialog_bad_token);
}

/* The token of a dialog with a plain next hop comes from the client or from a hop, first class from nowhere else. */
static void test_plain_token(void **state)
{
	struct call c = {.uri = "sip:open@example.org"}, bye = {.method = "BYE", .uri = "sip:198.18.2.2:5080", .to_tag = "uas"};
	char route[256];

	(void)state;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded_open);
	assert_int_equal(span_cstr(header_of(world_agent(&w), "Record-Route"), route, sizeof(route)), 0);
	bye.route = route;
	assert_class(&bye, &src, FRONT_CLASS_FIRST);
	assert_class(&bye, &hop_at, FRONT_CLASS_FIRST);
	assert_refused(&bye, &other, FRONT_in_dialog_bad_token);
	/* what the hop's address brings under one token, which can be spoofed, has its bounds; the caller is not held to have sent it */
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		bye.call_id = "another";
		serve(&bye, &hop_at, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_in_dialog_bad_token);
	}
	serve(&bye, &hop_at, FRONT_CLASS_STRANGER);
	assert_class(&bye, &src, FRONT_CLASS_FIRST);
	w.now_ms += 60000;
	bye.call_id = NULL;
	for (unsigned i = 0; i < 20; i++) {
		serve(&bye, &hop_at, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_relayed_request);
	}
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		serve(&bye, &hop_at, FRONT_CLASS_FIRST);
		assert_int_equal(w.a.outcome, FRONT_in_dialog_budget);
		assert_int_equal(w.a.net_n, 0);
	}
	serve(&bye, &hop_at, FRONT_CLASS_STRANGER);
	assert_class(&bye, &src, FRONT_CLASS_FIRST);
}

/* Whose strangers they are. */
static void test_shares(void **state)
{
	(void)state;
	assert_class(&(struct call){0}, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(look.share, 0);
	assert_class(&(struct call){.uri = "sip:ssh@EXAMPLE.net;x=y"}, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(look.share, 1);
	assert_class(&(struct call){.uri = "sip:example.net:5060"}, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(look.share, 1);
	assert_class(&(struct call){.uri = "sip:ssh@example.com"}, &src, FRONT_CLASS_STRANGER);
	assert_int_equal(look.share, 2);
	assert_int_equal(world_look(&w, "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 198.18.4.2:40112;branch=z9hG4bKu\r\n\r\n", 70, &src, &look),
			 FRONT_CLASS_STRANGER);
	assert_int_equal(look.share, 2);
	assert_int_equal(world_look(&w, "\r\n\r\n", 4, &src, &look), FRONT_CLASS_DONE);
	assert_int_equal(w.a.outcome, FRONT_keepalive);
	front_core_no_room(w.core);
	assert_int_equal(counted(&w, FRONT_stranger_budget), 1);
}

#define T(name) cmocka_unit_test_prestate_setup_teardown(name, setup, world_teardown, &w)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_in_dialog_without_token),
		T(test_ack_and_cancel_of_live_calls),
		T(test_replay),
		T(test_second_credentials),
		T(test_address_that_fails),
		T(test_ipv6_address_that_fails),
		T(test_good_nonce_bad_shape),
		T(test_success_is_not_held),
		T(test_token),
		T(test_plain_token),
		T(test_shares),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
