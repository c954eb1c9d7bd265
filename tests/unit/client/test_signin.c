/* SPDX-License-Identifier: Apache-2.0 */
/* Sign-ins played back under a fake clock: what the client says, when, to whom, and what it does not believe. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "client/nonces.h"
#include "client/signin.h"
#include "fake.h"

#define SECRET  "c2VjcmV0LW9mLXRoaXMtdGVzdC1vbmx5LTAwMDAwMDE"
#define UNIX_S  UINT64_C(1795000000)
#define EPOCH   (UNIX_S / 86400)
#define START   UINT64_C(1000000)
#define BUF_MAX 32

/* One datagram that the client wanted to send. */
struct sent {
	unsigned front;
	char bytes[SIGNIN_MSG_MAX];
	size_t n;
	struct sip_msg m;
};

static struct digest_ctx *digest;
static struct fake fake;
static struct signin *s;
static struct signin_config cfg;
static struct wn_addr seen; /* our address outside the NAT */
static struct sent sent[BUF_MAX];
static unsigned nsent;
static char realm[64];

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

static void begin_with(unsigned nfronts, enum sdp_proto proto)
{
	memset(&cfg, 0, sizeof(cfg));
	cfg.user = "alice";
	cfg.domain = "example.org";
	cfg.secret = SECRET;
	cfg.service = "ssh";
	cfg.fronts[0] = addr("192.0.2.1:5060");
	cfg.fronts[1] = addr("192.0.2.2:5060");
	cfg.fronts[2] = addr("192.0.2.3:5060");
	cfg.nfronts = nfronts;
	cfg.epoch_s = 86400;
	cfg.proto = proto;
	cfg.walnut_port = 22;
	cfg.local = addr("10.0.0.2:40000");
	cfg.unix_s = UNIX_S;
	cfg.digest = digest;
	memset(cfg.seed, 7, sizeof(cfg.seed));
	seen = addr("198.51.100.7:51234");
	snprintf(realm, sizeof(realm), "example.org/%llu", (unsigned long long)EPOCH);
	nsent = 0;
}

static void start(void)
{
	signin_free(s);
	assert_int_equal(signin_new(&cfg, START, &s), 0);
}

static void begin(unsigned nfronts)
{
	begin_with(nfronts, SDP_TCP);
	start();
}

/* Everything that is due at `t` ms after the start. \return how many datagrams. */
static unsigned at(uint64_t t)
{
	struct span bytes;

	nsent = 0;
	while (nsent < BUF_MAX && signin_next(s, START + t, &sent[nsent].front, &bytes)) {
		struct sent *x = &sent[nsent++];

		assert_true(bytes.n <= sizeof(x->bytes));
		memcpy(x->bytes, bytes.p, bytes.n);
		x->n = bytes.n;
		assert_int_equal(sip_parse(span_of(x->bytes, x->n), false, &x->m), SIP_OK);
	}
	return nsent;
}

static void deliver(unsigned front, struct span bytes, uint64_t t)
{
	signin_input(s, &cfg.fronts[front], bytes, START + t);
}

static struct span challenge(const struct sent *x, const char *nonce, bool stale)
{
	return fake_challenge(&fake, &x->m, &seen, realm, nonce, "SHA-256", stale);
}

static struct span accept_it(const struct sent *x, const char *tag)
{
	struct wn_addr hole = addr("203.0.113.5:34567");

	return fake_accept(&fake, &x->m, &seen, &hole, tag, "nextnextnext", 1800);
}

static bool has_credentials(const struct sent *x, const char *nonce)
{
	bool any;
	bool ok = fake_verify(&fake, &x->m, realm, nonce, &any);

	assert_int_equal(any, ok);
	return ok;
}

static enum signin_error failure(void)
{
	assert_int_equal(signin_state(s), SIGNIN_FAILED);
	assert_true(signin_failure(s)->why[0] != '\0');
	return signin_failure(s)->error;
}

/* The first INVITE, its challenge, and the INVITE with credentials; leaves the latter in sent[1]. */
static void up_to_credentials(void)
{
	assert_int_equal(at(0), 1);
	deliver(0, challenge(&sent[0], "nonce1", false), 50);
	assert_int_equal(at(50), 2);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_int_equal(sent[1].m.method, SIP_INVITE);
	assert_true(has_credentials(&sent[1], "nonce1"));
}

