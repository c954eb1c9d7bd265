/* SPDX-License-Identifier: Apache-2.0 */
#include "front/stream_hop.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream.h"
#include "sip/msg.h"

#define READ_MAX 16384u

enum state { DOWN, CONNECTING, UP };

struct stream_hop {
	struct stream_hop_options opt;
	enum state state;
	int fd;
	bool writable_wanted;
	uint64_t retry_ms; /* DOWN: when to connect */
	uint64_t since_ms; /* CONNECTING: since when; UP, with something unsent: since when nothing was taken */
	uint32_t wait_ms;
	size_t part, unsent;
	char in[FRONT_STREAM_TRUSTED_MAX + READ_MAX];
	char out[STREAM_HOP_QUEUE_MAX];
};

int stream_hop_new(const struct stream_hop_options *opt, struct stream_hop **out)
{
	struct stream_hop *h = malloc(sizeof(*h));

	if (h == NULL)
		return -ENOMEM;
	memset(h, 0, offsetof(struct stream_hop, in));
	h->opt = *opt;
	h->fd = -1;
	h->wait_ms = STREAM_HOP_RETRY_MS;
	*out = h;
	return 0;
}

void stream_hop_free(struct stream_hop *h)
{
	if (h == NULL)
		return;
	if (h->fd >= 0)
		close(h->fd);
	free(h);
}

static void watch(struct stream_hop *h, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u32 = h->opt.tag};

	h->writable_wanted = (events & EPOLLOUT) != 0;
	epoll_ctl(h->opt.epoll, op, h->fd, &ev);
}

static void go_down(struct stream_hop *h, uint64_t now_ms)
{
	const bool was_up = h->state == UP;

	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
	h->state = DOWN;
	h->part = h->unsent = 0;
	h->retry_ms = now_ms + h->wait_ms;
	h->wait_ms = h->wait_ms < STREAM_HOP_RETRY_MAX / 2 ? 2 * h->wait_ms : STREAM_HOP_RETRY_MAX;
	if (was_up)
		h->opt.state(h->opt.arg, NULL);
}

static void go_up(struct stream_hop *h)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct wn_addr own = h->opt.from;

	if (getsockname(h->fd, (struct sockaddr *)&ss, &len) == 0)
		wn_addr_from_sockaddr(&own, &ss);
	h->state = UP;
	watch(h, EPOLL_CTL_MOD, EPOLLIN);
	h->opt.state(h->opt.arg, &own);
}

static void connect_now(struct stream_hop *h, uint64_t now_ms)
{
	struct sockaddr_storage from, to;
	struct wn_addr host = h->opt.from;
	socklen_t from_n, to_n = wn_addr_to_sockaddr(&h->opt.to, &to);
	const int one = 1;

	host.port = 0;
	from_n = wn_addr_to_sockaddr(&host, &from);
	h->state = CONNECTING;
	h->since_ms = now_ms;
	h->fd = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Our host only where it is of the hop's family: else the kernel's choice will do. */
	if (h->fd < 0 || setsockopt(h->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 ||
	    (from.ss_family == to.ss_family && bind(h->fd, (struct sockaddr *)&from, from_n) != 0) ||
	    (connect(h->fd, (struct sockaddr *)&to, to_n) != 0 && errno != EINPROGRESS)) {
		go_down(h, now_ms);
		return;
	}
	watch(h, EPOLL_CTL_ADD, EPOLLOUT);
}

void stream_hop_tick(struct stream_hop *h, uint64_t now_ms)
{
	switch (h->state) {
	case DOWN:
		if (now_ms >= h->retry_ms)
			connect_now(h, now_ms);
		break;
	case CONNECTING:
		if (now_ms - h->since_ms >= STREAM_HOP_CONNECT_MS)
			go_down(h, now_ms);
		break;
	case UP:
		if (h->unsent > 0 && now_ms - h->since_ms >= STREAM_HOP_STALLED_MS)
			go_down(h, now_ms);
		break;
	}
}

/* False: framing is lost. */
static bool frame(struct stream_hop *h, size_t n)
{
	struct sip_msg m;
	size_t at = 0;

	while (at < n) {
		enum sip_verdict v;

		if (h->in[at] == '\r' || h->in[at] == '\n') {
			at++;
			continue;
		}
		v = sip_parse(span_of(h->in + at, n - at), true, &m);
		if (v == SIP_INCOMPLETE)
			break;
		if (v != SIP_OK || m.consumed > FRONT_STREAM_TRUSTED_MAX)
			return false;
		at += m.consumed;
		h->opt.message(h->opt.arg, m.raw);
		if (h->state != UP) /* what it led to could not be sent */
			return true;
	}
	h->part = n - at;
	if (h->part > FRONT_STREAM_TRUSTED_MAX)
		return false;
	memmove(h->in, h->in + at, h->part);
	return true;
}

static void readable(struct stream_hop *h, uint64_t now_ms)
{
	ssize_t n = recv(h->fd, h->in + h->part, READ_MAX, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* It has spoken: the next failure is a new one. */
	if (n > 0)
		h->wait_ms = STREAM_HOP_RETRY_MS;
	if (n <= 0 || !frame(h, h->part + (size_t)n))
		go_down(h, now_ms);
}

/* False: it went down. */
static bool flush(struct stream_hop *h, uint64_t now_ms)
{
	while (h->unsent > 0) {
		ssize_t n = send(h->fd, h->out, h->unsent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)) {
			if (!h->writable_wanted)
				watch(h, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
			return true;
		}
		if (n < 0) {
			go_down(h, now_ms);
			return false;
		}
		h->unsent -= (size_t)n;
		h->since_ms = now_ms;
		memmove(h->out, h->out + n, h->unsent);
	}
	if (h->writable_wanted)
		watch(h, EPOLL_CTL_MOD, EPOLLIN);
	return true;
}

void stream_hop_event(struct stream_hop *h, uint32_t events, uint64_t now_ms)
{
	int error = 0;
	socklen_t len = sizeof(error);

	if (h->state == CONNECTING) {
		if (getsockopt(h->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0)
			go_down(h, now_ms);
		else if ((events & EPOLLOUT) != 0)
			go_up(h);
		return;
	}
	if (h->state == UP && (events & EPOLLOUT) != 0 && !flush(h, now_ms))
		return;
	if (h->state == UP && (events & ~(uint32_t)EPOLLOUT) != 0)
		readable(h, now_ms);
}

bool stream_hop_send(struct stream_hop *h, struct span msg, uint64_t now_ms)
{
	if (h->state != UP || msg.n > sizeof(h->out) - h->unsent)
		return false;
	if (h->unsent == 0)
		h->since_ms = now_ms;
	memcpy(h->out + h->unsent, msg.p, msg.n);
	h->unsent += msg.n;
	return h->writable_wanted || flush(h, now_ms);
}
