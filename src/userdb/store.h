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

/** Opens or creates. map_bytes: the database's upper size; 0 = 1 GiB. \return 0 or negative errno with a line on stderr. */
int user_store_open(const char *dir, size_t map_bytes, struct user_store **out);
void user_store_close(struct user_store *s);

int user_store_get(struct user_store *s, const char *name, struct user_record *out); /* 0 or -ENOENT */
/** Durable when it returns 0. -EEXIST when it is there. */
int user_store_add(struct user_store *s, const struct user_record *r);
int user_store_del(struct user_store *s, const char *name);
/** In name order; stops early when cb returns non-zero, and returns that. */
int user_store_each(struct user_store *s, int (*cb)(const struct user_record *r, void *arg), void *arg);
uint64_t user_store_count(struct user_store *s);

/** The chain's head, kept in the same transaction as the change that made it. */
int user_store_head(struct user_store *s, struct update_head *out);

/** Adds or deletes and moves the head in one transaction. op: USER_SET adds `r`, USER_DEL deletes r->name. */
int user_store_commit(struct user_store *s, enum user_op_kind op, const struct user_record *r, const struct update_head *head);
