/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (1u << 18)
_Static_assert(BLOCK > UPDATE_BYTES_MAX + USER_FILE_LENGTH, "a record fits");

/* Reads ahead in blocks; what is held begins at `at` of the file. */
struct reader {
	int fd;
	uint64_t at;
	size_t begin, end;
	bool eof;
	uint8_t buf[BLOCK];
};

void user_file_length(size_t n, uint8_t out[static USER_FILE_LENGTH])
{
	out[0] = (uint8_t)(n >> 24);
	out[1] = (uint8_t)(n >> 16);
	out[2] = (uint8_t)(n >> 8);
	out[3] = (uint8_t)n;
}

void user_file_epochs_note(struct user_file_epochs *e, uint32_t epoch, uint64_t at)
{
	if (e->any && epoch <= e->last)
		return;
	e->before = e->any ? e->last : epoch;
	e->before_at = e->any ? e->last_at : at;
	e->last = epoch;
	e->last_at = at;
	e->any = true;
}

uint64_t user_file_droppable(const struct user_file_epochs *e)
{
	if (!e->any)
		return USER_FILE_MAGIC_BYTES;
	return e->last - e->before <= 1 ? e->before_at : e->last_at;
}

/* Sees to it that `want` bytes are held, or all that are left. \return how many are held, or negative errno. */
static ssize_t fill(struct reader *r, size_t want)
{
	if (r->end - r->begin >= want)
		return (ssize_t)(r->end - r->begin);
	memmove(r->buf, r->buf + r->begin, r->end - r->begin);
	r->end -= r->begin;
	r->begin = 0;
	while (!r->eof && r->end < want) {
		ssize_t n = read(r->fd, r->buf + r->end, sizeof(r->buf) - r->end);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			r->eof = true;
		if (n > 0)
			r->end += (size_t)n;
	}
	return (ssize_t)r->end;
}

static void take(struct reader *r, size_t n)
{
	r->begin += n;
	r->at += n;
}

static int bad(struct user_file_info *info, uint64_t at, enum table_verdict why, const char *form)
{
	info->bad_at = at;
	info->why = why;
	info->form = form;
	return why == TABLE_NO_MEMORY ? -ENOMEM : -EBADMSG;
}

/* The file's end lacks its data: a file system may lengthen a file before it writes what belongs there. */
static int only_zeros(struct reader *r, bool *zeros)
{
	ssize_t n;

	*zeros = true;
	while ((n = fill(r, 1)) > 0) {
		for (size_t i = 0; i < (size_t)n; i++)
			if (r->buf[r->begin + i] != 0) {
				*zeros = false;
				return 0;
			}
		take(r, (size_t)n);
	}
	return n < 0 ? (int)n : 0;
}

/* The next record's message. \return 1, 0: whole records end here, or negative errno. */
static int next(struct reader *r, struct user_file_info *info, struct span *msg)
{
	ssize_t held = fill(r, USER_FILE_LENGTH);
	const uint8_t *p = r->buf + r->begin;
	uint64_t from = r->at;
	size_t n;

	if (held <= 0)
		return (int)held;
	if (held < (ssize_t)USER_FILE_LENGTH) {
		info->torn = (uint64_t)held;
		return 0;
	}
	n = (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
	if (n == 0) {
		bool zeros;
		int rc = only_zeros(r, &zeros);

		info->torn = r->at - from;
		return rc < 0 ? rc : zeros ? 0 : bad(info, from, TABLE_OK, "a record has no length");
	}
	if (n > UPDATE_BYTES_MAX)
		return bad(info, from, TABLE_OK, "a record is longer than a message can be");
	held = fill(r, USER_FILE_LENGTH + n);
	if (held < 0)
		return (int)held;
	if ((size_t)held < USER_FILE_LENGTH + n) {
		info->torn = (uint64_t)held;
		return 0;
	}
	*msg = span_of(r->buf + r->begin + USER_FILE_LENGTH, n);
	return 1;
}

static int load(struct reader *r, struct user_table *t, struct span domain, const uint8_t *pk, struct user_file_info *info)
{
	bool complete = false;
	struct span msg;
	ssize_t held = fill(r, USER_FILE_MAGIC_BYTES);
	int rc;

	if (held <= 0)
		return held == 0 ? -ENODATA : (int)held;
	if (held < (ssize_t)USER_FILE_MAGIC_BYTES || memcmp(r->buf, USER_FILE_MAGIC, USER_FILE_MAGIC_BYTES) != 0)
		return bad(info, 0, TABLE_OK, "it is no file of users");
	take(r, USER_FILE_MAGIC_BYTES);

	while ((rc = next(r, info, &msg)) == 1) {
		struct update_msg m;
		enum table_verdict v;

		/* Chunks from the first to the last, then changes; or changes alone. */
		if (!update_peek(msg, &m) || m.type == UPDATE_HEARTBEAT ||
		    (m.type == UPDATE_SNAPSHOT ? (m.chunk == 0) != (info->records == 0) : !complete && info->records > 0))
			return bad(info, r->at, TABLE_OK, "a message that does not belong there");
		v = info->records == 0 && m.type == UPDATE_CHANGE ? user_table_resume(t, domain, pk, msg)
								  : user_table_apply(t, domain, pk, msg);
		if (v != TABLE_OK)
			return bad(info, r->at, v, NULL);
		user_file_epochs_note(&info->epochs, m.epoch, r->at);
		complete = m.type == UPDATE_CHANGE || m.chunk + 1 == m.chunks;
		info->records++;
		info->changes += m.type == UPDATE_CHANGE;
		take(r, USER_FILE_LENGTH + msg.n);
		info->bytes = r->at;
	}
	if (rc < 0)
		return rc;
	if (!complete)
		return bad(info, info->bytes, TABLE_OK, "it ends before its users are complete");
	return 0;
}

int user_file_load(int fd, struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC],
		   struct user_file_info *info)
{
	struct reader *r = malloc(sizeof(*r));
	int rc;

	*info = (struct user_file_info){0};
	if (r == NULL)
		return -ENOMEM;
	r->fd = fd;
	r->at = 0;
	r->begin = r->end = 0;
	r->eof = false;
	posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
	rc = lseek(fd, 0, SEEK_SET) < 0 ? -errno : load(r, t, domain, pk, info);
	if (rc != 0) {
		info->bytes = 0;
		if (user_table_clear(t) != 0)
			rc = -ENOMEM;
	}
	free(r);
	return rc;
}
