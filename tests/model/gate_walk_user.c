/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_walk_user.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gate/path.h"
#include "gate_draws.h"
#include "gate_user_map.h"

#define START (1000 * GATE_NS_PER_S)

static void seed(uint64_t v)
{
	gate_draws_seed(v);
	gate_user_random = v;
}

static bool reset(void)
{
	const struct gm_net *net = walk_net();
	static struct gate_config cfg;
	struct gate_user_net n = {.self = htonl(net->self_ip[GM_OUTSIDE]),
				  .lan = htonl(net->lan),
				  .lan_mask = htonl(0xffffff00),
				  .wan = htonl(net->wan),
				  .wan_mask = htonl(0xffffff00),
				  .gateway = htonl(net->gateway),
				  .mtu = net->mtu,
				  .nhops = net->nhops};

	gate_draws_seeded();
	if (sodium_init() < 0)
		return false;
	memcpy(n.mac, net->mac, sizeof(n.mac));
	for (unsigned i = 0; i < net->nhops; i++) {
		n.hop[i].ip = htonl(net->hop[i].ip);
		memcpy(n.hop[i].mac, net->hop[i].mac, 6);
	}
	walk_config(&cfg);
	gate_user_open(&cfg, &n);
	gate_user_clock = START;
	return true;
}

static void apply(const struct gate_request *r, uint64_t now_ms, struct gate_reply *reply)
{
	gate_dp_apply(gate_user_dp, r, now_ms, reply);
}

static void sweep(uint64_t now_ms)
{
	gate_dp_sweep(gate_user_dp, now_ms);
}

static int run(int side, const uint8_t *in, size_t n, uint8_t *out, size_t *nout, const char **counted)
{
	int verdict;

	gate_user_refill();
	verdict = gate_user_run(side, in, n, out, nout);
	*counted = gate_user_counted();
	gate_user_clock += 1 + gate_user_clock % 997;
	return verdict;
}

static uint64_t now(void)
{
	return gate_user_clock;
}

static void pass(uint64_t ns)
{
	gate_user_clock += ns;
}

static bool hole(uint64_t id, struct gate_hole *out)
{
	return gate_hole_read(gate_user_dp, GATE_HOLE_INDEX(id), out);
}

static bool session(const struct gm_session *s, struct gate_flow *out)
{
	const struct gate_key k = {.local_ip = htonl(s->inside_ip),
				   .remote_ip = htonl(s->remote_ip),
				   .local_port = htons(s->inside_port),
				   .remote_port = htons(s->remote_port),
				   .proto = s->proto};
	const struct gate_flow *f = gate_user_map_lookup(GATE_USER_FLOWS, &k);

	if (f == NULL)
		return false;
	*out = *f;
	return GATE_OWNER_KIND(out->owner) == GATE_FLOW_SESSION;
}

const struct walk_subject walk_user = {.reset = reset,
				       .seed = seed,
				       .apply = apply,
				       .sweep = sweep,
				       .run = run,
				       .now = now,
				       .pass = pass,
				       .hole = hole,
				       .session = session,
				       .look_at = 1};
