/* SPDX-License-Identifier: Apache-2.0 */
#include "world.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "fake.h"
#include "sip/build.h"
#include "ticket/session_key.h"
#include "ticket/tag.h"

#define NONCES_MAX 1024
#define KEYS_MAX   256
#define KICK_MS    200

struct world_private {
	struct world pub;
	struct fake fake;
	pthread_t thread;
	int wake[2];
	int front_fd[2], silent_fd, tcp_fd, udp_fd, closed_fd;
	struct wn_addr tcp, udp, closed;
	bool used[NONCES_MAX];
	unsigned issued;
	uint8_t keys[KEYS_MAX][FLOW_KEY_BYTES];
	unsigned nkeys;
	char realm[64];
	/* One call to be kicked. */
	char bye[2048];
	size_t bye_len;
	struct wn_addr bye_to;
	unsigned bye_front;
	uint64_t bye_at;
	/* One call that waits. */
	char waiting[8192];
	size_t waiting_len;
};

static int bind_to(int type, struct wn_addr *at)
{
	struct sockaddr_storage ss;
	struct wn_addr a;
	socklen_t len;
	int fd;

	wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &a);
	len = wn_addr_to_sockaddr(&a, &ss);
	fd = socket(ss.ss_family, type | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&ss, len) < 0)
		return -1;
	len = sizeof(ss);
	getsockname(fd, (struct sockaddr *)&ss, &len);
	wn_addr_from_sockaddr(at, &ss);
	return fd;
}

static void send_to(int fd, const struct wn_addr *to, struct span bytes)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(to, &ss);

	(void)sendto(fd, bytes.p, bytes.n, 0, (struct sockaddr *)&ss, len);
}

static void *echo(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char buf[16384];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		for (ssize_t off = 0; off < n;) {
			ssize_t k = send(fd, buf + off, (size_t)(n - off), MSG_NOSIGNAL);

			if (k < 0)
				goto out;
			off += k;
		}
	}
	/* The end comes back like everything else, after the client has ended its direction. */
	shutdown(fd, SHUT_WR);
	(void)!read(fd, buf, 1);
out:
	close(fd);
	return NULL;
}

static void accept_echo(struct world_private *w)
{
	int fd = accept4(w->tcp_fd, NULL, NULL, SOCK_CLOEXEC);
	pthread_attr_t attr;
	pthread_t t;

	if (fd < 0)
		return;
	w->pub.echo_connections++;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &attr, echo, (void *)(intptr_t)fd) != 0)
		close(fd);
	pthread_attr_destroy(&attr);
}

static void serve_udp(struct world_private *w)
{
	uint8_t in[2048], out[2048] = "re:";
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct wn_addr from;
	uint64_t counter;
	ssize_t n = recvfrom(w->udp_fd, in, sizeof(in), 0, (struct sockaddr *)&ss, &len);

	if (n < 0)
		return;
	for (unsigned i = 0; i < w->nkeys; i++) {
		if (!tag_verify(in, (size_t)n, w->keys[i], &counter))
			continue;
		w->pub.tagged++;
		if (counter > w->pub.top_counter)
			w->pub.top_counter = (unsigned)counter;
		/* Not from the hole, so it must not come out at the other end. */
		wn_addr_from_sockaddr(&from, &ss);
		send_to(w->front_fd[0], &from, SPAN_LIT("not from the service"));
		memcpy(out + 3, in, (size_t)n - TAG_BYTES);
		(void)sendto(w->udp_fd, out, (size_t)n - TAG_BYTES + 3, 0, (struct sockaddr *)&ss, len);
		return;
	}
	w->pub.bad_tags++;
}

static struct span agent_answers(struct world_private *w, unsigned front, const struct sip_msg *m, const struct wn_addr *from)
{
	struct sip_uri uri;
	char next[32];
	struct span user;
	uint8_t session[SESSION_KEY_BYTES];

