/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sockios.h>
#include <pwd.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

static int find_user(const char *user, uid_t *uid, gid_t *gid)
{
	struct passwd pw, *found = NULL;
	char buf[4096];
	int rc = getpwnam_r(user, &pw, buf, sizeof(buf), &found);

	if (rc != 0)
		return -rc;
	if (found == NULL)
		return -ENOENT;
	*uid = pw.pw_uid;
	*gid = pw.pw_gid;
	return 0;
}

/* Chooses `keep` in libcap-ng's state. \return -EPERM when we do not have one of them ourselves. */
static int choose_capabilities(uint64_t keep)
{
	int rc = 0;

	if (capng_get_caps_process() != 0)
		return -EPERM;
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
		if ((keep >> cap & 1) != 0 && capng_have_capability(CAPNG_PERMITTED, cap) == 0)
			rc = -EPERM;
	capng_clear(CAPNG_SELECT_ALL);
	for (unsigned cap = 0; cap <= CAP_LAST_CAP; cap++)
		if ((keep >> cap & 1) != 0)
			capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, cap);
	return rc;
}

int wn_drop_privileges(const char *user, uint64_t keep)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int rc;

	if (geteuid() == 0 && user != NULL) {
		rc = find_user(user, &uid, &gid);
		if (rc < 0)
			return rc;
	}
	rc = choose_capabilities(keep);
	if (rc < 0)
		return rc;
	if (uid != geteuid()) {
		/* Sets groups, user and group ids and the chosen capabilities in the one order that works. */
		rc = capng_change_id((int)uid, (int)gid, (capng_flags_t)(CAPNG_DROP_SUPP_GRP | CAPNG_CLEAR_BOUNDING));
		if (rc != 0)
			return -EPERM;
		if (setresuid((uid_t)-1, 0, (uid_t)-1) == 0 || getgroups(0, NULL) != 0)
			return -EPERM;
	} else {
		if (geteuid() == 0 && setgroups(0, NULL) != 0 && errno != EPERM)
			return -errno;
		/* The bounding set needs a capability to shrink; without it no_new_privs alone keeps it from mattering. */
		if (capng_apply(CAPNG_SELECT_CAPS) != 0)
			return -EPERM;
	}
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return -errno;
	/* No core file and no debugger: there are keys in memory. */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return -errno;
	return 0;
}

#ifdef SANITIZED

int wn_seccomp(enum wn_seccomp_set set)
{
	(void)set;
	wn_debug("seccomp is off: built with a sanitizer, which needs more calls");
	return 0;
}

#else

#define NAMES 512

static const char *call_name[NAMES]; /* for the signal handler, which may not allocate */

/* Memory, threads, time, signals to itself, and what is open already. */
static const int common[] = {
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(close),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(fcntl),
	SCMP_SYS(brk),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(mlock),
	SCMP_SYS(munlock),
	SCMP_SYS(futex),
	SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_setaffinity),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(get_robust_list),
	SCMP_SYS(rseq),
	SCMP_SYS(membarrier),
	SCMP_SYS(set_tid_address),
	SCMP_SYS(getcpu),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(time),
	SCMP_SYS(getrandom),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getegid),
	SCMP_SYS(uname),
	SCMP_SYS(sysinfo),
	SCMP_SYS(getrusage),
	SCMP_SYS(times),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sigaltstack),
	SCMP_SYS(rt_sigtimedwait),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(select),
	SCMP_SYS(pselect6),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(eventfd2),
	SCMP_SYS(pipe2),
	SCMP_SYS(timerfd_create),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(timerfd_gettime),
	SCMP_SYS(signalfd4),
	SCMP_SYS(sendto),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendmsg),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmmsg),
	SCMP_SYS(recvmmsg),
	SCMP_SYS(shutdown),
	SCMP_SYS(getsockname),
	SCMP_SYS(getpeername),
	SCMP_SYS(setsockopt),
	SCMP_SYS(getsockopt),
};

static const int net[] = {
	SCMP_SYS(connect), SCMP_SYS(bind), SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(accept4),
};

static const int state[] = {
	SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(fsync), SCMP_SYS(fdatasync), SCMP_SYS(ftruncate), SCMP_SYS(renameat2),
};

static const int files[] = {
	SCMP_SYS(open),     SCMP_SYS(openat),    SCMP_SYS(creat),      SCMP_SYS(pread64),    SCMP_SYS(pwrite64),  SCMP_SYS(preadv),
	SCMP_SYS(pwritev),  SCMP_SYS(fsync),     SCMP_SYS(fdatasync),  SCMP_SYS(msync),      SCMP_SYS(ftruncate), SCMP_SYS(fallocate),
	SCMP_SYS(flock),    SCMP_SYS(stat),      SCMP_SYS(lstat),      SCMP_SYS(statx),      SCMP_SYS(statfs),    SCMP_SYS(fstatfs),
	SCMP_SYS(access),   SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(getdents64), SCMP_SYS(readlink),  SCMP_SYS(readlinkat),
	SCMP_SYS(getcwd),   SCMP_SYS(mkdir),     SCMP_SYS(mkdirat),    SCMP_SYS(unlink),     SCMP_SYS(unlinkat),  SCMP_SYS(rename),
	SCMP_SYS(renameat), SCMP_SYS(renameat2), SCMP_SYS(fchmod),     SCMP_SYS(umask),      SCMP_SYS(mincore),   SCMP_SYS(sync_file_range),
};

