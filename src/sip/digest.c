/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/b64.h"
#include "sip/chars.h"
#include "sip/scan.h"

#define TEXT_MAX 512 /* of what is hashed; a longer text is hashed piece by piece */

struct digest_ctx {
	struct {
		EVP_MD *md;
		EVP_MD_CTX *ctx; /* one per algorithm: starting anew with the same one is the cheap case */
	} alg[DIGEST_ALGS];
};

/* A text on its way into a hash: gathered here, because each piece that is handed over by itself costs as much as the hash of a short one.
 */
struct text {
	EVP_MD_CTX *ctx;
	bool failed;
	size_t n;
	char buf[TEXT_MAX];
};

static void begin(struct text *t, struct digest_ctx *c, enum digest_alg alg)
{
	t->ctx = c->alg[alg].ctx;
	t->failed = EVP_DigestInit_ex2(t->ctx, c->alg[alg].md, NULL) != 1;
	t->n = 0;
}

static void flush(struct text *t, const char *p, size_t n)
{
	if (n != 0 && EVP_DigestUpdate(t->ctx, p, n) != 1)
		t->failed = true;
}

SIP_INLINE void add(struct text *t, const char *p, size_t n)
{
	if (n > sizeof(t->buf) - t->n) {
		flush(t, t->buf, t->n);
		t->n = 0;
		if (n > sizeof(t->buf)) {
			flush(t, p, n);
			return;
		}
	}
	if (n != 0)
		memcpy(t->buf + t->n, p, n);
	t->n += n;
}

/* And the colon behind it. */
SIP_INLINE void add_part(struct text *t, struct span s)
{
	add(t, s.p, s.n);
	add(t, ":", 1);
}

/* Straight to where it is wiped from: HA1 comes this way. */
SIP_INLINE void add_hex(struct text *t, const uint8_t *h, size_t len)
{
	if (2 * len > sizeof(t->buf) - t->n) {
		flush(t, t->buf, t->n);
		t->n = 0;
	}
	hex_encode(h, len, t->buf + t->n);
	t->n += 2 * len;
}

static int finish(struct text *t, uint8_t *out)
{
	flush(t, t->buf, t->n);
	return !t->failed && EVP_DigestFinal_ex(t->ctx, out, NULL) == 1 ? 0 : -EIO;
}

/* The strongest of a list, which in credentials is a single word. */
static enum digest_qop parse_qop(struct span list)
{
	enum digest_qop best = DIGEST_QOP_NONE;
	struct span word;

	while (sip_list_next(&list, &word)) {
		if (span_caseeq(word, SPAN_LIT("auth-int")))
			best = DIGEST_QOP_AUTH_INT;
		else if (span_caseeq(word, SPAN_LIT("auth")) && best == DIGEST_QOP_NONE)
			best = DIGEST_QOP_AUTH;
	}
	return best;
}

enum param { P_USERNAME, P_REALM, P_NONCE, P_URI, P_RESPONSE, P_CNONCE, P_OPAQUE, P_NEXTNONCE, P_NC, P_QOP, P_ALGORITHM, P_STALE, PARAMS };

/* Where those are kept that are kept as they stand. */
static const size_t field_at[] = {
	[P_USERNAME] = offsetof(struct digest_params, username), [P_REALM] = offsetof(struct digest_params, realm),
	[P_NONCE] = offsetof(struct digest_params, nonce),       [P_URI] = offsetof(struct digest_params, uri),
	[P_RESPONSE] = offsetof(struct digest_params, response), [P_CNONCE] = offsetof(struct digest_params, cnonce),
	[P_OPAQUE] = offsetof(struct digest_params, opaque),     [P_NEXTNONCE] = offsetof(struct digest_params, nextnonce),
	[P_NC] = offsetof(struct digest_params, nc_text),        [P_QOP] = offsetof(struct digest_params, qop_text),
};

#define IS(lit, id)                                             \
	do {                                                    \
		if (sip_is_lower(name.p, lit, sizeof(lit) - 1)) \
			return id;                              \
	} while (0)

