/* SPDX-License-Identifier: Apache-2.0 */
/* The packet path in memory, for tests of what stands in front of it: the same contract (gate/dataplane.h), no kernel. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "gate/dataplane.h"

struct hole {
	struct gate_request r;
	uint64_t id, until_ms;
	uint16_t port;
};

struct gate_dp {
	const struct gate_config *cfg;
	struct hole *hole;
	unsigned n, next_port;
	uint64_t next_id, applied, sweeps;
	uint32_t used[GATE_TENANTS_MAX];
	bool drain;
	uint64_t traced_until_ms, reasons[GATE_REASON_WORDS];
};

int gate_dp_open(const struct gate_config *cfg, struct gate_dp **out)
{
	struct gate_dp *dp = calloc(1, sizeof(*dp));

	if (dp == NULL)
		return -ENOMEM;
	dp->cfg = cfg;
	dp->hole = calloc(cfg->holes, sizeof(dp->hole[0]));
	dp->next_id = 1000;
	dp->next_port = cfg->port_low;
	*out = dp;
	return dp->hole != NULL ? 0 : -ENOMEM;
}

void gate_dp_close(struct gate_dp *dp)
{
	free(dp->hole);
	free(dp);
}

int gate_dp_remove(const struct gate_config *cfg)
{
	(void)cfg;
	return 0;
}

static uint8_t open_hole(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, struct gate_reply *a)
{
	const struct gate_tenant *t = &dp->cfg->tenant[r->tenant];
	bool mine = false;
	struct hole *h;

	for (unsigned i = 0; i < t->nprefix; i++)
		mine = mine || wn_prefix_has(&t->prefix[i], &r->inside);
	if (!mine)
		return GATE_NOT_YOURS;
	if (dp->drain)
		return GATE_DRAINING;
	if (dp->used[r->tenant] >= t->holes)
		return GATE_QUOTA;
	if (dp->n == dp->cfg->holes)
		return GATE_FULL;
	h = &dp->hole[dp->n++];
	h->r = *r;
	h->id = dp->next_id++;
	h->until_ms = now_ms + 1000ull * r->lifetime_s;
	h->port = (uint16_t)dp->next_port++;
	dp->used[r->tenant]++;
	a->hole = h->id;
	a->cookie = r->cookie;
	a->flags = r->flags;
	a->inside = r->inside;
	a->remote = r->remote;
	memcpy(a->user, r->user, sizeof(a->user));
	a->public = dp->cfg->public[0];
	a->public.port = h->port;
	a->lifetime_s = r->lifetime_s;
	return GATE_OK;
}

static uint8_t change_hole(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, struct gate_reply *a)
{
	/* The newest first: the tests' usual one. */
	for (unsigned i = dp->n; i-- > 0;) {
		struct hole *h = &dp->hole[i];

		if (h->id != r->hole || h->until_ms <= now_ms)
			continue;
		if (h->r.tenant != r->tenant)
			return GATE_NOT_YOURS;
		a->hole = h->id;
		if (r->op == GATE_RENEW) {
			h->until_ms = now_ms + 1000ull * r->lifetime_s;
			a->lifetime_s = r->lifetime_s;
		} else {
			dp->used[r->tenant]--;
			*h = dp->hole[--dp->n];
		}
		return GATE_OK;
	}
	return GATE_NO_HOLE;
}

void gate_dp_apply(struct gate_dp *dp, const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply)
{
	memset(reply, 0, sizeof(*reply));
	reply->op = r->op;
	reply->seq = r->seq;
	if (r->op == GATE_PING) {
		reply->hole = 77;
		return;
	}
	dp->applied++;
	reply->proto = r->proto;
	reply->status = r->op == GATE_OPEN ? open_hole(dp, r, now_ms, reply) : change_hole(dp, r, now_ms, reply);
}

int gate_dp_each(struct gate_dp *dp, uint32_t tenant, uint64_t now_ms, int (*cb)(const struct gate_reply *hole, void *arg), void *arg)
{
	for (unsigned i = 0; i < dp->n; i++) {
		const struct hole *h = &dp->hole[i];
		struct gate_reply a = {.proto = h->r.proto,
				       .flags = h->r.flags,
				       .hole = h->id,
				       .cookie = h->r.cookie,
				       .inside = h->r.inside,
				       .remote = h->r.remote,
				       .public = dp->cfg->public[0],
				       .lifetime_s = (uint32_t)((h->until_ms - now_ms) / 1000),
				       .packets = 1,
				       .bytes = 2};
		int rc;

		if (h->until_ms <= now_ms || (tenant != UINT32_MAX && tenant != h->r.tenant))
			continue;
		a.public.port = h->port;
		memcpy(a.user, h->r.user, sizeof(a.user));
		rc = cb(&a, arg);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int gate_dp_fd(const struct gate_dp *dp)
{
	(void)dp;
	return -1;
}

void gate_dp_events(struct gate_dp *dp)
{
	(void)dp;
}

void gate_dp_sweep(struct gate_dp *dp, uint64_t now_ms)
{
	(void)now_ms;
	dp->sweeps++;
}

int gate_dp_counters(struct gate_dp *dp, void (*cb)(const char *name, int is_drop, uint64_t value, void *arg), void *arg)
{
	cb("no_hole", 1, 7, arg);
	cb("fragment", 1, 3, arg);
	cb("to_service", 0, dp->applied, arg);
	cb("flows", 0, 5, arg);
	cb("sweeps", 0, dp->sweeps, arg);
	cb("draining", 0, dp->drain, arg);
	return 0;
}

void gate_dp_drain(struct gate_dp *dp, bool on)
{
	dp->drain = on;
}

bool gate_dp_draining(const struct gate_dp *dp)
{
	return dp->drain;
}

int gate_dp_trace(struct gate_dp *dp, const uint64_t reasons[GATE_REASON_WORDS], uint32_t per_s, bool fresh, uint64_t until_ms)
{
	(void)fresh;
	memcpy(dp->reasons, reasons, sizeof(dp->reasons));
	dp->traced_until_ms = per_s != 0 ? until_ms : 0;
	return 0;
}

/* As many as are asked for, of the lowest reason that is wanted. */
int gate_dp_samples(struct gate_dp *dp, unsigned max, void (*cb)(const struct gate_dropped *d, void *arg), void *arg)
{
	struct gate_dropped d = {.length = 60, .ethertype = 0x0800, .ip = 4, .proto = IPPROTO_UDP, .src = dp->cfg->public[0]};

	if (dp->traced_until_ms == 0)
		return 0;
	while (d.reason < 64 * GATE_REASON_WORDS && (dp->reasons[d.reason / 64] >> (d.reason % 64) & 1) == 0)
		d.reason++;
	d.dst = d.src;
	for (d.src.port = 1; d.src.port <= max; d.src.port++)
		cb(&d, arg);
	return 0;
}
