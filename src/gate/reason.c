/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/reason.h"

#include <string.h>

#include "gate/bpf/shared.h"

static const struct {
	const char *name;
	bool is_drop;
} reason_of[GATE_REASON_COUNT] = {
#define GATE_REASON_ROW(e, name, drop) [e] = {name, drop},
	GATE_REASONS(GATE_REASON_ROW)
#undef GATE_REASON_ROW
};
_Static_assert(GATE_REASON_COUNT <= 64 * GATE_REASON_WORDS, "a set of reasons");

unsigned gate_reason_count(void)
{
	return GATE_REASON_COUNT;
}

const char *gate_reason_name(unsigned reason)
{
	return reason < GATE_REASON_COUNT ? reason_of[reason].name : "unknown";
}

bool gate_reason_is_drop(unsigned reason)
{
	return reason < GATE_REASON_COUNT && reason_of[reason].is_drop;
}

bool gate_reason_is_pass(unsigned reason)
{
	return reason > GATE_R_OK && reason < GATE_REASON_COUNT && !reason_of[reason].is_drop && reason != GATE_R_HOLE_BOUND &&
	       reason != GATE_R_MAPPING_NEW && reason != GATE_R_SESSION_NEW;
}

int gate_reason_find(const char *name)
{
	for (unsigned i = 0; i < GATE_REASON_COUNT; i++)
		if (strcmp(reason_of[i].name, name) == 0)
			return (int)i;
	return -1;
}
