/* SPDX-License-Identifier: Apache-2.0 */
/* What --check says of interfaces that no test machine has: the kernel's answers are the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "gate/ifquery.h"
#include "gate/precheck.h"

#define ALL (GATE_XDP_BASIC | GATE_XDP_REDIRECT | GATE_XDP_XMIT)

/* The outside interface; the inside one is always good. */
static struct gate_if outside;
static uint64_t features;
static int features_rc, unfinished; /* what the kernel answers about them */

int gate_if_query(const char *name, struct gate_if *out)
{
	static const struct gate_if good = {.ifindex = 2, .ethernet = true, .up = true, .mtu = 1500};

	*out = strcmp(name, "t-wan") == 0 ? outside : good;
	return 0;
}

int gate_if_xdp(uint32_t ifindex, uint64_t *out)
{
	*out = ifindex == outside.ifindex ? features : ALL;
	return ifindex == outside.ifindex ? features_rc : 0;
}

int gate_if_tx_checksum(const char *name)
{
	(void)name;
	return unfinished;
}

static char said[2][2048]; /* by enum gate_finding */

static void say(enum gate_finding kind, const char *key, const char *text, void *arg)
{
	(void)arg;
	if (strcmp(key, "outside.interface") == 0)
		snprintf(said[kind] + strlen(said[kind]), sizeof(said[kind]) - strlen(said[kind]), "%s\n", text);
}

/* \return how many things are wrong with how frames pass. */
static unsigned look(enum gate_mode mode)
{
	struct gate_config cfg = {.outside = "t-wan", .inside = "t-lan", .mode = mode, .control.ip = {[10] = 0xff, [11] = 0xff}};
	unsigned n;

	memset(said, 0, sizeof(said));
	gate_precheck(&cfg, say, NULL);
	assert_null(strstr(said[GATE_FINDING_WRONG], "t-lan"));
	n = gate_precheck_frames(&cfg, say, NULL);
	return n;
}

static int hardware(void **state)
{
	(void)state;
	outside = (struct gate_if){.ifindex = 1, .ethernet = true, .up = true, .mtu = 1500};
	features = ALL;
	features_rc = unfinished = 0;
	return 0;
}

static int veth(void **state)
{
	hardware(state);
	snprintf(outside.kind, sizeof(outside.kind), "veth");
	outside.peer = 1; /* lo: the one name that is everywhere */
	return 0;
}

static void expect(enum gate_finding kind, const char *part)
{
	if (strstr(said[kind], part) == NULL)
		fail_msg("\"%s\" is not in \"%s\"", part, said[kind]);
}

static void good_hardware(void **state)
{
	(void)state;
	assert_int_equal(look(GATE_MODE_NATIVE), 0);
	assert_string_equal(said[GATE_FINDING_WRONG], "");
	assert_string_equal(said[GATE_FINDING_NOTE], "");
}

static void a_driver_without_programs(void **state)
{
	(void)state;
	features = 0;
	assert_int_equal(look(GATE_MODE_NATIVE), 1);
	expect(GATE_FINDING_WRONG, "the driver of t-wan takes no native program");
	assert_int_equal(look(GATE_MODE_AUTO), 0);
	expect(GATE_FINDING_NOTE, "both interfaces will use the slower generic mode");
	assert_int_equal(look(GATE_MODE_GENERIC), 0);
	assert_string_equal(said[GATE_FINDING_NOTE], "");
}

static void a_driver_without_xmit(void **state)
{
	(void)state;
	features = GATE_XDP_BASIC | GATE_XDP_REDIRECT;
	assert_int_equal(look(GATE_MODE_AUTO), 0); /* some drivers say it only with a program */
	expect(GATE_FINDING_NOTE, "no ndo_xdp_xmit) while no program is on it");
	outside.has_program = true;
	assert_int_equal(look(GATE_MODE_AUTO), 1);
	expect(GATE_FINDING_WRONG, "no ndo_xdp_xmit), they would vanish");
	assert_int_equal(look(GATE_MODE_GENERIC), 0);
}

static void a_kernel_that_does_not_tell(void **state)
{
	(void)state;
	features = 0;
	features_rc = -ENOENT;
	assert_int_equal(look(GATE_MODE_NATIVE), 0);
	expect(GATE_FINDING_NOTE, "unknown whether t-wan takes native programs");
	expect(GATE_FINDING_NOTE, "ndo_xdp_xmit");
	veth(NULL);
	features_rc = -ENOENT;
	assert_int_equal(look(GATE_MODE_AUTO), 0);
	expect(GATE_FINDING_NOTE, "its other end must have gro on");
}

static void a_peer_without_gro(void **state)
{
	(void)state;
	features = GATE_XDP_BASIC | GATE_XDP_REDIRECT;
	assert_int_equal(look(GATE_MODE_AUTO), 1);
	expect(GATE_FINDING_WRONG, "has neither GRO nor an XDP program; ethtool -K lo gro on");
	outside.peer_elsewhere = true;
	assert_int_equal(look(GATE_MODE_AUTO), 1);
	expect(GATE_FINDING_WRONG, "ethtool -K DEVICE gro on over there");
}

static void a_peer_with_tx_checksums(void **state)
{
	(void)state;
	unfinished = 1;
	assert_int_equal(look(GATE_MODE_AUTO), 1);
	expect(GATE_FINDING_WRONG, "ethtool -K lo tx off");
	unfinished = -EOPNOTSUPP;
	assert_int_equal(look(GATE_MODE_AUTO), 0);
	unfinished = 1;
	outside.peer_elsewhere = true;
	assert_int_equal(look(GATE_MODE_AUTO), 0);
	expect(GATE_FINDING_NOTE, "cannot be looked at from here");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(good_hardware, hardware),         cmocka_unit_test_setup(a_driver_without_programs, hardware),
		cmocka_unit_test_setup(a_driver_without_xmit, hardware), cmocka_unit_test_setup(a_kernel_that_does_not_tell, hardware),
		cmocka_unit_test_setup(a_peer_without_gro, veth),        cmocka_unit_test_setup(a_peer_with_tx_checksums, veth),
	};

	return cmocka_run_group_tests_name("gate precheck", tests, NULL, NULL);
}
