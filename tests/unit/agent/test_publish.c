/* SPDX-License-Identifier: Apache-2.0 */
/* The publisher against fronts' real tables: whatever happened before, a front that answers ends at the chain's head. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/publish.h"
#include "base/log.h"
#include "sip/digest.h"
#include "userdb/table.h"

#define FRONTS  2
#define EPOCH_S 86400u
#define SECRET  "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"

struct fake_front {
	struct user_table *table;
	bool mute;  /* takes and never answers */
	bool lying; /* answers 200 and the head it began with */
	bool refusing;
	struct {
		enum publish_kind kind;
		uint8_t *bytes;
		size_t n;
	} queue[64];
	unsigned queued, sent, heartbeats;
};

static char dir[64];
static uint8_t pk[32], sk[64];
static struct user_store *store;
static struct chain *chain;
static struct publish *publish;
static struct agent_counters counters;
static struct fake_front fronts[FRONTS];
static uint64_t now_ms, unix_ms, tick_ms;
static uint32_t keys_per_s;

static int fake_send(void *arg, unsigned front, enum publish_kind kind, struct span message)
{
	struct fake_front *f = &fronts[front];

	(void)arg;
	assert_true(f->queued < 64);
	f->queue[f->queued].kind = kind;
	f->queue[f->queued].bytes = malloc(message.n);
	memcpy(f->queue[f->queued].bytes, message.p, message.n);
	f->queue[f->queued++].n = message.n;
	f->sent++;
	f->heartbeats += kind == PUBLISH_HEARTBEAT;
	return 0;
}

static const struct publish_ops ops = {.send = fake_send};

static void start(uint32_t epoch_s)
{
	struct publish *p;

	assert_int_equal(user_store_open(dir, 64u << 20, &store), 0);
	assert_int_equal(chain_new(store, "example.org", epoch_s, sk, &chain), 0);
	assert_int_equal(publish_new(chain, FRONTS, keys_per_s, &ops, NULL, &counters, &p), 0);
	publish = p;
	tick_ms = 0;
}

static void stop(void)
{
	publish_free(publish);
	chain_free(chain);
	user_store_close(store);
}

static void empty_queue(struct fake_front *f)
{
	for (unsigned i = 0; i < f->queued; i++)
		free(f->queue[i].bytes);
	f->queued = 0;
}

static struct update_head held_by(unsigned i)
{
	struct table_state s;

	user_table_state(fronts[i].table, &s);
	return s.head;
}

static void lose(unsigned i)
{
	empty_queue(&fronts[i]);
	publish_lost(publish, now_ms, i);
}

static void connect_front(unsigned i)
{
	struct update_head h = held_by(i);

	publish_registered(publish, now_ms, unix_ms, i, &h);
	publish_tick(publish, now_ms, unix_ms);
}

static void reboot_front(unsigned i)
{
	user_table_free(fronts[i].table);
	assert_int_equal(user_table_new(&fronts[i].table), 0);
}

static void deliver(unsigned i)
{
	struct fake_front *f = &fronts[i];
	enum publish_kind kind = f->queue[0].kind;
	uint8_t *bytes = f->queue[0].bytes;
	size_t n = f->queue[0].n;
	enum table_verdict v = TABLE_OK;
	struct update_head h;

	f->queued--;
	memmove(&f->queue[0], &f->queue[1], f->queued * sizeof(f->queue[0]));
	if (!f->lying && !f->refusing)
		v = user_table_apply(f->table, SPAN_LIT("example.org"), pk, span_of(bytes, n));
	free(bytes);
	if (f->mute)
		return;
	h = held_by(i);
	publish_answered(publish, now_ms, unix_ms, i, kind, !f->refusing && (v == TABLE_OK || v == TABLE_CURRENT) ? 200 : 409, &h);
}

/* Lets time pass; every message takes at least 10 ms. */
static void run(uint64_t ms)
{
	for (uint64_t end = now_ms + ms; now_ms < end; now_ms += 10, unix_ms += 10) {
		for (unsigned i = 0; i < FRONTS; i++) {
			if (fronts[i].queued > 0)
				deliver(i);
		}
		if (now_ms >= tick_ms)
			tick_ms = publish_tick(publish, now_ms, unix_ms);
	}
}

