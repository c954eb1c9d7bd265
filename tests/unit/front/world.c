/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "sip/build.h"
#include "world.h"

#define OFFER                                                                                                                         \
	"v=0\r\no=- 1 1 IN IP4 198.18.4.2\r\ns=-\r\nc=IN IP4 198.18.4.2\r\nt=0 0\r\nm=application 9 TCP walnut\r\na=setup:active\r\n" \
	"a=candidate:1 1 TCP 1694498815 198.18.4.2 9 typ srflx raddr 198.18.104.2 rport 9 tcptype active\r\na=walnut-port:22\r\n"

const struct credentials_of alice = {"alice", ALICE_SECRET, NULL, DIGEST_SHA256, NULL, NULL};

static void publish(struct world *w, enum update_type type)
{
	struct update_msg m = {.type = type, .domain = SPAN_LIT(WORLD_DOMAIN), .at = w->head, .epoch = WORLD_EPOCH, .epoch_s = 86400};
	uint8_t buf[2048], hash[32];
	struct update_buf b;
	enum table_verdict v;
	long n;

	m.unix_ms = w->unix_s * 1000;
	if (type == UPDATE_CHANGE)
		m.at.seq++;
	update_begin(&b, buf, sizeof(buf), &m);
	for (uint32_t e = WORLD_EPOCH; type == UPDATE_CHANGE && e <= WORLD_EPOCH + 1; e++) {
		uint8_t sha[32], md5[32];
		char realm[64];
		struct user_op op = {USER_SET, SPAN_LIT("alice"), USER_HAS_SHA256, e, sha, NULL};

		snprintf(realm, sizeof(realm), "%s/%u", WORLD_DOMAIN, e);
		assert_int_equal(digest_ha1(w->digest, DIGEST_SHA256, op.name, span_str(realm), span_str(ALICE_SECRET), sha), 0);
		assert_int_equal(update_add(&b, &op), 0);
		op = (struct user_op){USER_SET, SPAN_LIT("bob"), USER_HAS_SHA256 | USER_HAS_MD5, e, sha, md5};
		assert_int_equal(digest_ha1(w->digest, DIGEST_SHA256, op.name, span_str(realm), span_str(BOB_SECRET), sha), 0);
		assert_int_equal(digest_ha1(w->digest, DIGEST_MD5, op.name, span_str(realm), span_str(BOB_SECRET), md5), 0);
		assert_int_equal(update_add(&b, &op), 0);
	}
	n = update_end(&b, w->sk, hash);
	assert_true(n > 0);
	v = user_table_apply(w->tenant[0].users, m.domain, w->pk, span_of(buf, (size_t)n));
	assert_int_equal(v, type == UPDATE_CHANGE ? TABLE_OK : TABLE_CURRENT);
	if (type == UPDATE_CHANGE) {
		w->head.seq++;
		memcpy(w->head.hash, hash, sizeof(hash));
	}
}

void world_new(struct world *w, const uint8_t *nonce_key)
{
	struct wn_addr listen = addr_of("198.18.1.2:5060");

	memset(w, 0, sizeof(*w));
	w->now_ms = 1000000;
	w->unix_s = WORLD_UNIX;
	assert_true(sodium_init() >= 0);
	assert_int_equal(crypto_sign_keypair(w->pk, w->sk), 0);
	assert_int_equal(digest_ctx_new(&w->digest), 0);
	snprintf(w->tenant[0].domain, sizeof(w->tenant[0].domain), WORLD_DOMAIN);
	snprintf(w->tenant[1].domain, sizeof(w->tenant[1].domain), "example.net");
	for (unsigned i = 0; i < 2; i++) {
		w->policy[i].sha256 = w->policy[i].agent = true;
		w->policy[i].max_calls = 8;
		w->policy[i].user_calls_per_s = 1000;
		w->policy[i].service_calls_per_s = 1000;
		atomic_store(&w->tenant[i].policy, &w->policy[i]);
	}
	w->sh.tenant = w->tenant;
	w->sh.ntenants = 2;
	w->sh.feed_max_age_s = 60;
	assert_int_equal(nonce_window_new(12, 30000, nonce_key, &w->sh.nonces), 0);
	assert_int_equal(front_shared_init(&w->sh, &listen), 0);
	memset(w->agent.route_key, 0x5a, sizeof(w->agent.route_key));
	w->agent.agent = 77;
	w->agent.nservices = 1;
	memcpy(w->agent.service[0], "ssh", 4);
	atomic_store(&w->tenant[0].agent, &w->agent);
	atomic_store(&w->tenant[0].connected, true);
	publish(w, UPDATE_CHANGE);
	assert_int_equal(front_core_new(&w->sh, 3, 0, &w->core), 0);
	w->a.net = w->net;
	w->a.agent = w->to_agent;
}

