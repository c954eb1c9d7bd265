/* SPDX-License-Identifier: Apache-2.0 */
#include "base/ctl_address.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENTS_MAX    32
#define CLIENT_IDLE_MS 10000
#define BACKLOG        16
#define LOCK_TRIES     200
#define LOCK_WAIT_MS   5

struct ctl_client {
	struct ctl_client *next;
	struct ctl_server *server;
	uv_pipe_t pipe;
	uv_timer_t deadline;
	uv_write_t write;
	char *in; /* what has been read and not yet answered */
	size_t len, cap;
	size_t scanned; /* no newline in front of this */
	char *out;      /* the answer being written; its presence means "busy" */
	struct ctl_pending *pending;
	unsigned open_handles;
	bool closing;
};

struct ctl_pending {
	struct ctl_client *client; /* NULL when it has gone */
};

struct ctl_server {
	uv_pipe_t pipe;
	ctl_handler handler;
	void *arg;
	char *path;
	struct stat id;
	struct ctl_client *clients; /* newest first */
	unsigned nclients;
	struct ctl_client *current; /* whose request the handler is looking at */
	bool closed;                /* the listening handle is */
};

static void client_serve(struct ctl_client *c);

static void server_release(struct ctl_server *s)
{
	if (!s->closed || s->clients != NULL)
		return;
	free(s->path);
	free(s);
}

static void client_handle_closed(uv_handle_t *h)
{
	struct ctl_client *c = (struct ctl_client *)h->data;
	struct ctl_server *s = c->server;

	if (--c->open_handles > 0)
		return;
	for (struct ctl_client **p = &s->clients; *p != NULL; p = &(*p)->next) {
		if (*p == c) {
			*p = c->next;
			break;
		}
	}
	free(c->in);
	free(c->out);
	free(c);
	server_release(s);
}

static void client_close(struct ctl_client *c)
{
	if (c->closing)
		return;
	c->closing = true;
	c->server->nclients--;
	if (c->pending != NULL)
		c->pending->client = NULL;
	c->pending = NULL;
	uv_close((uv_handle_t *)&c->pipe, client_handle_closed);
	uv_close((uv_handle_t *)&c->deadline, client_handle_closed);
}

static void client_expired(uv_timer_t *t)
{
	client_close((struct ctl_client *)t->data);
}

static void client_written(uv_write_t *w, int status)
{
	struct ctl_client *c = (struct ctl_client *)w->data;

	free(c->out);
	c->out = NULL;
	if (c->closing)
		return;
	if (status < 0)
		client_close(c);
	else
		client_serve(c);
}

/* Takes the reference. */
static void client_answer(struct ctl_client *c, json_t *answer)
{
	size_t n;
	uv_buf_t buf;

	if (answer == NULL)
		answer = ctl_error("internal error: no answer");
	c->out = json_dumps(answer, JSON_COMPACT);
	json_decref(answer);
	if (c->out == NULL) {
		client_close(c);
		return;
	}
	n = strlen(c->out);
	c->out[n] = '\n'; /* in the place of its end: no C string from here on */
	buf = uv_buf_init(c->out, (unsigned)(n + 1));
	c->write.data = c;
	uv_timer_start(&c->deadline, client_expired, CLIENT_IDLE_MS, 0);
	if (uv_write(&c->write, (uv_stream_t *)&c->pipe, &buf, 1, client_written) < 0)
		client_close(c);
}

static json_t *request_answer(struct ctl_client *c, const char *line, size_t n)
{
	struct ctl_server *s = c->server;
	json_error_t e;
	json_t *request, *answer;

	request = json_loadb(line, n, JSON_REJECT_DUPLICATES, &e);
	if (request == NULL)
		return ctl_error("not JSON: %s", e.text);
	if (!json_is_object(request) || !json_is_string(json_object_get(request, "cmd"))) {
		json_decref(request);
		return ctl_error("a request is one object with a \"cmd\", such as {\"cmd\":\"status\"}");
	}
	s->current = c;
	answer = s->handler(request, s->arg);
	s->current = NULL;
	json_decref(request);
	return answer;
}

