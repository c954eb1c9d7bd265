/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file Which of a worker's two queues a datagram waits in, chosen before it is queued: whoever shows credentials or a route is not in one
 * line with all strangers. Shows, no more: the worker verifies. A flood without them never fills the queue of those who have them. */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "front/bpf/steer.h"

char steer_license[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY);
	__uint(max_entries, STEER_SOCKETS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} steer_sockets SEC(".maps");

/* Text to search: datagrams are looked at up to STEER_TEXT_MAX. The power of two behind it is what the verifier takes an index for. */
struct steer_text {
	__u64 word[256 + 8];
};
_Static_assert(STEER_TEXT_MAX / 8 + 2 <= 256, "the text and what a match reaches beyond it");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct steer_text);
} steer_texts SEC(".maps");

const volatile __u32 steer_workers = 1;

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "names are compared as little-endian words");

#define ONES 0x0101010101010101ull
#define TOPS 0x8080808080808080ull
#define LFS  0x0a0a0a0a0a0a0a0aull
#define CASE 0x2020202020202020ull

#define WORDS 8 /* at a time */

struct steer_search {
	struct steer_text *text;
	__u32 found;
};

/* The eight bytes from `at` on. */
static __always_inline __u64 steer_bytes(const struct steer_text *t, __u32 at)
{
	__u32 i = at / 8, shift = at % 8 * 8;

	if (i > STEER_TEXT_MAX / 8)
		return 0;
	return shift == 0 ? t->word[i] : t->word[i] >> shift | t->word[i + 1] << (64 - shift);
}

/* A line begins there: "Proxy-Authorization" or "Route", as far as eight bytes tell. */
static __always_inline int steer_is_name(const struct steer_text *t, __u32 at)
{
	__u64 low = steer_bytes(t, at) | CASE;

	return low == STEER_PROXY_AU || (low & 0xffffffffffull) == STEER_ROUTE;
}

/* The top bits of the bytes that are zero; one behind such a byte may be set too. */
static __always_inline __u64 steer_zeros(__u64 x)
{
	return (x - ONES) & ~x & TOPS;
}

/* Whether a name stands behind one of the line feeds of a word. */
static __always_inline int steer_line(const struct steer_text *t, __u32 i, __u64 lf)
{
	/* few lines begin with one of these letters */
	__u64 next = (t->word[i] >> 8 | t->word[i + 1] << 56) | CASE;

	lf &= steer_zeros(next ^ ('p' * ONES)) | steer_zeros(next ^ ('r' * ONES));
	if (lf == 0)
		return 0;
	for (__u32 k = 0; k < 8; k++)
		if ((lf >> (8 * k + 7) & 1) != 0 && steer_is_name(t, i * 8 + k + 1))
			return 1;
	return 0;
}

static long steer_words(__u32 block, void *ctx)
{
	struct steer_search *s = ctx;
	__u64 lf;

	if (block >= STEER_TEXT_MAX / 8 / WORDS)
		return 1;
#pragma unroll
	for (__u32 k = 0; k < WORDS; k++) {
		lf = steer_zeros(s->text->word[block * WORDS + k] ^ LFS);
		if (lf != 0 && steer_line(s->text, block * WORDS + k, lf)) {
			s->found = 1;
			return 1;
		}
	}
	return 0;
}

static __always_inline int steer_shows(struct sk_reuseport_md *md)
{
	const __u32 zero = 0;
	struct steer_search s = {bpf_map_lookup_elem(&steer_texts, &zero), 0};
	__u32 n = md->len;

	if (s.text == NULL || n <= 8)
		return 0;
	n -= 8; /* UDP's header */
	if (n > STEER_TEXT_MAX)
		n = STEER_TEXT_MAX;
	asm volatile("" : "+r"(n));
	if (n < 1 || n > STEER_TEXT_MAX || bpf_skb_load_bytes(md, 8, s.text, n) != 0)
		return 0;
	/* What an earlier datagram left behind this one's end only ever makes it look better than it is. */
	bpf_loop(n / 8 / WORDS + 1, steer_words, &s, 0);
	return s.found != 0;
}

SEC("sk_reuseport")
int front_steer(struct sk_reuseport_md *md)
{
	__u32 workers = steer_workers, key;

	if (workers == 0)
		return SK_PASS;
	key = md->hash % workers * 2 + (steer_shows(md) ? STEER_FIRST : STEER_STRANGERS);
	/* Without a socket there the kernel chooses as it would have. */
	bpf_sk_select_reuseport(md, &steer_sockets, &key, 0);
	return SK_PASS;
}
