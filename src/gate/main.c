/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <getopt.h>
#include <linux/capability.h>
#include <net/if.h>
#include <pwd.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/config.h"
#include "base/log.h"
#include "base/notify.h"
#include "base/sandbox.h"
#include "gate/config.h"
#include "gate/control.h"
#include "gate/dataplane.h"
#include "gate/precheck.h"
#include "gate/writer.h"

#define CONFIG      "/etc/walnut/gate.yaml"
#define EXIT_FILE   2 /* the operator must change something; a supervisor need not try again */
#define READY       'r'
#define WRITER_CAPS (1ull << CAP_BPF | 1ull << CAP_NET_ADMIN | 1ull << CAP_PERFMON)

static int usage(void)
{
	printf("usage: walnut-gate [--config FILE] [--check | --remove]\n\n"
	       "  --config FILE  the gate's file; %s if not given\n"
	       "  --check        say what is wrong with the file, keys and interfaces, and change nothing\n"
	       "  --remove       take the packet path off the interfaces and forget all holes\n"
	       "  --help, --version\n\n"
	       "walnut-gate(8) and walnut-gate(5) explain them.\n",
	       CONFIG);
	return 0;
}

/* What gate_config_load leaves to the machine it runs on. */
static int check_machine(const char *file, const struct gate_config *cfg)
{
	int rc = 0;

	if (if_nametoindex(cfg->outside) == 0)
		rc = wn_config_bad(file, "outside.interface", "there is no interface \"%s\" here; `ip link` lists those there are",
				   cfg->outside);
	else if (if_nametoindex(cfg->inside) == 0)
		rc = wn_config_bad(file, "inside.interface", "there is no interface \"%s\" here; `ip link` lists those there are",
				   cfg->inside);
	else if (getpwnam(cfg->user) == NULL)
		rc = wn_config_bad(file, "user", "there is no user \"%s\" here; must be one without rights, such as nobody", cfg->user);
	return rc;
}

static int check_keys(const struct gate_config *cfg)
{
	struct peer_identity *id;
	int rc = peer_identity_load(cfg->keys, "gate", &id);

	if (rc == 0)
		peer_identity_free(id);
	return rc;
}

struct findings {
	const char *file;
	FILE *notes;
};

static void say_finding(enum gate_finding kind, const char *key, const char *text, void *arg)
{
	const struct findings *f = arg;

	if (kind == GATE_FINDING_WRONG)
		wn_config_bad(f->file, key, "%s", text);
	else
		fprintf(f->notes, "%s: %s: note: %s\n", f->file, key, text);
}

/* --check: everything that is wrong, not only the first; notes when nothing is, so that they hide no error. */
static int check_all(const char *file, const struct gate_config *cfg)
{
	struct findings f = {.file = file};
	char *notes = NULL;
	size_t n;
	int rc = 0;

	f.notes = open_memstream(&notes, &n);
	if (f.notes == NULL)
		return -ENOMEM;
	if (gate_precheck(cfg, say_finding, &f) > 0)
		rc = -EINVAL;
	if (getpwnam(cfg->user) == NULL)
		rc = wn_config_bad(file, "user", "there is no user \"%s\" here; must be one without rights, such as nobody", cfg->user);
	if (check_keys(cfg) < 0)
		rc = -EINVAL;
	if (fclose(f.notes) == 0 && rc == 0)
		fputs(notes, stdout);
	free(notes);
	return rc;
}

/* What stops no start, but would leave the operator with a gate that carries nothing. */
static void warn_of(enum gate_finding kind, const char *key, const char *text, void *arg)
{
	(void)arg;
	if (kind == GATE_FINDING_WRONG)
		wn_warn("%s: %s", key, text);
}

struct parser {
	uv_loop_t loop;
	struct gate_control *control;
};

static void parser_ended(int reason, void *arg)
{
	struct parser *p = arg;

	if (reason != -EPIPE)
		wn_err("the map writer cannot be understood: %s", strerror(-reason));
	gate_control_stop(p->control);
}

