/* SPDX-License-Identifier: Apache-2.0 */
/* TCP holes through the real programs: handshake, binding, window, RST, close. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

static struct gate_reply hole;

static const uint8_t syn_options[] = {2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};

static int setup(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);

	fx_setup(state);
	r.syn_rate = 100;
	hole = fx_apply(&r);
	assert_int_equal(hole.status, GATE_OK);
	return 0;
}

/* From the client's port towards the hole. */
static struct fx_packet in(uint16_t sport, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_CLIENT, sport, FX_PUBLIC, hole.public.port, flags, seq, ack, n);
}

/* From the service towards the client's port. */
static struct fx_packet out(uint16_t dport, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_SERVICE, 22, FX_CLIENT, dport, flags, seq, ack, n);
}

static void passes_in(struct fx_packet p)
{
	struct fx_packet want = p;

	want.dst = FX_SERVICE;
	want.dport = 22;
	fx_expect_out(GATE_OUTSIDE, &p, &want);
}

static void passes_out(struct fx_packet p)
{
	struct fx_packet want = p;

	want.src = FX_PUBLIC;
	want.sport = hole.public.port;
	fx_expect_out(GATE_INSIDE, &p, &want);
}

static void dropped_in(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_OUTSIDE, &p, reason);
}

static void dropped_out(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_INSIDE, &p, reason);
}

static struct fx_packet with_options(struct fx_packet p)
{
	p.option = syn_options;
	p.noption = sizeof(syn_options);
	return p;
}

/* Client's number 1000, service's 5000. */
static void connect_from(uint16_t port)
{
	passes_in(with_options(in(port, SYN, 1000, 0, 0)));
	passes_out(with_options(out(port, SYN | ACK, 5000, 1001, 0)));
	passes_in(in(port, ACK, 1001, 5001, 0));
}

static void handshake_binds(void **state)
{
	(void)state;
	connect_from(40000);
	assert_int_equal(fx_counter("hole_bound"), 1);
	passes_in(in(40000, ACK, 1001, 5001, 100));
	passes_out(out(40000, ACK, 5001, 1101, 1400));
	passes_in(in(40000, ACK, 1101, 6401, 0));
	/* Other ports of the same address, another address: not this flow. */
	dropped_in(in(40001, SYN, 1000, 0, 0), "wrong_remote");
	dropped_in(in(40001, ACK, 1101, 6401, 0), "wrong_remote");
	dropped_out(out(40001, SYN | ACK, 5000, 1001, 0), "service_port");
}

static void other_address_never(void **state)
{
	struct fx_packet p = in(40000, SYN, 1000, 0, 0);

	(void)state;
	p.src = FX_OTHER;
	dropped_in(p, "wrong_remote");
	connect_from(40000);
	p = in(40000, ACK, 1001, 5001, 10);
	p.src = FX_OTHER;
	dropped_in(p, "wrong_remote");
}

static void only_the_right_ack_binds(void **state)
{
	(void)state;
	dropped_in(in(40000, ACK, 1001, 5001, 0), "tcp_state"); /* no SYN before */
	passes_in(in(40000, SYN, 1000, 0, 0));
	dropped_in(in(40000, ACK, 1001, 5001, 0), "tcp_ack"); /* the service has not answered: nobody can know */
	dropped_in(in(40000, ACK, 1001, 1, 0), "tcp_ack");
	dropped_out(out(40000, ACK, 5001, 1001, 10), "tcp_state");      /* data before the handshake */
	dropped_out(out(40000, SYN | ACK, 5000, 1002, 0), "tcp_state"); /* answers another SYN */
	passes_out(out(40000, SYN | ACK, 5000, 1001, 0));
	dropped_in(in(40000, ACK, 1001, 5000, 0), "tcp_ack");
	dropped_in(in(40000, ACK, 1001, 5002, 0), "tcp_ack");
	dropped_in(in(40000, ACK, 1002, 5001, 0), "tcp_ack");
	dropped_in(in(40000, ACK | FIN, 1001, 5001, 0), "tcp_state");
	dropped_in(in(40000, SYN | ACK, 1001, 5001, 0), "tcp_state");
	dropped_in(in(40000, RST, 1000, 0, 0), "tcp_rst");
	assert_int_equal(fx_counter("hole_bound"), 0);
	passes_in(in(40000, ACK, 1001, 5001, 3)); /* data may come with it */
	assert_int_equal(fx_counter("hole_bound"), 1);
}

