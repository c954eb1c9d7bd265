/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs as processes, against a small world on loopback. argv[1]: the client to run. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/clock.h"
#include "client/enrol.h"
#include "world.h"

#define PATIENCE_MS 15000
#define BLOB        (1 << 20)

static const char *client;
static char home[64];
static struct world *w;
static pid_t running[8]; /* what a test that failed leaves behind */

struct process {
	pid_t pid;
	int in, out, err; /* our ends */
	char said[8192];  /* of its stderr */
	size_t nsaid;
};

static void remember(pid_t pid, pid_t instead_of)
{
	for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); i++) {
		if (running[i] == instead_of) {
			running[i] = pid;
			return;
		}
	}
}

static void spawn(struct process *p, const char *const *args)
{
	int in[2], out[2], err[2];
	char *argv[16] = {(char *)(uintptr_t)client};

	for (int i = 0; args[i] != NULL; i++)
		argv[i + 1] = (char *)(uintptr_t)args[i];
	memset(p, 0, sizeof(*p));
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(err, O_CLOEXEC), 0);
	p->pid = fork();
	assert_true(p->pid >= 0);
	remember(p->pid, 0);
	if (p->pid == 0) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(err[1], 2);
		setenv("WALNUT_HOME", home, 1);
		execv(client, argv);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(err[1]);
	p->in = in[1];
	p->out = out[0];
	p->err = err[0];
}

#define SPAWN(p, ...) spawn(p, (const char *const[]){__VA_ARGS__, NULL})

static bool wait_readable(int fd, uint64_t until)
{
	uint64_t now = wn_now_ms();
	struct pollfd pf = {fd, POLLIN, 0};

	return now < until && poll(&pf, 1, (int)(until - now)) > 0;
}

/* Reads the process's stderr until `text` is in it, or its end when text == NULL. */
static bool hear(struct process *p, const char *text)
{
	uint64_t until = wn_now_ms() + PATIENCE_MS;

	while (text == NULL || strstr(p->said, text) == NULL) {
		ssize_t n;

		if (!wait_readable(p->err, until))
			return false;
		n = read(p->err, p->said + p->nsaid, sizeof(p->said) - 1 - p->nsaid);
		if (n <= 0)
			return text == NULL;
		p->nsaid += (size_t)n;
		p->said[p->nsaid] = '\0';
	}
	return true;
}

static void ready(struct process *p, struct wn_addr *at)
{
	char *line, *end;

	assert_true(hear(p, "walnut: ready on "));
	assert_true(hear(p, "\n"));
	line = strstr(p->said, "walnut: ready on ") + strlen("walnut: ready on ");
	end = strchr(line, '\n');
	assert_int_equal(wn_addr_parse(span_of(line, (size_t)(end - line)), -1, at), 0);
}

static unsigned lines(const struct process *p)
{
	unsigned n = 0;

	for (size_t i = 0; i < p->nsaid; i++)
		n += p->said[i] == '\n';
	return n;
}

static int end_of(struct process *p)
{
	int st = -1;

	if (p->in >= 0)
		close(p->in);
	assert_true(hear(p, NULL));
	waitpid(p->pid, &st, 0);
	remember(0, p->pid);
	close(p->out);
	close(p->err);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 256 + WTERMSIG(st);
}

static int stop(struct process *p)
{
	kill(p->pid, SIGTERM);
	return end_of(p);
}

static void enrol(struct world *world, unsigned nfronts, const struct wn_addr *fronts)
{
	struct enrol e = {.user = "alice", .domain = "example.org", .secret = WORLD_SECRET, .nfronts = nfronts, .epoch_s = 86400};
	char path[256];

	(void)world;
	memcpy(e.fronts, fronts, nfronts * sizeof(*fronts));
	setenv("WALNUT_HOME", home, 1);
	assert_int_equal(enrol_store(&e, path, sizeof(path)), 0);
}

static void eventually(atomic_uint *value, unsigned want)
{
	uint64_t until = wn_now_ms() + PATIENCE_MS;
	struct timespec ts = {.tv_nsec = 2000000};

	while (*value < want && wn_now_ms() < until)
		nanosleep(&ts, NULL);
	assert_int_equal(*value, want);
}

