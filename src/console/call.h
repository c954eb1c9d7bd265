/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the verbs that talk to a daemon have in common. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#define CALL_SOCKET_FRONT "/run/walnut/front.sock"
#define CALL_SOCKET_AGENT "/run/walnut/agent.sock"
#define CALL_SOCKET_GATE  "/run/walnut/gate.sock"
#define CALL_TIMEOUT_MS   5000

enum {
	CALL_OPT_SOCKET = 1, /* --socket PATH */
	CALL_OPT_JSON = 2,   /* --json */
	CALL_OPT_MD5 = 4,    /* --md5 */
};

struct call_options {
	const char *socket; /* NULL: not given */
	bool json, md5;
	char **args; /* what is left */
	int nargs;
};

/** `name` stands in front of errors ("user add"); argv[0] is skipped; `allowed` is of CALL_OPT_*; `min` and `max` count the arguments that
 * are left. \return 0, 1 when --help was printed to stdout, -EINVAL with one line on stderr. */
int call_options(const char *name, const char *usage, int argc, char **argv, unsigned allowed, int min, int max, struct call_options *out);

/** Sends the request (takes the reference) and checks "ok". The caller owns *answer.
 * \return 0, or 1 (an exit status) with one line on stderr. */
int call_daemon(const char *name, const char *socket, json_t *request, json_t **answer);

/** Pretty-prints to stdout. */
void call_print_json(const json_t *answer);

/** Text of an answer with everything replaced that could drive a terminal; NULL gives "-". buf is returned. */
const char *call_text(const json_t *value, char *buf, size_t cap);

/** "3 d 4 h", "12 s". buf is returned. */
const char *call_duration(uint64_t seconds, char *buf, size_t cap);

/** json_integer_value of a member, 0 without one. */
uint64_t call_number(const json_t *object, const char *key);
