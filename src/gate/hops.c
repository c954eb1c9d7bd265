/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/hops.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* One prefix and what becomes of packets for it. */
struct item {
	uint32_t ip; /* host order */
	uint8_t bits;
	bool connected; /* asks, but hosts of it may be known */
	uint32_t mtu;   /* theirs; 0: the link's */
	struct gate_hop hop;
};

struct items {
	struct item item[GATE_KERNEL_ROUTES]; /* by address, then length: what covers comes before what is covered */
	unsigned n;
};

static uint32_t mask_of(unsigned bits)
{
	return bits == 0 ? 0 : UINT32_MAX << (32 - bits);
}

static bool covers(uint32_t ip, unsigned bits, uint32_t other, unsigned other_bits)
{
	return bits <= other_bits && ((ip ^ other) & mask_of(bits)) == 0;
}

static int by_place(const void *a, const void *b)
{
	const struct gate_kernel_route *x = a, *y = b;

	if (x->ip != y->ip)
		return ntohl(x->ip) < ntohl(y->ip) ? -1 : 1;
	if (x->bits != y->bits)
		return x->bits < y->bits ? -1 : 1;
	return (x->metric > y->metric) - (x->metric < y->metric);
}

static const uint8_t *mac_of(const struct gate_kernel *k, uint32_t ifindex, uint32_t ip)
{
	for (unsigned i = 0; i < k->nneighbours; i++)
		if (k->neighbour[i].ifindex == ifindex && k->neighbour[i].ip == ip)
			return k->neighbour[i].mac;
	return NULL;
}

static void next(struct gate_hop *h, const struct gate_kernel_link *link, const uint8_t *mac, uint32_t mtu)
{
	if (mtu == 0 || mtu > link->mtu)
		mtu = link->mtu;
	memcpy(h->dmac, mac, sizeof(h->dmac));
	memcpy(h->smac, link->mac, sizeof(h->smac));
	h->mtu = (uint16_t)(mtu < UINT16_MAX ? mtu : UINT16_MAX);
	h->kind = GATE_HOP_NEXT;
}

/* n routes of one prefix, best metric first. below_local: a shorter prefix of "local" covers it. Whether the kernel looks that up first
 * depends on whether it ever had rules, which nobody can see. */
static struct item decide(const struct gate_kernel *k, const struct gate_kernel_link *link, const struct gate_kernel_route *r, unsigned n,
			  bool below_local)
{
	struct item it = {.ip = ntohl(r->ip), .bits = r->bits};
	const uint8_t *mac;

	it.hop.prefix = r->ip;
	it.hop.mask = htonl(mask_of(r->bits));
	if (below_local || !link->up || r->oif != link->ifindex)
		return it;
	for (unsigned i = 0; i < n; i++)
		if (r[i].local || !r[i].plain)
			return it;
	if (n > 1 && r[0].metric == r[1].metric)
		return it;
	if (r->gateway == 0) {
		it.connected = true;
		it.mtu = r->mtu;
		return it;
	}
	mac = mac_of(k, link->ifindex, r->gateway);
	if (mac != NULL)
		next(&it.hop, link, mac, r->mtu);
	return it;
}

static void gather(const struct gate_kernel *k, const struct gate_kernel_link *link, const struct gate_kernel_route *r, struct items *out)
{
	const struct gate_kernel_route *local = NULL; /* the widest of "local" around here */
	unsigned n;

	out->n = 0;
	for (unsigned i = 0; i < k->nroutes; i += n) {
		bool has_local = false;

		for (n = 0; i + n < k->nroutes && r[i + n].ip == r[i].ip && r[i + n].bits == r[i].bits; n++)
			has_local |= r[i + n].local;
		if (local != NULL && !covers(ntohl(local->ip), local->bits, ntohl(r[i].ip), r[i].bits))
			local = NULL;
		out->item[out->n++] = decide(k, link, &r[i], n, local != NULL);
		if (local == NULL && has_local)
			local = &r[i];
	}
}

static bool same(const struct gate_hop *a, const struct gate_hop *b)
{
	if (a->kind != b->kind)
		return false;
	return a->kind == GATE_HOP_ASK ||
	       (a->mtu == b->mtu && memcmp(a->dmac, b->dmac, sizeof(a->dmac)) == 0 && memcmp(a->smac, b->smac, sizeof(a->smac)) == 0);
}

