/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "front/txn.h"

static const struct front_flow src = {{.port = 5060}, 0};

static void test_capacity_and_ids(void **state)
{
	struct txn_table *t;
	struct txn *x[4];
	uint64_t id;

	(void)state;
	assert_int_equal(txn_table_new(0, 0, &t), -EINVAL);
	assert_int_equal(txn_table_new(4, 1000, &t), 0);
	for (unsigned i = 0; i < 4; i++) {
		x[i] = txn_begin(t, i, 100 + i, &src, 0);
		assert_non_null(x[i]);
	}
	assert_null(txn_begin(t, 9, 9, &src, 0));
	assert_int_equal(txn_count(t), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_ptr_equal(txn_by_key(t, i, &src), x[i]);
		assert_ptr_equal(txn_by_branch(t, 100 + i, &src), x[i]);
		assert_ptr_equal(txn_by_id(t, x[i]->id), x[i]);
	}
	struct front_flow port = {{.port = 5061}, 0}, listener = {{.port = 5060}, 1};
	assert_null(txn_by_branch(t, 100, &port));
	assert_null(txn_by_branch(t, 100, &listener));
	assert_null(txn_by_key(t, 0, &port));
	id = x[2]->id;
	txn_end(t, x[2]);
	assert_null(txn_by_key(t, 2, &src));
	assert_null(txn_by_id(t, id));
	x[2] = txn_begin(t, 50, 51, &src, 0);
	assert_non_null(x[2]);
	/* the place is the same, the name is not */
	assert_null(txn_by_id(t, id));
	assert_ptr_equal(txn_by_id(t, x[2]->id), x[2]);
	txn_table_free(t);
}

/* Equal hashes live side by side. */
static void test_chains(void **state)
{
	struct txn_table *t;
	struct txn *a, *b, *c;

	(void)state;
	assert_int_equal(txn_table_new(16, 0, &t), 0);
	a = txn_begin(t, 7, 7, &src, 0);
	b = txn_begin(t, 7 + 16, 7 + 16, &src, 0);
	c = txn_begin(t, 7 + 32, 7 + 32, &src, 0);
	txn_file(t, b, 7);
	assert_null(txn_by_branch(t, 7 + 16, &src));
	assert_ptr_equal(txn_by_branch(t, 7 + 32, &src), c);
	txn_file(t, b, 5);
	assert_ptr_equal(txn_by_branch(t, 5, &src), b);
	assert_ptr_equal(txn_by_branch(t, 7, &src), a);
	txn_end(t, b);
	assert_null(txn_by_branch(t, 5, &src));
	assert_ptr_equal(txn_by_key(t, 7, &src), a);
	assert_ptr_equal(txn_by_key(t, 7 + 32, &src), c);
	assert_null(txn_by_key(t, 7 + 16, &src));
	txn_table_free(t);
}

/* Timers run out in their time, whenever one looks: each millisecond, or after a long sleep. */
static void test_timers(void **state)
{
	static const unsigned step[] = {1, 50, 63, 64, 65, 1000, 31000, 200000};

	(void)state;
	for (unsigned s = 0; s < sizeof(step) / sizeof(step[0]); s++) {
		struct txn_table *t;
		uint64_t begun[32], now = 12345678;
		unsigned ended = 0, started = 0;
		struct txn *x;

		assert_int_equal(txn_table_new(32, 0, &t), 0);
		for (; ended < 32; now += step[s]) {
			if (started < 32) {
				x = txn_begin(t, started, started, &src, now);
				assert_non_null(x);
				begun[started++] = now;
			}
			while ((x = txn_due(t, now)) != NULL) {
				uint64_t late = now - (begun[x->key] + TXN_LIFE_MS);

				assert_true(late < step[s]);
				txn_end(t, x);
				ended++;
			}
		}
		assert_int_equal(txn_count(t), 0);
		txn_table_free(t);
	}
}

static void test_resend_limits(void **state)
{
	struct txn_table *t;
	struct txn *x;
	char answer[TXN_ANSWER_MAX + 1];

	(void)state;
	memset(answer, 'a', sizeof(answer));
	assert_int_equal(txn_table_new(1, 0, &t), 0);
	x = txn_begin(t, 1, 1, &src, 1000);
	assert_false(txn_may_resend(x, 500, 5000)); /* nothing kept */
	txn_keep(x, span_of(answer, 400));
	assert_false(txn_may_resend(x, 399, 5000)); /* larger than what asks */
	assert_false(txn_may_resend(x, 400, 1099)); /* too soon */
	assert_true(txn_may_resend(x, 400, 1100));
	assert_false(txn_may_resend(x, 400, 1199));
	for (unsigned i = 0; i < 6; i++)
		assert_true(txn_may_resend(x, 400, 2000 + 100 * i));
	assert_false(txn_may_resend(x, 400, 9000)); /* the eighth */
	txn_keep(x, span_of(answer, sizeof(answer)));
	assert_int_equal(x->answer_n, 0);
	txn_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_capacity_and_ids), cmocka_unit_test(test_chains),
					   cmocka_unit_test(test_timers), cmocka_unit_test(test_resend_limits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
