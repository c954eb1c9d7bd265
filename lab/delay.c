/* SPDX-License-Identifier: Apache-2.0 */
/** \file A wire with length: frames that arrive at one device leave the other a fixed time later, in both directions; what does not fit
 * the queue, or is picked by --loss, is lost. It stands between two devices of a namespace of its own that has no addresses. */
#include <errno.h>
#include <getopt.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "labnet.h"

#define SLOT 2048

struct slot {
	uint64_t due;
	unsigned len;
	uint8_t frame[SLOT];
};

struct way {
	int from, to;
	struct slot *q;
	unsigned head, count, room;
	uint64_t passed, lost, overflow;
};

static void take(struct way *w, uint64_t delay, unsigned loss)
{
	uint8_t frame[SLOT];
	ssize_t n;

	while ((n = recv(w->from, frame, sizeof(frame), 0)) > 0) {
		struct slot *s;

		if (loss && lab_random() % 1000 < loss) {
			w->lost++;
			continue;
		}
		if (w->count == w->room) {
			w->overflow++;
			continue;
		}
		s = &w->q[(w->head + w->count++) % w->room];
		s->due = lab_now_ns() + delay;
		s->len = (unsigned)n;
		memcpy(s->frame, frame, (size_t)n);
	}
}

/* Sends what is due; returns when the next one will be, or UINT64_MAX. */
static uint64_t give(struct way *w)
{
	uint64_t now = lab_now_ns();

	while (w->count) {
		struct slot *s = &w->q[w->head];

		if (s->due > now)
			return s->due;
		if (send(w->to, s->frame, s->len, MSG_DONTWAIT) >= 0)
			w->passed++;
		else
			w->lost++;
		w->head = (w->head + 1) % w->room;
		w->count--;
	}
	return UINT64_MAX;
}

static int usage(void)
{
	fprintf(stderr, "usage: lab-delay DEV DEV [--ms N] [--loss PERMILLE] [--queue FRAMES] [--seconds N]\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"ms", required_argument, NULL, 'm'},
		{"loss", required_argument, NULL, 'l'},
		{"queue", required_argument, NULL, 'q'},
		{"seconds", required_argument, NULL, 's'},
		{NULL, 0, NULL, 0},
	};
	unsigned ms = 50, loss = 0, queue = 2048, seconds = LAB_SECONDS_MAX;
	struct way way[2] = {0};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		unsigned v = optarg ? (unsigned)strtoul(optarg, NULL, 10) : 0;

		if (c == 'm' && v <= 10000)
			ms = v;
		else if (c == 'l' && v <= 1000)
			loss = v;
		else if (c == 'q' && v >= 1 && v <= 65536)
			queue = v;
		else if (c == 's' && v >= 1 && v <= LAB_SECONDS_MAX)
			seconds = v;
		else
			return usage();
	}
	if (argc - optind != 2)
		return usage();
	for (int i = 0; i < 2; i++) {
		int fd = lab_rx_open(argv[optind + i], SLOT);

		if (fd < 0) {
			fprintf(stderr, "lab-delay: %s: %s\n", argv[optind + i], strerror(-fd));
			return 1;
		}
		way[i].from = way[1 - i].to = fd;
		way[i].room = queue;
	}
	way[0].q = calloc(2 * (size_t)queue, sizeof(*way[0].q));
	if (!way[0].q)
		return 1;
	way[1].q = way[0].q + queue;
	lab_bounded(seconds);
	printf("ready\n");
	fflush(stdout);
	while (!lab_stop) {
		struct pollfd p[2] = {{.fd = way[0].from, .events = POLLIN}, {.fd = way[1].from, .events = POLLIN}};
		uint64_t a = give(&way[0]), b = give(&way[1]), now = lab_now_ns();
		uint64_t next = a < b ? a : b;
		uint64_t wait = next == UINT64_MAX ? 1000000000u : next > now ? next - now : 0;
		struct timespec ts = {.tv_sec = (time_t)(wait / 1000000000u), .tv_nsec = (long)(wait % 1000000000u)};

		if (ppoll(p, 2, &ts, NULL) < 0 && errno != EINTR)
			break;
		take(&way[0], (uint64_t)ms * 1000000u, loss);
		take(&way[1], (uint64_t)ms * 1000000u, loss);
	}
	printf("{\"passed\": %llu, \"lost\": %llu, \"overflow\": %llu}\n", (unsigned long long)(way[0].passed + way[1].passed),
	       (unsigned long long)(way[0].lost + way[1].lost), (unsigned long long)(way[0].overflow + way[1].overflow));
	free(way[0].q);
	return 0;
}
