/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <libmnl/libmnl.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/path.h"

#define FOUND_MAX      256 /* entries asked for at a time */
#define GATEWAY_MS     500 /* a start waits so long for its gateways to answer */
#define ASKED          64
#define ASKED_AGAIN_MS 1000
#define NUD_USABLE     (NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY)

struct hop {
	uint32_t ifindex;
	struct wn_addr ip;
};

struct gate_neighbours {
	struct mnl_socket *nl;
	uint32_t ifindex[GATE_SIDES];
	bool ip6;
	uint32_t seq;
	struct hop found[FOUND_MAX];
	unsigned nfound;
	struct wn_addr direct; /* what a route without a gateway leads to; unspecified: not of interest */
	struct {
		uint64_t ms;
		struct wn_addr ip;
	} asked[ASKED]; /* services whose next hop was looked for lately */
};

static bool unspecified(const struct wn_addr *a)
{
	static const struct wn_addr none;

	return wn_addr_is4(a) ? memcmp(a->ip + 12, none.ip, 4) == 0 : wn_ip_eq(a, &none);
}

static void found(struct gate_neighbours *n, const struct hop *hop)
{
	if (unspecified(&hop->ip) || n->nfound == FOUND_MAX ||
	    (hop->ifindex != n->ifindex[GATE_OUTSIDE] && hop->ifindex != n->ifindex[GATE_INSIDE]))
		return;
	n->found[n->nfound++] = *hop;
}

/* An attribute that is an address of either family. */
static void take_addr(const struct nlattr *a, struct wn_addr *out)
{
	union gate_addr ip;
	const uint16_t len = mnl_attr_get_payload_len(a);

	if (len != sizeof(ip.ip4) && len != sizeof(ip.ip6))
		return;
	memcpy(&ip, mnl_attr_get_payload(a), len);
	gate_addr_to(out, &ip, len == sizeof(ip.ip6), 0);
}

static void put_addr(struct nlmsghdr *h, uint16_t type, const struct wn_addr *a)
{
	if (wn_addr_is4(a))
		mnl_attr_put(h, type, 4, a->ip + 12);
	else
		mnl_attr_put(h, type, 16, a->ip);
}

static uint8_t family_of(const struct wn_addr *a)
{
	return wn_addr_is4(a) ? AF_INET : AF_INET6;
}

static int on_attr(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == NDA_DST)
		take_addr(a, arg);
	return MNL_CB_OK;
}

/* A neighbour that has not been heard of for a while. */
static int on_entry(const struct nlmsghdr *h, void *arg)
{
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct hop hop = {.ifindex = (uint32_t)m->ndm_ifindex};

	if (h->nlmsg_type != RTM_NEWNEIGH || !(m->ndm_state & NUD_STALE))
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), on_attr, &hop.ip);
	found(arg, &hop);
	return MNL_CB_OK;
}

/* One of those that are waited for is there. */
static int on_usable(const struct nlmsghdr *h, void *arg)
{
	struct gate_neighbours *n = arg;
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	struct wn_addr ip = {.port = 0};

	if (h->nlmsg_type != RTM_NEWNEIGH || !(m->ndm_state & NUD_USABLE))
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), on_attr, &ip);
	for (unsigned i = 0; i < n->nfound; i++) {
		if (wn_ip_eq(&n->found[i].ip, &ip) && n->found[i].ifindex == (uint32_t)m->ndm_ifindex)
			n->found[i--] = n->found[--n->nfound];
	}
	return MNL_CB_OK;
}

/* RFC 5549: an IPv4 route's gateway may have an IPv6 address. */
static void take_via(const struct nlattr *a, struct wn_addr *out)
{
	const struct rtvia *via = mnl_attr_get_payload(a);
	const size_t len = mnl_attr_get_payload_len(a);
	union gate_addr ip;

	if (len != sizeof(*via) + sizeof(ip.ip6) || via->rtvia_family != AF_INET6)
		return;
	memcpy(&ip.ip6, via->rtvia_addr, sizeof(ip.ip6));
	gate_addr_to(out, &ip, true, 0);
}

static int on_route_attr(const struct nlattr *a, void *arg)
{
	struct hop *hop = arg;

	if (mnl_attr_get_type(a) == RTA_GATEWAY)
		take_addr(a, &hop->ip);
	else if (mnl_attr_get_type(a) == RTA_VIA)
		take_via(a, &hop->ip);
	else if (mnl_attr_get_type(a) == RTA_OIF && mnl_attr_get_payload_len(a) == sizeof(hop->ifindex))
		hop->ifindex = mnl_attr_get_u32(a);
	return MNL_CB_OK;
}

/* A route: its gateway, or where it leads to itself. */
static int on_route(const struct nlmsghdr *h, void *arg)
{
	struct gate_neighbours *n = arg;
	struct hop hop = {.ip = n->direct};

	if (h->nlmsg_type != RTM_NEWROUTE)
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(struct rtmsg), on_route_attr, &hop);
	found(n, &hop);
	return MNL_CB_OK;
}

