/* SPDX-License-Identifier: Apache-2.0 */
/* Replays a script of datagrams through the front's core under a clock that only the script moves. See README.md for the language. */
#include <ctype.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sip/build.h"
#include "world.h"

#define VARIABLES 16
#define LINES_MAX 128
#define TEXT_MAX  65536

struct variable {
	char name[16];
	char value[256];
};

static struct {
	const char *file;
	unsigned line;
	char text[TEXT_MAX];
	char *rest;
	struct world w;
	struct variable var[VARIABLES];
	bool acted; /* there is an action that the script must account for */
	bool net_told, agent_told, outcome_told;
	char last[FRONT_OUT_MAX]; /* the last message that went in */
	size_t last_n;
} r;

__attribute__((format(printf, 1, 2), noreturn)) static void stop(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s:%u: ", r.file, r.line);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	if (r.w.a.net_n > 0)
		fprintf(stderr, "--- to the network ---\n%.*s", (int)r.w.a.net_n, r.w.net);
	if (r.w.a.agent_n > 0)
		fprintf(stderr, "--- to the agent ---\n%.*s", (int)r.w.a.agent_n, r.w.to_agent);
	exit(1);
}

static char *next_line(void)
{
	char *line = r.rest, *end;

	if (line == NULL || *line == 0)
		return NULL;
	end = strchr(line, '\n');
	r.rest = end != NULL ? end + 1 : NULL;
	if (end != NULL)
		*end = 0;
	r.line++;
	return line;
}

static struct variable *variable(struct span name, bool make)
{
	struct variable *free_one = NULL;

	for (unsigned i = 0; i < VARIABLES; i++) {
		if (r.var[i].name[0] == 0 && free_one == NULL)
			free_one = &r.var[i];
		else if (span_eq(name, span_str(r.var[i].name)))
			return &r.var[i];
	}
	if (!make || free_one == NULL || span_cstr(name, free_one->name, sizeof(free_one->name)) != 0)
		stop("no variable {%.*s}", (int)name.n, name.p);
	return free_one;
}

/* Everything the core said must have been told by the script. */
static void settle(void)
{
	if (!r.acted)
		return;
	if (!r.outcome_told)
		stop("the outcome %s is not told", front_outcome_name(r.w.a.outcome));
	if (r.w.a.net_n > 0 && !r.net_told)
		stop("a datagram went out that the script does not tell of");
	if (r.w.a.agent_n > 0 && !r.agent_told)
		stop("the agent was sent a message that the script does not tell of");
	r.acted = false;
}

static void acted(void)
{
	r.acted = true;
	r.net_told = r.agent_told = r.outcome_told = false;
}

/* Text with {name} replaced. */
static void put_expanded(struct sip_buf *b, const char *p)
{
	while (*p != 0) {
		const char *close = *p == '{' ? strchr(p, '}') : NULL;

		if (close != NULL) {
			sip_puts(b, variable(span_of(p + 1, (size_t)(close - p - 1)), false)->value);
			p = close + 1;
		} else {
			sip_putc(b, *p++);
		}
	}
}

/* @auth USER SECRET QOP [md5]: a Proxy-Authorization for {realm} and {nonce}. The body must be known, so it is put in afterwards. */
static void put_auth(struct sip_buf *b, char *arg, struct span method, struct span uri, struct span body)
{
	const char *user = strtok(arg, " "), *secret = strtok(NULL, " "), *qop = strtok(NULL, " "), *alg = strtok(NULL, " ");
	struct digest_params p = {.alg = alg != NULL ? DIGEST_MD5 : DIGEST_SHA256, .alg_known = true, .uri = uri};
	uint8_t ha1[DIGEST_HASH_MAX];
	char hex[DIGEST_HEX_MAX];

	if (user == NULL || secret == NULL || qop == NULL)
		stop("@auth USER SECRET QOP [md5]");
	if (strcmp(secret, "$alice") == 0)
		secret = ALICE_SECRET;
	else if (strcmp(secret, "$bob") == 0)
		secret = BOB_SECRET;
	p.username = span_str(user);
	p.realm = span_str(variable(SPAN_LIT("realm"), false)->value);
	p.nonce = span_str(variable(SPAN_LIT("nonce"), false)->value);
	p.cnonce = SPAN_LIT("c0ffee");
	p.nc_text = SPAN_LIT("00000001");
	p.qop_text = span_str(qop);
	p.qop = strcmp(qop, "auth") == 0 ? DIGEST_QOP_AUTH : DIGEST_QOP_AUTH_INT;
	if (digest_ha1(r.w.digest, p.alg, p.username, p.realm, span_str(secret), ha1) != 0 ||
	    digest_response(r.w.digest, &p, ha1, method, body, hex) != 0)
		stop("cannot compute a digest");
	sip_printf(
		b,
		"Proxy-Authorization: Digest username=\"%s\", realm=\"%s\", nonce=\"%s\", uri=\"%.*s\", response=\"%.*s\", algorithm=%s, "
		"cnonce=\"c0ffee\", qop=%s, nc=00000001\r\n",
		user, p.realm.p, p.nonce.p, (int)uri.n, uri.p, (int)(2 * digest_len(p.alg)), hex, alg != NULL ? "MD5" : "SHA-256", qop);
}

