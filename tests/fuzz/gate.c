/* SPDX-License-Identifier: Apache-2.0 */
/* Frames for the gate's packet path, compiled as an ordinary program, beside a table with one of everything. It never reads beyond the
 * frame (sanitizers), it does what the reference says, and what it sends on belongs to a hole or a session.
 *
 * The first byte chooses: 0xff: the rest are choices of a walk from empty tables. Else frames follow, each as a byte of kind, two of
 * length, and so many bytes. kind, bit 0: the side. Bits 1 to 5: 0 nothing is put in; 1 to 8 the addresses and ports of one of the table's
 * ends; 9 and more: the bytes are offset (2) and byte triples that change a frame which that end would send next. */
#include <string.h>

#include "fuzz.h"
#include "gate_prepare.h"
#include "gate_walk_user.h"

static struct round r;

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* As far as the frame goes. */
static void put_ends(struct frame *f, enum gm_side side, const struct prepared_ends *e)
{
	if (f->n >= 14) {
		memcpy(f->p, walk_net()->mac[side], 6);
		put16(f->p + 12, 0x0800);
	}
	if (f->n >= 34) {
		f->p[23] = e->proto;
		put32(f->p + 26, e->src);
		put32(f->p + 30, e->dst);
	}
	if (f->n >= 42 && e->proto == 1) {
		put16(f->p + 38, e->sport);
	} else if (f->n >= 42) {
		put16(f->p + 34, e->sport);
		put16(f->p + 36, e->dport);
	}
}

static void make(struct frame *f, uint8_t kind, struct span bytes)
{
	const enum gm_side side = kind & 1 ? GM_INSIDE : GM_OUTSIDE;
	const unsigned how = kind >> 1 & 31;
	struct prepared_ends e;

	if (how > PREPARED_N) {
		prepared_next(&r, (enum prepared)((how - 1) % PREPARED_N), side, f);
		for (; bytes.n >= 3; take(&bytes, 3)) {
			const size_t at = (size_t)((uint8_t)bytes.p[0] << 8 | (uint8_t)bytes.p[1]);

			if (at < f->n)
				f->p[at] = (uint8_t)bytes.p[2];
			else if (at >= 0x8000 && at - 0x8000 >= 14 && at - 0x8000 < sizeof(f->p)) /* cut, or longer by zeroes */
				f->n = at - 0x8000;
		}
		return;
	}
	memset(f->p, 0, sizeof(f->p));
	f->n = bytes.n < 14 ? 14 : bytes.n < 1600 ? bytes.n : 1600;
	memcpy(f->p, bytes.p, bytes.n < f->n ? bytes.n : f->n);
	if (how != 0) {
		struct frame next;

		e = prepared_next(&r, (enum prepared)(how - 1), side, &next);
		put_ends(f, side, &e);
	}
}

/* Said once more without the reference's order of checks: nothing reaches the inside but through what was granted or opened. */
static void belongs(const struct step *st)
{
	const uint32_t dst = get32(st->frame + 30);
	bool known = false;

	if (st->side != GM_OUTSIDE)
		return;
	for (const struct gm_hole *h = r.m->holes; h != NULL; h = h->next)
		known |= h->public_ip == dst && h->inside_ip == get32(r.out + 30);
	for (const struct gm_session *s = r.m->sessions; s != NULL; s = s->next)
		known |= s->public_ip == dst && s->inside_ip == get32(r.out + 30);
	CHECK(known);
}

/* Nothing of the table has expired when the last grant is made. */
static void no_sweep(uint64_t now_ms)
{
	(void)now_ms;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct walk_subject quick;
	static struct frame f;
	struct span in = span_of((const char *)data, n);

	if (n == 0)
		return 0;
	if (data[0] == 0xff) {
		CHECK(walk_bytes(&walk_user, data + 1, n - 1));
		return 0;
	}
	quick = walk_user;
	quick.sweep = no_sweep;
	r.s = &quick;
	prepare(&r);
	take(&in, 1);
	for (int frames = 0; in.n >= 3 && frames < 64; frames++) {
		const struct span head = take(&in, 3);
		const uint8_t kind = (uint8_t)head.p[0];
		const struct span bytes = take(&in, (size_t)((uint8_t)head.p[1] << 8 | (uint8_t)head.p[2]));
		struct step st = {.kind = STEP_FRAME, .side = kind & 1 ? GM_INSIDE : GM_OUTSIDE, .seed = 7, .opener = STEP_NONE};

		make(&f, kind, bytes);
		st.frame = f.p;
		st.n = f.n;
		if (!round_take(&r, round_add(&r, &st))) {
			fprintf(stderr, "%s\n", r.wrong);
			for (size_t i = 0; i < r.nsteps; i++)
				step_print(stderr, &r, i, i + 1 == r.nsteps);
			abort();
		}
		if (r.said.verdict == GM_OUT)
			belongs(&st);
	}
	return 0;
}
