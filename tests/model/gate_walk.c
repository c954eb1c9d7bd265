/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_walk.h"

#include <inttypes.h>
#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gate/bpf/shared.h"
#include "gate_frame.h"

#define MS    ((uint64_t)1000000)
#define ROUND 1500 /* frames between two fresh starts */

struct walk_tally walk_tally;

/* Everything since the last fresh start, for who has to find out. */
struct log {
	char *text;
	size_t n, cap;
};

struct walker {
	const struct walk_subject *s;
	struct gm_model *m;
	struct draw d;
	struct frames_left left;
	struct log log;
	uint64_t seed, frames;
	uint64_t hole[64]; /* numbers that were granted, also those that are closed */
	unsigned nholes;
};

static const struct gm_net net = {
	.mac = {{2, 0, 0, 0, 3, 2}, {2, 0, 0, 0, 0x64, 1}},
	.public_ip = {0xc6120302, 0xc6120303},
	.npublic = 2,
	.port_low = 1024,
	.port_high = 65535,
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

const struct gm_net *walk_net(void)
{
	return &net;
}

static void addr4(struct wn_addr *a, uint32_t ip, uint16_t port)
{
	memset(a, 0, sizeof(*a));
	a->ip[10] = a->ip[11] = 0xff;
	for (int i = 0; i < 4; i++)
		a->ip[12 + i] = (uint8_t)(ip >> (24 - 8 * i));
	a->port = port;
}

void walk_config(struct gate_config *cfg)
{
	for (unsigned i = 0; i < net.npublic; i++)
		addr4(&cfg->public[i], net.public_ip[i], 0);
	cfg->npublic = net.npublic;
	cfg->port_low = net.port_low;
	cfg->port_high = net.port_high;
	addr4(&cfg->control, net.control_ip, net.control_port);
	cfg->flows = 4096;
	cfg->mappings = 4096;
	cfg->holes = 64;
	cfg->ntenant = net.ntenants;
	for (unsigned t = 0; t < net.ntenants; t++) {
		struct wn_addr a;

		addr4(&a, net.tenant[t].net, 0);
		memset(&cfg->tenant[t], 0, sizeof(cfg->tenant[t]));
		snprintf(cfg->tenant[t].name, sizeof(cfg->tenant[t].name), "tenant%u.example", t);
		memcpy(cfg->tenant[t].prefix[0].ip, a.ip, sizeof(a.ip));
		cfg->tenant[t].prefix[0].bits = (uint8_t)(96 + net.tenant[t].bits);
		cfg->tenant[t].nprefix = 1;
		cfg->tenant[t].holes = net.tenant[t].quota;
	}
}

__attribute__((format(printf, 2, 3))) static void note(struct walker *w, const char *fmt, ...)
{
	va_list args;
	int n;

	if (w->log.cap - w->log.n < 512) {
		w->log.cap = w->log.cap * 2 + 65536;
		w->log.text = realloc(w->log.text, w->log.cap);
		if (w->log.text == NULL)
			abort();
	}
	va_start(args, fmt);
	n = vsnprintf(w->log.text + w->log.n, w->log.cap - w->log.n, fmt, args);
	va_end(args);
	if (n > 0)
		w->log.n += (size_t)n;
}

static void note_frame(struct walker *w, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 32) {
		char hex[65] = "";

		for (size_t j = i; j < n && j < i + 32; j++)
			snprintf(hex + 2 * (j - i), 3, "%02x", p[j]);
		note(w, "%s", hex);
	}
	note(w, "\n");
}

static bool differs(struct walker *w, const char *what)
{
	const char *dir = getenv("TMPDIR");
	char path[512];
	FILE *f;

	fprintf(stderr, "frame %" PRIu64 ": %s\n", w->frames, what);
	fprintf(stderr, "again: WALNUT_PROPERTY_SEED=%" PRIu64 " WALNUT_PROPERTY_PACKETS=%" PRIu64 "\n", w->seed, w->frames);
	snprintf(path, sizeof(path), "%s/walnut-property-%" PRIu64 ".txt", dir != NULL ? dir : "/tmp", w->seed);
	f = fopen(path, "w");
	if (f != NULL) {
		fprintf(f, "# seed %" PRIu64 ", frame %" PRIu64 ": %s\n", w->seed, w->frames, what);
		fwrite(w->log.text, 1, w->log.n, f);
		fclose(f);
		fprintf(stderr, "all steps since the tables were empty: %s\n", path);
	}
	return false;
}

