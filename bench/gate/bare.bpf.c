/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The least that an XDP program can do against a flood: parse and drop. An object of its own, which `ip link` can load. */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "gate/bpf/parse.h"

char bare_license[] SEC("license") = "Dual BSD/GPL";

SEC("xdp")
int bare(struct xdp_md *ctx)
{
	const __u8 *data = (const __u8 *)(long)ctx->data, *end = (const __u8 *)(long)ctx->data_end;
	const struct ethhdr *eth = (const void *)data;
	struct gate_pkt p = {};
	__u8 mac[6];

	if (data + sizeof(*eth) > end)
		return XDP_ABORTED;
	__builtin_memcpy(mac, eth->h_dest, sizeof(mac));
	if (gate_parse(data, end, mac, &p) == GATE_R_ARP)
		return XDP_PASS;
	return XDP_DROP;
}