/* Errors come back as messages that nobody waits for; they must not fill the socket. */
static void drain(struct gate_neighbours *n)
{
	char buf[4096];

	while (recv(mnl_socket_get_fd(n->nl), buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

int gate_neighbours_new(const uint32_t ifindex[GATE_SIDES], bool ip6, struct gate_neighbours **out)
{
	struct gate_neighbours *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return -ENOMEM;
	memcpy(n->ifindex, ifindex, sizeof(n->ifindex));
	n->ip6 = ip6;
	n->nl = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	if (n->nl == NULL || mnl_socket_bind(n->nl, 0, MNL_SOCKET_AUTOPID) < 0) {
		int e = errno;

		wn_err("netlink socket for neighbours: %s", strerror(e));
		gate_neighbours_free(n);
		return -e;
	}
	*out = n;
	return 0;
}

void gate_neighbours_free(struct gate_neighbours *n)
{
	if (n == NULL)
		return;
	if (n->nl != NULL)
		mnl_socket_close(n->nl);
	free(n);
}

static void use(struct gate_neighbours *n, uint32_t ifindex, const struct wn_addr *ip, uint16_t flags)
{
	char buf[256] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ndmsg *m;

	h->nlmsg_type = RTM_NEWNEIGH;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_CREATE | flags);
	h->nlmsg_seq = ++n->seq;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ndm_family = family_of(ip);
	m->ndm_ifindex = (int)ifindex;
	m->ndm_flags = NTF_USE;
	put_addr(h, NDA_DST, ip);
	if (mnl_socket_sendto(n->nl, h, h->nlmsg_len) < 0)
		wn_warn("asking for a neighbour: %s", strerror(errno));
	drain(n);
}

void gate_neighbour_resolve(struct gate_neighbours *n, uint32_t ifindex, const struct wn_addr *ip)
{
	use(n, ifindex, ip, 0);
}

/* Reads what the kernel answers, which is there when sendto returns or, with a dump, at every read: there is nothing to wait for. */
static void answers(struct gate_neighbours *n, mnl_cb_t on_one)
{
	char buf[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
	ssize_t got;
	int rc;

	do {
		got = recv(mnl_socket_get_fd(n->nl), buf, sizeof(buf), MSG_DONTWAIT);
		if (got <= 0)
			break;
		rc = mnl_cb_run(buf, (size_t)got, n->seq, mnl_socket_get_portid(n->nl), on_one, n);
	} while (rc > MNL_CB_STOP);
}

/* Calls on_one for every entry of a kernel's table. */
static void dump_family(struct gate_neighbours *n, uint16_t type, uint8_t family, mnl_cb_t on_one)
{
	char buf[64] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct rtgenmsg *m;

	drain(n);
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	h->nlmsg_seq = ++n->seq;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->rtgen_family = family;
	if (mnl_socket_sendto(n->nl, h, h->nlmsg_len) >= 0)
		answers(n, on_one);
}

static void dump(struct gate_neighbours *n, uint16_t type, mnl_cb_t on_one)
{
	dump_family(n, type, AF_INET, on_one);
	if (n->ip6)
		dump_family(n, type, AF_INET6, on_one);
}

static void use_found(struct gate_neighbours *n, uint16_t flags)
{
	for (unsigned i = 0; i < n->nfound; i++)
		use(n, n->found[i].ifindex, &n->found[i].ip, flags);
}

void gate_neighbours_confirm(struct gate_neighbours *n)
{
	n->nfound = 0;
	dump(n, RTM_GETNEIGH, on_entry);
	use_found(n, 0);
}

void gate_neighbours_gateways(struct gate_neighbours *n)
{
	struct mnl_socket *news = mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);
	const uint64_t until = wn_now_ms() + GATEWAY_MS;
	char buf[4096];

	if (news == NULL || mnl_socket_bind(news, RTMGRP_NEIGH, MNL_SOCKET_AUTOPID) < 0) {
		wn_warn("netlink socket for news of neighbours: %s", strerror(errno));
		goto out;
	}
	n->nfound = 0;
	dump(n, RTM_GETROUTE, on_route);
	/* Only new entries: to use a permanent one would have the kernel forget its address. */
	use_found(n, NLM_F_EXCL);
	for (;;) {
		struct pollfd pf = {mnl_socket_get_fd(news), POLLIN, 0};
		uint64_t now;

		dump(n, RTM_GETNEIGH, on_usable);
		now = wn_now_ms();
		if (n->nfound == 0 || now >= until || poll(&pf, 1, (int)(until - now)) <= 0)
			break;
		while (recv(pf.fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
			;
	}
	if (n->nfound > 0)
		wn_warn("%u gateways do not answer yet", n->nfound);
out:
	if (news != NULL)
		mnl_socket_close(news);
}

void gate_neighbour_service(struct gate_neighbours *n, const struct wn_addr *ip, uint64_t now_ms)
{
	const unsigned at = (unsigned)(ip->ip[15] ^ ip->ip[14] ^ ip->ip[12]) % ASKED; /* the last bytes are the ones that differ */
	char buf[128] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h;
	struct rtmsg *m;

	if (wn_ip_eq(&n->asked[at].ip, ip) && now_ms - n->asked[at].ms < ASKED_AGAIN_MS)
		return;
	n->asked[at].ip = *ip;
	n->asked[at].ms = now_ms;
	drain(n);
	n->nfound = 0;
	h = mnl_nlmsg_put_header(buf);
	h->nlmsg_type = RTM_GETROUTE;
	h->nlmsg_flags = NLM_F_REQUEST;
	h->nlmsg_seq = ++n->seq;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->rtm_family = family_of(ip);
	m->rtm_dst_len = wn_addr_is4(ip) ? 32 : 128;
	put_addr(h, RTA_DST, ip);
	if (mnl_socket_sendto(n->nl, h, h->nlmsg_len) < 0)
		return;
	n->direct = *ip;
	answers(n, on_route);
	memset(&n->direct, 0, sizeof(n->direct));
	use_found(n, NLM_F_EXCL);
}
