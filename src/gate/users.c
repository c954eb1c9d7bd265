/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gate/path.h"
#include "gate/users.h"

#define NONE 0 /* place 0 is nobody's, so it ends chains too */

/* Who has a place in `users`. One whose last hole has closed keeps it until another needs it: who comes back finds the bucket as it was. */
struct place {
	uint32_t tenant, holes;
	uint64_t since_ms; /* free, from then on */
	uint32_t next;     /* of the same hash */
	uint32_t older, newer;
	char name[GATE_USER_MAX + 1]; /* "": nobody yet */
};

struct gate_users {
	struct gate_user *shared;
	uint32_t n;              /* places 1 to n */
	uint32_t oldest, newest; /* of those without a hole */
	uint32_t *chain, mask;
	uint8_t key[crypto_shorthash_KEYBYTES]; /* names are the tenants' to choose */
	struct place place[];
};

static uint32_t *chain_of(struct gate_users *u, uint32_t tenant, const char *name)
{
	struct {
		uint32_t tenant;
		char name[GATE_USER_MAX + 1];
	} in = {.tenant = tenant};
	uint64_t h;

	memcpy(in.name, name, strnlen(name, GATE_USER_MAX));
	crypto_shorthash((uint8_t *)&h, (const uint8_t *)&in, sizeof(in), u->key);
	return &u->chain[h & u->mask];
}

static uint32_t find(struct gate_users *u, uint32_t tenant, const char *name)
{
	for (uint32_t i = *chain_of(u, tenant, name); i != NONE; i = u->place[i].next)
		if (u->place[i].tenant == tenant && strncmp(u->place[i].name, name, GATE_USER_MAX) == 0)
			return i;
	return NONE;
}

static void unchain(struct gate_users *u, uint32_t at)
{
	struct place *p = &u->place[at];
	uint32_t *link;

	if (p->name[0] == '\0')
		return;
	for (link = chain_of(u, p->tenant, p->name); *link != at; link = &u->place[*link].next)
		;
	*link = p->next;
	p->name[0] = '\0';
}

static void give(struct gate_users *u, uint32_t at, uint32_t tenant, const char *name)
{
	struct place *p = &u->place[at];
	uint32_t *chain = chain_of(u, tenant, name);

	p->tenant = tenant;
	memcpy(p->name, name, strnlen(name, GATE_USER_MAX));
	p->name[strnlen(name, GATE_USER_MAX)] = '\0';
	p->next = *chain;
	*chain = at;
}

static void free_add(struct gate_users *u, uint32_t at, uint64_t now_ms)
{
	struct place *p = &u->place[at];

	p->since_ms = now_ms;
	p->newer = NONE;
	p->older = u->newest;
	if (u->newest != NONE)
		u->place[u->newest].newer = at;
	else
		u->oldest = at;
	u->newest = at;
}

static void free_remove(struct gate_users *u, uint32_t at)
{
	const struct place *p = &u->place[at];

	if (p->older != NONE)
		u->place[p->older].newer = p->newer;
	else
		u->oldest = p->newer;
	if (p->newer != NONE)
		u->place[p->newer].older = p->older;
	else
		u->newest = p->older;
}

int gate_users_new(struct gate_user *shared, uint32_t n, struct gate_users **out)
{
	struct gate_users *u = calloc(1, sizeof(*u) + ((size_t)n + 1) * sizeof(u->place[0]));
	uint32_t chains = 16;

	*out = NULL;
	while (chains < n)
		chains *= 2;
	if (u != NULL)
		u->chain = calloc(chains, sizeof(*u->chain));
	if (u == NULL || u->chain == NULL) {
		free(u);
		return -ENOMEM;
	}
	u->shared = shared;
	u->n = n;
	u->mask = chains - 1;
	randombytes_buf(u->key, sizeof(u->key));
	for (uint32_t i = 1; i <= n; i++)
		free_add(u, i, 0);
	*out = u;
	return 0;
}

void gate_users_free(struct gate_users *u)
{
	if (u == NULL)
		return;
	free(u->chain);
	free(u);
}

uint32_t gate_users_take(struct gate_users *u, uint32_t tenant, const char *name, uint64_t now_ms)
{
	uint32_t at = find(u, tenant, name);

	if (at == NONE) {
		at = u->oldest;
		if (at == NONE || now_ms - u->place[at].since_ms < GATE_SLOT_REST_MS)
			return 0;
		unchain(u, at);
		give(u, at, tenant, name);
		store64(&u->shared[at].byte_due, 0);
		store64(&u->shared[at].packet_due, 0);
	}
	if (u->place[at].holes++ == 0)
		free_remove(u, at);
	return at;
}

void gate_users_release(struct gate_users *u, uint32_t at, uint64_t now_ms)
{
	if (at == 0 || at > u->n || u->place[at].holes == 0)
		return;
	if (--u->place[at].holes == 0)
		free_add(u, at, now_ms);
}

bool gate_users_adopt(struct gate_users *u, uint32_t at, uint32_t tenant, const char *name)
{
	uint32_t has;

	if (at == 0 || at > u->n || name[0] == '\0')
		return false;
	has = find(u, tenant, name);
	if (has != (u->place[at].name[0] == '\0' ? NONE : at))
		return false;
	if (has == NONE)
		give(u, at, tenant, name);
	if (u->place[at].holes++ == 0)
		free_remove(u, at);
	return true;
}
