/* SPDX-License-Identifier: Apache-2.0 */
/** \file HKDF-SHA256 (RFC 5869), the one primitive under session_key.h. Only for src/ticket and its tests. */
#pragma once

#include <stdint.h>

#include "base/span.h"

/** Extract and expand: n bytes, at most 255 * 32. `info` may be as long as OpenSSL takes (1,024 bytes at the least).
 * \return 0, -EINVAL when OpenSSL refuses. Any thread. */
int hkdf_sha256(struct span ikm, struct span salt, struct span info, uint8_t *out, size_t n);
