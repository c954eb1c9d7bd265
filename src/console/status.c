/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ctl.h"
#include "console/call.h"
#include "console/verbs.h"

#define USAGE "status [--json] [--socket PATH]"
#define LABEL "  %-11s"

static const char *const default_socket[] = {CALL_SOCKET_FRONT, CALL_SOCKET_AGENT, CALL_SOCKET_GATE};

/* "name 12, other 3": the members that are not zero, a few a line. */
static void print_counts(const char *label, json_t *object)
{
	const char *key;
	const json_t *v;
	char value[64];
	unsigned n = 0;

	if (!json_is_object(object))
		return;
	printf(LABEL, label);
	for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it)) {
		key = json_object_iter_key(it);
		v = json_object_iter_value(it);
		if (!json_is_integer(v) || json_integer_value(v) == 0)
			continue;
		if (n > 0)
			printf(n % 5 == 0 ? ",\n" LABEL : ", ", "");
		printf("%s %s", key, call_text(v, value, sizeof(value)));
		n++;
	}
	printf("%s\n", n == 0 ? "none" : "");
}

static void print_text(const char *label, const json_t *v)
{
	char text[256];

	if (v != NULL)
		printf(LABEL "%s\n", label, call_text(v, text, sizeof(text)));
}

static const char *connected(const json_t *o)
{
	return json_is_true(json_object_get(o, "connected")) ? "connected" : "NOT CONNECTED";
}

static void print_feed(const json_t *feed, const char *more)
{
	if (json_is_object(feed))
		printf(LABEL "sequence %llu, epoch %llu%s\n", "feed", (unsigned long long)call_number(feed, "seq"),
		       (unsigned long long)call_number(feed, "epoch"), more);
}

/* How long ago a front has heard that its copy of the users is current. */
static const char *heard(const json_t *o, char *buf, size_t cap)
{
	char age[32];

	if (!json_is_integer(json_object_get(o, "age_s")) || json_integer_value(json_object_get(o, "age_s")) < 0)
		snprintf(buf, cap, ", never heard");
	else
		snprintf(buf, cap, ", heard %s ago", call_duration(call_number(o, "age_s"), age, sizeof(age)));
	return buf;
}

static void print_front(const json_t *a)
{
	const json_t *agents = json_object_get(a, "agents");
	char text[256], age[64];

	for (size_t i = 0; i < json_array_size(agents); i++) {
		const json_t *agent = json_array_get(agents, i);

		printf(LABEL "%s %s", "agent", call_text(json_object_get(agent, "domain"), text, sizeof(text)), connected(agent));
		if (json_object_get(agent, "users") != NULL)
			printf(", %llu users, sequence %llu%s", (unsigned long long)call_number(agent, "users"),
			       (unsigned long long)call_number(agent, "seq"), heard(agent, age, sizeof(age)));
		putchar('\n');
	}
	if (json_array_size(agents) <= 1)
		print_feed(json_object_get(a, "feed"), heard(json_object_get(a, "feed"), age, sizeof(age)));
	print_counts("outcomes", json_object_get(a, "outcomes"));
	print_counts("dropped", json_object_get(a, "relay"));
}

static void print_agent(const json_t *a)
{
	const json_t *gate = json_object_get(a, "gate");
	char text[256];
	const json_t *fronts = json_object_get(a, "fronts");

	print_text("domain", json_object_get(a, "domain"));
	for (size_t i = 0; i < json_array_size(fronts); i++) {
		const json_t *front = json_array_get(fronts, i);

		printf(LABEL "%s %s, sequence %llu\n", "front", call_text(json_object_get(front, "address"), text, sizeof(text)),
		       connected(front), (unsigned long long)call_number(front, "seq"));
	}
	if (json_is_object(gate))
		printf(LABEL "%s\n", "gate", connected(gate));
	print_feed(json_object_get(a, "feed"), "");
	if (json_object_get(a, "calls") != NULL)
		printf(LABEL "%llu now, %llu since the start\n", "calls", (unsigned long long)call_number(a, "calls"),
		       (unsigned long long)call_number(a, "calls_total"));
	print_counts("counters", json_object_get(a, "counters"));
}

static void print_gate(const json_t *a)
{
	char text[256];
	const json_t *tenants = json_object_get(a, "tenants");

	for (size_t i = 0; i < json_array_size(tenants); i++) {
		const json_t *tenant = json_array_get(tenants, i);

		printf(LABEL "%s, %llu agents connected\n", "tenant", call_text(json_object_get(tenant, "name"), text, sizeof(text)),
		       (unsigned long long)call_number(tenant, "agents"));
	}
	print_text("holes", json_object_get(a, "holes"));
	print_text("flows", json_object_get(a, "flows"));
	print_counts("answers", json_object_get(a, "answers"));
	print_counts("passed", json_object_get(a, "passed"));
	print_counts("dropped", json_object_get(a, "drops"));
}

static void print_status(const json_t *a)
{
	const char *role = json_string_value(json_object_get(a, "role"));
	char text[64];

	printf("%s", call_text(json_object_get(a, "role"), text, sizeof(text)));
	if (json_is_string(json_object_get(a, "version")))
		printf(" %s", call_text(json_object_get(a, "version"), text, sizeof(text)));
	if (json_object_get(a, "uptime_s") != NULL)
		printf(", up %s", call_duration(call_number(a, "uptime_s"), text, sizeof(text)));
	putchar('\n');
	if (json_is_integer(json_object_get(a, "users")))
		print_text("users", json_object_get(a, "users"));
	if (role != NULL && strcmp(role, "front") == 0)
		print_front(a);
	else if (role != NULL && strcmp(role, "agent") == 0)
		print_agent(a);
	else if (role != NULL && strcmp(role, "gate") == 0)
		print_gate(a);
	print_counts("link bytes", json_object_get(a, "link"));
}

static int print_one(const char *path, bool json)
{
	json_t *answer;

	if (call_daemon("status", path, json_pack("{s:s}", "cmd", "status"), &answer) != 0)
		return 1;
	if (json)
		call_print_json(answer);
	else
		print_status(answer);
	json_decref(answer);
	return 0;
}

int cmd_status(int argc, char **argv)
{
	struct call_options o;
	struct stat st;
	unsigned found = 0;
	int rc = call_options("status", USAGE, argc, argv, CALL_OPT_SOCKET | CALL_OPT_JSON, 0, 0, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (o.socket != NULL)
		return print_one(o.socket, o.json);
	for (size_t i = 0; i < sizeof(default_socket) / sizeof(default_socket[0]); i++) {
		if (stat(default_socket[i], &st) != 0 && errno == ENOENT)
			continue;
		found++;
		rc |= print_one(default_socket[i], o.json);
	}
	if (found == 0) {
		fprintf(stderr, "walnut status: no daemon's socket is in /run/walnut; start one, or name its socket with --socket\n");
		return 1;
	}
	return rc;
}
