/* SPDX-License-Identifier: Apache-2.0 */
/** \file Between gate_user.c, which is the programs, and gate_user_dp.c, which is user space's half: neither can see the other's headers.
 */
#pragma once

#include "gate_user.h"

/** In the order of gate_user.c's table. */
enum gate_user_map {
	GATE_USER_PORTS,
	GATE_USER_GRANTS,
	GATE_USER_INFOS,
	GATE_USER_USERS,
	GATE_USER_HOLES,
	GATE_USER_MAPPINGS,
	GATE_USER_FLOWS,
	GATE_USER_WAITING,
	GATE_USER_SERVICES,
	GATE_USER_USAGE,
	GATE_USER_COUNTERS,
	GATE_USER_META,
	GATE_USER_PREFIXES,
	GATE_USER_BUDGETS,
	GATE_USER_FILTER,
	GATE_USER_ANYONE,
	GATE_USER_EMPTY,
	GATE_USER_MAPS
};

/** Empties everything. size: entries by enum gate_user_map; 0: as the program says. p: without ifindex, mac and port_key, which are filled
 * in here. */
void gate_user_programs(const struct gate_params *p, const struct gate_user_net *net, const size_t size[GATE_USER_MAPS]);
void gate_user_programs_clear(void);

/* fd is an enum gate_user_map; results as the helpers of the same names. */
void *gate_user_map_lookup(int fd, const void *key);
long gate_user_map_update(int fd, const void *key, const void *value, uint64_t flags);
long gate_user_map_delete(int fd, const void *key);
size_t gate_user_map_value(int fd);
size_t gate_user_map_key(int fd);
/** The at-th entry of a hash, in no order that lasts. \return its value, NULL behind the last. */
void *gate_user_map_entry(int fd, size_t at, const void **key);
/** Runs gate_reap over a request of n bytes. */
int gate_user_reap(void *request, size_t n);
