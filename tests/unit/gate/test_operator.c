/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's side of the gate: both processes as in life, the parser under its seccomp filter, with the packet path in memory
 * (dp_double.c). The test is the operator, and in the end a parser that was taken over. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/ctl.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "gate/control.h"
#include "gate/ipc.h"
#include "gate/writer.h"

static struct gate_config cfg;
static char dir[64];
static pid_t writer, parser;
static int port; /* of the metrics */

static void parser_ended(int reason, void *arg)
{
	(void)arg;
	_exit(reason == -EPIPE ? 7 : 9);
}

static void writer_main(int fd)
{
	struct gate_dp *dp;
	int rc;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	rc = gate_dp_open(&cfg, &dp);
	if (rc == 0)
		rc = gate_writer_run(&cfg, dp, fd, -1);
	_exit(rc == -EPIPE ? 7 : rc == -EPROTO ? 8 : 9);
}

static void parser_main(int fd, int ready)
{
	struct gate_control *control;
	struct peer_identity *id;
	uv_loop_t loop;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (peer_identity_load(dir, "gate", &id) != 0 || uv_loop_init(&loop) != 0 ||
	    gate_control_start(&loop, &cfg, id, fd, parser_ended, NULL, &control) != 0)
		_exit(9);
	if (wn_drop_privileges(NULL, 0) < 0 || wn_seccomp(WN_SECCOMP_NET) < 0 || write(ready, "r", 1) != 1)
		_exit(9);
	uv_run(&loop, UV_RUN_DEFAULT);
	_exit(0);
}

/* A port that was free a moment ago. */
static int free_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t n = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, n), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &n), 0);
	close(fd);
	return ntohs(sa.sin_port);
}

static void set_config(void)
{
	memset(&cfg, 0, sizeof(cfg));
	snprintf(cfg.outside, sizeof(cfg.outside), "wan");
	snprintf(cfg.inside, sizeof(cfg.inside), "lan");
	cfg.port_low = 1024;
	cfg.port_high = 65535;
	cfg.npublic = 1;
	cfg.holes = 1000;
	wn_ip_parse(span_str("198.18.3.2"), &cfg.public[0]);
	wn_addr_parse(span_str("127.0.0.1:0"), -1, &cfg.control);
	port = free_port();
	wn_ip_parse(span_str("127.0.0.1"), &cfg.metrics);
	cfg.metrics.port = (uint16_t)port;
	snprintf(cfg.socket, sizeof(cfg.socket), "%s/gate.sock", dir);
	cfg.ntenant = 2;
	for (unsigned i = 0; i < 2; i++) {
		struct gate_tenant *t = &cfg.tenant[i];

		snprintf(t->name, sizeof(t->name), "example%u.org", i);
		t->agent.sha256[0] = (uint8_t)(i + 1);
		wn_prefix_parse(span_str(i == 0 ? "198.18.100.0/24" : "198.18.101.0/24"), &t->prefix[0]);
		t->nprefix = 1;
		t->holes = i == 0 ? 500 : 3;
	}
}

static int setup(void **state)
{
	struct peer_pin pin;
	int sv[2], ready[2];
	char c;

	(void)state;
	wn_log_init("test", WN_LOG_ERR);
	assert_true(sodium_init() >= 0);
	snprintf(dir, sizeof(dir), "/tmp/walnut-gate-XXXXXX");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(peer_identity_create(dir, "gate", &pin), 0);
	set_config();
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(pipe(ready), 0);
	writer = fork();
	if (writer == 0) {
		close(sv[0]);
		writer_main(sv[1]);
	}
	parser = fork();
	if (parser == 0) {
		close(sv[1]);
		parser_main(sv[0], ready[1]);
	}
	close(sv[0]);
	close(sv[1]);
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	return 0;
}

