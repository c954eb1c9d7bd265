/* SPDX-License-Identifier: Apache-2.0 */
/** \file How much an authenticated peer may ask for: rates by key, in a table of fixed size shared by all workers. */
#pragma once

#include <stdint.h>

struct budgets;

/** entries is rounded up to a power of two. \return 0, -EINVAL, -ENOMEM. */
int budgets_new(uint32_t entries, struct budgets **out);
void budgets_free(struct budgets *b);

/** Takes one from the budget of `key`, a keyed hash: per_s a second, as many at once after a second's rest. per_s 0: no limit.
 * A set that is full forgets the key that is nearest to being idle. Any thread, briefly locked.
 * \return 0, or in how many milliseconds there will be one. */
uint32_t budget_take(struct budgets *b, uint64_t key, uint32_t per_s, uint64_t now_ms);
