/* SPDX-License-Identifier: Apache-2.0 */
#include "peer/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/b64.h"
#include "base/config.h"

#define PIN_PREFIX     "sha256:"
#define PEM_MAX        4096
#define PATH_CAP       512
#define CERT_CHAIN_MAX 4096 /* a peer's certificate has about 350 bytes */

_Static_assert(sizeof(PIN_PREFIX) - 1 + B64URL_LEN(PEER_PIN_BYTES) + 1 <= PEER_PIN_STR, "a pin fits its text");

int peer_pin_parse(struct span s, struct peer_pin *out)
{
	const size_t k = sizeof(PIN_PREFIX) - 1;

	if (s.n != k + B64URL_LEN(PEER_PIN_BYTES) || memcmp(s.p, PIN_PREFIX, k) != 0)
		return -EINVAL;
	if (b64url_decode(span_of(s.p + k, s.n - k), out->sha256, PEER_PIN_BYTES) != PEER_PIN_BYTES)
		return -EINVAL;
	return 0;
}

const char *peer_pin_str(const struct peer_pin *p, char buf[static PEER_PIN_STR])
{
	const size_t k = sizeof(PIN_PREFIX) - 1;

	memcpy(buf, PIN_PREFIX, k);
	buf[k + b64url_encode(p->sha256, PEER_PIN_BYTES, buf + k)] = 0;
	return buf;
}

int peer_pin_of(const X509 *cert, struct peer_pin *out)
{
	unsigned char *der = NULL;
	int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
	int ok;

	if (n <= 0)
		return -EINVAL;
	ok = EVP_Digest(der, (size_t)n, out->sha256, NULL, EVP_sha256(), NULL);
	OPENSSL_free(der);
	return ok == 1 ? 0 : -EINVAL;
}

static int role_path(char buf[static PATH_CAP], const char *dir, const char *role, const char *suffix)
{
	int n = snprintf(buf, PATH_CAP, "%s/%s.%s", dir, role, suffix);

	return n > 0 && n < PATH_CAP ? 0 : -ENAMETOOLONG;
}

/* Nobody reads names or dates of these certificates: the pin decides. The end date is the one that RFC 5280 4.1.2.5 gives to "none". */
static X509 *self_signed(EVP_PKEY *key, const char *role)
{
	X509 *c = X509_new();
	X509_NAME *name = X509_NAME_new();
	uint64_t serial;
	bool ok;

	randombytes_buf(&serial, sizeof(serial));
	ok = c != NULL && name != NULL && X509_set_version(c, X509_VERSION_3) == 1 &&
	     ASN1_INTEGER_set_uint64(X509_get_serialNumber(c), serial >> 1 | 1) == 1 &&
	     ASN1_TIME_set_string_X509(X509_getm_notBefore(c), "20240101000000Z") == 1 &&
	     ASN1_TIME_set_string_X509(X509_getm_notAfter(c), "99991231235959Z") == 1 &&
	     X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)role, -1, -1, 0) == 1 &&
	     X509_set_subject_name(c, name) == 1 && X509_set_issuer_name(c, name) == 1 && X509_set_pubkey(c, key) == 1 &&
	     X509_sign(c, key, NULL) > 0;
	X509_NAME_free(name);
	if (!ok) {
		X509_free(c);
		c = NULL;
	}
	return c;
}

static int write_public(const char *file, const void *p, size_t n)
{
	int fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, p, n) != (ssize_t)n || fsync(fd) != 0)
		rc = errno != 0 ? -errno : -EIO;
	close(fd);
	if (rc < 0)
		unlink(file);
	return rc;
}

int peer_identity_create(const char *dir, const char *role, struct peer_pin *pin)
{
	char key_path[PATH_CAP], crt_path[PATH_CAP];
	EVP_PKEY *key = NULL;
	X509 *crt = NULL;
	BIO *key_pem = BIO_new(BIO_s_secmem()), *crt_pem = BIO_new(BIO_s_mem());
	char *p;
	long n;
	int rc;

	rc = role_path(key_path, dir, role, "key");
	if (rc == 0)
		rc = role_path(crt_path, dir, role, "crt");
	if (rc < 0)
		goto out;
	if (access(crt_path, F_OK) == 0) {
		rc = -EEXIST;
		goto out;
	}
	rc = -EIO;
	key = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
	if (key == NULL || key_pem == NULL || crt_pem == NULL)
		goto out;
	crt = self_signed(key, role);
	if (crt == NULL || PEM_write_bio_PKCS8PrivateKey(key_pem, key, NULL, NULL, 0, NULL, NULL) != 1 ||
	    PEM_write_bio_X509(crt_pem, crt) != 1)
		goto out;
	rc = peer_pin_of(crt, pin);
	if (rc < 0)
		goto out;
	n = BIO_get_mem_data(key_pem, &p);
	rc = wn_secret_write(key_path, p, (size_t)n);
	if (rc < 0)
		goto out;
	n = BIO_get_mem_data(crt_pem, &p);
	rc = write_public(crt_path, p, (size_t)n);
	if (rc < 0)
		unlink(key_path);
out:
	X509_free(crt);
	EVP_PKEY_free(key);
	BIO_free(key_pem);
	BIO_free(crt_pem);
	return rc;
}

