/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/msg.h"

#include "sip/chars.h"
#include "sip/known.h"
#include "sip/scan.h"

#define IS(lit, id)                                             \
	do {                                                    \
		if (sip_is_lower(name.p, lit, sizeof(lit) - 1)) \
			return id;                              \
	} while (0)

static enum sip_hdr_id compact_id(char c)
{
	switch (c | 0x20) {
	case 'v':
		return SIP_HDR_VIA;
	case 'f':
		return SIP_HDR_FROM;
	case 't':
		return SIP_HDR_TO;
	case 'i':
		return SIP_HDR_CALL_ID;
	case 'm':
		return SIP_HDR_CONTACT;
	case 'l':
		return SIP_HDR_CONTENT_LENGTH;
	case 'c':
		return SIP_HDR_CONTENT_TYPE;
	case 'k':
		return SIP_HDR_SUPPORTED;
	case 'x':
		return SIP_HDR_SESSION_EXPIRES;
	default:
		return SIP_HDR_OTHER;
	}
}

static enum sip_hdr_id header_id(struct span name)
{
	switch (name.n) {
	case 1:
		return compact_id(name.p[0]);
	case 2:
		IS("to", SIP_HDR_TO);
		break;
	case 3:
		IS("via", SIP_HDR_VIA);
		break;
	case 4:
		IS("from", SIP_HDR_FROM);
		IS("cseq", SIP_HDR_CSEQ);
		IS("date", SIP_HDR_DATE);
		break;
	case 5:
		IS("route", SIP_HDR_ROUTE);
		break;
	case 7:
		IS("call-id", SIP_HDR_CALL_ID);
		IS("contact", SIP_HDR_CONTACT);
		IS("expires", SIP_HDR_EXPIRES);
		IS("require", SIP_HDR_REQUIRE);
		break;
	case 9:
		IS("supported", SIP_HDR_SUPPORTED);
		break;
	case 11:
		IS("retry-after", SIP_HDR_RETRY_AFTER);
		break;
	case 12:
		IS("max-forwards", SIP_HDR_MAX_FORWARDS);
		IS("content-type", SIP_HDR_CONTENT_TYPE);
		IS("record-route", SIP_HDR_RECORD_ROUTE);
		break;
	case 13:
		IS("authorization", SIP_HDR_AUTHORIZATION);
		IS("proxy-require", SIP_HDR_PROXY_REQUIRE);
		break;
	case 14:
		IS("content-length", SIP_HDR_CONTENT_LENGTH);
		break;
	case 15:
		IS("session-expires", SIP_HDR_SESSION_EXPIRES);
		break;
	case 16:
		IS("www-authenticate", SIP_HDR_WWW_AUTHENTICATE);
		break;
	case 18:
		IS("proxy-authenticate", SIP_HDR_PROXY_AUTHENTICATE);
		break;
	case 19:
		IS("proxy-authorization", SIP_HDR_PROXY_AUTHORIZATION);
		IS("p-asserted-identity", SIP_HDR_P_ASSERTED_IDENTITY);
		break;
	case 25:
		IS("proxy-authentication-info", SIP_HDR_PROXY_AUTHENTICATION_INFO);
		break;
	default:
		break;
	}
	if (name.n >= 9)
		IS("x-walnut-", SIP_HDR_X_WALNUT);
	return SIP_HDR_OTHER;
}

/* Headers that hold one value and may stand once. With two of them two parsers could each believe another one. */
static bool once(enum sip_hdr_id id)
{
	const uint32_t ids = 1u << SIP_HDR_FROM | 1u << SIP_HDR_TO | 1u << SIP_HDR_CALL_ID | 1u << SIP_HDR_CSEQ |
			     1u << SIP_HDR_MAX_FORWARDS | 1u << SIP_HDR_CONTENT_LENGTH | 1u << SIP_HDR_CONTENT_TYPE |
			     1u << SIP_HDR_EXPIRES | 1u << SIP_HDR_SESSION_EXPIRES;

	_Static_assert(SIP_HDRS <= 32, "the set is a 32-bit mask");
	return (ids >> id & 1) != 0;
}

