/* SPDX-License-Identifier: Apache-2.0 */
/* The reasons' names, and the table of them in doc/operations.md (argv[1]), which must not drift from the program. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "gate/reason.h"

static const char *manual;

static void names_lead_back(void **state)
{
	(void)state;
	assert_true(gate_reason_count() > 60);
	assert_string_equal(gate_reason_name(0), "none");
	for (unsigned i = 0; i < gate_reason_count(); i++) {
		const char *name = gate_reason_name(i);

		assert_int_equal(gate_reason_find(name), i);
		assert_true(strlen(name) > 2 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name));
		assert_false(gate_reason_is_drop(i) && gate_reason_is_pass(i));
	}
	assert_string_equal(gate_reason_name(gate_reason_count()), "unknown");
	assert_int_equal(gate_reason_find("unknown"), -1);
	assert_false(gate_reason_is_drop(gate_reason_count()) || gate_reason_is_pass(gate_reason_count()));
	assert_false(gate_reason_is_drop(0) || gate_reason_is_pass(0));
}

static const char *verdict(unsigned r)
{
	return gate_reason_is_drop(r) ? "drop" : gate_reason_is_pass(r) ? "pass" : "event";
}

/* Every reason once, in order, with its verdict and a meaning; and no row more. */
static void the_manual_tells_all(void **state)
{
	char line[1024], name[64], what[16], meaning[512];
	unsigned next = 1;
	bool inside = false;
	FILE *f = fopen(manual, "r");

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f) != NULL) {
		if (line[0] == '#')
			inside = strcmp(line, "## Reasons\n") == 0;
		if (!inside || line[0] != '|' || strncmp(line, "| reason |", 10) == 0 || strncmp(line, "|---", 4) == 0)
			continue;
		assert_int_equal(sscanf(line, "| %63[a-z0-9_] | %15[a-z] | %511[^|\n]|", name, what, meaning), 3);
		if (next >= gate_reason_count() || strcmp(name, gate_reason_name(next)) != 0)
			fprintf(stderr, "doc/operations.md has %s where %s is due\n", name, gate_reason_name(next));
		assert_string_equal(name, gate_reason_name(next));
		assert_string_equal(what, verdict(next));
		next++;
	}
	fclose(f);
	if (next < gate_reason_count())
		fprintf(stderr, "doc/operations.md ends before %s\n", gate_reason_name(next));
	assert_int_equal(next, gate_reason_count());
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_lead_back),
		cmocka_unit_test(the_manual_tells_all),
	};

	if (argc != 2) {
		fprintf(stderr, "usage: %s doc/operations.md\n", argv[0]);
		return 2;
	}
	manual = argv[1];
	return cmocka_run_group_tests_name("gate reasons", tests, NULL, NULL);
}
