/* SPDX-License-Identifier: Apache-2.0 */
/** \file When memory that workers may still be reading can be freed: after every worker's loop has gone round twice since it was taken out
 * of their sight. Pure; the main thread's. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "front/policy.h"

/** Where every worker was at some moment. */
struct front_grace_mark {
	uint64_t turn[FRONT_WORKERS_MAX];
	unsigned n;
};

/** turn[i]: how often worker i's loop has gone round; at the moment that something was unpublished, or later. */
void front_grace_begin(struct front_grace_mark *m, const uint64_t *turn, unsigned n);
/** Whether no worker can hold what was unpublished before the mark. Once round is not enough: a worker may have been about to count. */
bool front_grace_over(const struct front_grace_mark *m, const uint64_t *turn);

/** What waits to be freed. Zero is an empty list. */
struct front_grace {
	struct front_retired *first;
};

/** Frees p, by `release`, when the workers are done with it. \return 0 or -ENOMEM: p is then never freed. */
int front_grace_retire(struct front_grace *g, void *p, void (*release)(void *p), const uint64_t *turn, unsigned n);
/** Frees what can be freed. \return how many still wait. */
unsigned front_grace_look(struct front_grace *g, const uint64_t *turn);
/** The workers have ended: frees everything. */
void front_grace_end(struct front_grace *g);
