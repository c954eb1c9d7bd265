/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "front/stream.h"
#include "front/tls.h"

/* TLS of the library's own client against the front's end; the streams' clock is the test's. */

#define WAIT_MS  8000
#define CLIENTS  64
#define PER_CONN 32 /* connections that are weighed */
/* What doc/operations.md says that a connection over TLS costs besides what it costs over TCP. */
#define IDLE_BYTES      15000
#define HANDSHAKE_BYTES 66000

static struct {
	char dir[64], crt[96], key[96], other[96];
	struct front_tls *tls;
	struct front_streams *s;
	struct front_stream_limits limit;
	struct wn_addr addr;
	SSL_CTX *client;
	SSL *ssl[CLIENTS];
	uint64_t now_ms;
	unsigned got;
	struct front_flow from;
	const char *reply;
	bool trust;
} t;

/* What the library has taken and not given back. */
static size_t taken;

static void *weigh_malloc(size_t n, const char *file, int line)
{
	void *p = malloc(n);

	(void)file;
	(void)line;
	taken += malloc_usable_size(p);
	return p;
}

static void *weigh_realloc(void *old, size_t n, const char *file, int line)
{
	void *p;

	(void)file;
	(void)line;
	taken -= malloc_usable_size(old);
	p = realloc(old, n);
	taken += malloc_usable_size(p);
	return p;
}

static void weigh_free(void *p, const char *file, int line)
{
	(void)file;
	(void)line;
	taken -= malloc_usable_size(p);
	free(p);
}

static void make_identity(const char *crt, const char *key)
{
	EVP_PKEY *k = EVP_EC_gen("P-256");
	X509 *x = X509_new();
	FILE *f;

	assert_non_null(k);
	assert_int_equal(X509_set_version(x, 2), 1);
	assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(x), 1), 1);
	X509_gmtime_adj(X509_getm_notBefore(x), -3600);
	X509_gmtime_adj(X509_getm_notAfter(x), 3600);
	assert_int_equal(X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const uint8_t *)"front", -1, -1, 0), 1);
	assert_int_equal(X509_set_issuer_name(x, X509_get_subject_name(x)), 1);
	assert_int_equal(X509_set_pubkey(x, k), 1);
	assert_true(X509_sign(x, k, EVP_sha256()) > 0);
	if (crt != NULL) {
		f = fopen(crt, "w");
		assert_int_equal(PEM_write_X509(f, x), 1);
		fclose(f);
	}
	f = fopen(key, "w");
	assert_int_equal(fchmod(fileno(f), 0600), 0);
	assert_int_equal(PEM_write_PrivateKey(f, k, NULL, NULL, 0, NULL, NULL), 1);
	fclose(f);
	X509_free(x);
	EVP_PKEY_free(k);
}

static int make_files(void **state)
{
	(void)state;
	snprintf(t.dir, sizeof(t.dir), "/tmp/walnut-tls-XXXXXX");
	assert_non_null(mkdtemp(t.dir));
	snprintf(t.crt, sizeof(t.crt), "%s/crt", t.dir);
	snprintf(t.key, sizeof(t.key), "%s/key", t.dir);
	snprintf(t.other, sizeof(t.other), "%s/other", t.dir);
	make_identity(t.crt, t.key);
	make_identity(NULL, t.other);
	return 0;
}

static int drop_files(void **state)
{
	(void)state;
	unlink(t.crt);
	unlink(t.key);
	unlink(t.other);
	return rmdir(t.dir);
}

static void on_message(void *arg, const struct front_flow *from, struct span msg)
{
	(void)arg;
	(void)msg;
	t.got++;
	t.from = *from;
	if (t.trust)
		front_streams_trust(t.s, from->id, t.now_ms);
	if (t.reply != NULL)
		front_streams_send(t.s, from, span_str(t.reply), t.now_ms);
}

static void start(void)
{
	const struct front_streams_options opt = {.limits = &t.limit, .tls = t.tls, .backlog = 64, .message = on_message};
	struct sockaddr_storage ss;
	socklen_t len;
	int fd;

	assert_int_equal(wn_addr_parse(SPAN_LIT("127.0.0.1"), 0, &t.addr), 0);
	len = wn_addr_to_sockaddr(&t.addr, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&ss, &len), 0);
	close(fd);
	wn_addr_from_sockaddr(&t.addr, &ss);
	assert_int_equal(front_streams_new(&opt, &t.s), 0);
	assert_int_equal(front_streams_listen(t.s, FRONT_TLS, 2, &t.addr), 0);
}

