/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "front/bpf/steer.h"
#include "front/steer.h"

/* Two sockets of one address, and a peer whose datagrams land in one of them. */
static struct front_steer *steer;
static int fd[2], peer;

static int bound(struct sockaddr_storage *at, socklen_t *n)
{
	int s = socket(at->ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), one = 1;

	assert_true(s >= 0);
	assert_int_equal(setsockopt(s, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)), 0);
	assert_int_equal(bind(s, (struct sockaddr *)at, *n), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)at, n), 0);
	return s;
}

static bool begin(const char *address)
{
	struct sockaddr_storage at;
	struct wn_addr a;
	socklen_t n;
	int r = front_steer_new(1, &steer);

	if (geteuid() != 0 && r != 0)
		return false;
	assert_int_equal(r, 0);
	assert_int_equal(wn_addr_parse(span_str(address), -1, &a), 0);
	n = wn_addr_to_sockaddr(&a, &at);
	fd[STEER_FIRST] = bound(&at, &n);
	fd[STEER_STRANGERS] = bound(&at, &n);
	assert_int_equal(front_steer_add(steer, 0, fd[STEER_FIRST], fd[STEER_STRANGERS]), 0);
	peer = socket(at.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(peer, (struct sockaddr *)&at, n), 0);
	return true;
}

static void end(void)
{
	front_steer_free(steer);
	close(fd[0]);
	close(fd[1]);
	close(peer);
}

/* Which queue it waited in. */
static int queue_of(const void *p, size_t n)
{
	struct pollfd pfd[2] = {{fd[0], POLLIN, 0}, {fd[1], POLLIN, 0}};
	static char buf[65536];
	int q;

	assert_int_equal(send(peer, p, n, 0), n);
	assert_int_equal(poll(pfd, 2, 5000), 1);
	q = pfd[0].revents != 0 ? 0 : 1;
	assert_int_equal(recv(fd[q], buf, sizeof(buf), 0), n);
	assert_memory_equal(buf, p, n);
	return q;
}

static int text(const char *s)
{
	return queue_of(s, strlen(s));
}

#define START "INVITE sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n"
#define END   "Content-Length: 0\r\n\r\n"

static void told_apart(const char *address)
{
	if (!begin(address))
		skip();
	assert_int_equal(text(START END), STEER_STRANGERS);
	assert_int_equal(text(START "Proxy-Authorization: Digest x\r\n" END), STEER_FIRST);
	assert_int_equal(text(START END), STEER_STRANGERS);
	assert_int_equal(text(START "pRoXy-AuThOrIzAtIoN : Digest x\r\n" END), STEER_FIRST);
	assert_int_equal(text(START "Route: <sip:x@y;lr>\r\n" END), STEER_FIRST);
	assert_int_equal(text(START "ROUTE:<sip:x@y;lr>\r\n" END), STEER_FIRST);
	assert_int_equal(text(START "Record-Route: <sip:x@y;lr>\r\n" END), STEER_STRANGERS);
	assert_int_equal(text(START "X-Proxy-Authorization: x\r\n" END), STEER_STRANGERS);
	assert_int_equal(text("x"), STEER_STRANGERS);
	assert_int_equal(text("\nRoute:"), STEER_FIRST);
	end();
}

static void test_ipv4(void **state)
{
	(void)state;
	told_apart("127.0.0.1:0");
}

static void test_ipv6(void **state)
{
	(void)state;
	told_apart("[::1]:0");
}

/* Wherever the line stands, up to the end of what is looked at. */
static void test_every_place(void **state)
{
	static char buf[2 * STEER_TEXT_MAX];

	(void)state;
	if (!begin("127.0.0.1:0"))
		skip();
	for (size_t at = 1; at < STEER_TEXT_MAX - 16; at += at % 64 == 0 ? 37 : 1) {
		memset(buf, 'x', sizeof(buf));
		memcpy(buf + at, "\nroute: a\r\n", 11);
		assert_int_equal(queue_of(buf, at + 11), STEER_FIRST);
		buf[at] = ' ';
		assert_int_equal(queue_of(buf, at + 11), STEER_STRANGERS);
	}
	memset(buf, 'x', sizeof(buf));
	memcpy(buf + STEER_TEXT_MAX + 64, "\nroute: a\r\n", 11);
	assert_int_equal(queue_of(buf, sizeof(buf)), STEER_STRANGERS);
	end();
}

/* A full queue of strangers takes nothing from the other one. */
static void test_flood(void **state)
{
	static char flood[] = START END, mine[] = START "Route: <sip:x@y;lr>\r\n" END;
	char buf[2048];

	(void)state;
	if (!begin("127.0.0.1:0"))
		skip();
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(send(peer, flood, sizeof(flood) - 1, 0), sizeof(flood) - 1);
	assert_int_equal(send(peer, mine, sizeof(mine) - 1, 0), sizeof(mine) - 1);
	assert_int_equal(recv(fd[STEER_FIRST], buf, sizeof(buf), MSG_DONTWAIT), sizeof(mine) - 1);
	end();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ipv4),
		cmocka_unit_test(test_ipv6),
		cmocka_unit_test(test_every_place),
		cmocka_unit_test(test_flood),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
