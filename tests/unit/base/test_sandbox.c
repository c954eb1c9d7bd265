/* SPDX-License-Identifier: Apache-2.0 */
/* Built without sanitizers (see meson.build): with them no filter is installed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <lmdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "base/ctl.h"
#include "base/sandbox.h"
#include "peer/peer.h"

#define KILLED 1000

static char dir[64];

static void in_dir(char buf[static 128], const char *name)
{
	snprintf(buf, 128, "%s/%s", dir, name);
}

/* Runs `body` in a child under the filter. \return its exit status, or KILLED when it ended by SIGSYS. */
static int under(enum wn_seccomp_set set, int (*body)(void))
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit no_core = {0, 0};

		alarm(20);
		setrlimit(RLIMIT_CORE, &no_core);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		if (freopen("/dev/null", "w", stderr) == NULL || wn_seccomp(set) != 0)
			_exit(99);
		_exit(body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		return WTERMSIG(status) == SIGSYS ? KILLED : 2000 + WTERMSIG(status);
	return WEXITSTATUS(status);
}

/* Each returns 0, which shows that the call did not end the process. */
static int do_execve(void)
{
	char *argv[] = {(char *)(uintptr_t) "true", NULL};

	execve("/bin/true", argv, NULL);
	return 0;
}

static int do_ptrace(void)
{
	ptrace(PTRACE_TRACEME, 0, NULL, NULL);
	return 0;
}

static int do_fork(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return 0;
}

static int do_open_write(void)
{
	char path[128];

	in_dir(path, "made");
	return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) < 0 ? 0 : 1;
}

static int do_socket_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) < 0 ? 0 : 1;
}

static int do_socket_packet(void)
{
	return socket(AF_PACKET, SOCK_RAW, 0) < 0 ? 0 : 1;
}

static int do_socket_inet(void)
{
	return socket(AF_INET, SOCK_STREAM, 0) < 0 ? 0 : 1;
}

static int do_mmap_exec(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? 0 : 1;
}

static int do_mprotect_exec(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_EXEC) != 0 ? 0 : 1;
}

static int do_bpf(void)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	syscall(SYS_bpf, BPF_MAP_GET_NEXT_ID, &attr, sizeof(attr));
	return 0;
}

static int do_setuid(void)
{
	return setuid(0) != 0 ? 0 : 1;
}

static int do_kill(void)
{
	kill(getppid(), 0);
	return 0;
}

static int do_connect(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	connect(0, (struct sockaddr *)&sa, sizeof(sa));
	return 0;
}

static int do_listen(void)
{
	listen(0, 1);
	return 0;
}

static int do_raise_limit(void)
{
	const struct rlimit r = {64, 64};

	setrlimit(RLIMIT_NOFILE, &r);
	return 0;
}

static int do_open_read(void)
{
	return open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES ? 0 : 1;
}

static int state_dir, state_file;

static int do_pwrite(void)
{
	return pwrite(state_file, "x", 1, 0) < 0 ? 0 : 1;
}

static int do_rename(void)
{
	return renameat2(state_dir, "kept", state_dir, "spare", RENAME_EXCHANGE) != 0 ? 0 : 1;
}

/* What a front does with its users' files. */
static int keep_users(void)
{
	char c;

	if (pwrite(state_file, "xy", 2, 0) != 2 || pread(state_file, &c, 1, 1) != 1 || c != 'y' || ftruncate(state_file, 1) != 0)
		return 1;
	if (fdatasync(state_file) != 0 || renameat2(state_dir, "kept", state_dir, "spare", RENAME_EXCHANGE) != 0 || fsync(state_dir) != 0)
		return 2;
	return 0;
}

static void state_writes_what_is_open(void **state)
{
	char path[128];

	(void)state;
	in_dir(path, "spare");
	state_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(state_file >= 0);
	close(state_file);
	in_dir(path, "kept");
	state_file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	state_dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert_true(state_file >= 0 && state_dir >= 0);
	assert_int_equal(under(WN_SECCOMP_STATE, keep_users), 0);
	assert_int_equal(under(WN_SECCOMP_NET, do_pwrite), KILLED);
	assert_int_equal(under(WN_SECCOMP_NET, do_rename), KILLED);
	assert_int_equal(under(WN_SECCOMP_STATE, do_open_write), KILLED);
	assert_int_equal(under(WN_SECCOMP_STATE, do_open_read), 0);
	unlink(path);
	in_dir(path, "spare");
	unlink(path);
	close(state_file);
	close(state_dir);
}

