/* SPDX-License-Identifier: Apache-2.0 */
/* Both of the gate's processes over loopback, with the packet path in memory (dp_double.c): agents, operator, and each other's end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/control.h"
#include "gate/ipc.h"
#include "gate/writer.h"

#define AGENTS  12
#define ROLES   4 /* the gate, two tenants' agents, a stranger */
#define REPLIES 130000

static const char *const role[ROLES] = {"gate", "agent", "agent2", "stranger"};

struct agent {
	struct bench *b;
	struct peer_conn *c;
	int ups, downs, reason;
	uint64_t seq;
	struct gate_reply *r;
	size_t nr;
	uint8_t part[GATE_REPLY_BYTES];
	size_t npart;
	bool deaf;
};

struct bench {
	uv_loop_t loop;
	char dir[64];
	struct peer_identity *id[ROLES];
	struct gate_config cfg;
	struct gate_control *control;
	struct wn_addr addr;
	pid_t writer;
	int fd;
	int ended;
	bool out_of_time;
	struct agent agent[AGENTS];
	char line[1 << 20];
	size_t nline;
};

/* The linker puts this before the clock (see meson.build): time can be made to have passed. */
uint64_t __real_wn_now_ms(void);
uint64_t __wrap_wn_now_ms(void);
static uint64_t ahead_ms;

uint64_t __wrap_wn_now_ms(void)
{
	return __real_wn_now_ms() + ahead_ms;
}

static void limit(uv_timer_t *t)
{
	((struct bench *)t->data)->out_of_time = true;
}

/* Runs the loop until the condition holds; false when `ms` have passed. */
#define WITHIN(b, ms, cond)                                  \
	({                                                   \
		uv_timer_t t_;                               \
		bool ok_;                                    \
		(b)->out_of_time = false;                    \
		uv_timer_init(&(b)->loop, &t_);              \
		t_.data = (b);                               \
		uv_timer_start(&t_, limit, (ms), 0);         \
		while (!(ok_ = (cond)) && !(b)->out_of_time) \
			uv_run(&(b)->loop, UV_RUN_ONCE);     \
		uv_close((uv_handle_t *)&t_, NULL);          \
		uv_run(&(b)->loop, UV_RUN_NOWAIT);           \
		ok_;                                         \
	})

static void on_ended(int reason, void *arg)
{
	struct bench *b = arg;

	assert_int_equal(b->ended, 0);
	b->ended = reason;
}

static void agent_up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)c;
	(void)pin;
	((struct agent *)arg)->ups++;
}

static void agent_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct agent *a = arg;

	while (n > 0) {
		size_t k = sizeof(a->part) - a->npart < n ? sizeof(a->part) - a->npart : n;

		memcpy(a->part + a->npart, p, k);
		a->npart += k;
		p += k;
		n -= k;
		if (a->npart == sizeof(a->part)) {
			assert_true(a->nr < REPLIES);
			assert_int_equal(gate_reply_decode(a->part, &a->r[a->nr++]), 0);
			a->npart = 0;
		}
	}
	if (a->deaf)
		peer_pause(c);
}

static void agent_down(struct peer_conn *c, int reason, void *arg)
{
	struct agent *a = arg;

	(void)c;
	a->c = NULL;
	a->downs++;
	a->reason = reason;
}

static const struct peer_events agent_events = {agent_up, agent_data, agent_down};

/* The writer in a process of its own, as in life. */
static void start_writer(struct bench *b)
{
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
	b->writer = fork();
	assert_true(b->writer >= 0);
	if (b->writer == 0) {
		struct gate_dp *dp;
		int rc;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(sv[0]);
		if (b->fd > 0)
			close(b->fd);
		rc = gate_dp_open(&b->cfg, &dp);
		if (rc == 0)
			rc = gate_writer_run(&b->cfg, dp, sv[1], -1);
		_exit(rc == -EPIPE ? 7 : rc == -EPROTO ? 8 : 9);
	}
	close(sv[1]);
	b->fd = sv[0];
}

