/* SPDX-License-Identifier: Apache-2.0 */
#include "client/session.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/reach.h"
#include "ticket/tag.h"

#define DATA_BUFFER (1 << 20) /* the service may send faster than the application reads */

enum state {
	SIGNING,
	CONNECTING,
	UP,
	ENDING, /* a BYE is on its way, or nothing is left to do but to say so */
	DONE,
};

struct attempt {
	struct session *s;
	int fd; /* -1: none */
	uv_poll_t poll;
};

struct session {
	struct session_env *env;
	const struct enrol *enrol;
	struct session_events ev;
	void *arg;
	enum sdp_proto proto;
	enum state state;
	struct session_report report;

	int fd;
	uv_poll_t poll;
	uv_timer_t timer;
	unsigned handles; /* that have to be closed before the memory goes */

	struct wn_addr local;
	struct reach fronts;   /* in the order of this session */
	struct signin *signin; /* until nothing more of it can matter */
	uint64_t signin_until;
	struct dialog dialog;
	bool has_dialog;

	struct wn_addr hole;
	struct attempt attempt[SESSION_TCP_TRIES];
	unsigned attempts;
	uint64_t attempt_again_at, attempt_until;

	uint8_t flow_key[FLOW_KEY_BYTES];
	uint64_t counter;
};

static void pump(struct session *s);

/* ---- the shared part ---- */

int session_env_init(struct session_env *env, uv_loop_t *loop, uint32_t timeout_ms)
{
	memset(env, 0, sizeof(*env));
	env->loop = loop;
	env->timeout_ms = timeout_ms;
	return digest_ctx_new(&env->digest);
}

void session_env_free(struct session_env *env)
{
	digest_ctx_free(env->digest);
	sodium_memzero(env, sizeof(*env));
}

/* ---- the end ---- */

static void on_closed(uv_handle_t *h)
{
	struct session *s = (struct session *)h->data;

	if (--s->handles > 0)
		return;
	sodium_memzero(s, sizeof(*s));
	free(s);
}

static void close_attempt(struct attempt *a)
{
	if (a->fd < 0)
		return;
	uv_close((uv_handle_t *)&a->poll, on_closed);
	close(a->fd);
	a->fd = -1;
}

static void drop_signin(struct session *s)
{
	signin_free(s->signin);
	s->signin = NULL;
}

static void done(struct session *s)
{
	s->state = DONE;
	for (unsigned i = 0; i < s->attempts; i++)
		close_attempt(&s->attempt[i]);
	drop_signin(s);
	s->ev.down(s, &s->report, s->arg);
	uv_close((uv_handle_t *)&s->poll, on_closed);
	uv_close((uv_handle_t *)&s->timer, on_closed);
	close(s->fd);
	s->fd = -1;
}

__attribute__((format(printf, 4, 5))) static void note(struct session *s, enum session_fault fault, int err, const char *fmt, ...)
{
	va_list ap;

	if (s->report.fault != SESSION_F_NONE)
		return;
	s->report.fault = fault;
	s->report.err = err;
	va_start(ap, fmt);
	vsnprintf(s->report.why, sizeof(s->report.why), fmt, ap);
	va_end(ap);
}

/* Says goodbye where there is somebody to say it to; pump does the rest. */
static void wind_up(struct session *s)
{
	uint64_t now_ms = wn_now_ms();

	if (s->state == ENDING || s->state == DONE)
		return;
	if (s->state == SIGNING) {
		signin_give_up(s->signin, now_ms);
		s->signin_until = now_ms + SESSION_FAREWELL_MS;
	}
	s->state = ENDING;
	for (unsigned i = 0; i < s->attempts; i++)
		close_attempt(&s->attempt[i]);
	if (s->has_dialog)
		dialog_bye(&s->dialog, now_ms);
}

/* Nobody is left to be told. */
static bool may_go(const struct session *s)
{
	if (s->has_dialog)
		return s->dialog.state == DIALOG_ENDED;
	return s->signin == NULL || signin_settled(s->signin);
}

/* ---- TCP to the hole ---- */

static void attempts_failed(struct session *s, int err)
{
	char at[WN_ADDR_STR];

	note(s, SESSION_F_HOLE, err, "the hole at %s cannot be reached: %s", wn_addr_str(&s->hole, at), strerror(err));
	wind_up(s);
}

