/* SPDX-License-Identifier: Apache-2.0 */
/* The whole agent, with its file, keys, store and sockets, between two fronts and a gate that are real on the wire. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/b64.h"
#include "base/clock.h"
#include "base/config.h"
#include "base/log.h"
#include "fakes.h"
#include "sip/digest.h"
#include "sip_text.h"

#define PATIENCE_MS 8000u
#define FRONTS      2

static char dir[64], socket_path[128], database[128];
static uv_loop_t loop;
static uv_timer_t clock_tick;
static struct fake_front fronts[FRONTS];
static struct fake_gate gate;
static struct agent_config config;
static struct agent_service services[2];
static struct agent *agent;

/* Events are awaited; the timer only makes the wait end. */
#define wait_for(cond)                                        \
	do {                                                  \
		uint64_t until = wn_now_ms() + PATIENCE_MS;   \
		while (!(cond)) {                             \
			if (wn_now_ms() > until)              \
				fail_msg("never: %s", #cond); \
			uv_run(&loop, UV_RUN_ONCE);           \
		}                                             \
	} while (0)

static void nothing(uv_timer_t *t)
{
	(void)t;
}

/* A client of the control socket on the same loop. */
static struct {
	uv_pipe_t pipe;
	uv_connect_t connect;
	uv_write_t write;
	char *request, answer[65536];
	size_t n;
	bool done, closed;
} ctl;

static void ctl_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	(void)h;
	(void)hint;
	*buf = uv_buf_init(ctl.answer + ctl.n, (unsigned)(sizeof(ctl.answer) - ctl.n));
}

static void ctl_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
	(void)s;
	(void)buf;
	if (n > 0)
		ctl.n += (size_t)n;
	ctl.done = n < 0 || memchr(ctl.answer, '\n', ctl.n) != NULL;
}

static void ctl_closed(uv_handle_t *h)
{
	(void)h;
	ctl.closed = true;
}

static void ctl_connected(uv_connect_t *c, int status)
{
	uv_buf_t buf = uv_buf_init(ctl.request, (unsigned)strlen(ctl.request));

	(void)c;
	assert_int_equal(status, 0);
	uv_write(&ctl.write, (uv_stream_t *)&ctl.pipe, &buf, 1, NULL);
	uv_read_start((uv_stream_t *)&ctl.pipe, ctl_alloc, ctl_read);
}

static void ctl_start(const char *request)
{
	ctl.n = 0;
	ctl.done = ctl.closed = false;
	ctl.request = malloc(strlen(request) + 2);
	sprintf(ctl.request, "%s\n", request);
	uv_pipe_init(&loop, &ctl.pipe, 0);
	uv_pipe_connect(&ctl.connect, &ctl.pipe, socket_path, ctl_connected);
}

static json_t *ctl_finish(void)
{
	json_t *o;

	wait_for(ctl.done);
	uv_close((uv_handle_t *)&ctl.pipe, ctl_closed);
	wait_for(ctl.closed);
	o = json_loadb(ctl.answer, ctl.n, 0, NULL);
	assert_non_null(o);
	free(ctl.request);
	return o;
}

static json_t *command(const char *request)
{
	ctl_start(request);
	return ctl_finish();
}

static long long number(const json_t *o, const char *a, const char *b)
{
	const json_t *v = json_object_get(o, a);

	if (b != NULL)
		v = json_object_get(v, b);
	assert_true(json_is_integer(v));
	return json_integer_value(v);
}

static long long status_number(const char *a, const char *b)
{
	json_t *o = command("{\"cmd\":\"status\"}");
	long long n = number(o, a, b);

	json_decref(o);
	return n;
}

static void start_agent(void)
{
	assert_int_equal(agent_open(&loop, &config, &agent), 0);
	assert_int_equal(agent_start(agent), 0);
}

static bool only_clock_left(void)
{
	return !uv_loop_alive(&loop);
}

