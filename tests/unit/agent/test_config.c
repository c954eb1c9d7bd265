/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/config.h"
#include "base/b64.h"

static char dir[64], file[128];
static char said[2048];

#define PIN "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

static const char good[] =
	"domain: example.org\n"
	"keys: /etc/walnut/keys\n"
	"database: /var/lib/walnut/users\n"
	"enrol_fronts: [\"198.18.1.2:5060\", \"198.18.2.2:5060\"]\n"
	"gate: { address: \"198.18.100.1:7443\", pin: \"" PIN "\" }\n"
	"fronts:\n"
	"  - { address: \"198.18.1.2:7061\", pin: \"" PIN "\" }\n"
	"  - { address: \"198.18.2.2:7061\", pin: \"" PIN "\" }\n"
	"services:\n"
	"  - { name: ssh, protocol: tcp, address: \"198.18.100.2:22\" }\n"
	"  - { name: dns, protocol: udp, address: \"198.18.100.2:53\", users: [alice, bob], bytes_per_s: 100000, idle_s: 60 }\n";

/* Loads `text` and keeps what was said on stderr. */
static int load(const char *text, struct agent_config *c)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_TRUNC, 0600), saved, out, rc;
	ssize_t n;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);

	fflush(stderr);
	saved = dup(STDERR_FILENO);
	out = memfd_create("stderr", 0);
	assert_true(saved >= 0 && out >= 0);
	dup2(out, STDERR_FILENO);
	rc = agent_config_load(file, c);
	fflush(stderr);
	dup2(saved, STDERR_FILENO);
	close(saved);
	n = pread(out, said, sizeof(said) - 1, 0);
	close(out);
	said[n > 0 ? n : 0] = '\0';
	return rc;
}

/* `good` with one piece of text replaced. */
static void assert_bad(const char *from, const char *to, const char *where)
{
	char text[sizeof(good) + 512], want[256];
	const char *at = strstr(good, from);
	struct agent_config c;

	assert_non_null(at);
	snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
	assert_int_equal(load(text, &c), -EINVAL);
	snprintf(want, sizeof(want), "%s:%s: ", file, where);
	if (strncmp(said, want, strlen(want)) != 0)
		fail_msg("wanted \"%s…\", got \"%s\"", want, said);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1); /* one line */
}

static void test_good(void **state)
{
	struct agent_config c;
	char text[WN_ADDR_STR];

	(void)state;
	assert_int_equal(load(good, &c), 0);
	assert_string_equal(said, "");
	assert_string_equal(c.domain, "example.org");
	assert_string_equal(c.socket, "/run/walnut/agent.sock");
	assert_string_equal(c.user, "nobody");
	assert_int_equal(c.epoch_s, 86400);
	assert_int_equal(c.hole_lifetime_s, 1800);
	assert_int_equal(c.heartbeat_s, 5);
	assert_int_equal(c.publish_keys_per_s, 5000);
	assert_int_equal(c.nfronts, 2);
	assert_string_equal(wn_addr_str(&c.fronts[1].addr, text), "198.18.2.2:7061");
	assert_int_equal(c.nenrol_fronts, 2);
	assert_int_equal(c.nservices, 2);
	assert_int_equal(c.services[0].proto, IPPROTO_TCP);
	assert_int_equal(c.services[1].nusers, 2);
	assert_string_equal(c.services[1].users[1], "bob");
	assert_int_equal(c.services[1].bytes_per_s, 100000);
	assert_int_equal(c.user_bytes_per_s, 0);
	assert_int_equal(c.user_packets_per_s, 0);
	assert_int_equal(c.services[1].idle_s, 60);
	agent_config_free(&c);
}

/* Whose client was killed says no BYE: what is not said in the file must not mean "never". */
static void test_idle(void **state)
{
	struct agent_config c;
	char text[sizeof(good) + 64], *at;

	(void)state;
	snprintf(text, sizeof(text), "%s", good);
	at = strstr(text, ", idle_s: 60");
	memmove(at, at + strlen(", idle_s: 60"), strlen(at + strlen(", idle_s: 60")) + 1);
	assert_int_equal(load(text, &c), 0);
	assert_int_equal(c.services[0].idle_s, 7440);
	assert_int_equal(c.services[1].idle_s, 300);
	agent_config_free(&c);

	snprintf(text, sizeof(text), "%s", good);
	at = strstr(text, "idle_s: 60") + strlen("idle_s: ");
	memcpy(at, " 0", 2);
	assert_int_equal(load(text, &c), 0);
	assert_int_equal(c.services[1].idle_s, 0);
	agent_config_free(&c);
}

static void test_user_rates(void **state)
{
	char text[sizeof(good) + 96];
	struct agent_config c;

	(void)state;
	snprintf(text, sizeof(text), "user_bytes_per_s: 1000000000000\nuser_packets_per_s: 1000000000\n%s", good);
	assert_int_equal(load(text, &c), 0);
	assert_int_equal(c.user_bytes_per_s, 1000000000000);
	assert_int_equal(c.user_packets_per_s, 1000000000);
	agent_config_free(&c);
	assert_bad("domain: example.org", "user_bytes_per_s: 1000000000001\ndomain: example.org", "1: user_bytes_per_s");
	assert_bad("domain: example.org", "user_packets_per_s: 1000000001\ndomain: example.org", "1: user_packets_per_s");
}

