/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "userdb/update.h"

static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];
static const uint8_t sha[32] = {1, 2, 3}, md5[16] = {9, 8, 7};

static struct update_msg change_head(uint64_t seq, const uint8_t *previous)
{
	struct update_msg m = {.type = UPDATE_CHANGE,
			       .domain = SPAN_LIT("example.org"),
			       .at.seq = seq,
			       .unix_ms = 1789000000123,
			       .epoch = 20781,
			       .epoch_s = 86400};

	if (previous != NULL)
		memcpy(m.at.hash, previous, sizeof(m.at.hash));
	return m;
}

static size_t make_change(uint8_t *buf, size_t cap, uint64_t seq, const uint8_t *previous, uint8_t *hash)
{
	struct update_msg m = change_head(seq, previous);
	struct update_buf b;
	struct user_op set = {USER_SET, SPAN_LIT("alice"), USER_HAS_SHA256 | USER_HAS_MD5, 20781, sha, md5};
	struct user_op next = {USER_SET, SPAN_LIT("alice"), USER_HAS_SHA256, 20782, sha, NULL};
	struct user_op del = {.kind = USER_DEL, .name = SPAN_LIT("bob")};
	long n;

	update_begin(&b, buf, cap, &m);
	assert_int_equal(update_add(&b, &set), 0);
	assert_int_equal(update_add(&b, &next), 0);
	assert_int_equal(update_add(&b, &del), 0);
	n = update_end(&b, sk, hash);
	assert_true(n > 0);
	return (size_t)n;
}

static void test_round_trip(void **state)
{
	uint8_t buf[1024], hash[32], previous[32] = {42};
	size_t n = make_change(buf, sizeof(buf), 7, previous, hash);
	struct update_msg m;
	struct user_op op;
	struct span rest;

	(void)state;
	assert_int_equal(update_open(span_of(buf, n), pk, &m), 0);
	assert_int_equal(m.type, UPDATE_CHANGE);
	assert_true(span_eq(m.domain, SPAN_LIT("example.org")));
	assert_int_equal(m.at.seq, 7);
	assert_memory_equal(m.at.hash, previous, 32);
	assert_memory_equal(m.hash, hash, 32);
	assert_int_equal(m.unix_ms, 1789000000123);
	assert_int_equal(m.epoch, 20781);
	assert_int_equal(m.epoch_s, 86400);
	assert_int_equal(m.nops, 3);

	rest = m.ops;
	assert_int_equal(user_op_next(&rest, &op), 1);
	assert_int_equal(op.kind, USER_SET);
	assert_true(span_eq(op.name, SPAN_LIT("alice")));
	assert_int_equal(op.epoch, 20781);
	assert_memory_equal(op.sha256, sha, 32);
	assert_memory_equal(op.md5, md5, 16);
	assert_int_equal(user_op_next(&rest, &op), 1);
	assert_int_equal(op.epoch, 20782);
	assert_null(op.md5);
	assert_int_equal(user_op_next(&rest, &op), 1);
	assert_int_equal(op.kind, USER_DEL);
	assert_true(span_eq(op.name, SPAN_LIT("bob")));
	assert_null(op.sha256);
	assert_int_equal(user_op_next(&rest, &op), 0);
}

static void test_every_byte_counts(void **state)
{
	uint8_t buf[1024], hash[32];
	size_t n = make_change(buf, sizeof(buf), 1, NULL, hash);
	struct update_msg m;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			buf[i] ^= (uint8_t)(1u << bit);
			assert_int_not_equal(update_open(span_of(buf, n), pk, &m), 0);
			buf[i] ^= (uint8_t)(1u << bit);
		}
	}
	assert_int_equal(update_open(span_of(buf, n), pk, &m), 0);
}

static void test_truncation_and_extension(void **state)
{
	uint8_t buf[1024] = {0}, hash[32];
	size_t n = make_change(buf, sizeof(buf), 1, NULL, hash);
	struct update_msg m;

	(void)state;
	for (size_t i = 0; i < n; i++) {
		uint8_t *cut = malloc(i > 0 ? i : 1); /* exact size: the sanitizer sees a read past the end */

		memcpy(cut, buf, i);
		assert_int_not_equal(update_open(span_of(cut, i), pk, &m), 0);
		free(cut);
	}
	assert_int_not_equal(update_open(span_of(buf, n + 1), pk, &m), 0);
}

static void test_wrong_key(void **state)
{
	uint8_t buf[1024], hash[32], pk2[32], sk2[64];
	size_t n = make_change(buf, sizeof(buf), 1, NULL, hash);
	struct update_msg m;

	(void)state;
	crypto_sign_keypair(pk2, sk2);
	assert_int_equal(update_open(span_of(buf, n), pk2, &m), -EBADMSG);
}

static void test_chain(void **state)
{
	uint8_t a[1024], b[1024], ha[32], hb[32], other[32];
	size_t na = make_change(a, sizeof(a), 1, NULL, ha);
	size_t nb = make_change(b, sizeof(b), 2, ha, hb);
	struct update_msg ma, mb;

	(void)state;
	assert_int_equal(update_open(span_of(a, na), pk, &ma), 0);
	assert_int_equal(update_open(span_of(b, nb), pk, &mb), 0);
	assert_int_equal(mb.at.seq, ma.at.seq + 1);
	assert_memory_equal(mb.at.hash, ma.hash, 32);
	assert_memory_not_equal(ha, hb, 32);
	crypto_hash_sha256(other, a, na - 64);
	assert_memory_equal(other, ha, 32);
}

