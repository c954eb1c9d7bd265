/* SPDX-License-Identifier: Apache-2.0 */
/* What the inside opens: mappings, filtering, source validation, TCP states, control, next hops. */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <cmocka.h>

#include "dp_fixture.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16, ECHO_REPLY = 0, ECHO_REQUEST = 8 };

static struct fx_packet udp_in(uint16_t port, const char *src, uint16_t sport)
{
	return (struct fx_packet){
		.src = src, .dst = FX_PUBLIC, .sport = sport, .dport = port, .payload = (const uint8_t *)"answer", .n = 6};
}

/* Sends it, checks every byte but the port, which is drawn. \return the public port. */
static uint16_t opens(struct fx_packet p)
{
	uint8_t got[FX_FRAME], want[FX_FRAME];
	struct fx_packet o = p;
	size_t ngot, nwant;

	fx_passes(GATE_INSIDE, &p, got, &ngot);
	o.src = FX_PUBLIC;
	o.sport = fx_sport(got);
	o.ttl = 63;
	nwant = fx_leaving(GATE_OUTSIDE, &o, want);
	assert_int_equal(ngot, nwant);
	assert_memory_equal(got, want, nwant);
	return o.sport;
}

static void comes_in(struct fx_packet p, uint16_t to)
{
	struct fx_packet o = p;

	o.dst = FX_SERVICE;
	if (p.proto == IPPROTO_ICMP)
		o.sport = to;
	else
		o.dport = to;
	fx_expect_out(GATE_OUTSIDE, &p, &o);
}

static void mapping_and_filtering(void **state)
{
	uint16_t port = opens(fx_udp_out(5000, FX_CLIENT, 53));
	struct fx_packet p = fx_udp_out(5000, FX_CLIENT, 53);

	(void)state;
	assert_true(port >= 1024);
	p.fx = FX_NO_CSUM;
	assert_int_equal(opens(p), port);
	comes_in(udp_in(port, FX_CLIENT, 53), 5000);
	/* One mapping towards everybody (RFC 4787 REQ-1), answers from each remote address and port that was sent to (REQ-8). */
	p = udp_in(port, FX_CLIENT, 54);
	fx_expect_drop(GATE_OUTSIDE, &p, "no_session");
	p = udp_in(port, FX_OTHER, 53);
	fx_expect_drop(GATE_OUTSIDE, &p, "no_session");
	assert_int_equal(opens(fx_udp_out(5000, FX_OTHER, 53)), port);
	comes_in(p, 5000);
	assert_int_equal(opens(fx_udp_out(5000, FX_CLIENT, 54)), port);
	comes_in(udp_in(port, FX_CLIENT, 54), 5000);
	assert_int_equal(fx_counter("mapping_new"), 1);
	assert_int_equal(fx_counter("session_new"), 3);
	/* The same number under TCP is no session. */
	p = udp_in(port, FX_CLIENT, 53);
	p.proto = IPPROTO_TCP;
	p.flags = ACK;
	fx_expect_drop(GATE_OUTSIDE, &p, "no_hole");
	assert_int_not_equal(opens(fx_udp_out(5001, FX_CLIENT, 53)), port);
}

static void sources_are_validated(void **state)
{
	static const char *const spoofed[] = {"198.18.101.2", "198.18.100.200", "8.8.8.8", FX_CLIENT};
	struct fx_packet p = fx_udp_out(5000, FX_CLIENT, 53);

	(void)state;
	for (size_t i = 0; i < sizeof(spoofed) / sizeof(spoofed[0]); i++) {
		p.src = spoofed[i];
		fx_expect_drop(GATE_INSIDE, &p, "spoofed");
	}
	p.src = "198.18.100.130"; /* the other tenant's */
	opens(p);
	assert_int_equal(fx_counter("mapping_new"), 1);
}

static int ports_cmp(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(uint16_t));
}

static void ports_are_unpredictable(void **state)
{
	enum { N = 512 };
	uint16_t port[N];
	unsigned near = 0, low = 0;

	(void)state;
	for (unsigned i = 0; i < N; i++) {
		port[i] = opens(fx_udp_out((uint16_t)(20000 + i), FX_CLIENT, 53));
		if (i > 0)
			near += (unsigned)abs(port[i] - port[i - 1]) < 64;
		low += port[i] < 32768;
	}
	assert_true(near < 20);
	assert_in_range(low, N / 4, 3 * N / 4);
	qsort(port, N, sizeof(port[0]), ports_cmp);
	for (unsigned i = 1; i < N; i++)
		assert_int_not_equal(port[i], port[i - 1]);
}

