/* SPDX-License-Identifier: Apache-2.0 */
/* front-users: writes a front's file of users (userdb/file.h) with as many users as asked, or says what reading one costs. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/b64.h"
#include "feed/chain.h"
#include "sip/digest.h"
#include "userdb/file.h"
#include "users.h"

#define USERS_MAX UINT64_C(16000000)
#define FEW       1000u
#define BATCH     4096u
#define BATCHES   101u
#define EPOCH_S   86400u

struct asked {
	const char *state, *file, *domain, *seed;
	uint64_t users, unix_s;
	uint32_t epoch_s;
	bool sha256, md5, measure;
};

static void usage(FILE *to)
{
	fputs("usage: front-users --state DIR --domain DOMAIN --users N --seed TEXT [--algorithms sha-256,md5] [--epoch-s 86400] [--time "
	      "UNIX-S]\n"
	      "       front-users --measure FILE --domain DOMAIN --seed TEXT\n"
	      "\n"
	      "The first writes DIR/DOMAIN.users, signed with a key made from the seed, and prints its public half as front.yaml wants it. "
	      "Names and\n"
	      "secrets: bench/front/users.h. --epoch-s 0 is rotation off (one epoch of keys, realm DOMAIN/0), else keys of two epochs are "
	      "written.\n"
	      "The second loads such a file as a front does and prints what that took, as JSON.\n",
	      to);
}

/* The key that signs; whoever knows the seed has it. */
static void signing_key(const char *seed, uint8_t pk[static UPDATE_SIGN_PUBLIC], uint8_t sk[static UPDATE_SIGN_SECRET])
{
	uint8_t s[crypto_sign_SEEDBYTES];
	_Static_assert(sizeof(s) == crypto_hash_sha256_BYTES, "a hash is a seed");

	crypto_hash_sha256(s, (const uint8_t *)seed, strlen(seed));
	crypto_sign_seed_keypair(pk, sk, s);
}

static int add_user(struct digest_ctx *digest, struct update_buf *b, const struct asked *a, uint64_t seed, uint64_t n)
{
	char name[FRONT_USER_NAME_CHARS], secret[FRONT_USER_SECRET_CHARS], realm[DOMAIN_MAX + 16];
	uint8_t sha256[DIGEST_HASH_MAX], md5[DIGEST_HASH_MAX];
	uint32_t epoch = front_user_epoch(a->unix_s, a->epoch_s);
	int rc = 0;

	front_user_name(n, name);
	front_user_secret(seed, n, secret);
	for (unsigned i = 0; rc == 0 && i < (a->epoch_s != 0 ? 2u : 1u); i++) {
		struct user_op op = {.kind = USER_SET, .name = span_of(name, sizeof(name)), .epoch = epoch + i};
		struct span r = span_of(realm, (size_t)snprintf(realm, sizeof(realm), "%s/%" PRIu32, a->domain, op.epoch));

		if (a->sha256) {
			rc = digest_ha1(digest, DIGEST_SHA256, op.name, r, span_of(secret, sizeof(secret)), sha256);
			op.flags |= USER_HAS_SHA256;
			op.sha256 = sha256;
		}
		if (rc == 0 && a->md5) {
			rc = digest_ha1(digest, DIGEST_MD5, op.name, r, span_of(secret, sizeof(secret)), md5);
			op.flags |= USER_HAS_MD5;
			op.md5 = md5;
		}
		if (rc == 0)
			rc = update_add(b, &op);
	}
	return rc;
}

typedef int (*take_message)(void *to, struct span msg);

