/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "front/explain.h"
#include "front/why.h"

static struct front_denial denial(uint64_t at_ms, const char *call_id, const char *user)
{
	struct front_denial d = {.at_ms = at_ms, .tenant = 0, .outcome = FRONT_user_budget};

	front_denial_names(&d, span_str(call_id), span_str(user));
	return d;
}

static void test_newest_first(void **state)
{
	struct front_denial out[FRONT_WHY_KEPT], d;
	struct front_why *w;
	char id[16];

	(void)state;
	assert_int_equal(front_why_new(&w), 0);
	assert_int_equal(front_why_read(w, FRONT_WHY_PROVEN, out), 0);
	for (unsigned i = 0; i < FRONT_WHY_KEPT + 10; i++) {
		snprintf(id, sizeof(id), "c%u", i);
		d = denial(i * 1000, id, "alice");
		front_why_note(w, FRONT_WHY_PROVEN, &d);
	}
	assert_int_equal(front_why_read(w, FRONT_WHY_PROVEN, out), FRONT_WHY_KEPT);
	for (unsigned i = 0; i < FRONT_WHY_KEPT; i++)
		assert_int_equal(out[i].at_ms, (FRONT_WHY_KEPT + 9 - i) * 1000);
	assert_int_equal(front_why_left_out(w, FRONT_WHY_PROVEN), 0);
	front_why_free(w);
}

/* A flood of strangers leaves the others' refusals where they are, and turns its own ring over slowly. */
static void test_flood(void **state)
{
	struct front_denial out[FRONT_WHY_KEPT], d = denial(5000, "mine", "alice");
	struct front_why *w;

	(void)state;
	assert_int_equal(front_why_new(&w), 0);
	front_why_note(w, FRONT_WHY_PROVEN, &d);
	d.outcome = FRONT_digest;
	front_why_note(w, FRONT_WHY_ANSWERED, &d);
	front_why_note(w, FRONT_WHY_STRANGER, &d);
	for (unsigned i = 0; i < 100000; i++) {
		d = denial(5001 + i / 1000, "flood", "");
		front_why_note(w, front_why_ring_of(FRONT_unknown_tenant, false), &d);
	}
	assert_int_equal(front_why_read(w, FRONT_WHY_PROVEN, out), 1);
	assert_true(front_denial_is_about(&out[0], SPAN_LIT("mine")));
	assert_int_equal(front_why_read(w, FRONT_WHY_ANSWERED, out), 1);
	/* a tenth of a second of it: a window of 128 ms or two */
	assert_in_range(front_why_read(w, FRONT_WHY_STRANGER, out), 8, 16);
	assert_true(front_why_left_out(w, FRONT_WHY_STRANGER) >= 100000 - 16);
	assert_int_equal(front_why_left_out(w, FRONT_WHY_PROVEN), 0);
	front_why_free(w);
}

static void test_rings(void **state)
{
	(void)state;
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++) {
		enum front_why_ring stranger = front_why_ring_of((enum front_outcome)o, false);

		/* nobody comes among the proven without proof, and proof never hides a refusal */
		assert_int_not_equal(stranger, FRONT_WHY_PROVEN);
		assert_int_equal(stranger == FRONT_WHY_RINGS, front_why_ring_of((enum front_outcome)o, true) == FRONT_WHY_RINGS);
	}
	assert_int_equal(front_why_ring_of(FRONT_user_budget, true), FRONT_WHY_PROVEN);
	assert_int_equal(front_why_ring_of(FRONT_no_agent, true), FRONT_WHY_PROVEN);
	assert_int_equal(front_why_ring_of(FRONT_no_agent, false), FRONT_WHY_STRANGER);
	assert_int_equal(front_why_ring_of(FRONT_digest, false), FRONT_WHY_ANSWERED);
	assert_int_equal(front_why_ring_of(FRONT_nonce_foreign, false), FRONT_WHY_STRANGER);
	assert_int_equal(front_why_ring_of(FRONT_challenged, false), FRONT_WHY_RINGS);
	assert_int_equal(front_why_ring_of(FRONT_forwarded, true), FRONT_WHY_RINGS);
}

