/* SPDX-License-Identifier: Apache-2.0 */
/** \file base64url (RFC 4648 section 5) without padding, and lower-case hex. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "base/span.h"

#define B64URL_LEN(n) (((n)*4 + 2) / 3)

/** Writes B64URL_LEN(n) characters, no NUL. Returns that count. */
size_t b64url_encode(const uint8_t *in, size_t n, char *out);

/** Strict: no padding, no other characters, zero trailing bits. \return bytes written, -EINVAL, -ENOSPC. */
long b64url_decode(struct span in, uint8_t *out, size_t cap);

void hex_encode(const uint8_t *in, size_t n, char *out); /* 2n characters, no NUL */
int hex_decode(struct span in, uint8_t *out, size_t n);  /* exactly 2n digits, else -EINVAL */