static void four_flights(void **state)
{
	struct sdp sdp;
	struct sent first;
	uint8_t key[32];
	const struct signin_answer *a;
	struct dialog d;
	struct span bytes;
	struct sip_msg ack;
	unsigned front;

	(void)state;
	begin(2);
	assert_int_equal(at(0), 1);
	first = sent[0];
	sip_parse(span_of(first.bytes, first.n), false, &first.m);
	assert_int_equal(first.front, 0);
	assert_true(first.n >= SIGNIN_REQUEST_MIN);
	assert_true(span_eq(first.m.uri, SPAN_LIT("sip:ssh@example.org")));
	assert_null(sip_hdr_first(&first.m, SIP_HDR_PROXY_AUTHORIZATION));
	assert_int_equal(sdp_parse(first.m.body, &sdp), 0);
	assert_int_equal(sdp.proto, SDP_TCP);
	assert_int_equal(sdp.walnut_port, 22);
	assert_int_equal(sdp.ncand, 1);
	/* The challenge is never longer than what asked for it, also with a second one behind it. */
	bytes = challenge(&first, "123456789012345678901234567", true);
	assert_true(bytes.n + 130 <= first.n);

	deliver(0, challenge(&first, "nonce1", false), 50);
	assert_int_equal(at(50), 2);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_true(span_eq(sent[0].m.via.branch, first.m.via.branch));
	assert_true(span_eq(sent[0].m.to_tag, SPAN_LIT("front")));
	assert_int_equal(sent[0].m.cseq, first.m.cseq);
	assert_true(has_credentials(&sent[1], "nonce1"));
	assert_true(sent[1].m.cseq > first.m.cseq);
	assert_false(span_eq(sent[1].m.via.branch, first.m.via.branch));
	assert_true(span_eq(sent[1].m.call_id, first.m.call_id));
	/* The candidates: ours, and the one that the front saw. */
	assert_int_equal(sdp_parse(sent[1].m.body, &sdp), 0);
	assert_int_equal(sdp.ncand, 2);
	assert_int_equal(sdp.cand[1].type, SDP_SRFLX);
	assert_true(wn_ip_eq(&sdp.cand[1].addr, &seen));

	deliver(0, fake_status(&fake, &sent[1].m, &seen, 100, ""), 60);
	assert_int_equal(at(60), 0);
	assert_int_equal(fake_session_key(&fake, &sent[1].m, key), 0);
	deliver(0, accept_it(&sent[1], "agenttag"), 100);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
	a = signin_answer(s);
	assert_memory_equal(a->session_key, key, sizeof(key));
	assert_int_equal(a->sdp.conn.port, 34567);
	assert_string_equal(a->next.nonce, "nextnextnext");
	assert_string_equal(a->next.realm, realm);
	assert_true(wn_addr_eq(&a->next.seen, &seen));
	assert_true(signin_settled(s));
	assert_int_equal(signin_deadline(s), UINT64_MAX);
	d = a->dialog;
	assert_true(dialog_next(&d, START + 100, &front, &bytes));
	assert_int_equal(front, 0);
	assert_int_equal(sip_parse(bytes, false, &ack), SIP_OK);
	assert_int_equal(ack.method, SIP_ACK);
	assert_int_equal(ack.cseq, sent[1].m.cseq);
	assert_true(span_eq(ack.uri, SPAN_LIT("sip:agent@example.org")));
	assert_true(span_eq(ack.to_tag, SPAN_LIT("agenttag")));
	assert_non_null(sip_hdr_first(&ack, SIP_HDR_ROUTE));
}

