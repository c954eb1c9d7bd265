/* SPDX-License-Identifier: Apache-2.0 */
/** \file lab-load: what an attacker sends, bounded in count and time, and only inside a lab. */
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

#include "load.h"

static struct lab_tx tx;

int load_udp(const struct load_options *o)
{
	static uint8_t payload[LAB_PAYLOAD_MAX];
	uint64_t start = lab_now_ns(), sent = 0, missed = 0;
	struct lab_pace pace;

	if (lab_tx_open(&tx, o->dev, o->to[0]) < 0)
		return 1;
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)lab_random();
	lab_pace_start(&pace, o->rate);
	for (uint64_t tick = start; !lab_stop && sent < o->count;) {
		unsigned due = lab_due(&pace);

		if (due > o->count - sent)
			due = (unsigned)(o->count - sent);
		for (unsigned i = 0; i < due; i++) {
			uint64_t r = lab_random();
			unsigned k = (unsigned)(sent++ % o->nto);
			bool spoofed = r % 100 < o->spoof;

			lab_tx_udp(&tx, spoofed ? lab_spoofed() : tx.addr, (uint16_t)(1024 + (r >> 16) % 64000), o->to[k],
				   o->port[k] ? o->port[k] : (uint16_t)(1024 + (r >> 40) % 64000), payload, o->size);
		}
		lab_tx_flush(&tx);
		lab_sleep_until(tick += 1000000);
		if (lab_now_ns() > tick + 50000000)
			tick = lab_now_ns();
	}
	missed = pace.missed;
	double s = (double)(lab_now_ns() - start) / 1e9;

	printf("{\"sent\": %llu, \"failed\": %llu, \"missed\": %llu, \"seconds\": %.2f, \"rate\": %.0f, \"mbit\": %.1f}\n",
	       (unsigned long long)tx.sent, (unsigned long long)tx.failed, (unsigned long long)missed, s, (double)tx.sent / s,
	       (double)tx.sent * (o->size + 42) * 8 / s / 1e6);
	return 0;
}

/* Datagrams that are no SIP, or hardly: sizes from 0 to the frame's, random bytes, broken beginnings. */
int load_garbage(const struct load_options *o)
{
	static const char *const begin[] = {"",
					    "\r\n\r\n",
					    "INVITE ",
					    "SIP/2.0 200 OK\r\n",
					    "INVITE sip:x@example.org SIP/2.0\r\n",
					    "\x16\x03\x01",
					    "GET / HTTP/1.1\r\n"};
	uint8_t payload[LAB_PAYLOAD_MAX];
	uint64_t sent = 0, start = lab_now_ns();
	struct lab_pace pace;

	if (lab_tx_open(&tx, o->dev, o->to[0]) < 0)
		return 1;
	lab_pace_start(&pace, o->rate);
	while (!lab_stop && sent < o->count) {
		for (unsigned due = lab_due(&pace); due && sent < o->count; due--, sent++) {
			uint64_t r = lab_random();
			const char *b = begin[r % (sizeof(begin) / sizeof(*begin))];
			size_t n = (r >> 8) % LAB_PAYLOAD_MAX, k = strlen(b);
			unsigned to = (unsigned)(sent % o->nto);

			for (size_t i = 0; i < n; i += 8) {
				uint64_t w = lab_random();

				memcpy(payload + i, &w, n - i < 8 ? n - i : 8);
			}
			memcpy(payload, b, k < n ? k : n);
			lab_tx_udp(&tx, (r >> 32) % 100 < o->spoof ? lab_spoofed() : tx.addr, (uint16_t)(1024 + (r >> 16) % 64000),
				   o->to[to], o->port[to], payload, n);
		}
		lab_tx_flush(&tx);
		lab_sleep_until(lab_now_ns() + 1000000);
	}
	printf("{\"sent\": %llu, \"failed\": %llu, \"seconds\": %.2f}\n", (unsigned long long)tx.sent, (unsigned long long)tx.failed,
	       (double)(lab_now_ns() - start) / 1e9);
	return 0;
}

