/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "peer/peer.h"

static char dir[64];

static const char *path_of(const char *name)
{
	static char buf[128];

	snprintf(buf, sizeof(buf), "%s/%s", dir, name);
	return buf;
}

static void copy(const char *from, const char *to)
{
	char buf[4096], source[128];
	ssize_t n;
	int fd;

	snprintf(source, sizeof(source), "%s", path_of(from));
	fd = open(source, O_RDONLY | O_CLOEXEC);
	n = read(fd, buf, sizeof(buf));
	assert_true(n > 0);
	close(fd);
	fd = open(path_of(to), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(write(fd, buf, (size_t)n) == n);
	close(fd);
}

static void fill(const char *name, const char *text)
{
	int fd = open(path_of(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

/* Loads with stderr diverted. \return the error, with the number of lines that were printed in *lines. */
static int load(const char *role, struct peer_pin *pin, int *lines)
{
	struct peer_identity *id = NULL;
	int saved = dup(2), end[2], rc;
	char said[2048];
	ssize_t n;

	assert_int_equal(pipe2(end, O_NONBLOCK), 0);
	dup2(end[1], 2);
	rc = peer_identity_load(dir, role, &id);
	fflush(stderr);
	dup2(saved, 2);
	n = read(end[0], said, sizeof(said));
	close(saved);
	close(end[0]);
	close(end[1]);
	*lines = 0;
	for (ssize_t i = 0; i < n; i++)
		*lines += said[i] == '\n';
	if (rc == 0) {
		peer_identity_pin(id, pin);
		peer_identity_free(id);
	} else {
		assert_null(id);
	}
	return rc;
}

static void made_and_loaded(void **state)
{
	struct peer_pin made, loaded, other;
	struct stat st;
	int lines;

	(void)state;
	assert_int_equal(peer_identity_create(dir, "front", &made), 0);
	assert_int_equal(stat(path_of("front.key"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(load("front", &loaded, &lines), 0);
	assert_int_equal(lines, 0);
	assert_memory_equal(&made, &loaded, sizeof(made));
	/* Neither half is overwritten. */
	assert_int_equal(peer_identity_create(dir, "front", &other), -EEXIST);
	copy("front.key", "half.key");
	assert_int_equal(peer_identity_create(dir, "half", &other), -EEXIST);
	copy("front.crt", "other.crt");
	assert_int_equal(peer_identity_create(dir, "other", &other), -EEXIST);
	assert_int_equal(access(path_of("other.key"), F_OK), -1);
	/* Each is another. */
	assert_int_equal(unlink(path_of("other.crt")), 0);
	assert_int_equal(peer_identity_create(dir, "other", &other), 0);
	assert_memory_not_equal(&made, &other, sizeof(made));
	assert_int_equal(load("front", &loaded, &lines), 0);
	assert_memory_equal(&made, &loaded, sizeof(made));
}

static void unfit_files(void **state)
{
	struct peer_pin pin;
	int lines;

	(void)state;
	assert_int_equal(load("none", &pin, &lines), -ENOENT);
	assert_int_equal(lines, 1);
	/* A key without its certificate, with another's, with none in it. */
	copy("front.key", "bad.key");
	assert_int_equal(load("bad", &pin, &lines), -ENOENT);
	assert_int_equal(lines, 1);
	copy("other.crt", "bad.crt");
	assert_int_equal(load("bad", &pin, &lines), -EINVAL);
	assert_int_equal(lines, 1);
	fill("bad.crt", "nothing of the kind");
	assert_int_equal(load("bad", &pin, &lines), -EINVAL);
	assert_int_equal(lines, 1);
	copy("front.crt", "bad.crt");
	assert_int_equal(load("bad", &pin, &lines), 0);
	assert_int_equal(chmod(path_of("bad.key"), 0640), 0);
	assert_int_equal(load("bad", &pin, &lines), -EPERM);
	assert_int_equal(lines, 1);
	assert_int_equal(chmod(path_of("bad.key"), 0600), 0);
	fill("bad.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
	assert_int_equal(load("bad", &pin, &lines), -EINVAL);
	assert_int_equal(lines, 1);
	/* X25519, a good key of another kind. */
	fill("bad.key", "-----BEGIN PRIVATE KEY-----\n"
			"MC4CAQAwBQYDK2VuBCIEIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g\n"
			"-----END PRIVATE KEY-----\n");
	assert_int_equal(load("bad", &pin, &lines), -EINVAL);
	assert_int_equal(lines, 1);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-identity-XXXXXX");
	return mkdtemp(dir) != NULL && sodium_init() >= 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
	const char *left[] = {"front.key", "front.crt", "other.key", "other.crt", "half.key", "bad.key", "bad.crt"};

	(void)state;
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
		unlink(path_of(left[i]));
	return rmdir(dir);
}

static void pins(void **state)
{
	const char *good = "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
	char text[PEER_PIN_STR];
	struct peer_pin p;

	(void)state;
	assert_int_equal(peer_pin_parse(span_str(good), &p), 0);
	for (unsigned i = 0; i < PEER_PIN_BYTES; i++)
		assert_int_equal(p.sha256[i], i);
	assert_string_equal(peer_pin_str(&p, text), good);
	assert_true(peer_pin_parse(span_of(good, 49), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT(""), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha512:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), &p) < 0);
	assert_true(peer_pin_parse(SPAN_LIT("sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9"), &p) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pins),
		cmocka_unit_test(made_and_loaded),
		cmocka_unit_test(unfit_files),
	};

	return cmocka_run_group_tests_name("identity", tests, make_dir, remove_dir);
}
