/* SPDX-License-Identifier: Apache-2.0 */
/** \file Digest access authentication for SIP: RFC 7616 and RFC 8760, RFC 3261 section 22. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

enum digest_alg { DIGEST_SHA256, DIGEST_MD5, DIGEST_ALGS };
enum digest_qop { DIGEST_QOP_NONE, DIGEST_QOP_AUTH, DIGEST_QOP_AUTH_INT };

#define DIGEST_HASH_MAX 32
#define DIGEST_HEX_MAX  64

/** Hash length in bytes: 32 or 16. */
size_t digest_len(enum digest_alg alg);

/** Fetched algorithms and a reusable context; one per thread. */
struct digest_ctx;
int digest_ctx_new(struct digest_ctx **out); /* 0 or -ENOMEM */
void digest_ctx_free(struct digest_ctx *c);

/** Credentials (Proxy-Authorization) or a challenge (Proxy-Authenticate): the same parameters. Absent ones have p == NULL. */
struct digest_params {
	struct span username, realm, nonce, uri, response, cnonce, opaque, nextnonce;
	struct span nc_text;  /* eight hex digits as they stand */
	struct span qop_text; /* a challenge's list as it stands */
	enum digest_alg alg;  /* absent = MD5, as RFC 7616 3.3 says */
	bool alg_known;       /* false: some other algorithm */
	enum digest_qop qop;  /* of credentials; of a challenge the strongest offered */
	bool stale;
};

/** Parses a header value that begins with the scheme "Digest". \return 0; -EINVAL malformed or a parameter twice; -ENOTSUP other scheme.
 * After an error *out holds nothing of use. Texts are what stands between the quotes, escapes as they are. */
int digest_parse(struct span value, struct digest_params *out);

/** The same for Proxy-Authentication-Info (RFC 7615), whose value has no scheme in front; one that has it is understood. */
int digest_parse_info(struct span value, struct digest_params *out);

/** HA1 = H(user:realm:secret), digest_len(alg) bytes. With realm DOMAIN/EPOCH this is SK_ct of the paper's section 3.1. */
int digest_ha1(struct digest_ctx *c, enum digest_alg alg, struct span user, struct span realm, struct span secret,
	       uint8_t out[DIGEST_HASH_MAX]);

/** The response in lower-case hex, 2 * digest_len characters, no NUL. `method` and `body` are those of the request; uri, nonce, nc, cnonce,
 * qop come from `p` literally. \return 0, -EINVAL when qop needs a missing cnonce or nc, when qop or
 * algorithm is an unknown one, or nonce or uri is absent. */
int digest_response(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body,
		    char out[DIGEST_HEX_MAX]);

/** Computes and compares in constant time. */
bool digest_verify(struct digest_ctx *c, const struct digest_params *p, const uint8_t *ha1, struct span method, struct span body);

/** SHA-256 of up to three pieces, for the other pure parts (To-tags, chain heads). */
int digest_sha256(struct digest_ctx *c, struct span a, struct span b, struct span d, uint8_t out[32]);
