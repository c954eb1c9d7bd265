/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <string.h>

#include "front/histogram.h"

static void test_bounds(void **state)
{
	uint64_t from = 0;

	(void)state;
	/* without a gap, each up to a quarter of a doubling wide */
	for (unsigned i = 0; i + 1 < HISTOGRAM_BUCKETS; i++) {
		uint64_t to = histogram_bound(i);

		assert_true(to > from);
		assert_int_equal(histogram_bucket(from), i);
		assert_int_equal(histogram_bucket(to - 1), i);
		if (i > 0)
			assert_true((to - from) * HISTOGRAM_STEPS <= from);
		from = to;
	}
	assert_true(from == UINT64_C(1) << HISTOGRAM_LAST_BITS);
	assert_int_equal(histogram_bucket(from), HISTOGRAM_BUCKETS - 1);
	assert_int_equal(histogram_bucket(UINT64_MAX), HISTOGRAM_BUCKETS - 1);
	assert_true(histogram_bound(HISTOGRAM_BUCKETS - 1) == UINT64_MAX);
}

static void test_sums(void **state)
{
	static const uint64_t ns[] = {0, 63, 64, 255, 256, 1000, 1024, 999999999, 68719476735, 68719476736, 500000000000};
	static struct histogram h, other;
	struct histogram_sum s = {{0}, 0, 0};
	uint64_t sum = 0;

	(void)state;
	for (unsigned i = 0; i < sizeof(ns) / sizeof(ns[0]); i++) {
		histogram_add(i % 2 == 0 ? &h : &other, ns[i]);
		sum += ns[i];
	}
	histogram_merge(&s, &h);
	histogram_merge(&s, &other);
	assert_int_equal(s.count, sizeof(ns) / sizeof(ns[0]));
	assert_int_equal(s.sum_ns, sum);
	for (unsigned bits = HISTOGRAM_FIRST_BITS; bits <= HISTOGRAM_LAST_BITS; bits++) {
		uint64_t below = 0;

		for (unsigned i = 0; i < sizeof(ns) / sizeof(ns[0]); i++)
			below += ns[i] < UINT64_C(1) << bits;
		assert_int_equal(histogram_below(&s, bits), below);
	}
}

static void *add_many(void *arg)
{
	for (unsigned i = 0; i < 200000; i++)
		histogram_add(arg, i);
	return NULL;
}

static void test_read_meanwhile(void **state)
{
	static struct histogram h;
	pthread_t t;
	uint64_t last = 0;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, add_many, &h), 0);
	while (last < 200000) {
		struct histogram_sum s = {{0}, 0, 0};

		histogram_merge(&s, &h);
		assert_true(s.count >= last);
		last = s.count;
	}
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_sums),
		cmocka_unit_test(test_read_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
