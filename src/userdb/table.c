/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/table.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "userdb/records.h"

#define STRIPES      32u
#define OPS_PER_HOLD 64u

struct stripe {
	pthread_mutex_t m;
} __attribute__((aligned(64)));

struct user_table {
	struct stripe stripe[STRIPES]; /* a reader holds its own, the writer all: readers never share a line */
	struct records *live;          /* changed under all stripes */
	struct table_state state;
	uint8_t hash_key[RECORDS_KEY_BYTES];
	uint8_t decoy_sha256[32], decoy_md5[16];
	/* the writer's alone */
	struct records *next; /* a snapshot that is not complete */
	struct update_head next_head;
	uint64_t next_unix_ms;
	uint32_t next_chunk, next_chunks;
};

static unsigned my_stripe(void)
{
	static atomic_uint counter;
	static _Thread_local unsigned mine; /* 1 + index */

	if (mine == 0)
		mine = 1 + atomic_fetch_add_explicit(&counter, 1, memory_order_relaxed) % STRIPES;
	return mine - 1;
}

static void lock_all(struct user_table *t)
{
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_lock(&t->stripe[i].m);
}

static void unlock_all(struct user_table *t)
{
	for (unsigned i = STRIPES; i-- > 0;)
		pthread_mutex_unlock(&t->stripe[i].m);
}

/* Makes room for `more` users; readers go on using the old index of a live table until the new one is there. */
static int reserve(struct user_table *t, struct records *s, uint64_t more, bool live)
{
	struct record_index index;
	int r = records_grow(s, more, &index);

	if (r <= 0)
		return r;
	if (live)
		lock_all(t);
	records_swap(s, &index);
	if (live)
		unlock_all(t);
	record_index_free(&index);
	return 0;
}

/* Forgets keys of epochs before `epoch`, a few at a time. */
static void forget_before(struct user_table *t, uint32_t epoch)
{
	bool more = true;

	for (uint32_t part = 0; more; part++) {
		lock_all(t);
		more = records_forget(t->live, part, epoch);
		unlock_all(t);
	}
}

static enum table_verdict apply_ops(struct user_table *t, struct records *s, const struct update_msg *m, bool live)
{
	struct span rest = m->ops;
	struct user_op op;
	int r = 1;

	while (r == 1) {
		if (reserve(t, s, OPS_PER_HOLD, live) != 0)
			return TABLE_NO_MEMORY;
		if (live)
			lock_all(t);
		for (unsigned n = 0; n < OPS_PER_HOLD && (r = user_op_next(&rest, &op)) == 1; n++) {
			if (op.kind == USER_DEL)
				records_del(s, op.name);
			else if (records_set(s, &op) != 0)
				r = -ENOMEM;
		}
		if (live)
			unlock_all(t);
	}
	if (r == -ENOMEM)
		return TABLE_NO_MEMORY;
	return r == 0 ? TABLE_OK : TABLE_MALFORMED;
}

/* What a message that was believed says about its publisher. */
static void note_publisher(struct user_table *t, const struct update_msg *m, const struct update_head *head)
{
	bool forget = m->epoch_s != 0 && m->epoch > t->state.epoch;

	lock_all(t);
	t->state.head = *head;
	t->state.publisher_ms = m->unix_ms;
	t->state.epoch = m->epoch;
	t->state.epoch_s = m->epoch_s;
	t->state.users = records_count(t->live);
	unlock_all(t);
	if (forget)
		forget_before(t, m->epoch);
}

static void next_abandon(struct user_table *t)
{
	records_free(t->next);
	t->next = NULL;
}

static bool head_eq(const struct update_head *a, const struct update_head *b)
{
	return a->seq == b->seq && memcmp(a->hash, b->hash, sizeof(a->hash)) == 0;
}

static enum table_verdict apply_change(struct user_table *t, const struct update_msg *m)
{
	struct update_head head = {.seq = m->at.seq};
	enum table_verdict v;

	memcpy(head.hash, m->hash, sizeof(head.hash));
	if (head_eq(&head, &t->state.head))
		return TABLE_CURRENT;
	if (m->at.seq <= t->state.head.seq)
		return TABLE_ROLLBACK;
	if (m->at.seq != t->state.head.seq + 1 || memcmp(m->at.hash, t->state.head.hash, sizeof(m->at.hash)) != 0)
		return TABLE_GAP;
	if (m->unix_ms < t->state.publisher_ms)
		return TABLE_TOO_OLD;
	v = apply_ops(t, t->live, m, true);
	if (v == TABLE_OK)
		note_publisher(t, m, &head);
	return v;
}

static enum table_verdict apply_snapshot(struct user_table *t, const struct update_msg *m)
{
	enum table_verdict v;

	if (m->at.seq < t->state.head.seq || (m->at.seq == t->state.head.seq && m->at.seq != 0 && !head_eq(&m->at, &t->state.head)))
		return TABLE_ROLLBACK;
	if (m->unix_ms < t->state.publisher_ms)
		return TABLE_TOO_OLD;
	if (m->chunks == 0 || m->chunk >= m->chunks)
		return TABLE_MALFORMED;
	if (m->chunk == 0) {
		next_abandon(t);
		t->next = records_new((uint64_t)m->nops * m->chunks < 1u << 22 ? (uint64_t)m->nops * m->chunks : 0, t->hash_key);
		if (t->next == NULL)
			return TABLE_NO_MEMORY;
		t->next_head = m->at;
		t->next_chunk = 0;
		t->next_chunks = m->chunks;
	} else if (t->next == NULL || m->chunk != t->next_chunk || m->chunks != t->next_chunks || !head_eq(&m->at, &t->next_head) ||
		   m->unix_ms < t->next_unix_ms) {
		next_abandon(t);
		return TABLE_GAP;
	}
	t->next_unix_ms = m->unix_ms;
	v = apply_ops(t, t->next, m, false);
	if (v != TABLE_OK) {
		next_abandon(t);
		return v;
	}
	if (++t->next_chunk < t->next_chunks)
		return TABLE_OK;

