/* SPDX-License-Identifier: Apache-2.0 */
/** \file What the gate's two processes say to each other: datagrams of a SOCK_SEQPACKET pair, each an array of 1 to GATE_IPC_BATCH records.
 *
 * The parser asks, the writer answers every datagram record by record and in order. Records have a fixed size and no pointers; the writer
 * trusts none of their fields. */
#pragma once

#include <stdint.h>

#include "gate/config.h"
#include "gate/reason.h"
#include "gate/record.h"

#define GATE_IPC_BATCH 64

enum gate_ipc_kind {
	GATE_IPC_APPLY = 1, /* r; one answer. CLOSE with GATE_IPC_ALL: whoever's hole it is */
	GATE_IPC_REFUSE,    /* answered with `status`: keeps the order of a connection's answers when the parser itself says no */
	GATE_IPC_LIST, /* r.tenant, or GATE_IPC_ALL; r.hole: only that one, 0: all; at most GATE_IPC_BATCH holes, then one with GATE_END
			  (GATE_FAILED) when that was all */
	GATE_IPC_NEXT, /* goes on with the tenant's list, answered likewise. A tenant has one list at a time, a new LIST ends the old one */
	GATE_IPC_COUNTERS, /* one answer a counter, then one without a name */
	GATE_IPC_DRAIN,    /* on; one answer */
	GATE_IPC_TRACE, /* trace: samples go on for GATE_TRACE_LEASE_MS; at most GATE_IPC_SAMPLES of those there are, then one with a status
			 */
};

#define GATE_IPC_ALL        UINT32_MAX /* every tenant: for the operator */
#define GATE_IPC_SAMPLES    256
#define GATE_TRACE_LEASE_MS 2000

struct gate_ipc_trace {
	uint64_t reasons[GATE_REASON_WORDS]; /* a bit each */
	uint32_t per_s;                      /* a CPU; 0: no more */
	uint32_t fresh;                      /* 1: another trace begins; what is left of an earlier one is forgotten */
};

struct gate_ipc_request {
	uint32_t kind;
	uint32_t status;
	uint64_t token; /* comes back */
	union {
		struct gate_request r;
		struct gate_ipc_trace trace;
		uint32_t on;
	};
};

struct gate_ipc_counter {
	uint64_t value;
	uint32_t is_drop;
	char name[52];
};

struct gate_ipc_reply {
	uint32_t kind;
	uint32_t last; /* 1: the request is answered; a list's without GATE_END goes on with GATE_IPC_NEXT */
	uint64_t token;
	union {
		struct gate_reply r;
		struct gate_ipc_counter counter;
		struct gate_dropped dropped;
	};
};

_Static_assert(sizeof(struct gate_ipc_request) == 16 + 192, "record between the processes");
_Static_assert(sizeof(struct gate_ipc_reply) == 16 + 176, "record between the processes");
