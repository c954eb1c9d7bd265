/* SPDX-License-Identifier: Apache-2.0 */
/* The torture tests of RFC 4475, byte for byte as its appendix carries them. doc/rfc4475.md is the table of what the RFC says of each and
 * what the parser makes of it; this test reads it. */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../fuzz/sip_check.h"
#include "sip/msg.h"

#define COUNT 49

struct row {
	char section[16], file[16], rfc[64];
	enum sip_verdict datagram, stream;
	unsigned status; /* 0: none */
};

static struct row table[COUNT];
static size_t rows;

static enum sip_verdict verdict_of(const char *name)
{
	for (unsigned v = 0; v < SIP_VERDICTS; v++) {
		if (strcmp(sip_verdict_name((enum sip_verdict)v), name) == 0)
			return (enum sip_verdict)v;
	}
	fail_msg("no verdict: %s", name);
	return SIP_VERDICTS;
}

static int read_table(void **state)
{
	char line[1024];
	FILE *f = fopen(TABLE, "r");

	(void)state;
	if (f == NULL)
		return -1;
	while (fgets(line, sizeof(line), f) != NULL) {
		char datagram[32], stream[32], status[16];
		struct row r;

		if (sscanf(line, "| %15[0-9.] | %15[a-z0-9] | %63[^|] | %31[a-z_] | %31[a-z_] | %15[^ |] |", r.section, r.file, r.rfc,
			   datagram, stream, status) != 6)
			continue;
		if (rows == COUNT)
			return -1;
		r.datagram = verdict_of(datagram);
		r.stream = verdict_of(stream);
		r.status = (unsigned)strtoul(status, NULL, 10);
		table[rows++] = r;
	}
	fclose(f);
	return 0;
}

/* An exact heap copy, so that a sanitizer sees one byte too many. */
static struct span load(const char *name)
{
	char path[512];
	char *copy, buf[8192];
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s.dat", VECTORS, name);
	f = fopen(path, "rb");
	if (f == NULL)
		fail_msg("%s: %s", path, strerror(errno));
	n = fread(buf, 1, sizeof(buf), f);
	fclose(f);
	assert_true(n > 0 && n < sizeof(buf));
	copy = malloc(n);
	memcpy(copy, buf, n);
	return span_of(copy, n);
}

static struct span parsed(const char *name, struct sip_msg *m)
{
	struct span in = load(name);

	assert_int_equal(sip_parse(in, false, m), SIP_OK);
	return in;
}

static void release(struct span in)
{
	free((void *)(uintptr_t)in.p);
}

#define assert_span(s, text)                                        \
	do {                                                        \
		assert_int_equal((s).n, sizeof(text) - 1);          \
		assert_memory_equal((s).p, text, sizeof(text) - 1); \
	} while (0)

static void verdicts(void **state)
{
	struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		const struct row *r = &table[i];
		struct span in = load(r->file);
		enum sip_verdict v = sip_parse(in, false, &m);

		if (v != r->datagram)
			fail_msg("%s: %s, expected %s", r->file, sip_verdict_name(v), sip_verdict_name(r->datagram));
		/* The RFC's chapters: 3.1.1 is valid, 3.1.2 is not, and of 3.2 to 3.4 only two go beyond what a parser can still take. */
		if (strncmp(r->section, "3.1.1.", 6) == 0)
			assert_int_equal(v, SIP_OK);
		if (strncmp(r->section, "3.1.2.", 6) == 0)
			assert_int_not_equal(v, SIP_OK);
		if (v != SIP_OK) {
			bool response = strncmp(in.p, "SIP/", 4) == 0;

			assert_int_equal(r->status, response ? 0 : sip_verdict_status(v));
		}
		v = sip_parse(in, true, &m);
		if (v != r->stream)
			fail_msg("%s on a stream: %s, expected %s", r->file, sip_verdict_name(v), sip_verdict_name(r->stream));
		release(in);
	}
}

/* Each verdict is the same in a struct that held any of the others before, and in one full of anything: nothing is carried over. */
static void nothing_carried_over(void **state)
{
	static struct sip_msg used, fresh;

	(void)state;
	for (size_t before = 0; before < COUNT; before++) {
		for (size_t i = 0; i < COUNT; i++) {
			struct span first = load(table[before].file), in = load(table[i].file);

			memset(&used, 0xa5, sizeof(used));
			memset(&fresh, 0, sizeof(fresh));
			sip_parse(first, false, &used);
			assert_int_equal(sip_parse(in, false, &used), table[i].datagram);
			assert_int_equal(sip_parse(in, false, &fresh), table[i].datagram);
			if (table[i].datagram == SIP_OK)
				check_same(&used, &fresh);
			release(first);
			release(in);
		}
	}
}

