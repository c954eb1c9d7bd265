/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/register.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "agent/backoff.h"
#include "base/b64.h"
#include "base/log.h"
#include "sip/build.h"

#define UNANSWERED_MAX 16u
#define RX_BYTES       (SIP_MESSAGE_MAX + 1)
#define CALL_ID_CHARS  24
#define HEAD_BYTES     1024 /* of a request of ours, body apart */

enum byte_class { BYTES_SIP, BYTES_FEED, BYTES_HEARTBEAT, BYTES_CLASSES };

enum expects { EXPECT_NOTHING, EXPECT_REGISTER, EXPECT_DATA, EXPECT_HEARTBEAT };

struct front {
	struct fronts *all;
	unsigned index;
	struct peer_conn *conn; /* NULL between attempts */
	bool up, registered, said_down;
	uv_timer_t retry, beat;
	struct backoff backoff;
	unsigned silent_beats;
	uint32_t cseq;
	char call_id[CALL_ID_CHARS + 1]; /* anew for each connection */
	struct {
		uint32_t cseq;
		enum expects what;
	} unanswered[UNANSWERED_MAX];
	uint8_t *rx;
	size_t rx_n;
};

struct fronts {
	uv_loop_t *loop;
	const struct agent_config *cfg;
	const struct peer_identity *id;
	const struct fronts_events *ev;
	void *arg;
	struct agent_counters *counters;
	char *registration; /* JSON; holds the route key */
	uint64_t bytes[BYTES_CLASSES];
	bool stopping;
	unsigned refs; /* two timers a front, its connection, and the creator */
	struct sip_msg msg;
	char out[UPDATE_BYTES_MAX + HEAD_BYTES];
	struct front front[];
};

static void attempt(uv_timer_t *t);

static void release(struct fronts *f)
{
	if (--f->refs > 0)
		return;
	for (unsigned i = 0; i < f->cfg->nfronts; i++)
		free(f->front[i].rx);
	sodium_memzero(f->registration, strlen(f->registration));
	free(f->registration);
	free(f);
}

/* Nothing is sent to or heard from it any more; on_down follows. */
static void drop(struct front *s)
{
	bool was = s->registered;

	s->up = s->registered = false;
	uv_timer_stop(&s->beat);
	if (was) {
		count(s->all->counters, COUNT_front_losses);
		if (!s->all->stopping)
			s->all->ev->lost(s->all->arg, s->index);
	}
	if (s->conn != NULL)
		peer_close(s->conn);
}

static int send_request(struct front *s, enum expects what, const char *method, const char *extra, struct span type, struct span body)
{
	struct fronts *f = s->all;
	const char *domain = f->cfg->domain;
	struct sip_buf b;
	unsigned slot = 0;
	int rc;

	if (!s->up)
		return -ENOTCONN;
	while (slot < UNANSWERED_MAX && s->unanswered[slot].what != EXPECT_NOTHING)
		slot++;
	if (slot == UNANSWERED_MAX)
		return -EAGAIN;

	sip_buf_init(&b, f->out, sizeof(f->out));
	s->cseq++;
	sip_printf(&b, "%s sip:%s SIP/2.0\r\nVia: SIP/2.0/TLS agent.%s;branch=z9hG4bK%s%" PRIu32 "\r\n", method, domain, domain, s->call_id,
		   s->cseq);
	sip_printf(&b, "Max-Forwards: 70\r\nFrom: <sip:agent@%s>;tag=%.8s\r\nTo: <sip:agent@%s>\r\n", domain, s->call_id, domain);
	sip_printf(&b, "Call-ID: %s\r\nCSeq: %" PRIu32 " %s\r\n%s", s->call_id, s->cseq, method, extra);
	sip_put_end(&b, type, body);
	if (b.overflow)
		return -EMSGSIZE;
	rc = peer_send(s->conn, b.p, b.len);
	if (rc < 0)
		return rc;
	s->unanswered[slot].cseq = s->cseq;
	s->unanswered[slot].what = what;
	f->bytes[what == EXPECT_HEARTBEAT ? BYTES_HEARTBEAT : BYTES_FEED] += b.len;
	return 0;
}

