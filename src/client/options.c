/* SPDX-License-Identifier: Apache-2.0 */
#include "client/options.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TIMEOUT_MAX_S 600
#define BACKLOG       128

static const struct option long_options[] = {
	{"listen", required_argument, NULL, 'l'},
	{"udp", no_argument, NULL, 'u'},
	{"allow-remote", no_argument, NULL, 'r'},
	{"timeout", required_argument, NULL, 't'},
	{"enrol", required_argument, NULL, 'e'},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static unsigned option_bit(int c)
{
	switch (c) {
	case 'l':
		return OPT_LISTEN;
	case 'u':
		return OPT_UDP;
	case 'r':
		return OPT_ALLOW_REMOTE;
	case 't':
	case 'e':
		return OPT_SIGNIN;
	default:
		return 0;
	}
}

static int take(struct client_options *o, int c, const char *value)
{
	unsigned long long s;

	switch (c) {
	case 'l':
		o->listen = value;
		return 0;
	case 'u':
		o->udp = true;
		return 0;
	case 'r':
		o->allow_remote = true;
		return 0;
	case 'e':
		o->enrol_file = value;
		return 0;
	default:
		if (span_u64(span_str(value), TIMEOUT_MAX_S, &s) < 0 || s == 0) {
			fprintf(stderr, "walnut %s: --timeout: %s: a number of seconds from 1 to %d is wanted\n", o->verb, value,
				TIMEOUT_MAX_S);
			return -EINVAL;
		}
		o->timeout_ms = (uint32_t)s * 1000;
		return 0;
	}
}

int client_options_parse(int argc, char **argv, unsigned allowed, int min, int max, const char *usage, struct client_options *out)
{
	int c, at = 0;

	*out = (struct client_options){.verb = argv[0]};
	optind = 0; /* start over, also after somebody else's use */
	opterr = 0;
	for (;;) {
		int before = optind == 0 ? 1 : optind;

		c = getopt_long(argc, argv, "+:", long_options, &at);
		if (c == -1)
			break;
		if (c == 'h') {
			printf("usage: walnut %s\n", usage);
			return 1;
		}
		if (c == ':') {
			fprintf(stderr, "walnut %s: %s: a value is wanted; usage: walnut %s\n", argv[0], argv[before], usage);
			return -EINVAL;
		}
		if (c == '?' || (option_bit(c) & allowed) == 0) {
			fprintf(stderr, "walnut %s: %s: no such option; usage: walnut %s\n", argv[0], argv[before], usage);
			return -EINVAL;
		}
		if (take(out, c, optarg) < 0)
			return -EINVAL;
	}
	out->args = argv + optind;
	out->nargs = argc - optind;
	if (out->nargs < min || out->nargs > max) {
		fprintf(stderr, "walnut %s: too %s arguments; usage: walnut %s\n", argv[0], out->nargs < min ? "few" : "many", usage);
		return -EINVAL;
	}
	return 0;
}

static bool is_loopback(const struct wn_addr *a)
{
	static const uint8_t one[16] = {[15] = 1};

	return wn_addr_is4(a) ? a->ip[12] == 127 : memcmp(a->ip, one, sizeof(one)) == 0;
}

int client_listen_address(const struct client_options *o, const char *text, struct wn_addr *out)
{
	if (wn_addr_parse(span_str(text), -1, out) < 0) {
		fprintf(stderr, "walnut %s: %s: an address and port such as 127.0.0.1:1080 is wanted\n", o->verb, text);
		return -EINVAL;
	}
	if (!is_loopback(out) && !o->allow_remote) {
		fprintf(stderr,
			"walnut %s: %s: whoever reaches this address could use your enrolment; take 127.0.0.1, or add --allow-remote\n",
			o->verb, text);
		return -EINVAL;
	}
	return 0;
}

int client_listen(const struct client_options *o, const struct wn_addr *addr, int type, struct wn_addr *at)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(addr, &ss);
	char text[WN_ADDR_STR];
	int fd, one = 1, rc = 0;

	fd = socket(ss.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		rc = -errno;
	if (rc == 0 && type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (rc == 0 && bind(fd, (struct sockaddr *)&ss, len) < 0)
		rc = -errno;
	if (rc == 0 && type == SOCK_STREAM && listen(fd, BACKLOG) < 0)
		rc = -errno;
	len = sizeof(ss);
	if (rc == 0 && getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
		rc = -errno;
	if (rc < 0) {
		fprintf(stderr, "walnut %s: cannot listen on %s: %s\n", o->verb, wn_addr_str(addr, text), strerror(-rc));
		if (fd >= 0)
			close(fd);
		return rc;
	}
	wn_addr_from_sockaddr(at, &ss);
	return fd;
}

void client_ready(const struct wn_addr *at)
{
	char text[WN_ADDR_STR];

	fprintf(stderr, "walnut: ready on %s\n", wn_addr_str(at, text));
}

static void on_signal(uv_signal_t *h, int signum)
{
	struct client_signals *s = (struct client_signals *)h->data;

	(void)signum;
	s->stop(s->arg);
}

void client_signals_start(struct client_signals *s, uv_loop_t *loop, void (*stop)(void *arg), void *arg)
{
	static const int which[3] = {SIGINT, SIGTERM, SIGHUP};

	signal(SIGPIPE, SIG_IGN);
	s->stop = stop;
	s->arg = arg;
	for (unsigned i = 0; i < 3; i++) {
		uv_signal_init(loop, &s->at[i]);
		s->at[i].data = s;
		uv_signal_start(&s->at[i], on_signal, which[i]);
		uv_unref((uv_handle_t *)&s->at[i]);
	}
}

void client_signals_stop(struct client_signals *s)
{
	for (unsigned i = 0; i < 3; i++)
		uv_close((uv_handle_t *)&s->at[i], NULL);
}
