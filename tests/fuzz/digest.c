/* SPDX-License-Identifier: Apache-2.0 */
/* digest_parse: what it accepts reads the same when written again, can be answered and verified, and only the right answer is taken. */
#include "sip/digest.h"
#include "fuzz.h"
#include "sip/build.h"

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

static void put(struct sip_buf *b, const char *name, struct span value)
{
	if (value.p == NULL)
		return;
	sip_puts(b, b->len > 8 ? " ,\r\n\t" : "");
	sip_puts(b, name);
	sip_puts(b, " = ");
	/* A backslash outside quotes is one; within them it would be half of something. */
	if (value.n != 0 && memchr(value.p, '\\', value.n) != NULL && value.p[-1] != '"') {
		sip_put(b, value);
		return;
	}
	sip_putc(b, '"');
	sip_put(b, value);
	sip_putc(b, '"');
}

/* Written once more, with quotes, it reads the same. */
static void again(const struct digest_params *p)
{
	static char text[16384];
	struct digest_params q;
	struct sip_buf b;

	sip_buf_init(&b, text, sizeof(text));
	sip_puts(&b, "diGest\t");
	put(&b, "Response", p->response);
	put(&b, "opaque", p->opaque);
	put(&b, "nextnonce", p->nextnonce);
	put(&b, "CNONCE", p->cnonce);
	put(&b, "qop", p->qop_text);
	put(&b, "nc", p->nc_text);
	put(&b, "uri", p->uri);
	put(&b, "stale", p->stale ? SPAN_LIT("TRUE") : SPAN_LIT("false"));
	put(&b, "algorithm", !p->alg_known ? SPAN_LIT("other") : p->alg == DIGEST_MD5 ? SPAN_LIT("md5") : SPAN_LIT("sha-256"));
	put(&b, "nonce", p->nonce);
	put(&b, "realm", p->realm);
	put(&b, "username", p->username);
	if (b.overflow)
		return;
	CHECK(digest_parse(sip_buf_span(&b), &q) == 0);
	CHECK(span_eq(p->username, q.username) && span_eq(p->realm, q.realm) && span_eq(p->nonce, q.nonce) && span_eq(p->uri, q.uri));
	CHECK(span_eq(p->response, q.response) && span_eq(p->cnonce, q.cnonce) && span_eq(p->opaque, q.opaque));
	CHECK(span_eq(p->nextnonce, q.nextnonce) && span_eq(p->nc_text, q.nc_text) && span_eq(p->qop_text, q.qop_text));
	CHECK(p->alg == q.alg && p->alg_known == q.alg_known && p->qop == q.qop && p->stale == q.stale);
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
	again(&p);
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
