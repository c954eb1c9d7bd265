/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/dataplane.h"

#include <errno.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/bpf/sample.h"
#include "gate/path.h"
#include "gate/routes.h"
#include "gate/users.h"

#include "gate.skel.h"

#define FLOWS_PER_HOLE 4 /* entries in the flow table beside the sessions': a hole has one, its handshakes others */

/* The end of what the loader said, which is where it says why: shown when a load fails, not before. */
static char loader_log[2048];

__attribute__((format(printf, 2, 0))) static int on_loader(enum libbpf_print_level level, const char *fmt, va_list args)
{
	char *text = NULL;
	int n;

	if (level == LIBBPF_DEBUG)
		return 0;
	n = vasprintf(&text, fmt, args);
	if (n < 0)
		return 0;
	/* "failed to load object" and the like follow the verifier's log: too short to push it out. */
	if ((size_t)n >= sizeof(loader_log) / 2 || loader_log[0] == '\0')
		snprintf(loader_log, sizeof(loader_log), "%s", (size_t)n < sizeof(loader_log) ? text : text + n - sizeof(loader_log) + 1);
	free(text);
	return 0;
}

static uint64_t name_hash(const char *s)
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (; *s != '\0'; s++)
		h = (h ^ (uint8_t)*s) * 0x100000001b3ull;
	return h != 0 ? h : 1;
}

static int check_config(const struct gate_config *cfg)
{
	for (unsigned i = 0; i < cfg->npublic; i++) {
		if (!wn_addr_is4(&cfg->public[i])) {
			wn_err("outside.addresses: only IPv4 addresses can be translated to");
			return -EINVAL;
		}
		for (unsigned j = 0; j < i; j++) {
			if (memcmp(cfg->public[i].ip, cfg->public[j].ip, sizeof(cfg->public[i].ip)) == 0) {
				wn_err("outside.addresses: one of them is there twice");
				return -EINVAL;
			}
		}
	}
	if (cfg->npublic + cfg->nprotected6 == 0 || cfg->npublic > GATE_PUBLIC_SLOTS || cfg->nprotected6 > GATE_PUBLIC_SLOTS ||
	    cfg->ntenant > GATE_TENANT_SLOTS || cfg->port_low == 0 || cfg->port_high < cfg->port_low || cfg->flows == 0 ||
	    cfg->mappings == 0 || cfg->holes == 0 || cfg->holes > (1u << GATE_HOLE_INDEX_BITS)) {
		wn_err("gate: the configuration is out of range");
		return -EINVAL;
	}
	return 0;
}

static void set_sizes(struct gate_bpf *s, const struct gate_config *cfg)
{
	const bool nat = !cfg->firewall && cfg->npublic != 0, ip6 = gate_config_has6(cfg);
	const uint32_t flows = cfg->flows + FLOWS_PER_HOLE * cfg->holes, services = cfg->holes < 1024 ? 4096 : cfg->holes * 4;

	/* Tables that are not needed have one entry: there is none that has none. */
	bpf_map__set_max_entries(s->maps.ports, nat ? (cfg->npublic * GATE_PROTOS) << 16 : 1);
	bpf_map__set_max_entries(s->maps.filter, 2 * gate_filter_words(gate_filter_size(cfg)));
	bpf_map__set_max_entries(s->maps.anyone, nat ? ((cfg->npublic * GATE_PROTOS) << 16) / 64 : 1);
	bpf_map__set_max_entries(s->maps.mappings, nat ? cfg->mappings : 1);
	bpf_map__set_max_entries(s->maps.flows, cfg->npublic != 0 ? flows : 1);
	bpf_map__set_max_entries(s->maps.services, cfg->npublic != 0 ? services : 1);
	bpf_map__set_max_entries(s->maps.waiting, cfg->firewall ? cfg->holes : 1);
	bpf_map__set_max_entries(s->maps.flows6, ip6 ? flows : 1);
	bpf_map__set_max_entries(s->maps.services6, ip6 ? services : 1);
	bpf_map__set_max_entries(s->maps.waiting6, ip6 ? cfg->holes : 1);
	bpf_map__set_max_entries(s->maps.grants, cfg->holes);
	bpf_map__set_max_entries(s->maps.infos, cfg->holes);
	bpf_map__set_max_entries(s->maps.users, cfg->holes + 1);
	bpf_map__set_max_entries(s->maps.holes, cfg->holes);
}

