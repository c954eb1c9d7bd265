/* SPDX-License-Identifier: Apache-2.0 */
/* What the RFCs ask of a NAT in numbers and in odd moments: lifetimes, connections that one end has lost, errors about the first segment.
 */
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16, ECHO_REPLY = 0, UNREACHABLE = 3, ECHO_REQUEST = 8 };

#define ROUTER "198.18.9.9"

static const uint8_t data[1400];

static struct fx_packet tcp_out(uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_SERVICE, 5000, FX_CLIENT, 443, flags, seq, ack, n);
}

static struct fx_packet tcp_in(uint16_t port, uint8_t flags, uint32_t seq, uint32_t ack, size_t n)
{
	return fx_tcp(FX_CLIENT, 443, FX_PUBLIC, port, flags, seq, ack, n);
}

static void comes_in(struct fx_packet p)
{
	uint8_t got[FX_FRAME];
	size_t n;

	fx_passes(GATE_OUTSIDE, &p, got, &n);
}

static void dropped_in(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_OUTSIDE, &p, reason);
}

static void dropped_out(struct fx_packet p, const char *reason)
{
	fx_expect_drop(GATE_INSIDE, &p, reason);
}

/* The gate's only session. */
static void only(struct gate_key *k, struct gate_flow *f)
{
	struct gate_key next;

	assert_int_equal(bpf_map_get_next_key(fx_dp->flows_fd, NULL, k), 0);
	assert_int_not_equal(bpf_map_get_next_key(fx_dp->flows_fd, k, &next), 0);
	assert_int_equal(bpf_map_lookup_elem_flags(fx_dp->flows_fd, k, f, BPF_F_LOCK), 0);
}

static uint64_t expires(void)
{
	struct gate_key k;
	struct gate_flow f;

	only(&k, &f);
	return f.expires;
}

static void set_expires(uint64_t at)
{
	struct gate_key k;
	struct gate_flow f;

	only(&k, &f);
	f.expires = at;
	assert_int_equal(bpf_map_update_elem(fx_dp->flows_fd, &k, &f, BPF_F_LOCK), 0);
}

static uint64_t now_ns(void)
{
	return wn_now_ms() * GATE_NS_PER_MS;
}

/* Packet p from a side keeps the session for `s` seconds from then on, whatever was left of an earlier one's; at most a tenth longer. */
static void keeps_for(int side, struct fx_packet p, uint64_t s)
{
	const uint64_t least = s * GATE_NS_PER_S, step = least / 256;
	uint8_t got[FX_FRAME];
	uint64_t before;
	size_t n;

	fx_passes(side, &p, got, &n);
	assert_true(expires() < now_ns() + least * 11 / 10);
	for (int64_t i = -24; i <= 24; i++) {
		before = now_ns();
		set_expires(before + (uint64_t)((int64_t)least + i * (int64_t)step));
		fx_passes(side, &p, got, &n);
		assert_true(expires() >= before + least);
	}
}

/* RFC 4787 REQ-5, RFC 5382 REQ-5, RFC 5508 REQ-2. */
static void no_lifetime_is_too_short(void **state)
{
	struct fx_packet out = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 5};
	struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 53, .payload = data, .n = 5};
	uint16_t port;

	(void)state;
	keeps_for(GATE_INSIDE, out, 120);
	in.dport = fx_opens(out);
	comes_in(in);
	keeps_for(GATE_INSIDE, out, 300);

	fx_anew();
	out = (struct fx_packet){.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 99, .proto = IPPROTO_ICMP, .icmp_type = ECHO_REQUEST};
	keeps_for(GATE_INSIDE, out, 60);

	fx_anew();
	keeps_for(GATE_INSIDE, tcp_out(SYN, 100, 0, 0), 240);
	port = fx_opens(tcp_out(SYN, 100, 0, 0));
	keeps_for(GATE_OUTSIDE, tcp_in(port, SYN | ACK, 900, 101, 0), 240);
	keeps_for(GATE_INSIDE, tcp_out(ACK, 101, 901, 0), 7440);
	keeps_for(GATE_OUTSIDE, tcp_in(port, ACK, 901, 101, 0), 7440);
	keeps_for(GATE_INSIDE, tcp_out(FIN | ACK, 101, 901, 0), 240);
	keeps_for(GATE_OUTSIDE, tcp_in(port, ACK, 901, 102, 100), 240);
	keeps_for(GATE_OUTSIDE, tcp_in(port, FIN | ACK, 1001, 102, 0), 240);
	keeps_for(GATE_INSIDE, tcp_out(ACK, 102, 1002, 0), 240);
}