static void test_rotation_off(void **state)
{
	char text[sizeof(good) + 32];
	struct agent_config c;

	(void)state;
	snprintf(text, sizeof(text), "epoch_s: 0\n%s", good);
	assert_int_equal(load(text, &c), 0);
	assert_int_equal(c.epoch_s, 0);
	agent_config_free(&c);
}

static void test_errors(void **state)
{
	(void)state;
	assert_bad("domain: example.org", "domain: Example.org", "1: domain");
	assert_bad("domain: example.org", "domain: .org", "1: domain");
	assert_bad("domain: example.org", "domian: example.org", "1: domian");
	assert_bad("198.18.100.1:7443", "198.18.100.1", "5: gate.address");
	assert_bad("198.18.100.1:7443", "198.18.100.1:0", "5: gate.address");
	assert_bad("198.18.2.2:7061\", pin: \"" PIN, "198.18.2.2:7061\", pin: \"sha256:AAA", "8: fronts[1].pin");
	assert_bad("198.18.2.2:7061", "198.18.1.2:7061", "8: fronts[1].address");
	assert_bad("198.18.2.2:5060", "front.example.org:5060", "4: enrol_fronts[1]");
	assert_bad("name: dns", "name: ssh", "11: services[1].name");
	assert_bad("name: dns", "name: d/ns", "11: services[1].name");
	assert_bad("protocol: udp", "protocol: sctp", "11: services[1].protocol");
	assert_bad("198.18.100.2:53", "198.18.100.2:99999", "11: services[1].address");
	assert_bad("[alice, bob]", "[alice, \"b ob\"]", "11: services[1].users[1]");
	assert_bad("idle_s: 60", "idle_s: 90000", "11: services[1].idle_s");
	assert_bad("keys: /etc", "hole_lifetime_s: 1\nkeys: /etc", "2: hole_lifetime_s");
	assert_bad("keys: /etc", "heartbeat_s: 0\nkeys: /etc", "2: heartbeat_s");
	assert_bad("keys: /etc", "heartbeat_s: soon\nkeys: /etc", "2: heartbeat_s");
	assert_bad("keys: /etc", "epoch_s: 1\nkeys: /etc", "2: epoch_s");
	assert_bad("keys: /etc", "publish_keys_per_s: 1\nkeys: /etc", "2: publish_keys_per_s");
	assert_bad("bytes_per_s: 100000", "bytes_per_s: 1000000000001", "11: services[1].bytes_per_s");
}

static void test_missing(void **state)
{
	struct agent_config c;

	(void)state;
	assert_int_equal(agent_config_load("/nonexistent/agent.yaml", &c), -ENOENT);
	assert_int_not_equal(load("domain: example.org\n", &c), 0);
	assert_non_null(strstr(said, file));
}

static void write_key(const char *name, const char *text, mode_t mode)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void test_secrets(void **state)
{
	struct agent_config c = {.keys = dir};
	struct agent_secrets s;
	char sign[B64URL_LEN(64) + 2] = {0}, route[B64URL_LEN(16) + 2] = {0};
	uint8_t raw[64];

	(void)state;
	memset(raw, 7, sizeof(raw));
	sign[b64url_encode(raw, 64, sign)] = '\n';
	b64url_encode(raw, 16, route);
	write_key("tenant.sign", sign, 0600);
	write_key("tenant.route", route, 0600);
	assert_int_equal(agent_secrets_load(&c, &s), 0);
	assert_memory_equal(s.sign, raw, 64);
	assert_memory_equal(s.route, raw, 16);

	write_key("tenant.route", route, 0640);
	assert_int_equal(agent_secrets_load(&c, &s), -EPERM);
	route[10] = '\0';
	write_key("tenant.route", route, 0600);
	assert_int_equal(agent_secrets_load(&c, &s), -EINVAL);
	write_key("tenant.sign", "!", 0600);
	assert_int_equal(agent_secrets_load(&c, &s), -EINVAL);
}

static int setup(void **state)
{
	(void)state;
	umask(0);
	snprintf(dir, sizeof(dir), "/tmp/walnut-agent-config-XXXXXX");
	if (mkdtemp(dir) == NULL || sodium_init() < 0)
		return -1;
	snprintf(file, sizeof(file), "%s/agent.yaml", dir);
	return 0;
}

static int teardown(void **state)
{
	static const char *const names[] = {"agent.yaml", "tenant.sign", "tenant.route"};
	char path[256];

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		unlink(path);
	}
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),   cmocka_unit_test(test_user_rates),   cmocka_unit_test(test_idle),
		cmocka_unit_test(test_good),   cmocka_unit_test(test_rotation_off), cmocka_unit_test(test_idle),
		cmocka_unit_test(test_errors), cmocka_unit_test(test_missing),      cmocka_unit_test(test_secrets),
	};

	return cmocka_run_group_tests_name("config", tests, setup, teardown);
}
