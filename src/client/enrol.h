/* SPDX-License-Identifier: Apache-2.0 */
/** \file Enrolments: what a person's machine knows about one domain. Made by `walnut user add`, taken in by `walnut join`, kept as
 * DOMAIN.json (0600) in $WALNUT_HOME or ~/.config/walnut. Start-up only, any one thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/addr.h"
#include "base/span.h"

#define ENROL_PREFIX      "walnut1:"
#define ENROL_USER_MAX    63
#define ENROL_DOMAIN_MAX  253
#define ENROL_SECRET_MAX  128 /* characters */
#define ENROL_SECRET_MIN  16  /* bytes behind the base64url: 128 bits */
#define ENROL_FRONTS_MAX  8
#define ENROL_JSON_MAX    4096
#define ENROL_LINE_MAX    (sizeof(ENROL_PREFIX) + ENROL_JSON_MAX * 4 / 3 + 4)
#define ENROL_DOMAINS_MAX 64
#define ENROL_SERVICE_MAX 63
#define ENROL_EPOCH_S_MAX (366u * 86400u)
#define ENROL_WHY_MAX     160

struct enrol {
	char user[ENROL_USER_MAX + 1];
	char domain[ENROL_DOMAIN_MAX + 1]; /* lower case */
	char secret[ENROL_SECRET_MAX + 1];
	struct wn_addr fronts[ENROL_FRONTS_MAX];
	unsigned nfronts;
	uint32_t epoch_s; /* 0: rotation is off */
};

/** All enrolments of this machine. */
struct enrol_set {
	struct enrol *at;
	unsigned n;
};

/** The JSON object {"user","domain","secret","fronts":["ip:port",…],"epoch_s"}: strict, unknown keys are refused, epoch_s may be left out
 * (86400). On failure `why` says what is wrong, never quoting the secret. \return 0 or -EINVAL. */
int enrol_parse_json(struct span json, struct enrol *out, char why[static ENROL_WHY_MAX]);
/** The line "walnut1:BASE64URL"; blanks around it are ignored. \return 0 or -EINVAL with `why`. */
int enrol_parse_line(struct span line, struct enrol *out, char why[static ENROL_WHY_MAX]);
/** JSON with a final newline, as it is stored. \return length or -ENOSPC. */
long enrol_format_json(const struct enrol *e, char *out, size_t cap);
/** The line, without a newline. \return length (a NUL follows) or -ENOSPC. */
long enrol_format_line(const struct enrol *e, char *out, size_t cap);

/** The folder: $WALNUT_HOME, else $XDG_CONFIG_HOME/walnut, else ~/.config/walnut. \return 0, -ENOENT without a home, -ENAMETOOLONG. */
int enrol_dir(char *out, size_t cap);
/** Writes DIR/DOMAIN.json atomically, 0600, making the folder (0700) where it is missing; replaces an older one. `path` gets the file's
 * name. \return 0 or negative errno, with a line on stderr. */
int enrol_store(const struct enrol *e, char *path, size_t cap);

/** Loads one file (owned by this user, readable by nobody else). \return 0 or negative errno, with one line on stderr that names the file.
 */
int enrol_load(const char *file, struct enrol *out);
/** Loads `file`, or every DOMAIN.json of the folder when file == NULL. An unfit file fails the whole. Free with enrol_set_free.
 * \return 0 or negative errno with a line on stderr; -ENOENT: there is none. */
int enrol_load_all(const char *file, struct enrol_set *out);
void enrol_set_free(struct enrol_set *s); /* wipes the secrets */

/** Splits "SERVICE.DOMAIN" by the enrolled domains (the longest that fits; case-insensitive; a final dot is ignored). A bare SERVICE is
 * enough when exactly one domain is enrolled and `bare` is true. service is written in lower case.
 * \return the enrolment; NULL: not of an enrolled domain, or not a name (then service[0] == 0), with `why`. */
const struct enrol *enrol_find(const struct enrol_set *s, struct span name, bool bare, char service[static ENROL_SERVICE_MAX + 1],
			       char why[static ENROL_WHY_MAX]);