static void add(const char *name)
{
	struct user_record r = {.created_unix_s = 1, .md5 = name[0] == 'm'};

	span_cstr(span_str(name), r.name, sizeof(r.name));
	span_cstr(SPAN_LIT(SECRET), r.secret, sizeof(r.secret));
	assert_int_equal(chain_add(chain, unix_ms, &r), 0);
	tick_ms = publish_tick(publish, now_ms, unix_ms);
}

static void add_many(const char *prefix, unsigned n)
{
	char name[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s%05u", prefix, i);
		add(name);
	}
}

static void del(const char *name)
{
	assert_int_equal(chain_del(chain, unix_ms, name), 0);
	tick_ms = publish_tick(publish, now_ms, unix_ms);
}

static bool has(unsigned i, const char *name, uint32_t epoch)
{
	struct user_keys k;
	uint8_t ha1[DIGEST_HASH_MAX];
	struct digest_ctx *d;
	char realm[64];
	bool found = user_table_find(fronts[i].table, span_str(name), epoch, &k);

	if (!found)
		return false;
	snprintf(realm, sizeof(realm), "example.org/%u", epoch);
	assert_int_equal(digest_ctx_new(&d), 0);
	assert_int_equal(digest_ha1(d, DIGEST_SHA256, span_str(name), span_str(realm), SPAN_LIT(SECRET), ha1), 0);
	assert_memory_equal(k.sha256, ha1, 32);
	assert_int_equal((k.flags & USER_HAS_MD5) != 0, name[0] == 'm');
	if (name[0] == 'm') {
		assert_int_equal(digest_ha1(d, DIGEST_MD5, span_str(name), span_str(realm), SPAN_LIT(SECRET), ha1), 0);
		assert_memory_equal(k.md5, ha1, 16);
	}
	digest_ctx_free(d);
	return true;
}

static void assert_at_head(unsigned i)
{
	struct update_head want, h = held_by(i);

	chain_head(chain, &want);
	assert_int_equal(h.seq, want.seq);
	assert_memory_equal(h.hash, want.hash, sizeof(h.hash));
}

static uint32_t epoch(void)
{
	return (uint32_t)(unix_ms / 1000 / EPOCH_S);
}

static int setup(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-publish-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	crypto_sign_keypair(pk, sk);
	memset(&counters, 0, sizeof(counters));
	memset(fronts, 0, sizeof(fronts));
	for (unsigned i = 0; i < FRONTS; i++) {
		if (user_table_new(&fronts[i].table) != 0)
			return -1;
	}
	now_ms = 1000000;
	unix_ms = 20781ull * EPOCH_S * 1000 + 5000;
	keys_per_s = 5000;
	start(EPOCH_S);
	return 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	stop();
	for (unsigned i = 0; i < FRONTS; i++) {
		empty_queue(&fronts[i]);
		user_table_free(fronts[i].table);
	}
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/lock.mdb", dir);
	unlink(path);
	return rmdir(dir);
}

static void test_changes(void **state)
{
	(void)state;
	connect_front(0);
	connect_front(1);
	run(100);
	add("alice");
	add("mallory");
	del("alice");
	add("carol");
	run(1000);
	for (unsigned i = 0; i < FRONTS; i++) {
		assert_at_head(i);
		assert_false(has(i, "alice", epoch()));
		assert_true(has(i, "mallory", epoch()));
		assert_true(has(i, "carol", epoch()));
		assert_true(has(i, "carol", epoch() + 1));
		assert_false(has(i, "carol", epoch() + 2));
	}
	assert_int_equal(counters.n[COUNT_feed_snapshots], 0);
	assert_int_equal(counters.n[COUNT_feed_refused], 0);
}

