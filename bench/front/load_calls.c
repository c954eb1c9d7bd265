/* SPDX-License-Identifier: Apache-2.0 */
/* Whole calls through the server, caller and respondent in one thread: INVITE, 200, ACK, BYE, 200. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "load_call.h"
#include "load_time.h"

#define T1_NS     500000000u
#define T2_NS     4000000000u
#define GIVE_UP   (64u * (uint64_t)T1_NS)
#define SWEEP_NS  10000000u
#define LOST_NS   1000000000u /* without retransmissions, what has not come by then does not come */
#define CALLS_MAX 65536u
#define TRIES_MAX 4u

struct counts {
	uint64_t started, connected, in_time, completed, failed, challenged, again, refused, held;
};

struct calls {
	struct call_shape shape;
	const struct load_options *o;
	struct load_net *net, *uas;
	struct load_call *call;
	uint32_t *free, nfree, live, cap;
	struct load_nonce *nonce; /* by address; nonce[0] == 0: none */
	uint64_t next, now, last_sweep, began, until;
	char ok[LOAD_BATCH][LOAD_TEXT];
	struct counts n;
	struct load_hist setup;
	FILE *save;
	unsigned status; /* of the last refusal */
};

static void send_request(struct calls *k, struct load_call *c, const char *p, size_t n)
{
	if (n > 0)
		load_put(k->net, c->sock, load_address(c->address), &k->o->to, p, n, 0);
}

static unsigned port_of(const struct calls *k, const struct load_call *c)
{
	return load_net_port(k->net, c->sock);
}

static void arm(struct calls *k, struct load_call *c)
{
	c->again_ns = k->now + T1_NS;
	c->wait_ns = 2 * (uint64_t)T1_NS;
}

static void end(struct calls *k, struct load_call *c)
{
	c->state = CALL_FREE;
	k->free[k->nfree++] = c->slot;
	k->live--;
}

static void fail(struct calls *k, struct load_call *c)
{
	if (c->counted)
		k->n.failed++;
	end(k, c);
}

static void begin(struct calls *k)
{
	struct load_call *c = &k->call[k->free[--k->nfree]];
	struct load_nonce *nonce;

	k->live++;
	c->generation++;
	c->state = CALL_INVITED;
	c->address = (unsigned)(k->next % k->o->addresses);
	c->sock = (unsigned)((k->next + k->next / k->o->addresses) % k->o->ports);
	k->next++;
	c->user = load_random() % k->o->users;
	c->tries = c->cseq = 0;
	c->provisional = c->answered = c->acked = false;
	c->counted = k->now >= k->began + (uint64_t)k->o->warm_s * 1000000000u;
	c->began_ns = k->now;
	c->answer_n = 0;
	if (c->counted)
		k->n.started++;
	nonce = &k->nonce[c->address];
	call_write_invite(&k->shape, c, port_of(k, c), nonce->nonce[0] != 0 ? nonce : NULL);
	nonce->nonce[0] = 0;
	arm(k, c);
	send_request(k, c, c->request, c->request_n);
}

/* Proxy-Authentication-Info of a 200 spares the next call from this address its challenge. */
static void keep_next(struct calls *k, const struct load_call *c, const struct load_nonce *of, struct span info)
{
	const char *p = info.n > 0 ? memmem(info.p, info.n, "nextnonce=\"", 11) : NULL, *close;
	struct load_nonce *to = &k->nonce[c->address];

	if (p == NULL)
		return;
	p += 11;
	close = memchr(p, '"', (size_t)(info.p + info.n - p));
	if (close == NULL || of->realm[0] == 0)
		return;
	*to = *of;
	if (span_cstr(span_of(p, (size_t)(close - p)), to->nonce, sizeof(to->nonce)) != 0)
		to->nonce[0] = 0;
}

