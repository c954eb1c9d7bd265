/* SPDX-License-Identifier: Apache-2.0 */
/** \file Bad INVITEs, in equal parts: without a nonce, with a forged nonce, of an unknown user, with a wrong secret, malformed. A share
 * comes from random sources; the others from our own address, which hears the challenges, so that their nonces are good
 * and an unknown user and a wrong secret are found out only by the front's last and dearest checks. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

#define NONCE      27
#define NONCES     4096 /* kept per front */
#define NONCE_USES 3
#define SOCKETS    4 /* per front */
#define KINDS      5
#define VARIANTS   5 /* of malformed ones */
#define MESSAGE    1024

enum kind { NO_NONCE, FORGED_NONCE, UNKNOWN_USER, WRONG_SECRET, MALFORMED };
static const char *const kind_name[KINDS] = {"no_nonce", "forged_nonce", "unknown_user", "wrong_secret", "malformed"};

/* Runs of these bytes in a template are what differs from message to message. */
enum mark { M_BRANCH = 1, M_CALL, M_NONCE, M_RESPONSE, M_CNONCE, M_TAG, M_USER, MARKS };
static const unsigned mark_len[MARKS] = {0, 16, 16, NONCE, 64, 16, 16, 8};

struct template
{
	char text[MESSAGE];
	unsigned len, at[MARKS];
};

struct front {
	uint32_t addr;
	uint16_t port;
	int fd[SOCKETS];
	char nonce[NONCES][NONCE];
	uint64_t learned, taken; /* taken counts uses: nonce taken / NONCE_USES is next */
	struct mmsghdr m[LAB_BATCH];
	struct iovec iov[LAB_BATCH];
	char text[LAB_BATCH][MESSAGE];
	unsigned n;
	struct lab_pace pace;
	uint64_t bursts, made;
};

static struct lab_tx tx;
static struct front fronts[LOAD_TARGETS];
static struct template tmpl[KINDS], bad[VARIANTS];
static char realm[128];
static uint64_t sent[KINDS][2], answered[8], answer_bytes, real_bytes, largest_answer, starved, failed, foreign_realm;

static void fill(struct template *t, enum kind kind, int variant, const struct load_options *o, uint32_t own)
{
	char mark[MARKS][65] = {{0}}, ip[INET_ADDRSTRLEN], sdp[256], credentials[800] = "", user[65];
	int n;

	for (int i = 1; i < MARKS; i++)
		memset(mark[i], i, mark_len[i]);
	inet_ntop(AF_INET, &own, ip, sizeof(ip));
	snprintf(user, sizeof(user), "%.64s", kind == UNKNOWN_USER ? mark[M_USER] : o->user);
	snprintf(sdp, sizeof(sdp),
		 "v=0\r\no=- 1 1 IN IP4 %s\r\ns=-\r\nc=IN IP4 %s\r\nt=0 0\r\nm=application 40000 TCP walnut\r\na=candidate:1 1 TCP 1 %s "
		 "40000 typ host\r\n",
		 ip, ip, ip);
	if (kind == FORGED_NONCE || kind == UNKNOWN_USER || kind == WRONG_SECRET)
		snprintf(credentials, sizeof(credentials),
			 "Proxy-Authorization: Digest "
			 "username=\"%s\",realm=\"%s\",nonce=\"%s\",uri=\"sip:%s@%s\",response=\"%s\",algorithm=SHA-256,"
			 "cnonce=\"%s\",qop=auth-int,nc=00000001\r\n",
			 user, realm, mark[M_NONCE], o->service, o->domain, mark[M_RESPONSE], mark[M_CNONCE]);
	n = snprintf(t->text, sizeof(t->text),
		     "INVITE sip:%s@%s SIP/%s\r\n"
		     "Via: SIP/2.0/UDP %s:5060;rport;branch=z9hG4bK%s\r\n"
		     "Max-Forwards: %s\r\n"
		     "From: <sip:%s@%s>;tag=%s\r\n"
		     "To: <sip:%s@%s>\r\n"
		     "%s%s@%s\r\n"
		     "CSeq: %s INVITE\r\n"
		     "%s"
		     "User-Agent: lab-load, as long as a user agent that wants its challenge to fit, for no challenge is longer than its "
		     "request; ....................\r\n"
		     "Contact: <sip:%s@%s:5060>\r\n"
		     "%s"
		     "Content-Type: application/sdp\r\n"
		     "Content-Length: %zu\r\n\r\n%s",
		     o->service, o->domain, variant == 0 ? "2.x" : "2.0", ip, mark[M_BRANCH], variant == 4 ? "-1" : "70", user, o->domain,
		     mark[M_TAG], o->service, o->domain, variant == 1 ? "X-Call: " : "Call-ID: ", mark[M_CALL], ip,
		     variant == 2 ? "x" : "1", variant == 3 ? "this line has no colon\r\n" : "", user, ip, credentials, strlen(sdp), sdp);
	t->len = n < (int)sizeof(t->text) ? (unsigned)n : (unsigned)sizeof(t->text) - 1;
	for (int i = 1; i < MARKS; i++) {
		const char *p = memchr(t->text, i, t->len);

		t->at[i] = p ? (unsigned)(p - t->text) : 0;
	}
}