static int send_register(struct front *s)
{
	struct fronts *f = s->all;
	char contact[DOMAIN_MAX + 40];

	snprintf(contact, sizeof(contact), "Contact: <sip:agent@%s>\r\n", f->cfg->domain);
	return send_request(s, EXPECT_REGISTER, "REGISTER", contact, SPAN_LIT("application/json"), span_str(f->registration));
}

/* {"seq": N, "hash": HEX, "boot": HEX} */
static bool read_head(struct span body, struct update_head *out)
{
	json_t *o = json_loadb(body.p != NULL ? body.p : "", body.n, JSON_REJECT_DUPLICATES, NULL);
	const char *hash = json_string_value(json_object_get(o, "hash"));
	const json_t *seq = json_object_get(o, "seq");
	bool ok = hash != NULL && json_is_integer(seq) && json_integer_value(seq) >= 0 &&
		  hex_decode(span_str(hash), out->hash, sizeof(out->hash)) == 0;

	if (ok)
		out->seq = (uint64_t)json_integer_value(seq);
	json_decref(o);
	return ok;
}

static enum expects take_expected(struct front *s, const struct sip_msg *m)
{
	if (!span_eq(m->call_id, span_str(s->call_id)))
		return EXPECT_NOTHING;
	for (unsigned i = 0; i < UNANSWERED_MAX; i++) {
		enum expects what = s->unanswered[i].what;

		if (what == EXPECT_NOTHING || s->unanswered[i].cseq != m->cseq)
			continue;
		if (m->status >= 200)
			s->unanswered[i].what = EXPECT_NOTHING;
		return what;
	}
	return EXPECT_NOTHING;
}

static void on_registered(struct front *s, const struct sip_msg *m, const struct update_head *held)
{
	struct fronts *f = s->all;
	char text[WN_ADDR_STR];
	uint64_t beat_ms = f->cfg->heartbeat_s * 1000ull;

	if (m->status != 200 || held == NULL) {
		if (!s->said_down)
			wn_warn("front %s: REGISTER was answered %u", wn_addr_str(&f->cfg->fronts[s->index].addr, text), m->status);
		s->said_down = true;
		drop(s);
		return;
	}
	s->registered = true;
	s->said_down = false;
	s->backoff.ms = 0;
	s->silent_beats = 0;
	uv_timer_set_repeat(&s->beat, beat_ms);
	uv_timer_again(&s->beat);
	count(f->counters, COUNT_front_connects);
	wn_info("front %s: registered", wn_addr_str(&f->cfg->fronts[s->index].addr, text));
	f->ev->registered(f->arg, s->index, held);
}

static void on_response(struct front *s, const struct sip_msg *m)
{
	struct fronts *f = s->all;
	enum expects what = take_expected(s, m);
	struct update_head head, *held = NULL;

	f->bytes[what == EXPECT_HEARTBEAT ? BYTES_HEARTBEAT : what == EXPECT_NOTHING ? BYTES_SIP : BYTES_FEED] += m->consumed;
	if (what == EXPECT_NOTHING) {
		f->ev->response(f->arg, s->index, m);
		return;
	}
	if (m->status < 200)
		return;
	if (read_head(m->body, &head))
		held = &head;
	if (what == EXPECT_REGISTER) {
		on_registered(s, m, held);
		return;
	}
	if (what == EXPECT_HEARTBEAT)
		s->silent_beats = 0;
	if (s->registered)
		f->ev->published(f->arg, s->index, what == EXPECT_HEARTBEAT ? PUBLISH_HEARTBEAT : PUBLISH_DATA, m->status, held);
}

/* \return bytes taken, 0: more are wanted, negative: nothing can be made of this stream any more. */
static long take_message(struct front *s, struct span in)
{
	struct fronts *f = s->all;
	struct sip_msg *m = &f->msg;
	enum sip_verdict v;
	size_t crlf = 0;

	while (crlf < in.n && (in.p[crlf] == '\r' || in.p[crlf] == '\n'))
		crlf++;
	if (crlf > 0) {
		f->bytes[BYTES_HEARTBEAT] += crlf; /* RFC 5626 keep-alive */
		return (long)crlf;
	}
	v = sip_parse(in, true, m);
	if (v == SIP_INCOMPLETE) {
		if (in.n < SIP_MESSAGE_MAX)
			return 0;
		v = SIP_TOO_LARGE;
	}
	if (v != SIP_OK) {
		count(f->counters, COUNT_bad_sip);
		wn_warn("front %u sent what is no SIP: %s", s->index, sip_verdict_name(v));
		return -EBADMSG;
	}
	if (!m->request) {
		on_response(s, m);
	} else {
		f->bytes[BYTES_SIP] += m->consumed;
		if (s->registered)
			f->ev->request(f->arg, s->index, peer_remote(s->conn), m);
	}
	return (long)m->consumed;
}

