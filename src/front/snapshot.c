/* SPDX-License-Identifier: Apache-2.0 */
#include "front/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <pwd.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "front/snapshot_files.h"

#define WAITING_BYTES_MAX (8u << 20) /* of a tenant's messages that the disk has not taken yet */
#define SYNC_MS           1000u

/* A message on its way to the disk, the length of its record in front. */
struct waiting {
	struct waiting *next;
	unsigned tenant;
	size_t n;
	char bytes[];
};

/* What of a tenant waits for the writer. */
struct waiting_room {
	size_t bytes;
	bool lost; /* there was no room for a message: what came after it may not follow either */
};

struct tenant {
	struct snapshot_files files;
	bool lost; /* the writer's copy of its waiting room's */
};

struct front_snapshots {
	int dir;
	char path[256];
	unsigned ntenants;
	struct tenant *tenant; /* the writer's, once it runs */
	pthread_t thread;
	bool running;
	/* under the lock */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct waiting *first, **last;
	struct waiting_room *room;
	bool end;
};

/* A message that was lost makes the file end before it, whatever came after. */
static void note_lost(struct front_snapshots *s)
{
	for (unsigned i = 0; i < s->ntenants; i++) {
		if (s->tenant[i].lost)
			snapshot_files_lost(&s->tenant[i].files);
		s->tenant[i].lost = false;
	}
}

static void sync_all(struct front_snapshots *s)
{
	for (unsigned i = 0; i < s->ntenants; i++)
		snapshot_files_sync(&s->tenant[i].files);
}

static bool any_dirty(const struct front_snapshots *s)
{
	bool dirty = false;

	for (unsigned i = 0; i < s->ntenants; i++)
		dirty = dirty || s->tenant[i].files.dirty;
	return dirty;
}

static void wait_ms(struct front_snapshots *s, uint64_t ms)
{
	uint64_t ns = wn_now_ns() - wn_slept_ns() + ms * 1000000; /* what CLOCK_MONOTONIC says */
	struct timespec t = {.tv_sec = (time_t)(ns / 1000000000), .tv_nsec = (long)(ns % 1000000000)};

	pthread_cond_timedwait(&s->more, &s->lock, &t);
}

/* Waits for messages, for the time to sync, or for the end. \return all that wait. */
static struct waiting *collect(struct front_snapshots *s, uint64_t sync_at_ms, bool *end)
{
	struct waiting *w;

	pthread_mutex_lock(&s->lock);
	while (s->first == NULL && !s->end) {
		uint64_t now = wn_now_ms();

		if (!any_dirty(s))
			pthread_cond_wait(&s->more, &s->lock);
		else if (now < sync_at_ms)
			wait_ms(s, sync_at_ms - now);
		else
			break;
	}
	w = s->first;
	s->first = NULL;
	s->last = &s->first;
	for (unsigned i = 0; i < s->ntenants; i++) {
		/* What was lost belongs behind what is taken here, and before anything that comes later. */
		s->tenant[i].lost = s->room[i].lost;
		s->room[i] = (struct waiting_room){0};
	}
	*end = s->end;
	pthread_mutex_unlock(&s->lock);
	return w;
}

static void *run(void *arg)
{
	struct front_snapshots *s = arg;
	uint64_t sync_at_ms = 0;
	bool end = false;

	while (!end) {
		struct waiting *w = collect(s, sync_at_ms, &end);

		while (w != NULL) {
			struct waiting *next = w->next;

			snapshot_files_write(&s->tenant[w->tenant].files, span_of(w->bytes, w->n));
			sodium_memzero(w->bytes, w->n);
			free(w);
			w = next;
		}
		note_lost(s);
		if (end || wn_now_ms() >= sync_at_ms) {
			sync_all(s);
			sync_at_ms = wn_now_ms() + SYNC_MS;
		}
	}
	return NULL;
}

void front_snapshots_take(struct front_snapshots *s, unsigned tenant, struct span msg)
{
	struct waiting_room *room = &s->room[tenant];
	size_t n = USER_FILE_LENGTH + msg.n;
	struct waiting *w = malloc(sizeof(*w) + n);

	if (w != NULL) {
		w->next = NULL;
		w->tenant = tenant;
		w->n = n;
		user_file_length(msg.n, (uint8_t *)w->bytes);
		memcpy(w->bytes + USER_FILE_LENGTH, msg.p, msg.n);
	}
	pthread_mutex_lock(&s->lock);
	room->lost = room->lost || w == NULL || room->bytes + n > WAITING_BYTES_MAX;
	if (!room->lost) {
		*s->last = w;
		s->last = &w->next;
		room->bytes += n;
		w = NULL;
	}
	pthread_cond_signal(&s->more);
	pthread_mutex_unlock(&s->lock);
	if (w != NULL)
		sodium_memzero(w->bytes, w->n);
	free(w);
}

