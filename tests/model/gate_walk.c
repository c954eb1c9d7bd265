/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_walk.h"

#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate_frame.h"
#include "gate_step.h"

#define MS    ((uint64_t)1000000)
#define ROUND 1500 /* frames between two fresh starts */

struct walk_tally walk_tally;

struct walker {
	struct round r;
	struct draw d;
	struct frames_left left;
	uint64_t seed, frames;
	size_t opener[64]; /* steps that opened a hole, also one that is closed */
	unsigned nopeners;
	struct gate_request latest; /* that was opened */
};

static struct gm_net net = {
	.mac = {{2, 0, 0, 0, 3, 2}, {2, 0, 0, 0, 0x64, 1}},
	.public_ip = {0xc6120302, 0xc6120303},
	.npublic = 2,
	.port_low = 1024,
	.port_high = 65535,
	.self_ip = {0xc6120302, 0xc6126401},
	.control_ip = 0xc6126401,
	.control_port = 7443,
	.lan = 0xc6126400,
	.wan = 0xc6120300,
	.gateway = 0xc6120301,
	.mtu = 1500,
	.hop = {{0xc6120301, {2, 0, 0, 0, 3, 1}},
		{0xc6126402, {2, 0, 0, 0, 0x64, 2}},
		{0xc6126403, {2, 0, 0, 0, 0x64, 3}},
		{0xc6126482, {2, 0, 0, 0, 0x64, 0x82}},
		{0xc6126483, {2, 0, 0, 0, 0x64, 0x83}}},
	.nhops = 5,
	.tenant = {{0xc6126400, 25, 8}, {0xc6126480, 26, 8}},
	.ntenants = 2,
};

void walk_firewall(void)
{
	static const uint32_t protected[] = {0xc6126402, 0xc6126482, 0xc6126403};

	net.firewall = true;
	net.npublic = sizeof(protected) / sizeof(protected[0]);
	memcpy(net.public_ip, protected, sizeof(protected));
}

const struct gm_net *walk_net(void)
{
	return &net;
}

void walk_six(void)
{
	walk_firewall();
	net.six = true;
}

static void address(struct wn_addr *a, uint32_t ip, uint16_t port)
{
	memset(a, 0, sizeof(*a));
	a->ip[10] = a->ip[11] = 0xff;
	for (int i = 0; i < 4; i++)
		a->ip[12 + i] = (uint8_t)(ip >> (24 - 8 * i));
	if (net.six)
		gm_address6(ip, a->ip);
	a->port = port;
}

void walk_config(struct gate_config *cfg)
{
	for (unsigned i = 0; i < net.npublic; i++)
		address(net.six ? &cfg->protected6[i] : &cfg->public[i], net.public_ip[i], 0);
	cfg->npublic = net.six ? 0 : net.npublic;
	cfg->nprotected6 = net.six ? net.npublic : 0;
	cfg->firewall = net.firewall && !net.six;
	cfg->port_low = net.port_low;
	cfg->port_high = net.port_high;
	address(&cfg->control, net.control_ip, net.control_port);
	cfg->flows = 4096;
	cfg->mappings = 4096;
	cfg->holes = 64;
	cfg->ntenant = net.ntenants;
	for (unsigned t = 0; t < net.ntenants; t++) {
		struct wn_addr a;

		address(&a, net.tenant[t].net, 0);
		memset(&cfg->tenant[t], 0, sizeof(cfg->tenant[t]));
		snprintf(cfg->tenant[t].name, sizeof(cfg->tenant[t].name), "tenant%u.example", t);
		memcpy(cfg->tenant[t].prefix[0].ip, a.ip, sizeof(a.ip));
		cfg->tenant[t].prefix[0].bits = (uint8_t)(96 + net.tenant[t].bits);
		cfg->tenant[t].nprefix = 1;
		cfg->tenant[t].holes = net.tenant[t].quota;
	}
}

/* A step's own seed. A fuzzer's bytes are for what it looks like. */
static uint64_t draw_apart(struct draw *d)
{
	return d->bytes != NULL ? 1 : (uint64_t)draw32(d) << 32 | draw32(d);
}

