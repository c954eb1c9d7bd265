/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/routes.h"

#include <errno.h>
#include <linux/fib_rules.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <libmnl/libmnl.h>

#include "base/log.h"
#include "gate/hops.h"
#include "gate/path.h"

#define BUFFER      32768                 /* the kernel sends no longer message */
#define REST_NS     (50 * GATE_NS_PER_MS) /* a table is not written to before the packets that saw it in use are gone */
#define TOO_MANY_NS (600 * GATE_NS_PER_S) /* counted again after this */
#define TRIES       3
#define LOOPBACK    1
#define VALID       (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY) /* as bpf_fib_lookup has it */
#define USUAL_RULES 3u /* local and main; who took the one for the table "default" away meant that */
#define GROUP(g)    (1u << ((g)-1))

struct gate_routes {
	struct mnl_socket *events, *asking;
	uint32_t seq;
	struct gate_hop_tables *out;
	struct gate_kernel kernel; /* as the table in use has it */
	struct gate_kernel fresh;  /* being read */
	struct gate_hops compiled[GATE_SIDES];
	unsigned rules; /* of the usual ones, a bit each */
	bool forwards;  /* the loopback device */
	bool good;      /* nothing that is in the table has changed since it was read */
	bool stale;     /* there is something to read */
	bool too_many;
	unsigned known;
	uint64_t not_before;
	uint8_t buffer[BUFFER] __attribute__((aligned(NLMSG_ALIGNTO)));
};

static void out_of_use(struct gate_routes *r)
{
	store64(&r->out->valid_until, 0);
	r->good = false;
	r->stale = true;
}

static int side_of(const struct gate_routes *r, uint32_t ifindex)
{
	for (int side = 0; side < GATE_SIDES; side++)
		if (r->kernel.link[side].ifindex == ifindex)
			return side;
	return -1;
}

static uint32_t u32_of(const struct nlattr *a)
{
	uint32_t v = 0;

	if (mnl_attr_get_payload_len(a) >= sizeof(v))
		memcpy(&v, mnl_attr_get_payload(a), sizeof(v));
	return v;
}

static int on_metric(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == RTAX_MTU)
		*(uint32_t *)arg = u32_of(a);
	return MNL_CB_OK;
}

struct route_message {
	struct gate_kernel_route route;
	uint32_t table;
};

static int on_route_attr(const struct nlattr *a, void *arg)
{
	struct route_message *m = arg;

	switch (mnl_attr_get_type(a)) {
	case RTA_TABLE:
		m->table = u32_of(a);
		break;
	case RTA_DST:
		m->route.ip = u32_of(a);
		break;
	case RTA_GATEWAY:
		m->route.gateway = u32_of(a);
		break;
	case RTA_OIF:
		m->route.oif = u32_of(a);
		break;
	case RTA_PRIORITY:
		m->route.metric = u32_of(a);
		break;
	case RTA_METRICS:
		mnl_attr_parse_nested(a, on_metric, &m->route.mtu);
		break;
	case RTA_PREFSRC:
	case RTA_FLOW:
		break;
	default: /* several ways, tunnels, next-hop objects, whatever is yet to come */
		m->route.plain = false;
	}
	return MNL_CB_OK;
}

/* \return false: of a table that does not matter. */
static bool route_of(const struct nlmsghdr *h, struct gate_kernel_route *out)
{
	const struct rtmsg *m = mnl_nlmsg_get_payload(h);
	struct route_message got = {.table = m->rtm_table};

	if (m->rtm_family != AF_INET || m->rtm_dst_len > 32 || (m->rtm_flags & RTM_F_CLONED))
		return false;
	got.route.bits = m->rtm_dst_len;
	got.route.plain = m->rtm_type == RTN_UNICAST && m->rtm_tos == 0 && (m->rtm_flags & ~(unsigned)RTNH_F_ONLINK) == 0;
	mnl_attr_parse(h, sizeof(*m), on_route_attr, &got);
	got.route.local = got.table == RT_TABLE_LOCAL;
	*out = got.route;
	return got.table == RT_TABLE_LOCAL || got.table == RT_TABLE_MAIN;
}

