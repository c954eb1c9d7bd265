/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"
#include "prometheus.h"

/* What an operator and a service manager see of the process. */

#define WATCHDOG_MS 400

static struct wn_addr metrics;
static int manager;

/* The next word to the service manager. */
static void told(char *text, size_t cap)
{
	ssize_t n = recv(manager, text, cap - 1, 0);

	assert_true(n > 0);
	text[n] = 0;
}

static void expect_told(const char *want)
{
	char text[128];

	told(text, sizeof(text));
	assert_string_equal(text, want);
}

static void open_manager(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval patience = {WAIT_MS / 1000, 0};
	char name[64], us[32];
	int n = snprintf(name, sizeof(name), "@walnut-operation-%d", (int)getpid());

	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
	assert_int_equal(bind(manager, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
	assert_int_equal(setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	snprintf(us, sizeof(us), "%d", WATCHDOG_MS * 1000);
	setenv("WATCHDOG_USEC", us, 1);
	unsetenv("WATCHDOG_PID");
}

static int group_setup(void **state)
{
	char more[64], text[WN_ADDR_STR];

	(void)state;
	open_manager();
	metrics = addr_of("127.0.0.1:1");
	metrics.port = free_port(SOCK_STREAM);
	snprintf(more, sizeof(more), "metrics: %s\ndrain_s: 60\n", wn_addr_str(&metrics, text));
	process_setup(more);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	close(manager);
	return process_teardown();
}

/* One scrape, by hand. */
static char *scrape(char *buf, size_t cap)
{
	static const char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&metrics, &ss);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t n = 0;
	char *body;
	ssize_t k;

	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(send(fd, request, sizeof(request) - 1, 0), (ssize_t)sizeof(request) - 1);
	while ((k = recv(fd, buf + n, cap - 1 - n, 0)) > 0)
		n += (size_t)k;
	close(fd);
	buf[n] = 0;
	assert_memory_equal(buf, "HTTP/1.1 200 ", 13);
	assert_non_null(strstr(buf, "text/plain; version=0.0.4"));
	body = strstr(buf, "\r\n\r\n");
	assert_non_null(body);
	prometheus_check(body + 4, strlen(body + 4));
	return body + 4;
}

static void test_ready_and_alive(void **state)
{
	char text[128];

	(void)state;
	expect_told("READY=1");
	/* the first after half the time, and again */
	for (unsigned i = 0; i < 2; i++) {
		told(text, sizeof(text));
		assert_string_equal(text, "WATCHDOG=1");
	}
}

/* The id of one of the process's threads. */
static pid_t thread_named(const char *name)
{
	char path[320], comm[32] = "";
	pid_t found = 0;
	struct dirent *e;
	FILE *f;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)p.pid);
	d = opendir(path);
	assert_non_null(d);
	while ((e = readdir(d)) != NULL && found == 0) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", (int)p.pid, e->d_name);
		f = e->d_name[0] != '.' ? fopen(path, "r") : NULL;
		if (f == NULL)
			continue;
		if (fgets(comm, sizeof(comm), f) != NULL && strncmp(comm, name, strlen(name)) == 0)
			found = (pid_t)atoi(e->d_name);
		fclose(f);
	}
	closedir(d);
	return found;
}

/* One worker is held, by the way of a debugger. */
static void test_a_hung_worker(void **state)
{
	const struct timeval short_patience = {2 * WATCHDOG_MS / 1000, 2 * WATCHDOG_MS % 1000 * 1000}, patience = {WAIT_MS / 1000, 0};
	pid_t worker = thread_named("front-1");
	char text[128];
	unsigned after = 0;
	int st;

	(void)state;
	assert_true(worker > 0);
	if (ptrace(PTRACE_SEIZE, worker, NULL, NULL) != 0)
		skip();
	assert_int_equal(ptrace(PTRACE_INTERRUPT, worker, NULL, NULL), 0);
	assert_int_equal(waitpid(worker, &st, __WALL), worker);
	assert_true(WIFSTOPPED(st));
	/* what was on its way, and the look that still saw it turn; then nothing, for as long as four looks take */
	setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &short_patience, sizeof(short_patience));
	while (after < 20 && recv(manager, text, sizeof(text), 0) > 0)
		after++;
	assert_true(after < 20);
	assert_int_equal(errno, EAGAIN);
	/* the loop goes on: it is not the loop that is missed */
	json_decref(ask("status", NULL));
	setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	assert_int_equal(ptrace(PTRACE_DETACH, worker, NULL, NULL), 0);
	expect_told("WATCHDOG=1");
}

