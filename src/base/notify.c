/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

int wn_notify_open(void)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	const struct timeval patience = {.tv_sec = 1};
	const char *path = getenv("NOTIFY_SOCKET");
	size_t n = path != NULL ? strlen(path) : 0;
	int fd;

	if (n < 2 || n > sizeof(to.sun_path) || (path[0] != '/' && path[0] != '@'))
		return -1;
	memcpy(to.sun_path, path, n);
	if (path[0] == '@')
		to.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)); /* a manager that hangs must not hang us */
	if (connect(fd, (const struct sockaddr *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static uint64_t number(const char *name)
{
	const char *text = getenv(name);
	unsigned long long n;
	char *end;

	if (text == NULL || *text < '0' || *text > '9')
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' ? n : 0;
}

uint64_t wn_notify_watchdog_us(void)
{
	uint64_t pid = number("WATCHDOG_PID");

	/* the variables may be inherited from somebody else's manager */
	return pid == 0 || pid == (uint64_t)getpid() ? number("WATCHDOG_USEC") : 0;
}

void wn_notify(int fd, enum wn_notify_state state)
{
	static const char *const line[] = {
		[WN_NOTIFY_READY] = "READY=1",
		[WN_NOTIFY_RELOADING] = "RELOADING=1",
		[WN_NOTIFY_STOPPING] = "STOPPING=1",
		[WN_NOTIFY_WATCHDOG] = "WATCHDOG=1",
	};
	char text[64];
	int n;

	if (fd < 0)
		return;
	/* the manager tells two reloads apart by their time */
	if (state == WN_NOTIFY_RELOADING)
		n = snprintf(text, sizeof(text), "%s\nMONOTONIC_USEC=%llu", line[state], (unsigned long long)wn_monotonic_us());
	else
		n = snprintf(text, sizeof(text), "%s", line[state]);
	(void)send(fd, text, (size_t)n, MSG_NOSIGNAL | (state == WN_NOTIFY_WATCHDOG ? MSG_DONTWAIT : 0));
}

void wn_notify_ready(int fd)
{
	wn_notify(fd, WN_NOTIFY_READY);
	if (fd >= 0)
		close(fd);
}
