/* SPDX-License-Identifier: Apache-2.0 */
/** \file Route tokens: what lets an in-dialog request (ACK, BYE, UPDATE, re-INVITE) through any front of the tenant. Pure.
 *
 * A token is the user part of the Record-Route URI: version 2, flags, expiry, the client's address and port, the agent, the client's flow
 * at the front that sealed it, a hash of the dialog's Call-ID, and SipHash-2-4-128 over all of it under the tenant's route key (agent ->
 * fronts over TLS).
 */
#pragma once

#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define ROUTE_KEY_BYTES   16
#define ROUTE_TOKEN_BYTES 60 /* 1 version, 1 flags, 2 port, 4 expiry, 16 address, 8 agent, 8 flow, 4 call, 16 MAC */
#define ROUTE_TOKEN_CHARS 80

struct route_token {
	struct wn_addr client; /* as the front saw it */
	uint32_t expires_unix_s;
	uint64_t agent; /* hash of domain and agent name; what a plain next hop's token says: front/core.h */
	uint64_t flow;  /* opaque here; front/flow.h */
	uint32_t call;  /* route_token_call of its dialog */
};

/** What a token of the dialog with that Call-ID says. */
uint32_t route_token_call(struct span call_id, const uint8_t key[static ROUTE_KEY_BYTES]);

void route_token_seal(const struct route_token *t, const uint8_t key[static ROUTE_KEY_BYTES], char out[static ROUTE_TOKEN_CHARS]);

/** \return 0; -EINVAL not a token; -EBADMSG the MAC fails; -ETIMEDOUT expired. Constant time in the MAC. The caller compares address and
 * call.
 */
int route_token_open(struct span text, const uint8_t key[static ROUTE_KEY_BYTES], uint32_t now_unix_s, struct route_token *out);
