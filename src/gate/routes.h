/* SPDX-License-Identifier: Apache-2.0 */
/** \file Keeps the packet path's table of next hops like the kernel's routes and neighbours. Part of the map-writing process; one thread.
 *
 * The path asks the table first and the kernel for whatever the table does not know, so that an empty table costs time and nothing else. It
 * goes out of use before anything that was in it can have changed unnoticed: at once with the kernel's message about a change, and
 * GATE_HOPS_VALID_NS after the last call of gate_routes_tick, should nobody be there to hear the message. */
#pragma once

#include <stdint.h>

#include "gate/bpf/shared.h"

#define GATE_HOPS_VALID_NS (3 * GATE_NS_PER_S)

struct gate_routes;

/** Begins to listen; the table stays out of use until the first tick. `out` is the path's, memory mapped, and outlives this. Needs no
 * capability afterwards. \return 0 or negative errno with a line on stderr. */
int gate_routes_new(const uint32_t ifindex[GATE_SIDES], struct gate_hop_tables *out, struct gate_routes **r);
/** The table goes out of use. NULL: nothing. */
void gate_routes_free(struct gate_routes *r);
/** Readable when something has changed; then call gate_routes_changed. */
int gate_routes_fd(const struct gate_routes *r);
void gate_routes_changed(struct gate_routes *r, uint64_t now_ns);
/** Once a second; now_ns is the path's clock (CLOCK_BOOTTIME). */
void gate_routes_tick(struct gate_routes *r, uint64_t now_ns);
/** How many next hops the path finds without the kernel; 0 while the table is out of use. */
unsigned gate_routes_known(const struct gate_routes *r, uint64_t now_ns);
