/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors: those about a live flow are translated with what they quote, others are dropped. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

enum { SYN = 2, ACK = 16, UNREACHABLE = 3, REDIRECT = 5, EXCEEDED = 11 };

#define ROUTER "198.18.9.9"

/* An error of `type` from src to dst that quotes the first `keep` bytes of a packet (0: all). The bytes live until the next call but one.
 */
static struct fx_packet error(uint8_t type, const char *src, const char *dst, const struct fx_packet *quoted, size_t keep)
{
	static uint8_t frame[2][FX_FRAME];
	static unsigned turn;
	uint8_t *f = frame[turn++ % 2];
	size_t n = fx_leaving(GATE_OUTSIDE, quoted, f) - 14;

	return (struct fx_packet){
		.src = src, .dst = dst, .proto = IPPROTO_ICMP, .icmp_type = type, .payload = f + 14, .n = keep != 0 && keep < n ? keep : n};
}

/* Every length from the promised 28 bytes on, both checksums of UDP, both errors. */
static void about_a_session(void **state)
{
	static const uint8_t data[64] = "0123456789";
	struct fx_packet inside = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 23},
			 outside = inside;
	struct fx_packet syn = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 443, .proto = IPPROTO_TCP, .flags = SYN, .seq = 100};
	struct fx_packet ping = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 99, .proto = IPPROTO_ICMP, .icmp_type = 8, .payload = data, .n = 9};
	struct fx_packet e, w;

	(void)state;
	outside.src = FX_PUBLIC;
	for (int kind = 0; kind < 4; kind++) {
		if (kind == 1)
			inside.fx = outside.fx = FX_NO_CSUM;
		if (kind == 2) {
			inside = outside = syn;
			outside.src = FX_PUBLIC;
		} else if (kind == 3) {
			inside = outside = ping;
			outside.src = FX_PUBLIC;
		}
		outside.sport = fx_opens(inside);
		for (size_t keep = 28; keep <= 52; keep += kind == 2 ? 6 : 1) {
			/* A TCP checksum that is not quoted whole stays as it is: 38 bytes are needed for it. */
			if (kind == 2 && keep < 38)
				continue;
			e = error(keep % 2 != 0 ? UNREACHABLE : EXCEEDED, ROUTER, FX_PUBLIC, &outside, keep);
			w = error(e.icmp_type, ROUTER, FX_SERVICE, &inside, keep);
			fx_refill();
			fx_expect_out(GATE_OUTSIDE, &e, &w);
		}
	}
	assert_int_equal(fx_counter("icmp_unmatched"), 0);
}

static void tcp_quoted_short(void **state)
{
	struct fx_packet inside = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 443, .proto = IPPROTO_TCP, .flags = SYN, .seq = 100};
	struct fx_packet outside = inside, e, w;

	(void)state;
	outside.src = FX_PUBLIC;
	outside.sport = fx_opens(inside);
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &outside, 28);
	w = error(UNREACHABLE, ROUTER, FX_SERVICE, &inside, 28);
	fx_expect_out(GATE_OUTSIDE, &e, &w);
}

static void unmatched(void **state)
{
	struct fx_packet inside = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = (const uint8_t *)"x", .n = 1};
	struct fx_packet outside = inside, q, e;
	uint8_t bytes[64] = {0};

	(void)state;
	outside.src = FX_PUBLIC;
	outside.sport = fx_opens(inside);
	q = outside;
	q.dport = 54;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q = outside;
	q.dst = FX_OTHER;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q = outside;
	q.sport ^= 1;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q = outside;
	q.src = FX_OTHER; /* quotes what we never sent */
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &outside, 27);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	e = error(REDIRECT, ROUTER, FX_PUBLIC, &outside, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_type");
	e.icmp_type = UNREACHABLE;
	e.payload = bytes;
	e.n = sizeof(bytes);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
}

/* A forged error must quote a sequence number that is in flight (RFC 5927). */
static void tcp_in_flight_only(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);
	struct gate_reply h = fx_apply(&r);
	struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = h.public.port, .proto = IPPROTO_TCP};
	struct fx_packet out = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 22, .dport = 4000, .proto = IPPROTO_TCP}, q, w, e;
	uint8_t data[100] = {0}, got[FX_FRAME];
	size_t n;

	(void)state;
	in.flags = SYN;
	in.seq = 1000;
	fx_passes(GATE_OUTSIDE, &in, got, &n);
	out.flags = SYN | ACK;
	out.seq = 5000;
	out.ack = 1001;
	q = out;
	q.src = FX_PUBLIC;
	q.sport = h.public.port;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_passes(GATE_INSIDE, &out, got, &n);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched"); /* not bound yet */
	in.flags = ACK;
	in.seq = 1001;
	in.ack = 5001;
	fx_passes(GATE_OUTSIDE, &in, got, &n);
	out.flags = ACK;
	out.seq = 5001;
	out.payload = data;
	out.n = sizeof(data);
	fx_passes(GATE_INSIDE, &out, got, &n);
	q = out;
	q.src = FX_PUBLIC;
	q.sport = h.public.port;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	w = error(UNREACHABLE, ROUTER, FX_SERVICE, &out, 40);
	fx_expect_out(GATE_OUTSIDE, &e, &w);
	q.dport = 4001; /* another's than the bound end */
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q.dport = 4000;
	q.dst = FX_OTHER;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q.dst = FX_CLIENT;
	fx_grant(h.hole)->expires -= 61 * GATE_NS_PER_S;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	fx_grant(h.hole)->expires += 61 * GATE_NS_PER_S;
	q.seq = 5102;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	q.seq = 5000;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	/* Closed: nothing is left to have errors. */
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	q.seq = 5001;
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &q, 40);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
}

