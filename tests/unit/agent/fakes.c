/* SPDX-License-Identifier: Apache-2.0 */
#include "fakes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"
#include "sip/build.h"

static void answer(struct fake_front *f, const struct sip_msg *m, unsigned status)
{
	char buf[4096], body[256], hash[65] = {0};
	struct table_state s;
	struct sip_buf b;

	if (f->silent)
		return;
	user_table_state(f->table, &s);
	hex_encode(s.head.hash, sizeof(s.head.hash), hash);
	snprintf(body, sizeof(body), "{\"seq\":%llu,\"hash\":\"%s\",\"boot\":\"00\"}", (unsigned long long)s.head.seq, hash);
	sip_buf_init(&b, buf, sizeof(buf));
	sip_put_response(&b, m, status, status == 200 ? "OK" : "Conflict", SPAN_LIT("front"), peer_remote(f->conn));
	sip_put_end(&b, SPAN_LIT("application/json"), span_str(body));
	peer_send(f->conn, b.p, b.len);
}

static void front_message(struct fake_front *f, const struct sip_msg *m)
{
	enum table_verdict v;

	if (m->request && m->method == SIP_REGISTER) {
		f->registers++;
		json_decref(f->registration);
		f->registration = json_loadb(m->body.p, m->body.n, 0, NULL);
		answer(f, m, 200);
	} else if (m->request && m->method == SIP_PUBLISH) {
		f->publishes++;
		v = f->silent ? TABLE_OK : user_table_apply(f->table, SPAN_LIT("example.org"), f->sign_pk, m->body);
		answer(f, m, v == TABLE_OK || v == TABLE_CURRENT ? 200 : 409);
	} else if (f->messages < FAKE_MESSAGES) {
		f->message[f->messages] = strndup(m->raw.p, m->raw.n);
		f->messages++;
	}
}

static void front_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct fake_front *f = arg;

	(void)pin;
	f->conn = c;
	f->rx_n = 0;
	f->accepted++;
}

static void front_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct fake_front *f = arg;
	struct sip_msg m;

	if (c != f->conn || f->rx_n + n > sizeof(f->rx))
		return;
	memcpy(f->rx + f->rx_n, p, n);
	f->rx_n += n;
	while (f->rx_n > 0 && sip_parse(span_of(f->rx, f->rx_n), true, &m) == SIP_OK) {
		size_t used = m.consumed;

		front_message(f, &m);
		memmove(f->rx, f->rx + used, f->rx_n - used);
		f->rx_n -= used;
	}
}

static void front_down(struct peer_conn *c, int reason, void *arg)
{
	struct fake_front *f = arg;

	(void)reason;
	if (f->conn == c)
		f->conn = NULL;
}

static const struct peer_events front_events = {.up = front_up, .data = front_data, .down = front_down};

int fake_front_init(struct fake_front *f, uv_loop_t *loop, const char *dir, const struct peer_pin *agent, const uint8_t *sign_pk)
{
	int rc = peer_identity_create(dir, "front", &f->pin);

	f->loop = loop;
	f->agent_pin = *agent;
	memcpy(f->sign_pk, sign_pk, sizeof(f->sign_pk));
	if (rc == 0)
		rc = peer_identity_load(dir, "front", &f->id);
	if (rc == 0)
		rc = user_table_new(&f->table);
	if (rc == 0)
		rc = wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &f->addr);
	return rc;
}

int fake_front_listen(struct fake_front *f)
{
	struct peer_options opt = {.pins = &f->agent_pin, .npins = 1};
	int rc = peer_listen(f->loop, f->id, &f->addr, &opt, &front_events, f, &f->listener);

	return rc == 0 ? peer_listener_addr(f->listener, &f->addr) : rc;
}

void fake_front_down(struct fake_front *f)
{
	if (f->listener != NULL)
		peer_listener_close(f->listener);
	f->listener = NULL;
	if (f->conn != NULL)
		peer_close(f->conn);
}

void fake_front_clear(struct fake_front *f)
{
	for (unsigned i = 0; i < f->messages; i++)
		free(f->message[i]);
	f->messages = 0;
}

void fake_front_free(struct fake_front *f)
{
	fake_front_clear(f);
	json_decref(f->registration);
	user_table_free(f->table);
	peer_identity_free(f->id);
}

void fake_front_send(struct fake_front *f, const char *text, size_t n)
{
	if (f->conn != NULL)
		peer_send(f->conn, text, n);
}

