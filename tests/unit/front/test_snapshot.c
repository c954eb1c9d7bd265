/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "front/snapshot.h"
#include "userdb/file.h"

/* An agent's messages go to the table and, when it takes them, to the disk, as the relay does it. */

#define EPOCH   20781u
#define NOW     1789000000000u
#define PER_MSG 250u /* users in a message */

static const struct span domain = {"example.org", 11};
static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];

struct world {
	char dir[64], file[96], spare[96], damaged[112];
	struct front_snapshots *s;
	struct user_table *t;
	struct update_head head; /* of the agent */
	uint32_t epoch;
	struct update_buf b;
	uint8_t buf[UPDATE_BYTES_MAX];
};

static void fresh(struct world *w)
{
	memset(w, 0, sizeof(*w));
	snprintf(w->dir, sizeof(w->dir), "/tmp/walnut-snapshot-XXXXXX");
	assert_non_null(mkdtemp(w->dir));
	snprintf(w->file, sizeof(w->file), "%s/example.org.users", w->dir);
	snprintf(w->spare, sizeof(w->spare), "%s/example.org.users.new", w->dir);
	snprintf(w->damaged, sizeof(w->damaged), "%s/example.org.users.damaged", w->dir);
	w->epoch = EPOCH;
}

static void open_and_load(struct world *w)
{
	assert_int_equal(front_snapshots_open(w->dir, NULL, 1, &w->s), 0);
	assert_int_equal(user_table_new(&w->t), 0);
	assert_int_equal(front_snapshots_load(w->s, 0, "example.org", pk, w->t), 0);
}

static void up(struct world *w)
{
	open_and_load(w);
	assert_int_equal(front_snapshots_start(w->s), 0);
}

static void down(struct world *w)
{
	front_snapshots_close(w->s);
	user_table_free(w->t);
}

static void restart(struct world *w)
{
	down(w);
	up(w);
}

static void clean(struct world *w)
{
	down(w);
	unlink(w->file);
	unlink(w->spare);
	unlink(w->damaged);
	assert_int_equal(rmdir(w->dir), 0);
}

static void begin(struct world *w, enum update_type type, uint32_t chunk, uint32_t chunks)
{
	struct update_msg m = {.type = type,
			       .domain = domain,
			       .at = w->head,
			       .unix_ms = (uint64_t)w->epoch * 86400000 + w->head.seq,
			       .epoch = w->epoch,
			       .epoch_s = 86400,
			       .chunk = chunk,
			       .chunks = chunks};

	if (type == UPDATE_CHANGE)
		m.at.seq++;
	update_begin(&w->b, w->buf, sizeof(w->buf), &m);
}

static void set(struct world *w, unsigned user, uint32_t epoch)
{
	char name[16];
	uint8_t key[32];
	struct user_op op = {USER_SET, span_of(name, (size_t)snprintf(name, sizeof(name), "u%u", user)), USER_HAS_SHA256, epoch, key, NULL};

	memset(key, (int)(user + epoch), sizeof(key));
	assert_int_equal(update_add(&w->b, &op), 0);
}

static void send_it(struct world *w)
{
	bool change = w->buf[4] == UPDATE_CHANGE;
	uint8_t hash[UPDATE_HEAD_BYTES];
	long n = update_end(&w->b, sk, hash);

	assert_true(n > 0);
	assert_int_equal(user_table_apply(w->t, domain, pk, span_of(w->buf, (size_t)n)), TABLE_OK);
	if (w->s != NULL)
		front_snapshots_take(w->s, 0, span_of(w->buf, (size_t)n));
	if (change) {
		w->head.seq++;
		memcpy(w->head.hash, hash, sizeof(hash));
	}
}

/* Users first to last - 1, keys of one epoch. */
static void publish(struct world *w, unsigned first, unsigned last, uint32_t epoch)
{
	while (first < last) {
		begin(w, UPDATE_CHANGE, 0, 1);
		for (unsigned i = 0; i < PER_MSG && first < last; i++)
			set(w, first++, epoch);
		send_it(w);
	}
}

/* All users to `last`, two epochs; `chunks` of them are sent. */
static void snapshot(struct world *w, unsigned last, unsigned chunks)
{
	unsigned all = (last + PER_MSG - 1) / PER_MSG, user = 0;

	for (unsigned c = 0; c < chunks && c < all; c++) {
		begin(w, UPDATE_SNAPSHOT, c, all);
		for (unsigned i = 0; i < PER_MSG && user < last; i++, user++) {
			set(w, user, w->epoch);
			set(w, user, w->epoch + 1);
		}
		send_it(w);
	}
}

