/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the files of the core share; nobody else includes it. */
#pragma once

#include "front/budgets.h"
#include "front/core.h"
#include "front/failures.h"
#include "front/histogram.h"
#include "front/txn.h"
#include "front/why.h"
#include "sip/build.h"

#define BRANCH_MAGIC    "z9hG4bK"
#define TAG_CHARS       16 /* of a To-tag: 64 bits in hex */
#define REALM_MAX       (DOMAIN_MAX + 12)
#define IN_DIALOG_PER_S 20 /* in-dialog requests with one token, answers of one client */
#define RETRY_AFTER_S   "1"

/** What a worker remembers of a tenant between two looks at shared state. */
struct tenant_view {
	uint64_t seen_ms;
	uint32_t epoch; /* of new challenges */
	bool rotates, empty, stale;
	uint16_t realm_n;
	char realm[REALM_MAX];
};

struct trunk {
	bool up;
	char host[WN_ADDR_STR];
};

struct front_core {
	struct front_shared *sh;
	unsigned worker;
	bool room;
	struct digest_ctx *digest;
	struct nonce_issuer issuer;
	struct txn_table *txns;
	struct failures *failures;
	struct tenant_view *view;
	struct trunk trunk[FRONT_HOPS_MAX + 1];
	_Atomic uint64_t count[FRONT_OUTCOME_COUNT];
	struct histogram call_answer;
	struct front_why *why;
};

/** One message on its way through the checks. */
struct front_in {
	struct span raw;
	const struct front_flow *flow; /* NULL: from the service's side */
	const struct wn_addr *src;     /* the flow's address, or the hop's */
	uint64_t now_ms, unix_s;
	unsigned tenant, hop;        /* from the service's side: whose agent, or which plain next hop */
	const struct sip_hdr *proof; /* the credentials of our realm that were chosen; NULL: none */
	struct span user;            /* whom the credentials name, once their nonce is ours */
	struct sip_msg m;
};

/** How long an answer to somebody who has proven nothing may be. A datagram's source may be another's, so it gets no more than it sent; a
 * connection's is its own. */
static inline size_t core_answer_max(const struct front_in *in)
{
	return front_flow_is_stream(in->flow->id) ? FRONT_OUT_MAX : in->raw.n;
}

/* core.c */
void core_clear(struct front_action *out);
/** What size and first bytes say. False: decided. */
bool core_worth_parsing(struct front_core *c, struct span in, struct front_action *out);
void core_done(struct front_core *c, struct front_action *out, enum front_outcome o);
struct tenant_view *core_view(struct front_core *c, unsigned tenant, uint64_t now_ms, uint64_t unix_s);
/** Which tenant an URI's host names. False: none of ours, or not a sip URI. */
bool core_tenant(const struct front_core *c, struct span uri, unsigned *tenant, struct sip_uri *parsed);
/** Keyed hash of some pieces, each behind its length. */
uint64_t core_hash(const struct front_core *c, const struct span *piece, unsigned n);
/** What a verified token is known by: some of its MAC, which nobody could choose. */
uint64_t core_token_key(struct span text);
struct span core_src_span(const struct wn_addr *a, char buf[18]);
uint64_t core_exact(const struct front_core *c, const struct front_in *in);
/** What a tenant's configuration says now. */
const struct front_policy *core_policy(const struct front_core *c, unsigned tenant);
/** The listener that a flow came in on. */
const struct front_listener *core_listener(const struct front_core *c, uint64_t flow_id);
/** Whether messages can go there now: the agent is connected, or the hop has a trunk, and there is room. */
bool core_reaches(const struct front_core *c, unsigned tenant, unsigned hop);
/** Our host name towards the service's side. */
const char *core_far_host(const struct front_core *c, const struct front_in *in, unsigned hop);
uint64_t core_branch(const struct front_core *c, const struct front_in *in);
/** The To-tag of whatever the front itself answers: a function of the request. */
void core_to_tag(const struct front_core *c, const struct front_in *in, char tag[TAG_CHARS]);

/** A message's end, for walnut why. */
struct core_event {
	enum front_outcome outcome;
	bool trusted;    /* the sender had proven something */
	unsigned status; /* what the service's side answered; 0: the front decided */
	uint64_t now_ms;
	const struct wn_addr *from;
	unsigned tenant;
	struct span call_id, user;
};
/** Remembers it, if it refuses somebody. */
void core_note(struct front_core *c, const struct core_event *e);

/* auth.c: an INVITE that begins a call */
void auth_invite(struct front_core *c, struct front_in *in, const struct sip_uri *uri, struct front_action *out);

