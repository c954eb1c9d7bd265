/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include <libmnl/libmnl.h>

#include "base/log.h"
#include "gate/path.h"

#define FOUND_MAX 256 /* entries asked for at a time */

struct gate_neighbours {
	struct mnl_socket *nl;
	uint32_t ifindex[GATE_SIDES];
	uint32_t seq;
	struct {
		uint32_t ifindex, ip;
	} found[FOUND_MAX];
	unsigned nfound;
};

static void found(struct gate_neighbours *n, uint32_t ifindex, uint32_t ip)
{
	if (ip == 0 || n->nfound == FOUND_MAX || (ifindex != n->ifindex[GATE_OUTSIDE] && ifindex != n->ifindex[GATE_INSIDE]))
		return;
	n->found[n->nfound].ifindex = ifindex;
	n->found[n->nfound++].ip = ip;
}

static int on_attr(const struct nlattr *a, void *arg)
{
	uint32_t *ip = arg;

	if (mnl_attr_get_type(a) == NDA_DST && mnl_attr_get_payload_len(a) == sizeof(*ip))
		memcpy(ip, mnl_attr_get_payload(a), sizeof(*ip));
	return MNL_CB_OK;
}

/* A neighbour that has not been heard of for a while. */
static int on_entry(const struct nlmsghdr *h, void *arg)
{
	struct gate_neighbours *n = arg;
	const struct ndmsg *m = mnl_nlmsg_get_payload(h);
	uint32_t ip = 0;

	if (h->nlmsg_type != RTM_NEWNEIGH || !(m->ndm_state & NUD_STALE))
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(*m), on_attr, &ip);
	found(n, (uint32_t)m->ndm_ifindex, ip);
	return MNL_CB_OK;
}

static int on_route_attr(const struct nlattr *a, void *arg)
{
	uint32_t *hop = arg;

	if (mnl_attr_get_payload_len(a) != sizeof(*hop))
		return MNL_CB_OK;
	if (mnl_attr_get_type(a) == RTA_GATEWAY)
		memcpy(&hop[0], mnl_attr_get_payload(a), sizeof(*hop));
	else if (mnl_attr_get_type(a) == RTA_OIF)
		memcpy(&hop[1], mnl_attr_get_payload(a), sizeof(*hop));
	return MNL_CB_OK;
}

/* A route through a gateway. */
static int on_route(const struct nlmsghdr *h, void *arg)
{
	uint32_t hop[2] = {0, 0}; /* address, interface */

	if (h->nlmsg_type != RTM_NEWROUTE)
		return MNL_CB_OK;
	mnl_attr_parse(h, sizeof(struct rtmsg), on_route_attr, hop);
	found(arg, hop[1], hop[0]);
	return MNL_CB_OK;
}

/* Errors come back as messages that nobody waits for; they must not fill the socket. */
static void drain(struct gate_neighbours *n)
{
	char buf[4096];

	while (recv(mnl_socket_get_fd(n->nl), buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
}

int gate_neighbours_new(const uint32_t ifindex[GATE_SIDES], struct gate_neighbours **out)
{
	struct gate_neighbours *n = calloc(1, sizeof(*n));

	if (n == NULL)
		return -ENOMEM;
	memcpy(n->ifindex, ifindex, sizeof(n->ifindex));
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

static void use(struct gate_neighbours *n, uint32_t ifindex, uint32_t ip, uint16_t flags)
{
	char buf[256] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ndmsg *m;

	h->nlmsg_type = RTM_NEWNEIGH;
	h->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_CREATE | flags);
	h->nlmsg_seq = ++n->seq;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ndm_family = AF_INET;
	m->ndm_ifindex = (int)ifindex;
	m->ndm_flags = NTF_USE;
	mnl_attr_put_u32(h, NDA_DST, ip);
	if (mnl_socket_sendto(n->nl, h, h->nlmsg_len) < 0)
		wn_warn("asking for a neighbour: %s", strerror(errno));
	drain(n);
}

void gate_neighbour_resolve(struct gate_neighbours *n, uint32_t ifindex, uint32_t ip)
{
	use(n, ifindex, ip, 0);
}

/* Calls on_one for every entry of a kernel's table, and asks for what it found. A dump is answered before sendto returns and at every read:
 * there is nothing to wait for. */
static void dump(struct gate_neighbours *n, uint16_t type, mnl_cb_t on_one, uint16_t flags)
{
	char buf[16384] __attribute__((aligned(NLMSG_ALIGNTO))) = {0};
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct rtgenmsg *m;
	ssize_t got;
	int rc;

	drain(n);
	n->nfound = 0;
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	h->nlmsg_seq = ++n->seq;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->rtgen_family = AF_INET;
	if (mnl_socket_sendto(n->nl, h, h->nlmsg_len) < 0)
		return;
	do {
		got = recv(mnl_socket_get_fd(n->nl), buf, sizeof(buf), MSG_DONTWAIT);
		if (got <= 0)
			break;
		rc = mnl_cb_run(buf, (size_t)got, n->seq, mnl_socket_get_portid(n->nl), on_one, n);
	} while (rc > MNL_CB_STOP);
	for (unsigned i = 0; i < n->nfound; i++)
		use(n, n->found[i].ifindex, n->found[i].ip, flags);
}

void gate_neighbours_confirm(struct gate_neighbours *n)
{
	dump(n, RTM_GETNEIGH, on_entry, 0);
}

void gate_neighbours_gateways(struct gate_neighbours *n)
{
	/* Only new entries: to use a permanent one would have the kernel forget its address. */
	dump(n, RTM_GETROUTE, on_route, NLM_F_EXCL);
}
