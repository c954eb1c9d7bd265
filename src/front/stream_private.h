/* SPDX-License-Identifier: Apache-2.0 */
/** \file What stream.c and stream_conn.c share. */
#pragma once

#include <stdatomic.h>

#include "front/stream.h"
#include "front/tls.h"

#define READ_MAX 16384u /* bytes of one read: a whole record of TLS */

/* Of those who are trusted, and only while something waits. */
struct unsent {
	size_t n;
	char p[FRONT_STREAM_QUEUE_MAX];
};

struct conn {
	struct front_tls_io io; /* descriptor */
	struct ssl_st *ssl;     /* NULL: TCP */
	char *big;              /* one who is trusted: an unfinished message, FRONT_STREAM_TRUSTED_MAX bytes */
	struct unsent *unsent;
	uint32_t part;     /* bytes of the unfinished message */
	uint32_t searched; /* of them hold no end of headers */
	uint8_t transport, listener;
	uint8_t ping; /* how much of CRLF CRLF has come */
	bool writable_wanted;
	struct wn_addr addr;
};
_Static_assert(sizeof(struct conn) == FRONT_STREAM_CONN_BYTES, "part of what a stranger costs");

struct listening {
	int fd;
	enum front_transport transport;
	unsigned listener;
	bool armed, ready;
	uint64_t rearm_ms; /* not armed: until then */
};

struct front_streams {
	struct front_streams_options opt;
	struct front_stream_limits limit;
	struct stream_policy *policy;
	int epoll;
	struct conn *conn;
	char *pool; /* strangers' buffers */
	struct listening on[FRONT_LISTENERS_MAX];
	unsigned nlistening;
	uint64_t now_ms;
	_Atomic uint64_t count[FRONT_STREAM_COUNT_MAX];
	_Atomic uint32_t open[STREAM_TRUSTED + 1];
	char shared[FRONT_STREAM_TRUSTED_MAX + READ_MAX];
};

/* stream_conn.c */
uint64_t stream_id(const struct front_streams *s, uint32_t slot);
/* The slot of a flow that is alive, else STREAM_NONE. */
uint32_t stream_find(const struct front_streams *s, uint64_t flow);
void stream_note(struct front_streams *s, enum front_stream_count c);
/* A descriptor that has been admitted becomes a connection; what is there already is read. */
void stream_begin(struct front_streams *s, uint32_t slot, int fd, const struct listening *on, const struct wn_addr *addr);
/* Its end, counted as c. hard: at once and without a trace in the kernel. */
void stream_end(struct front_streams *s, uint32_t slot, bool hard, enum front_stream_count c);
void stream_readable(struct front_streams *s, uint32_t slot);
void stream_writable(struct front_streams *s, uint32_t slot);
