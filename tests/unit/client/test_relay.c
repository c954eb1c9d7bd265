/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "client/relay.h"

#define BIG (3 * 1000 * 1000 + 17)

static int done_err;
static unsigned done_calls;
static uv_loop_t loop;

static void on_done(struct relay *r, int err, void *arg)
{
	(void)r;
	(void)arg;
	done_err = err;
	done_calls++;
}

static void read_fully(int fd, uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t k = read(fd, p, n);

		if (k <= 0)
			_exit(10);
		p += k;
		n -= (size_t)k;
	}
}

static void write_fully(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t k = write(fd, p, n);

		if (k <= 0)
			_exit(11);
		p += k;
		n -= (size_t)k;
	}
}

static void fill(uint8_t *p, size_t n, uint8_t which)
{
	uint8_t seed[32] = {which};

	randombytes_buf_deterministic(p, n, seed);
}

/* A process at one end: `eager` writes everything and half-closes, then reads; the other reads all to its end first, then answers. */
static pid_t end_process(int fd, int other, uint8_t mine, uint8_t theirs, int eager)
{
	pid_t pid = fork();
	uint8_t *p, *want, c;

	if (pid != 0)
		return pid;
	close(other);
	p = malloc(BIG);
	want = malloc(BIG);
	fill(want, BIG, theirs);
	for (int turn = 0; turn < 2; turn++) {
		if ((turn == 0) == (eager != 0)) {
			fill(p, BIG, mine);
			write_fully(fd, p, BIG);
			shutdown(fd, SHUT_WR);
		} else {
			read_fully(fd, p, BIG);
			if (memcmp(p, want, BIG) != 0)
				_exit(12);
			if (read(fd, &c, 1) != 0)
				_exit(13);
		}
	}
	_exit(0);
}

static int status_of(pid_t pid)
{
	int st = -1;

	waitpid(pid, &st, 0);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 255;
}

static void half_close_both_ways(void **state)
{
	int a[2], b[2];
	struct relay *r;
	pid_t pa, pb;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, b), 0);
	pa = end_process(a[1], a[0], 1, 2, 1);
	close(a[1]);
	pb = end_process(b[1], b[0], 2, 1, 0);
	close(b[1]);
	done_calls = 0;
	assert_int_equal(relay_start(&loop, (struct relay_side){a[0], a[0]}, (struct relay_side){b[0], b[0]}, NULL, 0, on_done, NULL, &r),
			 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(done_calls, 1);
	assert_int_equal(done_err, 0);
	assert_int_equal(status_of(pa), 0);
	assert_int_equal(status_of(pb), 0);
}

static void pipes_and_early_bytes(void **state)
{
	int in[2], out[2], s[2];
	struct relay *r;
	char buf[64];

	(void)state;
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	assert_int_equal(write(in[1], "second", 6), 6);
	close(in[1]);
	assert_int_equal(write(s[1], "answer", 6), 6);
	shutdown(s[1], SHUT_WR);
	done_calls = 0;
	assert_int_equal(relay_start(&loop, (struct relay_side){in[0], out[1]}, (struct relay_side){s[0], s[0]}, (const uint8_t *)"first ",
				     6, on_done, NULL, &r),
			 0);
	/* libuv's habit of making what it watches non-blocking must not show at the other end. */
	assert_int_equal(fcntl(in[0], F_GETFL) & O_NONBLOCK, 0);
	assert_int_equal(fcntl(out[1], F_GETFL) & O_NONBLOCK, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(done_calls, 1);
	assert_int_equal(done_err, 0);
	assert_int_equal(read(s[1], buf, sizeof(buf)), 12);
	assert_memory_equal(buf, "first second", 12);
	assert_int_equal(read(s[1], buf, sizeof(buf)), 0);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "answer", 6);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 0);
	close(s[1]);
	close(out[0]);
}

static void tick(uv_timer_t *t)
{
	relay_stop((struct relay *)t->data);
	uv_close((uv_handle_t *)t, NULL);
}

/* A side that does not read holds the other back: no more than the buffers and the kernel's are taken in. */
static void holds_back(void **state)
{
	static uint8_t chunk[65536];
	int a[2], b[2], size = 4096;
	struct relay *r;
	uv_timer_t t;
	size_t sent = 0;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, b), 0);
	setsockopt(b[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	setsockopt(a[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	assert_int_equal(relay_start(&loop, (struct relay_side){a[0], a[0]}, (struct relay_side){b[0], b[0]}, NULL, 0, on_done, NULL, &r),
			 0);
	for (int idle = 0; idle < 3;) {
		ssize_t n = write(a[1], chunk, sizeof(chunk));

		if (n > 0) {
			sent += (size_t)n;
			idle = 0;
		} else {
			idle++;
		}
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	assert_true(sent > 0);
	assert_true(sent < 2 * RELAY_BUFFER + 65536);
	done_calls = 0;
	uv_timer_init(&loop, &t);
	t.data = r;
	uv_timer_start(&t, tick, 0, 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(done_calls, 1);
	assert_int_equal(done_err, ECANCELED);
	close(a[1]);
	close(b[1]);
}

static void reports_a_reset(void **state)
{
	int in[2], out[2], s[2];
	struct relay *r;

	(void)state;
	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	close(out[0]); /* nobody reads our output */
	assert_int_equal(write(s[1], "x", 1), 1);
	done_calls = 0;
	assert_int_equal(
		relay_start(&loop, (struct relay_side){in[0], out[1]}, (struct relay_side){s[0], s[0]}, NULL, 0, on_done, NULL, &r), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(done_calls, 1);
	assert_int_equal(done_err, EPIPE);
	close(in[1]);
	close(s[1]);
}

/* Files and /dev/null cannot be polled. */
static void files(void **state)
{
	char name[] = "/tmp/walnut-relay-XXXXXX", buf[8];
	int in = open("/dev/null", O_RDONLY), out = mkstemp(name), back, s[2];
	struct relay *r;

	(void)state;
	assert_true(in >= 0 && out >= 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
	assert_int_equal(write(s[1], "file", 4), 4);
	shutdown(s[1], SHUT_WR);
	done_calls = 0;
	assert_int_equal(relay_start(&loop, (struct relay_side){in, out}, (struct relay_side){s[0], s[0]}, NULL, 0, on_done, NULL, &r), 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(done_calls, 1);
	assert_int_equal(done_err, 0);
	assert_int_equal(read(s[1], buf, sizeof(buf)), 0);
	back = open(name, O_RDONLY);
	assert_int_equal(read(back, buf, sizeof(buf)), 4);
	assert_memory_equal(buf, "file", 4);
	close(back);
	close(s[1]);
	unlink(name);
}

static int setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	return sodium_init() < 0 ? -1 : uv_loop_init(&loop);
}

static int teardown(void **state)
{
	(void)state;
	return uv_loop_close(&loop);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(half_close_both_ways),
		cmocka_unit_test(pipes_and_early_bytes),
		cmocka_unit_test(holds_back),
		cmocka_unit_test(reports_a_reset),
		cmocka_unit_test(files),
	};

	return cmocka_run_group_tests_name("client-relay", tests, setup, teardown);
}
