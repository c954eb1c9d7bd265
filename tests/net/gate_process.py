#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""walnut-gate as two processes: rights, life and death, and what outlives them. Needs root; makes namespaces and a bpf file system of its own."""
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

NAMES = [
    "a wrong option is one line and status 2",
    "a wrong file is one line with its key and status 2",
    "a key that others may read is refused",
    "--check of a good file",
    "an interface that is not there is named",
    "it starts and answers PING and OPEN",
    "two processes, each with its rights and no more",
    "what a tenant may not is refused",
    "a key that is no tenant's gets nowhere",
    "status on the local socket",
    "the first packets after a start find their next hops",
    "a TCP flow passes through the hole",
    "the parser killed: the map writer ends at once",
    "meanwhile the flow goes on",
    "started again: the same holes",
    "the map writer killed: the parser ends at once",
    "started again: the same holes and the same flow",
    "SIGTERM ends both in order and leaves the packet path",
    "holes that expired while nobody was there are gone",
    "many grants over one connection",
    "--remove takes the packet path away",
]

if os.geteuid() != 0:
    print(f"1..{len(NAMES)}")
    for i, name in enumerate(NAMES):
        print(f"ok {i + 1} - {name} # SKIP needs root")
    sys.exit(0)
if "WALNUT_TEST_MOUNTS" not in os.environ:
    os.environ["WALNUT_TEST_MOUNTS"] = "1"
    os.execvp("unshare", ["unshare", "--mount", sys.executable, os.path.abspath(__file__)])

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WALNUT_BUILD", os.path.join(ROOT, "build"))
GATE = os.path.join(BUILD, "src/gate/walnut-gate")
CLIENT = os.path.join(BUILD, "tests/net/gate-client")
WALNUT = os.path.join(BUILD, "src/console/walnut")
TAG = f"t-gatectl-{os.getpid()}"
CONTROL = "198.18.100.1:7443"
SERVICE = "198.18.100.2:7"
QUIET = "198.18.100.3"
FAR = "198.18.77.7"


def sh(*argv, check=True, **kw):
    return subprocess.run(argv, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, **kw)


def within(seconds, condition):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    return condition()


def at(host, *argv):
    """A command line that runs in the host's network but sees our mounts (ip netns exec would hide the bpf file system)."""
    return ["nsenter", f"--net=/run/netns/{TAG}-{host}", *argv]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


class Failure(Exception):
    pass


def need(condition, what=""):
    if not condition:
        raise Failure(what)


