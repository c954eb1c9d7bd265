/* SPDX-License-Identifier: Apache-2.0 */
/* The rates of a user over several holes, through the real programs: what is charged, what never is, and what outlives a restart. */
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

#define FAR (1000 * GATE_NS_PER_S) /* a bucket filled so far ahead that the test ends before it has room */

static int setup(void **state)
{
	(void)state;
	fx_open();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fx_close();
	fx_remove();
	return 0;
}

/* A tagged UDP hole that counts towards a user, with rates that no test comes near. */
struct tagged {
	struct gate_request r;
	struct gate_reply h;
	uint64_t counter; /* the last that was sent */
};

static struct tagged open_tagged(const char *user)
{
	struct tagged t = {.r = fx_open_request(IPPROTO_UDP, 53, NULL)};

	t.r.user_bytes_per_s = t.r.user_packets_per_s = 1000000;
	memset(t.r.user, 0, sizeof(t.r.user));
	memcpy(t.r.user, user, strlen(user));
	t.h = fx_apply(&t.r);
	assert_int_equal(t.h.status, GATE_OK);
	return t;
}

static struct gate_user *user_of(uint64_t hole)
{
	const uint32_t place = fx_grant(hole)->user;

	return place != 0 ? &fx_dp->user[place] : NULL;
}

static struct fx_packet datagram(const struct tagged *t, uint16_t sport, const uint8_t *payload, size_t n)
{
	return (struct fx_packet){
		.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = sport, .dport = t->h.public.port, .payload = payload, .n = n};
}

/* \return the reason it is dropped for, "" when it passes. */
static const char *offered(const struct fx_packet *p)
{
	static const char *const why[] = {"rate_user_packets", "rate_user_bytes", "rate_packets",
					  "tag_replay",        "tag_invalid",     "wrong_remote"};
	const size_t n = sizeof(why) / sizeof(why[0]);
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	uint64_t before[sizeof(why) / sizeof(why[0])];

	for (size_t i = 0; i < n; i++)
		before[i] = fx_counter(why[i]);
	if (fx_run(GATE_OUTSIDE, frame, fx_arriving(GATE_OUTSIDE, p, frame), out, NULL) == XDP_REDIRECT)
		return "";
	for (size_t i = 0; i < n; i++)
		if (fx_counter(why[i]) == before[i] + 1)
			return why[i];
	return "something else";
}

static const char *send_at(struct tagged *t, uint16_t sport, uint64_t counter)
{
	uint8_t sealed[64];
	struct fx_packet p = datagram(t, sport, sealed, fx_seal(t->r.key, counter, (const uint8_t *)"abc", 3, sealed));

	return offered(&p);
}

static const char *send_next(struct tagged *t, uint16_t sport)
{
	return send_at(t, sport, ++t->counter);
}

static void holes_of_one_user_share(void **state)
{
	struct tagged a = open_tagged("alice"), b = open_tagged("alice"), c = open_tagged("bob");
	struct gate_request other = a.r, none = a.r;
	struct gate_reply h;

	(void)state;
	assert_ptr_equal(user_of(a.h.hole), user_of(b.h.hole));
	assert_ptr_not_equal(user_of(a.h.hole), user_of(c.h.hole));
	other.tenant = 1; /* somebody else of the same name */
	fx_addr(&other.inside, "198.18.100.130", 53);
	h = fx_apply(&other);
	assert_int_equal(h.status, GATE_OK);
	assert_ptr_not_equal(user_of(a.h.hole), user_of(h.hole));
	none.user_bytes_per_s = none.user_packets_per_s = 0;
	h = fx_apply(&none);
	assert_int_equal(h.status, GATE_OK);
	assert_null(user_of(h.hole));

	assert_string_equal(send_next(&a, 4000), "");
	assert_string_equal(send_next(&b, 4001), "");
	/* Both were charged to one bucket: the second began where the first had left it, or at its own now. */
	assert_true(user_of(a.h.hole)->packet_due > 0 && user_of(a.h.hole)->byte_due > 0);
	user_of(a.h.hole)->packet_due = wn_now_ns() + FAR;
	assert_string_equal(send_next(&a, 4000), "rate_user_packets");
	assert_string_equal(send_next(&b, 4001), "rate_user_packets");
	assert_string_equal(send_next(&c, 4002), "");
	user_of(a.h.hole)->packet_due = 0;
	user_of(a.h.hole)->byte_due = wn_now_ns() + FAR;
	assert_string_equal(send_next(&a, 4000), "rate_user_bytes");
	assert_string_equal(send_next(&b, 4001), "rate_user_bytes");
}

