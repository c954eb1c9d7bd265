/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/b64.h"
#include "sip/digest.h"

static struct digest_ctx *ctx;

static int setup(void **state)
{
	(void)state;
	return digest_ctx_new(&ctx);
}

static int teardown(void **state)
{
	(void)state;
	digest_ctx_free(ctx);
	return 0;
}

static const struct span none = {0};

/* RFC 7616 section 3.9.1. */
#define RFC_PARAMS                                                                                                                       \
	"username=\"Mufasa\", realm=\"http-auth@example.org\", uri=\"/dir/index.html\", "                                                \
	"nonce=\"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v\", nc=00000001, cnonce=\"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ\", " \
	"qop=auth, opaque=\"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS\", "
#define RFC_MD5    "Digest " RFC_PARAMS "response=\"8ca523f5e9506fed4657c9700eebdbec\", algorithm=MD5"
#define RFC_SHA256 "Digest " RFC_PARAMS "response=\"753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1\", algorithm=SHA-256"

static void rfc7616(void **state)
{
	static const struct span values[] = {{RFC_MD5, sizeof(RFC_MD5) - 1}, {RFC_SHA256, sizeof(RFC_SHA256) - 1}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct digest_params p;
		uint8_t ha1[DIGEST_HASH_MAX];

		assert_int_equal(digest_parse(values[i], &p), 0);
		assert_true(p.alg_known);
		assert_int_equal(p.alg, i == 0 ? DIGEST_MD5 : DIGEST_SHA256);
		assert_int_equal(p.qop, DIGEST_QOP_AUTH);
		assert_int_equal(digest_ha1(ctx, p.alg, p.username, p.realm, SPAN_LIT("Circle of Life"), ha1), 0);
		assert_true(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));
		/* What the hash covers: method, uri, nonce, nc, cnonce, qop. With auth not the body. */
		assert_true(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), SPAN_LIT("body")));
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("PUT"), none));
		for (unsigned field = 0; field < 6; field++) {
			struct digest_params q = p;

			if (field == 0)
				q.uri = SPAN_LIT("/dir/index.htm");
			else if (field == 1)
				q.nonce.n--;
			else if (field == 2)
				q.nc_text = SPAN_LIT("00000002");
			else if (field == 3)
				q.cnonce.n--;
			else if (field == 4)
				q.qop = DIGEST_QOP_AUTH_INT;
			else
				q.response.n--;
			assert_false(digest_verify(ctx, &q, ha1, SPAN_LIT("GET"), none));
		}
		ha1[digest_len(p.alg) - 1] ^= 1;
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));
	}
}

/* Each digit of the response counts. */
static void every_digit(void **state)
{
	struct digest_params p;
	uint8_t ha1[DIGEST_HASH_MAX];
	char response[DIGEST_HEX_MAX];

	(void)state;
	assert_int_equal(digest_parse(SPAN_LIT(RFC_SHA256), &p), 0);
	assert_int_equal(digest_ha1(ctx, p.alg, p.username, p.realm, SPAN_LIT("Circle of Life"), ha1), 0);
	memcpy(response, p.response.p, DIGEST_HEX_MAX);
	p.response.p = response;
	for (size_t i = 0; i < DIGEST_HEX_MAX; i++) {
		response[i] ^= 1;
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));
		response[i] ^= 1;
	}
	assert_true(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));
	p.response = none;
	assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));
}