/* Somebody who spoofs the client's address opens handshakes of his own: the real one still gets through. */
static void spoofed_syns_do_not_take_the_hole(void **state)
{
	(void)state;
	for (uint16_t i = 0; i < 3; i++)
		passes_in(in((uint16_t)(30000 + i), SYN, 7, 0, 0));
	passes_in(with_options(in(40000, SYN, 1000, 0, 0)));
	for (uint16_t i = 0; i < 3; i++)
		passes_in(in((uint16_t)(31000 + i), SYN, 7, 0, 0));
	for (uint16_t i = 0; i < 3; i++)
		passes_out(out((uint16_t)(30000 + i), SYN | ACK, 9000, 8, 0));
	passes_out(with_options(out(40000, SYN | ACK, 5000, 1001, 0)));
	dropped_in(in(30000, ACK, 8, 5001, 0), "tcp_ack"); /* he does not see the answers */
	passes_in(in(40000, ACK, 1001, 5001, 0));
	dropped_out(out(30001, SYN | ACK, 9000, 8, 0), "service_port");
	dropped_in(in(30001, ACK, 8, 9001, 0), "wrong_remote");
}

/* More handshakes than are followed: the longest unused makes room, and its answers go nowhere. */
static void embryos_are_bounded(void **state)
{
	(void)state;
	for (uint16_t i = 0; i < 20; i++)
		passes_in(in((uint16_t)(30000 + i), SYN, 7, 0, 0));
	dropped_out(out(30000, SYN | ACK, 9000, 8, 0), "service_port");
	passes_out(out(30019, SYN | ACK, 9000, 8, 0));
	passes_in(in(30019, ACK, 8, 9001, 0));
}

/* Who spoofs the client can send these; the user's rate, here one packet in two seconds, is for what has proved itself. */
static void handshakes_cost_the_user_nothing(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);

	(void)state;
	r.syn_rate = 1000;
	r.packets_per_s = 1;
	hole = fx_apply(&r);
	fx_grant(hole.hole)->packet_cost = 2000000000;
	for (uint16_t i = 0; i < 20; i++)
		passes_in(in((uint16_t)(30000 + i), SYN, 7, 0, 0));
	passes_in(with_options(in(40000, SYN, 1000, 0, 0)));
	passes_out(with_options(out(40000, SYN | ACK, 5000, 1001, 0)));
	for (int i = 0; i < 5; i++)
		dropped_in(in(40000, ACK, 1001 + 10000000, 5001, 0), "tcp_ack");
	passes_in(in(40000, ACK, 1001, 5001, 0));
	dropped_in(in(40000, ACK, 1001, 5001, 10), "rate_packets");
}

static void syn_rate(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);
	uint8_t frame[FX_FRAME], o[FX_FRAME];
	int passed = 0;

	(void)state;
	hole = fx_apply(&r); /* five a second by default */
	for (uint16_t i = 0; i < 50; i++) {
		struct fx_packet p = in((uint16_t)(20000 + i), SYN, 7, 0, 0);

		passed += fx_run(GATE_OUTSIDE, frame, fx_arriving(GATE_OUTSIDE, &p, frame), o, NULL) == XDP_REDIRECT;
	}
	assert_in_range(passed, 5, 8);
	assert_int_equal(fx_counter("syn_rate"), 50 - passed);
}

static void deadline(void **state)
{
	(void)state;
	passes_in(in(40000, SYN, 1000, 0, 0));
	passes_out(out(40000, SYN | ACK, 5000, 1001, 0));
	fx_grant(hole.hole)->connect_by -= 11 * GATE_NS_PER_S;
	dropped_in(in(40000, ACK, 1001, 5001, 0), "connect_late");
	dropped_in(in(40001, SYN, 1000, 0, 0), "connect_late");
	dropped_out(out(40000, SYN | ACK, 5000, 1001, 0), "service_port");
	assert_int_equal(fx_apply_op(GATE_RENEW, hole.hole, 60).status, GATE_NO_HOLE);
}

