/* SPDX-License-Identifier: Apache-2.0 */
/* One accepted call under a fake clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "client/dialog.h"

#define START   UINT64_C(5000)
#define EXPIRES 1800

struct sent {
	unsigned front;
	char bytes[DIALOG_MSG_MAX];
	size_t n;
	struct sip_msg m;
};

static struct call call;
static struct dialog d;
static struct sent sent[8];
static unsigned nsent;
static char buf[4096];

static struct wn_addr addr(const char *text)
{
	struct wn_addr a;

	assert_int_equal(wn_addr_parse(span_str(text), -1, &a), 0);
	return a;
}

static void at(uint64_t t)
{
	struct span bytes;

	nsent = 0;
	while (nsent < 8 && dialog_next(&d, START + t, &sent[nsent].front, &bytes)) {
		struct sent *x = &sent[nsent++];

		memcpy(x->bytes, bytes.p, bytes.n);
		x->n = bytes.n;
		assert_int_equal(sip_parse(span_of(x->bytes, x->n), false, &x->m), SIP_OK);
	}
}

static void answer_text(char *out, size_t cap, const char *headers)
{
	snprintf(out, cap,
		 "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 10.0.0.2:40000;branch=z9hG4bKx;rport=1;received=198.51.100.7\r\n"
		 "From: <sip:alice@example.org>;tag=%s\r\nTo: <sip:ssh@example.org>;tag=agent\r\nCall-ID: thecall\r\nCSeq: 2 INVITE\r\n"
		 "%sContent-Length: 0\r\n\r\n",
		 call.from_tag, headers);
}

static int begin_with(const char *headers)
{
	char text[2048];
	struct sip_msg m;

	memset(&call, 0, sizeof(call));
	strcpy(call.user, "alice");
	strcpy(call.domain, "example.org");
	strcpy(call.service, "ssh");
	strcpy(call.from_tag, "ours");
	call.local = addr("10.0.0.2:40000");
	call.fronts[0] = addr("192.0.2.1:5060");
	call.fronts[1] = addr("192.0.2.2:5060");
	call.nfronts = 2;
	answer_text(text, sizeof(text), headers);
	assert_int_equal(sip_parse(span_str(text), false, &m), SIP_OK);
	return dialog_begin(&d, &call, 1, &m, START);
}

#define ROUTE   "Record-Route: <sip:TOKEN-1_x@192.0.2.2:5060;lr>\r\n"
#define CONTACT "Contact: <sip:agent@example.org>\r\n"

static void begin(void)
{
	assert_int_equal(begin_with(CONTACT ROUTE "Session-Expires: 1800;refresher=uac\r\n"), 0);
	at(0);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_ACK);
}

static struct span respond(const struct sent *x, unsigned status, const char *headers)
{
	struct sip_buf b;
	struct wn_addr src = addr("198.51.100.7:51234");

	sip_buf_init(&b, buf, sizeof(buf));
	sip_put_response(&b, &x->m, status, "Said", (struct span){0}, &src);
	sip_puts(&b, headers);
	sip_put_end(&b, (struct span){0}, (struct span){0});
	return sip_buf_span(&b);
}

static bool feed(const struct wn_addr *from, struct span bytes, uint64_t t)
{
	struct sip_msg m;

	assert_int_equal(sip_parse(bytes, false, &m), SIP_OK);
	return dialog_input(&d, from, &m, START + t);
}

static bool deliver(unsigned front, struct span bytes, uint64_t t)
{
	return feed(&call.fronts[front], bytes, t);
}

static void check_route(const struct sent *x)
{
	const struct sip_hdr *h = sip_hdr_first(&x->m, SIP_HDR_ROUTE);
	struct sip_nameaddr na;
	struct sip_uri uri;
	char host[WN_ADDR_STR];

	assert_non_null(h);
	assert_int_equal(sip_parse_nameaddr(h->value, &na), 0);
	assert_int_equal(sip_parse_uri(na.uri, &uri), 0);
	assert_true(span_eq(uri.user, SPAN_LIT("TOKEN-1_x")));
	assert_true(span_eq(uri.host, span_str(wn_ip_str(&call.fronts[x->front], host))));
	assert_int_equal(uri.port, 5060);
}

static void the_ack(void **state)
{
	char text[2048];

	(void)state;
	begin();
	assert_int_equal(sent[0].front, 1);
	assert_int_equal(sent[0].m.cseq, 2);
	assert_true(span_eq(sent[0].m.uri, SPAN_LIT("sip:agent@example.org")));
	assert_true(span_eq(sent[0].m.to_tag, SPAN_LIT("agent")));
	assert_true(span_eq(sent[0].m.call_id, SPAN_LIT("thecall")));
	check_route(&sent[0]);
	at(1);
	assert_int_equal(nsent, 0);
	/* The 200 again, as when the ACK was lost: acknowledged again, to the front that it came from. */
	answer_text(text, sizeof(text), CONTACT ROUTE);
	assert_true(deliver(0, span_str(text), 500));
	at(500);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_ACK);
	assert_int_equal(sent[0].front, 0);
	check_route(&sent[0]);
}

