/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "gate/routes.h"
#include "micro.h"

#define CHUNK 4096

_Noreturn void bench_die(const char *what, int err)
{
	fprintf(stderr, "gate-micro: %s: %s\n", what, strerror(err));
	exit(1);
}

static void sh(const char *command)
{
	if (system(command) != 0)
		bench_die(command, EIO);
}

struct gate_dp *bench_open(uint32_t flows, uint32_t holes, uint32_t shift, uint8_t mac[GATE_SIDES][8])
{
	static struct gate_config cfg;
	struct gate_dp *dp;
	int rc;

	sh("ip link set lo up; ip link add wan address 02:00:00:00:03:02 type veth peer name wanp; "
	   "ip link add lan address 02:00:00:00:64:01 type veth peer name lanp; ip link set wanp up; ip link set lanp up; "
	   "ip addr add 198.18.3.2/24 dev wan; ip addr add 198.18.100.1/24 dev lan; ip link set wan up; ip link set lan up; "
	   "ip route add default via 198.18.3.1; ip route add 10.0.0.0/8 via 198.18.100.2; "
	   "ip neigh add 198.18.3.1 lladdr 02:00:00:00:03:01 dev wan nud permanent; "
	   "ip neigh add 198.18.100.2 lladdr 02:00:00:00:64:02 dev lan nud permanent");
	memcpy(mac[GATE_OUTSIDE], "\x02\0\0\0\x03\x02", 6);
	memcpy(mac[GATE_INSIDE], "\x02\0\0\0\x64\x01", 6);
	snprintf(cfg.outside, sizeof(cfg.outside), "wan");
	snprintf(cfg.inside, sizeof(cfg.inside), "lan");
	snprintf(cfg.state, sizeof(cfg.state), "/sys/fs/bpf/walnut");
	for (uint32_t i = 0; i < 1u << shift; i++) {
		const uint32_t ip = htonl(BENCH_PUBLIC + i);

		cfg.public[i].ip[10] = cfg.public[i].ip[11] = 0xff;
		memcpy(cfg.public[i].ip + 12, &ip, 4);
	}
	cfg.npublic = 1u << shift;
	cfg.port_low = BENCH_PORT_LOW;
	cfg.port_high = 65535;
	cfg.flows = cfg.mappings = flows + 64;
	cfg.holes = cfg.tenant[0].holes = holes + 64;
	cfg.ntenant = cfg.tenant[0].nprefix = 1;
	snprintf(cfg.tenant[0].name, sizeof(cfg.tenant[0].name), "example.org");
	if (wn_addr_parse(SPAN_LIT("198.18.100.1:7443"), -1, &cfg.control) != 0 ||
	    wn_prefix_parse(SPAN_LIT("10.0.0.0/8"), &cfg.tenant[0].prefix[0]) != 0)
		bench_die("configuration", EINVAL);
	rc = gate_dp_open(&cfg, &dp);
	if (rc != 0)
		bench_die("the packet path", -rc);
	return dp;
}

void bench_alive(struct gate_dp *dp)
{
	gate_routes_tick(dp->routes, wn_now_ns());
	gate_dp_events(dp);
	for (int i = 0; i < 1000 && gate_routes_known(dp->routes, wn_now_ns()) == 0; i++) {
		usleep(1000);
		gate_dp_events(dp);
	}
	if (gate_routes_known(dp->routes, wn_now_ns()) == 0)
		bench_die("next hops", ETIMEDOUT);
}

static void tracked(struct gate_track *t)
{
	struct gate_tcp_end *out = &t->end[GATE_OUTSIDE], *in = &t->end[GATE_INSIDE];

	out->end = in->ack = BENCH_SEQ_CLIENT;
	in->end = out->ack = BENCH_SEQ_INSIDE;
	out->window = in->window = 65535;
	out->limit = out->end + 65535;
	in->limit = in->end + 65535;
	out->flags = in->flags = GATE_TCP_KNOWN;
	t->state = GATE_TCP_ESTABLISHED;
}

static void put(int fd, const void *keys, const void *values, uint32_t n)
{
	if (n != 0 && bpf_map_update_batch(fd, keys, values, &n, NULL) != 0)
		bench_die("filling a table", errno);
}

