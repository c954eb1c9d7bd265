/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/precheck.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/magic.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "gate/ifquery.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

#define PAGE_MTU 3500 /* a frame of one page with XDP's headroom; beyond it drivers want programs of another kind */

struct report {
	const struct gate_config *cfg;
	void (*say)(enum gate_finding kind, const char *key, const char *text, void *arg);
	void *arg;
	unsigned wrong;
};

__attribute__((format(printf, 4, 5))) static void say(struct report *r, enum gate_finding kind, const char *key, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	r->say(kind, key, text, r->arg);
	if (kind == GATE_FINDING_WRONG)
		r->wrong++;
}

/* Whether a switch of the kernel is on. */
static bool is_set(const char *path)
{
	char c = '0';
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read(fd, &c, 1) != 1)
		c = '0';
	close(fd);
	return c != '0';
}

static bool is_pinned(const struct gate_config *cfg, const char *name)
{
	char path[320];

	snprintf(path, sizeof(path), "%s/%s", cfg->state, name);
	return access(path, F_OK) == 0;
}

/* The other end's name, when it is in our namespace. */
static const char *peer_of(const struct gate_if *i, char name[static IF_NAMESIZE])
{
	return !i->peer_elsewhere && if_indextoname(i->peer, name) != NULL ? name : NULL;
}

/* A veth pair: frames come from the other end as they would from a wire, if it is told to finish them. */
static void check_peer(struct report *r, const char *key, const char *name, const struct gate_if *i)
{
	char buf[IF_NAMESIZE];
	const char *peer = peer_of(i, buf);

	if (peer == NULL)
		say(r, GATE_FINDING_NOTE, key,
		    "the other end of %s is in another namespace and cannot be looked at from here; whatever sends towards %s there must "
		    "finish its checksums: ethtool -K DEVICE tx off (also on boxes that forward), gro on, MTU at most %d",
		    name, name, PAGE_MTU);
	else if (gate_if_tx_checksum(peer) == 1)
		say(r, GATE_FINDING_WRONG, key, "its other end %s leaves checksums unfinished and XDP passes them on: ethtool -K %s tx off",
		    peer, peer);
}

static void check_xdp(struct report *r, const char *key, const char *name, const struct gate_if *i)
{
	const bool veth = strcmp(i->kind, "veth") == 0, native = r->cfg->mode == GATE_MODE_NATIVE;
	const enum gate_finding kind = native ? GATE_FINDING_WRONG : GATE_FINDING_NOTE;
	char buf[IF_NAMESIZE];
	const char *peer = veth ? peer_of(i, buf) : NULL;
	uint64_t can;

	if (r->cfg->mode == GATE_MODE_GENERIC)
		return;
	if (i->mtu > PAGE_MTU)
		say(r, kind, key,
		    "the MTU of %s is %u: most drivers refuse a native program above %d; ip link set %s mtu 1500, or mode: generic", name,
		    i->mtu, PAGE_MTU, name);
	if (gate_if_xdp(i->ifindex, &can) < 0)
		say(r, GATE_FINDING_NOTE, key,
		    "unknown whether %s takes native programs and frames from the other interface: this kernel does not tell (Linux 6.3 "
		    "and "
		    "later do); the start will show the one%s",
		    name, veth ? ", and for the other its other end must have gro on" : ", a driver without ndo_xdp_xmit fails the other");
	else if ((can & (GATE_XDP_BASIC | GATE_XDP_REDIRECT)) != (GATE_XDP_BASIC | GATE_XDP_REDIRECT))
		say(r, kind, key, "the driver of %s takes no native program%s%s", name,
		    native ? "; let mode be auto or generic" : ": both interfaces will use the slower generic mode",
		    veth ? " (the other end may have no more transmit queues than this one has receive queues)" : "");
	else if ((can & GATE_XDP_XMIT) != 0)
		return;
	else if (veth)
		say(r, GATE_FINDING_WRONG, key,
		    "frames sent through %s would vanish: its other end has neither GRO nor an XDP program; ethtool -K %s gro on%s", name,
		    peer != NULL ? peer : "DEVICE", peer != NULL ? "" : " over there");
	else if (i->has_program)
		say(r, GATE_FINDING_WRONG, key,
		    "the driver of %s takes no frames from the other interface (no ndo_xdp_xmit), they would vanish; let mode be generic",
		    name);
	else
		say(r, GATE_FINDING_NOTE, key,
		    "the driver of %s takes no frames from the other interface (no ndo_xdp_xmit) while no program is on it; some do from "
		    "then "
		    "on: check again when the gate is up, and let mode be generic if it still does not",
		    name);
}

/* Neighbour discovery is the kernel's, routes are the operator's: the gate lets no router's advertisement through to renew one. */
static void check_ip6(struct report *r, const char *key, const char *name)
{
	char path[96];

	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
	if (access(path, F_OK) != 0 || is_set(path)) {
		say(r, GATE_FINDING_WRONG, key,
		    "IPv6 is off on %s, and the file has IPv6 addresses; sysctl -w net.ipv6.conf.%s.disable_ipv6=0", name, name);
		return;
	}
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/accept_ra", name);
	if (is_set(path))
		say(r, GATE_FINDING_NOTE, key,
		    "router advertisements do not reach %s through the gate: what it learnt from them ends; give it its addresses and "
		    "routes "
		    "and sysctl -w net.ipv6.conf.%s.accept_ra=0",
		    name, name);
}

