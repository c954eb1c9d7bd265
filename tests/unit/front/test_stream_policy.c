/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "front/flow.h"
#include "front/stream_policy.h"

/* Under a clock that stands still unless it is told. */

static const struct front_stream_limits limits = {.connections = 8,
						  .trusted = 4,
						  .per_address = 3,
						  .buffers = 2,
						  .handshakes = 2,
						  .handshakes_per_s = 20,
						  .due_ms = {[STREAM_DUE_HANDSHAKE] = 3000,
							     [STREAM_DUE_FIRST] = 5000,
							     [STREAM_DUE_STRANGER] = 10000,
							     [STREAM_DUE_TRUSTED] = 600000,
							     [STREAM_DUE_STALLED] = 7000}};
static const uint8_t key[16] = {1};
static struct stream_policy *p;

static int setup(void **state)
{
	(void)state;
	return stream_policy_new(&limits, key, 5, &p);
}

static int teardown(void **state)
{
	(void)state;
	stream_policy_free(p);
	return 0;
}

static struct wn_addr four(unsigned host)
{
	struct wn_addr a = {.port = 1};

	a.ip[10] = a.ip[11] = 0xff;
	a.ip[12] = 198;
	a.ip[13] = 18;
	a.ip[14] = (uint8_t)(host >> 8);
	a.ip[15] = (uint8_t)host;
	return a;
}

static uint32_t admit(unsigned host, bool tls, uint64_t now_ms)
{
	struct wn_addr a = four(host);
	uint32_t s = STREAM_NONE;

	assert_int_equal(stream_admit(p, &a, tls, now_ms, &s), STREAM_ADMITTED);
	return s;
}

static enum stream_admission refused(struct wn_addr a)
{
	uint32_t s;

	return stream_admit(p, &a, false, 0, &s);
}

/* The next that is due, which ends; and why. */
static uint32_t end_due(uint64_t now_ms, enum stream_due want)
{
	enum stream_due which;
	uint32_t s = stream_due(p, now_ms, &which);

	if (s != STREAM_NONE) {
		assert_int_equal(which, want);
		stream_release(p, s);
	}
	return s;
}

static void test_bad_limits(void **state)
{
	struct front_stream_limits l = limits;
	struct stream_policy *q;

	(void)state;
	l.connections = 0;
	assert_int_equal(stream_policy_new(&l, key, 0, &q), -EINVAL);
	l.connections = 1u << FRONT_SLOT_BITS;
	assert_int_equal(stream_policy_new(&l, key, 0, &q), -EINVAL);
	l = limits;
	l.per_address = 0;
	assert_int_equal(stream_policy_new(&l, key, 0, &q), -EINVAL);
	l.per_address = 65536;
	assert_int_equal(stream_policy_new(&l, key, 0, &q), -EINVAL);
}

/* The oldest stranger goes, whatever else has happened to it meanwhile; one who is trusted does not. */
static void test_the_oldest_stranger_goes(void **state)
{
	uint32_t s[8], other;

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		s[i] = admit(i, false, i);
	assert_int_equal(refused(four(100)), STREAM_FULL);
	assert_int_equal(stream_victim(p), s[0]);
	stream_heard(p, s[0], 50);
	assert_int_equal(stream_victim(p), s[0]);
	assert_true(stream_trust(p, s[0], 50));
	assert_int_equal(stream_victim(p), s[1]);
	stream_release(p, s[1]);
	assert_int_equal(stream_victim(p), s[2]);
	other = admit(100, false, 60);
	assert_int_equal(other, s[1]);
	assert_int_equal(stream_slot(p, other)->generation, 6);
	assert_int_equal(refused(four(101)), STREAM_FULL);
	assert_int_equal(stream_victim(p), s[2]);
}

/* When all are trusted there is no room, and nobody is a victim. */
static void test_the_trusted_stay(void **state)
{
	uint32_t s[8];

	(void)state;
	for (unsigned i = 0; i < 8; i++)
		s[i] = admit(i, false, 0);
	for (unsigned i = 0; i < 4; i++)
		assert_true(stream_trust(p, s[i], 0));
	/* one over the number stays a stranger */
	assert_false(stream_trust(p, s[4], 0));
	assert_int_equal(stream_slot(p, s[4])->class, STREAM_STRANGER);
	assert_int_equal(stream_count(p, STREAM_TRUSTED), 4);
	for (unsigned i = 4; i < 8; i++) {
		assert_true(stream_has_room(p));
		assert_int_equal(stream_victim(p), s[i]);
		stream_release(p, s[i]);
	}
	assert_int_equal(stream_victim(p), STREAM_NONE);
	/* a place that has become free is one for trust, too */
	stream_release(p, s[0]);
	s[0] = admit(1, false, 0);
	assert_true(stream_trust(p, s[0], 0));
	assert_int_equal(stream_victim(p), STREAM_NONE);
}

