/* SPDX-License-Identifier: Apache-2.0 */
/** \file walnut-front's configuration file: walnut-front(5). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/addr.h"
#include "front/flow.h"
#include "front/policy.h"
#include "front/stream_policy.h"
#include "peer/peer.h"
#include "userdb/update.h"

#define FRONT_PATH_MAX  108
#define FRONT_STRANGERS 1024u /* that may wait, by default */

/** "udp:192.0.2.7:5060" */
struct front_address {
	enum front_transport transport;
	struct wn_addr addr;
};

struct front_tenant_config {
	char domain[DOMAIN_MAX + 1]; /* lower case */
	bool has_agent;              /* else agent_pin is all zero */
	struct peer_pin agent_pin;
	uint8_t signing_key[UPDATE_SIGN_PUBLIC]; /* all zero: no user can be known */
	struct front_policy policy;              /* a service's hop is an index into route, plus one */
	unsigned nroutes;
	struct front_address route[FRONT_HOPS_MAX];
};

struct front_config {
	struct wn_addr listen;
	unsigned nalso;
	struct front_address also_listen[FRONT_LISTENERS_MAX - 1];
	bool has_agents; /* some tenant has an agent; else `agents` is not listened on */
	struct wn_addr agents;
	char keys[256];
	struct front_stream_limits streams; /* of the whole process; trusted and buffers are 0 */
	uint32_t backlog;
	char tls_certificate[256], tls_key[256]; /* "": none */
	char state[256];                         /* "": none */
	bool has_metrics;
	struct wn_addr metrics;
	char socket[FRONT_PATH_MAX];
	char user[33];
	uint32_t threads;
	uint32_t batch_wait_us;
	uint32_t strangers_max, strangers_per_s; /* of each worker; of all. 0: no limit */
	uint32_t nonce_lifetime_s, nonce_ring_bits, feed_max_age_s, drain_s;
	unsigned ntenants;
	struct front_tenant_config *tenant; /* allocated */
};

/** Loads and checks. On failure one line, FILE:LINE: KEY: what is wrong and what would be right, is on stderr. Start-up only.
 * \return 0 or negative errno; on success free with front_config_free. */
int front_config_load(const char *file, struct front_config *out);
/** The same of a text that has been read already; `file` stands in errors alone. Reads no file where nothing is wrong. */
int front_config_parse(const char *file, const char *text, size_t n, struct front_config *out);
void front_config_free(struct front_config *c);
