/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/b64.h"
#include "ticket/session_key.h"
#include "world.h"

/* Who is let through, and that nobody is let through twice. */

static struct world w;
static char sent[8192];

static void test_forwarded(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct sip_msg m;

	(void)state;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	assert_memory_equal(w.net, "SIP/2.0 100 Trying\r\n", 20);
	assert_true(wn_addr_eq(&w.a.to.addr, &src));
	assert_int_equal(w.a.tenant, 0);
	assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
	assert_int_equal(m.consumed, w.a.agent_n);
	assert_int_equal(m.method, SIP_INVITE);
	assert_int_equal(m.max_forwards, 69);
	assert_true(span_eq(m.via.transport, SPAN_LIT("TLS")));
	assert_int_equal(front_branch_worker(m.via.branch), 3);
	assert_true(span_eq(header_of(world_agent(&w), "P-Asserted-Identity"), SPAN_LIT("<sip:alice@example.org>")));
	assert_true(span_eq(header_of(world_agent(&w), "X-Walnut-Source"), SPAN_LIT("198.18.4.2:40112;qop=auth-int")));
	assert_true(holds(world_agent(&w), ";received=198.18.4.2"));
	assert_true(holds(world_agent(&w), "@198.18.1.2:5060;lr>"));
	assert_null(header_of(world_agent(&w), "Proxy-Authorization").p);
	assert_true(holds(m.body, "a=walnut-port:22"));
	assert_int_equal(front_core_calls(w.core), 1);
}

/* The session key is what the client derives. */
static void test_session_key(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;
	uint8_t ha1[32], key[SESSION_KEY_BYTES];
	char want[B64URL_LEN(SESSION_KEY_BYTES)];

	(void)state;
	size_t n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	assert_int_equal(digest_parse(header_of(span_of(sent, n), "Proxy-Authorization"), &p), 0);
	assert_int_equal(digest_ha1(w.digest, DIGEST_SHA256, SPAN_LIT("alice"), p.realm, SPAN_LIT(ALICE_SECRET), ha1), 0);
	assert_int_equal(session_key_derive(ha1, 32, p.nonce, p.cnonce, SPAN_LIT("call-1@198.18.104.2"), SPAN_LIT("ssh"), key), 0);
	b64url_encode(key, sizeof(key), want);
	assert_true(span_eq(header_of(world_agent(&w), "X-Walnut-Key"), span_of(want, sizeof(want))));
}

/* One captured INVITE, sent again in every way. */
static void test_replays(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112"), port = addr_of("198.18.4.2:40113"), other = addr_of("198.18.4.3:40112");
	struct call c = {0};
	struct digest_params p;
	size_t n = 0;

	(void)state;
	n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	/* another port: a replay, and no answer */
	world_send(&w, sent, n, &port);
	assert_int_equal(w.a.outcome, FRONT_replay);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	/* one byte of the body */
	sent[n - 3] ^= 1;
	world_send(&w, sent, n, &src);
	assert_int_equal(w.a.outcome, FRONT_replay);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	sent[n - 3] ^= 1;
	/* another branch, same port */
	char *branch = memmem(sent, n, "z9hG4bKabc1", 11);
	branch[10] = '2';
	world_send(&w, sent, n, &src);
	assert_int_equal(w.a.outcome, FRONT_replay);
	assert_int_equal(w.a.net_n + w.a.agent_n, 0);
	branch[10] = '1';
	/* another address: stale, nothing forwarded */
	world_send(&w, sent, n, &other);
	assert_int_equal(w.a.outcome, FRONT_nonce_foreign);
	assert_int_equal(w.a.agent_n, 0);
	world_challenge(&w, &p);
	assert_true(p.stale);
	assert_int_equal(counted(&w, FRONT_replay), 3);
	assert_int_equal(counted(&w, FRONT_forwarded), 1);
}

/* Another front has another key. */
static void test_other_front(void **state)
{
	static struct world other;
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;
	size_t n;

	(void)state;
	world_new(&other, NULL);
	n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	world_send(&other, sent, n, &src);
	assert_int_equal(other.a.outcome, FRONT_nonce_foreign);
	assert_int_equal(other.a.agent_n, 0);
	world_challenge(&other, &p);
	assert_true(p.stale);
	world_free(&other);
}

