/* SPDX-License-Identifier: Apache-2.0 */
#include "ticket/tag.h"

#include <sodium.h>
#include <string.h>

#include "ticket/bytes.h"

#define COUNTER_BYTES 8
#define MAC_BYTES     crypto_shorthash_siphash24_BYTES
#define WORD_BITS     64u
#define LATE_MAX      ((TAG_WINDOW_WORDS - 1) * WORD_BITS)

_Static_assert(TAG_BYTES == COUNTER_BYTES + MAC_BYTES, "the trailer is a counter and a MAC");
_Static_assert(TAG_KEY_BYTES == crypto_shorthash_siphash24_KEYBYTES, "the key is SipHash's");
_Static_assert((TAG_WINDOW_WORDS & (TAG_WINDOW_WORDS - 1)) == 0, "words are found by a mask");

void tag_seal(uint8_t *payload, size_t len, uint64_t counter, const uint8_t key[static TAG_KEY_BYTES])
{
	put_be64(payload + len, counter);
	crypto_shorthash_siphash24(payload + len + COUNTER_BYTES, payload, len + COUNTER_BYTES, key);
}

bool tag_verify(const uint8_t *packet, size_t len, const uint8_t key[static TAG_KEY_BYTES], uint64_t *counter)
{
	uint8_t mac[MAC_BYTES];

	if (len < TAG_BYTES)
		return false;
	crypto_shorthash_siphash24(mac, packet, len - MAC_BYTES, key);
	if (sodium_memcmp(mac, packet + len - MAC_BYTES, MAC_BYTES) != 0)
		return false;
	*counter = get_be64(packet + len - TAG_BYTES);
	return true;
}

bool tag_window_accept(struct tag_window *w, uint64_t counter)
{
	uint64_t word = counter / WORD_BITS, bit = 1ull << counter % WORD_BITS;

	if (counter == 0)
		return false;
	if (counter > w->top) {
		uint64_t now = w->top / WORD_BITS, ahead = word - now;

		/* Words that the window moves over hold bits of a lap before. */
		for (uint64_t i = 1; i <= ahead && i <= TAG_WINDOW_WORDS; i++)
			w->bits[(now + i) % TAG_WINDOW_WORDS] = 0;
		w->top = counter;
	} else if (w->top - counter > LATE_MAX) {
		return false;
	}
	if (w->bits[word % TAG_WINDOW_WORDS] & bit)
		return false;
	w->bits[word % TAG_WINDOW_WORDS] |= bit;
	return true;
}
