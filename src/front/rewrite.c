/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "front/internal.h"

/* By name, not only by the parser's id: whatever spelling a later parser lets through must not become an identity. */
static bool front_only(const struct sip_hdr *h)
{
	static const struct span name[] = {{"p-asserted-identity", 19}, {"x-walnut", 8}};

	if (h->id == SIP_HDR_P_ASSERTED_IDENTITY || h->id == SIP_HDR_X_WALNUT)
		return true;
	for (unsigned i = 0; i < sizeof(name) / sizeof(name[0]); i++)
		if (h->name.n >= name[i].n && (h->name.p[0] | 0x20) == name[i].p[0] && strncasecmp(h->name.p, name[i].p, name[i].n) == 0)
			return true;
	return false;
}

static void put_unfolded(struct sip_buf *b, struct span v)
{
	size_t from = 0;

	for (size_t i = 0; i <= v.n; i++) {
		if (i < v.n && v.p[i] != '\r' && v.p[i] != '\n')
			continue;
		sip_put(b, span_of(v.p + from, i - from));
		if (i < v.n)
			sip_putc(b, ' ');
		from = i + 1;
	}
}

static void put_header(struct sip_buf *b, struct span name, struct span value)
{
	sip_put(b, name);
	sip_put(b, SPAN_LIT(": "));
	put_unfolded(b, value);
	sip_put(b, SPAN_LIT("\r\n"));
}

/* Ours, or so broken that nobody can tell whose. */
static bool our_credentials(const struct sip_hdr *h, struct span domain)
{
	struct digest_params p;
	int r = digest_parse(h->value, &p);

	if (r == -ENOTSUP)
		return false;
	if (r != 0 || p.realm.p == NULL)
		return true;
	return p.realm.n >= domain.n && strncasecmp(p.realm.p, domain.p, domain.n) == 0 &&
	       (p.realm.n == domain.n || p.realm.p[domain.n] == '/');
}

static struct span route_user(struct span value)
{
	const size_t token = ROUTE_TOKEN_CHARS + 1, user = sizeof("<sip:") - 1;
	struct sip_nameaddr na;
	struct sip_uri uri;

	/* Ours, nearly always. What stands behind a token that opens says nothing. */
	if (value.n > user + token && memcmp(value.p, "<sip:", user) == 0 && memchr(value.p + user, ':', token) == NULL) {
		const char *at = memchr(value.p + user, '@', token + 1);

		if (at != NULL && (size_t)(at - value.p) >= user + ROUTE_TOKEN_CHARS)
			return span_of(value.p + user, (size_t)(at - value.p) - user);
	}
	if (sip_parse_nameaddr(value, &na) != 0 || sip_parse_uri(na.uri, &uri) != 0)
		return span_of(NULL, 0);
	return uri.user;
}

struct span rewrite_route_user(const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_ROUTE);
	struct span rest, item;

	if (h == NULL)
		return span_of(NULL, 0);
	rest = h->value;
	return sip_list_next(&rest, &item) ? route_user(item) : span_of(NULL, 0);
}

/* What goes on as it stands is gathered, so that a run of lines is copied at once. */
struct run {
	const char *p, *end;
};

static void put_run(struct sip_buf *b, struct run *r)
{
	sip_put(b, span_of(r->p, (size_t)(r->end - r->p)));
	r->p = r->end = NULL;
}

/* Whether a line is written as put_header would write it. */
static bool as_we_write(const struct sip_msg *m, const struct sip_hdr *h)
{
	const char *name_end = h->name.p + h->name.n;

	return !m->folds && h->value.n > 0 && h->value.p == name_end + 2 && name_end[0] == ':' && name_end[1] == ' ' &&
	       h->value.p[h->value.n] == '\r';
}

/* A Route header without those of its values that are ours: the first of all, and those of the same user that follow it. *popping: only
 * such have come so far. */
static void put_foreign_routes(struct sip_buf *b, const struct sip_msg *m, const struct sip_hdr *h, bool *popping)
{
	const bool first_header = h == sip_hdr_first(m, SIP_HDR_ROUTE);
	struct span rest = h->value, item, ours, user;

	for (bool first = first_header; sip_list_next(&rest, &item); first = false) {
		if (*popping && !first) {
			ours = rewrite_route_user(m);
			user = route_user(item);
			*popping = ours.p != NULL && user.p != NULL && span_eq(user, ours);
		}
		if (!*popping)
			put_header(b, h->name, item);
	}
}

/* The first Via header without its first value. */
static void put_via_rest(struct sip_buf *b, const struct sip_msg *m, const struct sip_hdr *h)
{
	const char *end = m->via.text.p + m->via.text.n;
	struct span rest = span_of(end, (size_t)(h->value.p + h->value.n - end)), item;

	while (sip_list_next(&rest, &item))
		put_header(b, h->name, item);
}

void rewrite_headers(struct sip_buf *b, const struct sip_msg *m, unsigned how, struct span domain, const struct sip_hdr *proof)
{
	bool popped_via = false, popping_route = (how & REWRITE_ROUTE_TOP) != 0;
	struct run run = {NULL, NULL};

	for (unsigned i = 0; i < m->nhdr; i++) {
		const struct sip_hdr *h = &m->hdr[i];

		switch (h->id) {
		case SIP_HDR_CONTENT_LENGTH:
		case SIP_HDR_MAX_FORWARDS:
			continue;
		case SIP_HDR_VIA:
			if ((how & (REWRITE_VIA_POP | REWRITE_VIA_KEEP)) == 0)
				continue;
			if ((how & REWRITE_VIA_POP) == 0 || popped_via)
				break;
			popped_via = true;
			put_run(b, &run);
			put_via_rest(b, m, h);
			continue;
		case SIP_HDR_ROUTE:
			if ((how & REWRITE_ROUTE_ALL) != 0)
				continue;
			if (!popping_route)
				break;
			put_run(b, &run);
			put_foreign_routes(b, m, h, &popping_route);
			continue;
		case SIP_HDR_PROXY_AUTHORIZATION:
			if ((how & REWRITE_CREDENTIALS) != 0 && (h == proof || our_credentials(h, domain)))
				continue;
			break;
		default:
			if (front_only(h))
				continue;
			break;
		}
		if (!as_we_write(m, h)) {
			put_run(b, &run);
			put_header(b, h->name, h->value);
			continue;
		}
		if (run.end != h->name.p) {
			put_run(b, &run);
			run.p = h->name.p;
		}
		run.end = h->value.p + h->value.n + 2;
	}
	put_run(b, &run);
}

void rewrite_response(struct sip_buf *b, const struct sip_msg *m)
{
	const char *status = m->raw.p + sizeof("SIP/2.0 ") - 1;

	sip_put(b, SPAN_LIT("SIP/2.0 "));
	sip_put(b, span_of(status, (size_t)(m->reason.p + m->reason.n - status)));
	sip_put(b, SPAN_LIT("\r\n"));
	rewrite_headers(b, m, REWRITE_VIA_POP, span_of(NULL, 0), NULL);
}

void rewrite_end(struct sip_buf *b, const struct sip_msg *m)
{
	sip_put_end(b, span_of(NULL, 0), m->body);
}

void rewrite_max_forwards(struct sip_buf *b, const struct sip_msg *m)
{
	sip_put(b, SPAN_LIT("Max-Forwards: "));
	sip_put_number(b, m->max_forwards < 0 ? 69 : (size_t)m->max_forwards - 1);
	sip_put(b, SPAN_LIT("\r\n"));
}
