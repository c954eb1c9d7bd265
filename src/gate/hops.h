/* SPDX-License-Identifier: Apache-2.0 */
/** \file The packet path's next hops, from what the kernel has of routes, neighbours and links. Pure: no I/O, no clock, no memory of its
 * own.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "gate/bpf/shared.h"

#define GATE_KERNEL_ROUTES     1024
#define GATE_KERNEL_NEIGHBOURS 1024

/** A route of the tables "local" or "main". Addresses in network order. */
struct gate_kernel_route {
	uint32_t ip, gateway; /* gateway 0: the destination itself is on the link */
	uint32_t oif;
	uint32_t metric;
	uint32_t mtu; /* 0: the link's */
	uint8_t bits; /* 0 to 32 */
	bool local;   /* of "local": comes first, and is never a way out */
	bool plain;   /* unicast, by one living interface, for every packet: anything else is the kernel's to decide */
};

/** A neighbour whose link address the kernel would use now (NUD_VALID). */
struct gate_kernel_neighbour {
	uint32_t ifindex, ip;
	uint8_t mac[6];
};

struct gate_kernel_link {
	uint32_t ifindex, mtu;
	uint8_t mac[6];
	bool up;
};

/** What was read at one moment. */
struct gate_kernel {
	bool odd; /* rules, or anything else that makes a route depend on more than the destination: nothing is certain */
	unsigned nroutes, nneighbours;
	struct gate_kernel_link link[GATE_SIDES];
	struct gate_kernel_route route[GATE_KERNEL_ROUTES];
	struct gate_kernel_neighbour neighbour[GATE_KERNEL_NEIGHBOURS];
};

/** Fills both sides' tables, every byte of them. A packet that finds a GATE_HOP_NEXT there leaves exactly as bpf_fib_lookup would have it
 * leave; what does not fit, or is not certain, asks. Entries of k are taken in any order.
 * \return how many next hops are known. */
unsigned gate_hops_compile(const struct gate_kernel *k, struct gate_hops out[GATE_SIDES]);
