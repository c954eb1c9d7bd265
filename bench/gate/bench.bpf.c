/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What the gate is measured with: programs that write the next packet over the last one and jump to whatever is measured, and the
 * peers that do less than the gate. A test run repeats one packet: without the first kind every table would be hot. */
#include "gate/bpf/maps.h"
#include "gate/bpf/parse.h"
#include "gate/bpf/siphash.h"

#include "flow.h"

char bench_license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} jump SEC(".maps");

struct bench_trailer {
	__u64 counter, mac; /* as on the wire */
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BENCH_TRAILERS);
	__type(key, __u32);
	__type(value, struct bench_trailer);
} trailers SEC(".maps");

/* In random order; walked in turn, which costs no cache miss of the writer's own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, BENCH_HOLES);
	__type(key, __u32);
	__type(value, struct bench_ends);
} ends SEC(".maps");

const volatile __u32 bench_shift = 0;
const volatile __u32 bench_mappings = 1;
const volatile __u64 bench_key[2] = {};
volatile __u32 bench_hole_ip = 0;
volatile __u16 bench_hole_port = 0;
volatile __u32 bench_flows = 0;
volatile __u64 bench_random = 0; /* not 0 once it runs */
volatile __u64 bench_next = 0;

static __always_inline __u64 bench_draw(void)
{
	__u64 x = bench_random;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	bench_random = x;
	return x;
}

struct bench_frame {
	__u8 dmac[6], smac[6];
	__u16 type;
	__u8 ip[8];
	__u8 ttl, proto;
	__u16 check;
	__u32 src, dst;
	__u16 sport, dport;
} __attribute__((packed));

static __always_inline void bench_macs(struct bench_frame *f, int side)
{
	int i;

	for (i = 0; i < 6; i++)
		f->dmac[i] = gate_params.mac[side][i];
	f->ttl = 64;
}

SEC("xdp")
int write_stranger(struct xdp_md *ctx)
{
	struct bench_frame *f = (void *)(long)ctx->data;
	const __u64 a = bench_draw(), b = bench_draw();

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	bench_macs(f, GATE_OUTSIDE);
	f->src = bpf_htonl(BENCH_OUTSIDE | (__u32)(a >> 40));
	f->dst = bpf_htonl(BENCH_PUBLIC + ((__u32)a & ((1u << bench_shift) - 1)));
	f->sport = bpf_htons((__u16)(BENCH_PORT_LOW + (b & 0x7fff)));
	f->dport = bpf_htons((__u16)(BENCH_PORT_LOW + (((b >> 32) * BENCH_PORTS) >> 32)));
	bpf_tail_call_static(ctx, &jump, 0);
	return XDP_ABORTED;
}

