/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/core.h"
#include "front/io.h"
#include "front/steer.h"

#define RCVBUF_BYTES (8 << 20)
#define SNDBUF_BYTES (4 << 20)

/* What the kernel puts together has at most so many bytes, and what we do, so many datagrams. */
#define TOGETHER_BYTES 65536u
#define SEGMENTS_MAX   64u
/* Behind a datagram's buffer, and so that slots do not lie in the same lines of a cache. */
#define SLOT_BYTES (FRONT_DATAGRAM_MAX + 1 + TOGETHER_BYTES + 575u)
/* A longer datagram may not fit the path, and goes by itself. */
#define SEGMENT_BYTES_MAX 1400u
/* How many sends back a datagram looks for one that it can join. */
#define JOIN_BACK 8u

/* Datagrams that came together, or one that came with such, until they are handed over. */
struct together {
	char *data;
	uint32_t n, segment, at;
};

/* One send: datagrams of one length to one address. */
struct send {
	uint16_t segment, count;
	uint16_t packet[SEGMENTS_MAX];
};

struct udp {
	int fd;            /* strangers', or everybody's */
	int first;         /* those who show credentials or a route; -1: they are not apart */
	int ready, family; /* ready: for epoll */
	bool connected, segments;
	/* receiving */
	struct mmsghdr in[FRONT_BATCH];
	struct iovec in_iov[FRONT_BATCH][2];
	struct sockaddr_storage name[FRONT_BATCH];
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} in_control[FRONT_BATCH];
	struct together together[FRONT_BATCH];
	unsigned ntogether, taken;
	char *mem;
	/* sending */
	struct mmsghdr out[FRONT_BATCH];
	struct iovec iov[FRONT_BATCH];
	struct sockaddr_storage to[FRONT_BATCH];
	union {
		char room[CMSG_SPACE(sizeof(uint16_t))];
		struct cmsghdr align;
	} control[FRONT_BATCH];
	struct send send[FRONT_BATCH];
	uint8_t in_send[FRONT_BATCH]; /* which send a packet is in */
};

/* The forced variant goes beyond the system's limit and needs CAP_NET_ADMIN. */
static void set_buffer(int fd, int force, int plain, int bytes)
{
	if (setsockopt(fd, SOL_SOCKET, force, &bytes, sizeof(bytes)) != 0)
		setsockopt(fd, SOL_SOCKET, plain, &bytes, sizeof(bytes));
}

/* Without fragments the kernel need not number a datagram. One that does not fit the path is sent with them allowed: udp_send. */
static void allow_fragments(int fd, int family, bool allowed)
{
	int how = family == AF_INET ? (allowed ? IP_PMTUDISC_WANT : IP_PMTUDISC_DO) : allowed ? IPV6_PMTUDISC_WANT : IPV6_PMTUDISC_DO;

	if (family == AF_INET)
		setsockopt(fd, IPPROTO_IP, IP_MTU_DISCOVER, &how, sizeof(how));
	else
		setsockopt(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, &how, sizeof(how));
}

static int udp_bind(int fd, const struct wn_addr *addr, const struct wn_addr *peer)
{
	struct wn_addr own = *addr;
	struct sockaddr_storage ss;
	socklen_t len;
	int one = 1;

	if (peer != NULL)
		own.port = 0;
	else if (setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0)
		return -errno;
	len = wn_addr_to_sockaddr(&own, &ss);
	/* A peer of the other family cannot be reached from there: the kernel chooses. */
	if ((peer == NULL || wn_addr_is4(peer) == wn_addr_is4(addr)) && bind(fd, (struct sockaddr *)&ss, len) != 0)
		return -errno;
	if (peer == NULL)
		return 0;
	len = wn_addr_to_sockaddr(peer, &ss);
	return connect(fd, (struct sockaddr *)&ss, len) != 0 ? -errno : 0;
}

