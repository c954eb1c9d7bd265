/* SPDX-License-Identifier: Apache-2.0 */
/** \file Datagrams that carry nothing which verifies, waiting until there is time for them: a queue of fixed size, in which every share (a
 * tenant) has its own line and its turn. Buffers change hands, bytes are not copied. Pure; one thread's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "front/io.h"

#define STRANGERS_MAX 65536u

struct strangers;

/** max: how many may wait, 1 to STRANGERS_MAX; per_s: how many may be taken, a tenth of a second's worth at once; 0: no limit. With a limit
 * no more wait than are taken in a quarter of a second: nobody is to wait so long that he has asked again meanwhile. bytes: of each buffer.
 * \return 0, -EINVAL, -ENOMEM. */
int strangers_new(unsigned max, unsigned per_s, unsigned shares, size_t bytes, struct strangers **out);
void strangers_free(struct strangers *s);

/**
 * Puts *p at the end of its share's line, and in exchange gives it another buffer. When all places are taken, one datagram is dropped: the
 * first of the longest line if this share has less than its part of the places, else *p itself, which stays as it is.
 * Which of a line is dropped does not matter to those who repeat their request (RFC 3261 17.1.1.2): the last to come is as good as any, and
 * cheapest. \return whether nobody was dropped.
 */
bool strangers_put(struct strangers *s, struct front_packet *p, unsigned port, unsigned share);
/** The next, one of each share in turn; NULL: nobody waits, or more would be too many. Valid until strangers_take is called again. */
const struct front_packet *strangers_take(struct strangers *s, uint64_t now_ms, unsigned *port);
unsigned strangers_count(const struct strangers *s);
