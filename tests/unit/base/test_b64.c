/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/b64.h"

/* RFC 4648 section 10, without padding, and the two characters that base64url changes. */
static const struct {
	struct span bytes, text;
} vectors[] = {
	{{"", 0}, {"", 0}},           {{"f", 1}, {"Zg", 2}},          {{"fo", 2}, {"Zm8", 3}},          {{"foo", 3}, {"Zm9v", 4}},
	{{"foob", 4}, {"Zm9vYg", 6}}, {{"fooba", 5}, {"Zm9vYmE", 7}}, {{"foobar", 6}, {"Zm9vYmFy", 8}}, {{"\xfb\xff\xfe", 3}, {"-__-", 4}},
};

static void known(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
		char text[16];
		uint8_t bytes[16];

		assert_int_equal(b64url_encode((const uint8_t *)vectors[i].bytes.p, vectors[i].bytes.n, text), vectors[i].text.n);
		assert_int_equal(vectors[i].text.n, B64URL_LEN(vectors[i].bytes.n));
		assert_memory_equal(text, vectors[i].text.p, vectors[i].text.n);
		assert_int_equal(b64url_decode(vectors[i].text, bytes, vectors[i].bytes.n), vectors[i].bytes.n);
		assert_memory_equal(bytes, vectors[i].bytes.p, vectors[i].bytes.n);
	}
}

/* Every character in every position: only the alphabet decodes, and each to its own value. */
static void alphabet(void **state)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

	(void)state;
	for (unsigned at = 0; at < 24; at++) {
		for (unsigned c = 0; c < 256; c++) {
			const char *digit = c != 0 ? strchr(digits, (int)c) : NULL;
			char text[24];
			uint8_t out[18];
			long n;

			memset(text, 'B', sizeof(text));
			text[at] = (char)c;
			n = b64url_decode(span_of(text, sizeof(text)), out, sizeof(out));
			assert_int_equal(n, digit != NULL ? 18 : -EINVAL);
			for (unsigned i = 0; n == 18 && i < 24; i++) {
				unsigned v = (unsigned)out[i / 4 * 3] << 16 | (unsigned)out[i / 4 * 3 + 1] << 8 | out[i / 4 * 3 + 2];

				assert_int_equal(v >> (18 - 6 * (i % 4)) & 63, i == at ? (unsigned)(digit - digits) : 1);
			}
		}
	}
}

/* Every length, from and into exact heap copies; and what is behind the last byte must be zero. */
static void lengths(void **state)
{
	(void)state;
	for (size_t n = 1; n <= 40; n++) {
		uint8_t *in = malloc(n), *out = malloc(n);
		size_t len = B64URL_LEN(n);
		char *text = malloc(len), *hexed = malloc(2 * n);

		for (size_t i = 0; i < n; i++)
			in[i] = (uint8_t)(i * 151 + n * 29);
		assert_int_equal(b64url_encode(in, n, text), len);
		assert_int_equal(b64url_decode(span_of(text, len), out, n), n);
		assert_memory_equal(in, out, n);
		assert_int_equal(b64url_decode(span_of(text, len), out, n - 1), -ENOSPC);
		hex_encode(in, n, hexed);
		for (size_t i = 0; i < n; i++) {
			char pair[3];

			snprintf(pair, sizeof(pair), "%02x", in[i]);
			assert_memory_equal(hexed + 2 * i, pair, 2);
		}
		memset(in, 0xff, n);
		b64url_encode(in, n, text);
		text[len - 1] = '_';
		assert_int_equal(b64url_decode(span_of(text, len), out, n), n % 3 == 0 ? (long)n : -EINVAL);
		free(in);
		free(out);
		free(text);
		free(hexed);
	}
}

static void strict(void **state)
{
	uint8_t out[8];

	(void)state;
	assert_int_equal(b64url_decode(SPAN_LIT("Zg=="), out, 8), -EINVAL);
	assert_int_equal(b64url_decode(SPAN_LIT("Z"), out, 8), -EINVAL);
	assert_int_equal(b64url_decode(SPAN_LIT("Zh"), out, 8), -EINVAL);
	assert_int_equal(b64url_decode(SPAN_LIT("Zm9"), out, 8), -EINVAL);
	assert_int_equal(b64url_decode(SPAN_LIT("Zm+v"), out, 8), -EINVAL);
	assert_int_equal(b64url_decode(SPAN_LIT("Zm9v"), out, 2), -ENOSPC);
	assert_int_equal(b64url_decode(SPAN_LIT("Zg"), out, 0), -ENOSPC);
}

static void hex(void **state)
{
	const uint8_t in[3] = {0x00, 0x9a, 0xff};
	uint8_t out[3];
	char text[6];

	(void)state;
	hex_encode(in, 3, text);
	assert_memory_equal(text, "009aff", 6);
	assert_int_equal(hex_decode(SPAN_LIT("009AfF"), out, 3), 0);
	assert_memory_equal(in, out, 3);
	assert_int_equal(hex_decode(SPAN_LIT("009af"), out, 3), -EINVAL);
	assert_int_equal(hex_decode(SPAN_LIT("009aff0"), out, 3), -EINVAL);
	assert_int_equal(hex_decode(SPAN_LIT("009ag0"), out, 3), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known),  cmocka_unit_test(alphabet), cmocka_unit_test(lengths),
		cmocka_unit_test(strict), cmocka_unit_test(hex),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