/* One datagram again and again, changed in one respect: the first target is where it went, the second another front. */
int load_replay(const struct load_options *o)
{
	static const char *const variant[] = {"exact", "port", "address", "front", "body"};
	uint8_t datagram[LAB_PAYLOAD_MAX], changed[LAB_PAYLOAD_MAX];
	FILE *f = fopen(o->file, "re");
	size_t len;
	bool first = true;

	if (!f) {
		fprintf(stderr, "lab-load: %s: %s\n", o->file, strerror(errno));
		return 2;
	}
	len = fread(datagram, 1, sizeof(datagram), f);
	fclose(f);
	if (len == 0 || o->nto < 2 || o->from_port == 0 || lab_tx_open(&tx, o->dev, o->to[0]) < 0)
		return 2;
	printf("{");
	for (unsigned v = 0; v < 5 && !lab_stop; v++) {
		uint64_t before = tx.sent;
		struct lab_pace pace;

		if (o->only && strcmp(o->only, variant[v]) != 0)
			continue;
		lab_pace_start(&pace, o->rate);
		for (uint64_t i = 0; i < o->count && !lab_stop;) {
			for (unsigned due = lab_due(&pace); due && i < o->count; due--, i++) {
				uint32_t src = o->from;
				uint16_t sport = o->from_port;
				unsigned to = v == 3;

				memcpy(changed, datagram, len);
				if (v == 1)
					sport = (uint16_t)(1024 + (o->from_port + 1 + i) % 64000);
				if (v == 2)
					src = i % 2 ? lab_spoofed() : tx.addr;
				if (v == 4) /* one of the last 64 bytes: the body's */
					changed[len - 1 - i % 64] ^= (uint8_t)(1u << (i / 64 % 5));
				if (v == 1 && sport == o->from_port)
					sport++;
				lab_tx_udp(&tx, src, sport, o->to[to], o->port[to], changed, len);
			}
			lab_tx_flush(&tx);
			lab_sleep_until(lab_now_ns() + 1000000);
		}
		printf("%s\"%s\": %llu", first ? "" : ", ", variant[v], (unsigned long long)(tx.sent - before));
		first = false;
	}
	printf("}\n");
	return 0;
}

/* Reads what came from `target`; marks the ports (TCP in bit 0, UDP in bit 1). */
static void answers(int fd, uint32_t target, uint8_t *port, uint64_t *frames)
{
	uint8_t f[128];
	ssize_t n;

	while ((n = recv(fd, f, sizeof(f), 0)) > 0) {
		size_t ihl;

		if (n < LAB_ETH + LAB_IP || f[12] != 0x08 || f[13] != 0x00 || memcmp(f + LAB_ETH + 12, &target, 4) != 0)
			continue;
		(*frames)++;
		ihl = (size_t)(f[LAB_ETH] & 15) * 4;
		if ((size_t)n < LAB_ETH + ihl + 4)
			continue;
		port[f[LAB_ETH + ihl] << 8 | f[LAB_ETH + ihl + 1]] |= f[LAB_ETH + 9] == IPPROTO_TCP   ? 1
								      : f[LAB_ETH + 9] == IPPROTO_UDP ? 2
												      : 4;
	}
}

int load_scan(const struct load_options *o)
{
	static uint8_t port[65536];
	uint64_t frames = 0, done = 0, all = (uint64_t)o->tcp + o->udp + o->nalso;
	unsigned answered = 0, shown = 0;
	struct lab_pace pace;
	int fd;

	if (lab_tx_open(&tx, o->dev, o->to[0]) < 0)
		return 1;
	fd = lab_rx_open(o->dev, 128);
	if (fd < 0) {
		fprintf(stderr, "lab-load: %s: %s\n", o->dev, strerror(-fd));
		return 1;
	}
	lab_pace_start(&pace, o->rate);
	while (!lab_stop && done < all) {
		for (unsigned due = lab_due(&pace); due && done < all; due--, done++) {
			uint16_t sport = (uint16_t)(20000 + lab_random() % 40000);

			if (done < o->tcp)
				lab_tx_syn(&tx, tx.addr, sport, o->to[0], (uint16_t)(done + 1));
			else if (done < (uint64_t)o->tcp + o->nalso)
				lab_tx_udp(&tx, tx.addr, sport, o->to[0], o->also[done - o->tcp], "walnut scan", 11);
			else
				lab_tx_udp(&tx, tx.addr, sport, o->to[0], (uint16_t)(1 + (done * 40503u) % 65535), "walnut scan", 11);
		}
		lab_tx_flush(&tx);
		answers(fd, o->to[0], port, &frames);
		lab_sleep_until(lab_now_ns() + 1000000);
	}
	/* Late answers. */
	for (uint64_t end = lab_now_ns() + 1000000000u; lab_now_ns() < end && !lab_stop;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};

		(void)poll(&p, 1, 50);
		answers(fd, o->to[0], port, &frames);
	}
	for (unsigned i = 0; i < 65536; i++)
		answered += port[i] != 0;
	printf("{\"tcp\": %u, \"udp\": %u, \"sent\": %llu, \"failed\": %llu, \"frames_back\": %llu, \"answered\": %u, \"ports\": [", o->tcp,
	       o->udp + o->nalso, (unsigned long long)tx.sent, (unsigned long long)tx.failed, (unsigned long long)frames, answered);
	for (unsigned i = 0; i < 65536 && shown < 32; i++)
		if (port[i])
			printf("%s%u", shown++ ? ", " : "", i);
	printf("]}\n");
	return lab_stop ? 1 : 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: lab-load udp|sip|replay|scan|garbage --dev DEV --to ADDR[:PORT]... [options]\n"
			"  all:     --rate N (a second, per target; at most 200000)  --seconds N (at most 600)  --count N\n"
			"  udp:     --size BYTES  --spoof PERCENT (sources out of 198.19.0.0/16)\n"
			"  sip:     --domain D  --user KNOWN  --service S  --epoch-s N  --spoof PERCENT\n"
			"           --only no_nonce|forged_nonce|unknown_user|wrong_secret|malformed\n"
			"  replay:  --file DATAGRAM  --from ADDR:PORT  --only exact|port|address|front|body\n"
			"  scan:    --tcp N  --udp N  --udp-port PORT...\n");
	return 2;
}

