/* SPDX-License-Identifier: Apache-2.0 */
/** \file What a front decides about one message. Pure: no socket, no clock; a worker feeds it and carries out what it says.
 *
 * Before a digest has been verified nothing is allocated for a sender (brief, section 4). The order of checks is the order of
 * enum front_outcome; each is a counter. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"
#include "front/flow.h"
#include "front/policy.h"
#include "sip/digest.h"
#include "sip/msg.h"
#include "ticket/nonce.h"
#include "ticket/route.h"
#include "userdb/table.h"

#define FRONT_DATAGRAM_MAX 8192 /* larger datagrams are refused unread: FRONT_size */
#define FRONT_DATAGRAM_MIN 64   /* smaller ones cannot be a request that we answer */
#define FRONT_URI_MAX      255  /* a longer Request-URI is FRONT_start_line */
#define FRONT_GROWTH       1024 /* what rewriting adds at most */
#define FRONT_OUT_MAX      (FRONT_DATAGRAM_MAX + FRONT_GROWTH)
#define FRONT_TOKEN_S      86400u /* lifetime of a route token */

/** X(name): in the order of the checks, cheapest first. */
/* clang-format off */
#define FRONT_OUTCOMES(X) \
	X(size) X(first_bytes) X(keepalive) X(stranger_budget) X(start_line) X(malformed) X(response) X(unknown_tenant) X(method) \
	X(in_dialog_no_token) X(in_dialog_bad_token) X(in_dialog_budget) X(ack_absorbed) X(cancel_ignored) \
	X(challenged) X(challenge_too_large) \
	X(credentials_malformed) X(realm) X(algorithm) X(nonce_malformed) X(nonce_foreign) X(nonce_expired) X(nonce_exhausted) \
	X(nonce_shape) X(retransmission) X(epoch) X(unknown_user) X(digest) X(uri_mismatch) X(replay) X(draining) X(feed_stale) \
	X(user_budget) X(service_budget) X(call_limit) X(no_agent) X(no_hop) X(too_many_hops) X(forwarded) X(forwarded_open) \
	X(forwarded_in_dialog) X(cancelled) X(relayed_response) X(relayed_request) X(response_dropped) X(timed_out) X(hop_repeated)
/* clang-format on */

enum front_outcome {
#define X(n) FRONT_##n,
	FRONT_OUTCOMES(X)
#undef X
		FRONT_OUTCOME_COUNT
};
const char *front_outcome_name(enum front_outcome o);

/** What an agent said when it registered. Never changed once it is published. */
struct front_agent {
	uint8_t route_key[ROUTE_KEY_BYTES];
	uint64_t agent; /* its name in route tokens */
	unsigned nservices;
	char service[FRONT_SERVICES_MAX][FRONT_SERVICE_MAX + 1];
};

struct front_tenant {
	char domain[DOMAIN_MAX + 1];
	struct user_table *users;
	/* Written by the main thread, read by workers. A worker looks again for each message, and holds no
	 * pointer from one turn of its loop to the next: what was replaced is freed two turns later (grace.h), an agent's at the end. */
	_Atomic(const struct front_policy *) policy;
	_Atomic(const struct front_agent *) agent;
	atomic_bool connected;
	atomic_bool gone;       /* configuration names it no more: its place stays, nobody finds it */
	_Atomic uint32_t calls; /* live transactions; written by the workers */
};

struct budgets;
struct front_steer;

/** An address that callers send to. */
struct front_listener {
	enum front_transport transport;
	struct wn_addr addr;
	char host[WN_ADDR_STR];    /* what Via and Record-Route say: address and port */
	struct front_steer *steer; /* UDP: the workers' two queues; NULL: one */
};

/** A plain SIP next hop. Never changed once it is there. */
struct front_hop {
	enum front_transport transport; /* UDP or TCP */
	struct wn_addr addr;
	unsigned listener; /* where the hop's own requests find us: of its transport and family where there is one */
};

/** One per process; the workers share it. */
struct front_shared {
	struct nonce_window *nonces;
	struct budgets *budgets;
	uint8_t boot_key[16];             /* To-tags, branches, hashes of datagrams */
	uint8_t hop_key[ROUTE_KEY_BYTES]; /* route tokens of dialogs with plain next hops: of this boot */
	struct front_listener listener[FRONT_LISTENERS_MAX];
	unsigned nlisteners;
	struct front_hop hop[FRONT_HOPS_MAX + 1]; /* from 1; FRONT_HOP_AGENT stands for the tenant's agent */
	_Atomic unsigned nhops;
	_Atomic uint32_t feed_max_age_s;
	atomic_bool draining; /* no new dialog begins */
	unsigned ntenants;
	struct front_tenant *tenant;
};

/** Draws the keys and makes budgets and user tables; tenant, ntenants and what they configure are the caller's, and so is the nonce
 * window. `listen` is the UDP address that clients send to, listener 0. \return 0 or negative errno. */
