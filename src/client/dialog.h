/* SPDX-License-Identifier: Apache-2.0 */
/** \file One accepted call, from its 200 to its end (RFC 3261 sections 12, 13.2.2.4 and 15; RFC 3311; RFC 4028). Pure: no socket, no clock.
 *
 * Every request carries the route token of the 200, which is valid at each of the domain's fronts; a front that does not answer
 * within a second is replaced by the next. Feed datagrams with dialog_input, then take what is to be sent with dialog_next, until it
 * says no; call dialog_next again at dialog_deadline. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"
#include "client/enrol.h"
#include "sip/build.h"
#include "sip/msg.h"

#define CALL_ID_MAX            32
#define CALL_SEED_BYTES        32
#define DIALOG_MSG_MAX         2048
#define DIALOG_TARGET_MAX      320
#define DIALOG_TAG_MAX         128
#define DIALOG_TOKEN_MAX       128
#define DIALOG_FRONT_WAIT_MS   1000 /* then the next front */
#define DIALOG_UPDATE_MS       8000 /* one UPDATE, over all fronts */
#define DIALOG_UPDATE_AGAIN_MS 10000
#define DIALOG_BYE_MS          4000 /* one BYE, over all fronts */

/** Who calls whom, from where: the same in sign-in and dialog. */
struct call {
	char user[ENROL_USER_MAX + 1];
	char domain[ENROL_DOMAIN_MAX + 1];
	char service[ENROL_SERVICE_MAX + 1];
	char from_tag[CALL_ID_MAX];
	struct wn_addr local; /* of the socket, as this host sees it */
	struct wn_addr fronts[ENROL_FRONTS_MAX];
	unsigned nfronts;
	uint8_t seed[CALL_SEED_BYTES]; /* fresh random bytes: identifiers are derived from them */
	uint64_t drawn;
};

/** 22 characters of base64url that nobody can foresee, and a NUL. */
void call_draw_id(struct call *c, char out[static CALL_ID_MAX]);
/** Index of the front at exactly that address and port, or -1. */
int call_front(const struct call *c, const struct wn_addr *from);

enum dialog_state {
	DIALOG_UP,
	DIALOG_ENDING, /* our BYE is on its way */
	DIALOG_ENDED,
};

enum dialog_end {
	DIALOG_END_NONE,
	DIALOG_END_LOCAL,   /* our BYE was answered */
	DIALOG_END_SILENT,  /* our BYE was not answered; the hole closes when it expires */
	DIALOG_END_PEER,    /* BYE from the agent */
	DIALOG_END_UNKNOWN, /* the agent does not know the call any more (481) */
	DIALOG_END_EXPIRED, /* no refresh got through in time */
};

struct dialog {
	struct call call;
	char call_id[CALL_ID_MAX];
	char to_tag[DIALOG_TAG_MAX];
	char target[DIALOG_TARGET_MAX]; /* the agent's Contact */
	char token[DIALOG_TOKEN_MAX];   /* of the Record-Route; empty: there was none */
	unsigned front;                 /* that answered last */
	uint32_t cseq;
	enum dialog_state state;
	enum dialog_end end;

	uint32_t session_s;              /* Session-Expires; 0: none was said */
	uint64_t refresh_at, expires_at; /* ms; UINT64_MAX: never */

	enum sip_method method; /* of the open transaction; SIP_METHOD_OTHER: none */
	char branch[CALL_ID_MAX + 8];
	unsigned to_front, tried;
	uint32_t interval;
	uint64_t again_at, next_front_at, give_up_at;
	char msg[DIALOG_MSG_MAX];
	size_t msg_len;
	bool msg_due;

	char ack[DIALOG_MSG_MAX];
	size_t ack_len;
	unsigned ack_front;
	bool ack_due;

	char reply[DIALOG_MSG_MAX];
	size_t reply_len;
	unsigned reply_front;
	bool reply_due;
};

/** Makes the dialog of a 2xx to an INVITE that came from front `front`; its ACK is due at once. `m` is not kept.
 * \return 0; -EBADMSG when the answer lacks To-tag or Contact or holds one that does not fit. */
int dialog_begin(struct dialog *d, const struct call *call, unsigned front, const struct sip_msg *m, uint64_t now_ms);

/** Starts the BYE. Nothing happens when the dialog has ended, or is ending. */
void dialog_bye(struct dialog *d, uint64_t now_ms);

/** \return true when the message belonged to this dialog (and came from a front). */
bool dialog_input(struct dialog *d, const struct wn_addr *from, const struct sip_msg *m, uint64_t now_ms);

/** The next datagram that is due, valid until the next call. */
bool dialog_next(struct dialog *d, uint64_t now_ms, unsigned *front, struct span *bytes);
uint64_t dialog_deadline(const struct dialog *d); /* ms; UINT64_MAX: none */
