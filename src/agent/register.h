/* SPDX-License-Identifier: Apache-2.0 */
/** \file The agent's connections to the fronts: one each, outward, kept up; SIP stream framing, REGISTER, PUBLISH, and which front is
 * alive. The loop's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "agent/config.h"
#include "agent/counters.h"
#include "agent/publish.h"
#include "sip/msg.h"

struct fronts;

struct fronts_events {
	/** REGISTER was answered: this front holds that much. */
	void (*registered)(void *arg, unsigned front, const struct update_head *held);
	/** A PUBLISH was answered; held == NULL: the answer had no head. */
	void (*published)(void *arg, unsigned front, enum publish_kind kind, unsigned status, const struct update_head *held);
	/** Time for a heartbeat: fronts_publish it. */
	void (*beat)(void *arg, unsigned front);
	/** Only after `registered`. */
	void (*lost)(void *arg, unsigned front);
	/** SIP from clients; valid during the call. src: the front's address. */
	void (*request)(void *arg, unsigned front, const struct wn_addr *src, const struct sip_msg *m);
	void (*response)(void *arg, unsigned front, const struct sip_msg *m);
};

/** Begins to connect. cfg, id, ev and counters must outlive it. */
int fronts_new(uv_loop_t *loop, const struct agent_config *cfg, const uint8_t route_key[static ROUTE_KEY_BYTES],
	       const struct peer_identity *id, const struct fronts_events *ev, void *arg, struct agent_counters *counters,
	       struct fronts **out);
/** Frees itself on the loop; no event any more. */
void fronts_stop(struct fronts *f);

bool fronts_registered(const struct fronts *f, unsigned front);
/** One signed message. \return 0, -ENOTCONN, -ENOBUFS, -EAGAIN (too many are unanswered). */
int fronts_publish(struct fronts *f, unsigned front, enum publish_kind kind, struct span message);
/** One SIP message of a call; `front` may be -1 with `any`. */
void fronts_send(struct fronts *f, int front, bool any, struct span msg);

/** Application bytes in both directions since the start, by class. */
void fronts_bytes(const struct fronts *f, uint64_t *sip, uint64_t *feed, uint64_t *heartbeat);