static struct span pick(const char *s)
{
	return span_str(s);
}

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct peer_pin pin;

	assert_non_null(b);
	ahead_ms = 0;
	wn_log_init("test", WN_LOG_ERR);
	assert_true(sodium_init() >= 0);
	snprintf(b->dir, sizeof(b->dir), "/tmp/walnut-gate-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	for (int i = 0; i < ROLES; i++) {
		assert_int_equal(peer_identity_create(b->dir, role[i], &pin), 0);
		assert_int_equal(peer_identity_load(b->dir, role[i], &b->id[i]), 0);
	}
	b->cfg.port_low = 1024;
	b->cfg.port_high = 65535;
	b->cfg.npublic = 1;
	b->cfg.holes = 30000;
	assert_int_equal(wn_ip_parse(pick("198.18.3.2"), &b->cfg.public[0]), 0);
	assert_int_equal(wn_addr_parse(pick("127.0.0.1:0"), -1, &b->cfg.control), 0);
	snprintf(b->cfg.socket, sizeof(b->cfg.socket), "%s/gate.sock", b->dir);
	b->cfg.ntenant = 2;
	for (unsigned i = 0; i < 2; i++) {
		struct gate_tenant *t = &b->cfg.tenant[i];

		snprintf(t->name, sizeof(t->name), "example%u.org", i);
		peer_identity_pin(b->id[1 + i], &t->agent);
		assert_int_equal(wn_prefix_parse(pick(i == 0 ? "198.18.100.0/24" : "198.18.101.0/24"), &t->prefix[0]), 0);
		t->nprefix = 1;
		t->holes = i == 0 ? 25000 : 3;
	}
	uv_loop_init(&b->loop);
	start_writer(b);
	assert_int_equal(gate_control_start(&b->loop, &b->cfg, b->id[0], b->fd, on_ended, b, &b->control), 0);
	gate_control_addr(b->control, &b->addr);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;
	char path[160];
	int status;

	for (unsigned i = 0; i < AGENTS; i++) {
		if (b->agent[i].c != NULL)
			peer_close(b->agent[i].c);
	}
	gate_control_stop(b->control);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	gate_control_free(b->control);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	close(b->fd);
	/* Without a parser the writer ends by itself. */
	if (b->writer > 0) {
		assert_int_equal(waitpid(b->writer, &status, 0), b->writer);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 7);
	}
	for (unsigned i = 0; i < AGENTS; i++)
		free(b->agent[i].r);
	for (int i = 0; i < ROLES; i++) {
		peer_identity_free(b->id[i]);
		snprintf(path, sizeof(path), "%s/%s.key", b->dir, role[i]);
		unlink(path);
		snprintf(path, sizeof(path), "%s/%s.crt", b->dir, role[i]);
		unlink(path);
	}
	assert_int_equal(rmdir(b->dir), 0);
	free(b);
	return 0;
}

static struct agent *dial(struct bench *b, unsigned i, int who)
{
	struct agent *a = &b->agent[i];
	struct peer_pin pin;
	struct peer_options opt = {.pins = &pin, .npins = 1};

	peer_identity_pin(b->id[0], &pin);
	a->b = b;
	a->r = calloc(REPLIES, sizeof(a->r[0]));
	assert_non_null(a->r);
	assert_int_equal(peer_connect(&b->loop, b->id[who], &b->addr, &opt, &agent_events, a, &a->c), 0);
	return a;
}

static struct agent *agent(struct bench *b, unsigned i, int who)
{
	struct agent *a = dial(b, i, who);

	assert_true(WITHIN(b, 10000, a->ups == 1));
	return a;
}

static struct gate_request open_request(const char *inside)
{
	struct gate_request r = {.op = GATE_OPEN, .proto = IPPROTO_TCP, .lifetime_s = 60, .cookie = 42, .user = "alice"};

	assert_int_equal(wn_addr_parse(pick(inside), -1, &r.inside), 0);
	assert_int_equal(wn_addr_parse(pick("198.18.4.2:0"), -1, &r.remote), 0);
	return r;
}

static void send_request(struct agent *a, struct gate_request r)
{
	uint8_t w[GATE_REQUEST_BYTES];

	r.seq = ++a->seq;
	gate_request_encode(&r, w);
	assert_int_equal(peer_send(a->c, w, sizeof(w)), 0);
}

/* One request and its only answer. */
static struct gate_reply ask(struct agent *a, struct gate_request r)
{
	size_t n = a->nr;

