/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer/peer.h"

#define ENDS 40

/* What one side has seen of one connection. */
struct end {
	struct peer_conn *c;
	int ups, downs, reason;
	unsigned pin;
	uint8_t *got;
	size_t ngot, cap;
};

struct bench {
	uv_loop_t loop;
	char dir[64];
	struct peer_identity *id[3]; /* front, agent, other */
	struct peer_pin pin[3];
	struct peer_listener *l;
	struct wn_addr addr;
	struct end server[ENDS], client[ENDS];
	unsigned nserver;
	bool echo;
};

static const char *const role[3] = {"front", "agent", "other"};

static struct end *server_end(struct bench *b, struct peer_conn *c)
{
	struct end *e = (struct end *)peer_user(c);

	if (e == NULL) {
		assert_true(b->nserver < ENDS);
		e = &b->server[b->nserver++];
		e->c = c;
		peer_set_user(c, e);
	}
	return e;
}

static void take(struct end *e, const uint8_t *p, size_t n)
{
	if (e->ngot + n > e->cap) {
		e->cap = (e->ngot + n) * 2;
		e->got = (uint8_t *)realloc(e->got, e->cap);
		assert_non_null(e->got);
	}
	memcpy(e->got + e->ngot, p, n);
	e->ngot += n;
}

static void server_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct end *e = server_end((struct bench *)arg, c);

	e->ups++;
	e->pin = pin;
}

static void server_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct bench *b = (struct bench *)arg;

	take(server_end(b, c), p, n);
	if (b->echo)
		assert_int_equal(peer_send(c, p, n), 0);
}

static void server_down(struct peer_conn *c, int reason, void *arg)
{
	struct end *e = server_end((struct bench *)arg, c);

	e->downs++;
	e->reason = reason;
	e->c = NULL;
	assert_int_equal(peer_send(c, "x", 1), -ENOTCONN);
	peer_close(c); /* without effect */
}

static void client_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct end *e = (struct end *)arg;

	e->ups++;
	e->pin = pin;
	assert_ptr_equal(e->c, c);
}

static void client_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	(void)c;
	take((struct end *)arg, p, n);
}

static void client_down(struct peer_conn *c, int reason, void *arg)
{
	struct end *e = (struct end *)arg;

	(void)c;
	e->downs++;
	e->reason = reason;
	e->c = NULL;
}

static const struct peer_events server_events = {server_up, server_data, server_down};
static const struct peer_events client_events = {client_up, client_data, client_down};

static void out_of_time(uv_timer_t *t)
{
	(void)t;
	fail_msg("nothing more happens");
}

/* Runs the loop until `cond`; ten seconds at most. */
#define UNTIL(b, cond)                                          \
	do {                                                    \
		uv_timer_t limit_;                              \
		uv_timer_init(&(b)->loop, &limit_);             \
		uv_timer_start(&limit_, out_of_time, 10000, 0); \
		while (!(cond))                                 \
			uv_run(&(b)->loop, UV_RUN_ONCE);        \
		uv_close((uv_handle_t *)&limit_, NULL);         \
		uv_run(&(b)->loop, UV_RUN_NOWAIT);              \
	} while (0)

static int setup(void **state)
{
	struct bench *b = (struct bench *)calloc(1, sizeof(*b));

	assert_non_null(b);
	assert_true(sodium_init() >= 0);
	snprintf(b->dir, sizeof(b->dir), "/tmp/walnut-peer-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(peer_identity_create(b->dir, role[i], &b->pin[i]), 0);
		assert_int_equal(peer_identity_load(b->dir, role[i], &b->id[i]), 0);
	}
	uv_loop_init(&b->loop);
	*state = b;
	return 0;
}

static void start(struct bench *b, const struct peer_options *opt)
{
	struct wn_addr any;

	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &any), 0);
	assert_int_equal(peer_listen(&b->loop, b->id[0], &any, opt, &server_events, b, &b->l), 0);
	assert_int_equal(peer_listener_addr(b->l, &b->addr), 0);
}

