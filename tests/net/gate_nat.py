#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What kind of NAT the gate is, as outside programs see it (coturn's turnutils_natdiscovery, the classic stun client) and check by check.
Needs root; everything is in network namespaces of its own.

Nothing here waits for a timeout: expiries are read from, and moved in, the pinned tables."""
import contextlib
import errno
import os
import re
import select
import shutil
import socket
import struct
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from _gate import (CLIENT, GATE_INSIDE, OTHER, PUBLIC, SERVICE, Bench, S, boot_ns, checksum, hear, icmp, ip4, ip_packet, own_mounts, recv, tcp, udp,
                   until)  # noqa: E402
from _lab import main, ok  # noqa: E402

SYN, RST, ACK = 2, 4, 16
SYN_SENT, ESTABLISHED, CLOSING, CLOSED, RESET = 1, 4, 5, 6, 7
ROUTER = "198.18.3.250"  # somebody on the way; he need not exist to be heard
IP_MTU_DISCOVER, IP_RECVERR, IP_MTU, SO_NO_CHECK, MSG_ERRQUEUE = 10, 11, 14, 11, 0x2000


def of_ip(b, proto):
    return b[12:14] == b"\x08\x00" and b[23] == proto


def outside_programs(b):
    log = tempfile.TemporaryFile(mode="w+", encoding="utf-8")
    database = tempfile.TemporaryDirectory()  # it makes one, whatever it is told
    stun = b.start("client", "turnserver", "-n", "-S", "--no-cli", "--no-tls", "--no-dtls", "--no-tcp", "-L", CLIENT, "-L", OTHER,
                   "--log-file", "stdout", "--simple-log", "--pidfile", "/dev/null", "-b", f"{database.name}/turn", stdout=log, stderr=log)
    b.ns("service", f"ping -c 1 -W 1 {OTHER}", check=False)
    up = until(10, lambda: all(a in b.ns("client", "ss -Hlun").stdout for a in (f"{CLIENT}:3478", f"{OTHER}:3479")))
    if not up:
        log.seek(0)
        ok(False, "the STUN server is up on both addresses", log.read())
        return
    b.start("service", "turnutils_natdiscovery", "-m", "-L", SERVICE, CLIENT, stdout=-3).wait(timeout=20)  # the neighbours are asked for

    said = b.ns("service", f"turnutils_natdiscovery -m -L {SERVICE} {CLIENT}").stdout
    seen = set(re.findall(r"UDP reflexive addr: (\S+)", said))
    # It says so too when the second address never answered.
    ok("NAT with Endpoint Independent Mapping!" in said and "RFC 5780 response 2" in said and len(seen) == 1,
       "turnutils_natdiscovery: endpoint-independent mapping", said)
    before = b.counters()
    said = b.ns("service", f"turnutils_natdiscovery -f -L {SERVICE} {CLIENT}").stdout
    refused = b.counters().get("no_session", 0) - before.get("no_session", 0)
    # The server did answer from its other ends: the gate is what kept it away.
    ok("NAT with Address and Port Dependent Filtering!" in said and refused >= 2,
       "turnutils_natdiscovery: address-and-port-dependent filtering", f"{said}\n{refused}")
    got = b.ns("service", f"stun {CLIENT}", check=False)
    ok("Independent Mapping, Port Dependent Filter, random port, no hairpin" in got.stdout,
       "stun client: independent mapping, port-dependent filter, random port, no hairpin", got.stdout)
    before = b.counters().get("hairpin", 0)
    said = b.ns("service", f"turnutils_natdiscovery -H -L {SERVICE} {CLIENT}", check=False).stdout
    ok(b.counters().get("hairpin", 0) > before and "RFC 5780 response 2" not in said, "hairpinning is declined, and counted by its name", said)
    stun.kill()
    stun.wait()


def mapping(b):
    """RFC 4787 REQ-1, RFC 5382 REQ-1, RFC 5508 REQ-1 a): one public end for one inside end, whoever is on the other side."""
    ends = [(a, p) for a in (CLIENT, OTHER) for p in (6001, 6002)]
    servers = [b.socket("client", socket.SOCK_DGRAM, e) for e in ends]
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5000))
    for e in ends:
        s.sendto(b"hello", e)
    sources = [recv(x) for x in servers]
    ok(all(sources) and len({x[1] for x in sources}) == 1 and sources[0][1][0] == PUBLIC,
       "UDP: one mapping towards two addresses and two ports of each", sources)
    back = []
    if all(sources):
        for x, y in zip(servers, sources):
            x.sendto(b"back", y[1])
            back.append(recv(s))
    ok(back and all(back) and [x[1] for x in back] == ends, "UDP: each of them answers through it", back)

    listeners = [b.socket("client", socket.SOCK_STREAM, (a, 8080)) for a in (CLIENT, OTHER)]
    peers = []
    for x, a in zip(listeners, (CLIENT, OTHER)):
        x.listen()
        c = b.socket("service", socket.SOCK_STREAM, (SERVICE, 5001))
        c.connect((a, 8080))
        peers.append((c, *x.accept()))
    ok(len({p[2] for p in peers}) == 1 and peers[0][2][0] == PUBLIC, "TCP: one mapping towards two addresses", [p[2] for p in peers])

    tap = b.tap("client")
    ids = []
    for a in (CLIENT, OTHER):
        b.packet("service", SERVICE, a, 1, icmp(8, 0, 777 << 16 | 1, b"ping"))
        f = hear(tap, lambda f, a=a: of_ip(f, 1) and f[34] == 8 and f[30:34] == ip4(a))
        ids.append(f and f[38:40])
    tap.close()
    entry = b.flows.find(1, 777, CLIENT)
    ok(ids[0] is not None and ids[0] == ids[1] and entry is not None and struct.unpack("!H", ids[0])[0] == b.flows.public_port(entry),
       "ICMP: one query id towards two addresses", ids)
    left = b.flows.expires(entry) - boot_ns() if entry else None
    ok(entry and 57 * S < left <= 65 * S, "ICMP query mapping: 60 seconds (RFC 5508 REQ-2)", left)


def ports(b):
    """RFC 7857 sections 9 and 10: neither parity nor order of the inside's ports shows; RFC 4787 REQ-3: never two on one."""
    n = 400
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6100))
    got, keep = [], []
    for i in range(n):
        s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 20000 + i))
        s.sendto(b"x", (CLIENT, 6100))
        a = recv(server)
        if a is None:
            break
        got.append(a[1][1])
        keep.append(s)
    near = sum(abs(x - y) < 64 for x, y in zip(got, got[1:]))
    ok(len(got) == n and len(set(got)) == n and min(got) >= 1024, f"{n} mappings, {n} ports, none below 1024", f"{len(got)} {len(set(got))}")
    ok(len(got) == n and near < 15 and max(got) - min(got) > 50000 and len({x // 4096 for x in got}) >= 14,
       "their order shows nothing of the next: no sequence, spread over the whole range", f"near {near} {got[:20]}")
    even = sum((p - i) % 2 == 0 for i, p in enumerate(got))
    ok(n * 0.35 < even < n * 0.65, "no port parity is kept, and none is claimed (RFC 7857 section 9)", even)
    low = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 999))
    low.sendto(b"x", (CLIENT, 6100))
    a = recv(server)
    ok(a is not None and a[1][1] >= 1024, "a port below 1024 inside is not kept below 1024 (RFC 4787 REQ-3 a declined)", a)


