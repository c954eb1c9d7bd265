# SPDX-License-Identifier: Apache-2.0
"""What tests of the gate's packet path share: three namespaces in a row (client - gate - service), the path's process in the middle, its
counters and its pinned tables, and frames of any shape."""
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("WALNUT_BUILD", os.path.join(ROOT, "build"))
PROGRAM = os.path.join(BUILD, "tests/net/gate-path")
PUBLIC, CLIENT, OTHER, SERVICE, GATE_INSIDE = "198.18.3.2", "198.18.3.1", "198.18.3.9", "198.18.100.2", "198.18.100.1"
S = 1_000_000_000
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts(script):
    """The test again, in a mount namespace of its own: the bpf file system is nobody else's."""
    if "WALNUT_TEST_MOUNTS" not in os.environ:
        os.environ["WALNUT_TEST_MOUNTS"] = "1"
        os.execvp("unshare", ["unshare", "--mount", sys.executable, os.path.abspath(script)])


def sh(line, check=True):
    r = subprocess.run(line, shell=True, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    if check and r.returncode != 0:
        raise RuntimeError(f"{line}: {r.stdout}")
    return r


def until(seconds, step, pause=0.01):
    """What step says as soon as it is true, else its last word."""
    end = time.monotonic() + seconds
    while True:
        got = step()
        if got or time.monotonic() > end:
            return got
        time.sleep(pause)


def boot_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def ip4(text):
    return socket.inet_aton(text)


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(src, dst, proto, body, ttl=64, options=b"", flags=0x4000, ident=7):
    head = struct.pack("!BBHHHBBH4s4s", 0x40 | (5 + len(options) // 4), 0, 20 + len(options) + len(body), ident, flags, ttl, proto, 0,
                       ip4(src), ip4(dst)) + options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def pseudo(src, dst, proto, body):
    return ip4(src) + ip4(dst) + struct.pack("!BBH", 0, proto, len(body)) + body


def udp(src, dst, sport, dport, payload=b"x", no_checksum=False):
    b = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if no_checksum:
        return b
    return b[:6] + struct.pack("!H", checksum(pseudo(src, dst, 17, b)) or 0xFFFF) + b[8:]


def tcp(src, dst, sport, dport, flags, seq, ack=0, payload=b"", window=65535):
    b = struct.pack("!HHIIBBHHH", sport, dport, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, 0x50, flags, window, 0, 0) + payload
    return b[:16] + struct.pack("!H", checksum(pseudo(src, dst, 6, b))) + b[18:]


def icmp(kind, code, rest=0, payload=b""):
    b = struct.pack("!BBHI", kind, code, 0, rest) + payload
    return b[:2] + struct.pack("!H", checksum(b)) + b[4:]


def siphash(key, data):
    """SipHash-2-4, written for the tests alone."""
    mask = 2**64 - 1
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x, n):
        return (x << n | x >> (64 - n)) & mask

    def rounds(n):
        a, b, c, d = v
        for _ in range(n):
            a = a + b & mask
            b = rotate(b, 13) ^ a
            a = rotate(a, 32)
            c = c + d & mask
            d = rotate(d, 16) ^ c
            a = a + d & mask
            d = rotate(d, 21) ^ a
            c = c + b & mask
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


class Table:
    """A pinned map: whole values by whole keys."""
    SYS_BPF = {"x86_64": 321, "aarch64": 280}[os.uname().machine]

    def __init__(self, path, key, value):
        self.key, self.value = key, value
        name = ctypes.create_string_buffer(path.encode() + b"\0")
        self.fd = self._call(7, struct.pack("=QII", ctypes.addressof(name), 0, 0))
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), path)

    def _call(self, cmd, attr):
        b = ctypes.create_string_buffer(attr + bytes(128 - len(attr)), 128)
        return _libc.syscall(self.SYS_BPF, cmd, b, 128)

    def _elem(self, cmd, key, value, flags=0):
        k = ctypes.create_string_buffer(key, self.key)
        return self._call(cmd, struct.pack("=IIQQQ", self.fd, 0, ctypes.addressof(k), ctypes.addressof(value), flags))

    def get(self, key):
        v = ctypes.create_string_buffer(self.value)
        return v.raw if self._elem(1, key, v) == 0 else None

    def put(self, key, value):
        v = ctypes.create_string_buffer(value, self.value)
        if self._elem(2, key, v) != 0:
            raise OSError(ctypes.get_errno(), "update")

    def keys(self):
        nxt = ctypes.create_string_buffer(self.key)
        found, key = [], None
        while True:
            k = ctypes.create_string_buffer(key, self.key) if key is not None else None
            attr = struct.pack("=IIQQ", self.fd, 0, ctypes.addressof(k) if k else 0, ctypes.addressof(nxt))
            if self._call(4, attr) != 0:
                return found
            key = nxt.raw
            found.append(key)


