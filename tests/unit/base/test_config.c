/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"

struct service {
	char *name;
	uint16_t port;
	int way;
};

struct file {
	char *listen;
	uint32_t threads;
	int32_t offset;
	bool fast;
	struct service *services;
	uint32_t services_count;
	struct {
		char *address;
	} gate;
};

static const cyaml_strval_t ways[] = {{"tcp", 1}, {"udp", 2}};

static const cyaml_schema_field_t service_fields[] = {
	CYAML_FIELD_STRING_PTR("name", CYAML_FLAG_POINTER, struct service, name, 1, 10),
	CYAML_FIELD_UINT("port", CYAML_FLAG_DEFAULT, struct service, port),
	CYAML_FIELD_ENUM("protocol", CYAML_FLAG_OPTIONAL | CYAML_FLAG_STRICT, struct service, way, ways, 2),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t service = {CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct service, service_fields)};

static const cyaml_schema_field_t gate_fields[] = {
	CYAML_FIELD_STRING_PTR("address", CYAML_FLAG_POINTER, __typeof__(((struct file *)NULL)->gate), address, 1, CYAML_UNLIMITED),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t fields[] = {
	CYAML_FIELD_STRING_PTR("listen", CYAML_FLAG_POINTER, struct file, listen, 1, CYAML_UNLIMITED),
	CYAML_FIELD_UINT("threads", CYAML_FLAG_OPTIONAL, struct file, threads),
	CYAML_FIELD_INT("offset", CYAML_FLAG_OPTIONAL, struct file, offset),
	CYAML_FIELD_BOOL("fast", CYAML_FLAG_OPTIONAL, struct file, fast),
	CYAML_FIELD_SEQUENCE("services", CYAML_FLAG_POINTER, struct file, services, &service, 1, 3),
	CYAML_FIELD_MAPPING("gate", CYAML_FLAG_OPTIONAL, struct file, gate, gate_fields),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t schema = {CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file, fields)};

static char dir[64], path[96];
static char said[2048]; /* what the last call wrote to stderr, the file's folder cut off */

static void write_file(const char *text, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_true(write(fd, text, n) == (ssize_t)n);
	close(fd);
}

/* Diverts stderr into a file while it runs. */
static int saved = -1;

static void listen_in(void)
{
	char log[96];
	int fd;

	snprintf(log, sizeof(log), "%s/stderr", dir);
	fflush(stderr);
	saved = dup(2);
	fd = open(log, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(fd, 2);
	close(fd);
}

static void listen_end(void)
{
	char log[96], raw[2048];
	ssize_t n;
	size_t k = strlen(dir) + 1;
	int fd;

	fflush(stderr);
	dup2(saved, 2);
	close(saved);
	snprintf(log, sizeof(log), "%s/stderr", dir);
	fd = open(log, O_RDONLY | O_CLOEXEC);
	n = read(fd, raw, sizeof(raw) - 1);
	close(fd);
	assert_true(n >= 0);
	raw[n] = 0;
	snprintf(said, sizeof(said), "%s", strncmp(raw, dir, k - 1) == 0 ? raw + k : raw);
}

static int load(const char *text, struct file **out)
{
	int rc;

	write_file(text, strlen(text));
	listen_in();
	rc = wn_config_load(path, &schema, (void **)out);
	listen_end();
	return rc;
}

/* The file is refused with exactly this line and no other. */
static void refused(const char *text, const char *line)
{
	struct file *f;
	int rc = load(text, &f);
	size_t n = strlen(line);

	assert_null(f);
	assert_int_equal(rc, -EINVAL);
	if (strncmp(said, line, n) != 0 || strchr(said, '\n') != said + strlen(said) - 1)
		fail_msg("said: %swanted: %s", said, line);
}

static void good(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(load("listen: 127.0.0.1:5060   # a comment\n"
			      "threads: 4\noffset: -3\nfast: yes\n"
			      "services:\n"
			      "  - { name: ssh, protocol: tcp, port: 22 }\n"
			      "  - name: \"dns\"\n    port: 65535\n    protocol: udp\n"
			      "gate: {address: \"[2001:db8::1]:7443\"}\n",
			      &f),
			 0);
	assert_string_equal(said, "");
	assert_string_equal(f->listen, "127.0.0.1:5060");
	assert_int_equal(f->threads, 4);
	assert_int_equal(f->offset, -3);
	assert_true(f->fast);
	assert_int_equal(f->services_count, 2);
	assert_int_equal(f->services[1].port, 65535);
	assert_int_equal(f->services[1].way, 2);
	assert_string_equal(f->gate.address, "[2001:db8::1]:7443");
	wn_config_free(&schema, f);
	assert_int_equal(load("fast: no\nlisten: a\nservices: [{name: a, port: 1}]\n", &f), 0);
	assert_false(f->fast);
	assert_int_equal(f->threads, 0);
	assert_null(f->gate.address);
	wn_config_free(&schema, f);
}

static void unknown_key(void **state)
{
	(void)state;
	refused("listen: a\nthread: 3\nservices: [{name: a, port: 1}]\n",
		"f:2: thread: unknown key; known here: listen, threads, offset, fast, services, gate\n");
	refused("listen: a\nservices:\n  - name: a\n    port: 1\n    user: b\n",
		"f:5: services[0].user: unknown key; known here: name, port, protocol\n");
	refused("listen: a\n? [a, b]\n: c\n", "f:2: ?: unknown key; known here: ");
	refused("Listen: a\n", "f:1: Listen: unknown key");
	refused("listen: a\n\"two\\nlines\\e[31m\": 3\n", "f:2: two?lines?[31m: unknown key");
}

static void missing_key(void **state)
{
	(void)state;
	refused("# only\nthreads: 3\n", "f:2: listen: missing; must be a text that is not empty\n");
	refused("listen: a\nservices:\n  - name: a\n    port: 1\n  - name: b\n",
		"f:5: services[1].port: missing; must be a whole number from 0 to 65535\n");
	refused("listen: a\nservices: [{name: a, port: 1}]\ngate: {}\n", "f:3: gate.address: missing; must be a text that is not empty\n");
}

static void wrong_type(void **state)
{
	static const char head[] = "listen: a\nservices:\n  - name: a\n    port: ";
	static const char *const ports[] = {"x", "-1", "65536", "1.5", "0x10", "010", "1 2", "99999999999999999999999", "\"\"", "1e3"};
	char text[200];

	(void)state;
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		char line[200];
		bool empty = strcmp(ports[i], "\"\"") == 0;

		snprintf(text, sizeof(text), "%s%s\n", head, ports[i]);
		snprintf(line, sizeof(line), "f:4: services[0].port: is %s%s%s; must be a whole number from 0 to 65535\n",
			 empty ? "" : "\"", empty ? "nothing" : ports[i], empty ? "" : "\"");
		refused(text, line);
	}
	refused("listen: [a]\n", "f:1: listen: is a list; must be a text that is not empty\n");
	refused("listen: {a: b}\n", "f:1: listen: is a mapping; must be a text that is not empty\n");
	refused("listen:\nservices: [{name: a, port: 1}]\n", "f:1: listen: is nothing; must be a text that is not empty\n");
	refused("listen: a\nservices: a\n", "f:2: services: is \"a\"; must be a list");
	refused("listen: a\nservices: {name: a}\n", "f:2: services: is a mapping; must be a list");
	refused("listen: a\nservices: [ssh]\n", "f:2: services[0]: is \"ssh\"; must be a mapping with the keys name, port, protocol\n");
	refused("listen: a\nservices: [[a]]\n", "f:2: services[0]: is a list; must be a mapping");
	refused("- a\n", "f:1: is a list; must be a mapping with the keys listen, threads");
	refused("just words\n", "f:1: is \"just words\"; must be a mapping with the keys listen, threads");
	refused("offset: 2147483648\n", "f:1: offset: is \"2147483648\"; must be a whole number");
	refused("offset: -2147483649\n", "f:1: offset: is \"-2147483649\"; must be a whole number");
	/* libcyaml alone would take all of these for true. */
	refused("fast: maybe\n", "f:1: fast: is \"maybe\"; must be true or false\n");
	refused("fast: off\n", "f:1: fast: is \"off\"; must be true or false\n");
	refused("fast:\n", "f:1: fast: is nothing; must be true or false\n");
	refused("listen: a\nservices:\n  - name: a\n    protocol: sctp\n",
		"f:4: services[0].protocol: is \"sctp\"; must be one of: tcp, udp\n");
	refused("listen: a\nservices:\n  - name: abcdefghijk\n",
		"f:3: services[0].name: is \"abcdefghijk\"; must be a text of 1 to 10 characters\n");
	refused("listen: \"a\\0b\"\n", "f:1: listen: is \"a\"; must be");
}

static void wrong_count(void **state)
{
	(void)state;
	refused("listen: a\nservices: []\n", "f:2: services: has 0 entries; must have at least 1\n");
	refused("listen: a\nservices: [a, b, c, d]\n", "f:2: services: has 4 entries; may have at most 3\n");
	refused("listen: a\nthreads: 1\nlisten: b\n", "f:3: listen: given twice; keep one of the two lines\n");
}

static void bad_syntax(void **state)
{
	struct file *f;

	(void)state;
	refused("listen: a\n\tthreads: 3\n", "f:2: YAML: found a tab character that violates indentation");
	assert_non_null(strstr(said, "indent with spaces, never with tabs"));
	refused("services:\n\t- name: a\n", "f:2: YAML: found character that cannot start any token");
	assert_non_null(strstr(said, "indent with spaces, never with tabs"));
	refused("listen: a\nservices: [a\n", "f:2: YAML: did not find expected ',' or ']'");
	refused("listen: \"a\nservices: b\n", "f:2: YAML: found unexpected end of stream");
	refused("listen: a\n  threads: 3\n", "f:2: YAML: mapping values are not allowed");
	refused("listen: *nowhere\n", "f:1: YAML: found undefined alias");
	refused("", "f:1: YAML: the file is empty");
	refused("# nothing\n", "f:1: YAML: the file is empty");
	refused("listen: a\nservices: [{name: a, port: 1}]\n---\nmore: 1\n", "f:4: YAML: a second document begins here");
	write_file("listen: \xff\xfe\n", 11);
	listen_in();
	assert_int_equal(wn_config_load(path, &schema, (void **)&f), -EINVAL);
	listen_end();
	assert_int_equal(strncmp(said, "f:1: YAML: ", 11), 0);
	assert_non_null(strstr(said, "must be UTF-8"));
}

static int refusal(const char *file, void **out)
{
	int rc;

	listen_in();
	rc = wn_config_load(file, &schema, out);
	listen_end();
	return rc;
}

static void unreadable(void **state)
{
	char name[96];
	void *f;
	char *big = (char *)malloc((1u << 20) + 2);

	(void)state;
	snprintf(name, sizeof(name), "%s/none", dir);
	assert_int_equal(refusal(name, &f), -ENOENT);
	assert_string_equal(said,
			    "none: cannot be read: No such file or directory; give a file that is there and that this user may read\n");
	assert_int_equal(refusal(dir, &f), -EISDIR);
	memset(big, '#', (1u << 20) + 2);
	write_file(big, (1u << 20) + 2);
	assert_int_equal(refusal(path, &f), -EFBIG);
	free(big);
	if (geteuid() != 0) { /* root may read everything */
		write_file("listen: a\n", 10);
		chmod(path, 0);
		assert_int_equal(refusal(path, &f), -EACCES);
		chmod(path, 0600);
	}
}

static void complain(const char *key, const char *line)
{
	int rc;

	listen_in();
	rc = wn_config_bad(path, key, "is \"%s\"; must be %d", "x\ny", 7);
	listen_end();
	assert_int_equal(rc, -EINVAL);
	assert_string_equal(said, line);
}

static void values_that_only_the_program_refuses(void **state)
{
	static const char text[] = "listen: a\n\nservices:\n  - name: a\n    port: 1\n  -\n    name: b\n    port: 2\ngate: {address: x}\n";

	(void)state;
	write_file(text, sizeof(text) - 1);
	complain("listen", "f:1: listen: is \"x?y\"; must be 7\n");
	complain("services", "f:3: services: is \"x?y\"; must be 7\n");
	complain("services[0].port", "f:5: services[0].port: is \"x?y\"; must be 7\n");
	complain("services[1]", "f:7: services[1]: is \"x?y\"; must be 7\n");
	complain("services[1].port", "f:8: services[1].port: is \"x?y\"; must be 7\n");
	complain("gate.address", "f:9: gate.address: is \"x?y\"; must be 7\n");
	/* Not there: the nearest parent's line. */
	complain("gate.pin", "f:9: gate.pin: is \"x?y\"; must be 7\n");
	complain("services[7].port", "f:3: services[7].port: is \"x?y\"; must be 7\n");
	complain("threads", "f:1: threads: is \"x?y\"; must be 7\n");
	unlink(path);
	complain("threads", "f:0: threads: is \"x?y\"; must be 7\n");
}

static void which_keys(void **state)
{
	(void)state;
	write_file("listen: a\ngate: {address: x}\n", 29);
	assert_int_equal(wn_config_has(path, "gate"), 1);
	assert_int_equal(wn_config_has(path, "address"), 0);
	write_file("- gate\n", 7);
	assert_int_equal(wn_config_has(path, "gate"), 0);
	write_file("a: [", 4);
	listen_in();
	assert_int_equal(wn_config_has(path, "gate"), -EINVAL);
	listen_end();
	assert_int_equal(strncmp(said, "f:1: YAML: ", 11), 0);
}

static ssize_t read_secret(void *buf, size_t cap)
{
	ssize_t n;

	listen_in();
	n = wn_secret_read(path, buf, cap);
	listen_end();
	return n;
}

static void secrets(void **state)
{
	char buf[16];
	struct stat st;

	(void)state;
	unlink(path);
	assert_int_equal(read_secret(buf, sizeof(buf)), -ENOENT);
	assert_int_equal(strncmp(said, "f: cannot be read: No such file", 31), 0);
	umask(0);
	assert_int_equal(wn_secret_write(path, "secret", 6), 0);
	umask(022);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(wn_secret_write(path, "other", 5), -EEXIST);
	assert_int_equal(read_secret(buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "secret", 6);
	assert_string_equal(said, "");
	assert_int_equal(read_secret(buf, 6), 6);
	assert_int_equal(read_secret(buf, 5), -EFBIG);
	for (mode_t bit = 1; bit <= 040; bit <<= 1) {
		assert_int_equal(chmod(path, 0600 | bit), 0);
		assert_int_equal(read_secret(buf, sizeof(buf)), -EPERM);
		assert_non_null(strstr(said, "chmod 600"));
		assert_null(strstr(said, "secret\n"));
	}
	assert_int_equal(chmod(path, 0600), 0);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, (gid_t)-1), 0);
		assert_int_equal(read_secret(buf, sizeof(buf)), -EPERM);
		assert_non_null(strstr(said, "belongs to user 12345; it must belong to user 0"));
	}
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(read_secret(buf, sizeof(buf)), -EPERM);
	assert_int_equal(rmdir(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(read_secret(buf, sizeof(buf)), -EPERM); /* and does not wait for a writer */
	assert_int_equal(unlink(path), 0);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-config-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(path, sizeof(path), "%s/f", dir);
	return 0;
}

static int remove_dir(void **state)
{
	char log[96];

	(void)state;
	snprintf(log, sizeof(log), "%s/stderr", dir);
	unlink(log);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good),        cmocka_unit_test(unknown_key),
		cmocka_unit_test(missing_key), cmocka_unit_test(wrong_type),
		cmocka_unit_test(wrong_count), cmocka_unit_test(bad_syntax),
		cmocka_unit_test(unreadable),  cmocka_unit_test(values_that_only_the_program_refuses),
		cmocka_unit_test(which_keys),  cmocka_unit_test(secrets),
	};

	return cmocka_run_group_tests_name("config", tests, make_dir, remove_dir);
}
