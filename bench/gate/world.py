# SPDX-License-Identifier: Apache-2.0
"""Where the gate is measured: mounts and networks of our own, which the kernel removes with us however we end."""
import os
import re
import signal
import subprocess
import tempfile

from inside import Failure, await_, enter, sh, with_us  # noqa: F401 (for those who measure)

PUBLIC, GATEWAY, CONTROL, SERVICE = "198.18.3.2", "198.18.3.1", "198.18.100.1", "198.18.100.2"
LINK_RATE = "10mbit"


class Net:
    """out -- gate -- in, or with the narrow link: out -- gate -- link -- in. A context manager.

    kind: for the names. busy: the core on which everything that `gate` receives is handled, rest: the one for all else."""

    def __init__(self, kind="gate", narrow=False, busy=None, rest=None):
        self.kind, self.narrow, self.busy, self.rest = kind, narrow, busy, rest
        self.hosts = ("out", "gate", "link", "in") if narrow else ("out", "gate", "in")
        self.children = []
        self.dir = None

    def ns(self, host):
        # The lab's generators run in namespaces of a lab only, which this is.
        return f"wl-{self.kind}-{host}"

    def at(self, host, *argv):
        """A command line that runs in the host's network with our mounts."""
        return ["nsenter", f"--net=/run/netns/{self.ns(host)}", "--", *argv]

    def sh(self, host, *argv, **kw):
        return sh(*self.at(host, *argv), **kw)

    def ip(self, host, *args):
        return sh("ip", "-n", self.ns(host), *args)

    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="walnut-bench-", dir="/run")
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for host in self.hosts:
            sh("ip", "netns", "add", self.ns(host))
            self.sh(host, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1", "net.ipv4.ip_forward=0",
                    "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
            self.ip(host, "link", "set", "lo", "up")
        self.wire("gate", "wan", "out", "eth0")
        self.ip("gate", "addr", "add", PUBLIC + "/24", "dev", "wan")
        self.ip("out", "addr", "add", GATEWAY + "/24", "dev", "eth0")
        if self.narrow:
            self.wire("gate", "lan", "link", "to-gate")
            self.wire("link", "to-in", "in", "eth0")
            self.ip("link", "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0", "forward_delay", "0")
            for dev in ("to-gate", "to-in"):
                self.ip("link", "link", "set", dev, "master", "br0")
                sh("tc", "-n", self.ns("link"), "qdisc", "add", "dev", dev, "root", "handle", "1:", "tbf", "rate", LINK_RATE, "burst", "16kb",
                   "latency", "50ms")
                sh("tc", "-n", self.ns("link"), "qdisc", "add", "dev", dev, "parent", "1:1", "handle", "10:", "pfifo", "limit", "50")
            self.ip("link", "link", "set", "br0", "up")
        else:
            self.wire("gate", "lan", "in", "eth0")
        self.ip("gate", "addr", "add", CONTROL + "/24", "dev", "lan")
        self.ip("in", "addr", "add", SERVICE + "/24", "dev", "eth0")
        self.ip("in", "route", "add", "default", "via", CONTROL)
        self.ip("gate", "route", "add", "default", "via", GATEWAY)
        if self.busy is not None:
            for host, dev in (("gate", "wan"), ("gate", "lan"), ("out", "eth0"), ("in", "eth0")):
                self.threaded(host, dev, self.busy if host == "gate" else self.rest)

    def wire(self, host, dev, other, peer):
        self.ip(host, "link", "add", dev, "type", "veth", "peer", "name", peer, "netns", self.ns(other))
        for where, name in ((host, dev), (other, peer)):
            self.ip(where, "link", "set", name, "up")
        for where, name in ((host, dev), (other, peer)):
            # Whole frames with complete checksums towards XDP. A receiver of redirected frames has to poll; the sender's side notices only when
            # both are up.
            self.sh(where, "ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "on")

    def threaded(self, host, dev, cpu):
        """What the device receives is handled by a kernel thread of its own, on that core: otherwise it would be on the sender's."""
        # The file system of devices shows those of the network it was mounted from.
        self.sh(host, "unshare", "--mount", "sh", "-c", f"mount -t sysfs sysfs /sys && echo 1 > /sys/class/net/{dev}/threaded")
        pid = self.thread(host, dev)
        os.sched_setaffinity(pid, {cpu})
        # As soft interrupts would be, it is before all processes: its queue holds 256 frames.
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))

    def thread(self, host, dev):
        """Pid of the thread. Its name has a number that only the kernel knows: the device's youngest is ours, as we are the only ones to make
        one now."""
        key = (host, dev)
        if not hasattr(self, "threads"):
            self.threads = {}
        if key not in self.threads:
            found = []
            for name in os.listdir("/proc"):
                if name.isdigit():
                    try:
                        with open(f"/proc/{name}/comm", encoding="ascii", errors="replace") as f:
                            if re.fullmatch(rf"napi/{dev}-\d+", f.read().strip()):
                                found.append(int(name))
                    except OSError:
                        pass
            if not found:
                raise Failure(f"{dev}: the kernel has made no thread for it")
            self.threads[key] = max(found)
        return self.threads[key]

    def start(self, name, host, argv, **kw):
        """A program that ends with this network at the latest."""
        with open(f"{self.dir}/{name}.log", "w", encoding="utf-8") as log:
            p = subprocess.Popen(self.at(host, *argv), stdin=subprocess.DEVNULL, stdout=kw.pop("stdout", log), stderr=log, text=True,
                                 preexec_fn=with_us, **kw)
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

    def __exit__(self, *exc):
        for p in list(self.children):
            self.stop(p)
        for host in self.hosts:
            subprocess.run(["ip", "netns", "del", self.ns(host)], stderr=subprocess.DEVNULL, check=False)