static void count_class(const char *why)
{
	for (unsigned i = 0; i < sizeof(walk_tally.class) / sizeof(walk_tally.class[0]); i++) {
		if (walk_tally.class[i].why == NULL)
			walk_tally.class[i].why = why;
		if (strcmp(walk_tally.class[i].why, why) == 0) {
			walk_tally.class[i].n++;
			return;
		}
	}
}

/* What a walk must have come by, for those who read its report. */
static void count_lengths(const struct frame *in, const uint8_t *out, size_t nout)
{
	static bool seen[1473], seen_stripped[1473];
	const size_t l4 = net.six ? 54 : 34;
	size_t n;

	if (walk_tally.out == 0) {
		memset(seen, 0, sizeof(seen));
		memset(seen_stripped, 0, sizeof(seen_stripped));
	}
	if (nout < l4 + 8 || out[net.six ? 20 : 23] != IPPROTO_UDP)
		return;
	n = ((size_t)out[l4 + 4] << 8 | out[l4 + 5]) - 8;
	if (n >= sizeof(seen))
		return;
	walk_tally.lengths += !seen[n];
	seen[n] = true;
	if (memcmp(in->p + l4 + 4, out + l4 + 4, 2) != 0) {
		walk_tally.stripped += !seen_stripped[n];
		seen_stripped[n] = true;
	}
	walk_tally.no_check += out[l4 + 6] == 0 && out[l4 + 7] == 0;
}

static bool step_frame(struct walker *w)
{
	static struct frame f;
	struct round *r = &w->r;
	struct step st = {.kind = STEP_FRAME, .seed = draw_apart(&w->d), .opener = STEP_NONE};

	st.side = frame_draw(&w->d, r->m, &w->left, &f);
	st.frame = f.p;
	st.n = f.n;
	w->frames++;
	if (!round_take(r, round_add(r, &st)))
		return false;
	count_class(r->said.verdict == GM_DROP ? r->said.why : r->said.passed);
	if (r->said.verdict == GM_OUT) {
		count_lengths(&f, r->out, r->nout);
		walk_tally.out++;
		frame_left(&w->left, st.side == GM_OUTSIDE ? GM_INSIDE : GM_OUTSIDE, r->out, r->nout);
	} else if (r->said.verdict == GM_HOST) {
		walk_tally.host++;
	} else {
		walk_tally.drop++;
	}
	return true;
}

