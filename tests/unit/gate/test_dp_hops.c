/* SPDX-License-Identifier: Apache-2.0 */
/* The table of next hops in the packet path: what it says is done, and it never says what the kernel would not. */
#include <arpa/inet.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"
#include "gate/routes.h"

#define FOREVER UINT64_MAX
#define NEVER   0
#define ROUNDS  12
#define ROUTES  40
#define PROBES  150

static const uint8_t gateway_mac[6] = {2, 0, 0, 0, 3, 1}, marked_mac[6] = {2, 0xee, 0, 0, 0, 1};

static struct gate_hop_tables *tables(void)
{
	return fx_dp->hops_view.p;
}

static struct gate_hops *in_use(int side)
{
	return &tables()->table[tables()->generation & 1][side];
}

/* The daemon's second. */
static void tick(void)
{
	gate_routes_tick(fx_dp->routes, wn_now_ns());
}

/* Long enough after the one before that it may read again. */
static void later(void)
{
	static uint64_t seconds;

	gate_routes_tick(fx_dp->routes, wn_now_ns() + ++seconds * GATE_NS_PER_S);
}

static void sh(const char *command)
{
	assert_int_equal(system(command), 0);
}

static struct fx_packet to(const char *dst)
{
	static const uint8_t payload[1];

	return (struct fx_packet){.src = FX_SERVICE, .dst = dst, .sport = 5000, .dport = 53, .payload = payload, .n = 1};
}

/* \return the destination of the frame that leaves. */
static const uint8_t *leaves_for(const struct fx_packet *p)
{
	static uint8_t got[FX_FRAME];
	size_t n;

	fx_passes(GATE_INSIDE, p, got, &n);
	return got;
}

static struct gate_hop *hop_of(struct gate_hops *t, const char *dst)
{
	uint32_t ip;

	inet_pton(AF_INET, dst, &ip);
	for (unsigned i = 0; i < GATE_HOP_WAYS; i++)
		if (t->host[GATE_HOP_HASH(ip)][i].prefix == ip)
			return &t->host[GATE_HOP_HASH(ip)][i];
	for (unsigned i = 0; i < GATE_HOP_PREFIXES; i++)
		if ((ip & t->prefix[i].mask) == t->prefix[i].prefix)
			return &t->prefix[i];
	return &t->prefix[GATE_HOP_PREFIXES];
}

static void mark(const char *dst)
{
	struct gate_hop *h = hop_of(in_use(GATE_OUTSIDE), dst);

	assert_int_equal(h->kind, GATE_HOP_NEXT);
	memcpy(h->dmac, marked_mac, 6);
}

static void the_table_is_asked_first(void **state)
{
	static uint8_t big[1400];
	struct fx_packet p = to(FX_CLIENT);

	(void)state;
	assert_int_equal(fx_counter("next_hops"), 0);
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	tick();
	assert_int_equal(fx_counter("next_hops"), 3);
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	mark(FX_CLIENT);
	assert_memory_equal(leaves_for(&p), marked_mac, 6);
	/* A longer packet than is sure to fit is the kernel's matter. */
	hop_of(in_use(GATE_OUTSIDE), FX_CLIENT)->mtu = 1000;
	p.payload = big;
	p.n = 1000 - 28;
	assert_memory_equal(leaves_for(&p), marked_mac, 6);
	p.n++;
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	/* Hosts come before prefixes. */
	p = to(FX_GATEWAY);
	mark(FX_GATEWAY);
	assert_memory_equal(leaves_for(&p), marked_mac, 6);
	hop_of(in_use(GATE_OUTSIDE), FX_GATEWAY)->kind = GATE_HOP_ASK;
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	/* Out of use. */
	p = to(FX_CLIENT);
	tables()->valid_until = wn_now_ns() - 20 * GATE_NS_PER_MS; /* the path's clock is a tick behind at most */
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	tables()->valid_until = FOREVER;
	assert_memory_equal(leaves_for(&p), marked_mac, 6);
	/* The other one of the two. */
	tables()->generation++;
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	tables()->generation--;
}