static void fill_params(struct gate_bpf *s, const struct gate_config *cfg, const uint32_t ifindex[GATE_SIDES], uint8_t mac[GATE_SIDES][8],
			uint64_t filter_key)
{
	struct gate_params *p = (struct gate_params *)&s->rodata->gate_params;

	for (int side = 0; side < GATE_SIDES; side++) {
		p->ifindex[side] = ifindex[side];
		memcpy(p->mac[side], mac[side], 6);
	}
	for (unsigned i = 0; i < cfg->npublic; i++)
		p->public_ip[i] = gate_ip4(&cfg->public[i]);
	p->npublic = cfg->npublic;
	gate_public_places(p);
	p->port_low = cfg->port_low;
	p->port_span = (uint32_t)cfg->port_high - cfg->port_low + 1;
	p->firewall = cfg->firewall;
	p->ip6 = gate_config_has6(cfg);
	for (unsigned i = 0; i < cfg->nprotected6; i++)
		memcpy(&p->protected6[i], cfg->protected6[i].ip, 16);
	p->nprotected6 = cfg->nprotected6;
	if (wn_addr_is4(&cfg->control))
		p->control_ip = gate_ip4(&cfg->control);
	else
		memcpy(&p->control_ip6, cfg->control.ip, 16);
	p->control_port = htons(cfg->control.port);
	gate_host_addresses(cfg, p);
	p->ntenant = (uint16_t)cfg->ntenant;
	/* Each may have an even share, twice over where there are several: no tenant can fill the table by itself. */
	p->tenant_flows = cfg->ntenant <= 1 ? cfg->flows : (uint32_t)((uint64_t)cfg->flows * 2 / (cfg->ntenant + 1));
	p->sessions = cfg->flows;
	p->filter = gate_filter_size(cfg);
	p->filter_key = filter_key;
	randombytes_buf(p->port_key, sizeof(p->port_key));
}

static int view(struct bpf_map *map, size_t value, struct gate_view *v)
{
	size_t bytes = bpf_map__max_entries(map) * ((value + 7) & ~(size_t)7), page = (size_t)sysconf(_SC_PAGESIZE);
	void *p;

	bytes = (bytes + page - 1) / page * page;
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bpf_map__fd(map), 0);
	if (p == MAP_FAILED)
		return -errno;
	v->p = p;
	v->bytes = bytes;
	return 0;
}

static void unview(struct gate_view *v)
{
	if (v->p != NULL)
		munmap(v->p, v->bytes);
	v->p = NULL;
}

static int view_all(struct gate_dp *dp)
{
	int rc = view(dp->skel->maps.ports, sizeof(struct gate_port), &dp->ports_view);

	if (rc == 0)
		rc = view(dp->skel->maps.grants, sizeof(struct gate_grant), &dp->grants_view);
	if (rc == 0)
		rc = view(dp->skel->maps.infos, sizeof(struct gate_info), &dp->infos_view);
	if (rc == 0)
		rc = view(dp->skel->maps.users, sizeof(struct gate_user), &dp->users_view);
	if (rc == 0)
		rc = view(dp->skel->maps.meta, sizeof(struct gate_meta), &dp->meta_view);
	if (rc == 0)
		rc = view(dp->skel->maps.filter, sizeof(uint64_t), &dp->filter.view);
	if (rc == 0)
		rc = view(dp->skel->maps.anyone, sizeof(uint64_t), &dp->filter.anyone_view);
	if (rc == 0)
		rc = view(dp->skel->maps.hops, sizeof(struct gate_hop_tables), &dp->hops_view);
	if (rc != 0) {
		wn_err("mapping the tables: %s", strerror(-rc));
		return rc;
	}
	dp->ports = dp->ports_view.p;
	dp->grants = dp->grants_view.p;
	dp->infos = dp->infos_view.p;
	dp->user = dp->users_view.p;
	dp->meta = dp->meta_view.p;
	dp->filter.words = dp->filter.view.p;
	dp->filter.anyone = dp->filter.anyone_view.p;
	dp->filter.size = gate_filter_size(&dp->cfg);
	dp->nholes = dp->cfg.holes;
	dp->nports = dp->cfg.firewall ? 0 : (dp->cfg.npublic * GATE_PROTOS) << 16;
	return 0;
}

