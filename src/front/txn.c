/* SPDX-License-Identifier: Apache-2.0 */
#include "front/txn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "sip/msg.h"

/* A wheel holds all timers. It is longer than all but that of a call that rings, which comes by more than once. A timer that is set later
 * than its entry stands stays where it is, and moves on when the wheel comes by: a call sets five of them and files itself twice. */
#define SLOT_MS 16u
#define SLOTS   2048u
#define NONE    UINT32_MAX
#define UNFILED (UINT32_MAX - 1) /* as wheel_prev */
_Static_assert(SLOT_MS *SLOTS > TXN_LIFE_MS, "a timer fits into one turn of the wheel");
#define BEGUN_BYTES sizeof(uint64_t)
_Static_assert(TXN_URI_MAX + 1 + USER_NAME_MAX + BEGUN_BYTES + TXN_ANSWER_MAX <= TXN_TEXT, "every answer that is kept has room");
_Static_assert(TXN_LIFE_MS <= UINT16_MAX / 2, "a doubled interval fits");

/* An index is the low 24 bits of an id, a number that grows with each use the rest. */
#define INDEX_BITS 24

struct txn_table {
	struct txn *x;
	char *text;        /* TXN_TEXT each; a free one begins with the next free one's index */
	uint32_t capacity; /* of both */
	uint32_t unsettled;
	uint32_t used, texts_used;     /* how many were ever touched */
	uint32_t free_head, text_free; /* last freed first */
	uint32_t count, completed;
	uint64_t generation;
	uint32_t mask;
	uint32_t *key, *call; /* heads of chains: 1 + index; 0: none */
	uint64_t turn;        /* the wheel's position: now / SLOT_MS when last looked at */
	uint64_t looked_ms;   /* when that slot was last begun … */
	uint32_t at;          /* … and whose turn it is in it */
	uint32_t wheel[SLOTS];
};

static uint32_t index_of(const struct txn *x)
{
	return (uint32_t)(x->id & ((1u << INDEX_BITS) - 1));
}

static char *text_of(const struct txn_table *t, const struct txn *x)
{
	return t->text + (size_t)(x->text - 1) * TXN_TEXT;
}

/* There is one for every transaction. */
static void text_take(struct txn_table *t, struct txn *x)
{
	const uint32_t index = t->text_free != NONE ? t->text_free : t->texts_used++;

	x->text = 1 + index;
	if (t->text_free != NONE)
		memcpy(&t->text_free, text_of(t, x), sizeof(t->text_free));
}

/* Behind the URI stand the user's length and name, when the call began, then the answer, then the request. */
static uint8_t user_n(const struct txn_table *t, const struct txn *x)
{
	return (uint8_t)text_of(t, x)[x->uri_n];
}

static size_t begun_at(const struct txn_table *t, const struct txn *x)
{
	return (size_t)x->uri_n + 1 + user_n(t, x);
}

static size_t answer_at(const struct txn_table *t, const struct txn *x)
{
	return begun_at(t, x) + BEGUN_BYTES;
}

static void text_give(struct txn_table *t, struct txn *x)
{
	if (x->text == 0)
		return;
	memcpy(text_of(t, x), &t->text_free, sizeof(t->text_free));
	t->text_free = x->text - 1;
	x->text = 0;
	x->uri_n = 0;
	x->answer_n = x->request_n = 0;
}

static struct span part(const struct txn_table *t, const struct txn *x, size_t from, size_t n)
{
	return x->text != 0 ? span_of(text_of(t, x) + from, n) : span_of(NULL, 0);
}

static void wheel_take(struct txn_table *t, struct txn *x)
{
	if (x->wheel_prev == UNFILED)
		return;
	if (t->at == index_of(x))
		t->at = x->wheel_next;
	if (x->wheel_prev != NONE)
		t->x[x->wheel_prev].wheel_next = x->wheel_next;
	else
		t->wheel[x->turn % SLOTS] = x->wheel_next;
	if (x->wheel_next != NONE)
		t->x[x->wheel_next].wheel_prev = x->wheel_prev;
	x->wheel_prev = UNFILED;
}

