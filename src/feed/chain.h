/* SPDX-License-Identifier: Apache-2.0 */
/** \file The publisher's side of the feed: the chain of signed changes over the store, a log of the last ones for fronts that are a little
 * behind, and snapshots for those that are further. No I/O but the store's, no clock: takes the time. One thread.
 *
 * Keys go out for the current epoch and the next. At the beginning of an epoch the keys of the one that follows are appended to the chain
 * in batches (chain_rotate), and how far this has come is kept with the head, so that a restart begins again what was not finished.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/span.h"
#include "sip/digest.h"
#include "userdb/store.h"

#define CHAIN_LOG_BYTES_MAX  (8u << 20)
#define CHAIN_LOG_COUNT_MAX  4096u
#define CHAIN_SNAPSHOT_USERS 250u /* users in a chunk: the longest name with two epochs of both keys still fits */

struct chain;

/** store, sign (the tenant's secret key) must outlive it. \return 0 or negative errno with a line in the log. */
int chain_new(struct user_store *store, const char *domain, uint32_t epoch_s, const uint8_t *sign, struct chain **out);
void chain_free(struct chain *c);

void chain_head(const struct chain *c, struct update_head *out);
/** Of that time; 0 with rotation off. */
uint32_t chain_epoch(const struct chain *c, uint64_t unix_ms);

/** Makes the change durable together with its number, then logs its message. \return 0, -EEXIST, -ENOENT, -EINVAL, -ENOSPC, … */
int chain_add(struct chain *c, uint64_t unix_ms, const struct user_record *r);
int chain_del(struct chain *c, uint64_t unix_ms, const char *name);

/** Whether users lack keys of the current or the next epoch in the chain. */
bool chain_rotation_due(struct chain *c, uint64_t unix_ms);
/** Appends keys of up to `max_keys` (at least one user's). \return keys appended (0: nothing was due, or that was the end), or negative
 * errno. */
long chain_rotate(struct chain *c, uint64_t unix_ms, uint32_t max_keys);

struct chain_message {
	struct span bytes; /* valid until the next change */
	struct update_head after;
	uint32_t keys;
	bool bulk; /* of a rotation: may wait for its share of the rate */
};
/** The logged change that follows `head`. False: none is kept, or it is not of this chain. */
bool chain_following(const struct chain *c, const struct update_head *head, struct chain_message *out);

/** Signs a heartbeat into buf. \return its length, or negative errno. */
long chain_heartbeat(struct chain *c, uint64_t unix_ms, uint8_t *buf, size_t cap);

/** A snapshot being sent; holds a view of the store. */
struct chain_snapshot;
int chain_snapshot_open(struct chain *c, uint64_t unix_ms, struct chain_snapshot **out);
/** The next chunk into buf (UPDATE_BYTES_MAX). \return its length, 0 after the last, negative errno. *keys: how many it has. */
long chain_snapshot_next(struct chain_snapshot *s, uint8_t *buf, size_t cap, uint32_t *keys);
/** What a front holds when it has taken all chunks. */
void chain_snapshot_head(const struct chain_snapshot *s, struct update_head *out);
void chain_snapshot_close(struct chain_snapshot *s);
