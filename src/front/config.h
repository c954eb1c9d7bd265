/* SPDX-License-Identifier: Apache-2.0 */
/** \file walnut-front's configuration file: walnut-front(5). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "front/core.h"
#include "peer/peer.h"
#include "userdb/update.h"

#define FRONT_PATH_MAX 108

struct front_tenant_config {
	char domain[DOMAIN_MAX + 1]; /* lower case */
	struct peer_pin agent_pin;
	uint8_t signing_key[UPDATE_SIGN_PUBLIC];
	bool sha256, md5;
	uint32_t max_calls, user_calls_per_s, service_calls_per_s;
};

struct front_config {
	struct wn_addr listen, agents;
	char keys[256];
	char socket[FRONT_PATH_MAX];
	char user[33];
	uint32_t threads;
	uint32_t nonce_lifetime_s, nonce_ring_bits, feed_max_age_s;
	unsigned ntenants;
	struct front_tenant_config *tenant; /* allocated */
};

/** Loads and checks. On failure one line, FILE:LINE: KEY: what is wrong and what would be right, is on stderr. Start-up only.
 * \return 0 or negative errno; on success free with front_config_free. */
int front_config_load(const char *file, struct front_config *out);
void front_config_free(struct front_config *c);
