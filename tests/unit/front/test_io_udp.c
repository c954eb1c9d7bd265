/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/core.h"
#include "front/io.h"

/* Datagrams over loopback: each arrives as it was sent, whatever was put together on the way, and in its order. */

static struct front_packet in[FRONT_BATCH], out[FRONT_BATCH];
static char in_mem[FRONT_BATCH][FRONT_DATAGRAM_MAX + 64], out_mem[FRONT_BATCH][FRONT_DATAGRAM_MAX];
static void *io;
static struct wn_addr io_at, peer_at[2];
static int peer[2];

static int open_peer(struct wn_addr *at)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage ss = {0};
	socklen_t n = sizeof(ss);
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &n), 0);
	wn_addr_from_sockaddr(at, &ss);
	return fd;
}

static int setup(void **state)
{
	struct wn_addr at;

	(void)state;
	wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &at);
	assert_int_equal(front_io_udp.open(&(struct front_io_where){.addr = &at}, &io), 0);
	front_io_udp.own(io, &io_at);
	for (unsigned i = 0; i < 2; i++)
		peer[i] = open_peer(&peer_at[i]);
	for (unsigned i = 0; i < FRONT_BATCH; i++) {
		in[i].data = in_mem[i];
		out[i].data = out_mem[i];
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	front_io_udp.close(io);
	close(peer[0]);
	close(peer[1]);
	return 0;
}

static void put(unsigned i, unsigned to, uint32_t order, size_t n)
{
	memset(out_mem[i], 'a' + (int)(i % 26), n);
	memcpy(out_mem[i], &i, sizeof(i));
	out[i].n = n;
	out[i].addr = peer_at[to];
	out[i].order = order;
}

/* The number of the next datagram that a peer gets, whose bytes must be those that were sent. */
static unsigned next_of(unsigned to)
{
	static char buf[65536];
	struct pollfd p = {.fd = peer[to], .events = POLLIN};
	unsigned i;
	ssize_t n;

	assert_int_equal(poll(&p, 1, 5000), 1);
	n = recv(peer[to], buf, sizeof(buf), 0);
	assert_true(n >= (ssize_t)sizeof(i));
	memcpy(&i, buf, sizeof(i));
	assert_true(i < FRONT_BATCH);
	assert_int_equal(n, out[i].n);
	assert_memory_equal(buf, out_mem[i], out[i].n);
	return i;
}

static void test_sent_together(void **state)
{
	unsigned seen[FRONT_BATCH] = {0}, count[2] = {0};

	(void)state;
	for (unsigned i = 0; i < FRONT_BATCH; i++) {
		unsigned to = (unsigned)random() % 2;

		put(i, to, 0, 400 + 10 * ((unsigned)random() % 3));
		count[to]++;
	}
	assert_int_equal(front_io_udp.send(io, out, FRONT_BATCH), FRONT_BATCH);
	for (unsigned to = 0; to < 2; to++)
		for (unsigned k = 0; k < count[to]; k++)
			seen[next_of(to)]++;
	for (unsigned i = 0; i < FRONT_BATCH; i++)
		assert_int_equal(seen[i], 1);
}

/* A later one may be as long as an earlier call's first: it would overtake its own. */
static void test_order(void **state)
{
	(void)state;
	for (unsigned round = 0; round < 50; round++) {
		unsigned last[8] = {0}, n = 2 + (unsigned)random() % (FRONT_BATCH - 2);

		for (unsigned i = 0; i < n; i++)
			put(i, 0, 1 + (unsigned)random() % 7, 300 + (unsigned)random() % 4);
		assert_int_equal(front_io_udp.send(io, out, n), n);
		for (unsigned k = 0; k < n; k++) {
			unsigned i = next_of(0);

			assert_true(last[out[i].order] == 0 || last[out[i].order] - 1 < i);
			last[out[i].order] = i + 1;
		}
	}
}

static void test_long_ones(void **state)
{
	(void)state;
	put(0, 0, 0, 1500);
	put(1, 0, 0, 1500);
	put(2, 0, 0, FRONT_DATAGRAM_MAX);
	assert_int_equal(front_io_udp.send(io, out, 3), 3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(next_of(0), i);
}

static unsigned receive(void)
{
	struct pollfd p = {.fd = front_io_udp.fd(io), .events = POLLIN};
	int n = front_io_udp.recv(io, in, FRONT_BATCH);

	while (n == 0) {
		assert_int_equal(poll(&p, 1, 5000), 1);
		n = front_io_udp.recv(io, in, FRONT_BATCH);
	}
	assert_true(n > 0);
	return (unsigned)n;
}

static void say(const void *p, size_t n, uint16_t segment)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&io_at, &ss);
	struct iovec iov = {(void *)(uintptr_t)p, n};
	union {
		char room[CMSG_SPACE(sizeof(segment))];
		struct cmsghdr align;
	} c = {{0}};
	struct msghdr h = {.msg_name = &ss, .msg_namelen = len, .msg_iov = &iov, .msg_iovlen = 1};

	if (segment > 0) {
		h.msg_control = &c;
		h.msg_controllen = CMSG_LEN(sizeof(segment));
		*CMSG_FIRSTHDR(&h) = (struct cmsghdr){CMSG_LEN(sizeof(segment)), IPPROTO_UDP, UDP_SEGMENT};
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&h)), &segment, sizeof(segment));
	}
	assert_int_equal(sendmsg(peer[0], &h, 0), n);
}

/* What the kernel put together comes apart: every datagram once, whole, in order, and more of them than one batch holds. */
static void test_received_together(void **state)
{
	static char text[60 * 1000];
	unsigned got = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)(i / 500 * 7 + i % 500);
	say("first", 5, 0);
	say(text, sizeof(text), 1000);
	say(text, 20 * 700 + 123, 700);
	say("last", 4, 0);
	while (got < 1 + 60 + 21 + 1) {
		unsigned n = receive();

		for (unsigned i = 0; i < n; i++, got++) {
			assert_true(wn_addr_eq(&in[i].addr, &peer_at[0]));
			if (got == 0) {
				assert_int_equal(in[i].n, 5);
				assert_memory_equal(in[i].data, "first", 5);
			} else if (got <= 60) {
				assert_int_equal(in[i].n, 1000);
				assert_memory_equal(in[i].data, text + (size_t)(got - 1) * 1000, 1000);
			} else if (got <= 81) {
				assert_int_equal(in[i].n, got == 81 ? 123 : 700);
				assert_memory_equal(in[i].data, text + (size_t)(got - 61) * 700, in[i].n);
			} else {
				assert_int_equal(in[i].n, 4);
				assert_memory_equal(in[i].data, "last", 4);
			}
		}
	}
	assert_int_equal(got, 83);
	assert_int_equal(front_io_udp.recv(io, in, FRONT_BATCH), 0);
}

static void test_too_long(void **state)
{
	static char text[2 * 9000];

	(void)state;
	say(text, 9000, 0);
	assert_int_equal(receive(), 1);
	assert_int_equal(in[0].n, FRONT_DATAGRAM_MAX + 1);
	say(text, 2 * 9000, 9000);
	assert_int_equal(receive(), 2);
	assert_int_equal(in[1].n, FRONT_DATAGRAM_MAX + 1);
	say("x", 1, 0);
	assert_int_equal(receive(), 1);
	assert_int_equal(in[0].n, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sent_together, setup, teardown),
		cmocka_unit_test_setup_teardown(test_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_ones, setup, teardown),
		cmocka_unit_test_setup_teardown(test_received_together, setup, teardown),
		cmocka_unit_test_setup_teardown(test_too_long, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