static void test_retransmission(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	char answer[FRONT_OUT_MAX];
	size_t n, answer_n;
	unsigned got = 0;

	(void)state;
	n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	answer_n = w.a.net_n;
	memcpy(answer, w.net, answer_n);
	/* too soon */
	w.now_ms += 99;
	world_send(&w, sent, n, &src);
	assert_int_equal(w.a.outcome, FRONT_retransmission);
	assert_int_equal(w.a.net_n, 0);
	for (unsigned i = 0; i < 20; i++) {
		w.now_ms += 100;
		world_send(&w, sent, n, &src);
		assert_int_equal(w.a.outcome, FRONT_retransmission);
		assert_int_equal(w.a.agent_n, 0);
		if (w.a.net_n > 0) {
			assert_int_equal(w.a.net_n, answer_n);
			assert_memory_equal(w.net, answer, answer_n);
			assert_true(wn_addr_eq(&w.a.to.addr, &src));
			got++;
		}
	}
	assert_int_equal(got, 7);
	assert_int_equal(counted(&w, FRONT_forwarded), 1);
}

/* What is repeated is never larger than what asked for it. */
static void test_retransmission_is_no_amplifier(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	char answer[8192], big[2048];
	struct sip_msg m;
	size_t n, len;

	(void)state;
	n = world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	len = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	assert_int_equal(sip_parse(span_of(answer, len), true, &m), SIP_OK);
	/* an answer with a large header */
	memset(big, 'x', sizeof(big));
	memcpy(big, "X: ", 3);
	size_t head = (size_t)(m.hdr[0].name.p - answer);
	memmove(answer + head + 1100, answer + head, len - head);
	memcpy(answer + head, big, 1098);
	memcpy(answer + head + 1098, "\r\n", 2);
	world_from_agent(&w, answer, len + 1100);
	assert_int_equal(w.a.outcome, FRONT_relayed_response);
	assert_true(w.a.net_n > n);
	w.now_ms += 1000;
	world_send(&w, sent, n, &src);
	assert_int_equal(w.a.outcome, FRONT_retransmission);
	assert_int_equal(w.a.net_n, 0);
}

/* Credentials moved to an INVITE with another body or another service: challenged, nothing forwarded, and the owner is still let in. */
static void test_auth_int_covers(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0}, moved;
	struct digest_params p;

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	moved = c;
	moved.body = "v=0\r\no=- 1 1 IN IP4 198.19.0.9\r\n";
	world_call(&w, &moved, &src);
	assert_int_equal(w.a.outcome, FRONT_digest);
	assert_int_equal(w.a.agent_n, 0);
	world_challenge(&w, &p);
	moved = c;
	moved.uri = "sip:dns@example.org";
	world_call(&w, &moved, &src);
	assert_int_equal(w.a.outcome, FRONT_uri_mismatch);
	assert_int_equal(w.a.agent_n, 0);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
}

static void test_forged_nonce(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;
	char nonce[NONCE_CHARS];

	(void)state;
	world_call(&w, &c, &src);
	world_challenge(&w, &p);
	for (unsigned i = 0; i < NONCE_CHARS; i++) {
		memcpy(nonce, p.nonce.p, sizeof(nonce));
		nonce[i] = nonce[i] == 'A' ? 'E' : 'A';
		struct call forged = c;
		char realm[64];
		assert_int_equal(span_cstr(p.realm, realm, sizeof(realm)), 0);
		call_authorize(&w, &forged, &alice, span_str(realm), span_of(nonce, sizeof(nonce)));
		world_call(&w, &forged, &src);
		assert_int_equal(w.a.agent_n, 0);
		assert_true(w.a.outcome == FRONT_nonce_foreign || w.a.outcome == FRONT_nonce_malformed);
		/* the challenge it got stands where the first one stood */
		world_challenge(&w, &p);
	}
	assert_int_equal(counted(&w, FRONT_forwarded), 0);
}

