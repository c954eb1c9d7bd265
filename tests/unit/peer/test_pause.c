/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "peer/peer.h"

#define TOTAL (4u << 20)

struct bench {
	uv_loop_t loop;
	char dir[64];
	struct peer_identity *id[2];
	struct peer_pin pin[2];
	struct peer_listener *l;
	struct peer_conn *server, *client;
	size_t got, calls;
	bool client_up, one_at_a_time, inside, out_of_time;
	int client_downs, server_downs, server_reason;
};

static void server_up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)pin;
	((struct bench *)arg)->server = c;
}

static void server_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct bench *b = arg;

	assert_false(b->inside);
	b->inside = true;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p[i], (uint8_t)((b->got + i) % 251));
	b->got += n;
	b->calls++;
	if (b->one_at_a_time)
		peer_pause(c);
	b->inside = false;
}

static void server_down(struct peer_conn *c, int reason, void *arg)
{
	struct bench *b = arg;

	(void)c;
	b->server = NULL;
	b->server_downs++;
	b->server_reason = reason;
}

static void client_up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)c;
	(void)pin;
	((struct bench *)arg)->client_up = true;
}

static void client_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	(void)c;
	(void)p;
	(void)n;
	(void)arg;
}

static void client_down(struct peer_conn *c, int reason, void *arg)
{
	struct bench *b = arg;

	(void)c;
	(void)reason;
	b->client = NULL;
	b->client_downs++;
}

static const struct peer_events server_events = {server_up, server_data, server_down};
static const struct peer_events client_events = {client_up, client_data, client_down};

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

static int setup(void **state)
{
	struct bench *b = calloc(1, sizeof(*b));
	struct peer_options opt = {.npins = 1};
	struct wn_addr addr;
	static uint8_t chunk[65536];

	assert_non_null(b);
	assert_true(sodium_init() >= 0);
	snprintf(b->dir, sizeof(b->dir), "/tmp/walnut-pause-XXXXXX");
	assert_non_null(mkdtemp(b->dir));
	for (int i = 0; i < 2; i++) {
		assert_int_equal(peer_identity_create(b->dir, i == 0 ? "front" : "agent", &b->pin[i]), 0);
		assert_int_equal(peer_identity_load(b->dir, i == 0 ? "front" : "agent", &b->id[i]), 0);
	}
	uv_loop_init(&b->loop);
	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &addr), 0);
	opt.pins = &b->pin[1];
	assert_int_equal(peer_listen(&b->loop, b->id[0], &addr, &opt, &server_events, b, &b->l), 0);
	assert_int_equal(peer_listener_addr(b->l, &addr), 0);
	opt.pins = &b->pin[0];
	assert_int_equal(peer_connect(&b->loop, b->id[1], &addr, &opt, &client_events, b, &b->client), 0);
	assert_true(WITHIN(b, 10000, b->client_up && b->server != NULL));

	for (size_t done = 0; done < TOTAL; done += sizeof(chunk)) {
		for (size_t i = 0; i < sizeof(chunk); i++)
			chunk[i] = (uint8_t)((done + i) % 251);
		assert_int_equal(peer_send(b->client, chunk, sizeof(chunk)), 0);
	}
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bench *b = *state;
	char path[128];

	if (b->client != NULL)
		peer_close(b->client);
	if (b->server != NULL)
		peer_close(b->server);
	peer_listener_close(b->l);
	uv_run(&b->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&b->loop), 0);
	for (int i = 0; i < 2; i++) {
		peer_identity_free(b->id[i]);
		snprintf(path, sizeof(path), "%s/%s.key", b->dir, i == 0 ? "front" : "agent");
		unlink(path);
		snprintf(path, sizeof(path), "%s/%s.crt", b->dir, i == 0 ? "front" : "agent");
		unlink(path);
	}
	rmdir(b->dir);
	free(b);
	return 0;
}

/* One call of `data`, then silence, and the other side's queue stands still. */
static void nothing_comes_while_paused(void **state)
{
	struct bench *b = *state;
	size_t queued;

	b->one_at_a_time = true;
	assert_true(WITHIN(b, 10000, b->calls == 1));
	assert_false(WITHIN(b, 200, b->calls > 1));
	queued = peer_send_queued(b->client);
	assert_true(queued > 0);
	assert_false(WITHIN(b, 100, b->calls > 1));
	assert_int_equal(peer_send_queued(b->client), queued);
}

/* Pausing after each call loses and repeats nothing, also what OpenSSL held when it came. */
static void resuming_loses_nothing(void **state)
{
	struct bench *b = *state;

	b->one_at_a_time = true;
	while (b->got < TOTAL) {
		size_t calls = b->calls;

		peer_resume(b->server);
		assert_int_equal(b->calls, calls);
		assert_true(WITHIN(b, 10000, b->calls == calls + 1));
	}
	assert_int_equal(b->got, TOTAL);
}

static void a_paused_connection_can_be_closed(void **state)
{
	struct bench *b = *state;

	b->one_at_a_time = true;
	assert_true(WITHIN(b, 10000, b->calls == 1));
	peer_close(b->server);
	assert_true(WITHIN(b, 10000, b->server_downs == 1 && b->client_downs == 1));
	assert_int_equal(b->server_reason, -ECANCELED);
	assert_int_equal(b->calls, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(nothing_comes_while_paused, setup, teardown),
		cmocka_unit_test_setup_teardown(resuming_loses_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_paused_connection_can_be_closed, setup, teardown),
	};

	return cmocka_run_group_tests_name("pause", tests, NULL, NULL);
}
