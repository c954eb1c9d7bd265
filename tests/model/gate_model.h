/* SPDX-License-Identifier: Apache-2.0 */
/** \file The reference for the gate's packet path: what RFC 4787, 5382, 5508, 5961, 9293, 6479 and doc/protocol.md ask for, in plain C with
 * lists, nothing shared with src/gate/bpf. It takes grants and frames with the time of each and says what must happen, byte for byte.
 * Everything is in host order. Nothing here is fast. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gate/record.h"

#define GM_FRAME   2048
#define GM_HOPS    8
#define GM_TENANTS 4

enum gm_side { GM_OUTSIDE = 0, GM_INSIDE = 1 };
enum gm_verdict { GM_DROP, GM_HOST, GM_OUT, GM_BACK /* dropped, and its sender told */ };

/** What the gate is set up for. */
struct gm_net {
	uint8_t mac[2][6];
	bool six;      /* IPv6: addresses are called by 32 bits, see gm_address6 */
	bool firewall; /* nothing is translated: public_ip are the addresses inside that are protected */
	uint32_t public_ip[4];
	unsigned npublic;
	uint32_t self_ip[2]; /* what the gate signs its own messages with; outside behind a NAT: the address that was meant */
	uint16_t port_low, port_high;
	uint32_t control_ip;
	uint16_t control_port;
	uint32_t lan, wan; /* networks of /24 */
	uint32_t gateway;
	uint32_t mtu;
	struct {
		uint32_t ip;
		uint8_t mac[6];
	} hop[GM_HOPS];
	unsigned nhops;
	struct {
		uint32_t net;
		unsigned bits, quota;
	} tenant[GM_TENANTS];
	unsigned ntenants;
};

struct gm_answer {
	enum gm_verdict verdict;
	const char *why;    /* a class of reasons; "" when not dropped */
	const char *also;   /* another that is as right; "" none */
	const char *passed; /* what counts it when it is not dropped, or its sender is told */
	uint8_t out[GM_FRAME];
	size_t n;
};

/* One direction of a connection as seen from the middle. */
struct gm_end {
	uint32_t end, limit, window, ack;
	unsigned scale;
	bool known, scales, sacks, fin;
};

enum gm_state { GM_T_NONE, GM_T_SYN, GM_T_SYN_BOTH, GM_T_SYNACK, GM_T_OPEN, GM_T_CLOSING, GM_T_CLOSED, GM_T_RESET };

struct gm_tcp {
	struct gm_end end[2]; /* by enum gm_side: who sends */
	enum gm_state state;
};

#define GM_HANDSHAKES 8

struct gm_handshake {
	bool used, answered;
	uint16_t port;
	uint32_t client_isn, service_isn;
	uint64_t since;
	struct gm_end end[2];
};

/* What a user's holes share. Is remembered for good: there must be as many places in the gate as users are drawn. */
struct gm_user {
	struct gm_user *next;
	unsigned tenant;
	char name[GATE_USER_MAX + 1];
	uint64_t byte_cost, packet_cost, byte_due, packet_due;
};

struct gm_hole {
	struct gm_hole *next;
	struct gm_user *user; /* NULL: counts towards none */
	uint64_t id;
	unsigned tenant;
	uint8_t proto;
	bool tag;
	uint8_t key[16];
	uint32_t inside_ip, remote_ip, public_ip;
	uint16_t inside_port, remote_port, public_port;
	uint64_t expires, connect_by, idle, opened;
	bool waits;                                /* firewall: it is on the list of those that wait for a first packet */
	uint64_t byte_cost, packet_cost, syn_cost; /* the first in ns / 65536 */

	bool bound;
	uint32_t bound_ip;
	uint16_t bound_port;
	uint64_t last, byte_due, packet_due, syn_due, closed;
	uint64_t packets_in, bytes_in, packets_out, bytes_out;
	uint64_t top, *seen; /* counters that passed */
	size_t nseen, seen_cap;
	struct gm_tcp tcp;
	struct gm_handshake handshake[GM_HANDSHAKES];
};

struct gm_session {
	struct gm_session *next;
	uint8_t proto;
	uint32_t inside_ip, public_ip, remote_ip;
	uint16_t inside_port, public_port, remote_port; /* ICMP: the query ids, and 0 */
	uint64_t expires;
	bool replied;
	struct gm_tcp tcp;
};

struct gm_model {
	struct gm_net net;
	struct gm_hole *holes;
	struct gm_user *users;
	struct gm_session *sessions;
	struct gm_mapping *mappings;
	struct gm_claim *claims;
	struct gm_service *services;
	const char *broken; /* something that was drawn cannot be so: why */
};

struct gm_model *gm_new(const struct gm_net *net);
void gm_free(struct gm_model *m);

/** Holds an operation's answer against what it must be, and takes the drawn port over. now: what the operation was given. Before an OPEN
 * the gate must have been swept, so that it counts no hole that is over.
 * \return NULL or what is wrong. */
const char *gm_apply(struct gm_model *m, const struct gate_request *r, const struct gate_reply *said, uint64_t now);
/** gate_dp_sweep has been called. */
void gm_swept(struct gm_model *m, uint64_t now);
/** A frame arrives. sent: what the gate sent, of which a new mapping's public end is taken (it is drawn at random); NULL: nothing. */
void gm_packet(struct gm_model *m, enum gm_side side, const uint8_t *frame, size_t n, uint64_t now, const uint8_t *sent, size_t nsent,
	       struct gm_answer *a);
struct gm_hole *gm_hole_of(const struct gm_model *m, uint64_t id);
/** The public end of an inside end's mapping, if it has one; else *ip and *port stay. */
void gm_mapped(const struct gm_model *m, uint8_t proto, uint32_t inside_ip, uint16_t inside_port, uint32_t *ip, uint16_t *port);
/** The IPv6 address that goes by a name. */
void gm_address6(uint32_t name, uint8_t ip[16]);
/** The class of a drop counter's name. */
const char *gm_class(const char *reason);
