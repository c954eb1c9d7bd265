/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/b64.h"
#include "base/config.h"
#include "console/call.h"
#include "console/verbs.h"
#include "peer/peer.h"

#define USAGE       "keys init|show front|gate|agent DIR"
#define PATH_CAP    512
#define ROUTE_BYTES 16
#define SIGN_TEXT   B64URL_LEN(crypto_sign_SECRETKEYBYTES)
#define PUBLIC_TEXT B64URL_LEN(crypto_sign_PUBLICKEYBYTES)

/* Every file that an agent's folder gets beside its key and certificate. */
static const char *const tenant_file[] = {"tenant.sign", "tenant.route"};

static int path_of(char buf[static PATH_CAP], const char *dir, const char *name)
{
	int n = snprintf(buf, PATH_CAP, "%s/%s", dir, name);

	return n > 0 && n < PATH_CAP ? 0 : -ENAMETOOLONG;
}

static int fail(const char *what, int rc)
{
	fprintf(stderr, "walnut keys: %s: %s\n", what, strerror(-rc));
	return 2;
}

static void print_pin(const struct peer_pin *pin)
{
	char text[PEER_PIN_STR];

	printf("pin: %s\n", peer_pin_str(pin, text));
}

static void print_signing_key(const uint8_t public[static crypto_sign_PUBLICKEYBYTES])
{
	char text[PUBLIC_TEXT];

	b64url_encode(public, crypto_sign_PUBLICKEYBYTES, text);
	printf("signing_key: ed25519:%.*s\n", (int)sizeof(text), text);
}

static int write_secret(const char *dir, const char *name, const uint8_t *secret, size_t n)
{
	char path[PATH_CAP], text[SIGN_TEXT];
	int rc = path_of(path, dir, name);

	if (rc == 0)
		rc = wn_secret_write(path, text, b64url_encode(secret, n, text));
	sodium_memzero(text, sizeof(text));
	return rc;
}

/* The tenant's signing key and route-token key; fills in the public half. */
static int make_tenant(const char *dir, uint8_t public[static crypto_sign_PUBLICKEYBYTES])
{
	uint8_t secret[crypto_sign_SECRETKEYBYTES], route[ROUTE_BYTES];
	int rc;

	crypto_sign_keypair(public, secret);
	randombytes_buf(route, sizeof(route));
	rc = write_secret(dir, tenant_file[0], secret, sizeof(secret));
	if (rc == 0)
		rc = write_secret(dir, tenant_file[1], route, sizeof(route));
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(route, sizeof(route));
	return rc;
}

static void remove_file(const char *dir, const char *name)
{
	char path[PATH_CAP];

	if (path_of(path, dir, name) == 0)
		unlink(path);
}

/* Nothing may be there yet: a half-made folder is as much the operator's as a whole one. \return 0, or 2 with a line. */
static int refuse_existing(const char *dir, const char *const *names, size_t n)
{
	char path[PATH_CAP];

	for (size_t i = 0; i < n; i++) {
		if (path_of(path, dir, names[i]) < 0)
			return fail(dir, -ENAMETOOLONG);
		if (access(path, F_OK) == 0) {
			fprintf(stderr, "walnut keys: %s is there already and is not overwritten; move it away, or choose another folder\n",
				path);
			return 2;
		}
	}
	return 0;
}

