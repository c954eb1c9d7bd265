/* SPDX-License-Identifier: Apache-2.0 */
/* front-load: traffic for the bench of the front, from and to 127/8. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/addr.h"
#include "load.h"
#include "users.h"

volatile sig_atomic_t load_stop;

static void on_signal(int signum)
{
	(void)signum;
	load_stop = 1;
}

static const struct mode {
	const char *name;
	int (*run)(const struct load_options *);
	const char *what;
} modes[] = {
	{"strangers", load_strangers, "requests without credentials, each answer lets the next one go"},
	{"flood", load_flood, "the same without listening"},
	{"nodialog", load_nodialog, "requests in a dialog that was never accepted"},
	{"replay", load_replay, "the requests in --save again and again"},
	{"calls", load_calls, "whole calls through the server"},
	{"tcp", load_tcp, "whole calls, a new TCP connection each"},
	{"badnonce", load_badnonce, "wrong digests with nonces that verify"},
	{"users", load_users, "prints names and secrets of --users"},
};

static void usage(FILE *to)
{
	fputs("usage: front-load MODE --to 127.A.B.C:PORT [OPTION...]\n\n", to);
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		fprintf(to, "  %-10s %s\n", modes[i].name, modes[i].what);
	fputs("\nof all: --seconds N --count N --rate N --domain NAME --service NAME --addresses N --ports N --first-port N --segments N "
	      "--size BYTES "
	      "--window N\n"
	      "calls: --uas 127.A.B.C:PORT --auth none|challenge|next --alg md5|sha-256 --users N --seed TEXT --retransmit --deadline MS\n"
	      "       --warm S --hold --save FILE\n"
	      "flood, nodialog, replay: --burst N --pid SERVER; nodialog: --method BYE|ACK; replay: --save FILE --other-port "
	      "--other-bytes\n"
	      "Prints one JSON object.\n",
	      to);
}

static bool number(const char *text, uint64_t most, uint64_t *out)
{
	unsigned long long v;

	if (span_u64(span_str(text), most, &v) != 0)
		return false;
	*out = v;
	return true;
}

static bool address(const char *text, struct sockaddr_in *out)
{
	struct sockaddr_storage ss;
	struct wn_addr a;

	if (wn_addr_parse(span_str(text), -1, &a) != 0 || a.port == 0 || !wn_addr_is4(&a))
		return false;
	wn_addr_to_sockaddr(&a, &ss);
	memcpy(out, &ss, sizeof(*out));
	return load_guard(out);
}

enum {
	O_TO = 1,
	O_UAS,
	O_DOMAIN,
	O_SERVICE,
	O_COUNT,
	O_SECONDS,
	O_RATE,
	O_WINDOW,
	O_ADDRESSES,
	O_PORTS,
	O_SEGMENTS,
	O_SIZE,
	O_AUTH,
	O_ALG,
	O_USERS,
	O_SEED,
	O_DEADLINE,
	O_RETRANSMIT,
	O_HOLD,
	O_SAVE,
	O_METHOD,
	O_OTHER_PORT,
	O_OTHER_BYTES,
	O_WARM,
	O_FIRST_PORT,
	O_BURST,
	O_PID
};

static const struct option options[] = {
	{"to", required_argument, NULL, O_TO},
	{"uas", required_argument, NULL, O_UAS},
	{"domain", required_argument, NULL, O_DOMAIN},
	{"service", required_argument, NULL, O_SERVICE},
	{"count", required_argument, NULL, O_COUNT},
	{"seconds", required_argument, NULL, O_SECONDS},
	{"rate", required_argument, NULL, O_RATE},
	{"window", required_argument, NULL, O_WINDOW},
	{"addresses", required_argument, NULL, O_ADDRESSES},
	{"ports", required_argument, NULL, O_PORTS},
	{"segments", required_argument, NULL, O_SEGMENTS},
	{"size", required_argument, NULL, O_SIZE},
	{"auth", required_argument, NULL, O_AUTH},
	{"alg", required_argument, NULL, O_ALG},
	{"users", required_argument, NULL, O_USERS},
	{"seed", required_argument, NULL, O_SEED},
	{"deadline", required_argument, NULL, O_DEADLINE},
	{"retransmit", no_argument, NULL, O_RETRANSMIT},
	{"hold", no_argument, NULL, O_HOLD},
	{"save", required_argument, NULL, O_SAVE},
	{"method", required_argument, NULL, O_METHOD},
	{"other-port", no_argument, NULL, O_OTHER_PORT},
	{"other-bytes", no_argument, NULL, O_OTHER_BYTES},
	{"warm", required_argument, NULL, O_WARM},
	{"burst", required_argument, NULL, O_BURST},
	{"pid", required_argument, NULL, O_PID},
	{"first-port", required_argument, NULL, O_FIRST_PORT},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static bool one_number(int c, const char *text, struct load_options *o)
{
	uint64_t v = 0;
	bool ok = true;

	switch (c) {
	case O_COUNT:
		return number(text, LOAD_COUNT_MAX, &o->count);
	case O_RATE:
		return number(text, 10000000, &o->rate);
	case O_USERS:
		return number(text, 16000000, &o->users) && o->users > 0;
	case O_SECONDS:
		ok = number(text, LOAD_SECONDS_MAX, &v);
		o->seconds = (unsigned)v;
		break;
	case O_WINDOW:
		ok = number(text, 65536, &v) && v > 0;
		o->window = (unsigned)v;
		break;
	case O_ADDRESSES:
		ok = number(text, LOAD_ADDRS_MAX, &v) && v > 0;
		o->addresses = (unsigned)v;
		break;
	case O_PORTS:
		ok = number(text, LOAD_PORTS_MAX, &v) && v > 0;
		o->ports = (unsigned)v;
		break;
	case O_SEGMENTS:
		ok = number(text, 64, &v) && v > 0;
		o->segments = (unsigned)v;
		break;
	case O_SIZE:
		ok = number(text, 1400, &v);
		o->size = (unsigned)v;
		break;
	case O_DEADLINE:
		ok = number(text, 64000, &v) && v > 0;
		o->deadline_ms = (unsigned)v;
		break;
	case O_FIRST_PORT:
		ok = number(text, 65000, &v) && v >= 10000;
		o->first_port = (unsigned)v;
		break;
	case O_BURST:
		ok = number(text, 65536, &v) && v > 0;
		o->burst = (unsigned)v;
		break;
	case O_PID:
		ok = number(text, 4194304, &v) && v > 1;
		o->pid = (unsigned)v;
		break;
	case O_WARM:
		ok = number(text, 60, &v);
		o->warm_s = (unsigned)v;
		break;
	default:
		return false;
	}
	return ok;
}

static bool one_option(int c, const char *text, struct load_options *o)
{
	switch (c) {
	case O_TO:
		return address(text, &o->to);
	case O_UAS:
		return address(text, &o->uas);
	case O_DOMAIN:
		o->domain = text;
		return true;
	case O_SERVICE:
		o->service = text;
		return true;
	case O_AUTH:
		o->auth = text;
		return strcmp(text, "none") == 0 || strcmp(text, "challenge") == 0 || strcmp(text, "next") == 0;
	case O_ALG:
		o->alg = text;
		return strcmp(text, "md5") == 0 || strcmp(text, "sha-256") == 0;
	case O_SEED:
		o->seed = front_user_seed(text);
		return true;
	case O_RETRANSMIT:
		o->retransmit = true;
		return true;
	case O_HOLD:
		o->hold = true;
		return true;
	case O_SAVE:
		o->save = text;
		return true;
	case O_METHOD:
		o->method = text;
		return strcmp(text, "BYE") == 0 || strcmp(text, "ACK") == 0;
	case O_OTHER_PORT:
		o->other_port = true;
		return true;
	case O_OTHER_BYTES:
		o->other_bytes = true;
		return true;
	default:
		return one_number(c, text, o);
	}
}

int main(int argc, char **argv)
{
	struct load_options o = {.domain = "example.org",
				 .service = "uas",
				 .seconds = 2,
				 .window = 1024,
				 .addresses = 4096,
				 .ports = 16,
				 .first_port = LOAD_FIRST_PORT,
				 .segments = 1,
				 .size = 450,
				 .auth = "none",
				 .alg = "sha-256",
				 .users = 1000,
				 .seed = front_user_seed("bench"),
				 .deadline_ms = 32000,
				 .method = "BYE"};
	const struct mode *mode = NULL;
	struct sigaction sa = {.sa_handler = on_signal};
	int c;

	for (size_t i = 0; argc > 1 && i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(argv[1], modes[i].name) == 0)
			mode = &modes[i];
	if (mode == NULL) {
		usage(argc > 1 && strcmp(argv[1], "--help") == 0 ? stdout : stderr);
		return argc > 1 && strcmp(argv[1], "--help") == 0 ? 0 : 2;
	}
	optind = 2;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'h' || !one_option(c, optarg, &o)) {
			if (c != 'h')
				fprintf(stderr, "front-load: --%s: %s: not that (addresses are 127.A.B.C:PORT)\n", "option",
					optarg != NULL ? optarg : "?");
			usage(c == 'h' ? stdout : stderr);
			return c == 'h' ? 0 : 2;
		}
	}
	if ((o.burst != 0) != (o.pid != 0)) {
		fprintf(stderr, "front-load: --burst and --pid go together\n");
		return 2;
	}
	if (optind != argc || (o.to.sin_port == 0 && mode->run != load_users)) {
		usage(stderr);
		return 2;
	}
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	alarm(o.seconds + 45);
	return mode->run(&o);
}
