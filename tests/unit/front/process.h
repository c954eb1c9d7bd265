/* SPDX-License-Identifier: Apache-2.0 */
/** \file The real process on loopback: an agent made of peer.h in front of it, callers behind. Shared by the tests of the process. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>
#include <uv.h>

#include "base/clock.h"
#include "peer/peer.h"
#include "sip/build.h"
#include "world.h"

#define WAIT_MS 8000

/** One end of the agent's side. */
struct agent {
	struct peer_conn *c;
	bool up, down;
	char buf[131072];
	size_t n;
};

extern struct process {
	char dir[64], config[96], socket[96], state[96];
	struct wn_addr sip, peer;
	pid_t pid;
	uv_loop_t loop;
	uv_timer_t timer;
	bool timed_out;
	struct peer_identity *agent_id;
	struct peer_pin front_pin, agent_pin;
	struct agent agent[2];
	uint8_t head[UPDATE_HEAD_BYTES]; /* of the chain, at update 1 */
	struct world w;                  /* for its digest and its keys */
} p;

/** Of an agent: arg is its struct. */
extern const struct peer_events agent_events;

void process_on_timer(uv_timer_t *t);
/** Runs the loop until `done`, or fails the test. */
#define AWAIT(done)                                                     \
	do {                                                            \
		p.timed_out = false;                                    \
		uv_timer_start(&p.timer, process_on_timer, WAIT_MS, 0); \
		while (!(done) && !p.timed_out)                         \
			uv_run(&p.loop, UV_RUN_ONCE);                   \
		uv_timer_stop(&p.timer);                                \
		assert_true(done);                                      \
	} while (0)

/** Makes folder, keys and ports, and starts the process with a file of one tenant, example.org. `more`: further lines of the file, or NULL.
 */
void process_setup(const char *more);
/** Ends it and removes everything. \return its exit status. */
int process_teardown(void);
/** Writes the file: `more` stands before the tenants; `tenants` in place of the one, if not NULL. */
void process_write_config(const char *more, const char *tenants);
/** The lines of the one tenant. */
const char *process_tenant(char *buf, size_t cap);

uint16_t free_port(int type);
pid_t start(const char *const *arg);
int finish(pid_t pid);

/** A new caller's socket, connected to the front. */
int caller(void);
struct span receive(int fd, char *buf, size_t cap);
/** The same while the loop goes on. */
struct span receive_looping(int fd, char *buf, size_t cap);
/** INVITE to 407 on socket fd; c gets the credentials. */
void challenged(int fd, struct call *c);

/** The answer to a command of the control socket; the caller frees it. */
json_t *ask(const char *cmd, const char *about);
json_int_t outcome(const char *name);

void agent_connect(struct agent *a);
/** The next whole message that the front sent. */
struct span agent_next(struct agent *a, struct sip_msg *m, char *copy, size_t cap);
unsigned agent_register(struct agent *a, const char *domain);
unsigned agent_publish(struct agent *a, struct span update, char *copy, size_t cap, struct sip_msg *m);
struct span update(enum update_type type, uint64_t seq, const uint8_t *previous, uint8_t *buf, size_t cap, uint8_t hash[32]);
