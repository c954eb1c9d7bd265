/* SPDX-License-Identifier: Apache-2.0 */
/** \file The SIP of a call: what the front says about it, and what the agent writes. Pure. */
#pragma once

#include "agent/call_table.h"
#include "sip/build.h"
#include "sip/sdp.h"
#include "ticket/session_key.h"

#define CALL_MESSAGE_MAX 8192 /* longest message of ours */
#define CALL_NAME_MAX    256  /* longest Call-ID or tag of a client that is served */

enum call_identity_verdict { CALL_IDENTITY_OK, CALL_BAD_IDENTITY, CALL_BAD_KEY, CALL_BAD_SOURCE };

/** What the front vouches for (doc/protocol.md, "Agent and front"). Spans point into the message; wipe `key`. */
struct call_identity {
	struct span user;
	uint8_t key[SESSION_KEY_BYTES];
	struct wn_addr source;
	bool auth_int;
};
/** Each header must stand exactly once: a second one could be a client's own. */
enum call_identity_verdict call_identity_read(const struct sip_msg *m, struct span domain, struct call_identity *out);

/** Keeps what a later BYE of ours needs. The caller frees *out. \return 0, -ENOMEM, -EMSGSIZE. */
int call_dialog_new(const struct sip_msg *invite, struct call_dialog **out);

/** Copies the message for later; replaces what was there. \return 0 or -ENOMEM. */
int call_request_keep(struct call_request *r, const struct sip_msg *m, int front, const struct wn_addr *src);
void call_request_drop(struct call_request *r);

/** All return the message in buf, or p == NULL when it does not fit. */
struct span call_build_status(const struct sip_msg *m, const struct wn_addr *src, unsigned status, const char *reason, const char *to_tag,
			      const char *extra_lines, char *buf, size_t cap);
/** 200 to an INVITE, with the hole's public address (RFC 3261 13.3.1.4, RFC 4028). */
struct span call_build_answer(const struct sip_msg *m, const struct wn_addr *src, const struct call *c, const char *domain, char *buf,
			      size_t cap);
/** 200 to an UPDATE. */
struct span call_build_renewed(const struct sip_msg *m, const struct wn_addr *src, const struct call *c, const char *domain, char *buf,
			       size_t cap);
/** BYE along the route set; c->dialog must be there. Takes the next CSeq. */
struct span call_build_bye(struct call *c, const char *domain, char *buf, size_t cap);