static void stop_agent(void)
{
	agent_stop(agent);
	/* The loop is not empty while fronts live; the agent is let go when its connections have ended. */
	wait_for(fronts[0].conn == NULL && fronts[1].conn == NULL && gate.conn == NULL);
	for (unsigned i = 0; i < 5; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	agent_free(agent);
	agent = NULL;
}

static bool all_connected(void)
{
	return fronts[0].registers > 0 && fronts[1].registers > 0 && gate.lists > 0;
}

static void write_secret(const char *name, const uint8_t *raw, size_t n)
{
	char path[192], text[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(wn_secret_write(path, text, b64url_encode(raw, n, text)), 0);
}

static int setup(void **state)
{
	uint8_t pk[32], sk[64], route[16];
	struct peer_pin agent_pin;
	char sub[128];

	(void)state;
	memset(fronts, 0, sizeof(fronts));
	memset(&gate, 0, sizeof(gate));
	memset(&config, 0, sizeof(config));
	memset(services, 0, sizeof(services));
	snprintf(dir, sizeof(dir), "/tmp/walnut-agent-XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(socket_path, sizeof(socket_path), "%s/s", dir);
	snprintf(database, sizeof(database), "%s/db", dir);
	uv_loop_init(&loop);
	uv_timer_init(&loop, &clock_tick);
	uv_timer_start(&clock_tick, nothing, 10, 10);
	uv_unref((uv_handle_t *)&clock_tick);

	crypto_sign_keypair(pk, sk);
	randombytes_buf(route, sizeof(route));
	write_secret("tenant.sign", sk, sizeof(sk));
	write_secret("tenant.route", route, sizeof(route));
	assert_int_equal(peer_identity_create(dir, "agent", &agent_pin), 0);
	for (unsigned i = 0; i < FRONTS; i++) {
		snprintf(sub, sizeof(sub), "%s/f%u", dir, i);
		assert_int_equal(mkdir(sub, 0700), 0);
		assert_int_equal(fake_front_init(&fronts[i], &loop, sub, &agent_pin, pk), 0);
		assert_int_equal(fake_front_listen(&fronts[i]), 0);
	}
	snprintf(sub, sizeof(sub), "%s/g", dir);
	assert_int_equal(mkdir(sub, 0700), 0);
	assert_int_equal(fake_gate_init(&gate, &loop, sub, &agent_pin), 0);
	assert_int_equal(fake_gate_listen(&gate), 0);

	services[0].name = strdup("ssh");
	services[0].proto = IPPROTO_TCP;
	wn_addr_parse(SPAN_LIT("198.18.100.2:22"), -1, &services[0].inside);
	services[1].name = strdup("dns");
	services[1].proto = IPPROTO_UDP;
	wn_addr_parse(SPAN_LIT("198.18.100.2:53"), -1, &services[1].inside);
	config = (struct agent_config){.domain = strdup("example.org"),
				       .keys = dir,
				       .database = database,
				       .socket = socket_path,
				       .epoch_s = 86400,
				       .hole_lifetime_s = 1800,
				       .heartbeat_s = 1,
				       .publish_keys_per_s = 5000,
				       .max_calls = 100,
				       .services = services,
				       .nservices = 2,
				       .nfronts = FRONTS,
				       .nenrol_fronts = 1};
	config.fronts = calloc(FRONTS, sizeof(*config.fronts));
	config.enrol_fronts = calloc(1, sizeof(*config.enrol_fronts));
	wn_addr_parse(SPAN_LIT("198.18.1.2:5060"), -1, &config.enrol_fronts[0]);
	for (unsigned i = 0; i < FRONTS; i++)
		config.fronts[i] = (struct agent_peer){fronts[i].addr, fronts[i].pin};
	config.gate = (struct agent_peer){gate.addr, gate.pin};
	start_agent();
	return 0;
}

static int teardown(void **state)
{
	char command_line[128];

	(void)state;
	if (agent != NULL)
		agent_stop(agent);
	for (unsigned i = 0; i < FRONTS; i++)
		fake_front_down(&fronts[i]);
	fake_gate_down(&gate);
	wait_for(only_clock_left());
	agent_free(agent);
	agent = NULL;
	uv_close((uv_handle_t *)&clock_tick, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	for (unsigned i = 0; i < FRONTS; i++)
		fake_front_free(&fronts[i]);
	fake_gate_free(&gate);
	free(config.domain);
	free(config.fronts);
	free(config.enrol_fronts);
	free(services[0].name);
	free(services[1].name);
	snprintf(command_line, sizeof(command_line), "rm -rf %s", dir);
	return system(command_line);
}

/* Adds a user and returns the secret of the enrolment. */
static void add_user(const char *name, char secret[static 64])
{
	char request[128], *json;
	json_t *o, *e;
	struct span line;
	long n;

	snprintf(request, sizeof(request), "{\"cmd\":\"user-add\",\"name\":\"%s\",\"md5\":false}", name);
	o = command(request);
	assert_true(json_is_true(json_object_get(o, "ok")));
	line = span_str(json_string_value(json_object_get(o, "enrolment")));
	assert_non_null(line.p);
	assert_int_equal(strncmp(line.p, "walnut1:", 8), 0);
	json = malloc(line.n);
	n = b64url_decode(span_of(line.p + 8, line.n - 8), (uint8_t *)json, line.n);
	assert_true(n > 0);
	e = json_loadb(json, (size_t)n, 0, NULL);
	free(json);
	assert_string_equal(json_string_value(json_object_get(e, "user")), name);
	assert_string_equal(json_string_value(json_object_get(e, "domain")), "example.org");
	assert_string_equal(json_string_value(json_array_get(json_object_get(e, "fronts"), 0)), "198.18.1.2:5060");
	assert_int_equal(json_integer_value(json_object_get(e, "epoch_s")), 86400);
	snprintf(secret, 64, "%s", json_string_value(json_object_get(e, "secret")));
	assert_int_equal(strlen(secret), 43);
	json_decref(e);
	json_decref(o);
}

static void invite(unsigned front, const struct invite_text *t)
{
	char text[4096];
	size_t n = write_invite(t, text, sizeof(text));

	fake_front_send(&fronts[front], text, n);
}

static void in_dialog(unsigned front, const char *method, const char *tag, unsigned cseq)
{
	char text[2048];
	size_t n = write_in_dialog(method, "c1", "ft", tag, cseq, text, sizeof(text));

	fake_front_send(&fronts[front], text, n);
}

static const char *tag_of(const char *text)
{
	static char tag[64];
	const char *at = strstr(strstr(text, "\r\nTo: "), ";tag=");

	assert_non_null(at);
	at += 5;
	snprintf(tag, sizeof(tag), "%.*s", (int)strcspn(at, ";\r\n"), at);
	return tag;
}

static bool begins(const struct fake_front *f, unsigned i, const char *what)
{
	return f->messages > i && strncmp(f->message[i], what, strlen(what)) == 0;
}

/* A call up to CONFIRMED over that front; its To-tag. */
static void establish(unsigned front, char tag[static 64])
{
	struct invite_text t = {0};

	invite(front, &t);
	wait_for(begins(&fronts[front], 0, "SIP/2.0 200 "));
	snprintf(tag, 64, "%s", tag_of(fronts[front].message[0]));
	in_dialog(front, "ACK", tag, 2);
	fake_front_clear(&fronts[front]);
	wait_for(status_number("counters", "acked") > 0);
}

static bool has_user(unsigned front, const char *name, const char *secret)
{
	uint32_t epoch = (uint32_t)(wn_unix_s() / 86400);
	uint8_t ha1[DIGEST_HASH_MAX];
	struct user_keys k;
	struct digest_ctx *d;
	char realm[64];

	if (!user_table_find(fronts[front].table, span_str(name), epoch, &k))
		return false;
	snprintf(realm, sizeof(realm), "example.org/%u", epoch);
	assert_int_equal(digest_ctx_new(&d), 0);
	digest_ha1(d, DIGEST_SHA256, span_str(name), span_str(realm), span_str(secret), ha1);
	digest_ctx_free(d);
	return memcmp(ha1, k.sha256, 32) == 0;
}

static void test_whole_path(void **state)
{
	char secret[64], tag[64], text[WN_ADDR_STR];
	json_t *o, *s;

	(void)state;
	wait_for(all_connected());
	o = fronts[0].registration;
	assert_string_equal(json_string_value(json_object_get(o, "domain")), "example.org");
	assert_string_equal(json_string_value(json_array_get(json_object_get(o, "services"), 1)), "dns");
	assert_int_equal(strlen(json_string_value(json_object_get(o, "route_key"))), 22);
	assert_int_equal(strlen(json_string_value(json_object_get(o, "agent"))), 11);
	assert_int_equal(number(o, "epoch_s", NULL), 86400);

	add_user("alice", secret);
	assert_true(has_user(0, "alice", secret)); /* the answer came after the fronts had it */
	assert_true(has_user(1, "alice", secret));
	o = command("{\"cmd\":\"user-add\",\"name\":\"alice\"}");
	assert_true(json_is_false(json_object_get(o, "ok")));
	json_decref(o);
	o = command("{\"cmd\":\"user-add\",\"name\":\"a b\"}");
	assert_true(json_is_false(json_object_get(o, "ok")));
	json_decref(o);
	o = command("{\"cmd\":\"user-add\",\"name\":\"bob\",\"md5\":true}");
	assert_int_equal(number(o, "fronts", "confirmed"), 2);
	assert_int_equal(number(o, "fronts", "of"), 2);
	json_decref(o);
	o = command("{\"cmd\":\"user-list\"}");
	assert_int_equal(json_array_size(json_object_get(o, "users")), 2);
	json_decref(o);

	establish(0, tag);
	assert_int_equal(gate.opens, 1);
	assert_string_equal(wn_addr_str(&gate.last_open.inside, text), "198.18.100.2:22");
	assert_string_equal(gate.last_open.user, "alice");
	o = command("{\"cmd\":\"sessions\"}");
	s = json_array_get(json_object_get(o, "sessions"), 0);
	assert_string_equal(json_string_value(json_object_get(s, "user")), "alice");
	assert_string_equal(json_string_value(json_object_get(s, "service")), "ssh");
	assert_string_equal(json_string_value(json_object_get(s, "remote")), "198.18.4.2");
	assert_string_equal(json_string_value(json_object_get(s, "public")), "198.18.3.2:31337");
	json_decref(o);
	assert_int_equal(status_number("calls", NULL), 1);

	in_dialog(1, "BYE", tag, 3); /* the other front: any will do */
	wait_for(begins(&fronts[1], 0, "SIP/2.0 200 "));
	wait_for(gate.closes == 1);
	assert_int_equal(gate.holes, 0);
	assert_int_equal(gate.bad_sequence, 0);
	assert_int_equal(status_number("calls", NULL), 0);
	assert_int_equal(status_number("calls_total", NULL), 1);
}

static void test_duplicate_invite(void **state)
{
	struct invite_text t = {0}, again = {.branch = "other", .cseq = 3, .key = KEY_TEXT2};
	char secret[64];

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	invite(0, &t);
	invite(1, &again);
	wait_for(fronts[0].messages + fronts[1].messages > 0);
	again.branch = "third";
	again.cseq = 4;
	fake_front_clear(&fronts[1]);
	invite(1, &again);
	wait_for(begins(&fronts[1], 0, "SIP/2.0 200 "));
	assert_int_equal(gate.opens, 1);
	assert_int_equal(gate.holes, 1);
}

static void test_user_del(void **state)
{
	struct invite_text t = {0};
	char secret[64], tag[64];
	json_t *o;

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	establish(0, tag);
	o = command("{\"cmd\":\"user-del\",\"name\":\"alice\"}");
	assert_true(json_is_true(json_object_get(o, "ok")));
	assert_int_equal(number(o, "closed", NULL), 1);
	assert_int_equal(number(o, "fronts", "confirmed"), 2);
	json_decref(o);
	assert_false(has_user(0, "alice", secret));
	assert_false(has_user(1, "alice", secret));
	wait_for(gate.closes == 1);
	assert_int_equal(gate.holes, 0);
	wait_for(begins(&fronts[0], 0, "BYE sip:alice@198.18.104.2:5062 SIP/2.0"));
	assert_non_null(strstr(fronts[0].message[0], "\r\nRoute: <sip:TOKENTOKEN@198.18.1.2:5060;lr>\r\n"));
	/* a front that has not heard of it changes nothing */
	fake_front_clear(&fronts[1]);
	t.call_id = "c9";
	invite(1, &t);
	wait_for(begins(&fronts[1], 0, "SIP/2.0 403 "));
	assert_int_equal(gate.opens, 1);
	o = command("{\"cmd\":\"user-del\",\"name\":\"alice\"}");
	assert_true(json_is_false(json_object_get(o, "ok")));
	json_decref(o);
}

static void test_restart(void **state)
{
	char secret[64], tag[64];
	struct invite_text t = {.cseq = 7, .branch = "after"};

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	establish(0, tag);
	stop_agent();
	assert_int_equal(gate.holes, 1); /* accepted flows live on */
	assert_int_equal(gate.closes, 0);
	gate.lists = 0;
	start_agent();
	wait_for(gate.lists == 1 && status_number("calls", NULL) == 1);
	assert_int_equal(status_number("counters", "adopted"), 1);
	wait_for(fronts[0].conn != NULL && status_number("counters", "front_connects") == 2);
	assert_int_equal(status_number("users", NULL), 1);

	fake_front_clear(&fronts[0]);
	in_dialog(0, "UPDATE", tag, 3);
	wait_for(begins(&fronts[0], 0, "SIP/2.0 200 "));
	assert_int_equal(gate.renews, 1);
	fake_front_clear(&fronts[0]);
	invite(0, &t);
	wait_for(begins(&fronts[0], 0, "SIP/2.0 200 "));
	assert_string_equal(tag_of(fronts[0].message[0]), tag);
	assert_int_equal(gate.opens, 1);
	in_dialog(0, "BYE", tag, 8);
	wait_for(gate.closes == 1);
	assert_int_equal(gate.holes, 0);
}

static void test_gate_returns(void **state)
{
	char secret[64], tag[64];
	struct invite_text t = {.call_id = "c2"};
	uint64_t began;
	json_t *o;

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	establish(0, tag);
	fake_gate_down(&gate);
	wait_for(gate.conn == NULL);
	/* While the gate is away: no new hole, and what is kicked is remembered. */
	invite(1, &t);
	wait_for(begins(&fronts[1], 0, "SIP/2.0 503 "));
	o = command("{\"cmd\":\"kick\",\"user\":\"alice\"}");
	assert_int_equal(number(o, "closed", NULL), 1);
	json_decref(o);
	assert_int_equal(gate.holes, 1);
	assert_int_equal(fake_gate_listen(&gate), 0);
	began = wn_now_ms();
	wait_for(gate.closes == 1);
	assert_true(wn_now_ms() - began < 1500);
	assert_int_equal(gate.holes, 0);
	wait_for(gate.lists == 2);
	assert_int_equal(status_number("calls", NULL), 0);
	assert_int_equal(gate.bad_sequence, 0);
}

static void test_gate_restart_keeps_calls(void **state)
{
	char secret[64], tag[64];

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	establish(0, tag);
	fake_gate_down(&gate);
	wait_for(gate.conn == NULL);
	assert_int_equal(fake_gate_listen(&gate), 0);
	wait_for(gate.lists == 2);
	in_dialog(0, "UPDATE", tag, 3);
	wait_for(begins(&fronts[0], 0, "SIP/2.0 200 "));
	assert_int_equal(gate.closes, 0);
	assert_int_equal(status_number("calls", NULL), 1);
	assert_int_equal(status_number("counters", "adopted"), 0);
}

/* A front that is there but says nothing is left after two heartbeats without an answer. */
static void test_silent_front(void **state)
{
	(void)state;
	wait_for(all_connected());
	fronts[0].silent = true;
	wait_for(fronts[0].accepted >= 2);
	assert_true(status_number("counters", "front_silent") >= 1);
	fronts[0].silent = false;
	wait_for(status_number("counters", "front_connects") >= 3);
	assert_int_equal(fronts[1].accepted, 1);
}

/* Garbage ends that connection and nothing else. */
static void test_garbage(void **state)
{
	static const char nobody[] =
		"SIP/2.0 200 OK\r\nVia: SIP/2.0/TLS x;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"
		"Call-ID: nobody\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n";
	static char long_header[70000];
	char secret[64], tag[64];

	(void)state;
	wait_for(all_connected());
	add_user("alice", secret);
	establish(1, tag);
	fake_front_send(&fronts[0], "\x16\x03\x01garbage\r\n\r\n", 14);
	wait_for(fronts[0].accepted == 2 && fronts[0].registers == 2);
	memset(long_header, 'x', sizeof(long_header));
	memcpy(long_header, "INVITE sip:ssh@example.org SIP/2.0\r\nX: ", 39);
	fake_front_send(&fronts[0], long_header, sizeof(long_header));
	wait_for(fronts[0].accepted == 3 && fronts[0].registers == 3);
	fake_front_send(&fronts[0], "\r\n\r\n", 4); /* keep-alive */
	fake_front_send(&fronts[0], nobody, strlen(nobody));
	wait_for(status_number("counters", "unexpected_response") == 1);
	assert_int_equal(fronts[0].accepted, 3);
	assert_int_equal(fronts[1].accepted, 1);
	assert_int_equal(status_number("calls", NULL), 1);
	assert_int_equal(status_number("counters", "bad_sip"), 2);
}

/* When nothing happens, nothing but heartbeats crosses the link. */
static void test_idle_link(void **state)
{
	json_t *a, *b;
	unsigned publishes, pings;
	static const char *const still[] = {"sip_bytes", "feed_bytes", "gate_bytes"};

	(void)state;
	wait_for(all_connected());
	wait_for(fronts[0].publishes >= 2 && fronts[1].publishes >= 2);
	a = command("{\"cmd\":\"status\"}");
	publishes = fronts[0].publishes;
	pings = gate.pings;
	wait_for(fronts[0].publishes >= publishes + 2 && gate.pings > pings);
	b = command("{\"cmd\":\"status\"}");
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(number(a, "link", still[i]), number(b, "link", still[i]));
	assert_true(number(b, "link", "heartbeat_bytes") > number(a, "link", "heartbeat_bytes"));
	assert_true(number(b, "link", "gate_heartbeat_bytes") > number(a, "link", "gate_heartbeat_bytes"));
	json_decref(a);
	json_decref(b);
}

static void test_unconfirmed(void **state)
{
	uint64_t began;
	json_t *o;

	(void)state;
	wait_for(all_connected());
	wait_for(fronts[0].publishes >= 1 && fronts[1].publishes >= 1);
	fronts[1].silent = true;
	began = wn_now_ms();
	o = command("{\"cmd\":\"user-add\",\"name\":\"alice\"}");
	assert_true(wn_now_ms() - began < 3000);
	assert_true(json_is_true(json_object_get(o, "ok")));
	assert_int_equal(number(o, "fronts", "confirmed"), 1);
	json_decref(o);
}

/* The agent serves its operator before anybody else is there. */
static void test_alone(void **state)
{
	char secret[64];
	json_t *o;

	(void)state;
	wait_for(all_connected());
	stop_agent();
	fake_front_down(&fronts[0]);
	fake_front_down(&fronts[1]);
	fake_gate_down(&gate);
	start_agent();
	add_user("alice", secret);
	o = command("{\"cmd\":\"user-del\",\"name\":\"alice\"}");
	assert_true(json_is_true(json_object_get(o, "ok")));
	assert_int_equal(number(o, "fronts", "of"), 0);
	json_decref(o);
	add_user("bob", secret);
	/* any order of starts */
	fronts[0].registers = fronts[1].registers = gate.lists = 0;
	assert_int_equal(fake_gate_listen(&gate), 0);
	assert_int_equal(fake_front_listen(&fronts[1]), 0);
	assert_int_equal(fake_front_listen(&fronts[0]), 0);
	wait_for(all_connected());
	wait_for(has_user(0, "bob", secret) && has_user(1, "bob", secret));
	assert_false(has_user(0, "alice", secret));
}

/* A front with another key is not spoken to. */
static void test_wrong_pin(void **state)
{
	(void)state;
	wait_for(all_connected());
	stop_agent();
	config.fronts[0].pin.sha256[0] ^= 1;
	fronts[0].registers = fronts[1].registers = 0;
	fronts[0].accepted = 0;
	start_agent();
	wait_for(fronts[1].registers == 1);
	for (uint64_t until = wn_now_ms() + 500; wn_now_ms() < until;)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(fronts[0].registers, 0);
	assert_int_equal(fronts[0].accepted, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_whole_path),   TEST(test_duplicate_invite), TEST(test_user_del),
		TEST(test_restart),      TEST(test_gate_returns),     TEST(test_gate_restart_keeps_calls),
		TEST(test_silent_front), TEST(test_garbage),          TEST(test_idle_link),
		TEST(test_unconfirmed),  TEST(test_wrong_pin),        TEST(test_alone),
	};

	wn_log_init("test", WN_LOG_ERR);
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("agent", tests, NULL, NULL);
}
