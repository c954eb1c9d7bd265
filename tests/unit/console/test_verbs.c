/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ctl.h"
#include "console/verbs.h"
#include "peer/peer.h"

#define PIN "sha256:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

static char dir[64], sock[96];
static char out[65536], err[65536]; /* what the last verb printed */

static void slurp(const char *name, char *buf, size_t cap)
{
	char path[96];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, buf, cap - 1);
	assert_true(n >= 0);
	buf[n] = 0;
	close(fd);
	unlink(path);
}

static int divert(FILE *f, int fd, const char *name)
{
	char path[96];
	int saved, to;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fflush(f);
	saved = dup(fd);
	to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	dup2(to, fd);
	close(to);
	return saved;
}

static void restore(FILE *f, int fd, int saved)
{
	fflush(f);
	dup2(saved, fd);
	close(saved);
}

/* Runs a verb with the words of `line`; @ stands for the scratch folder. */
static int run(int (*verb)(int, char **), const char *line)
{
	char words[1024], *argv[32], *save = NULL;
	size_t n = 0;
	int argc = 0, rc, o, e;

	for (const char *p = line; *p != 0 && n < sizeof(words) - sizeof(dir); p++)
		if (*p == '@')
			n += (size_t)snprintf(words + n, sizeof(words) - n, "%s", dir);
		else
			words[n++] = *p;
	words[n] = 0;
	for (char *w = strtok_r(words, " ", &save); w != NULL; w = strtok_r(NULL, " ", &save))
		argv[argc++] = w;
	argv[argc] = NULL;
	o = divert(stdout, 1, "out");
	e = divert(stderr, 2, "err");
	rc = verb(argc, argv);
	restore(stdout, 1, o);
	restore(stderr, 2, e);
	slurp("out", out, sizeof(out));
	slurp("err", err, sizeof(err));
	return rc;
}

static void one_line_of_error(void)
{
	assert_true(err[0] != 0);
	assert_ptr_equal(strchr(err, '\n'), err + strlen(err) - 1);
}

static mode_t mode_of(const char *name)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return stat(path, &st) == 0 ? st.st_mode & 07777 : 0;
}

static void forget(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(remove(path), 0);
}

static void keys(void **state)
{
	char made[1024];
	struct peer_pin pin;

	(void)state;
	umask(022);
	assert_int_equal(run(cmd_keys, "keys init front @/etc/keys"), 0);
	assert_int_equal(strncmp(out, "pin: sha256:", 12), 0);
	assert_null(strstr(out, "signing_key"));
	assert_int_equal(mode_of("etc"), 0755);
	assert_int_equal(mode_of("etc/keys"), 0700);
	assert_int_equal(mode_of("etc/keys/front.key"), 0600);
	assert_int_equal(mode_of("etc/keys/front.crt"), 0644);
	assert_int_equal(mode_of("etc/keys/tenant.sign"), 0);

	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 0);
	assert_int_equal(peer_pin_parse(span_of(out + 5, strcspn(out + 5, "\n")), &pin), 0);
	assert_non_null(strstr(out, "\nsigning_key: ed25519:"));
	assert_int_equal(mode_of("etc/keys/tenant.sign"), 0600);
	assert_int_equal(mode_of("etc/keys/tenant.route"), 0600);
	memcpy(made, out, sizeof(made));
	assert_int_equal(run(cmd_keys, "keys show agent @/etc/keys"), 0);
	assert_string_equal(out, made);

	/* Nothing is overwritten, whichever part of it is there. */
	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 2);
	one_line_of_error();
	forget("etc/keys/agent.key");
	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 2);
	forget("etc/keys/agent.crt");
	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 2);
	assert_non_null(strstr(err, "tenant.sign is there already"));
	assert_int_equal(mode_of("etc/keys/agent.key"), 0);
	forget("etc/keys/tenant.sign");
	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 2);
	assert_non_null(strstr(err, "tenant.route is there already"));
	forget("etc/keys/tenant.route");
	assert_int_equal(run(cmd_keys, "keys init agent @/etc/keys"), 0);
	assert_string_not_equal(out, made);
	memcpy(made, out, sizeof(made));

	/* A secret that others may read shows nothing, not even its public half. */
	chmod(dir, 0700);
	{
		char path[128];

		snprintf(path, sizeof(path), "%s/etc/keys/tenant.sign", dir);
		chmod(path, 0640);
		assert_int_equal(run(cmd_keys, "keys show agent @/etc/keys"), 2);
		assert_string_equal(out, "");
		one_line_of_error();
		snprintf(path, sizeof(path), "%s/etc/keys", dir);
		chmod(path, 0770);
		assert_int_equal(run(cmd_keys, "keys init gate @/etc/keys"), 2);
		assert_non_null(strstr(err, "others may write"));
		chmod(path, 0700);
	}
	assert_int_equal(run(cmd_keys, "keys show gate @/etc/keys"), 2);
	one_line_of_error();
	assert_int_equal(run(cmd_keys, "keys init broker @/etc/keys"), 2);
	assert_int_equal(run(cmd_keys, "keys make gate @/etc/keys"), 2);
	assert_int_equal(run(cmd_keys, "keys init gate"), 2);
	assert_int_equal(run(cmd_keys, "keys --frob init gate @"), 2);
	assert_non_null(strstr(err, "--frob"));
	assert_int_equal(run(cmd_keys, "keys --help"), 0);
	forget("etc/keys/front.key");
	forget("etc/keys/front.crt");
	forget("etc/keys/agent.key");
	forget("etc/keys/agent.crt");
	forget("etc/keys/tenant.sign");
	forget("etc/keys/tenant.route");
	forget("etc/keys");
	forget("etc");
}

