/* SPDX-License-Identifier: Apache-2.0 */
#include "client/inlet.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_AGAIN_MS 100 /* after running out of descriptors */

struct inlet_conn {
	struct inlet *in;
	struct inlet_conn *next, *prev;
	int fd; /* -1: the relay's, or closed */
	struct session *session;
	struct relay *relay;
	bool was_up;
	uint8_t *early;
	size_t early_len;
	void (*stopped)(struct inlet_conn *c, void *user);
	void *user;
};

static void watch(struct inlet *in);

static void on_look_again(uv_timer_t *t)
{
	watch((struct inlet *)t->data);
}

static void forget(struct inlet_conn *c)
{
	struct inlet *in = c->in;

	if (c->session != NULL || c->relay != NULL)
		return;
	if (c->fd >= 0)
		close(c->fd);
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		in->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	free(c->early);
	free(c);
	in->nconns--;
	watch(in);
}

static void on_relay_done(struct relay *r, int err, void *arg)
{
	struct inlet_conn *c = arg;

	(void)r;
	(void)err;
	c->relay = NULL;
	if (c->session != NULL)
		session_end(c->session);
	forget(c);
}

static void on_up(struct session *s, int fd, void *arg)
{
	struct inlet_conn *c = arg;
	int local = c->fd, rc;

	c->was_up = true;
	if (c->in->ev.up != NULL)
		c->in->ev.up(c, local);
	c->fd = -1;
	rc = relay_start(&c->in->loop, (struct relay_side){local, local}, (struct relay_side){fd, fd}, c->early, c->early_len,
			 on_relay_done, c, &c->relay);
	free(c->early);
	c->early = NULL;
	if (rc < 0) {
		fprintf(stderr, "walnut %s: %s\n", c->in->verb, strerror(-rc));
		session_end(s);
	}
}

static void on_down(struct session *s, const struct session_report *r, void *arg)
{
	struct inlet_conn *c = arg;

	(void)s;
	c->session = NULL;
	if (r->fault != SESSION_F_NONE)
		fprintf(stderr, "walnut %s: %s\n", c->in->verb, r->why);
	if (!c->was_up && c->fd >= 0 && c->in->ev.failed != NULL)
		c->in->ev.failed(c, c->fd, r);
	if (c->relay != NULL)
		relay_stop(c->relay);
	forget(c);
}

int inlet_conn_fd(const struct inlet_conn *c)
{
	return c->fd;
}

void inlet_conn_drop(struct inlet_conn *c)
{
	c->stopped = NULL;
	forget(c);
}

void inlet_conn_wait(struct inlet_conn *c, void (*stopped)(struct inlet_conn *c, void *user), void *user)
{
	c->stopped = stopped;
	c->user = user;
}

void inlet_conn_call(struct inlet_conn *c, const struct enrol *e, const char *service, uint16_t port, const uint8_t *early, size_t n)
{
	static const struct session_events events = {.up = on_up, .down = on_down};
	struct session_report r = {.fault = SESSION_F_LOCAL};
	int rc = n > INLET_EARLY_MAX ? -EMSGSIZE : 0;

	c->stopped = NULL;
	if (rc == 0 && n > 0) {
		c->early = malloc(n);
		rc = c->early == NULL ? -ENOMEM : 0;
	}
	if (rc == 0) {
		if (n > 0)
			memcpy(c->early, early, n);
		c->early_len = n;
		rc = session_start(&c->in->env, e, service, port, SDP_TCP, &events, c, &c->session);
	}
	if (rc == 0)
		return;
	r.err = -rc;
	fprintf(stderr, "walnut %s: %s: %s\n", c->in->verb, service, strerror(-rc));
	if (c->in->ev.failed != NULL)
		c->in->ev.failed(c, c->fd, &r);
	forget(c);
}