static int on_route(const struct nlmsghdr *h, void *arg)
{
	struct gate_routes *r = arg;
	struct gate_kernel *k = &r->fresh;
	struct gate_kernel_route route;

	if (h->nlmsg_type != RTM_NEWROUTE || !route_of(h, &route))
		return MNL_CB_OK;
	if (k->nroutes == GATE_KERNEL_ROUTES) {
		r->too_many = true;
		errno = E2BIG;
		return MNL_CB_ERROR;
	}
	k->route[k->nroutes++] = route;
	return MNL_CB_OK;
}

struct neighbour_message {
	struct gate_kernel_neighbour neighbour;
	bool has_mac;
};

static int on_neighbour_attr(const struct nlattr *a, void *arg)
{
	struct neighbour_message *m = arg;

	if (mnl_attr_get_type(a) == NDA_DST) {
		m->neighbour.ip = u32_of(a);
	} else if (mnl_attr_get_type(a) == NDA_LLADDR && mnl_attr_get_payload_len(a) == sizeof(m->neighbour.mac)) {
		memcpy(m->neighbour.mac, mnl_attr_get_payload(a), sizeof(m->neighbour.mac));
		m->has_mac = true;
	}
	return MNL_CB_OK;
}

/* valid: the kernel sends packets to this link address. \return false: not an IPv4 neighbour on one of our interfaces. */
static bool neighbour_of(const struct gate_routes *r, const struct nlmsghdr *h, struct gate_kernel_neighbour *out, bool *valid)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct neighbour_message got = {.neighbour.ifindex = (uint32_t)m->ndm_ifindex};

	if (m->ndm_family != AF_INET || (m->ndm_flags & NTF_PROXY) || side_of(r, got.neighbour.ifindex) < 0)
		return false;
	mnl_attr_parse(h, sizeof(*m), on_neighbour_attr, &got);
	*valid = h->nlmsg_type == RTM_NEWNEIGH && (m->ndm_state & VALID) != 0 && got.has_mac;
	*out = got.neighbour;
	return got.neighbour.ip != 0;
}

static bool is_gateway(const struct gate_kernel *k, uint32_t ip)
{
	for (unsigned i = 0; i < k->nroutes; i++)
		if (k->route[i].gateway == ip)
			return true;
	return false;
}

static int on_neighbour(const struct nlmsghdr *h, void *arg)
{
	struct gate_routes *r = arg;
	struct gate_kernel *k = &r->fresh;
	struct gate_kernel_neighbour n;
	bool valid;

	if (!neighbour_of(r, h, &n, &valid) || !valid || k->nneighbours == GATE_KERNEL_NEIGHBOURS)
		return MNL_CB_OK;
	/* The last places are for those that whole networks are behind. */
	if (k->nneighbours >= GATE_KERNEL_NEIGHBOURS / 2 && !is_gateway(k, n.ip))
		return MNL_CB_OK;
	k->neighbour[k->nneighbours++] = n;
	return MNL_CB_OK;
}

static int on_link_attr(const struct nlattr *a, void *arg)
{
	struct gate_kernel_link *link = arg;

	if (mnl_attr_get_type(a) == IFLA_MTU)
		link->mtu = u32_of(a);
	else if (mnl_attr_get_type(a) == IFLA_ADDRESS && mnl_attr_get_payload_len(a) == sizeof(link->mac))
		memcpy(link->mac, mnl_attr_get_payload(a), sizeof(link->mac));
	return MNL_CB_OK;
}

static int on_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct gate_routes *r = arg;
	const int side = side_of(r, (uint32_t)m->ifi_index);

	if (h->nlmsg_type != RTM_NEWLINK || side < 0)
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), on_link_attr, &r->fresh.link[side]);
	r->fresh.link[side].up = (m->ifi_flags & IFF_UP) != 0;
	return MNL_CB_OK;
}

struct rule_message {
	uint32_t priority, table;
	bool odd;
};

