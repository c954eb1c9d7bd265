/* SPDX-License-Identifier: Apache-2.0 */
/** \file The programs that the kernel runs, as the walk's subject: BPF_PROG_TEST_RUN, the real loader, grants.c and sweep.c. */
#pragma once

#include "gate_walk.h"

/** Loads the programs in a network namespace of the process's own. \return false without root: then there is nothing to walk. */
bool walk_kernel_up(void);
void walk_kernel_down(void);
/** After walk_firewall() or walk_six(): the programs are loaded anew, for that. */
void walk_kernel_again(void);
extern const struct walk_subject walk_kernel;