static void test_no_room(void **state)
{
	struct front_stream_limits l = limits;
	struct stream_policy *mine = p;
	uint32_t s;

	(void)state;
	l.connections = 1;
	assert_int_equal(stream_policy_new(&l, key, 0, &p), 0);
	s = admit(1, false, 0);
	assert_true(stream_has_room(p));
	assert_true(stream_trust(p, s, 0));
	assert_false(stream_has_room(p));
	assert_int_equal(refused(four(2)), STREAM_FULL);
	stream_policy_free(p);
	p = mine;
}

static void test_per_address(void **state)
{
	struct wn_addr six = {.ip = {0x20, 1, 0xd, 0xb8, 0, 0, 0, 1}, .port = 9}, neighbour = six, elsewhere = six;
	uint32_t s[3], one;

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		s[i] = admit(7, false, 0);
	assert_int_equal(refused(four(7)), STREAM_PER_ADDRESS);
	one = admit(8, false, 0);
	stream_release(p, one);
	assert_int_equal(refused(four(7)), STREAM_PER_ADDRESS);
	stream_release(p, s[1]);
	s[1] = admit(7, false, 0);
	assert_int_equal(refused(four(7)), STREAM_PER_ADDRESS);
	/* trust does not lift it */
	assert_true(stream_trust(p, s[0], 0));
	assert_int_equal(refused(four(7)), STREAM_PER_ADDRESS);

	neighbour.ip[15] = 77; /* the same /64 */
	neighbour.ip[8] = 0xfe;
	elsewhere.ip[7] = 2;
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(stream_admit(p, i == 1 ? &neighbour : &six, false, 0, &one), STREAM_ADMITTED);
	assert_int_equal(refused(neighbour), STREAM_PER_ADDRESS);
	assert_int_equal(refused(six), STREAM_PER_ADDRESS);
	assert_int_equal(refused(elsewhere), STREAM_ADMITTED);
}

/* The table of addresses forgets nobody and keeps nobody, whatever the order of coming and going. */
static void test_addresses_come_and_go(void **state)
{
	enum { N = 600, HOSTS = 400 };
	struct front_stream_limits l = limits;
	struct stream_policy *mine = p;
	static unsigned host_of[N], have[HOSTS];
	uint32_t slot[N], x = 12345;
	unsigned n = 0;

	(void)state;
	l.connections = N;
	assert_int_equal(stream_policy_new(&l, key, 0, &p), 0);
	memset(have, 0, sizeof(have));
	for (unsigned step = 0; step < 200000; step++) {
		x = x * 1664525u + 1013904223u;
		if ((x >> 8) % 100 < 52 && n < N) {
			unsigned host = (x >> 16) % HOSTS;
			struct wn_addr a = four(host);
			enum stream_admission got = stream_admit(p, &a, false, step, &slot[n]);

			assert_int_equal(got, have[host] < l.per_address ? STREAM_ADMITTED : STREAM_PER_ADDRESS);
			if (got == STREAM_ADMITTED) {
				have[host]++;
				host_of[n++] = host;
			}
		} else if (n > 0) {
			unsigned at = (x >> 16) % n;

			stream_release(p, slot[at]);
			have[host_of[at]]--;
			slot[at] = slot[--n];
			host_of[at] = host_of[n];
		}
	}
	stream_policy_free(p);
	p = mine;
}

static void test_deadlines(void **state)
{
	uint32_t first, heard, tls, done, trusted, pinged;
	enum stream_due which;

	(void)state;
	first = admit(1, false, 1000);
	tls = admit(2, true, 1000);
	done = admit(3, true, 1000);
	heard = admit(4, false, 1000);
	trusted = admit(5, false, 1000);
	pinged = admit(6, false, 1000);
	stream_handshaken(p, done, 3000);
	stream_heard(p, heard, 4000);
	stream_pinged(p, first, 5500); /* no message: a stranger's ping buys nothing */
	assert_true(stream_trust(p, trusted, 2000));
	assert_true(stream_trust(p, pinged, 2000));

	assert_int_equal(stream_due(p, 3999, &which), STREAM_NONE);
	assert_int_equal(end_due(4000, STREAM_DUE_HANDSHAKE), tls);
	assert_int_equal(stream_due(p, 5999, &which), STREAM_NONE);
	assert_int_equal(end_due(6000, STREAM_DUE_FIRST), first);
	assert_int_equal(stream_due(p, 7999, &which), STREAM_NONE);
	assert_int_equal(end_due(8000, STREAM_DUE_FIRST), done);
	stream_heard(p, heard, 9000);
	assert_int_equal(stream_due(p, 18999, &which), STREAM_NONE);
	assert_int_equal(end_due(19000, STREAM_DUE_STRANGER), heard);

	stream_pinged(p, pinged, 300000);
	assert_int_equal(stream_due(p, 601999, &which), STREAM_NONE);
	assert_int_equal(end_due(602000, STREAM_DUE_TRUSTED), trusted);
	stream_heard(p, pinged, 700000);
	assert_int_equal(stream_due(p, 1299999, &which), STREAM_NONE);
	assert_int_equal(end_due(1300000, STREAM_DUE_TRUSTED), pinged);
	assert_int_equal(stream_due(p, 99999999, &which), STREAM_NONE);
}

