/* SPDX-License-Identifier: Apache-2.0 */
/* The dialog and the hole that goes with it, against a fake clock, fronts and gate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#include "agent/call_sip.h"
#include "agent/calls.h"
#include "base/log.h"
#include "sip_text.h"

#define RECORDS 64

static char *carol_only[] = {(char *)(uintptr_t) "carol"};
static struct agent_service services[] = {
	{.name = (char *)(uintptr_t) "ssh", .proto = IPPROTO_TCP, .bytes_per_s = 1000000, .packets_per_s = 500, .idle_s = 60},
	{.name = (char *)(uintptr_t) "dns", .proto = IPPROTO_UDP},
	{.name = (char *)(uintptr_t) "mail", .proto = IPPROTO_TCP, .users = carol_only, .nusers = 1},
};
static struct agent_config config = {.domain = (char *)(uintptr_t) "example.org",
				     .services = services,
				     .nservices = 3,
				     .hole_lifetime_s = 1800,
				     .max_calls = 8,
				     .user_bytes_per_s = 3000000,
				     .user_packets_per_s = 900};
static const uint8_t secret[ROUTE_KEY_BYTES] = {1, 2, 3};

static struct calls *calls;
static struct agent_counters counters;
static uint64_t now;
static struct wn_addr front_addr;

static struct {
	char text[RECORDS][4096];
	int front[RECORDS];
	bool any[RECORDS];
	unsigned n;
} sent;
static struct {
	struct gate_request r[RECORDS];
	uint32_t generation[RECORDS];
	unsigned n;
} opened;
static struct {
	uint64_t hole[RECORDS];
	unsigned n;
} closed;
static struct {
	uint64_t cookie, hole;
	uint32_t lifetime_s;
	unsigned n;
} renewed;
static bool gate_down, alice_deleted;

static void fake_send(void *arg, int front, bool any, struct span msg)
{
	(void)arg;
	assert_true(sent.n < RECORDS && msg.n < sizeof(sent.text[0]));
	memcpy(sent.text[sent.n], msg.p, msg.n);
	sent.text[sent.n][msg.n] = '\0';
	sent.front[sent.n] = front;
	sent.any[sent.n++] = any;
}

static int fake_open(void *arg, const struct gate_request *r, uint32_t generation)
{
	(void)arg;
	if (gate_down)
		return -ENOTCONN;
	assert_true(opened.n < RECORDS);
	opened.r[opened.n] = *r;
	opened.r[opened.n].seq = 1;
	assert_int_equal(gate_request_check(r), 0); /* what the gate would refuse is never asked for */
	opened.generation[opened.n++] = generation;
	return 0;
}

static int fake_renew(void *arg, uint64_t cookie, uint64_t hole, uint32_t lifetime_s)
{
	(void)arg;
	if (gate_down)
		return -ENOTCONN;
	renewed.cookie = cookie;
	renewed.hole = hole;
	renewed.lifetime_s = lifetime_s;
	renewed.n++;
	return 0;
}

static void fake_close(void *arg, uint64_t hole)
{
	(void)arg;
	assert_true(closed.n < RECORDS);
	closed.hole[closed.n++] = hole;
}

static bool fake_known(void *arg, struct span user)
{
	(void)arg;
	if (alice_deleted && span_eq(user, SPAN_LIT("alice")))
		return false;
	return span_eq(user, SPAN_LIT("alice")) || span_eq(user, SPAN_LIT("bob"));
}

static const struct calls_ops ops = {
	.send = fake_send, .open = fake_open, .renew = fake_renew, .close = fake_close, .user_known = fake_known};

static void request_text(const char *text, size_t n, int front)
{
	char *exact = malloc(n);
	struct sip_msg m;

	memcpy(exact, text, n);
	assert_int_equal(sip_parse(span_of(exact, n), true, &m), SIP_OK);
	calls_request(calls, now, front, &front_addr, &m);
	calls_tick(calls, now);
	free(exact);
}

static void invite_over(const struct invite_text *t, int front)
{
	char text[4096];

	request_text(text, write_invite(t, text, sizeof(text)), front);
}

static void invite(const struct invite_text *t)
{
	invite_over(t, 0);
}

static void in_dialog(const char *method, const char *to_tag, unsigned cseq)
{
	char text[2048];

	request_text(text, write_in_dialog(method, "c1", "ft", to_tag, cseq, text, sizeof(text)), 1);
}

static struct gate_reply granted(uint64_t hole)
{
	struct gate_reply r = {.op = GATE_OPEN, .status = GATE_OK, .hole = hole};

	assert_int_equal(wn_addr_parse(SPAN_LIT("198.18.3.2:31337"), -1, &r.public), 0);
	return r;
}

static void grant(unsigned i, uint64_t hole)
{
	struct gate_reply r = granted(hole);

	calls_opened(calls, now, opened.r[i].cookie, opened.generation[i], &r);
	calls_tick(calls, now);
}

