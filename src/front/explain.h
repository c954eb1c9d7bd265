/* SPDX-License-Identifier: Apache-2.0 */
/** \file What each outcome means to a person, and what to do about it. For `walnut why`, which knows outcomes by name. */
#pragma once

#include "front/core.h"

struct front_explanation {
	const char *what; /* a sentence */
	const char *mend; /* what to do, a sentence; NULL: nothing, it is as it should be */
};

/** Never NULL, and neither is its `what`. */
const struct front_explanation *front_explain(enum front_outcome o);
/** \return the outcome of that name, or -1. */
int front_outcome_find(const char *name);