static int teardown(void **state)
{
	struct bench *b = (struct bench *)*state;
	char path[128];

	for (unsigned i = 0; i < ENDS; i++) {
		if (b->client[i].c != NULL)
			peer_close(b->client[i].c);
		if (b->server[i].c != NULL)
			peer_close(b->server[i].c);
	}
	if (b->l != NULL)
		peer_listener_close(b->l);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	for (unsigned i = 0; i < ENDS; i++) {
		assert_true(b->server[i].downs == (i < b->nserver ? 1 : 0));
		assert_true(b->client[i].downs <= 1);
		free(b->server[i].got);
		free(b->client[i].got);
	}
	for (int i = 0; i < 3; i++) {
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

/* The listener takes `agent` as its second pin. */
static void start_usual(struct bench *b)
{
	struct peer_pin pins[2] = {b->pin[0], b->pin[1]};
	struct peer_options opt = {.pins = pins, .npins = 2};

	start(b, &opt);
}

static struct end *dial(struct bench *b, unsigned i, int who, const struct peer_pin *expect)
{
	struct peer_options opt = {.pins = expect, .npins = 1};

	assert_int_equal(peer_connect(&b->loop, b->id[who], &b->addr, &opt, &client_events, &b->client[i], &b->client[i].c), 0);
	return &b->client[i];
}

static void good_pair(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct end *c, *s = &b->server[0];

	start_usual(b);
	c = dial(b, 0, 1, &b->pin[0]);
	assert_int_equal(peer_send(c->c, "early", 5), -ENOTCONN);
	UNTIL(b, c->ups && s->ups);
	assert_int_equal(c->pin, 0);
	assert_int_equal(s->pin, 1);
	assert_true(wn_ip_eq(peer_remote(s->c), &b->addr));
	assert_int_equal(peer_send(c->c, "hello", 5), 0);
	UNTIL(b, s->ngot == 5);
	assert_memory_equal(s->got, "hello", 5);
	/* What was sent before the close arrives, then an orderly end. */
	assert_int_equal(peer_send(s->c, "bye", 3), 0);
	peer_close(s->c);
	peer_close(s->c);
	assert_int_equal(peer_send(s->c, "x", 1), -ENOTCONN);
	UNTIL(b, c->downs && s->downs);
	assert_int_equal(c->ngot, 3);
	assert_int_equal(c->reason, 0);
	assert_int_equal(s->reason, -ECANCELED);
	assert_int_equal(c->ups, 1);
	assert_int_equal(s->ups, 1);
}

static void wrong_pin_at_the_listener(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct end *c, *s = &b->server[0];

	start_usual(b);
	c = dial(b, 0, 2, &b->pin[0]);
	UNTIL(b, c->downs && s->downs);
	assert_int_equal(s->ups, 0);
	assert_int_equal(s->reason, -EACCES);
	assert_int_equal(c->reason, -EACCES);
	assert_int_equal(s->ngot, 0);
}

static void wrong_pin_at_the_connecting_side(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct end *c, *s = &b->server[0];

	start_usual(b);
	c = dial(b, 0, 1, &b->pin[2]);
	UNTIL(b, c->downs && s->downs);
	assert_int_equal(c->ups, 0);
	assert_int_equal(c->reason, -EACCES);
	assert_int_equal(s->ups, 0);
	assert_int_equal(s->reason, -EACCES);
}

static void no_pin_means_nobody(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options none = {.npins = 0};
	struct end *c, *s = &b->server[0];

	start(b, &none);
	c = dial(b, 0, 1, &b->pin[0]);
	UNTIL(b, c->downs && s->downs);
	assert_int_equal(s->ups, 0);
	assert_int_equal(s->reason, -EACCES);
}

/* A blocking OpenSSL client that is not ours, on a thread of the pool. */
struct foreign {
	uv_work_t work;
	struct wn_addr addr;
	const char *crt, *key; /* NULL: none */
	long max_version;
	int connected, read, resumable;
	int done;
};

static void foreign_run(uv_work_t *w)
{
	struct foreign *f = (struct foreign *)w->data;
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&f->addr, &ss);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl;
	char buf[16];
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (f->max_version != 0)
		SSL_CTX_set_max_proto_version(ctx, f->max_version);
	if (f->crt != NULL) {
		SSL_CTX_use_certificate_file(ctx, f->crt, SSL_FILETYPE_PEM);
		SSL_CTX_use_PrivateKey_file(ctx, f->key, SSL_FILETYPE_PEM);
	}
	ssl = SSL_new(ctx);
	if (connect(fd, (struct sockaddr *)&ss, len) == 0) {
		SSL_set_fd(ssl, fd);
		f->connected = SSL_connect(ssl) == 1;
		SSL_write(ssl, "hi", 2);
		f->read = SSL_read(ssl, buf, sizeof(buf));
		f->resumable = SSL_SESSION_is_resumable(SSL_get0_session(ssl));
	}
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
}

static void foreign_done(uv_work_t *w, int status)
{
	(void)status;
	((struct foreign *)w->data)->done = 1;
}

static void foreign_start(struct bench *b, struct foreign *f)
{
	f->addr = b->addr;
	f->work.data = f;
	uv_queue_work(&b->loop, &f->work, foreign_run, foreign_done);
}

static void without_a_certificate(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct foreign f = {0};

	start_usual(b);
	foreign_start(b, &f);
	UNTIL(b, f.done && b->server[0].downs);
	assert_true(f.read <= 0);
	assert_int_equal(b->server[0].ups, 0);
	assert_int_equal(b->server[0].reason, -EPROTO);
}

static void tls_1_2(void **state)
{
	struct bench *b = (struct bench *)*state;
	char crt[128], key[128];
	struct foreign f = {.crt = crt, .key = key, .max_version = TLS1_2_VERSION}, g = {.crt = crt, .key = key};

	snprintf(crt, sizeof(crt), "%s/agent.crt", b->dir);
	snprintf(key, sizeof(key), "%s/agent.key", b->dir);
	start_usual(b);
	foreign_start(b, &f);
	UNTIL(b, f.done && b->server[0].downs);
	assert_false(f.connected);
	assert_int_equal(b->server[0].reason, -EPROTO);
	/* The same client with TLS 1.3 is let in, so it was the version. */
	b->echo = true;
	foreign_start(b, &g);
	UNTIL(b, g.done && b->server[1].downs);
	assert_true(g.connected);
	assert_int_equal(g.read, 2);
	assert_int_equal(g.resumable, 0); /* no tickets: every connection proves its key afresh */
	assert_int_equal(b->server[1].ups, 1);
}

static int raw_connect(const struct bench *b)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&b->addr, &ss);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

