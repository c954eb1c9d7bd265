/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path's logic compiled as ordinary C, against other implementations and plain models. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "gate/bpf/bucket.h"
#include "gate/bpf/csum.h"
#include "gate/bpf/options.h"
#include "gate/bpf/parse.h"
#include "gate/bpf/replay.h"
#include "gate/bpf/siphash.h"
#include "gate/bpf/track.h"

static uint32_t seed = 1;

static uint32_t rnd(void)
{
	seed = seed * 1664525 + 1013904223;
	return seed >> 4;
}

static void tag_against_libsodium(void **state)
{
	uint8_t key[16], *p;
	__u64 k[2];

	(void)state;
	for (uint32_t n = 0; n <= 1472; n++) {
		/* Exactly as long as the packet: the sanitizer sees a read beyond it. */
		p = malloc(n + 16);
		assert_non_null(p);
		randombytes_buf(key, sizeof(key));
		randombytes_buf(p, n + 16);
		memcpy(k, key, 16);
		k[0] = GATE_LE64(k[0]);
		k[1] = GATE_LE64(k[1]);
		assert_false(gate_tag_check(p, p + n + 16, n, k[0], k[1]));
		crypto_shorthash(p + n + 8, p, n + 8, key);
		assert_true(gate_tag_check(p, p + n + 16, n, k[0], k[1]));
		p[randombytes_uniform(n + 16)] ^= (uint8_t)(1u << randombytes_uniform(8));
		assert_false(gate_tag_check(p, p + n + 16, n, k[0], k[1]));
		if (n > 0) { /* a packet that ends too early */
			crypto_shorthash(p + n + 8, p, n + 8, key);
			assert_false(gate_tag_check(p, p + n + 15, n, k[0], k[1]));
		}
		free(p);
	}
	p = calloc(1, 4096);
	assert_non_null(p);
	assert_false(gate_tag_check(p, p + 4096, GATE_TAG_DATA_MAX + 1, 0, 0));
	free(p);
}

static uint16_t full_sum(const uint8_t *p, size_t n)
{
	uint32_t s = 0;
	uint16_t w;

	for (size_t i = 0; i < n; i += 2) {
		w = 0;
		memcpy(&w, p + i, n - i < 2 ? 1 : 2);
		s += w;
	}
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void checksum_against_full(void **state)
{
	uint8_t b[64];
	uint16_t was16, is16, check;
	uint32_t was32, is32, sum;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		size_t n = 20 + rnd() % 44;

		for (size_t j = 0; j < n; j++) /* many zeroes and ones: where end-around carries go wrong */
			b[j] = rnd() % 4 == 0 ? 0xff : rnd() % 3 == 0 ? 0 : (uint8_t)rnd();
		b[0] = 0x45;
		check = full_sum(b, n);
		memcpy(&was16, b + 2, 2);
		is16 = rnd() % 4 == 0 ? 0 : rnd() % 3 == 0 ? 0xffff : (uint16_t)rnd();
		memcpy(b + 2, &is16, 2);
		memcpy(&was32, b + 12, 4);
		is32 = rnd() % 4 == 0 ? 0xffffffff : rnd();
		memcpy(b + 12, &is32, 4);
		sum = gate_sum_replace32(gate_sum_replace16(0, was16, is16), was32, is32);
		check = gate_csum_apply(check, sum);
		assert_int_equal(check, full_sum(b, n));
	}
	assert_int_equal(gate_csum_apply_udp(0, 12345), 0);
}

static void strip_against_full(void **state)
{
	uint8_t b[128];
	uint16_t check, want;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		size_t n = 1 + rnd() % 100;

		for (size_t j = 0; j < n + 16; j++)
			b[j] = rnd() % 3 == 0 ? 0xff : (uint8_t)rnd();
		b[0] |= 1;
		check = full_sum(b, n + 16);
		if (check == 0) /* as UDP would write it */
			check = 0xffff;
		{
			/* The tag stands at an even address in neither case that matters here: copy it as the path's loads see it. */
			_Alignas(2) uint8_t tag[16];

			memcpy(tag, b + n, 16);
			check = gate_csum_apply_udp(check, gate_sum_remove16bytes(tag, (int)(n & 1)));
		}
		want = full_sum(b, n);
		if (want == 0)
			want = 0xffff;
		assert_int_equal(check, want);
	}
}

