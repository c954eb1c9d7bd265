/* SPDX-License-Identifier: Apache-2.0 */
#include "front/why.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_MS 128u

/* What a ring takes in a window. */
static const unsigned most[FRONT_WHY_RINGS] = {[FRONT_WHY_PROVEN] = 64, [FRONT_WHY_ANSWERED] = 32, [FRONT_WHY_STRANGER] = 8};

struct ring {
	pthread_mutex_t lock;
	unsigned next, n;
	uint64_t window; /* the owner's, like taken */
	unsigned taken;
	_Atomic uint64_t left_out;
	struct front_denial kept[FRONT_WHY_KEPT];
};

struct front_why {
	struct ring ring[FRONT_WHY_RINGS];
};

int front_why_new(struct front_why **out)
{
	struct front_why *w = malloc(sizeof(*w));

	if (w == NULL)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	for (unsigned i = 0; i < FRONT_WHY_RINGS; i++)
		pthread_mutex_init(&w->ring[i].lock, NULL);
	*out = w;
	return 0;
}

void front_why_free(struct front_why *w)
{
	if (w == NULL)
		return;
	for (unsigned i = 0; i < FRONT_WHY_RINGS; i++)
		pthread_mutex_destroy(&w->ring[i].lock);
	free(w);
}

enum front_why_ring front_why_ring_of(enum front_outcome o, bool trusted)
{
	switch (o) {
	case FRONT_keepalive:
	case FRONT_first_bytes:
	case FRONT_response:
	case FRONT_ack_absorbed:
	case FRONT_cancel_ignored:
	case FRONT_challenged:
	case FRONT_retransmission:
	case FRONT_forwarded:
	case FRONT_forwarded_open:
	case FRONT_hop_repeated:
	case FRONT_forwarded_in_dialog:
	case FRONT_cancelled:
	case FRONT_relayed_response:
	case FRONT_relayed_request:
	case FRONT_response_dropped:
		return FRONT_WHY_RINGS;
	case FRONT_unknown_user:
	case FRONT_digest:
	case FRONT_uri_mismatch:
	case FRONT_nonce_exhausted:
	case FRONT_replay:
		return FRONT_WHY_ANSWERED;
	default:
		return trusted ? FRONT_WHY_PROVEN : FRONT_WHY_STRANGER;
	}
}

static uint8_t keep(char to[static FRONT_WHY_TEXT], struct span s)
{
	size_t n = s.n < FRONT_WHY_TEXT ? s.n : FRONT_WHY_TEXT;

	if (n > 0)
		memcpy(to, s.p, n);
	return (uint8_t)n;
}

void front_denial_names(struct front_denial *d, struct span call_id, struct span user)
{
	d->call_id_n = keep(d->call_id, call_id);
	d->cut = call_id.n > FRONT_WHY_TEXT;
	d->user_n = keep(d->user, user);
}

static void leave_out(struct ring *r)
{
	atomic_store_explicit(&r->left_out, atomic_load_explicit(&r->left_out, memory_order_relaxed) + 1, memory_order_relaxed);
}

bool front_why_room(struct front_why *w, enum front_why_ring ring, uint64_t now_ms)
{
	struct ring *r = &w->ring[ring];

	if (now_ms / WINDOW_MS != r->window) {
		r->window = now_ms / WINDOW_MS;
		r->taken = 0;
	}
	if (r->taken < most[ring])
		return true;
	leave_out(r);
	return false;
}

void front_why_note(struct front_why *w, enum front_why_ring ring, const struct front_denial *d)
{
	struct ring *r = &w->ring[ring];

	if (!front_why_room(w, ring, d->at_ms))
		return;
	if (pthread_mutex_trylock(&r->lock) != 0) {
		leave_out(r);
		return;
	}
	r->taken++;
	r->kept[r->next] = *d;
	r->next = (r->next + 1) % FRONT_WHY_KEPT;
	if (r->n < FRONT_WHY_KEPT)
		r->n++;
	pthread_mutex_unlock(&r->lock);
}

unsigned front_why_read(struct front_why *w, enum front_why_ring ring, struct front_denial out[static FRONT_WHY_KEPT])
{
	struct ring *r = &w->ring[ring];
	unsigned n;

	pthread_mutex_lock(&r->lock);
	n = r->n;
	for (unsigned i = 0; i < n; i++)
		out[i] = r->kept[(r->next + FRONT_WHY_KEPT - 1 - i) % FRONT_WHY_KEPT];
	pthread_mutex_unlock(&r->lock);
	return n;
}

uint64_t front_why_left_out(const struct front_why *w, enum front_why_ring ring)
{
	return atomic_load_explicit(&w->ring[ring].left_out, memory_order_relaxed);
}

bool front_denial_is_about(const struct front_denial *d, struct span what)
{
	if (what.n == d->user_n && what.n > 0 && memcmp(what.p, d->user, what.n) == 0)
		return true;
	if (d->call_id_n == 0 || what.n < d->call_id_n || memcmp(what.p, d->call_id, d->call_id_n) != 0)
		return false;
	return what.n == d->call_id_n || d->cut;
}
