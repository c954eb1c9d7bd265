/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the configuration file alone cannot say: whether the machine has what it names. Each thing that is wrong is one line on
 * stderr, FILE:LINE: KEY: what is wrong and what would be right; all of them, not only the first. */
#pragma once

#include <stdio.h>

#include "front/config.h"

/** The files: keys, certificate and its key, state. notes: where what is only worth knowing goes, or NULL.
 * \return 0 or -EINVAL. */
int front_check_files(const char *file, const struct front_config *c, FILE *notes);

/** The user, and whether this host has the addresses. Whether their ports are free is seen at the start. \return 0 or -EINVAL. */
int front_check_machine(const char *file, const struct front_config *c);
