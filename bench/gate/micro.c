/* SPDX-License-Identifier: Apache-2.0 */
/* gate-micro: the gate's programs run by the kernel over packets that the bench writes, beside programs that do less. In a network and
 * mount namespace of its own, gone with the process. Prints nanoseconds a packet as JSON, a list a series, a number a round; what is
 * subtracted and divided is bench/gate/run's business.
 *
 *   gate-micro [--flows N] [--shift BITS] [--runs N] [--cpu N] [--only miss,nat,tcp,tag,hole]
 *
 * 1 << BITS public addresses share the flows. What is compared is measured in turn within a round, so that noise hits all alike. */
#include <errno.h>
#include <getopt.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include <sodium.h>

#include "base/log.h"
#include "gate/bpf/sample.h"
#include "micro.h"
#include "ticket/tag.h"

#include "bench.skel.h"
#include "gate.skel.h"
#include "untracked.skel.h"

#define ROUNDS_MAX 50
#define HOT        400000
#define COLD       250000
#define LIVE       500000
#define SERIES_MAX 96
#define FRAME_MAX  2048

static const unsigned tag_size[] = {64, 512, 1400};
#define TAG_SIZES (sizeof(tag_size) / sizeof(tag_size[0]))

enum group { MISS = 1, NAT = 2, TCP = 4, TAG = 8, HOLE = 16, ALL = 31 };

struct series {
	const char *name;
	double ns[ROUNDS_MAX];
	unsigned n;
};

static struct series series[SERIES_MAX];
static unsigned nseries, rounds = 7, groups;
static struct gate_dp *dp;
static struct bench *bench;
static struct untracked *untracked;
static uint8_t mac[GATE_SIDES][8];
static uint8_t frame_in[FRAME_MAX], frame_out[FRAME_MAX], frame_udp_in[FRAME_MAX], frame_udp_out[FRAME_MAX],
	frame_tag[TAG_SIZES][FRAME_MAX];
static size_t frame_in_n, frame_out_n, frame_udp_in_n, frame_udp_out_n, frame_tag_n[TAG_SIZES];
static uint64_t hole_tag, hole_tcp;
static uint16_t port_tag, port_tcp;
static const char *current = "pass"; /* what is being measured, for messages */

static void said(const char *name, int is_drop, uint64_t value, void *arg)
{
	(void)arg;
	if (is_drop && value != 0)
		fprintf(stderr, "gate-micro: dropped so far: %s %llu\n", name, (unsigned long long)value);
}

static void record(const char *name, double ns)
{
	unsigned i = 0;

	while (i < nseries && strcmp(series[i].name, name) != 0)
		i++;
	if (i == nseries && nseries++ == SERIES_MAX)
		bench_die("too many series", E2BIG);
	series[i].name = name;
	if (series[i].n < ROUNDS_MAX)
		series[i].ns[series[i].n++] = ns;
}

/* verdict: what the last packet must have come to, so that what is measured is what is meant; -1: anything. */
static double run(int prog, const uint8_t *frame, size_t n, unsigned repeat, bool live, int verdict)
{
	struct xdp_md ctx = {.data_end = (uint32_t)n};
	LIBBPF_OPTS(bpf_test_run_opts, o, .data_in = frame, .data_size_in = (uint32_t)n, .repeat = (int)repeat);

	if (live) {
		o.ctx_in = &ctx;
		o.ctx_size_in = sizeof(ctx);
		o.flags = BPF_F_TEST_XDP_LIVE_FRAMES;
		o.batch_size = 64;
	}
	if (bpf_prog_test_run_opts(prog, &o) < 0)
		bench_die("test run", errno);
	if (!live && verdict >= 0 && (int)o.retval != verdict) {
		fprintf(stderr, "gate-micro: %s: verdict %u where %d was expected\n", current, o.retval, verdict);
		gate_dp_counters(dp, said, NULL);
		exit(1);
	}
	return o.duration;
}

/* Lets the writing program jump to a target, runs it and notes what a packet cost. */
static void measure(const char *name, struct bpf_program *writer, int target, const uint8_t *frame, size_t n, unsigned repeat, bool live,
		    int verdict)
{
	uint32_t zero = 0;

	current = name;
	bench_alive(dp);
	if (bpf_map_update_elem(bpf_map__fd(bench->maps.jump), &zero, &target, BPF_ANY) != 0)
		bench_die("jump", errno);
	record(name, run(bpf_program__fd(writer), frame, n, repeat, live, verdict));
}