static int teardown(void **state)
{
	char path[128];
	int status;

	(void)state;
	/* Both were alive to the end: neither has met its sandbox's edge. */
	assert_int_equal(waitpid(parser, &status, WNOHANG), 0);
	kill(parser, SIGKILL);
	assert_int_equal(waitpid(parser, &status, 0), parser);
	assert_int_equal(waitpid(writer, &status, 0), writer);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	snprintf(path, sizeof(path), "%s/gate.key", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/gate.crt", dir);
	unlink(path);
	unlink(cfg.socket);
	return rmdir(dir);
}

/* One request, written with ' for ". The caller frees. */
static json_t *ask(const char *text)
{
	char line[1024];
	json_t *request, *answer;

	snprintf(line, sizeof(line), "%s", text);
	for (char *p = line; *p != 0; p++)
		if (*p == '\'')
			*p = '"';
	request = json_loads(line, 0, NULL);
	assert_non_null(request);
	assert_int_equal(ctl_call(cfg.socket, request, 10000, &answer), 0);
	json_decref(request);
	return answer;
}

static json_t *must(const char *text)
{
	json_t *a = ask(text);

	if (!json_is_true(json_object_get(a, "ok")))
		fprintf(stderr, "%s: %s\n", text, json_string_value(json_object_get(a, "error")));
	assert_true(json_is_true(json_object_get(a, "ok")));
	return a;
}

static void refused(const char *text, const char *part)
{
	json_t *a = ask(text);
	const char *error = json_string_value(json_object_get(a, "error"));

	assert_true(json_is_false(json_object_get(a, "ok")));
	assert_non_null(error);
	if (strstr(error, part) == NULL)
		fprintf(stderr, "%s: %s\n", text, error);
	assert_non_null(strstr(error, part));
	json_decref(a);
}

/* Opens; the hole's number. */
static json_int_t opened(const char *text)
{
	json_t *a = must(text);
	json_int_t hole = json_integer_value(json_object_get(json_object_get(a, "hole"), "hole"));

	assert_true(hole > 0);
	json_decref(a);
	return hole;
}

#define TCP "'cmd':'open','protocol':'tcp'"
#define UDP "'cmd':'open','protocol':'udp'"

static void open_show_close(void **state)
{
	char text[128];
	json_t *a, *h;
	json_int_t hole, other;

	(void)state;
	a = must("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','lifetime_s':60}");
	h = json_object_get(a, "hole");
	assert_string_equal(json_string_value(json_object_get(h, "tenant")), "example0.org");
	assert_string_equal(json_string_value(json_object_get(h, "user")), "operator");
	assert_string_equal(json_string_value(json_object_get(h, "remote")), "198.18.4.2:0");
	assert_null(json_object_get(a, "key"));
	hole = json_integer_value(json_object_get(h, "hole"));
	json_decref(a);
	other = opened("{" TCP ",'inside':'198.18.101.2:22','remote':'198.18.4.2:5000','user':'bob'}");

	snprintf(text, sizeof(text), "{'cmd':'hole','hole':%lld}", (long long)other);
	a = must(text);
	h = json_object_get(a, "hole");
	assert_string_equal(json_string_value(json_object_get(h, "user")), "bob");
	assert_string_equal(json_string_value(json_object_get(h, "tenant")), "example1.org");
	json_decref(a);
	/* By its number alone, whichever tenant's it is; once. */
	snprintf(text, sizeof(text), "{'cmd':'close','hole':%lld}", (long long)other);
	json_decref(must(text));
	refused(text, "no such hole");
	snprintf(text, sizeof(text), "{'cmd':'hole','hole':%lld}", (long long)other);
	refused(text, "no such hole");
	a = must("{'cmd':'holes'}");
	assert_int_equal(json_array_size(json_object_get(a, "holes")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_array_get(json_object_get(a, "holes"), 0), "hole")), hole);
	json_decref(a);
}

