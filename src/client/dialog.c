/* SPDX-License-Identifier: Apache-2.0 */
#include "client/dialog.h"

#include <errno.h>
#include <sodium.h>
#include <string.h>

#include "base/b64.h"

#define ID_BYTES      16
#define SESSION_S_MAX (86400 * 365)

_Static_assert(B64URL_LEN(ID_BYTES) < CALL_ID_MAX, "an identifier fits");

void call_draw_id(struct call *c, char out[static CALL_ID_MAX])
{
	uint8_t raw[ID_BYTES];

	c->drawn++;
	crypto_generichash(raw, sizeof(raw), (const uint8_t *)&c->drawn, sizeof(c->drawn), c->seed, sizeof(c->seed));
	out[b64url_encode(raw, sizeof(raw), out)] = '\0';
}

int call_front(const struct call *c, const struct wn_addr *from)
{
	for (unsigned i = 0; i < c->nfronts; i++) {
		if (wn_addr_eq(from, &c->fronts[i]))
			return (int)i;
	}
	return -1;
}

/* Text that goes back into a header between quotes, brackets or separators. */
static bool plain(struct span s)
{
	for (size_t i = 0; i < s.n; i++) {
		if ((unsigned char)s.p[i] <= 0x20 || (unsigned char)s.p[i] >= 0x7f || strchr("<>\",", s.p[i]) != NULL)
			return false;
	}
	return s.n > 0;
}

static int keep(struct span s, char *out, size_t cap)
{
	return plain(s) && span_cstr(s, out, cap) == 0 ? 0 : -EBADMSG;
}

/* RFC 3261 12.1.2: of the Record-Routes the last is the nearest hop. There is one, ours. */
static int take_token(struct dialog *d, const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_RECORD_ROUTE);
	struct span last = {0}, rest, item;
	struct sip_nameaddr na;
	struct sip_uri uri;

	for (; h != NULL; h = sip_hdr_next(m, h)) {
		rest = h->value;
		while (sip_list_next(&rest, &item))
			last = item;
	}
	d->token[0] = '\0';
	if (last.p == NULL)
		return 0;
	if (sip_parse_nameaddr(last, &na) < 0 || sip_parse_uri(na.uri, &uri) < 0 || uri.user.p == NULL)
		return -EBADMSG;
	return keep(uri.user, d->token, sizeof(d->token));
}

static void set_expiry(struct dialog *d, const struct sip_msg *m, uint64_t now_ms)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_SESSION_EXPIRES);
	unsigned long long s;
	size_t n = 0;

	while (h != NULL && n < h->value.n && h->value.p[n] >= '0' && h->value.p[n] <= '9')
		n++;
	if (n > 0 && span_u64(span_of(h->value.p, n), SESSION_S_MAX, &s) == 0 && s > 0)
		d->session_s = (uint32_t)s;
	if (d->session_s == 0)
		return;
	d->refresh_at = now_ms + d->session_s * UINT64_C(500);
	d->expires_at = now_ms + d->session_s * UINT64_C(1000);
}

static void put_common(struct dialog *d, struct sip_buf *b, const char *method, unsigned front, const char *branch, uint32_t cseq)
{
	char at[WN_ADDR_STR];

	sip_printf(b, "%s %s SIP/2.0\r\n", method, d->target);
	sip_printf(b, "Via: SIP/2.0/UDP %s;branch=%s;rport\r\n", wn_addr_str(&d->call.local, at), branch);
	if (d->token[0] != '\0')
		sip_printf(b, "Route: <sip:%s@%s;lr>\r\n", d->token, wn_addr_str(&d->call.fronts[front], at));
	sip_puts(b, "Max-Forwards: 70\r\n");
	sip_printf(b, "From: <sip:%s@%s>;tag=%s\r\n", d->call.user, d->call.domain, d->call.from_tag);
	sip_printf(b, "To: <sip:%s@%s>;tag=%s\r\n", d->call.service, d->call.domain, d->to_tag);
	sip_printf(b, "Call-ID: %s\r\nCSeq: %u %s\r\n", d->call_id, cseq, method);
}

static void new_branch(struct dialog *d, char out[static CALL_ID_MAX + 8])
{
	static const char cookie[] = "z9hG4bK";

	memcpy(out, cookie, sizeof(cookie));
	call_draw_id(&d->call, out + sizeof(cookie) - 1);
}

