/* SPDX-License-Identifier: Apache-2.0 */
/* update_open: nothing unsigned is taken; and behind a good signature, which the target adds, everything that decodes encodes again. */
#include <errno.h>
#include <sodium.h>

#include "fuzz.h"
#include "userdb/update.h"

static void check_ops(const struct update_msg *m, struct span in)
{
	struct span rest = m->ops;
	struct user_op op;
	uint32_t count = 0;
	int r;

	while ((r = user_op_next(&rest, &op)) == 1) {
		CHECK(user_name_valid(op.name) && inside(op.name, in) && inside(rest, in));
		CHECK(op.kind == USER_SET || op.kind == USER_DEL);
		CHECK((op.sha256 != NULL) == ((op.flags & USER_HAS_SHA256) != 0) && (op.md5 != NULL) == ((op.flags & USER_HAS_MD5) != 0));
		CHECK(op.sha256 == NULL || inside(span_of(op.sha256, 32), in));
		CHECK(op.md5 == NULL || inside(span_of(op.md5, 16), in));
		count++;
	}
	CHECK(r == 0 && count == m->nops);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	static uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];
	static bool ready;
	struct update_msg m;
	struct user_op op;
	struct span rest;
	uint8_t *signed_copy;
	int r;

	if (!ready) {
		static const uint8_t seed[crypto_sign_SEEDBYTES] = {1};

		CHECK(sodium_init() >= 0 && crypto_sign_seed_keypair(pk, sk, seed) == 0);
		ready = true;
	}
	r = update_open(span_of(data, n), pk, &m);
	CHECK(r == -EINVAL || r == -EBADMSG);
	rest = span_of(data, n);
	while (user_op_next(&rest, &op) == 1)
		CHECK(inside(rest, span_of(data, n)));

	signed_copy = malloc(n + crypto_sign_BYTES);
	CHECK(signed_copy != NULL);
	if (n != 0)
		memcpy(signed_copy, data, n);
	crypto_sign_detached(signed_copy + n, NULL, signed_copy, n, sk);
	if (update_open(span_of(signed_copy, n + crypto_sign_BYTES), pk, &m) == 0) {
		struct span in = span_of(signed_copy, n);

		CHECK(inside(m.domain, in) && inside(m.ops, in) && m.chunk < m.chunks);
		check_ops(&m, in);
		signed_copy[n] ^= 1;
		CHECK(update_open(span_of(signed_copy, n + crypto_sign_BYTES), pk, &m) == -EBADMSG);
	}
	free(signed_copy);
	return 0;
}
