/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets that strangers hand in: nothing that was not issued is taken, and what was is taken until one bit of it differs. */
#include <errno.h>

#include "fuzz.h"
#include "ticket/nonce.h"
#include "ticket/route.h"
#include "ticket/tag.h"

static const uint8_t key[16] = "a key of sixteen";

static void strangers(struct span in)
{
	static struct nonce_window *w;
	static const struct wn_addr src = {.ip = {0x20, 1, 0xd, 0xb8}, .port = 1};
	struct route_token t;
	enum nonce_verdict v;
	uint64_t number = 0;
	int r;

	if (w == NULL)
		CHECK(nonce_window_new(10, 30000, NULL, &w) == 0);
	r = route_token_open(in, key, 0, &t);
	CHECK(r == -EINVAL || r == -EBADMSG);
	v = nonce_check(w, in, &src, in, 0, 1000, &number);
	CHECK(v == NONCE_MALFORMED || v == NONCE_FOREIGN);
	CHECK(!tag_verify((const uint8_t *)in.p, in.n, key, &number));
}

static void flip(char *text, size_t n, struct span *in)
{
	struct span s = take(in, 2);
	unsigned bit = s.n == 2 ? (unsigned)(uint8_t)s.p[0] << 8 | (uint8_t)s.p[1] : 0;

	bit %= (unsigned)n * 8;
	text[bit / 8] = (char)(text[bit / 8] ^ 1 << bit % 8);
}

static void token(struct span in)
{
	struct route_token t = {.expires_unix_s = 1}, o;
	char text[ROUTE_TOKEN_CHARS];
	struct span s = take(&in, sizeof(t.client.ip));

	memcpy(t.client.ip, s.p, s.n);
	t.client.port = (uint16_t)in.n;
	s = take(&in, sizeof(t.agent));
	memcpy(&t.agent, s.p, s.n);
	s = take(&in, sizeof(t.expires_unix_s));
	memcpy(&t.expires_unix_s, s.p, s.n);
	if (t.expires_unix_s == 0)
		return;
	route_token_seal(&t, key, text);
	CHECK(route_token_open(span_of(text, sizeof(text)), key, t.expires_unix_s - 1, &o) == 0);
	CHECK(wn_addr_eq(&t.client, &o.client) && t.agent == o.agent && t.expires_unix_s == o.expires_unix_s);
	CHECK(route_token_open(span_of(text, sizeof(text)), key, t.expires_unix_s, &o) == -ETIMEDOUT);
	flip(text, sizeof(text), &in);
	CHECK(route_token_open(span_of(text, sizeof(text)), key, 0, &o) != 0);
}

static void nonce(struct span in)
{
	static struct nonce_window *w;
	static struct nonce_issuer issuer;
	struct wn_addr src = {.port = 5};
	char text[NONCE_CHARS];
	uint64_t number, other;
	struct span s = take(&in, sizeof(src.ip));

	if (w == NULL) {
		CHECK(nonce_window_new(10, 30000, key, &w) == 0);
		nonce_issuer_init(&issuer, w);
	}
	memcpy(src.ip, s.p, s.n);
	nonce_issue(&issuer, &src, in, in.n, 1000, text);
	CHECK(nonce_check(w, span_of(text, sizeof(text)), &src, in, in.n, 1000, &number) == NONCE_OK);
	CHECK(nonce_use(w, number) == NONCE_OK && nonce_use(w, number) == NONCE_USED);
	CHECK(nonce_check(w, span_of(text, sizeof(text)), &src, in, in.n, 1000, &other) == NONCE_USED && other == number);
	CHECK(nonce_check(w, span_of(text, sizeof(text)), &src, in, in.n + 1, 1000, &other) == NONCE_FOREIGN);
	CHECK(nonce_check(w, span_of(text, sizeof(text)), &src, in, in.n, 60000, &other) == NONCE_EXPIRED);
	flip(text, sizeof(text), &in);
	CHECK(nonce_check(w, span_of(text, sizeof(text)), &src, span_of(in.p - 2, in.n + 2), in.n, 1000, &other) >= NONCE_MALFORMED);
}

static void tag(struct span in)
{
	uint8_t *packet = malloc(in.n + TAG_BYTES);
	struct tag_window w = {0};
	uint64_t counter, seen;

	CHECK(packet != NULL);
	if (in.n != 0)
		memcpy(packet, in.p, in.n);
	counter = in.n * 0x9e3779b97f4a7c15u;
	tag_seal(packet, in.n, counter, key);
	CHECK(tag_verify(packet, in.n + TAG_BYTES, key, &seen) && seen == counter);
	flip((char *)packet, in.n + TAG_BYTES, &in);
	free(packet);
	/* Counters straight from the input, against what a window must never do. */
	while (in.n >= sizeof(counter)) {
		memcpy(&counter, take(&in, sizeof(counter)).p, sizeof(counter));
		if (in.n % 2)
			counter = w.top + (counter & 0x7ff) - 1024;
		if (tag_window_accept(&w, counter))
			CHECK(counter != 0 && w.top >= counter && w.top - counter <= (TAG_WINDOW_WORDS - 1) * 64);
		CHECK(!tag_window_accept(&w, counter));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct span in = span_of(data, n);

	strangers(in);
	token(in);
	nonce(in);
	tag(in);
	return 0;
}