static void forbidden(void **state)
{
	(void)state;
	for (enum wn_seccomp_set set = WN_SECCOMP_NET; set <= WN_SECCOMP_READER; set++) {
		assert_int_equal(under(set, do_execve), KILLED);
		assert_int_equal(under(set, do_ptrace), KILLED);
		assert_int_equal(under(set, do_fork), KILLED);
		assert_int_equal(under(set, do_mmap_exec), KILLED);
		assert_int_equal(under(set, do_mprotect_exec), KILLED);
		assert_int_equal(under(set, do_setuid), KILLED);
		assert_int_equal(under(set, do_kill), KILLED);
		assert_int_equal(under(set, do_socket_packet), KILLED);
		assert_int_equal(under(set, do_raise_limit), KILLED);
	}
	assert_int_equal(under(WN_SECCOMP_NET, do_open_write), KILLED);
	assert_int_equal(under(WN_SECCOMP_WRITER, do_open_write), KILLED);
	assert_int_equal(under(WN_SECCOMP_NET, do_bpf), KILLED);
	assert_int_equal(under(WN_SECCOMP_FILES, do_bpf), KILLED);
	assert_int_equal(under(WN_SECCOMP_NET, do_socket_netlink), KILLED);
	assert_int_equal(under(WN_SECCOMP_FILES, do_socket_netlink), KILLED);
	assert_int_equal(under(WN_SECCOMP_WRITER, do_socket_inet), KILLED);
	assert_int_equal(under(WN_SECCOMP_WRITER, do_connect), KILLED);
	assert_int_equal(under(WN_SECCOMP_WRITER, do_listen), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_open_write), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_bpf), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_socket_netlink), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_socket_inet), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_connect), KILLED);
	assert_int_equal(under(WN_SECCOMP_READER, do_listen), KILLED);
}

static void reading_a_file_is_refused(void **state)
{
	(void)state;
	assert_int_equal(under(WN_SECCOMP_NET, do_open_read), 0);
	assert_int_equal(under(WN_SECCOMP_WRITER, do_open_read), 0);
	assert_int_equal(under(WN_SECCOMP_FILES, do_open_read), 1);
	assert_int_equal(under(WN_SECCOMP_READER, do_open_read), 1);
}

static void *thread(void *arg)
{
	void *p = malloc(1 << 20);

	memset(p, 1, 1 << 20);
	free(p);
	pthread_setname_np(pthread_self(), "worker");
	return arg;
}

/* A worker's life: a thread, batches of datagrams, epoll, timers, sizes of queues. */
static int datagrams(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	char in[2][16];
	struct iovec out = {(void *)(uintptr_t) "datagram", 8}, iov[2] = {{in[0], 16}, {in[1], 16}};
	struct mmsghdr tx[2] = {{.msg_hdr = {.msg_name = &sa, .msg_namelen = sizeof(sa), .msg_iov = &out, .msg_iovlen = 1}}}, rx[2] = {0};
	struct epoll_event ev = {.events = EPOLLIN};
	int one = 1, n = 0, fd, ep;
	cpu_set_t cpus;
	pthread_t t;

	tx[1] = tx[0];
	for (int i = 0; i < 2; i++) {
		rx[i].msg_hdr.msg_iov = &iov[i];
		rx[i].msg_hdr.msg_iovlen = 1;
	}
	for (int i = 0; i < 4; i++)
		if (pthread_create(&t, NULL, thread, NULL) != 0 || pthread_join(t, NULL) != 0)
			return 1;
	sched_getaffinity(0, sizeof(cpus), &cpus);
	if (pthread_setaffinity_np(pthread_self(), sizeof(cpus), &cpus) != 0)
		return 2;
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	ep = epoll_create1(EPOLL_CLOEXEC);
	if (fd < 0 || ep < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof(one)) != 0)
		return 3;
	if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) != 0 || getsockname(fd, (struct sockaddr *)&sa, &len) != 0)
		return 4;
	if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0 || sendmmsg(fd, tx, 2, 0) != 2)
		return 5;
	while (n < 2) {
		int k;

		if (epoll_wait(ep, &ev, 1, 5000) != 1)
			return 6;
		k = recvmmsg(fd, rx, 2, MSG_DONTWAIT, NULL);
		if (k <= 0)
			return 7;
		n += k;
	}
	return 0;
}

static struct peer_identity *identity;
static int echoes;

static void up(struct peer_conn *c, unsigned pin, void *arg)
{
	(void)pin;
	if (arg != NULL)
		peer_send(c, "ping", 4);
}

static void data(struct peer_conn *c, const uint8_t *p, size_t n, void *arg)
{
	echoes++;
	if (arg == NULL)
		peer_send(c, p, n);
	else
		peer_close(c);
}

static void down(struct peer_conn *c, int reason, void *arg)
{
	(void)c;
	(void)reason;
	(void)arg;
}

static json_t *answer(const json_t *request, void *arg)
{
	(void)request;
	(void)arg;
	return json_pack("{s:b}", "ok", 1);
}

