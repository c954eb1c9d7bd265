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

#include "base/b64.h"
#include "base/clock.h"
#include "base/ctl.h"
#include "peer/peer.h"
#include "sip/build.h"
#include "world.h"

/* The real process on loopback: an agent made of peer.h in front of it, a caller behind. */

#define WAIT_MS 8000

extern char **environ;

/* One end of the agent's side. */
struct agent {
	struct peer_conn *c;
	bool up, down;
	char buf[131072];
	size_t n;
};

static struct {
	char dir[64], config[96], socket[96], state[96];
	struct wn_addr sip, peer;
	pid_t pid;
	uv_loop_t loop;
	uv_timer_t timer;
	bool timed_out;
	struct peer_identity *agent_id;
	struct peer_pin front_pin;
	struct agent agent[2];
	uint8_t head[UPDATE_HEAD_BYTES]; /* of the chain, at update 1 */
	struct world w;                  /* for its digest and its keys */
} p;

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

static const struct peer_events events = {on_up, on_data, on_down};

static void on_timer(uv_timer_t *t)
{
	(void)t;
	p.timed_out = true;
}

/* Runs the loop until `done`, or fails the test. */
#define AWAIT(done)                                             \
	do {                                                    \
		p.timed_out = false;                            \
		uv_timer_start(&p.timer, on_timer, WAIT_MS, 0); \
		while (!(done) && !p.timed_out)                 \
			uv_run(&p.loop, UV_RUN_ONCE);           \
		uv_timer_stop(&p.timer);                        \
		assert_true(done);                              \
	} while (0)

static uint16_t free_port(int type)
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

static int caller(void)
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

static struct span receive(int fd, char *buf, size_t cap)
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

static struct span receive_looping(int fd, char *buf, size_t cap)
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
	return s;
}

static json_t *status(void)
{
	json_t *request = json_pack("{s:s}", "cmd", "status"), *j = NULL;

	assert_int_equal(ctl_call(p.socket, request, WAIT_MS, &j), 0);
	json_decref(request);
	assert_true(json_is_true(json_object_get(j, "ok")));
	return j;
}

static json_int_t outcome(const char *name)
{
	json_t *j = status();
	json_int_t n = json_integer_value(json_object_get(json_object_get(j, "outcomes"), name));

	json_decref(j);
	return n;
}

static void write_config(const struct peer_pin *agent)
{
	char listen[WN_ADDR_STR], agents[WN_ADDR_STR], pin[PEER_PIN_STR], key[B64URL_LEN(UPDATE_SIGN_PUBLIC) + 1] = "";
	FILE *f = fopen(p.config, "w");

	assert_non_null(f);
	b64url_encode(p.w.pk, sizeof(p.w.pk), key);
	fprintf(f,
		"listen: %s\nagents: %s\nkeys: %s\nsocket: %s\nstate: %s\nthreads: 2\nnonce_ring_bits: 12\ntenants:\n  - domain: "
		"example.org\n"
		"    agent_pin: \"%s\"\n    signing_key: \"ed25519:%s\"\n",
		wn_addr_str(&p.sip, listen), wn_addr_str(&p.peer, agents), p.dir, p.socket, p.state, peer_pin_str(agent, pin), key);
	fclose(f);
}

static pid_t start(const char *const *arg)
{
	const char *exe = getenv("WALNUT_FRONT");
	pid_t pid;

	assert_non_null(exe);
	assert_int_equal(posix_spawn(&pid, exe, NULL, NULL, (char *const *)(uintptr_t)arg, environ), 0);
	return pid;
}

