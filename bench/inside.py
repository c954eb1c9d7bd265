# SPDX-License-Identifier: Apache-2.0
"""Mounts and a network of a bench's own, which the kernel removes with its last process however that ends; and processes that end with it."""
import ctypes
import os
import signal
import subprocess
import sys
import time

INSIDE = "WALNUT_BENCH_INSIDE"
PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None)


class Failure(Exception):
    """A measurement that did not take place."""


def enter():
    """Starts this program again with mounts and a network of its own. Returns there."""
    if os.environ.get(INSIDE) != str(os.getpid()):
        os.environ[INSIDE] = str(os.getpid())
        os.execvp("unshare", ["unshare", "--mount", "--net", sys.executable, os.path.abspath(sys.argv[0]), *sys.argv[1:]])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sh("mount", "--make-rprivate", "/")
    # The names of network namespaces, sockets and pinned tables are ours alone.
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.mkdir("/run/netns")
    sh("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    sh("ip", "link", "set", "lo", "up")


def with_us():
    """In a child: it ends when we do."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def with_us_first(nice):
    """For a child: it ends when we do, and comes before others by that much also where the kernel shares a core out by sessions."""
    def prepare():
        with_us()
        os.setsid()
        os.nice(nice)
        try:
            with open("/proc/self/autogroup", "w", encoding="ascii") as f:
                f.write(str(nice))
        except OSError:
            pass # it does not
    return prepare


def sh(*argv, seconds=60, stdin=None):
    try:
        p = subprocess.run(argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds, check=False, preexec_fn=with_us)
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(argv)}: not done after {seconds} s") from None
    if p.returncode != 0:
        raise Failure(f"{' '.join(argv)}: {p.stdout.strip() or p.returncode}")
    return p.stdout


def await_(what, test, seconds=5.0):
    end = time.monotonic() + seconds
    while True:
        got = test()
        if got:
            return got
        if time.monotonic() > end:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)
