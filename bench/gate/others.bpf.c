/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file How long one core has run processes that are not the bench's. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

char others_license[] SEC("license") = "Dual BSD/GPL";

/* What is read of the kernel's; its own type information says where. */
struct task_struct {
	int tgid;
	void *mm;
} __attribute__((preserve_access_index));

#define OURS_MAX 64
const volatile __u32 others_cpu = 0;
const volatile int others_ours[OURS_MAX] = {};
volatile __u64 others_since = 0;
volatile __u64 others_ns = 0;

SEC("tp_btf/sched_switch")
int others_switch(__u64 *ctx)
{
	struct task_struct *prev = (void *)ctx[1]; /* after whether it was preempted */
	const __u64 now = bpf_ktime_get_ns();
	int i, other;

	if (bpf_get_smp_processor_id() != others_cpu)
		return 0;
	other = prev->mm != 0; /* the kernel's own threads have no memory map */
	for (i = 0; i < OURS_MAX; i++)
		if (others_ours[i] != 0 && others_ours[i] == prev->tgid)
			other = 0;
	if (other && others_since != 0)
		others_ns += now - others_since;
	others_since = now;
	return 0;
}