static __always_inline int bench_write_flow(struct xdp_md *ctx, int in)
{
	struct bench_frame *f = (void *)(long)ctx->data;
	const __u64 a = bench_draw();
	struct bench_flow w;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	bench_flow((__u32)(((a >> 32) * bench_flows) >> 32), bench_mappings, bench_shift, &w);
	bench_macs(f, in ? GATE_OUTSIDE : GATE_INSIDE);
	f->src = in ? w.remote_ip : w.inside_ip;
	f->dst = in ? w.public_ip : w.remote_ip;
	f->sport = in ? w.remote_port : w.inside_port;
	f->dport = in ? w.public_port : w.remote_port;
	bpf_tail_call_static(ctx, &jump, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int write_in(struct xdp_md *ctx)
{
	return bench_write_flow(ctx, 1);
}

SEC("xdp")
int write_out(struct xdp_md *ctx)
{
	return bench_write_flow(ctx, 0);
}

SEC("xdp")
int write_hole(struct xdp_md *ctx)
{
	struct bench_frame *f = (void *)(long)ctx->data;

	if ((void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	bench_macs(f, GATE_OUTSIDE);
	f->dst = bench_hole_ip;
	f->dport = bench_hole_port;
	bpf_tail_call_static(ctx, &jump, 0);
	return XDP_ABORTED;
}

static __always_inline int bench_write_holes(struct xdp_md *ctx, int in)
{
	struct bench_frame *f = (void *)(long)ctx->data;
	const __u32 at = (__u32)bench_next;
	const struct bench_ends *e = bpf_map_lookup_elem(&ends, &at);

	if (!e || (void *)(f + 1) > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	bench_next = at + 1 < BENCH_HOLES ? at + 1 : 0;
	bench_macs(f, in ? GATE_OUTSIDE : GATE_INSIDE);
	f->src = in ? e->remote_ip : e->inside_ip;
	f->dst = in ? e->public_ip : e->remote_ip;
	f->sport = in ? e->remote_port : e->inside_port;
	f->dport = in ? e->public_port : e->remote_port;
	bpf_tail_call_static(ctx, &jump, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int write_holes_in(struct xdp_md *ctx)
{
	return bench_write_holes(ctx, 1);
}

SEC("xdp")
int write_holes_out(struct xdp_md *ctx)
{
	return bench_write_holes(ctx, 0);
}

/* A tagged datagram with the next counter; puts back the 16 bytes that the gate took away. n: bytes of data. */
static __always_inline int bench_write_tag(struct xdp_md *ctx, __u32 n)
{
	const __u32 frame = GATE_L4 + (__u32)sizeof(struct udphdr) + n + GATE_TAG_TRAILER;
	const __u64 next = bench_next;
	const __u32 at = (__u32)next & (BENCH_TRAILERS - 1);
	struct bench_trailer *t;
	struct bench_frame *f;
	struct udphdr *udp;

	if ((__u32)(ctx->data_end - ctx->data) < frame && bpf_xdp_adjust_tail(ctx, GATE_TAG_TRAILER))
		return XDP_ABORTED;
	f = (void *)(long)ctx->data;
	t = bpf_map_lookup_elem(&trailers, &at);
	if (!t || (void *)f + frame > (void *)(long)ctx->data_end)
		return XDP_ABORTED;
	bench_next = next + 1;
	bench_macs(f, GATE_OUTSIDE);
	f->ip[2] = (__u8)((frame - ETH_HLEN) >> 8);
	f->ip[3] = (__u8)(frame - ETH_HLEN);
	f->dst = bench_hole_ip;
	f->dport = bench_hole_port;
	udp = (void *)f + GATE_L4;
	udp->len = bpf_htons((__u16)(frame - GATE_L4));
	*(struct bench_trailer *)((void *)(udp + 1) + n) = *t;
	bpf_tail_call_static(ctx, &jump, 0);
	return XDP_ABORTED;
}

SEC("xdp")
int write_tag_64(struct xdp_md *ctx)
{
	return bench_write_tag(ctx, 64);
}

SEC("xdp")
int write_tag_512(struct xdp_md *ctx)
{
	return bench_write_tag(ctx, 512);
}

SEC("xdp")
int write_tag_1400(struct xdp_md *ctx)
{
	return bench_write_tag(ctx, 1400);
}

SEC("xdp")
int peer_pass(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_PASS;
}

SEC("xdp")
int peer_drop(struct xdp_md *ctx)
{
	(void)ctx;
	return XDP_DROP;
}

SEC("xdp")
int peer_parse(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	struct gate_pkt p = {};
	__u8 mac[6];
	int i;

	for (i = 0; i < 6; i++)
		mac[i] = gate_params.mac[GATE_OUTSIDE][i];
	if (gate_parse(data, end, mac, &p))
		return XDP_ABORTED;
	GATE_OPAQUE(p.src);
	GATE_OPAQUE(p.dst);
	GATE_OPAQUE(p.sport);
	GATE_OPAQUE(p.dport);
	return XDP_DROP;
}

/* Look-up and redirect, nothing else, in the gate's own flow table; of a packet from inside, whose five-tuple is the key. */
SEC("xdp")
int peer_lookup(struct xdp_md *ctx)
{
	const struct bench_frame *f = (const void *)(long)ctx->data;
	struct gate_key k = {};

	if ((const void *)(f + 1) > (const void *)(long)ctx->data_end || f->type != bpf_htons(ETH_P_IP))
		return XDP_ABORTED;
	k.local_ip = f->src;
	k.local_port = f->sport;
	k.remote_ip = f->dst;
	k.remote_port = f->dport;
	k.proto = f->proto;
	if (!bpf_map_lookup_elem(&flows, &k))
		return XDP_ABORTED;
	return (int)bpf_redirect_map(&devices, GATE_OUTSIDE, XDP_DROP);
}

__noinline int bench_tag_ok(struct xdp_md *ctx, __u32 len, __u64 k0, __u64 k1)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;

	return gate_tag_check(data + GATE_L4 + sizeof(struct udphdr), end, len, k0, k1);
}

SEC("xdp")
int peer_siphash(struct xdp_md *ctx)
{
	const __u32 headers = GATE_L4 + (__u32)sizeof(struct udphdr) + GATE_TAG_TRAILER, n = (__u32)(ctx->data_end - ctx->data);

	if (n < headers || n - headers > GATE_TAG_DATA_MAX)
		return XDP_ABORTED;
	return bench_tag_ok(ctx, n - headers, bench_key[0], bench_key[1]) ? XDP_DROP : XDP_ABORTED;
}

/* The gate's question to the route table, by itself. */
SEC("xdp")
int peer_route(struct xdp_md *ctx)
{
	const struct bench_frame *f = (const void *)(long)ctx->data;
	struct bpf_fib_lookup fib = {.family = 2, .ifindex = 1};

	if ((const void *)(f + 1) > (const void *)(long)ctx->data_end)
		return XDP_ABORTED;
	fib.l4_protocol = f->proto;
	fib.tot_len = 40;
	fib.ipv4_src = f->src;
	fib.ipv4_dst = bpf_htonl(BENCH_INSIDE);
	return bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) == BPF_FIB_LKUP_RET_SUCCESS ? XDP_DROP : XDP_ABORTED;
}

/* The other half of what the gate does to a tag's length, for write_tag_x to undo. */
SEC("xdp")
int peer_strip(struct xdp_md *ctx)
{
	return bpf_xdp_adjust_tail(ctx, -GATE_TAG_TRAILER) ? XDP_ABORTED : XDP_DROP;
}