static void templates(const struct load_options *o)
{
	for (int k = 0; k < KINDS; k++)
		fill(&tmpl[k], (enum kind)k, -1, o, tx.addr);
	for (int v = 0; v < VARIANTS; v++)
		fill(&bad[v], MALFORMED, v, o, tx.addr);
}

static void hex(char *out, unsigned n)
{
	static const char digit[] = "0123456789abcdef";

	for (unsigned i = 0; i < n; i += 16) {
		uint64_t r = lab_random();

		for (unsigned k = i; k < n && k < i + 16; k++, r >>= 4)
			out[k] = digit[r & 15];
	}
}

/* One message of that kind into `out`. `from`: whose nonces are used; NULL for a spoofed source, which has none and makes one up. */
static unsigned make(char *out, enum kind kind, struct front *from, uint64_t seq)
{
	static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const struct template *t = kind == MALFORMED ? &bad[seq % VARIANTS] : &tmpl[kind];

	memcpy(out, t->text, t->len);
	for (int i = 1; i < MARKS; i++) {
		char *p = out + t->at[i];

		if (t->at[i] == 0)
			continue;
		if (i == M_USER) { /* twice or more in the message, the same each time */
			char name[8];

			hex(name, sizeof(name));
			name[0] = 'u';
			for (char *q = p; q; q = memchr(q, M_USER, t->len - (size_t)(q - out)))
				memcpy(q, name, sizeof(name));
		} else if (i != M_NONCE) {
			hex(p, mark_len[i]);
		} else if (from && kind != FORGED_NONCE && from->learned) {
			uint64_t oldest = from->learned > NONCES ? from->learned - NONCES : 0, next;

			if (from->taken < oldest * NONCE_USES)
				from->taken = oldest * NONCE_USES;
			next = from->taken / NONCE_USES;
			if (next < from->learned) {
				from->taken++;
			} else { /* none is left: the last one again, in the class of those that failed too often */
				starved++;
				next = from->learned - 1;
			}
			memcpy(p, from->nonce[next % NONCES], NONCE);
		} else {
			for (unsigned k = 0; k < NONCE; k++)
				p[k] = b64[lab_random() & 63];
			/* The first characters hold the time of issue, as a recent boot would write it; the last one only four bits. */
			p[0] = p[1] = p[2] = 'A';
			p[NONCE - 1] = b64[lab_random() & 60];
		}
	}
	return t->len;
}

static void flush_real(struct front *f)
{
	unsigned at = 0;
	int fd = f->fd[f->bursts++ % SOCKETS];

	while (at < f->n) {
		int k = sendmmsg(fd, f->m + at, f->n - at, 0);

		if (k > 0)
			at += (unsigned)k;
		else if (errno != ECONNREFUSED && errno != EINTR)
			at++, failed++;
		else if (lab_stop)
			break;
	}
	f->n = 0;
}

