/* SPDX-License-Identifier: Apache-2.0 */
/* Protected addresses, through the real programs and in both families: nothing is translated, everything else holds as it does behind the
 * NAT. */
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

/* Where everybody lives. */
struct family {
	bool six;
	const char *service, *unlisted, *stranger, *client, *other, *router, *control;
	uint8_t icmp, ping, pong, unreachable, too_big, too_big_code;
	size_t payload_max; /* of a tagged datagram without the tag */
};

static const struct family four = {.service = FX_SERVICE,
				   .unlisted = "198.18.100.3",
				   .stranger = "198.18.101.2",
				   .client = FX_CLIENT,
				   .other = FX_OTHER,
				   .router = "198.18.9.9",
				   .control = FX_CONTROL,
				   .icmp = IPPROTO_ICMP,
				   .ping = 8,
				   .pong = 0,
				   .unreachable = 3,
				   .too_big = 3,
				   .too_big_code = 4,
				   .payload_max = 1472 - 16};
static const struct family six = {.six = true,
				  .service = FX_SERVICE6,
				  .unlisted = "2001:db8:100::3",
				  .stranger = "2001:db8:101::2",
				  .client = FX_CLIENT6,
				  .other = FX_OTHER6,
				  .router = "2001:db8:9::9",
				  .control = FX_CONTROL6,
				  .icmp = IPPROTO_ICMPV6,
				  .ping = 128,
				  .pong = 129,
				  .unreachable = 1,
				  .too_big = 2,
				  .payload_max = 1452 - 16};
static const struct family *f;

static int setup(void **state)
{
	f = *state;
	fx_protect(f->six ? NULL : f->service, f->six ? f->service : NULL);
	if (f->six) { /* beside a NAT */
		fx_addr(&fx_config.public[0], FX_PUBLIC, 0);
		fx_addr(&fx_config.control, FX_CONTROL, 7443);
	}
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

static struct fx_packet packet(uint8_t proto, const char *src, uint16_t sport, const char *dst, uint16_t dport)
{
	return (struct fx_packet){.proto = proto, .src = src, .dst = dst, .sport = sport, .dport = dport};
}

static struct fx_packet segment(const char *src, uint16_t sport, const char *dst, uint16_t dport, uint8_t flags, uint32_t seq, uint32_t ack)
{
	struct fx_packet p = packet(IPPROTO_TCP, src, sport, dst, dport);

	p.flags = flags;
	p.seq = seq;
	p.ack = ack;
	return p;
}

static struct fx_packet ping(const char *src, const char *dst, uint8_t type, uint16_t id)
{
	struct fx_packet p = packet(f->icmp, src, id, dst, id);

	p.icmp_type = type;
	return p;
}

/* It leaves as it came, one hop further. */
static void passes(int side, struct fx_packet p)
{
	fx_expect_out(side, &p, &p);
}

static void drops(int side, struct fx_packet p, const char *reason)
{
	fx_expect_drop(side, &p, reason);
}

static struct gate_request request(uint8_t proto, uint16_t port, const char *remote, uint16_t remote_port)
{
	struct gate_request r = fx_open_request(proto, port, remote);

	fx_addr(&r.inside, f->service, port);
	if (remote != NULL)
		fx_addr(&r.remote, remote, remote_port);
	if (proto == IPPROTO_TCP)
		r.syn_rate = 1000;
	return r;
}

static struct gate_reply open_hole(const struct gate_request *r)
{
	struct gate_reply h = fx_apply(r);
	char a[WN_ADDR_STR], b[WN_ADDR_STR];

	assert_int_equal(h.status, GATE_OK);
	assert_string_equal(wn_addr_str(&h.public, a), wn_addr_str(&r->inside, b));
	assert_true(wn_addr_eq(&h.inside, &r->inside));
	return h;
}

static struct gate_request tagged(uint16_t port, const char *remote, uint8_t key)
{
	struct gate_request r = request(IPPROTO_UDP, port, NULL, 0);

	if (remote != NULL)
		fx_addr(&r.remote, remote, 0);
	memset(r.key, key, sizeof(r.key));
	return r;
}

/* The handshake of a client's port with a service's. */
static void connect_from(const char *client, uint16_t sport, uint16_t port)
{
	passes(GATE_OUTSIDE, segment(client, sport, f->service, port, SYN, 1000, 0));
	passes(GATE_INSIDE, segment(f->service, port, client, sport, SYN | ACK, 5000, 1001));
	passes(GATE_OUTSIDE, segment(client, sport, f->service, port, ACK, 1001, 5001));
}

static void nothing_comes_in(void **state)
{
	(void)state;
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 22, SYN, 1, 0), "no_hole");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 22, ACK, 1, 1), "no_hole");
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 40000, f->service, 53), "no_hole");
	drops(GATE_OUTSIDE, ping(f->client, f->service, f->ping, 7), "icmp_type");
	drops(GATE_OUTSIDE, ping(f->client, f->service, f->pong, 7), "no_hole");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->unlisted, 22, SYN, 1, 0), "not_public");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->stranger, 22, SYN, 1, 0), "not_public");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->control, 7443, SYN, 1, 0), "not_public");
	drops(GATE_OUTSIDE, segment(f->service, 40000, f->service, 22, SYN, 1, 0), "no_hole");
}

