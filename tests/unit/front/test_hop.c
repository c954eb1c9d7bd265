/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "front/histogram.h"
#include "front/txn.h"
#include "sip/build.h"
#include "world.h"

/* Services that are routed to a plain SIP address. */

#define TRUNK "198.18.1.2:40000"

static struct world w;
static struct wn_addr src, hop_at;
static unsigned hop;
static char route[1024], request[FRONT_OUT_MAX], answer[4096];
static size_t request_n;

static int setup(void **state)
{
	struct wn_addr own = addr_of(TRUNK);

	world_setup(state);
	src = addr_of("198.18.4.2:40112");
	hop_at = addr_of("198.18.2.2:5080");
	hop = (unsigned)front_shared_add_hop(&w.sh, FRONT_UDP, &hop_at);
	assert_int_equal(hop, 1);
	assert_int_equal(front_shared_add_hop(&w.sh, FRONT_UDP, &hop_at), 1);
	front_core_set_trunk(w.core, hop, &own);
	w.policy[0].nservices = 2;
	w.policy[0].service[0] = (struct front_service){"open", hop, false};
	w.policy[0].service[1] = (struct front_service){"closed", hop, true};
	front_policy_sort(&w.policy[0]);
	return 0;
}

static void outcome(enum front_outcome o)
{
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(o));
}

static struct call open_call(void)
{
	return (struct call){.uri = "sip:open@example.org"};
}

static void begin(const struct call *c, const struct wn_addr *from)
{
	world_call(&w, c, from);
	if (w.a.agent_n > 0) {
		memcpy(request, w.to_agent, w.a.agent_n);
		request_n = w.a.agent_n;
	}
}

/* The hop's answer to the request that it got last. */
static void answered(unsigned status, const char *more)
{
	struct sip_msg m;
	struct sip_buf b;

	assert_int_equal(sip_parse(span_of(request, request_n), false, &m), SIP_OK);
	sip_buf_init(&b, answer, sizeof(answer));
	sip_printf(&b, "SIP/2.0 %u Said\r\n", status);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_VIA); h != NULL; h = sip_hdr_next(&m, h))
		sip_printf(&b, "Via: %.*s\r\n", (int)h->value.n, h->value.p);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_RECORD_ROUTE); h != NULL; h = sip_hdr_next(&m, h))
		sip_printf(&b, "Record-Route: %.*s\r\n", (int)h->value.n, h->value.p);
	sip_printf(&b, "From: %.*s\r\nTo: %.*s%s\r\nCall-ID: %.*s\r\nCSeq: %u %.*s\r\n%sContent-Length: 0\r\n\r\n", (int)m.from.n, m.from.p,
		   (int)m.to.n, m.to.p, m.to_tag.p == NULL && status > 100 ? ";tag=uas" : "", (int)m.call_id.n, m.call_id.p, m.cseq,
		   (int)m.method_text.n, m.method_text.p, more);
	assert_false(b.overflow);
	front_core_from_hop(w.core, hop, sip_buf_span(&b), w.now_ms, w.unix_s, &w.a);
}

static void call_up(void)
{
	struct call c = open_call();

	begin(&c, &src);
	outcome(FRONT_forwarded_open);
	answered(200, "Contact: <sip:198.18.2.2:5080>\r\n");
	outcome(FRONT_relayed_response);
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
}

static struct call in_dialog(const char *method)
{
	return (struct call){
		.method = method, .uri = "sip:198.18.2.2:5080", .to_tag = "uas", .branch = "z9hG4bKdialog", .cseq = 2, .route = route};
}