static void every_place_is_found(void **state)
{
	struct gate_hops *t;
	struct fx_packet p;
	char text[32];

	(void)state;
	tick();
	t = in_use(GATE_OUTSIDE);
	tables()->valid_until = FOREVER;
	for (unsigned i = 0; i < GATE_HOP_PREFIXES; i++) {
		struct gate_hop h = {.mask = htonl(0xffffff00), .mtu = 1500, .kind = GATE_HOP_NEXT, .dmac = {2, 0xee, 0, 0, 0, (uint8_t)i}};

		h.prefix = htonl(0xcb007100u + (i << 8));
		t->prefix[i] = h;
	}
	for (unsigned i = 0; i < GATE_HOP_PREFIXES; i++) {
		snprintf(text, sizeof(text), "203.0.%u.9", 113 + i);
		p = to(text);
		assert_int_equal(leaves_for(&p)[5], i);
		assert_int_equal(leaves_for(&p)[1], 0xee);
	}
	p = to(FX_CLIENT); /* none */
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	for (unsigned i = 0; i < GATE_HOP_WAYS; i++) {
		uint32_t ip;

		inet_pton(AF_INET, FX_CLIENT, &ip);
		memset(t->host, 0, sizeof(t->host));
		t->host[GATE_HOP_HASH(ip)][i] = (struct gate_hop){.prefix = ip, .mtu = 1500, .kind = GATE_HOP_NEXT, .dmac = {2, 0xee, 9}};
		assert_int_equal(leaves_for(&p)[2], 9);
	}
}

/* Each change, from the kernel's message to the path. */
static void changes_are_followed(void **state)
{
	static const struct {
		const char *change, *back;
		bool passes;
	} row[] = {
		{"ip neigh replace 198.18.3.1 lladdr 02:00:00:00:03:aa dev wan nud permanent",
		 "ip neigh replace 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent", true},
		{"ip neigh del 198.18.3.1 dev wan", "ip neigh replace 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent", false},
		{"ip route del default", "ip route add default via 198.18.3.1", false},
		{"ip route add blackhole 198.18.4.0/24", "ip route del blackhole 198.18.4.0/24", false},
		{"ip route add 198.18.4.2 dev lan", "ip route del 198.18.4.2 dev lan", false},
		{"ip route add default via 198.18.3.1 table 77 && ip rule add from 198.18.3.2 blackhole", "ip rule del blackhole", false},
		{"ip route add 198.18.4.0/24 tos 0x10 via 198.18.3.1; ip route add blackhole 198.18.4.0/24",
		 "ip route del 198.18.4.0/24 tos 0x10; ip route del blackhole 198.18.4.0/24", false},
		{"ip link set wan down",
		 "ip link set wan up; ip route add default via 198.18.3.1; "
		 "ip neigh replace 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent",
		 false},
		{"ip addr del 198.18.3.2/24 dev wan",
		 "ip addr add 198.18.3.2/24 dev wan; ip route add default via 198.18.3.1; "
		 "ip neigh replace 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent",
		 false},
		{"echo 0 >/proc/sys/net/ipv4/conf/lo/forwarding", "echo 1 >/proc/sys/net/ipv4/conf/lo/forwarding", false}};
	const struct fx_packet p = to(FX_CLIENT);
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	const size_t n = fx_arriving(GATE_INSIDE, &p, frame);
	struct epoll_event e;

	(void)state;
	for (unsigned i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		/* In use, and never out of it by itself. */
		later();
		tables()->valid_until = FOREVER;
		assert_memory_equal(leaves_for(&p), gateway_mac, 6);
		sh(row[i].change);
		if ((fx_run(GATE_INSIDE, frame, n, out, NULL) == XDP_REDIRECT) != true)
			fprintf(stderr, "# %s: not by the table\n", row[i].change);
		assert_int_equal(fx_run(GATE_INSIDE, frame, n, out, NULL), XDP_REDIRECT);
		assert_memory_equal(out, gateway_mac, 6);
		assert_int_equal(epoll_wait(gate_dp_fd(fx_dp), &e, 1, 0), 1);
		gate_dp_events(fx_dp);
		assert_int_equal(epoll_wait(gate_dp_fd(fx_dp), &e, 1, 0), 0);
		/* First by the kernel, then by what has been read of it. */
		for (unsigned again = 0; again < 2; again++) {
			const bool passes = fx_run(GATE_INSIDE, frame, n, out, NULL) == XDP_REDIRECT;

			if (passes != row[i].passes)
				fprintf(stderr, "# %s: not followed %s\n", row[i].change, again ? "once read" : "at once");
			assert_int_equal(passes, row[i].passes);
			if (passes)
				assert_memory_not_equal(out, gateway_mac, 6);
			later();
		}
		gate_dp_events(fx_dp); /* the path's own, about a neighbour that it missed */
		sh(row[i].back);
		gate_dp_events(fx_dp);
	}
	sh("ip route flush table 77");
}

