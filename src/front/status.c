/* SPDX-License-Identifier: Apache-2.0 */
#include "front/status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/ctl.h"
#include "front/why.h"

static uint64_t total(const struct front_sources *s, enum front_outcome o)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < s->nworkers; i++)
		n += front_worker_count(s->worker[i], o);
	return n;
}

static uint64_t unsent(const struct front_sources *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < s->nworkers; i++)
		n += front_worker_unsent(s->worker[i]);
	return n;
}

static uint64_t transactions(const struct front_sources *s)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < s->shared->ntenants; i++)
		n += atomic_load_explicit(&s->shared->tenant[i].calls, memory_order_relaxed);
	return n;
}

static json_t *streams(const struct front_sources *s)
{
	static const char *const class[] = {
		[STREAM_HANDSHAKE] = "handshaking", [STREAM_STRANGER] = "strangers", [STREAM_TRUSTED] = "users"};
	json_t *j = json_object();

	for (unsigned c = STREAM_HANDSHAKE; c <= STREAM_TRUSTED; c++) {
		uint64_t n = 0;

		for (unsigned i = 0; i < s->nworkers; i++)
			n += front_streams_open(front_worker_streams(s->worker[i]), (enum stream_class)c);
		json_object_set_new(j, class[c], json_integer((json_int_t)n));
	}
	for (unsigned c = 0; c < FRONT_STREAM_COUNT_MAX; c++) {
		uint64_t n = 0;

		for (unsigned i = 0; i < s->nworkers; i++)
			n += front_streams_count(front_worker_streams(s->worker[i]), (enum front_stream_count)c);
		json_object_set_new(j, front_stream_count_name((enum front_stream_count)c), json_integer((json_int_t)n));
	}
	return j;
}

json_t *front_status(const struct front_sources *s)
{
	json_t *j = json_pack("{s:b,s:s,s:s,s:I}", "ok", 1, "role", "front", "version", WALNUT_VERSION, "uptime_s",
			      (json_int_t)((wn_now_ms() - s->started_ms) / 1000));
	json_t *outcomes = json_object();

	for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++)
		json_object_set_new(outcomes, front_outcome_name((enum front_outcome)o),
				    json_integer((json_int_t)total(s, (enum front_outcome)o)));
	if (s->nworkers > 0 && front_worker_streams(s->worker[0]) != NULL)
		json_object_set_new(j, "streams", streams(s));
	json_object_set_new(j, "outcomes", outcomes);
	json_object_set_new(j, "unsent", json_integer((json_int_t)unsent(s)));
	json_object_set_new(j, "transactions", json_integer((json_int_t)transactions(s)));
	json_object_set_new(j, "workers", json_integer(s->nworkers));
	front_relay_status(s->relay, j);
	return j;
}

/* A name as it came, in characters that harm nobody: what is not printable ASCII becomes \xHH. */
static json_t *safe(const char *p, size_t n)
{
	char text[4 * FRONT_WHY_TEXT + 1];
	size_t at = 0;

	for (size_t i = 0; i < n; i++) {
		unsigned char ch = (unsigned char)p[i];

		if (ch < 0x20 || ch >= 0x7f)
			at += (size_t)snprintf(text + at, sizeof(text) - at, "\\x%02x", ch);
		else
			text[at++] = (char)ch;
	}
	return json_stringn(text, at);
}

static json_t *denial(const struct front_sources *s, const struct front_denial *d, enum front_why_ring ring, uint64_t now_ms)
{
	static const char *const kind[FRONT_WHY_RINGS] = {"proven", "answered", "stranger"};
	char from[WN_ADDR_STR];

	return json_pack("{s:s,s:I,s:s,s:i,s:b,s:o,s:o,s:b,s:s,s:s}", "kind", kind[ring], "age_ms",
			 (json_int_t)(now_ms > d->at_ms ? now_ms - d->at_ms : 0), "outcome",
			 front_outcome_name((enum front_outcome)d->outcome), "status", (int)d->status, "proven", ring == FRONT_WHY_PROVEN,
			 "user", safe(d->user, d->user_n), "call_id", safe(d->call_id, d->call_id_n), "cut", (int)d->cut, "from",
			 wn_addr_str(&d->from, from), "domain", d->tenant < s->shared->ntenants ? s->shared->tenant[d->tenant].domain : "");
}

