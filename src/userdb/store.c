/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/store.h"

#include <errno.h>
#include <fcntl.h>
#include <lmdb.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES_DEFAULT (1ull << 30)
#define RECORD_VERSION    1
#define FLAG_MD5          1u

/* As it lies in the database; integers big-endian, because files move between machines. */
struct stored_user {
	uint8_t version;
	uint8_t flags;
	uint8_t secret_len;
	uint8_t reserved;
	uint8_t created[8];
	uint8_t secret[USER_SECRET_MAX];
};
_Static_assert(sizeof(struct stored_user) == 12 + USER_SECRET_MAX, "stored form");

struct stored_head {
	uint8_t seq[8];
	uint8_t hash[UPDATE_HEAD_BYTES];
};
_Static_assert(sizeof(struct stored_head) == 8 + UPDATE_HEAD_BYTES, "stored form");

struct stored_keys {
	uint8_t epoch_s[4];
	uint8_t epoch[4];
};
_Static_assert(sizeof(struct stored_keys) == 8, "stored form");

struct user_store {
	MDB_env *env;
	MDB_dbi users, meta;
	int dir_fd; /* holds the lock */
};

struct user_iter {
	struct user_store *s;
	MDB_txn *txn;
	MDB_cursor *cur;
	MDB_cursor_op op;
	uint64_t count;
	struct update_head head;
};

static void put_be(uint8_t *p, size_t n, uint64_t v)
{
	while (n-- > 0) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

static uint64_t get_be(const uint8_t *p, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | p[i];
	return v;
}

static int from_mdb(int rc)
{
	switch (rc) {
	case 0:
		return 0;
	case MDB_NOTFOUND:
		return -ENOENT;
	case MDB_KEYEXIST:
		return -EEXIST;
	case MDB_MAP_FULL:
		return -ENOSPC;
	default:
		return rc > 0 ? -rc : -EIO;
	}
}

static MDB_val val_of(const void *p, size_t n)
{
	return (MDB_val){.mv_size = n, .mv_data = (void *)(uintptr_t)p};
}

#define KEY_HEAD val_of("head", 4)
#define KEY_KEYS val_of("keys", 4)

static int decode_user(const MDB_val *key, const MDB_val *val, struct user_record *r)
{
	struct stored_user u;

	memset(r, 0, sizeof(*r));
	if (val->mv_size != sizeof(u) || key->mv_size > USER_NAME_MAX)
		return -EIO;
	memcpy(&u, val->mv_data, sizeof(u)); /* LMDB aligns to two bytes only */
	if (u.version != RECORD_VERSION || u.secret_len > USER_SECRET_MAX)
		return -EIO;

	memcpy(r->name, key->mv_data, key->mv_size);
	memcpy(r->secret, u.secret, u.secret_len);
	r->md5 = (u.flags & FLAG_MD5) != 0;
	r->created_unix_s = get_be(u.created, sizeof(u.created));
	sodium_memzero(&u, sizeof(u));
	return 0;
}

static int put_user(struct user_store *s, MDB_txn *txn, const struct user_record *r)
{
	size_t secret_len = strnlen(r->secret, sizeof(r->secret));
	struct stored_user u = {.version = RECORD_VERSION, .flags = r->md5 ? FLAG_MD5 : 0};
	MDB_val key = val_of(r->name, strnlen(r->name, sizeof(r->name)));
	MDB_val val = val_of(&u, sizeof(u));
	int rc;

	if (secret_len == 0 || secret_len > USER_SECRET_MAX)
		return -EINVAL;
	u.secret_len = (uint8_t)secret_len;
	memcpy(u.secret, r->secret, secret_len);
	put_be(u.created, sizeof(u.created), r->created_unix_s);
	rc = from_mdb(mdb_put(txn, s->users, &key, &val, MDB_NOOVERWRITE));
	sodium_memzero(&u, sizeof(u));
	return rc;
}

static int get_head(struct user_store *s, MDB_txn *txn, struct update_head *out)
{
	struct stored_head h;
	MDB_val key = KEY_HEAD, val;
	int rc = from_mdb(mdb_get(txn, s->meta, &key, &val));

	*out = (struct update_head){0};
	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	if (val.mv_size != sizeof(h))
		return -EIO;
	memcpy(&h, val.mv_data, sizeof(h));
	out->seq = get_be(h.seq, sizeof(h.seq));
	memcpy(out->hash, h.hash, sizeof(out->hash));
	return 0;
}

static int put_head(struct user_store *s, MDB_txn *txn, const struct update_head *head)
{
	struct stored_head h;
	MDB_val key = KEY_HEAD, val = val_of(&h, sizeof(h));

	put_be(h.seq, sizeof(h.seq), head->seq);
	memcpy(h.hash, head->hash, sizeof(h.hash));
	return from_mdb(mdb_put(txn, s->meta, &key, &val, 0));
}

/* A chain that went back or skipped a number would be refused by every front, so it is refused here, before it is durable. */
static int move_head(struct user_store *s, MDB_txn *txn, const struct update_head *head, bool may_stay)
{
	struct update_head now;
	int rc = get_head(s, txn, &now);

	if (rc < 0)
		return rc;
	if (may_stay && head->seq == now.seq && memcmp(head->hash, now.hash, sizeof(now.hash)) == 0)
		return 0;
	if (head->seq != now.seq + 1)
		return -EINVAL;
	return put_head(s, txn, head);
}

static int change(struct user_store *s, enum user_op_kind op, const struct user_record *r, const struct update_head *head)
{
	struct span name = span_of(r->name, strnlen(r->name, sizeof(r->name)));
	MDB_txn *txn = NULL;
	int rc;

	if (!user_name_valid(name))
		return op == USER_DEL ? -ENOENT : -EINVAL;
	rc = from_mdb(mdb_txn_begin(s->env, NULL, 0, &txn));
	if (rc < 0)
		return rc;

	if (op == USER_SET) {
		rc = put_user(s, txn, r);
	} else {
		MDB_val key = val_of(name.p, name.n);

		rc = from_mdb(mdb_del(txn, s->users, &key, NULL));
	}
	if (rc == 0 && head != NULL)
		rc = move_head(s, txn, head, false);
	if (rc < 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return from_mdb(mdb_txn_commit(txn));
}

static int open_dir(const char *dir)
{
	struct stat st;
	int fd, rc;

	if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
		rc = -errno;
		fprintf(stderr, "%s: cannot make the user database's directory: %s\n", dir, strerror(errno));
		return rc;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		rc = -errno;
		fprintf(stderr, "%s: cannot open the user database's directory: %s\n", dir, strerror(errno));
		goto fail;
	}
	if ((st.st_mode & 077) != 0) {
		rc = -EPERM;
		fprintf(stderr, "%s: others may read the user database (mode %03o); chmod 700 would be right\n", dir,
			(unsigned)st.st_mode & 0777u);
		goto fail;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? -EBUSY : -errno;
		fprintf(stderr, "%s: another process has the user database open; only one agent may\n", dir);
		goto fail;
	}
	return fd;

fail:
	if (fd >= 0)
		close(fd);
	return rc;
}

int user_store_open(const char *dir, size_t map_bytes, struct user_store **out)
{
	struct user_store *s = calloc(1, sizeof(*s));
	MDB_txn *txn = NULL;
	int rc, stale = 0;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->dir_fd = open_dir(dir);
	if (s->dir_fd < 0) {
		rc = s->dir_fd;
		free(s);
		return rc;
	}

	rc = mdb_env_create(&s->env);
	if (rc == 0)
		rc = mdb_env_set_mapsize(s->env, map_bytes != 0 ? map_bytes : MAP_BYTES_DEFAULT);
	if (rc == 0)
		rc = mdb_env_set_maxdbs(s->env, 2);
	if (rc == 0)
		rc = mdb_env_open(s->env, dir, MDB_NOTLS, 0600); /* one thread holds a view and writes beside it */
	if (rc == 0)
		rc = mdb_reader_check(s->env, &stale);
	if (rc == 0)
		rc = mdb_txn_begin(s->env, NULL, 0, &txn);
	if (rc == 0)
		rc = mdb_dbi_open(txn, "users", MDB_CREATE, &s->users);
	if (rc == 0)
		rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &s->meta);
	if (rc == 0) {
		rc = mdb_txn_commit(txn);
		txn = NULL;
	}
	if (rc != 0) {
		fprintf(stderr, "%s: cannot open the user database: %s\n", dir, mdb_strerror(rc));
		if (txn != NULL)
			mdb_txn_abort(txn);
		user_store_close(s);
		return from_mdb(rc);
	}

	*out = s;
	return 0;
}

