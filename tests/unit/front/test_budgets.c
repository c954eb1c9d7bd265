/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "front/budgets.h"

static void test_rate_and_burst(void **state)
{
	struct budgets *b;
	uint64_t now = 5000, key = 0x1234567800000001;
	unsigned got = 0;
	uint32_t wait;

	(void)state;
	assert_int_equal(budgets_new(4, &b), -EINVAL);
	assert_int_equal(budgets_new(1024, &b), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(budget_take(b, key, 20, now), 0);
	wait = budget_take(b, key, 20, now);
	assert_in_range(wait, 1, 51);
	/* another key has its own */
	assert_int_equal(budget_take(b, key + 1, 20, now), 0);
	assert_int_equal(budget_take(b, key, 20, now + wait), 0);
	for (unsigned ms = 0; ms < 10000; ms++)
		got += budget_take(b, key, 20, now + 1000 + ms) == 0;
	assert_in_range(got, 200, 220);
	/* without a limit */
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(budget_take(b, key + 2, 0, now), 0);
	budgets_free(b);
}

/* Many keys at once: those that are in use keep their state as long as there are idle ones to forget. */
static void test_many_keys(void **state)
{
	struct budgets *b;
	uint64_t now = 100000;

	(void)state;
	assert_int_equal(budgets_new(64, &b), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(budget_take(b, 42, 5, now), 0);
	for (uint64_t k = 0; k < 1000; k++)
		budget_take(b, k << 32 | 7, 1000000, now);
	assert_true(budget_take(b, 42, 5, now) > 0);
	budgets_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rate_and_burst), cmocka_unit_test(test_many_keys)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
