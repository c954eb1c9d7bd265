/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "userdb/file.h"

#define EPOCH   20781u
#define NOW     1789000000000u
#define RECORDS 16u

static const struct span domain = {"example.org", 11};
static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET], other_sk[UPDATE_SIGN_SECRET];

/* A file as records that can be left out, changed and put in another order. */
struct book {
	struct update_head head;
	uint64_t unix_ms;
	uint32_t epoch;
	unsigned n;
	size_t len[RECORDS];
	uint8_t msg[RECORDS][1024];
};

static void set(struct update_buf *b, const char *name, uint32_t epoch, uint8_t fill)
{
	uint8_t key[32];
	struct user_op op = {USER_SET, span_str(name), USER_HAS_SHA256, epoch, key, NULL};

	memset(key, fill, sizeof(key));
	assert_int_equal(update_add(b, &op), 0);
}

static void begin(struct book *k, struct update_buf *b, enum update_type type, uint32_t chunk, uint32_t chunks)
{
	struct update_msg m = {.type = type,
			       .domain = domain,
			       .at = k->head,
			       .unix_ms = k->unix_ms,
			       .epoch = k->epoch,
			       .epoch_s = 86400,
			       .chunk = chunk,
			       .chunks = chunks};

	assert_true(k->n < RECORDS);
	if (type == UPDATE_CHANGE)
		m.at.seq++;
	update_begin(b, k->msg[k->n], sizeof(k->msg[0]), &m);
}

static void end(struct book *k, struct update_buf *b, const uint8_t *key)
{
	uint8_t hash[UPDATE_HEAD_BYTES];
	long n = update_end(b, key, hash);

	assert_true(n > 0);
	if (k->msg[k->n][4] == UPDATE_CHANGE) {
		k->head.seq++;
		memcpy(k->head.hash, hash, sizeof(hash));
	}
	k->len[k->n++] = (size_t)n;
}

static void change(struct book *k, const char *name, uint8_t fill)
{
	struct update_buf b;

	begin(k, &b, UPDATE_CHANGE, 0, 1);
	set(&b, name, k->epoch, fill);
	set(&b, name, k->epoch + 1, (uint8_t)(fill + 1));
	end(k, &b, sk);
}

static void del(struct book *k, const char *name)
{
	struct user_op op = {.kind = USER_DEL, .name = span_str(name)};
	struct update_buf b;

	begin(k, &b, UPDATE_CHANGE, 0, 1);
	assert_int_equal(update_add(&b, &op), 0);
	end(k, &b, sk);
}

/* Three chunks of one user each, at update 7, then two changes. */
static void start(struct book *k)
{
	static const char *const name[] = {"alice", "bob", "carol"};
	struct update_buf b;

	memset(k, 0, sizeof(*k));
	k->unix_ms = NOW;
	k->epoch = EPOCH;
	k->head.seq = 7;
	memset(k->head.hash, 7, sizeof(k->head.hash));
	for (uint32_t i = 0; i < 3; i++) {
		begin(k, &b, UPDATE_SNAPSHOT, i, 3);
		set(&b, name[i], EPOCH, (uint8_t)(10 * i));
		set(&b, name[i], EPOCH + 1, (uint8_t)(10 * i + 1));
		end(k, &b, sk);
	}
	change(k, "dave", 40);
	del(k, "alice");
}

static size_t lay_out(const struct book *k, uint8_t *out)
{
	size_t n = USER_FILE_MAGIC_BYTES;

	memcpy(out, USER_FILE_MAGIC, n);
	for (unsigned i = 0; i < k->n; i++) {
		user_file_length(k->len[i], out + n);
		memcpy(out + n + USER_FILE_LENGTH, k->msg[i], k->len[i]);
		n += USER_FILE_LENGTH + k->len[i];
	}
	return n;
}

static int load_bytes(const uint8_t *p, size_t n, struct user_table *t, struct user_file_info *info)
{
	int fd = memfd_create("users", MFD_CLOEXEC), rc;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, n), (ssize_t)n);
	rc = user_file_load(fd, t, domain, pk, info);
	close(fd);
	return rc;
}

static int load(const struct book *k, struct user_table *t, struct user_file_info *info)
{
	static uint8_t bytes[RECORDS * 1100];

	return load_bytes(bytes, lay_out(k, bytes), t, info);
}

static bool has(const struct user_table *t, const char *name, uint32_t epoch, uint8_t fill)
{
	struct user_keys keys;

	return user_table_find(t, span_str(name), epoch, &keys) && keys.sha256[0] == fill && keys.sha256[31] == fill;
}