/* What a signer that is wrong or hostile could sign: each must be refused although the signature holds. */
static void resign(uint8_t *p, size_t n)
{
	crypto_sign_detached(p + n - 64, NULL, p, n - 64, sk);
}

static void test_signed_nonsense(void **state)
{
	static const struct {
		size_t at;
		uint8_t value;
	} bad[] = {
		{4, 0},        {4, 4},       {5, 0},       {5, 201},       /* type, domain length */
		{6, 1},        {7, 1},       {11, 2},      {11, 4},        /* flags, operations */
		{19, 0},       {35, 0},      {39, 1},      {43, 0},        /* seq, (epoch without length below), chunk, chunks */
		{43, 2},       {76 + 11, 0}, {76 + 11, 3}, {76 + 12, 0},   /* a change in two chunks; kind; name length */
		{76 + 12, 64}, {76 + 13, 0}, {76 + 13, 4}, {76 + 18, ' '}, /* name length; flags; name */
	};
	uint8_t buf[1024], hash[32];
	struct update_msg m;

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		size_t n = make_change(buf, sizeof(buf), 1, NULL, hash);

		if (bad[i].at == 35)
			memset(buf + 32, 0, 4);
		else
			buf[bad[i].at] = bad[i].value;
		resign(buf, n);
		if (update_open(span_of(buf, n), pk, &m) == 0)
			fail_msg("accepted byte %zu = %u", bad[i].at, bad[i].value);
	}

	/* a first change with a predecessor; a heartbeat that changes something */
	size_t n = make_change(buf, sizeof(buf), 1, NULL, hash);
	buf[44] = 1;
	resign(buf, n);
	assert_int_equal(update_open(span_of(buf, n), pk, &m), -EINVAL);
	n = make_change(buf, sizeof(buf), 1, NULL, hash);
	buf[4] = UPDATE_HEARTBEAT;
	resign(buf, n);
	assert_int_equal(update_open(span_of(buf, n), pk, &m), -EINVAL);
}

static void test_full(void **state)
{
	static uint8_t buf[UPDATE_BYTES_MAX + 1000];
	struct update_msg m = change_head(0, NULL);
	struct update_buf b;
	struct user_op op = {USER_SET, {NULL, 0}, USER_HAS_SHA256 | USER_HAS_MD5, 1, sha, md5};
	uint8_t hash[32];
	char name[64];
	unsigned n = 0;
	long len;

	(void)state;
	m.type = UPDATE_SNAPSHOT;
	m.chunk = 3;
	m.chunks = 9;
	update_begin(&b, buf, sizeof(buf), &m);
	for (;;) {
		snprintf(name, sizeof(name), "user-%058u", n);
		op.name = span_str(name);
		if (update_add(&b, &op) != 0)
			break;
		n++;
	}
	len = update_end(&b, sk, hash);
	assert_true(len > UPDATE_BYTES_MAX - 300 && len <= UPDATE_BYTES_MAX);
	assert_int_equal(update_open(span_of(buf, (size_t)len), pk, &m), 0);
	assert_int_equal(m.nops, n);
	assert_int_equal(m.chunk, 3);
	assert_int_equal(m.chunks, 9);
}

static void test_heartbeat(void **state)
{
	uint8_t buf[512], hash[32];
	struct update_msg m = change_head(12, (const uint8_t[32]){5});
	struct update_buf b;
	long n;

	(void)state;
	m.type = UPDATE_HEARTBEAT;
	update_begin(&b, buf, sizeof(buf), &m);
	n = update_end(&b, sk, hash);
	assert_true(n > 0);
	assert_int_equal(update_open(span_of(buf, (size_t)n), pk, &m), 0);
	assert_int_equal(m.type, UPDATE_HEARTBEAT);
	assert_int_equal(m.at.seq, 12);
	assert_int_equal(m.at.hash[0], 5);
}

static void test_names(void **state)
{
	static const char *const good[] = {"a", "alice", "a.b-c_D9", "0123456789012345678901234567890123456789012345678901234567890ab"};
	static const char *const bad[] = {
		"", "a b", "a@b", "a/b", "\xc3\xa4", "a\n", "01234567890123456789012345678901234567890123456789012345678901234"};

	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
		assert_true(user_name_valid(span_str(good[i])));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(user_name_valid(span_str(bad[i])));
	assert_false(user_name_valid(span_of("a\0b", 3)));
	assert_false(user_name_valid((struct span){NULL, 0}));
}

static int setup(void **state)
{
	(void)state;
	if (sodium_init() < 0)
		return -1;
	crypto_sign_keypair(pk, sk);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_every_byte_counts),
		cmocka_unit_test(test_truncation_and_extension),
		cmocka_unit_test(test_wrong_key),
		cmocka_unit_test(test_chain),
		cmocka_unit_test(test_signed_nonsense),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_heartbeat),
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests_name("update", tests, setup, NULL);
}
