/* SPDX-License-Identifier: Apache-2.0 */
/** \file Writing SIP into a caller's buffer. A write that does not fit sets `overflow` and nothing more is written. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "base/span.h"
#include "sip/msg.h"

struct sip_buf {
	char *p;
	size_t cap, len;
	bool overflow;
};

void sip_buf_init(struct sip_buf *b, char *p, size_t cap);
void sip_put(struct sip_buf *b, struct span s);
void sip_puts(struct sip_buf *b, const char *s);
void sip_putc(struct sip_buf *b, char c);
/** Decimal. */
void sip_put_number(struct sip_buf *b, size_t v);
__attribute__((format(printf, 2, 3))) void sip_printf(struct sip_buf *b, const char *fmt, ...);
struct span sip_buf_span(const struct sip_buf *b);

/** Writes all Via values of `req` into a response; the topmost gets received=/rport= from `src` as RFC 3261 18.2.1 and RFC 3581
 * section 4 say (rport filled in where asked for; received added where it differs or rport was asked for). */
void sip_put_vias(struct sip_buf *b, const struct sip_msg *req, const struct wn_addr *src);

/** Status line, Via (sip_put_vias), From, To (with `to_tag` added when it has none and to_tag.p != NULL), Call-ID, CSeq: what RFC 3261
 * 8.2.6 asks every response to echo. Header names stay as the request has them (compact ones compact). The caller goes on with its own
 * headers and ends with sip_put_end. */
void sip_put_response(struct sip_buf *b, const struct sip_msg *req, unsigned status, const char *reason, struct span to_tag,
		      const struct wn_addr *src);

/** Content-Type (when type.p != NULL), Content-Length, blank line, body. */
void sip_put_end(struct sip_buf *b, struct span type, struct span body);
