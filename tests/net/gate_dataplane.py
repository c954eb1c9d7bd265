#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The packet path between real sockets: three namespaces in a row, client - gate - service. Needs root; leaves nothing behind."""
import contextlib
import ctypes
import hashlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

NAMES = [
    "it starts, and a second one on the same state is refused",
    "a missing neighbour on either side is resolved while its packets are dropped",
    "tagged datagrams of many lengths arrive stripped, answers come from the public port",
    "forged, replayed and foreign datagrams do not arrive",
    "4 MB each way over a TCP hole",
    "a second connection through the same hole gets nowhere",
    "the service reaches out: TCP, UDP and ping",
    "a closed port outside is told to the service by a translated ICMP error",
    "an MTU that shrinks on the way is told to the service, and the transfer goes on",
    "the process killed: flows go on",
    "and holes still end on time",
    "started again: the same hole",
    "a port without a hole answers with no frame at all",
    "an interface that takes no driver program gets the generic one",
    "removed: nothing is forwarded",
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
PROGRAM = os.path.join(BUILD, "tests/net/gate-path")
TAG = f"t-gbpf-{os.getpid()}"
PUBLIC, CLIENT, OTHER, SERVICE = "198.18.3.2", "198.18.3.1", "198.18.3.9", "198.18.100.2"
KEY = bytes([0x42]) * 16
MASK = (1 << 64) - 1
_libc = ctypes.CDLL(None, use_errno=True)
_results = {}


def sh(line, check=True):
    return subprocess.run(line, shell=True, check=check, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)


@contextlib.contextmanager
def inside(ns):
    """This thread in a namespace; what it opens meanwhile stays there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{TAG}-{ns}") as there:
        if _libc.setns(there.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            _libc.setns(home.fileno(), 0x40000000)


def sock(ns, kind, bind=None, timeout=3.0):
    with inside(ns):
        s = socket.socket(socket.AF_INET, kind)
    s.settimeout(timeout)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if bind:
        s.bind(bind)
    return s


def siphash(key, data):
    """SipHash-2-4, written for this test alone."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, n):
        return (x << n | x >> (64 - n)) & MASK

    def rounds(n):
        a, b, c, d = v
        for _ in range(n):
            a = a + b & MASK
            b = rotate(b, 13) ^ a
            a = rotate(a, 32)
            c = c + d & MASK
            d = rotate(d, 16) ^ c
            a = a + d & MASK
            d = rotate(d, 21) ^ a
            c = c + b & MASK
            b = rotate(b, 17) ^ c
            c = rotate(c, 32)
        v[:] = a, b, c, d

    whole = data + bytes(-(len(data) + 1) % 8) + bytes([len(data) & 255])
    for (m,) in struct.iter_unpack("<Q", whole):
        v[3] ^= m
        rounds(2)
        v[0] ^= m
    v[2] ^= 255
    rounds(4)
    return struct.pack("<Q", v[0] ^ v[1] ^ v[2] ^ v[3])


def seal(counter, payload):
    message = payload + struct.pack(">Q", counter)
    return message + siphash(KEY, message)


class Path:
    """The packet path's process in the gate's namespace."""

    def __init__(self, outside="wan"):
        self.argv = ["ip", "netns", "exec", f"{TAG}-gate", PROGRAM, outside, "lan", PUBLIC, "198.18.100.1:7443", "198.18.100.0/24",
                     STATE]
        self.log = tempfile.TemporaryFile(mode="w+")
        # `ip netns exec` would give it a mount namespace without our bpf file system.
        with inside("gate"):
            self.process = subprocess.Popen(self.argv[4:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)

    def ready(self):
        return self.process.stdout.readline().strip() == "ready"

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().split()

    def open(self, proto, port, remote, lifetime=60):
        answer = self.ask(f"open {proto} {SERVICE}:{port} {remote} {lifetime}")
        if answer[0] != "ok":
            raise RuntimeError(" ".join(answer))
        return answer[1], int(answer[2])

    def counters(self):
        out = {}
        answer = self.ask("counters")
        while answer != ["end"]:
            out[answer[0]] = int(answer[1])
            answer = self.process.stdout.readline().split()
        return out

    def kill(self):
        self.process.kill()
        self.process.wait()

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def remove(self):
        self.process.stdin.write("remove\n")
        self.process.stdin.flush()
        return self.process.wait(timeout=20)


def build():
    for ns in ("client", "gate", "service"):
        sh(f"ip netns add {TAG}-{ns}; ip -n {TAG}-{ns} link set lo up")
    sh(f"""set -e
ip link add wan netns {TAG}-gate type veth peer name eth netns {TAG}-client
ip link add lan netns {TAG}-gate type veth peer name eth netns {TAG}-service
ip -n {TAG}-client addr add {CLIENT}/24 dev eth
ip -n {TAG}-client addr add {OTHER}/24 dev eth
ip -n {TAG}-gate addr add {PUBLIC}/24 dev wan
ip -n {TAG}-gate addr add 198.18.100.1/24 dev lan
ip -n {TAG}-service addr add {SERVICE}/24 dev eth
for x in client:eth gate:wan gate:lan service:eth; do ip -n {TAG}-${{x%:*}} link set ${{x#*:}} up; done
ip -n {TAG}-service route add default via 198.18.100.1
for x in client service; do ip netns exec {TAG}-$x ethtool -K eth tx off gro on >/dev/null; done
""")


def clear():
    for ns in ("client", "gate", "service"):
        sh(f"ip netns del {TAG}-{ns}", check=False)


def forget(path, dev):
    """The gate's host knows nobody on that side any more, and the gate has heard of it."""
    sh(f"ip -n {TAG}-gate neigh flush dev {dev}")
    path.counters()


def result(name, good, detail=""):
    _results[name] = good
    print(f"{'ok' if good else 'not ok'} {NAMES.index(name) + 1} - {name}", flush=True)
    if not good and detail:
        for line in str(detail).splitlines():
            print("# " + line)


def repeat_until(seconds, step):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        got = step()
        if got is not None:
            return got
    return None


def receive(s, timeout):
    if not select.select([s], [], [], timeout)[0]:
        return None
    return s.recvfrom(65535)


def transfer(source, sink, data):
    """Everything from one socket to the other. Returns whether the hash is right."""

    def send():
        with contextlib.suppress(OSError):
            source.sendall(data)

    t = threading.Thread(target=send)
    t.start()
    got = hashlib.sha256()
    n = 0
    with contextlib.suppress(OSError):
        while n < len(data):
            b = sink.recv(65536)
            if not b:
                break
            got.update(b)
            n += len(b)
    t.join()
    return n == len(data) and got.digest() == hashlib.sha256(data).digest()


def icmp_mtu(quoted, mtu, src, dst):
    """Sends "fragmentation needed" about a packet from a router outside."""
    body = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    if len(body) % 2:
        body += b"\0"
    total = sum(struct.unpack(f"!{len(body) // 2}H", body))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + struct.pack("!H", ~total & 0xFFFF) + body[4:]
    with inside("client"):
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    raw.bind((src, 0))
    raw.sendto(body, (dst, 0))
    raw.close()


def run():
    path = Path()
    started = path.ready()
    second = Path()
    refused = second.process.wait(timeout=20) != 0 and "in use" in second.said()
    result(NAMES[0], started and refused, path.said() + second.said())

    # UDP with a tag.
    hole, port = path.open("udp", 53, "tag")
    service = sock("service", socket.SOCK_DGRAM, (SERVICE, 53))
    client = sock("client", socket.SOCK_DGRAM, (CLIENT, 4000))
    client.connect((PUBLIC, port))
    counter = 0

    def send(payload, bend=None):
        nonlocal counter
        counter += 1
        b = seal(counter, payload)
        client.send(bend(b) if bend else b)
        return b

    def first():
        send(b"first")
        return receive(service, 0.1)

    def dropped_for_a_neighbour():
        return path.counters().get("no_neighbour", 0)

    def answer():
        service.sendto(b"answer", got[1])
        return receive(client, 0.1)

    # The grant asked for the service, the client for the gate: both are known already, unless they are forgotten.
    forget(path, "lan")
    got = repeat_until(10, first)
    inward = dropped_for_a_neighbour()
    forget(path, "wan")
    answered = repeat_until(10, answer) if got else None
    outward = dropped_for_a_neighbour() - inward
    result(NAMES[1], bool(got) and got[0] == b"first" and answered is not None and inward >= 1 and outward >= 1,
           f"{got} {answered} {inward} {outward} {path.counters()}")

    good = True
    for n in list(range(0, 70)) + [255, 256, 511, 512, 1023, 1024, 1400, 1455, 1456]:
        payload = bytes((i * 7 + n) & 255 for i in range(n))
        send(payload)
        got = receive(service, 2)
        good = good and got is not None and got[0] == payload and got[1] == (CLIENT, 4000)
        if got is None:
            break
        service.sendto(payload[::-1], got[1])
        back = receive(client, 2)
        good = good and back is not None and back[0] == payload[::-1] and back[1] == (PUBLIC, port)
    result(NAMES[2], good, path.counters())

    old = send(b"again")
    receive(service, 2)
    client.send(old)
    send(b"forged", lambda b: b[:-1] + bytes([b[-1] ^ 1]))
    client.send(b"no tag")
    foreign = sock("client", socket.SOCK_DGRAM, (OTHER, 4000))
    foreign.sendto(seal(counter + 1, b"foreign"), (PUBLIC, port))
    counter += 1
    send(b"last")
    got = receive(service, 2)
    c = path.counters()
    result(NAMES[3], got is not None and got[0] == b"last" and all(c.get(k) for k in ("tag_replay", "tag_invalid", "tag_short", "wrong_remote")),
           f"{got} {c}")

    # TCP.
    listener = sock("service", socket.SOCK_STREAM, (SERVICE, 22))
    listener.listen(4)
    hole_tcp, port_tcp = path.open("tcp", 22, CLIENT)
    near = sock("client", socket.SOCK_STREAM, (CLIENT, 0), timeout=10)
    near.connect((PUBLIC, port_tcp))
    far, peer = listener.accept()
    far.settimeout(10)
    data = os.urandom(4 << 20)
    good = transfer(near, far, data) and transfer(far, near, data)
    result(NAMES[4], good and peer[0] == CLIENT, path.counters())
    late = sock("client", socket.SOCK_STREAM, (CLIENT, 0), timeout=1)
    try:
        late.connect((PUBLIC, port_tcp))
        reached = True
    except OSError:
        reached = False
    result(NAMES[5], not reached and bool(path.counters().get("wrong_remote")), path.counters())

    # Outward.
    server = sock("client", socket.SOCK_STREAM, (CLIENT, 8080))
    server.listen(4)
    out = sock("service", socket.SOCK_STREAM, timeout=10)
    out.connect((CLIENT, 8080))
    there, seen = server.accept()
    there.settimeout(10)
    good = transfer(out, there, data) and transfer(there, out, data) and seen[0] == PUBLIC
    udp_server = sock("client", socket.SOCK_DGRAM, (CLIENT, 5353))
    udp = sock("service", socket.SOCK_DGRAM)
    udp.connect((CLIENT, 5353))
    udp.send(b"question")
    got = receive(udp_server, 2)
    if got:
        udp_server.sendto(b"reply", got[1])
    back = receive(udp, 2)
    ping = subprocess.run(["ip", "netns", "exec", f"{TAG}-service", "ping", "-c", "2", "-i", "0.2", "-W", "2", CLIENT],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=20, check=False)
    result(NAMES[6], good and got is not None and got[1][0] == PUBLIC and back is not None and back[0] == b"reply" and ping.returncode == 0,
           f"{good} {got} {back}\n{ping.stdout}\n{path.counters()}")

    lost = sock("service", socket.SOCK_DGRAM)
    lost.connect((CLIENT, 9))

    def knock():
        try:
            lost.send(b"anybody?")
            lost.settimeout(0.2)
            lost.recv(10)
        except ConnectionRefusedError:
            return True
        except OSError:
            return None
        return None

    result(NAMES[7], repeat_until(5, knock) is True, path.counters())

    # A router outside says that 1,200 bytes is all it takes, about a segment that the client has not acknowledged: it is kept from seeing it.
    nft = f"ip netns exec {TAG}-client nft"
    sh(f"{nft} add table ip t && {nft} 'add chain ip t in {{ type filter hook input priority 0; }}' && "
       f"{nft} add rule ip t in tcp sport {port_tcp} drop")
    errors = path.counters().get("icmp_error", 0)
    with inside("client"):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
    tap.bind(("eth", 0))
    tap.settimeout(3)
    sender = threading.Thread(target=lambda: far.sendall(data[:1 << 20]))
    sender.start()
    quoted = None
    while quoted is None:
        b = tap.recv(2048)
        if len(b) > 1400 and b[23] == 6 and b[26:30] == socket.inet_aton(PUBLIC) and b[34:36] == struct.pack("!H", port_tcp):
            quoted = b[14:42]
    tap.close()
    icmp_mtu(quoted, 1200, CLIENT, PUBLIC)
    told = repeat_until(5, lambda: True if "mtu 1200" in sh(f"ip -n {TAG}-service route get {CLIENT}").stdout else None)
    sh(f"{nft} delete table ip t")
    n = 0
    with contextlib.suppress(OSError):
        while n < 1 << 20:
            n += len(near.recv(65536))
    sender.join()
    c = path.counters()
    result(NAMES[8], n == 1 << 20 and told is True and c.get("icmp_error", 0) > errors, f"{n} {told} {c}")

    # Death.
    short, short_port = path.open("udp", 54, f"{CLIENT}:4001", 3)
    opened = time.monotonic()
    service54 = sock("service", socket.SOCK_DGRAM, (SERVICE, 54))
    client54 = sock("client", socket.SOCK_DGRAM, (CLIENT, 4001))
    client54.connect((PUBLIC, short_port))
    path.kill()
    send(b"alone")
    got = receive(service, 2)
    near.sendall(b"alone too")
    result(NAMES[9], got is not None and got[0] == b"alone" and far.recv(100) == b"alone too", got)
    last = None
    while time.monotonic() < opened + 5:
        client54.send(b"still there?")
        if receive(service54, 0.05):
            last = time.monotonic() - opened
            service54.sendto(b"yes", (CLIENT, 4001))
    with contextlib.suppress(OSError):
        while receive(client54, 0.0):
            pass
    service54.sendto(b"and now?", (CLIENT, 4001))
    result(NAMES[10], last is not None and 2.0 < last < 3.3 and receive(client54, 0.5) is None, last)

    path = Path()
    again = path.ready()
    send(b"back")
    got = receive(service, 2)
    renewed = path.ask(f"renew {hole} 60")
    far.sendall(b"and forth")
    result(NAMES[11], again and got is not None and got[0] == b"back" and renewed[0] == "ok" and near.recv(100) == b"and forth",
           f"{got} {renewed} {path.said()}")

    # Silence.
    with inside("client"):
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    tap.bind(("eth", 0))
    for s in (near, far, out, there, client, service):
        s.setblocking(False)
    taken = {port, port_tcp}
    before = path.counters().get("no_hole", 0)
    asked = 0
    for p in range(2000, 2200):
        if p in taken:
            continue
        scan = sock("client", socket.SOCK_STREAM, (OTHER, 0))
        scan.setblocking(False)
        scan.connect_ex((PUBLIC, p))
        probe = sock("client", socket.SOCK_DGRAM, (OTHER, 0))
        probe.sendto(b"", (PUBLIC, p))
        asked += 2
        scan.close()
        probe.close()
    heard = []
    repeat_until(10, lambda: True if path.counters().get("no_hole", 0) - before >= asked else None)
    while select.select([tap], [], [], 0.2)[0]:
        b, address = tap.recvfrom(2048)
        if address[2] != socket.PACKET_OUTGOING and b[12:14] != b"\x08\x06" and b[30:34] == socket.inet_aton(OTHER):
            heard.append(b[:54].hex())
    c = path.counters()
    result(NAMES[12], not heard and c.get("no_hole", 0) - before >= asked, f"{heard[:3]} {c}")

    ended = path.remove()
    # An interface whose driver takes no program: a bridge over the same wire.
    sh(f"""set -e
ip -n {TAG}-gate link add bridge0 type bridge
ip -n {TAG}-gate link set wan master bridge0
ip -n {TAG}-gate addr del {PUBLIC}/24 dev wan
ip -n {TAG}-gate addr add {PUBLIC}/24 dev bridge0
ip -n {TAG}-gate link set bridge0 up
ip -n {TAG}-client neigh flush dev eth""")
    path = Path(outside="bridge0")
    good = path.ready()
    hole, port = path.open("udp", 53, "tag")
    client = sock("client", socket.SOCK_DGRAM, (CLIENT, 4100))
    service.setblocking(True)

    def generic():
        nonlocal counter
        counter += 1
        client.sendto(seal(counter, b"generic"), (PUBLIC, port))
        return receive(service, 0.1)

    got = repeat_until(10, generic)
    back = None
    if got:
        service.sendto(b"too", got[1])
        back = receive(client, 2)
    result(NAMES[13], good and "generic" in path.said() and got is not None and got[0] == b"generic" and back is not None and back[0] == b"too",
           f"{got} {back} {path.counters()} {path.said()}")
    ended = path.remove() or ended

    def still():
        nonlocal counter
        counter += 1
        client.sendto(seal(counter, b"nobody"), (PUBLIC, port))
        return receive(service, 0.1)

    result(NAMES[14], ended == 0 and repeat_until(1, still) is None and not os.path.exists(STATE), ended)


signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
FS = tempfile.mkdtemp(prefix=TAG)
sh(f"mount --make-rprivate / && mount -t bpf bpf {FS}")
STATE = f"{FS}/walnut"
print(f"1..{len(NAMES)}")
try:
    build()
    run()
except Exception as e:  # pylint: disable=broad-except
    import traceback

    for name in NAMES:
        if name not in _results:
            result(name, False, traceback.format_exc())
            break
finally:
    clear()
    sh(f"umount -l {FS} && rmdir {FS}", check=False)
sys.exit(0 if len(_results) == len(NAMES) and all(_results.values()) else 1)