static void on_connected(uv_poll_t *p, int status, int events)
{
	struct attempt *a = (struct attempt *)((char *)p - offsetof(struct attempt, poll));
	struct session *s = a->s;
	socklen_t len = sizeof(int);
	int err = 0, fd = a->fd;

	(void)status;
	(void)events;
	if (s->state != CONNECTING || fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err != 0) {
		close_attempt(a);
		/* A refusal is the service's own word; for the rest another port may do better. */
		if (err == ECONNREFUSED)
			attempts_failed(s, err);
		pump(s);
		return;
	}
	uv_close((uv_handle_t *)&a->poll, on_closed);
	a->fd = -1;
	for (unsigned i = 0; i < s->attempts; i++)
		close_attempt(&s->attempt[i]);
	s->state = UP;
	s->ev.up(s, fd, s->arg);
	pump(s);
}

static void try_tcp(struct session *s, uint64_t now_ms)
{
	struct attempt *a = &s->attempt[s->attempts];
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&s->hole, &ss);
	int one = 1, fd;

	s->attempt_again_at = now_ms + SESSION_TCP_AGAIN_MS;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		attempts_failed(s, errno);
		return;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS) {
		int err = errno;

		close(fd);
		attempts_failed(s, err);
		return;
	}
	a->s = s;
	a->fd = fd;
	if (uv_poll_init(s->env->loop, &a->poll, fd) < 0) {
		a->fd = -1;
		close(fd);
		attempts_failed(s, ENOMEM);
		return;
	}
	a->poll.data = s;
	s->handles++;
	s->attempts++;
	uv_poll_start(&a->poll, UV_WRITABLE, on_connected);
}

static void step_tcp(struct session *s, uint64_t now_ms)
{
	if (now_ms >= s->attempt_until)
		attempts_failed(s, ETIMEDOUT);
	else if (now_ms >= s->attempt_again_at && s->attempts < SESSION_TCP_TRIES)
		try_tcp(s, now_ms);
}

/* ---- the call ---- */

static void transmit(struct session *s, const struct wn_addr *to, struct span bytes)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(to, &ss);

	/* What cannot be sent now is sent again by the timers, like what is lost on the way. */
	(void)sendto(s->fd, bytes.p, bytes.n, MSG_NOSIGNAL, (struct sockaddr *)&ss, len);
}

static void accepted(struct session *s, uint64_t now_ms)
{
	const struct signin_answer *a = signin_answer(s->signin);
	int on = IP_PMTUDISC_DO;

	s->dialog = a->dialog;
	s->has_dialog = true;
	s->hole = a->sdp.conn;
	nonces_put(&s->env->nonces, &s->fronts.at[a->front], &s->local, s->enrol->user, &a->next, now_ms);
	if (s->proto == SDP_TCP) {
		s->state = CONNECTING;
		s->attempt_until = now_ms + SESSION_TCP_MS;
		try_tcp(s, now_ms);
	} else {
		flow_key_derive(a->session_key, 0, FLOW_TO_SERVICE, s->flow_key);
		if (wn_addr_is4(&s->hole))
			setsockopt(s->fd, IPPROTO_IP, IP_MTU_DISCOVER, &on, sizeof(on));
		s->state = UP;
	}
	s->signin_until = now_ms + SESSION_STRAY_MS;
	if (signin_settled(s->signin))
		drop_signin(s);
	if (s->proto == SDP_UDP)
		s->ev.up(s, -1, s->arg);
}

static void signin_failed(struct session *s)
{
	const struct signin_failure *f = signin_failure(s->signin);

	note(s, SESSION_F_SIGNIN, 0, "%s", f->why);
	s->report.signin = f->error;
	s->report.sip_status = f->sip_status;
	wind_up(s);
}

static void pump_signin(struct session *s, uint64_t now_ms)
{
	struct span bytes;
	unsigned front;

	while (signin_next(s->signin, now_ms, &front, &bytes))
		transmit(s, &s->fronts.at[front], bytes);
	if (s->state == SIGNING && signin_state(s->signin) == SIGNIN_ACCEPTED)
		accepted(s, now_ms);
	else if (s->state == SIGNING && signin_state(s->signin) == SIGNIN_FAILED)
		signin_failed(s);
	else if (s->state > SIGNING && now_ms >= s->signin_until)
		drop_signin(s);
}

