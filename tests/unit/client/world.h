/* SPDX-License-Identifier: Apache-2.0 */
/** \file A small world on loopback for the end-to-end test: two fronts, an agent's answers, and holes to an echo service. One thread.
 *
 * Services: "ssh" (echo over TCP), "dns" (echo over UDP, tag checked, "re:" in front), "closed" (a hole that refuses), "brief" (expires
 * after two seconds), "kicked" (BYE from the agent soon after), "busy" (503), "only-udp" (488), "slow" (100, and nothing until CANCEL),
 * "crossed" (the same, but the CANCEL comes too late: 200), anything else 404. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

#define WORLD_SECRET "3q2-7wABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhs"

struct world {
	struct wn_addr front[2], silent; /* `silent` is bound and never answers */
	/* What was seen. */
	atomic_uint invites, challenges, accepted, acks, byes, updates, replays, bad_digest, kicked_ok, cancels, trying;
	atomic_uint tagged, bad_tags, top_counter, echo_connections;
	atomic_uint delay_ms; /* before an INVITE with credentials is answered */
};

struct world *world_start(void); /* NULL when something fails */
void world_stop(struct world *w);