static void assert_empty(const struct user_table *t)
{
	struct table_state s;

	user_table_state(t, &s);
	assert_int_equal(s.users, 0);
	assert_int_equal(s.head.seq, 0);
	assert_int_equal(s.publisher_ms, 0);
	assert_false(has(t, "bob", EPOCH, 10));
}

static uint64_t seq(const struct user_table *t)
{
	struct table_state s;

	user_table_state(t, &s);
	return s.head.seq;
}

static void test_whole(void **state)
{
	struct user_file_info info;
	struct user_table *t;
	struct table_state s;
	struct book k;

	(void)state;
	start(&k);
	assert_int_equal(user_table_new(&t), 0);
	assert_int_equal(load(&k, t, &info), 0);
	user_table_state(t, &s);
	assert_int_equal(s.users, 3);
	assert_int_equal(s.head.seq, 9);
	assert_memory_equal(s.head.hash, k.head.hash, sizeof(s.head.hash));
	assert_int_equal(s.publisher_ms, NOW);
	assert_int_equal(s.epoch, EPOCH);
	assert_false(has(t, "alice", EPOCH, 0));
	assert_true(has(t, "bob", EPOCH, 10));
	assert_true(has(t, "carol", EPOCH + 1, 21));
	assert_true(has(t, "dave", EPOCH, 40));
	assert_int_equal(info.records, 5);
	assert_int_equal(info.changes, 2);
	assert_int_equal(info.torn, 0);
	/* nothing and nonsense */
	assert_int_equal(user_table_clear(t), 0);
	assert_empty(t);
	assert_int_equal(load_bytes((const uint8_t *)"", 0, t, &info), -ENODATA);
	assert_int_equal(load_bytes((const uint8_t *)"WLNUSER", 7, t, &info), -EBADMSG);
	assert_int_equal(load_bytes((const uint8_t *)"WLNUSER2", 8, t, &info), -EBADMSG);
	assert_int_equal(load_bytes((const uint8_t *)"WLNUSER1", 8, t, &info), -EBADMSG);
	assert_empty(t);
	user_table_free(t);
}

/* A damaged file gives nothing; but what hides the end of a file behind a length gives what the publisher signed before it. */
static void test_every_byte(void **state)
{
	static uint8_t bytes[RECORDS * 1100];
	size_t n, edge[RECORDS + 1], at = USER_FILE_MAGIC_BYTES;
	struct user_file_info info;
	struct user_table *t;
	struct book k;
	unsigned cut = 0;

	(void)state;
	start(&k);
	n = lay_out(&k, bytes);
	for (unsigned i = 0; i < k.n; i++, at += USER_FILE_LENGTH + k.len[i - 1])
		edge[i] = at;
	edge[k.n] = at;
	assert_int_equal(at, n);
	for (size_t i = 0; i < n; i++) {
		for (unsigned bit = 0; bit < 8; bit += 7) {
			unsigned record = 0;
			int rc;

			while (record < k.n && i >= edge[record + 1])
				record++;
			assert_int_equal(user_table_new(&t), 0);
			bytes[i] ^= (uint8_t)(1u << bit);
			rc = load_bytes(bytes, n, t, &info);
			bytes[i] ^= (uint8_t)(1u << bit);
			if (rc == 0) {
				assert_true(record >= 3 && i - edge[record] < USER_FILE_LENGTH);
				assert_int_equal(info.torn, n - edge[record]);
				assert_int_equal(info.bytes, edge[record]);
				assert_int_equal(seq(t), 7 + record - 3);
				cut++;
			} else {
				assert_int_equal(rc, -EBADMSG);
				assert_true(info.form != NULL || info.why != TABLE_OK);
				assert_empty(t);
			}
			user_table_free(t);
		}
	}
	assert_in_range(cut, 1, 8);
}

