/* SPDX-License-Identifier: Apache-2.0 */
/* Enrolments on disk. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "client/enrol.h"

#define SUFFIX ".json"

static int fail(const char *file, int rc, const char *what)
{
	fprintf(stderr, "walnut: %s: %s: %s\n", file, what, strerror(-rc));
	return rc;
}

static int join_path(char *out, size_t cap, const char *a, const char *b, const char *c)
{
	int n = snprintf(out, cap, "%s%s%s", a, b, c);

	return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
}

int enrol_dir(char *out, size_t cap)
{
	const char *at = getenv("WALNUT_HOME");

	if (at != NULL && at[0] != '\0')
		return join_path(out, cap, at, "", "");
	at = getenv("XDG_CONFIG_HOME");
	if (at != NULL && at[0] == '/')
		return join_path(out, cap, at, "/walnut", "");
	at = getenv("HOME");
	if (at != NULL && at[0] != '\0')
		return join_path(out, cap, at, "/.config/walnut", "");
	return -ENOENT;
}

static int make_dirs(char *path)
{
	for (char *p = path + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST) {
			int rc = -errno;

			*p = c;
			return rc;
		}
		*p = c;
		if (c == '\0')
			return 0;
	}
}

int enrol_store(const struct enrol *e, char *path, size_t cap)
{
	char dir[PATH_MAX], tmp[PATH_MAX], unique[24];
	char json[ENROL_JSON_MAX];
	long n = 0;
	int rc;

	rc = enrol_dir(dir, sizeof(dir));
	if (rc < 0) {
		fprintf(stderr, "walnut: neither WALNUT_HOME nor HOME is set: set one of them\n");
		return rc;
	}
	rc = make_dirs(dir);
	if (rc < 0)
		return fail(dir, rc, "cannot be made");
	snprintf(unique, sizeof(unique), ".%08x", randombytes_random());
	rc = join_path(path, cap, dir, "/", e->domain);
	if (rc == 0)
		rc = join_path(tmp, sizeof(tmp), path, unique, ".tmp");
	if (rc == 0 && strlen(path) + sizeof(SUFFIX) > cap)
		rc = -ENAMETOOLONG;
	if (rc < 0)
		return fail(dir, rc, "too long a name");
	memcpy(path + strlen(path), SUFFIX, sizeof(SUFFIX));
	n = enrol_format_json(e, json, sizeof(json));
	rc = n < 0 ? (int)n : wn_secret_write(tmp, json, (size_t)n);
	if (rc == 0 && rename(tmp, path) < 0) {
		rc = -errno;
		unlink(tmp);
	}
	sodium_memzero(json, sizeof(json));
	return rc < 0 ? fail(path, rc, "cannot be written") : 0;
}

int enrol_load(const char *file, struct enrol *out)
{
	char json[ENROL_JSON_MAX + 1];
	char why[ENROL_WHY_MAX];
	ssize_t n;
	int rc;

	n = wn_secret_read(file, json, sizeof(json));
	if (n < 0)
		return (int)n;
	rc = enrol_parse_json(span_of(json, (size_t)n), out, why);
	sodium_memzero(json, sizeof(json));
	if (rc < 0)
		fprintf(stderr, "walnut: %s: %s\n", file, why);
	return rc;
}

static int load_into(struct enrol_set *s, const char *file)
{
	struct enrol *more;
	int rc;

	if (s->n == ENROL_DOMAINS_MAX) {
		fprintf(stderr, "walnut: %s: more than %d domains are enrolled\n", file, ENROL_DOMAINS_MAX);
		return -E2BIG;
	}
	/* Not realloc: it may leave a copy of the secrets behind. */
	more = calloc(s->n + 1, sizeof(*more));
	if (more == NULL)
		return -ENOMEM;
	rc = enrol_load(file, &more[s->n]);
	if (rc < 0) {
		free(more);
		return rc;
	}
	if (s->n > 0) {
		memcpy(more, s->at, s->n * sizeof(*more));
		sodium_memzero(s->at, s->n * sizeof(*more));
	}
	free(s->at);
	s->at = more;
	s->n++;
	return 0;
}

static int is_enrolment(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && n >= sizeof(SUFFIX) && strcmp(d->d_name + n - (sizeof(SUFFIX) - 1), SUFFIX) == 0;
}

int enrol_load_all(const char *file, struct enrol_set *out)
{
	char dir[PATH_MAX], path[PATH_MAX];
	struct dirent **names = NULL;
	int n, rc;

	*out = (struct enrol_set){0};
	if (file != NULL)
		return load_into(out, file);
	rc = enrol_dir(dir, sizeof(dir));
	if (rc < 0) {
		fprintf(stderr, "walnut: neither WALNUT_HOME nor HOME is set: set one of them, or give --enrol FILE\n");
		return rc;
	}
	n = scandir(dir, &names, is_enrolment, alphasort);
	for (int i = 0; i < n; i++) {
		if (rc == 0)
			rc = join_path(path, sizeof(path), dir, "/", names[i]->d_name);
		if (rc == 0)
			rc = load_into(out, path);
		free(names[i]);
	}
	free(names);
	if (rc < 0) {
		enrol_set_free(out);
		return rc;
	}
	if (out->n == 0) {
		fprintf(stderr, "walnut: %s/DOMAIN" SUFFIX ": no enrolment: run `walnut join` with the line from `walnut user add`\n", dir);
		return -ENOENT;
	}
	return 0;
}

void enrol_set_free(struct enrol_set *s)
{
	if (s->at != NULL)
		sodium_memzero(s->at, s->n * sizeof(*s->at));
	free(s->at);
	*s = (struct enrol_set){0};
}
