/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "client/verbs.h"
#include "console/verbs.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} verb[] = {
	{"join", cmd_join, "take an enrolment line from FILE or standard input"},
	{"connect", cmd_connect, "join standard input and output to a service (ssh ProxyCommand)"},
	{"proxy", cmd_proxy, "SOCKS5 for NAME.DOMAIN:PORT on a local port"},
	{"forward", cmd_forward, "a local TCP or UDP port that leads to a service"},
	{"user", cmd_user, "add, delete or list users (at the agent)"},
	{"sessions", cmd_sessions, "who has a hole open (at the agent)"},
	{"kick", cmd_kick, "close all holes of a user (at the agent)"},
	{"status", cmd_status, "of the daemons on this machine"},
	{"why", cmd_why, "the last refusals of this machine's front, of a call or a user, and what to do"},
	{"gate", cmd_gate, "holes, drops and counters of the gate; open, close, drain, trace"},
	{"keys", cmd_keys, "make or show a part's key, certificate and pin"},
	{"check", cmd_check, "read a front's, gate's or agent's file and say what is wrong"},
};

#define VERBS (sizeof(verb) / sizeof(verb[0]))

static void usage(void)
{
	printf("usage: walnut VERB ...\n\n");
	for (size_t i = 0; i < VERBS; i++)
		printf("  %-10s %s\n", verb[i].name, verb[i].help);
	printf("\nwalnut VERB --help shows a verb's options; walnut(1) explains them.\n");
}

int main(int argc, char **argv)
{
	wn_log_init("walnut", WN_LOG_WARN);
	if (argc < 2) {
		fprintf(stderr, "walnut: a verb must follow; walnut --help lists them\n");
		return 2;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
		usage();
		return 0;
	}
	if (strcmp(argv[1], "--version") == 0) {
		printf("walnut %s\n", WALNUT_VERSION);
		return 0;
	}
	for (size_t i = 0; i < VERBS; i++)
		if (strcmp(argv[1], verb[i].name) == 0)
			return verb[i].run(argc - 1, argv + 1);
	fprintf(stderr, "walnut: unknown %s %s; walnut --help lists the verbs\n", argv[1][0] == '-' ? "option" : "verb", argv[1]);
	return 2;
}
