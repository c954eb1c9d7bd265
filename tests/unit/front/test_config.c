/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "front/config.h"

#define PIN  "sha256:_wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define PIN2 "sha256:AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define KEY  "ed25519:__AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define ZERO "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
#define TOP  "listen: 198.18.1.2:5060\nagents: 198.18.1.2:7061\nkeys: /etc/walnut/keys\n"
#define TENANT                         \
	"tenants:\n"                   \
	"  - domain: Example.org\n"    \
	"    agent_pin: \"" PIN "\"\n" \
	"    signing_key: \"" KEY "\"\n"

/* Loads text; what it printed on stderr is in `said`. */
static int load(const char *text, struct front_config *c, char *said, size_t cap)
{
	char file[] = "/tmp/walnut-front-XXXXXX", out[] = "/tmp/walnut-front-XXXXXX";
	int fd = mkstemp(file), err = mkstemp(out), saved = dup(2), r;
	ssize_t n;

	assert_true(fd >= 0 && err >= 0 && saved >= 0);
	assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
	dup2(err, 2);
	r = front_config_load(file, c);
	dup2(saved, 2);
	close(saved);
	n = pread(err, said, cap - 1, 0);
	said[n > 0 ? n : 0] = 0;
	close(err);
	unlink(file);
	unlink(out);
	return r;
}

static void test_defaults(void **state)
{
	struct front_config c;
	char said[512];

	(void)state;
	assert_int_equal(load(TOP TENANT, &c, said, sizeof(said)), 0);
	assert_string_equal(said, "");
	assert_int_equal(c.listen.port, 5060);
	assert_int_equal(c.agents.port, 7061);
	assert_string_equal(c.socket, "/run/walnut/front.sock");
	assert_string_equal(c.user, "nobody");
	assert_true(c.threads >= 1);
	assert_int_equal(c.nonce_lifetime_s, 30);
	assert_int_equal(c.nonce_ring_bits, 25);
	assert_int_equal(c.feed_max_age_s, 60);
	assert_int_equal(c.batch_wait_us, 500);
	assert_int_equal(c.ntenants, 1);
	assert_string_equal(c.tenant[0].domain, "example.org");
	assert_true(c.tenant[0].policy.sha256);
	assert_false(c.tenant[0].policy.md5);
	assert_int_equal(c.tenant[0].policy.max_calls, 10000);
	assert_int_equal(c.tenant[0].policy.user_calls_per_s, 20);
	assert_int_equal(c.tenant[0].policy.service_calls_per_s, 2000);
	front_config_free(&c);
}

static void test_everything(void **state)
{
	struct front_config c;
	char said[512];

	(void)state;
	assert_int_equal(
		load(TOP "socket: /tmp/s\nuser: walnut\nthreads: 3\nnonce_lifetime_s: 10\nnonce_ring_bits: 20\nfeed_max_age_s: 30\n" TENANT
			 "    algorithms: [md5, sha-256]\n    max_calls: 5\n    user_calls_per_s: 0\n    service_calls_per_s: 7\n",
		     &c, said, sizeof(said)),
		0);
	assert_int_equal(c.threads, 3);
	assert_true(c.tenant[0].policy.md5);
	assert_true(c.tenant[0].policy.sha256);
	assert_int_equal(c.tenant[0].policy.user_calls_per_s, 0);
	assert_int_equal(c.tenant[0].policy.service_calls_per_s, 7);
	front_config_free(&c);
}

static void test_streams(void **state)
{
	struct front_config c;
	struct front_stream_limits share;
	char said[512];

	(void)state;
	assert_int_equal(load(TOP TENANT, &c, said, sizeof(said)), 0);
	assert_int_equal(c.streams.connections, 16384);
	assert_int_equal(c.streams.per_address, 256);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_FIRST], 5000);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_TRUSTED], 600000);
	assert_int_equal(c.backlog, 512);
	front_config_free(&c);
	assert_int_equal(
		load(TOP "streams: { max_connections: 1001, per_address: 7, backlog: 3, first_message_s: 2, stranger_idle_s: 3, idle_s: 4, "
			 "stalled_s: 5, tls_handshake_s: 6, tls_handshakes_per_s: 9, tls_handshakes: 8 }\n" TENANT,
		     &c, said, sizeof(said)),
		0);
	assert_int_equal(c.backlog, 3);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_FIRST], 2000);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_STRANGER], 3000);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_TRUSTED], 4000);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_STALLED], 5000);
	assert_int_equal(c.streams.due_ms[STREAM_DUE_HANDSHAKE], 6000);
	stream_limits_share(&c.streams, 2, &share);
	assert_int_equal(share.connections, 501);
	assert_int_equal(share.trusted, 438);
	assert_int_equal(share.buffers, 126);
	assert_int_equal(share.per_address, 4);
	assert_int_equal(share.handshakes, 4);
	assert_int_equal(share.handshakes_per_s, 5);
	front_config_free(&c);
}