static void deadline_is_over_once_bound(void **state)
{
	(void)state;
	connect_from(40000);
	fx_grant(hole.hole)->connect_by -= 11 * GATE_NS_PER_S;
	passes_in(in(40000, ACK, 1001, 5001, 10));
	passes_out(out(40000, ACK, 5001, 1011, 10));
	fx_grant(hole.hole)->expires -= 61 * GATE_NS_PER_S;
	dropped_in(in(40000, ACK, 1011, 5011, 10), "hole_expired");
	dropped_out(out(40000, ACK, 5011, 1011, 10), "hole_expired");
}

static void flags(void **state)
{
	(void)state;
	dropped_in(in(40000, SYN | FIN, 1000, 0, 0), "tcp_flags");
	dropped_in(in(40000, SYN | RST, 1000, 0, 0), "tcp_flags");
	dropped_in(in(40000, 0, 1000, 0, 0), "tcp_flags");
	dropped_in(in(40000, FIN, 1000, 0, 0), "tcp_flags");
	dropped_in(in(40000, RST | FIN | ACK, 1000, 0, 0), "tcp_flags");
	dropped_in(in(40000, SYN, 1000, 0, 5), "syn_data");
}

static void window(void **state)
{
	(void)state;
	connect_from(40000); /* both scaled by 7: 65535 << 7 after the handshake; the SYN-ACK itself allows 65535 */
	passes_in(in(40000, ACK, 1001 + 65535, 5001, 0));
	dropped_in(in(40000, ACK, 1001 + 65535 + 1, 5001, 1), "tcp_window");
	dropped_in(in(40000, ACK, 1001 + 0x40000000, 5001, 1), "tcp_window");
	dropped_in(in(40000, ACK, 1001u - 0x1000000u, 5001, 1), "tcp_window");
	dropped_in(in(40000, ACK, 1001, 5002, 1), "tcp_ack"); /* never sent */
	dropped_in(in(40000, ACK, 1001, 5001u - 0x1000000u, 1), "tcp_ack");
	passes_in(in(40000, ACK, 1001, 5001, 1));
	passes_out(out(40000, ACK, 5001, 1002, 1400)); /* opens the window as scaled */
	passes_in(in(40000, ACK, 1002 + (65535u << 7) - 1400, 6401, 1400));
	dropped_in(in(40000, ACK, 1002 + (65535u << 7) + 70000, 6401, 1), "tcp_window");
	/* The inside is held to the same. */
	dropped_out(out(40000, ACK, 6401 + 0x40000000, 1002, 1), "tcp_window");
	/* No second opening. */
	dropped_in(in(40000, SYN, 1000, 0, 0), "tcp_state");
}

static void sack(void **state)
{
	static const uint8_t good[] = {1, 1, 5, 10, 0, 0, 0x13, 0x8d, 0, 0, 0x13, 0x99};  /* up to 5017 */
	static const uint8_t never[] = {1, 1, 5, 10, 0, 0, 0x13, 0x8d, 0, 1, 0x13, 0x99}; /* never sent */
	static const uint8_t two[] = {1, 1, 5, 18, 0, 0, 0x13, 0x8d, 0, 0, 0x13, 0x90, 0, 0, 0x13, 0x91, 0, 1, 0x13, 0x99};
	struct fx_packet p;
	uint8_t o[FX_FRAME];
	size_t n;

	(void)state;
	connect_from(40000);
	passes_out(out(40000, ACK, 5001, 1001, 16));
	p = in(40000, ACK, 1001, 5001, 0);
	p.option = good;
	p.noption = sizeof(good);
	fx_passes(GATE_OUTSIDE, &p, o, &n);
	p.option = never;
	p.noption = sizeof(never);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_ack");
	p.option = two;
	p.noption = sizeof(two);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_ack");
}

static struct fx_packet with(struct fx_packet p, const uint8_t *option, size_t n)
{
	p.option = option;
	p.noption = n;
	return p;
}

