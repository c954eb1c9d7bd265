/* SPDX-License-Identifier: Apache-2.0 */
/** \file walnut-agent: see walnut-agent(8). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <sodium.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "agent/agent.h"
#include "base/config.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/sandbox.h"

#define DEFAULT_FILE "/etc/walnut/agent.yaml"

static const char usage[] = "usage: walnut-agent [--config FILE] [--check] [--verbose]\n"
			    "       walnut-agent --help | --version\n";

static const struct option options[] = {
	{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},   {"verbose", no_argument, NULL, 'v'},
	{"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'V'}, {NULL, 0, NULL, 0},
};

static void on_signal(uv_signal_t *s, int number)
{
	(void)number;
	agent_stop(s->data);
	uv_close((uv_handle_t *)s, NULL);
}

static int check(const struct agent_config *cfg)
{
	struct agent_secrets secrets;
	struct peer_identity *id = NULL;
	int rc = agent_secrets_load(cfg, &secrets);

	sodium_memzero(&secrets, sizeof(secrets));
	if (rc == 0)
		rc = peer_identity_load(cfg->keys, "agent", &id);
	peer_identity_free(id);
	if (rc < 0)
		return 2;
	printf("%s: ok\n", cfg->file);
	return 0;
}

static int run(const struct agent_config *cfg)
{
	static const int signals[2] = {SIGTERM, SIGINT};
	uv_signal_t watch[2];
	struct agent *agent;
	uv_loop_t loop;
	int rc, manager = wn_notify_open();

	rc = uv_loop_init(&loop);
	if (rc < 0) {
		wn_err("cannot make an event loop: %s", uv_strerror(rc));
		return 1;
	}
	rc = agent_open(&loop, cfg, &agent);
	if (rc < 0)
		return rc == -EINVAL || rc == -EPERM || rc == -ENOENT ? 2 : 1;

	/* From here on nothing but the network is read: no root, no capability, a short list of system calls. */
	rc = wn_drop_privileges(cfg->user, 0);
	if (rc < 0) {
		wn_err("cannot become user %s: %s", cfg->user, strerror(-rc));
		return 1;
	}
	for (unsigned i = 0; i < 2; i++) {
		uv_signal_init(&loop, &watch[i]);
		watch[i].data = agent;
		uv_signal_start_oneshot(&watch[i], on_signal, signals[i]);
		uv_unref((uv_handle_t *)&watch[i]);
	}
	rc = wn_seccomp(WN_SECCOMP_FILES);
	if (rc < 0) {
		wn_err("cannot install the seccomp filter: %s", strerror(-rc));
		return 1;
	}
	rc = agent_start(agent);
	if (rc < 0) {
		wn_err("cannot start: %s", strerror(-rc));
		return 1;
	}
	wn_info("serving %s: %u services, %u fronts", cfg->domain, cfg->nservices, cfg->nfronts);
	wn_notify_ready(manager);
	uv_run(&loop, UV_RUN_DEFAULT);
	agent_free(agent);
	return 0;
}

int main(int argc, char **argv)
{
	const char *file = DEFAULT_FILE;
	bool check_only = false, verbose = false;
	struct agent_config cfg;
	int c, rc;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			file = optarg;
			break;
		case 'k':
			check_only = true;
			break;
		case 'v':
			verbose = true;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		case 'V':
			puts("walnut-agent " WALNUT_VERSION);
			return 0;
		default:
			return 2; /* getopt has said what is wrong */
		}
	}
	if (optind < argc) {
		fprintf(stderr, "walnut-agent: unexpected argument \"%s\"; see walnut-agent --help\n", argv[optind]);
		return 2;
	}
	wn_log_init("walnut-agent", verbose ? WN_LOG_DEBUG : WN_LOG_INFO);
	if (sodium_init() < 0) {
		wn_err("libsodium does not start");
		return 1;
	}
	if (agent_config_load(file, &cfg) < 0)
		return 2;
	wn_secret_named_by(file, "keys");
	rc = check_only ? check(&cfg) : run(&cfg);
	agent_config_free(&cfg);
	return rc;
}
