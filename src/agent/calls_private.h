/* SPDX-License-Identifier: Apache-2.0 */
/** \file Shared by calls.c (the machine), calls_request.c (what clients ask) and calls_gate.c (what the gate says). */
#pragma once

#include <sodium.h>

#include "agent/calls.h"

#define CALLS_GATE_TIMEOUT_MS 5000u
#define CALLS_ABANDONED       256u
#define CALLS_UNCLAIMED       1u /* dialog hash of calls whose dialog nobody has named since they were adopted */

enum { CALLS_KEY_COOKIE, CALLS_KEY_TAG, CALLS_KEY_DIALOG, CALLS_KEYS };

struct calls {
	const struct agent_config *cfg;
	const struct calls_ops *ops;
	void *arg;
	struct agent_counters *counters;
	struct call_table *table;
	uint8_t keys[CALLS_KEYS][crypto_shorthash_KEYBYTES];
	unsigned live;       /* with a hole */
	uint32_t generation; /* of the last grant asked for; over all calls, so that no answer is taken for a later call's */
	uint64_t total;
	uint64_t abandoned[CALLS_ABANDONED]; /* cookies of grants whose answer never came; a ring */
	unsigned abandoned_at;
};

/** The only way into a state: checks, logs, sets the timer; CALL_ENDED frees the call. */
void calls_enter(struct calls *c, struct call *k, enum call_state to, uint64_t now, const char *why);
/** After expires_ms changed. */
void calls_rearm(struct calls *c, struct call *k, uint64_t now);
void calls_close_hole(struct calls *c, struct call *k);
void calls_set_hole(struct calls *c, struct call *k, uint64_t hole);
/** Closes the hole and, where there is a dialog, says BYE. Frees the call or leaves it in CALL_CLOSING. */
void calls_end(struct calls *c, struct call *k, uint64_t now, const char *why);
/** Sends 200 with the hole's address and goes to CALL_ANSWERED. */
void calls_answer(struct calls *c, struct call *k, const struct sip_msg *m, int front, const struct wn_addr *src, uint64_t now,
		  const char *why);

void calls_reply(struct calls *c, int front, const struct wn_addr *src, const struct sip_msg *m, unsigned status, const char *reason,
		 const char *extra);
/** Answers the request that waits for the gate, and drops it. */
void calls_reply_waiting(struct calls *c, struct call *k, unsigned status, const char *reason, const char *extra);
bool calls_reparse(const struct call_request *r, struct sip_msg *m);

/** Names are at most CALL_NAME_MAX long; longer ones hash by their beginning and must be refused before. */
uint64_t calls_hash_cookie(const struct calls *c, struct span user, struct span call_id, struct span from_tag); /* never 0 */
uint64_t calls_hash_dialog(const struct calls *c, struct span call_id, struct span from_tag);                   /* above CALLS_UNCLAIMED */
void calls_hash_tag(const struct calls *c, struct span user, struct span call_id, struct span from_tag,
		    char out[static CALL_TAG_CHARS + 1]);

/** Remembers that the gate may have a hole under this cookie that nobody waits for. */
void calls_abandon(struct calls *c, uint64_t cookie);
