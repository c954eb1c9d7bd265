/* SPDX-License-Identifier: Apache-2.0 */
/** \file The only place that reads clocks. Pure code takes `now` instead. */
#pragma once

#include <stdint.h>

/** Milliseconds on CLOCK_BOOTTIME: never goes back, counts suspend; the same axis as the gate's packet path. */
uint64_t wn_now_ms(void);
uint64_t wn_now_ns(void);
/** Nanoseconds by which CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: what was suspended. */
uint64_t wn_slept_ns(void);
/** Microseconds on CLOCK_MONOTONIC: for programs that ask for that clock. */
uint64_t wn_monotonic_us(void);
/** Seconds since the Unix epoch, for what must mean the same on two machines (epochs, expiry in tokens). */
uint64_t wn_unix_s(void);
uint64_t wn_unix_ms(void);