static void what_is_charged(void **state)
{
	struct tagged a = open_tagged("alice"), b = open_tagged("alice");
	struct gate_user *u = user_of(a.h.hole);
	const uint64_t start = wn_now_ns() + 100 * GATE_NS_PER_MS; /* below the burst, above every now of this test's first two packets */

	(void)state;
	assert_int_equal(u->packet_cost, 1000);
	assert_int_equal(u->byte_cost, 1000 << 16);
	u->packet_due = u->byte_due = start;
	assert_string_equal(send_next(&a, 4000), "");
	assert_string_equal(send_next(&b, 4001), "");
	/* 28 of headers, 3 of payload, 16 of tag. */
	assert_true(u->packet_due >= start + 2 * 1000 && u->byte_due >= start + 2 * 47 * 1000);
	/* A packet that the hole's own rate refuses is not the user's. */
	fx_grant(a.h.hole)->packet_cost = FAR;
	assert_string_equal(send_next(&a, 4000), "");
	u->packet_due = start;
	assert_string_equal(send_next(&a, 4000), "rate_packets");
	assert_int_equal(u->packet_due, start);
}

/* The rate that a file names, from full buckets: a quarter of a second's worth at once, over both holes. */
static void the_rate_is_the_files(void **state)
{
	struct tagged a = open_tagged("alice"), b;
	unsigned passed = 0;

	(void)state;
	a.r.user_packets_per_s = 4; /* the newest hole's word */
	b = a;
	b.h = fx_apply(&b.r);
	for (unsigned i = 0; i < 5; i++) {
		passed += send_next(&a, 4000)[0] == '\0';
		passed += send_next(&b, 4001)[0] == '\0';
	}
	assert_in_range(passed, 1, 3);
	assert_int_equal(fx_counter("rate_user_packets"), 10 - passed);
	assert_int_equal(user_of(a.h.hole)->packet_cost, GATE_NS_PER_S / 4);
}

/* Refused for the user's rate: neither the replay window nor the binding nor any count moves. */
static void a_refusal_changes_nothing(void **state)
{
	struct tagged a = open_tagged("alice");
	struct gate_user *u = user_of(a.h.hole);
	struct gate_hole before, after;
	uint64_t full;

	(void)state;
	for (int bound = 0; bound < 2; bound++) {
		full = u->packet_due = wn_now_ns() + FAR;
		if (bound)
			assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(a.h.hole), &before));
		for (int i = 0; i < 3; i++)
			assert_string_equal(send_at(&a, 4000, a.counter + 1), "rate_user_packets");
		assert_string_equal(send_at(&a, 4000, a.counter + 5000), "rate_user_packets"); /* would move the window */
		assert_int_equal(u->packet_due, full);
		assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(a.h.hole), &after));
		assert_int_equal(after.bound, bound);
		assert_int_equal(after.replay.top, a.counter);
		if (bound)
			assert_memory_equal(&before, &after, sizeof(before));
		u->packet_due = 0;
		assert_string_equal(send_next(&a, 4000), ""); /* the same counter */
		assert_string_equal(send_at(&a, 4000, a.counter), "tag_replay");
	}
}