static bool has(const struct world *w, unsigned user, uint32_t epoch)
{
	struct user_keys keys;
	char name[16];

	return user_table_find(w->t, span_of(name, (size_t)snprintf(name, sizeof(name), "u%u", user)), epoch, &keys) &&
	       keys.sha256[0] == (uint8_t)(user + epoch);
}

static void assert_held(const struct world *w, uint64_t seq, uint64_t users)
{
	struct table_state s;

	user_table_state(w->t, &s);
	assert_int_equal(s.head.seq, seq);
	assert_int_equal(s.users, users);
	assert_int_equal(front_snapshots_seq(w->s, 0), seq);
}

static off_t size_of(const char *path)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	return st.st_size;
}

static void test_kept(void **state)
{
	struct world w;

	(void)state;
	fresh(&w);
	up(&w);
	assert_held(&w, 0, 0);
	publish(&w, 0, 3, EPOCH); /* a chain from its beginning */
	restart(&w);
	assert_held(&w, 1, 3);
	assert_true(has(&w, 2, EPOCH));

	w.head.seq = 40;
	memset(w.head.hash, 4, sizeof(w.head.hash));
	snapshot(&w, 600, 3);
	publish(&w, 600, 601, EPOCH);
	down(&w);
	assert_int_equal(size_of(w.spare), 0); /* what was replaced does not stay */
	up(&w);
	assert_held(&w, 41, 601);
	assert_true(has(&w, 0, EPOCH));
	assert_true(has(&w, 599, EPOCH + 1));
	assert_true(has(&w, 600, EPOCH));
	assert_int_equal(size_of(w.spare), 0);
	publish(&w, 700, 701, EPOCH); /* goes on from there */
	restart(&w);
	assert_held(&w, 42, 602);
	clean(&w);
}

/* A snapshot counts when it is whole; until then the file goes on as it was. */
static void test_incomplete_snapshot(void **state)
{
	struct world w;

	(void)state;
	fresh(&w);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	snapshot(&w, 600, 2); /* of three, at the update that is held */
	publish(&w, 5, 6, EPOCH);
	restart(&w);
	assert_held(&w, 2, 6);
	/* begun twice */
	snapshot(&w, 600, 2);
	snapshot(&w, 600, 3);
	restart(&w);
	assert_held(&w, 2, 600);
	clean(&w);
}

/* Chunks of two snapshots make none, should the first of the second not have come this far. */
static void test_mixed_snapshots(void **state)
{
	struct world w;
	struct front_snapshots *s;

	(void)state;
	fresh(&w);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	w.head.seq = 9;
	snapshot(&w, 600, 2);
	w.head.seq = 10; /* its first chunk goes into another folder, as it were */
	s = w.s;
	w.s = NULL;
	snapshot(&w, 600, 1);
	w.s = s;
	for (unsigned c = 1; c < 3; c++) {
		begin(&w, UPDATE_SNAPSHOT, c, 3);
		set(&w, 300 * c, EPOCH);
		send_it(&w);
	}
	restart(&w);
	assert_held(&w, 1, 5);
	clean(&w);
}

static void copy_file(const char *from, const char *to)
{
	char buf[4096];
	ssize_t n;
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		assert_int_equal(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
}

/* The power fails when the new file is whole and has no name yet, and, with the old one under the spare's name, just after it got one. */
static void test_crash_around_rename(void **state)
{
	char old[128];
	struct world w;

	(void)state;
	fresh(&w);
	snprintf(old, sizeof(old), "%s.old", w.file);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	down(&w);
	copy_file(w.file, old);
	up(&w);
	w.head.seq = 9;
	snapshot(&w, 600, 3);
	down(&w);

	copy_file(w.file, w.spare);
	copy_file(old, w.file);
	up(&w);
	assert_held(&w, 1, 5);
	assert_int_equal(size_of(w.spare), 0);
	w.head.seq = 9;
	snapshot(&w, 600, 3);
	down(&w);

	copy_file(old, w.spare);
	up(&w);
	assert_held(&w, 9, 600);
	unlink(old);
	clean(&w);
}

/* Killed at any moment, a front finds a state that was once right. */
static void test_killed(void **state)
{
	struct world w;
	struct table_state s;
	int st;

	(void)state;
	fresh(&w);
	for (unsigned i = 0; i < 8; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			alarm(60);
			up(&w);
			user_table_state(w.t, &s);
			w.head = s.head;
			for (unsigned u = 0;; u++) {
				publish(&w, u % 400, u % 400 + 1, EPOCH);
				if (u % 16 == 15) {
					w.head.seq++;
					snapshot(&w, 500, 2);
				}
				if (u == 200 + 37 * i)
					kill(getpid(), SIGKILL);
			}
		}
		assert_int_equal(waitpid(pid, &st, 0), pid);
		assert_true(WIFSIGNALED(st) && WTERMSIG(st) == SIGKILL);
		assert_int_not_equal(access(w.damaged, F_OK), 0);
		open_and_load(&w);
		user_table_state(w.t, &s);
		assert_true(s.users == 0 || s.users <= 500);
		down(&w);
	}
	open_and_load(&w);
	clean(&w);
}

