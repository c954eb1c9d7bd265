/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/span.h"
#include "console/call.h"
#include "console/gate_print.h"
#include "console/verbs.h"

#define POLL_MS 100 /* of a trace */

enum {
	OPT_SOCKET = 's',
	OPT_HELP = 'h',
	OPT_JSON = 'j',
	OPT_LIFETIME = 1000,
	OPT_TENANT,
	OPT_USER,
	OPT_NO_TAG,
	OPT_IDLE,
	OPT_BYTES,
	OPT_PACKETS,
	OPT_USER_BYTES,
	OPT_USER_PACKETS,
	OPT_WATCH,
	OPT_COUNT,
	OPT_REASON,
	OPT_RATE,
};

static const struct option long_options[] = {
	{"socket", required_argument, NULL, OPT_SOCKET},
	{"help", no_argument, NULL, OPT_HELP},
	{"json", no_argument, NULL, OPT_JSON},
	{"lifetime", required_argument, NULL, OPT_LIFETIME},
	{"tenant", required_argument, NULL, OPT_TENANT},
	{"user", required_argument, NULL, OPT_USER},
	{"no-tag", no_argument, NULL, OPT_NO_TAG},
	{"idle", required_argument, NULL, OPT_IDLE},
	{"bytes-per-s", required_argument, NULL, OPT_BYTES},
	{"packets-per-s", required_argument, NULL, OPT_PACKETS},
	{"user-bytes-per-s", required_argument, NULL, OPT_USER_BYTES},
	{"user-packets-per-s", required_argument, NULL, OPT_USER_PACKETS},
	{"watch", no_argument, NULL, OPT_WATCH},
	{"count", required_argument, NULL, OPT_COUNT},
	{"reason", required_argument, NULL, OPT_REASON},
	{"rate", required_argument, NULL, OPT_RATE},
	{NULL, 0, NULL, 0},
};

/* What one action was given. */
struct given {
	const char *name, *usage; /* "gate open" */
	const char *socket;
	bool json, watch;
	unsigned long long count; /* 0: without end */
	json_t *request;          /* members that options have added */
	char **args;
	int nargs;
};

static int bad(const struct given *g, const char *what, const char *why)
{
	fprintf(stderr, "walnut %s: %s %s; usage: walnut %s\n", g->name, what, why, g->usage);
	return -EINVAL;
}

static int set_number(const struct given *g, const char *option, const char *key, const char *value)
{
	unsigned long long v;

	if (span_u64(span_str(value), INT64_MAX, &v) != 0)
		return bad(g, option, "must be followed by a whole number");
	json_object_set_new(g->request, key, json_integer((json_int_t)v));
	return 0;
}

static int set_text(const struct given *g, const char *what, const char *key, const char *value)
{
	return json_object_set_new(g->request, key, json_string(value)) == 0 ? 0 : bad(g, what, "is no text");
}

static int add_reason(const struct given *g, const char *option, const char *value)
{
	json_t *list = json_object_get(g->request, "reasons");

	if (list == NULL) {
		list = json_array();
		json_object_set_new(g->request, "reasons", list);
	}
	return json_array_append_new(list, json_string(value)) == 0 ? 0 : bad(g, option, "is no text");
}

/* One option that is allowed for the action. */
static int take_option(struct given *g, int c, const char *option)
{
	switch (c) {
	case OPT_SOCKET:
		g->socket = optarg;
		return 0;
	case OPT_JSON:
		g->json = true;
		return 0;
	case OPT_WATCH:
		g->watch = true;
		return 0;
	case OPT_NO_TAG:
		return json_object_set_new(g->request, "tag", json_false());
	case OPT_TENANT:
		return set_text(g, option, "tenant", optarg);
	case OPT_USER:
		return set_text(g, option, "user", optarg);
	case OPT_REASON:
		return add_reason(g, option, optarg);
	case OPT_COUNT:
		if (span_u64(span_str(optarg), UINT32_MAX, &g->count) != 0 || g->count == 0)
			return bad(g, option, "must be followed by a whole number of at least 1");
		return 0;
	case OPT_LIFETIME:
		return set_number(g, option, "lifetime_s", optarg);
	case OPT_IDLE:
		return set_number(g, option, "idle_s", optarg);
	case OPT_BYTES:
		return set_number(g, option, "bytes_per_s", optarg);
	case OPT_PACKETS:
		return set_number(g, option, "packets_per_s", optarg);
	case OPT_USER_BYTES:
		return set_number(g, option, "user_bytes_per_s", optarg);
	case OPT_USER_PACKETS:
		return set_number(g, option, "user_packets_per_s", optarg);
	default:
		return set_number(g, option, "per_s", optarg);
	}
}

static bool is_allowed(int c, const int *allowed)
{
	if (c == OPT_SOCKET)
		return true;
	for (; *allowed != 0; allowed++)
		if (*allowed == c)
			return true;
	return false;
}

