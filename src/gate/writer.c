/* SPDX-License-Identifier: Apache-2.0 */
#include "gate/writer.h"

#include <errno.h>
#include <poll.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/log.h"
#include "gate/ipc.h"

#define LISTS        (GATE_TENANTS_MAX + 1) /* the last is the operator's */
#define DATAGRAMS    16                     /* served before events and expiry have their turn */
#define ANSWERS_KEPT 1024                   /* records in datagrams that the socket did not take yet */

/* A tenant's holes as they were when the list began. The packet path's walk has no bookmark, so the walk is done at once and the answers
 * are taken from here, a datagram at a time. */
struct list {
	struct gate_reply *hole;
	size_t n, cap, next;
	uint64_t only; /* this hole and no other; 0: all */
	bool failed;
};

struct writer {
	const struct gate_config *cfg;
	struct gate_dp *dp;
	int parser;
	struct list list[LISTS];
	struct gate_ipc_reply out[ANSWERS_KEPT];
	size_t nout;
	uint64_t holes; /* while counting */
	bool has_holes;
	uint64_t token; /* of the counters or samples being answered */
	int error;
};

/* One name for an end that has gone, however the kernel puts it. */
static int gone(int error)
{
	return error == ECONNRESET || error == EPIPE ? -EPIPE : -error;
}

