/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/magic.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "gate/path.h"

#ifndef BPF_FS_MAGIC
#define BPF_FS_MAGIC 0xcafe4a11
#endif

/* \return 0 or 1, or -1 when there is no such switch. */
static int sysctl_get(const char *path)
{
	char c = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (read(fd, &c, 1) != 1)
		c = '0';
	close(fd);
	return c != '0';
}

static int sysctl_set(const char *path)
{
	int fd, rc = 0;

	if (sysctl_get(path) == 1)
		return 0;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "1", 1) != 1)
		rc = -errno;
	if (fd >= 0)
		close(fd);
	return rc;
}

/* Both families, whatever the file says: what the gate does not take in hand nobody may forward. */
static int check_forwarding(const char *name, const char *key)
{
	static const struct {
		const char *family, *key;
	} s[] = {{"ipv4", "forwarding"}, {"ipv6", "forwarding"}, {"ipv6", "force_forwarding"}};
	char path[96];

	for (unsigned i = 0; i < sizeof(s) / sizeof(s[0]); i++) {
		snprintf(path, sizeof(path), "/proc/sys/net/%s/conf/%s/%s", s[i].family, name, s[i].key);
		if (sysctl_get(path) == 1) {
			wn_err("%s.interface: the kernel forwards what %s receives: it would pass around the gate; sysctl -w "
			       "net.%s.conf.%s.%s=0",
			       key, name, s[i].family, name, s[i].key);
			return -EPERM;
		}
	}
	return 0;
}

static int check_interface(int fd, const char *name, const char *key, uint32_t *ifindex, uint8_t mac[static 8])
{
	struct ifreq r;
	int rc;

	*ifindex = if_nametoindex(name);
	if (*ifindex == 0) {
		wn_err("%s.interface: there is no interface %s here; `ip link` lists those that there are", key, name);
		return -ENODEV;
	}
	memset(&r, 0, sizeof(r));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", name);
	if (ioctl(fd, SIOCGIFHWADDR, &r) < 0) {
		wn_err("%s.interface: %s: %s", key, name, strerror(errno));
		return -errno;
	}
	if (r.ifr_hwaddr.sa_family != ARPHRD_ETHER) {
		wn_err("%s.interface: %s is not an Ethernet interface; the gate needs one", key, name);
		return -EINVAL;
	}
	memcpy(mac, r.ifr_hwaddr.sa_data, 6);
	rc = check_forwarding(name, key);
	if (rc != 0)
		return rc;
	if (ioctl(fd, SIOCGIFFLAGS, &r) == 0 && !(r.ifr_flags & IFF_UP))
		wn_warn("%s.interface: %s is down; ip link set %s up", key, name, name);
	return 0;
}

int gate_host_check(const struct gate_config *cfg, uint32_t ifindex[GATE_SIDES], uint8_t mac[GATE_SIDES][8])
{
	int fd, rc;

	if (sysctl_get("/proc/sys/net/ipv4/ip_forward") == 1) {
		wn_err("net.ipv4.ip_forward is 1: when the gate's program is absent the kernel would forward everything; sysctl -w "
		       "net.ipv4.ip_forward=0");
		return -EPERM;
	}
	if (sysctl_get("/proc/sys/net/ipv6/conf/all/forwarding") == 1) {
		wn_err("net.ipv6.conf.all.forwarding is 1: when the gate's program is absent the kernel would forward everything; sysctl "
		       "-w net.ipv6.conf.all.forwarding=0");
		return -EPERM;
	}
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		wn_err("socket: %s", strerror(errno));
		return -errno;
	}
	rc = check_interface(fd, cfg->outside, "outside", &ifindex[GATE_OUTSIDE], mac[GATE_OUTSIDE]);
	if (rc == 0)
		rc = check_interface(fd, cfg->inside, "inside", &ifindex[GATE_INSIDE], mac[GATE_INSIDE]);
	close(fd);
	if (rc != 0)
		return rc;
	if (ifindex[GATE_OUTSIDE] == ifindex[GATE_INSIDE]) {
		wn_err("inside.interface: %s is the outside one too; the gate stands between two", cfg->inside);
		return -EINVAL;
	}
	/* bpf_fib_lookup answers only for an input device that forwards. Packets do not arrive on lo from elsewhere: nothing is forwarded
	 * by it. */
	rc = sysctl_set("/proc/sys/net/ipv4/conf/lo/forwarding");
	if (rc != 0)
		wn_err("net.ipv4.conf.lo.forwarding cannot be set (%s): the gate's route look-ups need it; sysctl -w "
		       "net.ipv4.conf.lo.forwarding=1",
		       strerror(-rc));
	if (rc == 0 && gate_config_has6(cfg)) {
		rc = sysctl_set("/proc/sys/net/ipv6/conf/lo/forwarding");
		if (rc != 0)
			wn_err("net.ipv6.conf.lo.forwarding cannot be set (%s): the gate's IPv6 route look-ups need it; sysctl -w "
			       "net.ipv6.conf.lo.forwarding=1",
			       strerror(-rc));
	}
	return rc;
}

