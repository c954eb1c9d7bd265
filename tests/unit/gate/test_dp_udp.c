/* SPDX-License-Identifier: Apache-2.0 */
/* UDP holes through the real programs: tag, binding, replay, strip, lifetime. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

static void no_hole(void **state)
{
	struct fx_packet p = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = 5000, .payload = (const uint8_t *)"x", .n = 1};

	(void)state;
	fx_expect_drop(GATE_OUTSIDE, &p, "no_hole");
	p.dst = "198.18.3.3";
	fx_expect_drop(GATE_OUTSIDE, &p, "not_public");
}

static void tag_every_length(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t payload[1504], sealed[1600];
	uint64_t counter = 1;

	(void)state;
	assert_int_equal(h.status, GATE_OK);
	assert_true(h.hole != 0 && h.public.port >= 1024);
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 131 + 7);
	for (size_t n = 0; n <= 1472; n++) {
		for (int none = 0; none < 2; none++) {
			struct fx_packet in = {
				.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = h.public.port, .payload = sealed};
			struct fx_packet out = {
				.src = FX_CLIENT, .dst = FX_SERVICE, .sport = 4000, .dport = 53, .payload = payload, .n = n};

			in.fx = out.fx = none ? FX_NO_CSUM : 0;
			in.n = fx_seal(r.key, counter++, payload, n, sealed);
			fx_expect_out(GATE_OUTSIDE, &in, &out);
		}
	}
}

static struct fx_packet from(const char *src, uint16_t sport, uint16_t dport, const uint8_t *payload, size_t n)
{
	return (struct fx_packet){.src = src, .dst = FX_PUBLIC, .sport = sport, .dport = dport, .payload = payload, .n = n};
}

static struct fx_packet to_service(const char *src, uint16_t sport, uint16_t port, const char *text)
{
	return (struct fx_packet){
		.src = src, .dst = FX_SERVICE, .sport = sport, .dport = port, .payload = (const uint8_t *)text, .n = strlen(text)};
}

/* What the service answers, and how it must leave. */
static struct fx_packet answer(uint16_t port, const char *dst, uint16_t dport)
{
	return (struct fx_packet){
		.src = FX_SERVICE, .dst = dst, .sport = port, .dport = dport, .payload = (const uint8_t *)"answer", .n = 6};
}

static void tag_is_checked(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t sealed[64], key[16];
	struct fx_packet in = from(FX_CLIENT, 4000, h.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "hello");

	(void)state;
	in.n = fx_seal(r.key, 5, (const uint8_t *)"hello", 5, sealed);
	/* Every bit of it counts: payload, counter, MAC. */
	for (size_t i = 0; i < in.n * 8; i++) {
		sealed[i / 8] ^= (uint8_t)(1 << (i % 8));
		fx_expect_drop(GATE_OUTSIDE, &in, "tag_invalid");
		sealed[i / 8] ^= (uint8_t)(1 << (i % 8));
	}
	memset(key, 0, sizeof(key));
	in.n = fx_seal(key, 5, (const uint8_t *)"hello", 5, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "tag_invalid");
	for (in.n = 0; in.n < 16; in.n++)
		fx_expect_drop(GATE_OUTSIDE, &in, "tag_short");
	in.n = fx_seal(r.key, 0, (const uint8_t *)"hello", 5, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "tag_replay");
	/* None of that has bound the hole. */
	in.src = FX_OTHER;
	out.src = FX_OTHER;
	in.n = fx_seal(r.key, 5, (const uint8_t *)"hello", 5, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
}

static void replay_window(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t sealed[64];
	struct fx_packet in = from(FX_CLIENT, 4000, h.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "x");
	static const struct {
		uint64_t counter;
		bool pass;
	} row[] = {{1, true},
		   {1, false},
		   {2, true},
		   {1000, true},
		   {1000, false},
		   {40, true},
		   {40, false},
		   {39, false},
		   {2, false},
		   {999, true},
		   {999, false},
		   {1001, true},
		   {41, true},
		   {40, false},
		   {1000000, true},
		   {1000000, false},
		   {1001, false},
		   {999999, true},
		   {999040, true},
		   {999039, false},
		   {999040, false},
		   {UINT64_MAX - 1, true},
		   {UINT64_MAX, true},
		   {UINT64_MAX, false},
		   {UINT64_MAX - 1, false},
		   {1000001, false}};

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		in.n = fx_seal(r.key, row[i].counter, (const uint8_t *)"x", 1, sealed);
		if (row[i].pass)
			fx_expect_out(GATE_OUTSIDE, &in, &out);
		else
			fx_expect_drop(GATE_OUTSIDE, &in, "tag_replay");
	}
}

