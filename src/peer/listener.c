/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>

#include "peer/conn.h"

#define BACKLOG 64

struct peer_listener {
	uv_tcp_t tcp;
	SSL_CTX *tls;
	struct peer_shared *shared;
};

static void push_out_oldest(struct peer_shared *s)
{
	for (struct peer_conn *c = s->oldest; c != NULL; c = c->newer) {
		if (!c->counted_up && c->state != PEER_CLOSED) {
			peer_conn_abort(c, -EBUSY);
			return;
		}
	}
}

static void listener_accept(uv_stream_t *stream, int status)
{
	struct peer_listener *l = (struct peer_listener *)stream->data;
	struct peer_shared *s = l->shared;
	struct sockaddr_storage ss;
	int len = sizeof(ss), rc;
	struct peer_conn *c;

	if (status < 0)
		return;
	if (s->unfinished >= PEER_UNFINISHED_MAX)
		push_out_oldest(s);
	c = peer_conn_new(stream->loop, s, AF_UNSPEC, true);
	if (c == NULL)
		return;
	rc = uv_accept(stream, (uv_stream_t *)&c->tcp);
	if (rc == 0 && s->up >= s->max_connections)
		rc = -EMFILE;
	if (rc == 0)
		rc = uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&ss, &len);
	if (rc == 0) {
		wn_addr_from_sockaddr(&c->remote, &ss);
		rc = peer_conn_tls(c, l->tls);
	}
	if (rc < 0)
		peer_conn_abort(c, rc);
	else
		peer_conn_start(c);
}

static void listener_closed(uv_handle_t *h)
{
	struct peer_listener *l = (struct peer_listener *)h->data;

	SSL_CTX_free(l->tls);
	peer_shared_release(l->shared);
	free(l);
}

int peer_listen(uv_loop_t *loop, const struct peer_identity *id, const struct wn_addr *addr, const struct peer_options *opt,
		const struct peer_events *ev, void *arg, struct peer_listener **out)
{
	struct peer_listener *l = (struct peer_listener *)calloc(1, sizeof(*l));
	struct sockaddr_storage ss;
	int rc;

	*out = NULL;
	if (l == NULL)
		return -ENOMEM;
	l->shared = peer_shared_new(opt, ev, arg);
	if (l->shared == NULL) {
		free(l);
		return -ENOMEM;
	}
	rc = uv_tcp_init(loop, &l->tcp);
	if (rc < 0) {
		peer_shared_release(l->shared);
		free(l);
		return rc;
	}
	peer_tls_prepare(id->tls);
	SSL_CTX_up_ref(id->tls);
	l->tls = id->tls;
	l->tcp.data = l;
	wn_addr_to_sockaddr(addr, &ss);
	rc = uv_tcp_bind(&l->tcp, (const struct sockaddr *)&ss, 0);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&l->tcp, BACKLOG, listener_accept);
	if (rc < 0) {
		peer_listener_close(l);
		return rc;
	}
	*out = l;
	return 0;
}

void peer_listener_close(struct peer_listener *l)
{
	uv_close((uv_handle_t *)&l->tcp, listener_closed);
}

int peer_listener_addr(const struct peer_listener *l, struct wn_addr *out)
{
	struct sockaddr_storage ss;
	int len = sizeof(ss);
	int rc = uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&ss, &len);

	if (rc == 0)
		wn_addr_from_sockaddr(out, &ss);
	return rc;
}
