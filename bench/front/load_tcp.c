/* SPDX-License-Identifier: Apache-2.0 */
/* Whole calls over TCP, a new socket each; the respondent is on UDP. */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <unistd.h>

#include "load_call.h"
#include "load_time.h"

#define SLOTS_MAX  60000u
#define EVENTS     256
#define IN_BYTES   4096u
#define OUT_BYTES  2048u
#define PORTS_FROM 20000u
#define PORTS      30000u
#define SWEEP_NS   50000000u
#define TRIES_MAX  3u

struct tcp_call {
	struct load_call c; /* first, so that slot and generation are at hand */
	int fd;
	unsigned port;
	bool connecting;
	size_t in_n, out_n;
	char in[IN_BYTES], out[OUT_BYTES];
};

struct tcp_run {
	struct call_shape shape;
	const struct load_options *o;
	struct load_net *uas;
	struct tcp_call *call;
	uint32_t *free, nfree, live, cap, used;
	int epoll;
	uint64_t next, now, began, until, last_sweep;
	char ok[LOAD_BATCH][LOAD_TEXT];
	struct load_hist setup;
	uint64_t started, connected, completed, refused, late, aborted, unopened;
	unsigned status;
};

static void end(struct tcp_run *k, struct tcp_call *t)
{
	close(t->fd);
	t->fd = -1;
	t->c.state = CALL_FREE;
	k->free[k->nfree++] = t->c.slot;
	k->live--;
}

/* False: the call is over. */
static bool push(struct tcp_run *k, struct tcp_call *t)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = t->c.slot};
	ssize_t n = send(t->fd, t->out, t->out_n, MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n < 0 && errno != EAGAIN) {
		k->aborted++;
		end(k, t);
		return false;
	}
	n = n < 0 ? 0 : n;
	memmove(t->out, t->out + n, t->out_n - (size_t)n);
	t->out_n -= (size_t)n;
	if (t->out_n > 0 || t->connecting) {
		ev.events |= t->out_n > 0 ? EPOLLOUT : 0u;
		epoll_ctl(k->epoll, EPOLL_CTL_MOD, t->fd, &ev);
		t->connecting = false;
	}
	return true;
}

static void queue(struct tcp_call *t, const char *p, size_t n)
{
	if (n <= OUT_BYTES - t->out_n) {
		memcpy(t->out + t->out_n, p, n);
		t->out_n += n;
	}
}

/* From the next address and port; a port that is still taken is passed over. */
static int open_socket(struct tcp_run *k, struct tcp_call *t)
{
	for (unsigned tries = 0; tries < 8; tries++) {
		struct sockaddr_in own = {.sin_family = AF_INET};
		int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

		if (fd < 0)
			return -1;
		t->c.address = (unsigned)(k->next % k->o->addresses);
		t->port = PORTS_FROM + (unsigned)(k->next / k->o->addresses % PORTS);
		k->next++;
		own.sin_addr.s_addr = load_address(t->c.address);
		own.sin_port = htons((uint16_t)t->port);
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		if (bind(fd, (struct sockaddr *)&own, sizeof(own)) == 0 &&
		    (connect(fd, (const struct sockaddr *)&k->o->to, sizeof(k->o->to)) == 0 || errno == EINPROGRESS))
			return fd;
		close(fd);
	}
	return -1;
}

static void begin(struct tcp_run *k)
{
	struct tcp_call *t = &k->call[k->free[--k->nfree]];
	struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT, .data.u32 = t->c.slot};

	k->started++;
	k->live++;
	if (t->c.slot >= k->used)
		k->used = t->c.slot + 1;
	t->c.generation++;
	t->c.user = load_random() % k->o->users;
	t->c.tries = t->c.cseq = 0;
	t->c.began_ns = k->now;
	t->c.state = CALL_INVITED;
	t->in_n = t->out_n = 0;
	t->connecting = true;
	t->fd = open_socket(k, t);
	if (t->fd < 0 || epoll_ctl(k->epoll, EPOLL_CTL_ADD, t->fd, &ev) != 0) {
		k->unopened++;
		end(k, t);
		return;
	}
	call_write_invite(&k->shape, &t->c, t->port, NULL);
	queue(t, t->c.request, t->c.request_n);
}

