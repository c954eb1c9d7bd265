/* SPDX-License-Identifier: Apache-2.0 */
/** \file Signed user-database updates: the bytes that an agent publishes and a front verifies (doc/protocol.md, "Feed"). Pure.
 *
 * Every message is signed with the tenant's Ed25519 key and carries a sequence number and the hash of its predecessor, so a gap, a
 * rollback, a reordering or a forgery is noticed whoever carried it.
 *
 *   magic "WLN1" | type 1 | domain length 1 | flags 2 | operations 4 | seq 8 | unix ms 8 | epoch 4 | epoch seconds 4
 *   | chunk 4 | chunks 4 | previous head 32 | domain | operations … | signature 64            (integers big-endian)
 *
 * UPDATE      extends the chain: seq = head + 1, previous = the head's hash. Its own hash (SHA-256 of all but the signature) is the new
 * head. SNAPSHOT    the whole database at (seq, previous) in `chunks` messages numbered from 0; replaces everything when the last one is
 * in. HEARTBEAT   states (seq, previous) as the current head and the time; changes nothing.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define USER_NAME_MAX      63
#define DOMAIN_MAX         200   /* with "/EPOCH" a realm stays below 216 */
#define UPDATE_BYTES_MAX   60000 /* one message; larger databases take more */
#define UPDATE_HEAD_BYTES  32
#define UPDATE_SIGN_PUBLIC 32
#define UPDATE_SIGN_SECRET 64

enum update_type { UPDATE_CHANGE = 1, UPDATE_SNAPSHOT = 2, UPDATE_HEARTBEAT = 3 };

struct update_head {
	uint64_t seq; /* 0: empty, hash all zero */
	uint8_t hash[UPDATE_HEAD_BYTES];
};

struct update_msg {
	enum update_type type;
	struct span domain;
	struct update_head at; /* CHANGE: seq is this message's, hash its predecessor's */
	uint64_t unix_ms;
	uint32_t epoch;   /* the publisher's current epoch; 0 with rotation off */
	uint32_t epoch_s; /* length of an epoch; 0 = rotation off */
	uint32_t chunk, chunks;
	uint32_t nops;
	struct span ops;                 /* for user_op_next */
	uint8_t hash[UPDATE_HEAD_BYTES]; /* of a CHANGE: this message's, the head that it makes; else zero */
};

/** A valid name: 1 to 63 of A-Z a-z 0-9 . _ - (it stands in realms, SIP and shells). */
bool user_name_valid(struct span name);

enum user_op_kind { USER_SET = 1, USER_DEL = 2 };
#define USER_HAS_SHA256 1u
#define USER_HAS_MD5    2u

/** SET: kind 1 | name length 1 | flags 1 | epoch 4 | name | SHA-256 HA1 32 if flagged | MD5 HA1 16 if flagged. DEL: kind | length | 0 | 0 |
 * name. */
struct user_op {
	enum user_op_kind kind;
	struct span name;
	uint8_t flags;
	uint32_t epoch;              /* whose keys these are */
	const uint8_t *sha256, *md5; /* into the message, or NULL */
};

struct update_buf { /* writer; see update_begin */
	uint8_t *p;
	size_t cap, len;
	uint32_t nops;
};

/** Starts a message in p[cap] (cap >= 512). chunk and chunks count for a SNAPSHOT only (else 0 of 1 is written). */
void update_begin(struct update_buf *b, uint8_t *p, size_t cap, const struct update_msg *head);
/** \return 0, or -ENOSPC: the operation does not fit, end this message and begin another. */
int update_add(struct update_buf *b, const struct user_op *op);
/** Signs; hash gets this message's hash. \return its length or -ENOSPC. */
long update_end(struct update_buf *b, const uint8_t sk[static UPDATE_SIGN_SECRET], uint8_t hash[static UPDATE_HEAD_BYTES]);

/** Verifies the signature, then decodes. \return 0, -EINVAL malformed (signature not looked at), -EBADMSG signature. */
int update_open(struct span in, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct update_msg *out);
/** What a message says it is: type, at.seq, unix_ms, epoch, chunk and chunks, the rest zero. Unverified: only of messages that were opened
 * before. \return false: it is too short or of no known type. */
bool update_peek(struct span in, struct update_msg *out);
/** Start with *rest = msg.ops. \return 1 an operation, 0 the end, -EINVAL malformed. update_open has already walked them once. */
int user_op_next(struct span *rest, struct user_op *op);
