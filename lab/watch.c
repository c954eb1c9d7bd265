/* SPDX-License-Identifier: Apache-2.0 */
/** \file Counts the frames that enter the narrow link, at both its ends and before its queues, by what they are: an agent's connection to
 * a front, its connection to the gate, ARP and neighbour discovery, anything else. One JSON object a line. */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "labnet.h"

#define FRONTS 8
#define SNAP   128 /* bytes looked at; lengths are the frames' own */
#define SHOWN  8   /* of the frames that should not be there */

enum class { FRONT_TLS, GATE_TLS, NEIGHBOUR, OTHER, CLASSES };
static const char *const class_name[CLASSES] = {"front_tls", "gate_tls", "neighbour", "other"};

struct endpoint {
	uint32_t addr;
	uint16_t port;
};

static struct {
	uint32_t agent;
	struct endpoint front[FRONTS], gate;
	unsigned nfront;
} who;

static struct {
	uint64_t frames[2][CLASSES], bytes[2][CLASSES];
	uint64_t lost;
	unsigned nshown;
	char shown[SHOWN][96];
} seen;

static bool between(uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport, const struct endpoint *e)
{
	return (src == who.agent && dst == e->addr && dport == e->port) || (dst == who.agent && src == e->addr && sport == e->port);
}

static enum class classify(const uint8_t *f, size_t n, char *what, size_t room) {
	unsigned type = n >= LAB_ETH ? (unsigned)f[12] << 8 | f[13] : 0; char a[INET_ADDRSTRLEN], b[INET_ADDRSTRLEN]; uint32_t src, dst;
	uint16_t sport = 0, dport = 0; size_t ihl;

	if (type == 0x0806) return NEIGHBOUR;
	/* ICMPv6 133 to 137, without extension headers */
	if (type == 0x86DD && n >= LAB_ETH + 41 && f[LAB_ETH + 6] == IPPROTO_ICMPV6 && f[LAB_ETH + 40] >= 133 &&
	    f[LAB_ETH + 40] <= 137) return NEIGHBOUR;
	if (type != 0x0800 || n < LAB_ETH + LAB_IP){snprintf(what, room, "ethertype %04x, %zu bytes", type, n); return OTHER;}
ihl = (size_t)(f[LAB_ETH] & 15) * 4;
memcpy(&src, f + LAB_ETH + 12, 4);
memcpy(&dst, f + LAB_ETH + 16, 4);
if (n >= LAB_ETH + ihl + 4) {
	sport = (uint16_t)(f[LAB_ETH + ihl] << 8 | f[LAB_ETH + ihl + 1]);
	dport = (uint16_t)(f[LAB_ETH + ihl + 2] << 8 | f[LAB_ETH + ihl + 3]);
}
if (f[LAB_ETH + 9] == IPPROTO_TCP) {
	for (unsigned i = 0; i < who.nfront; i++)
		if (between(src, sport, dst, dport, &who.front[i]))
			return FRONT_TLS;
	if (between(src, sport, dst, dport, &who.gate))
		return GATE_TLS;
}
inet_ntop(AF_INET, &src, a, sizeof(a));
inet_ntop(AF_INET, &dst, b, sizeof(b));
snprintf(what, room, "protocol %u %s:%u > %s:%u, %zu bytes", f[LAB_ETH + 9], a, sport, b, dport, n);
return OTHER;
}

static void drain(int fd, unsigned end)
{
	uint8_t f[SNAP];
	ssize_t n;

	while ((n = recv(fd, f, sizeof(f), MSG_TRUNC)) > 0) {
		char what[96];
		enum class c = classify(f, (size_t)n < sizeof(f) ? (size_t)n : sizeof(f), what, sizeof(what));

		seen.frames[end][c]++;
		seen.bytes[end][c] += (uint64_t)n;
		if (c == OTHER && seen.nshown < SHOWN)
			memcpy(seen.shown[seen.nshown++], what, sizeof(what));
	}
}

static void report(const int fd[2])
{
	for (int i = 0; i < 2; i++) {
		struct {
			unsigned packets, drops;
		} st;
		socklen_t len = sizeof(st);

		if (getsockopt(fd[i], 263 /* SOL_PACKET */, 6 /* PACKET_STATISTICS */, &st, &len) == 0)
			seen.lost += st.drops;
	}
	printf("{\"t\": %.3f, \"lost\": %llu", (double)lab_now_ns() / 1e9, (unsigned long long)seen.lost);
	for (int c = 0; c < CLASSES; c++)
		printf(", \"%s\": {\"frames\": %llu, \"bytes\": %llu, \"in\": %llu, \"out\": %llu}", class_name[c],
		       (unsigned long long)(seen.frames[0][c] + seen.frames[1][c]),
		       (unsigned long long)(seen.bytes[0][c] + seen.bytes[1][c]), (unsigned long long)seen.bytes[0][c],
		       (unsigned long long)seen.bytes[1][c]);
	printf(", \"shown\": [");
	for (unsigned i = 0; i < seen.nshown; i++)
		printf("%s\"%s\"", i ? ", " : "", seen.shown[i]);
	printf("]}\n");
	fflush(stdout);
}

static int usage(void)
{
	fprintf(stderr, "usage: lab-watch UPPER LOWER --agent ADDR --front ADDR:PORT... --gate ADDR:PORT [--interval MS] [--seconds N]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"agent", required_argument, NULL, 'a'},   {"front", required_argument, NULL, 'f'},
		{"gate", required_argument, NULL, 'g'},    {"interval", required_argument, NULL, 'i'},
		{"seconds", required_argument, NULL, 's'}, {NULL, 0, NULL, 0},
	};
	unsigned interval = 500, seconds = LAB_SECONDS_MAX;
	uint64_t next;
	int fd[2], c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'a' && lab_parse(optarg, &who.agent, NULL) == 0)
			continue;
		if (c == 'g' && lab_parse(optarg, &who.gate.addr, &who.gate.port) == 0)
			continue;
		if (c == 'f' && who.nfront < FRONTS && lab_parse(optarg, &who.front[who.nfront].addr, &who.front[who.nfront].port) == 0) {
			who.nfront++;
			continue;
		}
		if (c == 'i' && (interval = (unsigned)strtoul(optarg, NULL, 10)) >= 10)
			continue;
		if (c == 's' && (seconds = (unsigned)strtoul(optarg, NULL, 10)) >= 1)
			continue;
		return usage();
	}
	if (argc - optind != 2)
		return usage();
	for (int i = 0; i < 2; i++) {
		fd[i] = lab_rx_open(argv[optind + i], 65535);
		if (fd[i] < 0) {
			fprintf(stderr, "lab-watch: %s: %s\n", argv[optind + i], strerror(-fd[i]));
			return 1;
		}
	}
	lab_bounded(seconds);
	report(fd);
	next = lab_now_ns() + interval * 1000000ull;
	while (!lab_stop) {
		struct pollfd p[2] = {{.fd = fd[0], .events = POLLIN}, {.fd = fd[1], .events = POLLIN}};
		uint64_t now = lab_now_ns();

		if (now >= next) {
			report(fd);
			next = now + interval * 1000000ull;
		}
		if (poll(p, 2, (int)((next - now) / 1000000u) + 1) < 0 && errno != EINTR)
			break;
		drain(fd[0], 0);
		drain(fd[1], 1);
	}
	drain(fd[0], 0);
	drain(fd[1], 1);
	report(fd);
	return 0;
}
