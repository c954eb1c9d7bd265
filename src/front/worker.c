/* SPDX-License-Identifier: Apache-2.0 */
#include "front/worker.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "front/strangers.h"
#include "front/stream_hop.h"

#define RING_BYTES (1u << 20)
#define TICK_MS    50
/* From so many datagrams a second on a worker that found few waits for more. */
#define MODERATE_PER_S 10000u
#define IN_BYTES       (FRONT_DATAGRAM_MAX + 64)
#define OUT_BYTES      ((size_t)2 * FRONT_BATCH * FRONT_OUT_MAX) /* for what goes out, over all ports: one message behind the other */
#define PORTS_MAX      (FRONT_LISTENERS_MAX + FRONT_HOPS_MAX)
#define WAKE           UINT32_MAX
#define STREAMS        (UINT32_MAX - 1)
#define HOPS           0x10000u /* … plus the hop: its connection */
#define UNTIMED        16u      /* of so many messages that end at the first look, one is timed */

_Static_assert(FRONT_STREAM_TRUSTED_MAX == FRONT_DATAGRAM_MAX, "the core takes what a stream brings");

/* As long as less than this waits in the kernel, in 256ths of what may, a batch of strangers is served behind each that is received: who
 * comes behind them waits a millisecond or two. Beyond it the socket is emptied first, so that nobody is dropped there unseen. */
#define PRESSED 32u
/* In a row from one socket, before agents and timers have their turn. */
#define DRAIN_BATCHES 16u
/* Meanwhile, so that nobody is kept out for good, one stranger is served for so many that came in, and for so many that were served before.
 */
#define STRANGER_PER_RECEIVED 64u
#define STRANGER_PER_FIRST    8u
#define OWED_MAX              (FRONT_BATCH * STRANGER_PER_RECEIVED)

/* An UDP socket: of a listener, or the trunk to a plain next hop. */
struct port {
	void *io;
	uint64_t flow; /* of a listener */
	unsigned hop;  /* 0: a listener */
	bool ready;    /* may have more */
	unsigned nout;
	struct front_packet out[FRONT_BATCH];
};

/* A plain next hop over TCP. */
struct hop {
	struct front_worker *w;
	unsigned hop;
	struct stream_hop *stream; /* NULL: none */
	uint32_t events;
};

struct front_worker {
	struct front_worker_options opt;
	struct hop hop[FRONT_HOPS_MAX + 1];
	unsigned nhops; /* the last that has a stream */
	struct front_core *core;
	struct port *port; /* PORTS_MAX */
	unsigned nports;
	int epoll, wake;
	struct front_ring *inbox, *outbox;
	pthread_t thread;
	_Atomic uint64_t turns;
	_Atomic uint32_t unsettled;
	struct histogram latency[FRONT_OUTCOME_COUNT];
	unsigned untimed; /* messages since one that ended at the first look was timed */
	_Atomic uint64_t unsent;
	size_t out_n;
	struct strangers *strangers;
	uint32_t received; /* datagrams since the last tick */
	uint32_t owed;     /* to strangers, in STRANGER_PER_RECEIVEDths */
	struct front_packet in[FRONT_BATCH];
	char *in_mem, *out_mem;
	struct front_streams *streams;                                        /* NULL: UDP alone */
	uint64_t now_ms, unix_s;                                              /* of the streams' turn */
	uint8_t of_listener[FRONT_LISTENERS_MAX], of_hop[FRONT_HOPS_MAX + 1]; /* 1 + index of the port; 0: none */
	bool running;
	atomic_bool stop;
	bool pushed; /* since the relay was last told */
	bool moderate;
	bool streams_ready;
	char elsewhere[sizeof(struct front_flow) + FRONT_OUT_MAX];
};

static void flush(struct front_worker *w)
{
	unsigned unsent = 0;

	for (unsigned i = 0; w->out_n > 0 && i < w->nports; i++) {
		struct port *p = &w->port[i];

		if (p->nout > 0)
			unsent += p->nout - w->opt.io->send(p->io, p->out, p->nout);
		p->nout = 0;
	}
	if (unsent > 0)
		atomic_fetch_add_explicit(&w->unsent, unsent, memory_order_relaxed);
	w->out_n = 0;
}