/* A mapping lives as long as what goes through it (RFC 4787 REQ-5 is about mappings). */
static void no_mapping_before_its_session(void **state)
{
	struct fx_packet out = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 5};
	struct gate_end k;
	struct gate_mapping m;

	(void)state;
	fx_opens(out);
	for (int64_t i = -24; i <= 24; i++) {
		set_expires(now_ns() + (uint64_t)(120 * (int64_t)GATE_NS_PER_S + i * (int64_t)GATE_NS_PER_S / 4));
		fx_opens(out);
		assert_int_equal(bpf_map_get_next_key(fx_dp->mappings_fd, NULL, &k), 0);
		assert_int_equal(bpf_map_lookup_elem(fx_dp->mappings_fd, &k, &m), 0);
		assert_true(m.expires > now_ns() + 120 * GATE_NS_PER_S);
	}
}

static uint16_t connected(void)
{
	const uint16_t port = fx_opens(tcp_out(SYN, 100, 0, 0));

	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0));
	fx_opens(tcp_out(ACK, 101, 901, 500));
	comes_in(tcp_in(port, ACK, 901, 601, 1400));
	return port;
}

/* RFC 5382 REQ-2, RFC 9293 3.5.1 (half-open connections): the inside's host has lost the connection and asks for it again. */
static void syn_into_a_connection(void **state)
{
	const uint16_t port = connected();

	(void)state;
	fx_opens(tcp_out(SYN, 0x90000000, 0, 0));
	fx_opens(tcp_out(SYN, 7, 0, 0));
	dropped_in(tcp_in(port, SYN, 2301, 0, 0), "tcp_state"); /* not from a stranger */
	dropped_in(tcp_in(port, SYN | ACK, 5, 8, 0), "tcp_state");
	fx_opens(tcp_out(ACK, 601, 2301, 10)); /* and nothing has changed */
	comes_in(tcp_in(port, ACK, 2301, 611, 10));
	dropped_in(tcp_in(port, ACK, 901 + 0x4000000, 611, 1), "tcp_window");
	/* The challenge, and what a host without the connection says to it. */
	fx_opens(tcp_out(SYN, 0x90000000, 0, 0));
	comes_in(tcp_in(port, ACK, 2311, 611, 0));
	fx_opens(tcp_out(RST, 611, 0, 0));
	assert_int_equal(fx_opens(tcp_out(SYN, 0x90000000, 0, 0)), port);
	comes_in(tcp_in(port, SYN | ACK, 5000, 0x90000001, 0));
	fx_opens(tcp_out(ACK, 0x90000001, 5001, 10));
}

/* Both while it opens and once it has ended. */
static void syn_at_other_moments(void **state)
{
	uint16_t port = fx_opens(tcp_out(SYN, 100, 0, 0));

	(void)state;
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0));
	fx_opens(tcp_out(SYN, 100, 0, 0));
	fx_opens(tcp_out(SYN, 777, 0, 0));
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0));
	fx_opens(tcp_out(ACK, 101, 901, 0));
	comes_in(tcp_in(port, SYN | ACK, 900, 101, 0)); /* that ACK got lost */
	fx_opens(tcp_out(FIN | ACK, 101, 901, 0));
	fx_opens(tcp_out(SYN, 777, 0, 0));
	comes_in(tcp_in(port, FIN | ACK, 901, 102, 0));
	fx_opens(tcp_out(ACK, 102, 902, 0));
	fx_opens(tcp_out(SYN, 50, 0, 0)); /* TIME-WAIT: an old number is the far end's to refuse */
	dropped_in(tcp_in(port, SYN | ACK, 5000, 51, 0), "tcp_state");
	fx_opens(tcp_out(SYN, 100000, 0, 0)); /* RFC 6191 */
	comes_in(tcp_in(port, SYN | ACK, 5000, 100001, 0));
}

/* RFC 7857 section 2.2: four minutes, and section 7.1: not one more for the RST. RFC 5961 section 3. */
static void after_an_rst(void **state)
{
	const uint16_t port = connected();
	uint64_t before = now_ns(), end;

	(void)state;
	fx_opens(tcp_out(ACK, 601, 2301, 300));
	fx_opens(tcp_out(RST, 901, 0, 0)); /* its data, still on the way, comes first */
	end = expires();
	assert_in_range(end, before + 240 * GATE_NS_PER_S, now_ns() + 250 * GATE_NS_PER_S);
	set_expires(end - 30 * GATE_NS_PER_S);
	fx_opens(tcp_out(RST, 901, 0, 0));
	assert_int_equal(expires(), end - 30 * GATE_NS_PER_S);
	/* Who has not got that data yet asks. */
	comes_in(tcp_in(port, ACK, 2301, 601, 0));
	fx_opens(tcp_out(RST, 601, 0, 0));
	dropped_in(tcp_in(port, ACK, 2301, 601, 1), "tcp_state");
	dropped_in(tcp_in(port, ACK | FIN, 2301, 601, 0), "tcp_state");
	dropped_in(tcp_in(port, SYN, 2301, 0, 0), "tcp_state");
	dropped_in(tcp_in(port, ACK, 0x40000000, 601, 0), "tcp_window");
	dropped_in(tcp_in(port, RST, 2400, 0, 0), "tcp_rst");
	dropped_out(tcp_out(ACK, 901, 2301, 1), "tcp_state");
	assert_int_equal(fx_opens(tcp_out(SYN, 5, 0, 0)), port);
}