/* Lines up to a lone ".". */
static unsigned block(char **line)
{
	unsigned n = 0;
	char *l;

	while ((l = next_line()) != NULL && strcmp(l, ".") != 0) {
		if (n == LINES_MAX)
			stop("a block of more than %d lines", LINES_MAX);
		line[n++] = l;
	}
	if (l == NULL)
		stop("a block without its end");
	return n;
}

static void read_message(void)
{
	char *line[LINES_MAX], method[16] = "", uri[256] = "", body_text[8192];
	unsigned n = block(line), i;
	struct sip_buf b, body;

	sip_buf_init(&body, body_text, sizeof(body_text));
	for (i = 0; i < n && line[i][0] != 0; i++)
		;
	for (unsigned k = i + 1; k < n; k++) {
		put_expanded(&body, line[k]);
		sip_puts(&body, "\r\n");
	}
	if (n > 0 && sscanf(line[0], "%15s %255s", method, uri) != 2)
		stop("a start line is missing");
	sip_buf_init(&b, r.last, sizeof(r.last));
	for (unsigned k = 0; k < i; k++) {
		if (strncmp(line[k], "@auth ", 6) == 0) {
			put_auth(&b, line[k] + 6, span_str(method), span_str(uri), sip_buf_span(&body));
		} else if (strcmp(line[k], "@length") == 0) {
			sip_printf(&b, "Content-Length: %zu\r\n", body.len);
		} else {
			put_expanded(&b, line[k]);
			sip_puts(&b, "\r\n");
		}
	}
	sip_puts(&b, "\r\n");
	sip_put(&b, sip_buf_span(&body));
	if (b.overflow || body.overflow)
		stop("the message is too long");
	r.last_n = b.len;
}

/* One line against a pattern: * is anything, {name} captures up to what follows. */
static bool matches(const char *pat, struct span line)
{
	if (*pat == 0)
		return line.n == 0;
	if (*pat == '*') {
		for (size_t i = 0; i <= line.n; i++)
			if (matches(pat + 1, span_of(line.p + i, line.n - i)))
				return true;
		return false;
	}
	if (*pat == '{') {
		const char *close = strchr(pat, '}');
		struct variable *v;

		if (close == NULL)
			stop("an open {");
		v = variable(span_of(pat + 1, (size_t)(close - pat - 1)), true);
		for (size_t i = 0; i <= line.n; i++) {
			if (!matches(close + 1, span_of(line.p + i, line.n - i)))
				continue;
			if (span_cstr(span_of(line.p, i), v->value, sizeof(v->value)) != 0)
				stop("{%s} is too long", v->name);
			return true;
		}
		return false;
	}
	return line.n > 0 && *pat == *line.p && matches(pat + 1, span_of(line.p + 1, line.n - 1));
}

static bool next_of(struct span *msg, struct span *line)
{
	const char *end;

	if (msg->n == 0)
		return false;
	end = memchr(msg->p, '\n', msg->n);
	line->p = msg->p;
	line->n = end != NULL ? (size_t)(end - msg->p) : msg->n;
	msg->p += end != NULL ? line->n + 1 : line->n;
	msg->n -= end != NULL ? line->n + 1 : line->n;
	if (line->n > 0 && line->p[line->n - 1] == '\r')
		line->n--;
	return true;
}

