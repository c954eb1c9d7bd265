/* SPDX-License-Identifier: Apache-2.0 */
/** \file Which user has which place in the packet path's `users`: one place a user of a tenant, held by the holes that count towards the
 * user. Lives in memory only; after a restart the pinned grants say it again. Belongs to the map writer; one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gate/bpf/shared.h"

struct gate_users;

/** `shared` has n + 1 elements, of which the first is not used, and must live as long. \return 0 or -ENOMEM. */
int gate_users_new(struct gate_user *shared, uint32_t n, struct gate_users **out);
void gate_users_free(struct gate_users *u);

/** One more hole of this user (name: at most 63 characters, NUL-terminated). A user without a place gets the one that has been free
 * longest, with full buckets; one whose holes have all closed finds the buckets as they were, unless the place is another's by now. \return
 * the place, or 0 when none is free; with as many places as holes, one whose place rests as long as theirs, there is one for each hole. */
uint32_t gate_users_take(struct gate_users *u, uint32_t tenant, const char *name, uint64_t now_ms);
/** One hole less; place 0 is let pass. */
void gate_users_release(struct gate_users *u, uint32_t place, uint64_t now_ms);
/** A hole that was open before the start and says that the place is this user's. Before the first gate_users_take. \return false when that
 * cannot be: no such place, it is another's, or the user has another one. */
bool gate_users_adopt(struct gate_users *u, uint32_t place, uint32_t tenant, const char *name);
