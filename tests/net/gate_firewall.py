#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gate as a firewall for public addresses, IPv4 and IPv6, with real programs on both sides: nothing is translated, and the same holes.
Needs root; everything is in network namespaces of its own."""
import hashlib
import os
import socket
import struct
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from _gate import CLIENT, GATE_INSIDE, OTHER, PROGRAM, PUBLIC, SERVICE, Bench, hear, own_mounts, recv, sh, siphash, until  # noqa: E402
from _lab import main, ok  # noqa: E402

CLIENT6, OTHER6, GATE6, INSIDE6 = "2001:db8:3::1", "2001:db8:3::9", "2001:db8:3::2", "2001:db8:100::1"
SERVICE6, UNLISTED, UNLISTED6 = "2001:db8:100::2", "198.18.100.3", "2001:db8:100::3"
KEY = bytes([0x42] * 16)
IPV6_MTU, IPV6_RECVERR, IP_MTU, IP_MTU_DISCOVER, IPV6_MTU_DISCOVER = 24, 25, 14, 10, 23


class Firewall(Bench):
    """The same three hosts with addresses of both families; the client has a route to the service's network."""

    def __enter__(self):
        self.dressed = False
        return super().__enter__()

    def open_path(self):
        t = self.tag
        if not self.dressed:
            self.dressed = True
            sh(f"""set -e
for a in {CLIENT6} {OTHER6}; do ip -n {t}-client addr add $a/64 dev eth nodad; done
ip -n {t}-gate addr add {GATE6}/64 dev wan nodad
ip -n {t}-gate addr add {INSIDE6}/64 dev lan nodad
for a in {SERVICE6} {UNLISTED6}; do ip -n {t}-service addr add $a/64 dev eth nodad; done
ip -n {t}-service addr add {UNLISTED}/24 dev eth
ip -n {t}-service route add default via {INSIDE6}
ip -n {t}-client route add 198.18.100.0/24 via {PUBLIC}
ip -n {t}-client route add 2001:db8:100::/64 via {GATE6}
""")
        argv = [PROGRAM, "wan", "lan", f"{SERVICE},{SERVICE6}", f"{GATE_INSIDE}:7443",
                "198.18.100.0/24,2001:db8:100::/64", self.state]
        with self.inside("gate"):
            self.path = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        if self.path.stdout.readline().strip() != "ready":
            raise RuntimeError("the packet path does not start: " + self.said())
        for a, source in ((CLIENT, SERVICE), (CLIENT6, SERVICE6)):
            if not until(10, lambda a=a, source=source: self.ns("service", f"ping -c 1 -W 1 -I {source} {a}", check=False).returncode == 0):
                raise RuntimeError(f"no way through to {a}: {self.counters()} {self.said()}")

    def open_for(self, proto, service, port, remote, lifetime=60):
        text = f"[{service}]:{port}" if ":" in service else f"{service}:{port}"
        answer = self.ask(f"open {proto} {text} {remote} {lifetime}")
        return (answer[1], int(answer[2])) if answer[0] == "ok" else (None, answer)

    def socket6(self, host, kind, bind=None, timeout=2.0):
        with self.inside(host):
            s = socket.socket(socket.AF_INET6 if bind and ":" in bind[0] else socket.AF_INET, kind)
        s.settimeout(timeout)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if bind:
            s.bind(bind)
        return s


class Side:
    """One family's addresses, and how they are written."""

    def __init__(self, six):
        self.six = six
        self.name = "IPv6" if six else "IPv4"
        self.client, self.other = (CLIENT6, OTHER6) if six else (CLIENT, OTHER)
        self.service, self.unlisted = (SERVICE6, UNLISTED6) if six else (SERVICE, UNLISTED)

    def url(self, host, port, path=""):
        return f"http://[{host}]:{port}/{path}" if self.six else f"http://{host}:{port}/{path}"

    def remote(self, address, port):
        return f"[{address}]:{port}" if self.six else f"{address}:{port}"


def of_family(b, f):
    return b[12:14] == (b"\x86\xdd" if f.six else b"\x08\x00")


def connects(b, f, source, host, port, timeout=0.5):
    s = b.socket6("client", socket.SOCK_STREAM, (source, 0), timeout)
    try:
        s.connect((host, port))
        return s
    except OSError:
        s.close()
        return None


