#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What strangers can do to callers over TCP and TLS: slow ones by the thousand, one address with many, descriptors that run out, floods of TLS
handshakes. Beside each, somebody who has authenticated goes on."""
import socket
import threading
import time

from _lab import main, ok
from _streams import FRONT, TLS, Caller, Crowd, any_tls, many_files, streams
from walnutlab.daemons import USER
from walnutlab.processes import wait_for
from walnutlab.sip import inside

SLOW = 10000
STRANGER_KIB = 4  # FRONT_STREAM_STRANGER_BYTES is less
HALF = (b"INVITE sip:ssh@example.org SIP/2.0\r\nVia: SIP/2.0/TCP 198.18.5.2;branch=z9hG4bKslow\r\nMax-Forwards: 70\r\n" + b"X-Slow: " +
        b"a" * 1000 + b"\r\n")


def resident_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


def goes_on(name, caller):
    """One who is in makes another call on the same connection."""
    caller.renew()
    answer, _ = caller.call()
    good = answer is not None and answer.status == 200
    bye = caller.bye() if good else None
    return ok(good and bye is not None and bye.status == 200, f"{name}: who is in makes a call", answer and answer.start)


def comes_in(name, lab, walnut, tls=None):
    begin = time.monotonic()
    c = Caller(lab, "me", USER, walnut.secret(), tls=tls)
    answer, _ = c.call()
    ok(answer is not None and answer.status == 200, f"{name}: who comes gets in", answer and answer.start)
    return c, time.monotonic() - begin


def slow_ones(lab, walnut):
    """More half-open strangers than there are places: the oldest go, at most 4 KiB each."""
    caller, _ = comes_in("slow", lab, walnut)
    pid = walnut.f1.process.pid
    before = resident_kib(pid)
    crowd = Crowd(lab, SLOW, HALF)
    try:
        ok(crowd.connected == SLOW, f"slow: {SLOW} strangers have connected", crowd.connected)
        wait_for("all to be accepted", lambda: walnut.counts()["accepted"] >= SLOW, 20)
        seen = walnut.counts()
        ok(seen["strangers"] <= 4000, "slow: no more than there are places", seen)
        ok(seen["evicted"] + seen["evicted_buffer"] + seen["deadline_first"] >= SLOW - 4000, "slow: the oldest have gone", seen)
        grown = resident_kib(pid) - before
        ok(grown < STRANGER_KIB * 4000, f"slow: {grown} KiB for 4,000 of them", grown)
        goes_on("slow", caller)
        comes_in("slow", lab, walnut)
        ok(caller.ended(0.1) is False, "slow: and has not been ended")
        wait_for("the deadline of the last", lambda: walnut.counts()["strangers"] <= 1, 15)
        ok(crowd.alive() == 0, "slow: none is left after its deadline", crowd.alive())
        goes_on("after the deadline", caller)
    finally:
        crowd.close()


def one_address(lab, walnut):
    """Twenty to an address: ten for each of two workers."""
    walnut.again("max_connections: 4000, per_address: 20")
    crowd = Crowd(lab, 200)
    try:
        wait_for("all to be seen", lambda: walnut.counts()["accepted"] + walnut.counts()["per_address"] == 200)
        seen = walnut.counts()
        ok(seen["accepted"] <= 20 and seen["accepted"] >= 10, f"one address: {seen['accepted']} of 200 were let in", seen)
        ok(crowd.alive() == seen["accepted"], "one address: the others were refused")
        comes_in("one address", lab, walnut)
    finally:
        crowd.close()


def descriptors(lab, walnut):
    """The process may have few files open: it takes fewer connections, and goes on."""
    walnut.again("max_connections: 16384, per_address: 65535", nofile=512)
    log = walnut.f1.process.last_log(12)
    ok("only 512 files may be open" in log and "LimitNOFILE" in log, "descriptors: the front says what is wrong", log[-300:])
    caller, _ = comes_in("descriptors", lab, walnut)
    crowd = Crowd(lab, 2000)
    try:
        wait_for("all to be accepted", lambda: walnut.counts()["accepted"] > 2000, 20)
        seen = walnut.counts()
        ok(seen["strangers"] < 512 and seen["evicted"] > 1400, "descriptors: the oldest make room", seen)
        ok(seen["no_descriptor"] == 0, "descriptors: accept has never failed", seen)
        goes_on("descriptors", caller)
        comes_in("descriptors", lab, walnut)
    finally:
        crowd.close()


class Handshakes(threading.Thread):
    """Begins TLS handshakes as fast as it can and finishes none: each costs the front a signature."""

    def __init__(self, lab):
        super().__init__(daemon=True)
        self.lab, self.ended, self.begun = lab, threading.Event(), 0
        self.context = any_tls()

    def run(self):
        while not self.ended.is_set():
            with inside(self.lab, "attack"):
                some = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(16)]
            for s in some:
                s.settimeout(0.05)
                try:
                    s.connect((FRONT, TLS))
                    self.context.wrap_socket(s, do_handshake_on_connect=False).do_handshake()
                except OSError:
                    pass
                self.begun += 1
                s.close()


def handshakes(lab, walnut):
    walnut.again("max_connections: 4000, per_address: 65535, tls_handshakes_per_s: 20, tls_handshakes: 16")
    caller, _ = comes_in("handshakes", lab, walnut, tls=any_tls())
    plain, _ = comes_in("handshakes", lab, walnut)
    flood = [Handshakes(lab) for _ in range(4)]
    for f in flood:
        f.start()
    try:
        wait_for("the budget to be spent", lambda: walnut.counts()["tls_budget"] > 10, 10)
        before, begin = walnut.counts(), time.monotonic()
        for _ in range(3):
            goes_on("handshakes", caller)
            goes_on("handshakes, TCP", plain)
        comes_in("handshakes", lab, walnut)
        wait_for("two seconds", lambda: time.monotonic() - begin >= 2)
        after, took = walnut.counts(), time.monotonic() - begin
        begun = after["accepted"] - before["accepted"] - 1
        ok(begun <= 20 * took + 6, f"handshakes: {begun} were begun in {took:.1f} s, at 20 a second", (before, after))
        ok(after["handshaking"] <= 16, "handshakes: no more at a time than may be", after)
    finally:
        for f in flood:
            f.ended.set()
        for f in flood:
            f.join()


def test():
    many_files()
    with streams("max_connections: 4000, per_address: 65535") as (lab, _, walnut):
        slow_ones(lab, walnut)
        one_address(lab, walnut)
        descriptors(lab, walnut)
        handshakes(lab, walnut)


main(test)
