/* SPDX-License-Identifier: Apache-2.0 */
/** \file The grammar inside header values: lists, parameters, URIs, name-addr, Via. */
#include <errno.h>

#include "sip/chars.h"
#include "sip/msg.h"
#include "sip/scan.h"

#define C_TOKENS (C_TOKEN | C_VALUE | C_NAME)
#define C_WORDS  (C_WORD | C_VALUE)
#define C_URI    (C_USER | C_PASS | C_PARAM | C_HEADER) /* "unreserved", apart from letters and digits */
#define C_ALNUM  (C_TOKENS | C_WORD | C_URI | C_HOST)

const uint16_t sip_class[256] = {
	['0' ... '9'] = C_ALNUM | C_HEX,
	['A' ... 'F'] = C_ALNUM | C_HEX,
	['G' ... 'Z'] = C_ALNUM,
	['a' ... 'f'] = C_ALNUM | C_HEX,
	['g' ... 'z'] = C_ALNUM,
	['-'] = C_ALNUM,
	['.'] = C_ALNUM,
	['_'] = C_ALNUM,
	['!'] = C_TOKENS | C_WORD | C_URI,
	['~'] = C_TOKENS | C_WORD | C_URI,
	['*'] = C_TOKENS | C_WORD | C_URI,
	['\''] = C_TOKENS | C_WORD | C_URI,
	['%'] = C_TOKENS | C_WORD | C_URI, /* in a URI two hex digits must follow */
	['+'] = C_TOKENS | C_WORD | C_URI,
	['`'] = C_TOKENS | C_WORD,
	['('] = C_WORDS | C_URI,
	[')'] = C_WORDS | C_URI,
	['<'] = C_WORD,
	['>'] = C_WORD,
	['\\'] = C_WORDS,
	['"'] = C_WORD,
	['{'] = C_WORDS,
	['}'] = C_WORDS,
	['@'] = C_WORDS,
	[':'] = C_WORDS | C_PARAM | C_HEADER,
	['['] = C_WORDS | C_PARAM | C_HEADER,
	[']'] = C_WORDS | C_PARAM | C_HEADER,
	['/'] = C_WORDS | C_USER | C_PARAM | C_HEADER,
	['?'] = C_WORDS | C_USER | C_HEADER,
	['&'] = C_USER | C_PASS | C_PARAM | C_HEADER | C_VALUE,
	['='] = C_USER | C_PASS | C_PARAM | C_HEADER,
	['$'] = C_USER | C_PASS | C_PARAM | C_HEADER | C_VALUE,
	[','] = C_USER | C_PASS,
	[';'] = C_USER | C_PARAM,
	['#'] = C_VALUE,
	['^'] = C_VALUE,
	['|'] = C_VALUE,
	[' '] = C_NAME,
	['\t'] = C_NAME,
	['\r'] = C_NAME,
	['\n'] = C_NAME,
	[0x80 ... 0xff] = C_VALUE | C_NAME,
};

/* All of the class, every '%' followed by two hex digits, at least one character. */
static bool uri_part(struct span s, unsigned class)
{
	const char *p = s.p, *end = s.p + s.n;

	if (s.n == 0)
		return false;
	for (; p < end; p++) {
		if (!sip_is(*p, class))
			return false;
		if (*p == '%') {
			if (end - p < 3 || !sip_is(p[1], C_HEX) || !sip_is(p[2], C_HEX))
				return false;
			p += 2;
		}
	}
	return true;
}

/* Digits at p. Returns where they end, or NULL when they are no port. */
SIP_INLINE const char *take_port(const char *p, const char *end, uint16_t *out)
{
	const char *start = p;
	uint32_t v = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		v = v * 10 + (uint32_t)(*p - '0');
		if (v > 65535)
			return NULL;
	}
	if (p == start || v == 0)
		return NULL;
	*out = (uint16_t)v;
	return p;
}

