# SPDX-License-Identifier: Apache-2.0
"""Where the gate is measured: mounts, processes and networks of our own, which the kernel removes with us however we end."""
import os
import re
import subprocess
import sys
import tempfile
import time

INSIDE = "BENCH_GATE_INSIDE"
PUBLIC, GATEWAY, CONTROL, SERVICE = "198.18.3.2", "198.18.3.1", "198.18.100.1", "198.18.100.2"


class Failure(Exception):
    """A measurement that did not take place."""


def enter():
    """Starts this program again with namespaces of its own; its child dies with it. Returns in the child."""
    if os.environ.get(INSIDE) and os.getpid() == 1:
        prepare()
        return
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc", sys.executable,
                          os.path.abspath(sys.argv[0]), *sys.argv[1:]])


def prepare():
    sh("mount", "--make-rprivate", "/")
    # Names of network namespaces, sockets and pinned tables are ours alone.
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    os.mkdir("/run/netns")
    sh("mount", "-t", "sysfs", "sysfs", "/sys")
    sh("mount", "-t", "bpf", "bpf", "/sys/fs/bpf")
    sh("ip", "link", "set", "lo", "up")


def sh(*argv, seconds=60, stdin=None):
    try:
        p = subprocess.run(argv, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, errors="replace", timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        raise Failure(f"{' '.join(argv)}: not done after {seconds} s") from None
    if p.returncode != 0:
        raise Failure(f"{' '.join(argv)}: {p.stdout.strip() or p.returncode}")
    return p.stdout


def on(cpu, *argv):
    return ["taskset", "-c", str(cpu), *argv]


def at(host, *argv):
    """A command line that runs in the host's network with our mounts."""
    return ["nsenter", f"--net=/run/netns/{host}", "--", *argv]


def ip(host, *args):
    return sh("ip", "-n", host, *args)


def await_(what, test, seconds=5.0):
    end = time.monotonic() + seconds
    while True:
        got = test()
        if got:
            return got
        if time.monotonic() > end:
            raise Failure(f"waited {seconds:g} s for {what}")
        time.sleep(0.01)


class Net:
    """out -- gate -- in, two wires without a narrow link. A context manager."""

    hosts = ("out", "gate", "in")

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="walnut-bench-", dir="/run")
        self.children = []
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for host in self.hosts:
            sh("ip", "netns", "add", host)
            sh(*at(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.ip_forward=0",
                   "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"))
            ip(host, "link", "set", "lo", "up")
        for host, dev, near, far in (("out", "wan", PUBLIC, GATEWAY), ("in", "lan", CONTROL, SERVICE)):
            ip("gate", "link", "add", dev, "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("gate", "addr", "add", near + "/24", "dev", dev)
            ip(host, "addr", "add", far + "/24", "dev", "eth0")
            for where, name in (("gate", dev), (host, "eth0")):
                # Whole frames with complete checksums towards XDP; a receiver of redirected frames has to poll.
                sh(*at(where, "ethtool", "-K", name, "tx", "off", "gro", "on"))
                ip(where, "link", "set", name, "up")
        ip("in", "route", "add", "default", "via", CONTROL)
        ip("gate", "route", "add", "default", "via", GATEWAY)

    def start(self, name, host, argv, **kw):
        """A program that ends with this network at the latest."""
        with open(f"{self.dir}/{name}.log", "w", encoding="utf-8") as log:
            p = subprocess.Popen(at(host, *argv), stdin=subprocess.DEVNULL, stdout=kw.pop("stdout", log), stderr=log, text=True, **kw)
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
        self.children.remove(p)

    def __exit__(self, *exc):
        for p in list(self.children):
            self.stop(p)
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", host], stderr=subprocess.DEVNULL, check=False)


class Gate:
    """walnut-gate in the middle of a Net."""

    def __init__(self, net, build, cpu=None, holes=70000):
        self.net, self.build = net, build
        self.keys, self.socket, self.state = f"{net.dir}/keys", f"{net.dir}/gate.sock", "/sys/fs/bpf/walnut-bench"
        walnut = f"{build}/src/console/walnut"
        self.pin = {r: re.search(r"sha256:[\w-]{43}", sh(walnut, "keys", "init", r, self.keys)).group(0) for r in ("gate", "agent")}
        file = f"{net.dir}/gate.yaml"
        with open(file, "w", encoding="ascii") as f:
            f.write(f"outside: {{ interface: wan, addresses: [{PUBLIC}], ports: 1024-65535 }}\ninside: {{ interface: lan }}\n"
                    f"control: {CONTROL}:7443\nkeys: {self.keys}\nsocket: {self.socket}\nstate: {self.state}\nholes: {holes}\ntenants:\n"
                    f"  - {{ name: example.org, agent_pin: \"{self.pin['agent']}\", prefixes: [198.18.100.0/24], holes: {holes} }}\n")
        self.file = file
        program = [f"{build}/src/gate/walnut-gate", "--config", file]
        self.process = net.start("gate", "gate", on(cpu, *program) if cpu is not None else program)
        try:
            await_("walnut-gate to listen", self.ready, 10)
        except Failure:
            raise Failure("walnut-gate: " + (net.log("gate") or "does not listen")) from None

    def ready(self):
        if self.process.poll() is not None:
            raise Failure("walnut-gate ended")
        return "ready" in self.net.log("gate")

    def cpu_s(self):
        """CPU that both processes have used so far."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as f:
            pids = [self.process.pid, *map(int, f.read().split())]
        ticks = 0
        for pid in pids:
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def client(self, *words):
        return at("in", f"{self.build}/tests/net/gate-client", "--addr", f"{CONTROL}:7443", "--pin", self.pin["gate"], "--keys", self.keys, *words)

    def stop(self):
        self.net.stop(self.process)
        sh(*at("gate", f"{self.build}/src/gate/walnut-gate", "--config", self.file, "--remove"))
