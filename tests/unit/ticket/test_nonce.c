/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/b64.h"
#include "ticket/nonce.h"

#define LIFETIME 30000u
#define NOW      (1u << 20) /* a multiple of 256 ms */
#define REALM    SPAN_LIT("example.org/20781")

static const uint8_t key[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

static struct nonce_window *window(unsigned bits)
{
	struct nonce_window *w;

	assert_int_equal(nonce_window_new(bits, LIFETIME, key, &w), 0);
	return w;
}

static void life(void **state)
{
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	char text[NONCE_CHARS], other[NONCE_CHARS];
	uint64_t n = 99, m = 99;

	(void)state;
	nonce_issuer_init(&i, w);
	nonce_issue(&i, &src, REALM, 0, NOW, text);
	nonce_issue(&i, &src, REALM, 0, NOW, other);
	assert_memory_not_equal(text, other, NONCE_CHARS);
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_OK);
	assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_OK);
	assert_int_not_equal(n, m);
	assert_int_equal(nonce_use(w, n), NONCE_OK);
	assert_int_equal(nonce_use(w, n), NONCE_USED);
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_USED);
	/* The neighbour in the same word is not touched. */
	assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_OK);
	for (unsigned k = 0; k < NONCE_FAILS_MAX; k++) {
		assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_OK);
		nonce_fail(w, m);
	}
	assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_EXHAUSTED);
	for (unsigned k = 0; k < 20; k++)
		nonce_fail(w, m);
	assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_EXHAUSTED);
	/* Failures are no use, and never spill into the next cell. */
	assert_int_equal(nonce_use(w, m), NONCE_OK);
	assert_int_equal(nonce_check(w, span_of(other, NONCE_CHARS), &src, REALM, 0, NOW, &m), NONCE_USED);
	nonce_issue(&i, &src, REALM, 0, NOW, text);
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_OK);
	nonce_window_free(w);
}

static void age(void **state)
{
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	char text[NONCE_CHARS];
	struct span s = span_of(text, NONCE_CHARS);
	uint64_t n;
	/* The 32 bits of issue time wrap here. */
	const uint64_t times[] = {NOW, (1ull << 40) - 256};

	(void)state;
	nonce_issuer_init(&i, w);
	for (size_t k = 0; k < 2; k++) {
		nonce_issue(&i, &src, REALM, 0, times[k], text);
		assert_int_equal(nonce_check(w, s, &src, REALM, 0, times[k] + LIFETIME - 256, &n), NONCE_OK);
		assert_int_equal(nonce_check(w, s, &src, REALM, 0, times[k] + LIFETIME + 512, &n), NONCE_EXPIRED);
		assert_int_equal(nonce_check(w, s, &src, REALM, 0, times[k] + 86400000, &n), NONCE_EXPIRED);
		/* Another thread's clock may have been read a moment earlier. */
		assert_int_equal(nonce_check(w, s, &src, REALM, 0, times[k] - 300, &n), NONCE_OK);
	}
	nonce_window_free(w);
}

