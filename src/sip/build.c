/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/build.h"

#include <stdarg.h>
#include <stdio.h>

#include "sip/chars.h"
#include "sip/scan.h"

#define DIGITS_MAX 20  /* of 64 bits */
#define PRINTF_MAX 512 /* a formatted piece that fills the buffer to the last byte goes through a copy of this size */

void sip_buf_init(struct sip_buf *b, char *p, size_t cap)
{
	*b = (struct sip_buf){.p = p, .cap = cap};
}

SIP_INLINE void put(struct sip_buf *b, const char *p, size_t n)
{
	if (b->overflow || n == 0)
		return;
	if (n > b->cap - b->len) {
		b->overflow = true;
		return;
	}
	memcpy(b->p + b->len, p, n);
	b->len += n;
}

#define PUT(b, lit) put(b, lit, sizeof(lit) - 1)

/* Decimal. Returns how many digits stand at the end of `out`. */
static size_t digits(char out[static DIGITS_MAX], size_t v)
{
	size_t n = 0;

	do
		out[DIGITS_MAX - ++n] = (char)('0' + v % 10);
	while ((v /= 10) != 0);
	return n;
}

void sip_put_number(struct sip_buf *b, size_t v)
{
	char text[DIGITS_MAX];
	size_t n = digits(text, v);

	put(b, text + DIGITS_MAX - n, n);
}

void sip_put(struct sip_buf *b, struct span s)
{
	put(b, s.p, s.n);
}

void sip_puts(struct sip_buf *b, const char *s)
{
	sip_put(b, span_str(s));
}

void sip_putc(struct sip_buf *b, char c)
{
	sip_put(b, span_of(&c, 1));
}

/* Of "%s" and "%u", all that is asked for while a message is on its way; false, and nothing is written, when the format holds another. */
static bool simple_printf(struct sip_buf *b, const char *fmt, va_list ap)
{
	const size_t before = b->len;
	const char *mark;

	for (mark = fmt; (mark = strchr(mark, '%')) != NULL; mark += 2) {
		if (mark[1] != 's' && mark[1] != 'u')
			return false;
	}
	while ((mark = strchr(fmt, '%')) != NULL) {
		put(b, fmt, (size_t)(mark - fmt));
		if (mark[1] == 's')
			sip_puts(b, va_arg(ap, const char *));
		else
			sip_put_number(b, va_arg(ap, unsigned));
		fmt = mark + 2;
	}
	sip_puts(b, fmt);
	if (b->overflow)
		b->len = before;
	return true;
}

void sip_printf(struct sip_buf *b, const char *fmt, ...)
{
	size_t room = b->cap - b->len;
	char tmp[PRINTF_MAX];
	bool done;
	va_list ap;
	int n;

	if (b->overflow)
		return;
	va_start(ap, fmt);
	done = simple_printf(b, fmt, ap);
	va_end(ap);
	if (done)
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

		next = sip_take_param(p + 1, end, &one, SIP_VECTOR);
		if (next == NULL)
			break;
		/* What the sender claims about its own address is not passed back. */
		if (one.name.n == 5 && sip_is_lower(one.name.p, "rport", 5)) {
			PUT(b, ";rport=");
			sip_put_number(b, src->port);
		} else if (one.name.n != 8 || !sip_is_lower(one.name.p, "received", 8)) {
			put(b, p, (size_t)(sip_trim_lws(p, next) - p));
		}
		p = next;
	}
	if (!same || v->rport) {
		PUT(b, ";received=");
		sip_puts(b, wn_ip_str(src, ip));
	}
}

/* The name as the request had it, the colon and a blank if there was one: a compact one must not make the answer the longer of the two. */
static void put_name(struct sip_buf *b, const struct sip_hdr *h)
{
	const char *name_end = h->name.p + h->name.n;

	/* Nearly always that stands there in one piece. */
	if (h->value.p <= name_end + 2) {
		put(b, h->name.p, (size_t)(h->value.p - h->name.p));
		return;
	}
	put(b, h->name.p, h->name.n);
	PUT(b, ": ");
}

/* Without the line's end. */
static void put_header(struct sip_buf *b, const struct sip_hdr *h)
{
	const char *name_end = h->name.p + h->name.n;

	if (h->value.p <= name_end + 2) {
		put(b, h->name.p, (size_t)(h->value.p + h->value.n - h->name.p));
		return;
	}
	put_name(b, h);
	put(b, h->value.p, h->value.n);
}

void sip_put_vias(struct sip_buf *b, const struct sip_msg *req, const struct wn_addr *src)
{
	const struct sip_hdr *h = sip_hdr_first(req, SIP_HDR_VIA);
	const char *rest = req->via.text.p + req->via.text.n;

	put_name(b, h);
	put_top_via(b, &req->via, src);
	put(b, rest, (size_t)(h->value.p + h->value.n - rest));
	PUT(b, "\r\n");
	while ((h = sip_hdr_next(req, h)) != NULL) {
		put_header(b, h);
		PUT(b, "\r\n");
	}
}

void sip_put_response(struct sip_buf *b, const struct sip_msg *req, unsigned status, const char *reason, struct span to_tag,
		      const struct wn_addr *src)
{
	PUT(b, "SIP/2.0 ");
	sip_put_number(b, status);
	PUT(b, " ");
	sip_puts(b, reason);
	PUT(b, "\r\n");
	sip_put_vias(b, req, src);
	put_header(b, sip_hdr_first(req, SIP_HDR_FROM));
	PUT(b, "\r\n");
	put_header(b, sip_hdr_first(req, SIP_HDR_TO));
	if (to_tag.p != NULL && req->to_tag.p == NULL) {
		PUT(b, ";tag=");
		put(b, to_tag.p, to_tag.n);
	}
	PUT(b, "\r\n");
	put_header(b, sip_hdr_first(req, SIP_HDR_CALL_ID));
	PUT(b, "\r\n");
	put_header(b, sip_hdr_first(req, SIP_HDR_CSEQ));
	PUT(b, "\r\n");
}

void sip_put_end(struct sip_buf *b, struct span type, struct span body)
{
	if (type.p != NULL) {
		PUT(b, "Content-Type: ");
		put(b, type.p, type.n);
		PUT(b, "\r\n");
	}
	PUT(b, "Content-Length: ");
	sip_put_number(b, body.n);
	PUT(b, "\r\n\r\n");
	put(b, body.p, body.n);
}
