/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front/txn.h"
#include "sip/build.h"
#include "world.h"

/* Transactions and dialogs of callers that have authenticated. */

static struct world w;
static char sent[8192], answer[8192], route[256];
static size_t sent_n, answer_n;
static struct wn_addr src;

static int setup(void **state)
{
	world_setup(state);
	src = addr_of("198.18.4.2:40112");
	return 0;
}

/* A call that the agent has accepted; its route set is in `route`. */
static void call_up(void)
{
	struct call c = {0};

	sent_n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	answer_n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
}

static struct call in_dialog(const char *method)
{
	struct call c = {.method = method,
			 .uri = "sip:agent@example.org",
			 .to_tag = "agenttag",
			 .branch = "z9hG4bKdialog",
			 .cseq = 2,
			 .route = route};
	return c;
}

static void test_success(void **state)
{
	struct digest_params p;
	struct sip_msg m;
	char first[8192];
	size_t first_n;

	(void)state;
	call_up();
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_int_equal(w.a.agent_n, 0);
	assert_int_equal(sip_parse(world_net(&w), false, &m), SIP_OK);
	assert_int_equal(m.status, 200);
	assert_true(span_eq(m.via.branch, SPAN_LIT("z9hG4bKabc1")));
	assert_true(holds(m.via.text, "rport=40112"));
	assert_false(holds(world_net(&w), "SIP/2.0/TLS"));
	assert_true(holds(m.body, "v=0"));
	/* the nonce for the next call is good for this source and no other */
	assert_int_equal(digest_parse_info(header_of(world_net(&w), "Proxy-Authentication-Info"), &p), 0);
	uint64_t number;
	struct wn_addr other = addr_of("198.18.4.3:40112");
	assert_int_equal(nonce_check(w.sh.nonces, p.nextnonce, &src, SPAN_LIT("example.org/20781"), 0, w.now_ms, &number), NONCE_OK);
	assert_int_equal(nonce_check(w.sh.nonces, p.nextnonce, &other, SPAN_LIT("example.org/20781"), 0, w.now_ms, &number), NONCE_FOREIGN);
	/* the agent's repetition is passed on, the same bytes */
	first_n = w.a.net_n;
	memcpy(first, w.net, first_n);
	w.now_ms += 500;
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.net_n, first_n);
	assert_memory_equal(w.net, first, first_n);
}

/* A call with the nonce of the last answer needs no challenge. */
static void test_nextnonce(void **state)
{
	struct call c = {.call_id = "second", .branch = "z9hG4bKsecond"};
	struct digest_params p;
	char nonce[64];

	(void)state;
	call_up();
	assert_int_equal(digest_parse_info(header_of(world_net(&w), "Proxy-Authentication-Info"), &p), 0);
	assert_int_equal(span_cstr(p.nextnonce, nonce, sizeof(nonce)), 0);
	call_authorize(&w, &c, &alice, SPAN_LIT("example.org/20781"), span_str(nonce));
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
}

static void test_failure_is_acknowledged_and_repeated(void **state)
{
	struct call c = {0}, ack;
	struct sip_msg m, invite;
	char forwarded[FRONT_OUT_MAX];
	size_t forwarded_n;
	unsigned repeats = 0;

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	forwarded_n = w.a.agent_n;
	memcpy(forwarded, w.to_agent, forwarded_n);
	assert_int_equal(sip_parse(span_of(forwarded, forwarded_n), true, &invite), SIP_OK);
	answer_n = agent_answer(&w, 403, "Forbidden", answer, sizeof(answer));
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	assert_memory_equal(w.net, "SIP/2.0 403 ", 12);
	assert_null(header_of(world_net(&w), "Proxy-Authentication-Info").p);
	/* our ACK to the agent: same Request-URI, branch, Call-ID, CSeq number; To with the agent's tag */
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_int_equal(m.method, SIP_ACK);
	assert_true(span_eq(m.uri, invite.uri));
	assert_true(span_eq(m.via.branch, invite.via.branch));
	assert_true(span_eq(m.call_id, invite.call_id));
	assert_int_equal(m.cseq, invite.cseq);
	assert_true(span_eq(m.to_tag, SPAN_LIT("agenttag")));
	/* Timer G */
	for (unsigned i = 0; i < 30; i++) {
		w.now_ms += 100;
		while (front_core_tick(w.core, w.now_ms, &w.a)) {
			assert_memory_equal(w.net, "SIP/2.0 403 ", 12);
			assert_int_equal(w.a.agent_n, 0);
			repeats++;
		}
	}
	assert_int_equal(repeats, 2); /* after 0.5 s and 1.5 s */
	/* the caller's ACK ends here and ends that */
	ack = c;
	ack.method = "ACK";
	ack.auth[0] = 0;
	ack.to_tag = "agenttag";
	world_call(&w, &ack, &src);
	assert_int_equal(w.a.outcome, FRONT_ack_absorbed);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	w.now_ms += 4900;
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	assert_int_equal(front_core_calls(w.core), 1);
	w.now_ms += 1000;
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	assert_int_equal(front_core_calls(w.core), 0);
	/* the agent says something after that: nobody to tell */
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.outcome, FRONT_response_dropped);
	assert_int_equal(w.a.net_n, 0);
}