	if (sip_parse_uri(m->uri, &uri) < 0)
		return (struct span){0};
	user = uri.user;
	snprintf(next, sizeof(next), "nonce-%u", w->issued++);
	if (span_eq(user, SPAN_LIT("busy")))
		return fake_status(&w->fake, m, from, 503, "Retry-After: 60\r\n");
	if (span_eq(user, SPAN_LIT("only-udp")))
		return fake_status(&w->fake, m, from, 488, "");
	if (span_eq(user, SPAN_LIT("closed")))
		return fake_accept(&w->fake, m, from, &w->closed, "agent", next, 1800);
	if (span_eq(user, SPAN_LIT("dns"))) {
		if (w->nkeys < KEYS_MAX && fake_session_key(&w->fake, m, session) == 0)
			flow_key_derive(session, 0, FLOW_TO_SERVICE, w->keys[w->nkeys++]);
		return fake_accept(&w->fake, m, from, &w->udp, "agent", next, 1800);
	}
	if (span_eq(user, SPAN_LIT("kicked"))) {
		w->bye_len =
			(size_t)snprintf(w->bye, sizeof(w->bye),
					 "BYE sip:alice@client SIP/2.0\r\nVia: SIP/2.0/UDP front;branch=z9hG4bKkick\r\nMax-Forwards: 70\r\n"
					 "From: <sip:kicked@example.org>;tag=agent\r\nTo: <sip:alice@example.org>;tag=%.*s\r\n"
					 "Call-ID: %.*s\r\nCSeq: 1 BYE\r\nContent-Length: 0\r\n\r\n",
					 (int)m->from_tag.n, m->from_tag.p, (int)m->call_id.n, m->call_id.p);
		w->bye_to = *from;
		w->bye_front = front;
		w->bye_at = wn_now_ms() + KICK_MS;
		return fake_accept(&w->fake, m, from, &w->tcp, "agent", next, 1800);
	}
	if (span_eq(user, SPAN_LIT("brief")))
		return fake_accept(&w->fake, m, from, &w->tcp, "agent", next, 2);
	if (span_eq(user, SPAN_LIT("ssh")))
		return fake_accept(&w->fake, m, from, &w->tcp, "agent", next, 1800);
	if (span_eq(user, SPAN_LIT("slow")) || span_eq(user, SPAN_LIT("crossed"))) {
		memcpy(w->waiting, m->raw.p, m->raw.n);
		w->waiting_len = m->raw.n;
		return (struct span){0};
	}
	return fake_status(&w->fake, m, from, 404, "");
}

static void on_cancel(struct world_private *w, unsigned front, const struct sip_msg *m, const struct wn_addr *from)
{
	struct sip_msg invite;

	if (sip_parse(span_of(w->waiting, w->waiting_len), false, &invite) != SIP_OK || !span_eq(invite.via.branch, m->via.branch) ||
	    !span_eq(invite.uri, m->uri) || invite.cseq != m->cseq)
		return;
	w->pub.cancels++;
	send_to(w->front_fd[front], from, fake_status(&w->fake, m, from, 200, ""));
	if (memmem(m->uri.p, m->uri.n, "slow", 4) != NULL)
		send_to(w->front_fd[front], from, fake_status(&w->fake, &invite, from, 487, ""));
	else
		send_to(w->front_fd[front], from, fake_accept(&w->fake, &invite, from, &w->tcp, "agent", NULL, 1800));
}

static void challenge(struct world_private *w, unsigned front, const struct sip_msg *m, const struct wn_addr *from, bool stale)
{
	char nonce[32];

	snprintf(nonce, sizeof(nonce), "nonce-%u", w->issued++);
	w->pub.challenges++;
	send_to(w->front_fd[front], from, fake_challenge(&w->fake, m, from, w->realm, nonce, "SHA-256", stale));
}

static void on_invite(struct world_private *w, unsigned front, const struct sip_msg *m, const struct wn_addr *from)
{
	const struct sip_hdr *h = sip_hdr_first(m, SIP_HDR_PROXY_AUTHORIZATION);
	struct digest_params p;
	struct span answer;
	char nonce[64];
	unsigned number;
	bool any;

	w->pub.invites++;
	if (h == NULL) {
		challenge(w, front, m, from, false);
		return;
	}
	if (digest_parse(h->value, &p) < 0 || span_cstr(p.nonce, nonce, sizeof(nonce)) < 0 || sscanf(nonce, "nonce-%u", &number) != 1 ||
	    number >= w->issued || number >= NONCES_MAX) {
		challenge(w, front, m, from, true);
		return;
	}
	if (!fake_verify(&w->fake, m, w->realm, nonce, &any)) {
		w->pub.bad_digest++;
		challenge(w, front, m, from, false);
		return;
	}
	if (w->used[number]) {
		w->pub.replays++;
		return;
	}
	w->used[number] = true;
	send_to(w->front_fd[front], from, fake_status(&w->fake, m, from, 100, ""));
	w->pub.trying++;
	if (w->pub.delay_ms > 0) {
		struct timespec ts = {.tv_nsec = (long)w->pub.delay_ms * 1000000};

		nanosleep(&ts, NULL);
	}
	answer = agent_answers(w, front, m, from);
	w->pub.accepted += answer.n > 12 && memcmp(answer.p, "SIP/2.0 200 ", 12) == 0;
	if (answer.n > 0)
		send_to(w->front_fd[front], from, answer);
}

