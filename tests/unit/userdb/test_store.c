/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "userdb/store.h"

static char dir[64];

static struct user_record record(const char *name)
{
	struct user_record r = {.created_unix_s = 1789000000, .md5 = name[0] == 'm'};

	assert_int_equal(span_cstr(span_str(name), r.name, sizeof(r.name)), 0);
	assert_int_equal(span_cstr(SPAN_LIT("q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA"), r.secret, sizeof(r.secret)), 0);
	return r;
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-store-XXXXXX");
	return mkdtemp(dir) == NULL ? -1 : 0;
}

static int drop_dir(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/data.mdb", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/lock.mdb", dir);
	unlink(path);
	return rmdir(dir);
}

static struct user_store *open_store(void)
{
	struct user_store *s = NULL;

	assert_int_equal(user_store_open(dir, 16u << 20, &s), 0);
	return s;
}

static void test_reopen(void **state)
{
	struct update_head h1 = {1, {1}}, h2 = {2, {2}}, h;
	struct user_record a = record("alice"), m = record("mallory"), got;
	struct user_store_keys keys = {.epoch_s = 86400, .epoch = 20782}, k;
	struct user_store *s = open_store();

	(void)state;
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, 0);
	assert_int_equal(user_store_keys(s, &k), 0);
	assert_false(k.known);
	assert_int_equal(user_store_commit(s, USER_SET, &a, &h1), 0);
	assert_int_equal(user_store_commit(s, USER_SET, &m, &h2), 0);
	assert_int_equal(user_store_commit_keys(s, &h2, &keys), 0);
	user_store_close(s);

	s = open_store();
	assert_int_equal(user_store_count(s), 2);
	assert_int_equal(user_store_get(s, "mallory", &got), 0);
	assert_string_equal(got.secret, m.secret);
	assert_true(got.md5);
	assert_int_equal(got.created_unix_s, 1789000000);
	assert_int_equal(user_store_get(s, "alice", &got), 0);
	assert_false(got.md5);
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, 2);
	assert_memory_equal(h.hash, h2.hash, sizeof(h.hash));
	assert_int_equal(user_store_keys(s, &k), 0);
	assert_true(k.known);
	assert_int_equal(k.epoch, 20782);
	assert_int_equal(k.epoch_s, 86400);
	user_store_close(s);
}

/* The change and its head are one: what is refused moves neither. */
static void test_commit_is_atomic(void **state)
{
	struct update_head h1 = {1, {1}}, h2 = {2, {2}}, h5 = {5, {5}}, h;
	struct user_record a = record("alice"), b = record("bob"), got;
	struct user_store *s = open_store();

	(void)state;
	assert_int_equal(user_store_commit(s, USER_SET, &a, &h1), 0);
	assert_int_equal(user_store_commit(s, USER_SET, &a, &h2), -EEXIST);
	assert_int_equal(user_store_commit(s, USER_SET, &b, &h5), -EINVAL); /* skips */
	assert_int_equal(user_store_commit(s, USER_SET, &b, &h1), -EINVAL); /* goes back */
	assert_int_equal(user_store_commit(s, USER_DEL, &b, &h2), -ENOENT);
	assert_int_equal(user_store_get(s, "bob", &got), -ENOENT);
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, 1);
	assert_int_equal(user_store_commit(s, USER_DEL, &a, &h2), 0);
	assert_int_equal(user_store_get(s, "alice", &got), -ENOENT);
	assert_int_equal(user_store_count(s), 0);
	assert_int_equal(user_store_commit_keys(s, &h5, NULL), -EINVAL);
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, 2);
	user_store_close(s);
}

/* Returned 0 means durable: a process that dies at once leaves everything that it was told is there. */
static void test_survives_kill(void **state)
{
	struct user_store *s;
	struct user_record got;
	struct update_head h;
	int status, ready[2];
	char c;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct update_head head = {0};
		char name[16];

		if (user_store_open(dir, 16u << 20, &s) != 0)
			_exit(1);
		for (unsigned i = 0; i < 50; i++) {
			snprintf(name, sizeof(name), "u%03u", i);
			struct user_record r = record(name);

			head.seq++;
			head.hash[0] = (uint8_t)i;
			if (user_store_commit(s, USER_SET, &r, &head) != 0)
				_exit(1);
		}
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));

	s = open_store(); /* the lock went with its holder */
	assert_int_equal(user_store_count(s), 50);
	assert_int_equal(user_store_get(s, "u049", &got), 0);
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, 50);
	assert_int_equal(h.hash[0], 49);
	user_store_close(s);
}

