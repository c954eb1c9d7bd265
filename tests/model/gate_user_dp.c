/* SPDX-License-Identifier: Apache-2.0 */
/* User space's half of the path on the tables in memory: what grants.c and sweep.c ask of libbpf is answered from there. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#include "gate/path.h"
#include "gate/routes.h"
#include "gate/users.h"
#include "gate_user_map.h"

struct gate_dp *gate_user_dp;

static int done(long rc)
{
	if (rc == 0)
		return 0;
	errno = (int)-rc;
	return -1;
}

int bpf_map_lookup_elem(int fd, const void *key, void *value)
{
	const void *p = gate_user_map_lookup(fd, key);

	if (p == NULL)
		return done(-ENOENT);
	memcpy(value, p, gate_user_map_value(fd));
	return 0;
}

int bpf_map_lookup_elem_flags(int fd, const void *key, void *value, __u64 flags)
{
	(void)flags;
	return bpf_map_lookup_elem(fd, key, value);
}

int bpf_map_update_elem(int fd, const void *key, const void *value, __u64 flags)
{
	return done(gate_user_map_update(fd, key, value, flags));
}

int bpf_map_get_next_key(int fd, const void *key, void *next)
{
	(void)fd;
	(void)key;
	(void)next;
	return done(-ENOENT); /* only an adoption asks, and nothing is adopted */
}

int bpf_map_delete_elem(int fd, const void *key)
{
	return done(gate_user_map_delete(fd, key));
}

/* The token is how many were handed out before. */
int bpf_map_lookup_batch(int fd, void *in_batch, void *out_batch, void *keys, void *values, __u32 *count,
			 const struct bpf_map_batch_opts *opts)
{
	__u32 at = 0, n = 0;
	const void *key;
	const void *value;

	(void)opts;
	if (in_batch != NULL)
		memcpy(&at, in_batch, sizeof(at));
	while (n < *count && (value = gate_user_map_entry(fd, at + n, &key)) != NULL) {
		memcpy((uint8_t *)keys + n * gate_user_map_key(fd), key, gate_user_map_key(fd));
		memcpy((uint8_t *)values + n * gate_user_map_value(fd), value, gate_user_map_value(fd));
		n++;
	}
	at += n;
	memcpy(out_batch, &at, sizeof(at));
	value = gate_user_map_entry(fd, at, &key);
	*count = n;
	return value != NULL ? 0 : done(-ENOENT);
}

int bpf_prog_test_run_opts(int fd, struct bpf_test_run_opts *opts)
{
	/* gate_reap is the only program that user space runs by itself. */
	void *copy = malloc(opts->data_size_in);

	(void)fd;
	if (copy == NULL)
		abort();
	memcpy(copy, opts->data_in, opts->data_size_in);
	opts->retval = (__u32)gate_user_reap(copy, opts->data_size_in);
	free(copy);
	return 0;
}

void gate_dp_clock(struct gate_dp *dp)
{
	(void)dp;
}

void gate_neighbours_confirm(struct gate_neighbours *n)
{
	(void)n;
}

void gate_neighbour_service(struct gate_neighbours *n, const struct wn_addr *ip, uint64_t now_ms)
{
	(void)n;
	(void)ip;
	(void)now_ms;
}

/* Next hops are looked up as the kernel would. */
void gate_routes_tick(struct gate_routes *r, uint64_t now_ns)
{
	(void)r;
	(void)now_ns;
}

bool gate_dp_draining(const struct gate_dp *dp)
{
	return dp->meta->drain != 0;
}

static void *all_of(enum gate_user_map m)
{
	const uint32_t zero = 0;

	return gate_user_map_lookup((int)m, &zero);
}

static void *zeroed(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (p == NULL)
		abort();
	return p;
}

void gate_user_close(void)
{
	gate_user_programs_clear();
	if (gate_user_dp != NULL) {
		gate_users_free(gate_user_dp->users);
		free(gate_user_dp->free_index);
		free(gate_user_dp->free_since);
		free(gate_user_dp->zeroes);
	}
	free(gate_user_dp);
	gate_user_dp = NULL;
}

static void fill_tenants(struct gate_dp *dp)
{
	for (unsigned s = 0; s < GATE_TENANT_SLOTS; s++)
		dp->tenant_of[s] = -1;
	for (uint32_t t = 0; t < dp->cfg.ntenant; t++) {
		dp->slot_of[t] = t;
		dp->tenant_of[t] = (int32_t)t;
		dp->meta->tenant_name[t] = t + 1;
		for (unsigned i = 0; i < dp->cfg.tenant[t].nprefix; i++) {
			struct gate_prefix_key k = {.bits = dp->cfg.tenant[t].prefix[i].bits - 96u};

			memcpy(&k.ip, dp->cfg.tenant[t].prefix[i].ip + 12, 4);
			gate_user_map_update(GATE_USER_PREFIXES, &k, &t, 0);
		}
	}
}

