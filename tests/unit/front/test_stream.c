/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream.h"

/* Real sockets on loopback; the clock is the test's. */

#define WAIT_MS 8000
#define CLIENTS 300

static struct {
	struct front_streams *s;
	struct front_stream_limits limit;
	struct wn_addr addr;
	uint64_t now_ms;
	bool shut; /* no new connections */
	unsigned got;
	struct front_flow from[64]; /* the last of them */
	char text[16384];
	size_t n;
	const char *reply;
	bool trust;
	int fd[CLIENTS];
} t;

static void on_message(void *arg, const struct front_flow *from, struct span msg)
{
	assert_ptr_equal(arg, &t);
	t.from[t.got++ % 64] = *from;
	assert_true(msg.n <= sizeof(t.text));
	memcpy(t.text, msg.p, msg.n);
	t.n = msg.n;
	if (t.trust)
		front_streams_trust(t.s, from->id, t.now_ms);
	if (t.reply != NULL)
		front_streams_send(t.s, from, span_str(t.reply), t.now_ms);
}

static const struct front_flow *last(void)
{
	assert_true(t.got > 0);
	return &t.from[(t.got - 1) % 64];
}

static uint64_t count(enum front_stream_count c)
{
	return front_streams_count(t.s, c);
}

static void turn(void)
{
	front_streams_serve(t.s, t.now_ms, !t.shut);
}

/* Turns until it is so. */
#define AWAIT(so)                                                                       \
	do {                                                                            \
		struct pollfd await_ = {.fd = front_streams_fd(t.s), .events = POLLIN}; \
		for (turn(); !(so); turn())                                             \
			assert_int_equal(poll(&await_, 1, WAIT_MS), 1);                 \
	} while (0)