static void test_provisional(void **state)
{
	struct call c = {0};

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	answer_n = agent_answer(&w, 100, "Trying", answer, sizeof(answer));
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.net_n, 0);
	answer_n = agent_answer(&w, 180, "Ringing", answer, sizeof(answer));
	world_from_agent(&w, answer, answer_n);
	assert_memory_equal(w.net, "SIP/2.0 180 ", 12);
	answer_n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	world_from_agent(&w, answer, answer_n);
	assert_memory_equal(w.net, "SIP/2.0 200 ", 12);
	/* once it is accepted it is not refused any more */
	answer_n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	memcpy(answer + 8, "486", 3);
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.outcome, FRONT_response_dropped);
}

static void test_no_answer(void **state)
{
	struct call c = {0};

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	w.now_ms += 31900;
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	w.now_ms += 200;
	assert_true(front_core_tick(w.core, w.now_ms, &w.a));
	assert_int_equal(w.a.outcome, FRONT_timed_out);
	assert_memory_equal(w.net, "SIP/2.0 408 ", 12);
	assert_true(holds(header_of(world_net(&w), "To"), ";tag="));
	assert_true(holds(header_of(world_net(&w), "Via"), "z9hG4bKabc1"));
	assert_true(holds(header_of(world_net(&w), "CSeq"), "INVITE"));
}

/* The agent's connection is lost: who waits is told at once, who was accepted hears nothing. */
static void test_agent_gone(void **state)
{
	struct call c = {.call_id = "other", .branch = "z9hG4bKother"};

	(void)state;
	call_up();
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	w.now_ms += 100;
	front_core_agent_gone(w.core, 1, w.now_ms);
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	front_core_agent_gone(w.core, 0, w.now_ms);
	assert_true(front_core_tick(w.core, w.now_ms, &w.a));
	assert_memory_equal(w.net, "SIP/2.0 503 ", 12);
	assert_true(header_of(world_net(&w), "Retry-After").n > 0);
	assert_true(holds(header_of(world_net(&w), "Call-ID"), "other"));
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
}

static void test_cancel(void **state)
{
	struct wn_addr port = addr_of("198.18.4.2:40113");
	struct call c = {0}, cancel;
	struct sip_msg m;

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	cancel = c;
	cancel.method = "CANCEL";
	cancel.auth[0] = 0;
	/* from elsewhere, or for another branch: nothing */
	world_call(&w, &cancel, &port);
	assert_int_equal(w.a.outcome, FRONT_cancel_ignored);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	cancel.branch = "z9hG4bKelse";
	world_call(&w, &cancel, &src);
	assert_int_equal(w.a.outcome, FRONT_cancel_ignored);
	cancel.branch = NULL;
	world_call(&w, &cancel, &src);
	assert_int_equal(w.a.outcome, FRONT_cancelled);
	assert_memory_equal(w.net, "SIP/2.0 200 ", 12);
	assert_true(holds(header_of(world_net(&w), "CSeq"), "CANCEL"));
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_int_equal(m.method, SIP_CANCEL);
	assert_true(span_eq(m.via.transport, SPAN_LIT("TLS")));
	/* repeated for ever it is not answered for ever */
	unsigned answered = 0;
	for (unsigned i = 0; i < 20; i++) {
		world_call(&w, &cancel, &src);
		answered += w.a.net_n > 0;
	}
	assert_true(answered < 7);
}

