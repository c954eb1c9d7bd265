/* SPDX-License-Identifier: Apache-2.0 */
#include "gate_prepare.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "gate_shape.h"

#define CLIENT  0xc6120402u /* 198.18.4.2 */
#define SERVICE 0xc6126402u /* 198.18.100.2 */
#define ISN     1000u

static const uint8_t key[16] = "sixteen of a key";

static void take(struct round *r, const struct step *st)
{
	if (!round_take(r, round_add(r, st))) {
		fprintf(stderr, "the prepared table: %s\n", r->wrong);
		abort();
	}
}

static void open_hole(struct round *r, uint8_t proto, uint16_t inside_port, uint16_t remote_port, bool tag)
{
	struct step st = {.kind = STEP_GRANT, .opener = STEP_NONE, .seed = inside_port};
	struct gate_request *q = &st.request;

	q->op = GATE_OPEN;
	q->proto = proto;
	q->lifetime_s = 3600;
	memcpy(q->user, "alice", 5);
	q->syn_rate = proto == TCP ? 1000 : 0;
	q->inside.ip[10] = q->inside.ip[11] = 0xff;
	for (int i = 0; i < 4; i++)
		q->inside.ip[12 + i] = (uint8_t)(SERVICE >> (24 - 8 * i));
	q->inside.port = inside_port;
	if (tag) {
		q->flags = GATE_FLAG_TAG;
		memcpy(q->key, key, sizeof(q->key));
	} else {
		q->remote = q->inside;
		for (int i = 0; i < 4; i++)
			q->remote.ip[12 + i] = (uint8_t)(CLIENT >> (24 - 8 * i));
		q->remote.port = remote_port;
	}
	take(r, &st);
	if (r->reply.status != GATE_OK)
		abort();
}

static struct gm_hole *hole_at(const struct round *r, uint16_t inside_port)
{
	struct gm_hole *h;

	for (h = r->m->holes; h != NULL && h->inside_port != inside_port; h = h->next)
		;
	if (h == NULL)
		abort();
	return h;
}

static struct gm_session *session_of(const struct round *r, uint8_t proto)
{
	struct gm_session *s;

	for (s = r->m->sessions; s != NULL && s->proto != proto; s = s->next)
		;
	return s;
}

/* Inside ports by enum prepared; the last three are senders. */
static const uint16_t inside_port[PREPARED_N] = {22, 23, 5000, 5001, 5002, 6000, 6001, 6002};
static const uint8_t protos[PREPARED_N] = {TCP, TCP, UDP, UDP, UDP, UDP, TCP, ICMP};

static void seal(struct shape *s, uint64_t counter)
{
	memset(s->data + s->n, 0, 16);
	for (int i = 0; i < 8; i++)
		s->data[s->n + (size_t)i] = (uint8_t)(counter >> (56 - 8 * i));
	crypto_shorthash(s->data + s->n + 8, s->data, s->n + 8, key);
	s->n += 16;
}

static void ends_of(const struct round *r, enum prepared what, enum gm_side side, struct shape *s)
{
	uint32_t public_ip = r->m->net.public_ip[0];
	uint16_t public_port = 0;

	if (what <= PREPARED_UDP_HOLE) {
		const struct gm_hole *h = hole_at(r, inside_port[what]);

		public_ip = h->public_ip;
		public_port = h->public_port;
	} else {
		const struct gm_session *e = session_of(r, protos[what]);

		if (e != NULL) {
			public_ip = e->public_ip;
			public_port = e->public_port;
		}
	}
	s->proto = protos[what];
	s->src = side == GM_OUTSIDE ? CLIENT : SERVICE;
	s->sport = side == GM_OUTSIDE ? 40000 : inside_port[what];
	s->dst = side == GM_OUTSIDE ? public_ip : CLIENT;
	s->dport = side == GM_OUTSIDE ? public_port : 40000;
	if (s->proto == ICMP)
		s->sport = s->dport = side == GM_OUTSIDE ? public_port : inside_port[what];
}