/* A number is a number, whichever half of the circle it is in (RFC 5508 REQ-4, RFC 5382 REQ-9). */
static void error_about_a_syn(void **state)
{
	static const uint32_t isn[] = {0, 1, 0x7fffffff, 0x80000000, 0x80000001, 0xc0000000, 0xffffffff};
	uint8_t quoted[FX_FRAME];
	struct fx_packet p,
		e = {.src = ROUTER, .dst = FX_PUBLIC, .proto = IPPROTO_ICMP, .icmp_type = UNREACHABLE, .payload = quoted + 14, .n = 28};

	(void)state;
	for (size_t i = 0; i < sizeof(isn) / sizeof(isn[0]); i++) {
		for (uint32_t wrong = 0; wrong < 3; wrong++) {
			static const uint32_t off[3] = {0, -1u, 2};

			p = tcp_out(SYN, isn[i], 0, 0);
			p.sport = fx_opens(p);
			p.src = FX_PUBLIC;
			p.seq += off[wrong];
			fx_leaving(GATE_OUTSIDE, &p, quoted);
			if (wrong == 0)
				comes_in(e);
			else
				dropped_in(e, "icmp_unmatched");
		}
		fx_anew();
	}
}

/* RFC 5382 REQ-4: no answer to an unexpected SYN, not even an error; and none when the inside's own follows. */
static void unsolicited_syn(void **state)
{
	const uint16_t other = fx_opens((struct fx_packet){
		.src = FX_SERVICE, .dst = FX_OTHER, .sport = 5000, .dport = 80, .proto = IPPROTO_TCP, .flags = SYN, .seq = 7});
	uint16_t port;

	(void)state;
	dropped_in(tcp_in((uint16_t)(other ^ 1), SYN, 900, 0, 0), "no_hole");
	dropped_in(tcp_in(other, SYN, 900, 0, 0), "no_session");
	port = fx_opens(tcp_out(SYN, 100, 0, 0));
	assert_int_equal(port, other);
	comes_in(tcp_in(port, SYN, 900, 0, 0)); /* the peer's next try: REQ-2 a */
	fx_opens(tcp_out(SYN | ACK, 100, 901, 0));
}

/* RFC 7857 sections 5 and 6: what a mapping is of one protocol it is not of another. */
static void protocols_apart(void **state)
{
	struct fx_packet u = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 443, .payload = data, .n = 5};
	struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 443, .payload = data, .n = 5};
	const uint16_t tcp = fx_opens(tcp_out(SYN, 100, 0, 0));

	(void)state;
	in.dport = tcp;
	dropped_in(in, "no_hole");
	in.dport = fx_opens(u);
	comes_in(in);
	assert_int_equal(fx_counter("mapping_new"), 2);
	if (in.dport != tcp)
		dropped_in(tcp_in(in.dport, SYN | ACK, 900, 101, 0), "no_hole");
	comes_in(tcp_in(tcp, SYN | ACK, 900, 101, 0));
}

static struct fx_packet error_about(const struct fx_packet *p, uint8_t *quoted, size_t keep)
{
	fx_leaving(GATE_OUTSIDE, p, quoted);
	return (struct fx_packet){
		.src = ROUTER, .dst = FX_PUBLIC, .proto = IPPROTO_ICMP, .icmp_type = UNREACHABLE, .payload = quoted + 14, .n = keep};
}

/* RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6: an error passes, and nothing is shorter or longer for it; nor for one that the inside
 * sends (RFC 7857 section 7.1). */