static void unfit_answers(void **state)
{
	(void)state;
	assert_true(begin_with(ROUTE) < 0);
	assert_true(begin_with("Contact: *\r\n" ROUTE) < 0);
	assert_true(begin_with(CONTACT "Record-Route: <sip:192.0.2.1;lr>\r\n") < 0);
	assert_int_equal(begin_with(CONTACT), 0);
}

static void refresh(void **state)
{
	(void)state;
	begin();
	assert_int_equal(dialog_deadline(&d), START + EXPIRES * 500);
	at(EXPIRES * 500 - 1);
	assert_int_equal(nsent, 0);
	at(EXPIRES * 500);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_UPDATE);
	assert_int_equal(sent[0].m.cseq, 3);
	assert_int_equal(sent[0].front, 1);
	check_route(&sent[0]);
	assert_true(deliver(1, respond(&sent[0], 200, "Session-Expires: 600;refresher=uac\r\n"), EXPIRES * 500 + 10));
	assert_int_equal(dialog_deadline(&d), START + EXPIRES * 500 + 10 + 300 * 1000);
	/* An answer that says nothing means as before, not at once again. */
	at(EXPIRES * 500 + 10 + 300 * 1000);
	assert_int_equal(nsent, 1);
	assert_true(deliver(1, respond(&sent[0], 200, ""), 2000000));
	at(2000000);
	assert_int_equal(nsent, 0);
	assert_int_equal(dialog_deadline(&d), START + 2000000 + 300 * 1000);
	assert_int_equal(d.state, DIALOG_UP);
}

static void silent_front_is_replaced(void **state)
{
	unsigned heard[2] = {0};

	(void)state;
	begin();
	at(EXPIRES * 500);
	for (uint64_t t = 0; t < 1000; t += 10) {
		at(EXPIRES * 500 + t);
		for (unsigned i = 0; i < nsent; i++)
			assert_int_equal(sent[i].front, 1);
	}
	at(EXPIRES * 500 + 1000);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].front, 0);
	check_route(&sent[0]);
	/* The late answer to the first one does not end the second; its own does, and that front is kept. */
	assert_true(deliver(0, respond(&sent[0], 200, "Session-Expires: 1800\r\n"), EXPIRES * 500 + 1010));
	dialog_bye(&d, START + EXPIRES * 500 + 2000);
	at(EXPIRES * 500 + 2000);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_BYE);
	assert_int_equal(sent[0].front, 0);
	for (uint64_t t = 2000; t < 2000 + DIALOG_BYE_MS + 100; t += 10) {
		at(EXPIRES * 500 + t);
		for (unsigned i = 0; i < nsent; i++)
			heard[sent[i].front]++;
	}
	assert_true(heard[0] > 0 && heard[1] > 0);
	assert_int_equal(d.state, DIALOG_ENDED);
	assert_int_equal(d.end, DIALOG_END_SILENT);
}

static void expires_unrefreshed(void **state)
{
	unsigned updates = 0;

	(void)state;
	begin();
	for (uint64_t t = EXPIRES * 500; t <= EXPIRES * 1000; t += 100) {
		at(t);
		updates += nsent;
	}
	assert_true(updates > 20 && updates < 3000);
	assert_int_equal(d.state, DIALOG_ENDED);
	assert_int_equal(d.end, DIALOG_END_EXPIRED);
}

static void forgotten_by_the_agent(void **state)
{
	(void)state;
	begin();
	at(EXPIRES * 500);
	assert_true(deliver(1, respond(&sent[0], 481, ""), EXPIRES * 500 + 10));
	assert_int_equal(d.state, DIALOG_ENDED);
	assert_int_equal(d.end, DIALOG_END_UNKNOWN);
}