static void ports_run_out(void **state)
{
	struct fx_packet p;
	unsigned full = 0;

	(void)state;
	fx_config.port_low = 40000;
	fx_config.port_high = 40007;
	fx_anew();
	fx_config.port_low = 1024;
	fx_config.port_high = 65535;
	for (unsigned i = 0; i < 12; i++) {
		uint8_t frame[FX_FRAME], out[FX_FRAME];

		p = fx_udp_out((uint16_t)(5000 + i), FX_CLIENT, 53);
		fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL);
	}
	full = (unsigned)fx_counter("no_port");
	assert_true(full >= 4);
	assert_int_equal(fx_counter("session_out"), 12 - full);
	/* And a grant has no port left either, once all are taken. */
	if (full == 4) {
		struct gate_request r = fx_open_request(IPPROTO_UDP, 53, NULL);

		assert_int_equal(fx_apply(&r).status, GATE_NO_PORT);
	}
}

static void tables_full(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	struct fx_packet p;
	unsigned passed = 0;
	uint16_t first = 0;

	(void)state;
	fx_config.flows = 64;
	fx_config.mappings = 32;
	fx_anew();
	fx_config.flows = fx_config.mappings = 4096;
	/* A preallocated table keeps a few spare elements per CPU: full comes within them. */
	for (unsigned i = 0; i < 400; i++) {
		size_t n;

		p = fx_udp_out((uint16_t)(5000 + i), FX_CLIENT, 53);
		fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, &n);
		if (i == 0)
			first = fx_sport(out);
	}
	passed = (unsigned)fx_counter("session_out");
	assert_in_range(passed, 32, 80);
	assert_true(fx_counter("mappings_full") + fx_counter("tenant_full") + fx_counter("flows_full") >= 400 - passed);
	comes_in(udp_in(first, FX_CLIENT, 53), 5000); /* the old ones live */
	assert_int_equal(opens(fx_udp_out(5000, FX_CLIENT, 53)), first);
	/* What was refused has not kept a port. */
	assert_true(fx_counter("flows") <= 64);
}

static void one_tenant_leaves_room(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	struct fx_packet p;

	(void)state;
	fx_config.flows = 300;
	fx_anew();
	fx_config.flows = 4096;
	for (unsigned i = 0; i < 400; i++) {
		p = fx_udp_out(5000, FX_CLIENT, (uint16_t)(1000 + i));
		fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, NULL);
	}
	assert_int_equal(fx_counter("tenant_full"), 200);
	p = fx_udp_out(5000, FX_CLIENT, 53);
	p.src = "198.18.100.130";
	opens(p);
}

