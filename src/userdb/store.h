/* SPDX-License-Identifier: Apache-2.0 */
/** \file The agent's user database: LMDB in a directory (0700) that only the agent opens. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "userdb/update.h"

#define USER_SECRET_MAX 64

struct user_store;

struct user_record {
	char name[USER_NAME_MAX + 1];
	char secret[USER_SECRET_MAX + 1]; /* base64url of 32 random bytes */
	bool md5;                         /* opted in to MD5 (RFC 7616 agents that know nothing else) */
	uint64_t created_unix_s;
};

/** Opens or creates. map_bytes: the database's upper size; 0 = 1 GiB. Refuses a directory that others may read, and one that another
 * process holds (-EBUSY). \return 0 or negative errno with a line on stderr. */
int user_store_open(const char *dir, size_t map_bytes, struct user_store **out);
void user_store_close(struct user_store *s);

int user_store_get(struct user_store *s, const char *name, struct user_record *out); /* 0 or -ENOENT */
/** Durable when it returns 0. -EEXIST when it is there, -EINVAL for a bad name or secret, -ENOSPC when the map is full. */
int user_store_add(struct user_store *s, const struct user_record *r);
int user_store_del(struct user_store *s, const char *name);
/** In name order; stops early when cb returns non-zero, and returns that. cb may not write to the store. */
int user_store_each(struct user_store *s, int (*cb)(const struct user_record *r, void *arg), void *arg);
uint64_t user_store_count(struct user_store *s);

/** The chain's head, kept in the same transaction as the change that made it. */
int user_store_head(struct user_store *s, struct update_head *out);

/** Adds or deletes and moves the head in one transaction. op: USER_SET adds `r`, USER_DEL deletes r->name. -EINVAL when head does not
 * follow the one that is kept. */
int user_store_commit(struct user_store *s, enum user_op_kind op, const struct user_record *r, const struct update_head *head);

/** Of which epochs the chain holds every user's keys: all up to `epoch` (of length epoch_s; 0 with rotation off). */
struct user_store_keys {
	uint32_t epoch_s, epoch;
	bool known; /* false: never said */
};
int user_store_keys(struct user_store *s, struct user_store_keys *out);
/** Moves the head and, when keys != NULL, says which keys are complete, in one transaction. The head may stay where it is. */
int user_store_commit_keys(struct user_store *s, const struct update_head *head, const struct user_store_keys *keys);

/** A consistent view in name order that later writes do not disturb: for what is sent in pieces. Its pages are held until it is closed,
 * so close it soon. */
struct user_iter;
int user_iter_open(struct user_store *s, struct user_iter **out);
/** Goes on with the first name after `name`. */
int user_iter_seek(struct user_iter *it, const char *name);
/** \return 1 a record, 0 the end, negative errno. */
int user_iter_next(struct user_iter *it, struct user_record *r);
/** Of the view. */
uint64_t user_iter_count(const struct user_iter *it);
void user_iter_head(const struct user_iter *it, struct update_head *out);
void user_iter_close(struct user_iter *it);