static void wheel_put(struct txn_table *t, struct txn *x, uint64_t due_ms)
{
	uint64_t turn = due_ms / SLOT_MS;
	uint32_t *head;

	if (turn <= t->turn) {
		turn = t->turn;
		t->looked_ms = UINT64_MAX; /* it may be in front of what is looked at */
	}
	x->due_ms = due_ms;
	if (x->wheel_prev != UNFILED && (int32_t)((uint32_t)turn - x->turn) >= 0)
		return;
	wheel_take(t, x);
	x->turn = (uint32_t)turn;
	head = &t->wheel[turn % SLOTS];
	x->wheel_prev = NONE;
	x->wheel_next = *head;
	if (*head != NONE)
		t->x[*head].wheel_prev = index_of(x);
	*head = index_of(x);
}

static void key_take(struct txn_table *t, struct txn *x)
{
	uint32_t *p = &t->key[x->key & t->mask];

	if (x->key == TXN_NO_KEY)
		return;
	while (*p != 1 + index_of(x))
		p = &t->x[*p - 1].next_key;
	*p = x->next_key;
}

static void call_take(struct txn_table *t, struct txn *x)
{
	uint32_t *p = &t->call[x->call & t->mask];

	while (*p != 1 + index_of(x))
		p = &t->x[*p - 1].next_call;
	*p = x->next_call;
}

/* Zeroes, there where they are used. */
static void *map(size_t bytes)
{
	void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return p == MAP_FAILED ? NULL : p;
}

static void unmap(void *p, size_t bytes)
{
	if (p != NULL)
		munmap(p, bytes);
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
	t->free_head = t->text_free = NONE;
	t->generation = first_id;
	t->mask = 1;
	while (t->mask < capacity)
		t->mask <<= 1;
	t->mask -= 1;
	t->looked_ms = UINT64_MAX;
	t->at = NONE;
	for (unsigned i = 0; i < SLOTS; i++)
		t->wheel[i] = NONE;
	t->x = map(capacity * sizeof(*t->x));
	t->text = map((size_t)capacity * TXN_TEXT);
	t->key = map((t->mask + 1u) * sizeof(*t->key));
	t->call = map((t->mask + 1u) * sizeof(*t->call));
	if (t->x == NULL || t->text == NULL || t->key == NULL || t->call == NULL) {
		txn_table_free(t);
		return -ENOMEM;
	}
	*out = t;
	return 0;
}

void txn_table_free(struct txn_table *t)
{
	if (t == NULL)
		return;
	unmap(t->x, t->capacity * sizeof(*t->x));
	unmap(t->text, (size_t)t->capacity * TXN_TEXT);
	unmap(t->key, (t->mask + 1u) * sizeof(*t->key));
	unmap(t->call, (t->mask + 1u) * sizeof(*t->call));
	free(t);
}

uint32_t txn_count(const struct txn_table *t)
{
	return t->count;
}

uint32_t txn_unsettled(const struct txn_table *t)
{
	return t->unsettled;
}

/* A call whose ACK has passed has given its text back. */
static bool settled(const struct txn *x)
{
	return x->state == TXN_CONFIRMED || (x->state == TXN_ACCEPTED && x->text == 0);
}

uint32_t txn_completed(const struct txn_table *t)
{
	return t->completed;
}

struct txn *txn_begin(struct txn_table *t, const struct txn_of *of, uint64_t now_ms)
{
	uint32_t index = t->free_head, *head;
	struct txn *x;
	char *text;