/* Nothing that the network sends is looked at before every right has gone. */
static int parser_confine(const char *user, pid_t parent)
{
	int rc = wn_drop_privileges(user, 0);

	if (rc < 0) {
		wn_err("cannot become %s: %s", user, strerror(-rc));
		return rc;
	}
	/* The kernel forgets this at a change of user, so it comes after; the parent may have gone meanwhile. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return -errno;
	if (getppid() != parent)
		return -EPIPE;
	rc = wn_seccomp(WN_SECCOMP_NET);
	if (rc < 0)
		wn_err("seccomp: %s", strerror(-rc));
	return rc;
}

/* The process that speaks with agents; the only one that ever holds the gate's private key. */
static int parser_main(const struct gate_config *cfg, int writer, pid_t parent)
{
	const char ready = READY;
	struct peer_identity *id;
	struct parser p;
	int rc;

	prctl(PR_SET_NAME, "walnut-gate-tls");
	if (peer_identity_load(cfg->keys, "gate", &id) < 0)
		return EXIT_FILE;
	rc = uv_loop_init(&p.loop);
	if (rc == 0)
		rc = gate_control_start(&p.loop, cfg, id, writer, parser_ended, &p, &p.control);
	if (rc == 0)
		rc = parser_confine(cfg->user, parent);
	if (rc < 0)
		return EXIT_FAILURE;
	if (send(writer, &ready, 1, MSG_NOSIGNAL) != 1)
		return EXIT_FAILURE;
	uv_run(&p.loop, UV_RUN_DEFAULT);
	gate_control_free(p.control);
	peer_identity_free(id);
	return EXIT_SUCCESS;
}

/* Waits until the parser has given up its rights. \return 0, or what the parser ended with. */
static int await_parser(int fd, pid_t parser)
{
	char c = 0;
	int status;
	ssize_t n;

	do
		n = recv(fd, &c, 1, 0);
	while (n < 0 && errno == EINTR);
	if (n == 1 && c == READY)
		return 0;
	if (waitpid(parser, &status, 0) == parser && WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return WEXITSTATUS(status);
	return EXIT_FAILURE;
}

static int writer_confine(const char *user)
{
	int rc = wn_drop_privileges(user, WRITER_CAPS);

	if (rc < 0) {
		wn_err("cannot become %s with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON alone: %s", user, strerror(-rc));
		return rc;
	}
	rc = wn_seccomp(WN_SECCOMP_WRITER);
	if (rc < 0)
		wn_err("seccomp: %s", strerror(-rc));
	return rc;
}

static int writer_main(const struct gate_config *cfg, int parser, int stop)
{
	int rc, manager = wn_notify_open();
	struct gate_dp *dp;

	prctl(PR_SET_NAME, "walnut-gate-map");
	rc = gate_dp_open(cfg, &dp);
	if (rc < 0)
		return EXIT_FAILURE;
	rc = writer_confine(cfg->user);
	if (rc == 0) {
		wn_info("ready");
		wn_notify_ready(manager);
		rc = gate_writer_run(cfg, dp, parser, stop);
		if (rc == 0)
			wn_info("ending; the packet path stays in place");
		else if (rc == -EPIPE)
			wn_err("the process that speaks with agents has ended; ending too, so that both are started again");
		else
			wn_err("map writer: %s", strerror(-rc));
	}
	gate_dp_close(dp);
	return rc == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int run(const struct gate_config *cfg)
{
	pid_t parent = getpid(), parser;
	sigset_t set;
	int sv[2], stop, rc;

	/* The parser keeps these blocked: it ends with the writer, in order. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	stop = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (stop < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) != 0) {
		wn_err("cannot start: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	/* Before the packet path is opened, so that the parser never has a descriptor of it. */
	parser = fork();
	if (parser < 0) {
		wn_err("cannot start the process that speaks with agents: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (parser == 0) {
		close(sv[0]);
		close(stop);
		_exit(parser_main(cfg, sv[1], parent));
	}
	close(sv[1]);
	rc = await_parser(sv[0], parser);
	if (rc != 0)
		return rc;
	rc = writer_main(cfg, sv[0], stop);
	/* The end of the pair is the parser's signal to end; ours ends it for certain. */
	shutdown(sv[0], SHUT_RDWR);
	close(sv[0]);
	return rc;
}

int main(int argc, char **argv)
{
	static const struct option option[] = {{"config", required_argument, NULL, 'c'}, {"check", no_argument, NULL, 'k'},
					       {"remove", no_argument, NULL, 'r'},       {"help", no_argument, NULL, 'h'},
					       {"version", no_argument, NULL, 'v'},      {NULL, 0, NULL, 0}};
	static struct gate_config cfg;
	bool check = false, take_away = false;
	const char *file = CONFIG;
	int opt;

	wn_log_init("walnut-gate", WN_LOG_INFO);
	opterr = 0;
	while ((opt = getopt_long(argc, argv, "+:h", option, NULL)) != -1) {
		switch (opt) {
		case 'c':
			file = optarg;
			break;
		case 'k':
			check = true;
			break;
		case 'r':
			take_away = true;
			break;
		case 'h':
			return usage();
		case 'v':
			printf("walnut-gate %s\n", WALNUT_VERSION);
			return 0;
		case ':':
			fprintf(stderr, "walnut-gate: %s must be followed by a value; walnut-gate --help lists the options\n",
				argv[optind - 1]);
			return EXIT_FILE;
		default:
			fprintf(stderr, "walnut-gate: unknown option %s; walnut-gate --help lists the options\n", argv[optind - 1]);
			return EXIT_FILE;
		}
	}
	if (optind < argc || (check && take_away)) {
		fprintf(stderr, "walnut-gate: %s; walnut-gate --help lists the options\n",
			optind < argc ? "takes options only" : "--check and --remove exclude each other");
		return EXIT_FILE;
	}
	if (sodium_init() < 0) {
		wn_err("no random numbers");
		return EXIT_FAILURE;
	}
	if (gate_config_load(file, &cfg) < 0)
		return EXIT_FILE;
	wn_secret_named_by(file, "keys");
	if (take_away)
		return gate_dp_remove(&cfg) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
	if (check ? check_all(file, &cfg) < 0 : check_machine(file, &cfg) < 0)
		return EXIT_FILE;
	if (check) {
		printf("%s: good\n", file);
		return EXIT_SUCCESS;
	}
	gate_precheck_frames(&cfg, warn_of, NULL);
	return run(&cfg);
}
