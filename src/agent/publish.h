/* SPDX-License-Identifier: Apache-2.0 */
/** \file Keeps every front's users at the chain's head: what each lacks is sent as logged changes or as a snapshot, one message at a time,
 * and all keys together under a rate. No I/O, no clock. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/counters.h"
#include "feed/chain.h"

enum publish_kind { PUBLISH_DATA, PUBLISH_HEARTBEAT };

struct publish_ops {
	/** Sends one signed message to that front; publish_answered follows, or publish_lost. \return 0 or negative errno (not sent). */
	int (*send)(void *arg, unsigned front, enum publish_kind kind, struct span message);
};

struct publish;

/** chain, ops and counters must outlive it. */
int publish_new(struct chain *chain, unsigned nfronts, uint32_t keys_per_s, const struct publish_ops *ops, void *arg,
		struct agent_counters *counters, struct publish **out);
void publish_free(struct publish *p);

/** A front has answered REGISTER and says what it holds. */
void publish_registered(struct publish *p, uint64_t now_ms, uint64_t unix_ms, unsigned front, const struct update_head *held);
void publish_lost(struct publish *p, uint64_t now_ms, unsigned front);
/** held == NULL: the answer had none. */
void publish_answered(struct publish *p, uint64_t now_ms, uint64_t unix_ms, unsigned front, enum publish_kind kind, unsigned status,
		      const struct update_head *held);
/** States the head to that front. \return as ops->send. */
int publish_heartbeat(struct publish *p, uint64_t unix_ms, unsigned front);

/** After a change of the chain, and when due: sends what may be sent, goes on with a rotation. \return when to call again. */
uint64_t publish_tick(struct publish *p, uint64_t now_ms, uint64_t unix_ms);

/** What a front was last heard to hold. False: it is not registered. */
bool publish_held(const struct publish *p, unsigned front, struct update_head *out);

/** Calls back once when all registered fronts hold `seq` or later, or at the deadline: how many do, of how many. May call back at once. */
typedef void (*publish_done)(unsigned confirmed, unsigned of, void *arg);
int publish_wait(struct publish *p, uint64_t now_ms, uint64_t seq, uint64_t deadline_ms, publish_done cb, void *arg);
/** Takes back a publish_wait that has not called back. */
void publish_forget(struct publish *p, const void *arg);