static void tagged_or_not(void **state)
{
	json_t *a = must("{" UDP ",'inside':'198.18.100.2:53','remote':'any'}");
	const char *key = json_string_value(json_object_get(a, "key"));

	(void)state;
	assert_non_null(key);
	assert_int_equal(strlen(key), 22);
	assert_true(json_is_true(json_object_get(json_object_get(a, "hole"), "tag")));
	json_decref(a);
	/* The list does not tell it. */
	a = must("{'cmd':'holes'}");
	assert_null(json_object_get(json_array_get(json_object_get(a, "holes"), 0), "key"));
	json_decref(a);
	a = must("{" UDP ",'inside':'198.18.100.2:53','remote':'198.18.4.2:4000','tag':false}");
	assert_null(json_object_get(a, "key"));
	assert_false(json_is_true(json_object_get(json_object_get(a, "hole"), "tag")));
	json_decref(a);
	refused("{" UDP ",'inside':'198.18.100.2:53','remote':'198.18.4.2','tag':false}", "port");
	refused("{" UDP ",'inside':'198.18.100.2:53','remote':'any','tag':false}", "remote");
	refused("{" TCP ",'inside':'198.18.100.2:53','remote':'198.18.4.2','tag':true}", "tag");
}

static void limits_are_the_tenants(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 3; i++)
		opened("{" TCP ",'inside':'198.18.101.2:22','remote':'198.18.4.2'}");
	refused("{" TCP ",'inside':'198.18.101.2:22','remote':'198.18.4.2'}", "used up");
	refused("{" TCP ",'inside':'198.18.101.2:22','remote':'198.18.4.2','tenant':'example0.org'}", "none of this tenant's");
	refused("{" TCP ",'inside':'198.18.102.2:22','remote':'198.18.4.2'}", "no tenant's prefixes");
	refused("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','tenant':'example9.org'}", "not in the gate's file");
}

static void nonsense_is_refused(void **state)
{
	static const char *const bad[][2] = {
		{"{'cmd':'open'}", "protocol"},
		{"{'cmd':'open','protocol':'icmp','inside':'198.18.100.2:22','remote':'198.18.4.2'}", "protocol"},
		{"{" TCP ",'inside':'198.18.100.2','remote':'198.18.4.2'}", "inside"},
		{"{" TCP ",'inside':7,'remote':'198.18.4.2'}", "inside"},
		{"{" TCP ",'inside':'198.18.100.2:0','remote':'198.18.4.2'}", "inside"},
		{"{" TCP ",'inside':'198.18.100.2:22'}", "remote"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'any'}", "remote"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'0.0.0.0'}", "no such hole"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'::1'}", "no such hole"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','lifetime_s':0}", "lifetime_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','lifetime_s':86401}", "lifetime_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','lifetime_s':-1}", "lifetime_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','lifetime_s':'60'}", "lifetime_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','packets_per_s':4294967297}", "packets_per_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','user_packets_per_s':-1}", "user_packets_per_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','user_bytes_per_s':1000000000001}", "user_bytes_per_s"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','user':'a b'}", "no such hole"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','user':''}", "no such hole"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','user':9}", "user"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','tenant':9}", "tenant"},
		{"{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2','bytes_per_sec':9}", "bytes_per_sec"},
		{"{'cmd':'close'}", "hole"},
		{"{'cmd':'close','hole':0}", "hole"},
		{"{'cmd':'close','hole':'7'}", "hole"},
		{"{'cmd':'close','hole':7}", "no such hole"},
		{"{'cmd':'hole','hole':7}", "no such hole"},
		{"{'cmd':'drain'}", "on must"},
		{"{'cmd':'trace','reasons':['nonsense']}", "nonsense"},
		{"{'cmd':'trace','reasons':['hole_in']}", "hole_in"},
		{"{'cmd':'trace','reasons':'no_hole'}", "list"},
		{"{'cmd':'trace','reasons':[7]}", "no reason"},
		{"{'cmd':'trace','per_s':0}", "per_s"},
		{"{'cmd':'trace','per_s':1001}", "per_s"},
		{"{'cmd':'trace','id':1}", "has ended"},
		{"{'cmd':'frob'}", "unknown"},
	};
	json_t *a;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		refused(bad[i][0], bad[i][1]);
	a = must("{'cmd':'holes'}");
	assert_int_equal(json_array_size(json_object_get(a, "holes")), 0);
	json_decref(a);
}