/* Two buffers for the next message's consequences. */
static void aim(struct front_worker *w, struct front_action *a)
{
	if (w->out_n + (size_t)2 * FRONT_OUT_MAX > OUT_BYTES)
		flush(w);
	a->net = w->out_mem + w->out_n;
	a->agent = a->net + FRONT_OUT_MAX;
}

static void note_unsent(struct front_worker *w)
{
	atomic_fetch_add_explicit(&w->unsent, 1, memory_order_relaxed);
}

static void put_out(struct front_worker *w, unsigned port, char *data, size_t n, const struct wn_addr *to, uint32_t order)
{
	struct port *p;

	if (port == 0) {
		note_unsent(w);
		return;
	}
	p = &w->port[port - 1];
	p->out[p->nout].data = data;
	p->out[p->nout].n = n;
	p->out[p->nout].order = order;
	if (to != NULL)
		p->out[p->nout].addr = *to;
	p->nout++;
}

/* The listener of a flow, or, for one that another front's token names, any of its family. */
static unsigned port_of(const struct front_worker *w, const struct front_flow *to)
{
	const struct front_shared *sh = w->opt.shared;
	unsigned l = front_flow_listener(to->id);

	if (l >= sh->nlisteners || sh->listener[l].transport != FRONT_UDP || wn_addr_is4(&sh->listener[l].addr) != wn_addr_is4(&to->addr))
		for (l = 0; l < sh->nlisteners; l++)
			if (sh->listener[l].transport == FRONT_UDP && wn_addr_is4(&sh->listener[l].addr) == wn_addr_is4(&to->addr))
				break;
	return l < sh->nlisteners ? w->of_listener[l] : 0;
}

/* Over the connection that it belongs to; another worker's is reached through the relay. */
static void to_stream(struct front_worker *w, const struct front_flow *to, struct span msg, uint64_t now_ms)
{
	const unsigned owner = front_flow_worker(to->id);

	if (owner == w->opt.index) {
		if (w->streams == NULL || front_streams_send(w->streams, to, msg, now_ms) != 0)
			note_unsent(w);
		return;
	}
	memcpy(w->elsewhere, to, sizeof(*to));
	memcpy(w->elsewhere + sizeof(*to), msg.p, msg.n);
	if (!front_ring_push(w->outbox, FRONT_RING_FLOW + owner, span_of(w->elsewhere, sizeof(*to) + msg.n)))
		note_unsent(w);
	w->pushed = true;
}

static void carry_out(struct front_worker *w, const struct front_action *a, uint64_t now_ms)
{
	size_t kept = 0;
	bool full = false;

	if (a->net_n > 0 && front_flow_is_stream(a->to.id)) {
		to_stream(w, &a->to, span_of(a->net, a->net_n), now_ms);
	} else if (a->net_n > 0) {
		unsigned port = port_of(w, &a->to);

		put_out(w, port, a->net, a->net_n, &a->to.addr, a->order);
		kept = port != 0 ? a->net_n : 0;
		full = port != 0 && w->port[port - 1].nout == FRONT_BATCH;
	}
	if (a->agent_n > 0 && a->hop == FRONT_HOP_AGENT) {
		front_ring_push(w->outbox, a->tenant, span_of(a->agent, a->agent_n));
		w->pushed = true;
	} else if (a->agent_n > 0 && w->hop[a->hop].stream != NULL) {
		if (!stream_hop_send(w->hop[a->hop].stream, span_of(a->agent, a->agent_n), now_ms))
			note_unsent(w);
	} else if (a->agent_n > 0) {
		unsigned port = w->of_hop[a->hop];

		put_out(w, port, a->agent, a->agent_n, NULL, a->order);
		if (port != 0)
			kept = (size_t)(a->agent - a->net) + a->agent_n;
		full |= port != 0 && w->port[port - 1].nout == FRONT_BATCH;
	}
	if (kept > 0)
		w->out_n += (kept + 63) & ~(size_t)63;
	if (full)
		flush(w);
}