static void test_ack_and_bye(void **state)
{
	struct call c;
	struct sip_msg m;
	char ok[8192];
	struct sip_buf b;
	struct wn_addr front = addr_of("198.18.1.2:7061");

	(void)state;
	call_up();
	c = in_dialog("ACK");
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded_in_dialog);
	assert_int_equal(w.a.net_n, 0);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_int_equal(m.method, SIP_ACK);
	assert_null(sip_hdr_first(&m, SIP_HDR_ROUTE));
	assert_int_equal(m.max_forwards, 69);

	/* from another port of the same address, as after a NAT's rebinding */
	struct wn_addr port = addr_of("198.18.4.2:5555");
	c = in_dialog("BYE");
	c.extra = "X-Walnut-Key: mallory\r\nP-Asserted-Identity: <sip:mallory@example.org>\r\n";
	world_call(&w, &c, &port);
	assert_int_equal(w.a.outcome, FRONT_forwarded_in_dialog);
	assert_false(holds(world_agent(&w), "mallory"));
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	sip_buf_init(&b, ok, sizeof(ok));
	sip_put_response(&b, &m, 200, "OK", span_of(NULL, 0), &front);
	sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
	world_from_agent(&w, ok, b.len);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	assert_true(wn_addr_eq(&w.a.to.addr, &port));
	assert_int_equal(sip_parse(world_net(&w), false, &m), SIP_OK);
	assert_true(span_eq(m.via.branch, SPAN_LIT("z9hG4bKdialog")));
	assert_null(sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_VIA)));
	/* a branch that was tampered with goes nowhere */
	char *branch = memmem(ok, b.len, "z9hG4bKd", 8);
	branch[20] = branch[20] == 'A' ? 'B' : 'A';
	world_from_agent(&w, ok, b.len);
	assert_int_equal(w.a.outcome, FRONT_response_dropped);
	assert_int_equal(w.a.net_n, 0);
}

static unsigned calls_after(uint64_t ms)
{
	w.now_ms += ms;
	while (front_core_tick(w.core, w.now_ms, &w.a))
		;
	assert_int_equal(front_core_calls(w.core), atomic_load(&w.tenant[0].calls));
	return front_core_calls(w.core);
}

/* A call that has been acknowledged soon makes room for another; until then late copies find it. */
static void test_ack_makes_room(void **state)
{
	struct wn_addr port = addr_of("198.18.4.2:5555");
	struct call c;

	(void)state;
	call_up();
	/* ACKs of something else, and from elsewhere */
	c = in_dialog("ACK");
	world_call(&w, &c, &src);
	c.cseq = 1;
	c.call_id = "another";
	world_call(&w, &c, &src);
	c.call_id = NULL;
	c.from_tag = "another";
	world_call(&w, &c, &src);
	c.from_tag = NULL;
	world_call(&w, &c, &port);
	/* a token serves the dialog that it was made for */
	assert_int_equal(counted(&w, FRONT_in_dialog_bad_token), 1);
	assert_int_equal(counted(&w, FRONT_forwarded_in_dialog), 3);
	c.method = "BYE";
	world_call(&w, &c, &src);
	assert_int_equal(calls_after(TXN_CONFIRMED_MS + 1000), 1);
	/* an ACK that did not get to the agent */
	c.method = "ACK";
	front_core_set_room(w.core, false);
	world_call(&w, &c, &src);
	front_core_set_room(w.core, true);
	assert_int_equal(w.a.outcome, FRONT_no_agent);
	assert_int_equal(calls_after(TXN_CONFIRMED_MS + 1000), 1);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded_in_dialog);
	assert_int_equal(calls_after(TXN_CONFIRMED_MS - 1000), 1);
	world_from_agent(&w, answer, answer_n);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	world_call(&w, &c, &src); /* puts nothing off */
	world_send(&w, sent, sent_n, &src);
	assert_int_equal(w.a.outcome, FRONT_retransmission);
	assert_int_equal(calls_after(1100), 0);
	world_send(&w, sent, sent_n, &src);
	assert_int_equal(w.a.outcome, FRONT_replay);
}

