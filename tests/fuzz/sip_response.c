/* SPDX-License-Identifier: Apache-2.0 */
/* Answers: what is written for any request and from any source is parsed again, belongs to the request, says where it goes, and fits the
 * buffer or is not there at all. The first 20 bytes are source address, port and status; the rest is the request. */
#include <string.h>

#include "sip_check.h"

enum { HEAD = 20 };

static size_t write_to(char *p, size_t cap, const struct sip_msg *m, unsigned status, const struct wn_addr *src, bool *overflow)
{
	struct sip_buf b;

	sip_buf_init(&b, p, cap);
	sip_put_response(&b, m, status, "Reason: any", SPAN_LIT("0123456789abcdef"), src);
	sip_put_end(&b, SPAN_LIT("application/sdp"), SPAN_LIT("v=0\r\n"));
	*overflow = b.overflow;
	return b.len;
}

/* The topmost Via says where the answer goes, as RFC 3261 18.2.1 and RFC 3581 4 have it. */
static void topmost(const struct sip_via *asked, const struct sip_via *v, const struct wn_addr *src)
{
	char ip[WN_ADDR_STR];
	struct wn_addr host;
	bool same = wn_ip_parse(asked->host, &host) == 0 && wn_ip_eq(&host, src);

	CHECK(span_eq(v->sent_by, asked->sent_by) && span_eq(v->branch, asked->branch) && span_eq(v->transport, asked->transport));
	CHECK(v->rport == asked->rport && (!v->rport || src->port == 0 || v->rport_value == src->port));
	CHECK((v->received.p != NULL) == (!same || asked->rport));
	if (v->received.p != NULL)
		CHECK(span_eq(v->received, span_str(wn_ip_str(src, ip))));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct sip_msg m, r;
	static char out[3 * SIP_MESSAGE_MAX];
	struct wn_addr src = {0};
	unsigned status;
	size_t len;
	bool overflow;
	char *exact;

	if (n < HEAD || sip_parse(span_of(data + HEAD, n - HEAD), false, &m) != SIP_OK || !m.request)
		return 0;
	memcpy(src.ip, data, sizeof(src.ip));
	/* Half of them IPv4. */
	if (data[0] & 1)
		memcpy(src.ip, (const uint8_t[12]){[10] = 0xff, [11] = 0xff}, 12);
	src.port = (uint16_t)(data[16] << 8 | data[17]);
	status = 100 + (unsigned)(data[18] << 8 | data[19]) % 600;
	len = write_to(out, sizeof(out), &m, status, &src, &overflow);
	CHECK(!overflow && len > 0);

	exact = malloc(len);
	CHECK(exact != NULL && write_to(exact, len, &m, status, &src, &overflow) == len && !overflow && memcmp(exact, out, len) == 0);
	CHECK(write_to(exact, len - 1, &m, status, &src, &overflow) < len && overflow);
	CHECK(write_to(exact, len * data[18] / 256, &m, status, &src, &overflow) <= len && overflow);
	free(exact);

	/* rport=0 cannot be: no datagram comes from port 0. */
	if (len > SIP_MESSAGE_MAX || (m.via.rport && src.port == 0))
		return 0;
	CHECK(sip_parse(span_of(out, len), true, &r) == SIP_OK && r.consumed == len && !r.request && r.status == status);
	CHECK(span_eq(r.call_id, m.call_id) && r.cseq == m.cseq && r.method == m.method && span_eq(r.method_text, m.method_text));
	CHECK(span_eq(r.from, m.from) && span_eq(r.to_tag, m.to_tag.p != NULL ? m.to_tag : SPAN_LIT("0123456789abcdef")));
	CHECK(span_eq(r.body, SPAN_LIT("v=0\r\n")));
	topmost(&m.via, &r.via, &src);
	return 0;
}
