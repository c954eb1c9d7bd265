/* SPDX-License-Identifier: Apache-2.0 */
/** \file Telling the service manager how a daemon is (systemd's Type=notify; sd_notify(3) describes the protocol).
 *
 * Not libsystemd's own functions: they open their socket at the moment of the message, when our daemons may not open any. */
#pragma once

#include <stdint.h>

enum wn_notify_state {
	WN_NOTIFY_READY,     /* serving; also the end of a reload */
	WN_NOTIFY_RELOADING, /* a reload begins */
	WN_NOTIFY_STOPPING,  /* ending in order, which may take a while */
	WN_NOTIFY_WATCHDOG,  /* still alive */
};

/** Connects to $NOTIFY_SOCKET. Before privileges are given up. \return a descriptor, or -1 when nobody wants to know or it cannot be
 * reached. */
int wn_notify_open(void);
/** How long the manager waits for WN_NOTIFY_WATCHDOG before it takes this process for hung, in microseconds; 0: it does not watch. From the
 * environment, as wn_notify_open. */
uint64_t wn_notify_watchdog_us(void);

/** Does nothing for -1. Waits for a second at most, WN_NOTIFY_WATCHDOG not at all: then the word is lost. Fits every seccomp set. */
void wn_notify(int fd, enum wn_notify_state state);
/** Says WN_NOTIFY_READY and closes fd, for who has nothing more to say; does nothing for -1. */
void wn_notify_ready(int fd);