static void drain(void **state)
{
	json_int_t hole = opened("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2'}");
	char text[128];
	json_t *a;

	(void)state;
	json_decref(must("{'cmd':'drain','on':true}"));
	refused("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2'}", "drain off");
	a = must("{'cmd':'status'}");
	assert_true(json_is_true(json_object_get(a, "draining")));
	assert_int_equal(json_integer_value(json_object_get(a, "holes")), 1);
	json_decref(a);
	snprintf(text, sizeof(text), "{'cmd':'hole','hole':%lld}", (long long)hole);
	json_decref(must(text));
	json_decref(must("{'cmd':'drain','on':false}"));
	opened("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2'}");
}

static void trace(void **state)
{
	char text[128];
	json_t *a = must("{'cmd':'trace','reasons':['tag_replay']}"), *list, *d;
	json_int_t id = json_integer_value(json_object_get(a, "id"));

	(void)state;
	list = json_object_get(a, "samples");
	assert_int_equal(json_array_size(list), GATE_IPC_SAMPLES);
	for (size_t i = 0; i < json_array_size(list); i++) {
		d = json_array_get(list, i);
		assert_string_equal(json_string_value(json_object_get(d, "reason")), "tag_replay");
		assert_string_equal(json_string_value(json_object_get(d, "interface")), "wan");
		assert_int_equal(json_integer_value(json_object_get(d, "source_port")), i + 1);
		assert_int_equal(json_object_size(d), 11);
	}
	json_decref(a);
	refused("{'cmd':'trace'}", "another trace");
	snprintf(text, sizeof(text), "{'cmd':'trace','id':%lld}", (long long)id + 1);
	refused(text, "has ended");
	snprintf(text, sizeof(text), "{'cmd':'trace','id':%lld,'stop':true}", (long long)id);
	a = must(text);
	assert_int_equal(json_array_size(json_object_get(a, "samples")), 0);
	json_decref(a);
	refused(text, "has ended");
	json_decref(must("{'cmd':'trace'}"));
}

/* One HTTP request and its whole answer. */
static const char *http(const char *request)
{
	static char answer[65536];
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	size_t n = 0;
	ssize_t k;

	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(send(fd, request, strlen(request), MSG_NOSIGNAL), strlen(request));
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		assert_int_equal(poll(&p, 1, 10000), 1);
		k = recv(fd, answer + n, sizeof(answer) - 1 - n, 0);
		if (k <= 0)
			break;
		n += (size_t)k;
	}
	close(fd);
	answer[n] = 0;
	return answer;
}

#define END " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static void metrics(void **state)
{
	const char *a;

	(void)state;
	opened("{" TCP ",'inside':'198.18.100.2:22','remote':'198.18.4.2'}");
	for (unsigned i = 0; i < 3; i++) {
		a = http("GET /metrics" END);
		assert_int_equal(strncmp(a, "HTTP/1.1 200 ", 13), 0);
		assert_non_null(strstr(a, "Content-Type: text/plain; version=0.0.4"));
		assert_non_null(strstr(a, "\nwalnut_gate_packets_total{reason=\"no_hole\",verdict=\"drop\"} 7\n"));
		assert_non_null(strstr(a, "\nwalnut_gate_holes 1\n"));
		assert_non_null(strstr(a, "\nwalnut_gate_flows 5\n"));
		assert_non_null(strstr(a, "\nwalnut_gate_draining 0\n"));
		assert_non_null(strstr(a, "\nwalnut_gate_answers_total{status=\"quota\"} 0\n"));
		assert_non_null(strstr(a, "\nwalnut_gate_agents{tenant=\"example1.org\"} 0\n"));
		/* What is no reason of the packet path is not passed off as one. */
		assert_null(strstr(a, "sweeps"));
	}
	assert_int_equal(strncmp(http("GET /" END), "HTTP/1.1 404 ", 13), 0);
	assert_int_equal(strncmp(http("HEAD /metrics" END), "HTTP/1.1 405 ", 13), 0);
	assert_int_equal(
		strncmp(http("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"), "HTTP/1.1 405 ", 13),
		0);
	http("\x16\x03\x01\x02nonsense\r\n\r\n");
	json_decref(must("{'cmd':'status'}"));
}