static void test_open_call(void **state)
{
	struct call c = open_call(), bye;

	(void)state;
	begin(&c, &src);
	outcome(FRONT_forwarded_open);
	assert_int_equal(w.a.hop, hop);
	assert_true(holds(world_agent(&w), "Via: SIP/2.0/UDP " TRUNK ";branch=z9hG4bKt"));
	assert_true(holds(world_agent(&w), "received=198.18.4.2"));
	assert_true(holds(world_agent(&w), "Max-Forwards: 69\r\n"));
	assert_false(holds(world_agent(&w), "P-Asserted-Identity"));
	assert_false(holds(world_agent(&w), "X-Walnut"));
	assert_memory_equal(w.net, "SIP/2.0 100 ", 12);
	assert_true(front_flow_eq(&w.a.to, &(struct front_flow){src, 0}));
	answered(200, "");
	outcome(FRONT_relayed_response);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_false(holds(world_net(&w), TRUNK));
	assert_false(holds(world_net(&w), "nextnonce"));
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
	bye = in_dialog("ACK");
	bye.cseq = 1;
	begin(&bye, &src);
	outcome(FRONT_forwarded_in_dialog);
	assert_int_equal(w.a.hop, hop);
	assert_false(holds(world_agent(&w), "Route:"));
	bye = in_dialog("BYE");
	begin(&bye, &src);
	outcome(FRONT_forwarded_in_dialog);
	assert_true(holds(world_agent(&w), "Via: SIP/2.0/UDP " TRUNK ";branch=z9hG4bKd"));
	answered(200, "");
	outcome(FRONT_relayed_response);
	assert_true(front_flow_eq(&w.a.to, &(struct front_flow){src, 0}));
}

/* Nobody who has proven nothing gets more than was sent, and what a front only says to users it does not say to others. */
static void test_open_is_no_amplifier(void **state)
{
	struct call c = open_call();
	char buf[4096];
	size_t n = call_write(&c, buf, sizeof(buf));

	(void)state;
	begin(&c, &src);
	assert_true(w.a.net_n > 0 && w.a.net_n <= n);
	/* a request so bare that even a refusal would be longer */
	static const char bare[] =
		"INVITE sip:open@example.org SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1;rport\r\nf:a:a;tag=1\r\nt:a:a\r\ni:1\r\n"
		"CSeq:1 INVITE\r\n\r\n";
	w.policy[0].max_calls = 1;
	world_send(&w, bare, sizeof(bare) - 1, &src);
	outcome(FRONT_call_limit);
	assert_int_equal(w.a.net_n, 0);
}

/* Spoofed calls of an open service leave room for users; alone it has all of it. */
static void test_open_leaves_room(void **state)
{
	struct call mine = {.uri = "sip:closed@example.org", .call_id = "mine", .branch = "z9hG4bKmine"};
	struct wn_addr other = addr_of("198.18.4.3:40112");
	unsigned let = 0;
	char branch[32];

	(void)state;
	for (unsigned i = 0; i < w.policy[0].max_calls; i++) {
		struct call c = open_call();

		snprintf(branch, sizeof(branch), "z9hG4bKroom%u", i);
		c.branch = branch;
		begin(&c, &src);
		let += w.a.outcome == FRONT_forwarded_open;
	}
	assert_int_equal(let, w.policy[0].max_calls / 2);
	outcome(FRONT_call_limit);
	world_answer_challenge(&w, &mine, &alice, &other);
	begin(&mine, &other);
	outcome(FRONT_forwarded);
	w.policy[0].agent = false;
	for (unsigned i = 0; i < w.policy[0].nservices; i++)
		w.policy[0].service[i].authenticate = false;
	front_policy_sort(&w.policy[0]);
	struct call more = open_call();
	more.branch = "z9hG4bKmore";
	begin(&more, &src);
	outcome(FRONT_forwarded_open);
}

/* One answer to one request: what a hop refused is told again when it is asked for again. */
static void test_open_refusal_once(void **state)
{
	struct call c = open_call();

	(void)state;
	begin(&c, &src);
	answered(486, "");
	outcome(FRONT_relayed_response);
	for (unsigned i = 0; i < 40; i++) {
		w.now_ms += 500;
		w.a.net_n = 0;
		while (front_core_tick(w.core, w.now_ms, &w.a))
			assert_int_equal(w.a.net_n, 0);
		assert_int_equal(w.a.net_n, 0);
	}
	world_call(&w, &c, &src);
	outcome(FRONT_retransmission);
	assert_true(w.a.net_n > 0);
	assert_memory_equal(w.net, "SIP/2.0 486 ", 12);
}

