/* SPDX-License-Identifier: Apache-2.0 */
#include "front/tls.h"

#include <errno.h>
#include <limits.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/config.h"

#define TICKET_KEY_MS 3600000u
#define PEM_MAX       32768
#define FRAGMENT      4096 /* a connection's write buffer is that large while it is in use */

struct ticket_key {
	uint8_t name[16], cipher[32], mac[32];
	uint64_t made_ms; /* 0: none */
};

struct front_tls {
	SSL_CTX *ctx;
	BIO_METHOD *bio;
	EVP_CIPHER *aes;
	pthread_mutex_t lock;
	struct ticket_key now, before;
};

static int complain(const char *file, int rc, const char *why)
{
	fprintf(stderr, "%s: %s\n", file, why);
	return rc;
}

/* The library's own socket BIO has no way to say MSG_NOSIGNAL, nor to count. */
static int io_read(BIO *b, char *buf, int n)
{
	struct front_tls_io *io = BIO_get_data(b);
	ssize_t k;

	BIO_clear_retry_flags(b);
	if (io->left == 0)
		return -1;
	if ((uint32_t)n > io->left)
		n = (int)io->left;
	k = recv(io->fd, buf, (size_t)n, MSG_DONTWAIT);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_read(b);
	if (k > 0 && io->left != UINT32_MAX)
		io->left -= (uint32_t)k;
	return (int)k;
}

static int io_write(BIO *b, const char *p, int n)
{
	struct front_tls_io *io = BIO_get_data(b);
	ssize_t k;

	BIO_clear_retry_flags(b);
	k = send(io->fd, p, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (k < 0 && (errno == EAGAIN || errno == EINTR))
		BIO_set_retry_write(b);
	return (int)k;
}

static long io_ctrl(BIO *b, int cmd, long num, void *p)
{
	(void)b;
	(void)num;
	(void)p;
	return cmd == BIO_CTRL_FLUSH;
}

static BIO_METHOD *make_bio(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "front");

	if (m == NULL || BIO_meth_set_read(m, io_read) != 1 || BIO_meth_set_write(m, io_write) != 1 || BIO_meth_set_ctrl(m, io_ctrl) != 1) {
		BIO_meth_free(m);
		return NULL;
	}
	return m;
}

static int renew(struct front_tls *t, uint64_t now_ms)
{
	struct ticket_key k = {.made_ms = now_ms};

	if (RAND_bytes(k.name, sizeof(k.name)) != 1 || RAND_bytes(k.cipher, sizeof(k.cipher)) != 1 || RAND_bytes(k.mac, sizeof(k.mac)) != 1)
		return -EIO;
	t->before = t->now;
	t->now = k;
	OPENSSL_cleanse(&k, sizeof(k));
	return 0;
}

/* The key that seals, or that which opens `name`; false: none. */
static bool ticket_key(struct front_tls *t, const uint8_t *name, struct ticket_key *out)
{
	const uint64_t now_ms = wn_now_ms();
	bool found = true;

	pthread_mutex_lock(&t->lock);
	if (now_ms - t->now.made_ms >= TICKET_KEY_MS && renew(t, now_ms) != 0)
		found = false;
	if (found && (name == NULL || memcmp(name, t->now.name, sizeof(t->now.name)) == 0))
		*out = t->now;
	else if (found && now_ms - t->now.made_ms < TICKET_KEY_MS && memcmp(name, t->before.name, sizeof(t->before.name)) == 0)
		*out = t->before;
	else
		found = false;
	pthread_mutex_unlock(&t->lock);
	return found && out->made_ms != 0;
}

static int on_ticket(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int seal)
{
	struct front_tls *t = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	struct ticket_key k;
	OSSL_PARAM param[3];
	int r = -1;

	if (!ticket_key(t, seal ? NULL : name, &k))
		return 0;
	param[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, k.mac, sizeof(k.mac));
	param[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, (char *)"SHA256", 0);
	param[2] = OSSL_PARAM_construct_end();
	if (EVP_MAC_CTX_set_params(mac, param) != 1)
		goto out;
	if (seal) {
		memcpy(name, k.name, sizeof(k.name));
		if (RAND_bytes(iv, 16) != 1 || EVP_EncryptInit_ex2(cipher, t->aes, k.cipher, iv, NULL) != 1)
			goto out;
	} else if (EVP_DecryptInit_ex2(cipher, t->aes, k.cipher, iv, NULL) != 1) {
		goto out;
	}
	r = 1;
out:
	OPENSSL_cleanse(&k, sizeof(k));
	return r;
}

static int no_passphrase(char *buf, int n, int writing, void *arg)
{
	(void)buf;
	(void)n;
	(void)writing;
	(void)arg;
	return -1; /* the library's default asks on the terminal */
}

