/* SPDX-License-Identifier: Apache-2.0 */
/** \file A checker of Prometheus' text format 0.0.4, as strict as what reads it. */
#pragma once

#include <stddef.h>

/** Fails the test where the text breaks a rule: names, labels, values; HELP and TYPE once and before the samples, which stand together; no
 * sample twice; counters in _total and not negative; histograms with rising bounds, cumulative counts, +Inf equal to _count, and a _sum. */
void prometheus_check(const char *text, size_t n);
/** The value of the sample that is written exactly so, name and labels; fails the test without one. */
double prometheus_value(const char *text, const char *sample);
