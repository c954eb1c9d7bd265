/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/b64.h"
#include "ticket/hkdf.h"
#include "ticket/session_key.h"

/* RFC 5869 appendix A.1, A.2, A.3. */
static void rfc5869(void **state)
{
	uint8_t ikm[80], salt[80], info[80], out[82], want[82];

	(void)state;
	memset(ikm, 0x0b, 22);
	assert_int_equal(hex_decode(SPAN_LIT("000102030405060708090a0b0c"), salt, 13), 0);
	assert_int_equal(hex_decode(SPAN_LIT("f0f1f2f3f4f5f6f7f8f9"), info, 10), 0);
	assert_int_equal(
		hex_decode(SPAN_LIT("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865"), want, 42), 0);
	assert_int_equal(hkdf_sha256(span_of(ikm, 22), span_of(salt, 13), span_of(info, 10), out, 42), 0);
	assert_memory_equal(out, want, 42);

	for (unsigned i = 0; i < 80; i++) {
		ikm[i] = (uint8_t)i;
		salt[i] = (uint8_t)(0x60 + i);
		info[i] = (uint8_t)(0xb0 + i);
	}
	assert_int_equal(
		hex_decode(SPAN_LIT("b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
				    "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"),
			   want, 82),
		0);
	assert_int_equal(hkdf_sha256(span_of(ikm, 80), span_of(salt, 80), span_of(info, 80), out, 82), 0);
	assert_memory_equal(out, want, 82);

	memset(ikm, 0x0b, 22);
	assert_int_equal(
		hex_decode(SPAN_LIT("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"), want, 42), 0);
	assert_int_equal(hkdf_sha256(span_of(ikm, 22), (struct span){0}, (struct span){0}, out, 42), 0);
	assert_memory_equal(out, want, 42);
}

static void session(void **state)
{
	uint8_t sk[32] = {7}, got[SESSION_KEY_BYTES], want[SESSION_KEY_BYTES];
	/* info as session_key.h states it, by hand */
	static const char info[] = "\0\3abc\0\1x\0\5id@h1\0\3ssh";

	(void)state;
	assert_int_equal(session_key_derive(sk, 32, SPAN_LIT("abc"), SPAN_LIT("x"), SPAN_LIT("id@h1"), SPAN_LIT("ssh"), got), 0);
	assert_int_equal(hkdf_sha256(span_of(sk, 32), SPAN_LIT("walnut/1 session"), span_of(info, sizeof(info) - 1), want, sizeof(want)),
			 0);
	assert_memory_equal(got, want, sizeof(want));
}

#define VARIANTS 12

/* Every input, and where one ends and the next begins, changes the key. */
static void separation(void **state)
{
	static const struct {
		const char *nonce, *cnonce, *call_id, *service;
	} in[] = {
		{"a", "b", "c", "d"}, {"A", "b", "c", "d"}, {"a", "B", "c", "d"}, {"a", "b", "C", "d"}, {"a", "b", "c", "D"},
		{"ab", "", "c", "d"}, {"", "ab", "c", "d"}, {"a", "bc", "", "d"}, {"a", "b", "cd", ""}, {"a", "b", "", "cd"},
	};
	const size_t n = sizeof(in) / sizeof(in[0]);
	uint8_t sk[32] = {1}, keys[VARIANTS][SESSION_KEY_BYTES];

	(void)state;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(session_key_derive(sk, 32, span_str(in[i].nonce), span_str(in[i].cnonce), span_str(in[i].call_id),
						    span_str(in[i].service), keys[i]),
				 0);
	/* Half of the key material, as a user of MD5 has it; and another. */
	assert_int_equal(session_key_derive(sk, 16, SPAN_LIT("a"), SPAN_LIT("b"), SPAN_LIT("c"), SPAN_LIT("d"), keys[n]), 0);
	sk[31] = 1;
	assert_int_equal(session_key_derive(sk, 32, SPAN_LIT("a"), SPAN_LIT("b"), SPAN_LIT("c"), SPAN_LIT("d"), keys[n + 1]), 0);
	assert_int_equal(n + 2, VARIANTS);
	for (size_t i = 0; i < VARIANTS; i++) {
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(keys[i], keys[j], SESSION_KEY_BYTES);
	}
}

static void flows(void **state)
{
	static const struct {
		uint16_t flow;
		enum flow_direction dir;
	} in[] = {{0, FLOW_TO_SERVICE}, {0, FLOW_TO_CLIENT},    {1, FLOW_TO_SERVICE},
		  {1, FLOW_TO_CLIENT},  {256, FLOW_TO_SERVICE}, {65535, FLOW_TO_CLIENT}};
	enum { N = sizeof(in) / sizeof(in[0]) };
	uint8_t key[SESSION_KEY_BYTES] = {9}, out[N][FLOW_KEY_BYTES], want[FLOW_KEY_BYTES];

	(void)state;
	for (size_t i = 0; i < N; i++)
		assert_int_equal(flow_key_derive(key, in[i].flow, in[i].dir, out[i]), 0);
	for (size_t i = 0; i < N; i++) {
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(out[i], out[j], FLOW_KEY_BYTES);
	}
	assert_int_equal(hkdf_sha256(span_of(key, sizeof(key)), SPAN_LIT("walnut/1 flow"), span_of("\1\0\0", 3), want, sizeof(want)), 0);
	assert_memory_equal(out[4], want, FLOW_KEY_BYTES);
	/* Session and flow keys cannot be taken for each other even for the same info. */
	assert_int_equal(hkdf_sha256(span_of(key, sizeof(key)), SPAN_LIT("walnut/1 session"), span_of("\1\0\0", 3), want, sizeof(want)), 0);
	assert_memory_not_equal(out[4], want, FLOW_KEY_BYTES);
}

static void limits(void **state)
{
	static char text[70000];
	uint8_t sk[32] = {0}, out[SESSION_KEY_BYTES];

	(void)state;
	memset(text, 'x', sizeof(text));
	assert_int_equal(session_key_derive(sk, 32, span_of(text, 65536), SPAN_LIT(""), SPAN_LIT(""), SPAN_LIT(""), out), -EINVAL);
	assert_int_equal(session_key_derive(sk, 32, SPAN_LIT(""), SPAN_LIT(""), SPAN_LIT(""), span_of(text, sizeof(text)), out), -EINVAL);
	assert_int_equal(session_key_derive(sk, 32, span_of(text, 500), span_of(text, 500), SPAN_LIT(""), span_of(text, 100), out),
			 -EINVAL);
	assert_int_equal(session_key_derive(sk, 32, span_of(text, 500), span_of(text, 500), SPAN_LIT(""), span_of(text, 16), out), 0);
	assert_int_equal(session_key_derive(sk, 32, (struct span){0}, (struct span){0}, (struct span){0}, (struct span){0}, out), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc5869), cmocka_unit_test(session), cmocka_unit_test(separation),
		cmocka_unit_test(flows),   cmocka_unit_test(limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