/* Cut anywhere: what was whole behind the snapshot counts, and says where to go on. */
static void test_every_length(void **state)
{
	static uint8_t bytes[RECORDS * 1100];
	struct user_file_info info;
	struct user_table *t;
	struct book k;
	size_t n, base, first;

	(void)state;
	start(&k);
	n = lay_out(&k, bytes);
	first = n - k.len[4] - USER_FILE_LENGTH;
	base = first - k.len[3] - USER_FILE_LENGTH;
	assert_int_equal(user_table_new(&t), 0);
	for (size_t cut = 0; cut <= n; cut++) {
		size_t edge = cut >= n ? n : cut >= first ? first : base;
		int rc = load_bytes(bytes, cut, t, &info);

		if (cut < base) {
			assert_int_equal(rc, cut == 0 ? -ENODATA : -EBADMSG);
			assert_int_equal(info.bytes, 0);
			assert_empty(t);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_int_equal(info.bytes, edge);
		assert_int_equal(info.torn, cut - edge);
		assert_int_equal(seq(t), edge == n ? 9 : edge == first ? 8 : 7);
		assert_int_equal(user_table_clear(t), 0);
	}
	/* the end was allotted, its data was not written */
	memset(bytes + n, 0, 600);
	assert_int_equal(load_bytes(bytes, n + 600, t, &info), 0);
	assert_int_equal(info.bytes, n);
	assert_int_equal(info.torn, 600);
	assert_int_equal(user_table_clear(t), 0);
	bytes[n + 599] = 1;
	assert_int_equal(load_bytes(bytes, n + 600, t, &info), -EBADMSG);
	assert_empty(t);
	user_table_free(t);
}

static void leave_out(struct book *k, unsigned i)
{
	for (; i + 1 < k->n; i++) {
		memcpy(k->msg[i], k->msg[i + 1], sizeof(k->msg[0]));
		k->len[i] = k->len[i + 1];
	}
	k->n--;
}

static void swap(struct book *k, unsigned a, unsigned b)
{
	uint8_t msg[1024];
	size_t len = k->len[a];

	memcpy(msg, k->msg[a], sizeof(msg));
	memcpy(k->msg[a], k->msg[b], sizeof(msg));
	memcpy(k->msg[b], msg, sizeof(msg));
	k->len[a] = k->len[b];
	k->len[b] = len;
}

static void refused(const struct book *k, enum table_verdict why)
{
	struct user_file_info info;
	struct user_table *t;

	assert_int_equal(user_table_new(&t), 0);
	assert_int_equal(load(k, t, &info), -EBADMSG);
	assert_int_equal(info.why, why);
	assert_true((info.form != NULL) == (why == TABLE_OK));
	assert_empty(t);
	user_table_free(t);
}

static void test_tampered(void **state)
{
	struct user_file_info info;
	struct user_table *t;
	struct update_buf b;
	struct book k;

	(void)state;
	for (unsigned i = 0; i < 3; i++) { /* a chunk is missing */
		start(&k);
		leave_out(&k, i);
		refused(&k, i == 1 ? TABLE_GAP : TABLE_OK);
	}
	start(&k); /* a change is */
	leave_out(&k, 3);
	refused(&k, TABLE_GAP);
	for (unsigned i = 0; i < 4; i++) { /* in another order */
		start(&k);
		swap(&k, i, i + 1);
		refused(&k, i == 0 || i == 2 ? TABLE_OK : TABLE_GAP);
	}
	start(&k); /* twice */
	memcpy(k.msg[k.n], k.msg[4], sizeof(k.msg[0]));
	k.len[k.n++] = k.len[4];
	refused(&k, TABLE_CURRENT);
	start(&k); /* a chunk of an older one, well signed */
	k.unix_ms = NOW - 1;
	k.n = 1;
	begin(&k, &b, UPDATE_SNAPSHOT, 1, 3);
	end(&k, &b, sk);
	k.n = 5;
	refused(&k, TABLE_GAP);
	start(&k); /* forged: another's key */
	k.n = 1;
	k.head.seq = 7;
	memset(k.head.hash, 7, sizeof(k.head.hash));
	begin(&k, &b, UPDATE_SNAPSHOT, 1, 3);
	set(&b, "mallory", EPOCH, 66);
	end(&k, &b, other_sk);
	k.n = 5;
	refused(&k, TABLE_FORGED);
	start(&k); /* what has no place in a file */
	begin(&k, &b, UPDATE_HEARTBEAT, 0, 1);
	end(&k, &b, sk);
	refused(&k, TABLE_OK);
	start(&k);
	begin(&k, &b, UPDATE_SNAPSHOT, 0, 1);
	end(&k, &b, sk);
	refused(&k, TABLE_OK);
	start(&k); /* a snapshot that begins again */
	memcpy(k.msg[1], k.msg[0], sizeof(k.msg[0]));
	k.len[1] = k.len[0];
	refused(&k, TABLE_OK);

	/* another tenant's */
	start(&k);
	assert_int_equal(user_table_new(&t), 0);
	{
		static uint8_t bytes[RECORDS * 1100];
		int fd = memfd_create("users", MFD_CLOEXEC);
		size_t n = lay_out(&k, bytes);

		assert_int_equal(write(fd, bytes, n), (ssize_t)n);
		assert_int_equal(user_file_load(fd, t, SPAN_LIT("example.net"), pk, &info), -EBADMSG);
		assert_int_equal(info.why, TABLE_WRONG_DOMAIN);
		assert_int_equal(info.bad_at, USER_FILE_MAGIC_BYTES);
		/* and from the beginning again, wherever the descriptor stands */
		assert_int_equal(user_file_load(fd, t, domain, pk, &info), 0);
		close(fd);
	}
	user_table_free(t);
}

/* An old file put back is what it says, and the next heartbeat says that it is old. */
static void test_rollback(void **state)
{
	struct user_file_info info;
	struct user_table *t;
	struct update_buf b;
	struct book k;

	(void)state;
	start(&k);
	assert_int_equal(user_table_new(&t), 0);
	k.n = 3;
	assert_int_equal(load(&k, t, &info), 0);
	assert_int_equal(seq(t), 7);
	assert_true(has(t, "alice", EPOCH, 0));
	k.n = 5;
	k.unix_ms += 1000;
	begin(&k, &b, UPDATE_HEARTBEAT, 0, 1);
	end(&k, &b, sk);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(k.msg[5], k.len[5])), TABLE_GAP);
	/* the changes that it lacks make it current */
	assert_int_equal(user_table_apply(t, domain, pk, span_of(k.msg[3], k.len[3])), TABLE_OK);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(k.msg[4], k.len[4])), TABLE_OK);
	assert_int_equal(user_table_apply(t, domain, pk, span_of(k.msg[5], k.len[5])), TABLE_CURRENT);
	assert_false(has(t, "alice", EPOCH, 0));
	user_table_free(t);
}

