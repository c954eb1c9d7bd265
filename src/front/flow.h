/* SPDX-License-Identifier: Apache-2.0 */
/** \file Where a message on the callers' side came from, or goes to. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

enum front_transport { FRONT_UDP, FRONT_TCP, FRONT_TLS, FRONT_TRANSPORTS };

#define FRONT_LISTENERS_MAX 32u /* of an identity's six bits, half */

/** Transport 2 bits | listener 6 | worker 8 | slot 20 | generation 28. Over UDP all but transport and listener are 0: any worker can
 * send there. A stream's identity never repeats within a boot, short of 2^28 connections in one slot. */
struct front_flow {
	struct wn_addr addr;
	uint64_t id;
};

#define FRONT_SLOT_BITS       20
#define FRONT_GENERATION_BITS 28

static inline uint64_t front_flow_id(enum front_transport t, unsigned listener, unsigned worker, uint32_t slot, uint32_t generation)
{
	return (uint64_t)t << 62 | (uint64_t)(listener & 63u) << 56 | (uint64_t)(worker & 255u) << 48 |
	       (uint64_t)(slot & ((1u << FRONT_SLOT_BITS) - 1)) << FRONT_GENERATION_BITS |
	       (generation & ((1u << FRONT_GENERATION_BITS) - 1));
}

static inline enum front_transport front_flow_transport(uint64_t id)
{
	return (enum front_transport)(id >> 62);
}

static inline unsigned front_flow_listener(uint64_t id)
{
	return (unsigned)(id >> 56) & 63u;
}

static inline unsigned front_flow_worker(uint64_t id)
{
	return (unsigned)(id >> 48) & 255u;
}

static inline uint32_t front_flow_slot(uint64_t id)
{
	return (uint32_t)(id >> FRONT_GENERATION_BITS) & ((1u << FRONT_SLOT_BITS) - 1);
}

static inline uint32_t front_flow_generation(uint64_t id)
{
	return (uint32_t)id & ((1u << FRONT_GENERATION_BITS) - 1);
}

static inline bool front_flow_is_stream(uint64_t id)
{
	return front_flow_transport(id) != FRONT_UDP;
}

/** What a nonce is bound to besides the address: the connection, where there is one. */
static inline uint64_t front_flow_scope(uint64_t id)
{
	return front_flow_is_stream(id) ? id : 0;
}

static inline bool front_flow_eq(const struct front_flow *a, const struct front_flow *b)
{
	return a->id == b->id && wn_addr_eq(&a->addr, &b->addr);
}

/** "UDP", as Via says it; "udp" as a URI's parameter and configuration do. */
const char *front_transport_via(enum front_transport t);
const char *front_transport_name(enum front_transport t);