static void fill(struct gate_dp *dp, const struct gate_params *p)
{
	dp->lock = -1;
	dp->cpus = 1;
	dp->nholes = dp->cfg.holes;
	dp->nports = (dp->cfg.npublic * GATE_PROTOS) << 16;
	dp->ports = all_of(GATE_USER_PORTS);
	dp->grants = all_of(GATE_USER_GRANTS);
	dp->infos = all_of(GATE_USER_INFOS);
	dp->user = all_of(GATE_USER_USERS);
	if (gate_users_new(dp->user, dp->nholes, &dp->users) < 0)
		abort();
	dp->meta = all_of(GATE_USER_META);
	dp->filter.words = all_of(GATE_USER_FILTER);
	dp->filter.anyone = all_of(GATE_USER_ANYONE);
	dp->filter.size = p->filter;
	dp->zeroes = zeroed(1, sizeof(*dp->zeroes));
	dp->holes_fd = GATE_USER_HOLES;
	dp->mappings_fd = GATE_USER_MAPPINGS;
	dp->flows_fd = GATE_USER_FLOWS;
	dp->services_fd = GATE_USER_SERVICES;
	dp->waiting_fd = GATE_USER_WAITING;
	/* IPv6 is not of this path: its tables stay empty. */
	dp->flows6_fd = dp->services6_fd = dp->waiting6_fd = GATE_USER_EMPTY;
	dp->usage_fd = GATE_USER_USAGE;
	dp->counters_fd = GATE_USER_COUNTERS;
	dp->budgets_fd = GATE_USER_BUDGETS;
	memcpy(dp->meta->public_ip, p->public_ip, sizeof(dp->meta->public_ip));
	dp->meta->port_low = p->port_low;
	dp->meta->port_span = p->port_span;
	dp->meta->generation = dp->meta->boot_id = 1;
	dp->free_index = zeroed(dp->nholes, sizeof(*dp->free_index));
	dp->free_since = zeroed(dp->nholes, sizeof(*dp->free_since));
	fill_tenants(dp);
}

void gate_user_open(const struct gate_config *cfg, const struct gate_user_net *net)
{
	const size_t size[GATE_USER_MAPS] = {[GATE_USER_PORTS] = (size_t)(cfg->npublic * GATE_PROTOS) << 16,
					     [GATE_USER_GRANTS] = cfg->holes,
					     [GATE_USER_INFOS] = cfg->holes,
					     [GATE_USER_USERS] = cfg->holes + 1,
					     [GATE_USER_HOLES] = cfg->holes,
					     [GATE_USER_MAPPINGS] = cfg->mappings,
					     [GATE_USER_FLOWS] = cfg->flows + (size_t)4 * cfg->holes,
					     [GATE_USER_SERVICES] = 4096,
					     [GATE_USER_FILTER] = (size_t)2 * gate_filter_words(gate_filter_size(cfg)),
					     [GATE_USER_ANYONE] = (size_t)((cfg->npublic * GATE_PROTOS) << 16) / 64};
	struct gate_params p = {.npublic = cfg->npublic,
				.firewall = cfg->firewall,
				.self_ip[GATE_OUTSIDE] = net->self,
				.port_low = cfg->port_low,
				.port_span = (uint32_t)cfg->port_high - cfg->port_low + 1,
				.control_ip = gate_ip4(&cfg->control),
				.self_ip[GATE_INSIDE] = gate_ip4(&cfg->control),
				.control_port = htons(cfg->control.port),
				.ntenant = (uint16_t)cfg->ntenant,
				.tenant_flows = cfg->flows,
				.sessions = cfg->flows,
				.filter = gate_filter_size(cfg)};

	gate_user_close();
	for (unsigned i = 0; i < cfg->npublic; i++)
		p.public_ip[i] = gate_ip4(&cfg->public[i]);
	gate_public_places(&p);
	gate_user_programs(&p, net, size);
	gate_user_dp = zeroed(1, sizeof(*gate_user_dp));
	gate_user_dp->cfg = *cfg;
	fill(gate_user_dp, &p);
	/* Nothing is adopted: all places are free. */
	for (uint32_t i = 0; i < cfg->holes; i++)
		gate_user_dp->free_index[gate_user_dp->free_count++] = i;
}
