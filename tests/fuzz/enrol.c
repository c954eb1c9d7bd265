/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolments: what is taken means the same when it is written again, names no file but its own, and a refusal says so in one line. */
#include <ctype.h>
#include <string.h>

#include "client/enrol.h"
#include "fuzz.h"

static bool same(const struct enrol *a, const struct enrol *b)
{
	bool eq = strcmp(a->user, b->user) == 0 && strcmp(a->domain, b->domain) == 0 && strcmp(a->secret, b->secret) == 0 &&
		  a->nfronts == b->nfronts && a->epoch_s == b->epoch_s;

	for (unsigned i = 0; eq && i < a->nfronts; i++)
		eq = wn_addr_eq(&a->fronts[i], &b->fronts[i]);
	return eq;
}

static void refused(const char why[static ENROL_WHY_MAX])
{
	size_t n = strnlen(why, ENROL_WHY_MAX);

	CHECK(n > 0 && n < ENROL_WHY_MAX);
	for (size_t i = 0; i < n; i++)
		CHECK(isprint((unsigned char)why[i]));
}

static void taken(const struct enrol *e)
{
	static char json[ENROL_JSON_MAX], line[ENROL_LINE_MAX];
	char why[ENROL_WHY_MAX], service[ENROL_SERVICE_MAX + 1], name[ENROL_DOMAIN_MAX + 8];
	struct enrol again;
	struct enrol_set set = {(struct enrol *)(uintptr_t)e, 1};
	long n;

	CHECK(e->nfronts > 0 && e->nfronts <= ENROL_FRONTS_MAX && e->epoch_s <= ENROL_EPOCH_S_MAX);
	CHECK(e->user[0] != 0 && e->secret[0] != 0 && e->domain[0] != 0 && e->domain[0] != '.');
	for (const char *p = e->domain; *p != 0; p++)
		CHECK(*p == '.' || *p == '-' || islower((unsigned char)*p) || isdigit((unsigned char)*p));
	n = enrol_format_json(e, json, sizeof(json));
	CHECK(n > 0 && enrol_parse_json(span_of(json, (size_t)n), &again, why) == 0 && same(e, &again));
	n = enrol_format_line(e, line, sizeof(line));
	CHECK(n > 0 && enrol_parse_line(span_of(line, (size_t)n), &again, why) == 0 && same(e, &again));
	snprintf(name, sizeof(name), "ssh.%s", e->domain);
	CHECK(enrol_find(&set, span_str(name), false, service, why) == e && strcmp(service, "ssh") == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	char why[ENROL_WHY_MAX] = "";
	struct enrol e;

	if (enrol_parse_json(span_of(data, n), &e, why) == 0)
		taken(&e);
	else
		refused(why);
	why[0] = 0;
	if (enrol_parse_line(span_of(data, n), &e, why) == 0)
		taken(&e);
	else
		refused(why);
	return 0;
}