/* What changes nothing in the table leaves it in use: neighbours are heard of all the time. */
static void other_changes_cost_nothing(void **state)
{
	uint32_t generation;

	(void)state;
	tick();
	tables()->valid_until = FOREVER;
	generation = tables()->generation;
	sh("ip neigh change 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud reachable; "
	   "ip neigh change 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud stale; "
	   "ip neigh change 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent; ip neigh add 198.18.3.77 dev wan nud failed; "
	   "ip neigh add 198.18.3.78 lladdr 02:00:00:00:03:78 dev wan nud stale; ip neigh add 198.18.3.1 lladdr 02:00:00:00:03:55 dev lan "
	   "nud stale; "
	   "ip link add other type veth peer name another; ip link set other up; ip route add default via 198.18.3.9 table 77");
	gate_dp_events(fx_dp);
	sh("ip route flush table 77; ip link del other; ip neigh del 198.18.3.77 dev wan; ip neigh del 198.18.3.1 dev lan");
	gate_dp_events(fx_dp);
	assert_true(tables()->valid_until == FOREVER);
	assert_int_equal(tables()->generation, generation);
	/* With the next second the new neighbour is in it. */
	gate_routes_tick(fx_dp->routes, wn_now_ns() + GATE_NS_PER_S);
	assert_int_equal(fx_counter("next_hops"), 4);
	sh("ip neigh del 198.18.3.78 dev wan");
}

static void more_than_it_bears(void **state)
{
	const struct fx_packet p = to(FX_CLIENT);

	(void)state;
	tick();
	assert_true(fx_counter("next_hops") > 0);
	sh("for i in $(seq 0 1100); do echo route add 10.0.$((i / 256)).$((i % 256)) via 198.18.3.1; done | ip -batch -");
	gate_dp_events(fx_dp);
	assert_int_equal(fx_counter("next_hops"), 0);
	gate_routes_tick(fx_dp->routes, wn_now_ns() + GATE_NS_PER_S);
	assert_int_equal(fx_counter("next_hops"), 0);
	assert_memory_equal(leaves_for(&p), gateway_mac, 6);
	sh("for i in $(seq 0 1100); do echo route del 10.0.$((i / 256)).$((i % 256)); done | ip -batch -");
	gate_routes_tick(fx_dp->routes, wn_now_ns() + 60 * GATE_NS_PER_S);
	assert_int_equal(fx_counter("next_hops"), 0);
	gate_routes_tick(fx_dp->routes, wn_now_ns() + 700 * GATE_NS_PER_S);
	assert_true(fx_counter("next_hops") > 0);
}

static uint32_t dice = 20261124;

static uint32_t roll(uint32_t n)
{
	dice = dice * 1664525u + 1013904223u;
	return (dice >> 8) % n;
}

static void somewhere(char *text, size_t cap)
{
	snprintf(text, cap, "10.%u.%u.%u", roll(4) * 64, roll(8), roll(8));
}

