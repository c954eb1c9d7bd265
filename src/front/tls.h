/* SPDX-License-Identifier: Apache-2.0 */
/** \file TLS 1.2 and 1.3 towards callers: server only, the operator's certificate, no client certificates, no renegotiation, no
 * compression.
 *
 * Sessions resume by tickets, so nothing is kept for a client; the keys that seal them are drawn at random, live in memory only and are
 * replaced every hour (one hour more to open what they sealed). The CPU of a resumed handshake is the smaller part of a whole one's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FRONT_TLS_HELLO_MAX 16384u /* bytes that a stranger may send before the handshake is done */

struct front_tls;
struct ssl_st;

/** One per process; the workers share it. `key` must be 0600 (base/secret.c). Says on stderr what is wrong. \return 0 or negative errno. */
int front_tls_new(const char *certificate, const char *key, struct front_tls **out);
void front_tls_free(struct front_tls *t);

/** What a connection's TLS reads from and writes to. Must stay where it is while the connection lives. */
struct front_tls_io {
	int fd;
	uint32_t left; /* bytes that may still be read; UINT32_MAX: without end */
};

/** The server's end of a connection over io->fd, or NULL. Nothing is read yet. */
struct ssl_st *front_tls_open(struct front_tls *t, struct front_tls_io *io);
/** Says goodbye, if `polite` and there is room, and frees. The descriptor is the caller's. */
void front_tls_close(struct ssl_st *ssl, bool polite);

/** \return 1 done; -EAGAIN more bytes are wanted; -ENOBUFS the send buffer is full; -EPROTO failed; -EMSGSIZE too many bytes. */
int front_tls_handshake(struct ssl_st *ssl, struct front_tls_io *io);
/** \return bytes; 0 the peer has ended; -EAGAIN; -EPROTO. Give it 16 KiB: then nothing that has been decrypted stays behind. */
ssize_t front_tls_read(struct ssl_st *ssl, void *buf, size_t cap);
/** \return n (> 0), all of it; -EAGAIN: none, repeat it with the same bytes, more may follow them; -EPIPE. */
ssize_t front_tls_write(struct ssl_st *ssl, const void *p, size_t n);
