/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/ctl_address.h"

#define ANSWER_MAX (256u << 20)

int ctl_address(const char *path, struct sockaddr_un *sa)
{
	size_t n = strlen(path);

	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	if (n == 0)
		return -EINVAL;
	if (n >= sizeof(sa->sun_path))
		return -ENAMETOOLONG;
	memcpy(sa->sun_path, path, n);
	return 0;
}

static int wait_for(int fd, short events, uint64_t until)
{
	for (;;) {
		uint64_t now = wn_now_ms();
		struct pollfd p = {.fd = fd, .events = events};
		int rc;

		if (now >= until)
			return -ETIMEDOUT;
		rc = poll(&p, 1, until - now > 60000 ? 60000 : (int)(until - now));
		if (rc > 0)
			return 0;
		if (rc < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_all(int fd, const char *p, size_t n, uint64_t until)
{
	while (n > 0) {
		ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
		int rc;

		if (k >= 0) {
			p += k;
			n -= (size_t)k;
			continue;
		}
		if (errno == EINTR)
			continue;
		rc = errno == EAGAIN ? wait_for(fd, POLLOUT, until) : -errno;
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int recv_line(int fd, uint64_t until, char **line, size_t *n)
{
	size_t cap = 0, len = 0;
	char *buf = NULL, *p, *nl;
	int rc = 0;

	for (;;) {
		ssize_t k;

		if (len == cap) {
			cap = cap == 0 ? 8192 : cap * 2;
			p = cap <= ANSWER_MAX ? (char *)realloc(buf, cap) : NULL;
			if (p == NULL) {
				rc = -EMSGSIZE;
				break;
			}
			buf = p;
		}
		k = recv(fd, buf + len, cap - len, 0);
		if (k > 0) {
			nl = (char *)memchr(buf + len, '\n', (size_t)k);
			len += (size_t)k;
			if (nl == NULL)
				continue;
			*line = buf;
			*n = (size_t)(nl - buf);
			return 0;
		}
		if (k == 0) {
			rc = -ECONNRESET;
			break;
		}
		if (errno == EINTR)
			continue;
		rc = errno == EAGAIN ? wait_for(fd, POLLIN, until) : -errno;
		if (rc < 0)
			break;
	}
	free(buf);
	return rc;
}

/* A full queue is waited for: that is what a blocking connect does, for as long as a send may take. Returns a non-blocking descriptor. */
static int connect_within(const struct sockaddr_un *sa, unsigned timeout_ms)
{
	const struct timeval limit = {timeout_ms / 1000, (long)(timeout_ms % 1000) * 1000};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int rc;

	if (fd < 0)
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0 ||
	    connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0) {
		rc = errno == EAGAIN ? -ETIMEDOUT : -errno;
		close(fd);
		return rc;
	}
	return fd;
}

int ctl_call(const char *path, const json_t *request, unsigned timeout_ms, json_t **answer)
{
	uint64_t until = wn_now_ms() + timeout_ms;
	struct sockaddr_un sa;
	char *text = NULL, *line = NULL;
	size_t n = 0;
	int fd = -1, rc;

	*answer = NULL;
	rc = ctl_address(path, &sa);
	if (rc < 0)
		return rc;
	fd = connect_within(&sa, timeout_ms);
	if (fd < 0)
		return fd;
	text = json_dumps(request, JSON_COMPACT);
	if (text == NULL) {
		rc = -EINVAL;
		goto out;
	}
	n = strlen(text);
	text[n] = '\n'; /* in the place of its end: no C string from here on */
	rc = send_all(fd, text, n + 1, until);
	if (rc < 0)
		goto out;
	rc = recv_line(fd, until, &line, &n);
	if (rc < 0)
		goto out;
	*answer = json_loadb(line, n, 0, NULL);
	rc = json_is_object(*answer) ? 0 : -EBADMSG;
	if (rc < 0) {
		json_decref(*answer);
		*answer = NULL;
	}
out:
	close(fd);
	free(text);
	free(line);
	return rc;
}