/* Where the gate's own messages come from: an address that reaches further than the link. */
static void take_self(const struct wn_addr *a, int side, struct gate_params *p)
{
	union gate_addr have;

	gate_addr_from(&have, a);
	if (wn_addr_is4(a) && p->self_ip[side] == 0)
		p->self_ip[side] = have.ip4;
	else if (!wn_addr_is4(a) && p->self_ip6[side].w[0] == 0 && !(a->ip[0] == 0xfe && (a->ip[1] & 0xc0) == 0x80))
		p->self_ip6[side] = have.ip6;
}

void gate_host_addresses(const struct gate_config *cfg, struct gate_params *p)
{
	struct ifaddrs *all, *a;
	struct sockaddr_storage ss;
	struct wn_addr have;

	take_self(&cfg->control, GATE_INSIDE, p);
	if (getifaddrs(&all) < 0)
		return;
	for (a = all; a != NULL; a = a->ifa_next) {
		if (a->ifa_addr == NULL || (a->ifa_addr->sa_family != AF_INET && a->ifa_addr->sa_family != AF_INET6))
			continue;
		memset(&ss, 0, sizeof(ss));
		memcpy(&ss, a->ifa_addr, a->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		wn_addr_from_sockaddr(&have, &ss);
		if (strcmp(a->ifa_name, cfg->outside) == 0)
			take_self(&have, GATE_OUTSIDE, p);
		else if (strcmp(a->ifa_name, cfg->inside) == 0)
			take_self(&have, GATE_INSIDE, p);
	}
	freeifaddrs(all);
}

int gate_state_dir(const char *path)
{
	char dir[256], *slash;
	struct statfs fs;
	int fd, rc;

	snprintf(dir, sizeof(dir), "%s", path);
	/* Whatever exists of the path must be on a bpf file system before anything is made there. */
	while (statfs(dir, &fs) < 0) {
		slash = strrchr(dir, '/');
		if (slash == NULL || slash == dir) {
			wn_err("state: %s: %s", path, strerror(errno));
			return -ENOENT;
		}
		*slash = '\0';
	}
	if ((unsigned long)fs.f_type != BPF_FS_MAGIC) {
		wn_err("state: %s is not on a bpf file system; mount -t bpf bpf /sys/fs/bpf, and let state: stand below it", path);
		return -ENOTSUP;
	}
	snprintf(dir, sizeof(dir), "%s", path);
	for (slash = strchr(dir + 1, '/');; slash = strchr(slash + 1, '/')) {
		if (slash != NULL)
			*slash = '\0';
		if (mkdir(dir, 0700) < 0 && errno != EEXIST) {
			rc = -errno;
			/* Parents above the mount are not ours to make. */
			if (rc != -EROFS && rc != -EPERM) {
				wn_err("state: %s: %s", dir, strerror(-rc));
				return rc;
			}
		}
		if (slash == NULL)
			break;
		*slash = '/';
	}
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		rc = -errno;
		wn_err("state: %s: %s", path, strerror(-rc));
		return rc;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		rc = -errno;
		if (rc == -EWOULDBLOCK)
			wn_err("state: %s is in use: another walnut-gate runs", path);
		else
			wn_err("state: %s: %s", path, strerror(-rc));
		close(fd);
		return rc;
	}
	return fd;
}