static void on_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct front *s = arg;

	(void)c;
	while (n > 0 && s->up) {
		size_t take = RX_BYTES - s->rx_n < n ? RX_BYTES - s->rx_n : n, at = 0;
		long used = 0;

		memcpy(s->rx + s->rx_n, p, take);
		s->rx_n += take;
		p += take;
		n -= take;
		while (s->up && at < s->rx_n) {
			used = take_message(s, span_of(s->rx + at, s->rx_n - at));
			if (used <= 0)
				break;
			at += (size_t)used;
		}
		if (used < 0) {
			drop(s);
			return;
		}
		memmove(s->rx, s->rx + at, s->rx_n - at);
		s->rx_n -= at;
	}
}

static void on_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct front *s = arg;
	uint8_t id[CALL_ID_CHARS / 2];

	(void)c;
	(void)pin;
	randombytes_buf(id, sizeof(id));
	hex_encode(id, sizeof(id), s->call_id);
	s->up = true;
	s->cseq = 0;
	s->rx_n = 0;
	memset(s->unanswered, 0, sizeof(s->unanswered));
	/* A front that does not answer the REGISTER is as dead as one that does not answer heartbeats. */
	s->silent_beats = 1;
	uv_timer_set_repeat(&s->beat, s->all->cfg->heartbeat_s * 1000ull);
	uv_timer_again(&s->beat);
	if (send_register(s) < 0)
		drop(s);
}

static void on_down(struct peer_conn *c, int reason, void *arg)
{
	struct front *s = arg;
	struct fronts *f = s->all;
	char text[WN_ADDR_STR];

	(void)c;
	s->conn = NULL;
	drop(s);
	if (!f->stopping) {
		if (!s->said_down) {
			wn_warn("front %s: not connected: %s", wn_addr_str(&f->cfg->fronts[s->index].addr, text), down_reason(reason));
			s->said_down = true;
		}
		uv_timer_start(&s->retry, attempt, backoff_next(&s->backoff), 0);
	}
	release(f);
}

static const struct peer_events events = {.up = on_up, .data = on_data, .down = on_down};

static void attempt(uv_timer_t *t)
{
	struct front *s = t->data;
	struct fronts *f = s->all;
	const struct agent_peer *peer = &f->cfg->fronts[s->index];
	struct peer_options opt = {.pins = &peer->pin, .npins = 1, .handshake_ms = ATTEMPT_MS};

	if (peer_connect(f->loop, f->id, &peer->addr, &opt, &events, s, &s->conn) < 0) {
		uv_timer_start(&s->retry, attempt, backoff_next(&s->backoff), 0);
		return;
	}
	f->refs++;
}

static void beat(uv_timer_t *t)
{
	struct front *s = t->data;
	struct fronts *f = s->all;

	if (!s->up)
		return;
	if (s->silent_beats >= 2 || !s->registered) {
		count(f->counters, COUNT_front_silent);
		wn_warn("front %u: silent; connecting anew", s->index);
		drop(s);
		return;
	}
	s->silent_beats++;
	f->ev->beat(f->arg, s->index);
}