/* On a stream what comes behind a message that was taken gets the verdict that it gets by itself. */
static void pairs_on_a_stream(void **state)
{
	struct sip_msg m;

	(void)state;
	for (size_t before = 0; before < COUNT; before++) {
		struct span first = load(table[before].file);

		for (size_t i = 0; i < COUNT; i++) {
			struct span in = load(table[i].file), both;
			size_t taken;
			char *copy;

			if (sip_parse(first, true, &m) == SIP_OK) {
				taken = m.consumed;
				copy = malloc(taken + in.n);
				memcpy(copy, first.p, taken);
				memcpy(copy + taken, in.p, in.n);
				both = span_of(copy, taken + in.n);
				assert_int_equal(sip_parse(both, true, &m), SIP_OK);
				assert_int_equal(m.consumed, taken);
				both = span_of(copy + taken, in.n);
				assert_int_equal(sip_parse(both, true, &m), table[i].stream);
				free(copy);
			}
			release(in);
		}
		release(first);
	}
}

static void complete(void **state)
{
	DIR *d = opendir(VECTORS);
	struct dirent *e;
	unsigned files = 0;

	(void)state;
	assert_non_null(d);
	while ((e = readdir(d)) != NULL) {
		if (strstr(e->d_name, ".dat") != NULL)
			files++;
	}
	closedir(d);
	assert_int_equal(rows, COUNT);
	assert_int_equal(files, COUNT);
}

/* Cut anywhere, as a datagram or on a stream, none is read past its end; on a stream a valid one is never refused before it is complete. */
static void cuts(void **state)
{
	struct sip_msg m;

	(void)state;
	for (size_t i = 0; i < COUNT; i++) {
		struct span in = load(table[i].file);

		for (size_t n = 0; n < in.n; n++) {
			char *copy = malloc(n != 0 ? n : 1);
			enum sip_verdict v;

			memcpy(copy, in.p, n);
			sip_parse(span_of(copy, n), false, &m);
			v = sip_parse(span_of(copy, n), true, &m);
			if (table[i].stream == SIP_OK)
				assert_true(v == SIP_INCOMPLETE || v == SIP_OK);
			else if (v != SIP_INCOMPLETE)
				assert_int_equal(v, table[i].stream);
			free(copy);
		}
		release(in);
	}
}

static void wsinv(void **state)
{
	struct sip_msg m;
	struct span in = parsed("wsinv", &m);
	struct sip_nameaddr n;
	struct span value, rest, item;
	const struct sip_hdr *h;
	struct sip_via via;

	(void)state;
	assert_int_equal(m.method, SIP_INVITE);
	assert_span(m.uri, "sip:vivekg@chair-dnrc.example.com;unknownparam");
	assert_span(m.to_tag, "1918181833n");
	assert_span(m.from_tag, "98asjd8");
	assert_int_equal(m.max_forwards, 68);
	assert_int_equal(m.cseq, 9);
	assert_span(m.call_id, "wsinv.ndaksdj@192.0.2.1");
	assert_span(m.via.transport, "UDP");
	assert_span(m.via.host, "192.0.2.2");
	assert_span(m.via.branch, "390skdjuw");
	assert_int_equal(m.body.n, 150);
	assert_int_equal(m.consumed, in.n);

	h = sip_hdr_next(&m, sip_hdr_first(&m, SIP_HDR_VIA));
	assert_non_null(h);
	rest = h->value;
	assert_true(sip_list_next(&rest, &item));
	assert_int_equal(sip_parse_via(item, &via), 0);
	assert_span(via.transport, "TCP");
	assert_span(via.host, "spindle.example.com");
	assert_span(via.branch, "z9hG4bK9ikj8");
	assert_true(sip_list_next(&rest, &item));
	assert_int_equal(sip_parse_via(item, &via), 0);
	assert_span(via.branch, "z9hG4bK30239");
	assert_false(sip_list_next(&rest, &item));
	assert_null(sip_hdr_next(&m, h));

	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_span(n.display, "\"Quoted string \\\"\\\"\"");
	assert_span(n.uri, "sip:jdrosen@example.com");
	assert_true(sip_param(n.params, SPAN_LIT("newparam"), &value));
	assert_span(value, "newvalue");
	assert_true(sip_param(n.params, SPAN_LIT("SecondParam"), &value));
	assert_null(value.p);
	assert_true(sip_param(n.params, SPAN_LIT("q"), &value));
	assert_span(value, "0.33");
	assert_false(sip_param(n.params, SPAN_LIT("r"), &value));

	h = sip_hdr_by_name(&m, SPAN_LIT("newfangledheader"));
	assert_non_null(h);
	assert_span(h->value, "newfangled value\r\n continued newfangled value");
	assert_int_equal(sip_hdr_by_name(&m, SPAN_LIT("s"))->value.n, 0);
	release(in);
}

