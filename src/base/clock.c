/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <time.h>

static uint64_t read_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t wn_now_ns(void)
{
	return read_ns(CLOCK_BOOTTIME);
}

uint64_t wn_slept_ns(void)
{
	const uint64_t boot = read_ns(CLOCK_BOOTTIME), mono = read_ns(CLOCK_MONOTONIC);

	/* Whole milliseconds: the two are not read at one instant. */
	return boot > mono ? (boot - mono + 500000u) / 1000000u * 1000000u : 0;
}

uint64_t wn_now_ms(void)
{
	return wn_now_ns() / 1000000u;
}

uint64_t wn_monotonic_us(void)
{
	return read_ns(CLOCK_MONOTONIC) / 1000u;
}

uint64_t wn_unix_ms(void)
{
	return read_ns(CLOCK_REALTIME) / 1000000u;
}

uint64_t wn_unix_s(void)
{
	return read_ns(CLOCK_REALTIME) / 1000000000u;
}