/* A "..." line skips any number; "!text" says that no line of the message holds the text. */
static void expect(struct span msg)
{
	char *pat[LINES_MAX];
	unsigned n = block(pat), at = r.line - n - 1;
	struct span all = msg, line;
	bool skip = false;

	for (unsigned i = 0; i < n; i++) {
		r.line = at + i + 1;
		if (strcmp(pat[i], "...") == 0) {
			skip = true;
			continue;
		}
		if (pat[i][0] == '!') {
			if (memmem(all.p, all.n, pat[i] + 1, strlen(pat[i] + 1)) != NULL)
				stop("the message holds what it must not: %s", pat[i] + 1);
			continue;
		}
		do {
			if (!next_of(&msg, &line))
				stop("no line like: %s", pat[i]);
		} while (!matches(pat[i], line) && skip);
		if (!matches(pat[i], line))
			stop("wanted: %s\ngot: %.*s", pat[i], (int)line.n, line.p);
		skip = false;
	}
	r.line = at + n + 1;
	if (!skip && next_of(&msg, &line))
		stop("there is more: %.*s", (int)line.n, line.p);
}

static void run_ticks(uint64_t ms)
{
	uint64_t until = r.w.now_ms + ms;

	settle();
	while (r.w.now_ms < until) {
		r.w.now_ms++;
		if (r.w.now_ms % 1000 == 0)
			r.w.unix_s++;
		if (front_core_tick(r.w.core, r.w.now_ms, &r.w.a)) {
			acted();
			if (r.w.now_ms != until)
				stop("a timer ran out %llu ms before the script says", (unsigned long long)(until - r.w.now_ms));
		}
	}
}

static void command(char *line)
{
	char addr[64];
	unsigned long long n;
	struct wn_addr a;

	if (sscanf(line, "< %63s", addr) == 1) {
		settle();
		a = addr_of(addr);
		if (strstr(line, " again") == NULL)
			read_message();
		world_send(&r.w, r.last, r.last_n, &a);
		acted();
	} else if (strcmp(line, "agent <") == 0) {
		settle();
		read_message();
		world_from_agent(&r.w, r.last, r.last_n);
		acted();
	} else if (line[0] == '=' && line[1] == ' ') {
		if (!r.acted || strcmp(line + 2, front_outcome_name(r.w.a.outcome)) != 0)
			stop("the outcome is %s, not %s", r.acted ? front_outcome_name(r.w.a.outcome) : "none", line + 2);
		r.outcome_told = true;
	} else if (sscanf(line, "> %63s", addr) == 1) {
		a = addr_of(addr);
		if (!r.acted || r.w.a.net_n == 0)
			stop("nothing went to the network");
		if (!wn_addr_eq(&a, &r.w.a.to.addr))
			stop("it went elsewhere");
		r.net_told = true;
		expect(world_net(&r.w));
	} else if (strcmp(line, "agent >") == 0) {
		if (!r.acted || r.w.a.agent_n == 0)
			stop("nothing went to the agent");
		r.agent_told = true;
		expect(world_agent(&r.w));
	} else if (sscanf(line, "wait %llu", &n) == 1) {
		run_ticks(n);
	} else if (strcmp(line, "heartbeat") == 0) {
		world_heartbeat(&r.w);
	} else if (strcmp(line, "agent down") == 0) {
		atomic_store(&r.w.tenant[0].connected, false);
	} else if (strcmp(line, "agent up") == 0) {
		atomic_store(&r.w.tenant[0].connected, true);
	} else if (strcmp(line, "allow md5") == 0) {
		r.w.policy[0].md5 = true;
	} else {
		stop("not understood: %s", line);
	}
}

static void replay(void **state)
{
	FILE *f = fopen(r.file, "r");
	size_t n;
	char *line;

	(void)state;
	if (f == NULL)
		stop("%s", strerror(errno));
	n = fread(r.text, 1, sizeof(r.text) - 1, f);
	fclose(f);
	r.text[n] = 0;
	r.rest = r.text;
	world_new(&r.w, NULL);
	while ((line = next_line()) != NULL) {
		for (size_t k = strlen(line); k > 0 && isspace((unsigned char)line[k - 1]); k--)
			line[k - 1] = 0;
		if (line[0] != 0 && line[0] != '#')
			command(line);
	}
	settle();
	world_free(&r.w);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(replay)};

	if (argc != 2) {
		fprintf(stderr, "usage: replay FILE\n");
		return 2;
	}
	r.file = argv[1];
	return cmocka_run_group_tests(tests, NULL, NULL);
}
