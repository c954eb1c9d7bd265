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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_pair, setup, teardown),
	};

	return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
