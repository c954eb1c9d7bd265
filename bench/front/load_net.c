/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/filter.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define BUFFER_BYTES (8 << 20)

struct out {
	struct mmsghdr msg[LOAD_BATCH];
	struct iovec iov[LOAD_BATCH];
	struct sockaddr_in to[LOAD_BATCH];
	char control[LOAD_BATCH][64] __attribute__((aligned(8)));
	unsigned n;
};

struct in {
	struct mmsghdr msg[LOAD_BATCH];
	struct iovec iov[LOAD_BATCH];
	struct load_pkt pkt[LOAD_BATCH];
	char control[LOAD_BATCH][64] __attribute__((aligned(8)));
	char data[LOAD_BATCH][LOAD_TEXT];
};

struct load_net {
	unsigned ports, flags;
	int fd[LOAD_PORTS_MAX];
	uint16_t port[LOAD_PORTS_MAX];
	struct out *out;
	struct in *in;
	uint64_t sent, unsent;
};

bool load_guard(const struct sockaddr_in *to)
{
	return to->sin_family == AF_INET && (ntohl(to->sin_addr.s_addr) >> 24) == 127;
}

uint64_t load_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

void load_pace_start(struct load_pace *p, uint64_t rate)
{
	*p = (struct load_pace){.start = load_now_ns(), .rate = rate};
}

unsigned load_due(struct load_pace *p, unsigned most)
{
	uint64_t due, late = p->rate / 50 + 1;

	if (p->rate == 0)
		return most;
	due = (load_now_ns() - p->start) / 1000 * p->rate / 1000000;
	due = due > p->done + p->missed ? due - p->done - p->missed : 0;
	if (due > late + most) {
		p->missed += due - late - most;
		due = late + most;
	}
	due = due > most ? most : due;
	p->done += due;
	return (unsigned)due;
}

/* What a deaf socket is sent is dropped before it is queued. */
static int deafen(int fd)
{
	struct sock_filter none = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog prog = {1, &none};

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog));
}

static int open_one(struct load_net *n, unsigned i, const struct sockaddr_in *at)
{
	struct sockaddr_in a = *at;
	int bytes = BUFFER_BYTES, one = 1, fd;

	a.sin_port = htons((uint16_t)(ntohs(at->sin_port) + i));
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	n->fd[i] = fd;
	n->port[i] = ntohs(a.sin_port);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	if ((n->flags & LOAD_OWN) != 0 && setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof(one)) != 0)
		return -errno;
	if ((n->flags & LOAD_DEAF) != 0 && deafen(fd) != 0)
		return -errno;
	return bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 ? 0 : -errno;
}

int load_net_new(const struct sockaddr_in *at, unsigned ports, unsigned flags, struct load_net **out)
{
	struct load_net *n = calloc(1, sizeof(*n));
	int r = 0;

	if (n == NULL || ports == 0 || ports > LOAD_PORTS_MAX) {
		free(n);
		return n == NULL ? -ENOMEM : -EINVAL;
	}
	n->ports = ports;
	n->flags = flags;
	for (unsigned i = 0; i < LOAD_PORTS_MAX; i++)
		n->fd[i] = -1;
	n->out = calloc(ports, sizeof(*n->out));
	n->in = calloc(ports, sizeof(*n->in));
	if (n->out == NULL || n->in == NULL)
		r = -ENOMEM;
	for (unsigned i = 0; r == 0 && i < ports; i++)
		r = open_one(n, i, at);
	if (r != 0)
		load_net_free(n);
	else
		*out = n;
	return r;
}

void load_net_free(struct load_net *n)
{
	if (n == NULL)
		return;
	for (unsigned i = 0; i < LOAD_PORTS_MAX; i++)
		if (n->fd[i] >= 0)
			close(n->fd[i]);
	free(n->out);
	free(n->in);
	free(n);
}

unsigned load_net_port(const struct load_net *n, unsigned sock)
{
	return n->port[sock];
}

int load_net_fd(const struct load_net *n, unsigned sock)
{
	return n->fd[sock];
}

static void flush(struct load_net *n, unsigned sock)
{
	struct out *o = &n->out[sock];
	unsigned at = 0;

	for (unsigned tries = 0; at < o->n && tries < 100; tries++) {
		int r = sendmmsg(n->fd[sock], o->msg + at, o->n - at, 0);

		if (r > 0)
			at += (unsigned)r;
		else if (errno != EAGAIN && errno != EINTR && errno != ENOBUFS)
			break;
	}
	n->sent += at;
	n->unsent += o->n - at;
	o->n = 0;
}