static int setup(void **state)
{
	(void)state;
	t.limit = (struct front_stream_limits){.connections = 100,
					       .trusted = 90,
					       .per_address = 1000,
					       .buffers = 4,
					       .handshakes = 64,
					       .handshakes_per_s = 10000,
					       .due_ms = {3000, 5000, 10000, 600000, 7000}};
	t.now_ms = 1000000;
	t.got = 0;
	t.reply = NULL;
	t.trust = false;
	memset(t.ssl, 0, sizeof(t.ssl));
	assert_int_equal(front_tls_new(t.crt, t.key, &t.tls), 0);
	t.client = SSL_CTX_new(TLS_client_method());
	assert_non_null(t.client);
	return 0;
}

static void hang_up(SSL **ssl)
{
	if (*ssl == NULL)
		return;
	close(SSL_get_fd(*ssl));
	SSL_set_shutdown(*ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN); /* else its session counts as bad */
	SSL_free(*ssl);
	*ssl = NULL;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < CLIENTS; i++)
		hang_up(&t.ssl[i]);
	front_streams_free(t.s);
	t.s = NULL;
	front_tls_free(t.tls);
	SSL_CTX_free(t.client);
	return 0;
}

static uint64_t count(enum front_stream_count c)
{
	return front_streams_count(t.s, c);
}

static void turn(void)
{
	front_streams_serve(t.s, t.now_ms, true);
}

#define AWAIT(so)                                                                       \
	do {                                                                            \
		struct pollfd await_ = {.fd = front_streams_fd(t.s), .events = POLLIN}; \
		for (turn(); !(so); turn())                                             \
			assert_int_equal(poll(&await_, 1, WAIT_MS), 1);                 \
	} while (0)

