/* SPDX-License-Identifier: Apache-2.0 */
/* What one message costs a front in the pure parts: nanoseconds of CPU, the best of many rounds. micro_sip takes messages of its own, like
 * those that SIPp and Walnut's client send; micro_sip FILE, one datagram that a front would take. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sip/build.h"
#include "sip/digest.h"
#include "sip/msg.h"
#include "sip/quick.h"
#include "ticket/nonce.h"

#define ROUNDS 40
#define TIMES  5000
#define REALM  SPAN_LIT("example.org/20781")

#define SDP_SIPP                                                                                                    \
	"v=0\r\no=user1 53655765 2353687637 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 6000" \
	" RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
#define SIPP(method, branch, cseq, to)                                                                                   \
	method " sip:uas@192.0.2.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5061;branch=z9hG4bK-4711-1-" branch "\r\n" \
	       "From: sipp <sip:sipp@127.0.0.1:5061>;tag=4711SIPpTag001\r\nTo: uas <sip:uas@192.0.2.1:5060>" to "\r\n"   \
	       "Call-ID: 1-4711@127.0.0.1\r\nCSeq: " cseq " " method "\r\nContact: sip:sipp@127.0.0.1:5061\r\n"          \
	       "Max-Forwards: 70\r\n"
#define ROUTE "Route: <sip:AGpJ2kUZk3mZ0vQ8s1xkq7bJYdH4oVtR3wLxPfGhEuNcMaSzTyQbWiXeKdCvBnMl@192.0.2.1:5060;lr>\r\n"
#define CREDENTIALS(alg, response)                                                                                     \
	"Proxy-Authorization: Digest username=\"alice\",realm=\"example.org/20781\",nonce=\"AAAAAAAAAAAAAAAAAAAAAAAAA" \
	"AA\",uri=\"sip:uas@192.0.2.1:5060\",nc=00000001,cnonce=\"f2wE4q74\",qop=auth,algorithm=" alg ",response=\"" response "\"\r\n"
#define HEX32 "00000000000000000000000000000000"

static const struct {
	const char *name, *text;
} messages[] = {
	{"SIPp INVITE", SIPP("INVITE", "0", "1", "") "Subject: Performance Test\r\nContent-Type: application/sdp\r\n"
						     "Content-Length:   129\r\n\r\n" SDP_SIPP},
	{"SHA-256 INVITE", SIPP("INVITE", "0", "1", "") CREDENTIALS("SHA-256", HEX32 HEX32) "Content-Type: application/sdp\r\n"
											    "Content-Length:   129\r\n\r\n" SDP_SIPP},
	{"MD5 INVITE", SIPP("INVITE", "0", "1", "") CREDENTIALS("MD5", HEX32) "Content-Type: application/sdp\r\n"
									      "Content-Length:   129\r\n\r\n" SDP_SIPP},
	{"ACK", SIPP("ACK", "5", "1", ";tag=4712SIPpTag011") ROUTE "Subject: Performance Test\r\nContent-Length: 0\r\n\r\n"},
	{"BYE", SIPP("BYE", "7", "2", ";tag=4712SIPpTag011") ROUTE "Subject: Performance Test\r\nContent-Length: 0\r\n\r\n"},
	{"200 OK",
	 "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKw0123456789abcdef\r\n"
	 "Via: SIP/2.0/UDP 127.0.0.1:5061;received=127.0.0.1;branch=z9hG4bK-4711-1-0\r\n"
	 "From: sipp <sip:sipp@127.0.0.1:5061>;tag=4711SIPpTag001\r\nTo: uas <sip:uas@192.0.2.1:5060>;tag=4712SIPpTag011\r\n"
	 "Call-ID: 1-4711@127.0.0.1\r\nCSeq: 1 INVITE\r\n"
	 "Record-Route: <sip:AGpJ2kUZk3mZ0vQ8s1xkq7bJYdH4oVtR3wLxPfGhEuNcMaSzTyQbWiXeKdCvBnMl@192.0.2.1:5060;lr>\r\n"
	 "Contact: <sip:127.0.0.1:5062;transport=UDP>\r\nContent-Type: application/sdp\r\nContent-Length:   129\r\n\r\n" SDP_SIPP},
};

static struct sip_msg msg;
static struct span in;
static struct digest_ctx *ctx;
static struct digest_params params;
static struct nonce_window *window;
static struct nonce_issuer issuer;
static const struct wn_addr src = {.ip = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}, .port = 5061};
static char text[NONCE_CHARS];

static bool parse(void)
{
	return sip_parse(in, false, &msg) == SIP_OK;
}

static bool look(void)
{
	static struct sip_quick q;

	return sip_quick(in, &q);
}

static bool credentials(void)
{
	return digest_parse(sip_hdr_first(&msg, SIP_HDR_PROXY_AUTHORIZATION)->value, &params) == 0;
}

static bool verify(void)
{
	static const uint8_t ha1[DIGEST_HASH_MAX];

	return !digest_verify(ctx, &params, ha1, msg.method_text, msg.body);
}

static bool respond(void)
{
	static char out[SIP_MESSAGE_MAX];
	struct sip_buf b;

	sip_buf_init(&b, out, sizeof(out));
	sip_put_response(&b, &msg, 407, "Proxy Authentication Required", SPAN_LIT("0123456789abcdef"), &src);
	sip_put_end(&b, span_of(NULL, 0), span_of(NULL, 0));
	return !b.overflow;
}

static bool issue(void)
{
	nonce_issue(&issuer, &src, REALM, 0, 1000, text);
	return true;
}

static bool check(void)
{
	uint64_t number;

	return nonce_check(window, span_of(text, sizeof(text)), &src, REALM, 0, 1000, &number) == NONCE_OK;
}

static uint64_t cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool measure(const char *name, bool (*step)(void))
{
	uint64_t best = UINT64_MAX;

	for (unsigned r = 0; r < ROUNDS; r++) {
		uint64_t t = cpu_ns();

		for (unsigned i = 0; i < TIMES; i++) {
			if (!step())
				return false;
		}
		t = cpu_ns() - t;
		best = t < best ? t : best;
	}
	printf("  %-16s %6.0f ns\n", name, (double)best / TIMES);
	return true;
}

/* From an exact copy, which nothing but the message is near. */
static bool message(const char *name, struct span bytes)
{
	char *copy = malloc(bytes.n);
	bool ok;

	if (copy == NULL)
		return false;
	memcpy(copy, bytes.p, bytes.n);
	in = span_of(copy, bytes.n);
	ok = parse();
	if (ok) {
		printf("%s: %zu bytes, %u headers\n", name, in.n, msg.nhdr);
		ok = measure("sip_quick", look) && measure("sip_parse", parse);
		if (ok && msg.request && msg.method != SIP_ACK)
			ok = measure("sip_put_response", respond);
		if (ok && sip_hdr_first(&msg, SIP_HDR_PROXY_AUTHORIZATION) != NULL)
			ok = measure("digest_parse", credentials) && measure("digest_verify", verify);
	} else {
		fprintf(stderr, "%s: no SIP message\n", name);
	}
	free(copy);
	return ok;
}

static bool messages_of_its_own(void)
{
	for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		if (!message(messages[i].name, span_str(messages[i].text)))
			return false;
	}
	return true;
}

static bool file(const char *name)
{
	static char bytes[SIP_MESSAGE_MAX];
	FILE *f = fopen(name, "rb");
	size_t n;

	if (f == NULL) {
		perror(name);
		return false;
	}
	n = fread(bytes, 1, sizeof(bytes), f);
	fclose(f);
	return message(name, span_of(bytes, n));
}

int main(int argc, char **argv)
{
	bool ok;

	if (digest_ctx_new(&ctx) != 0 || nonce_window_new(25, 30000, NULL, &window) != 0)
		return 1;
	nonce_issuer_init(&issuer, window);
	ok = argc == 2 ? file(argv[1]) : messages_of_its_own();
	if (ok) {
		printf("nonces\n");
		ok = measure("nonce_issue", issue) && measure("nonce_check", check);
	}
	nonce_window_free(window);
	digest_ctx_free(ctx);
	return ok ? 0 : 1;
}
