/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "gate/path.h"

/* Where a grant waits. */
struct at {
	int fd;
	union {
		struct gate_waiting_key k4;
		struct gate_waiting_key6 k6;
	};
};

static void at_of(const struct gate_dp *dp, const struct gate_grant *g, struct at *at)
{
	memset(at, 0, sizeof(*at));
	if (g->flags & GATE_GRANT_IP6) {
		at->fd = dp->waiting6_fd;
		at->k6.local_ip = g->inside.ip6;
		at->k6.remote_ip = g->remote.ip6;
		at->k6.local_port = g->inside_port;
		at->k6.proto = g->proto;
	} else {
		at->fd = dp->waiting_fd;
		at->k4.local_ip = g->inside.ip4;
		at->k4.remote_ip = g->remote.ip4;
		at->k4.local_port = g->inside_port;
		at->k4.proto = g->proto;
	}
}

/* Whether this place is still waiting there. */
static bool waits(const struct gate_dp *dp, const struct at *at, uint32_t place)
{
	struct gate_hole h;
	struct at is;

	if (place == 0 || place > dp->nholes || load64(&dp->grants[place - 1].id) == 0)
		return false;
	at_of(dp, &dp->grants[place - 1], &is);
	if (is.fd != at->fd || memcmp(&is.k6, &at->k6, sizeof(is.k6)) != 0)
		return false;
	/* Its flow is in the flow table from now on. */
	return !(gate_hole_read(dp, place - 1, &h) && h.bound);
}

/* Writes those that wait, in their order. \return 0 or negative errno. */
static int put(const struct at *at, const struct gate_waiting *w)
{
	int rc = w->place[0] != 0 ? bpf_map_update_elem(at->fd, &at->k4, w, BPF_ANY) : bpf_map_delete_elem(at->fd, &at->k4);

	return rc < 0 && !(w->place[0] == 0 && errno == ENOENT) ? -errno : 0;
}

/* Those that still wait, but for `but`. \return how many. */
static unsigned compact(const struct gate_dp *dp, const struct at *at, uint32_t but, struct gate_waiting *w)
{
	struct gate_waiting out = {{0}};
	unsigned n = 0;

	for (unsigned i = 0; i < GATE_WAITING; i++)
		if (w->place[i] != but && waits(dp, at, w->place[i]))
			out.place[n++] = w->place[i];
	*w = out;
	return n;
}

static bool any_remote(const struct gate_grant *g)
{
	static const struct gate_ip6 none;

	return memcmp(&g->remote.ip6, &none, sizeof(none)) == 0;
}

int gate_waiting_add(struct gate_dp *dp, uint32_t index)
{
	struct gate_waiting w;
	struct at at;
	unsigned n = 0;
	int rc;

	at_of(dp, &dp->grants[index], &at);
	if (bpf_map_lookup_elem(at.fd, &at.k4, &w) == 0)
		n = compact(dp, &at, index + 1, &w);
	else
		memset(&w, 0, sizeof(w));
	/* Of those who come from anywhere there is one: a stranger's packet must not have us try key after key. */
	if (n == (any_remote(&dp->grants[index]) ? 1 : GATE_WAITING))
		return -EBUSY;
	w.place[n] = index + 1;
	rc = put(&at, &w);
	if (rc != 0)
		wn_err("table of waiting holes: %s", strerror(-rc));
	return rc;
}

void gate_waiting_remove(struct gate_dp *dp, uint32_t index)
{
	struct gate_waiting w;
	struct at at;

	at_of(dp, &dp->grants[index], &at);
	if (bpf_map_lookup_elem(at.fd, &at.k4, &w) < 0)
		return;
	compact(dp, &at, index + 1, &w);
	put(&at, &w);
}

static void adopt(const struct gate_dp *dp, int fd, size_t key_size)
{
	struct gate_waiting w;
	struct at at, next;
	unsigned n;
	bool more;

	memset(&next, 0, sizeof(next));
	more = bpf_map_get_next_key(fd, NULL, &next.k4) == 0;
	while (more) {
		memset(&at, 0, sizeof(at));
		at.fd = fd;
		memcpy(&at.k6, &next.k6, key_size);
		more = bpf_map_get_next_key(fd, &at.k4, &next.k4) == 0;
		if (bpf_map_lookup_elem(fd, &at.k4, &w) < 0)
			continue;
		for (n = 0; n < GATE_WAITING && w.place[n] != 0; n++)
			;
		if (compact(dp, &at, 0, &w) != n)
			put(&at, &w);
	}
}

void gate_waiting_adopt(struct gate_dp *dp)
{
	adopt(dp, dp->waiting_fd, sizeof(struct gate_waiting_key));
	adopt(dp, dp->waiting6_fd, sizeof(struct gate_waiting_key6));
}
