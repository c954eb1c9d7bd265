/* SPDX-License-Identifier: Apache-2.0 */
/** \file User space's hand on the packet path: loads or adopts the pinned eBPF programs and maps, and carries out validated records.
 * Belongs to the map-writing process; one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gate/config.h"
#include "gate/reason.h"
#include "gate/record.h"

struct gate_dp;

/** Mounts nothing; needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON (bpffs must be mounted). Adopts what is pinned under cfg->state when it
 * matches (then no flow is lost), else loads afresh, attaches to both interfaces by pinned links, and sets what the path relies on
 * (sysctls, offloads that must be off are checked and named). \return 0 or negative errno with a line on stderr that says what to do. */
int gate_dp_open(const struct gate_config *cfg, struct gate_dp **out);
/** Leaves programs, links and maps in place. */
void gate_dp_close(struct gate_dp *dp);
/** Detaches and unpins everything: after this the interfaces forward nothing, as without the gate. */
int gate_dp_remove(const struct gate_config *cfg);

/** PING, OPEN, RENEW, CLOSE. Checks every field again as if the sender were hostile; tenant is an index into the file. Never fails: the
 * answer is in reply->status. now_ms is CLOCK_BOOTTIME. */
void gate_dp_apply(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply);

/** Calls cb for every live hole of the tenant (UINT32_MAX: all). Stops when cb returns non-zero. */
int gate_dp_each(struct gate_dp *dp, uint32_t tenant, uint64_t now_ms, int (*cb)(const struct gate_reply *hole, void *arg), void *arg);

/** Readable when the packet path has something to say (a neighbour to resolve), or the kernel (a route has changed); then call
 * gate_dp_events. */
int gate_dp_fd(const struct gate_dp *dp);
void gate_dp_events(struct gate_dp *dp);
/** Frees what has expired; call about once a second. Bounded work per call. */
void gate_dp_sweep(struct gate_dp *dp, uint64_t now_ms);

/** Lets the gate run empty: from now on OPEN is answered GATE_DRAINING, RENEW, CLOSE and open flows go on. Kept with the pinned tables,
 * also when others take their place, until it is taken back. */
void gate_dp_drain(struct gate_dp *dp, bool on);
bool gate_dp_draining(const struct gate_dp *dp);

/** Has dropped packets sampled until until_ms (CLOCK_BOOTTIME; call again to prolong): of these reasons (a bit each), at most per_s a
 * second and CPU. 0: no more. `fresh`: what was sampled before is forgotten. \return 0 or negative errno. */
int gate_dp_trace(struct gate_dp *dp, const uint64_t reasons[GATE_REASON_WORDS], uint32_t per_s, bool fresh, uint64_t until_ms);
/** Hands over at most max samples, oldest first. \return 0 or negative errno. */
int gate_dp_samples(struct gate_dp *dp, unsigned max, void (*cb)(const struct gate_dropped *d, void *arg), void *arg);

/** Reads the counters: name and value, drops first. Names are those of enum gate_reason, then "flows", "holes", "draining",
 * "next_hops" (those that the path finds without asking the kernel; 0: it asks for every packet). */
int gate_dp_counters(struct gate_dp *dp, void (*cb)(const char *name, int is_drop, uint64_t value, void *arg), void *arg);