/* Without an ACK it stays for as long as the agent repeats its answer. */
static void test_no_ack(void **state)
{
	(void)state;
	call_up();
	assert_int_equal(calls_after(TXN_LIFE_MS - 1000), 1);
	assert_int_equal(calls_after(1100), 0);
}

/* The same request has the same branch towards the agent, so that the agent recognises the repetition. */
static void test_in_dialog_branch_is_stable(void **state)
{
	struct call c;
	char first[128];
	struct sip_msg m;

	(void)state;
	call_up();
	c = in_dialog("UPDATE");
	world_call(&w, &c, &src);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_int_equal(span_cstr(m.via.branch, first, sizeof(first)), 0);
	world_call(&w, &c, &src);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_true(span_eq(m.via.branch, span_str(first)));
	c.branch = "z9hG4bKother";
	world_call(&w, &c, &src);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_false(span_eq(m.via.branch, span_str(first)));
}

static void dropped(const struct call *c, const struct wn_addr *from, enum front_outcome want)
{
	world_call(&w, c, from);
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(want));
	assert_int_equal(w.a.net_n, 0);
	assert_int_equal(w.a.agent_n, 0);
}

static void test_in_dialog_needs_a_token(void **state)
{
	static const char *const method[] = {"BYE", "UPDATE", "INFO"};
	struct wn_addr other = addr_of("198.18.4.3:40112");
	struct call c;
	char bad[300];

	(void)state;
	call_up();
	for (unsigned i = 0; i < 3; i++) {
		c = in_dialog(method[i]);
		c.route = NULL;
		dropped(&c, &src, FRONT_in_dialog_no_token);
		c.route = "<sip:198.18.1.2:5060;lr>";
		dropped(&c, &src, FRONT_in_dialog_no_token);
		/* a token of another address */
		c.route = route;
		dropped(&c, &other, FRONT_in_dialog_bad_token);
		/* every character counts */
		char *token;

		memcpy(bad, route, sizeof(route));
		token = strstr(bad, "sip:") + 4;
		for (unsigned k = 0; k < ROUTE_TOKEN_CHARS; k++) {
			char old = token[k];

			token[k] = old == 'A' ? 'Q' : 'A';
			c.route = bad;
			dropped(&c, &src, FRONT_in_dialog_bad_token);
			token[k] = old;
		}
	}
	/* a re-INVITE is no way around, and neither is a second Route */
	struct call re = {.to_tag = "agenttag"};
	dropped(&re, &src, FRONT_in_dialog_no_token);
	snprintf(bad, sizeof(bad), "<sip:198.18.1.2;lr>, %s", route);
	c = in_dialog("BYE");
	c.route = bad;
	dropped(&c, &src, FRONT_in_dialog_no_token);
	/* ACK without one is absorbed */
	c = in_dialog("ACK");
	c.route = NULL;
	dropped(&c, &src, FRONT_ack_absorbed);
	/* an old one */
	c = in_dialog("BYE");
	w.unix_s += FRONT_TOKEN_S + 1;
	dropped(&c, &src, FRONT_in_dialog_bad_token);
}

/* Within a batch what carries a good token is served first. */
static void test_token_is_first_class(void **state)
{
	struct wn_addr other = addr_of("198.18.4.3:40112");
	struct call c;
	char buf[4096], *token;
	size_t n;

	(void)state;
	call_up();
	c = in_dialog("BYE");
	n = call_write(&c, buf, sizeof(buf));
	assert_true(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	assert_false(world_first_class(&w, span_of(buf, n), &other, w.now_ms, w.unix_s));
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s + FRONT_TOKEN_S + 1));
	token = memmem(buf, n, "Route: <sip:", 12);
	token[20] = token[20] == 'A' ? 'B' : 'A';
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	/* cut anywhere it is looked at no further than it goes */
	for (size_t cut = 0; cut < n; cut++) {
		char *copy = malloc(cut + 1);

		memcpy(copy, buf, cut);
		world_first_class(&w, span_of(copy, cut), &src, w.now_ms, w.unix_s);
		free(copy);
	}
}

/* Another tenant's token is none. */
static void test_token_of_another_tenant(void **state)
{
	static struct front_agent net_agent = {.agent = 5};
	struct call c;

	(void)state;
	call_up();
	memset(net_agent.route_key, 0x33, sizeof(net_agent.route_key));
	atomic_store(&w.tenant[1].agent, &net_agent);
	atomic_store(&w.tenant[1].connected, true);
	c = in_dialog("BYE");
	c.uri = "sip:agent@example.net";
	dropped(&c, &src, FRONT_in_dialog_bad_token);
}

