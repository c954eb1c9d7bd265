/* SPDX-License-Identifier: Apache-2.0 */
/* The finders of src/sip/scan.h: with and without vector instructions the same byte is found, from any start to any end, and none outside
 * is read. The first byte chooses how much of the input stands before the start and can be read. */
#include "fuzz.h"
#include "sip/scan.h"

#define FINDERS 5

static const char *find(unsigned which, const char *p, const char *end, const char *base, bool vector)
{
	switch (which) {
	case 0:
		return sip_find_control(p, end, base, vector);
	case 1:
		return sip_find_uri_stop(p, end, base, vector);
	case 2:
		return sip_find_word_end(p, end, base, vector);
	case 3:
		return sip_find_list(p, end, base, vector);
	default:
		return sip_find_quote(p, end, base, vector);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	const char *in = (const char *)data;
	size_t base;

	if (n == 0 || n > 160)
		return 0;
	base = data[0] % n;
	for (unsigned which = 0; which < FINDERS; which++) {
		for (size_t from = base; from <= n && from < base + 20; from++) {
			for (size_t to = from; to <= n; to++) {
				const char *want = find(which, in + from, in + to, in + base, false);

				CHECK(want >= in + from && want <= in + to);
				CHECK(find(which, in + from, in + to, in + base, true) == want);
			}
		}
	}
	return 0;
}
