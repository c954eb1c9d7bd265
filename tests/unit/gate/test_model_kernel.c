/* SPDX-License-Identifier: Apache-2.0 */
/* The programs that the kernel runs against the reference: every frame's fate, its counter, every byte, every hole's record, to the
 * nanosecond. `make fuzz` walks a million frames from a seed of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "gate_walk_kernel.h"

static void same_as_the_reference(void **state)
{
	(void)state;
	assert_true(walk(&walk_kernel, 50000, 2));
	/* Not all of it may be refused: then nothing would have been compared. */
	assert_true(walk_tally.out > walk_tally.drop / 4);
}

static void same_without_translation(void **state)
{
	(void)state;
	walk_firewall();
	walk_kernel_again();
	assert_true(walk(&walk_kernel, 50000, 3));
	assert_true(walk_tally.out > walk_tally.drop / 4);
}

static void same_in_ipv6(void **state)
{
	(void)state;
	walk_six();
	walk_kernel_again();
	assert_true(walk(&walk_kernel, 50000, 4));
	assert_true(walk_tally.out > walk_tally.drop / 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_the_reference), cmocka_unit_test(same_without_translation),
					   cmocka_unit_test(same_in_ipv6)};
	int rc;

	if (!walk_kernel_up()) {
		printf("1..1\nok 1 # SKIP needs root\n");
		return 0;
	}
	rc = cmocka_run_group_tests_name("gate model kernel", tests, NULL, NULL);
	walk_kernel_down();
	return rc;
}
