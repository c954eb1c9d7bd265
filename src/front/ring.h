/* SPDX-License-Identifier: Apache-2.0 */
/** \file Messages from one thread to one other: a bounded ring of bytes, no lock, no allocation after the start. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"

struct front_ring;

/** bytes: a power of two, at least 64 KiB. \return 0, -EINVAL, -ENOMEM. */
int front_ring_new(size_t bytes, struct front_ring **out);
void front_ring_free(struct front_ring *r);

/** The sending thread. Copies; false when it does not fit. */
bool front_ring_push(struct front_ring *r, unsigned tenant, struct span msg);
/** The sending thread: whether a message of n bytes would fit. */
bool front_ring_room(struct front_ring *r, size_t n);

/** The receiving thread: the oldest message, valid until front_ring_next. False: none. */
bool front_ring_peek(struct front_ring *r, unsigned *tenant, struct span *msg);
void front_ring_next(struct front_ring *r);