static void tcp_hole(void **state)
{
	struct gate_request r = request(IPPROTO_TCP, 443, f->client, 0);
	struct gate_reply h = open_hole(&r);

	(void)state;
	drops(GATE_OUTSIDE, segment(f->other, 40000, f->service, 443, SYN, 1000, 0), "no_hole");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 444, SYN, 1000, 0), "no_hole");
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 40000, f->service, 443), "no_hole");
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 1000, 0), "no_hole");
	connect_from(f->client, 40000, 443);
	assert_int_equal(fx_counter("hole_bound"), 1);
	passes(GATE_INSIDE, segment(f->service, 443, f->client, 40000, ACK, 5001, 1001));
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 900000, 5001), "tcp_window");
	drops(GATE_OUTSIDE, segment(f->client, 40001, f->service, 443, SYN, 1000, 0), "wrong_remote"); /* it is taken */
	drops(GATE_OUTSIDE, segment(f->other, 40000, f->service, 443, ACK, 1001, 5001), "no_hole");
	/* The service speaks in its holes' flows only. */
	drops(GATE_INSIDE, segment(f->service, 443, f->other, 40000, SYN, 1, 0), "service_port");
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 1001, 5001), "no_hole");
	drops(GATE_INSIDE, segment(f->service, 443, f->client, 40000, ACK, 5001, 1001), "service_port");
}

static int count_used(const struct gate_reply *hole, void *arg)
{
	*(unsigned *)arg += hole->packets > 0;
	return 0;
}

/* What a web server's clients do: all on one port, some of them behind one address, and several connections each. */
static void many_at_one_port(void **state)
{
	struct gate_request a = request(IPPROTO_TCP, 443, f->client, 0), b = request(IPPROTO_TCP, 443, f->other, 0);
	struct gate_reply h[GATE_WAITING], last;
	unsigned used = 0;

	(void)state;
	open_hole(&b);
	for (unsigned i = 0; i < GATE_WAITING; i++)
		h[i] = open_hole(&a);
	assert_int_equal(fx_apply(&a).status, GATE_NO_PORT); /* so many of one address that nobody has come to */
	/* All handshakes at once: each finds a hole of its own. */
	for (uint16_t i = 0; i < GATE_WAITING; i++) {
		passes(GATE_OUTSIDE, segment(f->client, (uint16_t)(40000 + i), f->service, 443, SYN, 1000, 0));
		passes(GATE_OUTSIDE, segment(f->client, (uint16_t)(40000 + i), f->service, 443, SYN, 1000, 0)); /* again */
	}
	for (uint16_t i = 0; i < GATE_WAITING; i++) {
		passes(GATE_INSIDE, segment(f->service, 443, f->client, (uint16_t)(40000 + i), SYN | ACK, 5000, 1001));
		passes(GATE_OUTSIDE, segment(f->client, (uint16_t)(40000 + i), f->service, 443, ACK, 1001, 5001));
	}
	gate_dp_each(fx_dp, UINT32_MAX, wn_now_ms(), count_used, &used);
	assert_int_equal(used, GATE_WAITING);
	drops(GATE_OUTSIDE, segment(f->client, 41000, f->service, 443, SYN, 1000, 0), "wrong_remote"); /* all are taken */
	/* Those that are taken are in nobody's way. */
	last = open_hole(&a);
	connect_from(f->client, 41000, 443);
	connect_from(f->other, 40000, 443);
	for (unsigned i = 0; i < GATE_WAITING; i++)
		fx_apply_op(GATE_CLOSE, h[i].hole, 0);
	passes(GATE_OUTSIDE, segment(f->client, 41000, f->service, 443, ACK, 1001, 5001));
	fx_apply_op(GATE_CLOSE, last.hole, 0);
	drops(GATE_OUTSIDE, segment(f->client, 41000, f->service, 443, ACK, 1001, 5001), "no_hole");
	passes(GATE_OUTSIDE, segment(f->other, 40000, f->service, 443, ACK, 1001, 5001));
}

static void udp_hole(void **state)
{
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000);

	(void)state;
	open_hole(&r);
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 5001, f->service, 53), "wrong_remote");
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->other, 5000, f->service, 53), "no_hole");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 53, f->client, 5000), "service_port"); /* nobody has asked */
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 5000, f->service, 53));
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 53, f->client, 5000));
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 53, f->client, 5001), "service_port");
}

static void sealed(struct fx_packet p, const uint8_t key[16], uint64_t counter, size_t n, const char *reason)
{
	static uint8_t data[1600], with_tag[1600];
	struct fx_packet want = p;

	for (size_t i = 0; i < n; i++)
		data[i] = (uint8_t)(i * 7 + counter);
	p.payload = with_tag;
	p.n = fx_seal(key, counter, data, n, with_tag);
	want.payload = data;
	want.n = n;
	if (reason == NULL)
		fx_expect_out(GATE_OUTSIDE, &p, &want);
	else
		fx_expect_drop(GATE_OUTSIDE, &p, reason);
}

