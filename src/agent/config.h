/* SPDX-License-Identifier: Apache-2.0 */
/** \file The agent's file (walnut-agent(5)) and its secrets. Start-up only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "peer/peer.h"
#include "ticket/route.h"
#include "userdb/update.h"

#define AGENT_SERVICES_MAX 256
#define AGENT_FRONTS_MAX   64

struct agent_service {
	char *name;
	uint8_t proto; /* IPPROTO_TCP or IPPROTO_UDP */
	struct wn_addr inside;
	char **users; /* who may use it; nusers == 0: every user */
	unsigned nusers;
	uint64_t bytes_per_s;
	uint32_t packets_per_s, idle_s;
};

struct agent_peer {
	struct wn_addr addr;
	struct peer_pin pin;
};

struct agent_config {
	char *file, *domain, *keys, *database, *socket, *user;
	uint32_t epoch_s; /* 0: rotation off */
	uint32_t hole_lifetime_s;
	uint32_t heartbeat_s;
	uint32_t publish_keys_per_s;
	uint32_t max_calls;
	uint64_t user_bytes_per_s; /* of one user over all services, towards them; 0: no limit */
	uint32_t user_packets_per_s;
	struct wn_addr *enrol_fronts;
	unsigned nenrol_fronts;
	struct agent_peer gate;
	struct agent_peer *fronts;
	unsigned nfronts;
	struct agent_service *services;
	unsigned nservices;
};

/** \return 0, or negative errno after one line on stderr (file, line, key, what would be right). *out owns its strings. */
int agent_config_load(const char *file, struct agent_config *out);
void agent_config_free(struct agent_config *c);

struct agent_secrets {
	uint8_t sign[UPDATE_SIGN_SECRET];
	uint8_t route[ROUTE_KEY_BYTES];
};
/** Reads tenant.sign and tenant.route of c->keys. \return 0, or negative errno after one line on stderr. Wipe with sodium_memzero. */
int agent_secrets_load(const struct agent_config *c, struct agent_secrets *out);