static void frame(struct round *r, enum prepared what, enum gm_side side, uint8_t flags, uint32_t seq, uint32_t ack, uint64_t counter)
{
	static struct shape s;
	static struct frame f;
	struct step st = {.kind = STEP_FRAME, .side = side, .seed = what, .opener = STEP_NONE};

	memset(&s, 0, offsetof(struct shape, data));
	s.ttl = 64;
	ends_of(r, what, side, &s);
	s.flags = flags;
	s.seq = seq;
	s.ack = ack;
	s.window = 65535;
	s.icmp_type = side == GM_OUTSIDE ? 0 : 8;
	s.n = 0;
	if (counter != 0)
		seal(&s, counter);
	shape_build(NULL, &r->m->net, side, &s, &f);
	st.frame = f.p;
	st.n = f.n;
	take(r, &st);
	if (r->said.verdict != GM_OUT) {
		fprintf(stderr, "the prepared table: a frame is dropped: %s\n", r->said.why);
		abort();
	}
}

void prepare(struct round *r)
{
	round_clear(r);
	r->seed = 1;
	if (!round_start(r))
		abort();
	open_hole(r, TCP, inside_port[PREPARED_TCP_HOLE], 0, false);
	open_hole(r, TCP, inside_port[PREPARED_HANDSHAKE], 0, false);
	open_hole(r, UDP, inside_port[PREPARED_TAG_HOLE], 0, true);
	open_hole(r, UDP, inside_port[PREPARED_TAG_FRESH], 0, true);
	open_hole(r, UDP, inside_port[PREPARED_UDP_HOLE], 40000, false);
	for (enum prepared at = PREPARED_TCP_HOLE; at <= PREPARED_HANDSHAKE; at++) {
		frame(r, at, GM_OUTSIDE, SYN, ISN, 0, 0);
		frame(r, at, GM_INSIDE, SYN | ACK, ISN, ISN + 1, 0);
	}
	frame(r, PREPARED_TCP_HOLE, GM_OUTSIDE, ACK, ISN + 1, ISN + 1, 0);
	for (uint64_t c = 1; c <= 3; c++)
		frame(r, PREPARED_TAG_HOLE, GM_OUTSIDE, 0, 0, 0, c);
	frame(r, PREPARED_UDP_HOLE, GM_OUTSIDE, 0, 0, 0, 0);
	frame(r, PREPARED_UDP, GM_INSIDE, 0, 0, 0, 0);
	frame(r, PREPARED_UDP, GM_OUTSIDE, 0, 0, 0, 0);
	frame(r, PREPARED_TCP, GM_INSIDE, SYN, ISN, 0, 0);
	frame(r, PREPARED_TCP, GM_OUTSIDE, SYN | ACK, ISN, ISN + 1, 0);
	frame(r, PREPARED_TCP, GM_INSIDE, ACK, ISN + 1, ISN + 1, 0);
	frame(r, PREPARED_ICMP, GM_INSIDE, 0, 0, 0, 0);
	frame(r, PREPARED_ICMP, GM_OUTSIDE, 0, 0, 0, 0);
}

struct prepared_ends prepared_next(const struct round *r, enum prepared what, enum gm_side side, struct frame *f)
{
	static struct shape s;

	memset(&s, 0, offsetof(struct shape, data));
	s.ttl = 64;
	ends_of(r, what, side, &s);
	s.flags = ACK;
	s.seq = s.ack = ISN + 1;
	s.window = 65535;
	s.icmp_type = side == GM_OUTSIDE ? 0 : 8;
	s.n = 5;
	memcpy(s.data, "hello", 5);
	if (side == GM_OUTSIDE && (what == PREPARED_TAG_HOLE || what == PREPARED_TAG_FRESH))
		seal(&s, 4);
	shape_build(NULL, &r->m->net, side, &s, f);
	return (struct prepared_ends){.proto = s.proto, .src = s.src, .dst = s.dst, .sport = s.sport, .dport = s.dport};
}
