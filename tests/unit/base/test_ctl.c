/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ctl.h"

/* A server on a thread of its own, so that the blocking client can be tested against it. */
struct server {
	char dir[64], path[96];
	uv_loop_t loop;
	uv_async_t stop;
	uv_timer_t later;
	struct ctl_server *ctl;
	struct ctl_pending *pending;
	pthread_t thread;
	int calls;
};

static void answer_later(uv_timer_t *t)
{
	struct server *s = (struct server *)t->data;
	struct ctl_pending *p = s->pending;

	s->pending = NULL;
	ctl_answer(p, json_pack("{s:b,s:s}", "ok", 1, "when", "later"));
}

static json_t *handle(const json_t *request, void *arg)
{
	struct server *s = (struct server *)arg;
	const char *cmd = json_string_value(json_object_get(request, "cmd"));

	s->calls++;
	if (strcmp(cmd, "fail") == 0)
		return ctl_error("no %s", "luck");
	if (strcmp(cmd, "big") == 0) {
		json_t *list = json_array();

		for (int i = 0; i < 200000; i++)
			json_array_append_new(list, json_integer(i));
		return json_pack("{s:b,s:o}", "ok", 1, "list", list);
	}
	if (strcmp(cmd, "later") == 0 && s->pending == NULL) {
		s->pending = ctl_defer(s->ctl);
		uv_timer_start(&s->later, answer_later, 20, 0);
		return NULL;
	}
	if (strcmp(cmd, "at once") == 0) {
		ctl_answer(ctl_defer(s->ctl), json_pack("{s:b,s:s}", "ok", 1, "when", "at once"));
		return NULL;
	}
	return json_pack("{s:b,s:s}", "ok", 1, "cmd", cmd);
}

static void stop(uv_async_t *a)
{
	struct server *s = (struct server *)a->data;

	ctl_close(s->ctl);
	if (s->pending != NULL)
		answer_later(&s->later);
	uv_close((uv_handle_t *)&s->later, NULL);
	uv_close((uv_handle_t *)&s->stop, NULL);
}

static void *serve(void *arg)
{
	struct server *s = (struct server *)arg;

	uv_run(&s->loop, UV_RUN_DEFAULT);
	return NULL;
}

static int setup(void **state)
{
	struct server *s = (struct server *)calloc(1, sizeof(*s));

	assert_non_null(s);
	snprintf(s->dir, sizeof(s->dir), "/tmp/walnut-ctl-XXXXXX");
	assert_non_null(mkdtemp(s->dir));
	snprintf(s->path, sizeof(s->path), "%s/run/x.sock", s->dir);
	uv_loop_init(&s->loop);
	uv_async_init(&s->loop, &s->stop, stop);
	uv_timer_init(&s->loop, &s->later);
	s->stop.data = s;
	s->later.data = s;
	assert_int_equal(ctl_listen(&s->loop, s->path, handle, s, &s->ctl), 0);
	pthread_create(&s->thread, NULL, serve, s);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct server *s = (struct server *)*state;
	struct stat st;
	char run[96];

	uv_async_send(&s->stop);
	pthread_join(s->thread, NULL);
	assert_int_equal(uv_loop_close(&s->loop), 0);
	assert_int_equal(lstat(s->path, &st), -1);
	snprintf(run, sizeof(run), "%s/run", s->dir);
	assert_int_equal(rmdir(run), 0);
	assert_int_equal(rmdir(s->dir), 0);
	free(s);
	return 0;
}

static int raw_connect(const struct server *s)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", s->path);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

