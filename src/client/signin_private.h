/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the files of a sign-in share: the machine's state, what its parts ask of each other. */
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

/* signin.c */
/** Says why it fails if nothing better comes; a reason that says more than "busy" is not replaced by that. status: SIP's, 0 = none. */
__attribute__((format(printf, 4, 5))) void signin_note(struct signin *s, enum signin_error error, unsigned status, const char *fmt, ...);
/** Ends it without success, for the reason that was noted. */
void signin_fail(struct signin *s, uint64_t now_ms);
/** Sends the leg an INVITE of a new transaction. */
void signin_send_invite(struct signin *s, struct leg *leg, bool credentials, uint64_t now_ms);
/** At work and not overdue: no other front is needed yet. */
bool signin_in_good_standing(const struct leg *leg, uint64_t now_ms);
/** The address of the leg's front, in buf. */
const char *signin_front_name(const struct signin *s, const struct leg *leg, char buf[static WN_ADDR_STR]);

/* signin_answers.c */
enum realm_verdict { REALM_OK, REALM_OTHER_DOMAIN, REALM_EPOCH };
/** Whether a realm is DOMAIN/EPOCH of this user's domain and of about now. */
enum realm_verdict signin_check_realm(const struct signin *s, struct span realm, uint64_t now_ms);

/* signin_build.c */
/** Writes the INVITE of the leg's current transaction into leg->msg, padded to SIGNIN_REQUEST_MIN. \return 0 or negative errno. */
int signin_build_invite(struct signin *s, struct leg *leg, bool credentials);

/** Writes the ACK of a non-2xx answer `m` to that transaction, and marks it due. */
void signin_build_ack(struct signin *s, struct leg *leg, const struct sip_msg *m);

/** Writes the CANCEL of the leg's transaction (RFC 3261 9.1) over its INVITE, and marks it due. */
void signin_build_cancel(struct signin *s, struct leg *leg);

/* signin_farewell.c: after the end, what was given up is cancelled, what comes too late is acknowledged and ended. */
void farewell_begin(struct signin *s, uint64_t now_ms);
void farewell_input(struct signin *s, struct leg *leg, const struct sip_msg *m, uint64_t now_ms);
void farewell_step(struct signin *s, uint64_t now_ms);
uint64_t farewell_deadline(const struct signin *s);
