/* SPDX-License-Identifier: Apache-2.0 */
/** \file Shared by the two files of this folder only. */
#pragma once

#include <openssl/ssl.h>

#include "peer/peer.h"

struct peer_identity {
	SSL_CTX *tls; /* either side's: certificate and key, TLS 1.3 only, no resumption; the verify callback is peer.c's */
	struct peer_pin pin;
};

/** SHA-256 over the certificate's SubjectPublicKeyInfo. \return 0 or -EINVAL. */
int peer_pin_of(const X509 *cert, struct peer_pin *out);