static void first_valid_tag_binds(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t sealed[64];
	struct fx_packet in = from(FX_CLIENT, 4000, h.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "x");
	struct fx_packet reply = answer(53, FX_CLIENT, 4000), sent = reply;

	(void)state;
	fx_expect_drop(GATE_INSIDE, &reply, "service_port"); /* nothing leaves before somebody came in */
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	sent.src = FX_PUBLIC;
	sent.sport = h.public.port;
	fx_expect_out(GATE_INSIDE, &reply, &sent);
	reply.fx = sent.fx = FX_NO_CSUM;
	fx_expect_out(GATE_INSIDE, &reply, &sent);

	/* Another source or port with a valid tag does not take it over, nor does it use up the counter. */
	in.n = fx_seal(r.key, 2, (const uint8_t *)"x", 1, sealed);
	in.src = FX_OTHER;
	fx_expect_drop(GATE_OUTSIDE, &in, "wrong_remote");
	in.src = FX_CLIENT;
	in.sport = 4001;
	fx_expect_drop(GATE_OUTSIDE, &in, "wrong_remote");
	in.sport = 4000;
	fx_expect_out(GATE_OUTSIDE, &in, &out);

	/* The service reaches nobody else from that port, and no mapping carries what is left. */
	reply.dport = 4001;
	fx_expect_drop(GATE_INSIDE, &reply, "service_port");
	reply.dst = FX_OTHER;
	reply.dport = 4000;
	fx_expect_drop(GATE_INSIDE, &reply, "service_port");
}

static void close_and_expiry(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r), c;
	uint8_t sealed[64];
	struct fx_packet in = from(FX_CLIENT, 4000, h.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "x");
	struct fx_packet reply = answer(53, FX_CLIENT, 4000);
	struct gate_grant *g = fx_grant(h.hole);

	(void)state;
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	/* The path decides by the clock alone. */
	g->expires -= 61 * GATE_NS_PER_S;
	in.n = fx_seal(r.key, 2, (const uint8_t *)"x", 1, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "hole_expired");
	fx_expect_drop(GATE_INSIDE, &reply, "hole_expired");
	assert_int_equal(fx_apply_op(GATE_RENEW, h.hole, 60).status, GATE_NO_HOLE);

	h = fx_apply(&r);
	assert_int_equal(h.status, GATE_OK);
	in.dport = h.public.port;
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	c = fx_apply_op(GATE_RENEW, h.hole, 600);
	assert_int_equal(c.status, GATE_OK);
	assert_int_equal(c.lifetime_s, 600);
	in.n = fx_seal(r.key, 2, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out); /* undisturbed */
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	in.n = fx_seal(r.key, 3, (const uint8_t *)"x", 1, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "no_hole");
	/* A service does not reopen by a mapping what was closed. */
	fx_expect_drop(GATE_INSIDE, &reply, "service_port");
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_NO_HOLE);
}

static void idle_time(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h;
	struct gate_grant *g;
	uint8_t sealed[64];
	struct fx_packet in, out = to_service(FX_CLIENT, 4000, 53, "x"), reply = answer(53, FX_CLIENT, 4000);

	(void)state;
	r.idle_s = 30;
	h = fx_apply(&r);
	g = fx_grant(h.hole);
	in = from(FX_CLIENT, 4000, h.public.port, sealed, 0);
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	g->idle_ns = 1;
	fx_tick();
	in.n = fx_seal(r.key, 2, (const uint8_t *)"x", 1, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "hole_idle");
	fx_expect_drop(GATE_INSIDE, &reply, "hole_idle");
}

/* Granted, but never used: its idle time runs from the grant, in the path, not only in the sweep. */
static void unused_idle_time(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h;
	uint8_t sealed[64];
	struct fx_packet in;

	(void)state;
	r.idle_s = 30;
	h = fx_apply(&r);
	in = from(FX_CLIENT, 4000, h.public.port, sealed, 0);
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_grant(h.hole)->idle_ns = 1;
	fx_tick();
	fx_expect_drop(GATE_OUTSIDE, &in, "hole_idle");
}

