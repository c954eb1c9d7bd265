/* SPDX-License-Identifier: Apache-2.0 */
/** \file Frames for the random walk, drawn around what the reference knows. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate_model.h"

/** Where choices come from: a seed, or a fuzzer's bytes. */
struct draw {
	uint64_t state;
	const uint8_t *bytes; /* NULL: the seed */
	size_t n;
	bool dry; /* the bytes have run out: every choice is 0 */
};

uint32_t draw32(struct draw *d);
/** 0 to n - 1. */
uint32_t draw_below(struct draw *d, uint32_t n);
static inline bool draw_one_in(struct draw *d, uint32_t n)
{
	return draw_below(d, n) == 0;
}
#define DRAW_OF(d, a) ((a)[draw_below((d), (uint32_t)(sizeof(a) / sizeof((a)[0])))])

#define FRAME_KEPT 16

struct frame {
	uint8_t p[GM_FRAME];
	size_t n;
};

/** What left lately by each side: what an ICMP error may quote. */
struct frames_left {
	struct frame kept[2][FRAME_KEPT];
	unsigned n[2];
};

/** A frame and the side where it arrives. */
enum gm_side frame_draw(struct draw *d, const struct gm_model *m, const struct frames_left *left, struct frame *f);
void frame_left(struct frames_left *left, enum gm_side side, const uint8_t *p, size_t n);

/* Ends that meet often enough. */
extern const uint32_t frame_inside_ip[7], frame_outside_ip[4];
extern const uint16_t frame_inside_port[4], frame_outside_port[6];