/* call.c: transactions of callers that have authenticated */
struct call_grant {
	struct span user, service; /* user.p == NULL: the service asks for no proof */
	unsigned hop;
	uint64_t key;               /* the nonce's number, or TXN_NO_KEY */
	uint64_t call, branch;      /* call_key, core_branch */
	const uint8_t *session_key; /* towards an agent */
	bool auth_int;
};
void call_begin(struct front_core *c, struct front_in *in, const struct call_grant *g, struct front_action *out);
/** A request that carries the used nonce `number`: true when it is the very one that used it; what is due has then been sent again. */
bool call_retransmission(struct front_core *c, struct front_in *in, uint64_t number, struct front_action *out);
/** The same for a service that asks for no proof: RFC 3261 17.2.3 tells by branch, sent-by and source. */
bool call_open_retransmission(struct front_core *c, struct front_in *in, uint64_t call, uint64_t branch, struct front_action *out);
/** What finds a call when its CANCEL or ACK comes: to be compared with core_branch besides. */
uint64_t call_key(const struct front_core *c, const struct sip_msg *m);
void call_cancel(struct front_core *c, struct front_in *in, struct front_action *out);
/** True: the ACK of a non-2xx, which ends here. */
bool call_ack(struct front_core *c, struct front_in *in);
/** The ACK of a 2xx has gone to the agent: the call's place is soon free. */
void call_acknowledged(struct front_core *c, const struct front_in *in);
void call_response(struct front_core *c, struct front_in *in, uint64_t id, struct front_action *out);
/** A status that the front answers itself, to somebody who has authenticated. retry_after_s 0: none. */
void call_refuse(struct front_core *c, struct front_in *in, unsigned status, const char *reason, unsigned retry_after_s,
		 enum front_outcome o, struct front_action *out);
/** The nonce that spares the next call a challenge; writes the header if the answer stays within `most` bytes. */
void auth_put_nextnonce(struct front_core *c, unsigned tenant, const struct front_flow *flow, uint64_t now_ms, uint64_t unix_s,
			struct sip_buf *b);

/* dialog.c: what carries a route token, and what comes back */
void dialog_from_client(struct front_core *c, struct front_in *in, struct front_action *out);
/** Whether the topmost Route names a dialog with a plain next hop; *text is then its token. */
bool dialog_is_plain(const struct sip_msg *m, struct span *text);
/** Either way: the next hop's own requests are told by its address. */
void dialog_plain(struct front_core *c, struct front_in *in, struct span text, struct front_action *out);
/** Whether that is the plain next hop of a token's dialog, not its caller. */
bool dialog_of_hop(const struct front_core *c, const struct front_flow *from, const struct route_token *token);
void dialog_from_agent(struct front_core *c, struct front_in *in, struct front_action *out);
void dialog_response_from_client(struct front_core *c, struct front_in *in, struct front_action *out);
void dialog_response_from_service(struct front_core *c, struct front_in *in, struct front_action *out);
#define PLAIN_MARK 'p' /* before the token of a dialog with a plain next hop */
/** What stands in that token's agent: tenant and hop. */
uint64_t dialog_plain_name(unsigned tenant, unsigned hop);

/* rewrite.c */
enum {
	REWRITE_VIA_POP = 1,      /* the topmost Via value is ours: leave it out */
	REWRITE_VIA_KEEP = 2,     /* copy Via as it is (else the caller has written them) */
	REWRITE_ROUTE_ALL = 4,    /* no Route goes on */
	REWRITE_ROUTE_TOP = 8,    /* the topmost Route value is ours, and so are those that follow it with the same user part (RFC 5658) */
	REWRITE_CREDENTIALS = 16, /* no Proxy-Authorization of `domain` goes on */
};
/** Copies headers, but for Content-Length and Max-Forwards, which the caller writes, and for those that only a front may write. Folds
 * become spaces. proof: credentials that are known to be of `domain`, or NULL. */
void rewrite_headers(struct sip_buf *b, const struct sip_msg *m, unsigned how, struct span domain, const struct sip_hdr *proof);
/** A response's status line and headers, our own Via taken off the top. */
void rewrite_response(struct sip_buf *b, const struct sip_msg *m);
/** The user part of the topmost Route's URI; p == NULL: none. */
struct span rewrite_route_user(const struct sip_msg *m);
/** Max-Forwards, one less than it was; it was not 0. */
void rewrite_max_forwards(struct sip_buf *b, const struct sip_msg *m);
/** Content-Length, blank line, body. */
void rewrite_end(struct sip_buf *b, const struct sip_msg *m);
