/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "front/strangers.h"

#define MAX    12u
#define SHARES 4u
#define BYTES  16u

static struct strangers *s;
static char mem[BYTES];
static struct front_packet packet;

static int setup(void **state)
{
	(void)state;
	packet.data = mem;
	return strangers_new(MAX, 0, SHARES, BYTES, &s);
}

static int teardown(void **state)
{
	(void)state;
	strangers_free(s);
	return 0;
}

/* Its name stands in its bytes, its share in its port. */
static bool put(unsigned share, char name)
{
	packet.data[0] = name;
	packet.n = 1;
	return strangers_put(s, &packet, share, share);
}

/* "AaB": whose turns they were. */
static void assert_taken(const char *names)
{
	for (; *names != 0; names++) {
		unsigned port;
		const struct front_packet *p = strangers_take(s, 1000, &port);

		assert_non_null(p);
		assert_int_equal(p->data[0], *names);
		assert_int_equal(p->n, 1);
	}
}

static void test_bounds(void **state)
{
	struct strangers *other;

	(void)state;
	assert_int_equal(strangers_new(0, 0, 1, BYTES, &other), -EINVAL);
	assert_int_equal(strangers_new(STRANGERS_MAX + 1, 0, 1, BYTES, &other), -EINVAL);
	assert_int_equal(strangers_new(1, 0, 0, BYTES, &other), -EINVAL);
}

static void test_in_turn(void **state)
{
	unsigned port;

	(void)state;
	assert_null(strangers_take(s, 1000, &port));
	for (char c = 'a'; c <= 'e'; c++)
		assert_true(put(0, c));
	assert_true(put(1, 'P'));
	assert_true(put(1, 'Q'));
	assert_true(put(3, 'Z'));
	assert_int_equal(strangers_count(s), 8);
	assert_taken("aPZbQc");
	/* who comes anew is behind those who wait */
	assert_true(put(1, 'R'));
	assert_true(put(2, 'X'));
	assert_taken("dRXe");
	assert_int_equal(strangers_count(s), 0);
	assert_null(strangers_take(s, 1000, &port));
	assert_true(put(2, 'Y'));
	assert_taken("Y");
}

/* A flood in one share leaves the others their part. */
static void test_full(void **state)
{
	unsigned got[SHARES] = {0}, port;

	(void)state;
	for (unsigned i = 0; i < MAX; i++)
		assert_true(put(0, (char)('a' + i)));
	assert_false(put(0, '!'));
	assert_int_equal(packet.data[0], '!'); /* stays as it was */
	/* another share gets its part, half, at the longest line's cost */
	for (unsigned i = 0; i < MAX; i++)
		assert_false(put(1, (char)('A' + i)));
	assert_int_equal(strangers_count(s), MAX);
	assert_taken("gAhB");
	for (unsigned i = 0; i < 100; i++)
		put(0, 'x');
	assert_int_equal(strangers_count(s), MAX);
	for (unsigned i = 0; i < 100; i++) {
		put(2, '2');
		put(3, '3');
		put(0, 'x');
	}
	assert_int_equal(strangers_count(s), MAX);
	while (strangers_take(s, 1000, &port) != NULL)
		got[port]++;
	for (unsigned i = 0; i < SHARES; i++)
		assert_in_range(got[i], MAX / SHARES - 1, MAX / SHARES + 1);
	assert_int_equal(got[0] + got[1] + got[2] + got[3], MAX);
}

/* Not whose turn it is, the longest line pays. */
static void test_longest_pays(void **state)
{
	(void)state;
	assert_true(put(0, 'a'));
	assert_true(put(0, 'b'));
	for (unsigned i = 2; i < MAX; i++)
		assert_true(put(1, (char)('A' + i)));
	assert_false(put(2, 'z'));
	assert_taken("aDzbE");
}

/* However buffers change hands, nobody has another's. */
static void test_buffers(void **state)
{
	unsigned port, random = 1, waiting = 0;

	(void)state;
	for (unsigned i = 0; i < 20000; i++) {
		random = random * 1103515245 + 12345;
		if ((random >> 16) % 3 != 0) {
			unsigned share = (random >> 20) % SHARES;

			memset(packet.data, (int)(i & 0x7f), BYTES);
			packet.n = i & 0x7f;
			if (strangers_put(s, &packet, share, share))
				waiting++;
		} else {
			const struct front_packet *p = strangers_take(s, 1000, &port);

			assert_int_equal(p != NULL, waiting > 0);
			for (unsigned k = 0; p != NULL && k < BYTES; k++)
				assert_int_equal((unsigned char)p->data[k], p->n);
			waiting -= p != NULL;
		}
		assert_int_equal(strangers_count(s), waiting);
		assert_in_range(waiting, 0, MAX);
	}
}

/* With a rate no more are taken, and no more wait than are soon taken. */
static void test_rate(void **state)
{
	struct strangers *all = s;
	unsigned port, got = 0;

	(void)state;
	assert_int_equal(strangers_new(1000, 40, 1, BYTES, &s), 0);
	for (unsigned i = 0; i < 100; i++)
		put(0, 'x');
	assert_int_equal(strangers_count(s), 11);
	for (uint64_t ms = 5000; ms < 15000; ms++) {
		while (strangers_take(s, ms, &port) != NULL)
			got++;
		assert_in_range(got, (ms - 5000) * 40 / 1000, (ms - 5000) * 40 / 1000 + 5);
		while (put(0, 'x'))
			;
	}
	/* a long rest is no licence */
	for (got = 0; strangers_take(s, 100000, &port) != NULL; got++)
		;
	assert_in_range(got, 1, 4);
	strangers_free(s);
	s = all;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bounds), T(test_in_turn), T(test_full),
					   T(test_longest_pays),          T(test_buffers), T(test_rate)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