static void refuse(unsigned i, enum gate_status s)
{
	struct gate_reply r = {.op = GATE_OPEN, .status = (uint8_t)s};

	calls_opened(calls, now, opened.r[i].cookie, opened.generation[i], &r);
}

static void pass(uint64_t ms)
{
	now += ms;
	calls_tick(calls, now);
}

static const char *last(void)
{
	assert_true(sent.n > 0);
	return sent.text[sent.n - 1];
}

static void assert_status(const char *text, unsigned status)
{
	char want[32];

	snprintf(want, sizeof(want), "SIP/2.0 %u ", status);
	if (strncmp(text, want, strlen(want)) != 0)
		fail_msg("wanted %u, got: %s", status, text);
}

/* A refusal says status and reason and nothing of ours. */
static void assert_refused(unsigned status)
{
	assert_status(last(), status);
	assert_null(strstr(last(), "X-Walnut"));
	assert_null(strstr(last(), "P-Asserted"));
	assert_null(strstr(last(), "198.18.100"));
	assert_non_null(strstr(last(), "Content-Length: 0\r\n\r\n"));
	assert_string_equal(strstr(last(), "\r\n\r\n"), "\r\n\r\n");
}

/* The To-tag of the last 200. */
static const char *tag_of(const char *text)
{
	static char tag[64];
	const char *to = strstr(text, "\r\nTo: ");
	const char *at = to != NULL ? strstr(to, ";tag=") : NULL;
	size_t n;

	assert_non_null(at);
	at += 5;
	n = strcspn(at, ";\r\n");
	assert_true(n > 0 && n < sizeof(tag));
	memcpy(tag, at, n);
	tag[n] = '\0';
	return tag;
}

/* Up to CONFIRMED; the To-tag. */
static const char *establish(const struct invite_text *t, uint64_t hole)
{
	static char tag[64];
	unsigned before = opened.n;

	invite(t);
	assert_int_equal(opened.n, before + 1);
	grant(before, hole);
	assert_status(last(), 200);
	snprintf(tag, sizeof(tag), "%s", tag_of(last()));
	in_dialog("ACK", tag, 2);
	return tag;
}

static int setup(void **state)
{
	(void)state;
	memset(&counters, 0, sizeof(counters));
	memset(&sent, 0, sizeof(sent));
	memset(&opened, 0, sizeof(opened));
	memset(&closed, 0, sizeof(closed));
	memset(&renewed, 0, sizeof(renewed));
	gate_down = alice_deleted = false;
	now = 1000000;
	wn_addr_parse(SPAN_LIT("198.18.100.2:22"), -1, &services[0].inside);
	wn_addr_parse(SPAN_LIT("198.18.100.2:53"), -1, &services[1].inside);
	wn_addr_parse(SPAN_LIT("198.18.100.2:25"), -1, &services[2].inside);
	wn_addr_parse(SPAN_LIT("198.18.1.2:7061"), -1, &front_addr);
	return calls_new(&config, secret, &ops, NULL, &counters, &calls);
}

static int teardown(void **state)
{
	(void)state;
	calls_free(calls);
	return 0;
}

/* The agent dies and another takes its place. */
static void restart(void)
{
	calls_free(calls);
	assert_int_equal(calls_new(&config, secret, &ops, NULL, &counters, &calls), 0);
	calls_gate_lost(calls, now);
}

static struct gate_reply listed(unsigned i, uint64_t hole)
{
	struct gate_reply r = granted(hole);

	r.op = GATE_LIST;
	r.cookie = opened.r[i].cookie;
	r.inside = opened.r[i].inside;
	r.remote = opened.r[i].remote;
	r.proto = opened.r[i].proto;
	r.flags = opened.r[i].flags;
	r.lifetime_s = 900;
	memcpy(r.user, opened.r[i].user, sizeof(r.user));
	return r;
}

static void list(const struct gate_reply *r, unsigned n)
{
	calls_list_begin(calls);
	for (unsigned i = 0; i < n; i++)
		calls_listed(calls, now, &r[i]);
	calls_list_end(calls, now);
	calls_tick(calls, now);
}