static void on_challenge(struct calls *k, struct load_call *c, const struct load_seen *s)
{
	static struct load_nonce nonce;
	bool can = strcmp(k->o->auth, "none") != 0 && c->tries < TRIES_MAX && load_challenge(k->shape.digest, s, &nonce);

	call_write_refused_ack(&k->shape, c, port_of(k, c), s);
	send_request(k, c, c->ack, c->ack_n);
	if (c->counted)
		k->n.challenged++;
	if (!can) {
		k->status = s->status;
		fail(k, c);
		return;
	}
	/* both go out in one batch, so the ACK's buffer stays as it is */
	call_write_invite(&k->shape, c, port_of(k, c), &nonce);
	c->provisional = false;
	arm(k, c);
	send_request(k, c, c->request, c->request_n);
}

static void save(struct calls *k, const struct load_call *c)
{
	uint32_t head[2] = {load_address(c->address), port_of(k, c) << 16 | (uint32_t)c->request_n};

	if (fwrite(head, sizeof(head), 1, k->save) != 1 || fwrite(c->request, c->request_n, 1, k->save) != 1)
		load_stop = 1;
}

static void on_connected(struct calls *k, struct load_call *c, const struct load_seen *s)
{
	static struct load_nonce last; /* the realm is the same for all */
	const char *realm;

	if (strcmp(k->o->auth, "next") == 0) {
		struct span req = span_of(c->request, c->request_n);

		realm = memmem(req.p, req.n, ",realm=\"", 8);
		if (realm != NULL) {
			const char *close = memchr(realm + 8, '"', (size_t)(req.p + req.n - realm - 8));

			if (close != NULL &&
			    span_cstr(span_of(realm + 8, (size_t)(close - realm - 8)), last.realm, sizeof(last.realm)) == 0)
				last.qop = memmem(req.p, req.n, ",qop=", 5) != NULL;
			keep_next(k, c, &last, s->info);
		}
	}
	if (k->save != NULL)
		save(k, c);
	if (c->counted) {
		uint64_t took = k->now - c->began_ns;

		k->n.connected++;
		k->n.in_time += took <= (uint64_t)k->o->deadline_ms * 1000000u;
		load_hist_add(&k->setup, took);
	}
	if (k->o->hold) {
		k->n.held++;
		c->state = CALL_HELD;
		k->live--; /* its slot is not used again */
		return;
	}
	call_write_ack_and_bye(&k->shape, c, port_of(k, c), s);
	c->state = CALL_BYE;
	arm(k, c);
	send_request(k, c, c->ack, c->ack_n);
	send_request(k, c, c->request, c->request_n);
}

static struct load_call *find(struct calls *k, struct span id)
{
	uint32_t slot, generation;

	if (!call_id_parse(&k->shape, id, &slot, &generation) || slot >= k->cap || k->call[slot].generation != generation ||
	    k->call[slot].state == CALL_FREE)
		return NULL;
	return &k->call[slot];
}

static unsigned cseq_of(struct span cseq)
{
	unsigned v = 0;

	for (size_t i = 0; i < cseq.n && cseq.p[i] >= '0' && cseq.p[i] <= '9'; i++)
		v = v * 10 + (unsigned)(cseq.p[i] - '0');
	return v;
}

static void on_answer(struct calls *k, const struct load_pkt *p)
{
	struct load_seen s;
	struct load_call *c;
	bool invite;

	load_see(span_of(p->data, p->n), &s);
	c = s.status != 0 ? find(k, s.call_id) : NULL;
	if (c == NULL || s.cseq.n < 5)
		return;
	invite = s.cseq.n >= 8 && memcmp(s.cseq.p + s.cseq.n - 6, "INVITE", 6) == 0;
	if (invite && c->state == CALL_INVITED && cseq_of(s.cseq) == c->cseq) {
		if (s.status < 200) {
			c->provisional = true;
		} else if (s.status < 300) {
			on_connected(k, c, &s);
		} else if (s.status == 407) {
			on_challenge(k, c, &s);
		} else {
			call_write_refused_ack(&k->shape, c, port_of(k, c), &s);
			send_request(k, c, c->ack, c->ack_n);
			k->status = s.status;
			k->n.refused += c->counted;
			fail(k, c);
		}
	} else if (invite && c->state == CALL_BYE && s.status >= 200 && s.status < 300) {
		send_request(k, c, c->ack, c->ack_n); /* a 200 that comes again wants its ACK again */
	} else if (!invite && c->state == CALL_BYE && s.status >= 200) {
		if (s.status < 300)
			k->n.completed += c->counted;
		else {
			k->status = s.status;
			k->n.failed += c->counted;
		}
		end(k, c);
	}
}

