/* SPDX-License-Identifier: Apache-2.0 */
/** \file What signin.c, signin_build.c and signin_farewell.c share: the machine's state, the writing of its requests, and its end. */
#pragma once

#include "client/signin.h"

enum leg_state {
	LEG_UNUSED,
	LEG_ASKED,   /* INVITE without credentials */
	LEG_HELD,    /* challenged, but another front is at work */
	LEG_SENT,    /* INVITE with credentials */
	LEG_WORKING, /* 100 came */
	LEG_DOUBTED, /* challenged anew: the credentials are wrong, or somebody overtook them with altered ones */
	LEG_LATER,   /* 503: to be asked again at again_at */
	LEG_DEAD,
	LEG_ACCEPTED,
};

struct leg {
	enum leg_state state;
	uint64_t since;
	uint64_t again_at; /* retransmission, or retry after 503 */
	uint32_t interval;
	char call_id[CALL_ID_MAX];
	char branch[CALL_ID_MAX + 8];
	char cnonce[CALL_ID_MAX];
	uint32_t cseq;
	unsigned stale, doubts;
	bool known; /* these credentials use a nonce from an earlier session */
	bool again; /* has been started afresh once */
	struct signin_nonce challenge;
	struct signin_nonce fresh; /* LEG_DOUBTED: the newer challenge; the session key stays with the one that was answered */
	bool fresh_stale;
	bool cancelling; /* msg is the CANCEL */
	char msg[SIGNIN_MSG_MAX];
	size_t msg_len;
	bool msg_due;
	char ack[SIGNIN_MSG_MAX];
	size_t ack_len;
	bool ack_due;
};

struct signin {
	struct call call;
	char secret[ENROL_SECRET_MAX + 1];
	struct digest_ctx *digest;
	uint32_t epoch_s;
	enum sdp_proto proto;
	uint16_t walnut_port;
	uint64_t unix_s, start_ms, now_ms, deadline;
	uint32_t timeout_ms;
	uint64_t sdp_id;
	uint32_t cseq;
	char call_id[CALL_ID_MAX];
	enum signin_state state;
	struct signin_failure failure;
	struct signin_answer answer;
	struct leg leg[ENROL_FRONTS_MAX];
	/* Answers that came too late for their call to be wanted: acknowledged, then ended. */
	struct dialog stray;
	bool has_stray;
};

/** Writes the INVITE of the leg's current transaction into leg->msg, padded to SIGNIN_REQUEST_MIN. \return 0 or negative errno. */
int signin_build_invite(struct signin *s, struct leg *leg, bool credentials);

/** Writes the ACK of a non-2xx answer `m` to that transaction, and marks it due. */
void signin_build_ack(struct signin *s, struct leg *leg, const struct sip_msg *m);

/** Writes the CANCEL of the leg's transaction (RFC 3261 9.1) over its INVITE, and marks it due. */
void signin_build_cancel(struct signin *s, struct leg *leg);

/* After the end: what was given up is cancelled, what comes too late is acknowledged and ended. */
void farewell_begin(struct signin *s, uint64_t now_ms);
void farewell_input(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms);
void farewell_step(struct signin *s, uint64_t now_ms);
uint64_t farewell_deadline(const struct signin *s);