static void test_call(void **state)
{
	struct invite_text t = {0};
	const struct gate_request *r = &opened.r[0];
	char text[WN_ADDR_STR], tag[64];

	(void)state;
	invite(&t);
	assert_int_equal(opened.n, 1);
	assert_int_equal(sent.n, 0); /* the gate answers before the caller hears anything */
	assert_int_equal(r->proto, IPPROTO_TCP);
	assert_int_equal(r->flags, 0);
	assert_string_equal(wn_addr_str(&r->inside, text), "198.18.100.2:22");
	assert_string_equal(wn_ip_str(&r->remote, text), "198.18.4.2");
	assert_int_equal(r->remote.port, 0);
	assert_int_equal(r->lifetime_s, 1800);
	assert_int_equal(r->bytes_per_s, 1000000);
	assert_int_equal(r->packets_per_s, 500);
	assert_int_equal(r->user_bytes_per_s, 3000000);
	assert_int_equal(r->user_packets_per_s, 900);
	assert_int_equal(r->idle_s, 60);
	assert_string_equal(r->user, "alice");
	assert_int_not_equal(r->cookie, 0);

	grant(0, 77);
	assert_int_equal(sent.n, 1);
	assert_int_equal(sent.front[0], 0);
	assert_status(last(), 200);
	assert_non_null(strstr(last(), "\r\nRecord-Route: <sip:TOKENTOKEN@198.18.1.2:5060;lr>\r\n"));
	assert_non_null(strstr(last(), "\r\nContact: <sip:agent@example.org>\r\n"));
	assert_non_null(strstr(last(), "\r\nSession-Expires: 1800;refresher=uac\r\n"));
	assert_non_null(strstr(last(), "c=IN IP4 198.18.3.2\r\n"));
	assert_non_null(strstr(last(), "m=application 31337 TCP"));
	assert_null(strstr(last(), "X-Walnut"));
	snprintf(tag, sizeof(tag), "%s", tag_of(last()));
	assert_int_equal(calls_live(calls), 1);
	assert_int_equal(calls_total(calls), 1);

	/* T1, 2*T1, 4*T1, T2, T2 … until the ACK */
	pass(499);
	assert_int_equal(sent.n, 1);
	pass(1);
	assert_int_equal(sent.n, 2);
	assert_string_equal(sent.text[0], sent.text[1]);
	pass(1000);
	assert_int_equal(sent.n, 3);
	pass(2000);
	assert_int_equal(sent.n, 4);
	pass(4000);
	assert_int_equal(sent.n, 5);
	pass(4000);
	assert_int_equal(sent.n, 6);
	in_dialog("ACK", "wrong", 2);
	pass(4000);
	assert_int_equal(sent.n, 7);
	in_dialog("ACK", tag, 2);
	pass(60000);
	assert_int_equal(sent.n, 7);
	in_dialog("ACK", tag, 2);
	assert_int_equal(sent.n, 7);

	in_dialog("BYE", tag, 3);
	assert_status(last(), 200);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 77);
	assert_int_equal(calls_live(calls), 0);
	in_dialog("BYE", tag, 3);
	assert_refused(481);
	assert_int_equal(closed.n, 1);
	pass(10000000);
	assert_int_equal(calls_tick(calls, now), UINT64_MAX);
}

static void test_duplicate_invite(void **state)
{
	struct invite_text t = {0}, again = {.branch = "front2", .cseq = 3, .key = KEY_TEXT2};
	char tag[64];

	(void)state;
	invite(&t);
	invite_over(&again, 1); /* through the other front, before the gate has answered */
	assert_int_equal(opened.n, 1);
	grant(0, 77);
	assert_int_equal(sent.n, 1);
	assert_status(last(), 200);
	assert_int_equal(sent.front[0], 1);
	assert_non_null(strstr(last(), "branch=z9hG4bKfront2"));
	snprintf(tag, sizeof(tag), "%s", tag_of(last()));

	again.cseq = 4;
	invite_over(&again, 0); /* and after */
	assert_int_equal(opened.n, 1);
	assert_status(last(), 200);
	assert_string_equal(tag_of(last()), tag);
	assert_non_null(strstr(last(), "m=application 31337 TCP"));
	assert_int_equal(calls_live(calls), 1);

	in_dialog("ACK", tag, 4);
	again.cseq = 5;
	invite_over(&again, 1);
	assert_int_equal(opened.n, 1);
	assert_status(last(), 200);

	/* somebody else's call with the same names is another call */
	again.user = "bob";
	invite(&again);
	assert_int_equal(opened.n, 2);
	assert_int_not_equal(opened.r[0].cookie, opened.r[1].cookie);
}

static void test_no_ack(void **state)
{
	struct invite_text t = {0};

	(void)state;
	invite(&t);
	grant(0, 77);
	for (unsigned i = 0; i < 400 && closed.n == 0; i++)
		pass(100);
	assert_int_equal(closed.n, 1);
	assert_true(now >= 1000000 + 32000 && now < 1000000 + 36500);
	assert_non_null(strstr(last(), "BYE sip:alice@198.18.104.2:5062 SIP/2.0\r\n"));
	assert_int_equal(counters.n[COUNT_ended_no_ack], 1);
	/* Nobody is there: the 200 went out at 0, 0.5, 1.5, 3.5, 7.5 s and every 4 s; the BYE as often in its 8 s; then there is silence.
	 */
	for (unsigned i = 0; i < 200; i++)
		pass(100);
	assert_in_range(sent.n, 3, 11 + 5);
	unsigned n = sent.n;
	pass(3600000);
	assert_int_equal(sent.n, n);
	assert_true(calls_tick(calls, now) == UINT64_MAX);
}

