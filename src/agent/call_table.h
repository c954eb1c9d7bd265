/* SPDX-License-Identifier: Apache-2.0 */
/** \file The calls that the agent knows: found by cookie and by dialog, ordered by when they are due. Pure; one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config.h"
#include "base/span.h"

enum call_state {
	CALL_NEW,
	CALL_OPENING,  /* the gate was asked */
	CALL_ANSWERED, /* 200 sent, resent until the ACK */
	CALL_CONFIRMED,
	CALL_CLOSING, /* the hole is closed, our BYE waits for its answer */
	CALL_ENDED,
	CALL_STATES
};

#define CALL_TAG_CHARS 16

/** What a BYE of ours needs of the INVITE; one allocation. All spans point into `store`. */
struct call_dialog {
	struct span call_id, from_tag;
	struct span from, to; /* the INVITE's header values */
	struct span target;   /* the client's Contact URI */
	struct span routes;   /* the Route header lines that a request of ours carries, complete */
	char store[];
};

/** A request that waits for the gate: its bytes and where it came from. */
struct call_request {
	char *raw; /* NULL: none */
	size_t n;
	int front;
	struct wn_addr src;
};

struct call {
	/* table */
	struct call *next_cookie, *next_dialog, *prev_all, *next_all;
	size_t heap_at; /* 1 + index; 0: not due */
	uint64_t due_ms;

	uint64_t cookie;      /* never 0 */
	uint64_t dialog_hash; /* 0: none yet */
	enum call_state state;
	uint32_t generation; /* of the grant that is asked for; older answers are closed */

	char user[USER_NAME_MAX + 1];
	const struct agent_service *service; /* NULL: adopted, and no service has that address now */
	uint8_t proto;
	bool tag, key_known;
	uint8_t key[16];
	struct wn_addr inside, remote, public;
	uint64_t hole; /* 0: none */
	uint32_t lifetime_s;
	uint64_t began_ms, expires_ms, answered_ms, resend_ms, next_resend_ms;
	bool seen; /* in the list that is being read */

	char to_tag[CALL_TAG_CHARS + 1];
	uint32_t remote_cseq, local_cseq;
	int front;                   /* over which the client was last heard */
	struct call_dialog *dialog;  /* NULL: adopted */
	struct call_request waiting; /* the INVITE or UPDATE that the gate's answer will answer */
	bool renewing;
	char *answer; /* the 200 until its ACK; in CLOSING our BYE */
	size_t answer_n;
	int answer_front;
};

struct call_table;
int call_table_new(struct call_table **out);
void call_table_free(struct call_table *t); /* and every call in it */

/** A zeroed call under `cookie` (not 0, not in use), in the table and never due. NULL when out of memory. */
struct call *call_table_add(struct call_table *t, uint64_t cookie);
/** Takes it out and frees it. */
void call_table_remove(struct call_table *t, struct call *c);
struct call *call_table_by_cookie(const struct call_table *t, uint64_t cookie);
/** Gives it a dialog hash (not 0), under which call_table_by_dialog finds it. */
void call_table_set_dialog(struct call_table *t, struct call *c, uint64_t hash);
/** Start with prev = NULL; goes through all calls with that hash. */
struct call *call_table_by_dialog(const struct call_table *t, uint64_t hash, const struct call *prev);
/** due_ms = UINT64_MAX: never. */
void call_table_due(struct call_table *t, struct call *c, uint64_t due_ms);
/** The one that is due first, or NULL. */
struct call *call_table_first_due(const struct call_table *t);
/** Start with prev = NULL; newest first. The one before may have been removed only after its successor was asked for. */
struct call *call_table_next(const struct call_table *t, const struct call *prev);
size_t call_table_count(const struct call_table *t);
