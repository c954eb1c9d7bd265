/* SPDX-License-Identifier: Apache-2.0 */
/** \file The only place that reads clocks. Pure code takes `now` instead. */
#pragma once

#include <stdint.h>

/** Milliseconds on CLOCK_BOOTTIME: never goes back, counts suspend; the same axis as bpf_ktime_get_boot_ns. */
uint64_t wn_now_ms(void);
uint64_t wn_now_ns(void);
/** Seconds since the Unix epoch, for what must mean the same on two machines (epochs, expiry in tokens). */
uint64_t wn_unix_s(void);
uint64_t wn_unix_ms(void);
