/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gate/config.h"

#define PIN_A "\"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\""
#define PIN_B "\"sha256:BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA\""

#define HEAD                                                                        \
	"outside: { interface: wan, addresses: [198.18.3.2], ports: 1024-65535 }\n" \
	"inside: { interface: lan }\n"                                              \
	"control: 198.18.100.1:7443\n"                                              \
	"keys: /etc/walnut/keys\n"
#define TENANT "tenants:\n  - { name: example.org, agent_pin: " PIN_A ", prefixes: [198.18.100.0/24] }\n"

static char said[4096];

/* Loads `text` and keeps what went to stderr. */
static int load(const char *text, struct gate_config *out)
{
	char file[] = "/tmp/gate-config-XXXXXX", err[] = "/tmp/gate-stderr-XXXXXX";
	int fd = mkstemp(file), efd = mkstemp(err), old = dup(2), rc;
	ssize_t n;

	assert_true(fd >= 0 && efd >= 0 && old >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	fflush(stderr);
	dup2(efd, 2);
	rc = gate_config_load(file, out);
	fflush(stderr);
	dup2(old, 2);
	close(old);
	n = pread(efd, said, sizeof(said) - 1, 0);
	said[n > 0 ? n : 0] = 0;
	close(efd);
	unlink(file);
	unlink(err);
	return rc;
}

static void a_whole_file(void **state)
{
	struct gate_config c;
	char buf[WN_ADDR_STR];

	(void)state;
	assert_int_equal(load("outside: { interface: wan, addresses: [198.18.3.2, 198.18.3.3], ports: 2000-3000 }\n"
			      "inside: { interface: lan }\n"
			      "control: 198.18.100.1:7443\n"
			      "keys: /k\n"
			      "socket: /s\n"
			      "user: daemon\n"
			      "state: /sys/fs/bpf/x\n"
			      "flows: 100\n"
			      "mappings: 200\n"
			      "holes: 300\n"
			      "metrics: 127.0.0.1:9443\n"
			      "mode: native\n"
			      "tenants:\n"
			      "  - { name: example.org, agent_pin: " PIN_A ", prefixes: [198.18.100.0/24, 198.18.102.0/24], holes: 40 }\n"
			      "  - { name: example.net, agent_pin: " PIN_B ", prefixes: [198.18.101.0/24] }\n",
			      &c),
			 0);
	assert_string_equal(said, "");
	assert_string_equal(c.outside, "wan");
	assert_string_equal(c.inside, "lan");
	assert_int_equal(c.npublic, 2);
	assert_string_equal(wn_ip_str(&c.public[1], buf), "198.18.3.3");
	assert_int_equal(c.port_low, 2000);
	assert_int_equal(c.port_high, 3000);
	assert_string_equal(wn_addr_str(&c.control, buf), "198.18.100.1:7443");
	assert_string_equal(c.keys, "/k");
	assert_string_equal(c.socket, "/s");
	assert_string_equal(c.user, "daemon");
	assert_string_equal(c.state, "/sys/fs/bpf/x");
	assert_int_equal(c.flows, 100);
	assert_int_equal(c.mappings, 200);
	assert_int_equal(c.holes, 300);
	assert_string_equal(wn_addr_str(&c.metrics, buf), "127.0.0.1:9443");
	assert_int_equal(c.mode, GATE_MODE_NATIVE);
	assert_int_equal(c.ntenant, 2);
	assert_string_equal(c.tenant[0].name, "example.org");
	assert_int_equal(c.tenant[0].nprefix, 2);
	assert_int_equal(c.tenant[0].prefix[1].bits, 96 + 24);
	assert_int_equal(c.tenant[0].holes, 40);
	assert_int_equal(c.tenant[1].holes, 300);
	assert_int_equal(c.tenant[1].agent.sha256[0], 4);
}

static void defaults(void **state)
{
	struct gate_config c;

	(void)state;
	assert_int_equal(load("outside: { interface: wan, addresses: [198.18.3.2] }\ninside: { interface: lan }\ncontrol: "
			      "198.18.100.1\nkeys: /k\n" TENANT,
			      &c),
			 0);
	assert_int_equal(c.port_low, 1024);
	assert_int_equal(c.port_high, 65535);
	assert_int_equal(c.control.port, 7443);
	assert_string_equal(c.socket, "/run/walnut/gate.sock");
	assert_string_equal(c.state, "/sys/fs/bpf/walnut");
	assert_string_equal(c.user, "nobody");
	assert_int_equal(c.metrics.port, 0);
	assert_int_equal(c.mode, GATE_MODE_AUTO);
	assert_int_equal(c.flows, 65536);
	assert_int_equal(c.mappings, 65536);
	assert_int_equal(c.holes, 16384);
	assert_int_equal(c.tenant[0].holes, 16384);
}

#define OUT(x) "outside: " x "\ninside: { interface: lan }\ncontrol: 198.18.100.1:7443\nkeys: /k\n" TENANT

static void errors_name_line_and_key(void **state)
{
	static const struct {
		const char *text, *line_and_key, *says;
	} row[] = {
		{OUT("{ interface: 'a b', addresses: [198.18.3.2] }"), ":1: outside.interface: ", "no interface name"},
		{OUT("{ interface: sixteen-letters-, addresses: [198.18.3.2] }"), ":1: outside.interface: ", "no interface name"},
		{OUT("{ interface: a/b, addresses: [198.18.3.2] }"), ":1: outside.interface: ", "no interface name"},
		{OUT("{ interface: .., addresses: [198.18.3.2] }"), ":1: outside.interface: ", "no interface name"},
		{OUT("{ interface: lan, addresses: [198.18.3.2] }"), ":2: inside.interface: ", "also outside.interface"},
		{OUT("{ interface: wan, addresses: [] }"), ":1: outside.addresses: ", "at least 1"},
		{OUT("{ interface: wan, addresses: [198.18.3] }"), ":1: outside.addresses[0]: ", "no public IPv4 address"},
		{OUT("{ interface: wan, addresses: ['2001:db8::1'] }"), ":1: outside.addresses[0]: ", "no public IPv4 address"},
		{OUT("{ interface: wan, addresses: [127.0.0.1] }"), ":1: outside.addresses[0]: ", "no public IPv4 address"},
		{OUT("{ interface: wan, addresses: [224.0.0.1] }"), ":1: outside.addresses[0]: ", "no public IPv4 address"},
		{OUT("{ interface: wan, addresses: [0.0.0.0] }"), ":1: outside.addresses[0]: ", "no public IPv4 address"},
		{OUT("{ interface: wan, addresses: [198.18.3.2, 198.18.3.2] }"), ":1: outside.addresses[1]: ", "given twice"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], ports: 3000-2000 }"), ":1: outside.ports: ", "must be 2000-3000"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], ports: 1024 }"), ":1: outside.ports: ", "no range"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], ports: 0-65535 }"), ":1: outside.ports: ", "no range"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], ports: 1-65536 }"), ":1: outside.ports: ", "no range"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], ports: 1-2-3 }"), ":1: outside.ports: ", "no range"},
		{OUT("{ interface: wan }"), ":1: outside.addresses: ", "protected too"},
		{OUT("{ interface: wan, ports: 1024-2047 }\nprotected: [198.18.100.9]"), ":1: outside.ports: ", "protected addresses keep"},
		{OUT("{ interface: wan, addresses: [198.18.3.2] }\nprotected: [198.18.100.9]"),
		 ":2: protected[0]: ", "which outside.addresses has translated"},
		{OUT("{ interface: wan }\nprotected: [198.18.100.9, 198.18.100.9]"), ":2: protected[1]: ", "given twice"},
		{OUT("{ interface: wan }\nprotected: ['fd00::1', 'FD00:0::1']"), ":2: protected[1]: ", "given twice"},
		{OUT("{ interface: wan }\nprotected: []"), ":2: protected: ", "at least 1"},
		{OUT("{ interface: wan }\nprotected: ['::1']"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: ['::']"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: ['ff02::1']"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: ['fe80::1']"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: [127.0.0.1]"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: [198.18.100.0/24]"), ":2: protected[0]: ", "no address of a service"},
		{OUT("{ interface: wan }\nprotected: [198.18.101.9]"), ":2: protected[0]: ", "in no tenant's prefixes"},
		{OUT("{ interface: wan }\nprotected: ['2001:db8::9']"), ":2: protected[0]: ", "in no tenant's prefixes"},
		{OUT("{ interface: wan }\nprotected: [198.18.100.1]"), ":4: control: ", "one of protected"},
		{OUT("{ interface: wan }\nprotected: [198.18.100.9, 198.18.100.10, 198.18.100.11, 198.18.100.12, 198.18.100.13, "
		     "198.18.100.14, 198.18.100.15, 198.18.100.16, 198.18.100.17, 198.18.100.18, 198.18.100.19, 198.18.100.20, "
		     "198.18.100.21, 198.18.100.22, 198.18.100.23, 198.18.100.24, 198.18.100.25]"),
		 ":2: protected[16]: ", "one too many"},
		{OUT("{ interface: wan, addresses: [198.18.100.1] }"), ":3: control: ", "one of outside.addresses"},
		{OUT("{ interface: wan, addresses: [198.18.100.9] }"), ":6: tenants[0].prefixes[0]: ", "outside.addresses"},
		{OUT("{ interface: wan, addresses: [198.18.3.2], prots: 1-2 }"), ":1: outside.prots: ", "unknown key"},
		{HEAD "holes: 0\n" TENANT, ":5: holes: ", "must be a whole number from 64"},
		{HEAD "flows: 16777217\n" TENANT, ":5: flows: ", "to 16777216"},
		{HEAD "mappings: 63\n" TENANT, ":5: mappings: ", "is 63"},
		{HEAD "mappings: many\n" TENANT, ":5: mappings: ", "must be a whole number"},
		{HEAD "user: root\n" TENANT, ":5: user: ", "without rights"},
		{HEAD "metrics: 0.0.0.0:9443\n" TENANT, ":5: metrics: ", "no loopback address"},
		{HEAD "metrics: 198.18.3.2:9443\n" TENANT, ":5: metrics: ", "no loopback address"},
		{HEAD "metrics: 127.0.0.1\n" TENANT, ":5: metrics: ", "no loopback address"},
		{HEAD "metrics: 127.0.0.1:0\n" TENANT, ":5: metrics: ", "no loopback address"},
		{HEAD "mode: offload\n" TENANT, ":5: mode: ", "auto, native or generic"},
		{HEAD "state: bpf\n" TENANT, ":5: state: ", "no absolute path"},
		{HEAD "state: /0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
		      "01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789"
		      "0123456789012345678901234567890123456789012345678901234567890123456789\n" TENANT,
		 ":5: state: ", ""},
		{HEAD "socket: /012345678901234567890123456789012345678901234567890123456789"
		      "01234567890123456789012345678901234567890123456789\n" TENANT,
		 ":5: socket: ", "at most 107"},
		{HEAD "tenants: []\n", ":5: tenants: ", "at least 1"},
		{HEAD, ":1: tenants: ", "missing"},
		{HEAD "tenants:\n  - { name: a, agent_pin: sha256:short, prefixes: [10.0.0.0/24] }\n",
		 ":6: tenants[0].agent_pin: ", "no pin"},
		{HEAD
		 "tenants:\n  - { name: a, agent_pin: \"md5:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\", prefixes: [10.0.0.0/24] }\n",
		 ":6: tenants[0].agent_pin: ", "no pin"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/33] }\n",
		 ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.1/24] }\n",
		 ":6: tenants[0].prefixes[0]: ", "zero bits"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [0.0.0.0/0] }\n",
		 ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: ['::/0'] }\n", ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: ['2001::/15'] }\n",
		 ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: ['::ffff:0:0/96'] }\n",
		 ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: ['fe80::/64'] }\n",
		 ":6: tenants[0].prefixes[0]: ", "no prefix"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: ['2001:db8::/32', '2001:db8:7::/48'] }\n",
		 ":6: tenants[0].prefixes[1]: ", "overlaps prefixes[0] of tenant \"a\""},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [] }\n", ":6: tenants[0].prefixes: ", "at least 1"},
		{HEAD "tenants:\n  - { name: 'a b', agent_pin: " PIN_A ", prefixes: [10.0.0.0/24] }\n",
		 ":6: tenants[0].name: ", "no domain name"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24], holes: 0 }\n",
		 ":6: tenants[0].holes: ", "from 1"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24], holes: 16385 }\n",
		 ":6: tenants[0].holes: ", "to 16384"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24, 10.0.0.128/25] }\n",
		 ":6: tenants[0].prefixes[1]: ", "overlaps prefixes[0] of tenant \"a\""},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24] }\n"
		      "  - { name: b, agent_pin: " PIN_B ", prefixes: [192.0.2.0/24, 10.0.0.0/16] }\n",
		 ":7: tenants[1].prefixes[1]: ", "overlaps prefixes[0] of tenant \"a\""},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/16] }\n"
		      "  - { name: b, agent_pin: " PIN_B ", prefixes: [10.0.7.0/24] }\n",
		 ":7: tenants[1].prefixes[0]: ", "overlaps"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24] }\n"
		      "  - { name: A, agent_pin: " PIN_B ", prefixes: [10.0.1.0/24] }\n",
		 ":7: tenants[1].name: ", "also the name of tenants[0]"},
		{HEAD "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [10.0.0.0/24] }\n"
		      "  - { name: b, agent_pin: " PIN_A ", prefixes: [10.0.1.0/24] }\n",
		 ":7: tenants[1].agent_pin: ", "also the pin of tenant \"a\""},
	};
	struct gate_config c;

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		int rc = load(row[i].text, &c);
		char *nl = strchr(said, '\n');

		if (rc != -EINVAL || strstr(said, row[i].line_and_key) == NULL || strstr(said, row[i].says) == NULL || nl == NULL ||
		    nl[1] != 0)
			fail_msg("row %zu: wanted \"%s… %s\", got %d and: %s", i, row[i].line_and_key, row[i].says, rc, said);
	}
}