/* RFC 3261 13.2.2.4: a request of its own, with the INVITE's number. */
static void build_ack(struct dialog *d, unsigned front, uint32_t cseq)
{
	char branch[CALL_ID_MAX + 8];
	struct sip_buf b;

	new_branch(d, branch);
	sip_buf_init(&b, d->ack, sizeof(d->ack));
	put_common(d, &b, "ACK", front, branch, cseq);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	d->ack_len = b.overflow ? 0 : b.len;
	d->ack_front = front;
	d->ack_due = d->ack_len > 0;
}

int dialog_begin(struct dialog *d, const struct call *call, unsigned front, const struct sip_msg *m, uint64_t now_ms)
{
	const struct sip_hdr *contact = sip_hdr_first(m, SIP_HDR_CONTACT);
	struct sip_nameaddr na;
	struct span rest, item;
	int rc;

	*d = (struct dialog){.call = *call, .front = front, .cseq = m->cseq, .refresh_at = UINT64_MAX, .expires_at = UINT64_MAX};
	if (contact == NULL || m->to_tag.p == NULL)
		return -EBADMSG;
	rest = contact->value;
	if (!sip_list_next(&rest, &item) || sip_parse_nameaddr(item, &na) < 0)
		return -EBADMSG;
	rc = keep(na.uri, d->target, sizeof(d->target));
	if (rc == 0)
		rc = keep(m->to_tag, d->to_tag, sizeof(d->to_tag));
	if (rc == 0)
		rc = keep(m->call_id, d->call_id, sizeof(d->call_id));
	if (rc == 0)
		rc = take_token(d, m);
	if (rc < 0)
		return rc;
	set_expiry(d, m, now_ms);
	build_ack(d, front, m->cseq);
	return 0;
}

/* A new transaction each time: other front, other branch, other number (the same one would look like a merged request). */
static void send_request(struct dialog *d, uint64_t now_ms)
{
	struct sip_buf b;
	char at[WN_ADDR_STR];

	new_branch(d, d->branch);
	d->cseq++;
	sip_buf_init(&b, d->msg, sizeof(d->msg));
	put_common(d, &b, sip_method_name(d->method), d->to_front, d->branch, d->cseq);
	if (d->method == SIP_UPDATE) {
		sip_printf(&b, "Contact: <sip:%s@%s>\r\n", d->call.user, wn_addr_str(&d->call.local, at));
		sip_puts(&b, "Supported: timer\r\n");
		sip_printf(&b, "Session-Expires: %u;refresher=uac\r\n", d->session_s);
	}
	sip_put_end(&b, (struct span){0}, (struct span){0});
	d->msg_len = b.overflow ? 0 : b.len;
	d->msg_due = d->msg_len > 0;
	d->tried++;
	d->interval = SIP_T1_MS;
	d->again_at = now_ms + d->interval;
	d->next_front_at = now_ms + DIALOG_FRONT_WAIT_MS;
}

static void start(struct dialog *d, enum sip_method method, uint64_t now_ms)
{
	d->method = method;
	d->to_front = d->front;
	d->tried = 0;
	d->give_up_at = now_ms + (method == SIP_BYE ? DIALOG_BYE_MS : DIALOG_UPDATE_MS);
	send_request(d, now_ms);
}

static void end(struct dialog *d, enum dialog_end how)
{
	d->state = DIALOG_ENDED;
	d->end = how;
	d->method = SIP_METHOD_OTHER;
	d->msg_due = false;
}

void dialog_bye(struct dialog *d, uint64_t now_ms)
{
	if (d->state != DIALOG_UP)
		return;
	d->state = DIALOG_ENDING;
	start(d, SIP_BYE, now_ms);
}

static void got_response(struct dialog *d, unsigned front, const struct sip_msg *m, uint64_t now_ms)
{
	if (m->method == SIP_INVITE) {
		if (m->status >= 200 && m->status < 300)
			build_ack(d, front, m->cseq);
		return;
	}
	if (d->method == SIP_METHOD_OTHER || m->method != d->method || m->cseq != d->cseq || front != d->to_front ||
	    !span_eq(m->via.branch, span_str(d->branch)))
		return;
	if (m->status < 200) {
		/* Somebody works on it: no other front, and retransmissions at T2 (RFC 3261 17.1.2.2). */
		d->next_front_at = UINT64_MAX;
		d->again_at = now_ms + SIP_T2_MS;
		d->interval = SIP_T2_MS;
		return;
	}
	d->front = front;
	d->msg_due = false;
	if (d->method == SIP_BYE) {
		end(d, DIALOG_END_LOCAL);
		return;
	}
	d->method = SIP_METHOD_OTHER;
	if (m->status == 481)
		end(d, DIALOG_END_UNKNOWN);
	else if (m->status < 300)
		set_expiry(d, m, now_ms);
	else
		d->refresh_at = now_ms + DIALOG_UPDATE_AGAIN_MS;
}

