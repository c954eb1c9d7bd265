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
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "process.h"

#include "base/b64.h"
#include "base/ctl.h"

extern char **environ;

struct process p;

static void on_up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)c;
	(void)pin;
	((struct agent *)arg)->up = true;
}

static void on_data(struct peer_conn *c, const uint8_t *data, size_t n, void *arg)
{
	struct agent *a = arg;

	(void)c;
	assert_true(n <= sizeof(a->buf) - a->n);
	memcpy(a->buf + a->n, data, n);
	a->n += n;
}

static void on_down(struct peer_conn *c, int reason, void *arg)
{
	(void)c;
	(void)reason;
	((struct agent *)arg)->down = true;
	((struct agent *)arg)->c = NULL;
}

const struct peer_events agent_events = {on_up, on_data, on_down};

void process_on_timer(uv_timer_t *t)
{
	(void)t;
	p.timed_out = true;
}

uint16_t free_port(int type)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	int fd = socket(AF_INET, type, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	close(fd);
	return ntohs(a.sin_port);
}

int caller(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct timeval patience = {WAIT_MS / 1000, 0};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	a.sin_port = htons(p.sip.port);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	return fd;
}

struct span receive(int fd, char *buf, size_t cap)
{
	ssize_t n = recv(fd, buf, cap, 0);

	assert_true(n > 0);
	return span_of(buf, (size_t)n);
}

/* A caller's answer while the loop must go on. */
static void on_poll(uv_poll_t *h, int status, int ev)
{
	(void)status;
	(void)ev;
	*(bool *)h->data = true;
}

static void on_closed(uv_handle_t *h)
{
	*(bool *)h->data = false;
}

struct span receive_looping(int fd, char *buf, size_t cap)
{
	bool ready = false;
	uv_poll_t poll;
	struct span s;

	assert_int_equal(uv_poll_init(&p.loop, &poll, fd), 0);
	poll.data = &ready;
	assert_int_equal(uv_poll_start(&poll, UV_READABLE, on_poll), 0);
	AWAIT(ready);
	uv_poll_stop(&poll);
	s = receive(fd, buf, cap);
	uv_close((uv_handle_t *)&poll, on_closed);
	AWAIT(!ready);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK); /* which uv_poll_init has set */
	return s;
}

json_t *ask(const char *cmd, const char *about)
{
	json_t *request = json_pack("{s:s,s:s*}", "cmd", cmd, "about", about), *j = NULL;

	assert_int_equal(ctl_call(p.socket, request, WAIT_MS, &j), 0);
	json_decref(request);
	assert_true(json_is_true(json_object_get(j, "ok")));
	return j;
}

json_int_t outcome(const char *name)
{
	json_t *j = ask("status", NULL);
	json_int_t n = json_integer_value(json_object_get(json_object_get(j, "outcomes"), name));

	json_decref(j);
	return n;
}

const char *process_tenant(char *buf, size_t cap)
{
	char pin[PEER_PIN_STR], key[B64URL_LEN(UPDATE_SIGN_PUBLIC) + 1] = "";

	b64url_encode(p.w.pk, sizeof(p.w.pk), key);
	snprintf(buf, cap, "  - domain: example.org\n    agent_pin: \"%s\"\n    signing_key: \"ed25519:%s\"\n",
		 peer_pin_str(&p.agent_pin, pin), key);
	return buf;
}

void process_write_config(const char *more, const char *tenants)
{
	char listen[WN_ADDR_STR], agents[WN_ADDR_STR], one[512];
	FILE *f = fopen(p.config, "w");

	assert_non_null(f);
	fprintf(f, "listen: %s\nagents: %s\nkeys: %s\nsocket: %s\nstate: %s\nthreads: 2\nnonce_ring_bits: 12\n%s%stenants:\n%s",
		wn_addr_str(&p.sip, listen), wn_addr_str(&p.peer, agents), p.dir, p.socket, p.state, more != NULL ? more : "",
		more != NULL && strstr(more, "drain_s") != NULL ? "" : "drain_s: 0\n", /* what is left unanswered holds up no end */
		tenants != NULL ? tenants : process_tenant(one, sizeof(one)));
	fclose(f);
}

