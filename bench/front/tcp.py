# SPDX-License-Identifier: Apache-2.0
"""Calls over TCP, a new connection each, from 4,096 addresses; the respondent is on UDP."""
import world
from inside import Failure

WINDOW = 128
SPINNERS = 3     # beside the server in overload
RATE = 60000     # calls a second that are wanted: more than the generator can make
PATIENCE_MS = 2000


def load(w, s, *words, **kw):
    return w.load("tcp", s, "--uas", world.UAS, *words, **kw)


def plain(w, out):
    """No authentication, 128 calls open."""
    got = {}
    for _ in range(w.o.runs):
        for kind in ("walnut_tcp", "kamailio_tcp"):
            s = w.server(kind)
            r, busy = w.work("tcp", s, "--uas", world.UAS, "--window", WINDOW, "--service", s.open_service)
            if r["completed"] < 0.98 * r["calls"] or r["completed"] == 0:
                raise Failure(f"{kind}: {r}")
            got.setdefault(kind, []).append(r["completed"] / busy)
    out.add("tcp_ratio_kamailio", [a / b for a, b in zip(got["walnut_tcp"], got["kamailio_tcp"])])
    for kind, rates in got.items():
        out.add(f"tcp_{kind}_per_cpu_s", rates, f"calls over TCP a CPU-second, {kind}")


def overload(w, out):
    """A challenge a call. Busy loops take their shares of the server's core, so that one generator can offer more than twice what the server can
    serve. The peak is the best of two closed loops."""
    s, got = w.server("walnut_tcp"), {}
    words = ("--auth", "challenge", "--alg", "sha-256", "--service", s.service)
    spinners = [w.start(f"spin{i}", [w.program("front-bare"), "spin"], w.o.cpu) for i in range(SPINNERS)]
    try:
        for _ in range(w.o.runs):
            peak = max((r["completed_while"] / r["load_seconds"] for r in (load(w, s, *words, "--window", n) for n in (64, 256))))
            r = load(w, s, *words, "--rate", RATE, "--deadline", PATIENCE_MS, seconds=3)
            if peak <= 0:
                raise Failure(f"{r}")
            for key, value in (("goodput", r["completed_while"] / r["load_seconds"] / peak), ("factor", r["calls"] / r["load_seconds"] / peak), ("peak", peak),
                               ("aborted", r["aborted"] / r["calls"]), ("refused", r["refused"] / r["calls"]), ("late", r["late"] / r["calls"])):
                got.setdefault(key, []).append(value)
    finally:
        for p in spinners:
            w.stop(p)
    few = min(got["factor"])
    notes = [f"only {few:.1f} times the peak was offered in one round"] if few < 2 else []
    if max(got["aborted"]) > 0:
        notes.append(f"up to {max(got['aborted']):.2%} of the connections were aborted")
    out.add("tcp_overload_goodput", got["goodput"], limit="; ".join(notes) or None)
    out.add("tcp_overload_factor", got["factor"], "calls that were offered / the peak")
    out.add("tcp_overload_peak_per_s", got["peak"], f"calls a second at the peak, {SPINNERS} busy loops beside the server")
    for key, what in (("refused", "refused with a status"), ("late", f"given up after {PATIENCE_MS / 1000:g} s"), ("aborted", "reset or closed by the front")):
        out.add(f"tcp_overload_{key}", got[key], f"share of the calls that were {what}")
