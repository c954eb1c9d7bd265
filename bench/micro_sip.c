/* SPDX-License-Identifier: Apache-2.0 */
/* What one request costs a front in the pure parts: nanoseconds of CPU, the best of many rounds. micro_sip FILE, a datagram with
 * credentials such as tests/fuzz/corpus/sip_datagram/invite. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "sip/digest.h"
#include "sip/msg.h"
#include "ticket/nonce.h"

#define ROUNDS 30
#define TIMES  5000
#define REALM  SPAN_LIT("example.org/20781")

static struct sip_msg msg;
static struct span in;
static struct digest_ctx *ctx;
static struct digest_params params;
static struct nonce_window *window;
static struct nonce_issuer issuer;
static const struct wn_addr src = {.port = 40112};
static char text[NONCE_CHARS];

static bool parse(void)
{
	return sip_parse(in, false, &msg) == SIP_OK;
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
	printf("%-14s %6.0f ns\n", name, (double)best / TIMES);
	return true;
}

int main(int argc, char **argv)
{
	static char bytes[SIP_MESSAGE_MAX];
	FILE *f = argc == 2 ? fopen(argv[1], "rb") : NULL;

	if (f == NULL) {
		fprintf(stderr, "usage: micro_sip FILE (a SIP request with Proxy-Authorization)\n");
		return 2;
	}
	in = span_of(bytes, fread(bytes, 1, sizeof(bytes), f));
	fclose(f);
	if (!parse() || sip_hdr_first(&msg, SIP_HDR_PROXY_AUTHORIZATION) == NULL) {
		fprintf(stderr, "%s: no SIP request with Proxy-Authorization\n", argv[1]);
		return 2;
	}
	if (digest_ctx_new(&ctx) != 0 || nonce_window_new(25, 30000, NULL, &window) != 0)
		return 1;
	nonce_issuer_init(&issuer, window);
	printf("%zu bytes, %u headers\n", in.n, msg.nhdr);
	if (!measure("sip_parse", parse) || !measure("digest_parse", credentials) || !measure("digest_verify", verify) ||
	    !measure("nonce_issue", issue) || !measure("nonce_check", check))
		return 1;
	nonce_window_free(window);
	digest_ctx_free(ctx);
	return 0;
}
