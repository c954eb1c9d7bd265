/* SPDX-License-Identifier: Apache-2.0 */
/* The client's sign-in and dialog against the front's own decisions, under one fake clock: no socket between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/b64.h"
#include "client/signin.h"
#include "front/core.h"
#include "sip/build.h"

#define SECRET   "uJ3kq7tXvY0Zb1Nn2Mm4Pp5Rr6Ss8Tt9Uu-Vv_Ww0Xx"
#define UNIX_S   UINT64_C(1795000000)
#define EPOCH    (UNIX_S / 86400)
#define START    UINT64_C(100000)
#define WIRE_MAX 16384

static struct digest_ctx *digest;
static struct front_shared shared;
static struct front_tenant tenant;
static struct front_policy policy;
static struct front_agent agent;
static struct front_core *core;
static struct wn_addr front_at, client_at;
static char net[WIRE_MAX], to_agent[WIRE_MAX], answer[WIRE_MAX];
static struct front_action act;
static struct signin *s;
static uint8_t sk[UPDATE_SIGN_SECRET], pk[UPDATE_SIGN_PUBLIC];

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

/* The feed: one user, keys for this epoch and the next. */
static void publish(const char *user, const char *secret)
{
	static uint8_t msg[UPDATE_BYTES_MAX];
	struct update_msg head = {.type = UPDATE_SNAPSHOT,
				  .domain = SPAN_LIT("example.org"),
				  .at = {.seq = 1},
				  .unix_ms = UNIX_S * 1000,
				  .epoch = EPOCH,
				  .epoch_s = 86400,
				  .chunks = 1};
	struct update_buf b;
	uint8_t hash[UPDATE_HEAD_BYTES];
	long n;

	head.at.hash[0] = 1;
	update_begin(&b, msg, sizeof(msg), &head);
	for (uint32_t e = EPOCH; e <= EPOCH + 1; e++) {
		uint8_t ha1[DIGEST_HASH_MAX];
		char realm[64];
		struct user_op op = {.kind = USER_SET, .name = span_str(user), .flags = USER_HAS_SHA256, .epoch = e, .sha256 = ha1};

		snprintf(realm, sizeof(realm), "example.org/%u", e);
		assert_int_equal(digest_ha1(digest, DIGEST_SHA256, span_str(user), span_str(realm), span_str(secret), ha1), 0);
		assert_int_equal(update_add(&b, &op), 0);
	}
	n = update_end(&b, sk, hash);
	assert_true(n > 0);
	assert_int_equal(user_table_apply(tenant.users, SPAN_LIT("example.org"), pk, span_of(msg, (size_t)n)), TABLE_OK);
}

static int begin(void **state)
{
	(void)state;
	front_at = addr("192.0.2.1:5060");
	client_at = addr("198.51.100.7:51234");
	memset(&shared, 0, sizeof(shared));
	memset(&tenant, 0, sizeof(tenant));
	strcpy(tenant.domain, "example.org");
	policy = (struct front_policy){.sha256 = true, .agent = true, .max_calls = 16, .user_calls_per_s = 100, .service_calls_per_s = 100};
	atomic_store(&tenant.policy, &policy);
	shared.tenant = &tenant;
	shared.ntenants = 1;
	shared.feed_max_age_s = 60;
	if (nonce_window_new(16, 30000, NULL, &shared.nonces) < 0 || front_shared_init(&shared, &front_at) < 0)
		return -1;
	if (front_core_new(&shared, 0, 16, &core) < 0)
		return -1;
	memset(&agent, 0, sizeof(agent));
	memset(agent.route_key, 9, sizeof(agent.route_key));
	agent.agent = 77;
	agent.nservices = 1;
	strcpy(agent.service[0], "ssh");
	atomic_store(&tenant.agent, &agent);
	tenant.connected = true;
	publish("alice", SECRET);
	return 0;
}

static int end(void **state)
{
	(void)state;
	signin_free(s);
	s = NULL;
	front_core_free(core);
	front_shared_fini(&shared);
	nonce_window_free(shared.nonces);
	return 0;
}

static void start(const char *secret, const struct signin_nonce *first)
{
	struct signin_config cfg = {.user = "alice",
				    .domain = "example.org",
				    .secret = secret,
				    .service = "ssh",
				    .nfronts = 1,
				    .epoch_s = 86400,
				    .proto = SDP_TCP,
				    .unix_s = UNIX_S,
				    .digest = digest};

	cfg.fronts[0] = front_at;
	cfg.local = addr("10.0.0.2:40000");
	if (first != NULL)
		cfg.first = *first;
	randombytes_buf(cfg.seed, sizeof(cfg.seed));
	signin_free(s);
	assert_int_equal(signin_new(&cfg, START, &s), 0);
}

