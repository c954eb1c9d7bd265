/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include "gate/record.h"

static struct wn_addr v4(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
	struct wn_addr r = {.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d}, .port = port};

	return r;
}

static struct gate_request tcp_open(void)
{
	struct gate_request r = {.op = GATE_OPEN,
				 .proto = IPPROTO_TCP,
				 .seq = 0x0102030405060708,
				 .cookie = 0x1112131415161718,
				 .inside = v4(198, 18, 100, 2, 22),
				 .remote = v4(198, 18, 4, 2, 0),
				 .lifetime_s = 1800,
				 .connect_s = 10,
				 .syn_rate = 5,
				 .idle_s = 600,
				 .bytes_per_s = 0x2122232425,
				 .packets_per_s = 0x31323334,
				 .user_bytes_per_s = 0x4142434445,
				 .user_packets_per_s = 0x21222324,
				 .user = "alice"};

	return r;
}

static struct gate_request udp_open(void)
{
	struct gate_request r = tcp_open();

	r.proto = IPPROTO_UDP;
	r.connect_s = r.syn_rate = 0;
	r.flags = GATE_FLAG_TAG;
	memset(r.key, 0xa5, sizeof(r.key));
	return r;
}

static void assert_same(const struct gate_request *a, const struct gate_request *b)
{
	assert_int_equal(a->op, b->op);
	assert_int_equal(a->proto, b->proto);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->seq, b->seq);
	assert_int_equal(a->hole, b->hole);
	assert_int_equal(a->cookie, b->cookie);
	assert_memory_equal(a->inside.ip, b->inside.ip, 16);
	assert_int_equal(a->inside.port, b->inside.port);
	assert_memory_equal(a->remote.ip, b->remote.ip, 16);
	assert_int_equal(a->remote.port, b->remote.port);
	assert_int_equal(a->lifetime_s, b->lifetime_s);
	assert_int_equal(a->connect_s, b->connect_s);
	assert_int_equal(a->syn_rate, b->syn_rate);
	assert_int_equal(a->idle_s, b->idle_s);
	assert_int_equal(a->bytes_per_s, b->bytes_per_s);
	assert_int_equal(a->packets_per_s, b->packets_per_s);
	assert_int_equal(a->user_bytes_per_s, b->user_bytes_per_s);
	assert_int_equal(a->user_packets_per_s, b->user_packets_per_s);
	assert_memory_equal(a->key, b->key, 16);
	assert_memory_equal(a->user, b->user, sizeof(a->user));
}

static void round_trip_of_every_op(void **state)
{
	uint8_t w[GATE_REQUEST_BYTES];
	struct gate_request list[6] = {tcp_open(), udp_open()}, out;

	(void)state;
	list[2] = (struct gate_request){.op = GATE_RENEW, .seq = 3, .hole = UINT64_MAX, .lifetime_s = 86400};
	list[3] = (struct gate_request){.op = GATE_CLOSE, .seq = 4, .hole = 1};
	list[4] = (struct gate_request){.op = GATE_PING, .seq = 5};
	list[5] = (struct gate_request){.op = GATE_LIST, .seq = UINT64_MAX};
	for (size_t i = 0; i < 6; i++) {
		gate_request_encode(&list[i], w);
		assert_int_equal(gate_request_decode(w, &out), 0);
		assert_same(&list[i], &out);
	}
}

static void encoder_writes_only_what_the_op_uses(void **state)
{
	uint8_t w[GATE_REQUEST_BYTES];
	struct gate_request r = udp_open(), out;

	(void)state;
	r.op = GATE_CLOSE;
	r.hole = 9;
	r.tenant = 3;
	gate_request_encode(&r, w);
	assert_int_equal(gate_request_decode(w, &out), 0);
	assert_int_equal(out.hole, 9);
	assert_int_equal(out.tenant, 0);
	for (size_t i = 32; i < sizeof(w); i++)
		assert_int_equal(w[i], 0);
}

