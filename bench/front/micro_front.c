/* SPDX-License-Identifier: Apache-2.0 */
/* front-micro [--markdown | --json FILE]: what each outcome costs the front's core, without any input and output: the first look by which a
 * worker sorts (front_core_look) and the decision (front_core_message and its like). Hot caches; medians over rounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "front/txn.h"
#include "sip/build.h"
#include "world.h"

#define ROUNDS 41u
#define MANY   128u /* messages a round */
#define TEXT   3072u
#define TRUNK  "198.18.1.2:40000"
#define HOP    "198.18.2.2:5080"

enum way { NET, AGENT, TICK };

struct item {
	char text[TEXT];
	size_t n;
	struct front_flow from;
};

struct bench {
	struct world w;
	struct item item[MANY];
	struct wn_addr src, other;
	unsigned hop;
	unsigned number; /* of calls so far: no two are alike */
};

static struct bench b;

struct row {
	enum front_outcome outcome;
	const char *what;
	enum way way;
	void (*setup)(void);         /* once; may be NULL */
	void (*prepare)(unsigned i); /* fills b.item[i], each round */
	double look_ns, ns, in, out; /* bytes in, bytes out to the sender */
	bool measured;
};

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- what is sent */

static void put(unsigned i, const void *p, size_t n)
{
	memcpy(b.item[i].text, p, n);
	b.item[i].n = n;
	b.item[i].from = (struct front_flow){b.src, 0};
}

static void put_call(unsigned i, const struct call *c)
{
	b.item[i].n = call_write(c, b.item[i].text, TEXT);
	b.item[i].from = (struct front_flow){b.src, 0};
}

/* Names that no other call has; valid until the next three. */
static void name(struct call *c)
{
	static char id[4][32], branch[4][32], tag[4][16];
	unsigned k = b.number++ % 4;

	snprintf(id[k], sizeof(id[k]), "call-%u@198.18.104.2", b.number);
	snprintf(branch[k], sizeof(branch[k]), "z9hG4bKm%u", b.number);
	snprintf(tag[k], sizeof(tag[k]), "f%u", b.number);
	c->call_id = id[k];
	c->branch = branch[k];
	c->from_tag = tag[k];
}

static void stranger(struct call *c)
{
	name(c);
	world_call(&b.w, c, &b.src);
}

/* c->auth for a nonce that is new, of a user. */
static void signed_by(struct call *c, const struct credentials_of *k)
{
	struct digest_params p;

	c->auth[0] = 0;
	stranger(c);
	world_challenge(&b.w, &p);
	call_authorize(&b.w, c, k, p.realm, p.nonce);
}

static void authenticated(unsigned i, const char *uri, int max_forwards)
{
	struct call c = {.uri = uri, .max_forwards = max_forwards};

	signed_by(&c, &alice);
	put_call(i, &c);
}

static void p_size(unsigned i)
{
	put(i, "INVITE sip:ssh@example.org SIP/2.0\r\n\r\n", 38);
}

static void p_first_bytes(unsigned i)
{
	char junk[450];

	memset(junk, 0x16, sizeof(junk));
	put(i, junk, sizeof(junk));
}

static void p_keepalive(unsigned i)
{
	put(i, "\r\n\r\n", 4);
}

static void spoiled(unsigned i, const char *from, const char *to)
{
	struct call c = {0};
	char *at;

	name(&c);
	put_call(i, &c);
	at = memmem(b.item[i].text, b.item[i].n, from, strlen(from));
	assert_non_null(at);
	memcpy(at, to, strlen(to));
}

static void p_start_line(unsigned i)
{
	spoiled(i, " SIP/2.0\r\n", " SIP/7.0\r\n");
}

static void p_malformed(unsigned i)
{
	spoiled(i, "CSeq: 1 INVITE", "CSeq: x INVITE");
}

static void p_response(unsigned i)
{
	static const char text[] = "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 198.18.1.2:5060;branch=z9hG4bKu00AAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n"
				   "From: <sip:alice@example.org>;tag=1\r\nTo: <sip:bob@example.org>;tag=2\r\nCall-ID: a\r\nCSeq: 1 BYE\r\n"
				   "Content-Length: 0\r\n\r\n";
	put(i, text, sizeof(text) - 1);
}

static void p_unknown_tenant(unsigned i)
{
	struct call c = {.uri = "sip:ssh@example.com"};

	put_call(i, &c);
}

