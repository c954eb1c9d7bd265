/* SPDX-License-Identifier: Apache-2.0 */
#include "prometheus.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

#include <cmocka.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAMILIES 64
#define SAMPLES  4096
#define TEXT     256

struct sample {
	char name[TEXT], labels[TEXT]; /* labels without le */
	double le, value;
	bool has_le;
};

static struct {
	char name[FAMILIES][TEXT], type[FAMILIES][16];
	unsigned n;
	struct sample sample[SAMPLES];
	unsigned nsamples, first; /* of the family that is being read */
} p;

static size_t name_length(const char *s)
{
	size_t n = 0;

	while (isalnum((unsigned char)s[n]) || s[n] == '_' || s[n] == ':')
		n++;
	if (n == 0 || isdigit((unsigned char)s[0]))
		fail_msg("no name: %s", s);
	assert_true(n < TEXT);
	return n;
}

static double number(const char *s, const char *line)
{
	char *end;
	double v;

	if (strcmp(s, "+Inf") == 0)
		return INFINITY;
	v = strtod(s, &end);
	if (end == s || *end != 0 || isspace((unsigned char)*s))
		fail_msg("no number: %s", line);
	return v;
}

static const char *labels(const char *s, struct sample *out, const char *line)
{
	size_t at = 0;

	assert_int_equal(*s++, '{');
	for (;;) {
		char key[TEXT], value[TEXT];
		size_t n = name_length(s), k = 0;

		memcpy(key, s, n);
		key[n] = 0;
		s += n;
		if (s[0] != '=' || s[1] != '"')
			fail_msg("no label: %s", line);
		for (s += 2; *s != '"'; s++) {
			if (*s == 0 || (*s == '\\' && strchr("\\\"n", s[1]) == NULL))
				fail_msg("a label's value: %s", line);
			if (*s == '\\')
				value[k++] = *s++;
			value[k++] = *s;
			assert_true(k < TEXT - 2);
		}
		value[k] = 0;
		s++;
		if (strcmp(key, "le") == 0) {
			out->has_le = true;
			out->le = number(value, line);
		} else {
			at += (size_t)snprintf(out->labels + at, TEXT - at, "%s=%s,", key, value);
			assert_true(at < TEXT);
		}
		if (*s == '}')
			return s + 1;
		if (*s++ != ',')
			fail_msg("between labels: %s", line);
	}
}

static bool ends(const char *s, const char *with)
{
	size_t n = strlen(s), k = strlen(with);

	return n >= k && strcmp(s + n - k, with) == 0;
}

/* Whether a sample of that name belongs to the family that is being read. */
static bool belongs(const char *name)
{
	const char *family = p.name[p.n - 1];
	size_t n = strlen(family);

	if (strcmp(p.type[p.n - 1], "histogram") != 0)
		return strcmp(name, family) == 0;
	return strncmp(name, family, n) == 0 &&
	       (strcmp(name + n, "_bucket") == 0 || strcmp(name + n, "_sum") == 0 || strcmp(name + n, "_count") == 0);
}

static const struct sample *find(unsigned from, const char *family, const char *suffix, const char *with)
{
	char name[TEXT + 8];

	snprintf(name, sizeof(name), "%s%s", family, suffix);
	for (unsigned i = from; i < p.nsamples; i++)
		if (strcmp(p.sample[i].name, name) == 0 && strcmp(p.sample[i].labels, with) == 0)
			return &p.sample[i];
	fail_msg("no %s{%s}", name, with);
	return NULL;
}