static void protected_addresses(void **state)
{
	struct gate_config c;
	char buf[WN_ADDR_STR];

	(void)state;
	assert_int_equal(load("outside: { interface: wan }\ninside: { interface: lan }\ncontrol: '[2001:db8:1::1]:7000'\nkeys: /k\n"
			      "protected: [198.18.100.9, '2001:db8:1::9', 198.18.100.10]\n"
			      "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [198.18.100.0/24, '2001:db8:1::/48'] }\n",
			      &c),
			 0);
	assert_true(c.firewall);
	assert_int_equal(c.npublic, 2);
	assert_string_equal(wn_ip_str(&c.public[1], buf), "198.18.100.10");
	assert_int_equal(c.nprotected6, 1);
	assert_string_equal(wn_ip_str(&c.protected6[0], buf), "2001:db8:1::9");
	assert_string_equal(wn_addr_str(&c.control, buf), "[2001:db8:1::1]:7000");
	assert_int_equal(c.tenant[0].prefix[1].bits, 48);
	assert_true(gate_config_has6(&c));
}

static void both_at_once(void **state)
{
	struct gate_config c;

	(void)state;
	assert_int_equal(load(HEAD "protected: ['2001:db8:1::9']\n"
				   "tenants:\n  - { name: a, agent_pin: " PIN_A ", prefixes: [198.18.100.0/24, '2001:db8:1::/48'] }\n",
			      &c),
			 0);
	assert_false(c.firewall);
	assert_int_equal(c.npublic, 1);
	assert_int_equal(c.nprotected6, 1);
	assert_true(gate_config_has6(&c));
	assert_int_equal(load(HEAD TENANT, &c), 0);
	assert_false(c.firewall);
	assert_false(gate_config_has6(&c));
}