/* A SYN or a SYN-ACK whose options make no sense opens nothing, from either side; elsewhere it is the SACK that counts. */
static void options_that_make_no_sense(void **state)
{
	static const uint8_t bad[][8] = {{2, 4, 0, 0, 0, 0, 0, 0},       {2, 4, 0, 87, 0, 0, 0, 0}, {2, 3, 5, 1, 0, 0, 0, 0},
					 {2, 4, 5, 0xb4, 2, 4, 5, 0xb4}, {3, 3, 7, 3, 3, 0, 0, 0},  {3, 2, 1, 1, 0, 0, 0, 0},
					 {4, 4, 0, 0, 0, 0, 0, 0},       {8, 8, 0, 0, 0, 0, 0, 0},  {1, 1, 1, 1, 1, 1, 1, 3},
					 {3, 0, 7, 0, 0, 0, 0, 0},       {3, 1, 7, 0, 0, 0, 0, 0},  {254, 9, 0, 0, 0, 0, 0, 0},
					 {5, 8, 0, 0, 0x13, 0x8d, 0, 0}};
	static const uint8_t fine[][8] = {
		{1, 1, 1, 1, 1, 1, 1, 1}, {0, 3, 3, 3, 3, 3, 3, 3}, {2, 4, 0, 88, 254, 4, 0, 0}, {34, 2, 4, 2, 1, 3, 3, 15}};
	static const uint8_t reversed[] = {1, 1, 5, 10, 0, 0, 0x13, 0x99, 0, 0, 0x13, 0x8d},
			     odd[] = {1, 5, 11, 0, 0, 0x13, 0x8d, 0, 0, 0x13, 0x99, 0}, far[] = {1, 1, 5, 10, 0x90, 0, 0, 0, 0x90, 0, 0, 9};
	struct fx_packet syn;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		dropped_in(with(in(40000, SYN, 1000, 0, 0), bad[i], 8), "tcp_options");
		syn = out(443, SYN, 1, 0, 0);
		syn.sport = 5000;
		dropped_out(with(syn, bad[i], 8), "tcp_options");
	}
	assert_int_equal(fx_counter("mapping_new"), 0);
	for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		passes_in(with(in(40000, SYN, 1000, 0, 0), fine[i], 8));
	passes_in(with_options(in(40000, SYN, 1000, 0, 0)));
	dropped_out(with(out(40000, SYN | ACK, 5000, 1001, 0), bad[0], 8), "tcp_options");
	dropped_in(in(40000, ACK, 1001, 5001, 0), "tcp_ack"); /* so nothing has been answered */
	connect_from(40000);
	passes_out(out(40000, ACK, 5001, 1001, 16));
	dropped_in(with(in(40000, ACK, 1001, 5001, 0), reversed, sizeof(reversed)), "tcp_options");
	dropped_in(with(in(40000, ACK, 1001, 5001, 0), odd, sizeof(odd)), "tcp_options");
	dropped_in(with(in(40000, ACK, 1001, 5001, 0), far, sizeof(far)), "tcp_options");
	dropped_out(with(out(40000, ACK, 5017, 1001, 0), odd, sizeof(odd)), "tcp_options");
	passes_in(in(40000, ACK, 1001, 5017, 0));
}

static void rst(void **state)
{
	(void)state;
	connect_from(40000);
	passes_in(in(40000, ACK, 1001, 5001, 100));
	passes_out(out(40000, ACK, 5001, 1101, 0));
	/* In the window is not enough (RFC 5961). */
	for (uint32_t s = 1001; s < 1101; s += 9)
		dropped_in(in(40000, RST, s, 0, 0), "tcp_rst");
	dropped_in(in(40000, RST, 1102, 0, 0), "tcp_rst");
	dropped_in(in(40000, RST | ACK, 2000, 5001, 0), "tcp_rst");
	passes_out(out(40000, ACK, 5001, 1101, 10)); /* and nothing has happened */
	passes_in(in(40000, RST, 1101, 0, 0));
	dropped_in(in(40000, ACK, 1101, 5011, 1), "tcp_state");
	dropped_in(in(40000, ACK | FIN, 1101, 5011, 0), "tcp_state");
	dropped_in(in(40000, SYN, 1101, 0, 0), "tcp_state");
	dropped_out(out(40000, ACK, 5011, 1101, 10), "tcp_state");
	passes_out(out(40000, ACK, 5011, 1101, 0)); /* the challenge of who got it too early (RFC 5961 section 3) */
	dropped_out(out(40000, ACK, 5011 + 0x40000000, 1101, 0), "tcp_window");
	passes_in(in(40000, RST, 1101, 0, 0)); /* repeated */
}

