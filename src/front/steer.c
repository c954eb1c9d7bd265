/* SPDX-License-Identifier: Apache-2.0 */
#include "front/steer.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "front/bpf/steer.h"
#include "front/policy.h"
#include "steer.skel.h"

_Static_assert(2 * FRONT_WORKERS_MAX <= STEER_SOCKETS_MAX, "two sockets a worker");

struct front_steer {
	struct steer_bpf *skel;
	bool attached;
};

/* A front without the program serves all the same: why it cannot be loaded is told by errno alone. */
static int quiet(enum libbpf_print_level level, const char *format, va_list args)
{
	(void)level;
	(void)format;
	(void)args;
	return 0;
}

int front_steer_new(unsigned workers, struct front_steer **out)
{
	struct front_steer *s = calloc(1, sizeof(*s));
	int r;

	if (s == NULL)
		return -ENOMEM;
	libbpf_set_print(quiet);
	s->skel = steer_bpf__open();
	r = s->skel == NULL ? -errno : 0;
	if (r == 0) {
		s->skel->rodata->steer_workers = workers;
		r = steer_bpf__load(s->skel);
	}
	if (r != 0)
		front_steer_free(s);
	else
		*out = s;
	return r;
}

void front_steer_free(struct front_steer *s)
{
	if (s == NULL)
		return;
	if (s->skel != NULL)
		steer_bpf__destroy(s->skel);
	free(s);
}

int front_steer_add(struct front_steer *s, unsigned worker, int first, int strangers)
{
	const int map = bpf_map__fd(s->skel->maps.steer_sockets), prog = bpf_program__fd(s->skel->progs.front_steer);
	const int fd[2] = {[STEER_FIRST] = first, [STEER_STRANGERS] = strangers};

	for (uint32_t i = 0; i < 2; i++) {
		uint32_t key = 2 * worker + i;
		uint64_t value = (uint64_t)fd[i];

		if (bpf_map_update_elem(map, &key, &value, BPF_ANY) != 0)
			return -errno;
	}
	if (!s->attached && setsockopt(first, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, &prog, sizeof(prog)) != 0)
		return -errno;
	s->attached = true;
	return 0;
}
