/* SPDX-License-Identifier: Apache-2.0 */
/* Records between agent, gate and map writer: there is one spelling of each, so what is decoded encodes to the same bytes; and the writer's
 * check of a struct lets nothing pass that the wire would not carry. */
#include <errno.h>
#include <string.h>

#include "fuzz.h"
#include "gate/record.h"

_Static_assert(GATE_REQUEST_BYTES == GATE_REPLY_BYTES, "one input serves for both");

static void request(const uint8_t in[static GATE_REQUEST_BYTES])
{
	uint8_t again[GATE_REQUEST_BYTES];
	struct gate_request r, zero = {0};

	if (gate_request_decode(in, &r) == 0) {
		CHECK(gate_request_check(&r) == 0 && r.tenant == 0);
		gate_request_encode(&r, again);
		CHECK(memcmp(in, again, sizeof(again)) == 0);
	} else {
		CHECK(r.op < GATE_OPS);
		zero.op = r.op;
		zero.seq = r.seq;
		CHECK(memcmp(&r, &zero, sizeof(r)) == 0);
	}
}

static void reply(const uint8_t in[static GATE_REPLY_BYTES])
{
	uint8_t again[GATE_REPLY_BYTES];
	struct gate_reply r;

	if (gate_reply_decode(in, &r) == 0) {
		CHECK(r.op < GATE_OPS && strcmp(gate_status_name(r.status), "unknown") != 0);
		CHECK(memchr(r.user, 0, sizeof(r.user)) != NULL);
		gate_reply_encode(&r, again);
		CHECK(memcmp(in, again, sizeof(again)) == 0);
	}
}

static void between_the_processes(const uint8_t in[static GATE_REQUEST_BYTES])
{
	uint8_t wire[GATE_REQUEST_BYTES], again[GATE_REQUEST_BYTES];
	struct gate_request r, o;

	memcpy(&r, in, sizeof(r));
	if (gate_request_check(&r) == 0) {
		gate_request_encode(&r, wire);
		CHECK(gate_request_decode(wire, &o) == 0);
		CHECK(r.op == o.op && r.seq == o.seq && r.hole == o.hole && r.lifetime_s == o.lifetime_s);
		gate_request_encode(&o, again);
		CHECK(memcmp(wire, again, sizeof(wire)) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	uint8_t in[GATE_REQUEST_BYTES] = {0};

	if (n != 0)
		memcpy(in, data, n < sizeof(in) ? n : sizeof(in));
	request(in);
	reply(in);
	between_the_processes(in);
	return 0;
}