static uv_loop_t before;
static uv_async_t done;
static struct ctl_server *ctl;

static void asked_enough(uv_async_t *a)
{
	uv_close((uv_handle_t *)a, NULL);
	uv_stop(&before);
}

static void *ask(void *arg)
{
	json_t *request = json_pack("{s:s}", "cmd", "status"), *got = NULL;
	char path[128];

	in_dir(path, "sock");
	if (ctl_call(path, request, 5000, &got) == 0 && json_is_true(json_object_get(got, "ok")))
		*(int *)arg = 1;
	json_decref(request);
	json_decref(got);
	uv_async_send(&done);
	return NULL;
}

/* Two TLS peers on a loop that is made under the filter, and a control socket that was there before. */
static int tls_and_ctl(void)
{
	static const struct peer_events ev = {up, data, down};
	struct peer_listener *l;
	struct peer_conn *c;
	struct peer_pin pin;
	struct wn_addr addr;
	uv_loop_t loop;
	pthread_t t;
	int asked = 0;

	peer_identity_pin(identity, &pin);
	wn_addr_parse(SPAN_LIT("127.0.0.1:0"), -1, &addr);
	if (uv_loop_init(&loop) != 0)
		return 1;
	if (peer_listen(&loop, identity, &addr, &(struct peer_options){.pins = &pin, .npins = 1}, &ev, NULL, &l) != 0)
		return 2;
	peer_listener_addr(l, &addr);
	if (peer_connect(&loop, identity, &addr, &(struct peer_options){.pins = &pin, .npins = 1}, &ev, &addr, &c) != 0)
		return 3;
	while (echoes < 2)
		uv_run(&loop, UV_RUN_ONCE);
	peer_listener_close(l);
	uv_run(&loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&loop) != 0)
		return 4;
	uv_async_init(&before, &done, asked_enough);
	pthread_create(&t, NULL, ask, &asked);
	uv_run(&before, UV_RUN_DEFAULT);
	pthread_join(t, NULL);
	ctl_close(ctl);
	uv_run(&before, UV_RUN_DEFAULT);
	return asked ? 0 : 5;
}

static void net_is_enough(void **state)
{
	char path[128];
	struct peer_pin pin;

	(void)state;
	for (enum wn_seccomp_set set = WN_SECCOMP_NET; set <= WN_SECCOMP_FILES; set++) {
		assert_int_equal(under(set, datagrams), 0);
		in_dir(path, "sock");
		assert_int_equal(uv_loop_init(&before), 0);
		assert_int_equal(ctl_listen(&before, path, answer, NULL, &ctl), 0);
		if (identity == NULL) {
			assert_int_equal(peer_identity_create(dir, "front", &pin), 0);
			assert_int_equal(peer_identity_load(dir, "front", &identity), 0);
		}
		uv_loop_fork(&before);
		assert_int_equal(under(set, tls_and_ctl), 0);
		ctl_close(ctl);
		uv_run(&before, UV_RUN_DEFAULT);
		assert_int_equal(uv_loop_close(&before), 0);
	}
}

static int database(void)
{
	MDB_val k = {3, (void *)(uintptr_t) "key"}, v = {5, (void *)(uintptr_t) "value"};
	MDB_env *env;
	MDB_txn *txn;
	MDB_dbi dbi;
	char path[128];
	int dead;

	in_dir(path, "db");
	if (mkdir(path, 0700) != 0 || mdb_env_create(&env) != 0)
		return 1;
	if (mdb_env_open(env, path, 0, 0600) != 0 || mdb_reader_check(env, &dead) != 0)
		return 2;
	if (mdb_txn_begin(env, NULL, 0, &txn) != 0 || mdb_dbi_open(txn, NULL, 0, &dbi) != 0 || mdb_put(txn, dbi, &k, &v, 0) != 0)
		return 3;
	if (mdb_txn_commit(txn) != 0)
		return 4;
	mdb_env_close(env);
	return 0;
}

static void files_is_enough_for_the_store(void **state)
{
	(void)state;
	assert_int_equal(under(WN_SECCOMP_FILES, database), 0);
}

static int pair[2];

