/* SPDX-License-Identifier: Apache-2.0 */
/* Wrong digests with nonces that verify: real addresses, each of which listens for its challenges and uses the newest. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define BAD_COPIES 3u /* as often as a front lets a nonce fail */

struct bad {
	const struct load_options *o;
	struct load_net *net;
	struct load_digest *digest;
	struct load_nonce *nonce; /* by address; "": none yet */
	char (*mem)[BAD_COPIES * LOAD_TEXT];
	uint64_t number, sent, with, answered;
};

/* The inverse of load_address. */
static unsigned index_of(uint32_t addr)
{
	uint32_t h = ntohl(addr);

	return ((h >> 16 & 255u) - 100u) * 10000u + ((h >> 8 & 255u) - 100u) * 100u + (h & 255u) - 100u;
}

static size_t write_invite(struct bad *b, unsigned index, unsigned port, char *to)
{
	char uri[128];
	struct sip_buf m, u;

	sip_buf_init(&u, uri, sizeof(uri));
	sip_puts(&u, "sip:");
	sip_puts(&u, b->o->service);
	sip_putc(&u, '@');
	sip_puts(&u, b->o->domain);
	sip_buf_init(&m, to, LOAD_TEXT);
	sip_puts(&m, "INVITE ");
	sip_put(&m, sip_buf_span(&u));
	sip_puts(&m, " SIP/2.0\r\nVia: SIP/2.0/UDP ");
	load_put_address(&m, load_address(index));
	sip_putc(&m, ':');
	load_put_number(&m, port);
	sip_puts(&m, ";branch=z9hG4bK");
	load_put_hex(&m, b->number);
	sip_puts(&m, ";rport\r\nFrom: <sip:nobody@example.com>;tag=1\r\nTo: <");
	sip_put(&m, sip_buf_span(&u));
	sip_puts(&m, ">\r\nCall-ID: ");
	load_put_hex(&m, b->number++);
	sip_puts(&m, "\r\nCSeq: 1 INVITE\r\nContact: <sip:nobody@");
	load_put_address(&m, load_address(index));
	sip_puts(&m, ">\r\nMax-Forwards: 70\r\n");
	if (b->nonce[index].nonce[0] != 0)
		load_credentials(b->digest, &b->nonce[index], load_random() % b->o->users, SPAN_LIT("INVITE"), sip_buf_span(&u), true, &m);
	else
		sip_puts(&m, "Subject: room for an answer that is as long as this request: a front sends a stranger no more than it gets. "
			     "So here are some more words, which nobody reads, up to where a challenge with all that it repeats of the "
			     "request has its place\r\n");
	sip_puts(&m, "Content-Length: 0\r\n\r\n");
	return m.overflow ? 0 : m.len;
}

static void listen_to(struct bad *b, unsigned sock)
{
	struct load_pkt *p;
	unsigned n = load_recv(b->net, sock, &p);

	for (unsigned i = 0; i < n; i++) {
		unsigned index = index_of(p[i].own);
		struct load_seen s;

		load_see(span_of(p[i].data, p[i].n), &s);
		if (s.status == 407 && index < b->o->addresses && load_challenge(b->digest, &s, &b->nonce[index]))
			b->answered++;
	}
}

static void run(struct bad *b)
{
	uint64_t began = load_now_ns(), until = began + (uint64_t)b->o->seconds * 1000000000u;
	struct load_pace pace;
	unsigned index = 0, slot = 0;

	load_pace_start(&pace, b->o->rate);
	for (unsigned sock = 0; load_now_ns() < until && !load_stop; sock = (sock + 1) % b->o->ports) {
		unsigned due = load_due(&pace, LOAD_BATCH * BAD_COPIES) / BAD_COPIES;

		for (unsigned i = 0; i < due; i++, index = (index + 1) % b->o->addresses, slot = (slot + 1) % LOAD_BATCH) {
			bool have = b->nonce[index].nonce[0] != 0;
			unsigned copies = have ? BAD_COPIES : 1;

			for (unsigned k = 0; k < copies; k++) {
				char *to = b->mem[slot] + (size_t)k * LOAD_TEXT;

				load_put(b->net, sock, load_address(index), &b->o->to, to,
					 write_invite(b, index, load_net_port(b->net, sock), to), 0);
			}
			b->sent += copies;
			b->with += have ? copies : 0;
		}
		load_flush(b->net);
		for (unsigned k = 0; k < b->o->ports; k++)
			listen_to(b, k);
	}
	printf("{\"sent\": %" PRIu64 ", \"with_nonce\": %" PRIu64 ", \"challenged\": %" PRIu64 ", \"unsent\": %" PRIu64
	       ", \"seconds\": %.3f}\n",
	       b->sent, b->with, b->answered, load_unsent(b->net), (double)(load_now_ns() - began) / 1e9);
}

int load_badnonce(const struct load_options *o)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->first_port)};
	struct bad b = {.o = o, .number = load_random()};
	int r;

	b.nonce = calloc(o->addresses, sizeof(*b.nonce));
	b.mem = calloc(LOAD_BATCH, sizeof(*b.mem));
	r = b.nonce == NULL || b.mem == NULL ? -ENOMEM : load_digest_new(o, &b.digest);
	if (r == 0)
		r = load_net_new(&any, o->ports, LOAD_OWN, &b.net);
	if (r == 0)
		run(&b);
	else
		fprintf(stderr, "front-load: %s\n", strerror(-r));
	load_net_free(b.net);
	load_digest_free(b.digest);
	free(b.nonce);
	free(b.mem);
	return r == 0 ? 0 : 1;
}
