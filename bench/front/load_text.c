/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <strings.h>
#include <sys/random.h>

#include "load.h"

uint64_t load_random(void)
{
	static uint64_t x;

	while (x == 0)
		(void)!getrandom(&x, sizeof(x), 0);
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x * 0x2545f4914f6cdd1du;
}

uint32_t load_address(unsigned index)
{
	unsigned a = 100 + index / 10000 % 100, b = 100 + index / 100 % 100, c = 100 + index % 100;

	return htonl(127u << 24 | a << 16 | b << 8 | c);
}

void load_put_number(struct sip_buf *b, uint64_t v)
{
	char t[20];
	unsigned n = sizeof(t);

	do {
		t[--n] = (char)('0' + v % 10);
		v /= 10;
	} while (v > 0);
	sip_put(b, span_of(t + n, sizeof(t) - n));
}

void load_put_address(struct sip_buf *b, uint32_t addr)
{
	uint32_t h = ntohl(addr);

	for (int shift = 24; shift >= 0; shift -= 8) {
		load_put_number(b, h >> shift & 255);
		if (shift > 0)
			sip_putc(b, '.');
	}
}

void load_hex(char *to, uint64_t v)
{
	for (int i = 15; i >= 0; i--, v >>= 4)
		to[i] = "0123456789abcdef"[v & 15];
}

void load_put_hex(struct sip_buf *b, uint64_t v)
{
	char t[16];

	load_hex(t, v);
	sip_put(b, span_of(t, sizeof(t)));
}

uint64_t load_unhex(const char *p, unsigned n)
{
	uint64_t v = 0;

	for (unsigned i = 0; i < n; i++)
		v = v << 4 | (uint64_t)(p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
	return v;
}

static struct span trim(const char *p, const char *end)
{
	while (p < end && (*p == ' ' || *p == '\t'))
		p++;
	while (end > p && (end[-1] == '\r' || end[-1] == ' '))
		end--;
	return span_of(p, (size_t)(end - p));
}

static void keep(struct span list[SEEN_MAX], unsigned *n, struct span v)
{
	if (*n < SEEN_MAX)
		list[(*n)++] = v;
}

/* Record-Route may hold several values on a line. */
static void keep_routes(struct load_seen *s, struct span v)
{
	const char *p = v.p, *end = v.p + v.n, *close;

	while (p < end && (close = memchr(p, '>', (size_t)(end - p))) != NULL) {
		const char *stop = memchr(close, ',', (size_t)(end - close));

		keep(s->route, &s->nroute, trim(p, stop != NULL ? stop : end));
		p = stop != NULL ? stop + 1 : end;
	}
}

static void header(struct load_seen *s, struct span name, struct span v)
{
	switch (name.n) {
	case 1:
		if (name.p[0] == 'v')
			keep(s->via, &s->nvia, v);
		break;
	case 2:
		if (strncasecmp(name.p, "to", 2) == 0)
			s->to = v;
		break;
	case 3:
		if (strncasecmp(name.p, "via", 3) == 0)
			keep(s->via, &s->nvia, v);
		break;
	case 4:
		if (strncasecmp(name.p, "from", 4) == 0)
			s->from = v;
		else if (strncasecmp(name.p, "cseq", 4) == 0)
			s->cseq = v;
		break;
	case 7:
		if (strncasecmp(name.p, "call-id", 7) == 0)
			s->call_id = v;
		else if (strncasecmp(name.p, "contact", 7) == 0)
			s->contact = v;
		break;
	case 12:
		if (strncasecmp(name.p, "record-route", 12) == 0)
			keep_routes(s, v);
		break;
	case 18:
		if (strncasecmp(name.p, "proxy-authenticate", 18) == 0)
			keep(s->challenge, &s->nchallenge, v);
		break;
	case 25:
		if (strncasecmp(name.p, "proxy-authentication-info", 25) == 0)
			s->info = v;
		break;
	default:
		break;
	}
}

void load_see(struct span m, struct load_seen *s)
{
	const char *p = m.p, *end = m.p + m.n, *line, *colon;

	memset(s, 0, sizeof(*s));
	line = memchr(p, '\n', m.n);
	if (line == NULL)
		return;
	if (m.n > 12 && memcmp(p, "SIP/2.0 ", 8) == 0) {
		s->status = (unsigned)((p[8] - '0') * 100 + (p[9] - '0') * 10 + (p[10] - '0'));
	} else {
		const char *space = memchr(p, ' ', (size_t)(line - p));

		s->method = span_of(p, space != NULL ? (size_t)(space - p) : 0);
	}
	for (p = line + 1; p < end && *p != '\r' && *p != '\n'; p = line + 1) {
		line = memchr(p, '\n', (size_t)(end - p));
		if (line == NULL)
			return;
		colon = memchr(p, ':', (size_t)(line - p));
		if (colon != NULL)
			header(s, trim(p, colon), trim(colon + 1, line));
	}
}

struct span load_uri(struct span v)
{
	const char *open = v.n > 0 ? memchr(v.p, '<', v.n) : NULL, *close;

	if (open == NULL)
		return v;
	close = memchr(open, '>', (size_t)(v.p + v.n - open));
	return close != NULL ? span_of(open + 1, (size_t)(close - open - 1)) : v;
}