static char *make_registration(const struct agent_config *cfg, const uint8_t *route_key, const struct peer_identity *id)
{
	char key[B64URL_LEN(ROUTE_KEY_BYTES) + 1] = {0}, agent[B64URL_LEN(8) + 1] = {0}, *text;
	json_t *services = json_array(), *o;
	uint8_t name[16]; /* BLAKE2b's shortest; its first half is used */
	struct peer_pin pin;
	crypto_generichash_state h;

	peer_identity_pin(id, &pin);
	crypto_generichash_init(&h, NULL, 0, sizeof(name));
	crypto_generichash_update(&h, (const uint8_t *)cfg->domain, strlen(cfg->domain) + 1);
	crypto_generichash_update(&h, pin.sha256, sizeof(pin.sha256));
	crypto_generichash_final(&h, name, sizeof(name));
	b64url_encode(name, 8, agent);
	b64url_encode(route_key, ROUTE_KEY_BYTES, key);
	for (unsigned i = 0; i < cfg->nservices; i++)
		json_array_append_new(services, json_string(cfg->services[i].name));
	o = json_pack("{s:s, s:o, s:s, s:s, s:I}", "domain", cfg->domain, "services", services, "route_key", key, "agent", agent, "epoch_s",
		      (json_int_t)cfg->epoch_s);
	text = o != NULL ? json_dumps(o, JSON_COMPACT) : NULL;
	json_decref(o);
	sodium_memzero(key, sizeof(key));
	return text;
}

int fronts_new(uv_loop_t *loop, const struct agent_config *cfg, const uint8_t route_key[static ROUTE_KEY_BYTES],
	       const struct peer_identity *id, const struct fronts_events *ev, void *arg, struct agent_counters *counters,
	       struct fronts **out)
{
	struct fronts *f = calloc(1, sizeof(*f) + cfg->nfronts * sizeof(f->front[0]));
	bool ok;

	*out = NULL;
	if (f == NULL)
		return -ENOMEM;
	f->loop = loop;
	f->cfg = cfg;
	f->id = id;
	f->ev = ev;
	f->arg = arg;
	f->counters = counters;
	f->registration = make_registration(cfg, route_key, id);
	ok = f->registration != NULL;
	for (unsigned i = 0; ok && i < cfg->nfronts; i++) {
		f->front[i].rx = malloc(RX_BYTES);
		ok = f->front[i].rx != NULL;
	}
	if (!ok) {
		for (unsigned i = 0; i < cfg->nfronts; i++)
			free(f->front[i].rx);
		free(f->registration);
		free(f);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < cfg->nfronts; i++) {
		struct front *s = &f->front[i];

		s->all = f;
		s->index = i;
		uv_timer_init(loop, &s->retry);
		uv_timer_init(loop, &s->beat);
		s->retry.data = s;
		s->beat.data = s;
		uv_timer_start(&s->beat, beat, cfg->heartbeat_s * 1000ull, cfg->heartbeat_s * 1000ull);
		uv_timer_stop(&s->beat);
		uv_timer_start(&s->retry, attempt, 0, 0);
		f->refs += 2;
	}
	*out = f;
	return 0;
}

static void timer_closed(uv_handle_t *h)
{
	struct front *s = h->data;

	release(s->all);
}

void fronts_stop(struct fronts *f)
{
	unsigned n = f->cfg->nfronts;

	f->stopping = true;
	for (unsigned i = 0; i < n; i++) {
		drop(&f->front[i]);
		uv_close((uv_handle_t *)&f->front[i].retry, timer_closed);
		uv_close((uv_handle_t *)&f->front[i].beat, timer_closed);
	}
}

bool fronts_registered(const struct fronts *f, unsigned front)
{
	return f->front[front].registered;
}

int fronts_publish(struct fronts *f, unsigned front, enum publish_kind kind, struct span message)
{
	return send_request(&f->front[front], kind == PUBLISH_HEARTBEAT ? EXPECT_HEARTBEAT : EXPECT_DATA, "PUBLISH",
			    "Event: walnut-users\r\n", SPAN_LIT("application/x-walnut-update"), message);
}

void fronts_send(struct fronts *f, int front, bool any, struct span msg)
{
	struct front *s = NULL;

	if (front >= 0 && f->front[front].registered)
		s = &f->front[front];
	for (unsigned i = 0; any && s == NULL && i < f->cfg->nfronts; i++)
		if (f->front[i].registered)
			s = &f->front[i];
	if (s == NULL)
		return;
	if (peer_send(s->conn, msg.p, msg.n) == 0)
		f->bytes[BYTES_SIP] += msg.n;
}

void fronts_bytes(const struct fronts *f, uint64_t *sip, uint64_t *feed, uint64_t *heartbeat)
{
	*sip = f->bytes[BYTES_SIP];
	*feed = f->bytes[BYTES_FEED];
	*heartbeat = f->bytes[BYTES_HEARTBEAT];
}
