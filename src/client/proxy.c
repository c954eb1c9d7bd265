/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/enrol.h"
#include "client/inlet.h"
#include "client/options.h"
#include "client/session.h"
#include "client/socks.h"
#include "client/verbs.h"

#define USAGE          "proxy [--listen 127.0.0.1:1080] [--allow-remote] [--timeout S] [--enrol FILE]"
#define DEFAULT_LISTEN "127.0.0.1:1080"
#define HANDSHAKE_MS   10000
#define EARLY_MAX      4096 /* bytes that a client may send ahead of the reply and that are read with the request */

struct proxy {
	struct inlet inlet;
	struct enrol_set set;
};

/* The handshake of one client, until a session takes over. */
struct greeter {
	struct inlet_conn *conn;
	struct proxy *proxy;
	struct socks socks;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles;
	bool closing;
};

static void on_closed(uv_handle_t *h)
{
	struct greeter *g = (struct greeter *)h->data;

	if (--g->handles == 0)
		free(g);
}

static void leave(struct greeter *g)
{
	g->closing = true;
	uv_close((uv_handle_t *)&g->poll, on_closed);
	uv_close((uv_handle_t *)&g->timer, on_closed);
}

/* Replies are a few bytes on a connection that has carried none yet: if they do not fit, the client is gone. */
static bool say(int fd, const uint8_t *p, size_t n)
{
	return send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)n;
}

static enum socks_code code_of(const struct session_report *r)
{
	switch (r->fault) {
	case SESSION_F_HOLE:
		return r->err == ECONNREFUSED ? SOCKS_REFUSED : r->err == ETIMEDOUT ? SOCKS_TIMED_OUT : SOCKS_HOST_UNREACHABLE;
	case SESSION_F_SIGNIN:
		break;
	default:
		return SOCKS_FAILURE;
	}
	switch (r->signin) {
	case SIGNIN_E_NO_ANSWER:
		return SOCKS_NET_UNREACHABLE;
	case SIGNIN_E_CREDENTIALS:
	case SIGNIN_E_CHALLENGE:
		return SOCKS_NOT_ALLOWED;
	case SIGNIN_E_REFUSED:
		return r->sip_status == 403 ? SOCKS_NOT_ALLOWED : SOCKS_HOST_UNREACHABLE;
	case SIGNIN_E_BUSY:
		return SOCKS_HOST_UNREACHABLE;
	default:
		return SOCKS_FAILURE;
	}
}

static void on_session_up(struct inlet_conn *c, int fd)
{
	uint8_t reply[SOCKS_REPLY_MAX];

	say(fd, reply, socks_reply(SOCKS_SUCCEEDED, reply));
	(void)c;
}

static void on_session_failed(struct inlet_conn *c, int fd, const struct session_report *r)
{
	uint8_t reply[SOCKS_REPLY_MAX];

	(void)c;
	say(fd, reply, socks_reply(code_of(r), reply));
}

static void refuse(struct greeter *g, const uint8_t *reply, size_t n)
{
	if (n > 0)
		say(inlet_conn_fd(g->conn), reply, n);
	leave(g);
	inlet_conn_drop(g->conn);
}

static void serve(struct greeter *g, const uint8_t *early, size_t n)
{
	char service[ENROL_SERVICE_MAX + 1], why[ENROL_WHY_MAX];
	const struct enrol *e = enrol_find(&g->proxy->set, g->socks.name, false, service, why);
	uint8_t reply[SOCKS_REPLY_MAX];

	if (e == NULL) {
		fprintf(stderr, "walnut proxy: %s\n", why);
		refuse(g, reply, socks_reply(SOCKS_NOT_ALLOWED, reply));
		return;
	}
	leave(g);
	inlet_conn_call(g->conn, e, service, g->socks.port, early, n);
}

static void on_readable(uv_poll_t *p, int status, int events)
{
	struct greeter *g = (struct greeter *)p->data;
	uint8_t in[EARLY_MAX];
	size_t off = 0, taken;
	ssize_t n;

	(void)events;
	if (g->closing)
		return;
	n = recv(inlet_conn_fd(g->conn), in, sizeof(in), MSG_DONTWAIT);
	if (n < 0 && status == 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		refuse(g, NULL, 0);
		return;
	}
	while (off < (size_t)n) {
		enum socks_result r = socks_feed(&g->socks, in + off, (size_t)n - off, &taken);

		off += taken;
		switch (r) {
		case SOCKS_MORE:
			break;
		case SOCKS_METHOD:
			if (!say(inlet_conn_fd(g->conn), g->socks.reply, g->socks.reply_len)) {
				refuse(g, NULL, 0);
				return;
			}
			break;
		case SOCKS_REQUEST:
			serve(g, in + off, (size_t)n - off);
			return;
		case SOCKS_REJECT:
			refuse(g, g->socks.reply, g->socks.reply_len);
			return;
		}
	}
}

static void on_slow(uv_timer_t *t)
{
	struct greeter *g = (struct greeter *)t->data;

	if (!g->closing)
		refuse(g, NULL, 0);
}

static void on_stopped(struct inlet_conn *c, void *user)
{
	(void)c;
	leave((struct greeter *)user);
}

static void on_accepted(struct inlet_conn *c, void *arg)
{
	struct proxy *proxy = arg;
	struct greeter *g = calloc(1, sizeof(*g));

	if (g == NULL || uv_poll_init(inlet_loop(&proxy->inlet), &g->poll, inlet_conn_fd(c)) < 0) {
		free(g);
		inlet_conn_drop(c);
		return;
	}
	uv_timer_init(inlet_loop(&proxy->inlet), &g->timer);
	g->conn = c;
	g->proxy = proxy;
	g->handles = 2;
	g->poll.data = g;
	g->timer.data = g;
	socks_init(&g->socks);
	inlet_conn_wait(c, on_stopped, g);
	uv_poll_start(&g->poll, UV_READABLE, on_readable);
	uv_timer_start(&g->timer, on_slow, HANDSHAKE_MS, 0);
}

int cmd_proxy(int argc, char **argv)
{
	static const struct inlet_events events = {on_accepted, on_session_up, on_session_failed};
	static struct proxy proxy;
	struct client_options o;
	struct wn_addr addr;
	int rc;

	rc = client_options_parse(argc, argv, OPT_LISTEN | OPT_ALLOW_REMOTE | OPT_SIGNIN, 0, 0, USAGE, &o);
	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (client_listen_address(&o, o.listen != NULL ? o.listen : DEFAULT_LISTEN, &addr) < 0)
		return 2;
	if (sodium_init() < 0)
		return 1;
	if (enrol_load_all(o.enrol_file, &proxy.set) < 0)
		return 2;
	rc = inlet_run(&proxy.inlet, &o, &addr, &events, &proxy);
	enrol_set_free(&proxy.set);
	return rc < 0 ? 1 : 0;
}