/* since_ns: when the message was taken from its socket or ring. */
static void decided(struct front_worker *w, const struct front_action *a, uint64_t since_ns, uint64_t now_ms)
{
	histogram_add(&w->latency[a->outcome], wn_now_ns() - since_ns);
	carry_out(w, a, now_ms);
}

static void serve_hop(struct front_worker *w, const struct port *port, const struct front_packet *p, uint64_t unix_s)
{
	struct front_action a;

	aim(w, &a);
	front_core_from_hop(w->core, port->hop, span_of(p->data, p->n), p->since_ns / 1000000u, unix_s, &a);
	decided(w, &a, p->since_ns, p->since_ns / 1000000u);
}

/* look: NULL for a stranger. */
static void serve(struct front_worker *w, const struct port *port, const struct front_packet *p, const struct front_look *look,
		  uint64_t now_ms, uint64_t unix_s)
{
	const struct front_flow from = {p->addr, port->flow};
	struct front_action a;

	aim(w, &a);
	front_core_set_room(w->core, front_ring_room(w->outbox, FRONT_OUT_MAX));
	front_core_message(w->core, span_of(p->data, p->n), &from, now_ms, unix_s, &a);
	decided(w, &a, p->since_ns, now_ms);
	if (look != NULL)
		front_core_looked(w->core, look, &a, now_ms);
}

/* A whole message of a connection. A stranger's turn has come: who is trusted was served before. */
static void on_stream(void *arg, const struct front_flow *from, struct span msg)
{
	struct front_worker *w = arg;
	const uint64_t since_ns = wn_now_ns();
	struct front_look look;
	struct front_action a;

	aim(w, &a);
	if (front_core_look(w->core, msg, from, w->now_ms, w->unix_s, &look, &a) != FRONT_CLASS_DONE) {
		front_core_set_room(w->core, front_ring_room(w->outbox, FRONT_OUT_MAX));
		front_core_message(w->core, msg, from, w->now_ms, w->unix_s, &a);
		if (a.trusted)
			front_streams_trust(w->streams, from->id, w->now_ms);
		if (look.class == FRONT_CLASS_FIRST)
			front_core_looked(w->core, &look, &a, w->now_ms);
	}
	decided(w, &a, since_ns, w->now_ms);
}

static void on_hop(void *arg, struct span msg)
{
	struct hop *h = arg;
	struct front_worker *w = h->w;
	const uint64_t since_ns = wn_now_ns();
	struct front_action a;

	aim(w, &a);
	front_core_from_hop(w->core, h->hop, msg, w->now_ms, w->unix_s, &a);
	decided(w, &a, since_ns, w->now_ms);
}

/* What our Via says is where the hop can connect to, if we listen on TCP. */
static void on_hop_state(void *arg, const struct wn_addr *own)
{
	struct hop *h = arg;
	const struct front_shared *sh = h->w->opt.shared;
	const struct front_listener *l = &sh->listener[sh->hop[h->hop].listener];

	if (own == NULL)
		front_core_hop_gone(h->w->core, h->hop, h->w->now_ms);
	else
		front_core_set_trunk(h->w->core, h->hop, l->transport == FRONT_TCP ? &l->addr : own);
}

static void read_clocks(struct front_worker *w)
{
	w->now_ms = wn_now_ms();
	w->unix_s = wn_unix_s();
}

static void serve_hops(struct front_worker *w, bool due)
{
	for (unsigned i = 1; i <= w->nhops; i++) {
		struct hop *h = &w->hop[i];

		if (h->stream == NULL || (h->events == 0 && !due))
			continue;
		read_clocks(w);
		if (h->events != 0)
			stream_hop_event(h->stream, h->events, w->now_ms);
		if (due)
			stream_hop_tick(h->stream, w->now_ms);
		h->events = 0;
	}
	flush(w);
}