static void start_on(const char *addr, unsigned backlog)
{
	const struct front_streams_options opt = {.worker = 3, .limits = &t.limit, .backlog = backlog, .message = on_message, .arg = &t};
	struct sockaddr_storage ss;
	socklen_t len;
	int fd;

	assert_int_equal(wn_addr_parse(span_str(addr), 0, &t.addr), 0);
	/* a port that is free */
	len = wn_addr_to_sockaddr(&t.addr, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	close(fd);
	wn_addr_from_sockaddr(&t.addr, &ss);
	assert_int_equal(front_streams_new(&opt, &t.s), 0);
	assert_int_equal(front_streams_listen(t.s, FRONT_TCP, 5, &t.addr), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	for (unsigned i = 0; i < CLIENTS; i++)
		t.fd[i] = -1;
	t.limit = (struct front_stream_limits){.connections = 8,
					       .trusted = 6,
					       .per_address = 1000,
					       .buffers = 4,
					       .handshakes = 4,
					       .handshakes_per_s = 1000,
					       .due_ms = {3000, 5000, 10000, 600000, 7000}};
	t.now_ms = 1000000;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (t.fd[i] >= 0)
			close(t.fd[i]);
	front_streams_free(t.s);
	return 0;
}

static int dial_from(const char *source)
{
	struct timeval patience = {WAIT_MS / 1000, 0};
	struct sockaddr_storage ss;
	socklen_t len;
	struct wn_addr a;
	unsigned i = 0;
	int fd;

	while (t.fd[i] >= 0)
		i++;
	len = wn_addr_to_sockaddr(&t.addr, &ss);
	fd = t.fd[i] = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
	if (source != NULL) {
		struct sockaddr_storage from;
		assert_int_equal(wn_addr_parse(span_str(source), 0, &a), 0);
		len = wn_addr_to_sockaddr(&a, &from);
		assert_int_equal(bind(fd, (struct sockaddr *)&from, len), 0);
	}
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	return fd;
}

static int dial(void)
{
	return dial_from(NULL);
}

static void say(int fd, const void *p, size_t n)
{
	assert_int_equal(send(fd, p, n, MSG_NOSIGNAL), n);
}

/* A message whose body has so many bytes; returns its length. */
static size_t write_message(char *to, size_t cap, unsigned number, size_t body)
{
	int n = snprintf(to, cap,
			 "MESSAGE sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK%u\r\nFrom: <sip:a@b>;tag=1\r\n"
			 "To: <sip:a@example.org>\r\nCall-ID: %u\r\nCSeq: 1 MESSAGE\r\nContent-Length: %zu\r\n\r\n",
			 number, number, body);

	assert_true(n > 0 && (size_t)n + body < cap);
	memset(to + n, 'x', body);
	return (size_t)n + body;
}

static void say_message(int fd, unsigned number)
{
	char buf[1024];

	say(fd, buf, write_message(buf, sizeof(buf), number, 10));
}

/* How the front's end of it looks from here. */
static bool ended(int fd)
{
	char c;
	ssize_t n = recv(fd, &c, 1, 0);

	return n == 0 || (n < 0 && errno == ECONNRESET);
}

static bool alive(int fd)
{
	char c;

	return recv(fd, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void hear(int fd, const char *want)
{
	char buf[256];

	assert_true(strlen(want) < sizeof(buf));
	assert_int_equal(recv(fd, buf, strlen(want), MSG_WAITALL), strlen(want));
	assert_memory_equal(buf, want, strlen(want));
}

static void test_a_message_and_its_answer(void **state)
{
	struct sockaddr_in own;
	socklen_t len = sizeof(own);
	char buf[1024];
	size_t n;
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	fd = dial();
	t.reply = "SIP/2.0 200 OK\r\n\r\n";
	n = write_message(buf, sizeof(buf), 1, 20);
	say(fd, buf, n);
	AWAIT(t.got == 1);
	assert_int_equal(t.n, n);
	assert_memory_equal(t.text, buf, n);
	assert_int_equal(front_flow_transport(last()->id), FRONT_TCP);
	assert_int_equal(front_flow_listener(last()->id), 5);
	assert_int_equal(front_flow_worker(last()->id), 3);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&own, &len), 0);
	assert_int_equal(last()->addr.port, ntohs(own.sin_port));
	hear(fd, t.reply);
	close(fd);
	t.fd[0] = -1;
	AWAIT(count(FRONT_STREAM_closed_by_peer) == 1);
	assert_int_equal(front_streams_send(t.s, last(), SPAN_LIT("late"), t.now_ms), -ENOENT);
	assert_int_equal(count(FRONT_STREAM_flow_gone), 1);
}

/* The next one in the same place is somebody else. */
static void test_a_flow_is_one_connection(void **state)
{
	struct front_flow first, moved;

	(void)state;
	start_on("127.0.0.1", 16);
	say_message(dial(), 1);
	AWAIT(t.got == 1);
	first = *last();
	close(t.fd[0]);
	t.fd[0] = -1;
	AWAIT(count(FRONT_STREAM_closed_by_peer) == 1);
	say_message(dial(), 2);
	AWAIT(t.got == 2);
	assert_int_equal(front_flow_slot(first.id), front_flow_slot(last()->id));
	assert_true(first.id != last()->id);
	first.addr = last()->addr;
	assert_int_equal(front_streams_send(t.s, &first, SPAN_LIT("x"), t.now_ms), -ENOENT);
	moved = *last();
	moved.addr.port ^= 1;
	assert_int_equal(front_streams_send(t.s, &moved, SPAN_LIT("x"), t.now_ms), -ENOENT);
	moved.id ^= 1ull << 48; /* another worker's */
	moved.addr = last()->addr;
	assert_int_equal(front_streams_send(t.s, &moved, SPAN_LIT("x"), t.now_ms), -ENOENT);
	assert_int_equal(front_streams_send(t.s, last(), SPAN_LIT("x"), t.now_ms), 0);
	hear(t.fd[0], "x");
}

static void test_ipv6(void **state)
{
	(void)state;
	start_on("[::1]", 16);
	t.reply = "yes";
	say_message(dial(), 1);
	AWAIT(t.got == 1);
	assert_false(wn_addr_is4(&last()->addr));
	hear(t.fd[0], "yes");
}

/* However the bytes are cut, the messages are the same; line ends between them are no part of any. */
static void test_framing(void **state)
{
	static const size_t cut[] = {1, 2, 3, 7, 64, 100000};
	char buf[8192];
	size_t n = 0, body[] = {0, 10, 1500};

	(void)state;
	start_on("127.0.0.1", 16);
	for (unsigned i = 0; i < 3; i++) {
		memcpy(buf + n, "\r\n", 2);
		n += 2;
		n += write_message(buf + n, sizeof(buf) - n, i, body[i]);
	}
	for (unsigned c = 0; c < sizeof(cut) / sizeof(cut[0]); c++) {
		int fd = dial();

		t.got = 0;
		for (size_t at = 0; at < n; at += cut[c]) {
			say(fd, buf + at, n - at < cut[c] ? n - at : cut[c]);
			turn();
		}
		AWAIT(t.got == 3);
		assert_memory_equal(t.text, buf + n - t.n, t.n);
	}
	assert_int_equal(count(FRONT_STREAM_messages), 18);
	assert_int_equal(count(FRONT_STREAM_framing), 0);
}

static void test_keepalive(void **state)
{
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	fd = dial();
	say(fd, "\r\n\r\n", 4);
	AWAIT(count(FRONT_STREAM_keepalives) == 1);
	hear(fd, "\r\n");
	say(fd, "\r\n", 2);
	say_message(fd, 1);
	AWAIT(t.got == 1);
	assert_int_equal(count(FRONT_STREAM_keepalives), 1);
	assert_true(alive(fd));
	/* in two pieces, and one in front of a message */
	say(fd, "\r\n\r", 3);
	turn();
	say(fd, "\n", 1);
	AWAIT(count(FRONT_STREAM_keepalives) == 2);
	hear(fd, "\r\n");
	say(fd, "\r\n\r\n", 4);
	say_message(fd, 2);
	AWAIT(t.got == 2);
	hear(fd, "\r\n");
	say(fd, "\r\r\n\r\n", 5);
	AWAIT(count(FRONT_STREAM_keepalives) == 4);
	hear(fd, "\r\n");
}

static void test_lost_framing_ends(void **state)
{
	static const char *const bad[] = {
		"\x16\x03\x01 no SIP at all\r\n\r\n",
		"INVITE sip:a@b SIP/2.0\r\nVia: SIP/2.0/TCP 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\nTo: <sip:a@b>\r\n"
		"Call-ID: 1\r\nCSeq: 1 INVITE\r\n\r\n", /* no Content-Length */
	};

	(void)state;
	start_on("127.0.0.1", 16);
	for (unsigned i = 0; i < 2; i++) {
		int fd = dial();

		say(fd, bad[i], strlen(bad[i]));
		AWAIT(count(FRONT_STREAM_framing) == i + 1);
		assert_true(ended(fd));
	}
	assert_int_equal(t.got, 0);
}

/* The limit is the same whether it comes at once or in pieces. */
static void test_a_strangers_message_has_a_limit(void **state)
{
	static char buf[16384];
	size_t head = write_message(buf, sizeof(buf), 1, 1000) - 1000, fits = FRONT_STREAM_MESSAGE_MAX - head, n;
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	for (unsigned whole = 0; whole < 2; whole++) {
		fd = dial();
		n = write_message(buf, sizeof(buf), 1, fits);
		assert_int_equal(n, FRONT_STREAM_MESSAGE_MAX);
		if (!whole) {
			say(fd, buf, n - 1);
			turn();
		}
		say(fd, buf + (whole ? 0 : n - 1), whole ? n : 1);
		AWAIT(t.got == whole + 1);
		fd = dial();
		n = write_message(buf, sizeof(buf), 1, fits + 1);
		if (!whole) {
			say(fd, buf, n - 1);
			turn();
		}
		say(fd, buf + (whole ? 0 : n - 1), whole ? n : 1);
		AWAIT(count(FRONT_STREAM_too_large) == whole + 1);
		assert_true(ended(fd));
	}
	assert_int_equal(t.got, 2);
	/* nor is more than that kept of one that is not done */
	fd = dial();
	write_message(buf, sizeof(buf), 1, 6000);
	say(fd, buf, FRONT_STREAM_MESSAGE_MAX + 1);
	AWAIT(count(FRONT_STREAM_too_large) == 3);
	assert_true(ended(fd));
}

static void test_one_who_is_trusted_may_say_more(void **state)
{
	static char buf[16384];
	size_t head = write_message(buf, sizeof(buf), 1, 1000) - 1000, n;
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	t.trust = true;
	fd = dial();
	say_message(fd, 1);
	AWAIT(t.got == 1);
	assert_int_equal(count(FRONT_STREAM_trusted), 1);
	n = write_message(buf, sizeof(buf), 1, FRONT_STREAM_TRUSTED_MAX - head);
	say(fd, buf, n / 2);
	turn();
	say(fd, buf + n / 2, n - n / 2);
	AWAIT(t.got == 2);
	assert_int_equal(t.n, FRONT_STREAM_TRUSTED_MAX);
	n = write_message(buf, sizeof(buf), 1, FRONT_STREAM_TRUSTED_MAX - head + 1);
	say(fd, buf, n);
	AWAIT(count(FRONT_STREAM_too_large) == 1);
	assert_true(ended(fd));
}

/* Parts of messages fill the pool: who has held one longest goes, and nobody else. */
static void test_buffers_are_few(void **state)
{
	int fd[6];
	char buf[1024];
	size_t n = write_message(buf, sizeof(buf), 1, 100);

	(void)state;
	start_on("127.0.0.1", 16);
	for (unsigned i = 0; i < 6; i++) {
		fd[i] = dial();
		say(fd[i], buf, n / 2 + i);
		AWAIT(count(FRONT_STREAM_accepted) == i + 1);
	}
	AWAIT(count(FRONT_STREAM_evicted_buffer) == 2);
	assert_true(ended(fd[0]));
	assert_true(ended(fd[1]));
	for (unsigned i = 2; i < 6; i++) {
		say(fd[i], buf + n / 2 + i, n - n / 2 - i);
		AWAIT(t.got == i - 1);
		assert_int_equal(t.n, n);
		assert_memory_equal(t.text, buf, n);
	}
	/* and those are free again */
	assert_int_equal(count(FRONT_STREAM_evicted_buffer), 2);
	for (unsigned i = 0; i < 4; i++) {
		fd[i] = dial();
		say(fd[i], buf, n / 2);
		AWAIT(count(FRONT_STREAM_accepted) == i + 7);
	}
	turn();
	for (unsigned i = 0; i < 4; i++)
		say(fd[i], buf + n / 2, n - n / 2);
	AWAIT(t.got == 8);
	assert_int_equal(count(FRONT_STREAM_evicted_buffer), 2);
}

static void test_the_oldest_stranger_makes_room(void **state)
{
	int caller, fd[20];

	(void)state;
	start_on("127.0.0.1", 64);
	t.trust = true;
	caller = dial();
	say_message(caller, 1);
	AWAIT(t.got == 1);
	t.trust = false;
	for (unsigned i = 0; i < 20; i++) {
		fd[i] = dial();
		AWAIT(count(FRONT_STREAM_accepted) == i + 2);
	}
	assert_int_equal(count(FRONT_STREAM_evicted), 13);
	for (unsigned i = 0; i < 13; i++)
		assert_true(ended(fd[i]));
	for (unsigned i = 13; i < 20; i++)
		assert_true(alive(fd[i]));
	t.reply = "yes";
	say_message(caller, 2);
	AWAIT(t.got == 2);
	hear(caller, "yes");
}

/* All places are trusted ones': the next waits until one is free, and nobody spins meanwhile. */
static void test_no_room_waits_outside(void **state)
{
	struct pollfd p;
	int fd[9];

	(void)state;
	t.limit.trusted = 8;
	t.trust = true;
	start_on("127.0.0.1", 64);
	for (unsigned i = 0; i < 8; i++) {
		fd[i] = dial();
		say_message(fd[i], i);
		AWAIT(t.got == i + 1);
	}
	fd[8] = dial();
	say_message(fd[8], 8);
	turn();
	turn();
	p = (struct pollfd){.fd = front_streams_fd(t.s), .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(t.got, 8);
	close(fd[3]);
	t.fd[3] = -1;
	AWAIT(count(FRONT_STREAM_closed_by_peer) == 1);
	t.now_ms += 100;
	front_streams_tick(t.s, t.now_ms);
	AWAIT(t.got == 9);
	assert_int_equal(count(FRONT_STREAM_evicted), 0);
}

static void test_per_address(void **state)
{
	int fd[5];

	(void)state;
	t.limit.per_address = 2;
	start_on("127.0.0.1", 16);
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = dial();
		AWAIT(count(FRONT_STREAM_accepted) + count(FRONT_STREAM_per_address) == i + 1);
	}
	assert_int_equal(count(FRONT_STREAM_per_address), 1);
	assert_true(ended(fd[2]));
	assert_true(alive(fd[0]) && alive(fd[1]));
	fd[3] = dial_from("127.0.0.9");
	AWAIT(count(FRONT_STREAM_accepted) == 3);
	assert_true(alive(fd[3]));
	close(fd[0]);
	t.fd[0] = -1;
	AWAIT(count(FRONT_STREAM_closed_by_peer) == 1);
	fd[4] = dial();
	AWAIT(count(FRONT_STREAM_accepted) == 4);
	assert_true(alive(fd[4]));
}

static void test_deadlines(void **state)
{
	char buf[1024];
	int silent, trickle, heard, caller;

	(void)state;
	write_message(buf, sizeof(buf), 1, 100);
	start_on("127.0.0.1", 16);
	t.trust = true;
	caller = dial();
	say_message(caller, 1);
	AWAIT(t.got == 1);
	t.trust = false;
	silent = dial();
	trickle = dial();
	heard = dial();
	say_message(heard, 2);
	AWAIT(t.got == 2);
	AWAIT(count(FRONT_STREAM_accepted) == 4);
	for (unsigned i = 0; i < 49; i++) {
		t.now_ms += 100;
		say(trickle, buf + i, 1);
		turn();
		front_streams_tick(t.s, t.now_ms);
	}
	assert_true(alive(silent) && alive(trickle) && alive(heard) && alive(caller));
	t.now_ms += 100;
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_first), 2);
	assert_true(ended(silent));
	assert_true(ended(trickle));
	t.now_ms += 5000;
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_stranger), 1);
	assert_true(ended(heard));
	t.now_ms += 580000;
	say(caller, "\r\n\r\n", 4);
	AWAIT(count(FRONT_STREAM_keepalives) == 1);
	hear(caller, "\r\n");
	t.now_ms += 599999;
	front_streams_tick(t.s, t.now_ms);
	assert_true(alive(caller));
	t.now_ms += 1;
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_trusted), 1);
	assert_true(ended(caller));
}