	send_request(a, r);
	assert_true(WITHIN(a->b, 10000, a->nr > n));
	assert_int_equal(a->nr, n + 1);
	assert_int_equal(a->r[n].seq, a->seq);
	assert_int_equal(a->r[n].op, r.op);
	return a->r[n];
}

static const struct gate_request ping = {.op = GATE_PING}, list = {.op = GATE_LIST};

static void open_renew_close(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	struct gate_request r = open_request("198.18.100.2:22");
	struct gate_reply p = ask(a, r);
	char buf[WN_ADDR_STR];
	uint64_t hole;

	assert_int_equal(p.status, GATE_OK);
	assert_int_equal(p.cookie, 42);
	assert_string_equal(wn_addr_str(&p.public, buf), "198.18.3.2:1024");
	hole = p.hole;
	r = (struct gate_request){.op = GATE_RENEW, .hole = hole, .lifetime_s = 100};
	p = ask(a, r);
	assert_int_equal(p.status, GATE_OK);
	assert_int_equal(p.lifetime_s, 100);
	r = (struct gate_request){.op = GATE_CLOSE, .hole = hole};
	assert_int_equal(ask(a, r).status, GATE_OK);
	assert_int_equal(ask(a, r).status, GATE_NO_HOLE);
	assert_int_equal(ask(a, open_request("198.18.101.2:22")).status, GATE_NOT_YOURS);
}

static void ping_tells_the_tables(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *c = agent(b, 1, 2);
	struct gate_reply p = ask(a, ping), q = ask(a, ping), r = ask(c, ping);

	assert_int_equal(p.status, GATE_OK);
	assert_int_equal(p.hole, 77);
	assert_int_equal(p.hole, q.hole);
	assert_int_equal(p.hole, r.hole);
}

static void a_stranger_gets_no_further_than_the_handshake(void **state)
{
	struct bench *b = *state;
	struct agent *s = dial(b, 0, 3), *a;

	assert_true(WITHIN(b, 10000, s->downs == 1));
	assert_int_equal(s->reason, -EACCES);
	assert_int_equal(s->nr, 0);
	/* and harms nobody */
	a = agent(b, 1, 1);
	assert_int_equal(ask(a, ping).status, GATE_OK);
}

static void a_gap_in_the_sequence_ends_the_connection(void **state)
{
	static const int64_t step[] = {1, -1, 1000};
	struct bench *b = *state;

	for (unsigned i = 0; i < 3; i++) {
		struct agent *a = agent(b, i, 1);

		assert_int_equal(ask(a, ping).status, GATE_OK);
		a->seq += (uint64_t)step[i];
		send_request(a, open_request("198.18.100.2:22"));
		send_request(a, ping);
		assert_true(WITHIN(b, 10000, a->downs == 1));
		assert_int_equal(a->nr, 2);
		assert_int_equal(a->r[1].status, GATE_BAD_SEQUENCE);
		assert_int_equal(a->r[1].op, GATE_OPEN);
	}
	/* Nothing was opened. */
	assert_int_equal(ask(agent(b, 4, 1), list).status, GATE_END);
}

static void a_bad_record_is_answered_in_its_place(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	struct gate_request r = open_request("198.18.100.2:22");
	uint8_t w[3 * GATE_REQUEST_BYTES];

	for (unsigned i = 0; i < 3; i++) {
		r.seq = ++a->seq;
		gate_request_encode(&r, w + i * GATE_REQUEST_BYTES);
	}
	w[GATE_REQUEST_BYTES + 2] = IPPROTO_ICMP;
	assert_int_equal(peer_send(a->c, w, sizeof(w)), 0);
	assert_true(WITHIN(b, 10000, a->nr == 3));
	assert_int_equal(a->r[0].status, GATE_OK);
	assert_int_equal(a->r[1].status, GATE_BAD_RECORD);
	assert_int_equal(a->r[1].seq, 2);
	assert_int_equal(a->r[2].status, GATE_OK);
	assert_int_equal(ask(a, ping).status, GATE_OK);
}