/* A front that was away for a few changes gets those, in order. */
static void test_catches_up(void **state)
{
	(void)state;
	connect_front(0);
	add("alice");
	run(100);
	lose(0);
	add("bob");
	del("alice");
	add("dave");
	connect_front(0);
	run(500);
	assert_at_head(0);
	assert_true(has(0, "bob", epoch()));
	assert_false(has(0, "alice", epoch()));
	assert_int_equal(counters.n[COUNT_feed_snapshots], 0);
}

/* A restarted agent has no log: a fresh front gets a snapshot, one that was at the head nothing. */
static void test_restart(void **state)
{
	uint64_t sent;

	(void)state;
	connect_front(0);
	add("alice");
	add("bob");
	run(500);
	assert_at_head(0);
	stop();
	start(EPOCH_S);
	sent = counters.n[COUNT_feed_keys_sent];
	connect_front(0);
	connect_front(1);
	run(500);
	assert_at_head(0);
	assert_at_head(1);
	assert_true(has(1, "alice", epoch()));
	assert_true(has(1, "bob", epoch() + 1));
	assert_int_equal(counters.n[COUNT_feed_snapshots], 1);
	assert_int_equal(counters.n[COUNT_feed_keys_sent], sent + 4);
	add("carol");
	run(500);
	assert_at_head(0);
	assert_at_head(1);
	assert_int_equal(counters.n[COUNT_feed_snapshots], 1);
}

/* Several chunks, with changes while they are on their way. */
static void test_chunks(void **state)
{
	(void)state;
	add_many("u", 600);
	stop();
	start(EPOCH_S);
	connect_front(0);
	run(10);
	add("late");
	del("u00599");
	run(2000);
	assert_at_head(0);
	assert_true(has(0, "u00000", epoch()));
	assert_true(has(0, "u00598", epoch() + 1));
	assert_true(has(0, "late", epoch()));
	assert_false(has(0, "u00599", epoch()));
	assert_int_equal(counters.n[COUNT_feed_snapshots], 1);
}

/* A front that holds something else under the same number, or more than the database: noticed, not overwritten in a loop. */
static void test_front_of_another_history(void **state)
{
	struct update_head ahead = {.seq = 99, .hash = {1}};

	(void)state;
	add("alice");
	fronts[0].lying = true;
	publish_registered(publish, now_ms, unix_ms, 0, &ahead);
	run(60000);
	assert_true(counters.n[COUNT_feed_front_ahead] >= 1);
	assert_int_equal(fronts[0].sent - fronts[0].heartbeats, 0);
}

static void test_lying_front(void **state)
{
	(void)state;
	add_many("u", 10);
	connect_front(0);
	fronts[0].lying = true;
	run(60000);
	assert_true(fronts[0].sent < 40);
	fronts[0].lying = false;
	run(65000);
	assert_at_head(0);
}

static void test_refusing_front(void **state)
{
	(void)state;
	add_many("u", 10);
	connect_front(0);
	fronts[0].refusing = true;
	connect_front(1);
	run(60000);
	assert_true(fronts[0].sent < 40);
	assert_at_head(1);
	fronts[0].refusing = false;
	run(65000);
	assert_at_head(0);
}

/* Each front hears the time as soon as it holds everything, also when it lacked nothing. */
static void test_states_the_time(void **state)
{
	struct table_state s;

	(void)state;
	connect_front(0);
	run(50);
	assert_int_equal(fronts[0].heartbeats, 1);
	user_table_state(fronts[0].table, &s);
	assert_true(s.publisher_ms > 0);
	add("alice");
	run(100);
	unix_ms += 500000;
	lose(0);
	connect_front(0);
	run(50);
	user_table_state(fronts[0].table, &s);
	assert_true(unix_ms - s.publisher_ms < 1000);
	unix_ms += 5000;
	assert_int_equal(publish_heartbeat(publish, unix_ms, 0), 0);
	run(50);
	user_table_state(fronts[0].table, &s);
	assert_true(unix_ms - s.publisher_ms < 1000);
}

