/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_user_map.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "gate/bpf/port.h"
#include "gate/bpf/sample.h"
#include "gate/bpf/shared.h"

#define MAPS    20
#define BUCKETS 1024

struct entry {
	struct entry *next;
	uint8_t *key, *value;
};

struct map {
	const void *id;
	unsigned type;
	size_t key, value, max, count;
	uint8_t *array;
	struct entry *bucket[BUCKETS];
};

/* A packet's descriptor with room for user space's pointers. */
struct user_md {
	unsigned long room, data, data_end; /* room: where what the driver leaves in front begins */
	uint32_t ingress_ifindex;
};

uint64_t gate_user_clock, gate_user_random;

static struct map map[MAPS];
static unsigned nmaps;
static struct gate_user_net net;
static uint64_t counted[GATE_REASON_COUNT];
static struct bpf_spin_lock *held;
static union {
	struct gate_event event;
	struct gate_sample sample;
} ring;
static struct gate_params params;

static void die(const char *what)
{
	fprintf(stderr, "packet path in user space: %s\n", what);
	abort();
}

static void *zeroed(size_t n)
{
	void *p = calloc(1, n != 0 ? n : 1);

	if (p == NULL)
		die("no memory");
	return p;
}

/* The port table: pages that nobody touches cost nothing, though nothing then guards its end but the bound in `lookup`. */
static bool is_big(const struct map *m)
{
	return m->max * m->value > 1024 * 1024;
}

static void *pages(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("no memory");
	return p;
}

static struct map *map_of(const void *id, unsigned type, size_t key, size_t value, size_t max)
{
	struct map *m;

	for (unsigned i = 0; i < nmaps; i++)
		if (map[i].id == id)
			return &map[i];
	if (nmaps == MAPS)
		die("too many maps");
	m = &map[nmaps++];
	*m = (struct map){.id = id, .type = type, .key = key, .value = value, .max = max};
	return m;
}

static bool is_array(const struct map *m)
{
	return m->type == BPF_MAP_TYPE_ARRAY || m->type == BPF_MAP_TYPE_PERCPU_ARRAY;
}

static struct entry **slot_of(struct map *m, const void *key)
{
	const uint8_t *k = key;
	uint32_t h = 2166136261u;
	struct entry **e;

	for (size_t i = 0; i < m->key; i++)
		h = (h ^ k[i]) * 16777619u;
	for (e = &m->bucket[h % BUCKETS]; *e != NULL; e = &(*e)->next)
		if (memcmp((*e)->key, key, m->key) == 0)
			break;
	return e;
}

/* Longest prefix, the plain way: every entry is looked at. */
static void *lookup_prefix(struct map *m, const void *key)
{
	uint32_t ip, best = 0;
	void *found = NULL;

	memcpy(&ip, (const uint8_t *)key + 4, 4);
	for (unsigned b = 0; b < BUCKETS; b++) {
		for (struct entry *e = m->bucket[b]; e != NULL; e = e->next) {
			uint32_t bits, net_ip, mask;

			memcpy(&bits, e->key, 4);
			memcpy(&net_ip, e->key + 4, 4);
			mask = bits == 0 ? 0 : ~0u << (32 - bits);
			if ((be32toh(ip) & mask) == (be32toh(net_ip) & mask) && (found == NULL || bits > best)) {
				best = bits;
				found = e->value;
			}
		}
	}
	return found;
}

static void *lookup(struct map *m, const void *key)
{
	uint32_t at;
	struct entry *e;

	if (is_array(m)) {
		memcpy(&at, key, sizeof(at));
		if (at >= m->max)
			return NULL;
		if (m->array == NULL)
			m->array = is_big(m) ? pages(m->max * m->value) : zeroed(m->max * m->value);
		return m->array + at * m->value;
	}
	if (m->type == BPF_MAP_TYPE_LPM_TRIE)
		return lookup_prefix(m, key);
	e = *slot_of(m, key);
	return e != NULL ? e->value : NULL;
}

static long update(struct map *m, const void *key, const void *value, uint64_t flags)
{
	struct entry **at, *e;
	void *old = m->type == BPF_MAP_TYPE_LPM_TRIE ? NULL : lookup(m, key);

	if (old != NULL) {
		if (flags & BPF_NOEXIST)
			return -EEXIST;
		memcpy(old, value, m->value);
		return 0;
	}
	if (flags & BPF_EXIST)
		return -ENOENT;
	if (is_array(m) || m->count >= m->max)
		return -E2BIG;
	at = slot_of(m, key);
	e = zeroed(sizeof(*e));
	e->key = zeroed(m->key);
	e->value = zeroed(m->value);
	memcpy(e->key, key, m->key);
	memcpy(e->value, value, m->value);
	e->next = *at;
	*at = e;
	m->count++;
	return 0;
}

static long erase(struct map *m, const void *key)
{
	struct entry **at = slot_of(m, key), *e = *at;

	if (e == NULL)
		return -ENOENT;
	*at = e->next;
	free(e->key);
	free(e->value);
	free(e);
	m->count--;
	return 0;
}

