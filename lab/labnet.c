/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <glob.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "labnet.h"

volatile sig_atomic_t lab_stop;

static void on_stop(int sig)
{
	(void)sig;
	lab_stop = 1;
}

static bool in_lab_namespace(void)
{
	struct stat self, other;
	glob_t found;
	bool inside = false;

	if (stat("/proc/self/ns/net", &self) < 0)
		return false;
	if (stat("/proc/1/ns/net", &other) == 0 && other.st_ino == self.st_ino && other.st_dev == self.st_dev)
		return false;
	if (glob("/run/netns/wl-*", 0, NULL, &found) != 0)
		return false;
	for (size_t i = 0; i < found.gl_pathc && !inside; i++)
		inside = stat(found.gl_pathv[i], &other) == 0 && other.st_ino == self.st_ino && other.st_dev == self.st_dev;
	globfree(&found);
	return inside;
}

bool lab_guard(uint32_t dst)
{
	uint32_t a = ntohl(dst);
	char text[INET_ADDRSTRLEN];

	if (a >> 24 == 127)
		return true;
	if (a >> 17 == 0xC612u >> 1 && in_lab_namespace())
		return true;
	inet_ntop(AF_INET, &dst, text, sizeof(text));
	if (a >> 17 != 0xC612u >> 1)
		fprintf(stderr, "lab: %s: refused, neither loopback nor in 198.18.0.0/15\n", text);
	else
		fprintf(stderr, "lab: %s: refused, this is not a namespace of a lab (/run/netns/wl-*)\n", text);
	return false;
}

void lab_bounded(unsigned seconds)
{
	struct sigaction sa = {.sa_handler = on_stop};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
	alarm(seconds < LAB_SECONDS_MAX ? seconds : LAB_SECONDS_MAX);
}

uint64_t lab_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

void lab_sleep_until(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

uint64_t lab_random(void)
{
	static uint64_t s;

	while (s == 0)
		if (getrandom(&s, sizeof(s), 0) != sizeof(s))
			s = lab_now_ns();
	s ^= s >> 12;
	s ^= s << 25;
	s ^= s >> 27;
	return s * 0x2545F4914F6CDD1Du;
}

uint32_t lab_spoofed(void)
{
	return htonl(0xC6130000u | (uint32_t)(lab_random() >> 48));
}

int lab_parse(const char *text, uint32_t *addr, uint16_t *port)
{
	char host[INET_ADDRSTRLEN];
	const char *colon = strchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : strlen(text);
	struct in_addr a;

	if (n >= sizeof(host) || (colon && !port) || (!colon && port))
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = '\0';
	if (inet_pton(AF_INET, host, &a) != 1)
		return -EINVAL;
	if (colon) {
		char *end;
		unsigned long p = strtoul(colon + 1, &end, 10);

		if (*end || end == colon + 1 || p == 0 || p > 65535)
			return -EINVAL;
		*port = (uint16_t)p;
	}
	*addr = a.s_addr;
	return 0;
}

void lab_pace_start(struct lab_pace *p, uint64_t rate)
{
	*p = (struct lab_pace){.start = lab_now_ns(), .rate = rate};
}

unsigned lab_due(struct lab_pace *p)
{
	uint64_t want = (lab_now_ns() - p->start) * p->rate / 1000000000u;
	uint64_t due = want - p->done, most = p->rate / 50 + 1;

	if (due > most) { /* the machine was away: what was missed is not made up for in one burst */
		p->missed += due - most;
		due = most;
	}
	p->done = want;
	return (unsigned)due;
}

static uint32_t sum16(uint32_t sum, const void *data, size_t len)
{
	const uint8_t *p = data;

	for (; len > 1; p += 2, len -= 2) {
		uint16_t w;

		memcpy(&w, p, 2);
		sum += w;
	}
	if (len) {
		uint16_t w = 0;

		memcpy(&w, p, 1);
		sum += w;
	}
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xFFFF) + (sum >> 16);
	sum = (sum & 0xFFFF) + (sum >> 16);
	return (uint16_t)~sum;
}