static int offer(struct fx_packet *in, const uint8_t key[16], uint64_t *counter, size_t n)
{
	static const uint8_t payload[900];
	static uint8_t sealed[1000];
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	int passed = 0;

	in->payload = sealed;
	for (int i = 0; i < 10; i++) {
		in->n = fx_seal(key, (*counter)++, payload, n, sealed);
		passed += fx_run(GATE_OUTSIDE, frame, fx_arriving(GATE_OUTSIDE, in, frame), out, NULL) == XDP_REDIRECT;
	}
	return passed;
}

/* A burst of a quarter of a second is allowed; ten packets at once are more than that. */
static void rates(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h;
	struct fx_packet in;
	uint64_t counter = 1;

	(void)state;
	r.packets_per_s = 4;
	h = fx_apply(&r);
	in = from(FX_CLIENT, 4000, h.public.port, NULL, 0);
	assert_in_range(offer(&in, r.key, &counter, 1), 1, 3);
	assert_true(fx_counter("rate_packets") >= 7);
	r.packets_per_s = 0;
	r.bytes_per_s = 4000;
	h = fx_apply(&r);
	in = from(FX_CLIENT, 4002, h.public.port, NULL, 0);
	assert_in_range(offer(&in, r.key, &counter, 900), 1, 3);
	assert_true(fx_counter("rate_bytes") >= 7);
}

/* Only what was proved to be the user's counts against the user. */
static void spoofed_packets_cost_the_user_nothing(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h;
	uint8_t sealed[64];
	struct fx_packet in, out = to_service(FX_CLIENT, 4000, 53, "x");

	(void)state;
	r.packets_per_s = 100;
	h = fx_apply(&r);
	in = from(FX_CLIENT, 4000, h.public.port, sealed, 0);
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	in.n = fx_seal(r.key, 2, (const uint8_t *)"x", 1, sealed);
	sealed[0] ^= 1;
	for (int i = 0; i < 1000; i++)
		fx_expect_drop(GATE_OUTSIDE, &in, "tag_invalid");
	sealed[0] ^= 1;
	fx_expect_out(GATE_OUTSIDE, &in, &out);
}

static void untagged(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, FX_CLIENT);
	struct gate_reply h;
	struct fx_packet in = from(FX_CLIENT, 4000, 0, (const uint8_t *)"query", 5), out = to_service(FX_CLIENT, 4000, 53, "query");
	struct fx_packet reply = answer(53, FX_CLIENT, 4000), sent = reply;

	(void)state;
	assert_int_equal(fx_apply(&r).status, GATE_BAD_RECORD); /* a port is needed: nothing else would bind it */
	r.remote.port = 4000;
	h = fx_apply(&r);
	assert_int_equal(h.status, GATE_OK);
	in.dport = h.public.port;
	in.src = FX_OTHER;
	fx_expect_drop(GATE_OUTSIDE, &in, "wrong_remote");
	in.src = FX_CLIENT;
	in.sport = 4001;
	fx_expect_drop(GATE_OUTSIDE, &in, "wrong_remote");
	in.sport = 4000;
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	sent.src = FX_PUBLIC;
	sent.sport = h.public.port;
	fx_expect_out(GATE_INSIDE, &reply, &sent);
	/* TCP to the same number is another port. */
	in.proto = IPPROTO_TCP;
	in.flags = 2;
	fx_expect_drop(GATE_OUTSIDE, &in, "no_hole");
}

/* One service and one remote end through two public ports: answers could not be told apart. */
static void reverse_clash(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply a = fx_apply(&r), b;
	uint8_t sealed[64];
	struct fx_packet in = from(FX_CLIENT, 4000, a.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "x");
	struct fx_packet reply = answer(53, FX_CLIENT, 4000), sent = reply;

	(void)state;
	memset(r.key, 0x17, sizeof(r.key));
	b = fx_apply(&r);
	assert_int_equal(b.status, GATE_OK);
	assert_true(a.public.port != b.public.port);
	memset(r.key, 0x42, sizeof(r.key));
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	memset(r.key, 0x17, sizeof(r.key));
	in.dport = b.public.port;
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_expect_drop(GATE_OUTSIDE, &in, "reverse_clash");
	sent.src = FX_PUBLIC;
	sent.sport = a.public.port;
	fx_expect_out(GATE_INSIDE, &reply, &sent); /* the older flow is whole */
	/* When the older one is gone the newer may. */
	assert_int_equal(fx_apply_op(GATE_CLOSE, a.hole, 0).status, GATE_OK);
	fx_expect_out(GATE_OUTSIDE, &in, &out);
	sent.sport = b.public.port;
	fx_expect_out(GATE_INSIDE, &reply, &sent);
}