static void client_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	struct ctl_client *c = (struct ctl_client *)h->data;

	(void)hint;
	if (c->len == c->cap) {
		size_t cap = c->cap == 0 ? 4096 : c->cap * 2;
		char *p;

		if (cap > CTL_LINE_MAX)
			cap = CTL_LINE_MAX;
		p = cap > c->cap ? (char *)realloc(c->in, cap) : NULL;
		if (p == NULL) {
			*buf = uv_buf_init(NULL, 0); /* arrives in client_read as UV_ENOBUFS */
			return;
		}
		c->in = p;
		c->cap = cap;
	}
	*buf = uv_buf_init(c->in + c->len, (unsigned)(c->cap - c->len));
}

static void client_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct ctl_client *c = (struct ctl_client *)stream->data;

	(void)buf;
	if (n < 0) {
		client_close(c);
		return;
	}
	c->len += (size_t)n;
	client_serve(c);
}

/* One request at a time: while an answer is due nothing is read, so a client that does not take its answers fills only its own socket. */
static void client_serve(struct ctl_client *c)
{
	char *nl;
	json_t *answer;
	size_t used;
	int rc;

	if (c->closing || c->out != NULL || c->pending != NULL)
		return;
	nl = c->len > c->scanned ? (char *)memchr(c->in + c->scanned, '\n', c->len - c->scanned) : NULL;
	if (nl == NULL) {
		c->scanned = c->len;
		/* The deadline is for a whole line; it starts when the last answer has gone and is not renewed by single bytes. */
		if (!uv_is_active((uv_handle_t *)&c->deadline) || c->len == 0)
			uv_timer_start(&c->deadline, client_expired, CLIENT_IDLE_MS, 0);
		rc = uv_read_start((uv_stream_t *)&c->pipe, client_alloc, client_read);
		if (rc < 0 && rc != UV_EALREADY)
			client_close(c);
		return;
	}
	uv_read_stop((uv_stream_t *)&c->pipe);
	uv_timer_stop(&c->deadline);
	answer = request_answer(c, c->in, (size_t)(nl - c->in));
	used = (size_t)(nl - c->in) + 1;
	memmove(c->in, c->in + used, c->len - used);
	c->len -= used;
	c->scanned = 0;
	/* Answered later, answered already by a ctl_answer within the handler, or nobody is left to answer. */
	if (c->pending != NULL || c->out != NULL || c->closing)
		json_decref(answer);
	else
		client_answer(c, answer);
}

struct ctl_pending *ctl_defer(struct ctl_server *s)
{
	struct ctl_client *c = s->current;
	struct ctl_pending *p;

	if (c == NULL || c->pending != NULL)
		return NULL;
	p = (struct ctl_pending *)calloc(1, sizeof(*p));
	if (p == NULL)
		return NULL;
	/* The handler may have closed the server, and with it this client. */
	if (!c->closing) {
		p->client = c;
		c->pending = p;
	}
	return p;
}

void ctl_answer(struct ctl_pending *p, json_t *answer)
{
	struct ctl_client *c = p->client;

	free(p);
	if (c == NULL) {
		json_decref(answer);
		return;
	}
	c->pending = NULL;
	client_answer(c, answer);
}

static void close_oldest(struct ctl_server *s)
{
	struct ctl_client *oldest = NULL;

	for (struct ctl_client *c = s->clients; c != NULL; c = c->next)
		if (!c->closing)
			oldest = c;
	if (oldest != NULL)
		client_close(oldest);
}

static void accept_one(uv_stream_t *stream, int status)
{
	struct ctl_server *s = (struct ctl_server *)stream->data;
	struct ctl_client *c;

	if (status < 0)
		return;
	c = (struct ctl_client *)calloc(1, sizeof(*c));
	if (c == NULL)
		return;
	c->server = s;
	uv_pipe_init(stream->loop, &c->pipe, 0);
	uv_timer_init(stream->loop, &c->deadline);
	c->pipe.data = c;
	c->deadline.data = c;
	c->open_handles = 2;
	if (s->nclients >= CLIENTS_MAX)
		close_oldest(s);
	c->next = s->clients;
	s->clients = c;
	s->nclients++;
	if (uv_accept(stream, (uv_stream_t *)&c->pipe) < 0)
		client_close(c);
	else
		client_serve(c);
}

/* Whether `path` is a socket that nobody listens on. */
static int probe_stale(const char *path, const struct sockaddr_un *sa)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) != 0)
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	rc = connect(fd, (const struct sockaddr *)sa, sizeof(*sa)) == 0 ? 0 : -errno;
	close(fd);
	return rc == -ECONNREFUSED ? 0 : -EADDRINUSE;
}

