/* SPDX-License-Identifier: Apache-2.0 */
/** \file The gate's answers as text on stdout. Whatever the daemon says is survived and cannot drive a terminal. */
#pragma once

#include <jansson.h>
#include <stdint.h>

void gate_print_holes(const json_t *list);
void gate_print_hole(const json_t *hole);
/** Every member, one a line. */
void gate_print_counts(json_t *counts);
/** Those that are not zero, with what each has grown a second since `before` (NULL: the first time, no rate). */
void gate_print_rates(json_t *counts, const json_t *before, uint64_t after_ms);
/** A whole status. */
void gate_print_counters(const json_t *status);
/** One line: time, reason, interface, protocol, addresses and ports, length. */
void gate_print_dropped(const json_t *sample);