/* The whole database as an agent would send it. */
static int make_snapshot(const struct asked *a, const uint8_t *sk, take_message take, void *to)
{
	struct digest_ctx *digest;
	uint64_t seed = front_user_seed(a->seed), n = 0;
	struct update_msg m = {.type = UPDATE_SNAPSHOT,
			       .domain = span_str(a->domain),
			       .at = {.seq = 1},
			       .unix_ms = a->unix_s * 1000,
			       .epoch = front_user_epoch(a->unix_s, a->epoch_s),
			       .epoch_s = a->epoch_s,
			       .chunks = (uint32_t)((a->users + CHAIN_SNAPSHOT_USERS - 1) / CHAIN_SNAPSHOT_USERS)};
	static uint8_t buf[UPDATE_BYTES_MAX];
	uint8_t hash[UPDATE_HEAD_BYTES];
	int rc = digest_ctx_new(&digest);

	memset(m.at.hash, 1, sizeof(m.at.hash));
	for (; rc == 0 && m.chunk < m.chunks; m.chunk++) {
		struct update_buf b;
		long len;

		update_begin(&b, buf, sizeof(buf), &m);
		for (unsigned i = 0; rc == 0 && i < CHAIN_SNAPSHOT_USERS && n < a->users; i++, n++)
			rc = add_user(digest, &b, a, seed, n);
		len = rc == 0 ? update_end(&b, sk, hash) : rc;
		rc = len < 0 ? (int)len : take(to, span_of(buf, (size_t)len));
	}
	digest_ctx_free(digest);
	return rc;
}

static int to_file(void *to, struct span msg)
{
	uint8_t length[USER_FILE_LENGTH];

	user_file_length(msg.n, length);
	return fwrite(length, sizeof(length), 1, to) == 1 && fwrite(msg.p, msg.n, 1, to) == 1 ? 0 : -EIO;
}

