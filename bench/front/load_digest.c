/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"
#include "sip/digest.h"
#include "users.h"

struct load_digest {
	struct digest_ctx *ctx;
	enum digest_alg alg;
	uint64_t seed;
};

int load_digest_new(const struct load_options *o, struct load_digest **out)
{
	struct load_digest *d = calloc(1, sizeof(*d));
	int r;

	if (d == NULL)
		return -ENOMEM;
	d->alg = strcmp(o->alg, "md5") == 0 ? DIGEST_MD5 : DIGEST_SHA256;
	d->seed = o->seed;
	r = digest_ctx_new(&d->ctx);
	if (r != 0)
		load_digest_free(d);
	else
		*out = d;
	return r;
}

void load_digest_free(struct load_digest *d)
{
	if (d == NULL)
		return;
	digest_ctx_free(d->ctx);
	free(d);
}

size_t load_user_name(uint64_t index, char name[16])
{
	front_user_name(index, name);
	return FRONT_USER_NAME_CHARS;
}

bool load_challenge(const struct load_digest *d, const struct load_seen *s, struct load_nonce *out)
{
	for (unsigned i = 0; i < s->nchallenge; i++) {
		struct digest_params p;

		if (digest_parse(s->challenge[i], &p) != 0 || !p.alg_known || p.alg != d->alg)
			continue;
		if (span_cstr(p.realm, out->realm, sizeof(out->realm)) != 0 || span_cstr(p.nonce, out->nonce, sizeof(out->nonce)) != 0)
			return false;
		out->opaque[0] = 0;
		if (p.opaque.p != NULL && span_cstr(p.opaque, out->opaque, sizeof(out->opaque)) != 0)
			return false;
		out->sha256 = p.alg == DIGEST_SHA256;
		out->qop = p.qop_text.p != NULL;
		return true;
	}
	return false;
}

static void pair(struct sip_buf *b, const char *name, struct span v)
{
	sip_puts(b, name);
	sip_putc(b, '"');
	sip_put(b, v);
	sip_putc(b, '"');
}

void load_credentials(struct load_digest *d, const struct load_nonce *n, uint64_t user, struct span method, struct span uri, bool spoil,
		      struct sip_buf *b)
{
	char name[FRONT_USER_NAME_CHARS], secret[FRONT_USER_SECRET_CHARS], hex[DIGEST_HEX_MAX], cnonce[16];
	struct digest_params p = {.username = span_of(name, sizeof(name)),
				  .realm = span_str(n->realm),
				  .nonce = span_str(n->nonce),
				  .uri = uri,
				  .alg = d->alg,
				  .alg_known = true};
	uint8_t ha1[DIGEST_HASH_MAX];

	front_user_name(user, name);
	front_user_secret(d->seed, user, secret);
	load_hex(cnonce, load_random());
	if (n->qop) {
		p.cnonce = span_of(cnonce, sizeof(cnonce));
		p.nc_text = SPAN_LIT("00000001");
		p.qop_text = SPAN_LIT("auth");
		p.qop = DIGEST_QOP_AUTH;
	}
	if (spoil) {
		for (unsigned i = 0; i < DIGEST_HEX_MAX; i += 16)
			load_hex(hex + i, load_random());
	} else if (digest_ha1(d->ctx, d->alg, p.username, p.realm, span_of(secret, sizeof(secret)), ha1) != 0 ||
		   digest_response(d->ctx, &p, ha1, method, span_of(NULL, 0), hex) != 0) {
		b->overflow = true;
		return;
	}
	sip_puts(b, "Proxy-Authorization: Digest ");
	pair(b, "username=", p.username);
	pair(b, ",realm=", p.realm);
	pair(b, ",nonce=", p.nonce);
	pair(b, ",uri=", uri);
	pair(b, ",response=", span_of(hex, 2 * digest_len(d->alg)));
	sip_puts(b, d->alg == DIGEST_SHA256 ? ",algorithm=SHA-256" : ",algorithm=MD5");
	if (n->qop) {
		pair(b, ",cnonce=", p.cnonce);
		sip_puts(b, ",qop=auth,nc=00000001");
	}
	if (n->opaque[0] != 0)
		pair(b, ",opaque=", span_str(n->opaque));
	sip_puts(b, "\r\n");
}

/* For a peer that keeps its users in its own configuration. */
int load_users(const struct load_options *o)
{
	char name[FRONT_USER_NAME_CHARS], secret[FRONT_USER_SECRET_CHARS];

	for (uint64_t i = 0; i < o->users; i++) {
		front_user_name(i, name);
		front_user_secret(o->seed, i, secret);
		printf("%.*s %.*s\n", (int)sizeof(name), name, (int)sizeof(secret), secret);
	}
	return 0;
}
