/* SPDX-License-Identifier: Apache-2.0 */
#include "feed/chain.h"

#include <errno.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define REALM_MAX (DOMAIN_MAX + 16)
#define EPOCHS    2u /* current and next */

struct entry {
	struct update_head before, after;
	uint8_t *bytes;
	size_t n;
	uint32_t keys;
	bool bulk;
};

struct chain {
	struct user_store *store;
	struct digest_ctx *digest;
	char domain[DOMAIN_MAX + 1];
	uint32_t epoch_s;
	const uint8_t *sign;
	struct update_head head;
	uint64_t last_ms; /* of a message of ours; never goes back */
	/* log: the entries of (head.seq - nlog, head.seq], a ring */
	struct entry log[CHAIN_LOG_COUNT_MAX];
	unsigned nlog, log_at; /* log_at: where the next one goes */
	size_t log_bytes;
	/* rotation */
	struct user_store_keys keys;
	bool rotating;
	uint32_t target;
	char cursor[USER_NAME_MAX + 1];
	uint8_t buf[UPDATE_BYTES_MAX];
};

struct chain_snapshot {
	struct chain *c;
	struct user_iter *it;
	struct update_head head;
	uint64_t unix_ms;
	uint32_t chunk, chunks;
};

/* Keys of one user in one epoch; op points into the struct. */
struct made_keys {
	struct user_op op;
	uint8_t sha256[DIGEST_HASH_MAX], md5[DIGEST_HASH_MAX];
};

static int make_keys(struct chain *c, const struct user_record *r, uint32_t epoch, struct made_keys *out)
{
	struct span user = span_str(r->name), secret = span_str(r->secret), realm;
	char text[REALM_MAX];
	int rc;

	realm = span_of(text, (size_t)snprintf(text, sizeof(text), "%s/%" PRIu32, c->domain, epoch));
	rc = digest_ha1(c->digest, DIGEST_SHA256, user, realm, secret, out->sha256);
	if (rc == 0 && r->md5)
		rc = digest_ha1(c->digest, DIGEST_MD5, user, realm, secret, out->md5);
	out->op = (struct user_op){.kind = USER_SET,
				   .name = user,
				   .flags = (uint8_t)(USER_HAS_SHA256 | (r->md5 ? USER_HAS_MD5 : 0)),
				   .epoch = epoch,
				   .sha256 = out->sha256,
				   .md5 = out->md5};
	return rc;
}

/* Adds the keys of epochs first to last. */
static int add_user(struct chain *c, struct update_buf *b, const struct user_record *r, uint32_t first, uint32_t last)
{
	struct made_keys k;
	int rc = 0;

	for (uint32_t e = first; rc == 0 && e <= last; e++) {
		rc = make_keys(c, r, e, &k);
		if (rc == 0)
			rc = update_add(b, &k.op);
	}
	sodium_memzero(&k, sizeof(k));
	return rc;
}

static uint64_t monotonic(struct chain *c, uint64_t unix_ms)
{
	if (unix_ms > c->last_ms)
		c->last_ms = unix_ms;
	return c->last_ms;
}

static uint32_t last_epoch(const struct chain *c, uint32_t current)
{
	return c->epoch_s != 0 ? current + 1 : current;
}

static void begin(struct chain *c, struct update_buf *b, enum update_type type, uint64_t unix_ms, uint8_t *buf, size_t cap)
{
	struct update_msg m = {.type = type, .domain = span_str(c->domain), .at = c->head, .epoch_s = c->epoch_s};

	m.unix_ms = monotonic(c, unix_ms);
	m.epoch = chain_epoch(c, m.unix_ms);
	if (type == UPDATE_CHANGE)
		m.at.seq++;
	update_begin(b, buf, cap, &m);
}

static void log_drop_oldest(struct chain *c)
{
	struct entry *e = &c->log[(c->log_at + CHAIN_LOG_COUNT_MAX - c->nlog) % CHAIN_LOG_COUNT_MAX];

	c->log_bytes -= e->n;
	free(e->bytes);
	*e = (struct entry){0};
	c->nlog--;
}

/* The change is durable already: a log that cannot take it costs a snapshot, nothing else. */
static void log_append(struct chain *c, const struct update_head *before, size_t n, uint32_t keys, bool bulk)
{
	uint8_t *copy = malloc(n);

	if (copy == NULL) {
		while (c->nlog > 0)
			log_drop_oldest(c);
		return;
	}
	while (c->nlog > 0 && (c->nlog == CHAIN_LOG_COUNT_MAX || c->log_bytes + n > CHAIN_LOG_BYTES_MAX))
		log_drop_oldest(c);
	memcpy(copy, c->buf, n);
	c->log[c->log_at] = (struct entry){.before = *before, .after = c->head, .bytes = copy, .n = n, .keys = keys, .bulk = bulk};
	c->log_at = (c->log_at + 1) % CHAIN_LOG_COUNT_MAX;
	c->nlog++;
	c->log_bytes += n;
}

