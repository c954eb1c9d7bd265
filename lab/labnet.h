/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the lab's programs share: the guard that keeps them inside the lab, raw frames, pacing. */
#pragma once

#include <net/if.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define LAB_FRAME_MAX   1514
#define LAB_BATCH       64
#define LAB_ETH         14
#define LAB_IP          20
#define LAB_UDP         8
#define LAB_PAYLOAD_MAX (LAB_FRAME_MAX - LAB_ETH - LAB_IP - LAB_UDP)

/* Hard limits: no option goes beyond them. */
#define LAB_RATE_MAX    200000
#define LAB_SECONDS_MAX 600
#define LAB_COUNT_MAX   50000000

/** \return true when `dst` (network order) is loopback, or lies in 198.18.0.0/15 while this process runs in a namespace of a lab
 * (one that /run/netns/wl-* names); otherwise says why not on stderr. */
bool lab_guard(uint32_t dst);

/** Set by SIGINT, SIGTERM and the alarm that lab_bounded() arms. */
extern volatile sig_atomic_t lab_stop;
void lab_bounded(unsigned seconds);

uint64_t lab_now_ns(void);
void lab_sleep_until(uint64_t ns);

/** Not for secrets. */
uint64_t lab_random(void);
/** A source out of 198.19.0.0/16, network order. */
uint32_t lab_spoofed(void);

/** Parses "A.B.C.D" or "A.B.C.D:PORT"; *port may be NULL when none may be given. \return 0 or -EINVAL. */
int lab_parse(const char *text, uint32_t *addr, uint16_t *port);

/** Paces `rate` a second; lab_due() says how many are due now, at most a fiftieth of a second's worth at once. */
struct lab_pace {
	uint64_t start, rate, done, missed;
};
void lab_pace_start(struct lab_pace *p, uint64_t rate);
unsigned lab_due(struct lab_pace *p);

/** Raw frames out of one device, in batches. */
struct lab_tx {
	int fd;
	int ifindex;
	uint8_t mac[6], next[6]; /* ours, the next hop's */
	uint32_t addr;           /* ours, network order */
	unsigned n;
	uint64_t sent, failed;
	struct mmsghdr m[LAB_BATCH];
	struct iovec iov[LAB_BATCH];
	uint8_t frame[LAB_BATCH][LAB_FRAME_MAX];
};

/** Opens `dev` and resolves the next hop towards `dst`. \return 0 or negative errno, with a line on stderr. */
int lab_tx_open(struct lab_tx *t, const char *dev, uint32_t dst);
/** Adds a UDP datagram (source and destination in network order, ports in host order); flushes a full batch. */
void lab_tx_udp(struct lab_tx *t, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport, const void *payload, size_t len);
/** Adds a TCP SYN. */
void lab_tx_syn(struct lab_tx *t, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport);
void lab_tx_flush(struct lab_tx *t);

/** A socket that sees what arrives at `dev`, not what leaves it. \return descriptor or negative errno. */
int lab_rx_open(const char *dev, unsigned snap);