/* The gateway of the best route, or dst itself when it is on the link. */
static uint32_t next_hop(const char *dev, uint32_t dst)
{
	FILE *f = fopen("/proc/net/route", "re");
	char line[256], name[16];
	unsigned to, via, mask, best = 0;
	uint32_t hop = dst;
	bool any = false;

	if (!f)
		return dst;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%15s %x %x %*x %*d %*d %*d %x", name, &to, &via, &mask) != 4 || strcmp(name, dev) != 0)
			continue;
		if ((dst & mask) == to && (!any || ntohl(mask) >= best)) {
			any = true;
			best = ntohl(mask);
			hop = via ? via : dst;
		}
	}
	fclose(f);
	return hop;
}

static bool arp_lookup(uint32_t addr, uint8_t mac[6])
{
	FILE *f = fopen("/proc/net/arp", "re");
	char line[256], ip[64], hw[64], text[INET_ADDRSTRLEN];
	unsigned flags, b[6];
	bool found = false;

	if (!f)
		return false;
	inet_ntop(AF_INET, &addr, text, sizeof(text));
	while (!found && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %*s %x %63s", ip, &flags, hw) != 3 || strcmp(ip, text) != 0 || !(flags & 2))
			continue;
		if (sscanf(hw, "%x:%x:%x:%x:%x:%x", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5]) != 6)
			continue;
		for (int i = 0; i < 6; i++)
			mac[i] = (uint8_t)b[i];
		found = true;
	}
	fclose(f);
	return found;
}

static int resolve(uint32_t hop, uint8_t mac[6])
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = hop, .sin_port = htons(9)};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int r = -EHOSTUNREACH;

	if (fd < 0)
		return -errno;
	for (int i = 0; i < 60 && r < 0; i++) {
		if (i % 20 == 0)
			(void)sendto(fd, "", 1, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof(to));
		if (arp_lookup(hop, mac))
			r = 0;
		else
			lab_sleep_until(lab_now_ns() + 50000000u);
	}
	close(fd);
	return r;
}

