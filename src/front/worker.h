/* SPDX-License-Identifier: Apache-2.0 */
/** \file One thread per core: datagrams in and out in batches, and messages to and from the relay. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "front/core.h"
#include "front/histogram.h"
#include "front/io.h"
#include "front/ring.h"
#include "front/stream.h"

struct front_worker;

/** What stands in a ring where a tenant's number would: the message is one for a flow, behind its struct front_flow. From a worker to the
 * relay it is added to the number of the worker that the flow belongs to. */
#define FRONT_RING_FLOW FRONT_TENANTS_MAX

struct front_worker_options {
	struct front_shared *shared;
	const struct front_io_ops *io;
	unsigned index;
	const struct front_stream_limits *streams; /* for TCP and TLS listeners, this worker's share; copied */
	unsigned backlog;                          /* of each of them */
	struct front_tls *tls;                     /* for TLS listeners */
	/** Called on the worker's thread after it has pushed to its outbox. Must be quick (uv_async_send). */
	void (*notify)(void *arg);
	void *notify_arg;
	uint32_t strangers_max;   /* how many of those who have proven nothing may wait; 1 to STRANGERS_MAX */
	uint32_t batch_wait_us;   /* how long a busy worker lets datagrams come together; 0: not at all */
	uint32_t strangers_per_s; /* how many are served; 0: as many as there is time for */
};

/** Opens its ends of the shared listeners and its trunks to the plain next hops (here privileges may be needed) and allocates. \return 0 or
 * negative errno. */
int front_worker_new(const struct front_worker_options *opt, struct front_worker **out);
/** Starts the thread, pinned to the index-th CPU of those that the process may use. \return 0 or negative errno. */
int front_worker_start(struct front_worker *w);
/** Ends the thread, if it runs, and frees. */
void front_worker_free(struct front_worker *w);

/** A message from a tenant's agent, an empty one: the agent has gone, or one for a flow (FRONT_RING_FLOW). The relay's thread. False: the
 * way is full, the message was dropped. */
bool front_worker_push(struct front_worker *w, unsigned tenant, struct span msg);
/** Where the worker's messages to agents wait; read by the relay's thread. */
struct front_ring *front_worker_outbox(struct front_worker *w);

/** For what any thread may ask of it: counters, answers, refusals. */
const struct front_core *front_worker_core(const struct front_worker *w);
/** Adds how long it took from taking messages of that outcome to deciding. Any thread. */
void front_worker_latency(const struct front_worker *w, enum front_outcome o, struct histogram_sum *to);
/** Calls that still need this front, when its loop last went round. Any thread. */
uint32_t front_worker_unsettled(const struct front_worker *w);
/** Makes its loop go round now. Any thread. */
void front_worker_wake(struct front_worker *w);
/** How often its loop has gone round: at least every 50 ms. Any thread. */
uint64_t front_worker_turns(const struct front_worker *w);
/** Any thread. */
uint64_t front_worker_count(const struct front_worker *w, enum front_outcome o);
uint64_t front_worker_unsent(const struct front_worker *w);
/** Its connections, or NULL: it listens on UDP alone. Only what stream.h says is for any thread. */
const struct front_streams *front_worker_streams(const struct front_worker *w);