/* Sends the text and reads up to a newline; -1 when the server closed instead. */
static int raw_ask(int fd, const char *text, char *line, size_t cap)
{
	size_t n = 0;

	assert_true(send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
	while (n + 1 < cap) {
		if (recv(fd, line + n, 1, 0) <= 0)
			return -1;
		if (line[n] == '\n')
			break;
		n++;
	}
	line[n] = 0;
	return (int)n;
}

static json_t *call(const struct server *s, const char *cmd)
{
	json_t *request = json_pack("{s:s}", "cmd", cmd), *answer = NULL;

	assert_int_equal(ctl_call(s->path, request, 5000, &answer), 0);
	json_decref(request);
	assert_non_null(answer);
	return answer;
}

static void asks_and_answers(void **state)
{
	struct server *s = (struct server *)*state;
	struct stat st;
	json_t *a;

	assert_int_equal(lstat(s->path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	a = call(s, "status");
	assert_true(json_is_true(json_object_get(a, "ok")));
	json_decref(a);
	a = call(s, "fail");
	assert_true(json_is_false(json_object_get(a, "ok")));
	assert_string_equal(json_string_value(json_object_get(a, "error")), "no luck");
	json_decref(a);
	a = call(s, "big"); /* more than any socket buffer */
	assert_int_equal(json_array_size(json_object_get(a, "list")), 200000);
	json_decref(a);
	a = call(s, "later");
	assert_string_equal(json_string_value(json_object_get(a, "when")), "later");
	json_decref(a);
	a = call(s, "at once");
	assert_string_equal(json_string_value(json_object_get(a, "when")), "at once");
	json_decref(a);
}

static void the_answer_to_a_client_that_has_gone(void **state)
{
	struct server *s = (struct server *)*state;
	int fd = raw_connect(s);
	json_t *a;

	assert_true(send(fd, "{\"cmd\":\"later\"}\n", 16, 0) == 16);
	close(fd);
	a = call(s, "status");
	json_decref(a);
	/* teardown: the server closes first, then the answer comes */
}

static void lines_in_pieces_and_together(void **state)
{
	struct server *s = (struct server *)*state;
	int fd = raw_connect(s);
	char line[200];

	for (const char *p = "{\"cmd\":\"a\"}"; *p != 0; p++) {
		assert_int_equal(send(fd, p, 1, 0), 1);
		sched_yield();
	}
	assert_true(raw_ask(fd, "\n", line, sizeof(line)) > 0);
	assert_non_null(strstr(line, "\"a\""));
	assert_true(raw_ask(fd, "{\"cmd\":\"b\"}\n{\"cmd\":\"c\"}\n", line, sizeof(line)) > 0);
	assert_non_null(strstr(line, "\"b\""));
	assert_true(raw_ask(fd, "", line, sizeof(line)) > 0);
	assert_non_null(strstr(line, "\"c\""));
	close(fd);
}

static void nonsense(void **state)
{
	static const char *const bad[] = {"\n", "{\n", "[]\n", "{}\n", "{\"cmd\":1}\n", "\"cmd\"\n", "{\"cmd\":\"a\",\"cmd\":\"b\"}\n"};
	struct server *s = (struct server *)*state;
	char line[400];

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		int fd = raw_connect(s);

		assert_true(raw_ask(fd, bad[i], line, sizeof(line)) > 0);
		assert_non_null(strstr(line, "\"ok\":false"));
		close(fd);
	}
	assert_int_equal(s->calls, 0);
}

static void too_long_a_line(void **state)
{
	struct server *s = (struct server *)*state;
	int fd = raw_connect(s);
	char *junk = (char *)malloc(65536), c;
	size_t sent = 0;

	memset(junk, 'x', 65536);
	while (sent < 4u * CTL_LINE_MAX) {
		ssize_t k = send(fd, junk, 65536, MSG_NOSIGNAL);

		if (k < 0)
			break;
		sent += (size_t)k;
	}
	assert_true(sent >= CTL_LINE_MAX && sent < 4u * CTL_LINE_MAX);
	assert_true(recv(fd, &c, 1, 0) <= 0);
	free(junk);
	close(fd);
	json_decref(call(s, "status"));
}

/* Clients that say nothing, or take no answer, cost the others nothing. */
static void slow_clients(void **state)
{
	struct server *s = (struct server *)*state;
	uint64_t t = wn_now_ms();
	int fd[40];
	char c;

	for (int i = 0; i < 40; i++) {
		fd[i] = raw_connect(s);
		assert_true(send(fd[i], i % 2 != 0 ? "{\"cmd\":\"big\"}\n" : "{", i % 2 != 0 ? 14 : 1, MSG_NOSIGNAL) > 0);
	}
	json_decref(call(s, "status"));
	/* Forty are more than it keeps: the oldest had to go, long before its deadline. */
	assert_true(recv(fd[0], &c, 1, 0) <= 0);
	assert_true(wn_now_ms() - t < 5000);
	for (int i = 0; i < 40; i++)
		close(fd[i]);
}

static void one_at_a_time_on_a_path(void **state)
{
	struct server *s = (struct server *)*state;
	struct ctl_server *two = NULL;
	uv_loop_t loop;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	char path[96], text[200];
	FILE *f;
	int fd;

	uv_loop_init(&loop);
	assert_int_equal(ctl_listen(&loop, s->path, handle, s, &two), -EADDRINUSE);
	json_decref(call(s, "status")); /* the first is unharmed */

	/* Left behind by a process that was killed. */
	snprintf(path, sizeof(path), "%s/stale", s->dir);
	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	close(fd);
	assert_int_equal(ctl_listen(&loop, path, handle, s, &two), 0);
	ctl_close(two);
	uv_run(&loop, UV_RUN_DEFAULT);

	/* Not a socket at all: never removed. */
	f = fopen(path, "w");
	assert_non_null(f);
	fclose(f);
	assert_int_equal(ctl_listen(&loop, path, handle, s, &two), -ENOTSOCK);
	assert_int_equal(unlink(path), 0);

	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = 0;
	assert_int_equal(ctl_listen(&loop, text, handle, s, &two), -ENAMETOOLONG);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void *start_too(void *arg)
{
	const char *path = arg;
	struct ctl_server *c = NULL;
	uv_loop_t loop;
	long rc;

	uv_loop_init(&loop);
	rc = ctl_listen(&loop, path, handle, NULL, &c);
	if (rc == 0)
		ctl_close(c);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return (void *)rc;
}

/* Four daemons share a folder and are started together: none of them may take the others' moment in it for a rival. */
static void many_start_at_once(void **state)
{
	struct server *s = (struct server *)*state;
	pthread_t thread[8];
	char path[8][96];
	void *rc;
	int fd = open(s->dir, O_RDONLY | O_DIRECTORY);

	assert_true(fd >= 0);
	assert_int_equal(flock(fd, LOCK_EX), 0); /* all of them find it taken */
	for (int i = 0; i < 8; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/d%d", s->dir, i);
		assert_int_equal(pthread_create(&thread[i], NULL, start_too, path[i]), 0);
	}
	usleep(20000);
	assert_int_equal(flock(fd, LOCK_UN), 0);
	for (int i = 0; i < 8; i++) {
		pthread_join(thread[i], &rc);
		assert_int_equal((long)rc, 0);
	}
	close(fd);
}

static void a_server_that_does_not_answer(void **state)
{
	struct server *s = (struct server *)*state;
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	json_t *request = json_pack("{s:s}", "cmd", "status"), *answer;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	uint64_t t = wn_now_ms();

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s/mute", s->dir);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(ctl_call(sa.sun_path, request, 5000, &answer), -ECONNREFUSED);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(ctl_call(sa.sun_path, request, 100, &answer), -ETIMEDOUT);
	assert_null(answer);
	assert_true(wn_now_ms() - t < 4000);
	close(fd);
	unlink(sa.sun_path);
	assert_int_equal(ctl_call(sa.sun_path, request, 5000, &answer), -ENOENT);
	json_decref(request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(asks_and_answers, setup, teardown),
		cmocka_unit_test_setup_teardown(the_answer_to_a_client_that_has_gone, setup, teardown),
		cmocka_unit_test_setup_teardown(lines_in_pieces_and_together, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense, setup, teardown),
		cmocka_unit_test_setup_teardown(too_long_a_line, setup, teardown),
		cmocka_unit_test_setup_teardown(slow_clients, setup, teardown),
		cmocka_unit_test_setup_teardown(one_at_a_time_on_a_path, setup, teardown),
		cmocka_unit_test_setup_teardown(many_start_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(a_server_that_does_not_answer, setup, teardown),
	};

	return cmocka_run_group_tests_name("ctl", tests, NULL, NULL);
}
