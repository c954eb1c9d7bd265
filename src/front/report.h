/* SPDX-License-Identifier: Apache-2.0 */
/** \file What a front tells about itself in Prometheus' text format: filled in by who owns the numbers, written here. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "front/core.h"
#include "front/histogram.h"
#include "front/stream.h"

struct front_report_tenant {
	const char *domain;
	bool connected;
	uint64_t users, seq, feed_refused;
	int64_t feed_age_s; /* since the publisher's last word; -1: never heard of it */
};

struct front_report {
	uint64_t uptime_s;
	unsigned workers;
	uint64_t outcome[FRONT_OUTCOME_COUNT];
	struct histogram_sum latency[FRONT_OUTCOME_COUNT];
	struct histogram_sum call_answer;
	uint64_t worker_messages[FRONT_WORKERS_MAX];
	uint64_t transactions; /* live */
	uint64_t unsent;
	uint64_t why_left_out;
	bool has_streams;
	uint64_t stream_open[STREAM_TRUSTED + 1]; /* by enum stream_class */
	uint64_t stream[FRONT_STREAM_COUNT_MAX];
	uint64_t link_sip_bytes, link_feed_bytes, link_heartbeat_bytes;
	uint64_t dropped_to_agent, dropped_to_worker;
	unsigned ntenants;
	struct front_report_tenant tenant[FRONT_TENANTS_MAX];
};

/** The text of a scrape. \return its length, the caller frees *out; 0 when out of memory. */
size_t front_metrics_text(const struct front_report *r, char **out);
