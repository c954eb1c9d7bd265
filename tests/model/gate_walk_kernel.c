/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_walk_kernel.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dp_fixture.h"
#include "gate/bpf/sample.h"
#include "gate/path.h"
#include "gate/users.h"
#include "gate_draws.h"

#include "gate.skel.h"

#define START (1000 * GATE_NS_PER_S)

static uint64_t *before, *after; /* counters by reason and CPU */
static uint32_t reason[GATE_REASON_COUNT];

static void die(const char *what)
{
	fprintf(stderr, "the gate in the kernel: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void read_counters(uint64_t *to)
{
	uint32_t n = GATE_REASON_COUNT, token;

	if (bpf_map_lookup_batch(fx_dp->counters_fd, NULL, &token, reason, to, &n, NULL) < 0 && errno != ENOENT)
		die("reading the counters");
}

static uint64_t *per_cpu(uint32_t n)
{
	uint64_t *p = calloc((size_t)n * (size_t)fx_dp->cpus, sizeof(*p));

	if (p == NULL)
		die("memory");
	return p;
}

/* The ends of the walk's network, in both families. */
static void name(char *to, size_t cap, uint32_t ip, bool six)
{
	snprintf(to, cap, "%s%u.%u.%u.%u", six ? "2001:db8::" : "", ip >> 24, ip >> 16 & 255, ip >> 8 & 255, ip & 255);
}

static void neighbours(bool six)
{
	const struct gm_net *net = walk_net();
	char command[256], ip[64];

	for (unsigned i = 0; i < net->nhops; i++) {
		const uint8_t *m = net->hop[i].mac;

		name(ip, sizeof(ip), net->hop[i].ip, six);
		snprintf(command, sizeof(command), "ip neigh replace %s lladdr %02x:%02x:%02x:%02x:%02x:%02x dev %s nud permanent", ip,
			 m[0], m[1], m[2], m[3], m[4], m[5], (net->hop[i].ip & 0xffffff00) == net->lan ? "lan" : "wan");
		if (system(command) != 0)
			die("neighbours");
	}
}

static void begin(void)
{
	walk_config(&fx_config);
	fx_open();
	before = per_cpu(GATE_REASON_COUNT);
	after = per_cpu(GATE_REASON_COUNT);
	read_counters(before);
}

static void end(void)
{
	fx_close();
	fx_remove();
	free(before);
	free(after);
}

bool walk_kernel_up(void)
{
	gate_draws_seeded();
	if (!fx_up())
		return false;
	/* The fixture's network is the walk's but for these. The peers say nothing by themselves: every frame is the walk's. */
	if (system("ip addr add 198.18.3.3/24 dev wan; echo 1 >/proc/sys/net/ipv6/conf/wanp/disable_ipv6; "
		   "echo 1 >/proc/sys/net/ipv6/conf/lanp/disable_ipv6; ip -6 route del default; ip -6 addr flush dev wan scope global; "
		   "ip -6 addr flush dev lan scope global; ip addr add 2001:db8::198.18.3.2/120 dev wan nodad; "
		   "ip addr add 2001:db8::198.18.100.1/120 dev lan nodad; ip route add default via 2001:db8::198.18.3.1 dev wan") != 0)
		die("addresses");
	neighbours(false);
	neighbours(true);
	begin();
	return true;
}

void walk_kernel_again(void)
{
	end();
	begin();
}

void walk_kernel_down(void)
{
	end();
	fx_down();
}

static void empty_hash(int fd, size_t key_size)
{
	uint8_t key[64];

	if (key_size > sizeof(key))
		die("a longer key");
	while (bpf_map_get_next_key(fd, NULL, key) == 0)
		if (bpf_map_delete_elem(fd, key) < 0)
			die("emptying a table");
}

static void empty_array(int fd, uint32_t n, size_t value_size)
{
	void *zero = calloc(1, value_size);

	if (zero == NULL)
		die("memory");
	for (uint32_t i = 0; i < n; i++)
		if (bpf_map_update_elem(fd, &i, zero, BPF_ANY) < 0)
			die("emptying an array");
	free(zero);
}

/* All that lasts, as on the first start; the tenants' prefixes, the devices and what describes the tables stay. */
static bool reset(void)
{
	struct bpf_map *map;

	bpf_object__for_each_map(map, fx_dp->skel->obj)
	{
		const int fd = bpf_map__fd(map);

		switch (bpf_map__type(map)) {
		case BPF_MAP_TYPE_HASH:
		case BPF_MAP_TYPE_LRU_HASH:
			empty_hash(fd, bpf_map__key_size(map));
			break;
		case BPF_MAP_TYPE_ARRAY:
			if (map == fx_dp->skel->maps.meta || bpf_map__is_internal(map) || (bpf_map__map_flags(map) & BPF_F_MMAPABLE))
				break;
			empty_array(fd, bpf_map__max_entries(map), bpf_map__value_size(map));
			break;
		default:
			break;
		}
	}
	memset(fx_dp->ports_view.p, 0, fx_dp->ports_view.bytes);
	memset(fx_dp->grants_view.p, 0, fx_dp->grants_view.bytes);
	memset(fx_dp->infos_view.p, 0, fx_dp->infos_view.bytes);
	memset(fx_dp->users_view.p, 0, fx_dp->users_view.bytes);
	gate_users_free(fx_dp->users);
	if (gate_users_new(fx_dp->user, fx_dp->nholes, &fx_dp->users) < 0)
		die("memory");
	memset(fx_dp->open_holes, 0, sizeof(fx_dp->open_holes));
	memset(fx_dp->cursor, 0, sizeof(fx_dp->cursor));
	fx_dp->live = fx_dp->free_head = fx_dp->free_count = fx_dp->hole_cursor = fx_dp->port_cursor = 0;
	fx_dp->swept_full_ms = 0;
	for (uint32_t i = 0; i < fx_dp->nholes; i++) {
		fx_dp->free_since[i] = 0;
		fx_dp->free_index[fx_dp->free_count++] = i;
	}
	fx_dp->skel->bss->gate_test_clock = START;
	return true;
}

static void seed(uint64_t v)
{
	gate_draws_seed(v);
	fx_dp->skel->bss->gate_test_random = v;
}

static void apply(const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply)
{
	gate_dp_apply(fx_dp, r, now_ms, reply);
}

static void sweep(uint64_t now_ms)
{
	gate_dp_sweep(fx_dp, now_ms);
}

/* Which counter moved, of all CPUs'. */
static const char *counted(void)
{
	const size_t cpus = (size_t)fx_dp->cpus;
	const char *found = "none";
	uint64_t *swap;

	read_counters(after);
	for (uint32_t i = 0; i < GATE_REASON_COUNT; i++) {
		uint64_t moved = 0;

		for (size_t c = 0; c < cpus; c++)
			moved += after[i * cpus + c] - before[i * cpus + c];
		if (i == GATE_R_HOLE_BOUND || i == GATE_R_MAPPING_NEW || i == GATE_R_SESSION_NEW || moved == 0)
			continue;
		found = moved == 1 && strcmp(found, "none") == 0 ? gate_reason_name(i) : "several";
	}
	swap = before;
	before = after;
	after = swap;
	return found;
}

static int run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout, const char **what)
{
	int verdict;

	fx_refill();
	verdict = fx_run(side, in, n, out, nout);
	*what = counted();
	fx_dp->skel->bss->gate_test_clock += 1 + fx_dp->skel->bss->gate_test_clock % 997;
	return verdict;
}

static uint64_t now(void)
{
	return fx_dp->skel->bss->gate_test_clock;
}

static void pass(uint64_t ns)
{
	fx_dp->skel->bss->gate_test_clock += ns;
}

static bool hole(uint64_t id, struct gate_hole *out)
{
	return gate_hole_read(fx_dp, GATE_HOLE_INDEX(id), out);
}

static bool session(const struct gm_session *s, struct gate_flow *out)
{
	const struct gate_key k = {.local_ip = htonl(s->inside_ip),
				   .remote_ip = htonl(s->remote_ip),
				   .local_port = htons(s->inside_port),
				   .remote_port = htons(s->remote_port),
				   .proto = s->proto};
	struct gate_key6 k6 = {
		.local_port = k.local_port, .remote_port = k.remote_port, .proto = s->proto == IPPROTO_ICMP ? IPPROTO_ICMPV6 : s->proto};
	const bool six = walk_net()->six;

	gm_address6(s->inside_ip, (uint8_t *)&k6.local_ip);
	gm_address6(s->remote_ip, (uint8_t *)&k6.remote_ip);
	return bpf_map_lookup_elem(six ? fx_dp->flows6_fd : fx_dp->flows_fd, six ? (const void *)&k6 : &k, out) == 0 &&
	       GATE_OWNER_KIND(out->owner) == GATE_FLOW_SESSION;
}

const struct walk_subject walk_kernel = {.reset = reset,
					 .seed = seed,
					 .apply = apply,
					 .sweep = sweep,
					 .run = run,
					 .now = now,
					 .pass = pass,
					 .hole = hole,
					 .session = session,
					 .look_at = 8};
