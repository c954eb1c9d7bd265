/* SPDX-License-Identifier: Apache-2.0 */
/* The filter in front of the tables: whoever is wanted always gets through, what is gone is forgotten, and a flood is not looked into. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"

#define SESSIONS 12
#define HOLES    8

static uint16_t session(uint16_t sport, const char *dst, uint16_t dport)
{
	const struct fx_packet p = {.src = FX_SERVICE, .dst = dst, .sport = sport, .dport = dport, .payload = (const uint8_t *)"x", .n = 1};
	uint8_t out[FX_FRAME];
	size_t n;

	fx_passes(GATE_INSIDE, &p, out, &n);
	return fx_sport(out);
}

static void answer(const char *src, uint16_t sport, uint16_t port)
{
	const struct fx_packet p = {.src = src, .dst = FX_PUBLIC, .sport = sport, .dport = port, .payload = (const uint8_t *)"y", .n = 1};
	uint8_t out[FX_FRAME];
	size_t n;

	fx_passes(GATE_OUTSIDE, &p, out, &n);
}

static unsigned bits(uint32_t half)
{
	const uint32_t words = gate_filter_words(fx_dp->filter.size);
	unsigned n = 0;

	for (uint32_t i = 0; i < words; i++)
		n += (unsigned)__builtin_popcountll(fx_dp->filter.words[half * words + i]);
	return n;
}

/* Sweeps, a second apart, until the halves have been swapped so many times. */
static void swap(unsigned times, uint64_t *now_ms)
{
	for (unsigned i = 0; i < 40 && times > 0; i++) {
		const uint32_t half = fx_dp->meta->filter_half;

		gate_dp_sweep(fx_dp, *now_ms += 1000);
		times -= fx_dp->meta->filter_half != half;
	}
	assert_int_equal(times, 0);
}

/* Sessions and holes of either kind, old and new ones, before, in the middle of and after each filling. */
static void nobody_is_lost(void **state)
{
	struct gate_request known = fx_open_request(IPPROTO_UDP, 53, FX_CLIENT), tag = fx_open_request(IPPROTO_UDP, 54, NULL);
	struct gate_reply open[HOLES], tagged = fx_apply(&tag);
	uint16_t port[SESSIONS];
	uint64_t now_ms = wn_now_ms(), counter = 0;
	uint8_t sealed[64];

	(void)state;
	known.remote.port = 4000;
	for (unsigned round = 0; round < SESSIONS; round++) {
		port[round] = session((uint16_t)(5000 + round), FX_OTHER, (uint16_t)(100 + round));
		if (round < HOLES) {
			known.inside.port = (uint16_t)(60 + round);
			open[round] = fx_apply(&known);
			assert_int_equal(open[round].status, GATE_OK);
		}
		for (unsigned i = 0; i <= round; i++) {
			answer(FX_OTHER, (uint16_t)(100 + i), port[i]);
			if (i < HOLES)
				answer(FX_CLIENT, 4000, open[i].public.port);
		}
		{
			struct fx_packet in = {
				.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = tagged.public.port, .payload = sealed};
			uint8_t out[FX_FRAME];
			size_t n;

			in.n = fx_seal(tag.key, ++counter, (const uint8_t *)"x", 1, sealed);
			fx_passes(GATE_OUTSIDE, &in, out, &n);
		}
		gate_dp_sweep(fx_dp, now_ms += 1000);
	}
	swap(3, &now_ms);
	for (unsigned i = 0; i < SESSIONS; i++)
		answer(FX_OTHER, (uint16_t)(100 + i), port[i]);
	for (unsigned i = 0; i < HOLES; i++)
		answer(FX_CLIENT, 4000, open[i].public.port);
}

static void what_is_gone_is_forgotten(void **state)
{
	struct gate_request known = fx_open_request(IPPROTO_UDP, 53, FX_CLIENT), tag = fx_open_request(IPPROTO_UDP, 54, NULL);
	struct gate_reply hole, tagged = fx_apply(&tag);
	uint64_t now_ms = wn_now_ms();
	struct gate_key k, next;
	struct gate_flow f;
	const struct fx_packet stranger = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = tagged.public.port};

	(void)state;
	known.remote.port = 4000;
	hole = fx_apply(&known);
	assert_int_equal(hole.status, GATE_OK);
	assert_int_not_equal(bits(fx_dp->meta->filter_half), 0);
	session(5000, FX_OTHER, 100);
	fx_apply_op(GATE_CLOSE, hole.hole, 0);
	fx_expect_drop(GATE_OUTSIDE, &stranger, "tag_short");
	fx_apply_op(GATE_CLOSE, tagged.hole, 0);
	fx_expect_drop(GATE_OUTSIDE, &stranger, "no_hole");
	for (void *at = NULL; bpf_map_get_next_key(fx_dp->flows_fd, at, &next) == 0; at = &k) {
		k = next;
		assert_int_equal(bpf_map_lookup_elem_flags(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
		f.expires = 1;
		assert_int_equal(bpf_map_update_elem(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
	}
	swap(3, &now_ms);
	assert_int_equal(bits(fx_dp->meta->filter_half), 0);
	for (uint32_t i = 0; i < fx_dp->nports / 64; i++)
		assert_int_equal(fx_dp->filter.anyone[i], 0);
}

/* The filter outlives its daemon; the next one finds the sessions in it, and its holes. */
static void a_restart_keeps_it(void **state)
{
	struct gate_request tag = fx_open_request(IPPROTO_UDP, 54, NULL);
	struct gate_reply hole = fx_apply(&tag);
	const uint16_t port = session(5000, FX_OTHER, 100);
	uint8_t sealed[64], out[FX_FRAME];
	struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = hole.public.port, .payload = sealed};
	size_t n;

	(void)state;
	fx_close();
	fx_open();
	answer(FX_OTHER, 100, port);
	in.n = fx_seal(tag.key, 1, (const uint8_t *)"x", 1, sealed);
	fx_passes(GATE_OUTSIDE, &in, out, &n);
}

/* Why a stranger is dropped is looked up a thousand times a sweep, not more. */
static void a_flood_is_not_looked_into(void **state)
{
	const uint16_t port = session(5000, FX_OTHER, 100);
	struct fx_packet p = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = port};
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	size_t n = fx_arriving(GATE_OUTSIDE, &p, frame), nout;
	uint64_t before;

	(void)state;
	fx_refill();
	before = fx_counter("no_session");
	for (unsigned i = 0; i < 1500; i++)
		assert_int_equal(fx_run(GATE_OUTSIDE, frame, n, out, &nout), XDP_DROP);
	assert_in_range(fx_counter("no_session") - before, 1000, 1000 * (uint64_t)fx_dp->cpus);
	assert_int_equal(fx_counter("no_session") - before + fx_counter("no_hole"), 1500);
	gate_dp_sweep(fx_dp, wn_now_ms());
	fx_expect_drop(GATE_OUTSIDE, &p, "no_session");
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(nobody_is_lost), FX_TEST(what_is_gone_is_forgotten), FX_TEST(a_restart_keeps_it),
					   FX_TEST(a_flood_is_not_looked_into)};
	int rc;

	if (!fx_up()) {
		printf("1..1\nok 1 # SKIP needs root\n");
		return 0;
	}
	rc = cmocka_run_group_tests_name("gate dp filter", tests, NULL, NULL);
	fx_down();
	return rc;
}