/* \return its index, or 0. */
static uint32_t check_interface(struct report *r, const char *key, const char *name, const char *link)
{
	static const struct {
		const char *family, *key;
	} s[] = {{"ipv4", "forwarding"}, {"ipv6", "forwarding"}, {"ipv6", "force_forwarding"}};
	char path[96];
	struct gate_if i;
	int rc = gate_if_query(name, &i);

	if (rc == -ENODEV) {
		say(r, GATE_FINDING_WRONG, key, "there is no interface \"%s\" here; `ip link` lists those there are", name);
		return 0;
	}
	if (rc < 0) {
		say(r, GATE_FINDING_NOTE, key, "%s cannot be looked at: %s", name, strerror(-rc));
		return 0;
	}
	if (!i.ethernet) {
		say(r, GATE_FINDING_WRONG, key, "%s is not an Ethernet interface; the gate needs one", name);
		return i.ifindex;
	}
	for (unsigned k = 0; k < sizeof(s) / sizeof(s[0]); k++) {
		snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", s[k].family, name, s[k].key);
		if (is_set(path))
			say(r, GATE_FINDING_WRONG, key,
			    "the kernel forwards what %s receives, around the gate; sysctl -w net.%s.conf.%s.%s=0", name, s[k].family, name,
			    s[k].key);
	}
	if (gate_config_has6(r->cfg))
		check_ip6(r, key, name);
	if (!i.up)
		say(r, GATE_FINDING_NOTE, key, "%s is down; ip link set %s up", name, name);
	if (i.has_program && !is_pinned(r->cfg, link))
		say(r, GATE_FINDING_WRONG, key, "%s holds another XDP program; ip link set dev %s xdp off", name, name);
	check_xdp(r, key, name, &i);
	if (strcmp(i.kind, "veth") == 0)
		check_peer(r, key, name, &i);
	return i.ifindex;
}

static void check_state(struct report *r)
{
	char dir[sizeof(r->cfg->state)], *slash;
	struct statfs fs;

	snprintf(dir, sizeof(dir), "%s", r->cfg->state);
	while (statfs(dir, &fs) < 0) {
		slash = strrchr(dir, '/');
		if (errno != ENOENT || slash == NULL || slash == dir) {
			say(r, GATE_FINDING_WRONG, "state", "%s: %s", r->cfg->state, strerror(errno));
			return;
		}
		*slash = '\0';
	}
	if ((unsigned long)fs.f_type != BPF_FS_MAGIC)
		say(r, GATE_FINDING_WRONG, "state", "%s is not on a bpf file system; mount -t bpf bpf /sys/fs/bpf, and let it stand below",
		    r->cfg->state);
}

static void check_control(struct report *r)
{
	char text[WN_ADDR_STR];
	struct ifaddrs *all, *a;
	struct sockaddr_storage ss;
	struct wn_addr have;
	bool found = false, inside = false;

	if (getifaddrs(&all) < 0)
		return;
	for (a = all; a != NULL; a = a->ifa_next) {
		if (a->ifa_addr == NULL || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
			continue;
		memset(&ss, 0, sizeof(ss));
		memcpy(&ss, a->ifa_addr, a->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		wn_addr_from_sockaddr(&have, &ss);
		if (!wn_ip_eq(&have, &r->cfg->control))
			continue;
		found = true;
		inside = inside || strcmp(a->ifa_name, r->cfg->inside) == 0;
	}
	freeifaddrs(all);
	if (!found)
		say(r, GATE_FINDING_WRONG, "control", "no interface here has the address %s; ip addr add it to %s",
		    wn_ip_str(&r->cfg->control, text), r->cfg->inside);
	else if (!inside)
		say(r, GATE_FINDING_NOTE, "control", "%s is an address of another interface than %s; agents reach it through %s only",
		    wn_ip_str(&r->cfg->control, text), r->cfg->inside, r->cfg->inside);
}

static void check_frames(struct report *r, const char *key, const char *name)
{
	struct gate_if i;

	if (gate_if_query(name, &i) < 0 || !i.ethernet)
		return;
	check_xdp(r, key, name, &i);
	if (strcmp(i.kind, "veth") == 0)
		check_peer(r, key, name, &i);
}

unsigned gate_precheck_frames(const struct gate_config *cfg,
			      void (*say_it)(enum gate_finding kind, const char *key, const char *text, void *arg), void *arg)
{
	struct report r = {.cfg = cfg, .say = say_it, .arg = arg};

	check_frames(&r, "outside.interface", cfg->outside);
	check_frames(&r, "inside.interface", cfg->inside);
	return r.wrong;
}

unsigned gate_precheck(const struct gate_config *cfg, void (*say_it)(enum gate_finding kind, const char *key, const char *text, void *arg),
		       void *arg)
{
	struct report r = {.cfg = cfg, .say = say_it, .arg = arg};
	uint32_t outside, inside;

	outside = check_interface(&r, "outside.interface", cfg->outside, "link_outside");
	inside = check_interface(&r, "inside.interface", cfg->inside, "link_inside");
	if (outside != 0 && outside == inside)
		say(&r, GATE_FINDING_WRONG, "inside.interface", "%s is the outside one too; the gate stands between two", cfg->inside);
	if (is_set("/proc/sys/net/ipv4/ip_forward"))
		say(&r, GATE_FINDING_WRONG, "inside.interface",
		    "net.ipv4.ip_forward is 1: without the gate's program the kernel would forward everything; sysctl -w "
		    "net.ipv4.ip_forward=0");
	if (is_set("/proc/sys/net/ipv6/conf/all/forwarding"))
		say(&r, GATE_FINDING_WRONG, "inside.interface",
		    "net.ipv6.conf.all.forwarding is 1: without the gate's program the kernel would forward everything; sysctl -w "
		    "net.ipv6.conf.all.forwarding=0");
	if (inside != 0)
		check_control(&r);
	check_state(&r);
	return r.wrong;
}
