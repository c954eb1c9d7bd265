# SPDX-License-Identifier: Apache-2.0
"""SIP as an observer, a stranger and an attacker write it; sockets and raw frames in the lab's hosts."""
import base64
import contextlib
import ctypes
import hashlib
import os
import re
import secrets
import select
import socket
import struct
import threading
import time

from . import topology as t

CLONE_NEWNET = 0x40000000
PACKET_OUTGOING = 4
SO_TIMESTAMPNS = 35
_libc = ctypes.CDLL(None, use_errno=True)
_setns = threading.Lock()


@contextlib.contextmanager
def inside(lab, host):
    """Sockets made in here are that host's. Only this thread goes there."""
    with _setns, open("/proc/thread-self/ns/net", "rb") as back, open(lab.ns_path(host), "rb") as there:
        if _libc.setns(there.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        try:
            yield
        finally:
            if _libc.setns(back.fileno(), CLONE_NEWNET) != 0:
                os._exit(1)  # elsewhere than we believe: nothing more may be done


class Sniffer:
    """Sees a device's frames. packets(): (seconds, outgoing, frame), in order."""

    def __init__(self, lab, host, dev):
        with inside(lab, host):
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self.sock.bind((dev, 0))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)

    def packets(self, seconds, until=None):
        """What comes within that time, or until until() is true and nothing more is waiting."""
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            ready = select.select([self.sock], [], [], max(0.0, min(left, 0.05)))[0]
            if ready:
                data, ancillary, _, addr = self.sock.recvmsg(65535, 64)
                when = time.time()
                for level, kind, value in ancillary:
                    if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                        s, ns = struct.unpack("qq", value[:16])
                        when = s + ns / 1e9
                yield when, addr[2] == PACKET_OUTGOING, data
            elif left <= 0 or (until and until()):
                return

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Packet:
    """An IPv4 packet taken apart; `ok` is false for anything else."""

    def __init__(self, frame):
        self.ok = len(frame) >= 34 and frame[12:14] == b"\x08\x00"
        if not self.ok:
            return
        ihl = (frame[14] & 15) * 4
        total = struct.unpack_from("!H", frame, 16)[0]
        self.proto = frame[23]
        self.src, self.dst = socket.inet_ntoa(frame[26:30]), socket.inet_ntoa(frame[30:34])
        rest = frame[14 + ihl:14 + total]
        self.sport = self.dport = self.flags = 0
        self.payload = b""
        if self.proto == 17 and len(rest) >= 8:
            self.sport, self.dport = struct.unpack_from("!HH", rest)
            self.payload = rest[8:]
        elif self.proto == 6 and len(rest) >= 20:
            self.sport, self.dport = struct.unpack_from("!HH", rest)
            self.flags = rest[13]
            self.payload = rest[(rest[12] >> 4) * 4:]


class Spoofer:
    """Sends UDP datagrams from a host with any source."""

    def __init__(self, lab, host="attack"):
        with inside(lab, host):
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)

    def send(self, src, sport, dst, dport, payload):
        udp = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
        pseudo = socket.inet_aton(src) + socket.inet_aton(dst) + struct.pack("!BBH", 0, 17, len(udp))
        check = checksum(pseudo + udp) or 0xFFFF
        udp = udp[:6] + struct.pack("!H", check) + udp[8:]
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), secrets.randbelow(65536), 0, 64, 17, 0, socket.inet_aton(src), socket.inet_aton(dst))
        self.sock.sendto(ip + udp, (dst, 0))

    def close(self):
        self.sock.close()


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    s = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while s >> 16:
        s = (s & 0xFFFF) + (s >> 16)
    return ~s & 0xFFFF


def h(text, alg="sha256"):
    return hashlib.new(alg, text if isinstance(text, bytes) else text.encode()).hexdigest()


def sdp(address, port=9, proto="TCP", service_port=None):
    tcp = proto == "TCP"
    lines = ["v=0", f"o=- 1 1 IN IP4 {address}", "s=-", f"c=IN IP4 {address}", "t=0 0", f"m=application {port} {proto} walnut"]
    if tcp:
        lines.append("a=setup:active")
    kind = " tcptype active" if tcp else ""
    lines += [f"a=candidate:1 1 {proto} 2128609279 {address} {port} typ host{kind}",
              f"a=candidate:2 1 {proto} 1694498815 {address} {port} typ srflx raddr {address} rport {port}{kind}"]
    if service_port:
        lines.append(f"a=walnut-port:{service_port}")
    return "\r\n".join(lines) + "\r\n"


