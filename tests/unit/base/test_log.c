/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"

static int end[2], saved;
static char line[4096];

static int divert(void **state)
{
	(void)state;
	saved = dup(2);
	return pipe(end) == 0 && dup2(end[1], 2) == 2 ? 0 : -1;
}

static int restore(void **state)
{
	(void)state;
	dup2(saved, 2);
	close(saved);
	close(end[0]);
	close(end[1]);
	unsetenv("JOURNAL_STREAM");
	return 0;
}

static const char *heard(void)
{
	ssize_t n = read(end[0], line, sizeof(line) - 1);

	assert_true(n >= 0);
	line[n] = 0;
	return line;
}

static void levels(void **state)
{
	(void)state;
	wn_log_init("walnut-test", WN_LOG_INFO);
	wn_err("one %d", 1);
	assert_string_equal(heard(), "walnut-test: error: one 1\n");
	wn_warn("two");
	assert_string_equal(heard(), "walnut-test: warning: two\n");
	wn_debug("not shown");
	wn_info("three");
	assert_string_equal(heard(), "walnut-test: three\n");
	wn_log_init("walnut-test", WN_LOG_DEBUG);
	wn_debug("four");
	assert_string_equal(heard(), "walnut-test: debug: four\n");
}

static void one_line_whatever_it_quotes(void **state)
{
	char big[3000];

	(void)state;
	wn_log_init("t", WN_LOG_INFO);
	wn_info("user %s", "bob\nt: error: forged\x1b[2J\x7f\r");
	assert_string_equal(heard(), "t: user bob?t: error: forged?[2J??\n");
	memset(big, 'x', sizeof(big));
	big[sizeof(big) - 1] = 0;
	wn_info("%s", big);
	heard();
	assert_int_equal(strlen(line), 1024);
	assert_int_equal(strchr(line, '\n') - line, 1023);
}

static void priorities_for_the_journal(void **state)
{
	char id[64];
	struct stat st;

	(void)state;
	assert_int_equal(fstat(2, &st), 0);
	snprintf(id, sizeof(id), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	setenv("JOURNAL_STREAM", id, 1);
	wn_log_init("t", WN_LOG_INFO);
	wn_warn("low");
	assert_string_equal(heard(), "<4>low\n");
	setenv("JOURNAL_STREAM", "1:2", 1); /* somebody else's stream, inherited */
	wn_log_init("t", WN_LOG_INFO);
	wn_warn("low");
	assert_string_equal(heard(), "t: warning: low\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(levels, divert, restore),
		cmocka_unit_test_setup_teardown(one_line_whatever_it_quotes, divert, restore),
		cmocka_unit_test_setup_teardown(priorities_for_the_journal, divert, restore),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
