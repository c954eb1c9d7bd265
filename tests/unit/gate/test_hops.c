/* SPDX-License-Identifier: Apache-2.0 */
/* What the packet path's table of next hops says for a given state of the kernel. */
#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "gate/hops.h"

#define WAN   3
#define LAN   4
#define OTHER 5

static struct gate_kernel k;
static struct gate_hops table[GATE_SIDES];

static uint32_t ip(const char *text)
{
	uint32_t v;

	assert_int_equal(inet_pton(AF_INET, text, &v), 1);
	return v;
}

static int fresh(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	k.link[GATE_OUTSIDE] = (struct gate_kernel_link){.ifindex = WAN, .mtu = 1500, .mac = {2, 0, 0, 0, 0, WAN}, .up = true};
	k.link[GATE_INSIDE] = (struct gate_kernel_link){.ifindex = LAN, .mtu = 1400, .mac = {2, 0, 0, 0, 0, LAN}, .up = true};
	return 0;
}

static struct gate_kernel_route *route(const char *dst, uint8_t bits, const char *gateway, uint32_t oif)
{
	struct gate_kernel_route *r = &k.route[k.nroutes++];

	*r = (struct gate_kernel_route){
		.ip = ip(dst), .bits = bits, .gateway = gateway != NULL ? ip(gateway) : 0, .oif = oif, .plain = true};
	return r;
}

static void neighbour(const char *addr, uint32_t ifindex, uint8_t mac)
{
	k.neighbour[k.nneighbours++] = (struct gate_kernel_neighbour){.ifindex = ifindex, .ip = ip(addr), .mac = {2, 1, 1, 1, 1, mac}};
}

/* As the path looks. */
static const struct gate_hop *look(int side, uint32_t dst)
{
	const struct gate_hops *t = &table[side];
	unsigned i;

	for (i = 0; i < GATE_HOP_WAYS; i++)
		if (t->host[GATE_HOP_HASH(dst)][i].prefix == dst)
			return &t->host[GATE_HOP_HASH(dst)][i];
	for (i = 0; i < GATE_HOP_PREFIXES && (dst & t->prefix[i].mask) != t->prefix[i].prefix; i++)
		;
	return &t->prefix[i];
}

/* Last byte of the next hop's link address; 0: the kernel is asked. */
static uint8_t to(int side, const char *dst)
{
	const struct gate_hop *h = look(side, ip(dst));

	if (h->kind != GATE_HOP_NEXT)
		return 0;
	assert_memory_equal(h->smac, k.link[side].mac, 6);
	return h->dmac[5];
}

static unsigned compile(void)
{
	return gate_hops_compile(&k, table);
}

static unsigned prefixes(int side)
{
	unsigned n = 0;

	while (n < GATE_HOP_PREFIXES && (table[side].prefix[n].mask != 0 || table[side].prefix[n].kind != GATE_HOP_ASK))
		n++;
	return n;
}

/* A gate as most are: two networks, and the world behind a gateway. */
static void usual(void)
{
	route("0.0.0.0", 0, "198.18.3.1", WAN);
	route("198.18.3.0", 24, NULL, WAN);
	route("198.18.100.0", 24, NULL, LAN);
	route("127.0.0.0", 8, NULL, 1)->local = true;
	route("198.18.3.2", 32, NULL, WAN)->local = true;
	route("198.18.3.255", 32, NULL, WAN)->local = true;
	route("198.18.100.1", 32, NULL, LAN)->local = true;
	neighbour("198.18.3.1", WAN, 1);
	neighbour("198.18.100.2", LAN, 2);
}

static void the_usual_gate(void **state)
{
	(void)state;
	usual();
	assert_int_equal(compile(), 3);
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 1);
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.1"), 1);
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.9"), 0);   /* on the link, not known */
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.2"), 0);   /* ourselves */
	assert_int_equal(to(GATE_OUTSIDE, "127.0.0.1"), 0);    /* nowhere */
	assert_int_equal(to(GATE_OUTSIDE, "198.18.100.2"), 0); /* the other side's */
	assert_int_equal(to(GATE_INSIDE, "198.18.100.2"), 2);
	assert_int_equal(to(GATE_INSIDE, "198.18.100.3"), 0);
	assert_int_equal(to(GATE_INSIDE, "203.0.113.7"), 0);
	/* Nothing that says what the entry around it says. */
	assert_int_equal(prefixes(GATE_OUTSIDE), 4);
	assert_int_equal(prefixes(GATE_INSIDE), 0);
	assert_int_equal(look(GATE_OUTSIDE, ip("203.0.113.7"))->mtu, 1500);
	assert_int_equal(look(GATE_INSIDE, ip("198.18.100.2"))->mtu, 1400);
}

