/* SPDX-License-Identifier: Apache-2.0 */
/** \file How long things took: a histogram whose steps are a sixteenth of a power of two. */
#pragma once

#include <stdint.h>

#define LOAD_HIST_STEPS 1024u

struct load_hist {
	uint64_t n, step[LOAD_HIST_STEPS];
};

static inline void load_hist_add(struct load_hist *h, uint64_t ns)
{
	unsigned top = 63u - (unsigned)__builtin_clzll(ns | 16), at = (top - 4) * 16 + (unsigned)(ns >> (top - 4) & 15u);

	h->step[at < LOAD_HIST_STEPS ? at : LOAD_HIST_STEPS - 1]++;
	h->n++;
}

/** The upper end of the step in which that share is reached; 0 when there is nothing. */
static inline double load_hist_ms(const struct load_hist *h, double share)
{
	uint64_t want = (uint64_t)(share * (double)h->n), sum = 0;

	if (h->n == 0)
		return 0;
	want = want < 1 ? 1 : want;
	for (unsigned i = 0; i < LOAD_HIST_STEPS; i++) {
		sum += h->step[i];
		if (sum >= want)
			return (double)((i % 16 + 17) * (1ull << (i / 16))) / 1e6;
	}
	return 0;
}
