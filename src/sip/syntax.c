/* SPDX-License-Identifier: Apache-2.0 */
/** \file The grammar inside header values: lists, parameters, URIs, name-addr, Via. */
#include <errno.h>

#include "sip/chars.h"
#include "sip/msg.h"

#define C_ALNUM (C_TOKEN | C_WORD | C_USER | C_PASS | C_PARAM | C_HEADER | C_HOST)
#define C_URI   (C_USER | C_PASS | C_PARAM | C_HEADER) /* "unreserved", apart from letters and digits */

const uint8_t sip_class[256] = {
	['0' ... '9'] = C_ALNUM | C_HEX,
	['A' ... 'F'] = C_ALNUM | C_HEX,
	['G' ... 'Z'] = C_ALNUM,
	['a' ... 'f'] = C_ALNUM | C_HEX,
	['g' ... 'z'] = C_ALNUM,
	['-'] = C_TOKEN | C_WORD | C_URI | C_HOST,
	['.'] = C_TOKEN | C_WORD | C_URI | C_HOST,
	['_'] = C_TOKEN | C_WORD | C_URI | C_HOST,
	['!'] = C_TOKEN | C_WORD | C_URI,
	['~'] = C_TOKEN | C_WORD | C_URI,
	['*'] = C_TOKEN | C_WORD | C_URI,
	['\''] = C_TOKEN | C_WORD | C_URI,
	['%'] = C_TOKEN | C_WORD | C_URI, /* in a URI two hex digits must follow */
	['+'] = C_TOKEN | C_WORD | C_URI,
	['`'] = C_TOKEN | C_WORD,
	['('] = C_WORD | C_URI,
	[')'] = C_WORD | C_URI,
	['<'] = C_WORD,
	['>'] = C_WORD,
	['\\'] = C_WORD,
	['"'] = C_WORD,
	['{'] = C_WORD,
	['}'] = C_WORD,
	['@'] = C_WORD,
	[':'] = C_WORD | C_PARAM | C_HEADER,
	['['] = C_WORD | C_PARAM | C_HEADER,
	[']'] = C_WORD | C_PARAM | C_HEADER,
	['/'] = C_WORD | C_USER | C_PARAM | C_HEADER,
	['?'] = C_WORD | C_USER | C_HEADER,
	['&'] = C_USER | C_PASS | C_PARAM | C_HEADER,
	['='] = C_USER | C_PASS | C_PARAM | C_HEADER,
	['$'] = C_USER | C_PASS | C_PARAM | C_HEADER,
	[','] = C_USER | C_PASS,
	[';'] = C_USER | C_PARAM,
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

static int parse_port(const char *p, const char *end, uint16_t *out)
{
	unsigned long long v;

	if (span_u64(span_of(p, (size_t)(end - p)), 65535, &v) != 0 || v == 0)
		return -EINVAL;
	*out = (uint16_t)v;
	return 0;
}

/* host: a name, an IPv4 address or an IPv6 reference. Returns where it ends, or NULL; *host is without brackets. */
static const char *take_host(const char *p, const char *end, struct span *host)
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
	while (p < end && sip_is(*p, C_HOST))
		p++;
	*host = span_of(start, (size_t)(p - start));
	return p > start ? p : NULL;
}