static void longer_prefixes_shadow(void **state)
{
	(void)state;
	usual();
	route("203.0.113.0", 24, NULL, 0)->plain = false; /* a blackhole */
	route("203.0.112.0", 23, "198.18.3.7", WAN);      /* around it, another gateway */
	route("192.0.2.0", 24, "198.18.100.2", LAN);      /* by the other side */
	route("192.0.2.128", 25, "198.18.3.7", WAN);      /* and part of it not */
	route("198.51.100.0", 24, "10.0.0.1", OTHER);     /* by an interface that is not ours */
	route("198.18.100.2", 32, "198.18.100.9", LAN);   /* a host that is a neighbour too, but not for us */
	neighbour("198.18.3.7", WAN, 7);
	neighbour("198.18.100.9", LAN, 9);
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "203.0.112.7"), 7);
	assert_int_equal(to(GATE_OUTSIDE, "203.0.114.7"), 1);
	assert_int_equal(to(GATE_OUTSIDE, "192.0.2.1"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "192.0.2.129"), 7);
	assert_int_equal(to(GATE_OUTSIDE, "192.0.3.1"), 1);
	assert_int_equal(to(GATE_OUTSIDE, "198.51.100.1"), 0);
	assert_int_equal(to(GATE_INSIDE, "192.0.2.1"), 2);
	assert_int_equal(to(GATE_INSIDE, "192.0.2.129"), 0);
	assert_int_equal(to(GATE_INSIDE, "198.18.100.2"), 9);
}

static void neighbours_must_be_known(void **state)
{
	(void)state;
	usual();
	k.neighbour[0].ip = ip("198.18.3.3");
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.3"), 1);
	/* On another link the address is another neighbour. */
	k.neighbour[0] = (struct gate_kernel_neighbour){.ifindex = LAN, .ip = ip("198.18.3.1"), .mac = {2, 1, 1, 1, 1, 1}};
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.1"), 0);
	assert_int_equal(to(GATE_INSIDE, "198.18.3.1"), 0);
}

static void several_routes_to_one_prefix(void **state)
{
	(void)state;
	usual();
	k.route[0].metric = 100;
	route("0.0.0.0", 0, "198.18.3.7", WAN)->metric = 50;
	neighbour("198.18.3.7", WAN, 7);
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 7);
	/* Which of two equals comes first cannot be seen. */
	k.route[0].metric = 50;
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	/* One that is only for some packets, or several ways in one. */
	k.route[0].metric = 100;
	k.route[0].plain = false;
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	assert_int_equal(prefixes(GATE_OUTSIDE), 0);
}

static void local_comes_first(void **state)
{
	(void)state;
	usual();
	/* Whether a longer prefix of "main" is found below a shorter one of "local" depends on the kernel's past. */
	route("10.0.0.0", 8, NULL, 1)->local = true;
	route("10.1.0.0", 16, "198.18.3.1", WAN);
	route("10.1.0.0", 16, NULL, 1)->local = true;
	route("11.0.0.0", 8, "198.18.3.7", WAN);
	neighbour("198.18.3.7", WAN, 7);
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "10.1.0.1"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "10.2.0.1"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "11.0.0.1"), 7);
	assert_int_equal(to(GATE_OUTSIDE, "12.0.0.1"), 1);
}

static void sizes(void **state)
{
	(void)state;
	usual();
	k.route[0].mtu = 1280;
	k.route[1].mtu = 9000;
	compile();
	assert_int_equal(look(GATE_OUTSIDE, ip("203.0.113.7"))->mtu, 1280);
	assert_int_equal(look(GATE_OUTSIDE, ip("198.18.3.1"))->mtu, 1500);
	route("203.0.113.0", 24, "198.18.3.1", WAN)->mtu = 1000; /* the same way, but not for as much */
	compile();
	assert_int_equal(look(GATE_OUTSIDE, ip("203.0.113.7"))->mtu, 1000);
	k.nroutes--;
	k.link[GATE_OUTSIDE].mtu = 70000;
	k.route[0].mtu = 0;
	compile();
	assert_int_equal(look(GATE_OUTSIDE, ip("203.0.113.7"))->mtu, 65535);
}

