/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "front/grace.h"
#include "process.h"

/* SIGHUP, with calls in progress. */

static int manager;

static void told(char *text, size_t cap)
{
	ssize_t n = recv(manager, text, cap - 1, 0);

	assert_true(n > 0);
	text[n] = 0;
}

static int group_setup(void **state)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval patience = {WAIT_MS / 1000, 0};
	char name[64], text[128];
	int n = snprintf(name, sizeof(name), "@walnut-reload-%d", (int)getpid());

	(void)state;
	manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
	assert_int_equal(bind(manager, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
	assert_int_equal(setsockopt(manager, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	setenv("NOTIFY_SOCKET", name, 1);
	unsetenv("WATCHDOG_USEC");
	process_setup(NULL);
	told(text, sizeof(text));
	assert_string_equal(text, "READY=1");
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	close(manager);
	return process_teardown();
}

static void reload(void)
{
	char text[128];

	assert_int_equal(kill(p.pid, SIGHUP), 0);
	told(text, sizeof(text));
	assert_memory_equal(text, "RELOADING=1\nMONOTONIC_USEC=", 27);
	told(text, sizeof(text));
	assert_string_equal(text, "READY=1");
}

static void send_call(int fd, const struct call *c)
{
	char buf[8192];
	size_t n = call_write(c, buf, sizeof(buf));

	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
}

/* Which algorithm a stranger is asked for. */
static bool asks_md5(const char *call_id)
{
	struct call c = {.call_id = call_id};
	char got[8192];
	int fd = caller();
	struct span s;

	send_call(fd, &c);
	s = receive(fd, got, sizeof(got));
	close(fd);
	assert_memory_equal(s.p, "SIP/2.0 407 ", 12);
	return holds(header_of(s, "Proxy-Authenticate"), "algorithm=MD5");
}

/* An INVITE, as far as the agent. */
static void ring(int fd, struct call *c, char *invite, size_t *n)
{
	char got[8192], copy[8192];
	struct sip_msg m;
	struct span s;

	challenged(fd, c);
	send_call(fd, c);
	receive(fd, got, sizeof(got));
	s = agent_next(&p.agent[0], &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_INVITE);
	memcpy(invite, s.p, s.n);
	*n = s.n;
}

static void answer(int fd, const char *invite, size_t n, char *route, size_t cap)
{
	char got[8192], text[8192];
	struct span s;
	size_t k;

	memcpy(p.w.invite, invite, n);
	p.w.invite_n = n;
	k = agent_answer(&p.w, 200, "OK", text, sizeof(text));
	assert_int_equal(peer_send(p.agent[0].c, text, k), 0);
	s = receive_looping(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 200 ", 12);
	assert_int_equal(span_cstr(header_of(s, "Record-Route"), route, cap), 0);
}

static void in_dialog(int fd, const char *method, const char *call_id, const char *route)
{
	struct call c = {.uri = "sip:agent@example.org", .to_tag = "agenttag", .method = method, .call_id = call_id, .route = route};
	char copy[8192];
	struct sip_msg m;

	send_call(fd, &c);
	agent_next(&p.agent[0], &m, copy, sizeof(copy));
	assert_true(span_eq(m.method_text, span_str(method)));
}

static void test_calls_go_on(void **state)
{
	struct call up = {.call_id = "up", .branch = "z9hG4bKup"}, ringing = {.call_id = "ringing", .branch = "z9hG4bKringing"};
	char invite[8192], copy[4096], route[256], route2[256], one[1024];
	int fd = caller(), other = caller();
	uint8_t buf[2048], hash[32];
	struct sip_msg m;
	size_t n;

	(void)state;
	agent_connect(&p.agent[0]);
	assert_int_equal(agent_register(&p.agent[0], "example.org"), 200);
	assert_int_equal(agent_publish(&p.agent[0], update(UPDATE_CHANGE, 1, NULL, buf, sizeof(buf), hash), copy, sizeof(copy), &m), 200);
	assert_false(asks_md5("before"));
	ring(fd, &up, invite, &n);
	answer(fd, invite, n, route, sizeof(route));
	in_dialog(fd, "ACK", "up", route);
	ring(other, &ringing, invite, &n);

	process_tenant(one, sizeof(one) - 64);
	strcat(one, "    algorithms: [md5]\n"); /* NOLINT */
	process_write_config(NULL, one);
	reload();
	assert_true(asks_md5("after"));
	answer(other, invite, n, route2, sizeof(route2));
	in_dialog(other, "ACK", "ringing", route2);
	in_dialog(fd, "BYE", "up", route);
	assert_false(p.agent[0].down);
	close(fd);
	close(other);
}

static void test_a_file_that_is_wrong(void **state)
{
	(void)state;
	process_write_config("colour: blue\n", NULL);
	reload();
	assert_true(asks_md5("broken"));
	/* also what it names is looked at before anything changes */
	process_write_config("tls_certificate: /nonexistent/crt\ntls_key: /nonexistent/key\n", NULL);
	reload();
	assert_true(asks_md5("broken2"));
	assert_false(p.agent[0].down);
	process_write_config(NULL, NULL);
	reload();
	assert_false(asks_md5("mended"));
}

static void test_a_removed_tenant(void **state)
{
	struct call ringing = {.call_id = "left", .branch = "z9hG4bKleft"}, late = {.call_id = "late"};
	char invite[8192], got[8192], one[1024], *at;
	json_int_t unknown;
	int fd = caller(), other = caller();
	struct span s;
	size_t n;

	(void)state;
	ring(fd, &ringing, invite, &n);
	unknown = outcome("unknown_tenant");
	process_tenant(one, sizeof(one));
	at = strstr(one, "example.org");
	memcpy(at, "example.com", 11);
	process_write_config(NULL, one);
	reload();
	AWAIT(p.agent[0].down);
	/* who waits for its agent is told */
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 503 ", 12);
	send_call(other, &late);
	for (uint64_t deadline = wn_now_ms() + WAIT_MS; outcome("unknown_tenant") == unknown;)
		assert_true(wn_now_ms() < deadline);
	assert_true(recv(other, got, sizeof(got), MSG_DONTWAIT) < 0);
	/* and found again when it comes back */
	process_write_config(NULL, NULL);
	reload();
	agent_connect(&p.agent[0]);
	assert_int_equal(agent_register(&p.agent[0], "example.org"), 200);
	assert_false(asks_md5("back"));
	close(fd);
	close(other);
}

static unsigned released;

static void release(void *x)
{
	(void)x;
	released++;
}

/* Freed when every worker has gone round twice, and not before. */
static void test_grace(void **state)
{
	uint64_t turn[FRONT_WORKERS_MAX] = {5, 9};
	struct front_grace g = {NULL};
	int a, b;

	(void)state;
	released = 0;
	assert_int_equal(front_grace_retire(&g, &a, release, turn, 2), 0);
	assert_int_equal(front_grace_look(&g, turn), 1);
	turn[0] += 2;
	turn[1] += 1;
	assert_int_equal(front_grace_retire(&g, &b, release, turn, 2), 0);
	assert_int_equal(front_grace_look(&g, turn), 2);
	turn[1] += 1;
	assert_int_equal(front_grace_look(&g, turn), 1);
	assert_int_equal(released, 1);
	front_grace_end(&g);
	assert_int_equal(released, 2);
	assert_int_equal(front_grace_look(&g, turn), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls_go_on),
		cmocka_unit_test(test_a_file_that_is_wrong),
		cmocka_unit_test(test_a_removed_tenant),
		cmocka_unit_test(test_grace),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