static void test_counters_move(void **state)
{
	static char before[1 << 20], after[1 << 20];
	struct call c = {.call_id = "metrics"};
	const char *const challenged_n = "walnut_front_outcomes_total{outcome=\"challenged\"}";
	const char *const count_n = "walnut_front_decision_seconds_count{outcome=\"challenged\"}";
	const char *const sum_n = "walnut_front_decision_seconds_sum{outcome=\"challenged\"}";
	const char *b, *a;
	int fd = caller();

	(void)state;
	b = scrape(before, sizeof(before));
	challenged(fd, &c);
	a = scrape(after, sizeof(after));
	assert_true(prometheus_value(a, challenged_n) == prometheus_value(b, challenged_n) + 1);
	assert_true(prometheus_value(a, count_n) == prometheus_value(b, count_n) + 1);
	assert_true(prometheus_value(a, sum_n) > prometheus_value(b, sum_n));
	assert_true(prometheus_value(a, sum_n) - prometheus_value(b, sum_n) < 10);
	assert_true(prometheus_value(a, "walnut_front_agent_connected{tenant=\"example.org\"}") == 1);
	assert_true(prometheus_value(a, "walnut_front_users{tenant=\"example.org\"}") == 1);
	assert_true(prometheus_value(a, "walnut_front_feed_sequence{tenant=\"example.org\"}") == 1);
	assert_true(prometheus_value(a, "walnut_front_worker_messages_total{worker=\"0\"}") +
			    prometheus_value(a, "walnut_front_worker_messages_total{worker=\"1\"}") >=
		    1);
	close(fd);
}

static const json_t *denial_of(const json_t *answer, const char *call_id)
{
	const json_t *list = json_object_get(answer, "denials"), *d;
	size_t i;

	json_array_foreach(list, i, d)
	{
		if (strcmp(json_string_value(json_object_get(d, "call_id")), call_id) == 0)
			return d;
	}
	return NULL;
}

