/* SPDX-License-Identifier: Apache-2.0 */
/** \file A parsed SIP message (RFC 3261): views into the caller's buffer, no allocation, no I/O, no clock. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define SIP_HEADERS_MAX 64    /* more is SIP_TOO_MANY_HEADERS */
#define SIP_MESSAGE_MAX 65535 /* bytes of one message, on any transport */
#define SIP_T1_MS       500   /* RFC 3261 17.1.1.1 */
#define SIP_T2_MS       4000

enum sip_method {
	SIP_METHOD_OTHER,
	SIP_INVITE,
	SIP_ACK,
	SIP_BYE,
	SIP_CANCEL,
	SIP_REGISTER,
	SIP_OPTIONS,
	SIP_PUBLISH,
	SIP_UPDATE,
	SIP_MESSAGE,
	SIP_INFO,
	SIP_PRACK,
	SIP_SUBSCRIBE,
	SIP_NOTIFY,
	SIP_REFER,
	SIP_METHODS
};

enum sip_hdr_id {
	SIP_HDR_OTHER,
	SIP_HDR_VIA,
	SIP_HDR_FROM,
	SIP_HDR_TO,
	SIP_HDR_CALL_ID,
	SIP_HDR_CSEQ,
	SIP_HDR_CONTACT,
	SIP_HDR_MAX_FORWARDS,
	SIP_HDR_ROUTE,
	SIP_HDR_RECORD_ROUTE,
	SIP_HDR_PROXY_AUTHENTICATE,
	SIP_HDR_PROXY_AUTHORIZATION,
	SIP_HDR_WWW_AUTHENTICATE,
	SIP_HDR_AUTHORIZATION,
	SIP_HDR_PROXY_AUTHENTICATION_INFO,
	SIP_HDR_CONTENT_LENGTH,
	SIP_HDR_CONTENT_TYPE,
	SIP_HDR_EXPIRES,
	SIP_HDR_SESSION_EXPIRES,
	SIP_HDR_RETRY_AFTER,
	SIP_HDR_REQUIRE,
	SIP_HDR_PROXY_REQUIRE,
	SIP_HDR_SUPPORTED,
	SIP_HDR_P_ASSERTED_IDENTITY,
	SIP_HDR_DATE,
	SIP_HDR_X_WALNUT, /* any header X-Walnut-* */
	SIP_HDRS
};

/** What parsing found. Everything but SIP_OK is a drop for a stranger; each is a counter. */
enum sip_verdict {
	SIP_OK,
	SIP_KEEPALIVE,  /* only CR and LF: RFC 5626 ping */
	SIP_INCOMPLETE, /* stream: more bytes are wanted */
	SIP_NOT_SIP,    /* first bytes cannot begin a SIP message */
	SIP_BAD_START_LINE,
	SIP_BAD_VERSION,
	SIP_BAD_HEADER, /* no colon, bad name, bare CR or NUL where it may not be */
	SIP_TOO_MANY_HEADERS,
	SIP_MISSING_HEADER,   /* one of Via, From, To, Call-ID, CSeq */
	SIP_DUPLICATE_HEADER, /* of a header that may stand once */
	SIP_BAD_VIA,
	SIP_BAD_CSEQ,
	SIP_BAD_FROM_TO,
	SIP_BAD_CALL_ID,
	SIP_BAD_MAX_FORWARDS,
	SIP_BAD_CONTENT_LENGTH, /* not a number, too large, more than a datagram holds, or absent on a stream */
	SIP_BAD_URI,            /* Request-URI */
	SIP_BAD_CONTACT,
	SIP_BAD_DATE, /* not in GMT */
	SIP_TOO_LARGE,
	SIP_VERDICTS
};

struct sip_hdr {
	enum sip_hdr_id id;
	struct span name;  /* as it stands, compact or long */
	struct span value; /* trimmed; may hold folds (CRLF + blank) */
};

struct sip_via {
	struct span transport; /* "UDP" */
	struct span host;      /* IPv6 without brackets */
	uint16_t port;         /* 0 = none given */
	struct span branch;    /* p == NULL: none */
	struct span received;  /* p == NULL: none */
	bool rport;            /* the parameter is there */
	uint16_t rport_value;  /* 0 = without value */
	struct span text;      /* this one value, without a comma that follows */
	struct span sent_by;   /* host[:port] as it stands */
};