/* The respondent. */
static void on_request(struct calls *k, const struct load_pkt *p, char *ok)
{
	struct load_seen s;
	struct load_call *c;
	size_t n;

	load_see(span_of(p->data, p->n), &s);
	if (s.status != 0)
		return;
	c = find(k, s.call_id);
	if (s.method.n == 6 && s.method.p[0] == 'I') {
		if (c == NULL)
			return;
		if (!c->answered) {
			c->answer_n = call_write_ok(&k->shape, &s, true, c->answer);
			c->answer_to = p->peer;
			c->answered = true;
			c->answer_again_ns = k->now + T1_NS;
			c->answer_wait_ns = 2 * (uint64_t)T1_NS;
		}
		load_put(k->uas, 0, 0, &c->answer_to, c->answer, c->answer_n, 0);
	} else if (s.method.n == 3 && s.method.p[0] == 'A') {
		if (c != NULL)
			c->acked = true;
	} else if (s.method.n == 3 && s.method.p[0] == 'B') {
		if (c != NULL)
			c->acked = true;
		n = call_write_ok(&k->shape, &s, false, ok);
		load_put(k->uas, 0, 0, &p->peer, ok, n, 0);
	}
}

static void sweep_one(struct calls *k, struct load_call *c)
{
	if (k->now - c->began_ns > (k->o->retransmit ? GIVE_UP + GIVE_UP / 4 : LOST_NS)) {
		fail(k, c);
		return;
	}
	if (!k->o->retransmit)
		return;
	/* timer A until anything is heard, E for BYE */
	if (k->now >= c->again_ns && !(c->state == CALL_INVITED && c->provisional)) {
		send_request(k, c, c->request, c->request_n);
		k->n.again += c->counted;
		c->again_ns = k->now + c->wait_ns;
		c->wait_ns = c->state == CALL_BYE && 2 * c->wait_ns > T2_NS ? T2_NS : 2 * c->wait_ns;
	}
	if (c->answered && !c->acked && k->now >= c->answer_again_ns) {
		load_put(k->uas, 0, 0, &c->answer_to, c->answer, c->answer_n, 0);
		c->answer_again_ns = k->now + c->answer_wait_ns;
		c->answer_wait_ns = 2 * c->answer_wait_ns > T2_NS ? T2_NS : 2 * c->answer_wait_ns;
	}
}

static void sweep(struct calls *k)
{
	uint32_t used = (uint32_t)(k->next < k->cap ? k->next : k->cap);

	k->last_sweep = k->now;
	for (uint32_t i = 0; i < used; i++)
		if (k->call[i].state == CALL_INVITED || k->call[i].state == CALL_BYE)
			sweep_one(k, &k->call[i]);
	load_flush(k->net);
	load_flush(k->uas);
}

/* True: something came. */
static bool serve(struct calls *k)
{
	struct load_pkt *p;
	unsigned all = 0;

	for (unsigned i = 0; i < k->o->ports; i++) {
		unsigned n = load_recv(k->net, i, &p);

		all += n;
		for (unsigned j = 0; j < n; j++)
			on_answer(k, &p[j]);
	}
	load_flush(k->net);
	for (unsigned n = LOAD_BATCH, turns = 0; n == LOAD_BATCH && turns < 4; turns++) {
		n = load_recv(k->uas, 0, &p);
		all += n;
		for (unsigned j = 0; j < n; j++)
			on_request(k, &p[j], k->ok[j]);
		load_flush(k->uas);
	}
	return all > 0;
}

