/* SPDX-License-Identifier: Apache-2.0 */
#include "console/call.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/ctl.h"

static const struct option long_options[] = {
	{"socket", required_argument, NULL, 's'},
	{"json", no_argument, NULL, 'j'},
	{"md5", no_argument, NULL, 'm'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static unsigned option_bit(int c)
{
	return c == 's' ? CALL_OPT_SOCKET : c == 'j' ? CALL_OPT_JSON : c == 'm' ? CALL_OPT_MD5 : 0;
}

int call_options(const char *name, const char *usage, int argc, char **argv, unsigned allowed, int min, int max, struct call_options *out)
{
	memset(out, 0, sizeof(*out));
	optind = 0; /* start over: main and the verb both parse */
	opterr = 0;
	for (;;) {
		int before = optind == 0 ? 1 : optind;
		int c = getopt_long(argc, argv, ":", long_options, NULL);

		if (c == -1)
			break;
		if (c == 'h') {
			printf("usage: walnut %s\n", usage);
			return 1;
		}
		if (c == ':') {
			fprintf(stderr, "walnut %s: %s needs a value; usage: walnut %s\n", name, argv[before], usage);
			return -EINVAL;
		}
		if (c == '?' || (option_bit(c) & allowed) == 0) {
			fprintf(stderr, "walnut %s: unknown option %s; usage: walnut %s\n", name, argv[before], usage);
			return -EINVAL;
		}
		if (c == 's')
			out->socket = optarg;
		out->json |= c == 'j';
		out->md5 |= c == 'm';
	}
	out->args = argv + optind;
	out->nargs = argc - optind;
	if (out->nargs < min || out->nargs > max) {
		fprintf(stderr, "walnut %s: %s arguments; usage: walnut %s\n", name, out->nargs < min ? "too few" : "too many", usage);
		return -EINVAL;
	}
	return 0;
}

int call_daemon(const char *name, const char *socket, json_t *request, json_t **answer)
{
	char text[512];
	int rc;

	rc = request == NULL ? -ENOMEM : ctl_call(socket, request, CALL_TIMEOUT_MS, answer);
	json_decref(request);
	if (rc == -ENOENT || rc == -ECONNREFUSED) {
		fprintf(stderr, "walnut %s: no daemon answers at %s; start it, or name its socket with --socket\n", name, socket);
		return 1;
	}
	if (rc == -EACCES) {
		fprintf(stderr, "walnut %s: %s: permission denied; run this as the user who started the daemon (root)\n", name, socket);
		return 1;
	}
	if (rc < 0) {
		fprintf(stderr, "walnut %s: %s: %s\n", name, socket, strerror(-rc));
		return 1;
	}
	if (!json_is_true(json_object_get(*answer, "ok"))) {
		fprintf(stderr, "walnut %s: %s\n", name, call_text(json_object_get(*answer, "error"), text, sizeof(text)));
		json_decref(*answer);
		*answer = NULL;
		return 1;
	}
	return 0;
}

void call_print_json(const json_t *answer)
{
	json_dumpf(answer, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
	putchar('\n');
}

const char *call_text(const json_t *value, char *buf, size_t cap)
{
	if (json_is_string(value))
		snprintf(buf, cap, "%s", json_string_value(value));
	else if (json_is_integer(value))
		snprintf(buf, cap, "%lld", (long long)json_integer_value(value));
	else if (json_is_boolean(value))
		snprintf(buf, cap, "%s", json_is_true(value) ? "yes" : "no");
	else
		snprintf(buf, cap, "-");
	for (char *p = buf; *p != 0; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			*p = '?';
	return buf;
}

const char *call_duration(uint64_t seconds, char *buf, size_t cap)
{
	const unsigned long long s = seconds;

	if (s < 60)
		snprintf(buf, cap, "%llu s", s);
	else if (s < 3600)
		snprintf(buf, cap, "%llu min %llu s", s / 60, s % 60);
	else if (s < 86400)
		snprintf(buf, cap, "%llu h %llu min", s / 3600, s % 3600 / 60);
	else
		snprintf(buf, cap, "%llu d %llu h", s / 86400, s % 86400 / 3600);
	return buf;
}

uint64_t call_number(const json_t *object, const char *key)
{
	json_int_t v = json_integer_value(json_object_get(object, key));

	return v > 0 ? (uint64_t)v : 0;
}
