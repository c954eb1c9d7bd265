/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/known.h"

#include "sip/chars.h"
#include "sip/scan.h"

#define CSEQ_MAX 0x7fffffffu /* RFC 3261 8.1.1.5: less than 2**31 */

/* "314159 INVITE" */
static bool parse_cseq(struct sip_msg *m, struct span v)
{
	const char *end = v.p + v.n, *p = sip_take_number(v.p, end, CSEQ_MAX, &m->cseq);
	struct span method;

	if (p == NULL || p == end || !sip_is_lws(*p))
		return false;
	p = sip_skip_lws(p, end);
	method = span_of(p, (size_t)(end - p));
	if (m->request)
		return span_eq(method, m->method_text);
	if (!sip_all(p, end, C_TOKEN))
		return false;
	m->method_text = method;
	m->method = sip_method_of(method);
	return true;
}

static bool parse_party(struct span value, struct span *tag, bool vector)
{
	struct sip_nameaddr n;

	*tag = (struct span){0};
	return sip_take_nameaddr(value, &n, tag, vector) == 0;
}

/* word [ "@" word ], of which '@' is no character. */
static bool parse_call_id(struct span v, bool vector)
{
	const char *p = v.p, *end = v.p + v.n, *at = NULL;

	if (v.n == 0)
		return false;
	for (; (p = sip_find_word_end(p, end, v.p, vector)) < end; p++) {
		if (!sip_is(*p, C_WORD))
			return false;
		if (*p != '@')
			continue;
		if (at != NULL || p == v.p || p + 1 == end)
			return false;
		at = p;
	}
	return true;
}

/* A list of name-addr and addr-spec. Where one URI stands alone, within <> or without what RFC 3261 20.10 wants within them, nothing is in
 * doubt but the URI itself, which is its reader's business. */
static bool contact_ok(struct span value, bool vector)
{
	const char *end = value.p + value.n, *p = sip_find_list(value.p, end, value.p, vector);
	struct sip_nameaddr n;
	struct span item;
	bool any = false;

	if (p == end || (p == value.p && *p == '<' && memchr(p, ',', value.n) == NULL))
		return value.n != 0;
	while (sip_list_next(&value, &item)) {
		if (sip_take_nameaddr(item, &n, NULL, vector) != 0)
			return false;
		any = true;
	}
	return any;
}

static bool date_ok(struct span value)
{
	return value.n > 3 && span_caseeq(span_of(value.p + value.n - 3, 3), SPAN_LIT("GMT"));
}

static const struct sip_hdr *first(const struct sip_msg *m, enum sip_hdr_id id)
{
	return &m->hdr[m->first[id] - 1];
}

enum sip_verdict sip_known_headers(struct sip_msg *m, bool vector)
{
	if (m->first[SIP_HDR_VIA] == 0 || m->first[SIP_HDR_FROM] == 0 || m->first[SIP_HDR_TO] == 0 || m->first[SIP_HDR_CALL_ID] == 0 ||
	    m->first[SIP_HDR_CSEQ] == 0)
		return SIP_MISSING_HEADER;
	if (sip_parse_via(first(m, SIP_HDR_VIA)->value, &m->via) != 0)
		return SIP_BAD_VIA;
	if (!parse_cseq(m, first(m, SIP_HDR_CSEQ)->value))
		return SIP_BAD_CSEQ;
	m->from = first(m, SIP_HDR_FROM)->value;
	m->to = first(m, SIP_HDR_TO)->value;
	if (!parse_party(m->from, &m->from_tag, vector) || !parse_party(m->to, &m->to_tag, vector))
		return SIP_BAD_FROM_TO;
	m->call_id = first(m, SIP_HDR_CALL_ID)->value;
	if (!parse_call_id(m->call_id, vector))
		return SIP_BAD_CALL_ID;
	m->max_forwards = -1;
	if (m->first[SIP_HDR_MAX_FORWARDS] != 0) {
		struct span v = first(m, SIP_HDR_MAX_FORWARDS)->value;
		uint32_t n = 0;

		if (sip_take_number(v.p, v.p + v.n, 255, &n) != v.p + v.n)
			return SIP_BAD_MAX_FORWARDS;
		m->max_forwards = (int)n;
	}
	/* A response is not refused for what its reader can do without. */
	if (!m->request)
		return SIP_OK;
	for (const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_CONTACT); h != NULL; h = sip_hdr_next(m, h)) {
		if (!contact_ok(h->value, vector))
			return SIP_BAD_CONTACT;
	}
	if (m->first[SIP_HDR_DATE] != 0 && !date_ok(first(m, SIP_HDR_DATE)->value))
		return SIP_BAD_DATE;
	return SIP_OK;
}
