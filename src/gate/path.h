/* SPDX-License-Identifier: Apache-2.0 */
/** \file Inside the packet path's user-space half: shared by dataplane.c, grants.c, sweep.c, neighbour.c, hostcheck.c and their tests only.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "gate/bpf/shared.h"
#include "gate/dataplane.h"

struct gate_bpf; /* the skeleton */
struct gate_neighbours;
struct gate_routes;
struct gate_users;
struct gate_trace_want;

#define GATE_SLOT_REST_MS 50 /* a freed hole's place is not filled again before the packets that saw the old one are gone */
#define GATE_PINS         17

/** A memory-mapped array map. */
struct gate_view {
	void *p;
	size_t bytes;
};

/** The filter in front of the tables, as the writer fills it. */
struct gate_filter {
	struct gate_view view, anyone_view;
	__u64 *words;                 /* two halves */
	__u64 *anyone;                /* a bit for each place of `ports` */
	struct gate_filter_size size; /* of one half */
	bool filling, flows_done;
	uint32_t hole_cursor;
	uint64_t since_ms; /* when the halves were swapped last */
};

struct gate_dp {
	struct gate_config cfg;
	struct gate_bpf *skel;
	struct gate_view ports_view, grants_view, infos_view, users_view, meta_view, hops_view;
	struct gate_port *ports;
	struct gate_grant *grants;
	struct gate_info *infos;
	struct gate_user *user; /* by place */
	struct gate_users *users;
	struct gate_meta *meta;
	struct gate_filter filter;
	__u64 *slept; /* in the programs' data */
	int holes_fd, mappings_fd, usage_fd, counters_fd, budgets_fd, samples_fd, path_fd[GATE_SIDES], path6_fd[GATE_SIDES];
	int flows_fd, services_fd, waiting_fd, reap_fd;     /* IPv4 */
	int flows6_fd, services6_fd, waiting6_fd, reap6_fd; /* the same for IPv6 */
	int programs6_fd;
	struct gate_trace_want *trace; /* in the programs' data */
	struct ring_buffer *events;
	struct gate_neighbours *neighbours;
	struct gate_routes *routes;
	int wake; /* epoll: events, and the routes' */
	int lock; /* the state directory, flocked: one writer */
	uint32_t nholes, nports;

	/* A tenant of the file keeps its slot over restarts, whatever its place in the file. */
	uint32_t slot_of[GATE_TENANTS_MAX];
	int32_t tenant_of[GATE_TENANT_SLOTS]; /* -1: not in the file */
	uint32_t open_holes[GATE_TENANT_SLOTS];
	uint32_t live;

	/* Free places, oldest first. */
	uint32_t *free_index;
	uint64_t *free_since; /* ms, by place in the ring */
	uint32_t free_head, free_count;

	uint32_t ifindex[GATE_SIDES];
	uint64_t swept_full_ms, neighbours_ms;
	uint32_t hole_cursor, port_cursor;
	struct {
		bool going;
		uint32_t token;
	} cursor[5]; /* walks that go on at the next sweep */
	int cpus;
	uint64_t *zeroes; /* one for each CPU */
};

