/* SPDX-License-Identifier: Apache-2.0 */
/** \file A front's users on disk, signed as the publisher signed them (doc/protocol.md, "Users on disk"): "WLNUSER1", then records of a
 * 32-bit big-endian length and a message of update.h. First a whole SNAPSHOT, chunk by chunk, then the CHANGEs that followed it. A file
 * whose beginning has been dropped (user_file_droppable) begins with a CHANGE. Nothing else may stand in it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "userdb/table.h"

#define USER_FILE_MAGIC       "WLNUSER1"
#define USER_FILE_MAGIC_BYTES 8u
#define USER_FILE_LENGTH      4u /* bytes before each message */
#define USER_FILE_SUFFIX      ".users"

/** Where records of the last two epochs begin: what lies before them holds keys that nobody asks for any more. */
struct user_file_epochs {
	uint32_t last, before;
	uint64_t last_at, before_at;
	bool any;
};
/** A record of a publisher's epoch begins at that byte. Records come in the order of the file. */
void user_file_epochs_note(struct user_file_epochs *e, uint32_t epoch, uint64_t at);
/** The first byte that is worth keeping, given the epoch of the last record; USER_FILE_MAGIC_BYTES: all is. Keys of epoch E and later are
 * published in epoch E - 1 at the earliest, so the records of the last two epochs hold every key that is of use. */
uint64_t user_file_droppable(const struct user_file_epochs *e);

struct user_file_info {
	uint64_t bytes; /* whole records end here: where the next one belongs; 0: none */
	uint64_t torn;  /* bytes after that which are no whole record: an append that was cut short */
	uint64_t records, changes;
	struct user_file_epochs epochs;
	uint64_t bad_at;        /* on -EBADMSG: the record that was refused, */
	enum table_verdict why; /* and the verdict; TABLE_OK: the file's form is wrong, */
	const char *form;       /* which is this, a text that lives for ever; else NULL */
};

/** Reads the file from its beginning into an empty table, verifying everything. All or nothing: on failure the table is empty again.
 * What a torn append has left at the end is not an error but counted in info->torn. Blocks; one thread, the table's writer.
 * \return 0; -ENODATA the file is empty; -EBADMSG it is not what was signed, info says where; -ENOMEM; or the error of a read. */
int user_file_load(int fd, struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC],
		   struct user_file_info *info);

/** What stands in front of a message of n bytes. */
void user_file_length(size_t n, uint8_t out[static USER_FILE_LENGTH]);