static void expiry_and_revival(void **state)
{
	uint16_t port = opens(fx_udp_out(5000, FX_CLIENT, 53)), again;
	struct gate_key k = {0};
	struct gate_flow f;
	struct fx_packet p = udp_in(port, FX_CLIENT, 53);
	struct wn_addr own, cl;

	(void)state;
	fx_addr(&own, FX_SERVICE, 0);
	fx_addr(&cl, FX_CLIENT, 0);
	k.local_ip = gate_ip4(&own);
	k.remote_ip = gate_ip4(&cl);
	k.local_port = htons(5000);
	k.remote_port = htons(53);
	k.proto = IPPROTO_UDP;
	assert_int_equal(bpf_map_lookup_elem_flags(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
	assert_in_range(f.expires - f.opened, 120 * GATE_NS_PER_S, 125 * GATE_NS_PER_S);
	f.expires = f.opened; /* as if the time had come */
	assert_int_equal(bpf_map_update_elem(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "session_expired");
	again = opens(fx_udp_out(5000, FX_CLIENT, 53)); /* in place */
	assert_int_equal(again, port);
	comes_in(p, 5000);
	opens(fx_udp_out(5000, FX_CLIENT, 53));
	assert_int_equal(bpf_map_lookup_elem_flags(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
	assert_in_range(f.expires - f.opened, 300 * GATE_NS_PER_S, 310 * GATE_NS_PER_S); /* it was answered */
	assert_int_equal(fx_counter("flows"), 1);
}

/* A session left over from a mapping that has lost its port leads nowhere. */
static void port_of_another_mapping(void **state)
{
	uint16_t port = opens(fx_udp_out(5000, FX_CLIENT, 53));
	struct gate_port *owned = &fx_dp->ports[GATE_PORT_INDEX(0, GATE_P_UDP, port)];
	struct fx_packet p = udp_in(port, FX_CLIENT, 53);
	const uint64_t was = owned->owner;

	(void)state;
	comes_in(p, 5000);
	owned->owner = was ^ 0x100; /* another inside port's */
	fx_expect_drop(GATE_OUTSIDE, &p, "no_session");
	owned->owner = 0;
	fx_expect_drop(GATE_OUTSIDE, &p, "no_hole");
	owned->owner = was;
	comes_in(p, 5000);
}

static void icmp_echo(void **state)
{
	struct fx_packet p = {.src = FX_SERVICE,
			      .dst = FX_CLIENT,
			      .sport = 321,
			      .proto = IPPROTO_ICMP,
			      .icmp_type = ECHO_REQUEST,
			      .payload = (const uint8_t *)"ping",
			      .n = 4};
	uint16_t id = opens(p);
	struct fx_packet r = {.src = FX_CLIENT,
			      .dst = FX_PUBLIC,
			      .sport = id,
			      .proto = IPPROTO_ICMP,
			      .icmp_type = ECHO_REPLY,
			      .payload = (const uint8_t *)"pong",
			      .n = 4};

	(void)state;
	comes_in(r, 321);
	r.src = FX_OTHER;
	fx_expect_drop(GATE_OUTSIDE, &r, "no_session");
	r.src = FX_CLIENT;
	r.icmp_type = ECHO_REQUEST; /* nobody pings the gate, nor through it */
	fx_expect_drop(GATE_OUTSIDE, &r, "icmp_type");
	r.icmp_type = 13;
	fx_expect_drop(GATE_OUTSIDE, &r, "icmp_type");
	p.icmp_type = 13;
	fx_expect_drop(GATE_INSIDE, &p, "icmp_type");
}

static struct fx_packet tcp_out(uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_SERVICE, 5000, FX_CLIENT, 443, flags, seq, ack, n);
}

static struct fx_packet tcp_in(uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_CLIENT, 443, FX_PUBLIC, port, flags, seq, ack, n);
}

static void tcp_session(void **state)
{
	struct fx_packet p;
	uint16_t port;

	(void)state;
	p = tcp_out(ACK, 100, 200, 10);
	fx_expect_drop(GATE_INSIDE, &p, "tcp_no_session");
	p = tcp_out(RST, 100, 0, 0);
	fx_expect_drop(GATE_INSIDE, &p, "tcp_no_session");
	p = tcp_out(SYN | ACK, 100, 7, 0);
	fx_expect_drop(GATE_INSIDE, &p, "tcp_no_session");
	port = opens(tcp_out(SYN, 100, 0, 0));
	assert_int_equal(opens(tcp_out(SYN, 100, 0, 0)), port);
	p = tcp_in(port, SYN | ACK, 900, 100, 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_ack");
	p = tcp_in(port, ACK, 900, 101, 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_state");
	p = tcp_in(port, RST, 900, 0, 0); /* a blind RST */
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_state");
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0), 5000);
	p = tcp_in(port, ACK, 901, 101, 10);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_state");
	opens(tcp_out(ACK, 101, 901, 0));
	opens(tcp_out(ACK, 101, 901, 500));
	comes_in(tcp_in(port, ACK, 901, 601, 1400), 5000);
	p = tcp_in(port, ACK, 901 + 0x4000000, 601, 1);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_window");
	p = tcp_in(port, RST, 2302, 0, 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_rst");
	p = tcp_in(port, SYN, 901, 0, 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_state");
	opens(tcp_out(FIN | ACK, 601, 2301, 0));
	comes_in(tcp_in(port, FIN | ACK, 2301, 602, 0), 5000);
	opens(tcp_out(ACK, 602, 2302, 0));
	/* TIME-WAIT: a later number opens anew. */
	opens(tcp_out(SYN, 100000, 0, 0));
	comes_in(tcp_in(port, SYN | ACK, 7000, 100001, 0), 5000);
}

static void tcp_refused_and_reset(void **state)
{
	uint16_t port = opens(tcp_out(SYN, 100, 0, 0));
	struct fx_packet p;

	(void)state;
	p = tcp_in(port, RST | ACK, 0, 100, 0);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_ack");
	comes_in(tcp_in(port, RST | ACK, 0, 101, 0), 5000);
	p = tcp_in(port, ACK, 1, 101, 1);
	fx_expect_drop(GATE_OUTSIDE, &p, "tcp_state");
	assert_int_equal(opens(tcp_out(SYN, 300, 0, 0)), port);
	comes_in(tcp_in(port, SYN | ACK, 900, 301, 0), 5000);
	opens(tcp_out(ACK, 301, 901, 0));
	comes_in(tcp_in(port, RST, 901, 0, 0), 5000);
	p = tcp_out(ACK, 301, 901, 1);
	fx_expect_drop(GATE_INSIDE, &p, "tcp_state");
}

/* RFC 5382 REQ-2. */
static void simultaneous_open(void **state)
{
	uint16_t port = opens(tcp_out(SYN, 100, 0, 0));

	(void)state;
	comes_in(tcp_in(port, SYN, 900, 0, 0), 5000);
	opens(tcp_out(SYN | ACK, 100, 901, 0));
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0), 5000);
	opens(tcp_out(ACK, 101, 901, 10));
	comes_in(tcp_in(port, ACK, 901, 111, 10), 5000);
}

static void service_opens_no_mapping(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_UDP, 5000, NULL);
	struct fx_packet p = fx_udp_out(5000, FX_CLIENT, 53);
	struct gate_reply h;

	(void)state;
	h = fx_apply(&r);
	assert_int_equal(h.status, GATE_OK);
	fx_expect_drop(GATE_INSIDE, &p, "service_port");
	assert_int_equal(fx_apply_op(GATE_CLOSE, h.hole, 0).status, GATE_OK);
	fx_expect_drop(GATE_INSIDE, &p, "service_port");
	opens(fx_udp_out(5001, FX_CLIENT, 53));
}

/* A session that the inside has with this very remote: a hole cannot be bound over it. */
static void hole_against_session(void **state)
{
	uint16_t port = opens(fx_udp_out(5000, FX_CLIENT, 4000));
	struct gate_request r = fx_open_request(IPPROTO_UDP, 5000, NULL);
	struct gate_reply h = fx_apply(&r);
	uint8_t sealed[64];
	struct fx_packet p = udp_in(h.public.port, FX_CLIENT, 4000);

	(void)state;
	assert_int_not_equal(h.public.port, port);
	p.n = fx_seal(r.key, 1, (const uint8_t *)"x", 1, sealed);
	p.payload = sealed;
	fx_expect_drop(GATE_OUTSIDE, &p, "reverse_clash");
	comes_in(udp_in(port, FX_CLIENT, 4000), 5000);
	assert_int_equal(opens(fx_udp_out(5000, FX_CLIENT, 4000)), port);
}

static void host_is_closed(void **state)
{
	struct fx_packet p = {.src = FX_SERVICE, .dst = FX_CONTROL, .sport = 5000, .dport = 7443, .proto = IPPROTO_TCP, .flags = SYN};
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	unsigned passed = 0;
	size_t n;

	(void)state;
	n = fx_arriving(GATE_INSIDE, &p, frame);
	assert_int_equal(fx_run(GATE_INSIDE, frame, n, out, &n), XDP_PASS);
	assert_memory_equal(frame, out, n);
	p.ttl = 1; /* it is the last hop */
	assert_int_equal(fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, &n), XDP_PASS);
	for (unsigned i = 0; i < 1000; i++)
		passed += fx_run(GATE_INSIDE, frame, n, out, NULL) == XDP_PASS;
	assert_true(passed < 1000);
	assert_true(fx_counter("control_rate") > 0);
	p.flags = ACK; /* what is connected is not held back by that */
	assert_int_equal(fx_run(GATE_INSIDE, frame, fx_arriving(GATE_INSIDE, &p, frame), out, &n), XDP_PASS);
	p.dport = 22;
	fx_expect_drop(GATE_INSIDE, &p, "to_host");
	p.dport = 7443;
	p.proto = IPPROTO_UDP;
	fx_expect_drop(GATE_INSIDE, &p, "to_host");
	p.proto = IPPROTO_ICMP;
	p.icmp_type = ECHO_REQUEST;
	fx_expect_drop(GATE_INSIDE, &p, "to_host");
	p.proto = IPPROTO_TCP;
	p.src = FX_CLIENT;
	fx_expect_drop(GATE_INSIDE, &p, "spoofed");
	/* From outside not at all, whatever the address. */
	p.src = FX_CLIENT;
	fx_expect_drop(GATE_OUTSIDE, &p, "not_public");
	p.dst = FX_PUBLIC;
	fx_expect_drop(GATE_OUTSIDE, &p, "no_hole");
	p.ttl = 64;
	/* Hairpin is not offered. */
	p.src = FX_SERVICE;
	fx_expect_drop(GATE_INSIDE, &p, "hairpin");
}

static void next_hops(void **state)
{
	struct fx_packet p = fx_udp_out(5000, FX_CLIENT, 53);
	struct epoll_event e;

	(void)state;
	p.ttl = 1;
	fx_expect_told(GATE_INSIDE, &p, "ttl", FX_CONTROL, 11, 0, 0);
	p.ttl = 64;
	p.dst = "198.18.100.7"; /* routed back inside */
	fx_expect_drop(GATE_INSIDE, &p, "wrong_egress");
	p.src = "198.18.100.3";
	p.dst = FX_SERVICE; /* a neighbour that is known, on the same side */
	fx_expect_drop(GATE_INSIDE, &p, "wrong_egress");
	p.src = FX_SERVICE;
	p.dst = "224.0.0.1";
	fx_expect_drop(GATE_INSIDE, &p, "to_nowhere");
	p.dst = "255.255.255.255";
	fx_expect_drop(GATE_INSIDE, &p, "to_nowhere");
	/* A neighbour nobody has asked for yet: dropped, and user space hears of it once. */
	p.dst = "198.18.3.77";
	fx_expect_drop(GATE_INSIDE, &p, "no_neighbour");
	fx_expect_drop(GATE_INSIDE, &p, "no_neighbour");
	assert_int_equal(fx_counter("mapping_new"), 0); /* and it has cost no table entry */
	assert_int_equal(epoll_wait(gate_dp_fd(fx_dp), &e, 1, 0), 1);
	gate_dp_events(fx_dp);
	assert_int_equal(epoll_wait(gate_dp_fd(fx_dp), &e, 1, 0), 0);
	assert_int_equal(system("ip neigh show 198.18.3.77 dev wan | grep -Eq 'INCOMPLETE|PROBE|FAILED'"), 0);
	assert_int_equal(system("ip neigh replace 198.18.3.77 lladdr 02:00:00:00:03:01 dev wan nud permanent"), 0);
	opens(p);
	/* Larger than the way out carries. */
	assert_int_equal(system("ip link set wan mtu 1000"), 0);
	gate_dp_events(fx_dp);
	{
		static const uint8_t big[1200];

		p.payload = big;
		p.n = sizeof(big);
		fx_expect_told(GATE_INSIDE, &p, "too_big_told", FX_CONTROL, 3, 4, 1000);
	}
	assert_int_equal(system("ip link set wan mtu 1500"), 0);
	assert_int_equal(system("ip route del default && ip neigh del 198.18.3.77 dev wan"), 0);
	gate_dp_events(fx_dp);
	fx_expect_drop(GATE_INSIDE, &p, "no_neighbour");
	p.dst = FX_CLIENT;
	fx_expect_drop(GATE_INSIDE, &p, "no_route");
	assert_int_equal(system("ip route add default via 198.18.3.1"), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(mapping_and_filtering),
					   FX_TEST(sources_are_validated),
					   FX_TEST(ports_are_unpredictable),
					   FX_TEST(ports_run_out),
					   FX_TEST(tables_full),
					   FX_TEST(one_tenant_leaves_room),
					   FX_TEST(expiry_and_revival),
					   FX_TEST(port_of_another_mapping),
					   FX_TEST(icmp_echo),
					   FX_TEST(tcp_session),
					   FX_TEST(tcp_refused_and_reset),
					   FX_TEST(simultaneous_open),
					   FX_TEST(service_opens_no_mapping),
					   FX_TEST(hole_against_session),
					   FX_TEST(host_is_closed),
					   FX_TEST(next_hops)};

	return FX_RUN("gate dp nat", tests);
}
