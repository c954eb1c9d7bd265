/* SPDX-License-Identifier: Apache-2.0 */
/** \file The gate's packet path as an ordinary C program: src/gate/bpf compiled for user space, its tables in memory, and the real
 * grants.c and sweep.c working on them. One gate a process, one thread. Time stands still unless the caller moves it; next hops are a
 * fixed table; a frame is an allocation of exactly its length, so that sanitizers see every read beyond it. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "gate/bpf/shared.h"

#define GATE_USER_HOPS 8

struct gate_config;
struct gate_dp;

struct gate_user_net {
	uint8_t mac[GATE_SIDES][6];                     /* the gate's own */
	uint32_t self;                                  /* on the outside, network order */
	uint32_t lan, lan_mask, wan, wan_mask, gateway; /* network order */
	uint32_t mtu;
	struct {
		uint32_t ip; /* network order */
		uint8_t mac[6];
	} hop[GATE_USER_HOPS]; /* neighbours that are known; the rest is not */
	unsigned nhops;
};

/** Nanoseconds of the boot clock, as the path sees it. */
extern uint64_t gate_user_clock;
/** What the path's random numbers follow from. */
extern uint64_t gate_user_random;
/** The user-space half, as gate_dp_apply and gate_dp_sweep want it; NULL before gate_user_open. */
extern struct gate_dp *gate_user_dp;

/** Empty tables, sized by cfg. Ends the process when memory does. Called again: everything starts afresh. */
void gate_user_open(const struct gate_config *cfg, const struct gate_user_net *net);
void gate_user_close(void);

/** Runs a side's program. out has room for n bytes. \return the XDP verdict. */
int gate_user_run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout);
/** The counter that says what became of the last frame, "none", or "several". */
const char *gate_user_counted(void);
/** Fills every budget of the host's protection again. */
void gate_user_refill(void);
