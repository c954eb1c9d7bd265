/* SPDX-License-Identifier: Apache-2.0 */
#include "client/forward.h"

#include <sodium.h>
#include <stdio.h>

#include "client/inlet.h"
#include "client/verbs.h"

#define USAGE "forward [--udp] [--allow-remote] [--timeout S] [--enrol FILE] LISTEN SERVICE[.DOMAIN]"

struct forward {
	struct inlet inlet;
	const struct enrol *enrol;
	const char *service;
};

static void on_accepted(struct inlet_conn *c, void *arg)
{
	const struct forward *f = arg;

	/* The local port says nothing about the service's. */
	inlet_conn_call(c, f->enrol, f->service, 0, NULL, 0);
}

static void on_failed(struct inlet_conn *c, int fd, const struct session_report *r)
{
	(void)c;
	(void)fd;
	if (r->sip_status == 488)
		fprintf(stderr, "walnut forward: a UDP service wants --udp\n");
}

int cmd_forward(int argc, char **argv)
{
	static const struct inlet_events events = {.accepted = on_accepted, .failed = on_failed};
	static char service[ENROL_SERVICE_MAX + 1];
	static struct forward forward;
	struct client_options o;
	struct enrol_set set;
	struct wn_addr addr;
	char why[ENROL_WHY_MAX];
	int rc;

	rc = client_options_parse(argc, argv, OPT_UDP | OPT_ALLOW_REMOTE | OPT_SIGNIN, 2, 2, USAGE, &o);
	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (client_listen_address(&o, o.args[0], &addr) < 0)
		return 2;
	if (sodium_init() < 0)
		return 1;
	if (enrol_load_all(o.enrol_file, &set) < 0)
		return 2;
	forward.enrol = enrol_find(&set, span_str(o.args[1]), true, service, why);
	forward.service = service;
	if (forward.enrol == NULL) {
		fprintf(stderr, "walnut forward: %s\n", why);
		enrol_set_free(&set);
		return 2;
	}
	rc = o.udp ? forward_udp(&o, &addr, forward.enrol, service) : inlet_run(&forward.inlet, &o, &addr, &events, &forward);
	enrol_set_free(&set);
	return rc < 0 ? 1 : 0;
}
