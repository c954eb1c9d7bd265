/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/** \file What the steering program and user space share. */
#pragma once

#define STEER_SOCKETS_MAX 128 /* two for each worker */
#define STEER_TEXT_MAX    1536

enum { STEER_FIRST = 0, STEER_STRANGERS = 1 };

/* "proxy-au" and "route" as little-endian words; 0x20 is set in every byte of what is compared with them. */
#define STEER_PROXY_AU 0x75612d79786f7270ull
#define STEER_ROUTE    0x6574756f72ull
