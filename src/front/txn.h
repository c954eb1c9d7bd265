/* SPDX-License-Identifier: Apache-2.0 */
/** \file Transactions of calls that a front has let through (RFC 3261 17.2.1 towards the caller, 17.1.1 towards a plain next hop, RFC
 * 6026): fixed capacity, allocated at the start. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "front/flow.h"
#include "userdb/update.h"

#define TXN_TEXT \
	2560 /* bytes kept of one call until its ACK: URI, user, beginning, last answer and, until the hop has answered, its request */
#define TXN_ANSWER_MAX   1536 /* a longer answer is sent once and not kept */
#define TXN_URI_MAX      255
#define TXN_LIFE_MS      32000u
#define TXN_RINGING_MS   185000u /* Timer C: more than three minutes */
#define TXN_CONFIRMED_MS 5000u   /* T4: so long late copies may come after the ACK */
#define TXN_RESENDS_MAX  7u
#define TXN_RESEND_MS    100u
#define TXN_NO_KEY       UINT64_MAX

enum txn_state {
	TXN_FREE,
	TXN_PROCEEDING, /* no final answer yet */
	TXN_ACCEPTED,   /* 2xx passed on; the agent repeats it until ACK */
	TXN_COMPLETED,  /* other final answer, repeated until ACK */
	TXN_CONFIRMED,  /* ACK seen */
};

/** Two cache lines. What look-ups and timers read of calls that are not meant stands in the first; the texts stand elsewhere. */
struct txn {
	uint64_t id;                  /* stands in our branch; never repeats within a boot */
	uint64_t key;                 /* of the request that made it: its nonce's number, or TXN_NO_KEY */
	uint64_t call;                /* keyed hash of what INVITE, CANCEL and every ACK of it have in common */
	uint64_t due_ms;              /* next timer */
	uint32_t next_key, next_call; /* chains */
	uint32_t wheel_prev, wheel_next, turn;
	uint16_t tenant;
	uint16_t answer_n, request_n; /* request_n: 0 once the hop has answered */
	uint16_t interval_ms;         /* COMPLETED: Timer G; PROCEEDING with a kept request: Timer A */
	uint8_t state;                /* enum txn_state */
	uint8_t hop, resends, uri_n;

	uint64_t branch; /* keyed hash of branch, sent-by and source */
	uint64_t exact;  /* keyed hash of the INVITE's bytes and source; 0: told by branch alone */
	struct front_flow flow;
	uint64_t deadline_ms; /* end of this state */
	uint32_t resent_ms;   /* its low bits */
	uint32_t text;        /* 1 + index; 0: has been given back */
};
_Static_assert(sizeof(struct txn) == 128, "two cache lines");

/** Of an INVITE that begins a call. */
struct txn_of {
	uint64_t key, call, branch, exact; /* as in struct txn */
	const struct front_flow *flow;
	struct span uri;  /* of at most TXN_URI_MAX bytes */
	struct span user; /* of at most USER_NAME_MAX bytes; NULL: nobody had to prove anything */
};

struct txn_table;

/** \return 0, -EINVAL, -ENOMEM. Memory of unused transactions is not touched. */
int txn_table_new(uint32_t capacity, uint64_t first_id, struct txn_table **out);
void txn_table_free(struct txn_table *t);
uint32_t txn_count(const struct txn_table *t);
/** Those without a final answer, or whose final answer has no ACK yet. */
uint32_t txn_unsettled(const struct txn_table *t);
/** Those in TXN_COMPLETED: a refusal is repeated until its ACK comes. */
uint32_t txn_completed(const struct txn_table *t);

/** A new one in TXN_PROCEEDING, or NULL when all are in use. */
struct txn *txn_begin(struct txn_table *t, const struct txn_of *of, uint64_t now_ms);
void txn_end(struct txn_table *t, struct txn *x);

/** NULL when there is none. All but by_id also compare the flow; by_key never finds TXN_NO_KEY. */
struct txn *txn_by_key(struct txn_table *t, uint64_t key, const struct front_flow *flow);
struct txn *txn_by_branch(struct txn_table *t, uint64_t call, uint64_t branch, const struct front_flow *flow);
/** One of that call that has been accepted. */
struct txn *txn_accepted(struct txn_table *t, uint64_t call, const struct front_flow *flow);
struct txn *txn_by_id(struct txn_table *t, uint64_t id);

/** Moves to a later state and sets its timers. */
void txn_enter(struct txn_table *t, struct txn *x, enum txn_state state, uint64_t now_ms);
/** A provisional answer has come: from now on the final one has TXN_RINGING_MS. */
void txn_ringing(struct txn_table *t, struct txn *x, uint64_t now_ms);
/** The ACK of a 2xx has passed: ends the state in TXN_CONFIRMED_MS, if it would not end sooner, and keeps no text any more, so that those
 * in use are few and stay in the caches. */
void txn_acknowledged(struct txn_table *t, struct txn *x, uint64_t now_ms);
/** Keeps an answer instead of the last one and of the request; one that is too long clears what was kept. */
void txn_keep(struct txn_table *t, struct txn *x, struct span answer);
/** Keeps the request towards an UDP hop, to be repeated (Timer A) until txn_answered; does nothing when there is no room for it. */
void txn_keep_request(struct txn_table *t, struct txn *x, struct span request, uint64_t now_ms);
/** What is kept, until the next call for this one. */
struct span txn_uri(const struct txn_table *t, const struct txn *x);
struct span txn_user(const struct txn_table *t, const struct txn *x);
struct span txn_answer(const struct txn_table *t, const struct txn *x);
struct span txn_request(const struct txn_table *t, const struct txn *x);
/** When it began, as long as its text is kept: until the ACK of a 2xx; then 0. */
uint64_t txn_begun_ms(const struct txn_table *t, const struct txn *x);
/** The hop has it: no more repetitions. */
void txn_answered(struct txn_table *t, struct txn *x);
/** Whether the kept answer may be sent to a request of `asked` bytes now; counts it. */
bool txn_may_resend(struct txn *x, size_t asked, uint64_t now_ms);

/** The next one whose timer has run out, or NULL. The caller ends it, moves it, or calls txn_again. */
struct txn *txn_due(struct txn_table *t, uint64_t now_ms);
/** Makes the timers of those calls run out now that wait for a final answer of the tenant's agent (hop 0), or of that hop. */
void txn_hurry(struct txn_table *t, unsigned tenant, unsigned hop, uint64_t now_ms);
/** COMPLETED: sets Timer G to its next, doubled value; PROCEEDING: Timer A. */
void txn_again(struct txn_table *t, struct txn *x, uint64_t now_ms);