/* Says to the last flow as much as it takes until something happens. */
static int fill(const struct front_flow *to, char *block, size_t n)
{
	int r = 0;

	for (unsigned i = 0; i < 4096 && r == 0 && front_streams_count(t.s, FRONT_STREAM_stalled_stranger) == 0; i++)
		r = front_streams_send(t.s, to, span_of(block, n), t.now_ms);
	return r;
}

static void test_a_stranger_who_does_not_read_goes(void **state)
{
	static char block[8192];
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	fd = dial();
	say_message(fd, 1);
	AWAIT(t.got == 1);
	assert_int_equal(fill(last(), block, sizeof(block)), -EPIPE);
	assert_int_equal(count(FRONT_STREAM_stalled_stranger), 1);
}

static void test_one_who_is_trusted_has_a_queue(void **state)
{
	static char block[8192], in[65536];
	size_t sent = 0, read = 0;
	unsigned number = 0;
	int fd;

	(void)state;
	start_on("127.0.0.1", 16);
	t.trust = true;
	fd = dial();
	say_message(fd, 1);
	AWAIT(t.got == 1);
	/* what is in the queue comes in order when there is room */
	while (number < 4096) {
		uint32_t word = number;

		for (size_t i = 0; i < sizeof(block); i += 4)
			memcpy(block + i, &word, 4);
		assert_int_equal(front_streams_send(t.s, last(), span_of(block, sizeof(block)), t.now_ms), 0);
		sent += sizeof(block);
		number++;
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (number > 200 && poll(&p, 1, 0) == 1 && number % 2 == 0)
			break;
	}
	while (read < sent) {
		ssize_t n = recv(fd, in, sizeof(in) - sizeof(in) % 4, MSG_DONTWAIT);

		if (n > 0) {
			for (ssize_t i = 0; i < n; i++)
				assert_int_equal((uint8_t)in[i], (read + (size_t)i) / sizeof(block) >> 8 * ((read + (size_t)i) % 4) & 255);
			read += (size_t)n;
		} else {
			struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = front_streams_fd(t.s), .events = POLLIN}};
			assert_true(poll(p, 2, WAIT_MS) > 0);
			turn();
		}
	}
	assert_int_equal(count(FRONT_STREAM_queue_full), 0);
	/* and it ends */
	assert_int_equal(fill(last(), block, sizeof(block)), -EPIPE);
	assert_int_equal(count(FRONT_STREAM_queue_full), 1);
}