static void replay_against_model(void **state)
{
	enum { SPAN = 8192 };
	static uint8_t seen[SPAN];
	struct gate_replay r;
	uint64_t base, top;

	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		memset(&r, 0, sizeof(r));
		memset(seen, 0, sizeof(seen));
		base = 0;
		top = 0;
		for (unsigned i = 0; i < 2000; i++) {
			/* Around the top mostly, sometimes far on or far back. */
			uint64_t c = top + rnd() % 40, back = rnd() % 1100;
			int want;

			if (rnd() % 16 == 0)
				c = top + rnd() % 1500;
			if (rnd() % 2 == 0)
				c = top > back ? top - back : rnd() % 3;
			if (c >= base + SPAN)
				break;
			want = c != 0 && !seen[c] && (c > top || top - c <= 960);
			assert_int_equal(gate_replay_accept(&r, c), want);
			if (want)
				seen[c] = 1;
			if (want && c > top)
				top = c;
		}
	}
	memset(&r, 0, sizeof(r));
	assert_true(gate_replay_accept(&r, UINT64_MAX));
	assert_false(gate_replay_accept(&r, UINT64_MAX));
	assert_false(gate_replay_accept(&r, 1));
	assert_true(gate_replay_accept(&r, UINT64_MAX - 960));
	assert_false(gate_replay_accept(&r, UINT64_MAX - 961));
}

static void bucket_keeps_its_rate(void **state)
{
	__u64 due = 0, now = 1000000;
	unsigned taken = 0;

	(void)state;
	/* 1,000 a second asked for ten times as often, for ten seconds. */
	for (unsigned i = 0; i < 100000; i++, now += 100000) {
		if (gate_bucket_empty(due, now, 250000000))
			continue;
		gate_bucket_charge(&due, now, 1000000);
		taken++;
	}
	assert_in_range(taken, 10000, 10000 + 252);
}

/* Whatever arrives, nothing beyond the frame is read; and what comes through is what it says. */
static void parser_on_garbage(void **state)
{
	static const uint8_t mac[6] = {2, 0, 0, 0, 3, 2};
	static const uint8_t start[] = {2,  0, 0, 0,    3, 2,  2,  0, 0, 0,   3,  1, 8, 0,   0x45, 0, 0,
					40, 0, 0, 0x40, 0, 64, 17, 0, 0, 198, 18, 4, 2, 198, 18,   3, 2};
	unsigned through = 0;

	(void)state;
	for (unsigned i = 0; i < 300000; i++) {
		size_t n = rnd() % 90;
		uint8_t *f = malloc(n + 2);
		struct gate_pkt p;
		int why;

		assert_non_null(f);
		for (size_t j = 0; j < n; j++)
			f[j] = j < sizeof(start) && rnd() % 64 != 0 ? start[j] : (uint8_t)rnd();
		if (n > 24)
			f[23] = (uint8_t[]){1, 6, 17, 17, 99}[rnd() % 5];
		if (n > 18) {
			f[16] = 0;
			f[17] = (uint8_t)(n - 14);
		}
		if (n > 40 && rnd() % 4 != 0) {
			f[38] = 0;
			f[39] = (uint8_t)(n - 34);
		}
		/* The frame ends where the allocation does, and its IP header stands as drivers place it. */
		memmove(f + 2, f, n);
		memset(&p, 0, sizeof(p));
		why = gate_parse(f + 2, f + 2 + n, mac, &p);
		assert_in_range(why, 0, GATE_REASON_COUNT - 1);
		if (why == 0) {
			through++;
			assert_true(p.len + 14u <= n);
			assert_true(p.payload + 28u <= p.len);
			if (p.proto == 6) {
				struct gate_tcp_opt o;

				assert_true(p.payload + 20u + p.doff == p.len && p.doff >= 20 && p.doff <= 60);
				gate_options_unpack(
					gate_options_parse(f + 2 + 54, f + 2 + n, p.doff - 20u, p.ack, (p.flags & GATE_SYN) != 0), &o);
			}
		}
		free(f);
	}
	assert_true(through > 1000);
}

