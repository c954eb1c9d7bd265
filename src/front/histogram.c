/* SPDX-License-Identifier: Apache-2.0 */
#include "front/histogram.h"

#define STEP_BITS 2u
_Static_assert(HISTOGRAM_STEPS == 1u << STEP_BITS, "a step is told by the bits behind the highest");
_Static_assert(HISTOGRAM_FIRST_BITS >= STEP_BITS, "there are such bits");

unsigned histogram_bucket(uint64_t ns)
{
	unsigned bits;

	if (ns < UINT64_C(1) << HISTOGRAM_FIRST_BITS)
		return 0;
	bits = 63u - (unsigned)__builtin_clzll(ns);
	if (bits >= HISTOGRAM_LAST_BITS)
		return HISTOGRAM_BUCKETS - 1;
	return 1 + (bits - HISTOGRAM_FIRST_BITS) * HISTOGRAM_STEPS + (unsigned)(ns >> (bits - STEP_BITS) & (HISTOGRAM_STEPS - 1));
}

uint64_t histogram_bound(unsigned bucket)
{
	unsigned bits, step;

	if (bucket >= HISTOGRAM_BUCKETS - 1)
		return UINT64_MAX;
	if (bucket == 0)
		return UINT64_C(1) << HISTOGRAM_FIRST_BITS;
	bits = HISTOGRAM_FIRST_BITS + (bucket - 1) / HISTOGRAM_STEPS;
	step = (bucket - 1) % HISTOGRAM_STEPS;
	return (uint64_t)(HISTOGRAM_STEPS + step + 1) << (bits - STEP_BITS);
}

/* One writer: a load and a store are enough, and cheaper than a locked addition. */
static void add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

void histogram_add(struct histogram *h, uint64_t ns)
{
	add(&h->bucket[histogram_bucket(ns)], 1);
	add(&h->sum_ns, ns);
}

void histogram_merge(struct histogram_sum *to, const struct histogram *h)
{
	for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++) {
		uint64_t n = atomic_load_explicit(&h->bucket[i], memory_order_relaxed);

		to->bucket[i] += n;
		to->count += n;
	}
	to->sum_ns += atomic_load_explicit(&h->sum_ns, memory_order_relaxed);
}

uint64_t histogram_below(const struct histogram_sum *s, unsigned bits)
{
	unsigned end = 1 + (bits - HISTOGRAM_FIRST_BITS) * HISTOGRAM_STEPS;
	uint64_t n = 0;

	for (unsigned i = 0; i < end && i < HISTOGRAM_BUCKETS; i++)
		n += s->bucket[i];
	return n;
}
