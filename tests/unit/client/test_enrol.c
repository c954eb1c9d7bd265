/* SPDX-License-Identifier: Apache-2.0 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "base/b64.h"
#include "client/enrol.h"

#define REST "\"fronts\":[\"192.0.2.1:5060\",\"192.0.2.2:5061\"],\"epoch_s\":86400}"

static char secret[64], home[64];

__attribute__((format(printf, 2, 3))) static int parse(struct enrol *e, const char *fmt, ...)
{
	char json[8192], why[ENROL_WHY_MAX] = "";
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(json, sizeof(json), fmt, ap);
	va_end(ap);
	rc = enrol_parse_json(span_str(json), e, why);
	if (rc < 0) {
		assert_int_equal(rc, -EINVAL);
		assert_true(why[0] != '\0');
		for (size_t i = 0; why[i] != '\0'; i++)
			assert_true(isprint((unsigned char)why[i]));
		/* Nothing of a secret gets into messages or stays behind. */
		assert_null(strstr(why, secret));
		assert_int_equal(e->secret[0], 0);
	}
	return rc;
}

static void takes_a_good_one(void **state)
{
	struct enrol e;
	char text[WN_ADDR_STR];

	(void)state;
	assert_int_equal(parse(&e, "{\"user\":\"alice\",\"domain\":\"Example.ORG\",\"secret\":\"%s\"," REST, secret), 0);
	assert_string_equal(e.user, "alice");
	assert_string_equal(e.domain, "example.org");
	assert_string_equal(e.secret, secret);
	assert_int_equal(e.nfronts, 2);
	assert_string_equal(wn_addr_str(&e.fronts[1], text), "192.0.2.2:5061");
	assert_int_equal(e.epoch_s, 86400);
	/* Rotation off, and unsaid. */
	assert_int_equal(
		parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[\"192.0.2.1:5060\"],\"epoch_s\":0}", secret),
		0);
	assert_int_equal(e.epoch_s, 0);
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[\"[2001:db8::1]:5060\"]}", secret),
			 0);
	assert_int_equal(e.epoch_s, 86400);
}

static void refuses_bad_json(void **state)
{
	struct enrol e;

	(void)state;
	assert_int_equal(parse(&e, " "), -EINVAL);
	assert_int_equal(parse(&e, "[]"), -EINVAL);
	assert_int_equal(parse(&e, "{}"), -EINVAL);
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST, secret), -EINVAL);
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"admin\":true," REST, secret), -EINVAL);
	/* What is shown of a stranger's key steers no terminal. */
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"a\\u001b[2J\\u009b\":1," REST, secret),
			 -EINVAL);
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST " x", secret), -EINVAL);
	assert_int_equal(parse(&e, "{\"user\":7,\"domain\":\"x.org\",\"secret\":\"%s\"," REST, secret), -EINVAL);
	assert_int_equal(
		parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[\"192.0.2.1:5060\"],\"epoch_s\":-1}", secret),
		-EINVAL);
	assert_int_equal(parse(&e,
			       "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[\"192.0.2.1:5060\"],\"epoch_s\":\"1\"}",
			       secret),
			 -EINVAL);
}

static void refuses_bad_names(void **state)
{
	static const char *const users[] = {"", "a b", "a\\\"b", "a:b", "a@b", "a;b", "\\u0000", "\xc3\xa9"};
	/* A domain becomes a file's name. */
	static const char *const domains[] = {"", ".", "..", "x..org", ".org", "org.", "../x", "a/b", "-a.org", "a-.org", "a_b.org", "a b"};
	struct enrol e;

	(void)state;
	for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++)
		assert_int_equal(parse(&e, "{\"user\":\"%s\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST, users[i], secret), -EINVAL);
	for (size_t i = 0; i < sizeof(domains) / sizeof(domains[0]); i++)
		assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"%s\",\"secret\":\"%s\"," REST, domains[i], secret), -EINVAL);
}