/* A heartbeat shows a front that lost its table without losing the connection. */
static void test_gap_by_heartbeat(void **state)
{
	(void)state;
	connect_front(0);
	add("alice");
	run(100);
	reboot_front(0);
	assert_int_equal(publish_heartbeat(publish, unix_ms, 0), 0);
	run(500);
	assert_at_head(0);
	assert_true(has(0, "alice", epoch()));
}

static void test_rotation(void **state)
{
	uint64_t before;

	(void)state;
	connect_front(0);
	connect_front(1);
	add_many("u", 40);
	run(2000);
	before = counters.n[COUNT_feed_keys_sent];
	unix_ms += EPOCH_S * 1000ull;
	run(3000);
	for (unsigned i = 0; i < FRONTS; i++) {
		assert_at_head(i);
		assert_true(has(i, "u00039", epoch()));
		assert_true(has(i, "u00000", epoch() + 1));
		assert_true(has(i, "u00039", epoch() + 1));
	}
	/* once: the keys that came before are not sent again */
	assert_int_equal(counters.n[COUNT_feed_keys_sent] - before, 40 * FRONTS);
	assert_int_equal(counters.n[COUNT_feed_snapshots], 0);
	/* old keys are gone once the publisher says that their epoch is over */
	assert_false(has(0, "u00000", epoch() - 1));
	run(5000);
	assert_int_equal(counters.n[COUNT_feed_keys_sent] - before, 40 * FRONTS);
}

/* The cap on the link, in any second: what is sent at once, plus the rate. */
static void test_rotation_rate(void **state)
{
	uint64_t began, window[400] = {0};
	unsigned n = 0;

	(void)state;
	keys_per_s = 100;
	stop();
	start(EPOCH_S);
	connect_front(0);
	connect_front(1);
	add_many("u", 300);
	run(20000);
	began = counters.n[COUNT_feed_keys_sent];
	unix_ms += EPOCH_S * 1000ull;
	for (; n < 400 && !(has(0, "u00299", epoch() + 1) && has(1, "u00299", epoch() + 1)); n++) {
		window[n] = counters.n[COUNT_feed_keys_sent];
		run(100);
	}
	assert_int_equal(counters.n[COUNT_feed_keys_sent] - began, 300 * FRONTS);
	for (unsigned i = 0; i + 10 < n; i++)
		assert_true(window[i + 10] - window[i] <= 100 + 100 + 2 * 10);
	/* 600 keys, 100 of them at once: not before 5 s, and not much later */
	assert_true(n >= 48 && n <= 70);
}

/* The same cap holds for snapshots. */
static void test_snapshot_rate(void **state)
{
	(void)state;
	keys_per_s = 500;
	add_many("u", 1000);
	stop();
	start(EPOCH_S);
	counters.n[COUNT_feed_keys_sent] = 0;
	connect_front(0);
	run(1000);
	assert_true(counters.n[COUNT_feed_keys_sent] <= 500 + 500 + 500);
	assert_false(has(0, "u00000", epoch()));
	run(4000);
	assert_at_head(0);
	assert_true(has(0, "u00999", epoch()));
}

/* A front that was away while an epoch's keys were appended gets them under the same cap. */
static void test_rate_of_catching_up(void **state)
{
	uint64_t began;

	(void)state;
	keys_per_s = 100;
	stop();
	start(EPOCH_S);
	connect_front(0);
	connect_front(1);
	add_many("u", 300);
	run(20000);
	lose(1);
	unix_ms += EPOCH_S * 1000ull;
	run(10000);
	assert_true(has(0, "u00299", epoch() + 1));
	began = counters.n[COUNT_feed_keys_sent];
	connect_front(1);
	run(1000);
	assert_true(counters.n[COUNT_feed_keys_sent] - began <= 100 + 100 + 20);
	run(2500);
	assert_at_head(1);
	assert_int_equal(counters.n[COUNT_feed_snapshots], 0);
}

/* Two fronts that need everything at once share it. */
static void test_rate_is_shared(void **state)
{
	(void)state;
	keys_per_s = 100;
	run(100);
	add_many("u", 250);
	stop();
	start(EPOCH_S);
	counters.n[COUNT_feed_keys_sent] = 0;
	connect_front(0);
	connect_front(1);
	run(2000);
	assert_true(counters.n[COUNT_feed_keys_sent] <= 500);
	run(10000);
	assert_at_head(0);
	assert_at_head(1);
}

