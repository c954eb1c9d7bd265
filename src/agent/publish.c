/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/publish.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define BUSY_TICK_MS    100u
#define IDLE_TICK_MS    1000u
#define DATA_TIMEOUT_MS 30000u
#define RETRY_MIN_MS    1000u
#define RETRY_MAX_MS    60000u
#define ROTATE_KEYS_MAX 1000u

struct sub {
	bool on;
	struct update_head held;
	bool waiting; /* data is under way */
	uint64_t sent_ms;
	struct chain_snapshot *snapshot;
	bool stated;          /* was sent a heartbeat since it first held everything */
	bool snapshot_needed; /* a change that should have followed was refused */
	bool said_ahead;
	uint64_t not_before_ms, retry_ms; /* after refusals */
};

struct waiter {
	struct waiter *next;
	uint64_t seq, deadline_ms;
	publish_done cb;
	void *arg;
};

struct publish {
	struct chain *chain;
	const struct publish_ops *ops;
	void *arg;
	struct agent_counters *counters;
	uint32_t keys_per_s;
	int64_t tokens_milli; /* keys that may go now, in thousandths; below zero: a debt */
	uint64_t tokens_ms;
	struct waiter *waiters;
	unsigned nsubs;
	uint8_t buf[UPDATE_BYTES_MAX];
	struct sub subs[];
};

static void refill(struct publish *p, uint64_t now)
{
	int64_t cap = (int64_t)p->keys_per_s * 1000;
	uint64_t dt = now - p->tokens_ms;

	if (p->tokens_ms == 0 || dt > 10000)
		dt = p->tokens_ms == 0 ? 1000 : 10000;
	p->tokens_ms = now;
	p->tokens_milli += (int64_t)(dt * p->keys_per_s);
	if (p->tokens_milli > cap)
		p->tokens_milli = cap;
}

static void spend(struct publish *p, uint32_t keys)
{
	p->tokens_milli -= (int64_t)keys * 1000;
	p->counters->n[COUNT_feed_keys_sent] += keys;
}

static void check_waiters(struct publish *p, uint64_t now)
{
	struct waiter **at = &p->waiters;

	while (*at != NULL) {
		struct waiter *w = *at;
		unsigned of = 0, confirmed = 0;

		for (unsigned i = 0; i < p->nsubs; i++) {
			of += p->subs[i].on;
			confirmed += p->subs[i].on && p->subs[i].held.seq >= w->seq;
		}
		if (confirmed < of && now < w->deadline_ms) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->cb(confirmed, of, w->arg);
		free(w);
	}
}

static void snapshot_end(struct sub *s)
{
	chain_snapshot_close(s->snapshot);
	s->snapshot = NULL;
}

static void back_off(struct sub *s, uint64_t now)
{
	s->retry_ms = s->retry_ms == 0 ? RETRY_MIN_MS : s->retry_ms * 2 < RETRY_MAX_MS ? s->retry_ms * 2 : RETRY_MAX_MS;
	s->not_before_ms = now + s->retry_ms;
}

static bool same_head(const struct update_head *a, const struct update_head *b)
{
	return a->seq == b->seq && memcmp(a->hash, b->hash, sizeof(a->hash)) == 0;
}

static bool at_head(const struct publish *p, const struct sub *s)
{
	struct update_head head;

	chain_head(p->chain, &head);
	return same_head(&s->held, &head);
}

static void send_data(struct publish *p, unsigned front, struct span msg, uint32_t keys, uint64_t now)
{
	struct sub *s = &p->subs[front];

	if (p->ops->send(p->arg, front, PUBLISH_DATA, msg) < 0) {
		back_off(s, now); /* the connection is full or going: it is tried again, or lost */
		snapshot_end(s);
		return;
	}
	s->waiting = true;
	s->sent_ms = now;
	spend(p, keys);
}

static void send_chunk(struct publish *p, unsigned front, uint64_t now)
{
	struct sub *s = &p->subs[front];
	struct update_head whole;
	uint32_t keys;
	long n = chain_snapshot_next(s->snapshot, p->buf, sizeof(p->buf), &keys);

	if (n > 0) {
		send_data(p, front, span_of(p->buf, (size_t)n), keys, now);
		return;
	}
	if (n < 0)
		wn_err("feed: cannot make a snapshot: %s", strerror((int)-n));
	chain_snapshot_head(s->snapshot, &whole);
	/* A front that took it all and says that it does not hold it would be sent it for ever. */
	if (n < 0 || !same_head(&s->held, &whole))
		back_off(s, now);
	snapshot_end(s);
}