/* The wire format itself, so that both ends cannot drift together. */
static void bytes_are_where_the_protocol_says(void **state)
{
	uint8_t w[GATE_REQUEST_BYTES], v[GATE_REPLY_BYTES];
	struct gate_request r = tcp_open();
	struct gate_reply p = {.op = GATE_OPEN,
			       .status = GATE_OK,
			       .proto = IPPROTO_UDP,
			       .flags = GATE_FLAG_TAG,
			       .seq = 1,
			       .hole = 2,
			       .cookie = 3,
			       .inside = v4(1, 2, 3, 4, 0x0506),
			       .remote = v4(5, 6, 7, 8, 0x0708),
			       .public = v4(9, 10, 11, 12, 0x090a),
			       .lifetime_s = 0x0b0c0d0e,
			       .packets = 0x1f,
			       .bytes = 0x2f,
			       .user = "bob"};

	(void)state;
	gate_request_encode(&r, w);
	assert_memory_equal(w, "\x01\x02\x06\x00\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08", 16);
	assert_memory_equal(w + 24, "\x11\x12\x13\x14\x15\x16\x17\x18", 8);
	assert_memory_equal(w + 32, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x12\x64\x02", 16);
	assert_memory_equal(w + 48, "\0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x12\x04\x02", 16);
	assert_memory_equal(w + 64, "\0\x16\0\0\0\0\x07\x08\0\0\0\x0a\0\0\0\x05\0\0\x02\x58\x31\x32\x33\x34", 24);
	assert_memory_equal(w + 88, "\0\0\0\x21\x22\x23\x24\x25", 8);
	assert_memory_equal(w + 112, "alice\0", 6);
	assert_memory_equal(w + 176, "\0\0\0\x41\x42\x43\x44\x45\x21\x22\x23\x24\0\0\0\0", 16);

	gate_reply_encode(&p, v);
	assert_memory_equal(v, "\x01\x02\x00\x11\x01\0\0\0", 8);
	assert_int_equal(v[15], 1);
	assert_int_equal(v[23], 2);
	assert_int_equal(v[31], 3);
	assert_memory_equal(v + 44, "\x01\x02\x03\x04", 4);
	assert_memory_equal(v + 60, "\x05\x06\x07\x08", 4);
	assert_memory_equal(v + 76, "\x09\x0a\x0b\x0c", 4);
	assert_memory_equal(v + 80, "\x05\x06\x07\x08\x09\x0a\0\0\x0b\x0c\x0d\x0e\0\0\0\0", 16);
	assert_int_equal(v[103], 0x1f);
	assert_int_equal(v[111], 0x2f);
	assert_memory_equal(v + 112, "bob\0", 4);
}

enum kind { TCP, UDP, PLAIN, RENEW, CLOSE, PING, LIST };

static struct gate_request base(enum kind k)
{
	struct gate_request r = {.seq = 7};

	switch (k) {
	case TCP:
		return tcp_open();
	case UDP:
		return udp_open();
	case PLAIN:
		r = udp_open();
		r.flags = 0;
		r.remote.port = 53;
		memset(r.key, 0, sizeof(r.key));
		return r;
	case RENEW:
		r.op = GATE_RENEW;
		r.hole = 1;
		r.lifetime_s = 1;
		return r;
	case CLOSE:
		r.op = GATE_CLOSE;
		r.hole = 1;
		return r;
	case PING:
		r.op = GATE_PING;
		return r;
	default:
		r.op = GATE_LIST;
		return r;
	}
}

/* One row writes `n` bytes of value `v` (big-endian) at `at` of a valid record. */
static const struct {
	const char *what;
	enum kind kind;
	size_t at, n;
	uint64_t v;
	int want;
} row[] = {
	{"version 0", TCP, 0, 1, 0, -EBADMSG},
	{"version 2", TCP, 0, 1, 2, -EBADMSG},
	{"op 0", PING, 1, 1, 0, -EBADMSG},
	{"op past the last", PING, 1, 1, GATE_OPS, -EBADMSG},
	{"op 255", PING, 1, 1, 255, -EBADMSG},
	{"proto ICMP", TCP, 2, 1, IPPROTO_ICMP, -EBADMSG},
	{"proto 0", TCP, 2, 1, 0, -EBADMSG},
	{"an unknown flag", PLAIN, 3, 1, 2, -EBADMSG},
	{"TAG on TCP", TCP, 3, 1, 1, -EBADMSG},
	{"TAG without a key", PLAIN, 3, 1, 1, -EBADMSG},
	{"a key without TAG", UDP, 3, 1, 0, -EBADMSG},
	{"a key on TCP", TCP, 111, 1, 1, -EBADMSG},
	{"reserved byte 4", TCP, 4, 1, 1, -EBADMSG},
	{"reserved byte 7", TCP, 7, 1, 1, -EBADMSG},
	{"hole on OPEN", TCP, 16, 8, 1, -EBADMSG},
	{"inside unset", TCP, 44, 4, 0, -EBADMSG},
	{"inside ::", TCP, 40, 8, 0, -EBADMSG},
	{"remote unset on TCP", TCP, 60, 4, 0, -EBADMSG},
	{"remote unset on untagged UDP", PLAIN, 60, 4, 0, -EBADMSG},
	{"remote unset with a tag", UDP, 60, 4, 0, 0},
	{"remote IPv6, inside IPv4", TCP, 48, 1, 0x20, -EBADMSG},
	{"inside port 0", TCP, 64, 2, 0, -EBADMSG},
	{"remote port 0 on untagged UDP", PLAIN, 66, 2, 0, -EBADMSG},
	{"remote port set on TCP", TCP, 66, 2, 65535, 0},
	{"lifetime 0", TCP, 68, 4, 0, -EBADMSG},
	{"lifetime 1", TCP, 68, 4, 1, 0},
	{"lifetime 86400", TCP, 68, 4, 86400, 0},
	{"lifetime 86401", TCP, 68, 4, 86401, -EBADMSG},
	{"connect 0", TCP, 72, 4, 0, 0},
	{"connect 300", TCP, 72, 4, 300, 0},
	{"connect 301", TCP, 72, 4, 301, -EBADMSG},
	{"connect on UDP", UDP, 72, 4, 1, -EBADMSG},
	{"SYN rate 1000", TCP, 76, 4, 1000, 0},
	{"SYN rate 1001", TCP, 76, 4, 1001, -EBADMSG},
	{"SYN rate on UDP", UDP, 76, 4, 1, -EBADMSG},
	{"idle 86400", TCP, 80, 4, 86400, 0},
	{"idle 86401", TCP, 80, 4, 86401, -EBADMSG},
	{"packets at most", TCP, 84, 4, GATE_PACKETS_PER_S_MAX, 0},
	{"packets too many", TCP, 84, 4, GATE_PACKETS_PER_S_MAX + 1, -EBADMSG},
	{"bytes at most", TCP, 88, 8, GATE_BYTES_PER_S_MAX, 0},
	{"bytes too many", TCP, 88, 8, GATE_BYTES_PER_S_MAX + 1, -EBADMSG},
	{"bytes huge", TCP, 88, 8, UINT64_MAX, -EBADMSG},
	{"no user", TCP, 112, 5, 0, -EBADMSG},
	{"a space in the user", TCP, 113, 1, ' ', -EBADMSG},
	{"NUL inside the user", TCP, 114, 1, 0, -EBADMSG},
	{"a byte past the user", TCP, 170, 1, 'x', -EBADMSG},
	{"a quote in the user", TCP, 112, 1, '"', -EBADMSG},
	{"high bit in the user", TCP, 112, 1, 0xc3, -EBADMSG},
	{"the user's bytes at most", TCP, 176, 8, GATE_BYTES_PER_S_MAX, 0},
	{"the user's bytes too many", TCP, 176, 8, GATE_BYTES_PER_S_MAX + 1, -EBADMSG},
	{"the user's packets at most", TCP, 184, 4, GATE_PACKETS_PER_S_MAX, 0},
	{"the user's packets too many", TCP, 184, 4, GATE_PACKETS_PER_S_MAX + 1, -EBADMSG},
	{"no rate of the user", TCP, 176, 12, 0, 0},
	{"reserved byte 188", TCP, 188, 1, 1, -EBADMSG},
	{"reserved byte 191", TCP, 191, 1, 1, -EBADMSG},
	{"RENEW of hole 0", RENEW, 16, 8, 0, -EBADMSG},
	{"RENEW for 0", RENEW, 68, 4, 0, -EBADMSG},
	{"RENEW for too long", RENEW, 68, 4, 86401, -EBADMSG},
	{"RENEW with a proto", RENEW, 2, 1, IPPROTO_TCP, -EBADMSG},
	{"RENEW with a cookie", RENEW, 31, 1, 1, -EBADMSG},
	{"RENEW with an address", RENEW, 47, 1, 1, -EBADMSG},
	{"CLOSE of hole 0", CLOSE, 16, 8, 0, -EBADMSG},
	{"CLOSE with a lifetime", CLOSE, 71, 1, 1, -EBADMSG},
	{"CLOSE with a remote", CLOSE, 63, 1, 1, -EBADMSG},
	{"CLOSE with a user", CLOSE, 112, 1, 'a', -EBADMSG},
	{"CLOSE with a key", CLOSE, 96, 1, 1, -EBADMSG},
	{"PING of a hole", PING, 23, 1, 1, -EBADMSG},
	{"PING with a rate", PING, 95, 1, 1, -EBADMSG},
	{"PING with packets", PING, 87, 1, 1, -EBADMSG},
	{"RENEW with the user's bytes", RENEW, 183, 1, 1, -EBADMSG},
	{"CLOSE with the user's packets", CLOSE, 187, 1, 1, -EBADMSG},
	{"LIST with flags", LIST, 3, 1, 1, -EBADMSG},
	{"LIST with ports", LIST, 65, 1, 1, -EBADMSG},
	{"LIST with idle", LIST, 83, 1, 1, -EBADMSG},
};

static void every_field_out_of_range(void **state)
{
	uint8_t w[GATE_REQUEST_BYTES];
	struct gate_request r, out;

	(void)state;
	for (size_t i = 0; i < sizeof(row) / sizeof(row[0]); i++) {
		r = base(row[i].kind);
		gate_request_encode(&r, w);
		assert_int_equal(gate_request_decode(w, &out), 0);
		for (size_t k = 0; k < row[i].n; k++)
			w[row[i].at + k] = (uint8_t)(row[i].v >> 8 * (row[i].n - 1 - k) % 64);
		memset(&out, 0x5a, sizeof(out));
		if (gate_request_decode(w, &out) != row[i].want)
			fail_msg("%s", row[i].what);
		if (row[i].want != 0) {
			assert_int_equal(out.seq, r.seq);
			assert_true(out.op < GATE_OPS);
			assert_int_equal(out.lifetime_s, 0);
			assert_int_equal(out.user[0], 0);
		}
	}
}

static void longest_user(void **state)
{
	uint8_t w[GATE_REQUEST_BYTES];
	struct gate_request r = tcp_open(), out;

	(void)state;
	memset(r.user, 'z', GATE_USER_MAX);
	gate_request_encode(&r, w);
	assert_int_equal(gate_request_decode(w, &out), 0);
	assert_int_equal(strlen(out.user), GATE_USER_MAX);
	w[112 + GATE_USER_MAX] = 'z';
	assert_int_equal(gate_request_decode(w, &out), -EBADMSG);
}

static void replies(void **state)
{
	static const struct {
		size_t at;
		uint8_t v;
	} bad[] = {{0, 0},  {0, 2},  {1, 0},  {1, GATE_OPS}, {2, GATE_STATUSES}, {3, 1},   {4, 2},   {5, 1},  {7, 1},
		   {86, 1}, {92, 1}, {95, 1}, {112, 0},      {113, ' '},         {175, 1}, {176, 1}, {191, 1}};
	struct gate_reply r = {.op = GATE_LIST,
			       .status = GATE_OK,
			       .proto = IPPROTO_TCP,
			       .seq = UINT64_MAX,
			       .hole = 77,
			       .cookie = 88,
			       .inside = v4(10, 0, 0, 1, 22),
			       .remote = v4(10, 0, 0, 2, 5),
			       .public = v4(10, 0, 0, 3, 65535),
			       .lifetime_s = 5,
			       .packets = 1ull << 40,
			       .bytes = 1ull << 50,
			       .user = "al.ice_-9"};
	struct gate_reply out;
	uint8_t w[GATE_REPLY_BYTES];

	(void)state;
	gate_reply_encode(&r, w);
	assert_int_equal(gate_reply_decode(w, &out), 0);
	assert_int_equal(out.seq, r.seq);
	assert_int_equal(out.hole, 77);
	assert_int_equal(out.cookie, 88);
	assert_memory_equal(out.public.ip, r.public.ip, 16);
	assert_int_equal(out.public.port, 65535);
	assert_int_equal(out.inside.port, 22);
	assert_int_equal(out.remote.port, 5);
	assert_int_equal(out.lifetime_s, 5);
	assert_int_equal(out.packets, r.packets);
	assert_int_equal(out.bytes, r.bytes);
	assert_string_equal(out.user, r.user);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		gate_reply_encode(&r, w);
		w[bad[i].at] = bad[i].v;
		if (gate_reply_decode(w, &out) != -EBADMSG)
			fail_msg("reply byte %zu = %u", bad[i].at, bad[i].v);
	}
	r = (struct gate_reply){.status = GATE_BAD_RECORD};
	gate_reply_encode(&r, w);
	assert_int_equal(gate_reply_decode(w, &out), 0);
}

static void statuses_have_names(void **state)
{
	(void)state;
	for (unsigned s = 0; s < GATE_STATUSES; s++)
		assert_string_not_equal(gate_status_name(s), "unknown");
	assert_string_equal(gate_status_name(GATE_STATUSES), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip_of_every_op),
		cmocka_unit_test(encoder_writes_only_what_the_op_uses),
		cmocka_unit_test(bytes_are_where_the_protocol_says),
		cmocka_unit_test(every_field_out_of_range),
		cmocka_unit_test(longest_user),
		cmocka_unit_test(replies),
		cmocka_unit_test(statuses_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