static const char *verdict_name(int v)
{
	return v == XDP_DROP ? "dropped" : v == XDP_PASS ? "passed to the host" : v == XDP_REDIRECT ? "sent on" : "another verdict";
}

static const char *said_name(enum gm_verdict v)
{
	return v == GM_DROP ? "dropped" : v == GM_HOST ? "passed to the host" : "sent on";
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

static bool compare(struct walker *w, const struct frame *in, int verdict, const char *reason, const uint8_t *out, size_t nout,
		    const struct gm_answer *a)
{
	static const int want[] = {[GM_DROP] = XDP_DROP, [GM_HOST] = XDP_PASS, [GM_OUT] = XDP_REDIRECT};
	char text[300];

	if (w->m->broken != NULL)
		return differs(w, w->m->broken);
	if (verdict != want[a->verdict]) {
		snprintf(text, sizeof(text), "%s (%s), must be %s (%s)", verdict_name(verdict), reason, said_name(a->verdict), a->why);
		return differs(w, text);
	}
	if (a->verdict == GM_DROP) {
		if (strcmp(gm_class(reason), a->why) == 0 || strcmp(gm_class(reason), a->also) == 0)
			return true;
		snprintf(text, sizeof(text), "dropped as %s, must be as \"%s\"", reason, a->why);
		return differs(w, text);
	}
	if (a->verdict == GM_HOST)
		return (nout == in->n && memcmp(out, in->p, nout) == 0) || differs(w, "a frame for the host was changed");
	if (nout != a->n) {
		snprintf(text, sizeof(text), "%zu bytes left, must be %zu", nout, a->n);
		return differs(w, text);
	}
	for (size_t i = 0; i < nout; i++) {
		if (out[i] != a->out[i]) {
			note(w, "left ");
			note_frame(w, out, nout);
			note(w, "must ");
			note_frame(w, a->out, a->n);
			snprintf(text, sizeof(text), "byte %zu of %zu is %02x, must be %02x", i, nout, out[i], a->out[i]);
			return differs(w, text);
		}
	}
	return true;
}

static bool compare_hole(struct walker *w, const struct gm_hole *h)
{
	struct gate_hole r;
	char text[300];

	if (!w->s->hole(h->id, &r))
		return h->packets_in + h->packets_out == 0 || differs(w, "the path has forgotten a hole");
	if ((r.bound != 0) != h->bound || (h->bound && (ntohl(r.remote_ip) != h->bound_ip || ntohs(r.remote_port) != h->bound_port)))
		return differs(w, "a hole is bound otherwise");
	if (r.packets_in != h->packets_in || r.bytes_in != h->bytes_in || r.packets_out != h->packets_out || r.bytes_out != h->bytes_out) {
		snprintf(text, sizeof(text),
			 "a hole has counted %llu packets, %llu bytes in, %llu, %llu out; must be %llu, %llu, %llu, %llu",
			 (unsigned long long)r.packets_in, (unsigned long long)r.bytes_in, (unsigned long long)r.packets_out,
			 (unsigned long long)r.bytes_out, (unsigned long long)h->packets_in, (unsigned long long)h->bytes_in,
			 (unsigned long long)h->packets_out, (unsigned long long)h->bytes_out);
		return differs(w, text);
	}
	if (w->s->margin == 0 &&
	    (r.packet_due != h->packet_due || r.byte_due != h->byte_due || r.syn_due != h->syn_due || r.last != h->last))
		return differs(w, "a hole's rates or its latest packet differ");
	if (h->tag && r.replay.top != h->top)
		return differs(w, "a hole's newest counter differs");
	return true;
}

/* Away from every deadline that the gate may see a moment earlier or later than we. */
static bool steady(struct walker *w)
{
	for (int i = 0; i < 1000 && w->s->margin != 0 && gm_tight(w->m, w->s->now(), w->s->margin); i++) {
		note(w, "pass %" PRIu64 "\n", (uint64_t)(2 * w->s->margin));
		if (!w->s->pass(2 * w->s->margin))
			return false;
	}
	return true;
}

static bool step_frame(struct walker *w)
{
	static struct frame f;
	static struct gm_answer a;
	static uint8_t out[GM_FRAME];
	const enum gm_side side = frame_draw(&w->d, w->m, &w->left, &f);
	const char *reason = "";
	size_t nout = 0;
	uint64_t now;
	int verdict;

	if (!steady(w))
		return true; /* the round ends here */
	now = w->s->now();
	note(w, "%" PRIu64 " %s ", now, side == GM_OUTSIDE ? "outside" : "inside");
	note_frame(w, f.p, f.n);
	verdict = w->s->run((int)side, f.p, f.n, out, &nout, &reason);
	w->frames++;
	if (w->s->margin != 0 && w->s->now() - now > w->s->margin / 2)
		return true; /* the machine stood still: nobody knows what time it was */
	gm_packet(w->m, side, f.p, f.n, now, verdict == XDP_REDIRECT ? out : NULL, nout, &a);
	note(w, "  %s %s, must be %s %s\n", verdict_name(verdict), verdict == XDP_DROP ? reason : "", said_name(a.verdict), a.why);
	if (!compare(w, &f, verdict, reason, out, nout, &a))
		return false;
	count_class(a.verdict == GM_DROP ? a.why : said_name(a.verdict));
	if (a.verdict == GM_OUT) {
		walk_tally.out++;
		frame_left(&w->left, side == GM_OUTSIDE ? GM_INSIDE : GM_OUTSIDE, out, nout);
	} else if (a.verdict == GM_HOST) {
		walk_tally.host++;
	} else {
		walk_tally.drop++;
	}
	if (w->frames % w->s->look_at == 0)
		for (const struct gm_hole *h = w->m->holes; h != NULL; h = h->next)
			if (!compare_hole(w, h))
				return false;
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
	addr4(&r->inside, frame_inside_ip[draw_one_in(d, 12) ? draw_below(d, 7) : r->tenant * 2 + draw_below(d, 2)],
	      DRAW_OF(d, frame_inside_port));
	addr4(&r->remote, DRAW_OF(d, frame_outside_ip), 0);
	if (r->proto == IPPROTO_TCP) {
		r->connect_s = DRAW_OF(d, connects);
		r->syn_rate = DRAW_OF(d, syns);
		if (draw_one_in(d, 4))
			r->remote.port = (uint16_t)(40000 + draw_below(d, 4));
	} else if (draw_below(d, 3) != 0) {
		memset(&r->remote, 0, sizeof(r->remote));
		r->flags = GATE_FLAG_TAG;
		for (unsigned i = 0; i < 16; i++)
			r->key[i] = (uint8_t)(i == 0 ? 1 : draw_below(d, 256));
	} else {
		r->remote.port = DRAW_OF(d, frame_outside_port);
	}
	if (draw_one_in(d, 40))
		r->inside.port = 0;
	snprintf(r->user, sizeof(r->user), "alice");
}

static bool step_grant(struct walker *w)
{
	struct gate_request r;
	struct gate_reply reply;
	const char *wrong;
	uint64_t now_ms;

	memset(&r, 0, sizeof(r));
	r.tenant = draw_below(&w->d, 2);
	if (w->nholes == 0 || draw_below(&w->d, 3) != 0) {
		draw_open(w, &r);
	} else {
		const struct gm_hole *h;

		r.hole = w->hole[draw_below(&w->d, w->nholes < 64 ? w->nholes : 64)];
		h = gm_hole_of(w->m, r.hole);
		if (h != NULL && !draw_one_in(&w->d, 10))
			r.tenant = h->tenant;
		r.op = draw_one_in(&w->d, 2) ? GATE_CLOSE : GATE_RENEW;
		if (r.op == GATE_RENEW)
			r.lifetime_s = 1 + draw_below(&w->d, 100);
	}
	if (!steady(w))
		return true;
	now_ms = w->s->now() / MS;
	w->s->sweep(now_ms);
	gm_swept(w->m, now_ms * MS);
	w->s->apply(&r, now_ms, &reply);
	walk_tally.grants++;
	note(w,
	     "%" PRIu64 " op %d tenant %u proto %d flags %d hole %" PRIx64 " lifetime %u idle %u connect %u syn %u bytes %" PRIu64
	     " packets %u inside %u.%u:%u remote %u.%u:%u",
	     now_ms * MS, r.op, r.tenant, r.proto, r.flags, r.hole, r.lifetime_s, r.idle_s, r.connect_s, r.syn_rate, r.bytes_per_s,
	     r.packets_per_s, r.inside.ip[14], r.inside.ip[15], r.inside.port, r.remote.ip[14], r.remote.ip[15], r.remote.port);
	note(w, " -> status %d hole %" PRIx64 " public %u.%u:%u\n", reply.status, reply.hole, reply.public.ip[14], reply.public.ip[15],
	     reply.public.port);
	wrong = gm_apply(w->m, &r, &reply, now_ms * MS);
	if (wrong != NULL)
		return differs(w, wrong);
	if (r.op == GATE_OPEN && reply.status == GATE_OK)
		w->hole[w->nholes++ % 64] = reply.hole;
	return true;
}

static bool step_time(struct walker *w)
{
	static const uint64_t spans[] = {1 * MS,      10 * MS,    100 * MS,    250 * MS,    300 * MS,   1000 * MS,
					 1000 * MS,   3000 * MS,  5000 * MS,   10000 * MS,  31000 * MS, 125000 * MS,
					 245000 * MS, 61000 * MS, 310000 * MS, 7500000 * MS};
	const uint32_t n = draw_one_in(&w->d, 3) ? 16 : 8;
	const uint64_t ns = spans[draw_below(&w->d, n)];

	note(w, "pass %" PRIu64 "\n", ns);
	w->s->pass(ns);
	return true;
}

static bool start(struct walker *w)
{
	gm_free(w->m);
	w->m = gm_new(&net);
	w->log.n = 0;
	w->nholes = 0;
	memset(w->left.n, 0, sizeof(w->left.n));
	return w->s->reset(w->seed + w->frames);
}

static bool step(struct walker *w)
{
	const uint32_t kind = draw_below(&w->d, 64);

	if (kind < 3 || (w->m->holes == NULL && kind < 20))
		return step_grant(w);
	if (kind == 3)
		return step_time(w);
	return step_frame(w);
}

static uint64_t from_env(const char *name, uint64_t otherwise)
{
	const char *v = getenv(name);

	return v != NULL && *v != '\0' ? strtoull(v, NULL, 10) : otherwise;
}

bool walk(const struct walk_subject *s, uint64_t packets, uint64_t seed)
{
	struct walker *w = calloc(1, sizeof(*w));
	bool same;
	uint64_t began = UINT64_MAX;

	if (w == NULL)
		abort();
	memset(&walk_tally, 0, sizeof(walk_tally));
	packets = from_env("WALNUT_PROPERTY_PACKETS", packets);
	w->seed = from_env("WALNUT_PROPERTY_SEED", seed);
	w->s = s;
	w->d.state = w->seed;
	same = true;
	while (same && w->frames < packets) {
		if (began == UINT64_MAX || w->frames - began >= ROUND) {
			began = w->frames;
			same = start(w);
		}
		same = same && step(w);
	}
	printf("# %s: seed %" PRIu64 ", %" PRIu64 " frames: %" PRIu64 " sent on, %" PRIu64 " to the host, %" PRIu64 " dropped; %" PRIu64
	       " grants\n#",
	       same ? "same" : "not the same", w->seed, w->frames, walk_tally.out, walk_tally.host, walk_tally.drop, walk_tally.grants);
	for (unsigned i = 0; i < sizeof(walk_tally.class) / sizeof(walk_tally.class[0]) && walk_tally.class[i].why != NULL; i++)
		printf(" %s %" PRIu64 ",", walk_tally.class[i].why, walk_tally.class[i].n);
	printf("\n");
	gm_free(w->m);
	free(w->log.text);
	free(w);
	return same;
}

bool walk_bytes(const struct walk_subject *s, const uint8_t *data, size_t n)
{
	struct walker *w = calloc(1, sizeof(*w));
	bool same;

	if (w == NULL)
		abort();
	w->s = s;
	w->d.bytes = data;
	w->d.n = n;
	same = start(w);
	while (same && !w->d.dry)
		same = step(w);
	gm_free(w->m);
	free(w->log.text);
	free(w);
	return same;
}
