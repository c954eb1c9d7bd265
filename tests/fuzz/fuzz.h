/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the fuzz targets share: an invariant that stops the run, and whether a span lies where it may. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define CHECK(what)                                                                        \
	do {                                                                               \
		if (!(what)) {                                                             \
			fprintf(stderr, "%s:%d: broken: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                           \
		}                                                                          \
	} while (0)

/** An absent span lies anywhere. */
static inline bool inside(struct span s, struct span in)
{
	return s.p == NULL ? s.n == 0 : s.p >= in.p && s.n <= in.n && (size_t)(s.p - in.p) <= in.n - s.n;
}

/** Cuts n bytes off the front, or as many as there are. */
static inline struct span take(struct span *in, size_t n)
{
	struct span s = span_of(in->p, n < in->n ? n : in->n);

	*in = span_of(in->p + s.n, in->n - s.n);
	return s;
}