class Gate:
    """walnut-gate in the middle of a Net."""

    def __init__(self, net, build, holes=70000):
        self.net, self.build = net, build
        self.keys, self.socket, self.state = f"{net.dir}/keys", f"{net.dir}/gate.sock", f"/sys/fs/bpf/walnut-{net.kind}"
        walnut = f"{build}/src/console/walnut"
        self.pin = {r: re.search(r"sha256:[\w-]{43}", sh(walnut, "keys", "init", r, self.keys)).group(0) for r in ("gate", "agent")}
        self.file = f"{net.dir}/gate.yaml"
        with open(self.file, "w", encoding="ascii") as f:
            f.write(f"outside: {{ interface: wan, addresses: [{PUBLIC}], ports: 1024-65535 }}\ninside: {{ interface: lan }}\n"
                    f"control: {CONTROL}:7443\nkeys: {self.keys}\nsocket: {self.socket}\nstate: {self.state}\nholes: {holes}\ntenants:\n"
                    f"  - {{ name: example.org, agent_pin: \"{self.pin['agent']}\", prefixes: [198.18.100.0/24], holes: {holes} }}\n")
        program = [f"{build}/src/gate/walnut-gate", "--config", self.file]
        if net.busy is not None:
            program = ["taskset", "-c", str(net.busy), *program]
        # It changes its credentials, and the kernel forgets that it was to end with us: the shell in the middle does not.
        self.keeper = net.start("gate", "gate", ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit $?', "sh", *program])
        try:
            await_("walnut-gate to be ready", self.ready, 10)
        except Failure:
            raise Failure("walnut-gate: " + (net.log("gate") or "is not ready")) from None

    def ready(self):
        if self.keeper.poll() is not None:
            raise Failure("walnut-gate ended")
        return "ready" in self.net.log("gate")

    def pids(self):
        """Of the map writer and of the parser."""
        found, pid = [], self.keeper.pid
        for _ in range(3):
            with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as f:
                children = f.read().split()
            if not children:
                raise Failure("walnut-gate ended: " + self.net.log("gate"))
            pid = int(children[0])
            found.append(pid)
        return found[1:]

    def cpu_s(self):
        """CPU that both processes have used so far."""
        ticks = 0
        for pid in self.pids():
            with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
                ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def client(self, *words, stdin=None, seconds=60):
        """What the gate answered, lines of JSON."""
        return self.net.sh("in", f"{self.build}/tests/net/gate-client", "--addr", f"{CONTROL}:7443", "--pin", self.pin["gate"], "--keys",
                           self.keys, *words, stdin=stdin, seconds=seconds)

    def stop(self):
        os.kill(self.pids()[0], signal.SIGTERM)
        self.keeper.wait(10)
        self.net.stop(self.keeper)
        self.net.sh("gate", f"{self.build}/src/gate/walnut-gate", "--config", self.file, "--remove")