/* Without its beginning a chain still says what it says, and no deleted user comes back. */
static void test_rest_of_a_chain(void **state)
{
	struct user_file_info info;
	struct user_table *t;
	struct table_state s;
	struct book k;

	(void)state;
	start(&k);
	leave_out(&k, 0);
	leave_out(&k, 0);
	leave_out(&k, 0);
	change(&k, "erin", 50);
	assert_int_equal(user_table_new(&t), 0);
	assert_int_equal(load(&k, t, &info), 0);
	user_table_state(t, &s);
	assert_int_equal(s.users, 2);
	assert_int_equal(s.head.seq, 10);
	assert_memory_equal(s.head.hash, k.head.hash, sizeof(s.head.hash));
	assert_true(has(t, "dave", EPOCH + 1, 41));
	assert_true(has(t, "erin", EPOCH, 50));
	assert_false(has(t, "alice", EPOCH, 0));
	/* only the first may follow nothing */
	assert_int_equal(user_table_resume(t, domain, pk, span_of(k.msg[2], k.len[2])), TABLE_GAP);
	assert_int_equal(user_table_clear(t), 0);
	assert_int_equal(user_table_resume(t, domain, pk, span_of(k.msg[1], k.len[1])), TABLE_OK);
	assert_int_equal(user_table_clear(t), 0);
	k.msg[0][k.len[0] - 1] ^= 1;
	assert_int_equal(user_table_resume(t, domain, pk, span_of(k.msg[0], k.len[0])), TABLE_FORGED);
	user_table_free(t);
}

static void test_what_may_be_dropped(void **state)
{
	struct user_file_epochs e = {0};

	(void)state;
	assert_int_equal(user_file_droppable(&e), USER_FILE_MAGIC_BYTES);
	user_file_epochs_note(&e, 5, 8);
	user_file_epochs_note(&e, 5, 100);
	assert_int_equal(user_file_droppable(&e), 8);
	user_file_epochs_note(&e, 6, 200); /* the keys of 6 may be among those that were published in 5 */
	user_file_epochs_note(&e, 6, 300);
	assert_int_equal(user_file_droppable(&e), 8);
	user_file_epochs_note(&e, 7, 400);
	assert_int_equal(user_file_droppable(&e), 200);
	user_file_epochs_note(&e, 9, 500); /* nothing was said in 8 */
	assert_int_equal(user_file_droppable(&e), 500);
	user_file_epochs_note(&e, 10, 600);
	assert_int_equal(user_file_droppable(&e), 500);
}

static int keys(void **state)
{
	uint8_t unused[UPDATE_SIGN_PUBLIC];

	(void)state;
	return sodium_init() < 0 || crypto_sign_keypair(pk, sk) != 0 || crypto_sign_keypair(unused, other_sk) != 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_every_length),
		cmocka_unit_test(test_tampered),
		cmocka_unit_test(test_rollback),
		cmocka_unit_test(test_rest_of_a_chain),
		cmocka_unit_test(test_what_may_be_dropped),
	};

	return cmocka_run_group_tests(tests, keys, NULL);
}
