/* SPDX-License-Identifier: Apache-2.0 */
#include "ticket/session_key.h"

#include <errno.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <sodium.h>

#include "ticket/bytes.h"
#include "ticket/hkdf.h"

#define SESSION_SALT SPAN_LIT("walnut/1 session")
#define FLOW_SALT    SPAN_LIT("walnut/1 flow")
#define INFO_MAX     1024 /* what every OpenSSL 3 takes as info of HKDF; a sign-in has some 150 bytes */

/* Fetched once: a fetch costs as much as the derivation. Lives as long as the process. */
static EVP_KDF *kdf;
static pthread_once_t kdf_once = PTHREAD_ONCE_INIT;

static void fetch(void)
{
	kdf = EVP_KDF_fetch(NULL, OSSL_KDF_NAME_HKDF, NULL);
}

static OSSL_PARAM octets(const char *name, struct span s)
{
	static char nothing[1];

	return OSSL_PARAM_construct_octet_string(name, s.n != 0 ? (void *)(uintptr_t)s.p : nothing, s.n);
}

int hkdf_sha256(struct span ikm, struct span salt, struct span info, uint8_t *out, size_t n)
{
	static char sha256[] = "SHA256";
	OSSL_PARAM params[5];
	EVP_KDF_CTX *ctx;
	int r = -EINVAL;

	pthread_once(&kdf_once, fetch);
	ctx = kdf != NULL ? EVP_KDF_CTX_new(kdf) : NULL;
	if (ctx == NULL)
		return -ENOMEM;
	params[0] = OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, sha256, 0);
	params[1] = octets(OSSL_KDF_PARAM_KEY, ikm);
	params[2] = octets(OSSL_KDF_PARAM_SALT, salt);
	params[3] = octets(OSSL_KDF_PARAM_INFO, info);
	params[4] = OSSL_PARAM_construct_end();
	if (EVP_KDF_derive(ctx, out, n, params) == 1)
		r = 0;
	EVP_KDF_CTX_free(ctx);
	return r;
}

int session_key_derive(const uint8_t *sk_ct, size_t sk_len, struct span nonce, struct span cnonce, struct span call_id, struct span service,
		       uint8_t out[static SESSION_KEY_BYTES])
{
	const struct span pieces[] = {nonce, cnonce, call_id, service};
	uint8_t info[INFO_MAX];
	size_t n = 0;

	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		if (pieces[i].n > UINT16_MAX || pieces[i].n + 2 > sizeof(info) - n)
			return -EINVAL;
		put_be16(info + n, (uint16_t)pieces[i].n);
		if (pieces[i].n != 0)
			memcpy(info + n + 2, pieces[i].p, pieces[i].n);
		n += 2 + pieces[i].n;
	}
	return hkdf_sha256(span_of(sk_ct, sk_len), SESSION_SALT, span_of(info, n), out, SESSION_KEY_BYTES);
}

int flow_key_derive(const uint8_t session[static SESSION_KEY_BYTES], uint16_t flow, enum flow_direction dir,
		    uint8_t out[static FLOW_KEY_BYTES])
{
	uint8_t info[3];

	put_be16(info, flow);
	info[2] = (uint8_t)dir;
	return hkdf_sha256(span_of(session, SESSION_KEY_BYTES), FLOW_SALT, span_of(info, sizeof(info)), out, FLOW_KEY_BYTES);
}
