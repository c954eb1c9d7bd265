/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>

#include "front/failures.h"

static void test_burst_and_forgiveness(void **state)
{
	const uint64_t key = 0x1234567800000001;
	struct failures *f;
	uint64_t now = 5000;

	(void)state;
	assert_int_equal(failures_new(2, &f), -EINVAL);
	assert_int_equal(failures_new(1024, &f), 0);
	for (unsigned i = 0; i < FAILURES_BURST; i++) {
		assert_false(failures_over(f, key, now));
		failures_add(f, key, now);
	}
	assert_true(failures_over(f, key, now));
	assert_false(failures_over(f, key + 1, now));
	assert_false(failures_over(f, key + (1ull << 32), now));
	assert_false(failures_over(f, key, now + FAILURES_EACH_MS));
	/* however often, it is forgiven after a time */
	for (unsigned i = 0; i < 1000; i++)
		failures_add(f, key, now);
	now += (FAILURES_MOST - FAILURES_BURST) * FAILURES_EACH_MS;
	assert_true(failures_over(f, key, now));
	assert_false(failures_over(f, key, now + FAILURES_EACH_MS));
	/* and begins anew */
	now += 100000;
	failures_add(f, key, now);
	assert_false(failures_over(f, key, now));
	failures_free(f);
}

/* Many keys: whoever fails all the time is remembered as long as others fail once. */
static void test_many_keys(void **state)
{
	struct failures *f;
	uint64_t now = 100000;

	(void)state;
	assert_int_equal(failures_new(64, &f), 0);
	for (unsigned i = 0; i < FAILURES_BURST; i++)
		failures_add(f, 42, now);
	for (uint64_t k = 1; k < 1000; k++)
		failures_add(f, k << 32 | 7, now);
	assert_true(failures_over(f, 42, now));
	failures_free(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_burst_and_forgiveness), cmocka_unit_test(test_many_keys)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
