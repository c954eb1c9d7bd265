/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/records.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Records lie in chunks of a huge page, named by a 32-bit index in units of eight bytes; the index is buckets of twelve such names in one
 * cache line, each with a byte of its hash, so that a lookup touches one line of the index and one record. A 12-byte name with two epochs
 * of SHA-256 keys takes 88 bytes and its share of a bucket. What is larger than a huge page asks for them: with small ones the walk to a
 * page's address costs more than the line itself. */
#define UNIT           8u
#define CHUNK_UNITS    (1u << 18)
#define CHUNK_BYTES    ((size_t)CHUNK_UNITS * UNIT)
#define CHUNKS_MAX     4096u
#define SLOTS          12u
#define LOAD_MAX       7u  /* average of full slots in a bucket before the index grows: one in forty runs over into the next */
#define SPARE          64u /* buckets */
#define FORGET_BUCKETS 64u

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
	uint8_t data[]; /* name, 2 x 32 SHA-256 if there is room, 2 x 16 MD5 if there is room */
};
_Static_assert(sizeof(struct rec) == 8, "a record begins with eight bytes");

#define REC_UNITS_MAX ((8u + 64u + 32u + USER_NAME_MAX + UNIT - 1u) / UNIT)

struct bucket {
	uint8_t tag[SLOTS]; /* 0: free */
	uint32_t passed;    /* how many records wanted this bucket, or one before it, and lie further on */
	uint32_t id[SLOTS];
};
_Static_assert(sizeof(struct bucket) == 64, "a bucket is a cache line");

struct records {
	uint8_t **chunk;
	uint32_t nchunks;
	uint32_t top; /* units handed out of the last chunk */
	uint32_t free_head[REC_UNITS_MAX + 1];
	struct record_index index;
	const uint8_t *hash_key;
	uint64_t users;
	bool many; /* more than a chunk's worth are expected */
};

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

/* The same where a huge page may begin, and made of them where the kernel has some. */
static void *map_huge(size_t bytes)
{
	size_t over = bytes + CHUNK_BYTES, before;
	uint8_t *p = map(over);

	if (p == NULL)
		return NULL;
	before = (CHUNK_BYTES - (uintptr_t)p % CHUNK_BYTES) % CHUNK_BYTES;
	if (before != 0)
		munmap(p, before);
	munmap(p + before + bytes, over - before - bytes);
	madvise(p + before, bytes, MADV_HUGEPAGE);
	return p + before;
}

static struct rec *rec_at(const struct records *s, uint32_t id)
{
	return (struct rec *)(void *)(s->chunk[id / CHUNK_UNITS] + (size_t)(id % CHUNK_UNITS) * UNIT);
}

static uint8_t *rec_sha(struct rec *r, unsigned slot)
{
	return r->data + r->nlen + 32u * slot;
}

static uint8_t *rec_md5(struct rec *r, unsigned slot)
{
	return r->data + r->nlen + ((r->flags & REC_SHA_ROOM) != 0 ? 64u : 0u) + 16u * slot;
}

uint64_t records_hash(const uint8_t key[static RECORDS_KEY_BYTES], struct span name)
{
	uint64_t h;

	crypto_shorthash((uint8_t *)&h, (const uint8_t *)name.p, name.n, key);
	return h;
}

static uint8_t hash_tag(uint64_t h)
{
	uint8_t tag = (uint8_t)h;
	return tag != 0 ? tag : 1;
}

static uint32_t hash_bucket(const struct record_index *x, uint64_t h)
{
	return (uint32_t)((h >> 32) * x->n >> 32);
}

static size_t index_bytes(const struct record_index *x)
{
	size_t page = 65536; /* no machine's is larger */

	return (x->n * sizeof(*x->bucket) + page - 1) / page * page;
}

static int index_new(struct record_index *x, uint64_t buckets)
{
	x->n = (uint32_t)buckets;
	x->bucket = index_bytes(x) < CHUNK_BYTES ? map(index_bytes(x)) : map_huge(index_bytes(x));
	return x->bucket != NULL ? 0 : -ENOMEM;
}

void record_index_free(struct record_index *x)
{
	if (x->bucket != NULL)
		munmap(x->bucket, index_bytes(x));
	x->bucket = NULL;
}

void records_free(struct records *s)
{
	if (s == NULL)
		return;
	for (uint32_t i = 0; i < s->nchunks; i++) {
		sodium_memzero(s->chunk[i], i + 1 < s->nchunks ? CHUNK_BYTES : (size_t)s->top * UNIT);
		munmap(s->chunk[i], CHUNK_BYTES);
	}
	if (s->chunk != NULL)
		munmap(s->chunk, CHUNKS_MAX * sizeof(*s->chunk));
	record_index_free(&s->index);
	free(s);
}

struct records *records_new(uint64_t users, const uint8_t hash_key[static RECORDS_KEY_BYTES])
{
	struct records *s = calloc(1, sizeof(*s));

	if (s == NULL)
		return NULL;
	for (unsigned i = 0; i <= REC_UNITS_MAX; i++)
		s->free_head[i] = UINT32_MAX;
	s->top = CHUNK_UNITS;
	s->hash_key = hash_key;
	s->many = users > CHUNK_BYTES / 128;
	s->chunk = map(CHUNKS_MAX * sizeof(*s->chunk));
	if (index_new(&s->index, users / LOAD_MAX + SPARE) < 0 || s->chunk == NULL) {
		records_free(s);
		return NULL;
	}
	return s;
}