def udp_timers(b):
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6200))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5200))
    s.connect((CLIENT, 6200))

    def entry():
        return b.flows.find(17, 5200, CLIENT, 6200)

    sent = boot_ns()
    s.send(b"1")
    source = recv(server)[1]
    left = b.flows.expires(entry()) - sent
    ok(120 * S <= left <= 130 * S, "UDP without an answer: two minutes (RFC 4787 REQ-5)", left)
    server.sendto(b"2", source)
    answered = recv(s)
    sent = boot_ns()
    s.send(b"3")
    recv(server)
    left = b.flows.expires(entry()) - sent
    ok(answered and 300 * S <= left <= 320 * S, "UDP with answers: five minutes (RFC 4787 REQ-5 c)", left)
    soon = boot_ns() + 10 * S
    b.flows.set_expires(entry(), soon)
    for _ in range(3):
        server.sendto(b"in", source)
    heard = [recv(s) for _ in range(3)]
    ok(all(heard) and b.flows.expires(entry()) == soon, "inbound packets do not keep a UDP mapping (RFC 4787 REQ-6)",
       b.flows.expires(entry()) - soon)
    sent = boot_ns()
    s.send(b"out")
    recv(server)
    left = b.flows.expires(entry()) - sent
    ok(300 * S <= left <= 320 * S, "an outbound packet does (RFC 4787 REQ-6)", left)
    b.flows.set_expires(entry(), boot_ns() - S // 50)  # a tick and more
    ok(b.counted("session_expired", lambda: server.sendto(b"late", source)) and recv(s, 0.2) is None, "after its end nothing comes in")
    s.send(b"again")
    again = recv(server)
    server.sendto(b"answer", source)
    ok(again is not None and again[1] == source and recv(s) is not None, "the next outbound packet opens it again, on the same port", again)


def connect(b, port, local):
    """(inside socket, outside socket, public port) of a TCP connection that the service opened."""
    x = b.socket("client", socket.SOCK_STREAM, (CLIENT, port))
    x.listen()
    c = b.socket("service", socket.SOCK_STREAM, (SERVICE, local))
    c.connect((CLIENT, port))
    s, peer = x.accept()
    x.close()
    s.settimeout(2)
    return c, s, peer[1]


def talks(a, z):
    """Both ways; a connection that was cut says so."""
    try:
        a.sendall(b"there")
        there = z.recv(100)
        z.sendall(b"back")
        return there == b"there" and a.recv(100) == b"back"
    except OSError:
        return False


def was_cut(s):
    try:
        return s.recv(10) == b""
    except ConnectionResetError:
        return True


def tcp_states(b):
    def entry(local, port):
        return b.flows.find(6, local, CLIENT, port)

    # A SYN that nobody answers.
    b.ns("client", "nft add table ip t")
    b.ns("client", "nft add chain ip t in '{ type filter hook input priority 0; }'")
    b.ns("client", "nft add rule ip t in tcp dport 8100 drop")
    c = b.socket("service", socket.SOCK_STREAM, (SERVICE, 5300))
    c.setblocking(False)
    c.connect_ex((CLIENT, 8100))
    e = until(2, lambda: entry(5300, 8100))
    left = b.flows.expires(e) - boot_ns() if e else None
    ok(e and b.flows.state(e) == SYN_SENT and 236 * S < left <= 250 * S, "TCP half open: four minutes (RFC 5382 REQ-5)", left)
    c.close()
    b.ns("client", "nft delete table ip t")

    c, s, _ = connect(b, 8101, 5301)
    good = talks(c, s)
    e = entry(5301, 8101)
    left = b.flows.expires(e) - boot_ns()
    ok(good and b.flows.state(e) == ESTABLISHED and 7436 * S < left <= 7800 * S, "TCP established: 2 hours 4 minutes (RFC 5382 REQ-5)", left)
    c.shutdown(socket.SHUT_WR)
    eof = s.recv(10)
    s.sendall(b"still coming")
    half = c.recv(100)
    state = b.flows.state(entry(5301, 8101))
    ok(eof == b"" and half == b"still coming" and state == CLOSING, "TCP half closed: the other half goes on", f"{eof} {half} {state}")
    s.close()
    c.recv(10)
    c.close()
    e = until(2, lambda: (x := entry(5301, 8101)) and b.flows.state(x) == CLOSED and x)
    left = b.flows.expires(e) - boot_ns() if e else None
    ok(e and 236 * S < left <= 250 * S, "TCP closed by both FINs: four minutes (RFC 5382 REQ-5)", left)

    # RST: what is forged, what is real.
    c, s, port = connect(b, 8102, 5302)
    talks(c, s)
    tap = b.tap("client")
    c.sendall(b"numbers, please")
    f = hear(tap, lambda f: of_ip(f, 6) and f[34:38] == struct.pack("!HH", port, 8102) and f[47] & ACK)
    tap.close()
    s.recv(100)
    seq, ack = struct.unpack("!II", f[38:46])

    def forged(flags, number, acked=0):
        b.packet("client", CLIENT, PUBLIC, 6, tcp(CLIENT, PUBLIC, 8102, port, flags, number, acked))

    good = b.counted("tcp_rst", lambda: [forged(RST, ack + d) for d in (1, 100, 30000, -1)], at_least=4)
    ok(good and talks(c, s), "RST inside the window but not at the next number is dropped (RFC 5961 section 3)", b.counters())
    good = b.counted("tcp_state", lambda: forged(SYN, ack))
    ok(good and talks(c, s), "SYN into an established connection is dropped (RFC 5961 section 4)", b.counters())
    good = b.counted("tcp_ack", lambda: forged(ACK, ack, seq + 100000))
    good = b.counted("tcp_window", lambda: forged(ACK, ack + 0x40000000, seq)) and good
    ok(good and talks(c, s), "data outside of the window, or for what was never sent, is dropped (RFC 5961 section 5)", b.counters())
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    cut = was_cut(c)
    e = entry(5302, 8102)
    left = b.flows.expires(e) - boot_ns() if e else None
    ok(cut and b.flows.state(e) == RESET and 236 * S < left <= 250 * S, "a real RST from outside arrives, and is followed by four minutes (RFC 7857 section 2.2)",
       f"{e and b.flows.state(e)} {left}")
    again = connect(b, 8102, 5302)
    ok(again[2] == port and talks(again[0], again[1]), "and the same ports connect again, on the same mapping", again[2])
    again[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    again[0].close()
    ok(was_cut(again[1]), "a real RST from inside arrives")


def icmp_errors(b):
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6300))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5400))
    s.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
    s.connect((CLIENT, 6300))
    tap = b.tap("client")
    s.send(bytes(600))
    quoted = hear(tap, lambda f: of_ip(f, 17) and f[30:34] == ip4(CLIENT) and f[36:38] == struct.pack("!H", 6300))[14:]
    tap.close()
    source = recv(server)[1]

    def error(kind, code, rest=0, quote=quoted[:28]):
        b.packet("client", ROUTER, PUBLIC, 1, icmp(kind, code, rest, quote))

    def told(timeout=2):
        """(type, code, info, offender) of the next error that the service's socket was told of."""
        p = select.poll()
        p.register(s, select.POLLERR)
        if not p.poll(timeout * 1000):
            return None
        try:
            _, extra, _, _ = s.recvmsg(2000, 512, MSG_ERRQUEUE)
        except OSError:
            return None
        data = next(d for level, kind, d in extra if (level, kind) == (socket.IPPROTO_IP, IP_RECVERR))
        _, _, kind, code, _, info, _ = struct.unpack("=IBBBBII", data[:16])
        return kind, code, info, socket.inet_ntoa(data[20:24])

    error(3, 3)
    got = told()
    ok(got and got[:2] == (3, 3) and got[3] == ROUTER, "port unreachable reaches the socket that it is about, its sender's address kept", got)
    error(3, 4, 576)
    got = told()
    ok(got and got[:3] == (3, 4, 576), "fragmentation needed reaches it, with the MTU", got)
    error(11, 0)
    got = told()
    ok(got and got[:2] == (11, 0), "time exceeded reaches it", got)
    error(12, 0)
    ok(told() is not None, "a parameter problem reaches it")
    with contextlib.suppress(OSError):  # errors that are still pending are told at the next call
        s.send(b"x")
    s.send(b"after all that")
    texts = [recv(server), recv(server)]
    server.sendto(b"so do you", source)
    heard = recv(s)
    ok(any(t and t[0] == b"after all that" and t[1] == source for t in texts) and heard and heard[0] == b"so do you",
       "no ICMP error ends a mapping (RFC 4787 REQ-12, RFC 5382 REQ-10, RFC 5508 REQ-6)", f"{texts} {heard}")
    soon = boot_ns() + 30 * S
    b.flows.set_expires(b.flows.find(17, 5400, CLIENT, 6300), soon)
    error(3, 3)
    got = told()
    end = b.flows.expires(b.flows.find(17, 5400, CLIENT, 6300))
    ok(got and end == soon, "nor keeps one alive (RFC 5508 REQ-6)", f"{got} {end - soon}")

    def unheard(name, act):
        return b.counted(name, act) and told(0.2) is None

    elsewhere = quoted[:16] + ip4(OTHER) + quoted[20:28]
    port = quoted[:20] + struct.pack("!H", struct.unpack("!H", quoted[20:22])[0] ^ 1) + quoted[22:28]
    ok(unheard("icmp_unmatched", lambda: error(3, 3, quote=elsewhere)) and unheard("icmp_unmatched", lambda: error(3, 3, quote=port)),
       "an error about what was never sent is dropped (RFC 5508 REQ-4)", b.counters())
    options = b"\x46" + quoted[1:20] + b"\x07\x04\x04\0" + quoted[20:28]
    ok(unheard("icmp_unmatched", lambda: error(3, 3, quote=options)), "one that quotes IP options, which never leave, is dropped", b.counters())
    ok(unheard("icmp_type", lambda: error(5, 1)) and unheard("icmp_type", lambda: error(4, 0)) and unheard("icmp_type", lambda: error(13, 0)),
       "redirect, source quench and timestamp are dropped", b.counters())

    c, x, tport = connect(b, 8200, 5401)
    ok(b.counted("icmp_unmatched", lambda: error(3, 4, 68, ip_packet(PUBLIC, CLIENT, 6, struct.pack("!HHI", tport, 8200, 0x12345678)))) and
       talks(c, x), "a TCP error that quotes no number in flight is dropped (RFC 5927)", b.counters())
    c.close()
    x.close()

    # From inside: the service's own host about what came through a hole.
    _, hole = b.open_hole("udp", 54, f"{CLIENT}:4001")
    client = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 4001))
    client.connect((PUBLIC, hole))

    def knock():
        try:
            client.send(b"anybody?")
            client.settimeout(0.2)
            client.recv(10)
        except ConnectionRefusedError:
            return True
        except OSError:
            pass
        return False

    ok(until(3, knock), "the service's port unreachable reaches the client, from the gate's address (RFC 5508 REQ-5)", b.counters())
    lost = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5402))
    lost.connect((CLIENT, 9))
    lost.send(b"anybody?")
    try:
        lost.recv(10)
        refused = False
    except OSError as e:
        refused = e.errno == errno.ECONNREFUSED
    ok(refused, "a closed port outside is ECONNREFUSED inside")