	if (of->uri.n > TXN_URI_MAX || of->user.n > USER_NAME_MAX)
		return NULL;
	if (index != NONE)
		t->free_head = t->x[index].next_key;
	else if (t->used < t->capacity)
		index = t->used++;
	else
		return NULL;
	x = &t->x[index];
	t->count++;
	t->unsettled++;
	t->generation++;
	*x = (struct txn){.id = t->generation << INDEX_BITS | index,
			  .key = of->key,
			  .call = of->call,
			  .branch = of->branch,
			  .exact = of->exact,
			  .flow = *of->flow,
			  .state = TXN_PROCEEDING,
			  .uri_n = (uint8_t)of->uri.n,
			  .wheel_prev = UNFILED,
			  .resent_ms = (uint32_t)now_ms,
			  .deadline_ms = now_ms + TXN_LIFE_MS};
	text_take(t, x);
	text = text_of(t, x);
	if (of->uri.n > 0)
		memcpy(text, of->uri.p, of->uri.n);
	text[of->uri.n] = (char)of->user.n;
	if (of->user.n > 0)
		memcpy(text + of->uri.n + 1, of->user.p, of->user.n);
	memcpy(text + begun_at(t, x), &now_ms, BEGUN_BYTES);
	if (of->key != TXN_NO_KEY) {
		head = &t->key[of->key & t->mask];
		x->next_key = *head;
		*head = 1 + index;
	}
	head = &t->call[of->call & t->mask];
	x->next_call = *head;
	*head = 1 + index;
	wheel_put(t, x, x->deadline_ms);
	return x;
}

void txn_end(struct txn_table *t, struct txn *x)
{
	wheel_take(t, x);
	key_take(t, x);
	call_take(t, x);
	if (!settled(x))
		t->unsettled--;
	text_give(t, x);
	if (x->state == TXN_COMPLETED)
		t->completed--;
	x->state = TXN_FREE;
	x->next_key = t->free_head;
	t->free_head = index_of(x);
	t->count--;
}

struct txn *txn_by_key(struct txn_table *t, uint64_t key, const struct front_flow *flow)
{
	for (uint32_t i = t->key[key & t->mask]; i != 0; i = t->x[i - 1].next_key)
		if (t->x[i - 1].key == key && front_flow_eq(&t->x[i - 1].flow, flow))
			return &t->x[i - 1];
	return NULL;
}

struct txn *txn_by_branch(struct txn_table *t, uint64_t call, uint64_t branch, const struct front_flow *flow)
{
	for (uint32_t i = t->call[call & t->mask]; i != 0; i = t->x[i - 1].next_call) {
		struct txn *x = &t->x[i - 1];

		if (x->call == call && x->branch == branch && front_flow_eq(&x->flow, flow))
			return x;
	}
	return NULL;
}

struct txn *txn_accepted(struct txn_table *t, uint64_t call, const struct front_flow *flow)
{
	for (uint32_t i = t->call[call & t->mask]; i != 0; i = t->x[i - 1].next_call) {
		struct txn *x = &t->x[i - 1];

		if (x->call == call && x->state == TXN_ACCEPTED && front_flow_eq(&x->flow, flow))
			return x;
	}
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
	if (state == TXN_CONFIRMED && !settled(x))
		t->unsettled--;
	if (x->state == TXN_COMPLETED)
		t->completed--;
	if (state == TXN_COMPLETED)
		t->completed++;
	x->state = (uint8_t)state;
	x->deadline_ms = now_ms + (state == TXN_CONFIRMED ? TXN_CONFIRMED_MS : TXN_LIFE_MS);
	x->interval_ms = SIP_T1_MS;
	wheel_put(t, x, state == TXN_COMPLETED ? now_ms + x->interval_ms : x->deadline_ms);
}

void txn_ringing(struct txn_table *t, struct txn *x, uint64_t now_ms)
{
	x->deadline_ms = now_ms + TXN_RINGING_MS;
	wheel_put(t, x, x->deadline_ms);
}

void txn_acknowledged(struct txn_table *t, struct txn *x, uint64_t now_ms)
{
	if (!settled(x))
		t->unsettled--;
	text_give(t, x);
	if (x->deadline_ms <= now_ms + TXN_CONFIRMED_MS)
		return;
	x->deadline_ms = now_ms + TXN_CONFIRMED_MS;
	wheel_put(t, x, x->deadline_ms);
}

