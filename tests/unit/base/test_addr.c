/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/addr.h"

static void parses(void **state)
{
	static const struct {
		const char *in;
		int port;
		const char *out; /* NULL: refused */
	} cases[] = {
		{"192.0.2.1:5060", -1, "192.0.2.1:5060"},
		{"[2001:db8::1]:5060", -1, "[2001:db8::1]:5060"},
		{"192.0.2.1", 7, "192.0.2.1:7"},
		{"[2001:db8::1]", 7, "[2001:db8::1]:7"},
		{"2001:db8::1", 7, "[2001:db8::1]:7"},
		{"::ffff:192.0.2.1", 7, "192.0.2.1:7"},
		{"192.0.2.1:0", -1, "192.0.2.1:0"},
		{"192.0.2.1", -1, NULL},
		{"192.0.2.1:", 7, NULL},
		{"192.0.2.1:65536", 7, NULL},
		{"192.0.2.1:-1", 7, NULL},
		{"192.0.2.1: 5", 7, NULL},
		{"192.0.2:5", 7, NULL},
		{"192.0.2.256:5", 7, NULL},
		{"192.0.2.1.1:5", 7, NULL},
		{"[192.0.2.1]:5", 7, NULL},
		{"[2001:db8::1", 7, NULL},
		{"2001:db8::1]:5", 7, NULL},
		{"[2001:db8::1]5", 7, NULL},
		{"[]:5", 7, NULL},
		{"[fe80::1%eth0]:5", 7, NULL},
		{"", 7, NULL},
		{":5", 7, NULL},
		{"example.org:5", 7, NULL},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct wn_addr a;
		char buf[WN_ADDR_STR];

		if (cases[i].out == NULL) {
			assert_int_equal(wn_addr_parse(span_str(cases[i].in), cases[i].port, &a), -EINVAL);
			continue;
		}
		assert_int_equal(wn_addr_parse(span_str(cases[i].in), cases[i].port, &a), 0);
		assert_string_equal(wn_addr_str(&a, buf), cases[i].out);
	}
}

/* IPv4 is read and written without the library, and as it does. */
static void as_the_library(void **state)
{
	static const char digits[] = "0123456789..";
	uint32_t random = 1;

	(void)state;
	for (unsigned round = 0; round < 200000; round++) {
		char text[24], back[WN_ADDR_STR], want[INET_ADDRSTRLEN];
		struct in_addr in;
		struct wn_addr a;
		int ok;

		random = random * 1664525 + 1013904223;
		if (round % 2 == 0) {
			unsigned n = random >> 28;

			for (unsigned i = 0; i < n; i++) {
				random = random * 1664525 + 1013904223;
				text[i] = digits[(random >> 16) % (sizeof(digits) - 1)];
			}
			text[n] = 0;
		} else {
			snprintf(text, sizeof(text), round % 3 == 0 ? "%u.%u.%u.0%u" : "%u.%u.%u.%u", random >> 23, random >> 15 & 0x1ff,
				 random >> 24, random >> 7 & 0xff);
		}
		ok = inet_pton(AF_INET, text, &in);
		assert_int_equal(wn_ip_parse(span_str(text), &a), ok == 1 ? 0 : -EINVAL);
		if (ok != 1)
			continue;
		assert_memory_equal(a.ip + 12, &in, 4);
		assert_true(wn_addr_is4(&a));
		assert_string_equal(wn_ip_str(&a, back), inet_ntop(AF_INET, &in, want, sizeof(want)));
	}
}

static void longest(void **state)
{
	struct wn_addr a;
	char buf[WN_ADDR_STR];

	(void)state;
	assert_int_equal(wn_addr_parse(SPAN_LIT("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"), -1, &a), 0);
	assert_string_equal(wn_addr_str(&a, buf), "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535");
	assert_string_equal(wn_ip_str(&a, buf), "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
	assert_int_equal(wn_ip_parse(SPAN_LIT("0000000000000000000000000000000000000000000000000:1"), &a), -EINVAL);
	assert_int_equal(wn_ip_parse(SPAN_LIT("192.0.2.1\0"), &a), -EINVAL);
}

static void sockaddrs(void **state)
{
	static const char *const texts[] = {"192.0.2.1:5060", "[2001:db8::1]:5060"};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		struct wn_addr a, b;
		struct sockaddr_storage ss;

		assert_int_equal(wn_addr_parse(span_str(texts[i]), -1, &a), 0);
		assert_int_equal(wn_addr_to_sockaddr(&a, &ss), i == 0 ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		assert_int_equal(ss.ss_family, i == 0 ? AF_INET : AF_INET6);
		wn_addr_from_sockaddr(&b, &ss);
		assert_true(wn_addr_eq(&a, &b));
		assert_int_equal(wn_addr_is4(&b), i == 0);
		b.port++;
		assert_true(wn_ip_eq(&a, &b));
		assert_false(wn_addr_eq(&a, &b));
	}
}

static bool has(const char *prefix, const char *ip)
{
	struct wn_prefix p;
	struct wn_addr a;

	assert_int_equal(wn_prefix_parse(span_str(prefix), &p), 0);
	assert_int_equal(wn_ip_parse(span_str(ip), &a), 0);
	return wn_prefix_has(&p, &a);
}

static void prefixes(void **state)
{
	struct wn_prefix p;

	(void)state;
	assert_true(has("198.18.0.0/15", "198.19.255.255"));
	assert_false(has("198.18.0.0/15", "198.20.0.0"));
	assert_false(has("198.18.0.0/15", "198.17.255.255"));
	assert_true(has("192.0.2.1/32", "192.0.2.1"));
	assert_false(has("192.0.2.1/32", "192.0.2.0"));
	assert_true(has("0.0.0.0/0", "255.255.255.255"));
	assert_false(has("0.0.0.0/0", "2001:db8::1"));
	assert_true(has("2001:db8::/33", "2001:db8:7fff::1"));
	assert_false(has("2001:db8::/33", "2001:db8:8000::1"));
	assert_true(has("::/0", "2001:db8::1"));
	assert_false(has("::/0", "192.0.2.1"));
	assert_true(has("2001:db8::1/128", "2001:db8::1"));
	assert_int_equal(wn_prefix_parse(SPAN_LIT("198.18.0.1/16"), &p), -EINVAL);
	assert_int_equal(wn_prefix_parse(SPAN_LIT("198.18.0.0/33"), &p), -EINVAL);
	assert_int_equal(wn_prefix_parse(SPAN_LIT("198.18.0.0/"), &p), -EINVAL);
	assert_int_equal(wn_prefix_parse(SPAN_LIT("198.18.0.0"), &p), -EINVAL);
	assert_int_equal(wn_prefix_parse(SPAN_LIT("/8"), &p), -EINVAL);
	assert_int_equal(wn_prefix_parse(SPAN_LIT("2001:db8::/129"), &p), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parses),    cmocka_unit_test(as_the_library), cmocka_unit_test(longest),
		cmocka_unit_test(sockaddrs), cmocka_unit_test(prefixes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
