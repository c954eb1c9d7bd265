/* SPDX-License-Identifier: Apache-2.0 */
/** \file Finding bytes, sixteen at a time where SSE2 is (always on x86-64), and one by one. Only for src/sip.
 *
 * What is built on these takes `vector` as a constant, so that each function exists in both kinds and neither asks at run time.
 * -DSIP_SCALAR leaves the vector kind out of the library's own calls. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if defined(__SSE2__) && !defined(SIP_SCALAR)
#define SIP_VECTOR true
#else
#define SIP_VECTOR false
#endif

#define SIP_INLINE static inline __attribute__((always_inline))

/** Compares with lower-case letters and '-'. Only CR could be taken for '-', and no name holds one. `n` is a constant at every call. */
SIP_INLINE bool sip_is_lower(const char *p, const char *lower, size_t n)
{
	if (n >= 8) {
		for (size_t at = 0;; at = at + 16 <= n ? at + 8 : n - 8) {
			uint64_t a, b;

			memcpy(&a, p + at, 8);
			memcpy(&b, lower + at, 8);
			if ((a | 0x2020202020202020u) != b)
				return false;
			if (at + 8 == n)
				return true;
		}
	}
	for (size_t i = 0; i < n; i++) {
		if ((p[i] | 0x20) != lower[i])
			return false;
	}
	return true;
}
