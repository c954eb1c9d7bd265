/* SPDX-License-Identifier: Apache-2.0 */
/** \file A random walk: grants, time, and frames both ways, given to a gate and to the reference, and their answers compared. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/config.h"
#include "gate/record.h"
#include "gate_model.h"

struct gate_hole;

/** The gate under test. */
struct walk_subject {
	/** Empty tables. \return false: this failed, and said why. */
	bool (*reset)(uint64_t seed);
	void (*apply)(const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply);
	void (*sweep)(uint64_t now_ms);
	/** \return the XDP verdict; reason: the name of the counter that it dropped under. */
	int (*run)(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout, const char **reason);
	uint64_t (*now)(void);
	/** Lets time pass. \return false: not so much of it is possible. */
	bool (*pass)(uint64_t ns);
	/** The path's own record of a hole. \return false when it has none. */
	bool (*hole)(uint64_t id, struct gate_hole *out);
	uint64_t margin;  /* how exactly time is known; 0: exactly */
	unsigned look_at; /* every so many packets the hole's record is compared too */
};

/** The configuration that all walks use, and the reference's form of it. */
void walk_config(struct gate_config *cfg);
const struct gm_net *walk_net(void);

/** Walks until `packets` frames have been run. On a difference: prints it with the seed, writes what led there to a file, and
 * \return false. seed: WALNUT_PROPERTY_SEED if set; packets: WALNUT_PROPERTY_PACKETS if set. */
bool walk(const struct walk_subject *s, uint64_t packets, uint64_t seed);
/** How many packets left, were passed to the host, were dropped, by the last walk; and by class. For a report and a check that the walk
 * is not all drops. */
struct walk_tally {
	uint64_t out, host, drop, grants;
	struct {
		const char *why;
		uint64_t n;
	} class[32];
};
extern struct walk_tally walk_tally;

/** Steps for a fuzzer: choices are taken from the bytes until they run out. \return false on a difference. */
bool walk_bytes(const struct walk_subject *s, const uint8_t *data, size_t n);