static const struct {
	struct span name;
	enum sip_method method;
} methods[] = {
	{{"INVITE", 6}, SIP_INVITE},     {{"ACK", 3}, SIP_ACK},         {{"BYE", 3}, SIP_BYE},         {{"CANCEL", 6}, SIP_CANCEL},
	{{"REGISTER", 8}, SIP_REGISTER}, {{"OPTIONS", 7}, SIP_OPTIONS}, {{"PUBLISH", 7}, SIP_PUBLISH}, {{"UPDATE", 6}, SIP_UPDATE},
	{{"MESSAGE", 7}, SIP_MESSAGE},   {{"INFO", 4}, SIP_INFO},       {{"PRACK", 5}, SIP_PRACK},     {{"SUBSCRIBE", 9}, SIP_SUBSCRIBE},
	{{"NOTIFY", 6}, SIP_NOTIFY},     {{"REFER", 5}, SIP_REFER},
};

enum sip_method sip_method_of(struct span name)
{
	/* Calls are made of these three. */
	if (name.n == 6 && memcmp(name.p, "INVITE", 6) == 0)
		return SIP_INVITE;
	if (name.n == 3 && memcmp(name.p, "ACK", 3) == 0)
		return SIP_ACK;
	if (name.n == 3 && memcmp(name.p, "BYE", 3) == 0)
		return SIP_BYE;
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (span_eq(name, methods[i].name))
			return methods[i].method;
	}
	return SIP_METHOD_OTHER;
}

/* The input ended within the message. */
static enum sip_verdict truncated(const char *start, const char *end, bool stream, enum sip_verdict datagram)
{
	if (!stream)
		return datagram;
	return end - start >= SIP_MESSAGE_MAX ? SIP_TOO_LARGE : SIP_INCOMPLETE;
}

static enum sip_verdict request_line(struct sip_msg *m, const char *p, const char *eol)
{
	const char *space;
	struct sip_uri uri;
	struct span version;

	if (eol - p >= 8 && memcmp(eol - 8, " SIP/2.0", 8) == 0) {
		space = eol - 8;
	} else {
		space = memrchr(p, ' ', (size_t)(eol - p));
		if (space == NULL)
			return SIP_BAD_START_LINE;
		version = span_of(space + 1, (size_t)(eol - space - 1));
		if (version.n < 4 || !span_caseeq(span_of(version.p, 4), SPAN_LIT("SIP/")))
			return SIP_BAD_START_LINE;
		if (!span_eq(span_of(version.p + 4, version.n - 4), SPAN_LIT("2.0")))
			return SIP_BAD_VERSION;
	}
	m->uri = span_of(p, (size_t)(space - p));
	if (m->uri.n == 0)
		return SIP_BAD_START_LINE;
	/* RFC 3261 19.1.1: no headers in a Request-URI. */
	if (sip_parse_uri(m->uri, &uri) != 0 || uri.headers.p != NULL)
		return memchr(p, ' ', m->uri.n) != NULL ? SIP_BAD_START_LINE : SIP_BAD_URI;
	m->method = sip_method_of(m->method_text);
	return SIP_OK;
}

/* `p` stands after "SIP". */
static enum sip_verdict status_line(struct sip_msg *m, const char *p, const char *eol)
{
	if (eol - p < 5 || memcmp(p, "/2.0 ", 5) != 0)
		return eol - p >= 4 && memcmp(p, "/2.0", 4) == 0 ? SIP_BAD_START_LINE : SIP_BAD_VERSION;
	p += 5;
	if (eol - p < 4 || p[3] != ' ')
		return SIP_BAD_START_LINE;
	m->status = 0;
	for (int i = 0; i < 3; i++) {
		if (p[i] < '0' || p[i] > '9')
			return SIP_BAD_START_LINE;
		m->status = m->status * 10 + (unsigned)(p[i] - '0');
	}
	if (m->status < 100 || m->status > 699)
		return SIP_BAD_START_LINE;
	m->reason = span_of(p + 4, (size_t)(eol - p - 4));
	return SIP_OK;
}

