/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/call_sip.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"

static const struct sip_hdr *only(const struct sip_msg *m, struct span name)
{
	const struct sip_hdr *found = NULL;

	for (unsigned i = 0; i < m->nhdr; i++) {
		if (!span_caseeq(m->hdr[i].name, name))
			continue;
		if (found != NULL)
			return NULL;
		found = &m->hdr[i];
	}
	return found;
}

static bool read_user(const struct sip_msg *m, struct span domain, struct span *user)
{
	const struct sip_hdr *h = only(m, SPAN_LIT("P-Asserted-Identity"));
	struct sip_nameaddr na;
	struct sip_uri uri;

	if (h == NULL || sip_parse_nameaddr(h->value, &na) < 0 || sip_parse_uri(na.uri, &uri) < 0)
		return false;
	if (!span_caseeq(uri.scheme, SPAN_LIT("sip")) || !span_caseeq(uri.host, domain) || !user_name_valid(uri.user))
		return false;
	*user = uri.user;
	return true;
}

static bool read_source(const struct sip_msg *m, struct call_identity *out)
{
	const struct sip_hdr *h = only(m, SPAN_LIT("X-Walnut-Source"));
	struct span params = {NULL, 0}, addr, qop;
	const char *semi;

	if (h == NULL)
		return false;
	addr = h->value;
	semi = memchr(addr.p, ';', addr.n);
	if (semi != NULL) {
		params = span_of(semi + 1, addr.n - (size_t)(semi + 1 - addr.p));
		addr.n = (size_t)(semi - addr.p);
	}
	while (addr.n > 0 && addr.p[addr.n - 1] == ' ')
		addr.n--;
	if (wn_addr_parse(addr, -1, &out->source) < 0)
		return false;
	/* Everything that is not plainly auth-int is the weaker one. */
	out->auth_int = sip_param(params, SPAN_LIT("qop"), &qop) && qop.p != NULL && span_eq(qop, SPAN_LIT("auth-int"));
	return true;
}

enum call_identity_verdict call_identity_read(const struct sip_msg *m, struct span domain, struct call_identity *out)
{
	const struct sip_hdr *key = only(m, SPAN_LIT("X-Walnut-Key"));

	memset(out, 0, sizeof(*out));
	if (!read_user(m, domain, &out->user))
		return CALL_BAD_IDENTITY;
	if (key == NULL || b64url_decode(key->value, out->key, sizeof(out->key)) != SESSION_KEY_BYTES)
		return CALL_BAD_KEY;
	if (!read_source(m, out))
		return CALL_BAD_SOURCE;
	return CALL_IDENTITY_OK;
}

static struct span keep(char **at, struct span s)
{
	struct span kept = span_of(*at, s.n);

	if (s.n > 0)
		memcpy(*at, s.p, s.n);
	*at += s.n;
	return kept;
}

/* The client's Contact, or where there is none that can stand in a start line, its From. */
static struct span target_of(const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_CONTACT);
	struct span values[2] = {h != NULL ? h->value : (struct span){NULL, 0}, m->from};

	for (unsigned i = 0; i < 2; i++) {
		struct sip_nameaddr na;
		struct sip_uri uri;
		bool plain = true;

		if (values[i].p == NULL || sip_parse_nameaddr(values[i], &na) < 0 || sip_parse_uri(na.uri, &uri) < 0)
			continue;
		for (size_t k = 0; k < na.uri.n; k++)
			plain = plain && (unsigned char)na.uri.p[k] > 0x20 && na.uri.p[k] != 0x7f;
		if (plain)
			return na.uri;
	}
	return SPAN_LIT("sip:anonymous.invalid");
}

int call_dialog_new(const struct sip_msg *m, struct call_dialog **out)
{
	char routes[CALL_MESSAGE_MAX / 2];
	struct span target = target_of(m);
	struct call_dialog *d;
	struct sip_buf b;
	size_t n;
	char *at;

	*out = NULL;
	sip_buf_init(&b, routes, sizeof(routes));
	for (const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_RECORD_ROUTE); h != NULL; h = sip_hdr_next(m, h)) {
		sip_puts(&b, "Route: ");
		sip_put(&b, h->value);
		sip_puts(&b, "\r\n");
	}
	n = b.len + m->call_id.n + m->from_tag.n + m->from.n + m->to.n + target.n;
	if (b.overflow || n > CALL_MESSAGE_MAX * 3 / 4)
		return -EMSGSIZE;

	d = malloc(sizeof(*d) + n);
	if (d == NULL)
		return -ENOMEM;
	at = d->store;
	d->call_id = keep(&at, m->call_id);
	d->from_tag = keep(&at, m->from_tag);
	d->from = keep(&at, m->from);
	d->to = keep(&at, m->to);
	d->target = keep(&at, target);
	d->routes = keep(&at, sip_buf_span(&b));
	*out = d;
	return 0;
}

