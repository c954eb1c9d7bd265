/* SPDX-License-Identifier: Apache-2.0 */
#include "client/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROUNDS 16 /* buffers moved in one turn before others have theirs */

/* One descriptor and what waits for it. The two directions of a socket share one. */
struct port {
	struct relay *r;
	int fd;
	bool socket;
	bool always; /* a file or /dev/null: epoll refuses it, it is always ready */
	bool readable, writable;
	bool bounded; /* a pipe or terminal: what fits is known for PIPE_BUF bytes only */
	bool open;
	int watching;
	uv_poll_t poll;
};

struct direction {
	struct port *from, *to;
	size_t off, len;
	bool eof;    /* nothing more comes */
	bool closed; /* and that has been passed on */
	uint8_t *buf;
};

struct relay {
	uv_loop_t *loop;
	struct port port[4];
	unsigned ports;
	struct direction dir[2];
	uv_timer_t timer; /* turns that need no descriptor: always-ready ones, and the end */
	unsigned handles;
	bool ending;
	int err;
	relay_done done;
	void *arg;
};

static void turn(struct relay *r);

static void on_closed(uv_handle_t *h)
{
	struct relay *r = (struct relay *)h->data;

	if (--r->handles > 0)
		return;
	free(r->dir[0].buf);
	free(r->dir[1].buf);
	free(r);
}

static void close_port(struct port *p)
{
	if (!p->open)
		return;
	p->open = false;
	if (!p->always)
		uv_close((uv_handle_t *)&p->poll, on_closed);
	close(p->fd);
}

static void on_end(uv_timer_t *t)
{
	struct relay *r = (struct relay *)t->data;

	for (unsigned i = 0; i < r->ports; i++)
		close_port(&r->port[i]);
	r->done(r, r->err, r->arg);
	uv_close((uv_handle_t *)&r->timer, on_closed);
}

static void end(struct relay *r, int err)
{
	if (r->ending)
		return;
	r->ending = true;
	r->err = err;
	for (unsigned i = 0; i < r->ports; i++) {
		if (r->port[i].open && !r->port[i].always)
			uv_poll_stop(&r->port[i].poll);
	}
	uv_timer_start(&r->timer, on_end, 0, 0);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
	struct port *p = (struct port *)((char *)poll - offsetof(struct port, poll));

	/* An error makes both ready: the next call says which one it is. libuv has stopped watching then. */
	if (status < 0) {
		p->watching = 0;
		p->readable = true;
		p->writable = true;
	}
	if (events & UV_READABLE)
		p->readable = true;
	if (events & UV_WRITABLE)
		p->writable = true;
	turn(p->r);
}

static void on_turn(uv_timer_t *t)
{
	turn((struct relay *)t->data);
}

/* Fills the empty buffer. \return true when something changed. */
static bool fill(struct relay *r, struct direction *d)
{
	ssize_t n;

	if (d->eof || d->len > 0 || !(d->from->readable || d->from->always))
		return false;
	d->from->readable = false;
	n = d->from->socket ? recv(d->from->fd, d->buf, RELAY_BUFFER, MSG_DONTWAIT) : read(d->from->fd, d->buf, RELAY_BUFFER);
	if (n < 0) {
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			end(r, errno);
		return false;
	}
	d->off = 0;
	d->len = (size_t)n;
	d->eof = n == 0;
	/* A socket may be asked again at once; a blocking pipe may not. */
	d->from->readable = d->from->socket && n == RELAY_BUFFER;
	return true;
}

static bool drain(struct relay *r, struct direction *d)
{
	size_t want = d->len;
	ssize_t n;

	if (d->len == 0 || !(d->to->writable || d->to->always))
		return false;
	d->to->writable = false;
	if (d->to->bounded && want > PIPE_BUF)
		want = PIPE_BUF;
	n = d->to->socket ? send(d->to->fd, d->buf + d->off, want, MSG_DONTWAIT | MSG_NOSIGNAL) : write(d->to->fd, d->buf + d->off, want);
	if (n < 0) {
		if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
			end(r, errno);
		return false;
	}
	d->off += (size_t)n;
	d->len -= (size_t)n;
	d->to->writable = d->to->socket && (size_t)n == want;
	return true;
}

/* The end of one direction is passed on; the other goes on. */
static void pass_eof(struct direction *d)
{
	if (!d->eof || d->len > 0 || d->closed)
		return;
	d->closed = true;
	if (d->to->socket)
		shutdown(d->to->fd, SHUT_WR);
	else
		close_port(d->to);
}

