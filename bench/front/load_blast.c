/* SPDX-License-Identifier: Apache-2.0 */
/* Those who get no further: strangers who are answered one by one, floods, requests in a dialog that was never accepted, replays. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load.h"

#define LOST_NS     200000000u
#define SEGMENTS    16u
#define GROUP       LOAD_BATCH
#define REPLAYS_MAX 4096u

/* A request that is written once; what differs from one to the next has a fixed place and a fixed length. */
struct form {
	char text[LOAD_TEXT];
	size_t n;
	size_t branch, call, tag, via_addr, via_port, contact_addr, contact_port;
};

/* A place of n characters that are filled in later. */
static size_t leave(struct sip_buf *b, size_t n)
{
	size_t at = b->len;

	for (size_t i = 0; i < n; i++)
		sip_putc(b, '0');
	return at;
}

#define ADDR_CHARS 15u /* 127.100.100.100 */
#define PORT_CHARS 5u

static void write_form(const struct load_options *o, const char *method, bool dialog, struct form *f)
{
	static const char sdp[] = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n";
	const bool offer = strcmp(method, "INVITE") == 0;
	size_t body, length;
	struct sip_buf b;

	sip_buf_init(&b, f->text, sizeof(f->text));
	sip_printf(&b, "%s sip:%s@%s SIP/2.0\r\nVia: SIP/2.0/UDP ", method, o->service, o->domain);
	f->via_addr = leave(&b, ADDR_CHARS);
	sip_puts(&b, ":");
	f->via_port = leave(&b, PORT_CHARS);
	sip_puts(&b, ";branch=z9hG4bK");
	f->branch = leave(&b, 16);
	sip_puts(&b, ";rport\r\nFrom: <sip:nobody@example.com>;tag=");
	f->tag = leave(&b, 8);
	sip_printf(&b, "\r\nTo: <sip:%s@%s>%s\r\nCall-ID: ", o->service, o->domain, dialog ? ";tag=314159" : "");
	f->call = leave(&b, 16);
	sip_printf(&b, "\r\nCSeq: %u %s\r\nContact: <sip:nobody@", dialog ? 2u : 1u, method);
	f->contact_addr = leave(&b, ADDR_CHARS);
	sip_puts(&b, ":");
	f->contact_port = leave(&b, PORT_CHARS);
	sip_puts(&b, ">\r\nMax-Forwards: 70\r\n");
	if (offer)
		sip_puts(&b, "Content-Type: application/sdp\r\n");
	/* filled up to the size that was asked for */
	length = b.len + (offer ? sizeof("Content-Length: 99\r\n\r\n") + sizeof(sdp) - 2 : sizeof("Content-Length: 0\r\n\r\n") - 1);
	if (offer && length + 99 - (sizeof(sdp) - 1) < o->size)
		length++; /* three digits */
	if (!offer && length + sizeof("X: \r\n") <= o->size) {
		size_t fill = o->size - length - sizeof("X: \r\n") + 2;

		sip_puts(&b, "X: ");
		for (size_t i = 0; i < fill; i++)
			sip_putc(&b, 'x');
		sip_puts(&b, "\r\n");
	}
	body = offer ? (length < o->size ? o->size - length + sizeof(sdp) - 1 : sizeof(sdp) - 1) : 0;
	sip_printf(&b, "Content-Length: %zu\r\n\r\n", body);
	if (offer) {
		sip_puts(&b, sdp);
		for (size_t i = sizeof(sdp) - 1; i < body; i++)
			sip_putc(&b, i + 2 == body          ? '\r'
				     : i + 1 == body        ? '\n'
				     : i == sizeof(sdp) - 1 ? 'a'
				     : i == sizeof(sdp)     ? '='
							    : 'x');
	}
	f->n = b.overflow ? 0 : b.len;
}

static void put_at(char *at, struct span v)
{
	memcpy(at, v.p, v.n);
}

/* One of many: number makes it unlike all others. */
static void fill(const struct form *f, char *to, uint64_t number, uint32_t addr, unsigned port)
{
	char text[32];
	struct sip_buf b;

	memcpy(to, f->text, f->n);
	load_hex(to + f->branch, number);
	load_hex(to + f->call, number * 0x9e3779b97f4a7c15u);
	memcpy(to + f->tag, to + f->call + 4, 8);
	sip_buf_init(&b, text, sizeof(text));
	load_put_address(&b, addr);
	put_at(to + f->via_addr, sip_buf_span(&b));
	put_at(to + f->contact_addr, sip_buf_span(&b));
	sip_buf_init(&b, text, sizeof(text));
	load_put_number(&b, port);
	put_at(to + f->via_port, sip_buf_span(&b));
	put_at(to + f->contact_port, sip_buf_span(&b));
}