static void to_front(struct span bytes, uint64_t t)
{
	act = (struct front_action){.net = net, .agent = to_agent};
	front_core_message(core, bytes, &(struct front_flow){client_at, 0}, START + t, UNIX_S + t / 1000, &act);
	assert_true(act.net_n == 0 || wn_addr_eq(&act.to.addr, &client_at));
}

/* Sends what is due and hands back what the front says at once. \return how many datagrams went out. */
static unsigned exchange(uint64_t t)
{
	struct span bytes;
	unsigned front, n = 0;
	size_t last_agent = 0;

	while (signin_next(s, START + t, &front, &bytes)) {
		to_front(bytes, t);
		n++;
		if (act.agent_n > 0)
			last_agent = act.agent_n;
		if (act.net_n > 0) {
			/* Never more than was received, until somebody has proved who he is. */
			assert_true(act.agent_n > 0 || act.net_n <= bytes.n);
			signin_input(s, &front_at, span_of(net, act.net_n), START + t);
		}
	}
	act.agent_n = last_agent;
	return n;
}

/* The agent's 200 to what the front has passed on; Record-Route copied, as RFC 3261 12.1.1 says. */
static void agent_accepts(uint64_t t)
{
	struct sdp sdp = {.proto = SDP_TCP, .conn = addr("203.0.113.5:34567"), .answer = true};
	char body[512];
	struct sip_buf b, sb;
	struct sip_msg m;

	assert_int_equal(sip_parse(span_of(to_agent, act.agent_n), true, &m), SIP_OK);
	sip_buf_init(&sb, body, sizeof(body));
	sdp_build(&sb, &sdp, 1);
	sip_buf_init(&b, answer, sizeof(answer));
	sip_put_response(&b, &m, 200, "OK", SPAN_LIT("agenttag"), &front_at);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_RECORD_ROUTE); h != NULL; h = sip_hdr_next(&m, h)) {
		sip_puts(&b, "Record-Route: ");
		sip_put(&b, h->value);
		sip_puts(&b, "\r\n");
	}
	sip_puts(&b, "Contact: <sip:agent@example.org>\r\nSession-Expires: 1800;refresher=uac\r\n");
	sip_put_end(&b, SDP_TYPE, sip_buf_span(&sb));
	act = (struct front_action){.net = net, .agent = to_agent};
	front_core_from_agent(core, 0, sip_buf_span(&b), START + t, UNIX_S + t / 1000, &act);
	assert_true(act.net_n > 0);
	assert_true(wn_addr_eq(&act.to.addr, &client_at));
	signin_input(s, &front_at, span_of(net, act.net_n), START + t);
}

static void accepted(uint64_t t)
{
	agent_accepts(t);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

static void dialog_says(struct dialog *d, enum sip_method method, uint64_t t)
{
	struct span bytes;
	struct sip_msg m;
	unsigned front;

	assert_true(dialog_next(d, START + t, &front, &bytes));
	to_front(bytes, t);
	assert_int_equal(act.outcome, FRONT_forwarded_in_dialog);
	assert_int_equal(sip_parse(span_of(to_agent, act.agent_n), true, &m), SIP_OK);
	assert_int_equal(m.method, method);
	assert_true(span_eq(m.to_tag, SPAN_LIT("agenttag")));
}

static void signs_in_and_out(void **state)
{
	const struct sip_hdr *h;
	struct sip_msg m;
	struct dialog d;
	struct span bytes;
	unsigned front;
	uint8_t key[SESSION_KEY_BYTES];

	(void)state;
	start(SECRET, NULL);
	assert_int_equal(exchange(0), 3); /* INVITE; after the challenge ACK and INVITE */
	assert_int_equal(front_core_count(core, FRONT_challenged), 1);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 1);
	assert_int_equal(sip_parse(span_of(to_agent, act.agent_n), true, &m), SIP_OK);
	h = sip_hdr_by_name(&m, SPAN_LIT("X-Walnut-Key"));
	assert_non_null(h);
	assert_int_equal(b64url_decode(h->value, key, sizeof(key)), sizeof(key));
	h = sip_hdr_by_name(&m, SPAN_LIT("X-Walnut-Source"));
	assert_non_null(h);
	assert_true(span_eq(h->value, SPAN_LIT("198.51.100.7:51234;qop=auth-int")));
	accepted(50);
	/* Both ends have the same key, and one of them was never told. */
	assert_memory_equal(signin_answer(s)->session_key, key, sizeof(key));
	assert_true(signin_answer(s)->next.nonce[0] != '\0');
	d = signin_answer(s)->dialog;
	assert_true(d.token[0] != '\0');
	dialog_says(&d, SIP_ACK, 50);
	assert_false(dialog_next(&d, START + 50, &front, &bytes));
	dialog_says(&d, SIP_UPDATE, 900050);
	dialog_bye(&d, START + 900060);
	dialog_says(&d, SIP_BYE, 900060);
}

