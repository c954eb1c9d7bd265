/* SPDX-License-Identifier: Apache-2.0 */
/** \file A front's users in memory: one table per tenant, read by every worker, written by the feed's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "userdb/update.h"

struct user_table;

int user_table_new(struct user_table **out);
void user_table_free(struct user_table *t);

/** What a worker needs of a user, copied out. */
struct user_keys {
	uint8_t flags; /* USER_HAS_* of that epoch */
	uint8_t sha256[32];
	uint8_t md5[16];
};

/** Keys of `name` for `epoch`. False: no such user, or none for that epoch; *keys is then filled with a decoy derived from a random
 * key of this process, so that the digest that follows costs and fails the same. Any thread, briefly locked. */
bool user_table_find(const struct user_table *t, struct span name, uint32_t epoch, struct user_keys *keys);

enum table_verdict {
	TABLE_OK,
	TABLE_CURRENT,  /* a heartbeat that agrees, or a message already applied */
	TABLE_GAP,      /* seq or hash does not follow: ask for a snapshot */
	TABLE_ROLLBACK, /* older than what is held */
	TABLE_MALFORMED,
	TABLE_FORGED,
	TABLE_WRONG_DOMAIN,
	TABLE_TOO_OLD, /* its time is before the last one's */
	TABLE_NO_MEMORY
};
/** Verifies and applies one message. One writer thread. */
enum table_verdict user_table_apply(struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct span msg);
/** The same for a CHANGE that is the first thing an empty table holds: its predecessor is taken for granted. Only for what was verified in
 * its place in the chain once (userdb/file.h). TABLE_GAP: the table is not empty, or msg is no CHANGE. */
enum table_verdict user_table_resume(struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC],
				     struct span msg);
/** Forgets everything. \return 0 or -ENOMEM, which changes nothing. */
int user_table_clear(struct user_table *t);
const char *table_verdict_name(enum table_verdict v);

/** What is held now. Any thread. */
struct table_state {
	struct update_head head;
	uint32_t epoch, epoch_s; /* as the publisher last said */
	uint64_t publisher_ms;   /* time in the last valid message */
	uint64_t users;
};
void user_table_state(const struct user_table *t, struct table_state *out);