static void errors_end_nothing(void **state)
{
	uint8_t quoted[FX_FRAME];
	struct fx_packet p, e;
	uint64_t was;
	uint16_t port;

	(void)state;
	for (int kind = 0; kind < 3; kind++) {
		struct fx_packet in = {.src = FX_CLIENT, .dst = FX_PUBLIC, .payload = data, .n = 10};

		p = (struct fx_packet){.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 10};
		if (kind == 1) {
			p.proto = in.proto = IPPROTO_ICMP;
			p.icmp_type = ECHO_REQUEST;
			in.icmp_type = ECHO_REPLY;
		}
		if (kind == 2) {
			port = connected();
			p = tcp_out(ACK, 601, 2301, 10);
			in = tcp_in(port, ACK, 2301, 611, 10);
		}
		port = fx_opens(p);
		if (kind == 1)
			in.sport = port;
		else if (kind == 0)
			in.sport = 53;
		if (kind != 1)
			in.dport = port;
		set_expires(was = expires() - GATE_NS_PER_S * 40);
		p.src = FX_PUBLIC;
		p.sport = port;
		e = error_about(&p, quoted, 28);
		comes_in(e);
		assert_int_equal(expires(), was);
		in.dst = FX_SERVICE;
		if (kind == 1)
			in.sport = 5000;
		else
			in.dport = 5000;
		fx_leaving(GATE_INSIDE, &in, quoted);
		e = (struct fx_packet){.src = FX_SERVICE,
				       .dst = FX_CLIENT,
				       .proto = IPPROTO_ICMP,
				       .icmp_type = UNREACHABLE,
				       .payload = quoted + 14,
				       .n = 28};
		fx_opens(e);
		assert_int_equal(expires(), was);
		in.dst = FX_PUBLIC;
		if (kind == 1)
			in.sport = port;
		else
			in.dport = port;
		comes_in(in);
		fx_anew();
	}
}

static uint16_t sum(const uint8_t *p, size_t n)
{
	uint32_t s = 0;

	for (size_t i = 0; i < n; i++)
		s += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

/* RFC 5508 REQ-3: the gate does not look whether an error's checksums are right; those that were wrong stay so, and the receiver sees it.
 */
static void a_wrong_checksum_stays_wrong(void **state)
{
	struct fx_packet p = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 10}, e;
	uint8_t quoted[FX_FRAME], frame[FX_FRAME], got[FX_FRAME];
	size_t n, ngot;

	(void)state;
	p.sport = fx_opens(p);
	p.src = FX_PUBLIC;
	e = error_about(&p, quoted, 38);
	for (int wrong = 0; wrong < 3; wrong++) {
		n = fx_arriving(GATE_OUTSIDE, &e, frame);
		if (wrong == 1)
			frame[34 + 2] ^= 0x55; /* the message's */
		if (wrong == 2) {
			frame[42 + 10] ^= 0x55; /* the quoted header's, and the message's is right about that */
			frame[34 + 2] = frame[34 + 3] = 0;
			frame[34 + 2] = (uint8_t)(sum(frame + 34, n - 34) >> 8);
			frame[34 + 3] = (uint8_t)(sum(frame + 34, n - 34) + (frame[34 + 2] << 8));
		}
		assert_int_equal(fx_run(GATE_OUTSIDE, frame, n, got, &ngot), XDP_REDIRECT);
		assert_int_equal(ngot, n);
		assert_int_equal(sum(got + 34, n - 34) == 0, wrong != 1);
		assert_int_equal(sum(got + 42, 20) == 0, wrong != 2);
	}
}

/* RFC 5508 REQ-3 d, RFC 4884: a quote padded to 128 bytes and an extension behind it arrive as they are. */
static void extensions(void **state)
{
	static const uint8_t ext[12] = {0x20, 0, 0xde, 0xad, 0, 8, 1, 1, 0, 1, 2, 3};
	struct fx_packet p = {.src = FX_SERVICE, .dst = FX_CLIENT, .sport = 5000, .dport = 53, .payload = data, .n = 10}, e;
	uint8_t quoted[FX_FRAME] = {0}, got[FX_FRAME];
	size_t n;

	(void)state;
	p.sport = fx_opens(p);
	p.src = FX_PUBLIC;
	e = error_about(&p, quoted, 128 + sizeof(ext));
	memset(quoted + 14 + 38, 0, 128 - 38);
	memcpy(quoted + 14 + 128, ext, sizeof(ext));
	fx_passes(GATE_OUTSIDE, &e, got, &n);
	assert_int_equal(n, 42 + 128 + sizeof(ext));
	assert_memory_equal(got + 42 + 38, quoted + 14 + 38, 128 - 38 + sizeof(ext));
	assert_int_equal(sum(got + 34, n - 34), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(no_lifetime_is_too_short),
					   FX_TEST(no_mapping_before_its_session),
					   FX_TEST(syn_into_a_connection),
					   FX_TEST(syn_at_other_moments),
					   FX_TEST(after_an_rst),
					   FX_TEST(unsolicited_syn),
					   FX_TEST(protocols_apart),
					   FX_TEST(error_about_a_syn),
					   FX_TEST(errors_end_nothing),
					   FX_TEST(a_wrong_checksum_stays_wrong),
					   FX_TEST(extensions)};

	return FX_RUN("gate dp rfc", tests);
}
