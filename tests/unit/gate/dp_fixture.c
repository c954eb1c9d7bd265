/* SPDX-License-Identifier: Apache-2.0 */
#include "dp_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <sched.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"

struct gate_config fx_config;
struct gate_dp *fx_dp;

static char bpffs[] = "/tmp/walnut-dp-XXXXXX";
static uint8_t gate_mac[GATE_SIDES][8];
static const uint8_t peer_mac[GATE_SIDES][6] = {{2, 0, 0, 0, 3, 1}, {2, 0, 0, 0, 100, 2}};

static void sh(const char *command)
{
	if (system(command) != 0) {
		fprintf(stderr, "failed: %s\n", command);
		exit(1);
	}
}

void fx_addr(struct wn_addr *a, const char *ip, uint16_t port)
{
	assert_int_equal(wn_ip_parse(span_str(ip), a), 0);
	a->port = port;
}

bool fx_up(void)
{
	if (geteuid() != 0)
		return false;
	if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0)
		return false;
	if (sodium_init() < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mkdtemp(bpffs) == NULL ||
	    mount("bpf", bpffs, "bpf", 0, NULL) < 0) {
		perror("bpf file system");
		exit(1);
	}
	sh("ip link set lo up; ip link add wan address 02:00:00:00:03:02 type veth peer name wanp; "
	   "ip link add lan address 02:00:00:00:64:01 type veth peer name lanp; ip link set wanp up; ip link set lanp up; "
	   "ip addr add 198.18.3.2/24 dev wan; ip addr add 198.18.100.1/24 dev lan; ip link set wan up; ip link set lan up; "
	   "ip route add default via 198.18.3.1; ip neigh add 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent; "
	   "ip neigh add 198.18.100.2 lladdr 02:00:00:00:64:02 dev lan nud permanent; "
	   "ip addr add 2001:db8:3::2/64 dev wan nodad; ip addr add 2001:db8:100::1/64 dev lan nodad; "
	   "ip route add default via 2001:db8:3::1; ip neigh add 2001:db8:3::1 lladdr 02:00:00:00:03:01 dev wan nud permanent; "
	   "ip neigh add 2001:db8:100::2 lladdr 02:00:00:00:64:02 dev lan nud permanent");
	memcpy(gate_mac[GATE_OUTSIDE], "\x02\0\0\0\x03\x02", 6);
	memcpy(gate_mac[GATE_INSIDE], "\x02\0\0\0\x64\x01", 6);

	memset(&fx_config, 0, sizeof(fx_config));
	snprintf(fx_config.outside, sizeof(fx_config.outside), "wan");
	snprintf(fx_config.inside, sizeof(fx_config.inside), "lan");
	snprintf(fx_config.state, sizeof(fx_config.state), "%s/walnut", bpffs);
	fx_addr(&fx_config.public[0], FX_PUBLIC, 0);
	fx_config.npublic = 1;
	fx_config.port_low = 1024;
	fx_config.port_high = 65535;
	fx_addr(&fx_config.control, FX_CONTROL, 7443);
	fx_config.flows = 4096;
	fx_config.mappings = 4096;
	fx_config.holes = 64;
	fx_config.ntenant = 2;
	snprintf(fx_config.tenant[0].name, sizeof(fx_config.tenant[0].name), "example.org");
	wn_prefix_parse(SPAN_LIT("198.18.100.0/25"), &fx_config.tenant[0].prefix[0]);
	fx_config.tenant[0].nprefix = 1;
	fx_config.tenant[0].holes = 16;
	snprintf(fx_config.tenant[1].name, sizeof(fx_config.tenant[1].name), "example.net");
	wn_prefix_parse(SPAN_LIT("198.18.100.128/26"), &fx_config.tenant[1].prefix[0]);
	fx_config.tenant[1].nprefix = 1;
	fx_config.tenant[1].holes = 16;
	return true;
}