/* An agent that stopped in the middle of a rotation begins it again. */
static void test_rotation_resumes(void **state)
{
	(void)state;
	keys_per_s = 100;
	stop();
	start(EPOCH_S);
	connect_front(0);
	add_many("u", 100);
	run(10000);
	unix_ms += EPOCH_S * 1000ull;
	run(300);
	assert_false(has(0, "u00099", epoch() + 1));
	stop();
	empty_queue(&fronts[0]);
	start(EPOCH_S);
	connect_front(0);
	run(5000);
	assert_at_head(0);
	assert_true(has(0, "u00000", epoch() + 1));
	assert_true(has(0, "u00099", epoch() + 1));
	assert_false(chain_rotation_due(chain, unix_ms));
}

static void test_epoch_length_changed(void **state)
{
	(void)state;
	connect_front(0);
	add("alice");
	run(500);
	lose(0);
	stop();
	start(0);
	connect_front(0);
	run(2000);
	assert_at_head(0);
	assert_true(has(0, "alice", 0));
	add("bob");
	run(500);
	assert_true(has(0, "bob", 0));
}

struct done {
	unsigned calls, confirmed, of;
};

static void on_done(unsigned confirmed, unsigned of, void *arg)
{
	struct done *d = arg;

	d->calls++;
	d->confirmed = confirmed;
	d->of = of;
}

static void test_waiting(void **state)
{
	struct update_head h;
	struct done d = {0};

	(void)state;
	chain_head(chain, &h);
	assert_int_equal(publish_wait(publish, now_ms, h.seq + 1, now_ms + 2000, on_done, &d), 0);
	assert_int_equal(d.calls, 1); /* no front: nothing to wait for */
	assert_int_equal(d.of, 0);

	connect_front(0);
	connect_front(1);
	run(100);
	d = (struct done){0};
	add("alice");
	chain_head(chain, &h);
	assert_int_equal(publish_wait(publish, now_ms, h.seq, now_ms + 2000, on_done, &d), 0);
	assert_int_equal(d.calls, 0);
	run(200);
	assert_int_equal(d.calls, 1);
	assert_int_equal(d.confirmed, 2);
	assert_int_equal(d.of, 2);

	fronts[1].mute = true;
	d = (struct done){0};
	add("bob");
	chain_head(chain, &h);
	assert_int_equal(publish_wait(publish, now_ms, h.seq, now_ms + 2000, on_done, &d), 0);
	run(1900);
	assert_int_equal(d.calls, 0);
	run(300);
	assert_int_equal(d.calls, 1);
	assert_int_equal(d.confirmed, 1);
	assert_int_equal(d.of, 2);
}

static void test_log_bounds(void **state)
{
	(void)state;
	connect_front(0);
	run(100);
	lose(0);
	for (unsigned i = 0; i < CHAIN_LOG_COUNT_MAX / 2 + 5; i++) {
		add("x");
		del("x");
	}
	add("y");
	connect_front(0);
	run(500);
	assert_at_head(0);
	assert_true(has(0, "y", epoch()));
	assert_int_equal(counters.n[COUNT_feed_snapshots], 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_changes),
		TEST(test_catches_up),
		TEST(test_restart),
		TEST(test_chunks),
		TEST(test_front_of_another_history),
		TEST(test_lying_front),
		TEST(test_refusing_front),
		TEST(test_states_the_time),
		TEST(test_gap_by_heartbeat),
		TEST(test_rotation),
		TEST(test_rotation_rate),
		TEST(test_snapshot_rate),
		TEST(test_rate_of_catching_up),
		TEST(test_rate_is_shared),
		TEST(test_rotation_resumes),
		TEST(test_epoch_length_changed),
		TEST(test_waiting),
		TEST(test_log_bounds),
	};

	wn_log_init("test", WN_LOG_ERR);
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}