static void refuses_weak_secrets(void **state)
{
	static const char *const weak[] = {"", "hunter2", "correct horse battery staple", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
	uint8_t raw[16];
	char text[32] = "";
	struct enrol e;

	(void)state;
	for (size_t i = 0; i < sizeof(weak) / sizeof(weak[0]); i++)
		assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST, weak[i]), -EINVAL);
	/* 120 bits are not enough, 128 are. */
	randombytes_buf(raw, sizeof(raw));
	text[b64url_encode(raw, 15, text)] = '\0';
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST, text), -EINVAL);
	text[b64url_encode(raw, 16, text)] = '\0';
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\"," REST, text), 0);
}

static void refuses_bad_fronts(void **state)
{
	static const char *const fronts[] = {
		"", "7", "\"example.org:5060\"", "\"192.0.2.1:0\"", "\"192.0.2.1:70000\"", "\"192.0.2.1:5060\",\"192.0.2.1:5060\""};
	char many[1024] = "";
	struct enrol e;

	(void)state;
	for (size_t i = 0; i < sizeof(fronts) / sizeof(fronts[0]); i++)
		assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[%s]}", secret, fronts[i]),
				 -EINVAL);
	for (int i = 0; i <= ENROL_FRONTS_MAX; i++)
		snprintf(many + strlen(many), sizeof(many) - strlen(many), "%s\"192.0.2.%d:5060\"", i > 0 ? "," : "", i + 1);
	assert_int_equal(parse(&e, "{\"user\":\"a\",\"domain\":\"x.org\",\"secret\":\"%s\",\"fronts\":[%s]}", secret, many), -EINVAL);
}

static void line_there_and_back(void **state)
{
	char line[ENROL_LINE_MAX], padded[ENROL_LINE_MAX + 8], why[ENROL_WHY_MAX];
	struct enrol e, back;
	long n;

	(void)state;
	assert_int_equal(parse(&e, "{\"user\":\"alice\",\"domain\":\"example.org\",\"secret\":\"%s\"," REST, secret), 0);
	n = enrol_format_line(&e, line, sizeof(line));
	assert_true(n > 0);
	assert_int_equal(strlen(line), n);
	assert_int_equal(memcmp(line, "walnut1:", 8), 0);
	snprintf(padded, sizeof(padded), " \n%s\r\n", line);
	assert_int_equal(enrol_parse_line(span_str(padded), &back, why), 0);
	assert_memory_equal(&e, &back, sizeof(e));
	assert_int_equal(enrol_format_line(&e, line, (size_t)n), -ENOSPC);
	/* Cut short, another version, something else. */
	enrol_format_line(&e, line, sizeof(line));
	assert_int_equal(enrol_parse_line(span_of(line, (size_t)n - 5), &back, why), -EINVAL);
	line[6] = '2';
	assert_int_equal(enrol_parse_line(span_str(line), &back, why), -EINVAL);
	assert_int_equal(enrol_parse_line(SPAN_LIT("walnut1:"), &back, why), -EINVAL);
	assert_int_equal(enrol_parse_line(SPAN_LIT("walnut1:not base64"), &back, why), -EINVAL);
	assert_int_equal(enrol_parse_line(SPAN_LIT(""), &back, why), -EINVAL);
}

static void make(struct enrol *e, const char *domain)
{
	assert_int_equal(parse(e, "{\"user\":\"alice\",\"domain\":\"%s\",\"secret\":\"%s\"," REST, domain, secret), 0);
}

