/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the kernel says of an interface (rtnetlink, the netdev family of generic netlink, ethtool). Changes nothing; start-up only.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct gate_if {
	uint32_t ifindex;
	char kind[16];       /* "veth", …; "" for hardware */
	uint32_t peer;       /* veth: the other end's index, in its own namespace */
	bool peer_elsewhere; /* that is another namespace than ours */
	bool ethernet, up;
	uint32_t mtu;
	bool has_program; /* an XDP program is attached */
};

/** \return 0, -ENODEV, or another negative errno. */
int gate_if_query(const char *name, struct gate_if *out);

enum { GATE_XDP_BASIC = 1, GATE_XDP_REDIRECT = 2, GATE_XDP_XMIT = 4 };

/** What the driver can do with XDP (GATE_XDP_x). \return 0; -ENOENT when this kernel does not tell (before 6.3); or negative errno. */
int gate_if_xdp(uint32_t ifindex, uint64_t *features);

/** Whether it lets hardware, or on a veth nobody, finish the checksums of what it sends. \return 1, 0, or negative errno. */
int gate_if_tx_checksum(const char *name);