static void test_bye_of_ours(void **state)
{
	struct invite_text t = {0};
	char tag[64], want[128], answer[1024];
	struct sip_msg m;
	unsigned n;

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	n = sent.n;
	assert_int_equal(calls_close_user(calls, now, "bob", CALLS_KICKED), 0);
	assert_int_equal(calls_close_user(calls, now, "alice", CALLS_KICKED), 1);
	assert_int_equal(closed.n, 1); /* at once */
	assert_int_equal(calls_live(calls), 0);
	assert_int_equal(sent.n, n + 1);
	assert_true(sent.any[n]); /* over whatever front is there */
	assert_int_equal(strncmp(last(), "BYE sip:alice@198.18.104.2:5062 SIP/2.0\r\n", 41), 0);
	assert_non_null(strstr(last(), "\r\nRoute: <sip:TOKENTOKEN@198.18.1.2:5060;lr>\r\n"));
	snprintf(want, sizeof(want), "\r\nFrom: <sip:ssh@example.org>;tag=%s\r\n", tag);
	assert_non_null(strstr(last(), want));
	assert_non_null(strstr(last(), "\r\nTo: \"A\" <sip:alice@example.org>;tag=ft\r\n"));
	assert_non_null(strstr(last(), "\r\nCall-ID: c1\r\n"));
	assert_int_equal(sip_parse(span_str(last()), true, &m), SIP_OK);

	pass(500);
	assert_int_equal(sent.n, n + 2); /* UDP lies beyond the front: it is resent */
	snprintf(answer, sizeof(answer),
		 "SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS agent.example.org;branch=%.*s\r\nFrom: <sip:ssh@example.org>;tag=%s\r\n"
		 "To: \"A\" <sip:alice@example.org>;tag=ft\r\nCall-ID: c1\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
		 (int)m.via.branch.n, m.via.branch.p, tag);
	assert_int_equal(sip_parse(span_str(answer), true, &m), SIP_OK);
	calls_response(calls, now, &m);
	pass(60000);
	assert_int_equal(sent.n, n + 2);
	calls_response(calls, now, &m);
	assert_int_equal(counters.n[COUNT_unexpected_response], 1);
	assert_int_equal(closed.n, 1);
}

static void test_bye_given_up(void **state)
{
	struct invite_text t = {0};
	unsigned n;

	(void)state;
	establish(&t, 77);
	calls_close_user(calls, now, "alice", CALLS_KICKED);
	for (unsigned i = 0; i < 300; i++)
		pass(100);
	n = sent.n;
	assert_true(n <= 8);
	pass(600000);
	assert_int_equal(sent.n, n);
	/* the user may come again, under the same names too */
	establish(&t, 78);
	assert_int_equal(calls_live(calls), 1);
}

static void test_expiry_and_update(void **state)
{
	struct invite_text t = {0};
	struct gate_reply ok = {.op = GATE_RENEW, .status = GATE_OK}, gone = {.op = GATE_RENEW, .status = GATE_NO_HOLE};
	char tag[64];

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	pass(900000);
	in_dialog("UPDATE", tag, 3);
	assert_int_equal(renewed.n, 1);
	assert_int_equal(renewed.hole, 77);
	assert_int_equal(renewed.lifetime_s, 1800);
	in_dialog("UPDATE", tag, 3); /* retransmitted: one renewal */
	assert_int_equal(renewed.n, 1);
	calls_renewed(calls, now, renewed.cookie, &ok);
	assert_status(last(), 200);
	assert_non_null(strstr(last(), "\r\nSession-Expires: 1800;refresher=uac\r\n"));

	pass(1799999);
	assert_int_equal(closed.n, 0);
	pass(1);
	assert_int_equal(closed.n, 1);
	assert_int_equal(counters.n[COUNT_ended_expired], 1);
	assert_int_equal(strncmp(last(), "BYE ", 4), 0);

	/* a hole that is gone */
	pass(60000);
	snprintf(tag, sizeof(tag), "%s", establish(&t, 78));
	in_dialog("UPDATE", tag, 4);
	assert_int_equal(renewed.n, 2);
	calls_renewed(calls, now, renewed.cookie, &gone);
	assert_int_equal(counters.n[COUNT_ended_hole_gone], 1);
	assert_int_equal(calls_live(calls), 0);
	assert_int_equal(closed.n, 1);
}

static void test_refresh_by_reinvite(void **state)
{
	struct invite_text t = {0}, re = {.cseq = 3};
	struct gate_reply ok = {.op = GATE_RENEW, .status = GATE_OK};
	char tag[64];

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	re.to_tag = tag;
	invite(&re);
	assert_int_equal(opened.n, 1);
	assert_int_equal(renewed.n, 1);
	calls_renewed(calls, now, renewed.cookie, &ok);
	assert_status(last(), 200);
	assert_non_null(strstr(last(), "m=application 31337 TCP"));
	in_dialog("ACK", tag, 3);
	in_dialog("BYE", tag, 2); /* older than what was seen */
	assert_refused(500);
	assert_int_equal(closed.n, 0);
}

