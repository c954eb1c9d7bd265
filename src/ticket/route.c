/* SPDX-License-Identifier: Apache-2.0 */
#include "ticket/route.h"

#include <errno.h>
#include <sodium.h>

#include "base/b64.h"
#include "ticket/bytes.h"

#define VERSION   2
#define MAC_BYTES crypto_shorthash_siphashx24_BYTES

enum { AT_VERSION = 0, AT_FLAGS = 1, AT_PORT = 2, AT_EXPIRY = 4, AT_ADDRESS = 8, AT_AGENT = 24, AT_FLOW = 32, AT_CALL = 40, AT_MAC = 44 };

_Static_assert(AT_MAC + MAC_BYTES == ROUTE_TOKEN_BYTES, "the token ends with its MAC");
_Static_assert(ROUTE_KEY_BYTES == crypto_shorthash_siphashx24_KEYBYTES, "the key is SipHash's");
_Static_assert(ROUTE_TOKEN_CHARS == B64URL_LEN(ROUTE_TOKEN_BYTES), "the token is base64url");

uint32_t route_token_call(struct span call_id, const uint8_t key[static ROUTE_KEY_BYTES])
{
	uint8_t hash[MAC_BYTES];

	crypto_shorthash_siphashx24(hash, (const uint8_t *)call_id.p, call_id.n, key);
	return get_be32(hash);
}

void route_token_seal(const struct route_token *t, const uint8_t key[static ROUTE_KEY_BYTES], char out[static ROUTE_TOKEN_CHARS])
{
	uint8_t b[ROUTE_TOKEN_BYTES];

	b[AT_VERSION] = VERSION;
	b[AT_FLAGS] = 0;
	put_be16(b + AT_PORT, t->client.port);
	put_be32(b + AT_EXPIRY, t->expires_unix_s);
	memcpy(b + AT_ADDRESS, t->client.ip, sizeof(t->client.ip));
	put_be64(b + AT_AGENT, t->agent);
	put_be64(b + AT_FLOW, t->flow);
	put_be32(b + AT_CALL, t->call);
	crypto_shorthash_siphashx24(b + AT_MAC, b, AT_MAC, key);
	b64url_encode(b, sizeof(b), out);
}

int route_token_open(struct span text, const uint8_t key[static ROUTE_KEY_BYTES], uint32_t now_unix_s, struct route_token *out)
{
	uint8_t b[ROUTE_TOKEN_BYTES], mac[MAC_BYTES];
	struct route_token t;

	if (text.n != ROUTE_TOKEN_CHARS || b64url_decode(text, b, sizeof(b)) != (long)sizeof(b))
		return -EINVAL;
	if (b[AT_VERSION] != VERSION || b[AT_FLAGS] != 0)
		return -EINVAL;
	crypto_shorthash_siphashx24(mac, b, AT_MAC, key);
	if (sodium_memcmp(mac, b + AT_MAC, MAC_BYTES) != 0)
		return -EBADMSG;
	t.expires_unix_s = get_be32(b + AT_EXPIRY);
	if (t.expires_unix_s <= now_unix_s)
		return -ETIMEDOUT;
	t.client.port = get_be16(b + AT_PORT);
	memcpy(t.client.ip, b + AT_ADDRESS, sizeof(t.client.ip));
	t.agent = get_be64(b + AT_AGENT);
	t.flow = get_be64(b + AT_FLOW);
	t.call = get_be32(b + AT_CALL);
	*out = t;
	return 0;
}