static void draw_open(struct walker *w, struct gate_request *r)
{
	static const uint32_t lifetimes[] = {1, 5, 30, 300, 3600}, idles[] = {0, 0, 0, 2, 30}, connects[] = {0, 0, 1, 5},
			      syns[] = {0, 1, 3, 1000, 1000}, packets[] = {0, 0, 0, 0, 1, 2, 10};
	static const uint64_t bytes[] = {0, 0, 0, 0, 500, 2000, 20000};
	struct draw *d = &w->d;

	r->op = GATE_OPEN;
	r->proto = draw_below(d, 2) != 0 ? IPPROTO_TCP : IPPROTO_UDP;
	r->lifetime_s = DRAW_OF(d, lifetimes);
	r->idle_s = DRAW_OF(d, idles);
	r->bytes_per_s = DRAW_OF(d, bytes);
	r->packets_per_s = DRAW_OF(d, packets);
	if (draw_one_in(d, 6)) {
		r->user_bytes_per_s = DRAW_OF(d, bytes);
		r->user_packets_per_s = DRAW_OF(d, packets);
	}
	address(&r->inside, frame_inside_ip[draw_one_in(d, 12) ? draw_below(d, 7) : r->tenant * 2 + draw_below(d, 2)],
		DRAW_OF(d, frame_inside_port));
	address(&r->remote, DRAW_OF(d, frame_outside_ip), 0);
	if (r->proto == IPPROTO_TCP) {
		r->connect_s = DRAW_OF(d, connects);
		r->syn_rate = DRAW_OF(d, syns);
		if (draw_one_in(d, 4))
			r->remote.port = (uint16_t)(40000 + draw_below(d, 4));
	} else if (draw_below(d, 3) != 0) {
		memset(&r->remote, 0, sizeof(r->remote));
		r->flags = GATE_FLAG_TAG;
		if (net.firewall && draw_one_in(d, 2)) /* who will come is known: that finds the hole */
			address(&r->remote, DRAW_OF(d, frame_outside_ip), 0);
		for (unsigned i = 0; i < 16; i++)
			r->key[i] = (uint8_t)(i == 0 ? 1 : draw_below(d, 256));
	} else {
		r->remote.port = DRAW_OF(d, frame_outside_port);
	}
	/* Often as the one before: then several wait for one address. */
	if (net.firewall && w->latest.op == GATE_OPEN && draw_below(d, 3) != 0) {
		r->tenant = w->latest.tenant;
		r->proto = w->latest.proto;
		r->flags = w->latest.flags;
		r->inside = w->latest.inside;
		r->remote = w->latest.remote;
		if (r->proto != IPPROTO_TCP) {
			r->connect_s = r->syn_rate = 0;
			if (r->flags == 0 && draw_one_in(d, 2))
				r->remote.port = DRAW_OF(d, frame_outside_port);
		}
		for (unsigned i = 0; i < 16; i++)
			r->key[i] = r->flags & GATE_FLAG_TAG ? (uint8_t)(1 + draw_below(d, 255)) : 0;
	}
	if (draw_one_in(d, 40))
		r->inside.port = 0;
	snprintf(r->user, sizeof(r->user), "%s", draw_below(d, 2) != 0 ? "alice" : "bob");
}

static bool step_grant(struct walker *w)
{
	struct round *r = &w->r;
	struct step st = {.kind = STEP_GRANT, .seed = draw_apart(&w->d), .opener = STEP_NONE};
	struct gate_request *q = &st.request;
	size_t at;

	q->tenant = draw_below(&w->d, 2);
	if (w->nopeners == 0 || draw_below(&w->d, 3) != 0) {
		draw_open(w, q);
	} else {
		const struct gm_hole *h;

		st.opener = w->opener[draw_below(&w->d, w->nopeners < 64 ? w->nopeners : 64)];
		h = gm_hole_of(r->m, r->hole[st.opener]);
		if (h != NULL && !draw_one_in(&w->d, 10))
			q->tenant = h->tenant;
		q->op = draw_one_in(&w->d, 2) ? GATE_CLOSE : GATE_RENEW;
		if (q->op == GATE_RENEW)
			q->lifetime_s = 1 + draw_below(&w->d, 100);
	}
	at = round_add(r, &st);
	walk_tally.grants++;
	if (!round_take(r, at))
		return false;
	if (r->hole[at] != 0) {
		w->opener[w->nopeners++ % 64] = at;
		w->latest = *q;
	}
	return true;
}

static bool step_time(struct walker *w)
{
	static const uint64_t spans[] = {1 * MS,      10 * MS,    100 * MS,    250 * MS,    300 * MS,   1000 * MS,
					 1000 * MS,   3000 * MS,  5000 * MS,   10000 * MS,  31000 * MS, 125000 * MS,
					 245000 * MS, 61000 * MS, 310000 * MS, 7500000 * MS};
	const uint32_t n = draw_one_in(&w->d, 3) ? 16 : 8;
	const struct step st = {.kind = STEP_TIME, .ns = spans[draw_below(&w->d, n)], .opener = STEP_NONE};

	return round_take(&w->r, round_add(&w->r, &st));
}

static bool start(struct walker *w)
{
	round_clear(&w->r);
	w->r.seed = w->seed + w->frames;
	w->nopeners = 0;
	memset(w->left.n, 0, sizeof(w->left.n));
	return round_start(&w->r);
}

static bool step(struct walker *w)
{
	const uint32_t kind = draw_below(&w->d, 64);

	if (kind < 3 || (w->r.m->holes == NULL && kind < 20))
		return step_grant(w);
	if (kind == 3)
		return step_time(w);
	return step_frame(w);
}