static void test_in_dialog_budget(void **state)
{
	struct call c;
	unsigned forwarded = 0;

	(void)state;
	call_up();
	c = in_dialog("UPDATE");
	for (unsigned i = 0; i < 100; i++) {
		world_call(&w, &c, &src);
		if (w.a.agent_n > 0)
			forwarded++;
		else
			assert_int_equal(w.a.outcome, FRONT_in_dialog_budget);
	}
	assert_true(forwarded <= 21);
}

/* BYE from the agent to the client, and its answer back. */
static size_t agent_bye(char *buf, size_t cap, const char *via_route)
{
	int n = snprintf(buf, cap,
			 "BYE sip:alice@198.18.104.2:40112 SIP/2.0\r\nVia: SIP/2.0/TLS agent.example.org;branch=z9hG4bKagent1\r\n"
			 "Route: %s\r\nFrom: <sip:ssh@example.org>;tag=agenttag\r\nTo: <sip:alice@example.org>;tag=from1\r\n"
			 "Call-ID: call-1@198.18.104.2\r\nCSeq: 1 BYE\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
			 via_route);
	assert_true(n > 0 && (size_t)n < cap);
	return (size_t)n;
}

static void test_bye_from_the_agent(void **state)
{
	struct wn_addr other = addr_of("198.18.4.3:40112");
	char bye[2048], ok[2048], bad[256];
	struct sip_msg m;
	struct sip_buf b;
	size_t n;

	(void)state;
	call_up();
	n = agent_bye(bye, sizeof(bye), route);
	world_from_agent(&w, bye, n);
	assert_int_equal(w.a.outcome, FRONT_relayed_request);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_int_equal(sip_parse(world_net(&w), false, &m), SIP_OK);
	assert_int_equal(m.method, SIP_BYE);
	assert_true(span_eq(m.via.transport, SPAN_LIT("UDP")));
	assert_null(sip_hdr_first(&m, SIP_HDR_ROUTE));
	sip_buf_init(&b, ok, sizeof(ok));
	sip_put_response(&b, &m, 200, "OK", span_of(NULL, 0), &src);
	sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
	/* only from the client that was asked */
	world_send(&w, ok, b.len, &other);
	assert_int_equal(w.a.outcome, FRONT_response);
	assert_int_equal(w.a.agent_n, 0);
	world_send(&w, ok, b.len, &src);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	assert_int_equal(w.a.net_n, 0);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_true(span_eq(m.via.branch, SPAN_LIT("z9hG4bKagent1")));
	/* an agent cannot have something sent to an address that no token names */
	memcpy(bad, route, sizeof(bad));
	bad[20] = bad[20] == 'A' ? 'B' : 'A';
	n = agent_bye(bye, sizeof(bye), bad);
	world_from_agent(&w, bye, n);
	assert_int_equal(w.a.outcome, FRONT_response_dropped);
	assert_int_equal(w.a.net_n, 0);
}

/* A response for a transaction of another tenant's call goes nowhere. */
static void test_other_tenants_transaction(void **state)
{
	struct call c = {0};

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	answer_n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	front_core_from_agent(w.core, 1, span_of(answer, answer_n), w.now_ms, w.unix_s, &w.a);
	assert_int_equal(w.a.outcome, FRONT_response_dropped);
	assert_int_equal(w.a.net_n, 0);
}

#define T(name) cmocka_unit_test_prestate_setup_teardown(name, setup, world_teardown, &w)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_success),
		T(test_nextnonce),
		T(test_failure_is_acknowledged_and_repeated),
		T(test_provisional),
		T(test_no_answer),
		T(test_agent_gone),
		T(test_cancel),
		T(test_ack_and_bye),
		T(test_ack_makes_room),
		T(test_no_ack),
		T(test_in_dialog_branch_is_stable),
		T(test_in_dialog_needs_a_token),
		T(test_token_is_first_class),
		T(test_token_of_another_tenant),
		T(test_in_dialog_budget),
		T(test_bye_from_the_agent),
		T(test_other_tenants_transaction),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
