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

/* Deletion happens in the kernel, entry by entry, where it can be done without racing the path. */
static void reap(struct gate_dp *dp, struct gate_reap *r)
{
	struct bpf_test_run_opts opts = {.sz = sizeof(opts), .data_in = r, .data_size_in = sizeof(*r), .repeat = 1};

	if (r->count == 0)
		return;
	if (bpf_prog_test_run_opts(dp->reap_fd, &opts) < 0)
		wn_err("deleting expired entries: %s", strerror(errno));
	r->count = 0;
}

static void reap_add(struct gate_dp *dp, struct gate_reap *r, const struct gate_key *k)
{
	r->key[r->count++] = *k;
	if (r->count == GATE_REAP_MAX)
		reap(dp, r);
}

/* What is certainly in use need not be asked of the kernel. */
static bool flow_over(const struct gate_dp *dp, const struct gate_key *k, const struct gate_flow *f, uint64_t now)
{
	if (GATE_OWNER_KIND(f->owner) == GATE_FLOW_SESSION) {
		int tenant = f->tenant < GATE_TENANT_SLOTS ? dp->tenant_of[f->tenant] : -1;

		return now > f->expires + GATE_REAP_GRACE_NS || tenant < 0 || !gate_tenant_has(&dp->cfg.tenant[tenant], k->local_ip);
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

/* Walks a part of a hash table and hands what looks expired to gate_reap, which decides. \return whether this was the last part. */
static bool walk(struct gate_dp *dp, enum gate_reap_what what, int fd, size_t key_size, size_t value_size, uint64_t now)
{
	static _Alignas(16) uint8_t keys[BATCH * sizeof(struct gate_key)], values[BATCH * sizeof(struct gate_flow)];
	struct gate_reap r = {.what = what};
	struct gate_key k;
	bool end = false;

	for (unsigned b = 0; b < BATCHES_PER_SWEEP; b++) {
		uint32_t n = BATCH, next;
		int rc = bpf_map_lookup_batch(fd, dp->cursor[what].going ? &dp->cursor[what].token : NULL, &next, keys, values, &n, NULL);

		end = rc < 0 && errno == ENOENT;
		if (rc < 0 && !end) {
			/* A bucket longer than the batch: begin anew; another boundary will do. */
			dp->cursor[what].going = false;
			break;
		}
		for (uint32_t i = 0; i < n; i++) {
			const uint8_t *key = keys + i * key_size, *value = values + i * value_size;

			memset(&k, 0, sizeof(k));
			if (what == GATE_REAP_FLOWS) {
				memcpy(&k, key, sizeof(k));
				gate_filter_keep(dp, &k, (const struct gate_flow *)(const void *)value);
				if (!flow_over(dp, &k, (const struct gate_flow *)(const void *)value, now))
					continue;
			} else {
				const struct gate_end *e = (const void *)key;
				const struct gate_mapping *m = (const void *)value;

				if (m->expires != GATE_MAPPING_DEAD && now <= m->expires + GATE_REAP_GRACE_NS)
					continue;
				k.local_ip = e->ip;
				k.local_port = e->port;
				k.proto = e->proto;
			}
			reap_add(dp, &r, &k);
		}
		dp->cursor[what].going = !end;
		dp->cursor[what].token = next;
		if (end)
			break;
	}
	reap(dp, &r);
	return end;
}

static void walk_services(struct gate_dp *dp, uint64_t now)
{
	static struct gate_end keys[BATCH];
	static struct gate_service values[BATCH];
	const uint32_t what = 0;
	uint32_t n = BATCH, next;
	int rc = bpf_map_lookup_batch(dp->services_fd, dp->cursor[what].going ? &dp->cursor[what].token : NULL, &next, keys, values, &n,
				      NULL);

	if (rc < 0 && errno != ENOENT)
		n = 0;
	for (uint32_t i = 0; i < n; i++)
		if (now > values[i].until + SERVICE_KEPT_NS)
			bpf_map_delete_elem(dp->services_fd, &keys[i]);
	dp->cursor[what].going = rc == 0;
	dp->cursor[what].token = next;
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

			keep = load64(&g->id) != 0 && g->public_ip == dp->meta->public_ip[slot] && ntohs(g->public_port) == (at & 0xffff) &&
			       (g->proto == IPPROTO_TCP ? GATE_P_TCP : GATE_P_UDP) == (int)proto;
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
		dp->cursor[GATE_REAP_FLOWS].going = false;
	gate_filter_sweep(dp, walk(dp, GATE_REAP_FLOWS, dp->flows_fd, sizeof(struct gate_key), sizeof(struct gate_flow), now), now_ms);
	walk(dp, GATE_REAP_MAPPINGS, dp->mappings_fd, sizeof(struct gate_end), sizeof(struct gate_mapping), now);
	walk_services(dp, now);
	if (now_ms - dp->neighbours_ms >= CONFIRM_EVERY_MS) {
		dp->neighbours_ms = now_ms;
		gate_neighbours_confirm(dp->neighbours);
	}
}