/* More than the server takes at once, none of which says anything. */
static void silent_scrapers_hold_nobody_up(void **state)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
	int fd[40];

	(void)state;
	for (unsigned i = 0; i < 40; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		connect(fd[i], (struct sockaddr *)&sa, sizeof(sa));
	}
	for (unsigned i = 0; i < 20; i++)
		json_decref(must("{'cmd':'status'}"));
	for (unsigned i = 0; i < 40; i++)
		close(fd[i]);
	assert_int_equal(strncmp(http("GET /metrics" END), "HTTP/1.1 200 ", 13), 0);
}

static void talk(int fd, const struct gate_ipc_request *q, struct gate_ipc_reply *a)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	assert_int_equal(send(fd, q, sizeof(*q), 0), sizeof(*q));
	assert_int_equal(poll(&p, 1, 10000), 1);
	assert_int_equal(recv(fd, a, sizeof(*a), 0), sizeof(*a));
}

/* What a parser that was taken over could send in the operator's name. */
static void the_writer_trusts_no_operator(void **state)
{
	struct gate_ipc_request q = {.kind = GATE_IPC_DRAIN, .on = 2, .token = 3};
	struct gate_ipc_reply a;
	const unsigned beyond = gate_reason_count();
	int sv[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	pid = fork();
	if (pid == 0) {
		close(sv[0]);
		writer_main(sv[1]);
	}
	close(sv[1]);
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);
	assert_int_equal(a.token, 3);
	assert_int_equal(a.last, 1);

	q = (struct gate_ipc_request){.kind = GATE_IPC_TRACE, .trace = {.per_s = GATE_TRACE_MOST_PER_S + 1}};
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);
	q.trace.per_s = 1;
	q.trace.fresh = 2;
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);
	q.trace.fresh = 0;
	q.trace.reasons[beyond / 64] = 1ull << (beyond % 64);
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);
	q.trace.reasons[beyond / 64] = 0;
	q.trace.reasons[1] = 1ull << 63;
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);

	/* All tenants' is a word of CLOSE and LIST, and of nothing else. */
	q = (struct gate_ipc_request){.kind = GATE_IPC_APPLY,
				      .r = {.op = GATE_RENEW, .tenant = GATE_IPC_ALL, .hole = 1000, .lifetime_s = 9}};
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_NOT_YOURS);
	q.r = (struct gate_request){.op = GATE_CLOSE, .tenant = GATE_IPC_ALL};
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_BAD_RECORD);
	q.r = (struct gate_request){.op = GATE_CLOSE, .tenant = GATE_IPC_ALL, .hole = 1000};
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_NO_HOLE);
	q.r = (struct gate_request){.op = GATE_CLOSE, .tenant = GATE_IPC_ALL - 1, .hole = 1000};
	talk(sv[0], &q, &a);
	assert_int_equal(a.r.status, GATE_NOT_YOURS);
	close(sv[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(open_show_close),
		T(tagged_or_not),
		T(limits_are_the_tenants),
		T(nonsense_is_refused),
		T(drain),
		T(trace),
		T(metrics),
		T(silent_scrapers_hold_nobody_up),
		cmocka_unit_test(the_writer_trusts_no_operator),
	};

	return cmocka_run_group_tests_name("gate operator", tests, NULL, NULL);
}
