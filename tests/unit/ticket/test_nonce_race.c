/* SPDX-License-Identifier: Apache-2.0 */
/* Interleavings that threads meet once in a blue moon, made to happen: the source is compiled in with a call before each step at which
 * another thread could come between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>

static void (*before_swap)(void);
static void (*before_store)(void);

/* Runs once, and not within itself. */
static void meanwhile(void (**step)(void))
{
	void (*run)(void) = *step;

	*step = NULL;
	if (run != NULL)
		run();
}

#undef atomic_compare_exchange_weak_explicit
#define atomic_compare_exchange_weak_explicit(at, expected, desired, success, failure) \
	(meanwhile(&before_swap), __atomic_compare_exchange_n((uint64_t *)(at), (expected), (desired), 0, (success), (failure)))
#undef atomic_store_explicit
#define atomic_store_explicit(at, value, order) (meanwhile(&before_store), __atomic_store_n((uint64_t *)(at), (value), (order)))

#include "../../../src/ticket/nonce.c" /* NOLINT(bugprone-suspicious-include) */

#define RING (1u << RING_MIN)
#define NOW  (1u << 20)

static struct nonce_window *w;
static struct nonce_issuer other;
static const struct wn_addr src = {.port = 1};
static char text[NONCE_CHARS];
static uint64_t number; /* the one that the steps below are about */
static enum nonce_verdict theirs;

static uint64_t issue(struct nonce_issuer *i)
{
	uint64_t n = UINT64_MAX;

	nonce_issue(i, &src, SPAN_LIT("r"), 0, NOW, text);
	nonce_check(w, span_of(text, NONCE_CHARS), &src, SPAN_LIT("r"), 0, NOW, &n);
	return n;
}

static enum nonce_verdict check(uint64_t n)
{
	/* What nonce_check says of a number alone. */
	uint64_t word = atomic_load(word_of(w, n / NONCE_BLOCK));

	if (!in_ring(w, n / NONCE_BLOCK) || !same_lap(w, word, n / NONCE_BLOCK))
		return NONCE_EXPIRED;
	return word >> shift_of(n) & CELL_USED ? NONCE_USED : NONCE_OK;
}

static void lap(void)
{
	for (unsigned k = 0; k < RING; k++)
		issue(&other);
}

static void use_and_lap(void)
{
	theirs = nonce_use(w, number);
	lap();
}

static void use_it(void)
{
	theirs = nonce_use(w, number);
}

static void fail_neighbour(void)
{
	nonce_fail(w, number ^ 1);
	theirs = NONCE_OK;
}

static int setup(void **state)
{
	(void)state;
	before_swap = before_store = NULL;
	theirs = NONCE_VERDICTS;
	if (nonce_window_new(RING_MIN, 30000, NULL, &w) != 0)
		return -1;
	nonce_issuer_init(&other, w);
	for (unsigned k = 0; k < 5; k++)
		number = issue(&other);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	nonce_window_free(w);
	return 0;
}

/* Both have seen it unused; the other is first. */
static void used_before_the_swap(void **state)
{
	(void)state;
	before_swap = use_it;
	assert_int_equal(nonce_use(w, number), NONCE_USED);
	assert_int_equal(theirs, NONCE_OK);
}

/* A change beside it only costs another try. */
static void neighbour_before_the_swap(void **state)
{
	(void)state;
	before_swap = fail_neighbour;
	assert_int_equal(nonce_use(w, number), NONCE_OK);
	assert_int_equal(nonce_use(w, number), NONCE_USED);
	assert_int_equal(word_of(w, 0)[0] >> shift_of(number ^ 1) & CELL_MASK, CELL_FAIL);
}

/* The other uses it and the ring goes round before this one's swap: not a second time, and no mark on the number that has its place now. */
static void lapped_before_the_swap(void **state)
{
	(void)state;
	before_swap = use_and_lap;
	assert_int_equal(nonce_use(w, number), NONCE_EXPIRED);
	assert_int_equal(theirs, NONCE_OK);
	assert_int_equal(check(number + RING), NONCE_OK);
	assert_int_equal(nonce_use(w, number + RING), NONCE_OK);
}

static void failed_after_the_lap(void **state)
{
	(void)state;
	before_swap = lap;
	nonce_fail(w, number);
	assert_int_equal(word_of(w, 0)[0] & ((1ull << LAP_SHIFT) - 1), 0);
}

/* Between the head's move and the new word: the number that is about to leave is no longer used. */
static void used_before_the_store(void **state)
{
	struct nonce_issuer slow;

	(void)state;
	while (other.next != RING)
		issue(&other);
	nonce_issuer_init(&slow, w);
	before_store = use_it;
	issue(&slow);
	assert_int_equal(theirs, NONCE_EXPIRED);
	assert_int_equal(check(number + RING), NONCE_OK);
}

static struct nonce_issuer fast;
static uint64_t fast_number;

/* A whole ring, and the block that has the slow one's place; one of its numbers is used. */
static void overtake(void)
{
	uint64_t place = atomic_load(&w->head) - 1;

	nonce_issuer_init(&fast, w);
	do
		fast_number = issue(&fast);
	while (fast_number / NONCE_BLOCK != place + w->words);
	theirs = nonce_use(w, fast_number);
}

/* A thread sleeps between the head's move and its store until another has overtaken it by a ring; its late word must bring no use back. */
static void store_after_a_lap(void **state)
{
	struct nonce_issuer slow;

	(void)state;
	nonce_issuer_init(&slow, w);
	before_store = overtake;
	issue(&slow);
	assert_int_equal(theirs, NONCE_OK);
	assert_int_not_equal(nonce_use(w, fast_number), NONCE_OK);
	/* And the slow one does not go on with a block that is gone. */
	assert_int_equal(nonce_use(w, issue(&slow)), NONCE_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(used_before_the_swap, setup, teardown),
		cmocka_unit_test_setup_teardown(neighbour_before_the_swap, setup, teardown),
		cmocka_unit_test_setup_teardown(lapped_before_the_swap, setup, teardown),
		cmocka_unit_test_setup_teardown(failed_after_the_lap, setup, teardown),
		cmocka_unit_test_setup_teardown(used_before_the_store, setup, teardown),
		cmocka_unit_test_setup_teardown(store_after_a_lap, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
