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
}

const struct front_service *front_policy_service(const struct front_policy *p, struct span name)
{
	struct front_service key;
	const struct front_service *s = NULL;

	if (p->nservices == 0)
		return NULL;
	if (name.p != NULL && span_cstr(name, key.name, sizeof(key.name)) == 0)
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