static void bad_control(void **state)
{
	struct gate_config c;

	(void)state;
	assert_int_equal(load("outside: { interface: wan, addresses: [198.18.3.2] }\ninside: { interface: lan }\ncontrol: lan:7443\nkeys: "
			      "/k\n" TENANT,
			      &c),
			 -EINVAL);
	assert_non_null(strstr(said, ":3: control: "));
	assert_int_equal(load("outside: { interface: wan, addresses: [198.18.3.2] }\ninside: { interface: lan }\ncontrol: "
			      "198.18.100.1:0\nkeys: /k\n" TENANT,
			      &c),
			 -EINVAL);
	assert_int_equal(load("outside: { interface: wan, addresses: [198.18.3.2] }\ninside: { interface: lan }\ncontrol: "
			      "0.0.0.0:7443\nkeys: /k\n" TENANT,
			      &c),
			 -EINVAL);
}

static void a_file_that_is_not_there(void **state)
{
	struct gate_config c;

	(void)state;
	assert_int_equal(gate_config_load("/nonexistent/gate.yaml", &c), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_file),
		cmocka_unit_test(defaults),
		cmocka_unit_test(errors_name_line_and_key),
		cmocka_unit_test(protected_addresses),
		cmocka_unit_test(both_at_once),
		cmocka_unit_test(bad_control),
		cmocka_unit_test(a_file_that_is_not_there),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