static void test_about(void **state)
{
	char longer[FRONT_WHY_TEXT + 9], other[FRONT_WHY_TEXT + 9];
	struct front_denial d = denial(1, "call-1@host", "alice"), none = denial(1, "", "");

	(void)state;
	assert_true(front_denial_is_about(&d, SPAN_LIT("call-1@host")));
	assert_true(front_denial_is_about(&d, SPAN_LIT("alice")));
	assert_false(front_denial_is_about(&d, SPAN_LIT("call-1@hos")));
	assert_false(front_denial_is_about(&d, SPAN_LIT("call-1@host2")));
	assert_false(front_denial_is_about(&d, SPAN_LIT("alic")));
	assert_false(front_denial_is_about(&d, SPAN_LIT("")));
	assert_false(front_denial_is_about(&none, SPAN_LIT("")));
	assert_false(front_denial_is_about(&none, SPAN_LIT("x")));
	/* of a long Call-ID the beginning is kept */
	memset(longer, 'x', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = 0;
	memcpy(other, longer, sizeof(other));
	d = denial(1, longer, "");
	assert_true(d.cut);
	assert_true(front_denial_is_about(&d, span_str(longer)));
	other[3] = 'y';
	assert_false(front_denial_is_about(&d, span_str(other)));
	assert_false(front_denial_is_about(&d, SPAN_LIT("xxxx")));
}

static void *note_many(void *arg)
{
	for (unsigned i = 0; i < 50000; i++) {
		struct front_denial d = denial(i * 1000, i % 2 == 0 ? "even" : "odd-and-longer", i % 2 == 0 ? "even" : "odd-and-longer");

		d.status = (uint16_t)(i % 2);
		front_why_note(arg, FRONT_WHY_PROVEN, &d);
	}
	return NULL;
}

/* The writer goes on, and what is read is whole. */
static void test_read_meanwhile(void **state)
{
	struct front_denial out[FRONT_WHY_KEPT];
	struct front_why *w;
	uint64_t newest = 0;
	pthread_t t;

	(void)state;
	assert_int_equal(front_why_new(&w), 0);
	assert_int_equal(pthread_create(&t, NULL, note_many, w), 0);
	for (unsigned turn = 0; turn < 2000; turn++) {
		unsigned n = front_why_read(w, FRONT_WHY_PROVEN, out);

		for (unsigned i = 0; i < n; i++) {
			assert_true(front_denial_is_about(&out[i], out[i].status == 0 ? SPAN_LIT("even") : SPAN_LIT("odd-and-longer")));
			assert_int_equal(out[i].at_ms / 1000 % 2, out[i].status);
		}
		if (n > 0) {
			assert_true(out[0].at_ms >= newest);
			newest = out[0].at_ms;
		}
	}
	pthread_join(t, NULL);
	front_why_free(w);
}

static void test_every_outcome_is_explained(void **state)
{
	(void)state;
	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++) {
		const struct front_explanation *e = front_explain((enum front_outcome)o);
		const char *name = front_outcome_name((enum front_outcome)o);

		if (e->what == NULL)
			fail_msg("no explanation of %s", name);
		assert_int_equal(e->what[strlen(e->what) - 1], '.');
		/* whoever is refused is told what to do */
		if (front_why_ring_of((enum front_outcome)o, true) != FRONT_WHY_RINGS && e->mend == NULL)
			fail_msg("nothing to do about %s", name);
		if (e->mend != NULL)
			assert_int_equal(e->mend[strlen(e->mend) - 1], '.');
		assert_int_equal(front_outcome_find(name), (int)o);
	}
	assert_int_equal(front_outcome_find("boredom"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_newest_first),   cmocka_unit_test(test_flood),
		cmocka_unit_test(test_rings),          cmocka_unit_test(test_about),
		cmocka_unit_test(test_read_meanwhile), cmocka_unit_test(test_every_outcome_is_explained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
