/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What differs between the eBPF build and the C build of the packet logic. */
#pragma once

#include <linux/types.h>

#ifdef __bpf__
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#define GATE_UNROLL _Pragma("unroll")
/* The kernel lets programs load at any address of a packet. */
#define GATE_LOAD64(p) (*(const __u64 *)(const void *)(p))
#else
#include <endian.h>
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define GATE_UNROLL
static inline __u64 gate_load64(const void *p)
{
	__u64 v;

	__builtin_memcpy(&v, p, sizeof(v));
	return v;
}
#define GATE_LOAD64(p)     gate_load64(p)
#define bpf_htons(x)       htobe16(x)
#define bpf_ntohs(x)       be16toh(x)
#define bpf_htonl(x)       htobe32(x)
#define bpf_ntohl(x)       be32toh(x)
#define bpf_cpu_to_be64(x) htobe64(x)
#define bpf_be64_to_cpu(x) be64toh(x)
#endif

/** Keeps the compiler from folding a value into arithmetic on pointers, which the verifier does not allow. */
#define GATE_OPAQUE(x) __asm__ volatile("" : "+r"(x))

/** A load that happens once, now, and whole. */
#define GATE_READ(x)     (*(const volatile __typeof__(x) *)&(x))
#define GATE_WRITE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define GATE_LE64(x) (x)
#else
#define GATE_LE64(x) __builtin_bswap64(x)
#endif
