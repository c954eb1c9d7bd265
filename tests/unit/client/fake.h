/* SPDX-License-Identifier: Apache-2.0 */
/** \file What a front and an agent answer, for tests: built from the request as it came. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "sip/digest.h"
#include "sip/msg.h"
#include "sip/sdp.h"

#define FAKE_MAX 4096

struct fake {
	const char *user, *secret;
	struct digest_ctx *digest;
	char buf[FAKE_MAX];
};

/** 407 with one challenge; alg as it is to be written ("SHA-256", NULL: none said, which means MD5). */
struct span fake_challenge(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, const char *realm, const char *nonce,
			   const char *alg, bool stale);
/** Any other response without a body; `headers` are whole lines. */
struct span fake_status(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, unsigned status, const char *headers);
/** 200 to an INVITE: SDP answer with `hole`; `nextnonce`, `expires` as given (NULL, 0: left out). */
struct span fake_accept(struct fake *f, const struct sip_msg *req, const struct wn_addr *src, const struct wn_addr *hole,
			const char *to_tag, const char *nextnonce, unsigned expires);

/** True when the request carries credentials for `realm` and `nonce` that are right in every detail: digest, uri = Request-URI, auth-int.
 * False also when it carries none; *any says whether it did. */
bool fake_verify(struct fake *f, const struct sip_msg *req, const char *realm, const char *nonce, bool *any);
/** The session key that the front would hand to the agent. */
int fake_session_key(struct fake *f, const struct sip_msg *req, uint8_t out[32]);
