/* SPDX-License-Identifier: Apache-2.0 */
/** \file The load generator of the front's bench. One thread; loopback only; ends by count or time. */
#pragma once

#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/span.h"
#include "sip/build.h"

#define LOAD_BATCH       64u
#define LOAD_PORTS_MAX   16u
#define LOAD_SECONDS_MAX 120u
#define LOAD_COUNT_MAX   200000000u
#define LOAD_ADDRS_MAX   16384u
#define LOAD_TEXT        2048u  /* a message at most */
#define LOAD_FIRST_PORT  20000u /* five digits */

/** Set by SIGINT, SIGTERM and the alarm that main arms. */
extern volatile sig_atomic_t load_stop;

/** A counter and a time bound are always in force. */
struct load_options {
	struct sockaddr_in to;  /* the server */
	struct sockaddr_in uas; /* where our respondent listens; port 0: none */
	const char *domain, *service;
	uint64_t count;   /* 0: only by time */
	unsigned seconds; /* of load; what is open then is awaited */
	uint64_t rate;    /* a second; 0: as fast as it goes */
	unsigned window;  /* at most so many unanswered */
	unsigned addresses, ports, first_port;
	unsigned segments; /* datagrams a send, where one buffer can hold several (UDP_SEGMENT) */
	unsigned size;     /* of a stranger's request */
	const char *auth;  /* none, challenge, next */
	const char *alg;   /* md5, sha-256 */
	uint64_t users;
	uint64_t seed;
	unsigned deadline_ms; /* later than that is not connected */
	bool retransmit;
	bool hold;        /* no ACK, no BYE: transactions stay */
	const char *save; /* where calls writes its INVITEs, from where replay takes them */
	const char *method;
	bool other_port, other_bytes; /* of replays */
	unsigned burst, pid;          /* pours so many while that process is stopped, then lets it take them all; 0: pours on */
	unsigned warm_s;              /* calls: not counted before that */
};

/** 127/8 and nothing else. */
bool load_guard(const struct sockaddr_in *to);
uint64_t load_now_ns(void);
/** Not for secrets. */
uint64_t load_random(void);

/** Paces `rate` a second; at most 20 ms worth is due at once, what is beyond that is told as missed. */
struct load_pace {
	uint64_t start, rate, done, missed;
};
void load_pace_start(struct load_pace *p, uint64_t rate);
unsigned load_due(struct load_pace *p, unsigned most);

/* ---- sockets: `ports` of them, each sends from any address of 127/8 */

struct load_pkt {
	char *data;
	size_t n;
	struct sockaddr_in peer;
	uint32_t own; /* our address it came to, network order; 0 unless asked for */
};

struct load_net;
enum { LOAD_OWN = 1 /* tell the own address */, LOAD_DEAF = 2 /* nothing is received */ };
/** at: what to bind to, of the first of `ports` sockets; the others have the ports that follow. \return 0 or negative errno. */
int load_net_new(const struct sockaddr_in *at, unsigned ports, unsigned flags, struct load_net **out);
void load_net_free(struct load_net *n);
unsigned load_net_port(const struct load_net *n, unsigned sock);
int load_net_fd(const struct load_net *n, unsigned sock);
/** The data must stay until the flush. src 0: the socket's own. segment 0: one datagram. */
void load_put(struct load_net *n, unsigned sock, uint32_t src, const struct sockaddr_in *to, const void *p, size_t len, uint16_t segment);
void load_flush(struct load_net *n);
/** Up to LOAD_BATCH; valid until the next call for this socket. */
unsigned load_recv(struct load_net *n, unsigned sock, struct load_pkt **out);
/** Sleeps at most 1 ms, until one of these has something. b may be NULL. */
void load_wait(const struct load_net *a, const struct load_net *b);
uint64_t load_sent(const struct load_net *n);
uint64_t load_unsent(const struct load_net *n);

/** Begins a burst when the last is through: stops the process. sent: datagrams so far. */
void load_burst(const struct load_options *o, uint64_t sent);
/** Lets it go on, and waits until it has taken everything. */
void load_burst_end(const struct load_options *o);

/* ---- text */

/** The index-th address of ours, 127.100.100.100 and on: all equally long as text. Network order. */
uint32_t load_address(unsigned index);
void load_put_address(struct sip_buf *b, uint32_t addr);
void load_put_hex(struct sip_buf *b, uint64_t v);
void load_hex(char *to, uint64_t v); /* 16 digits */
uint64_t load_unhex(const char *p, unsigned n);
void load_put_number(struct sip_buf *b, uint64_t v);

/** What is looked at in a message; p == NULL: not there. */
#define SEEN_MAX 4u
struct load_seen {
	unsigned status; /* 0: a request */
	struct span method, from, to, call_id, cseq, contact, info;
	struct span via[SEEN_MAX], route[SEEN_MAX], challenge[SEEN_MAX];
	unsigned nvia, nroute, nchallenge;
};
void load_see(struct span m, struct load_seen *s);
/** Between < and >, else all. */
struct span load_uri(struct span v);

/* ---- users and digests */

struct load_digest;
int load_digest_new(const struct load_options *o, struct load_digest **out);
void load_digest_free(struct load_digest *d);
/** The name of user `index`: \return its length. */
size_t load_user_name(uint64_t index, char name[16]);

/** A challenge that is kept. */
struct load_nonce {
	char realm[64], nonce[160], opaque[40];
	bool sha256, qop;
};
/** The challenge of the algorithm that is wanted. False: none. */
bool load_challenge(const struct load_digest *d, const struct load_seen *s, struct load_nonce *out);
/** Proxy-Authorization: … with its line end; spoil: a wrong response of the same length. */
void load_credentials(struct load_digest *d, const struct load_nonce *n, uint64_t user, struct span method, struct span uri, bool spoil,
		      struct sip_buf *b);

/* ---- modes; each prints one JSON object and returns an exit status */

int load_strangers(const struct load_options *o);
int load_flood(const struct load_options *o);
int load_nodialog(const struct load_options *o);
int load_replay(const struct load_options *o);
int load_calls(const struct load_options *o);
int load_tcp(const struct load_options *o);
int load_badnonce(const struct load_options *o);
int load_users(const struct load_options *o);
