#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The gate's next hops follow the kernel's routes and neighbours: with the process there at once, without it after three seconds. Needs root;
everything is in network namespaces of its own.

The process takes what the kernel says before it answers a question: after an answer the next packet must be right. Link addresses that
nobody has tell what a packet was sent by."""
import os
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from _gate import CLIENT, PUBLIC, SERVICE, Bench, S, boot_ns, hear, ip4, own_mounts, udp, until  # noqa: E402
from _lab import main, ok  # noqa: E402

FAR = "203.0.113.9"
ROUTER, SECOND = "198.18.3.7", "198.18.3.8"
VALID_S = 3.02  # how long the table outlives its writer, and a tick of the path's clock


def mac(n):
    return bytes([2, 0, 0xEE, 0, 0, n])


def text(m):
    return ":".join(f"{x:02x}" for x in m)


class Way:
    """Packets from the service to a far host, and which link address they are sent to."""

    def __init__(self, b):
        self.b = b
        self.tap = b.tap("client")
        self.sent = 0

    def of(self, dst=FAR, size=8, seconds=2.0):
        self.sent += 1
        token = struct.pack("!Q", self.sent)
        self.b.packet("service", SERVICE, dst, 17, udp(SERVICE, dst, 5000, 53, token + bytes(size - 8)))
        got = hear(self.tap, lambda f: f[23] == 17 and f[30:34] == ip4(dst) and f[42:50] == token, seconds)
        return got[:6] if got else None


def gate(b, line):
    b.ns("gate", f"ip {line}")


def hops(b):
    return b.counters().get("next_hops", 0)


def in_use(b):
    return until(10, lambda: hops(b) > 0)


def neighbour(b, ip, n):
    gate(b, f"neigh replace {ip} lladdr {text(mac(n))} dev wan nud permanent")


def with_the_process(b, way):
    neighbour(b, ROUTER, 1)
    neighbour(b, SECOND, 2)
    gate(b, f"route add default via {ROUTER}")
    hops(b)
    ok(way.of() == mac(1), "a route: packets follow it", b.counters())
    # The default route, its gateway, the other router, the client, the service.
    ok(until(10, lambda: hops(b) >= 5), "the table knows the gateways, and the hosts on both links", b.counters())
    ok(way.of() == mac(1), "and says the same", b.counters())

    neighbour(b, ROUTER, 3)
    hops(b)
    ok(way.of() == mac(3), "the next hop's link address changes: the next packet has the new one")
    in_use(b)
    gate(b, f"route replace default via {SECOND}")
    hops(b)
    ok(way.of() == mac(2), "the route is replaced: the next packet takes the new one")
    in_use(b)
    gate(b, "route add blackhole 203.0.113.0/24")
    hops(b)
    ok(b.counted("no_route", lambda: way.of(seconds=0.2)), "a blackhole for a part of it: no_route", b.counters())
    in_use(b)
    ok(b.counted("no_route", lambda: way.of(seconds=0.2)) and way.of("198.51.100.1") == mac(2), "also by the table, and only there")
    gate(b, f"route replace 203.0.113.0/25 via {ROUTER}")
    hops(b)
    ok(way.of() == mac(3), "a longer prefix within it: through there")
    in_use(b)
    gate(b, f"route add {FAR} via {SERVICE}")
    hops(b)
    ok(b.counted("wrong_egress", lambda: way.of(seconds=0.2)), "one that leads by the other side: wrong_egress", b.counters())
    gate(b, f"route del {FAR}")
    gate(b, "route del 203.0.113.0/25")
    gate(b, "route del blackhole 203.0.113.0/24")
    in_use(b)
    ok(way.of() == mac(2), "all of them gone: the default route again")

    gate(b, "link set wan mtu 1000")
    hops(b)
    ok(b.counted("too_big_told", lambda: way.of(size=1100, seconds=0.2)) and way.of(size=900) == mac(2), "a smaller MTU: too_big_told")
    gate(b, "link set wan mtu 1500")

    in_use(b)
    gate(b, f"neigh del {SECOND} dev wan")
    hops(b)
    ok(b.counted("no_neighbour", lambda: way.of(seconds=0.2)), "the neighbour is forgotten: no_neighbour", b.counters())
    neighbour(b, SECOND, 2)
    ok(in_use(b) and way.of() == mac(2), "and known again")

    # Its routes and neighbours go with it, without a word of their own.
    gate(b, "link set wan down")
    hops(b)
    ok(way.of(seconds=0.2) is None and hops(b) <= 2, "the link is down: nothing is known of it", b.counters())
    gate(b, "link set wan up")
    neighbour(b, SECOND, 4)
    gate(b, f"route add default via {SECOND}")
    ok(until(10, lambda: way.of(seconds=0.5) == mac(4)) and in_use(b) and way.of() == mac(4), "and up again", b.counters())

    gate(b, "route add default via 198.18.3.7 table 77")
    gate(b, f"rule add from {PUBLIC} table 77")
    off = hops(b) == 0
    ok(off and way.of() == mac_of_router(b), "a rule that looks at the source: the kernel is asked for every packet", b.counters())
    gate(b, f"rule del from {PUBLIC} table 77")
    ok(in_use(b) and way.of() == mac(4), "without it the table is in use again", b.counters())


def mac_of_router(b):
    line = b.ns("gate", f"ip neigh show {ROUTER} dev wan").stdout
    return bytes.fromhex(line.split("lladdr ")[1].split()[0].replace(":", "")) if "lladdr" in line else None


def nobody_hears(b, way, stop, name):
    """The route changes while the process cannot hear of it. Proof that the table is what answers until it lapses, and the kernel then."""
    before, after = mac(4), mac(1)
    for _ in range(5):
        gate(b, f"route replace default via {SECOND}")
        if not in_use(b) or way.of() != before:
            continue
        asked = boot_ns()  # the last time that the table's life was prolonged is earlier
        stop()
        gate(b, f"route replace default via {ROUTER}")
        first, when = way.of(), boot_ns()
        if when - asked < (VALID_S - 0.5) * S:
            break
        cont(b)
    else:
        ok(False, name + ": the machine is too slow to tell")
        return
    while boot_ns() <= asked + VALID_S * S:
        time.sleep((asked + VALID_S * S - boot_ns()) / S + 0.001)
    ok(first == before, name + ": the table goes on", first)
    ok(way.of() == after, f"and {VALID_S:.0f} seconds later the kernel is asked")


def cont(b):
    if b.path is not None:
        b.path.send_signal(signal.SIGCONT)


def without_the_process(b, way):
    neighbour(b, ROUTER, 1)
    neighbour(b, SECOND, 4)
    nobody_hears(b, way, lambda: b.path.send_signal(signal.SIGSTOP), "the process stands still")
    cont(b)
    ok(in_use(b) and way.of() == mac(1), "it goes on: the table is in use again, and right", b.counters())
    nobody_hears(b, way, b.kill_path, "the process is killed")
    b.open_path()
    ok(in_use(b) and way.of() == mac(1), "started again: in use", b.counters())


def test():
    own_mounts(__file__)
    with Bench("routes") as b:
        way = Way(b)
        with_the_process(b, way)
        without_the_process(b, way)


main(test)
