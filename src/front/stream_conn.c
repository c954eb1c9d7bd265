/* SPDX-License-Identifier: Apache-2.0 */
/* One connection: bytes to messages and back. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream_private.h"
#include "sip/msg.h"

_Static_assert(sizeof(((struct front_streams *)0)->shared) >= FRONT_STREAM_TRUSTED_MAX + READ_MAX, "an unfinished message and a read");

void stream_note(struct front_streams *s, enum front_stream_count c)
{
	/* one writer */
	atomic_store_explicit(&s->count[c], atomic_load_explicit(&s->count[c], memory_order_relaxed) + 1, memory_order_relaxed);
}

uint64_t stream_id(const struct front_streams *s, uint32_t slot)
{
	const struct conn *k = &s->conn[slot];

	return front_flow_id((enum front_transport)k->transport, k->listener, s->opt.worker, slot,
			     stream_slot(s->policy, slot)->generation);
}

uint32_t stream_find(const struct front_streams *s, uint64_t flow)
{
	uint32_t slot = front_flow_slot(flow);

	if (slot >= s->limit.connections || stream_slot(s->policy, slot)->class == STREAM_FREE || stream_id(s, slot) != flow)
		return STREAM_NONE;
	return slot;
}

static void watch(struct front_streams *s, uint32_t slot, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = stream_id(s, slot)};

	epoll_ctl(s->epoll, op, s->conn[slot].io.fd, &ev);
}

static void drop_big(struct conn *k)
{
	free(k->big);
	k->big = NULL;
}

