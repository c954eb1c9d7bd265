/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/config.h"
#include "base/ctl.h"
#include "base/log.h"
#include "base/metrics_http.h"
#include "base/notify.h"
#include "base/sandbox.h"
#include "front/budgets.h"
#include "front/check.h"
#include "front/config.h"
#include "front/grace.h"
#include "front/loader.h"
#include "front/relay.h"
#include "front/reload.h"
#include "front/snapshot.h"
#include "front/status.h"
#include "front/steer.h"
#include "front/stream.h"
#include "front/tls.h"
#include "front/watchdog.h"
#include "front/worker.h"

#define EXIT_USAGE        2
#define CONNECTIONS_MIN   16u /* of each worker: with fewer descriptors it makes no sense to listen on TCP */
#define DRAIN_LOOK_MS     5
#define REAP_MS           100
#define DESCRIPTORS_OTHER 64u /* log, control, metrics, state, libraries */

struct front {
	struct front_config config;
	struct front_shared shared;
	struct front_snapshots *snapshots; /* NULL: nothing is kept on disk */
	struct front_relay *relay;
	struct front_worker *worker[FRONT_WORKERS_MAX];
	unsigned nworkers;
	struct peer_identity *identity;
	struct front_tls *tls; /* NULL: no listener asks for it */
	struct ctl_server *ctl;
	uv_loop_t loop;
	uv_signal_t term, interrupt;
	struct wn_metrics *metrics;
	uv_timer_t watch;
	struct front_watchdog watchdog;
	int manager; /* the service manager, or -1 */
	const char *file;
	struct front_loader *loader; /* NULL: no reload */
	uv_poll_t loaded;
	uv_signal_t hangup;
	bool again; /* asked for once more while a reload runs */
	struct front_grace grace;
	uv_timer_t reap;
	uv_timer_t drain;
	uint64_t drain_turn[FRONT_WORKERS_MAX], drain_until_ms;
	uint64_t started_ms;
};

static void usage(FILE *to)
{
	fputs("usage: walnut-front --config FILE [--check]\n"
	      "       walnut-front --help | --version\n"
	      "\n"
	      "The part of Walnut that strangers can talk to: challenges, authenticates and relays sign-ins (SIP over UDP, TCP and TLS).\n"
	      "\n"
	      "  --config FILE  what to do; walnut-front(5)\n"
	      "  --check        check FILE, what it names, and this host's addresses, and exit\n"
	      "  --help         print this\n"
	      "  --version      print the version\n",
	      to);
}

static struct front_sources sources(const struct front *f)
{
	return (struct front_sources){&f->shared, f->relay, f->worker, f->nworkers, f->started_ms};
}

static json_t *on_ctl(const json_t *request, void *arg)
{
	const struct front_sources s = sources(arg);
	const char *cmd = json_string_value(json_object_get(request, "cmd"));

	if (cmd != NULL && strcmp(cmd, "status") == 0)
		return front_status(&s);
	if (cmd != NULL && strcmp(cmd, "why") == 0)
		return front_status_why(&s, json_string_value(json_object_get(request, "about")));
	return ctl_error("a front knows the commands status and why, not %s", cmd != NULL ? cmd : "that");
}

static void on_scrape(struct wn_scrape *scrape, void *arg)
{
	const struct front_sources s = sources(arg);
	char *text = NULL;
	size_t n = front_status_metrics(&s, &text);

	wn_metrics_answer(scrape, text, n);
	free(text);
}

static void turns(const struct front *f, uint64_t turn[static FRONT_WORKERS_MAX])
{
	for (unsigned i = 0; i < f->nworkers; i++)
		turn[i] = front_worker_turns(f->worker[i]);
}

/* The service manager is told that we live by who proves it: this loop, when every worker has turned. */
static void on_watchdog(uv_timer_t *t)
{
	struct front *f = t->data;
	uint64_t turn[FRONT_WORKERS_MAX];
	int stands;

	turns(f, turn);
	stands = front_watchdog_look(&f->watchdog, turn, f->nworkers);
	if (stands < 0)
		wn_notify(f->manager, WN_NOTIFY_WATCHDOG);
	else
		wn_err("worker %d stands still", stands);
}