static void serve_front(struct world_private *w, unsigned front)
{
	char in[8192];
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	struct wn_addr from;
	struct sip_msg m;
	ssize_t n = recvfrom(w->front_fd[front], in, sizeof(in), 0, (struct sockaddr *)&ss, &len);

	if (n < 0 || sip_parse(span_of(in, (size_t)n), false, &m) != SIP_OK)
		return;
	wn_addr_from_sockaddr(&from, &ss);
	if (!m.request) {
		w->pub.kicked_ok += m.method == SIP_BYE && m.status == 200;
		return;
	}
	switch (m.method) {
	case SIP_INVITE:
		on_invite(w, front, &m, &from);
		break;
	case SIP_ACK:
		w->pub.acks += sip_hdr_first(&m, SIP_HDR_ROUTE) != NULL;
		break;
	case SIP_CANCEL:
		on_cancel(w, front, &m, &from);
		break;
	case SIP_BYE:
		w->pub.byes += sip_hdr_first(&m, SIP_HDR_ROUTE) != NULL;
		send_to(w->front_fd[front], &from, fake_status(&w->fake, &m, &from, 200, ""));
		break;
	case SIP_UPDATE:
		w->pub.updates++;
		send_to(w->front_fd[front], &from, fake_status(&w->fake, &m, &from, 200, "Session-Expires: 2;refresher=uac\r\n"));
		break;
	default:
		break;
	}
}

static void *run(void *arg)
{
	struct world_private *w = arg;

	for (;;) {
		struct pollfd p[5] = {{w->wake[0], POLLIN, 0},
				      {w->front_fd[0], POLLIN, 0},
				      {w->front_fd[1], POLLIN, 0},
				      {w->tcp_fd, POLLIN, 0},
				      {w->udp_fd, POLLIN, 0}};
		uint64_t now = wn_now_ms();
		int wait = w->bye_at == 0 ? -1 : w->bye_at <= now ? 0 : (int)(w->bye_at - now);

		poll(p, 5, wait);
		if (p[0].revents != 0)
			return NULL;
		for (unsigned i = 0; i < 2; i++) {
			if (p[1 + i].revents != 0)
				serve_front(w, i);
		}
		if (p[3].revents != 0)
			accept_echo(w);
		if (p[4].revents != 0)
			serve_udp(w);
		if (w->bye_at != 0 && wn_now_ms() >= w->bye_at) {
			w->bye_at = 0;
			send_to(w->front_fd[w->bye_front], &w->bye_to, span_of(w->bye, w->bye_len));
		}
	}
}

struct world *world_start(void)
{
	struct world_private *w = calloc(1, sizeof(*w));

	if (w == NULL || digest_ctx_new(&w->fake.digest) < 0 || pipe2(w->wake, O_CLOEXEC) < 0)
		return NULL;
	w->fake.user = "alice";
	w->fake.secret = WORLD_SECRET;
	snprintf(w->realm, sizeof(w->realm), "example.org/%llu", (unsigned long long)(wn_unix_s() / 86400));
	w->front_fd[0] = bind_to(SOCK_DGRAM, &w->pub.front[0]);
	w->front_fd[1] = bind_to(SOCK_DGRAM, &w->pub.front[1]);
	w->silent_fd = bind_to(SOCK_DGRAM, &w->pub.silent);
	w->udp_fd = bind_to(SOCK_DGRAM, &w->udp);
	w->tcp_fd = bind_to(SOCK_STREAM, &w->tcp);
	w->closed_fd = bind_to(SOCK_STREAM, &w->closed); /* bound, but nobody listens */
	if (w->tcp_fd < 0 || listen(w->tcp_fd, 64) < 0 || pthread_create(&w->thread, NULL, run, w) != 0)
		return NULL;
	return &w->pub;
}

void world_stop(struct world *pub)
{
	struct world_private *w = (struct world_private *)pub;

	close(w->wake[1]);
	pthread_join(w->thread, NULL);
	close(w->wake[0]);
	close(w->front_fd[0]);
	close(w->front_fd[1]);
	close(w->silent_fd);
	close(w->tcp_fd);
	close(w->udp_fd);
	close(w->closed_fd);
	digest_ctx_free(w->fake.digest);
	free(w);
}