/* \return 0, 1 when --help was printed, -EINVAL with one line on stderr. */
static int parse(struct given *g, int argc, char **argv, const int *allowed, int min, int max)
{
	int rc = 0;

	optind = 0; /* start over: main and the verb both parse */
	opterr = 0;
	while (rc == 0) {
		int before = optind == 0 ? 1 : optind;
		int c = getopt_long(argc, argv, ":", long_options, NULL);

		if (c == -1)
			break;
		if (c == OPT_HELP) {
			printf("usage: walnut %s\n", g->usage);
			return 1;
		}
		if (c == ':')
			return bad(g, argv[before], "needs a value");
		if (c == '?' || !is_allowed(c, allowed)) {
			fprintf(stderr, "walnut %s: unknown option %s; usage: walnut %s\n", g->name, argv[before], g->usage);
			return -EINVAL;
		}
		rc = take_option(g, c, argv[before]);
	}
	g->args = argv + optind;
	g->nargs = argc - optind;
	if (rc == 0 && (g->nargs < min || g->nargs > max)) {
		fprintf(stderr, "walnut %s: %s arguments; usage: walnut %s\n", g->name, g->nargs < min ? "too few" : "too many", g->usage);
		return -EINVAL;
	}
	return rc;
}

/* Sends what the options made, as `cmd`. */
static int call(struct given *g, const char *cmd, json_t **answer)
{
	json_object_set_new(g->request, "cmd", json_string(cmd));
	return call_daemon(g->name, g->socket, json_incref(g->request), answer);
}

static int run_list(struct given *g)
{
	json_t *answer;

	if (call(g, "holes", &answer) != 0)
		return 1;
	if (g->json)
		call_print_json(answer);
	else
		gate_print_holes(json_object_get(answer, "holes"));
	json_decref(answer);
	return 0;
}

/* \return 0 or 2 with one line on stderr. */
static int hole_argument(struct given *g)
{
	unsigned long long hole;

	if (span_u64(span_str(g->args[0]), INT64_MAX, &hole) != 0 || hole == 0) {
		fprintf(stderr, "walnut %s: %s is no hole's number; walnut gate list shows them\n", g->name, g->args[0]);
		return 2;
	}
	json_object_set_new(g->request, "hole", json_integer((json_int_t)hole));
	return 0;
}

static int run_show(struct given *g)
{
	json_t *answer;

	if (hole_argument(g) != 0)
		return 2;
	if (call(g, "hole", &answer) != 0)
		return 1;
	if (g->json)
		call_print_json(answer);
	else
		gate_print_hole(json_object_get(answer, "hole"));
	json_decref(answer);
	return 0;
}

static int run_open(struct given *g)
{
	char text[64], public[64];
	const json_t *hole;
	json_t *answer;

	if (strcmp(g->args[0], "tcp") != 0 && strcmp(g->args[0], "udp") != 0) {
		bad(g, g->args[0], "is not tcp or udp");
		return 2;
	}
	if (set_text(g, "tcp|udp", "protocol", g->args[0]) < 0 || set_text(g, "INSIDE", "inside", g->args[1]) < 0 ||
	    set_text(g, "REMOTE", "remote", g->args[2]) < 0)
		return 2;
	if (call(g, "open", &answer) != 0)
		return 1;
	hole = json_object_get(answer, "hole");
	if (g->json) {
		call_print_json(answer);
	} else {
		printf("hole %s at %s\n", call_text(json_object_get(hole, "hole"), text, sizeof(text)),
		       call_text(json_object_get(hole, "public"), public, sizeof(public)));
		if (json_object_get(answer, "key") != NULL)
			printf("key %s\n", call_text(json_object_get(answer, "key"), text, sizeof(text)));
	}
	json_decref(answer);
	return 0;
}

static int run_close(struct given *g)
{
	json_t *answer;

	if (hole_argument(g) != 0)
		return 2;
	if (call(g, "close", &answer) != 0)
		return 1;
	json_decref(answer);
	return 0;
}

static int run_drain(struct given *g)
{
	bool on = g->nargs == 0 || strcmp(g->args[0], "on") == 0;
	json_t *answer;

	if (!on && strcmp(g->args[0], "off") != 0) {
		bad(g, g->args[0], "is not on or off");
		return 2;
	}
	json_object_set_new(g->request, "on", json_boolean(on));
	if (call(g, "drain", &answer) != 0)
		return 1;
	json_decref(answer);
	return 0;
}

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
	(void)sig;
	interrupted = 1;
}

/* What runs until it is stopped ends in order: a trace is taken back, so that the next one need not wait. */
static void end_on_signals(void)
{
	const struct sigaction sa = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static void sleep_ms(unsigned ms)
{
	const struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};

	nanosleep(&t, NULL);
}

