/* SPDX-License-Identifier: Apache-2.0 */
/** \file The messages that a front sends to an agent, written out: shared by the tests of calls and of the whole agent. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "base/span.h"
#include "sip/msg.h"

#define KEY_TEXT  "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE" /* 32 bytes of 1 */
#define KEY_TEXT2 "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI"

struct invite_text {
	const char *service, *user, *call_id, *from_tag, *branch, *key, *source, *srflx, *to_tag, *domain;
	const char *proto; /* "TCP" or "UDP" */
	const char *extra; /* header lines */
	const char *attributes;
	unsigned cseq, port;
	bool no_body;
};

#define OR(x, d) ((x) != NULL ? (x) : (d))

static inline size_t write_body(const struct invite_text *t, char *p, size_t cap)
{
	const char *proto = OR(t->proto, "TCP");
	unsigned port = t->port != 0 ? t->port : 9;

	return (size_t)snprintf(
		p, cap,
		"v=0\r\no=- 1 1 IN IP4 198.18.4.2\r\ns=-\r\nc=IN IP4 198.18.4.2\r\nt=0 0\r\nm=application %u %s walnut\r\n%s"
		"a=candidate:1 1 %s 2128609279 198.18.104.2 %u typ host%s\r\n"
		"a=candidate:2 1 %s 1694498815 %s %u typ srflx raddr 198.18.104.2 rport %u%s\r\n%s",
		port, proto, strcmp(proto, "TCP") == 0 ? "a=setup:active\r\n" : "", proto, port,
		strcmp(proto, "TCP") == 0 ? " tcptype active" : "", proto, OR(t->srflx, "198.18.4.2"), port, port,
		strcmp(proto, "TCP") == 0 ? " tcptype active" : "", OR(t->attributes, ""));
}

static inline size_t write_invite(const struct invite_text *t, char *p, size_t cap)
{
	char body[1024], key[128] = "", source[128] = "", identity[256] = "";
	const char *domain = OR(t->domain, "example.org");
	size_t n = t->no_body ? 0 : write_body(t, body, sizeof(body));

	if (t->key == NULL || t->key[0] != '\0')
		snprintf(key, sizeof(key), "X-Walnut-Key: %s\r\n", OR(t->key, KEY_TEXT));
	if (t->source == NULL || t->source[0] != '\0')
		snprintf(source, sizeof(source), "X-Walnut-Source: %s\r\n", OR(t->source, "198.18.4.2:40112;qop=auth-int"));
	if (t->user == NULL || t->user[0] != '\0')
		snprintf(identity, sizeof(identity), "P-Asserted-Identity: <sip:%s@example.org>\r\n", OR(t->user, "alice"));
	return (size_t)snprintf(
		p, cap,
		"INVITE sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/TLS 198.18.1.2;branch=z9hG4bK%s\r\n"
		"Via: SIP/2.0/UDP 198.18.104.2:5062;branch=z9hG4bKclient;received=198.18.4.2;rport=40112\r\n"
		"Record-Route: <sip:TOKENTOKEN@198.18.1.2:5060;lr>\r\nMax-Forwards: 69\r\n"
		"From: \"A\" <sip:alice@example.org>;tag=%s\r\nTo: <sip:%s@%s>%s%s\r\nCall-ID: %s\r\nCSeq: %u INVITE\r\n"
		"Contact: <sip:alice@198.18.104.2:5062>\r\n%s%s%s%sContent-Type: application/sdp\r\nContent-Length: %zu\r\n\r\n%.*s",
		OR(t->service, "ssh"), domain, OR(t->branch, "front1"), OR(t->from_tag, "ft"), OR(t->service, "ssh"), domain,
		t->to_tag != NULL ? ";tag=" : "", OR(t->to_tag, ""), OR(t->call_id, "c1"), t->cseq != 0 ? t->cseq : 2, identity, key,
		source, OR(t->extra, ""), n, (int)n, body);
}

/* A request in the dialog, as the front passes it on. */
static inline size_t write_in_dialog(const char *method, const char *call_id, const char *from_tag, const char *to_tag, unsigned cseq,
				     char *p, size_t cap)
{
	return (size_t)snprintf(
		p, cap,
		"%s sip:agent@example.org SIP/2.0\r\nVia: SIP/2.0/TLS 198.18.1.2;branch=z9hG4bKd%u\r\n"
		"Via: SIP/2.0/UDP 198.18.104.2:5062;branch=z9hG4bKcd%u;received=198.18.4.2;rport=40112\r\nMax-Forwards: 69\r\n"
		"From: \"A\" <sip:alice@example.org>;tag=%s\r\nTo: <sip:ssh@example.org>;tag=%s\r\nCall-ID: %s\r\n"
		"CSeq: %u %s\r\nContent-Length: 0\r\n\r\n",
		method, cseq, cseq, from_tag, to_tag, call_id, cseq, method);
}
