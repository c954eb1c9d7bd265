/* SPDX-License-Identifier: Apache-2.0 */
/** \file The local control socket of every daemon: a Unix stream socket (0600), one JSON object a line, one answer a request.
 *
 * Request {"cmd": "status", …}; answer {"ok": true, …} or {"ok": false, "error": "…"}. `walnut status`, `walnut user` and
 * `walnut gate` speak it. */
#pragma once

#include <jansson.h>
#include <uv.h>

struct ctl_server;

#define CTL_LINE_MAX (1u << 20) /* bytes of a request; a client that sends a longer line is closed */

/** Answers one request: returns a new reference (the server frees it); NULL only after ctl_defer. Runs on the loop's thread. */
typedef json_t *(*ctl_handler)(const json_t *request, void *arg);

/** Listens on `path`, replacing a stale socket (one nobody listens on); makes its folder when that is missing. At most 32 clients (a new
 * one closes the oldest), ten seconds for a line or for taking an answer. SIGPIPE is ignored from here on. \return 0 or negative errno:
 * -EADDRINUSE somebody answers there, -ENOTSOCK another kind of file is there. */
int ctl_listen(uv_loop_t *loop, const char *path, ctl_handler handler, void *arg, struct ctl_server **out);
/** Frees itself on the loop; removes the socket's file when it may. Must not be called twice. */
void ctl_close(struct ctl_server *s);

struct ctl_pending;
/** Only inside a handler: keeps this request open for a later ctl_answer; the handler then returns NULL. NULL when out of memory. */
struct ctl_pending *ctl_defer(struct ctl_server *s);
/** Answers (takes the reference) and frees p; must be called once for each ctl_defer, also when the client or the server has gone
 * meanwhile. */
void ctl_answer(struct ctl_pending *p, json_t *answer);

json_t *ctl_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/** The other end, blocking: connects, sends, reads one line within timeout_ms. The caller owns *answer.
 * \return 0 or negative errno; an answer with "ok": false is still 0. */
int ctl_call(const char *path, const json_t *request, unsigned timeout_ms, json_t **answer);