void txn_keep(struct txn_table *t, struct txn *x, struct span answer)
{
	x->answer_n = x->request_n = 0;
	if (answer.n > TXN_ANSWER_MAX || x->text == 0)
		return;
	memcpy(text_of(t, x) + answer_at(t, x), answer.p, answer.n);
	x->answer_n = (uint16_t)answer.n;
}

void txn_keep_request(struct txn_table *t, struct txn *x, struct span request, uint64_t now_ms)
{
	size_t at = x->text != 0 ? answer_at(t, x) + x->answer_n : 0;

	if (x->text == 0 || request.n > TXN_TEXT - at)
		return;
	memcpy(text_of(t, x) + at, request.p, request.n);
	x->request_n = (uint16_t)request.n;
	x->interval_ms = SIP_T1_MS;
	wheel_put(t, x, now_ms + x->interval_ms);
}

struct span txn_user(const struct txn_table *t, const struct txn *x)
{
	return x->text != 0 ? part(t, x, (size_t)x->uri_n + 1, user_n(t, x)) : span_of(NULL, 0);
}

uint64_t txn_begun_ms(const struct txn_table *t, const struct txn *x)
{
	uint64_t begun_ms = 0;

	if (x->text != 0)
		memcpy(&begun_ms, text_of(t, x) + begun_at(t, x), BEGUN_BYTES);
	return begun_ms;
}

struct span txn_uri(const struct txn_table *t, const struct txn *x)
{
	return part(t, x, 0, x->uri_n);
}

struct span txn_answer(const struct txn_table *t, const struct txn *x)
{
	return x->text != 0 ? part(t, x, answer_at(t, x), x->answer_n) : span_of(NULL, 0);
}

struct span txn_request(const struct txn_table *t, const struct txn *x)
{
	return x->text != 0 ? part(t, x, answer_at(t, x) + x->answer_n, x->request_n) : span_of(NULL, 0);
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
	if (x->answer_n == 0 || x->answer_n > asked || x->resends >= TXN_RESENDS_MAX || (uint32_t)now_ms - x->resent_ms < TXN_RESEND_MS)
		return false;
	x->resends++;
	x->resent_ms = (uint32_t)now_ms;
	return true;
}

struct txn *txn_due(struct txn_table *t, uint64_t now_ms)
{
	uint64_t turn = now_ms / SLOT_MS;

	if (t->turn + SLOTS < turn) {
		t->turn = turn - SLOTS; /* after a long sleep, or at the start: one whole turn sees everything */
		t->looked_ms = UINT64_MAX;
	}
	if (t->looked_ms != now_ms) {
		t->looked_ms = now_ms;
		t->at = t->wheel[t->turn % SLOTS];
	}
	for (;;) {
		while (t->at != NONE) {
			struct txn *x = &t->x[t->at];

			t->at = x->wheel_next;
			if (x->due_ms <= now_ms) {
				wheel_take(t, x);
				return x;
			}
			if (x->due_ms / SLOT_MS > t->turn) {
				wheel_take(t, x);
				wheel_put(t, x, x->due_ms);
			}
		}
		if (t->turn >= turn)
			return NULL;
		t->turn++;
		t->at = t->wheel[t->turn % SLOTS];
	}
}

void txn_hurry(struct txn_table *t, unsigned tenant, unsigned hop, uint64_t now_ms)
{
	for (uint32_t i = 0; i < t->used; i++)
		if (t->x[i].state == TXN_PROCEEDING && t->x[i].hop == hop && (hop != 0 || t->x[i].tenant == tenant))
			wheel_put(t, &t->x[i], now_ms);
}

void txn_again(struct txn_table *t, struct txn *x, uint64_t now_ms)
{
	uint32_t interval = 2u * x->interval_ms;
	uint64_t due;

	if (x->state == TXN_COMPLETED && interval > SIP_T2_MS)
		interval = SIP_T2_MS;
	x->interval_ms = (uint16_t)interval;
	due = now_ms + interval;
	wheel_put(t, x, due < x->deadline_ms ? due : x->deadline_ms);
}