/* Sends what is waiting; leaves what the socket does not take. */
static int flush(struct writer *w)
{
	size_t done = 0;
	int rc = 0;

	while (done < w->nout) {
		size_t n = w->nout - done < GATE_IPC_BATCH ? w->nout - done : GATE_IPC_BATCH;

		if (send(w->parser, &w->out[done], n * sizeof(w->out[0]), MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
			if (errno == EINTR)
				continue;
			rc = errno == EAGAIN || errno == ENOBUFS ? 0 : gone(errno);
			break;
		}
		done += n;
	}
	if (done > 0)
		memmove(w->out, &w->out[done], (w->nout - done) * sizeof(w->out[0]));
	w->nout -= done;
	return rc;
}

static struct gate_ipc_reply *answer(struct writer *w, uint32_t kind, uint64_t token)
{
	struct gate_ipc_reply *a;

	/* Reading stops long before; only a table of counters without end could come here. */
	if (w->nout == ANSWERS_KEPT) {
		w->error = -ENOBUFS;
		w->nout--;
	}
	a = &w->out[w->nout++];
	memset(a, 0, sizeof(*a));
	a->kind = kind;
	a->last = 1;
	a->token = token;
	return a;
}

/* The operator closes by number alone: the hole is asked for in every tenant's name in turn, so that the check of whose it is stays the one
 * that agents meet. */
static void close_anybodys(struct writer *w, const struct gate_request *q, uint64_t now_ms, struct gate_reply *r)
{
	struct gate_request mine = *q;

	r->status = GATE_NO_HOLE;
	for (mine.tenant = 0; mine.tenant < w->cfg->ntenant; mine.tenant++) {
		gate_dp_apply(w->dp, &mine, now_ms, r);
		if (r->status != GATE_NOT_YOURS)
			break;
	}
}

static void apply(struct writer *w, const struct gate_ipc_request *q, uint64_t now_ms)
{
	struct gate_reply *r = &answer(w, q->kind, q->token)->r;

	r->op = q->r.op < GATE_OPS ? q->r.op : 0;
	r->seq = q->r.seq;
	if (gate_request_check(&q->r) != 0 || q->r.op == GATE_LIST) {
		r->status = GATE_BAD_RECORD;
	} else if (q->r.tenant == GATE_IPC_ALL && q->r.op == GATE_CLOSE) {
		close_anybodys(w, &q->r, now_ms, r);
		r->op = q->r.op;
		r->seq = q->r.seq;
	} else if (q->r.tenant >= w->cfg->ntenant) {
		r->status = GATE_NOT_YOURS;
	} else {
		gate_dp_apply(w->dp, &q->r, now_ms, r);
		/* Whatever the packet path fills in, the answer is to this question. */
		r->op = q->r.op;
		r->seq = q->r.seq;
	}
}

static void refuse(struct writer *w, const struct gate_ipc_request *q)
{
	struct gate_reply *r = &answer(w, q->kind, q->token)->r;

	r->op = q->r.op < GATE_OPS ? q->r.op : 0;
	r->seq = q->r.seq;
	r->status = q->status < GATE_STATUSES && q->status != GATE_OK ? (uint8_t)q->status : (uint8_t)GATE_BAD_RECORD;
}

static int list_add(const struct gate_reply *hole, void *arg)
{
	struct list *l = arg;
	struct gate_reply *more;
	size_t cap;

	if (l->only != 0 && hole->hole != l->only)
		return 0;
	if (l->n == l->cap) {
		cap = l->cap == 0 ? 256 : l->cap * 2;
		more = realloc(l->hole, cap * sizeof(*more));
		if (more == NULL) {
			l->failed = true;
			return -ENOMEM;
		}
		l->hole = more;
		l->cap = cap;
	}
	l->hole[l->n++] = *hole;
	return 0;
}

static void list_end(struct list *l)
{
	free(l->hole);
	memset(l, 0, sizeof(*l));
}

static void list(struct writer *w, const struct gate_ipc_request *q, uint64_t now_ms)
{
	bool all = q->r.tenant == GATE_IPC_ALL;
	struct gate_ipc_reply *a;
	struct list *l;

	if (!all && q->r.tenant >= w->cfg->ntenant) {
		a = answer(w, q->kind, q->token);
		a->r.op = GATE_LIST;
		a->r.seq = q->r.seq;
		a->r.status = GATE_NOT_YOURS;
		return;
	}
	l = &w->list[all ? GATE_TENANTS_MAX : q->r.tenant];
	if (q->kind == GATE_IPC_LIST) {
		list_end(l);
		l->only = q->r.hole;
		if (gate_dp_each(w->dp, q->r.tenant, now_ms, list_add, l) < 0)
			l->failed = true;
	}
	for (unsigned i = 0; i < GATE_IPC_BATCH && l->next < l->n; i++) {
		a = answer(w, q->kind, q->token);
		a->r = l->hole[l->next++];
		a->r.op = GATE_LIST;
		a->r.seq = q->r.seq;
		a->r.status = GATE_OK;
		a->last = i == GATE_IPC_BATCH - 1 && l->next < l->n;
	}
	if (l->next == l->n) {
		a = answer(w, q->kind, q->token);
		a->r.op = GATE_LIST;
		a->r.seq = q->r.seq;
		a->r.status = l->failed ? GATE_FAILED : GATE_END;
		list_end(l);
	}
}

static void counter(const char *name, int is_drop, uint64_t value, void *arg)
{
	struct writer *w = arg;
	struct gate_ipc_reply *a = answer(w, GATE_IPC_COUNTERS, w->token);

	a->counter.value = value;
	a->counter.is_drop = is_drop != 0;
	a->last = 0;
	snprintf(a->counter.name, sizeof(a->counter.name), "%s", name);
	if (!is_drop && strcmp(name, "holes") == 0)
		w->has_holes = true;
}

static int count_hole(const struct gate_reply *hole, void *arg)
{
	(void)hole;
	((struct writer *)arg)->holes++;
	return 0;
}

static void counters(struct writer *w, const struct gate_ipc_request *q, uint64_t now_ms)
{
	w->token = q->token;
	w->has_holes = false;
	w->holes = 0;
	if (gate_dp_counters(w->dp, counter, w) < 0)
		wn_err("the packet path's counters cannot be read");
	if (!w->has_holes) {
		gate_dp_each(w->dp, GATE_IPC_ALL, now_ms, count_hole, w);
		counter("holes", 0, w->holes, w);
	}
	answer(w, GATE_IPC_COUNTERS, q->token);
}

static void drain(struct writer *w, const struct gate_ipc_request *q)
{
	struct gate_reply *r = &answer(w, GATE_IPC_DRAIN, q->token)->r;

	if (q->on > 1) {
		r->status = GATE_BAD_RECORD;
		return;
	}
	if (gate_dp_draining(w->dp) != (q->on == 1))
		wn_warn("%s", q->on == 1 ? "draining: the operator wants no new holes" : "no longer draining: holes are granted again");
	gate_dp_drain(w->dp, q->on == 1);
	r->status = GATE_OK;
}

static void sample(const struct gate_dropped *d, void *arg)
{
	struct writer *w = arg;
	struct gate_ipc_reply *a = answer(w, GATE_IPC_TRACE, w->token);

	a->dropped = *d;
	a->last = 0;
}

static bool trace_ok(const struct gate_ipc_trace *t)
{
	if (t->per_s > GATE_TRACE_MOST_PER_S || t->fresh > 1)
		return false;
	for (unsigned r = gate_reason_count(); r < 64 * GATE_REASON_WORDS; r++)
		if ((t->reasons[r / 64] >> (r % 64) & 1) != 0)
			return false;
	return true;
}

static void trace(struct writer *w, const struct gate_ipc_request *q, uint64_t now_ms)
{
	enum gate_status status = GATE_BAD_RECORD;

	w->token = q->token;
	if (trace_ok(&q->trace)) {
		status = GATE_OK;
		if (gate_dp_trace(w->dp, q->trace.reasons, q->trace.per_s, q->trace.fresh == 1, now_ms + GATE_TRACE_LEASE_MS) < 0 ||
		    gate_dp_samples(w->dp, GATE_IPC_SAMPLES, sample, w) < 0)
			status = GATE_FAILED;
	}
	answer(w, GATE_IPC_TRACE, q->token)->r.status = (uint8_t)status;
}

static int serve(struct writer *w, const struct gate_ipc_request *q, uint64_t now_ms)
{
	switch (q->kind) {
	case GATE_IPC_APPLY:
		apply(w, q, now_ms);
		break;
	case GATE_IPC_REFUSE:
		refuse(w, q);
		break;
	case GATE_IPC_LIST:
	case GATE_IPC_NEXT:
		list(w, q, now_ms);
		break;
	case GATE_IPC_COUNTERS:
		counters(w, q, now_ms);
		break;
	case GATE_IPC_DRAIN:
		drain(w, q);
		break;
	case GATE_IPC_TRACE:
		trace(w, q, now_ms);
		break;
	default:
		return -EPROTO;
	}
	return w->error;
}

/* One datagram. \return 0, 1 when there is none, or negative errno. */
static int take(struct writer *w)
{
	struct gate_ipc_request q[GATE_IPC_BATCH];
	struct iovec iov = {.iov_base = q, .iov_len = sizeof(q)};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recvmsg(w->parser, &m, MSG_DONTWAIT);
	uint64_t now_ms;
	int rc = 0;

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 1;
	if (n <= 0)
		return n < 0 ? gone(errno) : -EPIPE;
	if ((m.msg_flags & MSG_TRUNC) != 0 || (size_t)n % sizeof(q[0]) != 0)
		return -EPROTO;
	now_ms = wn_now_ms();
	for (size_t i = 0; i < (size_t)n / sizeof(q[0]) && rc == 0; i++) {
		rc = serve(w, &q[i], now_ms);
		/* A list or the counters fill a datagram by themselves. */
		if (rc == 0 && w->nout >= GATE_IPC_BATCH)
			rc = flush(w);
		/* The parser takes answers whatever else it does; if it does not, wait for it rather than forget one. */
		while (rc == 0 && w->nout > ANSWERS_KEPT / 2) {
			struct pollfd p = {.fd = w->parser, .events = POLLOUT};

			if (poll(&p, 1, 1000) == 0)
				rc = -ETIMEDOUT;
			else
				rc = flush(w);
		}
	}
	sodium_memzero(q, (size_t)n);
	return rc == 0 ? flush(w) : rc;
}

static int run(struct writer *w, int stop)
{
	struct pollfd p[3] = {{.fd = w->parser}, {.fd = stop, .events = POLLIN}, {.fd = gate_dp_fd(w->dp), .events = POLLIN}};
	uint64_t sweep_ms = wn_now_ms(), now_ms;
	int rc = 0;

	while (rc >= 0) {
		now_ms = wn_now_ms();
		if (now_ms >= sweep_ms) {
			gate_dp_sweep(w->dp, now_ms);
			sweep_ms = now_ms + GATE_SWEEP_MS;
		}
		/* While answers wait, no new question is taken. */
		p[0].events = w->nout > 0 ? POLLOUT : POLLIN;
		if (poll(p, 3, (int)(sweep_ms - now_ms)) < 0) {
			if (errno != EINTR)
				rc = -errno;
			continue;
		}
		if (p[1].revents != 0)
			return 0;
		if (p[2].revents != 0)
			gate_dp_events(w->dp);
		if (w->nout > 0 && p[0].revents != 0)
			rc = flush(w);
		for (unsigned i = 0; i < DATAGRAMS && rc == 0 && w->nout == 0 && p[0].revents != 0; i++)
			rc = take(w);
		if (rc > 0)
			rc = 0;
	}
	return rc;
}

int gate_writer_run(const struct gate_config *cfg, struct gate_dp *dp, int parser, int stop)
{
	struct writer *w = calloc(1, sizeof(*w));
	int rc;

	if (w == NULL)
		return -ENOMEM;
	w->cfg = cfg;
	w->dp = dp;
	w->parser = parser;
	rc = run(w, stop);
	for (unsigned i = 0; i < LISTS; i++)
		list_end(&w->list[i]);
	free(w);
	return rc;
}
