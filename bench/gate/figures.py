# SPDX-License-Identifier: Apache-2.0
"""The figures, their bars, and the table."""
import statistics

# key: (bar, "most" or "least", what it is)
BARS = {
    "miss_ns": (60, "most", "a stranger's packet dropped, ns"),
    "miss_mpps": (8, "least", "the same from live frames on one core, million a second"),
    "miss_ratio_parse": (2, "most", "the same against a program that parses and drops"),
    "nat_ratio_lookup": (1.5, "most", "NAT and every check against a bare look-up and redirect, the worse way"),
    "tcp_window_ratio": (2, "most", "with against without TCP tracking, hot"),
    "tag_ratio_64": (2, "most", "tagged datagram against SipHash-2-4 alone, 64 bytes"),
    "tag_ratio_512": (1.4, "most", "512 bytes"),
    "tag_ratio_1400": (1.3, "most", "1400 bytes"),
    "growth_ratio": (1.2, "most", "cost at a million flows / at one, against the same of a bare look-up, the worse way"),
    "flood_goodput": (0.95, "least", "goodput of an accepted flow under flood / without"),
    "cpu_ratio_conntrack": (2.5, "least", "CPU a flood packet costs nftables' connection tracking / costs the gate"),
    "grants_per_s": (20000, "least", "grants a second over one connection"),
}


class Result:
    """Figures by key: a list of one number a round."""

    def __init__(self, runs):
        self.runs = runs
        self.rows = {}

    def add(self, key, rounds, text="", limit=None):
        """rounds: one number for each round. limit: what kept the figure from being better, in words."""
        rounds = list(rounds)
        self.rows[key] = {"value": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds,
                          "text": text or BARS.get(key, (0, 0, ""))[2], "limit": limit}

    def value(self, key):
        return self.rows[key]["value"]

    def verdict(self, key):
        """"pass", "short", or None for a figure without a bar."""
        if key not in BARS:
            return None
        bar, way, _ = BARS[key]
        value = self.value(key)
        return "pass" if (value <= bar if way == "most" else value >= bar) else "short"

    def document(self):
        doc = {k: significant(r["value"]) for k, r in self.rows.items()}
        doc["runs"] = self.runs
        doc["spread"] = {k: [significant(r["min"]), significant(r["max"])] for k, r in self.rows.items()}
        doc["bars"] = {k: {"bar": b[0], "at": b[1], "verdict": self.verdict(k) if k in self.rows else "not measured"} for k, b in BARS.items()}
        doc["limits"] = {k: r["limit"] for k, r in self.rows.items() if r["limit"]}
        return doc


def significant(v):
    return float(f"{v:.4g}") if abs(v) < 10000 else round(v)


def number(v):
    if abs(v) >= 10000:
        return f"{v:,.0f}"
    return f"{v:.1f}" if abs(v) >= 20 else f"{v:.2f}"


def table(result):
    """Those with a bar first, then the rest."""
    rows = [("figure", "median", "min - max", "bar", "", "")]
    notes = []
    keys = [k for k in BARS if k in result.rows] + [None] + [k for k in result.rows if k not in BARS]
    for k in keys:
        if k is None:
            rows.append(("",) * 6)
            continue
        r = result.rows[k]
        bar = ("<= " if BARS[k][1] == "most" else ">= ") + f"{BARS[k][0]:g}" if k in BARS else ""
        rows.append((k, number(r["value"]), f"{number(r['min'])} - {number(r['max'])}", bar, result.verdict(k) or "", r["text"]))
        if r["limit"]:
            notes.append(f"{k}: {r['limit']}")
    wide = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        lines.append("  ".join((row[0].ljust(wide[0]), row[1].rjust(wide[1]), row[2].rjust(wide[2]), row[3].ljust(wide[3]),
                                row[4].ljust(wide[4]), row[5])).rstrip())
    return "\n".join(lines + notes)
