/* SPDX-License-Identifier: Apache-2.0 */
/** \file The last refusals of a worker, for `walnut why`: bounded memory, no secret.
 *
 * Three rings, so that whoever can cause one kind of refusal cannot push out another kind. A stranger's flood turns its own ring over at a
 * bounded rate, and costs the worker no more than that. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"
#include "front/core.h"

enum front_why_ring {
	FRONT_WHY_PROVEN,   /* the sender had proven to be a user, or a party of a dialog */
	FRONT_WHY_ANSWERED, /* the sender had answered a challenge of ours from its address, and was not believed */
	FRONT_WHY_STRANGER, /* anybody, from any address */
	FRONT_WHY_RINGS
};

#define FRONT_WHY_KEPT   64u /* refusals in a ring */
#define FRONT_WHY_TEXT   64u /* bytes that are kept of a name */
#define FRONT_WHY_NOBODY UINT32_MAX

struct front_denial {
	uint64_t at_ms; /* on the worker's clock */
	struct wn_addr from;
	uint32_t tenant; /* FRONT_WHY_NOBODY: none of ours */
	uint16_t status; /* what a service answered; 0: the front decided */
	uint8_t outcome; /* enum front_outcome */
	bool cut;        /* the Call-ID was longer */
	uint8_t call_id_n, user_n;
	char call_id[FRONT_WHY_TEXT], user[FRONT_WHY_TEXT]; /* as they came, not terminated; the user is claimed, or proven in that ring */
};

struct front_why;

/** All memory is touched now: a flood makes it no larger. \return 0 or -ENOMEM. */
int front_why_new(struct front_why **out);
void front_why_free(struct front_why *w);

/** Which ring an outcome belongs to; FRONT_WHY_RINGS: it refuses nobody. trusted: what the core says of the sender. */
enum front_why_ring front_why_ring_of(enum front_outcome o, bool trusted);

/** Fills in d; the spans may be longer than what is kept, or NULL. */
void front_denial_names(struct front_denial *d, struct span call_id, struct span user);

/** Keeps d, in place of the ring's oldest. The owner's thread. Never waits: while the ring is being read, and over the ring's rate, d is
 * counted as left out. */
void front_why_note(struct front_why *w, enum front_why_ring ring, const struct front_denial *d);
/** Whether front_why_note would keep something now; spares the work of filling it in. Counts what it turns away. The owner's thread. */
bool front_why_room(struct front_why *w, enum front_why_ring ring, uint64_t now_ms);

/** Copies the ring, newest first. Any thread; one at a time. \return how many. */
unsigned front_why_read(struct front_why *w, enum front_why_ring ring, struct front_denial out[static FRONT_WHY_KEPT]);
/** How many were left out. Any thread. */
uint64_t front_why_left_out(const struct front_why *w, enum front_why_ring ring);

/** Whether d is about this Call-ID (its beginning, if it was cut) or user. */
bool front_denial_is_about(const struct front_denial *d, struct span call_id_or_user);
