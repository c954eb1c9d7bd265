/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "peer/conn.h"

#define CONNECTIONS_MAX 64
#define LINGER_MS       500
#define DEAD_LINK_MS    10000
#define KEEPALIVE_S     3
#define QUEUE_SLACK     65536

struct write {
	uv_write_t req;
	struct peer_conn *c;
	char data[];
};

static void conn_pump(struct peer_conn *c);
static void conn_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf);
static void conn_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf);

struct peer_shared *peer_shared_new(const struct peer_options *opt, const struct peer_events *ev, void *arg)
{
	struct peer_shared *s = (struct peer_shared *)calloc(1, sizeof(*s) + opt->npins * sizeof(s->pins[0]));

	if (s == NULL)
		return NULL;
	s->refs = 1;
	s->ev = ev;
	s->arg = arg;
	s->queue_max = opt->send_queue_max != 0 ? opt->send_queue_max : PEER_SEND_QUEUE_MAX;
	s->max_connections = opt->max_connections != 0 ? opt->max_connections : CONNECTIONS_MAX;
	s->handshake_ms = opt->handshake_ms != 0 ? opt->handshake_ms : PEER_HANDSHAKE_MS;
	s->npins = opt->npins;
	if (opt->npins > 0)
		memcpy(s->pins, opt->pins, opt->npins * sizeof(s->pins[0]));
	return s;
}

void peer_shared_release(struct peer_shared *s)
{
	if (--s->refs == 0)
		free(s);
}

static void conn_link(struct peer_conn *c, struct peer_shared *s)
{
	c->shared = s;
	s->refs++;
	s->unfinished++;
	c->older = s->newest;
	if (s->newest != NULL)
		s->newest->newer = c;
	else
		s->oldest = c;
	s->newest = c;
}

static void conn_unlink(struct peer_conn *c)
{
	struct peer_shared *s = c->shared;

	if (c->older != NULL)
		c->older->newer = c->newer;
	else
		s->oldest = c->newer;
	if (c->newer != NULL)
		c->newer->older = c->older;
	else
		s->newest = c->older;
}

static void conn_handle_closed(uv_handle_t *h)
{
	struct peer_conn *c = (struct peer_conn *)h->data;
	struct peer_shared *s = c->shared;

	if (--c->open_handles > 0)
		return;
	s->ev->down(c, c->reason, s->arg);
	conn_unlink(c);
	SSL_free(c->ssl);
	free(c);
	peer_shared_release(s);
}

/* The only way into PEER_CLOSED, and so the only way to `down`. */
void peer_conn_abort(struct peer_conn *c, int reason)
{
	if (c->state == PEER_CLOSED)
		return;
	if (c->state != PEER_LINGER)
		c->reason = reason;
	c->state = PEER_CLOSED;
	if (c->counted_up)
		c->shared->up--;
	else
		c->shared->unfinished--;
	uv_close((uv_handle_t *)&c->tcp, conn_handle_closed);
	uv_close((uv_handle_t *)&c->timer, conn_handle_closed);
}

static void conn_written(uv_write_t *req, int status)
{
	struct write *w = (struct write *)req->data;
	struct peer_conn *c = w->c;

	free(w);
	if (status < 0 && status != UV_ECANCELED)
		peer_conn_abort(c, status);
}

/* Hands the ciphertext that OpenSSL has made to the socket. */
static int conn_flush(struct peer_conn *c)
{
	size_t n = BIO_ctrl_pending(c->out);
	struct write *w;
	uv_buf_t buf;
	int rc;

	if (n == 0 || c->state == PEER_CLOSED)
		return 0;
	w = (struct write *)malloc(sizeof(*w) + n);
	if (w == NULL)
		return -ENOMEM;
	if (BIO_read(c->out, w->data, (int)n) != (int)n) {
		free(w);
		return -EPROTO;
	}
	w->c = c;
	w->req.data = w;
	buf = uv_buf_init(w->data, (unsigned)n);
	rc = uv_write(&w->req, (uv_stream_t *)&c->tcp, &buf, 1, conn_written);
	if (rc < 0)
		free(w);
	return rc;
}

