/* SPDX-License-Identifier: Apache-2.0 */
#include "userdb/update.h"

#include <errno.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

/* Where the fixed part's fields stand. */
enum {
	AT_MAGIC = 0,
	AT_TYPE = 4,
	AT_DOMAIN_LEN = 5,
	AT_FLAGS = 6,
	AT_NOPS = 8,
	AT_SEQ = 12,
	AT_UNIX_MS = 20,
	AT_EPOCH = 28,
	AT_EPOCH_S = 32,
	AT_CHUNK = 36,
	AT_CHUNKS = 40,
	AT_HEAD = 44,
	FIXED_BYTES = AT_HEAD + UPDATE_HEAD_BYTES
};
_Static_assert(FIXED_BYTES == 76, "doc/protocol.md gives these offsets");
_Static_assert(UPDATE_SIGN_PUBLIC == crypto_sign_PUBLICKEYBYTES && UPDATE_SIGN_SECRET == crypto_sign_SECRETKEYBYTES, "Ed25519");
_Static_assert(UPDATE_HEAD_BYTES == crypto_hash_sha256_BYTES, "SHA-256");

#define OP_FIXED_BYTES 7
#define SHA256_BYTES   32
#define MD5_BYTES      16
#define FLAGS_KNOWN    (USER_HAS_SHA256 | USER_HAS_MD5)

static const char magic[4] = {'W', 'L', 'N', '1'};