static void our_bye(void **state)
{
	struct sent first;

	(void)state;
	begin();
	dialog_bye(&d, START + 100);
	at(100);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_BYE);
	first = sent[0];
	at(599);
	assert_int_equal(nsent, 0);
	at(600);
	assert_int_equal(nsent, 1);
	assert_memory_equal(sent[0].bytes, first.bytes, first.n);
	/* Only once. */
	dialog_bye(&d, START + 610);
	at(610);
	assert_int_equal(nsent, 0);
	assert_true(deliver(1, respond(&sent[0], 200, ""), 620));
	assert_int_equal(d.state, DIALOG_ENDED);
	assert_int_equal(d.end, DIALOG_END_LOCAL);
	assert_int_equal(dialog_deadline(&d), UINT64_MAX);
}

static struct span peer_request(const char *method, const char *call_id, const char *from_tag, const char *to_tag)
{
	int n = snprintf(buf, sizeof(buf),
			 "%s sip:alice@10.0.0.2:40000 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.2:5060;branch=z9hG4bKf\r\n"
			 "Via: SIP/2.0/TLS agent;branch=z9hG4bKa\r\nMax-Forwards: 70\r\nFrom: <sip:ssh@example.org>;tag=%s\r\n"
			 "To: <sip:alice@example.org>;tag=%s\r\nCall-ID: %s\r\nCSeq: 1 %s\r\nContent-Length: 0\r\n\r\n",
			 method, from_tag, to_tag, call_id, method);

	return span_of(buf, (size_t)n);
}

static void their_bye(void **state)
{
	struct wn_addr stranger = addr("203.0.113.66:5060");

	(void)state;
	begin();
	/* Not from a front, not our call, not these ends of it. */
	assert_false(feed(&stranger, peer_request("BYE", "thecall", "agent", "ours"), 10));
	assert_false(deliver(1, peer_request("BYE", "other", "agent", "ours"), 10));
	assert_false(deliver(1, peer_request("BYE", "thecall", "else", "ours"), 10));
	assert_false(deliver(1, peer_request("BYE", "thecall", "agent", "else"), 10));
	assert_int_equal(d.state, DIALOG_UP);
	at(10);
	assert_int_equal(nsent, 0);
	assert_true(deliver(1, peer_request("INFO", "thecall", "agent", "ours"), 20));
	at(20);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.status, 405);
	assert_int_equal(d.state, DIALOG_UP);
	assert_true(deliver(1, peer_request("BYE", "thecall", "agent", "ours"), 30));
	assert_int_equal(d.state, DIALOG_ENDED);
	assert_int_equal(d.end, DIALOG_END_PEER);
	at(30);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.status, 200);
	assert_int_equal(sent[0].front, 1);
	/* Retransmitted, when the 200 was lost. */
	assert_true(deliver(0, peer_request("BYE", "thecall", "agent", "ours"), 530));
	at(530);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.status, 200);
}

/* A refresh is under way when the session ends: the BYE takes its place. */
static void bye_during_refresh(void **state)
{
	struct sent update;

	(void)state;
	begin();
	at(EXPIRES * 500);
	update = sent[0];
	sip_parse(span_of(update.bytes, update.n), false, &update.m);
	dialog_bye(&d, START + EXPIRES * 500 + 10);
	at(EXPIRES * 500 + 10);
	assert_int_equal(nsent, 1);
	assert_int_equal(sent[0].m.method, SIP_BYE);
	assert_true(deliver(1, respond(&update, 200, ""), EXPIRES * 500 + 20));
	assert_int_equal(d.state, DIALOG_ENDING);
	assert_true(deliver(1, respond(&sent[0], 200, ""), EXPIRES * 500 + 30));
	assert_int_equal(d.end, DIALOG_END_LOCAL);
}

static int setup(void **state)
{
	(void)state;
	return sodium_init() < 0 ? -1 : 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_ack),
		cmocka_unit_test(unfit_answers),
		cmocka_unit_test(refresh),
		cmocka_unit_test(silent_front_is_replaced),
		cmocka_unit_test(expires_unrefreshed),
		cmocka_unit_test(forgotten_by_the_agent),
		cmocka_unit_test(our_bye),
		cmocka_unit_test(their_bye),
		cmocka_unit_test(bye_during_refresh),
	};

	return cmocka_run_group_tests_name("client-dialog", tests, setup, NULL);
}