static void plaintext_garbage(void **state)
{
	struct bench *b = (struct bench *)*state;
	int fd;

	start_usual(b);
	fd = raw_connect(b);
	assert_int_equal(send(fd, "REGISTER sip:example.org SIP/2.0\r\n\r\n", 36, 0), 36);
	UNTIL(b, b->server[0].downs);
	assert_int_equal(b->server[0].ups, 0);
	assert_int_equal(b->server[0].reason, -EPROTO);
	close(fd);
}

static void half_open_handshake(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options opt = {.pins = b->pin, .npins = 2, .handshake_ms = 50};
	uint64_t t = uv_hrtime();
	int fd;

	start(b, &opt);
	fd = raw_connect(b);
	assert_int_equal(send(fd, "\x16\x03\x01", 3, 0), 3);
	UNTIL(b, b->server[0].downs);
	assert_int_equal(b->server[0].reason, -ETIMEDOUT);
	assert_true(uv_hrtime() - t < 3000000000u);
	close(fd);
}

static void mute_listener(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options opt = {.pins = b->pin, .npins = 1, .handshake_ms = 50};
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	wn_addr_from_sockaddr(&b->addr, &ss);
	assert_int_equal(peer_connect(&b->loop, b->id[1], &b->addr, &opt, &client_events, &b->client[0], &b->client[0].c), 0);
	UNTIL(b, b->client[0].downs);
	assert_int_equal(b->client[0].reason, -ETIMEDOUT);
	close(fd);
	/* And nobody at all. */
	dial(b, 1, 1, &b->pin[0]);
	assert_int_equal(b->client[1].downs, 0); /* never from inside the call */
	UNTIL(b, b->client[1].downs);
	assert_int_equal(b->client[1].reason, -ECONNREFUSED);
}