def hops(b):
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6400))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5500))
    s.connect((CLIENT, 6400))
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 1)
    tap = b.tap("service")
    good = b.counted("ttl", lambda: s.send(b"x"))
    f = hear(tap, lambda f: of_ip(f, 1))
    tap.close()
    ok(good and recv(server, 0.1) is None and f and f[34:36] == b"\x0b\0" and f[26:30] == ip4(GATE_INSIDE) and checksum(f[34:70]) == 0 and
       f[70 - 8:72 - 8] == struct.pack("!H", 5500), "a packet from inside at its last hop is dropped, counted, and its sender told (RFC 1812 5.3.1)", f)
    tap = b.tap("client")
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 2)
    s.send(b"x")
    f = hear(tap, lambda f: of_ip(f, 17) and f[30:34] == ip4(CLIENT))
    tap.close()
    ok(f and f[22] == 1 and checksum(f[14:34]) == 0, "one that has another hop leaves with one less", f and f[22])
    recv(server)
    port = b.flows.public_port(b.flows.find(17, 5500, CLIENT, 6400))
    good = b.counted("ttl", lambda: b.packet("client", CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 6400, port), ttl=1))
    tap = b.tap("client")
    good = b.counted("ttl", lambda: b.packet("client", CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 6400, port), ttl=1)) and good
    silent = hear(tap, lambda f: of_ip(f, 1), 0.3) is None
    tap.close()
    ok(good and silent and recv(s, 0.1) is None, "one from outside is dropped, counted, and not answered (RFC 5508 REQ-9)")

    s.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    s.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 64)
    tap = b.tap("client")
    s.send(b"unchecked")
    f = hear(tap, lambda f: of_ip(f, 17) and f[42:51] == b"unchecked")
    tap.close()
    out = recv(server)
    b.packet("client", CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 6400, port, b"nor this", no_checksum=True))
    got = recv(s)
    ok(f and f[40:42] == b"\0\0" and out and out[0] == b"unchecked" and got and got[0] == b"nor this",
       "UDP checksum 0 stays 0 both ways, and arrives", f"{f and f[40:42]} {out} {got}")
    b.packet("client", CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 6400, port, b"checked"))
    got = recv(s)
    ok(got and got[0] == b"checked", "any other is right after translation: the receiver's kernel takes it", got)