static void conn_deadline(uv_timer_t *t)
{
	peer_conn_abort((struct peer_conn *)t->data, -ETIMEDOUT);
}

static void conn_shut(uv_shutdown_t *req, int status)
{
	if (status < 0 && status != UV_ECANCELED)
		peer_conn_abort((struct peer_conn *)req->data, status);
}

/* Ends the connection after what is queued (data, an alert, our goodbye) has gone out. Closing a socket with unread bytes would reset it
 * and lose them, so it reads on until the other side's end or the deadline. */
static void conn_end(struct peer_conn *c, int reason)
{
	if (c->state == PEER_LINGER || c->state == PEER_CLOSED)
		return;
	if (c->state == PEER_CONNECTING) {
		peer_conn_abort(c, reason);
		return;
	}
	c->reason = reason;
	c->state = PEER_LINGER;
	c->shutdown.data = c;
	uv_timer_start(&c->timer, conn_deadline, LINGER_MS, 0);
	if (c->paused)
		uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_read);
	if (conn_flush(c) < 0 || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, conn_shut) < 0)
		peer_conn_abort(c, reason);
}

static void conn_goodbye(struct peer_conn *c, int reason)
{
	if (c->state == PEER_UP) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
		ERR_clear_error();
	}
	conn_end(c, reason);
}