static void test_lifetime_asked(void **state)
{
	struct invite_text t = {.extra = "Session-Expires: 600;refresher=uac\r\nSupported: 100rel, timer\r\n"};

	(void)state;
	invite(&t);
	assert_int_equal(opened.r[0].lifetime_s, 600);
	grant(0, 77);
	assert_non_null(strstr(last(), "\r\nSession-Expires: 600;refresher=uac\r\n"));
	assert_non_null(strstr(last(), "\r\nRequire: timer\r\n"));
	t.call_id = "c2";
	t.extra = "Session-Expires: 7200\r\n";
	invite(&t);
	assert_int_equal(opened.r[1].lifetime_s, 1800);
	t.call_id = "c3";
	t.extra = "Session-Expires: 5\r\n";
	invite(&t);
	assert_int_equal(opened.r[2].lifetime_s, 1800);
}

static void test_gate_trouble(void **state)
{
	struct invite_text t = {0};

	(void)state;
	invite(&t);
	refuse(0, GATE_QUOTA);
	assert_status(last(), 503);
	assert_non_null(strstr(last(), "\r\nRetry-After: "));
	t.call_id = "c2";
	invite(&t);
	refuse(1, GATE_FULL);
	assert_status(last(), 503);
	t.call_id = "c3";
	invite(&t);
	refuse(2, GATE_NOT_YOURS);
	assert_refused(500);

	/* no answer: the late one is closed again */
	t.call_id = "c4";
	invite(&t);
	pass(4999);
	assert_int_equal(counters.n[COUNT_refused_gate_timeout], 0);
	pass(1);
	assert_status(last(), 503);
	assert_int_equal(closed.n, 0);
	grant(3, 90);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 90);
	assert_int_equal(calls_live(calls), 0);

	/* lost while asked */
	t.call_id = "c5";
	invite(&t);
	calls_gate_lost(calls, now);
	assert_status(last(), 503);
	struct gate_reply r = listed(4, 91);
	list(&r, 1);
	assert_int_equal(closed.n, 2); /* the hole that nobody was told of is not adopted */
	assert_int_equal(closed.hole[1], 91);

	gate_down = true;
	t.call_id = "c6";
	invite(&t);
	assert_status(last(), 503);
	assert_int_equal(calls_live(calls), 0);

	/* an answer that is none */
	gate_down = false;
	t.call_id = "c7";
	invite(&t);
	struct gate_reply odd = {.op = GATE_OPEN, .status = GATE_OK};
	calls_opened(calls, now, opened.r[5].cookie, opened.generation[5], &odd);
	assert_refused(500);
}

/* An old answer is never taken for a new question, also when the call has the same names. */
static void test_generations(void **state)
{
	struct invite_text t = {0};

	(void)state;
	invite(&t);
	pass(5000);
	assert_status(last(), 503);
	invite(&t);
	assert_int_equal(opened.n, 2);
	assert_int_equal(opened.r[0].cookie, opened.r[1].cookie);
	grant(0, 77);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 77);
	assert_int_equal(calls_live(calls), 0);
	grant(1, 78);
	assert_status(last(), 200);
	assert_int_equal(calls_live(calls), 1);
}

static void test_policy(void **state)
{
	struct invite_text t = {.user = "mallory"};

	(void)state;
	invite(&t);
	assert_refused(403);
	t = (struct invite_text){.service = "telnet"};
	invite(&t);
	assert_refused(404);
	t = (struct invite_text){.domain = "example.com"};
	invite(&t);
	assert_refused(404);
	t = (struct invite_text){.service = "mail"};
	invite(&t);
	assert_refused(403);
	t = (struct invite_text){.attributes = "a=walnut-port:23\r\n"};
	invite(&t);
	assert_refused(404);
	t = (struct invite_text){.no_body = true};
	invite(&t);
	assert_refused(488);
	t = (struct invite_text){.proto = "UDP", .port = 40000};
	invite(&t);
	assert_refused(488);
	assert_int_equal(opened.n, 0);
	assert_int_equal(counters.n[COUNT_refused_unknown_user], 1);
	assert_int_equal(counters.n[COUNT_refused_no_service], 2);
	assert_int_equal(counters.n[COUNT_refused_forbidden], 1);
	assert_int_equal(counters.n[COUNT_refused_wrong_port], 1);
	assert_int_equal(counters.n[COUNT_refused_no_media], 2);
}