static int write_users(const struct asked *a)
{
	char path[512], now[520], key[B64URL_LEN(UPDATE_SIGN_PUBLIC) + 1] = "";
	uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];
	FILE *f;
	int fd, rc;

	if (snprintf(path, sizeof(path), "%s/%s%s", a->state, a->domain, USER_FILE_SUFFIX) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	snprintf(now, sizeof(now), "%s.new", path);
	signing_key(a->seed, pk, sk);
	fd = open(now, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (f == NULL)
		return -errno;
	rc = fwrite(USER_FILE_MAGIC, USER_FILE_MAGIC_BYTES, 1, f) == 1 ? make_snapshot(a, sk, to_file, f) : -EIO;
	if (fclose(f) != 0 && rc == 0)
		rc = -errno;
	if (rc == 0 && rename(now, path) != 0)
		rc = -errno;
	if (rc != 0) {
		unlink(now);
		return rc;
	}
	b64url_encode(pk, sizeof(pk), key);
	printf("ed25519:%s\n", key);
	return 0;
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double resident(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "r");

	if (f == NULL || fscanf(f, "%*u %lu", &pages) != 1)
		pages = 0;
	if (f != NULL)
		fclose(f);
	return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/* Nanoseconds a lookup, the median over batches of names that are drawn afresh. Negative: one was not found. */
static double lookup_ns(const struct user_table *t, uint64_t users)
{
	static char name[BATCH][FRONT_USER_NAME_CHARS];
	static double ns[BATCHES];
	struct user_keys keys;
	struct table_state s;

	user_table_state(t, &s);
	for (unsigned b = 0; b < BATCHES; b++) {
		uint32_t draw[BATCH];
		unsigned found = 0;
		double from;

		randombytes_buf(draw, sizeof(draw));
		for (unsigned i = 0; i < BATCH; i++)
			front_user_name(draw[i] * users >> 32, name[i]);
		from = seconds(CLOCK_MONOTONIC);
		for (unsigned i = 0; i < BATCH; i++)
			found += user_table_find(t, span_of(name[i], sizeof(name[i])), s.epoch, &keys);
		ns[b] = (seconds(CLOCK_MONOTONIC) - from) * 1e9 / BATCH;
		if (found != BATCH)
			return -1;
	}
	qsort(ns, BATCHES, sizeof(ns[0]), by_value);
	return ns[BATCHES / 2];
}

struct small {
	struct user_table *t;
	const struct asked *a;
	const uint8_t *pk;
};

static int to_table(void *to, struct span msg)
{
	struct small *s = to;

	return user_table_apply(s->t, span_str(s->a->domain), s->pk, msg) == TABLE_OK ? 0 : -EBADMSG;
}

static int measure(struct asked *a)
{
	uint8_t pk[UPDATE_SIGN_PUBLIC], sk[UPDATE_SIGN_SECRET];
	struct user_table *all = NULL, *few = NULL;
	struct user_file_info info;
	struct table_state s;
	double before, wall, cpu;
	int fd, rc;

	signing_key(a->seed, pk, sk);
	fd = open(a->file, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	rc = user_table_new(&few);
	rc = rc != 0 ? rc : user_table_new(&all);
	if (rc != 0)
		goto out;
	before = resident();
	wall = seconds(CLOCK_MONOTONIC);
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	rc = user_file_load(fd, all, span_str(a->domain), pk, &info);
	wall = seconds(CLOCK_MONOTONIC) - wall;
	cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	if (rc == -EBADMSG)
		fprintf(stderr, "front-users: byte %" PRIu64 ": %s\n", info.bad_at,
			info.form != NULL ? info.form : table_verdict_name(info.why));
	if (rc != 0)
		goto out;
	before = resident() - before;
	user_table_state(all, &s);

	/* The same kind of users, but few. */
	a->users = s.users < FEW ? s.users : FEW;
	a->unix_s = s.publisher_ms / 1000;
	a->epoch_s = s.epoch_s;
	a->sha256 = true;
	rc = make_snapshot(a, sk, to_table, &(struct small){few, a, pk});
	if (rc != 0)
		goto out;
	printf("{\"users\": %" PRIu64 ", \"file_bytes\": %" PRIu64
	       ", \"load_s\": %.3f, \"load_cpu_s\": %.3f, \"bytes_per_user\": %.1f, \"lookup_ns_%" PRIu64 "\": %.1f",
	       s.users, info.bytes, wall, cpu, before / (double)s.users, a->users, lookup_ns(few, a->users));
	if (s.users != a->users)
		printf(", \"lookup_ns_%" PRIu64 "\": %.1f", s.users, lookup_ns(all, s.users));
	printf("}\n");
out:
	user_table_free(few);
	user_table_free(all);
	close(fd);
	return rc;
}

static bool number(const char *text, uint64_t most, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && end != text && *end == '\0' && *text != '-' && *out <= most;
}

static bool algorithms(const char *text, struct asked *a)
{
	a->sha256 = strcmp(text, "sha-256") == 0 || strcmp(text, "sha-256,md5") == 0 || strcmp(text, "md5,sha-256") == 0;
	a->md5 = strcmp(text, "md5") == 0 || strcmp(text, "sha-256,md5") == 0 || strcmp(text, "md5,sha-256") == 0;
	return a->sha256 || a->md5;
}

static bool read_options(int argc, char **argv, struct asked *a)
{
	static const struct option options[] = {
		{"state", required_argument, NULL, 's'},
		{"domain", required_argument, NULL, 'd'},
		{"users", required_argument, NULL, 'u'},
		{"seed", required_argument, NULL, 'r'},
		{"algorithms", required_argument, NULL, 'a'},
		{"epoch-s", required_argument, NULL, 'e'},
		{"time", required_argument, NULL, 't'},
		{"measure", required_argument, NULL, 'm'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	uint64_t n;
	int o;

	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 's':
			a->state = optarg;
			break;
		case 'd':
			a->domain = optarg;
			break;
		case 'u':
			if (!number(optarg, USERS_MAX, &a->users) || a->users == 0)
				return false;
			break;
		case 'r':
			a->seed = optarg;
			break;
		case 'a':
			if (!algorithms(optarg, a))
				return false;
			break;
		case 'e':
			if (!number(optarg, UINT32_MAX, &n))
				return false;
			a->epoch_s = (uint32_t)n;
			break;
		case 't':
			if (!number(optarg, UINT32_MAX, &a->unix_s))
				return false;
			break;
		case 'm':
			a->measure = true;
			a->file = optarg;
			break;
		case 'h':
			usage(stdout);
			exit(0);
		default:
			return false;
		}
	}
	return optind == argc && a->domain != NULL && strlen(a->domain) <= DOMAIN_MAX && a->seed != NULL &&
	       (a->measure || (a->state != NULL && a->users != 0));
}

int main(int argc, char **argv)
{
	struct asked a = {.unix_s = (uint64_t)time(NULL), .epoch_s = EPOCH_S, .sha256 = true};
	int rc;

	if (!read_options(argc, argv, &a)) {
		usage(stderr);
		return 2;
	}
	if (sodium_init() < 0)
		return EXIT_FAILURE;
	rc = a.measure ? measure(&a) : write_users(&a);
	if (rc != 0)
		fprintf(stderr, "front-users: %s\n", strerror(-rc));
	return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
