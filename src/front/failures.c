/* SPDX-License-Identifier: Apache-2.0 */
#include "front/failures.h"

#include <errno.h>
#include <stdlib.h>

#define WAYS 4u

/* A key's state is the time at which all is forgiven. */
struct cell {
	uint64_t key;
	uint64_t forgiven_ms;
};

struct failures {
	uint32_t sets;        /* power of two */
	uint64_t forgiven_ms; /* the latest of all */
	struct cell *cell;
};

int failures_new(uint32_t entries, struct failures **out)
{
	struct failures *f;
	uint32_t sets = 1;

	if (entries < WAYS || entries > 1u << 24)
		return -EINVAL;
	while (sets * WAYS < entries)
		sets *= 2;
	f = calloc(1, sizeof(*f));
	if (f == NULL)
		return -ENOMEM;
	f->sets = sets;
	f->cell = calloc((size_t)sets * WAYS, sizeof(*f->cell));
	if (f->cell == NULL) {
		free(f);
		return -ENOMEM;
	}
	*out = f;
	return 0;
}

void failures_free(struct failures *f)
{
	if (f == NULL)
		return;
	free(f->cell);
	free(f);
}

static struct cell *set_of(const struct failures *f, uint64_t key)
{
	return &f->cell[(size_t)((uint32_t)(key >> 32) & (f->sets - 1)) * WAYS];
}

void failures_add(struct failures *f, uint64_t key, uint64_t now_ms)
{
	struct cell *c = set_of(f, key), *mine = c;
	uint64_t most = now_ms + (uint64_t)FAILURES_MOST * FAILURES_EACH_MS;

	for (unsigned i = 0; i < WAYS; i++) {
		if (c[i].key == key) {
			mine = &c[i];
			break;
		}
		if (c[i].forgiven_ms < mine->forgiven_ms)
			mine = &c[i];
	}
	if (mine->key != key || mine->forgiven_ms < now_ms) {
		mine->key = key;
		mine->forgiven_ms = now_ms;
	}
	mine->forgiven_ms += FAILURES_EACH_MS;
	if (mine->forgiven_ms > most)
		mine->forgiven_ms = most;
	if (mine->forgiven_ms > f->forgiven_ms)
		f->forgiven_ms = mine->forgiven_ms;
}

bool failures_over(const struct failures *f, uint64_t key, uint64_t now_ms)
{
	const struct cell *c;

	if (f->forgiven_ms <= now_ms)
		return false;
	c = set_of(f, key);
	for (unsigned i = 0; i < WAYS; i++)
		if (c[i].key == key)
			return c[i].forgiven_ms > now_ms + (uint64_t)(FAILURES_BURST - 1) * FAILURES_EACH_MS;
	return false;
}
