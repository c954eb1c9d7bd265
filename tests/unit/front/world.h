/* SPDX-License-Identifier: Apache-2.0 */
/** \file A front's core with one tenant, two users and an agent, for tests: time and addresses are what the test says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "front/core.h"
#include "sip/digest.h"
#include "userdb/update.h"

#define WORLD_DOMAIN "example.org"
#define WORLD_EPOCH  20781u
#define WORLD_UNIX   ((uint64_t)WORLD_EPOCH * 86400u + 3600u)
#define ALICE_SECRET "qJ0cVwxhz3pN1mS5tR8yB2dF4gH6kL7nP9rT0vX3zA1"
#define BOB_SECRET   "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE"

struct world {
	struct front_shared sh;
	struct front_tenant tenant[2]; /* example.org; example.net without users */
	struct front_policy policy[2];
	struct front_agent agent;
	struct front_core *core;
	struct digest_ctx *digest;
	uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];
	struct update_head head;
	uint64_t now_ms, unix_s;
	struct front_action a;
	char net[FRONT_OUT_MAX], to_agent[FRONT_OUT_MAX];
	char invite[FRONT_OUT_MAX]; /* the last one that the agent got */
	size_t invite_n;
};

/** alice has SHA-256 keys, bob also MD5 ones. nonce_key: NULL = random. */
void world_new(struct world *w, const uint8_t *nonce_key);
void world_free(struct world *w);
/** A world for each test, in a static `w`. */
int world_setup(void **state);
int world_teardown(void **state);
#define WORLD_TEST(name) cmocka_unit_test_prestate_setup_teardown(name, world_setup, world_teardown, &w)
/** The feed says that nothing has changed. */
void world_heartbeat(struct world *w);

/** What a caller sends; NULL strings have sensible defaults. */
struct call {
	const char *method; /* INVITE */
	const char *uri;    /* sip:ssh@example.org */
	const char *call_id, *from_tag, *to_tag, *branch;
	unsigned cseq;     /* 1 */
	const char *body;  /* a small offer */
	const char *extra; /* headers, each with its line end */
	const char *route; /* value of Route */
	char auth[1024];   /* value of Proxy-Authorization; "": none */
	int max_forwards;  /* 0: 70 */
};

/** Writes the request; returns its length. */
size_t call_write(const struct call *c, char *buf, size_t cap);

struct credentials_of {
	const char *user, *secret, *uri; /* uri NULL: the call's */
	enum digest_alg alg;
	const char *qop; /* "auth-int" by default */
	const char *nc;  /* "00000001" by default */
};
/** alice, with auth-int and SHA-256. */
extern const struct credentials_of alice;
/** Fills c->auth to answer a challenge for realm and nonce. */
void call_authorize(struct world *w, struct call *c, const struct credentials_of *k, struct span realm, struct span nonce);

/** Sends the datagram into the core; the action is in w->a. */
void world_send(struct world *w, const void *p, size_t n, const struct wn_addr *src);
void world_call(struct world *w, const struct call *c, const struct wn_addr *src);
/** A first look; changes w->a, and what it counts. */
enum front_class world_look(struct world *w, const void *p, size_t n, const struct wn_addr *src, struct front_look *look);
bool world_first_class(struct world *w, struct span in, const struct wn_addr *src, uint64_t now_ms, uint64_t unix_s);
void world_from_agent(struct world *w, const void *p, size_t n);
struct span world_net(const struct world *w);
struct span world_agent(const struct world *w);

/** The challenge in the last answer; its spans point into w->net. Fails the test if there is none. */
void world_challenge(const struct world *w, struct digest_params *p);
/** Sends c without credentials, and fills c->auth to answer the challenge that comes. */
void world_answer_challenge(struct world *w, struct call *c, const struct credentials_of *k, const struct wn_addr *src);
/** A header's value of a message, or p == NULL. */
struct span header_of(struct span msg, const char *name);
/** True when the bytes hold the text. */
bool holds(struct span msg, const char *text);

/** INVITE, 407, INVITE with credentials: fails the test if it is not forwarded. The second INVITE stays in buf (its length is returned). */
size_t world_sign_in(struct world *w, struct call *c, const struct credentials_of *k, const struct wn_addr *src, char *buf, size_t cap);

struct wn_addr addr_of(const char *text);
uint64_t counted(const struct world *w, enum front_outcome o);
/** An agent's answer to w->invite; returns its length. */
size_t agent_answer(const struct world *w, unsigned status, const char *reason, char *buf, size_t cap);
