/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/notify.h"

static int manager(char name[64])
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), n;

	assert_true(fd >= 0);
	n = snprintf(name, 64, "@walnut-notify-%d", (int)getpid());
	memcpy(a.sun_path + 1, name + 1, (size_t)n - 1);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)), 0);
	return fd;
}

static void test_says_ready(void **state)
{
	char name[64], text[64];
	int fd = manager(name), to;
	ssize_t n;

	(void)state;
	setenv("NOTIFY_SOCKET", name, 1);
	to = wn_notify_open();
	assert_true(to >= 0);
	wn_notify_ready(to);
	n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
	assert_int_equal(n, 7);
	assert_memory_equal(text, "READY=1", 7);
	close(fd);
}

static void expect(int fd, const char *want)
{
	char text[128];
	ssize_t n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);

	assert_true(n > 0);
	text[n] = 0;
	assert_string_equal(text, want);
}

static void test_says_the_rest(void **state)
{
	char name[64], text[128];
	int fd = manager(name), to;
	unsigned long long at;
	uint64_t before;
	ssize_t n;

	(void)state;
	setenv("NOTIFY_SOCKET", name, 1);
	to = wn_notify_open();
	wn_notify(to, WN_NOTIFY_READY);
	expect(fd, "READY=1");
	wn_notify(to, WN_NOTIFY_STOPPING);
	expect(fd, "STOPPING=1");
	wn_notify(to, WN_NOTIFY_WATCHDOG);
	expect(fd, "WATCHDOG=1");
	before = wn_monotonic_us();
	wn_notify(to, WN_NOTIFY_RELOADING);
	n = recv(fd, text, sizeof(text) - 1, MSG_DONTWAIT);
	assert_true(n > 0);
	text[n] = 0;
	assert_int_equal(sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%llu", &at), 1);
	assert_true(at >= before && at <= wn_monotonic_us());
	wn_notify(-1, WN_NOTIFY_READY);
	close(to);
	close(fd);
}

static void test_a_deaf_manager(void **state)
{
	char name[64];
	int fd = manager(name), to;

	(void)state;
	setenv("NOTIFY_SOCKET", name, 1);
	to = wn_notify_open();
	/* its queue is full long before: a ping is lost, and does not wait */
	for (unsigned i = 0; i < 20000; i++)
		wn_notify(to, WN_NOTIFY_WATCHDOG);
	expect(fd, "WATCHDOG=1");
	close(to);
	close(fd);
}

static void test_watchdog(void **state)
{
	char pid[32];

	(void)state;
	unsetenv("WATCHDOG_PID");
	unsetenv("WATCHDOG_USEC");
	assert_int_equal(wn_notify_watchdog_us(), 0);
	setenv("WATCHDOG_USEC", "10000000", 1);
	assert_int_equal(wn_notify_watchdog_us(), 10000000);
	snprintf(pid, sizeof(pid), "%d", (int)getpid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(wn_notify_watchdog_us(), 10000000);
	/* somebody else's */
	snprintf(pid, sizeof(pid), "%d", (int)getppid());
	setenv("WATCHDOG_PID", pid, 1);
	assert_int_equal(wn_notify_watchdog_us(), 0);
	unsetenv("WATCHDOG_PID");
	for (unsigned i = 0; i < 5; i++) {
		static const char *const bad[] = {"", "soon", "10s", "-1", "99999999999999999999999"};

		setenv("WATCHDOG_USEC", bad[i], 1);
		assert_int_equal(wn_notify_watchdog_us(), 0);
	}
	unsetenv("WATCHDOG_USEC");
}

static void test_nobody_asked(void **state)
{
	(void)state;
	unsetenv("NOTIFY_SOCKET");
	assert_int_equal(wn_notify_open(), -1);
	setenv("NOTIFY_SOCKET", "relative", 1);
	assert_int_equal(wn_notify_open(), -1);
	setenv("NOTIFY_SOCKET", "/nowhere/to/be/found", 1);
	assert_int_equal(wn_notify_open(), -1);
	wn_notify_ready(-1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_says_ready), cmocka_unit_test(test_says_the_rest), cmocka_unit_test(test_a_deaf_manager),
		cmocka_unit_test(test_watchdog),   cmocka_unit_test(test_nobody_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
