/* SPDX-License-Identifier: Apache-2.0 */
/* sdp_parse: what it accepts is built again and means the same. */
#include "sip/sdp.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct sdp s, again;
	struct sip_buf b;
	char text[4096];

	if (sdp_parse(span_of(data, n), &s) != 0)
		return 0;
	CHECK(s.ncand <= SDP_CANDIDATES_MAX && s.conn.port != 0);
	sip_buf_init(&b, text, sizeof(text));
	sdp_build(&b, &s, n);
	CHECK(!b.overflow);
	CHECK(sdp_parse(sip_buf_span(&b), &again) == 0);
	CHECK(s.proto == again.proto && wn_addr_eq(&s.conn, &again.conn) && s.ncand == again.ncand);
	for (unsigned i = 0; i < s.ncand; i++)
		CHECK(s.cand[i].type == again.cand[i].type && wn_addr_eq(&s.cand[i].addr, &again.cand[i].addr) && s.cand[i].addr.port != 0);
	CHECK(s.walnut_port == again.walnut_port && s.tag == again.tag && s.expires_s == again.expires_s);
	CHECK(s.proto == SDP_UDP || s.answer == again.answer);
	return 0;
}
