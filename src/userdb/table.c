/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/table.h"

#include <errno.h>
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Records lie in chunks of 1 MiB, named by a 32-bit index in units of eight bytes; the index is buckets of twelve such names in one
 * cache line, each with a byte of its hash, so that a lookup touches one line of the index and one record. A 12-byte name with two epochs
 * of SHA-256 keys takes 88 bytes and its share of a bucket. */
#define UNIT         8u
#define CHUNK_UNITS  (1u << 17)
#define CHUNK_BYTES  ((size_t)CHUNK_UNITS * UNIT)
#define CHUNKS_MAX   8192u
#define SLOTS        12u
#define LOAD_MAX     9u /* average of full slots in a bucket before the index grows */
#define STRIPES      32u
#define OPS_PER_HOLD 64u

/* Room and presence bits of a record. A key's place depends on its epoch's parity. */
#define REC_SHA(slot) (1u << (slot))
#define REC_MD5(slot) (4u << (slot))
#define REC_SHA_ROOM  16u
#define REC_MD5_ROOM  32u

struct rec {
	uint32_t epoch; /* the later of the two whose keys are here */
	uint8_t nlen;
	uint8_t flags;
	uint16_t units;
	uint8_t data[]; /* 2 x 32 SHA-256 if there is room, 2 x 16 MD5 if there is room, name */
};
_Static_assert(sizeof(struct rec) == 8, "a record begins with eight bytes");

#define REC_UNITS_MAX ((8u + 64u + 32u + USER_NAME_MAX + UNIT - 1u) / UNIT)

struct bucket {
	uint8_t tag[SLOTS]; /* 0: free */
	uint32_t passed;    /* how many records wanted this bucket, or one before it, and lie further on */
	uint32_t id[SLOTS];
};
_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

struct store {
	uint8_t **chunk;
	uint32_t nchunks;
	uint32_t top; /* units handed out of the last chunk */
	uint32_t free_head[REC_UNITS_MAX + 1];
	struct bucket *buckets;
	uint32_t nbuckets;
	uint64_t users;
};

struct stripe {
	pthread_mutex_t m;
} __attribute__((aligned(64)));