void fx_protect(const char *service4, const char *service6)
{
	if (service4 != NULL)
		fx_addr(&fx_config.public[0], service4, 0);
	fx_config.firewall = service4 != NULL;
	if (service6 != NULL)
		fx_addr(&fx_config.protected6[0], service6, 0);
	fx_config.nprotected6 = service6 != NULL;
	wn_prefix_parse(SPAN_LIT("2001:db8:100::/65"), &fx_config.tenant[0].prefix[1]);
	fx_config.tenant[0].nprefix = 2;
	wn_prefix_parse(SPAN_LIT("2001:db8:100:0:8000::/66"), &fx_config.tenant[1].prefix[1]);
	fx_config.tenant[1].nprefix = 2;
}

void fx_down(void)
{
	umount2(bpffs, MNT_DETACH);
	rmdir(bpffs);
}

void fx_open(void)
{
	assert_int_equal(gate_dp_open(&fx_config, &fx_dp), 0);
}

void fx_close(void)
{
	gate_dp_close(fx_dp);
	fx_dp = NULL;
}

void fx_remove(void)
{
	assert_int_equal(gate_dp_remove(&fx_config), 0);
}

void fx_anew(void)
{
	fx_close();
	fx_remove();
	fx_open();
}

int fx_setup(void **state)
{
	(void)state;
	fx_open();
	return 0;
}

int fx_teardown(void **state)
{
	(void)state;
	fx_close();
	fx_remove();
	return 0;
}

int fx_end(int rc)
{
	fx_down();
	return rc;
}

int fx_skip(void)
{
	printf("1..1\nok 1 # SKIP needs root\n");
	return 0;
}

struct fx_packet fx_tcp(const char *src, uint16_t sport, const char *dst, uint16_t dport, uint8_t flags, uint32_t seq, uint32_t ack,
			size_t n)
{
	static const uint8_t data[1500] = "data";

	return (struct fx_packet){.src = src,
				  .dst = dst,
				  .sport = sport,
				  .dport = dport,
				  .proto = IPPROTO_TCP,
				  .flags = flags,
				  .seq = seq,
				  .ack = ack,
				  .payload = data,
				  .n = n};
}

struct fx_packet fx_udp_out(uint16_t sport, const char *dst, uint16_t dport)
{
	return (struct fx_packet){
		.src = FX_SERVICE, .dst = dst, .sport = sport, .dport = dport, .payload = (const uint8_t *)"hello", .n = 5};
}