static void reply(struct fake_gate *g, const struct gate_reply *r)
{
	uint8_t wire[GATE_REPLY_BYTES];

	gate_reply_encode(r, wire);
	peer_send(g->conn, wire, sizeof(wire));
}

static struct gate_reply *find_hole(struct fake_gate *g, uint64_t hole)
{
	for (unsigned i = 0; i < g->holes; i++) {
		if (g->hole[i].hole == hole)
			return &g->hole[i];
	}
	return NULL;
}

static void gate_request(struct fake_gate *g, const struct gate_request *q)
{
	struct gate_reply r = {.op = q->op, .seq = q->seq}, *h;

	switch (q->op) {
	case GATE_OPEN:
		g->opens++;
		g->last_open = *q;
		if (g->hold || g->holes == FAKE_HOLES)
			return;
		r.proto = q->proto;
		r.flags = q->flags;
		r.hole = ++g->next_hole;
		r.cookie = q->cookie;
		r.inside = q->inside;
		r.remote = q->remote;
		wn_addr_parse(SPAN_LIT("198.18.3.2:31337"), -1, &r.public);
		r.lifetime_s = q->lifetime_s;
		memcpy(r.user, q->user, sizeof(r.user));
		g->hole[g->holes++] = r;
		break;
	case GATE_RENEW:
		g->renews++;
		h = find_hole(g, q->hole);
		if (h != NULL)
			h->lifetime_s = q->lifetime_s;
		else
			r.status = GATE_NO_HOLE;
		break;
	case GATE_CLOSE:
		g->closes++;
		h = find_hole(g, q->hole);
		if (h != NULL)
			*h = g->hole[--g->holes];
		else
			r.status = GATE_NO_HOLE;
		break;
	case GATE_LIST:
		g->lists++;
		for (unsigned i = 0; i < g->holes; i++) {
			struct gate_reply one = g->hole[i];

			one.op = GATE_LIST;
			one.seq = q->seq;
			reply(g, &one);
		}
		r.status = GATE_END;
		break;
	default:
		g->pings++;
		break;
	}
	reply(g, &r);
}

static void gate_up(struct peer_conn *c, unsigned pin, void *arg)
{
	struct fake_gate *g = arg;

	(void)pin;
	g->conn = c;
	g->rx_n = 0;
	g->seq = 0;
	g->accepted++;
}

static void gate_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct fake_gate *g = arg;
	struct gate_request q;

	while (n > 0 && c == g->conn) {
		size_t take = sizeof(g->rx) - g->rx_n < n ? sizeof(g->rx) - g->rx_n : n;

		memcpy(g->rx + g->rx_n, p, take);
		g->rx_n += take;
		p += take;
		n -= take;
		if (g->rx_n < sizeof(g->rx))
			return;
		g->rx_n = 0;
		if (gate_request_decode(g->rx, &q) < 0 || q.seq != ++g->seq) {
			g->bad_sequence++;
			return;
		}
		gate_request(g, &q);
	}
}

static void gate_down(struct peer_conn *c, int reason, void *arg)
{
	struct fake_gate *g = arg;

	(void)reason;
	if (g->conn == c)
		g->conn = NULL;
}

static const struct peer_events gate_events = {.up = gate_up, .data = gate_data, .down = gate_down};

int fake_gate_init(struct fake_gate *g, uv_loop_t *loop, const char *dir, const struct peer_pin *agent)
{
	int rc = peer_identity_create(dir, "gate", &g->pin);

	g->loop = loop;
	g->agent_pin = *agent;
	g->next_hole = 100;
	if (rc == 0)
		rc = peer_identity_load(dir, "gate", &g->id);
	if (rc == 0)
		rc = wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &g->addr);
	return rc;
}

int fake_gate_listen(struct fake_gate *g)
{
	struct peer_options opt = {.pins = &g->agent_pin, .npins = 1};
	int rc = peer_listen(g->loop, g->id, &g->addr, &opt, &gate_events, g, &g->listener);

	return rc == 0 ? peer_listener_addr(g->listener, &g->addr) : rc;
}

void fake_gate_down(struct fake_gate *g)
{
	if (g->listener != NULL)
		peer_listener_close(g->listener);
	g->listener = NULL;
	if (g->conn != NULL)
		peer_close(g->conn);
}

void fake_gate_free(struct fake_gate *g)
{
	peer_identity_free(g->id);
}
