/* SPDX-License-Identifier: Apache-2.0 */
#include "front/txn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sip/msg.h"

/* A wheel holds all timers: longer than the longest, so an entry comes by once. */
#define SLOT_MS 64u
#define SLOTS   1024u
#define NONE    UINT32_MAX
_Static_assert(SLOT_MS *SLOTS > TXN_LIFE_MS, "a timer fits into one turn of the wheel");

/* An index is the low 24 bits of an id, a number that grows with each use the rest. */
#define INDEX_BITS 24

struct txn_table {
	struct txn *x;
	char *request;           /* TXN_REQUEST_MAX each; touched for calls to UDP hops only */
	uint32_t capacity, used; /* used: how many were ever touched */
	uint32_t count;
	uint32_t free_head;
	uint64_t generation;
	uint32_t mask;
	uint32_t *key, *branch; /* heads of chains */
	uint64_t turn;          /* the wheel's position: now / SLOT_MS when last looked at */
	uint32_t wheel[SLOTS];
};

static void wheel_take(struct txn_table *t, struct txn *x)
{
	if (x->slot == NONE)
		return;
	if (x->wheel_prev != NONE)
		t->x[x->wheel_prev].wheel_next = x->wheel_next;
	else
		t->wheel[x->slot] = x->wheel_next;
	if (x->wheel_next != NONE)
		t->x[x->wheel_next].wheel_prev = x->wheel_prev;
	x->slot = NONE;
}

static void wheel_put(struct txn_table *t, struct txn *x, uint64_t due_ms)
{
	wheel_take(t, x);
	x->due_ms = due_ms;
	uint64_t turn = due_ms / SLOT_MS;
	if (turn < t->turn)
		turn = t->turn;
	x->slot = (uint32_t)(turn % SLOTS);
	x->wheel_prev = NONE;
	x->wheel_next = t->wheel[x->slot];
	if (x->wheel_next != NONE)
		t->x[x->wheel_next].wheel_prev = x->index;
	t->wheel[x->slot] = x->index;
}

static void key_take(struct txn_table *t, struct txn *x)
{
	uint32_t *p = &t->key[x->key & t->mask];

	while (*p != x->index)
		p = &t->x[*p].next_key;
	*p = x->next_key;
}

static void branch_take(struct txn_table *t, struct txn *x)
{
	uint32_t *p = &t->branch[x->branch & t->mask];

	while (*p != x->index)
		p = &t->x[*p].next_branch;
	*p = x->next_branch;
}

static void branch_put(struct txn_table *t, struct txn *x, uint64_t branch)
{
	x->branch = branch;
	x->next_branch = t->branch[branch & t->mask];
	t->branch[branch & t->mask] = x->index;
}

static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

int txn_table_new(uint32_t capacity, uint64_t first_id, struct txn_table **out)
{
	struct txn_table *t;

	if (capacity == 0 || capacity >= 1u << INDEX_BITS)
		return -EINVAL;
	t = calloc(1, sizeof(*t));
	if (t == NULL)
		return -ENOMEM;
	t->capacity = capacity;
	t->free_head = NONE;
	t->generation = first_id;
	t->mask = 1;
	while (t->mask < capacity)
		t->mask <<= 1;
	t->mask -= 1;
	for (unsigned i = 0; i < SLOTS; i++)
		t->wheel[i] = NONE;
	t->x = map(capacity * sizeof(*t->x));
	t->request = map((size_t)capacity * TXN_REQUEST_MAX);
	t->key = malloc((t->mask + 1u) * sizeof(*t->key));
	t->branch = malloc((t->mask + 1u) * sizeof(*t->branch));
	if (t->x == NULL || t->request == NULL || t->key == NULL || t->branch == NULL) {
		txn_table_free(t);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i <= t->mask; i++)
		t->key[i] = t->branch[i] = NONE;
	*out = t;
	return 0;
}

void txn_table_free(struct txn_table *t)
{
	if (t == NULL)
		return;
	if (t->x != NULL)
		munmap(t->x, t->capacity * sizeof(*t->x));
	if (t->request != NULL)
		munmap(t->request, (size_t)t->capacity * TXN_REQUEST_MAX);
	free(t->key);
	free(t->branch);
	free(t);
}

uint32_t txn_count(const struct txn_table *t)
{
	return t->count;
}

struct txn *txn_begin(struct txn_table *t, uint64_t key, uint64_t branch, const struct front_flow *flow, uint64_t now_ms)
{
	uint32_t index = t->free_head;
	struct txn *x;

	if (index != NONE)
		t->free_head = t->x[index].next_key;
	else if (t->used < t->capacity)
		index = t->used++;
	else
		return NULL;
	x = &t->x[index];
	t->count++;
	t->generation++;
	x->state = TXN_PROCEEDING;
	x->index = index;
	x->id = t->generation << INDEX_BITS | index;
	x->key = key;
	x->exact = 0;
	x->flow = *flow;
	x->hop = 0;
	x->resends = 0;
	x->resent_ms = now_ms;
	x->uri_n = x->answer_n = x->request_n = 0;
	x->slot = NONE;
	x->next_key = t->key[key & t->mask];
	t->key[key & t->mask] = index;
	branch_put(t, x, branch);
	x->deadline_ms = now_ms + TXN_LIFE_MS;
	wheel_put(t, x, x->deadline_ms);
	return x;
}