class Message:
    """A SIP message's parts, for looking at answers."""

    def __init__(self, data):
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode(errors="replace").split("\r\n")
        self.start = lines[0]
        self.status = int(self.start.split()[1]) if self.start.startswith("SIP/2.0 ") else 0
        self.headers = [(n.strip().lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines[1:])]

    def all(self, name):
        return [v for n, v in self.headers if n == name.lower()]

    def get(self, name):
        return next(iter(self.all(name)), None)

    def challenge(self):
        """(realm, nonce) of the first SHA-256 challenge."""
        for v in self.all("proxy-authenticate"):
            if "SHA-256" in v:
                return re.search(r'realm="([^"]*)"', v).group(1), re.search(r'nonce="([^"]*)"', v).group(1)
        return None


class Client:
    """One user agent on a UDP socket of a host; what it writes can be wrong in any respect."""

    def __init__(self, lab, host, front, user=None, secret=None, domain="example.org", service="ssh", address=None):
        self.front, self.user, self.secret, self.domain, self.service = front, user or "stranger", secret or "", domain, service
        self.address = address or {"me": t.ME, "attack": t.ATTACK}[host]
        with inside(lab, host):
            self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.sock.bind((self.address, 0))
            self.sock.connect((front, 5060))
        self.port = self.sock.getsockname()[1]
        self.renew()

    def renew(self):
        self.call_id, self.tag, self.cseq = secrets.token_hex(12), secrets.token_hex(6), 0

    def request(self, method="INVITE", body=None, credentials=None, uri=None, more="", to_tag=None, branch=None, max_forwards=70, cseq=None):
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        uri = uri or f"sip:{self.service}@{self.domain}"
        body = sdp(self.address) if body is None else body
        via = f"Via: SIP/2.0/UDP {self.address}:{self.port};rport;branch=z9hG4bK{branch or secrets.token_hex(8)}"
        lines = [f"{method} {uri} SIP/2.0", via, f"Max-Forwards: {max_forwards}", f"From: <sip:{self.user}@{self.domain}>;tag={self.tag}",
                 f"To: <sip:{self.service}@{self.domain}>" + (f";tag={to_tag}" if to_tag else ""), f"Call-ID: {self.call_id}", f"CSeq: {cseq} {method}",
                 f"Contact: <sip:{self.user}@{self.address}:{self.port}>"]
        if credentials:
            lines.append("Proxy-Authorization: " + credentials)
        if more:
            lines.append(more)
        if body:
            lines.append("Content-Type: application/sdp")
        lines.append(f"Content-Length: {len(body)}")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def credentials(self, realm, nonce, body, qop="auth-int", uri=None, method="INVITE", algorithm="SHA-256", nc="00000001", user=None,
                    response=None):
        uri = uri or f"sip:{self.service}@{self.domain}"
        user = user or self.user
        alg = "md5" if algorithm == "MD5" else "sha256"
        cnonce = secrets.token_hex(8)
        ha2 = h(f"{method}:{uri}" + (f":{h(body, alg)}" if qop == "auth-int" else ""), alg)
        if response is None:
            response = h(f"{h(f'{user}:{realm}:{self.secret}', alg)}:{nonce}:{nc}:{cnonce}:{qop}:{ha2}", alg)
        return (f'Digest username="{user}",realm="{realm}",nonce="{nonce}",uri="{uri}",response="{response}",algorithm={algorithm},'
                f'cnonce="{cnonce}",qop={qop},nc={nc}')

    def send(self, data):
        try:
            self.sock.send(data)
        except ConnectionRefusedError:
            pass

    def receive(self, seconds=1.0, want=lambda m: True):
        end = time.monotonic() + seconds
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.sock], [], [], left)[0]:
                return None
            try:
                m = Message(self.sock.recv(65535))
            except ConnectionRefusedError:
                continue
            if want(m):
                return m

    def challenge(self, tries=5):
        """A nonce for this address: (realm, nonce)."""
        for _ in range(tries):
            self.send(self.request())
            m = self.receive(0.5, lambda m: m.status == 407)
            if m:
                return m.challenge()
        raise t.LabError(f"{self.front}: no challenge")

    def call(self, qop="auth-int", body=None, seconds=4.0):
        """Signs in. Returns (the final answer, the INVITE that had the credentials)."""
        realm, nonce = self.challenge()
        body = sdp(self.address) if body is None else body
        invite = self.request(body=body, credentials=self.credentials(realm, nonce, body, qop))
        self.send(invite)
        answer = self.receive(seconds, lambda m: m.status >= 200 and (m.get("cseq") or "").startswith(f"{self.cseq} "))
        if answer and 200 <= answer.status < 300:
            self.answer = answer
            self.send(self.in_dialog("ACK", self.cseq))
        return answer, invite

    def in_dialog(self, method, cseq=None):
        to_tag = re.search(r";tag=([^;>]+)", self.answer.get("to")).group(1)
        route = "\r\n".join("Route: " + r for r in self.answer.all("record-route"))
        contact = re.search(r"<([^>]+)>", self.answer.get("contact")).group(1)
        return self.request(method, body="", uri=contact, more=route, to_tag=to_tag, cseq=cseq)

    def bye(self, seconds=2.0):
        self.send(self.in_dialog("BYE"))
        return self.receive(seconds, lambda m: "BYE" in (m.get("cseq") or ""))

    def close(self):
        self.sock.close()


