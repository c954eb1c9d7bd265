/* SPDX-License-Identifier: Apache-2.0 */
/** \file A worker's connection to a plain next hop over TCP: kept up, and tried again when it goes. The worker's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define STREAM_HOP_QUEUE_MAX  262144u /* unsent bytes; more is refused */
#define STREAM_HOP_RETRY_MS   250u    /* after a failure; doubled up to … */
#define STREAM_HOP_RETRY_MAX  1000u   /* … this */
#define STREAM_HOP_CONNECT_MS 5000u   /* how long connecting may take */
#define STREAM_HOP_STALLED_MS 10000u  /* how long it may take nothing */

struct stream_hop;

struct stream_hop_options {
	struct wn_addr from; /* our host; the port is the kernel's */
	struct wn_addr to;
	int epoll;
	uint32_t tag; /* data.u32 of its events */
	/** own: our end of the connection; NULL: it has gone, and what was unsent with it. */
	void (*state)(void *arg, const struct wn_addr *own);
	/** A whole message, from inside stream_hop_event. */
	void (*message)(void *arg, struct span msg);
	void *arg;
};

/** Nothing is connected before the first tick. \return 0 or -ENOMEM. */
int stream_hop_new(const struct stream_hop_options *opt, struct stream_hop **out);
void stream_hop_free(struct stream_hop *h);

/** Its descriptor has something: EPOLLIN, EPOLLOUT, … */
void stream_hop_event(struct stream_hop *h, uint32_t events, uint64_t now_ms);
/** Connects when it is time, and gives up what takes too long. */
void stream_hop_tick(struct stream_hop *h, uint64_t now_ms);
/** False: it is down, or its queue is full. */
bool stream_hop_send(struct stream_hop *h, struct span msg, uint64_t now_ms);
