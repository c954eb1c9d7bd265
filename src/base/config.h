/* SPDX-License-Identifier: Apache-2.0 */
/** \file Strict YAML configuration files through libcyaml. */
#pragma once

#include <cyaml/cyaml.h>
#include <stddef.h>
#include <sys/types.h>

/**
 * Loads `file` by `schema` (the top level is a mapping). Unknown keys, wrong types and missing keys fail.
 * On failure one line goes to stderr, "FILE:LINE: KEY: what is wrong and what would be right", and the return is -EINVAL
 * (-ENOENT and so on when the file cannot be read, with a line too). Free *out with wn_config_free. Start-up only.
 */
int wn_config_load(const char *file, const cyaml_schema_value_t *schema, void **out);
void wn_config_free(const cyaml_schema_value_t *schema, void *data);

/** The two halves of wn_config_load, for a process that may not open the file: the text, which the caller frees … */
int wn_config_read(const char *file, char **text, size_t *n);
/** … and what it says; `file` stands in errors alone. Reads no file, so it may be called at any time. */
int wn_config_load_text(const char *file, const char *text, size_t n, const cyaml_schema_value_t *schema, void **out);

/** Prints "FILE:LINE: KEY: message" for a value that the schema accepts and the program does not. `key` is a dotted path such as
 * "fronts[1].address"; the line is looked up in the file by that path (its nearest
 * parent's when it is not there, 0 when the file has gone). Always returns -EINVAL. */
__attribute__((format(printf, 3, 4))) int wn_config_bad(const char *file, const char *key, const char *fmt, ...);

/** Whether the file's top level has `key`. \return 1, 0, or negative errno (with a line on stderr when the file cannot be read or parsed).
 */
int wn_config_has(const char *file, const char *key);

/** Reads a secret file into buf: refuses (one line on stderr, -EPERM) one that group or others may read, or that another user owns.
 * \return bytes read, or negative errno with a line on stderr that names the file and the mend. */
ssize_t wn_secret_read(const char *file, void *buf, size_t cap);

/** From now on wn_secret_read's line begins with "CONFIG:LINE: KEY: ", the place in a configuration file that led to the secret: a daemon
 * calls this when it has loaded its file. `config` must live on. NULL: no longer. Start-up only. */
void wn_secret_named_by(const char *config, const char *key);

/** Creates a secret file 0600, O_EXCL, and fsyncs it. \return 0 or negative errno (-EEXIST when it is there already). */
int wn_secret_write(const char *file, const void *buf, size_t n);
