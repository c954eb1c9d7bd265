/* SPDX-License-Identifier: Apache-2.0 */
/** \file Tenants' users on disk (userdb/file.h): read at the start, kept up by a thread of its own, so that no disk makes the loop wait.
 *
 * The file always holds a state that the publisher signed: the last one, or, after a crash or a disk that failed, one before it. Calls are
 * those of one thread, the loop's, in the order open, load (each tenant), start, take …, close. */
#pragma once

#include <stdint.h>

#include "base/span.h"
#include "userdb/table.h"

struct front_snapshots;

/** Opens the folder for the only process that may use it. Made (0700) if it is missing; otherwise it must be `user`'s (NULL or not started
 * as root: this process's) and nobody else's. Before privileges are dropped. \return 0, or negative errno with a line in the log. */
int front_snapshots_open(const char *dir, const char *user, unsigned ntenants, struct front_snapshots **out);

/** Opens a tenant's files, and fills its empty table. What is damaged is set aside as DOMAIN.users.damaged with a line in the log, and the
 * table stays empty: the agent will send everything. Blocks. After privileges were dropped, before the sandbox forbids opening files.
 * users and domain must outlive s. \return 0, or negative errno with a line in the log: the files cannot be used. */
int front_snapshots_load(struct front_snapshots *s, unsigned tenant, const char *domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC],
			 struct user_table *users);

/** Starts the thread that writes. \return 0 or negative errno. */
int front_snapshots_start(struct front_snapshots *s);

/** A message that the tenant's table has just taken (TABLE_OK), in that order. Copied; never waits for a disk. */
void front_snapshots_take(struct front_snapshots *s, unsigned tenant, struct span msg);

/** The last update that was written, 0: none. A tenant whose disk failed stays behind until a whole snapshot comes. Any thread. */
uint64_t front_snapshots_seq(const struct front_snapshots *s, unsigned tenant);

/** Writes what is waiting, ends the thread, frees. NULL is fine. */
void front_snapshots_close(struct front_snapshots *s);
