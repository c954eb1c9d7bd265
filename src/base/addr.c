/* SPDX-License-Identifier: Apache-2.0 */
#include "base/addr.h"

#include <arpa/inet.h>
#include <errno.h>

static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

/* What inet_pton takes: four numbers without leading zeros. */
static int parse_ip4(struct span s, uint8_t ip[4])
{
	const char *p = s.p, *end = s.p + s.n;

	for (unsigned i = 0; i < 4; i++) {
		const char *start;
		unsigned v = 0;

		if (i != 0 && (p == end || *p++ != '.'))
			return -EINVAL;
		for (start = p; p < end && *p >= '0' && *p <= '9'; p++) {
			v = v * 10 + (unsigned)(*p - '0');
			if (v > 255 || (p > start && *start == '0'))
				return -EINVAL;
		}
		if (p == start)
			return -EINVAL;
		ip[i] = (uint8_t)v;
	}
	return p == end ? 0 : -EINVAL;
}

/* inet_pton wants a C string; a literal longer than this is none. */
static int parse_ip(struct span s, uint8_t ip[16])
{
	char text[INET6_ADDRSTRLEN];

	if (s.n == 0)
		return -EINVAL;
	memcpy(ip, mapped, sizeof(mapped));
	if (parse_ip4(s, ip + 12) == 0)
		return 0;
	if (memchr(s.p, ':', s.n) == NULL || span_cstr(s, text, sizeof(text)) != 0)
		return -EINVAL;
	return inet_pton(AF_INET6, text, ip) == 1 ? 0 : -EINVAL;
}

static bool is4(const uint8_t ip[16])
{
	return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

int wn_ip_parse(struct span s, struct wn_addr *out)
{
	struct wn_addr a = {.port = 0};

	if (s.n >= 2 && s.p[0] == '[' && s.p[s.n - 1] == ']') {
		s = span_of(s.p + 1, s.n - 2);
		if (s.n == 0 || memchr(s.p, ':', s.n) == NULL)
			return -EINVAL;
	}
	if (parse_ip(s, a.ip) != 0)
		return -EINVAL;
	*out = a;
	return 0;
}

int wn_addr_parse(struct span s, int default_port, struct wn_addr *out)
{
	struct wn_addr a;
	unsigned long long port;
	const char *colon, *close;
	struct span host = s;

	colon = s.n != 0 ? memrchr(s.p, ':', s.n) : NULL;
	if (colon != NULL) {
		bool bracketed = s.p[0] == '[';

		close = bracketed ? memchr(s.p, ']', s.n) : NULL;
		/* A colon within brackets, or one of several without them, belongs to an IPv6 literal. */
		if (bracketed ? close == NULL || colon < close : memchr(s.p, ':', (size_t)(colon - s.p)) != NULL)
			colon = NULL;
	}
	if (colon != NULL)
		host.n = (size_t)(colon - s.p);
	if (wn_ip_parse(host, &a) != 0)
		return -EINVAL;
	if (colon == NULL) {
		if (default_port < 0 || default_port > 65535)
			return -EINVAL;
		a.port = (uint16_t)default_port;
	} else {
		if (span_u64(span_of(colon + 1, s.n - host.n - 1), 65535, &port) != 0)
			return -EINVAL;
		a.port = (uint16_t)port;
	}
	*out = a;
	return 0;
}

static char *put_digits(char *p, unsigned v)
{
	char text[5];
	unsigned n = 0;

	do
		text[n++] = (char)('0' + v % 10);
	while ((v /= 10) != 0);
	while (n > 0)
		*p++ = text[--n];
	return p;
}

/* Returns where it ends. */
static char *put_ip(char *p, const struct wn_addr *a)
{
	if (!is4(a->ip)) {
		inet_ntop(AF_INET6, a->ip, p, INET6_ADDRSTRLEN);
		return p + strlen(p);
	}
	for (unsigned i = 12; i < 16; i++) {
		p = put_digits(p, a->ip[i]);
		*p++ = '.';
	}
	return p - 1;
}

const char *wn_ip_str(const struct wn_addr *a, char buf[static WN_ADDR_STR])
{
	*put_ip(buf, a) = 0;
	return buf;
}

const char *wn_addr_str(const struct wn_addr *a, char buf[static WN_ADDR_STR])
{
	bool four = is4(a->ip);
	char *p = buf;

	_Static_assert(INET6_ADDRSTRLEN + sizeof("[]:65535") - 1 <= WN_ADDR_STR, "the longest fits");
	if (!four)
		*p++ = '[';
	p = put_ip(p, a);
	if (!four)
		*p++ = ']';
	*p++ = ':';
	*put_digits(p, a->port) = 0;
	return buf;
}

bool wn_addr_is4(const struct wn_addr *a)
{
	return is4(a->ip);
}

bool wn_ip_eq(const struct wn_addr *a, const struct wn_addr *b)
{
	return memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool wn_addr_eq(const struct wn_addr *a, const struct wn_addr *b)
{
	return a->port == b->port && wn_ip_eq(a, b);
}

void wn_addr_from_sockaddr(struct wn_addr *a, const struct sockaddr_storage *ss)
{
	memset(a, 0, sizeof(*a));
	if (ss->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

		memcpy(a->ip, mapped, sizeof(mapped));
		memcpy(a->ip + 12, &in->sin_addr, 4);
		a->port = ntohs(in->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

		memcpy(a->ip, &in6->sin6_addr, 16);
		a->port = ntohs(in6->sin6_port);
	}
}

socklen_t wn_addr_to_sockaddr(const struct wn_addr *a, struct sockaddr_storage *ss)
{
	if (is4(a->ip)) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;

		memset(in, 0, sizeof(*in));
		in->sin_family = AF_INET;
		in->sin_port = htons(a->port);
		memcpy(&in->sin_addr, a->ip + 12, 4);
		return sizeof(*in);
	}

	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	memset(in6, 0, sizeof(*in6));
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(a->port);
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof(*in6);
}

int wn_prefix_parse(struct span s, struct wn_prefix *out)
{
	struct wn_prefix p;
	unsigned long long bits;
	const char *slash = s.n != 0 ? memchr(s.p, '/', s.n) : NULL;
	bool four;

	if (slash == NULL || parse_ip(span_of(s.p, (size_t)(slash - s.p)), p.ip) != 0)
		return -EINVAL;
	four = memchr(s.p, ':', (size_t)(slash - s.p)) == NULL;
	if (span_u64(span_of(slash + 1, s.n - (size_t)(slash - s.p) - 1), four ? 32 : 128, &bits) != 0)
		return -EINVAL;
	p.bits = (uint8_t)(four ? 96 + bits : bits);
	/* Bits after the prefix are more likely a slip than a wish. */
	for (unsigned i = p.bits; i < 128; i++) {
		if (p.ip[i / 8] & 0x80 >> i % 8)
			return -EINVAL;
	}
	*out = p;
	return 0;
}

bool wn_prefix_has(const struct wn_prefix *p, const struct wn_addr *a)
{
	unsigned whole = p->bits / 8, part = p->bits % 8;

	/* ::/0 means all of IPv6, not the IPv4 that is kept inside it. */
	if (is4(a->ip) && p->bits < 96)
		return false;
	if (memcmp(p->ip, a->ip, whole) != 0)
		return false;
	return part == 0 || ((p->ip[whole] ^ a->ip[whole]) & (0xff00 >> part) & 0xff) == 0;
}
