#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The operator's side of a running gate: walnut gate, metrics and --check. Needs root; makes namespaces and a bpf file system of its own."""
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time

NAMES = [
    "--check names everything that is wrong with the interfaces and the kernel",
    "--check of a mended machine is good and has changed nothing",
    "--check says what cannot be looked at from here",
    "mode: generic, native and back, each as it was asked for",
    "a hole that the operator opens lets traffic through",
    "list and show tell of it",
    "a tagged UDP hole has a key, which no list tells",
    "refusals are one line and status 1",
    "drops counts what was dropped",
    "trace shows dropped packets with their reason, and no others",
    "an interrupted trace makes room for the next",
    "metrics over loopback agree",
    "forged segments in a user's name do not slow the user",
    "two holes of a user share the user's rate",
    "drain refuses new holes and keeps old ones",
    "drain outlives a restart and its flow does too",
    "drain off grants again",
    "close ends the flow",
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
WALNUT = os.path.join(BUILD, "src/console/walnut")
TAG = f"t-gateop-{os.getpid()}"
SERVICE = "198.18.100.2:7"
METRICS = "127.0.0.1:9443"


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
        sh("ip", "-n", f"{TAG}-in", "route", "add", "default", "via", "198.18.100.1")
        sh("ip", "-n", f"{TAG}-gate", "route", "add", "default", "via", "198.18.3.1")
        sh(*at("gate", "sysctl", "-qw", "net.ipv4.ip_forward=0"))

    def config(self):
        sh(WALNUT, "keys", "init", "gate", self.keys)
        out = sh(WALNUT, "keys", "init", "agent", self.keys).stdout
        pin = re.search(r"sha256:[\w-]{43}", out).group(0)
        with open(self.file, "w", encoding="ascii") as f:
            f.write("outside: { interface: wan, addresses: [198.18.3.2] }\ninside: { interface: lan }\n"
                    f"control: 198.18.100.1:7443\nkeys: {self.keys}\nsocket: {self.socket}\nstate: {self.bpf}/walnut\n"
                    f"metrics: {METRICS}\nmode: auto\ntenants:\n"
                    f"  - {{ name: example.org, agent_pin: \"{pin}\", prefixes: [198.18.100.0/24], holes: 100 }}\n")

    def mend(self):
        for where, name in (("gate", "wan"), ("gate", "lan"), ("out", "eth0"), ("in", "eth0")):
            sh(*at(where, "ethtool", "-K", name, "tx", "off", "gro", "on"))

    def check(self, status, **change):
        """walnut-gate --check of the file with `change` -> its lines on stderr and stdout."""
        with open(self.file, encoding="ascii") as f:
            text = f.read()
        for key, value in change.items():
            text = re.sub(rf"(?m)^{key}: .*$", f"{key}: {value}", text)
        path = os.path.join(self.dir, "check.yaml")
        with open(path, "w", encoding="ascii") as f:
            f.write(text)
        r = sh(*at("gate", GATE, "--config", path, "--check"), check=False)
        need(r.returncode == status, f"{r.returncode} {r.stdout} {r.stderr}")
        return r.stderr.splitlines(), r.stdout.splitlines()

    def set_mode(self, mode):
        with open(self.file, encoding="ascii") as f:
            text = f.read()
        with open(self.file, "w", encoding="ascii") as f:
            f.write(re.sub(r"(?m)^mode: .*$", f"mode: {mode}", text))

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

    def argv(self, *words):
        return [WALNUT, "gate", *words, "--socket", self.socket]

    def op(self, *words, status=0):
        r = sh(*self.argv(*words), check=False)
        need(r.returncode == status, f"walnut gate {' '.join(words)}: {r.returncode} {r.stdout} {r.stderr}")
        return r

    def json(self, *words):
        return json.loads(self.op(*words, "--json").stdout)

    def spawn(self, host, code, *words):
        p = subprocess.Popen(at(host, sys.executable, "-c", code, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.extra.append(p)
        return p

    def close(self):
        for p in [self.gate] + self.extra:
            if p is not None and p.poll() is None:
                p.kill()
                p.wait()
        for host in ("gate", "in", "out"):
            sh("ip", "netns", "del", f"{TAG}-{host}", check=False)
        sh("umount", self.bpf, check=False)
        sh("rm", "-rf", self.dir, check=False)


ECHO = """
import socket, threading
s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("198.18.100.2", 7)); s.listen()
print("up", flush=True)
def serve(c):
    while True:
        d = c.recv(4096)
        if not d: break
        c.sendall(d)
while True:
    threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()
"""

# Connects, then sends each line of its input and prints what comes back within two seconds.
TALK = """
import socket, sys
host, port = sys.argv[1].split(":")
s = socket.create_connection((host, int(port)), timeout=5)
s.settimeout(2)
print("up", flush=True)
for line in sys.stdin:
    s.sendall(line.encode()); got = b""
    try:
        while len(got) < len(line): got += s.recv(4096)
    except TimeoutError:
        got = b"silence\\n"
    print(got.decode(), end="", flush=True)
"""

# N datagrams from source port PORT to HOST:PORT.
SEND = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("198.18.3.1", int(sys.argv[1])))
host, port = sys.argv[2].split(":")
for i in range(int(sys.argv[3])): s.sendto(b"unmistakable payload", (host, int(port)))
"""

# N segments from PORT of this address to HOST:PORT, by somebody who knows of the connection, but not its numbers.
FORGE = """
import random, socket, struct, sys
port, (host, to) = int(sys.argv[1]), sys.argv[2].split(":")
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
def sum16(b):
    n = sum(struct.unpack(">%dH" % (len(b) // 2), b))
    while n >> 16: n = (n & 0xffff) + (n >> 16)
    return n ^ 0xffff
r = random.Random(1)
for i in range(int(sys.argv[3])):
    flags = (0x10, 0x18, 0x04, 0x14, 0x02, 0x11)[i % 6]
    t = struct.pack(">HHIIBBHHH", port, int(to), r.getrandbits(32), r.getrandbits(32), 0x50, flags, 65535, 0, 0) + (b"x" * 100 if flags == 0x18 else b"")
    t = t[:16] + struct.pack(">H", sum16(socket.inet_aton("198.18.3.1") + socket.inet_aton(host) + struct.pack(">HH", 6, len(t)) + t)) + t[18:]
    s.sendto(t, (host, 0))
"""

SCRAPE = """
import urllib.request, sys
print(urllib.request.urlopen("http://" + sys.argv[1] + "/metrics", timeout=5).read().decode(), end="")
"""


def send(source, target, n):
    sh(*at("out", sys.executable, "-c", SEND, str(source), target, str(n)))


def tests(b):
    """A generator: each step yields when it has passed."""
    # Pairs as they are made: checksums unfinished, GRO off.
    wrong, _ = b.check(2, state="/tmp/walnut", control="198.18.100.9:7443")
    for line in wrong:
        need(re.match(r"\S+/check\.yaml:\d+: [\w.]+: ", line), line)
    for part in ("check.yaml:1: outside.interface: frames sent through wan would vanish", "inside.interface: frames sent through lan",
                 "state: /tmp/walnut is not on a bpf file system", "control: no interface here has the address 198.18.100.9"):
        need(any(part in line for line in wrong), f"{part!r} is not in {wrong}")
    wrong, _ = b.check(2, outside="{ interface: wan7, addresses: [198.18.3.2] }", inside="{ interface: lo }")
    need(any('no interface "wan7"' in line for line in wrong) and any("lo is not an Ethernet" in line for line in wrong), str(wrong))
    sh(*at("gate", "sysctl", "-qw", "net.ipv4.ip_forward=1"))
    wrong, _ = b.check(2)
    need(any("net.ipv4.ip_forward is 1" in line for line in wrong), str(wrong))
    need(any("net.ipv4.conf.wan.forwarding=0" in line for line in wrong), str(wrong))
    sh(*at("gate", "sysctl", "-qw", "net.ipv4.ip_forward=0"))
    # A pair whose both ends are here: then the checksums are seen too.
    sh("ip", "-n", f"{TAG}-gate", "link", "add", "va", "type", "veth", "peer", "name", "vb")
    wrong, _ = b.check(2, outside="{ interface: va, addresses: [198.18.3.2] }")
    need(any("ethtool -K vb tx off" in line for line in wrong) and any("ethtool -K vb gro on" in line for line in wrong), str(wrong))
    sh("ip", "-n", f"{TAG}-gate", "link", "del", "va")
    sh("ip", "-n", f"{TAG}-gate", "link", "set", "wan", "mtu", "9000")
    need(any("MTU of wan is 9000" in line for line in b.check(2, mode="native")[0]))
    need(not any("MTU" in line for line in b.check(2)[0]))
    sh("ip", "-n", f"{TAG}-gate", "link", "set", "wan", "mtu", "1500")
    yield

    b.mend()
    wrong, notes = b.check(0)
    need(wrong == [] and notes[-1].endswith(": good"), f"{wrong} {notes}")
    need("xdp" not in sh("ip", "-n", f"{TAG}-gate", "link").stdout and not os.path.exists(b.bpf + "/walnut"), "something was made")
    need(sh(*at("gate", "sysctl", "-n", "net.ipv4.conf.lo.forwarding")).stdout == "0\n", "a switch was set")
    yield

    for key, dev in (("outside", "wan"), ("inside", "lan")):
        need(any(f"{key}.interface: note: the other end of {dev} is in another namespace" in n and "tx off" in n for n in notes), str(notes))
    yield

    def attached():
        text = sh("ip", "-n", f"{TAG}-gate", "-d", "link").stdout
        return len(re.findall(r" mtu \d+ xdpgeneric ", text)), len(re.findall(r" mtu \d+ xdp ", text))

    def restart(mode):
        if b.gate is not None:
            b.gate.send_signal(signal.SIGTERM)
            need(b.gate.wait(5) == 0)
        b.set_mode(mode)
        b.start()
        return b.json("list")["holes"]
    for mode, programs in (("generic", (2, 0)), ("auto", (2, 0)), ("native", (0, 2)), ("auto", (0, 2)), ("generic", (2, 0)), ("native", (0, 2))):
        holes = restart(mode)
        need(attached() == programs, f"{mode}: {attached()}")
        if mode == "generic" and not holes:
            b.op("open", "udp", "198.18.100.2:53", "any") # of TCP, nobody would connect in time
    need(len(holes) == 1, str(holes))
    b.op("close", str(holes[0]["hole"]))
    need(not any("another XDP program" in line for line in b.check(0)[0]), "its own program is none of another's")
    yield

    echo = b.spawn("in", ECHO)
    need(echo.stdout.readline() == "up\n")
    out = b.op("open", "tcp", SERVICE, "198.18.3.1", "--lifetime", "600", "--user", "carol", "--idle", "300").stdout
    hole, public = re.fullmatch(r"hole (\d+) at (198\.18\.3\.2:\d+)\n", out).groups()
    talk = b.spawn("out", TALK, public)
    need(talk.stdout.readline() == "up\n", f"no connection; drops {b.json('drops')}")

    def flows(word):
        talk.stdin.write(word + "\n")
        talk.stdin.flush()
        return talk.stdout.readline() == word + "\n"
    need(flows("one"))
    yield

    holes = b.json("list")["holes"]
    need(len(holes) == 1 and holes[0]["hole"] == int(hole) and holes[0]["user"] == "carol", str(holes))
    need(holes[0]["tenant"] == "example.org" and holes[0]["inside"] == SERVICE and holes[0]["public"] == public, str(holes))
    need("carol" in b.op("list").stdout)
    shown = b.json("show", hole)["hole"]
    need(shown["packets"] > 2 and shown["bytes"] > 100 and shown["remote"].startswith("198.18.3.1:"), str(shown))
    need(shown["remote"] != "198.18.3.1:0", "bound by its handshake")
    need(public in b.op("show", hole).stdout)
    yield

    out = b.op("open", "udp", "198.18.100.2:53", "any").stdout
    tagged, key = re.fullmatch(r"hole (\d+) at 198\.18\.3\.2:\d+\nkey ([\w-]{22})\n", out).groups()
    for words in (["list", "--json"], ["show", tagged], ["show", tagged, "--json"], ["counters"]):
        need(key not in b.op(*words).stdout, str(words))
    with open(os.path.join(b.dir, "gate.log"), encoding="utf-8") as f:
        need(key not in f.read(), "the key is in the log")
    b.op("close", tagged)
    yield

    for words in (["open", "tcp", "198.18.101.2:22", "198.18.3.1"], ["close", tagged], ["show", tagged],
                  ["open", "tcp", SERVICE, "198.18.3.1", "--tenant", "example.net"],
                  ["open", "udp", SERVICE, "198.18.3.1", "--no-tag"], ["trace", "--reason", "nonsense"]):
        r = b.op(*words, status=1)
        need(len(r.stderr.splitlines()) == 1 and r.stdout == "", r.stdout + r.stderr)
    yield

    before = b.json("drops")["no_hole"]
    send(4000, "198.18.3.2:9", 25)
    need(b.json("drops")["no_hole"] == before + 25, str(b.json("drops")))
    need(re.search(rf"^no_hole +{before + 25}$", b.op("drops").stdout, re.M))
    need(re.search(rf"^no_hole +{before + 25} +0$", b.op("drops", "--watch", "--count", "2").stdout, re.M))
    yield

    def traced(*words, count):
        """What a trace says of packets that are dropped while it runs."""
        p = subprocess.Popen(b.argv("trace", "--json", "--count", str(count), *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        b.extra.append(p)

        def dropped():
            send(4001, "198.18.3.2:9", 3)
            send(4002, "198.18.99.9:9", 1)
            return p.poll() is not None
        need(within(10, dropped), "the trace does not end")
        need(p.returncode == 0, p.stderr.read())
        return [json.loads(line) for line in p.stdout]
    sh("ip", "-n", f"{TAG}-out", "route", "add", "198.18.99.0/24", "via", "198.18.3.2")
    seen = traced("--reason", "no_hole", count=5)
    need(len(seen) == 5)
    for s in seen:
        need((s["reason"], s["interface"], s["protocol"], s["source"], s["source_port"], s["destination"], s["destination_port"],
              s["length"]) == ("no_hole", "wan", 17, "198.18.3.1", 4001, "198.18.3.2", 9, 62), str(s))
        need(abs(s["time_ms"] / 1000 - time.time()) < 15, str(s))
        need("unmistakable" not in json.dumps(s))
    need({s["reason"] for s in traced("--reason", "not_public", count=2)} == {"not_public"})
    need({"no_hole", "not_public"} <= {s["reason"] for s in traced(count=40)})
    yield

    p = subprocess.Popen(b.argv("trace"), stdout=subprocess.PIPE, text=True)
    b.extra.append(p)
    need(within(5, lambda: send(4003, "198.18.3.2:9", 1) or select.select([p.stdout], [], [], 0)[0]), "no sample")
    need("another trace" in b.op("trace", "--count", "1", status=1).stderr)
    p.send_signal(signal.SIGINT)
    need(p.wait(5) == 0, str(p.returncode))
    need(re.search(r"^\S+Z no_hole +wan udp 198\.18\.3\.1:4003 > 198\.18\.3\.2:9 length 62$", p.stdout.read(), re.M))
    need(len(traced("--reason", "no_hole", count=1)) == 1)
    yield

    text = sh(*at("gate", sys.executable, "-c", SCRAPE, METRICS)).stdout
    value = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    need(int(value['walnut_gate_packets_total{reason="no_hole",verdict="drop"}']) == b.json("drops")["no_hole"], text)
    need(int(value['walnut_gate_packets_total{reason="hole_in",verdict="pass"}']) > 0, text)
    need(value["walnut_gate_holes"] == "1" and value["walnut_gate_draining"] == "0", text)
    need(value['walnut_gate_events_total{event="hole_bound"}'] == "1", text)
    for host in ("in", "out"):
        need(sh(*at(host, sys.executable, "-c", SCRAPE, "198.18.3.2:9443"), check=False).returncode != 0, "reached from " + host)
    yield

    def limited():
        drops = b.json("drops")
        return drops["rate_user_packets"] + drops["rate_user_bytes"]
    erin = ("--user", "erin", "--user-packets-per-s", "200")
    his, place = re.fullmatch(r"hole (\d+) at (\S+)\n", b.op("open", "tcp", SERVICE, "198.18.3.1", *erin).stdout).groups()
    mine = b.spawn("out", TALK, place)
    need(mine.stdout.readline() == "up\n", "no connection")
    port = b.json("show", his)["hole"]["remote"].rsplit(":", 1)[1]
    before = sum(b.json("drops").values())
    sh(*at("out", sys.executable, "-c", FORGE, port, place, "3000"))
    need(sum(b.json("drops").values()) >= before + 3000, "the forged segments did not come or were let through")
    mine.stdin.write("five\n")
    mine.stdin.flush()
    need(mine.stdout.readline() == "five\n" and limited() == 0, f"cut: {b.json('drops')}")
    yield

    place = re.fullmatch(r"hole \d+ at (\S+)\n", b.op("open", "udp", "198.18.100.2:53", "198.18.3.1:4005", "--no-tag", *erin).stdout).group(1)
    send(4005, place, 1000)
    need(limited() > 0 and b.json("drops")["rate_packets"] == 0, str(b.json("drops")))
    for h in b.json("list")["holes"]:
        if h["user"] == "erin":
            b.op("close", str(h["hole"]))
    yield

    b.op("drain")
    r = b.op("open", "tcp", SERVICE, "198.18.3.1", status=1)
    need("drain" in r.stderr, r.stderr)
    need(b.json("counters")["draining"] is True and flows("two"))
    yield

    b.gate.send_signal(signal.SIGTERM)
    need(b.gate.wait(5) == 0)
    b.start()
    need("drain" in b.op("open", "tcp", SERVICE, "198.18.3.1", status=1).stderr)
    need(b.json("counters")["draining"] is True and len(b.json("list")["holes"]) == 1 and flows("three"))
    yield

    b.op("drain", "off")
    out = b.op("open", "tcp", SERVICE, "198.18.3.1").stdout
    need(out.startswith("hole "), out)
    yield

    b.op("close", hole)
    need(not flows("four"), "it flows on")
    need([h["hole"] for h in b.json("list")["holes"]] == [int(out.split()[1])])
    yield


def main():
    failed = done = 0
    print(f"1..{len(NAMES)}", flush=True)
    b = Bench()
    try:
        b.network()
        b.config()
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