/* Nor by giving up: the 200 of a CANCEL may be longer than it. */
static void test_open_cancel_is_no_amplifier(void **state)
{
	static const char bare[] = "%s sip:open@example.org SIP/2.0\r\nv:SIP/2.0/UDP h;branch=z9hG4bK1;rport\r\nf:a:a;tag=1\r\nt:a:a\r\n"
				   "i:1\r\nCSeq:1 %s\r\n%s\r\n";
	char buf[512];
	int n;

	(void)state;
	n = snprintf(buf, sizeof(buf), bare, "INVITE", "INVITE", "");
	world_send(&w, buf, (size_t)n, &src);
	outcome(FRONT_forwarded_open);
	n = snprintf(buf, sizeof(buf), bare, "CANCEL", "CANCEL", "");
	world_send(&w, buf, (size_t)n, &src);
	outcome(FRONT_cancelled);
	assert_memory_equal(w.to_agent, "CANCEL ", 7);
	assert_int_equal(w.a.net_n, 0);
	/* one that is long enough has its answer */
	n = snprintf(buf, sizeof(buf), bare, "CANCEL", "CANCEL", "User-Agent: one that tells its name at some length, and its version\r\n");
	world_send(&w, buf, (size_t)n, &src);
	outcome(FRONT_cancelled);
	assert_memory_equal(w.net, "SIP/2.0 200 ", 12);
	assert_true(w.a.net_n <= (size_t)n);
}

/* How long a call took is counted from its beginning, however long it rang. */
static void test_answer_is_timed(void **state)
{
	struct call c = open_call();
	struct histogram_sum sum = {0};

	(void)state;
	begin(&c, &src);
	answered(100, "");
	w.now_ms += 100;
	answered(180, "");
	w.now_ms += 40000;
	answered(200, "");
	outcome(FRONT_relayed_response);
	histogram_merge(&sum, front_core_call_answer(w.core));
	assert_int_equal(sum.count, 1);
	assert_int_equal(sum.sum_ns, UINT64_C(40100) * 1000000);
}

static void test_open_retransmission(void **state)
{
	struct call c = open_call();
	struct wn_addr other = addr_of("198.18.4.3:40112");

	(void)state;
	begin(&c, &src);
	w.now_ms += 500;
	world_call(&w, &c, &src);
	outcome(FRONT_retransmission);
	assert_int_equal(w.a.agent_n, 0);
	assert_memory_equal(w.net, "SIP/2.0 100 ", 12);
	/* another source is another transaction */
	world_call(&w, &c, &other);
	outcome(FRONT_forwarded_open);
}

/* RFC 3261 17.1.1.2: Timer A doubles until something comes back; Timer B is ours to tell. */
static void test_repeats_until_answered(void **state)
{
	struct call c = open_call();
	unsigned repeats = 0;

	(void)state;
	begin(&c, &src);
	for (uint64_t end = w.now_ms + TXN_LIFE_MS + 1000; w.now_ms < end; w.now_ms += 50) {
		w.a.net = w.net;
		w.a.agent = w.to_agent;
		while (front_core_tick(w.core, w.now_ms, &w.a)) {
			if (w.a.outcome != FRONT_hop_repeated)
				break;
			assert_int_equal(w.a.agent_n, request_n);
			assert_memory_equal(w.to_agent, request, request_n);
			assert_int_equal(w.a.hop, hop);
			repeats++;
		}
		if (w.a.outcome == FRONT_timed_out)
			break;
	}
	assert_int_equal(repeats, 6); /* 0.5 1.5 3.5 7.5 15.5 31.5 s */
	outcome(FRONT_timed_out);
	assert_memory_equal(w.net, "SIP/2.0 408 ", 12);
}

static void test_answer_ends_repetition(void **state)
{
	static const unsigned status[] = {100, 180};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct call c = open_call();

		c.branch = i == 0 ? "z9hG4bKa" : "z9hG4bKb";
		begin(&c, &src);
		answered(status[i], "");
		outcome(status[i] == 100 ? FRONT_response_dropped : FRONT_relayed_response);
		w.now_ms += 5000;
		assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	}
}

/* A refusal: acknowledged by us on the hop's side, once more on each repetition. */
static void test_refusal(void **state)
{
	struct call c = open_call();

	(void)state;
	begin(&c, &src);
	answered(486, "");
	outcome(FRONT_relayed_response);
	assert_memory_equal(w.to_agent, "ACK sip:open@example.org SIP/2.0\r\n", 34);
	assert_int_equal(w.a.hop, hop);
	assert_true(holds(world_agent(&w), TRUNK));
}