/* A daemon of our own, on a thread: gives `answer` and keeps the request. */
static uv_loop_t loop;
static uv_async_t stopper;
static struct ctl_server *server;
static pthread_t thread;
static json_t *answer, *request;

static json_t *handle(const json_t *r, void *arg)
{
	(void)arg;
	json_decref(request);
	request = json_deep_copy(r);
	return json_incref(answer);
}

static void stop(uv_async_t *a)
{
	ctl_close(server);
	uv_close((uv_handle_t *)a, NULL);
}

static void *serve(void *arg)
{
	uv_run(&loop, UV_RUN_DEFAULT);
	return arg;
}

static int start_daemon(void **state)
{
	(void)state;
	uv_loop_init(&loop);
	uv_async_init(&loop, &stopper, stop);
	if (ctl_listen(&loop, sock, handle, NULL, &server) != 0)
		return -1;
	return pthread_create(&thread, NULL, serve, NULL);
}

static int stop_daemon(void **state)
{
	(void)state;
	uv_async_send(&stopper);
	pthread_join(thread, NULL);
	json_decref(answer);
	json_decref(request);
	answer = request = NULL;
	return uv_loop_close(&loop);
}

static void will_answer(const char *text)
{
	json_decref(answer);
	answer = json_loads(text, 0, NULL);
	assert_non_null(answer);
}

static void asked(const char *text)
{
	json_t *want = json_loads(text, 0, NULL);

	assert_non_null(want);
	assert_true(json_equal(want, request));
	json_decref(want);
}

