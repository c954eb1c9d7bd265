/* SPDX-License-Identifier: Apache-2.0 */
/* A forger who knows all of a flow's addresses and ports, and saw some of its datagrams, but neither the key nor where the windows stand:
 * of WALNUT_FORGER_PACKETS (100,000) packets none gets through, and whose flow it is notices nothing: every packet of his passes in
 * between, and the hole's record does not change by a bit: not its rates, its window, its idle time or its lifetime. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

#define BATCH 500 /* forged packets between two looks and one exchange of the user's */
#define RATE  10000

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

static uint64_t packets = 100000, seed = 1, drawn;

static uint32_t draw(void)
{
	uint64_t z = drawn += 0x9e3779b97f4a7c15ull;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (uint32_t)((z ^ (z >> 31)) >> 32);
}

static uint32_t below(uint32_t n)
{
	return (uint32_t)(((uint64_t)draw() * n) >> 32);
}

static int setup(void **state)
{
	drawn = seed;
	return fx_setup(state);
}

/* A hole with rates that the forgeries would use up many times over, were they held against its user. */
static struct gate_reply open_hole(struct gate_request *q, uint8_t proto, uint16_t port, uint8_t key)
{
	struct gate_reply said;

	*q = fx_open_request(proto, port, proto == IPPROTO_TCP ? FX_CLIENT : NULL);
	if (proto == IPPROTO_UDP)
		memset(q->key, key, sizeof(q->key));
	q->lifetime_s = 3600;
	q->idle_s = 600;
	q->packets_per_s = RATE;
	q->bytes_per_s = RATE * 1500;
	said = fx_apply(q);
	assert_int_equal(said.status, GATE_OK);
	return said;
}

struct seen {
	struct gate_hole hole;
	struct gate_grant grant;
};

static void look(uint64_t id, struct seen *s)
{
	memset(s, 0, sizeof(*s));
	assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(id), &s->hole));
	s->grant = *fx_grant(id);
}

static void unchanged(uint64_t id, const struct seen *before)
{
	struct seen now;

	look(id, &now);
	assert_memory_equal(&now, before, sizeof(now));
}

/* --- datagrams with a tag --- */

#define KEPT 16

struct udp_user {
	struct gate_request q;
	struct gate_reply said;
	uint64_t counter, sent;
	uint8_t kept[KEPT][128]; /* payload and tag of what he sent lately, and the forger saw */
	size_t nkept[KEPT];
};

static int send_udp(const struct udp_user *u, const char *src, uint16_t sport, const uint8_t *payload, size_t n)
{
	const struct fx_packet p = {.src = src, .dst = FX_PUBLIC, .sport = sport, .dport = u->said.public.port, .payload = payload, .n = n};
	uint8_t in[FX_FRAME], out[FX_FRAME];
	const size_t length = fx_arriving(GATE_OUTSIDE, &p, in);

	return fx_run(GATE_OUTSIDE, in, length, out, NULL);
}

static void udp_user_sends(struct udp_user *u)
{
	const size_t at = u->sent % KEPT;
	uint8_t payload[64];

	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)draw();
	u->nkept[at] = fx_seal(u->q.key, ++u->counter, payload, 16 + below(48), u->kept[at]);
	assert_int_equal(send_udp(u, FX_CLIENT, 40000, u->kept[at], u->nkept[at]), XDP_REDIRECT);
	u->sent++;
}

/* \return how long. */
static size_t forge_udp(const struct udp_user *u, uint8_t *p)
{
	static const uint8_t own_key[16] = "a key of his own";
	const size_t have = u->sent < KEPT ? u->sent : KEPT, at = below((uint32_t)have), other = (at + 1) % have;
	size_t n = u->nkept[at];

	memcpy(p, u->kept[at], n);
	switch (below(8)) {
	case 0: /* a counter that might come, and any MAC */
		n = below(64) + 16;
		for (size_t i = 0; i < n; i++)
			p[i] = (uint8_t)draw();
		if (below(2) != 0)
			memset(p + n - 16, 0, 6);
		return n;
	case 1: /* one bit of a real one */
		p[below((uint32_t)n)] ^= (uint8_t)(1u << below(8));
		return n;
	case 2: /* a real one again */
		return n;
	case 3: /* a real one's MAC under another counter */
		for (int i = 0; i < 8; i++)
			p[n - 16 + (size_t)i] = (uint8_t)((u->counter + 1 + below(3)) >> (56 - 8 * i));
		return n;
	case 4: /* cut */
		return below((uint32_t)n);
	case 5: /* longer */
		n += 1 + below(32);
		memset(p + u->nkept[at], (int)below(256), n - u->nkept[at]);
		return n;
	case 6: /* sealed, with another key */
		return fx_seal(own_key, u->counter + 1, p, n - 16, p);
	default: /* the tag's two halves of different datagrams */
		memcpy(p + n - 8, u->kept[other] + u->nkept[other] - 8, 8);
		return n;
	}
}