static void watch(struct port *p, int events)
{
	if (!p->open || p->always || p->watching == events)
		return;
	p->watching = events;
	if (events == 0)
		uv_poll_stop(&p->poll);
	else
		uv_poll_start(&p->poll, events, on_ready);
}

static void turn(struct relay *r)
{
	int want[4] = {0};
	bool moved = true;

	for (unsigned round = 0; moved && round < ROUNDS && !r->ending; round++) {
		moved = false;
		for (unsigned i = 0; i < 2 && !r->ending; i++) {
			moved = fill(r, &r->dir[i]) || moved;
			if (!r->ending)
				moved = drain(r, &r->dir[i]) || moved;
			pass_eof(&r->dir[i]);
		}
	}
	if (!r->ending && r->dir[0].closed && r->dir[1].closed)
		end(r, 0);
	if (r->ending)
		return;
	for (unsigned i = 0; i < 2; i++) {
		struct direction *d = &r->dir[i];

		if (!d->eof && d->len == 0)
			want[d->from - r->port] |= UV_READABLE;
		if (d->len > 0)
			want[d->to - r->port] |= UV_WRITABLE;
	}
	for (unsigned i = 0; i < r->ports; i++)
		watch(&r->port[i], want[i]);
	if (moved)
		uv_timer_start(&r->timer, on_turn, 0, 0);
}

static int add_port(struct relay *r, int fd, struct port **out)
{
	struct port *p = &r->port[r->ports];
	struct stat st;
	int flags, rc;

	flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fstat(fd, &st) < 0)
		return -errno;
	p->r = r;
	p->fd = fd;
	p->socket = S_ISSOCK(st.st_mode);
	p->bounded = S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode);
	rc = S_ISREG(st.st_mode) ? -EPERM : uv_poll_init(r->loop, &p->poll, fd);
	/* libuv makes it non-blocking, which a shell at the other end of the same open file would feel. */
	fcntl(fd, F_SETFL, flags);
	if (rc == -EPERM) {
		p->always = true;
	} else if (rc < 0) {
		return rc;
	} else {
		p->poll.data = r;
		r->handles++;
	}
	p->open = true;
	r->ports++;
	*out = p;
	return 0;
}

static int add_side(struct relay *r, struct relay_side s, struct port **rd, struct port **wr)
{
	int rc = add_port(r, s.rfd, rd);

	if (rc == 0 && s.wfd == s.rfd)
		*wr = *rd;
	else if (rc == 0)
		rc = add_port(r, s.wfd, wr);
	return rc;
}

static void close_side(struct relay_side s)
{
	close(s.rfd);
	if (s.wfd != s.rfd)
		close(s.wfd);
}

int relay_start(uv_loop_t *loop, struct relay_side a, struct relay_side b, const uint8_t *early, size_t n, relay_done done, void *arg,
		struct relay **out)
{
	struct relay *r = calloc(1, sizeof(*r));
	int rc = -ENOMEM;

	*out = NULL;
	if (r == NULL)
		goto fail;
	r->loop = loop;
	r->done = done;
	r->arg = arg;
	r->dir[0].buf = malloc(RELAY_BUFFER);
	r->dir[1].buf = malloc(RELAY_BUFFER);
	if (r->dir[0].buf == NULL || r->dir[1].buf == NULL || n > RELAY_BUFFER)
		goto fail;
	rc = add_side(r, a, &r->dir[0].from, &r->dir[1].to);
	if (rc == 0)
		rc = add_side(r, b, &r->dir[1].from, &r->dir[0].to);
	if (rc < 0)
		goto fail;
	if (n > 0)
		memcpy(r->dir[0].buf, early, n);
	r->dir[0].len = n;
	uv_timer_init(loop, &r->timer);
	r->timer.data = r;
	r->handles++;
	uv_timer_start(&r->timer, on_turn, 0, 0);
	*out = r;
	return 0;
fail:
	close_side(a);
	close_side(b);
	if (r != NULL && r->handles > 0) {
		/* The last close callback frees it. */
		for (unsigned i = 0; i < r->ports; i++) {
			if (!r->port[i].always)
				uv_close((uv_handle_t *)&r->port[i].poll, on_closed);
		}
	} else if (r != NULL) {
		free(r->dir[0].buf);
		free(r->dir[1].buf);
		free(r);
	}
	return rc;
}

void relay_stop(struct relay *r)
{
	end(r, ECANCELED);
}
