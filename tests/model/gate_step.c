/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_step.h"

#include <linux/bpf.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "gate/bpf/shared.h"

#define MS ((uint64_t)1000000)

bool round_start(struct round *r)
{
	gm_free(r->m);
	r->m = gm_new(walk_net());
	r->wrong[0] = '\0';
	r->unlooked = 0;
	if (r->nsteps > 0)
		memset(r->hole, 0, r->nsteps * sizeof(*r->hole));
	r->s->seed(r->seed);
	return r->s->reset();
}

void round_clear(struct round *r)
{
	for (size_t i = 0; i < r->nsteps; i++)
		free(r->step[i].frame);
	r->nsteps = 0;
}

void round_free(struct round *r)
{
	round_clear(r);
	gm_free(r->m);
	free(r->step);
	free(r->hole);
}

size_t round_add(struct round *r, const struct step *st)
{
	struct step *to;

	if (r->nsteps == r->cap) {
		r->cap = r->cap * 2 + 1024;
		r->step = realloc(r->step, r->cap * sizeof(*r->step));
		r->hole = realloc(r->hole, r->cap * sizeof(*r->hole));
		if (r->step == NULL || r->hole == NULL)
			abort();
	}
	to = &r->step[r->nsteps];
	*to = *st;
	if (st->frame != NULL) {
		to->frame = malloc(st->n);
		if (to->frame == NULL)
			abort();
		memcpy(to->frame, st->frame, st->n);
	}
	r->hole[r->nsteps] = 0;
	return r->nsteps++;
}

__attribute__((format(printf, 2, 3))) static bool differs(struct round *r, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(r->wrong, sizeof(r->wrong), fmt, args);
	va_end(args);
	return false;
}

static const char *verdict_name(int v)
{
	return v == XDP_DROP ? "dropped" : v == XDP_PASS ? "passed to the host" : v == XDP_REDIRECT ? "sent on" : "another verdict";
}

static bool compare_bytes(struct round *r)
{
	const struct gm_answer *a = &r->said;

	if (r->nout != a->n)
		return differs(r, "%zu bytes left, must be %zu", r->nout, a->n);
	for (size_t i = 0; i < r->nout; i++)
		if (r->out[i] != a->out[i])
			return differs(r, "byte %zu of %zu is %02x, must be %02x", i, r->nout, r->out[i], a->out[i]);
	return true;
}

static bool compare(struct round *r, const struct step *st, int verdict, const char *counted)
{
	static const int want[] = {[GM_DROP] = XDP_DROP, [GM_HOST] = XDP_PASS, [GM_OUT] = XDP_REDIRECT, [GM_BACK] = XDP_REDIRECT};
	const struct gm_answer *a = &r->said;

	if (r->m->broken != NULL)
		return differs(r, "%s (%s, counted %s)", r->m->broken, verdict_name(verdict), counted);
	if (verdict != want[a->verdict])
		return differs(r, "%s (counted %s), must be %s (%s)", verdict_name(verdict), counted, verdict_name(want[a->verdict]),
			       a->why);
	if (a->verdict == GM_DROP) {
		if (strcmp(gm_class(counted), a->why) == 0 || strcmp(gm_class(counted), a->also) == 0)
			return true;
		return differs(r, "dropped as %s, must be as \"%s\"", counted, a->why);
	}
	if (strcmp(counted, a->passed) != 0)
		return differs(r, "passed and counted as %s, must be as %s", counted, a->passed);
	if (a->verdict == GM_HOST)
		return (r->nout == st->n && memcmp(r->out, st->frame, st->n) == 0) || differs(r, "a frame for the host was changed");
	return compare_bytes(r);
}

/* RFC 6479: of the counters behind the newest, those that passed and no others are known to have. */
static bool compare_replay(struct round *r, const struct gm_hole *h, const struct gate_replay *w)
{
	static uint8_t passed[961];

	if (w->top != h->top)
		return differs(r, "a hole's newest counter is %llu, must be %llu", (unsigned long long)w->top, (unsigned long long)h->top);
	memset(passed, 0, sizeof(passed));
	for (size_t i = 0; i < h->nseen; i++)
		if (h->top - h->seen[i] <= 960)
			passed[h->top - h->seen[i]] = 1;
	for (uint64_t behind = 0; behind <= 960 && behind < h->top; behind++) {
		const uint64_t c = h->top - behind;

		if ((w->bits[(c >> 6) % GATE_REPLAY_WORDS] >> (c & 63) & 1) != passed[behind])
			return differs(r, "counter %llu is %s as one that passed", (unsigned long long)c,
				       passed[behind] ? "not known" : "taken");
	}
	return true;
}