static void tagged_datagrams(void **state)
{
	static struct udp_user u, fresh;
	struct seen before;
	uint8_t payload[256];
	uint64_t forged = 0, delivered = 0;
	const uint64_t flows = fx_counter("flows");

	(void)state;
	memset(&u, 0, sizeof(u));
	u.said = open_hole(&u.q, IPPROTO_UDP, 5000, 0x42);
	for (int i = 0; i < 4; i++)
		udp_user_sends(&u);
	/* The forger saw this one's datagrams too, but they were the other hole's. */
	fresh = u;
	fresh.said = open_hole(&fresh.q, IPPROTO_UDP, 5001, 0x43);
	while (forged < packets) {
		look(u.said.hole, &before);
		for (int i = 0; i < BATCH && forged < packets; i++, forged++) {
			const size_t n = forge_udp(&u, payload);
			const struct udp_user *at = below(8) == 0 ? &fresh : &u;
			const bool elsewhere = below(4) == 0;

			delivered += send_udp(at, elsewhere ? FX_OTHER : FX_CLIENT, elsewhere && below(2) != 0 ? 40001 : 40000, payload,
					      n) != XDP_DROP;
		}
		assert_int_equal(delivered, 0);
		unchanged(u.said.hole, &before);
		udp_user_sends(&u);
	}
	printf("# seed %" PRIu64 ": %" PRIu64 " forged datagrams, %" PRIu64 " delivered; %" PRIu64 " of the user's, all delivered\n", seed,
	       forged, delivered, u.sent);
	look(u.said.hole, &before);
	assert_int_equal(before.hole.packets_in, u.sent);
	assert_int_equal(before.hole.replay.top, u.counter);
	assert_int_equal(fx_counter("flows"), flows);
	/* Nobody took the other hole's place either: its user's first datagram binds it. */
	fresh.counter = fresh.sent = 0;
	udp_user_sends(&fresh);
}

/* --- TCP --- */

#define WINDOW 65535u /* both advertise it, unscaled */
#define LAG    66000u /* how far an acknowledgement may lie back */

struct tcp_user {
	struct gate_request q;
	struct gate_reply said;
	uint32_t client, service; /* next number of each; all is acknowledged */
	uint64_t exchanged;
};

static int send_tcp(const struct tcp_user *u, int side, const char *src, uint16_t sport, uint8_t flags, uint32_t seq, uint32_t ack,
		    size_t n)
{
	static const uint8_t payload[1400];
	const struct fx_packet p = {.src = side == GATE_OUTSIDE ? src : FX_SERVICE,
				    .dst = side == GATE_OUTSIDE ? FX_PUBLIC : FX_CLIENT,
				    .sport = side == GATE_OUTSIDE ? sport : 22,
				    .dport = side == GATE_OUTSIDE ? u->said.public.port : 40000,
				    .proto = IPPROTO_TCP,
				    .flags = flags,
				    .seq = seq,
				    .ack = ack,
				    .window = (uint16_t)WINDOW,
				    .payload = payload,
				    .n = n};
	uint8_t in[FX_FRAME], out[FX_FRAME];
	const size_t length = fx_arriving(side, &p, in);

	return fx_run(side, in, length, out, NULL);
}

static void tcp_exchange(struct tcp_user *u)
{
	const size_t n = 1 + below(1400);

	assert_int_equal(send_tcp(u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK | PSH, u->client, u->service, n), XDP_REDIRECT);
	u->client += (uint32_t)n;
	assert_int_equal(send_tcp(u, GATE_INSIDE, NULL, 0, ACK | PSH, u->service, u->client, n), XDP_REDIRECT);
	u->service += (uint32_t)n;
	assert_int_equal(send_tcp(u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u->client, u->service, 0), XDP_REDIRECT);
	u->exchanged++;
}