static int no_passphrase(char *buf, int n, int writing, void *arg)
{
	(void)buf;
	(void)n;
	(void)writing;
	(void)arg;
	return -1; /* OpenSSL's default asks on the terminal */
}

static int complain(const char *file, int rc, const char *why)
{
	fprintf(stderr, "%s: %s\n", file, why);
	return rc;
}

static int load_key(const char *file, EVP_PKEY **out)
{
	char pem[PEM_MAX];
	ssize_t n = wn_secret_read(file, pem, sizeof(pem));
	BIO *bio;

	if (n < 0)
		return (int)n;
	bio = BIO_new_mem_buf(pem, (int)n);
	*out = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
	BIO_free(bio);
	sodium_memzero(pem, sizeof(pem));
	ERR_clear_error();
	if (*out == NULL || EVP_PKEY_get_id(*out) != EVP_PKEY_ED25519)
		return complain(file, -EINVAL, "holds no Ed25519 private key; make one with \"walnut keys init\"");
	return 0;
}

static int load_crt(const char *file, X509 **out)
{
	char why[120];
	BIO *bio = BIO_new_file(file, "r");

	if (bio == NULL) {
		int rc = errno != 0 ? -errno : -EIO;

		ERR_clear_error();
		snprintf(why, sizeof(why), "cannot be read: %s; it is made by \"walnut keys init\"", strerror(-rc));
		return complain(file, rc, why);
	}
	*out = PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
	BIO_free(bio);
	ERR_clear_error();
	if (*out == NULL)
		return complain(file, -EINVAL, "holds no certificate; it is made by \"walnut keys init\"");
	return 0;
}

static SSL_CTX *make_ctx(EVP_PKEY *key, X509 *crt)
{
	SSL_CTX *t = SSL_CTX_new(TLS_method());

	if (t == NULL)
		return NULL;
	SSL_CTX_set_session_cache_mode(t, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_options(t, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
	SSL_CTX_set_mode(t, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_max_cert_list(t, CERT_CHAIN_MAX);
	if (SSL_CTX_set_min_proto_version(t, TLS1_3_VERSION) != 1 || SSL_CTX_set_max_proto_version(t, TLS1_3_VERSION) != 1 ||
	    SSL_CTX_set_num_tickets(t, 0) != 1 || SSL_CTX_set1_groups_list(t, "X25519") != 1 ||
	    SSL_CTX_set1_sigalgs_list(t, "ed25519") != 1 || SSL_CTX_use_certificate(t, crt) != 1 || SSL_CTX_use_PrivateKey(t, key) != 1) {
		SSL_CTX_free(t);
		return NULL;
	}
	return t;
}

int peer_identity_load(const char *dir, const char *role, struct peer_identity **out)
{
	char key_path[PATH_CAP], crt_path[PATH_CAP];
	struct peer_identity *id = NULL;
	EVP_PKEY *key = NULL;
	X509 *crt = NULL;
	int rc;

	*out = NULL;
	rc = role_path(key_path, dir, role, "key");
	if (rc == 0)
		rc = role_path(crt_path, dir, role, "crt");
	if (rc < 0)
		return complain(dir, rc, "the path is too long");
	rc = load_key(key_path, &key);
	if (rc == 0)
		rc = load_crt(crt_path, &crt);
	if (rc < 0)
		goto out;
	if (X509_check_private_key(crt, key) != 1) {
		ERR_clear_error();
		rc = complain(crt_path, -EINVAL, "is not the certificate of the key beside it; make both anew with \"walnut keys init\"");
		goto out;
	}
	id = (struct peer_identity *)calloc(1, sizeof(*id));
	if (id != NULL)
		id->tls = make_ctx(key, crt);
	if (id == NULL || id->tls == NULL || peer_pin_of(crt, &id->pin) < 0) {
		ERR_clear_error();
		rc = complain(key_path, -ENOMEM, "TLS cannot be set up with it");
		goto out;
	}
	*out = id;
	id = NULL;
out:
	peer_identity_free(id);
	X509_free(crt);
	EVP_PKEY_free(key);
	return rc;
}

void peer_identity_free(struct peer_identity *id)
{
	if (id == NULL)
		return;
	SSL_CTX_free(id->tls);
	free(id);
}

void peer_identity_pin(const struct peer_identity *id, struct peer_pin *out)
{
	*out = id->pin;
}
