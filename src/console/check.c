/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config.h"
#include "base/config.h"
#include "console/call.h"
#include "console/verbs.h"
#include "front/config.h"
#include "gate/config.h"

#define USAGE "check FILE"

static int check_front(const char *file)
{
	struct front_config c;
	int rc = front_config_load(file, &c);

	if (rc == 0)
		front_config_free(&c);
	return rc;
}

static int check_agent(const char *file)
{
	struct agent_config c;
	int rc = agent_config_load(file, &c);

	if (rc == 0)
		agent_config_free(&c);
	return rc;
}

static int check_gate(const char *file)
{
	struct gate_config *c = (struct gate_config *)calloc(1, sizeof(*c));
	int rc = c == NULL ? -ENOMEM : gate_config_load(file, c);

	free(c);
	return rc;
}

/* Whose file it is: the one of whose own keys, which no other part's file has, it has the most. */
static const struct {
	const char *role;
	const char *keys[8];
	int (*check)(const char *file);
} part[] = {
	{"front", {"listen", "agents", "threads", "nonce_lifetime_s", "nonce_ring_bits", "feed_max_age_s"}, check_front},
	{"agent", {"domain", "database", "services", "fronts", "gate", "enrol_fronts"}, check_agent},
	{"gate", {"outside", "inside", "control", "mappings", "flows"}, check_gate},
};

#define PARTS (sizeof(part) / sizeof(part[0]))

int cmd_check(int argc, char **argv)
{
	struct call_options o;
	unsigned best = 0;
	size_t whose = 0;
	int rc = call_options("check", USAGE, argc, argv, 0, 1, 1, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	for (size_t i = 0; i < PARTS; i++) {
		unsigned score = 0;

		for (size_t k = 0; k < sizeof(part[i].keys) / sizeof(part[i].keys[0]) && part[i].keys[k] != NULL; k++) {
			rc = wn_config_has(o.args[0], part[i].keys[k]);
			if (rc < 0)
				return 2; /* a line has been printed */
			score += (unsigned)rc;
		}
		if (score > best) {
			best = score;
			whose = i;
		}
	}
	if (best == 0) {
		wn_config_bad(o.args[0], "", "has no key of a front's (agents), an agent's (services) or a gate's (outside) file");
		return 2;
	}
	if (part[whose].check(o.args[0]) < 0)
		return 2;
	printf("%s: a good %s file\n", o.args[0], part[whose].role);
	return 0;
}
