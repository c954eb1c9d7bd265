/* SPDX-License-Identifier: Apache-2.0 */
/** \file An IP address and port, one shape for both families. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/span.h"

/** IPv4 is held v4-mapped (::ffff:a.b.c.d). The port is in host order. Compare with wn_addr_eq. */
struct wn_addr {
	uint8_t ip[16];
	uint16_t port;
};

#define WN_ADDR_STR 56 /* "[" INET6 "]:65535" and a NUL */

/** "192.0.2.1:5060", "[2001:db8::1]:5060"; the port may be absent when default_port >= 0 (then it is that). \return 0 or -EINVAL. */
int wn_addr_parse(struct span s, int default_port, struct wn_addr *out);

/** A bare IP literal, IPv6 with or without brackets; port is set to 0. \return 0 or -EINVAL. */
int wn_ip_parse(struct span s, struct wn_addr *out);

/** With port, IPv6 in brackets. Returns buf. */
const char *wn_addr_str(const struct wn_addr *a, char buf[static WN_ADDR_STR]);

/** Without port and without brackets. Returns buf. */
const char *wn_ip_str(const struct wn_addr *a, char buf[static WN_ADDR_STR]);

bool wn_addr_is4(const struct wn_addr *a);
bool wn_ip_eq(const struct wn_addr *a, const struct wn_addr *b);
bool wn_addr_eq(const struct wn_addr *a, const struct wn_addr *b);

void wn_addr_from_sockaddr(struct wn_addr *a, const struct sockaddr_storage *ss);
/** AF_INET for v4-mapped addresses, else AF_INET6. Returns the length. */
socklen_t wn_addr_to_sockaddr(const struct wn_addr *a, struct sockaddr_storage *ss);

/** "198.18.0.0/16", "2001:db8::/32"; bits set after the prefix are refused. IPv4 addresses lie in IPv4 prefixes only. */
struct wn_prefix {
	uint8_t ip[16];
	uint8_t bits; /* of the v4-mapped form: 96 + n for IPv4 */
};
int wn_prefix_parse(struct span s, struct wn_prefix *out);
bool wn_prefix_has(const struct wn_prefix *p, const struct wn_addr *a);
