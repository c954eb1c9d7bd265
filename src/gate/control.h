/* SPDX-License-Identifier: Apache-2.0 */
/** \file The parser: speaks mutual TLS with agents, takes their requests apart, and passes them on to the map writer. Holds no privilege.
 * All on the loop's thread. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "gate/config.h"

#define GATE_AGENTS_PER_TENANT 4     /* connections; a further one ends the oldest */
#define GATE_IDLE_MS           30000 /* a connection without a request for so long is closed: agents PING every 5 s */

struct gate_control;

/** Listens on cfg->control for the tenants' agents and on cfg->socket for the operator. `writer` is the parser's end of the pair (made
 * non-blocking; not closed). ended: the writer has gone or makes no sense; called once, from the loop. cfg and id must stay.
 * \return 0 or negative errno with a line on stderr. */
int gate_control_start(uv_loop_t *loop, const struct gate_config *cfg, const struct peer_identity *id, int writer,
		       void (*ended)(int reason, void *arg), void *arg, struct gate_control **out);
/** Where it listens (the port that the kernel chose for port 0). */
void gate_control_addr(const struct gate_control *c, struct wn_addr *out);
/** Closes everything while the loop runs on; `ended` is not called any more. */
void gate_control_stop(struct gate_control *c);
/** After gate_control_stop, when the loop has nothing left to do. */
void gate_control_free(struct gate_control *c);