static void watch_over(struct front *f)
{
	uint64_t us = wn_notify_watchdog_us();

	uv_timer_init(&f->loop, &f->watch);
	uv_timer_init(&f->loop, &f->drain);
	uv_timer_init(&f->loop, &f->reap);
	f->reap.data = f->watch.data = f->drain.data = f->term.data = f->interrupt.data = f;
	if (us > 0 && f->manager >= 0)
		uv_timer_start(&f->watch, on_watchdog, us / 2000, us / 2000 > 0 ? us / 2000 : 1);
}

/* Calls that still need this front, known when every worker has gone round since it takes no new ones: twice, as it may have been about
 * to begin one. */
static void on_drain(uv_timer_t *t)
{
	struct front *f = t->data;
	uint64_t turn[FRONT_WORKERS_MAX];
	unsigned calls = 0;
	bool known = true;

	turns(f, turn);
	for (unsigned i = 0; i < f->nworkers; i++) {
		calls += front_worker_unsettled(f->worker[i]);
		known = known && turn[i] >= f->drain_turn[i] + 2;
		front_worker_wake(f->worker[i]);
	}
	if (known && calls == 0) {
		uv_stop(&f->loop);
	} else if (wn_now_ms() >= f->drain_until_ms) {
		wn_warn("%u call%s without an answer, or an ACK, after %u s", calls, calls == 1 ? "" : "s", f->config.drain_s);
		uv_stop(&f->loop);
	}
}

/* The first time: no new calls, and those that are live come to their end. The second: now. */
static void on_signal(uv_signal_t *h, int signum)
{
	struct front *f = h->data;

	(void)signum;
	if (atomic_exchange(&f->shared.draining, true)) {
		uv_stop(&f->loop);
		return;
	}
	wn_notify(f->manager, WN_NOTIFY_STOPPING);
	turns(f, f->drain_turn);
	f->drain_until_ms = wn_now_ms() + f->config.drain_s * 1000;
	uv_timer_start(&f->drain, on_drain, 0, DRAIN_LOOK_MS);
}

static void read_turns(void *arg, uint64_t *turn)
{
	turns(arg, turn);
}

static void on_reap(uv_timer_t *t)
{
	struct front *f = t->data;
	uint64_t turn[FRONT_WORKERS_MAX];

	turns(f, turn);
	if (front_grace_look(&f->grace, turn) == 0)
		uv_timer_stop(t);
}

static int put_into_effect(struct front *f, const char *text, size_t n)
{
	const struct front_reload r = {&f->config, &f->shared, f->relay, &f->grace, f->nworkers};
	struct front_config fresh;
	int rc = front_config_parse(f->file, text, n, &fresh);

	if (rc == 0)
		rc = front_reload_apply(&r, &fresh, read_turns, f);
	uv_timer_start(&f->reap, on_reap, REAP_MS, REAP_MS);
	return rc;
}

static void ask_loader(struct front *f);

static void on_loaded(uv_poll_t *h, int status, int events)
{
	struct front *f = h->data;
	char *text = NULL;
	size_t n = 0;
	int rc = front_loader_take(f->loader, &text, &n);

	(void)status;
	(void)events;
	if (rc == -EAGAIN)
		return;
	if (rc == -EPIPE)
		uv_poll_stop(h);
	if (rc == 0)
		rc = put_into_effect(f, text, n);
	free(text);
	if (rc == 0)
		wn_info("%s has been read again", f->file);
	else
		wn_err("%s has not been read again, and everything stays as it was: %s", f->file,
		       rc == -EINVAL ? "it is wrong" : strerror(-rc));
	wn_notify(f->manager, WN_NOTIFY_READY);
	if (f->again)
		ask_loader(f);
}

static void ask_loader(struct front *f)
{
	int rc = f->loader != NULL ? front_loader_ask(f->loader) : -EPIPE;

	f->again = rc == -EBUSY;
	if (rc == 0)
		wn_notify(f->manager, WN_NOTIFY_RELOADING);
	else if (rc != -EBUSY)
		wn_err("%s cannot be read again: the process that may read it has gone; restart", f->file);
}

static void on_hangup(uv_signal_t *h, int signum)
{
	(void)signum;
	ask_loader(h->data);
}