static void strangers_push_out_each_other_only(void **state)
{
	struct bench *b = (struct bench *)*state;
	int fd[PEER_UNFINISHED_MAX + 4];
	struct end *c;

	start_usual(b);
	c = dial(b, 0, 1, &b->pin[0]);
	UNTIL(b, c->ups && b->server[0].ups);
	for (int i = 0; i < PEER_UNFINISHED_MAX; i++)
		fd[i] = raw_connect(b);
	for (int i = 0; i < 4; i++) {
		fd[PEER_UNFINISHED_MAX + i] = raw_connect(b);
		UNTIL(b, b->nserver == 2 + (unsigned)i);
		assert_int_equal(b->server[1 + i].downs, 1);
		assert_int_equal(b->server[1 + i].reason, -EBUSY);
		assert_int_equal(b->server[1 + i].ups, 0);
	}
	/* The oldest went: what is first in line hears its end, the last does not; a peer gets in all the same. */
	assert_true(recv(fd[0], (char[1]){0}, 1, 0) <= 0);
	assert_true(recv(fd[3], (char[1]){0}, 1, 0) <= 0);
	assert_int_equal(recv(fd[4], (char[1]){0}, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(b->server[0].downs, 0);
	c = dial(b, 1, 1, &b->pin[0]);
	UNTIL(b, c->ups);
	for (int i = 0; i < PEER_UNFINISHED_MAX + 4; i++)
		close(fd[i]);
}

static void no_more_than_allowed(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options opt = {.pins = b->pin, .npins = 2, .max_connections = 2};
	struct end *c[4];

	start(b, &opt);
	for (unsigned i = 0; i < 2; i++)
		c[i] = dial(b, i, 1, &b->pin[0]);
	UNTIL(b, c[0]->ups && c[1]->ups && b->server[0].ups && b->server[1].ups);
	c[2] = dial(b, 2, 1, &b->pin[0]);
	UNTIL(b, c[2]->downs && b->nserver == 3 && b->server[2].downs);
	assert_int_equal(b->server[2].reason, -EMFILE);
	assert_int_equal(b->server[2].ups, 0);
	assert_int_equal(b->server[0].downs + b->server[1].downs, 0);
	/* One leaves, one may come. */
	peer_close(c[0]->c);
	UNTIL(b, c[0]->downs && b->server[0].downs + b->server[1].downs == 1);
	c[3] = dial(b, 3, 1, &b->pin[0]);
	UNTIL(b, c[3]->ups && b->nserver == 4 && b->server[3].ups);
}

#define BULK (4u << 20)

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 1664525u + 1013904223u;
		p[i] = (uint8_t)(seed >> 24);
	}
}

static void four_megabytes_both_ways(void **state)
{
	struct bench *b = (struct bench *)*state;
	static const size_t size[] = {1, 17, 1399, 16383, 16384, 16385, 65537, 300001};
	uint8_t *up = (uint8_t *)malloc(BULK), *down = (uint8_t *)malloc(BULK);
	struct end *c, *s = &b->server[0];
	size_t sent_up = 0, sent_down = 0, k = 0;

	fill(up, BULK, 1);
	fill(down, BULK, 2);
	start_usual(b);
	c = dial(b, 0, 1, &b->pin[0]);
	UNTIL(b, c->ups && s->ups);
	while (sent_up < BULK || sent_down < BULK) {
		size_t n = size[k++ % 8];
		size_t a = BULK - sent_up < n ? BULK - sent_up : n, d = BULK - sent_down < n ? BULK - sent_down : n;

		assert_int_equal(peer_send(c->c, up + sent_up, a), 0);
		assert_int_equal(peer_send(s->c, down + sent_down, d), 0);
		sent_up += a;
		sent_down += d;
		uv_run(&b->loop, UV_RUN_NOWAIT);
	}
	UNTIL(b, c->ngot == BULK && s->ngot == BULK);
	assert_memory_equal(s->got, up, BULK);
	assert_memory_equal(c->got, down, BULK);
	/* Sent at once and closed behind it: all of it arrives. */
	assert_int_equal(peer_send(c->c, up, BULK), 0);
	peer_close(c->c);
	UNTIL(b, c->downs && s->downs);
	assert_int_equal(s->ngot, 2 * BULK);
	assert_memory_equal(s->got + BULK, up, BULK);
	assert_int_equal(s->reason, 0);
	free(up);
	free(down);
}

