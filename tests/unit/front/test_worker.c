/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "front/worker.h"
#include "world.h"

/* A worker over a packet backend that is made of memory: what comes in is there before the worker starts, what goes out is kept in order.
 */

#define STRANGERS 10
#define KEPT      (3 * FRONT_BATCH)

static struct {
	int fd, sent_fd, notify_fd;
	pthread_mutex_t lock;
	struct front_packet in[KEPT];
	unsigned nin, taken;
	bool endless; /* the first one again and again */
	unsigned waiting;
	char in_mem[KEPT][4096];
	char out_mem[KEPT][4096];
	struct front_packet out[KEPT];
	unsigned nout;
} io;

static struct world w;

static void ring_bell(int fd)
{
	const uint64_t one = 1;
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

static void hear_bell(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	uint64_t n;

	assert_int_equal(poll(&p, 1, 8000), 1);
	assert_int_equal(read(fd, &n, sizeof(n)), sizeof(n));
}

static int mem_open(const struct front_io_where *where, void **out)
{
	(void)where;
	*out = &io;
	return 0;
}

static void mem_own(void *x, struct wn_addr *addr)
{
	(void)x;
	*addr = addr_of("198.18.1.2:40000");
}

static int mem_fd(void *x)
{
	(void)x;
	return io.fd;
}

static int mem_recv(void *x, struct front_packet *p, unsigned n)
{
	unsigned got;
	uint64_t count;

	(void)x;
	pthread_mutex_lock(&io.lock);
	(void)!read(io.fd, &count, sizeof(count));
	for (got = 0; got < n && (io.endless || io.taken < io.nin); got++) {
		const struct front_packet *from = &io.in[io.endless ? 0 : io.taken++];

		memcpy(p[got].data, from->data, from->n);
		p[got].n = from->n;
		p[got].addr = from->addr;
	}
	pthread_mutex_unlock(&io.lock);
	return (int)got;
}

static unsigned mem_waiting(void *x)
{
	(void)x;
	return io.waiting;
}

static unsigned mem_send(void *x, const struct front_packet *p, unsigned n)
{
	(void)x;
	pthread_mutex_lock(&io.lock);
	for (unsigned i = 0; i < n && io.nout < KEPT; i++, io.nout++) {
		io.out[io.nout] = p[i];
		io.out[io.nout].data = io.out_mem[io.nout];
		memcpy(io.out_mem[io.nout], p[i].data, p[i].n);
	}
	pthread_mutex_unlock(&io.lock);
	ring_bell(io.sent_fd);
	return n;
}

static void mem_close(void *x)
{
	(void)x;
}

static const struct front_io_ops mem = {mem_open, mem_own, mem_fd, mem_recv, mem_waiting, mem_send, mem_close};

static void notify(void *arg)
{
	(void)arg;
	ring_bell(io.notify_fd);
}

static void queue(const struct call *c, const char *from)
{
	struct front_packet *p = &io.in[io.nin];

	p->data = io.in_mem[io.nin];
	p->n = call_write(c, p->data, sizeof(io.in_mem[0]));
	p->addr = addr_of(from);
	io.nin++;
}

static const struct front_worker_options opt = {.shared = &w.sh, .io = &mem, .index = 2, .notify = notify, .strangers_max = 512};
static struct front_worker *worker;

static int setup(void **state)
{
	(void)state;
	world_new(&w, NULL);
	w.sh.feed_max_age_s = UINT32_MAX; /* a worker reads the real clock */
	w.now_ms = wn_now_ms();
	w.unix_s = wn_unix_s();
	memset(&io, 0, sizeof(io));
	io.waiting = 256;
	io.fd = eventfd(0, EFD_NONBLOCK);
	io.sent_fd = eventfd(0, 0);
	io.notify_fd = eventfd(0, 0);
	pthread_mutex_init(&io.lock, NULL);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	front_worker_free(worker);
	world_free(&w);
	close(io.fd);
	close(io.sent_fd);
	close(io.notify_fd);
	return 0;
}

static void start(const struct front_worker_options *o)
{
	assert_int_equal(front_worker_new(o, &worker), 0);
	assert_int_equal(front_worker_start(worker), 0);
	ring_bell(io.fd);
}

/* Until so many have been sent. */
static void await_sent(unsigned n)
{
	for (unsigned sent = 0; sent < n;) {
		hear_bell(io.sent_fd);
		pthread_mutex_lock(&io.lock);
		sent = io.nout;
		pthread_mutex_unlock(&io.lock);
	}
}

static void queue_strangers(unsigned n)
{
	struct call stranger = {.call_id = "stranger"};
	char from[32];

	for (unsigned i = 0; i < n; i++) {
		snprintf(from, sizeof(from), "198.18.5.%u:5060", i % 200 + 1);
		queue(&stranger, from);
	}
}

static void test_good_nonce_first(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};
	char answer[4096];
	unsigned tenant;
	struct span msg;
	size_t n;

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	queue_strangers(STRANGERS);
	queue(&c, "198.18.4.2:40112");

	start(&opt);
	hear_bell(io.notify_fd);
	await_sent(STRANGERS + 1);
	pthread_mutex_lock(&io.lock);
	assert_int_equal(io.nout, STRANGERS + 1);
	assert_memory_equal(io.out[0].data, "SIP/2.0 100 ", 12);
	assert_true(wn_addr_eq(&io.out[0].addr, &src));
	for (unsigned i = 1; i <= STRANGERS; i++)
		assert_memory_equal(io.out[i].data, "SIP/2.0 407 ", 12);
	io.nout = 0;
	pthread_mutex_unlock(&io.lock);
	assert_int_equal(front_worker_count(worker, FRONT_challenged), STRANGERS);
	assert_int_equal(front_worker_count(worker, FRONT_forwarded), 1);

	/* the way to the agent and back */
	assert_true(front_ring_peek(front_worker_outbox(worker), &tenant, &msg));
	assert_int_equal(tenant, 0);
	memcpy(w.invite, msg.p, msg.n);
	w.invite_n = msg.n;
	front_ring_next(front_worker_outbox(worker));
	n = agent_answer(&w, 200, "OK", answer, sizeof(answer));
	assert_true(front_worker_push(worker, 0, span_of(answer, n)));
	hear_bell(io.sent_fd);
	pthread_mutex_lock(&io.lock);
	assert_int_equal(io.nout, 1);
	assert_memory_equal(io.out[0].data, "SIP/2.0 200 ", 12);
	assert_true(wn_addr_eq(&io.out[0].addr, &src));
	pthread_mutex_unlock(&io.lock);
	assert_int_equal(front_worker_unsent(worker), 0);
}

