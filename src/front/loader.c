/* SPDX-License-Identifier: Apache-2.0 */
#include "front/loader.h"

#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/config.h"
#include "base/log.h"
#include "base/sandbox.h"
#include "front/check.h"

#define TEXT_MAX (1u << 20)

/* What goes before the text. */
struct head {
	int32_t rc;
	uint32_t n;
};

struct front_loader {
	int fd;
	bool asked;
	size_t got; /* bytes of head and text */
	struct head head;
	char *text;
};

static int load(const char *file, char **text, size_t *n)
{
	struct front_config c;
	int rc = wn_config_read(file, text, n);

	if (rc == 0)
		rc = front_config_parse(file, *text, *n, &c);
	if (rc != 0)
		return rc;
	rc = front_check_files(file, &c, NULL);
	front_config_free(&c);
	return rc;
}

static bool send_all(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t k = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		at += (size_t)k;
	}
	return true;
}

static bool answer(int fd, const char *file)
{
	char *text = NULL;
	size_t n = 0;
	struct head h = {.rc = load(file, &text, &n)};
	bool ok;

	h.n = h.rc == 0 ? (uint32_t)n : 0;
	ok = send_all(fd, &h, sizeof(h)) && send_all(fd, text, h.n);
	free(text);
	return ok;
}

/* Reads what the front was allowed to read at its start; that right and no other stays. */
static int confine(void)
{
	int rc = wn_drop_privileges(NULL, UINT64_C(1) << CAP_DAC_READ_SEARCH);

	if (rc == -EPERM)
		rc = wn_drop_privileges(NULL, 0);
	return rc < 0 ? rc : wn_seccomp(WN_SECCOMP_READER);
}

static void serve(int fd, const char *file)
{
	char c;

	prctl(PR_SET_NAME, "walnut-front-cf");
	/* A terminal's signals are for the front, which ends us when it ends: its end of the pair closes. */
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	if (confine() < 0) {
		wn_err("the process for reloads cannot give up privileges; there will be no reload");
		return;
	}
	for (;;) {
		ssize_t n = recv(fd, &c, 1, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0 || !answer(fd, file))
			return;
	}
}

int front_loader_start(const char *file, struct front_loader **out)
{
	struct front_loader *l = calloc(1, sizeof(*l));
	int pair[2];
	pid_t pid;

	if (l == NULL)
		return -ENOMEM;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
		free(l);
		return -errno;
	}
	signal(SIGCHLD, SIG_IGN); /* nobody may wait for it in the sandbox */
	pid = fork();
	if (pid < 0) {
		int rc = -errno;

		close(pair[0]);
		close(pair[1]);
		free(l);
		return rc;
	}
	if (pid == 0) {
		close(pair[0]);
		serve(pair[1], file);
		_exit(0);
	}
	close(pair[1]);
	l->fd = pair[0];
	*out = l;
	return 0;
}

int front_loader_fd(const struct front_loader *l)
{
	return l->fd;
}

int front_loader_ask(struct front_loader *l)
{
	if (l->asked)
		return -EBUSY;
	if (send(l->fd, "r", 1, MSG_NOSIGNAL | MSG_DONTWAIT) != 1)
		return -EPIPE;
	l->asked = true;
	l->got = 0;
	return 0;
}

int front_loader_take(struct front_loader *l, char **text, size_t *n)
{
	int rc = 0;

	while (rc == 0 && l->got < sizeof(l->head) + l->head.n) {
		const bool head = l->got < sizeof(l->head);
		const size_t at = head ? l->got : l->got - sizeof(l->head), want = (head ? sizeof(l->head) : l->head.n) - at;
		ssize_t k = recv(l->fd, (head ? (char *)&l->head : l->text) + at, want, MSG_DONTWAIT);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0 && errno == EAGAIN)
			return -EAGAIN;
		if (k <= 0) {
			rc = -EPIPE;
			break;
		}
		l->got += (size_t)k;
		if (l->got != sizeof(l->head))
			continue;
		if (l->head.rc != 0)
			rc = -EINVAL;
		else if (l->head.n > TEXT_MAX || (l->text = malloc(l->head.n + 1u)) == NULL)
			rc = -ENOMEM;
	}
	l->asked = false;
	if (rc == 0) {
		*text = l->text;
		*n = l->head.n;
	} else {
		free(l->text);
	}
	l->text = NULL;
	l->head = (struct head){0, 0};
	return rc;
}

void front_loader_stop(struct front_loader *l)
{
	if (l == NULL)
		return;
	close(l->fd);
	free(l->text);
	free(l);
}
