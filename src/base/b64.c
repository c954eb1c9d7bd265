/* SPDX-License-Identifier: Apache-2.0 */
#include "base/b64.h"

#include <errno.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/* Without a table and without branches on the value: secrets pass through here. Returns 0..63 or -1. */
static int digit64(char c)
{
	int v = (unsigned char)c;
	int r = -1;

	r += (((('A' - 1) - v) & (v - ('Z' + 1))) >> 8) & (v - 'A' + 1);
	r += (((('a' - 1) - v) & (v - ('z' + 1))) >> 8) & (v - 'a' + 27);
	r += (((('0' - 1) - v) & (v - ('9' + 1))) >> 8) & (v - '0' + 53);
	r += (((('-' - 1) - v) & (v - ('-' + 1))) >> 8) & 63;
	r += (((('_' - 1) - v) & (v - ('_' + 1))) >> 8) & 64;
	return r;
}

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
	unsigned acc = 0, bits = 0;
	size_t o = 0;
	int bad = 0;

	if (in.n % 4 == 1)
		return -EINVAL;
	if (need > cap)
		return -ENOSPC;
	for (size_t i = 0; i < in.n; i++) {
		int d = digit64(in.p[i]);

		bad |= d;
		acc = acc << 6 | ((unsigned)d & 63);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			out[o++] = (uint8_t)(acc >> bits);
			acc &= (1u << bits) - 1;
		}
	}
	if (bad < 0 || acc != 0)
		return -EINVAL;
	return (long)o;
}

void hex_encode(const uint8_t *in, size_t n, char *out)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		out[2 * i] = digits[in[i] >> 4];
		out[2 * i + 1] = digits[in[i] & 15];
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