struct user_table {
	struct stripe stripe[STRIPES]; /* a reader holds its own, the writer all: readers never share a line */
	struct store *live;            /* changed under all stripes */
	struct table_state state;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	uint8_t decoy_sha256[32], decoy_md5[16];
	/* the writer's alone */
	struct store *next; /* a snapshot that is not complete */
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

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static struct rec *rec_at(const struct store *s, uint32_t id)
{
	return (struct rec *)(void *)(s->chunk[id / CHUNK_UNITS] + (size_t)(id % CHUNK_UNITS) * UNIT);
}

static uint8_t *rec_sha(struct rec *r, unsigned slot)
{
	return r->data + 32u * slot;
}

static uint8_t *rec_md5(struct rec *r, unsigned slot)
{
	return r->data + ((r->flags & REC_SHA_ROOM) != 0 ? 64u : 0u) + 16u * slot;
}

static uint8_t *rec_name(struct rec *r)
{
	return r->data + ((r->flags & REC_SHA_ROOM) != 0 ? 64u : 0u) + ((r->flags & REC_MD5_ROOM) != 0 ? 32u : 0u);
}

static uint64_t name_hash(const struct user_table *t, struct span name)
{
	uint64_t h;

	crypto_shorthash((uint8_t *)&h, (const uint8_t *)name.p, name.n, t->hash_key);
	return h;
}

static uint8_t hash_tag(uint64_t h)
{
	uint8_t tag = (uint8_t)h;
	return tag != 0 ? tag : 1;
}

static uint32_t hash_bucket(const struct store *s, uint64_t h)
{
	return (uint32_t)((h >> 32) * s->nbuckets >> 32);
}

static void store_free(struct store *s)
{
	if (s == NULL)
		return;
	for (uint32_t i = 0; i < s->nchunks; i++) {
		sodium_memzero(s->chunk[i], i + 1 < s->nchunks ? CHUNK_BYTES : (size_t)s->top * UNIT);
		munmap(s->chunk[i], CHUNK_BYTES);
	}
	if (s->chunk != NULL)
		munmap(s->chunk, CHUNKS_MAX * sizeof(*s->chunk));
	if (s->buckets != NULL)
		munmap(s->buckets, s->nbuckets * sizeof(*s->buckets));
	free(s);
}

static struct store *store_new(uint64_t users)
{
	struct store *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	for (unsigned i = 0; i <= REC_UNITS_MAX; i++)
		s->free_head[i] = UINT32_MAX;
	s->top = CHUNK_UNITS;
	s->nbuckets = (uint32_t)(users / LOAD_MAX + 64);
	s->buckets = map(s->nbuckets * sizeof(*s->buckets));
	s->chunk = map(CHUNKS_MAX * sizeof(*s->chunk));
	if (s->buckets == NULL || s->chunk == NULL) {
		store_free(s);
		return NULL;
	}
	return s;
}

/* UINT32_MAX when there is no memory. */
static uint32_t rec_alloc(struct store *s, unsigned units)
{
	uint32_t id = s->free_head[units];

	if (id != UINT32_MAX) {
		memcpy(&s->free_head[units], rec_at(s, id)->data, sizeof(uint32_t));
		return id;
	}
	if (s->top + units > CHUNK_UNITS) {
		if (s->nchunks == CHUNKS_MAX || (s->chunk[s->nchunks] = map(CHUNK_BYTES)) == NULL)
			return UINT32_MAX;
		s->nchunks++;
		s->top = 0;
	}
	id = (s->nchunks - 1) * CHUNK_UNITS + s->top;
	s->top += units;
	return id;
}

static void rec_release(struct store *s, uint32_t id)
{
	struct rec *r = rec_at(s, id);
	unsigned units = r->units;

	sodium_memzero(r, (size_t)units * UNIT);
	memcpy(r->data, &s->free_head[units], sizeof(uint32_t));
	s->free_head[units] = id;
}

/* The slot that holds `name`, or NULL. */
static uint32_t *index_find(const struct store *s, uint64_t h, struct span name)
{
	uint8_t tag = hash_tag(h);

	for (uint32_t b = hash_bucket(s, h), n = 0; n < s->nbuckets; n++) {
		struct bucket *k = &s->buckets[b];

		for (unsigned i = 0; i < SLOTS; i++) {
			if (k->tag[i] != tag)
				continue;
			struct rec *r = rec_at(s, k->id[i]);
			if (r->nlen == name.n && memcmp(rec_name(r), name.p, name.n) == 0)
				return &k->id[i];
		}
		if (k->passed == 0)
			return NULL;
		b = b + 1 == s->nbuckets ? 0 : b + 1;
	}
	return NULL;
}

static void index_put(struct store *s, uint64_t h, uint32_t id)
{
	for (uint32_t b = hash_bucket(s, h);; b = b + 1 == s->nbuckets ? 0 : b + 1) {
		struct bucket *k = &s->buckets[b];

		for (unsigned i = 0; i < SLOTS; i++) {
			if (k->tag[i] == 0) {
				k->tag[i] = hash_tag(h);
				k->id[i] = id;
				return;
			}
		}
		k->passed++;
	}
}

static void index_take(struct store *s, uint64_t h, const uint32_t *slot)
{
	for (uint32_t b = hash_bucket(s, h);; b = b + 1 == s->nbuckets ? 0 : b + 1) {
		struct bucket *k = &s->buckets[b];

		if (slot >= k->id && slot < k->id + SLOTS) {
			k->tag[slot - k->id] = 0;
			return;
		}
		k->passed--;
	}
}

/* Makes room for `more` users. With a live store the new index is built beside the old one, which readers go on using. */
static int index_reserve(struct user_table *t, struct store *s, uint64_t more, bool live)
{
	struct store grown = *s;
	struct bucket *old = s->buckets;
	uint32_t nold = s->nbuckets;

	if (s->users + more <= (uint64_t)s->nbuckets * LOAD_MAX)
		return 0;
	grown.nbuckets = (uint32_t)((s->users + more) * 3 / 2 / LOAD_MAX + 64);
	grown.buckets = map(grown.nbuckets * sizeof(*grown.buckets));
	if (grown.buckets == NULL)
		return -ENOMEM;
	for (uint32_t b = 0; b < nold; b++) {
		for (unsigned i = 0; i < SLOTS; i++) {
			if (old[b].tag[i] == 0)
				continue;
			struct rec *r = rec_at(s, old[b].id[i]);
			index_put(&grown, name_hash(t, span_of(rec_name(r), r->nlen)), old[b].id[i]);
		}
	}
	if (live)
		lock_all(t);
	s->buckets = grown.buckets;
	s->nbuckets = grown.nbuckets;
	if (live)
		unlock_all(t);
	munmap(old, nold * sizeof(*old));
	return 0;
}

static void rec_drop_slot(struct rec *r, unsigned slot)
{
	if ((r->flags & REC_SHA(slot)) != 0)
		sodium_memzero(rec_sha(r, slot), 32);
	if ((r->flags & REC_MD5(slot)) != 0)
		sodium_memzero(rec_md5(r, slot), 16);
	r->flags &= (uint8_t) ~(REC_SHA(slot) | REC_MD5(slot));
}

/* A record of `name` with room for what `room` says, holding what `from` held. */
static uint32_t rec_make(struct store *s, struct span name, uint8_t room, struct rec *from)
{
	size_t bytes = sizeof(struct rec) + ((room & REC_SHA_ROOM) != 0 ? 64u : 0u) + ((room & REC_MD5_ROOM) != 0 ? 32u : 0u) + name.n;
	unsigned units = (unsigned)((bytes + UNIT - 1) / UNIT);
	uint32_t id = rec_alloc(s, units);

	if (id == UINT32_MAX)
		return id;
	struct rec *r = rec_at(s, id);
	memset(r, 0, (size_t)units * UNIT);
	r->units = (uint16_t)units;
	r->nlen = (uint8_t)name.n;
	r->flags = room;
	memcpy(rec_name(r), name.p, name.n);
	if (from == NULL)
		return id;
	r->epoch = from->epoch;
	r->flags |= from->flags;
	for (unsigned slot = 0; slot < 2; slot++) {
		if ((from->flags & REC_SHA(slot)) != 0)
			memcpy(rec_sha(r, slot), rec_sha(from, slot), 32);
		if ((from->flags & REC_MD5(slot)) != 0)
			memcpy(rec_md5(r, slot), rec_md5(from, slot), 16);
	}
	return id;
}

static int store_set(const struct user_table *t, struct store *s, const struct user_op *op)
{
	uint64_t h = name_hash(t, op->name);
	uint32_t *slot = index_find(s, h, op->name);
	struct rec *r = slot != NULL ? rec_at(s, *slot) : NULL;
	uint8_t room = 0;
	unsigned side = op->epoch & 1;

	if (r != NULL && r->epoch > op->epoch && r->epoch - op->epoch > 1)
		return 0; /* older than both that are held */
	if ((op->flags & USER_HAS_SHA256) != 0)
		room |= REC_SHA_ROOM;
	if ((op->flags & USER_HAS_MD5) != 0)
		room |= REC_MD5_ROOM;
	if (r == NULL || (room & ~r->flags) != 0) {
		uint32_t id = rec_make(s, op->name, r != NULL ? room | (r->flags & (REC_SHA_ROOM | REC_MD5_ROOM)) : room, r);

		if (id == UINT32_MAX)
			return -ENOMEM;
		if (r != NULL) {
			rec_release(s, *slot);
			*slot = id;
		} else {
			index_put(s, h, id);
			s->users++;
			rec_at(s, id)->epoch = op->epoch;
		}
		r = rec_at(s, id);
	}
	if (op->epoch > r->epoch) {
		if (op->epoch - r->epoch > 1)
			rec_drop_slot(r, side ^ 1u);
		r->epoch = op->epoch;
	}
	rec_drop_slot(r, side);
	if ((op->flags & USER_HAS_SHA256) != 0) {
		memcpy(rec_sha(r, side), op->sha256, 32);
		r->flags |= (uint8_t)REC_SHA(side);
	}
	if ((op->flags & USER_HAS_MD5) != 0) {
		memcpy(rec_md5(r, side), op->md5, 16);
		r->flags |= (uint8_t)REC_MD5(side);
	}
	return 0;
}

static void store_del(const struct user_table *t, struct store *s, const struct user_op *op)
{
	uint64_t h = name_hash(t, op->name);
	uint32_t *slot = index_find(s, h, op->name);

	if (slot == NULL)
		return;
	rec_release(s, *slot);
	index_take(s, h, slot);
	s->users--;
}

/* Forgets keys of epochs before `epoch`, a few buckets at a time. */
static void forget_before(struct user_table *t, uint32_t epoch)
{
	struct store *s = t->live;

	for (uint32_t b = 0; b < s->nbuckets; b += OPS_PER_HOLD) {
		lock_all(t);
		for (uint32_t k = b; k < s->nbuckets && k < b + OPS_PER_HOLD; k++) {
			for (unsigned i = 0; i < SLOTS; i++) {
				if (s->buckets[k].tag[i] == 0)
					continue;
				struct rec *r = rec_at(s, s->buckets[k].id[i]);
				if (r->epoch < epoch)
					rec_drop_slot(r, r->epoch & 1);
				if (r->epoch <= epoch)
					rec_drop_slot(r, (r->epoch & 1) ^ 1u);
			}
		}
		unlock_all(t);
	}
}

static enum table_verdict apply_ops(struct user_table *t, struct store *s, const struct update_msg *m, bool live)
{
	struct span rest = m->ops;
	struct user_op op;
	int r = 1;

