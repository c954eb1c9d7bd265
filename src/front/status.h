/* SPDX-License-Identifier: Apache-2.0 */
/** \file What a running front tells: on its control socket, and to a scraper. The main thread's. */
#pragma once

#include <jansson.h>

#include "front/relay.h"
#include "front/report.h"
#include "front/worker.h"

/** Where the numbers are. */
struct front_sources {
	const struct front_shared *shared;
	const struct front_relay *relay;
	struct front_worker *const *worker;
	unsigned nworkers;
	uint64_t started_ms;
};

/** A new reference: the answer to "status". */
json_t *front_status(const struct front_sources *s);
/** The answer to "why": the refusals that are remembered, newest first; about: a Call-ID or user, or NULL for all. */
json_t *front_status_why(const struct front_sources *s, const char *about);
/** What a scraper is told. \return the text's length, the caller frees *out; 0 when out of memory. */
size_t front_status_metrics(const struct front_sources *s, char **out);