static void dial(int *fd, int type, const struct wn_addr *to)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(to, &ss);

	*fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
	assert_true(*fd >= 0);
	assert_int_equal(connect(*fd, (struct sockaddr *)&ss, len), 0);
}

static void expect(int fd, const void *bytes, size_t n)
{
	uint8_t got[4096];
	size_t have = 0;

	while (have < n) {
		ssize_t k;

		assert_true(wait_readable(fd, wn_now_ms() + PATIENCE_MS));
		k = read(fd, got + have, n - have);
		assert_true(k > 0);
		have += (size_t)k;
	}
	assert_memory_equal(got, bytes, n);
}

static void expect_end(int fd)
{
	uint8_t c;

	assert_true(wait_readable(fd, wn_now_ms() + PATIENCE_MS));
	assert_int_equal(read(fd, &c, 1), 0);
}

/* ---- connect ---- */

static void blob_there_and_back(int in, int out)
{
	uint8_t *sent = malloc(BLOB), *got = malloc(BLOB);
	size_t n = 0;
	pid_t writer;

	randombytes_buf(sent, BLOB);
	writer = fork();
	if (writer == 0) {
		for (size_t off = 0; off < BLOB;) {
			ssize_t k = write(in, sent + off, BLOB - off);

			if (k < 0)
				_exit(1);
			off += (size_t)k;
		}
		_exit(0);
	}
	close(in);
	while (n < BLOB) {
		ssize_t k;

		assert_true(wait_readable(out, wn_now_ms() + PATIENCE_MS));
		k = read(out, got + n, BLOB - n);
		assert_true(k > 0);
		n += (size_t)k;
	}
	expect_end(out);
	waitpid(writer, NULL, 0);
	assert_memory_equal(sent, got, BLOB);
	free(sent);
	free(got);
}

static void connect_carries_bytes(void **state)
{
	struct process p;

	(void)state;
	enrol(w, 2, w->front);
	SPAWN(&p, "connect", "ssh", "22");
	blob_there_and_back(p.in, p.out);
	p.in = -1;
	assert_int_equal(end_of(&p), 0);
	assert_int_equal(p.nsaid, 0);
	eventually(&w->byes, 1);
	assert_int_equal(w->challenges, 1);
	assert_int_equal(w->accepted, 1);
	assert_int_equal(w->bad_digest, 0);
	assert_true(w->acks >= 1);
	assert_int_equal(w->echo_connections, 1);
}

static void connect_past_a_silent_front(void **state)
{
	struct wn_addr fronts[2] = {w->silent, w->front[1]};
	struct process p;

	(void)state;
	enrol(w, 2, fronts);
	for (int i = 0; i < 3; i++) {
		uint64_t before = wn_now_ms();

		SPAWN(&p, "connect", "ssh.example.org");
		assert_int_equal(write(p.in, "x", 1), 1);
		expect(p.out, "x", 1);
		assert_true(wn_now_ms() - before < 3000);
		assert_int_equal(end_of(&p), 0);
	}
}

static void connect_nobody_there(void **state)
{
	struct process p;
	uint64_t before = wn_now_ms();

	(void)state;
	enrol(w, 1, &w->silent);
	SPAWN(&p, "connect", "--timeout", "1", "ssh");
	assert_int_equal(end_of(&p), 1);
	assert_true(wn_now_ms() - before < 5000);
	assert_int_equal(lines(&p), 1);
	assert_non_null(strstr(p.said, "no front of example.org answered"));
	enrol(w, 2, w->front);
}

static void fails_with(const char *service, const char *text)
{
	struct process p;

	SPAWN(&p, "connect", service);
	assert_int_equal(end_of(&p), 1);
	assert_int_equal(lines(&p), 1);
	assert_non_null(strstr(p.said, text));
}

static void connect_says_why(void **state)
{
	(void)state;
	fails_with("nothing", "refused: 404");
	fails_with("only-udp", "walnut forward --udp");
	fails_with("closed", "Connection refused");
	fails_with("busy", "503");
	/* The hole that could not be used was given back. */
	eventually(&w->byes, 1);
}