static void every_length(void **state)
{
	struct gate_request r = tagged(4500, f->client, 0x42);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500);

	(void)state;
	open_hole(&r);
	for (size_t n = 0; n <= f->payload_max; n++)
		sealed(p, r.key, n + 1, n, NULL);
	sealed(p, r.key, 1, 5, "tag_replay");
	r.key[0] ^= 1;
	sealed(p, r.key, 100000, 5, "tag_invalid");
	p.src = f->other;
	sealed(p, r.key, 100001, 5, "no_hole");
}

/* A computed checksum of zero is written as all ones: the payload is chosen so that it comes out. */
static void checksum_zero(void **state)
{
	struct gate_request r = tagged(4500, f->client, 0x42);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500), want;
	uint8_t frame[FX_FRAME], data[2] = {0, 0}, with_tag[32];
	const size_t at = 14 + (f->six ? 40 : 20) + 6;

	(void)state;
	open_hole(&r);
	want = p;
	want.payload = data;
	want.n = sizeof(data);
	fx_leaving(GATE_INSIDE, &want, frame);
	memcpy(data, frame + at, 2); /* the sum that is missing to all ones */
	fx_leaving(GATE_INSIDE, &want, frame);
	assert_memory_equal(frame + at, "\xff\xff", 2);
	p.payload = with_tag;
	p.n = fx_seal(r.key, 1, data, sizeof(data), with_tag);
	want.ttl = 63;
	fx_expect_out(GATE_OUTSIDE, &p, &want);
}

/* A hole that is over leaves its flow behind until it is swept: that keeps nobody out of the next one, on the very same ports. */
static void who_was_here_comes_again(void **state)
{
	struct gate_request r = tagged(4500, f->client, 0x42), next = tagged(4500, f->client, 0x43);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500);
	struct gate_reply h;

	(void)state;
	h = open_hole(&r);
	sealed(p, r.key, 1, 20, NULL);
	fx_grant(h.hole)->expires = 1;
	sealed(p, r.key, 2, 20, "hole_expired");
	open_hole(&next);
	sealed(p, next.key, 1, 20, NULL);
	sealed(p, next.key, 2, 20, NULL);
}

/* A client that gives its first attempt up has another from a port of its own, also while an earlier connection stands first in line. */
static void second_attempt(void **state)
{
	struct gate_request r = request(IPPROTO_TCP, 443, f->client, 0);

	(void)state;
	open_hole(&r);
	open_hole(&r);
	connect_from(f->client, 40000, 443);
	passes(GATE_OUTSIDE, segment(f->client, 40001, f->service, 443, SYN, 1000, 0));
	connect_from(f->client, 40002, 443);
}

static void tag_without_an_address(void **state)
{
	struct gate_request r = tagged(4500, NULL, 0x42), second = tagged(4500, NULL, 0x43), known = tagged(4500, f->other, 0x44);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500), q = p;
	struct gate_reply h;

	(void)state;
	open_hole(&r);
	assert_int_equal(fx_apply(&second).status, GATE_NO_PORT);
	second.inside.port = 4501;
	open_hole(&second);
	open_hole(&known);
	sealed(p, second.key, 1, 20, "tag_invalid");
	sealed(p, r.key, 1, 20, NULL);
	q.src = f->other;
	sealed(q, r.key, 2, 20, "tag_invalid");
	sealed(q, known.key, 1, 20, NULL);
	/* The first one has its source: the next may wait. */
	second.inside.port = 4500;
	h = open_hole(&second);
	q.sport = 5001;
	q.src = f->client;
	sealed(q, second.key, 1, 20, NULL);
	sealed(p, r.key, 2, 20, NULL);
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	sealed(q, second.key, 2, 20, "no_hole");
	sealed(p, r.key, 3, 20, NULL);
}

/* Two of one household: the tag says whose hole it is. */
static void tags_of_one_address(void **state)
{
	struct gate_request a = tagged(4500, f->client, 0x42), b = tagged(4500, f->client, 0x43);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500), q = p;

	(void)state;
	open_hole(&a);
	open_hole(&b);
	q.sport = 5001;
	sealed(q, b.key, 1, 9, NULL);
	sealed(p, a.key, 1, 9, NULL);
	sealed(p, b.key, 2, 9, "tag_invalid");
	sealed(q, b.key, 2, 9, NULL);
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 4500, f->client, 5000));
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 4500, f->client, 5001));
}