void stream_end(struct front_streams *s, uint32_t slot, bool hard, enum front_stream_count c)
{
	const struct linger at_once = {1, 0};
	struct conn *k = &s->conn[slot];

	stream_note(s, c);
	if (k->ssl != NULL)
		front_tls_close(k->ssl, !hard && stream_slot(s->policy, slot)->class != STREAM_HANDSHAKE);
	if (hard)
		setsockopt(k->io.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	close(k->io.fd);
	drop_big(k);
	free(k->unsent);
	memset(k, 0, sizeof(*k));
	k->io.fd = -1;
	stream_release(s->policy, slot);
}

/* Keeps what has come of a message for the next read. False: it has ended for want of room. */
static bool keep_part(struct front_streams *s, uint32_t slot, const char *p, size_t n)
{
	struct conn *k = &s->conn[slot];
	uint32_t buffer;

	if (stream_slot(s->policy, slot)->class == STREAM_TRUSTED) {
		if (n > FRONT_STREAM_TRUSTED_MAX) {
			stream_end(s, slot, true, FRONT_STREAM_too_large);
			return false;
		}
		if (k->big == NULL)
			k->big = malloc(FRONT_STREAM_TRUSTED_MAX);
		if (k->big == NULL) {
			stream_end(s, slot, true, FRONT_STREAM_no_memory);
			return false;
		}
		memcpy(k->big, p, n);
	} else {
		if (n > FRONT_STREAM_MESSAGE_MAX) {
			stream_end(s, slot, true, FRONT_STREAM_too_large);
			return false;
		}
		buffer = stream_buffer_take(s->policy, slot);
		if (buffer == STREAM_NONE) {
			stream_end(s, stream_buffer_victim(s->policy), true, FRONT_STREAM_evicted_buffer);
			buffer = stream_buffer_take(s->policy, slot);
		}
		memcpy(s->pool + (size_t)buffer * FRONT_STREAM_MESSAGE_MAX, p, n);
	}
	k->part = (uint32_t)n;
	return true;
}

/* Puts what was kept in front of what has just been read. */
static void join_part(struct front_streams *s, uint32_t slot)
{
	struct conn *k = &s->conn[slot];

	if (k->part == 0)
		return;
	if (k->big != NULL)
		memcpy(s->shared, k->big, k->part);
	else
		memcpy(s->shared, s->pool + (size_t)stream_slot(s->policy, slot)->buffer * FRONT_STREAM_MESSAGE_MAX, k->part);
	k->part = 0;
}

/* Line ends between messages (RFC 5626 4.4.1: two are a ping). Returns how many bytes they are. */
static size_t line_ends(struct conn *k, const char *p, size_t n, bool *pong)
{
	static const char ping[] = "\r\n\r\n";
	size_t i;

	for (i = 0; i < n && (p[i] == '\r' || p[i] == '\n'); i++) {
		k->ping = p[i] == ping[k->ping] ? k->ping + 1 : p[i] == '\r';
		if (ping[k->ping] == 0) {
			k->ping = 0;
			*pong = true;
		}
	}
	if (i < n)
		k->ping = 0;
	return i;
}

/* Whether the rest is worth a parse: a message that trickles in is not read from its beginning each time. */
static bool headers_end(struct conn *k, const char *p, size_t n)
{
	size_t from = k->searched > 3 ? k->searched - 3 : 0;

	if (k->searched == 0 || memmem(p + from, n - from, "\r\n\r\n", 4) != NULL) {
		k->searched = 0;
		return true;
	}
	k->searched = (uint32_t)n;
	return false;
}

/* Serves the whole messages among n bytes in `shared` and keeps the rest. */
static void frame(struct front_streams *s, uint32_t slot, size_t n)
{
	struct conn *k = &s->conn[slot];
	const struct front_flow flow = {k->addr, stream_id(s, slot)};
	bool pong = false;
	struct sip_msg m;
	size_t at = 0;

	while (at < n) {
		const char *p = s->shared + at;
		size_t skip = k->searched == 0 ? line_ends(k, p, n - at, &pong) : 0, max;
		enum sip_verdict v;

		at += skip;
		if (at == n)
			break;
		if (skip > 0)
			continue;
		max = stream_slot(s->policy, slot)->class == STREAM_TRUSTED ? FRONT_STREAM_TRUSTED_MAX : FRONT_STREAM_MESSAGE_MAX;
		v = headers_end(k, p, n - at) ? sip_parse(span_of(p, n - at), true, &m) : SIP_INCOMPLETE;
		if (v == SIP_INCOMPLETE) {
			if (!keep_part(s, slot, p, n - at))
				return;
			if (k->searched == 0 && memmem(p, n - at, "\r\n\r\n", 4) == NULL)
				k->searched = (uint32_t)(n - at);
			break;
		}
		if (v != SIP_OK || m.consumed > max) {
			stream_end(s, slot, true, v == SIP_OK || v == SIP_TOO_LARGE ? FRONT_STREAM_too_large : FRONT_STREAM_framing);
			return;
		}
		at += m.consumed;
		stream_note(s, FRONT_STREAM_messages);
		stream_heard(s->policy, slot, s->now_ms);
		s->opt.message(s->opt.arg, &flow, m.raw);
		/* what was said in return may have ended it */
		if (stream_find(s, flow.id) != slot)
			return;
	}
	if (pong) {
		stream_note(s, FRONT_STREAM_keepalives);
		stream_pinged(s->policy, slot, s->now_ms);
		front_streams_send(s, &flow, SPAN_LIT("\r\n"), s->now_ms);
	}
}

/* \return bytes; 0 the peer has ended; negative errno. */
static ssize_t take(struct front_streams *s, struct conn *k)
{
	char *to = s->shared + k->part;
	ssize_t n;

	if (k->ssl != NULL)
		return front_tls_read(k->ssl, to, READ_MAX);
	n = recv(k->io.fd, to, READ_MAX, MSG_DONTWAIT);
	return n >= 0 ? n : errno == EINTR ? -EAGAIN : -errno;
}

/* False: not done yet, or ended. */
static bool shake_hands(struct front_streams *s, uint32_t slot)
{
	struct conn *k = &s->conn[slot];

	switch (front_tls_handshake(k->ssl, &k->io)) {
	case 1:
		stream_note(s, FRONT_STREAM_tls_done);
		stream_handshaken(s->policy, slot, s->now_ms);
		return true;
	case -EAGAIN:
		return false;
	case -ENOBUFS:
		stream_end(s, slot, true, FRONT_STREAM_stalled_stranger);
		return false;
	case -EMSGSIZE:
		stream_end(s, slot, true, FRONT_STREAM_tls_too_large);
		return false;
	default:
		stream_end(s, slot, false, FRONT_STREAM_tls_failed);
		return false;
	}
}

void stream_readable(struct front_streams *s, uint32_t slot)
{
	struct conn *k = &s->conn[slot];
	size_t part;
	ssize_t n;

	if (stream_slot(s->policy, slot)->class == STREAM_HANDSHAKE && !shake_hands(s, slot))
		return;
	part = k->part;
	n = take(s, k);
	if (n == -EAGAIN)
		return;
	if (n <= 0) {
		stream_end(s, slot, false, n == -EPROTO ? FRONT_STREAM_tls_failed : FRONT_STREAM_closed_by_peer);
		return;
	}
	join_part(s, slot);
	frame(s, slot, part + (size_t)n);
	/* A buffer is held only while a message is unfinished. */
	if (stream_slot(s->policy, slot)->class != STREAM_FREE && k->part == 0) {
		k->searched = 0;
		stream_buffer_drop(s->policy, slot);
		drop_big(k);
	}
}

static ssize_t put(const struct conn *k, const char *p, size_t n)
{
	ssize_t r;

	if (k->ssl != NULL)
		return front_tls_write(k->ssl, p, n);
	r = send(k->io.fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (r >= 0)
		return r;
	return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? -EAGAIN : -EPIPE;
}

static void want_writable(struct front_streams *s, uint32_t slot, bool want)
{
	struct conn *k = &s->conn[slot];

	if (k->writable_wanted == want)
		return;
	k->writable_wanted = want;
	watch(s, slot, EPOLL_CTL_MOD, want ? EPOLLIN | EPOLLOUT : EPOLLIN);
}

/* \return 0, or -EPIPE: it has ended. */
static int keep_unsent(struct front_streams *s, uint32_t slot, const char *p, size_t n)
{
	struct conn *k = &s->conn[slot];

	if (stream_slot(s->policy, slot)->class != STREAM_TRUSTED) {
		stream_end(s, slot, true, FRONT_STREAM_stalled_stranger);
		return -EPIPE;
	}
	if (k->unsent == NULL && (k->unsent = malloc(sizeof(*k->unsent))) != NULL)
		k->unsent->n = 0;
	if (k->unsent == NULL) {
		stream_end(s, slot, true, FRONT_STREAM_no_memory);
		return -EPIPE;
	}
	if (n > sizeof(k->unsent->p) - k->unsent->n) {
		stream_end(s, slot, true, FRONT_STREAM_queue_full);
		return -EPIPE;
	}
	if (k->unsent->n == 0)
		stream_note(s, FRONT_STREAM_queued);
	memcpy(k->unsent->p + k->unsent->n, p, n);
	k->unsent->n += n;
	stream_stall(s->policy, slot, s->now_ms);
	want_writable(s, slot, true);
	return 0;
}

int front_streams_send(struct front_streams *s, const struct front_flow *to, struct span msg, uint64_t now_ms)
{
	uint32_t slot = stream_find(s, to->id);
	struct conn *k;
	ssize_t n = 0;

	/* A token of another boot or front may name a place that is somebody else's here. */
	if (slot == STREAM_NONE || !wn_addr_eq(&s->conn[slot].addr, &to->addr)) {
		stream_note(s, FRONT_STREAM_flow_gone);
		return -ENOENT;
	}
	s->now_ms = now_ms;
	k = &s->conn[slot];
	if (msg.n == 0 || stream_slot(s->policy, slot)->class == STREAM_HANDSHAKE)
		return 0;
	if (k->unsent == NULL) {
		n = put(k, msg.p, msg.n);
		if (n == (ssize_t)msg.n)
			return 0;
	}
	if (n < 0 && n != -EAGAIN) {
		stream_end(s, slot, true, FRONT_STREAM_closed_by_peer);
		return -EPIPE;
	}
	if (n < 0)
		n = 0;
	return keep_unsent(s, slot, msg.p + n, msg.n - (size_t)n);
}

void stream_writable(struct front_streams *s, uint32_t slot)
{
	struct conn *k = &s->conn[slot];
	ssize_t n;

	while (k->unsent != NULL && k->unsent->n > 0) {
		n = put(k, k->unsent->p, k->unsent->n);
		if (n == -EAGAIN)
			return;
		if (n < 0) {
			stream_end(s, slot, true, FRONT_STREAM_closed_by_peer);
			return;
		}
		k->unsent->n -= (size_t)n;
		memmove(k->unsent->p, k->unsent->p + n, k->unsent->n);
	}
	free(k->unsent);
	k->unsent = NULL;
	want_writable(s, slot, false);
	stream_unstall(s->policy, slot, s->now_ms);
}

void stream_begin(struct front_streams *s, uint32_t slot, int fd, const struct listening *on, const struct wn_addr *addr)
{
	struct conn *k = &s->conn[slot];

	memset(k, 0, sizeof(*k));
	k->io.fd = fd;
	k->transport = (uint8_t)on->transport;
	k->listener = (uint8_t)on->listener;
	k->addr = *addr;
	if (on->transport == FRONT_TLS) {
		k->ssl = front_tls_open(s->opt.tls, &k->io);
		if (k->ssl == NULL) {
			stream_end(s, slot, true, FRONT_STREAM_no_memory);
			return;
		}
	}
	watch(s, slot, EPOLL_CTL_ADD, EPOLLIN);
	/* Whoever connects speaks first, and has mostly done so by now. */
	stream_readable(s, slot);
}

void front_streams_trust(struct front_streams *s, uint64_t flow, uint64_t now_ms)
{
	uint32_t slot = stream_find(s, flow);

	if (slot == STREAM_NONE || stream_slot(s->policy, slot)->class == STREAM_TRUSTED)
		return;
	stream_note(s, stream_trust(s->policy, slot, now_ms) ? FRONT_STREAM_trusted : FRONT_STREAM_trust_full);
}
