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

#ifdef __SSE2__
/* A bit for each of sixteen bytes that belong to the set. */

/* Control characters apart from TAB. */
SIP_INLINE unsigned sip_mask_control(__m128i v)
{
	__m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);

	return (unsigned)_mm_movemask_epi8(_mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('\t')), low));
}

/* What may stand in no URI: blanks and control characters, DEL, '<', '>', '"'. */
SIP_INLINE unsigned sip_mask_uri_stop(__m128i v)
{
	__m128i low = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(' ')), v);
	__m128i angle = _mm_cmpeq_epi8(_mm_or_si128(v, _mm_set1_epi8(2)), _mm_set1_epi8('>'));
	__m128i other = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(low, angle), other));
}

/* '"' and backslash. */
SIP_INLINE unsigned sip_mask_quote(__m128i v)
{
	return (unsigned)_mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')), _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))));
}

/* Not a letter, a digit, '-', '.' or '_': those are all that a host name holds, and nearly all that stands in a token. */
SIP_INLINE unsigned sip_mask_word_end(__m128i v)
{
	__m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
	__m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0')), dash = _mm_sub_epi8(v, _mm_set1_epi8('-'));
	__m128i in = _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
				  _mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit));

	_Static_assert('-' + 1 == '.', "a range of two");
	in = _mm_or_si128(in,
			  _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(dash, _mm_set1_epi8(1)), dash), _mm_cmpeq_epi8(v, _mm_set1_epi8('_'))));
	return (unsigned)_mm_movemask_epi8(in) ^ 0xffff;
}

/* '<', '"', ',' and '?'. */
SIP_INLINE unsigned sip_mask_list(__m128i v)
{
	__m128i a = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('<')), _mm_cmpeq_epi8(v, _mm_set1_epi8('"')));
	__m128i b = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(',')), _mm_cmpeq_epi8(v, _mm_set1_epi8('?')));

	return (unsigned)_mm_movemask_epi8(_mm_or_si128(a, b));
}

SIP_INLINE __m128i sip_load16(const char *p)
{
	return _mm_loadu_si128((const __m128i *)(const void *)p);
}

/* Steps from p to end. What is left over at the end is read once more with what stands before it, if sixteen bytes from `base` on are
 * there. */
#define SIP_FIND_16(mask_of, p, end, base)                                             \
	do {                                                                           \
		unsigned mask_;                                                        \
                                                                                       \
		for (; (end) - (p) >= 16; (p) += 16) {                                 \
			mask_ = mask_of(sip_load16(p));                                \
			if (mask_ != 0)                                                \
				return (p) + __builtin_ctz(mask_);                     \
		}                                                                      \
		if ((p) < (end) && (end) - (base) >= 16) {                             \
			mask_ = mask_of(sip_load16((end)-16)) >> (16 - ((end) - (p))); \
			return mask_ != 0 ? (p) + __builtin_ctz(mask_) : (end);        \
		}                                                                      \
	} while (0)
#endif

/*
 * Each finder returns the first byte of its set from p on, or end. The bytes from `base`, which is p or stands before it, can be read too.
 */

/** Every line's end and every forbidden byte is a control character apart from TAB, so one pass finds both. */
SIP_INLINE const char *sip_find_control(const char *p, const char *end, const char *base, bool vector)
{
#ifdef __SSE2__
	if (vector)
		SIP_FIND_16(sip_mask_control, p, end, base);
#endif
	(void)base, (void)vector;
	while (p < end && ((unsigned char)*p >= 0x20 || *p == '\t'))
		p++;
	return p;
}

/** What may stand in no URI, which '>' is one of. */
SIP_INLINE const char *sip_find_uri_stop(const char *p, const char *end, const char *base, bool vector)
{
#ifdef __SSE2__
	if (vector)
		SIP_FIND_16(sip_mask_uri_stop, p, end, base);
#endif
	(void)base, (void)vector;
	while (p < end && (unsigned char)*p > ' ' && *p != '<' && *p != '>' && *p != '"' && *p != 0x7f)
		p++;
	return p;
}

/** What is no letter, no digit, not '-', '.' and '_'. */
SIP_INLINE const char *sip_find_word_end(const char *p, const char *end, const char *base, bool vector)
{
#ifdef __SSE2__
	if (vector)
		SIP_FIND_16(sip_mask_word_end, p, end, base);
#endif
	(void)base, (void)vector;
	while (p < end && (((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z') || (*p >= '0' && *p <= '9') || *p == '-' || *p == '.' || *p == '_'))
		p++;
	return p;
}

/** What shows that a value is more than one URI without <>: '<', '"', ',' and '?'. */
SIP_INLINE const char *sip_find_list(const char *p, const char *end, const char *base, bool vector)
{
#ifdef __SSE2__
	if (vector)
		SIP_FIND_16(sip_mask_list, p, end, base);
#endif
	(void)base, (void)vector;
	while (p < end && *p != '<' && *p != '"' && *p != ',' && *p != '?')
		p++;
	return p;
}

/** '"' or a backslash. */
SIP_INLINE const char *sip_find_quote(const char *p, const char *end, const char *base, bool vector)
{
#ifdef __SSE2__
	if (vector)
		SIP_FIND_16(sip_mask_quote, p, end, base);
#endif
	(void)base, (void)vector;
	while (p < end && *p != '"' && *p != '\\')
		p++;
	return p;
}

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
	if (n >= 4) {
		uint32_t a, b, c, d;

		memcpy(&a, p, 4);
		memcpy(&b, lower, 4);
		memcpy(&c, p + (n - 4), 4);
		memcpy(&d, lower + (n - 4), 4);
		return (((a | 0x20202020u) ^ b) | ((c | 0x20202020u) ^ d)) == 0;
	}
	return (((p[0] | 0x20) ^ lower[0]) | ((p[n / 2] | 0x20) ^ lower[n / 2]) | ((p[n - 1] | 0x20) ^ lower[n - 1])) == 0;
}
