/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/quick.h"

#include "sip/chars.h"
#include "sip/scan.h"

static const char route_name[] = "route", auth_name[] = "proxy-authorization";

enum { ROUTE_N = sizeof(route_name) - 1, AUTH_N = sizeof(auth_name) - 1 };

/* A line may be of interest when what stands behind the LF is an R, a P or, at the end of the header part, a CR. */
static bool candidate(char c)
{
	c = (char)(c | 0x20);
	return c == 'p' || c == 'r' || c == ('\r' | 0x20);
}

/* The first LF in front of a candidate, or NULL. LF ends a line wherever it stands, because sip_parse takes it nowhere else. */
SIP_INLINE const char *next_line(const char *p, const char *end, bool vector)
{
#ifdef __SSE2__
	if (vector) {
		const __m128i lf = _mm_set1_epi8('\n'), lower = _mm_set1_epi8(0x20);
		const __m128i r = _mm_set1_epi8('r'), pee = _mm_set1_epi8('p'), cr = _mm_set1_epi8('\r' | 0x20);

		for (; end - p >= 17; p += 16) {
			__m128i here = _mm_loadu_si128((const __m128i *)(const void *)p);
			__m128i next = _mm_or_si128(_mm_loadu_si128((const __m128i *)(const void *)(p + 1)), lower);
			__m128i any =
				_mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(next, r), _mm_cmpeq_epi8(next, pee)), _mm_cmpeq_epi8(next, cr));
			unsigned mask = (unsigned)_mm_movemask_epi8(_mm_and_si128(any, _mm_cmpeq_epi8(here, lf)));

			if (mask != 0)
				return p + __builtin_ctz(mask);
		}
	}
#endif
	for (; end - p >= 2; p++) {
		if (*p == '\n' && candidate(p[1]))
			return p;
	}
	return NULL;
}

/* "name" blanks ":" at p. Sets *value behind the colon. */
SIP_INLINE bool named(const char *p, const char *end, const char *name, size_t n, const char **value)
{
	if ((size_t)(end - p) <= n || !sip_is_lower(p, name, n))
		return false;
	for (p += n; p < end && (*p == ' ' || *p == '\t'); p++)
		;
	if (p == end || *p != ':')
		return false;
	*value = p + 1;
	return true;
}

/* The value up to the line's end. False: it is folded, or the line has no end that sip_parse would take. */
static bool line_value(const char *p, const char *end, struct span *value)
{
	const char *lf = memchr(p, '\n', (size_t)(end - p)), *stop;

	if (lf == NULL || lf == p || lf[-1] != '\r' || end - lf < 2 || lf[1] == ' ' || lf[1] == '\t')
		return false;
	stop = lf - 1;
	while (p < stop && (*p == ' ' || *p == '\t'))
		p++;
	while (stop > p && (stop[-1] == ' ' || stop[-1] == '\t'))
		stop--;
	*value = span_of(p, (size_t)(stop - p));
	return true;
}

/* As sip_parse_nameaddr and sip_parse_uri would, of what begins with <sip: or <sips:. */
static bool user_of(struct span value, struct span *user)
{
	const char *p = value.p, *end = value.p + value.n, *close, *at, *colon;

	if (value.n < 6 || p[0] != '<' || !sip_is_lower(p + 1, "sip", 3))
		return false;
	p += 4;
	if ((*p | 0x20) == 's')
		p++;
	if (*p++ != ':')
		return false;
	close = memchr(p, '>', (size_t)(end - p));
	if (close == NULL)
		return false;
	*user = span_of(NULL, 0);
	at = memchr(p, '@', (size_t)(close - p));
	if (at != NULL) {
		colon = memchr(p, ':', (size_t)(at - p));
		*user = span_of(p, (size_t)((colon != NULL ? colon : at) - p));
	}
	return true;
}

SIP_INLINE bool quick(struct span in, struct sip_quick *q, bool vector)
{
	const char *p = in.p, *end, *lf, *value;
	struct span v;

	*q = (struct sip_quick){0};
	if (in.n == 0)
		return false;
	end = p + in.n;
	lf = memchr(p, '\n', in.n);
	if (lf == NULL || lf - p < 4 || lf[-1] != '\r' || *p == '\r')
		return false;
	q->start_line = span_of(p, (size_t)(lf - p) - 1);
	q->request = !sip_is_lower(p, "sip/", 4);
	if (q->request) {
		const char *space = memchr(p, ' ', q->start_line.n);

		if (space == NULL)
			return false;
		q->method = sip_method_of(span_of(p, (size_t)(space - p)));
	}
	for (p = lf; (p = next_line(p, end, vector)) != NULL; p++) {
		if (p[1] == '\r')
			return end - p >= 3 && p[2] == '\n';
		if (named(p + 1, end, route_name, ROUTE_N, &value)) {
			if (!line_value(value, end, &v))
				return false;
			if (q->nroute++ != 0)
				continue;
			q->route = v;
			if (!user_of(v, &q->route_user))
				return false;
		} else if (named(p + 1, end, auth_name, AUTH_N, &value)) {
			if (!line_value(value, end, &v))
				return false;
			if (q->nproxy_authorization++ == 0)
				q->proxy_authorization = v;
		}
	}
	return false;
}

bool sip_quick(struct span in, struct sip_quick *q)
{
	return quick(in, q, SIP_VECTOR);
}

bool sip_quick_scalar(struct span in, struct sip_quick *q)
{
	return quick(in, q, false);
}