static void sessions(void **state)
{
	(void)state;
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 53, f->service, 6000), "no_hole");
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 53));
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 53, f->service, 6000));
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 54, f->service, 6000), "no_hole");
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->other, 53, f->service, 6000), "no_hole");
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->other, 53)); /* the same end to another remote */
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->other, 53, f->service, 6000));

	drops(GATE_INSIDE, segment(f->service, 6000, f->client, 80, ACK, 1, 1), "tcp_no_session");
	passes(GATE_INSIDE, segment(f->service, 6000, f->client, 80, SYN, 100, 0));
	drops(GATE_OUTSIDE, segment(f->client, 80, f->service, 6000, SYN | ACK, 500, 99), "tcp_ack");
	passes(GATE_OUTSIDE, segment(f->client, 80, f->service, 6000, SYN | ACK, 500, 101));
	passes(GATE_INSIDE, segment(f->service, 6000, f->client, 80, ACK, 101, 501));
	drops(GATE_OUTSIDE, segment(f->client, 80, f->service, 6000, RST, 7777, 0), "tcp_rst");

	passes(GATE_INSIDE, ping(f->service, f->client, f->ping, 9));
	passes(GATE_OUTSIDE, ping(f->client, f->service, f->pong, 9));
	drops(GATE_OUTSIDE, ping(f->client, f->service, f->pong, 10), "no_hole");
	drops(GATE_INSIDE, ping(f->service, f->client, f->pong, 9), "icmp_type");
	assert_int_equal(fx_counter("session_new"), 4);
	assert_int_equal(fx_counter("mapping_new"), 0);
}

static void who_may_send(void **state)
{
	(void)state;
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->unlisted, 6000, f->client, 53), "not_public");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->stranger, 6000, f->client, 53), "spoofed");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->client, 6000, f->other, 53), "spoofed");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->unlisted, 6000, f->service, 53), "hairpin");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->six ? "ff02::1" : "224.0.0.1", 53), "to_nowhere");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->six ? "fe80::1" : "127.0.0.1", 53), "to_nowhere");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->six ? "::ffff:198.18.4.2" : "0.0.0.1", 53), "to_nowhere");
}

/* What an agent may open: its own tenant's protected addresses, and only them. */
static void what_may_be_opened(void **state)
{
	struct gate_request r = request(IPPROTO_TCP, 22, f->client, 0);

	(void)state;
	fx_addr(&r.inside, f->unlisted, 22);
	assert_int_equal(fx_apply(&r).status, GATE_NOT_YOURS);
	fx_addr(&r.inside, f->control, 22);
	assert_int_equal(fx_apply(&r).status, GATE_NOT_YOURS);
	fx_addr(&r.inside, f->stranger, 22);
	assert_int_equal(fx_apply(&r).status, GATE_NOT_YOURS);
	fx_addr(&r.inside, f->service, 22);
	r.tenant = 1;
	assert_int_equal(fx_apply(&r).status, GATE_NOT_YOURS);
	r.tenant = 0;
	fx_addr(&r.remote, f->six ? FX_CLIENT : FX_CLIENT6, 0);
	assert_int_equal(fx_apply(&r).status, GATE_BAD_RECORD);
	fx_addr(&r.remote, f->six ? "fe80::1" : "127.0.0.1", 0);
	assert_int_equal(fx_apply(&r).status, GATE_BAD_RECORD);
	assert_int_equal(fx_counter("holes"), 0);
}

/* An ICMP error that quotes what left by the other side. */
static struct fx_packet error(uint8_t type, uint8_t code, const char *src, const char *dst, const struct fx_packet *quoted)
{
	static uint8_t bytes[FX_FRAME];
	struct fx_packet p = packet(f->icmp, src, 0, dst, 0);

	p.n = fx_leaving(GATE_OUTSIDE, quoted, bytes) - 14;
	memmove(bytes, bytes + 14, p.n);
	p.payload = bytes;
	p.icmp_type = type;
	p.icmp_code = code;
	return p;
}

static void errors(void **state)
{
	struct gate_request r = request(IPPROTO_TCP, 443, f->client, 0), u = request(IPPROTO_UDP, 53, f->client, 5000);
	struct fx_packet q = packet(IPPROTO_UDP, f->service, 6000, f->other, 53),
			 t = segment(f->service, 443, f->client, 40000, ACK, 5001, 1001),
			 in = packet(IPPROTO_UDP, f->client, 5000, f->service, 53), p;

	(void)state;
	drops(GATE_OUTSIDE, error(f->unreachable, 1, f->router, f->service, &q), "icmp_unmatched");
	passes(GATE_INSIDE, q);
	passes(GATE_OUTSIDE, error(f->unreachable, 1, f->router, f->service, &q));
	passes(GATE_OUTSIDE, error(f->too_big, f->too_big_code, f->router, f->service, &q));
	passes(GATE_OUTSIDE, error(f->six ? 3 : 11, 0, f->router, f->service, &q));
	passes(GATE_OUTSIDE, error(f->six ? 4 : 12, 0, f->router, f->service, &q));
	q.sport = 6001;
	drops(GATE_OUTSIDE, error(f->unreachable, 1, f->router, f->service, &q), "icmp_unmatched");
	q.src = f->other;
	drops(GATE_OUTSIDE, error(f->unreachable, 1, f->router, f->service, &q), "icmp_unmatched"); /* quotes another's */

	/* About a hole: what is in flight, and from inside what came. */
	open_hole(&r);
	open_hole(&u);
	connect_from(f->client, 40000, 443);
	t.payload = (const uint8_t *)"data";
	t.n = 4;
	passes(GATE_INSIDE, t);
	passes(GATE_OUTSIDE, error(f->too_big, f->too_big_code, f->router, f->service, &t));
	t.seq = 50001;
	drops(GATE_OUTSIDE, error(f->too_big, f->too_big_code, f->router, f->service, &t), "icmp_unmatched");
	p = error(f->unreachable, 4, f->service, f->client, &in);
	drops(GATE_INSIDE, p, "icmp_unmatched");
	passes(GATE_OUTSIDE, in);
	p = error(f->unreachable, 4, f->service, f->client, &in);
	passes(GATE_INSIDE, p);
	p = error(f->unreachable, 4, f->stranger, f->client, &in);
	drops(GATE_INSIDE, p, "spoofed");
	p = error(f->unreachable, 4, f->service, f->other, &in);
	drops(GATE_INSIDE, p, "icmp_unmatched");
}

