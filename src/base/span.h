/* SPDX-License-Identifier: Apache-2.0 */
/** \file A view of bytes that somebody else owns. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

/** Bytes, not a C string: no terminator, may hold NUL. An absent value has p == NULL. */
struct span {
	const char *p;
	size_t n;
};

#define SPAN_LIT(s) ((struct span){(s), sizeof(s) - 1})

static inline struct span span_of(const void *p, size_t n)
{
	return (struct span){(const char *)p, n};
}

static inline struct span span_str(const char *s)
{
	return (struct span){s, s != NULL ? strlen(s) : 0};
}

/** Not constant-time: never for secrets. */
static inline bool span_eq(struct span a, struct span b)
{
	return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

/** ASCII case-insensitive. */
bool span_caseeq(struct span a, struct span b);

/** Parses an unsigned decimal that fills the whole span. \return 0, -EINVAL, -ERANGE (> max). */
int span_u64(struct span s, unsigned long long max, unsigned long long *out);

/** Copies into a C string of `cap` bytes. \return 0, -ENOSPC when it does not fit, -EINVAL when it holds NUL. */
int span_cstr(struct span s, char *out, size_t cap);
