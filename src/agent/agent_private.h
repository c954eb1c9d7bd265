/* SPDX-License-Identifier: Apache-2.0 */
/** \file What agent.c (wiring) and control.c (the control socket) share. */
#pragma once

#include <jansson.h>

#include "agent/agent.h"
#include "agent/calls.h"
#include "agent/counters.h"
#include "agent/grants.h"
#include "agent/publish.h"
#include "agent/register.h"
#include "base/ctl.h"
#include "feed/chain.h"
#include "userdb/store.h"

struct agent {
	uv_loop_t *loop;
	const struct agent_config *cfg;
	struct agent_secrets secrets;
	struct peer_identity *id;
	struct user_store *store;
	struct chain *chain;
	struct publish *publish;
	struct calls *calls;
	struct fronts *fronts; /* NULL before the start and after the stop; so is grants */
	struct grants *grants;
	struct ctl_server *ctl;
	uv_timer_t calls_timer, publish_timer;
	bool timers;
	struct agent_counters counters;
	uint64_t started_ms;
};

/** After anything that may have changed when a call is due, or the chain. */
void agent_after_calls(struct agent *a);
void agent_after_publish(struct agent *a);

/** The control socket's handler; arg is the agent. */
json_t *agent_control(const json_t *request, void *arg);