def default_drop(b, f):
    listener = b.socket6("service", socket.SOCK_STREAM, (f.service, 8080))
    listener.listen()
    hidden = b.socket6("service", socket.SOCK_STREAM, (f.unlisted, 8080))
    hidden.listen()
    tap = b.tap("service")
    found = [p for p in (22, 80, 443, 8080, 7443) if connects(b, f, f.client, f.service, p, 0.2)]
    u = b.socket6("client", socket.SOCK_DGRAM, (f.client, 0))
    for port in range(1, 2000):
        u.sendto(b"scan", (f.service, port))
    pinged = b.ns("client", f"ping -c 1 -W 1 {f.service}", check=False).returncode == 0
    unlisted = connects(b, f, f.client, f.unlisted, 8080, 0.2)
    heard = hear(tap, lambda x: of_family(x, f) and not (f.six and x[20] == 58 and 133 <= x[54] <= 137), 0.3)
    ok(not found and not pinged and not unlisted and heard is None,
       f"{f.name}: a scan of TCP, UDP and ping finds nothing, and nothing of it crosses", (found, pinged, unlisted, heard))
    counts = b.counters()
    ok(counts.get("not_public", 0) > 0 and counts.get("no_hole", 0) >= 1999, f"{f.name}: each is counted by its name", counts)
    for s in (listener, hidden, tap, u):
        s.close()


def web(b, f):
    body = os.urandom(300_000)
    folder = tempfile.TemporaryDirectory(prefix=b.tag)
    root = folder.name
    with open(f"{root}/file", "wb") as out:
        out.write(body)
    p = b.start("service", "python3", "-m", "http.server", "8081", "--bind", f.service, "--directory", root, stdout=-3, stderr=-3)
    until(10, lambda: f":8081" in b.ns("service", "ss -Hltn").stdout)
    curl = f"curl -s -g -m 3 --interface {f.client} -o {root}/got {f.url(f.service, 8081, 'file')}"
    ok(b.ns("client", curl, check=False).returncode != 0, f"{f.name}: no hole, no page")
    hole, public = b.open_for("tcp", f.service, 8081, f.client)
    ok(public == 8081, f"{f.name}: a hole's public port is the service's own", public)
    ok(b.ns("client", curl.replace(f.client, f.other, 1), check=False).returncode != 0, f"{f.name}: the hole is not another remote's")
    ran = b.ns("client", curl, check=False)
    with open(f"{root}/got", "rb") as got:
        same = hashlib.sha256(got.read()).digest() == hashlib.sha256(body).digest()
    ok(ran.returncode == 0 and same, f"{f.name}: curl fetches 300,000 bytes through it", ran.stdout)
    ok(b.ns("client", curl, check=False).returncode != 0, f"{f.name}: one connection a hole")
    for _ in range(3):
        b.open_for("tcp", f.service, 8081, f.client)
    ran = b.ns("client", f"curl -s -g -m 5 --interface {f.client} -Z --parallel-immediate -o /dev/null -o /dev/null -o /dev/null "
               + " ".join([f.url(f.service, 8081, "file")] * 3), check=False)
    ok(ran.returncode == 0, f"{f.name}: three holes of one client at one port, three connections at once", ran.stdout)
    b.ask(f"close {hole}")
    p.kill()
    p.wait()
    folder.cleanup()


def cut(b, f):
    """Close and expiry end a flow that is open; a kill -9 and a start do not."""
    listener = b.socket6("service", socket.SOCK_STREAM, (f.service, 8082))
    listener.listen()
    hole, _ = b.open_for("tcp", f.service, 8082, f.client)
    c = connects(b, f, f.client, f.service, 8082, 2)
    s, peer = listener.accept()
    s.settimeout(2)
    ok(c is not None and peer[0] == f.client and peer[1] == c.getsockname()[1], f"{f.name}: the service sees the client's own address and port",
       peer)
    b.path.kill()
    b.path.wait()
    c.send(b"while nobody is there")
    ok(recv(s)[0] == b"while nobody is there", f"{f.name}: the flow lives on when the daemon is killed")
    b.open_path()
    s.send(b"after the start")
    ok(recv(c)[0] == b"after the start", f"{f.name}: and after it has been started again")
    b.ask(f"close {hole}")
    c.send(b"too late")
    ok(recv(s, 0.5) is None, f"{f.name}: a closed hole's flow is cut at once")
    for x in (c, s):
        x.close()
    _, _ = b.open_for("tcp", f.service, 8082, f.client, 1)
    c = connects(b, f, f.client, f.service, 8082, 2)
    s, _ = listener.accept()

    def silent():
        c.send(b"x")
        return recv(s, 0.2) is None
    ok(recv(s, 0) is None and not silent() and until(4, silent), f"{f.name}: an expired one's too", b.counters())
    for x in (c, s, listener):
        x.close()