static uint16_t sum16(const uint8_t *p, size_t n, uint32_t sum)
{
	for (size_t i = 0; i + 1 < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	if (n & 1)
		sum += (uint32_t)p[n - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static uint32_t words(const uint8_t *p, size_t n)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < n; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	return sum;
}

/* \return the length of the IP header; *pseudo is the sum that layer 4's checksums begin with. */
static size_t build_ip(const struct fx_packet *p, uint8_t proto, size_t l4len, uint8_t *ip, uint32_t *pseudo)
{
	const uint8_t ttl = p->ttl != 0 ? p->ttl : 64;

	if (strchr(p->src, ':') != NULL) {
		ip[0] = 0x60;
		put16(ip + 4, (uint32_t)l4len);
		ip[6] = proto;
		ip[7] = ttl;
		inet_pton(AF_INET6, p->src, ip + 8);
		inet_pton(AF_INET6, p->dst, ip + 24);
		*pseudo = words(ip + 8, 32) + proto + (uint32_t)l4len;
		return 40;
	}
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(20 + l4len));
	put16(ip + 4, 0x1234);
	put16(ip + 6, p->fx & FX_NO_DF ? 0 : 0x4000);
	ip[8] = ttl;
	ip[9] = proto;
	inet_pton(AF_INET, p->src, ip + 12);
	inet_pton(AF_INET, p->dst, ip + 16);
	put16(ip + 10, sum16(ip, 20, 0));
	*pseudo = words(ip + 12, 8) + proto + (uint32_t)l4len;
	return 20;
}

static size_t build(const uint8_t *dmac, const uint8_t *smac, const struct fx_packet *p, uint8_t *out)
{
	const uint8_t proto = p->proto != 0 ? p->proto : IPPROTO_UDP;
	size_t header = proto == IPPROTO_TCP ? 20 + p->noption : 8, l4len = header + p->n, at;
	uint32_t pseudo;
	uint16_t check;
	uint8_t *l4;

	memset(out, 0, 54 + header);
	memcpy(out, dmac, 6);
	memcpy(out + 6, smac, 6);
	put16(out + 12, strchr(p->src, ':') != NULL ? 0x86dd : 0x0800);
	at = 14 + build_ip(p, proto, l4len, out + 14, &pseudo);
	l4 = out + at;
	if (p->n > 0)
		memcpy(l4 + header, p->payload, p->n);
	switch (proto) {
	case IPPROTO_TCP:
		put16(l4, p->sport);
		put16(l4 + 2, p->dport);
		put32(l4 + 4, p->seq);
		put32(l4 + 8, p->ack);
		l4[12] = (uint8_t)(header / 4 << 4);
		l4[13] = p->flags;
		put16(l4 + 14, p->window != 0 ? p->window : 65535);
		if (p->noption > 0)
			memcpy(l4 + 20, p->option, p->noption);
		put16(l4 + 16, sum16(l4, l4len, pseudo));
		break;
	case IPPROTO_UDP:
		put16(l4, p->sport);
		put16(l4 + 2, p->dport);
		put16(l4 + 4, (uint32_t)l4len);
		check = sum16(l4, l4len, pseudo);
		if (!(p->fx & FX_NO_CSUM))
			put16(l4 + 6, check == 0 ? 0xffff : check);
		break;
	default:
		l4[0] = p->icmp_type;
		l4[1] = p->icmp_code;
		put16(l4 + 4, p->sport);
		put16(l4 + 6, 1);
		put16(l4 + 2, sum16(l4, l4len, proto == IPPROTO_ICMPV6 ? pseudo : 0));
		break;
	}
	return at + l4len;
}

size_t fx_arriving(int side, const struct fx_packet *p, uint8_t *out)
{
	return build(gate_mac[side], peer_mac[side], p, out);
}

size_t fx_leaving(int side, const struct fx_packet *p, uint8_t *out)
{
	return build(peer_mac[side], gate_mac[side], p, out);
}

int fx_run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in, .data_size_in = (uint32_t)n, .data_out = out, .data_size_out = FX_FRAME,
		    .repeat = 1);

	if (bpf_prog_test_run_opts(fx_dp->path_fd[side], &opts) < 0) {
		fprintf(stderr, "test run: %s\n", strerror(errno));
		fail();
	}
	if (nout != NULL)
		*nout = opts.data_size_out;
	return (int)opts.retval;
}

struct want {
	const char *name;
	uint64_t value;
	bool found;
};

static void find(const char *name, int is_drop, uint64_t value, void *arg)
{
	struct want *w = arg;

	(void)is_drop;
	if (strcmp(name, w->name) == 0) {
		w->value = value;
		w->found = true;
	}
}

uint64_t fx_counter(const char *name)
{
	struct want w = {.name = name};

	assert_int_equal(gate_dp_counters(fx_dp, find, &w), 0);
	if (!w.found)
		fprintf(stderr, "no counter %s\n", name);
	assert_true(w.found);
	return w.value;
}

void fx_refill(void)
{
	uint64_t *zero = calloc((size_t)fx_dp->cpus, sizeof(*zero));

	assert_non_null(zero);
	for (uint32_t i = 0; bpf_map_update_elem(fx_dp->budgets_fd, &i, zero, BPF_ANY) == 0; i++)
		;
	free(zero);
}

struct snapshot {
	char name[64];
	uint64_t value;
};

struct snapshots {
	struct snapshot s[GATE_REASON_COUNT + 8];
	unsigned n;
};

static void take(const char *name, int is_drop, uint64_t value, void *arg)
{
	struct snapshots *s = arg;

	if (!is_drop)
		return;
	snprintf(s->s[s->n].name, sizeof(s->s[0].name), "%s", name);
	s->s[s->n++].value = value;
}

