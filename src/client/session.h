/* SPDX-License-Identifier: Apache-2.0 */
/** \file One session on a libuv loop: signs in, reaches the hole, keeps the call alive, ends it. All on the loop's thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "client/enrol.h"
#include "client/nonces.h"
#include "client/signin.h"

#define SESSION_TCP_TRIES    4     /* connections tried, each from another local port */
#define SESSION_TCP_AGAIN_MS 1000  /* without SYN-ACK: the next */
#define SESSION_TCP_MS       4000  /* in all */
#define SESSION_STRAY_MS     32000 /* 64*T1: how long a second answer may come */
#define SESSION_FAREWELL_MS  1000  /* after giving up a sign-in that a front works on: for its CANCEL, and for a 200 that crosses it */
#define SESSION_DATAGRAMS    64    /* read at a time before others have their turn */
#define SESSION_MTU          1500
#define SESSION_UDP_MAX      (SESSION_MTU - 28 - 16) /* payload: IPv4 and UDP headers, and the tag, must fit */

/** What the sessions of one command share. */
struct session_env {
	uv_loop_t *loop;
	struct digest_ctx *digest;
	struct nonces nonces;
	uint32_t timeout_ms; /* of a sign-in; 0 = SIGNIN_TIMEOUT_MS */
	uint8_t packet[65536];
};
int session_env_init(struct session_env *env, uv_loop_t *loop, uint32_t timeout_ms); /* 0 or -ENOMEM */
void session_env_free(struct session_env *env);

enum session_fault {
	SESSION_F_NONE,   /* ended as asked */
	SESSION_F_SIGNIN, /* see signin and sip_status */
	SESSION_F_HOLE,   /* the hole's address could not be reached; err says how */
	SESSION_F_ENDED,  /* the service's side ended it, or it expired */
	SESSION_F_LOCAL,  /* this machine: err */
};

struct session_report {
	enum session_fault fault;
	enum signin_error signin;
	unsigned sip_status;
	int err;
	char why[SIGNIN_WHY_MAX]; /* one line, without a final dot */
};

struct session;

struct session_events {
	/** TCP: fd is the connection, non-blocking, now the receiver's. UDP: -1, session_send works from now on. At most once. */
	void (*up)(struct session *s, int fd, void *arg);
	/** UDP: one answer of the service; valid during the call. */
	void (*datagram)(struct session *s, const uint8_t *p, size_t n, void *arg);
	/** Exactly once, never from within session_start or session_end. The session is freed after it returns. */
	void (*down)(struct session *s, const struct session_report *r, void *arg);
};

/** `e` is borrowed and must outlive the session. \return 0 or negative errno (then no event comes). */
int session_start(struct session_env *env, const struct enrol *e, const char *service, uint16_t port, enum sdp_proto proto,
		  const struct session_events *ev, void *arg, struct session **out);

/** Ends it with BYE, or a sign-in with CANCEL; `down` follows when that was answered or given up. */
void session_end(struct session *s);

/** UDP: sends one datagram under the next counter. \return 0; -EMSGSIZE longer than the way to the hole carries; -ENOTCONN not up;
 * -EAGAIN the socket is full: dropped, as the network would; other negative errno. */
int session_send(struct session *s, const uint8_t *p, size_t n);

/** Bytes of payload that session_send takes at most. */
size_t session_send_max(const struct session *s);
