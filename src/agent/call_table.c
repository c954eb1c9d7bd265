/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/call_table.h"

#include <assert.h>
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>

#define BUCKETS_MIN 256u

struct call_table {
	struct call **by_cookie, **by_dialog;
	size_t buckets; /* power of two */
	struct call *all;
	size_t count;
	struct call **heap;
	size_t heap_n, heap_cap;
};

/* Both hashes are SipHash under a secret key: their low bits serve as they are. */
static size_t bucket(const struct call_table *t, uint64_t hash)
{
	return hash & (t->buckets - 1);
}

static void heap_put(struct call_table *t, size_t i, struct call *c)
{
	t->heap[i] = c;
	c->heap_at = i + 1;
}

static void heap_up(struct call_table *t, size_t i)
{
	struct call *c = t->heap[i];

	while (i > 0 && t->heap[(i - 1) / 2]->due_ms > c->due_ms) {
		heap_put(t, i, t->heap[(i - 1) / 2]);
		i = (i - 1) / 2;
	}
	heap_put(t, i, c);
}

static void heap_down(struct call_table *t, size_t i)
{
	struct call *c = t->heap[i];

	for (;;) {
		size_t k = 2 * i + 1;

		if (k >= t->heap_n)
			break;
		if (k + 1 < t->heap_n && t->heap[k + 1]->due_ms < t->heap[k]->due_ms)
			k++;
		if (t->heap[k]->due_ms >= c->due_ms)
			break;
		heap_put(t, i, t->heap[k]);
		i = k;
	}
	heap_put(t, i, c);
}

static void heap_remove(struct call_table *t, struct call *c)
{
	size_t i = c->heap_at - 1;
	struct call *last;

	if (c->heap_at == 0)
		return;
	c->heap_at = 0;
	last = t->heap[--t->heap_n];
	if (last == c)
		return;
	heap_put(t, i, last);
	heap_up(t, i);
	heap_down(t, last->heap_at - 1);
}

/* Room for every call at once, so that making one due cannot fail. */
static bool heap_reserve(struct call_table *t)
{
	size_t cap = t->heap_cap != 0 ? t->heap_cap * 2 : BUCKETS_MIN;
	struct call **h;

	if (t->count < t->heap_cap)
		return true;
	h = realloc(t->heap, cap * sizeof(struct call *));
	if (h == NULL)
		return false;
	t->heap = h;
	t->heap_cap = cap;
	return true;
}

static void chain_remove_cookie(struct call_table *t, struct call *c)
{
	struct call **p = &t->by_cookie[bucket(t, c->cookie)];

	while (*p != c)
		p = &(*p)->next_cookie;
	*p = c->next_cookie;
}

static void chain_remove_dialog(struct call_table *t, struct call *c)
{
	struct call **p = &t->by_dialog[bucket(t, c->dialog_hash)];

	if (c->dialog_hash == 0)
		return;
	while (*p != c)
		p = &(*p)->next_dialog;
	*p = c->next_dialog;
	c->dialog_hash = 0;
}

static void chains_insert(struct call_table *t, struct call *c)
{
	struct call **p = &t->by_cookie[bucket(t, c->cookie)];

	c->next_cookie = *p;
	*p = c;
	if (c->dialog_hash == 0)
		return;
	p = &t->by_dialog[bucket(t, c->dialog_hash)];
	c->next_dialog = *p;
	*p = c;
}

/* Fails softly: longer chains, nothing lost. */
static void grow(struct call_table *t)
{
	size_t n = t->buckets * 2;
	struct call **a = calloc(n, sizeof(struct call *)), **b = calloc(n, sizeof(struct call *));

	if (a == NULL || b == NULL) {
		free(a);
		free(b);
		return;
	}
	free(t->by_cookie);
	free(t->by_dialog);
	t->by_cookie = a;
	t->by_dialog = b;
	t->buckets = n;
	for (struct call *c = t->all; c != NULL; c = c->next_all)
		chains_insert(t, c);
}

