/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "peer/peer.h"

static void pins(void **state)
{
	const char *good = "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
	char text[PEER_PIN_STR];
	struct peer_pin p;

	(void)state;
	assert_int_equal(peer_pin_parse(span_str(good), &p), 0);
	for (unsigned i = 0; i < PEER_PIN_BYTES; i++)
		assert_int_equal(p.sha256[i], i);
	assert_string_equal(peer_pin_str(&p, text), good);
	assert_true(peer_pin_parse(span_of(good, 49), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT(""), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha512:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9"), &p) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pins),
	};

	return cmocka_run_group_tests_name("identity", tests, NULL, NULL);
}