class Flows:
    """The gate's sessions, as src/gate/bpf/shared.h lays them out: owner at 8, expiry at 16, TCP state at 64."""

    def __init__(self, state):
        self.table = Table(f"{state}/flows", 16, 128)

    def find(self, proto, inside_port, remote, remote_port=None):
        """(key, value) of a session of the service's, or None."""
        for k in self.table.keys():
            v = self.table.get(k)
            if (v and k[12] == proto and k[:8] == ip4(SERVICE) + ip4(remote) and k[8:10] == struct.pack("!H", inside_port)
                    and v[15] >> 6 == 2 and remote_port in (None, struct.unpack("!H", k[10:12])[0])):
                return k, v
        return None

    @staticmethod
    def expires(entry):
        return struct.unpack("=Q", entry[1][16:24])[0]

    @staticmethod
    def public_port(entry):
        return struct.unpack("!H", entry[1][8:10])[0]

    @staticmethod
    def state(entry):
        return entry[1][24 + 40]

    def set_expires(self, entry, when):
        self.table.put(entry[0], entry[1][:16] + struct.pack("=Q", when) + entry[1][24:])


class Bench:
    """Namespaces, bpf file system and the packet path. The service's host has the gate as its router; the client's has two addresses."""

    def __init__(self, tag):
        self.tag = f"t-{tag}-{os.getpid()}"
        self.fs = tempfile.mkdtemp(prefix=self.tag)
        self.state = f"{self.fs}/walnut"
        self.path = None
        self.log = tempfile.TemporaryFile(mode="w+")
        self.started = []

    def __enter__(self):
        try:
            sh(f"mount --make-rprivate / && mount -t bpf bpf {self.fs}")
            for ns in ("client", "gate", "service"):
                sh(f"ip netns add {self.tag}-{ns}; ip -n {self.tag}-{ns} link set lo up")
            t = self.tag
            sh(f"""set -e
ip link add wan netns {t}-gate type veth peer name eth netns {t}-client
ip link add lan netns {t}-gate type veth peer name eth netns {t}-service
ip -n {t}-client addr add {CLIENT}/24 dev eth
ip -n {t}-client addr add {OTHER}/24 dev eth
ip -n {t}-gate addr add {PUBLIC}/24 dev wan
ip -n {t}-gate addr add {GATE_INSIDE}/24 dev lan
ip -n {t}-service addr add {SERVICE}/24 dev eth
for x in client:eth gate:wan gate:lan service:eth; do ip -n {t}-${{x%:*}} link set ${{x#*:}} up; done
ip -n {t}-service route add default via {GATE_INSIDE}
for x in client service; do ip netns exec {t}-$x ethtool -K eth tx off gro on >/dev/null; done
""")
            self.mac = {ns: self.mac_of(ns, "eth") for ns in ("client", "service")}
            self.mac.update(wan=self.mac_of("gate", "wan"), lan=self.mac_of("gate", "lan"))
            self.open_path()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for p in self.started:
            if p.poll() is None:
                p.kill()
                p.wait()
        self.kill_path()
        for ns in ("client", "gate", "service"):
            sh(f"ip netns del {self.tag}-{ns}", check=False)
        sh(f"umount -l {self.fs} && rmdir {self.fs}", check=False)

    def mac_of(self, ns, dev):
        text = sh(f"ip -n {self.tag}-{ns} link show dev {dev}").stdout
        return bytes.fromhex(text.split("link/ether ")[1].split()[0].replace(":", ""))

    # The packet path.
    def open_path(self):
        argv = [PROGRAM, "wan", "lan", PUBLIC, f"{GATE_INSIDE}:7443", "198.18.100.0/24", self.state]
        with self.inside("gate"):
            self.path = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        if self.path.stdout.readline().strip() != "ready":
            raise RuntimeError("the packet path does not start: " + self.said())
        self.flows = Flows(self.state)
        # Both neighbours known: what is dropped from here on is not dropped for the want of one.
        if not until(10, lambda: self.ns("service", f"ping -c 1 -W 1 {CLIENT}", check=False).returncode == 0):
            raise RuntimeError(f"no way through: {self.counters()} {self.said()}")

    def kill_path(self):
        if self.path is not None:
            self.path.kill()
            self.path.wait()
            self.path = None

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def ask(self, line):
        self.path.stdin.write(line + "\n")
        self.path.stdin.flush()
        return self.path.stdout.readline().split()

    def open_hole(self, proto, port, remote, lifetime=60):
        answer = self.ask(f"open {proto} {SERVICE}:{port} {remote} {lifetime}")
        if answer[0] != "ok":
            raise RuntimeError(" ".join(answer))
        return answer[1], int(answer[2])

    def counters(self):
        out = {}
        answer = self.ask("counters")
        while answer != ["end"]:
            out[answer[0]] = int(answer[1])
            answer = self.path.stdout.readline().split()
        return out

    def counted(self, name, act, at_least=1, seconds=3):
        """Whether the counter has grown so far once act() is done. Frames take a moment."""
        before = self.counters().get(name, 0)
        act()
        return until(seconds, lambda: self.counters().get(name, 0) - before >= at_least)

    # Hosts.
    def ns(self, host, line, check=True):
        return sh(f"ip netns exec {self.tag}-{host} {line}", check)

    def start(self, host, *argv, **kw):
        p = subprocess.Popen(["ip", "netns", "exec", f"{self.tag}-{host}", *argv], stdin=subprocess.DEVNULL, text=True, **kw)
        self.started.append(p)
        return p

    @contextlib.contextmanager
    def inside(self, host):
        """This thread in a host's network; what it opens meanwhile stays there."""
        with open("/proc/thread-self/ns/net", encoding="ascii") as home, open(f"/run/netns/{self.tag}-{host}", encoding="ascii") as there:
            if _libc.setns(there.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
            try:
                yield
            finally:
                _libc.setns(home.fileno(), 0x40000000)

    def socket(self, host, kind, bind=None, timeout=2.0, proto=0):
        with self.inside(host):
            s = socket.socket(socket.AF_INET, kind, proto)
        s.settimeout(timeout)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bind:
            s.bind(bind)
        return s

    def tap(self, host, timeout=2.0):
        with self.inside(host):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind(("eth", 3))
        s.settimeout(timeout)
        return s

    def frame(self, host, payload, kind=0x0800):
        """A frame from a host to the gate, as its bytes stand."""
        side = {"client": "wan", "service": "lan"}[host]
        with self.inside(host):
            s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        s.bind(("eth", 0))
        s.send(self.mac[side] + self.mac[host] + struct.pack("!H", kind) + payload)
        s.close()

    def packet(self, host, src, dst, proto, body, **kw):
        self.frame(host, ip_packet(src, dst, proto, body, **kw))


def hear(s, want, seconds=2.0):
    """The first frame on a tap for which want(frame) is true, or None. What the host itself sends is left out."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        s.settimeout(max(0.01, end - time.monotonic()))
        try:
            b, address = s.recvfrom(4096)
        except TimeoutError:
            return None
        if address[2] != 4 and want(b):
            return b
    return None


def recv(s, seconds=2.0):
    s.settimeout(seconds)
    try:
        return s.recvfrom(65535)
    except OSError:
        return None
