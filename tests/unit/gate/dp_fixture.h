/* SPDX-License-Identifier: Apache-2.0 */
/** \file A gate in a network namespace of the test's own, and packets for it. One packet is described once; what should come out is built
 * from the same description with checksums computed in full, so that incremental ones are checked against something else. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/path.h"

#define FX_PUBLIC  "198.18.3.2"
#define FX_GATEWAY "198.18.3.1"
#define FX_SERVICE "198.18.100.2"
#define FX_CONTROL "198.18.100.1"
#define FX_CLIENT  "198.18.4.2"
#define FX_OTHER   "198.18.5.2"
#define FX_FRAME   2048
/* The same in IPv6; FX_SERVICE6 and FX_SERVICE are protected addresses where a test asks for it. */
#define FX_SERVICE6 "2001:db8:100::2"
#define FX_CONTROL6 "2001:db8:100::1"
#define FX_CLIENT6  "2001:db8:4::2"
#define FX_OTHER6   "2001:db8:5::2"

enum fx_flag { FX_NO_CSUM = 1, FX_NO_DF = 2 };

struct fx_packet {
	const char *src, *dst; /* of one family */
	uint16_t sport, dport; /* ICMP echo: sport is the id */
	uint8_t proto;         /* IPPROTO_UDP when 0 */
	uint8_t ttl;           /* 64 when 0 */
	uint8_t flags;         /* TCP */
	uint8_t fx;            /* enum fx_flag */
	uint8_t icmp_type, icmp_code;
	uint16_t window;
	uint32_t seq, ack;
	const uint8_t *option; /* TCP */
	size_t noption;
	const uint8_t *payload;
	size_t n;
};

/** False when not root: the test is skipped. Ends the process when something does not work. */
bool fx_up(void);
void fx_down(void);
/** The configuration that fx_open uses; change it before. */
extern struct gate_config fx_config;
void fx_open(void);  /* gate_dp_open; asserts */
void fx_close(void); /* gate_dp_close: leaves the pins */
void fx_remove(void);
/** Throws everything away and begins again, with fx_config as it is now. */
void fx_anew(void);
extern struct gate_dp *fx_dp;

/** A gate for each test, by fx_open, and nothing of it afterwards. */
int fx_setup(void **state);
int fx_teardown(void **state);
#define FX_TEST(name) cmocka_unit_test_setup_teardown(name, fx_setup, fx_teardown)
/** All of main: runs an array of tests between fx_up and fx_down, or skips them. */
#define FX_RUN(group, tests) (fx_up() ? fx_end(cmocka_run_group_tests_name(group, tests, NULL, NULL)) : fx_skip())
int fx_end(int rc); /* fx_down; \return rc */
int fx_skip(void);

/** A TCP segment with n bytes of data, up to 1500. */
struct fx_packet fx_tcp(const char *src, uint16_t sport, const char *dst, uint16_t dport, uint8_t flags, uint32_t seq, uint32_t ack,
			size_t n);
/** A datagram of the service's. */
struct fx_packet fx_udp_out(uint16_t sport, const char *dst, uint16_t dport);

/** Builds the frame as it arrives on (received) or leaves from (sent) a side. \return its length. */
size_t fx_arriving(int side, const struct fx_packet *p, uint8_t *out);
size_t fx_leaving(int side, const struct fx_packet *p, uint8_t *out);

/** Runs the side's program over a frame. \return its verdict. */
int fx_run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout);

/** A packet in, and the exact bytes that come out of the other side. */
void fx_expect_out(int side, const struct fx_packet *in, const struct fx_packet *out);
/** A packet in, dropped for this reason, counted once. */
void fx_expect_drop(int side, const struct fx_packet *in, const char *reason);
void fx_expect_frame_drop(int side, const uint8_t *frame, size_t n, const char *reason);
/** A packet in, dropped for this reason, and its sender told: the exact message (type, code, MTU) from this address of the gate's. */
void fx_expect_told(int side, const struct fx_packet *in, const char *reason, const char *from, uint8_t type, uint8_t code, uint16_t mtu);
/** A packet in that leaves; what left, with its source and source port. */
void fx_passes(int side, const struct fx_packet *in, uint8_t *out, size_t *nout);
uint16_t fx_sport(const uint8_t *frame);
/** A packet of the inside that leaves. \return its public port, or query id. */
uint16_t fx_opens(struct fx_packet p);
/** Waits until the path's clock, which goes in ticks, has gone on. */
void fx_tick(void);
uint64_t fx_counter(const char *name);
/** Fills every budget (ARP, control, ICMP errors) again. */
void fx_refill(void);

/** An OPEN with sane values for the rest. remote NULL: with a tag. */
struct gate_request fx_open_request(uint8_t proto, uint16_t port, const char *remote);
/** Where nothing is translated: protects these addresses, NULL for none. */
void fx_protect(const char *service4, const char *service6);
struct gate_reply fx_apply(const struct gate_request *r);
struct gate_reply fx_apply_op(uint8_t op, uint64_t hole, uint32_t lifetime_s);
struct gate_grant *fx_grant(uint64_t hole);
/** payload || counter || MAC into out; returns the length. */
size_t fx_seal(const uint8_t key[16], uint64_t counter, const uint8_t *payload, size_t n, uint8_t *out);
void fx_addr(struct wn_addr *a, const char *ip, uint16_t port);
