/* SPDX-License-Identifier: Apache-2.0 */
/** \file A local TCP port whose connections become sessions: what `proxy` and `forward` share. On the loop's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "client/options.h"
#include "client/relay.h"
#include "client/session.h"

#define INLET_CONNS_MAX 512  /* at a time; more wait in the kernel's queue */
#define INLET_LEAVE_MS  2000 /* after a signal: how long farewells may take */

struct inlet;
struct inlet_conn;

struct inlet_events {
	/** A connection came in. The receiver calls inlet_conn_call, inlet_conn_drop or inlet_conn_wait at once. */
	void (*accepted)(struct inlet_conn *c, void *arg);
	/** The session is up: the last chance to say something to the local side. May be NULL. */
	void (*up)(struct inlet_conn *c, int fd);
	/** The session failed before it was up; the local side is closed after this returns. May be NULL. */
	void (*failed)(struct inlet_conn *c, int fd, const struct session_report *r);
};

struct inlet {
	struct session_env env;
	uv_loop_t loop;
	struct inlet_events ev;
	void *arg;
	const char *verb;
	int fd;
	uv_poll_t poll;
	uv_timer_t timer;
	bool accepting, stopping;
	struct inlet_conn *conns; /* list */
	unsigned nconns;
	struct client_signals signals;
};

/** Listens, prints the ready line, and runs until a signal. \return 0 or negative errno with a line on stderr. */
int inlet_run(struct inlet *in, const struct client_options *o, const struct wn_addr *addr, const struct inlet_events *ev, void *arg);
uv_loop_t *inlet_loop(struct inlet *in);

int inlet_conn_fd(const struct inlet_conn *c);
/** Starts a session and joins the connection to it. `early`: bytes of it that have been read already, at most INLET_EARLY_MAX; copied. */
#define INLET_EARLY_MAX 4096
void inlet_conn_call(struct inlet_conn *c, const struct enrol *e, const char *service, uint16_t port, const uint8_t *early, size_t n);
/** Closes and forgets it. Not after inlet_conn_call. */
void inlet_conn_drop(struct inlet_conn *c);
/** The receiver keeps it for a while; `stopped` is called when the command ends meanwhile (the connection is dropped then). */
void inlet_conn_wait(struct inlet_conn *c, void (*stopped)(struct inlet_conn *c, void *user), void *user);