static void test_damaged(void **state)
{
	struct world w;
	uint8_t byte;
	int fd;

	(void)state;
	fresh(&w);
	up(&w);
	w.head.seq = 9;
	snapshot(&w, 600, 3);
	down(&w);
	fd = open(w.file, O_RDWR);
	assert_int_equal(pread(fd, &byte, 1, 20000), 1);
	byte ^= 16;
	assert_int_equal(pwrite(fd, &byte, 1, 20000), 1);
	close(fd);
	up(&w);
	assert_held(&w, 0, 0);
	assert_false(has(&w, 0, EPOCH));
	assert_true(size_of(w.damaged) > 20000);
	/* the agent has only ever sent changes, or sends a snapshot */
	w.head = (struct update_head){0};
	publish(&w, 0, 5, EPOCH);
	restart(&w);
	assert_held(&w, 1, 5);
	w.head.seq = 10;
	snapshot(&w, 600, 3);
	restart(&w);
	assert_held(&w, 10, 600);
	clean(&w);
}

static void test_torn_append(void **state)
{
	struct world w;
	off_t n;
	int fd;

	(void)state;
	fresh(&w);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	down(&w);
	n = size_of(w.file);
	fd = open(w.file, O_WRONLY | O_APPEND);
	assert_int_equal(write(fd, "\0\0\1\0WLN1", 8), 8);
	close(fd);
	up(&w);
	assert_held(&w, 1, 5);
	assert_int_equal(size_of(w.file), n);
	publish(&w, 5, 6, EPOCH);
	restart(&w);
	assert_held(&w, 2, 6);
	clean(&w);
}

/* No room: the file stays as it was, takes no later change, and a whole snapshot makes it good. */
static void test_full_disk(void **state)
{
	struct rlimit none, small = {0};
	struct world w;

	(void)state;
	fresh(&w);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &none), 0);
	signal(SIGXFSZ, SIG_IGN);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	restart(&w); /* written by now */
	small.rlim_cur = (rlim_t)size_of(w.file) + 100;
	small.rlim_max = none.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	publish(&w, 5, 30, EPOCH);
	down(&w);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	assert_int_equal(size_of(w.file), (off_t)small.rlim_cur - 100);

	up(&w);
	assert_held(&w, 1, 5);
	w.head.seq = 9;
	snapshot(&w, 600, 3);
	publish(&w, 600, 601, EPOCH);
	restart(&w);
	assert_held(&w, 10, 601);
	clean(&w);
}

/* What does not follow what is in the file is not written into it. */
static void test_no_hole(void **state)
{
	struct world w;
	off_t n;

	(void)state;
	fresh(&w);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	restart(&w);
	n = size_of(w.file);
	down(&w);
	open_and_load(&w);
	publish(&w, 5, 6, EPOCH); /* more waits than is kept in memory: what came first is written, and nothing after the hole */
	for (unsigned i = 0; i < 400; i++) {
		begin(&w, UPDATE_CHANGE, 0, 1);
		for (unsigned u = 0; u < 1000; u++)
			set(&w, u, EPOCH);
		send_it(&w);
	}
	assert_int_equal(front_snapshots_start(w.s), 0);
	front_snapshots_close(w.s);
	w.s = NULL;
	assert_true(size_of(w.file) > n);
	assert_in_range(size_of(w.file), 7 << 20, 9 << 20);
	user_table_free(w.t);
	up(&w);
	assert_true(front_snapshots_seq(w.s, 0) > 100 && front_snapshots_seq(w.s, 0) < 300);
	assert_true(has(&w, 999, EPOCH));
	clean(&w);
}

/* A change that was not handed over: those after it would not follow. */
static void test_no_gap(void **state)
{
	struct front_snapshots *s;
	struct world w;

	(void)state;
	fresh(&w);
	up(&w);
	publish(&w, 0, 5, EPOCH);
	s = w.s;
	w.s = NULL;
	publish(&w, 5, 6, EPOCH);
	w.s = s;
	publish(&w, 6, 7, EPOCH);
	publish(&w, 7, 8, EPOCH);
	restart(&w);
	assert_held(&w, 1, 5);
	clean(&w);
}