/* Whether the other side refused our certificate. */
static bool alert_is_refusal(unsigned long error)
{
	switch (ERR_GET_REASON(error)) {
	case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
	case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
	case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
	case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
	case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

static void conn_tls_failed(struct peer_conn *c)
{
	unsigned long error = ERR_peek_last_error();
	int reason = c->reason; /* set by the verify callback */

	if (reason == 0)
		reason = ERR_GET_LIB(error) == ERR_LIB_SSL && alert_is_refusal(error) ? -EACCES : -EPROTO;
	ERR_clear_error();
	conn_end(c, reason);
}

/* Replaces chain and name checks altogether: the proof of possession is TLS's, who it may be is ours. Runs through all pins whatever
 * matches. */
static int verify(X509_STORE_CTX *store, void *arg)
{
	SSL *ssl = (SSL *)X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct peer_conn *c = (struct peer_conn *)SSL_get_app_data(ssl);
	const X509 *crt = X509_STORE_CTX_get0_cert(store);
	struct peer_pin pin;

	(void)arg;
	c->pin = -1;
	if (crt != NULL && peer_pin_of(crt, &pin) == 0)
		for (unsigned i = 0; i < c->shared->npins; i++)
			if (sodium_memcmp(pin.sha256, c->shared->pins[i].sha256, PEER_PIN_BYTES) == 0)
				c->pin = (int)i;
	if (c->pin >= 0) {
		X509_STORE_CTX_set_error(store, X509_V_OK);
		return 1;
	}
	c->reason = -EACCES;
	X509_STORE_CTX_set_error(store, X509_V_ERR_CERT_REJECTED);
	return 0;
}

int peer_conn_tls(struct peer_conn *c, SSL_CTX *tls)
{
	c->ssl = SSL_new(tls);
	c->in = BIO_new(BIO_s_mem());
	c->out = BIO_new(BIO_s_mem());
	if (c->ssl == NULL || c->in == NULL || c->out == NULL) {
		BIO_free(c->in);
		BIO_free(c->out);
		return -ENOMEM;
	}
	BIO_set_mem_eof_return(c->in, -1);
	BIO_set_mem_eof_return(c->out, -1);
	SSL_set_bio(c->ssl, c->in, c->out);
	SSL_set_app_data(c->ssl, c);
	if (c->server)
		SSL_set_accept_state(c->ssl);
	else
		SSL_set_connect_state(c->ssl);
	return 0;
}

static void conn_established(struct peer_conn *c)
{
	struct peer_shared *s = c->shared;

	/* Unreachable as long as no session can be resumed; it must stay harmless if that changes. */
	if (c->pin < 0) {
		conn_end(c, -EACCES);
		return;
	}
	if (c->server && s->up >= s->max_connections) {
		conn_end(c, -EMFILE);
		return;
	}
	uv_timer_stop(&c->timer);
	s->unfinished--;
	s->up++;
	c->counted_up = true;
	c->state = PEER_UP;
	/* Our last flight goes before anything that `up` sends. */
	if (conn_flush(c) < 0) {
		peer_conn_abort(c, -ENOMEM);
		return;
	}
	s->ev->up(c, (unsigned)c->pin, s->arg);
}

static void conn_handshake(struct peer_conn *c)
{
	int rc, err;

	ERR_clear_error();
	rc = SSL_do_handshake(c->ssl);
	if (rc == 1) {
		conn_established(c);
		return;
	}
	err = SSL_get_error(c->ssl, rc);
	if (err != SSL_ERROR_WANT_READ)
		conn_tls_failed(c);
}

static void conn_pump(struct peer_conn *c)
{
	uint8_t plain[PEER_CHUNK];
	int rc;

	if (c->state == PEER_HANDSHAKE)
		conn_handshake(c);
	while (c->state == PEER_UP && !c->paused) {
		int n, err;

		ERR_clear_error();
		n = SSL_read(c->ssl, plain, sizeof(plain));
		if (n > 0) {
			c->shared->ev->data(c, plain, (size_t)n, c->shared->arg);
			continue;
		}
		err = SSL_get_error(c->ssl, n);
		if (err == SSL_ERROR_WANT_READ)
			break;
		if (err == SSL_ERROR_ZERO_RETURN)
			conn_goodbye(c, 0);
		else
			conn_tls_failed(c);
	}
	rc = conn_flush(c);
	/* A peer that asks for key updates and reads none of the answers would grow the queue past what peer_send allows. */
	if (rc == 0 && c->state == PEER_UP && peer_send_queued(c) > c->shared->queue_max + c->shared->queue_max / 8 + QUEUE_SLACK)
		rc = -ENOBUFS;
	if (rc < 0)
		peer_conn_abort(c, rc);
}

static void conn_alloc(uv_handle_t *h, size_t hint, uv_buf_t *buf)
{
	struct peer_conn *c = (struct peer_conn *)h->data;

	(void)hint;
	*buf = uv_buf_init(c->raw, sizeof(c->raw));
}

static void conn_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct peer_conn *c = (struct peer_conn *)stream->data;

	if (n < 0) {
		peer_conn_abort(c, n == UV_EOF ? -ECONNRESET : (int)n);
		return;
	}
	if (n == 0 || c->state == PEER_LINGER || c->state == PEER_CLOSED)
		return;
	if (BIO_write(c->in, buf->base, (int)n) != (int)n) {
		peer_conn_abort(c, -ENOMEM);
		return;
	}
	conn_pump(c);
}

/* A link that died without a word is noticed in about ten seconds, whether data is under way (user timeout) or not (keep-alive). */
static int conn_sockopts(struct peer_conn *c)
{
	const unsigned timeout = DEAD_LINK_MS;
	const int interval = KEEPALIVE_S, probes = 3;
	uv_os_fd_t fd = -1;
	int rc;

	rc = uv_tcp_nodelay(&c->tcp, 1);
	if (rc == 0)
		rc = uv_tcp_keepalive(&c->tcp, 1, KEEPALIVE_S);
	if (rc == 0)
		rc = uv_fileno((uv_handle_t *)&c->tcp, &fd);
	if (rc < 0)
		return rc;
	if (setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval)) != 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes)) != 0)
		return -errno;
	return 0;
}

struct peer_conn *peer_conn_new(uv_loop_t *loop, struct peer_shared *s, int family, bool server)
{
	struct peer_conn *c = (struct peer_conn *)calloc(1, sizeof(*c));

	if (c == NULL)
		return NULL;
	if (uv_tcp_init_ex(loop, &c->tcp, (unsigned)family) < 0) {
		free(c);
		return NULL;
	}
	uv_timer_init(loop, &c->timer);
	c->tcp.data = c;
	c->timer.data = c;
	c->open_handles = 2;
	c->server = server;
	c->pin = -1;
	c->state = PEER_CONNECTING;
	conn_link(c, s);
	uv_timer_start(&c->timer, conn_deadline, s->handshake_ms, 0);
	return c;
}