/* Which drop counter moved since: for messages that help. */
static const char *moved(const struct snapshots *before)
{
	struct snapshots now = {.n = 0};
	static char name[64];

	gate_dp_counters(fx_dp, take, &now);
	snprintf(name, sizeof(name), "nothing");
	for (unsigned i = 0; i < now.n; i++)
		if (now.s[i].value != before->s[i].value)
			snprintf(name, sizeof(name), "%s", now.s[i].name);
	return name;
}

void fx_expect_frame_drop(int side, const uint8_t *frame, size_t n, const char *reason)
{
	uint8_t out[FX_FRAME];
	struct snapshots before = {.n = 0};
	uint64_t was;
	int verdict;

	gate_dp_counters(fx_dp, take, &before);
	was = fx_counter(reason);
	verdict = fx_run(side, frame, n, out, NULL);
	if (verdict != XDP_DROP || fx_counter(reason) != was + 1)
		fprintf(stderr, "verdict %d, counted %s; expected %s\n", verdict, moved(&before), reason);
	assert_int_equal(verdict, XDP_DROP);
	assert_int_equal(fx_counter(reason), was + 1);
}

void fx_expect_drop(int side, const struct fx_packet *in, const char *reason)
{
	uint8_t frame[FX_FRAME];
	size_t n = fx_arriving(side, in, frame);

	fx_expect_frame_drop(side, frame, n, reason);
}

static size_t build_told(int side, const struct fx_packet *in, const uint8_t *quote, const char *from, const uint8_t icmp_head[4],
			 uint8_t *want)
{
	const bool six = strchr(in->src, ':') != NULL;
	const size_t ip_bytes = six ? 40 : 20, keep = ip_bytes + 8;
	uint8_t *ip = want + 14, *icmp = ip + ip_bytes;
	uint32_t pseudo = 0;

	memcpy(want, peer_mac[side], 6);
	memcpy(want + 6, gate_mac[side], 6);
	if (six) {
		put16(want + 12, 0x86dd);
		ip[0] = 0x6c; /* internetwork control */
		put16(ip + 4, (uint32_t)(8 + keep));
		ip[6] = IPPROTO_ICMPV6;
		ip[7] = 64;
		inet_pton(AF_INET6, from, ip + 8);
		inet_pton(AF_INET6, in->src, ip + 24);
		pseudo = words(ip + 8, 32) + IPPROTO_ICMPV6 + (uint32_t)(8 + keep);
	} else {
		put16(want + 12, 0x0800);
		ip[0] = 0x45;
		ip[1] = 0xc0;
		put16(ip + 2, 56);
		put16(ip + 6, 0x4000);
		ip[8] = 64;
		ip[9] = IPPROTO_ICMP;
		inet_pton(AF_INET, from, ip + 12);
		inet_pton(AF_INET, in->src, ip + 16);
		put16(ip + 10, sum16(ip, 20, 0));
	}
	memcpy(icmp, icmp_head, 2);
	memcpy(icmp + 6, icmp_head + 2, 2);
	memcpy(icmp + 8, quote, keep);
	put16(icmp + 2, sum16(icmp, 8 + keep, pseudo));
	return 14 + ip_bytes + 8 + keep;
}

void fx_expect_told(int side, const struct fx_packet *in, const char *reason, const char *from, uint8_t type, uint8_t code, uint16_t mtu)
{
	const uint8_t head[4] = {type, code, (uint8_t)(mtu >> 8), (uint8_t)mtu};
	uint8_t frame[FX_FRAME], got[FX_FRAME], want[128] = {0};
	size_t n = fx_arriving(side, in, frame), ngot, nwant = build_told(side, in, frame + 14, from, head, want);
	struct snapshots before = {.n = 0};
	uint64_t was = fx_counter(reason);
	int verdict;

	gate_dp_counters(fx_dp, take, &before);
	verdict = fx_run(side, frame, n, got, &ngot);
	if (verdict != XDP_REDIRECT || fx_counter(reason) != was + 1)
		fprintf(stderr, "verdict %d, counted %s; expected an answer and %s\n", verdict, moved(&before), reason);
	assert_int_equal(verdict, XDP_REDIRECT);
	assert_int_equal(fx_counter(reason), was + 1);
	assert_int_equal(ngot, nwant);
	assert_memory_equal(got, want, nwant);
}