static void test_bad_front(void **state)
{
	static const char *const keys[] = {"", "AQEB", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ=", KEY_TEXT "A", "****"};
	static const char *const sources[] = {"", "198.18.4.2", "nobody:1;qop=auth-int", ";qop=auth-int"};
	static const char *const identities[] = {"", "al%20ice", "alice@evil"};
	struct invite_text t;

	(void)state;
	for (unsigned i = 0; i < 5; i++) {
		t = (struct invite_text){.key = keys[i]};
		invite(&t);
		assert_refused(500);
		assert_int_equal(counters.n[COUNT_bad_key], i + 1);
	}
	for (unsigned i = 0; i < 4; i++) {
		t = (struct invite_text){.source = sources[i]};
		invite(&t);
		assert_refused(500);
		assert_int_equal(counters.n[COUNT_bad_source], i + 1);
	}
	for (unsigned i = 0; i < 3; i++) {
		t = (struct invite_text){.user = identities[i]};
		invite(&t);
		assert_refused(500);
		assert_int_equal(counters.n[COUNT_bad_identity], i + 1);
	}
	/* a second one could be the client's own */
	t = (struct invite_text){.extra = "P-Asserted-Identity: <sip:bob@example.org>\r\n"};
	invite(&t);
	assert_refused(500);
	t = (struct invite_text){.extra = "x-walnut-key: " KEY_TEXT2 "\r\n"};
	invite(&t);
	assert_refused(500);
	t = (struct invite_text){.extra = "X-Walnut-Source: 198.18.5.2:1;qop=auth-int\r\n"};
	invite(&t);
	assert_refused(500);
	/* another domain's */
	t = (struct invite_text){.user = "", .extra = "P-Asserted-Identity: <sip:alice@example.com>\r\n"};
	invite(&t);
	assert_refused(500);
	assert_int_equal(opened.n, 0);
}

/* With qop=auth the body may be anybody's: the hole is for the challenged source. */
static void test_moved_credentials(void **state)
{
	struct invite_text t = {.srflx = "198.18.5.2", .source = "198.18.4.2:40112;qop=auth"};
	char text[WN_ADDR_STR];

	(void)state;
	invite(&t);
	assert_int_equal(opened.n, 1);
	assert_string_equal(wn_ip_str(&opened.r[0].remote, text), "198.18.4.2");
	t.call_id = "c2";
	t.source = "198.18.4.2:40112"; /* unsaid is not more than auth */
	invite(&t);
	assert_string_equal(wn_ip_str(&opened.r[1].remote, text), "198.18.4.2");
	t.call_id = "c3";
	t.source = "198.18.4.2:40112;qop=auth-integral";
	invite(&t);
	assert_string_equal(wn_ip_str(&opened.r[2].remote, text), "198.18.4.2");
	t.call_id = "c4";
	t.source = "198.18.4.2:40112;qop=auth-int";
	invite(&t);
	assert_string_equal(wn_ip_str(&opened.r[3].remote, text), "198.18.5.2");
}

/* The same call from another address: the old hole is closed before the new one is asked for. */
static void test_replaced(void **state)
{
	struct invite_text t = {0};

	(void)state;
	establish(&t, 77);
	t.srflx = "198.18.9.9";
	t.cseq = 5;
	invite(&t);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 77);
	assert_int_equal(opened.n, 2);
	grant(1, 78);
	assert_status(last(), 200);
	assert_int_equal(calls_live(calls), 1);
}

static void test_udp(void **state)
{
	struct invite_text t = {.service = "dns", .proto = "UDP", .port = 40000, .attributes = "a=walnut-tag:siphash24\r\n"};
	uint8_t session[SESSION_KEY_BYTES], key[FLOW_KEY_BYTES];

	(void)state;
	memset(session, 1, sizeof(session));
	assert_int_equal(flow_key_derive(session, 0, FLOW_TO_SERVICE, key), 0);
	invite(&t);
	assert_int_equal(opened.r[0].flags, GATE_FLAG_TAG);
	assert_memory_equal(opened.r[0].key, key, sizeof(key));
	grant(0, 77);
	assert_non_null(strstr(last(), "a=walnut-tag:siphash24\r\n"));
	assert_non_null(strstr(last(), "m=application 31337 UDP"));

	t.cseq = 3;
	invite(&t); /* the same key: the same hole */
	assert_int_equal(opened.n, 1);
	t.key = KEY_TEXT2;
	t.cseq = 4;
	invite(&t); /* other credentials: the client tags with another key now */
	assert_int_equal(closed.n, 1);
	assert_int_equal(opened.n, 2);
	assert_memory_not_equal(opened.r[1].key, key, sizeof(key));

	t = (struct invite_text){.call_id = "c2", .service = "dns", .proto = "UDP", .port = 40000, .srflx = "198.18.5.2"};
	invite(&t);
	assert_int_equal(opened.r[2].flags, 0);
	assert_int_equal(opened.r[2].remote.port, 40000);
	assert_true(sodium_is_zero(opened.r[2].key, 16));
}