static void p_method(unsigned i)
{
	struct call c = {.method = "REGISTER"};

	put_call(i, &c);
}

static void p_no_token(unsigned i)
{
	struct call c = {.method = "BYE", .to_tag = "agenttag", .cseq = 2};

	put_call(i, &c);
}

static void p_ack_absorbed(unsigned i)
{
	struct call c = {.method = "ACK", .to_tag = "agenttag"};

	name(&c);
	put_call(i, &c);
}

static void p_cancel_ignored(unsigned i)
{
	struct call c = {.method = "CANCEL"};

	name(&c);
	put_call(i, &c);
}

static void p_challenged(unsigned i)
{
	struct call c = {0};

	name(&c);
	put_call(i, &c);
}

static void p_challenge_too_large(unsigned i)
{
	static const char text[] = "INVITE sip:ssh@example.org SIP/2.0\r\nv:SIP/2.0/UDP a;branch=z9hG4bK1\r\nf:<sip:a@b>;tag=1\r\n"
				   "t:<sip:ssh@example.org>\r\ni:1\r\nCSeq:1 INVITE\r\nm:<sip:a@b>\r\nl:0\r\n\r\n";
	put(i, text, sizeof(text) - 1);
}

/* ---- with credentials; the first one fails where it says */

static void replaced(unsigned i, const char *from, const char *to)
{
	char *at = memmem(b.item[i].text, b.item[i].n, from, strlen(from));

	assert_non_null(at);
	memcpy(at, to, strlen(to));
}

static void p_credentials_malformed(unsigned i)
{
	authenticated(i, NULL, 0);
	replaced(i, "nonce=\"", "nonce=  ");
	replaced(i, ", uri=\"", "= uri=\"");
}

static void p_realm(unsigned i)
{
	authenticated(i, NULL, 0);
	replaced(i, "realm=\"example.org", "realm=\"example.com");
}

static void p_algorithm(unsigned i)
{
	authenticated(i, NULL, 0);
	replaced(i, "algorithm=SHA-256", "algorithm=SHA-512");
}

static void p_nonce_malformed(unsigned i)
{
	authenticated(i, NULL, 0);
	replaced(i, "nonce=\"", "nonce=\"!");
}

static void p_nonce_foreign(unsigned i)
{
	authenticated(i, NULL, 0);
	b.item[i].from.addr = b.other;
}

static void s_none(void)
{
}

static void p_nonce_expired(unsigned i)
{
	authenticated(i, NULL, 0);
	if (i == MANY - 1) {
		b.w.now_ms += 31000;
		b.w.unix_s += 31;
	}
}

static void p_nonce_shape(unsigned i)
{
	authenticated(i, NULL, 0);
	replaced(i, "nc=00000001", "nc=00000002");
}

static const struct credentials_of wrong = {"alice", BOB_SECRET, NULL, DIGEST_SHA256, NULL, NULL};
static const struct credentials_of nobody = {"mallory", BOB_SECRET, NULL, DIGEST_SHA256, NULL, NULL};
static const struct credentials_of astray = {"alice", ALICE_SECRET, "sip:elsewhere@example.org", DIGEST_SHA256, NULL, NULL};

static void signed_wrong(unsigned i, const struct credentials_of *k)
{
	struct call c = {0};

	signed_by(&c, k);
	put_call(i, &c);
}

static void p_nonce_exhausted(unsigned i)
{
	signed_wrong(i, &wrong);
	for (unsigned k = 0; k < NONCE_FAILS_MAX; k++)
		world_send(&b.w, b.item[i].text, b.item[i].n, &b.src);
}

static void p_unknown_user(unsigned i)
{
	signed_wrong(i, &nobody);
}

static void p_digest(unsigned i)
{
	signed_wrong(i, &wrong);
}

static void p_uri_mismatch(unsigned i)
{
	signed_wrong(i, &astray);
}

/* A nonce of the epoch before this one. */
static void s_epoch(void)
{
	b.w.unix_s = ((uint64_t)WORLD_EPOCH + 1) * 86400u - 2;
	b.w.now_ms += 1000;
	world_heartbeat(&b.w);
}

static void p_epoch(unsigned i)
{
	if (i == 0) {
		b.w.unix_s = ((uint64_t)WORLD_EPOCH + 1) * 86400u - 2;
		b.w.now_ms += 1000;
	}
	authenticated(i, NULL, 0);
	if (i == MANY - 1) {
		b.w.unix_s += 3;
		b.w.now_ms += 3000;
	}
}