static void lock(struct bpf_spin_lock *l)
{
	if (held != NULL)
		die("a lock is taken while another is held");
	held = l;
}

static void unlock(const struct bpf_spin_lock *l)
{
	if (held != l)
		die("a lock is given back that is not held");
	held = NULL;
}

/* The verifier allows no helper between lock and unlock. */
static void unlocked(void)
{
	if (held != NULL)
		die("a helper is called while a lock is held");
}

static uint32_t prandom_u32(void)
{
	gate_user_random = gate_user_random * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(gate_user_random >> 32);
}

static long fib_lookup(struct bpf_fib_lookup *f)
{
	const uint32_t dst = f->ipv4_dst;
	const bool lan = (dst & net.lan_mask) == net.lan, wan = (dst & net.wan_mask) == net.wan;
	const uint32_t hop = lan || wan ? dst : net.gateway;

	unlocked();
	/* Our own addresses, and the subnets' first and last. */
	if (dst == params.control_ip || (lan && (dst == net.lan || dst == (net.lan | ~net.lan_mask))) ||
	    (wan && (dst == net.wan || dst == (net.wan | ~net.wan_mask))))
		return BPF_FIB_LKUP_RET_NOT_FWDED;
	if (f->tot_len > net.mtu) {
		f->mtu_result = (uint16_t)net.mtu;
		return BPF_FIB_LKUP_RET_FRAG_NEEDED;
	}
	f->ifindex = params.ifindex[lan ? GATE_INSIDE : GATE_OUTSIDE];
	memcpy(f->smac, net.mac[lan ? GATE_INSIDE : GATE_OUTSIDE], 6);
	for (unsigned i = 0; i < net.nhops; i++) {
		if (net.hop[i].ip == hop) {
			memcpy(f->dmac, net.hop[i].mac, 6);
			return BPF_FIB_LKUP_RET_SUCCESS;
		}
	}
	return BPF_FIB_LKUP_RET_NO_NEIGH;
}

static long adjust_tail(struct user_md *md, int by)
{
	unlocked();
	if (by > 0 || (long)(md->data_end - md->data) + by < ETH_HLEN)
		return -EINVAL;
	md->data_end = (unsigned long)((long)md->data_end + by);
	return 0;
}

static long adjust_head(struct user_md *md, int by)
{
	unlocked();
	if (by > 0 || md->data + (unsigned long)(long)by < md->room)
		return -EINVAL;
	md->data += (unsigned long)(long)by;
	return 0;
}

static void *reserve(size_t n)
{
	unlocked();
	if (n > sizeof(ring))
		die("an event of another size");
	return &ring;
}

static long load_bytes(const struct user_md *md, uint32_t at, void *to, size_t n)
{
	unlocked();
	if (at + n > md->data_end - md->data)
		return -EINVAL;
	memcpy(to, (const uint8_t *)md->data + at, n);
	return 0;
}

#define COUNT_OF(a) (sizeof(*(a)) / sizeof(int))
#define MAP_OF(m) \
	(unlocked(), map_of((m), (unsigned)COUNT_OF((m)->type), sizeof(*(m)->key), sizeof(*(m)->value), COUNT_OF((m)->max_entries)))

/* What the programs take from libbpf's headers. */
#define SEC(name)
#define __uint(name, val)                 int(*name)[val]
#define __type(name, val)                 __typeof__(val) *name
#define __noinline                        static __attribute__((noinline))
#define xdp_md                            user_md
#define bpf_map_lookup_elem(m, k)         lookup(MAP_OF(m), (k))
#define bpf_map_update_elem(m, k, v, f)   update(MAP_OF(m), (k), (v), (f))
#define bpf_map_delete_elem(m, k)         erase(MAP_OF(m), (k))
#define bpf_spin_lock(l)                  lock(l)
#define bpf_spin_unlock(l)                unlock(l)
#define bpf_ktime_get_coarse_ns()         gate_user_clock
#define bpf_get_prandom_u32()             prandom_u32()
#define bpf_fib_lookup(ctx, f, n, flags)  ((void)(ctx), fib_lookup(f))
#define bpf_xdp_adjust_tail(ctx, by)      adjust_tail((ctx), (by))
#define bpf_xdp_adjust_head(ctx, by)      adjust_head((ctx), (by))
#define bpf_xdp_load_bytes(ctx, at, p, n) load_bytes((ctx), (at), (p), (n))
#define bpf_tail_call(ctx, m, side)       ((void)(ctx), (void)(m), (void)(side)) /* as if nobody were there */
#define bpf_redirect_map(m, side, flags)  (unlocked(), (void)(m), (side) < GATE_SIDES ? XDP_REDIRECT : (flags))
#define bpf_ringbuf_reserve(m, n, flags)  ((void)(m), reserve(n))
#define bpf_ringbuf_submit(e, flags)      ((void)(e))

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wsign-conversion" /* the programs are not built with it */
#pragma GCC diagnostic ignored "-Wshadow"          /* parameters that are called as tables are; gcc alone minds */
/* The loader writes this constant before the kernel freezes it; here it stays a variable. */
#define const
#include "gate/bpf/maps.h"
#undef const

