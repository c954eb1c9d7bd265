/* SPDX-License-Identifier: Apache-2.0 */
/** \file A connection from inside: shared by the files of this folder only. */
#pragma once

#include "peer/identity.h"

#define PEER_CHUNK 16384 /* bytes that are read at once */

enum peer_state {
	PEER_CONNECTING, /* TCP */
	PEER_HANDSHAKE,
	PEER_UP,
	PEER_LINGER, /* goodbye is on its way; what still arrives is thrown away */
	PEER_CLOSED, /* handles are closing, `down` follows */
};

/* What a listener and its connections share; lives as long as the last of them. A peer_connect has one of its own. */
struct peer_shared {
	unsigned refs;
	const struct peer_events *ev;
	void *arg;
	size_t queue_max;
	unsigned max_connections, handshake_ms;
	unsigned up, unfinished; /* connections in either state */
	struct peer_conn *oldest, *newest;
	unsigned npins;
	struct peer_pin pins[];
};

struct peer_conn {
	uv_tcp_t tcp;
	uv_timer_t timer;
	uv_connect_t connect;
	uv_shutdown_t shutdown;
	SSL *ssl;
	BIO *in, *out; /* ciphertext; owned by ssl */
	struct peer_shared *shared;
	struct peer_conn *older, *newer; /* in order of arrival */
	enum peer_state state;
	bool server, counted_up, paused;
	int pin;    /* index, or -1 before one has matched */
	int reason; /* for `down` */
	unsigned open_handles;
	struct wn_addr remote;
	void *user;
	char raw[PEER_CHUNK];
};

/** Copies the pins. NULL when out of memory. */
struct peer_shared *peer_shared_new(const struct peer_options *opt, const struct peer_events *ev, void *arg);
void peer_shared_release(struct peer_shared *s);

/** Demands and checks the other side's certificate from now on. */
void peer_tls_prepare(SSL_CTX *tls);

/** Takes a reference of `s` and starts the deadline; from here on the connection ends through `down`. NULL when out of memory. */
struct peer_conn *peer_conn_new(uv_loop_t *loop, struct peer_shared *s, int family, bool server);
int peer_conn_tls(struct peer_conn *c, SSL_CTX *tls);
/** The socket is connected: begins the handshake. */
void peer_conn_start(struct peer_conn *c);
/** At once, without goodbye; `down` follows from the loop. */
void peer_conn_abort(struct peer_conn *c, int reason);
