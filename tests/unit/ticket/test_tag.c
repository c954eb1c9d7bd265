/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>

#include "base/b64.h"
#include "ticket/tag.h"

#define LATE ((TAG_WINDOW_WORDS - 1) * 64u)

static const uint8_t key[TAG_KEY_BYTES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* The SipHash-2-4 authors' vectors use this key over 00 01 02 …; a payload of n bytes whose counter continues the row is one of them. */
static void siphash_vectors(void **state)
{
	uint8_t packet[7 + TAG_BYTES];
	uint64_t counter;
	char mac[16];

	(void)state;
	tag_seal(packet, 0, 0x0001020304050607, key);
	hex_encode(packet + 8, 8, mac);
	assert_memory_equal(mac, "6224939a79f5f593", 16); /* 8 bytes of input */
	for (uint8_t i = 0; i < 7; i++)
		packet[i] = i;
	tag_seal(packet, 7, 0x0708090a0b0c0d0e, key);
	hex_encode(packet + 15, 8, mac);
	assert_memory_equal(mac, "e545be4961ca29a1", 16); /* 15 bytes: the SipHash paper's appendix A, least significant byte first */
	assert_true(tag_verify(packet, sizeof(packet), key, &counter));
	assert_true(counter == 0x0708090a0b0c0d0e);
}

static void forged(void **state)
{
	uint8_t packet[33 + TAG_BYTES] = "odd-sized payload of thirty-three";
	uint8_t other[TAG_KEY_BYTES];
	uint64_t counter = 0;

	(void)state;
	tag_seal(packet, 33, 5, key);
	assert_true(tag_verify(packet, sizeof(packet), key, &counter));
	assert_int_equal(counter, 5);
	for (unsigned bit = 0; bit < sizeof(packet) * 8; bit++) {
		packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(tag_verify(packet, sizeof(packet), key, &counter));
		packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	for (unsigned bit = 0; bit < 128; bit++) {
		memcpy(other, key, sizeof(other));
		other[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_false(tag_verify(packet, sizeof(packet), other, &counter));
	}
	for (size_t n = 0; n < sizeof(packet); n++) {
		uint8_t *copy = malloc(n != 0 ? n : 1);

		memcpy(copy, packet, n);
		assert_false(tag_verify(copy, n, key, &counter));
		free(copy);
	}
	assert_int_equal(counter, 5);
}

static void in_order(void **state)
{
	struct tag_window w = {0};

	(void)state;
	assert_false(tag_window_accept(&w, 0));
	for (uint64_t c = 1; c < 5000; c++) {
		assert_true(tag_window_accept(&w, c));
		assert_false(tag_window_accept(&w, c));
		assert_false(tag_window_accept(&w, 0));
	}
}

static void late(void **state)
{
	struct tag_window w = {0};

	(void)state;
	assert_true(tag_window_accept(&w, 5000));
	assert_false(tag_window_accept(&w, 5000 - LATE - 1));
	for (uint64_t c = 5000 - LATE; c < 5000; c++) {
		assert_true(tag_window_accept(&w, c));
		assert_false(tag_window_accept(&w, c));
	}
	assert_false(tag_window_accept(&w, 5000));
	assert_false(tag_window_accept(&w, 1));
}

/* Jumps of every size about the window's: what lay behind is forgotten as too old, what lies within is known as new. */
static void jumps(void **state)
{
	(void)state;
	for (uint64_t start = 1; start < 130; start += 7) {
		for (uint64_t jump = 1; jump < 3 * 1024; jump += 13) {
			struct tag_window w = {0};
			uint64_t top = start + jump;

			for (uint64_t c = 1; c <= start; c++)
				assert_true(tag_window_accept(&w, c));
			assert_true(tag_window_accept(&w, top));
			for (uint64_t c = 1; c <= top; c++) {
				bool fresh = c > start && c < top && top - c <= LATE;

				assert_int_equal(tag_window_accept(&w, c), fresh);
			}
		}
	}
}

static void top_end(void **state)
{
	struct tag_window w = {0};

	(void)state;
	assert_true(tag_window_accept(&w, 1));
	assert_true(tag_window_accept(&w, UINT64_MAX - 1));
	assert_true(tag_window_accept(&w, UINT64_MAX));
	assert_false(tag_window_accept(&w, UINT64_MAX));
	assert_true(tag_window_accept(&w, UINT64_MAX - LATE));
	assert_false(tag_window_accept(&w, UINT64_MAX - LATE - 1));
	/* There is no way round. */
	assert_false(tag_window_accept(&w, 0));
	assert_false(tag_window_accept(&w, 1));
	assert_false(tag_window_accept(&w, 2));
}

/* Against the definition, with counters in disorder. */
static void model(void **state)
{
	static bool seen[20000];
	struct tag_window w = {0};
	uint64_t top = 0, x = 12345;

	(void)state;
	for (unsigned i = 0; i < 60000; i++) {
		uint64_t c;
		bool want;

		x = x * 6364136223846793005u + 1442695040888963407u;
		c = i / 4 + (x >> 33) % 1500;
		want = c != 0 && !seen[c] && !(c < top && top - c > LATE);
		assert_int_equal(tag_window_accept(&w, c), want);
		if (want) {
			seen[c] = true;
			if (c > top)
				top = c;
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_vectors), cmocka_unit_test(forged),  cmocka_unit_test(in_order), cmocka_unit_test(late),
		cmocka_unit_test(jumps),           cmocka_unit_test(top_end), cmocka_unit_test(model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
