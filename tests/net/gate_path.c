/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path alone, without the daemon around it: gate-path OUTSIDE INSIDE PUBLIC CONTROL PREFIX STATE, then a command a line. With
 * several PREFIXes, by commas, PUBLIC are the protected addresses, by commas too.
 *
 *   open udp|tcp ADDRESS:PORT tag|REMOTE[:PORT] LIFETIME   -> "ok HOLE PORT" or "status N"; with tag the key is 16 times 0x42
 *   close HOLE | renew HOLE LIFETIME                       -> "ok" or "status N"
 *   counters                                               -> "NAME VALUE" for each that is not 0, then "end"
 *   remove                                                 -> detaches, ends */
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/dataplane.h"

static struct gate_config cfg;

/* \return false when one of them is none. */
static bool prefixes(char *list)
{
	unsigned *n = &cfg.tenant[0].nprefix;

	for (char *at = strtok(list, ","); at != NULL && *n < GATE_PREFIXES_MAX; at = strtok(NULL, ","))
		if (wn_prefix_parse(span_str(at), &cfg.tenant[0].prefix[(*n)++]) != 0)
			return false;
	return *n > 0;
}

static bool addresses(char *list)
{
	struct wn_addr a;

	cfg.firewall = cfg.tenant[0].nprefix > 1;
	for (char *at = strtok(list, ","); at != NULL; at = strtok(NULL, ",")) {
		if (wn_ip_parse(span_str(at), &a) != 0)
			return false;
		*(wn_addr_is4(&a) ? &cfg.public[cfg.npublic++] : &cfg.protected6[cfg.nprotected6++]) = a;
	}
	return true;
}

static void counter(const char *name, int is_drop, uint64_t value, void *arg)
{
	(void)is_drop;
	(void)arg;
	if (value != 0)
		printf("%s %" PRIu64 "\n", name, value);
}

static void answer(const struct gate_reply *r)
{
	if (r->status != GATE_OK)
		printf("status %u\n", r->status);
	else
		printf("ok %" PRIu64 " %u\n", r->hole, r->public.port);
}

static void command(struct gate_dp *dp, char *line)
{
	struct gate_request r;
	struct gate_reply reply;
	char proto[8], inside[64], remote[64];
	uint64_t hole;
	unsigned lifetime = 0;

	memset(&r, 0, sizeof(r));
	if (sscanf(line, "open %7s %63s %63s %u", proto, inside, remote, &lifetime) == 4) {
		r.op = GATE_OPEN;
		r.proto = strcmp(proto, "udp") == 0 ? IPPROTO_UDP : IPPROTO_TCP;
		r.lifetime_s = lifetime;
		snprintf(r.user, sizeof(r.user), "alice");
		if (wn_addr_parse(span_str(inside), -1, &r.inside) != 0)
			r.op = 0;
		if (strcmp(remote, "tag") == 0) {
			r.flags = GATE_FLAG_TAG;
			memset(r.key, 0x42, sizeof(r.key));
		} else if (wn_addr_parse(span_str(remote), 0, &r.remote) != 0) {
			r.op = 0;
		}
	} else if (sscanf(line, "close %" SCNu64, &hole) == 1) {
		r.op = GATE_CLOSE;
		r.hole = hole;
	} else if (sscanf(line, "renew %" SCNu64 " %u", &hole, &lifetime) == 2) {
		r.op = GATE_RENEW;
		r.hole = hole;
		r.lifetime_s = lifetime;
	} else if (strncmp(line, "counters", 8) == 0) {
		gate_dp_counters(dp, counter, NULL);
		printf("end\n");
		return;
	}
	gate_dp_apply(dp, &r, wn_now_ms(), &reply);
	answer(&reply);
}

int main(int argc, char **argv)
{
	struct gate_dp *dp;
	struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.events = POLLIN}};
	static char in[4096];
	size_t have = 0;
	char *end;

	if (argc != 7)
		return 2;
	wn_log_init("gate-path", WN_LOG_INFO);
	setvbuf(stdout, NULL, _IOLBF, 0);
	snprintf(cfg.outside, sizeof(cfg.outside), "%s", argv[1]);
	snprintf(cfg.inside, sizeof(cfg.inside), "%s", argv[2]);
	snprintf(cfg.state, sizeof(cfg.state), "%s", argv[6]);
	snprintf(cfg.tenant[0].name, sizeof(cfg.tenant[0].name), "example.org");
	cfg.ntenant = 1;
	cfg.port_low = 1024;
	cfg.port_high = 65535;
	cfg.flows = cfg.mappings = 4096;
	cfg.holes = cfg.tenant[0].holes = 256;
	if (!prefixes(argv[5]) || !addresses(argv[3]) || wn_addr_parse(span_str(argv[4]), -1, &cfg.control) != 0)
		return 2;
	if (gate_dp_open(&cfg, &dp) != 0)
		return 1;
	p[1].fd = gate_dp_fd(dp);
	printf("ready\n");
	for (;;) {
		if (poll(p, 2, 1000) < 0 && errno != EINTR)
			return 1;
		if (p[1].revents != 0)
			gate_dp_events(dp);
		gate_dp_sweep(dp, wn_now_ms());
		if (p[0].revents == 0)
			continue;
		ssize_t n = read(0, in + have, sizeof(in) - have - 1);

		if (n <= 0)
			break;
		have += (size_t)n;
		in[have] = '\0';
		while ((end = strchr(in, '\n')) != NULL) {
			*end = '\0';
			if (strcmp(in, "remove") == 0) {
				gate_dp_close(dp);
				return gate_dp_remove(&cfg) != 0;
			}
			command(dp, in);
			have -= (size_t)(end + 1 - in);
			memmove(in, end + 1, have + 1);
		}
	}
	gate_dp_close(dp);
	return 0;
}
