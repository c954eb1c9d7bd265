/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "load_call.h"

#define ID_CHARS 32u /* run, slot and generation in hex */

static const char offer[] = "v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
			    "m=audio 6000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n";

static uint64_t number(const struct load_call *c)
{
	return (uint64_t)c->slot << 32 | c->generation;
}

static void put_id(const struct call_shape *s, const struct load_call *c, struct sip_buf *b)
{
	load_put_hex(b, s->run);
	load_put_hex(b, number(c));
}

bool call_id_parse(const struct call_shape *s, struct span id, uint32_t *slot, uint32_t *generation)
{
	if (id.n < ID_CHARS || load_unhex(id.p, 16) != s->run)
		return false;
	*slot = (uint32_t)load_unhex(id.p + 16, 8);
	*generation = (uint32_t)load_unhex(id.p + 24, 8);
	return true;
}

static void put_user(const struct load_call *c, struct sip_buf *b)
{
	char name[16];

	sip_put(b, span_of(name, load_user_name(c->user, name)));
}

static void put_own(const struct load_call *c, unsigned port, struct sip_buf *b)
{
	load_put_address(b, load_address(c->address));
	sip_putc(b, ':');
	load_put_number(b, port);
}

/* Each request of a call is a transaction of its own: `which` stands in its branch. */
static void put_via(const struct call_shape *s, const struct load_call *c, unsigned port, char which, struct sip_buf *b)
{
	sip_puts(b, s->tcp ? "Via: SIP/2.0/TCP " : "Via: SIP/2.0/UDP ");
	put_own(c, port, b);
	sip_puts(b, ";branch=z9hG4bK");
	put_id(s, c, b);
	sip_putc(b, which);
	sip_puts(b, ";rport\r\n");
}

static void put_from(const struct call_shape *s, const struct load_call *c, struct sip_buf *b)
{
	sip_puts(b, "From: <sip:");
	put_user(c, b);
	sip_putc(b, '@');
	sip_puts(b, s->o->domain);
	sip_puts(b, ">;tag=");
	load_put_hex(b, number(c));
	sip_puts(b, "\r\n");
}

static void put_id_and_cseq(const struct call_shape *s, const struct load_call *c, const char *method, struct sip_buf *b)
{
	sip_puts(b, "Call-ID: ");
	put_id(s, c, b);
	sip_puts(b, "\r\nCSeq: ");
	load_put_number(b, c->cseq);
	sip_putc(b, ' ');
	sip_puts(b, method);
	sip_puts(b, "\r\n");
}

static void put_called(const struct call_shape *s, struct sip_buf *b)
{
	sip_puts(b, "sip:");
	sip_puts(b, s->o->service);
	sip_putc(b, '@');
	sip_puts(b, s->o->domain);
}

static char invite_branch(const struct load_call *c)
{
	return (char)('0' + c->tries);
}

static void put_body(struct sip_buf *b)
{
	sip_puts(b, "Content-Type: application/sdp\r\nContent-Length: ");
	load_put_number(b, sizeof(offer) - 1);
	sip_puts(b, "\r\n\r\n");
	sip_put(b, SPAN_LIT(offer));
}

void call_write_invite(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_nonce *nonce)
{
	char uri[128];
	struct sip_buf b, u;

	c->tries++;
	c->cseq++;
	sip_buf_init(&u, uri, sizeof(uri));
	put_called(s, &u);
	sip_buf_init(&b, c->request, sizeof(c->request));
	sip_puts(&b, "INVITE ");
	sip_put(&b, sip_buf_span(&u));
	sip_puts(&b, " SIP/2.0\r\n");
	put_via(s, c, port, invite_branch(c), &b);
	put_from(s, c, &b);
	sip_puts(&b, "To: <");
	sip_put(&b, sip_buf_span(&u));
	sip_puts(&b, ">\r\n");
	put_id_and_cseq(s, c, "INVITE", &b);
	sip_puts(&b, "Contact: <sip:");
	put_user(c, &b);
	sip_putc(&b, '@');
	put_own(c, port, &b);
	sip_puts(&b, s->tcp ? ";transport=tcp>\r\nMax-Forwards: 70\r\n" : ">\r\nMax-Forwards: 70\r\n");
	if (nonce != NULL)
		load_credentials(s->digest, nonce, c->user, SPAN_LIT("INVITE"), sip_buf_span(&u), false, &b);
	put_body(&b);
	c->request_n = b.overflow ? 0 : b.len;
}

