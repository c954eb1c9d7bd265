/* SPDX-License-Identifier: Apache-2.0 */
/* Who has which place among the users, and buckets that several CPUs charge at once. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gate/bpf/bucket.h"
#include "gate/users.h"

#define PLACES 4
#define LATER  1000 /* ms between two steps: long enough for a place to have rested */

static struct gate_user shared[PLACES + 1];
static struct gate_users *users;
static uint64_t now_ms;

static int setup(void **state)
{
	(void)state;
	memset(shared, 0, sizeof(shared));
	now_ms = 1000000;
	return gate_users_new(shared, PLACES, &users);
}

static int teardown(void **state)
{
	(void)state;
	gate_users_free(users);
	return 0;
}

static uint32_t take(uint32_t tenant, const char *name)
{
	return gate_users_take(users, tenant, name, now_ms += LATER);
}

static void release(uint32_t place)
{
	gate_users_release(users, place, now_ms += LATER);
}

static void one_place_a_user(void **state)
{
	char longest[64];
	uint32_t a = take(0, "alice"), b = take(0, "bob"), c = take(1, "alice"), d;

	(void)state;
	memset(longest, 'x', 63);
	longest[63] = '\0';
	d = take(0, longest);
	assert_true(a != 0 && b != 0 && c != 0 && d != 0);
	assert_true(a != b && a != c && b != c && d != a && d != b && d != c);
	assert_true(a <= PLACES && b <= PLACES && c <= PLACES && d <= PLACES);
	assert_int_equal(take(0, "alice"), a);
	assert_int_equal(take(1, "alice"), c);
	assert_int_equal(take(0, longest), d);
	assert_int_equal(take(0, "carol"), 0); /* full */
	release(a);
	assert_int_equal(take(0, "carol"), 0); /* she has another hole */
	release(a);
	assert_int_equal(take(0, "carol"), a);
}

static void who_comes_back_finds_the_bucket(void **state)
{
	uint32_t a = take(0, "alice");

	(void)state;
	shared[a].packet_due = 77;
	shared[a].byte_due = 88;
	release(a);
	assert_int_equal(take(0, "alice"), a);
	assert_int_equal(shared[a].packet_due, 77);
	assert_int_equal(shared[a].byte_due, 88);
	release(a);
	for (int i = 0; i < PLACES; i++) { /* the one that was free longest goes first, hers last */
		char name[8];
		uint32_t at;

		snprintf(name, sizeof(name), "u%d", i);
		at = take(0, name);
		assert_int_equal(at == a, i == PLACES - 1);
		assert_int_equal(shared[at].packet_due, 0);
		assert_int_equal(shared[at].byte_due, 0);
	}
}

/* A packet that is on its way must not be charged to who comes next. */
static void a_place_rests(void **state)
{
	uint32_t at[PLACES];

	(void)state;
	for (int i = 0; i < PLACES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "u%d", i);
		at[i] = take(0, name);
	}
	gate_users_release(users, at[2], now_ms);
	assert_int_equal(gate_users_take(users, 0, "alice", now_ms + 49), 0);
	assert_int_equal(gate_users_take(users, 0, "u2", now_ms + 49), at[2]); /* her own she may have */
	gate_users_release(users, at[2], now_ms);
	assert_int_equal(gate_users_take(users, 0, "alice", now_ms + 50), at[2]);
}

static void nonsense_is_let_pass(void **state)
{
	(void)state;
	release(0);
	release(PLACES + 1);
	release(UINT32_MAX);
	release(1);
	for (int i = 0; i < PLACES; i++) {
		char name[8];

		snprintf(name, sizeof(name), "u%d", i);
		assert_int_not_equal(take(0, name), 0);
	}
	assert_int_equal(take(0, "alice"), 0);
}