static void intmeth(void **state)
{
	struct sip_msg m;
	struct span in = parsed("intmeth", &m);
	struct sip_uri uri;
	struct sip_nameaddr n;

	(void)state;
	assert_int_equal(m.method, SIP_METHOD_OTHER);
	assert_span(m.method_text, "!interesting-Method0123456789_*+`.%indeed'~");
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "1_unusual.URI~(to-be!sure)&isn't+it$/crazy?,/;;*");
	assert_span(uri.password, "&it+has=1,weird!*pas$wo~d_too.(doesn't-it)");
	assert_span(uri.host, "example.com");
	assert_span(m.from_tag, "_token~1'+`*%!-.");
	assert_int_equal(sip_parse_nameaddr(m.to, &n), 0);
	assert_span(n.display, "\"BEL:\\\x07 NUL:\\\0 DEL:\\\x7f\"");
	assert_int_equal(m.cseq, 139122385);
	assert_int_equal(m.max_forwards, 255);
	release(in);
}

static void baddn_with_blank_line(void **state)
{
	struct span in = load("baddn");
	char text[1024];
	struct sip_msg m;

	(void)state;
	memcpy(text, in.p, in.n);
	memcpy(text + in.n, "\r\n", 2);
	assert_int_equal(sip_parse(span_of(text, in.n + 2), false, &m), SIP_BAD_FROM_TO);
	release(in);
}

static void others(void **state)
{
	struct sip_msg m;
	struct sip_uri uri;
	struct sip_nameaddr n;
	struct span in, value;
	unsigned vias = 0;

	(void)state;
	in = parsed("esc01", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "sips%3Auser%40example.com");
	assert_span(uri.host, "example.net");
	release(in);

	in = parsed("esc02", &m);
	assert_int_equal(m.method, SIP_METHOD_OTHER);
	release(in);

	in = parsed("semiuri", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.user, "user;par=u%40example.net");
	assert_null(uri.params.p);
	release(in);

	in = parsed("dblreq", &m);
	assert_int_equal(m.method, SIP_REGISTER);
	assert_int_equal(m.body.n, 0);
	assert_true(m.consumed < in.n);
	release(in);

	in = parsed("longreq", &m);
	for (const struct sip_hdr *h = sip_hdr_first(&m, SIP_HDR_VIA); h != NULL; h = sip_hdr_next(&m, h))
		vias++;
	assert_int_equal(vias, 34);
	assert_span(m.via.host, "sip33.example.com");
	release(in);

	in = parsed("unreason", &m);
	assert_false(m.request);
	assert_int_equal(m.status, 200);
	assert_int_equal(m.method, SIP_INVITE);
	release(in);

	in = parsed("noreason", &m);
	assert_int_equal(m.status, 100);
	assert_int_equal(m.reason.n, 0);
	release(in);

	in = parsed("regescrt", &m);
	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_int_equal(sip_parse_uri(n.uri, &uri), 0);
	assert_span(uri.headers, "Route=%3Csip:sip.example.com%3E");
	release(in);

	in = parsed("cparam02", &m);
	assert_int_equal(sip_parse_nameaddr(sip_hdr_first(&m, SIP_HDR_CONTACT)->value, &n), 0);
	assert_int_equal(sip_parse_uri(n.uri, &uri), 0);
	assert_true(sip_param(uri.params, SPAN_LIT("unknownparam"), &value));
	release(in);

	in = parsed("unkscm", &m);
	assert_int_equal(sip_parse_uri(m.uri, &uri), 0);
	assert_span(uri.scheme, "nobodyKnowsThisScheme");
	assert_null(uri.host.p);
	release(in);

	in = parsed("inv2543", &m);
	assert_null(m.from_tag.p);
	assert_null(m.via.branch.p);
	assert_int_equal(m.max_forwards, -1);
	assert_true(m.body.n > 0);
	assert_int_equal(m.consumed, in.n);
	release(in);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(verdicts),
		cmocka_unit_test(complete),
		cmocka_unit_test(cuts),
		cmocka_unit_test(nothing_carried_over),
		cmocka_unit_test(pairs_on_a_stream),
		cmocka_unit_test(wsinv),
		cmocka_unit_test(intmeth),
		cmocka_unit_test(baddn_with_blank_line),
		cmocka_unit_test(others),
	};

	return cmocka_run_group_tests(tests, read_table, NULL);
}
