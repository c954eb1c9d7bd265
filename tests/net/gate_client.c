/* SPDX-License-Identifier: Apache-2.0 */
/* A hand on the gate's control connection, for network tests: sends what it is told to and prints each answer as a line of JSON.
 *
 *   gate-client --addr ADDR:PORT --pin PIN --keys DIR [--role agent] COMMAND
 *
 *   open tcp|udp INSIDE:PORT REMOTE[:PORT] [lifetime=S] [connect=S] [syn=N] [idle=S] [bytes=N] [packets=N] [cookie=N] [user=NAME] [key=HEX]
 *   renew HOLE SECONDS     close HOLE     list     ping
 *   bench COUNT INSIDE:PORT REMOTE[:PORT] [...]   opens and closes COUNT holes, many requests under way at once
 *   -                                             commands from standard input, a line each, over one connection
 *
 * Exit status: 0 all answers were "ok" or "end", 1 another answer or no connection, 2 usage. */
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/b64.h"
#include "base/clock.h"
#include "base/log.h"
#include "gate/record.h"
#include "peer/peer.h"

#define WORDS        32
#define BENCH_WINDOW 1024
#define ANSWER_MS    10000

struct client {
	uv_loop_t loop;
	uv_timer_t limit;
	struct peer_conn *c;
	uint64_t seq;
	bool up, down, expired, bad, quiet;
	int reason;
	unsigned awaited; /* requests without their last answer */
	uint8_t part[GATE_REPLY_BYTES];
	size_t npart;
	uint64_t *holes; /* of bench */
	size_t nholes;
	uint64_t status[GATE_STATUSES];
};

static const char *op_name(uint8_t op)
{
	static const char *const name[GATE_OPS] = {"none", "ping", "open", "renew", "close", "list"};

	return op < GATE_OPS ? name[op] : "?";
}

static void set_text(json_t *j, const char *key, const char *v)
{
	json_object_set_new(j, key, json_string(v));
}

static void set_number(json_t *j, const char *key, uint64_t v)
{
	json_object_set_new(j, key, json_integer((json_int_t)v));
}

static void print(const struct gate_reply *r)
{
	json_t *j = json_object();
	char buf[WN_ADDR_STR], *text;

	set_text(j, "op", op_name(r->op));
	set_text(j, "status", gate_status_name((enum gate_status)r->status));
	set_number(j, "seq", r->seq);
	set_number(j, "hole", r->hole);
	if (r->status == GATE_OK && r->op != GATE_PING) {
		set_text(j, "protocol", r->proto == IPPROTO_TCP ? "tcp" : "udp");
		set_text(j, "inside", wn_addr_str(&r->inside, buf));
		set_text(j, "remote", wn_addr_str(&r->remote, buf));
		set_text(j, "public", wn_addr_str(&r->public, buf));
		json_object_set_new(j, "tag", json_boolean((r->flags & GATE_FLAG_TAG) != 0));
		set_text(j, "user", r->user);
		set_number(j, "cookie", r->cookie);
		set_number(j, "lifetime_s", r->lifetime_s);
		set_number(j, "packets", r->packets);
		set_number(j, "bytes", r->bytes);
	}
	text = json_dumps(j, JSON_COMPACT);
	puts(text != NULL ? text : "{}");
	fflush(stdout);
	free(text);
	json_decref(j);
}

static void answer(struct client *cl, const struct gate_reply *r)
{
	cl->status[r->status]++;
	if (r->status != GATE_OK && r->status != GATE_END)
		cl->bad = true;
	if (!cl->quiet)
		print(r);
	if (cl->holes != NULL && r->op == GATE_OPEN && r->status == GATE_OK)
		cl->holes[cl->nholes++] = r->hole;
	if (r->op != GATE_LIST || r->status != GATE_OK)
		cl->awaited--;
}

static void on_up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)c;
	(void)pin;
	((struct client *)arg)->up = true;
}

static void on_data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	struct client *cl = arg;
	struct gate_reply r;

	(void)c;
	while (n > 0) {
		size_t k = sizeof(cl->part) - cl->npart < n ? sizeof(cl->part) - cl->npart : n;

		memcpy(cl->part + cl->npart, p, k);
		cl->npart += k;
		p += k;
		n -= k;
		if (cl->npart < sizeof(cl->part))
			break;
		cl->npart = 0;
		if (gate_reply_decode(cl->part, &r) != 0 || cl->awaited == 0) {
			fprintf(stderr, "gate-client: an answer that is none\n");
			exit(1);
		}
		answer(cl, &r);
	}
}

static void on_down(struct peer_conn *c, int reason, void *arg)
{
	struct client *cl = arg;

	(void)c;
	cl->c = NULL;
	cl->down = true;
	cl->reason = reason;
}

static const struct peer_events events = {on_up, on_data, on_down};