/* One line that names file, line and key. */
static void bad(const char *text, const char *where)
{
	struct front_config c;
	char said[512];

	assert_int_equal(load(text, &c, said, sizeof(said)), -EINVAL);
	if (strstr(said, where) == NULL)
		print_error("wanted %s in: %s\n", where, said);
	assert_non_null(strstr(said, where));
	assert_memory_equal(said, "/tmp/walnut-front-", 18);
	assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
}

static void test_errors(void **state)
{
	(void)state;
	bad("agents: 198.18.1.2:7061\nkeys: k\n" TENANT, "listen");
	bad("listen: nowhere\nagents: 198.18.1.2:7061\nkeys: k\n" TENANT, ":1: listen: ");
	bad("listen: 0.0.0.0:5060\nagents: 198.18.1.2:7061\nkeys: k\n" TENANT, ":1: listen: ");
	bad("listen: \"[::]:5060\"\nagents: 198.18.1.2:7061\nkeys: k\n" TENANT, ":1: listen: ");
	bad("listen: 198.18.1.2:5060\nagents: 198.18.1.2\nkeys: k\n" TENANT, ":2: agents: ");
	bad(TOP "threads: 0\n" TENANT, ":4: threads: ");
	bad(TOP "threads: many\n" TENANT, ":4: threads: ");
	bad(TOP "nonce_ring_bits: 31\n" TENANT, ":4: nonce_ring_bits: ");
	bad(TOP "streams: { max_connections: 63 }\n" TENANT, ": streams.max_connections: ");
	bad(TOP "streams: { per_address: 65536 }\n" TENANT, ": streams.per_address: ");
	bad(TOP "streams: { colour: 1 }\n" TENANT, "colour");
	bad(TOP "colour: blue\n" TENANT, ":4: colour: ");
	bad(TOP "tenants: []\n", "tenants");
	bad(TOP TENANT "    algorithms: [sha-512]\n", ":8: tenants[0].algorithms[0]: ");
	bad(TOP TENANT "    algorithms: [md5, md5]\n", ":8: tenants[0].algorithms[1]: ");
	bad(TOP TENANT "    max_calls: 0\n", ":8: tenants[0].max_calls: ");
	bad(TOP "tenants:\n  - domain: \"exa mple\"\n    agent_pin: \"" PIN "\"\n    signing_key: \"" KEY "\"\n",
	    ":5: tenants[0].domain: ");
	bad(TOP "tenants:\n  - domain: a.org\n    agent_pin: \"sha256:no\"\n    signing_key: \"" KEY "\"\n", ":6: tenants[0].agent_pin: ");
	bad(TOP "tenants:\n  - domain: a.org\n    agent_pin: \"" PIN "\"\n    signing_key: \"ed25519:no\"\n",
	    ":7: tenants[0].signing_key: ");
	/* what an example might hold is no key */
	bad(TOP "tenants:\n  - domain: a.org\n    agent_pin: \"sha256:" ZERO "\"\n    signing_key: \"" KEY "\"\n",
	    ":6: tenants[0].agent_pin: ");
	bad(TOP "tenants:\n  - domain: a.org\n    agent_pin: \"" PIN "\"\n    signing_key: \"ed25519:" ZERO "\"\n",
	    ":7: tenants[0].signing_key: ");
	bad(TOP TENANT "  - domain: example.ORG\n    agent_pin: \"" PIN2 "\"\n    signing_key: \"" KEY "\"\n", ":8: tenants[1].domain: ");
	bad(TOP TENANT "  - domain: b.org\n    agent_pin: \"" PIN "\"\n    signing_key: \"" KEY "\"\n", ":9: tenants[1].agent_pin: ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything),
					   cmocka_unit_test(test_streams), cmocka_unit_test(test_errors)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
