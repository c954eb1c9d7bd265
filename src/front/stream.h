/* SPDX-License-Identifier: Apache-2.0 */
/** \file SIP over TCP and TLS for strangers: a worker's connections, framing and sending. Used by the worker's thread alone.
 *
 * What a stranger costs, the kernel's socket apart, is its place in tables made at the start and, while a message of its has come in part,
 * one buffer of a bounded pool: FRONT_STREAM_STRANGER_BYTES. Nothing is allocated for it, over TLS only what OpenSSL needs. Who goes first
 * and who has to go is decided in stream_policy.h. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "front/flow.h"
#include "front/stream_policy.h"

#define FRONT_STREAM_MESSAGE_MAX  3840u  /* bytes of a stranger's message: what a buffer holds */
#define FRONT_STREAM_TRUSTED_MAX  8192u  /* … and of one who is trusted: FRONT_DATAGRAM_MAX */
#define FRONT_STREAM_QUEUE_MAX    32768u /* unsent bytes of one who is trusted */
#define FRONT_STREAM_CONN_BYTES   64u    /* beside the policy's slot */
#define FRONT_STREAM_BUFFER_BYTES (FRONT_STREAM_MESSAGE_MAX + sizeof(uint32_t))
/** A stranger's connection over TCP at its most: slot and connection, its share of the address table, a buffer and the buffer's place in
 * the pool's stack. */
#define FRONT_STREAM_STRANGER_BYTES \
	(sizeof(struct stream_slot) + FRONT_STREAM_CONN_BYTES + STREAM_ADDRESS_BYTES + FRONT_STREAM_BUFFER_BYTES)
_Static_assert(FRONT_STREAM_STRANGER_BYTES == 3980, "doc/operations.md says so");
_Static_assert(FRONT_STREAM_STRANGER_BYTES <= 4096, "what a stranger may cost");

/** X(name): one counter each. */
/* clang-format off */
#define FRONT_STREAM_COUNTS(X) \
	X(accepted) X(messages) X(keepalives) X(trusted) X(trust_full) \
	X(closed_by_peer) X(per_address) X(evicted) X(evicted_buffer) X(evicted_descriptor) X(no_descriptor) \
	X(deadline_handshake) X(deadline_first) X(deadline_stranger) X(deadline_trusted) X(deadline_stalled) \
	X(framing) X(too_large) X(stalled_stranger) X(queued) X(queue_full) X(no_memory) X(flow_gone) \
	X(tls_done) X(tls_failed) X(tls_too_large) X(tls_budget) X(tls_evicted)
/* clang-format on */
enum front_stream_count {
#define X(n) FRONT_STREAM_##n,
	FRONT_STREAM_COUNTS(X)
#undef X
		FRONT_STREAM_COUNT_MAX
};
const char *front_stream_count_name(enum front_stream_count c);

struct front_streams;
struct front_tls;

struct front_streams_options {
	unsigned worker; /* stands in flow ids */
	const struct front_stream_limits *limits;
	struct front_tls *tls; /* for listeners of TLS; the caller's */
	unsigned backlog;      /* connections that wait in the kernel, per listener */
	/** A whole message; may call front_streams_send and front_streams_trust. */
	void (*message)(void *arg, const struct front_flow *from, struct span msg);
	void *arg;
};

/** Makes the tables. \return 0 or negative errno. */
int front_streams_new(const struct front_streams_options *opt, struct front_streams **out);
void front_streams_free(struct front_streams *s);
/** Opens one of several equal ends (SO_REUSEPORT) of an address. May need privileges. `listener` stands in flow ids. \return 0 or negative
 * errno. */
int front_streams_listen(struct front_streams *s, enum front_transport transport, unsigned listener, const struct wn_addr *addr);

/** For epoll: readable when front_streams_serve has something to do. */
int front_streams_fd(const struct front_streams *s);
/** One turn: connections first, those that are trusted before others, and only then, if none of them is left waiting and may_accept,
 * a few new ones. \return whether there is more. */
bool front_streams_serve(struct front_streams *s, uint64_t now_ms, bool may_accept);
/** Deadlines; every 50 ms or so. */
void front_streams_tick(struct front_streams *s, uint64_t now_ms);

/** Sends, or keeps what does not go at once for one who is trusted; a stranger whose send buffer is full is ended. \return 0; -ENOENT there
 * is no such connection (any more), -EPIPE it has just ended. */
int front_streams_send(struct front_streams *s, const struct front_flow *to, struct span msg, uint64_t now_ms);
/** Its sender has proven who it is: it is not ended for strangers any more. */
void front_streams_trust(struct front_streams *s, uint64_t flow, uint64_t now_ms);

/** Any thread. */
uint64_t front_streams_count(const struct front_streams *s, enum front_stream_count c);
/** Connections now, of a class. Any thread; a little old. */
uint32_t front_streams_open(const struct front_streams *s, enum stream_class class);

/** Raises RLIMIT_NOFILE so that `want` descriptors can be open, beyond the hard limit where privileges allow. \return how many can. */
uint32_t front_streams_descriptors(uint32_t want);
