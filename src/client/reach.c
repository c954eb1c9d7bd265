/* SPDX-License-Identifier: Apache-2.0 */
#include "client/reach.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void reach_draw(struct reach *r, const struct enrol *e)
{
	bool is4 = wn_addr_is4(&e->fronts[0]);

	r->n = 0;
	for (unsigned i = 0; i < e->nfronts; i++) {
		if (wn_addr_is4(&e->fronts[i]) == is4)
			r->at[r->n++] = e->fronts[i];
	}
	for (unsigned i = r->n; i > 1; i--) {
		unsigned k = randombytes_uniform(i);
		struct wn_addr t = r->at[i - 1];

		r->at[i - 1] = r->at[k];
		r->at[k] = t;
	}
}

void reach_begin_with(struct reach *r, unsigned i)
{
	struct wn_addr t = r->at[0];

	r->at[0] = r->at[i];
	r->at[i] = t;
}

int reach_from(const struct wn_addr *to, struct wn_addr *out)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(to, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&ss, len) < 0)
		rc = -errno;
	len = sizeof(ss);
	if (rc == 0 && getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		rc = -errno;
	if (rc == 0)
		wn_addr_from_sockaddr(out, &ss);
	close(fd);
	return rc;
}

int reach_open(struct wn_addr *local, int receive)
{
	struct wn_addr any = *local;
	struct sockaddr_storage ss;
	socklen_t len;
	int fd, rc;

	memset(any.ip + (wn_addr_is4(&any) ? 12 : 0), 0, wn_addr_is4(&any) ? 4 : 16);
	any.port = 0;
	len = wn_addr_to_sockaddr(&any, &ss);
	fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (receive > 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive, sizeof(receive));
	rc = bind(fd, (struct sockaddr *)&ss, len) < 0 ? -errno : 0;
	len = sizeof(ss);
	if (rc == 0 && getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		rc = -errno;
	if (rc < 0) {
		close(fd);
		return rc;
	}
	wn_addr_from_sockaddr(&any, &ss);
	local->port = any.port;
	return fd;
}
