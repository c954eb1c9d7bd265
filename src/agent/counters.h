/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the agent counts; `walnut status` shows each by its name. One thread. */
#pragma once

#include <stdint.h>

#define AGENT_COUNTERS(X)                          \
	/* INVITE, by outcome */                   \
	X(invite_accepted)                         \
	X(invite_repeated)                         \
	X(invite_replaced)                         \
	X(refused_unknown_user)                    \
	X(refused_no_service)                      \
	X(refused_forbidden)                       \
	X(refused_wrong_port)                      \
	X(refused_no_media)                        \
	X(refused_no_address)                      \
	X(refused_calls_full)                      \
	X(refused_gate_down)                       \
	X(refused_gate_quota)                      \
	X(refused_gate_failed)                     \
	X(refused_gate_timeout)                    \
	X(cancelled)                               \
	/* what a front sent that it should not */ \
	X(bad_sip)                                 \
	X(bad_identity)                            \
	X(bad_key)                                 \
	X(bad_source)                              \
	X(bad_dialog)                              \
	X(unknown_method)                          \
	X(unexpected_response)                     \
	/* dialogs */                              \
	X(acked)                                   \
	X(answer_resent)                           \
	X(renewed)                                 \
	X(renew_failed)                            \
	X(unknown_dialog)                          \
	X(adopted)                                 \
	X(ended_bye)                               \
	X(ended_no_ack)                            \
	X(ended_expired)                           \
	X(ended_kicked)                            \
	X(ended_user_deleted)                      \
	X(ended_hole_gone)                         \
	X(ended_replaced)                          \
	/* feed */                                 \
	X(feed_changes)                            \
	X(feed_snapshots)                          \
	X(feed_keys_sent)                          \
	X(feed_refused)                            \
	X(feed_front_ahead)                        \
	/* connections */                          \
	X(front_connects)                          \
	X(front_losses)                            \
	X(front_silent)                            \
	X(gate_connects)                           \
	X(gate_losses)                             \
	X(gate_silent)                             \
	X(gate_unexpected)

enum agent_counter {
#define X(name) COUNT_##name,
	AGENT_COUNTERS(X)
#undef X
		AGENT_COUNTERS_END
};

struct agent_counters {
	uint64_t n[AGENT_COUNTERS_END];
};

const char *agent_counter_name(enum agent_counter c);

static inline void count(struct agent_counters *c, enum agent_counter which)
{
	c->n[which]++;
}