static void end_of_family(void)
{
	const char *family = p.name[p.n - 1];
	const struct sample *last = NULL;

	if (p.first == p.nsamples)
		fail_msg("%s has no sample", family);
	for (unsigned i = p.first; i < p.nsamples; i++)
		for (unsigned j = p.first; j < i; j++)
			if (strcmp(p.sample[i].name, p.sample[j].name) == 0 && strcmp(p.sample[i].labels, p.sample[j].labels) == 0 &&
			    (!p.sample[i].has_le || p.sample[i].le == p.sample[j].le))
				fail_msg("twice: %s{%s}", p.sample[i].name, p.sample[i].labels);
	if (strcmp(p.type[p.n - 1], "histogram") != 0)
		return;
	for (unsigned i = p.first; i < p.nsamples; i++) {
		const struct sample *s = &p.sample[i];

		if (!ends(s->name, "_bucket"))
			continue;
		assert_true(s->has_le);
		if (last != NULL && strcmp(last->labels, s->labels) == 0) {
			if (s->le <= last->le || s->value < last->value)
				fail_msg("%s{%s} falls at %g", s->name, s->labels, s->le);
		} else if (last != NULL && !isinf(last->le)) {
			fail_msg("%s{%s} has no +Inf", last->name, last->labels);
		}
		if (isinf(s->le)) {
			if (s->value != find(p.first, family, "_count", s->labels)->value)
				fail_msg("%s{%s}: +Inf is not the count", s->name, s->labels);
			find(p.first, family, "_sum", s->labels);
		}
		last = s;
	}
	assert_true(last != NULL && isinf(last->le));
}

static void begin_family(const char *name, size_t n)
{
	if (p.n > 0)
		end_of_family();
	for (unsigned i = 0; i < p.n; i++)
		if (strlen(p.name[i]) == n && memcmp(p.name[i], name, n) == 0)
			fail_msg("%s begins twice", p.name[i]);
	assert_true(p.n < FAMILIES);
	memcpy(p.name[p.n], name, n);
	p.name[p.n][n] = 0;
	p.type[p.n][0] = 0;
	p.n++;
	p.first = p.nsamples;
}

static void comment(const char *line)
{
	size_t n = name_length(line + 7);
	const char *rest = line + 7 + n;

	if (strncmp(line, "# HELP ", 7) == 0) {
		begin_family(line + 7, n);
		if (rest[0] != ' ' || rest[1] == 0)
			fail_msg("no help: %s", line);
		return;
	}
	if (strncmp(line, "# TYPE ", 7) != 0 || p.n == 0 || strlen(p.name[p.n - 1]) != n || memcmp(p.name[p.n - 1], line + 7, n) != 0 ||
	    p.type[p.n - 1][0] != 0)
		fail_msg("out of place: %s", line);
	if (strcmp(rest, " counter") != 0 && strcmp(rest, " gauge") != 0 && strcmp(rest, " histogram") != 0)
		fail_msg("no type: %s", line);
	if ((strcmp(rest, " counter") == 0) != ends(p.name[p.n - 1], "_total"))
		fail_msg("counters, and nothing else, end in _total: %s", line);
	snprintf(p.type[p.n - 1], sizeof(p.type[0]), "%s", rest + 1);
}

static void sample(const char *line)
{
	struct sample *s = &p.sample[p.nsamples];
	size_t n = name_length(line);
	const char *at = line + n;

	assert_true(p.nsamples < SAMPLES);
	memset(s, 0, sizeof(*s));
	memcpy(s->name, line, n);
	if (*at == '{')
		at = labels(at, s, line);
	if (*at++ != ' ')
		fail_msg("no value: %s", line);
	s->value = number(at, line);
	if (p.n == 0 || p.type[p.n - 1][0] == 0 || !belongs(s->name))
		fail_msg("not where it belongs: %s", line);
	if (strcmp(p.type[p.n - 1], "gauge") != 0 && s->value < 0)
		fail_msg("negative: %s", line);
	p.nsamples++;
}

void prometheus_check(const char *text, size_t n)
{
	char line[1024];

	memset(&p, 0, sizeof(p));
	assert_true(n > 0 && strlen(text) == n);
	assert_int_equal(text[n - 1], '\n');
	for (const char *at = text, *end; *at != 0; at = end + 1) {
		end = strchr(at, '\n');
		assert_true((size_t)(end - at) < sizeof(line));
		memcpy(line, at, (size_t)(end - at));
		line[end - at] = 0;
		if (line[0] == '#')
			comment(line);
		else
			sample(line);
	}
	assert_true(p.n > 0);
	end_of_family();
}

double prometheus_value(const char *text, const char *name)
{
	size_t n = strlen(name);

	for (const char *at = text; at != NULL && *at != 0; at = strchr(at, '\n'), at = at != NULL ? at + 1 : NULL)
		if (strncmp(at, name, n) == 0 && at[n] == ' ')
			return strtod(at + n + 1, NULL);
	fail_msg("no %s", name);
	return 0;
}