def datagrams(b, f):
    server = b.socket6("service", socket.SOCK_DGRAM, (f.service, 5353))
    c = b.socket6("client", socket.SOCK_DGRAM, (f.client, 5000))
    d = b.socket6("client", socket.SOCK_DGRAM, (f.client, 5001))
    b.open_for("udp", f.service, 5353, f.remote(f.client, 5000))
    d.sendto(b"not mine", (f.service, 5353))
    c.sendto(b"mine", (f.service, 5353))
    got = recv(server)
    server.sendto(b"answer", (f.client, 5000))
    ok(got is not None and got[0] == b"mine" and got[1][:2] == (f.client, 5000) and recv(c)[0] == b"answer",
       f"{f.name}: UDP with a known port, there and back", got)
    tagged = b.socket6("service", socket.SOCK_DGRAM, (f.service, 5354))
    _, port = b.open_for("udp", f.service, 5354, "tag")
    lost = []
    for n in list(range(0, 70)) + [500, 501, 1400, 1436]:
        data = bytes(range(256)) * 6
        data = data[:n]
        counter = struct.pack("!Q", n + 1)
        c.sendto(data + counter + siphash(KEY, data + counter), (f.service, port))
        got = recv(tagged, 1)
        if got is None or got[0] != data:
            lost.append(n)
    ok(port == 5354 and not lost, f"{f.name}: tagged datagrams arrive without their tag", lost)
    ok(b.counted("tag_replay", lambda: c.sendto(struct.pack("!Q", 1) + siphash(KEY, struct.pack("!Q", 1)), (f.service, port))),
       f"{f.name}: a replayed one does not")
    for s in (server, c, d, tagged):
        s.close()


def sessions(b, f):
    p = b.start("client", "python3", "-m", "http.server", "8090", "--bind", f.client, "--directory", "/proc/self/net", stdout=-3, stderr=-3)
    until(10, lambda: ":8090" in b.ns("client", "ss -Hltn").stdout)
    ran = b.ns("service", f"curl -s -g -m 3 --interface {f.service} {f.url(f.client, 8090)}", check=False)
    ok(ran.returncode == 0 and "Directory" in ran.stdout, f"{f.name}: curl from inside", ran.stdout[:200])
    ok(b.ns("service", f"ping -c 2 -W 2 -I {f.service} {f.client}", check=False).returncode == 0, f"{f.name}: ping from inside")
    ok(b.ns("service", f"ping -c 1 -W 1 -I {f.unlisted} {f.client}", check=False).returncode != 0,
       f"{f.name}: an address that is not protected gets no session")
    out = b.socket6("service", socket.SOCK_DGRAM, (f.service, 6000))
    server = b.socket6("client", socket.SOCK_DGRAM, (f.client, 6053))
    out.sendto(b"q", (f.client, 6053))
    got = recv(server)
    ok(got is not None and got[1][:2] == (f.service, 6000), f"{f.name}: a session keeps its address and port", got)
    p.kill()
    p.wait()
    for s in (out, server):
        s.close()