static int run_drops(struct given *g)
{
	json_t *answer, *before = NULL;
	uint64_t at_ms = 0, now_ms;
	int rc = 0;

	end_on_signals();
	for (unsigned long long round = 1; !interrupted; round++) {
		rc = call(g, "status", &answer);
		if (rc != 0)
			break;
		now_ms = wn_now_ms();
		if (g->json)
			call_print_json(json_object_get(answer, "drops"));
		else if (!g->watch)
			gate_print_counts(json_object_get(answer, "drops"));
		else
			gate_print_rates(json_object_get(answer, "drops"), json_object_get(before, "drops"), now_ms - at_ms);
		json_decref(before);
		before = answer;
		at_ms = now_ms;
		if (fflush(stdout) != 0 || !g->watch || (g->count != 0 && round >= g->count))
			break;
		sleep_ms(1000);
	}
	json_decref(before);
	return rc;
}

static int run_counters(struct given *g)
{
	json_t *answer;

	if (call(g, "status", &answer) != 0)
		return 1;
	if (g->json)
		call_print_json(answer);
	else
		gate_print_counters(answer);
	json_decref(answer);
	return 0;
}

static int run_trace(struct given *g)
{
	unsigned long long shown = 0;
	json_t *answer, *samples;
	int rc;

	end_on_signals();
	for (;;) {
		if (call(g, "trace", &answer) != 0)
			return 1;
		json_object_set(g->request, "id", json_object_get(answer, "id"));
		samples = json_object_get(answer, "samples");
		for (size_t i = 0; i < json_array_size(samples) && (g->count == 0 || shown < g->count); i++, shown++) {
			if (g->json) {
				json_dumpf(json_array_get(samples, i), stdout, JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
				putchar('\n');
			} else {
				gate_print_dropped(json_array_get(samples, i));
			}
		}
		json_decref(answer);
		if (fflush(stdout) != 0 || interrupted || (g->count != 0 && shown >= g->count))
			break;
		sleep_ms(POLL_MS);
	}
	json_object_set_new(g->request, "stop", json_true());
	rc = call(g, "trace", &answer);
	if (rc == 0)
		json_decref(answer);
	return rc;
}

static const struct {
	const char *action, *name, *usage;
	int allowed[11]; /* options, 0 at the end */
	int min, max;
	int (*run)(struct given *g);
} action[] = {
	{"list", "gate list", "gate list [--json] [--socket PATH]", {OPT_JSON}, 0, 0, run_list},
	{"show", "gate show", "gate show HOLE [--json] [--socket PATH]", {OPT_JSON}, 1, 1, run_show},
	{"open",
	 "gate open",
	 "gate open tcp|udp INSIDE REMOTE [--lifetime S] [--tenant NAME] [--user NAME] [--no-tag] [--idle S] [--bytes-per-s N] "
	 "[--packets-per-s N] [--user-bytes-per-s N] [--user-packets-per-s N] [--json] [--socket PATH]",
	 {OPT_LIFETIME, OPT_TENANT, OPT_USER, OPT_NO_TAG, OPT_IDLE, OPT_BYTES, OPT_PACKETS, OPT_USER_BYTES, OPT_USER_PACKETS, OPT_JSON},
	 3,
	 3,
	 run_open},
	{"close", "gate close", "gate close HOLE [--socket PATH]", {0}, 1, 1, run_close},
	{"drain", "gate drain", "gate drain [on|off] [--socket PATH]", {0}, 0, 1, run_drain},
	{"drops",
	 "gate drops",
	 "gate drops [--watch [--count N]] [--json] [--socket PATH]",
	 {OPT_JSON, OPT_WATCH, OPT_COUNT},
	 0,
	 0,
	 run_drops},
	{"counters", "gate counters", "gate counters [--json] [--socket PATH]", {OPT_JSON}, 0, 0, run_counters},
	{"trace",
	 "gate trace",
	 "gate trace [--reason NAME]... [--count N] [--rate N] [--json] [--socket PATH]",
	 {OPT_REASON, OPT_COUNT, OPT_RATE, OPT_JSON},
	 0,
	 0,
	 run_trace},
};

#define ACTIONS (sizeof(action) / sizeof(action[0]))

int cmd_gate(int argc, char **argv)
{
	struct given g = {.socket = CALL_SOCKET_GATE};
	int rc;

	if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
		for (size_t i = 0; i < ACTIONS; i++)
			printf("%s walnut %s\n", i == 0 ? "usage:" : "      ", action[i].usage);
		return 0;
	}
	for (size_t i = 0; argc >= 2 && i < ACTIONS; i++) {
		if (strcmp(argv[1], action[i].action) != 0)
			continue;
		g.name = action[i].name;
		g.usage = action[i].usage;
		g.request = json_object();
		if (g.request == NULL)
			return 1;
		rc = parse(&g, argc - 1, argv + 1, action[i].allowed, action[i].min, action[i].max);
		rc = rc == 0 ? action[i].run(&g) : rc < 0 ? 2 : 0;
		json_decref(g.request);
		return rc;
	}
	fprintf(stderr, "walnut gate: list, show, open, close, drain, drops, counters or trace must follow; walnut gate --help explains\n");
	return 2;
}
