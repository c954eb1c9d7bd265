/* SPDX-License-Identifier: Apache-2.0 */
/** \file Calls: the dialog with a client, and the hole that goes with it. No I/O and no clock: takes `now`, acts through calls_ops. One
 * thread.
 *
 *   NEW ─INVITE→ OPENING ─gate: ok→ ANSWERED ─ACK→ CONFIRMED ─BYE, expiry, …→ ENDED
 *                   │ refused         │ 64*T1        │ kick, deletion, expiry, hole gone
 *                   ↓                 ↓              ↓
 *                 ENDED            CLOSING (our BYE until its answer) → ENDED
 *
 * A call is (user, Call-ID, From-tag). Its cookie is a keyed hash of these and goes to the gate, so that a restarted agent recognises the
 * call of a hole that the gate lists.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/call_table.h"
#include "agent/counters.h"
#include "gate/record.h"
#include "sip/msg.h"

struct calls_ops {
	/** One SIP message towards front number `front`; with `any`, over another one when that is not connected. Loss is allowed. */
	void (*send)(void *arg, int front, bool any, struct span msg);
	/** Asks the gate; the answer comes to calls_opened with the same cookie and generation. \return 0, else no answer will come. */
	int (*open)(void *arg, const struct gate_request *r, uint32_t generation);
	/** The answer comes to calls_renewed. */
	int (*renew)(void *arg, uint64_t cookie, uint64_t hole, uint32_t lifetime_s);
	/** Never fails: is kept until the gate has confirmed it. */
	void (*close)(void *arg, uint64_t hole);
	bool (*user_known)(void *arg, struct span user);
};

struct calls;

/** cfg, counters and ops must outlive it. key (any secret that survives restarts) seeds cookies and To-tags. */
int calls_new(const struct agent_config *cfg, const uint8_t key[static ROUTE_KEY_BYTES], const struct calls_ops *ops, void *arg,
	      struct agent_counters *counters, struct calls **out);
void calls_free(struct calls *c);

/** A request from a front, other than the agent's own business with it. Answers, or ignores an ACK. `src`: the front's address. */
void calls_request(struct calls *c, uint64_t now_ms, int front, const struct wn_addr *src, const struct sip_msg *m);
/** A response to a BYE of ours. */
void calls_response(struct calls *c, uint64_t now_ms, const struct sip_msg *m);

/** The gate's answers. An answer nobody waits for any more closes its hole. */
void calls_opened(struct calls *c, uint64_t now_ms, uint64_t cookie, uint32_t generation, const struct gate_reply *r);
void calls_renewed(struct calls *c, uint64_t now_ms, uint64_t cookie, const struct gate_reply *r);
/** The connection to the gate is lost: what waits for it is answered 503. Holes live on. */
void calls_gate_lost(struct calls *c, uint64_t now_ms);
/** The gate's list after a connect: what it names and the agent does not know is adopted; calls whose hole is gone end. */
void calls_list_begin(struct calls *c);
void calls_listed(struct calls *c, uint64_t now_ms, const struct gate_reply *r);
void calls_list_end(struct calls *c, uint64_t now_ms);

enum calls_reason { CALLS_KICKED, CALLS_USER_DELETED };
/** Closes every hole of that user now and tells the clients. \return how many calls. */
unsigned calls_close_user(struct calls *c, uint64_t now_ms, const char *user, enum calls_reason why);

/** Does what is due and says when the next thing is; UINT64_MAX: nothing. */
uint64_t calls_tick(struct calls *c, uint64_t now_ms);

/** Calls with a hole. */
unsigned calls_live(const struct calls *c);
/** Accepted since the start. */
uint64_t calls_total(const struct calls *c);
/** Goes through all calls that have a hole. */
void calls_each(const struct calls *c, void (*cb)(const struct call *call, void *arg), void *arg);

const char *call_state_name(enum call_state s);
