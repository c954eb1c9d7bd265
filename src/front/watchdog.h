/* SPDX-License-Identifier: Apache-2.0 */
/** \file Whether every worker still turns: what must be so before the service manager is told that the process lives. Pure. */
#pragma once

#include <stdint.h>

#include "front/core.h"

struct front_watchdog {
	uint64_t seen[FRONT_WORKERS_MAX];
};

/** turn[i]: how often worker i's loop has gone round. \return -1 when each has since the last look, or ever for the first; else the first
 * that has not. */
int front_watchdog_look(struct front_watchdog *w, const uint64_t *turn, unsigned n);
