/* SPDX-License-Identifier: Apache-2.0 */
#include "client/enrol.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"

#define EPOCH_S_DEFAULT 86400

__attribute__((format(printf, 2, 3))) static int refuse(char *why, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, ENROL_WHY_MAX, fmt, ap);
	va_end(ap);
	return -EINVAL;
}

/* What may stand in a digest username and in a SIP URI without escaping. */
static bool user_ok(const char *s, size_t n)
{
	if (n == 0 || n > ENROL_USER_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!isalnum((unsigned char)s[i]) && strchr("-_.+", s[i]) == NULL)
			return false;
	}
	return true;
}

/* Lower-cases into out. The result becomes a file's name, so nothing but letters, digits, dots and hyphens may pass, and no empty label. */
static bool domain_ok(const char *s, size_t n, char *out)
{
	size_t label = 0;

	if (n == 0 || n > ENROL_DOMAIN_MAX)
		return false;
	for (size_t i = 0; i < n; i++) {
		unsigned char c = (unsigned char)tolower((unsigned char)s[i]);

		if (c == '.') {
			if (label == 0 || out[i - 1] == '-')
				return false;
			label = 0;
		} else if (isalnum(c) || (c == '-' && label > 0)) {
			if (++label > 63)
				return false;
		} else {
			return false;
		}
		out[i] = (char)c;
	}
	out[n] = '\0';
	return label > 0 && out[n - 1] != '-';
}

static bool service_ok(struct span s, char *out)
{
	if (s.n == 0 || s.n > ENROL_SERVICE_MAX)
		return false;
	for (size_t i = 0; i < s.n; i++) {
		unsigned char c = (unsigned char)tolower((unsigned char)s.p[i]);

		if (!isalnum(c) && c != '-' && c != '_')
			return false;
		out[i] = (char)c;
	}
	out[s.n] = '\0';
	return true;
}

/* Machine-made: enough bytes, and not one of the patterns that samples are made of. */
static bool secret_ok(const char *s, size_t n)
{
	uint8_t raw[ENROL_SECRET_MAX];
	bool seen[256] = {false};
	unsigned distinct = 0;
	long len;

	if (n == 0 || n > ENROL_SECRET_MAX)
		return false;
	len = b64url_decode(span_of(s, n), raw, sizeof(raw));
	for (long i = 0; i < len; i++) {
		if (!seen[raw[i]])
			distinct++;
		seen[raw[i]] = true;
	}
	sodium_memzero(raw, sizeof(raw));
	return len >= ENROL_SECRET_MIN && distinct >= 6;
}

static int parse_fronts(const json_t *list, struct enrol *out, char *why)
{
	if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > ENROL_FRONTS_MAX)
		return refuse(why, "fronts: a list of 1 to %d addresses such as \"192.0.2.1:5060\" is wanted", ENROL_FRONTS_MAX);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *f = json_array_get(list, i);
		struct wn_addr *a = &out->fronts[i];

		if (!json_is_string(f) || wn_addr_parse(span_of(json_string_value(f), json_string_length(f)), 5060, a) < 0 || a->port == 0)
			return refuse(why, "fronts[%zu]: an address and port such as \"192.0.2.1:5060\" is wanted", i);
		for (size_t k = 0; k < i; k++) {
			if (wn_addr_eq(a, &out->fronts[k]))
				return refuse(why, "fronts[%zu]: stands twice", i);
		}
	}
	out->nfronts = (unsigned)json_array_size(list);
	return 0;
}

/* An enrolment comes from elsewhere: none of its bytes may steer the terminal that the refusal is read on. */
static int refuse_key(const char *key, char *why)
{
	char shown[33];
	size_t n = 0;

	for (; n < sizeof(shown) - 1 && key[n] != '\0'; n++)
		shown[n] = isgraph((unsigned char)key[n]) ? key[n] : '?';
	shown[n] = '\0';
	return refuse(why, "unknown key \"%s\"; user, domain, secret, fronts and epoch_s are known", shown);
}

static int parse_object(json_t *root, struct enrol *out, char *why)
{
	static const char *const known[] = {"user", "domain", "secret", "fronts", "epoch_s"};
	const char *key;
	json_t *value;
	const json_t *user, *domain, *secret, *epoch;

	json_object_foreach(root, key, value)
	{
		bool ok = false;

		for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
			ok = ok || strcmp(key, known[i]) == 0;
		if (!ok)
			return refuse_key(key, why);
	}
	user = json_object_get(root, "user");
	domain = json_object_get(root, "domain");
	secret = json_object_get(root, "secret");
	epoch = json_object_get(root, "epoch_s");
	if (!json_is_string(user) || !user_ok(json_string_value(user), json_string_length(user)))
		return refuse(why, "user: 1 to %d letters, digits or any of -_.+ are wanted", ENROL_USER_MAX);
	if (!json_is_string(domain) || !domain_ok(json_string_value(domain), json_string_length(domain), out->domain))
		return refuse(why, "domain: a domain name such as \"example.org\" is wanted");
	if (!json_is_string(secret) || !secret_ok(json_string_value(secret), json_string_length(secret)))
		return refuse(why, "secret: base64url of at least %d random bytes is wanted", ENROL_SECRET_MIN);
	out->epoch_s = EPOCH_S_DEFAULT;
	if (epoch != NULL) {
		json_int_t v = json_integer_value(epoch);

		if (!json_is_integer(epoch) || v < 0 || v > (json_int_t)ENROL_EPOCH_S_MAX)
			return refuse(why, "epoch_s: 0 or a number of seconds up to %u is wanted", ENROL_EPOCH_S_MAX);
		out->epoch_s = (uint32_t)v;
	}
	memcpy(out->user, json_string_value(user), json_string_length(user) + 1);
	memcpy(out->secret, json_string_value(secret), json_string_length(secret) + 1);
	return parse_fronts(json_object_get(root, "fronts"), out, why);
}

