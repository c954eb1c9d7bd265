/* SPDX-License-Identifier: Apache-2.0 */
#include "front/reload.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

/* What needs a restart, in a sentence. */
struct restart {
	char text[512];
	size_t n;
};

static void add(struct restart *s, const char *what, const char *of)
{
	int k = snprintf(s->text + s->n, sizeof(s->text) - s->n, "%s%s%s%s%s", s->n > 0 ? ", " : "", what, of[0] != 0 ? " (" : "", of,
			 of[0] != 0 ? ")" : "");

	if (k > 0 && (size_t)k < sizeof(s->text) - s->n)
		s->n += (size_t)k;
}

static bool same_listeners(const struct front_config *a, const struct front_config *b)
{
	bool same = wn_addr_eq(&a->listen, &b->listen) && a->nalso == b->nalso;

	for (unsigned i = 0; same && i < a->nalso; i++)
		same = a->also_listen[i].transport == b->also_listen[i].transport &&
		       wn_addr_eq(&a->also_listen[i].addr, &b->also_listen[i].addr);
	return same;
}

static void compare(const struct front_config *a, const struct front_config *b, struct restart *s)
{
	if (!same_listeners(a, b))
		add(s, "listen, also_listen", "");
	if (a->has_agents && b->has_agents && !wn_addr_eq(&a->agents, &b->agents))
		add(s, "agents", "");
	if (strcmp(a->keys, b->keys) != 0)
		add(s, "keys", "");
	if (strcmp(a->tls_certificate, b->tls_certificate) != 0 || strcmp(a->tls_key, b->tls_key) != 0)
		add(s, "tls_certificate, tls_key", "");
	if (strcmp(a->state, b->state) != 0)
		add(s, "state", "");
	if (a->has_metrics != b->has_metrics || (a->has_metrics && !wn_addr_eq(&a->metrics, &b->metrics)))
		add(s, "metrics", "");
	if (strcmp(a->socket, b->socket) != 0)
		add(s, "socket", "");
	if (strcmp(a->user, b->user) != 0)
		add(s, "user", "");
	if (a->threads != b->threads)
		add(s, "threads", "");
	if (a->nonce_lifetime_s != b->nonce_lifetime_s || a->nonce_ring_bits != b->nonce_ring_bits)
		add(s, "nonce_lifetime_s, nonce_ring_bits", "");
	if (a->strangers_max != b->strangers_max || a->strangers_per_s != b->strangers_per_s)
		add(s, "strangers_max, strangers_per_s", "");
}

static const struct front_tenant_config *find(const struct front_config *c, const char *domain)
{
	for (unsigned i = 0; i < c->ntenants; i++)
		if (strcmp(c->tenant[i].domain, domain) == 0)
			return &c->tenant[i];
	return NULL;
}

/* The workers have trunks to these alone. */
static unsigned known_hop(const struct front_shared *sh, const struct front_address *a)
{
	for (unsigned i = 1; i <= atomic_load(&sh->nhops); i++)
		if (sh->hop[i].transport == a->transport && wn_addr_eq(&sh->hop[i].addr, &a->addr))
			return i;
	return 0;
}

/* What a tenant has from now on. */
static void merge(const struct front_shared *sh, const struct front_tenant_config *old, const struct front_tenant_config *fresh,
		  struct front_tenant_config *to, struct restart *s)
{
	bool known = true;

	*to = *fresh;
	if (old->has_agent != fresh->has_agent || memcmp(&old->agent_pin, &fresh->agent_pin, sizeof(old->agent_pin)) != 0) {
		add(s, "agent_pin", fresh->domain);
		to->has_agent = old->has_agent;
		to->agent_pin = old->agent_pin;
		to->policy.agent = old->policy.agent;
	}
	for (unsigned i = 0; i < to->policy.nservices; i++) {
		to->policy.service[i].hop = known_hop(sh, &fresh->route[fresh->policy.service[i].hop - 1]);
		known = known && to->policy.service[i].hop != 0;
	}
	if (!known) {
		add(s, "a new route", fresh->domain);
		to->policy.nservices = old->policy.nservices;
		memcpy(to->policy.service, old->policy.service, sizeof(to->policy.service));
	}
}

int front_reload_apply(const struct front_reload *r, struct front_config *fresh, void (*read_turns)(void *arg, uint64_t *turn), void *arg)
{
	struct front_tenant_config *tenants = calloc(r->config->ntenants, sizeof(*tenants)), *before = r->config->tenant;
	uint64_t turn[FRONT_WORKERS_MAX];
	struct restart s = {.n = 0};

	if (tenants == NULL) {
		front_config_free(fresh);
		return -ENOMEM;
	}
	compare(r->config, fresh, &s);
	for (unsigned i = 0; i < fresh->ntenants; i++)
		if (find(r->config, fresh->tenant[i].domain) == NULL)
			add(&s, "a new tenant", fresh->tenant[i].domain);
	for (unsigned i = 0; i < r->config->ntenants; i++) {
		const struct front_tenant_config *now = find(fresh, before[i].domain);
		struct front_tenant *t = &r->shared->tenant[i];

		if (now != NULL)
			merge(r->shared, &before[i], now, &tenants[i], &s);
		else
			tenants[i] = before[i];
		atomic_store(&t->policy, &tenants[i].policy);
		atomic_store(&t->gone, now == NULL);
	}
	r->config->tenant = tenants;
	r->config->drain_s = fresh->drain_s;
	r->config->feed_max_age_s = fresh->feed_max_age_s;
	atomic_store(&r->shared->feed_max_age_s, fresh->feed_max_age_s);
	for (unsigned i = 0; i < r->config->ntenants; i++)
		if (atomic_load(&r->shared->tenant[i].gone))
			front_relay_forget(r->relay, i);
	read_turns(arg, turn);
	if (front_grace_retire(r->grace, before, free, turn, r->nworkers) != 0)
		wn_warn("out of memory: the old configuration is not freed");
	if (s.n > 0)
		wn_warn("needs a restart, and stays as it was: %s", s.text);
	front_config_free(fresh);
	return 0;
}
