/* SPDX-License-Identifier: Apache-2.0 */
#include "ticket/nonce.h"

#include <errno.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/b64.h"
#include "ticket/bytes.h"

/*
 * A word of the ring keeps one block: which lap of the ring the block belongs to, 16 bits, above 16 cells of 3 bits. Taking a block
 * stores a fresh word with the new lap over the old one; using a number is a compare-and-swap on a word of the number's own lap.
 * So a number's "used" is lost only together with its lap, and from then on no swap for it succeeds: it cannot be accepted twice, however
 * threads interleave. The lap repeats after 65,536 rounds; numbers that old are told apart by `head`, read again after the swap.
 */
#define CELL_BITS  3
#define CELL_USED  1ull
#define CELL_FAIL  2ull /* counts in steps of this */
#define CELL_MASK  7ull
#define LAP_SHIFT  (NONCE_BLOCK * CELL_BITS)
#define RING_MIN   10
#define RING_MAX   30
#define TIME_SHIFT 8
#define KEY_BYTES  crypto_shorthash_siphash24_KEYBYTES
#define MAC_BYTES  crypto_shorthash_siphash24_BYTES
#define REALM_MAX  320 /* a longer one goes into the MAC by its hash */

enum { AT_TIME = 0, AT_NUMBER = 4, AT_MAC = 12 };

_Static_assert(LAP_SHIFT == 48, "16 bits are left for the lap");
_Static_assert(NONCE_FAILS_MAX *CELL_FAIL + CELL_USED == CELL_MASK, "the cell's counter ends where its bits do");
_Static_assert(AT_MAC + MAC_BYTES == NONCE_BYTES, "the nonce ends with its MAC");
_Static_assert(NONCE_CHARS == B64URL_LEN(NONCE_BYTES), "the nonce is base64url");

/* The head has a cache line of its own: every thread moves it, and all read what stands before it. */
struct nonce_window { /* NOLINT(clang-analyzer-optin.performance.Padding) */
	uint8_t key[KEY_BYTES];
	uint32_t lifetime_ms;
	unsigned lap_shift; /* block >> lap_shift is its lap */
	uint64_t words;     /* a power of two */
	_Atomic uint64_t *ring;
	_Alignas(64) _Atomic uint64_t head; /* blocks taken */
};

/* What the MAC covers besides the realm; fixed lengths first, so that no two inputs read the same. */
struct scope {
	uint8_t bytes[NONCE_BYTES - MAC_BYTES + 8 + 1 + 8 + 1 + REALM_MAX];
	size_t n;
};

static void mac(const struct nonce_window *w, const uint8_t *head, const struct wn_addr *src, struct span realm, uint64_t scope,
		uint8_t out[MAC_BYTES])
{
	struct scope s;
	bool four = wn_addr_is4(src), hashed = realm.n > REALM_MAX;

	memcpy(s.bytes, head, AT_MAC);
	s.n = AT_MAC;
	put_be64(s.bytes + s.n, scope);
	s.n += 8;
	s.bytes[s.n++] = four ? 4 : 6;
	/* IPv4 /32; IPv6 /64, within which an end may take another address at any time. */
	memset(s.bytes + s.n, 0, 8);
	if (four)
		memcpy(s.bytes + s.n, src->ip + 12, 4);
	else
		memcpy(s.bytes + s.n, src->ip, 8);
	s.n += 8;
	s.bytes[s.n++] = hashed;
	if (hashed) {
		crypto_generichash(s.bytes + s.n, 32, (const unsigned char *)realm.p, realm.n, NULL, 0);
		s.n += 32;
	} else if (realm.n != 0) {
		memcpy(s.bytes + s.n, realm.p, realm.n);
		s.n += realm.n;
	}
	crypto_shorthash_siphash24(out, s.bytes, s.n, w->key);
}

static uint64_t fresh_word(const struct nonce_window *w, uint64_t block)
{
	return (block >> w->lap_shift) << LAP_SHIFT;
}

static bool same_lap(const struct nonce_window *w, uint64_t word, uint64_t block)
{
	return word >> LAP_SHIFT == ((block >> w->lap_shift) & 0xffff);
}

static _Atomic uint64_t *word_of(const struct nonce_window *w, uint64_t block)
{
	return &w->ring[block & (w->words - 1)];
}

static unsigned shift_of(uint64_t number)
{
	return (unsigned)(number % NONCE_BLOCK) * CELL_BITS;
}

/* Taken already, and not yet overtaken by a whole ring. */
static bool in_ring(const struct nonce_window *w, uint64_t block)
{
	uint64_t head = atomic_load_explicit(&w->head, memory_order_seq_cst);

	return block < head && head - block <= w->words;
}

static void take_block(struct nonce_issuer *i)
{
	struct nonce_window *w = i->w;
	uint64_t block = atomic_fetch_add_explicit(&w->head, 1, memory_order_seq_cst);

	/* After the head has moved: who still swaps on the old word wins or loses among its own lap. */
	atomic_store_explicit(word_of(w, block), fresh_word(w, block), memory_order_seq_cst);
	i->next = block * NONCE_BLOCK;
	i->end = i->next + NONCE_BLOCK;
}

