/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream_hop.h"

/* A next hop on loopback; the clock is the test's. */

#define WAIT_MS 8000
#define TAG     77u

static struct {
	struct stream_hop *h;
	int epoll, listening, peer;
	struct wn_addr addr, own;
	uint64_t now_ms;
	unsigned ups, downs, got;
	char text[4096];
	size_t n;
} t;

static void on_state(void *arg, const struct wn_addr *own)
{
	assert_ptr_equal(arg, &t);
	if (own != NULL) {
		t.ups++;
		t.own = *own;
	} else {
		t.downs++;
	}
}

static void on_message(void *arg, struct span msg)
{
	(void)arg;
	t.got++;
	assert_true(msg.n <= sizeof(t.text));
	memcpy(t.text, msg.p, msg.n);
	t.n = msg.n;
}

/* Hands the next events over; false: none within so long. */
static bool turn(int wait_ms)
{
	struct epoll_event ev;

	if (epoll_wait(t.epoll, &ev, 1, wait_ms) != 1)
		return false;
	assert_int_equal(ev.data.u32, TAG);
	stream_hop_event(t.h, ev.events, t.now_ms);
	return true;
}

#define AWAIT(so)                                   \
	do {                                        \
		while (!(so))                       \
			assert_true(turn(WAIT_MS)); \
	} while (0)

