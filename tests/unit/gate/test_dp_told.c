/* SPDX-License-Identifier: Apache-2.0 */
/* What the gate says itself: to whom, from which address, how often; and to whom it says nothing. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

enum { SYN = 2, ACK = 16, UNREACHABLE = 3, ECHO_REQUEST = 8, EXCEEDED = 11 };

static const uint8_t data[1400];

static struct fx_packet tcp_out(uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_SERVICE, 5000, FX_CLIENT, 443, flags, seq, ack, n);
}

static struct fx_packet tcp_in(uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_CLIENT, 443, FX_PUBLIC, port, flags, seq, ack, n);
}

static void comes_in(struct fx_packet p)
{
	uint8_t got[FX_FRAME];
	size_t n;

	fx_passes(GATE_OUTSIDE, &p, got, &n);
}

static void dropped_in(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_OUTSIDE, &p, reason);
}

static void dropped_out(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_INSIDE, &p, reason);
}

/* A link of 1,000 bytes on a side, for as long as a test runs. */
static void narrow(int side)
{
	assert_int_equal(system(side == GATE_OUTSIDE ? "ip link set wan mtu 1000" : "ip link set lan mtu 1000"), 0);
}

static int teardown_wide(void **state)
{
	assert_int_equal(system("ip link set wan mtu 1500 && ip link set lan mtu 1500"), 0);
	return fx_teardown(state);
}

static struct fx_packet udp(const char *src, const char *dst, uint16_t sport, uint16_t dport, size_t n)
{
	return (struct fx_packet){.src = src, .dst = dst, .sport = sport, .dport = dport, .payload = data, .n = n};
}

/* RFC 4787 REQ-13, RFC 1191. */
static void too_big_on_the_way_out(void **state)
{
	struct fx_packet p = udp(FX_SERVICE, FX_CLIENT, 5000, 53, 973), e;
	uint8_t quoted[FX_FRAME];
	uint16_t port;

	(void)state;
	narrow(GATE_OUTSIDE);
	fx_expect_told(GATE_INSIDE, &p, "too_big_told", FX_CONTROL, UNREACHABLE, 4, 1000); /* 1001 bytes */
	assert_int_equal(fx_counter("mapping_new"), 0);
	p.n--;
	port = fx_opens(p);
	p.n++;
	fx_expect_told(GATE_INSIDE, &p, "too_big_told", FX_CONTROL, UNREACHABLE, 4, 1000); /* of a session */
	p.fx = FX_NO_DF;
	dropped_out(p, "too_big"); /* fragments are for the sender to make */
	p.fx = 0;
	p.src = FX_OTHER;
	dropped_out(p, "spoofed");
	p.src = FX_SERVICE;
	p.proto = IPPROTO_ICMP;
	p.icmp_type = ECHO_REQUEST;
	fx_expect_told(GATE_INSIDE, &p, "too_big_told", FX_CONTROL, UNREACHABLE, 4, 1000);
	p = tcp_out(SYN, 100, 0, 0);
	port = fx_opens(p);
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0));
	p = tcp_out(ACK, 101, 901, 961);
	fx_expect_told(GATE_INSIDE, &p, "too_big_told", FX_CONTROL, UNREACHABLE, 4, 1000);
	p.n--;
	fx_opens(p);
	/* Nobody is told about an error (RFC 1122 3.2.2). */
	p = tcp_in(port, ACK, 901, 101, 1300);
	p.dst = FX_SERVICE;
	p.dport = 5000;
	fx_leaving(GATE_INSIDE, &p, quoted);
	e = (struct fx_packet){
		.src = FX_SERVICE, .dst = FX_CLIENT, .proto = IPPROTO_ICMP, .icmp_type = UNREACHABLE, .payload = quoted + 14, .n = 1200};
	dropped_out(e, "too_big");
}

/* The other way: the sender outside is told by the address that he knows, if there is a flow of his. */
static void too_big_on_the_way_in(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL), t = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);
	struct gate_reply tagged = fx_apply(&r), hole = fx_apply(&t);
	uint8_t sealed[1200];
	struct fx_packet p;

	(void)state;
	narrow(GATE_INSIDE);
	p = udp(FX_CLIENT, FX_PUBLIC, 53, fx_opens(udp(FX_SERVICE, FX_CLIENT, 5000, 53, 5)), 973);
	fx_expect_told(GATE_OUTSIDE, &p, "too_big_told", FX_PUBLIC, UNREACHABLE, 4, 1000);
	p.fx = FX_NO_DF;
	dropped_in(p, "too_big");
	p.fx = 0;
	p.n = 972;
	comes_in(p);
	/* A stranger hears nothing. */
	p.n = 1400;
	p.sport = 54;
	dropped_in(p, "no_session");
	p.dport = 1;
	dropped_in(p, "no_hole");
	p = udp(FX_CLIENT, FX_PUBLIC, 4000, tagged.public.port, 1200);
	dropped_in(p, "tag_invalid");
	p.ttl = 1;
	dropped_in(p, "ttl");
	/* The tag does not cross the link inside. */
	p.ttl = 64;
	p.payload = sealed;
	p.n = fx_seal(r.key, 1, data, 972, sealed);
	comes_in(p);
	p.n = fx_seal(r.key, 2, data, 973, sealed);
	fx_expect_told(GATE_OUTSIDE, &p, "too_big_told", FX_PUBLIC, UNREACHABLE, 4, 1016);
	/* A hole's connection; before it is one, what is not in order. */
	p = tcp_in(hole.public.port, ACK, 1001, 5001, 1400);
	p.sport = 40000;
	dropped_in(p, "tcp_state");
	p.flags = SYN;
	p.seq = 1000;
	p.ack = 0;
	p.n = 0;
	comes_in(p);
	fx_opens((struct fx_packet){.src = FX_SERVICE,
				    .dst = FX_CLIENT,
				    .sport = 22,
				    .dport = 40000,
				    .proto = IPPROTO_TCP,
				    .flags = SYN | ACK,
				    .seq = 5000,
				    .ack = 1001});
	p.flags = ACK;
	p.seq = 1001;
	p.ack = 5001;
	comes_in(p);
	p.n = 1400;
	fx_expect_told(GATE_OUTSIDE, &p, "too_big_told", FX_PUBLIC, UNREACHABLE, 4, 1000);
	p.src = FX_OTHER;
	dropped_in(p, "wrong_remote");
	p.src = FX_CLIENT;
	p.seq += 0x40000000;
	dropped_in(p, "tcp_window");
}