static void take(struct inlet *in, int fd)
{
	struct inlet_conn *c = calloc(1, sizeof(*c));
	int one = 1;

	if (c == NULL) {
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	c->in = in;
	c->fd = fd;
	c->next = in->conns;
	if (c->next != NULL)
		c->next->prev = c;
	in->conns = c;
	in->nconns++;
	in->ev.accepted(c, in->arg);
}

static void on_acceptable(uv_poll_t *p, int status, int events)
{
	struct inlet *in = (struct inlet *)p->data;

	(void)status;
	(void)events;
	while (in->nconns < INLET_CONNS_MAX && !in->stopping) {
		int fd = accept4(in->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			take(in, fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN && errno != EWOULDBLOCK) {
			/* Out of descriptors: the queue stays full, so look away for a moment. */
			fprintf(stderr, "walnut %s: cannot accept: %s\n", in->verb, strerror(errno));
			uv_poll_stop(&in->poll);
			in->accepting = false;
			uv_timer_start(&in->timer, on_look_again, ACCEPT_AGAIN_MS, 0);
		}
		break;
	}
	watch(in);
}

static void finish(struct inlet *in)
{
	uv_close((uv_handle_t *)&in->timer, NULL);
	client_signals_stop(&in->signals);
	uv_stop(&in->loop);
}

/* Accepts while there is room; when the command is ending, ends with the last connection. */
static void watch(struct inlet *in)
{
	bool room = in->nconns < INLET_CONNS_MAX;

	if (in->stopping) {
		if (in->nconns == 0 && !uv_is_closing((uv_handle_t *)&in->timer))
			finish(in);
	} else if (room && !in->accepting && !uv_is_active((uv_handle_t *)&in->timer)) {
		in->accepting = true;
		uv_poll_start(&in->poll, UV_READABLE, on_acceptable);
	} else if (!room && in->accepting) {
		in->accepting = false;
		uv_poll_stop(&in->poll);
	}
}

static void on_patience_ends(uv_timer_t *t)
{
	finish((struct inlet *)t->data);
}

static void on_stop(void *arg)
{
	struct inlet *in = arg;
	struct inlet_conn *c, *next;

	if (in->stopping)
		_exit(1);
	in->stopping = true;
	uv_close((uv_handle_t *)&in->poll, NULL);
	close(in->fd);
	uv_timer_start(&in->timer, on_patience_ends, INLET_LEAVE_MS, 0);
	for (c = in->conns; c != NULL; c = next) {
		next = c->next;
		if (c->relay != NULL) {
			relay_stop(c->relay);
		} else if (c->session != NULL) {
			session_end(c->session);
		} else if (c->stopped != NULL) {
			c->stopped(c, c->user);
			forget(c);
		}
	}
	watch(in);
}

uv_loop_t *inlet_loop(struct inlet *in)
{
	return &in->loop;
}

int inlet_run(struct inlet *in, const struct client_options *o, const struct wn_addr *addr, const struct inlet_events *ev, void *arg)
{
	struct wn_addr at;
	struct rlimit files;
	int rc;

	/* Three descriptors a connection. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	memset(in, 0, sizeof(*in));
	in->ev = *ev;
	in->arg = arg;
	in->verb = o->verb;
	in->fd = client_listen(o, addr, SOCK_STREAM, &at);
	if (in->fd < 0)
		return in->fd;
	uv_loop_init(&in->loop);
	rc = session_env_init(&in->env, &in->loop, o->timeout_ms);
	if (rc == 0)
		rc = uv_poll_init(&in->loop, &in->poll, in->fd);
	if (rc < 0) {
		fprintf(stderr, "walnut %s: %s\n", o->verb, strerror(-rc));
		close(in->fd);
		return rc;
	}
	uv_timer_init(&in->loop, &in->timer);
	in->poll.data = in;
	in->timer.data = in;
	client_signals_start(&in->signals, &in->loop, on_stop, in);
	in->accepting = true;
	uv_poll_start(&in->poll, UV_READABLE, on_acceptable);
	client_ready(&at);
	uv_run(&in->loop, UV_RUN_DEFAULT);
	session_env_free(&in->env);
	return 0;
}