static void options(void **state)
{
	enum { BAD = GATE_TCP_BAD };
	static const struct {
		uint8_t bytes[40];
		uint32_t n;
		int syn;
		uint8_t scale, flags;
		uint32_t sack;
	} row[] = {{{2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7}, 20, 1, 7, GATE_TCP_SCALE | GATE_TCP_SACK, 100},
		   {{3, 3, 7, 0}, 4, 0, 0, 0, 100}, /* only a SYN scales */
		   {{1, 1, 5, 10, 0, 0, 0, 200, 0, 0, 1, 0}, 12, 0, 0, 0, 256},
		   {{1, 1, 5, 18, 0, 0, 0, 200, 0, 0, 1, 0, 0, 0, 0, 150, 0, 0, 0, 160}, 20, 0, 0, 0, 256},
		   {{1, 1, 5, 10, 0, 0, 0, 10, 0, 0, 0, 20}, 12, 0, 0, 0, 100}, /* below the ACK: D-SACK */
		   {{0, 3, 3, 7}, 4, 1, 0, 0, 100},                             /* ends */
		   {{[0 ... 39] = 1}, 40, 1, 0, 0, 100},
		   {{2, 4, 0, 88, 3, 3, 14, 1}, 8, 1, 14, GATE_TCP_SCALE, 100},
		   {{34, 2, 19, 18}, 20, 1, 0, 0, 100},                       /* Fast Open, a signature: nobody's harm */
		   {{5, 34, 0, 0, 0, 200, 0, 0, 0, 201}, 10, 0, 0, BAD, 100}, /* a length that leads out of the header */
		   {{8, 1, 3, 3, 7}, 5, 1, 0, BAD, 100},
		   {{8, 0, 3, 3, 7}, 5, 1, 0, BAD, 100},
		   {{3, 3, 7, 4, 40}, 5, 1, 7, GATE_TCP_SCALE | BAD, 100},
		   {{5, 40, 0}, 3, 0, 0, BAD, 100},
		   {{1, 1, 1, 4}, 4, 1, 0, BAD, 100}, /* no length */
		   {{2, 4, 0, 87}, 4, 1, 0, BAD, 100},
		   {{2, 4, 0, 0}, 4, 1, 0, BAD, 100},
		   {{2, 3, 5, 1}, 4, 1, 0, BAD, 100},
		   {{3, 4, 7, 0}, 4, 1, 0, BAD, 100},
		   {{4, 3, 0, 1}, 4, 1, 0, GATE_TCP_SACK | BAD, 100},
		   {{8, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, 12, 1, 0, BAD, 100},
		   {{8, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1}, 12, 0, 0, BAD, 100},
		   {{3, 3, 7, 3, 3, 2, 1, 1}, 8, 1, 7, GATE_TCP_SCALE | BAD, 100}, /* which one counts? */
		   {{2, 4, 5, 0xb4, 2, 4, 5, 0xb4}, 8, 1, 0, BAD, 100},
		   {{5, 10, 0, 0, 0, 200, 0, 0, 1, 0, 1, 1}, 12, 1, 0, BAD, 100},        /* not in a SYN */
		   {{5, 11, 0, 0, 0, 200, 0, 0, 1, 0, 0, 1}, 12, 0, 0, BAD, 100},        /* not blocks */
		   {{5, 2, 1, 1}, 4, 0, 0, BAD, 100},                                    /* no block */
		   {{5, 10, 0, 0, 1, 0, 0, 0, 0, 200, 1, 1}, 12, 0, 0, BAD, 100},        /* reversed */
		   {{5, 10, 0, 0, 0, 200, 0, 0, 0, 200, 1, 1}, 12, 0, 0, BAD, 100},      /* empty */
		   {{5, 10, 0x40, 0, 0, 99, 0x40, 0, 0, 101, 1, 1}, 12, 0, 0, BAD, 100}, /* no window is so large */
		   {{5, 10, 0xc0, 0, 0, 100, 0, 0, 0, 101, 1, 1}, 12, 0, 0, BAD, 100},
		   {{5, 10, 0x40, 0, 0, 99, 0x40, 0, 0, 100, 1, 1}, 12, 0, 0, 0, 0x40000064},
		   {{5, 10, 0xc0, 0, 0, 98, 0xc0, 0, 0, 100, 1, 1}, 12, 0, 0, 0, 100},
		   {{5, 10, 0xc0, 0, 0, 98, 0xc0, 0, 0, 99, 1, 1}, 12, 0, 0, BAD, 100}};

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		uint8_t *b = malloc(row[i].n);
		struct gate_tcp_opt o;

		assert_non_null(b);
		memcpy(b, row[i].bytes, row[i].n);
		gate_options_unpack(gate_options_parse(b, b + row[i].n, row[i].n, 100, row[i].syn), &o);
		assert_int_equal(o.scale, row[i].scale);
		assert_int_equal(o.flags, row[i].flags);
		assert_int_equal(o.sack, row[i].sack);
		free(b);
	}
}