int front_shared_init(struct front_shared *s, const struct wn_addr *listen);
void front_shared_fini(struct front_shared *s);
/** Before the workers start. \return its number or -ENOSPC. */
int front_shared_add_listener(struct front_shared *s, enum front_transport t, const struct wn_addr *addr);
/** The main thread, at any time; an equal one is found again. \return its number from 1, or -ENOSPC. */
int front_shared_add_hop(struct front_shared *s, enum front_transport t, const struct wn_addr *addr);

/** What to do about one message. The caller sets the two buffers (FRONT_OUT_MAX each); the core fills in the rest. */
struct front_action {
	char *net;            /* a message to the callers' side … */
	char *agent;          /* … and one to the service's, in the caller's buffers */
	size_t net_n;         /* 0: none */
	size_t agent_n;       /* 0: none */
	struct front_flow to; /* where net goes */
	unsigned tenant, hop; /* where agent goes: FRONT_HOP_AGENT of that tenant, or a plain next hop */
	uint32_t order;       /* messages of one call have equal ones: none may overtake another; 0: of no call */
	bool trusted;         /* the sender has proven that it is a user, or a party of a dialog */
	enum front_outcome outcome;
};

/** One per worker; used by its thread alone. */
struct front_core;
struct front_why;
struct histogram;

/** worker: 0 to FRONT_WORKERS_MAX - 1, it stands in branches. calls: live transactions; 0 = as many as all tenants' max_calls.
 * \return 0, -EINVAL, -ENOMEM. */
int front_core_new(struct front_shared *shared, unsigned worker, uint32_t calls, struct front_core **out);
void front_core_free(struct front_core *c);

/** One message from the network: a datagram, or what a stream's framing found. At most one goes back, to where it came from; for a stranger
 * never longer than `in`. */
void front_core_message(struct front_core *c, struct span in, const struct front_flow *from, uint64_t now_ms, uint64_t unix_s,
			struct front_action *out);

/** What a first look says of a datagram. */
enum front_class {
	FRONT_CLASS_DONE,     /* decided and counted: it is refused without an answer, or was there already and its answer is in `out` */
	FRONT_CLASS_FIRST,    /* carries a nonce or a route token that verifies: to be served at once */
	FRONT_CLASS_STRANGER, /* when there is time */
};
struct front_look {
	enum front_class class;
	unsigned share; /* whose stranger: the tenant's number; ntenants: nobody's */
	uint64_t held;  /* what a failure is held against: a hash of the address or the token; 0: nothing */
};
/** A cheap look, before front_core_message and not instead of it: in what order datagrams are to be served. What it refuses,
 * front_core_message would not have answered either. An address, or a token, that has failed too often of late is a stranger's. out as for
 * front_core_message; only FRONT_CLASS_DONE counts. */
enum front_class front_core_look(struct front_core *c, struct span in, const struct front_flow *from, uint64_t now_ms, uint64_t unix_s,
				 struct front_look *look, struct front_action *out);
/** After front_core_message has served what was first class: holds it against its sender when that was not deserved. */
void front_core_looked(struct front_core *c, const struct front_look *look, const struct front_action *out, uint64_t now_ms);
/** Counts a stranger for whom there was no room. */
void front_core_no_room(struct front_core *c);

/** One message from a plain next hop, over the worker's trunk to it. */
void front_core_from_hop(struct front_core *c, unsigned hop, struct span msg, uint64_t now_ms, uint64_t unix_s, struct front_action *out);
/** The worker's own end of its trunk to that hop: what our Via towards it says. Without one the hop is down. NULL: it went down. */
void front_core_set_trunk(struct front_core *c, unsigned hop, const struct wn_addr *own);
/** A hop's trunk has gone: the same, and its calls that have no final answer get 503 from the next ticks. */
void front_core_hop_gone(struct front_core *c, unsigned hop, uint64_t now_ms);

/** A whole message from a tenant's agent. */
void front_core_from_agent(struct front_core *c, unsigned tenant, struct span msg, uint64_t now_ms, uint64_t unix_s,
			   struct front_action *out);

/** A tenant's agent has gone: its calls that have no final answer get 503 from the next ticks. */
void front_core_agent_gone(struct front_core *c, unsigned tenant, uint64_t now_ms);

/** Timers. Call until it returns false; each true is one action. */
bool front_core_tick(struct front_core *c, uint64_t now_ms, struct front_action *out);

/** When false, what would be forwarded is refused as if there were no agent: the way to the relay is full. */
void front_core_set_room(struct front_core *c, bool room);

/** Counter of one outcome. Any thread. */
uint64_t front_core_count(const struct front_core *c, enum front_outcome o);
/** From an INVITE that went on to its final answer. Any thread. */
const struct histogram *front_core_call_answer(const struct front_core *c);
/** The refusals that are remembered. Any thread. */
struct front_why *front_core_why(const struct front_core *c);
/** Calls that still need this front: until their final answer, and until the ACK for it. The worker's thread. */
uint32_t front_core_unsettled(const struct front_core *c);
/** Live transactions. The worker's thread. */
uint32_t front_core_calls(const struct front_core *c);

/** Which worker a response's topmost branch belongs to; 0 when it is none of ours. Any thread. */
unsigned front_branch_worker(struct span branch);
