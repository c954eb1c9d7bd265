/* SPDX-License-Identifier: Apache-2.0 */
/** \file The packet path compiled for user space as a walk's subject. Time is exact. */
#pragma once

#include "gate_walk.h"

extern const struct walk_subject walk_user;
