/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/span.h"

static void caseeq(void **state)
{
	(void)state;
	assert_true(span_caseeq(SPAN_LIT("Call-ID"), SPAN_LIT("cALL-id")));
	assert_false(span_caseeq(SPAN_LIT("Call-ID"), SPAN_LIT("Call-I")));
	/* '[' and '{' differ in the bit that letters' cases differ in. */
	assert_false(span_caseeq(SPAN_LIT("["), SPAN_LIT("{")));
	assert_false(span_caseeq(SPAN_LIT("@"), SPAN_LIT("`")));
	assert_true(span_caseeq((struct span){0}, SPAN_LIT("")));
	assert_true(span_eq((struct span){0}, SPAN_LIT("")));
	assert_false(span_eq(SPAN_LIT("a"), SPAN_LIT("A")));
}

static void numbers(void **state)
{
	unsigned long long v = 7;

	(void)state;
	assert_int_equal(span_u64(SPAN_LIT("0"), 0, &v), 0);
	assert_int_equal(v, 0);
	assert_int_equal(span_u64(SPAN_LIT("18446744073709551615"), UINT64_MAX, &v), 0);
	assert_true(v == UINT64_MAX);
	assert_int_equal(span_u64(SPAN_LIT("18446744073709551616"), UINT64_MAX, &v), -ERANGE);
	assert_int_equal(span_u64(SPAN_LIT("99999999999999999999999"), UINT64_MAX, &v), -ERANGE);
	assert_int_equal(span_u64(SPAN_LIT("65536"), 65535, &v), -ERANGE);
	assert_int_equal(span_u64(SPAN_LIT("000065535"), 65535, &v), 0);
	assert_int_equal(v, 65535);
	assert_int_equal(span_u64(SPAN_LIT(""), 9, &v), -EINVAL);
	assert_int_equal(span_u64(SPAN_LIT("-1"), 9, &v), -EINVAL);
	assert_int_equal(span_u64(SPAN_LIT("+1"), 9, &v), -EINVAL);
	assert_int_equal(span_u64(SPAN_LIT("1 "), 9, &v), -EINVAL);
	assert_int_equal(span_u64(SPAN_LIT("99x"), 9, &v), -EINVAL);
	assert_int_equal(v, 65535);
}

static void cstrings(void **state)
{
	char out[4];

	(void)state;
	assert_int_equal(span_cstr(SPAN_LIT("abc"), out, sizeof(out)), 0);
	assert_string_equal(out, "abc");
	assert_int_equal(span_cstr(SPAN_LIT("abcd"), out, sizeof(out)), -ENOSPC);
	assert_int_equal(span_cstr(SPAN_LIT("a\0b"), out, sizeof(out)), -EINVAL);
	assert_int_equal(span_cstr((struct span){0}, out, sizeof(out)), 0);
	assert_string_equal(out, "");
	assert_int_equal(span_cstr(SPAN_LIT(""), out, 0), -ENOSPC);
}

static void clocks(void **state)
{
	uint64_t a = wn_now_ns(), b = wn_now_ms(), c = wn_now_ns();

	(void)state;
	assert_true(a / 1000000 <= b && b <= c / 1000000);
	assert_true(wn_unix_s() > 1700000000u);
	assert_true(wn_unix_ms() / 1000 - wn_unix_s() <= 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(caseeq),
		cmocka_unit_test(numbers),
		cmocka_unit_test(cstrings),
		cmocka_unit_test(clocks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
