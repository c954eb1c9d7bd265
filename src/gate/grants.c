/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <sodium.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/path.h"
#include "gate/users.h"

#define CONNECT_S_DEFAULT 10
#define SYN_RATE_DEFAULT  5
#define PORT_DRAWS        64

static int proto_index(uint8_t proto)
{
	return proto == IPPROTO_TCP ? GATE_P_TCP : GATE_P_UDP;
}

int gate_public_index(const struct gate_dp *dp, const struct wn_addr *ip)
{
	const bool is4 = wn_addr_is4(ip);
	const struct wn_addr *all = is4 ? dp->cfg.public : dp->cfg.protected6;

	for (unsigned i = 0; i < (is4 ? dp->cfg.npublic : dp->cfg.nprotected6); i++)
		if (wn_ip_eq(&all[i], ip))
			return (int)i;
	return -1;
}

void gate_public_places(struct gate_params *p)
{
	bool clash;

	do {
		uint64_t taken = 0;

		clash = false;
		p->public_mult = randombytes_random() | 1;
		for (uint32_t i = 0; i < p->npublic; i++) {
			const uint32_t at = (p->public_ip[i] * p->public_mult) >> (32 - GATE_PUBLIC_AT_BITS);

			clash |= (taken >> at & 1) != 0;
			taken |= 1ull << at;
			p->public_at[at] = (uint8_t)i;
		}
	} while (clash);
}

bool gate_tenant_has(const struct gate_tenant *t, const struct wn_addr *ip)
{
	for (unsigned i = 0; i < t->nprefix; i++)
		if (wn_prefix_has(&t->prefix[i], ip))
			return true;
	return false;
}

/* No single host on the internet has this address. */
static bool unusable(const struct wn_addr *a)
{
	if (wn_addr_is4(a))
		return a->ip[12] == 0 || a->ip[12] == 127 || a->ip[12] >= 224;
	return (a->ip[0] == 0 && a->ip[1] == 0) || a->ip[0] == 0xff || (a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80);
}

static void inside_of(const struct gate_grant *g, struct wn_addr *out)
{
	gate_addr_to(out, &g->inside, (g->flags & GATE_GRANT_IP6) != 0, g->inside_port);
}

static void public_of(const struct gate_grant *g, struct wn_addr *out)
{
	gate_addr_to(out, &g->public, (g->flags & GATE_GRANT_IP6) != 0, g->public_port);
}

static void put_free(struct gate_dp *dp, uint32_t index, uint64_t now_ms)
{
	uint32_t at = (dp->free_head + dp->free_count) % dp->nholes;

	dp->free_index[at] = index;
	dp->free_since[at] = now_ms;
	dp->free_count++;
}

/* Takes the place that has been free longest. */
static bool take_free(struct gate_dp *dp, uint64_t now_ms, uint32_t *index)
{
	if (dp->free_count == 0 || now_ms - dp->free_since[dp->free_head] < GATE_SLOT_REST_MS)
		return false;
	*index = dp->free_index[dp->free_head];
	dp->free_head = (dp->free_head + 1) % dp->nholes;
	dp->free_count--;
	return true;
}

/* A public port that nobody owns, at random; when the draws miss, the next free one after a random place. */
static bool take_port(struct gate_dp *dp, int proto, uint32_t index, uint32_t *slot, uint16_t *port)
{
	const uint64_t owner = GATE_OWNER(GATE_OWNER_HOLE, index);
	const uint32_t span = dp->meta->port_span, all = span * dp->cfg.npublic;
	uint32_t at = 0;

	for (uint32_t i = 0; i < PORT_DRAWS + all; i++) {
		struct gate_port *p;

		at = i <= PORT_DRAWS ? randombytes_uniform(all) : (at + 1) % all;
		*slot = at / span;
		*port = (uint16_t)(dp->meta->port_low + at % span);
		p = &dp->ports[GATE_PORT_INDEX(*slot, proto, *port)];
		if (load64(&p->owner) == 0 && swap64(&p->owner, 0, owner))
			return true;
	}
	return false;
}

