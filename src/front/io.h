/* SPDX-License-Identifier: Apache-2.0 */
/** \file Packet I/O of a worker behind one table of functions, so that another backend needs no change to the logic. */
#pragma once

#include <stddef.h>

#include "base/addr.h"

struct front_steer;

#define FRONT_BATCH 64u

struct front_packet {
	char *data;
	size_t n; /* received: FRONT_DATAGRAM_MAX + 1 when it was longer than that */
	struct wn_addr addr;
	uint32_t order;    /* sent: those with equal ones leave in order; 0: none */
	uint64_t since_ns; /* when it was received: set by who calls recv */
};

struct front_io_where {
	const struct wn_addr *addr, *peer; /* peer: NULL for a listener's end */
	struct front_steer *steer;         /* of a listener; NULL: one queue */
	unsigned worker;
};

struct front_io_ops {
	/** Without a peer, opens one of several equal ends of the address; with it, an end of its own at its host that talks to the peer
	 * alone. May need privileges. \return 0 or negative errno. */
	int (*open)(const struct front_io_where *where, void **io);
	/** Its own address. */
	void (*own)(void *io, struct wn_addr *addr);
	/** For epoll, readable when recv has something. */
	int (*fd)(void *io);
	/** Fills up to n <= FRONT_BATCH packets whose data have FRONT_DATAGRAM_MAX + 1 bytes. \return how many; 0: none now; negative
	 * errno. */
	int (*recv)(void *io, struct front_packet *p, unsigned n);
	/** How full the place is in which datagrams wait for recv, in 256ths. */
	unsigned (*waiting)(void *io);
	/** Addresses do not count where there is a peer. Packets may overtake each other where `order` lets them. \return how many were
	 * taken; the rest found no room. */
	unsigned (*send)(void *io, const struct front_packet *p, unsigned n);
	void (*close)(void *io);
};

/** UDP sockets with SO_REUSEPORT, recvmmsg and sendmmsg; equally long datagrams to one address leave as one (UDP_SEGMENT), and what the
 * kernel has put together (UDP_GRO) is taken apart again. */
extern const struct front_io_ops front_io_udp;
