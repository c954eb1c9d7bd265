/* SPDX-License-Identifier: Apache-2.0 */
/** \file One sign-in: from the first INVITE to the 200 or to the reason why not (RFC 3261 sections 17.1.1 and 22.3, RFC 7616, RFC 8760).
 * Pure: no socket, no clock.
 *
 * Feed datagrams with signin_input, then take what is to be sent with signin_next, until it says no; call signin_next again at
 * signin_deadline. Fronts are tried in the order given: the first at once, the next in parallel whenever nobody has answered for
 * SIGNIN_NEXT_MS, or the one at work has gone quiet. The first challenge wins; credentials go only to the front that asked for them. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "client/dialog.h"
#include "sip/digest.h"
#include "sip/sdp.h"
#include "ticket/session_key.h"

#define SIGNIN_NEXT_MS     500  /* without any answer to a first INVITE: the next front joins */
#define SIGNIN_QUIET_MS    1000 /* credentials sent, no answer at all: the same */
#define SIGNIN_STUCK_MS    2000 /* 100 Trying, then nothing: the same */
#define SIGNIN_DOUBT_MS    1000 /* credentials challenged anew: so long their own answer may still come */
#define SIGNIN_DOUBTS_MAX  2    /* so often per front before they are taken for wrong */
#define SIGNIN_STALE_MAX   2    /* challenges with stale=true taken per front, the second after SIGNIN_DOUBT_MS */
#define SIGNIN_MSG_MAX     4096
#define SIGNIN_REALM_MAX   (ENROL_DOMAIN_MAX + 24)
#define SIGNIN_NONCE_MAX   128
#define SIGNIN_REQUEST_MIN 760 /* bytes of a first INVITE: padded so that a challenge, which may not be longer, fits */
#define SIGNIN_TIMEOUT_MS  8000
#define SIGNIN_WHY_MAX     200

/** A nonce that may be used without asking: from a nextnonce. */
struct signin_nonce {
	char realm[SIGNIN_REALM_MAX];
	char nonce[SIGNIN_NONCE_MAX]; /* empty: none */
	struct wn_addr seen;          /* our address as the front saw it */
};

struct signin_config {
	const char *user, *domain, *secret, *service;
	struct wn_addr fronts[ENROL_FRONTS_MAX]; /* in the order to try them */
	unsigned nfronts;
	uint32_t epoch_s;
	enum sdp_proto proto;
	uint16_t walnut_port;      /* the port that the person asked for; 0 = unsaid */
	struct wn_addr local;      /* of the socket: the Via, and the host candidate; for UDP the data's source too */
	uint32_t timeout_ms;       /* 0 = SIGNIN_TIMEOUT_MS */
	uint64_t unix_s;           /* at the start: for the epoch */
	struct signin_nonce first; /* for fronts[0]; may be empty */
	uint8_t seed[CALL_SEED_BYTES];
	struct digest_ctx *digest; /* borrowed, must outlive it */
};

enum signin_state { SIGNIN_RUNNING, SIGNIN_ACCEPTED, SIGNIN_FAILED };

enum signin_error {
	SIGNIN_E_NONE,
	SIGNIN_E_NO_ANSWER,   /* no front answered in time */
	SIGNIN_E_CREDENTIALS, /* challenged again: user or secret is not accepted */
	SIGNIN_E_CHALLENGE,   /* a challenge that this client refuses: other domain, epoch, algorithm */
	SIGNIN_E_REFUSED,     /* final answer 3xx-6xx, see sip_status */
	SIGNIN_E_BUSY,        /* 503 from every front that answered, until the end */
	SIGNIN_E_ANSWER,      /* a 200 that makes no sense */
	SIGNIN_E_GIVEN_UP,    /* signin_give_up */
};

struct signin_failure {
	enum signin_error error;
	unsigned sip_status; /* 0 = none */
	char why[SIGNIN_WHY_MAX];
};

struct signin;

/** Copies the configuration (the seed and the secret are wiped by signin_free). \return 0, -EINVAL, -ENOMEM. */
int signin_new(const struct signin_config *cfg, uint64_t now_ms, struct signin **out);
void signin_free(struct signin *s);

/** Whatever came in on the socket. What is not an answer to something that was sent, from the front it was sent to, changes nothing. */
void signin_input(struct signin *s, const struct wn_addr *from, struct span datagram, uint64_t now_ms);
/** The next datagram that is due and the front it is for; valid until the next call. False: nothing now. */
bool signin_next(struct signin *s, uint64_t now_ms, unsigned *front, struct span *bytes);
uint64_t signin_deadline(const struct signin *s); /* ms; UINT64_MAX: none */

/** Ends a sign-in that is not wanted any more, as its own time limit does: it has failed, what a front works on is cancelled (RFC 3261 9.1:
 * once the front has said that it does), and what is accepted all the same is acknowledged and ended. Go on with signin_input and
 * signin_next until signin_settled, for as long as there is time. */
void signin_give_up(struct signin *s, uint64_t now_ms);

/** No front holds credentials that it has not answered, and nothing is left to be ended: nothing more can come in that matters, and a
 * sign-in that is not running may be freed. */
bool signin_settled(const struct signin *s);

enum signin_state signin_state(const struct signin *s);
/** With SIGNIN_FAILED. */
const struct signin_failure *signin_failure(const struct signin *s);

/** With SIGNIN_ACCEPTED: what the service's side answered. The dialog is ready for dialog_next (its ACK is due) and lives in `s` until
 * the caller copies it out. */
struct signin_answer {
	unsigned front;
	struct sdp sdp; /* conn: where the data goes */
	uint8_t session_key[SESSION_KEY_BYTES];
	struct signin_nonce next; /* empty: none was given */
	struct dialog dialog;
};
const struct signin_answer *signin_answer(const struct signin *s);
