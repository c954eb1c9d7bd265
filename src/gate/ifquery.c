/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/ifquery.h"

#include <errno.h>
#include <linux/ethtool.h>
#include <linux/genetlink.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <libmnl/libmnl.h>

/* <linux/netdev.h> is younger than the headers this builds with; the numbers are the kernel's promise. */
#define NETDEV_FAMILY         "netdev"
#define NETDEV_DEV_GET        1
#define NETDEV_ATTR_IFINDEX   1
#define NETDEV_ATTR_XDP       3
#define NETDEV_FAMILY_VERSION 1

/* Asks and hands every answer to `cb`. */
static int question(int bus, struct nlmsghdr *h, mnl_cb_t cb, void *arg)
{
	char buf[32768];
	struct mnl_socket *nl = mnl_socket_open2(bus, SOCK_CLOEXEC);
	const unsigned seq = (unsigned)time(NULL);
	ssize_t n;
	int rc = 1;

	if (nl == NULL)
		return -errno;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	h->nlmsg_seq = seq;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) < 0 || mnl_socket_sendto(nl, h, h->nlmsg_len) < 0)
		rc = -errno;
	while (rc > 0) {
		n = mnl_socket_recvfrom(nl, buf, sizeof(buf));
		if (n < 0) {
			rc = -errno;
			break;
		}
		rc = mnl_cb_run(buf, (size_t)n, seq, mnl_socket_get_portid(nl), cb, arg);
		if (rc < 0)
			rc = -errno;
	}
	mnl_socket_close(nl);
	return rc;
}

static void take_text(const struct nlattr *a, char *out, size_t cap)
{
	snprintf(out, cap, "%.*s", (int)mnl_attr_get_payload_len(a), mnl_attr_get_str(a));
}

static int on_kind(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == IFLA_INFO_KIND)
		take_text(a, ((struct gate_if *)arg)->kind, sizeof(((struct gate_if *)arg)->kind));
	return MNL_CB_OK;
}

static int on_xdp(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == IFLA_XDP_ATTACHED)
		((struct gate_if *)arg)->has_program = mnl_attr_get_u8(a) != XDP_ATTACHED_NONE;
	return MNL_CB_OK;
}

static int on_link_attr(const struct nlattr *a, void *arg)
{
	struct gate_if *out = arg;

	switch (mnl_attr_get_type(a)) {
	case IFLA_MTU:
		out->mtu = mnl_attr_get_u32(a);
		return MNL_CB_OK;
	case IFLA_LINK:
		out->peer = mnl_attr_get_u32(a);
		return MNL_CB_OK;
	case IFLA_LINK_NETNSID:
		out->peer_elsewhere = true;
		return MNL_CB_OK;
	case IFLA_LINKINFO:
		return mnl_attr_parse_nested(a, on_kind, out);
	case IFLA_XDP:
		return mnl_attr_parse_nested(a, on_xdp, out);
	default:
		return MNL_CB_OK;
	}
}

static int on_link(const struct nlmsghdr *h, void *arg)
{
	const struct ifinfomsg *m = mnl_nlmsg_get_payload(h);
	struct gate_if *out = arg;

	if (h->nlmsg_type != RTM_NEWLINK)
		return MNL_CB_OK;
	out->ifindex = (uint32_t)m->ifi_index;
	out->ethernet = m->ifi_type == ARPHRD_ETHER;
	out->up = (m->ifi_flags & IFF_UP) != 0;
	return mnl_attr_parse(h, sizeof(*m), on_link_attr, out);
}

int gate_if_query(const char *name, struct gate_if *out)
{
	char buf[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct ifinfomsg *m;
	unsigned ifindex = if_nametoindex(name);
	int rc;

	memset(out, 0, sizeof(*out));
	if (ifindex == 0)
		return -ENODEV;
	h->nlmsg_type = RTM_GETLINK;
	m = mnl_nlmsg_put_extra_header(h, sizeof(*m));
	m->ifi_index = (int)ifindex;
	rc = question(NETLINK_ROUTE, h, on_link, out);
	return rc == 0 && out->ifindex == 0 ? -ENODEV : rc;
}

static int on_family_attr(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == CTRL_ATTR_FAMILY_ID)
		*(uint16_t *)arg = mnl_attr_get_u16(a);
	return MNL_CB_OK;
}

static int on_family(const struct nlmsghdr *h, void *arg)
{
	return mnl_attr_parse(h, sizeof(struct genlmsghdr), on_family_attr, arg);
}

static int on_features_attr(const struct nlattr *a, void *arg)
{
	if (mnl_attr_get_type(a) == NETDEV_ATTR_XDP)
		*(uint64_t *)arg = mnl_attr_get_u64(a);
	return MNL_CB_OK;
}

static int on_features(const struct nlmsghdr *h, void *arg)
{
	return mnl_attr_parse(h, sizeof(struct genlmsghdr), on_features_attr, arg);
}

static struct nlmsghdr *general(char *buf, uint16_t family, uint8_t command)
{
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct genlmsghdr *g;

	h->nlmsg_type = family;
	g = mnl_nlmsg_put_extra_header(h, sizeof(*g));
	g->cmd = command;
	g->version = NETDEV_FAMILY_VERSION;
	return h;
}

int gate_if_xdp(uint32_t ifindex, uint64_t *features)
{
	char buf[256];
	struct nlmsghdr *h = general(buf, GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	uint16_t family = 0;
	int rc;

	*features = 0;
	mnl_attr_put_strz(h, CTRL_ATTR_FAMILY_NAME, NETDEV_FAMILY);
	rc = question(NETLINK_GENERIC, h, on_family, &family);
	if (rc < 0 || family == 0)
		return rc < 0 ? rc : -ENOENT;
	h = general(buf, family, NETDEV_DEV_GET);
	mnl_attr_put_u32(h, NETDEV_ATTR_IFINDEX, ifindex);
	return question(NETLINK_GENERIC, h, on_features, features);
}

int gate_if_tx_checksum(const char *name)
{
	struct ethtool_value v = {.cmd = ETHTOOL_GTXCSUM};
	struct ifreq r;
	int rc, fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	memset(&r, 0, sizeof(r));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	r.ifr_data = (void *)&v;
	rc = ioctl(fd, SIOCETHTOOL, &r) < 0 ? -errno : v.data != 0;
	close(fd);
	return rc;
}