/* It comes to the address that it is about. */
static void another_public_address(void **state)
{
	struct fx_packet inside = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = (const uint8_t *)"x", .n = 1};
	struct fx_packet outside = inside, e;
	uint8_t got[FX_FRAME];
	size_t n;

	(void)state;
	fx_close();
	fx_remove();
	fx_addr(&fx_config.public[1], "198.18.3.3", 0);
	fx_config.npublic = 2;
	fx_open();
	fx_config.npublic = 1;
	fx_passes(GATE_INSIDE, &inside, got, &n);
	outside.src = got[29] == 3 ? "198.18.3.3" : FX_PUBLIC;
	outside.sport = fx_sport(got);
	e = error(UNREACHABLE, ROUTER, got[29] == 3 ? FX_PUBLIC : "198.18.3.3", &outside, 0);
	fx_expect_drop(GATE_OUTSIDE, &e, "icmp_unmatched");
	e = error(UNREACHABLE, ROUTER, outside.src, &outside, 0);
	fx_passes(GATE_OUTSIDE, &e, got, &n);
}

/* The service's own host says that a port is closed, or a router inside that a link is small. */
static void from_inside(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, FX_CLIENT);
	struct gate_reply h;
	struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .payload = (const uint8_t *)"query", .n = 5}, qi, qo, e,
			 w;
	uint8_t got[FX_FRAME];
	size_t n;

	(void)state;
	r.remote.port = 4000;
	h = fx_apply(&r);
	in.dport = h.public.port;
	qo = qi = in;
	qi.dst = FX_SERVICE;
	qi.dport = 53;
	e = error(UNREACHABLE, FX_SERVICE, FX_CLIENT, &qi, 0);
	fx_expect_drop(GATE_INSIDE, &e, "icmp_unmatched");
	fx_passes(GATE_OUTSIDE, &in, got, &n);
	e = error(UNREACHABLE, FX_SERVICE, FX_CLIENT, &qi, 0);
	w = error(UNREACHABLE, FX_PUBLIC, FX_CLIENT, &qo, 0);
	fx_expect_out(GATE_INSIDE, &e, &w);
	e = error(UNREACHABLE, "198.18.100.3", FX_CLIENT, &qi, 0);
	fx_expect_out(GATE_INSIDE, &e, &w); /* an address inside does not leave */
	e.src = "198.18.100.130";
	fx_expect_drop(GATE_INSIDE, &e, "icmp_unmatched"); /* another tenant's host about our flow */
	e.src = FX_OTHER;
	fx_expect_drop(GATE_INSIDE, &e, "spoofed");
	e = error(UNREACHABLE, FX_SERVICE, FX_OTHER, &qi, 0); /* to whom it was not that sent it */
	fx_expect_drop(GATE_INSIDE, &e, "icmp_unmatched");
}

static void errors_are_few(void **state)
{
	struct fx_packet inside = {
		.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = (const uint8_t *)"x", .n = 1};
	struct fx_packet outside = inside, e;
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	unsigned passed = 0;
	size_t n;

	(void)state;
	outside.src = FX_PUBLIC;
	outside.sport = fx_opens(inside);
	e = error(UNREACHABLE, ROUTER, FX_PUBLIC, &outside, 0);
	n = fx_arriving(GATE_OUTSIDE, &e, frame);
	for (unsigned i = 0; i < 2000; i++)
		passed += fx_run(GATE_OUTSIDE, frame, n, out, NULL) == XDP_REDIRECT;
	assert_in_range(passed, 5, 500);
	assert_int_equal(fx_counter("icmp_rate"), 2000 - passed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(about_a_session),    FX_TEST(tcp_quoted_short),       FX_TEST(unmatched),
					   FX_TEST(tcp_in_flight_only), FX_TEST(another_public_address), FX_TEST(from_inside),
					   FX_TEST(errors_are_few)};

	return FX_RUN("gate dp icmp", tests);
}