/* SO_REUSEPORT lets a second process of the same user in and take a share of the datagrams: whoever is there already must be noticed. */
static int alone(const struct wn_addr *addr)
{
	struct sockaddr_storage ss;
	socklen_t len = wn_addr_to_sockaddr(addr, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0), r = 0;

	if (fd < 0)
		return -errno;
	if (bind(fd, (struct sockaddr *)&ss, len) != 0)
		r = -errno;
	close(fd);
	return r;
}

/* From the file's routes to the process's hops. */
static int route(struct front *f, struct front_tenant_config *t)
{
	int hop[FRONT_HOPS_MAX] = {0};

	for (unsigned i = 0; i < t->nroutes; i++) {
		hop[i] = front_shared_add_hop(&f->shared, t->route[i].transport, &t->route[i].addr);
		if (hop[i] < 0)
			return hop[i];
	}
	for (unsigned i = 0; i < t->policy.nservices; i++)
		t->policy.service[i].hop = (unsigned)hop[t->policy.service[i].hop - 1];
	return 0;
}

/* Without them a front serves all the same; it only cannot keep the largest floods out of everybody's queue. */
static void steer(struct front *f)
{
	for (unsigned i = 0; i < f->shared.nlisteners; i++) {
		struct front_listener *l = &f->shared.listener[i];
		int r = l->transport == FRONT_UDP ? front_steer_new(f->config.threads, &l->steer) : 0;

		if (r != 0)
			wn_warn("%s: strangers share one queue with everybody else: the steering program cannot be loaded: %s", l->host,
				strerror(-r));
	}
}

static int share(struct front *f)
{
	int r;

	f->shared.tenant = calloc(f->config.ntenants, sizeof(*f->shared.tenant));
	if (f->shared.tenant == NULL)
		return -ENOMEM;
	f->shared.ntenants = f->config.ntenants;
	f->shared.feed_max_age_s = f->config.feed_max_age_s;
	for (unsigned i = 0; i < f->config.ntenants; i++) {
		const struct front_tenant_config *from = &f->config.tenant[i];
		struct front_tenant *to = &f->shared.tenant[i];

		memcpy(to->domain, from->domain, sizeof(to->domain));
		atomic_store(&to->policy, &from->policy);
	}
	r = nonce_window_new(f->config.nonce_ring_bits, f->config.nonce_lifetime_s * 1000, NULL, &f->shared.nonces);
	if (r == 0)
		r = front_shared_init(&f->shared, &f->config.listen);
	for (unsigned i = 0; r >= 0 && i < f->config.nalso; i++)
		r = front_shared_add_listener(&f->shared, f->config.also_listen[i].transport, &f->config.also_listen[i].addr);
	for (unsigned i = 0; r >= 0 && i < f->config.ntenants; i++)
		r = route(f, &f->config.tenant[i]);
	if (r >= 0)
		steer(f);
	return r < 0 ? r : 0;
}

static bool listens_on(const struct front *f, enum front_transport a, enum front_transport b)
{
	for (unsigned i = 0; i < f->config.nalso; i++)
		if (f->config.also_listen[i].transport == a || f->config.also_listen[i].transport == b)
			return true;
	return false;
}

/* Connections are as many as there are descriptors for: accept must not fail for want of one. */
static int find_descriptors(struct front *f)
{
	const uint32_t other =
		DESCRIPTORS_OTHER + 4 * f->config.ntenants + 16 + f->config.threads * (FRONT_LISTENERS_MAX + FRONT_HOPS_MAX + 8);
	uint32_t want = f->config.streams.connections + other, have = front_streams_descriptors(want);

	if (have >= want)
		return 0;
	if (have < other + CONNECTIONS_MIN * f->config.threads) {
		wn_err("only %u files may be open; %u are needed, with streams.max_connections as it is %u: raise the limit (LimitNOFILE)",
		       have, other + CONNECTIONS_MIN * f->config.threads, want);
		return -EMFILE;
	}
	wn_warn("only %u files may be open, so that there are at most %u connections and not %u; raise the limit (LimitNOFILE) to %u", have,
		have - other, f->config.streams.connections, want);
	f->config.streams.connections = have - other;
	return 0;
}

