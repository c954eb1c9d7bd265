/* SPDX-License-Identifier: Apache-2.0 */
#include "front/strangers.h"

#include <errno.h>
#include <stdlib.h>

#define NONE UINT32_MAX

struct place {
	struct front_packet packet;
	unsigned port;
	uint32_t next;
};

struct line {
	uint32_t first, last, count;
	uint32_t next; /* in the circle of lines that are not empty */
};

struct strangers {
	unsigned max, per_s, shares, count, active;
	uint64_t paid_us;    /* up to when per_s is used up */
	uint32_t turn;       /* the line that was served last: its next one's turn is next; NONE: all are empty */
	uint32_t free;       /* places; the last one freed first, as its buffer is still in the cache */
	uint32_t taken;      /* what strangers_take has handed out */
	struct place *place; /* max + 1 */
	struct line *line;
	char *mem;
};

#define AT_ONCE_US 100000u

int strangers_new(unsigned max, unsigned per_s, unsigned shares, size_t bytes, struct strangers **out)
{
	struct strangers *s;

	if (max == 0 || max > STRANGERS_MAX || shares == 0)
		return -EINVAL;
	s = calloc(1, sizeof(*s));
	if (s == NULL)
		return -ENOMEM;
	if (per_s != 0 && max > per_s / 4)
		max = per_s / 4 + 1;
	s->max = max;
	s->per_s = per_s;
	s->shares = shares;
	s->turn = s->taken = NONE;
	s->place = calloc(max + 1, sizeof(*s->place));
	s->line = calloc(shares, sizeof(*s->line));
	s->mem = malloc((max + 1) * bytes);
	if (s->place == NULL || s->line == NULL || s->mem == NULL) {
		strangers_free(s);
		return -ENOMEM;
	}
	for (unsigned i = 0; i <= max; i++) {
		s->place[i].packet.data = s->mem + i * bytes;
		s->place[i].next = i < max ? i + 1 : NONE;
	}
	*out = s;
	return 0;
}

void strangers_free(struct strangers *s)
{
	if (s == NULL)
		return;
	free(s->place);
	free(s->line);
	free(s->mem);
	free(s);
}

unsigned strangers_count(const struct strangers *s)
{
	return s->count;
}

static void append(struct strangers *s, uint32_t share, uint32_t at)
{
	struct line *l = &s->line[share];

	s->place[at].next = NONE;
	if (l->count++ > 0) {
		s->place[l->last].next = at;
	} else {
		l->first = at;
		s->active++;
		/* last in the circle: everybody who waits already comes first */
		if (s->turn == NONE) {
			l->next = share;
		} else {
			l->next = s->line[s->turn].next;
			s->line[s->turn].next = share;
		}
		s->turn = share;
	}
	l->last = at;
	s->count++;
}

/* Takes the first of the line behind `before` in the circle. */
static uint32_t shift(struct strangers *s, uint32_t before)
{
	uint32_t share = s->line[before].next, at;
	struct line *l = &s->line[share];

	at = l->first;
	l->first = s->place[at].next;
	s->count--;
	if (--l->count > 0)
		return at;
	s->active--;
	s->line[before].next = l->next;
	if (s->active == 0)
		s->turn = NONE;
	else if (s->turn == share)
		s->turn = before;
	return at;
}

static uint32_t shift_longest(struct strangers *s)
{
	uint32_t best = s->turn;

	/* `at` stands for the line behind it */
	for (uint32_t i = 0, at = s->turn; i < s->active; i++, at = s->line[at].next)
		if (s->line[s->line[at].next].count > s->line[s->line[best].next].count)
			best = at;
	return shift(s, best);
}

bool strangers_put(struct strangers *s, struct front_packet *p, unsigned port, unsigned share)
{
	struct line *l = &s->line[share < s->shares ? share : s->shares - 1];
	const bool full = s->count == s->max;
	struct front_packet other;
	uint32_t at;

	if (full) {
		/* its part, had it a line: places over lines, the new one among them */
		if ((l->count + 1) * (s->active + (l->count == 0)) > s->max)
			return false;
		at = shift_longest(s);
	} else {
		at = s->free;
		s->free = s->place[at].next;
	}
	other = s->place[at].packet;
	s->place[at].packet = *p;
	s->place[at].port = port;
	*p = other;
	append(s, (uint32_t)(l - s->line), at);
	return !full;
}

static bool due(struct strangers *s, uint64_t now_us)
{
	if (s->per_s == 0)
		return true;
	if (s->paid_us + AT_ONCE_US < now_us)
		s->paid_us = now_us - AT_ONCE_US;
	if (s->paid_us >= now_us)
		return false;
	s->paid_us += (1000000u + s->per_s - 1) / s->per_s;
	return true;
}

const struct front_packet *strangers_take(struct strangers *s, uint64_t now_ms, unsigned *port)
{
	uint32_t at, served;

	if (s->taken != NONE) {
		s->place[s->taken].next = s->free;
		s->free = s->taken;
		s->taken = NONE;
	}
	if (s->count == 0 || !due(s, now_ms * 1000))
		return NULL;
	served = s->line[s->turn].next;
	at = shift(s, s->turn);
	/* an empty line has left the circle; the one before it stands where it stood */
	if (s->line[served].count > 0)
		s->turn = served;
	s->taken = at;
	*port = s->place[at].port;
	return &s->place[at].packet;
}
