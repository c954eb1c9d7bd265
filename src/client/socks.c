/* SPDX-License-Identifier: Apache-2.0 */
#include "client/socks.h"

#include <stdbool.h>
#include <string.h>

#define VERSION       5
#define METHOD_NONE   0x00
#define METHOD_REFUSE 0xff
#define CMD_CONNECT   1
#define ATYP_IPV4     1
#define ATYP_NAME     3
#define ATYP_IPV6     4

void socks_init(struct socks *s)
{
	memset(s, 0, sizeof(*s));
}

size_t socks_reply(enum socks_code code, uint8_t out[static SOCKS_REPLY_MAX])
{
	memset(out, 0, SOCKS_REPLY_MAX);
	out[0] = VERSION;
	out[1] = (uint8_t)code;
	out[3] = ATYP_IPV4;
	return SOCKS_REPLY_MAX;
}

static enum socks_result reject(struct socks *s, enum socks_code code)
{
	s->state = SOCKS_FINISHED;
	s->reply_len = socks_reply(code, s->reply);
	return SOCKS_REJECT;
}

/* Not SOCKS5 at all: no reply that such a client would understand. */
static enum socks_result hang_up(struct socks *s)
{
	s->state = SOCKS_FINISHED;
	s->reply_len = 0;
	return SOCKS_REJECT;
}

static enum socks_result greeting(struct socks *s)
{
	bool none;

	if (s->buf[0] != VERSION)
		return hang_up(s);
	if (s->len < 2 || s->len < 2u + s->buf[1])
		return SOCKS_MORE;
	none = memchr(s->buf + 2, METHOD_NONE, s->buf[1]) != NULL;
	s->reply[0] = VERSION;
	s->reply[1] = none ? METHOD_NONE : METHOD_REFUSE;
	s->reply_len = 2;
	s->len = 0;
	s->state = none ? SOCKS_ASKED : SOCKS_FINISHED;
	return none ? SOCKS_METHOD : SOCKS_REJECT;
}

/* Bytes up to the end of the address, as far as can be told yet. 0: no such type. */
static size_t request_length(const struct socks *s)
{
	switch (s->buf[3]) {
	case ATYP_IPV4:
		return 4 + 4 + 2;
	case ATYP_IPV6:
		return 4 + 16 + 2;
	case ATYP_NAME:
		return s->len < 5 ? 5 : 5u + s->buf[4] + 2u;
	default:
		return 0;
	}
}

static enum socks_result request(struct socks *s)
{
	size_t want;

	if (s->buf[0] != VERSION)
		return hang_up(s);
	if (s->len < 4)
		return SOCKS_MORE;
	want = request_length(s);
	if (want == 0)
		return reject(s, SOCKS_BAD_ADDRESS_TYPE);
	if (s->len < want || (s->buf[3] == ATYP_NAME && s->len < 5u + s->buf[4] + 2u))
		return SOCKS_MORE;
	if (s->buf[1] != CMD_CONNECT)
		return reject(s, SOCKS_BAD_COMMAND);
	/* An address has no service in it; only a name says whom to call. */
	if (s->buf[3] != ATYP_NAME)
		return reject(s, SOCKS_BAD_ADDRESS_TYPE);
	if (s->buf[4] == 0)
		return reject(s, SOCKS_FAILURE);
	s->name = span_of(s->buf + 5, s->buf[4]);
	s->port = (uint16_t)(s->buf[want - 2] << 8 | s->buf[want - 1]);
	s->state = SOCKS_FINISHED;
	return SOCKS_REQUEST;
}

enum socks_result socks_feed(struct socks *s, const uint8_t *in, size_t n, size_t *taken)
{
	enum socks_result r = SOCKS_MORE;
	size_t i = 0;

	while (r == SOCKS_MORE && i < n) {
		s->buf[s->len++] = in[i++];
		r = s->state == SOCKS_GREETING ? greeting(s) : request(s);
	}
	*taken = i;
	return r;
}