static void reply(struct dialog *d, unsigned front, const struct sip_msg *m, unsigned status, const char *reason)
{
	struct sip_buf b;

	sip_buf_init(&b, d->reply, sizeof(d->reply));
	sip_put_response(&b, m, status, reason, (struct span){0}, &d->call.fronts[front]);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	d->reply_len = b.overflow ? 0 : b.len;
	d->reply_front = front;
	d->reply_due = d->reply_len > 0;
}

bool dialog_input(struct dialog *d, const struct wn_addr *from, const struct sip_msg *m, uint64_t now_ms)
{
	int front = call_front(&d->call, from);
	struct span ours, theirs;

	if (front < 0 || !span_eq(m->call_id, span_str(d->call_id)))
		return false;
	ours = m->request ? m->to_tag : m->from_tag;
	theirs = m->request ? m->from_tag : m->to_tag;
	if (!span_eq(ours, span_str(d->call.from_tag)) || !span_eq(theirs, span_str(d->to_tag)))
		return false;
	if (!m->request) {
		got_response(d, (unsigned)front, m, now_ms);
	} else if (m->method == SIP_BYE) {
		reply(d, (unsigned)front, m, 200, "OK");
		if (d->state != DIALOG_ENDED)
			end(d, DIALOG_END_PEER);
	} else if (m->method != SIP_ACK) {
		reply(d, (unsigned)front, m, 405, "Method Not Allowed");
	}
	return true;
}

static void step(struct dialog *d, uint64_t now_ms)
{
	if (d->state == DIALOG_ENDED)
		return;
	if (d->state == DIALOG_UP && now_ms >= d->expires_at) {
		end(d, DIALOG_END_EXPIRED);
		return;
	}
	if (d->state == DIALOG_UP && d->method == SIP_METHOD_OTHER && now_ms >= d->refresh_at)
		start(d, SIP_UPDATE, now_ms);
	if (d->method == SIP_METHOD_OTHER)
		return;
	if (now_ms >= d->give_up_at) {
		if (d->method == SIP_BYE) {
			end(d, DIALOG_END_SILENT);
			return;
		}
		d->method = SIP_METHOD_OTHER;
		d->msg_due = false;
		d->refresh_at = now_ms + DIALOG_UPDATE_AGAIN_MS;
		return;
	}
	if (now_ms >= d->next_front_at && d->call.nfronts > 1) {
		d->to_front = (d->to_front + 1) % d->call.nfronts;
		send_request(d, now_ms);
	} else if (now_ms >= d->again_at) {
		d->msg_due = true;
		d->interval = d->interval * 2 > SIP_T2_MS ? SIP_T2_MS : d->interval * 2;
		d->again_at = now_ms + d->interval;
	}
}

bool dialog_next(struct dialog *d, uint64_t now_ms, unsigned *front, struct span *bytes)
{
	step(d, now_ms);
	if (d->ack_due) {
		d->ack_due = false;
		*front = d->ack_front;
		*bytes = span_of(d->ack, d->ack_len);
		return true;
	}
	if (d->reply_due) {
		d->reply_due = false;
		*front = d->reply_front;
		*bytes = span_of(d->reply, d->reply_len);
		return true;
	}
	if (d->msg_due) {
		d->msg_due = false;
		*front = d->to_front;
		*bytes = span_of(d->msg, d->msg_len);
		return true;
	}
	return false;
}

static uint64_t sooner(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

uint64_t dialog_deadline(const struct dialog *d)
{
	uint64_t at = UINT64_MAX;

	if (d->state == DIALOG_ENDED)
		return UINT64_MAX;
	if (d->state == DIALOG_UP)
		at = d->expires_at;
	if (d->method == SIP_METHOD_OTHER)
		return sooner(at, d->refresh_at);
	at = sooner(at, sooner(d->give_up_at, d->again_at));
	return d->call.nfronts > 1 ? sooner(at, d->next_front_at) : at;
}
