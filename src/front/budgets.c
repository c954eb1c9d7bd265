/* SPDX-License-Identifier: Apache-2.0 */
#include "front/budgets.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define WAYS  8u
#define LOCKS 64u

/* A key's state is one number, the time up to which what it took has been paid for (the generic cell rate algorithm). */
struct cell {
	uint64_t key; /* 0: free */
	uint64_t paid_us;
};

struct budgets {
	pthread_mutex_t lock[LOCKS];
	uint32_t sets; /* power of two */
	struct cell *cell;
};

int budgets_new(uint32_t entries, struct budgets **out)
{
	struct budgets *b;
	uint32_t sets = 1;

	if (entries < WAYS || entries > 1u << 24)
		return -EINVAL;
	while (sets * WAYS < entries)
		sets *= 2;
	b = calloc(1, sizeof(*b));
	if (b == NULL)
		return -ENOMEM;
	b->sets = sets;
	b->cell = calloc((size_t)sets * WAYS, sizeof(*b->cell));
	if (b->cell == NULL) {
		free(b);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_init(&b->lock[i], NULL);
	*out = b;
	return 0;
}

void budgets_free(struct budgets *b)
{
	if (b == NULL)
		return;
	for (unsigned i = 0; i < LOCKS; i++)
		pthread_mutex_destroy(&b->lock[i]);
	free(b->cell);
	free(b);
}

uint32_t budget_take(struct budgets *b, uint64_t key, uint32_t per_s, uint64_t now_ms)
{
	uint32_t set = (uint32_t)(key >> 32) & (b->sets - 1);
	struct cell *c = &b->cell[(size_t)set * WAYS], *mine = NULL;
	uint64_t now = now_ms * 1000, each, paid;
	uint32_t wait = 0;

	if (per_s == 0)
		return 0;
	if (key == 0)
		key = 1;
	each = 1000000u / per_s;
	if (each == 0)
		each = 1;
	pthread_mutex_lock(&b->lock[set % LOCKS]);
	for (unsigned i = 0; i < WAYS; i++) {
		if (c[i].key == key) {
			mine = &c[i];
			break;
		}
		if (mine == NULL || c[i].paid_us < mine->paid_us)
			mine = &c[i];
	}
	if (mine->key != key) {
		mine->key = key;
		mine->paid_us = 0;
	}
	paid = (mine->paid_us > now ? mine->paid_us : now) + each;
	if (paid > now + each * per_s)
		wait = (uint32_t)((paid - now - each * per_s) / 1000 + 1);
	else
		mine->paid_us = paid;
	pthread_mutex_unlock(&b->lock[set % LOCKS]);
	return wait;
}
