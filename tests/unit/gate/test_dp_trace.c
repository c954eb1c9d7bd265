/* SPDX-License-Identifier: Apache-2.0 */
/* Samples of dropped packets, and draining: what the operator asks of the packet path. */
#include <linux/bpf.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "dp_fixture.h"

static struct gate_dropped seen[2048];
static unsigned nseen;

static void keep(const struct gate_dropped *d, void *arg)
{
	(void)arg;
	if (nseen < sizeof(seen) / sizeof(seen[0]))
		seen[nseen++] = *d;
}

static unsigned take(unsigned max)
{
	nseen = 0;
	assert_int_equal(gate_dp_samples(fx_dp, max, keep, NULL), 0);
	return nseen;
}

static void trace(const char *reason, uint32_t per_s, bool fresh, uint64_t for_ms)
{
	uint64_t set[GATE_REASON_WORDS] = {UINT64_MAX, UINT64_MAX};
	int r = reason != NULL ? gate_reason_find(reason) : -1;

	if (reason != NULL) {
		assert_true(r > 0);
		memset(set, 0, sizeof(set));
		set[r / 64] = 1ull << (r % 64);
	}
	assert_int_equal(gate_dp_trace(fx_dp, set, per_s, fresh, wn_now_ms() + for_ms), 0);
}

static int setup(void **state)
{
	fx_setup(state);
	fx_refill();
	return 0;
}

static const struct fx_packet stray = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 4000, .dport = 5353};

static void off_until_asked(void **state)
{
	(void)state;
	fx_expect_drop(GATE_OUTSIDE, &stray, "no_hole");
	trace("no_hole", 100, true, 60000);
	assert_int_equal(take(10), 0);
	fx_expect_drop(GATE_OUTSIDE, &stray, "no_hole");
	assert_int_equal(take(10), 1);
	/* Other reasons are left out, and an end is an end, whether asked for or by the clock. */
	fx_expect_drop(GATE_INSIDE, &stray, "hairpin");
	assert_int_equal(take(10), 0);
	trace(NULL, 0, false, 0);
	fx_expect_drop(GATE_OUTSIDE, &stray, "no_hole");
	assert_int_equal(take(10), 0);
	trace(NULL, 100, true, 0);
	fx_tick();
	fx_expect_drop(GATE_OUTSIDE, &stray, "no_hole");
	assert_int_equal(take(10), 0);
}

/* Through the device, so that the side is known. */
static void run_on(int side, const uint8_t *frame, size_t n)
{
	struct xdp_md md = {.ingress_ifindex = fx_dp->ifindex[side], .data_end = (uint32_t)n};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)n, .ctx_in = &md, .ctx_size_in = sizeof(md),
		    .repeat = 1);

	assert_int_equal(bpf_prog_test_run_opts(fx_dp->path_fd[side], &opts), 0);
	assert_int_equal(opts.retval, XDP_DROP);
}

