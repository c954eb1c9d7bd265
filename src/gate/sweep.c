/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "gate/path.h"
#include "gate/routes.h"

#define BATCH             256
#define BATCHES_PER_SWEEP 32 /* per table: 8192 entries, so a table of 65,536 takes eight sweeps */
#define HOLES_PER_SWEEP   65536
#define READS_PER_SWEEP   4096
#define PORTS_PER_SWEEP   65536
#define CONFIRM_EVERY_MS  15000
#define SERVICE_KEPT_NS   (86400 * GATE_NS_PER_S) /* a service's own packets open no mapping for so long after its last hole */

/* The tables that are walked, a part at a time. */
enum table { FLOWS, FLOWS6, MAPPINGS, SERVICES, SERVICES6 };

/* A request to gate_reap or gate_reap6, which begin alike. */
struct reaper {
	int prog;
	size_t key_size, size;
	union {
		struct gate_reap r;
		struct gate_reap6 r6;
	};
};

/* Deletion happens in the kernel, entry by entry, where it can be done without racing the path. */
static void reap(struct reaper *e)
{
	struct bpf_test_run_opts opts = {.sz = sizeof(opts), .data_in = &e->r, .data_size_in = (uint32_t)e->size, .repeat = 1};

	if (e->r.count == 0)
		return;
	if (bpf_prog_test_run_opts(e->prog, &opts) < 0)
		wn_err("deleting expired entries: %s", strerror(errno));
	e->r.count = 0;
}

static void reap_add(struct reaper *e, const void *key)
{
	memcpy((uint8_t *)e->r.key + e->r.count * e->key_size, key, e->key_size);
	if (++e->r.count == GATE_REAP_MAX)
		reap(e);
}

/* What is certainly in use need not be asked of the kernel. local: the inside end's address. */
static bool flow_over(const struct gate_dp *dp, const union gate_addr *local, bool ip6, const struct gate_flow *f, uint64_t now)
{
	if (GATE_OWNER_KIND(f->owner) == GATE_FLOW_SESSION) {
		int tenant = f->tenant < GATE_TENANT_SLOTS ? dp->tenant_of[f->tenant] : -1;
		struct wn_addr a;

		gate_addr_to(&a, local, ip6, 0);
		return now > f->expires + GATE_REAP_GRACE_NS || tenant < 0 || !gate_tenant_has(&dp->cfg.tenant[tenant], &a);
	}
	if (GATE_OWNER_KIND(f->owner) == GATE_FLOW_HOLE) {
		const uint64_t id = GATE_OWNER_VALUE(f->owner);
		const struct gate_grant *g;

		if (GATE_HOLE_INDEX(id) >= dp->nholes)
			return true;
		g = &dp->grants[GATE_HOLE_INDEX(id)];
		/* A TCP hole's handshakes that led nowhere leave entries too: the path knows which. */
		return load64(&g->id) != id || now >= g->expires || g->proto == IPPROTO_TCP;
	}
	return true;
}

static void look_at(struct gate_dp *dp, enum table table, const uint8_t *key, const uint8_t *value, struct reaper *e, uint64_t now)
{
	const struct gate_flow *f = (const void *)value;
	const struct gate_mapping *m = (const void *)value;
	union gate_addr local = {.ip4 = 0};

	switch (table) {
	case FLOWS:
	case FLOWS6:
		/* The local address comes first. */
		memcpy(&local, key, table == FLOWS ? sizeof(local.ip4) : sizeof(local.ip6));
		if (table == FLOWS)
			gate_filter_keep(dp, (const struct gate_key *)(const void *)key, f);
		if (flow_over(dp, &local, table == FLOWS6, f, now))
			reap_add(e, key);
		break;
	case MAPPINGS: {
		const struct gate_end *end = (const void *)key;
		const struct gate_key k = {.local_ip = end->ip, .local_port = end->port, .proto = end->proto};

		if (m->expires == GATE_MAPPING_DEAD || now > m->expires + GATE_REAP_GRACE_NS)
			reap_add(e, &k);
		break;
	}
	case SERVICES:
	case SERVICES6:
		/* Only this process writes them. */
		if (now > ((const struct gate_service *)(const void *)value)->until + SERVICE_KEPT_NS)
			bpf_map_delete_elem(table == SERVICES ? dp->services_fd : dp->services6_fd, key);
		break;
	}
}

/* Walks a part of a hash table; what looks expired of the path's own goes to gate_reap, which decides. \return whether this
 * was the last part. */
