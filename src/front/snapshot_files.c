/* SPDX-License-Identifier: Apache-2.0 */
#include "front/snapshot_files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define DROP_BYTES_MIN (1u << 20)
#define COPY_BYTES     (1u << 18)

static int put(int fd, const uint8_t *p, size_t n, uint64_t at)
{
	while (n > 0) {
		ssize_t k = pwrite(fd, p, n, (off_t)at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		p += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

/* Adds a record. On failure the file ends where it did. */
static int append(struct snapshot_file *f, struct span record, uint32_t epoch)
{
	uint64_t at = f->bytes != 0 ? f->bytes : USER_FILE_MAGIC_BYTES;
	int rc = f->bytes != 0 ? 0 : put(f->fd, (const uint8_t *)USER_FILE_MAGIC, USER_FILE_MAGIC_BYTES, 0);

	if (rc == 0)
		rc = put(f->fd, (const uint8_t *)record.p, record.n, at);
	if (rc != 0) {
		(void)!ftruncate(f->fd, (off_t)f->bytes);
		return rc;
	}
	user_file_epochs_note(&f->epochs, epoch, at);
	f->bytes = at + record.n;
	return 0;
}

static int empty(struct snapshot_file *f)
{
	f->bytes = 0;
	f->epochs = (struct user_file_epochs){0};
	return ftruncate(f->fd, 0) == 0 ? 0 : -errno;
}

static void snapshot_end(struct snapshot_files *f)
{
	f->gathered = (struct update_msg){0};
	empty(&f->spare);
}

/* The spare is complete: it takes the name. Whatever happens, a whole file stands under that name. */
static int exchange(struct snapshot_files *f)
{
	struct snapshot_file old = f->kept;

	if (fdatasync(f->spare.fd) != 0 || renameat2(f->dir, f->spare_name, f->dir, f->name, RENAME_EXCHANGE) != 0)
		return -errno;
	f->kept = f->spare;
	f->spare = old;
	f->dirty = false;
	/* Until the names are on the disk, the old file may be what a start after a crash finds. */
	if (fsync(f->dir) != 0)
		return -errno;
	return empty(&f->spare);
}

static int copy(const struct snapshot_file *from, uint64_t at, int to)
{
	uint8_t *buf = malloc(COPY_BYTES);
	uint64_t done = USER_FILE_MAGIC_BYTES;
	int rc = buf != NULL ? put(to, (const uint8_t *)USER_FILE_MAGIC, USER_FILE_MAGIC_BYTES, 0) : -ENOMEM;

	while (rc == 0 && at < from->bytes) {
		size_t want = from->bytes - at < COPY_BYTES ? (size_t)(from->bytes - at) : COPY_BYTES;
		ssize_t n = pread(from->fd, buf, want, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			rc = n < 0 ? -errno : -EIO;
		else
			rc = put(to, buf, (size_t)n, done);
		at += n > 0 ? (uint64_t)n : 0;
		done += n > 0 ? (uint64_t)n : 0;
	}
	if (buf != NULL)
		sodium_memzero(buf, COPY_BYTES);
	free(buf);
	return rc;
}

/* Leaves out the beginning: keys of epochs that have passed. */
static int drop_beginning(struct snapshot_files *f, uint64_t from)
{
	uint64_t shift = from - USER_FILE_MAGIC_BYTES;
	struct user_file_epochs e = f->kept.epochs;
	int rc = copy(&f->kept, from, f->spare.fd);

	if (rc == 0) {
		e.last_at -= shift;
		e.before = e.before_at < from ? e.last : e.before;
		e.before_at = e.before_at < from ? e.last_at : e.before_at - shift;
		f->spare.bytes = f->kept.bytes - shift;
		f->spare.epochs = e;
		rc = exchange(f);
	}
	if (rc != 0) {
		f->undroppable = true;
		empty(&f->spare);
	}
	return rc;
}

static int write_chunk(struct snapshot_files *f, struct span record, const struct update_msg *m)
{
	struct update_msg *g = &f->gathered;
	int rc = 0;

	if (m->chunk == 0) {
		rc = empty(&f->spare);
		f->gathered = *m;
	}
	/* The table takes chunks in their order, so one that does not follow here is of a snapshot that could not be written. */
	if (m->chunk != g->chunk || m->chunks != g->chunks || m->at.seq != g->at.seq || m->unix_ms != g->unix_ms)
		return 0;
	if (rc == 0)
		rc = append(&f->spare, record, m->epoch);
	if (rc == 0 && ++g->chunk == g->chunks) {
		rc = exchange(f);
		if (rc == 0) {
			*g = (struct update_msg){0};
			f->behind = f->undroppable = false;
			atomic_store_explicit(&f->seq, m->at.seq, memory_order_release);
		}
	}
	if (rc != 0)
		snapshot_end(f);
	return rc;
}

static int write_change(struct snapshot_files *f, struct span record, const struct update_msg *m)
{
	uint64_t from;
	int rc;

	if (f->behind)
		return 0;
	rc = m->at.seq == atomic_load_explicit(&f->seq, memory_order_relaxed) + 1 ? append(&f->kept, record, m->epoch) : -ESTALE;
	if (rc != 0) {
		f->behind = true;
		return rc;
	}
	f->dirty = true;
	atomic_store_explicit(&f->seq, m->at.seq, memory_order_release);
	from = user_file_droppable(&f->kept.epochs);
	if (f->gathered.chunks == 0 && !f->undroppable && from > DROP_BYTES_MIN && from > f->kept.bytes / 2)
		rc = drop_beginning(f, from);
	return rc;
}

static void say_failed(const struct snapshot_files *f, int rc)
{
	const char *why = rc == -ESTALE    ? "an update before this one is missing"
			  : rc == -ENOBUFS ? "updates come faster than the disk takes them"
					   : strerror(-rc);

	wn_err("cannot write %s/%s: %s; %s", f->path, f->name, why,
	       f->behind ? "until the agent sends everything again, a restart will find older users in it" : "it stays as it was");
}

void snapshot_files_write(struct snapshot_files *f, struct span record)
{
	struct update_msg m;
	int rc = 0;

	if (!update_peek(span_of(record.p + USER_FILE_LENGTH, record.n - USER_FILE_LENGTH), &m))
		return;
	if (m.type == UPDATE_SNAPSHOT)
		rc = write_chunk(f, record, &m);
	else if (m.type == UPDATE_CHANGE)
		rc = write_change(f, record, &m);
	if (rc != 0)
		say_failed(f, rc);
}

void snapshot_files_lost(struct snapshot_files *f)
{
	f->behind = true;
	snapshot_end(f);
	say_failed(f, -ENOBUFS);
}

void snapshot_files_sync(struct snapshot_files *f)
{
	if (f->dirty && fdatasync(f->kept.fd) != 0)
		say_failed(f, -errno);
	f->dirty = false;
}

int snapshot_check_owner(const char *dir, const char *name, const struct stat *st, uid_t uid, unsigned mode)
{
	const char *slash = name[0] != '\0' ? "/" : "";

	if (st->st_uid != uid) {
		wn_err("%s%s%s: belongs to user %u; it must belong to user %u, which this process becomes: chown %u it", dir, slash, name,
		       st->st_uid, uid, uid);
		return -EPERM;
	}
	if ((st->st_mode & 077) != 0) {
		wn_err("%s%s%s: others may use it (mode %03o), and it holds keys; chmod %03o would be right", dir, slash, name,
		       st->st_mode & 0777u, mode);
		return -EPERM;
	}
	return 0;
}

static int open_file(const struct snapshot_files *f, const char *name, int flags)
{
	int fd = openat(f->dir, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
	struct stat st;
	int rc;

	if (fd < 0 || fstat(fd, &st) != 0) {
		rc = -errno;
		wn_err("%s/%s: cannot be opened: %s", f->path, name, strerror(-rc));
	} else if (!S_ISREG(st.st_mode)) {
		rc = -EPERM;
		wn_err("%s/%s: is not a regular file", f->path, name);
	} else {
		rc = snapshot_check_owner(f->path, name, &st, geteuid(), 0600);
	}
	if (rc < 0 && fd >= 0)
		close(fd);
	return rc < 0 ? rc : fd;
}

/* What cannot be believed is kept for whoever wants to know why, and replaced by an empty file. */
static int set_aside(struct snapshot_files *f)
{
	char name[SNAPSHOT_NAME_CHARS + 16];
	int rc;

	snprintf(name, sizeof(name), "%s.damaged", f->name);
	close(f->kept.fd);
	f->kept.fd = -1;
	if (renameat(f->dir, f->name, f->dir, name) != 0) {
		rc = -errno;
		wn_err("%s/%s: cannot be set aside: %s", f->path, f->name, strerror(-rc));
		return rc;
	}
	rc = open_file(f, f->name, O_EXCL);
	if (rc < 0)
		return rc;
	f->kept.fd = rc;
	return 0;
}

/* Both files are empty: finds out now whether names can be exchanged, not when a snapshot is complete. */
static int try_exchange(struct snapshot_files *f)
{
	struct snapshot_file kept = f->kept;
	int rc;

	if (renameat2(f->dir, f->spare_name, f->dir, f->name, RENAME_EXCHANGE) != 0) {
		rc = -errno;
		wn_err("%s: its file system cannot exchange the names of two files: %s; users must be kept on another", f->path,
		       strerror(-rc));
		return rc;
	}
	f->kept = f->spare;
	f->spare = kept;
	return 0;
}

static int load(struct snapshot_files *f, const char *domain, const uint8_t *pk, struct user_table *users)
{
	uint64_t from = wn_now_ms();
	struct user_file_info info;
	struct table_state held;
	int rc = user_file_load(f->kept.fd, users, span_str(domain), pk, &info);

	if (rc == -ENODATA)
		return try_exchange(f);
	if (rc == -ENOMEM) {
		wn_err("%s/%s: no memory for its users", f->path, f->name);
		return rc;
	}
	if (rc != 0) {
		if (rc == -EBADMSG)
			wn_err("%s/%s: damaged at byte %" PRIu64 ": %s", f->path, f->name, info.bad_at,
			       info.form != NULL ? info.form : table_verdict_name(info.why));
		else
			wn_err("%s/%s: cannot be read: %s", f->path, f->name, strerror(-rc));
		wn_warn("users of %s: none until the agent sends them; the file is set aside as %s.damaged", domain, f->name);
		return set_aside(f);
	}
	f->kept.bytes = info.bytes;
	f->kept.epochs = info.epochs;
	user_table_state(users, &held);
	atomic_store(&f->seq, held.head.seq);
	if (info.torn != 0) {
		wn_warn("%s/%s: its last %" PRIu64 " bytes are of an update that was cut short; the agent will send it again", f->path,
			f->name, info.torn);
		if (ftruncate(f->kept.fd, (off_t)info.bytes) != 0) {
			rc = -errno;
			wn_err("%s/%s: cannot be shortened: %s", f->path, f->name, strerror(-rc));
			return rc;
		}
	}
	wn_info("users of %s: %" PRIu64 " read from disk, as of update %" PRIu64 ", in %" PRIu64 " ms", domain, held.users, held.head.seq,
		wn_now_ms() - from);
	return 0;
}

int snapshot_files_open(struct snapshot_files *f, int dir, const char *path, const char *domain, const uint8_t *pk,
			struct user_table *users)
{
	int rc;

	f->dir = dir;
	f->path = path;
	f->kept.fd = f->spare.fd = -1;
	if (domain[0] == '\0' || domain[0] == '.' || strchr(domain, '/') != NULL || strlen(domain) > DOMAIN_MAX)
		return -EINVAL;
	snprintf(f->name, sizeof(f->name), "%s%s", domain, USER_FILE_SUFFIX);
	snprintf(f->spare_name, sizeof(f->spare_name), "%s%s.new", domain, USER_FILE_SUFFIX);
	rc = open_file(f, f->name, 0);
	if (rc < 0)
		return rc;
	f->kept.fd = rc;
	rc = open_file(f, f->spare_name, O_TRUNC);
	if (rc < 0)
		return rc;
	f->spare.fd = rc;
	return load(f, domain, pk, users);
}

void snapshot_files_close(struct snapshot_files *f)
{
	if (f->kept.fd >= 0)
		close(f->kept.fd);
	if (f->spare.fd >= 0)
		close(f->spare.fd);
	f->kept.fd = f->spare.fd = -1;
}
