/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/build.h"

#include <stdarg.h>
#include <stdio.h>

#include "sip/chars.h"

#define PRINTF_MAX 512 /* a formatted piece that fills the buffer to the last byte goes through a copy of this size */

void sip_buf_init(struct sip_buf *b, char *p, size_t cap)
{
	*b = (struct sip_buf){.p = p, .cap = cap};
}

void sip_put(struct sip_buf *b, struct span s)
{
	if (b->overflow || s.n == 0)
		return;
	if (s.n > b->cap - b->len) {
		b->overflow = true;
		return;
	}
	memcpy(b->p + b->len, s.p, s.n);
	b->len += s.n;
}

void sip_puts(struct sip_buf *b, const char *s)
{
	sip_put(b, span_str(s));
}

void sip_putc(struct sip_buf *b, char c)
{
	sip_put(b, span_of(&c, 1));
}

void sip_printf(struct sip_buf *b, const char *fmt, ...)
{
	size_t room = b->cap - b->len;
	char tmp[PRINTF_MAX];
	va_list ap;
	int n;

	if (b->overflow)
		return;
	va_start(ap, fmt);
	n = vsnprintf(room != 0 ? b->p + b->len : NULL, room, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n > room || ((size_t)n == room && n >= PRINTF_MAX)) {
		b->overflow = true;
		return;
	}
	if ((size_t)n == room) {
		/* vsnprintf kept the last byte for its NUL. */
		va_start(ap, fmt);
		vsnprintf(tmp, sizeof(tmp), fmt, ap);
		va_end(ap);
		memcpy(b->p + b->len, tmp, (size_t)n);
	}
	b->len += (size_t)n;
}

struct span sip_buf_span(const struct sip_buf *b)
{
	return span_of(b->p, b->len);
}

static void put_top_via(struct sip_buf *b, const struct sip_via *v, const struct wn_addr *src)
{
	const char *p = v->sent_by.p + v->sent_by.n, *end = v->text.p + v->text.n;
	char ip[WN_ADDR_STR];
	struct wn_addr host;
	bool same = wn_ip_parse(v->host, &host) == 0 && wn_ip_eq(&host, src);

	sip_put(b, span_of(v->text.p, (size_t)(p - v->text.p)));
	p = sip_skip_lws(p, end);
	while (p < end && *p == ';') {
		const char *next;
		struct sip_param_view one;

		next = sip_take_param(p + 1, end, &one);
		if (next == NULL)
			break;
		/* What the sender claims about its own address is not passed back. */
		if (span_caseeq(one.name, SPAN_LIT("rport")))
			sip_printf(b, ";rport=%u", (unsigned)src->port);
		else if (!span_caseeq(one.name, SPAN_LIT("received")))
			sip_put(b, span_of(p, (size_t)(sip_trim_lws(p, next) - p)));
		p = next;
	}
	if (!same || v->rport)
		sip_printf(b, ";received=%s", wn_ip_str(src, ip));
}

static void put_header(struct sip_buf *b, const struct sip_hdr *h)
{
	/* The name as the request had it: a compact one must not make the answer the longer of the two. */
	sip_put(b, h->name);
	sip_puts(b, ": ");
	sip_put(b, h->value);
	sip_puts(b, "\r\n");
}

void sip_put_vias(struct sip_buf *b, const struct sip_msg *req, const struct wn_addr *src)
{
	const struct sip_hdr *h = sip_hdr_first(req, SIP_HDR_VIA);
	const char *rest = req->via.text.p + req->via.text.n;

	sip_put(b, h->name);
	sip_puts(b, ": ");
	put_top_via(b, &req->via, src);
	sip_put(b, span_of(rest, (size_t)(h->value.p + h->value.n - rest)));
	sip_puts(b, "\r\n");
	while ((h = sip_hdr_next(req, h)) != NULL)
		put_header(b, h);
}

void sip_put_response(struct sip_buf *b, const struct sip_msg *req, unsigned status, const char *reason, struct span to_tag,
		      const struct wn_addr *src)
{
	const struct sip_hdr *to = sip_hdr_first(req, SIP_HDR_TO);

	sip_printf(b, "SIP/2.0 %u %s\r\n", status, reason);
	sip_put_vias(b, req, src);
	put_header(b, sip_hdr_first(req, SIP_HDR_FROM));
	sip_put(b, to->name);
	sip_puts(b, ": ");
	sip_put(b, to->value);
	if (to_tag.p != NULL && req->to_tag.p == NULL) {
		sip_puts(b, ";tag=");
		sip_put(b, to_tag);
	}
	sip_puts(b, "\r\n");
	put_header(b, sip_hdr_first(req, SIP_HDR_CALL_ID));
	put_header(b, sip_hdr_first(req, SIP_HDR_CSEQ));
}

void sip_put_end(struct sip_buf *b, struct span type, struct span body)
{
	if (type.p != NULL) {
		sip_puts(b, "Content-Type: ");
		sip_put(b, type);
		sip_puts(b, "\r\n");
	}
	sip_printf(b, "Content-Length: %zu\r\n\r\n", body.n);
	sip_put(b, body);
}