/* Opens the folder of `path` (made when it is missing) and locks it, so that two daemons that start at once do not remove each other's
 * fresh socket. */
static int lock_folder(const char *path)
{
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path)] = ".";
	const char *slash = strrchr(path, '/');
	int fd, rc;

	if (slash == path) {
		dir[0] = '/';
	} else if (slash != NULL) {
		memcpy(dir, path, (size_t)(slash - path));
		dir[slash - path] = 0;
		if (mkdir(dir, 0755) != 0 && errno != EEXIST)
			return -errno;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* Another daemon that starts in the same folder holds it for a moment; whoever holds it longer is no daemon of ours. */
	for (unsigned tries = 0; flock(fd, LOCK_EX | LOCK_NB) != 0; tries++) {
		rc = errno == EWOULDBLOCK ? -EADDRINUSE : -errno;
		if (errno != EWOULDBLOCK || tries == LOCK_TRIES) {
			close(fd);
			return rc;
		}
		poll(NULL, 0, LOCK_WAIT_MS);
	}
	return fd;
}

static int listen_socket(const char *path)
{
	struct sockaddr_un sa;
	int fd = -1, lock = -1, rc;

	rc = ctl_address(path, &sa);
	if (rc < 0)
		return rc;
	lock = lock_folder(path);
	if (lock < 0)
		return lock;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* The mode of the unbound socket is what bind() gives the file: no moment at which others may connect, and no umask, which is the
	 * whole process's. */
	if (fd < 0 || fchmod(fd, 0600) != 0) {
		rc = -errno;
		goto out;
	}
	if (bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
		rc = -errno;
		if (rc != -EADDRINUSE)
			goto out;
		rc = probe_stale(path, &sa);
		if (rc < 0)
			goto out;
		if (unlink(path) != 0 || bind(fd, (const struct sockaddr *)&sa, sizeof(sa)) != 0) {
			rc = -errno;
			goto out;
		}
	}
	rc = listen(fd, BACKLOG) == 0 ? 0 : -errno;
out:
	close(lock);
	if (rc < 0 && fd >= 0)
		close(fd);
	return rc < 0 ? rc : fd;
}

static void server_closed(uv_handle_t *h)
{
	struct ctl_server *s = (struct ctl_server *)h->data;

	s->closed = true;
	server_release(s);
}

int ctl_listen(uv_loop_t *loop, const char *path, ctl_handler handler, void *arg, struct ctl_server **out)
{
	struct ctl_server *s = (struct ctl_server *)calloc(1, sizeof(*s));
	int fd, rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->path = strdup(path);
	if (s->path == NULL) {
		free(s);
		return -ENOMEM;
	}
	fd = listen_socket(path);
	if (fd < 0) {
		free(s->path);
		free(s);
		return fd;
	}
	signal(SIGPIPE, SIG_IGN); /* libuv writes to sockets with write(2) */
	s->handler = handler;
	s->arg = arg;
	if (lstat(path, &s->id) != 0)
		memset(&s->id, 0, sizeof(s->id));
	uv_pipe_init(loop, &s->pipe, 0);
	s->pipe.data = s;
	rc = uv_pipe_open(&s->pipe, fd);
	if (rc < 0)
		close(fd);
	else
		rc = uv_listen((uv_stream_t *)&s->pipe, BACKLOG, accept_one);
	if (rc < 0) {
		ctl_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

void ctl_close(struct ctl_server *s)
{
	struct stat st;

	/* The path may be another daemon's by now. */
	if (lstat(s->path, &st) == 0 && st.st_ino == s->id.st_ino && st.st_dev == s->id.st_dev)
		unlink(s->path);
	for (struct ctl_client *c = s->clients; c != NULL; c = c->next)
		client_close(c);
	uv_close((uv_handle_t *)&s->pipe, server_closed);
}

json_t *ctl_error(const char *fmt, ...)
{
	va_list ap;
	json_t *text, *o;

	va_start(ap, fmt);
	text = json_vsprintf(fmt, ap);
	va_end(ap);
	if (text == NULL)
		text = json_string("internal error");
	o = json_pack("{s:b,s:o}", "ok", 0, "error", text);
	return o;
}