void call_write_refused_ack(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_seen *answer)
{
	struct sip_buf b;

	sip_buf_init(&b, c->ack, sizeof(c->ack));
	sip_puts(&b, "ACK ");
	put_called(s, &b);
	sip_puts(&b, " SIP/2.0\r\n");
	put_via(s, c, port, invite_branch(c), &b);
	put_from(s, c, &b);
	sip_puts(&b, "To: ");
	sip_put(&b, answer->to);
	sip_puts(&b, "\r\n");
	put_id_and_cseq(s, c, "ACK", &b);
	sip_puts(&b, "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
	c->ack_n = b.overflow ? 0 : b.len;
}

/* The caller's route set is the recorded one turned round (RFC 3261 12.1.2). */
static size_t write_in_dialog(const struct call_shape *s, const struct load_call *c, unsigned port, const char *method, char which,
			      const struct load_seen *answer, char to[static LOAD_TEXT])
{
	struct sip_buf b;

	sip_buf_init(&b, to, LOAD_TEXT);
	sip_puts(&b, method);
	sip_putc(&b, ' ');
	sip_put(&b, load_uri(answer->contact));
	sip_puts(&b, " SIP/2.0\r\n");
	put_via(s, c, port, which, &b);
	for (unsigned i = answer->nroute; i > 0; i--) {
		sip_puts(&b, "Route: ");
		sip_put(&b, answer->route[i - 1]);
		sip_puts(&b, "\r\n");
	}
	put_from(s, c, &b);
	sip_puts(&b, "To: ");
	sip_put(&b, answer->to);
	sip_puts(&b, "\r\n");
	put_id_and_cseq(s, c, method, &b);
	sip_puts(&b, "Max-Forwards: 70\r\nContent-Length: 0\r\n\r\n");
	return b.overflow ? 0 : b.len;
}

void call_write_ack_and_bye(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_seen *answer)
{
	c->ack_n = write_in_dialog(s, c, port, "ACK", 'a', answer, c->ack);
	c->cseq++;
	c->request_n = write_in_dialog(s, c, port, "BYE", 'b', answer, c->request);
}

size_t call_write_ok(const struct call_shape *s, const struct load_seen *request, bool invite, char to[static LOAD_TEXT])
{
	struct sip_buf b;

	sip_buf_init(&b, to, LOAD_TEXT);
	sip_puts(&b, "SIP/2.0 200 OK\r\n");
	for (unsigned i = 0; i < request->nvia; i++) {
		sip_puts(&b, "Via: ");
		sip_put(&b, request->via[i]);
		sip_puts(&b, "\r\n");
	}
	for (unsigned i = 0; invite && i < request->nroute; i++) {
		sip_puts(&b, "Record-Route: ");
		sip_put(&b, request->route[i]);
		sip_puts(&b, "\r\n");
	}
	sip_puts(&b, "From: ");
	sip_put(&b, request->from);
	sip_puts(&b, "\r\nTo: ");
	sip_put(&b, request->to);
	sip_puts(&b, invite ? ";tag=uas1\r\nCall-ID: " : "\r\nCall-ID: ");
	sip_put(&b, request->call_id);
	sip_puts(&b, "\r\nCSeq: ");
	sip_put(&b, request->cseq);
	sip_puts(&b, "\r\nContact: <sip:uas@");
	load_put_address(&b, s->o->uas.sin_addr.s_addr);
	sip_putc(&b, ':');
	load_put_number(&b, ntohs(s->o->uas.sin_port));
	sip_puts(&b, ">\r\n");
	if (invite)
		put_body(&b);
	else
		sip_puts(&b, "Content-Length: 0\r\n\r\n");
	return b.overflow ? 0 : b.len;
}

size_t call_respond(const struct call_shape *s, struct span request, char to[static LOAD_TEXT])
{
	struct load_seen seen;
	bool invite;

	load_see(request, &seen);
	if (seen.status != 0 || seen.method.n == 0)
		return 0;
	invite = seen.method.n == 6 && seen.method.p[0] == 'I';
	if (!invite && !(seen.method.n == 3 && seen.method.p[0] == 'B'))
		return 0;
	return call_write_ok(s, &seen, invite, to);
}