def by_name(b):
    """Fragments, IP options, VLAN tags, jumbo frames, IPv6: what is not handled is dropped and has a name. Both sides."""
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6500))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5600))
    s.connect((CLIENT, 6500))
    s.send(b"open")
    source = recv(server)[1]
    inward = (CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 6500, source[1], b"secret"))
    outward = (SERVICE, CLIENT, 17, udp(SERVICE, CLIENT, 5600, 6500, b"secret"))

    def both(name, what, **kw):
        good = b.counted(name, lambda: b.packet("client", *inward, **kw)) and b.counted(name, lambda: b.packet("service", *outward, **kw))
        ok(good and recv(s, 0.1) is None and recv(server, 0.1) is None, f"{what}, from either side: {name}", b.counters())

    b.packet("client", *inward)
    b.packet("service", *outward)
    got = [recv(s), recv(server)]
    ok(all(got), "these packets pass as they are (what follows drops them for one thing each)", got)
    for what, flags in (("a first fragment", 0x2000), ("a later fragment", 0x0005)):
        good = b.counted("fragment", lambda f=flags: b.packet("client", *inward, flags=f)) and \
            b.counted("fragment_inside", lambda f=flags: b.packet("service", *outward, flags=f))
        ok(good and recv(s, 0.1) is None and recv(server, 0.1) is None, f"{what}: fragment from outside, fragment_inside from inside", b.counters())
    both("ip_options", "record route", options=b"\x07\x07\x04\0\0\0\0\0")
    both("ip_options", "loose source route", options=b"\x83\x07\x04" + ip4(OTHER) + b"\0")
    good = b.counted("fragment_inside", lambda: b.ns("service", f"ping -c 1 -W 1 -M dont -s 3000 {CLIENT}", check=False), at_least=3)
    ok(good, "a host inside that sends 3,000 bytes without DF is counted under fragment_inside", b.counters())

    for kind in (0x8100, 0x88A8):
        tag = struct.pack("!HH", 5, 0x0800)
        good = b.counted("vlan", lambda k=kind, t=tag: b.frame("client", t + ip_packet(*inward), k)) and \
            b.counted("vlan", lambda k=kind, t=tag: b.frame("service", t + ip_packet(*outward), k))
        ok(good and recv(s, 0.1) is None and recv(server, 0.1) is None, f"VLAN tag {kind:#06x}, from either side: vlan", b.counters())
    six = struct.pack("!IHBB16s16s", 6 << 28, 8, 17, 64, bytes([0xFE, 0x80] + [0] * 13 + [1]), bytes([0xFE, 0x80] + [0] * 13 + [2])) + bytes(8)
    good = b.counted("ipv6", lambda: b.frame("client", six, 0x86DD)) and b.counted("ipv6", lambda: b.frame("service", six, 0x86DD))
    ok(good, "IPv6, from either side: ipv6", b.counters())
    good = b.counted("ethertype", lambda: b.frame("client", ip_packet(*inward), 0x88CC))
    ok(good, "any other kind of frame: ethertype", b.counters())
    good = b.counted("protocol", lambda: b.packet("client", CLIENT, PUBLIC, 50, bytes(40)))
    ok(good, "any other protocol (ESP): protocol", b.counters())

    # Jumbo frames: a link that carries them next to one that does not.
    b.ns("service", "ip route flush cache")  # what the ICMP errors taught it
    for host, dev in (("service", "eth"), ("gate", "lan")):
        b.ns(host, f"ip link set {dev} mtu 3000")
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 2)
    good = b.counted("too_big_told", lambda: s.send(bytes(2000)))
    ok(good and recv(server, 0.2) is None, "a jumbo frame towards a link of 1,500 bytes: too_big_told", b.counters())
    mtu = until(2, lambda: s.getsockopt(socket.IPPROTO_IP, IP_MTU) == 1500)
    ok(mtu, "and the host learns that the path carries 1,500 bytes (RFC 4787 REQ-13, RFC 1191)", s.getsockopt(socket.IPPROTO_IP, IP_MTU))
    told = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    ok(told == errno.EMSGSIZE, "and tells the socket", told)
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 3)  # whatever the host has learnt
    good = b.counted("too_big", lambda: b.packet("service", SERVICE, CLIENT, 17, udp(SERVICE, CLIENT, 5600, 6500, bytes(2000)), flags=0))
    ok(good, "without DF nothing is told: too_big", b.counters())
    for host, dev in (("client", "eth"), ("gate", "wan")):
        b.ns(host, f"ip link set {dev} mtu 3000")
    s.send(bytes(2000))
    got = recv(server)
    ok(got and len(got[0]) == 2000, "a jumbo frame where both links carry it passes", b.counters())
    _, port = b.open_hole("udp", 5602, "tag")
    ok(b.counted("tag_long", lambda: b.packet("client", CLIENT, PUBLIC, 17, udp(CLIENT, PUBLIC, 7000, port, bytes(1600)))),
       "one with a tag does not: tag_long", b.counters())