int chain_new(struct user_store *store, const char *domain, uint32_t epoch_s, const uint8_t *sign, struct chain **out)
{
	struct chain *c = calloc(1, sizeof(*c));
	int rc;

	*out = NULL;
	if (c == NULL)
		return -ENOMEM;
	c->store = store;
	c->epoch_s = epoch_s;
	c->sign = sign;
	rc = span_cstr(span_str(domain), c->domain, sizeof(c->domain));
	if (rc == 0)
		rc = digest_ctx_new(&c->digest);
	if (rc == 0)
		rc = user_store_head(store, &c->head);
	if (rc == 0)
		rc = user_store_keys(store, &c->keys);
	if (rc < 0) {
		wn_err("cannot read the user database: %s", strerror(-rc));
		chain_free(c);
		return rc;
	}
	*out = c;
	return 0;
}

void chain_free(struct chain *c)
{
	if (c == NULL)
		return;
	while (c->nlog > 0)
		log_drop_oldest(c);
	digest_ctx_free(c->digest);
	sodium_memzero(c, sizeof(*c));
	free(c);
}

void chain_head(const struct chain *c, struct update_head *out)
{
	*out = c->head;
}

uint32_t chain_epoch(const struct chain *c, uint64_t unix_ms)
{
	return c->epoch_s != 0 ? (uint32_t)(unix_ms / 1000 / c->epoch_s) : 0;
}

static int commit(struct chain *c, struct update_buf *b, enum user_op_kind kind, const struct user_record *r)
{
	struct update_head before = c->head, after = {.seq = c->head.seq + 1};
	long n = update_end(b, c->sign, after.hash);
	int rc;

	if (n < 0)
		return (int)n;
	rc = user_store_commit(c->store, kind, r, &after);
	if (rc < 0)
		return rc;
	c->head = after;
	log_append(c, &before, (size_t)n, kind == USER_SET ? b->nops : 0, false);
	return 0;
}

int chain_add(struct chain *c, uint64_t unix_ms, const struct user_record *r)
{
	struct update_buf b;
	uint32_t epoch;
	int rc;

	begin(c, &b, UPDATE_CHANGE, unix_ms, c->buf, sizeof(c->buf));
	epoch = chain_epoch(c, c->last_ms);
	rc = add_user(c, &b, r, epoch, last_epoch(c, epoch));
	return rc < 0 ? rc : commit(c, &b, USER_SET, r);
}

int chain_del(struct chain *c, uint64_t unix_ms, const char *name)
{
	struct user_op op = {.kind = USER_DEL, .name = span_str(name)};
	struct user_record r = {0};
	struct update_buf b;
	int rc = span_cstr(op.name, r.name, sizeof(r.name));

	if (rc < 0)
		return -ENOENT;
	begin(c, &b, UPDATE_CHANGE, unix_ms, c->buf, sizeof(c->buf));
	rc = update_add(&b, &op);
	return rc < 0 ? rc : commit(c, &b, USER_DEL, &r);
}

bool chain_rotation_due(struct chain *c, uint64_t unix_ms)
{
	uint32_t target = last_epoch(c, chain_epoch(c, monotonic(c, unix_ms)));

	return !c->keys.known || c->keys.epoch_s != c->epoch_s || c->keys.epoch < target;
}

/* What of the target's two epochs the chain lacks. */
static uint32_t first_missing(const struct chain *c, uint32_t current)
{
	if (!c->keys.known || c->keys.epoch_s != c->epoch_s || c->keys.epoch < current)
		return current;
	return c->keys.epoch + 1;
}

/* Epochs are counted anew, and keys of the old count would stand in the way: a change that is nowhere to be had makes every front ask for a
 * snapshot, which replaces them all. */
static int break_log(struct chain *c, const struct user_store_keys *done)
{
	struct update_head after = {.seq = c->head.seq + 1};
	struct update_buf b;
	long n;
	int rc;

	begin(c, &b, UPDATE_CHANGE, c->last_ms, c->buf, sizeof(c->buf));
	n = update_end(&b, c->sign, after.hash);
	if (n < 0)
		return (int)n;
	rc = user_store_commit_keys(c->store, &after, done);
	if (rc < 0)
		return rc;
	while (c->nlog > 0)
		log_drop_oldest(c);
	c->head = after;
	c->keys = *done;
	c->rotating = false;
	return 0;
}

