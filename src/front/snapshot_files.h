/* SPDX-License-Identifier: Apache-2.0 */
/** \file One tenant's two files of users: the one that is kept, and a spare in which a snapshot is gathered; when it is whole they exchange
 * names. Blocking; one thread at a time. Behind front/snapshot.h. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/span.h"
#include "userdb/file.h"

#define SNAPSHOT_NAME_CHARS (DOMAIN_MAX + 24)

struct snapshot_file {
	int fd;
	uint64_t bytes; /* whole records; 0: not even the magic */
	struct user_file_epochs epochs;
};

struct snapshot_files {
	int dir;          /* borrowed */
	const char *path; /* its name, for the log */
	char name[SNAPSHOT_NAME_CHARS], spare_name[SNAPSHOT_NAME_CHARS];
	struct snapshot_file kept, spare; /* spare: a snapshot that is not complete, otherwise empty */
	struct update_msg gathered;       /* the chunk that the spare needs next; 0 of 0: none is under way */
	bool behind;                      /* the file lacks a change: nothing may follow */
	bool dirty;                       /* written, not synced */
	bool undroppable;                 /* its beginning could not be dropped: not tried again */
	_Atomic uint64_t seq;             /* of the last update that is in the kept file; 0: none */
};

/** Whether a folder or file is `uid`'s alone; dir and name together are its path. \return 0, or -EPERM with a line in the log. */
int snapshot_check_owner(const char *dir, const char *name, const struct stat *st, uid_t uid, unsigned mode);

/** Opens, in a folder that is open, and fills the empty table: front_snapshots_load. */
int snapshot_files_open(struct snapshot_files *f, int dir, const char *path, const char *domain, const uint8_t *pk,
			struct user_table *users);
void snapshot_files_close(struct snapshot_files *f);

/** Writes a record (length and message) that the table has taken. What fails is logged. */
void snapshot_files_write(struct snapshot_files *f, struct span record);
/** Records are missing from here on. */
void snapshot_files_lost(struct snapshot_files *f);
/** Makes what was written durable. */
void snapshot_files_sync(struct snapshot_files *f);