static int dial_tcp(void)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(&t.addr, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

static SSL **dial(void)
{
	unsigned i = 0;

	while (t.ssl[i] != NULL)
		i++;
	t.ssl[i] = SSL_new(t.client);
	assert_non_null(t.ssl[i]);
	SSL_set_fd(t.ssl[i], dial_tcp());
	SSL_set_connect_state(t.ssl[i]);
	return &t.ssl[i];
}

/* Runs both ends until the client's step is done; false: it failed. */
static bool pump(SSL *ssl, int (*step)(SSL *))
{
	struct pollfd p[2] = {{.fd = SSL_get_fd(ssl), .events = POLLIN}, {.fd = front_streams_fd(t.s), .events = POLLIN}};

	for (;;) {
		int r = step(ssl);

		if (r > 0)
			return true;
		if (SSL_get_error(ssl, r) != SSL_ERROR_WANT_READ) {
			ERR_clear_error();
			return false;
		}
		turn();
		assert_true(poll(p, 2, WAIT_MS) > 0);
	}
}

static bool shake_hands(SSL *ssl)
{
	return pump(ssl, SSL_do_handshake);
}

static const char message[] = "MESSAGE sip:a@example.org SIP/2.0\r\nVia: SIP/2.0/TLS 192.0.2.1;branch=z9hG4bK1\r\nFrom: <sip:a@b>;tag=1\r\n"
			      "To: <sip:a@example.org>\r\nCall-ID: 1\r\nCSeq: 1 MESSAGE\r\nContent-Length: 0\r\n\r\n";

static char heard[8192];
static int nheard;

static int hear_step(SSL *ssl)
{
	return nheard = SSL_read(ssl, heard, sizeof(heard));
}

static void exchange(SSL *ssl)
{
	unsigned before = t.got;

	t.reply = "yes";
	assert_int_equal(SSL_write(ssl, message, sizeof(message) - 1), sizeof(message) - 1);
	AWAIT(t.got == before + 1);
	assert_true(pump(ssl, hear_step));
	assert_memory_equal(heard, "yes", 3);
}

static void test_both_versions(void **state)
{
	static const int version[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	(void)state;
	start();
	for (unsigned i = 0; i < 2; i++) {
		SSL **c = dial();

		SSL_set_min_proto_version(*c, version[i]);
		SSL_set_max_proto_version(*c, version[i]);
		assert_true(shake_hands(*c));
		assert_int_equal(SSL_version(*c), version[i]);
		exchange(*c);
		assert_int_equal(front_flow_transport(t.from.id), FRONT_TLS);
		assert_int_equal(front_flow_listener(t.from.id), 2);
	}
	assert_int_equal(count(FRONT_STREAM_tls_done), 2);
}

static void test_older_versions_are_refused(void **state)
{
	SSL **c;

	(void)state;
	start();
	SSL_CTX_set_security_level(t.client, 0);
	c = dial();
	SSL_set_min_proto_version(*c, TLS1_1_VERSION);
	SSL_set_max_proto_version(*c, TLS1_1_VERSION);
	SSL_set_cipher_list(*c, "ALL:@SECLEVEL=0");
	assert_false(shake_hands(*c));
	AWAIT(count(FRONT_STREAM_tls_failed) == 1);
	assert_int_equal(count(FRONT_STREAM_tls_done), 0);
}

static void test_no_tls_at_all(void **state)
{
	int fd;

	(void)state;
	start();
	fd = dial_tcp();
	assert_int_equal(send(fd, message, sizeof(message) - 1, MSG_NOSIGNAL), sizeof(message) - 1);
	AWAIT(count(FRONT_STREAM_tls_failed) == 1);
	assert_int_equal(t.got, 0);
	close(fd);
}

/* A second sign-in needs no second proof by the certificate, in either version. */
static void test_sessions_resume(void **state)
{
	static const int version[] = {TLS1_2_VERSION, TLS1_3_VERSION};

	(void)state;
	start();
	for (unsigned i = 0; i < 2; i++) {
		SSL_SESSION *session;
		SSL **c = dial();

		SSL_set_max_proto_version(*c, version[i]);
		assert_true(shake_hands(*c));
		exchange(*c); /* TLS 1.3's ticket comes with it */
		session = SSL_get1_session(*c);
		assert_non_null(session);
		hang_up(c);
		c = dial();
		SSL_set_max_proto_version(*c, version[i]);
		assert_int_equal(SSL_set_session(*c, session), 1);
		assert_true(shake_hands(*c));
		assert_true(SSL_session_reused(*c));
		exchange(*c);
		hang_up(c);
		/* another process's keys seal other tickets */
		front_tls_free(t.tls);
		front_streams_free(t.s);
		assert_int_equal(front_tls_new(t.crt, t.key, &t.tls), 0);
		start();
		c = dial();
		SSL_set_max_proto_version(*c, version[i]);
		assert_int_equal(SSL_set_session(*c, session), 1);
		assert_true(shake_hands(*c));
		assert_false(SSL_session_reused(*c));
		SSL_SESSION_free(session);
	}
}

static void test_no_renegotiation(void **state)
{
	SSL **c;

	(void)state;
	start();
	c = dial();
	SSL_set_max_proto_version(*c, TLS1_2_VERSION);
	assert_true(shake_hands(*c));
	assert_int_equal(SSL_renegotiate(*c), 1);
	assert_false(shake_hands(*c));
	assert_int_equal(count(FRONT_STREAM_tls_done), 1);
}

static void test_the_budget_of_handshakes(void **state)
{
	struct pollfd p;
	SSL **c[3];

	(void)state;
	t.limit.handshakes_per_s = 10; /* and one at once */
	start();
	c[0] = dial();
	assert_true(shake_hands(*c[0]));
	c[1] = dial();
	assert_int_equal(SSL_do_handshake(*c[1]), -1);
	turn();
	turn();
	assert_int_equal(count(FRONT_STREAM_accepted), 1);
	assert_int_equal(count(FRONT_STREAM_tls_budget), 1);
	/* who waits outside keeps nobody busy, and who is in is served */
	p = (struct pollfd){.fd = front_streams_fd(t.s), .events = POLLIN};
	assert_int_equal(poll(&p, 1, 0), 0);
	exchange(*c[0]);
	t.now_ms += 99;
	front_streams_tick(t.s, t.now_ms);
	turn();
	assert_int_equal(count(FRONT_STREAM_accepted), 1);
	t.now_ms += 1;
	front_streams_tick(t.s, t.now_ms);
	assert_true(shake_hands(*c[1]));
	exchange(*c[1]);
}

static void test_few_are_in_a_handshake(void **state)
{
	int fd[3];
	char c;
	SSL **good;

	(void)state;
	t.limit.handshakes = 2;
	start();
	good = dial();
	assert_true(shake_hands(*good));
	for (unsigned i = 0; i < 3; i++) {
		fd[i] = dial_tcp();
		AWAIT(count(FRONT_STREAM_accepted) == i + 2);
	}
	assert_int_equal(count(FRONT_STREAM_tls_evicted), 1);
	assert_int_equal(recv(fd[0], &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	assert_int_equal(recv(fd[1], &c, 1, 0), -1);
	assert_int_equal(errno, EAGAIN);
	exchange(*good);
	t.now_ms += 3000;
	front_streams_tick(t.s, t.now_ms);
	assert_int_equal(count(FRONT_STREAM_deadline_handshake), 2);
	for (unsigned i = 0; i < 3; i++)
		close(fd[i]);
}

/* A hello without end. */
static void test_a_hello_has_a_limit(void **state)
{
	static char record[5 + 16384] = {0x16, 3, 1, 0x40, 0, 1, 1, 0, 0};
	int fd;

	(void)state;
	start();
	fd = dial_tcp();
	assert_int_equal(send(fd, record, 5 + 12000, MSG_NOSIGNAL), 5 + 12000);
	AWAIT(count(FRONT_STREAM_accepted) == 1);
	assert_int_equal(count(FRONT_STREAM_tls_too_large), 0);
	assert_int_equal(send(fd, record + 5 + 12000, 4384, MSG_NOSIGNAL), 4384);
	AWAIT(count(FRONT_STREAM_tls_too_large) == 1);
	close(fd);
}

/* A queue that waits for room goes out in order. */
static void test_unsent(void **state)
{
	static char block[4000];
	size_t sent = 0, read = 0;
	SSL **c;

	(void)state;
	t.trust = true;
	start();
	c = dial();
	assert_true(shake_hands(*c));
	exchange(*c);
	t.reply = NULL;
	for (unsigned i = 0; count(FRONT_STREAM_queued) == 0 || i % 4 != 0; i++) {
		memset(block, (int)(i % 251), sizeof(block));
		assert_int_equal(front_streams_send(t.s, &t.from, span_of(block, sizeof(block)), t.now_ms), 0);
		sent += sizeof(block);
	}
	while (read < sent) {
		assert_true(pump(*c, hear_step));
		for (int i = 0; i < nheard; i++)
			assert_int_equal((uint8_t)heard[i], (read + (size_t)i) / sizeof(block) % 251);
		read += (size_t)nheard;
	}
}

static void test_what_a_connection_weighs(void **state)
{
	static char hello[4096];
	size_t before, idle, shaking;
	SSL *alone;
	BIO *out;
	int n, fd[PER_CONN];

	(void)state;
	start();
	/* a client's hello, to be sent in part */
	alone = SSL_new(t.client);
	out = BIO_new(BIO_s_mem());
	SSL_set_bio(alone, BIO_new(BIO_s_mem()), out);
	SSL_set_connect_state(alone);
	SSL_do_handshake(alone);
	n = BIO_read(out, hello, sizeof(hello));
	assert_true(n > 100);
	SSL_free(alone);

	before = taken;
	for (unsigned i = 0; i < PER_CONN; i++) {
		SSL **c = dial();

		assert_true(shake_hands(*c));
		exchange(*c);
	}
	for (unsigned i = 0; i < PER_CONN; i++)
		hang_up(&t.ssl[i]);
	idle = (taken - before) / PER_CONN;
	AWAIT(count(FRONT_STREAM_closed_by_peer) == PER_CONN);
	before = taken;
	for (unsigned i = 0; i < PER_CONN; i++) {
		fd[i] = dial_tcp();
		assert_int_equal(send(fd[i], hello, (size_t)n - 1, MSG_NOSIGNAL), n - 1);
	}
	AWAIT(front_streams_open(t.s, STREAM_HANDSHAKE) == PER_CONN);
	turn();
	shaking = (taken - before) / PER_CONN;
	for (unsigned i = 0; i < PER_CONN; i++)
		close(fd[i]);
	print_message("# over TLS: %zu bytes when idle, %zu with a part of a hello\n", idle, shaking);
	assert_true(idle > 1000 && idle <= IDLE_BYTES);
	assert_true(shaking > 1000 && shaking <= HANDSHAKE_BYTES);
}

static void test_bad_files(void **state)
{
	struct front_tls *bad;

	(void)state;
	assert_int_equal(front_tls_new(t.crt, t.other, &bad), -EINVAL);
	assert_int_equal(front_tls_new(t.key, t.key, &bad), -EINVAL);
	assert_int_equal(front_tls_new(t.crt, t.crt, &bad), -EPERM);
	assert_int_equal(chmod(t.key, 0640), 0);
	assert_int_equal(front_tls_new(t.crt, t.key, &bad), -EPERM);
	assert_int_equal(chmod(t.key, 0600), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
		T(test_both_versions),
		T(test_older_versions_are_refused),
		T(test_no_tls_at_all),
		T(test_sessions_resume),
		T(test_no_renegotiation),
		T(test_the_budget_of_handshakes),
		T(test_few_are_in_a_handshake),
		T(test_a_hello_has_a_limit),
		T(test_unsent),
		T(test_what_a_connection_weighs),
		T(test_bad_files),
	};

	signal(SIGPIPE, SIG_IGN); /* the client's */
	if (CRYPTO_set_mem_functions(weigh_malloc, weigh_realloc, weigh_free) != 1)
		return 1;
	return cmocka_run_group_tests(tests, make_files, drop_files);
}