/* PARAMS: none that is known. */
static enum param param_of(struct span name)
{
	switch (name.n) {
	case 2:
		IS("nc", P_NC);
		break;
	case 3:
		IS("uri", P_URI);
		IS("qop", P_QOP);
		break;
	case 5:
		IS("realm", P_REALM);
		IS("nonce", P_NONCE);
		IS("stale", P_STALE);
		break;
	case 6:
		IS("cnonce", P_CNONCE);
		IS("opaque", P_OPAQUE);
		break;
	case 8:
		IS("username", P_USERNAME);
		IS("response", P_RESPONSE);
		break;
	case 9:
		IS("algorithm", P_ALGORITHM);
		IS("nextnonce", P_NEXTNONCE);
		break;
	default:
		break;
	}
	return PARAMS;
}

/* One parameter into its field; `seen` holds a bit for each that was there. */
static int store(struct digest_params *out, unsigned *seen, struct span name, struct span value)
{
	enum param which = param_of(name);

	if (which == PARAMS)
		return 0;
	if (*seen & 1u << which)
		return -EINVAL;
	*seen |= 1u << which;
	if (which <= P_QOP)
		memcpy((char *)out + field_at[which], &value, sizeof(value));
	switch (which) {
	case P_NC:
		return value.n == 8 && sip_all(value.p, value.p + value.n, C_HEX) ? 0 : -EINVAL;
	case P_QOP:
		out->qop = span_eq(value, SPAN_LIT("auth")) ? DIGEST_QOP_AUTH : parse_qop(value);
		break;
	case P_ALGORITHM:
		out->alg = value.n == 7 && span_caseeq(value, SPAN_LIT("SHA-256")) ? DIGEST_SHA256 : DIGEST_MD5;
		out->alg_known = out->alg == DIGEST_SHA256 || span_caseeq(value, SPAN_LIT("MD5"));
		break;
	case P_STALE:
		out->stale = span_caseeq(value, SPAN_LIT("true"));
		break;
	default:
		break;
	}
	return 0;
}

static int parse_params(const char *p, const char *end, struct digest_params *out)
{
	unsigned seen = 0, count = 0;

	*out = (struct digest_params){.alg = DIGEST_MD5, .alg_known = true};
	for (;;) {
		struct sip_param_view v;

		p = sip_skip_lws(p, end);
		if (p < end && *p == ',') {
			p++;
			continue;
		}
		if (p == end)
			break;
		/* auth-param: token "=" (token / quoted-string). A value without quotes ends at a comma; see sip_take_param. */
		p = sip_take_param(p, end, &v, SIP_VECTOR);
		if (p == NULL || v.value.p == NULL || (p < end && *p != ','))
			return -EINVAL;
		if (v.value.p[0] == '"')
			v.value = span_of(v.value.p + 1, v.value.n - 2);
		if (store(out, &seen, v.name, v.value) != 0)
			return -EINVAL;
		count++;
	}
	return count != 0 ? 0 : -EINVAL;
}

size_t digest_len(enum digest_alg alg)
{
	return alg == DIGEST_SHA256 ? 32 : 16;
}

int digest_ctx_new(struct digest_ctx **out)
{
	static const char *const names[DIGEST_ALGS] = {[DIGEST_SHA256] = "SHA256", [DIGEST_MD5] = "MD5"};
	struct digest_ctx *c = calloc(1, sizeof(*c));

	if (c == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < DIGEST_ALGS; i++) {
		c->alg[i].md = EVP_MD_fetch(NULL, names[i], NULL);
		c->alg[i].ctx = EVP_MD_CTX_new();
		if (c->alg[i].md == NULL || c->alg[i].ctx == NULL) {
			digest_ctx_free(c);
			return -ENOMEM;
		}
	}
	*out = c;
	return 0;
}

void digest_ctx_free(struct digest_ctx *c)
{
	if (c == NULL)
		return;
	for (unsigned i = 0; i < DIGEST_ALGS; i++) {
		EVP_MD_CTX_free(c->alg[i].ctx);
		EVP_MD_free(c->alg[i].md);
	}
	free(c);
}

int digest_parse(struct span value, struct digest_params *out)
{
	const char *p, *end, *start;

	if (value.n == 0)
		return -EINVAL;
	end = value.p + value.n;
	p = start = sip_skip_lws(value.p, end);
	while (p < end && sip_is(*p, C_TOKEN))
		p++;
	if (p == start || p == end || !sip_is_lws(*p))
		return -EINVAL;
	if (!span_caseeq(span_of(start, (size_t)(p - start)), SPAN_LIT("Digest")))
		return -ENOTSUP;
	return parse_params(p, end, out);
}