/* RFC 2617 section 3.5, without and with qop; and auth-int step by step from the formula of 3.2.2. */
static void rfc2617(void **state)
{
	struct digest_params p;
	uint8_t ha1[DIGEST_HASH_MAX];
	char out[DIGEST_HEX_MAX];

	(void)state;
	assert_int_equal(
		digest_parse(
			SPAN_LIT("Digest username=\"Mufasa\",realm=\"testrealm@host.com\",nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\","
				 "uri=\"/dir/index.html\",qop=auth,nc=00000001,cnonce=\"0a4f113b\","
				 "response=\"6629fae49393a05397450978507c4ef1\",opaque=\"5ccc069c403ebaf9f0171e9517f40e41\""),
			&p),
		0);
	assert_int_equal(p.alg, DIGEST_MD5);
	assert_true(p.alg_known);
	assert_int_equal(digest_ha1(ctx, DIGEST_MD5, p.username, p.realm, SPAN_LIT("Circle Of Life"), ha1), 0);
	assert_true(digest_verify(ctx, &p, ha1, SPAN_LIT("GET"), none));

	p.qop = DIGEST_QOP_NONE;
	p.qop_text = none;
	assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("GET"), none, out), 0);
	assert_memory_equal(out, "670fd8c2df070c60b045671b8b24ff02", 32);
}

static void hexed(enum digest_alg alg, const char *text, char *hex)
{
	uint8_t h[DIGEST_HASH_MAX];

	/* H(a:b:c) through the one hash that takes pieces: split at the first two colons. */
	const char *a = strchr(text, ':'), *b = strchr(a + 1, ':');

	assert_int_equal(digest_ha1(ctx, alg, span_of(text, (size_t)(a - text)), span_of(a + 1, (size_t)(b - a - 1)), span_str(b + 1), h),
			 0);
	hex_encode(h, digest_len(alg), hex);
	hex[2 * digest_len(alg)] = 0;
}

static void auth_int(void **state)
{
	static const char body[] = "v=0:o=-:a body with two colons";

	(void)state;
	for (unsigned alg = 0; alg < DIGEST_ALGS; alg++) {
		struct digest_params p;
		char body_hex[65], ha1_hex[65], ha2_hex[65], want[65], text[512], value[512], got[DIGEST_HEX_MAX];
		uint8_t ha1[DIGEST_HASH_MAX];
		size_t len = 2 * digest_len((enum digest_alg)alg);

		hexed((enum digest_alg)alg, body, body_hex);
		hexed((enum digest_alg)alg, "alice:example.org/20781:secret", ha1_hex);
		snprintf(text, sizeof(text), "INVITE:sip:ssh@example.org:%s", body_hex);
		hexed((enum digest_alg)alg, text, ha2_hex);
		snprintf(text, sizeof(text), "%s:abc:0000000a:xyz:auth-int:%s", ha1_hex, ha2_hex);
		hexed((enum digest_alg)alg, text, want);

		snprintf(value, sizeof(value),
			 "Digest username=\"alice\",realm=\"example.org/20781\",nonce=\"abc\",uri=\"sip:ssh@example.org\",nc=0000000a,"
			 "cnonce=\"xyz\",qop=auth-int,algorithm=%s,response=\"%s\"",
			 alg == DIGEST_SHA256 ? "SHA-256" : "md5", want);
		assert_int_equal(digest_parse(span_str(value), &p), 0);
		assert_int_equal(p.alg, alg);
		assert_int_equal(hex_decode(span_of(ha1_hex, len), ha1, len / 2), 0);
		assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), span_str(body), got), 0);
		assert_memory_equal(got, want, len);
		assert_true(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), span_str(body)));
		/* The body is covered. */
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), span_of(body, sizeof(body) - 2)));
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), none));
	}
}

