/* SPDX-License-Identifier: Apache-2.0 */
/** \file Character classes of RFC 3261 section 25.1, and the small steps that the parsers share. Only for src/sip. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "sip/msg.h"

enum {
	C_TOKEN = 1,   /* token */
	C_WORD = 2,    /* word, and '@': Call-ID */
	C_USER = 4,    /* user, without ':' and '@' */
	C_PASS = 8,    /* password */
	C_PARAM = 16,  /* uri-parameters, with '=' and ';' */
	C_HEADER = 32, /* headers of a URI, with '=' and '&' */
	C_HOST = 64,   /* hostname, and '_', which is met in the field */
	C_HEX = 128,
	C_VALUE = 256, /* of a parameter, besides quoted strings: token, host, and what URIs in the field put there */
	C_NAME = 512,  /* a display name without quotes: token, LWS, and UTF-8, which is let pass */
};

extern const uint16_t sip_class[256];

static inline bool sip_is(char c, unsigned class)
{
	return (sip_class[(unsigned char)c] & class) != 0;
}

/** Whether all of it, and at least one character, is of the class. */
static inline bool sip_all(const char *p, const char *end, unsigned class)
{
	if (p == end)
		return false;
	while (p < end && sip_is(*p, class))
		p++;
	return p == end;
}

/** LWS of a header value whose folds have been checked: a CR or LF in it can only be part of one. */
static inline bool sip_is_lws(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static inline const char *sip_skip_lws(const char *p, const char *end)
{
	while (p < end && (unsigned char)*p <= ' ' && sip_is_lws(*p))
		p++;
	return p;
}

static inline const char *sip_trim_lws(const char *start, const char *end)
{
	while (end > start && (unsigned char)end[-1] <= ' ' && sip_is_lws(end[-1]))
		end--;
	return end;
}

/** Decimal digits from p on, at least one, whose value is max at most. Returns where they end, or NULL. */
static inline const char *sip_take_number(const char *p, const char *end, uint32_t max, uint32_t *out)
{
	const char *start = p;
	uint64_t v = 0;

	for (; p < end && *p >= '0' && *p <= '9'; p++) {
		v = v * 10 + (uint64_t)(*p - '0');
		if (v > max)
			return NULL;
	}
	if (p == start)
		return NULL;
	*out = (uint32_t)v;
	return p;
}

/** `p` stands on the opening quote. Returns what follows the closing one, or NULL without one. */
const char *sip_skip_quoted(const char *p, const char *end, bool vector);

/** A header parameter: name, and value with p == NULL when it stands without '='. Quotes are kept. `classes`: those that all of the value's
 * characters are of; none of a quoted string. */
struct sip_param_view {
	struct span name, value;
	unsigned classes;
};

/** `p` stands after the ';'. Takes a name and an optional value (token, host or quoted string), and the blanks around them.
 * Returns where it stopped, or NULL when there is none or it is malformed. */
const char *sip_take_param(const char *p, const char *end, struct sip_param_view *out, bool vector);

/** As sip_parse_nameaddr; *tag, which the caller has cleared, gets the "tag" parameter: a token, and once. */
int sip_take_nameaddr(struct span value, struct sip_nameaddr *out, struct span *tag, bool vector);

/** Case counts, as RFC 3261 7.1 says. SIP_METHOD_OTHER: none of those that have a name here. */
enum sip_method sip_method_of(struct span name);