static void lost_packets_are_sent_again(void **state)
{
	struct sent first;

	(void)state;
	begin(1);
	assert_int_equal(at(0), 1);
	first = sent[0];
	/* 500 ms, doubling, the same bytes. */
	assert_int_equal(at(499), 0);
	assert_int_equal(signin_deadline(s), START + 500);
	assert_int_equal(at(500), 1);
	assert_int_equal(sent[0].n, first.n);
	assert_memory_equal(sent[0].bytes, first.bytes, first.n);
	assert_int_equal(at(1499), 0);
	assert_int_equal(at(1500), 1);
	assert_int_equal(at(3499), 0);
	assert_int_equal(at(3500), 1);
	/* A late challenge still counts. The INVITE with credentials starts its own series. */
	deliver(0, challenge(&sent[0], "n", false), 3600);
	assert_int_equal(at(3600), 2);
	first = sent[1];
	assert_int_equal(at(4099), 0);
	assert_int_equal(at(4100), 1);
	assert_memory_equal(sent[0].bytes, first.bytes, first.n);
	/* 100 stops it. */
	deliver(0, fake_status(&fake, &sent[0].m, &seen, 100, ""), 4150);
	assert_int_equal(at(5100), 0);
	assert_int_equal(at(5900), 0);
	deliver(0, accept_it(&sent[0], "t"), 5950);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

static void nobody_answers(void **state)
{
	unsigned heard[3] = {0};

	(void)state;
	begin_with(3, SDP_TCP);
	cfg.timeout_ms = 3000;
	start();
	for (uint64_t t = 0; t < 3000; t += 10) {
		at(t);
		for (unsigned i = 0; i < nsent; i++)
			heard[sent[i].front]++;
		assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	}
	assert_true(heard[0] >= 2 && heard[1] >= 2 && heard[2] >= 2);
	at(3000);
	assert_int_equal(failure(), SIGNIN_E_NO_ANSWER);
	assert_int_equal(at(3001), 0);
}

static void second_front_takes_over(void **state)
{
	struct sent b;

	(void)state;
	begin(2);
	assert_int_equal(at(0), 1);
	assert_int_equal(at(499), 0);
	assert_int_equal(at(500), 2); /* the first again, and the second */
	b = sent[0].front == 1 ? sent[0] : sent[1];
	sip_parse(span_of(b.bytes, b.n), false, &b.m);
	assert_int_equal(b.front, 1);
	deliver(1, challenge(&b, "nb", false), 550);
	assert_int_equal(at(550), 2);
	assert_int_equal(sent[1].front, 1);
	assert_true(has_credentials(&sent[1], "nb"));
	deliver(1, accept_it(&sent[1], "t"), 600);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
	assert_int_equal(signin_answer(s)->front, 1);
}

/* The first challenge wins; a second one is only kept, and used when the winner goes quiet. */
static void first_challenge_wins(void **state)
{
	struct sent a, b;
	unsigned creds = 0;

	(void)state;
	begin(2);
	assert_int_equal(at(0), 1);
	a = sent[0];
	sip_parse(span_of(a.bytes, a.n), false, &a.m);
	at(500);
	b = sent[0].front == 1 ? sent[0] : sent[1];
	sip_parse(span_of(b.bytes, b.n), false, &b.m);
	deliver(1, challenge(&b, "nb", false), 550);
	assert_int_equal(at(550), 2);
	deliver(0, challenge(&a, "na", false), 560);
	assert_int_equal(at(560), 1); /* an ACK, no credentials for the loser */
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_int_equal(sent[0].front, 0);
	for (uint64_t t = 570; t < 1550; t += 10) {
		at(t);
		for (unsigned i = 0; i < nsent; i++)
			assert_int_equal(sent[i].front, 1);
	}
	for (uint64_t t = 1550; t < 1600; t += 10) {
		at(t);
		for (unsigned i = 0; i < nsent; i++)
			creds += sent[i].front == 0 && has_credentials(&sent[i], "na");
	}
	assert_int_equal(creds, 1);
}

static void stuck_after_trying(void **state)
{
	unsigned other = 0;

	(void)state;
	begin(2);
	up_to_credentials();
	deliver(0, fake_status(&fake, &sent[1].m, &seen, 100, ""), 80);
	for (uint64_t t = 80; t < 2080; t += 20)
		assert_int_equal(at(t), 0);
	at(2080);
	for (unsigned i = 0; i < nsent; i++)
		other += sent[i].front == 1;
	assert_int_equal(other, 1);
}

static void stale_once_more(void **state)
{
	(void)state;
	begin(1);
	up_to_credentials();
	deliver(0, challenge(&sent[1], "nonce2", true), 100);
	assert_int_equal(at(100), 2);
	assert_true(has_credentials(&sent[1], "nonce2"));
	deliver(0, accept_it(&sent[1], "t"), 150);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

static void stale_without_end(void **state)
{
	(void)state;
	begin(1);
	up_to_credentials();
	/* Once at once; after that somebody else may be behind it, and the answer to these credentials is waited for. */
	deliver(0, challenge(&sent[1], "n1", true), 100);
	assert_int_equal(at(100), 2);
	assert_true(has_credentials(&sent[1], "n1"));
	deliver(0, challenge(&sent[1], "n2", true), 200);
	assert_int_equal(at(200), 1);
	assert_int_equal(at(199 + SIGNIN_DOUBT_MS), 0);
	assert_int_equal(at(200 + SIGNIN_DOUBT_MS), 1);
	assert_true(has_credentials(&sent[0], "n2"));
	deliver(0, challenge(&sent[0], "n3", true), 1300);
	assert_int_equal(at(1300), 1);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	assert_int_equal(at(1300 + SIGNIN_DOUBT_MS), 0);
	assert_int_equal(failure(), SIGNIN_E_CHALLENGE);
}

/* An altered copy with another nonce draws stale=true, as often as the client tries: its own answer counts all the same. */
static void overtaken_by_stale(void **state)
{
	struct sent mine;

	(void)state;
	begin(1);
	up_to_credentials();
	deliver(0, challenge(&sent[1], "n1", true), 100);
	assert_int_equal(at(100), 2);
	mine = sent[1];
	assert_int_equal(sip_parse(span_of(mine.bytes, mine.n), false, &mine.m), SIP_OK);
	deliver(0, challenge(&mine, "n2", true), 200);
	at(200);
	deliver(0, accept_it(&mine, "agent"), 250);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

/* Somebody used these credentials first, on an INVITE with the same body: the front takes ours for a replay, and says nothing. */
static void overtaken_in_silence(void **state)
{
	unsigned plain = 0;

	(void)state;
	begin(1);
	up_to_credentials();
	for (uint64_t t = 50; t < 50 + SIGNIN_QUIET_MS; t += 50) {
		at(t);
		for (unsigned i = 0; i < nsent; i++)
			assert_true(sent[i].m.method == SIP_ACK || has_credentials(&sent[i], "nonce1"));
	}
	at(50 + SIGNIN_QUIET_MS);
	for (unsigned i = 0; i < nsent; i++)
		plain += sip_hdr_first(&sent[i].m, SIP_HDR_PROXY_AUTHORIZATION) == NULL;
	assert_int_equal(plain, 1);
}

/* Two fronts, and a secret that is wrong: the first is asked twice, the second once. */
static void wrong_secret_everywhere(void **state)
{
	unsigned asked[2] = {0};
	uint64_t t;

	(void)state;
	begin(2);
	for (t = 0; t < SIGNIN_TIMEOUT_MS && signin_state(s) == SIGNIN_RUNNING; t += 10) {
		at(t);
		for (unsigned i = 0, n = nsent; i < n; i++) {
			if (sent[i].m.method != SIP_INVITE)
				continue;
			asked[sent[i].front] += sip_hdr_first(&sent[i].m, SIP_HDR_PROXY_AUTHORIZATION) != NULL;
			deliver(sent[i].front, challenge(&sent[i], "n", false), t);
		}
	}
	assert_int_equal(failure(), SIGNIN_E_CREDENTIALS);
	assert_int_equal(asked[0], 2);
	assert_int_equal(asked[1], 1);
	assert_true(t >= 3 * SIGNIN_DOUBT_MS && t < 3 * SIGNIN_DOUBT_MS + 100);
}

/* One that is given up: before the front says that it works on it there is nothing to cancel (RFC 3261 9.1). */
static void given_up(void **state)
{
	struct sent mine;

	(void)state;
	for (int early = 0; early <= 1; early++) {
		begin(1);
		up_to_credentials();
		mine = sent[1];
		assert_int_equal(sip_parse(span_of(mine.bytes, mine.n), false, &mine.m), SIP_OK);
		if (!early) {
			deliver(0, fake_status(&fake, &mine.m, &seen, 100, ""), 60);
			assert_int_equal(at(60), 0);
		}
		signin_give_up(s, START + 100);
		assert_int_equal(failure(), SIGNIN_E_GIVEN_UP);
		assert_false(signin_settled(s));
		if (early) {
			assert_int_equal(at(100), 0);
			assert_int_equal(at(600), 0); /* nor is the INVITE sent again */
			deliver(0, fake_status(&fake, &mine.m, &seen, 100, ""), 700);
			assert_int_equal(at(700), 1);
		} else {
			assert_int_equal(at(100), 1);
		}
		assert_int_equal(sent[0].m.method, SIP_CANCEL);
		assert_int_equal(sent[0].m.cseq, mine.m.cseq);
		assert_true(span_eq(sent[0].m.via.branch, mine.m.via.branch));
		assert_true(span_eq(sent[0].m.uri, mine.m.uri));
		assert_true(span_eq(sent[0].m.call_id, mine.m.call_id));
		assert_true(span_eq(sent[0].m.from_tag, mine.m.from_tag));
		assert_int_equal(sent[0].m.to_tag.n, 0);
		/* It may be lost. */
		assert_int_equal(at(early ? 1200 : 600), 1);
		assert_int_equal(sent[0].m.method, SIP_CANCEL);
		deliver(0, fake_status(&fake, &sent[0].m, &seen, 200, ""), 1250);
		assert_int_equal(at(5000), 0);
		assert_false(signin_settled(s));
		deliver(0, fake_status(&fake, &mine.m, &seen, 487, ""), 5010);
		assert_int_equal(at(5010), 1);
		assert_int_equal(sent[0].m.method, SIP_ACK);
		assert_true(signin_settled(s));
		assert_int_equal(signin_deadline(s), UINT64_MAX);
	}
}

/* The 200 was on its way already: acknowledged, then ended. */
static void given_up_too_late(void **state)
{
	struct sent mine;

	(void)state;
	begin_with(1, SDP_TCP);
	cfg.timeout_ms = 1000;
	start();
	up_to_credentials();
	mine = sent[1];
	assert_int_equal(sip_parse(span_of(mine.bytes, mine.n), false, &mine.m), SIP_OK);
	deliver(0, fake_status(&fake, &mine.m, &seen, 100, ""), 60);
	at(60);
	assert_int_equal(at(1000), 1);
	assert_int_equal(failure(), SIGNIN_E_NO_ANSWER);
	assert_int_equal(sent[0].m.method, SIP_CANCEL);
	deliver(0, accept_it(&mine, "agent"), 1050);
	assert_int_equal(at(1050), 2);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_int_equal(sent[1].m.method, SIP_BYE);
	assert_true(span_eq(sent[1].m.to_tag, SPAN_LIT("agent")));
	assert_false(signin_settled(s));
	deliver(0, fake_status(&fake, &sent[1].m, &seen, 200, ""), 1100);
	assert_int_equal(at(1100), 0);
	assert_true(signin_settled(s));
}

/* Nobody has credentials yet: nobody has to be told. */
static void given_up_before_credentials(void **state)
{
	(void)state;
	begin(1);
	assert_int_equal(at(0), 1);
	signin_give_up(s, START + 10);
	assert_true(signin_settled(s));
	deliver(0, challenge(&sent[0], "n", false), 20);
	assert_int_equal(at(20), 1);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_true(signin_settled(s));
}

static void wrong_secret(void **state)
{
	(void)state;
	begin(1);
	up_to_credentials();
	deliver(0, challenge(&sent[1], "nonce2", false), 100);
	assert_int_equal(at(100), 1); /* the ACK only: an answer to these credentials may still come */
	assert_int_equal(signin_deadline(s), START + 100 + SIGNIN_DOUBT_MS);
	assert_int_equal(at(100 + SIGNIN_DOUBT_MS), 1);
	assert_true(has_credentials(&sent[0], "nonce2"));
	deliver(0, challenge(&sent[0], "nonce3", false), 1200);
	assert_int_equal(at(1200), 1);
	assert_int_equal(at(1200 + SIGNIN_DOUBT_MS), 0);
	assert_int_equal(failure(), SIGNIN_E_CREDENTIALS);
	assert_null(strstr(signin_failure(s)->why, SECRET));
}

/* Somebody on the path is first with the same credentials on an altered INVITE: the challenge that draws comes before our own answer. */
static void overtaken(void **state)
{
	struct sent first;
	uint8_t key[32];

	(void)state;
	begin(1);
	up_to_credentials();
	first = sent[1];
	assert_int_equal(sip_parse(span_of(first.bytes, first.n), false, &first.m), SIP_OK);
	deliver(0, challenge(&first, "nonce2", false), 100);
	assert_int_equal(at(100), 1); /* its ACK */
	deliver(0, fake_status(&fake, &first.m, &seen, 100, ""), 150);
	deliver(0, challenge(&first, "nonce3", false), 160); /* and once more, when the front has ours already */
	at(160);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	deliver(0, accept_it(&first, "agent"), 200);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
	/* The key belongs to the challenge that was answered. */
	assert_int_equal(fake_session_key(&fake, &first.m, key), 0);
	assert_memory_equal(key, signin_answer(s)->session_key, sizeof(key));
}

/* A challenge that must not get an answer: no credentials leave, for nothing. */
static void refuse(const char *with_realm, const char *alg)
{
	begin(1);
	assert_int_equal(at(0), 1);
	deliver(0, fake_challenge(&fake, &sent[0].m, &seen, with_realm, "n", alg, false), 10);
	at(10);
	for (unsigned i = 0; i < nsent; i++)
		assert_null(sip_hdr_first(&sent[i].m, SIP_HDR_PROXY_AUTHORIZATION));
	assert_int_equal(failure(), SIGNIN_E_CHALLENGE);
}

static bool takes(const char *with_realm, uint32_t epoch_s)
{
	begin_with(1, SDP_TCP);
	cfg.epoch_s = epoch_s;
	start();
	assert_int_equal(at(0), 1);
	deliver(0, fake_challenge(&fake, &sent[0].m, &seen, with_realm, "n", "SHA-256", false), 10);
	return at(10) == 2 && sip_hdr_first(&sent[1].m, SIP_HDR_PROXY_AUTHORIZATION) != NULL;
}

static void epoch_realm(long off, char out[64])
{
	snprintf(out, 64, "example.org/%ld", (long)EPOCH + off);
}

static void other_realms(void **state)
{
	char r[64];

	(void)state;
	for (long off = -1; off <= 1; off++) {
		epoch_realm(off, r);
		assert_true(takes(r, 86400));
	}
	epoch_realm(2, r);
	refuse(r, "SHA-256");
	epoch_realm(-2, r);
	refuse(r, "SHA-256");
	refuse("example.org/0", "SHA-256");
	assert_true(takes("example.org/0", 0));
	epoch_realm(0, r);
	assert_false(takes(r, 0));
	snprintf(r, sizeof(r), "example.net/%llu", (unsigned long long)EPOCH);
	refuse(r, "SHA-256");
	snprintf(r, sizeof(r), "example.org.evil/%llu", (unsigned long long)EPOCH);
	refuse(r, "SHA-256");
	snprintf(r, sizeof(r), "example.org/0%llu", (unsigned long long)EPOCH);
	refuse(r, "SHA-256");
	refuse("example.org", "SHA-256");
	refuse("example.org/", "SHA-256");
	refuse("example.org/-1", "SHA-256");
	refuse("", "SHA-256");
}

static void md5_only(void **state)
{
	(void)state;
	begin(1);
	refuse(realm, "MD5");
	refuse(realm, NULL);
	refuse(realm, "SHA-512-256");
}

/* The epoch moves on while the sign-in waits. */
static void clock_goes_on(void **state)
{
	char r[64];

	(void)state;
	begin_with(1, SDP_TCP);
	cfg.timeout_ms = 60000;
	cfg.unix_s = EPOCH * 86400 - 10; /* ten seconds before EPOCH begins */
	start();
	assert_int_equal(at(0), 1);
	epoch_realm(1, r);
	deliver(0, fake_challenge(&fake, &sent[0].m, &seen, r, "n", "SHA-256", false), 20000);
	assert_int_equal(at(20000), 2);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
}

static void forged_answers(void **state)
{
	struct wn_addr other = addr("192.0.2.1:5061"), stranger = addr("203.0.113.66:5060");
	struct sent x;
	char copy[FAKE_MAX];
	struct span c;

	(void)state;
	begin(2);
	assert_int_equal(at(0), 1);
	x = sent[0];
	sip_parse(span_of(x.bytes, x.n), false, &x.m);
	c = challenge(&x, "evil", false);
	/* From another address, another port, from a front that was not asked. */
	signin_input(s, &stranger, c, START + 10);
	signin_input(s, &other, c, START + 10);
	deliver(1, c, 10);
	assert_int_equal(at(10), 0);
	/* With another branch, Call-ID, From-tag, CSeq: one letter changed each. */
	for (unsigned which = 0; which < 4; which++) {
		struct sip_msg m;
		struct span part;

		c = challenge(&x, "evil", false);
		memcpy(copy, c.p, c.n);
		assert_int_equal(sip_parse(span_of(copy, c.n), false, &m), SIP_OK);
		part = which == 0   ? m.via.branch
		       : which == 1 ? m.call_id
		       : which == 2 ? m.from_tag
				    : sip_hdr_first(&m, SIP_HDR_CSEQ)->value;
		copy[part.p - copy + (which == 3 ? 0 : (ptrdiff_t)part.n - 1)] ^= 1;
		deliver(0, span_of(copy, c.n), 20);
		assert_int_equal(at(20), 0);
	}
	/* A 200 before any credentials went out is not believed. */
	deliver(0, accept_it(&x, "t"), 30);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	/* Nor are a request or garbage. */
	deliver(0, span_of(x.bytes, x.n), 30);
	deliver(0, SPAN_LIT("garbage"), 30);
	assert_int_equal(at(30), 0);
	/* The real one still works, and an answer to the first INVITE does not answer the second. */
	deliver(0, challenge(&x, "nonce1", false), 40);
	assert_int_equal(at(40), 2);
	c = accept_it(&x, "t");
	deliver(0, c, 50);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	signin_input(s, &stranger, accept_it(&sent[1], "t"), START + 50);
	deliver(1, accept_it(&sent[1], "t"), 50);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
	deliver(0, accept_it(&sent[1], "t"), 50);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

static void busy_goes_elsewhere(void **state)
{
	(void)state;
	begin(2);
	up_to_credentials();
	deliver(0, fake_status(&fake, &sent[1].m, &seen, 503, "Retry-After: 2\r\n"), 100);
	assert_int_equal(at(100), 2);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_int_equal(sent[1].front, 1);
	deliver(1, challenge(&sent[1], "nb", false), 150);
	assert_int_equal(at(150), 2);
	deliver(1, fake_status(&fake, &sent[1].m, &seen, 503, "Retry-After: 1\r\n"), 200);
	assert_int_equal(at(200), 1);
	/* Both are busy: each is asked again when its time has come, not before. */
	assert_int_equal(at(1199), 0);
	assert_int_equal(at(1200), 1);
	assert_int_equal(sent[0].front, 1);
	assert_int_equal(signin_state(s), SIGNIN_RUNNING);
}

static void busy_to_the_end(void **state)
{
	(void)state;
	begin(1);
	up_to_credentials();
	deliver(0, fake_status(&fake, &sent[1].m, &seen, 503, "Retry-After: 30\r\n"), 100);
	at(100);
	/* Half a minute is beyond the deadline: say so now. */
	assert_int_equal(failure(), SIGNIN_E_BUSY);
	assert_int_equal(signin_failure(s)->sip_status, 503);
}

static void refusals_are_final(void **state)
{
	static const unsigned codes[] = {403, 404, 483, 488, 600};

	(void)state;
	for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
		begin(2);
		up_to_credentials();
		deliver(0, fake_status(&fake, &sent[1].m, &seen, codes[i], ""), 100);
		assert_int_equal(at(100), 1);
		assert_int_equal(sent[0].m.method, SIP_ACK);
		assert_int_equal(failure(), SIGNIN_E_REFUSED);
		assert_int_equal(signin_failure(s)->sip_status, codes[i]);
	}
}

static void senseless_answer(void **state)
{
	(void)state;
	begin(1);
	up_to_credentials();
	deliver(0, fake_status(&fake, &sent[1].m, &seen, 200, ""), 100);
	at(100);
	assert_int_equal(failure(), SIGNIN_E_ANSWER);
}

static void known_nonce_spares_the_challenge(void **state)
{
	(void)state;
	begin_with(2, SDP_TCP);
	snprintf(cfg.first.realm, sizeof(cfg.first.realm), "%s", realm);
	snprintf(cfg.first.nonce, sizeof(cfg.first.nonce), "kept");
	cfg.first.seen = seen;
	start();
	assert_int_equal(at(0), 1);
	assert_true(has_credentials(&sent[0], "kept"));
	deliver(0, accept_it(&sent[0], "t"), 50);
	assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
}

static void known_nonce_that_is_refused(void **state)
{
	unsigned plain = 0;

	(void)state;
	/* Stale: the challenge is taken, any number of times is not. */
	begin_with(1, SDP_TCP);
	snprintf(cfg.first.realm, sizeof(cfg.first.realm), "%s", realm);
	snprintf(cfg.first.nonce, sizeof(cfg.first.nonce), "kept");
	start();
	assert_int_equal(at(0), 1);
	deliver(0, challenge(&sent[0], "fresh", true), 10);
	assert_int_equal(at(10), 2);
	assert_true(has_credentials(&sent[1], "fresh"));
	/* Silence, as a front answers a nonce that was used: a plain INVITE follows at the same front. */
	start();
	assert_int_equal(at(0), 1);
	at(500);
	for (unsigned i = 0; i < nsent; i++)
		plain += sip_hdr_first(&sent[i].m, SIP_HDR_PROXY_AUTHORIZATION) == NULL;
	assert_int_equal(plain, 1);
	/* One of another day is not used at all. */
	snprintf(cfg.first.realm, sizeof(cfg.first.realm), "example.org/1");
	start();
	assert_int_equal(at(0), 1);
	assert_null(sip_hdr_first(&sent[0].m, SIP_HDR_PROXY_AUTHORIZATION));
}

/* Two fronts each get the call through: TCP knows one call, UDP ends the second. */
static void late_second_answer(void **state)
{
	for (int udp = 0; udp <= 1; udp++) {
		struct sent a, b;
		bool bye = false, ack = false;

		(void)state;
		begin_with(2, udp ? SDP_UDP : SDP_TCP);
		start();
		up_to_credentials();
		a = sent[1];
		sip_parse(span_of(a.bytes, a.n), false, &a.m);
		at(1050); /* the first has been quiet for too long */
		b = sent[0].front == 1 ? sent[0] : sent[1];
		sip_parse(span_of(b.bytes, b.n), false, &b.m);
		assert_int_equal(b.front, 1);
		deliver(1, challenge(&b, "nb", false), 1100);
		at(1100);
		b = sent[0].m.method == SIP_INVITE ? sent[0] : sent[1];
		sip_parse(span_of(b.bytes, b.n), false, &b.m);
		assert_int_equal(span_eq(a.m.call_id, b.m.call_id), !udp);
		deliver(1, accept_it(&b, "t1"), 1150);
		assert_int_equal(signin_state(s), SIGNIN_ACCEPTED);
		assert_false(signin_settled(s));
		deliver(0, accept_it(&a, udp ? "t2" : "t1"), 1200);
		at(1200);
		for (unsigned i = 0; i < nsent; i++) {
			ack = ack || sent[i].m.method == SIP_ACK;
			bye = bye || sent[i].m.method == SIP_BYE;
			assert_true(span_eq(sent[i].m.call_id, a.m.call_id));
		}
		assert_int_equal(ack, udp);
		assert_int_equal(bye, udp);
	}
}

static void nonces_are_used_once(void **state)
{
	static struct nonces c;
	struct signin_nonce n = {.realm = "example.org/5", .nonce = "a"}, out;
	struct wn_addr f1 = addr("192.0.2.1:5060"), f2 = addr("192.0.2.2:5060"), l1 = addr("10.0.0.1:1"), l2 = addr("10.0.0.2:1");

	(void)state;
	memset(&c, 0, sizeof(c));
	nonces_put(&c, &f1, &l1, "alice", &n, 1000);
	l1.port = 99; /* the port does not matter, a nonce is bound to the address */
	assert_false(nonces_take(&c, &f2, &l1, "alice", "example.org", 1000, &out));
	assert_false(nonces_take(&c, &f1, &l2, "alice", "example.org", 1000, &out));
	assert_false(nonces_take(&c, &f1, &l1, "bob", "example.org", 1000, &out));
	assert_false(nonces_take(&c, &f1, &l1, "alice", "example.or", 1000, &out));
	assert_true(nonces_take(&c, &f1, &l1, "alice", "example.org", 1000 + NONCES_AGE_MS - 1, &out));
	assert_string_equal(out.nonce, "a");
	assert_false(nonces_take(&c, &f1, &l1, "alice", "example.org", 1000, &out));
	nonces_put(&c, &f1, &l1, "alice", &n, 1000);
	assert_false(nonces_take(&c, &f1, &l1, "alice", "example.org", 1000 + NONCES_AGE_MS, &out));
	assert_int_equal(c.n, 0);
	for (unsigned i = 0; i < 3 * NONCES_MAX; i++)
		nonces_put(&c, &f1, &l1, "alice", &n, 1000 + i);
	assert_int_equal(c.n, NONCES_MAX);
}

static int setup(void **state)
{
	(void)state;
	if (sodium_init() < 0 || digest_ctx_new(&digest) < 0)
		return -1;
	fake = (struct fake){.user = "alice", .secret = SECRET, .digest = digest};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	signin_free(s);
	digest_ctx_free(digest);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(four_flights),
		cmocka_unit_test(lost_packets_are_sent_again),
		cmocka_unit_test(nobody_answers),
		cmocka_unit_test(second_front_takes_over),
		cmocka_unit_test(first_challenge_wins),
		cmocka_unit_test(stuck_after_trying),
		cmocka_unit_test(stale_once_more),
		cmocka_unit_test(stale_without_end),
		cmocka_unit_test(wrong_secret),
		cmocka_unit_test(wrong_secret_everywhere),
		cmocka_unit_test(overtaken),
		cmocka_unit_test(overtaken_by_stale),
		cmocka_unit_test(overtaken_in_silence),
		cmocka_unit_test(given_up),
		cmocka_unit_test(given_up_too_late),
		cmocka_unit_test(given_up_before_credentials),
		cmocka_unit_test(other_realms),
		cmocka_unit_test(md5_only),
		cmocka_unit_test(clock_goes_on),
		cmocka_unit_test(forged_answers),
		cmocka_unit_test(busy_goes_elsewhere),
		cmocka_unit_test(busy_to_the_end),
		cmocka_unit_test(refusals_are_final),
		cmocka_unit_test(senseless_answer),
		cmocka_unit_test(known_nonce_spares_the_challenge),
		cmocka_unit_test(known_nonce_that_is_refused),
		cmocka_unit_test(late_second_answer),
		cmocka_unit_test(nonces_are_used_once),
	};

	return cmocka_run_group_tests_name("client-signin", tests, setup, teardown);
}