/* Who is known is told of what does not fit: from inside, and in a flow; from an address of the gate's own. */
static void told(void **state)
{
	static const uint8_t data[1400];
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000);
	struct fx_packet out = packet(IPPROTO_UDP, f->service, 6000, f->client, 53),
			 in = packet(IPPROTO_UDP, f->client, 5000, f->service, 53);

	(void)state;
	open_hole(&r);
	passes(GATE_OUTSIDE, in);
	assert_int_equal(system("ip link set wan mtu 1300 && ip link set lan mtu 1300"), 0);
	out.payload = in.payload = data;
	out.n = in.n = sizeof(data);
	fx_expect_told(GATE_INSIDE, &out, "too_big_told", f->control, f->too_big, f->too_big_code, 1300);
	fx_expect_told(GATE_OUTSIDE, &in, "too_big_told", f->six ? "2001:db8:3::2" : "198.18.3.2", f->too_big, f->too_big_code, 1300);
	in.sport = 5001;
	fx_expect_drop(GATE_OUTSIDE, &in, "wrong_remote"); /* a stranger is not */
	assert_int_equal(system("ip link set wan mtu 1500 && ip link set lan mtu 1500"), 0);
	out.n = 0;
	out.ttl = 1;
	fx_expect_told(GATE_INSIDE, &out, "ttl", f->control, f->six ? 3 : 11, 0, 0);
}

static void ends(void **state)
{
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000), t = request(IPPROTO_TCP, 443, f->client, 0);
	struct fx_packet in = packet(IPPROTO_UDP, f->client, 5000, f->service, 53);
	uint8_t frame[FX_FRAME], got[FX_FRAME];
	struct gate_reply h;
	size_t n;

	(void)state;
	h = open_hole(&r);
	passes(GATE_OUTSIDE, in);
	fx_grant(h.hole)->expires = 1;
	drops(GATE_OUTSIDE, in, "hole_expired");
	fx_grant(h.hole)->expires = UINT64_MAX;
	passes(GATE_OUTSIDE, in);
	fx_grant(h.hole)->idle_ns = 1;
	/* The path's clock moves by ticks: at the next one it has been silent for longer. */
	n = fx_arriving(GATE_OUTSIDE, &in, frame);
	while (fx_run(GATE_OUTSIDE, frame, n, got, NULL) == XDP_REDIRECT)
		;
	assert_int_equal(fx_counter("hole_idle"), 1);
	h = open_hole(&t);
	fx_grant(h.hole)->connect_by = 1;
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, SYN, 1000, 0), "connect_late");
	in.ttl = 1;
	drops(GATE_OUTSIDE, in, "ttl");
}

/* A session that is over gives its five-tuple to a hole that waits for it. */
static void a_hole_after_a_session(void **state)
{
	struct gate_request r = request(IPPROTO_UDP, 6000, f->client, 53);
	struct fx_packet in = packet(IPPROTO_UDP, f->client, 53, f->service, 6000);
	struct gate_key k4 = {.local_port = htons(6000), .remote_port = htons(53), .proto = IPPROTO_UDP};
	struct gate_key6 k6 = {.local_port = htons(6000), .remote_port = htons(53), .proto = IPPROTO_UDP};
	const void *k = f->six ? (const void *)&k6 : &k4;
	const int fd = f->six ? fx_dp->flows6_fd : fx_dp->flows_fd;
	struct gate_flow flow;
	union gate_addr local, remote;
	struct wn_addr a;

	(void)state;
	fx_addr(&a, f->service, 0);
	gate_addr_from(&local, &a);
	fx_addr(&a, f->client, 0);
	gate_addr_from(&remote, &a);
	k4.local_ip = local.ip4;
	k4.remote_ip = remote.ip4;
	k6.local_ip = local.ip6;
	k6.remote_ip = remote.ip6;
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 53));
	open_hole(&r);
	passes(GATE_OUTSIDE, in);
	assert_int_equal(fx_counter("hole_bound"), 0); /* the session has it */
	assert_int_equal(fx_counter("flows"), 1);
	assert_int_equal(bpf_map_lookup_elem_flags(fd, k, &flow, BPF_F_LOCK), 0);
	flow.expires = 1;
	assert_int_equal(bpf_map_update_elem(fd, k, &flow, BPF_F_LOCK), 0);
	passes(GATE_OUTSIDE, in);
	assert_int_equal(fx_counter("hole_bound"), 1);
	assert_int_equal(fx_counter("flows"), 0);
}