	struct records *old = t->live;
	lock_all(t);
	t->live = t->next;
	unlock_all(t);
	t->next = NULL;
	records_free(old);
	note_publisher(t, m, &m->at);
	return TABLE_OK;
}

static enum table_verdict apply_heartbeat(struct user_table *t, const struct update_msg *m)
{
	if (m->at.seq < t->state.head.seq)
		return TABLE_ROLLBACK;
	if (!head_eq(&m->at, &t->state.head))
		return TABLE_GAP;
	if (m->unix_ms < t->state.publisher_ms)
		return TABLE_TOO_OLD;
	note_publisher(t, m, &m->at);
	return TABLE_CURRENT;
}

int user_table_new(struct user_table **out)
{
	struct user_table *t;

	if (sodium_init() < 0)
		return -ENOSYS;
	if (posix_memalign((void **)&t, 64, sizeof(*t)) != 0)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->live = records_new(0, t->hash_key);
	if (t->live == NULL) {
		free(t);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_init(&t->stripe[i].m, NULL);
	randombytes_buf(t->hash_key, sizeof(t->hash_key));
	randombytes_buf(t->decoy_sha256, sizeof(t->decoy_sha256));
	randombytes_buf(t->decoy_md5, sizeof(t->decoy_md5));
	*out = t;
	return 0;
}

void user_table_free(struct user_table *t)
{
	if (t == NULL)
		return;
	records_free(t->live);
	records_free(t->next);
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&t->stripe[i].m);
	sodium_memzero(t, sizeof(*t));
	free(t);
}

bool user_table_find(const struct user_table *t, struct span name, uint32_t epoch, struct user_keys *keys)
{
	/* The locks are no part of what a reader may not change. */
	pthread_mutex_t *m = &((struct user_table *)(uintptr_t)t)->stripe[my_stripe()].m;
	struct record_keys k = {NULL, NULL};
	uint64_t h = records_hash(t->hash_key, name);
	bool found;

	pthread_mutex_lock(m);
	found = (t->state.epoch_s == 0 || epoch >= t->state.epoch) && records_find(t->live, h, name, epoch, &k);
	memcpy(keys->sha256, k.sha256 != NULL ? k.sha256 : t->decoy_sha256, sizeof(keys->sha256));
	memcpy(keys->md5, k.md5 != NULL ? k.md5 : t->decoy_md5, sizeof(keys->md5));
	keys->flags = (uint8_t)((k.sha256 != NULL ? USER_HAS_SHA256 : 0) | (k.md5 != NULL ? USER_HAS_MD5 : 0));
	pthread_mutex_unlock(m);
	return found;
}

static enum table_verdict open_message(struct span domain, const uint8_t *pk, struct span msg, struct update_msg *m)
{
	int r = update_open(msg, pk, m);

	if (r == -EBADMSG)
		return TABLE_FORGED;
	if (r != 0)
		return TABLE_MALFORMED;
	return span_eq(m->domain, domain) ? TABLE_OK : TABLE_WRONG_DOMAIN;
}

enum table_verdict user_table_apply(struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct span msg)
{
	struct update_msg m;
	enum table_verdict v = open_message(domain, pk, msg, &m);

	if (v != TABLE_OK)
		return v;
	switch (m.type) {
	case UPDATE_CHANGE:
		return apply_change(t, &m);
	case UPDATE_SNAPSHOT:
		return apply_snapshot(t, &m);
	case UPDATE_HEARTBEAT:
		return apply_heartbeat(t, &m);
	}
	return TABLE_MALFORMED;
}

enum table_verdict user_table_resume(struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct span msg)
{
	struct update_msg m;
	enum table_verdict v = open_message(domain, pk, msg, &m);

	if (v != TABLE_OK)
		return v;
	if (t->state.head.seq != 0 || t->state.publisher_ms != 0 || m.type != UPDATE_CHANGE)
		return TABLE_GAP;
	lock_all(t);
	t->state.head.seq = m.at.seq - 1;
	memcpy(t->state.head.hash, m.at.hash, sizeof(t->state.head.hash));
	unlock_all(t);
	return apply_change(t, &m);
}

int user_table_clear(struct user_table *t)
{
	struct records *none = records_new(0, t->hash_key), *old;

	if (none == NULL)
		return -ENOMEM;
	next_abandon(t);
	lock_all(t);
	old = t->live;
	t->live = none;
	t->state = (struct table_state){0};
	unlock_all(t);
	records_free(old);
	return 0;
}

const char *table_verdict_name(enum table_verdict v)
{
	static const char *const name[] = {
		[TABLE_OK] = "ok",
		[TABLE_CURRENT] = "current",
		[TABLE_GAP] = "gap",
		[TABLE_ROLLBACK] = "rollback",
		[TABLE_MALFORMED] = "malformed",
		[TABLE_FORGED] = "forged",
		[TABLE_WRONG_DOMAIN] = "wrong_domain",
		[TABLE_TOO_OLD] = "too_old",
		[TABLE_NO_MEMORY] = "no_memory",
	};
	return name[v];
}

void user_table_state(const struct user_table *t, struct table_state *out)
{
	pthread_mutex_t *m = &((struct user_table *)(uintptr_t)t)->stripe[my_stripe()].m;

	pthread_mutex_lock(m);
	*out = t->state;
	pthread_mutex_unlock(m);
}
