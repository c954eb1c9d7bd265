/* SPDX-License-Identifier: Apache-2.0 */
#include "front/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Bounds that are shown, as powers of two of nanoseconds. More would cost a scraper more than they tell anybody. */
#define LATENCY_FROM 8u  /* 256 ns */
#define LATENCY_TO   26u /* 67 ms */
#define LATENCY_STEP 2u
#define ANSWER_FROM  20u /* 1 ms */
#define ANSWER_TO    35u /* 34 s */
#define ANSWER_STEP  1u

_Static_assert(LATENCY_FROM >= HISTOGRAM_FIRST_BITS && ANSWER_TO <= HISTOGRAM_LAST_BITS, "bounds that a histogram knows");

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Only names of the file and of this program come here, but the format's rule costs little. */
static void label(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=\"", key);
	for (; *value != 0; value++) {
		if (*value == '\n')
			fputs("\\n", f);
		else if (*value == '\\' || *value == '"')
			fprintf(f, "\\%c", *value);
		else
			fputc(*value, f);
	}
	fputc('"', f);
}

static void single(FILE *f, const char *name, const char *type, const char *help, uint64_t v)
{
	head(f, name, type, help);
	fprintf(f, "%s %" PRIu64 "\n", name, v);
}

/* Seconds, exactly, without an exponent. */
static void seconds(FILE *f, uint64_t ns)
{
	char text[40];
	int n = snprintf(text, sizeof(text), "%" PRIu64 ".%09" PRIu64, ns / 1000000000u, ns % 1000000000u);

	while (text[n - 1] == '0' && text[n - 2] != '.')
		n--;
	fprintf(f, "%.*s", n, text);
}

/* One member of a histogram family. */
static void buckets(FILE *f, const char *name, const char *outcome, const struct histogram_sum *h, unsigned from, unsigned to,
		    unsigned step)
{
	for (unsigned bits = from; bits <= to; bits += step) {
		fprintf(f, "%s_bucket{", name);
		if (outcome != NULL) {
			label(f, "outcome", outcome);
			fputc(',', f);
		}
		fputs("le=\"", f);
		seconds(f, UINT64_C(1) << bits);
		fprintf(f, "\"} %" PRIu64 "\n", histogram_below(h, bits));
	}
	fprintf(f, "%s_bucket{%s%s%sle=\"+Inf\"} %" PRIu64 "\n", name, outcome != NULL ? "outcome=\"" : "", outcome != NULL ? outcome : "",
		outcome != NULL ? "\"," : "", h->count);
	for (unsigned i = 0; i < 2; i++) {
		fprintf(f, "%s_%s", name, i == 0 ? "sum" : "count");
		if (outcome != NULL) {
			fputc('{', f);
			label(f, "outcome", outcome);
			fputc('}', f);
		}
		fputc(' ', f);
		if (i == 0)
			seconds(f, h->sum_ns);
		else
			fprintf(f, "%" PRIu64, h->count);
		fputc('\n', f);
	}
}

static void outcomes(FILE *f, const struct front_report *r)
{
	head(f, "walnut_front_outcomes_total", "counter", "Messages by what became of them.");
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++) {
		fputs("walnut_front_outcomes_total{", f);
		label(f, "outcome", front_outcome_name((enum front_outcome)o));
		fprintf(f, "} %" PRIu64 "\n", r->outcome[o]);
	}
	head(f, "walnut_front_decision_seconds", "histogram", "From a batch's arrival at its worker to what became of the message.");
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++)
		buckets(f, "walnut_front_decision_seconds", front_outcome_name((enum front_outcome)o), &r->latency[o], LATENCY_FROM,
			LATENCY_TO, LATENCY_STEP);
	head(f, "walnut_front_call_answer_seconds", "histogram", "From an INVITE that went on to its final answer, in whole milliseconds.");
	buckets(f, "walnut_front_call_answer_seconds", NULL, &r->call_answer, ANSWER_FROM, ANSWER_TO, ANSWER_STEP);
}

static void workers(FILE *f, const struct front_report *r)
{
	head(f, "walnut_front_worker_messages_total", "counter", "Messages by worker.");
	for (unsigned i = 0; i < r->workers; i++)
		fprintf(f, "walnut_front_worker_messages_total{worker=\"%u\"} %" PRIu64 "\n", i, r->worker_messages[i]);
	single(f, "walnut_front_transactions", "gauge", "Calls that are live: until their answer, and until a while after its ACK.",
	       r->transactions);
	single(f, "walnut_front_unsent_total", "counter", "Messages that found no room at a socket.", r->unsent);
	single(f, "walnut_front_why_left_out_total", "counter", "Refusals that walnut why does not show: they came too fast.",
	       r->why_left_out);
}