/* A clock read earlier than the one that set the deadline is no reason to end anybody. */
static void test_an_earlier_clock(void **state)
{
	enum stream_due which;

	(void)state;
	admit(1, false, 1000);
	assert_int_equal(stream_due(p, 999, &which), STREAM_NONE);
}

static void test_stalled(void **state)
{
	uint32_t s = admit(1, false, 0), stranger = admit(2, false, 0);
	enum stream_due which;

	(void)state;
	assert_true(stream_trust(p, s, 0));
	stream_stall(p, s, 1000);
	stream_stall(p, s, 2000); /* it is the first moment that counts … */
	stream_heard(p, s, 3000); /* … and nothing that it says */
	stream_heard(p, stranger, 1000);
	assert_int_equal(stream_due(p, 7999, &which), STREAM_NONE);
	stream_unstall(p, s, 7999);
	assert_int_equal(stream_due(p, 8000, &which), STREAM_NONE);
	stream_stall(p, s, 9000);
	stream_heard(p, stranger, 9000);
	assert_int_equal(end_due(16000, STREAM_DUE_STALLED), s);
}

static void test_buffers(void **state)
{
	uint32_t a = admit(1, false, 0), b = admit(2, false, 0), c = admit(3, false, 0), first, second;

	(void)state;
	first = stream_buffer_take(p, a);
	assert_int_equal(stream_buffer_take(p, a), first); /* what it has it keeps */
	second = stream_buffer_take(p, b);
	assert_true(first != second && first < 2 && second < 2);
	assert_int_equal(stream_buffer_take(p, c), STREAM_NONE);
	assert_int_equal(stream_buffer_victim(p), a);
	stream_release(p, stream_buffer_victim(p));
	assert_int_equal(stream_buffer_take(p, c), first);
	assert_int_equal(stream_buffer_victim(p), b);
	/* one who is trusted has no use for it */
	assert_true(stream_trust(p, b, 0));
	assert_int_equal(stream_buffer_victim(p), c);
	stream_buffer_drop(p, c);
	assert_int_equal(stream_buffer_victim(p), STREAM_NONE);
	stream_buffer_drop(p, c);
	a = admit(1, false, 0);
	assert_true(stream_buffer_take(p, a) != stream_buffer_take(p, c));
}

/* 20 a second, a tenth of a second's at once. */
static void test_handshakes(void **state)
{
	uint32_t a, b, c;
	uint64_t now = 100000;
	unsigned n = 0;

	(void)state;
	while (stream_handshake_wait(p, now) == 0) {
		stream_handshake_count(p, now);
		n++;
	}
	assert_int_equal(n, 2);
	assert_int_equal(stream_handshake_wait(p, now), 50);
	assert_int_equal(stream_handshake_wait(p, now + 49), 1);
	for (now += 50; now < 101000; now++)
		if (stream_handshake_wait(p, now) == 0) {
			stream_handshake_count(p, now);
			n++;
		}
	assert_int_equal(n, 21);

	a = admit(1, true, 0);
	b = admit(2, true, 1);
	assert_int_equal(stream_handshake_victim(p), STREAM_NONE);
	c = admit(3, true, 2);
	assert_int_equal(stream_handshake_victim(p), a);
	stream_handshaken(p, b, 3);
	assert_int_equal(stream_handshake_victim(p), STREAM_NONE);
	/* in a handshake nothing can have been proven */
	assert_false(stream_trust(p, c, 3));
	assert_int_equal(stream_victim(p), a);
}

static void test_no_handshakes(void **state)
{
	struct front_stream_limits l = limits;
	struct stream_policy *q;

	(void)state;
	l.handshakes_per_s = 0;
	assert_int_equal(stream_policy_new(&l, key, 0, &q), 0);
	assert_true(stream_handshake_wait(q, 0) > 0);
	stream_policy_free(q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_bad_limits),       T(test_the_oldest_stranger_goes),
		T(test_the_trusted_stay), T(test_no_room),
		T(test_per_address),      T(test_addresses_come_and_go),
		T(test_deadlines),        T(test_an_earlier_clock),
		T(test_stalled),          T(test_buffers),
		T(test_handshakes),       T(test_no_handshakes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