static void pump_dialog(struct session *s, uint64_t now_ms)
{
	struct span bytes;
	unsigned front;

	while (dialog_next(&s->dialog, now_ms, &front, &bytes))
		transmit(s, &s->fronts.at[front], bytes);
	if (s->dialog.state != DIALOG_ENDED)
		return;
	switch (s->dialog.end) {
	case DIALOG_END_PEER:
		note(s, SESSION_F_ENDED, 0, "the service ended the session");
		break;
	case DIALOG_END_UNKNOWN:
		note(s, SESSION_F_ENDED, 0, "the service does not know the session any more");
		break;
	case DIALOG_END_EXPIRED:
		note(s, SESSION_F_ENDED, 0, "the session expired: no front answered the refresh");
		break;
	default:
		break;
	}
	wind_up(s);
}

static void on_finish(uv_timer_t *t)
{
	done((struct session *)t->data);
}

static void arm(struct session *s, uint64_t now_ms);

static void pump(struct session *s)
{
	uint64_t now_ms = wn_now_ms();

	if (s->state == DONE)
		return;
	if (s->signin != NULL)
		pump_signin(s, now_ms);
	if (s->state == CONNECTING)
		step_tcp(s, now_ms);
	if (s->has_dialog)
		pump_dialog(s, now_ms);
	arm(s, now_ms);
}

static void on_timer(uv_timer_t *t)
{
	pump((struct session *)t->data);
}

static void arm(struct session *s, uint64_t now_ms)
{
	uint64_t at = UINT64_MAX, t;

	if (s->state == ENDING && may_go(s)) {
		/* From a callback of its own, so that the owner is never called back from within its own call. */
		uv_timer_start(&s->timer, on_finish, 0, 0);
		return;
	}
	if (s->signin != NULL) {
		at = signin_deadline(s->signin);
		if (s->state > SIGNING && s->signin_until < at)
			at = s->signin_until;
	}
	if (s->state == CONNECTING) {
		t = s->attempts < SESSION_TCP_TRIES && s->attempt_again_at < s->attempt_until ? s->attempt_again_at : s->attempt_until;
		at = t < at ? t : at;
	}
	if (s->has_dialog) {
		t = dialog_deadline(&s->dialog);
		at = t < at ? t : at;
	}
	if (at == UINT64_MAX)
		uv_timer_stop(&s->timer);
	else
		uv_timer_start(&s->timer, on_timer, at > now_ms ? at - now_ms : 0, 0);
}

/* ---- what comes in ---- */

static void got_signalling(struct session *s, const struct wn_addr *from, struct span bytes, uint64_t now_ms)
{
	struct sip_msg m;

	if (s->has_dialog && sip_parse(bytes, false, &m) == SIP_OK && dialog_input(&s->dialog, from, &m, now_ms))
		return;
	if (s->signin != NULL)
		signin_input(s->signin, from, bytes, now_ms);
}

static void on_readable(uv_poll_t *p, int status, int events)
{
	struct session *s = (struct session *)p->data;
	uint8_t *packet = s->env->packet;

	(void)events;
	/* After a socket error libuv stops watching; recvfrom takes the error away. */
	if (status < 0)
		uv_poll_start(p, UV_READABLE, on_readable);
	for (unsigned i = 0; i < SESSION_DATAGRAMS && s->state != DONE; i++) {
		struct sockaddr_storage ss;
		socklen_t len = sizeof(ss);
		struct wn_addr from;
		ssize_t n = recvfrom(s->fd, packet, sizeof(s->env->packet), 0, (struct sockaddr *)&ss, &len);

		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0)
			continue;
		wn_addr_from_sockaddr(&from, &ss);
		if (s->proto == SDP_UDP && s->has_dialog && wn_addr_eq(&from, &s->hole)) {
			if (s->state == UP)
				s->ev.datagram(s, packet, (size_t)n, s->arg);
		} else {
			got_signalling(s, &from, span_of(packet, (size_t)n), wn_now_ms());
		}
	}
	pump(s);
}

/* ---- the beginning ---- */