SIP_INLINE enum sip_verdict start_line(struct sip_msg *m, const char **at, const char *end, bool stream, bool vector)
{
	const char *p = *at, *q = p, *eol;

	while (q < end && sip_is(*q, C_TOKEN))
		q++;
	if (q == end)
		return truncated(p, end, stream, SIP_NOT_SIP);
	m->request = !(q - p == 3 && *q == '/' && sip_is_lower(p, "sip", 3));
	if (q == p || (m->request && *q != ' '))
		return SIP_NOT_SIP;
	eol = sip_find_control(q, end, p, vector);
	if (eol == end || (*eol == '\r' && eol + 1 == end))
		return truncated(p, end, stream, SIP_BAD_START_LINE);
	if (eol[0] != '\r' || eol[1] != '\n')
		return SIP_BAD_START_LINE;
	*at = eol + 2;
	if (!m->request)
		return status_line(m, q, eol);
	m->method_text = span_of(p, (size_t)(q - p));
	return request_line(m, q + 1, eol);
}

/* A control character may stand in a quoted string behind a backslash. `at` and `in` carry the walk through one value on, so that many
 * of them cost no more than the value's length. */
struct quotes {
	const char *at;
	bool in;
};

static bool escaped(struct quotes *s, const char *q)
{
	while (s->at < q) {
		if (s->in && *s->at == '\\') {
			s->at += 2;
			if (s->at > q)
				return true;
			continue;
		}
		if (*s->at == '"')
			s->in = !s->in;
		s->at++;
	}
	return false;
}

/* `q` stands on the first control character of a header whose value begins at `value`. Returns the CR that ends the header, or NULL and
 * what is wrong. */
static __attribute__((noinline)) const char *folded(const char *start, const char *value, const char *q, const char *end, bool stream,
						    bool vector, enum sip_verdict *why)
{
	struct quotes quotes = {.at = value};

	*why = SIP_BAD_HEADER;
	for (;; q = sip_find_control(q, end, value, vector)) {
		if (q == end) {
			*why = truncated(start, end, stream, SIP_BAD_HEADER);
			return NULL;
		}
		if (*q == '\r') {
			if (end - q < 3) {
				if (end - q != 2 || q[1] == '\n')
					*why = truncated(start, end, stream, SIP_BAD_HEADER);
				return NULL;
			}
			if (q[1] != '\n')
				return NULL;
			if (q[2] != ' ' && q[2] != '\t')
				return q;
			q += 3;
			continue;
		}
		if (*q == '\n' || !escaped(&quotes, q))
			return NULL;
		q++;
	}
}

/* The first control character from p on, or end; *colon is the first ':' before it, or NULL. */
SIP_INLINE const char *name_and_line(const char *p, const char *end, const char **colon, bool vector)
{
	const char *q;

#ifdef __SSE2__
	if (vector && end - p >= 16) {
		__m128i v = sip_load16(p);
		unsigned control = sip_mask_control(v), colons = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8(':')));

		/* Only those below the lowest control character; of none this is all. */
		colons &= (control & -control) - 1;
		q = control != 0 ? p + __builtin_ctz(control) : sip_find_control(p + 16, end, p, vector);
		if (colons != 0)
			*colon = p + __builtin_ctz(colons);
		else
			*colon = control != 0 ? NULL : memchr(p + 16, ':', (size_t)(q - p - 16));
		return q;
	}
#endif
	q = sip_find_control(p, end, p, vector);
	*colon = memchr(p, ':', (size_t)(q - p));
	return q;
}

