# SPDX-License-Identifier: Apache-2.0
"""Where the front is measured: one network of our own with nothing but its loopback, the servers on one core, generators on another."""
import json
import os
import subprocess
import tempfile

import servers
from core import Core
from inside import Failure, await_, sh, with_us_first
from servers import SEED, UAS  # noqa: F401 (UAS: for those who measure)

# Servers, generators and callers come before what else runs on the machine; a flood beside callers comes after them.
SERVER, NICE, FIRST, LAST = -20, -15, -20, -12


class World:
    """Servers are started when they are first asked for and stay, so that they can take turns. A context manager."""

    def __init__(self, o):
        self.o, self.children, self.standing, self.core, self.counted = o, [], {}, None, None
        self.others, self.stolen, self.failed = [], [], []

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="walnut-bench-", dir="/run")
        # What the machine's own limits are is none of the front's business.
        sh("sysctl", "-qw", "net.ipv4.ip_local_port_range=32768 60999")
        return self

    def __exit__(self, *exc):
        if self.core:
            self.core.close()
        for p in list(self.children):
            self.stop(p)
        subprocess.run(["rm", "-rf", self.dir], check=False)

    def program(self, name):
        return f"{self.o.build}/bench/front/{name}"

    def start(self, name, argv, cpu, nice=SERVER):
        with open(f"{self.dir}/{name}.log", "w", encoding="utf-8") as log:
            p = subprocess.Popen(["taskset", "-c", str(cpu), *argv], stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=with_us_first(nice))
        self.children.append(p)
        return p

    def log(self, name):
        with open(f"{self.dir}/{name}.log", encoding="utf-8", errors="replace") as f:
            return f.read().strip()

    def stop(self, p):
        if p.poll() is None:
            p.terminate()
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait(5)
        if p in self.children:
            self.children.remove(p)

    def server(self, kind):
        if kind not in self.standing:
            self.standing[kind] = servers.KINDS[kind](self, kind)
            self.standing[kind].up()
            # caches, page tables, a peer's first allocations: not in the first round's figures
            self.load("strangers", self.standing[kind], "--service", self.standing[kind].service, seconds=1)
        return self.standing[kind]

    def retire(self, kind):
        """Ends a server that is not needed any more."""
        s = self.standing.pop(kind, None)
        if s:
            s.down()

    def timed(self):
        """The server's core as a context manager; all servers that stand are of concern."""
        ours = sorted(pid for s in self.standing.values() for pid in s.pids())
        if ours != self.counted:
            if self.core:
                self.core.close()
            self.core, self.counted = Core(self.o.build, self.o.cpu, ours), ours
        return self.core

    def load(self, mode, server, *words, nice=NICE, seconds=None):
        """Runs front-load to its end. -> what it printed."""
        return json.loads(self.end(self.begin(mode, server, *words, nice=nice, seconds=seconds)))

    def begin(self, mode, server, *words, nice=NICE, seconds=None):
        argv = ["taskset", "-c", str(self.o.rest), self.program("front-load"), mode, "--to", server.address, "--seed", SEED,
                "--seconds", str(seconds or self.o.seconds), *map(str, words)]
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=with_us_first(nice))
        self.children.append(p)
        return p

    def end(self, p):
        try:
            out, err = p.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            self.stop(p)
            raise Failure("front-load does not end") from None
        self.children.remove(p)
        if p.returncode != 0 or not out.strip():
            raise Failure(f"front-load: {err.strip() or p.returncode}")
        return out.strip().splitlines()[-1]

    def work(self, mode, server, *words, **kw):
        """-> what the generator printed, seconds of the server's core that were not idle."""
        with self.timed() as core:
            got = self.load(mode, server, *words, **kw)
        self.note(core)
        return got, core.busy

    def on_core(self, name, *words):
        """Runs one of the bench's programs on the measured core. -> its output."""
        p = subprocess.run(["taskset", "-c", str(self.o.cpu), self.program(name), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True, timeout=120, check=False, preexec_fn=with_us_first(SERVER))
        if p.returncode != 0:
            raise Failure(f"{name}: {p.stderr.strip() or p.returncode}")
        return p.stdout

    def attempt(self, into, measure, *args):
        """Adds a round's figure to a list; one that could not be taken is told at the end and spoils no other."""
        try:
            into.append(measure(*args))
        except Failure as e:
            self.failed.append(str(e))

    def note(self, core):
        self.others.append(core.other / core.seconds)
        self.stolen.append(core.stolen / core.seconds)


def received():
    """Datagrams that processes of this network have taken from their sockets so far. What a socket drops is no measure: of many datagrams that
    were sent as one it counts one."""
    with open("/proc/net/snmp", encoding="ascii") as f:
        names, values = [line.split()[1:] for line in f if line.startswith("Udp:")]
    return int(values[names.index("InDatagrams")])


def waiting(port):
    """Bytes that wait at the datagram sockets of a port."""
    with open("/proc/net/udp", encoding="ascii") as f:
        lines = [line.split() for line in f.readlines()[1:]]
    return sum(int(v[4].split(":")[1], 16) for v in lines if v[1].endswith(f":{port:04X}"))


def bound(port):
    with open("/proc/net/udp", encoding="ascii") as f:
        return any(line.split()[1].endswith(f":{port:04X}") for line in f.readlines()[1:])


def secret(w, number):
    return sh(w.program("front-load"), "users", "--users", str(number + 1), "--seed", SEED).split()[-1]


def drained(port):
    await_("the server to take what waits", lambda: waiting(port) == 0, 10)


def resident(pid):
    """Bytes."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as f:
        for line in f:
            if line.startswith("Rss:"):
                return int(line.split()[1]) * 1024
    raise Failure(f"process {pid} has no memory")


def descendants(pid):
    found = [pid]
    for p in found:
        try:
            for t in os.listdir(f"/proc/{p}/task"):
                with open(f"/proc/{p}/task/{t}/children", encoding="ascii") as f:
                    found += [int(x) for x in f.read().split()]
        except OSError:
            pass
    return found
