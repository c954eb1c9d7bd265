/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "process.h"

static int group_setup(void **state)
{
	(void)state;
	process_setup(NULL);
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	return process_teardown();
}

static void test_register_and_publish(void **state)
{
	struct agent *a = &p.agent[0];
	uint8_t buf[2048], hash[32];
	char copy[4096];
	struct sip_msg m;

	(void)state;
	agent_connect(a);
	assert_int_equal(agent_register(a, "example.com"), 400);
	assert_int_equal(agent_register(a, "example.org"), 200);
	/* a gap is told, with what is held */
	assert_int_equal(agent_publish(a, update(UPDATE_CHANGE, 5, NULL, buf, sizeof(buf), hash), copy, sizeof(copy), &m), 409);
	assert_true(holds(m.body, "\"seq\":0"));
	assert_int_equal(agent_publish(a, update(UPDATE_CHANGE, 1, NULL, buf, sizeof(buf), hash), copy, sizeof(copy), &m), 200);
	assert_true(holds(m.body, "\"seq\":1"));
	memcpy(p.head, hash, sizeof(p.head));
	uint8_t other[32];
	assert_int_equal(agent_publish(a, update(UPDATE_HEARTBEAT, 1, hash, buf, sizeof(buf), other), copy, sizeof(copy), &m), 200);
	buf[50] ^= 1;
	assert_int_equal(agent_publish(a, span_of(buf, 200), copy, sizeof(copy), &m), 400);

	json_t *j = ask("status", NULL);
	assert_string_equal(json_string_value(json_object_get(j, "role")), "front");
	assert_int_equal(json_integer_value(json_object_get(j, "users")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "feed"), "seq")), 1);
	assert_true(json_integer_value(json_object_get(json_object_get(j, "link"), "heartbeat_bytes")) > 0);
	assert_true(json_integer_value(json_object_get(json_object_get(j, "link"), "feed_bytes")) > 0);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "link"), "sip_bytes")), 0);
	assert_true(json_is_true(json_object_get(json_array_get(json_object_get(j, "agents"), 0), "connected")));
	json_decref(j);
}

