/* SPDX-License-Identifier: Apache-2.0 */
/** \file What an agent asks of the gate and what it answers: fixed-size records (doc/protocol.md, "Gate control"). Pure.
 *
 * The same request goes agent -> parser over mutual TLS (encoded, big-endian) and parser -> map writer over a socket pair (the struct
 * itself, with the tenant filled in by the parser and every field checked again by the writer). */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"

#define GATE_CONTROL_PORT   7443
#define GATE_REQUEST_BYTES  192 /* on the wire */
#define GATE_REPLY_BYTES    192
#define GATE_USER_MAX       63
#define GATE_RECORD_VERSION 1

enum gate_op {
	GATE_PING = 1, /* heartbeat; the reply's `hole` names the gate's tables: another number means that all holes are gone */
	GATE_OPEN,     /* grant a hole */
	GATE_RENEW,    /* hole, lifetime_s: extends without disturbing the flow */
	GATE_CLOSE,    /* hole: the next packet is dropped */
	GATE_LIST,     /* one reply per hole of this tenant, then one with status GATE_END */
	GATE_OPS
};

enum gate_status {
	GATE_OK = 0,
	GATE_END,          /* of a list */
	GATE_BAD_RECORD,   /* version, op, proto, a field out of range */
	GATE_BAD_SEQUENCE, /* not the next number of this connection: the connection is closed */
	GATE_NOT_YOURS,    /* inside address outside the tenant's prefixes, or another tenant's hole */
	GATE_QUOTA,        /* the tenant's holes are used up */
	GATE_FULL,         /* the gate's table is */
	GATE_NO_PORT,      /* no free public port */
	GATE_NO_HOLE,      /* unknown or expired */
	GATE_FAILED,       /* the kernel refused; see the gate's log */
	GATE_DRAINING,     /* the operator lets this gate run empty: no new holes */
	GATE_STATUSES
};

#define GATE_FLAG_TAG 1u /* UDP: packets carry the 16-byte tag under `key`; the first valid one fixes the source (remote is ignored) */

struct gate_request {
	uint8_t op;
	uint8_t proto; /* IPPROTO_TCP or IPPROTO_UDP */
	uint8_t flags;
	uint32_t tenant;             /* index; not on the wire: the parser fills it in from the pin */
	uint64_t seq;                /* 1, 2, 3, … per connection */
	uint64_t hole;               /* RENEW, CLOSE */
	uint64_t cookie;             /* the agent's own name for the call; comes back in LIST */
	struct wn_addr inside;       /* the service */
	struct wn_addr remote;       /* who may use it; port 0 = any port (TCP: bound by the handshake) */
	uint32_t lifetime_s;         /* 1 to 86400 */
	uint32_t connect_s;          /* TCP: until when the handshake must be done; 0 = 10 */
	uint32_t syn_rate;           /* SYNs a second towards the service; 0 = 5 */
	uint32_t idle_s;             /* closed after so long without a packet; 0 = lifetime only */
	uint64_t bytes_per_s;        /* towards the service; 0 = no limit */
	uint32_t packets_per_s;      /* towards the service; 0 = no limit */
	uint32_t user_packets_per_s; /* the same over all holes of this user that have either; 0 = no limit */
	uint64_t user_bytes_per_s;
	uint8_t key[16]; /* FLOW_TO_SERVICE key, with GATE_FLAG_TAG */
	char user[GATE_USER_MAX + 1];
};

struct gate_reply {
	uint8_t op;
	uint8_t status; /* enum gate_status */
	uint8_t proto;
	uint8_t flags;
	uint64_t seq;  /* the request's */
	uint64_t hole; /* never reused within the gate's state */
	uint64_t cookie;
	struct wn_addr inside;
	struct wn_addr remote; /* LIST: the bound source where bound */
	struct wn_addr public; /* OPEN, LIST: where the client sends */
	uint32_t lifetime_s;   /* left */
	uint32_t reserved;
	uint64_t packets, bytes; /* LIST: towards the service so far */
	char user[GATE_USER_MAX + 1];
};

/* Upper ends of what OPEN and RENEW may ask for. */
#define GATE_LIFETIME_MAX_S    86400u
#define GATE_CONNECT_MAX_S     300u
#define GATE_SYN_RATE_MAX      1000u
#define GATE_IDLE_MAX_S        86400u
#define GATE_BYTES_PER_S_MAX   1000000000000u
#define GATE_PACKETS_PER_S_MAX 1000000000u

/** Whether every field is in range for its op, and every field that the op does not use is zero (`tenant`, which is not on the wire, is not
 * looked at). OPEN: proto TCP or UDP; TAG only with UDP, then with a key that is not all zero, and without TAG the key is zero; inside with
 * a port; remote of the same family, set unless TAG, with a port for UDP without TAG (nothing else would bind such a hole to one source);
 * connect_s and syn_rate only with TCP; user 1 to 63 of A-Z a-z 0-9 . _ -. \return 0 or -EBADMSG. */
int gate_request_check(const struct gate_request *r);

/** Writes what r->op uses and zeroes for the rest, so that a request can be reused for another op. */
void gate_request_encode(const struct gate_request *r, uint8_t out[static GATE_REQUEST_BYTES]);
/** Checks version, reserved bytes and NUL padding, then gate_request_check. tenant is set to 0. \return 0 or -EBADMSG; then only out->op (0
 * when it is none) and out->seq are set, which is what a GATE_BAD_RECORD answer needs. */
int gate_request_decode(const uint8_t in[static GATE_REQUEST_BYTES], struct gate_request *out);
void gate_reply_encode(const struct gate_reply *r, uint8_t out[static GATE_REPLY_BYTES]);
/** op may be 0 with GATE_BAD_RECORD and GATE_BAD_SEQUENCE only. \return 0 or -EBADMSG. */
int gate_reply_decode(const uint8_t in[static GATE_REPLY_BYTES], struct gate_reply *out);
/** "ok", "end", "bad_record", …; "unknown" outside the enum. */
const char *gate_status_name(enum gate_status s);