/* Whoever knows addresses and ports, and has heard a packet, uses up nothing of the user's. */
static void forged_datagrams_are_not_the_users(void **state)
{
	struct tagged a = open_tagged("alice"), b = open_tagged("alice");
	struct gate_user *u = user_of(a.h.hole);
	uint8_t sealed[64], heard[64], foreign[16] = {9};
	struct fx_packet p;
	size_t n;

	(void)state;
	n = fx_seal(a.r.key, ++a.counter, (const uint8_t *)"abc", 3, heard);
	p = datagram(&a, 4000, heard, n);
	assert_string_equal(offered(&p), "");
	assert_string_equal(send_next(&b, 4001), "");
	const struct gate_user was = *u;

	for (unsigned i = 0; i < 200; i++) {
		p = datagram(&a, 4000, heard, n); /* again */
		assert_string_equal(offered(&p), "tag_replay");
		p = datagram(&a, 4001, heard, n); /* from another port: bound */
		assert_string_equal(offered(&p), "wrong_remote");
		p = datagram(&a, 4000, sealed, fx_seal(foreign, a.counter + 1 + i, (const uint8_t *)"abc", 3, sealed));
		assert_string_equal(offered(&p), "tag_invalid");
		p = datagram(&a, 4000, heard, 10); /* too short for a tag */
		assert_string_equal(offered(&p), "something else");
		p = datagram(&a, 4000, heard, n);
		p.src = FX_OTHER;
		assert_string_equal(offered(&p), "wrong_remote");
		p = datagram(&a, 4000, heard, n);
		p.dport = (uint16_t)(p.dport == 65535 ? 1024 : p.dport + 1); /* nobody's port, or the other hole's: still no tag of its */
		assert_string_not_equal(offered(&p), "");
	}
	assert_memory_equal(u, &was, sizeof(was));
	assert_string_equal(send_next(&a, 4000), "");
	assert_string_equal(send_next(&b, 4001), "");
	assert_int_equal(fx_counter("rate_user_packets") + fx_counter("rate_user_bytes"), 0);
}

static struct gate_reply tcp;

static int tcp_in(uint16_t sport, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	static const uint8_t data[1400] = "data";
	struct fx_packet p = {.src = FX_CLIENT,
			      .dst = FX_PUBLIC,
			      .sport = sport,
			      .dport = tcp.public.port,
			      .proto = IPPROTO_TCP,
			      .flags = flags,
			      .seq = seq,
			      .ack = ack,
			      .payload = data,
			      .n = n};
	uint8_t frame[FX_FRAME], out[FX_FRAME];

	return fx_run(GATE_OUTSIDE, frame, fx_arriving(GATE_OUTSIDE, &p, frame), out, NULL) == XDP_REDIRECT;
}

static int tcp_out(uint16_t dport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct fx_packet p = {.src = FX_SERVICE,
			      .dst = FX_CLIENT,
			      .sport = 22,
			      .dport = dport,
			      .proto = IPPROTO_TCP,
			      .flags = flags,
			      .seq = seq,
			      .ack = ack};
	uint8_t frame[FX_FRAME], out[FX_FRAME];

	return fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL) == XDP_REDIRECT;
}

