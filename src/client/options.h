/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the client's verbs have in common: options, and what a command that waits for connections needs. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "client/session.h"

enum {
	OPT_LISTEN = 1,
	OPT_UDP = 2,
	OPT_ALLOW_REMOTE = 4,
	OPT_SIGNIN = 8, /* --timeout and --enrol */
};

struct client_options {
	const char *verb;
	const char *enrol_file; /* NULL: all of the folder */
	const char *listen;     /* NULL: not given */
	uint32_t timeout_ms;
	bool udp, allow_remote;
	char **args; /* what is left */
	int nargs;
};

/** `allowed`: OPT_* of this verb; `min`, `max`: how many arguments are left. With --help the usage goes to stdout and *out is unset.
 * \return 0; 1 help was printed; -EINVAL with one line on stderr. */
int client_options_parse(int argc, char **argv, unsigned allowed, int min, int max, const char *usage, struct client_options *out);

/** Parses a listening address "127.0.0.1:1080"; one that others could reach is refused unless allow_remote. \return 0 or -EINVAL with a
 * line. */
int client_listen_address(const struct client_options *o, const char *text, struct wn_addr *out);
/** A non-blocking socket bound to it (and listening, for SOCK_STREAM); *at gets the address with the port that it has now.
 * \return the descriptor, or negative errno with a line on stderr. */
int client_listen(const struct client_options *o, const struct wn_addr *addr, int type, struct wn_addr *at);
/** One line on stderr, "walnut: ready on ADDRESS", for scripts that wait. */
void client_ready(const struct wn_addr *at);

/** SIGINT, SIGTERM and SIGHUP as a callback; SIGPIPE is ignored. */
struct client_signals {
	uv_signal_t at[3];
	void (*stop)(void *arg);
	void *arg;
};
void client_signals_start(struct client_signals *s, uv_loop_t *loop, void (*stop)(void *arg), void *arg);
void client_signals_stop(struct client_signals *s);