/* One header at *at. SIP_OK and *at behind it, or what is wrong. */
SIP_INLINE enum sip_verdict header(struct sip_msg *m, const char *start, const char **at, const char *end, bool stream, bool vector)
{
	const char *p = *at, *q, *colon, *name_end;
	enum sip_hdr_id id;
	struct sip_hdr *h;

	q = name_and_line(p, end, &colon, vector);
	if (q == end)
		return truncated(start, end, stream, SIP_BAD_HEADER);
	/* The name and its colon stand on the first line. */
	if (colon == NULL)
		return SIP_BAD_HEADER;
	if (end - q < 3 || memcmp(q, "\r\n", 2) != 0 || q[2] == ' ' || q[2] == '\t') {
		enum sip_verdict why;

		q = folded(start, colon + 1, q, end, stream, vector, &why);
		if (q == NULL)
			return why;
		m->folds = true;
	}
	*at = q + 2;

	/* What stands before the name and behind the value can be read: the line before, and the CR. */
	name_end = colon;
	while ((unsigned char)name_end[-1] <= ' ' && name_end > p && (name_end[-1] == ' ' || name_end[-1] == '\t'))
		name_end--;
	if (m->nhdr == SIP_HEADERS_MAX)
		return SIP_TOO_MANY_HEADERS;
	h = &m->hdr[m->nhdr];
	h->name = span_of(p, (size_t)(name_end - p));
	id = header_id(h->name);
	if ((id == SIP_HDR_OTHER || id == SIP_HDR_X_WALNUT) && !sip_all(p, name_end, C_TOKEN))
		return SIP_BAD_HEADER;
	h->id = id;
	p = colon + 1;
	if (*p == ' ')
		p++;
	if ((unsigned char)*p <= ' ')
		p = sip_skip_lws(p, q);
	if ((unsigned char)q[-1] <= ' ')
		q = sip_trim_lws(p, q);
	h->value = span_of(p, (size_t)(q - p));
	m->nhdr++;
	if (m->first[id] == 0)
		m->first[id] = (uint8_t)m->nhdr;
	else if (once(id))
		return SIP_DUPLICATE_HEADER;
	return SIP_OK;
}

SIP_INLINE enum sip_verdict parse(struct span in, bool stream, struct sip_msg *m, bool vector)
{
	const char *start = in.p, *end, *p;
	enum sip_verdict verdict;
	size_t head, body;

	memset(m->first, 0, sizeof(m->first));
	m->nhdr = 0;
	m->folds = false;
	m->consumed = 0;
	if (in.n == 0)
		return stream ? SIP_INCOMPLETE : SIP_NOT_SIP;
	end = start + in.n;
	if (!stream && in.n > SIP_MESSAGE_MAX)
		return SIP_TOO_LARGE;
	while (start < end && (*start == '\r' || *start == '\n'))
		start++;
	if (start == end) {
		m->consumed = in.n;
		return SIP_KEEPALIVE;
	}

	m->method = SIP_METHOD_OTHER;
	m->uri = m->reason = (struct span){0};
	m->status = 0;
	p = start;
	verdict = start_line(m, &p, end, stream, vector);
	if (verdict != SIP_OK)
		return verdict;
	for (;;) {
		if (p == end || (*p == '\r' && p + 1 == end))
			return truncated(start, end, stream, SIP_BAD_HEADER);
		if (*p == '\r') {
			if (p[1] != '\n')
				return SIP_BAD_HEADER;
			p += 2;
			break;
		}
		verdict = header(m, start, &p, end, stream, vector);
		if (verdict != SIP_OK)
			return verdict;
	}
	verdict = sip_known_headers(m, vector);
	if (verdict != SIP_OK)
		return verdict;

	head = (size_t)(p - start);
	body = (size_t)(end - p);
	if (m->first[SIP_HDR_CONTENT_LENGTH] != 0) {
		struct span v = m->hdr[m->first[SIP_HDR_CONTENT_LENGTH] - 1].value;
		uint32_t length = 0;

		if (sip_take_number(v.p, v.p + v.n, SIP_MESSAGE_MAX, &length) != v.p + v.n)
			return SIP_BAD_CONTENT_LENGTH;
		if (stream && head + length > SIP_MESSAGE_MAX)
			return SIP_TOO_LARGE;
		if (length > body)
			return stream ? SIP_INCOMPLETE : SIP_BAD_CONTENT_LENGTH;
		body = length;
	} else if (stream) {
		return SIP_BAD_CONTENT_LENGTH;
	}
	m->body = span_of(p, body);
	m->raw = span_of(start, head + body);
	m->consumed = (size_t)(start - in.p) + head + body;
	return SIP_OK;
}

