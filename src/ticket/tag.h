/* SPDX-License-Identifier: Apache-2.0 */
/** \file The tag of a UDP packet towards the service: a 16-byte trailer, 64-bit counter (big-endian) and SipHash-2-4 (as libsodium
 * writes it) over payload and counter. The anti-replay window is RFC 6479's. Pure. The gate's eBPF checks the same bytes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TAG_BYTES        16
#define TAG_KEY_BYTES    16
#define TAG_WINDOW_WORDS 16 /* x 64 bits; one word is always the one being filled: 960 counters may arrive late */

struct tag_window {
	uint64_t top; /* highest counter seen; counters start at 1 */
	uint64_t bits[TAG_WINDOW_WORDS];
};

/** Appends the trailer at payload[len]; the buffer has TAG_BYTES of room. The sender never uses a counter twice with one key. */
void tag_seal(uint8_t *payload, size_t len, uint64_t counter, const uint8_t key[static TAG_KEY_BYTES]);

/** Checks the MAC of a packet of `len` bytes, trailer included, in constant time. \return true and *counter. */
bool tag_verify(const uint8_t *packet, size_t len, const uint8_t key[static TAG_KEY_BYTES], uint64_t *counter);

/** Only after tag_verify: false for a counter that was seen, or is too old, or is 0. */
bool tag_window_accept(struct tag_window *w, uint64_t counter);