static void test_one_agent_only(void **state)
{
	struct user_store *s = open_store(), *second = NULL;

	(void)state;
	assert_int_equal(user_store_open(dir, 0, &second), -EBUSY);
	assert_null(second);
	user_store_close(s);
}

static void test_readable_directory(void **state)
{
	struct user_store *s = NULL;

	(void)state;
	assert_int_equal(chmod(dir, 0750), 0);
	assert_int_equal(user_store_open(dir, 0, &s), -EPERM);
	assert_int_equal(chmod(dir, 0700), 0);
	s = open_store();
	user_store_close(s);
}

static void test_bad_records(void **state)
{
	struct user_store *s = open_store();
	struct user_record r = record("alice"), got;

	(void)state;
	r.name[0] = '\0';
	assert_int_equal(user_store_add(s, &r), -EINVAL);
	r = record("alice");
	r.name[2] = '@';
	assert_int_equal(user_store_add(s, &r), -EINVAL);
	r = record("alice");
	r.secret[0] = '\0';
	assert_int_equal(user_store_add(s, &r), -EINVAL);
	r = record("alice");
	assert_int_equal(user_store_add(s, &r), 0);
	assert_int_equal(user_store_add(s, &r), -EEXIST);
	assert_int_equal(user_store_get(s, "", &got), -ENOENT);
	assert_int_equal(user_store_get(s, "alice/../x", &got), -ENOENT);
	assert_int_equal(user_store_del(s, "bob"), -ENOENT);
	assert_int_equal(user_store_del(s, "alice"), 0);
	user_store_close(s);
}

static void test_full_map(void **state)
{
	struct user_store *s = NULL;
	struct user_record got;
	struct update_head h;
	unsigned i = 0;
	int rc = 0;

	(void)state;
	assert_int_equal(user_store_open(dir, 128u << 10, &s), 0);
	for (; i < 10000; i++) {
		struct update_head head = {i + 1, {0}};
		char name[16];

		snprintf(name, sizeof(name), "u%05u", i);
		struct user_record r = record(name);
		rc = user_store_commit(s, USER_SET, &r, &head);
		if (rc != 0)
			break;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(user_store_get(s, "u00000", &got), 0);
	assert_int_equal(user_store_head(s, &h), 0);
	assert_int_equal(h.seq, i);
	user_store_close(s);
}

static int stop_at_b(const struct user_record *r, void *arg)
{
	unsigned *n = arg;

	(*n)++;
	return r->name[0] == 'b' ? 77 : 0;
}

static void test_iteration(void **state)
{
	static const char *const names[] = {"dora", "alice", "bob", "carl"};
	struct user_store *s = open_store();
	struct user_iter *it;
	struct update_head h5 = {5, {5}}, h;
	struct user_record r, late = record("aaron");
	unsigned n = 0;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct update_head head = {i + 1, {0}};

		r = record(names[i]);
		assert_int_equal(user_store_commit(s, USER_SET, &r, &head), 0);
	}
	assert_int_equal(user_store_each(s, stop_at_b, &n), 77);
	assert_int_equal(n, 2);

	/* A view does not see what is written after it was opened. */
	assert_int_equal(user_iter_open(s, &it), 0);
	assert_int_equal(user_iter_next(it, &r), 1);
	assert_string_equal(r.name, "alice");
	assert_int_equal(user_store_commit(s, USER_SET, &late, &h5), 0);
	assert_int_equal(user_store_del(s, "carl"), 0);
	user_iter_head(it, &h);
	assert_int_equal(h.seq, 4);
	assert_int_equal(user_iter_count(it), 4);
	assert_int_equal(user_iter_seek(it, "bob"), 0);
	assert_int_equal(user_iter_next(it, &r), 1);
	assert_string_equal(r.name, "carl");
	assert_int_equal(user_iter_seek(it, "bo"), 0);
	assert_int_equal(user_iter_next(it, &r), 1);
	assert_string_equal(r.name, "bob");
	assert_int_equal(user_iter_seek(it, "dora"), 0);
	assert_int_equal(user_iter_next(it, &r), 0);
	assert_int_equal(user_iter_seek(it, "zed"), 0);
	assert_int_equal(user_iter_next(it, &r), 0);
	user_iter_close(it);

	assert_int_equal(user_iter_open(s, &it), 0);
	assert_int_equal(user_iter_next(it, &r), 1);
	assert_string_equal(r.name, "aaron");
	user_iter_close(it);
	user_store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_reopen, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_commit_is_atomic, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_survives_kill, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_one_agent_only, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_readable_directory, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_bad_records, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_full_map, make_dir, drop_dir),
		cmocka_unit_test_setup_teardown(test_iteration, make_dir, drop_dir),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