/* Gives every tenant of the file a slot: the one it had, else a free one, else one that a vanished tenant no longer needs. */
static int place_tenants(struct gate_dp *dp)
{
	struct gate_usage use;

	for (unsigned s = 0; s < GATE_TENANT_SLOTS; s++)
		dp->tenant_of[s] = -1;
	for (int pass = 0; pass < 3; pass++) {
		for (unsigned t = 0; t < dp->cfg.ntenant; t++) {
			const uint64_t h = name_hash(dp->cfg.tenant[t].name);
			bool placed = false;

			for (uint32_t s = 0; s < GATE_TENANT_SLOTS; s++)
				placed |= dp->tenant_of[s] == (int32_t)t;
			for (uint32_t s = 0; s < GATE_TENANT_SLOTS && !placed; s++) {
				if (dp->tenant_of[s] >= 0)
					continue;
				if (pass == 0 && dp->meta->tenant_name[s] != h)
					continue;
				if (pass == 1 && dp->meta->tenant_name[s] != 0)
					continue;
				if (pass == 2 && (bpf_map_lookup_elem(dp->usage_fd, &s, &use) < 0 || use.sessions != 0))
					continue;
				dp->tenant_of[s] = (int32_t)t;
				dp->slot_of[t] = s;
				dp->meta->tenant_name[s] = h;
				placed = true;
			}
			if (!placed && pass == 2) {
				wn_err("tenants: %s: too many tenants have come and gone; walnut-gate must start afresh (remove %s)",
				       dp->cfg.tenant[t].name, dp->cfg.state);
				return -ENOSPC;
			}
		}
	}
	return 0;
}

static int fill_prefixes(struct gate_dp *dp)
{
	const int fd = bpf_map__fd(dp->skel->maps.prefixes), fd6 = bpf_map__fd(dp->skel->maps.prefixes6);

	for (unsigned t = 0; t < dp->cfg.ntenant; t++) {
		const struct gate_tenant *tn = &dp->cfg.tenant[t];

		for (unsigned i = 0; i < tn->nprefix; i++) {
			struct wn_addr a = {.port = 0};
			struct gate_prefix_key k = {.bits = tn->prefix[i].bits - 96u};
			struct gate_prefix_key6 k6 = {.bits = tn->prefix[i].bits};
			bool is4;

			memcpy(a.ip, tn->prefix[i].ip, sizeof(a.ip));
			is4 = wn_addr_is4(&a);
			k.ip = gate_ip4(&a);
			memcpy(&k6.ip, a.ip, sizeof(k6.ip));
			if (bpf_map_update_elem(is4 ? fd : fd6, is4 ? (const void *)&k : &k6, &dp->slot_of[t], BPF_ANY) < 0) {
				wn_err("tenants: %s: prefix table: %s", tn->name, strerror(errno));
				return -errno;
			}
		}
	}
	return 0;
}

static int fill_devices(struct gate_dp *dp)
{
	const int fd = bpf_map__fd(dp->skel->maps.devices);

	for (uint32_t side = 0; side < GATE_SIDES; side++) {
		if (bpf_map_update_elem(fd, &side, &dp->ifindex[side], BPF_ANY) < 0) {
			wn_err("%s: frames cannot be redirected to it: %s", side == GATE_OUTSIDE ? dp->cfg.outside : dp->cfg.inside,
			       strerror(errno));
			return -errno;
		}
	}
	return 0;
}

static int on_event(void *arg, void *data, size_t size)
{
	struct gate_dp *dp = arg;
	const struct gate_event *e = data;
	struct wn_addr hop;

	if (size >= sizeof(*e) && e->kind == GATE_EVENT_NEIGHBOUR) {
		gate_addr_to(&hop, &e->ip, e->ip6 != 0, 0);
		gate_neighbour_resolve(dp->neighbours, e->ifindex, &hop);
	}
	return 0;
}

static int load(struct gate_dp *dp, bool adopt, uint8_t mac[GATE_SIDES][8], uint64_t filter_key)
{
	int rc;

	loader_log[0] = '\0';
	dp->skel = gate_bpf__open();
	if (dp->skel == NULL) {
		rc = -errno;
		wn_err("eBPF object: %s", strerror(-rc));
		return rc;
	}
	set_sizes(dp->skel, &dp->cfg);
	fill_params(dp->skel, &dp->cfg, dp->ifindex, mac, filter_key);
	if (adopt) {
		rc = gate_pins_reuse(dp->skel, &dp->cfg);
		if (rc != 0) {
			wn_err("state: %s: %s; start afresh by removing it", dp->cfg.state, strerror(-rc));
			return rc;
		}
	}
	rc = gate_bpf__load(dp->skel);
	if (rc != 0)
		wn_err("the kernel refused the packet path (%s): it needs CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON and Linux 5.18 or later: %s",
		       strerror(-rc), loader_log);
	return rc;
}

