/* SPDX-License-Identifier: Apache-2.0 */
/** \file Nonces for later: what `nextnonce` gave, so that the next session of a long-lived command needs no challenge. Pure. */
#pragma once

#include "client/signin.h"

#define NONCES_MAX    32
#define NONCES_AGE_MS 20000 /* a front's nonces live 30 s unless its file says otherwise */

struct nonces_entry {
	struct wn_addr front, local; /* local: the address only */
	uint64_t at_ms;
	char user[ENROL_USER_MAX + 1];
	struct signin_nonce nonce;
};

struct nonces {
	struct nonces_entry at[NONCES_MAX];
	unsigned n;
};

/** The oldest gives way when all places are taken. */
void nonces_put(struct nonces *c, const struct wn_addr *front, const struct wn_addr *local, const char *user,
		const struct signin_nonce *nonce, uint64_t now_ms);
/** Takes the youngest one out, so that none is used twice; what is too old is forgotten. \return true and *out. */
bool nonces_take(struct nonces *c, const struct wn_addr *front, const struct wn_addr *local, const char *user, const char *domain,
		 uint64_t now_ms, struct signin_nonce *out);
