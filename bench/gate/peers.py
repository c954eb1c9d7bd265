# SPDX-License-Identifier: Apache-2.0
"""Whole gates side by side, each in a network of its own: Walnut, nftables in three shapes, a bare XDP program. What a packet costs is all
time that the gate's core was not idle, less that of processes of no concern, shared out among the packets that reached the gate."""
import json
import re
from statistics import median

import world
from core import Core
from world import GATEWAY, PUBLIC, SERVICE, Failure, Net

CLIENT = "198.18.9.9"
FLOWS = 64
SERVICE_PORT = 7

OPEN = """
table ip gate {
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr %(public)s dnat to %(service)s
	}
}
"""
HOLES = """
table ip gate {
	map holes {
		type ipv4_addr . inet_service . inet_service : ipv4_addr . inet_service
		elements = { %(map)s }
	}
	chain pre {
		type nat hook prerouting priority dstnat;
		ip daddr %(public)s dnat ip to ip saddr . udp sport . udp dport map @holes
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
		ct status dnat accept
		ct state established accept
	}
	chain input {
		type filter hook input priority 0; policy drop;
	}
}
"""
NETDEV = """
table netdev gate {
	set holes {
		type ipv4_addr . inet_service . inet_service
		elements = { %(set)s }
	}
	chain ingress {
		type filter hook ingress device "wan" priority -500; policy drop;
		ether type arp accept
		ip daddr %(public)s ip saddr . udp sport . udp dport @holes accept
	}
}
"""
# What gets through is counted and goes no further: the service's host is none of the gate's cost.
SINK = """
table netdev sink {
	counter passed { }
	chain ingress {
		type filter hook ingress device "eth0" priority -500; policy accept;
		ip protocol udp counter name passed drop
	}
}
"""