static void next_nonce_is_taken(void **state)
{
	struct signin_nonce next;

	(void)state;
	start(SECRET, NULL);
	exchange(0);
	accepted(50);
	next = signin_answer(s)->next;
	start(SECRET, &next);
	assert_int_equal(exchange(100), 1);
	assert_int_equal(front_core_count(core, FRONT_challenged), 1);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 2);
	accepted(150);
	/* The same nonce again is a replay: silence, then a plain INVITE of ours gets through. */
	start(SECRET, &next);
	exchange(200);
	assert_int_equal(front_core_count(core, FRONT_replay), 1);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	exchange(700);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 3);
	accepted(750);
}

static void lost_answers(void **state)
{
	struct span bytes;
	unsigned front;
	char first[SIGNIN_MSG_MAX];
	size_t n;

	(void)state;
	start(SECRET, NULL);
	assert_true(signin_next(s, START, &front, &bytes));
	to_front(bytes, 0); /* the 407 is lost */
	assert_int_equal(act.outcome, FRONT_challenged);
	assert_true(signin_next(s, START + 500, &front, &bytes));
	to_front(bytes, 500);
	signin_input(s, &front_at, span_of(net, act.net_n), START + 500);
	assert_true(signin_next(s, START + 500, &front, &bytes)); /* ACK */
	to_front(bytes, 500);
	assert_int_equal(act.outcome, FRONT_ack_absorbed);
	assert_true(signin_next(s, START + 500, &front, &bytes));
	memcpy(first, bytes.p, bytes.n);
	n = bytes.n;
	to_front(bytes, 500); /* the 100 is lost */
	assert_int_equal(act.outcome, FRONT_forwarded);
	assert_true(signin_next(s, START + 1000, &front, &bytes));
	assert_int_equal(bytes.n, n);
	assert_memory_equal(bytes.p, first, n);
	to_front(bytes, 1000);
	/* The same bytes from the same place: the stored answer, no second call. */
	assert_int_equal(act.outcome, FRONT_retransmission);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 1);
	assert_int_equal(front_core_count(core, FRONT_replay), 0);
}

static void wrong_secret(void **state)
{
	(void)state;
	start("oJ3kq7tXvY0Zb1Nn2Mm4Pp5Rr6Ss8Tt9Uu-Vv_Ww0Xx", NULL);
	exchange(0);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	exchange(SIGNIN_DOUBT_MS);
	exchange(2 * SIGNIN_DOUBT_MS);
	assert_int_equal(signin_state(s), SIGNIN_FAILED);
	assert_int_equal(signin_failure(s)->error, SIGNIN_E_CREDENTIALS);
	assert_int_equal(front_core_count(core, FRONT_digest), SIGNIN_DOUBTS_MAX);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 0);
}

static void no_agent(void **state)
{
	(void)state;
	tenant.connected = false;
	start(SECRET, NULL);
	exchange(0);
	assert_int_equal(front_core_count(core, FRONT_no_agent), 1);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	/* Retry-After: 1. By then it is back. */
	tenant.connected = true;
	exchange(999);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 0);
	exchange(1000);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 1);
	accepted(1050);
}

/* The front was restarted in between: its nonce is foreign now, the token still good. */
static void restarted_front(void **state)
{
	struct signin_nonce next;
	struct dialog d;

	start(SECRET, NULL);
	exchange(0);
	accepted(50);
	next = signin_answer(s)->next;
	d = signin_answer(s)->dialog;
	end(state);
	begin(state);
	start(SECRET, &next);
	exchange(100);
	assert_int_equal(front_core_count(core, FRONT_nonce_foreign), 1);
	assert_int_equal(front_core_count(core, FRONT_forwarded), 1);
	accepted(150);
	dialog_says(&d, SIP_ACK, 200);
}

static int setup(void **state)
{
	(void)state;
	if (sodium_init() < 0 || digest_ctx_new(&digest) < 0)
		return -1;
	return crypto_sign_keypair(pk, sk);
}

static int teardown(void **state)
{
	(void)state;
	digest_ctx_free(digest);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(signs_in_and_out, begin, end),
		cmocka_unit_test_setup_teardown(next_nonce_is_taken, begin, end),
		cmocka_unit_test_setup_teardown(lost_answers, begin, end),
		cmocka_unit_test_setup_teardown(wrong_secret, begin, end),
		cmocka_unit_test_setup_teardown(no_agent, begin, end),
		cmocka_unit_test_setup_teardown(restarted_front, begin, end),
	};

	return cmocka_run_group_tests_name("client-meets-front", tests, setup, teardown);
}