/* Sends the one thing that this front needs next, if it may go now. */
static void pump(struct publish *p, unsigned front, uint64_t now, uint64_t unix_ms)
{
	struct sub *s = &p->subs[front];
	struct chain_message m;
	struct update_head head;

	if (!s->on || s->waiting || now < s->not_before_ms)
		return;
	if (s->snapshot != NULL) {
		if (p->tokens_milli > 0)
			send_chunk(p, front, now);
		if (s->snapshot != NULL || now < s->not_before_ms)
			return;
	}
	if (at_head(p, s)) {
		/* What it holds may be old news to it: it answers nobody before it has heard the time. */
		if (!s->stated)
			s->stated = publish_heartbeat(p, unix_ms, front) == 0;
		return;
	}
	chain_head(p->chain, &head);
	if (s->held.seq > head.seq) {
		if (!s->said_ahead)
			wn_err("feed: front %u holds update %" PRIu64 ", the database only has %" PRIu64
			       ": was it restored from a copy? Restart that front "
			       "to begin anew",
			       front, s->held.seq, head.seq);
		s->said_ahead = true;
		count(p->counters, COUNT_feed_front_ahead);
		back_off(s, now);
		return;
	}
	if (!s->snapshot_needed && chain_following(p->chain, &s->held, &m)) {
		if (m.bulk && p->tokens_milli <= 0)
			return;
		count(p->counters, COUNT_feed_changes);
		send_data(p, front, m.bytes, m.keys, now);
		return;
	}
	if (p->tokens_milli <= 0)
		return;
	if (chain_snapshot_open(p->chain, unix_ms, &s->snapshot) < 0) {
		back_off(s, now);
		return;
	}
	s->snapshot_needed = false;
	count(p->counters, COUNT_feed_snapshots);
	send_chunk(p, front, now);
}

int publish_new(struct chain *chain, unsigned nfronts, uint32_t keys_per_s, const struct publish_ops *ops, void *arg,
		struct agent_counters *counters, struct publish **out)
{
	struct publish *p = calloc(1, sizeof(*p) + nfronts * sizeof(p->subs[0]));

	*out = p;
	if (p == NULL)
		return -ENOMEM;
	p->chain = chain;
	p->ops = ops;
	p->arg = arg;
	p->counters = counters;
	p->keys_per_s = keys_per_s;
	p->nsubs = nfronts;
	return 0;
}

void publish_free(struct publish *p)
{
	if (p == NULL)
		return;
	for (unsigned i = 0; i < p->nsubs; i++)
		snapshot_end(&p->subs[i]);
	while (p->waiters != NULL) {
		struct waiter *w = p->waiters;

		p->waiters = w->next;
		w->cb(0, 0, w->arg);
		free(w);
	}
	free(p);
}

void publish_registered(struct publish *p, uint64_t now_ms, uint64_t unix_ms, unsigned front, const struct update_head *held)
{
	struct sub *s = &p->subs[front];

	snapshot_end(s);
	*s = (struct sub){.on = true, .held = *held};
	refill(p, now_ms);
	pump(p, front, now_ms, unix_ms);
	check_waiters(p, now_ms);
}

void publish_lost(struct publish *p, uint64_t now_ms, unsigned front)
{
	snapshot_end(&p->subs[front]);
	p->subs[front] = (struct sub){0};
	check_waiters(p, now_ms);
}

/* Data was answered. */
static void settle(struct publish *p, uint64_t now, unsigned front, bool ok, const struct update_head *held)
{
	struct sub *s = &p->subs[front];
	bool was_snapshot = s->snapshot != NULL;
	bool moved = held != NULL && !same_head(held, &s->held);

	s->waiting = false;
	if (held != NULL)
		s->held = *held;
	/* Only the last chunk of a snapshot moves the front's head, but every change must. */
	if (ok && held != NULL && (moved || was_snapshot)) {
		if (moved)
			s->retry_ms = 0;
		return;
	}
	count(p->counters, COUNT_feed_refused);
	snapshot_end(s);
	/* A change that follows what the front says it holds, refused: only a snapshot is left. That refused as well: later again. */
	if (was_snapshot || s->snapshot_needed)
		back_off(s, now);
	else if (!moved)
		s->snapshot_needed = true;
}

