/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <sodium.h>
#include <stddef.h>
#include <stdlib.h>

#include "base/b64.h"
#include "sip/chars.h"

#define PIECES_MAX 11 /* of one hash: HA1 : nonce : nc : cnonce : qop : HA2 with the colons between them */

struct digest_ctx {
	struct {
		EVP_MD *md;
		EVP_MD_CTX *ctx; /* one per algorithm: starting anew with the same one is the cheap case */
	} alg[DIGEST_ALGS];
};

static const struct span colon = {":", 1};

static int hash(struct digest_ctx *c, enum digest_alg alg, const struct span *piece, unsigned n, uint8_t *out)
{
	EVP_MD_CTX *ctx = c->alg[alg].ctx;

	if (EVP_DigestInit_ex2(ctx, c->alg[alg].md, NULL) != 1)
		return -EIO;
	for (unsigned i = 0; i < n; i++) {
		if (piece[i].n != 0 && EVP_DigestUpdate(ctx, piece[i].p, piece[i].n) != 1)
			return -EIO;
	}
	return EVP_DigestFinal_ex(ctx, out, NULL) == 1 ? 0 : -EIO;
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

enum param { P_TEXT, P_NC, P_QOP, P_ALGORITHM, P_STALE };

#define TEXT(field)                                                                         \
	{                                                                                   \
		{#field, sizeof(#field) - 1}, P_TEXT, offsetof(struct digest_params, field) \
	}
#define KIND(text, k, at)                       \
	{                                       \
		{text, sizeof(text) - 1}, k, at \
	}

static const struct {
	struct span name;
	enum param kind;
	size_t at; /* of the span that keeps it */
} params[] = {
	TEXT(username),
	TEXT(realm),
	TEXT(nonce),
	TEXT(uri),
	TEXT(response),
	TEXT(cnonce),
	TEXT(opaque),
	TEXT(nextnonce),
	KIND("nc", P_NC, offsetof(struct digest_params, nc_text)),
	KIND("qop", P_QOP, offsetof(struct digest_params, qop_text)),
	KIND("algorithm", P_ALGORITHM, 0),
	KIND("stale", P_STALE, 0),
};

#define PARAMS (sizeof(params) / sizeof(params[0]))

/* One parameter into its field; `seen` holds a bit for each that was there. */
static int store(struct digest_params *out, unsigned *seen, struct span name, struct span value)
{
	unsigned i = 0;

	while (i < PARAMS && !span_caseeq(name, params[i].name))
		i++;
	if (i == PARAMS)
		return 0;
	if (*seen & 1u << i)
		return -EINVAL;
	*seen |= 1u << i;
	if (params[i].kind <= P_QOP)
		memcpy((char *)out + params[i].at, &value, sizeof(value));
	switch (params[i].kind) {
	case P_TEXT:
		break;
	case P_NC:
		if (value.n != 8 || !sip_all(value.p, value.p + value.n, C_HEX))
			return -EINVAL;
		break;
	case P_QOP:
		out->qop = parse_qop(value);
		break;
	case P_ALGORITHM:
		out->alg = span_caseeq(value, SPAN_LIT("SHA-256")) ? DIGEST_SHA256 : DIGEST_MD5;
		out->alg_known = out->alg == DIGEST_SHA256 || span_caseeq(value, SPAN_LIT("MD5"));
		break;
	case P_STALE:
		out->stale = span_caseeq(value, SPAN_LIT("true"));
		break;
	}
	return 0;
}

static int parse_params(const char *p, const char *end, struct digest_params *out)
{
	struct digest_params d = {.alg = DIGEST_MD5, .alg_known = true};
	unsigned seen = 0, count = 0;

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
		p = sip_take_param(p, end, &v);
		if (p == NULL || v.value.p == NULL || (p < end && *p != ','))
			return -EINVAL;
		if (v.value.p[0] == '"')
			v.value = span_of(v.value.p + 1, v.value.n - 2);
		if (store(&d, &seen, v.name, v.value) != 0)
			return -EINVAL;
		count++;
	}
	if (count == 0)
		return -EINVAL;
	*out = d;
	return 0;
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
	const struct span pieces[] = {user, colon, realm, colon, secret};

	return hash(c, alg, pieces, 5, out);
}

int digest_response(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body,
		    char out[DIGEST_HEX_MAX])
{
	const size_t len = digest_len(p->alg);
	char ha1_hex[DIGEST_HEX_MAX], ha2_hex[DIGEST_HEX_MAX], body_hex[DIGEST_HEX_MAX];
	uint8_t h[DIGEST_HASH_MAX];
	struct span pieces[PIECES_MAX];
	unsigned n = 0;
	int r;

	if (!p->alg_known || p->nonce.p == NULL || p->uri.p == NULL)
		return -EINVAL;
	if (p->qop == DIGEST_QOP_NONE ? p->qop_text.p != NULL : p->cnonce.p == NULL || p->nc_text.p == NULL)
		return -EINVAL;

	pieces[n++] = method;
	pieces[n++] = colon;
	pieces[n++] = p->uri;
	if (p->qop == DIGEST_QOP_AUTH_INT) {
		r = hash(c, p->alg, &body, 1, h);
		if (r != 0)
			return r;
		hex_encode(h, len, body_hex);
		pieces[n++] = colon;
		pieces[n++] = span_of(body_hex, 2 * len);
	}
	r = hash(c, p->alg, pieces, n, h);
	if (r != 0)
		return r;
	hex_encode(h, len, ha2_hex);

	n = 0;
	hex_encode(ha1, len, ha1_hex);
	pieces[n++] = span_of(ha1_hex, 2 * len);
	pieces[n++] = colon;
	pieces[n++] = p->nonce;
	pieces[n++] = colon;
	if (p->qop != DIGEST_QOP_NONE) {
		pieces[n++] = p->nc_text;
		pieces[n++] = colon;
		pieces[n++] = p->cnonce;
		pieces[n++] = colon;
		pieces[n++] = p->qop == DIGEST_QOP_AUTH ? SPAN_LIT("auth") : SPAN_LIT("auth-int");
		pieces[n++] = colon;
	}
	pieces[n++] = span_of(ha2_hex, 2 * len);
	r = hash(c, p->alg, pieces, n, h);
	sodium_memzero(ha1_hex, sizeof(ha1_hex));
	if (r != 0)
		return r;
	hex_encode(h, len, out);
	return 0;
}

bool digest_verify(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body)
{
	const size_t len = 2 * digest_len(p->alg);
	char want[DIGEST_HEX_MAX];

	/* The hash is computed for a response of any length, so that a short one costs, and tells, the same. */
	if (digest_response(c, p, ha1, method, body, want) != 0)
		return false;
	return p->response.p != NULL && p->response.n == len && sodium_memcmp(want, p->response.p, len) == 0;
}

int digest_sha256(struct digest_ctx *c, struct span a, struct span b, struct span d, uint8_t out[32])
{
	const struct span pieces[] = {a, b, d};

	return hash(c, DIGEST_SHA256, pieces, 3, out);
}