static void on_limit(uv_timer_t *t)
{
	((struct client *)t->data)->expired = true;
}

/* Runs until at most `left` answers are missing. */
static bool await(struct client *cl, unsigned left)
{
	cl->expired = false;
	uv_timer_start(&cl->limit, on_limit, ANSWER_MS, 0);
	while (!cl->down && !cl->expired && (!cl->up || cl->awaited > left))
		uv_run(&cl->loop, UV_RUN_ONCE);
	uv_timer_stop(&cl->limit);
	if (cl->up && cl->awaited <= left)
		return true;
	fprintf(stderr, "gate-client: %s\n", cl->down ? strerror(cl->reason == 0 ? ECONNRESET : -cl->reason) : "no answer");
	return false;
}

static bool ask(struct client *cl, struct gate_request *r)
{
	uint8_t w[GATE_REQUEST_BYTES];

	r->seq = ++cl->seq;
	gate_request_encode(r, w);
	if (cl->c == NULL || peer_send(cl->c, w, sizeof(w)) != 0)
		return false;
	cl->awaited++;
	return true;
}

static bool number(const char *s, uint64_t max, uint64_t *out)
{
	unsigned long long v;

	if (span_u64(span_str(s), max, &v) != 0)
		return false;
	*out = v;
	return true;
}

static bool option(struct gate_request *r, const char *word)
{
	const char *eq = strchr(word, '=');
	struct span name = span_of(word, eq != NULL ? (size_t)(eq - word) : 0);
	uint64_t v = 0;

	if (eq == NULL)
		return false;
	if (span_eq(name, SPAN_LIT("user")))
		return span_cstr(span_str(eq + 1), r->user, sizeof(r->user)) == 0;
	if (span_eq(name, SPAN_LIT("key"))) {
		r->flags |= GATE_FLAG_TAG;
		return hex_decode(span_str(eq + 1), r->key, sizeof(r->key)) == 0;
	}
	if (!number(eq + 1, UINT64_MAX, &v))
		return false;
	if (span_eq(name, SPAN_LIT("lifetime")))
		r->lifetime_s = (uint32_t)v;
	else if (span_eq(name, SPAN_LIT("connect")))
		r->connect_s = (uint32_t)v;
	else if (span_eq(name, SPAN_LIT("syn")))
		r->syn_rate = (uint32_t)v;
	else if (span_eq(name, SPAN_LIT("idle")))
		r->idle_s = (uint32_t)v;
	else if (span_eq(name, SPAN_LIT("bytes")))
		r->bytes_per_s = v;
	else if (span_eq(name, SPAN_LIT("packets")))
		r->packets_per_s = (uint32_t)v;
	else if (span_eq(name, SPAN_LIT("cookie")))
		r->cookie = v;
	else
		return false;
	return true;
}

/* INSIDE REMOTE [option...] */
static bool grant(struct gate_request *r, char *const *word, int n)
{
	r->op = GATE_OPEN;
	r->lifetime_s = 60;
	memcpy(r->user, "test", 5);
	if (n < 2 || wn_addr_parse(span_str(word[0]), -1, &r->inside) != 0 || wn_addr_parse(span_str(word[1]), 0, &r->remote) != 0)
		return false;
	for (int i = 2; i < n; i++)
		if (!option(r, word[i]))
			return false;
	return true;
}

/* Asks `count` times, BENCH_WINDOW of them under way at most. \return nanoseconds, 0 on failure. */
static uint64_t many(struct client *cl, struct gate_request *r, uint64_t count)
{
	uint64_t start = wn_now_ns();

	for (uint64_t i = 0; i < count; i++) {
		if (r->op == GATE_CLOSE)
			r->hole = cl->holes[i];
		if (!ask(cl, r) || (cl->awaited >= BENCH_WINDOW && !await(cl, BENCH_WINDOW / 2)))
			return 0;
	}
	return await(cl, 0) ? wn_now_ns() - start + 1 : 0;
}

static bool bench(struct client *cl, struct gate_request *r, uint64_t count)
{
	struct gate_request end = {.op = GATE_CLOSE};
	uint64_t open_ns, close_ns;

	cl->holes = calloc(count, sizeof(cl->holes[0]));
	if (cl->holes == NULL)
		return false;
	cl->quiet = true;
	open_ns = many(cl, r, count);
	close_ns = open_ns != 0 ? many(cl, &end, cl->nholes) : 0;
	cl->quiet = false;
	if (close_ns != 0)
		printf("{\"asked\":%" PRIu64 ",\"opened\":%zu,\"opens_per_s\":%.0f,\"closes_per_s\":%.0f}\n", count, cl->nholes,
		       (double)count * 1e9 / (double)open_ns, (double)cl->nholes * 1e9 / (double)close_ns);
	for (unsigned s = 0; s < GATE_STATUSES; s++)
		if (cl->status[s] != 0 && s != GATE_OK)
			fprintf(stderr, "gate-client: %s: %" PRIu64 "\n", gate_status_name((enum gate_status)s), cl->status[s]);
	free(cl->holes);
	cl->holes = NULL;
	cl->nholes = 0;
	return close_ns != 0;
}