/* Its send buffer stays full: one deadline, whatever else it says. */
static void test_stalled(void **state)
{
	static char block[8192];

	(void)state;
	start_on("127.0.0.1", 16);
	t.trust = true;
	say_message(dial(), 1);
	AWAIT(t.got == 1);
	for (unsigned i = 0; i < 100000; i++) {
		assert_int_equal(front_streams_send(t.s, last(), span_of(block, 1024), t.now_ms), 0);
		if (front_streams_count(t.s, FRONT_STREAM_queued) > 0)
			break;
	}
	assert_int_equal(count(FRONT_STREAM_queued), 1);
	t.now_ms += 6999;
	say_message(t.fd[0], 2);
	AWAIT(t.got == 2);
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_stalled), 0);
	t.now_ms += 1;
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_stalled), 1);
}

/* Connections that are in come before those at the door. */
static void test_nobody_comes_in_while_others_wait(void **state)
{
	int fd[100], late;

	(void)state;
	t.limit.connections = 200;
	start_on("127.0.0.1", 256);
	for (unsigned i = 0; i < 100; i++) {
		fd[i] = dial();
		AWAIT(count(FRONT_STREAM_accepted) == i + 1);
	}
	t.shut = true;
	late = dial();
	say_message(late, 1);
	turn();
	assert_int_equal(count(FRONT_STREAM_accepted), 100);
	t.shut = false;
	for (unsigned i = 0; i < 100; i++)
		say_message(fd[i], i);
	assert_true(front_streams_serve(t.s, t.now_ms, true));
	assert_true(t.got >= 63); /* a turn's events, the listener's among them */
	assert_int_equal(count(FRONT_STREAM_accepted), 100);
	AWAIT(t.got == 101);
	assert_int_equal(count(FRONT_STREAM_accepted), 101);
}

