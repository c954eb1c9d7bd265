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

/* A worker over a packet backend that is made of memory: what comes in is one batch, what goes out is kept in order. */

#define STRANGERS 10

static struct {
	int fd, sent_fd, notify_fd;
	pthread_mutex_t lock;
	struct front_packet in[FRONT_BATCH];
	unsigned nin;
	char in_mem[FRONT_BATCH][4096];
	char out_mem[FRONT_BATCH][4096];
	struct front_packet out[FRONT_BATCH];
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

static int mem_open(const struct wn_addr *addr, const struct wn_addr *peer, void **out)
{
	(void)addr;
	(void)peer;
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
	assert_true(io.nin <= n);
	for (got = 0; got < io.nin; got++) {
		memcpy(p[got].data, io.in[got].data, io.in[got].n);
		p[got].n = io.in[got].n;
		p[got].addr = io.in[got].addr;
	}
	io.nin = 0;
	pthread_mutex_unlock(&io.lock);
	return (int)got;
}

static unsigned mem_send(void *x, const struct front_packet *p, unsigned n)
{
	(void)x;
	pthread_mutex_lock(&io.lock);
	for (unsigned i = 0; i < n && io.nout < FRONT_BATCH; i++, io.nout++) {
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

static const struct front_io_ops mem = {mem_open, mem_own, mem_fd, mem_recv, mem_send, mem_close};

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

static void test_good_nonce_first(void **state)
{
	struct front_worker_options opt = {&w.sh, &mem, 2, notify, NULL};
	struct wn_addr src = addr_of("198.18.4.2:40112");
	struct call c = {0}, stranger = {.call_id = "stranger"};
	struct front_worker *worker;
	char from[32], answer[4096];
	unsigned tenant;
	struct span msg;
	size_t n;

	(void)state;
	world_new(&w, NULL);
	w.sh.feed_max_age_s = UINT32_MAX; /* a worker reads the real clock */
	w.now_ms = wn_now_ms();
	w.unix_s = wn_unix_s();
	io.fd = eventfd(0, EFD_NONBLOCK);
	io.sent_fd = eventfd(0, 0);
	io.notify_fd = eventfd(0, 0);
	pthread_mutex_init(&io.lock, NULL);
	world_answer_challenge(&w, &c, &alice, &src);
	for (unsigned i = 0; i < STRANGERS; i++) {
		snprintf(from, sizeof(from), "198.18.5.%u:5060", i + 1);
		queue(&stranger, from);
	}
	queue(&c, "198.18.4.2:40112");

	assert_int_equal(front_worker_new(&opt, &worker), 0);
	assert_int_equal(front_worker_start(worker), 0);
	ring_bell(io.fd);
	hear_bell(io.notify_fd);
	hear_bell(io.sent_fd);
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

	front_worker_free(worker);
	world_free(&w);
	close(io.fd);
	close(io.sent_fd);
	close(io.notify_fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_good_nonce_first)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
