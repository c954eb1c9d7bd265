/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "gate/operator_json.h"

static void head(FILE *f, const char *name, const char *type, const char *help)
{
	fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Only names of the file, the enum and this program come here, but the format's rule costs little. */
static void label(FILE *f, const char *key, const char *value)
{
	fprintf(f, "%s=\"", key);
	for (; value != NULL && *value != 0; value++) {
		if (*value == '\n')
			fputs("\\n", f);
		else if (*value == '\\' || *value == '"')
			fprintf(f, "\\%c", *value);
		else
			fputc(*value, f);
	}
	fputc('"', f);
}

static void value_of(FILE *f, const json_t *v)
{
	fprintf(f, " %lld\n", (long long)(json_is_boolean(v) ? json_is_true(v) : json_integer_value(v)));
}

static void single(FILE *f, const char *name, const char *type, const char *help, const json_t *v)
{
	head(f, name, type, help);
	fputs(name, f);
	value_of(f, v);
}

/* One sample a member. */
static void each(FILE *f, const char *name, const char *type, const char *help, const char *key, json_t *members)
{
	head(f, name, type, help);
	for (void *it = json_object_iter(members); it != NULL; it = json_object_iter_next(members, it)) {
		fprintf(f, "%s{", name);
		label(f, key, json_object_iter_key(it));
		fputc('}', f);
		value_of(f, json_object_iter_value(it));
	}
}

static void packets(FILE *f, const char *verdict, json_t *members)
{
	for (void *it = json_object_iter(members); it != NULL; it = json_object_iter_next(members, it)) {
		int r = gate_reason_find(json_object_iter_key(it));

		if (r < 0 || !(gate_reason_is_drop((unsigned)r) || gate_reason_is_pass((unsigned)r)))
			continue;
		fputs("walnut_gate_packets_total{", f);
		label(f, "reason", json_object_iter_key(it));
		fputc(',', f);
		label(f, "verdict", verdict);
		fputc('}', f);
		value_of(f, json_object_iter_value(it));
	}
}

/* What is counted beside a packet: stood it among the packets, their sum would be wrong. */
static void happened(FILE *f, json_t *members)
{
	head(f, "walnut_gate_events_total", "counter", "Bindings, mappings and sessions that packets brought about.");
	for (void *it = json_object_iter(members); it != NULL; it = json_object_iter_next(members, it)) {
		int r = gate_reason_find(json_object_iter_key(it));

		if (r < 0 || gate_reason_is_drop((unsigned)r) || gate_reason_is_pass((unsigned)r))
			continue;
		fputs("walnut_gate_events_total{", f);
		label(f, "event", json_object_iter_key(it));
		fputc('}', f);
		value_of(f, json_object_iter_value(it));
	}
}

static void agents(FILE *f, const json_t *tenants)
{
	head(f, "walnut_gate_agents", "gauge", "Connections of a tenant's agents.");
	for (size_t i = 0; i < json_array_size(tenants); i++) {
		const json_t *t = json_array_get(tenants, i);

		fputs("walnut_gate_agents{", f);
		label(f, "tenant", json_string_value(json_object_get(t, "name")));
		fputc('}', f);
		value_of(f, json_object_get(t, "agents"));
	}
}

size_t gate_metrics_text(const json_t *status, char **out)
{
	size_t n = 0;
	FILE *f = open_memstream(out, &n);

	if (f == NULL)
		return 0;
	head(f, "walnut_build_info", "gauge", "1, with what runs.");
	fputs("walnut_build_info{role=\"gate\",", f);
	label(f, "version", WALNUT_VERSION);
	fputs("} 1\n", f);
	single(f, "walnut_gate_uptime_seconds", "gauge", "Since the daemon's start; the packet path may be older.",
	       json_object_get(status, "uptime_s"));
	head(f, "walnut_gate_packets_total", "counter", "Packets by what became of them and why.");
	packets(f, "drop", json_object_get(status, "drops"));
	packets(f, "pass", json_object_get(status, "passed"));
	happened(f, json_object_get(status, "passed"));
	single(f, "walnut_gate_holes", "gauge", "Holes open.", json_object_get(status, "holes"));
	single(f, "walnut_gate_flows", "gauge", "Sessions that the inside has opened.", json_object_get(status, "flows"));
	single(f, "walnut_gate_next_hops", "gauge", "Next hops that need no look-up in the kernel; 0: each packet does.",
	       json_object_get(status, "next_hops"));
	single(f, "walnut_gate_draining", "gauge", "1 while no new holes are granted.", json_object_get(status, "draining"));
	each(f, "walnut_gate_answers_total", "counter", "Answers to agents by status.", "status", json_object_get(status, "answers"));
	single(f, "walnut_gate_refused_keys_total", "counter", "Handshakes with a key that is no tenant's.",
	       json_object_get(status, "refused_keys"));
	each(f, "walnut_gate_link_bytes_total", "counter", "Application bytes on agents' connections, both directions.", "class",
	     json_object_get(status, "link"));
	agents(f, json_object_get(status, "tenants"));
	if (fclose(f) != 0) {
		free(*out);
		*out = NULL;
		return 0;
	}
	return n;
}