/* host: a name, an IPv4 address or an IPv6 reference. Returns where it ends, or NULL; *host is without brackets. */
SIP_INLINE const char *take_host(const char *p, const char *end, const char *base, struct span *host)
{
	const char *start = p;
	struct wn_addr a;

	if (p < end && *p == '[') {
		p = memchr(p, ']', (size_t)(end - p));
		if (p == NULL)
			return NULL;
		p++;
		*host = span_of(start + 1, (size_t)(p - start) - 2);
		return wn_ip_parse(span_of(start, (size_t)(p - start)), &a) == 0 ? p : NULL;
	}
	p = sip_find_word_end(p, end, base, SIP_VECTOR);
	*host = span_of(start, (size_t)(p - start));
	return p > start ? p : NULL;
}

static bool is_alpha(char c)
{
	return (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
}

/* scheme ":" something. Returns the colon or NULL. */
SIP_INLINE const char *scheme_colon(const char *p, const char *end)
{
	if (end - p >= 5 && sip_is_lower(p, "sip", 3) && p[3] == ':')
		return p + 3;
	if (p == end || !is_alpha(*p))
		return NULL;
	while (p < end && (is_alpha(*p) || (*p >= '0' && *p <= '9') || *p == '+' || *p == '-' || *p == '.'))
		p++;
	return p == end || *p != ':' || p + 1 == end ? NULL : p;
}

const char *sip_skip_quoted(const char *p, const char *end, bool vector)
{
	const char *start = p;

	for (p++;; p += 2) {
		p = sip_find_quote(p, end, start, vector);
		if (p == end)
			return NULL;
		if (*p == '"')
			return p + 1;
		if (p + 1 == end)
			return NULL;
	}
}

const char *sip_take_param(const char *p, const char *end, struct sip_param_view *out, bool vector)
{
	const char *start;
	unsigned classes;

	start = p = sip_skip_lws(p, end);
	while (p < end && sip_is(*p, C_TOKEN))
		p++;
	if (p == start)
		return NULL;
	out->name = span_of(start, (size_t)(p - start));
	out->value = (struct span){0};
	out->classes = 0;
	p = sip_skip_lws(p, end);
	if (p == end || *p != '=')
		return p;
	start = p = sip_skip_lws(p + 1, end);
	if (p < end && *p == '"') {
		p = sip_skip_quoted(p, end, vector);
		if (p == NULL)
			return NULL;
	} else {
		p = sip_find_word_end(p, end, out->name.p, vector);
		for (classes = C_VALUE | C_TOKEN; p < end && sip_is(*p, C_VALUE); p++)
			classes &= sip_class[(unsigned char)*p];
		if (p == start)
			return NULL;
		out->classes = classes;
	}
	out->value = span_of(start, (size_t)(p - start));
	return sip_skip_lws(p, end);
}

bool sip_param(struct span params, struct span name, struct span *value)
{
	const char *p = params.p, *end;

	*value = (struct span){0};
	if (params.n == 0)
		return false;
	end = params.p + params.n;
	while (p < end) {
		struct sip_param_view v;
		const char *next = sip_take_param(p, end, &v, SIP_VECTOR);

		if (next == NULL) {
			/* One that is not understood hides the others no more than it must: on behind the next ';'. */
			next = memchr(p, ';', (size_t)(end - p));
			if (next == NULL)
				return false;
		} else if (span_caseeq(v.name, name)) {
			if (v.value.n >= 2 && v.value.p[0] == '"')
				v.value = span_of(v.value.p + 1, v.value.n - 2);
			*value = v.value;
			return true;
		}
		if (next < end && *next != ';')
			return false;
		p = next + 1;
	}
	return false;
}

bool sip_list_next(struct span *rest, struct span *item)
{
	const char *p = rest->p, *end, *start;

	if (rest->n == 0)
		return false;
	end = rest->p + rest->n;
	while (p < end && (sip_is_lws(*p) || *p == ','))
		p++;
	start = p;
	while (p < end && *p != ',') {
		const char *next = p + 1;

		if (*p == '"')
			next = sip_skip_quoted(p, end, SIP_VECTOR);
		else if (*p == '<')
			next = memchr(p, '>', (size_t)(end - p));
		p = next != NULL ? next : end;
	}
	*item = span_of(start, (size_t)(sip_trim_lws(start, p) - start));
	*rest = span_of(p, (size_t)(end - p));
	return item->n != 0;
}

int sip_parse_uri(struct span s, struct sip_uri *out)
{
	const char *p, *end, *at, *colon;

	*out = (struct sip_uri){0};
	if (s.n == 0)
		return -EINVAL;
	end = s.p + s.n;
	colon = scheme_colon(s.p, end);
	if (colon == NULL)
		return -EINVAL;
	out->scheme = span_of(s.p, (size_t)(colon - s.p));
	p = colon + 1;
	if (out->scheme.n < 3 || out->scheme.n > 4 || !sip_is_lower(s.p, "sip", 3) || (out->scheme.n == 4 && (s.p[3] | 0x20) != 's')) {
		const char *semi = memchr(p, ';', (size_t)(end - p));

		/* Of the others below each part is held against its own characters. */
		if (sip_find_uri_stop(p, end, s.p, SIP_VECTOR) != end)
			return -EINVAL;
		out->user = span_of(p, (size_t)((semi != NULL ? semi : end) - p));
		if (semi != NULL)
			out->params = span_of(semi + 1, (size_t)(end - semi - 1));
		return 0;
	}

	at = memchr(p, '@', (size_t)(end - p));
	if (at != NULL) {
		const char *sep = memchr(p, ':', (size_t)(at - p));

		out->user = span_of(p, (size_t)((sep != NULL ? sep : at) - p));
		if (!uri_part(out->user, C_USER))
			return -EINVAL;
		if (sep != NULL) {
			out->password = span_of(sep + 1, (size_t)(at - sep - 1));
			if (out->password.n != 0 && !uri_part(out->password, C_PASS))
				return -EINVAL;
		}
		p = at + 1;
	}

	p = take_host(p, end, s.p, &out->host);
	if (p == NULL)
		return -EINVAL;
	if (p < end && *p == ':') {
		p = take_port(p + 1, end, &out->port);
		if (p == NULL)
			return -EINVAL;
	}
	if (p < end && *p == ';') {
		const char *mark = memchr(p, '?', (size_t)(end - p));
		const char *stop = mark != NULL ? mark : end;

		out->params = span_of(p + 1, (size_t)(stop - p - 1));
		if (!uri_part(out->params, C_PARAM))
			return -EINVAL;
		p = stop;
	}
	if (p < end && *p == '?') {
		out->headers = span_of(p + 1, (size_t)(end - p - 1));
		if (!uri_part(out->headers, C_HEADER))
			return -EINVAL;
		p = end;
	}
	if (p != end)
		return -EINVAL;
	return 0;
}

/* The parameters from the first ';' on, all of them well-formed. A tag, where asked for, is a token and stands once. */
static int nameaddr_params(const char *p, const char *end, struct span *tag, bool vector)
{
	while (p < end) {
		struct sip_param_view v;

		if (*p != ';')
			return -EINVAL;
		p = sip_take_param(p + 1, end, &v, vector);
		if (p == NULL)
			return -EINVAL;
		if (tag == NULL || v.name.n != 3 || !sip_is_lower(v.name.p, "tag", 3))
			continue;
		if (tag->p != NULL || !(v.classes & C_TOKEN))
			return -EINVAL;
		*tag = v.value;
	}
	return 0;
}

int sip_take_nameaddr(struct span value, struct sip_nameaddr *out, struct span *tag, bool vector)
{
	const char *p, *end, *start, *name_end;

	*out = (struct sip_nameaddr){0};
	if (value.n == 0)
		return -EINVAL;
	end = sip_trim_lws(value.p, value.p + value.n);
	p = start = sip_skip_lws(value.p, end);
	if (p < end && *p == '"') {
		p = sip_skip_quoted(p, end, vector);
		if (p == NULL)
			return -EINVAL;
	} else {
		/* Ends at '<', or shows that there was none. */
		while (p < end && sip_is(*p, C_NAME))
			p++;
	}
	name_end = sip_trim_lws(start, p);
	p = sip_skip_lws(p, end);
	if (p < end && *p == '<') {
		const char *close = sip_find_uri_stop(p + 1, end, value.p, vector);

		if (close == end || *close != '>')
			return -EINVAL;
		if (name_end > start)
			out->display = span_of(start, (size_t)(name_end - start));
		out->uri = span_of(p + 1, (size_t)(close - p - 1));
		p = close + 1;
	} else {
		/* RFC 3261 section 20: without <> a URI has no ',', '?' or ';'; what follows a ';' belongs to the header. */
		for (p = start; p < end && *p != ';' && !sip_is_lws(*p); p++) {
			if (*p == ',' || *p == '?')
				return -EINVAL;
		}
		if (sip_find_uri_stop(start, p, value.p, vector) != p)
			return -EINVAL;
		out->uri = span_of(start, (size_t)(p - start));
	}
	if (scheme_colon(out->uri.p, out->uri.p + out->uri.n) == NULL)
		return -EINVAL;

	p = sip_skip_lws(p, end);
	if (p < end) {
		if (nameaddr_params(p, end, tag, vector) != 0)
			return -EINVAL;
		out->params = span_of(p + 1, (size_t)(end - p - 1));
	}
	return 0;
}

int sip_parse_nameaddr(struct span value, struct sip_nameaddr *out)
{
	return sip_take_nameaddr(value, out, NULL, SIP_VECTOR);
}

static int via_param(struct sip_via *v, const struct sip_param_view *p)
{
	switch (p->name.n) {
	case 5:
		if (!sip_is_lower(p->name.p, "rport", 5))
			break;
		if (v->rport)
			return -EINVAL;
		v->rport = true;
		if (p->value.p != NULL) {
			const char *end = p->value.p + p->value.n;

			if (take_port(p->value.p, end, &v->rport_value) != end)
				return -EINVAL;
		}
		break;
	case 6:
		if (!sip_is_lower(p->name.p, "branch", 6))
			break;
		if (v->branch.p != NULL || !(p->classes & C_TOKEN))
			return -EINVAL;
		v->branch = p->value;
		break;
	case 8:
		if (!sip_is_lower(p->name.p, "received", 8))
			break;
		if (v->received.p != NULL || p->classes == 0)
			return -EINVAL;
		v->received = p->value;
		break;
	default:
		break;
	}
	return 0;
}

/* Returns what follows the second slash, or NULL. */
static const char *odd_protocol(const char *p, const char *end)
{
	if (end - p < 3 || !span_caseeq(span_of(p, 3), SPAN_LIT("SIP")))
		return NULL;
	p = sip_skip_lws(p + 3, end);
	if (p == end || *p++ != '/')
		return NULL;
	p = sip_skip_lws(p, end);
	if (end - p < 3 || memcmp(p, "2.0", 3) != 0)
		return NULL;
	p = sip_skip_lws(p + 3, end);
	return p < end && *p == '/' ? p + 1 : NULL;
}

int sip_parse_via(struct span value, struct sip_via *out)
{
	const char *p = value.p, *end, *start, *text;

	*out = (struct sip_via){0};
	if (value.n == 0)
		return -EINVAL;
	end = value.p + value.n;
	p = text = sip_skip_lws(p, end);

	/* "SIP" / "2.0" / transport, blanks allowed around the slashes; without them in nearly all cases. */
	if (end - p >= 8 && memcmp(p, "SIP/2.0/", 8) == 0) {
		p += 8;
	} else {
		p = odd_protocol(p, end);
		if (p == NULL)
			return -EINVAL;
	}
	p = start = sip_skip_lws(p, end);
	while (p < end && sip_is(*p, C_TOKEN))
		p++;
	out->transport = span_of(start, (size_t)(p - start));
	if (p == start || p == end || !sip_is_lws(*p))
		return -EINVAL;

	p = start = sip_skip_lws(p, end);
	p = take_host(p, end, value.p, &out->host);
	if (p == NULL)
		return -EINVAL;
	out->sent_by = span_of(start, (size_t)(p - start));
	p = sip_skip_lws(p, end);
	if (p < end && *p == ':') {
		p = take_port(sip_skip_lws(p + 1, end), end, &out->port);
		if (p == NULL)
			return -EINVAL;
		out->sent_by.n = (size_t)(p - start);
		p = sip_skip_lws(p, end);
	}

	while (p < end && *p == ';') {
		struct sip_param_view one;

		p = sip_take_param(p + 1, end, &one, SIP_VECTOR);
		if (p == NULL || via_param(out, &one) != 0)
			return -EINVAL;
	}
	if (p < end && *p != ',')
		return -EINVAL;
	out->text = span_of(text, (size_t)(sip_trim_lws(text, p) - text));
	return 0;
}
