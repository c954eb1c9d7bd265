/* SPDX-License-Identifier: Apache-2.0 */
/** \file The whole agent on one loop: opened with whatever rights the process has, started after they are given up. */
#pragma once

#include <uv.h>

#include "agent/config.h"

struct agent;

/** Opens the store, reads the keys, listens on the control socket. cfg must outlive it. \return 0, or negative errno after one line on
 * stderr or in the log. */
int agent_open(uv_loop_t *loop, const struct agent_config *cfg, struct agent **out);
/** Begins to connect to the fronts and the gate. */
int agent_start(struct agent *a);
/** Lets everything go; when the loop has run empty, agent_free. Accepted flows live on at the gate. */
void agent_stop(struct agent *a);
void agent_free(struct agent *a);