/* \return exit status */
static int command(struct client *cl, char *const *word, int n)
{
	struct gate_request r = {.op = 0};
	uint64_t v = 0;
	bool fine = false;

	if (n >= 4 && strcmp(word[0], "open") == 0) {
		r.proto = strcmp(word[1], "tcp") == 0 ? IPPROTO_TCP : IPPROTO_UDP;
		fine = grant(&r, word + 2, n - 2);
	} else if (n >= 4 && strcmp(word[0], "bench") == 0) {
		r.proto = IPPROTO_TCP;
		fine = number(word[1], 10000000, &v) && v > 0 && grant(&r, word + 2, n - 2);
		if (fine)
			return bench(cl, &r, v) ? 0 : 1;
	} else if (n == 3 && strcmp(word[0], "renew") == 0) {
		r.op = GATE_RENEW;
		fine = number(word[1], UINT64_MAX, &r.hole) && number(word[2], UINT32_MAX, &v);
		r.lifetime_s = (uint32_t)v;
	} else if (n == 2 && strcmp(word[0], "close") == 0) {
		r.op = GATE_CLOSE;
		fine = number(word[1], UINT64_MAX, &r.hole);
	} else if (n == 1 && (strcmp(word[0], "list") == 0 || strcmp(word[0], "ping") == 0)) {
		r.op = word[0][0] == 'l' ? GATE_LIST : GATE_PING;
		fine = true;
	}
	if (!fine) {
		fprintf(stderr, "gate-client: what does \"%s\" mean?\n", n > 0 ? word[0] : "");
		return 2;
	}
	return ask(cl, &r) && await(cl, 0) ? 0 : 1;
}

static int commands(struct client *cl)
{
	char line[1024], *word[WORDS], *save, *w;
	int rc = 0;

	while (rc == 0 && fgets(line, sizeof(line), stdin) != NULL) {
		int n = 0;

		for (w = strtok_r(line, " \n", &save); w != NULL && n < WORDS; w = strtok_r(NULL, " \n", &save))
			word[n++] = w;
		if (n > 0)
			rc = command(cl, word, n);
	}
	return rc;
}

static int run(struct client *cl, const struct peer_identity *id, const struct wn_addr *a, const struct peer_pin *pin, char *const *word,
	       int n)
{
	struct peer_options opt = {.pins = pin, .npins = 1};
	int rc;

	uv_loop_init(&cl->loop);
	uv_timer_init(&cl->loop, &cl->limit);
	cl->limit.data = cl;
	if (peer_connect(&cl->loop, id, a, &opt, &events, cl, &cl->c) < 0)
		return 1;
	rc = await(cl, 0) ? 0 : 1;
	if (rc == 0)
		rc = strcmp(word[0], "-") == 0 ? commands(cl) : command(cl, word, n);
	if (rc == 0 && cl->bad)
		rc = 1;
	if (cl->c != NULL)
		peer_close(cl->c);
	uv_close((uv_handle_t *)&cl->limit, NULL);
	uv_run(&cl->loop, UV_RUN_DEFAULT);
	uv_loop_close(&cl->loop);
	return rc;
}

int main(int argc, char **argv)
{
	static struct client cl;
	const char *addr = NULL, *pin = NULL, *keys = NULL, *role = "agent";
	struct peer_identity *id;
	struct peer_pin p;
	struct wn_addr a;
	int i = 1, rc;

	wn_log_init("gate-client", WN_LOG_WARN);
	for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
		if (strcmp(argv[i], "--addr") == 0)
			addr = argv[i + 1];
		else if (strcmp(argv[i], "--pin") == 0)
			pin = argv[i + 1];
		else if (strcmp(argv[i], "--keys") == 0)
			keys = argv[i + 1];
		else if (strcmp(argv[i], "--role") == 0)
			role = argv[i + 1];
		else
			break;
	}
	if (i >= argc || addr == NULL || pin == NULL || keys == NULL || wn_addr_parse(span_str(addr), GATE_CONTROL_PORT, &a) != 0 ||
	    peer_pin_parse(span_str(pin), &p) != 0) {
		fprintf(stderr,
			"usage: gate-client --addr ADDR:PORT --pin PIN --keys DIR [--role ROLE] open|renew|close|list|ping|bench|-\n");
		return 2;
	}
	if (sodium_init() < 0 || peer_identity_load(keys, role, &id) < 0)
		return 2;
	rc = run(&cl, id, &a, &p, argv + i, argc - i);
	peer_identity_free(id);
	return rc;
}