static void tcp_connect(struct tcp_user *u)
{
	memset(u, 0, sizeof(*u));
	u->said = open_hole(&u->q, IPPROTO_TCP, 22, 0);
	u->client = 0u - 5000; /* it wraps soon */
	u->service = draw();
	assert_int_equal(send_tcp(u, GATE_OUTSIDE, FX_CLIENT, 40000, SYN, u->client++, 0, 0), XDP_REDIRECT);
	assert_int_equal(send_tcp(u, GATE_INSIDE, NULL, 0, SYN | ACK, u->service++, u->client, 0), XDP_REDIRECT);
	assert_int_equal(send_tcp(u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u->client, u->service, 0), XDP_REDIRECT);
	tcp_exchange(u);
}

/* What the windows leave to chance, in the numbers of who sees both ends: as far back as the service's window, as far ahead as it lets him
 * send; and acknowledging not what was never sent, nor the distant past. */
static bool seq_fits(const struct tcp_user *u, uint32_t seq, size_t n)
{
	return seq - (u->client - WINDOW - (uint32_t)n) <= 2 * WINDOW + (uint32_t)n;
}

static bool ack_fits(const struct tcp_user *u, uint32_t ack)
{
	return u->service - ack <= LAG;
}

struct forgery {
	uint8_t flags;
	uint32_t seq, ack;
	size_t n;
};

static uint32_t outside_seq(const struct tcp_user *u, size_t n)
{
	uint32_t seq;

	do
		seq = draw();
	while (seq_fits(u, seq, n));
	return seq;
}

static uint32_t outside_ack(const struct tcp_user *u)
{
	uint32_t ack;

	do
		ack = draw();
	while (ack_fits(u, ack));
	return ack;
}

static void forge_tcp(const struct tcp_user *u, struct forgery *f)
{
	static const uint8_t kinds[] = {ACK, ACK, ACK | PSH, ACK | FIN, ACK | SYN};
	const uint32_t few = below(3);

	f->flags = kinds[below(sizeof(kinds))];
	f->n = f->flags == ACK && below(2) != 0 ? 0 : below(1400);
	f->seq = u->client;
	f->ack = u->service;
	switch (below(10)) {
	case 0: /* blind */
		f->seq = draw();
		f->ack = draw();
		break;
	case 1: /* knows one of the two, which is more than he can */
		f->seq = outside_seq(u, f->n + 1);
		break;
	case 2:
		f->ack = outside_ack(u);
		break;
	case 3: /* as near as can be */
		f->seq = u->client + WINDOW + 1 + few;
		break;
	case 4:
		f->seq = u->client - WINDOW - (uint32_t)f->n - ((f->flags & (SYN | FIN)) ? 1 : 0) - 1 - few;
		break;
	case 5:
		f->ack = u->service + 1 + few;
		break;
	case 6: /* a storm of old ACKs */
		f->flags = ACK;
		f->n = 0;
		f->ack = u->service - LAG - 1 - few;
		break;
	case 7: /* in the window is not enough */
		f->flags = below(2) != 0 ? RST : RST | ACK;
		f->seq = below(2) != 0 ? draw() : below(2) != 0 ? u->client + 1 + few : u->client - 1 - few;
		f->n = 0;
		break;
	case 8:
		f->flags = SYN;
		f->seq = below(2) != 0 ? u->client : draw();
		f->n = 0;
		break;
	default: /* what no stack sends */
		f->flags = (uint8_t)below(16);
		if (f->flags == SYN || (f->flags & RST) != 0)
			f->seq = draw();
		break;
	}
}

/* Whether he has guessed what lets a segment through. */
static bool guessed(const struct tcp_user *u, const struct forgery *f)
{
	if (f->flags & RST)
		return f->seq == u->client;
	return seq_fits(u, f->seq, f->n + ((f->flags & (SYN | FIN)) ? 1 : 0)) && ack_fits(u, f->ack) && (f->flags & ACK);
}