static void *control(struct msghdr *h, int level, int type, const void *p, size_t n)
{
	struct cmsghdr *c = (struct cmsghdr *)((char *)h->msg_control + h->msg_controllen);

	c->cmsg_level = level;
	c->cmsg_type = type;
	c->cmsg_len = CMSG_LEN(n);
	memcpy(CMSG_DATA(c), p, n);
	h->msg_controllen += CMSG_SPACE(n);
	return c;
}

void load_put(struct load_net *n, unsigned sock, uint32_t src, const struct sockaddr_in *to, const void *p, size_t len, uint16_t segment)
{
	struct out *o = &n->out[sock];
	const struct in_pktinfo info = {.ipi_spec_dst.s_addr = src};
	unsigned i;
	struct msghdr *h;

	if (o->n == LOAD_BATCH)
		flush(n, sock);
	i = o->n++;
	h = &o->msg[i].msg_hdr;
	o->to[i] = *to;
	o->iov[i] = (struct iovec){(void *)(uintptr_t)p, len};
	*h = (struct msghdr){.msg_name = &o->to[i], .msg_namelen = sizeof(o->to[i]), .msg_iov = &o->iov[i], .msg_iovlen = 1};
	if (src == 0 && segment == 0)
		return;
	h->msg_control = o->control[i];
	if (src != 0)
		control(h, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	if (segment != 0)
		control(h, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
}

void load_flush(struct load_net *n)
{
	for (unsigned i = 0; i < n->ports; i++)
		if (n->out[i].n > 0)
			flush(n, i);
}

static uint32_t own_address(struct msghdr *h)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c != NULL; c = CMSG_NXTHDR(h, c)) {
		struct in_pktinfo info;

		if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
			memcpy(&info, CMSG_DATA(c), sizeof(info));
			return info.ipi_addr.s_addr;
		}
	}
	return 0;
}

unsigned load_recv(struct load_net *n, unsigned sock, struct load_pkt **out)
{
	struct in *in = &n->in[sock];
	int got;

	for (unsigned i = 0; i < LOAD_BATCH; i++) {
		struct msghdr *h = &in->msg[i].msg_hdr;

		in->iov[i] = (struct iovec){in->data[i], LOAD_TEXT};
		*h = (struct msghdr){
			.msg_name = &in->pkt[i].peer, .msg_namelen = sizeof(in->pkt[i].peer), .msg_iov = &in->iov[i], .msg_iovlen = 1};
		if ((n->flags & LOAD_OWN) != 0) {
			h->msg_control = in->control[i];
			h->msg_controllen = sizeof(in->control[i]);
		}
	}
	got = recvmmsg(n->fd[sock], in->msg, LOAD_BATCH, MSG_DONTWAIT, NULL);
	for (int i = 0; i < got; i++) {
		in->pkt[i].data = in->data[i];
		in->pkt[i].n = in->msg[i].msg_len;
		in->pkt[i].own = (n->flags & LOAD_OWN) != 0 ? own_address(&in->msg[i].msg_hdr) : 0;
	}
	*out = in->pkt;
	return got > 0 ? (unsigned)got : 0;
}

void load_wait(const struct load_net *a, const struct load_net *b)
{
	struct pollfd p[2 * LOAD_PORTS_MAX];
	nfds_t n = 0;

	for (const struct load_net *w = a; w != NULL; w = w == a ? b : NULL)
		for (unsigned i = 0; i < w->ports; i++)
			p[n++] = (struct pollfd){.fd = w->fd[i], .events = POLLIN};
	(void)poll(p, n, 1);
}

uint64_t load_sent(const struct load_net *n)
{
	return n->sent;
}

uint64_t load_unsent(const struct load_net *n)
{
	return n->unsent;
}

/* Whether something waits at a socket of the server's port. */
static bool waits(const struct load_options *o)
{
	FILE *f = fopen("/proc/net/udp", "r");
	unsigned port, waiting, all = 0;
	char line[512];

	while (f != NULL && fgets(line, sizeof(line), f) != NULL)
		if (sscanf(line, " %*d: %*8x:%4x %*x:%*x %*x %*x:%x", &port, &waiting) == 2 && port == ntohs(o->to.sin_port))
			all |= waiting;
	if (f != NULL)
		fclose(f);
	return all != 0;
}

void load_burst_end(const struct load_options *o)
{
	const struct timespec little = {.tv_nsec = 200000};

	if (o->burst == 0)
		return;
	kill((pid_t)o->pid, SIGCONT);
	while (waits(o) && !load_stop)
		nanosleep(&little, NULL);
}

void load_burst(const struct load_options *o, uint64_t sent)
{
	static uint64_t next;

	if (o->burst == 0 || sent < next)
		return;
	if (next > 0)
		load_burst_end(o);
	kill((pid_t)o->pid, SIGSTOP);
	next = sent + o->burst;
}