struct blast {
	const struct load_options *o;
	struct load_net *net;
	struct form form;
	char *mem; /* GROUP times `segments` messages */
	unsigned segments;
	uint64_t number;
	unsigned group, addr, sock;
};

static int blast_new(struct blast *b, const struct load_options *o, const char *method, bool dialog, unsigned flags)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->first_port)};
	unsigned most;

	memset(b, 0, sizeof(*b));
	b->o = o;
	b->number = load_random();
	write_form(o, method, dialog, &b->form);
	most = (unsigned)(65000 / (b->form.n + 1));
	b->segments = o->segments < 1 ? 1 : o->segments > most ? most : o->segments;
	b->mem = malloc((size_t)GROUP * b->segments * LOAD_TEXT);
	if (b->form.n == 0 || b->mem == NULL)
		return -ENOMEM;
	return load_net_new(&any, o->ports, flags, &b->net);
}

static void blast_free(struct blast *b)
{
	load_net_free(b->net);
	free(b->mem);
}

/* Writes and sends n messages from the next addresses, a group of segments from one address. */
static void blast_send(struct blast *b, unsigned sock, unsigned n)
{
	const size_t each = b->form.n;

	while (n > 0) {
		unsigned take = n < b->segments ? n : b->segments;
		uint32_t addr = load_address(b->addr++ % b->o->addresses);
		char *at = b->mem + (size_t)(b->group++ % GROUP) * b->segments * LOAD_TEXT;

		for (unsigned i = 0; i < take; i++)
			fill(&b->form, at + i * each, b->number++, addr, load_net_port(b->net, sock));
		load_put(b->net, sock, addr, &b->o->to, at, take * each, take > 1 ? (uint16_t)each : 0);
		n -= take;
	}
	load_flush(b->net);
}

/* Each answer lets the next one go. */
int load_strangers(const struct load_options *o)
{
	struct blast b;
	uint64_t began, until, last, sent = 0, got = 0, other = 0, lost = 0, outstanding = 0;
	unsigned share = o->window / o->ports, open[LOAD_PORTS_MAX] = {0};
	struct load_pace pace;
	struct load_pkt *p;
	int r = blast_new(&b, o, "INVITE", false, 0);

	if (r != 0 || share == 0) {
		fprintf(stderr, "front-load: %s\n", r != 0 ? strerror(-r) : "the window is too small");
		return 1;
	}
	began = last = load_now_ns();
	until = began + (uint64_t)o->seconds * 1000000000u;
	load_pace_start(&pace, o->rate);
	for (bool more = true; (more || outstanding > 0) && !load_stop;) {
		uint64_t now = load_now_ns();
		unsigned moved = 0;

		more = more && now < until && (o->count == 0 || sent < o->count);
		for (unsigned i = 0; i < o->ports; i++) {
			unsigned n = load_recv(b.net, i, &p), due;

			for (unsigned k = 0; k < n; k++) {
				bool fine = p[k].n > 12 && memcmp(p[k].data, "SIP/2.0 407 ", 12) == 0;

				got += fine;
				other += !fine;
			}
			n = n > open[i] ? open[i] : n;
			open[i] -= n;
			outstanding -= n;
			moved += n;
			due = more ? load_due(&pace, share - open[i] > LOAD_BATCH ? LOAD_BATCH : share - open[i]) : 0;
			if (due > 0) {
				blast_send(&b, i, due);
				sent += due;
				open[i] += due;
				outstanding += due;
			}
		}
		if (moved > 0)
			last = now;
		else if (now - last > LOST_NS && outstanding > 0) {
			lost += outstanding;
			outstanding = 0;
			memset(open, 0, sizeof(open));
			last = now;
		} else
			load_wait(b.net, NULL);
	}
	printf("{\"sent\": %" PRIu64 ", \"answered\": %" PRIu64 ", \"other\": %" PRIu64 ", \"lost\": %" PRIu64
	       ", \"bytes\": %zu, \"seconds\": %.3f}\n",
	       sent, got, other, lost, b.form.n, (double)(load_now_ns() - began) / 1e9);
	blast_free(&b);
	return 0;
}