static void test_user_deleted(void **state)
{
	struct invite_text t = {0}, t2 = {.call_id = "c2"}, t3 = {.call_id = "c3", .user = "bob"};

	(void)state;
	establish(&t, 77);
	invite(&t3);
	grant(1, 79);
	invite(&t2);
	assert_int_equal(opened.n, 3);
	alice_deleted = true;
	assert_int_equal(calls_close_user(calls, now, "alice", CALLS_USER_DELETED), 2);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 77);
	assert_int_equal(calls_live(calls), 1); /* bob's */
	grant(2, 78);
	assert_int_equal(closed.n, 2);
	assert_int_equal(closed.hole[1], 78);
	invite(&t);
	assert_refused(403);
}

static void test_cancel(void **state)
{
	struct invite_text t = {0};
	char cancel[1024];
	size_t n;

	(void)state;
	invite(&t);
	n = (size_t)snprintf(cancel, sizeof(cancel),
			     "CANCEL sip:ssh@example.org SIP/2.0\r\nVia: SIP/2.0/TLS 198.18.1.2;branch=z9hG4bKother\r\n"
			     "From: \"A\" <sip:alice@example.org>;tag=ft\r\nTo: <sip:ssh@example.org>\r\nCall-ID: c1\r\nCSeq: 2 CANCEL\r\n"
			     "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
	request_text(cancel, n, 0);
	assert_refused(481);
	n = (size_t)snprintf(cancel, sizeof(cancel),
			     "CANCEL sip:ssh@example.org SIP/2.0\r\nVia: SIP/2.0/TLS 198.18.1.2;branch=z9hG4bKfront1\r\n"
			     "From: \"A\" <sip:alice@example.org>;tag=ft\r\nTo: <sip:ssh@example.org>\r\nCall-ID: c1\r\nCSeq: 2 CANCEL\r\n"
			     "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
	request_text(cancel, n, 0);
	assert_status(sent.text[sent.n - 2], 200);
	assert_refused(487);
	grant(0, 77);
	assert_int_equal(closed.n, 1);
	assert_int_equal(calls_live(calls), 0);
}

/* A restarted agent knows a call again by the cookie of its hole. */
static void test_restart_bye(void **state)
{
	struct invite_text t = {0};
	struct gate_reply r;
	char tag[64];

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	restart();
	in_dialog("BYE", tag, 3);
	assert_refused(481); /* not before the gate has said what there is */
	r = listed(0, 77);
	list(&r, 1);
	assert_int_equal(closed.n, 0);
	assert_int_equal(calls_live(calls), 1);
	assert_int_equal(counters.n[COUNT_adopted], 1);

	in_dialog("BYE", "0123456789abcdef", 3);
	assert_refused(481);
	assert_int_equal(closed.n, 0);
	in_dialog("BYE", tag, 3);
	assert_status(last(), 200);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 77);
}

static void test_restart_update_and_invite(void **state)
{
	struct invite_text t = {0};
	struct gate_reply r, ok = {.op = GATE_RENEW, .status = GATE_OK};
	char tag[64];

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	restart();
	r = listed(0, 77);
	list(&r, 1);
	in_dialog("UPDATE", tag, 3);
	assert_int_equal(renewed.n, 1);
	assert_int_equal(renewed.hole, 77);
	calls_renewed(calls, now, renewed.cookie, &ok);
	assert_status(last(), 200);
	/* the same call signed in again: the same hole */
	t.cseq = 4;
	invite(&t);
	assert_int_equal(opened.n, 1);
	assert_status(last(), 200);
	assert_string_equal(tag_of(last()), tag);
	assert_non_null(strstr(last(), "m=application 31337 TCP"));
	in_dialog("ACK", tag, 4);
	/* what the gate says is left, not more */
	restart();
	list(&r, 1);
	pass(899999);
	assert_int_equal(closed.n, 0);
	pass(1);
	assert_int_equal(closed.n, 1);
}

static void test_restart_meanwhile_deleted(void **state)
{
	struct invite_text t = {0};
	struct gate_reply r;

	(void)state;
	establish(&t, 77);
	restart();
	alice_deleted = true;
	r = listed(0, 77);
	list(&r, 1);
	assert_int_equal(closed.n, 1);
	assert_int_equal(calls_live(calls), 0);
}

static void test_list(void **state)
{
	struct invite_text a = {0}, b = {.call_id = "c2"};
	struct gate_reply r[2];
	unsigned n;

	(void)state;
	establish(&a, 77);
	invite(&b);
	grant(1, 78);
	in_dialog("ACK", tag_of(last()), 2);
	/* the gate's daemon was restarted and knows both */
	r[0] = listed(0, 77);
	r[1] = listed(1, 78);
	list(r, 2);
	assert_int_equal(calls_live(calls), 2);
	assert_int_equal(closed.n, 0);
	assert_int_equal(counters.n[COUNT_adopted], 0);
	/* another hole of a call that has one; the other call's is gone */
	r[1] = listed(0, 99);
	n = sent.n;
	list(r, 2);
	assert_int_equal(closed.n, 1);
	assert_int_equal(closed.hole[0], 99);
	assert_int_equal(calls_live(calls), 1);
	assert_int_equal(strncmp(sent.text[n], "BYE ", 4), 0);
	assert_non_null(strstr(sent.text[n], "Call-ID: c2"));
	assert_int_equal(counters.n[COUNT_ended_hole_gone], 1);
}

static void test_no_longer_allowed(void **state)
{
	struct invite_text t = {0};
	char tag[64];

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	services[0].users = carol_only;
	services[0].nusers = 1;
	in_dialog("UPDATE", tag, 3);
	services[0].users = NULL;
	services[0].nusers = 0;
	assert_int_equal(renewed.n, 0);
	assert_int_equal(closed.n, 1);
	assert_status(sent.text[sent.n - 2], 403);
}

static void test_bounds(void **state)
{
	struct invite_text t = {0};
	char name[300], id[32];

	(void)state;
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	t.call_id = name;
	invite(&t);
	assert_refused(400);
	t.call_id = NULL;
	t.from_tag = name;
	invite(&t);
	assert_refused(400);
	assert_int_equal(opened.n, 0);
	assert_int_equal(counters.n[COUNT_bad_dialog], 2);

	for (unsigned i = 0; i < config.max_calls + 1; i++) {
		snprintf(id, sizeof(id), "n%u", i);
		t = (struct invite_text){.call_id = id};
		invite(&t);
	}
	assert_int_equal(opened.n, config.max_calls);
	assert_status(last(), 503);
	assert_int_equal(counters.n[COUNT_refused_calls_full], 1);
}

static void test_other_methods(void **state)
{
	static const char *const methods[] = {"OPTIONS", "INFO", "MESSAGE", "SUBSCRIBE", "FROBNICATE"};
	struct invite_text t = {0};
	char tag[64];
	unsigned n;

	(void)state;
	snprintf(tag, sizeof(tag), "%s", establish(&t, 77));
	for (unsigned i = 0; i < 5; i++) {
		in_dialog(methods[i], tag, 3);
		assert_status(last(), 405);
		assert_non_null(strstr(last(), "\r\nAllow: INVITE, ACK, BYE, CANCEL, UPDATE\r\n"));
	}
	in_dialog("UPDATE", "nope", 3);
	assert_refused(481);
	n = sent.n;
	in_dialog("ACK", "nope", 3);
	assert_int_equal(sent.n, n);
	assert_int_equal(calls_live(calls), 1);
}

/* A front that is broken or hostile: whatever parses is answered or ignored, never more. */
static void test_mangled(void **state)
{
	struct invite_text t = {.extra = "Session-Expires: 600;refresher=uac\r\nSupported: timer\r\n"};
	char text[4096], mangled[4096];
	size_t n = write_invite(&t, text, sizeof(text));
	struct sip_msg m;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		unsigned changes = 1 + randombytes_uniform(4);

		memcpy(mangled, text, n);
		for (unsigned k = 0; k < changes; k++) {
			size_t at = randombytes_uniform((uint32_t)n);

			if (randombytes_uniform(2) == 0)
				mangled[at] = (char)randombytes_uniform(256);
			else
				mangled[at] = text[randombytes_uniform((uint32_t)n)];
		}
		if (sip_parse(span_of(mangled, n), true, &m) == SIP_OK) {
			if (m.request)
				calls_request(calls, now, 0, &front_addr, &m);
			else
				calls_response(calls, now, &m);
			if (opened.n > 0)
				grant(opened.n - 1, 1000 + i);
		}
		sent.n = closed.n = opened.n = 0;
		pass(50);
		sent.n = closed.n = opened.n = 0;
	}
	pass(10000000);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_call),
		TEST(test_duplicate_invite),
		TEST(test_no_ack),
		TEST(test_bye_of_ours),
		TEST(test_bye_given_up),
		TEST(test_expiry_and_update),
		TEST(test_refresh_by_reinvite),
		TEST(test_lifetime_asked),
		TEST(test_gate_trouble),
		TEST(test_generations),
		TEST(test_policy),
		TEST(test_bad_front),
		TEST(test_moved_credentials),
		TEST(test_replaced),
		TEST(test_udp),
		TEST(test_user_deleted),
		TEST(test_cancel),
		TEST(test_restart_bye),
		TEST(test_restart_update_and_invite),
		TEST(test_restart_meanwhile_deleted),
		TEST(test_list),
		TEST(test_no_longer_allowed),
		TEST(test_bounds),
		TEST(test_other_methods),
		TEST(test_mangled),
	};

	wn_log_init("test", WN_LOG_ERR);
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("calls", tests, NULL, NULL);
}
