/* SPDX-License-Identifier: Apache-2.0 */
/* A caller's connection: however its bytes are cut, the front sees the messages that reading them at once would find, and ends it for the
 * same reason or not at all. The first byte says how they are cut. */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "front/stream.h"
#include "fuzz.h"
#include "sip/msg.h"

static struct front_streams *s;
static struct wn_addr addr;
static uint64_t hash, messages;

static void add(struct span msg)
{
	messages++;
	for (size_t i = 0; i < msg.n; i++)
		hash = (hash ^ (uint8_t)msg.p[i]) * 0x100000001b3u;
}

static void on_message(void *arg, const struct front_flow *from, struct span msg)
{
	(void)arg;
	(void)from;
	add(msg);
}

static void start(void)
{
	static const struct front_stream_limits limits = {.connections = 4,
							  .trusted = 1,
							  .per_address = 100,
							  .buffers = 2,
							  .handshakes = 1,
							  .handshakes_per_s = 1,
							  .due_ms = {1000, 1000, 1000, 1000, 1000}};
	const struct front_streams_options opt = {.limits = &limits, .backlog = 4, .message = on_message};

	CHECK(front_streams_new(&opt, &s) == 0);
	srand((unsigned)getpid());
	for (unsigned tries = 0; tries < 1000; tries++) {
		CHECK(wn_addr_parse(SPAN_LIT("127.0.0.1:0"), 0, &addr) == 0);
		addr.port = (uint16_t)(20000 + rand() % 10000);
		if (front_streams_listen(s, FRONT_TCP, 0, &addr) == 0)
			return;
	}
	CHECK(false);
}

/* What a whole reading finds. \return whether the connection lives on; *either: it may end sooner or later, since nobody reads a message
 * again before its headers have ended. */
static bool expect(const char *p, size_t n, bool *either)
{
	struct sip_msg m;

	while (n > 0) {
		enum sip_verdict v;

		if (*p == '\r' || *p == '\n') {
			p++;
			n--;
			continue;
		}
		v = sip_parse(span_of(p, n), true, &m);
		*either = n <= FRONT_STREAM_MESSAGE_MAX && memmem(p, n, "\r\n\r\n", 4) == NULL;
		if (v == SIP_INCOMPLETE)
			return n <= FRONT_STREAM_MESSAGE_MAX;
		if (v != SIP_OK || m.consumed > FRONT_STREAM_MESSAGE_MAX)
			return false;
		add(m.raw);
		p += m.consumed;
		n -= m.consumed;
	}
	return true;
}

static uint64_t ended(void)
{
	return front_streams_count(s, FRONT_STREAM_framing) + front_streams_count(s, FRONT_STREAM_too_large);
}

/* libFuzzer's clock must not interrupt what blocks. */
static void hold_clock(int how)
{
	sigset_t clock;

	sigemptyset(&clock);
	sigaddset(&clock, SIGALRM);
	sigprocmask(how, &clock, NULL);
}

/* Ports of a connection that has ended are free a minute later: another of loopback's addresses every so often has its own. */
#define DIALS_PER_ADDRESS 10000u

static int dial(void)
{
	static uint32_t dials;
	const uint32_t host = 0x7f010001u + dials++ / DIALS_PER_ADDRESS % 0xfff0u;
	const struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
	const int late = 1;
	const struct linger at_once = {1, 0};
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&addr, &ss);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	CHECK(fd >= 0);
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &late, sizeof(late));
	CHECK(bind(fd, (const struct sockaddr *)&own, sizeof(own)) == 0);
	CHECK(connect(fd, (struct sockaddr *)&ss, len) == 0);
	return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct pollfd waiting;
	uint64_t want_hash, want_messages, before;
	size_t cut;
	bool lives, either = false;
	int fd;

	if (n < 2 || n > 16384)
		return 0;
	if (s == NULL)
		start();
	cut = data[0] == 0 ? n : data[0] * 16u;
	data++;
	n--;
	hash = messages = 0;
	lives = expect((const char *)data, n, &either);
	want_hash = hash;
	want_messages = messages;

	hash = messages = 0;
	before = ended();
	hold_clock(SIG_BLOCK);
	fd = dial();
	waiting = (struct pollfd){.fd = front_streams_fd(s), .events = POLLIN};
	while (front_streams_open(s, STREAM_STRANGER) == 0 && poll(&waiting, 1, 1000) == 1)
		front_streams_serve(s, 1, true);
	for (size_t at = 0; at < n && front_streams_open(s, STREAM_STRANGER) > 0; at += cut) {
		if (send(fd, data + at, n - at < cut ? n - at : cut, MSG_NOSIGNAL) < 0)
			break;
		while (poll(&waiting, 1, 0) == 1)
			front_streams_serve(s, 1, true);
	}
	/* The end of it comes after all that was said. */
	shutdown(fd, SHUT_WR);
	while (front_streams_open(s, STREAM_STRANGER) > 0 && poll(&waiting, 1, 5000) == 1)
		front_streams_serve(s, 1, true);
	hold_clock(SIG_UNBLOCK);
	CHECK(front_streams_open(s, STREAM_STRANGER) == 0);
	close(fd);
	CHECK(messages == want_messages && hash == want_hash);
	CHECK((ended() == before) == lives || either);
	return 0;
}