enum sip_verdict sip_parse(struct span in, bool stream, struct sip_msg *m)
{
	return parse(in, stream, m, SIP_VECTOR);
}

enum sip_verdict sip_parse_scalar(struct span in, bool stream, struct sip_msg *m)
{
	return parse(in, stream, m, false);
}

const char *sip_verdict_name(enum sip_verdict v)
{
	static const char *const names[SIP_VERDICTS] = {
		[SIP_OK] = "ok",
		[SIP_KEEPALIVE] = "keepalive",
		[SIP_INCOMPLETE] = "incomplete",
		[SIP_NOT_SIP] = "not_sip",
		[SIP_BAD_START_LINE] = "bad_start_line",
		[SIP_BAD_VERSION] = "bad_version",
		[SIP_BAD_HEADER] = "bad_header",
		[SIP_TOO_MANY_HEADERS] = "too_many_headers",
		[SIP_MISSING_HEADER] = "missing_header",
		[SIP_DUPLICATE_HEADER] = "duplicate_header",
		[SIP_BAD_VIA] = "bad_via",
		[SIP_BAD_CSEQ] = "bad_cseq",
		[SIP_BAD_FROM_TO] = "bad_from_to",
		[SIP_BAD_CALL_ID] = "bad_call_id",
		[SIP_BAD_MAX_FORWARDS] = "bad_max_forwards",
		[SIP_BAD_CONTENT_LENGTH] = "bad_content_length",
		[SIP_BAD_URI] = "bad_uri",
		[SIP_BAD_CONTACT] = "bad_contact",
		[SIP_BAD_DATE] = "bad_date",
		[SIP_TOO_LARGE] = "too_large",
	};

	return (unsigned)v < SIP_VERDICTS ? names[v] : "unknown";
}

unsigned sip_verdict_status(enum sip_verdict v)
{
	switch (v) {
	case SIP_OK:
	case SIP_KEEPALIVE:
	case SIP_INCOMPLETE:
	case SIP_NOT_SIP:
		return 0;
	case SIP_BAD_VERSION:
		return 505;
	case SIP_TOO_LARGE:
		return 513;
	default:
		return 400;
	}
}

const char *sip_method_name(enum sip_method m)
{
	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (methods[i].method == m)
			return methods[i].name.p;
	}
	return "OTHER";
}

const struct sip_hdr *sip_hdr_first(const struct sip_msg *m, enum sip_hdr_id id)
{
	return m->first[id] != 0 ? &m->hdr[m->first[id] - 1] : NULL;
}

const struct sip_hdr *sip_hdr_next(const struct sip_msg *m, const struct sip_hdr *prev)
{
	for (const struct sip_hdr *h = prev + 1; h < m->hdr + m->nhdr; h++) {
		if (h->id == prev->id)
			return h;
	}
	return NULL;
}

const struct sip_hdr *sip_hdr_by_name(const struct sip_msg *m, struct span name)
{
	for (unsigned i = 0; i < m->nhdr; i++) {
		if (span_caseeq(m->hdr[i].name, name))
			return &m->hdr[i];
	}
	return NULL;
}