/* \return a socket or negative errno. */
static int udp_socket(const struct wn_addr *addr, const struct wn_addr *peer)
{
	const int family = wn_addr_is4(peer != NULL ? peer : addr) ? AF_INET : AF_INET6;
	int fd = socket(family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, r;

	if (fd < 0)
		return -errno;
	allow_fragments(fd, family, false);
	setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof(one));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, RCVBUF_BYTES);
	set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, SNDBUF_BYTES);
	r = udp_bind(fd, addr, peer);
	if (r == 0)
		return fd;
	close(fd);
	return r;
}

static void udp_close(void *io)
{
	struct udp *u = io;

	if (u->ready >= 0 && u->ready != u->fd)
		close(u->ready);
	if (u->first >= 0)
		close(u->first);
	if (u->fd >= 0)
		close(u->fd);
	munmap(u->mem, FRONT_BATCH * SLOT_BYTES);
	free(u);
}

/* Both queues behind one descriptor. */
static int open_two(struct udp *u, const struct front_io_where *where)
{
	struct epoll_event ev = {.events = EPOLLIN};

	u->first = udp_socket(where->addr, NULL);
	if (u->first < 0)
		return u->first;
	u->ready = epoll_create1(EPOLL_CLOEXEC);
	if (u->ready < 0 || epoll_ctl(u->ready, EPOLL_CTL_ADD, u->first, &ev) != 0 || epoll_ctl(u->ready, EPOLL_CTL_ADD, u->fd, &ev) != 0)
		return -errno;
	return front_steer_add(where->steer, where->worker, u->first, u->fd);
}