/* Texts longer than what is gathered before it is hashed, in steps over its end, against the library's hash of the whole. */
static void long_texts(void **state)
{
	static char uri[1300], text[4096];
	uint8_t ha1[DIGEST_HASH_MAX], h[DIGEST_HASH_MAX];
	char ha1_hex[65], ha2_hex[65], want[DIGEST_HEX_MAX], got[DIGEST_HEX_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(uri); i++)
		uri[i] = (char)('a' + i % 26);
	for (unsigned i = 0; i < DIGEST_HASH_MAX; i++)
		ha1[i] = (uint8_t)(i * 37 + 9);
	for (size_t n = 1; n<sizeof(uri); n += n> 300 && n < 600 ? 1 : 50) {
		for (unsigned alg = 0; alg < DIGEST_ALGS; alg++) {
			const char *name = alg == DIGEST_SHA256 ? "SHA256" : "MD5";
			const size_t len = digest_len((enum digest_alg)alg);
			struct digest_params p = {.alg = (enum digest_alg)alg, .alg_known = true, .qop = DIGEST_QOP_AUTH};
			int k;

			p.uri = span_of(uri, n);
			p.nonce = span_of(uri, n / 2);
			p.cnonce = span_of(uri, n);
			p.nc_text = SPAN_LIT("00000001");
			k = snprintf(text, sizeof(text), "INVITE:%.*s", (int)n, uri);
			assert_int_equal(EVP_Q_digest(NULL, name, NULL, text, (size_t)k, h, NULL), 1);
			hex_encode(h, len, ha2_hex);
			hex_encode(ha1, len, ha1_hex);
			k = snprintf(text, sizeof(text), "%.*s:%.*s:00000001:%.*s:auth:%.*s", (int)(2 * len), ha1_hex, (int)(n / 2), uri,
				     (int)n, uri, (int)(2 * len), ha2_hex);
			assert_int_equal(EVP_Q_digest(NULL, name, NULL, text, (size_t)k, h, NULL), 1);
			hex_encode(h, len, want);
			assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), none, got), 0);
			assert_memory_equal(got, want, 2 * len);

			k = snprintf(text, sizeof(text), "%.*s:%.*s:%.*s", (int)n, uri, (int)n, uri, (int)(n / 3), uri);
			assert_int_equal(EVP_Q_digest(NULL, name, NULL, text, (size_t)k, h, NULL), 1);
			assert_int_equal(digest_ha1(ctx, p.alg, p.uri, p.uri, span_of(uri, n / 3), ha1), 0);
			assert_memory_equal(ha1, h, len);
		}
	}
}

static void empty_body(void **state)
{
	struct digest_params p;
	uint8_t ha1[DIGEST_HASH_MAX] = {1};
	char a[DIGEST_HEX_MAX], b[DIGEST_HEX_MAX];

	(void)state;
	assert_int_equal(digest_parse(SPAN_LIT("Digest nonce=a,uri=\"b\",nc=00000001,cnonce=\"c\",qop=\"auth-int\",algorithm=SHA-256"), &p),
			 0);
	assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), none, a), 0);
	assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), SPAN_LIT(""), b), 0);
	assert_memory_equal(a, b, DIGEST_HEX_MAX);
}

