/* SPDX-License-Identifier: Apache-2.0 */
/** \file A packet before it is bytes. */
#pragma once

#include "gate_frame.h"

enum { TCP = 6, UDP = 17, ICMP = 1, FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16 };

struct shape {
	uint8_t proto, ttl, flags, icmp_type, icmp_code;
	uint32_t src, dst;
	uint16_t sport, dport;
	uint32_t seq, ack;
	uint16_t window;
	uint8_t option[40];
	size_t noption;
	uint8_t data[1600];
	size_t n;
};

/** The frame as it arrives on a side. d: what else is drawn (type of service, a broken or absent checksum, padding); NULL: nothing. */
void shape_build(struct draw *d, const struct gm_net *net, enum gm_side side, const struct shape *s, struct frame *f);
extern const uint8_t shape_peer_mac[2][6];
