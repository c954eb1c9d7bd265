/* SPDX-License-Identifier: Apache-2.0 */
/** \file Telling the service manager that a daemon is ready (systemd's Type=notify; sd_notify(3) describes the protocol).
 *
 * Not libsystemd's own function: that one opens its socket at the moment of the message, when our daemons may not open any. */
#pragma once

/** Connects to $NOTIFY_SOCKET. Before privileges are given up. \return a descriptor, or -1 when nobody wants to know or it cannot be
 * reached. */
int wn_notify_open(void);

/** Says READY=1 and closes fd; does nothing for -1. Fits every seccomp set. */
void wn_notify_ready(int fd);
