/* SPDX-License-Identifier: Apache-2.0 */
/** \file The users that front-users writes, so that a load generator can compute what they know.
 *
 * User number n, from 0, is called "u" and n in eleven decimal digits. Its secret is 32 lower-case hex digits: the outputs 2n and 2n + 1 of
 * a splitmix64 generator, 16 digits each, whose state begins at the seed; the seed is the FNV-1a hash (64 bits) of a text. The realm is
 * DOMAIN/EPOCH, EPOCH the Unix time in seconds divided by the epoch's length, or 0 with rotation off; HA1 = H(user:realm:secret). These
 * secrets are for measurements: anybody can compute them. */
#pragma once

#include <stdint.h>

#define FRONT_USER_NAME_CHARS   12u
#define FRONT_USER_SECRET_CHARS 32u

/** Text to seed. */
static inline uint64_t front_user_seed(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *text != '\0'; text++)
		h = (h ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
	return h;
}

/** Exactly 12 characters, no NUL. n below 10^11. */
static inline void front_user_name(uint64_t n, char out[static FRONT_USER_NAME_CHARS])
{
	out[0] = 'u';
	for (unsigned i = FRONT_USER_NAME_CHARS - 1; i > 0; i--, n /= 10)
		out[i] = (char)('0' + n % 10);
}

/** Exactly 32 characters, no NUL. */
static inline void front_user_secret(uint64_t seed, uint64_t n, char out[static FRONT_USER_SECRET_CHARS])
{
	static const char digit[] = "0123456789abcdef";

	for (unsigned half = 0; half < 2; half++) {
		uint64_t z = seed + (2 * n + half + 1) * UINT64_C(0x9e3779b97f4a7c15);

		z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
		z ^= z >> 31;
		for (unsigned i = 0; i < 16; i++)
			out[16 * half + i] = digit[z >> (60 - 4 * i) & 15];
	}
}

/** The epoch of that time; 0 with rotation off (epoch_s 0). */
static inline uint32_t front_user_epoch(uint64_t unix_s, uint32_t epoch_s)
{
	return epoch_s != 0 ? (uint32_t)(unix_s / epoch_s) : 0;
}