/* False: the call is over. */
static bool on_final(struct tcp_run *k, struct tcp_call *t, const struct load_seen *s, bool invite)
{
	struct load_call *c = &t->c;
	struct load_nonce nonce;

	if (invite && c->state == CALL_INVITED && s->status < 300) {
		load_hist_add(&k->setup, k->now - c->began_ns);
		k->connected++;
		call_write_ack_and_bye(&k->shape, c, t->port, s);
		queue(t, c->ack, c->ack_n);
		queue(t, c->request, c->request_n);
		c->state = CALL_BYE;
		return push(k, t);
	}
	if (invite && c->state == CALL_INVITED) {
		call_write_refused_ack(&k->shape, c, t->port, s);
		queue(t, c->ack, c->ack_n);
		if (s->status == 407 && c->tries < TRIES_MAX && load_challenge(k->shape.digest, s, &nonce)) {
			call_write_invite(&k->shape, c, t->port, &nonce);
			queue(t, c->request, c->request_n);
			return push(k, t);
		}
		k->refused++;
		k->status = s->status;
		if (push(k, t))
			end(k, t);
		return false;
	}
	if (!invite && c->state == CALL_BYE) {
		if (s->status < 300) {
			k->completed++;
		} else {
			k->refused++;
			k->status = s->status;
		}
		end(k, t);
		return false;
	}
	return true;
}

/* Length of the first whole message in the buffer; 0: more is needed. */
static size_t whole(const char *p, size_t n)
{
	const char *head = memmem(p, n, "\r\n\r\n", 4), *length;
	size_t body = 0, at;

	if (head == NULL)
		return 0;
	at = (size_t)(head - p) + 4;
	length = memmem(p, at, "\r\nContent-Length:", 17);
	for (length = length != NULL ? length + 17 : head; length < head && (*length == ' ' || (*length >= '0' && *length <= '9'));
	     length++)
		if (*length != ' ')
			body = body * 10 + (size_t)(*length - '0');
	return at + body <= n ? at + body : 0;
}

static void on_bytes(struct tcp_run *k, struct tcp_call *t)
{
	ssize_t got = recv(t->fd, t->in + t->in_n, IN_BYTES - t->in_n, MSG_DONTWAIT);
	size_t at = 0, n;

	if (got <= 0) {
		if (got < 0 && errno == EAGAIN)
			return;
		k->aborted++;
		end(k, t);
		return;
	}
	t->in_n += (size_t)got;
	while ((n = whole(t->in + at, t->in_n - at)) > 0) {
		struct load_seen s;

		load_see(span_of(t->in + at, n), &s);
		at += n;
		if (s.status >= 200 && !on_final(k, t, &s, s.cseq.n >= 8 && memcmp(s.cseq.p + s.cseq.n - 6, "INVITE", 6) == 0))
			return;
	}
	memmove(t->in, t->in + at, t->in_n - at);
	t->in_n -= at;
}