static void segments(void **state)
{
	struct tcp_user u;
	struct seen before;
	uint64_t forged = 0, delivered = 0, skipped = 0;
	const uint64_t flows = fx_counter("flows");

	(void)state;
	tcp_connect(&u);
	while (forged < packets) {
		look(u.said.hole, &before);
		for (int i = 0; i < BATCH && forged < packets; i++) {
			const bool elsewhere = below(8) == 0;
			struct forgery f;

			forge_tcp(&u, &f);
			/* A blind one may be right by chance: that is no forgery that was let through, and is counted apart. */
			if (guessed(&u, &f)) {
				skipped++;
				continue;
			}
			forged++;
			delivered +=
				send_tcp(&u, GATE_OUTSIDE, elsewhere ? FX_OTHER : FX_CLIENT, 40000, f.flags, f.seq, f.ack, f.n) != XDP_DROP;
			if (delivered != 0) {
				fprintf(stderr, "seed %" PRIu64 ", forgery %" PRIu64 ": flags %02x, seq %d off, ack %d off, %zu bytes\n",
					seed, forged, f.flags, (int32_t)(f.seq - u.client), (int32_t)(f.ack - u.service), f.n);
				fail();
			}
		}
		unchanged(u.said.hole, &before);
		tcp_exchange(&u);
	}
	printf("# seed %" PRIu64 ": %" PRIu64 " forged segments, %" PRIu64 " delivered, %" PRIu64
	       " were inside by chance and are not among them; %" PRIu64 " exchanges of the user's, all delivered\n",
	       seed, forged, delivered, skipped, u.exchanged);
	printf("# a blind segment is inside both windows of %u once in %.3g, a blind RST right once in %.3g\n", WINDOW,
	       4294967296.0 / (2 * WINDOW) * 4294967296.0 / LAG, 4294967296.0);
	assert_int_equal(fx_counter("flows"), flows);
}

/* The reverse of the above, so that it is not the generator that keeps the forger out: what is inside does pass. */
static void what_a_window_leaves(void **state)
{
	struct tcp_user u;

	(void)state;
	tcp_connect(&u);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u.client + WINDOW + 1, u.service, 0), XDP_DROP);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u.client - WINDOW - 1, u.service, 0), XDP_DROP);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u.client, u.service + 1, 0), XDP_DROP);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u.client, u.service - LAG - 1, 0), XDP_DROP);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, ACK, u.client - WINDOW, u.service - LAG, 0), XDP_REDIRECT);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, RST, u.client + 1, 0, 0), XDP_DROP);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, RST, u.client - 1, 0, 0), XDP_DROP);
	tcp_exchange(&u);
	assert_int_equal(send_tcp(&u, GATE_OUTSIDE, FX_CLIENT, 40000, RST, u.client, 0, 0), XDP_REDIRECT);
}

/* RFC 5927: an ICMP error counts only when it quotes what is in flight. */
static void icmp_errors(void **state)
{
	struct tcp_user u;
	struct seen before;
	uint64_t forged, delivered = 0;

	(void)state;
	tcp_connect(&u);
	look(u.said.hole, &before);
	for (forged = 0; forged < packets / 20; forged++) {
		static const uint8_t codes[] = {0, 1, 2, 3, 4, 13};
		uint8_t quote[28] = {0x45, 0, 0, 40, 0, 0, 0x40, 0, 63, IPPROTO_TCP}, frame[FX_FRAME], out[FX_FRAME];
		const struct fx_packet p = {
			.src = FX_CLIENT, .dst = FX_PUBLIC, .proto = IPPROTO_ICMP, .icmp_type = 3, .payload = quote, .n = sizeof(quote)};
		uint32_t seq = below(2) != 0 ? draw() : u.service - 2 + below(5);
		size_t n;

		if (seq == u.service)
			continue;
		inet_pton(AF_INET, FX_PUBLIC, quote + 12);
		inet_pton(AF_INET, FX_CLIENT, quote + 16);
		quote[20] = (uint8_t)(u.said.public.port >> 8);
		quote[21] = (uint8_t)u.said.public.port;
		quote[22] = 40000 >> 8;
		quote[23] = 40000 & 255;
		seq = htonl(seq);
		memcpy(quote + 24, &seq, 4);
		n = fx_arriving(GATE_OUTSIDE, &p, frame);
		frame[35] = codes[below(sizeof(codes))];
		fx_refill();
		delivered += fx_run(GATE_OUTSIDE, frame, n, out, NULL) != XDP_DROP;
	}
	printf("# seed %" PRIu64 ": %" PRIu64 " forged ICMP errors, %" PRIu64 " delivered\n", seed, forged, delivered);
	assert_int_equal(delivered, 0);
	unchanged(u.said.hole, &before);
	tcp_exchange(&u);
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fx_teardown)
	const struct CMUnitTest tests[] = {T(tagged_datagrams), T(segments), T(what_a_window_leaves), T(icmp_errors)};

	packets = from_env("WALNUT_FORGER_PACKETS", packets);
	seed = from_env("WALNUT_PROPERTY_SEED", seed);
	return FX_RUN("gate dp forger", tests);
}