void publish_answered(struct publish *p, uint64_t now_ms, uint64_t unix_ms, unsigned front, enum publish_kind kind, unsigned status,
		      const struct update_head *held)
{
	struct sub *s = &p->subs[front];
	bool ok = status >= 200 && status < 300;

	if (!s->on)
		return;
	if (kind == PUBLISH_DATA && s->waiting)
		settle(p, now_ms, front, ok, held);
	else if (kind == PUBLISH_HEARTBEAT && !s->waiting && s->snapshot == NULL && held != NULL)
		s->held = *held;
	refill(p, now_ms);
	pump(p, front, now_ms, unix_ms);
	check_waiters(p, now_ms);
}

int publish_heartbeat(struct publish *p, uint64_t unix_ms, unsigned front)
{
	uint8_t buf[512];
	long n = chain_heartbeat(p->chain, unix_ms, buf, sizeof(buf));

	if (n < 0)
		return (int)n;
	return p->ops->send(p->arg, front, PUBLISH_HEARTBEAT, span_of(buf, (size_t)n));
}

/* A rotation goes on when every front that follows the chain has what was appended before: it never runs ahead of them. */
static bool fronts_follow(const struct publish *p)
{
	for (unsigned i = 0; i < p->nsubs; i++) {
		const struct sub *s = &p->subs[i];

		if (s->on && s->snapshot == NULL && s->retry_ms == 0 && !at_head(p, s))
			return false;
	}
	return true;
}

static void rotate(struct publish *p, uint64_t unix_ms)
{
	uint32_t batch = p->keys_per_s / (1000 / BUSY_TICK_MS);
	long n;

	if (p->tokens_milli <= 0 || !fronts_follow(p) || !chain_rotation_due(p->chain, unix_ms))
		return;
	if (batch > ROTATE_KEYS_MAX)
		batch = ROTATE_KEYS_MAX;
	n = chain_rotate(p->chain, unix_ms, batch);
	if (n < 0)
		wn_err("feed: cannot append the next epoch's keys: %s", strerror((int)-n));
}

uint64_t publish_tick(struct publish *p, uint64_t now_ms, uint64_t unix_ms)
{
	bool busy;

	refill(p, now_ms);
	rotate(p, unix_ms);
	busy = chain_rotation_due(p->chain, unix_ms);
	for (unsigned i = 0; i < p->nsubs; i++) {
		struct sub *s = &p->subs[i];

		if (s->on && s->waiting && now_ms - s->sent_ms > DATA_TIMEOUT_MS)
			settle(p, now_ms, i, false, NULL);
		pump(p, i, now_ms, unix_ms);
		busy = busy || (s->on && !at_head(p, s));
	}
	check_waiters(p, now_ms);
	return now_ms + (busy || p->waiters != NULL ? BUSY_TICK_MS : IDLE_TICK_MS);
}

bool publish_held(const struct publish *p, unsigned front, struct update_head *out)
{
	if (!p->subs[front].on)
		return false;
	*out = p->subs[front].held;
	return true;
}

int publish_wait(struct publish *p, uint64_t now_ms, uint64_t seq, uint64_t deadline_ms, publish_done cb, void *arg)
{
	struct waiter *w = malloc(sizeof(*w));

	if (w == NULL)
		return -ENOMEM;
	*w = (struct waiter){.next = p->waiters, .seq = seq, .deadline_ms = deadline_ms, .cb = cb, .arg = arg};
	p->waiters = w;
	check_waiters(p, now_ms);
	return 0;
}

void publish_forget(struct publish *p, const void *arg)
{
	for (struct waiter **at = &p->waiters; *at != NULL; at = &(*at)->next) {
		struct waiter *w = *at;

		if (w->arg == arg) {
			*at = w->next;
			free(w);
			return;
		}
	}
}