static bool walk(struct gate_dp *dp, enum table table, int fd, size_t key_size, size_t value_size, uint64_t now)
{
	static _Alignas(16) uint8_t keys[BATCH * sizeof(struct gate_key6)], values[BATCH * sizeof(struct gate_flow)];
	struct reaper e = {.prog = table == FLOWS6 ? dp->reap6_fd : dp->reap_fd,
			   .key_size = table == FLOWS6 ? sizeof(struct gate_key6) : sizeof(struct gate_key),
			   .size = table == FLOWS6 ? sizeof(e.r6) : sizeof(e.r)};
	bool end = false;

	e.r.what = table == MAPPINGS ? GATE_REAP_MAPPINGS : GATE_REAP_FLOWS;
	for (unsigned b = 0; b < (table >= SERVICES ? 1 : BATCHES_PER_SWEEP); b++) {
		uint32_t n = BATCH, next;
		int rc = bpf_map_lookup_batch(fd, dp->cursor[table].going ? &dp->cursor[table].token : NULL, &next, keys, values, &n, NULL);

		end = rc < 0 && errno == ENOENT;
		if (rc < 0 && !end) {
			/* A bucket longer than the batch: begin anew; another boundary will do. */
			dp->cursor[table].going = false;
			break;
		}
		for (uint32_t i = 0; i < n; i++)
			look_at(dp, table, keys + i * key_size, values + i * value_size, &e, now);
		dp->cursor[table].going = !end;
		dp->cursor[table].token = next;
		if (end)
			break;
	}
	reap(&e);
	return end;
}

void gate_sweep_holes(struct gate_dp *dp, uint64_t now_ms, uint32_t look, uint32_t read)
{
	const uint64_t now = now_ms * GATE_NS_PER_MS;

	for (uint32_t i = 0; i < look && i < dp->nholes && read > 0; i++) {
		const uint32_t at = dp->hole_cursor;
		const struct gate_grant *g = &dp->grants[at];

		dp->hole_cursor = (at + 1) % dp->nholes;
		if (load64(&g->id) == 0)
			continue;
		if (g->proto == IPPROTO_TCP || g->idle_ns != 0)
			read--;
		if (gate_hole_over(dp, at, now))
			gate_grant_close(dp, at, now_ms);
	}
}

void gate_sweep_ports(struct gate_dp *dp, uint32_t look)
{
	for (uint32_t i = 0; i < look && i < dp->nports; i++) {
		const uint32_t at = dp->port_cursor, slot = (at >> 16) / GATE_PROTOS, proto = (at >> 16) % GATE_PROTOS;
		struct gate_port *p = &dp->ports[at];
		uint64_t owner = load64(&p->owner);
		bool keep = false;

		dp->port_cursor = (at + 1) % dp->nports;
		/* The path takes a port before it writes the mapping: what a look finds between the two must be there at the next one. Only
		 * holes, which this process alone opens, are certain at once. */
		if (owner == 0 || GATE_OWNER_KIND(owner) != GATE_OWNER_HOLE)
			continue;
		if (GATE_HOLE_INDEX(owner) < dp->nholes) {
			const struct gate_grant *g = &dp->grants[GATE_HOLE_INDEX(owner)];

			keep = load64(&g->id) != 0 && !gate_grant_plain(dp, g) && g->public.ip4 == dp->meta->public_ip[slot] &&
			       ntohs(g->public_port) == (at & 0xffff) && (g->proto == IPPROTO_TCP ? GATE_P_TCP : GATE_P_UDP) == (int)proto;
		}
		if (!keep)
			swap64(&p->owner, owner, 0);
	}
}

/* The path finds out why it drops, so many times a sweep. */
static void explain_again(struct gate_dp *dp)
{
	const uint32_t which = GATE_B_EXPLAIN;

	bpf_map_update_elem(dp->budgets_fd, &which, dp->zeroes, BPF_ANY);
}

void gate_dp_sweep(struct gate_dp *dp, uint64_t now_ms)
{
	const uint64_t now = now_ms * GATE_NS_PER_MS;

	gate_dp_clock(dp);
	explain_again(dp);
	gate_routes_tick(dp->routes, now);
	gate_sweep_holes(dp, now_ms, HOLES_PER_SWEEP, READS_PER_SWEEP);
	gate_sweep_ports(dp, PORTS_PER_SWEEP);
	if (gate_filter_begin(dp, now_ms))
		dp->cursor[FLOWS].going = false;
	gate_filter_sweep(dp, walk(dp, FLOWS, dp->flows_fd, sizeof(struct gate_key), sizeof(struct gate_flow), now), now_ms);
	walk(dp, FLOWS6, dp->flows6_fd, sizeof(struct gate_key6), sizeof(struct gate_flow), now);
	walk(dp, MAPPINGS, dp->mappings_fd, sizeof(struct gate_end), sizeof(struct gate_mapping), now);
	walk(dp, SERVICES, dp->services_fd, sizeof(struct gate_end), sizeof(struct gate_service), now);
	walk(dp, SERVICES6, dp->services6_fd, sizeof(struct gate_end6), sizeof(struct gate_service), now);
	if (now_ms - dp->neighbours_ms >= CONFIRM_EVERY_MS) {
		dp->neighbours_ms = now_ms;
		gate_neighbours_confirm(dp->neighbours);
	}
}
