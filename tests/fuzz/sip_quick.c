/* SPDX-License-Identifier: Apache-2.0 */
/* sip_quick: both kinds say the same, and of a message that sip_parse takes they say what it says. */
#include <string.h>

#include "fuzz.h"
#include "sip/quick.h"

static unsigned count(const struct sip_msg *m, enum sip_hdr_id id)
{
	unsigned n = 0;

	for (const struct sip_hdr *h = sip_hdr_first(m, id); h != NULL; h = sip_hdr_next(m, h))
		n++;
	return n;
}

static void agrees(const struct sip_quick *q, const struct sip_msg *m)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_PROXY_AUTHORIZATION);
	struct sip_nameaddr route;
	struct sip_uri uri;
	struct span rest, item;

	CHECK(q->request == m->request && (!m->request || q->method == m->method));
	CHECK(q->nproxy_authorization == count(m, SIP_HDR_PROXY_AUTHORIZATION));
	CHECK(q->proxy_authorization.p == (h != NULL ? h->value.p : NULL) && q->proxy_authorization.n == (h != NULL ? h->value.n : 0));
	CHECK(q->nroute == count(m, SIP_HDR_ROUTE));
	h = sip_hdr_first(m, SIP_HDR_ROUTE);
	CHECK(q->route.p == (h != NULL ? h->value.p : NULL) && q->route.n == (h != NULL ? h->value.n : 0));
	if (h == NULL) {
		CHECK(q->route_user.p == NULL);
		return;
	}
	rest = h->value;
	if (sip_list_next(&rest, &item) && sip_parse_nameaddr(item, &route) == 0 && sip_parse_uri(route.uri, &uri) == 0)
		CHECK(uri.user.p == q->route_user.p && uri.user.n == q->route_user.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct sip_msg m;
	struct span in = span_of(data, n);
	struct sip_quick q, scalar;
	bool ok = sip_quick(in, &q);

	CHECK(sip_quick_scalar(in, &scalar) == ok);
	if (!ok)
		return 0;
	CHECK(memcmp(&q, &scalar, sizeof(q)) == 0);
	CHECK(q.start_line.n > 0 && inside(q.start_line, in) && inside(q.proxy_authorization, in) && inside(q.route_user, q.route));
	CHECK(inside(q.route, in) && (q.route.p != NULL) == (q.nroute != 0));
	CHECK((q.proxy_authorization.p != NULL) == (q.nproxy_authorization != 0));
	if (sip_parse(in, false, &m) == SIP_OK)
		agrees(&q, &m);
	return 0;
}
