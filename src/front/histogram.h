/* SPDX-License-Identifier: Apache-2.0 */
/** \file How long things took: buckets in a logarithmic order of four to each doubling, fixed size, no allocation. Pure.
 *
 * One thread adds; any thread may read meanwhile and sees each number whole, though perhaps not all of one moment. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#define HISTOGRAM_FIRST_BITS 6u  /* below 2^6 ns everything is one bucket */
#define HISTOGRAM_LAST_BITS  36u /* 2^36 ns = 68.7 s and more: the last one */
#define HISTOGRAM_STEPS      4u  /* buckets to a doubling */
#define HISTOGRAM_BUCKETS    (2u + HISTOGRAM_STEPS * (HISTOGRAM_LAST_BITS - HISTOGRAM_FIRST_BITS))

struct histogram {
	_Atomic uint64_t bucket[HISTOGRAM_BUCKETS];
	_Atomic uint64_t sum_ns;
};

/** What was added up of one or several of them. */
struct histogram_sum {
	uint64_t bucket[HISTOGRAM_BUCKETS];
	uint64_t count, sum_ns;
};

/** The owner's thread. */
void histogram_add(struct histogram *h, uint64_t ns);

/** Adds h to what is there. Any thread. The count is the buckets' sum, so that they never contradict each other. */
void histogram_merge(struct histogram_sum *to, const struct histogram *h);

/** Which bucket takes a time. */
unsigned histogram_bucket(uint64_t ns);
/** The first time that is too long for a bucket, in nanoseconds; UINT64_MAX for the last. */
uint64_t histogram_bound(unsigned bucket);
/** How many took less than 2^bits ns, HISTOGRAM_FIRST_BITS to HISTOGRAM_LAST_BITS: exact, because every doubling is a bound. */
uint64_t histogram_below(const struct histogram_sum *s, unsigned bits);