static bool number(const char *text, uint64_t low, uint64_t high, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (errno == 0 && end != text && *end == '\0' && *out >= low && *out <= high)
		return true;
	fprintf(stderr, "lab-load: %s: a number from %llu to %llu is wanted\n", text, (unsigned long long)low, (unsigned long long)high);
	return false;
}

int main(int argc, char **argv)
{
	enum { TO = 1, RATE, SECONDS, COUNT, SIZE, SPOOF, DOMAIN, USER, SERVICE, EPOCH, ONLY, FILENAME, FROM, TCP, UDP, ALSO, DEV };
	static const struct option options[] = {
		{"to", required_argument, NULL, TO},           {"rate", required_argument, NULL, RATE},
		{"seconds", required_argument, NULL, SECONDS}, {"count", required_argument, NULL, COUNT},
		{"size", required_argument, NULL, SIZE},       {"spoof", required_argument, NULL, SPOOF},
		{"domain", required_argument, NULL, DOMAIN},   {"user", required_argument, NULL, USER},
		{"service", required_argument, NULL, SERVICE}, {"epoch-s", required_argument, NULL, EPOCH},
		{"only", required_argument, NULL, ONLY},       {"file", required_argument, NULL, FILENAME},
		{"from", required_argument, NULL, FROM},       {"tcp", required_argument, NULL, TCP},
		{"udp", required_argument, NULL, UDP},         {"udp-port", required_argument, NULL, ALSO},
		{"dev", required_argument, NULL, DEV},         {NULL, 0, NULL, 0},
	};
	static const struct {
		const char *name;
		int (*run)(const struct load_options *o);
	} mode[] = {{"udp", load_udp}, {"sip", load_sip}, {"replay", load_replay}, {"scan", load_scan}, {"garbage", load_garbage}};
	struct load_options o = {
		.domain = "example.org",
		.user = "alice",
		.service = "ssh",
		.rate = 1000,
		.count = LAB_COUNT_MAX,
		.seconds = 10,
		.size = 1400,
		.epoch_s = 86400,
		.tcp = 65535,
		.udp = 1000,
		.spoof = 50,
		.dev = "eth0",
	};
	uint64_t v = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		bool good = true;

		switch (c) {
		case TO:
			good = o.nto < LOAD_TARGETS &&
			       (lab_parse(optarg, &o.to[o.nto], &o.port[o.nto]) == 0 || lab_parse(optarg, &o.to[o.nto], NULL) == 0);
			o.nto++;
			break;
		case RATE:
			good = number(optarg, 1, LAB_RATE_MAX, &o.rate);
			break;
		case SECONDS:
			good = number(optarg, 1, LAB_SECONDS_MAX, &v);
			o.seconds = (unsigned)v;
			break;
		case COUNT:
			good = number(optarg, 1, LAB_COUNT_MAX, &o.count);
			break;
		case SIZE:
			good = number(optarg, 0, LAB_PAYLOAD_MAX, &v);
			o.size = (unsigned)v;
			break;
		case SPOOF:
			good = number(optarg, 0, 100, &v);
			o.spoof = (unsigned)v;
			break;
		case EPOCH:
			good = number(optarg, 0, 1u << 30, &v);
			o.epoch_s = (unsigned)v;
			break;
		case TCP:
			good = number(optarg, 0, 65535, &v);
			o.tcp = (unsigned)v;
			break;
		case UDP:
			good = number(optarg, 0, 65535, &v);
			o.udp = (unsigned)v;
			break;
		case ALSO:
			good = o.nalso < 64 && number(optarg, 1, 65535, &v);
			if (good)
				o.also[o.nalso++] = (uint16_t)v;
			break;
		case FROM:
			good = lab_parse(optarg, &o.from, &o.from_port) == 0;
			break;
		case DOMAIN:
			o.domain = optarg;
			break;
		case USER:
			o.user = optarg;
			break;
		case SERVICE:
			o.service = optarg;
			break;
		case ONLY:
			o.only = optarg;
			break;
		case FILENAME:
			o.file = optarg;
			break;
		case DEV:
			o.dev = optarg;
			break;
		default:
			return usage();
		}
		if (!good)
			return usage();
	}
	if (argc - optind != 1 || o.nto == 0)
		return usage();
	for (unsigned i = 0; i < o.nto; i++)
		if (!lab_guard(o.to[i]))
			return 3;
	lab_bounded(o.seconds);
	for (size_t i = 0; i < sizeof(mode) / sizeof(*mode); i++)
		if (strcmp(argv[optind], mode[i].name) == 0)
			return mode[i].run(&o);
	return usage();
}