/* However many there are, the messages are few (RFC 1812 4.3.2.8). */
static void told_within_the_budget(void **state)
{
	struct fx_packet p = udp(FX_SERVICE, FX_CLIENT, 5000, 53, 1200);
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	const size_t n = fx_arriving(GATE_INSIDE, &p, frame);
	unsigned told = 0;

	(void)state;
	narrow(GATE_OUTSIDE);
	for (unsigned i = 0; i < 2000; i++)
		told += fx_run(GATE_INSIDE, frame, n, out, NULL) == XDP_REDIRECT;
	assert_in_range(told, 5, 500);
	assert_int_equal(fx_counter("too_big_told"), told);
	assert_int_equal(fx_counter("too_big"), 2000 - told);
}

/* RFC 1812 5.3.1, RFC 5508 REQ-10 inside; REQ-9's policy outside. */
static void last_hop(void **state)
{
	struct fx_packet p = udp(FX_SERVICE, FX_CLIENT, 5000, 53, 5), in;

	(void)state;
	in = udp(FX_CLIENT, FX_PUBLIC, 53, fx_opens(p), 5);
	p.ttl = in.ttl = 1;
	fx_expect_told(GATE_INSIDE, &p, "ttl", FX_CONTROL, EXCEEDED, 0, 0);
	dropped_in(in, "ttl");
	p.src = FX_OTHER;
	dropped_out(p, "ttl");
	p.src = FX_SERVICE;
	p.dst = "224.0.0.251";
	dropped_out(p, "ttl");
	p.dst = FX_CLIENT;
	p.proto = IPPROTO_ICMP;
	p.icmp_type = UNREACHABLE;
	dropped_out(p, "ttl");
	p.icmp_type = ECHO_REQUEST;
	fx_expect_told(GATE_INSIDE, &p, "ttl", FX_CONTROL, EXCEEDED, 0, 0);
}

/* RFC 5508 REQ-8: who gets no session is told that it is forbidden. */
static void no_room(void **state)
{
	struct fx_packet p = udp(FX_SERVICE, FX_CLIENT, 5000, 53, 5);

	(void)state;
	fx_config.port_low = fx_config.port_high = 2000;
	fx_anew();
	fx_config.port_low = 1024;
	fx_config.port_high = 65535;
	fx_opens(p);
	p.sport = 5001;
	fx_expect_told(GATE_INSIDE, &p, "no_port", FX_CONTROL, UNREACHABLE, 13, 0);
	fx_config.mappings = 1;
	fx_anew();
	fx_config.mappings = 4096;
	p.sport = 5000;
	fx_opens(p);
	for (p.sport = 5001; p.sport < 5300 && fx_counter("mappings_full") == 0; p.sport++) {
		uint8_t frame[FX_FRAME], out[FX_FRAME];

		fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL);
	}
	fx_expect_told(GATE_INSIDE, &p, "mappings_full", FX_CONTROL, UNREACHABLE, 13, 0);
	fx_config.flows = 4;
	fx_config.ntenant = 1;
	fx_anew();
	fx_config.flows = 4096;
	fx_config.ntenant = 2;
	for (p.sport = 5000; p.sport < 5004; p.sport++)
		fx_opens(p);
	fx_expect_told(GATE_INSIDE, &p, "tenant_full", FX_CONTROL, UNREACHABLE, 13, 0);
}

/* Which side a fragment came from is in its name. */
static void fragments(void **state)
{
	struct fx_packet p = udp(FX_SERVICE, FX_CLIENT, 5000, 53, 500);
	uint8_t frame[FX_FRAME];
	size_t n;

	(void)state;
	for (int side = 0; side < GATE_SIDES; side++) {
		for (unsigned field = 0; field < 3; field++) {
			static const uint8_t flags[3][2] = {{0x20, 0}, {0x20, 5}, {0, 5}}; /* first, middle, last */

			n = fx_arriving(side, &p, frame);
			memcpy(frame + 20, flags[field], 2);
			fx_expect_frame_drop(side, frame, n, side == GATE_INSIDE ? "fragment_inside" : "fragment");
		}
	}
}

int main(void)
{
#define W(name) cmocka_unit_test_setup_teardown(name, fx_setup, teardown_wide)
	const struct CMUnitTest tests[] = {W(too_big_on_the_way_out), W(too_big_on_the_way_in), W(told_within_the_budget),
					   FX_TEST(last_hop),         FX_TEST(no_room),         FX_TEST(fragments)};

	return FX_RUN("gate dp told", tests);
}