static void random_routes(FILE *ip)
{
	static const char *const kind[] = {"via 198.18.3.1",
					   "via 198.18.3.1",
					   "via 198.18.3.7",
					   "via 198.18.3.8",
					   "via 198.18.100.2",
					   "dev wan",
					   "dev lan",
					   "blackhole",
					   "unreachable",
					   "throw",
					   "mtu",
					   "tos",
					   "several"};
	char text[32];
	unsigned bits;

	for (unsigned i = 0; i < ROUTES; i++) {
		const char *what = kind[roll(sizeof(kind) / sizeof(kind[0]))];
		uint32_t at;

		somewhere(text, sizeof(text));
		inet_pton(AF_INET, text, &at);
		bits = 8 + roll(25);
		at &= htonl(UINT32_MAX << (32 - bits));
		inet_ntop(AF_INET, &at, text, sizeof(text));
		if (strcmp(what, "mtu") == 0)
			fprintf(ip, "route add %s/%u via 198.18.3.7 mtu lock 900 metric %u\n", text, bits, i + 1);
		else if (strcmp(what, "tos") == 0)
			fprintf(ip, "route add %s/%u tos 0x10 via 198.18.3.7 metric %u\n", text, bits, i + 1);
		else if (strcmp(what, "several") == 0)
			fprintf(ip, "route add %s/%u metric %u nexthop via 198.18.3.1 nexthop via 198.18.3.7\n", text, bits, i + 1);
		else if (strchr(what, ' ') != NULL)
			fprintf(ip, "route add %s/%u %s metric %u\n", text, bits, what, i + 1);
		else
			fprintf(ip, "route add %s %s/%u metric %u\n", what, text, bits, i + 1);
	}
}

/* The same packets with the table and without. */
static void the_kernel_says_the_same(void **state)
{
	static uint8_t payload[1200];
	unsigned by_table = 0;

	(void)state;
	sh("ip neigh replace 198.18.3.7 lladdr 02:00:00:00:03:07 dev wan nud permanent; "
	   "for i in 0 1 2 3 4 5 6 7; do ip neigh replace 10.0.0.$i lladdr 02:00:00:00:04:0$i dev wan nud permanent; done");
	for (unsigned round = 0; round < ROUNDS; round++) {
		FILE *ip = popen("ip -force -batch - 2>/dev/null", "w");

		assert_non_null(ip);
		random_routes(ip);
		pclose(ip);
		if (round == ROUNDS / 2) /* from here on "local" is a table of its own, also after the rule has gone */
			sh("ip rule add from 192.0.2.1 blackhole; ip rule del from 192.0.2.1 blackhole; ip route add local 10.64.0.0/12 "
			   "dev lo");
		gate_routes_tick(fx_dp->routes, wn_now_ns() + (round + 1) * GATE_NS_PER_S);
		tables()->valid_until = FOREVER;
		for (unsigned i = 0; i < PROBES; i++) {
			char text[32];
			struct fx_packet p;
			uint8_t frame[FX_FRAME], with[FX_FRAME] = {0}, without[FX_FRAME] = {0};
			size_t n, nwith = 0, nwithout = 0;
			int verdict;

			somewhere(text, sizeof(text));
			p = to(text);
			p.payload = payload;
			p.n = roll(3) == 0 ? 1000 : 1;
			n = fx_arriving(GATE_INSIDE, &p, frame);
			by_table += hop_of(in_use(GATE_OUTSIDE), text)->kind == GATE_HOP_NEXT;
			fx_refill(); /* for the errors about packets that are too long */
			verdict = fx_run(GATE_INSIDE, frame, n, with, &nwith);
			tables()->valid_until = NEVER;
			fx_refill();
			if (fx_run(GATE_INSIDE, frame, n, without, &nwithout) != verdict || nwith != nwithout ||
			    memcmp(with, without, nwith) != 0) {
				fprintf(stderr, "# round %u, %s, %zu bytes: verdict %d, to ..:%02x with the table, ..:%02x without\n",
					round, text, p.n, verdict, with[5], without[5]);
				fail();
			}
			tables()->valid_until = FOREVER;
		}
		sh("ip route flush root 10.0.0.0/8");
		gate_dp_events(fx_dp);
	}
	fprintf(stderr, "# %u of %u by the table\n", by_table, ROUNDS * PROBES);
	assert_true(by_table > ROUNDS * PROBES / 20);
	sh("ip route del local 10.64.0.0/12 dev lo table local; ip neigh del 198.18.3.7 dev wan; "
	   "for i in 0 1 2 3 4 5 6 7; do ip neigh del 10.0.0.$i dev wan; done");
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(the_table_is_asked_first), FX_TEST(every_place_is_found),
					   FX_TEST(changes_are_followed),     FX_TEST(other_changes_cost_nothing),
					   FX_TEST(more_than_it_bears),       FX_TEST(the_kernel_says_the_same)};

	return FX_RUN("gate dp hops", tests);
}