/* UINT32_MAX when there is no memory. */
static uint32_t rec_alloc(struct records *s, unsigned units)
{
	uint32_t id = s->free_head[units];

	if (id != UINT32_MAX) {
		memcpy(&s->free_head[units], rec_at(s, id)->data, sizeof(uint32_t));
		return id;
	}
	if (s->top + units > CHUNK_UNITS) {
		if (s->nchunks == CHUNKS_MAX ||
		    (s->chunk[s->nchunks] = s->nchunks == 0 && !s->many ? map(CHUNK_BYTES) : map_huge(CHUNK_BYTES)) == NULL)
			return UINT32_MAX;
		s->nchunks++;
		s->top = 0;
	}
	id = (s->nchunks - 1) * CHUNK_UNITS + s->top;
	s->top += units;
	return id;
}

static void rec_release(struct records *s, uint32_t id)
{
	struct rec *r = rec_at(s, id);
	unsigned units = r->units;

	sodium_memzero(r, (size_t)units * UNIT);
	memcpy(r->data, &s->free_head[units], sizeof(uint32_t));
	s->free_head[units] = id;
}

/* The slot that holds `name`, or NULL. */
static uint32_t *index_find(const struct records *s, uint64_t h, struct span name)
{
	uint8_t tag = hash_tag(h);

	for (uint32_t b = hash_bucket(&s->index, h), n = 0; n < s->index.n; n++) {
		struct bucket *k = &s->index.bucket[b];

		for (unsigned i = 0; i < SLOTS; i++) {
			if (k->tag[i] != tag)
				continue;
			struct rec *r = rec_at(s, k->id[i]);
			/* The keys are on the line behind the name's: both are fetched at once. */
			__builtin_prefetch((const uint8_t *)r + 64);
			if (r->nlen == name.n && memcmp(r->data, name.p, name.n) == 0)
				return &k->id[i];
		}
		if (k->passed == 0)
			return NULL;
		b = b + 1 == s->index.n ? 0 : b + 1;
	}
	return NULL;
}

static void index_put(struct record_index *x, uint64_t h, uint32_t id)
{
	for (uint32_t b = hash_bucket(x, h);; b = b + 1 == x->n ? 0 : b + 1) {
		struct bucket *k = &x->bucket[b];

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

static void index_take(struct record_index *x, uint64_t h, const uint32_t *slot)
{
	for (uint32_t b = hash_bucket(x, h);; b = b + 1 == x->n ? 0 : b + 1) {
		struct bucket *k = &x->bucket[b];

		if (slot >= k->id && slot < k->id + SLOTS) {
			k->tag[slot - k->id] = 0;
			return;
		}
		k->passed--;
	}
}

int records_grow(const struct records *s, uint64_t more, struct record_index *grown)
{
	const struct record_index *old = &s->index;

	grown->bucket = NULL;
	if (s->users + more <= (uint64_t)old->n * LOAD_MAX)
		return 0;
	if (index_new(grown, (s->users + more) * 3 / 2 / LOAD_MAX + SPARE) < 0)
		return -ENOMEM;
	for (uint32_t b = 0; b < old->n; b++) {
		for (unsigned i = 0; i < SLOTS; i++) {
			if (old->bucket[b].tag[i] == 0)
				continue;
			struct rec *r = rec_at(s, old->bucket[b].id[i]);
			index_put(grown, records_hash(s->hash_key, span_of(r->data, r->nlen)), old->bucket[b].id[i]);
		}
	}
	return 1;
}

void records_swap(struct records *s, struct record_index *index)
{
	struct record_index old = s->index;

	s->index = *index;
	*index = old;
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
static uint32_t rec_make(struct records *s, struct span name, uint8_t room, struct rec *from)
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
	memcpy(r->data, name.p, name.n);
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

int records_set(struct records *s, const struct user_op *op)
{
	uint64_t h = records_hash(s->hash_key, op->name);
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
			index_put(&s->index, h, id);
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

void records_del(struct records *s, struct span name)
{
	uint64_t h = records_hash(s->hash_key, name);
	uint32_t *slot = index_find(s, h, name);

	if (slot == NULL)
		return;
	rec_release(s, *slot);
	index_take(&s->index, h, slot);
	s->users--;
}

bool records_find(const struct records *s, uint64_t hash, struct span name, uint32_t epoch, struct record_keys *keys)
{
	uint32_t *slot = name.n > 0 && name.n <= USER_NAME_MAX ? index_find(s, hash, name) : NULL;
	unsigned side = epoch & 1;
	struct rec *r;

	*keys = (struct record_keys){NULL, NULL};
	if (slot == NULL)
		return false;
	r = rec_at(s, *slot);
	if (epoch != r->epoch && epoch != r->epoch - 1)
		return false;
	if ((r->flags & REC_SHA(side)) != 0)
		keys->sha256 = rec_sha(r, side);
	if ((r->flags & REC_MD5(side)) != 0)
		keys->md5 = rec_md5(r, side);
	return keys->sha256 != NULL || keys->md5 != NULL;
}

bool records_forget(struct records *s, uint32_t part, uint32_t epoch)
{
	uint32_t b = part * FORGET_BUCKETS, end = b + FORGET_BUCKETS;

	for (; b < s->index.n && b < end; b++) {
		for (unsigned i = 0; i < SLOTS; i++) {
			if (s->index.bucket[b].tag[i] == 0)
				continue;
			struct rec *r = rec_at(s, s->index.bucket[b].id[i]);
			if (r->epoch < epoch)
				rec_drop_slot(r, r->epoch & 1);
			if (r->epoch <= epoch)
				rec_drop_slot(r, (r->epoch & 1) ^ 1u);
		}
	}
	return b < s->index.n;
}

uint64_t records_count(const struct records *s)
{
	return s->users;
}
