/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file The programs for IPv6: the same logic, compiled again, and linked to the tables of the first. */
#define GATE_FAMILY 6
#include "gate/bpf/gate.bpf.c"
