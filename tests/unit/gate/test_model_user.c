/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path as an ordinary program against the reference: every frame's fate, every byte, every hole's record, to the nanosecond. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "gate_user.h"
#include "gate_walk_user.h"

static void same_as_the_reference(void **state)
{
	(void)state;
	assert_true(walk(&walk_user, 50000, 1));
	/* Not all of it may be refused: then nothing would have been compared. */
	assert_true(walk_tally.out > walk_tally.drop / 4);
	gate_user_close();
}

static void same_without_translation(void **state)
{
	(void)state;
	walk_firewall();
	assert_true(walk(&walk_user, 50000, 3));
	assert_true(walk_tally.out > walk_tally.drop / 4);
	gate_user_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(same_as_the_reference), cmocka_unit_test(same_without_translation)};

	return cmocka_run_group_tests_name("gate model user", tests, NULL, NULL);
}