static void queue_real(struct front *f, enum kind kind, uint64_t seq)
{
	f->iov[f->n].iov_base = f->text[f->n];
	f->iov[f->n].iov_len = make(f->text[f->n], kind, f, seq);
	f->m[f->n].msg_hdr = (struct msghdr){.msg_iov = &f->iov[f->n], .msg_iovlen = 1};
	real_bytes += f->iov[f->n].iov_len;
	if (++f->n == LAB_BATCH)
		flush_real(f);
}

/* What stands between `key` and the next quote. */
static const char *quoted(const char *text, size_t len, const char *key, size_t *n)
{
	const char *p = memmem(text, len, key, strlen(key)), *end;

	if (!p)
		return NULL;
	p += strlen(key);
	end = memchr(p, '"', len - (size_t)(p - text));
	if (!end)
		return NULL;
	*n = (size_t)(end - p);
	return p;
}

static void listen_real(struct front *f, bool learn_realm)
{
	static struct mmsghdr m[LAB_BATCH];
	static struct iovec iov[LAB_BATCH];
	static char text[LAB_BATCH][1500];

	for (int s = 0; s < SOCKETS; s++) {
		int got;

		do {
			for (unsigned i = 0; i < LAB_BATCH; i++) {
				iov[i] = (struct iovec){.iov_base = text[i], .iov_len = sizeof(text[i])};
				m[i].msg_hdr = (struct msghdr){.msg_iov = &iov[i], .msg_iovlen = 1};
			}
			got = recvmmsg(f->fd[s], m, LAB_BATCH, MSG_DONTWAIT, NULL);
			for (int i = 0; i < got; i++) {
				size_t len = m[i].msg_len, n, r;
				const char *nonce, *name;

				answer_bytes += len;
				if (len > largest_answer)
					largest_answer = len;
				answered[len > 9 && text[i][8] >= '1' && text[i][8] <= '6' ? text[i][8] - '0' : 0]++;
				nonce = quoted(text[i], len, "nonce=\"", &n);
				name = quoted(text[i], len, "realm=\"", &r);
				if (!nonce || n != NONCE || !name || r >= sizeof(realm))
					continue;
				if (learn_realm) {
					memcpy(realm, name, r);
					realm[r] = '\0';
				} else if (strlen(realm) != r || memcmp(realm, name, r) != 0) {
					foreign_realm++;
					continue;
				}
				memcpy(f->nonce[f->learned++ % NONCES], nonce, NONCE);
			}
		} while (got == LAB_BATCH);
	}
}

static int open_front(struct front *f, uint32_t addr, uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = addr, .sin_port = htons(port)};
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = tx.addr};
	int room = 4 << 20;

	f->addr = addr;
	f->port = port;
	for (int s = 0; s < SOCKETS; s++) {
		f->fd[s] = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
		if (f->fd[s] < 0 || bind(f->fd[s], (struct sockaddr *)&own, sizeof(own)) < 0 ||
		    connect(f->fd[s], (struct sockaddr *)&to, sizeof(to)) < 0)
			return -errno;
		(void)setsockopt(f->fd[s], SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
		(void)setsockopt(f->fd[s], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room));
	}
	return 0;
}

/* Asks the fronts for the realm of the day; a front that does not answer leaves the one computed from the clock. */
static void first_challenge(const struct load_options *o)
{
	snprintf(realm, sizeof(realm), "%s/%llu", o->domain, (unsigned long long)(o->epoch_s ? (uint64_t)time(NULL) / o->epoch_s : 0));
	templates(o);
	for (int i = 0; i < 5 && !lab_stop; i++) {
		for (unsigned k = 0; k < o->nto; k++) {
			queue_real(&fronts[k], NO_NONCE, 0);
			flush_real(&fronts[k]);
		}
		lab_sleep_until(lab_now_ns() + 100000000u);
		for (unsigned k = 0; k < o->nto; k++)
			listen_real(&fronts[k], true);
		if (fronts[0].learned)
			break;
	}
	templates(o);
}

