# SPDX-License-Identifier: Apache-2.0
"""Those who get nothing: strangers who are challenged, and what is refused without an answer."""
from statistics import median

from inside import Failure
from world import drained, sockets

# 16 datagrams a send from one address; the server sees single datagrams.
DROPS = ("bye", "ack")


def challenge(w, out):
    """Closed loop, 1,024 unanswered at most, 4,096 addresses and 16 ports."""
    got = {}
    for _ in range(w.o.runs):
        for kind in ("walnut", "echo", "kamailio"):
            s = w.server(kind)
            r, busy = w.work("strangers", s, "--service", s.service)
            if kind != "echo" and (r["other"] > 0 or r["answered"] < 0.99 * r["sent"]):
                raise Failure(f"{kind}: {r}")
            got.setdefault(kind, []).append((r["answered"] + r["other"]) / busy)
    out.add("challenge_ratio_echo", [a / b for a, b in zip(got["walnut"], got["echo"])])
    limit = [a / b for a, b in zip(got["echo"], got["kamailio"])]
    out.add("challenge_ratio_kamailio", [a / b for a, b in zip(got["walnut"], got["kamailio"])],
            limit=f"the bare loop, which reads nothing, is {median(limit):.2f} times Kamailio here")
    out.add("challenge_limit_kamailio", limit, "a bare loop's echoes a CPU-second / Kamailio's 407s")
    for kind, what in (("walnut", "the front"), ("echo", "a bare loop that echoes"), ("kamailio", "Kamailio")):
        out.add(f"challenge_{kind}_per_cpu_s", got[kind], f"answers to strangers a CPU-second: {what}")


def poured(w, kind, mode, *words):
    """-> datagrams that the server took a CPU-second, as it did not answer any; share that its socket had no room for."""
    s = w.server(kind)
    before = sockets(s.port)[1]
    with w.timed() as core:
        r = w.load(mode, s, "--segments", "16", *words)
        drained(s.port)
    w.note(core)
    lost = sockets(s.port)[1] - before
    return (r["sent"] - lost) / core.busy, lost / max(r["sent"], 1)


def drop(w, out):
    got = {}
    for _ in range(w.o.runs):
        for what in DROPS:
            words = ["nodialog", "--method", what.upper()]
            for kind in ("walnut", "drop"):
                got.setdefault((kind, what), []).append(poured(w, kind, *words)[0])
    ratio = {what: [a / b for a, b in zip(got["walnut", what], got["drop", what])] for what in DROPS}
    out.add("drop_ratio_bare", [min(r) for r in zip(*ratio.values())])
    for what in DROPS:
        out.add(f"drop_ratio_{what}", ratio[what], f"… {what}")
        out.add(f"drop_{what}_per_cpu_s", got["walnut", what], "refused without an answer a CPU-second")
        out.add(f"drop_{what}_bare_per_cpu_s", got["drop", what], "the same datagrams received and dropped")