void user_store_close(struct user_store *s)
{
	if (s == NULL)
		return;
	if (s->env != NULL)
		mdb_env_close(s->env);
	close(s->dir_fd);
	free(s);
}

int user_store_get(struct user_store *s, const char *name, struct user_record *out)
{
	struct span n = span_str(name);
	MDB_txn *txn = NULL;
	MDB_val key = val_of(n.p, n.n), val;
	int rc;

	if (!user_name_valid(n))
		return -ENOENT;
	rc = from_mdb(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn));
	if (rc < 0)
		return rc;
	rc = from_mdb(mdb_get(txn, s->users, &key, &val));
	if (rc == 0)
		rc = decode_user(&key, &val, out);
	mdb_txn_abort(txn);
	return rc;
}

int user_store_add(struct user_store *s, const struct user_record *r)
{
	return change(s, USER_SET, r, NULL);
}

int user_store_del(struct user_store *s, const char *name)
{
	struct user_record r = {0};

	if (span_cstr(span_str(name), r.name, sizeof(r.name)) < 0)
		return -ENOENT;
	return change(s, USER_DEL, &r, NULL);
}

int user_store_commit(struct user_store *s, enum user_op_kind op, const struct user_record *r, const struct update_head *head)
{
	return change(s, op, r, head);
}

int user_store_each(struct user_store *s, int (*cb)(const struct user_record *r, void *arg), void *arg)
{
	struct user_iter *it;
	struct user_record r;
	int rc = user_iter_open(s, &it);

	if (rc < 0)
		return rc;
	while ((rc = user_iter_next(it, &r)) == 1) {
		rc = cb(&r, arg);
		if (rc != 0)
			break;
	}
	user_iter_close(it);
	sodium_memzero(&r, sizeof(r));
	return rc;
}

