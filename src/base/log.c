/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static char prefix[48];
static enum wn_log_level verbose = WN_LOG_INFO;
static bool journal;

/* systemd names the device and inode of the stream that journald reads; only that stream understands "<3>". */
static bool stderr_is_journal(void)
{
	const char *env = getenv("JOURNAL_STREAM");
	char mine[64];
	struct stat st;

	if (env == NULL || fstat(STDERR_FILENO, &st) != 0)
		return false;
	snprintf(mine, sizeof(mine), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
	return strcmp(mine, env) == 0;
}

static const char *level_word(enum wn_log_level level)
{
	switch (level) {
	case WN_LOG_ERR:
		return "error: ";
	case WN_LOG_WARN:
		return "warning: ";
	case WN_LOG_DEBUG:
		return "debug: ";
	case WN_LOG_INFO:
		break;
	}
	return "";
}

void wn_log_init(const char *program, enum wn_log_level most)
{
	snprintf(prefix, sizeof(prefix), "%s: ", program);
	verbose = most;
	journal = stderr_is_journal();
}

void wn_log(enum wn_log_level level, const char *fmt, ...)
{
	char line[LINE_MAX_BYTES];
	va_list ap;
	size_t n;
	int k;

	if (level > verbose)
		return;
	if (journal)
		k = snprintf(line, sizeof(line), "<%d>", (int)level);
	else
		k = snprintf(line, sizeof(line), "%s%s", prefix, level_word(level));
	n = (size_t)k;
	va_start(ap, fmt);
	k = vsnprintf(line + n, sizeof(line) - n, fmt, ap);
	va_end(ap);
	if (k < 0)
		return;
	n += (size_t)k;
	if (n > sizeof(line) - 1)
		n = sizeof(line) - 1;
	/* What a message quotes may come from the network: it must not be able to fake a second line or drive a terminal. */
	for (size_t i = 0; i < n; i++)
		if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
			line[i] = '?';
	line[n++] = '\n';
	/* One write a line, so that threads do not interleave; a log that cannot take it loses the line. */
	if (write(STDERR_FILENO, line, n) < 0)
		return;
}