pid_t start(const char *const *arg)
{
	const char *exe = getenv("WALNUT_FRONT");
	pid_t pid;

	assert_non_null(exe);
	assert_int_equal(posix_spawn(&pid, exe, NULL, NULL, (char *const *)(uintptr_t)arg, environ), 0);
	return pid;
}

int finish(pid_t pid)
{
	int st = 0;

	assert_int_equal(waitpid(pid, &st, 0), pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* The process is starting: until it listens, an attempt fails at once and is made again. */
void agent_connect(struct agent *a)
{
	struct peer_options opt = {.pins = &p.front_pin, .npins = 1};
	uint64_t deadline = wn_now_ms() + WAIT_MS;

	do {
		assert_true(wn_now_ms() < deadline);
		memset(a, 0, sizeof(*a));
		assert_int_equal(peer_connect(&p.loop, p.agent_id, &p.peer, &opt, &agent_events, a, &a->c), 0);
		AWAIT(a->up || a->down);
	} while (a->down);
}

/* The next whole message that the front sent. */
struct span agent_next(struct agent *a, struct sip_msg *m, char *copy, size_t cap)
{
	AWAIT(sip_parse(span_of(a->buf, a->n), true, m) == SIP_OK);
	size_t n = m->consumed;
	assert_true(n <= cap);
	memcpy(copy, a->buf, n);
	memmove(a->buf, a->buf + n, a->n - n);
	a->n -= n;
	assert_int_equal(sip_parse(span_of(copy, n), true, m), SIP_OK);
	return span_of(copy, n);
}

static unsigned agent_request(struct agent *a, const char *method, const char *headers, struct span body, char *copy, size_t cap,
			      struct sip_msg *m)
{
	static unsigned cseq;
	static char buf[SIP_MESSAGE_MAX];
	struct sip_buf b;

	cseq++;
	sip_buf_init(&b, buf, sizeof(buf));
	sip_printf(&b,
		   "%s sip:example.org SIP/2.0\r\nVia: SIP/2.0/TLS agent.example.org;branch=z9hG4bKreq%u\r\nMax-Forwards: 70\r\n"
		   "From: <sip:agent@example.org>;tag=a\r\nTo: <sip:agent@example.org>\r\nCall-ID: agent\r\nCSeq: %u %s\r\n%s",
		   method, cseq, cseq, method, headers);
	sip_put_end(&b, SPAN_LIT("application/octet-stream"), body);
	assert_false(b.overflow);
	assert_int_equal(peer_send(a->c, b.p, b.len), 0);
	agent_next(a, m, copy, cap);
	assert_int_equal(m->cseq, cseq);
	return m->status;
}

unsigned agent_register(struct agent *a, const char *domain)
{
	char body[512], copy[4096];
	struct sip_msg m;
	int n = snprintf(body, sizeof(body),
			 "{\"domain\":\"%s\",\"services\":[\"ssh\",\"dns\"],\"route_key\":\"AAAAAAAAAAAAAAAAAAAAAA\","
			 "\"agent\":\"AAAAAAAAAAA\",\"epoch_s\":86400}",
			 domain);

	return agent_request(a, "REGISTER", "Contact: <sip:agent@example.org>\r\n", span_of(body, (size_t)n), copy, sizeof(copy), &m);
}

unsigned agent_publish(struct agent *a, struct span update, char *copy, size_t cap, struct sip_msg *m)
{
	return agent_request(a, "PUBLISH", "Event: walnut-users\r\n", update, copy, cap, m);
}

struct span update(enum update_type type, uint64_t seq, const uint8_t *previous, uint8_t *buf, size_t cap, uint8_t hash[32])
{
	struct update_msg m = {.type = type, .domain = SPAN_LIT("example.org"), .epoch_s = 86400};
	uint8_t sha[32];
	char realm[64];
	struct user_op op = {USER_SET, SPAN_LIT("alice"), USER_HAS_SHA256, 0, sha, NULL};
	struct update_buf b;
	long n;

	m.unix_ms = wn_unix_ms();
	m.epoch = (uint32_t)(wn_unix_s() / 86400);
	m.at.seq = seq;
	if (previous != NULL)
		memcpy(m.at.hash, previous, 32);
	update_begin(&b, buf, cap, &m);
	for (unsigned i = 0; type == UPDATE_CHANGE && i < 2; i++) {
		op.epoch = m.epoch + i;
		snprintf(realm, sizeof(realm), "example.org/%u", op.epoch);
		assert_int_equal(digest_ha1(p.w.digest, DIGEST_SHA256, op.name, span_str(realm), span_str(ALICE_SECRET), sha), 0);
		assert_int_equal(update_add(&b, &op), 0);
	}
	n = update_end(&b, p.w.sk, hash);
	assert_true(n > 0);
	return span_of(buf, (size_t)n);
}

void process_setup(const char *more)
{
	struct peer_identity *front;

	world_new(&p.w, NULL);
	snprintf(p.dir, sizeof(p.dir), "/tmp/walnut-front-XXXXXX");
	assert_non_null(mkdtemp(p.dir));
	snprintf(p.config, sizeof(p.config), "%s/front.yaml", p.dir);
	snprintf(p.socket, sizeof(p.socket), "%s/front.sock", p.dir);
	snprintf(p.state, sizeof(p.state), "%s/state", p.dir);
	assert_int_equal(peer_identity_create(p.dir, "front", &p.front_pin), 0);
	assert_int_equal(peer_identity_create(p.dir, "agent", &p.agent_pin), 0);
	assert_int_equal(peer_identity_load(p.dir, "agent", &p.agent_id), 0);
	assert_int_equal(peer_identity_load(p.dir, "front", &front), 0);
	peer_identity_free(front);
	p.sip = addr_of("127.0.0.1:1");
	p.peer = p.sip;
	p.sip.port = free_port(SOCK_DGRAM);
	p.peer.port = free_port(SOCK_STREAM);
	process_write_config(more, NULL);
	assert_int_equal(uv_loop_init(&p.loop), 0);
	assert_int_equal(uv_timer_init(&p.loop, &p.timer), 0);
	const char *const arg[] = {"walnut-front", "--config", p.config, NULL};
	p.pid = start(arg);
}

int process_teardown(void)
{
	static const char *const file[] = {"front.yaml",
					   "front.sock",
					   "front.key",
					   "front.crt",
					   "agent.key",
					   "agent.crt",
					   "state/example.org.users",
					   "state/example.org.users.new"};
	char path[128];
	int st;

	for (unsigned i = 0; i < 2; i++)
		if (p.agent[i].c != NULL)
			peer_close(p.agent[i].c);
	AWAIT(p.agent[0].c == NULL && p.agent[1].c == NULL);
	kill(p.pid, SIGTERM);
	st = finish(p.pid);
	peer_identity_free(p.agent_id);
	uv_close((uv_handle_t *)&p.timer, NULL);
	uv_run(&p.loop, UV_RUN_DEFAULT);
	uv_loop_close(&p.loop);
	for (unsigned i = 0; i < sizeof(file) / sizeof(file[0]); i++) {
		snprintf(path, sizeof(path), "%s/%s", p.dir, file[i]);
		unlink(path);
	}
	rmdir(p.state);
	rmdir(p.dir);
	world_free(&p.w);
	if (st != 0)
		print_error("walnut-front ended with status %d\n", st);
	return st;
}

void challenged(int fd, struct call *c)
{
	char buf[8192], got[8192];
	struct digest_params d;
	struct span s;
	size_t n = call_write(c, buf, sizeof(buf));

	assert_int_equal(send(fd, buf, n, 0), (ssize_t)n);
	s = receive(fd, got, sizeof(got));
	assert_memory_equal(s.p, "SIP/2.0 407 ", 12);
	assert_true(s.n <= n);
	assert_int_equal(digest_parse(header_of(s, "Proxy-Authenticate"), &d), 0);
	call_authorize(&p.w, c, &alice, d.realm, d.nonce);
}
