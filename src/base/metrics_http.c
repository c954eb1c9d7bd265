/* SPDX-License-Identifier: Apache-2.0 */
#include "base/metrics_http.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECTIONS_MAX 16
#define IDLE_S          5
#define MEMORY_MAX      16384 /* bytes of a request that a connection may hold */
#define BACKLOG         16

struct wn_metrics {
	struct MHD_Daemon *http;
	uv_poll_t poll; /* the server's epoll set */
	uv_timer_t timer;
	wn_metrics_handler handler;
	void *arg;
	struct wn_addr at;
	unsigned open_handles;
	bool closing;
	bool lost;    /* a connection has gone in this turn */
	bool resumed; /* a scrape has been answered in this turn */
};

struct wn_scrape {
	struct wn_metrics *m;
	struct MHD_Connection *connection;
	struct MHD_Response *response;
	unsigned status;
	bool asked, answered;
};

static void turn(struct wn_metrics *m);

static void on_timer(uv_timer_t *t)
{
	turn(t->data);
}

static void on_ready(uv_poll_t *p, int status, int events)
{
	(void)status;
	(void)events;
	turn(p->data);
}

/* Lets the server do what can be done, and notes until when it may sleep. */
static void turn(struct wn_metrics *m)
{
	MHD_UNSIGNED_LONG_LONG ms;

	/* At its limit the server stops listening, and begins again only in the turn after a connection has gone; and it says nothing of
	 * a connection that was resumed within the turn. */
	do {
		m->lost = m->resumed = false;
		MHD_run(m->http);
	} while (m->lost || m->resumed);
	if (MHD_get_timeout(m->http, &ms) == MHD_YES)
		uv_timer_start(&m->timer, on_timer, ms, 0);
	else
		uv_timer_stop(&m->timer);
}

static enum MHD_Result refuse(struct MHD_Connection *c, unsigned status, const char *text)
{
	struct MHD_Response *r = MHD_create_response_from_buffer(strlen(text), (void *)(uintptr_t)text, MHD_RESPMEM_PERSISTENT);
	enum MHD_Result rc;

	if (r == NULL)
		return MHD_NO;
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET");
	rc = MHD_queue_response(c, status, r);
	MHD_destroy_response(r);
	return rc;
}

/* Called with the headers, again with each part of a body, and again when a suspended connection goes on. */
static enum MHD_Result on_request(void *arg, struct MHD_Connection *c, const char *url, const char *method, const char *version,
				  const char *body, size_t *nbody, void **state)
{
	struct wn_metrics *m = arg;
	struct wn_scrape *s = *state;

	(void)version;
	(void)body;
	if (s == NULL) {
		if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
			return refuse(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n");
		if (strcmp(url, "/metrics") != 0)
			return refuse(c, MHD_HTTP_NOT_FOUND, "/metrics is all there is\n");
		s = calloc(1, sizeof(*s));
		if (s == NULL)
			return MHD_NO;
		s->m = m;
		s->connection = c;
		*state = s;
		return MHD_YES;
	}
	if (*nbody > 0) {
		*nbody = 0;
		return MHD_YES;
	}
	if (!s->asked) {
		s->asked = true;
		MHD_suspend_connection(c);
		m->handler(s, m->arg);
		return MHD_YES;
	}
	if (!s->answered)
		return MHD_YES;
	return s->response != NULL ? MHD_queue_response(c, s->status, s->response) : refuse(c, s->status, "not now\n");
}

static void on_connection(void *arg, struct MHD_Connection *c, void **state, enum MHD_ConnectionNotificationCode what)
{
	struct wn_metrics *m = arg;

	(void)c;
	(void)state;
	m->lost = m->lost || what == MHD_CONNECTION_NOTIFY_CLOSED;
}

static void on_completed(void *arg, struct MHD_Connection *c, void **state, enum MHD_RequestTerminationCode how)
{
	struct wn_scrape *s = *state;

	(void)arg;
	(void)c;
	(void)how;
	if (s == NULL)
		return;
	if (s->response != NULL)
		MHD_destroy_response(s->response);
	free(s);
	*state = NULL;
}

static bool is_loopback(const struct wn_addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return (wn_addr_is4(a) && a->ip[12] == 127) || memcmp(a->ip, one, sizeof(one)) == 0;
}

static int listen_at(const struct wn_addr *at, struct wn_addr *got)
{
	struct sockaddr_storage ss;
	socklen_t n = wn_addr_to_sockaddr(at, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), on = 1, rc;

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&ss, n) != 0 || listen(fd, BACKLOG) != 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	n = sizeof(ss);
	if (getsockname(fd, (struct sockaddr *)&ss, &n) == 0)
		wn_addr_from_sockaddr(got, &ss);
	return fd;
}

static void on_closed(uv_handle_t *h)
{
	struct wn_metrics *m = h->data;

	if (--m->open_handles > 0)
		return;
	MHD_stop_daemon(m->http);
	free(m);
}

int wn_metrics_listen(uv_loop_t *loop, const struct wn_addr *at, wn_metrics_handler handler, void *arg, struct wn_metrics **out)
{
	struct wn_metrics *m;
	const union MHD_DaemonInfo *info;
	int fd, rc;

	*out = NULL;
	if (!is_loopback(at))
		return -EINVAL;
	m = calloc(1, sizeof(*m));
	if (m == NULL)
		return -ENOMEM;
	m->handler = handler;
	m->arg = arg;
	fd = listen_at(at, &m->at);
	if (fd < 0) {
		free(m);
		return fd;
	}
	m->http = MHD_start_daemon(MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, on_request, m, MHD_OPTION_LISTEN_SOCKET, fd,
				   MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
				   MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_MAX, MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
				   MHD_OPTION_NOTIFY_CONNECTION, on_connection, m, MHD_OPTION_END);
	if (m->http == NULL) {
		close(fd);
		free(m);
		return -ENOMEM;
	}
	info = MHD_get_daemon_info(m->http, MHD_DAEMON_INFO_EPOLL_FD);
	rc = info != NULL ? uv_poll_init(loop, &m->poll, info->epoll_fd) : -ENOTSUP;
	if (rc < 0) {
		MHD_stop_daemon(m->http);
		free(m);
		return rc;
	}
	uv_timer_init(loop, &m->timer);
	m->poll.data = m->timer.data = m;
	m->open_handles = 2;
	rc = uv_poll_start(&m->poll, UV_READABLE, on_ready);
	if (rc < 0) {
		wn_metrics_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

void wn_metrics_addr(const struct wn_metrics *m, struct wn_addr *out)
{
	*out = m->at;
}

void wn_metrics_answer(struct wn_scrape *s, const char *text, size_t n)
{
	struct wn_metrics *m = s->m;

	s->status = MHD_HTTP_SERVICE_UNAVAILABLE;
	if (text != NULL)
		s->response = MHD_create_response_from_buffer(n, (void *)(uintptr_t)text, MHD_RESPMEM_MUST_COPY);
	if (s->response != NULL) {
		s->status = MHD_HTTP_OK;
		MHD_add_response_header(s->response, MHD_HTTP_HEADER_CONTENT_TYPE, "text/plain; version=0.0.4");
	}
	s->answered = true;
	m->resumed = true;
	MHD_resume_connection(s->connection);
	/* Not from here: the answer may come from within the handler, and so from within the server. */
	if (!m->closing)
		uv_timer_start(&m->timer, on_timer, 0, 0);
}

void wn_metrics_close(struct wn_metrics *m)
{
	m->closing = true;
	uv_close((uv_handle_t *)&m->poll, on_closed);
	uv_close((uv_handle_t *)&m->timer, on_closed);
}
