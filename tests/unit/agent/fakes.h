/* SPDX-License-Identifier: Apache-2.0 */
/** \file A front and a gate as an agent sees them, on the test's own loop: real TLS, real tables, nothing else behind them. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <uv.h>

#include "gate/record.h"
#include "peer/peer.h"
#include "userdb/table.h"

#define FAKE_MESSAGES 64
#define FAKE_HOLES    64

struct fake_front {
	uv_loop_t *loop;
	struct peer_identity *id;
	struct peer_pin pin, agent_pin;
	struct wn_addr addr; /* port chosen at the first listen */
	struct peer_listener *listener;
	struct peer_conn *conn;
	struct user_table *table;
	uint8_t sign_pk[32];
	bool silent; /* answers nothing */
	unsigned accepted, registers, publishes;
	json_t *registration;
	char *message[FAKE_MESSAGES]; /* what was neither REGISTER nor PUBLISH, in order */
	unsigned messages;
	char rx[1 << 17];
	size_t rx_n;
};

int fake_front_init(struct fake_front *f, uv_loop_t *loop, const char *dir, const struct peer_pin *agent, const uint8_t *sign_pk);
int fake_front_listen(struct fake_front *f);
/** Stops listening and closes the connection; the table stays. */
void fake_front_down(struct fake_front *f);
void fake_front_free(struct fake_front *f);
void fake_front_send(struct fake_front *f, const char *text, size_t n);
/** Forgets the messages so far. */
void fake_front_clear(struct fake_front *f);

struct fake_gate {
	uv_loop_t *loop;
	struct peer_identity *id;
	struct peer_pin pin, agent_pin;
	struct wn_addr addr;
	struct peer_listener *listener;
	struct peer_conn *conn;
	bool hold; /* keeps OPEN unanswered */
	unsigned accepted, opens, closes, renews, lists, pings, bad_sequence;
	uint64_t seq;
	struct gate_reply hole[FAKE_HOLES];
	unsigned holes;
	uint64_t next_hole;
	struct gate_request last_open;
	uint8_t rx[GATE_REQUEST_BYTES];
	size_t rx_n;
};

int fake_gate_init(struct fake_gate *g, uv_loop_t *loop, const char *dir, const struct peer_pin *agent);
int fake_gate_listen(struct fake_gate *g);
void fake_gate_down(struct fake_gate *g);
void fake_gate_free(struct fake_gate *g);