static void the_sweep_frees(void **state)
{
	const int fd = f->six ? fx_dp->flows6_fd : fx_dp->flows_fd;
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000);
	struct gate_key6 k, *at = NULL;
	struct gate_flow flow;
	unsigned n = 0;

	(void)state;
	open_hole(&r);
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 5000, f->service, 53));
	for (uint16_t i = 0; i < 300; i++)
		passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, (uint16_t)(6000 + i), f->client, 53));
	gate_dp_sweep(fx_dp, wn_now_ms());
	for (; bpf_map_get_next_key(fd, at, &k) == 0; at = &k) {
		n++;
		assert_int_equal(bpf_map_lookup_elem_flags(fd, &k, &flow, BPF_F_LOCK), 0);
		flow.expires = 1;
		assert_int_equal(bpf_map_update_elem(fd, &k, &flow, BPF_F_LOCK), 0);
	}
	assert_int_equal(n, 301);
	gate_dp_sweep(fx_dp, wn_now_ms());
	assert_int_equal(bpf_map_get_next_key(fd, NULL, &k), 0); /* the hole's */
	assert_int_not_equal(bpf_map_get_next_key(fd, &k, &k), 0);
	assert_int_equal(fx_counter("flows"), 0);
}

static void after_a_restart(void **state)
{
	struct gate_request r = request(IPPROTO_TCP, 443, f->client, 0), u = tagged(4500, NULL, 0x42);
	const int fd_of_old = f->six ? fx_dp->waiting6_fd : fx_dp->waiting_fd;
	struct gate_reply h;
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 4500);
	struct gate_waiting_key6 k;
	struct gate_waiting w;

	(void)state;
	open_hole(&r);
	connect_from(f->client, 40000, 443);
	h = open_hole(&r);
	open_hole(&u);
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 53));
	/* A writer that was killed between two steps: a place of a grant that is none. */
	assert_int_equal(bpf_map_get_next_key(fd_of_old, NULL, &k), 0);
	assert_int_equal(bpf_map_lookup_elem(fd_of_old, &k, &w), 0);
	w.place[1] = 60;
	assert_int_equal(bpf_map_update_elem(fd_of_old, &k, &w, BPF_ANY), 0);
	fx_close();
	fx_open();
	assert_int_equal(bpf_map_lookup_elem(f->six ? fx_dp->waiting6_fd : fx_dp->waiting_fd, &k, &w), 0);
	assert_int_equal(w.place[1], 0);
	passes(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 1001, 5001));
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 53, f->service, 6000));
	connect_from(f->client, 40001, 443);
	sealed(p, u.key, 1, 30, NULL);
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	drops(GATE_OUTSIDE, segment(f->client, 40001, f->service, 443, ACK, 1001, 5001), "no_hole");
	/* One address more ends no flow; one that the file no longer has ends its own. */
	fx_close();
	if (f->six)
		fx_addr(&fx_config.protected6[fx_config.nprotected6++], f->unlisted, 0);
	else
		fx_addr(&fx_config.public[fx_config.npublic++], f -> unlisted, 0);
	fx_open();
	passes(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 1001, 5001));
	passes(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 53, f->service, 6000));
	fx_close();
	if (f->six)
		fx_config.protected6[0] = fx_config.protected6[--fx_config.nprotected6];
	else
		fx_config.public[0] = fx_config.public[--fx_config.npublic];
	fx_open();
	assert_int_equal(fx_counter("holes"), 0);
	drops(GATE_OUTSIDE, segment(f->client, 40000, f->service, 443, ACK, 1001, 5001), "not_public");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 54), "not_public");
}

static void tenants_share(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	struct fx_packet p;

	(void)state;
	/* Both families count against one quota of sessions. */
	fx_close();
	fx_remove();
	fx_config.flows = 300;
	fx_open();
	for (uint16_t i = 0; i < 200; i++)
		passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, (uint16_t)(6000 + i), f->client, 53));
	p = packet(IPPROTO_UDP, f->service, 7000, f->client, 53);
	fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL); /* its sender is told */
	assert_int_equal(fx_counter("tenant_full"), 1);
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 53));
	fx_config.flows = 4096;
}

/* ---- IPv6 alone: what its header and its neighbours bring with them ---- */

static size_t frame6(struct fx_packet p, uint8_t *out)
{
	return fx_arriving(GATE_OUTSIDE, &p, out);
}

static void extension_headers(void **state)
{
	static const struct {
		uint8_t next;
		const char *reason;
	} row[] = {{0, "ipv6_extension"},   {43, "ipv6_extension"},  {44, "fragment"},        {51, "ipv6_extension"},
		   {60, "ipv6_extension"},  {135, "ipv6_extension"}, {139, "ipv6_extension"}, {140, "ipv6_extension"},
		   {253, "ipv6_extension"}, {50, "protocol"},        {59, "protocol"},        {47, "protocol"},
		   {1, "protocol"},         {132, "protocol"},       {254, "ipv6_extension"}};
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000);
	uint8_t frame[FX_FRAME];
	size_t n;

	(void)state;
	open_hole(&r);
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		n = frame6(packet(IPPROTO_UDP, f->client, 5000, f->service, 53), frame);
		frame[14 + 6] = row[i].next;
		fx_expect_frame_drop(GATE_OUTSIDE, frame, n, row[i].reason);
	}
}

