/* SPDX-License-Identifier: Apache-2.0 */
/* A SOCKS5 handshake: what comes of it does not depend on how the bytes were cut, and nothing is read past the end of a message. */
#include <string.h>

#include "client/socks.h"
#include "fuzz.h"

struct course {
	struct socks s;
	enum socks_result last;
	size_t taken;
	uint8_t methods[2];
	bool asked;
};

static void feed(struct course *c, struct span in, size_t piece)
{
	memset(c, 0, sizeof(*c));
	socks_init(&c->s);
	c->last = SOCKS_MORE;
	while (in.n > 0 && (c->last == SOCKS_MORE || c->last == SOCKS_METHOD)) {
		/* a copy of its own, so that a byte too far is noticed */
		size_t n = piece < in.n ? piece : in.n, taken = n + 1;
		uint8_t *p = malloc(n);

		CHECK(p != NULL);
		memcpy(p, in.p, n);
		c->last = socks_feed(&c->s, p, n, &taken);
		free(p);
		CHECK(taken <= n && (taken == n || c->last != SOCKS_MORE));
		CHECK(c->s.len <= SOCKS_BUF && c->s.reply_len <= SOCKS_REPLY_MAX);
		if (c->last == SOCKS_METHOD) {
			CHECK(!c->asked && c->s.reply_len == 2 && c->s.reply[0] == 5 && c->s.reply[1] == 0);
			c->asked = true;
		}
		c->taken += taken;
		take(&in, taken);
	}
	if (c->last == SOCKS_REQUEST)
		CHECK(c->asked && c->s.name.n > 0 && c->s.name.n <= SOCKS_NAME_MAX &&
		      inside(c->s.name, span_of(c->s.buf, sizeof(c->s.buf))));
	if (c->last == SOCKS_REJECT)
		CHECK(c->s.reply_len == 0 || c->s.reply[0] == 5);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct course whole, cut;
	struct span in = span_of(data, n);
	const size_t piece[] = {1, 2 + n % 61};

	feed(&whole, in, n);
	for (unsigned i = 0; i < sizeof(piece) / sizeof(piece[0]); i++) {
		feed(&cut, in, piece[i]);
		CHECK(cut.last == whole.last && cut.taken == whole.taken && cut.asked == whole.asked);
		CHECK(cut.s.port == whole.s.port && span_eq(cut.s.name, whole.s.name));
		CHECK(cut.s.reply_len == whole.s.reply_len && memcmp(cut.s.reply, whole.s.reply, whole.s.reply_len) == 0);
	}
	return 0;
}