/* Ended by a signal while the service's side takes its time: the call is cancelled; or, when that is too late, acknowledged and ended. */
static void connect_is_given_up(void **state)
{
	static const struct {
		const char *service;
		unsigned byes;
	} cases[] = {{"slow", 0}, {"crossed", 1}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		unsigned trying = w->trying, cancels = w->cancels, acks = w->acks, byes = w->byes;
		struct process p;
		uint64_t before;

		SPAWN(&p, "connect", cases[i].service);
		eventually(&w->trying, trying + 1);
		before = wn_now_ms();
		kill(p.pid, SIGTERM);
		assert_int_equal(end_of(&p), 1);
		assert_true(wn_now_ms() - before < 3000);
		assert_int_equal(w->cancels, cancels + 1);
		assert_int_equal(w->byes, byes + cases[i].byes);
		assert_int_equal(w->acks, acks + cases[i].byes);
	}
}

static void connect_is_kicked(void **state)
{
	struct process p;

	(void)state;
	SPAWN(&p, "connect", "kicked");
	assert_int_equal(write(p.in, "x", 1), 1);
	expect(p.out, "x", 1);
	expect_end(p.out);
	assert_int_equal(end_of(&p), 1);
	assert_non_null(strstr(p.said, "the service ended the session"));
	eventually(&w->kicked_ok, 1);
	assert_int_equal(w->byes, 0);
}

static void connect_refreshes(void **state)
{
	struct process p;

	(void)state;
	SPAWN(&p, "connect", "brief");
	eventually(&w->updates, 3);
	assert_int_equal(write(p.in, "x", 1), 1);
	expect(p.out, "x", 1);
	assert_int_equal(end_of(&p), 0);
	eventually(&w->byes, 1);
}

static void connect_ends_on_a_signal(void **state)
{
	struct process p;

	(void)state;
	SPAWN(&p, "connect", "ssh");
	assert_int_equal(write(p.in, "x", 1), 1);
	expect(p.out, "x", 1);
	kill(p.pid, SIGHUP); /* as ssh does with its ProxyCommand */
	assert_int_equal(end_of(&p), 1);
	eventually(&w->byes, 1);
}

static void bad_usage(void **state)
{
	static const char *const calls[][5] = {
		{"connect"},
		{"connect", "ssh", "0"},
		{"connect", "ssh", "70000"},
		{"connect", "ssh", "22", "more"},
		{"connect", "--udp", "ssh"},
		{"connect", "--timeout", "soon", "ssh"},
		{"connect", "--timeout"},
		{"connect", "ssh.example.net"},
		{"connect", "--enrol", "/nonexistent/x.json", "ssh"},
		{"proxy", "--listen", "127.0.0.1"},
		{"proxy", "--listen", "0.0.0.0:0"},
		{"proxy", "x"},
		{"forward", "127.0.0.1:0"},
		{"forward", "--udp", "192.0.2.1:53", "dns"},
		{"join", "/nonexistent/line"},
		{"join", "walnut1:abc"},
	};
	struct process p;

	(void)state;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		spawn(&p, calls[i]);
		assert_int_equal(end_of(&p), 2);
		assert_int_equal(lines(&p), 1);
	}
}

static void no_enrolment(void **state)
{
	char kept[64], empty[] = "/tmp/walnut-empty-XXXXXX";
	struct process p;

	(void)state;
	memcpy(kept, home, sizeof(kept));
	assert_non_null(mkdtemp(empty));
	snprintf(home, sizeof(home), "%s", empty);
	SPAWN(&p, "connect", "ssh");
	assert_int_equal(end_of(&p), 2);
	assert_int_equal(lines(&p), 1);
	assert_non_null(strstr(p.said, empty));
	assert_non_null(strstr(p.said, "walnut join"));
	memcpy(home, kept, sizeof(home));
	rmdir(empty);
}

static void joins(void **state)
{
	struct enrol e = {.user = "bob", .domain = "join.example", .secret = WORLD_SECRET, .nfronts = 1};
	char line[ENROL_LINE_MAX], path[128];
	struct process p;
	struct stat st;
	long n;

	(void)state;
	e.fronts[0] = w->front[0];
	n = enrol_format_line(&e, line, sizeof(line));
	assert_true(n > 0);
	SPAWN(&p, "join");
	assert_int_equal(write(p.in, line, (size_t)n), n);
	assert_int_equal(write(p.in, "\n", 1), 1);
	assert_int_equal(end_of(&p), 0);
	snprintf(path, sizeof(path), "%s/join.example.json", home);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Two domains now: a bare name is not enough. */
	SPAWN(&p, "connect", "ssh");
	assert_int_equal(end_of(&p), 2);
	assert_non_null(strstr(p.said, "SERVICE.DOMAIN"));
	unlink(path);
}

