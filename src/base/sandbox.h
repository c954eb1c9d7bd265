/* SPDX-License-Identifier: Apache-2.0 */
/** \file Giving up privileges before the network is parsed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** Drops to `user` (its groups cleared), keeping only the capabilities in keep (bit mask of 1 << CAP_x; 0 = none), and sets
 * no_new_privs. When not started as root it only clears capabilities. \return 0 or negative errno. */
int wn_drop_privileges(const char *user, uint64_t keep);

enum wn_seccomp_set {
	WN_SECCOMP_NET,    /* sockets that exist or TCP/UDP/Unix ones, epoll, threads, files that are open already */
	WN_SECCOMP_FILES,  /* the same, and opening files (agent's store) */
	WN_SECCOMP_WRITER, /* bpf(2), netlink, the socketpair: no listening, no connect, no open */
};
/** Installs an allow-list filter for all threads; a call outside it ends the process (SIGSYS), naming the call in the log where it can. */
int wn_seccomp(enum wn_seccomp_set set);
