/* SPDX-License-Identifier: Apache-2.0 */
/** \file The session description that an INVITE and its answer carry: SDP (RFC 8866), candidates as in RFC 8839. Pure. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "sip/build.h"

#define SDP_CANDIDATES_MAX 8
#define SDP_TYPE           SPAN_LIT("application/sdp")

enum sdp_proto { SDP_TCP, SDP_UDP };
enum sdp_candidate_type { SDP_HOST, SDP_SRFLX };

struct sdp_candidate {
	enum sdp_candidate_type type;
	struct wn_addr addr; /* port 9 for an active TCP end (RFC 4145, RFC 6544) */
};

/** One flow: one m= line. Walnut's own attributes: a=walnut-port:N (the port that the person asked for, 0 = unsaid),
 * a=walnut-tag:siphash24 (UDP packets carry the 16-byte trailer), a=walnut-expires:SECONDS (answer: the hole's lifetime). */
struct sdp {
	enum sdp_proto proto;
	struct wn_addr conn; /* c= and the m= port: where to send */
	struct sdp_candidate cand[SDP_CANDIDATES_MAX];
	unsigned ncand;
	uint16_t walnut_port;
	bool tag;
	uint32_t expires_s; /* 0 = unsaid */
	bool answer;        /* TCP: setup:passive instead of active; UDP does not carry it */
};

/** Takes the first m= line of protocol TCP or UDP whose port is not 0, its attributes, and the session's c= where it has none of its own.
 * Candidates that are of no use (relayed, another component or transport, a name for an address, beyond SDP_CANDIDATES_MAX) are left out.
 * \return 0, -EINVAL malformed, -ENOTSUP no m= line that Walnut can serve, or a walnut-tag it does not know. */
int sdp_parse(struct span body, struct sdp *out);
/** Appends the description; session_id goes to o=. */
void sdp_build(struct sip_buf *b, const struct sdp *s, uint64_t session_id);
