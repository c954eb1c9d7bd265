/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/control.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/ipc.h"
#include "gate/link.h"

#define INPUT_MAX      32768        /* bytes; reading stops while a whole request waits, and peer hands out 16 KB at most */
#define WINDOW_ALL     512          /* requests at the writer: what one tenant can put in front of another's */
#define TURN           16           /* requests a connection may add to a datagram before the next one's turn */
#define SEND_HIGH      (256u << 10) /* bytes of answers that an agent has not taken: no more is asked for it */
#define SEND_MAX       (1u << 20)
#define DRAIN_MS       5
#define HOUSEKEEP_MS   1000
#define REFUSED_LOG_MS 1000

enum list_state {
	LIST_NONE,
	LIST_ASKED, /* a part is under way */
	LIST_MORE,  /* there is more to ask for */
};

struct conn {
	struct conn *next;
	struct gate_control *control;
	struct peer_conn *peer;
	uint64_t token;
	unsigned tenant;
	uint64_t last_seq, list_seq;
	uint64_t last_ms; /* of the last request */
	enum list_state list;
	unsigned outstanding; /* records at the writer */
	bool paused, ending;  /* ending: the last answer is under way, nothing more is read */
	size_t from, to;      /* what is unread of `in` */
	uint8_t in[INPUT_MAX];
};

struct gate_control {
	const struct gate_config *cfg;
	void (*ended)(int reason, void *arg);
	void *arg;
	int writer;
	uv_poll_t poll;
	int events; /* that it waits for */
	uv_timer_t drain, housekeep;
	struct peer_listener *listener;
	struct gate_operator *local;
	struct conn *conns; /* oldest first */
	uint64_t turn;      /* token of the connection that is served first */
	uint64_t next_token;
	uint64_t listing[GATE_TENANTS_MAX]; /* token of the connection whose list runs, or 0 */
	unsigned outstanding;
	struct gate_ipc_request batch[GATE_IPC_BATCH];
	unsigned nbatch; /* built, not taken by the socket yet */
	struct gate_link_stats stats;
	uint64_t refused_log_ms;
	uint64_t refused_logged;
	bool stopping, has_ended;
};

static void count(struct gate_control *c, uint8_t op, size_t n)
{
	if (op == GATE_PING)
		c->stats.heartbeat_bytes += n;
	else
		c->stats.bytes += n;
}

static struct conn *conn_of(struct gate_control *c, uint64_t token)
{
	for (struct conn *k = c->conns; k != NULL; k = k->next)
		if (k->token == token)
			return k;
	return NULL;
}

static void fail(struct gate_control *c, int reason)
{
	if (c->has_ended || c->stopping)
		return;
	c->has_ended = true;
	uv_poll_stop(&c->poll);
	c->ended(reason, c->arg);
}

static size_t waiting(const struct conn *k)
{
	return k->to - k->from;
}

/* Whether this agent takes its answers. */
static bool drained(const struct conn *k)
{
	return peer_send_queued(k->peer) < SEND_HIGH;
}

/* The next request of a connection, if it may have one now. */
static bool conn_ask(struct gate_control *c, struct conn *k, struct gate_ipc_request *out)
{
	struct gate_request r;
	uint64_t *listing = &c->listing[k->tenant];
	int rc;

	if (k->ending || !drained(k))
		return false;
	memset(out, 0, sizeof(*out));
	out->token = k->token;
	if (k->list == LIST_MORE) {
		out->kind = GATE_IPC_NEXT;
		out->r = (struct gate_request){.op = GATE_LIST, .seq = k->list_seq, .tenant = k->tenant};
		k->list = LIST_ASKED;
		k->last_ms = wn_now_ms();
		k->outstanding++;
		return true;
	}
	/* Answers are in order, so what follows a list waits for its end. */
	if (k->list != LIST_NONE || waiting(k) < GATE_REQUEST_BYTES)
		return false;
	rc = gate_request_decode(k->in + k->from, &r);
	if (rc == 0 && r.op == GATE_LIST && r.seq == k->last_seq + 1 && *listing != 0)
		return false;

	sodium_memzero(k->in + k->from, GATE_REQUEST_BYTES);
	k->from += GATE_REQUEST_BYTES;
	k->last_ms = wn_now_ms();
	k->outstanding++;
	count(c, rc == 0 ? r.op : 0, GATE_REQUEST_BYTES);
	r.tenant = k->tenant;
	out->r = r;
	out->kind = GATE_IPC_APPLY;
	if (r.seq != k->last_seq + 1) {
		out->kind = GATE_IPC_REFUSE;
		out->status = GATE_BAD_SEQUENCE;
		k->ending = true;
	} else if (rc < 0) {
		out->kind = GATE_IPC_REFUSE;
		out->status = GATE_BAD_RECORD;
	} else if (r.op == GATE_LIST) {
		out->kind = GATE_IPC_LIST;
		k->list = LIST_ASKED;
		k->list_seq = r.seq;
		*listing = k->token;
	}
	k->last_seq = r.seq;
	sodium_memzero(r.key, sizeof(r.key));
	return true;
}