static bool serve(struct tcp_run *k, bool idle)
{
	struct epoll_event ev[EVENTS];
	struct load_pkt *p;
	unsigned all = 0;
	int n = epoll_wait(k->epoll, ev, EVENTS, idle ? 1 : 0);

	k->now = load_now_ns();
	for (int i = 0; i < n; i++) {
		struct tcp_call *t;

		if (ev[i].data.u32 == UINT32_MAX)
			continue;
		t = &k->call[ev[i].data.u32];
		if (t->c.state == CALL_FREE)
			continue;
		if ((ev[i].events & EPOLLOUT) != 0 && (ev[i].events & EPOLLERR) == 0 && !push(k, t))
			continue;
		if ((ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0)
			on_bytes(k, t);
	}
	for (unsigned got = LOAD_BATCH; got == LOAD_BATCH;) {
		got = load_recv(k->uas, 0, &p);
		all += got;
		for (unsigned i = 0; i < got; i++) {
			size_t len = call_respond(&k->shape, span_of(p[i].data, p[i].n), k->ok[i]);

			if (len > 0)
				load_put(k->uas, 0, 0, &p[i].peer, k->ok[i], len, 0);
		}
		load_flush(k->uas);
	}
	return n > 0 || all > 0;
}

static void sweep(struct tcp_run *k)
{
	k->last_sweep = k->now;
	for (uint32_t i = 0; i < k->used; i++) {
		struct tcp_call *t = &k->call[i];

		if (t->c.state != CALL_FREE && k->now - t->c.began_ns > (uint64_t)k->o->deadline_ms * 1000000u) {
			k->late++;
			end(k, t);
		}
	}
}

static void run(struct tcp_run *k)
{
	struct load_pace pace;
	bool moved = true;
	double load_s;
	uint64_t completed_in_time;

	k->began = k->now = k->last_sweep = load_now_ns();
	k->until = k->began + (uint64_t)k->o->seconds * 1000000000u;
	load_pace_start(&pace, k->o->rate);
	while (k->now < k->until && !load_stop && (k->o->count == 0 || k->started < k->o->count)) {
		uint32_t room = k->o->rate > 0 ? k->nfree : k->o->window > k->live ? k->o->window - k->live : 0;
		unsigned due;

		moved = serve(k, !moved);
		room = room > k->nfree ? k->nfree : room;
		due = load_due(&pace, room > LOAD_BATCH ? LOAD_BATCH : room);
		for (unsigned i = 0; i < due; i++)
			begin(k);
		moved |= due > 0;
		if (k->now - k->last_sweep >= SWEEP_NS)
			sweep(k);
	}
	load_s = (double)(load_now_ns() - k->began) / 1e9;
	completed_in_time = k->completed;
	while (k->live > 0 && !load_stop) {
		moved = serve(k, !moved);
		if (k->now - k->last_sweep >= SWEEP_NS)
			sweep(k);
	}
	printf("{\"calls\": %" PRIu64 ", \"connected\": %" PRIu64 ", \"completed\": %" PRIu64 ", \"completed_while\": %" PRIu64
	       ", \"refused\": %" PRIu64 ", \"status\": %u, \"late\": %" PRIu64 ", \"aborted\": %" PRIu64 ", \"unopened\": %" PRIu64
	       ", \"missed\": %" PRIu64 ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"load_seconds\": %.3f, \"seconds\": %.3f}\n",
	       k->started, k->connected, k->completed, completed_in_time, k->refused, k->status, k->late, k->aborted, k->unopened,
	       pace.missed, load_hist_ms(&k->setup, 0.5), load_hist_ms(&k->setup, 0.99), load_s, (double)(load_now_ns() - k->began) / 1e9);
}

int load_tcp(const struct load_options *o)
{
	struct tcp_run *k = calloc(1, sizeof(*k));
	struct rlimit files;
	int r = k == NULL ? -ENOMEM : 0;

	if (k == NULL || o->uas.sin_port == 0) {
		fprintf(stderr, "front-load: tcp needs --uas\n");
		free(k);
		return 2;
	}
	k->o = k->shape.o = o;
	k->shape.run = load_random();
	k->shape.tcp = true;
	k->next = load_random() % ((uint64_t)o->addresses * PORTS);
	k->cap = o->rate > 0 ? SLOTS_MAX : o->window;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
		if (k->cap + 64 > files.rlim_cur && files.rlim_cur > 128)
			k->cap = (uint32_t)files.rlim_cur - 64;
	}
	k->epoll = epoll_create1(EPOLL_CLOEXEC);
	k->call = calloc(k->cap, sizeof(*k->call));
	k->free = calloc(k->cap, sizeof(*k->free));
	if (k->epoll < 0 || k->call == NULL || k->free == NULL)
		r = -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < k->cap; i++) {
		k->call[i].c.slot = i;
		k->free[k->nfree++] = k->cap - 1 - i;
	}
	if (r == 0)
		r = load_digest_new(o, &k->shape.digest);
	if (r == 0)
		r = load_net_new(&o->uas, 1, 0, &k->uas);
	if (r == 0) {
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = UINT32_MAX};

		r = epoll_ctl(k->epoll, EPOLL_CTL_ADD, load_net_fd(k->uas, 0), &ev) == 0 ? 0 : -errno;
	}
	if (r == 0)
		run(k);
	else
		fprintf(stderr, "front-load: %s\n", strerror(-r));
	load_net_free(k->uas);
	load_digest_free(k->shape.digest);
	if (k->epoll >= 0)
		close(k->epoll);
	free(k->call);
	free(k->free);
	free(k);
	return r == 0 ? 0 : 1;
}
