/* SPDX-License-Identifier: Apache-2.0 */
/** \file Inside gate-micro: filling the gate's tables. */
#pragma once

#include <stdint.h>

#include "flow.h"
#include "gate/path.h"

/** Opens a gate on interfaces wan and lan of this namespace, with room for so many sessions and holes and 1 << shift public addresses. Ends
 * the process when that does not work. */
struct gate_dp *bench_open(uint32_t flows, uint32_t holes, uint32_t shift, uint8_t mac[GATE_SIDES][8]);
/** What the daemon does every second for the next hops that the path knows by itself; it ends the process when they are unknown. */
void bench_alive(struct gate_dp *dp);
/** Loads sessions first to last, TCP, established, as if the inside had opened them just now. */
void bench_sessions(struct gate_dp *dp, uint32_t first, uint32_t last, uint32_t mappings, uint32_t shift);
/** A hole with every limit set, high. key NULL: TCP, bound to the remote of flow 0 with its numbers. \return its public port. */
uint16_t bench_hole(struct gate_dp *dp, const uint8_t *key, uint64_t *id);
/** Opens n datagram holes, each for one remote, shared out among 64 services; ends are left in random order. */
void bench_holes(struct gate_dp *dp, struct bench_ends *ends, uint32_t n);
/** Forgets which counters a tagged hole has seen. */
void bench_hole_rewind(struct gate_dp *dp, uint64_t id);
/** A frame for the outside (in) or the inside: TCP acknowledgement, or UDP with n bytes of data and room for a tag. */
size_t bench_frame(uint8_t *out, const uint8_t mac[8], int in, int udp, uint32_t n);
_Noreturn void bench_die(const char *what, int err);