static void service_refuses(void **state)
{
	(void)state;
	passes_in(in(40000, SYN, 1000, 0, 0));
	dropped_out(out(40000, RST | ACK, 0, 1000, 0), "tcp_state");
	passes_out(out(40000, RST | ACK, 0, 1001, 0));
	passes_in(in(40000, SYN, 2000, 0, 0)); /* and the client may try again */
	passes_out(out(40000, SYN | ACK, 5000, 2001, 0));
	passes_in(in(40000, ACK, 2001, 5001, 0));
}

static void orderly_end(void **state)
{
	(void)state;
	connect_from(40000);
	passes_in(in(40000, FIN | ACK, 1001, 5001, 0));
	passes_out(out(40000, ACK, 5001, 1002, 700));
	passes_in(in(40000, ACK, 1002, 5701, 0));
	passes_out(out(40000, FIN | ACK, 5701, 1002, 0));
	passes_in(in(40000, ACK, 1002, 5702, 0));
	passes_out(out(40000, FIN | ACK, 5701, 1002, 0));    /* its retransmission */
	dropped_in(in(40000, SYN, 9000, 0, 0), "tcp_state"); /* one hole, one connection */
	dropped_in(in(40001, SYN, 9000, 0, 0), "wrong_remote");
}

static void closed_by_the_agent(void **state)
{
	(void)state;
	connect_from(40000);
	assert_int_equal(fx_apply_op(GATE_CLOSE, hole.hole, 0).status, GATE_OK);
	dropped_in(in(40000, ACK, 1001, 5001, 10), "no_hole");
	dropped_out(out(40000, ACK, 5001, 1001, 10), "service_port");
	/* The service itself cannot go on by a connection of its own from that port. */
	dropped_out(out(40000, SYN, 5001, 0, 0), "service_port");
}

/* A forger who knows addresses and ports, but neither numbers: none of it arrives. */
static void forger(void **state)
{
	uint8_t frame[FX_FRAME], o[FX_FRAME];
	uint32_t x = 12345, got = 0;

	(void)state;
	connect_from(40000);
	for (int i = 0; i < 20000; i++) {
		static const uint8_t kinds[] = {ACK, RST, RST | ACK, FIN | ACK, SYN, SYN | ACK};
		struct fx_packet p;
		uint32_t seq, ack;

		x = x * 1664525 + 1013904223;
		seq = x;
		x = x * 1664525 + 1013904223;
		ack = x;
		/* An off-path guess: leave out what would be a lucky window. */
		if (seq - (1001u - 0x1000000u) < 0x3000000 || ack - (5001u - 0x1000000u) < 0x3000000)
			continue;
		p = in(40000, kinds[i % 6], seq, ack, (size_t)i % 3);
		if (p.flags & SYN)
			p.n = 0;
		got += fx_run(GATE_OUTSIDE, frame, fx_arriving(GATE_OUTSIDE, &p, frame), o, NULL) != XDP_DROP;
	}
	assert_int_equal(got, 0);
	passes_in(in(40000, ACK, 1001, 5001, 10));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fx_teardown)
	const struct CMUnitTest tests[] = {T(handshake_binds),
					   T(other_address_never),
					   T(only_the_right_ack_binds),
					   T(spoofed_syns_do_not_take_the_hole),
					   T(embryos_are_bounded),
					   T(handshakes_cost_the_user_nothing),
					   T(syn_rate),
					   T(deadline),
					   T(deadline_is_over_once_bound),
					   T(flags),
					   T(window),
					   T(sack),
					   T(options_that_make_no_sense),
					   T(rst),
					   T(service_refuses),
					   T(orderly_end),
					   T(closed_by_the_agent),
					   T(forger)};

	return FX_RUN("gate dp tcp", tests);
}
