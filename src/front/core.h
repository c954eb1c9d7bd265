/* SPDX-License-Identifier: Apache-2.0 */
/** \file What a front decides about one message. Pure: no socket, no clock; a worker feeds it and carries out what it says.
 *
 * Before a digest has been verified nothing is allocated for a sender (brief, section 4). The order of checks is the order of
 * enum front_outcome; each is a counter. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"
#include "sip/digest.h"
#include "sip/msg.h"
#include "ticket/nonce.h"
#include "ticket/route.h"
#include "userdb/table.h"

#define FRONT_DATAGRAM_MAX 8192   /* larger datagrams are refused unread: FRONT_SIZE */
#define FRONT_DATAGRAM_MIN 64     /* smaller ones cannot be a request that we answer */

/** X(name): in the order of the checks, cheapest first. The first group ends a message without an answer. */
#define FRONT_OUTCOMES(X) \
	X(size) X(first_bytes) X(keepalive) X(start_line) X(malformed) X(response) X(unknown_tenant) X(method) \
	X(in_dialog_no_token) X(in_dialog_bad_token) X(ack_absorbed) X(cancel_ignored) \
	X(challenged) X(challenge_too_large) \
	X(credentials_malformed) X(realm) X(algorithm) X(nonce_malformed) X(nonce_foreign) X(nonce_expired) X(nonce_exhausted) \
	X(nonce_shape) X(retransmission) X(epoch) X(unknown_user) X(digest) X(uri_mismatch) X(replay) X(feed_stale) \
	X(user_budget) X(service_budget) X(no_agent) X(too_many_hops) X(forwarded) X(forwarded_in_dialog) X(cancelled) \
	X(relayed_response) X(response_dropped)

enum front_outcome {
#define X(n) FRONT_##n,
	FRONT_OUTCOMES(X)
#undef X
	FRONT_OUTCOME_COUNT
};
const char *front_outcome_name(enum front_outcome o);
