/* SPDX-License-Identifier: Apache-2.0 */
/** \file Giving up privileges before the network is parsed. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/** Drops to `user` (all groups cleared; NULL: stays who it is), keeping only the capabilities in keep (bit mask of UINT64_C(1) << CAP_x;
 * 0 = none), sets no_new_privs and forbids core files. When not started as root it only clears capabilities. Before threads start, after
 * keys and sockets are open. \return 0 or negative errno: -ENOENT no such user, -EPERM a capability to keep is not ours to begin with. */
int wn_drop_privileges(const char *user, uint64_t keep);

enum wn_seccomp_set {
	WN_SECCOMP_NET,    /* sockets that exist or TCP/UDP/Unix ones, epoll, threads, files that are open already */
	WN_SECCOMP_STATE,  /* the same, and writing, syncing, cutting and renaming files that are open already (front's users) */
	WN_SECCOMP_FILES,  /* as NET, and opening files (agent's store) */
	WN_SECCOMP_WRITER, /* bpf(2), netlink, the socketpair: no listening, no connect, no open */
	WN_SECCOMP_READER, /* opening files to read them, what is open already, and nothing else: no socket */
};
/** Installs an allow-list filter for all threads, those that start later included; a call outside it ends the process (SIGSYS), naming the
 * call in the log where it can. Without FILES or READER, opening a file to read it fails with EACCES (libraries that look for an optional
 * file live on) and opening one to write ends the process. No new process, no executable memory. A build with a sanitizer installs nothing.
 * Needs wn_drop_privileges first. \return 0 or negative errno. */
int wn_seccomp(enum wn_seccomp_set set);
