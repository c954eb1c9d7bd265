/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "userdb/table.h"

#define EPOCH 20781u
#define NOW   1789000000000u

static const struct span domain = {"example.org", 11};
static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];

/* What the publisher knows: enough to make any message. */
struct publisher {
	struct update_head head;
	uint64_t unix_ms;
	uint32_t epoch;
	uint8_t buf[UPDATE_BYTES_MAX];
	struct update_buf b;
};

static void begin(struct publisher *p, enum update_type type, uint64_t seq, uint32_t chunk, uint32_t chunks)
{
	struct update_msg m = {.type = type, .domain = domain, .unix_ms = p->unix_ms, .epoch = p->epoch, .epoch_s = 86400};

	m.at.seq = seq;
	memcpy(m.at.hash, p->head.hash, sizeof(m.at.hash));
	m.chunk = chunk;
	m.chunks = chunks;
	update_begin(&p->b, p->buf, sizeof(p->buf), &m);
}

static void set(struct publisher *p, const char *name, uint32_t epoch, uint8_t fill, bool md5)
{
	uint8_t key[32], key5[16];
	struct user_op op = {USER_SET, span_str(name), USER_HAS_SHA256, epoch, key, NULL};

	memset(key, fill, sizeof(key));
	memset(key5, fill ^ 0xff, sizeof(key5));
	if (md5) {
		op.flags |= USER_HAS_MD5;
		op.md5 = key5;
	}
	assert_int_equal(update_add(&p->b, &op), 0);
}

static void del(struct publisher *p, const char *name)
{
	struct user_op op = {.kind = USER_DEL, .name = span_str(name)};
	assert_int_equal(update_add(&p->b, &op), 0);
}

static struct span end(struct publisher *p, uint8_t hash[32])
{
	long n = update_end(&p->b, sk, hash);

	assert_true(n > 0);
	return span_of(p->buf, (size_t)n);
}

/* Ends a change that was begun with seq = head + 1, and applies it. */
static void change(struct publisher *p, struct user_table *t)
{
	uint8_t hash[32];
	struct span m = end(p, hash);

	assert_int_equal(user_table_apply(t, domain, pk, m), TABLE_OK);
	p->head.seq++;
	memcpy(p->head.hash, hash, 32);
}

static enum table_verdict heartbeat(struct publisher *p, struct user_table *t)
{
	uint8_t hash[32];

	begin(p, UPDATE_HEARTBEAT, p->head.seq, 0, 0);
	return user_table_apply(t, domain, pk, end(p, hash));
}

static void start(struct publisher *p, struct user_table **t)
{
	memset(p, 0, sizeof(*p));
	p->unix_ms = NOW;
	p->epoch = EPOCH;
	assert_int_equal(user_table_new(t), 0);
}

static bool has(const struct user_table *t, const char *name, uint32_t epoch, uint8_t fill)
{
	struct user_keys k;
	uint8_t want[32];

	memset(want, fill, sizeof(want));
	return user_table_find(t, span_str(name), epoch, &k) && (k.flags & USER_HAS_SHA256) != 0 && memcmp(k.sha256, want, 32) == 0;
}

static void test_changes(void **state)
{
	struct publisher p;
	struct user_table *t;
	struct table_state s;
	struct user_keys k;

	(void)state;
	start(&p, &t);
	begin(&p, UPDATE_CHANGE, 1, 0, 0);
	set(&p, "alice", EPOCH, 1, false);
	set(&p, "alice", EPOCH + 1, 2, false);
	set(&p, "bob", EPOCH, 3, true);
	change(&p, t);
	assert_true(has(t, "alice", EPOCH, 1));
	assert_true(has(t, "alice", EPOCH + 1, 2));
	assert_false(has(t, "alice", EPOCH - 1, 2));
	assert_false(has(t, "alice", EPOCH + 2, 1));
	assert_true(user_table_find(t, SPAN_LIT("bob"), EPOCH, &k));
	assert_int_equal(k.flags, USER_HAS_SHA256 | USER_HAS_MD5);
	assert_int_equal(k.md5[0], 3 ^ 0xff);
	user_table_state(t, &s);
	assert_int_equal(s.users, 2);
	assert_int_equal(s.head.seq, 1);
	assert_int_equal(s.publisher_ms, NOW);
	assert_int_equal(s.epoch, EPOCH);

	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	del(&p, "alice");
	del(&p, "nobody");
	set(&p, "bob", EPOCH + 1, 9, false);
	change(&p, t);
	assert_false(has(t, "alice", EPOCH, 1));
	assert_true(has(t, "bob", EPOCH, 3));
	assert_true(has(t, "bob", EPOCH + 1, 9));
	user_table_state(t, &s);
	assert_int_equal(s.users, 1);
	user_table_free(t);
}

