/* SPDX-License-Identifier: Apache-2.0 */
#include "front/worker.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"

#define RING_BYTES (1u << 20)
#define TICK_MS    50
#define IN_BYTES   (FRONT_DATAGRAM_MAX + 64)

struct front_worker {
	struct front_worker_options opt;
	struct front_core *core;
	void *io;
	int epoll, wake;
	struct front_ring *inbox, *outbox;
	pthread_t thread;
	bool running;
	atomic_bool stop;
	_Atomic uint64_t unsent;
	bool pushed; /* since the relay was last told */
	unsigned nout;
	struct front_packet in[FRONT_BATCH], out[FRONT_BATCH];
	char *in_mem, *out_mem, *agent_mem;
};

static void flush(struct front_worker *w)
{
	unsigned sent;

	if (w->nout == 0)
		return;
	sent = w->opt.io->send(w->io, w->out, w->nout);
	if (sent < w->nout)
		atomic_fetch_add_explicit(&w->unsent, w->nout - sent, memory_order_relaxed);
	w->nout = 0;
}

static void aim(struct front_worker *w, struct front_action *a)
{
	if (w->nout == FRONT_BATCH)
		flush(w);
	a->net = w->out[w->nout].data;
	a->agent = w->agent_mem;
}

static void carry_out(struct front_worker *w, const struct front_action *a)
{
	if (a->net_n > 0) {
		w->out[w->nout].n = a->net_n;
		w->out[w->nout].addr = a->to;
		w->nout++;
	}
	if (a->agent_n > 0) {
		front_ring_push(w->outbox, a->tenant, span_of(a->agent, a->agent_n));
		w->pushed = true;
	}
}

static void serve(struct front_worker *w, const struct front_packet *p, uint64_t now_ms, uint64_t unix_s)
{
	struct front_action a;

	aim(w, &a);
	front_core_set_room(w->core, front_ring_room(w->outbox, FRONT_OUT_MAX));
	front_core_datagram(w->core, span_of(p->data, p->n), &p->addr, now_ms, unix_s, &a);
	carry_out(w, &a);
}

/* Those who carry a nonce or a token that verifies are served before those who carry none. */
static bool serve_batch(struct front_worker *w)
{
	int n = w->opt.io->recv(w->io, w->in, FRONT_BATCH);
	uint64_t now_ms = wn_now_ms(), unix_s = wn_unix_s(), first = 0;

	if (n < 0)
		wn_warn("receive: %s", strerror(-n));
	if (n <= 0)
		return false;
	for (int i = 0; i < n; i++) {
		const struct front_packet *p = &w->in[i];

		if (front_core_first_class(w->core, span_of(p->data, p->n), &p->addr, now_ms, unix_s)) {
			first |= 1ull << i;
			serve(w, p, now_ms, unix_s);
		}
	}
	for (int i = 0; i < n; i++)
		if ((first & 1ull << i) == 0)
			serve(w, &w->in[i], now_ms, unix_s);
	flush(w);
	return n == (int)FRONT_BATCH;
}

/* True: there is more. */
static bool serve_agents(struct front_worker *w)
{
	uint64_t now_ms = wn_now_ms(), unix_s = wn_unix_s();
	struct front_action a;
	unsigned tenant;
	struct span msg;

	for (unsigned n = 0; n < 2 * FRONT_BATCH && front_ring_peek(w->inbox, &tenant, &msg); n++) {
		aim(w, &a);
		front_core_set_room(w->core, front_ring_room(w->outbox, FRONT_OUT_MAX));
		if (msg.n == 0)
			front_core_agent_gone(w->core, tenant, now_ms);
		else
			front_core_from_agent(w->core, tenant, msg, now_ms, unix_s, &a);
		front_ring_next(w->inbox);
		if (msg.n > 0)
			carry_out(w, &a);
	}
	flush(w);
	return front_ring_peek(w->inbox, &tenant, &msg);
}

static void tick(struct front_worker *w)
{
	uint64_t now_ms = wn_now_ms();
	struct front_action a;

	for (;;) {
		aim(w, &a);
		if (!front_core_tick(w->core, now_ms, &a))
			break;
		carry_out(w, &a);
	}
	flush(w);
}

static void *run(void *arg)
{
	struct front_worker *w = arg;
	struct epoll_event ev[2];
	uint64_t count, next_tick = 0;
	bool more = false;

	while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
		int n = epoll_wait(w->epoll, ev, 2, more ? 0 : TICK_MS);

		for (int i = 0; i < n; i++)
			if (ev[i].data.fd == w->wake)
				(void)!read(w->wake, &count, sizeof(count));
		/* Answers of agents are always served between two batches: a flood cannot starve them. */
		more = serve_agents(w);
		more |= serve_batch(w);
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

static int watch(int epoll, int fd)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd};
	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : -errno;
}

int front_worker_new(const struct front_worker_options *opt, struct front_worker **out)
{
	struct front_worker *w = calloc(1, sizeof(*w));
	int r;

	if (w == NULL)
		return -ENOMEM;
	w->opt = *opt;
	w->epoll = w->wake = -1;
	w->in_mem = malloc((size_t)FRONT_BATCH * IN_BYTES);
	w->out_mem = malloc((size_t)FRONT_BATCH * FRONT_OUT_MAX);
	w->agent_mem = malloc(FRONT_OUT_MAX);
	r = w->in_mem == NULL || w->out_mem == NULL || w->agent_mem == NULL ? -ENOMEM : 0;
	for (unsigned i = 0; r == 0 && i < FRONT_BATCH; i++) {
		w->in[i].data = w->in_mem + (size_t)i * IN_BYTES;
		w->out[i].data = w->out_mem + (size_t)i * FRONT_OUT_MAX;
	}
	if (r == 0)
		r = front_ring_new(RING_BYTES, &w->inbox);
	if (r == 0)
		r = front_ring_new(RING_BYTES, &w->outbox);
	if (r == 0)
		r = front_core_new(opt->shared, opt->index, 0, &w->core);
	if (r == 0)
		r = opt->io->open(&opt->listen, &w->io);
	if (r != 0)
		goto fail;
	w->epoll = epoll_create1(EPOLL_CLOEXEC);
	w->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->epoll < 0 || w->wake < 0) {
		r = -errno;
		goto fail;
	}
	r = watch(w->epoll, w->wake);
	if (r == 0)
		r = watch(w->epoll, opt->io->fd(w->io));
	if (r != 0)
		goto fail;
	*out = w;
	return 0;
fail:
	front_worker_free(w);
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
	if (w->io != NULL)
		w->opt.io->close(w->io);
	if (w->epoll >= 0)
		close(w->epoll);
	if (w->wake >= 0)
		close(w->wake);
	front_core_free(w->core);
	front_ring_free(w->inbox);
	front_ring_free(w->outbox);
	free(w->in_mem);
	free(w->out_mem);
	if (w->agent_mem != NULL)
		explicit_bzero(w->agent_mem, FRONT_OUT_MAX);
	free(w->agent_mem);
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

uint64_t front_worker_unsent(const struct front_worker *w)
{
	return atomic_load_explicit(&w->unsent, memory_order_relaxed);
}