static int on_rule_attr(const struct nlattr *a, void *arg)
{
	struct rule_message *m = arg;

	switch (mnl_attr_get_type(a)) {
	case FRA_PRIORITY:
		m->priority = u32_of(a);
		break;
	case FRA_TABLE:
		m->table = u32_of(a);
		break;
	case FRA_SUPPRESS_PREFIXLEN:
		m->odd |= u32_of(a) != UINT32_MAX;
		break;
	case FRA_PROTOCOL:
		break;
	default:
		m->odd = true;
	}
	return MNL_CB_OK;
}

/* The three that every system begins with look only at the destination. Any other may look at more. */
static int on_rule(const struct nlmsghdr *h, void *arg)
{
	static const struct {
		uint32_t priority, table;
	} usual[] = {{0, RT_TABLE_LOCAL}, {32766, RT_TABLE_MAIN}, {32767, RT_TABLE_DEFAULT}};
	const struct fib_rule_hdr *m = mnl_nlmsg_get_payload(h);
	struct rule_message got = {.table = m->table};
	struct gate_routes *r = arg;

	if (h->nlmsg_type != RTM_NEWRULE || m->family != AF_INET)
		return MNL_CB_OK;
	got.odd = m->action != FR_ACT_TO_TBL || m->flags != 0 || m->src_len != 0 || m->dst_len != 0 || m->tos != 0;
	mnl_attr_parse(h, sizeof(*m), on_rule_attr, &got);
	for (unsigned i = 0; i < sizeof(usual) / sizeof(usual[0]) && !got.odd; i++) {
		if (usual[i].priority == got.priority && usual[i].table == got.table && !(r->rules & 1u << i)) {
			r->rules |= 1u << i;
			return MNL_CB_OK;
		}
	}
	r->fresh.odd = true;
	return MNL_CB_OK;
}

struct netconf_message {
	uint32_t ifindex;
	bool forwards;
};

static int on_netconf_attr(const struct nlattr *a, void *arg)
{
	struct netconf_message *m = arg;

	if (mnl_attr_get_type(a) == NETCONFA_IFINDEX)
		m->ifindex = u32_of(a);
	else if (mnl_attr_get_type(a) == NETCONFA_FORWARDING)
		m->forwards = u32_of(a) != 0;
	return MNL_CB_OK;
}

static struct netconf_message netconf_of(const struct nlmsghdr *h)
{
	struct netconf_message m = {0};

	mnl_attr_parse(h, sizeof(struct netconfmsg), on_netconf_attr, &m);
	return m;
}

/* Look-ups are made as if packets came in by the loopback device, and answered only while that forwards. */
static int on_netconf(const struct nlmsghdr *h, void *arg)
{
	struct gate_routes *r = arg;

	if (h->nlmsg_type == RTM_NEWNETCONF)
		r->forwards = netconf_of(h).forwards;
	return MNL_CB_OK;
}

static struct mnl_socket *open_socket(void)
{
	return mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
}

/* One question, all of its answer. The kernel answers within the call and at every read: there is nothing to wait for. */
static int ask(struct gate_routes *r, struct nlmsghdr *h, uint16_t type, uint16_t flags, mnl_cb_t on_one)
{
	ssize_t n;
	int rc;

	h->nlmsg_type = type;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
	h->nlmsg_seq = ++r->seq;
	if (r->asking == NULL)
		r->asking = open_socket();
	if (r->asking == NULL || mnl_socket_sendto(r->asking, h, h->nlmsg_len) < 0)
		return -errno;
	do {
		n = recv(mnl_socket_get_fd(r->asking), r->buffer, sizeof(r->buffer), MSG_DONTWAIT | MSG_TRUNC);
		if (n <= 0 || (size_t)n > sizeof(r->buffer)) {
			rc = n < 0 ? -errno : -EPROTO;
			break;
		}
		rc = mnl_cb_run(r->buffer, (size_t)n, r->seq, 0, on_one, r);
		if (rc < 0)
			rc = -errno;
	} while (rc > MNL_CB_STOP);
	if (rc < 0) {
		/* What else was on its way goes with it. */
		mnl_socket_close(r->asking);
		r->asking = NULL;
	}
	return rc;
}