int nonce_window_new(unsigned ring_bits, uint32_t lifetime_ms, const uint8_t *key, struct nonce_window **out)
{
	struct nonce_window *w;

	if (ring_bits < RING_MIN || ring_bits > RING_MAX)
		return -EINVAL;
	if (sodium_init() < 0)
		return -EINVAL;
	w = aligned_alloc(_Alignof(struct nonce_window), sizeof(*w));
	if (w == NULL)
		return -ENOMEM;
	memset(w, 0, sizeof(*w));
	w->words = (1ull << ring_bits) / NONCE_BLOCK;
	w->lap_shift = (unsigned)__builtin_ctzll(w->words);
	w->lifetime_ms = lifetime_ms;
	w->ring = malloc(w->words * sizeof(*w->ring));
	if (w->ring == NULL) {
		free(w);
		return -ENOMEM;
	}
	/* Every page now, so that no stranger makes the process grow. The compiler must not make a calloc of it. */
	memset(w->ring, 0xff, w->words * sizeof(*w->ring));
	__asm__ volatile("" : : "r"(w->ring) : "memory");
	memset(w->ring, 0, w->words * sizeof(*w->ring));
	if (key != NULL)
		memcpy(w->key, key, KEY_BYTES);
	else
		randombytes_buf(w->key, KEY_BYTES);
	*out = w;
	return 0;
}

void nonce_window_free(struct nonce_window *w)
{
	if (w == NULL)
		return;
	free(w->ring);
	sodium_memzero(w, sizeof(*w));
	free(w);
}

void nonce_issuer_init(struct nonce_issuer *i, struct nonce_window *w)
{
	*i = (struct nonce_issuer){.w = w};
}

void nonce_issue(struct nonce_issuer *i, const struct wn_addr *src, struct span realm, uint64_t scope, uint64_t now_ms,
		 char out[static NONCE_CHARS])
{
	uint64_t head = atomic_load_explicit(&i->w->head, memory_order_relaxed);
	uint8_t b[NONCE_BYTES];

	/* A slow thread's block that the others have half lapped would leave the ring under its client's hands. */
	if (i->next == i->end || head - i->next / NONCE_BLOCK > i->w->words / 2)
		take_block(i);
	put_be32(b + AT_TIME, (uint32_t)(now_ms >> TIME_SHIFT));
	put_be64(b + AT_NUMBER, i->next++);
	mac(i->w, b, src, realm, scope, b + AT_MAC);
	b64url_encode(b, sizeof(b), out);
}

enum nonce_verdict nonce_check(const struct nonce_window *w, struct span text, const struct wn_addr *src, struct span realm, uint64_t scope,
			       uint64_t now_ms, uint64_t *number)
{
	uint8_t b[NONCE_BYTES], want[crypto_verify_16_BYTES] = {0}, got[crypto_verify_16_BYTES] = {0};
	uint64_t n, block, word, cell;
	int32_t age;

	if (text.n != NONCE_CHARS || b64url_decode(text, b, sizeof(b)) != (long)sizeof(b))
		return NONCE_MALFORMED;
	mac(w, b, src, realm, scope, want);
	memcpy(got, b + AT_MAC, MAC_BYTES);
	if (crypto_verify_16(want, got) != 0)
		return NONCE_FOREIGN;
	/* Below zero when this thread's clock was read before the issuer's: the MAC says that we wrote it, so it is fresh. */
	age = (int32_t)((uint32_t)(now_ms >> TIME_SHIFT) - get_be32(b + AT_TIME));
	if (age > 0 && (uint64_t)age << TIME_SHIFT > w->lifetime_ms)
		return NONCE_EXPIRED;

	n = get_be64(b + AT_NUMBER);
	block = n / NONCE_BLOCK;
	word = atomic_load_explicit(word_of(w, block), memory_order_seq_cst);
	if (!in_ring(w, block) || !same_lap(w, word, block))
		return NONCE_EXPIRED;
	*number = n;
	cell = word >> shift_of(n) & CELL_MASK;
	if (cell & CELL_USED)
		return NONCE_USED;
	return cell >= NONCE_FAILS_MAX * CELL_FAIL ? NONCE_EXHAUSTED : NONCE_OK;
}

enum nonce_verdict nonce_use(struct nonce_window *w, uint64_t number)
{
	uint64_t block = number / NONCE_BLOCK, used = CELL_USED << shift_of(number);
	_Atomic uint64_t *at = word_of(w, block);
	uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);

	if (!in_ring(w, block))
		return NONCE_EXPIRED;
	do {
		if (!same_lap(w, word, block))
			return NONCE_EXPIRED;
		if (word & used)
			return NONCE_USED;
	} while (!atomic_compare_exchange_weak_explicit(at, &word, word | used, memory_order_seq_cst, memory_order_seq_cst));
	return in_ring(w, block) ? NONCE_OK : NONCE_EXPIRED;
}

void nonce_fail(struct nonce_window *w, uint64_t number)
{
	uint64_t block = number / NONCE_BLOCK;
	_Atomic uint64_t *at = word_of(w, block);
	uint64_t word = atomic_load_explicit(at, memory_order_seq_cst);

	if (!in_ring(w, block))
		return;
	do {
		if (!same_lap(w, word, block) || (word >> shift_of(number) & CELL_MASK) >= NONCE_FAILS_MAX * CELL_FAIL)
			return;
	} while (!atomic_compare_exchange_weak_explicit(at, &word, word + (CELL_FAIL << shift_of(number)), memory_order_seq_cst,
							memory_order_seq_cst));
}

const char *nonce_verdict_name(enum nonce_verdict v)
{
	static const char *const names[NONCE_VERDICTS] = {
		[NONCE_OK] = "ok",           [NONCE_MALFORMED] = "malformed", [NONCE_FOREIGN] = "foreign",
		[NONCE_EXPIRED] = "expired", [NONCE_USED] = "used",           [NONCE_EXHAUSTED] = "exhausted",
	};

	return (unsigned)v < NONCE_VERDICTS ? names[v] : "unknown";
}
