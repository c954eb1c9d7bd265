/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/enrol.h"
#include "client/options.h"
#include "client/relay.h"
#include "client/session.h"
#include "client/verbs.h"

#define USAGE "connect [--timeout S] [--enrol FILE] SERVICE[.DOMAIN] [PORT]"

struct connection {
	struct session_env env;
	struct session *session;
	struct relay *relay;
	struct client_signals signals;
	bool stopped;
	int status;
};

static void on_relay_done(struct relay *r, int err, void *arg)
{
	struct connection *c = arg;

	(void)r;
	c->relay = NULL;
	/* Whoever reads our output may stop when he has seen enough. */
	if (err != 0 && err != EPIPE && err != ECANCELED) {
		fprintf(stderr, "walnut connect: the connection broke: %s\n", strerror(err));
		c->status = 1;
	}
	if (c->session != NULL)
		session_end(c->session);
}

static void on_up(struct session *s, int fd, void *arg)
{
	struct connection *c = arg;
	int rc;

	rc = relay_start(c->env.loop, (struct relay_side){STDIN_FILENO, STDOUT_FILENO}, (struct relay_side){fd, fd}, NULL, 0, on_relay_done,
			 c, &c->relay);
	if (rc == 0)
		return;
	fprintf(stderr, "walnut connect: standard input or output cannot be used: %s\n", strerror(-rc));
	c->status = 1;
	session_end(s);
}

static void on_down(struct session *s, const struct session_report *r, void *arg)
{
	struct connection *c = arg;

	(void)s;
	c->session = NULL;
	if (r->fault != SESSION_F_NONE) {
		fprintf(stderr, "walnut connect: %s%s\n", r->why,
			r->sip_status == 488 ? "; a UDP service wants `walnut forward --udp`" : "");
		c->status = 1;
	}
	if (c->relay != NULL)
		relay_stop(c->relay);
}

static void on_stop(void *arg)
{
	struct connection *c = arg;

	/* A second signal does not wait for the farewell. */
	if (c->stopped)
		_exit(1);
	c->stopped = true;
	c->status = 1;
	if (c->relay != NULL)
		relay_stop(c->relay);
	else if (c->session != NULL)
		session_end(c->session);
}

static int run(const struct client_options *o, const struct enrol *e, const char *service, uint16_t port)
{
	static const struct session_events events = {.up = on_up, .down = on_down};
	static struct connection c;
	uv_loop_t loop;
	int rc;

	uv_loop_init(&loop);
	rc = session_env_init(&c.env, &loop, o->timeout_ms);
	if (rc == 0) {
		client_signals_start(&c.signals, &loop, on_stop, &c);
		rc = session_start(&c.env, e, service, port, SDP_TCP, &events, &c, &c.session);
		if (rc == 0)
			uv_run(&loop, UV_RUN_DEFAULT);
		client_signals_stop(&c.signals);
		uv_run(&loop, UV_RUN_DEFAULT);
		session_env_free(&c.env);
	}
	uv_loop_close(&loop);
	if (rc < 0) {
		fprintf(stderr, "walnut connect: %s: %s\n", service, strerror(-rc));
		return 1;
	}
	return c.status;
}

int cmd_connect(int argc, char **argv)
{
	struct client_options o;
	struct enrol_set set;
	const struct enrol *e;
	char service[ENROL_SERVICE_MAX + 1], why[ENROL_WHY_MAX];
	unsigned long long port = 0;
	int rc;

	rc = client_options_parse(argc, argv, OPT_SIGNIN, 1, 2, USAGE, &o);
	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (o.nargs == 2 && (span_u64(span_str(o.args[1]), 65535, &port) < 0 || port == 0)) {
		fprintf(stderr, "walnut connect: %s: a port from 1 to 65535 is wanted\n", o.args[1]);
		return 2;
	}
	if (sodium_init() < 0)
		return 1;
	if (enrol_load_all(o.enrol_file, &set) < 0)
		return 2;
	e = enrol_find(&set, span_str(o.args[0]), true, service, why);
	if (e == NULL)
		fprintf(stderr, "walnut connect: %s\n", why);
	rc = e == NULL ? 2 : run(&o, e, service, (uint16_t)port);
	enrol_set_free(&set);
	return rc;
}
