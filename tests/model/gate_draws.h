/* SPDX-License-Identifier: Apache-2.0 */
/** \file What user space draws of a gate under test, from a seed. */
#pragma once

#include <stdint.h>

/** libsodium's random numbers are the seed's from now on. Before sodium_init. */
void gate_draws_seeded(void);
void gate_draws_seed(uint64_t seed);
