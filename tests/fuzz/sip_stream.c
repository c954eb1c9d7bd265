/* SPDX-License-Identifier: Apache-2.0 */
/* sip_parse on a stream: where a message ends depends on nothing that comes after it, and no part of it is taken for a whole. What is said
 * of a part is said of the whole too, unless it was that more is wanted. */
#include "sip_check.h"

/* `whole` is the verdict on all of `in`, `took` the bytes of a message that was taken. */
static void check_cut(struct span in, size_t n, enum sip_verdict whole, size_t took)
{
	static struct sip_msg m;
	enum sip_verdict v = sip_parse(span_of(in.p, n), true, &m);

	if (whole == SIP_OK && n >= took)
		CHECK(v == SIP_OK && m.consumed == took);
	else if (whole == SIP_OK || whole == SIP_INCOMPLETE || whole == SIP_KEEPALIVE)
		CHECK(v == SIP_INCOMPLETE || v == SIP_KEEPALIVE);
	else
		CHECK(v == SIP_INCOMPLETE || v == SIP_KEEPALIVE || v == whole);
}

static void check_cuts(struct span in, enum sip_verdict whole, size_t took)
{
	const size_t step = in.n < 64 ? 1 : in.n / 29;

	for (size_t n = 0; n < in.n; n += step)
		check_cut(in, n, whole, took);
	check_cut(in, in.n - 1, whole, took);
	if (took > 1)
		check_cut(in, took - 1, whole, took);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct sip_msg m, alone;
	struct span in = span_of(data, n);

	while (in.n != 0) {
		enum sip_verdict v = parse_twice(in, true, &m);

		check_cuts(in, v, v == SIP_OK ? m.consumed : 0);
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
		check_cut(in, (size_t)(m.body.p - in.p) - 1, v, m.consumed);
		take(&in, m.consumed);
	}
	return 0;
}
