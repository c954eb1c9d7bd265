/* SPDX-License-Identifier: Apache-2.0 */
/** \file The map writer: takes records from the parser, checks each as if the parser were hostile, carries them out, and keeps the packet
 * path's house (events, expiry). One thread, nothing but poll, recv and send beside what the packet path does. */
#pragma once

#include "gate/config.h"
#include "gate/dataplane.h"

#define GATE_SWEEP_MS 1000

/** Serves until the end. `parser` is the non-blocking end of the pair; `stop` becomes readable when it is time to end (-1: never). Neither
 * is closed. \return 0 stop; -EPIPE the parser has gone; -EPROTO it sent what is no record; another negative errno. */
int gate_writer_run(const struct gate_config *cfg, struct gate_dp *dp, int parser, int stop);