static void run(struct calls *k)
{
	struct load_pace pace;
	uint64_t begun = 0;

	k->now = k->began = k->last_sweep = load_now_ns();
	k->until = k->began + (uint64_t)k->o->seconds * 1000000000u;
	load_pace_start(&pace, k->o->rate);
	for (bool more = true; (more || k->live > 0) && !load_stop;) {
		bool moved;

		k->now = load_now_ns();
		more = more && k->now < k->until && (k->o->count == 0 || begun < k->o->count);
		moved = serve(k);
		if (more) {
			/* at a rate, calls begin whatever became of the others */
			uint32_t room = k->o->rate > 0 ? k->nfree : k->o->window > k->live ? k->o->window - k->live : 0;
			unsigned due;

			room = room > k->nfree ? k->nfree : room > LOAD_BATCH ? LOAD_BATCH : room;
			if (k->o->count != 0 && room > k->o->count - begun)
				room = (uint32_t)(k->o->count - begun);
			due = load_due(&pace, room);
			for (unsigned i = 0; i < due; i++)
				begin(k);
			begun += due;
			load_flush(k->net);
			moved |= due > 0;
		}
		if (k->now - k->last_sweep >= SWEEP_NS)
			sweep(k);
		if (!moved)
			load_wait(k->net, k->uas);
	}
	printf("{\"calls\": %" PRIu64 ", \"connected\": %" PRIu64 ", \"in_time\": %" PRIu64 ", \"completed\": %" PRIu64
	       ", \"failed\": %" PRIu64 ", \"refused\": %" PRIu64 ", \"status\": %u, \"challenged\": %" PRIu64 ", \"retransmits\": %" PRIu64
	       ", \"held\": %" PRIu64 ", \"missed\": %" PRIu64
	       ", \"p50_ms\": %.3f, \"p99_ms\": %.3f, \"max_ms\": %.3f, \"seconds\": %.3f}\n",
	       k->n.started, k->n.connected, k->n.in_time, k->n.completed, k->n.failed, k->n.refused, k->status, k->n.challenged,
	       k->n.again, k->n.held, pace.missed, load_hist_ms(&k->setup, 0.5), load_hist_ms(&k->setup, 0.99), load_hist_ms(&k->setup, 1),
	       (double)(load_now_ns() - k->began) / 1e9);
}

int load_calls(const struct load_options *o)
{
	const struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)o->first_port)};
	struct calls *k = calloc(1, sizeof(*k));
	int r = k == NULL ? -ENOMEM : 0, status = 1;

	if (k == NULL || o->uas.sin_port == 0) {
		fprintf(stderr, "front-load: calls need --uas\n");
		free(k);
		return 2;
	}
	k->o = k->shape.o = o;
	k->shape.run = load_random();
	k->cap = o->hold ? CALLS_MAX : o->rate > 0 ? CALLS_MAX : o->window;
	k->call = calloc(k->cap, sizeof(*k->call));
	k->free = calloc(k->cap, sizeof(*k->free));
	k->nonce = calloc(o->addresses, sizeof(*k->nonce));
	if (k->call == NULL || k->free == NULL || k->nonce == NULL)
		r = -ENOMEM;
	for (uint32_t i = 0; r == 0 && i < k->cap; i++) {
		k->call[i].slot = i;
		k->free[k->nfree++] = k->cap - 1 - i;
	}
	if (r == 0)
		r = load_digest_new(o, &k->shape.digest);
	if (r == 0)
		r = load_net_new(&any, o->ports, 0, &k->net);
	if (r == 0)
		r = load_net_new(&o->uas, 1, 0, &k->uas);
	if (r == 0 && o->save != NULL) {
		k->save = fopen(o->save, "w");
		r = k->save == NULL ? -errno : 0;
	}
	if (r == 0) {
		run(k);
		status = 0;
	} else {
		fprintf(stderr, "front-load: %s\n", strerror(-r));
	}
	if (k->save != NULL && fclose(k->save) != 0)
		status = 1;
	load_net_free(k->net);
	load_net_free(k->uas);
	load_digest_free(k->shape.digest);
	free(k->call);
	free(k->free);
	free(k->nonce);
	free(k);
	return status;
}