	while (r == 1) {
		if (index_reserve(t, s, OPS_PER_HOLD, live) != 0)
			return TABLE_NO_MEMORY;
		if (live)
			lock_all(t);
		for (unsigned n = 0; n < OPS_PER_HOLD && (r = user_op_next(&rest, &op)) == 1; n++) {
			if (op.kind == USER_DEL)
				store_del(t, s, &op);
			else if (store_set(t, s, &op) != 0)
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
	t->state.users = t->live->users;
	unlock_all(t);
	if (forget)
		forget_before(t, m->epoch);
}

static void next_abandon(struct user_table *t)
{
	store_free(t->next);
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
		t->next = store_new((uint64_t)m->nops * m->chunks < 1u << 22 ? (uint64_t)m->nops * m->chunks : 0);
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

	struct store *old = t->live;
	lock_all(t);
	t->live = t->next;
	unlock_all(t);
	t->next = NULL;
	store_free(old);
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
	t->live = store_new(0);
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
	store_free(t->live);
	store_free(t->next);
	for (unsigned i = 0; i < STRIPES; i++)
		pthread_mutex_destroy(&t->stripe[i].m);
	sodium_memzero(t, sizeof(*t));
	free(t);
}

bool user_table_find(const struct user_table *t, struct span name, uint32_t epoch, struct user_keys *keys)
{
	/* The locks are no part of what a reader may not change. */
	pthread_mutex_t *m = &((struct user_table *)(uintptr_t)t)->stripe[my_stripe()].m;
	const uint8_t *sha256 = t->decoy_sha256, *md5 = t->decoy_md5;
	unsigned side = epoch & 1, found = 0;
	uint32_t *slot = NULL;

	keys->id = UINT32_MAX;
	uint64_t h = name_hash(t, name);
	pthread_mutex_lock(m);
	if (name.n > 0 && name.n <= USER_NAME_MAX)
		slot = index_find(t->live, h, name);
	if (slot != NULL) {
		struct rec *r = rec_at(t->live, *slot);

		if ((epoch == r->epoch || epoch == r->epoch - 1) && (t->state.epoch_s == 0 || epoch >= t->state.epoch)) {
			if ((r->flags & REC_SHA(side)) != 0) {
				sha256 = rec_sha(r, side);
				found |= USER_HAS_SHA256;
			}
			if ((r->flags & REC_MD5(side)) != 0) {
				md5 = rec_md5(r, side);
				found |= USER_HAS_MD5;
			}
			keys->id = *slot;
		}
	}
	memcpy(keys->sha256, sha256, sizeof(keys->sha256));
	memcpy(keys->md5, md5, sizeof(keys->md5));
	pthread_mutex_unlock(m);
	keys->flags = (uint8_t)found;
	return found != 0;
}

enum table_verdict user_table_apply(struct user_table *t, struct span domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct span msg)
{
	struct update_msg m;
	int r = update_open(msg, pk, &m);

	if (r == -EBADMSG)
		return TABLE_FORGED;
	if (r != 0)
		return TABLE_MALFORMED;
	if (!span_eq(m.domain, domain))
		return TABLE_WRONG_DOMAIN;
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
