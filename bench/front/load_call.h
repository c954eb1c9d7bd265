/* SPDX-License-Identifier: Apache-2.0 */
/** \file One call of the generator, both ends: what has been sent, and what is written next. */
#pragma once

#include "load.h"

enum call_state { CALL_FREE, CALL_INVITED, CALL_CONNECTED, CALL_BYE, CALL_HELD };

struct load_call {
	enum call_state state;
	uint32_t slot, generation;
	unsigned address; /* index */
	unsigned sock;
	uint64_t user;
	unsigned tries; /* INVITEs so far */
	unsigned cseq;
	bool counted, provisional, answered, acked;
	uint64_t began_ns, again_ns, wait_ns; /* first INVITE; when the request is due again, and the wait after that */
	uint64_t answer_again_ns, answer_wait_ns;
	struct sockaddr_in answer_to;
	size_t request_n, ack_n, answer_n;
	char request[LOAD_TEXT], ack[LOAD_TEXT], answer[LOAD_TEXT];
};

struct call_shape { /* what all calls of a run have in common */
	const struct load_options *o;
	struct load_digest *digest;
	uint64_t run; /* no two runs have a Call-ID in common */
	bool tcp;
};

/** INVITE number c->tries; credentials when nonce != NULL. */
void call_write_invite(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_nonce *nonce);
/** The ACK of a final answer that is no 2xx: the INVITE's branch. */
void call_write_refused_ack(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_seen *answer);
/** ACK and BYE of the dialog that a 200 has opened. */
void call_write_ack_and_bye(const struct call_shape *s, struct load_call *c, unsigned port, const struct load_seen *answer);
/** The respondent's 200 to a request. \return its length. */
size_t call_write_ok(const struct call_shape *s, const struct load_seen *request, bool invite, char to[static LOAD_TEXT]);

/** A respondent that forgets: what it answers to an INVITE or a BYE; 0: nothing. */
size_t call_respond(const struct call_shape *s, struct span request, char to[static LOAD_TEXT]);

/** Slot and generation in a Call-ID. False: none of this run's. */
bool call_id_parse(const struct call_shape *s, struct span id, uint32_t *slot, uint32_t *generation);
