/* SPDX-License-Identifier: Apache-2.0 */
#include "front/stream_policy.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "front/flow.h"

#define COUNT_MASK 0xffffull /* of an address's cell: its connections; above them, its hash */
#define BURST_MS   100u      /* handshakes that nobody asked for in the last tenth of a second may come at once */

_Static_assert(crypto_shorthash_KEYBYTES == 16, "the key is SipHash's");

struct ends {
	uint32_t first, last;
};

struct stream_policy {
	struct front_stream_limits limit;
	uint8_t key[16];
	struct stream_slot *slot;
	uint64_t *address; /* open addressing; twice as many cells as connections, so it is never full */
	uint64_t mask;
	uint32_t *free_buffer; /* a stack: the one that was used last is the first to be used again */
	uint32_t nfree_buffers;
	uint32_t first_free, touched; /* places from `touched` on were never used */
	uint32_t first_generation;
	uint32_t count[STREAM_TRUSTED + 1];
	struct ends due[STREAM_DUES], age, held;
	uint64_t paid_us; /* when the handshakes so far are paid for */
};

static uint32_t share(uint32_t whole, unsigned n)
{
	return whole / n + (whole % n != 0);
}

void stream_limits_share(const struct front_stream_limits *whole, unsigned n, struct front_stream_limits *out)
{
	*out = *whole;
	out->connections = share(whole->connections, n);
	out->trusted = out->connections - share(out->connections, 8);
	out->buffers = share(out->connections, 4);
	out->per_address = share(whole->per_address, n);
	out->handshakes = share(whole->handshakes, n);
	out->handshakes_per_s = share(whole->handshakes_per_s, n);
}

int stream_policy_new(const struct front_stream_limits *l, const uint8_t key[static 16], uint32_t first_generation,
		      struct stream_policy **out)
{
	struct stream_policy *p;
	uint64_t cells = 4;

	if (l->connections == 0 || l->connections >= 1u << FRONT_SLOT_BITS || l->per_address == 0 || l->per_address > COUNT_MASK ||
	    l->buffers == 0 || l->handshakes == 0 || l->handshakes_per_s > 1000000)
		return -EINVAL;
	while (cells < 2ull * l->connections)
		cells *= 2;
	p = calloc(1, sizeof(*p));
	if (p == NULL)
		return -ENOMEM;
	p->limit = *l;
	memcpy(p->key, key, sizeof(p->key));
	p->mask = cells - 1;
	p->first_generation = first_generation;
	p->first_free = STREAM_NONE;
	for (unsigned i = 0; i < STREAM_DUES; i++)
		p->due[i] = (struct ends){STREAM_NONE, STREAM_NONE};
	p->age = p->held = (struct ends){STREAM_NONE, STREAM_NONE};
	p->slot = calloc(l->connections, sizeof(*p->slot));
	p->address = calloc(cells, sizeof(*p->address));
	p->free_buffer = malloc(l->buffers * sizeof(*p->free_buffer));
	if (p->slot == NULL || p->address == NULL || p->free_buffer == NULL) {
		stream_policy_free(p);
		return -ENOMEM;
	}
	for (uint32_t i = 0; i < l->buffers; i++)
		p->free_buffer[i] = l->buffers - 1 - i;
	p->nfree_buffers = l->buffers;
	*out = p;
	return 0;
}

void stream_policy_free(struct stream_policy *p)
{
	if (p == NULL)
		return;
	free(p->slot);
	free(p->address);
	free(p->free_buffer);
	free(p);
}

const struct stream_slot *stream_slot(const struct stream_policy *p, uint32_t slot)
{
	return &p->slot[slot];
}

/* The three lists differ only in which pair of links they use. */
#define LINK(p, ends, s, before, after)                      \
	do {                                                 \
		(p)->slot[s].before = (ends)->last;          \
		(p)->slot[s].after = STREAM_NONE;            \
		if ((ends)->last != STREAM_NONE)             \
			(p)->slot[(ends)->last].after = (s); \
		else                                         \
			(ends)->first = (s);                 \
		(ends)->last = (s);                          \
	} while (0)
#define UNLINK(p, ends, s, before, after)                                           \
	do {                                                                        \
		if ((p)->slot[s].before != STREAM_NONE)                             \
			(p)->slot[(p)->slot[s].before].after = (p)->slot[s].after;  \
		else                                                                \
			(ends)->first = (p)->slot[s].after;                         \
		if ((p)->slot[s].after != STREAM_NONE)                              \
			(p)->slot[(p)->slot[s].after].before = (p)->slot[s].before; \
		else                                                                \
			(ends)->last = (p)->slot[s].before;                         \
	} while (0)

