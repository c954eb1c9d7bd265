/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "console/call.h"
#include "console/verbs.h"

#define USAGE_USER     "user add [--md5] NAME | del NAME | list [--json]  [--socket PATH]"
#define USAGE_SESSIONS "sessions [--json] [--socket PATH]"
#define USAGE_KICK     "kick USER [--socket PATH]"

static const char *agent_socket(const struct call_options *o)
{
	return o->socket != NULL ? o->socket : CALL_SOCKET_AGENT;
}

static void print_closed(const json_t *answer)
{
	if (call_number(answer, "closed") > 0)
		printf("%llu closed\n", (unsigned long long)call_number(answer, "closed"));
}

/* Says on stderr what stdout, which scripts read, must not carry. */
static void print_confirmed(const char *name, const json_t *answer)
{
	const json_t *fronts = json_object_get(answer, "fronts");
	unsigned long long n = call_number(fronts, "confirmed"), of = call_number(fronts, "of");

	if (fronts == NULL)
		return;
	if (n < of || of == 0)
		fprintf(stderr, "walnut %s: %llu of %llu fronts have confirmed; the others follow when they are connected\n", name, n, of);
}

static int user_add(const struct call_options *o)
{
	json_t *answer;
	char line[4096];

	if (call_daemon("user add", agent_socket(o),
			json_pack("{s:s,s:s,s:b}", "cmd", "user-add", "name", o->args[0], "md5", o->md5 ? 1 : 0), &answer) != 0)
		return 1;
	printf("%s\n", call_text(json_object_get(answer, "enrolment"), line, sizeof(line)));
	print_confirmed("user add", answer);
	json_decref(answer);
	return 0;
}

static int user_del(const struct call_options *o)
{
	json_t *answer;

	if (call_daemon("user del", agent_socket(o), json_pack("{s:s,s:s}", "cmd", "user-del", "name", o->args[0]), &answer) != 0)
		return 1;
	print_closed(answer);
	print_confirmed("user del", answer);
	json_decref(answer);
	return 0;
}

static const char *date_of(const json_t *v, char *buf, size_t cap)
{
	time_t t = (time_t)json_integer_value(v);
	struct tm tm;

	if (!json_is_integer(v) || gmtime_r(&t, &tm) == NULL || strftime(buf, cap, "%Y-%m-%d %H:%M:%SZ", &tm) == 0)
		return call_text(v, buf, cap);
	return buf;
}

static void print_users(const json_t *list)
{
	char name[128], date[64];

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *user = json_array_get(list, i);

		printf("%-32s %s\n", call_text(json_object_get(user, "name"), name, sizeof(name)),
		       date_of(json_object_get(user, "created"), date, sizeof(date)));
	}
}

static int user_list(const struct call_options *o)
{
	json_t *answer;

	if (call_daemon("user list", agent_socket(o), json_pack("{s:s}", "cmd", "user-list"), &answer) != 0)
		return 1;
	if (o->json)
		call_print_json(answer);
	else
		print_users(json_object_get(answer, "users"));
	json_decref(answer);
	return 0;
}

int cmd_user(int argc, char **argv)
{
	static const struct {
		const char *action, *name;
		unsigned allowed;
		int args;
		int (*run)(const struct call_options *o);
	} action[] = {
		{"add", "user add", CALL_OPT_SOCKET | CALL_OPT_MD5, 1, user_add},
		{"del", "user del", CALL_OPT_SOCKET, 1, user_del},
		{"list", "user list", CALL_OPT_SOCKET | CALL_OPT_JSON, 0, user_list},
	};
	struct call_options o;
	int rc;

	if (argc >= 2 && strcmp(argv[1], "--help") == 0) {
		printf("usage: walnut %s\n", USAGE_USER);
		return 0;
	}
	for (size_t i = 0; argc >= 2 && i < sizeof(action) / sizeof(action[0]); i++) {
		if (strcmp(argv[1], action[i].action) != 0)
			continue;
		rc = call_options(action[i].name, USAGE_USER, argc - 1, argv + 1, action[i].allowed, action[i].args, action[i].args, &o);
		if (rc != 0)
			return rc < 0 ? 2 : 0;
		return action[i].run(&o);
	}
	fprintf(stderr, "walnut user: add, del or list must follow; usage: walnut %s\n", USAGE_USER);
	return 2;
}

static void print_sessions(const json_t *list)
{
	char user[80], service[64], remote[64], public[64], age[32];

	if (json_array_size(list) > 0)
		printf("%-20s %-12s %-24s %-24s %s\n", "USER", "SERVICE", "FROM", "PUBLIC", "AGE");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *s = json_array_get(list, i);

		printf("%-20s %-12s %-24s %-24s %s\n", call_text(json_object_get(s, "user"), user, sizeof(user)),
		       call_text(json_object_get(s, "service"), service, sizeof(service)),
		       call_text(json_object_get(s, "remote"), remote, sizeof(remote)),
		       call_text(json_object_get(s, "public"), public, sizeof(public)),
		       call_duration(call_number(s, "age_s"), age, sizeof(age)));
	}
}

int cmd_sessions(int argc, char **argv)
{
	struct call_options o;
	json_t *answer;
	int rc = call_options("sessions", USAGE_SESSIONS, argc, argv, CALL_OPT_SOCKET | CALL_OPT_JSON, 0, 0, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (call_daemon("sessions", agent_socket(&o), json_pack("{s:s}", "cmd", "sessions"), &answer) != 0)
		return 1;
	if (o.json)
		call_print_json(answer);
	else
		print_sessions(json_object_get(answer, "sessions"));
	json_decref(answer);
	return 0;
}

int cmd_kick(int argc, char **argv)
{
	struct call_options o;
	json_t *answer;
	int rc = call_options("kick", USAGE_KICK, argc, argv, CALL_OPT_SOCKET, 1, 1, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (call_daemon("kick", agent_socket(&o), json_pack("{s:s,s:s}", "cmd", "kick", "user", o.args[0]), &answer) != 0)
		return 1;
	if (call_number(answer, "closed") == 0)
		fprintf(stderr, "walnut kick: %s has nothing open\n", o.args[0]);
	print_closed(answer);
	json_decref(answer);
	return 0;
}