static void another_tenants_hole_is_out_of_reach(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *other = agent(b, 1, 2);
	uint64_t hole = ask(a, open_request("198.18.100.2:22")).hole;
	struct gate_request close_it = {.op = GATE_CLOSE, .hole = hole}, renew = {.op = GATE_RENEW, .hole = hole, .lifetime_s = 9};

	assert_int_equal(ask(other, close_it).status, GATE_NOT_YOURS);
	assert_int_equal(ask(other, renew).status, GATE_NOT_YOURS);
	assert_int_equal(ask(other, open_request("198.18.100.2:22")).status, GATE_NOT_YOURS);
	assert_int_equal(ask(other, list).status, GATE_END);
	assert_int_equal(ask(a, close_it).status, GATE_OK);
}

static void a_quota_is_a_tenants_own(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 2);

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(ask(a, open_request("198.18.101.9:53")).status, GATE_OK);
	assert_int_equal(ask(a, open_request("198.18.101.9:53")).status, GATE_QUOTA);
	assert_int_equal(ask(agent(b, 1, 1), open_request("198.18.100.9:53")).status, GATE_OK);
}

/* Many requests at once, lists among them: answers come in the order of the questions, and a list is whole. */
static void answers_keep_the_order(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	size_t at = 0, want;

	for (unsigned i = 0; i < 700; i++)
		send_request(a, open_request("198.18.100.2:22"));
	send_request(a, list);
	for (unsigned i = 0; i < 300; i++)
		send_request(a, i % 2 ? ping : open_request("198.18.100.2:22"));
	send_request(a, list);
	send_request(a, ping);
	want = 700 + 701 + 300 + 851 + 1;
	assert_true(WITHIN(b, 20000, a->nr == want));
	for (uint64_t seq = 1; seq <= 1003; seq++) {
		size_t holes = seq == 701 ? 700 : seq == 1002 ? 850 : 0;

		for (size_t i = 0; i < holes; i++) {
			assert_int_equal(a->r[at].op, GATE_LIST);
			assert_int_equal(a->r[at].status, GATE_OK);
			assert_int_equal(a->r[at].hole, 1000 + i);
			assert_int_equal(a->r[at].cookie, 42);
			assert_string_equal(a->r[at].user, "alice");
			assert_int_equal(a->r[at++].seq, seq);
		}
		assert_int_equal(a->r[at].seq, seq);
		assert_int_equal(a->r[at++].status, holes ? GATE_END : GATE_OK);
	}
	assert_int_equal(at, a->nr);
}

/* A list whose size is a multiple of a datagram's, and an empty one. */
static void lists_of_awkward_lengths(void **state)
{
	static const unsigned size[] = {0, 1, 63, 64, 65, 128};
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	unsigned holes = 0;

	for (unsigned i = 0; i < sizeof(size) / sizeof(size[0]); i++) {
		size_t n;

		while (holes < size[i]) {
			assert_int_equal(ask(a, open_request("198.18.100.2:22")).status, GATE_OK);
			holes++;
		}
		n = a->nr;
		send_request(a, list);
		assert_true(WITHIN(b, 10000, a->nr > n && a->r[a->nr - 1].status == GATE_END));
		assert_int_equal(a->nr - n, holes + 1);
	}
}

/* Two lists of one tenant at once, the first one's connection ending in the middle. */
static void lists_of_one_tenant_take_turns(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *c = agent(b, 1, 1), *d = agent(b, 2, 1);

	for (unsigned i = 0; i < 500; i++)
		send_request(a, open_request("198.18.100.2:22"));
	assert_true(WITHIN(b, 10000, a->nr == 500));
	send_request(a, list);
	send_request(c, list);
	send_request(d, list);
	peer_close(a->c);
	assert_true(WITHIN(b, 10000, c->nr == 501 && d->nr == 501));
	for (unsigned i = 0; i < 500; i++)
		assert_int_equal(c->r[i].hole, d->r[i].hole);
}

