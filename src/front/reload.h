/* SPDX-License-Identifier: Apache-2.0 */
/** \file A new configuration in place of the one that a front runs with. The main thread's. */
#pragma once

#include "front/config.h"
#include "front/core.h"
#include "front/grace.h"
#include "front/relay.h"

struct front_reload {
	struct front_config *config; /* that runs; its tenants have the places that they have in shared */
	struct front_shared *shared;
	struct front_relay *relay;
	struct front_grace *grace;
	unsigned nworkers;
};

/** Puts what can be changed of `fresh` into effect: policies, signing keys, which tenants there are, feed_max_age_s and drain_s. What
 * cannot is named in one line of warning, and stays. Takes what fresh has allocated, also when it fails. read_turns: asked after what was
 * replaced is out of the workers' sight. \return 0 or -ENOMEM: nothing has changed. */
int front_reload_apply(const struct front_reload *r, struct front_config *fresh, void (*read_turns)(void *arg, uint64_t *turn), void *arg);
