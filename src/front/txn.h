/* SPDX-License-Identifier: Apache-2.0 */
/** \file Server transactions of callers that have authenticated (RFC 3261 17.2.1, RFC 6026): fixed capacity, allocated at the start. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define TXN_ANSWER_MAX   1536 /* a longer answer is sent once and not kept */
#define TXN_LIFE_MS      32000u
#define TXN_CONFIRMED_MS 5000u /* T4: so long late copies may come after the ACK */
#define TXN_RESENDS_MAX  7u
#define TXN_RESEND_MS    100u

enum txn_state {
	TXN_FREE,
	TXN_PROCEEDING, /* no final answer yet */
	TXN_ACCEPTED,   /* 2xx passed on; the agent repeats it until ACK */
	TXN_COMPLETED,  /* other final answer, repeated until ACK */
	TXN_CONFIRMED,  /* ACK seen */
};

struct txn {
	enum txn_state state;
	uint32_t index;
	uint64_t id;     /* stands in our branch; never repeats within a boot */
	uint64_t exact;  /* keyed hash of the datagram and its source */
	uint64_t branch; /* keyed hash of branch, sent-by and source; once accepted, of what the ACK will have */
	struct wn_addr src;
	unsigned tenant;
	uint64_t due_ms;      /* next timer */
	uint64_t deadline_ms; /* end of this state */
	uint32_t interval_ms; /* COMPLETED: Timer G */
	uint64_t resent_ms;
	unsigned resends;
	uint32_t next_exact, next_branch; /* chains */
	uint32_t wheel_prev, wheel_next, slot;
	uint16_t uri_n, answer_n;
	char uri[256];
	char answer[TXN_ANSWER_MAX];
};

struct txn_table;

/** \return 0, -EINVAL, -ENOMEM. Memory of unused transactions is not touched. */
int txn_table_new(uint32_t capacity, uint64_t first_id, struct txn_table **out);
void txn_table_free(struct txn_table *t);
uint32_t txn_count(const struct txn_table *t);

/** A new one in TXN_PROCEEDING, or NULL when all are in use. */
struct txn *txn_begin(struct txn_table *t, uint64_t exact, uint64_t branch, const struct wn_addr *src, uint64_t now_ms);
void txn_end(struct txn_table *t, struct txn *x);

/** NULL when there is none. by_branch also compares the source. */
struct txn *txn_by_exact(struct txn_table *t, uint64_t exact);
struct txn *txn_by_branch(struct txn_table *t, uint64_t branch, const struct wn_addr *src);
struct txn *txn_by_id(struct txn_table *t, uint64_t id);

/** Moves to a later state and sets its timers. */
void txn_enter(struct txn_table *t, struct txn *x, enum txn_state state, uint64_t now_ms);
/** Files it under another `branch`. */
void txn_file(struct txn_table *t, struct txn *x, uint64_t branch);
/** Ends the state in TXN_CONFIRMED_MS, if it would not end sooner. */
void txn_shorten(struct txn_table *t, struct txn *x, uint64_t now_ms);
/** Keeps an answer; one that is too long clears what was kept. */
void txn_keep(struct txn *x, struct span answer);
/** Whether the kept answer may be sent to a request of `asked` bytes now; counts it. */
bool txn_may_resend(struct txn *x, size_t asked, uint64_t now_ms);

/** The next one whose timer has run out, or NULL. The caller ends it, moves it, or calls txn_again. */
struct txn *txn_due(struct txn_table *t, uint64_t now_ms);
/** Makes the timers of a tenant's calls without a final answer run out now. */
void txn_hurry(struct txn_table *t, unsigned tenant, uint64_t now_ms);
/** COMPLETED: sets Timer G to its next, doubled value. */
void txn_again(struct txn_table *t, struct txn *x, uint64_t now_ms);