/* One who spoofs the client's address, and knows its port but neither side's numbers, before and after the handshake. */
static void forged_segments_are_not_the_users(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);
	struct gate_user *u, was;
	struct gate_hole h;

	(void)state;
	r.syn_rate = 1000;
	r.user_bytes_per_s = r.user_packets_per_s = 1000000;
	tcp = fx_apply(&r);
	assert_int_equal(tcp.status, GATE_OK);
	u = user_of(tcp.hole);
	was = *u;
	for (uint16_t i = 0; i < 100; i++)
		tcp_in((uint16_t)(30000 + i % 7), SYN, i, 0, 0);
	assert_true(tcp_in(40000, SYN, 1000, 0, 0));
	assert_true(tcp_out(40000, SYN | ACK, 5000, 1001));
	for (uint32_t i = 0; i < 100; i++) {
		assert_false(tcp_in(40000, ACK, 1001, 5001 + 0x10000000u * (1 + i % 15), 0)); /* the service's number is guessed */
		assert_false(tcp_in(40000, RST, 77777777, 0, 0));
		assert_false(tcp_in(40001, ACK, 1001, 5001, 0));
	}
	assert_memory_equal(u, &was, sizeof(was));

	assert_true(tcp_in(40000, ACK, 1001, 5001, 0));
	assert_true(u->packet_due > was.packet_due && u->byte_due > was.byte_due);
	was = *u;
	for (uint32_t i = 0; i < 100; i++) {
		assert_false(tcp_in(40000, ACK, 1001 + 0x10000000u * (1 + i % 7), 5001, 1000)); /* beyond the window */
		assert_false(tcp_in(40000, ACK, 1001, 5001 + 1000000, 1000));                   /* acknowledges what was never sent */
		assert_false(tcp_in(40000, RST, 1001 + 0x10000000u * (1 + i % 7), 0, 0));
		assert_false(tcp_in(40001, ACK, 1001, 5001, 1000));
	}
	for (uint16_t i = 0; i < 100; i++)
		tcp_in(40000, SYN, i, 0, 0);
	assert_memory_equal(u, &was, sizeof(was));

	/* And a segment that the rate refuses moves no window. */
	u->packet_due = wn_now_ns() + FAR;
	assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(tcp.hole), &h));
	assert_false(tcp_in(40000, ACK, 1001, 5001, 1000));
	assert_int_equal(fx_counter("rate_user_packets"), 1);
	struct gate_hole after;

	assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(tcp.hole), &after));
	assert_memory_equal(&h, &after, sizeof(h));
	assert_true(tcp_out(40000, ACK, 5001, 1001)); /* what the service sends is not the user's */
	u->packet_due = 0;
	assert_true(tcp_in(40000, ACK, 1001, 5001, 1000));
}

static void a_restart_keeps_it(void **state)
{
	struct tagged a = open_tagged("alice"), b = open_tagged("alice"), c = open_tagged("bob"), d;
	uint32_t place = fx_grant(a.h.hole)->user;
	const uint64_t full = wn_now_ns() + FAR;

	(void)state;
	assert_string_equal(send_next(&a, 4000), "");
	user_of(a.h.hole)->packet_due = full;
	fx_close(); /* as after kill -9: nothing is said to anybody */
	fx_open();
	assert_int_equal(fx_grant(a.h.hole)->user, place);
	assert_int_equal(fx_dp->user[place].packet_due, full);
	assert_string_equal(send_next(&b, 4001), "rate_user_packets");
	assert_string_equal(send_next(&c, 4002), "");
	d = open_tagged("alice");
	assert_int_equal(fx_grant(d.h.hole)->user, place);
	/* The place is hers until the last of three holes has closed. */
	fx_apply_op(GATE_CLOSE, a.h.hole, 0);
	fx_apply_op(GATE_CLOSE, b.h.hole, 0);
	assert_int_equal(fx_grant(d.h.hole)->user, place);
	d = open_tagged("alice");
	assert_int_equal(fx_grant(d.h.hole)->user, place);
	assert_string_equal(send_next(&d, 4003), "rate_user_packets");
}

/* What cannot be is closed rather than let run without its limit. */
static void a_restart_closes_what_contradicts(void **state)
{
	struct tagged a = open_tagged("alice"), b = open_tagged("bob");

	(void)state;
	fx_grant(b.h.hole)->user = fx_grant(a.h.hole)->user;
	fx_close();
	fx_open();
	assert_int_equal(fx_dp->live, 1);
	assert_int_equal(fx_apply_op(GATE_RENEW, a.h.hole, 60).status == GATE_OK, fx_apply_op(GATE_RENEW, b.h.hole, 60).status != GATE_OK);
}

