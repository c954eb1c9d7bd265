/* SPDX-License-Identifier: Apache-2.0 */
#include "base/span.h"

#include <errno.h>

static unsigned char lower(char c)
{
	unsigned char u = (unsigned char)c;

	return u >= 'A' && u <= 'Z' ? (unsigned char)(u | 0x20) : u;
}

bool span_caseeq(struct span a, struct span b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++) {
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	}
	return true;
}

int span_u64(struct span s, unsigned long long max, unsigned long long *out)
{
	unsigned long long v = 0;
	bool over = false;

	if (s.n == 0)
		return -EINVAL;
	for (size_t i = 0; i < s.n; i++) {
		unsigned d = (unsigned char)s.p[i] - (unsigned)'0';

		if (d > 9)
			return -EINVAL;
		/* Goes on after an overflow so that letters further on are still -EINVAL. */
		if (v > max / 10 || d > max - v * 10)
			over = true;
		else
			v = v * 10 + d;
	}
	if (over)
		return -ERANGE;
	*out = v;
	return 0;
}

int span_cstr(struct span s, char *out, size_t cap)
{
	if (s.n >= cap)
		return -ENOSPC;
	if (s.n != 0 && memchr(s.p, 0, s.n) != NULL)
		return -EINVAL;
	if (s.n != 0)
		memcpy(out, s.p, s.n);
	out[s.n] = 0;
	return 0;
}
