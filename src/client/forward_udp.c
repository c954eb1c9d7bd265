/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/forward.h"
#include "client/session.h"

#define DATAGRAMS 64 /* taken at a time before others have their turn */
#define SWEEP_MS  1000

struct waiting {
	uint16_t len;
	uint8_t p[SESSION_UDP_MAX];
};

/* One local source and its session. */
struct flow {
	struct forwarder *f;
	struct flow *next;
	struct wn_addr local;
	struct session *session; /* NULL after a failure, until blocked_until */
	bool up, ending;
	uint64_t used_ms, blocked_until;
	struct waiting *queue; /* FORWARD_QUEUE_MAX of them, until it is up */
	unsigned queued;
};

struct forwarder {
	uv_loop_t loop;
	struct session_env env;
	const struct enrol *enrol;
	const char *service;
	int fd;
	uv_poll_t poll;
	uv_timer_t timer;
	struct client_signals signals;
	struct flow *flows;
	unsigned nflows;
	bool stopping;
	uint64_t oversize, queue_full, no_flow;
};

static void finish(struct forwarder *f)
{
	if (uv_is_closing((uv_handle_t *)&f->timer))
		return;
	uv_close((uv_handle_t *)&f->timer, NULL);
	client_signals_stop(&f->signals);
	uv_stop(&f->loop);
}

static void forget(struct flow *fl)
{
	struct forwarder *f = fl->f;

	for (struct flow **p = &f->flows; *p != NULL; p = &(*p)->next) {
		if (*p == fl) {
			*p = fl->next;
			break;
		}
	}
	f->nflows--;
	free(fl->queue);
	free(fl);
	if (f->stopping && f->nflows == 0)
		finish(f);
}

static void too_long(struct forwarder *f, size_t n, size_t max)
{
	if (f->oversize++ == 0)
		fprintf(stderr, "walnut forward: a datagram of %zu bytes is longer than the %zu that fit, dropped (said once)\n", n, max);
}

static void send_on(struct flow *fl, const uint8_t *p, size_t n)
{
	if (session_send(fl->session, p, n) == -EMSGSIZE)
		too_long(fl->f, n, session_send_max(fl->session));
}

static void on_up(struct session *s, int fd, void *arg)
{
	struct flow *fl = arg;

	(void)s;
	(void)fd;
	fl->up = true;
	for (unsigned i = 0; i < fl->queued; i++)
		send_on(fl, fl->queue[i].p, fl->queue[i].len);
	free(fl->queue);
	fl->queue = NULL;
	fl->queued = 0;
}

static void on_answer(struct session *s, const uint8_t *p, size_t n, void *arg)
{
	struct flow *fl = arg;
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&fl->local, &ss);

	(void)s;
	fl->used_ms = wn_now_ms();
	(void)sendto(fl->f->fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)&ss, len);
}

static void on_down(struct session *s, const struct session_report *r, void *arg)
{
	struct flow *fl = arg;

	(void)s;
	fl->session = NULL;
	if (r->fault != SESSION_F_NONE)
		fprintf(stderr, "walnut forward: %s%s\n", r->why, r->sip_status == 488 ? "; a TCP service is forwarded without --udp" : "");
	if (fl->up || fl->ending || fl->f->stopping) {
		/* The next datagram signs in again. */
		forget(fl);
		return;
	}
	/* Every further datagram would sign in anew: slowly instead. */
	fl->blocked_until = wn_now_ms() + FORWARD_AGAIN_MS;
	free(fl->queue);
	fl->queue = NULL;
	fl->queued = 0;
}

static void end_flow(struct flow *fl)
{
	fl->ending = true;
	if (fl->session != NULL)
		session_end(fl->session);
	else
		forget(fl);
}

static int begin(struct flow *fl)
{
	static const struct session_events events = {.up = on_up, .datagram = on_answer, .down = on_down};
	struct forwarder *f = fl->f;
	int rc;

	fl->queue = calloc(FORWARD_QUEUE_MAX, sizeof(*fl->queue));
	if (fl->queue == NULL)
		return -ENOMEM;
	rc = session_start(&f->env, f->enrol, f->service, 0, SDP_UDP, &events, fl, &fl->session);
	if (rc < 0) {
		fprintf(stderr, "walnut forward: %s: %s\n", f->service, strerror(-rc));
		fl->blocked_until = wn_now_ms() + FORWARD_AGAIN_MS;
		free(fl->queue);
		fl->queue = NULL;
	}
	return rc;
}

/* Makes room by ending the flow that has been idle longest. It is gone when its BYE is answered, so the newcomer tries again later. */
static void make_room(struct forwarder *f, uint64_t now_ms)
{
	struct flow *oldest = NULL;

	for (struct flow *fl = f->flows; fl != NULL; fl = fl->next) {
		if (!fl->ending && (oldest == NULL || fl->used_ms < oldest->used_ms))
			oldest = fl;
	}
	if (oldest != NULL && now_ms - oldest->used_ms >= FORWARD_BUSY_MS)
		end_flow(oldest);
}