/* Unknown user and wrong secret: the same answer, but for the nonce. */
static void test_unknown_user_looks_like_wrong_secret(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	static const struct credentials_of who[2] = {{"carol", ALICE_SECRET, NULL, DIGEST_SHA256, NULL, NULL},
						     {"alice", BOB_SECRET, NULL, DIGEST_SHA256, NULL, NULL}};
	char answer[2][FRONT_OUT_MAX];
	size_t len[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct call c = {0};
		struct digest_params p;
		char *nonce;

		world_answer_challenge(&w, &c, &who[i], &src);
		world_call(&w, &c, &src);
		assert_int_equal(w.a.outcome, i == 0 ? FRONT_unknown_user : FRONT_digest);
		assert_int_equal(w.a.agent_n, 0);
		world_challenge(&w, &p);
		assert_false(p.stale);
		len[i] = w.a.net_n;
		memcpy(answer[i], w.net, len[i]);
		nonce = memmem(answer[i], len[i], "nonce=\"", 7);
		assert_non_null(nonce);
		memset(nonce + 7, '.', NONCE_CHARS);
	}
	assert_int_equal(len[0], len[1]);
	assert_memory_equal(answer[0], answer[1], len[0]);
}

/* Wrong digests on one nonce slow it down, but a correct one still counts. */
static void test_exhausted_nonce(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct credentials_of wrong = alice;
	struct call c = {0}, bad;
	struct digest_params p;
	char buf[8192];
	size_t n;

	(void)state;
	wrong.secret = BOB_SECRET;
	world_call(&w, &c, &src);
	world_challenge(&w, &p);
	bad = c;
	call_authorize(&w, &c, &alice, p.realm, p.nonce);
	call_authorize(&w, &bad, &wrong, p.realm, p.nonce);
	n = call_write(&c, buf, sizeof(buf));
	assert_true(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	for (unsigned i = 0; i < 3; i++) {
		world_call(&w, &bad, &src);
		assert_int_equal(w.a.outcome, FRONT_digest);
	}
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	world_call(&w, &bad, &src);
	assert_int_equal(w.a.outcome, FRONT_nonce_exhausted);
	assert_int_equal(w.a.agent_n, 0);
	world_send(&w, buf, n, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
}

static void test_first_class(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112"), other = addr_of("198.18.4.3:40112");
	struct call c = {0};
	char buf[8192];
	size_t n;

	(void)state;
	n = call_write(&c, buf, sizeof(buf));
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	world_answer_challenge(&w, &c, &alice, &src);
	n = call_write(&c, buf, sizeof(buf));
	assert_true(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
	assert_false(world_first_class(&w, span_of(buf, n), &other, w.now_ms, w.unix_s));
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms + 60000, w.unix_s));
	world_send(&w, buf, n, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	assert_false(world_first_class(&w, span_of(buf, n), &src, w.now_ms, w.unix_s));
}

static void test_expired_nonce(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	struct digest_params p;

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	w.now_ms += 31000;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_nonce_expired);
	world_challenge(&w, &p);
	assert_true(p.stale);
	assert_int_equal(w.a.agent_n, 0);
}

static void test_epochs(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0}, next = {.call_id = "call-2", .branch = "z9hG4bKabc9"};
	struct digest_params p;

	(void)state;
	/* a challenge of this epoch, answered in the next one */
	w.unix_s = (uint64_t)(WORLD_EPOCH + 1) * 86400 - 5;
	world_heartbeat(&w);
	w.now_ms += 1000;
	world_answer_challenge(&w, &c, &alice, &src);
	w.unix_s += 10;
	w.now_ms += 10000;
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_epoch);
	assert_int_equal(w.a.agent_n, 0);
	world_challenge(&w, &p);
	assert_true(p.stale);
	assert_true(span_eq(p.realm, SPAN_LIT("example.org/20782")));
	call_authorize(&w, &c, &alice, p.realm, p.nonce);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_forwarded);
	/* a clock that runs far ahead asks for the next epoch at most: the keys of others are not here */
	w.unix_s += 86400 * 9;
	w.now_ms += 1000;
	world_call(&w, &next, &src);
	world_challenge(&w, &p);
	assert_true(span_eq(p.realm, SPAN_LIT("example.org/20782")));
}