static int fd(struct bpf_program *p)
{
	return bpf_program__fd(p);
}

static void share(struct bpf_object *o, const char *name, int from)
{
	struct bpf_map *m = bpf_object__find_map_by_name(o, name);

	if (m == NULL || bpf_map__reuse_fd(m, from) != 0)
		bench_die(name, errno);
}

static void load(uint32_t shift, uint32_t mappings)
{
	static const uint8_t key[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
	struct gate_params *params;
	struct bpf_map *m;

	/* Before the sessions, which may want any TCP port there is. */
	port_tag = bench_hole(dp, key, &hole_tag);
	port_tcp = bench_hole(dp, NULL, &hole_tcp);

	bench = bench__open();
	untracked = untracked__open();
	if (bench == NULL || untracked == NULL)
		bench_die("programs", errno);
	params = (struct gate_params *)&bench->rodata->gate_params;
	memcpy(params, &dp->skel->rodata->gate_params, sizeof(*params));
	memcpy((struct gate_params *)&untracked->rodata->gate_params, params, sizeof(*params));
	bench->rodata->bench_shift = shift;
	bench->rodata->bench_mappings = mappings;
	memcpy((void *)&bench->rodata->bench_key, key, sizeof(key));
	share(bench->obj, "flows", dp->flows_fd);
	share(bench->obj, "devices", bpf_map__fd(dp->skel->maps.devices));
	bpf_object__for_each_map(m, dp->skel->obj)
	{
		/* It has the IPv4 programs alone. */
		if (!bpf_map__is_internal(m) && bpf_object__find_map_by_name(untracked->obj, bpf_map__name(m)) != NULL)
			share(untracked->obj, bpf_map__name(m), bpf_map__fd(m));
	}
	if (bench__load(bench) != 0 || untracked__load(untracked) != 0)
		bench_die("loading programs", errno);
	bench->bss->bench_flows = 1;
	bench->bss->bench_random = 88172645463325252ull;
}

/* What write_hole and write_tag_x write towards. */
static void towards(uint64_t hole, uint16_t port)
{
	bench->bss->bench_hole_ip = dp->grants[GATE_HOLE_INDEX(hole)].public.ip4;
	bench->bss->bench_hole_port = port;
}

static void frames(void)
{
	frame_udp_in_n = bench_frame(frame_udp_in, mac[GATE_OUTSIDE], 1, 1, 2);
	frame_udp_out_n = bench_frame(frame_udp_out, mac[GATE_INSIDE], 0, 1, 2);
	frame_in_n = bench_frame(frame_in, mac[GATE_OUTSIDE], 1, 0, 0);
	frame_out_n = bench_frame(frame_out, mac[GATE_INSIDE], 0, 0, 0);
	for (unsigned i = 0; i < TAG_SIZES; i++)
		frame_tag_n[i] = bench_frame(frame_tag[i], mac[GATE_OUTSIDE], 1, 1, tag_size[i]);
}

/* For measurements that need no writer, and as the empty program that figures are printed beside. */
static void empty(const char *name)
{
	current = name;
	record(name, run(fd(bench->progs.peer_pass), frame_in, frame_in_n, HOT, false, XDP_PASS));
}

static void trailers_for(unsigned size)
{
	static uint8_t buf[FRAME_MAX];
	static uint8_t key[16];
	const uint32_t n = tag_size[size];
	uint8_t *t = mmap(NULL, BENCH_TRAILERS * TAG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(bench->maps.trailers), 0);

	if (t == MAP_FAILED)
		bench_die("trailers", errno);
	memcpy(key, (const void *)&bench->rodata->bench_key, sizeof(key));
	memcpy(buf, frame_tag[size] + 42, n);
	for (uint32_t i = 0; i < BENCH_TRAILERS; i++) {
		tag_seal(buf, n, i + 1, key);
		memcpy(t + (size_t)i * TAG_BYTES, buf + n, TAG_BYTES);
	}
	munmap(t, BENCH_TRAILERS * TAG_BYTES);
}

static void tag_series(unsigned size, const char *none, const char *base, const char *strip, const char *hash, const char *gate)
{
	struct bpf_program *const writer[TAG_SIZES] = {bench->progs.write_tag_64, bench->progs.write_tag_512, bench->progs.write_tag_1400};

	trailers_for(size);
	towards(hole_tag, port_tag);
	for (unsigned r = 0; r < rounds; r++) {
		const struct {
			const char *name;
			int target, verdict;
		} step[] = {{base, fd(bench->progs.peer_drop), XDP_DROP},
			    {strip, fd(bench->progs.peer_strip), XDP_DROP},
			    {hash, fd(bench->progs.peer_siphash), XDP_DROP},
			    {gate, dp->path_fd[GATE_OUTSIDE], XDP_REDIRECT}};

		empty(none);
		for (unsigned i = 0; i < sizeof(step) / sizeof(step[0]); i++) {
			bench->bss->bench_next = 0;
			bench_hole_rewind(dp, hole_tag);
			measure(step[i].name, writer[size], step[i].target, frame_tag[size], frame_tag_n[size], BENCH_TRAILERS, false,
				step[i].verdict);
		}
	}
}

/* What a redirect reaches: without a program there its frames would vanish early. */
static void attach_sinks(void)
{
	static const char *const sink[] = {"lanp", "wanp"};

	for (int i = 0; i < 2; i++)
		if (bpf_xdp_attach((int)if_nametoindex(sink[i]), fd(bench->progs.peer_drop), XDP_FLAGS_DRV_MODE, NULL) != 0)
			bench_die(sink[i], errno);
}

/* A flood from random sources: at the sessions' own ports, and at ports that nobody has. */
static void miss_round(void)
{
	struct bpf_program *w = bench->progs.write_stranger;
	const int drop = fd(bench->progs.peer_drop), parse = fd(bench->progs.peer_parse), gate = dp->path_fd[GATE_OUTSIDE];

	empty("miss_empty");
	measure("miss_base", w, drop, frame_in, frame_in_n, HOT, false, XDP_DROP);
	measure("miss_parse", w, parse, frame_in, frame_in_n, HOT, false, XDP_DROP);
	measure("miss_gate", w, gate, frame_in, frame_in_n, HOT, false, XDP_DROP);
	measure("miss_unowned_gate", w, gate, frame_udp_in, frame_udp_in_n, HOT, false, XDP_DROP);
	current = "live_drop";
	record("live_drop", run(drop, frame_in, frame_in_n, LIVE, true, -1));
	measure("live_base", w, drop, frame_in, frame_in_n, LIVE, true, -1);
	measure("live_parse", w, parse, frame_in, frame_in_n, LIVE, true, -1);
	measure("live_gate", w, gate, frame_in, frame_in_n, LIVE, true, -1);
	measure("live_unowned_gate", w, gate, frame_udp_in, frame_udp_in_n, LIVE, true, -1);
}

static void nat_round(bool many)
{
	struct bpf_program *in = bench->progs.write_in, *out = bench->progs.write_out;
	const int drop = fd(bench->progs.peer_drop), lookup = fd(bench->progs.peer_lookup);
	const unsigned n = many ? COLD : HOT;

	empty(many ? "nat_empty_many" : "nat_empty_one");
	measure(many ? "in_base_many" : "in_base_one", in, drop, frame_in, frame_in_n, n, false, XDP_DROP);
	measure(many ? "out_base_many" : "out_base_one", out, drop, frame_out, frame_out_n, n, false, XDP_DROP);
	measure(many ? "lookup_many" : "lookup_one", out, lookup, frame_out, frame_out_n, n, false, XDP_REDIRECT);
	measure(many ? "in_gate_many" : "in_gate_one", in, dp->path_fd[GATE_OUTSIDE], frame_in, frame_in_n, n, false, XDP_REDIRECT);
	measure(many ? "out_gate_many" : "out_gate_one", out, dp->path_fd[GATE_INSIDE], frame_out, frame_out_n, n, false, XDP_REDIRECT);
	if (!many)
		return;
	current = "live_in_drop";
	record("live_in_drop", run(drop, frame_in, frame_in_n, COLD, true, -1));
	measure("live_in_base", in, drop, frame_in, frame_in_n, COLD, true, -1);
	measure("live_lookup", out, lookup, frame_out, frame_out_n, COLD, true, -1);
	measure("live_in_gate", in, dp->path_fd[GATE_OUTSIDE], frame_in, frame_in_n, COLD, true, -1);
	measure("live_out_gate", out, dp->path_fd[GATE_INSIDE], frame_out, frame_out_n, COLD, true, -1);
}

static void tcp_round(void)
{
	struct bpf_program *in = bench->progs.write_in, *out = bench->progs.write_out;

	empty("tcp_empty");
	measure("tcp_in_base", in, fd(bench->progs.peer_drop), frame_in, frame_in_n, HOT, false, XDP_DROP);
	measure("tcp_in_without", in, fd(untracked->progs.gate_outside), frame_in, frame_in_n, HOT, false, XDP_REDIRECT);
	measure("tcp_in_with", in, dp->path_fd[GATE_OUTSIDE], frame_in, frame_in_n, HOT, false, XDP_REDIRECT);
	measure("tcp_out_base", out, fd(bench->progs.peer_drop), frame_out, frame_out_n, HOT, false, XDP_DROP);
	measure("tcp_out_without", out, fd(untracked->progs.gate_inside), frame_out, frame_out_n, HOT, false, XDP_REDIRECT);
	measure("tcp_out_with", out, dp->path_fd[GATE_INSIDE], frame_out, frame_out_n, HOT, false, XDP_REDIRECT);
	measure("route", in, fd(bench->progs.peer_route), frame_in, frame_in_n, HOT, false, XDP_DROP);
}

/* Through a hole instead of a session: one TCP connection. */
static void hole_round(void)
{
	struct bpf_program *w = bench->progs.write_hole;

	empty("hole_empty_one");
	towards(hole_tcp, port_tcp);
	measure("hole_base_one", w, fd(bench->progs.peer_drop), frame_in, frame_in_n, HOT, false, XDP_DROP);
	measure("hole_gate_one", w, dp->path_fd[GATE_OUTSIDE], frame_in, frame_in_n, HOT, false, XDP_REDIRECT);
}

/* Datagram flows through as many holes, in random order, beside look-ups of as many sessions. */
static void holes_round(void)
{
	struct bpf_program *in = bench->progs.write_holes_in, *out = bench->progs.write_holes_out, *flow = bench->progs.write_out;
	const int drop = fd(bench->progs.peer_drop);

	empty("hole_empty_many");
	measure("hole_flow_base_many", flow, drop, frame_out, frame_out_n, BENCH_HOLES, false, XDP_DROP);
	measure("hole_lookup_many", flow, fd(bench->progs.peer_lookup), frame_out, frame_out_n, BENCH_HOLES, false, XDP_REDIRECT);
	measure("hole_in_base_many", in, drop, frame_udp_in, frame_udp_in_n, BENCH_HOLES, false, XDP_DROP);
	measure("hole_in_gate_many", in, dp->path_fd[GATE_OUTSIDE], frame_udp_in, frame_udp_in_n, BENCH_HOLES, false, XDP_REDIRECT);
	measure("hole_out_base_many", out, drop, frame_udp_out, frame_udp_out_n, BENCH_HOLES, false, XDP_DROP);
	measure("hole_out_gate_many", out, dp->path_fd[GATE_INSIDE], frame_udp_out, frame_udp_out_n, BENCH_HOLES, false, XDP_REDIRECT);
}

/* Opens the datagram holes and sends one packet through each, which binds it. */
static void holes_open(void)
{
	struct bench_ends *ends =
		mmap(NULL, sizeof(*ends) * BENCH_HOLES, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(bench->maps.ends), 0);
	uint32_t zero = 0;
	int target = dp->path_fd[GATE_OUTSIDE];

	if (ends == MAP_FAILED)
		bench_die("ends", errno);
	bench_holes(dp, ends, BENCH_HOLES);
	munmap(ends, sizeof(*ends) * BENCH_HOLES);
	current = "binding holes";
	if (bpf_map_update_elem(bpf_map__fd(bench->maps.jump), &zero, &target, BPF_ANY) != 0)
		bench_die("jump", errno);
	run(fd(bench->progs.write_holes_in), frame_udp_in, frame_udp_in_n, BENCH_HOLES, false, XDP_REDIRECT);
}

static void counter(const char *name, int is_drop, uint64_t value, void *arg)
{
	bool *first = arg;

	(void)is_drop;
	if (value == 0)
		return;
	printf("%s\"%s\": %llu", *first ? "" : ", ", name, (unsigned long long)value);
	*first = false;
}

static void print(uint32_t flows, uint32_t shift)
{
	bool first = true;

	printf("{\"flows\": %u, \"addresses\": %u, \"runs\": %u, \"counters\": {", flows, 1u << shift, rounds);
	gate_dp_counters(dp, counter, &first);
	printf("}, \"series\": {");
	for (unsigned i = 0; i < nseries; i++) {
		printf("%s\n  \"%s\": [", i == 0 ? "" : ",", series[i].name);
		for (unsigned j = 0; j < series[i].n; j++)
			printf("%s%g", j == 0 ? "" : ", ", series[i].ns[j]);
		printf("]");
	}
	printf("}}\n");
}

static bool number(const char *text, unsigned max, unsigned *out)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	*out = (unsigned)v;
	return end != text && *end == '\0' && v <= max;
}