/* Those who carry a nonce or a token that verifies are served at once, the others wait. */
static void sort(struct front_worker *w, unsigned port, struct front_packet *p, uint64_t now_ms, uint64_t unix_s)
{
	const struct front_flow from = {p->addr, w->port[port].flow};
	struct front_look look;
	struct front_action a;

	aim(w, &a);
	switch (front_core_look(w->core, span_of(p->data, p->n), &from, now_ms, unix_s, &look, &a)) {
	case FRONT_CLASS_DONE:
		/* what is cheapest must stay so: reading the clock is the larger part of timing it */
		if (w->untimed++ % UNTIMED == 0)
			decided(w, &a, p->since_ns, now_ms);
		else
			carry_out(w, &a, now_ms);
		break;
	case FRONT_CLASS_FIRST:
		serve(w, &w->port[port], p, &look, now_ms, unix_s);
		w->owed += STRANGER_PER_RECEIVED / STRANGER_PER_FIRST;
		break;
	case FRONT_CLASS_STRANGER:
		if (!strangers_put(w->strangers, p, port, look.share))
			front_core_no_room(w->core);
		break;
	}
}

static void receive(struct front_worker *w, unsigned port)
{
	struct port *from = &w->port[port];
	int n = w->opt.io->recv(from->io, w->in, FRONT_BATCH);
	const uint64_t now_ns = wn_now_ns(), unix_s = wn_unix_s();

	from->ready = n == (int)FRONT_BATCH;
	if (n < 0)
		wn_warn("receive: %s", strerror(-n));
	for (int i = 0; i < n; i++) {
		w->in[i].since_ns = now_ns;
		if (from->hop != FRONT_HOP_AGENT)
			serve_hop(w, from, &w->in[i], unix_s);
		else
			sort(w, port, &w->in[i], now_ns / 1000000u, unix_s);
	}
	if (n > 0)
		w->received += (unsigned)n;
	if (n > 0 && from->hop == FRONT_HOP_AGENT)
		w->owed += (unsigned)n;
	flush(w);
}

/* True: there is more. Agents and hops come first: a flood cannot starve them. *pressed: so much that strangers have to wait; *hops: there
 * is more of hops. */
static bool serve_ports(struct front_worker *w, bool *pressed, bool *hops)
{
	bool more = false;

	*pressed = false;
	/* trunks have the highest numbers */
	for (unsigned i = w->nports; i-- > 0;) {
		struct port *p = &w->port[i];
		bool full = true;

		for (unsigned n = 0; n < DRAIN_BATCHES && p->ready && full; n++) {
			receive(w, i);
			full = p->ready && w->opt.io->waiting(p->io) >= PRESSED;
		}
		more |= p->ready;
		*pressed |= p->ready && full && p->hop == FRONT_HOP_AGENT;
		*hops |= p->ready && p->hop != FRONT_HOP_AGENT;
	}
	return more;
}

/* A batch of them, or when there is no time what they are owed. \return whether some could be served at once. */
static bool serve_strangers(struct front_worker *w, bool pressed)
{
	const uint64_t now_ms = wn_now_ms(), unix_s = wn_unix_s();
	const struct front_packet *p;
	unsigned n, most, port;

	if (w->owed > OWED_MAX)
		w->owed = OWED_MAX;
	most = pressed ? w->owed / STRANGER_PER_RECEIVED : FRONT_BATCH;
	for (n = 0; n < most && (p = strangers_take(w->strangers, now_ms, &port)) != NULL; n++)
		serve(w, &w->port[port], p, NULL, now_ms, unix_s);
	w->owed = pressed ? w->owed - n * STRANGER_PER_RECEIVED : 0;
	flush(w);
	return n == most && strangers_count(w->strangers) > 0;
}

/* True: there is more. New connections only when nothing waits that belongs to a call. */
static bool serve_streams(struct front_worker *w, bool calls_wait)
{
	if (w->streams == NULL || !w->streams_ready)
		return false;
	read_clocks(w);
	w->streams_ready = front_streams_serve(w->streams, w->now_ms, !calls_wait);
	flush(w);
	return w->streams_ready;
}

