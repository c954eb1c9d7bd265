/* SPDX-License-Identifier: Apache-2.0 */
#include "front/ring.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Records do not wrap: one that would is preceded by a skip to the ring's beginning. */
#define SKIP UINT32_MAX

struct head {
	uint32_t n; /* bytes, or SKIP */
	uint32_t tenant;
};

struct front_ring {
	_Atomic size_t in __attribute__((aligned(64)));  /* written by the sender; counts bytes, never wraps */
	_Atomic size_t out __attribute__((aligned(64))); /* written by the receiver */
	size_t bytes;
	uint8_t *p;
};

static size_t padded(size_t n)
{
	return (sizeof(struct head) + n + 7) & ~(size_t)7;
}

int front_ring_new(size_t bytes, struct front_ring **out)
{
	struct front_ring *r;

	if (bytes < 65536 || (bytes & (bytes - 1)) != 0)
		return -EINVAL;
	if (posix_memalign((void **)&r, 64, sizeof(*r)) != 0)
		return -ENOMEM;
	memset(r, 0, sizeof(*r));
	r->bytes = bytes;
	r->p = malloc(bytes);
	if (r->p == NULL) {
		free(r);
		return -ENOMEM;
	}
	*out = r;
	return 0;
}

void front_ring_free(struct front_ring *r)
{
	if (r == NULL)
		return;
	/* session keys passed through */
	explicit_bzero(r->p, r->bytes);
	free(r->p);
	free(r);
}

bool front_ring_room(struct front_ring *r, size_t n)
{
	size_t in = atomic_load_explicit(&r->in, memory_order_relaxed);
	size_t used = in - atomic_load_explicit(&r->out, memory_order_acquire);
	size_t end = r->bytes - (in & (r->bytes - 1));

	return padded(n) + (padded(n) > end ? end : 0) <= r->bytes - used;
}

bool front_ring_push(struct front_ring *r, unsigned tenant, struct span msg)
{
	size_t in = atomic_load_explicit(&r->in, memory_order_relaxed);
	size_t end = r->bytes - (in & (r->bytes - 1));
	struct head h = {(uint32_t)msg.n, tenant};

	if (msg.n >= r->bytes / 2 || !front_ring_room(r, msg.n))
		return false;
	if (padded(msg.n) > end) {
		struct head skip = {SKIP, 0};
		memcpy(r->p + (in & (r->bytes - 1)), &skip, sizeof(skip));
		in += end;
	}
	memcpy(r->p + (in & (r->bytes - 1)), &h, sizeof(h));
	if (msg.n > 0)
		memcpy(r->p + (in & (r->bytes - 1)) + sizeof(h), msg.p, msg.n);
	atomic_store_explicit(&r->in, in + padded(msg.n), memory_order_release);
	return true;
}

bool front_ring_peek(struct front_ring *r, unsigned *tenant, struct span *msg)
{
	size_t out = atomic_load_explicit(&r->out, memory_order_relaxed);
	struct head h;

	if (out == atomic_load_explicit(&r->in, memory_order_acquire))
		return false;
	memcpy(&h, r->p + (out & (r->bytes - 1)), sizeof(h));
	if (h.n == SKIP) {
		out += r->bytes - (out & (r->bytes - 1));
		atomic_store_explicit(&r->out, out, memory_order_release);
		memcpy(&h, r->p, sizeof(h));
	}
	*tenant = h.tenant;
	*msg = span_of(r->p + (out & (r->bytes - 1)) + sizeof(h), h.n);
	return true;
}

void front_ring_next(struct front_ring *r)
{
	size_t out = atomic_load_explicit(&r->out, memory_order_relaxed);
	struct head h;

	memcpy(&h, r->p + (out & (r->bytes - 1)), sizeof(h));
	atomic_store_explicit(&r->out, out + padded(h.n), memory_order_release);
}