static void test_call(void **state)
{
	struct agent *a = &p.agent[0];
	struct call c = {0}, barrier = {.call_id = "barrier"};
	char buf[8192], got[8192], copy[8192], answer[8192], route[256];
	struct sip_msg m;
	struct sip_buf b;
	struct span s;
	int fd = caller(), other = caller();
	size_t n;

	(void)state;
	challenged(fd, &c);
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 100 ", 12);
	s = agent_next(a, &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_INVITE);
	assert_true(span_eq(header_of(s, "P-Asserted-Identity"), SPAN_LIT("<sip:alice@example.org>")));

	/* the same bytes from elsewhere: no answer and no second call, whichever worker gets them */
	for (unsigned i = 0; i < 50; i++) {
		int fresh = caller();
		assert_int_equal(send(fresh, buf, n, 0), (ssize_t)n);
		close(fresh);
	}
	assert_int_equal(send(other, buf, n, 0), (ssize_t)n);
	challenged(other, &barrier); /* what was sent before has been served when this is answered, on that socket */
	assert_true(outcome("replay") >= 1);
	assert_int_equal(outcome("forwarded"), 1);

	memcpy(p.w.invite, copy, s.n);
	p.w.invite_n = s.n;
	n = agent_answer(&p.w, 200, "OK", answer, sizeof(answer));
	assert_int_equal(peer_send(a->c, answer, n), 0);
	s = receive_looping(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 200 ", 12);
	assert_int_equal(span_cstr(header_of(s, "Record-Route"), route, sizeof(route)), 0);
	assert_non_null(header_of(s, "Proxy-Authentication-Info").p);

	struct call in = {.uri = "sip:agent@example.org", .to_tag = "agenttag", .route = route};
	in.method = "ACK";
	in.branch = "z9hG4bKack";
	n = call_write(&in, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	agent_next(a, &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_ACK);

	in.method = "BYE";
	in.branch = "z9hG4bKbye";
	n = call_write(&in, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	agent_next(a, &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_BYE);
	sip_buf_init(&b, answer, sizeof(answer));
	sip_put_response(&b, &m, 200, "OK", span_of(NULL, 0), &p.peer);
	sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
	assert_int_equal(peer_send(a->c, b.p, b.len), 0);
	s = receive_looping(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 200 ", 12);
	assert_true(holds(header_of(s, "CSeq"), "BYE"));
	assert_int_equal(outcome("forwarded"), 1);
	close(fd);
	close(other);
}

/* A newer connection of the same agent takes over; without any, callers are told to come back. */
static void test_agent_comes_again(void **state)
{
	struct call c = {.call_id = "again", .branch = "z9hG4bKagain"};
	char buf[8192], got[8192], copy[8192];
	struct sip_msg m;
	struct span s;
	int fd = caller();
	size_t n;

	(void)state;
	agent_connect(&p.agent[1]);
	assert_int_equal(agent_register(&p.agent[1], "example.org"), 200);
	AWAIT(p.agent[0].down);
	challenged(fd, &c);
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	agent_next(&p.agent[1], &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_INVITE);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 100 ", 12);

	peer_close(p.agent[1].c);
	AWAIT(p.agent[1].down);
	/* the front notices when it reads the goodbye */
	for (uint64_t deadline = wn_now_ms() + WAIT_MS;;) {
		json_t *j = ask("status", NULL);
		bool connected = json_is_true(json_object_get(json_array_get(json_object_get(j, "agents"), 0), "connected"));

		json_decref(j);
		if (!connected)
			break;
		assert_true(wn_now_ms() < deadline);
	}
	/* the call that waited gets its 503 at a time of its own: the next caller is another */
	close(fd);
	fd = caller();
	c = (struct call){.call_id = "none", .branch = "z9hG4bKnone"};
	challenged(fd, &c);
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 503 ", 12);
	assert_true(header_of(s, "Retry-After").n > 0);
	close(fd);
}

static void await_on_disk(json_int_t seq)
{
	json_int_t written = 0;

	for (uint64_t deadline = wn_now_ms() + WAIT_MS; written != seq;) {
		json_t *j = ask("status", NULL);

		written = json_integer_value(json_object_get(json_array_get(json_object_get(j, "agents"), 0), "disk_seq"));
		json_decref(j);
		assert_true(wn_now_ms() < deadline);
	}
}

/* Killed and started again, it knows its users before an agent has said a word of them, and says so. */
static void test_restart(void **state)
{
	struct agent *a = &p.agent[1];
	const char *const arg[] = {"walnut-front", "--config", p.config, NULL};
	struct call c = {.call_id = "restart", .branch = "z9hG4bKrestart"};
	char buf[8192], got[8192], copy[8192];
	uint8_t msg[2048], hash[32];
	struct sip_msg m;
	struct span s;
	json_t *j;
	int fd;
	size_t n;

	(void)state;
	await_on_disk(1);
	assert_int_equal(kill(p.pid, SIGKILL), 0);
	assert_int_equal(finish(p.pid), 128 + SIGKILL);
	p.pid = start(arg);
	agent_connect(a);
	j = ask("status", NULL);
	assert_int_equal(json_integer_value(json_object_get(j, "users")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "feed"), "seq")), 1);
	json_decref(j);
	assert_int_equal(agent_register(a, "example.org"), 200);
	assert_int_equal(agent_publish(a, update(UPDATE_HEARTBEAT, 1, p.head, msg, sizeof(msg), hash), copy, sizeof(copy), &m), 200);
	assert_true(holds(m.body, "\"seq\":1"));

	fd = caller();
	challenged(fd, &c);
	n = call_write(&c, buf, sizeof(buf));
	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 100 ", 12);
	agent_next(a, &m, copy, sizeof(copy));
	assert_int_equal(m.method, SIP_INVITE);
	close(fd);

	/* and takes the next change where it stopped */
	assert_int_equal(agent_publish(a, update(UPDATE_CHANGE, 2, p.head, msg, sizeof(msg), hash), copy, sizeof(copy), &m), 200);
	await_on_disk(2);
	peer_close(a->c);
	AWAIT(a->down);
}

/* A stranger's key gets nowhere. */
static void test_wrong_agent(void **state)
{
	struct peer_options opt = {.pins = &p.front_pin, .npins = 1};
	struct agent *a = &p.agent[0];
	struct peer_identity *id;
	char dir[] = "/tmp/walnut-stranger-XXXXXX", path[64];
	struct peer_pin pin;

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(peer_identity_create(dir, "agent", &pin), 0);
	assert_int_equal(peer_identity_load(dir, "agent", &id), 0);
	memset(a, 0, sizeof(*a));
	assert_int_equal(peer_connect(&p.loop, id, &p.peer, &opt, &agent_events, a, &a->c), 0);
	AWAIT(a->down);
	assert_int_equal(a->n, 0);
	peer_identity_free(id);
	snprintf(path, sizeof(path), "%s/agent.key", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/agent.crt", dir);
	unlink(path);
	rmdir(dir);
}

static void run_and_expect(int want, const char *const *arg)
{
	assert_int_equal(finish(start(arg)), want);
}

static void test_command_line(void **state)
{
	const char *const check[] = {"walnut-front", "--config", p.config, "--check", NULL};
	const char *const none[] = {"walnut-front", NULL};
	const char *const unknown[] = {"walnut-front", "--colour", NULL};
	const char *const missing[] = {"walnut-front", "--config", "/nonexistent/front.yaml", NULL};
	const char *const twice[] = {"walnut-front", "--config", p.config, NULL};
	char key[128];

	(void)state;
	run_and_expect(0, check);
	run_and_expect(2, none);
	run_and_expect(2, unknown);
	run_and_expect(2, missing);
	/* the addresses are taken */
	run_and_expect(1, twice);
	/* a key that others may read */
	snprintf(key, sizeof(key), "%s/front.key", p.dir);
	assert_int_equal(chmod(key, 0644), 0);
	run_and_expect(2, check);
	assert_int_equal(chmod(key, 0600), 0);
	/* what the file names and this host has not */
	process_write_config("also_listen: [\"udp:198.51.100.77:5060\"]\n", NULL);
	run_and_expect(2, check);
	process_write_config("user: nobody-of-that-name\n", NULL);
	run_and_expect(2, check);
	process_write_config("tls_certificate: /nonexistent/crt\ntls_key: /nonexistent/key\n", NULL);
	run_and_expect(2, check);
	process_write_config(NULL, NULL);
	run_and_expect(0, check);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_register_and_publish), cmocka_unit_test(test_call),
		cmocka_unit_test(test_agent_comes_again),    cmocka_unit_test(test_restart),
		cmocka_unit_test(test_wrong_agent),          cmocka_unit_test(test_command_line),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