static int udp_open(const struct front_io_where *where, void **io)
{
	struct udp *u = calloc(1, sizeof(*u));
	int r = 0;

	if (u == NULL)
		return -ENOMEM;
	u->connected = where->peer != NULL;
	u->family = wn_addr_is4(where->peer != NULL ? where->peer : where->addr) ? AF_INET : AF_INET6;
	u->segments = true;
	u->fd = u->first = u->ready = -1;
	u->mem = mmap(NULL, FRONT_BATCH * SLOT_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (u->mem == MAP_FAILED) {
		free(u);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < FRONT_BATCH; i++) {
		u->together[i].data = u->mem + i * SLOT_BYTES;
		u->in_iov[i][0].iov_len = FRONT_DATAGRAM_MAX + 1;
		u->in_iov[i][1] = (struct iovec){u->together[i].data + FRONT_DATAGRAM_MAX + 1, TOGETHER_BYTES};
		u->in[i].msg_hdr = (struct msghdr){
			.msg_name = &u->name[i], .msg_iov = u->in_iov[i], .msg_iovlen = 2, .msg_control = &u->in_control[i]};
	}
	u->fd = udp_socket(where->addr, where->peer);
	if (u->fd < 0)
		r = u->fd;
	else if (where->steer == NULL)
		u->ready = u->fd;
	else
		r = open_two(u, where);
	if (r != 0)
		udp_close(u);
	else
		*io = u;
	return r;
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
	return ((struct udp *)io)->ready;
}

/* Hands over what came together. */
static unsigned take(struct udp *u, struct front_packet *p, unsigned n)
{
	unsigned k = 0;

	for (; u->taken < u->ntogether && k < n; k++) {
		struct together *t = &u->together[u->taken];
		uint32_t bytes = t->n - t->at < t->segment ? t->n - t->at : t->segment;

		p[k].n = bytes <= FRONT_DATAGRAM_MAX ? bytes : FRONT_DATAGRAM_MAX + 1;
		memcpy(p[k].data, t->data + t->at, p[k].n);
		wn_addr_from_sockaddr(&p[k].addr, &u->name[u->taken]);
		t->at += bytes;
		if (t->at >= t->n)
			u->taken++;
	}
	return k;
}

/* Of how many bytes each; 0: one datagram. */
static uint32_t segment_of(struct msghdr *h)
{
	struct cmsghdr *c = h->msg_controllen >= CMSG_LEN(sizeof(int)) ? CMSG_FIRSTHDR(h) : NULL;
	int bytes;

	if (c == NULL || c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
		return 0;
	memcpy(&bytes, CMSG_DATA(c), sizeof(bytes));
	return bytes > 0 ? (uint32_t)bytes : 0;
}

/* A batch in which something came together is moved to memory of our own, to be handed over piece by piece, in order. */
static void set_aside(struct udp *u, unsigned got)
{
	u->ntogether = got;
	u->taken = 0;
	for (unsigned i = 0; i < got; i++) {
		struct together *t = &u->together[i];
		uint32_t first = u->in[i].msg_len < FRONT_DATAGRAM_MAX + 1 ? u->in[i].msg_len : FRONT_DATAGRAM_MAX + 1;

		memcpy(t->data, u->in_iov[i][0].iov_base, first);
		t->n = u->in[i].msg_len;
		t->segment = segment_of(&u->in[i].msg_hdr);
		t->at = 0;
		if (t->segment == 0)
			t->segment = t->n > 0 ? t->n : 1;
	}
}

static int receive(struct udp *u, int fd, struct front_packet *p, unsigned n)
{
	bool some = false;
	int got;

	for (unsigned i = 0; i < n; i++) {
		u->in_iov[i][0].iov_base = p[i].data;
		u->in[i].msg_hdr.msg_namelen = sizeof(u->name[i]);
		u->in[i].msg_hdr.msg_controllen = sizeof(u->in_control[i]);
	}
	got = recvmmsg(fd, u->in, n, MSG_DONTWAIT, NULL);
	if (got < 0)
		return errno == EAGAIN || errno == EINTR || errno == ECONNREFUSED ? 0 : -errno;
	for (int i = 0; i < got; i++)
		some |= u->in[i].msg_hdr.msg_controllen > 0;
	if (some) {
		set_aside(u, (unsigned)got);
		return (int)take(u, p, n);
	}
	for (int i = 0; i < got; i++) {
		p[i].n = u->in[i].msg_len <= FRONT_DATAGRAM_MAX ? u->in[i].msg_len : FRONT_DATAGRAM_MAX + 1;
		wn_addr_from_sockaddr(&p[i].addr, &u->name[i]);
	}
	return got;
}

static unsigned waiting_in(int fd, uint32_t besides)
{
	uint32_t info[SK_MEMINFO_VARS];
	socklen_t len = sizeof(info);

	if (getsockopt(fd, SOL_SOCKET, SO_MEMINFO, info, &len) != 0 || info[SK_MEMINFO_RCVBUF] < 256)
		return 256;
	return (info[SK_MEMINFO_RMEM_ALLOC] + besides) / (info[SK_MEMINFO_RCVBUF] / 256);
}

/* Of two queues the fuller one. */
static unsigned udp_waiting(void *io)
{
	const struct udp *u = io;
	uint32_t ours = 0;
	unsigned all, first;

	/* what was set aside is waiting too; the kernel counts some 1,280 bytes for a datagram */
	for (unsigned i = u->taken; i < u->ntogether; i++)
		ours += (u->together[i].n - u->together[i].at) / u->together[i].segment * 1280u;
	all = waiting_in(u->fd, ours);
	first = u->first >= 0 ? waiting_in(u->first, 0) : 0;
	return first > all ? first : all;
}

static int udp_recv(void *io, struct front_packet *p, unsigned n)
{
	struct udp *u = io;
	int got = 0;

	if (u->taken < u->ntogether)
		return (int)take(u, p, n);
	if (u->first >= 0)
		got = receive(u, u->first, p, n);
	return got != 0 ? got : receive(u, u->fd, p, n);
}

/* Which send the packet joins; `next`: a new one. It must not go before an earlier packet of its order. */
static unsigned join(const struct udp *u, const struct front_packet *p, unsigned i, unsigned next)
{
	unsigned floor = next > JOIN_BACK ? next - JOIN_BACK : 0;

	if (!u->segments || p[i].n > SEGMENT_BYTES_MAX || p[i].n == 0)
		return next;
	for (unsigned k = i; p[i].order != 0 && k-- > 0;) {
		if (p[k].order == p[i].order) {
			floor = u->in_send[k] > floor ? u->in_send[k] : floor;
			break;
		}
	}
	for (unsigned s = next; s-- > floor;) {
		const struct send *to = &u->send[s];

		if (to->segment == p[i].n && to->count < SEGMENTS_MAX && (to->count + 1u) * to->segment < TOGETHER_BYTES - 64 &&
		    (u->connected || wn_addr_eq(&p[to->packet[0]].addr, &p[i].addr)))
			return s;
	}
	return next;
}

static unsigned gather(struct udp *u, const struct front_packet *p, unsigned n)
{
	unsigned sends = 0, at = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned s = join(u, p, i, sends);
		struct send *to = &u->send[s];

		if (s == sends) {
			to->segment = p[i].n <= UINT16_MAX ? (uint16_t)p[i].n : 0;
			to->count = 0;
			sends++;
		}
		to->packet[to->count++] = (uint16_t)i;
		u->in_send[i] = (uint8_t)s;
	}
	for (unsigned s = 0; s < sends; s++) {
		const struct send *from = &u->send[s];
		struct msghdr *h = &u->out[s].msg_hdr;

		*h = (struct msghdr){.msg_iov = &u->iov[at], .msg_iovlen = from->count};
		for (unsigned k = 0; k < from->count; k++, at++)
			u->iov[at] = (struct iovec){p[from->packet[k]].data, p[from->packet[k]].n};
		if (!u->connected) {
			h->msg_namelen = wn_addr_to_sockaddr(&p[from->packet[0]].addr, &u->to[s]);
			h->msg_name = &u->to[s];
		}
		if (from->count > 1) {
			h->msg_control = &u->control[s];
			h->msg_controllen = CMSG_LEN(sizeof(uint16_t));
			*CMSG_FIRSTHDR(h) = (struct cmsghdr){CMSG_LEN(sizeof(uint16_t)), IPPROTO_UDP, UDP_SEGMENT};
			memcpy(CMSG_DATA(CMSG_FIRSTHDR(h)), &from->segment, sizeof(uint16_t));
		}
	}
	return sends;
}

static unsigned udp_send(void *io, const struct front_packet *p, unsigned n);

static unsigned send_rest(struct udp *u, const struct front_packet *p, unsigned from, unsigned sends)
{
	struct front_packet rest[FRONT_BATCH];
	unsigned n = 0;

	for (unsigned s = from; s < sends; s++)
		for (unsigned k = 0; k < u->send[s].count; k++)
			rest[n++] = p[u->send[s].packet[k]];
	return udp_send(u, rest, n);
}

static unsigned udp_send(void *io, const struct front_packet *p, unsigned n)
{
	struct udp *u = io;
	unsigned sends = gather(u, p, n), at = 0, sent = 0;

	while (at < sends) {
		int r = sendmmsg(u->fd, u->out + at, sends - at, MSG_DONTWAIT);

		for (int i = 0; i < r; i++)
			sent += (unsigned)u->out[at++].msg_hdr.msg_iovlen;
		if (r > 0 || (r < 0 && errno == EINTR))
			continue;
		if (r == 0 || errno == EAGAIN || errno == ENOBUFS)
			break;
		if (u->out[at].msg_hdr.msg_iovlen > 1 && (errno == EIO || errno == EINVAL || errno == EMSGSIZE)) {
			/* a device that does not take them together, for good, or a path that is too narrow for these: what is left once
			 * more, each by itself */
			const bool path = errno != EIO;

			u->segments = false;
			sent += send_rest(u, p, at, sends);
			u->segments = path;
			return sent;
		}
		if (errno == EMSGSIZE) {
			allow_fragments(u->fd, u->family, true);
			if (sendmsg(u->fd, &u->out[at].msg_hdr, MSG_DONTWAIT) >= 0)
				sent++;
			allow_fragments(u->fd, u->family, false);
		}
		at++; /* one destination that cannot be reached must not hold back the others */
	}
	return sent;
}

const struct front_io_ops front_io_udp = {udp_open, udp_own, udp_fd, udp_recv, udp_waiting, udp_send, udp_close};