static int newest_first(const void *a, const void *b)
{
	json_int_t x = json_integer_value(json_object_get(*(json_t *const *)a, "age_ms"));
	json_int_t y = json_integer_value(json_object_get(*(json_t *const *)b, "age_ms"));

	return x < y ? -1 : x > y;
}

json_t *front_status_why(const struct front_sources *s, const char *about)
{
	struct front_denial d[FRONT_WHY_KEPT];
	const uint64_t now_ms = wn_now_ms();
	json_int_t left_out[FRONT_WHY_RINGS] = {0};
	json_t *list, **found;
	size_t n = 0;

	found = malloc((size_t)s->nworkers * FRONT_WHY_RINGS * FRONT_WHY_KEPT * sizeof(json_t *));
	if (found == NULL)
		return ctl_error("out of memory");
	for (unsigned ring = 0; ring < FRONT_WHY_RINGS; ring++) {
		for (unsigned i = 0; i < s->nworkers; i++) {
			struct front_why *w = front_core_why(front_worker_core(s->worker[i]));
			unsigned kept = front_why_read(w, (enum front_why_ring)ring, d);

			left_out[ring] += (json_int_t)front_why_left_out(w, (enum front_why_ring)ring);
			for (unsigned k = 0; k < kept; k++)
				if (about == NULL || front_denial_is_about(&d[k], span_str(about)))
					found[n++] = denial(s, &d[k], (enum front_why_ring)ring, now_ms);
		}
	}
	list = json_array();
	qsort(found, n, sizeof(json_t *), newest_first);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, found[i]);
	free(found);
	return json_pack("{s:b,s:o,s:{s:I,s:I,s:I}}", "ok", 1, "denials", list, "left_out", "proven", left_out[FRONT_WHY_PROVEN],
			 "answered", left_out[FRONT_WHY_ANSWERED], "stranger", left_out[FRONT_WHY_STRANGER]);
}

size_t front_status_metrics(const struct front_sources *s, char **out)
{
	struct front_report *r = calloc(1, sizeof(*r));
	size_t n;

	if (r == NULL)
		return 0;
	r->uptime_s = (wn_now_ms() - s->started_ms) / 1000;
	r->workers = s->nworkers;
	for (unsigned i = 0; i < s->nworkers; i++) {
		const struct front_core *core = front_worker_core(s->worker[i]);

		for (unsigned o = 0; o < FRONT_OUTCOME_COUNT; o++) {
			uint64_t count = front_core_count(core, (enum front_outcome)o);

			r->outcome[o] += count;
			r->worker_messages[i] += count;
			front_worker_latency(s->worker[i], (enum front_outcome)o, &r->latency[o]);
		}
		histogram_merge(&r->call_answer, front_core_call_answer(core));
		r->has_streams = front_worker_streams(s->worker[i]) != NULL;
		for (unsigned c = STREAM_HANDSHAKE; r->has_streams && c <= STREAM_TRUSTED; c++)
			r->stream_open[c] += front_streams_open(front_worker_streams(s->worker[i]), (enum stream_class)c);
		for (unsigned c = 0; r->has_streams && c < FRONT_STREAM_COUNT_MAX; c++)
			r->stream[c] += front_streams_count(front_worker_streams(s->worker[i]), (enum front_stream_count)c);
		for (unsigned ring = 0; ring < FRONT_WHY_RINGS; ring++)
			r->why_left_out += front_why_left_out(front_core_why(core), (enum front_why_ring)ring);
	}
	r->unsent = unsent(s);
	r->transactions = transactions(s);
	front_relay_report(s->relay, r);
	n = front_metrics_text(r, out);
	free(r);
	return n;
}