static void test_authenticated(void **state)
{
	struct call c = {.uri = "sip:closed@example.org"};
	struct digest_params p;

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	begin(&c, &src);
	outcome(FRONT_forwarded);
	assert_true(w.a.trusted);
	assert_int_equal(w.a.hop, hop);
	assert_true(holds(world_agent(&w), "P-Asserted-Identity: <sip:alice@example.org>\r\n"));
	assert_false(holds(world_agent(&w), "X-Walnut"));
	assert_false(holds(world_agent(&w), "Proxy-Authorization"));
	answered(200, "");
	assert_int_equal(digest_parse_info(header_of(world_net(&w), "Proxy-Authentication-Info"), &p), 0);
	/* the agent's services are not touched by any of this */
	struct call agents = {.call_id = "other", .branch = "z9hG4bKother"};
	world_answer_challenge(&w, &agents, &alice, &src);
	world_call(&w, &agents, &src);
	outcome(FRONT_forwarded);
	assert_int_equal(w.a.hop, FRONT_HOP_AGENT);
	assert_true(holds(world_agent(&w), "X-Walnut-Key"));
}

/* A digest URI that is not the Request-URI, as SIPp has it (IPv6 without brackets): good enough for a plain next hop, not for an agent. */
static void test_other_digest_uri(void **state)
{
	static const char *const uri[] = {"sip:198.18.1.2:5060", "sip:2001:db8::2:5060"};
	static const char *const id[] = {"z9hG4bKa", "z9hG4bKb"};

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct credentials_of k = alice;
		struct call c = {.uri = "sip:closed@example.org", .call_id = id[i], .branch = id[i]};
		struct call agents = {.call_id = "other", .branch = "z9hG4bKother"};

		k.uri = uri[i];
		world_answer_challenge(&w, &c, &k, &src);
		begin(&c, &src);
		outcome(FRONT_forwarded);
		assert_int_equal(w.a.hop, hop);
		world_answer_challenge(&w, &agents, &k, &src);
		world_call(&w, &agents, &src);
		outcome(FRONT_uri_mismatch);
		assert_int_equal(w.a.agent_n, 0);
	}
}

static void test_any_name(void **state)
{
	struct call c = {.uri = "sip:whatever@example.org"};

	(void)state;
	world_call(&w, &c, &src);
	outcome(FRONT_challenged); /* the agent's */
	w.policy[0].service[w.policy[0].nservices++] = (struct front_service){"*", hop, false};
	front_policy_sort(&w.policy[0]);
	begin(&c, &src);
	outcome(FRONT_forwarded_open);
	c.uri = "sip:closed@example.org";
	c.branch = "z9hG4bKc";
	world_call(&w, &c, &src);
	outcome(FRONT_challenged);
}

/* RFC 3261 19.1.4: a name that is escaped is the same name to whoever comes behind us; it must not pass for any other. */
static void test_escaped_name(void **state)
{
	static const char *const uri[] = {"sip:clos%65d@example.org", "sip:%63%6C%6f%73%65%64@example.org", "sip:closed%00@example.org"};
	struct call c = {0};

	(void)state;
	w.policy[0].service[w.policy[0].nservices++] = (struct front_service){"*", hop, false};
	front_policy_sort(&w.policy[0]);
	for (unsigned i = 0; i < 3; i++) {
		c.uri = uri[i];
		world_call(&w, &c, &src);
		outcome(FRONT_challenged);
		assert_int_equal(w.a.agent_n, 0);
	}
	c.uri = "sip:clos%65@example.org";
	world_call(&w, &c, &src);
	outcome(FRONT_forwarded_open);
}

static void test_down(void **state)
{
	struct call c = open_call();

	(void)state;
	front_core_set_trunk(w.core, hop, NULL);
	begin(&c, &src);
	outcome(FRONT_no_hop);
	assert_memory_equal(w.net, "SIP/2.0 503 ", 12);
	assert_true(holds(world_net(&w), "Retry-After: "));
}

