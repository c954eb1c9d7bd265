/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/grants.h"

#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/backoff.h"
#include "base/log.h"

#define PENDING_MAX 8192u /* power of two */

struct pending {
	uint8_t op; /* 0: free */
	uint32_t generation;
	uint64_t seq, cookie, hole;
};

struct closing {
	uint64_t hole;
	uint64_t seq; /* 0: not asked on this connection */
};

struct grants {
	uv_loop_t *loop;
	const struct peer_identity *id;
	const struct agent_peer *gate;
	const struct grants_events *ev;
	void *arg;
	struct agent_counters *counters;
	struct peer_conn *conn; /* NULL between attempts */
	bool up, stopping, said_down;
	uv_timer_t retry, beat;
	unsigned refs; /* two timers and the connection */
	struct backoff backoff;
	uint64_t heartbeat_ms;
	unsigned silent_beats;

	uint64_t seq; /* of the last request */
	struct pending pending[PENDING_MAX];
	unsigned npending;
	struct closing *closing;
	size_t nclosing, closing_cap;

	uint8_t in[GATE_REPLY_BYTES];
	size_t in_n;
	uint64_t control_bytes, heartbeat_bytes;
};

static void attempt(uv_timer_t *t);

static void release(struct grants *g)
{
	if (--g->refs > 0)
		return;
	free(g->closing);
	sodium_memzero(g, sizeof(*g));
	free(g);
}

/* The connection is of no use any more: nothing is sent or heard from here on; on_down follows. */
static void drop(struct grants *g)
{
	if (g->up) {
		g->up = false;
		count(g->counters, COUNT_gate_losses);
	}
	if (g->conn != NULL)
		peer_close(g->conn);
}

static int send_request(struct grants *g, struct gate_request *r, uint64_t cookie, uint32_t generation)
{
	struct pending *p = &g->pending[(g->seq + 1) % PENDING_MAX];
	uint8_t wire[GATE_REQUEST_BYTES];
	int rc;

	if (!g->up)
		return -ENOTCONN;
	if (p->op != 0)
		return -EAGAIN;
	r->seq = g->seq + 1;
	gate_request_encode(r, wire);
	rc = peer_send(g->conn, wire, sizeof(wire));
	sodium_memzero(wire, sizeof(wire));
	if (rc < 0)
		return rc;
	g->seq++;
	*p = (struct pending){.op = r->op, .seq = g->seq, .cookie = cookie, .generation = generation, .hole = r->hole};
	g->npending++;
	*(r->op == GATE_PING ? &g->heartbeat_bytes : &g->control_bytes) += GATE_REQUEST_BYTES;
	return 0;
}

/* Asks to close what has not been asked on this connection yet. */
static void send_closings(struct grants *g)
{
	for (size_t i = 0; i < g->nclosing; i++) {
		struct gate_request r = {.op = GATE_CLOSE, .hole = g->closing[i].hole};

		if (g->closing[i].seq != 0)
			continue;
		if (send_request(g, &r, 0, 0) < 0)
			return;
		g->closing[i].seq = g->seq;
	}
}

static bool is_closing(const struct grants *g, uint64_t hole)
{
	for (size_t i = 0; i < g->nclosing; i++) {
		if (g->closing[i].hole == hole)
			return true;
	}
	return false;
}

static void closed(struct grants *g, const struct gate_reply *r)
{
	for (size_t i = 0; i < g->nclosing; i++) {
		if (g->closing[i].seq != r->seq)
			continue;
		if (r->status == GATE_FAILED)
			g->closing[i].seq = 0; /* again with the next heartbeat */
		else
			g->closing[i] = g->closing[--g->nclosing];
		return;
	}
}

static void on_reply(struct grants *g, const struct gate_reply *r)
{
	struct pending *slot = &g->pending[r->seq % PENDING_MAX], p = *slot;

	if (p.op == 0 || p.seq != r->seq || (r->op != p.op && r->status != GATE_BAD_RECORD)) {
		count(g->counters, COUNT_gate_unexpected);
		wn_warn("gate: an answer to nothing that was asked (%s)", gate_status_name(r->status));
		drop(g);
		return;
	}
	*(p.op == GATE_PING ? &g->heartbeat_bytes : &g->control_bytes) += GATE_REPLY_BYTES;
	if (p.op != GATE_LIST || r->status != GATE_OK) {
		slot->op = 0;
		g->npending--;
	}
	g->silent_beats = 0;
	g->backoff.ms = 0;

	switch (p.op) {
	case GATE_OPEN:
		g->ev->opened(g->arg, p.cookie, p.generation, r);
		break;
	case GATE_RENEW:
		g->ev->renewed(g->arg, p.cookie, r);
		break;
	case GATE_CLOSE:
		closed(g, r);
		break;
	case GATE_LIST:
		if (r->status == GATE_END)
			g->ev->list_end(g->arg);
		else if (r->status != GATE_OK)
			drop(g); /* half a list must not end the calls of the other half */
		else if (!is_closing(g, r->hole))
			g->ev->listed(g->arg, r);
		break;
	default:
		break;
	}
}