static void binding(void **state)
{
	static const struct {
		const char *issued, *shown;
		enum nonce_verdict v;
	} cases[] = {
		{"192.0.2.1:5060", "192.0.2.1:5060", NONCE_OK},
		{"192.0.2.1:5060", "192.0.2.1:40000", NONCE_OK}, /* the port may change */
		{"192.0.2.1:5060", "192.0.2.0:5060", NONCE_FOREIGN},
		{"192.0.2.1:5060", "192.0.3.1:5060", NONCE_FOREIGN},
		{"192.0.2.1:5060", "[2001:db8::1]:5060", NONCE_FOREIGN},
		{"[2001:db8:0:1::1]:5060", "[2001:db8:0:1:ffff::9]:5060", NONCE_OK}, /* the same /64 */
		{"[2001:db8:0:1::1]:5060", "[2001:db8:0:0::1]:5060", NONCE_FOREIGN},
		{"[2001:db8:0:1::1]:5060", "[3001:db8:0:1::1]:5060", NONCE_FOREIGN},
		/* Eight bytes that read the same in both families. */
		{"192.0.2.1:5060", "[c000:201::]:5060", NONCE_FOREIGN},
	};
	struct nonce_window *w = window(10), *other;
	struct nonce_issuer i;
	struct wn_addr src = addr("192.0.2.1:5060");
	char text[NONCE_CHARS], longest[1000];
	struct span s = span_of(text, NONCE_CHARS);
	uint8_t key2[16];
	uint64_t n;

	(void)state;
	nonce_issuer_init(&i, w);
	for (size_t k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct wn_addr a = addr(cases[k].issued), b = addr(cases[k].shown);

		nonce_issue(&i, &a, REALM, 0, NOW, text);
		assert_int_equal(nonce_check(w, s, &b, REALM, 0, NOW, &n), cases[k].v);
	}
	nonce_issue(&i, &src, REALM, 7, NOW, text);
	assert_int_equal(nonce_check(w, s, &src, REALM, 7, NOW, &n), NONCE_OK);
	assert_int_equal(nonce_check(w, s, &src, REALM, 0, NOW, &n), NONCE_FOREIGN);
	assert_int_equal(nonce_check(w, s, &src, SPAN_LIT("example.org/20782"), 7, NOW, &n), NONCE_FOREIGN);
	assert_int_equal(nonce_check(w, s, &src, SPAN_LIT("example.org/2078"), 7, NOW, &n), NONCE_FOREIGN);
	assert_int_equal(nonce_check(w, s, &src, SPAN_LIT("example.org/20781\0"), 7, NOW, &n), NONCE_FOREIGN);
	assert_int_equal(nonce_check(w, s, &src, (struct span){0}, 7, NOW, &n), NONCE_FOREIGN);

	/* Each bit of the key. */
	for (unsigned bit = 0; bit < 128; bit++) {
		memcpy(key2, key, 16);
		key2[bit / 8] ^= (uint8_t)(1u << bit % 8);
		assert_int_equal(nonce_window_new(10, LIFETIME, key2, &other), 0);
		assert_int_equal(nonce_check(other, s, &src, REALM, 7, NOW, &n), NONCE_FOREIGN);
		nonce_window_free(other);
	}
	/* Keys of one's own differ. */
	assert_int_equal(nonce_window_new(10, LIFETIME, NULL, &other), 0);
	assert_int_equal(nonce_check(other, s, &src, REALM, 7, NOW, &n), NONCE_FOREIGN);
	nonce_window_free(other);

	/* A realm of any length counts to its last byte. */
	memset(longest, 'r', sizeof(longest));
	for (size_t len = 300; len < 340; len++) {
		nonce_issue(&i, &src, span_of(longest, len), 0, NOW, text);
		assert_int_equal(nonce_check(w, s, &src, span_of(longest, len), 0, NOW, &n), NONCE_OK);
		assert_int_equal(nonce_check(w, s, &src, span_of(longest, len - 1), 0, NOW, &n), NONCE_FOREIGN);
		assert_int_equal(nonce_check(w, s, &src, span_of(longest, len + 1), 0, NOW, &n), NONCE_FOREIGN);
	}
	nonce_window_free(w);
}