static struct gate_pkt seg(uint8_t flags, uint32_t seq, uint32_t ack, uint16_t n, uint16_t window)
{
	return (struct gate_pkt){.proto = 6, .flags = flags, .seq = seq, .ack = ack, .payload = n, .window = window};
}

/* Two ends that talk in earnest, with loss, repetition and reordering, across the wrap of both numbers: nothing of theirs is dropped. */
static void window_lets_honest_ends_talk(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 200; round++) {
		struct gate_tcp_opt none = {0}, syn = {.scale = (uint8_t)(rnd() % 15), .flags = GATE_TCP_SCALE | GATE_TCP_SACK};
		struct gate_track t;
		uint32_t isn[2] = {round % 2 ? 0xffff0000u + rnd() % 0x20000 : rnd() * 17, rnd() * 17}, sent[2], got[2], win = 65535;
		struct gate_pkt p;

		p = seg(GATE_SYN, isn[1], 0, 0, 65535);
		gate_track_open(&t, GATE_INSIDE, &p, &syn);
		p = seg(GATE_SYN | GATE_ACK, isn[0], isn[1] + 1, 0, 65535);
		assert_int_equal(gate_track_session(&t, GATE_OUTSIDE, &p, &syn), 0);
		p = seg(GATE_ACK, isn[1] + 1, isn[0] + 1, 0, 65535);
		none.sack = p.ack;
		assert_int_equal(gate_track_session(&t, GATE_INSIDE, &p, &none), 0);
		for (int s = 0; s < 2; s++) {
			sent[s] = isn[s] + 1;
			got[!s] = isn[s] + 1;
		}
		for (unsigned i = 0; i < 3000; i++) {
			const int s = rnd() % 2; /* who sends */
			uint16_t n = (uint16_t)(rnd() % 1460);
			uint32_t seq = sent[s];

			if (sent[s] + n - got[!s] > win) /* the window is full: repeat the oldest */
				seq = got[!s];
			else if (rnd() % 8 == 0)
				seq = got[!s] + (sent[s] - got[!s]) / 2;
			if (seq + n - sent[s] < 0x80000000u && sent[s] - got[!s] + n <= win && seq + n - sent[s] <= win)
				sent[s] = seq + n;
			else
				n = (uint16_t)(sent[s] - seq < n ? sent[s] - seq : n);
			p = seg(GATE_ACK, seq, got[s], n, 65535);
			none.sack = p.ack;
			assert_int_equal(gate_track_session(&t, s, &p, &none), 0);
			if (rnd() % 3 != 0 && seq == got[!s]) /* it arrives, in order */
				got[!s] = seq + n;
		}
		assert_int_equal(t.state, GATE_TCP_ESTABLISHED);
		/* A RST counts at the number that the receiver expects next, whatever the numbers began with. */
		for (int s = 0; s < 2; s++) {
			struct gate_track u = t;

			p = seg(GATE_ACK, sent[s], got[s], 0, 65535);
			none.sack = p.ack;
			assert_int_equal(gate_track_session(&u, s, &p, &none), 0);
			assert_int_equal(u.end[s].ack, got[s]);
			p = seg(GATE_RST, got[s] + 1, 0, 0, 0);
			if (got[s] + 1 != u.end[!s].end)
				assert_int_equal(gate_track_session(&u, !s, &p, &none), GATE_R_TCP_RST);
			p = seg(GATE_RST, got[s], 0, 0, 0);
			assert_int_equal(gate_track_session(&u, !s, &p, &none), 0);
			assert_int_equal(u.state, GATE_TCP_RESET);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(tag_against_libsodium),
					   cmocka_unit_test(checksum_against_full),
					   cmocka_unit_test(strip_against_full),
					   cmocka_unit_test(replay_against_model),
					   cmocka_unit_test(bucket_keeps_its_rate),
					   cmocka_unit_test(parser_on_garbage),
					   cmocka_unit_test(options),
					   cmocka_unit_test(window_lets_honest_ends_talk)};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("gate packet logic", tests, NULL, NULL);
}
