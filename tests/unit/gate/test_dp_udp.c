/* SPDX-License-Identifier: Apache-2.0 */
/* UDP holes through the real programs: tag, binding, replay, strip, lifetime. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dp_fixture.h"

static int setup(void **state)
{
	(void)state;
	fx_open();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fx_close();
	fx_remove();
	return 0;
}

static void no_hole(void **state)
{
	struct fx_packet p = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = 5000, .payload = (const uint8_t *)"x", .n = 1};

	(void)state;
	fx_expect_drop(GATE_OUTSIDE, &p, "no_hole");
	p.dst = "198.18.3.3";
	fx_expect_drop(GATE_OUTSIDE, &p, "not_public");
}

static void tag_every_length(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t payload[1504], sealed[1600];
	uint64_t counter = 1;

	(void)state;
	assert_int_equal(h.status, GATE_OK);
	assert_true(h.hole != 0 && h.public.port >= 1024);
	for (size_t i = 0; i < sizeof(payload); i++)
		payload[i] = (uint8_t)(i * 131 + 7);
	for (size_t n = 0; n <= 1472; n++) {
		for (int none = 0; none < 2; none++) {
			struct fx_packet in = {
				.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = h.public.port, .payload = sealed};
			struct fx_packet out = {
				.src = FX_CLIENT, .dst = FX_SERVICE, .sport = 4000, .dport = 53, .payload = payload, .n = n};

			in.fx = out.fx = none ? FX_NO_CSUM : 0;
			in.n = fx_seal(r.key, counter++, payload, n, sealed);
			fx_expect_out(GATE_OUTSIDE, &in, &out);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(no_hole, setup, teardown),
		cmocka_unit_test_setup_teardown(tag_every_length, setup, teardown),
	};
	int rc;

	if (!fx_up()) {
		printf("1..1\nok 1 # SKIP needs root\n");
		return 0;
	}
	rc = cmocka_run_group_tests_name("gate dp udp", tests, NULL, NULL);
	fx_down();
	return rc;
}