/* scheme ":" something, without what may stand in no URI. Returns the colon or NULL. */
static const char *uri_colon(struct span s)
{
	const char *p = s.p, *end, *colon;

	if (s.n == 0 || !((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z'))
		return NULL;
	end = p + s.n;
	while (p < end && (sip_is(*p, C_HEX) || ((*p | 0x20) >= 'a' && (*p | 0x20) <= 'z') || *p == '+' || *p == '-' || *p == '.'))
		p++;
	if (p == end || *p != ':' || p + 1 == end)
		return NULL;
	colon = p;
	for (p++; p < end; p++) {
		if ((unsigned char)*p <= ' ' || *p == '<' || *p == '>' || *p == '"' || *p == 0x7f)
			return NULL;
	}
	return colon;
}

const char *sip_skip_quoted(const char *p, const char *end)
{
	for (p++; p < end; p++) {
		if (*p == '"')
			return p + 1;
		if (*p == '\\' && ++p == end)
			break;
	}
	return NULL;
}

/* What a parameter's value may hold besides quoted strings: token, host, and what URIs in the field put there. */
static bool is_value(char c)
{
	return (unsigned char)c > ' ' && c != ';' && c != ',' && c != '"' && c != '<' && c != '>' && c != '=' && c != 0x7f;
}

const char *sip_take_param(const char *p, const char *end, struct sip_param_view *out)
{
	const char *start, *after;

	p = sip_skip_lws(p, end);
	start = p;
	while (p < end && sip_is(*p, C_TOKEN))
		p++;
	if (p == start)
		return NULL;
	out->name = span_of(start, (size_t)(p - start));
	out->value = (struct span){0};
	after = sip_skip_lws(p, end);
	if (after == end || *after != '=')
		return after;
	start = sip_skip_lws(after + 1, end);
	p = start;
	if (p < end && *p == '"') {
		p = sip_skip_quoted(p, end);
		if (p == NULL)
			return NULL;
	} else {
		while (p < end && is_value(*p))
			p++;
	}
	if (p == start)
		return NULL;
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
		const char *next = sip_take_param(p, end, &v);

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
			next = sip_skip_quoted(p, end);
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
	struct sip_uri u = {0};
	const char *p, *end, *at, *colon = uri_colon(s);

	if (colon == NULL)
		return -EINVAL;
	end = s.p + s.n;
	u.scheme = span_of(s.p, (size_t)(colon - s.p));
	p = colon + 1;
	if (!span_caseeq(u.scheme, SPAN_LIT("sip")) && !span_caseeq(u.scheme, SPAN_LIT("sips"))) {
		const char *semi = memchr(p, ';', (size_t)(end - p));

		u.user = span_of(p, (size_t)((semi != NULL ? semi : end) - p));
		if (semi != NULL)
			u.params = span_of(semi + 1, (size_t)(end - semi - 1));
		*out = u;
		return 0;
	}

	at = memchr(p, '@', (size_t)(end - p));
	if (at != NULL) {
		const char *sep = memchr(p, ':', (size_t)(at - p));

		u.user = span_of(p, (size_t)((sep != NULL ? sep : at) - p));
		if (!uri_part(u.user, C_USER))
			return -EINVAL;
		if (sep != NULL) {
			u.password = span_of(sep + 1, (size_t)(at - sep - 1));
			if (u.password.n != 0 && !uri_part(u.password, C_PASS))
				return -EINVAL;
		}
		p = at + 1;
	}

	p = take_host(p, end, &u.host);
	if (p == NULL)
		return -EINVAL;
	if (p < end && *p == ':') {
		const char *port = ++p;

		while (p < end && *p >= '0' && *p <= '9')
			p++;
		if (parse_port(port, p, &u.port) != 0)
			return -EINVAL;
	}
	if (p < end && *p == ';') {
		const char *mark = memchr(p, '?', (size_t)(end - p));
		const char *stop = mark != NULL ? mark : end;

		u.params = span_of(p + 1, (size_t)(stop - p - 1));
		if (!uri_part(u.params, C_PARAM))
			return -EINVAL;
		p = stop;
	}
	if (p < end && *p == '?') {
		u.headers = span_of(p + 1, (size_t)(end - p - 1));
		if (!uri_part(u.headers, C_HEADER))
			return -EINVAL;
		p = end;
	}
	if (p != end)
		return -EINVAL;
	*out = u;
	return 0;
}

/* The parameters from the first ';' on, all of them well-formed. A tag, where asked for, is a token and stands once. */
static int nameaddr_params(const char *p, const char *end, struct span *tag)
{
	while (p < end) {
		struct sip_param_view v;

		if (*p != ';')
			return -EINVAL;
		p = sip_take_param(p + 1, end, &v);
		if (p == NULL)
			return -EINVAL;
		if (tag == NULL || v.name.n != 3 || !span_caseeq(v.name, SPAN_LIT("tag")))
			continue;
		if (tag->p != NULL || v.value.p == NULL || !sip_all(v.value.p, v.value.p + v.value.n, C_TOKEN))
			return -EINVAL;
		*tag = v.value;
	}
	return 0;
}

int sip_take_nameaddr(struct span value, struct sip_nameaddr *out, struct span *tag)
{
	struct sip_nameaddr n = {0};
	const char *p, *end, *start, *name_end;

	if (value.n == 0)
		return -EINVAL;
	end = sip_trim_lws(value.p, value.p + value.n);
	p = start = sip_skip_lws(value.p, end);
	if (p < end && *p == '"') {
		p = sip_skip_quoted(p, end);
		if (p == NULL)
			return -EINVAL;
	} else {
		/* A display name of tokens; UTF-8 in it is let pass. Ends at '<', or shows that there was none. */
		while (p < end && (sip_is(*p, C_TOKEN) || sip_is_lws(*p) || (unsigned char)*p >= 0x80))
			p++;
	}
	name_end = sip_trim_lws(start, p);
	p = sip_skip_lws(p, end);
	if (p < end && *p == '<') {
		const char *close = memchr(p, '>', (size_t)(end - p));

		if (close == NULL)
			return -EINVAL;
		if (name_end > start)
			n.display = span_of(start, (size_t)(name_end - start));
		n.uri = span_of(p + 1, (size_t)(close - p - 1));
		p = close + 1;
	} else {
		/* RFC 3261 section 20: without <> a URI has no ',', '?' or ';'; what follows a ';' belongs to the header. */
		for (p = start; p < end && *p != ';' && !sip_is_lws(*p); p++) {
			if (*p == ',' || *p == '?')
				return -EINVAL;
		}
		n.uri = span_of(start, (size_t)(p - start));
	}
	if (uri_colon(n.uri) == NULL)
		return -EINVAL;

	p = sip_skip_lws(p, end);
	if (p < end) {
		if (nameaddr_params(p, end, tag) != 0)
			return -EINVAL;
		n.params = span_of(p + 1, (size_t)(end - p - 1));
	}
	*out = n;
	return 0;
}

int sip_parse_nameaddr(struct span value, struct sip_nameaddr *out)
{
	return sip_take_nameaddr(value, out, NULL);
}

static int via_param(struct sip_via *v, const struct sip_param_view *p)
{
	unsigned long long port;

	switch (p->name.n) {
	case 5:
		if (!span_caseeq(p->name, SPAN_LIT("rport")))
			break;
		if (v->rport)
			return -EINVAL;
		v->rport = true;
		if (p->value.p != NULL) {
			if (span_u64(p->value, 65535, &port) != 0 || port == 0)
				return -EINVAL;
			v->rport_value = (uint16_t)port;
		}
		break;
	case 6:
		if (!span_caseeq(p->name, SPAN_LIT("branch")))
			break;
		if (v->branch.p != NULL || p->value.p == NULL || !sip_all(p->value.p, p->value.p + p->value.n, C_TOKEN))
			return -EINVAL;
		v->branch = p->value;
		break;
	case 8:
		if (!span_caseeq(p->name, SPAN_LIT("received")))
			break;
		if (v->received.p != NULL || p->value.p == NULL || p->value.p[0] == '"')
			return -EINVAL;
		v->received = p->value;
		break;
	default:
		break;
	}
	return 0;
}

int sip_parse_via(struct span value, struct sip_via *out)
{
	struct sip_via v = {0};
	const char *p = value.p, *end, *start, *text;

	if (value.n == 0)
		return -EINVAL;
	end = value.p + value.n;
	p = text = sip_skip_lws(p, end);

	/* "SIP" / "2.0" / transport, blanks allowed around the slashes; without them in nearly all cases. */
	if (end - p < 3 || !span_caseeq(span_of(p, 3), SPAN_LIT("SIP")))
		return -EINVAL;
	p = sip_skip_lws(p + 3, end);
	if (p == end || *p++ != '/')
		return -EINVAL;
	p = sip_skip_lws(p, end);
	if (end - p < 3 || memcmp(p, "2.0", 3) != 0)
		return -EINVAL;
	p = sip_skip_lws(p + 3, end);
	if (p == end || *p++ != '/')
		return -EINVAL;
	p = start = sip_skip_lws(p, end);
	while (p < end && sip_is(*p, C_TOKEN))
		p++;
	v.transport = span_of(start, (size_t)(p - start));
	if (p == start || p == end || !sip_is_lws(*p))
		return -EINVAL;

	p = start = sip_skip_lws(p, end);
	p = take_host(p, end, &v.host);
	if (p == NULL)
		return -EINVAL;
	v.sent_by = span_of(start, (size_t)(p - start));
	p = sip_skip_lws(p, end);
	if (p < end && *p == ':') {
		const char *port = p = sip_skip_lws(p + 1, end);

		while (p < end && *p >= '0' && *p <= '9')
			p++;
		if (parse_port(port, p, &v.port) != 0)
			return -EINVAL;
		v.sent_by.n = (size_t)(p - start);
		p = sip_skip_lws(p, end);
	}

	while (p < end && *p == ';') {
		struct sip_param_view one;

		p = sip_take_param(p + 1, end, &one);
		if (p == NULL || via_param(&v, &one) != 0)
			return -EINVAL;
	}
	if (p < end && *p != ',')
		return -EINVAL;
	v.text = span_of(text, (size_t)(sip_trim_lws(text, p) - text));
	*out = v;
	return 0;
}