/* Without listening. */
static int pour(const struct load_options *o, const char *method, bool dialog)
{
	uint64_t began, until, sent = 0, unsent;
	struct load_pace pace;
	struct blast b;
	int r = blast_new(&b, o, method, dialog, LOAD_DEAF);

	if (r != 0) {
		fprintf(stderr, "front-load: %s\n", strerror(-r));
		return 1;
	}
	began = load_now_ns();
	until = began + (uint64_t)o->seconds * 1000000000u;
	load_pace_start(&pace, o->rate);
	for (unsigned sock = 0; load_now_ns() < until && !load_stop && (o->count == 0 || sent < o->count); sock = (sock + 1) % o->ports) {
		unsigned due = load_due(&pace, b.segments > 1 ? LOAD_BATCH * b.segments / 4 : LOAD_BATCH);

		load_burst(o, sent);
		if (due > 0)
			blast_send(&b, sock, due);
		else
			load_wait(b.net, NULL);
		sent += due;
	}
	load_burst_end(o);
	unsent = load_unsent(b.net);
	printf("{\"sent\": %" PRIu64 ", \"unsent\": %" PRIu64 ", \"missed\": %" PRIu64 ", \"bytes\": %zu, \"seconds\": %.3f}\n", sent,
	       unsent, pace.missed, b.form.n, (double)(load_now_ns() - began) / 1e9);
	blast_free(&b);
	return 0;
}

int load_flood(const struct load_options *o)
{
	return pour(o, "INVITE", false);
}

int load_nodialog(const struct load_options *o)
{
	return pour(o, o->method, true);
}

/* What calls has saved. */
struct saved {
	uint32_t addr;
	uint16_t port, n;
	char text[LOAD_TEXT];
};

static unsigned read_saved(const char *file, struct saved *s)
{
	FILE *f = fopen(file, "r");
	uint32_t head[2];
	unsigned n = 0;

	if (f == NULL)
		return 0;
	while (n < REPLAYS_MAX && fread(head, sizeof(head), 1, f) == 1) {
		s[n] = (struct saved){.addr = head[0], .port = (uint16_t)(head[1] >> 16), .n = (uint16_t)head[1]};
		if (s[n].n >= LOAD_TEXT || fread(s[n].text, s[n].n, 1, f) != 1)
			break;
		n++;
	}
	fclose(f);
	return n;
}

/* Each saved request again and again, from the address that it first came from; with other bytes or from another port. */
int load_replay(const struct load_options *o)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->first_port)};
	struct saved *s = calloc(REPLAYS_MAX, sizeof(*s));
	unsigned n = s != NULL && o->save != NULL ? read_saved(o->save, s) : 0, segments = o->segments < 1 ? 1 : o->segments;
	char *mem = malloc((size_t)GROUP * segments * LOAD_TEXT);
	uint64_t began, until, sent = 0, number = load_random();
	struct load_net *net = NULL;
	struct load_pace pace;
	size_t bytes = 0;

	if (n == 0 || mem == NULL || load_net_new(&any, o->ports, LOAD_DEAF, &net) != 0) {
		fprintf(stderr, "front-load: nothing to replay\n");
		free(s);
		free(mem);
		return 1;
	}
	began = load_now_ns();
	until = began + (uint64_t)o->seconds * 1000000000u;
	load_pace_start(&pace, o->rate);
	for (unsigned i = 0; load_now_ns() < until && !load_stop && (o->count == 0 || sent < o->count); i++) {
		const struct saved *one = &s[i % n];
		unsigned most = (unsigned)(65000 / (one->n + 1u)), sock = (unsigned)(one->port - o->first_port) % o->ports;
		unsigned due = load_due(&pace, segments < most ? segments : most);
		char *at = mem + (size_t)(i % GROUP) * segments * LOAD_TEXT;

		if (due == 0) {
			load_flush(net);
			load_wait(net, NULL);
			continue;
		}
		if (o->burst != 0 && i % GROUP == 0)
			load_burst(o, sent);
		for (unsigned k = 0; k < due; k++) {
			char *branch = memcpy(at + (size_t)k * one->n, one->text, one->n);

			branch = o->other_bytes ? memmem(branch, one->n, ";branch=z9hG4bK", 15) : NULL;
			if (branch != NULL)
				load_hex(branch + 15, number++);
		}
		if (o->other_port)
			sock = (sock + 1) % o->ports;
		load_put(net, sock, one->addr, &o->to, at, (size_t)due * one->n, due > 1 ? one->n : 0);
		sent += due;
		bytes += (size_t)due * one->n;
		if (i % GROUP == GROUP - 1)
			load_flush(net);
	}
	load_flush(net);
	load_burst_end(o);
	printf("{\"sent\": %" PRIu64 ", \"unsent\": %" PRIu64 ", \"of\": %u, \"bytes\": %.0f, \"seconds\": %.3f}\n", sent, load_unsent(net),
	       n, sent > 0 ? (double)bytes / (double)sent : 0.0, (double)(load_now_ns() - began) / 1e9);
	load_net_free(net);
	free(s);
	free(mem);
	return 0;
}