static void p_replay(unsigned i)
{
	authenticated(i, NULL, 0);
	world_send(&b.w, b.item[i].text, b.item[i].n, &b.src);
	b.item[i].from.addr.port++;
}

static void p_retransmission(unsigned i)
{
	authenticated(i, NULL, 0);
	world_send(&b.w, b.item[i].text, b.item[i].n, &b.src);
	if (i == MANY - 1)
		b.w.now_ms += 500;
}

static void p_feed_stale(unsigned i)
{
	if (i == 0)
		b.w.now_ms += 1000;
	authenticated(i, NULL, 0);
}

static void s_feed_stale(void)
{
	b.w.unix_s += 120;
}

/* Callers that were challenged before. */
static void p_draining(unsigned i)
{
	atomic_store(&b.w.sh.draining, false);
	authenticated(i, NULL, 0);
	atomic_store(&b.w.sh.draining, true);
}

static void s_user_budget(void)
{
	b.w.policy[0].user_calls_per_s = 1;
}

static void s_service_budget(void)
{
	b.w.policy[0].service_calls_per_s = 1;
}

static void s_call_limit(void)
{
	b.w.policy[0].max_calls = 1;
}

static void s_no_agent(void)
{
	atomic_store(&b.w.tenant[0].connected, false);
}

static void s_no_hop(void)
{
	front_core_set_trunk(b.w.core, b.hop, NULL);
}

static void p_accepted(unsigned i)
{
	authenticated(i, NULL, 0);
}

static void p_closed(unsigned i)
{
	authenticated(i, "sip:closed@example.org", 0);
}

static void p_too_many_hops(unsigned i)
{
	authenticated(i, NULL, -1);
}

static void p_open(unsigned i)
{
	struct call c = {.uri = "sip:open@example.org"};

	name(&c);
	put_call(i, &c);
}

/* ---- in dialogs */

static char route[512];
static char dialog_id[32], dialog_tag[16]; /* Call-ID and From-tag: a token serves one dialog */

/* A call that the agent has accepted; `route` is its route set. */
static void call_up(void)
{
	static char text[TEXT], answer[TEXT];
	struct call c = {0};

	name(&c);
	snprintf(dialog_id, sizeof(dialog_id), "%s", c.call_id);
	snprintf(dialog_tag, sizeof(dialog_tag), "%s", c.from_tag);
	world_sign_in(&b.w, &c, &alice, &b.src, text, sizeof(text));
	world_from_agent(&b.w, answer, agent_answer(&b.w, 200, "OK", answer, sizeof(answer)));
	assert_int_equal(b.w.a.outcome, FRONT_relayed_response);
	assert_int_equal(span_cstr(header_of(world_net(&b.w), "Record-Route"), route, sizeof(route)), 0);
}

static void bye(unsigned i)
{
	struct call c = {.method = "BYE", .uri = "sip:agent@example.org", .to_tag = "agenttag", .cseq = 2, .route = route};

	name(&c);
	c.call_id = dialog_id;
	c.from_tag = dialog_tag;
	put_call(i, &c);
}

/* One character of the token is another. */
static void p_bad_token(unsigned i)
{
	char *at;

	if (i == 0)
		call_up();
	bye(i);
	at = memmem(b.item[i].text, b.item[i].n, "Route: <sip:", 12);
	assert_non_null(at);
	at[40] = at[40] == 'A' ? 'B' : 'A';
}

static void p_forwarded_in_dialog(unsigned i)
{
	call_up();
	bye(i);
}

static void s_in_dialog_budget(void)
{
	call_up();
	for (unsigned i = 0; i < 64; i++) {
		bye(0);
		world_send(&b.w, b.item[0].text, b.item[0].n, &b.src);
	}
}

static void p_in_dialog_budget(unsigned i)
{
	bye(i);
}

static void p_cancelled(unsigned i)
{
	struct call c = {0}, cancel;

	signed_by(&c, &alice);
	world_call(&b.w, &c, &b.src);
	cancel = c;
	cancel.method = "CANCEL";
	cancel.auth[0] = 0;
	put_call(i, &cancel);
}