static void call_free(struct call *c)
{
	free(c->dialog);
	if (c->waiting.raw != NULL)
		sodium_memzero(c->waiting.raw, c->waiting.n); /* holds the session key */
	free(c->waiting.raw);
	free(c->answer);
	sodium_memzero(c, sizeof(*c));
	free(c);
}

int call_table_new(struct call_table **out)
{
	struct call_table *t = calloc(1, sizeof(*t));

	*out = t;
	if (t == NULL)
		return -ENOMEM;
	t->buckets = BUCKETS_MIN;
	t->by_cookie = calloc(t->buckets, sizeof(struct call *));
	t->by_dialog = calloc(t->buckets, sizeof(struct call *));
	if (t->by_cookie != NULL && t->by_dialog != NULL)
		return 0;
	call_table_free(t);
	*out = NULL;
	return -ENOMEM;
}

void call_table_free(struct call_table *t)
{
	struct call *next;

	if (t == NULL)
		return;
	for (struct call *c = t->all; c != NULL; c = next) {
		next = c->next_all;
		call_free(c);
	}
	free(t->by_cookie);
	free(t->by_dialog);
	free(t->heap);
	free(t);
}

struct call *call_table_add(struct call_table *t, uint64_t cookie)
{
	struct call *c;

	if (!heap_reserve(t))
		return NULL;
	c = calloc(1, sizeof(*c));
	if (c == NULL)
		return NULL;
	assert(cookie != 0 && call_table_by_cookie(t, cookie) == NULL);
	if (t->count >= t->buckets)
		grow(t);
	c->cookie = cookie;
	c->due_ms = UINT64_MAX;
	chains_insert(t, c);
	c->next_all = t->all;
	if (t->all != NULL)
		t->all->prev_all = c;
	t->all = c;
	t->count++;
	return c;
}

void call_table_remove(struct call_table *t, struct call *c)
{
	chain_remove_cookie(t, c);
	chain_remove_dialog(t, c);
	heap_remove(t, c);
	if (c->prev_all != NULL)
		c->prev_all->next_all = c->next_all;
	else
		t->all = c->next_all;
	if (c->next_all != NULL)
		c->next_all->prev_all = c->prev_all;
	t->count--;
	call_free(c);
}

struct call *call_table_by_cookie(const struct call_table *t, uint64_t cookie)
{
	struct call *c = t->by_cookie[bucket(t, cookie)];

	while (c != NULL && c->cookie != cookie)
		c = c->next_cookie;
	return c;
}

void call_table_set_dialog(struct call_table *t, struct call *c, uint64_t hash)
{
	struct call **p = &t->by_dialog[bucket(t, hash)];

	chain_remove_dialog(t, c);
	c->dialog_hash = hash;
	c->next_dialog = *p;
	*p = c;
}

struct call *call_table_by_dialog(const struct call_table *t, uint64_t hash, const struct call *prev)
{
	struct call *c = prev != NULL ? prev->next_dialog : t->by_dialog[bucket(t, hash)];

	while (c != NULL && c->dialog_hash != hash)
		c = c->next_dialog;
	return c;
}

void call_table_due(struct call_table *t, struct call *c, uint64_t due_ms)
{
	c->due_ms = due_ms;
	if (due_ms == UINT64_MAX) {
		heap_remove(t, c);
		return;
	}
	if (c->heap_at == 0)
		heap_put(t, t->heap_n++, c);
	heap_up(t, c->heap_at - 1);
	heap_down(t, c->heap_at - 1);
}

struct call *call_table_first_due(const struct call_table *t)
{
	return t->heap_n > 0 ? t->heap[0] : NULL;
}

struct call *call_table_next(const struct call_table *t, const struct call *prev)
{
	return prev != NULL ? prev->next_all : t->all;
}

size_t call_table_count(const struct call_table *t)
{
	return t->count;
}
