/* SPDX-License-Identifier: Apache-2.0 */
/** \file The session key (brief, section 4; the paper's section 3.1): derived at both ends, never sent to the client. Pure.
 *
 * session = HKDF-SHA256(ikm = SK_ct, salt = "walnut/1 session", info = nonce, cnonce, Call-ID, service), each behind its 16-bit length.
 * flow key = HKDF-SHA256(ikm = session, salt = "walnut/1 flow", info = 16-bit flow number, direction byte), 16 bytes.
 * The front computes the first and hands it to the agent in X-Walnut-Key; the client computes both.
 */
#pragma once

#include <stdint.h>

#include "base/span.h"

#define SESSION_KEY_BYTES 32
#define FLOW_KEY_BYTES    16

enum flow_direction { FLOW_TO_SERVICE = 0, FLOW_TO_CLIENT = 1 };

/** service is the user part of the Request-URI ("ssh"). \return 0 or -EINVAL (the pieces are over 1,000 bytes together). */
int session_key_derive(const uint8_t *sk_ct, size_t sk_len, struct span nonce, struct span cnonce, struct span call_id, struct span service,
		       uint8_t out[static SESSION_KEY_BYTES]);
int flow_key_derive(const uint8_t session[static SESSION_KEY_BYTES], uint16_t flow, enum flow_direction dir,
		    uint8_t out[static FLOW_KEY_BYTES]);
