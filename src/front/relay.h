/* SPDX-License-Identifier: Apache-2.0 */
/** \file The agents' connections: registration, the feed, and SIP between agents and workers. All calls on the loop's thread. */
#pragma once

#include <jansson.h>
#include <uv.h>

#include "front/config.h"
#include "front/core.h"
#include "front/report.h"
#include "front/snapshot.h"
#include "front/worker.h"
#include "peer/peer.h"

struct front_relay;

struct front_relay_options {
	const struct front_config *config; /* lives as long as the relay */
	struct front_shared *shared;
	const struct peer_identity *identity;
	struct front_snapshots *snapshots; /* borrowed, lives as long; NULL: none are kept */
};

/** Listens for agents. \return 0 or negative errno. */
int front_relay_new(uv_loop_t *loop, const struct front_relay_options *opt, struct front_relay **out);
/** Whom it exchanges messages with; before the workers start. */
void front_relay_set_workers(struct front_relay *r, struct front_worker *const *worker, unsigned n);
/** For a worker's notify; any thread. arg is the relay. */
void front_relay_notify(void *arg);
/** Closes the listener and the connections, then runs the loop until they are gone; frees. The workers have ended before. */
void front_relay_free(struct front_relay *r);

/** Configuration names the tenant no more: closes its agent's connection, if there is one. */
void front_relay_forget(struct front_relay *r, unsigned tenant);

/** Adds "agents", "users", "feed", "link" and "relay" to a status answer. */
void front_relay_status(const struct front_relay *r, json_t *status);
/** The same numbers for a scraper: tenants, link, dropped. */
void front_relay_report(const struct front_relay *r, struct front_report *to);