/* Takes out what changes nothing: an entry that says what the one around it says, or, where there is none, asks. */
static void prune(struct items *s)
{
	static const struct gate_hop ask = {.kind = GATE_HOP_ASK};
	unsigned around[33], depth = 0, n = 0;

	for (unsigned i = 0; i < s->n; i++) {
		const struct item it = s->item[i];

		while (depth > 0 && !covers(s->item[around[depth - 1]].ip, s->item[around[depth - 1]].bits, it.ip, it.bits))
			depth--;
		if (same(&it.hop, depth > 0 ? &s->item[around[depth - 1]].hop : &ask))
			continue;
		around[depth++] = n;
		s->item[n++] = it;
	}
	s->n = n;
}

/* The two neighbours in the list that have most in common, and all else below that: one entry that asks. */
static void merge(struct items *s)
{
	unsigned at = 0, bits = 0, end;
	uint32_t ip;

	for (unsigned i = 0; i + 1 < s->n; i++) {
		const uint32_t apart = s->item[i].ip ^ s->item[i + 1].ip;
		unsigned common = apart == 0 ? 32 : (unsigned)__builtin_clz(apart);

		if (common > s->item[i].bits)
			common = s->item[i].bits;
		if (common > s->item[i + 1].bits)
			common = s->item[i + 1].bits;
		if (common >= bits) {
			bits = common;
			at = i;
		}
	}
	ip = s->item[at].ip & mask_of(bits);
	while (at > 0 && covers(ip, bits, s->item[at - 1].ip, s->item[at - 1].bits))
		at--;
	for (end = at; end < s->n && covers(ip, bits, s->item[end].ip, s->item[end].bits); end++)
		;
	memset(&s->item[at], 0, sizeof(s->item[at]));
	s->item[at].ip = ip;
	s->item[at].bits = (uint8_t)bits;
	s->item[at].hop.prefix = htonl(ip);
	s->item[at].hop.mask = htonl(mask_of(bits));
	memmove(&s->item[at + 1], &s->item[end], (s->n - end) * sizeof(s->item[0]));
	s->n -= end - at - 1;
}

static const struct item *longest(const struct items *s, uint32_t ip)
{
	const struct item *found = NULL;

	for (unsigned i = 0; i < s->n; i++)
		if (covers(s->item[i].ip, s->item[i].bits, ip, 32) && (found == NULL || s->item[i].bits >= found->bits))
			found = &s->item[i];
	return found;
}

static unsigned hosts(const struct gate_kernel *k, const struct gate_kernel_link *link, const struct items *s, struct gate_hops *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < k->nneighbours; i++) {
		const struct gate_kernel_neighbour *b = &k->neighbour[i];
		const struct item *it = b->ifindex == link->ifindex && b->ip != 0 ? longest(s, ntohl(b->ip)) : NULL;
		struct gate_hop *h = out->host[GATE_HOP_HASH(b->ip)];

		if (it == NULL || !it->connected)
			continue;
		for (unsigned way = 0; way < GATE_HOP_WAYS; way++) {
			if (h[way].kind == GATE_HOP_NEXT)
				continue;
			h[way].prefix = b->ip;
			h[way].mask = UINT32_MAX;
			next(&h[way], link, b->mac, it->mtu);
			n++;
			break;
		}
	}
	return n;
}

/* Longest first; among equals any order will do. */
static unsigned put(const struct items *s, struct gate_hops *out)
{
	unsigned n = 0, known = 0;

	for (int bits = 32; bits >= 0; bits--)
		for (unsigned i = 0; i < s->n; i++)
			if (s->item[i].bits == bits)
				out->prefix[n++] = s->item[i].hop;
	for (unsigned i = 0; i < n; i++)
		known += out->prefix[i].kind == GATE_HOP_NEXT;
	return known;
}

unsigned gate_hops_compile(const struct gate_kernel *k, struct gate_hops out[GATE_SIDES])
{
	struct gate_kernel_route route[GATE_KERNEL_ROUTES];
	struct items s;
	unsigned known = 0;

	memset(out, 0, GATE_SIDES * sizeof(out[0]));
	if (k->odd)
		return 0;
	memcpy(route, k->route, k->nroutes * sizeof(route[0]));
	qsort(route, k->nroutes, sizeof(route[0]), by_place);
	for (int side = 0; side < GATE_SIDES; side++) {
		gather(k, &k->link[side], route, &s);
		known += hosts(k, &k->link[side], &s, &out[side]);
		prune(&s);
		while (s.n > GATE_HOP_PREFIXES) {
			merge(&s);
			prune(&s);
		}
		known += put(&s, &out[side]);
	}
	return known;
}
