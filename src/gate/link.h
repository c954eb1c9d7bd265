/* SPDX-License-Identifier: Apache-2.0 */
/** \file The parser's end of the pair, shared by the agents' side (control.c) and the operator's (operator.c). Private to the parser. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/ipc.h"

/* Tokens: an agent's connection has a number from 1 on that is never used again. */
#define GATE_TOKEN_OPERATOR 0

struct gate_operator;
struct gate_control;
typedef struct uv_loop_s uv_loop_t;

/** What the operator sees of the agents' side. */
struct gate_link_stats {
	uint64_t bytes, heartbeat_bytes;   /* application bytes in both directions; PING and its answer are heartbeats, counted apart */
	uint64_t answers[GATE_STATUSES];   /* by status */
	uint64_t refused;                  /* handshakes without a tenant's pin */
	uint64_t agents[GATE_TENANTS_MAX]; /* connections now */
};
const struct gate_link_stats *gate_control_stats(const struct gate_control *c);

/** The operator's socket. \return 0 or negative errno with a line on stderr. */
int gate_operator_start(uv_loop_t *loop, struct gate_control *c, const struct gate_config *cfg, struct gate_operator **out);
void gate_operator_stop(struct gate_operator *o);
/** Whether there is a question to send; at most one is under way. */
bool gate_operator_ask(struct gate_operator *o, struct gate_ipc_request *out);
/** One record with GATE_TOKEN_OPERATOR. */
void gate_operator_answer(struct gate_operator *o, const struct gate_ipc_reply *a);
/** Called by the operator's side when gate_operator_ask has something. */
void gate_control_kick(struct gate_control *c);