/* Names separated by commas -> groups; 0 when one is none. */
static unsigned group_set(char *text)
{
	static const char *const name[] = {"miss", "nat", "tcp", "tag", "hole"};
	unsigned set = 0, i;
	char *save, *w;

	for (w = strtok_r(text, ",", &save); w != NULL; w = strtok_r(NULL, ",", &save)) {
		for (i = 0; i < sizeof(name) / sizeof(name[0]) && strcmp(w, name[i]) != 0; i++)
			;
		if (i == sizeof(name) / sizeof(name[0]))
			return 0;
		set |= 1u << i;
	}
	return set;
}

static void start(unsigned cpu)
{
	cpu_set_t set;

	wn_log_init("gate-micro", WN_LOG_WARN);
	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sodium_init() < 0 || sched_setaffinity(0, sizeof(set), &set) != 0)
		bench_die("start", errno);
	alarm(300);
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) != 0)
		bench_die("namespaces (root is needed)", errno);
}

static void hot(void)
{
	for (unsigned r = 0; r < rounds; r++) {
		if (groups & NAT)
			nat_round(false);
		if (groups & TCP)
			tcp_round();
		if (groups & HOLE)
			hole_round();
	}
	if (groups & TAG) {
		tag_series(0, "tag_empty_64", "tag_base_64", "tag_strip_64", "tag_hash_64", "tag_gate_64");
		tag_series(1, "tag_empty_512", "tag_base_512", "tag_strip_512", "tag_hash_512", "tag_gate_512");
		tag_series(2, "tag_empty_1400", "tag_base_1400", "tag_strip_1400", "tag_hash_1400", "tag_gate_1400");
	}
}