static void print(const struct load_options *o, double seconds)
{
	uint64_t all = 0, learned = 0, missed = 0;

	for (unsigned k = 0; k < o->nto; k++) {
		learned += fronts[k].learned;
		missed += fronts[k].pace.missed;
	}
	printf("{\"kinds\": {");
	for (int k = 0; k < KINDS; k++) {
		printf("%s\"%s\": {\"real\": %llu, \"spoofed\": %llu}", k ? ", " : "", kind_name[k], (unsigned long long)sent[k][0],
		       (unsigned long long)sent[k][1]);
		all += sent[k][0] + sent[k][1];
	}
	printf("}, \"sent\": %llu, \"failed\": %llu, \"missed\": %llu, \"seconds\": %.2f, \"rate\": %.0f, \"rate_per_front\": %.0f, "
	       "\"realm\": \"%s\", "
	       "\"nonces_learned\": %llu, \"nonces_short\": %llu, \"other_realm\": %llu, \"answers\": {",
	       (unsigned long long)all, (unsigned long long)(failed + tx.failed), (unsigned long long)missed, seconds,
	       (double)all / seconds, (double)all / seconds / o->nto, realm, (unsigned long long)learned, (unsigned long long)starved,
	       (unsigned long long)foreign_realm);
	for (int i = 0, first = 1; i < 8; i++)
		if (answered[i]) {
			printf("%s\"%dxx\": %llu", first ? "" : ", ", i, (unsigned long long)answered[i]);
			first = 0;
		}
	printf("}, \"real_bytes\": %llu, \"answer_bytes\": %llu, \"largest_answer\": %llu, \"request_size\": %u}\n",
	       (unsigned long long)real_bytes, (unsigned long long)answer_bytes, (unsigned long long)largest_answer, tmpl[NO_NONCE].len);
}

int load_sip(const struct load_options *o)
{
	uint64_t start, total = 0;
	int only = -1;

	for (int k = 0; o->only && k < KINDS; k++)
		if (strcmp(o->only, kind_name[k]) == 0)
			only = k;
	if ((o->only && only < 0) || strlen(o->domain) > 64 || strlen(o->user) > 32 || strlen(o->service) > 32)
		return 2;
	if (lab_tx_open(&tx, o->dev, o->to[0]) < 0)
		return 1;
	for (unsigned k = 0; k < o->nto; k++)
		if (open_front(&fronts[k], o->to[k], o->port[k] ? o->port[k] : 5060) < 0) {
			perror("lab-load: socket");
			return 1;
		}
	first_challenge(o);
	start = lab_now_ns();
	for (unsigned k = 0; k < o->nto; k++)
		lab_pace_start(&fronts[k].pace, o->rate);
	for (uint64_t tick = start; !lab_stop && total < o->count * o->nto;) {
		for (unsigned k = 0; k < o->nto; k++) {
			struct front *f = &fronts[k];

			for (unsigned due = lab_due(&f->pace); due && total < o->count * o->nto; due--, total++) {
				enum kind kind = only >= 0 ? (enum kind)only : (enum kind)(f->made++ % KINDS);
				bool spoofed = lab_random() % 100 < o->spoof;

				if (spoofed) {
					char text[MESSAGE];
					unsigned len = make(text, kind, NULL, f->made / KINDS);

					lab_tx_udp(&tx, lab_spoofed(), (uint16_t)(1024 + lab_random() % 64000), f->addr, f->port, text,
						   len);
				} else {
					queue_real(f, kind, f->made / KINDS);
				}
				sent[kind][spoofed]++;
			}
			flush_real(f);
			lab_tx_flush(&tx);
			listen_real(f, false);
		}
		lab_sleep_until(tick += 1000000);
		if (lab_now_ns() > tick + 50000000)
			tick = lab_now_ns();
	}
	print(o, (double)(lab_now_ns() - start) / 1e9);
	return 0;
}