void peer_conn_start(struct peer_conn *c)
{
	int rc = conn_sockopts(c);

	if (rc == 0)
		rc = uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_read);
	if (rc < 0) {
		peer_conn_abort(c, rc);
		return;
	}
	c->state = PEER_HANDSHAKE;
	conn_pump(c);
}

void peer_tls_prepare(SSL_CTX *tls)
{
	signal(SIGPIPE, SIG_IGN); /* libuv writes to sockets with write(2) */
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(tls, verify, NULL);
}

static void conn_connected(uv_connect_t *req, int status)
{
	struct peer_conn *c = (struct peer_conn *)req->data;

	if (status == UV_ECANCELED || c->state == PEER_CLOSED)
		return;
	if (status < 0)
		peer_conn_abort(c, status);
	else
		peer_conn_start(c);
}

int peer_connect(uv_loop_t *loop, const struct peer_identity *id, const struct wn_addr *addr, const struct peer_options *opt,
		 const struct peer_events *ev, void *arg, struct peer_conn **out)
{
	struct peer_shared *s = peer_shared_new(opt, ev, arg);
	struct sockaddr_storage ss;
	struct peer_conn *c;
	int rc;

	*out = NULL;
	if (s == NULL)
		return -ENOMEM;
	peer_tls_prepare(id->tls);
	wn_addr_to_sockaddr(addr, &ss);
	c = peer_conn_new(loop, s, ss.ss_family, false);
	peer_shared_release(s);
	if (c == NULL)
		return -ENOMEM;
	c->remote = *addr;
	c->connect.data = c;
	rc = peer_conn_tls(c, id->tls);
	if (rc == 0)
		rc = uv_tcp_connect(&c->connect, &c->tcp, (const struct sockaddr *)&ss, conn_connected);
	/* An attempt that fails at once fails through `down` like any other, so that the caller has one place to retry from. */
	if (rc < 0)
		peer_conn_abort(c, rc);
	*out = c;
	return 0;
}

int peer_send(struct peer_conn *c, const void *p, size_t n)
{
	size_t done;
	int rc;

	if (c->state != PEER_UP)
		return -ENOTCONN;
	if (n > c->shared->queue_max || peer_send_queued(c) > c->shared->queue_max - n)
		return -ENOBUFS;
	if (n == 0)
		return 0;
	ERR_clear_error();
	if (SSL_write_ex(c->ssl, p, n, &done) != 1 || done != n) {
		conn_tls_failed(c);
		return -EPROTO;
	}
	rc = conn_flush(c);
	if (rc < 0)
		peer_conn_abort(c, rc);
	return rc;
}

static void conn_resumed(uv_timer_t *t)
{
	conn_pump((struct peer_conn *)t->data);
}

void peer_pause(struct peer_conn *c)
{
	if (c->state != PEER_UP || c->paused)
		return;
	c->paused = true;
	uv_read_stop((uv_stream_t *)&c->tcp);
}

void peer_resume(struct peer_conn *c)
{
	if (c->state != PEER_UP || !c->paused)
		return;
	c->paused = false;
	/* What OpenSSL holds already has no event of its own, and `data` must not be called from inside this call. */
	uv_timer_start(&c->timer, conn_resumed, 0, 0);
	uv_read_start((uv_stream_t *)&c->tcp, conn_alloc, conn_read);
}

size_t peer_send_queued(const struct peer_conn *c)
{
	return uv_stream_get_write_queue_size((const uv_stream_t *)&c->tcp);
}

void peer_close(struct peer_conn *c)
{
	conn_goodbye(c, -ECANCELED);
}

void peer_set_user(struct peer_conn *c, void *user)
{
	c->user = user;
}

void *peer_user(const struct peer_conn *c)
{
	return c->user;
}

const struct wn_addr *peer_remote(const struct peer_conn *c)
{
	return &c->remote;
}