static void headers(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t sealed[64], frame[FX_FRAME], f[FX_FRAME];
	struct fx_packet in = from(FX_CLIENT, 4000, h.public.port, sealed, 0), out = to_service(FX_CLIENT, 4000, 53, "x");
	size_t n;

	(void)state;
	in.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	n = fx_arriving(GATE_OUTSIDE, &in, frame);
#define BENT(at, value, reason)                                   \
	do {                                                      \
		memcpy(f, frame, n);                              \
		f[at] = (value);                                  \
		fx_expect_frame_drop(GATE_OUTSIDE, f, n, reason); \
	} while (0)
	BENT(0, 0x02 ^ 0x04, "other_mac");
	BENT(12, 0x81, "vlan");
	BENT(12, 0x86, "ethertype");
	BENT(14, 0x46, "ip_options");
	BENT(14, 0x44, "ip_header");
	BENT(14, 0x65, "ip_header");
	BENT(16, 1, "truncated");
	BENT(20, 0x60, "fragment");
	BENT(21, 1, "fragment");
	BENT(23, 47, "protocol");
	BENT(26, 127, "ip_source");
	BENT(26, 0, "ip_source");
	BENT(26, 224, "ip_source");
	BENT(39, 1, "l4_length");
	BENT(39, 200, "l4_length");
	memcpy(f, frame, n);
	f[12] = 0x86;
	f[13] = 0xdd;
	fx_expect_frame_drop(GATE_OUTSIDE, f, n, "ipv6");
	memcpy(f, frame, n);
	f[34] = f[35] = 0;
	fx_expect_frame_drop(GATE_OUTSIDE, f, n, "l4_header");
	for (size_t cut = 14; cut < n; cut++)
		assert_int_equal(fx_run(GATE_OUTSIDE, frame, cut, f, NULL), XDP_DROP);
	in.ttl = 1;
	fx_expect_drop(GATE_OUTSIDE, &in, "ttl");
	in.ttl = 2;
	out.ttl = 1;
	fx_expect_out(GATE_OUTSIDE, &in, &out);

	/* A frame padded to 60 bytes: the tag is where the IP length says, and what follows goes with it. */
	in.ttl = 64;
	in.n = fx_seal(r.key, 2, (const uint8_t *)"", 0, sealed);
	n = fx_arriving(GATE_OUTSIDE, &in, frame);
	memset(frame + n, 0xee, 20);
	assert_int_equal(fx_run(GATE_OUTSIDE, frame, n + 20, f, &n), XDP_REDIRECT);
	assert_int_equal(n, 42);
}

static void arp_passes(void **state)
{
	uint8_t arp[60] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 3, 1, 8, 6}, out[FX_FRAME];
	int passed = 0;

	(void)state;
	for (int side = 0; side < GATE_SIDES; side++)
		assert_int_equal(fx_run(side, arp, sizeof(arp), out, NULL), XDP_PASS);
	/* A flood of it does not all reach the host. */
	for (int i = 0; i < 6000; i++)
		passed += fx_run(GATE_OUTSIDE, arp, sizeof(arp), out, NULL) == XDP_PASS;
	assert_true(passed < 6000);
	assert_true(fx_counter("arp_rate") > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		FX_TEST(no_hole),
		FX_TEST(tag_every_length),
		FX_TEST(tag_is_checked),
		FX_TEST(replay_window),
		FX_TEST(first_valid_tag_binds),
		FX_TEST(close_and_expiry),
		FX_TEST(idle_time),
		FX_TEST(unused_idle_time),
		FX_TEST(rates),
		FX_TEST(spoofed_packets_cost_the_user_nothing),
		FX_TEST(untagged),
		FX_TEST(reverse_clash),
		FX_TEST(headers),
		FX_TEST(arp_passes),
	};

	return FX_RUN("gate dp udp", tests);
}
