/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

/* Datagrams that were damaged on the way, as many as time allows, from a fixed seed: whatever they are, what must never happen does not. */

#define SEEDS 8

static struct world w;
static char seed[SEEDS][4096];
static size_t seed_n[SEEDS];
static uint64_t random_state = 88172645463325252u;

static uint32_t next_random(uint32_t below)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 32) % below;
}

static size_t damage(const char *from, size_t n, char *to)
{
	static const char special[] = "\r\n\t \0\"<>;:,=@/\\%[]()sipSIP0";
	unsigned times = 1 + next_random(4);

	memcpy(to, from, n);
	for (unsigned i = 0; i < times && n > 1; i++) {
		size_t at = next_random((uint32_t)n), len = 1 + next_random(24);

		if (len > n - at)
			len = n - at;
		switch (next_random(6)) {
		case 0:
			to[at] = (char)next_random(256);
			break;
		case 1:
			to[at] = special[next_random(sizeof(special) - 1)];
			break;
		case 2: /* cut out */
			memmove(to + at, to + at + len, n - at - len);
			n -= len;
			break;
		case 3: /* twice */
			if (n + len > 4000)
				break;
			memmove(to + at + len, to + at, n - at);
			n += len;
			break;
		case 4: /* cut off */
			n = at + 1;
			break;
		default: { /* a piece of another */
			unsigned other = next_random(SEEDS);
			size_t from_at = next_random((uint32_t)seed_n[other]);

			if (len > seed_n[other] - from_at)
				len = seed_n[other] - from_at;
			memcpy(to + at, seed[other] + from_at, len);
		}
		}
	}
	return n;
}

static void add_seed(unsigned i, const struct call *c)
{
	seed_n[i] = call_write(c, seed[i], sizeof(seed[i]));
}

static void make_seeds(const struct wn_addr *src)
{
	struct call c = {0}, d;
	static char route[256], answer[4096];
	struct digest_params p;
	size_t n;

	add_seed(0, &c);
	seed_n[1] = world_sign_in(&w, &c, &alice, src, seed[1], sizeof(seed[1]));
	n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	world_from_agent(&w, answer, n);
	assert_int_equal(span_cstr(header_of(world_net(&w), "Record-Route"), route, sizeof(route)), 0);
	memcpy(seed[2], w.net, w.a.net_n);
	seed_n[2] = w.a.net_n;
	d = (struct call){.method = "BYE", .uri = "sip:agent@example.org", .to_tag = "agenttag", .route = route};
	add_seed(3, &d);
	d.method = "ACK";
	add_seed(4, &d);
	d = (struct call){.method = "CANCEL"};
	add_seed(5, &d);
	d = (struct call){.call_id = "fresh", .extra = "P-Asserted-Identity: <sip:mallory@example.org>\r\nX-Walnut-Key: mallory\r\n"};
	world_call(&w, &d, src);
	world_challenge(&w, &p);
	call_authorize(&w, &d, &alice, p.realm, p.nonce);
	add_seed(6, &d);
	d = (struct call){.extra = "Subject: a\r\n\tb, \"c\r\n d\"\r\nRoute: <sip:a@b;lr>, <sip:c@d>\r\nx-walnut-key : mallory\r\n"};
	add_seed(7, &d);
}

/* Who has proven something may be answered with more than was sent. */
static bool proven(enum front_outcome o)
{
	switch (o) {
	case FRONT_forwarded:
	case FRONT_feed_stale:
	case FRONT_user_budget:
	case FRONT_service_budget:
	case FRONT_call_limit:
	case FRONT_no_agent:
	case FRONT_too_many_hops:
	case FRONT_cancelled:
		return true;
	default:
		return false;
	}
}

static void test_damaged_datagrams(void **state)
{
	const char *times = getenv("WALNUT_NOISE");
	unsigned long rounds = times != NULL ? strtoul(times, NULL, 10) : 40000;
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct wn_addr other = addr_of("198.19.4.9:1");

	(void)state;
	world_new(&w, NULL);
	w.policy[0].max_calls = 64;
	make_seeds(&src);
	for (unsigned long i = 0; i < rounds; i++) {
		const struct wn_addr *from = next_random(4) == 0 ? &other : &src;
		unsigned which = next_random(SEEDS);
		char *copy, buf[4200];
		struct front_look look;
		size_t n = damage(seed[which], seed_n[which], buf);

		copy = malloc(n); /* so that a sanitizer sees the first byte too many */
		memcpy(copy, buf, n);
		w.now_ms += next_random(3);
		enum front_class class = world_look(&w, copy, n, from, &look);
		enum front_outcome looked = w.a.outcome;
		world_send(&w, copy, n, from);
		/* what the first look refuses would not have gone on, nor, a replay whose credentials were damaged besides apart, been
		 * answered */
		assert_true(class != FRONT_CLASS_DONE || w.a.agent_n == 0);
		assert_true(class != FRONT_CLASS_DONE || w.a.net_n == 0 || looked == FRONT_replay);
		assert_true(w.a.net_n <= n || proven(w.a.outcome));
		if (w.a.net_n > 0)
			assert_true(wn_addr_eq(&w.a.to.addr, from));
		if (w.a.agent_n > 0) {
			struct sip_msg m;

			assert_ptr_equal(from, &src);
			assert_int_equal(sip_parse(world_agent(&w), true, &m), SIP_OK);
			assert_int_equal(m.consumed, w.a.agent_n);
			assert_null(sip_hdr_by_name(&m, SPAN_LIT("x-walnut-mallory")));
			for (unsigned h = 0; h < m.nhdr; h++) {
				bool ours = m.hdr[h].id == SIP_HDR_P_ASSERTED_IDENTITY || m.hdr[h].id == SIP_HDR_X_WALNUT;
				assert_false(ours && memmem(m.hdr[h].value.p, m.hdr[h].value.n, "mallory", 7) != NULL);
			}
		}
		world_from_agent(&w, copy, n);
		assert_true(w.a.net_n <= FRONT_OUT_MAX);
		free(copy);
		while (front_core_tick(w.core, w.now_ms, &w.a))
			;
	}
	world_free(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_damaged_datagrams)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