static const int reader[] = {
	SCMP_SYS(pread64), SCMP_SYS(stat),      SCMP_SYS(lstat),      SCMP_SYS(statx),    SCMP_SYS(statfs),
	SCMP_SYS(access),  SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
};

static const int writer[] = {
	SCMP_SYS(bpf),
	SCMP_SYS(wait4),
	SCMP_SYS(waitid),
};

/* What only an intruder would call: no handler between it and the end. */
static const int hostile[] = {
	SCMP_SYS(execve),
	SCMP_SYS(execveat),
	SCMP_SYS(ptrace),
	SCMP_SYS(process_vm_readv),
	SCMP_SYS(process_vm_writev),
	SCMP_SYS(init_module),
	SCMP_SYS(finit_module),
	SCMP_SYS(kexec_load),
	SCMP_SYS(mount),
	SCMP_SYS(setns),
	SCMP_SYS(unshare),
	SCMP_SYS(pivot_root),
	SCMP_SYS(chroot),
	SCMP_SYS(keyctl),
	SCMP_SYS(add_key),
	SCMP_SYS(userfaultfd),
	SCMP_SYS(perf_event_open),
	SCMP_SYS(io_uring_setup),
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static int add(scmp_filter_ctx f, uint32_t action, const int *calls, size_t n)
{
	int rc = 0;

	for (size_t i = 0; i < n && rc == 0; i++) {
		rc = seccomp_rule_add(f, action, calls[i], 0);
		if (rc == -EDOM) /* not a call of this architecture */
			rc = 0;
	}
	return rc;
}

/* Calls that are allowed for some arguments only. */
static int add_conditional(scmp_filter_ctx f, enum wn_seccomp_set set)
{
	const int family[] = {AF_INET, AF_INET6, AF_UNIX};
	const int request[] = {FIONBIO, FIOCLEX, FIONREAD, SIOCOUTQ};
	const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
	int rc = 0;

	/* No memory that is executable: injected bytes stay bytes. */
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Threads, not processes. The arguments of clone3 cannot be seen; "not there" makes glibc use clone. */
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, thread, thread));
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	/* Limits may be read, not set. */
	rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
	for (size_t i = 0; i < COUNT(request) && rc == 0; i++)
		rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)request[i]));
	if (set == WN_SECCOMP_WRITER) {
		rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, AF_NETLINK));
		rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(kill), 1, SCMP_A1(SCMP_CMP_EQ, SIGTERM));
	} else if (set != WN_SECCOMP_READER) {
		for (size_t i = 0; i < COUNT(family) && rc == 0; i++)
			rc = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)family[i]));
	}
	if (set == WN_SECCOMP_READER) {
		rc = rc
			     ?: seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
						 SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, 0));
	} else if (set != WN_SECCOMP_FILES) {
		/* Libraries look for optional files (libuv for /dev/null as a spare descriptor) and go on without; a file that would be
		 * written is another matter. */
		rc = rc
			     ?: seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 1,
						 SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT, 0));
		/* The control socket's name stays behind; the next start replaces it. */
		rc = rc ?: seccomp_rule_add(f, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(unlink), 0);
	}
	return rc;
}

/* Says which call it was, then ends the process by the same signal. */
static void on_sigsys(int sig, siginfo_t *info, void *context)
{
	int nr = info->si_syscall;
	const char *name = nr >= 0 && nr < NAMES && call_name[nr] != NULL ? call_name[nr] : "unknown";

	(void)context;
	wn_err("system call %d (%s) is outside this process's sandbox; it ends here", nr, name);
	signal(sig, SIG_DFL);
	syscall(SYS_tgkill, getpid(), (pid_t)syscall(SYS_gettid), sig);
}

static int prepare_handler(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};

	for (int nr = 0; nr < NAMES; nr++)
		if (call_name[nr] == NULL)
			call_name[nr] = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, nr);
	sigemptyset(&sa.sa_mask);
	return sigaction(SIGSYS, &sa, NULL) == 0 ? 0 : -errno;
}

int wn_seccomp(enum wn_seccomp_set set)
{
	scmp_filter_ctx f;
	int rc;

	tzset(); /* reads its file now */
	rc = prepare_handler();
	if (rc < 0)
		return rc;
	f = seccomp_init(SCMP_ACT_TRAP);
	if (f == NULL)
		return -ENOMEM;
	rc = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	rc = rc ?: seccomp_attr_set(f, SCMP_FLTATR_CTL_LOG, 1);
	rc = rc ?: seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a binary tree: the hot calls of a worker pay a few steps */
	rc = rc ?: add(f, SCMP_ACT_ALLOW, common, COUNT(common));
	rc = rc ?: add(f, SCMP_ACT_KILL_PROCESS, hostile, COUNT(hostile));
	if (set == WN_SECCOMP_WRITER)
		rc = rc ?: add(f, SCMP_ACT_ALLOW, writer, COUNT(writer));
	else if (set == WN_SECCOMP_READER)
		rc = rc ?: add(f, SCMP_ACT_ALLOW, reader, COUNT(reader));
	else
		rc = rc ?: add(f, SCMP_ACT_ALLOW, net, COUNT(net));
	if (set == WN_SECCOMP_STATE)
		rc = rc ?: add(f, SCMP_ACT_ALLOW, state, COUNT(state));
	if (set == WN_SECCOMP_FILES)
		rc = rc ?: add(f, SCMP_ACT_ALLOW, files, COUNT(files));
	rc = rc ?: add_conditional(f, set);
	rc = rc ?: seccomp_load(f);
	seccomp_release(f);
	return rc;
}

#endif