bool gate_hole_read(const struct gate_dp *dp, uint32_t index, struct gate_hole *out)
{
	if (bpf_map_lookup_elem_flags(dp->holes_fd, &index, out, BPF_F_LOCK) < 0)
		return false;
	return out->id == load64(&dp->grants[index].id);
}

bool gate_hole_over(const struct gate_dp *dp, uint32_t index, uint64_t now_ns)
{
	const struct gate_grant *g = &dp->grants[index];
	struct gate_hole h;
	bool used;

	if (now_ns >= load64(&g->expires))
		return true;
	if (g->proto != IPPROTO_TCP && g->idle_ns == 0)
		return false;
	used = gate_hole_read(dp, index, &h);
	if (g->proto == IPPROTO_TCP && !(used && h.bound))
		return now_ns >= g->connect_by;
	if (used && h.closed != 0 && now_ns > h.closed + GATE_TCP_TRANSITORY_NS)
		return true;
	if (g->idle_ns != 0) {
		uint64_t last = used ? h.last : g->opened;

		return now_ns > last && now_ns - last > g->idle_ns;
	}
	return false;
}

/* The public end of a grant that is none (any more). */
static void give_public(struct gate_dp *dp, uint32_t index, uint32_t slot)
{
	const struct gate_grant *g = &dp->grants[index];

	if (gate_grant_plain(dp, g))
		gate_waiting_remove(dp, index);
	else if (slot < dp->cfg.npublic)
		swap64(&dp->ports[GATE_PORT_INDEX(slot, proto_index(g->proto), ntohs(g->public_port))].owner,
		       GATE_OWNER(GATE_OWNER_HOLE, index), 0);
}

void gate_grant_close(struct gate_dp *dp, uint32_t index, uint64_t now_ms)
{
	struct gate_grant *g = &dp->grants[index];
	struct gate_info *info = &dp->infos[index];
	struct wn_addr public;
	int slot;

	public_of(g, &public);
	slot = gate_public_index(dp, &public);
	store64(&g->id, 0); /* from here the path drops */
	gate_filter_close(dp, index);
	give_public(dp, index, (uint32_t)slot);
	sodium_memzero(g->key, sizeof(g->key));
	gate_users_release(dp->users, g->user, now_ms);
	g->user = 0;
	info->id = 0;
	if (info->tenant < GATE_TENANT_SLOTS && dp->open_holes[info->tenant] > 0)
		dp->open_holes[info->tenant]--;
	if (dp->live > 0)
		dp->live--;
	put_free(dp, index, now_ms);
}

/* From here on the inside end of a grant opens no session: what it sends outside a hole's flow is dropped, also after the hole. */
static int mark_service(struct gate_dp *dp, const struct gate_grant *g)
{
	const bool ip6 = (g->flags & GATE_GRANT_IP6) != 0;
	const struct gate_end k4 = {.ip = g->inside.ip4, .port = g->inside_port, .proto = g->proto};
	const struct gate_end6 k6 = {.ip = g->inside.ip6, .port = g->inside_port, .proto = g->proto};
	const void *k = ip6 ? (const void *)&k6 : &k4;
	const int fd = ip6 ? dp->services6_fd : dp->services_fd;
	struct gate_service s = {0};

	if (bpf_map_lookup_elem(fd, k, &s) == 0 && s.until >= g->expires)
		return 0;
	s.until = g->expires;
	return bpf_map_update_elem(fd, k, &s, BPF_ANY) < 0 ? -errno : 0;
}

static void fill_reply(const struct gate_dp *dp, uint32_t index, uint64_t now_ns, struct gate_reply *r)
{
	const struct gate_grant *g = &dp->grants[index];
	const struct gate_info *info = &dp->infos[index];
	uint64_t expires = load64(&g->expires);

	r->hole = g->id;
	r->proto = g->proto;
	r->flags = (g->flags & GATE_GRANT_TAG) ? GATE_FLAG_TAG : 0;
	r->cookie = info->cookie;
	inside_of(g, &r->inside);
	if (g->flags & GATE_GRANT_TAG)
		memset(&r->remote, 0, sizeof(r->remote));
	else
		gate_addr_to(&r->remote, &g->remote, (g->flags & GATE_GRANT_IP6) != 0, g->remote_port);
	public_of(g, &r->public);
	r->lifetime_s = expires > now_ns ? (uint32_t)((expires - now_ns + GATE_NS_PER_S - 1) / GATE_NS_PER_S) : 0;
	_Static_assert(sizeof(r->user) == sizeof(info->user), "user");
	memcpy(r->user, info->user, sizeof(r->user));
	r->user[sizeof(r->user) - 1] = '\0';
}