/* As many users as holes: every hole can have one of its own, over and over. */
static void places_are_never_short(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h[64];
	unsigned serial = 0;

	(void)state;
	fx_close();
	fx_remove();
	fx_config.tenant[0].holes = 64;
	fx_open();
	fx_config.tenant[0].holes = 16;
	r.user_packets_per_s = 7;
	for (unsigned round = 0; round < 3; round++) {
		uint64_t now_ms = wn_now_ms() + 1000 * round;

		for (unsigned i = 0; i < 64; i++) {
			memset(r.user, 0, sizeof(r.user));
			snprintf(r.user, sizeof(r.user), "u%u", serial++);
			gate_dp_apply(fx_dp, &r, now_ms, &h[i]);
			assert_int_equal(h[i].status, GATE_OK);
			assert_non_null(user_of(h[i].hole));
		}
		for (unsigned i = 0; i < 64; i++) {
			struct gate_request c = {.op = GATE_CLOSE, .hole = h[i].hole};
			struct gate_reply a;

			gate_dp_apply(fx_dp, &c, now_ms, &a);
			assert_int_equal(a.status, GATE_OK);
		}
	}
}

/* Two holes of one user on several CPUs at once. */
#define BURST 400
struct racer {
	struct tagged *t;
	int cpu;
	uint16_t sport;
	unsigned passed;
	pthread_barrier_t *start;
};

static void *race(void *arg)
{
	struct racer *r = arg;
	static _Thread_local uint8_t frame[BURST][128];
	uint8_t out[FX_FRAME];
	size_t n = 0;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)r->cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);
	for (unsigned i = 0; i < BURST; i++) {
		uint8_t sealed[64];
		struct fx_packet p = datagram(r->t, r->sport, sealed, fx_seal(r->t->r.key, i + 2, (const uint8_t *)"abc", 3, sealed));

		n = fx_arriving(GATE_OUTSIDE, &p, frame[i]);
	}
	pthread_barrier_wait(r->start);
	for (unsigned i = 0; i < BURST; i++)
		r->passed += fx_run(GATE_OUTSIDE, frame[i], n, out, NULL) == XDP_REDIRECT;
	return NULL;
}

static void charged_on_all_cpus(void **state)
{
	enum { THREADS = 4 };
	struct tagged t[THREADS];
	struct racer racer[THREADS];
	pthread_t thread[THREADS];
	pthread_barrier_t barrier;
	struct gate_user *u;
	uint64_t start;

	(void)state;
	for (int i = 0; i < THREADS; i++) {
		t[i] = open_tagged("alice");
		assert_string_equal(send_at(&t[i], (uint16_t)(4000 + i), 1), ""); /* bound */
	}
	u = user_of(t[0].h.hole);
	pthread_barrier_init(&barrier, NULL, THREADS);
	start = u->packet_due = wn_now_ns() + GATE_NS_PER_MS;
	for (int i = 0; i < THREADS; i++) {
		racer[i] = (struct racer){
			.t = &t[i], .cpu = i % (int)sysconf(_SC_NPROCESSORS_ONLN), .sport = (uint16_t)(4000 + i), .start = &barrier};
		assert_int_equal(pthread_create(&thread[i], NULL, race, &racer[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	pthread_barrier_destroy(&barrier);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(racer[i].passed, BURST);
	/* However the time went, each has moved it by its cost. */
	assert_true(u->packet_due >= start + (uint64_t)THREADS * BURST * 1000);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(holes_of_one_user_share),
					   T(what_is_charged),
					   T(the_rate_is_the_files),
					   T(a_refusal_changes_nothing),
					   T(forged_datagrams_are_not_the_users),
					   T(forged_segments_are_not_the_users),
					   T(a_restart_keeps_it),
					   T(a_restart_closes_what_contradicts),
					   T(places_are_never_short),
					   T(charged_on_all_cpus)};
	int rc;

	if (!fx_up()) {
		printf("1..1\nok 1 # SKIP needs root\n");
		return 0;
	}
	rc = cmocka_run_group_tests_name("gate dp user", tests, NULL, NULL);
	fx_down();
	return rc;
}