/* After messages were lost a whole snapshot makes the file good, without a restart. */
static void test_good_again(void **state)
{
	struct world w;

	(void)state;
	fresh(&w);
	open_and_load(&w);
	for (unsigned i = 0; i < 300; i++) {
		begin(&w, UPDATE_CHANGE, 0, 1);
		for (unsigned u = 0; u < 1000; u++)
			set(&w, u, EPOCH);
		send_it(&w);
	}
	assert_int_equal(front_snapshots_start(w.s), 0);
	for (time_t end = time(NULL) + 30; front_snapshots_seq(w.s, 0) == 0;)
		assert_true(time(NULL) < end);
	/* What waited is being written, so there is room again; what was lost is noted before what comes now is written. */
	snapshot(&w, 600, 3);
	publish(&w, 600, 601, EPOCH);
	restart(&w);
	assert_held(&w, 301, 601);
	clean(&w);
}

/* Days go by and every user's keys with them: the file does not grow for ever, and keeps what counts. */
static void test_beginning_is_dropped(void **state)
{
	enum { USERS = 9000 };
	struct world w;
	off_t most = 0;

	(void)state;
	fresh(&w);
	up(&w);
	w.head.seq = 9;
	snapshot(&w, USERS, USERS / PER_MSG);
	for (unsigned day = 0; day < 10; day++) {
		w.epoch++;
		publish(&w, 0, USERS, w.epoch + 1);
		if (day < 5)
			continue; /* dropped again and again by a process that goes on */
		restart(&w);
		if (size_of(w.file) > most)
			most = size_of(w.file);
		for (unsigned u = 0; u < USERS; u++)
			assert_true(has(&w, u, w.epoch) && has(&w, u, w.epoch + 1));
	}
	assert_held(&w, w.head.seq, USERS);
	assert_int_equal(size_of(w.spare), 0);
	/* a day's keys are about 450 kB: the snapshot's two days, then never more than five */
	assert_true(most < 5 * 460000);
	publish(&w, USERS, USERS + 1, w.epoch);
	restart(&w);
	assert_held(&w, w.head.seq, USERS + 1);
	clean(&w);
}

static int try_open(const char *dir)
{
	struct front_snapshots *s;
	int rc = front_snapshots_open(dir, NULL, 1, &s);

	front_snapshots_close(s);
	return rc;
}

static void test_whose_it_is(void **state)
{
	struct front_snapshots *s;
	struct user_table *t;
	struct world w;
	char made[96];
	struct stat st;

	(void)state;
	fresh(&w);
	snprintf(made, sizeof(made), "%s/new", w.dir);
	assert_int_equal(try_open(made), 0);
	assert_int_equal(stat(made, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0700);
	assert_int_equal(rmdir(made), 0);
	assert_int_equal(try_open("/tmp/walnut-none/x"), -ENOENT);
	assert_int_equal(chmod(w.dir, 0750), 0);
	assert_int_equal(try_open(w.dir), -EPERM);
	assert_int_equal(chmod(w.dir, 0700), 0);

	up(&w);
	assert_int_equal(try_open(w.dir), -EWOULDBLOCK); /* one front at a time */
	down(&w);
	assert_int_equal(user_table_new(&t), 0);
	assert_int_equal(front_snapshots_open(w.dir, NULL, 1, &s), 0);
	assert_int_equal(chmod(w.file, 0640), 0);
	assert_int_equal(front_snapshots_load(s, 0, "example.org", pk, t), -EPERM);
	front_snapshots_close(s);
	assert_int_equal(chmod(w.file, 0600), 0);
	assert_int_equal(unlink(w.spare), 0);
	assert_int_equal(symlink("/dev/null", w.spare), 0);
	assert_int_equal(front_snapshots_open(w.dir, NULL, 1, &s), 0);
	assert_int_equal(front_snapshots_load(s, 0, "example.org", pk, t), -ELOOP);
	assert_int_equal(front_snapshots_load(s, 0, "../x", pk, t), -EINVAL);
	front_snapshots_close(s);
	assert_int_equal(unlink(w.spare), 0);
	user_table_free(t);
	up(&w);
	clean(&w);
}

static int setup(void **state)
{
	(void)state;
	wn_log_init("test_snapshot", WN_LOG_ERR);
	return sodium_init() < 0 || crypto_sign_keypair(pk, sk) != 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kept),
		cmocka_unit_test(test_incomplete_snapshot),
		cmocka_unit_test(test_crash_around_rename),
		cmocka_unit_test(test_killed),
		cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_torn_append),
		cmocka_unit_test(test_full_disk),
		cmocka_unit_test(test_mixed_snapshots),
		cmocka_unit_test(test_no_hole),
		cmocka_unit_test(test_no_gap),
		cmocka_unit_test(test_good_again),
		cmocka_unit_test(test_beginning_is_dropped),
		cmocka_unit_test(test_whose_it_is),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