static int use_key(SSL_CTX *ctx, const char *file)
{
	char pem[PEM_MAX];
	ssize_t n = wn_secret_read(file, pem, sizeof(pem));
	EVP_PKEY *key = NULL;
	BIO *bio;
	int r = 0;

	if (n < 0)
		return (int)n;
	bio = BIO_new_mem_buf(pem, (int)n);
	if (bio != NULL)
		key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	OPENSSL_cleanse(pem, sizeof(pem));
	if (key == NULL)
		r = complain(file, -EINVAL, "holds no private key in PEM without a passphrase");
	else if (SSL_CTX_use_PrivateKey(ctx, key) != 1)
		r = complain(file, -EINVAL, "is not the key of tls_certificate, or of a kind that TLS cannot use");
	EVP_PKEY_free(key);
	return r;
}

static SSL_CTX *make_ctx(struct front_tls *t)
{
	SSL_CTX *c = SSL_CTX_new(TLS_server_method());

	if (c == NULL)
		return NULL;
	SSL_CTX_set_app_data(c, t);
	SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(c,
			    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
	SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	SSL_CTX_set_verify(c, SSL_VERIFY_NONE, NULL);
	SSL_CTX_set_timeout(c, TICKET_KEY_MS / 1000);
	if (SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) != 1 || SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_cipher_list(c, "ECDHE+AESGCM:ECDHE+CHACHA20") != 1 || SSL_CTX_set_max_send_fragment(c, FRAGMENT) != 1 ||
	    SSL_CTX_set_num_tickets(c, 1) != 1 || SSL_CTX_set_session_id_context(c, (const unsigned char *)"walnut", 6) != 1 ||
	    SSL_CTX_set_tlsext_ticket_key_evp_cb(c, on_ticket) != 1) {
		SSL_CTX_free(c);
		return NULL;
	}
	return c;
}

int front_tls_new(const char *certificate, const char *key, struct front_tls **out)
{
	struct front_tls *t = calloc(1, sizeof(*t));
	int r = -ENOMEM;

	if (t == NULL)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->bio = make_bio();
	t->aes = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
	t->ctx = make_ctx(t);
	if (t->bio == NULL || t->aes == NULL || t->ctx == NULL)
		goto out;
	r = 0;
	if (SSL_CTX_use_certificate_chain_file(t->ctx, certificate) != 1)
		r = complain(certificate, -EINVAL, "holds no certificate in PEM, or cannot be read");
	if (r == 0)
		r = use_key(t->ctx, key);
	if (r == 0 && SSL_CTX_check_private_key(t->ctx) != 1)
		r = complain(key, -EINVAL, "is not the key of tls_certificate");
	if (r == 0)
		r = renew(t, wn_now_ms());
out:
	ERR_clear_error();
	if (r != 0)
		front_tls_free(t);
	else
		*out = t;
	return r;
}

void front_tls_free(struct front_tls *t)
{
	if (t == NULL)
		return;
	SSL_CTX_free(t->ctx);
	EVP_CIPHER_free(t->aes);
	BIO_meth_free(t->bio);
	pthread_mutex_destroy(&t->lock);
	OPENSSL_cleanse(t, sizeof(*t));
	free(t);
}

struct ssl_st *front_tls_open(struct front_tls *t, struct front_tls_io *io)
{
	SSL *ssl = SSL_new(t->ctx);
	BIO *b = BIO_new(t->bio);

	if (ssl == NULL || b == NULL) {
		SSL_free(ssl);
		BIO_free(b);
		ERR_clear_error();
		return NULL;
	}
	BIO_set_data(b, io);
	BIO_set_init(b, 1);
	io->left = FRONT_TLS_HELLO_MAX;
	SSL_set_bio(ssl, b, b);
	SSL_set_accept_state(ssl);
	return ssl;
}

void front_tls_close(struct ssl_st *ssl, bool polite)
{
	if (polite)
		(void)SSL_shutdown(ssl);
	ERR_clear_error();
	SSL_free(ssl);
}

int front_tls_handshake(struct ssl_st *ssl, struct front_tls_io *io)
{
	int r = SSL_do_handshake(ssl), e;

	if (r == 1) {
		io->left = UINT32_MAX;
		return 1;
	}
	e = SSL_get_error(ssl, r);
	ERR_clear_error();
	if (io->left == 0)
		return -EMSGSIZE;
	return e == SSL_ERROR_WANT_READ ? -EAGAIN : e == SSL_ERROR_WANT_WRITE ? -ENOBUFS : -EPROTO;
}

ssize_t front_tls_read(struct ssl_st *ssl, void *buf, size_t cap)
{
	int n = SSL_read(ssl, buf, cap > INT_MAX ? INT_MAX : (int)cap), e;

	if (n > 0)
		return n;
	e = SSL_get_error(ssl, n);
	ERR_clear_error();
	switch (e) {
	case SSL_ERROR_WANT_READ:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
	case SSL_ERROR_SYSCALL:
		return 0;
	default:
		return -EPROTO;
	}
}

ssize_t front_tls_write(struct ssl_st *ssl, const void *p, size_t n)
{
	int k = SSL_write(ssl, p, (int)n), e;

	if (k > 0)
		return k;
	e = SSL_get_error(ssl, k);
	ERR_clear_error();
	return e == SSL_ERROR_WANT_WRITE ? -EAGAIN : -EPIPE;
}
