/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/if_link.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "gate/path.h"

static const char *const link_names[GATE_SIDES] = {"link_outside", "link_inside"};

/* Taken off before it is forgotten: the kernel lets go of a link that nobody holds when it finds the time, and until then the interface is
 * taken. */
int gate_link_remove(const char *path)
{
	int fd = bpf_obj_get(path);

	if (fd >= 0) {
		bpf_link_detach(fd);
		close(fd);
	}
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* A link that is pinned and still holds this interface, or -1. */
static int pinned_link(const char *path, uint32_t ifindex)
{
	struct bpf_link_info info;
	uint32_t len = sizeof(info);
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return -1;
	memset(&info, 0, sizeof(info));
	if (bpf_obj_get_info_by_fd(fd, &info, &len) == 0 && info.type == BPF_LINK_TYPE_XDP && info.xdp.ifindex == ifindex)
		return fd;
	close(fd);
	gate_link_remove(path);
	return -1;
}

static int update_link(struct gate_dp *dp, int side, int link)
{
	/* One instant: each packet meets the old program or the new one. */
	int rc = bpf_link_update(link, dp->path_fd[side], NULL) < 0 ? -errno : 0;

	if (rc != 0)
		wn_err("%s: replacing its program: %s", side == GATE_OUTSIDE ? dp->cfg.outside : dp->cfg.inside, strerror(-rc));
	close(link);
	return rc;
}

/* \return 0; -EOPNOTSUPP when the driver takes no program; another negative errno with a line on stderr. */
static int create_link(struct gate_dp *dp, int side, const char *path)
{
	const char *name = side == GATE_OUTSIDE ? dp->cfg.outside : dp->cfg.inside, *key = side == GATE_OUTSIDE ? "outside" : "inside";
	const bool generic = dp->meta->generic != 0;
	const struct bpf_link_create_opts opts = {.sz = sizeof(opts), .flags = generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE};
	int rc = 0, link = bpf_link_create(dp->path_fd[side], (int)dp->ifindex[side], BPF_XDP, &opts);

	if (link < 0) {
		rc = -errno;
		if (rc == -EBUSY || rc == -EEXIST)
			wn_err("%s.interface: %s holds another XDP program; ip link set dev %s xdp off", key, name, name);
		else if (generic)
			wn_err("%s.interface: %s takes no XDP program: %s", key, name, strerror(-rc));
		else if (dp->cfg.mode == GATE_MODE_NATIVE)
			wn_err("mode: native, and the driver of %s takes no program (%s); check its MTU, queues and driver, or let it be "
			       "auto",
			       name, strerror(-rc));
		else {
			wn_warn("%s.interface: the driver of %s takes no program (%s): both interfaces use the slower generic mode; check "
				"its MTU and driver",
				key, name, strerror(-rc));
			rc = -EOPNOTSUPP;
		}
		return rc;
	}
	if (bpf_obj_pin(link, path) < 0) {
		rc = -errno;
		wn_err("state: %s: %s", path, strerror(-rc));
	}
	close(link);
	return rc;
}

/* Native programs can redirect only to devices whose driver takes frames from them: when one side is generic, so is the other. */
int gate_links_attach(struct gate_dp *dp)
{
	char path[GATE_SIDES][320];
	int rc = 0, link[GATE_SIDES];

	/* The programs that are attached hand IPv6 over to these, also the ones of an earlier start for a moment. */
	for (uint32_t side = 0; side < GATE_SIDES && gate_config_has6(&dp->cfg); side++) {
		if (bpf_map_update_elem(dp->programs6_fd, &side, &dp->path6_fd[side], BPF_ANY) < 0) {
			rc = -errno;
			wn_err("programs for IPv6: %s", strerror(-rc));
			return rc;
		}
	}

	for (int side = 0; side < GATE_SIDES; side++) {
		gate_pin_path(&dp->cfg, link_names[side], path[side], sizeof(path[side]));
		link[side] = pinned_link(path[side], dp->ifindex[side]);
	}
	if (link[GATE_OUTSIDE] < 0 && link[GATE_INSIDE] < 0)
		dp->meta->generic = 0; /* other interfaces, perhaps better ones */
	if (dp->cfg.mode != GATE_MODE_AUTO && dp->meta->generic != (dp->cfg.mode == GATE_MODE_GENERIC)) {
		/* A link cannot change its mode. Between the old and the new one nothing passes. */
		for (int side = 0; side < GATE_SIDES; side++) {
			if (link[side] >= 0)
				close(link[side]);
			link[side] = -1;
			gate_link_remove(path[side]);
		}
		dp->meta->generic = dp->cfg.mode == GATE_MODE_GENERIC;
	}
	/* Outside first: nothing is let out before answers find their way in. */
	for (int side = 0; side < GATE_SIDES; side++) {
		if (rc == 0)
			rc = link[side] >= 0 ? update_link(dp, side, link[side]) : create_link(dp, side, path[side]);
		else if (link[side] >= 0)
			close(link[side]);
	}
	if (rc != -EOPNOTSUPP || dp->meta->generic || dp->cfg.mode != GATE_MODE_AUTO)
		return rc;
	dp->meta->generic = 1;
	for (int side = 0; side < GATE_SIDES; side++)
		gate_link_remove(path[side]);
	rc = create_link(dp, GATE_OUTSIDE, path[GATE_OUTSIDE]);
	return rc != 0 ? rc : create_link(dp, GATE_INSIDE, path[GATE_INSIDE]);
}