/* One agent asks without end and takes no answer: the other tenant is served at once, and what is kept for the deaf one is bounded. */
static void a_deaf_flood_holds_nobody_back(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *other = agent(b, 1, 2);
	uint64_t start_ms;
	size_t n = 0;

	a->deaf = true;
	peer_pause(a->c);
	/* Past what the kernel's buffers of both directions hold. */
	while (n < 36000 && peer_send_queued(a->c) < PEER_SEND_QUEUE_MAX - 65536) {
		send_request(a, ping);
		n++;
	}
	for (unsigned i = 0; i < 50; i++) {
		start_ms = wn_now_ms();
		assert_int_equal(ask(other, ping).status, GATE_OK);
		assert_true(wn_now_ms() - start_ms < 1000);
	}
	a->deaf = false;
	peer_resume(a->c);
	assert_true(WITHIN(b, 30000, a->nr == n));
	for (size_t i = 0; i < n; i++)
		assert_int_equal(a->r[i].seq, i + 1);
}

/* A short question with a long answer, asked again and again by one who does not listen: the answers wait at the writer, not in our memory
 * (the connection would be cut for a full queue). */
static void a_deaf_lister_is_not_answered_ahead(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *other = agent(b, 1, 2);

	for (unsigned i = 0; i < 5000; i++)
		send_request(a, open_request("198.18.100.2:22"));
	assert_true(WITHIN(b, 30000, a->nr == 5000));
	a->deaf = true;
	peer_pause(a->c);
	for (unsigned i = 0; i < 20; i++)
		send_request(a, list);
	for (unsigned i = 0; i < 200; i++)
		assert_int_equal(ask(other, ping).status, GATE_OK);
	a->deaf = false;
	peer_resume(a->c);
	assert_true(WITHIN(b, 30000, a->nr == 5000 + 20 * 5001));
	assert_int_equal(a->downs, 0);
}

static void a_fifth_connection_ends_the_oldest(void **state)
{
	struct bench *b = *state;

	for (unsigned i = 0; i <= GATE_AGENTS_PER_TENANT; i++)
		assert_int_equal(ask(agent(b, i, 1), ping).status, GATE_OK);
	assert_true(WITHIN(b, 10000, b->agent[0].downs == 1));
	for (unsigned i = 1; i <= GATE_AGENTS_PER_TENANT; i++)
		assert_int_equal(ask(&b->agent[i], ping).status, GATE_OK);
}

/* One that asks stays, one that does not is closed. */
static void a_silent_connection_is_closed(void **state)
{
	struct bench *b = *state;
	struct agent *silent = agent(b, 0, 1), *other = agent(b, 1, 2);

	assert_int_equal(ask(silent, ping).status, GATE_OK);
	ahead_ms += GATE_IDLE_MS - 2000;
	assert_int_equal(ask(other, ping).status, GATE_OK);
	assert_false(WITHIN(b, 1100, silent->downs > 0));
	ahead_ms += 2000;
	assert_true(WITHIN(b, 5000, silent->downs == 1));
	assert_int_equal(silent->reason, 0);
	assert_int_equal(ask(other, ping).status, GATE_OK);
}

/* A request that arrives byte by byte is one request. */
static void requests_in_pieces(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	struct gate_request r = ping;
	uint8_t w[GATE_REQUEST_BYTES];

	for (unsigned k = 0; k < 3; k++) {
		r.seq = ++a->seq;
		gate_request_encode(&r, w);
		for (size_t i = 0; i < sizeof(w); i++) {
			assert_int_equal(peer_send(a->c, w + i, 1), 0);
			uv_run(&b->loop, UV_RUN_NOWAIT);
		}
	}
	assert_true(WITHIN(b, 10000, a->nr == 3));
}

static void on_ctl_read(uv_poll_t *p, int status, int events)
{
	struct bench *b = p->data;
	uv_os_fd_t fd;
	ssize_t n;

	(void)status;
	(void)events;
	uv_fileno((uv_handle_t *)p, &fd);
	n = read(fd, b->line + b->nline, sizeof(b->line) - 1 - b->nline);
	assert_true(n > 0);
	b->nline += (size_t)n;
	b->line[b->nline] = 0;
}