static struct flow *flow_of(struct forwarder *f, const struct wn_addr *local, uint64_t now_ms)
{
	struct flow *fl;

	for (fl = f->flows; fl != NULL; fl = fl->next) {
		if (!fl->ending && wn_addr_eq(&fl->local, local))
			break;
	}
	if (fl == NULL) {
		if (f->nflows >= FORWARD_FLOWS_MAX)
			make_room(f, now_ms);
		if (f->nflows >= FORWARD_FLOWS_MAX) {
			if (f->no_flow++ == 0)
				fprintf(stderr, "walnut forward: more than %d local senders at a time, dropped (said once)\n",
					FORWARD_FLOWS_MAX);
			return NULL;
		}
		fl = calloc(1, sizeof(*fl));
		if (fl == NULL)
			return NULL;
		fl->f = f;
		fl->local = *local;
		fl->next = f->flows;
		f->flows = fl;
		f->nflows++;
	}
	fl->used_ms = now_ms;
	if (fl->session == NULL && now_ms >= fl->blocked_until && begin(fl) < 0)
		return NULL;
	return fl->session != NULL ? fl : NULL;
}

static void got_datagram(struct forwarder *f, const struct wn_addr *from, const uint8_t *p, size_t n)
{
	struct flow *fl;

	if (n > SESSION_UDP_MAX) {
		too_long(f, n, SESSION_UDP_MAX);
		return;
	}
	fl = flow_of(f, from, wn_now_ms());
	if (fl == NULL)
		return;
	if (fl->up) {
		send_on(fl, p, n);
	} else if (fl->queued < FORWARD_QUEUE_MAX) {
		struct waiting *w = &fl->queue[fl->queued++];

		memcpy(w->p, p, n);
		w->len = (uint16_t)n;
	} else {
		f->queue_full++;
	}
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct forwarder *f = (struct forwarder *)poll->data;
	uint8_t p[SESSION_UDP_MAX + 1];

	(void)events;
	if (status < 0)
		uv_poll_start(poll, UV_READABLE, on_readable);
	for (unsigned i = 0; i < DATAGRAMS; i++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		struct wn_addr from;
		/* MSG_TRUNC: the length that it had. */
		ssize_t n = recvfrom(f->fd, p, sizeof(p), MSG_DONTWAIT | MSG_TRUNC, (struct sockaddr *)&ss, &len);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0)
			continue;
		wn_addr_from_sockaddr(&from, &ss);
		got_datagram(f, &from, p, (size_t)n);
	}
}

static void on_sweep(uv_timer_t *t)
{
	struct forwarder *f = (struct forwarder *)t->data;
	uint64_t now_ms = wn_now_ms();
	struct flow *next;

	for (struct flow *fl = f->flows; fl != NULL; fl = next) {
		next = fl->next;
		if (!fl->ending && now_ms - fl->used_ms >= FORWARD_IDLE_MS)
			end_flow(fl);
	}
}

static void on_patience_ends(uv_timer_t *t)
{
	finish((struct forwarder *)t->data);
}

static void on_stop(void *arg)
{
	struct forwarder *f = arg;
	struct flow *next;

	if (f->stopping)
		_exit(1);
	f->stopping = true;
	uv_close((uv_handle_t *)&f->poll, NULL);
	close(f->fd);
	uv_timer_start(&f->timer, on_patience_ends, FORWARD_LEAVE_MS, 0);
	if (f->nflows == 0)
		finish(f);
	for (struct flow *fl = f->flows; fl != NULL; fl = next) {
		next = fl->next;
		if (!fl->ending)
			end_flow(fl);
	}
}

int forward_udp(const struct client_options *o, const struct wn_addr *addr, const struct enrol *e, const char *service)
{
	static struct forwarder f;
	struct wn_addr at;
	struct rlimit files;
	int rc;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	f.enrol = e;
	f.service = service;
	f.fd = client_listen(o, addr, SOCK_DGRAM, &at);
	if (f.fd < 0)
		return f.fd;
	uv_loop_init(&f.loop);
	rc = session_env_init(&f.env, &f.loop, o->timeout_ms);
	if (rc == 0)
		rc = uv_poll_init(&f.loop, &f.poll, f.fd);
	if (rc < 0) {
		fprintf(stderr, "walnut forward: %s\n", strerror(-rc));
		close(f.fd);
		return rc;
	}
	uv_timer_init(&f.loop, &f.timer);
	f.poll.data = &f;
	f.timer.data = &f;
	client_signals_start(&f.signals, &f.loop, on_stop, &f);
	uv_timer_start(&f.timer, on_sweep, SWEEP_MS, SWEEP_MS);
	uv_poll_start(&f.poll, UV_READABLE, on_readable);
	client_ready(&at);
	uv_run(&f.loop, UV_RUN_DEFAULT);
	session_env_free(&f.env);
	if (f.oversize > 0 || f.queue_full > 0)
		fprintf(stderr, "walnut forward: dropped: %llu too long, %llu while signing in\n", (unsigned long long)f.oversize,
			(unsigned long long)f.queue_full);
	return 0;
}
