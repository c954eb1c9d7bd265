/* SPDX-License-Identifier: Apache-2.0 */
#include "front/policy.h"

#include <stdlib.h>
#include <string.h>

#include "front/flow.h"

static int order(const void *a, const void *b)
{
	return strcmp(((const struct front_service *)a)->name, ((const struct front_service *)b)->name);
}

void front_policy_sort(struct front_policy *p)
{
	qsort(p->service, p->nservices, sizeof(p->service[0]), order);
	p->proves = p->agent;
	for (unsigned i = 0; i < p->nservices; i++)
		p->proves |= p->service[i].authenticate;
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* RFC 3261 19.1.4: an escaped character is that character, and whoever comes behind us may read it so. False: longer than any name. */
static bool unescape(struct span s, char to[static FRONT_SERVICE_MAX + 1])
{
	size_t n = 0;

	for (size_t i = 0; i < s.n; i++) {
		int high = s.p[i] == '%' && s.n - i > 2 ? digit(s.p[i + 1]) : -1, low = high >= 0 ? digit(s.p[i + 2]) : -1;

		if (n == FRONT_SERVICE_MAX)
			return false;
		to[n++] = (char)(low >= 0 ? high << 4 | low : s.p[i]);
		if (low >= 0)
			i += 2;
	}
	to[n] = 0;
	return true;
}

const struct front_service *front_policy_service(const struct front_policy *p, struct span name)
{
	struct front_service key = {.name = ""};
	const struct front_service *s = NULL;

	if (p->nservices == 0)
		return NULL;
	if (name.p != NULL && unescape(name, key.name))
		s = bsearch(&key, p->service, p->nservices, sizeof(p->service[0]), order);
	/* '*' sorts before every character that a name may have */
	return s != NULL ? s : p->service[0].name[0] == '*' ? &p->service[0] : NULL;
}

const char *front_transport_via(enum front_transport t)
{
	static const char *const name[FRONT_TRANSPORTS] = {"UDP", "TCP", "TLS"};
	return name[t];
}

const char *front_transport_name(enum front_transport t)
{
	static const char *const name[FRONT_TRANSPORTS] = {"udp", "tcp", "tls"};
	return name[t];
}