static void p_relayed_response(unsigned i)
{
	static char text[TEXT];
	struct call c = {0};

	name(&c);
	world_sign_in(&b.w, &c, &alice, &b.src, text, sizeof(text));
	b.item[i].n = agent_answer(&b.w, 200, "OK", b.item[i].text, TEXT);
}

static void p_relayed_request(unsigned i)
{
	struct sip_buf o;

	if (i == 0)
		call_up();
	sip_buf_init(&o, b.item[i].text, TEXT);
	sip_printf(&o,
		   "BYE sip:alice@198.18.104.2:40112 SIP/2.0\r\nVia: SIP/2.0/TLS agent;branch=z9hG4bKagent%u\r\nRoute: %s\r\n"
		   "From: <sip:ssh@example.org>;tag=agenttag\r\nTo: <sip:alice@example.org>;tag=%s\r\nCall-ID: %s\r\nCSeq: 1 BYE\r\n"
		   "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n",
		   b.number, route, dialog_tag, dialog_id);
	b.number++;
	b.item[i].n = o.len;
}

static void p_response_dropped(unsigned i)
{
	p_response(i);
}

/* The call's time has run out. */
static void p_timed_out(unsigned i)
{
	p_accepted(i);
	world_send(&b.w, b.item[i].text, b.item[i].n, &b.src);
	if (i == MANY - 1)
		b.w.now_ms += TXN_LIFE_MS + 100;
}

static void p_hop_repeated(unsigned i)
{
	p_open(i);
	world_send(&b.w, b.item[i].text, b.item[i].n, &b.src);
	if (i == MANY - 1)
		b.w.now_ms += 600;
}

#define ROW(o, w, s, p, text)                                                                  \
	{                                                                                      \
		.outcome = FRONT_##o, .what = (text), .way = (w), .setup = (s), .prepare = (p) \
	}