static void nothing_is_certain(void **state)
{
	static const struct gate_hops empty[GATE_SIDES];

	(void)state;
	usual();
	k.odd = true;
	memset(table, 0xff, sizeof(table));
	assert_int_equal(compile(), 0);
	assert_memory_equal(table, empty, sizeof(table));
	k.odd = false;
	k.link[GATE_OUTSIDE].up = false;
	compile();
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.7"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "198.18.3.1"), 0);
	assert_int_equal(to(GATE_INSIDE, "198.18.100.2"), 2);
}

static void more_routes_than_fit(void **state)
{
	char text[32];

	(void)state;
	usual();
	neighbour("198.18.3.7", WAN, 7);
	/* 32 small ones close together, two far away. */
	for (unsigned i = 0; i < 32; i++) {
		snprintf(text, sizeof(text), "203.0.%u.0", i * 2);
		route(text, 24, "198.18.3.7", WAN);
	}
	route("100.64.0.0", 10, "198.18.3.7", WAN);
	route("20.0.0.0", 8, NULL, 0)->plain = false;
	compile();
	assert_int_equal(prefixes(GATE_OUTSIDE), GATE_HOP_PREFIXES);
	/* What carries most stays. */
	assert_int_equal(to(GATE_OUTSIDE, "8.8.8.8"), 1);
	assert_int_equal(to(GATE_OUTSIDE, "100.64.0.1"), 7);
	assert_int_equal(to(GATE_OUTSIDE, "20.0.0.1"), 0);
	for (unsigned i = 0; i < 64; i++) {
		snprintf(text, sizeof(text), "203.0.%u.1", i);
		assert_true(to(GATE_OUTSIDE, text) == 0 || to(GATE_OUTSIDE, text) == (i % 2 == 0 ? 7 : 1));
	}
}

static void what_is_merged_goes_whole(void **state)
{
	char text[32];

	(void)state;
	usual();
	neighbour("198.18.3.7", WAN, 7);
	for (unsigned i = 0; i < GATE_HOP_PREFIXES - 6; i++) {
		snprintf(text, sizeof(text), "%u.0.0.0", 32 + i);
		route(text, 8, "198.18.3.7", WAN);
	}
	/* Closest to each other, and both halves of a third. */
	route("203.0.113.0", 24, "198.18.3.7", WAN);
	route("203.0.113.0", 25, NULL, 0)->plain = false;
	route("203.0.113.128", 25, NULL, LAN)->plain = false;
	compile();
	assert_int_equal(prefixes(GATE_OUTSIDE), GATE_HOP_PREFIXES - 1);
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.1"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "203.0.113.129"), 0);
	assert_int_equal(to(GATE_OUTSIDE, "8.8.8.8"), 1);
}

static void more_hosts_than_fit(void **state)
{
	char text[32];
	unsigned known = 0;

	(void)state;
	usual();
	route("10.0.0.0", 16, NULL, LAN);
	for (unsigned i = 0; i < 512; i++) {
		snprintf(text, sizeof(text), "10.0.%u.%u", i / 256, i % 256);
		neighbour(text, LAN, (uint8_t)(1 + i % 255));
	}
	compile();
	for (unsigned i = 0; i < 512; i++) {
		uint8_t mac;

		snprintf(text, sizeof(text), "10.0.%u.%u", i / 256, i % 256);
		mac = to(GATE_INSIDE, text);
		assert_true(mac == 0 || mac == 1 + i % 255);
		known += mac != 0;
	}
	assert_true(known > 200);
	assert_int_equal(to(GATE_INSIDE, "10.0.3.1"), 0);
}

static uint32_t dice;

static uint32_t roll(uint32_t n)
{
	dice = dice * 1664525u + 1013904223u;
	return (dice >> 8) % n;
}

/* What the kernel would do, the plain way: the longest prefix, of "local" before "main", or, where they are one table, of both. 0: not a
 * way out of this side, or not to be told. */