static void parsing(void **state)
{
	static const char *const malformed[] = {
		"",
		"Digest",
		"Digest ",
		"Digest ,",
		"Digest realm",
		"Digest realm=",
		"Digest realm=\"a",
		"Digest realm=\"a\\\"",
		"Digest =\"a\"",
		"Digest realm=\"a\" nonce=\"b\"",
		"Digest realm=\"a\";nonce=\"b\"",
		"Digest realm=\"a\",realm=\"a\"",
		"Digest realm=\"a\",REALM=b",
		"Digest nonce=a,nonce=a",
		"Digest uri=a,uri=a",
		"Digest nc=00000001,nc=00000001",
		"Digest qop=auth,qop=auth-int",
		"Digest algorithm=MD5,algorithm=SHA-256",
		"Digest stale=true,stale=false",
		"Digest username=a,username=b",
		"Digest response=a,response=b",
		"Digest cnonce=a,cnonce=b",
		"Digest opaque=a,opaque=b",
		"Digest nc=1",
		"Digest nc=0000000g",
		"Digest nc=000000001",
		"Digest realm=a b",
		",Digest realm=a",
		"\"Digest\" realm=a",
	};
	struct digest_params p;

	(void)state;
	for (size_t i = 0; i < sizeof(malformed) / sizeof(malformed[0]); i++) {
		if (digest_parse(span_str(malformed[i]), &p) != -EINVAL)
			fail_msg("accepted: %s", malformed[i]);
	}
	assert_int_equal(digest_parse(none, &p), -EINVAL);
	assert_int_equal(digest_parse(SPAN_LIT("NoOneKnowsThisScheme opaque-data=here"), &p), -ENOTSUP);
	assert_int_equal(digest_parse(SPAN_LIT("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="), &p), -ENOTSUP);

	assert_int_equal(digest_parse(SPAN_LIT(" DIGEST\r\n Realm = \"a,b\" ,, nonce=\"x\\\"y\",qop=\"auth, auth-int,other\",STALE=TRUE,"
					       "algorithm=SHA-512-256,new=thing,new=thing, "),
				      &p),
			 0);
	assert_true(span_eq(p.realm, SPAN_LIT("a,b")));
	assert_true(span_eq(p.nonce, SPAN_LIT("x\\\"y")));
	assert_int_equal(p.qop, DIGEST_QOP_AUTH_INT);
	assert_true(span_eq(p.qop_text, SPAN_LIT("auth, auth-int,other")));
	assert_true(p.stale);
	assert_false(p.alg_known);
	assert_null(p.username.p);
	assert_int_equal(digest_parse(SPAN_LIT("Digest realm=\"\",stale=false,qop=\"auth\",algorithm=\"sha-256\""), &p), 0);
	assert_true(p.realm.p != NULL && p.realm.n == 0 && !p.stale && p.qop == DIGEST_QOP_AUTH && p.alg == DIGEST_SHA256);

	assert_int_equal(digest_parse_info(SPAN_LIT("nextnonce=\"abc\", nc=00000001"), &p), 0);
	assert_true(span_eq(p.nextnonce, SPAN_LIT("abc")));
	assert_int_equal(digest_parse_info(SPAN_LIT("Digest nextnonce=\"abc\""), &p), 0);
	assert_true(span_eq(p.nextnonce, SPAN_LIT("abc")));
	assert_int_equal(digest_parse_info(SPAN_LIT("nextnonce"), &p), -EINVAL);
	assert_int_equal(digest_parse_info(none, &p), -EINVAL);
}

static void refuses(void **state)
{
	static const char *const incomplete[] = {
		"Digest nonce=a,uri=b,qop=auth,nc=00000001",
		"Digest nonce=a,uri=b,qop=auth,cnonce=c",
		"Digest nonce=a,uri=b,qop=auth-int",
		"Digest nonce=a,uri=b,qop=unknown,nc=00000001,cnonce=c",
		"Digest nonce=a,qop=auth,nc=00000001,cnonce=c",
		"Digest uri=b,qop=auth,nc=00000001,cnonce=c",
		"Digest nonce=a,uri=b,algorithm=SHA-256-sess",
		"Digest nonce=a,uri=b,algorithm=MD5-sess",
	};
	uint8_t ha1[DIGEST_HASH_MAX] = {0};
	char out[DIGEST_HEX_MAX];
	struct digest_params p;

	(void)state;
	for (size_t i = 0; i < sizeof(incomplete) / sizeof(incomplete[0]); i++) {
		assert_int_equal(digest_parse(span_str(incomplete[i]), &p), 0);
		assert_int_equal(digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), none, out), -EINVAL);
		assert_false(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), none));
	}
}

static void sha256(void **state)
{
	uint8_t a[32], b[32];
	char hex[64];

	(void)state;
	assert_int_equal(digest_sha256(ctx, SPAN_LIT("a"), SPAN_LIT("b"), SPAN_LIT("c"), a), 0);
	hex_encode(a, 32, hex);
	assert_memory_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 64);
	assert_int_equal(digest_sha256(ctx, SPAN_LIT("abc"), none, none, b), 0);
	assert_memory_equal(a, b, 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rfc7616),  cmocka_unit_test(every_digit), cmocka_unit_test(rfc2617),
		cmocka_unit_test(auth_int), cmocka_unit_test(long_texts),  cmocka_unit_test(empty_body),
		cmocka_unit_test(parsing),  cmocka_unit_test(refuses),     cmocka_unit_test(sha256),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