int call_request_keep(struct call_request *r, const struct sip_msg *m, int front, const struct wn_addr *src)
{
	char *raw = malloc(m->raw.n);

	if (raw == NULL)
		return -ENOMEM;
	call_request_drop(r);
	memcpy(raw, m->raw.p, m->raw.n);
	*r = (struct call_request){.raw = raw, .n = m->raw.n, .front = front, .src = *src};
	return 0;
}

void call_request_drop(struct call_request *r)
{
	if (r->raw != NULL)
		sodium_memzero(r->raw, r->n); /* holds the session key */
	free(r->raw);
	memset(r, 0, sizeof(*r));
}

static struct span finish(const struct sip_buf *b)
{
	return b->overflow ? (struct span){NULL, 0} : sip_buf_span(b);
}

struct span call_build_status(const struct sip_msg *m, const struct wn_addr *src, unsigned status, const char *reason, const char *to_tag,
			      const char *extra_lines, char *buf, size_t cap)
{
	struct sip_buf b;

	sip_buf_init(&b, buf, cap);
	sip_put_response(&b, m, status, reason, span_str(to_tag), src);
	if (extra_lines != NULL)
		sip_puts(&b, extra_lines);
	sip_put_end(&b, (struct span){NULL, 0}, (struct span){NULL, 0});
	return finish(&b);
}

static void put_session_expires(struct sip_buf *b, const struct sip_msg *m, const struct call *c)
{
	sip_printf(b, "Session-Expires: %u;refresher=uac\r\n", c->lifetime_s);
	for (const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_SUPPORTED); h != NULL; h = sip_hdr_next(m, h)) {
		struct span rest = h->value, item;

		while (sip_list_next(&rest, &item)) {
			if (span_caseeq(item, SPAN_LIT("timer"))) {
				sip_puts(b, "Require: timer\r\n"); /* RFC 4028 section 9 */
				return;
			}
		}
	}
}

static void begin_ok(struct sip_buf *b, const struct sip_msg *m, const struct wn_addr *src, const struct call *c, const char *domain)
{
	sip_put_response(b, m, 200, "OK", span_str(c->to_tag), src);
	for (const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_RECORD_ROUTE); h != NULL; h = sip_hdr_next(m, h)) {
		sip_puts(b, "Record-Route: ");
		sip_put(b, h->value);
		sip_puts(b, "\r\n");
	}
	sip_printf(b, "Contact: <sip:agent@%s>\r\n", domain);
	put_session_expires(b, m, c);
}

struct span call_build_answer(const struct sip_msg *m, const struct wn_addr *src, const struct call *c, const char *domain, char *buf,
			      size_t cap)
{
	struct sdp s = {.proto = c->proto == IPPROTO_TCP ? SDP_TCP : SDP_UDP,
			.conn = c->public,
			.tag = c->tag,
			.expires_s = c->lifetime_s,
			.answer = true};
	char body[1024];
	struct sip_buf b, sb;

	sip_buf_init(&sb, body, sizeof(body));
	sdp_build(&sb, &s, c->began_ms);
	sip_buf_init(&b, buf, cap);
	begin_ok(&b, m, src, c, domain);
	sip_put_end(&b, SDP_TYPE, sip_buf_span(&sb));
	if (sb.overflow)
		b.overflow = true;
	return finish(&b);
}

struct span call_build_renewed(const struct sip_msg *m, const struct wn_addr *src, const struct call *c, const char *domain, char *buf,
			       size_t cap)
{
	struct sip_buf b;

	sip_buf_init(&b, buf, cap);
	begin_ok(&b, m, src, c, domain);
	sip_put_end(&b, (struct span){NULL, 0}, (struct span){NULL, 0});
	return finish(&b);
}

struct span call_build_bye(struct call *c, const char *domain, char *buf, size_t cap)
{
	const struct call_dialog *d = c->dialog;
	struct sip_buf b;

	c->local_cseq++;
	sip_buf_init(&b, buf, cap);
	sip_puts(&b, "BYE ");
	sip_put(&b, d->target);
	sip_printf(&b, " SIP/2.0\r\nVia: SIP/2.0/TLS agent.%s;branch=z9hG4bK%s%u\r\n", domain, c->to_tag, c->local_cseq);
	sip_puts(&b, "Max-Forwards: 70\r\n");
	sip_put(&b, d->routes);
	sip_puts(&b, "From: ");
	sip_put(&b, d->to);
	sip_printf(&b, ";tag=%s\r\nTo: ", c->to_tag);
	sip_put(&b, d->from);
	sip_puts(&b, "\r\nCall-ID: ");
	sip_put(&b, d->call_id);
	sip_printf(&b, "\r\nCSeq: %u BYE\r\n", c->local_cseq);
	sip_put_end(&b, (struct span){NULL, 0}, (struct span){NULL, 0});
	return finish(&b);
}