static enum gate_status check_open(const struct gate_dp *dp, const struct gate_request *r)
{
	const struct gate_tenant *t = &dp->cfg.tenant[r->tenant];
	const bool is4 = wn_addr_is4(&r->inside), plain = dp->cfg.firewall || !is4;

	if (unusable(&r->inside))
		return GATE_BAD_RECORD;
	if (!gate_tenant_has(t, &r->inside))
		return GATE_NOT_YOURS;
	/* The gate's own addresses are nobody's service; where nothing is translated, only protected addresses are. */
	if (wn_ip_eq(&r->inside, &dp->cfg.control) || (gate_public_index(dp, &r->inside) >= 0) != plain)
		return GATE_NOT_YOURS;
	if (!(r->flags & GATE_FLAG_TAG) && (wn_addr_is4(&r->remote) != is4 || unusable(&r->remote)))
		return GATE_BAD_RECORD;
	return GATE_OK;
}

/* The public end: a port that is drawn, or the inside end itself. \return whether there is one. */
static bool take_public(struct gate_dp *dp, uint32_t index, uint32_t *slot)
{
	struct gate_grant *g = &dp->grants[index];
	struct wn_addr inside;
	uint16_t port;

	if (!gate_grant_plain(dp, g)) {
		if (!take_port(dp, proto_index(g->proto), index, slot, &port))
			return false;
		memset(&g->public, 0, sizeof(g->public));
		g->public.ip4 = dp->meta->public_ip[*slot];
		g->public_port = htons(port);
		return true;
	}
	inside_of(g, &inside);
	*slot = (uint32_t)gate_public_index(dp, &inside);
	g->public = g->inside;
	g->public_port = g->inside_port;
	return gate_waiting_add(dp, index) == 0;
}

/* Who may use it. With a tag the first valid one says; where nothing is translated an address that is known finds the hole. */
static void set_remote(const struct gate_dp *dp, const struct gate_request *r, struct gate_grant *g)
{
	memset(&g->remote, 0, sizeof(g->remote));
	g->remote_port = 0;
	if (!(r->flags & GATE_FLAG_TAG)) {
		gate_addr_from(&g->remote, &r->remote);
		g->remote_port = htons(r->remote.port);
	} else if (gate_grant_plain(dp, g) && wn_addr_is4(&r->remote) == wn_addr_is4(&r->inside) && !unusable(&r->remote)) {
		gate_addr_from(&g->remote, &r->remote);
	}
}

/* ns for each of so many a second, with `shift` bits behind the point; 0: no limit. */
static uint64_t cost_of(uint64_t per_s, unsigned shift)
{
	return per_s != 0 ? (GATE_NS_PER_S << shift) / per_s : 0;
}

/* The place of the user's own rates, which follow the newest request. \return false when there is none left. */
static bool take_user(struct gate_dp *dp, const struct gate_request *r, uint32_t tenant, uint64_t now_ms, uint32_t *place)
{
	struct gate_user *u;

	*place = 0;
	if (r->user_bytes_per_s == 0 && r->user_packets_per_s == 0)
		return true;
	*place = gate_users_take(dp->users, tenant, r->user, now_ms);
	if (*place == 0)
		return false;
	u = &dp->user[*place];
	store64(&u->byte_cost, cost_of(r->user_bytes_per_s, 16));
	store64(&u->packet_cost, cost_of(r->user_packets_per_s, 0));
	return true;
}

static enum gate_status open_hole(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, uint32_t *out)
{
	const uint64_t now = now_ms * GATE_NS_PER_MS;
	const uint32_t tenant = dp->slot_of[r->tenant];
	enum gate_status status = check_open(dp, r);
	struct gate_grant *g;
	struct gate_info *info;
	uint32_t index, slot, place;
	uint64_t id;
	int rc;

