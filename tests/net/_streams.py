# SPDX-License-Identifier: Apache-2.0
"""What tests of callers over TCP and TLS share: a lab whose first front listens on them, and a user agent on a connection."""
import contextlib
import os
import re
import resource
import select
import socket
import ssl
import subprocess
import time

import _lab
from _lab import everything
from walnutlab import daemons, topology as t
from walnutlab.processes import Process, find
from walnutlab.sip import Client, Message, inside

FRONT = t.FRONTS[0]
TCP, TLS, SIX = 5060, 5061, 5062


class Walnut(daemons.Walnut):
    """The first front has two workers and listens on TCP and TLS as well; `streams`: its limits, `services`: its plain ones."""

    streams = ""
    services = f"""    services:
      - {{ name: plain, route: "udp:{FRONT}:5070", authenticate: false }}
      - {{ name: hop, route: "tcp:{FRONT}:5071", authenticate: false }}
"""

    def configure(self):
        super().configure()
        # the lab is without IPv6 elsewhere
        self.lab.ip("f1", "link", "set", "lo", "up")
        self.lab.sysctl("f1", **{"net.ipv6.conf.lo.disable_ipv6": 0})
        self.certificate()
        self.rewrite()

    def rewrite(self):
        path = self.lab.path("f1.yaml")
        with open(path, encoding="utf-8") as f:
            text = f.read()
        text = re.sub(r"^(threads|also_listen|tls_\w+|streams):.*\n", "", text, flags=re.M)
        also = f'["tcp:{FRONT}:{TCP}", "tls:{FRONT}:{TLS}", "tcp:[::1]:{SIX}"]'
        more = f"threads: 2\nalso_listen: {also}\ntls_certificate: {self.lab.path('tls.crt')}\ntls_key: {self.lab.path('tls.key')}\n"
        if self.streams:
            more += f"streams: {{ {self.streams} }}\n"
        with open(path, "w", encoding="utf-8") as f:
            f.write(text.replace("tenants:\n", more + "tenants:\n", 1) + ("" if self.services in text else self.services))

    def certificate(self):
        crt, key = self.lab.path("tls.crt"), self.lab.path("tls.key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
                        "/CN=front", "-addext", f"subjectAltName=IP:{FRONT}", "-keyout", key, "-out", crt], check=True, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.chmod(key, 0o600)

    def again(self, streams, nofile=None):
        """Starts the first front anew with other limits."""
        self.streams = streams
        self.rewrite()
        self.f1.stop()
        argv = [find("walnut-front"), "--config", self.f1.config]
        if nofile:
            argv = ["prlimit", f"--nofile={nofile}:{nofile}", *argv]
        self.f1.process = Process(self.lab, "f1", "f1", argv)
        self.f1.ready()
        self.connected()

    def counts(self):
        return self.f1.status()["streams"]

    def outcomes(self):
        return self.f1.status()["outcomes"]


@contextlib.contextmanager
def streams(limits="", **options):
    Walnut.streams = limits
    old, _lab.Walnut = _lab.Walnut, Walnut  # what `everything` makes
    try:
        with everything(**options) as (lab, services, walnut):
            yield lab, services, walnut
    finally:
        _lab.Walnut = old


class Caller(Client):
    """A user agent on one connection. tls: an SSLContext."""

    def __init__(self, lab, host, user=None, secret=None, tls=None, to=None, service="ssh", source=None):
        super().__init__(lab, "me" if host == "me" else "attack", FRONT, user, secret, service=service)
        self.sock.close()
        to = to or (FRONT, TLS if tls else TCP)
        with inside(lab, host):
            self.sock = socket.socket(socket.AF_INET6 if ":" in to[0] else socket.AF_INET, socket.SOCK_STREAM)
        self.sock.settimeout(8)
        if source:
            self.sock.bind((source, 0))
        self.sock.connect(to)
        self.transport = "TLS" if tls else "TCP"
        if tls:
            self.sock = tls.wrap_socket(self.sock, server_hostname=FRONT)
        self.address, self.port = self.sock.getsockname()[:2]
        if ":" in self.address:
            self.address = f"[{self.address}]"
        self.buffer = b""

    def request(self, *args, **kw):
        return super().request(*args, **kw).replace(b"SIP/2.0/UDP", b"SIP/2.0/" + self.transport.encode(), 1)

    def send(self, data):
        self.sock.sendall(data)

    def whole(self):
        head, found, rest = self.buffer.lstrip(b"\r\n").partition(b"\r\n\r\n")
        if not found:
            return None
        n = int(re.search(rb"\r\nContent-Length: *(\d+)", head, re.I).group(1))
        if len(rest) < n:
            return None
        self.buffer = rest[n:]
        return Message(head + found + rest[:n])

    def receive(self, seconds=4.0, want=lambda m: True):
        end = time.monotonic() + seconds
        while True:
            m = self.whole()
            if m:
                if want(m):
                    return m
                continue
            left = end - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except (TimeoutError, socket.timeout):
                return None
            except OSError:
                data = b""
            if not data:
                return None
            self.buffer += data

    def ended(self, seconds=4.0):
        """Whether the front's end has gone, or goes within that time."""
        self.sock.settimeout(seconds)
        try:
            while self.sock.recv(65536):
                pass
        except (TimeoutError, socket.timeout):
            return False
        except OSError:
            pass
        return True


def many_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Crowd:
    """Connections that say little: each sends `first`, and is left alone."""

    def __init__(self, lab, count, first=b"", port=TCP, seconds=30):
        self.socks = []
        with inside(lab, "attack"):
            for _ in range(count):
                s = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
                s.connect_ex((FRONT, port))
                self.socks.append(s)
        end = time.monotonic() + seconds
        poll, left = select.poll(), {s.fileno(): s for s in self.socks}
        for fd in left:
            poll.register(fd, select.POLLOUT)
        while left and time.monotonic() < end:
            for fd, _ in poll.poll(100):
                poll.unregister(fd)
                s = left.pop(fd)
                try:
                    s.send(first) if first else None
                except OSError:
                    pass
        self.connected = count - len(left)

    def alive(self):
        n = 0
        for s in self.socks:
            try:
                n += s.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK) != b""
            except BlockingIOError:
                n += 1
            except OSError:
                pass
        return n

    def close(self):
        for s in self.socks:
            s.close()


def any_tls(version=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if version:
        c.minimum_version = c.maximum_version = version
    return c