static struct row rows[] = {
	ROW(size, NET, NULL, p_size, "a datagram that is too short"),
	ROW(first_bytes, NET, NULL, p_first_bytes, "not SIP at all"),
	ROW(keepalive, NET, NULL, p_keepalive, "CRLFCRLF"),
	ROW(start_line, NET, NULL, p_start_line, "SIP/7.0"),
	ROW(malformed, NET, NULL, p_malformed, "a CSeq that is no number"),
	ROW(response, NET, NULL, p_response, "a response to nothing"),
	ROW(unknown_tenant, NET, NULL, p_unknown_tenant, "somebody else's domain"),
	ROW(method, NET, NULL, p_method, "REGISTER"),
	ROW(in_dialog_no_token, NET, NULL, p_no_token, "BYE without Route"),
	ROW(in_dialog_bad_token, NET, NULL, p_bad_token, "BYE with a forged token"),
	ROW(in_dialog_budget, NET, s_in_dialog_budget, p_in_dialog_budget, "too many with one token"),
	ROW(ack_absorbed, NET, NULL, p_ack_absorbed, "ACK without a call"),
	ROW(cancel_ignored, NET, NULL, p_cancel_ignored, "CANCEL without a call"),
	ROW(challenged, NET, NULL, p_challenged, "INVITE without credentials: 407"),
	ROW(challenge_too_large, NET, NULL, p_challenge_too_large, "… that is shorter than its answer would be"),
	ROW(credentials_malformed, NET, NULL, p_credentials_malformed, "credentials that do not parse: 407"),
	ROW(realm, NET, NULL, p_realm, "another realm: 407"),
	ROW(algorithm, NET, NULL, p_algorithm, "another algorithm: 407"),
	ROW(nonce_malformed, NET, NULL, p_nonce_malformed, "a nonce that cannot be one: 407"),
	ROW(nonce_foreign, NET, NULL, p_nonce_foreign, "a nonce of another address: 407"),
	ROW(nonce_expired, NET, s_none, p_nonce_expired, "an old nonce: 407"),
	ROW(nonce_exhausted, NET, NULL, p_nonce_exhausted, "a nonce on which three digests failed: 407"),
	ROW(nonce_shape, NET, NULL, p_nonce_shape, "nc=2: 407"),
	ROW(retransmission, NET, NULL, p_retransmission, "the same INVITE again: the same answer"),
	ROW(epoch, NET, s_epoch, p_epoch, "yesterday's realm: 407"),
	ROW(unknown_user, NET, NULL, p_unknown_user, "a good nonce, nobody's name: 407"),
	ROW(digest, NET, NULL, p_digest, "a good nonce, a wrong secret: 407"),
	ROW(uri_mismatch, NET, NULL, p_uri_mismatch, "credentials for another URI: 407"),
	ROW(replay, NET, NULL, p_replay, "a used nonce from another port"),
	ROW(draining, NET, NULL, p_draining, "the front is ending: 503"),
	ROW(feed_stale, NET, s_feed_stale, p_feed_stale, "the agent is silent: 503"),
	ROW(user_budget, NET, s_user_budget, p_accepted, "too many of one user: 503"),
	ROW(service_budget, NET, s_service_budget, p_accepted, "too many to one service: 503"),
	ROW(call_limit, NET, s_call_limit, p_accepted, "too many calls: 503"),
	ROW(no_agent, NET, s_no_agent, p_accepted, "no agent: 503"),
	ROW(no_hop, NET, s_no_hop, p_closed, "the next hop is down: 503"),
	ROW(too_many_hops, NET, NULL, p_too_many_hops, "Max-Forwards: 0: 483"),
	ROW(forwarded, NET, NULL, p_accepted, "accepted: 100, INVITE to the agent"),
	ROW(forwarded_open, NET, NULL, p_open, "a service without authentication: 100, INVITE to the hop"),
	ROW(forwarded_in_dialog, NET, NULL, p_forwarded_in_dialog, "BYE with a token"),
	ROW(cancelled, NET, NULL, p_cancelled, "CANCEL of a call: 200, CANCEL to the agent"),
	ROW(relayed_response, AGENT, NULL, p_relayed_response, "the agent's 200, with nextnonce"),
	ROW(relayed_request, AGENT, NULL, p_relayed_request, "the agent's BYE"),
	ROW(response_dropped, AGENT, NULL, p_response_dropped, "an agent's response to nothing"),
	ROW(timed_out, TICK, NULL, p_timed_out, "no answer in time (32 s; 185 s once it rings): 408"),
	ROW(hop_repeated, TICK, NULL, p_hop_repeated, "the hop's INVITE again"),
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static void fresh(void)
{
	struct wn_addr own = addr_of(TRUNK), hop_at = addr_of(HOP);
	int hop;

	world_new(&b.w, NULL);
	front_core_free(b.w.core);
	assert_int_equal(front_core_new(&b.w.sh, 3, 4096, &b.w.core), 0);
	b.w.policy[0].max_calls = 4096;
	b.w.policy[0].user_calls_per_s = b.w.policy[0].service_calls_per_s = 0;
	b.w.sh.feed_max_age_s = 60;
	b.src = addr_of("198.18.4.2:40112");
	b.other = addr_of("198.18.4.3:40112");
	hop = front_shared_add_hop(&b.w.sh, FRONT_UDP, &hop_at);
	assert_int_equal(hop, 1);
	b.hop = (unsigned)hop;
	front_core_set_trunk(b.w.core, b.hop, &own);
	b.w.policy[0].nservices = 2;
	b.w.policy[0].service[0] = (struct front_service){"open", b.hop, false};
	b.w.policy[0].service[1] = (struct front_service){"closed", b.hop, true};
	front_policy_sort(&b.w.policy[0]);
	/* places of calls that have been used before, as in a front that has run for a while */
	for (unsigned i = 0; i < 2 * MANY; i++) {
		p_open(0);
		world_send(&b.w, b.item[0].text, b.item[0].n, &b.src);
	}
	while (front_core_calls(b.w.core) > 0) {
		b.w.now_ms += TXN_LIFE_MS;
		while (front_core_tick(b.w.core, b.w.now_ms, &b.w.a))
			;
	}
}

static struct front_look looks[MANY];
static enum front_class class[MANY];

/* As a worker does: a look at all, then those that are not done with that. */
static double look_all(void)
{
	double from = now_ns();

	for (unsigned i = 0; i < MANY; i++)
		class[i] = front_core_look(b.w.core, span_of(b.item[i].text, b.item[i].n), &b.item[i].from, b.w.now_ms, b.w.unix_s,
					   &looks[i], &b.w.a);
	return (now_ns() - from) / MANY;
}

static void one(const struct row *r, unsigned i)
{
	struct span in = span_of(b.item[i].text, b.item[i].n);

	if (r->way == NET) {
		if (class[i] == FRONT_CLASS_DONE)
			return;
		front_core_message(b.w.core, in, &b.item[i].from, b.w.now_ms, b.w.unix_s, &b.w.a);
		if (class[i] == FRONT_CLASS_FIRST)
			front_core_looked(b.w.core, &looks[i], &b.w.a, b.w.now_ms);
	} else if (r->way == AGENT) {
		front_core_from_agent(b.w.core, 0, in, b.w.now_ms, b.w.unix_s, &b.w.a);
	} else {
		(void)front_core_tick(b.w.core, b.w.now_ms, &b.w.a);
	}
}

static int by_value(const void *x, const void *y)
{
	double d = *(const double *)x - *(const double *)y;

	return d < 0 ? -1 : d > 0;
}

/* A world of its own for each round, so that tables are as empty as at the start. */
static void measure(struct row *r)
{
	double look[ROUNDS], ns[ROUNDS];
	uint64_t counted = 0, in = 0;

	for (unsigned k = 0; k < ROUNDS; k++) {
		uint64_t before;

		fresh();
		if (r->setup != NULL)
			r->setup();
		for (unsigned i = 0; i < MANY; i++)
			r->prepare(i);
		before = front_core_count(b.w.core, r->outcome);
		look[k] = r->way == NET ? look_all() : 0;
		ns[k] = now_ns();
		for (unsigned i = 0; i < MANY; i++)
			one(r, i);
		ns[k] = (now_ns() - ns[k]) / MANY;
		counted += front_core_count(b.w.core, r->outcome) - before;
		for (unsigned i = 0; i < MANY; i++)
			in += b.item[i].n;
		r->out = (double)b.w.a.net_n;
		world_free(&b.w);
	}
	qsort(look, ROUNDS, sizeof(look[0]), by_value);
	qsort(ns, ROUNDS, sizeof(ns[0]), by_value);
	r->look_ns = look[ROUNDS / 2];
	r->ns = ns[ROUNDS / 2];
	r->in = r->way == TICK ? 0 : (double)in / (ROUNDS * MANY);
	/* the first few may still be within a budget */
	r->measured = counted >= (uint64_t)ROUNDS * (MANY - 2);
	if (!r->measured)
		fprintf(stderr, "front-micro: %s: counted %u of %u times\n", front_outcome_name(r->outcome), (unsigned)counted,
			ROUNDS * MANY);
}

static void print_text(void)
{
	printf("%-24s %8s %8s %7s %7s  %s\n", "outcome", "look ns", "total ns", "in", "out", "what");
	for (size_t i = 0; i < ROWS; i++)
		printf("%-24s %8.0f %8.0f %7.0f %7.0f  %s\n", front_outcome_name(rows[i].outcome), rows[i].look_ns,
		       rows[i].look_ns + rows[i].ns, rows[i].in, rows[i].out, rows[i].what);
}

static void print_markdown(void)
{
	printf("| outcome | first look | in all | bytes in | bytes back | what was sent |\n|---|---:|---:|---:|---:|---|\n");
	for (size_t i = 0; i < ROWS; i++)
		printf("| `%s` | %.0f | %.0f | %.0f | %.0f | %s |\n", front_outcome_name(rows[i].outcome), rows[i].look_ns,
		       rows[i].look_ns + rows[i].ns, rows[i].in, rows[i].out, rows[i].what);
}

static int print_json(const char *path)
{
	FILE *f = fopen(path, "w");

	if (f == NULL)
		return 1;
	fprintf(f, "{\n");
	for (size_t i = 0; i < ROWS; i++)
		fprintf(f, " \"%s\": {\"look_ns\": %.1f, \"ns\": %.1f, \"in\": %.0f, \"out\": %.0f}%s\n",
			front_outcome_name(rows[i].outcome), rows[i].look_ns, rows[i].look_ns + rows[i].ns, rows[i].in, rows[i].out,
			i + 1 < ROWS ? "," : "");
	fprintf(f, "}\n");
	return fclose(f) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
	bool all = true;

	for (size_t i = 0; i < ROWS; i++) {
		measure(&rows[i]);
		all = all && rows[i].measured;
	}
	if (argc == 2 && strcmp(argv[1], "--markdown") == 0)
		print_markdown();
	else
		print_text();
	if (argc == 3 && strcmp(argv[1], "--json") == 0 && print_json(argv[2]) != 0)
		return 1;
	return all ? 0 : 1;
}
