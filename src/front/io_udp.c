/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/core.h"
#include "front/io.h"

#define RCVBUF_BYTES (8 << 20)
#define SNDBUF_BYTES (4 << 20)

struct udp {
	int fd;
	bool connected;
	struct mmsghdr in[FRONT_BATCH]; /* of which a receive changes little */
	struct iovec in_iov[FRONT_BATCH];
	struct sockaddr_storage name[FRONT_BATCH];
	struct mmsghdr msg[FRONT_BATCH];
	struct iovec iov[FRONT_BATCH];
	struct sockaddr_storage to[FRONT_BATCH];
};

/* The forced variant goes beyond the system's limit and needs CAP_NET_ADMIN. */
static void set_buffer(int fd, int force, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)) != 0)
		setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

static int udp_bind(const struct udp *u, const struct wn_addr *addr, const struct wn_addr *peer)
{
	struct wn_addr own = *addr;
	struct sockaddr_storage ss;
	socklen_t len;
	int one = 1;

	if (peer != NULL)
		own.port = 0;
	else if (setsockopt(u->fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0)
		return -errno;
	len = wn_addr_to_sockaddr(&own, &ss);
	/* A peer of the other family cannot be reached from there: the kernel chooses. */
	if ((peer == NULL || wn_addr_is4(peer) == wn_addr_is4(addr)) && bind(u->fd, (struct sockaddr *)&ss, len) != 0)
		return -errno;
	if (peer == NULL)
		return 0;
	len = wn_addr_to_sockaddr(peer, &ss);
	return connect(u->fd, (struct sockaddr *)&ss, len) != 0 ? -errno : 0;
}

static int udp_open(const struct wn_addr *addr, const struct wn_addr *peer, void **io)
{
	const int family = wn_addr_is4(peer != NULL ? peer : addr) ? AF_INET : AF_INET6;
	struct udp *u = calloc(1, sizeof(*u));
	int one = 1, r;

	if (u == NULL)
		return -ENOMEM;
	u->connected = peer != NULL;
	for (unsigned i = 0; i < FRONT_BATCH; i++) {
		u->in_iov[i].iov_len = FRONT_DATAGRAM_MAX + 1;
		u->in[i].msg_hdr = (struct msghdr){.msg_name = &u->name[i], .msg_iov = &u->in_iov[i], .msg_iovlen = 1};
	}
	u->fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (u->fd < 0) {
		r = -errno;
		free(u);
		return r;
	}
	if (family == AF_INET6)
		setsockopt(u->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	set_buffer(u->fd, SO_RCVBUFFORCE, SO_RCVBUF, RCVBUF_BYTES);
	set_buffer(u->fd, SO_SNDBUFFORCE, SO_SNDBUF, SNDBUF_BYTES);
	r = udp_bind(u, addr, peer);
	if (r != 0) {
		close(u->fd);
		free(u);
		return r;
	}
	*io = u;
	return 0;
}

static void udp_own(void *io, struct wn_addr *addr)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	if (getsockname(((struct udp *)io)->fd, (struct sockaddr *)&ss, &len) == 0)
		wn_addr_from_sockaddr(addr, &ss);
	else
		memset(addr, 0, sizeof(*addr));
}

static int udp_fd(void *io)
{
	return ((struct udp *)io)->fd;
}

static int udp_recv(void *io, struct front_packet *p, unsigned n)
{
	struct udp *u = io;
	int got;

	for (unsigned i = 0; i < n; i++) {
		u->in_iov[i].iov_base = p[i].data;
		u->in[i].msg_hdr.msg_namelen = sizeof(u->name[i]);
	}
	got = recvmmsg(u->fd, u->in, n, MSG_DONTWAIT, NULL);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
	for (int i = 0; i < got; i++) {
		p[i].n = u->in[i].msg_len;
		wn_addr_from_sockaddr(&p[i].addr, &u->name[i]);
	}
	return got;
}

static unsigned udp_send(void *io, const struct front_packet *p, unsigned n)
{
	struct udp *u = io;
	unsigned sent = 0;

	for (unsigned i = 0; i < n; i++) {
		u->iov[i] = (struct iovec){p[i].data, p[i].n};
		u->msg[i].msg_hdr = (struct msghdr){.msg_iov = &u->iov[i], .msg_iovlen = 1};
		if (!u->connected) {
			u->msg[i].msg_hdr.msg_namelen = wn_addr_to_sockaddr(&p[i].addr, &u->to[i]);
			u->msg[i].msg_hdr.msg_name = &u->to[i];
		}
	}
	while (sent < n) {
		int r = sendmmsg(u->fd, u->msg + sent, n - sent, MSG_DONTWAIT);

		if (r > 0) {
			sent += (unsigned)r;
		} else if (r < 0 && errno != EAGAIN && errno != EINTR && errno != ENOBUFS) {
			/* one destination that cannot be reached must not hold back the others */
			for (unsigned i = sent; i + 1 < n; i++)
				u->msg[i] = u->msg[i + 1];
			n--;
		} else if (r == 0 || errno != EINTR) {
			break;
		}
	}
	return sent;
}

static void udp_close(void *io)
{
	struct udp *u = io;

	close(u->fd);
	free(u);
}

const struct front_io_ops front_io_udp = {udp_open, udp_own, udp_fd, udp_recv, udp_send, udp_close};