/* The hop hangs up: its request comes to the listening address that Record-Route named, and the client's answer goes back there. */
static void test_hop_hangs_up(void **state)
{
	struct wn_addr stranger = addr_of("198.18.9.9:5080");
	struct call c;

	(void)state;
	call_up();
	c = in_dialog("BYE");
	c.uri = "sip:alice@198.18.104.2:40112";
	begin(&c, &stranger);
	outcome(FRONT_in_dialog_bad_token);
	world_call(&w, &c, &hop_at);
	outcome(FRONT_relayed_request);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_true(holds(world_net(&w), "Via: SIP/2.0/UDP 198.18.1.2:5060;branch=z9hG4bKu"));
	assert_true(holds(world_net(&w), "Via: SIP/2.0/UDP 198.18.104.2:40112;branch=z9hG4bKdialog"));
	memcpy(request, w.net, w.a.net_n);
	request_n = w.a.net_n;

	struct sip_msg m;
	struct sip_buf b;
	assert_int_equal(sip_parse(span_of(request, request_n), false, &m), SIP_OK);
	sip_buf_init(&b, answer, sizeof(answer));
	sip_put_response(&b, &m, 200, "OK", span_of(NULL, 0), &w.sh.listener[0].addr);
	sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
	world_send(&w, b.p, b.len, &src);
	outcome(FRONT_relayed_response);
	assert_true(wn_addr_eq(&w.a.to.addr, &hop_at));
	/* from anybody else it is nobody's answer */
	world_send(&w, b.p, b.len, &stranger);
	outcome(FRONT_response);
}

static enum front_class look_at(const char *p, size_t n, const struct front_flow *from)
{
	struct front_look look;

	return front_core_look(w.core, span_of(p, n), from, w.now_ms, w.unix_s, &look, &w.a);
}

/* Over TCP the hop's own requests may come over a connection of its own, from any port, and they make it one that is trusted. */
static void test_tcp_hop_hangs_up(void **state)
{
	struct front_flow from = {addr_of("198.18.2.2:33333"), front_flow_id(FRONT_TCP, 0, 3, 1, 1)};
	struct front_flow stranger = {addr_of("198.18.9.9:5080"), front_flow_id(FRONT_TCP, 0, 3, 2, 1)};
	char buf[4096];
	struct call c;
	size_t n;

	(void)state;
	w.sh.hop[hop].transport = FRONT_TCP;
	call_up();
	c = in_dialog("BYE");
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(look_at(buf, n, &stranger), FRONT_CLASS_DONE);
	outcome(FRONT_in_dialog_bad_token);
	front_core_message(w.core, span_of(buf, n), &stranger, w.now_ms, w.unix_s, &w.a);
	outcome(FRONT_in_dialog_bad_token);
	assert_false(w.a.trusted);
	assert_int_equal(look_at(buf, n, &from), FRONT_CLASS_FIRST);
	front_core_message(w.core, span_of(buf, n), &from, w.now_ms, w.unix_s, &w.a);
	outcome(FRONT_relayed_request);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_true(w.a.trusted);
}

/* Caller and hop on one host: the caller's requests are told by the flow that the call came over. */
static void test_tcp_hop_beside_caller(void **state)
{
	const struct front_flow hops = {addr_of("198.18.2.2:33333"), front_flow_id(FRONT_TCP, 0, 3, 1, 1)};
	const struct front_flow caller[] = {{addr_of("198.18.2.2:40112"), front_flow_id(FRONT_UDP, 0, 0, 0, 0)},
					    {addr_of("198.18.2.2:40113"), front_flow_id(FRONT_TCP, 0, 3, 2, 1)}};
	const struct front_flow datagram = {addr_of("198.18.2.2:33333"), front_flow_id(FRONT_UDP, 0, 0, 0, 0)};
	static const char *const id[] = {"over-udp", "over-tcp"};
	char buf[4096];
	size_t n;

	(void)state;
	w.sh.hop[hop].transport = FRONT_TCP;
	for (unsigned i = 0; i < 2; i++) {
		struct call c = open_call(), bye;

		c.call_id = c.branch = id[i];
		n = call_write(&c, buf, sizeof(buf));
		front_core_message(w.core, span_of(buf, n), &caller[i], w.now_ms, w.unix_s, &w.a);
		outcome(FRONT_forwarded_open);
		memcpy(request, w.to_agent, w.a.agent_n);
		request_n = w.a.agent_n;
		answered(200, "");
		assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
		bye = in_dialog("BYE");
		bye.call_id = id[i];
		n = call_write(&bye, buf, sizeof(buf));
		assert_int_equal(look_at(buf, n, &caller[i]), FRONT_CLASS_FIRST);
		front_core_message(w.core, span_of(buf, n), &caller[i], w.now_ms, w.unix_s, &w.a);
		outcome(FRONT_forwarded_in_dialog);
		front_core_message(w.core, span_of(buf, n), &datagram, w.now_ms, w.unix_s, &w.a); /* no TCP: not the hop */
		outcome(FRONT_forwarded_in_dialog);
		front_core_message(w.core, span_of(buf, n), &hops, w.now_ms, w.unix_s, &w.a);
		outcome(FRONT_relayed_request);
		assert_true(front_flow_eq(&w.a.to, &caller[i]));
	}
}