class Refusals(threading.Thread):
    """Every kind of refusal that the generator does not make, a few of each a second at each front, until stopped. A user's
    secret is given for those kinds that only an authenticated sender can meet; it tries `calls` calls a round, none of which can be
    passed on. `replay`: [(source, port, front, datagram)]."""

    def __init__(self, lab, user, secret, replay=(), calls=1):
        super().__init__(daemon=True)
        self.ended = threading.Event()
        self.clients = [Client(lab, "attack", f, user, secret) for f in t.FRONTS]
        self.spoofer = Spoofer(lab)
        self.replay, self.calls = replay, calls
        self.rounds = 0
        self.failed = None

    def run(self):
        try:
            while not self.ended.is_set():
                for c in self.clients:
                    self.round(c)
                for src, sport, front, datagram in self.replay:
                    self.spoofer.send(src, sport, front, 5060, datagram)
                self.rounds += 1
                self.ended.wait(0.1)
        except Exception as e:  # pylint: disable=broad-except
            self.failed = e

    def round(self, c):
        c.renew()
        token = base64.urlsafe_b64encode(secrets.token_bytes(60)).decode()
        body = sdp(c.address)
        for data in (
            c.request("OPTIONS"), c.request("REGISTER"), c.request("MESSAGE"), c.request("SUBSCRIBE"),
            c.request(uri="sip:ssh@nobody.invalid"), c.request("ACK", body=""), c.request("CANCEL", body=""), c.request("BYE", body=""),
            c.request("BYE", body="", to_tag="x"), c.request("UPDATE", to_tag="x"),
            c.request("BYE", body="", to_tag="x", more=f"Route: <sip:{token}@{c.front}:5060;lr>"),
            c.request("INVITE", to_tag="x", more=f"Route: <sip:{token}@{c.front}:5060;lr>"),
            b"SIP/2.0 200 OK\r\n" + c.request().split(b"\r\n", 1)[1], b"\r\n\r\n", secrets.token_bytes(300), b"x" * 9000, b"INVITE",
            b"INVITE sip:ssh@example.org SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bKx\r\nFrom: <a:b>;tag=1\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\n"
            b"CSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n",
            c.request(credentials="Digest nonsense"), c.request(credentials='Digest username="' + "a" * 200 + '"'),
        ):
            c.send(data)
        realm, nonce = c.challenge()
        domain, _, epoch = realm.partition("/")
        for credentials, more in (
            (c.credentials(realm, nonce, body, user="nobody" + secrets.token_hex(2)), {}),
            (c.credentials(realm, nonce, body, response="0" * 64), {}),
            (c.credentials(f"{domain}/{int(epoch) - 3}", nonce, body), {}),
            (c.credentials("other.invalid/1", nonce, body), {}),
            (c.credentials(realm, nonce, body, algorithm="MD5"), {}),
            (c.credentials(realm, "short", body), {}), (c.credentials(realm, nonce[:-5] + ("AAAAA" if nonce[-5:-1] != "AAAA" else "BBBBA"), body), {}),
        ):
            c.send(c.request(body=body, credentials=credentials, **more))
        realm, nonce = c.challenge()
        c.send(c.request(body=body, credentials=c.credentials(realm, nonce, body, uri="sip:other@example.org")))
        for _ in range(self.calls):
            realm, nonce = c.challenge()
            c.send(c.request(body=body, credentials=c.credentials(realm, nonce, body), max_forwards=0))

    def stop(self):
        self.ended.set()
        self.join(5)
        for c in self.clients:
            c.close()
        self.spoofer.close()
        if self.failed:
            raise self.failed
