/* SPDX-License-Identifier: Apache-2.0 */
/* The tables' names in the bpf file system: what outlives the daemon, and whether the next one may take it over. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "gate/bpf/sample.h"
#include "gate/path.h"

#include "gate.skel.h"

struct pin {
	struct bpf_map *map;
	const char *name;
};

/* Every map that outlives the load; meta comes last. */
static void pins_of(struct gate_bpf *s, struct pin out[static GATE_PINS])
{
	const struct pin all[GATE_PINS] = {{s->maps.ports, "ports"},         {s->maps.filter, "filter"},     {s->maps.grants, "grants"},
					   {s->maps.infos, "infos"},         {s->maps.users, "users"},       {s->maps.holes, "holes"},
					   {s->maps.mappings, "mappings"},   {s->maps.flows, "flows"},       {s->maps.flows6, "flows6"},
					   {s->maps.waiting, "waiting"},     {s->maps.waiting6, "waiting6"}, {s->maps.services, "services"},
					   {s->maps.services6, "services6"}, {s->maps.usage, "usage"},       {s->maps.counters, "counters"},
					   {s->maps.programs6, "programs6"}, {s->maps.meta, "meta"}};

	memcpy(out, all, sizeof(all));
}

void gate_pins_want(const struct gate_config *cfg, struct gate_meta *m)
{
	memset(m, 0, sizeof(*m));
	m->abi = GATE_ABI;
	m->sizes[0] = cfg->flows;
	m->sizes[1] = cfg->mappings;
	m->sizes[2] = cfg->holes;
	m->sizes[3] = GATE_REASON_COUNT;
	m->sizes[4] = sizeof(struct gate_flow);
	m->sizes[5] = sizeof(struct gate_grant);
	m->sizes[6] = sizeof(struct gate_hole);
	m->sizes[7] = sizeof(struct gate_meta);
	/* Protected addresses may come and go: their flows do not depend on their place. */
	for (unsigned i = 0; i < cfg->npublic && !cfg->firewall; i++)
		m->public_ip[i] = gate_ip4(&cfg->public[i]);
	m->firewall = cfg->firewall;
	m->ip6 = gate_config_has6(cfg);
	m->port_low = cfg->port_low;
	m->port_span = (uint32_t)cfg->port_high - cfg->port_low + 1;
}

bool gate_pins_fit(const struct gate_config *cfg, struct gate_meta *old)
{
	struct gate_meta want, have;
	struct bpf_map_info info;
	uint32_t len = sizeof(info), zero = 0;
	char path[320];
	bool fit = false;
	int fd;

	memset(old, 0, sizeof(*old));
	gate_pin_path(cfg, "meta", path, sizeof(path));
	fd = bpf_obj_get(path);
	if (fd < 0)
		return false;
	memset(&info, 0, sizeof(info));
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == BPF_MAP_TYPE_ARRAY && info.value_size == sizeof(have) &&
	    bpf_map_lookup_elem(fd, &zero, &have) == 0) {
		if (have.abi == GATE_ABI && have.sizes[7] == sizeof(have))
			*old = have;
		gate_pins_want(cfg, &want);
		fit = have.ready == 1 && have.abi == want.abi && memcmp(have.sizes, want.sizes, sizeof(want.sizes)) == 0 &&
		      memcmp(have.public_ip, want.public_ip, sizeof(want.public_ip)) == 0 && have.port_low == want.port_low &&
		      have.port_span == want.port_span && have.firewall == want.firewall && have.ip6 == want.ip6;
		if (!fit)
			wn_warn("state: %s was made for another configuration or version; open flows end", cfg->state);
	}
	close(fd);
	return fit;
}

int gate_pins_reuse(struct gate_bpf *s, const struct gate_config *cfg)
{
	struct pin pin[GATE_PINS];
	char path[320];
	int fd, rc;

	pins_of(s, pin);
	for (unsigned i = 0; i < GATE_PINS; i++) {
		gate_pin_path(cfg, pin[i].name, path, sizeof(path));
		fd = bpf_obj_get(path);
		if (fd < 0)
			return -errno;
		rc = bpf_map__reuse_fd(pin[i].map, fd);
		close(fd);
		if (rc < 0)
			return rc;
	}
	return 0;
}

int gate_pins_write(struct gate_bpf *s, const struct gate_config *cfg)
{
	struct pin pin[GATE_PINS];
	char path[320];

	pins_of(s, pin);
	for (unsigned i = GATE_PINS; i-- > 0;) { /* meta goes first: what is half replaced is not adopted */
		gate_pin_path(cfg, pin[i].name, path, sizeof(path));
		if (unlink(path) < 0 && errno != ENOENT)
			return -errno;
	}
	for (unsigned i = 0; i < GATE_PINS; i++) {
		gate_pin_path(cfg, pin[i].name, path, sizeof(path));
		if (bpf_obj_pin(bpf_map__fd(pin[i].map), path) < 0)
			return -errno;
	}
	return 0;
}

int gate_dp_remove(const struct gate_config *cfg)
{
	static const char *const names[] = {"link_outside", "link_inside", "meta",     "ports",    "filter",   "grants",  "infos",
					    "users",        "holes",       "mappings", "flows",    "flows6",   "waiting", "waiting6",
					    "services",     "services6",   "usage",    "counters", "programs6"};
	const unsigned links = GATE_SIDES;
	char path[320];
	int rc = 0, lock = gate_state_dir(cfg->state);

	if (lock < 0)
		return lock;
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int gone;

		gate_pin_path(cfg, names[i], path, sizeof(path));
		gone = i < links ? gate_link_remove(path) : unlink(path) < 0 && errno != ENOENT ? -errno : 0;
		if (gone < 0) {
			rc = gone;
			wn_err("state: %s: %s", path, strerror(-rc));
		}
	}
	close(lock);
	if (rc == 0 && rmdir(cfg->state) < 0 && errno != ENOTEMPTY && errno != EBUSY)
		rc = -errno;
	return rc;
}