static int begin_signin(struct session *s, const char *service, uint16_t port)
{
	struct signin_config cfg = {0};
	const struct enrol *e = s->enrol;
	int rc;

	reach_draw(&s->fronts, e);
	for (unsigned i = 0; i < s->fronts.n && cfg.first.nonce[0] == '\0'; i++) {
		struct wn_addr local;

		if (reach_from(&s->fronts.at[i], &local) == 0 &&
		    nonces_take(&s->env->nonces, &s->fronts.at[i], &local, e->user, e->domain, wn_now_ms(), &cfg.first))
			reach_begin_with(&s->fronts, i);
	}
	rc = -ENETUNREACH;
	for (unsigned i = 0; i < s->fronts.n && rc < 0; i++) {
		rc = reach_from(&s->fronts.at[i], &s->local);
		if (rc == 0)
			reach_begin_with(&s->fronts, i);
	}
	if (rc == 0)
		rc = reach_open(&s->local, s->proto == SDP_UDP ? DATA_BUFFER : 0);
	if (rc < 0)
		return rc;
	s->fd = rc;
	cfg.user = e->user;
	cfg.domain = e->domain;
	cfg.secret = e->secret;
	cfg.service = service;
	memcpy(cfg.fronts, s->fronts.at, sizeof(cfg.fronts));
	cfg.nfronts = s->fronts.n;
	cfg.epoch_s = e->epoch_s;
	cfg.proto = s->proto;
	cfg.walnut_port = port;
	cfg.local = s->local;
	cfg.timeout_ms = s->env->timeout_ms;
	cfg.unix_s = wn_unix_s();
	cfg.digest = s->env->digest;
	if (cfg.first.nonce[0] != '\0' && s->proto == SDP_UDP)
		cfg.first.seen.port = s->local.port; /* the likeliest; the first valid tag decides */
	randombytes_buf(cfg.seed, sizeof(cfg.seed));
	rc = signin_new(&cfg, wn_now_ms(), &s->signin);
	sodium_memzero(cfg.seed, sizeof(cfg.seed));
	return rc;
}

int session_start(struct session_env *env, const struct enrol *e, const char *service, uint16_t port, enum sdp_proto proto,
		  const struct session_events *ev, void *arg, struct session **out)
{
	struct session *s = calloc(1, sizeof(*s));
	int rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	s->env = env;
	s->enrol = e;
	s->ev = *ev;
	s->arg = arg;
	s->proto = proto;
	s->fd = -1;
	rc = begin_signin(s, service, port);
	if (rc == 0)
		rc = uv_poll_init(env->loop, &s->poll, s->fd);
	if (rc < 0) {
		signin_free(s->signin);
		if (s->fd >= 0)
			close(s->fd);
		free(s);
		return rc;
	}
	uv_timer_init(env->loop, &s->timer);
	s->poll.data = s;
	s->timer.data = s;
	s->handles = 2;
	uv_poll_start(&s->poll, UV_READABLE, on_readable);
	pump(s);
	*out = s;
	return 0;
}

void session_end(struct session *s)
{
	if (s->state >= ENDING)
		return;
	wind_up(s);
	if (s->has_dialog)
		pump_dialog(s, wn_now_ms());
	else if (s->signin != NULL)
		pump_signin(s, wn_now_ms());
	arm(s, wn_now_ms());
}

int session_send(struct session *s, const uint8_t *p, size_t n)
{
	struct sockaddr_storage ss;
	uint8_t packet[SESSION_UDP_MAX + TAG_BYTES];
	socklen_t len;

	if (s->state != UP || s->proto != SDP_UDP)
		return -ENOTCONN;
	if (n > session_send_max(s))
		return -EMSGSIZE;
	memcpy(packet, p, n);
	tag_seal(packet, n, ++s->counter, s->flow_key);
	len = wn_addr_to_sockaddr(&s->hole, &ss);
	if (sendto(s->fd, packet, n + TAG_BYTES, MSG_NOSIGNAL, (struct sockaddr *)&ss, len) < 0)
		return -errno;
	return 0;
}

size_t session_send_max(const struct session *s)
{
	return wn_addr_is4(&s->hole) ? SESSION_UDP_MAX : SESSION_UDP_MAX - 20; /* the IPv6 header is longer */
}