/* True: there is more. */
static bool serve_agents(struct front_worker *w)
{
	uint64_t now_ns = wn_now_ns(), now_ms = now_ns / 1000000u, unix_s = wn_unix_s();
	struct front_action a;
	unsigned tenant;
	struct span msg;

	for (unsigned n = 0; n < 2 * FRONT_BATCH && front_ring_peek(w->inbox, &tenant, &msg); n++) {
		aim(w, &a);
		if (tenant == FRONT_RING_FLOW) {
			struct front_flow to;

			memcpy(&to, msg.p, sizeof(to));
			to_stream(w, &to, span_of(msg.p + sizeof(to), msg.n - sizeof(to)), now_ms);
			front_ring_next(w->inbox);
			continue;
		}
		front_core_set_room(w->core, front_ring_room(w->outbox, FRONT_OUT_MAX));
		if (msg.n == 0)
			front_core_agent_gone(w->core, tenant, now_ms);
		else
			front_core_from_agent(w->core, tenant, msg, now_ms, unix_s, &a);
		front_ring_next(w->inbox);
		if (msg.n > 0)
			decided(w, &a, now_ns, now_ms);
	}
	flush(w);
	return front_ring_peek(w->inbox, &tenant, &msg);
}

/* Under load, but not so much of it that batches form by themselves, a wake-up for each datagram costs as much as its work: a short rest
 * lets them come together, as a network card's interrupt moderation does. Nobody rests while anything waits that has been seen. */
static void rest(const struct front_worker *w)
{
	const struct timespec t = {.tv_nsec = (long)w->opt.batch_wait_us * 1000};

	if (w->moderate)
		clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

static void tick(struct front_worker *w)
{
	uint64_t now_ms = wn_now_ms();
	struct front_action a;

	serve_hops(w, true);
	for (;;) {
		aim(w, &a);
		if (!front_core_tick(w->core, now_ms, &a))
			break;
		carry_out(w, &a, now_ms);
	}
	if (w->streams != NULL)
		front_streams_tick(w->streams, now_ms);
	flush(w);
	w->moderate = w->opt.batch_wait_us > 0 && w->received >= MODERATE_PER_S / (1000u / TICK_MS);
	w->received = 0;
}

static void *run(void *arg)
{
	struct front_worker *w = arg;
	struct epoll_event ev[PORTS_MAX + FRONT_HOPS_MAX + 2];
	uint64_t count, next_tick = 0;
	bool more = false, pressed, calls_wait;
	char name[16];

	snprintf(name, sizeof(name), "front-%u", w->opt.index);
	prctl(PR_SET_NAME, name);
	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		if (!more)
			rest(w);
		/* who waits for strangers_per_s is looked after soon */
		int n = epoll_wait(w->epoll, ev, PORTS_MAX + FRONT_HOPS_MAX + 2,
				   more                                ? 0
				   : strangers_count(w->strangers) > 0 ? 1
								       : TICK_MS);

		for (int i = 0; i < n; i++) {
			if (ev[i].data.u32 == WAKE)
				(void)!read(w->wake, &count, sizeof(count));
			else if (ev[i].data.u32 == STREAMS)
				w->streams_ready = true;
			else if (ev[i].data.u32 >= HOPS)
				w->hop[ev[i].data.u32 - HOPS].events = ev[i].events;
			else
				w->port[ev[i].data.u32].ready = true;
		}
		/* Shown to who frees what we may be holding, and to the watchdog: in one order with what we read from here on. */
		atomic_store_explicit(&w->unsettled, front_core_unsettled(w->core), memory_order_relaxed);
		atomic_fetch_add(&w->turns, 1);
		/* Answers of agents are always served between two batches: a flood cannot starve them. */
		calls_wait = more = serve_agents(w);
		serve_hops(w, false);
		more |= serve_ports(w, &pressed, &calls_wait);
		more |= serve_streams(w, calls_wait);
		more |= serve_strangers(w, pressed);
		if (wn_now_ms() >= next_tick) {
			tick(w);
			next_tick = wn_now_ms() + TICK_MS;
		}
		if (w->pushed) {
			w->pushed = false;
			w->opt.notify(w->opt.notify_arg);
		}
	}
	return NULL;
}

static int watch(int epoll, int fd, uint32_t what)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u32 = what};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

