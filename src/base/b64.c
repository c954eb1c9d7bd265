/* SPDX-License-Identifier: Apache-2.0 */
#include "base/b64.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#define ONES 0x0101010101010101u /* eight bytes in one word, each of which keeps to itself */
#define HIGH 0x8080808080808080u

/* 1 in each byte that lies between the two; all of them are below 0x80. */
static uint64_t between(uint64_t x, unsigned low, unsigned high)
{
	return ((x + ONES * (0x80 - low)) & ~(x + ONES * (0x7f - high)) & HIGH) >> 7;
}

/* Eight characters, the first of them in the highest byte, into 48 bits. Without a table and without branches on the value: secrets pass
 * through here. *bad keeps a bit when one of them does not belong to the alphabet. */
static uint64_t digits64(uint64_t x, uint64_t *bad)
{
	uint64_t c = x & ~HIGH;
	uint64_t upper = between(c, 'A', 'Z'), lower = between(c, 'a', 'z'), digit = between(c, '0', '9');
	uint64_t minus = between(c, '-', '-'), under = between(c, '_', '_');

	*bad |= (x & HIGH) | ((upper | lower | digit | minus | under) ^ ONES);
	x = c - upper * 'A' - lower * ('a' - 26) - under * ('_' - 63) + digit * (52 - '0') + minus * (62 - '-');
	x = (x & 0x003f003f003f003fu) | (x >> 2 & 0x0fc00fc00fc00fc0u);
	x = (x & 0x00000fff00000fffu) | (x >> 4 & 0x00fff00000fff000u);
	return (x & 0xffffffu) | (x >> 8 & 0xffffff000000u);
}

#ifdef __SSE2__
/* -1 in each byte that lies between the two. */
static __m128i within(__m128i v, char low, char high)
{
	__m128i x = _mm_sub_epi8(v, _mm_set1_epi8(low));

	return _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8((char)(high - low))), x);
}

static __m128i where(__m128i mask, int add)
{
	return _mm_and_si128(mask, _mm_set1_epi8((char)add));
}

/* The same for sixteen characters, into 12 bytes. */
static void decode16(const char *in, uint8_t *out, __m128i *good)
{
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)in);
	__m128i upper = within(v, 'A', 'Z'), lower = within(v, 'a', 'z'), digit = within(v, '0', '9');
	__m128i minus = within(v, '-', '-'), under = within(v, '_', '_');
	__m128i letter = _mm_or_si128(where(upper, -'A'), where(lower, 26 - 'a'));
	__m128i other = _mm_or_si128(_mm_or_si128(where(digit, 52 - '0'), where(minus, 62 - '-')), where(under, 63 - '_'));
	uint64_t half[2];

	*good = _mm_and_si128(*good, _mm_or_si128(_mm_or_si128(_mm_or_si128(upper, lower), _mm_or_si128(minus, under)), digit));
	v = _mm_add_epi8(v, _mm_or_si128(letter, other));
	/* The first of each two is the higher one: 12 bits, then 24. */
	v = _mm_or_si128(_mm_slli_epi16(_mm_and_si128(v, _mm_set1_epi16(0xff)), 6), _mm_srli_epi16(v, 8));
	v = _mm_madd_epi16(v, _mm_set1_epi32(1 << 16 | 1 << 12));
	_mm_storeu_si128((__m128i *)(void *)half, v);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t x = htobe64((half[i] << 24 | half[i] >> 32) << 16);

		memcpy(out + (size_t)6 * i, &x, 6);
	}
}
#endif

static int digit16(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

size_t b64url_encode(const uint8_t *in, size_t n, char *out)
{
	size_t o = 0, i = 0;

	for (; i + 3 <= n; i += 3) {
		unsigned v = (unsigned)in[i] << 16 | (unsigned)in[i + 1] << 8 | in[i + 2];

		out[o++] = alphabet[v >> 18];
		out[o++] = alphabet[v >> 12 & 63];
		out[o++] = alphabet[v >> 6 & 63];
		out[o++] = alphabet[v & 63];
	}
	if (n - i == 1) {
		out[o++] = alphabet[in[i] >> 2];
		out[o++] = alphabet[in[i] << 4 & 63];
	} else if (n - i == 2) {
		unsigned v = (unsigned)in[i] << 8 | in[i + 1];

		out[o++] = alphabet[v >> 10];
		out[o++] = alphabet[v >> 4 & 63];
		out[o++] = alphabet[v << 2 & 63];
	}
	return o;
}

long b64url_decode(struct span in, uint8_t *out, size_t cap)
{
	size_t need = in.n / 4 * 3 + (in.n % 4 == 0 ? 0 : in.n % 4 - 1);
	uint64_t bad = 0, x, rest = 0;
	size_t i = 0, o = 0;

	if (in.n % 4 == 1)
		return -EINVAL;
	if (need > cap)
		return -ENOSPC;
#ifdef __SSE2__
	__m128i good = _mm_set1_epi8(-1);

	for (; in.n - i >= 16; i += 16, o += 12)
		decode16(in.p + i, out + o, &good);
	bad = (uint64_t)(_mm_movemask_epi8(good) ^ 0xffff);
#endif
	for (; i < in.n; i += 8, o += 6) {
		const size_t n = in.n - i < 8 ? in.n - i : 8, bytes = need - o < 6 ? need - o : 6;

		/* 'A' is zero: what stands for what is not there. */
		memset(&x, 'A', sizeof(x));
		memcpy(&x, in.p + i, n);
		x = digits64(be64toh(x), &bad);
		/* Bits behind the last byte. */
		if (bytes < 6)
			rest |= x << (16 + 8 * bytes);
		x = htobe64(x << 16);
		memcpy(out + o, &x, bytes);
	}
	return bad == 0 && rest == 0 ? (long)need : -EINVAL;
}

/* Without a table and without branches, as above. */
static char hex_digit(int v)
{
	return (char)(v + '0' + ((9 - v) >> 8 & ('a' - '0' - 10)));
}

#ifdef __SSE2__
static __m128i hex_digits(__m128i v)
{
	__m128i letter = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8(9)), _mm_set1_epi8('a' - '0' - 10));

	return _mm_add_epi8(_mm_add_epi8(v, _mm_set1_epi8('0')), letter);
}

static void hex16(const uint8_t *in, char *out)
{
	const __m128i low = _mm_set1_epi8(15);
	__m128i v = _mm_loadu_si128((const __m128i *)(const void *)in);
	__m128i high = hex_digits(_mm_and_si128(_mm_srli_epi16(v, 4), low)), less = hex_digits(_mm_and_si128(v, low));

	_mm_storeu_si128((__m128i *)(void *)out, _mm_unpacklo_epi8(high, less));
	_mm_storeu_si128((__m128i *)(void *)(out + 16), _mm_unpackhi_epi8(high, less));
}
#endif

void hex_encode(const uint8_t *in, size_t n, char *out)
{
	size_t i = 0;

#ifdef __SSE2__
	for (; n - i >= 16; i += 16)
		hex16(in + i, out + 2 * i);
#endif
	for (; i < n; i++) {
		out[2 * i] = hex_digit(in[i] >> 4);
		out[2 * i + 1] = hex_digit(in[i] & 15);
	}
}

int hex_decode(struct span in, uint8_t *out, size_t n)
{
	if (in.n != 2 * n)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		int h = digit16(in.p[2 * i]), l = digit16(in.p[2 * i + 1]);

		if (h < 0 || l < 0)
			return -EINVAL;
		out[i] = (uint8_t)(h << 4 | l);
	}
	return 0;
}
