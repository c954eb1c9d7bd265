/* SPDX-License-Identifier: Apache-2.0 */
/** \file Who has failed too often of late to be served before strangers: addresses and tokens by a keyed hash, in a table of fixed size.
 * Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FAILURES_BURST   4u    /* so many at once change nothing */
#define FAILURES_EACH_MS 1000u /* one is forgiven in this time */
#define FAILURES_MOST    8u    /* no more are remembered: who stops failing is forgiven soon */

struct failures;

/** entries is rounded up to a power of two; one thread's. \return 0, -EINVAL, -ENOMEM. */
int failures_new(uint32_t entries, struct failures **out);
void failures_free(struct failures *f);

/** Counts one against `key`, a keyed hash. A set that is full forgets whoever is forgiven first. */
void failures_add(struct failures *f, uint64_t key, uint64_t now_ms);
/** Whether the key has failed FAILURES_BURST times and is not forgiven yet. Costs next to nothing when nobody has failed lately. */
bool failures_over(const struct failures *f, uint64_t key, uint64_t now_ms);