void world_free(struct world *w)
{
	front_core_free(w->core);
	front_shared_fini(&w->sh);
	nonce_window_free(w->sh.nonces);
	digest_ctx_free(w->digest);
}

int world_setup(void **state)
{
	world_new(*state, NULL);
	return 0;
}

int world_teardown(void **state)
{
	world_free(*state);
	return 0;
}

void world_heartbeat(struct world *w)
{
	publish(w, UPDATE_HEARTBEAT);
}

static const char *or_else(const char *s, const char *otherwise)
{
	return s != NULL ? s : otherwise;
}

static const char *method_of(const struct call *c)
{
	return or_else(c->method, "INVITE");
}

static const char *uri_of(const struct call *c)
{
	return or_else(c->uri, "sip:ssh@example.org");
}

static const char *body_of(const struct call *c)
{
	return or_else(c->body, c->method == NULL ? OFFER : "");
}

size_t call_write(const struct call *c, char *buf, size_t cap)
{
	struct sip_buf b;

	sip_buf_init(&b, buf, cap);
	sip_printf(&b, "%s %s SIP/2.0\r\n", method_of(c), uri_of(c));
	sip_printf(&b, "Via: SIP/2.0/UDP 198.18.104.2:40112;branch=%s;rport\r\n", or_else(c->branch, "z9hG4bKabc1"));
	if (c->route != NULL)
		sip_printf(&b, "Route: %s\r\n", c->route);
	sip_printf(&b, "From: <sip:alice@example.org>;tag=%s\r\n", or_else(c->from_tag, "from1"));
	sip_printf(&b, "To: <%s>%s%s\r\n", uri_of(c), c->to_tag != NULL ? ";tag=" : "", or_else(c->to_tag, ""));
	sip_printf(&b, "Call-ID: %s\r\n", or_else(c->call_id, "call-1@198.18.104.2"));
	sip_printf(&b, "CSeq: %u %s\r\n", c->cseq != 0 ? c->cseq : 1, method_of(c));
	sip_printf(&b, "Max-Forwards: %d\r\n", c->max_forwards < 0 ? 0 : c->max_forwards == 0 ? 70 : c->max_forwards);
	sip_puts(&b, "Contact: <sip:alice@198.18.104.2:40112>\r\n");
	if (c->auth[0] != 0)
		sip_printf(&b, "Proxy-Authorization: %s\r\n", c->auth);
	sip_puts(&b, or_else(c->extra, ""));
	sip_printf(&b, "Content-Length: %zu\r\n\r\n%s", strlen(body_of(c)), body_of(c));
	assert_false(b.overflow);
	return b.len;
}

void call_authorize(struct world *w, struct call *c, const struct credentials_of *k, struct span realm, struct span nonce)
{
	struct digest_params p = {.username = span_str(k->user), .realm = realm, .nonce = nonce, .alg = k->alg, .alg_known = true};
	const char *qop = or_else(k->qop, "auth-int");
	char realm_text[256], hex[DIGEST_HEX_MAX];
	uint8_t ha1[DIGEST_HASH_MAX];

	assert_int_equal(span_cstr(realm, realm_text, sizeof(realm_text)), 0);
	p.uri = span_str(or_else(k->uri, uri_of(c)));
	p.cnonce = SPAN_LIT("c0ffee");
	p.nc_text = span_str(or_else(k->nc, "00000001"));
	p.qop_text = span_str(qop);
	p.qop = strcmp(qop, "auth") == 0 ? DIGEST_QOP_AUTH : DIGEST_QOP_AUTH_INT;
	assert_int_equal(digest_ha1(w->digest, k->alg, p.username, realm, span_str(k->secret), ha1), 0);
	assert_int_equal(digest_response(w->digest, &p, ha1, span_str(method_of(c)), span_str(body_of(c)), hex), 0);
	snprintf(c->auth, sizeof(c->auth),
		 "Digest username=\"%s\", realm=\"%s\", nonce=\"%.*s\", uri=\"%.*s\", response=\"%.*s\", algorithm=%s, cnonce=\"c0ffee\", "
		 "qop=%s, nc=%.*s",
		 k->user, realm_text, (int)nonce.n, nonce.p, (int)p.uri.n, p.uri.p, (int)(2 * digest_len(k->alg)), hex,
		 k->alg == DIGEST_SHA256 ? "SHA-256" : "MD5", qop, (int)p.nc_text.n, p.nc_text.p);
}