/* The steps to a difference, first all of them into a file, then the fewest that still lead there. */
static void explain(struct walker *w)
{
	struct round *r = &w->r;
	bool *keep = calloc(r->nsteps, sizeof(*keep));
	const char *dir = getenv("TMPDIR");
	char path[512];
	size_t left;
	FILE *f;

	if (keep == NULL)
		abort();
	fprintf(stderr, "frame %" PRIu64 ": %s\n", w->frames, r->wrong);
	fprintf(stderr, "again: WALNUT_PROPERTY_SEED=%" PRIu64 " WALNUT_PROPERTY_PACKETS=%" PRIu64 "\n", w->seed, w->frames);
	snprintf(path, sizeof(path), "%s/walnut-property-%" PRIu64 ".txt", dir != NULL ? dir : "/tmp", w->seed);
	f = fopen(path, "w");
	if (f != NULL) {
		fprintf(f, "# seed %" PRIu64 ", frame %" PRIu64 ": %s\n", w->seed, w->frames, r->wrong);
		for (size_t i = 0; i < r->nsteps; i++)
			step_print(f, r, i, true);
		fclose(f);
		fprintf(stderr, "all %zu steps since the tables were empty: %s\n", r->nsteps, path);
	}
	memset(keep, true, r->nsteps);
	left = round_shrink(r, keep);
	fprintf(stderr, "the fewest that still differ, %zu: %s\n", left, r->wrong);
	for (size_t i = 0; i < r->nsteps; i++)
		if (keep[i])
			step_print(stderr, r, i, false);
	free(keep);
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

static void report(const struct walker *w, bool same)
{
	printf("# %s: seed %" PRIu64 ", %" PRIu64 " frames: %" PRIu64 " sent on, %" PRIu64 " to the host, %" PRIu64 " dropped; %" PRIu64
	       " grants\n#",
	       same ? "same" : "not the same", w->seed, w->frames, walk_tally.out, walk_tally.host, walk_tally.drop, walk_tally.grants);
	for (unsigned i = 0; i < sizeof(walk_tally.class) / sizeof(walk_tally.class[0]) && walk_tally.class[i].why != NULL; i++)
		printf(" %s %" PRIu64 ",", walk_tally.class[i].why, walk_tally.class[i].n);
	printf("\n# UDP payloads of %" PRIu64 " lengths left, of %" PRIu64 " without their tag; %" PRIu64 " datagrams without a checksum\n",
	       walk_tally.lengths, walk_tally.stripped, walk_tally.no_check);
	fflush(stdout);
}

static struct walker *walker_new(const struct walk_subject *s)
{
	struct walker *w = calloc(1, sizeof(*w));

	if (w == NULL)
		abort();
	w->r.s = s;
	return w;
}

static void walker_free(struct walker *w)
{
	round_free(&w->r);
	free(w);
}

bool walk(const struct walk_subject *s, uint64_t packets, uint64_t seed)
{
	struct walker *w = walker_new(s);
	bool same = true;
	uint64_t began = UINT64_MAX;

	memset(&walk_tally, 0, sizeof(walk_tally));
	packets = from_env("WALNUT_PROPERTY_PACKETS", packets);
	w->seed = from_env("WALNUT_PROPERTY_SEED", seed);
	w->d.state = w->seed;
	while (same && w->frames < packets) {
		if (began == UINT64_MAX || w->frames - began >= ROUND) {
			began = w->frames;
			same = start(w);
		}
		same = same && step(w);
	}
	report(w, same);
	if (!same)
		explain(w);
	walker_free(w);
	return same;
}

bool walk_bytes(const struct walk_subject *s, const uint8_t *data, size_t n)
{
	struct walker *w = walker_new(s);
	bool same;

	w->d.bytes = data;
	w->d.n = n;
	same = start(w);
	while (same && !w->d.dry)
		same = step(w);
	if (!same)
		explain(w);
	walker_free(w);
	return same;
}
