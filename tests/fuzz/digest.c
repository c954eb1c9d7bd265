/* SPDX-License-Identifier: Apache-2.0 */
/* digest_parse: what it accepts can be answered and verified, and only the right answer is taken. */
#include "sip/digest.h"
#include "fuzz.h"

static void check(const struct digest_params *p, struct span in)
{
	const struct span texts[] = {p->username, p->realm,  p->nonce,     p->uri,     p->response,
				     p->cnonce,   p->opaque, p->nextnonce, p->nc_text, p->qop_text};

	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
		CHECK(inside(texts[i], in));
	CHECK(p->nc_text.p == NULL || p->nc_text.n == 8);
	CHECK(p->qop == DIGEST_QOP_NONE || p->qop_text.p != NULL);
	CHECK(p->alg < DIGEST_ALGS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct digest_ctx *ctx;
	struct span in = span_of(data, n);
	struct digest_params p;
	uint8_t ha1[DIGEST_HASH_MAX];
	char answer[DIGEST_HEX_MAX];

	if (ctx == NULL)
		CHECK(digest_ctx_new(&ctx) == 0);
	if (digest_parse_info(in, &p) == 0)
		check(&p, in);
	if (digest_parse(in, &p) != 0)
		return 0;
	check(&p, in);
	CHECK(digest_ha1(ctx, p.alg, p.username, p.realm, SPAN_LIT("a secret nobody guesses"), ha1) == 0);
	CHECK(!digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), in));
	if (digest_response(ctx, &p, ha1, SPAN_LIT("INVITE"), in, answer) != 0)
		return 0;
	p.response = span_of(answer, 2 * digest_len(p.alg));
	CHECK(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), in));
	CHECK(!digest_verify(ctx, &p, ha1, SPAN_LIT("BYE"), in));
	CHECK(digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), SPAN_LIT("other")) == (p.qop != DIGEST_QOP_AUTH_INT));
	answer[0] ^= 1;
	CHECK(!digest_verify(ctx, &p, ha1, SPAN_LIT("INVITE"), in));
	return 0;
}