uint64_t user_store_count(struct user_store *s)
{
	MDB_txn *txn = NULL;
	MDB_stat st = {0};
	uint64_t n = 0;

	if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn) != 0)
		return 0;
	if (mdb_stat(txn, s->users, &st) == 0)
		n = st.ms_entries;
	mdb_txn_abort(txn);
	return n;
}

int user_store_head(struct user_store *s, struct update_head *out)
{
	MDB_txn *txn = NULL;
	int rc = from_mdb(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn));

	if (rc < 0)
		return rc;
	rc = get_head(s, txn, out);
	mdb_txn_abort(txn);
	return rc;
}

int user_store_keys(struct user_store *s, struct user_store_keys *out)
{
	struct stored_keys k;
	MDB_txn *txn = NULL;
	MDB_val key = KEY_KEYS, val;
	int rc = from_mdb(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn));

	*out = (struct user_store_keys){0};
	if (rc < 0)
		return rc;
	rc = from_mdb(mdb_get(txn, s->meta, &key, &val));
	if (rc == -ENOENT) {
		rc = 0;
	} else if (rc == 0 && val.mv_size == sizeof(k)) {
		memcpy(&k, val.mv_data, sizeof(k));
		out->known = true;
		out->epoch_s = (uint32_t)get_be(k.epoch_s, sizeof(k.epoch_s));
		out->epoch = (uint32_t)get_be(k.epoch, sizeof(k.epoch));
	} else if (rc == 0) {
		rc = -EIO;
	}
	mdb_txn_abort(txn);
	return rc;
}

int user_store_commit_keys(struct user_store *s, const struct update_head *head, const struct user_store_keys *keys)
{
	MDB_txn *txn = NULL;
	int rc = from_mdb(mdb_txn_begin(s->env, NULL, 0, &txn));

	if (rc < 0)
		return rc;
	rc = move_head(s, txn, head, true);
	if (rc == 0 && keys != NULL) {
		struct stored_keys k;
		MDB_val key = KEY_KEYS, val = val_of(&k, sizeof(k));

		put_be(k.epoch_s, sizeof(k.epoch_s), keys->epoch_s);
		put_be(k.epoch, sizeof(k.epoch), keys->epoch);
		rc = from_mdb(mdb_put(txn, s->meta, &key, &val, 0));
	}
	if (rc < 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	return from_mdb(mdb_txn_commit(txn));
}

int user_iter_open(struct user_store *s, struct user_iter **out)
{
	struct user_iter *it = calloc(1, sizeof(*it));
	MDB_stat st = {0};
	int rc;

	*out = NULL;
	if (it == NULL)
		return -ENOMEM;
	it->s = s;
	it->op = MDB_FIRST;
	rc = from_mdb(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &it->txn));
	if (rc == 0)
		rc = from_mdb(mdb_cursor_open(it->txn, s->users, &it->cur));
	if (rc == 0)
		rc = from_mdb(mdb_stat(it->txn, s->users, &st));
	if (rc == 0)
		rc = get_head(s, it->txn, &it->head);
	if (rc < 0) {
		user_iter_close(it);
		return rc;
	}
	it->count = st.ms_entries;
	*out = it;
	return 0;
}

int user_iter_seek(struct user_iter *it, const char *name)
{
	size_t n = strnlen(name, USER_NAME_MAX);
	MDB_val key = val_of(name, n), val;
	int rc;

	if (n == 0) {
		it->op = MDB_FIRST;
		return 0;
	}
	rc = from_mdb(mdb_cursor_get(it->cur, &key, &val, MDB_SET_RANGE));
	if (rc == -ENOENT) {
		it->op = MDB_NEXT; /* from the last one: the next step finds nothing */
		rc = from_mdb(mdb_cursor_get(it->cur, &key, &val, MDB_LAST));
		return rc == -ENOENT ? 0 : rc;
	}
	if (rc < 0)
		return rc;
	it->op = key.mv_size == n && memcmp(key.mv_data, name, n) == 0 ? MDB_NEXT : MDB_GET_CURRENT;
	return 0;
}

int user_iter_next(struct user_iter *it, struct user_record *r)
{
	MDB_val key, val;
	int rc = from_mdb(mdb_cursor_get(it->cur, &key, &val, it->op));

	it->op = MDB_NEXT;
	if (rc == -ENOENT)
		return 0;
	if (rc == 0)
		rc = decode_user(&key, &val, r);
	return rc < 0 ? rc : 1;
}

uint64_t user_iter_count(const struct user_iter *it)
{
	return it->count;
}

void user_iter_head(const struct user_iter *it, struct update_head *out)
{
	*out = it->head;
}

void user_iter_close(struct user_iter *it)
{
	if (it == NULL)
		return;
	if (it->cur != NULL)
		mdb_cursor_close(it->cur);
	if (it->txn != NULL)
		mdb_txn_abort(it->txn);
	free(it);
}
