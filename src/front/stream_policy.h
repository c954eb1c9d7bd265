/* SPDX-License-Identifier: Apache-2.0 */
/** \file Who may hold a connection, a buffer or a TLS handshake, and for how long. Pure: places and deadlines, no socket, time is an
 * argument.
 *
 * Everything is of fixed size and made at the start. A connection is in one of three classes; only strangers (those in a TLS handshake
 * included) are ever ended for the sake of another, the oldest first. Deadlines are of a few kinds, each with one duration, so each kind is
 * a list in the order in which it runs out: no timer, no search. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define STREAM_NONE UINT32_MAX

enum stream_class {
	STREAM_FREE,
	STREAM_HANDSHAKE, /* TLS is being agreed on */
	STREAM_STRANGER,  /* nothing that came over it has proven anything */
	STREAM_TRUSTED,   /* its user has authenticated, or is a party of a dialog */
};

/** What a connection is waited for. */
enum stream_due {
	STREAM_DUE_HANDSHAKE, /* the end of TLS's handshake */
	STREAM_DUE_FIRST,     /* a stranger's first whole message */
	STREAM_DUE_STRANGER,  /* its next one */
	STREAM_DUE_TRUSTED,   /* any whole message or keep-alive */
	STREAM_DUE_STALLED,   /* room in the send buffer of a trusted one */
	STREAM_DUES
};

struct front_stream_limits {
	uint32_t connections;      /* at a time; 1 to 2^20 - 1 */
	uint32_t trusted;          /* of them at most; those over it are served as strangers */
	uint32_t per_address;      /* of one IPv4 address, or one IPv6 /64 */
	uint32_t buffers;          /* strangers' messages that have come in part */
	uint32_t handshakes;       /* of TLS at a time … */
	uint32_t handshakes_per_s; /* … and begun in a second; 0: none */
	uint32_t due_ms[STREAM_DUES];
};

/** One of n workers' share of what the process may have, rounded up; `trusted` and `buffers` follow from `connections`: seven eighths may
 * be trusted, so that strangers always find a door, and a quarter may hold a part of a message. */
void stream_limits_share(const struct front_stream_limits *whole, unsigned n, struct front_stream_limits *out);

/** The policy's part of a connection; I/O reads it, only the policy writes. */
struct stream_slot {
	uint64_t key;      /* of its address */
	uint64_t since_ms; /* when its deadline began */
	uint32_t generation;
	uint8_t class, due;          /* enum stream_class, enum stream_due */
	uint32_t prev, next;         /* of those with the same kind of deadline; of free ones */
	uint32_t age_prev, age_next; /* strangers as they came */
	uint32_t buf_prev, buf_next; /* strangers with a buffer, as they got it */
	uint32_t buffer;             /* STREAM_NONE: none */
};
_Static_assert(sizeof(struct stream_slot) == 56, "part of what a stranger costs");
/** Bytes of the address table that one connection costs. */
#define STREAM_ADDRESS_BYTES (2 * sizeof(uint64_t))

struct stream_policy;

/** key: of the hash of addresses, 16 random bytes. first_generation: where generations begin, so that two boots differ. \return 0, -EINVAL,
 * -ENOMEM. Untouched places cost no memory. */
int stream_policy_new(const struct front_stream_limits *limits, const uint8_t key[static 16], uint32_t first_generation,
		      struct stream_policy **out);
void stream_policy_free(struct stream_policy *p);
const struct stream_slot *stream_slot(const struct stream_policy *p, uint32_t slot);

enum stream_admission {
	STREAM_ADMITTED,
	STREAM_PER_ADDRESS, /* its address has as many as it may */
	STREAM_FULL,        /* no place: end stream_victim and ask again */
};
/** Takes a place. tls: it begins in STREAM_HANDSHAKE. */
enum stream_admission stream_admit(struct stream_policy *p, const struct wn_addr *addr, bool tls, uint64_t now_ms, uint32_t *slot);
/** Whether stream_admit can find a place, if need be a stranger's. */
bool stream_has_room(const struct stream_policy *p);
/** The oldest stranger, or STREAM_NONE. */
uint32_t stream_victim(const struct stream_policy *p);
/** It has ended: its place, its buffer and its share of the address are free, and its generation is another. */
void stream_release(struct stream_policy *p, uint32_t slot);

/** Milliseconds until another TLS handshake may begin; 0: now. */
uint64_t stream_handshake_wait(struct stream_policy *p, uint64_t now_ms);
/** One begins. */
void stream_handshake_count(struct stream_policy *p, uint64_t now_ms);
/** The oldest of those in a handshake when they are more than may be, else STREAM_NONE. */
uint32_t stream_handshake_victim(const struct stream_policy *p);
void stream_handshaken(struct stream_policy *p, uint32_t slot, uint64_t now_ms);

/** A whole message has come. */
void stream_heard(struct stream_policy *p, uint32_t slot, uint64_t now_ms);
/** RFC 5626's ping: keeps a trusted one alive, and is nothing to a stranger's deadline. */
void stream_pinged(struct stream_policy *p, uint32_t slot, uint64_t now_ms);
/** It has proven who it is. False: as many as may be are trusted; it stays a stranger. */
bool stream_trust(struct stream_policy *p, uint32_t slot, uint64_t now_ms);
/** Its send buffer is full; it has room again. Of trusted ones only. */
void stream_stall(struct stream_policy *p, uint32_t slot, uint64_t now_ms);
void stream_unstall(struct stream_policy *p, uint32_t slot, uint64_t now_ms);

/** A buffer for a stranger's unfinished message: its index, or STREAM_NONE: end stream_buffer_victim and ask again. */
uint32_t stream_buffer_take(struct stream_policy *p, uint32_t slot);
void stream_buffer_drop(struct stream_policy *p, uint32_t slot);
/** Who has held a buffer for longest. */
uint32_t stream_buffer_victim(const struct stream_policy *p);

/** One whose deadline has run out, or STREAM_NONE. The caller ends it. */
uint32_t stream_due(const struct stream_policy *p, uint64_t now_ms, enum stream_due *which);

uint32_t stream_count(const struct stream_policy *p, enum stream_class class);