	if (status != GATE_OK)
		return status;
	if (gate_dp_draining(dp))
		return GATE_DRAINING;
	/* What has expired counts no more: before a refusal the tables are looked through once, though not at every refusal of a flood. */
	if ((dp->open_holes[tenant] >= dp->cfg.tenant[r->tenant].holes || dp->free_count == 0) && now_ms - dp->swept_full_ms >= 100) {
		dp->swept_full_ms = now_ms;
		gate_sweep_holes(dp, now_ms, dp->nholes, dp->nholes);
	}
	if (dp->open_holes[tenant] >= dp->cfg.tenant[r->tenant].holes)
		return GATE_QUOTA;
	if (!take_free(dp, now_ms, &index))
		return GATE_FULL;
	g = &dp->grants[index];
	info = &dp->infos[index];
	g->proto = r->proto;
	g->flags = (uint8_t)(((r->flags & GATE_FLAG_TAG) ? GATE_GRANT_TAG : 0) | (wn_addr_is4(&r->inside) ? 0 : GATE_GRANT_IP6));
	gate_addr_from(&g->inside, &r->inside);
	g->inside_port = htons(r->inside.port);
	set_remote(dp, r, g);
	if (!take_public(dp, index, &slot)) {
		put_free(dp, index, 0);
		return GATE_NO_PORT;
	}
	if (!take_user(dp, r, tenant, now_ms, &place)) {
		give_public(dp, index, slot);
		put_free(dp, index, 0);
		return GATE_FULL;
	}
	id = (dp->meta->generation++ << GATE_HOLE_INDEX_BITS | index) & ~(3ull << 62);

	g->expires = now + r->lifetime_s * GATE_NS_PER_S;
	g->connect_by = now + (r->connect_s != 0 ? r->connect_s : CONNECT_S_DEFAULT) * GATE_NS_PER_S;
	g->opened = now;
	g->idle_ns = r->idle_s * GATE_NS_PER_S;
	for (unsigned i = 0; i < 2; i++) {
		g->key[i] = 0;
		for (unsigned j = 0; j < 8; j++)
			g->key[i] |= (uint64_t)r->key[8 * i + j] << (8 * j);
	}
	g->user = place;
	g->byte_cost = cost_of(r->bytes_per_s, 16);
	g->packet_cost = cost_of(r->packets_per_s, 0);
	g->syn_cost = GATE_NS_PER_S / (r->syn_rate != 0 ? r->syn_rate : SYN_RATE_DEFAULT);
	info->cookie = r->cookie;
	info->tenant = tenant;
	info->tenant_name = dp->meta->tenant_name[tenant];
	info->public_slot = slot;
	memcpy(info->user, r->user, sizeof(info->user));
	info->id = id;

	dp->open_holes[tenant]++;
	dp->live++;
	rc = mark_service(dp, g);
	if (rc != 0) {
		wn_err("services table: %s", strerror(-rc));
		gate_grant_close(dp, index, now_ms);
		return GATE_FULL;
	}
	gate_filter_open(dp, index);
	store64(&g->id, id); /* last: from here the path obeys it */
	gate_neighbour_service(dp->neighbours, &r->inside, now_ms);
	*out = index;
	return GATE_OK;
}

/* The place of a live hole of this tenant. */
static enum gate_status find_hole(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, uint32_t *index)
{
	*index = GATE_HOLE_INDEX(r->hole);
	if (r->hole == 0 || *index >= dp->nholes || load64(&dp->grants[*index].id) != r->hole)
		return GATE_NO_HOLE;
	if (dp->infos[*index].tenant != dp->slot_of[r->tenant])
		return GATE_NOT_YOURS;
	if (gate_hole_over(dp, *index, now_ms * GATE_NS_PER_MS)) {
		gate_grant_close(dp, *index, now_ms);
		return GATE_NO_HOLE;
	}
	return GATE_OK;
}