/* Everything that may need root: sockets, keys. */
static int open_all(struct front *f)
{
	struct front_relay_options ropt = {&f->config, &f->shared, f->identity, NULL};
	struct front_stream_limits limits;
	char addr[WN_ADDR_STR];
	int r = listens_on(f, FRONT_TCP, FRONT_TLS) ? find_descriptors(f) : 0;

	if (r != 0)
		return r;
	stream_limits_share(&f->config.streams, f->config.threads, &limits);
	r = share(f);

	if (r != 0) {
		wn_err("cannot start: %s", strerror(-r));
		return r;
	}
	if (f->config.state[0] != '\0') {
		r = front_snapshots_open(f->config.state, f->config.user, f->config.ntenants, &f->snapshots);
		if (r != 0)
			return r;
		ropt.snapshots = f->snapshots;
	}
	r = front_relay_new(&f->loop, &ropt, &f->relay);
	if (r != 0) {
		wn_err("cannot listen for agents on %s: %s", wn_addr_str(&f->config.agents, addr), strerror(-r));
		return r;
	}
	r = alone(&f->config.listen);
	for (unsigned i = 0; r == 0 && i < f->config.threads; i++) {
		struct front_worker_options wopt = {.shared = &f->shared,
						    .io = &front_io_udp,
						    .index = i,
						    .streams = &limits,
						    .backlog = f->config.backlog,
						    .tls = f->tls,
						    .notify = front_relay_notify,
						    .notify_arg = f->relay};

		wopt.strangers_max = f->config.strangers_max;
		wopt.batch_wait_us = f->config.batch_wait_us;
		wopt.strangers_per_s = (f->config.strangers_per_s + f->config.threads - 1) / f->config.threads;

		r = front_worker_new(&wopt, &f->worker[i]);
		if (r == 0)
			f->nworkers++;
	}
	if (r != 0) {
		wn_err("cannot listen on %s: %s", wn_addr_str(&f->config.listen, addr), strerror(-r));
		return r;
	}
	front_relay_set_workers(f->relay, f->worker, f->nworkers);
	r = ctl_listen(&f->loop, f->config.socket, on_ctl, f, &f->ctl);
	if (r != 0)
		wn_err("cannot listen on %s: %s", f->config.socket, strerror(-r));
	if (r == 0 && f->config.has_metrics) {
		r = wn_metrics_listen(&f->loop, &f->config.metrics, on_scrape, f, &f->metrics);
		if (r != 0)
			wn_err("cannot serve metrics on %s: %s", wn_addr_str(&f->config.metrics, addr), strerror(-r));
	}
	return r;
}

/* Nobody's own files, so it is done as the user that the process has become. */
static int load_users(struct front *f)
{
	int r = 0;

	for (unsigned i = 0; f->snapshots != NULL && r == 0 && i < f->config.ntenants; i++)
		r = front_snapshots_load(f->snapshots, i, f->config.tenant[i].domain, f->config.tenant[i].signing_key,
					 f->shared.tenant[i].users);
	return r;
}

static int serve(struct front *f)
{
	char addr[WN_ADDR_STR];
	int r;

	f->manager = wn_notify_open();
	r = open_all(f);

	if (r == 0)
		r = uv_signal_init(&f->loop, &f->term);
	if (r == 0)
		r = uv_signal_init(&f->loop, &f->interrupt);
	if (r == 0)
		r = uv_signal_start(&f->term, on_signal, SIGTERM);
	if (r == 0)
		r = uv_signal_start(&f->interrupt, on_signal, SIGINT);
	f->hangup.data = f->loaded.data = f;
	if (r == 0)
		r = uv_signal_init(&f->loop, &f->hangup);
	if (r == 0)
		r = uv_signal_start(&f->hangup, on_hangup, SIGHUP);
	if (r == 0)
		r = uv_poll_init(&f->loop, &f->loaded, front_loader_fd(f->loader));
	if (r == 0)
		r = uv_poll_start(&f->loaded, UV_READABLE, on_loaded);
	if (r != 0)
		return r;
	r = wn_drop_privileges(f->config.user, 0);
	if (r == 0) {
		r = load_users(f);
		if (r != 0)
			return r;
		r = wn_seccomp(f->snapshots != NULL ? WN_SECCOMP_STATE : WN_SECCOMP_NET);
	}
	if (r != 0) {
		wn_err("cannot give up privileges: %s", strerror(-r));
		return r;
	}
	if (f->snapshots != NULL)
		r = front_snapshots_start(f->snapshots);
	for (unsigned i = 0; r == 0 && i < f->nworkers; i++)
		r = front_worker_start(f->worker[i]);
	if (r != 0) {
		wn_err("cannot start a thread: %s", strerror(-r));
		return r;
	}
	wn_info("listening on %s, %u worker%s, %u tenant%s", wn_addr_str(&f->config.listen, addr), f->nworkers, f->nworkers == 1 ? "" : "s",
		f->config.ntenants, f->config.ntenants == 1 ? "" : "s");
	watch_over(f);
	wn_notify(f->manager, WN_NOTIFY_READY);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	wn_info("ending");
	return 0;
}