def jumbo(b):
    """Frames larger than a driver's native mode takes: the gate changes to its generic one, which takes them."""
    b.ask("remove")
    b.path.wait(timeout=20)
    for host, dev in (("service", "eth"), ("gate", "lan"), ("gate", "wan"), ("client", "eth")):
        b.ns(host, f"ip link set {dev} mtu 9000")
    b.open_path()
    ok("generic mode" in b.said(), "links of 9,000 bytes, which the driver's native mode refuses: the log says so", b.said())
    server = b.socket("client", socket.SOCK_DGRAM, (CLIENT, 6700))
    s = b.socket("service", socket.SOCK_DGRAM, (SERVICE, 5700))
    s.connect((CLIENT, 6700))
    s.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, 3)
    text = os.urandom(8900)
    s.send(text)
    got = recv(server)
    server.sendto(text, got[1] if got else (CLIENT, 9))
    back = recv(s)
    ok(got and got[0] == text and back and back[0] == text, "8,900 bytes in one frame, there and back", b.counters())
    b.ns("gate", "ip link set wan mtu 1500")
    ok(b.counted("too_big_told", lambda: s.send(text)), "and towards a link of 1,500 bytes: too_big_told", b.counters())
    told = until(2, lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE)
    ok(told, "which the sender hears")


def test():
    own_mounts(__file__)
    missing = [p for p in ("turnserver", "turnutils_natdiscovery", "stun", "nft") if shutil.which(p) is None]
    if missing:
        ok(False, "the programs of scripts/deps.sh test are there", missing)
        return
    with Bench("nat") as b:
        for part in (outside_programs, mapping, ports, udp_timers, tcp_states, icmp_errors, hops, by_name, jumbo):
            part(b)


main(test)