void gate_dp_apply(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply)
{
	enum gate_status status = GATE_BAD_RECORD;
	uint32_t index = 0;

	memset(reply, 0, sizeof(*reply));
	reply->op = r->op;
	reply->seq = r->seq;
	if (gate_request_check(r) == 0 && r->tenant < dp->cfg.ntenant) {
		switch (r->op) {
		case GATE_PING:
			reply->hole = dp->meta->boot_id;
			status = GATE_OK;
			break;
		case GATE_OPEN:
			status = open_hole(dp, r, now_ms, &index);
			if (status == GATE_OK)
				fill_reply(dp, index, now_ms * GATE_NS_PER_MS, reply);
			break;
		case GATE_RENEW:
			status = find_hole(dp, r, now_ms, &index);
			if (status != GATE_OK)
				break;
			store64(&dp->grants[index].expires, now_ms * GATE_NS_PER_MS + r->lifetime_s * GATE_NS_PER_S);
			fill_reply(dp, index, now_ms * GATE_NS_PER_MS, reply);
			if (mark_service(dp, &dp->grants[index]) != 0)
				status = GATE_FAILED;
			break;
		case GATE_CLOSE:
			status = find_hole(dp, r, now_ms, &index);
			if (status != GATE_OK)
				break;
			fill_reply(dp, index, now_ms * GATE_NS_PER_MS, reply);
			gate_grant_close(dp, index, now_ms);
			reply->lifetime_s = 0;
			break;
		default:
			break;
		}
	}
	reply->status = (uint8_t)status;
	reply->hole = status == GATE_OK ? reply->hole : r->hole;
}

int gate_dp_each(struct gate_dp *dp, uint32_t tenant, uint64_t now_ms, int (*cb)(const struct gate_reply *hole, void *arg), void *arg)
{
	const uint64_t now = now_ms * GATE_NS_PER_MS;
	struct gate_reply r;
	struct gate_hole h;
	int rc;

	if (tenant != UINT32_MAX && tenant >= dp->cfg.ntenant)
		return -EINVAL;
	for (uint32_t i = 0; i < dp->nholes; i++) {
		if (load64(&dp->grants[i].id) == 0)
			continue;
		if (tenant != UINT32_MAX && dp->infos[i].tenant != dp->slot_of[tenant])
			continue;
		if (gate_hole_over(dp, i, now))
			continue;
		memset(&r, 0, sizeof(r));
		r.op = GATE_LIST;
		fill_reply(dp, i, now, &r);
		if (gate_hole_read(dp, i, &h)) {
			r.packets = h.packets_in;
			r.bytes = h.bytes_in;
			if (h.bound)
				gate_addr_to(&r.remote, &h.remote, (dp->grants[i].flags & GATE_GRANT_IP6) != 0, h.remote_port);
		}
		rc = cb(&r, arg);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int gate_grants_adopt(struct gate_dp *dp)
{
	const uint64_t now_ms = wn_now_ms();

	for (uint32_t i = 0; i < dp->nholes; i++) {
		struct gate_grant *g = &dp->grants[i];
		uint64_t id = load64(&g->id);
		uint32_t slot = dp->infos[i].tenant;
		struct wn_addr inside, public;
		bool placed;
		int tenant;

		if (id == 0) {
			put_free(dp, i, 0);
			continue;
		}
		inside_of(g, &inside);
		public_of(g, &public);
		dp->live++;
		if (slot < GATE_TENANT_SLOTS)
			dp->open_holes[slot]++;
		placed = g->user == 0 || gate_users_adopt(dp->users, g->user, slot, dp->infos[i].user);
		if (!placed)
			g->user = 0; /* not ours to give back */
		tenant = slot < GATE_TENANT_SLOTS && dp->infos[i].tenant_name == dp->meta->tenant_name[slot] ? dp->tenant_of[slot] : -1;
		if (!placed || tenant < 0 || dp->infos[i].id != id || !gate_tenant_has(&dp->cfg.tenant[tenant], &inside) ||
		    gate_public_index(dp, &public) < 0) {
			gate_grant_close(dp, i, now_ms);
			continue;
		}
		/* A quota may have shrunk; the holes that are open stay. */
		gate_filter_open(dp, i);
	}
	gate_sweep_ports(dp, dp->nports);
	gate_waiting_adopt(dp);
	return 0;
}
