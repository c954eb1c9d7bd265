/* SPDX-License-Identifier: Apache-2.0 */
/** \file The packet path's reasons by name, and a dropped packet as `walnut gate trace` shows it. Pure; for both processes, which need not
 * include the packet path's own headers for it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"

#define GATE_REASON_WORDS     2    /* of 64 bits: a set of reasons */
#define GATE_TRACE_PER_S      100  /* samples a second and CPU, if nothing else is asked for */
#define GATE_TRACE_MOST_PER_S 1000 /* the most that may be */

/** Numbers below this are reasons; 0 is "none". */
unsigned gate_reason_count(void);
/** "no_hole", …; "unknown" for other numbers. Static. */
const char *gate_reason_name(unsigned reason);
/** Whether the packet was dropped for it; false for other numbers. */
bool gate_reason_is_drop(unsigned reason);
/** Whether it counts packets that passed, rather than something that happened beside (a binding, a new mapping or session). */
bool gate_reason_is_pass(unsigned reason);
/** \return the number, or -1. */
int gate_reason_find(const char *name);

enum gate_dropped_side { GATE_DROPPED_OUTSIDE, GATE_DROPPED_INSIDE, GATE_DROPPED_ELSEWHERE };

/** Headers only: nothing of the payload, no key. What the frame does not have is zero. */
struct gate_dropped {
	uint64_t time_ms; /* CLOCK_BOOTTIME */
	uint32_t reason;
	uint32_t length; /* of the frame, bytes */
	uint16_t ethertype;
	uint8_t side; /* enum gate_dropped_side: where it came in */
	uint8_t ip;   /* 4, 6 or 0 */
	uint8_t proto;
	uint8_t icmp_type, icmp_code;
	uint8_t pad;
	struct wn_addr src, dst; /* with ports where there are any */
};
_Static_assert(sizeof(struct gate_dropped) == 64, "record between the processes");
