/* SPDX-License-Identifier: Apache-2.0 */
/** \file The steps of a walk: each can be taken again, alone or with fewer before it, which is how a difference is made small. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "gate/record.h"
#include "gate_model.h"
#include "gate_walk.h"

#define STEP_NONE SIZE_MAX

enum step_kind { STEP_FRAME, STEP_GRANT, STEP_TIME };

struct step {
	enum step_kind kind;
	uint64_t seed; /* of all that the gate draws in it: the same whatever came before */
	/* STEP_FRAME */
	enum gm_side side;
	uint8_t *frame; /* malloc'd */
	size_t n;
	/* STEP_GRANT */
	struct gate_request request; /* hole: filled in when the step is taken */
	size_t opener;               /* the step that opened the hole in question; STEP_NONE: none */
	/* STEP_TIME */
	uint64_t ns;
};

/** From empty tables to where one is. */
struct round {
	const struct walk_subject *s;
	struct gm_model *m;
	uint64_t seed;
	struct step *step; /* all that were drawn, also those that a replay leaves out */
	size_t nsteps, cap;
	uint64_t *hole;    /* by step: what it opened, 0 nothing */
	char wrong[512];   /* what differs; "" nothing */
	unsigned unlooked; /* frames since the records were compared */
	/* Of the step that was taken last. */
	struct gm_answer said;
	uint8_t out[GM_FRAME];
	size_t nout;
	struct gate_reply reply;
};

/** Empty tables and an empty reference. \return false: the gate failed, and said why. */
bool round_start(struct round *r);
/** Forgets the steps. */
void round_clear(struct round *r);
void round_free(struct round *r);
/** Appends a step; its place. The frame is copied. */
size_t round_add(struct round *r, const struct step *st);
/** Takes a step on both sides. \return false: they differ, and r->wrong says how. */
bool round_take(struct round *r, size_t at);

/** Leaves out what steps it can while the last one still differs. keep: by step, in and out. \return how many are left. */
size_t round_shrink(struct round *r, bool *keep);
/** One step, for a reader; frames also in hex when bytes is set. */
void step_print(FILE *f, const struct round *r, size_t at, bool bytes);