long chain_rotate(struct chain *c, uint64_t unix_ms, uint32_t max_keys)
{
	struct user_store_keys done = {.known = true, .epoch_s = c->epoch_s};
	struct update_head before = c->head, after = c->head;
	struct user_iter *it = NULL;
	struct user_record r;
	struct update_buf b;
	uint32_t current, target, first;
	long n;
	int rc;

	if (!chain_rotation_due(c, unix_ms))
		return 0;
	current = chain_epoch(c, c->last_ms);
	target = last_epoch(c, current);
	if (!c->rotating || c->target != target) {
		c->rotating = true;
		c->target = target;
		c->cursor[0] = '\0';
		wn_info("feed: publishing the keys of epoch %" PRIu32, target);
	}
	done.epoch = target;
	if (c->keys.known && c->keys.epoch_s != c->epoch_s)
		return break_log(c, &done);
	first = first_missing(c, current);

	begin(c, &b, UPDATE_CHANGE, unix_ms, c->buf, sizeof(c->buf));
	rc = user_iter_open(c->store, &it);
	if (rc == 0)
		rc = user_iter_seek(it, c->cursor);
	while (rc == 0 && (b.nops == 0 || b.nops + (target - first + 1) <= max_keys)) {
		struct update_buf undo = b;

		rc = user_iter_next(it, &r);
		if (rc != 1)
			break;
		rc = add_user(c, &b, &r, first, target);
		if (rc == -ENOSPC) {
			b = undo;
			rc = 0;
			break;
		}
		memcpy(c->cursor, r.name, sizeof(c->cursor));
	}
	user_iter_close(it);
	sodium_memzero(&r, sizeof(r));
	if (rc < 0)
		return rc;

	/* The end is only seen by a step that adds nothing. */
	if (b.nops == 0) {
		rc = user_store_commit_keys(c->store, &c->head, &done);
		if (rc < 0)
			return rc;
		c->keys = done;
		c->rotating = false;
		return 0;
	}
	after.seq++;
	n = update_end(&b, c->sign, after.hash);
	if (n < 0)
		return n;
	rc = user_store_commit_keys(c->store, &after, NULL);
	if (rc < 0)
		return rc;
	c->head = after;
	log_append(c, &before, (size_t)n, b.nops, true);
	return b.nops;
}

bool chain_following(const struct chain *c, const struct update_head *head, struct chain_message *out)
{
	uint64_t behind = c->head.seq - head->seq;
	const struct entry *e;

	if (head->seq >= c->head.seq || behind > c->nlog)
		return false;
	e = &c->log[(c->log_at + CHAIN_LOG_COUNT_MAX - (unsigned)behind) % CHAIN_LOG_COUNT_MAX];
	if (e->before.seq != head->seq || memcmp(e->before.hash, head->hash, sizeof(head->hash)) != 0)
		return false;
	*out = (struct chain_message){.bytes = span_of(e->bytes, e->n), .after = e->after, .keys = e->keys, .bulk = e->bulk};
	return true;
}

long chain_heartbeat(struct chain *c, uint64_t unix_ms, uint8_t *buf, size_t cap)
{
	uint8_t hash[UPDATE_HEAD_BYTES];
	struct update_buf b;

	begin(c, &b, UPDATE_HEARTBEAT, unix_ms, buf, cap);
	return update_end(&b, c->sign, hash);
}

int chain_snapshot_open(struct chain *c, uint64_t unix_ms, struct chain_snapshot **out)
{
	struct chain_snapshot *s = calloc(1, sizeof(*s));
	uint64_t chunks;
	int rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	rc = user_iter_open(c->store, &s->it);
	if (rc < 0) {
		free(s);
		return rc;
	}
	s->c = c;
	/* All chunks carry the time at which the view was taken: changes that come after it are never older than the last chunk. */
	s->unix_ms = monotonic(c, unix_ms);
	user_iter_head(s->it, &s->head);
	chunks = (user_iter_count(s->it) + CHAIN_SNAPSHOT_USERS - 1) / CHAIN_SNAPSHOT_USERS;
	s->chunks = chunks != 0 ? (uint32_t)chunks : 1;
	*out = s;
	return 0;
}

long chain_snapshot_next(struct chain_snapshot *s, uint8_t *buf, size_t cap, uint32_t *keys)
{
	struct chain *c = s->c;
	uint32_t epoch = chain_epoch(c, s->unix_ms);
	struct update_msg m = {.type = UPDATE_SNAPSHOT,
			       .domain = span_str(c->domain),
			       .at = s->head,
			       .unix_ms = s->unix_ms,
			       .epoch = epoch,
			       .epoch_s = c->epoch_s,
			       .chunk = s->chunk,
			       .chunks = s->chunks};
	uint8_t hash[UPDATE_HEAD_BYTES];
	struct user_record r;
	struct update_buf b;
	int rc = 1;

	*keys = 0;
	if (s->chunk == s->chunks)
		return 0;
	update_begin(&b, buf, cap, &m);
	for (unsigned i = 0; i < CHAIN_SNAPSHOT_USERS && rc == 1; i++) {
		rc = user_iter_next(s->it, &r);
		if (rc == 1) {
			int added = add_user(c, &b, &r, epoch, last_epoch(c, epoch));

			if (added < 0)
				rc = added;
		}
	}
	sodium_memzero(&r, sizeof(r));
	if (rc < 0)
		return rc;
	*keys = b.nops;
	s->chunk++;
	return update_end(&b, c->sign, hash);
}

void chain_snapshot_head(const struct chain_snapshot *s, struct update_head *out)
{
	*out = s->head;
}

void chain_snapshot_close(struct chain_snapshot *s)
{
	if (s == NULL)
		return;
	user_iter_close(s->it);
	free(s);
}