/* Words that the packet path reads or writes at the same time. */
static inline uint64_t load64(const __u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static inline void store64(__u64 *p, uint64_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static inline bool swap64(__u64 *p, uint64_t was, uint64_t is)
{
	__u64 expected = was;

	return __atomic_compare_exchange_n(p, &expected, is, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* hostcheck.c: what must be so before the path is attached; each failure is one line on stderr. */
int gate_host_check(const struct gate_config *cfg, uint32_t ifindex[GATE_SIDES], uint8_t mac[GATE_SIDES][8]);
/** Fills in self_ip and self_ip6; what there is none of stays zero. */
void gate_host_addresses(const struct gate_config *cfg, struct gate_params *p);
/** Makes the state directory on a mounted bpf file system and locks it. \return the descriptor or negative errno. */
int gate_state_dir(const char *path);

static inline void gate_pin_path(const struct gate_config *cfg, const char *name, char *out, size_t cap)
{
	snprintf(out, cap, "%s/%s", cfg->state, name);
}

/* dataplane.c */
/** Tells the path how long the machine has slept since it was started. */
void gate_dp_clock(struct gate_dp *dp);

/* pins.c */
/** What the pinned tables must have been made for. */
void gate_pins_want(const struct gate_config *cfg, struct gate_meta *m);
/** Whether the pinned tables are ours and fit the file. old: what they say of themselves, zeroed if that cannot be known. */
bool gate_pins_fit(const struct gate_config *cfg, struct gate_meta *old);
/** Before the load: these maps are the pinned ones. \return 0 or negative errno. */
int gate_pins_reuse(struct gate_bpf *s, const struct gate_config *cfg);
/** Pins all maps of a fresh load, in the place of those that are there. \return 0 or negative errno. */
int gate_pins_write(struct gate_bpf *s, const struct gate_config *cfg);

/* links.c: holds the programs on both interfaces by pinned links; a link that is there is given the new program in one instant.
 * \return 0 or negative errno with a line on stderr. */
int gate_links_attach(struct gate_dp *dp);
/** Takes the program of a pinned link off its interface, at once, and unpins it. \return 0, also when there is none, or negative errno. */
int gate_link_remove(const char *path);

/* grants.c */
/** Rebuilds what is only in memory from the pinned tables: live holes, quotas, free places; closes what the file no longer allows. */
int gate_grants_adopt(struct gate_dp *dp);
void gate_grant_close(struct gate_dp *dp, uint32_t index, uint64_t now_ms);
/** Reads the path's state of a hole. \return false when it is not (yet) that of the grant there. */
bool gate_hole_read(const struct gate_dp *dp, uint32_t index, struct gate_hole *out);
/** Whether the path would refuse every packet of this hole from now on. */
bool gate_hole_over(const struct gate_dp *dp, uint32_t index, uint64_t now_ns);
/** Fills in where each public address is found: needs public_ip and npublic. The addresses differ. */
void gate_public_places(struct gate_params *p);
/** Its place in the pool or among the protected addresses of its family, or -1. */
int gate_public_index(const struct gate_dp *dp, const struct wn_addr *ip);
bool gate_tenant_has(const struct gate_tenant *t, const struct wn_addr *ip);
static inline uint32_t gate_ip4(const struct wn_addr *a)
{
	return (uint32_t)a->ip[12] | (uint32_t)a->ip[13] << 8 | (uint32_t)a->ip[14] << 16 | (uint32_t)a->ip[15] << 24;
}

/* filter.c */
/** Of one half. */
struct gate_filter_size gate_filter_size(const struct gate_config *cfg);
static inline uint32_t gate_filter_words(struct gate_filter_size s)
{
	return s.sessions + s.holes;
}
/** A hole comes or goes. Before its id is published; before its port is given up. */
void gate_filter_open(struct gate_dp *dp, uint32_t index);
void gate_filter_close(struct gate_dp *dp, uint32_t index);
/** A session was met on a walk through all. */
void gate_filter_keep(struct gate_dp *dp, const struct gate_key *k, const struct gate_flow *f);
/** \return true: the walk must begin anew. */
bool gate_filter_begin(struct gate_dp *dp, uint64_t now_ms);
/** flows_done: the walk has met every session. */
void gate_filter_sweep(struct gate_dp *dp, bool flows_done, uint64_t now_ms);
/** As the packet path has it. */
static inline void gate_addr_from(union gate_addr *out, const struct wn_addr *a)
{
	memset(out, 0, sizeof(*out));
	if (wn_addr_is4(a))
		memcpy(&out->ip4, a->ip + 12, 4);
	else
		memcpy(&out->ip6, a->ip, 16);
}
/** port in network order. */
static inline void gate_addr_to(struct wn_addr *out, const union gate_addr *a, bool ip6, uint16_t port)
{
	memset(out, 0, sizeof(*out));
	if (ip6) {
		memcpy(out->ip, &a->ip6, 16);
	} else {
		out->ip[10] = out->ip[11] = 0xff;
		memcpy(out->ip + 12, &a->ip4, 4);
	}
	out->port = (uint16_t)(port >> 8 | port << 8);
}

/* waiting.c: the holes that the packet path finds by their remote, which are those without translation */
/** Whether a grant is of that kind. */
static inline bool gate_grant_plain(const struct gate_dp *dp, const struct gate_grant *g)
{
	return dp->cfg.firewall || (g->flags & GATE_GRANT_IP6) != 0;
}
/** Lets its first packet find this grant. \return 0; -EBUSY when GATE_WAITING others wait for the same remote at this port, or one for
 * whatever remote; another negative errno. */
int gate_waiting_add(struct gate_dp *dp, uint32_t index);
void gate_waiting_remove(struct gate_dp *dp, uint32_t index);
/** Forgets what a writer that was killed between two steps has left. */
void gate_waiting_adopt(struct gate_dp *dp);

/* sweep.c */
void gate_sweep_holes(struct gate_dp *dp, uint64_t now_ms, uint32_t look, uint32_t read);
/** Frees ports whose owner is gone (a writer that was killed between two steps). */
void gate_sweep_ports(struct gate_dp *dp, uint32_t look);

/* neighbour.c */
/** ip6: IPv6 next hops are of interest too. */
int gate_neighbours_new(const uint32_t ifindex[GATE_SIDES], bool ip6, struct gate_neighbours **out);
void gate_neighbours_free(struct gate_neighbours *n);
/** Asks the kernel to find out a next hop's link address. */
void gate_neighbour_resolve(struct gate_neighbours *n, uint32_t ifindex, const struct wn_addr *ip);
/** Has the stale entries of both interfaces confirmed: the packet path uses them without the kernel's knowing. */
void gate_neighbours_confirm(struct gate_neighbours *n);
/** Asks for the gateways of the routes through both interfaces and waits for them, up to half a second, so that the first packets need not
 * be dropped for the want of one. */
void gate_neighbours_gateways(struct gate_neighbours *n);
/** Asks for the next hop to a service that somebody will connect to soon; at most once a second for each. */
void gate_neighbour_service(struct gate_neighbours *n, const struct wn_addr *ip, uint64_t now_ms);
