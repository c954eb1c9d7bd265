/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "base/log.h"
#include "gate/bpf/sample.h"
#include "gate/path.h"

/* What one call of gate_dp_samples hands over. */
struct taking {
	struct gate_dp *dp;
	void (*cb)(const struct gate_dropped *d, void *arg);
	void *arg;
	unsigned left;
};

static void to_addr(const struct gate_sample *s, const uint8_t ip[static 16], uint16_t port, struct wn_addr *a)
{
	memset(a, 0, sizeof(*a));
	if (s->ip == 6) {
		memcpy(a->ip, ip, 16);
	} else if (s->ip == 4) {
		a->ip[10] = a->ip[11] = 0xff;
		memcpy(a->ip + 12, ip, 4);
	}
	a->port = port;
}

static int on_sample(void *arg, void *data, size_t size)
{
	struct taking *t = arg;
	const struct gate_sample *s = data;
	struct gate_dropped d;

	if (size < sizeof(*s) || t->cb == NULL)
		return 0;
	memset(&d, 0, sizeof(d));
	d.time_ms = s->time / GATE_NS_PER_MS;
	d.reason = s->reason;
	d.length = s->length;
	d.ethertype = s->ethertype;
	d.side = s->ifindex == t->dp->ifindex[GATE_OUTSIDE]  ? GATE_DROPPED_OUTSIDE
		 : s->ifindex == t->dp->ifindex[GATE_INSIDE] ? GATE_DROPPED_INSIDE
							     : GATE_DROPPED_ELSEWHERE;
	d.ip = s->ip;
	d.proto = s->proto;
	d.icmp_type = s->icmp_type;
	d.icmp_code = s->icmp_code;
	to_addr(s, s->src, s->sport, &d.src);
	to_addr(s, s->dst, s->dport, &d.dst);
	t->cb(&d, t->arg);
	/* This one is taken in any case; the rest waits for the next call. */
	return --t->left == 0 ? -ECANCELED : 0;
}

/* The callback's argument is fixed when the buffer is made, so it is made for each call: an mmap, a few times a second. */
static int consume(struct gate_dp *dp, struct taking *t)
{
	struct ring_buffer *rb = ring_buffer__new(dp->samples_fd, on_sample, t, NULL);
	int rc;

	if (rb == NULL) {
		rc = -errno;
		wn_err("trace: %s", strerror(-rc));
		return rc;
	}
	rc = ring_buffer__consume(rb);
	ring_buffer__free(rb);
	return rc < 0 && rc != -ECANCELED ? rc : 0;
}

int gate_dp_trace(struct gate_dp *dp, const uint64_t reasons[GATE_REASON_WORDS], uint32_t per_s, bool fresh, uint64_t until_ms)
{
	struct taking nothing = {.dp = dp, .left = 1};
	struct gate_trace_want *w = dp->trace;
	int rc = 0;

	if (per_s > GATE_TRACE_MOST_PER_S)
		return -EINVAL;
	if (fresh || per_s == 0) {
		store64(&w->until, 0);
		rc = consume(dp, &nothing);
	}
	if (per_s == 0 || rc < 0)
		return rc;
	_Static_assert(sizeof(w->reasons) == sizeof(reasons[0]) * GATE_REASON_WORDS, "a set of reasons");
	for (unsigned i = 0; i < GATE_REASON_WORDS; i++)
		store64(&w->reasons[i], reasons[i]);
	w->per_s = per_s;
	store64(&w->until, until_ms * GATE_NS_PER_MS);
	return 0;
}

int gate_dp_samples(struct gate_dp *dp, unsigned max, void (*cb)(const struct gate_dropped *d, void *arg), void *arg)
{
	struct taking t = {.dp = dp, .cb = cb, .arg = arg, .left = max};

	return max > 0 ? consume(dp, &t) : 0;
}