static uint8_t oracle(int side, uint32_t dst, bool one)
{
	const struct gate_kernel_route *best = NULL;
	uint32_t hop;

	for (int local = 1; local >= 0 && best == NULL; local--) {
		for (unsigned i = 0; i < k.nroutes; i++) {
			const struct gate_kernel_route *r = &k.route[i];
			const uint32_t mask = r->bits == 0 ? 0 : htonl(UINT32_MAX << (32 - r->bits));

			if ((one || r->local == (local != 0)) && (dst & mask) == r->ip &&
			    (best == NULL || r->bits > best->bits ||
			     (r->bits == best->bits && !best->local && (r->local || r->metric < best->metric))))
				best = r;
		}
	}
	if (best == NULL || best->local || !best->plain || best->oif != k.link[side].ifindex)
		return 0;
	hop = best->gateway != 0 ? best->gateway : dst;
	for (unsigned i = 0; i < k.nneighbours; i++)
		if (k.neighbour[i].ip == hop && k.neighbour[i].ifindex == best->oif)
			return k.neighbour[i].mac[5];
	return 0;
}

/* Addresses from a small world, so that they meet. */
static uint32_t somewhere(void)
{
	return htonl(0x0a000000u | roll(4) << 22 | roll(8) << 15 | roll(8) << 8 | roll(8));
}

static void never_wrong(void **state)
{
	unsigned told = 0, asked = 0;

	for (unsigned world = 0; world < 400; world++) {
		dice = world;
		fresh(state);
		for (unsigned i = 0, n = 1 + roll(world % 4 == 0 ? 200 : 30); i < n; i++) {
			struct gate_kernel_route *r = &k.route[k.nroutes++];

			r->bits = (uint8_t)roll(33);
			r->ip = somewhere() & (r->bits == 0 ? 0 : htonl(UINT32_MAX << (32 - r->bits)));
			r->gateway = roll(4) == 0 ? 0 : somewhere();
			r->oif = WAN + roll(3);
			r->metric = i; /* no two alike */
			r->local = roll(12) == 0;
			r->plain = roll(8) != 0;
		}
		for (unsigned i = 0; i < k.nroutes; i++)
			if (k.route[i].gateway != 0 && roll(3) != 0)
				k.neighbour[k.nneighbours++] =
					(struct gate_kernel_neighbour){.ifindex = k.route[i].oif,
								       .ip = k.route[i].gateway,
								       .mac = {2, 1, 1, 1, 1, (uint8_t)(1 + roll(5))}};
		for (unsigned i = 0; i < 100; i++)
			k.neighbour[k.nneighbours++] = (struct gate_kernel_neighbour){
				.ifindex = WAN + roll(2), .ip = somewhere(), .mac = {2, 1, 1, 1, 1, (uint8_t)(1 + roll(5))}};
		/* The kernel has one entry for a neighbour. */
		for (unsigned i = 0; i < k.nneighbours; i++)
			for (unsigned j = i + 1; j < k.nneighbours; j++)
				if (k.neighbour[j].ip == k.neighbour[i].ip && k.neighbour[j].ifindex == k.neighbour[i].ifindex)
					memcpy(k.neighbour[j].mac, k.neighbour[i].mac, 6);
		compile();
		for (unsigned i = 0; i < 500; i++) {
			const uint32_t dst = somewhere();

			for (int side = 0; side < GATE_SIDES; side++) {
				const struct gate_hop *h = look(side, dst);

				for (int one = 0; one <= 1 && h->kind == GATE_HOP_NEXT; one++) {
					if (h->dmac[5] == oracle(side, dst, one != 0))
						continue;
					fprintf(stderr, "world %u side %d %08x: %u, not %u\n", world, side, ntohl(dst), h->dmac[5],
						oracle(side, dst, one != 0));
					fail();
				}
				told += h->kind == GATE_HOP_NEXT;
				asked += h->kind == GATE_HOP_ASK && oracle(side, dst, false) != 0;
			}
		}
	}
	fprintf(stderr, "# told %u, asked though it could be known %u\n", told, asked);
	assert_true(told > asked);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_usual_gate, fresh),
		cmocka_unit_test_setup(longer_prefixes_shadow, fresh),
		cmocka_unit_test_setup(neighbours_must_be_known, fresh),
		cmocka_unit_test_setup(several_routes_to_one_prefix, fresh),
		cmocka_unit_test_setup(local_comes_first, fresh),
		cmocka_unit_test_setup(sizes, fresh),
		cmocka_unit_test_setup(nothing_is_certain, fresh),
		cmocka_unit_test_setup(more_routes_than_fit, fresh),
		cmocka_unit_test_setup(what_is_merged_goes_whole, fresh),
		cmocka_unit_test_setup(more_hosts_than_fit, fresh),
		cmocka_unit_test_setup(never_wrong, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
