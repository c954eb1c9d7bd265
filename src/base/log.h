/* SPDX-License-Identifier: Apache-2.0 */
/** \file Logging to stderr; under systemd with the priority prefix that journald reads. Never pass a secret. */
#pragma once

enum wn_log_level { WN_LOG_ERR = 3, WN_LOG_WARN = 4, WN_LOG_INFO = 6, WN_LOG_DEBUG = 7 };

/** Sets the program's name in front of each line and the most verbose level that is printed. Call once, before threads. */
void wn_log_init(const char *program, enum wn_log_level most);

__attribute__((format(printf, 2, 3))) void wn_log(enum wn_log_level level, const char *fmt, ...);

#define wn_err(...)   wn_log(WN_LOG_ERR, __VA_ARGS__)
#define wn_warn(...)  wn_log(WN_LOG_WARN, __VA_ARGS__)
#define wn_info(...)  wn_log(WN_LOG_INFO, __VA_ARGS__)
#define wn_debug(...) wn_log(WN_LOG_DEBUG, __VA_ARGS__)
