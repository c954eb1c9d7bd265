/* SPDX-License-Identifier: Apache-2.0 */
/** \file Derived keys of many users in memory, found by name. No lock of its own: whoever owns it sees to it that nobody reads while
 * something is changed; only records_grow and records_hash may run beside readers. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "userdb/update.h"

#define RECORDS_KEY_BYTES 16u /* of the hash of names */

struct records;

/** Room for `users`, which grows. hash_key is random, borrowed, and lives as long. NULL: no memory. */
struct records *records_new(uint64_t users, const uint8_t hash_key[static RECORDS_KEY_BYTES]);
/** Wipes and frees; NULL is fine. */
void records_free(struct records *s);
uint64_t records_count(const struct records *s);

uint64_t records_hash(const uint8_t key[static RECORDS_KEY_BYTES], struct span name);

/** One user's keys of one epoch; NULL: none of that kind. They point into the records. */
struct record_keys {
	const uint8_t *sha256, *md5; /* 32 and 16 bytes */
};
/** hash: records_hash of the name. False: no such user, or no key of that epoch. */
bool records_find(const struct records *s, uint64_t hash, struct span name, uint32_t epoch, struct record_keys *keys);

/** Takes the keys of a USER_SET; those of an epoch that is older than both that are held are passed over. records_grow has made room.
 * \return 0 or -ENOMEM. */
int records_set(struct records *s, const struct user_op *op);
void records_del(struct records *s, struct span name);
/** Forgets keys of epochs before `epoch` in one part of the whole, 0 on; a part is small. False: that was the last. */
bool records_forget(struct records *s, uint32_t part, uint32_t epoch);

/** What finds a name. A larger one is built beside the one in use, then put in its place. */
struct record_index {
	struct bucket *bucket;
	uint32_t n;
};
/** Makes an index with room for `more` users if the one in use has none. \return 1, 0: there is room, -ENOMEM. */
int records_grow(const struct records *s, uint64_t more, struct record_index *grown);
/** Exchanges the index in use for another; the caller frees what it gets. */
void records_swap(struct records *s, struct record_index *index);
void record_index_free(struct record_index *x);
