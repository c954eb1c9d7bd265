/* SPDX-License-Identifier: Apache-2.0 */
/** \file Mutual TLS 1.3 between Walnut's own parts, over libuv and OpenSSL memory BIOs. Peers pin each other's SPKI SHA-256: there is no CA
 * and no name check. All calls on the loop's thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/addr.h"
#include "base/span.h"

#define PEER_PIN_BYTES      32
#define PEER_PIN_STR        52 /* "sha256:" + 43 characters of base64url + NUL */
#define PEER_SEND_QUEUE_MAX (8u << 20)
#define PEER_HANDSHAKE_MS   5000
#define PEER_UNFINISHED_MAX 16 /* handshakes at a listener at once; a newer one pushes out the oldest */

struct peer_pin {
	uint8_t sha256[PEER_PIN_BYTES];
};
int peer_pin_parse(struct span s, struct peer_pin *out); /* "sha256:…"; 0 or -EINVAL */
const char *peer_pin_str(const struct peer_pin *p, char buf[static PEER_PIN_STR]);

/** An Ed25519 key and its self-signed certificate: DIR/ROLE.key (0600) and DIR/ROLE.crt. */
struct peer_identity;
int peer_identity_create(const char *dir, const char *role, struct peer_pin *pin);     /* -EEXIST when there is one */
int peer_identity_load(const char *dir, const char *role, struct peer_identity **out); /* a line on stderr on failure */
void peer_identity_free(struct peer_identity *id);
void peer_identity_pin(const struct peer_identity *id, struct peer_pin *out);

struct peer_conn;
struct peer_listener;

struct peer_events {
	/** The handshake is done and the other side's pin is pins[pin]. The connecting side learns only afterwards whether the listener
	 * took its own pin (TLS 1.3): a refusal arrives as `down` with -EACCES, so reset no retry delay before the first `data`. */
	void (*up)(struct peer_conn *c, unsigned pin, void *arg);
	/** Decrypted bytes, in order; valid during the call. */
	void (*data)(struct peer_conn *c, const uint8_t *p, size_t n, void *arg);
	/** Exactly once, also when `up` was never called (then reason < 0) and after peer_close (then -ECANCELED). Always from the loop,
	 * never inside a call of ours. The connection is freed after it returns. reason: 0 orderly end, or negative errno; -EACCES a pin
	 * that this or the other side does not know; -EPROTO TLS; -ECONNRESET ended without goodbye; -ETIMEDOUT; at a listener also -EBUSY
	 * (pushed out by a newer handshake) and -EMFILE (max_connections). */
	void (*down)(struct peer_conn *c, int reason, void *arg);
};

struct peer_options {
	const struct peer_pin *pins; /* copied; who may be at the other end */
	unsigned npins;
	unsigned max_connections; /* listener: finished handshakes; more are closed at once; 0 = 64 */
	size_t send_queue_max;    /* 0 = PEER_SEND_QUEUE_MAX */
	unsigned handshake_ms;    /* from accept or connect to `up`; 0 = PEER_HANDSHAKE_MS */
};

/** The identity, pins and options may be freed or changed afterwards; ev must stay. SIGPIPE is ignored from here on. */
int peer_listen(uv_loop_t *loop, const struct peer_identity *id, const struct wn_addr *addr, const struct peer_options *opt,
		const struct peer_events *ev, void *arg, struct peer_listener **out);
/** Stops accepting; connections live on. Frees itself on the loop. */
void peer_listener_close(struct peer_listener *l);
/** Where it listens (the port that the kernel chose for port 0). */
int peer_listener_addr(const struct peer_listener *l, struct wn_addr *out);

/** One attempt; the caller retries from `down`. */
int peer_connect(uv_loop_t *loop, const struct peer_identity *id, const struct wn_addr *addr, const struct peer_options *opt,
		 const struct peer_events *ev, void *arg, struct peer_conn **out);

/** Copies. \return 0, -ENOTCONN before `up`, -ENOBUFS when more than send_queue_max would be waiting (nothing is queued then). */
int peer_send(struct peer_conn *c, const void *p, size_t n);
size_t peer_send_queued(const struct peer_conn *c);
/** No `data` until peer_resume, from this moment on, also when called inside `data`: what arrives stays in the kernel and slows the other
 * side. The other side's end is not noticed meanwhile either. Both do nothing before `up` and after the end. */
void peer_pause(struct peer_conn *c);
void peer_resume(struct peer_conn *c);
/** Sends what is queued and says goodbye, for half a second at most; no `up` or `data` any more, then `down`. */
void peer_close(struct peer_conn *c);
void peer_set_user(struct peer_conn *c, void *user);
void *peer_user(const struct peer_conn *c);
const struct wn_addr *peer_remote(const struct peer_conn *c);
