/* SPDX-License-Identifier: Apache-2.0 */
#include "client/nonces.h"

#include <string.h>

static void drop(struct nonces *c, unsigned i)
{
	memmove(&c->at[i], &c->at[i + 1], (c->n - i - 1) * sizeof(c->at[0]));
	c->n--;
}

static bool of_domain(const char *realm, const char *domain)
{
	size_t n = strlen(domain);

	return strncmp(realm, domain, n) == 0 && realm[n] == '/';
}

void nonces_put(struct nonces *c, const struct wn_addr *front, const struct wn_addr *local, const char *user,
		const struct signin_nonce *nonce, uint64_t now_ms)
{
	struct nonces_entry *e;

	if (nonce->nonce[0] == '\0')
		return;
	if (c->n == NONCES_MAX)
		drop(c, 0);
	e = &c->at[c->n];
	*e = (struct nonces_entry){.front = *front, .local = *local, .at_ms = now_ms, .nonce = *nonce};
	if (span_cstr(span_str(user), e->user, sizeof(e->user)) == 0)
		c->n++;
}

bool nonces_take(struct nonces *c, const struct wn_addr *front, const struct wn_addr *local, const char *user, const char *domain,
		 uint64_t now_ms, struct signin_nonce *out)
{
	while (c->n > 0 && now_ms - c->at[0].at_ms >= NONCES_AGE_MS)
		drop(c, 0);
	for (unsigned i = c->n; i-- > 0;) {
		const struct nonces_entry *e = &c->at[i];

		if (wn_addr_eq(&e->front, front) && wn_ip_eq(&e->local, local) && strcmp(e->user, user) == 0 &&
		    of_domain(e->nonce.realm, domain)) {
			*out = e->nonce;
			drop(c, i);
			return true;
		}
	}
	return false;
}
