# SPDX-License-Identifier: Apache-2.0
"""What gate-micro measures -> figures.

Every series is nanoseconds a run of a chain: writer, tail call, the program in question. `base` is the same chain with a program that only
drops, `empty` a program that only passes, by itself. So what a program costs as if the kernel had run it alone is
chain - (base - empty), the figure that BPF_PROG_TEST_RUN gives for a single packet; all ratios are of such figures, round by round. Those
that end in _net have the empty program taken off as well."""
import json
import os
import subprocess

import world

GROUPS = ("miss", "nat", "tcp", "tag", "hole")
TAGS = (64, 512, 1400)


def run(o, groups):
    argv = [os.path.join(o.build, "bench/gate/gate-micro"), "--runs", str(o.runs), "--cpu", str(o.cpu), "--flows", str(o.flows), "--only",
            ",".join(groups)]
    p = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    if p.returncode != 0:
        raise world.Failure(p.stderr.strip() or f"gate-micro ended with {p.returncode}")
    return json.loads(p.stdout)["series"]


class Series:
    def __init__(self, series):
        self.s = series

    def alone(self, chain, base, empty):
        return [c - (b - e) for c, b, e in zip(self.s[chain], self.s[base], self.s[empty])]

    def net(self, chain, base):
        """At least a nanosecond: an empty difference is noise."""
        return [max(c - b, 1) for c, b in zip(self.s[chain], self.s[base])]


def ratio(a, b):
    return [x / y for x, y in zip(a, b)]


