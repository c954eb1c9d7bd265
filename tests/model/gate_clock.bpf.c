/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* The packet path as it is, but that user space sets its clock and what its random numbers follow from: so a walk can let hours pass, and
 * be taken again. Both lie in the programs' zeroed data. */
#include "gate/bpf/family.h"

#if GATE_FAMILY == 4
volatile __u64 gate_test_clock, gate_test_random;
#else
extern volatile __u64 gate_test_clock, gate_test_random;
#endif

static __always_inline __attribute__((unused)) __u32 gate_test_draw(void)
{
	gate_test_random = gate_test_random * 6364136223846793005ull + 1442695040888963407ull;
	return (__u32)(gate_test_random >> 32);
}

#define bpf_ktime_get_coarse_ns() (gate_test_clock)
#define bpf_get_prandom_u32()     gate_test_draw()

#include "gate/bpf/gate.bpf.c"
