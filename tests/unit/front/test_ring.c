/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "front/ring.h"

static void test_order_and_bounds(void **state)
{
	struct front_ring *r;
	static char big[40000];
	unsigned tenant, in = 0, out = 0;
	struct span m;

	(void)state;
	assert_int_equal(front_ring_new(1000, &r), -EINVAL);
	assert_int_equal(front_ring_new(65536, &r), 0);
	assert_false(front_ring_peek(r, &tenant, &m));
	assert_false(front_ring_push(r, 0, span_of(big, sizeof(big))));
	/* round and round, with sizes that do not divide it */
	for (unsigned i = 0; i < 5000; i++) {
		while (front_ring_push(r, in & 255, span_of(big, 1 + in * 37 % 9000)))
			in++;
		assert_false(front_ring_room(r, 1 + in * 37 % 9000));
		for (unsigned k = 0; k < 1 + i % 7 && front_ring_peek(r, &tenant, &m); k++) {
			assert_int_equal(tenant, out & 255);
			assert_int_equal(m.n, 1 + out * 37 % 9000);
			out++;
			front_ring_next(r);
		}
	}
	while (front_ring_peek(r, &tenant, &m)) {
		front_ring_next(r);
		out++;
	}
	assert_int_equal(in, out);
	assert_true(in > 5000);
	front_ring_free(r);
}

#define MESSAGES 20000u

static void *sender(void *arg)
{
	uint32_t buf[64];

	for (uint32_t i = 0; i < MESSAGES;) {
		size_t words = 1 + i % 64;

		for (size_t k = 0; k < words; k++)
			buf[k] = i;
		if (front_ring_push(arg, i & 15, span_of(buf, words * 4)))
			i++;
	}
	return NULL;
}

static void test_two_threads(void **state)
{
	struct front_ring *r;
	pthread_t th;
	unsigned tenant;
	struct span m;

	(void)state;
	assert_int_equal(front_ring_new(65536, &r), 0);
	assert_int_equal(pthread_create(&th, NULL, sender, r), 0);
	for (uint32_t i = 0; i < MESSAGES;) {
		uint32_t first, last;

		if (!front_ring_peek(r, &tenant, &m))
			continue;
		assert_int_equal(m.n, (1 + i % 64) * 4);
		memcpy(&first, m.p, 4);
		memcpy(&last, m.p + m.n - 4, 4);
		assert_int_equal(first, i);
		assert_int_equal(last, i);
		front_ring_next(r);
		i++;
	}
	pthread_join(th, NULL);
	front_ring_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_order_and_bounds), cmocka_unit_test(test_two_threads)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