def worse(a, b):
    """The series with the higher median."""
    return max(a, b, key=lambda v: sorted(v)[len(v) // 2])


def miss(s, out):
    empty = s.s["miss_empty"]
    gate = s.alone("miss_gate", "miss_base", "miss_empty")
    out.add("miss_ns", gate, limit=f"an empty program is {sorted(empty)[len(empty) // 2]:.0f} ns of it")
    out.add("empty_ns", empty, "a program that only returns, in the same way")
    out.add("miss_net_ns", s.net("miss_gate", "miss_base"), "miss_ns without what the empty program costs")
    out.add("miss_parse_ns", s.alone("miss_parse", "miss_base", "miss_empty"), "a program that parses and drops")
    out.add("miss_unowned_ns", s.alone("miss_unowned_gate", "miss_base", "miss_empty"), "a stranger's packet to a port that no flow has")
    # Live frames: the writer's share is what it adds to a program that drops.
    gate, parse, unowned = (s.alone(x, "live_base", "live_drop") for x in ("live_gate", "live_parse", "live_unowned_gate"))
    drop = s.s["live_drop"]
    out.add("miss_mpps", [1e3 / x for x in gate], limit=f"a program that only drops does {1e3 / sorted(drop)[len(drop) // 2]:.1f}")
    out.add("miss_ratio_parse", ratio(gate, parse))
    out.add("drop_mpps", [1e3 / x for x in drop], "live frames: a program that only drops")
    out.add("parse_mpps", [1e3 / x for x in parse], "live frames: a program that parses and drops")
    out.add("miss_unowned_mpps", [1e3 / x for x in unowned], "live frames: strangers to ports that no flow has")


def nat(s, out):
    """A bare look-up's key is the five-tuple of a packet from inside: one series stands beside both ways."""
    lookup, lookup1 = (s.alone(f"lookup_{n}", f"out_base_{n}", f"nat_empty_{n}") for n in ("many", "one"))
    out.add("lookup_ns", lookup, "bare look-up and redirect, a million flows, ns")
    out.add("lookup_hot_ns", lookup1, "the same, one flow")
    ways, growth = {}, {}
    for way in ("in", "out"):
        gate, gate1 = (s.alone(f"{way}_gate_{n}", f"{way}_base_{n}", f"nat_empty_{n}") for n in ("many", "one"))
        ways[way] = ratio(gate, lookup)
        growth[way] = ratio(ratio(gate, gate1), ratio(lookup, lookup1))
        out.add(f"nat_{way}_ns", gate, f"forwarded {way}bound, a million flows, ns")
        out.add(f"nat_{way}_hot_ns", gate1, "the same, one flow")
        out.add(f"nat_ratio_{way}", ways[way], f"{way}bound")
        out.add(f"nat_ratio_{way}_net", ratio(s.net(f"{way}_gate_many", f"{way}_base_many"), s.net("lookup_many", "out_base_many")),
                f"{way}bound, without what the empty program costs")
        out.add(f"nat_ratio_{way}_hot", ratio(gate1, lookup1), f"{way}bound, one flow")
        out.add(f"growth_ratio_{way}", growth[way], f"{way}bound")
    out.add("nat_ratio_lookup", worse(ways["in"], ways["out"]))
    out.add("growth_ratio", worse(growth["in"], growth["out"]))
    # The writers' shares: what one adds to a program that drops.
    for key, series in (("nat_in_mpps", "live_in_gate"), ("nat_out_mpps", "live_out_gate"), ("lookup_mpps", "live_lookup")):
        out.add(key, [1e3 / x for x in s.alone(series, "live_in_base", "live_in_drop")],
                {"l": "live frames: bare look-up and redirect", "n": "live frames: forwarded and transmitted, a million flows, one core"}[key[0]])


def tcp(s, out):
    ways = {}
    for way in ("in", "out"):
        ways[way] = ratio(*(s.alone(f"tcp_{way}_{x}", f"tcp_{way}_base", "tcp_empty") for x in ("with", "without")))
        out.add(f"tcp_window_ratio_{way}", ways[way], f"{way}bound")
    out.add("tcp_window_ratio", worse(ways["in"], ways["out"]))
    out.add("route_ns", s.alone("route", "tcp_in_base", "tcp_empty"), "the kernel's route look-up by itself")


def tag(s, out):
    for n in TAGS:
        # The writer lengthens the frame again after each strip: half of what both together cost is the writer's.
        own = [g - (b - e) - (t - b) / 2 for g, b, e, t in
               zip(s.s[f"tag_gate_{n}"], s.s[f"tag_base_{n}"], s.s[f"tag_empty_{n}"], s.s[f"tag_strip_{n}"])]
        bare = s.alone(f"tag_hash_{n}", f"tag_base_{n}", f"tag_empty_{n}")
        empty = s.s[f"tag_empty_{n}"]
        out.add(f"tag_ratio_{n}", ratio(own, bare))
        out.add(f"tag_{n}_ns", own, f"tagged datagram, {n} bytes, hot")
        out.add(f"siphash_{n}_ns", bare, "SipHash-2-4 alone over the same bytes")
        out.add(f"tag_ratio_{n}_net", ratio([g - e for g, e in zip(own, empty)], [max(h - e, 1) for h, e in zip(bare, empty)]),
                "without what the empty program costs")


def hole(s, out):
    out.add("hole_tcp_hot_ns", s.alone("hole_gate_one", "hole_base_one", "hole_empty_one"), "TCP in through one hole, ns")
    lookup = s.alone("hole_lookup_many", "hole_flow_base_many", "hole_empty_many")
    for way in ("in", "out"):
        gate = s.alone(f"hole_{way}_gate_many", f"hole_{way}_base_many", "hole_empty_many")
        out.add(f"hole_{way}_ns", gate, f"datagrams {way}bound through 200,000 holes, ns")
        out.add(f"hole_ratio_{way}", ratio(gate, lookup), "the same against a bare look-up among the sessions")


def measure(o, out):
    # Holes have a run of their own: the room for them would make everybody's table larger.
    for groups in (("miss", "nat", "tcp", "tag"), ("hole",)):
        groups = [g for g in groups if g in o.only]
        s = Series(run(o, groups)) if groups else None
        for g in groups:
            {"miss": miss, "nat": nat, "tcp": tcp, "tag": tag, "hole": hole}[g](s, out)