int digest_parse_info(struct span value, struct digest_params *out)
{
	struct span rest = value;

	if (value.n == 0)
		return -EINVAL;
	/* "Digest " in front is no part of RFC 7615's grammar, but is understood. */
	if (rest.n > 7 && span_caseeq(span_of(rest.p, 6), SPAN_LIT("Digest")) && sip_is_lws(rest.p[6]))
		rest = span_of(rest.p + 6, rest.n - 6);
	return parse_params(rest.p, rest.p + rest.n, out);
}

int digest_ha1(struct digest_ctx *c, enum digest_alg alg, struct span user, struct span realm, struct span secret,
	       uint8_t out[DIGEST_HASH_MAX])
{
	struct text t;
	int r;

	begin(&t, c, alg);
	add_part(&t, user);
	add_part(&t, realm);
	add(&t, secret.p, secret.n);
	r = finish(&t, out);
	sodium_memzero(t.buf, t.n);
	return r;
}

/* H(method:uri), with H(body) for auth-int. */
static int digest_ha2(struct digest_ctx *c, const struct digest_params *p, struct span method, struct span body, uint8_t *out)
{
	const size_t len = digest_len(p->alg);
	uint8_t h[DIGEST_HASH_MAX];
	struct text t;
	int r;

	if (p->qop == DIGEST_QOP_AUTH_INT) {
		begin(&t, c, p->alg);
		flush(&t, body.p, body.n);
		r = finish(&t, h);
		if (r != 0)
			return r;
	}
	begin(&t, c, p->alg);
	add_part(&t, method);
	add(&t, p->uri.p, p->uri.n);
	if (p->qop == DIGEST_QOP_AUTH_INT) {
		add(&t, ":", 1);
		add_hex(&t, h, len);
	}
	return finish(&t, out);
}

static int response_hash(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body,
			 uint8_t *out)
{
	const size_t len = digest_len(p->alg);
	uint8_t ha2[DIGEST_HASH_MAX];
	struct text t;
	int r;

	if (!p->alg_known || p->nonce.p == NULL || p->uri.p == NULL)
		return -EINVAL;
	if (p->qop == DIGEST_QOP_NONE ? p->qop_text.p != NULL : p->cnonce.p == NULL || p->nc_text.p == NULL)
		return -EINVAL;
	r = digest_ha2(c, p, method, body, ha2);
	if (r != 0)
		return r;
	begin(&t, c, p->alg);
	add_hex(&t, ha1, len);
	add(&t, ":", 1);
	add_part(&t, p->nonce);
	if (p->qop != DIGEST_QOP_NONE) {
		add_part(&t, p->nc_text);
		add_part(&t, p->cnonce);
		add_part(&t, p->qop == DIGEST_QOP_AUTH ? SPAN_LIT("auth") : SPAN_LIT("auth-int"));
	}
	add_hex(&t, ha2, len);
	r = finish(&t, out);
	sodium_memzero(t.buf, 2 * len); /* HA1 in hex; the rest is on the wire */
	return r;
}

int digest_response(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body,
		    char out[DIGEST_HEX_MAX])
{
	uint8_t h[DIGEST_HASH_MAX];
	int r = response_hash(c, p, ha1, method, body, h);

	if (r == 0)
		hex_encode(h, digest_len(p->alg), out);
	return r;
}

bool digest_verify(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body)
{
	const size_t len = 2 * digest_len(p->alg);
	char want[DIGEST_HEX_MAX];

	/* The hash is computed for a response of any length, so that a short one costs, and tells, the same. */
	if (digest_response(c, p, ha1, method, body, want) != 0)
		return false;
	if (p->response.p == NULL || p->response.n != len)
		return false;
	return (p->alg == DIGEST_SHA256 ? crypto_verify_64 : crypto_verify_32)((const uint8_t *)want, (const uint8_t *)p->response.p) == 0;
}

int digest_sha256(struct digest_ctx *c, struct span a, struct span b, struct span d, uint8_t out[32])
{
	struct text t;

	begin(&t, c, DIGEST_SHA256);
	add(&t, a.p, a.n);
	add(&t, b.p, b.n);
	add(&t, d.p, d.n);
	return finish(&t, out);
}
