/* SPDX-License-Identifier: Apache-2.0 */
/** \file Inside the reference: packets, TCP, tables. */
#pragma once

#include "gate_model.h"

#define GM_S 1000000000ull

/* A frame that is in order. */
struct gm_packet {
	uint8_t proto, ttl;
	uint32_t src, dst;
	uint16_t sport, dport; /* ICMP echo: the id, both */
	uint32_t len;          /* of the IP packet */
	uint32_t payload;      /* where the layer-4 payload starts in the frame */
	uint32_t npayload;
	uint8_t icmp_type; /* IPv6: ICMP's number for the same, or 255 */
	bool df, six;
	/* TCP */
	bool syn, ack, rst, fin;
	uint32_t seq, ackno, window, sack;
	unsigned scale;
	bool scales, sacks, bad; /* bad: options that no stack sends */
};

/* What an ICMP error quotes. */
struct gm_quote {
	uint8_t proto;
	uint32_t src, dst, seq;
	uint16_t sport, dport;
};

/* gate_model_packet.c. Reading: \return NULL, "arp", or the class of the reason. */
const char *gm_read(const struct gm_net *net, enum gm_side side, const uint8_t *frame, size_t n, struct gm_packet *p);
/** What both families have: n bytes that stand at `at` in the frame. */
const char *gm_read_tcp(const uint8_t *l4, uint32_t n, uint32_t at, struct gm_packet *p);
bool gm_read_quote(const uint8_t *frame, const struct gm_packet *p, struct gm_quote *q);
/** The frame with another end of ours, one hop less, and n of the payload's bytes kept (strip) in the place of all. */
void gm_rewrite(const struct gm_packet *p, const uint8_t *frame, size_t n, bool inbound, uint32_t ip, uint16_t port, bool strip,
		uint32_t keep, struct gm_answer *a);
/** As it is, one hop less. */
void gm_forward(const struct gm_packet *p, const uint8_t *frame, size_t n, struct gm_answer *a);
void gm_rewrite_error(const struct gm_packet *p, const struct gm_quote *q, const uint8_t *frame, size_t n, bool inbound, uint32_t ip,
		      uint16_t port, struct gm_answer *a);
/** Addresses the frame to the next hop. \return NULL, "big", or "route". */
const char *gm_route(const struct gm_net *net, enum gm_side from, uint32_t dst, uint32_t len, struct gm_answer *a);
/** The gate's own message about the frame to who sent it. what: type, code, and the word after the checksum. */
void gm_tell(const struct gm_packet *p, const uint8_t *frame, uint32_t from, uint8_t type, uint8_t code, uint32_t word,
	     struct gm_answer *a);
/* gate_model_packet6.c: the same of IPv6, where gm_read may say "nd" */
const char *gm_read6(const struct gm_net *net, enum gm_side side, const uint8_t *frame, size_t n, struct gm_packet *p);
bool gm_read_quote6(const uint8_t *frame, const struct gm_packet *p, struct gm_quote *q);
void gm_forward6(const struct gm_packet *p, const uint8_t *frame, size_t n, bool strip, uint32_t keep, struct gm_answer *a);
void gm_tell6(const struct gm_packet *p, const uint8_t *frame, uint32_t from, uint8_t type, uint32_t word, struct gm_answer *a);
bool gm_tag_valid(const uint8_t key[16], const uint8_t *data, uint32_t n, uint64_t *counter);

/* gate_model_tcp.c. side: who sends. \return whether it passes; if not, nothing has changed. */
bool gm_tcp_open(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p);
bool gm_tcp_segment(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p);
bool gm_tcp_session(struct gm_tcp *t, enum gm_side side, const struct gm_packet *p);
void gm_end_open(struct gm_end *e, const struct gm_packet *p);
/** second answered first's SYN with its own. */
void gm_ends_agree(struct gm_end *second, struct gm_end *first);
bool gm_before(uint32_t a, uint32_t b);

/* RFC 4787 REQ-1: one public end for an inside end, whoever it talks to. */
struct gm_mapping {
	struct gm_mapping *next;
	uint8_t proto;
	uint32_t inside_ip, public_ip;
	uint16_t inside_port, public_port;
	uint64_t expires;
};

/* Who gets what an inside end sends to a remote: a hole (id), or the session with this public end. */
struct gm_claim {
	struct gm_claim *next;
	uint8_t proto;
	uint32_t inside_ip, remote_ip, public_ip;
	uint16_t inside_port, remote_port, public_port;
	uint64_t hole; /* 0: a session's */
};

/* An inside end that has been granted: it opens nothing by itself. */
struct gm_service {
	struct gm_service *next;
	uint8_t proto;
	uint32_t ip;
	uint16_t port;
};

#define GM_TRANSITORY (240 * GM_S)
#define GM_SLACK      (3 * GM_S) /* a mapping outlives its sessions */

/* gate_model.c */
void *gm_alloc(size_t n);
int gm_tenant_of(const struct gm_net *net, uint32_t ip);
bool gm_is_public(const struct gm_net *net, uint32_t ip);
struct gm_session *gm_session_find(const struct gm_model *m, uint8_t proto, uint32_t public_ip, uint16_t public_port, uint32_t remote_ip,
				   uint16_t remote_port);
bool gm_hole_idle(const struct gm_hole *h, uint64_t now);
/** Whether the public end belongs to anybody. */
bool gm_taken(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port, const struct gm_mapping *but, uint64_t now);

/* A frame on its way. */
struct gm_way {
	struct gm_model *m;
	const struct gm_packet *p;
	uint64_t now;
	uint32_t ip; /* the new end of ours */
	uint16_t port;
	bool strip;
	uint32_t keep;
};

/* gate_model_hole.c */
struct gm_claim *gm_claim_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port, uint32_t rip, uint16_t rport);
bool gm_claim_lives(const struct gm_model *m, const struct gm_claim *c, uint64_t now);
/** First come, and whoever lives keeps it. */
bool gm_claim_take(struct gm_model *m, const struct gm_claim *want, uint64_t now);
/** \return NULL, with the new end in w, or the class of the reason. */
const char *gm_hole_in(struct gm_way *w, struct gm_hole *h, const uint8_t *frame);
const char *gm_hole_out(struct gm_way *w, struct gm_hole *h);

/* gate_model_session.c: as the holes' */
struct gm_mapping *gm_mapping_find(const struct gm_model *m, uint8_t proto, uint32_t ip, uint16_t port);
const char *gm_session_in(struct gm_way *w);
/** \return false: there is no such session any more. */
bool gm_session_out(struct gm_way *w, const struct gm_claim *c, const char **why);
const char *gm_session_new(struct gm_way *w, const uint8_t *sent, size_t nsent);