static void test_md5(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct credentials_of k = {"bob", BOB_SECRET, NULL, DIGEST_MD5, "auth", NULL};
	struct call c = {0};

	(void)state;
	world_answer_challenge(&w, &c, &k, &src);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_algorithm);
	assert_int_equal(w.a.agent_n, 0);
	w.policy[0].md5 = true;
	world_sign_in(&w, &c, &k, &src, sent, sizeof(sent));
	assert_true(span_eq(header_of(world_agent(&w), "X-Walnut-Source"), SPAN_LIT("198.18.4.2:40112;qop=auth")));
	assert_true(span_eq(header_of(world_agent(&w), "P-Asserted-Identity"), SPAN_LIT("<sip:bob@example.org>")));
	/* alice has no MD5 key */
	k.user = "alice";
	k.secret = ALICE_SECRET;
	c.auth[0] = 0;
	world_answer_challenge(&w, &c, &k, &src);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_unknown_user);
	assert_int_equal(w.a.agent_n, 0);
}

/* An agent's literal uri need not be the Request-URI with qop=auth (SIPp's is not). */
static void test_auth_takes_the_literal_uri(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct credentials_of k = alice;
	struct call c = {0};

	(void)state;
	k.qop = "auth";
	k.uri = "sip:198.18.1.2:5060";
	world_sign_in(&w, &c, &k, &src, sent, sizeof(sent));
}

static void refused(enum front_outcome want, const char *status)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	world_answer_challenge(&w, &c, &alice, &src);
	world_call(&w, &c, &src);
	assert_string_equal(front_outcome_name(w.a.outcome), front_outcome_name(want));
	assert_int_equal(w.a.agent_n, 0);
	assert_memory_equal(w.net, status, strlen(status));
	assert_true(strstr(status, "503") == NULL || header_of(world_net(&w), "Retry-After").n > 0);
}

static void test_no_agent(void **state)
{
	(void)state;
	atomic_store(&w.tenant[0].connected, false);
	refused(FRONT_no_agent, "SIP/2.0 503 ");
	atomic_store(&w.tenant[0].connected, true);
	front_core_set_room(w.core, false);
	refused(FRONT_no_agent, "SIP/2.0 503 ");
}

static void test_feed_stale(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	(void)state;
	w.unix_s += 61;
	w.now_ms += 61000;
	refused(FRONT_feed_stale, "SIP/2.0 503 ");
	world_heartbeat(&w);
	w.now_ms += 1000;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
}

static void test_user_budget(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	(void)state;
	w.policy[0].user_calls_per_s = 2;
	c.call_id = "a";
	c.branch = "z9hG4bKa";
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	c.call_id = "b";
	c.branch = "z9hG4bKb";
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	refused(FRONT_user_budget, "SIP/2.0 503 ");
	/* another user has their own */
	struct credentials_of bob = {"bob", BOB_SECRET, NULL, DIGEST_SHA256, NULL, NULL};
	c.call_id = "c";
	c.branch = "z9hG4bKc";
	world_sign_in(&w, &c, &bob, &src, sent, sizeof(sent));
	w.now_ms += 1000;
	c.call_id = "d";
	c.branch = "z9hG4bKd";
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
}

static void test_service_budget(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	(void)state;
	w.policy[0].service_calls_per_s = 1;
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	refused(FRONT_service_budget, "SIP/2.0 503 ");
	/* names that nobody offers share one budget, and it is not that of a real one */
	struct call other = {.uri = "sip:one@example.org", .call_id = "x"};
	world_sign_in(&w, &other, &alice, &src, sent, sizeof(sent));
	struct call another = {.uri = "sip:two@example.org", .call_id = "y"};
	world_answer_challenge(&w, &another, &alice, &src);
	world_call(&w, &another, &src);
	assert_int_equal(w.a.outcome, FRONT_service_budget);
}

static void test_call_limit(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	char id[32], branch[32];

	(void)state;
	for (unsigned i = 0; i < 8; i++) {
		struct call c = {.call_id = id, .branch = branch};

		snprintf(id, sizeof(id), "call%u", i);
		snprintf(branch, sizeof(branch), "z9hG4bKx%u", i);
		world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	}
	refused(FRONT_call_limit, "SIP/2.0 503 ");
	assert_int_equal(front_core_calls(w.core), 8);
	/* they end by themselves: 408, its repetitions, and then the place is free */
	unsigned timeouts = 0;
	for (unsigned s = 0; s < 70; s++) {
		w.now_ms += 1000;
		while (front_core_tick(w.core, w.now_ms, &w.a))
			if (w.a.outcome == FRONT_timed_out)
				timeouts++;
	}
	assert_int_equal(timeouts, 8);
	assert_int_equal(front_core_calls(w.core), 0);
	assert_int_equal(atomic_load(&w.tenant[0].calls), 0);
}

