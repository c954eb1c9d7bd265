/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "gate_step.h"

#define REPLAYS 600 /* the most that are tried */

/* Whether the steps that are kept end in a difference; last: where it is. */
static bool fails(struct round *r, const bool *keep, size_t *last)
{
	if (!round_start(r))
		return false;
	for (size_t i = 0; i < r->nsteps; i++) {
		if (keep[i] && !round_take(r, i)) {
			*last = i;
			return true;
		}
	}
	return false;
}

static size_t kept(const bool *keep, size_t n)
{
	size_t k = 0;

	for (size_t i = 0; i < n; i++)
		k += keep[i];
	return k;
}

/* Zeller's delta debugging, the removing half: ever smaller pieces are left out as long as that still fails. */
size_t round_shrink(struct round *r, bool *keep)
{
	bool *try = calloc(r->nsteps, sizeof(*try));
	size_t last = 0, left, piece;
	unsigned replays = 0;

	if (try == NULL)
		abort();
	if (fails(r, keep, &last))
		memset(keep + last + 1, 0, r->nsteps - last - 1);
	left = kept(keep, r->nsteps);
	for (piece = left / 2; piece > 0 && replays<REPLAYS; piece = piece> 1 ? piece / 2 : 0) {
		for (size_t from = 0; from < r->nsteps && replays < REPLAYS;) {
			size_t gone = 0, i;

			memcpy(try, keep, r->nsteps * sizeof(*try));
			for (i = from; i < r->nsteps && gone < piece; i++) {
				gone += try[i];
				try[i] = false;
			}
			from = i;
			if (gone == 0)
				continue;
			replays++;
			if (fails(r, try, &last)) {
				memset(try + last + 1, 0, r->nsteps - last - 1);
				memcpy(keep, try, r->nsteps * sizeof(*try));
			}
		}
	}
	left = kept(keep, r->nsteps);
	if (!fails(r, keep, &last)) /* says in r->wrong what it is; and the tables are as they were when it came */
		snprintf(r->wrong, sizeof(r->wrong), "it does not come again: the gate has drawn something that no seed decides");
	free(try);
	return left;
}

static uint32_t be(const uint8_t *p, unsigned n)
{
	uint32_t v = 0;

	while (n-- > 0)
		v = v << 8 | *p++;
	return v;
}

static void print_address(FILE *f, const uint8_t *ip, bool six, const uint8_t *port)
{
	char text[INET6_ADDRSTRLEN];

	fprintf(f, "%s", inet_ntop(six ? AF_INET6 : AF_INET, ip, text, sizeof(text)));
	if (port != NULL)
		fprintf(f, "%c%u", six ? '#' : ':', be(port, 2));
}

static void print_request_address(FILE *f, const struct wn_addr *a)
{
	print_address(f, wn_addr_is4(a) ? a->ip + 12 : a->ip, !wn_addr_is4(a), NULL);
	fprintf(f, " port %u", a->port);
}

/* p: an IP header; what lies within n bytes of it is named. */
static void print_packet(FILE *f, const uint8_t *p, size_t n)
{
	const bool six = p[0] >> 4 == 6;
	const size_t header = six ? 40 : 20;
	const uint8_t *l4 = p + header, proto = n > 9 ? p[six ? 6 : 9] : 0;
	const bool icmp = proto == (six ? 58 : 1);
	static const char flags[] = "FSRPA";

	if (n < header + 8) {
		fprintf(f, "cut");
		return;
	}
	fprintf(f, "%s ", proto == 6 ? "TCP" : proto == 17 ? "UDP" : icmp ? "ICMP" : "IP");
	print_address(f, p + (six ? 8 : 12), six, icmp ? NULL : l4);
	fprintf(f, " > ");
	print_address(f, p + (six ? 24 : 16), six, icmp ? NULL : l4 + 2);
	fprintf(f, " ttl %u, %u bytes", p[six ? 7 : 8], be(p + (six ? 4 : 2), 2));
	if (!six && (p[0] != 0x45 || (be(p + 6, 2) & 0x3fff) != 0))
		fprintf(f, ", first byte %02x, fragment field %04x", p[0], be(p + 6, 2));
	if (proto == 6 && n >= header + 20) {
		fprintf(f, ", ");
		for (unsigned i = 0; i < 5; i++)
			if (l4[13] >> i & 1)
				fputc(flags[i], f);
		fprintf(f, " seq %u ack %u window %u header %u", be(l4 + 4, 4), be(l4 + 8, 4), be(l4 + 14, 2), (l4[12] >> 4) * 4u);
	} else if (icmp) {
		const bool error = six ? l4[0] < 128 : l4[0] == 3 || l4[0] == 11 || l4[0] == 12;

		fprintf(f, ", type %u code %u id %u", l4[0], l4[1], be(l4 + 4, 2));
		if (error && n > header + 8) {
			fprintf(f, ", about ");
			print_packet(f, l4 + 8, n - header - 8);
		}
	}
}

static void print_hex(FILE *f, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		fprintf(f, "%s%02x", i % 32 == 0 ? "\n      " : i % 2 == 0 ? " " : "", p[i]);
}

static void print_grant(FILE *f, const struct step *st)
{
	const struct gate_request *q = &st->request;

	if (q->op != GATE_OPEN) {
		fprintf(f, "%s of ", q->op == GATE_RENEW ? "RENEW" : "CLOSE");
		if (st->opener == STEP_NONE)
			fprintf(f, "no hole");
		else
			fprintf(f, "step %zu's hole", st->opener);
		fprintf(f, " by tenant %u, lifetime %u s", q->tenant, q->lifetime_s);
		return;
	}
	fprintf(f, "OPEN %s%s by tenant %u: inside ", q->proto == 6 ? "TCP" : "UDP", (q->flags & GATE_FLAG_TAG) ? " with a tag" : "",
		q->tenant);
	print_request_address(f, &q->inside);
	fprintf(f, ", remote ");
	print_request_address(f, &q->remote);
	fprintf(f,
		", lifetime %u s, idle %u s, connect %u s, %u SYN/s, %" PRIu64 " bytes/s, %u packets/s, of %s %" PRIu64
		" bytes/s, %u packets/s",
		q->lifetime_s, q->idle_s, q->connect_s, q->syn_rate, q->bytes_per_s, q->packets_per_s, q->user, q->user_bytes_per_s,
		q->user_packets_per_s);
}

void step_print(FILE *f, const struct round *r, size_t at, bool bytes)
{
	const struct step *st = &r->step[at];

	fprintf(f, "%5zu ", at);
	switch (st->kind) {
	case STEP_FRAME:
		fprintf(f, "from %s: ", st->side == GM_OUTSIDE ? "outside" : "inside");
		if (st->n > 14 && (be(st->frame + 12, 2) == 0x0800 || be(st->frame + 12, 2) == 0x86dd))
			print_packet(f, st->frame + 14, st->n - 14);
		else
			fprintf(f, "a frame of type %04x", st->n >= 14 ? be(st->frame + 12, 2) : 0);
		fprintf(f, " in a frame of %zu", st->n);
		if (bytes)
			print_hex(f, st->frame, st->n);
		break;
	case STEP_GRANT:
		print_grant(f, st);
		break;
	default:
		fprintf(f, "%" PRIu64 " ns pass", st->ns);
		break;
	}
	fputc('\n', f);
}
