/* SPDX-License-Identifier: Apache-2.0 */
#include "sip/sdp.h"

#include <errno.h>
#include <inttypes.h>

/* RFC 8839 5.1.2.1: (2^24) type preference + (2^8) local preference + (256 - component), for the only component. */
#define PRIORITY(type_preference) ((uint32_t)(type_preference) << 24 | 65535u << 8 | 255u)
#define MEDIA_TYPE                "application"
#define MEDIA_FORMAT              "octet-stream"

/* One line, without its end: RFC 8866 section 5 wants CRLF and lets a parser take LF. */
static bool next_line(struct span *rest, struct span *line)
{
	const char *lf;

	if (rest->n == 0)
		return false;
	lf = memchr(rest->p, '\n', rest->n);
	*line = span_of(rest->p, lf != NULL ? (size_t)(lf - rest->p) : rest->n);
	*rest = lf != NULL ? span_of(lf + 1, rest->n - line->n - 1) : (struct span){0};
	if (line->n != 0 && line->p[line->n - 1] == '\r')
		line->n--;
	return true;
}

/* Words are separated by single spaces. */
static bool next_word(struct span *rest, struct span *word)
{
	const char *space;

	if (rest->p == NULL)
		return false;
	space = rest->n != 0 ? memchr(rest->p, ' ', rest->n) : NULL;
	*word = span_of(rest->p, space != NULL ? (size_t)(space - rest->p) : rest->n);
	*rest = space != NULL ? span_of(space + 1, rest->n - word->n - 1) : (struct span){0};
	return word->n != 0;
}

static int number(struct span s, unsigned long long max, unsigned long long *out)
{
	return span_u64(s, max, out) == 0 ? 0 : -EINVAL;
}

/* "IN IP4 192.0.2.1". A name, or a multicast address with its TTL, is none that Walnut could send to. */
static int parse_connection(struct span v, struct wn_addr *out)
{
	struct span net, type, addr;
	struct wn_addr a;

	if (!next_word(&v, &net) || !next_word(&v, &type) || !next_word(&v, &addr) || v.p != NULL)
		return -EINVAL;
	if (!span_eq(net, SPAN_LIT("IN")) || addr.p[0] == '[' || wn_ip_parse(addr, &a) != 0)
		return -EINVAL;
	if (!span_eq(type, wn_addr_is4(&a) ? SPAN_LIT("IP4") : SPAN_LIT("IP6")))
		return -EINVAL;
	memcpy(out->ip, a.ip, sizeof(out->ip));
	return 0;
}

/* "application 9 TCP octet-stream". \return 0; 1 a medium that is not served; -EINVAL. */
static int parse_media(struct span v, struct sdp *s)
{
	struct span media, port, proto, fmt;
	unsigned long long n;

	if (!next_word(&v, &media) || !next_word(&v, &port) || !next_word(&v, &proto) || !next_word(&v, &fmt))
		return -EINVAL;
	if (memchr(port.p, '/', port.n) != NULL)
		return 1;
	if (number(port, 65535, &n) != 0)
		return -EINVAL;
	if (span_caseeq(proto, SPAN_LIT("TCP")))
		s->proto = SDP_TCP;
	else if (span_caseeq(proto, SPAN_LIT("UDP")))
		s->proto = SDP_UDP;
	else
		return 1;
	if (n == 0)
		return 1; /* RFC 8866 5.14, RFC 3264 6: a medium that was refused */
	s->conn.port = (uint16_t)n;
	return 0;
}

/* "1 1 UDP 2130706431 192.0.2.1 8998 typ host …". One that Walnut cannot use (another component, transport, type, a name for an
 * address) or has no room for is left out. */
static int parse_candidate(struct span v, struct sdp *s)
{
	struct span foundation, component, transport, priority, address, port, typ, type;
	struct sdp_candidate c;
	unsigned long long n, p;

	if (!next_word(&v, &foundation) || !next_word(&v, &component) || !next_word(&v, &transport) || !next_word(&v, &priority) ||
	    !next_word(&v, &address) || !next_word(&v, &port) || !next_word(&v, &typ) || !next_word(&v, &type))
		return -EINVAL;
	if (number(component, 256, &n) != 0 || number(priority, UINT32_MAX, &p) != 0 || number(port, 65535, &p) != 0 ||
	    !span_eq(typ, SPAN_LIT("typ")))
		return -EINVAL;
	if (span_eq(type, SPAN_LIT("host")))
		c.type = SDP_HOST;
	else if (span_eq(type, SPAN_LIT("srflx")))
		c.type = SDP_SRFLX;
	else
		return 0;
	if (n != 1 || p == 0 || !span_caseeq(transport, s->proto == SDP_TCP ? SPAN_LIT("TCP") : SPAN_LIT("UDP")))
		return 0;
	if (wn_ip_parse(address, &c.addr) != 0 || s->ncand == SDP_CANDIDATES_MAX)
		return 0;
	c.addr.port = (uint16_t)p;
	s->cand[s->ncand++] = c;
	return 0;
}

enum { SEEN_PORT = 1, SEEN_TAG = 2, SEEN_EXPIRES = 4, SEEN_SETUP = 8 };

static int once(unsigned *seen, unsigned what)
{
	if (*seen & what)
		return -EINVAL;
	*seen |= what;
	return 0;
}