/** Of schemes other than sip and sips only scheme, user (all up to the first ';') and params are filled. */
struct sip_uri {
	struct span scheme; /* sip, sips, tel, … */
	struct span user;   /* without password; p == NULL: none; still %-escaped */
	struct span password;
	struct span host;    /* IPv6 without brackets */
	uint16_t port;       /* 0 = none given */
	struct span params;  /* after the first ';', without it; p == NULL: none */
	struct span headers; /* after '?' */
};

struct sip_nameaddr {
	struct span display; /* quotes kept; p == NULL: none */
	struct span uri;     /* without <> */
	struct span params;  /* header parameters after the first ';' */
};

struct sip_msg {
	struct span raw; /* the whole message, body included */
	bool request;
	enum sip_method method; /* of a response: from CSeq */
	struct span method_text;
	struct span uri; /* Request-URI as it stands */
	unsigned status; /* responses: 100-699 */
	struct span reason;
	struct sip_hdr hdr[SIP_HEADERS_MAX];
	unsigned nhdr;
	bool folds;              /* some header is folded: its value holds line ends */
	uint8_t first[SIP_HDRS]; /* 1 + index of the first header of that id; 0 = absent */
	struct sip_via via;      /* topmost value */
	struct span call_id;
	uint32_t cseq;
	struct span from, to;         /* header values */
	struct span from_tag, to_tag; /* p == NULL: none */
	int max_forwards;             /* -1 = absent */
	struct span body;             /* by Content-Length where given, else the rest of the datagram */
	size_t consumed;              /* bytes of the input this message took (stream framing) */
};

/**
 * Parses one message. `stream`: TCP/TLS framing, Content-Length is required (RFC 3261 18.3) and *incomplete* is a result; else the
 * input is one datagram. `m` points into `in`, which must outlive it. The verdict depends on nothing but the input.
 * Only SIP_OK fills `m`; SIP_KEEPALIVE fills m->consumed. After any other verdict but SIP_INCOMPLETE a stream has lost its framing: close
 * it. Strict where leniency would let two parsers differ: lines end in CRLF, no control characters outside quoted pairs, no second From,
 * To, Call-ID, CSeq, Max-Forwards, Content-Length, Content-Type, Expires or Session-Expires. Only the topmost Via value is
 * checked; of a request's Contact, that no URI needs <> which has none; of its Date, that it is in GMT. Any thread.
 */
enum sip_verdict sip_parse(struct span in, bool stream, struct sip_msg *m);

/** The same without vector instructions, for comparison. */
enum sip_verdict sip_parse_scalar(struct span in, bool stream, struct sip_msg *m);

const char *sip_verdict_name(enum sip_verdict v); /* "bad_via": as counters are named */
/** The status that a peer who has authenticated gets for a request of this verdict: 400, 505 or 513; 0 where none can be given. */
unsigned sip_verdict_status(enum sip_verdict v);
const char *sip_method_name(enum sip_method m);

/** First header of that id, or NULL; then the next after `prev`. */
const struct sip_hdr *sip_hdr_first(const struct sip_msg *m, enum sip_hdr_id id);
const struct sip_hdr *sip_hdr_next(const struct sip_msg *m, const struct sip_hdr *prev);
/** By name as it stands, case-insensitive (for X-Walnut-Key and other rare ones). */
const struct sip_hdr *sip_hdr_by_name(const struct sip_msg *m, struct span name);

/** Steps through a comma-joined value, honouring quotes and <>; empty items are left out. Start with *rest = value. False at the end. */
bool sip_list_next(struct span *rest, struct span *item);

/** All 0 or -EINVAL, after which *out holds nothing of use. */
int sip_parse_via(struct span value, struct sip_via *out); /* the first value of the list */
int sip_parse_uri(struct span s, struct sip_uri *out);
int sip_parse_nameaddr(struct span value, struct sip_nameaddr *out);
/** ";a=b;c" without the leading ';'. True when `name` is there; *value has p == NULL when it stands without '='; quotes removed. */
bool sip_param(struct span params, struct span name, struct span *value);
