/* SPDX-License-Identifier: Apache-2.0 */
#include "front/stream.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream_private.h"

#define EVENTS    64
#define ACCEPTS   32u   /* new connections in one turn */
#define ENDS      1024u /* deadlines in one tick */
#define RETRY_MS  100u  /* how long new ones wait in the kernel when there is no place or descriptor */
#define EVICTIONS 4u    /* for one descriptor */

const char *front_stream_count_name(enum front_stream_count c)
{
	static const char *const name[] = {
#define X(n) [FRONT_STREAM_##n] = #n,
		FRONT_STREAM_COUNTS(X)
#undef X
	};
	return name[c];
}

int front_streams_new(const struct front_streams_options *opt, struct front_streams **out)
{
	struct front_streams *s;
	uint8_t key[16];
	int r;

	if (sodium_init() < 0)
		return -ENOSYS;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	s->opt = *opt;
	s->limit = *opt->limits;
	s->opt.limits = &s->limit;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	r = s->epoll < 0 ? -errno : 0;
	randombytes_buf(key, sizeof(key));
	if (r == 0)
		r = stream_policy_new(&s->limit, key, randombytes_random(), &s->policy);
	if (r == 0) {
		s->conn = calloc(s->limit.connections, sizeof(*s->conn));
		s->pool = malloc((size_t)s->limit.buffers * FRONT_STREAM_MESSAGE_MAX);
		if (s->conn == NULL || s->pool == NULL)
			r = -ENOMEM;
	}
	if (r != 0)
		front_streams_free(s);
	else
		*out = s;
	return r;
}

void front_streams_free(struct front_streams *s)
{
	if (s == NULL)
		return;
	for (uint32_t i = 0; s->conn != NULL && s->policy != NULL && i < s->limit.connections; i++)
		if (stream_slot(s->policy, i)->class != STREAM_FREE)
			stream_end(s, i, false, FRONT_STREAM_closed_by_peer);
	for (unsigned i = 0; i < s->nlistening; i++)
		close(s->on[i].fd);
	if (s->epoll >= 0)
		close(s->epoll);
	stream_policy_free(s->policy);
	free(s->conn);
	free(s->pool);
	free(s);
}

static int open_listener(const struct front_streams *s, const struct wn_addr *addr, int *out)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(addr, &ss);
	const int one = 1;
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	/* What is set here, connections inherit. */
	if ((ss.ss_family == AF_INET6 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) != 0) ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0 || bind(fd, (struct sockaddr *)&ss, len) != 0 ||
	    listen(fd, (int)s->opt.backlog) != 0) {
		r = -errno;
		close(fd);
		return r;
	}
	*out = fd;
	return 0;
}

static int watch_listener(struct front_streams *s, unsigned i, int op, bool armed)
{
	/* A flow of a stream has its transport in the highest bits: small numbers are free. */
	struct epoll_event ev = {.events = armed ? EPOLLIN : 0, .data.u64 = i};

	s->on[i].armed = armed;
	return epoll_ctl(s->epoll, op, s->on[i].fd, &ev) == 0 ? 0 : -errno;
}

int front_streams_listen(struct front_streams *s, enum front_transport transport, unsigned listener, const struct wn_addr *addr)
{
	struct listening *on = &s->on[s->nlistening];
	int r;

	if (s->nlistening == FRONT_LISTENERS_MAX || transport == FRONT_UDP || (transport == FRONT_TLS && s->opt.tls == NULL))
		return -EINVAL;
	r = open_listener(s, addr, &on->fd);
	if (r != 0)
		return r;
	on->transport = transport;
	on->listener = listener;
	r = watch_listener(s, s->nlistening, EPOLL_CTL_ADD, true);
	s->nlistening++;
	return r;
}

int front_streams_fd(const struct front_streams *s)
{
	return s->epoll;
}

/* New ones wait in the kernel for so long: without an event nobody spins. */
static void pause_listener(struct front_streams *s, unsigned i, uint64_t ms)
{
	s->on[i].ready = false;
	s->on[i].rearm_ms = s->now_ms + ms;
	watch_listener(s, i, EPOLL_CTL_MOD, false);
}

static void resume_listeners(struct front_streams *s)
{
	for (unsigned i = 0; i < s->nlistening; i++) {
		if (s->on[i].armed || s->now_ms < s->on[i].rearm_ms)
			continue;
		watch_listener(s, i, EPOLL_CTL_MOD, true);
		s->on[i].ready = true;
	}
}