class Bench:
    def __init__(self):
        self.dir = tempfile.mkdtemp(prefix="walnut-gate-")
        self.bpf = os.path.join(self.dir, "bpf")
        self.keys = os.path.join(self.dir, "keys")
        self.socket = os.path.join(self.dir, "gate.sock")
        self.file = os.path.join(self.dir, "gate.yaml")
        self.gate = None
        self.extra = []

    def network(self):
        sh("mount", "--make-rprivate", "/")
        os.mkdir(self.bpf)
        sh("mount", "-t", "bpf", "bpf", self.bpf)
        for host in ("gate", "in", "out"):
            sh("ip", "netns", "add", f"{TAG}-{host}")
            sh(*at(host, "ip", "link", "set", "lo", "up"))
        for host, dev, peer, near, far in (("out", "wan", "eth0", "198.18.3.2/24", "198.18.3.1/24"),
                                           ("in", "lan", "eth0", "198.18.100.1/24", "198.18.100.2/24")):
            sh("ip", "-n", f"{TAG}-gate", "link", "add", dev, "type", "veth", "peer", "name", peer, "netns", f"{TAG}-{host}")
            sh("ip", "-n", f"{TAG}-gate", "addr", "add", near, "dev", dev)
            sh("ip", "-n", f"{TAG}-gate", "link", "set", dev, "up")
            sh("ip", "-n", f"{TAG}-{host}", "addr", "add", far, "dev", peer)
            sh("ip", "-n", f"{TAG}-{host}", "link", "set", peer, "up")
            for where, name in (("gate", dev), (host, peer)):
                sh(*at(where, "ethtool", "-K", name, "tx", "off", "gro", "on"))
        sh("ip", "-n", f"{TAG}-in", "route", "add", "default", "via", "198.18.100.1")
        # A service that never speaks with the gate's host, and a client behind the gate's gateway.
        sh("ip", "-n", f"{TAG}-in", "addr", "add", "198.18.100.3/24", "dev", "eth0")
        sh("ip", "-n", f"{TAG}-out", "addr", "add", FAR + "/32", "dev", "lo")
        sh("ip", "-n", f"{TAG}-gate", "route", "add", "default", "via", "198.18.3.1")
        # A redirected frame vanishes where the receiver has neither an XDP program nor GRO.
        sh(*at("gate", "sysctl", "-qw", "net.ipv4.ip_forward=0"))

    def make_keys(self):
        self.pin = {}
        for role in ("gate", "agent"):
            out = sh(WALNUT, "keys", "init", role, self.keys).stdout
            self.pin[role] = re.search(r"sha256:[\w-]{43}", out).group(0)
        for other in ("other", "stranger"):
            folder = os.path.join(self.dir, other)
            self.pin[other] = re.search(r"sha256:[\w-]{43}", sh(WALNUT, "keys", "init", "agent", folder).stdout).group(0)

    def config(self, **change):
        v = dict(wan="wan", lan="lan", keys=self.keys, holes=40000, quota=30000)
        v.update(change)
        return (f"outside: {{ interface: {v['wan']}, addresses: [198.18.3.2], ports: 1024-65535 }}\n"
                f"inside: {{ interface: {v['lan']} }}\n"
                f"control: {CONTROL}\nkeys: {v['keys']}\nsocket: {self.socket}\nstate: {self.bpf}/walnut\nholes: {v['holes']}\n"
                "tenants:\n"
                f"  - {{ name: example.org, agent_pin: \"{self.pin['agent']}\", prefixes: [198.18.100.0/24], holes: {v['quota']} }}\n"
                f"  - {{ name: example.net, agent_pin: \"{self.pin['other']}\", prefixes: [198.18.101.0/24], holes: 10 }}\n")

    def write(self, text, name="gate.yaml"):
        path = os.path.join(self.dir, name)
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        return path

    def start(self):
        log = open(os.path.join(self.dir, "gate.log"), "a+", encoding="utf-8")
        log.seek(0, os.SEEK_END)
        begin = log.tell()
        self.gate = subprocess.Popen(at("gate", GATE, "--config", self.file), stdout=log, stderr=log)

        def ready():
            log.seek(begin)
            text = log.read()
            need(self.gate.poll() is None, "walnut-gate ended: " + text)
            return "ready" in text
        need(within(20, ready), "walnut-gate is not ready")
        with open(f"/proc/{self.gate.pid}/task/{self.gate.pid}/children", encoding="ascii") as f:
            children = f.read().split()
        need(len(children) == 1, f"children: {children}")
        self.writer, self.parser = self.gate.pid, int(children[0])

    def ended(self):
        """Both are gone, and the exit status."""
        try:
            rc = self.gate.wait(2)
        except subprocess.TimeoutExpired:
            return None
        return rc if within(2, lambda: not alive(self.parser)) else None

    def client(self, *words, keys=None, stdin=None, check=True):
        argv = at("in", CLIENT, "--addr", CONTROL, "--pin", self.pin["gate"], "--keys", keys or self.keys, *words)
        r = sh(*argv, check=False, input=stdin)
        need(not check or r.returncode == 0, f"gate-client {' '.join(words)}: {r.returncode} {r.stdout} {r.stderr}")
        return r.returncode, [json.loads(line) for line in r.stdout.splitlines()]

    def holes(self):
        _, answers = self.client("list")
        need(answers[-1]["status"] == "end", str(answers[-1]))
        return {a["hole"]: (a["public"], a["inside"], a["user"], a["cookie"]) for a in answers[:-1]}

    def ctl(self, request):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(5)
            s.connect(self.socket)
            s.sendall(json.dumps(request).encode() + b"\n")
            data = b""
            while not data.endswith(b"\n"):
                data += s.recv(65536)
        return json.loads(data)

    def close(self):
        for p in [self.gate] + self.extra:
            if p is not None and p.poll() is None:
                p.kill()
                p.wait()
        for host in ("gate", "in", "out"):
            sh("ip", "netns", "del", f"{TAG}-{host}", check=False)
        sh("umount", self.bpf, check=False)
        sh("rm", "-rf", self.dir, check=False)


def one_line(r, *parts):
    need(r.returncode == 2, f"status {r.returncode}")
    need(len(r.stderr.splitlines()) == 1 and r.stdout == "", r.stdout + r.stderr)
    for part in parts:
        need(part in r.stderr, f"{part!r} is not in {r.stderr!r}")


def has_xdp(dev):
    return "xdp" in sh("ip", "-n", f"{TAG}-gate", "link", "show", "dev", dev).stdout


ECHO = """
import socket, sys
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind((sys.argv[1], 7)); s.listen()
print("up", flush=True)
while True:
    c, _ = s.accept()
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(d)
"""

# Connects once, and says how long it took.
FIRST = """
import socket, sys, time
host, port = sys.argv[1].split(":")
begin = time.monotonic()
s = socket.create_connection((host, int(port)), timeout=5, source_address=(sys.argv[2], 0))
s.sendall(b"x"); s.recv(1)
print(time.monotonic() - begin)
"""