/* Fills the datagram, a few requests of each connection in turn. */
static void fill(struct gate_control *c)
{
	struct conn *start = conn_of(c, c->turn), *k;
	bool any = true;

	if (start == NULL)
		start = c->conns;
	if (c->local != NULL && gate_operator_ask(c->local, &c->batch[c->nbatch])) {
		c->nbatch++;
		c->outstanding++;
	}
	while (any && start != NULL) {
		any = false;
		k = start;
		do {
			for (unsigned i = 0; i < TURN; i++) {
				if (c->nbatch == GATE_IPC_BATCH || c->outstanding >= WINDOW_ALL) {
					c->turn = k->token;
					return;
				}
				if (!conn_ask(c, k, &c->batch[c->nbatch]))
					break;
				c->nbatch++;
				c->outstanding++;
				any = true;
			}
			k = k->next != NULL ? k->next : c->conns;
		} while (k != start);
	}
	c->turn = start != NULL && start->next != NULL ? start->next->token : 0;
}

static void on_drain(uv_timer_t *t);

/* Whoever has a whole request waiting is not read from: the kernel's window, not our memory, holds what an agent sends too fast. */
static void throttle(struct gate_control *c)
{
	bool slow = false;

	for (struct conn *k = c->conns; k != NULL; k = k->next) {
		bool wait = waiting(k) >= GATE_REQUEST_BYTES && !k->ending;

		if (wait && !k->paused)
			peer_pause(k->peer);
		else if (!wait && k->paused)
			peer_resume(k->peer);
		k->paused = wait;
		slow = slow || ((wait || k->list == LIST_MORE) && !drained(k));
	}
	/* peer has no event for a queue that drains. */
	if (slow && !uv_is_active((uv_handle_t *)&c->drain))
		uv_timer_start(&c->drain, on_drain, DRAIN_MS, 0);
}

static void on_writer(uv_poll_t *p, int status, int events);