/* An attribute of the chosen medium, "name" or "name:value". */
static int parse_attribute(struct span v, struct sdp *s, unsigned *seen)
{
	const char *colon = v.n != 0 ? memchr(v.p, ':', v.n) : NULL;
	struct span name = v, value = {0};
	unsigned long long n;

	if (colon != NULL) {
		name.n = (size_t)(colon - v.p);
		value = span_of(colon + 1, v.n - name.n - 1);
	}
	if (span_eq(name, SPAN_LIT("candidate")))
		return parse_candidate(value, s);
	if (span_eq(name, SPAN_LIT("setup"))) {
		if (once(seen, SEEN_SETUP) != 0)
			return -EINVAL;
		s->answer = span_eq(value, SPAN_LIT("passive"));
		return 0;
	}
	if (span_eq(name, SPAN_LIT("walnut-port"))) {
		if (once(seen, SEEN_PORT) != 0 || number(value, 65535, &n) != 0)
			return -EINVAL;
		s->walnut_port = (uint16_t)n;
	} else if (span_eq(name, SPAN_LIT("walnut-expires"))) {
		if (once(seen, SEEN_EXPIRES) != 0 || number(value, UINT32_MAX, &n) != 0)
			return -EINVAL;
		s->expires_s = (uint32_t)n;
	} else if (span_eq(name, SPAN_LIT("walnut-tag"))) {
		if (once(seen, SEEN_TAG) != 0)
			return -EINVAL;
		/* Passing over a tag that is not known would open a hole for untagged packets that nobody asked for. */
		if (!span_eq(value, SPAN_LIT("siphash24")))
			return -ENOTSUP;
		s->tag = true;
	}
	return 0;
}

static const char *ip_type(const struct wn_addr *a)
{
	return wn_addr_is4(a) ? "IP4" : "IP6";
}

int sdp_parse(struct span body, struct sdp *out)
{
	struct sdp s = {0};
	struct span rest = body, line;
	unsigned seen = 0, o = 0, name = 0, t = 0, media = 0;
	bool chosen = false, here = false, session_c = false, media_c = false;
	int r;

	if (!next_line(&rest, &line) || !span_eq(line, SPAN_LIT("v=0")))
		return -EINVAL;
	while (next_line(&rest, &line)) {
		struct span v;

		if (line.n < 2 || line.p[1] != '=' || line.p[0] < 'a' || line.p[0] > 'z' || memchr(line.p, 0, line.n) != NULL ||
		    memchr(line.p, '\r', line.n) != NULL)
			return -EINVAL;
		v = span_of(line.p + 2, line.n - 2);
		r = 0;
		switch (line.p[0]) {
		case 'v':
			return -EINVAL;
		case 'o':
			o++;
			break;
		case 's':
			name++;
			break;
		case 't':
			t++;
			break;
		case 'c':
			if (media == 0) {
				if (session_c)
					return -EINVAL;
				session_c = true;
				r = parse_connection(v, &s.conn);
			} else if (here) {
				if (media_c)
					return -EINVAL;
				media_c = true;
				r = parse_connection(v, &s.conn);
			}
			break;
		case 'm':
			media++;
			here = false;
			if (!chosen) {
				r = parse_media(v, &s);
				chosen = here = r == 0;
				r = r < 0 ? r : 0;
			}
			break;
		case 'a':
			if (here)
				r = parse_attribute(v, &s, &seen);
			break;
		default:
			break;
		}
		if (r != 0)
			return r;
	}
	if (o != 1 || name != 1 || t == 0)
		return -EINVAL;
	if (!chosen)
		return -ENOTSUP;
	if (!session_c && !media_c)
		return -EINVAL;
	*out = s;
	return 0;
}

void sdp_build(struct sip_buf *b, const struct sdp *s, uint64_t session_id)
{
	const char *proto = s->proto == SDP_TCP ? "TCP" : "UDP";
	char ip[WN_ADDR_STR];

	wn_ip_str(&s->conn, ip);
	sip_printf(b, "v=0\r\no=- %" PRIu64 " 1 IN %s %s\r\ns=-\r\nc=IN %s %s\r\nt=0 0\r\n", session_id, ip_type(&s->conn), ip,
		   ip_type(&s->conn), ip);
	sip_printf(b, "m=" MEDIA_TYPE " %u %s " MEDIA_FORMAT "\r\n", (unsigned)s->conn.port, proto);
	if (s->proto == SDP_TCP)
		sip_printf(b, "a=setup:%s\r\na=connection:new\r\n", s->answer ? "passive" : "active");
	for (unsigned i = 0; i < s->ncand && i < SDP_CANDIDATES_MAX; i++) {
		const struct sdp_candidate *c = &s->cand[i];
		bool host = c->type == SDP_HOST;

		sip_printf(b, "a=candidate:%u 1 %s %" PRIu32 " %s %u typ %s", i + 1, proto, PRIORITY(host ? 126 : 100),
			   wn_ip_str(&c->addr, ip), (unsigned)c->addr.port, host ? "host" : "srflx");
		/* RFC 8839 5.1 wants a related address, and lets one that is nobody's business be this. */
		if (!host)
			sip_puts(b, wn_addr_is4(&c->addr) ? " raddr 0.0.0.0 rport 9" : " raddr :: rport 9");
		if (s->proto == SDP_TCP)
			sip_printf(b, " tcptype %s", s->answer ? "passive" : "active");
		sip_puts(b, "\r\n");
	}
	if (s->walnut_port != 0)
		sip_printf(b, "a=walnut-port:%u\r\n", (unsigned)s->walnut_port);
	if (s->tag)
		sip_puts(b, "a=walnut-tag:siphash24\r\n");
	if (s->expires_s != 0)
		sip_printf(b, "a=walnut-expires:%" PRIu32 "\r\n", s->expires_s);
}