static void cold(void)
{
	for (unsigned r = 0; r < rounds; r++) {
		if (groups & MISS)
			miss_round();
		if (groups & NAT)
			nat_round(true);
	}
	if (!(groups & HOLE))
		return;
	holes_open();
	for (unsigned r = 0; r < rounds; r++)
		holes_round();
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"flows", required_argument, NULL, 'f'}, {"shift", required_argument, NULL, 's'},
						{"runs", required_argument, NULL, 'r'},  {"cpu", required_argument, NULL, 'c'},
						{"only", required_argument, NULL, 'o'},  {NULL, 0, NULL, 0}};
	unsigned flows = 1000000, shift = 4, cpu = 0;
	uint32_t mappings;
	bool good = true;
	int c;

	groups = ALL;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'f')
			good = good && number(optarg, 4000000, &flows) && flows > 1;
		else if (c == 's')
			good = good && number(optarg, 4, &shift);
		else if (c == 'r')
			good = good && number(optarg, ROUNDS_MAX, &rounds) && rounds > 0;
		else if (c == 'c')
			good = good && number(optarg, CPU_SETSIZE - 1, &cpu);
		else if (c == 'o')
			good = good && (groups = group_set(optarg)) != 0;
		else
			good = false;
	}
	if (!good || optind != argc) {
		fprintf(stderr, "usage: gate-micro [--flows N] [--shift 0-4] [--runs N] [--cpu N] [--only miss,nat,tcp,tag,hole]\n");
		return 2;
	}
	start(cpu);
	mappings = BENCH_PORTS << shift;
	if (mappings > flows)
		mappings = flows;
	dp = bench_open(flows, groups & HOLE ? BENCH_HOLES : 64, shift, mac);
	load(shift, mappings);
	frames();
	attach_sinks();

	bench_sessions(dp, 0, 1, mappings, shift);
	hot();
	if (groups & (MISS | NAT | HOLE)) {
		bench_sessions(dp, 1, flows, mappings, shift);
		bench->bss->bench_flows = flows;
		cold();
	}
	print(flows, shift);
	gate_dp_close(dp);
	return 0;
}
