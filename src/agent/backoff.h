/* SPDX-License-Identifier: Apache-2.0 */
/** \file Keeping a connection up. How long to wait before the next attempt: 100 ms doubling to 1 s, jittered so that many agents do not
 * come at once. */
#pragma once

#include <errno.h>
#include <sodium.h>
#include <stdint.h>
#include <string.h>

#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 1000u
#define ATTEMPT_MS     3000u /* one attempt: a fresh SYN finds a network that has come back sooner than an old one's third repeat */

struct backoff {
	uint32_t ms; /* 0: start again */
};

/** Between half and the whole of the present step. */
static inline uint64_t backoff_next(struct backoff *b)
{
	uint32_t step = b->ms != 0 ? b->ms : BACKOFF_MIN_MS;

	b->ms = step * 2 < BACKOFF_MAX_MS ? step * 2 : BACKOFF_MAX_MS;
	return step / 2 + randombytes_uniform(step / 2 + 1);
}

/** Why a connection ended, for the log. */
static inline const char *down_reason(int reason)
{
	if (reason == 0)
		return "closed by the other side";
	if (reason == -EACCES)
		return "its key is not the pinned one, or ours is not its";
	return strerror(-reason);
}