void bench_sessions(struct gate_dp *dp, uint32_t first, uint32_t last, uint32_t mappings, uint32_t shift)
{
	static struct gate_key key[CHUNK];
	static struct gate_flow flow[CHUNK];
	static struct gate_end end[CHUNK];
	static struct gate_mapping map[CHUNK];
	const uint64_t now = wn_now_ms() * GATE_NS_PER_MS;
	const uint64_t until = now + GATE_TCP_ESTABLISHED_NS + (GATE_TCP_ESTABLISHED_NS >> GATE_REFRESH_SHIFT);
	struct bench_flow f;

	for (uint32_t i = first; i < last;) {
		uint32_t n = 0, nmap = 0;

		for (; n < CHUNK && i < last; i++, n++) {
			uint32_t slot;
			struct gate_port *port;
			struct gate_filter_spot spot;

			bench_flow(i, mappings, shift, &f);
			slot = ntohl(f.public_ip) - BENCH_PUBLIC;
			memset(&key[n], 0, sizeof(key[n]));
			memset(&flow[n], 0, sizeof(flow[n]));
			key[n].local_ip = f.inside_ip;
			key[n].local_port = f.inside_port;
			key[n].remote_ip = f.remote_ip;
			key[n].remote_port = f.remote_port;
			key[n].proto = IPPROTO_TCP;
			flow[n].tenant = (uint16_t)dp->slot_of[0];
			flow[n].replied = 1;
			flow[n].owner = GATE_OWNER(GATE_FLOW_SESSION, ((uint64_t)slot << 16) | f.public_port);
			flow[n].expires = until;
			flow[n].opened = now;
			tracked(&flow[n].track);
			port = &dp->ports[GATE_PORT_INDEX(slot, GATE_P_TCP, ntohs(f.public_port))];
			port->owner = GATE_OWNER(GATE_OWNER_MAPPING, ((uint64_t)f.inside_ip << 16) | f.inside_port);
			/* As gate_wanted_add does. */
			spot = gate_filter_session(
				dp->filter.size,
				gate_filter_hash(dp->meta->filter_key, f.public_ip, f.public_port, IPPROTO_TCP, f.remote_ip),
				f.remote_port);
			dp->filter.words[dp->meta->filter_half * gate_filter_words(dp->filter.size) + spot.word] |= spot.bits;
			if (i >= mappings)
				continue;
			memset(&end[nmap], 0, sizeof(end[nmap]));
			memset(&map[nmap], 0, sizeof(map[nmap]));
			end[nmap].ip = f.inside_ip;
			end[nmap].port = f.inside_port;
			end[nmap].proto = IPPROTO_TCP;
			map[nmap].expires = until + GATE_MAPPING_SLACK_NS;
			map[nmap].public_ip = f.public_ip;
			map[nmap].public_port = f.public_port;
			map[nmap].public_slot = (uint8_t)slot;
			nmap++;
		}
		put(dp->flows_fd, key, flow, n);
		put(dp->mappings_fd, end, map, nmap);
	}
}

static struct gate_hole *hole_buffer(void)
{
	struct gate_hole *h = calloc(1, sizeof(*h));

	if (h == NULL)
		bench_die("memory", ENOMEM);
	return h;
}

uint16_t bench_hole(struct gate_dp *dp, const uint8_t *key, uint64_t *id)
{
	struct gate_request r = {.op = GATE_OPEN,
				 .proto = key != NULL ? IPPROTO_UDP : IPPROTO_TCP,
				 .lifetime_s = 3600,
				 .idle_s = 3600,
				 .bytes_per_s = GATE_BYTES_PER_S_MAX,
				 .packets_per_s = GATE_PACKETS_PER_S_MAX};
	struct gate_reply reply;
	struct gate_hole *h = hole_buffer();
	struct bench_flow f;
	uint32_t index;

	bench_flow(0, 1, 0, &f);
	memcpy(r.user, "bench", 6);
	if (wn_addr_parse(SPAN_LIT("10.255.0.1:22"), -1, &r.inside) != 0)
		bench_die("address", EINVAL);
	if (key != NULL) {
		r.flags = GATE_FLAG_TAG;
		memcpy(r.key, key, sizeof(r.key));
	} else {
		r.remote.ip[10] = r.remote.ip[11] = 0xff;
		memcpy(r.remote.ip + 12, &f.remote_ip, 4);
	}
	/* A place rests for a moment before it is given away, also in fresh tables of a young machine. */
	gate_dp_apply(dp, &r, wn_now_ms(), &reply);
	if (reply.status != GATE_OK) {
		fprintf(stderr, "gate-micro: open: %s\n", gate_status_name((enum gate_status)reply.status));
		bench_die("opening a hole", EIO);
	}
	*id = reply.hole;
	index = GATE_HOLE_INDEX(reply.hole);
	h->id = reply.hole;
	h->last = wn_now_ms() * GATE_NS_PER_MS;
	if (key == NULL) {
		h->bound = 1;
		h->remote.ip4 = f.remote_ip;
		h->remote_port = f.remote_port;
		tracked(&h->track);
	}
	if (bpf_map_update_elem(dp->holes_fd, &index, h, BPF_F_LOCK) != 0)
		bench_die("a hole's state", errno);
	free(h);
	return htons(reply.public.port);
}

