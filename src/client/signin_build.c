/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "client/signin_private.h"

#define METHOD      "INVITE"
#define SDP_MAX     1024
#define ACTIVE_PORT 9 /* RFC 4145: the port of an end that only calls */

static size_t build_sdp(const struct signin *s, const struct leg *leg, char *out)
{
	struct sdp sdp = {.proto = s->proto, .walnut_port = s->walnut_port, .tag = s->proto == SDP_UDP};
	const struct wn_addr *seen = &leg->challenge.seen;
	struct sip_buf b;

	sdp.conn = s->call.local;
	if (s->proto == SDP_TCP)
		sdp.conn.port = ACTIVE_PORT;
	sdp.cand[sdp.ncand++] = (struct sdp_candidate){SDP_HOST, sdp.conn};
	if (seen->port != 0) {
		struct wn_addr outside = *seen;

		if (s->proto == SDP_TCP)
			outside.port = ACTIVE_PORT;
		sdp.cand[sdp.ncand++] = (struct sdp_candidate){SDP_SRFLX, outside};
	}
	sip_buf_init(&b, out, SDP_MAX);
	sdp_build(&b, &sdp, s->sdp_id);
	return b.overflow ? 0 : b.len;
}

static void put_request_line(const struct signin *s, const struct leg *leg, struct sip_buf *b, const char *method)
{
	char at[WN_ADDR_STR];

	sip_printf(b, "%s sip:%s@%s SIP/2.0\r\n", method, s->call.service, s->call.domain);
	sip_printf(b, "Via: SIP/2.0/UDP %s;branch=%s;rport\r\n", wn_addr_str(&s->call.local, at), leg->branch);
	sip_puts(b, "Max-Forwards: 70\r\n");
	sip_printf(b, "From: <sip:%s@%s>;tag=%s\r\n", s->call.user, s->call.domain, s->call.from_tag);
}

/* RFC 7616 section 3.4; the uri is the Request-URI and the body is covered, because the body says for whom the hole is. */
static int put_credentials(struct signin *s, struct leg *leg, struct sip_buf *b, struct span body)
{
	struct digest_params p = {0};
	uint8_t ha1[DIGEST_HASH_MAX];
	char uri[ENROL_SERVICE_MAX + ENROL_DOMAIN_MAX + 8];
	char hex[DIGEST_HEX_MAX];
	int rc;

	snprintf(uri, sizeof(uri), "sip:%s@%s", s->call.service, s->call.domain);
	p.username = span_str(s->call.user);
	p.realm = span_str(leg->challenge.realm);
	p.nonce = span_str(leg->challenge.nonce);
	p.uri = span_str(uri);
	p.cnonce = span_str(leg->cnonce);
	p.nc_text = SPAN_LIT("00000001");
	p.qop_text = SPAN_LIT("auth-int");
	p.qop = DIGEST_QOP_AUTH_INT;
	p.alg = DIGEST_SHA256;
	p.alg_known = true;
	rc = digest_ha1(s->digest, DIGEST_SHA256, p.username, p.realm, span_str(s->secret), ha1);
	if (rc == 0)
		rc = digest_response(s->digest, &p, ha1, SPAN_LIT(METHOD), body, hex);
	sodium_memzero(ha1, sizeof(ha1));
	if (rc < 0)
		return rc;
	sip_printf(b, "Proxy-Authorization: Digest username=\"%s\",realm=\"%s\",nonce=\"%s\",uri=\"%s\",response=\"%.*s\",", s->call.user,
		   leg->challenge.realm, leg->challenge.nonce, uri, DIGEST_HEX_MAX, hex);
	sip_printf(b, "algorithm=SHA-256,cnonce=\"%s\",qop=auth-int,nc=00000001\r\n", leg->cnonce);
	return 0;
}

static int build_invite(struct signin *s, struct leg *leg, bool credentials, size_t pad)
{
	char body[SDP_MAX], at[WN_ADDR_STR];
	struct sip_buf b;
	size_t n = build_sdp(s, leg, body);
	int rc = 0;

	if (n == 0)
		return -EMSGSIZE;
	sip_buf_init(&b, leg->msg, sizeof(leg->msg));
	put_request_line(s, leg, &b, METHOD);
	sip_printf(&b, "To: <sip:%s@%s>\r\n", s->call.service, s->call.domain);
	sip_printf(&b, "Call-ID: %s\r\nCSeq: %u %s\r\n", leg->call_id, leg->cseq, METHOD);
	sip_printf(&b, "Contact: <sip:%s@%s>\r\n", s->call.user, wn_addr_str(&s->call.local, at));
	sip_puts(&b, "Allow: INVITE, ACK, BYE, CANCEL, UPDATE\r\nSupported: timer\r\nUser-Agent: walnut/" WALNUT_VERSION "\r\n");
	if (credentials)
		rc = put_credentials(s, leg, &b, span_of(body, n));
	if (pad > 0) {
		sip_puts(&b, "X-Pad: ");
		while (pad-- > 0)
			sip_putc(&b, '0');
		sip_puts(&b, "\r\n");
	}
	sip_put_end(&b, SDP_TYPE, span_of(body, n));
	if (rc == 0 && b.overflow)
		rc = -EMSGSIZE;
	leg->msg_len = rc == 0 ? b.len : 0;
	return rc;
}

int signin_build_invite(struct signin *s, struct leg *leg, bool credentials)
{
	int rc = build_invite(s, leg, credentials, 0);

	if (rc == 0 && leg->msg_len < SIGNIN_REQUEST_MIN)
		rc = build_invite(s, leg, credentials, SIGNIN_REQUEST_MIN - leg->msg_len);
	return rc;
}

/* RFC 3261 17.1.1.3: the ACK of a refusal belongs to its transaction. */
void signin_build_ack(struct signin *s, struct leg *leg, const struct sip_msg *m)
{
	struct sip_buf b;

	sip_buf_init(&b, leg->ack, sizeof(leg->ack));
	put_request_line(s, leg, &b, "ACK");
	sip_puts(&b, "To: ");
	sip_put(&b, m->to);
	sip_printf(&b, "\r\nCall-ID: %s\r\nCSeq: %u ACK\r\n", leg->call_id, leg->cseq);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	leg->ack_len = b.len;
	leg->ack_due = !b.overflow;
}

void signin_build_cancel(struct signin *s, struct leg *leg)
{
	struct sip_buf b;

	sip_buf_init(&b, leg->msg, sizeof(leg->msg));
	put_request_line(s, leg, &b, "CANCEL");
	sip_printf(&b, "To: <sip:%s@%s>\r\n", s->call.service, s->call.domain);
	sip_printf(&b, "Call-ID: %s\r\nCSeq: %u CANCEL\r\n", leg->call_id, leg->cseq);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	leg->msg_len = b.len;
	leg->msg_due = !b.overflow;
}
