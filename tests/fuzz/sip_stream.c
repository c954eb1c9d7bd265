/* SPDX-License-Identifier: Apache-2.0 */
/* sip_parse on a stream: where a message ends depends on nothing that comes after it, and no part of it is taken for a whole or refused. */
#include "sip_check.h"

static void check_cut(struct span in, size_t n)
{
	static struct sip_msg m;
	enum sip_verdict v = sip_parse(span_of(in.p, n), true, &m);

	CHECK(v == SIP_INCOMPLETE || v == SIP_KEEPALIVE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct sip_msg m, alone;
	struct span in = span_of(data, n);

	while (in.n != 0) {
		enum sip_verdict v = parse_twice(in, true, &m);

		if (v == SIP_KEEPALIVE) {
			CHECK(m.consumed == in.n);
			break;
		}
		if (v != SIP_OK)
			break;
		CHECK(m.consumed > 0);
		check_message(&m, in);
		CHECK(sip_parse(span_of(in.p, m.consumed), true, &alone) == SIP_OK);
		CHECK(alone.consumed == m.consumed && alone.nhdr == m.nhdr && span_eq(alone.body, m.body));
		CHECK(sip_parse(m.raw, false, &alone) == SIP_OK);
		CHECK(span_eq(alone.body, m.body) && span_eq(alone.call_id, m.call_id));
		check_cut(in, m.consumed - 1);
		check_cut(in, m.consumed / 2);
		check_cut(in, (size_t)(m.body.p - in.p) - 1);
		take(&in, m.consumed);
	}
	return 0;
}
