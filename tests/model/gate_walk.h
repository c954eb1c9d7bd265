/* SPDX-License-Identifier: Apache-2.0 */
/** \file A random walk: grants, time, and frames both ways, given to a gate and to the reference, and their answers compared. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/config.h"
#include "gate/record.h"
#include "gate_model.h"

struct gate_flow;
struct gate_hole;

/** The gate under test. Its clock is the walk's: it moves by `pass` and by no more than a microsecond with each frame. */
struct walk_subject {
	/** Empty tables, the clock where it starts. \return false: this failed, and said why. */
	bool (*reset)(void);
	/** Everything that it draws from here on follows from this. */
	void (*seed)(uint64_t seed);
	void (*apply)(const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply);
	void (*sweep)(uint64_t now_ms);
	/** \return the XDP verdict. counted: the name of the one counter that says what became of the frame, or of several that do. */
	int (*run)(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout, const char **counted);
	uint64_t (*now)(void);
	void (*pass)(uint64_t ns);
	/** The path's own record of a hole. \return false when it has none. */
	bool (*hole)(uint64_t id, struct gate_hole *out);
	/** The path's own record of a session. \return false when it has none. */
	bool (*session)(const struct gm_session *s, struct gate_flow *out);
	unsigned look_at; /* every so many packets the records of holes and sessions are compared too */
};

/** The configuration that all walks use, and the reference's form of it. Leaves names of interfaces and folders as they are. */
void walk_config(struct gate_config *cfg);
const struct gm_net *walk_net(void);

/** From here on nothing is translated: some of the addresses inside are protected. Before anything else. */
void walk_firewall(void);
/** The same with IPv6 frames, as gm_address6 calls the ends. */
void walk_six(void);

/** Walks until `packets` frames have been run. On a difference: prints the seed and the fewest steps that still lead there, writes all of
 * them to a file, and \return false. seed: WALNUT_PROPERTY_SEED if set; packets: WALNUT_PROPERTY_PACKETS if set. */
bool walk(const struct walk_subject *s, uint64_t packets, uint64_t seed);
/** How many packets left, were passed to the host, were dropped, by the last walk; and by class. For a report and a check that the walk
 * is not all drops. */
struct walk_tally {
	uint64_t out, host, drop, grants;
	uint64_t lengths;  /* of the UDP payloads 0 to 1472 that left, how many different ones */
	uint64_t stripped; /* of those that left without the tag they came with */
	uint64_t no_check; /* datagrams that left without a checksum */
	struct {
		const char *why;
		uint64_t n;
	} class[40];
};
extern struct walk_tally walk_tally;

/** Steps for a fuzzer: choices are taken from the bytes until they run out. \return false on a difference. */
bool walk_bytes(const struct walk_subject *s, const uint8_t *data, size_t n);
