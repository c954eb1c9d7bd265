/* SPDX-License-Identifier: Apache-2.0 */
/* gate-flows: datagrams of flows that a gate lets pass, in turn, at a steady rate.
 *
 *   gate-flows DEV PUBLIC CLIENT RATE COUNT < "SOURCE-PORT PUBLIC-PORT" a line
 *
 * Prints what was sent as JSON. Like the lab's generators it is bounded and runs in a lab's namespace only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "../../lab/labnet.h"

#define FLOWS_MAX 4096
#define PAYLOAD   18

static struct {
	uint16_t from, to;
} flow[FLOWS_MAX];
static struct lab_tx tx;

int main(int argc, char **argv)
{
	static const uint8_t payload[PAYLOAD];
	struct lab_pace pace;
	uint64_t rate, count, sent = 0, start, tick;
	uint32_t public, client;
	unsigned n = 0, from, to;

	if (argc != 6 || lab_parse(argv[2], &public, NULL) != 0 || lab_parse(argv[3], &client, NULL) != 0) {
		fprintf(stderr, "usage: gate-flows DEV PUBLIC CLIENT RATE COUNT\n");
		return 2;
	}
	rate = strtoull(argv[4], NULL, 10);
	count = strtoull(argv[5], NULL, 10);
	while (n < FLOWS_MAX && scanf("%u %u", &from, &to) == 2) {
		flow[n].from = (uint16_t)from;
		flow[n++].to = (uint16_t)to;
	}
	if (n == 0 || rate == 0 || rate > LAB_RATE_MAX || count == 0 || count > LAB_COUNT_MAX) {
		fprintf(stderr, "gate-flows: no flows, or too much of them\n");
		return 2;
	}
	if (!lab_guard(public))
		return 3;
	lab_bounded(60);
	if (lab_tx_open(&tx, argv[1], public) < 0)
		return 1;
	lab_pace_start(&pace, rate);
	start = tick = lab_now_ns();
	while (!lab_stop && sent < count) {
		unsigned due = lab_due(&pace);

		for (; due > 0 && sent < count; due--, sent++)
			lab_tx_udp(&tx, client, flow[sent % n].from, public, flow[sent % n].to, payload, sizeof(payload));
		lab_tx_flush(&tx);
		lab_sleep_until(tick += 1000000);
		if (lab_now_ns() > tick + 50000000)
			tick = lab_now_ns();
	}
	printf("{\"sent\": %llu, \"seconds\": %.3f}\n", (unsigned long long)tx.sent, (double)(lab_now_ns() - start) / 1e9);
	return 0;
}
