/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/counters.h"

static const char *const names[AGENT_COUNTERS_END] = {
#define X(name) [COUNT_##name] = #name,
	AGENT_COUNTERS(X)
#undef X
};

const char *agent_counter_name(enum agent_counter c)
{
	return names[c];
}
