/* SPDX-License-Identifier: Apache-2.0 */
/** \file Nonces that a front can verify without having stored anything about a stranger, and that are used once. Pure but for atomics.
 *
 * A nonce is issue time (32 bits, milliseconds >> 8 of the boot clock), a 64-bit number that never repeats within this boot, and
 * SipHash-2-4 over both, the source address (IPv4 /32, IPv6 /64) and the realm, under a key of this boot: 20 bytes, 27 characters of
 * base64url.
 *
 * One use: the numbers are dense, so what was used is a ring of four bits per number (one: used; two: failed digests; the fourth is a share
 * of the word's lap, by which a word that was taken anew is told from its former self) instead of a set of entries: exact, of fixed
 * size, never full. A number that has left the ring is stale, however young.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define NONCE_BYTES     20
#define NONCE_CHARS     27
#define NONCE_BLOCK     16u /* numbers that one issuer takes at a time: one 64-bit word of the ring */
#define NONCE_FAILS_MAX 3u

/** Shared by all threads of the process. */
struct nonce_window;
/** ring_bits: log2 of how many numbers are remembered, 10 to 30; lifetime_ms: how old a nonce may be, to 256 ms. \return 0, -EINVAL,
 * -ENOMEM. The key is drawn from the system's random source, or copied when key != NULL (tests). */
int nonce_window_new(unsigned ring_bits, uint32_t lifetime_ms, const uint8_t *key, struct nonce_window **out);
void nonce_window_free(struct nonce_window *w);

/** One per thread. */
struct nonce_issuer {
	struct nonce_window *w;
	uint64_t next, end;
};
void nonce_issuer_init(struct nonce_issuer *i, struct nonce_window *w);

/** `scope` distinguishes transports whose nonces are bound to a connection (0 for UDP). */
void nonce_issue(struct nonce_issuer *i, const struct wn_addr *src, struct span realm, uint64_t scope, uint64_t now_ms,
		 char out[static NONCE_CHARS]);

enum nonce_verdict {
	NONCE_OK,
	NONCE_MALFORMED, /* not 27 characters of base64url */
	NONCE_FOREIGN,   /* the MAC fails: another front's, another boot's, another address's, or forged */
	NONCE_EXPIRED,
	NONCE_USED,      /* already used: a replay */
	NONCE_EXHAUSTED, /* NONCE_FAILS_MAX digests failed on it: serve in the strangers' class */
	NONCE_VERDICTS
};
/** Looks, changes nothing. *number identifies it for the two calls below. Any thread. */
enum nonce_verdict nonce_check(const struct nonce_window *w, struct span text, const struct wn_addr *src, struct span realm, uint64_t scope,
			       uint64_t now_ms, uint64_t *number);
/** Marks it used, atomically over all threads. \return NONCE_OK for exactly one caller ever, NONCE_USED for the others, NONCE_EXPIRED
 * when the number has left the ring meanwhile. */
enum nonce_verdict nonce_use(struct nonce_window *w, uint64_t number);
/** Counts a digest that failed. */
void nonce_fail(struct nonce_window *w, uint64_t number);
const char *nonce_verdict_name(enum nonce_verdict v);