static void store_and_load(void **state)
{
	struct enrol_set set;
	struct enrol e, back;
	char path[256], sub[128];
	struct stat st;

	(void)state;
	snprintf(sub, sizeof(sub), "%s/a/b", home);
	setenv("WALNUT_HOME", sub, 1);
	assert_int_equal(enrol_load_all(NULL, &set), -ENOENT);
	make(&e, "example.org");
	assert_int_equal(enrol_store(&e, path, sizeof(path)), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(enrol_load(path, &back), 0);
	assert_memory_equal(&e, &back, sizeof(e));
	/* Joining again replaces. */
	strcpy(e.user, "bob");
	assert_int_equal(enrol_store(&e, path, sizeof(path)), 0);
	assert_int_equal(enrol_load_all(NULL, &set), 0);
	assert_int_equal(set.n, 1);
	assert_string_equal(set.at[0].user, "bob");
	enrol_set_free(&set);
	/* One that others may read fails everything. */
	assert_int_equal(chmod(path, 0640), 0);
	assert_true(enrol_load(path, &back) < 0);
	assert_true(enrol_load_all(NULL, &set) < 0);
	assert_null(set.at);
	assert_int_equal(chmod(path, 0604), 0);
	assert_true(enrol_load(path, &back) < 0);
	assert_int_equal(unlink(path), 0);
	assert_true(enrol_load(path, &back) < 0);
}

static const struct enrol *find(const struct enrol_set *s, const char *name, bool bare, char *service)
{
	char why[ENROL_WHY_MAX] = "";
	const struct enrol *e = enrol_find(s, span_str(name), bare, service, why);

	assert_true(e != NULL || why[0] != '\0');
	assert_true(e != NULL || service[0] == '\0');
	return e;
}

static void finds_by_name(void **state)
{
	struct enrol at[3];
	struct enrol_set one = {at, 1}, all = {at, 3};
	char service[ENROL_SERVICE_MAX + 1];

	(void)state;
	make(&at[0], "example.org");
	make(&at[1], "lab.example.org");
	make(&at[2], "example.net");
	assert_ptr_equal(find(&one, "ssh", true, service), &at[0]);
	assert_string_equal(service, "ssh");
	assert_null(find(&one, "ssh", false, service));
	assert_null(find(&all, "ssh", true, service));
	assert_ptr_equal(find(&all, "SSH.Example.NET.", true, service), &at[2]);
	assert_string_equal(service, "ssh");
	/* The longest domain wins, and a service is one label. */
	assert_ptr_equal(find(&all, "web.lab.example.org", false, service), &at[1]);
	assert_string_equal(service, "web");
	assert_null(find(&one, "web.lab.example.org", false, service));
	assert_null(find(&all, "example.org", false, service));
	assert_null(find(&all, ".example.org", false, service));
	assert_null(find(&all, "sshexample.org", false, service));
	assert_null(find(&all, "a b.example.org", false, service));
	assert_null(find(&all, "a;b.example.org", false, service));
	assert_null(find(&all, "ssh.example.com", true, service));
	assert_null(find(&all, "", true, service));
	assert_null(find(&one, "a@b", true, service));
}

static int setup(void **state)
{
	uint8_t raw[32];

	(void)state;
	if (sodium_init() < 0)
		return -1;
	randombytes_buf(raw, sizeof(raw));
	secret[b64url_encode(raw, sizeof(raw), secret)] = '\0';
	snprintf(home, sizeof(home), "/tmp/walnut-enrol-XXXXXX");
	return mkdtemp(home) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
	char path[128];

	(void)state;
	snprintf(path, sizeof(path), "%s/a/b", home);
	rmdir(path);
	snprintf(path, sizeof(path), "%s/a", home);
	rmdir(path);
	return rmdir(home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(takes_a_good_one),     cmocka_unit_test(refuses_bad_json),   cmocka_unit_test(refuses_bad_names),
		cmocka_unit_test(refuses_weak_secrets), cmocka_unit_test(refuses_bad_fronts), cmocka_unit_test(line_there_and_back),
		cmocka_unit_test(store_and_load),       cmocka_unit_test(finds_by_name),
	};

	return cmocka_run_group_tests_name("client-enrol", tests, setup, teardown);
}