/* ---- proxy ---- */

static void socks_request(int fd, const char *name, unsigned port, const char *early)
{
	uint8_t m[512] = {5, 1, 0, 5, 1, 0, 3};
	size_t n = 7, len = strlen(name);

	m[n++] = (uint8_t)len;
	memcpy(m + n, name, len);
	n += len;
	m[n++] = (uint8_t)(port >> 8);
	m[n++] = (uint8_t)port;
	memcpy(m + n, early, strlen(early));
	n += strlen(early);
	assert_int_equal(write(fd, m, n), (ssize_t)n);
	expect(fd, "\x05\x00", 2);
}

static void expect_code(int fd, uint8_t code)
{
	uint8_t reply[10] = {5, code, 0, 1};

	expect(fd, reply, sizeof(reply));
}

static void proxy_serves(void **state)
{
	struct process p;
	struct wn_addr at;
	int fd[8], one;

	(void)state;
	SPAWN(&p, "proxy", "--listen", "127.0.0.1:0");
	ready(&p, &at);
	/* Everything in one write, with data behind the request. */
	dial(&fd[0], SOCK_STREAM, &at);
	socks_request(fd[0], "SSH.example.org", 22, "early");
	expect_code(fd[0], 0);
	expect(fd[0], "early", 5);
	/* The next ones need no challenge each, and do not wait for one another. */
	for (int i = 1; i < 8; i++)
		dial(&fd[i], SOCK_STREAM, &at);
	for (int i = 1; i < 8; i++)
		socks_request(fd[i], "ssh.example.org", 22, "more");
	for (int i = 1; i < 8; i++) {
		expect_code(fd[i], 0);
		expect(fd[i], "more", 4);
	}
	assert_int_equal(w->accepted, 8);
	assert_true(w->challenges < 8);
	assert_int_equal(w->replays, 0);
	/* Half-close reaches the service, and its answer's end comes back. */
	assert_int_equal(shutdown(fd[1], SHUT_WR), 0);
	expect_end(fd[1]);
	for (int i = 1; i < 8; i++)
		close(fd[i]);
	eventually(&w->byes, 7);
	/* Refusals by name and by kind. */
	dial(&one, SOCK_STREAM, &at);
	socks_request(one, "ssh.example.net", 22, "");
	expect_code(one, 2);
	expect_end(one);
	close(one);
	dial(&one, SOCK_STREAM, &at);
	socks_request(one, "nothing.example.org", 22, "");
	expect_code(one, 4);
	expect_end(one);
	close(one);
	dial(&one, SOCK_STREAM, &at);
	socks_request(one, "closed.example.org", 22, "");
	expect_code(one, 5);
	expect_end(one);
	close(one);
	dial(&one, SOCK_STREAM, &at);
	assert_int_equal(write(one, "\x05\x01\x00\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x16", 13), 13);
	expect(one, "\x05\x00", 2);
	expect_code(one, 8);
	expect_end(one);
	close(one);
	/* The one that is still open gets its BYE when the command ends. */
	w->byes = 0;
	assert_int_equal(stop(&p), 0);
	expect_end(fd[0]);
	close(fd[0]);
	eventually(&w->byes, 1);
}

/* ---- forward ---- */

static void forward_tcp(void **state)
{
	struct process p;
	struct wn_addr at;
	int a, b;

	(void)state;
	SPAWN(&p, "forward", "127.0.0.1:0", "ssh");
	ready(&p, &at);
	dial(&a, SOCK_STREAM, &at);
	dial(&b, SOCK_STREAM, &at);
	assert_int_equal(write(a, "one", 3), 3);
	assert_int_equal(write(b, "two", 3), 3);
	expect(a, "one", 3);
	expect(b, "two", 3);
	shutdown(a, SHUT_WR);
	expect_end(a);
	close(a);
	eventually(&w->byes, 1);
	close(b);
	eventually(&w->byes, 2);
	assert_int_equal(stop(&p), 0);
}