static void wait_for(struct stream_policy *p, uint32_t s, enum stream_due due, uint64_t now_ms)
{
	p->slot[s].due = (uint8_t)due;
	p->slot[s].since_ms = now_ms;
	LINK(p, &p->due[due], s, prev, next);
}

static void wait_no_more(struct stream_policy *p, uint32_t s)
{
	UNLINK(p, &p->due[p->slot[s].due], s, prev, next);
}

static void again(struct stream_policy *p, uint32_t s, enum stream_due due, uint64_t now_ms)
{
	wait_no_more(p, s);
	wait_for(p, s, due, now_ms);
}

/* IPv4 /32; IPv6 /64, within which an end has as many addresses as it likes. Never 0 above the count's bits. */
static uint64_t key_of(const struct stream_policy *p, const struct wn_addr *a)
{
	const bool four = wn_addr_is4(a);
	uint8_t in[9] = {four ? 4 : 6};
	uint64_t h;

	memcpy(in + 1, four ? a->ip + 12 : a->ip, four ? 4 : 8);
	crypto_shorthash((uint8_t *)&h, in, sizeof(in), p->key);
	h &= ~COUNT_MASK;
	return h != 0 ? h : COUNT_MASK + 1;
}

static uint64_t home(const struct stream_policy *p, uint64_t cell)
{
	return cell >> 16 & p->mask;
}

static uint64_t *find(const struct stream_policy *p, uint64_t key)
{
	uint64_t i = home(p, key);

	while (p->address[i] != 0 && (p->address[i] & ~COUNT_MASK) != key)
		i = (i + 1) & p->mask;
	return &p->address[i];
}

static void address_left(struct stream_policy *p, uint64_t key)
{
	uint64_t *cell = find(p, key), hole, i;

	if (*cell == 0 || (--*cell & COUNT_MASK) != 0)
		return;
	/* Those behind it that would not be found any more move up. */
	hole = i = (uint64_t)(cell - p->address);
	for (;;) {
		i = (i + 1) & p->mask;
		if (p->address[i] == 0)
			break;
		if (((i - home(p, p->address[i])) & p->mask) >= ((i - hole) & p->mask)) {
			p->address[hole] = p->address[i];
			hole = i;
		}
	}
	p->address[hole] = 0;
}

bool stream_has_room(const struct stream_policy *p)
{
	return p->touched < p->limit.connections || p->first_free != STREAM_NONE || p->age.first != STREAM_NONE;
}

enum stream_admission stream_admit(struct stream_policy *p, const struct wn_addr *addr, bool tls, uint64_t now_ms, uint32_t *slot)
{
	const uint64_t key = key_of(p, addr);
	uint64_t *cell = find(p, key);
	struct stream_slot *x;
	uint32_t s;

	if ((*cell & COUNT_MASK) >= p->limit.per_address)
		return STREAM_PER_ADDRESS;
	if (p->first_free != STREAM_NONE) {
		s = p->first_free;
		p->first_free = p->slot[s].next;
	} else if (p->touched < p->limit.connections) {
		s = p->touched++;
		p->slot[s].generation = p->first_generation & ((1u << FRONT_GENERATION_BITS) - 1);
	} else {
		return STREAM_FULL;
	}
	*cell = (*cell == 0 ? key : *cell) + 1;
	x = &p->slot[s];
	x->key = key;
	x->buffer = STREAM_NONE;
	x->class = tls ? STREAM_HANDSHAKE : STREAM_STRANGER;
	p->count[x->class]++;
	LINK(p, &p->age, s, age_prev, age_next);
	wait_for(p, s, tls ? STREAM_DUE_HANDSHAKE : STREAM_DUE_FIRST, now_ms);
	*slot = s;
	return STREAM_ADMITTED;
}

uint32_t stream_victim(const struct stream_policy *p)
{
	return p->age.first;
}

void stream_release(struct stream_policy *p, uint32_t s)
{
	struct stream_slot *x = &p->slot[s];

	if (x->class == STREAM_FREE)
		return;
	stream_buffer_drop(p, s);
	wait_no_more(p, s);
	if (x->class != STREAM_TRUSTED)
		UNLINK(p, &p->age, s, age_prev, age_next);
	address_left(p, x->key);
	p->count[x->class]--;
	x->class = STREAM_FREE;
	x->generation = (x->generation + 1) & ((1u << FRONT_GENERATION_BITS) - 1);
	x->next = p->first_free;
	p->first_free = s;
}