/* Which worker a caller comes to is chance: the limit is one for all of them. */
static void test_call_limit_of_all_workers(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct front_core *first = w.core, *second;
	char id[32];

	(void)state;
	assert_int_equal(front_core_new(&w.sh, 4, 0, &second), 0);
	for (unsigned i = 0; i < 8; i++) {
		struct call c = {.call_id = id};

		snprintf(id, sizeof(id), "call%u", i);
		w.core = i < 5 ? first : second;
		world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	}
	refused(FRONT_call_limit, "SIP/2.0 503 ");
	w.core = first;
	refused(FRONT_call_limit, "SIP/2.0 503 ");
	for (unsigned s = 0; s < 70; s++) {
		w.now_ms += 1000;
		while (front_core_tick(second, w.now_ms, &w.a))
			;
	}
	struct call c = {.call_id = "room"};
	world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
	assert_int_equal(front_core_calls(first), 6);
	assert_int_equal(front_core_calls(second), 0);
	front_core_free(second);
}

static void test_max_forwards(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {.max_forwards = -1};

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	world_call(&w, &c, &src);
	assert_int_equal(w.a.outcome, FRONT_too_many_hops);
	assert_memory_equal(w.net, "SIP/2.0 483 ", 12);
	assert_int_equal(w.a.agent_n, 0);
}

/* Nothing that only a front may say comes from a caller. */
static void test_smuggling(void **state)
{
	static const char *const attempt[] = {
		"P-Asserted-Identity: <sip:mallory@example.org>\r\n",
		"p-asserted-identity: <sip:mallory@example.org>\r\n",
		"P-ASSERTED-IDENTITY : <sip:mallory@example.org>\r\n",
		"P-Asserted-Identity\t:\r\n <sip:mallory@example.org>\r\n",
		"P-Asserted-Identity: <sip:mallory@example.org>\r\nP-Asserted-Identity: <sip:mallory@example.org>\r\n",
		"X-Walnut-Key: mallory\r\n",
		"x-walnut-key: mallory\r\nX-WALNUT-SOURCE: mallory;qop=auth-int\r\n",
		"X-Walnut-Source:\r\n\tmallory\r\n",
		"X-Walnut-Future: mallory\r\n",
		"Subject: a\r\n X-Walnut-Key: mallory\r\n",
		"Subject: a\r\n\tP-Asserted-Identity: <sip:mallory@example.org>\r\n",
		"s: a\r\n  P-Asserted-Identity: <sip:mallory@example.org>\r\nX-Walnut-Key : mallory\r\n",
	};
	struct wn_addr src = addr_of("198.18.4.2:40112");

	(void)state;
	for (unsigned i = 0; i < sizeof(attempt) / sizeof(attempt[0]); i++) {
		struct call c = {.extra = attempt[i]};
		char id[16], line[2][32];
		struct sip_msg m;
		unsigned identities = 0, keys = 0, sources = 0;

		snprintf(id, sizeof(id), "smuggle%u", i);
		c.call_id = id;
		w.now_ms += 40000; /* the place of the one before is free again */
		while (front_core_tick(w.core, w.now_ms, &w.a))
			;
		w.now_ms += 40000;
		while (front_core_tick(w.core, w.now_ms, &w.a))
			;
		world_sign_in(&w, &c, &alice, &src, sent, sizeof(sent));
		assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
		for (unsigned h = 0; h < m.nhdr; h++) {
			if (m.hdr[h].id == SIP_HDR_P_ASSERTED_IDENTITY) {
				identities++;
				assert_true(span_eq(m.hdr[h].value, SPAN_LIT("<sip:alice@example.org>")));
			}
			keys += span_caseeq(m.hdr[h].name, SPAN_LIT("X-Walnut-Key"));
			sources += span_caseeq(m.hdr[h].name, SPAN_LIT("X-Walnut-Source"));
		}
		assert_int_equal(identities, 1);
		assert_int_equal(keys, 1);
		assert_int_equal(sources, 1);
		assert_int_equal(header_of(world_agent(&w), "X-Walnut-Key").n, B64URL_LEN(SESSION_KEY_BYTES));
		assert_null(header_of(world_agent(&w), "X-Walnut-Future").p);
		/* and no fold survives that another parser could take for a header of its own */
		snprintf(line[0], sizeof(line[0]), "\n X-Walnut");
		snprintf(line[1], sizeof(line[1]), "\n\tP-Asserted");
		assert_false(holds(world_agent(&w), line[0]));
		assert_false(holds(world_agent(&w), line[1]));
	}
}

