/* SPDX-License-Identifier: Apache-2.0 */
/** \file May this user have this flow, and who exactly may use the hole? Pure. */
#pragma once

#include <stdbool.h>

#include "agent/config.h"
#include "sip/sdp.h"

enum policy_verdict {
	POLICY_OK,
	POLICY_UNKNOWN_USER, /* 403: revoked meanwhile; the agent's word counts, not the front's table */
	POLICY_NO_SERVICE,   /* 404 */
	POLICY_FORBIDDEN,    /* 403: not one of the service's users */
	POLICY_WRONG_PORT,   /* 404: the person asked for another port than the service's */
	POLICY_NO_MEDIA,     /* 488: no m= line that can be served, or of the other protocol */
	POLICY_NO_ADDRESS,   /* 488: no source that a hole could be limited to */
	POLICY_VERDICTS
};

struct policy_question {
	struct span user;        /* proven by the front */
	bool user_known;         /* is in the store now */
	struct span service;     /* user part of the Request-URI */
	bool auth_int;           /* the digest covered the offer */
	struct wn_addr source;   /* the address and port that were challenged */
	const struct sdp *offer; /* NULL: none that could be read */
};

struct policy_answer {
	const struct agent_service *service;
	struct wn_addr remote; /* who may use the hole; port 0: any */
	bool tag;              /* bound by the first valid tag */
};

/**
 * The hole's remote address is the offer's server-reflexive candidate only where the digest covered it (auth-int); else, and where there is
 * none, the challenged source: credentials that were moved onto an attacker's offer open nothing for the attacker. UDP without a tag is
 * bound to the challenged source and the offered port.
 */
enum policy_verdict policy_decide(const struct agent_config *c, const struct policy_question *q, struct policy_answer *out);

/** Whether the service's list of users has (or does not limit) this one. */
bool policy_may_use(const struct agent_service *s, struct span user);

unsigned policy_status(enum policy_verdict v);          /* SIP status */
const char *policy_reason(enum policy_verdict v);       /* reason phrase: what a client may know */
const char *policy_verdict_name(enum policy_verdict v); /* as it is counted */
