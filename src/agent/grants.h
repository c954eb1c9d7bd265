/* SPDX-License-Identifier: Apache-2.0 */
/** \file The agent's end of the gate's control: one connection, kept up; requests in sequence, answers matched to them. The loop's thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/config.h"
#include "agent/counters.h"
#include "gate/record.h"

struct grants;

struct grants_events {
	void (*opened)(void *arg, uint64_t cookie, uint32_t generation, const struct gate_reply *r);
	void (*renewed)(void *arg, uint64_t cookie, const struct gate_reply *r);
	/** After each connect: begin, one listed per hole (those being closed left out), end. */
	void (*list_begin)(void *arg);
	void (*listed)(void *arg, const struct gate_reply *r);
	void (*list_end)(void *arg);
	/** The connection is gone: no answer to what was asked will come. */
	void (*lost)(void *arg);
};

/** Begins to connect. id, gate, ev and counters must outlive it. */
int grants_new(uv_loop_t *loop, const struct peer_identity *id, const struct agent_peer *gate, uint32_t heartbeat_ms,
	       const struct grants_events *ev, void *arg, struct agent_counters *counters, struct grants **out);
/** Frees itself on the loop; no event any more. */
void grants_stop(struct grants *g);

bool grants_connected(const struct grants *g);
/** \return 0; -ENOTCONN; -EAGAIN when too much waits. */
int grants_open(struct grants *g, const struct gate_request *r, uint32_t generation);
int grants_renew(struct grants *g, uint64_t cookie, uint64_t hole, uint32_t lifetime_s);
/** Kept until the gate has confirmed it, over any number of connections. */
void grants_close(struct grants *g, uint64_t hole);

/** Application bytes in both directions since the start. */
void grants_bytes(const struct grants *g, uint64_t *control, uint64_t *heartbeat);
