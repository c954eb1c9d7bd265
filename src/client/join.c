/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/enrol.h"
#include "client/options.h"
#include "client/verbs.h"

static ssize_t read_all(int fd, char *buf, size_t cap)
{
	size_t n = 0;

	while (n < cap) {
		ssize_t k = read(fd, buf + n, cap - n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return -errno;
		if (k == 0)
			return (ssize_t)n;
		n += (size_t)k;
	}
	return -EFBIG;
}

/* The line is read from a file or standard input, never from the command line, where every process could see it. */
static int read_line(const char *file, const char *name, struct enrol *e)
{
	char line[ENROL_LINE_MAX + 64], why[ENROL_WHY_MAX];
	ssize_t n;
	int fd = STDIN_FILENO, rc;

	if (file != NULL) {
		fd = open(file, O_RDONLY | O_CLOEXEC);
		if (fd < 0) {
			fprintf(stderr, "walnut join: %s: %s\n", name, strerror(errno));
			return -errno;
		}
	}
	n = read_all(fd, line, sizeof(line));
	if (file != NULL)
		close(fd);
	if (n < 0) {
		fprintf(stderr, "walnut join: %s: %s\n", name, n == -EFBIG ? "longer than an enrolment line can be" : strerror((int)-n));
		return (int)n;
	}
	rc = enrol_parse_line(span_of(line, (size_t)n), e, why);
	sodium_memzero(line, sizeof(line));
	if (rc < 0)
		fprintf(stderr, "walnut join: %s: %s\n", name, why);
	return rc;
}

int cmd_join(int argc, char **argv)
{
	struct client_options o;
	struct enrol e;
	char path[PATH_MAX];
	const char *file;
	int rc;

	rc = client_options_parse(argc, argv, 0, 0, 1, "join [FILE]", &o);
	if (rc != 0)
		return rc < 0 ? 2 : 0;
	if (sodium_init() < 0)
		return 1;
	if (o.nargs == 1 && strncmp(o.args[0], ENROL_PREFIX, sizeof(ENROL_PREFIX) - 1) == 0) {
		fprintf(stderr, "walnut join: the line holds a secret that a command line shows to others: give it on standard input or in "
				"a file\n");
		return 2;
	}
	file = o.nargs == 1 && strcmp(o.args[0], "-") != 0 ? o.args[0] : NULL;
	rc = read_line(file, file != NULL ? file : "standard input", &e);
	if (rc == 0)
		rc = enrol_store(&e, path, sizeof(path));
	if (rc == 0)
		printf("joined %s as %s: %s\n", e.domain, e.user, path);
	sodium_memzero(&e, sizeof(e));
	return rc < 0 ? 2 : 0;
}