/* Its connection goes: who waits for it hears so, and who comes later too. */
static void test_tcp_hop_goes(void **state)
{
	struct call c = open_call(), later = open_call();
	struct wn_addr own = addr_of(TRUNK);
	unsigned said = 0;

	(void)state;
	w.sh.hop[hop].transport = FRONT_TCP;
	begin(&c, &src);
	outcome(FRONT_forwarded_open);
	front_core_hop_gone(w.core, hop, w.now_ms);
	w.now_ms += 100;
	while (front_core_tick(w.core, w.now_ms, &w.a))
		said += holds(world_net(&w), "SIP/2.0 503 ") && holds(world_net(&w), "Retry-After: 1");
	assert_int_equal(said, 1);
	later.call_id = "later";
	later.branch = "z9hG4bKlater";
	begin(&later, &src);
	outcome(FRONT_no_hop);
	front_core_set_trunk(w.core, hop, &own);
	begin(&later, &src);
	outcome(FRONT_forwarded_open);
}

/* A token of one dialog opens no other, from no other address, and not when a bit of it has changed. */
static void test_token(void **state)
{
	struct wn_addr other = addr_of("198.18.4.3:40112");
	struct call c;

	(void)state;
	call_up();
	c = in_dialog("BYE");
	c.call_id = "another";
	begin(&c, &src);
	outcome(FRONT_in_dialog_bad_token);
	c.call_id = NULL;
	world_call(&w, &c, &other);
	outcome(FRONT_in_dialog_bad_token);
	route[20] = route[20] == 'A' ? 'B' : 'A';
	world_call(&w, &c, &src);
	outcome(FRONT_in_dialog_bad_token);
}

/* Over another transport than the hop's, both sides have a Record-Route of their own, and both leave again (RFC 5658). */
static void test_two_record_routes(void **state)
{
	struct front_flow tcp = {src, 0};
	struct call c = open_call();
	struct wn_addr at = addr_of("198.18.1.2:5061");
	struct sip_msg m;
	const struct sip_hdr *far, *near;
	char buf[4096];
	size_t n;

	(void)state;
	tcp.id = front_flow_id(FRONT_TCP, (unsigned)front_shared_add_listener(&w.sh, FRONT_TCP, &at), 3, 7, 9);
	n = call_write(&c, buf, sizeof(buf));
	front_core_message(w.core, span_of(buf, n), &tcp, w.now_ms, w.unix_s, &w.a);
	outcome(FRONT_forwarded_open);
	assert_int_equal(sip_parse(world_agent(&w), false, &m), SIP_OK);
	far = sip_hdr_first(&m, SIP_HDR_RECORD_ROUTE);
	near = sip_hdr_next(&m, far);
	assert_true(holds(far->value, "@198.18.1.2:5060;lr>"));
	assert_true(holds(near->value, "@198.18.1.2:5061;transport=tcp;lr>"));
	/* the caller's route set is the reverse of it */
	snprintf(route, sizeof(route), "%.*s, %.*s, <sip:198.18.7.7;lr>", (int)near->value.n, near->value.p, (int)far->value.n,
		 far->value.p);
	c = in_dialog("BYE");
	n = call_write(&c, buf, sizeof(buf));
	front_core_message(w.core, span_of(buf, n), &tcp, w.now_ms, w.unix_s, &w.a);
	outcome(FRONT_forwarded_in_dialog);
	assert_int_equal(sip_parse(world_agent(&w), false, &m), SIP_OK);
	assert_true(span_eq(sip_hdr_first(&m, SIP_HDR_ROUTE)->value, SPAN_LIT("<sip:198.18.7.7;lr>")));
	assert_null(sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_ROUTE)));
	memcpy(request, w.to_agent, w.a.agent_n);
	request_n = w.a.agent_n;
	answered(200, "");
	assert_true(front_flow_eq(&w.a.to, &tcp));
}