/* An INVITE whose credentials are wrong, and one that the agent refuses. */
static void test_why(void **state)
{
	struct call c = {.call_id = "guess"}, good = {.call_id = "busy", .branch = "z9hG4bKbusy"},
		    odd = {.call_id = "odd", .branch = "z9hG4bKodd"};
	char buf[8192], got[8192], answer[8192], copy[8192];
	int fd = caller();
	struct sip_msg m;
	const json_t *d;
	struct span s;
	char *at;
	json_t *j;
	size_t n;

	(void)state;
	challenged(fd, &c);
	at = strstr(c.auth, "response=\"");
	at[10] = at[10] == '0' ? '1' : '0';
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 407 ", 12);

	j = ask("why", "guess");
	assert_int_equal(json_array_size(json_object_get(j, "denials")), 1);
	d = denial_of(j, "guess");
	assert_string_equal(json_string_value(json_object_get(d, "outcome")), "digest");
	assert_string_equal(json_string_value(json_object_get(d, "user")), "alice");
	assert_string_equal(json_string_value(json_object_get(d, "domain")), "example.org");
	assert_false(json_is_true(json_object_get(d, "proven")));
	assert_true(json_integer_value(json_object_get(d, "age_ms")) < 60000);
	assert_true(strncmp(json_string_value(json_object_get(d, "from")), "127.0.0.1:", 10) == 0);
	json_decref(j);

	challenged(fd, &good);
	n = call_write(&good, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	receive(fd, got, sizeof(got));
	s = agent_next(&p.agent[0], &m, copy, sizeof(copy));
	memcpy(p.w.invite, s.p, s.n);
	p.w.invite_n = s.n;
	n = agent_answer(&p.w, 486, "Busy Here", answer, sizeof(answer));
	assert_int_equal(peer_send(p.agent[0].c, answer, n), 0);
	s = receive_looping(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 486 ", 12);
	agent_next(&p.agent[0], &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_ACK);

	good.method = "ACK";
	good.auth[0] = 0;
	good.to_tag = "agenttag";
	n = call_write(&good, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);

	/* by user, newest first */
	j = ask("why", "alice");
	assert_int_equal(json_array_size(json_object_get(j, "denials")), 2);
	d = json_array_get(json_object_get(j, "denials"), 0);
	assert_string_equal(json_string_value(json_object_get(d, "call_id")), "busy");
	assert_int_equal(json_integer_value(json_object_get(d, "status")), 486);
	assert_true(json_is_true(json_object_get(d, "proven")));
	assert_string_equal(json_string_value(json_object_get(d, "kind")), "proven");
	json_decref(j);
	/* nothing that could drive a terminal */
	challenged(fd, &odd);
	at = strstr(odd.auth, "alice");
	memcpy(at,
	       "\xc2\x9b"
	       "ice",
	       5);
	n = call_write(&odd, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	receive(fd, got, sizeof(got));
	j = ask("why", "odd");
	d = denial_of(j, "odd");
	assert_string_equal(json_string_value(json_object_get(d, "user")), "\\xc2\\x9bice");
	assert_string_equal(json_string_value(json_object_get(d, "outcome")), "unknown_user");
	json_decref(j);
	j = ask("why", "nobody");
	assert_int_equal(json_array_size(json_object_get(j, "denials")), 0);
	json_decref(j);
	j = ask("why", NULL);
	assert_true(json_array_size(json_object_get(j, "denials")) >= 2);
	json_decref(j);
	close(fd);
}

static void send_call(int fd, const struct call *c)
{
	char buf[8192];
	size_t n = call_write(c, buf, sizeof(buf));

	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
}

/* SIGTERM: calls that are live come to their end, new ones go elsewhere. */
static void test_drain(void **state)
{
	struct call c = {.call_id = "live", .branch = "z9hG4bKlive"}, late = {.call_id = "late", .branch = "z9hG4bKlate"},
		    stranger = {.call_id = "stranger"}, in = {.uri = "sip:agent@example.org", .to_tag = "agenttag", .call_id = "live"};
	char got[8192], copy[8192], answer[8192], text[128], route[256];
	int fd = caller(), other = caller(), third = caller();
	struct sip_msg m;
	struct span s;
	size_t n;

	(void)state;
	challenged(fd, &c);
	challenged(other, &late);
	send_call(fd, &c);
	receive(fd, got, sizeof(got));
	s = agent_next(&p.agent[0], &m, copy, sizeof(copy));
	memcpy(p.w.invite, s.p, s.n);
	p.w.invite_n = s.n;

	while (recv(manager, text, sizeof(text), MSG_DONTWAIT) > 0)
		; /* room for its last word */
	assert_int_equal(kill(p.pid, SIGTERM), 0);
	do
		told(text, sizeof(text));
	while (strcmp(text, "WATCHDOG=1") == 0);
	assert_string_equal(text, "STOPPING=1");
	send_call(other, &late);
	s = receive(other, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 503 ", 12);
	assert_true(header_of(s, "Retry-After").n > 0);
	send_call(third, &stranger);
	for (uint64_t deadline = wn_now_ms() + WAIT_MS; outcome("draining") < 2;)
		assert_true(wn_now_ms() < deadline);
	assert_true(recv(third, got, sizeof(got), MSG_DONTWAIT) < 0);
	/* it waits for the call: long enough for two pings */
	expect_told("WATCHDOG=1");
	expect_told("WATCHDOG=1");

	n = agent_answer(&p.w, 200, "OK", answer, sizeof(answer));
	assert_int_equal(peer_send(p.agent[0].c, answer, n), 0);
	s = receive_looping(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 200 ", 12);
	/* answered, and still there for the ACK */
	assert_int_equal(span_cstr(header_of(s, "Record-Route"), route, sizeof(route)), 0);
	in.route = route;
	in.method = "ACK";
	in.branch = "z9hG4bKack";
	send_call(fd, &in);
	agent_next(&p.agent[0], &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_ACK);
	AWAIT(p.agent[0].down);
	close(fd);
	close(other);
	close(third);
}

static void test_sign_on(void **state)
{
	uint8_t buf[2048], hash[32];
	char copy[4096];
	struct sip_msg m;

	(void)state;
	agent_connect(&p.agent[0]);
	assert_int_equal(agent_register(&p.agent[0], "example.org"), 200);
	assert_int_equal(agent_publish(&p.agent[0], update(UPDATE_CHANGE, 1, NULL, buf, sizeof(buf), hash), copy, sizeof(copy), &m), 200);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ready_and_alive), cmocka_unit_test(test_a_hung_worker), cmocka_unit_test(test_sign_on),
		cmocka_unit_test(test_counters_move),   cmocka_unit_test(test_why),           cmocka_unit_test(test_drain),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