/* hop 0: one of several ends of the listener. */
static int open_port(struct front_worker *w, unsigned listener, unsigned hop)
{
	const struct front_shared *sh = w->opt.shared;
	struct port *p = &w->port[w->nports];
	struct wn_addr own;
	const struct front_io_where where = {.addr = &sh->listener[listener].addr,
					     .peer = hop != FRONT_HOP_AGENT ? &sh->hop[hop].addr : NULL,
					     .steer = hop != FRONT_HOP_AGENT ? NULL : sh->listener[listener].steer,
					     .worker = w->opt.index};
	int r = w->opt.io->open(&where, &p->io);

	if (r != 0)
		return r;
	p->hop = hop;
	p->flow = front_flow_id(FRONT_UDP, listener, 0, 0, 0);
	w->nports++;
	if (hop == FRONT_HOP_AGENT) {
		w->of_listener[listener] = (uint8_t)w->nports;
	} else {
		w->of_hop[hop] = (uint8_t)w->nports;
		w->opt.io->own(p->io, &own);
		front_core_set_trunk(w->core, hop, &own);
	}
	return watch(w->epoll, w->opt.io->fd(p->io), w->nports - 1);
}

static int open_ports(struct front_worker *w)
{
	const struct front_shared *sh = w->opt.shared;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < sh->nlisteners; i++)
		if (sh->listener[i].transport == FRONT_UDP)
			r = open_port(w, i, FRONT_HOP_AGENT);
	for (unsigned i = 1; r == 0 && i <= atomic_load_explicit(&sh->nhops, memory_order_acquire); i++)
		if (sh->hop[i].transport == FRONT_UDP)
			r = open_port(w, sh->hop[i].listener, i);
	return r;
}

static int open_hops(struct front_worker *w)
{
	const struct front_shared *sh = w->opt.shared;
	int r = 0;

	for (unsigned i = 1; r == 0 && i <= atomic_load_explicit(&sh->nhops, memory_order_acquire); i++) {
		const struct stream_hop_options opt = {.from = sh->listener[sh->hop[i].listener].addr,
						       .to = sh->hop[i].addr,
						       .epoll = w->epoll,
						       .tag = HOPS + i,
						       .state = on_hop_state,
						       .message = on_hop,
						       .arg = &w->hop[i]};

		w->hop[i].w = w;
		w->hop[i].hop = i;
		if (sh->hop[i].transport != FRONT_TCP)
			continue;
		r = stream_hop_new(&opt, &w->hop[i].stream);
		w->nhops = i;
	}
	return r;
}

static int open_streams(struct front_worker *w)
{
	const struct front_shared *sh = w->opt.shared;
	const struct front_streams_options opt = {.worker = w->opt.index,
						  .limits = w->opt.streams,
						  .tls = w->opt.tls,
						  .backlog = w->opt.backlog,
						  .message = on_stream,
						  .arg = w};
	int r = 0;

	for (unsigned i = 0; r == 0 && i < sh->nlisteners; i++) {
		const struct front_listener *l = &sh->listener[i];

		if (l->transport == FRONT_UDP)
			continue;
		if (w->streams == NULL && (r = front_streams_new(&opt, &w->streams)) == 0)
			r = watch(w->epoll, front_streams_fd(w->streams), STREAMS);
		if (r == 0)
			r = front_streams_listen(w->streams, l->transport, i, &l->addr);
		if (r != 0)
			wn_err("%s:%s: %s", front_transport_name(l->transport), l->host, strerror(-r));
	}
	return r;
}