void txn_end(struct txn_table *t, struct txn *x)
{
	wheel_take(t, x);
	key_take(t, x);
	branch_take(t, x);
	x->state = TXN_FREE;
	x->next_key = t->free_head;
	t->free_head = x->index;
	t->count--;
}

struct txn *txn_by_key(struct txn_table *t, uint64_t key, const struct front_flow *flow)
{
	for (uint32_t i = t->key[key & t->mask]; i != NONE; i = t->x[i].next_key)
		if (t->x[i].key == key && front_flow_eq(&t->x[i].flow, flow))
			return &t->x[i];
	return NULL;
}

struct txn *txn_by_branch(struct txn_table *t, uint64_t branch, const struct front_flow *flow)
{
	for (uint32_t i = t->branch[branch & t->mask]; i != NONE; i = t->x[i].next_branch)
		if (t->x[i].branch == branch && front_flow_eq(&t->x[i].flow, flow))
			return &t->x[i];
	return NULL;
}

struct txn *txn_by_id(struct txn_table *t, uint64_t id)
{
	uint32_t index = (uint32_t)(id & ((1u << INDEX_BITS) - 1));

	if (index >= t->used || t->x[index].state == TXN_FREE || t->x[index].id != id)
		return NULL;
	return &t->x[index];
}

void txn_enter(struct txn_table *t, struct txn *x, enum txn_state state, uint64_t now_ms)
{
	x->state = state;
	x->deadline_ms = now_ms + (state == TXN_CONFIRMED ? TXN_CONFIRMED_MS : TXN_LIFE_MS);
	x->interval_ms = SIP_T1_MS;
	wheel_put(t, x, state == TXN_COMPLETED ? now_ms + x->interval_ms : x->deadline_ms);
}

void txn_file(struct txn_table *t, struct txn *x, uint64_t branch)
{
	branch_take(t, x);
	branch_put(t, x, branch);
}

void txn_shorten(struct txn_table *t, struct txn *x, uint64_t now_ms)
{
	if (x->deadline_ms <= now_ms + TXN_CONFIRMED_MS)
		return;
	x->deadline_ms = now_ms + TXN_CONFIRMED_MS;
	wheel_put(t, x, x->deadline_ms);
}

void txn_keep(struct txn *x, struct span answer)
{
	x->answer_n = 0;
	if (answer.n > sizeof(x->answer))
		return;
	memcpy(x->answer, answer.p, answer.n);
	x->answer_n = (uint16_t)answer.n;
}

void txn_keep_request(struct txn_table *t, struct txn *x, struct span request, uint64_t now_ms)
{
	if (request.n > TXN_REQUEST_MAX)
		return;
	memcpy(t->request + (size_t)x->index * TXN_REQUEST_MAX, request.p, request.n);
	x->request_n = (uint16_t)request.n;
	x->interval_ms = SIP_T1_MS;
	wheel_put(t, x, now_ms + x->interval_ms);
}

struct span txn_request(const struct txn_table *t, const struct txn *x)
{
	return span_of(t->request + (size_t)x->index * TXN_REQUEST_MAX, x->request_n);
}

void txn_answered(struct txn_table *t, struct txn *x)
{
	if (x->request_n == 0)
		return;
	x->request_n = 0;
	wheel_put(t, x, x->deadline_ms);
}

bool txn_may_resend(struct txn *x, size_t asked, uint64_t now_ms)
{
	if (x->answer_n == 0 || x->answer_n > asked || x->resends >= TXN_RESENDS_MAX || now_ms - x->resent_ms < TXN_RESEND_MS)
		return false;
	x->resends++;
	x->resent_ms = now_ms;
	return true;
}

struct txn *txn_due(struct txn_table *t, uint64_t now_ms)
{
	uint64_t turn = now_ms / SLOT_MS;

	if (t->turn + SLOTS < turn)
		t->turn = turn - SLOTS; /* after a long sleep, or at the start: one whole turn sees everything */
	for (;; t->turn++) {
		for (uint32_t i = t->wheel[t->turn % SLOTS]; i != NONE; i = t->x[i].wheel_next) {
			if (t->x[i].due_ms <= now_ms) {
				wheel_take(t, &t->x[i]);
				return &t->x[i];
			}
		}
		if (t->turn >= turn)
			return NULL;
	}
}

void txn_hurry(struct txn_table *t, unsigned tenant, uint64_t now_ms)
{
	for (uint32_t i = 0; i < t->used; i++)
		if (t->x[i].state == TXN_PROCEEDING && t->x[i].tenant == tenant && t->x[i].hop == 0)
			wheel_put(t, &t->x[i], now_ms);
}

void txn_again(struct txn_table *t, struct txn *x, uint64_t now_ms)
{
	uint64_t due;

	x->interval_ms *= 2;
	if (x->state == TXN_COMPLETED && x->interval_ms > SIP_T2_MS)
		x->interval_ms = SIP_T2_MS;
	due = now_ms + x->interval_ms;
	wheel_put(t, x, due < x->deadline_ms ? due : x->deadline_ms);
}
