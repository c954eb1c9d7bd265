/* SPDX-License-Identifier: Apache-2.0 */
#include "fake.h"

#include <string.h>

#include "sip/build.h"
#include "ticket/session_key.h"

struct span fake_challenge(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, const char *realm, const char *nonce,
			   const char *alg, bool stale)
{
	struct sip_buf b;

	sip_buf_init(&b, f->buf, sizeof(f->buf));
	sip_put_response(&b, req, 407, "Proxy Authentication Required", SPAN_LIT("front"), src);
	sip_printf(&b, "Proxy-Authenticate: Digest realm=\"%s\",nonce=\"%s\",", realm, nonce);
	if (stale)
		sip_puts(&b, "stale=true,");
	if (alg != NULL)
		sip_printf(&b, "algorithm=%s,", alg);
	sip_puts(&b, "qop=\"auth,auth-int\"\r\n");
	sip_put_end(&b, (struct span){0}, (struct span){0});
	return sip_buf_span(&b);
}

struct span fake_status(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, unsigned status, const char *headers)
{
	struct sip_buf b;

	sip_buf_init(&b, f->buf, sizeof(f->buf));
	sip_put_response(&b, req, status, "Fake", status > 100 ? SPAN_LIT("agent") : (struct span){0}, src);
	sip_puts(&b, headers);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	return sip_buf_span(&b);
}

struct span fake_accept(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, const struct wn_addr *hole,
			const char *to_tag, const char *nextnonce, unsigned expires)
{
	struct sdp offer, answer = {0};
	struct sip_buf b, body;
	char text[1024];

	if (sdp_parse(req->body, &offer) == 0) {
		answer.proto = offer.proto;
		answer.tag = offer.tag;
	}
	answer.conn = *hole;
	answer.answer = true;
	sip_buf_init(&body, text, sizeof(text));
	sdp_build(&body, &answer, 7);
	sip_buf_init(&b, f->buf, sizeof(f->buf));
	sip_put_response(&b, req, 200, "OK", span_str(to_tag), src);
	sip_puts(&b, "Contact: <sip:agent@example.org>\r\n");
	sip_puts(&b, "Record-Route: <sip:TOKENTOKENTOKEN@192.0.2.9:5060;lr>\r\n");
	if (expires > 0)
		sip_printf(&b, "Session-Expires: %u;refresher=uac\r\n", expires);
	if (nextnonce != NULL)
		sip_printf(&b, "Proxy-Authentication-Info: nextnonce=\"%s\"\r\n", nextnonce);
	sip_put_end(&b, SDP_TYPE, sip_buf_span(&body));
	return sip_buf_span(&b);
}

bool fake_verify(struct fake *f, const struct sip_msg *req, const char *realm, const char *nonce, bool *any)
{
	const struct sip_hdr *h = sip_hdr_first(req, SIP_HDR_PROXY_AUTHORIZATION);
	struct digest_params p;
	uint8_t ha1[DIGEST_HASH_MAX];

	*any = h != NULL;
	if (h == NULL || digest_parse(h->value, &p) < 0 || p.alg != DIGEST_SHA256 || p.qop != DIGEST_QOP_AUTH_INT)
		return false;
	if (!span_eq(p.realm, span_str(realm)) || !span_eq(p.nonce, span_str(nonce)) || !span_eq(p.username, span_str(f->user)) ||
	    !span_eq(p.uri, req->uri))
		return false;
	return digest_ha1(f->digest, DIGEST_SHA256, p.username, p.realm, span_str(f->secret), ha1) == 0 &&
	       digest_verify(f->digest, &p, ha1, req->method_text, req->body);
}

int fake_session_key(struct fake *f, const struct sip_msg *req, uint8_t out[32])
{
	const struct sip_hdr *h = sip_hdr_first(req, SIP_HDR_PROXY_AUTHORIZATION);
	struct digest_params p;
	struct sip_uri uri;
	uint8_t ha1[DIGEST_HASH_MAX];

	if (h == NULL || digest_parse(h->value, &p) < 0 || sip_parse_uri(req->uri, &uri) < 0 ||
	    digest_ha1(f->digest, DIGEST_SHA256, p.username, p.realm, span_str(f->secret), ha1) < 0)
		return -1;
	return session_key_derive(ha1, 32, p.nonce, p.cnonce, req->call_id, uri.user, out);
}