/* A phone may ring for longer than a transaction lives without an answer; not for ever. */
static void test_rings(void **state)
{
	struct call c = open_call();

	(void)state;
	begin(&c, &src);
	answered(180, "");
	outcome(FRONT_relayed_response);
	w.now_ms += 3 * 60000;
	assert_false(front_core_tick(w.core, w.now_ms, &w.a));
	answered(200, "");
	outcome(FRONT_relayed_response);
	assert_memory_equal(w.net, "SIP/2.0 200 ", 12);

	c.branch = "z9hG4bKlong";
	c.call_id = "long";
	begin(&c, &src);
	answered(100, "");
	for (uint64_t end = w.now_ms + TXN_RINGING_MS; w.now_ms < end; w.now_ms += 1000)
		while (front_core_tick(w.core, w.now_ms, &w.a))
			assert_int_not_equal(w.a.outcome, FRONT_timed_out);
	assert_true(front_core_tick(w.core, w.now_ms, &w.a));
	outcome(FRONT_timed_out);
	assert_memory_equal(w.net, "SIP/2.0 408 ", 12);
}

/* The ACK of a refusal is lost: the hop repeats the refusal and gets another, the caller hears nothing new. */
static void test_refusal_repeated(void **state)
{
	struct call c = open_call();

	(void)state;
	begin(&c, &src);
	answered(486, "");
	outcome(FRONT_relayed_response);
	assert_memory_equal(w.to_agent, "ACK sip:open@example.org SIP/2.0\r\n", 34);
	for (unsigned i = 0; i < 2; i++) {
		answered(486, "");
		assert_int_equal(w.a.net_n, 0);
		assert_int_equal(w.a.hop, hop);
		assert_memory_equal(world_agent(&w).p, "ACK sip:open@example.org SIP/2.0\r\n", 34);
		/* before and after the caller's own ACK */
		c.method = "ACK";
		c.to_tag = "uas";
		world_call(&w, &c, &src);
		outcome(FRONT_ack_absorbed);
	}
}

/* The hop repeats its 200, as it does until it sees an ACK; ours was lost on the way to it. The caller gets the 200 again. */
static void test_ok_repeated(void **state)
{
	struct call c = {.uri = "sip:closed@example.org"};

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	begin(&c, &src);
	answered(200, "Contact: <sip:198.18.2.2:5080>\r\n");
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
	answered(200, "");
	outcome(FRONT_relayed_response);
	assert_true(holds(world_net(&w), "nextnonce"));
	c = in_dialog("ACK");
	c.cseq = 1;
	world_call(&w, &c, &src);
	outcome(FRONT_forwarded_in_dialog);
	answered(200, "");
	outcome(FRONT_relayed_response);
	assert_memory_equal(w.net, "SIP/2.0 200 ", 12);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	/* who has acknowledged has used it, or another */
	assert_false(holds(world_net(&w), "nextnonce"));
}

#define T(name) cmocka_unit_test_prestate_setup_teardown(name, setup, world_teardown, &w)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_open_call),
		T(test_open_is_no_amplifier),
		T(test_open_leaves_room),
		T(test_open_refusal_once),
		T(test_open_cancel_is_no_amplifier),
		T(test_answer_is_timed),
		T(test_open_retransmission),
		T(test_repeats_until_answered),
		T(test_answer_ends_repetition),
		T(test_refusal),
		T(test_authenticated),
		T(test_other_digest_uri),
		T(test_any_name),
		T(test_escaped_name),
		T(test_down),
		T(test_hop_hangs_up),
		T(test_tcp_hop_hangs_up),
		T(test_tcp_hop_beside_caller),
		T(test_tcp_hop_goes),
		T(test_token),
		T(test_two_record_routes),
		T(test_rings),
		T(test_refusal_repeated),
		T(test_ok_repeated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