static void send_queue_limit(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options opt = {.pins = b->pin, .npins = 1, .send_queue_max = 1u << 20};
	uint8_t *block = (uint8_t *)calloc(1, 1u << 20);
	struct end *c = &b->client[0];
	size_t accepted = 0, queued;
	int rc = 0;

	start_usual(b);
	assert_int_equal(peer_connect(&b->loop, b->id[1], &b->addr, &opt, &client_events, c, &c->c), 0);
	UNTIL(b, c->ups && b->server[0].ups);
	assert_int_equal(peer_send(c->c, block, (1u << 20) + 1), -ENOBUFS);
	/* The loop does not run, so the receiver takes nothing. */
	for (int i = 0; i < 4096 && rc == 0; i++) {
		rc = peer_send(c->c, block, 65536);
		accepted += rc == 0 ? 65536 : 0;
		assert_true(peer_send_queued(c->c) <= (1u << 20) + (1u << 14));
	}
	assert_int_equal(rc, -ENOBUFS);
	queued = peer_send_queued(c->c);
	assert_int_equal(peer_send(c->c, block, 1u << 20), -ENOBUFS);
	assert_int_equal(peer_send_queued(c->c), queued);
	/* What was accepted arrives, and then there is room again. */
	UNTIL(b, b->server[0].ngot == accepted);
	assert_int_equal(peer_send(c->c, block, 1u << 20), 0);
	UNTIL(b, b->server[0].ngot == accepted + (1u << 20));
	free(block);
}

/* A peer in a process of its own that is killed: no goodbye. */
static void peer_killed(void **state)
{
	struct bench *b = (struct bench *)*state;
	pid_t pid;

	start_usual(b);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		uv_loop_t loop;
		static struct end e;
		struct peer_options opt = {.pins = b->pin, .npins = 1};

		alarm(20);
		uv_loop_init(&loop);
		peer_connect(&loop, b->id[1], &b->addr, &opt, &client_events, &e, &e.c);
		uv_run(&loop, UV_RUN_DEFAULT);
		_exit(0);
	}
	UNTIL(b, b->nserver == 1 && b->server[0].ups);
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	UNTIL(b, b->server[0].downs);
	assert_int_equal(b->server[0].reason, -ECONNRESET);
}

static void closed_before_it_is_up(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct end *c;

	start_usual(b);
	c = dial(b, 0, 1, &b->pin[0]);
	peer_close(c->c);
	assert_int_equal(c->downs, 0);
	UNTIL(b, c->downs);
	assert_int_equal(c->ups, 0);
	assert_int_equal(c->reason, -ECANCELED);
}

static void listener_closed_connections_live(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct end *c;

	start_usual(b);
	c = dial(b, 0, 1, &b->pin[0]);
	UNTIL(b, c->ups && b->server[0].ups);
	peer_listener_close(b->l);
	b->l = NULL;
	/* Nor does the identity have to live. */
	peer_identity_free(b->id[0]);
	b->id[0] = NULL;
	b->echo = true;
	assert_int_equal(peer_send(c->c, "still", 5), 0);
	UNTIL(b, c->ngot == 5);
	dial(b, 1, 1, &b->pin[0]);
	UNTIL(b, b->client[1].downs);
	assert_int_equal(b->client[1].reason, -ECONNREFUSED);
}

static void address_in_use(void **state)
{
	struct bench *b = (struct bench *)*state;
	struct peer_options opt = {.pins = b->pin, .npins = 1};
	struct peer_listener *two;

	start_usual(b);
	assert_int_equal(peer_listen(&b->loop, b->id[0], &b->addr, &opt, &server_events, b, &two), -EADDRINUSE);
	assert_null(two);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_pair, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_pin_at_the_listener, setup, teardown),
		cmocka_unit_test_setup_teardown(wrong_pin_at_the_connecting_side, setup, teardown),
		cmocka_unit_test_setup_teardown(no_pin_means_nobody, setup, teardown),
		cmocka_unit_test_setup_teardown(without_a_certificate, setup, teardown),
		cmocka_unit_test_setup_teardown(tls_1_2, setup, teardown),
		cmocka_unit_test_setup_teardown(plaintext_garbage, setup, teardown),
		cmocka_unit_test_setup_teardown(half_open_handshake, setup, teardown),
		cmocka_unit_test_setup_teardown(mute_listener, setup, teardown),
		cmocka_unit_test_setup_teardown(strangers_push_out_each_other_only, setup, teardown),
		cmocka_unit_test_setup_teardown(no_more_than_allowed, setup, teardown),
		cmocka_unit_test_setup_teardown(four_megabytes_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(send_queue_limit, setup, teardown),
		cmocka_unit_test_setup_teardown(peer_killed, setup, teardown),
		cmocka_unit_test_setup_teardown(closed_before_it_is_up, setup, teardown),
		cmocka_unit_test_setup_teardown(listener_closed_connections_live, setup, teardown),
		cmocka_unit_test_setup_teardown(address_in_use, setup, teardown),
	};

	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
