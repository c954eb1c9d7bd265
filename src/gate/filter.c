/* SPDX-License-Identifier: Apache-2.0 */
/* User space's half of the filter in front of the tables (bpf/filter.h, bpf/wanted.h). Sessions enter it in the path, holes here; those
 * without translation need none. Nothing can be taken out of a half in use, so the other one is filled from the tables, over many sweeps,
 * and then takes its place. What is new meanwhile goes into both. A daemon that is dead leaves a filter that lets more and more through,
 * and no packet that should not be. */
#include <netinet/in.h>
#include <string.h>

#include "gate/bpf/filter.h"
#include "gate/path.h"

#define HOLES_PER_SWEEP 65536
#define REST_MS         50 /* a half that was in use until now is not emptied before the packets that saw it are gone */
#define WORDS_MIN       64

static uint32_t words(uint32_t entries)
{
	const uint64_t n = (uint64_t)entries * GATE_FILTER_ENTRY_BITS / 64;

	return n < WORDS_MIN ? WORDS_MIN : (uint32_t)n;
}

struct gate_filter_size gate_filter_size(const struct gate_config *cfg)
{
	return (struct gate_filter_size){.sessions = words(cfg->flows), .holes = words(cfg->holes)};
}

static void set(struct gate_dp *dp, uint32_t half, struct gate_filter_spot s)
{
	__atomic_fetch_or(&dp->filter.words[half * gate_filter_words(dp->filter.size) + s.word], s.bits, __ATOMIC_RELEASE);
}

static struct gate_filter_spot hole_spot(const struct gate_dp *dp, const struct gate_grant *g)
{
	return gate_filter_hole(dp->filter.size,
				gate_filter_hash(dp->meta->filter_key, g->public.ip4, g->public_port, g->proto, g->remote.ip4));
}

/* The bit in `anyone` of a hole's public port. */
static __u64 *anyone_word(const struct gate_dp *dp, uint32_t index, uint64_t *bit)
{
	const struct gate_grant *g = &dp->grants[index];
	const uint32_t at =
		GATE_PORT_INDEX(dp->infos[index].public_slot, g->proto == IPPROTO_TCP ? GATE_P_TCP : GATE_P_UDP, ntohs(g->public_port));

	*bit = 1ull << (at & 63);
	return &dp->filter.anyone[at >> 6];
}

void gate_filter_open(struct gate_dp *dp, uint32_t index)
{
	const struct gate_grant *g = &dp->grants[index];
	uint64_t bit;

	if (gate_grant_plain(dp, g))
		return;
	if (g->flags & GATE_GRANT_TAG) {
		__u64 *w = anyone_word(dp, index, &bit);

		__atomic_fetch_or(w, bit, __ATOMIC_RELEASE);
		return;
	}
	set(dp, 0, hole_spot(dp, g));
	set(dp, 1, hole_spot(dp, g));
}

void gate_filter_close(struct gate_dp *dp, uint32_t index)
{
	uint64_t bit;
	__u64 *w;

	if (gate_grant_plain(dp, &dp->grants[index]) || !(dp->grants[index].flags & GATE_GRANT_TAG) ||
	    dp->infos[index].public_slot >= dp->cfg.npublic)
		return;
	w = anyone_word(dp, index, &bit);
	__atomic_fetch_and(w, ~bit, __ATOMIC_RELEASE);
}

void gate_filter_keep(struct gate_dp *dp, const struct gate_key *k, const struct gate_flow *f)
{
	const uint32_t slot = (uint32_t)(f->owner >> 16) & (GATE_PUBLIC_SLOTS - 1);

	/* Whatever the table holds, expired or not: a packet may revive it at this moment. */
	if (dp->filter.filling && !dp->cfg.firewall && GATE_OWNER_KIND(f->owner) == GATE_FLOW_SESSION)
		set(dp, !dp->meta->filter_half,
		    gate_filter_session(
			    dp->filter.size,
			    gate_filter_hash(dp->meta->filter_key, dp->meta->public_ip[slot], (uint16_t)f->owner, k->proto, k->remote_ip),
			    k->remote_port));
}

bool gate_filter_begin(struct gate_dp *dp, uint64_t now_ms)
{
	struct gate_filter *f = &dp->filter;
	const uint32_t n = gate_filter_words(f->size);

	if (f->filling || now_ms - f->since_ms < REST_MS)
		return false;
	memset(f->words + (size_t)!dp->meta->filter_half * n, 0, n * sizeof(*f->words));
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* what the walk now finds, it finds after this */
	f->filling = true;
	f->hole_cursor = 0;
	return true;
}

void gate_filter_sweep(struct gate_dp *dp, bool flows_done, uint64_t now_ms)
{
	struct gate_filter *f = &dp->filter;
	const uint32_t half = !dp->meta->filter_half;

	if (!f->filling)
		return;
	for (uint32_t i = 0; i < HOLES_PER_SWEEP && f->hole_cursor < dp->nholes; i++, f->hole_cursor++) {
		const struct gate_grant *g = &dp->grants[f->hole_cursor];

		if (load64(&g->id) != 0 && !gate_grant_plain(dp, g) && !(g->flags & GATE_GRANT_TAG))
			set(dp, half, hole_spot(dp, g));
	}
	f->flows_done |= flows_done;
	if (!f->flows_done || f->hole_cursor < dp->nholes)
		return;
	__atomic_store_n(&dp->meta->filter_half, half, __ATOMIC_RELEASE);
	f->filling = f->flows_done = false;
	f->since_ms = now_ms;
}
