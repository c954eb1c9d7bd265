/* SPDX-License-Identifier: Apache-2.0 */
/** \file The server's side of a SOCKS5 handshake (RFC 1928): no authentication, CONNECT, domain names. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define SOCKS_NAME_MAX  255
#define SOCKS_BUF       (5 + SOCKS_NAME_MAX + 2) /* the longest message, a request with a domain name; a greeting is 257 at most */
#define SOCKS_REPLY_MAX 10

enum socks_code { /* RFC 1928 section 6 */
		  SOCKS_SUCCEEDED = 0,
		  SOCKS_FAILURE = 1,
		  SOCKS_NOT_ALLOWED = 2,
		  SOCKS_NET_UNREACHABLE = 3,
		  SOCKS_HOST_UNREACHABLE = 4,
		  SOCKS_REFUSED = 5,
		  SOCKS_TIMED_OUT = 6, /* "TTL expired" */
		  SOCKS_BAD_COMMAND = 7,
		  SOCKS_BAD_ADDRESS_TYPE = 8,
};

enum socks_result {
	SOCKS_MORE,    /* everything was taken, more is wanted */
	SOCKS_METHOD,  /* send socks.reply, then feed on */
	SOCKS_REQUEST, /* name and port are there; the rest of the input is the client's data */
	SOCKS_REJECT,  /* send socks.reply (may be empty), then close */
};

struct socks {
	enum { SOCKS_GREETING, SOCKS_ASKED, SOCKS_FINISHED } state;
	uint8_t buf[SOCKS_BUF];
	size_t len;
	struct span name; /* into buf */
	uint16_t port;
	uint8_t reply[SOCKS_REPLY_MAX];
	size_t reply_len;
};

void socks_init(struct socks *s);
/** Takes bytes one after the other, never past the end of a message. *taken says how many. After SOCKS_REQUEST and SOCKS_REJECT it must not
 * be called again. The result does not depend on how the input is cut. */
enum socks_result socks_feed(struct socks *s, const uint8_t *in, size_t n, size_t *taken);
/** The reply to a request: bound address 0.0.0.0:0, since it says nothing of use. */
size_t socks_reply(enum socks_code code, uint8_t out[static SOCKS_REPLY_MAX]);