static void bad_headers(void **state)
{
	static const char *const source[] = {"::", "::1", "ff02::1", "ff0e::1", "::ffff:198.18.4.2", "::198.18.4.2", "fe80::1", "febf::1"};
	struct gate_request r = request(IPPROTO_UDP, 53, f->client, 5000);
	struct fx_packet p = packet(IPPROTO_UDP, f->client, 5000, f->service, 53);
	uint8_t frame[FX_FRAME];
	size_t n;

	(void)state;
	open_hole(&r);
	for (size_t i = 0; i < sizeof(source) / sizeof(source[0]); i++) {
		p.src = source[i];
		drops(GATE_OUTSIDE, p, "ip_source");
	}
	p.src = f->client;
	p.fx = FX_NO_CSUM;
	drops(GATE_OUTSIDE, p, "udp_checksum");
	p.fx = 0;
	p.ttl = 1;
	drops(GATE_OUTSIDE, p, "ttl");
	p.ttl = 0;
	n = frame6(p, frame);
	frame[14] = 0x50;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "ip_header");
	frame[14] = 0x60;
	frame[14 + 5]++;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "truncated");
	frame[14 + 5] -= 2;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "l4_length");
	frame[14 + 5] = 0;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "l4_length");
	n = frame6(p, frame);
	fx_expect_frame_drop(GATE_OUTSIDE, frame, 14 + 39, "truncated");
	frame[5] ^= 1;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "other_mac");
	memcpy(frame, "\x33\x33\0\0\0\1", 6);
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "other_mac");
	passes(GATE_OUTSIDE, p);
}

/* A frame of neighbour discovery and its like: type, hop limit, addresses; 24 bytes of message. */
static size_t nd(uint8_t type, uint8_t hops, const char *src, const char *dst, const char *mac, uint8_t *frame)
{
	static const uint8_t target[16] = {0x20, 0x01};
	struct fx_packet p = packet(IPPROTO_ICMPV6, src, 0, dst, 0);
	size_t n;

	p.icmp_type = type;
	p.ttl = hops;
	p.payload = target;
	p.n = sizeof(target);
	n = fx_arriving(GATE_OUTSIDE, &p, frame);
	if (mac != NULL)
		memcpy(frame, mac, 6);
	return n;
}

