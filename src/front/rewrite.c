/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <strings.h>

#include "front/internal.h"

/* By name too, not only by the parser's id: whatever spelling a later parser lets through must not become an identity. */
static bool front_only(const struct sip_hdr *h)
{
	static const struct span name[] = {{"p-asserted-identity", 19}, {"x-walnut", 8}};

	if (h->id == SIP_HDR_P_ASSERTED_IDENTITY || h->id == SIP_HDR_X_WALNUT)
		return true;
	for (unsigned i = 0; i < sizeof(name) / sizeof(name[0]); i++)
		if (h->name.n >= name[i].n && strncasecmp(h->name.p, name[i].p, name[i].n) == 0)
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
	struct sip_nameaddr na;
	struct sip_uri uri;

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

void rewrite_headers(struct sip_buf *b, const struct sip_msg *m, unsigned how, struct span domain)
{
	const struct span ours = (how & REWRITE_ROUTE_TOP) != 0 ? rewrite_route_user(m) : span_of(NULL, 0);
	bool popped_via = false, popping_route = (how & REWRITE_ROUTE_TOP) != 0, first_route = true;

	for (unsigned i = 0; i < m->nhdr; i++) {
		const struct sip_hdr *h = &m->hdr[i];
		struct span rest = h->value, item;

		if (front_only(h))
			continue;
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
			if (!sip_list_next(&rest, &item))
				continue;
			while (sip_list_next(&rest, &item))
				put_header(b, h->name, item);
			continue;
		case SIP_HDR_ROUTE:
			if ((how & REWRITE_ROUTE_ALL) != 0)
				continue;
			if (!popping_route)
				break;
			while (sip_list_next(&rest, &item)) {
				struct span user = first_route ? ours : route_user(item);

				popping_route = popping_route && (first_route || (ours.p != NULL && user.p != NULL && span_eq(user, ours)));
				first_route = false;
				if (!popping_route)
					put_header(b, h->name, item);
			}
			continue;
		case SIP_HDR_PROXY_AUTHORIZATION:
			if ((how & REWRITE_CREDENTIALS) != 0 && our_credentials(h, domain))
				continue;
			break;
		default:
			break;
		}
		put_header(b, h->name, h->value);
	}
}

void rewrite_response(struct sip_buf *b, const struct sip_msg *m)
{
	sip_printf(b, "SIP/2.0 %u ", m->status);
	sip_put(b, m->reason);
	sip_put(b, SPAN_LIT("\r\n"));
	rewrite_headers(b, m, REWRITE_VIA_POP, span_of(NULL, 0));
}

void rewrite_end(struct sip_buf *b, const struct sip_msg *m)
{
	sip_printf(b, "Content-Length: %zu\r\n\r\n", m->body.n);
	sip_put(b, m->body);
}
