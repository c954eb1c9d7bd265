/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_draws.h"

#include <sodium.h>
#include <stddef.h>

static uint64_t drawn;

static const char *name(void)
{
	return "seeded";
}

static uint32_t next(void)
{
	drawn = drawn * 6364136223846793005ull + 1442695040888963407ull;
	return (uint32_t)(drawn >> 32);
}

static void bytes(void *const buf, const size_t n)
{
	for (size_t i = 0; i < n; i++)
		((uint8_t *)buf)[i] = (uint8_t)next();
}

static struct randombytes_implementation seeded = {.implementation_name = name, .random = next, .buf = bytes};

void gate_draws_seeded(void)
{
	randombytes_set_implementation(&seeded);
}

void gate_draws_seed(uint64_t seed)
{
	drawn = seed;
}
