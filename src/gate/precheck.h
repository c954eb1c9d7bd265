/* SPDX-License-Identifier: Apache-2.0 */
/** \file What `walnut-gate --check` says of the machine: all that would keep the packet path from working, before anything is touched. */
#pragma once

#include "gate/config.h"

enum gate_finding {
	GATE_FINDING_WRONG, /* the gate would not start, or would not carry traffic */
	GATE_FINDING_NOTE,  /* worth knowing, or not to be seen from here */
};

/** Calls `say` for each finding, with the file's key that it is about. Sets nothing, makes nothing. \return how many are
 * GATE_FINDING_WRONG. */
unsigned gate_precheck(const struct gate_config *cfg, void (*say)(enum gate_finding kind, const char *key, const char *text, void *arg),
		       void *arg);
/** The part of it that says whether frames get from one interface to the other and through: none of that stops a start. */
unsigned gate_precheck_frames(const struct gate_config *cfg,
			      void (*say)(enum gate_finding kind, const char *key, const char *text, void *arg), void *arg);
