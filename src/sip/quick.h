/* SPDX-License-Identifier: Apache-2.0 */
/** \file A first look at a datagram: its method and the two headers that decide how dear it is, for a fraction of what sip_parse costs. */
#pragma once

#include <stdbool.h>

#include "base/span.h"
#include "sip/msg.h"

/** Views into the input. Of headers that stand several times the first counts; values are trimmed and hold no fold. */
struct sip_quick {
	struct span start_line; /* without its CRLF */
	bool request;           /* false: a response */
	enum sip_method method; /* of a request; SIP_METHOD_OTHER when unknown, and of a response */
	unsigned nproxy_authorization;
	struct span proxy_authorization; /* value; p == NULL: none */
	unsigned nroute;
	struct span route;      /* value, which may be a list; p == NULL: none */
	struct span route_user; /* user of its first URI; p == NULL: none */
};

/**
 * Looks for what stands above, in one pass over the line ends of the header part. False: something unusual (a fold in one of these headers,
 * lines before the start line, a Route that does not begin with <sip:, no end of the header part …), ask sip_parse; *q holds nothing.
 * True says nothing of whether the message is well-formed, but if sip_parse takes it as a datagram, it finds the same: no header that this
 * one misses, and none that it only thinks it sees. Looks no further than the blank line. Any thread.
 */
bool sip_quick(struct span in, struct sip_quick *q);

/** The same without vector instructions, for comparison. */
bool sip_quick_scalar(struct span in, struct sip_quick *q);
