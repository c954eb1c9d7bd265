/* SPDX-License-Identifier: Apache-2.0 */
/** \file The local control socket of every daemon: a Unix stream socket (0600), one JSON object a line, one answer a request.
 *
 * Request {"cmd": "status", …}; answer {"ok": true, …} or {"ok": false, "error": "…"}. `walnut status`, `walnut user` and
 * `walnut gate` speak it. */
#pragma once

#include <jansson.h>
#include <uv.h>

struct ctl_server;

/** Answers one request: returns a new reference (the server frees it); never NULL. Runs on the loop's thread. */
typedef json_t *(*ctl_handler)(const json_t *request, void *arg);

/** Listens on `path`, replacing a stale socket (one nobody listens on). \return 0 or negative errno. */
int ctl_listen(uv_loop_t *loop, const char *path, ctl_handler handler, void *arg, struct ctl_server **out);
void ctl_close(struct ctl_server *s);

json_t *ctl_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** The other end, blocking: connects, sends, reads one line within timeout_ms. The caller owns *answer.
 * \return 0 or negative errno; an answer with "ok": false is still 0. */
int ctl_call(const char *path, const json_t *request, unsigned timeout_ms, json_t **answer);