/* Makes the folder 0700, and what leads there as others have it. */
static int make_folder(const char *dir)
{
	char path[PATH_CAP];
	size_t n = strlen(dir);

	if (n == 0 || n >= sizeof(path))
		return n == 0 ? -ENOENT : -ENAMETOOLONG;
	memcpy(path, dir, n + 1);
	for (char *slash = strchr(path + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
		*slash = 0;
		if (slash[1] != 0 && mkdir(path, 0755) != 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(dir, 0700) == 0 || errno == EEXIST ? 0 : -errno;
}

static int init(const char *role, const char *dir)
{
	char key[32], crt[32];
	const char *names[] = {key, crt, tenant_file[0], tenant_file[1]};
	const bool agent = strcmp(role, "agent") == 0;
	const size_t n = agent ? 4 : 2;
	uint8_t public[crypto_sign_PUBLICKEYBYTES];
	struct peer_pin pin;
	struct stat st;
	int rc;

	snprintf(key, sizeof(key), "%s.key", role);
	snprintf(crt, sizeof(crt), "%s.crt", role);
	rc = make_folder(dir);
	if (rc < 0)
		return fail(dir, rc);
	if (stat(dir, &st) != 0)
		return fail(dir, -errno);
	if (!S_ISDIR(st.st_mode))
		return fail(dir, -ENOTDIR);
	if ((st.st_mode & 022) != 0) {
		fprintf(stderr, "walnut keys: %s: others may write there; it must be 0700: chmod 700 it\n", dir);
		return 2;
	}
	if (refuse_existing(dir, names, n) != 0)
		return 2;
	rc = peer_identity_create(dir, role, &pin);
	if (rc == 0 && agent) {
		rc = make_tenant(dir, public);
		if (rc < 0)
			for (size_t i = 0; i < n; i++)
				remove_file(dir, names[i]);
	}
	if (rc < 0)
		return fail(dir, rc);
	print_pin(&pin);
	if (agent)
		print_signing_key(public);
	return 0;
}

/* The public half that belongs to DIR/tenant.sign. */
static int load_signing(const char *dir, uint8_t public[static crypto_sign_PUBLICKEYBYTES])
{
	uint8_t secret[crypto_sign_SECRETKEYBYTES], again[crypto_sign_SECRETKEYBYTES];
	char path[PATH_CAP], text[SIGN_TEXT + 2];
	ssize_t n;
	int rc = path_of(path, dir, tenant_file[0]);

	if (rc < 0)
		return rc;
	n = wn_secret_read(path, text, sizeof(text));
	if (n < 0)
		return (int)n;
	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == '\r'))
		n--;
	rc = b64url_decode(span_of(text, (size_t)n), secret, sizeof(secret)) == (long)sizeof(secret) ? 0 : -EINVAL;
	if (rc == 0) {
		crypto_sign_seed_keypair(public, again, secret);
		rc = sodium_memcmp(again, secret, sizeof(secret)) == 0 ? 0 : -EINVAL;
	}
	sodium_memzero(secret, sizeof(secret));
	sodium_memzero(again, sizeof(again));
	sodium_memzero(text, sizeof(text));
	if (rc < 0)
		fprintf(stderr, "%s: holds no signing key; make one with \"walnut keys init agent\"\n", path);
	return rc;
}

static int show(const char *role, const char *dir)
{
	uint8_t public[crypto_sign_PUBLICKEYBYTES];
	struct peer_identity *id;
	struct peer_pin pin;

	if (peer_identity_load(dir, role, &id) < 0)
		return 2;
	peer_identity_pin(id, &pin);
	peer_identity_free(id);
	if (strcmp(role, "agent") == 0 && load_signing(dir, public) < 0)
		return 2;
	print_pin(&pin);
	if (strcmp(role, "agent") == 0)
		print_signing_key(public);
	return 0;
}

int cmd_keys(int argc, char **argv)
{
	struct call_options o;
	const char *verb, *role;
	int rc = call_options("keys", USAGE, argc, argv, 0, 3, 3, &o);

	if (rc != 0)
		return rc < 0 ? 2 : 0;
	verb = o.args[0];
	role = o.args[1];
	if (strcmp(role, "front") != 0 && strcmp(role, "gate") != 0 && strcmp(role, "agent") != 0) {
		fprintf(stderr, "walnut keys: unknown role %s; it must be front, gate or agent\n", role);
		return 2;
	}
	if (sodium_init() < 0)
		return fail("libsodium", -EIO);
	if (strcmp(verb, "init") == 0)
		return init(role, o.args[2]);
	if (strcmp(verb, "show") == 0)
		return show(role, o.args[2]);
	fprintf(stderr, "walnut keys: unknown action %s; usage: walnut %s\n", verb, USAGE);
	return 2;
}