static void pump(struct gate_control *c)
{
	int events = UV_READABLE;

	if (c->stopping || c->has_ended)
		return;
	for (;;) {
		if (c->nbatch == 0)
			fill(c);
		if (c->nbatch == 0)
			break;
		if (send(c->writer, c->batch, c->nbatch * sizeof(c->batch[0]), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			if (errno == EINTR)
				continue;
			if (errno != EAGAIN && errno != ENOBUFS) {
				fail(c, errno == ECONNRESET ? -EPIPE : -errno);
				return;
			}
			events |= UV_WRITABLE;
			break;
		}
		sodium_memzero(c->batch, c->nbatch * sizeof(c->batch[0]));
		c->nbatch = 0;
	}
	if (events != c->events)
		uv_poll_start(&c->poll, events, on_writer);
	c->events = events;
	throttle(c);
}

static void on_drain(uv_timer_t *t)
{
	pump(t->data);
}

/* Answers for one connection, encoded and not sent yet. */
struct outgoing {
	struct conn *k;
	size_t n;
	uint8_t buf[GATE_IPC_BATCH * GATE_REPLY_BYTES];
};

static void outgoing_send(struct outgoing *o)
{
	/* It can only be full when an agent was given more answers than SEND_HIGH and WINDOW_ALL allow. */
	if (o->k != NULL && o->n > 0 && peer_send(o->k->peer, o->buf, o->n) == -ENOBUFS)
		peer_close(o->k->peer);
	o->n = 0;
}

static void conn_answer(struct gate_control *c, struct outgoing *o, const struct gate_ipc_reply *a)
{
	struct conn *k;

	if (o->k == NULL || o->k->token != a->token) {
		outgoing_send(o);
		o->k = conn_of(c, a->token);
	}
	k = o->k;
	if (k == NULL)
		return;
	if (o->n + GATE_REPLY_BYTES > sizeof(o->buf))
		outgoing_send(o);
	gate_reply_encode(&a->r, o->buf + o->n);
	o->n += GATE_REPLY_BYTES;
	count(c, a->r.status == GATE_OK ? a->r.op : 0, GATE_REPLY_BYTES);
	if (a->r.status < GATE_STATUSES)
		c->stats.answers[a->r.status]++;
	if (a->last)
		k->outstanding--;
	if (a->kind == GATE_IPC_LIST || a->kind == GATE_IPC_NEXT) {
		if (a->r.status != GATE_OK) {
			k->list = LIST_NONE;
			c->listing[k->tenant] = 0;
		} else if (a->last) {
			k->list = LIST_MORE;
		}
	}
	if (a->r.status == GATE_BAD_SEQUENCE) {
		outgoing_send(o);
		peer_close(k->peer);
	}
}

/* One datagram of the writer. \return 0, 1 when there is none, or negative errno. */
static int take(struct gate_control *c)
{
	struct gate_ipc_reply a[GATE_IPC_BATCH];
	struct outgoing o = {.k = NULL};
	struct iovec iov = {.iov_base = a, .iov_len = sizeof(a)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recvmsg(c->writer, &m, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return n == 0 || errno == ECONNRESET ? -EPIPE : -errno;
	if ((m.msg_flags & MSG_TRUNC) != 0 || (size_t)n % sizeof(a[0]) != 0)
		return -EPROTO;
	for (size_t i = 0; i < (size_t)n / sizeof(a[0]); i++) {
		if (a[i].last) {
			if (c->outstanding == 0)
				return -EPROTO;
			c->outstanding--;
		}
		if (a[i].token == GATE_TOKEN_OPERATOR)
			gate_operator_answer(c->local, &a[i]);
		else
			conn_answer(c, &o, &a[i]);
	}
	outgoing_send(&o);
	return 0;
}

static void on_writer(uv_poll_t *p, int status, int events)
{
	struct gate_control *c = p->data;
	int rc = status < 0 ? -EPIPE : 0;

	(void)events;
	while (rc == 0)
		rc = take(c);
	if (rc < 0)
		fail(c, rc);
	else
		pump(c);
}

static void conn_up(struct peer_conn *peer, unsigned pin, void *arg)
{
	struct gate_control *c = arg;
	struct conn *k, **end, *oldest = NULL;
	char where[WN_ADDR_STR];
	unsigned n = 0;

	k = calloc(1, sizeof(*k));
	if (k == NULL || c->stopping) {
		free(k);
		peer_close(peer);
		return;
	}
	k->peer = peer;
	k->token = ++c->next_token;
	k->tenant = pin;
	k->last_ms = wn_now_ms();
	for (end = &c->conns; *end != NULL; end = &(*end)->next) {
		if ((*end)->tenant == pin && !(*end)->ending) {
			oldest = oldest != NULL ? oldest : *end;
			n++;
		}
	}
	*end = k;
	peer_set_user(peer, k);
	c->stats.agents[pin]++;
	wn_info("agent of %s connected from %s", c->cfg->tenant[pin].name, wn_addr_str(peer_remote(peer), where));
	/* An agent that lost its link without a word comes back before its old connection has been given up. */
	if (n >= GATE_AGENTS_PER_TENANT) {
		oldest->ending = true;
		peer_close(oldest->peer);
	}
}

static void conn_data(struct peer_conn *peer, const uint8_t *p, size_t n, void *arg)
{
	struct gate_control *c = arg;
	struct conn *k = peer_user(peer);

	if (k == NULL || k->ending)
		return;
	memmove(k->in, k->in + k->from, waiting(k));
	k->to -= k->from;
	k->from = 0;
	if (n > sizeof(k->in) - k->to) {
		k->ending = true;
		peer_close(peer);
		return;
	}
	memcpy(k->in + k->to, p, n);
	k->to += n;
	pump(c);
}

static void log_refused(struct gate_control *c, const struct peer_conn *peer)
{
	uint64_t now_ms = wn_now_ms();
	char where[WN_ADDR_STR];

	c->stats.refused++;
	if (now_ms - c->refused_log_ms < REFUSED_LOG_MS)
		return;
	wn_warn("%s is no tenant's agent: its key has none of the pins of the file (%llu such since the last line)",
		wn_ip_str(peer_remote(peer), where), (unsigned long long)(c->stats.refused - c->refused_logged));
	c->refused_log_ms = now_ms;
	c->refused_logged = c->stats.refused;
}

static void conn_down(struct peer_conn *peer, int reason, void *arg)
{
	struct gate_control *c = arg;
	struct conn *k = peer_user(peer), **at = &c->conns;

	if (k == NULL) {
		if (reason == -EACCES)
			log_refused(c, peer);
		return;
	}
	while (*at != k)
		at = &(*at)->next;
	*at = k->next;
	if (c->listing[k->tenant] == k->token)
		c->listing[k->tenant] = 0;
	c->stats.agents[k->tenant]--;
	wn_info("agent of %s disconnected: %s", c->cfg->tenant[k->tenant].name,
		reason == 0 || reason == -ECANCELED ? "closed" : strerror(-reason));
	sodium_memzero(k->in, sizeof(k->in));
	free(k);
	pump(c);
}

static const struct peer_events events = {conn_up, conn_data, conn_down};

static void on_housekeep(uv_timer_t *t)
{
	struct gate_control *c = t->data;
	uint64_t now_ms = wn_now_ms();

	for (struct conn *k = c->conns; k != NULL; k = k->next) {
		if (now_ms - k->last_ms <= GATE_IDLE_MS || k->outstanding > 0)
			continue;
		k->ending = true;
		peer_close(k->peer);
	}
}

static int listen_for_agents(struct gate_control *c, uv_loop_t *loop, const struct peer_identity *id)
{
	struct peer_pin pins[GATE_TENANTS_MAX];
	struct peer_options opt = {.pins = pins, .npins = c->cfg->ntenant, .send_queue_max = SEND_MAX};
	char where[WN_ADDR_STR];
	int rc;

	for (unsigned i = 0; i < c->cfg->ntenant; i++)
		pins[i] = c->cfg->tenant[i].agent;
	/* Twice what may stay, for those that are just being ended. */
	opt.max_connections = c->cfg->ntenant * GATE_AGENTS_PER_TENANT * 2;
	rc = peer_listen(loop, id, &c->cfg->control, &opt, &events, c, &c->listener);
	if (rc < 0)
		wn_err("cannot listen on %s (control): %s; it must be an address of this host's inside that nobody else listens on",
		       wn_addr_str(&c->cfg->control, where), strerror(-rc));
	return rc;
}

int gate_control_start(uv_loop_t *loop, const struct gate_config *cfg, const struct peer_identity *id, int writer,
		       void (*ended)(int reason, void *arg), void *arg, struct gate_control **out)
{
	struct gate_control *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (c == NULL)
		return -ENOMEM;
	c->cfg = cfg;
	c->writer = writer;
	c->ended = ended;
	c->arg = arg;
	rc = uv_poll_init(loop, &c->poll, writer);
	if (rc < 0) {
		free(c);
		return rc;
	}
	uv_timer_init(loop, &c->drain);
	uv_timer_init(loop, &c->housekeep);
	c->poll.data = c->drain.data = c->housekeep.data = c;
	rc = listen_for_agents(c, loop, id);
	if (rc == 0)
		rc = gate_operator_start(loop, c, cfg, &c->local);
	if (rc == 0)
		rc = uv_timer_start(&c->housekeep, on_housekeep, HOUSEKEEP_MS, HOUSEKEEP_MS);
	if (rc == 0)
		rc = uv_poll_start(&c->poll, UV_READABLE, on_writer);
	if (rc == 0) {
		c->events = UV_READABLE;
		*out = c;
		return 0;
	}
	gate_control_stop(c);
	uv_run(loop, UV_RUN_NOWAIT);
	gate_control_free(c);
	return rc;
}

void gate_control_addr(const struct gate_control *c, struct wn_addr *out)
{
	peer_listener_addr(c->listener, out);
}

const struct gate_link_stats *gate_control_stats(const struct gate_control *c)
{
	return &c->stats;
}

void gate_control_kick(struct gate_control *c)
{
	pump(c);
}

void gate_control_stop(struct gate_control *c)
{
	c->stopping = true;
	if (c->listener != NULL)
		peer_listener_close(c->listener);
	for (struct conn *k = c->conns; k != NULL; k = k->next)
		peer_close(k->peer);
	if (c->local != NULL)
		gate_operator_stop(c->local);
	c->local = NULL;
	uv_close((uv_handle_t *)&c->poll, NULL);
	uv_close((uv_handle_t *)&c->drain, NULL);
	uv_close((uv_handle_t *)&c->housekeep, NULL);
}

void gate_control_free(struct gate_control *c)
{
	sodium_memzero(c->batch, sizeof(c->batch));
	free(c);
}