static bool compare_hole(struct round *r, const struct gm_hole *h)
{
	uint8_t ip[16], want[16];
	struct gate_hole p;

	if (!r->s->hole(h->id, &p))
		return h->packets_in + h->packets_out == 0 || differs(r, "the path has forgotten a hole");
	memcpy(ip, &p.remote, sizeof(ip));
	if (r->m->net.six)
		gm_address6(h->bound_ip, want);
	else
		memcpy(want, &(uint32_t){htonl(h->bound_ip)}, 4);
	if ((p.bound != 0) != h->bound ||
	    (h->bound && (memcmp(ip, want, r->m->net.six ? 16 : 4) != 0 || ntohs(p.remote_port) != h->bound_port)))
		return differs(r, "a hole is bound otherwise");
	if (p.packets_in != h->packets_in || p.bytes_in != h->bytes_in || p.packets_out != h->packets_out || p.bytes_out != h->bytes_out)
		return differs(r, "a hole has counted %llu packets, %llu bytes in, %llu, %llu out; must be %llu, %llu, %llu, %llu",
			       (unsigned long long)p.packets_in, (unsigned long long)p.bytes_in, (unsigned long long)p.packets_out,
			       (unsigned long long)p.bytes_out, (unsigned long long)h->packets_in, (unsigned long long)h->bytes_in,
			       (unsigned long long)h->packets_out, (unsigned long long)h->bytes_out);
	if (p.packet_due != h->packet_due || p.byte_due != h->byte_due || p.syn_due != h->syn_due || p.last != h->last)
		return differs(r, "a hole's rates or its latest packet differ");
	return !h->tag || compare_replay(r, h, &p.replay);
}

/* One that has expired may be gone. */
static bool compare_session(struct round *r, const struct gm_session *s)
{
	const uint64_t now = r->s->now();
	struct gate_flow f;

	if (now >= s->expires)
		return true;
	if (!r->s->session(s, &f))
		return differs(r, "the path has forgotten a session");
	if (f.expires != s->expires)
		return differs(r, "a session expires in %lld ns, must in %lld", (long long)(f.expires - now),
			       (long long)(s->expires - now));
	return s->proto != 17 || (f.replied != 0) == s->replied || differs(r, "whether a session was answered");
}

static bool take_frame(struct round *r, const struct step *st)
{
	const uint64_t now = r->s->now();
	const char *counted = "";
	int verdict;

	r->nout = 0;
	verdict = r->s->run((int)st->side, st->frame, st->n, r->out, &r->nout, &counted);
	gm_packet(r->m, st->side, st->frame, st->n, now, verdict == XDP_REDIRECT ? r->out : NULL, r->nout, &r->said);
	if (!compare(r, st, verdict, counted))
		return false;
	if (++r->unlooked < r->s->look_at)
		return true;
	r->unlooked = 0;
	for (const struct gm_hole *h = r->m->holes; h != NULL; h = h->next)
		if (!compare_hole(r, h))
			return false;
	for (const struct gm_session *s = r->m->sessions; s != NULL; s = s->next)
		if (!compare_session(r, s))
			return false;
	return true;
}

static bool take_grant(struct round *r, size_t at)
{
	struct gate_request *q = &r->step[at].request;
	const uint64_t now_ms = r->s->now() / MS;
	const char *wrong;

	q->hole = r->step[at].opener != STEP_NONE ? r->hole[r->step[at].opener] : 0;
	r->s->sweep(now_ms);
	gm_swept(r->m, now_ms * MS);
	r->s->apply(q, now_ms, &r->reply);
	wrong = gm_apply(r->m, q, &r->reply, now_ms * MS);
	if (wrong != NULL)
		return differs(r, "%s (answered %d)", wrong, r->reply.status);
	r->hole[at] = q->op == GATE_OPEN && r->reply.status == GATE_OK ? r->reply.hole : 0;
	return true;
}

bool round_take(struct round *r, size_t at)
{
	const struct step *st = &r->step[at];

	r->s->seed(st->seed);
	switch (st->kind) {
	case STEP_FRAME:
		return take_frame(r, st);
	case STEP_GRANT:
		return take_grant(r, at);
	default:
		r->s->pass(st->ns);
		return true;
	}
}