static uint64_t handshake_us(const struct stream_policy *p)
{
	return 1000000u / p->limit.handshakes_per_s;
}

uint64_t stream_handshake_wait(struct stream_policy *p, uint64_t now_ms)
{
	const uint64_t now = now_ms * 1000;
	uint64_t ahead;

	if (p->limit.handshakes_per_s == 0)
		return 1000;
	/* one may always begin when all before it are paid for */
	ahead = handshake_us(p) < BURST_MS * 1000 ? BURST_MS * 1000 - handshake_us(p) : 0;
	return p->paid_us > now + ahead ? (p->paid_us - now - ahead + 999) / 1000 : 0;
}

void stream_handshake_count(struct stream_policy *p, uint64_t now_ms)
{
	if (p->paid_us < now_ms * 1000)
		p->paid_us = now_ms * 1000;
	p->paid_us += handshake_us(p);
}

uint32_t stream_handshake_victim(const struct stream_policy *p)
{
	return p->count[STREAM_HANDSHAKE] > p->limit.handshakes ? p->due[STREAM_DUE_HANDSHAKE].first : STREAM_NONE;
}

static void enter_class(struct stream_policy *p, uint32_t s, enum stream_class class)
{
	p->count[p->slot[s].class]--;
	p->slot[s].class = (uint8_t) class;
	p->count[class]++;
}

void stream_handshaken(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	if (p->slot[s].class != STREAM_HANDSHAKE)
		return;
	enter_class(p, s, STREAM_STRANGER);
	again(p, s, STREAM_DUE_FIRST, now_ms);
}

void stream_heard(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	const struct stream_slot *x = &p->slot[s];

	if (x->class == STREAM_STRANGER)
		again(p, s, STREAM_DUE_STRANGER, now_ms);
	else
		stream_pinged(p, s, now_ms);
}

void stream_pinged(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	if (p->slot[s].class == STREAM_TRUSTED && p->slot[s].due != STREAM_DUE_STALLED)
		again(p, s, STREAM_DUE_TRUSTED, now_ms);
}

bool stream_trust(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	if (p->slot[s].class == STREAM_TRUSTED)
		return true;
	if (p->slot[s].class != STREAM_STRANGER || p->count[STREAM_TRUSTED] >= p->limit.trusted)
		return false;
	stream_buffer_drop(p, s);
	UNLINK(p, &p->age, s, age_prev, age_next);
	enter_class(p, s, STREAM_TRUSTED);
	again(p, s, STREAM_DUE_TRUSTED, now_ms);
	return true;
}

void stream_stall(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	if (p->slot[s].class == STREAM_TRUSTED && p->slot[s].due != STREAM_DUE_STALLED)
		again(p, s, STREAM_DUE_STALLED, now_ms);
}

void stream_unstall(struct stream_policy *p, uint32_t s, uint64_t now_ms)
{
	if (p->slot[s].class == STREAM_TRUSTED && p->slot[s].due == STREAM_DUE_STALLED)
		again(p, s, STREAM_DUE_TRUSTED, now_ms);
}

uint32_t stream_buffer_take(struct stream_policy *p, uint32_t s)
{
	struct stream_slot *x = &p->slot[s];

	if (x->buffer != STREAM_NONE)
		return x->buffer;
	if (p->nfree_buffers == 0)
		return STREAM_NONE;
	x->buffer = p->free_buffer[--p->nfree_buffers];
	LINK(p, &p->held, s, buf_prev, buf_next);
	return x->buffer;
}

void stream_buffer_drop(struct stream_policy *p, uint32_t s)
{
	struct stream_slot *x = &p->slot[s];

	if (x->buffer == STREAM_NONE)
		return;
	UNLINK(p, &p->held, s, buf_prev, buf_next);
	p->free_buffer[p->nfree_buffers++] = x->buffer;
	x->buffer = STREAM_NONE;
}

uint32_t stream_buffer_victim(const struct stream_policy *p)
{
	return p->held.first;
}

uint32_t stream_due(const struct stream_policy *p, uint64_t now_ms, enum stream_due *which)
{
	for (unsigned d = 0; d < STREAM_DUES; d++) {
		uint32_t s = p->due[d].first;

		/* a thread's clock may have been read before another's */
		if (s == STREAM_NONE || now_ms < p->slot[s].since_ms || now_ms - p->slot[s].since_ms < p->limit.due_ms[d])
			continue;
		*which = (enum stream_due)d;
		return s;
	}
	return STREAM_NONE;
}

uint32_t stream_count(const struct stream_policy *p, enum stream_class class)
{
	return p->count[class];
}