void world_send(struct world *w, const void *p, size_t n, const struct wn_addr *src)
{
	const struct front_flow from = {*src, 0};

	front_core_message(w->core, span_of(p, n), &from, w->now_ms, w->unix_s, &w->a);
}

void world_call(struct world *w, const struct call *c, const struct wn_addr *src)
{
	char buf[8192];
	size_t n = call_write(c, buf, sizeof(buf));

	world_send(w, buf, n, src);
}

enum front_class world_look(struct world *w, const void *p, size_t n, const struct wn_addr *src, struct front_look *look)
{
	const struct front_flow from = {*src, 0};

	return front_core_look(w->core, span_of(p, n), &from, w->now_ms, w->unix_s, look, &w->a);
}

bool world_first_class(struct world *w, struct span in, const struct wn_addr *src, uint64_t now_ms, uint64_t unix_s)
{
	const struct front_flow from = {*src, 0};
	struct front_look look;

	return front_core_look(w->core, in, &from, now_ms, unix_s, &look, &w->a) == FRONT_CLASS_FIRST;
}

void world_from_agent(struct world *w, const void *p, size_t n)
{
	front_core_from_agent(w->core, 0, span_of(p, n), w->now_ms, w->unix_s, &w->a);
}

struct span world_net(const struct world *w)
{
	return span_of(w->net, w->a.net_n);
}

struct span world_agent(const struct world *w)
{
	return span_of(w->to_agent, w->a.agent_n);
}

struct span header_of(struct span msg, const char *name)
{
	static struct sip_msg m;
	const struct sip_hdr *h;

	if (sip_parse(msg, false, &m) != SIP_OK || (h = sip_hdr_by_name(&m, span_str(name))) == NULL)
		return span_of(NULL, 0);
	return h->value;
}

bool holds(struct span msg, const char *text)
{
	return msg.n > 0 && memmem(msg.p, msg.n, text, strlen(text)) != NULL;
}

void world_challenge(const struct world *w, struct digest_params *p)
{
	assert_true(w->a.net_n > 0);
	assert_memory_equal(w->net, "SIP/2.0 407 ", 12);
	assert_int_equal(digest_parse(header_of(world_net(w), "Proxy-Authenticate"), p), 0);
}

void world_answer_challenge(struct world *w, struct call *c, const struct credentials_of *k, const struct wn_addr *src)
{
	struct digest_params p;

	c->auth[0] = 0;
	world_call(w, c, src);
	assert_int_equal(w->a.outcome, FRONT_challenged);
	world_challenge(w, &p);
	call_authorize(w, c, k, p.realm, p.nonce);
}

size_t world_sign_in(struct world *w, struct call *c, const struct credentials_of *k, const struct wn_addr *src, char *buf, size_t cap)
{
	size_t n;

	world_answer_challenge(w, c, k, src);
	n = call_write(c, buf, cap);
	world_send(w, buf, n, src);
	assert_string_equal(front_outcome_name(w->a.outcome), "forwarded");
	assert_true(w->a.agent_n > 0);
	memcpy(w->invite, w->to_agent, w->a.agent_n);
	w->invite_n = w->a.agent_n;
	return n;
}

struct wn_addr addr_of(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

uint64_t counted(const struct world *w, enum front_outcome o)
{
	return front_core_count(w->core, o);
}

size_t agent_answer(const struct world *w, unsigned status, const char *reason, char *buf, size_t cap)
{
	struct wn_addr front = addr_of("198.18.1.2:7061");
	static struct sip_msg m;
	struct sip_buf b;

	assert_int_equal(sip_parse(span_of(w->invite, w->invite_n), true, &m), SIP_OK);
	sip_buf_init(&b, buf, cap);
	sip_put_response(&b, &m, status, reason, SPAN_LIT("agenttag"), &front);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_RECORD_ROUTE); h != NULL; h = sip_hdr_next(&m, h)) {
		sip_put(&b, SPAN_LIT("Record-Route: "));
		sip_put(&b, h->value);
		sip_put(&b, SPAN_LIT("\r\n"));
	}
	sip_puts(&b, "Contact: <sip:agent@example.org>\r\n");
	sip_put_end(&b, SPAN_LIT("application/sdp"), status == 200 ? SPAN_LIT("v=0\r\n") : span_of(NULL, 0));
	assert_false(b.overflow);
	return b.len;
}