static int ask_all(struct gate_routes *r, uint16_t type, mnl_cb_t on_one)
{
	uint8_t buf[64] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct rtgenmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->rtgen_family = AF_INET;
	return ask(r, h, type, NLM_F_DUMP, on_one);
}

static int ask_link(struct gate_routes *r, uint32_t ifindex)
{
	uint8_t buf[64] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ifi_index = (int)ifindex;
	mnl_attr_put_u32(h, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return ask(r, h, RTM_GETLINK, NLM_F_ACK, on_link);
}

static int ask_netconf(struct gate_routes *r)
{
	uint8_t buf[64] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct netconfmsg *m = mnl_nlmsg_put_extra_header(h, sizeof(*m));

	m->ncm_family = AF_INET;
	mnl_attr_put_u32(h, NETCONFA_IFINDEX, LOOPBACK);
	return ask(r, h, RTM_GETNETCONF, NLM_F_ACK, on_netconf);
}

static int read_kernel(struct gate_routes *r)
{
	struct gate_kernel *k = &r->fresh;
	int rc = 0;

	k->odd = false;
	k->nroutes = k->nneighbours = 0;
	r->rules = 0;
	r->forwards = false;
	for (int side = 0; side < GATE_SIDES && rc >= 0; side++) {
		k->link[side] = (struct gate_kernel_link){.ifindex = r->kernel.link[side].ifindex};
		rc = ask_link(r, k->link[side].ifindex);
		if (rc == -ENODEV)
			rc = 0;
	}
	if (rc >= 0)
		rc = ask_netconf(r);
	if (rc >= 0)
		rc = ask_all(r, RTM_GETRULE, on_rule);
	if (rc == -EOPNOTSUPP || rc == -EAFNOSUPPORT) { /* a kernel without rules */
		r->rules = USUAL_RULES;
		rc = 0;
	}
	if (rc >= 0)
		rc = ask_all(r, RTM_GETROUTE, on_route);
	if (rc >= 0)
		rc = ask_all(r, RTM_GETNEIGH, on_neighbour);
	k->odd |= !r->forwards || (r->rules & USUAL_RULES) != USUAL_RULES;
	return rc < 0 ? rc : 0;
}

/* What is in the table, or about to be, must be as it was; who is new can wait for the next tick. */
static void neighbour_changed(struct gate_routes *r, const struct nlmsghdr *h)
{
	struct gate_kernel_neighbour n;
	bool valid;

	if (!neighbour_of(r, h, &n, &valid))
		return;
	for (unsigned i = 0; i < r->kernel.nneighbours; i++) {
		const struct gate_kernel_neighbour *was = &r->kernel.neighbour[i];

		if (was->ifindex == n.ifindex && was->ip == n.ip) {
			if (!valid || memcmp(was->mac, n.mac, sizeof(n.mac)) != 0)
				out_of_use(r);
			return;
		}
	}
	if (valid)
		r->stale = true;
}

static int on_event(const struct nlmsghdr *h, void *arg)
{
	struct gate_routes *r = arg;
	struct gate_kernel_route route;

	switch (h->nlmsg_type) {
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		neighbour_changed(r, h);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		if (route_of(h, &route))
			out_of_use(r);
		break;
	case RTM_NEWLINK:
	case RTM_DELLINK:
		if (side_of(r, (uint32_t)((const struct ifinfomsg *)mnl_nlmsg_get_payload(h))->ifi_index) >= 0)
			out_of_use(r);
		break;
	case RTM_NEWNETCONF:
	case RTM_DELNETCONF:
		if (netconf_of(h).ifindex == LOOPBACK)
			out_of_use(r);
		break;
	default: /* rules, and addresses: the routes that prefer them go without a word */
		out_of_use(r);
	}
	return MNL_CB_OK;
}

/* Takes what the kernel has said since. */
static void take_events(struct gate_routes *r)
{
	ssize_t n;

	for (;;) {
		n = recv(mnl_socket_get_fd(r->events), r->buffer, sizeof(r->buffer), MSG_DONTWAIT | MSG_TRUNC);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			return;
		/* Something was lost, and may have been anything. */
		if (n <= 0 || (size_t)n > sizeof(r->buffer) || mnl_cb_run(r->buffer, (size_t)n, 0, 0, on_event, r) < 0)
			out_of_use(r);
		if (n == 0 || (n < 0 && errno != ENOBUFS))
			return;
	}
}

static void use(struct gate_routes *r, uint64_t now_ns)
{
	const uint32_t generation = r->out->generation;

	r->known = gate_hops_compile(&r->kernel, r->compiled);
	memcpy(r->out->table[(generation + 1) & 1], r->compiled, sizeof(r->compiled));
	__atomic_store_n(&r->out->generation, generation + 1, __ATOMIC_SEQ_CST);
	store64(&r->out->valid_until, now_ns + GATE_HOPS_VALID_NS);
	r->not_before = now_ns + REST_NS;
}

static void failed(struct gate_routes *r, int rc, bool told, uint64_t now_ns)
{
	out_of_use(r);
	r->not_before = now_ns + (r->too_many ? TOO_MANY_NS : REST_NS);
	if (!r->too_many)
		wn_warn("reading routes and neighbours: %s", strerror(-rc));
	else if (!told)
		wn_warn("more than %d IPv4 routes: the kernel is asked for every packet's next hop", GATE_KERNEL_ROUTES);
}

static void refresh(struct gate_routes *r, uint64_t now_ns)
{
	const bool told = r->too_many;
	int rc;

	if (!r->stale || now_ns < r->not_before)
		return;
	for (unsigned i = 0; i < TRIES; i++) {
		r->too_many = false;
		rc = read_kernel(r);
		if (rc == -EINTR) /* changed while it was read */
			continue;
		if (rc < 0) {
			failed(r, rc, told, now_ns);
			return;
		}
		r->kernel = r->fresh;
		r->good = true;
		r->stale = false;
		take_events(r); /* what happened while it was read */
		if (r->good) {
			use(r, now_ns);
			return;
		}
	}
	out_of_use(r);
}

int gate_routes_new(const uint32_t ifindex[GATE_SIDES], struct gate_hop_tables *out, struct gate_routes **result)
{
	/* RTNLGRP_LINK: the kernel takes the routes of a link that goes down without a message of their own; likewise those with a
	 * preferred source address that goes. */
	const unsigned groups = GROUP(RTNLGRP_LINK) | GROUP(RTNLGRP_NEIGH) | GROUP(RTNLGRP_IPV4_IFADDR) | GROUP(RTNLGRP_IPV4_ROUTE) |
				GROUP(RTNLGRP_IPV4_RULE) | GROUP(RTNLGRP_IPV4_NETCONF);
	struct gate_routes *r = calloc(1, sizeof(*r));

	if (r == NULL)
		return -ENOMEM;
	r->out = out;
	for (int side = 0; side < GATE_SIDES; side++)
		r->kernel.link[side].ifindex = ifindex[side];
	out_of_use(r);
	r->events = open_socket();
	if (r->events == NULL || mnl_socket_bind(r->events, groups, MNL_SOCKET_AUTOPID) < 0) {
		int e = errno;

		wn_err("netlink socket for routes: %s", strerror(e));
		gate_routes_free(r);
		return -e;
	}
	*result = r;
	return 0;
}

void gate_routes_free(struct gate_routes *r)
{
	if (r == NULL)
		return;
	out_of_use(r);
	if (r->events != NULL)
		mnl_socket_close(r->events);
	if (r->asking != NULL)
		mnl_socket_close(r->asking);
	free(r);
}

int gate_routes_fd(const struct gate_routes *r)
{
	return mnl_socket_get_fd(r->events);
}

void gate_routes_changed(struct gate_routes *r, uint64_t now_ns)
{
	take_events(r);
	if (!r->good)
		refresh(r, now_ns);
}

void gate_routes_tick(struct gate_routes *r, uint64_t now_ns)
{
	take_events(r);
	refresh(r, now_ns);
	if (r->good)
		store64(&r->out->valid_until, now_ns + GATE_HOPS_VALID_NS);
}

unsigned gate_routes_known(const struct gate_routes *r, uint64_t now_ns)
{
	return now_ns < r->out->valid_until ? r->known : 0;
}