static void close_all(struct front *f)
{
	for (unsigned i = 0; i < f->nworkers; i++)
		front_worker_free(f->worker[i]);
	f->nworkers = 0; /* the loop turns on below, and who asks must not look at them */
	uv_timer_stop(&f->watch);
	uv_timer_stop(&f->drain);
	uv_timer_stop(&f->reap);
	if (f->loaded.loop != NULL)
		uv_poll_stop(&f->loaded);
	front_grace_end(&f->grace);
	if (f->ctl != NULL)
		ctl_close(f->ctl);
	if (f->metrics != NULL)
		wn_metrics_close(f->metrics);
	front_relay_free(f->relay);
	front_snapshots_close(f->snapshots);
	for (unsigned i = 0; i < f->shared.nlisteners; i++)
		front_steer_free(f->shared.listener[i].steer);
	front_shared_fini(&f->shared);
	nonce_window_free(f->shared.nonces);
	free(f->shared.tenant);
	front_tls_free(f->tls);
	peer_identity_free(f->identity);
	front_loader_stop(f->loader);
	front_config_free(&f->config);
}

/* What proves who this front is, to agents and to callers. */
static int load_keys(struct front *f, const char *file)
{
	int r;

	wn_secret_named_by(file, "keys");
	r = peer_identity_load(f->config.keys, "front", &f->identity);
	wn_secret_named_by(file, "tls_key");
	if (r == 0 && listens_on(f, FRONT_TLS, FRONT_TLS))
		r = front_tls_new(f->config.tls_certificate, f->config.tls_key, &f->tls);
	return r;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	static struct front f;
	const struct rlimit no_core = {0, 0};
	const char *file = NULL;
	bool check = false;
	int o, r;

	opterr = 0;
	while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (o) {
		case 'c':
			file = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'h':
			usage(stdout);
			return 0;
		case 'V':
			puts("walnut-front " WALNUT_VERSION);
			return 0;
		default:
			fprintf(stderr, "walnut-front: what is \"%s\"? try --help\n", argv[optind - 1]);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		fprintf(stderr, "walnut-front: what is \"%s\"? try --help\n", argv[optind]);
		return EXIT_USAGE;
	}
	if (file == NULL) {
		fputs("walnut-front: --config FILE is missing; try --help\n", stderr);
		return EXIT_USAGE;
	}
	if (sodium_init() < 0)
		return EXIT_FAILURE;
	wn_log_init("walnut-front", WN_LOG_INFO);
	if (front_config_load(file, &f.config) != 0)
		return EXIT_USAGE;
	if (check) {
		r = front_check_files(file, &f.config, stdout);
		if (front_check_machine(file, &f.config) != 0)
			r = -EINVAL;
		front_config_free(&f.config);
		return r != 0 ? EXIT_USAGE : 0;
	}
	r = load_keys(&f, file);
	if (r != 0) {
		front_tls_free(f.tls);
		peer_identity_free(f.identity);
		front_config_free(&f.config);
		return EXIT_USAGE;
	}
	setrlimit(RLIMIT_CORE, &no_core); /* a core would hold keys */
	f.file = file;
	r = front_loader_start(file, &f.loader);
	if (r != 0) {
		wn_err("cannot start: %s", strerror(-r));
		return EXIT_FAILURE;
	}
	f.started_ms = wn_now_ms();
	uv_loop_init(&f.loop);
	r = serve(&f);
	close_all(&f);
	return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
