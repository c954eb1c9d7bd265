# SPDX-License-Identifier: Apache-2.0
"""Figures of a bench: rounds, bars, verdicts, the table and the document."""
import json
import os
import platform
import statistics


class Result:
    """Figures by key: a list of one number a round. bars: key -> (bar, "most" or "least", what it is)."""

    def __init__(self, runs, bars):
        self.runs, self.bars = runs, bars
        self.rows = {}

    def add(self, key, rounds, text="", limit=None):
        """rounds: one number for each round. limit: what kept the figure from being better, in words."""
        rounds = list(rounds)
        self.rows[key] = {"value": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds,
                          "text": text or self.bars.get(key, (0, 0, ""))[2], "limit": limit}

    def value(self, key):
        return self.rows[key]["value"]

    def verdict(self, key):
        """"pass", "short", or None for a figure without a bar."""
        if key not in self.bars:
            return None
        bar, way, _ = self.bars[key]
        value = self.value(key)
        return "pass" if (value <= bar if way == "most" else value >= bar) else "short"

    def document(self):
        doc = {k: significant(r["value"]) for k, r in self.rows.items()}
        doc["runs"] = self.runs
        doc["spread"] = {k: [significant(r["min"]), significant(r["max"])] for k, r in self.rows.items()}
        doc["bars"] = {k: {"bar": b[0], "at": b[1], "verdict": self.verdict(k) if k in self.rows else "not measured"} for k, b in self.bars.items()}
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
    keys = [k for k in result.bars if k in result.rows] + [None] + [k for k in result.rows if k not in result.bars]
    for k in keys:
        if k is None:
            rows.append(("",) * 6)
            continue
        r = result.rows[k]
        bar = ("<= " if result.bars[k][1] == "most" else ">= ") + f"{result.bars[k][0]:g}" if k in result.bars else ""
        rows.append((k, number(r["value"]), f"{number(r['min'])} - {number(r['max'])}", bar, result.verdict(k) or "", r["text"]))
        if r["limit"]:
            notes.append(f"{k}: {r['limit']}")
    wide = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        lines.append("  ".join((row[0].ljust(wide[0]), row[1].rjust(wide[1]), row[2].rjust(wide[2]), row[3].ljust(wide[3]),
                                row[4].ljust(wide[4]), row[5])).rstrip())
    return "\n".join(lines + notes)


def machine():
    model = "unknown"
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {"processor": model, "cores": os.cpu_count(), "kernel": platform.release(), "load": round(os.getloadavg()[0], 2)}


def write(result, path, failed):
    """The document, with the machine and what could not be measured."""
    out = result.document()
    out["machine"], out["failed"] = machine(), failed
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(out, f, indent=1)
        f.write("\n")
    os.rename(path + ".new", path)
