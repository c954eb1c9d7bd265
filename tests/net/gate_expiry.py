#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holes and sessions end on time while nobody is there to end them: the process is killed with SIGKILL, the packet path goes on by itself.
Needs root; everything is in network namespaces of its own.

Each packet is held against the expiry that the pinned tables say: one that arrived was sent before it, give or take a tick of the path's
clock, one that did not was still on the way after it. So a slow machine makes no difference."""
import os
import socket
import struct
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from _gate import CLIENT, PUBLIC, SERVICE, Bench, S, Table, boot_ns, own_mounts, recv, until  # noqa: E402
from _lab import main, ok  # noqa: E402

TICK = S // 50  # longer than the kernel's tick is anywhere
LIFE = 2  # seconds: of every hole here
HOLE_INDEX = (1 << 20) - 1


class Grants:
    """As src/gate/bpf/shared.h lays them out: expiry at 8, the time to connect at 16."""

    def __init__(self, b):
        self.table = Table(f"{b.state}/grants", 4, 192)

    def get(self, hole, at):
        return struct.unpack("=Q", self.table.get(struct.pack("=I", int(hole) & HOLE_INDEX))[at:at + 8])[0]

    def put(self, hole, at, value):
        key = struct.pack("=I", int(hole) & HOLE_INDEX)
        v = self.table.get(key)
        self.table.put(key, v[:at] + struct.pack("=Q", value) + v[at + 8:])


class Counters:
    """The pinned counters, which nobody else reads now. Their places: src/gate/bpf/shared.h."""

    def __init__(self, b):
        with open("/sys/devices/system/cpu/possible", encoding="ascii") as f:
            last = f.read().strip().split("-")[-1].split(",")[-1]
        self.cpus = int(last) + 1
        self.table = Table(f"{b.state}/counters", 4, 8 * self.cpus)
        with open(os.path.join(os.path.dirname(__file__), "../../src/gate/bpf/shared.h"), encoding="ascii") as f:
            self.names = [line.split('"')[1] for line in f if line.strip().startswith("X(GATE_R_")]

    def get(self, name):
        return sum(struct.unpack(f"={self.cpus}Q", self.table.get(struct.pack("=I", self.names.index(name)))))


def held_to(name, counters, reason, expires, send, heard):
    """Sends until nothing arrives any more; every packet must be in time. send() gives a text away, heard(text) whether it arrived."""
    passed, early, late, before, end = 0, 0, 0, counters.get(reason), boot_ns() + 20 * S
    n = 0
    while boot_ns() < end:
        n += 1
        text = f"{n}".encode()
        sent = boot_ns()
        send(text)
        arrived = heard(text, 0.05 if sent < expires else 0.3)
        over = boot_ns()
        if arrived:
            passed += 1
            late += sent > expires + TICK
            continue
        if counters.get(reason) == before:
            continue  # it is on its way still, or was lost: the counter says whether it was dropped
        early += over < expires
        break
    ok(passed > 0 and early == 0 and late == 0 and counters.get(reason) > before, name, f"{passed} passed, {early} early, {late} late, {counters.get(reason) - before} {reason}")


def heard_by(s):
    def heard(text, seconds):
        end = boot_ns() + int(seconds * S)
        while boot_ns() < end:
            got = recv(s, max(0.001, (end - boot_ns()) / S))
            if got and got[0].endswith(text):
                return True
        return False
    return heard


def udp_hole(b, grants, counters):
    service = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 53))
    client = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 4000))
    kept_client = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 4001))
    hole, port = b.open_hole("udp", 53, f"{CLIENT}:4000", LIFE)
    kept, kept_port = b.open_hole("udp", 53, f"{CLIENT}:4001", 600)
    b.kill_path()
    expires = grants.get(hole, 8)
    ok(boot_ns() < expires, "the process is gone before the hole's time is up", expires - boot_ns())
    held_to("a UDP hole ends on time", counters, "hole_expired", expires, lambda t: client.sendto(t, (PUBLIC, port)), heard_by(service))
    service.sendto(b"from inside", (CLIENT, 4000))
    ok(until(2, lambda: counters.get("hole_expired") >= 2) and recv(client, 0.1) is None, "and for what the service says")
    kept_client.sendto(b"still here", (PUBLIC, kept_port))
    got = recv(service)
    ok(got is not None and got[0] == b"still here" and grants.get(kept, 8) > boot_ns(), "another hole beside it lives on", got)
    return hole, kept


def tcp_hole(b, grants, counters):
    b.open_path()
    listener = b.socket("service", socket.SOCK_STREAM, (SERVICE, 22))
    listener.listen()
    hole, port = b.open_hole("tcp", 22, CLIENT, 2 * LIFE)
    unused, unused_port = b.open_hole("tcp", 23, CLIENT, 600)
    c = b.socket("client", socket.SOCK_STREAM, (CLIENT, 4100))
    c.connect((PUBLIC, port))
    s, _ = listener.accept()
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    b.kill_path()
    expires = grants.get(hole, 8)
    stream = b""

    def heard(text, seconds):
        nonlocal stream
        end = boot_ns() + int(seconds * S)
        s.setblocking(False)
        while boot_ns() < end:
            try:
                stream += s.recv(4096)
            except BlockingIOError:
                pass
            if stream.endswith(b"<" + text + b">"):
                return True
        return False

    held_to("a TCP hole ends on time, in the middle of its connection", counters, "hole_expired", expires,
            lambda t: c.send(b"<" + t + b">"), heard)
    knock = b.socket("client", socket.SOCK_STREAM, (CLIENT, 4101))
    knock.setblocking(False)
    grants.put(unused, 16, boot_ns() - TICK)
    late = counters.get("connect_late")
    knock.connect_ex((PUBLIC, unused_port))
    ok(until(3, lambda: counters.get("connect_late") > late), "the time to connect ends too")
    return hole


def sessions(b, counters):
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6200))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5200))
    s.connect((CLIENT, 6200))
    s.send(b"opens one, with nobody there")
    got = recv(server)
    entry = b.flows.find(17, 5200, CLIENT, 6200)
    ok(got is not None and entry is not None, "the inside opens sessions without the process", got)
    b.flows.set_expires(entry, boot_ns() + S)
    expires = b.flows.expires(b.flows.find(17, 5200, CLIENT, 6200))
    held_to("a UDP session ends on time", counters, "session_expired", expires, lambda t: server.sendto(t, got[1]), heard_by(s))
    s.send(b"again")
    again = recv(server)
    server.sendto(b"answer", got[1])
    ok(again is not None and again[1] == got[1] and recv(s) is not None, "and the inside may open it again, on the same port", again)


def test():
    own_mounts(__file__)
    with Bench("exp") as b:
        grants, counters = Grants(b), Counters(b)
        gone, kept = udp_hole(b, grants, counters)
        sessions(b, counters)
        cut = tcp_hole(b, grants, counters)
        b.open_path()
        answers = [b.ask(f"renew {h} 60")[0] for h in (gone, kept, cut)]
        ok(answers[1] == "ok" and "ok" not in (answers[0], answers[2]), "started again, it knows which are over and which is not", answers)


main(test)