static void users(void **state)
{
	(void)state;
	will_answer("{\"ok\":true,\"enrolment\":\"walnut1:abc\",\"fronts\":{\"confirmed\":2,\"of\":2}}");
	assert_int_equal(run(cmd_user, "user add alice --socket @/d.sock"), 0);
	asked("{\"cmd\":\"user-add\",\"name\":\"alice\",\"md5\":false}");
	assert_string_equal(out, "walnut1:abc\n");
	assert_string_equal(err, "");
	will_answer("{\"ok\":true,\"enrolment\":\"walnut1:abc\",\"fronts\":{\"confirmed\":1,\"of\":2}}");
	assert_int_equal(run(cmd_user, "user add --socket=@/d.sock --md5 bob"), 0);
	asked("{\"cmd\":\"user-add\",\"name\":\"bob\",\"md5\":true}");
	assert_string_equal(out, "walnut1:abc\n");
	assert_non_null(strstr(err, "1 of 2 fronts"));

	will_answer("{\"ok\":true,\"closed\":3,\"fronts\":{\"confirmed\":2,\"of\":2}}");
	assert_int_equal(run(cmd_user, "user del alice --socket @/d.sock"), 0);
	asked("{\"cmd\":\"user-del\",\"name\":\"alice\"}");
	assert_string_equal(out, "3 closed\n");

	will_answer("{\"ok\":true,\"users\":[{\"name\":\"a\\u001b[2Jb\",\"created\":0},{\"name\":\"carol\",\"created\":1700000000}]}");
	assert_int_equal(run(cmd_user, "user list --socket @/d.sock"), 0);
	asked("{\"cmd\":\"user-list\"}");
	assert_non_null(strstr(out, "a?[2Jb"));
	assert_null(strchr(out, 0x1b));
	assert_non_null(strstr(out, "2023-11-14 22:13:20Z"));
	assert_int_equal(run(cmd_user, "user list --json --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "\"carol\""));

	will_answer("{\"ok\":false,\"error\":\"no such\\nuser\"}");
	assert_int_equal(run(cmd_user, "user del zoe --socket @/d.sock"), 1);
	assert_string_equal(err, "walnut user del: no such?user\n");
	assert_string_equal(out, "");

	assert_int_equal(run(cmd_user, "user"), 2);
	assert_int_equal(run(cmd_user, "user frob"), 2);
	assert_int_equal(run(cmd_user, "user add"), 2);
	assert_int_equal(run(cmd_user, "user add a b"), 2);
	assert_int_equal(run(cmd_user, "user del --md5 a"), 2);
	assert_int_equal(run(cmd_user, "user --help"), 0);
	assert_int_equal(run(cmd_user, "user add --help"), 0);
}

static void sessions_and_kick(void **state)
{
	(void)state;
	will_answer("{\"ok\":true,\"sessions\":[{\"user\":\"alice\",\"service\":\"ssh\",\"remote\":\"198.18.4.2:0\",\"public\":\"198.18.3."
		    "2:40000\","
		    "\"age_s\":3700}]}");
	assert_int_equal(run(cmd_sessions, "sessions --socket @/d.sock"), 0);
	asked("{\"cmd\":\"sessions\"}");
	assert_non_null(strstr(out, "alice"));
	assert_non_null(strstr(out, "198.18.3.2:40000"));
	assert_non_null(strstr(out, "1 h 1 min"));
	will_answer("{\"ok\":true,\"sessions\":[]}");
	assert_int_equal(run(cmd_sessions, "sessions --socket @/d.sock"), 0);
	assert_string_equal(out, "");
	will_answer("{\"ok\":true,\"closed\":1}");
	assert_int_equal(run(cmd_kick, "kick alice --socket @/d.sock"), 0);
	asked("{\"cmd\":\"kick\",\"user\":\"alice\"}");
	assert_string_equal(out, "1 closed\n");
	assert_int_equal(run(cmd_kick, "kick --socket @/d.sock"), 2);
	assert_int_equal(run(cmd_kick, "kick a b"), 2);
	assert_int_equal(run(cmd_sessions, "sessions x"), 2);
}