static int finish(pid_t pid)
{
	int st = 0;

	assert_int_equal(waitpid(pid, &st, 0), pid);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

/* The process is starting: until it listens, an attempt fails at once and is made again. */
static void agent_connect(struct agent *a)
{
	struct peer_options opt = {.pins = &p.front_pin, .npins = 1};
	uint64_t deadline = wn_now_ms() + WAIT_MS;

	do {
		assert_true(wn_now_ms() < deadline);
		memset(a, 0, sizeof(*a));
		assert_int_equal(peer_connect(&p.loop, p.agent_id, &p.peer, &opt, &events, a, &a->c), 0);
		AWAIT(a->up || a->down);
	} while (a->down);
}

/* The next whole message that the front sent. */
static struct span agent_next(struct agent *a, struct sip_msg *m, char *copy, size_t cap)
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

static unsigned agent_register(struct agent *a, const char *domain)
{
	char body[512], copy[4096];
	struct sip_msg m;
	int n = snprintf(body, sizeof(body),
			 "{\"domain\":\"%s\",\"services\":[\"ssh\",\"dns\"],\"route_key\":\"AAAAAAAAAAAAAAAAAAAAAA\","
			 "\"agent\":\"AAAAAAAAAAA\",\"epoch_s\":86400}",
			 domain);

	return agent_request(a, "REGISTER", "Contact: <sip:agent@example.org>\r\n", span_of(body, (size_t)n), copy, sizeof(copy), &m);
}

static unsigned agent_publish(struct agent *a, struct span update, char *copy, size_t cap, struct sip_msg *m)
{
	return agent_request(a, "PUBLISH", "Event: walnut-users\r\n", update, copy, cap, m);
}

static struct span update(enum update_type type, uint64_t seq, const uint8_t *previous, uint8_t *buf, size_t cap, uint8_t hash[32])
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

static int group_setup(void **state)
{
	struct peer_identity *front;
	struct peer_pin pin;

	(void)state;
	world_new(&p.w, NULL);
	snprintf(p.dir, sizeof(p.dir), "/tmp/walnut-front-XXXXXX");
	assert_non_null(mkdtemp(p.dir));
	snprintf(p.config, sizeof(p.config), "%s/front.yaml", p.dir);
	snprintf(p.socket, sizeof(p.socket), "%s/front.sock", p.dir);
	snprintf(p.state, sizeof(p.state), "%s/state", p.dir);
	assert_int_equal(peer_identity_create(p.dir, "front", &p.front_pin), 0);
	assert_int_equal(peer_identity_create(p.dir, "agent", &pin), 0);
	assert_int_equal(peer_identity_load(p.dir, "agent", &p.agent_id), 0);
	assert_int_equal(peer_identity_load(p.dir, "front", &front), 0);
	peer_identity_free(front);
	p.sip = addr_of("127.0.0.1:1");
	p.peer = p.sip;
	p.sip.port = free_port(SOCK_DGRAM);
	p.peer.port = free_port(SOCK_STREAM);
	write_config(&pin);
	assert_int_equal(uv_loop_init(&p.loop), 0);
	assert_int_equal(uv_timer_init(&p.loop, &p.timer), 0);
	const char *const arg[] = {"walnut-front", "--config", p.config, NULL};
	p.pid = start(arg);
	return 0;
}

static int group_teardown(void **state)
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

	(void)state;
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

	json_t *j = status();
	assert_string_equal(json_string_value(json_object_get(j, "role")), "front");
	assert_int_equal(json_integer_value(json_object_get(j, "users")), 1);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "feed"), "seq")), 1);
	assert_true(json_integer_value(json_object_get(json_object_get(j, "link"), "heartbeat_bytes")) > 0);
	assert_true(json_integer_value(json_object_get(json_object_get(j, "link"), "feed_bytes")) > 0);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "link"), "sip_bytes")), 0);
	assert_true(json_is_true(json_object_get(json_array_get(json_object_get(j, "agents"), 0), "connected")));
	json_decref(j);
}

/* INVITE to 407 on socket fd; c gets the credentials. */
static void challenged(int fd, struct call *c)
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
		json_t *j = status();
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
		json_t *j = status();

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
	j = status();
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
	assert_int_equal(peer_connect(&p.loop, id, &p.peer, &opt, &events, a, &a->c), 0);
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
