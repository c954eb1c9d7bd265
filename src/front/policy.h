/* SPDX-License-Identifier: Apache-2.0 */
/** \file What configuration says of a tenant. Pure; never changed once it is published. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"

#define FRONT_TENANTS_MAX  256
#define FRONT_WORKERS_MAX  64
#define FRONT_SERVICES_MAX 256
#define FRONT_SERVICE_MAX  63 /* characters of a service's name */
#define FRONT_HOPS_MAX     32
#define FRONT_HOP_AGENT    0u

/** A service that is not the agent's. */
struct front_service {
	char name[FRONT_SERVICE_MAX + 1]; /* "*": any that has no entry of its own */
	unsigned hop;                     /* from 1 */
	bool authenticate;
};

struct front_policy {
	bool sha256, md5;   /* algorithms that are offered and taken */
	bool agent;         /* whether an agent may register */
	bool proves;        /* whether some service asks for proof; front_policy_sort finds out */
	uint32_t max_calls; /* transactions of all workers together */
	uint32_t user_calls_per_s, service_calls_per_s;
	unsigned nservices;
	struct front_service service[FRONT_SERVICES_MAX]; /* front_policy_sort has put them in order */
};

/** Orders the services for front_policy_service, and sets `proves`. */
void front_policy_sort(struct front_policy *p);
/** The service of that name, else the entry "*", else NULL: it is the agent's. */
const struct front_service *front_policy_service(const struct front_policy *p, struct span name);