/* The operator's socket, on the same loop. */
static json_t *ctl(struct bench *b, const char *request)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	uv_poll_t p;
	json_t *j;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", b->cfg.socket);
	assert_int_equal(connect(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(write(fd, request, strlen(request)), strlen(request));
	assert_int_equal(write(fd, "\n", 1), 1);
	b->nline = 0;
	uv_poll_init(&b->loop, &p, fd);
	p.data = b;
	uv_poll_start(&p, UV_READABLE, on_ctl_read);
	assert_true(WITHIN(b, 10000, b->nline > 0 && b->line[b->nline - 1] == '\n'));
	uv_close((uv_handle_t *)&p, NULL);
	uv_run(&b->loop, UV_RUN_NOWAIT);
	close(fd);
	j = json_loads(b->line, 0, NULL);
	assert_non_null(j);
	return j;
}

static json_int_t number(const json_t *j, const char *a, const char *k)
{
	const json_t *v = json_object_get(a != NULL ? json_object_get(j, a) : j, k);

	assert_true(json_is_integer(v));
	return json_integer_value(v);
}

static void the_operator_sees_all(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1), *c = agent(b, 1, 2);
	struct gate_request udp = open_request("198.18.101.7:53");
	json_t *j, *h;

	ask(a, ping);
	for (unsigned i = 0; i < 130; i++)
		assert_int_equal(ask(a, open_request("198.18.100.2:22")).status, GATE_OK);
	udp.proto = IPPROTO_UDP;
	udp.flags = GATE_FLAG_TAG;
	udp.key[3] = 1;
	assert_int_equal(ask(c, udp).status, GATE_OK);

	j = ctl(b, "{\"cmd\":\"status\"}");
	assert_true(json_is_true(json_object_get(j, "ok")));
	assert_string_equal(json_string_value(json_object_get(j, "role")), "gate");
	assert_int_equal(number(j, "drops", "no_hole"), 7);
	assert_int_equal(number(j, "drops", "fragment"), 3);
	assert_int_equal(number(j, "passed", "to_service"), 131);
	assert_int_equal(number(j, NULL, "flows"), 5);
	assert_int_equal(number(j, NULL, "holes"), 131);
	assert_int_equal(number(j, "link", "heartbeat_bytes"), GATE_REQUEST_BYTES + GATE_REPLY_BYTES);
	assert_int_equal(number(j, "link", "bytes"), 131 * (GATE_REQUEST_BYTES + GATE_REPLY_BYTES));
	assert_int_equal(number(j, "answers", "ok"), 132);
	h = json_array_get(json_object_get(j, "tenants"), 1);
	assert_string_equal(json_string_value(json_object_get(h, "name")), "example1.org");
	assert_int_equal(number(h, NULL, "agents"), 1);
	json_decref(j);

	j = ctl(b, "{\"cmd\":\"holes\"}");
	assert_true(json_is_true(json_object_get(j, "ok")));
	h = json_object_get(j, "holes");
	assert_int_equal(json_array_size(h), 131);
	h = json_array_get(h, 130);
	assert_string_equal(json_string_value(json_object_get(h, "tenant")), "example1.org");
	assert_string_equal(json_string_value(json_object_get(h, "protocol")), "udp");
	assert_string_equal(json_string_value(json_object_get(h, "inside")), "198.18.101.7:53");
	assert_string_equal(json_string_value(json_object_get(h, "user")), "alice");
	assert_true(json_is_true(json_object_get(h, "tag")));
	assert_null(json_object_get(h, "key"));
	json_decref(j);

	j = ctl(b, "{\"cmd\":\"holes!\"}");
	assert_true(json_is_false(json_object_get(j, "ok")));
	json_decref(j);
}

static void the_parser_notices_the_writers_end(void **state)
{
	struct bench *b = *state;
	struct agent *a = agent(b, 0, 1);
	int status;

	assert_int_equal(ask(a, ping).status, GATE_OK);
	assert_int_equal(kill(b->writer, SIGKILL), 0);
	assert_int_equal(waitpid(b->writer, &status, 0), b->writer);
	b->writer = 0;
	assert_true(WITHIN(b, 1000, b->ended != 0));
	assert_int_equal(b->ended, -EPIPE);
}

/* A writer alone, and a parser that the test plays. */
static pid_t lone_writer(struct bench *b, int *fd)
{
	pid_t parser = b->writer, pid;
	int old = b->fd;

	start_writer(b);
	pid = b->writer;
	*fd = b->fd;
	b->writer = parser;
	b->fd = old;
	return pid;
}

