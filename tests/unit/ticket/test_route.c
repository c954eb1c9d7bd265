/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/b64.h"
#include "ticket/route.h"

static const uint8_t key[ROUTE_KEY_BYTES] = {0x10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

static struct route_token token(const char *client)
{
	struct route_token t = {.expires_unix_s = 1800000000, .agent = 0x0123456789abcdef, .flow = 0x4001020304050607, .call = 0xca110001};

	assert_int_equal(wn_addr_parse(span_str(client), -1, &t.client), 0);
	return t;
}

static void round_trip(void **state)
{
	static const char *const clients[] = {"192.0.2.7:40112", "[2001:db8::7]:65535"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct route_token t = token(clients[i]), o = {0};
		char text[ROUTE_TOKEN_CHARS];

		route_token_seal(&t, key, text);
		assert_int_equal(route_token_open(span_of(text, sizeof(text)), key, 1799999999, &o), 0);
		assert_true(wn_addr_eq(&t.client, &o.client));
		assert_int_equal(o.expires_unix_s, t.expires_unix_s);
		assert_true(o.agent == t.agent && o.flow == t.flow && o.call == t.call);
	}
}

/* The bytes are one order on every machine: fronts of a tenant share tokens. */
static void layout(void **state)
{
	struct route_token t = token("192.0.2.7:258");
	char text[ROUTE_TOKEN_CHARS];
	uint8_t raw[ROUTE_TOKEN_BYTES];
	static const uint8_t want[44] = {2,    0,    1,    2,    0x6b, 0x49, 0xd2, 0, 0, 0,    0,    0,    0,    0,    0,
					 0,    0,    0,    0xff, 0xff, 192,  0,    2, 7, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
					 0xcd, 0xef, 0x40, 1,    2,    3,    4,    5, 6, 7,    0xca, 0x11, 0,    1};

	(void)state;
	route_token_seal(&t, key, text);
	assert_int_equal(b64url_decode(span_of(text, sizeof(text)), raw, sizeof(raw)), ROUTE_TOKEN_BYTES);
	assert_memory_equal(raw, want, sizeof(want));
}

static void expires(void **state)
{
	struct route_token t = token("192.0.2.7:1"), o;
	char text[ROUTE_TOKEN_CHARS];

	(void)state;
	route_token_seal(&t, key, text);
	assert_int_equal(route_token_open(span_of(text, sizeof(text)), key, t.expires_unix_s, &o), -ETIMEDOUT);
	assert_int_equal(route_token_open(span_of(text, sizeof(text)), key, UINT32_MAX, &o), -ETIMEDOUT);
}

static void forged(void **state)
{
	struct route_token t = token("192.0.2.7:1"), o;
	char text[ROUTE_TOKEN_CHARS], longer[ROUTE_TOKEN_CHARS + 1];
	uint8_t raw[ROUTE_TOKEN_BYTES], other[ROUTE_KEY_BYTES];

	(void)state;
	route_token_seal(&t, key, text);
	assert_int_equal(b64url_decode(span_of(text, sizeof(text)), raw, sizeof(raw)), ROUTE_TOKEN_BYTES);
	for (unsigned bit = 0; bit < ROUTE_TOKEN_BYTES * 8; bit++) {
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
		b64url_encode(raw, sizeof(raw), text);
		/* Version and flags that are not known are no token of ours; everything else is the MAC's to find. */
		assert_int_equal(route_token_open(span_of(text, sizeof(text)), key, 0, &o), bit < 16 ? -EINVAL : -EBADMSG);
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	b64url_encode(raw, sizeof(raw), text);
	for (unsigned bit = 0; bit < 128; bit++) {
		memcpy(other, key, sizeof(other));
		other[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(route_token_open(span_of(text, sizeof(text)), other, 0, &o), -EBADMSG);
	}
	memcpy(longer, text, sizeof(text));
	longer[ROUTE_TOKEN_CHARS] = 'A';
	assert_int_equal(route_token_open(span_of(longer, sizeof(longer)), key, 0, &o), -EINVAL);
	assert_int_equal(route_token_open(span_of(text, sizeof(text) - 1), key, 0, &o), -EINVAL);
	assert_int_equal(route_token_open((struct span){0}, key, 0, &o), -EINVAL);
	text[3] = '=';
	assert_int_equal(route_token_open(span_of(text, sizeof(text)), key, 0, &o), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),
		cmocka_unit_test(layout),
		cmocka_unit_test(expires),
		cmocka_unit_test(forged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