/* Within a turn those who are trusted come first. */
static void test_the_trusted_come_first(void **state)
{
	int fd[6];
	uint64_t trusted;

	(void)state;
	start_on("127.0.0.1", 16);
	for (unsigned i = 0; i < 6; i++) {
		fd[i] = dial();
		t.trust = i == 5;
		say_message(fd[i], i);
		AWAIT(t.got == i + 1);
	}
	t.trust = false;
	trusted = last()->id;
	for (unsigned i = 0; i < 6; i++)
		say_message(fd[i], i);
	t.got = 0;
	AWAIT(t.got == 6);
	assert_int_equal(t.from[0].id, trusted);
}

/* No descriptor is left: the oldest stranger gives its own. */
static void test_descriptors_run_out(void **state)
{
	struct rlimit old, few;
	int caller, fd[40], top;

	(void)state;
	t.limit.connections = 200;
	start_on("127.0.0.1", 64);
	t.trust = true;
	caller = dial();
	say_message(caller, 1);
	AWAIT(t.got == 1);
	t.trust = false;
	t.shut = true;
	for (unsigned i = 0; i < 40; i++)
		fd[i] = dial();
	top = dup(0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){(rlim_t)top + 10, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	close(top);
	t.shut = false;
	AWAIT(count(FRONT_STREAM_accepted) == 41);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(count(FRONT_STREAM_evicted_descriptor), 30);
	assert_int_equal(count(FRONT_STREAM_no_descriptor), 0);
	for (unsigned i = 0; i < 30; i++)
		assert_true(ended(fd[i]));
	for (unsigned i = 30; i < 40; i++)
		assert_true(alive(fd[i]));
	t.reply = "yes";
	say_message(caller, 2);
	AWAIT(t.got == 2);
	hear(caller, "yes");
}

/* … and when only those are left who may not go, the others wait. */
static void test_descriptors_of_the_trusted_stay(void **state)
{
	struct rlimit old, few;
	struct pollfd p;
	int caller, top;

	(void)state;
	start_on("127.0.0.1", 64);
	t.trust = true;
	caller = dial();
	say_message(caller, 1);
	AWAIT(t.got == 1);
	t.shut = true;
	say_message(dial(), 2);
	top = dup(0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = (struct rlimit){(rlim_t)top, old.rlim_max};
	close(top);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	t.shut = false;
	turn();
	turn();
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(count(FRONT_STREAM_no_descriptor), 1);
	p = (struct pollfd){.fd = front_streams_fd(t.s), .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_true(alive(caller));
	t.now_ms += 100;
	front_streams_tick(t.s, t.now_ms);
	AWAIT(t.got == 2);
}

static void test_the_limit_of_descriptors_is_raised(void **state)
{
	struct rlimit old, l;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	l = (struct rlimit){64, old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &l), 0);
	assert_int_equal(front_streams_descriptors(200), 200);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &l), 0);
	assert_int_equal(l.rlim_cur, 200);
	assert_int_equal(front_streams_descriptors(100), 100);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

static void test_counters_have_names(void **state)
{
	(void)state;
	assert_string_equal(front_stream_count_name(FRONT_STREAM_accepted), "accepted");
	assert_string_equal(front_stream_count_name(FRONT_STREAM_tls_evicted), "tls_evicted");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_a_message_and_its_answer),
		T(test_a_flow_is_one_connection),
		T(test_ipv6),
		T(test_framing),
		T(test_keepalive),
		T(test_lost_framing_ends),
		T(test_a_strangers_message_has_a_limit),
		T(test_one_who_is_trusted_may_say_more),
		T(test_buffers_are_few),
		T(test_the_oldest_stranger_makes_room),
		T(test_no_room_waits_outside),
		T(test_per_address),
		T(test_deadlines),
		T(test_a_stranger_who_does_not_read_goes),
		T(test_one_who_is_trusted_has_a_queue),
		T(test_stalled),
		T(test_nobody_comes_in_while_others_wait),
		T(test_the_trusted_come_first),
		T(test_descriptors_run_out),
		T(test_descriptors_of_the_trusted_stay),
		T(test_the_limit_of_descriptors_is_raised),
		cmocka_unit_test(test_counters_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
