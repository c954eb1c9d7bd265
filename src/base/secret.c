/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"

static const char *named_in, *named_key;

void wn_secret_named_by(const char *config, const char *key)
{
	named_in = config;
	named_key = key;
}

static int refuse(const char *file, int rc, const char *why)
{
	if (named_in != NULL)
		wn_config_bad(named_in, named_key, "%s: %s", file, why);
	else
		fprintf(stderr, "%s: %s\n", file, why);
	return rc;
}

static int check_owner(const char *file, int fd)
{
	char why[160];
	struct stat st;

	if (fstat(fd, &st) != 0)
		return refuse(file, -errno, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return refuse(file, -EPERM, "is not a regular file; a secret must be in one");
	if ((st.st_mode & 077) != 0) {
		snprintf(
			why, sizeof(why),
			"others may use it (mode %04o); it must be 0600: chmod 600 it, and renew the secret if others were on this machine",
			st.st_mode & 07777u);
		return refuse(file, -EPERM, why);
	}
	if (st.st_uid != geteuid() && st.st_uid != 0) {
		snprintf(why, sizeof(why), "belongs to user %u; it must belong to user %u, who reads it: chown %u it", st.st_uid, geteuid(),
			 geteuid());
		return refuse(file, -EPERM, why);
	}
	return 0;
}

ssize_t wn_secret_read(const char *file, void *buf, size_t cap)
{
	char why[160];
	size_t n = 0;
	int fd, rc;

	fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0) {
		rc = -errno;
		snprintf(why, sizeof(why), "cannot be read: %s%s", strerror(-rc),
			 rc == -ENOENT ? "; keys are made by \"walnut keys init\", enrolments by \"walnut join\"" : "");
		return refuse(file, rc, why);
	}
	rc = check_owner(file, fd);
	while (rc == 0) {
		char past;
		ssize_t k = n < cap ? read(fd, (char *)buf + n, cap - n) : read(fd, &past, 1);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			rc = refuse(file, -errno, strerror(errno));
		if (k <= 0)
			break;
		if (n == cap)
			rc = refuse(file, -EFBIG, "is longer than such a secret can be; it is not the right file");
		n += (size_t)k;
	}
	close(fd);
	return rc < 0 ? rc : (ssize_t)n;
}

/* Makes the new name itself survive a power cut. */
static int sync_folder(const char *file)
{
	const char *slash = strrchr(file, '/');
	char *dir = slash == NULL ? strdup(".") : strndup(file, slash == file ? 1 : (size_t)(slash - file));
	int fd, rc;

	if (dir == NULL)
		return -ENOMEM;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	rc = fd < 0 || fsync(fd) != 0 ? -errno : 0;
	if (fd >= 0)
		close(fd);
	free(dir);
	return rc;
}

int wn_secret_write(const char *file, const void *buf, size_t n)
{
	size_t done = 0;
	int fd, rc = 0;

	fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	while (rc == 0 && done < n) {
		ssize_t k = write(fd, (const char *)buf + done, n - done);

		if (k >= 0)
			done += (size_t)k;
		else if (errno != EINTR)
			rc = -errno;
	}
	if (rc == 0 && fsync(fd) != 0)
		rc = -errno;
	if (close(fd) != 0 && rc == 0)
		rc = -errno;
	if (rc == 0)
		rc = sync_folder(file);
	if (rc < 0)
		unlink(file);
	return rc;
}
