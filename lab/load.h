/* SPDX-License-Identifier: Apache-2.0 */
/** \file The load generator's modes. Each returns an exit status and prints one JSON object. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "labnet.h"

#define LOAD_TARGETS 8

struct load_options {
	const char *dev, *file, *domain, *user, *service;
	uint32_t to[LOAD_TARGETS], from;
	uint16_t port[LOAD_TARGETS], from_port; /* port 0: random ones */
	unsigned nto;
	uint64_t rate, count; /* a second and target; per target */
	unsigned seconds, size, epoch_s;
	unsigned tcp, udp; /* ports to scan */
	uint16_t also[64]; /* UDP ports that the scan includes */
	unsigned nalso;
	unsigned spoof;   /* per cent of the packets with random sources */
	const char *only; /* one kind or variant */
};

int load_udp(const struct load_options *o);
int load_sip(const struct load_options *o);
int load_replay(const struct load_options *o);
int load_scan(const struct load_options *o);
int load_garbage(const struct load_options *o);