# Connects, then sends each line of its input and prints what comes back.
TALK = """
import socket, sys
host, port = sys.argv[1].split(":")
s = socket.create_connection((host, int(port)), timeout=5)
print("up", flush=True)
for line in sys.stdin:
    s.sendall(line.encode()); got = b""
    while len(got) < len(line): got += s.recv(4096)
    print(got.decode(), end="", flush=True)
"""


def tests(b):
    """A generator: each step yields when it has passed."""
    nothing = sh(*at("gate", GATE, "--nonsense"), check=False)
    one_line(nothing, "--nonsense")
    one_line(sh(*at("gate", GATE, "--config"), check=False), "--config")
    one_line(sh(*at("gate", GATE, "extra"), check=False))
    yield

    bad = b.write(b.config() + "surprise: 1\n", "bad.yaml")
    one_line(sh(*at("gate", GATE, "--config", bad), check=False), "bad.yaml:11: surprise: ")
    bad = b.write(b.config().replace("198.18.101.0/24", "198.18.0.0/16"), "bad.yaml")
    one_line(sh(*at("gate", GATE, "--config", bad, "--check"), check=False), "bad.yaml:10: tenants[1].prefixes[0]: ", "example.org")
    one_line(sh(*at("gate", GATE, "--config", b.dir + "/none.yaml"), check=False), "none.yaml")
    yield

    key = os.path.join(b.keys, "gate.key")
    os.chmod(key, 0o644)
    one_line(sh(*at("gate", GATE, "--config", b.file), check=False), "gate.key")
    one_line(sh(*at("gate", GATE, "--config", b.file, "--check"), check=False), "gate.key")
    os.chmod(key, 0o600)
    yield

    r = sh(*at("gate", GATE, "--config", b.file, "--check"))
    need(r.stderr == "" and not has_xdp("wan"), r.stderr)
    yield

    bad = b.write(b.config(lan="lan7"), "bad.yaml")
    one_line(sh(*at("gate", GATE, "--config", bad), check=False), "bad.yaml:2: inside.interface: ", "lan7")
    yield

    b.start()
    need(has_xdp("wan") and has_xdp("lan"))
    _, a = b.client("ping")
    need(a[0]["status"] == "ok" and a[0]["hole"] != 0, str(a))
    _, a = b.client("open", "tcp", SERVICE, "198.18.3.1", "user=alice", "cookie=42", "lifetime=600", "connect=60")
    public = a[0]["public"]
    need(a[0]["status"] == "ok" and public.startswith("198.18.3.2:"), str(a))
    _, a = b.client("open", "udp", "198.18.100.2:53", "198.18.3.1:4000", "user=bob", "cookie=43", "lifetime=600",
                    "key=000102030405060708090a0b0c0d0e0f")
    need(a[0]["status"] == "ok", str(a))
    before = b.holes()
    need(len(before) == 2, str(before))
    yield

    caps = 1 << 12 | 1 << 38 | 1 << 39
    for pid, keep in ((b.writer, caps), (b.parser, 0)):
        s = status_of(pid)
        need(s["Uid"].split()[0] != "0" and len(set(s["Uid"].split())) == 1, s["Uid"])
        need(len(set(s["Gid"].split())) == 1 and s["Groups"].strip() == "", s["Gid"] + s["Groups"])
        for which in ("CapEff", "CapPrm"):
            need(int(s[which], 16) == keep, f"{which} {s[which]}")
        need(int(s["CapInh"], 16) == 0 and int(s["CapAmb"], 16) == 0)
        need(s["NoNewPrivs"] == "1" and s["Seccomp"] == "2", f"no_new_privs {s['NoNewPrivs']} seccomp {s['Seccomp']}")
    links = [os.readlink(f"/proc/{b.parser}/fd/{fd}") for fd in os.listdir(f"/proc/{b.parser}/fd")]
    need(not any("bpf" in link for link in links), str(links))
    yield

    rc, a = b.client("open", "tcp", "198.18.101.2:22", "198.18.3.1", check=False)
    need(rc == 1 and a[0]["status"] == "not_yours", str(a))
    rc, a = b.client("close", str(min(before)), keys=os.path.join(b.dir, "other"), check=False)
    need(rc == 1 and a[0]["status"] == "not_yours", str(a))
    _, a = b.client("list", keys=os.path.join(b.dir, "other"))
    need(len(a) == 1, str(a))
    yield

    rc, a = b.client("ping", keys=os.path.join(b.dir, "stranger"), check=False)
    need(rc == 1 and a == [], str(a))
    yield

    need(os.stat(b.socket).st_mode & 0o777 == 0o600, "mode of the socket")
    s = b.ctl({"cmd": "status"})
    need(s["ok"] and s["role"] == "gate" and s["holes"] == 2 and s["refused_keys"] == 1, str(s))
    need(s["link"]["heartbeat_bytes"] == 384 and s["answers"]["not_yours"] == 2, str(s))
    need(isinstance(s["drops"], dict) and len(s["drops"]) > 5, str(s["drops"]))
    h = b.ctl({"cmd": "holes"})["holes"]
    need({x["hole"] for x in h} == set(before) and {x["user"] for x in h} == {"alice", "bob"}, str(h))
    yield

    quiet = subprocess.Popen(at("in", sys.executable, "-c", ECHO, QUIET), stdout=subprocess.PIPE, text=True)
    b.extra.append(quiet)
    need(quiet.stdout.readline() == "up\n")
    _, a = b.client("open", "tcp", QUIET + ":7", FAR, "user=alice", "cookie=44", "lifetime=600")
    r = sh(*at("out", sys.executable, "-c", FIRST, a[0]["public"], FAR))
    drops = b.ctl({"cmd": "status"})["drops"]
    need(drops["no_neighbour"] == 0 and float(r.stdout) < 0.9, f"{r.stdout.strip()} s, drops {drops}")
    b.client("close", str(a[0]["hole"]))
    yield

    echo = subprocess.Popen(at("in", sys.executable, "-c", ECHO, SERVICE.split(":")[0]), stdout=subprocess.PIPE, text=True)
    b.extra.append(echo)
    need(echo.stdout.readline() == "up\n")
    # This client is nobody's gateway: its first packets only tell the gate's host to look for it; TCP tries again.
    talk = subprocess.Popen(at("out", sys.executable, "-c", TALK, public), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    b.extra.append(talk)
    need(talk.stdout.readline() == "up\n", f"no connection; drops {b.ctl({'cmd': 'status'})['drops']}")

    def flows(word):
        talk.stdin.write(word + "\n")
        talk.stdin.flush()
        return talk.stdout.readline() == word + "\n"
    need(flows("one"))
    yield

    os.kill(b.parser, signal.SIGKILL)
    need(b.ended() == 1, "status of the writer")
    yield

    need(flows("two"))
    yield

    b.start()
    need(b.holes() == before)
    need(flows("three"))
    yield

    os.kill(b.writer, signal.SIGKILL)
    need(b.ended() == -signal.SIGKILL, "an orphan is left")
    need(flows("four"))
    yield

    b.start()
    need(b.holes() == before)
    need(flows("five"))
    yield

    _, a = b.client("open", "tcp", SERVICE, "198.18.3.1", "lifetime=1")
    need(len(b.holes()) == 3)
    os.kill(b.writer, signal.SIGTERM)
    need(b.ended() == 0, "status")
    need(has_xdp("wan") and has_xdp("lan"))
    need(flows("six"))
    yield

    time.sleep(1)
    b.start()
    need(b.holes() == before)
    yield

    r = sh(*at("in", CLIENT, "--addr", CONTROL, "--pin", b.pin["gate"], "--keys", b.keys, "bench", "20000", SERVICE, "198.18.3.1",
               "lifetime=600"), check=False)
    need(r.returncode == 0, r.stdout + r.stderr)
    need(json.loads(r.stdout)["opened"] == 20000, r.stdout)
    print("# " + r.stdout.strip(), flush=True)
    need(b.holes() == before)
    need(flows("seven"))
    yield

    os.kill(b.writer, signal.SIGTERM)
    need(b.ended() == 0)
    sh(*at("gate", GATE, "--config", b.file, "--remove"))
    need(not has_xdp("wan") and not has_xdp("lan"))
    left = [n for n in os.listdir(b.bpf) if not n.endswith(".debug")]
    need(left == [], str(left))
    yield


def main():
    failed = done = 0
    print(f"1..{len(NAMES)}", flush=True)
    b = Bench()
    try:
        b.make_keys()
        b.network()
        b.file = b.write(b.config())
        steps = tests(b)
        for done, name in enumerate(NAMES, 1):
            next(steps)
            print(f"ok {done} - {name}", flush=True)
    except (Failure, subprocess.SubprocessError, OSError, ValueError, KeyError, AttributeError) as e:
        done = max(done, 1)
        print(f"not ok {done} - {NAMES[done - 1]}", flush=True)
        print("# " + f"{type(e).__name__}: {e} {getattr(e, 'stderr', '') or ''}".replace("\n", "\n# "), flush=True)
        try:
            with open(os.path.join(b.dir, "gate.log"), encoding="utf-8") as f:
                print("# " + "\n# ".join(f.read().splitlines()[-20:]), flush=True)
        except OSError:
            pass
        failed = 1
        # What comes after stands on it.
        for i in range(done, len(NAMES)):
            print(f"not ok {i + 1} - {NAMES[i]}", flush=True)
    finally:
        b.close()
    return failed


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
