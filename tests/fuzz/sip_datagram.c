/* SPDX-License-Identifier: Apache-2.0 */
/* sip_parse on a datagram: what it accepts is whole, and its answer parses. */
#include "sip_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static struct sip_msg m, again;
	struct span in = span_of(data, n);
	enum sip_verdict v = parse_twice(in, false, &m);

	/* Nothing at all: UBSan watches that no null pointer is moved. */
	CHECK(n != 0 || (sip_parse((struct span){0}, false, &m) == SIP_NOT_SIP && sip_parse((struct span){0}, true, &m) == SIP_INCOMPLETE));
	CHECK(v < SIP_VERDICTS && v != SIP_INCOMPLETE);
	CHECK(sip_verdict_name(v) != NULL);
	if (v != SIP_OK)
		return 0;
	check_message(&m, in);
	/* The message alone reads as it did with what stood around it, if the length was stated. */
	CHECK(sip_parse(m.raw, false, &again) == SIP_OK);
	CHECK(again.nhdr == m.nhdr && span_eq(again.body, m.body) && again.consumed == m.raw.n);
	return 0;
}