void bench_holes(struct gate_dp *dp, struct bench_ends *ends, uint32_t n)
{
	struct gate_request r = {.op = GATE_OPEN, .proto = IPPROTO_UDP, .lifetime_s = 3600, .user = "bench"};
	struct gate_reply reply;
	uint64_t x = 0x9e3779b97f4a7c15ull;

	for (uint32_t i = 0; i < n; i++) {
		struct bench_ends *e = &ends[i], was;
		uint32_t j;

		*e = (struct bench_ends){.inside_ip = htonl(0x0ac80001u + (i & 63)),
					 .inside_port = htons(53),
					 .remote_ip = htonl(BENCH_OUTSIDE + 1 + (i >> 3)),
					 .remote_port = htons((uint16_t)(2000 + (i & 7)))};
		r.inside = (struct wn_addr){.port = ntohs(e->inside_port)};
		r.remote = (struct wn_addr){.port = ntohs(e->remote_port)};
		r.inside.ip[10] = r.inside.ip[11] = r.remote.ip[10] = r.remote.ip[11] = 0xff;
		memcpy(r.inside.ip + 12, &e->inside_ip, 4);
		memcpy(r.remote.ip + 12, &e->remote_ip, 4);
		gate_dp_apply(dp, &r, wn_now_ms(), &reply);
		if (reply.status != GATE_OK) {
			fprintf(stderr, "gate-micro: open: %s\n", gate_status_name((enum gate_status)reply.status));
			bench_die("opening holes", EIO);
		}
		memcpy(&e->public_ip, reply.public.ip + 12, 4);
		e->public_port = htons(reply.public.port);
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		j = (uint32_t)(((x >> 32) * (i + 1)) >> 32);
		was = ends[j];
		ends[j] = *e;
		*e = was;
	}
}

void bench_hole_rewind(struct gate_dp *dp, uint64_t id)
{
	uint32_t index = GATE_HOLE_INDEX(id);
	struct gate_hole *h = hole_buffer();

	if (bpf_map_lookup_elem_flags(dp->holes_fd, &index, h, BPF_F_LOCK) != 0)
		bench_die("a hole's state", errno);
	memset(&h->replay, 0, sizeof(h->replay));
	if (bpf_map_update_elem(dp->holes_fd, &index, h, BPF_F_LOCK) != 0)
		bench_die("a hole's state", errno);
	free(h);
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

/* The gate only updates checksums: any will do but a UDP 0. */
size_t bench_frame(uint8_t *out, const uint8_t mac[8], int in, int udp, uint32_t n)
{
	uint8_t *ip = out + 14, *l4 = ip + 20;
	const size_t l4len = udp ? 8 + n + GATE_TAG_TRAILER : 20;
	struct bench_flow f;

	bench_flow(0, 1, 0, &f);
	memset(out, 0, 34 + l4len);
	memcpy(out, mac, 6);
	out[6] = 2;
	put16(out + 12, 0x0800);
	ip[0] = 0x45;
	put16(ip + 2, (uint32_t)(20 + l4len));
	put16(ip + 6, 0x4000);
	ip[8] = 64;
	ip[9] = udp ? IPPROTO_UDP : IPPROTO_TCP;
	memcpy(ip + 12, in ? &f.remote_ip : &f.inside_ip, 4);
	memcpy(ip + 16, in ? &f.public_ip : &f.remote_ip, 4);
	memcpy(l4, in ? &f.remote_port : &f.inside_port, 2);
	memcpy(l4 + 2, in ? &f.public_port : &f.remote_port, 2);
	if (udp) {
		put16(l4 + 4, (uint32_t)l4len);
		put16(l4 + 6, 1);
		for (uint32_t i = 0; i < n; i++)
			l4[8 + i] = (uint8_t)(i * 7 + n);
	} else {
		put32(l4 + 4, in ? BENCH_SEQ_CLIENT : BENCH_SEQ_INSIDE);
		put32(l4 + 8, in ? BENCH_SEQ_INSIDE : BENCH_SEQ_CLIENT);
		l4[12] = 5 << 4;
		l4[13] = 0x10;
		put16(l4 + 14, 65535);
	}
	return 34 + l4len;
}