#include "gate/bpf/gate.bpf.c"
#pragma GCC diagnostic pop

/* What is not there has a table that stays empty. */
static struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} nothing;

#undef xdp_md
#define REGISTER(m) map_of((m), (unsigned)COUNT_OF((m)->type), sizeof(*(m)->key), sizeof(*(m)->value), COUNT_OF((m)->max_entries))

void gate_user_programs_clear(void)
{
	for (unsigned i = 0; i < nmaps; i++) {
		for (unsigned b = 0; b < BUCKETS; b++) {
			while (map[i].bucket[b] != NULL) {
				struct entry *e = map[i].bucket[b];

				map[i].bucket[b] = e->next;
				free(e->key);
				free(e->value);
				free(e);
			}
		}
		if (map[i].array != NULL && is_big(&map[i]))
			munmap(map[i].array, map[i].max * map[i].value);
		else
			free(map[i].array);
	}
	memset(map, 0, sizeof(map));
	nmaps = 0;
}

void gate_user_programs(const struct gate_params *p, const struct gate_user_net *n, const size_t size[GATE_USER_MAPS])
{
	gate_user_programs_clear();
	net = *n;
	held = NULL;
	/* They get their places in this order. */
	REGISTER(&ports);
	REGISTER(&grants);
	REGISTER(&infos);
	REGISTER(&users);
	REGISTER(&holes);
	REGISTER(&mappings);
	REGISTER(&flows);
	REGISTER(&waiting);
	REGISTER(&services);
	REGISTER(&usage);
	REGISTER(&counters);
	REGISTER(&meta);
	REGISTER(&prefixes);
	REGISTER(&budgets);
	REGISTER(&filter);
	REGISTER(&anyone);
	REGISTER(&nothing);
	for (unsigned i = 0; i < GATE_USER_MAPS; i++)
		if (size[i] != 0)
			map[i].max = size[i];
	params = *p;
	for (unsigned side = 0; side < GATE_SIDES; side++) {
		params.ifindex[side] = 10 + side;
		memcpy(params.mac[side], net.mac[side], 6);
	}
	params.port_key[0] = prandom_u32();
	params.port_key[1] = prandom_u32();
	memcpy((void *)(uintptr_t)&gate_params, &params, sizeof(params));
}

static void *first(enum gate_user_map m)
{
	const uint32_t zero = 0;

	return lookup(&map[m], &zero);
}

int gate_user_run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout)
{
	/* Two bytes more put the IP header where the kernel has it. */
	enum { ROOM = 256, START = ROOM + 2 };
	uint8_t *frame = zeroed(START + n);
	struct user_md md = {.room = (unsigned long)frame,
			     .data = (unsigned long)frame + START,
			     .data_end = (unsigned long)frame + START + n,
			     .ingress_ifindex = params.ifindex[side]};
	int verdict;

	memcpy(counted, first(GATE_USER_COUNTERS), sizeof(counted));
	memcpy(frame + START, in, n);
	verdict = side == GATE_OUTSIDE ? gate_outside(&md) : gate_inside(&md);
	unlocked();
	*nout = (size_t)(md.data_end - md.data);
	memcpy(out, (const uint8_t *)md.data, *nout);
	free(frame);
	return verdict;
}

const char *gate_user_counted(void)
{
	static const char *const names[GATE_REASON_COUNT] = {
#define NAME(e, name, drop) [e] = (name),
		GATE_REASONS(NAME)
#undef NAME
	};
	const __u64 *now = first(GATE_USER_COUNTERS);
	const char *found = "none";

	for (unsigned i = 0; i < GATE_REASON_COUNT; i++) {
		/* What else came about is counted beside. */
		if (i == GATE_R_HOLE_BOUND || i == GATE_R_MAPPING_NEW || i == GATE_R_SESSION_NEW || now[i] == counted[i])
			continue;
		if (strcmp(found, "none") != 0 || now[i] != counted[i] + 1)
			return "several";
		found = names[i];
	}
	return found;
}

void gate_user_refill(void)
{
	memset(first(GATE_USER_BUDGETS), 0, GATE_BUDGETS * sizeof(__u64));
}

void *gate_user_map_lookup(int fd, const void *key)
{
	return lookup(&map[fd], key);
}

long gate_user_map_update(int fd, const void *key, const void *value, uint64_t flags)
{
	return update(&map[fd], key, value, flags);
}

long gate_user_map_delete(int fd, const void *key)
{
	return erase(&map[fd], key);
}

size_t gate_user_map_value(int fd)
{
	return map[fd].value;
}

size_t gate_user_map_key(int fd)
{
	return map[fd].key;
}

void *gate_user_map_entry(int fd, size_t at, const void **key)
{
	for (unsigned b = 0; b < BUCKETS; b++) {
		for (struct entry *e = map[fd].bucket[b]; e != NULL; e = e->next) {
			if (at-- == 0) {
				*key = e->key;
				return e->value;
			}
		}
	}
	return NULL;
}

int gate_user_reap(void *request, size_t n)
{
	struct user_md md = {.data = (unsigned long)request, .data_end = (unsigned long)request + n};

	return gate_reap(&md);
}
