/* SPDX-License-Identifier: Apache-2.0 */
#include "front/grace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct front_retired {
	struct front_retired *next;
	void *p;
	void (*release)(void *p);
	struct front_grace_mark mark;
};

void front_grace_begin(struct front_grace_mark *m, const uint64_t *turn, unsigned n)
{
	memcpy(m->turn, turn, n * sizeof(*turn));
	m->n = n;
}

bool front_grace_over(const struct front_grace_mark *m, const uint64_t *turn)
{
	for (unsigned i = 0; i < m->n; i++)
		if (turn[i] < m->turn[i] + 2)
			return false;
	return true;
}

int front_grace_retire(struct front_grace *g, void *p, void (*release)(void *p), const uint64_t *turn, unsigned n)
{
	struct front_retired *r;

	if (p == NULL)
		return 0;
	r = malloc(sizeof(*r));
	if (r == NULL)
		return -ENOMEM;
	r->p = p;
	r->release = release;
	front_grace_begin(&r->mark, turn, n);
	r->next = g->first;
	g->first = r;
	return 0;
}

unsigned front_grace_look(struct front_grace *g, const uint64_t *turn)
{
	unsigned waiting = 0;

	for (struct front_retired **at = &g->first, *r; (r = *at) != NULL;) {
		if (!front_grace_over(&r->mark, turn)) {
			waiting++;
			at = &r->next;
			continue;
		}
		*at = r->next;
		r->release(r->p);
		free(r);
	}
	return waiting;
}

void front_grace_end(struct front_grace *g)
{
	for (struct front_retired *r = g->first, *next; r != NULL; r = next) {
		next = r->next;
		r->release(r->p);
		free(r);
	}
	g->first = NULL;
}