class Whole:
    """One of the gates. ports: [(source port of the client, public port)], the flows that may pass."""

    forwards = True

    def __init__(self, o, kind):
        self.o, self.kind = o, kind
        self.net = Net(kind, busy=o.cpu, rest=o.rest)
        self.ports = [(2000 + i, 20000 + i) for i in range(FLOWS)]

    def up(self):
        self.net.__enter__()
        self.net.sh("in", "nft", "-f", "-", stdin=SINK)
        self.net.ip("out", "addr", "add", CLIENT + "/32", "dev", "lo")
        # Neighbours are known on both sides before anything is measured.
        for neighbour in (GATEWAY, SERVICE):
            self.net.sh("gate", "ping", "-c1", "-W2", neighbour)
        self.make()
        return self

    def down(self):
        self.net.__exit__()

    def nft(self, *texts):
        v = {"public": PUBLIC, "service": SERVICE,
             "map": ", ".join(f"{CLIENT} . {s} . {d} : {SERVICE} . {SERVICE_PORT}" for s, d in self.ports),
             "set": ", ".join(f"{CLIENT} . {s} . {d}" for s, d in self.ports)}
        self.net.sh("gate", "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for text in texts:
            self.net.sh("gate", "nft", "-f", "-", stdin=text % v)

    def passed(self):
        return int(re.search(r"packets (\d+)", self.net.sh("in", "nft", "list", "counter", "netdev", "sink", "passed")).group(1))

    def lost(self):
        """Frames that the wire to the gate had no room for."""
        links = json.loads(self.net.sh("out", "ip", "-j", "-s", "link", "show", "eth0"))
        return links[0]["stats64"]["tx"]["dropped"]


class Walnut(Whole):
    def make(self):
        self.gate = world.Gate(self.net, self.o.build, holes=4096)
        asked = "".join(f"open udp {SERVICE}:{SERVICE_PORT} {CLIENT}:{s} lifetime=3600\n" for s, _ in self.ports)
        answers = [json.loads(line) for line in self.gate.client("-", stdin=asked).splitlines()]
        self.ports = [(s, int(a["public"].rsplit(":", 1)[1])) for (s, _), a in zip(self.ports, answers)]

    def down(self):
        if hasattr(self, "gate"):
            self.gate.stop()
        super().down()


class NftOpen(Whole):
    def make(self):
        self.nft(OPEN)


class NftHoles(Whole):
    def make(self):
        self.nft(HOLES)


class NftNetdev(Whole):
    def make(self):
        self.nft(HOLES, NETDEV)


class Bare(Whole):
    forwards = False

    def make(self):
        self.net.ip("gate", "link", "set", "dev", "wan", "xdpdrv", "obj", f"{self.o.build}/bench/gate/bare.bpf.o", "program", "bare")


KINDS = (("walnut", Walnut, "the gate"), ("nft_open", NftOpen, "conntrack + DNAT, open to all"),
         ("nft_conntrack", NftHoles, "conntrack + DNAT, the same holes"), ("nft_netdev", NftNetdev, "netdev set before conntrack + DNAT, the same holes"),
         ("xdp_bare", Bare, "XDP, parse and drop"))


def thread_s(pid):
    with open(f"/proc/{pid}/schedstat", encoding="ascii") as f:
        return int(f.read().split()[0]) / 1e9


def burst(o, w, core, argv, stdin=None):
    """Runs a generator against one gate. -> ns of the core a packet, ns of the gate's threads a packet, share lost, packets passed on, ns of
    the core a packet with what other processes ran there."""
    threads = [w.net.thread("gate", d) for d in ("wan", "lan")]
    lost, passed, own = w.lost(), w.passed(), sum(map(thread_s, threads))
    with core:
        sent = json.loads(w.net.sh("out", "taskset", "-c", str(o.rest), *argv, stdin=stdin, seconds=60).strip().splitlines()[-1])["sent"]
    own, lost, passed = sum(map(thread_s, threads)) - own, w.lost() - lost, w.passed() - passed
    arrived = sent - lost
    if arrived <= 0:
        raise Failure(f"{w.kind}: nothing of {sent} packets arrived")
    return core.busy * 1e9 / arrived, own * 1e9 / arrived, lost / sent, passed / arrived, core.all * 1e9 / arrived


def flood(o, w, core):
    count = o.rate * o.seconds
    return burst(o, w, core, [f"{o.build}/lab/lab-load", "udp", "--dev", "eth0", "--to", PUBLIC, "--rate", str(o.rate), "--count", str(count),
                        "--seconds", str(o.seconds * 4), "--spoof", "100", "--size", "18"])


def forward(o, w, core):
    return burst(o, w, core, [f"{o.build}/bench/gate/gate-flows", "eth0", PUBLIC, CLIENT, str(o.rate), str(o.rate * o.seconds)],
                 stdin="".join(f"{s} {d}\n" for s, d in w.ports))


def measure(o, out):
    gates, got, others, core = [], {}, [], None
    try:
        for kind, make, _ in KINDS:
            gates.append(make(o, kind))
            gates[-1].up()
        core = Core(o.build, o.cpu, [pid for w in gates if isinstance(w, Walnut) for pid in w.gate.pids()])
        for _ in range(o.runs):
            for name, what in (("flood", flood), ("forward", forward)):
                for w in gates:
                    if what is flood or w.forwards:
                        got.setdefault((w.kind, name), []).append(what(o, w, core))
                        others.append(core.other / core.seconds)
    finally:
        if core:
            core.close()
        for w in gates:
            w.down()
    report(o, out, got, others)


def report(o, out, got, others):
    for kind, _, text in KINDS:
        for what, said in (("flood", "a packet of the flood, ns of the core"), ("forward", "a packet passed on, ns of the core")):
            rounds = got.get((kind, what))
            if not rounds:
                continue
            lost = median([r[2] for r in rounds])
            out.add(f"{what}_{kind}_ns", [r[0] for r in rounds], f"{said}: {text}", f"{lost:.0%} were lost before it" if lost > 0.01 else None)
            share = min(r[3] for r in rounds)
            if what == "forward" and share < 0.98:
                raise Failure(f"{kind}: only {share:.1%} of the accepted packets got through")
            if what == "flood" and kind != "nft_open" and share > 0:
                raise Failure(f"{kind}: {share:.2%} of the flood got through")

    def against(a, b, what, column):
        return [x[column] / y[column] for x, y in zip(got[a, what], got[b, what])]

    own = against("nft_open", "walnut", "flood", 1)
    out.add("cpu_ratio_conntrack", against("nft_open", "walnut", "flood", 0), limit=None if median(others) < 0.03 else
            f"other processes took {median(others):.0%} of the core meanwhile, which is left out; with them it is "
            f"{median(against('nft_open', 'walnut', 'flood', 4)):.2f}; the receiving threads' own time says {median(own):.2f}")
    out.add("cpu_ratio_conntrack_thread", own, "the same by the receiving threads' own time, which is from wake-up on")
    for key, a, b, what, text in (
            ("cpu_ratio_conntrack_holes", "nft_conntrack", "walnut", "flood", "conntrack + DNAT with the same holes / the gate"),
            ("cpu_ratio_netdev", "nft_netdev", "walnut", "flood", "a netdev set / the gate"),
            ("cpu_ratio_bare", "xdp_bare", "walnut", "flood", "XDP that parses and drops / the gate"),
            ("forward_ratio_conntrack", "nft_conntrack", "walnut", "forward", "passed on: conntrack + DNAT / the gate"),
            ("forward_ratio_netdev", "nft_netdev", "walnut", "forward", "passed on: netdev set, conntrack + DNAT / the gate")):
        out.add(key, against(a, b, what, 0), text)
    out.add("core_others", others, "share of the gate's core that other processes took")