/* However many came before it, over more than one batch. */
static void test_good_nonce_before_earlier_batches(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0};

	(void)state;
	world_answer_challenge(&w, &c, &alice, &src);
	queue_strangers(2 * FRONT_BATCH + STRANGERS);
	queue(&c, "198.18.4.2:40112");
	start(&opt);
	await_sent(2 * FRONT_BATCH + STRANGERS + 1);
	pthread_mutex_lock(&io.lock);
	assert_memory_equal(io.out[0].data, "SIP/2.0 100 ", 12);
	assert_memory_equal(io.out[1].data, "SIP/2.0 407 ", 12);
	/* strangers keep the order in which they came */
	for (unsigned i = 1; i < io.nout; i++)
		assert_true(wn_addr_eq(&io.out[i].addr, &io.in[i - 1].addr));
	pthread_mutex_unlock(&io.lock);
}

/* For whom there is no room is dropped and counted; who carries a nonce needs none. */
static void test_strangers_without_room(void **state)
{
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct front_worker_options few = opt;
	struct call c = {0};

	(void)state;
	few.strangers_max = 16;
	world_answer_challenge(&w, &c, &alice, &src);
	queue_strangers(FRONT_BATCH + STRANGERS);
	queue(&c, "198.18.4.2:40112");
	start(&few);
	await_sent(17);
	assert_int_equal(front_worker_count(worker, FRONT_forwarded), 1);
	assert_int_equal(front_worker_count(worker, FRONT_challenged), 16);
	assert_int_equal(front_worker_count(worker, FRONT_stranger_budget), FRONT_BATCH + STRANGERS - 16);
	pthread_mutex_lock(&io.lock);
	assert_memory_equal(io.out[0].data, "SIP/2.0 100 ", 12);
	pthread_mutex_unlock(&io.lock);
}

/* A socket that is never empty: strangers are served all the same. */
static void test_strangers_are_owed(void **state)
{
	(void)state;
	queue_strangers(1);
	io.endless = true;
	start(&opt);
	await_sent(KEPT);
	assert_true(front_worker_count(worker, FRONT_challenged) >= KEPT);
	assert_true(front_worker_count(worker, FRONT_stranger_budget) > front_worker_count(worker, FRONT_challenged));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {T(test_good_nonce_first), T(test_good_nonce_before_earlier_batches),
					   T(test_strangers_without_room), T(test_strangers_are_owed)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