uint64_t front_snapshots_seq(const struct front_snapshots *s, unsigned tenant)
{
	return atomic_load_explicit(&s->tenant[tenant].files.seq, memory_order_acquire);
}

static int find_owner(const char *user, uid_t *uid, gid_t *gid)
{
	struct passwd pw, *found = NULL;
	char buf[4096];
	int rc;

	*uid = geteuid();
	*gid = getegid();
	if (*uid != 0 || user == NULL)
		return 0;
	rc = getpwnam_r(user, &pw, buf, sizeof(buf), &found);
	if (rc != 0 || found == NULL)
		return rc != 0 ? -rc : -ENOENT;
	*uid = pw.pw_uid;
	*gid = pw.pw_gid;
	return 0;
}

/* The folder, made if it is missing, and locked. \return a descriptor or negative errno. */
static int open_dir(const char *dir, const char *user)
{
	struct stat st;
	uid_t uid;
	gid_t gid;
	int fd, rc = find_owner(user, &uid, &gid);
	bool made;

	if (rc < 0) {
		wn_err("%s: there is no user %s to whom it could belong", dir, user);
		return rc;
	}
	made = mkdir(dir, 0700) == 0;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || (made && fchown(fd, uid, gid) != 0) || fstat(fd, &st) != 0) {
		rc = -errno;
		wn_err("%s: the folder for users cannot be opened: %s", dir, strerror(-rc));
	} else {
		rc = snapshot_check_owner(dir, "", &st, uid, 0700);
	}
	if (rc == 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
		rc = -errno;
		wn_err("%s: another process keeps its users there; each front needs a folder of its own", dir);
	}
	if (rc < 0 && fd >= 0)
		close(fd);
	return rc < 0 ? rc : fd;
}

int front_snapshots_open(const char *dir, const char *user, unsigned ntenants, struct front_snapshots **out)
{
	struct front_snapshots *s = calloc(1, sizeof(*s));
	pthread_condattr_t monotonic;
	int rc = -ENOMEM;

	*out = NULL;
	if (s == NULL)
		return rc;
	s->dir = -1;
	s->ntenants = ntenants;
	s->tenant = calloc(ntenants, sizeof(*s->tenant));
	s->room = calloc(ntenants, sizeof(*s->room));
	s->last = &s->first;
	snprintf(s->path, sizeof(s->path), "%s", dir);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&s->more, &monotonic);
	pthread_condattr_destroy(&monotonic);
	for (unsigned i = 0; s->tenant != NULL && i < ntenants; i++)
		s->tenant[i].files.kept.fd = s->tenant[i].files.spare.fd = -1;
	if (s->tenant == NULL || s->room == NULL)
		goto fail;
	rc = open_dir(dir, user);
	if (rc < 0)
		goto fail;
	s->dir = rc;
	*out = s;
	return 0;
fail:
	front_snapshots_close(s);
	return rc;
}

int front_snapshots_load(struct front_snapshots *s, unsigned tenant, const char *domain, const uint8_t pk[static UPDATE_SIGN_PUBLIC],
			 struct user_table *users)
{
	return snapshot_files_open(&s->tenant[tenant].files, s->dir, s->path, domain, pk, users);
}

int front_snapshots_start(struct front_snapshots *s)
{
	int rc = pthread_create(&s->thread, NULL, run, s);

	s->running = rc == 0;
	return -rc;
}

void front_snapshots_close(struct front_snapshots *s)
{
	if (s == NULL)
		return;
	if (s->running) {
		pthread_mutex_lock(&s->lock);
		s->end = true;
		pthread_cond_signal(&s->more);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->thread, NULL);
	}
	for (unsigned i = 0; s->tenant != NULL && i < s->ntenants; i++)
		snapshot_files_close(&s->tenant[i].files);
	if (s->dir >= 0)
		close(s->dir);
	pthread_cond_destroy(&s->more);
	pthread_mutex_destroy(&s->lock);
	free(s->tenant);
	free(s->room);
	free(s);
}