void fx_passes(int side, const struct fx_packet *in, uint8_t *out, size_t *nout)
{
	uint8_t frame[FX_FRAME];
	struct snapshots before = {.n = 0};
	size_t n = fx_arriving(side, in, frame);
	int verdict;

	gate_dp_counters(fx_dp, take, &before);
	verdict = fx_run(side, frame, n, out, nout);
	if (verdict != XDP_REDIRECT)
		fprintf(stderr, "verdict %d, counted %s; expected to pass\n", verdict, moved(&before));
	assert_int_equal(verdict, XDP_REDIRECT);
}

void fx_expect_out(int side, const struct fx_packet *in, const struct fx_packet *out)
{
	uint8_t got[FX_FRAME], want[FX_FRAME];
	struct fx_packet p = *out;
	size_t ngot, nwant;

	if (p.ttl == 0)
		p.ttl = 63;
	fx_passes(side, in, got, &ngot);
	nwant = fx_leaving(side == GATE_OUTSIDE ? GATE_INSIDE : GATE_OUTSIDE, &p, want);
	assert_int_equal(ngot, nwant);
	assert_memory_equal(got, want, nwant);
}

uint16_t fx_sport(const uint8_t *frame)
{
	const uint8_t *at = frame + (frame[14 + 9] == IPPROTO_ICMP ? 38 : 34);

	return (uint16_t)(at[0] << 8 | at[1]);
}

uint16_t fx_opens(struct fx_packet p)
{
	uint8_t got[FX_FRAME];
	size_t n;

	fx_passes(GATE_INSIDE, &p, got, &n);
	return fx_sport(got);
}

struct gate_request fx_open_request(uint8_t proto, uint16_t port, const char *remote)
{
	struct gate_request r;

	memset(&r, 0, sizeof(r));
	r.op = GATE_OPEN;
	r.proto = proto;
	fx_addr(&r.inside, FX_SERVICE, port);
	if (remote != NULL)
		fx_addr(&r.remote, remote, 0);
	else {
		r.flags = GATE_FLAG_TAG;
		memset(r.key, 0x42, sizeof(r.key));
	}
	r.cookie = 77;
	r.lifetime_s = 60;
	snprintf(r.user, sizeof(r.user), "alice");
	return r;
}

struct gate_reply fx_apply(const struct gate_request *r)
{
	struct gate_reply reply;

	gate_dp_apply(fx_dp, r, wn_now_ms(), &reply);
	return reply;
}

struct gate_reply fx_apply_op(uint8_t op, uint64_t hole, uint32_t lifetime_s)
{
	struct gate_request r;

	memset(&r, 0, sizeof(r));
	r.op = op;
	r.hole = hole;
	r.lifetime_s = lifetime_s;
	return fx_apply(&r);
}

struct gate_grant *fx_grant(uint64_t hole)
{
	return &fx_dp->grants[GATE_HOLE_INDEX(hole)];
}

size_t fx_seal(const uint8_t key[16], uint64_t counter, const uint8_t *payload, size_t n, uint8_t *out)
{
	if (n > 0)
		memmove(out, payload, n);
	for (int i = 0; i < 8; i++)
		out[n + (size_t)i] = (uint8_t)(counter >> (56 - 8 * i));
	crypto_shorthash(out + n + 8, out, n + 8, key);
	return n + 16;
}

static uint64_t coarse(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * GATE_NS_PER_S + (uint64_t)ts.tv_nsec;
}

void fx_tick(void)
{
	struct timespec exact;
	uint64_t now;

	/* Past what user space calls now, too. */
	clock_gettime(CLOCK_MONOTONIC, &exact);
	now = (uint64_t)exact.tv_sec * GATE_NS_PER_S + (uint64_t)exact.tv_nsec;
	while (coarse() <= now)
		usleep(500);
}