static void refuse(int fd)
{
	const struct linger at_once = {1, 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(fd);
}

static void admit(struct front_streams *s, const struct listening *on, int fd, const struct wn_addr *addr)
{
	const bool tls = on->transport == FRONT_TLS;
	enum stream_admission a;
	uint32_t slot, victim;

	while ((a = stream_admit(s->policy, addr, tls, s->now_ms, &slot)) == STREAM_FULL && stream_victim(s->policy) != STREAM_NONE)
		stream_end(s, stream_victim(s->policy), true, FRONT_STREAM_evicted);
	if (a != STREAM_ADMITTED) {
		stream_note(s, FRONT_STREAM_per_address);
		refuse(fd);
		return;
	}
	stream_note(s, FRONT_STREAM_accepted);
	if (tls) {
		stream_handshake_count(s->policy, s->now_ms);
		victim = stream_handshake_victim(s->policy);
		if (victim != STREAM_NONE)
			stream_end(s, victim, true, FRONT_STREAM_tls_evicted);
	}
	stream_begin(s, slot, fd, on, addr);
}

/* \return a descriptor, or negative errno: -EAGAIN none is waiting, -EMFILE no descriptor could be had. */
static int accept_one(struct front_streams *s, const struct listening *on, struct wn_addr *addr)
{
	struct pollfd waiting = {.fd = on->fd, .events = POLLIN};
	struct sockaddr_storage ss;

	for (unsigned tries = 0;; tries++) {
		socklen_t len = sizeof(ss);
		int fd = accept4(on->fd, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			wn_addr_from_sockaddr(addr, &ss);
			return fd;
		}
		switch (errno) {
		case EAGAIN:
			return -EAGAIN;
		case EMFILE:
		case ENFILE:
		case ENOBUFS:
		case ENOMEM:
			/* The kernel looks for a descriptor before it looks for a connection. */
			if (poll(&waiting, 1, 0) != 1)
				return -EAGAIN;
			if (tries >= EVICTIONS || stream_victim(s->policy) == STREAM_NONE)
				return -EMFILE;
			stream_end(s, stream_victim(s->policy), true, FRONT_STREAM_evicted_descriptor);
			break;
		default: /* that one's network failed; the next may be well */
			if (tries >= ACCEPTS)
				return -EAGAIN;
		}
	}
}

/* A few of those who wait at one listener. */
static void accept_some(struct front_streams *s, unsigned i, unsigned *left)
{
	struct listening *on = &s->on[i];
	struct wn_addr addr;
	uint64_t wait;

	for (; on->ready && *left > 0; --*left) {
		if (!stream_has_room(s->policy)) {
			pause_listener(s, i, RETRY_MS);
			break;
		}
		wait = on->transport == FRONT_TLS ? stream_handshake_wait(s->policy, s->now_ms) : 0;
		if (wait > 0) {
			stream_note(s, FRONT_STREAM_tls_budget);
			pause_listener(s, i, wait);
			break;
		}
		int fd = accept_one(s, on, &addr);

		if (fd == -EAGAIN) {
			on->ready = false;
		} else if (fd < 0) {
			stream_note(s, FRONT_STREAM_no_descriptor);
			pause_listener(s, i, RETRY_MS);
		} else {
			admit(s, on, fd, &addr);
		}
	}
}

static void serve_events(struct front_streams *s, const struct epoll_event *ev, int n, bool trusted)
{
	for (int i = 0; i < n; i++) {
		uint32_t slot;

		if (ev[i].data.u64 < FRONT_LISTENERS_MAX) {
			s->on[ev[i].data.u64].ready = true;
			continue;
		}
		slot = stream_find(s, ev[i].data.u64);
		if (slot == STREAM_NONE || (stream_slot(s->policy, slot)->class == STREAM_TRUSTED) != trusted)
			continue;
		if ((ev[i].events & EPOLLOUT) != 0)
			stream_writable(s, slot);
		if ((ev[i].events & ~(uint32_t)EPOLLOUT) != 0 && stream_find(s, ev[i].data.u64) == slot)
			stream_readable(s, slot);
	}
}

static void tell_open(struct front_streams *s)
{
	for (unsigned c = STREAM_HANDSHAKE; c <= STREAM_TRUSTED; c++)
		atomic_store_explicit(&s->open[c], stream_count(s->policy, (enum stream_class)c), memory_order_relaxed);
}

bool front_streams_serve(struct front_streams *s, uint64_t now_ms, bool may_accept)
{
	struct epoll_event ev[EVENTS];
	unsigned left = ACCEPTS;
	int n;

	s->now_ms = now_ms;
	n = epoll_wait(s->epoll, ev, EVENTS, 0);
	if (n < 0)
		n = 0;
	serve_events(s, ev, n, true);
	serve_events(s, ev, n, false);
	/* Those who are in are served before anybody comes in: what is too much waits in the kernel. */
	if (n < EVENTS && may_accept)
		for (unsigned i = 0; i < s->nlistening; i++)
			accept_some(s, i, &left);
	tell_open(s);
	return n == EVENTS || left == 0;
}

void front_streams_tick(struct front_streams *s, uint64_t now_ms)
{
	static const enum front_stream_count why[STREAM_DUES] = {
		[STREAM_DUE_HANDSHAKE] = FRONT_STREAM_deadline_handshake, [STREAM_DUE_FIRST] = FRONT_STREAM_deadline_first,
		[STREAM_DUE_STRANGER] = FRONT_STREAM_deadline_stranger,   [STREAM_DUE_TRUSTED] = FRONT_STREAM_deadline_trusted,
		[STREAM_DUE_STALLED] = FRONT_STREAM_deadline_stalled,
	};
	enum stream_due which;
	uint32_t slot;

	s->now_ms = now_ms;
	for (unsigned i = 0; i < ENDS && (slot = stream_due(s->policy, now_ms, &which)) != STREAM_NONE; i++)
		stream_end(s, slot, which != STREAM_DUE_TRUSTED, why[which]);
	resume_listeners(s);
	tell_open(s);
}

uint64_t front_streams_count(const struct front_streams *s, enum front_stream_count c)
{
	return atomic_load_explicit(&s->count[c], memory_order_relaxed);
}

uint32_t front_streams_open(const struct front_streams *s, enum stream_class class)
{
	return atomic_load_explicit(&s->open[class], memory_order_relaxed);
}

uint32_t front_streams_descriptors(uint32_t want)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) != 0)
		return 0;
	if (l.rlim_cur < want) {
		struct rlimit more = {want, l.rlim_max < want ? want : l.rlim_max};

		if (setrlimit(RLIMIT_NOFILE, &more) != 0) {
			more = (struct rlimit){l.rlim_max < want ? l.rlim_max : want, l.rlim_max};
			(void)setrlimit(RLIMIT_NOFILE, &more);
		}
		if (getrlimit(RLIMIT_NOFILE, &l) != 0)
			return 0;
	}
	return l.rlim_cur > want ? want : (uint32_t)l.rlim_cur;
}