static int write_maps(void)
{
	struct {
		struct nlmsghdr h;
		struct rtmsg m;
	} dump = {.h = {.nlmsg_len = sizeof(dump), .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}};
	struct itimerspec soon = {.it_value = {.tv_nsec = 1000}};
	char buf[8192];
	union bpf_attr attr;
	uint64_t ticks;
	int nl, timer, map;
	uint32_t key = 0;

	if (send(pair[0], "record", 6, 0) != 6 || recv(pair[1], buf, sizeof(buf), 0) != 6)
		return 1;
	nl = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl < 0 || send(nl, &dump, sizeof(dump), 0) < 0 || recv(nl, buf, sizeof(buf), 0) <= 0)
		return 2;
	timer = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC);
	if (timer < 0 || timerfd_settime(timer, 0, &soon, NULL) != 0 || read(timer, &ticks, 8) != 8)
		return 3;
	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_RINGBUF;
	attr.max_entries = 4096;
	map = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr));
	if (map >= 0) { /* without the privilege it is enough that the call comes back */
		if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, map, 0) == MAP_FAILED)
			return 4;
	} else if (errno != EPERM) {
		return 5;
	}
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = (uint32_t)map;
	attr.key = (uint64_t)(uintptr_t)&key;
	syscall(SYS_bpf, BPF_MAP_LOOKUP_ELEM, &attr, sizeof(attr));
	waitpid(-1, NULL, WNOHANG);
	return 0;
}

static void writer_is_enough(void **state)
{
	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(under(WN_SECCOMP_WRITER, write_maps), 0);
	close(pair[0]);
	close(pair[1]);
}

/* The filter must hold in threads that were there before it, too. */
static pthread_barrier_t both;

static void *late(void *arg)
{
	pthread_barrier_wait(&both);
	pthread_barrier_wait(&both);
	do_execve();
	return arg;
}

static void older_threads_are_held(void **state)
{
	int status;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		pthread_t t;

		alarm(20);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		pthread_barrier_init(&both, NULL, 2);
		pthread_create(&t, NULL, late, NULL);
		pthread_barrier_wait(&both);
		if (wn_seccomp(WN_SECCOMP_NET) != 0)
			_exit(99);
		pthread_barrier_wait(&both);
		pthread_join(t, NULL);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

/* \return the exit status of a child that dropped to nobody and kept `keep`. */
static int dropped(const char *user, uint64_t keep, int (*body)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		int rc = wn_drop_privileges(user, keep);

		_exit(rc < 0 ? -rc : body());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static uint64_t permitted(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d) != 0)
		return UINT64_MAX;
	return d[0].permitted | d[0].effective | (uint64_t)(d[1].permitted | d[1].effective) << 32;
}

static int is_nobody(void)
{
	if (getuid() == 0 || geteuid() == 0 || getgid() == 0 || getgroups(0, NULL) != 0)
		return 101;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		return 102;
	if (setuid(0) == 0 || seteuid(0) == 0 || setgid(0) == 0)
		return 103;
	return 0;
}

static int has_nothing(void)
{
	return permitted() == 0 ? is_nobody() : 104;
}

static int has_net_admin(void)
{
	return permitted() == UINT64_C(1) << CAP_NET_ADMIN ? is_nobody() : 105;
}

static int is_bare_root(void)
{
	return geteuid() == 0 && permitted() == UINT64_C(1) << CAP_NET_ADMIN && getgroups(0, NULL) == 0 ? 0 : 106;
}

static int still_no_capability(void)
{
	return permitted() == 0 ? 0 : 107;
}

static int again(void)
{
	/* Not root any more: clears, and cannot keep what is gone. */
	if (wn_drop_privileges("nobody", UINT64_C(1) << CAP_NET_ADMIN) != -EPERM)
		return 108;
	return wn_drop_privileges("nobody", 0) == 0 ? still_no_capability() : 109;
}

static void privileges(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	assert_int_equal(dropped("nobody", 0, has_nothing), 0);
	assert_int_equal(dropped("nobody", UINT64_C(1) << CAP_NET_ADMIN, has_net_admin), 0);
	assert_int_equal(dropped(NULL, UINT64_C(1) << CAP_NET_ADMIN, is_bare_root), 0);
	assert_int_equal(dropped("nobody", 0, again), 0);
	assert_int_equal(dropped("no-such-user", 0, has_nothing), ENOENT);
}

static int make_dir(void **state)
{
	(void)state;
	snprintf(dir, sizeof(dir), "/tmp/walnut-sandbox-XXXXXX");
	return mkdtemp(dir) != NULL && sodium_init() >= 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
	const char *left[] = {"front.key", "front.crt", "sock", "made", "db/data.mdb", "db/lock.mdb"};
	char path[128];

	(void)state;
	peer_identity_free(identity);
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
		in_dir(path, left[i]);
		unlink(path);
	}
	in_dir(path, "db");
	rmdir(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forbidden),
		cmocka_unit_test(state_writes_what_is_open),
		cmocka_unit_test(reading_a_file_is_refused),
		cmocka_unit_test(net_is_enough),
		cmocka_unit_test(files_is_enough_for_the_store),
		cmocka_unit_test(writer_is_enough),
		cmocka_unit_test(older_threads_are_held),
		cmocka_unit_test(privileges),
	};

	return cmocka_run_group_tests_name("sandbox", tests, make_dir, remove_dir);
}
