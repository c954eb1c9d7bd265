/* SPDX-License-Identifier: Apache-2.0 */
/* One tagged packet, injected on every CPU at the same moment, passes once: the window is looked at and moved under one lock, for all CPUs.
 */
#include <linux/bpf.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

#include "dp_fixture.h"

#define RACERS_MAX 16
#define ROUNDS     8000

struct racer {
	pthread_t thread;
	size_t cpu;
	int verdict;
	uint64_t began, ended; /* ns */
};

static struct racer racer[RACERS_MAX];
static unsigned nracers;
static uint8_t frame[FX_FRAME];
static size_t nframe;
static atomic_uint started, finished; /* rounds; racers done with this one */
static atomic_bool over;

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static void pin(size_t cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set) < 0)
		perror("cpu");
}

/* Spins, so that all start within a few hundred nanoseconds; gives way when another holds the CPU that one waits for. */
static void wait_for(const atomic_uint *a, unsigned value)
{
	for (unsigned spins = 0; atomic_load(a) < value && !atomic_load(&over); spins++)
		if (spins > 20000)
			sched_yield();
}

static void inject(struct racer *r)
{
	uint8_t out[FX_FRAME];

	r->began = clock_ns();
	r->verdict = fx_run(GATE_OUTSIDE, frame, nframe, out, NULL);
	r->ended = clock_ns();
	atomic_fetch_add(&finished, 1);
}

static void *race(void *arg)
{
	struct racer *r = arg;

	pin(r->cpu);
	for (unsigned round = 1; round <= ROUNDS && !atomic_load(&over); round++) {
		wait_for(&started, round);
		if (!atomic_load(&over))
			inject(r);
	}
	return NULL;
}

/* Before any thread is pinned. A machine with one CPU has two racers that preempt each other. */
static void find_cpus(void)
{
	cpu_set_t set;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return;
	for (size_t cpu = 0; cpu < CPU_SETSIZE && nracers < RACERS_MAX; cpu++)
		if (CPU_ISSET(cpu, &set))
			racer[nracers++].cpu = cpu;
	if (nracers == 1)
		racer[nracers++].cpu = racer[0].cpu;
}

static void build(const struct gate_request *q, uint16_t port, uint64_t counter)
{
	uint8_t payload[64 + 16];
	const size_t n = fx_seal(q->key, counter, (const uint8_t *)"the same to all of you", 22, payload);
	const struct fx_packet p = {.src = FX_CLIENT, .dst = FX_PUBLIC, .sport = 40000, .dport = port, .payload = payload, .n = n};

	nframe = fx_arriving(GATE_OUTSIDE, &p, frame);
}

/* jump: how far counters are apart. One: the window's newest; many: its words are cleared as it moves. */
static void race_for(uint64_t jump)
{
	const struct gate_request q = fx_open_request(IPPROTO_UDP, 5000, NULL);
	const struct gate_reply said = fx_apply(&q);
	const uint64_t replays = fx_counter("tag_replay");
	struct gate_hole h;
	unsigned twice = 0, never = 0, together = 0;

	assert_int_equal(said.status, GATE_OK);
	atomic_store(&started, 0);
	atomic_store(&finished, 0);
	atomic_store(&over, false);
	for (unsigned i = 1; i < nracers; i++)
		assert_int_equal(pthread_create(&racer[i].thread, NULL, race, &racer[i]), 0);
	pin(racer[0].cpu);
	for (unsigned round = 1; round <= ROUNDS; round++) {
		unsigned passed = 0;
		uint64_t latest_start = 0, earliest_end = UINT64_MAX;

		build(&q, said.public.port, round * jump);
		atomic_store(&finished, 0);
		atomic_store(&started, round);
		inject(&racer[0]);
		wait_for(&finished, nracers);
		for (unsigned i = 0; i < nracers; i++) {
			passed += racer[i].verdict == XDP_REDIRECT;
			if (racer[i].began > latest_start)
				latest_start = racer[i].began;
			if (racer[i].ended < earliest_end)
				earliest_end = racer[i].ended;
		}
		twice += passed > 1;
		never += passed == 0;
		together += latest_start < earliest_end;
	}
	atomic_store(&over, true);
	for (unsigned i = 1; i < nracers; i++)
		pthread_join(racer[i].thread, NULL);
	printf("# %u rounds on %u CPUs, in %u of them all at the same time: %u passed more than once, %u never\n", ROUNDS, nracers,
	       together, twice, never);
	assert_int_equal(twice, 0);
	assert_int_equal(never, 0);
	assert_int_equal(fx_counter("tag_replay") - replays, (uint64_t)ROUNDS * (nracers - 1));
	assert_true(gate_hole_read(fx_dp, GATE_HOLE_INDEX(said.hole), &h));
	assert_int_equal(h.packets_in, ROUNDS);
	assert_int_equal(h.replay.top, ROUNDS * jump);
}

static void one_after_another(void **state)
{
	(void)state;
	race_for(1);
}

static void far_apart(void **state)
{
	(void)state;
	race_for(1031);
}

int main(void)
{
	const struct CMUnitTest tests[] = {FX_TEST(one_after_another), FX_TEST(far_apart)};

	find_cpus();
	return FX_RUN("gate dp race", tests);
}