static void forged(void **state)
{
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	char text[NONCE_CHARS], bad[NONCE_CHARS + 1];
	uint8_t raw[NONCE_BYTES];
	uint64_t n;

	(void)state;
	nonce_issuer_init(&i, w);
	nonce_issue(&i, &src, REALM, 0, NOW, text);
	assert_int_equal(b64url_decode(span_of(text, NONCE_CHARS), raw, sizeof(raw)), NONCE_BYTES);
	for (unsigned bit = 0; bit < NONCE_BYTES * 8; bit++) {
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
		b64url_encode(raw, sizeof(raw), bad);
		assert_int_equal(nonce_check(w, span_of(bad, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_FOREIGN);
		raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	/* Bits of the text: the two that carry nothing too, so that a nonce has one spelling. */
	for (unsigned bit = 0; bit < NONCE_CHARS * 8; bit++) {
		memcpy(bad, text, NONCE_CHARS);
		bad[bit / 8] = (char)(bad[bit / 8] ^ 1 << bit % 8);
		assert_true(nonce_check(w, span_of(bad, NONCE_CHARS), &src, REALM, 0, NOW, &n) >= NONCE_MALFORMED);
		assert_true(nonce_check(w, span_of(bad, NONCE_CHARS), &src, REALM, 0, NOW, &n) <= NONCE_FOREIGN);
	}
	memcpy(bad, text, NONCE_CHARS);
	bad[NONCE_CHARS] = 'A';
	assert_int_equal(nonce_check(w, span_of(bad, NONCE_CHARS + 1), &src, REALM, 0, NOW, &n), NONCE_MALFORMED);
	assert_int_equal(nonce_check(w, span_of(bad, NONCE_CHARS - 1), &src, REALM, 0, NOW, &n), NONCE_MALFORMED);
	assert_int_equal(nonce_check(w, (struct span){0}, &src, REALM, 0, NOW, &n), NONCE_MALFORMED);
	/* Numbers that were never issued cannot be used. */
	assert_int_equal(nonce_use(w, NONCE_BLOCK), NONCE_EXPIRED);
	assert_int_equal(nonce_use(w, UINT64_MAX), NONCE_EXPIRED);
	nonce_fail(w, UINT64_MAX);
	nonce_window_free(w);
}

/* The ring holds exactly its size: an older number is refused whether it was used or not, a younger one keeps its state. */
static void wraps(void **state)
{
	enum { RING = 1 << 10 };
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	static char text[3 * RING][NONCE_CHARS];
	uint64_t n;

	(void)state;
	nonce_issuer_init(&i, w);
	for (unsigned k = 0; k < 3 * RING; k++) {
		nonce_issue(&i, &src, REALM, 0, NOW, text[k]);
		if (k % 2 == 0)
			assert_int_equal(nonce_use(w, k), NONCE_OK);
		/* The oldest that is still held. */
		if (k >= RING && k % NONCE_BLOCK == NONCE_BLOCK - 1) {
			unsigned oldest = k + 1 - RING;

			assert_int_equal(nonce_check(w, span_of(text[oldest], NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_USED);
			assert_int_equal(nonce_check(w, span_of(text[oldest + 1], NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_OK);
			assert_int_equal(nonce_check(w, span_of(text[oldest - 1], NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_EXPIRED);
			assert_int_equal(nonce_check(w, span_of(text[oldest - 2], NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_EXPIRED);
			assert_int_equal(nonce_use(w, oldest - 2), NONCE_EXPIRED);
			nonce_fail(w, oldest - 2);
		}
	}
	/* What was said about old numbers did not rub off on those that have their place now. */
	for (unsigned k = 2 * RING; k < 3 * RING; k++)
		assert_int_equal(nonce_check(w, span_of(text[k], NONCE_CHARS), &src, REALM, 0, NOW, &n), k % 2 ? NONCE_OK : NONCE_USED);
	nonce_window_free(w);
}

/* Laps come round after 65,536 rings; a number of so long ago is still refused. */
static void laps(void **state)
{
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	char text[NONCE_CHARS], last[NONCE_CHARS];
	uint64_t n, old;

	(void)state;
	nonce_issuer_init(&i, w);
	nonce_issue(&i, &src, REALM, 0, NOW, text);
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &old), NONCE_OK);
	assert_int_equal(nonce_use(w, old), NONCE_OK);
	for (uint64_t blocks = 0; blocks < 65536ull * (1 << 10) / NONCE_BLOCK; blocks++) {
		i.next = i.end;
		nonce_issue(&i, &src, REALM, 0, NOW, last);
	}
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_EXPIRED);
	assert_int_equal(nonce_use(w, old), NONCE_EXPIRED);
	assert_int_equal(nonce_check(w, span_of(last, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_OK);
	assert_int_equal(nonce_use(w, n), NONCE_OK);
	nonce_window_free(w);
}

/* A thread that is slow to hand its block out does not hand out what the ring has left behind. */
static void slow_issuer(void **state)
{
	struct nonce_window *w = window(10);
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer slow, fast;
	char text[NONCE_CHARS];
	uint64_t n;

	(void)state;
	nonce_issuer_init(&slow, w);
	nonce_issuer_init(&fast, w);
	nonce_issue(&slow, &src, REALM, 0, NOW, text);
	for (unsigned k = 0; k < 5000; k++)
		nonce_issue(&fast, &src, REALM, 0, NOW, text);
	nonce_issue(&slow, &src, REALM, 0, NOW, text);
	assert_int_equal(nonce_check(w, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_OK);
	assert_int_equal(nonce_use(w, n), NONCE_OK);
	nonce_window_free(w);
}

#define THREADS 4

#define RACERS 2
#define ROUNDS 200000u

static struct nonce_window *shared;
static _Atomic unsigned arrived;

/* All racers leave within a few nanoseconds of each other: a barrier that sleeps would let the first be done before the second wakes. */
static void meet(unsigned round)
{
	unsigned spins = 0;

	atomic_fetch_add(&arrived, 1);
	while (atomic_load(&arrived) < (round + 1) * RACERS) {
		if (++spins % 1024 == 0)
			sched_yield();
	}
}

/* All threads use the same number at the same moment, and neighbours in its word: each number has one winner. */
static void *racer(void *arg)
{
	_Atomic unsigned *wins = arg;

	for (unsigned k = 0; k < ROUNDS; k++) {
		enum nonce_verdict v;

		meet(k);
		v = nonce_use(shared, k);
		if (v == NONCE_OK)
			atomic_fetch_add(&wins[k], 1);
		else if (v != NONCE_USED)
			atomic_fetch_add(&wins[k], 1000);
		nonce_fail(shared, k ^ 1);
	}
	return NULL;
}

static void one_winner(void **state)
{
	static _Atomic unsigned wins[ROUNDS];
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	pthread_t t[RACERS];
	static char text[ROUNDS][NONCE_CHARS];
	uint64_t n;

	(void)state;
	shared = window(18);
	nonce_issuer_init(&i, shared);
	for (unsigned k = 0; k < ROUNDS; k++)
		nonce_issue(&i, &src, REALM, 0, NOW, text[k]);
	for (unsigned k = 0; k < RACERS; k++)
		assert_int_equal(pthread_create(&t[k], NULL, racer, wins), 0);
	for (unsigned k = 0; k < RACERS; k++)
		pthread_join(t[k], NULL);
	for (unsigned k = 0; k < ROUNDS; k++) {
		assert_int_equal(wins[k], 1);
		assert_int_equal(nonce_check(shared, span_of(text[k], NONCE_CHARS), &src, REALM, 0, NOW, &n), NONCE_USED);
	}
	nonce_window_free(shared);
}

/* The same while the smallest ring is lapped all the time: each number is accepted at most once, whatever "head" and the words do, and a
 * fresh number is never refused because of an old one that had its place. */
#define CHASED 200000u

struct chase {
	_Atomic uint64_t newest;
	_Atomic uint8_t accepted[CHASED];
};

static void *chaser(void *arg)
{
	struct chase *c = arg;
	uint64_t n;

	while ((n = atomic_load(&c->newest)) < CHASED) {
		/* Around the newest, and around the edge where words are taken anew. */
		for (uint64_t k = 0; k < 48; k++) {
			const uint64_t back[2] = {k, (1 << 10) - 24 + k};

			for (unsigned e = 0; e < 2; e++) {
				if (back[e] < n && nonce_use(shared, n - back[e]) == NONCE_OK)
					atomic_fetch_add(&c->accepted[n - back[e]], 1);
			}
		}
	}
	return NULL;
}

static void never_twice_while_lapped(void **state)
{
	struct chase *c = calloc(1, sizeof(*c));
	struct wn_addr src = addr("192.0.2.1:5060");
	struct nonce_issuer i;
	pthread_t t[THREADS];
	char text[NONCE_CHARS];
	unsigned used = 0;

	(void)state;
	assert_non_null(c);
	shared = window(10);
	nonce_issuer_init(&i, shared);
	for (unsigned k = 0; k < THREADS; k++)
		assert_int_equal(pthread_create(&t[k], NULL, chaser, c), 0);
	for (uint64_t k = 0; k < CHASED; k++) {
		nonce_issue(&i, &src, REALM, 0, NOW, text);
		atomic_store(&c->newest, k);
	}
	atomic_store(&c->newest, CHASED);
	for (unsigned k = 0; k < THREADS; k++)
		pthread_join(t[k], NULL);
	for (unsigned k = 0; k < CHASED; k++) {
		assert_true(c->accepted[k] <= 1);
		used += c->accepted[k];
	}
	assert_true(used > 0);
	nonce_window_free(shared);
	free(c);
}

/* Several issuers never hand out one number twice. */
static void *issuer(void *arg)
{
	_Atomic uint8_t *seen = arg;
	struct wn_addr src = {.port = 1};
	struct nonce_issuer i;
	char text[NONCE_CHARS];
	uint64_t n;

	nonce_issuer_init(&i, shared);
	for (unsigned k = 0; k < 8000; k++) {
		nonce_issue(&i, &src, REALM, 0, NOW, text);
		if (nonce_check(shared, span_of(text, NONCE_CHARS), &src, REALM, 0, NOW, &n) != NONCE_OK || n >= 8000 * THREADS + 64)
			return arg;
		atomic_fetch_add(&seen[n], 1);
	}
	return NULL;
}

static void distinct(void **state)
{
	static _Atomic uint8_t seen[8000 * THREADS + 64];
	pthread_t t[THREADS];
	unsigned all = 0;

	(void)state;
	shared = window(20);
	for (unsigned k = 0; k < THREADS; k++)
		assert_int_equal(pthread_create(&t[k], NULL, issuer, seen), 0);
	for (unsigned k = 0; k < THREADS; k++) {
		void *failed;

		pthread_join(t[k], &failed);
		assert_null(failed);
	}
	for (unsigned k = 0; k < 8000 * THREADS + 64; k++) {
		assert_true(seen[k] <= 1);
		all += seen[k];
	}
	assert_int_equal(all, 8000 * THREADS);
	nonce_window_free(shared);
}

static void bounds(void **state)
{
	struct nonce_window *w;

	(void)state;
	assert_int_equal(nonce_window_new(9, LIFETIME, key, &w), -EINVAL);
	assert_int_equal(nonce_window_new(31, LIFETIME, key, &w), -EINVAL);
	nonce_window_free(NULL);
	assert_string_equal(nonce_verdict_name(NONCE_FOREIGN), "foreign");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(life),        cmocka_unit_test(age),        cmocka_unit_test(binding),
		cmocka_unit_test(forged),      cmocka_unit_test(wraps),      cmocka_unit_test(laps),
		cmocka_unit_test(slow_issuer), cmocka_unit_test(one_winner), cmocka_unit_test(never_twice_while_lapped),
		cmocka_unit_test(distinct),    cmocka_unit_test(bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