static void streams(FILE *f, const struct front_report *r)
{
	static const char *const class[] = {[STREAM_HANDSHAKE] = "handshaking", [STREAM_STRANGER] = "stranger", [STREAM_TRUSTED] = "user"};

	head(f, "walnut_front_connections", "gauge", "Callers' connections over TCP and TLS, by what they have shown.");
	for (unsigned c = STREAM_HANDSHAKE; c <= STREAM_TRUSTED; c++)
		fprintf(f, "walnut_front_connections{class=\"%s\"} %" PRIu64 "\n", class[c], r -> stream_open[c]);
	head(f, "walnut_front_connection_events_total", "counter", "What happened to callers' connections.");
	for (unsigned c = 0; c < FRONT_STREAM_COUNT_MAX; c++)
		fprintf(f, "walnut_front_connection_events_total{event=\"%s\"} %" PRIu64 "\n",
			front_stream_count_name((enum front_stream_count)c), r->stream[c]);
}

/* A family with one sample a tenant. */
#define EACH_TENANT(name, type, help, format, value)                         \
	do {                                                                 \
		head(f, name, type, help);                                   \
		for (unsigned i = 0; i < r->ntenants; i++) {                 \
			const struct front_report_tenant *t = &r->tenant[i]; \
                                                                             \
			fputs(name "{", f);                                  \
			label(f, "tenant", t->domain);                       \
			fprintf(f, "} " format "\n", value);                 \
		}                                                            \
	} while (0)

static void tenants(FILE *f, const struct front_report *r)
{
	EACH_TENANT("walnut_front_agent_connected", "gauge", "1 while the tenant's agent is registered.", "%d", t->connected ? 1 : 0);
	EACH_TENANT("walnut_front_users", "gauge", "Users that this front knows.", "%" PRIu64, t->users);
	EACH_TENANT("walnut_front_feed_age_seconds", "gauge", "Since the last word of the user database's publisher; -1: none yet.",
		    "%" PRId64, t->feed_age_s);
	EACH_TENANT("walnut_front_feed_sequence", "gauge", "Number of the last change that this front holds.", "%" PRIu64, t->seq);
	EACH_TENANT("walnut_front_feed_refused_total", "counter", "Messages of the feed that were not applied.", "%" PRIu64,
		    t->feed_refused);
}

static void relay(FILE *f, const struct front_report *r)
{
	head(f, "walnut_front_link_bytes_total", "counter", "Application bytes on agents' connections, both directions.");
	fprintf(f, "walnut_front_link_bytes_total{class=\"sip\"} %" PRIu64 "\n", r->link_sip_bytes);
	fprintf(f, "walnut_front_link_bytes_total{class=\"feed\"} %" PRIu64 "\n", r->link_feed_bytes);
	fprintf(f, "walnut_front_link_bytes_total{class=\"heartbeat\"} %" PRIu64 "\n", r->link_heartbeat_bytes);
	head(f, "walnut_front_relay_dropped_total", "counter", "Messages between workers and agents that found no room, or no agent.");
	fprintf(f, "walnut_front_relay_dropped_total{to=\"agent\"} %" PRIu64 "\n", r->dropped_to_agent);
	fprintf(f, "walnut_front_relay_dropped_total{to=\"worker\"} %" PRIu64 "\n", r->dropped_to_worker);
}

size_t front_metrics_text(const struct front_report *r, char **out)
{
	size_t n = 0;
	FILE *f = open_memstream(out, &n);

	if (f == NULL)
		return 0;
	head(f, "walnut_build_info", "gauge", "1, with what runs.");
	fputs("walnut_build_info{role=\"front\",", f);
	label(f, "version", WALNUT_VERSION);
	fputs("} 1\n", f);
	single(f, "walnut_front_uptime_seconds", "gauge", "Since the daemon's start.", r->uptime_s);
	outcomes(f, r);
	workers(f, r);
	if (r->has_streams)
		streams(f, r);
	tenants(f, r);
	relay(f, r);
	if (fclose(f) != 0) {
		free(*out);
		*out = NULL;
		return 0;
	}
	return n;
}