static void status(void **state)
{
	(void)state;
	will_answer("{\"ok\":true,\"role\":\"front\",\"version\":\"0.1.0\",\"uptime_s\":59,\"outcomes\":{\"challenge\":12,\"replay\":0},"
		    "\"users\":5,"
		    "\"agents\":[{\"domain\":\"example.org\",\"connected\":true}],\"feed\":{\"seq\":7,\"epoch\":20781,\"age_s\":3},"
		    "\"link\":{\"sip_bytes\":10,\"feed_bytes\":20,\"heartbeat_bytes\":30}}");
	assert_int_equal(run(cmd_status, "status --socket @/d.sock"), 0);
	asked("{\"cmd\":\"status\"}");
	assert_int_equal(strncmp(out, "front 0.1.0, up 59 s\n", 21), 0);
	assert_non_null(strstr(out, "challenge 12"));
	assert_null(strstr(out, "replay"));
	assert_non_null(strstr(out, "example.org connected"));
	assert_non_null(strstr(out, "sequence 7, epoch 20781, heard 3 s ago"));
	assert_int_equal(run(cmd_status, "status --json --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "\"replay\": 0"));

	will_answer("{\"ok\":true,\"role\":\"agent\",\"domain\":\"example.org\",\"fronts\":[{\"address\":\"198.18.1.2:7061\",\"connected\":"
		    "false,\"seq\":0}],"
		    "\"gate\":{\"connected\":true},\"users\":2,\"calls\":1,\"calls_total\":9,\"counters\":{},\"link\":{\"gate_bytes\":5}}");
	assert_int_equal(run(cmd_status, "status --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "198.18.1.2:7061 NOT CONNECTED"));
	assert_non_null(strstr(out, "1 now, 9 since the start"));
	assert_non_null(strstr(out, "gate_bytes 5"));

	will_answer("{\"ok\":true,\"role\":\"gate\",\"drops\":{\"no_match\":4},\"passed\":{\"in\":3},\"holes\":2,\"flows\":8,\"link\":{}}");
	assert_int_equal(run(cmd_status, "status --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "no_match 4"));

	/* Anything a daemon may say is survived. */
	will_answer("{\"ok\":true,\"role\":3,\"users\":{},\"outcomes\":[],\"agents\":7}");
	assert_int_equal(run(cmd_status, "status --socket @/d.sock"), 0);
	will_answer("{\"ok\":true,\"role\":\"front\",\"users\":{},\"outcomes\":[],\"agents\":[1,{}],\"feed\":[],\"link\":\"\"}");
	assert_int_equal(run(cmd_status, "status --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_status, "status --socket @/none"), 1);
	one_line_of_error();
	assert_non_null(strstr(err, "no daemon answers"));
	assert_int_equal(run(cmd_status, "status --socket"), 2);
	assert_int_equal(run(cmd_status, "status x"), 2);
}

static void why(void **state)
{
	(void)state;
	will_answer(
		"{\"ok\":true,\"denials\":["
		"{\"kind\":\"proven\",\"age_ms\":61000,\"outcome\":\"user_budget\",\"status\":0,\"proven\":true,\"user\":\"al\\u001bice\","
		"\"call_id\":\"c1\",\"from\":\"198.18.4.2:40112\",\"domain\":\"example.org\"},"
		"{\"kind\":\"answered\",\"age_ms\":62000,\"outcome\":\"digest\",\"status\":0,\"proven\":false,\"user\":\"bob\","
		"\"call_id\":\"\",\"from\":\"198.18.4.3:1\",\"domain\":\"\"},"
		"{\"kind\":\"proven\",\"age_ms\":1,\"outcome\":\"relayed_response\",\"status\":486,\"proven\":true,\"user\":\"\"},"
		"{\"outcome\":\"of a later version\"}]}");
	assert_int_equal(run(cmd_why, "why alice --socket @/d.sock"), 0);
	asked("{\"cmd\":\"why\",\"about\":\"alice\"}");
	assert_non_null(strstr(out,
			       "1 min 1 s ago: user_budget, user al?ice, at example.org, from 198.18.4.2:40112, Call-ID c1\n  The user is "
			       "right, but calls too often.\n  "));
	assert_non_null(strstr(out, "digest, user bob (claimed), from 198.18.4.3:1\n  The secret was wrong.\n  "));
	assert_non_null(strstr(out, "relayed_response 486, from -\n"));
	assert_non_null(strstr(out, "of a later version, from -\n"));
	assert_null(strchr(out, 0x1b));
	assert_string_equal(err, "");
	assert_int_equal(run(cmd_why, "why --json --socket @/d.sock"), 0);
	asked("{\"cmd\":\"why\"}");
	assert_non_null(strstr(out, "\"status\": 486"));

	will_answer("{\"ok\":true,\"denials\":[]}");
	assert_int_equal(run(cmd_why, "why carol --socket @/d.sock"), 0);
	assert_string_equal(out, "");
	one_line_of_error();
	/* Anything a daemon may say is survived. */
	will_answer("{\"ok\":true,\"denials\":[1,{},{\"outcome\":7,\"status\":\"x\",\"user\":[]}]}");
	assert_int_equal(run(cmd_why, "why --socket @/d.sock"), 0);
	will_answer("{\"ok\":true}");
	assert_int_equal(run(cmd_why, "why --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_why, "why a b"), 2);
}

#define HOLE                                                                                                                     \
	"{\"hole\":77,\"tenant\":\"example.org\",\"user\":\"al\\u001bice\",\"protocol\":\"udp\",\"inside\":\"198.18.100.2:53\"," \
	"\"remote\":"                                                                                                            \
	"\"198.18.4.2:4000\",\"public\":\"198.18.3.2:40000\",\"tag\":true,\"left_s\":61,\"packets\":3,\"bytes\":400}"

static void gate_holes(void **state)
{
	(void)state;
	will_answer("{\"ok\":true,\"holes\":[" HOLE "]}");
	assert_int_equal(run(cmd_gate, "gate list --socket @/d.sock"), 0);
	asked("{\"cmd\":\"holes\"}");
	assert_non_null(strstr(out, "198.18.3.2:40000"));
	assert_non_null(strstr(out, "1 min 1 s"));
	assert_non_null(strstr(out, "al?ice"));
	assert_int_equal(run(cmd_gate, "gate list --json --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "\"packets\": 3"));
	will_answer("{\"ok\":true,\"holes\":[]}");
	assert_int_equal(run(cmd_gate, "gate list --socket @/d.sock"), 0);
	assert_string_equal(out, "");

	will_answer("{\"ok\":true,\"hole\":" HOLE "}");
	assert_int_equal(run(cmd_gate, "gate show 77 --socket @/d.sock"), 0);
	asked("{\"cmd\":\"hole\",\"hole\":77}");
	assert_non_null(strstr(out, "bytes      400\n"));
	assert_non_null(strstr(out, "tag        yes\n"));
	assert_int_equal(run(cmd_gate, "gate close 77 --socket @/d.sock"), 0);
	asked("{\"cmd\":\"close\",\"hole\":77}");
	assert_string_equal(out, "");

	assert_int_equal(run(cmd_gate, "gate open tcp 198.18.100.2:22 198.18.4.2 --socket @/d.sock"), 0);
	asked("{\"cmd\":\"open\",\"protocol\":\"tcp\",\"inside\":\"198.18.100.2:22\",\"remote\":\"198.18.4.2\"}");
	assert_string_equal(out, "hole 77 at 198.18.3.2:40000\n");
	will_answer("{\"ok\":true,\"hole\":" HOLE ",\"key\":\"AAECAwQFBgcICQoLDA0ODw\"}");
	assert_int_equal(run(cmd_gate, "gate open udp 198.18.100.2:53 any --lifetime 60 --tenant example.org --user bob --idle 5 --socket "
				       "@/d.sock"),
			 0);
	asked("{\"cmd\":\"open\",\"protocol\":\"udp\",\"inside\":\"198.18.100.2:53\",\"remote\":\"any\",\"lifetime_s\":60,\"tenant\":"
	      "\"example.org\",\"user\":\"bob\",\"idle_s\":5}");
	assert_string_equal(out, "hole 77 at 198.18.3.2:40000\nkey AAECAwQFBgcICQoLDA0ODw\n");
	assert_int_equal(run(cmd_gate, "gate open udp 198.18.100.2:53 1.2.3.4:5 --no-tag --bytes-per-s 7 --packets-per-s 8 "
				       "--user-bytes-per-s 9 --user-packets-per-s 10 --socket @/d.sock"),
			 0);
	asked("{\"cmd\":\"open\",\"protocol\":\"udp\",\"inside\":\"198.18.100.2:53\",\"remote\":\"1.2.3.4:5\",\"tag\":false,"
	      "\"bytes_per_s\":7,\"packets_per_s\":8,\"user_bytes_per_s\":9,\"user_packets_per_s\":10}");

	will_answer("{\"ok\":false,\"error\":\"the gate drains\"}");
	assert_int_equal(run(cmd_gate, "gate open tcp 198.18.100.2:22 198.18.4.2 --socket @/d.sock"), 1);
	assert_string_equal(err, "walnut gate open: the gate drains\n");
	assert_string_equal(out, "");
}

static void gate_drain_and_drops(void **state)
{
	(void)state;
	will_answer("{\"ok\":true,\"draining\":true}");
	assert_int_equal(run(cmd_gate, "gate drain --socket @/d.sock"), 0);
	asked("{\"cmd\":\"drain\",\"on\":true}");
	assert_int_equal(run(cmd_gate, "gate drain off --socket @/d.sock"), 0);
	asked("{\"cmd\":\"drain\",\"on\":false}");

	will_answer("{\"ok\":true,\"role\":\"gate\",\"draining\":true,\"holes\":2,\"drops\":{\"no_hole\":12,\"a\\u001b\":3,\"ttl\":0},"
		    "\"passed\":{\"hole_in\":9},\"answers\":{\"ok\":4},\"link\":{\"bytes\":5}}");
	assert_int_equal(run(cmd_gate, "gate drops --socket @/d.sock"), 0);
	asked("{\"cmd\":\"status\"}");
	assert_non_null(strstr(out, "no_hole                                12\n"));
	assert_non_null(strstr(out, "ttl                                     0\n"));
	assert_null(strchr(out, 0x1b));
	assert_int_equal(run(cmd_gate, "gate drops --watch --count 2 --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "PER SECOND"));
	assert_non_null(strstr(out, "12            -\n"));
	assert_non_null(strstr(out, "12            0\n"));
	assert_int_equal(run(cmd_gate, "gate counters --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "hole_in"));
	assert_non_null(strstr(out, "draining                              yes\n"));
}

static void gate_trace(void **state)
{
	(void)state;
	will_answer(
		"{\"ok\":true,\"id\":5,\"samples\":[{\"time_ms\":1700000000123,\"reason\":\"no_hole\",\"side\":\"outside\",\"interface\":"
		"\"wan\",\"length\":60,\"ethertype\":2048,\"protocol\":17,\"source\":\"198.18.4.2\",\"destination\":\"198.18.3.2\","
		"\"source_port\":4000,\"destination_port\":53},{\"reason\":\"vlan\",\"ethertype\":33024},{\"reason\":7,\"protocol\":[],"
		"\"source\":\"::1\",\"source_port\":1}]}");
	assert_int_equal(run(cmd_gate, "gate trace --reason no_hole --reason vlan --count 3 --rate 9 --socket @/d.sock"), 0);
	asked("{\"cmd\":\"trace\",\"reasons\":[\"no_hole\",\"vlan\"],\"per_s\":9,\"id\":5,\"stop\":true}");
	assert_non_null(strstr(out, "2023-11-14T22:13:20.123Z no_hole          wan udp 198.18.4.2:4000 > 198.18.3.2:53 length 60\n"));
	assert_non_null(strstr(out, "ethertype 0x8100"));
	assert_non_null(strstr(out, "[::1]:1"));
	assert_int_equal(run(cmd_gate, "gate trace --count 1 --json --socket @/d.sock"), 0);
	assert_non_null(strstr(out, "{\"time_ms\":1700000000123,"));
	assert_ptr_equal(strchr(out, '\n'), out + strlen(out) - 1);

	/* Anything a daemon may say is survived. */
	will_answer("{\"ok\":true,\"holes\":[1,{}],\"hole\":7,\"drops\":[],\"passed\":1,\"samples\":[1,{},[]]}");
	assert_int_equal(run(cmd_gate, "gate list --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_gate, "gate show 1 --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_gate, "gate drops --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_gate, "gate counters --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_gate, "gate trace --count 3 --socket @/d.sock"), 0);
	assert_int_equal(run(cmd_gate, "gate trace --count 3 --json --socket @/d.sock"), 0);
}

static void gate_usage(void **state)
{
	static const char *const wrong[] = {
		"gate",
		"gate frob",
		"gate open tcp 198.18.100.2:22",
		"gate open sctp 198.18.100.2:22 198.18.4.2",
		"gate open tcp a b c",
		"gate open tcp 198.18.100.2:22 198.18.4.2 --lifetime soon",
		"gate open tcp 198.18.100.2:22 198.18.4.2 --lifetime",
		"gate open tcp 198.18.100.2:22 198.18.4.2 --watch",
		"gate open tcp 198.18.100.2:22 198.18.4.2 --user \xff",
		"gate close",
		"gate close 0",
		"gate close all",
		"gate show -5",
		"gate drain maybe",
		"gate drain on off",
		"gate list x",
		"gate list --lifetime 5",
		"gate trace --count 0",
		"gate drops --frob",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		assert_int_equal(run(cmd_gate, wrong[i]), 2);
		one_line_of_error();
		assert_string_equal(out, "");
	}
	assert_int_equal(run(cmd_gate, "gate --help"), 0);
	assert_int_equal(run(cmd_gate, "gate open --help"), 0);
	assert_int_equal(run(cmd_gate, "gate list --socket @/none"), 1);
	one_line_of_error();
}

static void write_file(const char *text)
{
	char path[96];
	FILE *f;

	snprintf(path, sizeof(path), "%s/file.yaml", dir);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void check(void **state)
{
	(void)state;
	write_file("outside: { interface: wan, addresses: [198.18.3.2] }\n"
		   "inside: { interface: lan }\n"
		   "control: 198.18.100.1:7443\nkeys: /etc/walnut/keys\n"
		   "tenants:\n  - { name: example.org, agent_pin: \"" PIN "\",\n"
		   "      prefixes: [198.18.100.0/24] }\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 0);
	assert_non_null(strstr(out, "a good gate file"));
	write_file("outside: { interface: wan, addresses: [198.18.3.2] }\ncontroll: 198.18.100.1:7443\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	assert_non_null(strstr(err, "file.yaml:2: controll: unknown key"));
	write_file("listen: 198.18.1.2:5060\nagents: 198.18.1.2:7061\nkeys: /etc/walnut/keys\nsocket: /run/walnut/front.sock\n"
		   "tenants:\n  - domain: example.org\n    agent_pin: \"" PIN "\"\n"
		   "    signing_key: \"ed25519:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\"\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 0);
	assert_non_null(strstr(out, "a good front file"));
	write_file("listen: 198.18.1.2:5060\nagents: nowhere\nkeys: /k\nsocket: /s\ntenants: []\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	write_file("domain: example.org\nkeys: /etc/walnut/keys\ndatabase: /var/lib/walnut/users\nsocket: /run/walnut/agent.sock\n"
		   "enrol_fronts: [198.18.1.2:5060]\ngate: { address: 198.18.100.1:7443, pin: \"" PIN "\" }\n"
		   "fronts:\n  - { address: 198.18.1.2:7061, pin: \"" PIN "\" }\n"
		   "services:\n  - { name: ssh, protocol: tcp, address: 198.18.100.2:22 }\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 0);
	assert_non_null(strstr(out, "a good agent file"));
	write_file("domain: example.org\nservices: none\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	assert_non_null(strstr(err, "file.yaml:2: services: is \"none\"; must be a list"));
	write_file("what: ever\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	write_file("outside: [\n");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	forget("file.yaml");
	assert_int_equal(run(cmd_check, "check @/file.yaml"), 2);
	one_line_of_error();
	assert_int_equal(run(cmd_check, "check"), 2);
	assert_int_equal(run(cmd_check, "check a b"), 2);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-console-XXXXXX");
	if (mkdtemp(dir) == NULL)
		return -1;
	snprintf(sock, sizeof(sock), "%s/d.sock", dir);
	return 0;
}

static int remove_dir(void **state)
{
	(void)state;
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys),
		cmocka_unit_test_setup_teardown(users, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(sessions_and_kick, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(status, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(why, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(gate_holes, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(gate_drain_and_drops, start_daemon, stop_daemon),
		cmocka_unit_test_setup_teardown(gate_trace, start_daemon, stop_daemon),
		cmocka_unit_test(gate_usage),
		cmocka_unit_test(check),
	};

	return cmocka_run_group_tests_name("console", tests, make_dir, remove_dir);
}