int front_worker_new(const struct front_worker_options *opt, struct front_worker **out)
{
	struct front_worker *w = calloc(1, sizeof(*w));
	int r;

	if (w == NULL)
		return -ENOMEM;
	w->opt = *opt;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	r = w->epoll < 0 || w->wake < 0 ? -errno : 0;
	memset(w->latency, 0, sizeof(w->latency)); /* touched now: a flood makes the process no larger */
	w->port = calloc(PORTS_MAX, sizeof(*w->port));
	w->in_mem = malloc((size_t)FRONT_BATCH * IN_BYTES);
	w->out_mem = malloc(OUT_BYTES);
	if (w->port == NULL || w->in_mem == NULL || w->out_mem == NULL)
		r = -ENOMEM;
	for (unsigned i = 0; r == 0 && i < FRONT_BATCH; i++)
		w->in[i].data = w->in_mem + (size_t)i * IN_BYTES;
	if (r == 0)
		r = strangers_new(opt->strangers_max, opt->strangers_per_s, opt->shared->ntenants + 1, IN_BYTES, &w->strangers);
	if (r == 0)
		r = front_ring_new(RING_BYTES, &w->inbox);
	if (r == 0)
		r = front_ring_new(RING_BYTES, &w->outbox);
	if (r == 0)
		r = front_core_new(opt->shared, opt->index, 0, &w->core);
	if (r == 0)
		r = open_ports(w);
	if (r == 0)
		r = open_streams(w);
	if (r == 0)
		r = open_hops(w);
	if (r == 0)
		r = watch(w->epoll, w->wake, WAKE);
	if (r != 0)
		front_worker_free(w);
	else
		*out = w;
	return r;
}

/* Pinning keeps a worker's caches; without permission it runs anywhere. */
static void pin(pthread_attr_t *attr, unsigned index)
{
	cpu_set_t may, one;
	int count, nth;

	if (sched_getaffinity(0, sizeof(may), &may) != 0 || (count = CPU_COUNT(&may)) == 0)
		return;
	nth = (int)index % count;
	for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &may) || nth-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		pthread_attr_setaffinity_np(attr, sizeof(one), &one);
		return;
	}
}

int front_worker_start(struct front_worker *w)
{
	pthread_attr_t attr;
	int r;

	pthread_attr_init(&attr);
	pin(&attr, w->opt.index);
	r = pthread_create(&w->thread, &attr, run, w);
	pthread_attr_destroy(&attr);
	w->running = r == 0;
	return -r;
}

void front_worker_free(struct front_worker *w)
{
	const uint64_t one = 1;

	if (w == NULL)
		return;
	if (w->running) {
		atomic_store(&w->stop, true);
		(void)!write(w->wake, &one, sizeof(one));
		pthread_join(w->thread, NULL);
	}
	front_streams_free(w->streams);
	for (unsigned i = 1; i <= FRONT_HOPS_MAX; i++)
		stream_hop_free(w->hop[i].stream);
	for (unsigned i = 0; i < w->nports; i++)
		w->opt.io->close(w->port[i].io);
	free(w->port);
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->wake >= 0)
		close(w->wake);
	front_core_free(w->core);
	strangers_free(w->strangers);
	front_ring_free(w->inbox);
	front_ring_free(w->outbox);
	free(w->in_mem);
	if (w->out_mem != NULL)
		explicit_bzero(w->out_mem, OUT_BYTES); /* session keys went through it */
	free(w->out_mem);
	free(w);
}

bool front_worker_push(struct front_worker *w, unsigned tenant, struct span msg)
{
	const uint64_t one = 1;
	bool ok = front_ring_push(w->inbox, tenant, msg);

	(void)!write(w->wake, &one, sizeof(one));
	return ok;
}

struct front_ring *front_worker_outbox(struct front_worker *w)
{
	return w->outbox;
}

uint64_t front_worker_count(const struct front_worker *w, enum front_outcome o)
{
	return front_core_count(w->core, o);
}

void front_worker_latency(const struct front_worker *w, enum front_outcome o, struct histogram_sum *to)
{
	histogram_merge(to, &w->latency[o]);
}

const struct front_core *front_worker_core(const struct front_worker *w)
{
	return w->core;
}

uint32_t front_worker_unsettled(const struct front_worker *w)
{
	return atomic_load_explicit(&w->unsettled, memory_order_relaxed);
}

void front_worker_wake(struct front_worker *w)
{
	const uint64_t one = 1;

	(void)!write(w->wake, &one, sizeof(one));
}

uint64_t front_worker_turns(const struct front_worker *w)
{
	return atomic_load(&w->turns);
}

uint64_t front_worker_unsent(const struct front_worker *w)
{
	return atomic_load_explicit(&w->unsent, memory_order_relaxed);
}

const struct front_streams *front_worker_streams(const struct front_worker *w)
{
	return w->streams;
}
