/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "client/socks.h"

/* A greeting, a request for ssh.example.org:22, and two bytes of the client's own. */
static const uint8_t call[] = "\x05\x02\x00\x02"
			      "\x05\x01\x00\x03\x0fssh.example.org\x00\x16"
			      "hi";
#define CALL_LEN (sizeof(call) - 1)
#define GREETING 4

static void check_request(const struct socks *s)
{
	assert_int_equal(s->name.n, 15);
	assert_memory_equal(s->name.p, "ssh.example.org", 15);
	assert_int_equal(s->port, 22);
}

/* Feeds it in pieces of `step`; \return where the client's data begins. */
static size_t feed_call(size_t step)
{
	struct socks s;
	size_t off = 0;
	unsigned methods = 0;

	socks_init(&s);
	for (;;) {
		size_t n = CALL_LEN - off < step ? CALL_LEN - off : step;
		size_t end = off + n;

		assert_true(n > 0);
		while (off < end) {
			size_t taken = 0;
			enum socks_result r = socks_feed(&s, call + off, end - off, &taken);

			assert_true(taken > 0 && taken <= end - off);
			off += taken;
			if (r == SOCKS_METHOD) {
				assert_int_equal(off, GREETING);
				assert_int_equal(s.reply_len, 2);
				assert_memory_equal(s.reply, "\x05\x00", 2);
				methods++;
			} else if (r == SOCKS_REQUEST) {
				assert_int_equal(methods, 1);
				check_request(&s);
				return off;
			} else {
				assert_int_equal(r, SOCKS_MORE);
			}
		}
	}
}

static void pieces_do_not_matter(void **state)
{
	(void)state;
	for (size_t step = 1; step <= CALL_LEN; step++)
		assert_int_equal(feed_call(step), CALL_LEN - 2);
}

static enum socks_result feed_all(struct socks *s, const void *greeting, size_t n, const void *request, size_t m)
{
	enum socks_result r;
	size_t taken;

	socks_init(s);
	r = socks_feed(s, greeting, n, &taken);
	if (r != SOCKS_METHOD)
		return r;
	assert_int_equal(taken, n);
	return socks_feed(s, request, m, &taken);
}

static void no_acceptable_method(void **state)
{
	struct socks s;

	(void)state;
	assert_int_equal(feed_all(&s, "\x05\x01\x02", 3, "", 0), SOCKS_REJECT);
	assert_int_equal(s.reply_len, 2);
	assert_memory_equal(s.reply, "\x05\xff", 2);
	/* No methods at all. */
	assert_int_equal(feed_all(&s, "\x05\x00", 2, "", 0), SOCKS_REJECT);
}

static void other_versions_get_no_reply(void **state)
{
	struct socks s;

	(void)state;
	assert_int_equal(feed_all(&s, "\x04\x01\x00\x16", 4, "", 0), SOCKS_REJECT);
	assert_int_equal(s.reply_len, 0);
	assert_int_equal(feed_all(&s, "GET / HTTP/1.1\r\n", 16, "", 0), SOCKS_REJECT);
	assert_int_equal(s.reply_len, 0);
	assert_int_equal(feed_all(&s, "\x05\x01\x00", 3, "\x04\x01\x00\x03", 4), SOCKS_REJECT);
	assert_int_equal(s.reply_len, 0);
}

static void check_code(const void *request, size_t n, enum socks_code code)
{
	struct socks s;

	assert_int_equal(feed_all(&s, "\x05\x01\x00", 3, request, n), SOCKS_REJECT);
	assert_int_equal(s.reply_len, SOCKS_REPLY_MAX);
	assert_int_equal(s.reply[0], 5);
	assert_int_equal(s.reply[1], code);
}

static void only_connect_to_names(void **state)
{
	(void)state;
	check_code("\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x16", 10, SOCKS_BAD_ADDRESS_TYPE);
	check_code("\x05\x01\x00\x04"
		   "0123456789abcdef\x00\x16",
		   22, SOCKS_BAD_ADDRESS_TYPE);
	check_code("\x05\x01\x00\x07", 4, SOCKS_BAD_ADDRESS_TYPE);
	check_code("\x05\x02\x00\x03\x01x\x00\x16", 8, SOCKS_BAD_COMMAND); /* BIND */
	check_code("\x05\x03\x00\x03\x01x\x00\x16", 8, SOCKS_BAD_COMMAND); /* UDP ASSOCIATE */
	check_code("\x05\x01\x00\x03\x00\x00\x16", 7, SOCKS_FAILURE);      /* an empty name */
}

static void longest_name(void **state)
{
	uint8_t request[5 + SOCKS_NAME_MAX + 2];
	struct socks s;

	(void)state;
	memcpy(request, "\x05\x01\x00\x03\xff", 5);
	memset(request + 5, 'a', SOCKS_NAME_MAX);
	request[sizeof(request) - 2] = 0xff;
	request[sizeof(request) - 1] = 0xff;
	assert_int_equal(feed_all(&s, "\x05\x01\x00", 3, request, sizeof(request)), SOCKS_REQUEST);
	assert_int_equal(s.name.n, SOCKS_NAME_MAX);
	assert_int_equal(s.port, 65535);
}

static void longest_greeting(void **state)
{
	uint8_t greeting[2 + 255];
	struct socks s;
	size_t taken;

	(void)state;
	memset(greeting, 0x80, sizeof(greeting));
	greeting[0] = 5;
	greeting[1] = 255;
	greeting[sizeof(greeting) - 1] = 0;
	socks_init(&s);
	assert_int_equal(socks_feed(&s, greeting, sizeof(greeting), &taken), SOCKS_METHOD);
	assert_int_equal(taken, sizeof(greeting));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pieces_do_not_matter),
		cmocka_unit_test(no_acceptable_method),
		cmocka_unit_test(other_versions_get_no_reply),
		cmocka_unit_test(only_connect_to_names),
		cmocka_unit_test(longest_name),
		cmocka_unit_test(longest_greeting),
	};

	return cmocka_run_group_tests_name("client-socks", tests, NULL, NULL);
}
