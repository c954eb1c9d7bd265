/* SPDX-License-Identifier: Apache-2.0 */
/* front-bare echo|drop 127.A.B.C:PORT, front-bare spin: the limit of a front over the same sockets. One thread, batches of 64, the same
 * buffers; echo sends each datagram back, drop looks at its first byte. spin does nothing, and takes its share of the core. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"

#define BATCH        64u
#define RCVBUF_BYTES (8 << 20)
#define SNDBUF_BYTES (4 << 20)
#define DATA_BYTES   8256u

static struct mmsghdr msg[BATCH];
static struct iovec iov[BATCH];
static struct sockaddr_in name[BATCH];
static char data[BATCH][DATA_BYTES];

static int open_socket(const char *at)
{
	int rcv = RCVBUF_BYTES, snd = SNDBUF_BYTES, fd;
	struct sockaddr_storage ss;
	struct wn_addr a;
	socklen_t n;

	if (wn_addr_parse(span_str(at), -1, &a) != 0 || a.port == 0 || !wn_addr_is4(&a) || a.ip[12] != 127) {
		fprintf(stderr, "front-bare: %s is not of 127/8\n", at);
		return -1;
	}
	n = wn_addr_to_sockaddr(&a, &ss);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &rcv, sizeof(rcv)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcv, sizeof(rcv));
	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &snd, sizeof(snd)) != 0)
		setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &snd, sizeof(snd));
	if (bind(fd, (struct sockaddr *)&ss, n) != 0) {
		fprintf(stderr, "front-bare: %s: %s\n", at, strerror(errno));
		return -1;
	}
	return fd;
}

int main(int argc, char **argv)
{
	const bool echo = argc == 3 && strcmp(argv[1], "echo") == 0;
	unsigned long seen = 0;
	int fd;

	while (argc == 2 && strcmp(argv[1], "spin") == 0)
		__asm__ volatile("");
	if (argc != 3 || (!echo && strcmp(argv[1], "drop") != 0)) {
		fprintf(stderr, "usage: front-bare echo|drop 127.A.B.C:PORT\n       front-bare spin\n");
		return 2;
	}
	fd = open_socket(argv[2]);
	if (fd < 0)
		return 1;
	puts("ready");
	fflush(stdout);
	for (;;) {
		int n;

		for (unsigned i = 0; i < BATCH; i++) {
			iov[i] = (struct iovec){data[i], DATA_BYTES};
			msg[i].msg_hdr =
				(struct msghdr){.msg_name = &name[i], .msg_namelen = sizeof(name[i]), .msg_iov = &iov[i], .msg_iovlen = 1};
		}
		/* waits for the first, takes what else is there */
		n = recvmmsg(fd, msg, BATCH, MSG_WAITFORONE, NULL);
		if (n <= 0)
			continue;
		if (!echo) {
			for (int i = 0; i < n; i++)
				seen += (unsigned char)data[i][0];
			__asm__ volatile("" : : "r"(seen)); /* it has been looked at */
			continue;
		}
		for (int i = 0; i < n; i++)
			iov[i].iov_len = msg[i].msg_len;
		for (int at = 0; at < n;) {
			int sent = sendmmsg(fd, msg + at, (unsigned)(n - at), 0);

			at += sent > 0 ? sent : 1; /* one that cannot be sent is left out */
		}
	}
}