static int gather(struct gate_dp *dp)
{
	struct gate_bpf *s = dp->skel;
	int rc;

	dp->holes_fd = bpf_map__fd(s->maps.holes);
	dp->mappings_fd = bpf_map__fd(s->maps.mappings);
	dp->flows_fd = bpf_map__fd(s->maps.flows);
	dp->services_fd = bpf_map__fd(s->maps.services);
	dp->waiting_fd = bpf_map__fd(s->maps.waiting);
	dp->flows6_fd = bpf_map__fd(s->maps.flows6);
	dp->services6_fd = bpf_map__fd(s->maps.services6);
	dp->waiting6_fd = bpf_map__fd(s->maps.waiting6);
	dp->programs6_fd = bpf_map__fd(s->maps.programs6);
	dp->usage_fd = bpf_map__fd(s->maps.usage);
	dp->counters_fd = bpf_map__fd(s->maps.counters);
	dp->budgets_fd = bpf_map__fd(s->maps.budgets);
	dp->samples_fd = bpf_map__fd(s->maps.samples);
	dp->trace = &s->bss->gate_trace_want;
	dp->slept = &s->bss->gate_slept;
	gate_dp_clock(dp);
	dp->reap_fd = bpf_program__fd(s->progs.gate_reap);
	dp->reap6_fd = bpf_program__fd(s->progs.gate_reap6);
	dp->path_fd[GATE_OUTSIDE] = bpf_program__fd(s->progs.gate_outside);
	dp->path_fd[GATE_INSIDE] = bpf_program__fd(s->progs.gate_inside);
	dp->path6_fd[GATE_OUTSIDE] = bpf_program__fd(s->progs.gate_outside6);
	dp->path6_fd[GATE_INSIDE] = bpf_program__fd(s->progs.gate_inside6);
	dp->cpus = libbpf_num_possible_cpus();
	dp->zeroes = calloc((size_t)(dp->cpus > 0 ? dp->cpus : 1), sizeof(*dp->zeroes));
	dp->free_index = calloc(dp->cfg.holes, sizeof(*dp->free_index));
	dp->free_since = calloc(dp->cfg.holes, sizeof(*dp->free_since));
	if (dp->cpus < 1 || dp->free_index == NULL || dp->free_since == NULL || dp->zeroes == NULL)
		return -ENOMEM;
	rc = view_all(dp);
	return rc == 0 ? gate_users_new(dp->user, dp->nholes, &dp->users) : rc;
}

void gate_dp_clock(struct gate_dp *dp)
{
	*(volatile __u64 *)dp->slept = wn_slept_ns();
}

/* The first and only time for these tables. */
static int begin(struct gate_dp *dp, const struct gate_meta *old)
{
	struct gate_meta m;
	int rc;

	gate_pins_want(&dp->cfg, &m);
	randombytes_buf(&m.boot_id, sizeof(m.boot_id));
	m.boot_id |= 1;
	m.generation = wn_unix_ms(); /* holes of earlier tables had lower ones */
	m.filter_key = dp->skel->rodata->gate_params.filter_key;
	m.generic = old->generic;
	m.drain = old->drain; /* the operator's word outlives the tables it was given for */
	*dp->meta = m;
	rc = gate_pins_write(dp->skel, &dp->cfg);
	if (rc != 0) {
		wn_err("state: %s: %s", dp->cfg.state, strerror(-rc));
		return rc;
	}
	return 0;
}

static int listen_to_kernel(struct gate_dp *dp)
{
	struct epoll_event any = {.events = EPOLLIN};
	int rc = 0;

	dp->events = ring_buffer__new(bpf_map__fd(dp->skel->maps.events), on_event, dp, NULL);
	dp->wake = epoll_create1(EPOLL_CLOEXEC);
	if (dp->events == NULL || dp->wake < 0 || epoll_ctl(dp->wake, EPOLL_CTL_ADD, ring_buffer__epoll_fd(dp->events), &any) < 0 ||
	    epoll_ctl(dp->wake, EPOLL_CTL_ADD, gate_routes_fd(dp->routes), &any) < 0) {
		rc = -errno;
		wn_err("event buffer: %s", strerror(-rc));
	}
	return rc;
}