static void listen_again(void)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&t.addr, &ss);
	const int one = 1;

	t.listening = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(setsockopt(t.listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
	assert_int_equal(bind(t.listening, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(listen(t.listening, 4), 0);
	assert_int_equal(getsockname(t.listening, (struct sockaddr *)&ss, &len), 0);
	wn_addr_from_sockaddr(&t.addr, &ss);
}

static int setup(void **state)
{
	struct stream_hop_options opt = {.tag = TAG, .state = on_state, .message = on_message, .arg = &t};

	(void)state;
	memset(&t, 0, sizeof(t));
	t.peer = -1;
	t.now_ms = 1000000;
	t.epoll = epoll_create1(EPOLL_CLOEXEC);
	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.1:0"), 0, &t.addr), 0);
	listen_again();
	opt.epoll = t.epoll;
	opt.to = t.addr;
	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.5:5060"), 0, &opt.from), 0);
	return stream_hop_new(&opt, &t.h);
}

static int teardown(void **state)
{
	(void)state;
	stream_hop_free(t.h);
	close(t.epoll);
	close(t.listening);
	if (t.peer >= 0)
		close(t.peer);
	return 0;
}

static void tick(void)
{
	stream_hop_tick(t.h, t.now_ms);
}

static void connected(void)
{
	unsigned before = t.ups;
	struct timeval patience = {WAIT_MS / 1000, 0};

	tick();
	AWAIT(t.ups == before + 1);
	t.peer = accept(t.listening, NULL, NULL);
	assert_true(t.peer >= 0);
	assert_int_equal(setsockopt(t.peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
}

static size_t write_answer(char *to, size_t cap, unsigned number)
{
	return (size_t)snprintf(
		to, cap,
		"SIP/2.0 200 OK\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK%u\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>;tag=2\r\n"
		"Call-ID: %u\r\nCSeq: 1 INVITE\r\nContent-Length: 4\r\n\r\nbody",
		number, number);
}

static void test_there_and_back(void **state)
{
	char buf[2048], heard[16];
	size_t n = write_answer(buf, sizeof(buf), 1), both;
	struct wn_addr host;

	(void)state;
	assert_false(stream_hop_send(t.h, SPAN_LIT("early"), t.now_ms));
	connected();
	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.5:0"), 0, &host), 0);
	assert_true(wn_ip_eq(&t.own, &host));
	assert_true(t.own.port != 0 && t.own.port != 5060);
	assert_true(stream_hop_send(t.h, SPAN_LIT("hello"), t.now_ms));
	assert_int_equal(recv(t.peer, heard, 5, MSG_WAITALL), 5);
	assert_memory_equal(heard, "hello", 5);

	/* two in one, a line end before them, and the last in pieces */
	assert_int_equal(send(t.peer, "\r\n", 2, 0), 2);
	memcpy(buf + n, buf, n);
	both = 2 * n;
	assert_int_equal(send(t.peer, buf, both - 3, 0), both - 3);
	AWAIT(t.got == 1);
	assert_int_equal(t.n, n);
	assert_int_equal(send(t.peer, buf + both - 3, 3, 0), 3);
	AWAIT(t.got == 2);
	assert_memory_equal(t.text, buf, n);
}

static void test_it_goes_and_comes_back(void **state)
{
	(void)state;
	connected();
	close(t.peer);
	t.peer = -1;
	AWAIT(t.downs == 1);
	assert_false(stream_hop_send(t.h, SPAN_LIT("x"), t.now_ms));
	t.now_ms += STREAM_HOP_RETRY_MS - 1;
	tick();
	assert_false(turn(0));
	t.now_ms++;
	connected();
	assert_int_equal(t.ups, 2);
}

/* Each failure doubles the wait, up to a second; what it says makes it short again. */
static void test_backoff(void **state)
{
	uint64_t wait = STREAM_HOP_RETRY_MS;
	char buf[1024];
	size_t n = write_answer(buf, sizeof(buf), 1);

	(void)state;
	close(t.listening);
	tick();
	while (turn(100))
		;
	for (unsigned i = 0; i < 5; i++) {
		t.now_ms += wait - 1;
		tick();
		assert_false(turn(0));
		t.now_ms++;
		tick();
		while (turn(100))
			;
		wait = wait < STREAM_HOP_RETRY_MAX / 2 ? 2 * wait : STREAM_HOP_RETRY_MAX;
	}
	assert_int_equal(wait, STREAM_HOP_RETRY_MAX);
	assert_int_equal(t.ups + t.downs, 0);
	listen_again();
	t.now_ms += STREAM_HOP_RETRY_MAX;
	connected();
	assert_int_equal(send(t.peer, buf, n, 0), n);
	AWAIT(t.got == 1);
	close(t.peer);
	AWAIT(t.downs == 1);
	t.now_ms += STREAM_HOP_RETRY_MS;
	connected();
}

static void test_lost_framing(void **state)
{
	(void)state;
	connected();
	assert_int_equal(send(t.peer, "no SIP at all\r\n\r\n", 17, 0), 17);
	AWAIT(t.downs == 1);
	assert_int_equal(t.got, 0);
}

static void test_the_queue_has_an_end_and_a_deadline(void **state)
{
	static char block[8192], in[65536];
	size_t sent = 0, read = 0;

	(void)state;
	connected();
	for (unsigned i = 0; i < 100000; i++) {
		memset(block, (int)(i % 251), sizeof(block));
		if (!stream_hop_send(t.h, span_of(block, sizeof(block)), t.now_ms))
			break;
		sent += sizeof(block);
	}
	assert_int_equal(t.downs, 0);
	assert_false(stream_hop_send(t.h, span_of(block, sizeof(block)), t.now_ms));
	while (read < sent) {
		ssize_t n = recv(t.peer, in, sizeof(in), MSG_DONTWAIT);

		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((uint8_t)in[i], (read + (size_t)i) / sizeof(block) % 251);
		if (n > 0)
			read += (size_t)n;
		else
			turn(10);
	}
	/* and one that takes nothing for too long is given up */
	while (stream_hop_send(t.h, span_of(block, sizeof(block)), t.now_ms))
		;
	t.now_ms += STREAM_HOP_STALLED_MS - 1;
	tick();
	assert_int_equal(t.downs, 0);
	t.now_ms++;
	tick();
	assert_int_equal(t.downs, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_there_and_back),
		T(test_it_goes_and_comes_back),
		T(test_backoff),
		T(test_lost_framing),
		T(test_the_queue_has_an_end_and_a_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