def path_mtu(b, f):
    """A router behind the client's side has a smaller link: its error comes through to the sender inside, untranslated."""
    t = b.tag
    far = "2001:db8:77::7" if f.six else "198.18.77.7"
    net = "2001:db8:77::/64" if f.six else "198.18.77.0/24"
    sh(f"""set -e
ip -n {t}-client link add narrow mtu 1300 type veth peer name beyond mtu 1300
ip -n {t}-client link set beyond up
ip -n {t}-client link set narrow up
ip -n {t}-client route add {net} dev narrow
ip -n {t}-gate route add {net} via {f.client}
ip netns exec {t}-client sysctl -qw net.ipv{6 if f.six else 4}.conf.all.forwarding=1""")
    s = b.socket6("service", socket.SOCK_DGRAM, (f.service, 6100))
    level = 41 if f.six else 0
    s.setsockopt(level, IPV6_MTU_DISCOVER if f.six else IP_MTU_DISCOVER, 2)
    s.connect((far, 9))

    def told():
        try:
            s.send(bytes(1390))
        except OSError:
            pass
        return s.getsockopt(level, IPV6_MTU if f.six else IP_MTU) == 1300
    ok(until(5, told, 0.05), f"{f.name}: \"{'packet too big' if f.six else 'fragmentation needed'}\" reaches the sender inside", b.counters())
    ok(b.counters().get("icmp_error", 0) > 0, f"{f.name}: as an error about a session", b.counters())
    s.close()
    sh(f"""ip -n {t}-client link del narrow; ip -n {t}-gate route del {net}
ip netns exec {t}-client sysctl -qw net.ipv{6 if f.six else 4}.conf.all.forwarding=0
ip -n {t}-client route replace 2001:db8:100::/64 via {GATE6}""", check=False)


def discovery(b):
    """The gate's own neighbour discovery, both ways, after everything is forgotten; routers' words are not let in."""
    t = b.tag
    for ns, dev in (("client", "eth"), ("gate", "wan"), ("gate", "lan"), ("service", "eth")):
        sh(f"ip -n {t}-{ns} -6 neigh flush dev {dev}", check=False)
    back = until(10, lambda: b.ns("service", f"ping -c 1 -W 1 -I {SERVICE6} {CLIENT6}", check=False).returncode == 0)
    ok(back and b.counters().get("discovery", 0) > 0, "IPv6: neighbours are found again after both sides have forgotten them", b.counters())
    mac = bytes.fromhex("333300000001")
    src, dst = socket.inet_pton(socket.AF_INET6, "fe80::99"), socket.inet_pton(socket.AF_INET6, "ff02::1")
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    total = sum(struct.unpack(f"!{(32 + 8 + len(body)) // 2}H", src + dst + struct.pack("!II", len(body), 58) + body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    packet = struct.pack("!IHBB", 6 << 28, len(body), 58, 255) + src + dst + body

    def advertise():
        with b.inside("client"):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        s.bind(("eth", 0))
        s.send(mac + b.mac["client"] + b"\x86\xdd" + packet)
        s.close()
    ok(b.counted("nd_router", advertise), "IPv6: a router's advertisement is dropped by its name", b.counters())
    routes = sh(f"ip -n {t}-gate -6 route show proto ra").stdout
    ok(routes.strip() == "", "and gives the gate no route", routes)


def forwards_nothing(b):
    """Without the programs the kernel lets nothing through, IPv6 as little as IPv4; a host that forwards IPv6 is refused."""
    t = b.tag
    ok(sh(f"ip netns exec {t}-gate sysctl -n net.ipv6.conf.all.forwarding").stdout.strip() == "0", "the kernel's IPv6 forwarding is off")
    b.path.stdin.write("remove\n")
    b.path.stdin.flush()
    b.path.wait(timeout=10)
    b.path = None
    ok(b.ns("service", f"ping -c 1 -W 1 -I {SERVICE6} {CLIENT6}", check=False).returncode != 0 and
       b.ns("service", f"ping -c 1 -W 1 -I {SERVICE} {CLIENT}", check=False).returncode != 0, "without the programs nothing passes")
    sh(f"ip netns exec {t}-gate sysctl -qw net.ipv6.conf.all.forwarding=1")
    try:
        b.open_path()
        refused = False
    except RuntimeError as e:
        refused = "net.ipv6.conf" in str(e)
    ok(refused, "a host whose kernel forwards IPv6 is refused by name", b.said())


def test():
    with Firewall("fwl") as b:
        for f in (Side(False), Side(True)):
            default_drop(b, f)
            web(b, f)
            datagrams(b, f)
            sessions(b, f)
            cut(b, f)
            path_mtu(b, f)
        discovery(b)
        forwards_nothing(b)


if __name__ == "__main__":
    own_mounts(__file__)
    main(test)