int gate_dp_open(const struct gate_config *cfg, struct gate_dp **out)
{
	uint8_t mac[GATE_SIDES][8] = {{0}};
	struct gate_dp *dp;
	struct gate_meta old;
	uint64_t filter_key;
	bool adopt;
	int rc;

	if (sodium_init() < 0)
		return -EIO;
	dp = calloc(1, sizeof(*dp));
	if (dp == NULL)
		return -ENOMEM;
	dp->cfg = *cfg;
	dp->lock = dp->wake = -1;
	libbpf_set_print(on_loader);
	rc = check_config(cfg);
	if (rc == 0)
		rc = gate_host_check(cfg, dp->ifindex, mac);
	if (rc != 0)
		goto fail;
	dp->lock = gate_state_dir(cfg->state);
	if (dp->lock < 0) {
		rc = dp->lock;
		goto fail;
	}
	adopt = gate_pins_fit(cfg, &old);
	filter_key = old.filter_key;
	if (!adopt)
		randombytes_buf(&filter_key, sizeof(filter_key));
	rc = load(dp, adopt, mac, filter_key);
	if (rc == 0)
		rc = gather(dp);
	if (rc == 0 && !adopt)
		rc = begin(dp, &old);
	if (rc == 0)
		rc = gate_neighbours_new(dp->ifindex, gate_config_has6(cfg), &dp->neighbours);
	if (rc == 0)
		rc = gate_routes_new(dp->ifindex, dp->hops_view.p, &dp->routes);
	if (rc == 0)
		rc = place_tenants(dp);
	if (rc == 0)
		rc = fill_prefixes(dp);
	if (rc == 0)
		rc = fill_devices(dp);
	if (rc == 0)
		rc = gate_grants_adopt(dp);
	if (rc != 0)
		goto fail;
	rc = listen_to_kernel(dp);
	if (rc != 0)
		goto fail;
	rc = gate_links_attach(dp);
	if (rc != 0)
		goto fail;
	dp->meta->ready = 1;
	gate_neighbours_gateways(dp->neighbours);
	wn_info("packet path on %s and %s, %s: %u holes open", cfg->outside, cfg->inside, adopt ? "adopted" : "fresh", dp->live);
	if (gate_dp_draining(dp))
		wn_warn("draining: no new holes are granted until `walnut gate drain off`");
	*out = dp;
	return 0;
fail:
	gate_dp_close(dp);
	return rc;
}

void gate_dp_close(struct gate_dp *dp)
{
	if (dp == NULL)
		return;
	if (dp->wake >= 0)
		close(dp->wake);
	ring_buffer__free(dp->events);
	gate_neighbours_free(dp->neighbours);
	gate_routes_free(dp->routes);
	unview(&dp->ports_view);
	unview(&dp->grants_view);
	unview(&dp->infos_view);
	unview(&dp->users_view);
	unview(&dp->meta_view);
	unview(&dp->filter.view);
	unview(&dp->filter.anyone_view);
	unview(&dp->hops_view);
	gate_bpf__destroy(dp->skel);
	gate_users_free(dp->users);
	free(dp->free_index);
	free(dp->free_since);
	free(dp->zeroes);
	if (dp->lock >= 0)
		close(dp->lock);
	free(dp);
}

void gate_dp_drain(struct gate_dp *dp, bool on)
{
	__atomic_store_n(&dp->meta->drain, on ? 1u : 0u, __ATOMIC_RELEASE);
}

bool gate_dp_draining(const struct gate_dp *dp)
{
	return dp->meta->drain != 0;
}

int gate_dp_fd(const struct gate_dp *dp)
{
	return dp->wake;
}

void gate_dp_events(struct gate_dp *dp)
{
	ring_buffer__consume(dp->events);
	gate_routes_changed(dp->routes, wn_now_ns());
}

int gate_dp_counters(struct gate_dp *dp, void (*cb)(const char *name, int is_drop, uint64_t value, void *arg), void *arg)
{
	uint64_t *value = calloc((size_t)dp->cpus, sizeof(*value)), sum[GATE_REASON_COUNT] = {0}, flows = 0;
	const uint32_t all = GATE_USAGE_ALL;
	struct gate_usage use;
	int rc = 0;

	if (value == NULL)
		return -ENOMEM;
	for (uint32_t r = 0; r < GATE_REASON_COUNT; r++) {
		if (bpf_map_lookup_elem(dp->counters_fd, &r, value) < 0) {
			rc = -errno;
			goto done;
		}
		for (int i = 0; i < dp->cpus; i++)
			sum[r] += value[i];
	}
	for (int drops = 1; drops >= 0; drops--)
		for (uint32_t r = GATE_R_OK + 1; r < GATE_REASON_COUNT; r++)
			if (gate_reason_is_drop(r) == (drops != 0))
				cb(gate_reason_name(r), drops, sum[r], arg);
	if (bpf_map_lookup_elem(dp->usage_fd, &all, &use) == 0)
		flows = use.sessions;
	cb("flows", 0, flows, arg);
	cb("holes", 0, dp->live, arg);
	cb("draining", 0, gate_dp_draining(dp), arg);
	cb("next_hops", 0, gate_routes_known(dp->routes, wn_now_ns()), arg);
done:
	free(value);
	return rc;
}