static void on_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct grants *g = arg;
	struct gate_request list = {.op = GATE_LIST};

	(void)c;
	(void)pin;
	g->up = true;
	g->said_down = false;
	g->seq = 0;
	g->in_n = 0;
	g->silent_beats = 0;
	count(g->counters, COUNT_gate_connects);
	wn_info("gate: connected");
	send_closings(g); /* before the list, so that it does not show them */
	g->ev->list_begin(g->arg);
	if (send_request(g, &list, 0, 0) < 0)
		drop(g);
}

static void on_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct grants *g = arg;

	(void)c;
	while (n > 0 && g->up) {
		size_t take = sizeof(g->in) - g->in_n < n ? sizeof(g->in) - g->in_n : n;
		struct gate_reply r;

		memcpy(g->in + g->in_n, p, take);
		g->in_n += take;
		p += take;
		n -= take;
		if (g->in_n < sizeof(g->in))
			return;
		g->in_n = 0;
		if (gate_reply_decode(g->in, &r) < 0) {
			count(g->counters, COUNT_gate_unexpected);
			wn_warn("gate: an answer that cannot be read; connecting anew");
			drop(g);
			return;
		}
		on_reply(g, &r);
	}
}

static void on_down(struct peer_conn *c, int reason, void *arg)
{
	struct grants *g = arg;

	(void)c;
	g->conn = NULL;
	drop(g);
	memset(g->pending, 0, sizeof(g->pending));
	g->npending = 0;
	for (size_t i = 0; i < g->nclosing; i++)
		g->closing[i].seq = 0;
	if (!g->stopping) {
		if (!g->said_down) {
			wn_warn("gate: not connected: %s", down_reason(reason));
			g->said_down = true;
		}
		g->ev->lost(g->arg);
		uv_timer_start(&g->retry, attempt, backoff_next(&g->backoff), 0);
	}
	release(g);
}

static const struct peer_events events = {.up = on_up, .data = on_data, .down = on_down};

static void attempt(uv_timer_t *t)
{
	struct grants *g = t->data;
	struct peer_options opt = {.pins = &g->gate->pin, .npins = 1, .handshake_ms = ATTEMPT_MS};

	if (peer_connect(g->loop, g->id, &g->gate->addr, &opt, &events, g, &g->conn) < 0) {
		uv_timer_start(&g->retry, attempt, backoff_next(&g->backoff), 0);
		return;
	}
	g->refs++;
}

static void beat(uv_timer_t *t)
{
	struct grants *g = t->data;
	struct gate_request ping = {.op = GATE_PING};

	if (!g->up)
		return;
	if (g->silent_beats >= 2) {
		count(g->counters, COUNT_gate_silent);
		wn_warn("gate: silent; connecting anew");
		drop(g);
		return;
	}
	g->silent_beats++;
	send_closings(g);
	if (send_request(g, &ping, 0, 0) < 0 && peer_send_queued(g->conn) == 0)
		drop(g);
}

int grants_new(uv_loop_t *loop, const struct peer_identity *id, const struct agent_peer *gate, uint32_t heartbeat_ms,
	       const struct grants_events *ev, void *arg, struct agent_counters *counters, struct grants **out)
{
	struct grants *g = calloc(1, sizeof(*g));

	*out = g;
	if (g == NULL)
		return -ENOMEM;
	g->loop = loop;
	g->id = id;
	g->gate = gate;
	g->ev = ev;
	g->arg = arg;
	g->counters = counters;
	g->heartbeat_ms = heartbeat_ms;
	g->refs = 2;
	uv_timer_init(loop, &g->retry);
	uv_timer_init(loop, &g->beat);
	g->retry.data = g;
	g->beat.data = g;
	uv_timer_start(&g->retry, attempt, 0, 0);
	uv_timer_start(&g->beat, beat, heartbeat_ms, heartbeat_ms);
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	release(h->data);
}

void grants_stop(struct grants *g)
{
	g->stopping = true;
	drop(g);
	uv_close((uv_handle_t *)&g->retry, timer_closed);
	uv_close((uv_handle_t *)&g->beat, timer_closed);
}

bool grants_connected(const struct grants *g)
{
	return g->up;
}

int grants_open(struct grants *g, const struct gate_request *r, uint32_t generation)
{
	struct gate_request copy = *r;
	int rc = send_request(g, &copy, r->cookie, generation);

	sodium_memzero(&copy, sizeof(copy));
	return rc;
}

int grants_renew(struct grants *g, uint64_t cookie, uint64_t hole, uint32_t lifetime_s)
{
	struct gate_request r = {.op = GATE_RENEW, .hole = hole, .lifetime_s = lifetime_s};

	return send_request(g, &r, cookie, 0);
}

void grants_close(struct grants *g, uint64_t hole)
{
	if (g->nclosing == g->closing_cap) {
		size_t cap = g->closing_cap != 0 ? g->closing_cap * 2 : 64;
		struct closing *p = realloc(g->closing, cap * sizeof(*p));

		if (p == NULL) {
			struct gate_request r = {.op = GATE_CLOSE, .hole = hole};

			wn_err("out of memory: a hole may stay open until it expires");
			send_request(g, &r, 0, 0);
			return;
		}
		g->closing = p;
		g->closing_cap = cap;
	}
	g->closing[g->nclosing++] = (struct closing){.hole = hole};
	send_closings(g);
}

void grants_bytes(const struct grants *g, uint64_t *control, uint64_t *heartbeat)
{
	*control = g->control_bytes;
	*heartbeat = g->heartbeat_bytes;
}