int lab_tx_open(struct lab_tx *t, const char *dev, uint32_t dst)
{
	struct ifreq ifr = {0};
	struct sockaddr_ll ll = {.sll_family = AF_PACKET};
	int one = 1, room = 4 << 20, r;

	memset(t, 0, sizeof(*t));
	t->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (t->fd < 0) {
		r = -errno;
		fprintf(stderr, "lab: raw socket: %s\n", strerror(-r));
		return r;
	}
	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", dev);
	if (ioctl(t->fd, SIOCGIFINDEX, &ifr) < 0)
		goto fail;
	t->ifindex = ll.sll_ifindex = ifr.ifr_ifindex;
	if (ioctl(t->fd, SIOCGIFHWADDR, &ifr) < 0)
		goto fail;
	memcpy(t->mac, ifr.ifr_hwaddr.sa_data, 6);
	if (ioctl(t->fd, SIOCGIFADDR, &ifr) < 0)
		goto fail;
	struct sockaddr_in own;

	memcpy(&own, &ifr.ifr_addr, sizeof(own));
	t->addr = own.sin_addr.s_addr;
	if (bind(t->fd, (struct sockaddr *)&ll, sizeof(ll)) < 0)
		goto fail;
	/* The queueing discipline is passed by: the generator paces itself. */
	(void)setsockopt(t->fd, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
	(void)setsockopt(t->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	if (ntohl(dst) >> 24 != 127) {
		r = resolve(next_hop(dev, dst), t->next);
		if (r < 0) {
			fprintf(stderr, "lab: %s: the next hop does not answer ARP\n", dev);
			close(t->fd);
			return r;
		}
	}
	for (unsigned i = 0; i < LAB_BATCH; i++) {
		t->iov[i].iov_base = t->frame[i];
		t->m[i].msg_hdr.msg_iov = &t->iov[i];
		t->m[i].msg_hdr.msg_iovlen = 1;
	}
	return 0;
fail:
	r = -errno;
	fprintf(stderr, "lab: %s: %s\n", dev, strerror(-r));
	close(t->fd);
	return r;
}

/* Ethernet and IPv4 headers; returns where the transport header goes. */
static uint8_t *begin(struct lab_tx *t, uint32_t src, uint32_t dst, uint8_t proto, size_t len)
{
	uint8_t *f = t->frame[t->n];
	struct iphdr ip = {
		.version = 4,
		.ihl = 5,
		.tot_len = htons((uint16_t)(LAB_IP + len)),
		.id = (uint16_t)lab_random(),
		.ttl = 64,
		.protocol = proto,
		.saddr = src,
		.daddr = dst,
	};

	memcpy(f, t->next, 6);
	memcpy(f + 6, t->mac, 6);
	f[12] = 0x08;
	f[13] = 0x00;
	ip.check = fold(sum16(0, &ip, sizeof(ip)));
	memcpy(f + LAB_ETH, &ip, sizeof(ip));
	t->iov[t->n].iov_len = LAB_ETH + LAB_IP + len;
	return f + LAB_ETH + LAB_IP;
}

static uint32_t pseudo(uint32_t src, uint32_t dst, uint8_t proto, size_t len)
{
	uint32_t sum = htons((uint16_t)len) + (uint32_t)htons(proto);

	sum = sum16(sum, &src, 4);
	return sum16(sum, &dst, 4);
}

static void added(struct lab_tx *t)
{
	if (++t->n == LAB_BATCH)
		lab_tx_flush(t);
}

void lab_tx_udp(struct lab_tx *t, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport, const void *payload, size_t len)
{
	struct udphdr udp = {.uh_sport = htons(sport), .uh_dport = htons(dport)};
	uint8_t *p;

	if (len > LAB_PAYLOAD_MAX)
		len = LAB_PAYLOAD_MAX;
	udp.uh_ulen = htons((uint16_t)(LAB_UDP + len));
	p = begin(t, src, dst, IPPROTO_UDP, LAB_UDP + len);
	memcpy(p + LAB_UDP, payload, len);
	udp.uh_sum = fold(sum16(sum16(pseudo(src, dst, IPPROTO_UDP, LAB_UDP + len), &udp, sizeof(udp)), payload, len));
	if (udp.uh_sum == 0)
		udp.uh_sum = 0xFFFF;
	memcpy(p, &udp, sizeof(udp));
	added(t);
}

void lab_tx_syn(struct lab_tx *t, uint32_t src, uint16_t sport, uint32_t dst, uint16_t dport)
{
	static const uint8_t mss[4] = {2, 4, 0x05, 0xB4};
	struct tcphdr tcp = {
		.th_sport = htons(sport),
		.th_dport = htons(dport),
		.th_seq = (uint32_t)lab_random(),
		.th_off = 6,
		.th_flags = TH_SYN,
		.th_win = htons(64240),
	};
	uint8_t *p = begin(t, src, dst, IPPROTO_TCP, sizeof(tcp) + sizeof(mss));

	tcp.th_sum = fold(sum16(sum16(pseudo(src, dst, IPPROTO_TCP, sizeof(tcp) + sizeof(mss)), &tcp, sizeof(tcp)), mss, sizeof(mss)));
	memcpy(p, &tcp, sizeof(tcp));
	memcpy(p + sizeof(tcp), mss, sizeof(mss));
	added(t);
}

void lab_tx_flush(struct lab_tx *t)
{
	unsigned at = 0;

	while (at < t->n) {
		int k = sendmmsg(t->fd, t->m + at, t->n - at, 0);

		if (k > 0) {
			at += (unsigned)k;
			t->sent += (unsigned)k;
		} else if (errno != EINTR) { /* this one is lost, as on any full wire */
			at++;
			t->failed++;
		} else if (lab_stop) {
			break;
		}
	}
	t->n = 0;
}

int lab_rx_open(const char *dev, unsigned snap)
{
	struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, snap)};
	struct sock_fprog prog = {.len = 1, .filter = code};
	struct sockaddr_ll ll = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1, room = 16 << 20, r;
	struct packet_mreq mr = {.mr_type = PACKET_MR_PROMISC};

	if (fd < 0)
		return -errno;
	ll.sll_ifindex = mr.mr_ifindex = (int)if_nametoindex(dev);
	if (ll.sll_ifindex == 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &mr, sizeof(mr)) < 0 || bind(fd, (struct sockaddr *)&ll, sizeof(ll)) < 0) {
		r = -errno;
		close(fd);
		return r;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}