int enrol_parse_json(struct span json, struct enrol *out, char why[static ENROL_WHY_MAX])
{
	json_error_t err;
	json_t *root;
	int rc;

	*out = (struct enrol){0};
	if (json.n > ENROL_JSON_MAX)
		return refuse(why, "longer than %d bytes", ENROL_JSON_MAX);
	root = json_loadb(json.p, json.n, JSON_REJECT_DUPLICATES, &err);
	if (root == NULL)
		return refuse(why, "not a JSON object (line %d, column %d)", err.line, err.column);
	rc = json_is_object(root) ? parse_object(root, out, why) : refuse(why, "not a JSON object");
	json_decref(root);
	if (rc < 0)
		sodium_memzero(out, sizeof(*out));
	return rc;
}

int enrol_parse_line(struct span line, struct enrol *out, char why[static ENROL_WHY_MAX])
{
	const size_t prefix = sizeof(ENROL_PREFIX) - 1;
	char json[ENROL_JSON_MAX];
	long n;
	int rc;

	while (line.n > 0 && isspace((unsigned char)line.p[0]))
		line = span_of(line.p + 1, line.n - 1);
	while (line.n > 0 && isspace((unsigned char)line.p[line.n - 1]))
		line.n--;
	if (line.n < prefix || memcmp(line.p, ENROL_PREFIX, prefix) != 0)
		return refuse(why, "an enrolment line that begins with \"" ENROL_PREFIX "\" is wanted");
	n = b64url_decode(span_of(line.p + prefix, line.n - prefix), (uint8_t *)json, sizeof(json));
	if (n < 0)
		return refuse(why, "what follows \"" ENROL_PREFIX "\" is not base64url; copy the whole line");
	rc = enrol_parse_json(span_of(json, (size_t)n), out, why);
	sodium_memzero(json, sizeof(json));
	return rc;
}

long enrol_format_json(const struct enrol *e, char *out, size_t cap)
{
	json_t *fronts = json_array();
	json_t *root;
	size_t n;

	for (unsigned i = 0; i < e->nfronts; i++) {
		char text[WN_ADDR_STR];

		json_array_append_new(fronts, json_string(wn_addr_str(&e->fronts[i], text)));
	}
	root = json_pack("{s:s, s:s, s:s, s:o, s:I}", "user", e->user, "domain", e->domain, "secret", e->secret, "fronts", fronts,
			 "epoch_s", (json_int_t)e->epoch_s);
	if (root == NULL)
		return -ENOMEM;
	n = json_dumpb(root, out, cap, JSON_COMPACT);
	json_decref(root);
	if (n == 0 || n + 1 > cap)
		return -ENOSPC;
	out[n] = '\n';
	return (long)n + 1;
}

long enrol_format_line(const struct enrol *e, char *out, size_t cap)
{
	const size_t prefix = sizeof(ENROL_PREFIX) - 1;
	char json[ENROL_JSON_MAX];
	long n = enrol_format_json(e, json, sizeof(json));
	size_t len;

	if (n < 0)
		return n;
	n--; /* the newline */
	len = prefix + B64URL_LEN((size_t)n);
	if (len + 1 > cap) {
		sodium_memzero(json, sizeof(json));
		return -ENOSPC;
	}
	memcpy(out, ENROL_PREFIX, prefix);
	b64url_encode((const uint8_t *)json, (size_t)n, out + prefix);
	out[len] = '\0';
	sodium_memzero(json, sizeof(json));
	return (long)len;
}

static bool ends_with_domain(struct span name, const char *domain)
{
	size_t n = strlen(domain);

	return name.n > n && name.p[name.n - n - 1] == '.' && span_caseeq(span_of(name.p + name.n - n, n), span_of(domain, n));
}

const struct enrol *enrol_find(const struct enrol_set *s, struct span name, bool bare, char service[static ENROL_SERVICE_MAX + 1],
			       char why[static ENROL_WHY_MAX])
{
	const struct enrol *best = NULL;
	struct span left = name;

	service[0] = '\0';
	if (name.n > 0 && name.p[name.n - 1] == '.')
		name.n--;
	for (unsigned i = 0; i < s->n; i++) {
		if (ends_with_domain(name, s->at[i].domain) && (best == NULL || strlen(s->at[i].domain) > strlen(best->domain)))
			best = &s->at[i];
	}
	if (best != NULL) {
		left = span_of(name.p, name.n - strlen(best->domain) - 1);
	} else if (bare && s->n == 1 && memchr(name.p, '.', name.n) == NULL) {
		best = &s->at[0];
		left = name;
	}
	if (best == NULL) {
		if (bare && memchr(name.p, '.', name.n) == NULL)
			refuse(why, "%.*s: several domains are enrolled here; write SERVICE.DOMAIN", (int)(name.n > 64 ? 64 : name.n),
			       name.p);
		else
			refuse(why, "%.*s: not a name in a domain that is enrolled here", (int)(name.n > 64 ? 64 : name.n), name.p);
		return NULL;
	}
	if (!service_ok(left, service)) {
		service[0] = '\0';
		refuse(why, "%.*s: a service is 1 to %d letters, digits, - or _", (int)(left.n > 64 ? 64 : left.n), left.p,
		       ENROL_SERVICE_MAX);
		return NULL;
	}
	return best;
}