/* One nonce, many threads, one acceptance. */
struct racer {
	struct front_core *core;
	const char *p;
	size_t n;
	atomic_uint *start;
	enum front_outcome outcome;
	char net[FRONT_OUT_MAX], agent[FRONT_OUT_MAX];
};

static void *race(void *arg)
{
	struct racer *r = arg;
	struct front_action a = {.net = r->net, .agent = r->agent};
	struct wn_addr src = {0};

	wn_addr_parse(SPAN_LIT("198.18.4.2:40112"), -1, &src);
	atomic_fetch_sub(r->start, 1);
	while (atomic_load(r->start) > 0)
		;
	front_core_message(r->core, span_of(r->p, r->n), &(struct front_flow){src, 0}, w.now_ms, w.unix_s, &a);
	r->outcome = a.outcome;
	return NULL;
}

static void test_once_over_all_workers(void **state)
{
	enum { THREADS = 4, ROUNDS = 60 };
	struct wn_addr src = addr_of("198.18.4.2:40112");
	static struct racer r[THREADS];
	pthread_t th[THREADS];

	(void)state;
	for (unsigned i = 0; i < THREADS; i++)
		assert_int_equal(front_core_new(&w.sh, 10 + i, 1000, &r[i].core), 0);
	w.policy[0].max_calls = 1000;
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct call c = {0};
		atomic_uint start = THREADS;
		unsigned forwarded = 0;
		char buf[8192];
		size_t n;

		world_answer_challenge(&w, &c, &alice, &src);
		n = call_write(&c, buf, sizeof(buf));
		for (unsigned i = 0; i < THREADS; i++) {
			r[i].p = buf;
			r[i].n = n;
			r[i].start = &start;
			assert_int_equal(pthread_create(&th[i], NULL, race, &r[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++) {
			pthread_join(th[i], NULL);
			forwarded += r[i].outcome == FRONT_forwarded;
			assert_true(r[i].outcome == FRONT_forwarded || r[i].outcome == FRONT_replay);
		}
		assert_int_equal(forwarded, 1);
	}
	for (unsigned i = 0; i < THREADS; i++)
		front_core_free(r[i].core);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WORLD_TEST(test_forwarded),
		WORLD_TEST(test_session_key),
		WORLD_TEST(test_replays),
		WORLD_TEST(test_other_front),
		WORLD_TEST(test_retransmission),
		WORLD_TEST(test_retransmission_is_no_amplifier),
		WORLD_TEST(test_auth_int_covers),
		WORLD_TEST(test_forged_nonce),
		WORLD_TEST(test_unknown_user_looks_like_wrong_secret),
		WORLD_TEST(test_exhausted_nonce),
		WORLD_TEST(test_first_class),
		WORLD_TEST(test_expired_nonce),
		WORLD_TEST(test_epochs),
		WORLD_TEST(test_md5),
		WORLD_TEST(test_auth_takes_the_literal_uri),
		WORLD_TEST(test_no_agent),
		WORLD_TEST(test_feed_stale),
		WORLD_TEST(test_user_budget),
		WORLD_TEST(test_service_budget),
		WORLD_TEST(test_call_limit),
		WORLD_TEST(test_call_limit_of_all_workers),
		WORLD_TEST(test_max_forwards),
		WORLD_TEST(test_smuggling),
		WORLD_TEST(test_once_over_all_workers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
