/* SPDX-License-Identifier: Apache-2.0 */
#include "front/check.h"

#include <errno.h>
#include <libgen.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <pwd.h>
#include <sodium.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/config.h"
#include "peer/peer.h"

#define PEM_MAX 65536

static int no_password(char *buf, int size, int writing, void *arg)
{
	(void)buf;
	(void)size;
	(void)writing;
	(void)arg;
	return -1; /* asks nobody: a key under a password is refused */
}

static X509 *read_certificate(const char *file, const char *name)
{
	BIO *b = BIO_new_file(name, "r");
	X509 *x = b != NULL ? PEM_read_bio_X509(b, NULL, no_password, NULL) : NULL;

	if (b == NULL)
		wn_config_bad(file, "tls_certificate", "\"%.200s\" cannot be read: %s", name, strerror(errno));
	else if (x == NULL)
		wn_config_bad(file, "tls_certificate",
			      "\"%.200s\" holds no certificate; must be PEM, the server's first, then those above it", name);
	BIO_free(b);
	ERR_clear_error();
	return x;
}

static EVP_PKEY *read_key(const char *file, const char *name)
{
	static char pem[PEM_MAX];
	EVP_PKEY *k = NULL;
	ssize_t n;
	BIO *b;

	wn_secret_named_by(file, "tls_key");
	n = wn_secret_read(name, pem, sizeof(pem));
	if (n < 0)
		return NULL;
	b = BIO_new_mem_buf(pem, (int)n);
	if (b != NULL)
		k = PEM_read_bio_PrivateKey(b, NULL, no_password, NULL);
	if (k == NULL)
		wn_config_bad(file, "tls_key", "\"%.200s\" holds no private key; must be PEM, without a password", name);
	BIO_free(b);
	sodium_memzero(pem, sizeof(pem));
	ERR_clear_error();
	return k;
}

static int check_tls(const char *file, const struct front_config *c, FILE *notes)
{
	X509 *x = c->tls_certificate[0] != 0 ? read_certificate(file, c->tls_certificate) : NULL;
	EVP_PKEY *k = c->tls_key[0] != 0 ? read_key(file, c->tls_key) : NULL;
	int rc = (x == NULL) == (c->tls_certificate[0] == 0) && (k == NULL) == (c->tls_key[0] == 0) ? 0 : -EINVAL;

	if (rc == 0 && x != NULL && k != NULL && X509_check_private_key(x, k) != 1)
		rc = wn_config_bad(file, "tls_key", "\"%.200s\" is not the key of the certificate; must be the one that it was made for",
				   c->tls_key);
	if (rc == 0 && x != NULL && notes != NULL && X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
		fprintf(notes, "%s: tls_certificate: note: has expired; callers over TLS will refuse it\n", file);
	if (rc == 0 && x != NULL && notes != NULL && X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
		fprintf(notes, "%s: tls_certificate: note: is not valid yet; callers over TLS will refuse it\n", file);
	X509_free(x);
	EVP_PKEY_free(k);
	ERR_clear_error();
	return rc;
}

static int check_keys(const char *file, const struct front_config *c)
{
	struct peer_identity *id;

	wn_secret_named_by(file, "keys");
	if (peer_identity_load(c->keys, "front", &id) != 0)
		return -EINVAL;
	peer_identity_free(id);
	return 0;
}

static int check_state(const char *file, const struct front_config *c)
{
	char parent[sizeof(c->state)];
	struct stat st;

	if (c->state[0] == 0)
		return 0;
	/* the start makes it, if it can */
	memcpy(parent, c->state, sizeof(parent));
	if (stat(c->state, &st) != 0 && (errno != ENOENT || stat(dirname(parent), &st) != 0))
		return wn_config_bad(file, "state", "\"%.200s\": %s; must be a folder, or one that can be made", c->state, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return wn_config_bad(file, "state", "\"%.200s\" is no folder; must be one", c->state);
	return 0;
}

int front_check_files(const char *file, const struct front_config *c, FILE *notes)
{
	int rc = 0;

	if (check_keys(file, c) != 0)
		rc = -EINVAL;
	if (check_tls(file, c, notes) != 0)
		rc = -EINVAL;
	if (check_state(file, c) != 0)
		rc = -EINVAL;
	return rc;
}

static int check_addr(const char *file, const char *key, const struct wn_addr *addr)
{
	struct wn_addr any = *addr;
	struct sockaddr_storage ss;
	char text[WN_ADDR_STR];
	socklen_t len;
	int fd, rc = 0;

	any.port = 0;
	len = wn_addr_to_sockaddr(&any, &ss);
	fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&ss, len) != 0)
		rc = wn_config_bad(file, key, "%s: %s; must be an address of this host, `ip address` lists them", wn_ip_str(addr, text),
				   strerror(errno));
	if (fd >= 0)
		close(fd);
	return rc;
}

int front_check_machine(const char *file, const struct front_config *c)
{
	char key[32];
	int rc = check_addr(file, "listen", &c->listen);

	for (unsigned i = 0; i < c->nalso; i++) {
		snprintf(key, sizeof(key), "also_listen[%u]", i);
		if (check_addr(file, key, &c->also_listen[i].addr) != 0)
			rc = -EINVAL;
	}
	if (c->has_agents && check_addr(file, "agents", &c->agents) != 0)
		rc = -EINVAL;
	if (c->has_metrics && check_addr(file, "metrics", &c->metrics) != 0)
		rc = -EINVAL;
	if (getpwnam(c->user) == NULL)
		rc = wn_config_bad(file, "user", "there is no user \"%s\" here; must be one without rights, such as nobody", c->user);
	return rc;
}