/* A user that opts in to MD5 later gets a larger record; one who never did has no MD5 key. */
static void test_md5_later(void **state)
{
	struct publisher p;
	struct user_table *t;
	struct user_keys k;

	(void)state;
	start(&p, &t);
	begin(&p, UPDATE_CHANGE, 1, 0, 0);
	set(&p, "carol", EPOCH, 5, false);
	change(&p, t);
	assert_true(user_table_find(t, SPAN_LIT("carol"), EPOCH, &k));
	assert_int_equal(k.flags, USER_HAS_SHA256);
	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	set(&p, "carol", EPOCH + 1, 6, true);
	change(&p, t);
	assert_true(has(t, "carol", EPOCH, 5));
	assert_true(user_table_find(t, SPAN_LIT("carol"), EPOCH + 1, &k));
	assert_int_equal(k.flags, USER_HAS_SHA256 | USER_HAS_MD5);
	assert_int_equal(k.md5[15], 6 ^ 0xff);
	user_table_free(t);
}

/* Only the current and the next epoch's keys remain, even for a user whose next keys never came. */
static void test_epochs_move(void **state)
{
	struct publisher p;
	struct user_table *t;

	(void)state;
	start(&p, &t);
	begin(&p, UPDATE_CHANGE, 1, 0, 0);
	set(&p, "alice", EPOCH, 1, false);
	set(&p, "alice", EPOCH + 1, 2, false);
	set(&p, "late", EPOCH, 7, false);
	change(&p, t);
	p.epoch = EPOCH + 1;
	p.unix_ms += 5000;
	assert_int_equal(heartbeat(&p, t), TABLE_CURRENT);
	assert_false(has(t, "alice", EPOCH, 1));
	assert_false(has(t, "late", EPOCH, 7));
	assert_true(has(t, "alice", EPOCH + 1, 2));
	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	set(&p, "alice", EPOCH + 2, 3, false);
	change(&p, t);
	assert_true(has(t, "alice", EPOCH + 1, 2));
	assert_true(has(t, "alice", EPOCH + 2, 3));
	user_table_free(t);
}

static void test_unknown_is_a_decoy(void **state)
{
	struct publisher p;
	struct user_table *t;
	struct user_keys k, zero = {0};

	(void)state;
	start(&p, &t);
	memset(&k, 0, sizeof(k));
	assert_false(user_table_find(t, SPAN_LIT("mallory"), EPOCH, &k));
	assert_int_equal(k.flags, 0);
	assert_memory_not_equal(k.sha256, zero.sha256, 32);
	assert_memory_not_equal(k.md5, zero.md5, 16);
	assert_false(user_table_find(t, SPAN_LIT(""), EPOCH, &k));
	user_table_free(t);
}

static void test_refusals(void **state)
{
	struct publisher p;
	struct user_table *t;
	struct table_state s;
	uint8_t hash[32], old[1024];
	struct span m;

	(void)state;
	start(&p, &t);
	begin(&p, UPDATE_CHANGE, 1, 0, 0);
	set(&p, "alice", EPOCH, 1, false);
	m = end(&p, hash);
	assert_true(m.n <= sizeof(old));
	memcpy(old, m.p, m.n);
	size_t old_n = m.n;
	assert_int_equal(user_table_apply(t, domain, pk, m), TABLE_OK);
	p.head.seq = 1;
	memcpy(p.head.hash, hash, 32);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(old, old_n)), TABLE_CURRENT);

	/* a gap, and a message on another predecessor */
	begin(&p, UPDATE_CHANGE, 3, 0, 0);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_GAP);
	p.head.hash[0] ^= 1;
	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_GAP);
	assert_int_equal(heartbeat(&p, t), TABLE_GAP);
	p.head.hash[0] ^= 1;

	/* older than what came */
	p.unix_ms -= 1;
	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	del(&p, "alice");
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_TOO_OLD);
	assert_int_equal(heartbeat(&p, t), TABLE_TOO_OLD);
	p.unix_ms += 1;

	begin(&p, UPDATE_CHANGE, 2, 0, 0);
	del(&p, "alice");
	change(&p, t);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(old, old_n)), TABLE_ROLLBACK);
	assert_false(has(t, "alice", EPOCH, 1));

	/* a snapshot of the past, and of another history at the same number */
	p.head.seq = 1;
	begin(&p, UPDATE_SNAPSHOT, 1, 0, 1);
	set(&p, "alice", EPOCH, 1, false);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_ROLLBACK);
	p.head.hash[3] ^= 1;
	begin(&p, UPDATE_SNAPSHOT, 2, 0, 1);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_ROLLBACK);
	p.head.hash[3] ^= 1;
	p.head.seq = 2;

	/* forged, for another tenant, cut */
	begin(&p, UPDATE_HEARTBEAT, 2, 0, 0);
	m = end(&p, hash);
	p.buf[m.n - 1] ^= 1;
	assert_int_equal(user_table_apply(t, domain, pk, m), TABLE_FORGED);
	p.buf[m.n - 1] ^= 1;
	assert_int_equal(user_table_apply(t, SPAN_LIT("example.net"), pk, m), TABLE_WRONG_DOMAIN);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(m.p, 40)), TABLE_MALFORMED);
	user_table_state(t, &s);
	assert_int_equal(s.head.seq, 2);
	user_table_free(t);
}

