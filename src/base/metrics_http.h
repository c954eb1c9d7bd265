/* SPDX-License-Identifier: Apache-2.0 */
/** \file Metrics for a scraper: GET /metrics over HTTP/1.1 on a loopback address, on the daemon's own loop (libmicrohttpd, no thread).
 * Opens everything it needs when it starts, so it works under WN_SECCOMP_NET. */
#pragma once

#include <stddef.h>
#include <uv.h>

#include "base/addr.h"

struct wn_metrics;
struct wn_scrape;

/** A scraper waits: answer with wn_metrics_answer, now or later. Runs on the loop's thread. */
typedef void (*wn_metrics_handler)(struct wn_scrape *s, void *arg);

/** At most 16 connections, five seconds for a request or for taking an answer. \return 0 or negative errno: -EADDRINUSE, -EADDRNOTAVAIL, or
 * -EINVAL when `at` is not a loopback address. */
int wn_metrics_listen(uv_loop_t *loop, const struct wn_addr *at, wn_metrics_handler handler, void *arg, struct wn_metrics **out);
/** Where it listens (the port that the kernel chose for port 0). */
void wn_metrics_addr(const struct wn_metrics *m, struct wn_addr *out);
/** Exactly once a scrape, which must not be used afterwards. `text` is in Prometheus' text format 0.0.4 and is copied; NULL: 503. */
void wn_metrics_answer(struct wn_scrape *s, const char *text, size_t n);
/** Every scrape must have been answered. Frees itself on the loop. */
void wn_metrics_close(struct wn_metrics *m);
