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

static struct txn *begin(struct txn_table *t, uint64_t key, uint64_t call, uint64_t branch, uint64_t now_ms)
{
	const struct txn_of of = {
		.key = key, .call = call, .branch = branch, .flow = &src, .uri = SPAN_LIT("sip:a@b"), .user = SPAN_LIT("alice")};

	return txn_begin(t, &of, now_ms);
}

static void test_capacity_and_ids(void **state)
{
	struct txn_table *t;
	struct txn *x[4];
	uint64_t id;

	(void)state;
	assert_int_equal(txn_table_new(0, 0, &t), -EINVAL);
	assert_int_equal(txn_table_new(4, 1000, &t), 0);
	for (unsigned i = 0; i < 4; i++) {
		x[i] = begin(t, i, 200 + i, 100 + i, 0);
		assert_non_null(x[i]);
	}
	assert_null(begin(t, 9, 9, 9, 0));
	assert_int_equal(txn_count(t), 4);
	for (unsigned i = 0; i < 4; i++) {
		assert_ptr_equal(txn_by_key(t, i, &src), x[i]);
		assert_ptr_equal(txn_by_branch(t, 200 + i, 100 + i, &src), x[i]);
		assert_null(txn_by_branch(t, 200 + i, 101 + i, &src));
		assert_ptr_equal(txn_by_id(t, x[i]->id), x[i]);
	}
	struct front_flow port = {{.port = 5061}, 0}, listener = {{.port = 5060}, 1};
	assert_null(txn_by_branch(t, 200, 100, &port));
	assert_null(txn_by_branch(t, 200, 100, &listener));
	assert_null(txn_by_key(t, 0, &port));
	id = x[2]->id;
	txn_end(t, x[2]);
	assert_null(txn_by_key(t, 2, &src));
	assert_null(txn_by_id(t, id));
	x[2] = begin(t, 50, 51, 52, 0);
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
	struct txn *a, *b, *c, *open;

	(void)state;
	assert_int_equal(txn_table_new(16, 0, &t), 0);
	a = begin(t, 7, 7, 1, 0);
	b = begin(t, 7 + 16, 7 + 16, 2, 0);
	c = begin(t, 7 + 32, 7, 3, 0);
	open = begin(t, TXN_NO_KEY, 7, 4, 0);
	assert_ptr_equal(txn_by_branch(t, 7, 1, &src), a);
	assert_ptr_equal(txn_by_branch(t, 7 + 16, 2, &src), b);
	assert_ptr_equal(txn_by_branch(t, 7, 3, &src), c);
	assert_null(txn_by_key(t, TXN_NO_KEY, &src));
	/* one call may have come on two ways: only that which has been accepted waits for an ACK */
	assert_null(txn_accepted(t, 7, &src));
	txn_enter(t, a, TXN_ACCEPTED, 0);
	assert_ptr_equal(txn_accepted(t, 7, &src), a);
	assert_null(txn_accepted(t, 7 + 16, &src));
	txn_end(t, b);
	txn_end(t, open);
	assert_null(txn_by_branch(t, 7 + 16, 2, &src));
	assert_null(txn_by_branch(t, 7, 4, &src));
	assert_ptr_equal(txn_by_key(t, 7, &src), a);
	assert_ptr_equal(txn_by_key(t, 7 + 32, &src), c);
	assert_ptr_equal(txn_by_branch(t, 7, 3, &src), c);
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
				x = begin(t, started, started, 0, now);
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

/* Timers that are set again keep their time, earlier or later, and however often one looks in between. */
static void test_timers_moved(void **state)
{
	static const unsigned step[] = {1, 50, 63, 64, 65, 1000, 31000};

	(void)state;
	for (unsigned s = 0; s < sizeof(step) / sizeof(step[0]); s++) {
		struct txn_table *t;
		struct txn *x;
		uint64_t due[64], now = 987654321, seed = 4711 + s, end = now + 200000;
		unsigned ended = 0;

		assert_int_equal(txn_table_new(64, 0, &t), 0);
		for (unsigned i = 0; i < 64; i++) {
			assert_non_null(begin(t, i, i, i, now));
			due[i] = now + TXN_LIFE_MS;
		}
		for (; ended < 64; now += step[s]) {
			/* one of them somewhere else, at times to this very moment */
			seed = seed * 6364136223846793005u + 1442695040888963407u;
			x = txn_by_key(t, seed >> 58, &src);
			if (x != NULL && now < end) {
				switch (seed >> 40 & 3) {
				case 0:
					txn_enter(t, x, TXN_COMPLETED, now);
					due[x->key] = now + 500;
					break;
				case 1:
					txn_enter(t, x, TXN_CONFIRMED, now);
					due[x->key] = now + TXN_CONFIRMED_MS;
					break;
				case 2:
					txn_enter(t, x, TXN_PROCEEDING, now);
					x->tenant = 1;
					txn_hurry(t, 1, 0, now);
					x->tenant = 0;
					due[x->key] = now;
					break;
				default:
					txn_enter(t, x, TXN_ACCEPTED, now);
					due[x->key] = now + TXN_LIFE_MS;
					break;
				}
			}
			while ((x = txn_due(t, now)) != NULL) {
				assert_true(now >= due[x->key]);
				assert_true(now - due[x->key] < step[s]);
				due[x->key] = UINT64_MAX;
				txn_end(t, x);
				ended++;
			}
			for (unsigned i = 0; i < 64; i++)
				assert_true(due[i] > now);
		}
		txn_table_free(t);
	}
}

#define KEPT 21u /* "sip:a@b", a length, "alice", the beginning */

/* URI, user, answer and request of one call do not run into each other. */
static void test_texts(void **state)
{
	struct txn_table *t;
	struct txn *x, *y;
	char text[TXN_TEXT + 1];

	(void)state;
	assert_int_equal(txn_table_new(2, 0, &t), 0);
	x = begin(t, 1, 1, 1, 0);
	y = begin(t, 2, 2, 2, 0);
	memset(text, 'y', sizeof(text));
	txn_keep(t, y, span_of(text, TXN_ANSWER_MAX));
	memset(text, 'a', sizeof(text));
	txn_keep(t, x, span_of(text, 300));
	memset(text, 'r', sizeof(text));
	txn_keep_request(t, x, span_of(text, TXN_TEXT - 300 - KEPT + 1), 0);
	assert_int_equal(x->request_n, 0);
	txn_keep_request(t, x, span_of(text, TXN_TEXT - 300 - KEPT), 0);
	assert_int_equal(txn_request(t, x).n, TXN_TEXT - 300 - KEPT);
	assert_memory_equal(txn_request(t, x).p, text, TXN_TEXT - 300 - KEPT);
	assert_true(span_eq(txn_uri(t, x), SPAN_LIT("sip:a@b")));
	assert_true(span_eq(txn_user(t, x), SPAN_LIT("alice")));
	assert_int_equal(txn_answer(t, x).n, 300);
	assert_memory_equal(txn_answer(t, x).p, "aaa", 3);
	assert_true(span_eq(txn_uri(t, y), SPAN_LIT("sip:a@b")));
	assert_int_equal(txn_answer(t, y).p[0], 'y');
	/* an answer that is kept later takes the request's place */
	txn_keep(t, x, span_of(text, 301));
	assert_int_equal(x->request_n, 0);
	assert_int_equal(txn_answer(t, x).n, 301);
	/* what an acknowledged call has given back serves the next one */
	txn_enter(t, x, TXN_ACCEPTED, 0);
	txn_acknowledged(t, x, 0);
	assert_null(txn_answer(t, x).p);
	assert_null(txn_user(t, x).p);
	txn_keep(t, x, span_of(text, 5));
	txn_keep_request(t, x, span_of(text, 5), 0);
	assert_int_equal(x->answer_n + x->request_n, 0);
	txn_keep(t, y, span_of(text, 5));
	const char *place = txn_uri(t, y).p;
	txn_end(t, y);
	y = begin(t, 3, 3, 3, 0);
	assert_ptr_equal(txn_uri(t, y).p, place);
	txn_table_free(t);
}

static void test_resend_limits(void **state)
{
	struct txn_table *t;
	struct txn *x;
	char answer[TXN_ANSWER_MAX + 1];

	(void)state;
	memset(answer, 'a', sizeof(answer));
	assert_int_equal(txn_table_new(1, 0, &t), 0);
	x = begin(t, 1, 1, 1, 1000);
	assert_false(txn_may_resend(x, 500, 5000)); /* nothing kept */
	txn_keep(t, x, span_of(answer, 400));
	assert_false(txn_may_resend(x, 399, 5000)); /* larger than what asks */
	assert_false(txn_may_resend(x, 400, 1099)); /* too soon */
	assert_true(txn_may_resend(x, 400, 1100));
	assert_false(txn_may_resend(x, 400, 1199));
	for (unsigned i = 0; i < 6; i++)
		assert_true(txn_may_resend(x, 400, 2000 + 100 * i));
	assert_false(txn_may_resend(x, 400, 9000)); /* the eighth */
	txn_keep(t, x, span_of(answer, sizeof(answer)));
	assert_int_equal(x->answer_n, 0);
	txn_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_capacity_and_ids), cmocka_unit_test(test_chains), cmocka_unit_test(test_timers),
		cmocka_unit_test(test_timers_moved),     cmocka_unit_test(test_texts),  cmocka_unit_test(test_resend_limits)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