static void test_snapshot_replaces_at_the_end(void **state)
{
	struct publisher p;
	struct user_table *t;
	uint8_t hash[32];

	(void)state;
	start(&p, &t);
	begin(&p, UPDATE_CHANGE, 1, 0, 0);
	set(&p, "gone", EPOCH, 1, false);
	change(&p, t);
	p.head.seq = 9;
	begin(&p, UPDATE_SNAPSHOT, 9, 0, 2);
	set(&p, "alice", EPOCH, 4, false);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_OK);
	assert_false(has(t, "alice", EPOCH, 4));
	assert_true(has(t, "gone", EPOCH, 1));
	begin(&p, UPDATE_SNAPSHOT, 9, 1, 2);
	set(&p, "bob", EPOCH, 5, false);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_OK);
	assert_true(has(t, "alice", EPOCH, 4));
	assert_true(has(t, "bob", EPOCH, 5));
	assert_false(has(t, "gone", EPOCH, 1));
	assert_int_equal(heartbeat(&p, t), TABLE_CURRENT);

	/* a chunk left out, or of another snapshot */
	begin(&p, UPDATE_SNAPSHOT, 9, 0, 3);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_OK);
	begin(&p, UPDATE_SNAPSHOT, 9, 2, 3);
	assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_GAP);
	assert_true(has(t, "alice", EPOCH, 4));
	user_table_free(t);
}

/* Every one of many users is found, and those that were deleted are not; memory stays within the bound. */
static void test_many(void **state)
{
	enum { N = 50000, PER = 200 };
	struct publisher p;
	struct user_table *t;
	struct table_state s;
	char name[16];

	(void)state;
	start(&p, &t);
	for (unsigned i = 0; i < N; i += PER) {
		begin(&p, UPDATE_CHANGE, p.head.seq + 1, 0, 0);
		for (unsigned j = i; j < i + PER; j++) {
			snprintf(name, sizeof(name), "user%08u", j);
			set(&p, name, EPOCH, (uint8_t)j, false);
			set(&p, name, EPOCH + 1, (uint8_t)(j + 1), false);
		}
		change(&p, t);
	}
	for (unsigned i = 0; i < N; i += PER) {
		begin(&p, UPDATE_CHANGE, p.head.seq + 1, 0, 0);
		for (unsigned j = i; j < i + PER; j += 3) {
			snprintf(name, sizeof(name), "user%08u", j);
			del(&p, name);
		}
		change(&p, t);
	}
	for (unsigned i = 0; i < N; i++) {
		bool gone = i % PER % 3 == 0;

		snprintf(name, sizeof(name), "user%08u", i);
		assert_int_equal(has(t, name, EPOCH, (uint8_t)i), !gone);
		assert_int_equal(has(t, name, EPOCH + 1, (uint8_t)(i + 1)), !gone);
	}
	user_table_state(t, &s);
	assert_int_equal(s.users, N - N / PER * 67);
	user_table_free(t);
}

struct reader {
	const struct user_table *t;
	atomic_bool *stop;
	unsigned long torn;
};

/* A key is all one byte, whichever version a reader catches. */
static void *read_on(void *arg)
{
	struct reader *r = arg;
	struct user_keys k;

	while (!atomic_load(r->stop)) {
		if (!user_table_find(r->t, SPAN_LIT("alice"), EPOCH, &k))
			continue;
		for (unsigned i = 1; i < 32; i++)
			r->torn += k.sha256[i] != k.sha256[0];
	}
	return NULL;
}

static void test_readers_see_whole_keys(void **state)
{
	struct publisher p;
	struct user_table *t;
	atomic_bool stop = false;
	pthread_t th[2];
	struct reader r[2];
	uint8_t hash[32];

	(void)state;
	start(&p, &t);
	for (unsigned i = 0; i < 2; i++) {
		r[i] = (struct reader){t, &stop, 0};
		assert_int_equal(pthread_create(&th[i], NULL, read_on, &r[i]), 0);
	}
	for (unsigned i = 0; i < 400; i++) {
		if (i % 7 == 6) {
			begin(&p, UPDATE_SNAPSHOT, p.head.seq, 0, 1);
			set(&p, "alice", EPOCH, (uint8_t)i, i % 2 != 0);
			assert_int_equal(user_table_apply(t, domain, pk, end(&p, hash)), TABLE_OK);
			continue;
		}
		begin(&p, UPDATE_CHANGE, p.head.seq + 1, 0, 0);
		if (i % 5 == 0)
			del(&p, "alice");
		set(&p, "alice", EPOCH, (uint8_t)i, i % 3 == 0);
		change(&p, t);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 2; i++) {
		pthread_join(th[i], NULL);
		assert_int_equal(r[i].torn, 0);
	}
	user_table_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),     cmocka_unit_test(test_md5_later),
		cmocka_unit_test(test_epochs_move), cmocka_unit_test(test_unknown_is_a_decoy),
		cmocka_unit_test(test_refusals),    cmocka_unit_test(test_snapshot_replaces_at_the_end),
		cmocka_unit_test(test_many),        cmocka_unit_test(test_readers_see_whole_keys),
	};

	if (sodium_init() < 0 || crypto_sign_keypair(pk, sk) != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