static void a_restart_counts_again(void **state)
{
	(void)state;
	assert_true(gate_users_adopt(users, 3, 0, "alice"));
	assert_true(gate_users_adopt(users, 3, 0, "alice"));
	assert_true(gate_users_adopt(users, 1, 1, "alice"));
	assert_false(gate_users_adopt(users, 3, 0, "bob"));
	assert_false(gate_users_adopt(users, 2, 0, "alice"));
	assert_false(gate_users_adopt(users, 0, 0, "bob"));
	assert_false(gate_users_adopt(users, PLACES + 1, 0, "bob"));
	assert_false(gate_users_adopt(users, 2, 0, ""));
	assert_int_equal(take(0, "alice"), 3);
	assert_int_not_equal(take(0, "bob"), 0);
	assert_int_not_equal(take(0, "carol"), 0);
	assert_int_equal(take(0, "dave"), 0);
	release(3);
	release(3);
	assert_int_equal(take(0, "dave"), 0);
	release(3);
	assert_int_equal(take(0, "dave"), 3);
}

/* Many users come and go; the table always agrees with a list of who has what. */
static void many_come_and_go(void **state)
{
	uint32_t place[8] = {0}, holes[8] = {0}, seed = 1, used;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		uint32_t who, at;
		char name[8];

		seed = seed * 1664525 + 1013904223;
		who = seed >> 16 & 7;
		snprintf(name, sizeof(name), "u%u", who / 2);
		if ((seed >> 24 & 1) != 0 && holes[who] > 0) {
			release(place[who]);
			holes[who]--;
			continue;
		}
		used = 0;
		for (unsigned k = 0; k < 8; k++)
			used += holes[k] > 0;
		at = take(who % 2, name);
		assert_int_equal(at != 0, holes[who] > 0 || used < PLACES);
		if (at == 0)
			continue;
		for (unsigned k = 0; k < 8; k++)
			assert_int_equal(holes[k] > 0 && place[k] == at, k == who && holes[k] > 0);
		place[who] = at;
		holes[who]++;
	}
}

enum { THREADS = 2, ROUNDS = 20000, CHARGES = 20, COST = 3 };

static uint64_t due;
static atomic_uint arrived;

struct charger {
	int cpu;
	uint64_t lost;
};

/* Both leave it at the same instant, if each has a CPU. */
static void meet(unsigned count)
{
	atomic_fetch_add(&arrived, 1);
	for (unsigned i = 0; atomic_load(&arrived) < count; i++)
		if (i > 10000)
			sched_yield();
}

/* Every round begins with a bucket that is long since due, so that both try the swap at the same time, and goes on with additions. */
static void *charge(void *arg)
{
	struct charger *c = arg;
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)c->cpu, &set);
	pthread_setaffinity_np(pthread_self(), sizeof(set), &set);

	for (unsigned i = 1; i <= ROUNDS; i++) {
		meet((2 * i - 1) * THREADS);
		for (unsigned k = 0; k < CHARGES; k++)
			gate_bucket_add((__u64 *)&due, i * 1000000ull, COST);
		meet(2 * i * THREADS);
		c->lost += __atomic_load_n(&due, __ATOMIC_SEQ_CST) != i * 1000000ull + THREADS * CHARGES * COST;
	}
	return NULL;
}

static void no_charge_is_lost(void **state)
{
	pthread_t thread[THREADS];
	struct charger charger[THREADS];

	(void)state;
	due = 0;
	for (int i = 0; i < THREADS; i++) {
		charger[i] = (struct charger){.cpu = i % (int)sysconf(_SC_NPROCESSORS_ONLN)};
		assert_int_equal(pthread_create(&thread[i], NULL, charge, &charger[i]), 0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(charger[i].lost, 0);
}

static void an_idle_bucket_begins_now(void **state)
{
	__u64 d = 10;

	(void)state;
	gate_bucket_add(&d, 1000, 7);
	assert_int_equal(d, 1007);
	gate_bucket_add(&d, 1000, 7);
	assert_int_equal(d, 1014);
	gate_bucket_add(&d, 1014, 7);
	assert_int_equal(d, 1021);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(one_place_a_user, setup, teardown),
		cmocka_unit_test_setup_teardown(who_comes_back_finds_the_bucket, setup, teardown),
		cmocka_unit_test_setup_teardown(a_place_rests, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_is_let_pass, setup, teardown),
		cmocka_unit_test_setup_teardown(a_restart_counts_again, setup, teardown),
		cmocka_unit_test_setup_teardown(many_come_and_go, setup, teardown),
		cmocka_unit_test(no_charge_is_lost),
		cmocka_unit_test(an_idle_bucket_begins_now),
	};

	return sodium_init() < 0 || cmocka_run_group_tests_name("gate users", tests, NULL, NULL);
}