static void forward_datagrams(void **state)
{
	static uint8_t big[2000];
	char text[16], want[20];
	struct process p;
	struct wn_addr at;
	int a, b;

	(void)state;
	SPAWN(&p, "forward", "--udp", "127.0.0.1:0", "dns");
	ready(&p, &at);
	dial(&a, SOCK_DGRAM, &at);
	dial(&b, SOCK_DGRAM, &at);
	/* More than may wait for the sign-in: the first sixteen arrive, in order. */
	w->delay_ms = 200;
	for (int i = 0; i < 20; i++) {
		int n = snprintf(text, sizeof(text), "a%02d", i);

		assert_int_equal(send(a, text, (size_t)n, 0), n);
	}
	for (int i = 0; i < 16; i++) {
		int n = snprintf(want, sizeof(want), "re:a%02d", i);

		expect(a, want, (size_t)n);
	}
	w->delay_ms = 0;
	assert_int_equal(w->accepted, 1);
	assert_int_equal(w->top_counter, 16); /* from 1, none twice */
	assert_int_equal(w->tagged, 16);
	assert_int_equal(w->bad_tags, 0);
	/* Another local sender has a session of its own. */
	assert_int_equal(send(b, "b", 1, 0), 1);
	expect(b, "re:b", 4);
	assert_int_equal(w->accepted, 2);
	/* An empty datagram is one too. */
	assert_int_equal(send(a, "", 0, 0), 0);
	expect(a, "re:", 3);
	/* 1456 bytes fit, one more does not: dropped, and said once. */
	assert_int_equal(send(a, big, 1457, 0), 1457);
	assert_int_equal(send(a, big, 2000, 0), 2000);
	assert_true(hear(&p, "1457 bytes is longer than the 1456 that fit"));
	assert_int_equal(send(a, big, 1456, 0), 1456);
	expect(a, "re:\0\0", 5);
	assert_int_equal(w->top_counter, 18);
	assert_int_equal(w->bad_tags, 0);
	assert_int_equal(stop(&p), 0);
	assert_int_equal(w->byes, 2);
	assert_null(strstr(p.said, "2000"));
	close(a);
	close(b);
}

static int begin(void **state)
{
	(void)state;
	w = world_start();
	if (w == NULL)
		return -1;
	enrol(w, 2, w->front);
	return 0;
}

static int finish(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(running) / sizeof(running[0]); i++) {
		if (running[i] == 0)
			continue;
		kill(running[i], SIGKILL);
		waitpid(running[i], NULL, 0);
		running[i] = 0;
	}
	world_stop(w);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	snprintf(home, sizeof(home), "/tmp/walnut-e2e-XXXXXX");
	return sodium_init() < 0 || mkdtemp(home) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/example.org.json", home);
	unlink(path);
	return rmdir(home);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(connect_carries_bytes, begin, finish),
		cmocka_unit_test_setup_teardown(connect_past_a_silent_front, begin, finish),
		cmocka_unit_test_setup_teardown(connect_nobody_there, begin, finish),
		cmocka_unit_test_setup_teardown(connect_says_why, begin, finish),
		cmocka_unit_test_setup_teardown(connect_is_given_up, begin, finish),
		cmocka_unit_test_setup_teardown(connect_is_kicked, begin, finish),
		cmocka_unit_test_setup_teardown(connect_refreshes, begin, finish),
		cmocka_unit_test_setup_teardown(connect_ends_on_a_signal, begin, finish),
		cmocka_unit_test_setup_teardown(bad_usage, begin, finish),
		cmocka_unit_test_setup_teardown(no_enrolment, begin, finish),
		cmocka_unit_test_setup_teardown(joins, begin, finish),
		cmocka_unit_test_setup_teardown(proxy_serves, begin, finish),
		cmocka_unit_test_setup_teardown(forward_tcp, begin, finish),
		cmocka_unit_test_setup_teardown(forward_datagrams, begin, finish),
	};

	if (argc < 2)
		return 2;
	client = argv[1];
	return cmocka_run_group_tests_name("client-e2e", tests, setup, teardown);
}