static int exit_status(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void the_writer_notices_a_killed_parser(void **state)
{
	struct bench *b = *state;
	int fd, status;
	pid_t writer = lone_writer(b, &fd), parser = fork();

	assert_true(parser >= 0);
	if (parser == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	close(fd);
	assert_int_equal(kill(parser, SIGKILL), 0);
	assert_int_equal(waitpid(parser, &status, 0), parser);
	assert_int_equal(exit_status(writer), 7);
}

static void talk(int fd, const void *q, size_t n, struct gate_ipc_reply *a, size_t want)
{
	size_t got = 0;

	assert_int_equal(send(fd, q, n, 0), n);
	while (got < want) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t k;

		assert_int_equal(poll(&p, 1, 10000), 1);
		k = recv(fd, &a[got], (want - got) * sizeof(a[0]), 0);
		assert_true(k > 0 && (size_t)k % sizeof(a[0]) == 0);
		got += (size_t)k / sizeof(a[0]);
	}
}

/* What a parser that was taken over could send. */
static void the_writer_trusts_no_record(void **state)
{
	struct bench *b = *state;
	struct gate_ipc_request q[4] = {{.kind = GATE_IPC_APPLY, .token = 5}};
	struct gate_ipc_reply a[4];
	int fd;
	pid_t writer = lone_writer(b, &fd);

	q[0].r = open_request("198.18.100.2:22");
	q[1] = q[2] = q[3] = q[0];
	q[0].r.tenant = 2;
	q[1].r.tenant = UINT32_MAX;
	q[2].r.proto = IPPROTO_ICMP;
	q[3].r.lifetime_s = 86401;
	talk(fd, q, sizeof(q), a, 4);
	assert_int_equal(a[0].r.status, GATE_NOT_YOURS);
	assert_int_equal(a[1].r.status, GATE_NOT_YOURS);
	assert_int_equal(a[2].r.status, GATE_BAD_RECORD);
	assert_int_equal(a[3].r.status, GATE_BAD_RECORD);
	assert_int_equal(a[0].token, 5);

	memset(q[0].r.user, 'a', sizeof(q[0].r.user));
	q[0].r.tenant = 0;
	q[1].r = (struct gate_request){.op = GATE_LIST};
	q[2].r = (struct gate_request){.op = 99};
	q[3] = (struct gate_ipc_request){.kind = GATE_IPC_LIST, .r = {.tenant = 2}};
	talk(fd, q, sizeof(q), a, 4);
	assert_int_equal(a[0].r.status, GATE_BAD_RECORD);
	assert_int_equal(a[1].r.status, GATE_BAD_RECORD);
	assert_int_equal(a[2].r.status, GATE_BAD_RECORD);
	assert_int_equal(a[2].r.op, 0);
	assert_int_equal(a[3].r.status, GATE_NOT_YOURS);

	/* Half a record ends the conversation. */
	assert_int_equal(send(fd, q, sizeof(q[0]) - 1, 0), sizeof(q[0]) - 1);
	assert_int_equal(exit_status(writer), 8);
	close(fd);

	writer = lone_writer(b, &fd);
	q[0] = (struct gate_ipc_request){.kind = 77};
	assert_int_equal(send(fd, q, sizeof(q[0]), 0), sizeof(q[0]));
	assert_int_equal(exit_status(writer), 8);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
		T(open_renew_close),
		T(ping_tells_the_tables),
		T(a_stranger_gets_no_further_than_the_handshake),
		T(a_gap_in_the_sequence_ends_the_connection),
		T(a_bad_record_is_answered_in_its_place),
		T(another_tenants_hole_is_out_of_reach),
		T(a_quota_is_a_tenants_own),
		T(answers_keep_the_order),
		T(lists_of_awkward_lengths),
		T(lists_of_one_tenant_take_turns),
		T(a_deaf_flood_holds_nobody_back),
		T(a_deaf_lister_is_not_answered_ahead),
		T(a_fifth_connection_ends_the_oldest),
		T(a_silent_connection_is_closed),
		T(requests_in_pieces),
		T(the_operator_sees_all),
		T(the_parser_notices_the_writers_end),
		T(the_writer_notices_a_killed_parser),
		T(the_writer_trusts_no_record),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