static void neighbour_discovery(void **state)
{
	static const struct {
		uint8_t type, hops;
		const char *src, *dst, *mac, *reason; /* NULL: the host has it */
	} row[] = {
		{135, 255, "2001:db8:3::1", "ff02::1:ff00:2", "\x33\x33\xff\0\0\2", NULL},
		{135, 255, "::", "ff02::1:ff00:2", "\x33\x33\xff\0\0\2", NULL}, /* an address is looked for twice */
		{135, 255, "fe80::1", "2001:db8:3::2", NULL, NULL},
		{136, 255, "fe80::1", "2001:db8:3::2", NULL, NULL},
		{136, 255, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", NULL},
		{135, 255, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", "nd_invalid"},
		{135, 254, "fe80::1", "2001:db8:3::2", NULL, "nd_invalid"}, /* has crossed a router */
		{136, 64, "fe80::1", "2001:db8:3::2", NULL, "nd_invalid"},
		{135, 255, "fe80::1", "ff05::1:ff00:2", "\x33\x33\xff\0\0\2", "nd_invalid"},
		{135, 255, "fe80::1", "ff02::2", "\x33\x33\0\0\0\2", "nd_invalid"},
		{135, 255, "fe80::1", "ff02::1:ff00:2", NULL, "nd_invalid"},
		{133, 255, "fe80::1", "ff02::2", "\x33\x33\0\0\0\2", "nd_router"},
		{134, 255, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", "nd_router"},
		{134, 255, "fe80::1", "2001:db8:3::2", NULL, "nd_router"},
		{137, 255, "fe80::1", "2001:db8:3::2", NULL, "nd_router"},
		{130, 1, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", "mld"},
		{131, 1, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", "mld"},
		{143, 1, "fe80::1", "ff02::16", "\x33\x33\0\0\0\x16", "mld"},
		{128, 64, FX_CLIENT6, "ff02::1", "\x33\x33\0\0\0\1", "other_mac"},
		{128, 64, FX_CLIENT6, "2001:db8:3::2", NULL, "not_public"},
		{139, 64, FX_CLIENT6, FX_SERVICE6, NULL, "icmp_type"},
	};
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	uint64_t was;
	size_t n;

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		n = nd(row[i].type, row[i].hops, row[i].src, row[i].dst, row[i].mac, frame);
		if (row[i].reason != NULL) {
			fx_expect_frame_drop(GATE_OUTSIDE, frame, n, row[i].reason);
			continue;
		}
		was = fx_counter("discovery");
		if (fx_run(GATE_OUTSIDE, frame, n, out, NULL) != XDP_PASS || fx_counter("discovery") != was + 1)
			fail_msg("row %zu does not reach the host", i);
	}
	/* With a code, or cut short, it is none. */
	n = nd(135, 255, "fe80::1", "2001:db8:3::2", NULL, frame);
	frame[14 + 40 + 1] = 1;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "nd_invalid");
	frame[14 + 40 + 1] = 0;
	frame[14 + 5] = 23;
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "nd_invalid");
	/* The usual form of MLD has a hop-by-hop header. */
	n = nd(0, 1, "fe80::1", "ff02::1", "\x33\x33\0\0\0\1", frame);
	frame[14 + 6] = 0;
	memcpy(frame + 14 + 40, "\x3a\0\5\2\0\0\1\0\x82", 9);
	fx_expect_frame_drop(GATE_OUTSIDE, frame, n, "mld");
}

static void discovery_is_rated(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	size_t n = nd(135, 255, "fe80::1", "2001:db8:3::2", NULL, frame);
	unsigned passed = 0;

	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		passed += fx_run(GATE_OUTSIDE, frame, n, out, NULL) == XDP_PASS;
	assert_in_range(passed, 2000, 4000);
	assert_int_equal(fx_counter("nd_rate"), 5000 - passed);
}

/* The control address may be IPv6, with or without services that are. */
static void control6(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	struct fx_packet p = segment(f->service, 40000, FX_CONTROL6, 7443, SYN, 1, 0);

	(void)state;
	fx_close();
	fx_addr(&fx_config.control, FX_CONTROL6, 7443);
	fx_config.nprotected6 = 0;
	fx_open();
	assert_int_equal(fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL), XDP_PASS);
	p.dport = 22;
	drops(GATE_INSIDE, p, "to_host");
	p.dport = 7443;
	p.src = f->stranger;
	drops(GATE_INSIDE, p, "spoofed");
	drops(GATE_OUTSIDE, segment(f->client, 40000, FX_CONTROL6, 7443, SYN, 1, 0), "not_public");
	fx_addr(&fx_config.control, FX_CONTROL, 7443);
}

/* A gate whose file has no IPv6 does nothing with it. */
static void no_ip6(void **state)
{
	(void)state;
	fx_close();
	fx_remove();
	fx_config.nprotected6 = 0;
	fx_open();
	drops(GATE_OUTSIDE, packet(IPPROTO_UDP, f->client, 5000, f->service, 53), "ipv6");
	drops(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 53, f->client, 5000), "ipv6");
}

/* One gate translates IPv4 and protects IPv6 addresses. */
static void beside_a_nat(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, FX_CLIENT);
	struct fx_packet p = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 6000, .dport = 53}, in;
	uint8_t got[FX_FRAME];
	struct gate_reply h;
	size_t n;

	(void)state;
	passes(GATE_INSIDE, packet(IPPROTO_UDP, f->service, 6000, f->client, 53));
	fx_passes(GATE_INSIDE, &p, got, &n);
	assert_memory_equal(got + 14 + 12, "\xc6\x12\3\2", 4);
	r.remote.port = 5000;
	h = fx_apply(&r);
	assert_int_equal(h.status, GATE_OK);
	assert_true(wn_addr_is4(&h.public));
	in = (struct fx_packet){.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 5000, .dport = h.public.port};
	fx_passes(GATE_OUTSIDE, &in, got, &n);
	assert_memory_equal(got + 14 + 16, "\xc6\x12\x64\2", 4);
	assert_int_equal(fx_counter("flows"), 2);
}

#define SIX(name)                                                     \
	{                                                             \
#name, name, setup, teardown, (void *)(uintptr_t)&six \
	}
#define BOTH(name)                                                         \
	{#name, name, setup, teardown, (void *)(uintptr_t)&four},          \
	{                                                                  \
#name "_6", name, setup, teardown, (void *)(uintptr_t)&six \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(nothing_comes_in),
		BOTH(tcp_hole),
		BOTH(many_at_one_port),
		BOTH(who_was_here_comes_again),
		BOTH(second_attempt),
		BOTH(udp_hole),
		BOTH(every_length),
		BOTH(checksum_zero),
		BOTH(tag_without_an_address),
		BOTH(tags_of_one_address),
		BOTH(sessions),
		BOTH(who_may_send),
		BOTH(what_may_be_opened),
		BOTH(errors),
		BOTH(told),
		BOTH(ends),
		BOTH(a_hole_after_a_session),
		BOTH(the_sweep_frees),
		BOTH(after_a_restart),
		BOTH(tenants_share),
		SIX(extension_headers),
		SIX(bad_headers),
		SIX(neighbour_discovery),
		SIX(discovery_is_rated),
		SIX(control6),
		SIX(no_ip6),
		SIX(beside_a_nat),
	};
	int rc;

	if (!fx_up()) {
		printf("1..0 # SKIP needs root\n");
		return 0;
	}
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	fx_down();
	return rc;
}