static void put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static void put64(uint8_t *p, uint64_t v)
{
	put32(p, (uint32_t)(v >> 32));
	put32(p + 4, (uint32_t)v);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t get64(const uint8_t *p)
{
	return (uint64_t)get32(p) << 32 | get32(p + 4);
}

static bool head_consistent(const struct update_head *h)
{
	return h->seq != 0 || sodium_is_zero(h->hash, sizeof(h->hash));
}

static int decode_fixed(const uint8_t *p, struct update_msg *m)
{
	m->at.seq = get64(p + AT_SEQ);
	memcpy(m->at.hash, p + AT_HEAD, UPDATE_HEAD_BYTES);
	m->unix_ms = get64(p + AT_UNIX_MS);
	m->epoch = get32(p + AT_EPOCH);
	m->epoch_s = get32(p + AT_EPOCH_S);
	m->chunk = get32(p + AT_CHUNK);
	m->chunks = get32(p + AT_CHUNKS);
	m->nops = get32(p + AT_NOPS);

	if (m->epoch_s == 0 && m->epoch != 0)
		return -EINVAL;
	if (m->type != UPDATE_SNAPSHOT && (m->chunk != 0 || m->chunks != 1))
		return -EINVAL;
	if (m->chunks == 0 || m->chunk >= m->chunks)
		return -EINVAL;

	switch (m->type) {
	case UPDATE_CHANGE: {
		struct update_head before = m->at;

		if (m->at.seq == 0)
			return -EINVAL;
		before.seq--;
		return head_consistent(&before) ? 0 : -EINVAL;
	}
	case UPDATE_HEARTBEAT:
		if (m->nops != 0)
			return -EINVAL;
		return head_consistent(&m->at) ? 0 : -EINVAL;
	case UPDATE_SNAPSHOT:
		return head_consistent(&m->at) ? 0 : -EINVAL;
	}
	return -EINVAL;
}

bool user_name_valid(struct span name)
{
	if (name.p == NULL || name.n == 0 || name.n > USER_NAME_MAX)
		return false;

	for (size_t i = 0; i < name.n; i++) {
		char c = name.p[i];
		bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';

		if (!ok)
			return false;
	}
	return true;
}

void update_begin(struct update_buf *b, uint8_t *p, size_t cap, const struct update_msg *head)
{
	bool snapshot = head->type == UPDATE_SNAPSHOT;
	size_t dlen = head->domain.n <= DOMAIN_MAX ? head->domain.n : 0;

	*b = (struct update_buf){.p = p, .cap = cap < UPDATE_BYTES_MAX ? cap : UPDATE_BYTES_MAX};
	memcpy(p + AT_MAGIC, magic, sizeof(magic));
	p[AT_TYPE] = (uint8_t)head->type;
	p[AT_DOMAIN_LEN] = (uint8_t)dlen;
	p[AT_FLAGS] = p[AT_FLAGS + 1] = 0;
	put32(p + AT_NOPS, 0);
	put64(p + AT_SEQ, head->at.seq);
	put64(p + AT_UNIX_MS, head->unix_ms);
	put32(p + AT_EPOCH, head->epoch);
	put32(p + AT_EPOCH_S, head->epoch_s);
	put32(p + AT_CHUNK, snapshot ? head->chunk : 0);
	put32(p + AT_CHUNKS, snapshot ? head->chunks : 1);
	memcpy(p + AT_HEAD, head->at.hash, UPDATE_HEAD_BYTES);
	if (dlen > 0)
		memcpy(p + FIXED_BYTES, head->domain.p, dlen);
	b->len = FIXED_BYTES + dlen;
}

int update_add(struct update_buf *b, const struct user_op *op)
{
	bool set = op->kind == USER_SET;
	uint8_t flags = set ? op->flags & FLAGS_KNOWN : 0;
	size_t need = OP_FIXED_BYTES + op->name.n;
	uint8_t *p = b->p + b->len;

	if (flags & USER_HAS_SHA256)
		need += SHA256_BYTES;
	if (flags & USER_HAS_MD5)
		need += MD5_BYTES;
	if (op->name.n > USER_NAME_MAX || b->len + need + crypto_sign_BYTES > b->cap)
		return -ENOSPC;

	p[0] = (uint8_t)op->kind;
	p[1] = (uint8_t)op->name.n;
	p[2] = flags;
	put32(p + 3, set ? op->epoch : 0);
	p += OP_FIXED_BYTES;
	memcpy(p, op->name.p, op->name.n);
	p += op->name.n;
	if (flags & USER_HAS_SHA256) {
		memcpy(p, op->sha256, SHA256_BYTES);
		p += SHA256_BYTES;
	}
	if (flags & USER_HAS_MD5)
		memcpy(p, op->md5, MD5_BYTES);

	b->len += need;
	b->nops++;
	return 0;
}

long update_end(struct update_buf *b, const uint8_t sk[static UPDATE_SIGN_SECRET], uint8_t hash[static UPDATE_HEAD_BYTES])
{
	if (b->len + crypto_sign_BYTES > b->cap)
		return -ENOSPC;

	put32(b->p + AT_NOPS, b->nops);
	crypto_hash_sha256(hash, b->p, b->len);
	crypto_sign_detached(b->p + b->len, NULL, b->p, b->len, sk);
	b->len += crypto_sign_BYTES;
	return (long)b->len;
}

int update_open(struct span in, const uint8_t pk[static UPDATE_SIGN_PUBLIC], struct update_msg *out)
{
	const uint8_t *p = (const uint8_t *)in.p;
	struct span rest;
	struct user_op op;
	size_t dlen, signed_len;
	uint32_t walked = 0;
	int rc;

	*out = (struct update_msg){0};
	if (in.n < FIXED_BYTES + crypto_sign_BYTES || in.n > UPDATE_BYTES_MAX)
		return -EINVAL;
	dlen = p[AT_DOMAIN_LEN];
	signed_len = in.n - crypto_sign_BYTES;
	if (memcmp(p, magic, sizeof(magic)) != 0 || p[AT_TYPE] < UPDATE_CHANGE || p[AT_TYPE] > UPDATE_HEARTBEAT)
		return -EINVAL;
	if (dlen == 0 || dlen > DOMAIN_MAX || FIXED_BYTES + dlen > signed_len || p[AT_FLAGS] != 0 || p[AT_FLAGS + 1] != 0)
		return -EINVAL;

	if (crypto_sign_verify_detached(p + signed_len, p, signed_len, pk) != 0)
		return -EBADMSG;

	out->type = (enum update_type)p[AT_TYPE];
	rc = decode_fixed(p, out);
	if (rc < 0)
		return rc;
	out->domain = span_of(p + FIXED_BYTES, dlen);
	out->ops = span_of(p + FIXED_BYTES + dlen, signed_len - FIXED_BYTES - dlen);
	if (out->type == UPDATE_CHANGE)
		crypto_hash_sha256(out->hash, p, signed_len);

	rest = out->ops;
	while ((rc = user_op_next(&rest, &op)) == 1)
		walked++;
	return rc == 0 && walked == out->nops ? 0 : -EINVAL;
}

bool update_peek(struct span in, struct update_msg *out)
{
	const uint8_t *p = (const uint8_t *)in.p;

	*out = (struct update_msg){0};
	if (in.n < FIXED_BYTES + crypto_sign_BYTES || p[AT_TYPE] < UPDATE_CHANGE || p[AT_TYPE] > UPDATE_HEARTBEAT)
		return false;
	out->type = (enum update_type)p[AT_TYPE];
	out->at.seq = get64(p + AT_SEQ);
	out->unix_ms = get64(p + AT_UNIX_MS);
	out->epoch = get32(p + AT_EPOCH);
	out->chunk = get32(p + AT_CHUNK);
	out->chunks = get32(p + AT_CHUNKS);
	return true;
}

int user_op_next(struct span *rest, struct user_op *op)
{
	const uint8_t *p = (const uint8_t *)rest->p;
	size_t need, name_len;

	*op = (struct user_op){0};
	if (rest->n == 0)
		return 0;
	if (rest->n < OP_FIXED_BYTES)
		return -EINVAL;

	name_len = p[1];
	op->flags = p[2];
	op->epoch = get32(p + 3);
	need = OP_FIXED_BYTES + name_len;
	if (op->flags & USER_HAS_SHA256)
		need += SHA256_BYTES;
	if (op->flags & USER_HAS_MD5)
		need += MD5_BYTES;
	if ((op->flags & ~FLAGS_KNOWN) != 0 || need > rest->n)
		return -EINVAL;
	if (p[0] == USER_SET ? op->flags == 0 : p[0] != USER_DEL || op->flags != 0 || op->epoch != 0)
		return -EINVAL;

	op->kind = (enum user_op_kind)p[0];
	op->name = span_of(p + OP_FIXED_BYTES, name_len);
	if (!user_name_valid(op->name))
		return -EINVAL;
	p += OP_FIXED_BYTES + name_len;
	if (op->flags & USER_HAS_SHA256) {
		op->sha256 = p;
		p += SHA256_BYTES;
	}
	if (op->flags & USER_HAS_MD5)
		op->md5 = p;

	*rest = span_of(rest->p + need, rest->n - need);
	return 1;
}
