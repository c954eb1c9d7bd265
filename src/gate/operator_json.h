/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the operator's requests and answers look like: JSON to records and back. Pure but for the random key of an open. Private to
 * the parser. */
#pragma once

#include <jansson.h>

#include "gate/ipc.h"

/** {"cmd":"open","protocol","inside","remote","lifetime_s", optional "tenant","user","tag","idle_s","bytes_per_s","packets_per_s"}. UDP is
 * tagged unless "tag" is false: then a key is drawn, which the answer gets as "key" and nobody hears again. Fills in out and adds to
 * answer. \return NULL, or an error to answer with. */
json_t *gate_json_open(const struct gate_config *cfg, const json_t *request, struct gate_request *out, json_t *answer);
/** {"hole":N}. \return NULL, or an error to answer with. */
json_t *gate_json_hole_number(const json_t *request, uint64_t *out);
/** {"reasons":[NAME…],"per_s":N}; all reasons and GATE_TRACE_PER_S when they are absent. \return NULL, or an error. */
json_t *gate_json_trace(const json_t *request, struct gate_ipc_trace *out);

/** Why the gate did not do as it was told, for people; NULL for GATE_OK. Static. */
const char *gate_json_why(enum gate_status status);
json_t *gate_json_hole(const struct gate_config *cfg, const struct gate_reply *r);
/** unix_ms: what to add to a time of the boot clock. */
json_t *gate_json_dropped(const struct gate_config *cfg, const struct gate_dropped *d, uint64_t unix_ms);
/** Puts a counter where it belongs in a status: sizes on top, the others under "drops" or "passed". */
void gate_json_counter(json_t *status, const struct gate_ipc_counter *c);

/** A status as Prometheus text (version 0.0.4). The caller frees *out. \return its length, or 0 when out of memory. */
size_t gate_metrics_text(const json_t *status, char **out);
