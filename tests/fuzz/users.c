/* SPDX-License-Identifier: Apache-2.0 */
/* user_file_load: a file of users is taken whole or not at all, whatever stands in it. The target signs what looks like a message, so that
 * what the publisher would have to say by mistake is tried too. The first byte of the input says which records are signed. */
#include <errno.h>
#include <sodium.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "userdb/file.h"

static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];

/* Signs each record that has room for a signature, unless the bits of `skip` say no. */
static void sign_records(uint8_t *p, size_t n, uint8_t skip)
{
	size_t at = USER_FILE_MAGIC_BYTES;

	for (unsigned i = 0; at + USER_FILE_LENGTH <= n; i++) {
		size_t len = (size_t)p[at] << 24 | (size_t)p[at + 1] << 16 | (size_t)p[at + 2] << 8 | p[at + 3];

		at += USER_FILE_LENGTH;
		if (len > n - at)
			return;
		if (len > crypto_sign_BYTES && (skip >> i % 8 & 1) == 0)
			crypto_sign_detached(p + at + len - crypto_sign_BYTES, NULL, p + at, len - crypto_sign_BYTES, sk);
		at += len;
	}
}

static int load(const uint8_t *p, size_t n, struct user_table *t, struct user_file_info *info)
{
	static int fd = -1;
	size_t done = 0;

	if (fd < 0)
		fd = memfd_create("users", MFD_CLOEXEC);
	CHECK(fd >= 0 && ftruncate(fd, 0) == 0);
	while (done < n) {
		ssize_t k = pwrite(fd, p + done, n - done, (off_t)done);

		CHECK(k > 0);
		done += (size_t)k;
	}
	return user_file_load(fd, t, SPAN_LIT("example.org"), pk, info);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static bool ready;
	struct user_file_info info, again;
	struct table_state s, s2;
	struct user_table *t;
	uint8_t *copy;
	int r;

	if (!ready) {
		static const uint8_t seed[crypto_sign_SEEDBYTES] = {1};

		CHECK(sodium_init() >= 0 && crypto_sign_seed_keypair(pk, sk, seed) == 0);
		ready = true;
	}
	if (n == 0)
		return 0;
	copy = malloc(n);
	CHECK(copy != NULL && user_table_new(&t) == 0);
	memcpy(copy, data + 1, --n);
	sign_records(copy, n, data[0]);
	r = load(copy, n, t, &info);
	user_table_state(t, &s);
	CHECK(r == 0 || r == -ENODATA || r == -EBADMSG);
	CHECK((r == -ENODATA) == (n == 0));
	if (r != 0) {
		CHECK(s.head.seq == 0 && s.users == 0 && s.publisher_ms == 0 && info.bytes == 0);
		CHECK(r == -ENODATA || (info.bad_at <= n && (info.form != NULL) == (info.why == TABLE_OK)));
	} else {
		CHECK(info.bytes + info.torn == n && info.records > 0 && info.changes <= info.records);
		CHECK(user_file_droppable(&info.epochs) >= USER_FILE_MAGIC_BYTES && user_file_droppable(&info.epochs) < info.bytes);
		/* Without what was torn it is the same, and nothing is torn. */
		CHECK(user_table_clear(t) == 0 && load(copy, (size_t)info.bytes, t, &again) == 0);
		user_table_state(t, &s2);
		CHECK(again.torn == 0 && again.bytes == info.bytes && memcmp(&s.head, &s2.head, sizeof(s.head)) == 0 &&
		      s.users == s2.users);
	}
	user_table_free(t);
	free(copy);
	return 0;
}
