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
		cmocka_unit_test(test_says_ready),
		cmocka_unit_test(test_nobody_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
