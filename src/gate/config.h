/* SPDX-License-Identifier: Apache-2.0 */
/** \file The gate's file (doc/man/walnut-gate.5). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "peer/peer.h"

#define GATE_PUBLIC_MAX   16 /* addresses of the pool; protected addresses of a family */
#define GATE_TENANTS_MAX  64
#define GATE_PREFIXES_MAX 8 /* per tenant */

/* What the file may leave out. */
#define GATE_SOCKET "/run/walnut/gate.sock"
#define GATE_STATE  "/sys/fs/bpf/walnut"

/** How the programs sit on the interfaces. */
enum gate_mode {
	GATE_MODE_AUTO, /* native where both drivers take programs, else generic */
	GATE_MODE_NATIVE,
	GATE_MODE_GENERIC,
};

struct gate_tenant {
	char name[64];
	struct peer_pin agent;
	struct wn_prefix prefix[GATE_PREFIXES_MAX];
	unsigned nprefix;
	uint32_t holes; /* quota */
};

struct gate_config {
	char outside[16], inside[16]; /* interface names */
	/* IPv4: the pool that is translated to, or with `firewall` the protected addresses, which are translated to nothing. */
	struct wn_addr public[GATE_PUBLIC_MAX];
	unsigned npublic;
	bool firewall;
	uint16_t port_low, port_high;               /* of the pool */
	struct wn_addr protected6[GATE_PUBLIC_MAX]; /* IPv6 is never translated */
	unsigned nprotected6;
	struct wn_addr control;
	struct wn_addr metrics; /* port 0: none */
	enum gate_mode mode;
	char keys[256], socket[108], state[256], user[32];
	uint32_t flows, mappings, holes; /* table sizes */
	struct gate_tenant tenant[GATE_TENANTS_MAX];
	unsigned ntenant;
};

/** Whether the gate has anything to do with IPv6: services, or agents that come by it. */
static inline bool gate_config_has6(const struct gate_config *cfg)
{
	return cfg->nprotected6 != 0 || !wn_addr_is4(&cfg->control);
}

/** Loads and checks everything that can be checked without privileges: names, ranges, prefixes that overlap (within a tenant or between
 * two), names and pins given twice. Whether interfaces, users and keys exist is for the start. \return 0, -EINVAL, or another negative
 * errno when the file cannot be read; with a line on stderr. */
int gate_config_load(const char *file, struct gate_config *out);