static void headers_and_nothing_else(void **state)
{
	static const uint8_t secret[600] = "payload";
	struct fx_packet p = stray, icmp = {.src = FX_CLIENT, .dst = FX_PUBLIC, .proto = IPPROTO_ICMP, .icmp_type = 13};
	uint8_t frame[FX_FRAME];
	char buf[WN_ADDR_STR];
	size_t n;

	(void)state;
	trace(NULL, 1000, true, 60000);
	p.payload = secret;
	p.n = sizeof(secret);
	n = fx_arriving(GATE_OUTSIDE, &p, frame);
	run_on(GATE_OUTSIDE, frame, n);
	assert_int_equal(take(10), 1);
	assert_string_equal(gate_reason_name(seen[0].reason), "no_hole");
	assert_int_equal(seen[0].side, GATE_DROPPED_OUTSIDE);
	assert_int_equal(seen[0].length, n);
	assert_int_equal(seen[0].ip, 4);
	assert_int_equal(seen[0].proto, IPPROTO_UDP);
	assert_string_equal(wn_addr_str(&seen[0].src, buf), FX_CLIENT ":4000");
	assert_string_equal(wn_addr_str(&seen[0].dst, buf), FX_PUBLIC ":5353");
	assert_in_range(seen[0].time_ms, wn_now_ms() - 10000, wn_now_ms());
	for (size_t i = 0; i + 4 <= sizeof(seen[0]); i++)
		assert_memory_not_equal((const uint8_t *)&seen[0] + i, "payl", 4);

	/* A later fragment has no ports: what stands there is payload. */
	n = fx_arriving(GATE_INSIDE, &p, frame);
	frame[20] = 0x00;
	frame[21] = 0x10;
	run_on(GATE_INSIDE, frame, n);
	assert_int_equal(take(10), 1);
	assert_int_equal(seen[0].side, GATE_DROPPED_INSIDE);
	assert_string_equal(gate_reason_name(seen[0].reason), "fragment_inside"); /* and whose it is */
	assert_string_equal(wn_ip_str(&seen[0].src, buf), FX_CLIENT);
	assert_int_equal(seen[0].src.port, 0);
	assert_int_equal(seen[0].dst.port, 0);

	/* Options in front of the ports. */
	n = fx_arriving(GATE_OUTSIDE, &p, frame);
	memmove(frame + 38, frame + 34, 8);
	memset(frame + 34, 1, 4);
	frame[14] = 0x46;
	run_on(GATE_OUTSIDE, frame, n);
	assert_int_equal(take(10), 1);
	assert_string_equal(gate_reason_name(seen[0].reason), "ip_options");
	assert_int_equal(seen[0].dst.port, 5353);

	n = fx_arriving(GATE_OUTSIDE, &icmp, frame);
	run_on(GATE_OUTSIDE, frame, n);
	assert_int_equal(take(10), 1);
	assert_string_equal(gate_reason_name(seen[0].reason), "icmp_type");
	assert_int_equal(seen[0].icmp_type, 13);

	memset(frame + 14, 0, 60);
	memcpy(frame + 12, "\x86\xdd\x60", 3);
	frame[20] = IPPROTO_UDP;
	frame[22 + 15] = 1;
	frame[38 + 15] = 2;
	frame[54] = 1;
	run_on(GATE_OUTSIDE, frame, 100);
	assert_int_equal(take(10), 1);
	assert_string_equal(gate_reason_name(seen[0].reason), "ipv6");
	assert_int_equal(seen[0].ip, 6);
	assert_string_equal(wn_addr_str(&seen[0].src, buf), "[::1]:256");
	assert_string_equal(wn_ip_str(&seen[0].dst, buf), "::2");

	/* Nothing behind the type, and a tag in front of it. */
	run_on(GATE_OUTSIDE, frame, 14);
	memcpy(frame + 12, "\x81\x00", 2);
	run_on(GATE_OUTSIDE, frame, 100);
	assert_int_equal(take(10), 2);
	assert_int_equal(seen[0].ip, 0);
	assert_int_equal(seen[1].ethertype, 0x8100);
	assert_int_equal(seen[1].src.port, 0);
}

/* Of a flood a few; and more than the buffer holds does no harm. */
static void a_flood_is_sampled(void **state)
{
	uint8_t frame[FX_FRAME], out[FX_FRAME];
	size_t n = fx_arriving(GATE_OUTSIDE, &stray, frame);
	uint64_t start_ms = wn_now_ms(), most;
	unsigned all;

	(void)state;
	trace("no_hole", 100, true, 60000);
	for (unsigned i = 0; i < 20000; i++)
		fx_run(GATE_OUTSIDE, frame, n, out, NULL);
	/* A tenth of a second ahead, on each CPU that the test was moved to. */
	most = (uint64_t)fx_dp->cpus * (11 + (wn_now_ms() - start_ms) / 10 + 1);
	all = take(5);
	assert_int_equal(all, 5);
	all += take(2000);
	assert_in_range(all, 10, most);
	assert_int_equal(take(10), 0);
	trace("no_hole", 1000, true, 60000);
	for (unsigned k = 0; k < 30; k++) {
		fx_refill();
		for (unsigned i = 0; i < 100; i++)
			fx_run(GATE_OUTSIDE, frame, n, out, NULL);
	}
	assert_in_range(take(2000), 500, 1500);
	fx_expect_drop(GATE_OUTSIDE, &stray, "no_hole");
}

static void draining(void **state)
{
	struct gate_request r = fx_open_request(IPPROTO_TCP, 22, FX_CLIENT);
	struct gate_reply first = fx_apply(&r);

	(void)state;
	assert_int_equal(first.status, GATE_OK);
	assert_false(gate_dp_draining(fx_dp));
	gate_dp_drain(fx_dp, true);
	assert_int_equal(fx_apply(&r).status, GATE_DRAINING);
	assert_int_equal(fx_counter("draining"), 1);
	assert_int_equal(fx_apply_op(GATE_RENEW, first.hole, 60).status, GATE_OK);
	/* Over a restart, and over one that has to make the tables anew. */
	fx_close();
	fx_open();
	assert_true(gate_dp_draining(fx_dp));
	assert_int_equal(fx_apply(&r).status, GATE_DRAINING);
	assert_int_equal(fx_apply_op(GATE_RENEW, first.hole, 60).status, GATE_OK);
	fx_close();
	fx_config.holes *= 2;
	fx_open();
	fx_config.holes /= 2;
	assert_true(gate_dp_draining(fx_dp));
	gate_dp_drain(fx_dp, false);
	assert_int_equal(fx_apply(&r).status, GATE_OK);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, fx_teardown)
	const struct CMUnitTest tests[] = {T(off_until_asked), T(headers_and_nothing_else), T(a_flood_is_sampled), T(draining)};

	return FX_RUN("gate dp trace", tests);
}
